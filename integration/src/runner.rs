//! The tests' runner: one process a test, so that a test that hangs, dies or loses a
//! process harms no other, and every test has namespaces and descriptors of its own.

use std::collections::BTreeMap;
use std::fs;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::lab::{Lab, patience};
use crate::need::{Missing, Need, find_program};
use crate::suite::{self, Test};
use crate::{cgroup, enclosure, need, sys};

const USAGE: &str = "\
usage: suite [OPTION]... [FILTER]...
  FILTER           run only tests whose names contain one of these
  --exact          a FILTER is a whole name
  --list           show the tests and what they need
  --tier TIER      native (default): all that can run here
                   machine: only those that need what a virtual machine has
  --all            with --tier machine: every test
  --jobs N         so many at a time (default: as many as there are CPUs)
  --verbose        a line for each test
environment: RUNTIME (default: the husk beside this program), HUSK_SUITE_PATIENCE (a factor)";

struct Options {
    filters: Vec<String>,
    exact: bool,
    list: bool,
    machine: bool,
    all: bool,
    jobs: usize,
    verbose: bool,
    one: Option<String>,
}

enum Verdict {
    Ok,
    Failed(String),
    Skipped(String),
    Elsewhere(String),
}

pub fn main() -> ExitCode {
    match run() {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(message) => {
            eprintln!("suite: {message}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<i32, String> {
    let options = parse(std::env::args().skip(1))?;
    let tests = suite::all();
    if let Some(name) = &options.one {
        return run_one(
            tests
                .iter()
                .find(|t| t.name() == *name)
                .ok_or("no such test")?,
        );
    }
    if options.list {
        for test in &tests {
            println!("{}{}", test.name(), needs(test));
        }
        return Ok(0);
    }
    let runtime = find_runtime()?;
    let payload = find_beside("payload").ok_or("no payload beside this program: build it first")?;
    let dir = PathBuf::from(format!("/tmp/husk-suite-{}", std::process::id()));
    let begin = Instant::now();
    let place = Place {
        dir: &dir,
        runtime: &runtime,
        payload: &payload,
    };
    let chosen = tests.iter().filter(|test| options.choose(test));
    let (outside, inside): (Vec<_>, Vec<_>) = chosen.partition(|test| needs_systemd(test));
    let mut verdicts = Vec::new();
    if !outside.is_empty() {
        fs::create_dir(&dir).map_err(|error| error.to_string())?;
        verdicts.append(&mut run_all(&options, &outside, &place)?);
        let _ = fs::remove_dir_all(&dir);
    }
    let enclosed = enclosure::enclose(&dir, || match run_all(&options, &inside, &place) {
        Ok(mut others) => {
            verdicts.append(&mut others);
            close(&verdicts, &options, &runtime, begin.elapsed())
        }
        Err(message) => {
            eprintln!("suite: {message}");
            2
        }
    });
    enclosed.map_err(|error| error.to_string())
}

/// systemd knows processes by their numbers in its own pid namespace and cgroups by their places in the
/// whole tree: tests that need it run where it is, before the others are enclosed.
fn needs_systemd(test: &Test) -> bool {
    test.needs.contains(&Need::Systemd) && Need::Systemd.missing(Path::new("")).is_none()
}

/// Where and with what the tests run.
struct Place<'a> {
    dir: &'a Path,
    runtime: &'a Path,
    payload: &'a Path,
}

fn parse(args: impl Iterator<Item = String>) -> Result<Options, String> {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut options = Options {
        filters: Vec::new(),
        exact: false,
        list: false,
        machine: false,
        all: false,
        jobs,
        verbose: false,
        one: None,
    };
    let mut args = args;
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--exact" => options.exact = true,
            "--list" => options.list = true,
            "--all" => options.all = true,
            "--verbose" | "-v" => options.verbose = true,
            "--tier" => options.machine = value()? == "machine",
            "--jobs" | "-j" => options.jobs = value()?.parse().map_err(|_| "--jobs N")?,
            "--one" => options.one = Some(value()?),
            "--help" | "-h" => return Err(USAGE.into()),
            flag if flag.starts_with('-') => return Err(format!("unknown option {flag}\n{USAGE}")),
            filter => options.filters.push(filter.to_owned()),
        }
    }
    Ok(options)
}

fn needs(test: &Test) -> String {
    if test.needs.is_empty() {
        return String::new();
    }
    format!("  {:?}", test.needs)
}

fn find_runtime() -> Result<PathBuf, String> {
    match std::env::var("RUNTIME") {
        Ok(name) if name.contains('/') => {
            fs::canonicalize(&name).map_err(|e| format!("RUNTIME={name}: {e}"))
        }
        Ok(name) => find_program(&name).ok_or(format!("RUNTIME={name}: not on PATH")),
        Err(_) => find_beside("husk")
            .ok_or("no husk beside this program: build it, or name one with RUNTIME=…".into()),
    }
}

/// In the directory of this program or, for `cargo test`, the one above.
fn find_beside(name: &str) -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let found = program
        .ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join(name));
    found.into_iter().find(|file| file.exists())
}

fn run_all(options: &Options, chosen: &[&Test], place: &Place) -> Result<Vec<Verdict>, String> {
    fs::copy(place.payload, place.dir.join("payload"))
        .map_err(|error| format!("{}: {error}", place.payload.display()))?;
    let next = AtomicUsize::new(0);
    let verdicts = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| {
                while let Some(test) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let begin = Instant::now();
                    let verdict = judge(test, place.dir, place.runtime);
                    let mut verdicts = verdicts.lock().unwrap();
                    report(test, &verdict, begin.elapsed(), options.verbose);
                    verdicts.push(verdict);
                }
            });
        }
    });
    Ok(verdicts.into_inner().unwrap())
}

impl Options {
    fn choose(&self, test: &Test) -> bool {
        let name = test.name();
        let named = self.filters.is_empty()
            || self.filters.iter().any(|f| {
                if self.exact {
                    name == *f
                } else {
                    name.contains(f)
                }
            });
        let of_the_machine = test.needs.iter().any(|need| need.of_the_machine());
        named && (!self.machine || self.all || of_the_machine)
    }
}

/// Runs the test in a process of its own.
fn judge(test: &Test, dir: &Path, runtime: &Path) -> Verdict {
    for need in test.needs {
        match need.missing(runtime) {
            None => {}
            Some(Missing::Elsewhere(why)) => return Verdict::Elsewhere(why),
            Some(Missing::Here(why)) => return Verdict::Skipped(why),
        }
    }
    match in_a_process(test, dir, runtime) {
        Ok(verdict) => verdict,
        Err(error) => Verdict::Failed(format!("cannot be run: {error}")),
    }
}

fn in_a_process(test: &Test, dir: &Path, runtime: &Path) -> std::io::Result<Verdict> {
    let place = dir.join(test.name().replace("::", "."));
    let log_path = dir.join(format!("{}.log", test.name().replace("::", ".")));
    let log = File::create(&log_path)?;
    let mut child = Command::new("/proc/self/exe")
        .args(["--one", &test.name()])
        .env("HUSK_SUITE_PLACE", &place)
        .env("HUSK_SUITE_PAYLOAD", dir.join("payload"))
        .env("RUNTIME", runtime)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    let tag = format!("t{}-", child.id());
    let pidfd = sys::pidfd_open(i32::try_from(child.id()).unwrap_or(0))?;
    let limit = test
        .seconds
        .map_or(Duration::from_secs(30), Duration::from_secs);
    let in_time = sys::readable(&pidfd, limit * (patience().as_secs() as u32) / 10)?;
    if !in_time {
        child.kill()?;
    }
    let status = child.wait()?;
    // Whatever a failed test has left must not harm the others.
    for cgroup in cgroup::beginning(&tag) {
        let _ = cgroup::remove(&cgroup);
    }
    let said = String::from_utf8_lossy(&fs::read(&log_path)?).into_owned();
    let _ = fs::remove_file(&log_path);
    let _ = fs::remove_dir_all(&place);
    Ok(match status.code() {
        _ if !in_time => Verdict::Failed(format!("took more than {limit:?}\n{said}")),
        Some(0) => Verdict::Ok,
        Some(SKIPPED) => Verdict::Skipped(said.trim().to_owned()),
        Some(FAILED) => Verdict::Failed(said),
        _ => Verdict::Failed(format!("{said}the test ended with {status}")),
    })
}

const FAILED: i32 = 1;
const SKIPPED: i32 = 77;

/// For a test that finds out only underway that it can't say anything here.
pub fn skip(reason: &str) -> ! {
    println!("{reason}");
    std::process::exit(SKIPPED)
}

fn run_one(test: &Test) -> Result<i32, String> {
    let var = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .ok_or(format!("{name} is not set"))
    };
    let (place, payload, runtime) = (
        var("HUSK_SUITE_PLACE")?,
        var("HUSK_SUITE_PAYLOAD")?,
        var("RUNTIME")?,
    );
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(|l| l.to_string()).unwrap_or_default();
        let message = panic.payload_as_str().unwrap_or("a panic without words");
        println!("{place}: {message}");
        std::process::exit(FAILED)
    }));
    unshare(CloneFlags::CLONE_NEWNS).map_err(|errno| errno.to_string())?;
    let (none, private) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
    mount(none, "/", none, private, none).map_err(|errno| errno.to_string())?;
    // crun and youki raise this limit for everybody, which takes CAP_SYS_RESOURCE.
    if !need::is_husk(&runtime) && !need::has_sys_resource() {
        sys::pretend_locked_memory().map_err(|error| error.to_string())?;
    }
    let lab = Lab::new(place, runtime, payload).map_err(|error| error.to_string())?;
    (test.body)(&lab);
    if let Err(left) = lab.finish() {
        println!("{left}");
        return Ok(FAILED);
    }
    Ok(0)
}

fn report(test: &Test, verdict: &Verdict, took: Duration, verbose: bool) {
    let name = test.name();
    match verdict {
        Verdict::Failed(why) => {
            let why = why.trim_end().replace('\n', "\n    ");
            println!("FAILED {name} ({} ms)\n    {why}", took.as_millis());
        }
        _ if !verbose => {}
        Verdict::Ok => println!("ok {name} ({} ms)", took.as_millis()),
        Verdict::Skipped(why) => println!("skipped {name}: {why}"),
        Verdict::Elsewhere(why) => println!("elsewhere {name}: {why}"),
    }
}

fn close(verdicts: &[Verdict], options: &Options, runtime: &Path, took: Duration) -> i32 {
    let (mut ok, mut failed) = (0, 0);
    let (mut skipped, mut elsewhere) = (BTreeMap::new(), BTreeMap::new());
    for verdict in verdicts {
        match verdict {
            Verdict::Ok => ok += 1,
            Verdict::Failed(_) => failed += 1,
            Verdict::Skipped(why) => *skipped.entry(why.as_str()).or_insert(0) += 1,
            Verdict::Elsewhere(why) => *elsewhere.entry(why.as_str()).or_insert(0) += 1,
        }
    }
    let count = |reasons: &BTreeMap<&str, usize>, what: &str| {
        let sum: usize = reasons.values().sum();
        let each: Vec<String> = reasons
            .iter()
            .map(|(why, n)| format!("{n}: {why}"))
            .collect();
        match sum {
            0 => format!(", 0 {what}"),
            _ => format!(", {sum} {what} ({})", each.join("; ")),
        }
    };
    let tier = if options.machine { "machine" } else { "native" };
    let name = runtime.file_name().unwrap_or_default().to_string_lossy();
    println!(
        "{name} tests: {tier} {ok} ok, {failed} failed{}{}, {:.1} s",
        count(&skipped, "skipped"),
        count(&elsewhere, "elsewhere"),
        took.as_secs_f64(),
    );
    i32::from(failed > 0 || ok == 0)
}
