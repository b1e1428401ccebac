//! One test's place: its directory, its `--root`, its commands, and at the end the proof
//! that nothing is left.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::fs;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::bundle::Bundle;
use crate::container::Container;
use crate::output::{End, Output};
use crate::{cgroup, mountinfo, need, sys, user};

pub struct Lab {
    /// On a tmpfs, this test's alone.
    pub dir: PathBuf,
    /// `--root`; not there until the runtime makes it.
    pub root: PathBuf,
    pub runtime: PathBuf,
    payload: PathBuf,
    tag: String,
    next: Cell<u32>,
    mounts: Vec<String>,
    /// Before every command: who runs it, and where.
    through: Vec<String>,
    /// Whose the bundles are, if not root's.
    owner: Option<u32>,
}

/// How long any one step may take before it counts as hung.
pub fn patience() -> Duration {
    let factor = std::env::var("HUSK_SUITE_PATIENCE")
        .ok()
        .and_then(|v| v.parse().ok());
    Duration::from_secs(10) * factor.unwrap_or(1)
}

/// Tries again until it is true or patience is at its end.
pub fn eventually(mut what: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience();
    loop {
        if what() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

impl Lab {
    pub fn new(dir: PathBuf, runtime: PathBuf, payload: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        sys::become_subreaper()?;
        Ok(Lab {
            root: dir.join("root"),
            dir,
            runtime,
            payload,
            tag: format!("t{}", std::process::id()),
            next: Cell::new(0),
            mounts: mountinfo::targets(),
            through: Vec::new(),
            owner: None,
        })
    }

    /// The same with a copy of the runtime, which nobody else executes. An attempt to open a binary for
    /// writing, though it fails, keeps others from executing it for that instant (ETXTBSY).
    pub fn with_own_runtime(&self) -> Lab {
        let own = self.path("own");
        fs::create_dir(&own).unwrap();
        let runtime = own.join(self.runtime.file_name().unwrap());
        fs::copy(&self.runtime, &runtime).unwrap();
        Lab {
            dir: own,
            root: self.root.clone(),
            runtime,
            payload: self.payload.clone(),
            tag: format!("{}-own", self.tag),
            next: Cell::new(0),
            mounts: self.mounts.clone(),
            through: self.through.clone(),
            owner: self.owner,
        }
    }

    /// The same for an ordinary user, whose the bundles and `--root` are. `around` stands before the
    /// change of user, for what only root may do. The copy of the runtime is where the user can reach it.
    pub fn as_user(&self, around: Vec<String>) -> Lab {
        let mut lab = self.with_own_runtime();
        lab.root = self.root.clone();
        fs::create_dir_all(&lab.root).unwrap();
        user::give(&lab.root);
        user::give(&lab.dir);
        lab.through = around;
        lab.through.extend(user::become_user());
        lab.owner = Some(user::UID);
        lab
    }

    /// More words in front of every command, after those that are there.
    pub fn further_through(mut self, words: &[&str]) -> Lab {
        self.through
            .extend(words.iter().map(|word| (*word).to_owned()));
        self
    }

    pub fn is_husk(&self) -> bool {
        need::is_husk(&self.runtime)
    }

    /// What its ids begin with.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    fn number(&self) -> u32 {
        self.next.replace(self.next.get() + 1)
    }

    /// A fresh container id, which is the name of its cgroup as well.
    pub fn id(&self) -> String {
        format!("{}-{}", self.tag, self.number())
    }

    /// A fresh path in this test's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}-{}", self.number()))
    }

    /// The payload on the host's side, for hooks.
    pub fn host_payload(&self) -> &str {
        self.payload.to_str().unwrap()
    }

    pub fn bundle(&self) -> Bundle {
        let bundle = Bundle::new(self.path("bundle"), &self.payload);
        match self.owner {
            Some(_) => {
                user::give(&bundle.dir);
                bundle.rootless()
            }
            None => bundle,
        }
    }

    /// The runtime with `--root` and these arguments.
    pub fn runtime<S: AsRef<str>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.bare(args);
        command.globals = vec!["--root".into(), self.root.to_str().unwrap().into()];
        command
    }

    /// The runtime with these arguments only.
    pub fn bare<S: AsRef<str>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        Command {
            program: self.runtime.clone(),
            globals: Vec::new(),
            args: args
                .into_iter()
                .map(|arg| arg.as_ref().to_owned())
                .collect(),
            through: self.through.clone(),
            env: Vec::new(),
            cwd: self.dir.clone(),
            stdin: None,
            stdout: None,
            fds: Vec::new(),
            patience: patience(),
        }
    }

    /// `run`, in the foreground.
    pub fn run(&self, bundle: &Bundle) -> Output {
        self.run_with(bundle, &[]).run()
    }

    pub fn run_with(&self, bundle: &Bundle, options: &[&str]) -> Command {
        self.on_bundle("run", bundle, options, &self.id())
    }

    /// What the payload in this bundle says about itself.
    #[track_caller]
    pub fn facts(&self, bundle: &Bundle) -> serde_json::Value {
        self.run(bundle).ok().line()
    }

    /// The payload's answers to these operations, parted by ` -- `.
    #[track_caller]
    pub fn ask(&self, bundle: Bundle, operations: &str) -> Vec<serde_json::Value> {
        self.run(&bundle.payload(operations)).ok().lines()
    }

    /// The payload's answers, or `None` when the runtime says that it can't do what stands
    /// at this place of config.json: doing without it in silence is the one thing not allowed.
    #[track_caller]
    pub fn ask_or_refused(
        &self,
        bundle: Bundle,
        operations: &str,
        pointer: &str,
    ) -> Option<Vec<serde_json::Value>> {
        let output = self.run(&bundle.payload(operations));
        if output.end == End::Code(1) {
            output.refused().says(pointer);
            return None;
        }
        Some(output.ok().lines())
    }

    #[track_caller]
    pub fn create(&self, bundle: &Bundle) -> Container<'_> {
        self.create_with(bundle, &[])
    }

    #[track_caller]
    pub fn create_with(&self, bundle: &Bundle, options: &[&str]) -> Container<'_> {
        let id = self.id();
        let mut running = self.on_bundle("create", bundle, options, &id).spawn();
        running.wait().ok();
        Container::new(self, id, running)
    }

    /// Created and started.
    #[track_caller]
    pub fn start(&self, bundle: &Bundle) -> Container<'_> {
        let container = self.create(bundle);
        container.start();
        container
    }

    pub fn on_bundle(&self, command: &str, bundle: &Bundle, options: &[&str], id: &str) -> Command {
        bundle.write(id);
        let mut args = vec![command, "--bundle", bundle.dir.to_str().unwrap()];
        args.extend(options);
        args.push(id);
        self.runtime(args)
    }

    /// Whatever the runtime made is gone: its records, cgroups, mounts and processes.
    pub fn finish(&self) -> Result<(), String> {
        let mut left = Vec::new();
        let gone = eventually(|| {
            left = self.left();
            left.is_empty()
        });
        if gone {
            return Ok(());
        }
        Err(format!("left behind: {}", left.join(", ")))
    }

    /// What is still there of it.
    pub fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            left.push(entry.path().display().to_string());
        }
        for prefix in ["", "husk-"] {
            for dir in cgroup::beginning(&format!("{prefix}{}-", self.tag)) {
                left.push(dir.display().to_string());
            }
        }
        let mut known = self.mounts.clone();
        for mount in mountinfo::targets() {
            match known.iter().position(|target| *target == mount) {
                Some(index) => drop(known.swap_remove(index)),
                None => left.push(format!("mount {mount}")),
            }
        }
        left.extend(
            known
                .iter()
                .map(|target| format!("no mount {target} any more")),
        );
        if let Some(process) = living_child() {
            left.push(process);
        }
        left
    }
}

/// Reaps what is dead; a child that still lives.
fn living_child() -> Option<String> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => break,
            Ok(_) => {}
            Err(_) => return None,
        }
    }
    let own = std::process::id();
    let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children"));
    let pid = children.ok()?.split_whitespace().next()?.to_owned();
    let words = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    Some(format!("process {pid}: {}", words.replace('\0', " ")))
}

pub struct Command {
    program: PathBuf,
    /// Words before it.
    through: Vec<String>,
    globals: Vec<String>,
    args: Vec<String>,
    env: Vec<(String, String)>,
    cwd: PathBuf,
    stdin: Option<Stdio>,
    stdout: Option<OwnedFd>,
    fds: Vec<(OwnedFd, RawFd)>,
    patience: Duration,
}

impl Command {
    /// Options that stand before the command.
    pub fn global(mut self, options: &[&str]) -> Self {
        self.globals.extend(options.iter().map(|s| (*s).to_owned()));
        self
    }

    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.into(), value.into()));
        self
    }

    /// Runs the whole through another program, as in `env VAR=x husk …`.
    pub fn through(mut self, words: &[&str]) -> Self {
        let words = words.iter().map(|word| (*word).to_owned());
        self.through = words.chain(self.through).collect();
        self
    }

    /// The same, right before the runtime.
    pub fn last_through(mut self, words: &[&str]) -> Self {
        self.through
            .extend(words.iter().map(|word| (*word).to_owned()));
        self
    }

    pub fn cwd(mut self, dir: impl AsRef<Path>) -> Self {
        self.cwd = dir.as_ref().to_owned();
        self
    }

    pub fn stdin_text(mut self, text: &str) -> Self {
        let mut file = sys::memfd("stdin").unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.rewind().unwrap();
        self.stdin = Some(file.into());
        self
    }

    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.stdin = Some(stdin.into());
        self
    }

    /// Instead of the file from which `Output::stdout` is read.
    pub fn stdout(mut self, fd: impl Into<OwnedFd>) -> Self {
        self.stdout = Some(fd.into());
        self
    }

    /// The runtime inherits this under that number.
    pub fn fd(mut self, fd: impl Into<OwnedFd>, number: RawFd) -> Self {
        self.fds.push((fd.into(), number));
        self
    }

    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    #[track_caller]
    pub fn run(self) -> Output {
        self.spawn().wait()
    }

    #[track_caller]
    pub fn spawn(self) -> Running {
        self.spawn_after(|| Ok(()))
    }

    /// `prepare` runs in the child right before it becomes the runtime.
    #[track_caller]
    pub fn spawn_after(
        self,
        prepare: impl Fn() -> io::Result<()> + Send + Sync + 'static,
    ) -> Running {
        let stdout = sys::memfd("stdout").unwrap();
        let stderr = sys::memfd("stderr").unwrap();
        let mut words = self.through.clone();
        words.push(self.program.to_str().unwrap().to_owned());
        let line = words
            .iter()
            .cloned()
            .chain(self.globals.iter().cloned())
            .chain(self.args.iter().cloned())
            .collect::<Vec<_>>()
            .join(" ");
        let mut command = std::process::Command::new(&words[0]);
        command
            .args(&words[1..])
            .args(&self.globals)
            .args(&self.args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(self.env)
            .current_dir(&self.cwd)
            .stdin(self.stdin.unwrap_or_else(Stdio::null))
            .stdout(match self.stdout {
                Some(fd) => Stdio::from(fd),
                None => stdout.try_clone().unwrap().into(),
            })
            .stderr(stderr.try_clone().unwrap());
        let fds = self.fds;
        // SAFETY: between fork and exec there are only system calls.
        unsafe {
            command.pre_exec(move || {
                for (fd, number) in &fds {
                    sys::place(fd.as_raw_fd(), *number)?;
                }
                prepare()
            });
        }
        // An attempt to open husk's binary for writing, which fails, keeps others from executing it for
        // that instant (ETXTBSY); the tests of CVE-2019-5736 make thousands beside this one.
        let mut tries = 0;
        let child = loop {
            match command.spawn() {
                Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && tries < 200 => {
                    tries += 1;
                    std::thread::sleep(Duration::from_millis(5));
                }
                spawned => break spawned.unwrap_or_else(|error| panic!("{line}: {error}")),
            }
        };
        OWN.with_borrow_mut(|own| own.insert(child.id().try_into().unwrap()));
        Running {
            child,
            line,
            stdout,
            stderr,
            patience: self.patience,
        }
    }
}

/// A command that has been started.
pub struct Running {
    child: Child,
    line: String,
    stdout: File,
    stderr: File,
    patience: Duration,
}

impl Running {
    pub fn pid(&self) -> i32 {
        self.child.id().try_into().unwrap()
    }

    /// Kills a command that hangs and says where it hung.
    #[track_caller]
    pub fn wait(&mut self) -> Output {
        let status = match self.child.try_wait().unwrap() {
            Some(status) => status,
            None => {
                let pidfd = sys::pidfd_open(self.pid()).unwrap();
                if !sys::readable(&pidfd, self.patience).unwrap() {
                    let place = self.place();
                    self.child.kill().unwrap();
                    self.child.wait().unwrap();
                    panic!(
                        "hung: {}\n  {place}\n  stderr: {}",
                        self.line,
                        self.stderr()
                    );
                }
                self.child.wait().unwrap()
            }
        };
        Output {
            command: self.line.clone(),
            end: match status.code() {
                Some(code) => End::Code(code),
                None => End::Signal(status.signal().unwrap_or(0)),
            },
            stdout: self.stdout(),
            stderr: self.stderr(),
        }
    }

    pub fn line(&self) -> &str {
        &self.line
    }

    pub fn stdout(&self) -> String {
        read(&self.stdout)
    }

    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }

    fn place(&self) -> String {
        let read = |name: &str| {
            fs::read_to_string(format!("/proc/{}/{name}", self.pid())).unwrap_or_default()
        };
        format!(
            "wchan {}, syscall {}",
            read("wchan"),
            read("syscall").trim()
        )
    }
}

/// From the beginning, without moving the offset that the writer shares.
fn read(file: &File) -> String {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|mut f| f.read_to_end(&mut bytes))
        .unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

thread_local! {
    /// Children that `Running` waits for.
    static OWN: RefCell<HashSet<i32>> = RefCell::default();
    /// How the adopted ones ended that were reaped while waiting for others.
    static ENDED: RefCell<HashMap<i32, End>> = RefCell::default();
}

/// Waits for an adopted child: the process of a container or of an exec. Reaps all others
/// meanwhile, as the first process of a pid namespace can't end before they are reaped.
#[track_caller]
pub fn wait_for_child(pid: i32) -> End {
    let gone = eventually(|| {
        reap_adopted();
        ENDED.with_borrow(|ended| ended.contains_key(&pid))
            || fs::metadata(format!("/proc/{pid}")).is_err()
    });
    assert!(gone, "process {pid} goes on and on");
    let end = ENDED.with_borrow_mut(|ended| ended.remove(&pid));
    end.unwrap_or_else(|| panic!("process {pid} was not handed over to its creator's reaper"))
}

fn reap_adopted() {
    let own = std::process::id();
    let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children"));
    for child in children.unwrap_or_default().split_whitespace() {
        let Ok(pid) = child.parse() else { continue };
        if OWN.with_borrow(|own| own.contains(&pid)) {
            continue;
        }
        let end = match waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => End::Code(code),
            Ok(WaitStatus::Signaled(_, signal, _)) => End::Signal(signal as i32),
            _ => continue,
        };
        ENDED.with_borrow_mut(|ended| ended.insert(pid, end));
    }
}
