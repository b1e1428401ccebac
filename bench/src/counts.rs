//! System calls of each command, counted by strace with all processes that the command makes: `create`
//! with the container's until its end.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::Wish;
use crate::bundle::{self, Filter};
use crate::results::Results;
use crate::runtime::{Runtime, in_path, wait_for};
use crate::site::Site;

/// By command, and by the call's name.
pub type Counts = BTreeMap<String, BTreeMap<String, u64>>;

pub fn measure(_wish: &Wish, site: &Site, results: &mut Results) {
    for runtime in results.runtimes.clone() {
        match of(site, &runtime) {
            Ok(counts) => drop(results.counts.insert(runtime.name.clone(), counts)),
            Err(error) => results.fail("counts", &runtime, &error),
        }
    }
}

/// The sum of one command's.
pub fn total(counts: &BTreeMap<String, u64>) -> u64 {
    counts.values().sum()
}

/// Counts of one runtime. crun wants to raise RLIMIT_MEMLOCK, which not every root may: strace answers.
pub fn of(site: &Site, runtime: &Runtime) -> Result<Counts, String> {
    let strace = in_path("strace").ok_or("no strace here")?;
    let strace = strace.to_string_lossy().into_owned();
    let mut counts = Counts::new();
    let file = |name: &str| site.dir.join(format!("calls-{}-{name}", runtime.name));
    let traced = |name: &str, words: &[&str]| {
        let file = file(name);
        let file = file.to_string_lossy();
        let before = [&strace[..], "-f", "-qq", "-c", "-o", &file];
        let mut command = runtime.command(site, &before, words);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().map_err(|error| format!("strace: {error}"))
    };
    let ended = |mut child: std::process::Child, name: &str| match child.wait() {
        Ok(status) if status.success() => read(&file(name)),
        _ => Err(format!("{name} under strace failed")),
    };

    let id = format!("calls-{}", runtime.name);
    let bundle = bundle::make(site, &id, "/bin/true", Filter::None);
    let at = bundle.to_string_lossy().into_owned();
    let pid_file = bundle.join("pid").to_string_lossy().into_owned();
    let create = traced(
        "create",
        &["create", "--bundle", &at, "--pid-file", &pid_file, &id],
    )?;
    until_created(site, runtime, &id)?;
    let start = traced("start", &["start", &id])?;
    counts.insert("start".into(), ended(start, "start")?);
    counts.insert("create".into(), ended(create, "create")?);
    if let Ok(pid) = fs::read_to_string(&pid_file)
        .unwrap_or_default()
        .trim()
        .parse()
    {
        wait_for(pid);
    }
    let delete = traced("delete", &["delete", &id])?;
    counts.insert("delete".into(), ended(delete, "delete")?);
    let run = traced("run", &["run", "--bundle", &at, &id])?;
    counts.insert("run".into(), ended(run, "run")?);

    let bundle = bundle::make(site, &id, "/bin/pause", Filter::None);
    let (_, pid) = runtime.create(site, &bundle, &id)?;
    runtime.time(site, &["start", &id])?;
    let commands: [(&str, &[&str]); 3] = [
        ("exec", &["exec", &id, "/bin/true"]),
        ("state", &["state", &id]),
        ("kill", &["kill", &id, "KILL"]),
    ];
    for (name, words) in commands {
        counts.insert(name.into(), ended(traced(name, words)?, name)?);
    }
    wait_for(pid);
    runtime.time(site, &["delete", &id])?;
    Ok(counts)
}

/// strace ends with the container, not with the command: so what tells that `create` is over is `state`.
fn until_created(site: &Site, runtime: &Runtime, id: &str) -> Result<(), String> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        let output = runtime.command(site, &[], &["state", id]).output();
        let output = output.map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if text.contains("\"created\"") || text.contains("\"running\"") {
            // The last steps of the command after its record.
            std::thread::sleep(Duration::from_millis(300));
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err("create under strace never was created".into())
}

/// strace's table: calls are the fourth column, the call's name is the last.
fn read(file: &Path) -> Result<BTreeMap<String, u64>, String> {
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let rows = text.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let calls = words.get(3)?.parse().ok()?;
        let name = words.last()?;
        (*name != "total").then(|| ((*name).to_owned(), calls))
    });
    Ok(rows.collect())
}
