//! Where husk's own time goes: the steps that its `--trace` tells, of all processes of a command.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use crate::Wish;
use crate::bundle::{self, Filter};
use crate::results::Results;
use crate::runtime::{Runtime, wait_for};
use crate::site::Site;

/// The process and the step.
type Key = (String, String);

/// Steps of one command in the order in which they begin.
pub struct Trace {
    pub command: &'static str,
    pub steps: Vec<Step>,
}

/// Medians in microseconds.
pub struct Step {
    pub process: String,
    pub name: String,
    /// After the first step's begin.
    pub begins: f64,
    /// Where a step comes more than once, in all.
    pub takes: f64,
}

pub fn measure(wish: &Wish, site: &Site, results: &mut Results) {
    let rounds = if wish.quick { 3 } else { 30 };
    let Some(husk) = results
        .runtimes
        .iter()
        .find(|runtime| runtime.is_husk)
        .cloned()
    else {
        return;
    };
    match all(site, &husk, rounds) {
        Ok(traces) => results.traces = traces,
        Err(error) => results.fail("traces", &husk, &error),
    }
}

fn all(site: &Site, husk: &Runtime, rounds: usize) -> Result<Vec<Trace>, String> {
    let file = site.dir.join("trace");
    let path = file.to_string_lossy().into_owned();
    let traced = |words: &[&str]| -> Result<Vec<Value>, String> {
        let _ = fs::remove_file(&file);
        let words = [&["--trace", &path], words].concat();
        husk.time(site, &words)?;
        let text = fs::read_to_string(&file).map_err(|error| format!("{path}: {error}"))?;
        let lines = text.lines().map(|line| line.trim_end_matches(','));
        Ok(lines
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect())
    };
    let id = "traced";
    let mut traces = Vec::new();
    for (command, filter) in [
        ("run", Filter::None),
        ("run, Docker's profile", Filter::Docker),
    ] {
        let bundle = bundle::make(site, id, "/bin/true", filter);
        let bundle = bundle.to_string_lossy().into_owned();
        let once = || traced(&["run", "--bundle", &bundle, id]);
        traces.push(repeat(command, rounds, once)?);
    }
    let bundle = bundle::make(site, id, "/bin/pause", Filter::None);
    let (_, pid) = husk.create(site, &bundle, id)?;
    husk.time(site, &["start", id])?;
    for (command, words) in [
        ("exec", &["exec", id, "/bin/true"][..]),
        ("state", &["state", id]),
    ] {
        traces.push(repeat(command, rounds, || traced(words))?);
    }
    husk.time(site, &["kill", id, "KILL"])?;
    wait_for(pid);
    husk.time(site, &["delete", id])?;
    Ok(traces)
}

fn repeat(
    command: &'static str,
    rounds: usize,
    once: impl Fn() -> Result<Vec<Value>, String>,
) -> Result<Trace, String> {
    let mut samples: BTreeMap<Key, Vec<(f64, f64)>> = BTreeMap::new();
    for _ in 0..rounds {
        for (key, sample) in round(&once()?) {
            samples.entry(key).or_default().push(sample);
        }
    }
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let mut steps: Vec<Step> = samples
        .into_iter()
        .map(|((process, name), samples)| Step {
            process,
            name,
            begins: median(samples.iter().map(|sample| sample.0).collect()),
            takes: median(samples.iter().map(|sample| sample.1).collect()),
        })
        .collect();
    steps.sort_by(|one, other| one.begins.total_cmp(&other.begins));
    Ok(Trace { command, steps })
}

/// When each step begins and how long it takes.
fn round(events: &[Value]) -> BTreeMap<Key, (f64, f64)> {
    let kind = |event: &Value, kind: &str| event["ph"] == kind;
    let processes: BTreeMap<u64, String> = events
        .iter()
        .filter(|event| kind(event, "M"))
        .filter_map(|event| {
            let name = event["args"]["name"].as_str()?;
            Some((event["tid"].as_u64()?, name.to_owned()))
        })
        .collect();
    let steps = || events.iter().filter(|event| kind(event, "X"));
    let begin = steps()
        .filter_map(|event| event["ts"].as_f64())
        .fold(f64::INFINITY, f64::min);
    let mut found: BTreeMap<Key, (f64, f64)> = BTreeMap::new();
    for event in steps() {
        let (Some(at), Some(took)) = (event["ts"].as_f64(), event["dur"].as_f64()) else {
            continue;
        };
        let process = event["tid"].as_u64().and_then(|tid| processes.get(&tid));
        let key = (
            process.cloned().unwrap_or_default(),
            event["name"].as_str().unwrap_or("").to_owned(),
        );
        let entry = found.entry(key).or_insert((at - begin, 0.0));
        entry.0 = entry.0.min(at - begin);
        entry.1 += took;
    }
    found
}
