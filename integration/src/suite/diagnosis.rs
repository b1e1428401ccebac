//! Broken bundles explained: the words of `diagnosis/cases.txt`, to a person and to an engine alike.

use super::tests;
use crate::cgroup::controllers;
use crate::diagnosis::{Way, cases, second_cases};
use crate::lab::Lab;
use crate::need::Need;

const HUSK: &[Need] = &[Need::Husk];

tests! {
    broken_config.needs(HUSK),
    unknown_keys.needs(HUSK),
    broken_programs.needs(HUSK),
    broken_namespaces.needs(HUSK),
    broken_root_and_mounts.needs(HUSK),
    broken_kernel_settings.needs(HUSK),
    broken_limits_and_devices.needs(HUSK),
    broken_hooks.needs(HUSK),
    broken_command_lines.needs(HUSK),
    broken_in_a_second_set.needs(HUSK),
}

/// Where, why, what to do, in one line and a hint, with the right status and nothing left.
fn explained(lab: &Lab, groups: &[&str]) {
    let mut wrong = Vec::new();
    let all = cases().into_iter().chain(second_cases());
    for case in all.filter(|case| groups.contains(&case.group)) {
        if case.name == "controller-absent" && controllers().iter().any(|name| name == "memory") {
            continue;
        }
        for way in [Way::Person, Way::Engine] {
            let answer = case.ask(lab, way);
            let letters = answer.score.letters();
            if letters.contains('.') {
                let (name, status) = (case.name, answer.status);
                let left = answer.left.join(", ");
                wrong.push(format!(
                    "{name}: {letters} {status} {left}\n{}",
                    answer.message
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn broken_config(lab: &Lab) {
    explained(lab, &["config"]);
}

fn unknown_keys(lab: &Lab) {
    explained(lab, &["silent"]);
}

fn broken_programs(lab: &Lab) {
    explained(lab, &["process", "exec"]);
}

fn broken_namespaces(lab: &Lab) {
    explained(lab, &["ns"]);
}

fn broken_root_and_mounts(lab: &Lab) {
    explained(lab, &["rootfs", "mount"]);
}

fn broken_kernel_settings(lab: &Lab) {
    explained(lab, &["sysctl", "seccomp", "lsm"]);
}

fn broken_limits_and_devices(lab: &Lab) {
    explained(lab, &["device", "cgroup"]);
}

fn broken_hooks(lab: &Lab) {
    explained(lab, &["hook"]);
}

fn broken_command_lines(lab: &Lab) {
    explained(lab, &["cli", "lifecycle"]);
}

fn broken_in_a_second_set(lab: &Lab) {
    explained(
        lab,
        &["second", "third", "fourth", "fifth", "sixth", "seventh"],
    );
}
