//! `faults [OPTION]... NAME=PATH[,EVERY]...`: strikes each command of these runtimes at each of its system
//! calls. Run it as root, by `make faults`.

mod calls;
mod case;
mod device;
mod facts;
mod ground;
mod lines;
mod ptrace;
mod report;
mod scenario;
mod tracer;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use husk_integration::enclosure;
use husk_integration::need::find_program;
use husk_integration::systemd::StandIn;

use case::{Bench, Kind, Runtime};
use report::Found;
use tracer::{Fault, Side, Strike};

const USAGE: &str = "\
usage: faults [OPTION]... NAME=PATH[,EVERY]...
  NAME=PATH        a runtime; with EVERY one case of so many is taken
  --only WORDS     only the commands whose names contain this
  --exact          WORDS are the whole name
  --at SIDE:CALL   only this call: parent:12
  --systemd        beside the systemd of this machine, which is to be thrown away: only what it is asked for
  --results DIR    keep the sums there, a file a runtime
  --document       print docs/reliability.md, made of what is in DIR
  --list           print the calls of each command, and strike none";

#[derive(Default)]
struct Options {
    runtimes: Vec<(Runtime, usize)>,
    only: Option<String>,
    exact: bool,
    at: Option<(Side, usize)>,
    results: Option<PathBuf>,
    document: bool,
    list: bool,
    systemd: bool,
}

fn main() -> ExitCode {
    match run() {
        Ok(status) => ExitCode::from(u8::try_from(status).unwrap_or(1)),
        Err(message) => {
            eprintln!("faults: {message}");
            ExitCode::from(2)
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options::default();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--only" => options.only = Some(words.next().ok_or(USAGE)?),
            "--results" => {
                let dir = std::env::current_dir().map_err(|error| error.to_string())?;
                options.results = Some(dir.join(words.next().ok_or(USAGE)?));
            }
            "--exact" => options.exact = true,
            "--document" => options.document = true,
            "--systemd" => options.systemd = true,
            "--list" => options.list = true,
            "--at" => {
                let at = words.next().ok_or(USAGE)?;
                let (side, call) = at.split_once(':').ok_or(USAGE)?;
                let side = match side {
                    "parent" => Side::Parent,
                    "child" => Side::Child,
                    _ => return Err(USAGE.into()),
                };
                options.at = Some((side, call.parse().map_err(|_| USAGE)?));
            }
            _ => {
                let (name, path) = word.split_once('=').ok_or(USAGE)?;
                let (path, every) = match path.split_once(',') {
                    Some((path, every)) => (path, every.parse().map_err(|_| USAGE)?),
                    None => (path, 1),
                };
                let found = match path.contains('/') {
                    true => std::fs::canonicalize(path).ok(),
                    false => find_program(path),
                };
                let runtime = Runtime {
                    name: name.to_owned(),
                    path: found.ok_or(format!("{path}: not found"))?,
                };
                options.runtimes.push((runtime, every));
            }
        }
    }
    match options.runtimes.is_empty() && !options.document {
        true => Err(USAGE.into()),
        false => Ok(options),
    }
}

fn run() -> Result<i32, String> {
    let options = parse(std::env::args().skip(1))?;
    if options.document {
        let dir = options.results.as_ref().ok_or(USAGE)?;
        let all = report::saved(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        print!("{}", report::document(&all));
        return Ok(0);
    }
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let payload = program.with_file_name("payload");
    let dir = PathBuf::from(format!("/tmp/husk-faults-{}", std::process::id()));
    let inside = || match sweep(&options, &dir, &payload) {
        Ok(status) => status,
        Err(message) => {
            eprintln!("faults: {message}");
            2
        }
    };
    if options.systemd {
        std::fs::create_dir(&dir).map_err(|error| error.to_string())?;
        let status = inside();
        let _ = std::fs::remove_dir_all(&dir);
        return Ok(status);
    }
    enclosure::enclose(&dir, inside).map_err(|error| error.to_string())
}

/// In the enclosure: all processes but the first are this program's.
fn sweep(options: &Options, dir: &Path, payload: &Path) -> Result<i32, String> {
    let own = dir.join("payload");
    std::fs::copy(payload, &own).map_err(|error| format!("{}: {error}", payload.display()))?;
    let standin = (!options.systemd).then(StandIn::start).transpose();
    let _standin = standin.map_err(|error| format!("stand-in for systemd: {error}"))?;
    ptrace::hold_news(true);
    let mut all = Vec::new();
    for (runtime, every) in &options.runtimes {
        all.push(strike_all(options, runtime, *every, dir, &own)?);
    }
    let (cases, clean) = all.iter().fold((0, 0), |(cases, clean), found| {
        (cases + found.cases(), clean + found.clean())
    });
    let without: usize = all.iter().map(|found| found.without.len()).sum();
    eprintln!(
        "faults: {clean} passed, {} failed, {without} skipped",
        cases - clean
    );
    // Its peers' failures are theirs.
    let mut own = all.iter().filter(|found| found.name == "husk");
    Ok(i32::from(own.any(|found| found.cases() != found.clean())))
}

/// What is struck of a side that makes these calls.
fn strikes(side: Side, calls: &[&'static str], confined: bool) -> Vec<Strike> {
    let mut strikes = Vec::new();
    for (call, name) in calls.iter().enumerate() {
        let faults = std::iter::once(Fault::Kill)
            .chain((0..calls::errors(name, confined).len()).map(Fault::Fail));
        strikes.extend(faults.map(|fault| Strike { side, call, fault }));
    }
    strikes
}

fn strike_all(
    options: &Options,
    runtime: &Runtime,
    every: usize,
    dir: &Path,
    payload: &Path,
) -> Result<Found, String> {
    let mut found = Found {
        name: runtime.name.clone(),
        version: report::version(&runtime.path),
        every,
        second: case::second().as_secs(),
        machine: options.systemd.then(report::machine),
        ..Found::default()
    };
    let is_husk = husk_integration::need::is_husk(&runtime.path);
    for (index, scenario) in scenario::all().enumerate() {
        let name = scenario.name();
        let chosen = options
            .only
            .as_ref()
            .is_none_or(|words| match options.exact {
                true => name == *words,
                false => name.contains(words.as_str()),
            });
        if !chosen
            || scenario.is_husks() && !is_husk
            || options.systemd && !scenario.is_by_systemd()
        {
            continue;
        }
        let place = dir.join(format!("{}-{index}", runtime.name));
        let mut bench = Bench::new(runtime, scenario, place, payload, options.systemd);
        let mut rehearsed = bench.rehearse();
        if let Err(why) = &rehearsed
            && (why.contains("RLIM_MEMLOCK") || why.contains("increase rlimit"))
            && !found.appeased
        {
            // The kernel has charged BPF programs elsewhere since Linux 5.11.
            ptrace::appease().map_err(|error| error.to_string())?;
            found.appeased = true;
            rehearsed = bench.rehearse();
        }
        let rehearsed = match rehearsed {
            Ok(rehearsed) => rehearsed,
            // husk must be able to.
            Err(why) if is_husk => return Err(format!("{name}: {why}")),
            Err(why) => {
                eprintln!("{} {name}: skipped: {why}", runtime.name);
                found.without.push((name, why.chars().take(120).collect()));
                continue;
            }
        };
        if options.list {
            for (side, calls) in &rehearsed {
                let shown: Vec<String> = calls
                    .iter()
                    .enumerate()
                    .map(|(number, name)| format!("{number} {name}"))
                    .collect();
                println!("{name}, {side:?}: {}", shown.join(", "));
            }
            continue;
        }
        let confined = scenario.shape == scenario::Shape::UserNamespace;
        let mut strikes: Vec<Strike> = rehearsed
            .iter()
            .flat_map(|(side, calls)| strikes(*side, calls, confined))
            .collect();
        match options.at {
            Some((side, call)) => strikes.retain(|one| (one.side, one.call) == (side, call)),
            // Another one of each command.
            None => {
                strikes = strikes
                    .into_iter()
                    .skip(index % every)
                    .step_by(every)
                    .collect()
            }
        }
        let (mut cases, mut bad) = (0, 0);
        for strike in strikes {
            if let Some(clean) = one(&mut bench, strike, &mut found)? {
                cases += 1;
                bad += usize::from(!clean);
            }
        }
        eprintln!("{} {name}: {cases} cases, {bad} bad", runtime.name);
        found.scenarios.push((name, cases, bad));
        // A sweep may take an hour: what is there is kept.
        if let Some(results) = &options.results {
            let saved = found.save(results);
            saved.map_err(|error| format!("{}: {error}", results.display()))?;
        }
    }
    Ok(found)
}

/// Whether it was clean; `None` if the call wasn't reached, or another call was in its place.
fn one(bench: &mut Bench, strike: Strike, found: &mut Found) -> Result<Option<bool>, String> {
    let (mut traced, mut problems) = bench.run(strike.side, Some(strike))?;
    // On a busy machine anything may take long once.
    if problems.iter().any(|(kind, _)| *kind == Kind::Hang) {
        (traced, problems) = bench.run(strike.side, Some(strike))?;
    }
    let Some((call, errno)) = traced.struck else {
        return Ok(None);
    };
    let side = match strike.side {
        Side::Parent => "parent",
        Side::Child => "child",
    };
    let how = errno.map_or("killed".into(), |errno| format!("{errno:?}"));
    for (kind, words) in &problems {
        let words: String = words.chars().take(300).collect();
        eprintln!(
            "{} {}: {side}:{} {call} {how}: {}: {words}",
            found.name,
            bench.scenario.name(),
            strike.call,
            kind.name()
        );
    }
    found.sum(strike.fault).add(&problems);
    Ok(Some(problems.is_empty()))
}
