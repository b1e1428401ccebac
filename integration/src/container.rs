//! A container that exists.

use std::cell::Cell;
use std::path::PathBuf;

use serde_json::Value;

use crate::cgroup;
use crate::lab::{Command, Lab, Running, eventually, wait_for_child};
use crate::output::{End, Output, lines};

pub struct Container<'a> {
    pub id: String,
    lab: &'a Lab,
    created: Running,
    pid: Cell<Option<i32>>,
}

impl<'a> Container<'a> {
    pub fn new(lab: &'a Lab, id: String, created: Running) -> Self {
        Container {
            id,
            lab,
            created,
            pid: Cell::new(None),
        }
    }

    /// `COMMAND OPTIONS... ID`
    pub fn command(&self, command: &str, options: &[&str]) -> Command {
        let mut args = vec![command];
        args.extend(options);
        args.push(&self.id);
        self.lab.runtime(args)
    }

    #[track_caller]
    pub fn start(&self) {
        self.pid();
        self.command("start", &[]).run().ok();
    }

    #[track_caller]
    pub fn state(&self) -> Value {
        self.command("state", &[]).run().ok().json()
    }

    #[track_caller]
    pub fn status(&self) -> String {
        self.state()["status"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    #[track_caller]
    pub fn pid(&self) -> i32 {
        if let Some(pid) = self.pid.get() {
            return pid;
        }
        let pid = self.state()["pid"].as_i64().expect("state has a pid");
        let pid = i32::try_from(pid).unwrap();
        self.pid.set(Some(pid));
        pid
    }

    pub fn kill_with(&self, signal: &str) -> Output {
        self.lab.runtime(["kill", &self.id, signal]).run()
    }

    #[track_caller]
    pub fn kill(&self, signal: &str) {
        self.pid();
        self.kill_with(signal).ok();
    }

    /// Waits until the container's process has ended, as its engine would.
    #[track_caller]
    pub fn wait(&self) -> End {
        wait_for_child(self.pid())
    }

    #[track_caller]
    pub fn delete(&self) {
        self.command("delete", &[]).run().ok();
    }

    #[track_caller]
    pub fn force_delete(&self) {
        self.command("delete", &["--force"]).run().ok();
    }

    /// Kills, waits and deletes.
    #[track_caller]
    pub fn end(&self) {
        self.kill("KILL");
        self.wait();
        self.delete();
    }

    /// `exec OPTIONS... ID WORDS...`, the words parted at blanks.
    pub fn exec_with(&self, options: &[&str], words: &str) -> Command {
        let mut args = vec!["exec"];
        args.extend(options);
        args.push(&self.id);
        args.extend(words.split_whitespace());
        self.lab.runtime(args)
    }

    #[track_caller]
    pub fn exec(&self, words: &str) -> Output {
        self.exec_with(&[], words).run()
    }

    /// What the payload, executed with these operations, answers.
    #[track_caller]
    pub fn ask(&self, operations: &str) -> Vec<Value> {
        self.exec(&format!("{} {operations}", crate::bundle::PAYLOAD))
            .ok()
            .lines()
    }

    /// What the container's process has written so far.
    pub fn stdout(&self) -> String {
        self.created.stdout()
    }

    pub fn stderr(&self) -> String {
        self.created.stderr()
    }

    #[track_caller]
    pub fn lines(&self) -> Vec<Value> {
        lines(&self.stdout(), &self.stderr())
    }

    /// Waits until the process has written that many lines.
    #[track_caller]
    pub fn wait_for_lines(&self, count: usize) -> Vec<Value> {
        let seen = eventually(|| self.stdout().matches('\n').count() >= count);
        assert!(seen, "stdout: {}\nstderr: {}", self.stdout(), self.stderr());
        self.lines()
    }

    /// Where its cgroup is, unless config.json says otherwise.
    pub fn cgroup(&self) -> PathBuf {
        cgroup::path(&self.id)
    }

    #[track_caller]
    pub fn cgroup_file(&self, name: &str) -> String {
        let path = self.cgroup().join(name);
        let text = std::fs::read_to_string(&path);
        text.unwrap_or_else(|e| panic!("{}: {e}", path.display()))
            .trim()
            .to_owned()
    }
}
