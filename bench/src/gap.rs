//! What husk has more than the floor, command by command: processor time, page faults, and system calls with
//! their time in the kernel.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::Wish;
use crate::bundle::{self, Filter};
use crate::results::Results;
use crate::runtime::{Runtime, in_path, wait_for};
use crate::site::Site;

/// By the call's name: how many, and microseconds in the kernel.
type Calls = BTreeMap<String, (u64, f64)>;

/// One command of one runtime, medians.
#[derive(Clone, Default)]
pub struct Cost {
    /// Milliseconds until it has ended.
    pub wall: f64,
    /// Milliseconds of processors, of the command and those of its processes that it has waited for.
    pub processor: f64,
    pub faults: f64,
    pub calls: Calls,
}

impl Cost {
    fn of(samples: &[[f64; 3]], traces: &[Calls]) -> Cost {
        let column = |column: usize| median(samples.iter().map(|sample| sample[column]).collect());
        Cost {
            wall: column(0),
            processor: column(1),
            faults: column(2),
            calls: medians(traces),
        }
    }
}

/// What the floor and husk take for the same.
pub struct Gap {
    pub command: &'static str,
    pub floor: Cost,
    pub husk: Cost,
}

pub fn measure(wish: &Wish, site: &Site, results: &mut Results) {
    let rounds = if wish.quick { 5 } else { 40 };
    let find = |is: fn(&Runtime) -> bool| results.runtimes.iter().find(|one| is(one)).cloned();
    let (Some(floor), Some(husk)) = (find(Runtime::is_floor), find(|one| one.is_husk)) else {
        return;
    };
    match costs(site, &floor, &husk, rounds) {
        Ok(gaps) => results.gaps = gaps,
        Err(error) => results.fail("gaps", &husk, &error),
    }
}

fn costs(site: &Site, floor: &Runtime, husk: &Runtime, rounds: usize) -> Result<Vec<Gap>, String> {
    const COMMANDS: [&str; 6] = ["run", "create", "start", "delete", "exec", "state"];
    let mut samples: BTreeMap<(usize, bool), Vec<[f64; 3]>> = BTreeMap::new();
    let mut traced: BTreeMap<(usize, bool), Vec<Calls>> = BTreeMap::new();
    for round in 0..rounds {
        for runtime in [floor, husk] {
            // strace's go is another one: it takes its own time.
            let strace = round % 4 == 0;
            for (at, found) in life(site, runtime, strace)?.into_iter().enumerate() {
                let key = (at, runtime.is_husk);
                match found {
                    Seen::Took(sample) => samples.entry(key).or_default().push(sample),
                    Seen::Called(calls) => traced.entry(key).or_default().push(calls),
                }
            }
        }
    }
    let cost = |at: usize, is_husk: bool| {
        let samples = samples.get(&(at, is_husk)).cloned().unwrap_or_default();
        let traces = traced.get(&(at, is_husk)).cloned().unwrap_or_default();
        Cost::of(&samples, &traces)
    };
    let gap = |(at, command)| Gap {
        command,
        floor: cost(at, false),
        husk: cost(at, true),
    };
    let mut gaps: Vec<Gap> = COMMANDS.into_iter().enumerate().map(gap).collect();
    gaps.push(starts(site, husk, rounds)?);
    Ok(gaps)
}

/// One go of one command.
enum Seen {
    Took([f64; 3]),
    Called(Calls),
}

/// `run`, `create`, `start`, `delete`, `exec` and `state`, in this order. Of `create` no calls: to follow them is
/// to wait for the container's end, and they are those of `run`.
fn life(site: &Site, runtime: &Runtime, strace: bool) -> Result<Vec<Seen>, String> {
    let id = format!("gap-{}", runtime.name);
    let look = |words: &[&str]| match strace {
        true => called(site, runtime, words).map(Seen::Called),
        false => took(words[0], runtime.command(site, &[], words)).map(Seen::Took),
    };
    let bundle = bundle::make(site, &id, "/bin/true", Filter::None);
    let run = look(&["run", "--bundle", &bundle.to_string_lossy(), &id])?;
    let bundle = bundle::make(site, &id, "/bin/pause", Filter::None);
    let (create, pid) = runtime.create_by(&bundle, &id, |words| {
        took("create", runtime.command(site, &[], words)).map(Seen::Took)
    })?;
    let start = look(&["start", &id])?;
    let exec = look(&["exec", &id, "/bin/true"])?;
    let state = look(&["state", &id])?;
    runtime.time(site, &["kill", &id, "KILL"])?;
    wait_for(pid);
    let delete = look(&["delete", &id])?;
    Ok(vec![run, create, start, delete, exec, state])
}

/// Of a program that does nothing: its start and its end.
fn starts(site: &Site, husk: &Runtime, rounds: usize) -> Result<Gap, String> {
    let mut samples: [Vec<[f64; 3]>; 2] = Default::default();
    for _ in 0..rounds {
        samples[0].push(took("true", Command::new(site.rootfs.join("bin/true")))?);
        let version = husk.command(site, &[], &["--version"]);
        samples[1].push(took("--version", version)?);
    }
    let [floor, husk] = samples.map(|samples| Cost::of(&samples, &[]));
    Ok(Gap {
        command: "a program that does nothing, --version",
        floor,
        husk,
    })
}

fn took(what: &str, mut command: Command) -> Result<[f64; 3], String> {
    let failed = |error: std::io::Error| format!("{what}: {error}");
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let before = Instant::now();
    let child = command.spawn().map_err(failed)?;
    let mut status = 0;
    // SAFETY: all zeroes is a valid structure.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both are valid to write; nobody else waits for this child.
    let ended = unsafe { libc::wait4(child.id() as i32, &mut status, 0, &mut usage) };
    let wall = before.elapsed().as_secs_f64() * 1000.0;
    if ended < 0 || status != 0 {
        return Err(format!("{what}: status {status}"));
    }
    Ok([wall, processor(&usage), usage.ru_minflt as f64])
}

/// Milliseconds of processors.
pub fn processor(usage: &libc::rusage) -> f64 {
    let of = |time: libc::timeval| time.tv_sec as f64 * 1000.0 + time.tv_usec as f64 / 1000.0;
    of(usage.ru_utime) + of(usage.ru_stime)
}

/// Each call as strace times it, less what strace itself takes: the median of all calls, as most do next to
/// nothing.
fn called(site: &Site, runtime: &Runtime, words: &[&str]) -> Result<Calls, String> {
    let strace = in_path("strace").ok_or("no strace here")?;
    let file = site.dir.join(format!("gap-{}", runtime.name));
    let (strace, path) = (strace.to_string_lossy(), file.to_string_lossy());
    let before = [&strace[..], "-f", "-qq", "-T", "-o", &path];
    let mut command = runtime.command(site, &before, words);
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !status.is_ok_and(|status| status.success()) {
        return Err(format!("{} {} under strace", runtime.name, words[0]));
    }
    let text = fs::read_to_string(&file).map_err(|error| format!("{path}: {error}"))?;
    let calls: Vec<(&str, f64)> = text.lines().filter_map(call).collect();
    let usual = median(calls.iter().map(|(_, time)| *time).collect());
    let mut sums: Calls = BTreeMap::new();
    for (name, time) in calls {
        let sum = sums.entry(name.to_owned()).or_default();
        sum.0 += 1;
        sum.1 += (time - usual).max(0.0);
    }
    Ok(sums)
}

/// `PID NAME(...) = RESULT <SECONDS>`, or the end of a call during which another process was seen. Waiting for
/// somebody else is not the call's time.
fn call(line: &str) -> Option<(&str, f64)> {
    const WAITING: [&str; 8] = [
        "poll",
        "recvfrom",
        "recvmsg",
        "waitid",
        "wait4",
        "read",
        "futex",
        "exit_group",
    ];
    let seconds: f64 = line.rsplit_once('<')?.1.strip_suffix('>')?.parse().ok()?;
    let line = line
        .trim_start_matches(|letter: char| letter.is_ascii_digit())
        .trim_start();
    let line = line.strip_prefix("<... ").unwrap_or(line);
    let name = line.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
    let name = name.into_iter().next().filter(|name| !name.is_empty())?;
    (!WAITING.contains(&name)).then_some((name, seconds * 1e6))
}

fn medians(traces: &[Calls]) -> Calls {
    let names = traces.iter().flat_map(|trace| trace.keys().cloned());
    let of = |name: String| {
        let seen = || traces.iter().filter_map(|trace| trace.get(&name));
        let count = median(seen().map(|call| call.0 as f64).collect());
        let time = median(seen().map(|call| call.1).collect());
        (name.clone(), (count as u64, time))
    };
    let names: std::collections::BTreeSet<String> = names.collect();
    names.into_iter().map(of).collect()
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
