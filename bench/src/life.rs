//! A container's life, a command at a time.

use std::time::Duration;

use crate::Wish;
use crate::bundle::{self, Filter};
use crate::results::Results;
use crate::runtime::{Runtime, wait_for};
use crate::site::Site;

pub fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Runtimes in turns, another one first in each round; round 0 warms up and is not counted.
pub fn in_turns(
    results: &mut Results,
    measure: &str,
    rounds: usize,
    mut step: impl FnMut(&Runtime, usize, &mut Results) -> Result<(), String>,
) {
    let runtimes = results.runtimes.clone();
    for round in 0..=rounds {
        for turn in 0..runtimes.len() {
            let runtime = &runtimes[(turn + round) % runtimes.len()];
            if results.has_failed(measure, runtime) {
                continue;
            }
            if let Err(error) = step(runtime, round, results) {
                results.fail(measure, runtime, &error);
            }
        }
    }
}

/// `create`, `start`, until the program has ended, `delete`.
pub fn cycles(wish: &Wish, site: &Site, results: &mut Results) {
    for (prefix, filter) in [("", Filter::None), ("docker ", Filter::Docker)] {
        let measure = format!("{prefix}cycle");
        in_turns(results, &measure, wish.rounds, |runtime, round, results| {
            let id = format!("life-{}", runtime.name);
            let bundle = bundle::make(site, &id, "/bin/true", filter);
            let once = || {
                let (create, pid) = runtime.create(site, &bundle, &id)?;
                let start = runtime.time(site, &["start", &id])?;
                let before = std::time::Instant::now();
                wait_for(pid);
                let end = before.elapsed();
                let delete = runtime.time(site, &["delete", &id])?;
                Ok([create, start, delete, create + start + end + delete])
            };
            let times = once().inspect_err(|_: &String| runtime.forget(site, &id))?;
            for (name, time) in ["create", "start", "delete", "cycle"].iter().zip(times) {
                if round > 0 {
                    results.add(&format!("{prefix}{name}"), runtime, milliseconds(time));
                }
            }
            Ok(())
        });
    }
}

pub fn foreground(wish: &Wish, site: &Site, results: &mut Results) {
    for (measure, filter) in [("run", Filter::None), ("docker run", Filter::Docker)] {
        in_turns(results, measure, wish.rounds, |runtime, round, results| {
            let id = format!("run-{}", runtime.name);
            let bundle = bundle::make(site, &id, "/bin/true", filter);
            let words = ["run", "--bundle", &bundle.to_string_lossy(), &id];
            let time = runtime.time(site, &words);
            let time = time.inspect_err(|_| runtime.forget(site, &id))?;
            if round > 0 {
                results.add(measure, runtime, milliseconds(time));
            }
            Ok(())
        });
    }
}

/// Commands on a container that runs.
pub fn running(wish: &Wish, site: &Site, results: &mut Results) {
    let mut pids = Vec::new();
    let runtimes = results.runtimes.clone();
    for runtime in &runtimes {
        let id = format!("running-{}", runtime.name);
        let bundle = bundle::make(site, &id, "/bin/pause", Filter::None);
        let started = runtime.create(site, &bundle, &id).and_then(|(_, pid)| {
            runtime.time(site, &["start", &id])?;
            Ok(pid)
        });
        match started {
            Ok(pid) => pids.push((runtime, id, pid)),
            Err(error) => {
                runtime.forget(site, &id);
                results.fail("running", runtime, &error);
            }
        }
    }
    in_turns(
        results,
        "running",
        wish.rounds,
        |runtime, round, results| {
            let id = format!("running-{}", runtime.name);
            let commands: [(&str, &[&str]); 3] = [
                ("exec", &["exec", &id, "/bin/true"]),
                ("state", &["state", &id]),
                ("kill", &["kill", &id, "CONT"]),
            ];
            for (name, words) in commands {
                let time = runtime.time(site, words)?;
                if round > 0 {
                    results.add(name, runtime, milliseconds(time));
                }
            }
            Ok(())
        },
    );
    for (runtime, id, pid) in pids {
        let ended = runtime.time(site, &["kill", &id, "KILL"]).and_then(|_| {
            wait_for(pid);
            runtime.time(site, &["delete", &id])
        });
        if let Err(error) = ended {
            eprintln!("bench: {error}");
            runtime.forget(site, &id);
        }
    }
}
