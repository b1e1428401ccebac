//! One case: a command that is struck, and what is then found.

mod aftermath;

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use husk_integration::bundle::Bundle;
use husk_integration::cgroup;
use husk_integration::lab::patience;
use husk_integration::output::End;
use husk_integration::receiver::Receiver;
use husk_integration::resctrl::StandIn;
use husk_integration::sys;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::device;
use super::facts::{self, Facts};
use super::ground::{Ground, MARK};
use super::lines::Lines;
use super::scenario::{CREATED, Place, SCHEMA, Scenario, Shape, UPDATED};
use super::tracer::{self, Command, Fault, Side, Strike, Traced};

/// `delete --force` has to be done within that time; what is slow is looked at again. On a machine that is emulated
/// time is another one.
pub fn second() -> Duration {
    patience() / 10
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// Something is there that `delete --force` doesn't remove, or it fails, or the id stays taken.
    Leak,
    /// A command doesn't end, or `delete --force` takes longer than a second.
    Hang,
    /// Success, and something isn't as it should be.
    Silent,
    /// A failure without a word that says what failed, or an end by a signal or an abort.
    Mute,
    /// A failed command left what it had made, though `delete --force` removes it.
    Untidy,
    /// EINTR or EAGAIN was not absorbed.
    Fragile,
    /// `state` or `list` fail, or say what isn't so.
    Blind,
}

pub const KINDS: [Kind; 7] = [
    Kind::Leak,
    Kind::Hang,
    Kind::Silent,
    Kind::Mute,
    Kind::Untidy,
    Kind::Fragile,
    Kind::Blind,
];

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Leak => "leak",
            Kind::Hang => "hang",
            Kind::Silent => "silent",
            Kind::Mute => "mute",
            Kind::Untidy => "untidy",
            Kind::Fragile => "fragile",
            Kind::Blind => "blind",
        }
    }
}

pub type Problem = (Kind, String);

pub struct Runtime {
    pub name: String,
    pub path: PathBuf,
}

/// A scenario on a runtime.
pub struct Bench<'a> {
    runtime: &'a Runtime,
    pub scenario: Scenario,
    place: Place,
    root: PathBuf,
    bundle: Bundle,
    /// What the program tells of itself where nothing is struck, but for what is never the same.
    facts: Facts,
    next: u32,
    /// Beside systemd itself, on a machine where others are at work, too.
    crowded: bool,
    resctrl: Option<StandIn>,
}

/// What a case has besides the command.
struct Held {
    receiver: Option<Receiver>,
    lines: Option<Lines>,
    /// The network device before the command.
    device: Option<Value>,
}

/// What a command that nobody strikes says.
struct Answer {
    end: Option<End>,
    stdout: String,
    stderr: String,
    took: Duration,
}

impl Answer {
    fn is_ok(&self) -> bool {
        self.end == Some(End::Code(0))
    }

    fn describe(&self) -> String {
        match self.end {
            None => "hangs".into(),
            Some(end) => format!("{end:?}: {}", self.stderr.trim().replace('\n', "; ")),
        }
    }
}

impl<'a> Bench<'a> {
    pub fn new(
        runtime: &'a Runtime,
        scenario: Scenario,
        dir: PathBuf,
        payload: &Path,
        crowded: bool,
    ) -> Self {
        let place = Place {
            bundle: dir.join("bundle"),
            console: dir.join("console.sock"),
            pidfds: dir.join("pidfd.sock"),
            dir: dir.clone(),
        };
        let root = dir.join("root");
        fs::create_dir_all(&root).unwrap();
        let bundle = scenario.bundle(place.bundle.clone(), payload);
        if scenario.shape == Shape::PodsDevice {
            device::make_pod(&dir.join("pod")).unwrap();
        }
        let resctrl = scenario
            .has_group()
            .then(|| StandIn::start(&dir.join("resctrl")).unwrap());
        Bench {
            runtime,
            scenario,
            bundle,
            root,
            place,
            facts: Facts::new(),
            next: 0,
            crowded,
            resctrl,
        }
    }

    fn args(&self, words: &[String]) -> Vec<String> {
        let mut args = vec!["--root".to_owned(), self.root.display().to_string()];
        if self.scenario.is_by_systemd() {
            args.push("--systemd-cgroup".into());
        }
        args.extend_from_slice(words);
        args
    }

    fn ask(&self, words: &[&str]) -> Answer {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        self.ask_to(&words, &sys::memfd("stdout").unwrap())
    }

    /// Its standard output goes on to the container.
    fn ask_to(&self, words: &[String], stdout: &File) -> Answer {
        let stderr = sys::memfd("stderr").unwrap();
        let begin = Instant::now();
        let mut command = std::process::Command::new(&self.runtime.path);
        if let Some(door) = self.resctrl.as_ref().map(StandIn::door) {
            // SAFETY: between fork and exec there are only system calls.
            unsafe { command.pre_exec(move || door.enter()) };
        }
        let mut child = command
            .args(self.args(words))
            .current_dir(&self.place.dir)
            .stdin(Stdio::null())
            .stdout(stdout.try_clone().unwrap())
            .stderr(stderr.try_clone().unwrap())
            .spawn()
            .unwrap();
        let pidfd = sys::pidfd_open(i32::try_from(child.id()).unwrap()).unwrap();
        let in_time = sys::readable(&pidfd, patience()).unwrap();
        if !in_time {
            child.kill().unwrap();
        }
        let status = child.wait().unwrap();
        Answer {
            end: in_time.then(|| match status.code() {
                Some(code) => End::Code(code),
                None => End::Signal(0),
            }),
            stdout: text(stdout),
            stderr: text(&stderr),
            took: begin.elapsed(),
        }
    }

    /// Without a strike, twice: the calls of each side, and what is true of a success.
    ///
    /// # Errors
    /// The runtime can't do it here.
    pub fn rehearse(&mut self) -> Result<Vec<(Side, Vec<&'static str>)>, String> {
        let mut calls = Vec::new();
        for side in self.scenario.sides() {
            let (traced, problems) = self.run(*side, None)?;
            if let Some((_, problem)) = problems.first() {
                return Err(problem.clone());
            }
            calls.push((*side, traced.calls));
        }
        if self.scenario.tells() {
            let mut first = std::mem::take(&mut self.facts);
            self.run(Side::Parent, None)?;
            first.retain(|key, value| self.facts.get(key) == Some(value));
            self.facts = first;
            if self.facts.len() < 50 {
                return Err("the program tells too little".into());
            }
        }
        Ok(calls)
    }

    /// One case. Without a strike the facts are learned.
    pub fn run(
        &mut self,
        side: Side,
        strike: Option<Strike>,
    ) -> Result<(Traced, Vec<Problem>), String> {
        let id = format!("{MARK}{}", self.next);
        self.bundle.write(&id);
        let device = self.scenario.has_device().then(|| {
            device::make();
            device::portrait()
        });
        let passes = self.scenario.shape == Shape::Descriptors;
        let lines = passes.then(|| Lines::new(&self.place.pidfds)).transpose();
        let lines = lines.map_err(|error| error.to_string())?;
        let ground = Ground::new(&[&self.place.dir, Path::new("/run")], self.crowded);
        let receiver =
            (self.scenario.shape == Shape::Terminal).then(|| Receiver::new(&self.place.console));
        let stdout = sys::memfd("container").unwrap();
        let waiting = self.prepare(&id, &stdout)?;
        let (said, errors) = (sys::memfd("stdout").unwrap(), sys::memfd("stderr").unwrap());
        let passes_on = matches!(self.scenario.command, "create" | "run" | "exec");
        let words = self.args(
            &self
                .scenario
                .words(&id, &self.place, self.runtime.name == "husk"),
        );
        let command = Command {
            program: &self.runtime.path,
            args: &words,
            directory: &self.place.dir,
            stdout: if passes_on { &stdout } else { &said },
            stderr: &errors,
            passed: &lines.as_ref().map(Lines::ends).unwrap_or_default(),
            resctrl: self.resctrl.as_ref(),
            waiting,
            confined: self.scenario.shape == Shape::UserNamespace,
            patience: patience(),
        };
        let traced = tracer::run(&command, side, strike).map_err(|error| error.to_string())?;
        let mut problems = Vec::new();
        if let Some(place) = &traced.hung {
            problems.push((Kind::Hang, format!("{}: {place}", self.scenario.command)));
        } else if traced.end == End::Code(0) {
            let pidfds = lines.as_ref().map(|lines| &lines.pidfds);
            let seen = self.success(&id, &stdout, receiver.as_ref(), pidfds);
            let killed = matches!(
                strike,
                Some(Strike {
                    side: Side::Child,
                    fault: Fault::Kill,
                    ..
                })
            );
            match (seen, strike) {
                // What it has made may have ended right after its success, as it was killed.
                (Err(_), _) if killed && self.status(&id).as_deref() == Some("stopped") => {}
                (Err(what), _) => problems.push((Kind::Silent, what)),
                (Ok(facts), None) => self.facts = facts,
                (Ok(facts), Some(_)) => problems
                    .extend(facts::compare(&self.facts, &facts).map(|what| (Kind::Silent, what))),
            }
        } else if strike.is_none() {
            problems.push((Kind::Mute, text(&errors)));
        } else {
            self.failure(&id, &traced, &text(&errors), &ground, &mut problems);
        }
        let held = Held {
            receiver,
            lines,
            device: device.flatten(),
        };
        self.aftermath(&id, &traced, &ground, held, &mut problems);
        Ok((traced, problems))
    }

    /// What the command needs; the process that the child's side begins with, if it is there.
    fn prepare(&mut self, id: &str, stdout: &File) -> Result<Option<i32>, String> {
        if !self.scenario.is_created_before() {
            return Ok(None);
        }
        let must = |answer: Answer| match answer.is_ok() {
            true => Ok(answer),
            false => Err(answer.describe()),
        };
        let mut words = vec!["create".to_owned()];
        words.extend(self.place.of_bundle(self.scenario.shape));
        words.push(id.to_owned());
        must(self.ask_to(&words, stdout))?;
        let state = must(self.ask(&["state", id]))?;
        let state: Value =
            serde_json::from_str(&state.stdout).map_err(|error| error.to_string())?;
        let pid = state["pid"]
            .as_i64()
            .and_then(|pid| i32::try_from(pid).ok());
        if self.scenario.is_started_before() {
            must(self.ask(&["start", id]))?;
        }
        match (self.scenario.command, self.scenario.shape) {
            ("resume", _) => drop(must(self.ask(&["pause", id]))?),
            ("delete", Shape::Plain | Shape::Hooks | Shape::Systemd | Shape::Rdt) => {
                let stopped = || self.status(id).as_deref() == Some("stopped");
                if !within(Duration::from_secs(5), stopped) {
                    return Err("the container doesn't stop".into());
                }
            }
            ("start", _) => {}
            // So that the program has executed, and nothing else goes on.
            _ => {
                if !within(Duration::from_secs(5), || text(stdout).contains("ready")) {
                    return Err("the program doesn't get ready".into());
                }
            }
        }
        Ok(pid)
    }

    fn status(&self, id: &str) -> Option<String> {
        let answer = self.ask(&["state", id]);
        let state: Value = serde_json::from_str(&answer.stdout).ok()?;
        state["status"].as_str().map(str::to_owned)
    }

    /// Whether a command that says so has done what it should; what the program told.
    fn success(
        &self,
        id: &str,
        stdout: &File,
        receiver: Option<&Receiver>,
        pidfds: Option<&Receiver>,
    ) -> Result<Facts, String> {
        let status = |wanted: &str| match self.status(id) {
            Some(status) if status == wanted => Ok(()),
            status => Err(format!(
                "success, but the container is {status:?}, not {wanted}"
            )),
        };
        let file = |(name, value): (&str, &str)| {
            let path = self.scenario.cgroup(id).join(name);
            match fs::read_to_string(&path) {
                Ok(text) if text.trim() == value => Ok(()),
                found => Err(format!("success, but {name} is {found:?}")),
            }
        };
        let comes = |pidfds: &Receiver| self.runtime.name != "husk" || pidfds.has_waiting();
        if !pidfds.is_none_or(comes) {
            return Err("success, but no pidfd came".into());
        }
        if let Some(resctrl) = &self.resctrl
            && matches!(self.scenario.command, "create" | "exec")
        {
            for group in [id, &format!("{id}/mon_groups/{id}")] {
                if resctrl.tasks(group).is_empty() {
                    return Err(format!(
                        "success, but nobody is in the resctrl group {group}"
                    ));
                }
            }
        }
        match self.scenario.command {
            "create" => {
                status("created")?;
                file(CREATED)?;
                let terminal = receiver.map(|receiver| match receiver.has_waiting() {
                    true => Ok(receiver.receive().0),
                    false => Err("success, but no terminal came"),
                });
                let terminal = terminal.transpose()?;
                let started = self.ask(&["start", id]);
                if !started.is_ok() {
                    return Err(format!("created, but start {}", started.describe()));
                }
                match terminal {
                    Some(master) => facts::told(id, || {
                        facts::read_some(&File::from(master.try_clone().unwrap()))
                    }),
                    None => facts::told(id, || text(stdout)),
                }
            }
            "start" => {
                status("running")?;
                facts::told(id, || text(stdout))
            }
            "run" | "exec" => facts::told(id, || text(stdout)),
            "update" if self.scenario.has_group() => {
                let path = self.place.dir.join("resctrl").join(id).join("schemata");
                match fs::read_to_string(&path) {
                    Ok(text) if text.trim() == SCHEMA => Ok(Facts::new()),
                    found => Err(format!("success, but schemata is {found:?}")),
                }
            }
            "update" => file(UPDATED).map(|()| Facts::new()),
            "pause" => status("paused").map(|()| Facts::new()),
            "resume" => status("running").map(|()| Facts::new()),
            "kill" => match within(second(), || self.status(id).as_deref() == Some("stopped")) {
                true => Ok(Facts::new()),
                false => Err("success, but it wasn't killed".into()),
            },
            _ => match self.ask(&["state", id]).is_ok() {
                false => Ok(Facts::new()),
                true => Err("success, but it is still there".into()),
            },
        }
    }

    /// What is wrong with the way in which a command failed.
    fn failure(
        &self,
        id: &str,
        traced: &Traced,
        words: &str,
        ground: &Ground,
        problems: &mut Vec<Problem>,
    ) {
        let Some((_, errno)) = traced.struck else {
            problems.push((Kind::Mute, format!("it failed unstruck: {words}")));
            return;
        };
        let Some(errno) = errno else {
            // The parent was killed, or says what happened to its child: by its own status, if that was the
            // program already as far as one can see.
            let as_child = matches!(self.scenario.command, "run" | "exec");
            let told = as_child && traced.end == End::Code(128 + libc::SIGKILL);
            if traced.end != End::Signal(libc::SIGKILL) && !told {
                problems.extend(mute(traced.end, words));
            }
            return;
        };
        problems.extend(mute(traced.end, words));
        if errno == Errno::EINTR {
            problems.push((Kind::Fragile, format!("EINTR: {}", one_line(words))));
        }
        if matches!(self.scenario.command, "create" | "run") {
            for thing in ground.left(Duration::from_millis(500)) {
                let own = thing.to_string();
                if !own.ends_with("console.sock") {
                    problems.push((Kind::Untidy, format!("{own}: {}", one_line(words))));
                }
            }
        }
        if self.scenario.command == "exec" {
            let dir = self.scenario.cgroup(id);
            let alone = || cgroup::processes(&dir).len() == 1;
            if !within(Duration::from_millis(500), alone) {
                problems.push((Kind::Untidy, "the process of exec goes on".into()));
            }
        }
    }
}

pub fn within(time: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + time;
    loop {
        if is_so() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn one_line(words: &str) -> String {
    words.trim().replace('\n', "; ")
}

/// A failure is an exit status and words of which something is left when the phrases of errno, which
/// could come from anywhere, are taken away.
fn mute(end: End, words: &str) -> Option<Problem> {
    let told = match end {
        End::Code(1..=127 | 255) => {
            let mut rest = words.to_lowercase();
            for number in 1..134 {
                let phrase = Errno::from_raw(number).desc().to_lowercase();
                rest = rest.replace(&phrase, " ");
            }
            let letters = |word: &&str| word.chars().filter(|c| c.is_alphabetic()).count() > 2;
            let parts = rest.split(|c: char| !c.is_alphanumeric() && c != '_');
            let noise = [
                "error", "level", "msg", "time", "err", "exit", "status", "failed", "runc", "crun",
                "husk",
            ];
            parts.filter(letters).any(|word| !noise.contains(&word))
        }
        _ => false,
    };
    (!told).then(|| (Kind::Mute, format!("{end:?}: {:?}", one_line(words))))
}

fn text(file: &File) -> String {
    use std::os::fd::AsRawFd;
    let mut bytes = Vec::new();
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let _ = File::open(path).and_then(|mut file| file.read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}
