//! Many at once, and many in a row. `make load` (HUSK_SUITE_LOAD=1) takes the whole numbers.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::tests;
use crate::bundle::Bundle;
use crate::lab::{Lab, Running, eventually, wait_for_child};
use crate::output::{End, Output};

tests! {
    two_hundred_creates_at_once.seconds(300),
    starts_and_deletes_race_on_the_same_ids.seconds(300),
    a_thousand_containers_run_at_once.seconds(1800),
    five_thousand_lives_leave_nothing.seconds(1800),
    ten_thousand_kills_race_with_the_end.seconds(3600),
}

fn count(whole: usize, short: usize) -> usize {
    match std::env::var_os("HUSK_SUITE_LOAD") {
        Some(_) => whole,
        None => short,
    }
}

fn all(commands: Vec<Running>) -> Vec<Output> {
    commands.into_iter().map(|mut one| one.wait()).collect()
}

fn listed(lab: &Lab) -> usize {
    let list = lab
        .runtime(["list", "-q"])
        .patience(Duration::from_secs(60))
        .run();
    list.ok().stdout.lines().count()
}

fn at_once(lab: &Lab, words: &[&str], ids: &[String]) -> Vec<Output> {
    let spawn = |id: &String| {
        let words = words.iter().copied().chain([id.as_str()]);
        lab.runtime(words)
            .patience(Duration::from_secs(120))
            .spawn()
    };
    all(ids.iter().map(spawn).collect())
}

fn create_at_once(lab: &Lab, bundle: &Bundle, ids: &[String]) -> Vec<Output> {
    let dir = bundle.dir.to_str().unwrap();
    // Without a path in it, each has a cgroup of its own name.
    let config = serde_json::to_vec(&bundle.config).unwrap();
    bundle.another().raw(config).write("");
    at_once(lab, &["create", "--bundle", dir], ids)
}

fn reap(lab: &Lab) {
    assert!(eventually(|| lab
        .left()
        .iter()
        .all(|thing| !thing.starts_with("process"))));
}

fn two_hundred_creates_at_once(lab: &Lab) {
    let bundle = lab.bundle().payload("pause");
    let ids: Vec<String> = (0..200).map(|_| lab.id()).collect();
    for output in create_at_once(lab, &bundle, &ids) {
        output.ok();
    }
    assert_eq!(listed(lab), 200);
    for output in at_once(lab, &["delete", "--force"], &ids) {
        output.ok();
    }
    assert_eq!(listed(lab), 0);
    reap(lab);
}

/// Each id has one winner; losers say what is so.
fn starts_and_deletes_race_on_the_same_ids(lab: &Lab) {
    let bundle = lab.bundle().payload("pause");
    for _ in 0..count(50, 5) {
        let ids: Vec<String> = (0..8).map(|_| lab.id()).collect();
        let thrice: Vec<String> = (0..3).flat_map(|_| ids.clone()).collect();
        let created = create_at_once(lab, &bundle, &thrice);
        let winners = created.iter().filter(|one| one.end == End::Code(0)).count();
        assert_eq!(winners, ids.len());
        for loser in created.into_iter().filter(|one| one.end != End::Code(0)) {
            let said = &loser.stderr;
            assert!(
                said.contains("already exists") || said.contains("being made"),
                "{loser}"
            );
        }
        let racing: Vec<Running> = thrice
            .iter()
            .enumerate()
            .map(|(turn, id)| match turn / ids.len() {
                0 => lab.runtime(["start", id]).spawn(),
                1 => lab.runtime(["delete", "--force", id]).spawn(),
                _ => lab.runtime(["start", id]).spawn(),
            })
            .collect();
        for (turn, output) in all(racing).into_iter().enumerate() {
            if turn / ids.len() == 1 {
                output.ok();
            } else if output.end != End::Code(0) {
                let said = output.refused().line;
                let known = [
                    "does not exist",
                    "already running",
                    "stopped",
                    "ended before",
                ];
                assert!(known.iter().any(|words| said.contains(words)), "{said}");
            }
        }
        assert_eq!(listed(lab), 0);
    }
    reap(lab);
}

fn a_thousand_containers_run_at_once(lab: &Lab) {
    let bundle = lab.bundle().payload("pause");
    let ids: Vec<String> = (0..count(1000, 100)).map(|_| lab.id()).collect();
    for (turn, some) in ids.chunks(25).enumerate() {
        for output in create_at_once(lab, &bundle, some) {
            output.ok();
        }
        for output in at_once(lab, &["start"], some) {
            output.ok();
        }
        assert_eq!(listed(lab), turn * 25 + some.len());
    }
    let list = lab
        .runtime(["list", "--format", "json"])
        .patience(Duration::from_secs(60))
        .run();
    let list = list.ok().json();
    let list = list.as_array().unwrap();
    assert_eq!(list.len(), ids.len());
    assert!(list.iter().all(|one| one["status"] == "running"));
    for some in ids.chunks(25) {
        for output in at_once(lab, &["delete", "--force"], some) {
            output.ok();
        }
    }
    assert_eq!(listed(lab), 0);
    reap(lab);
}

fn five_thousand_lives_leave_nothing(lab: &Lab) {
    let bundle = lab.bundle().payload("exit 0");
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = (descriptors(), kernel_memory());
    for _ in 0..count(5000, 150) {
        let id = lab.id();
        lab.on_bundle("create", &bundle, &[], &id).run().ok();
        let state = lab.runtime(["state", &id]).run().ok().json();
        let pid = i32::try_from(state["pid"].as_i64().unwrap()).unwrap();
        lab.runtime(["start", &id]).run().ok();
        assert_eq!(wait_for_child(pid), End::Code(0));
        lab.runtime(["delete", &id]).run().ok();
        assert_eq!(descriptors(), before.0);
    }
    assert_eq!(lab.finish(), Ok(()));
    // The kernel takes its time for what is removed.
    assert!(
        eventually(|| dying_cgroups() < 100),
        "{} cgroups",
        dying_cgroups()
    );
    let grown = kernel_memory().saturating_sub(before.1);
    // Others are at work here, too; 20 kB a life would be far more.
    assert!(grown < 100_000, "{grown} kB");
}

/// Cgroups that are removed, and held by something yet.
fn dying_cgroups() -> u64 {
    field(&crate::cgroup::path("cgroup.stat"), "nr_dying_descendants")
}

/// kB of the kernel's that it can't give back.
fn kernel_memory() -> u64 {
    let parts = ["SUnreclaim:", "KernelStack:", "PageTables:", "Percpu:"];
    let file = Path::new("/proc/meminfo");
    parts.iter().map(|name| field(file, name)).sum()
}

fn field(file: &Path, name: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap();
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    let value = lines.find_map(|(key, rest)| (key == name).then_some(rest));
    let value = value.unwrap_or_else(|| panic!("{name} in {}", file.display()));
    value.trim().trim_end_matches(" kB").parse().unwrap()
}

fn ten_thousand_kills_race_with_the_end(lab: &Lab) {
    let bundle = lab.bundle().payload("exit 0");
    for round in 0..count(10_000, 150) {
        let id = lab.id();
        lab.on_bundle("create", &bundle, &[], &id).run().ok();
        lab.runtime(["start", &id]).run().ok();
        let mut kill = lab.runtime(["kill", &id, "KILL"]).spawn();
        let mut delete = (round % 2 == 0).then(|| lab.runtime(["delete", "--force", &id]).spawn());
        let killed = kill.wait();
        let known = ["container not running", "does not exist"];
        let gone = known.iter().any(|words| killed.stderr.contains(words));
        assert!(killed.end == End::Code(0) || gone, "{killed}");
        match &mut delete {
            Some(delete) => drop(delete.wait().ok()),
            None => drop(lab.runtime(["delete", "--force", &id]).run().ok()),
        }
        lab.runtime(["state", &id]).run().code(1);
    }
    reap(lab);
}
