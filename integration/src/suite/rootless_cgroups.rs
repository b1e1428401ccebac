//! The cgroup of a container without root: had by delegation, done without, or asked for in vain.

use std::fs;

use serde_json::json;

use super::tests;
use crate::cgroup;
use crate::lab::{Lab, eventually};
use crate::need::Need;
use crate::output::End;
use crate::user::Delegated;

tests! {
    cve_2023_25809_the_cgroup_tree_is_read_only_without_a_cgroup_namespace,
    without_permission_and_without_limits_there_is_no_cgroup,
    without_permission_a_path_is_an_error,
    without_permission_a_limit_is_an_error,
    rootless_false_puts_up_with_nothing,
    a_delegated_cgroup_is_used_and_removed,
    limits_hold_in_a_delegated_cgroup.needs(&[Need::Controller("pids")]),
    beside_the_callers_session_is_the_default_place.needs(&[Need::Husk]),
    a_cgroup_out_of_reach_says_what_reaches_it.needs(&[Need::Husk]),
    exec_from_another_session_is_warned_about.needs(&[Need::Husk]),
    a_disabled_cgroup_manager_makes_none.needs(&[Need::Husk]),
}

fn user(lab: &Lab) -> Lab {
    lab.as_user(Vec::new())
}

fn cve_2023_25809_the_cgroup_tree_is_read_only_without_a_cgroup_namespace(lab: &Lab) {
    let delegated = Delegated::new(lab);
    let lab = lab.as_user(delegated.enter());
    let bundle = lab
        .bundle()
        .without_namespace("cgroup")
        .set("/linux/cgroupsPath", delegated.below("c"));
    let below = format!("/sys/fs/cgroup{}", delegated.below("c"));
    let mkdir = format!("mkdir {below}/x -- write {below}/cgroup.procs 1");
    for line in lab.ask(bundle.another(), &mkdir) {
        assert_eq!(line["error"], "EROFS");
    }
    // /sys bound with all below it, as `spec --rootless` has it, and nothing else mounted there.
    let bound = bundle.only_mounts(&["/proc", "/dev"]).bind(
        "/sys",
        "/sys",
        &["rbind", "nosuid", "noexec", "nodev", "rro"],
    );
    for line in lab.ask(bound, &mkdir) {
        assert_eq!(line["error"], "EROFS");
    }
}

fn without_permission_and_without_limits_there_is_no_cgroup(lab: &Lab) {
    let lab = user(lab);
    // Device rules are no limit: a user namespace has no others' devices anyway.
    let rules = json!([{ "allow": false, "access": "rwm" }]);
    let bundle = lab
        .bundle()
        .set("/linux/resources/devices", rules)
        .payload("pause");
    let id = lab.id();
    let said = lab.on_bundle("create", &bundle, &[], &id).run().ok();
    assert_eq!(said.stderr, "");
    lab.runtime(["start", &id]).run().ok();
    if lab.is_husk() {
        for command in ["ps", "pause", "resume", "update", "events"] {
            let refusal = lab.runtime([command, &id]).run().refused();
            refusal.says("cgroup not exist").says("made without one");
        }
    }
    lab.runtime(["kill", &id, "KILL"]).run().ok();
    assert!(eventually(
        || lab.runtime(["delete", &id]).run().end == End::Code(0)
    ));
}

fn without_permission_a_path_is_an_error(lab: &Lab) {
    let lab = user(lab);
    let bundle = lab
        .bundle()
        .set("/linux/cgroupsPath", format!("/{}", lab.id()));
    lab.run(&bundle).refused().says("permission denied");
}

fn without_permission_a_limit_is_an_error(lab: &Lab) {
    let lab = user(lab);
    let bundle = lab.bundle().set("/linux/resources/pids/limit", 100);
    let output = lab.run(&bundle);
    assert!(
        output.stderr.contains(
            "rootless needs no limits + no cgrouppath when no permission is granted for cgroups"
        ) || output
            .stderr
            .contains("cannot set pids limit: container could not join or create cgroup"),
        "{output}"
    );
    output.refused().says("permission denied");
}

fn rootless_false_puts_up_with_nothing(lab: &Lab) {
    let lab = user(lab);
    let id = lab.id();
    let command = lab.on_bundle("run", &lab.bundle(), &[], &id);
    let output = command.global(&["--rootless", "false"]).run();
    output.refused().says("permission denied");
}

fn a_delegated_cgroup_is_used_and_removed(lab: &Lab) {
    let delegated = Delegated::new(lab);
    let lab = lab.as_user(delegated.enter());
    let bundle = lab
        .bundle()
        .set("/linux/cgroupsPath", delegated.below("deep/down"))
        .payload("facts -- pause");
    let container = lab.start(&bundle);
    container.wait_for_lines(1);
    let dir = delegated.dir.join("deep/down");
    assert_eq!(cgroup::processes(&dir), [container.pid()]);
    container.exec("/bin/payload exit 0").ok();
    container.command("pause", &[]).run().ok();
    assert_eq!(container.status(), "paused");
    container.command("resume", &[]).run().ok();
    let pids = container
        .command("ps", &["--format", "json"])
        .run()
        .ok()
        .json();
    assert_eq!(pids, json!([container.pid()]));
    container.end();
    assert!(!delegated.dir.join("deep").exists());
}

fn limits_hold_in_a_delegated_cgroup(lab: &Lab) {
    let delegated = Delegated::new(lab);
    let lab = lab.as_user(delegated.enter());
    let bundle = lab
        .bundle()
        .set("/linux/cgroupsPath", delegated.below("limited"))
        .set("/linux/resources/pids/limit", 5)
        .set(
            "/linux/resources/devices",
            json!([{ "allow": false, "access": "rwm" }]),
        )
        .payload("forks 20");
    let forks = lab.run(&bundle).ok().line();
    assert!(
        forks.to_string().contains("EAGAIN") || forks.as_u64() < Some(20),
        "{forks}"
    );
}

fn beside_the_callers_session_is_the_default_place(lab: &Lab) {
    let delegated = Delegated::new(lab);
    let lab = lab.as_user(delegated.enter());
    let container = lab.start(&lab.bundle().payload("pause"));
    let dir = delegated.dir.join(format!("husk-{}", container.id));
    assert_eq!(cgroup::processes(&dir), [container.pid()]);
    container.end();
    assert!(!dir.exists());
}

/// The directory can be made, but a process can't be moved there from elsewhere.
fn a_cgroup_out_of_reach_says_what_reaches_it(lab: &Lab) {
    let delegated = Delegated::new(lab);
    let lab = user(lab);
    let bundle = lab
        .bundle()
        .set("/linux/cgroupsPath", delegated.below("far"));
    lab.run(&bundle)
        .refused()
        .says("enter cgroup")
        .says("permission denied")
        .hints("systemd-run --user --scope");
    assert!(!delegated.dir.join("far").exists());
}

fn exec_from_another_session_is_warned_about(lab: &Lab) {
    let delegated = Delegated::new(lab);
    let inside = lab.as_user(delegated.enter());
    let bundle = inside
        .bundle()
        .set("/linux/cgroupsPath", delegated.below("c"))
        .payload("pause");
    let container = inside.start(&bundle);
    let outside = lab.as_user(Vec::new());
    let output = outside
        .runtime(["exec", &container.id, "/bin/payload", "facts"])
        .global(&["--log-level", "warning"])
        .run()
        .ok();
    assert!(
        output.stderr.contains("outside of the container's cgroup"),
        "{output}"
    );
    assert_eq!(output.line()["uid"], 0);
    container.end();
}

/// What podman asks for by `--cgroups=disabled`, root or not.
fn a_disabled_cgroup_manager_makes_none(lab: &Lab) {
    let disabled = ["--cgroup-manager", "disabled"];
    let id = lab.id();
    let bundle = lab.bundle().payload("facts -- pause");
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    lab.on_bundle("create", &bundle, &[], &id)
        .global(&disabled)
        .run()
        .ok();
    let state = lab.runtime(["state", &id]).run().ok().json();
    let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", state["pid"])).unwrap();
    assert_eq!(cgroup, own);
    assert!(!cgroup::path(&id).exists());
    lab.runtime(["start", &id]).run().ok();
    lab.runtime(["pause", &id])
        .run()
        .refused()
        .says("made without one");
    lab.runtime(["delete", "--force", &id]).run().ok();
    let limited = lab.bundle().set("/linux/resources/pids/limit", 100);
    let command = lab.on_bundle("run", &limited, &[], &lab.id());
    command
        .global(&disabled)
        .run()
        .refused()
        .says("/linux/resources");
}
