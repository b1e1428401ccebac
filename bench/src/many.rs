//! Many containers: at once, and one beside the other.

use std::fs;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::Wish;
use crate::bundle::{self, Filter};
use crate::gap::{median, processor};
use crate::life::milliseconds;
use crate::results::Results;
use crate::runtime::{Runtime, wait_for};
use crate::site::Site;

/// Lives a second, with so many at a time.
pub fn throughput(wish: &Wish, site: &Site, results: &mut Results) {
    let (count, at_once, rounds) = if wish.quick {
        (64, 32, 1)
    } else {
        (200, 32, 3)
    };
    let runtimes = results.runtimes.clone();
    for (measure, filter) in [
        ("lives/s", Filter::None),
        ("docker lives/s", Filter::Docker),
    ] {
        for round in 0..rounds {
            for turn in 0..runtimes.len() {
                let runtime = &runtimes[(turn + round) % runtimes.len()];
                let before = processors();
                match lives(site, runtime, filter, count, at_once) {
                    Ok(rate) => {
                        results.add(measure, runtime, rate);
                        let each = (processors() - before) / count as f64;
                        results.add(&format!("{measure} processors"), runtime, each);
                    }
                    Err(error) => results.fail(measure, runtime, &error),
                }
            }
        }
    }
}

/// Milliseconds of processors that all have taken whose end was waited for.
fn processors() -> f64 {
    // SAFETY: all zeroes is a valid structure.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: it is valid to write.
    unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage) };
    processor(&usage)
}

fn lives(
    site: &Site,
    runtime: &Runtime,
    filter: Filter,
    count: usize,
    at_once: usize,
) -> Result<f64, String> {
    let name = |index: usize| format!("many-{}-{index}", runtime.name);
    let bundles: Vec<_> = (0..count)
        .map(|index| bundle::make(site, &name(index), "/bin/true", filter))
        .collect();
    let next = AtomicUsize::new(0);
    let worker = || -> Result<(), String> {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(bundle) = bundles.get(index) else {
                return Ok(());
            };
            let id = name(index);
            let (_, pid) = runtime.create(site, bundle, &id)?;
            runtime.time(site, &["start", &id])?;
            wait_for(pid);
            runtime.time(site, &["delete", &id])?;
        }
    };
    let before = Instant::now();
    let ended: Result<Vec<()>, String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(worker)).collect();
        workers
            .into_iter()
            .map(|worker| {
                worker
                    .join()
                    .unwrap_or_else(|_| Err("a thread panicked".into()))
            })
            .collect()
    });
    let rate = count as f64 / before.elapsed().as_secs_f64();
    if ended.is_err() {
        for index in 0..count {
            runtime.forget(site, &name(index));
        }
    }
    ended.map(|_| rate)
}

/// The containers of one runtime that run beside each other.
struct Crowd {
    runtime: Runtime,
    pids: Vec<(usize, i32)>,
    /// Milliseconds that each took.
    times: Vec<f64>,
    /// KiB of the kernel's.
    kernel: f64,
}

/// So many of each runtime that run, and what commands take then. As many of the floor's are made in turns with them,
/// some at a time: what the machine gives changes over the seconds that a thousand take, and how many there are is
/// what much of the kernel's time goes by.
pub fn density(wish: &Wish, site: &Site, results: &mut Results) {
    let (count, at_a_time) = if wish.quick { (50, 5) } else { (1000, 10) };
    let runtimes = results.runtimes.clone();
    let Some((floor, others)) = runtimes.split_first() else {
        return;
    };
    for runtime in others {
        let mut crowds = [floor, runtime].map(Crowd::of);
        let dense = beside(&mut crowds, site, count, at_a_time, results);
        match dense {
            Ok(()) => {
                for (measure, took) in crowds[0].all(count / 10) {
                    results.pair(measure, runtime, took);
                }
            }
            Err(error) => results.fail("density", runtime, &error),
        }
        for crowd in crowds {
            crowd.end(site);
        }
    }
}

/// Makes both crowds grow, and looks what commands take then.
fn beside(
    crowds: &mut [Crowd; 2],
    site: &Site,
    count: usize,
    at_a_time: usize,
    results: &mut Results,
) -> Result<(), String> {
    for turn in 0..count / at_a_time {
        for at in [turn % 2, (turn + 1) % 2] {
            let range = turn * at_a_time..(turn + 1) * at_a_time;
            crowds[at].grow(site, range)?;
        }
    }
    let step = count / 10;
    for crowd in &*crowds {
        for (index, middle) in crowd.middles(step).enumerate() {
            let measure = format!("start with {:04} running", (index + 1) * step);
            results.add(&measure, &crowd.runtime, middle);
        }
        for (measure, took) in crowd.all(step) {
            results.add(measure, &crowd.runtime, took);
        }
        let kernel = crowd.kernel / count as f64;
        results.add("kernel KiB", &crowd.runtime, kernel);
    }
    for _ in 0..10 {
        for crowd in &*crowds {
            crowd.look(site, count, results)?;
        }
    }
    Ok(())
}

impl Crowd {
    fn of(runtime: &Runtime) -> Crowd {
        Crowd {
            runtime: runtime.clone(),
            pids: Vec::new(),
            times: Vec::new(),
            kernel: 0.0,
        }
    }

    /// Seconds for all: the sum, and that if each had taken what the middle one of its step did.
    fn all(&self, step: usize) -> [(&'static str, f64); 2] {
        let middle: f64 = self.middles(step).sum();
        [
            ("start all s", self.times.iter().sum::<f64>() / 1000.0),
            ("start all middle s", middle * step as f64 / 1000.0),
        ]
    }

    fn middles(&self, step: usize) -> impl Iterator<Item = f64> {
        self.times.chunks(step).map(|times| median(times.to_vec()))
    }

    fn id(&self, index: usize) -> String {
        format!("dense-{}-{index}", self.runtime.name)
    }

    fn grow(&mut self, site: &Site, range: std::ops::Range<usize>) -> Result<(), String> {
        let bundles: Vec<_> = range
            .clone()
            .map(|index| bundle::make(site, &self.id(index), "/bin/pause", Filter::None))
            .collect();
        let before_all = unreclaimable();
        for (index, bundle) in range.zip(bundles) {
            let id = self.id(index);
            let before = Instant::now();
            let (_, pid) = self.runtime.create(site, &bundle, &id)?;
            self.pids.push((index, pid));
            self.runtime.time(site, &["start", &id])?;
            self.times.push(milliseconds(before.elapsed()));
        }
        self.kernel += unreclaimable() - before_all;
        Ok(())
    }

    fn look(&self, site: &Site, count: usize, results: &mut Results) -> Result<(), String> {
        let runtime = &self.runtime;
        let id = self.id(count / 2);
        let time = runtime.time(site, &["state", &id])?;
        results.add("state, many", runtime, milliseconds(time));
        let time = runtime.time(site, &["exec", &id, "/bin/true"])?;
        results.add("exec, many", runtime, milliseconds(time));
        if !runtime.is_floor() {
            let mut command = runtime.command(site, &[], &["list"]);
            let before = Instant::now();
            let status = command.stdout(Stdio::null()).status();
            let time = before.elapsed();
            if status.is_ok_and(|status| status.success()) {
                results.add("list, many", runtime, milliseconds(time));
            }
        }
        Ok(())
    }

    fn end(self, site: &Site) {
        for (index, pid) in &self.pids {
            let id = self.id(*index);
            let killed = self.runtime.time(site, &["kill", &id, "KILL"]);
            let ended = killed.and_then(|_| {
                wait_for(*pid);
                self.runtime.time(site, &["delete", &id])
            });
            if ended.is_err() {
                self.runtime.forget(site, &id);
            }
        }
    }
}

/// The kernel's memory that it can't take back, in KiB.
fn unreclaimable() -> f64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("SUnreclaim:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0.0)
}
