//! Many containers: at once, and one beside the other.

use std::fs;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::Wish;
use crate::bundle::{self, Filter};
use crate::gap::processor;
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
    /// Milliseconds, and those of the step that is not full yet.
    took: f64,
    of_step: f64,
    /// KiB of the kernel's.
    kernel: f64,
}

/// So many of each runtime that run, and what commands take then. They are made in turns, some at a time: what the
/// machine gives changes over the seconds that a thousand take.
pub fn density(wish: &Wish, site: &Site, results: &mut Results) {
    let (count, at_a_time) = if wish.quick { (50, 5) } else { (1000, 10) };
    let runtimes = results.runtimes.clone().into_iter();
    let mut crowds: Vec<Crowd> = runtimes
        .map(|runtime| Crowd {
            runtime,
            pids: Vec::new(),
            took: 0.0,
            of_step: 0.0,
            kernel: 0.0,
        })
        .collect();
    for turn in 0..count / at_a_time {
        let begin = turn % crowds.len();
        crowds.rotate_left(begin);
        for crowd in &mut crowds {
            if results.has_failed("density", &crowd.runtime) {
                continue;
            }
            let range = turn * at_a_time..(turn + 1) * at_a_time;
            if let Err(error) = crowd.grow(site, range, count / 10, results) {
                results.fail("density", &crowd.runtime, &error);
            }
        }
        crowds.rotate_right(begin);
    }
    for crowd in &crowds {
        if results.has_failed("density", &crowd.runtime) {
            continue;
        }
        results.add("start all s", &crowd.runtime, crowd.took / 1000.0);
        let kernel = crowd.kernel / count as f64;
        results.add("kernel KiB", &crowd.runtime, kernel);
    }
    for _ in 0..10 {
        for crowd in &crowds {
            if results.has_failed("density", &crowd.runtime) {
                continue;
            }
            if let Err(error) = crowd.look(site, count, results) {
                results.fail("density", &crowd.runtime, &error);
            }
        }
    }
    for crowd in crowds {
        crowd.end(site);
    }
}

impl Crowd {
    fn id(&self, index: usize) -> String {
        format!("dense-{}-{index}", self.runtime.name)
    }

    fn grow(
        &mut self,
        site: &Site,
        range: std::ops::Range<usize>,
        step: usize,
        results: &mut Results,
    ) -> Result<(), String> {
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
            let took = milliseconds(before.elapsed());
            self.took += took;
            self.of_step += took;
            if (index + 1).is_multiple_of(step) {
                let measure = format!("start with {:04} running", index + 1);
                results.add(&measure, &self.runtime, self.of_step / step as f64);
                self.of_step = 0.0;
            }
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
