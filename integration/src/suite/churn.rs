//! The same again and again: nothing may add up.

use std::fs;

use super::tests;
use crate::lab::{Lab, wait_for_child};
use crate::output::End;

tests! {
    a_thousand_lives_leave_nothing.seconds(300),
    two_hundred_runs_leave_nothing.seconds(120),
    thirty_containers_at_once.seconds(120),
    a_hundred_execs_leave_nothing.seconds(120),
    one_id_has_one_winner.seconds(60),
    delete_races_with_the_end_of_the_process.seconds(60),
}

/// What could add up on the host, whatever the test's own check looks at.
#[derive(Debug, PartialEq, Eq)]
struct Footprint {
    descriptors: usize,
    cgroups: usize,
    mounts: usize,
    run: Vec<String>,
    tmp: Vec<String>,
    files: usize,
}

fn names(dir: &str, beginning: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.contains(beginning))
        .collect();
    names.sort();
    names
}

fn footprint(lab: &Lab) -> Footprint {
    let own = format!("t{}-", std::process::id());
    Footprint {
        descriptors: fs::read_dir("/proc/self/fd").unwrap().count(),
        cgroups: crate::cgroup::beginning(&own).len(),
        mounts: crate::mountinfo::targets().len(),
        run: names("/run", "husk"),
        tmp: names("/tmp", &own),
        files: fs::read_dir(&lab.dir).unwrap().count(),
    }
}

fn life(lab: &Lab, bundle: &crate::bundle::Bundle, id: &str) {
    lab.on_bundle("create", bundle, &[], id).run().ok();
    let state = lab.runtime(["state", id]).run().ok().json();
    let pid = i32::try_from(state["pid"].as_i64().unwrap()).unwrap();
    lab.runtime(["start", id]).run().ok();
    assert_eq!(wait_for_child(pid), End::Code(0));
    lab.runtime(["delete", id]).run().ok();
}

fn a_thousand_lives_leave_nothing(lab: &Lab) {
    let rounds = if lab.is_husk() { 1000 } else { 100 };
    let bundle = lab.bundle().payload("exit 0");
    let id = lab.id();
    life(lab, &bundle, &id);
    let before = footprint(lab);
    for _ in 0..rounds {
        life(lab, &bundle, &id);
    }
    assert_eq!(lab.finish(), Ok(()));
    assert_eq!(footprint(lab), before);
}

fn two_hundred_runs_leave_nothing(lab: &Lab) {
    let bundle = lab.bundle().payload("exit 0");
    let id = lab.id();
    lab.on_bundle("run", &bundle, &[], &id).run().ok();
    let before = footprint(lab);
    for _ in 0..200 {
        lab.on_bundle("run", &bundle, &[], &id).run().ok();
    }
    assert_eq!(lab.finish(), Ok(()));
    assert_eq!(footprint(lab), before);
}

fn thirty_containers_at_once(lab: &Lab) {
    let bundles: Vec<_> = (0..30)
        .map(|_| lab.bundle().payload("until 15 3"))
        .collect();
    let ids: Vec<String> = bundles.iter().map(|_| lab.id()).collect();
    let mut creating: Vec<_> = bundles
        .iter()
        .zip(&ids)
        .map(|(bundle, id)| lab.on_bundle("create", bundle, &[], id).spawn())
        .collect();
    creating
        .iter_mut()
        .for_each(|create| drop(create.wait().ok()));
    let list = lab.runtime(["list", "-q"]).run().ok().stdout;
    assert_eq!(list.lines().count(), 30);
    let mut starting: Vec<_> = ids
        .iter()
        .map(|id| lab.runtime(["start", id]).spawn())
        .collect();
    starting
        .iter_mut()
        .for_each(|start| drop(start.wait().ok()));
    let mut deleting: Vec<_> = ids
        .iter()
        .map(|id| lab.runtime(["delete", "--force", id]).spawn())
        .collect();
    deleting
        .iter_mut()
        .for_each(|delete| drop(delete.wait().ok()));
    assert_eq!(lab.finish(), Ok(()));
}

fn a_hundred_execs_leave_nothing(lab: &Lab) {
    let container = lab.start(&lab.bundle().payload("pause"));
    container.exec("/bin/payload exit 0").ok();
    let before = footprint(lab);
    for _ in 0..100 {
        container.exec("/bin/payload exit 0").ok();
    }
    assert_eq!(footprint(lab), before);
    assert_eq!(crate::cgroup::processes(&container.cgroup()).len(), 1);
    container.end();
}

fn one_id_has_one_winner(lab: &Lab) {
    for _ in 0..10 {
        let id = lab.id();
        let bundles: Vec<_> = (0..6).map(|_| lab.bundle().payload("pause")).collect();
        let mut racing: Vec<_> = bundles
            .iter()
            .map(|bundle| lab.on_bundle("create", bundle, &[], &id).spawn())
            .collect();
        let ends: Vec<End> = racing.iter_mut().map(|create| create.wait().end).collect();
        let winners = ends.iter().filter(|end| **end == End::Code(0)).count();
        assert_eq!(winners, 1, "{ends:?}");
        let state = lab.runtime(["state", &id]).run().ok().json();
        assert_eq!(state["status"], "created");
        lab.runtime(["delete", "--force", &id]).run().ok();
    }
}

fn delete_races_with_the_end_of_the_process(lab: &Lab) {
    let bundle = lab.bundle().payload("exit 0");
    for _ in 0..30 {
        let id = lab.id();
        lab.on_bundle("create", &bundle, &[], &id).run().ok();
        lab.runtime(["start", &id]).run().ok();
        let killed = lab.runtime(["kill", &id, "KILL"]).run();
        let gone = killed.end == End::Code(0) || killed.stderr.contains("container not running");
        assert!(gone, "{killed}");
        lab.runtime(["delete", "--force", &id]).run().ok();
        lab.runtime(["state", &id]).run().code(1);
    }
}
