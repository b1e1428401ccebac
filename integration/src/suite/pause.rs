//! `pause` and `resume`, and what the other commands do with a paused container.

use std::fs;
use std::time::Duration;

use serde_json::json;

use super::tests;
use crate::cgroup;
use crate::container::Container;
use crate::lab::{Lab, eventually};
use crate::need::Need;
use crate::output::End;

tests! {
    paused_processes_stand_still_and_go_on,
    a_paused_container_is_told_by_state_and_list,
    only_what_runs_can_be_paused_and_only_what_is_paused_resumed,
    a_created_container_can_be_paused,
    a_paused_container_is_not_started,
    exec_waits_for_nobody_in_a_paused_container.needs(&[Need::Husk]),
    kill_ends_a_paused_container,
    a_signal_to_a_paused_container_arrives_when_it_goes_on,
    kill_all_ends_a_paused_container_without_a_pid_namespace,
    delete_refuses_a_paused_container_but_by_force,
    force_deletes_what_was_frozen_from_outside,
    sub_cgroups_are_paused_too,
    processes_left_by_the_first_one_are_ended_by_delete_and_kill,
}

/// A container whose process is always at work.
fn busy(lab: &Lab) -> Container<'_> {
    let container = lab.start(&lab.bundle().payload("echo 1 -- burn 600"));
    container.wait_for_lines(1);
    container
}

/// Fields 14 and 15 of proc_pid_stat(5): ticks on a CPU.
fn ticks(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let rest = text.rsplit_once(')').unwrap().1;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn pause(container: &Container) {
    container.command("pause", &[]).run().ok();
}

fn resume(container: &Container) {
    container.command("resume", &[]).run().ok();
}

fn paused_processes_stand_still_and_go_on(lab: &Lab) {
    let container = busy(lab);
    let pid = container.pid();
    let before = ticks(pid);
    assert!(eventually(|| ticks(pid) > before));
    pause(&container);
    assert_eq!(container.cgroup_file("cgroup.freeze"), "1");
    let still = ticks(pid);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(ticks(pid), still);
    resume(&container);
    assert!(eventually(|| ticks(pid) > still));
    container.end();
}

fn a_paused_container_is_told_by_state_and_list(lab: &Lab) {
    let container = busy(lab);
    pause(&container);
    assert_eq!(container.status(), "paused");
    let list = lab.runtime(["list", "--format", "json"]).run().ok().json();
    assert_eq!(list[0]["status"], "paused", "{list}");
    assert_eq!(list[0]["pid"], container.pid(), "{list}");
    resume(&container);
    assert_eq!(container.status(), "running");
    container.end();
}

fn only_what_runs_can_be_paused_and_only_what_is_paused_resumed(lab: &Lab) {
    let container = busy(lab);
    let output = container.command("resume", &[]).run().code(1);
    assert!(output.stderr.contains("not paused"), "{output}");
    pause(&container);
    if lab.is_husk() {
        let output = container.command("pause", &[]).run().code(1);
        assert!(output.stderr.contains("paused"), "{output}");
    }
    resume(&container);
    container.kill("KILL");
    container.wait();
    for command in ["pause", "resume"] {
        container.command(command, &[]).run().code(1);
    }
    container.delete();
    for command in ["pause", "resume"] {
        let output = container.command(command, &[]).run().code(1);
        assert!(output.stderr.contains("does not exist"), "{output}");
    }
}

fn a_created_container_can_be_paused(lab: &Lab) {
    let container = lab.create(&lab.bundle().payload("ready -- pause"));
    pause(&container);
    assert_eq!(container.status(), "paused");
    resume(&container);
    assert_eq!(container.status(), "created");
    container.start();
    container.wait_for_lines(1);
    container.end();
}

fn a_paused_container_is_not_started(lab: &Lab) {
    let container = lab.create(&lab.bundle().payload("pause"));
    pause(&container);
    let output = container.command("start", &[]).run().code(1);
    assert!(output.stderr.contains("paused"), "{output}");
    resume(&container);
    container.start();
    container.end();
}

fn exec_waits_for_nobody_in_a_paused_container(lab: &Lab) {
    let container = busy(lab);
    pause(&container);
    let output = container.exec("/bin/payload echo x").code(255);
    let words = "cannot exec in a paused container";
    assert!(output.stderr.contains(words), "{output}");
    resume(&container);
    assert_eq!(container.exec("/bin/payload echo x").ok().stdout, "x\n");
    container.end();
}

fn kill_ends_a_paused_container(lab: &Lab) {
    let container = busy(lab);
    pause(&container);
    container.kill("KILL");
    assert_eq!(container.wait(), End::Signal(9));
    assert_eq!(container.status(), "stopped");
    container.delete();
}

fn a_signal_to_a_paused_container_arrives_when_it_goes_on(lab: &Lab) {
    let container = lab.start(&lab.bundle().payload("until 15 7"));
    container.wait_for_lines(1);
    pause(&container);
    container.kill("TERM");
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(container.status(), "paused");
    resume(&container);
    assert_eq!(container.wait(), End::Code(7));
    container.delete();
}

fn kill_all_ends_a_paused_container_without_a_pid_namespace(lab: &Lab) {
    let bundle = lab.bundle().without_namespace("pid");
    let container = lab.start(&bundle.payload("forks 3 -- pause"));
    container.wait_for_lines(1);
    pause(&container);
    lab.runtime(["kill", "--all", &container.id, "KILL"])
        .run()
        .ok();
    container.wait();
    assert!(eventually(
        || cgroup::processes(&container.cgroup()).is_empty()
    ));
    container.delete();
}

fn delete_refuses_a_paused_container_but_by_force(lab: &Lab) {
    let container = lab.start(&lab.bundle().payload("forks 3 -- pause"));
    container.wait_for_lines(1);
    pause(&container);
    let output = container.command("delete", &[]).run().code(1);
    assert!(output.stderr.contains("paused"), "{output}");
    assert_eq!(container.status(), "paused");
    container.force_delete();
    assert!(!container.cgroup().exists());
}

/// As by an administrator, or by a pause that was killed.
fn force_deletes_what_was_frozen_from_outside(lab: &Lab) {
    let container = busy(lab);
    fs::write(container.cgroup().join("cgroup.freeze"), "1").unwrap();
    assert!(eventually(|| container.status() == "paused"));
    container.force_delete();
    assert!(!container.cgroup().exists());
}

fn sub_cgroups_are_paused_too(lab: &Lab) {
    let bundle = lab.bundle().change(|config| {
        for mount in config["mounts"].as_array_mut().unwrap() {
            if mount["type"] == "cgroup" {
                mount["options"] = json!(["rw"]);
            }
        }
    });
    let words = "mkdir /sys/fs/cgroup/a -- write /sys/fs/cgroup/a/cgroup.procs 1 -- burn 600";
    let container = lab.start(&bundle.payload(words));
    container.wait_for_lines(2);
    let inner = container.cgroup().join("a/cgroup.procs");
    assert!(eventually(|| {
        fs::read_to_string(&inner).unwrap() == format!("{}\n", container.pid())
    }));
    pause(&container);
    let still = ticks(container.pid());
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(ticks(container.pid()), still);
    resume(&container);
    container.end();
}

/// Without a pid namespace the others outlive it (runc issue 4047).
fn processes_left_by_the_first_one_are_ended_by_delete_and_kill(lab: &Lab) {
    for (by_kill, options) in [(false, &[][..]), (false, &["--force"]), (true, &[])] {
        let bundle = lab.bundle().without_namespace("pid");
        let container = lab.start(&bundle.payload("forks 4 -- pause"));
        container.wait_for_lines(1);
        let pid = container.pid();
        let first = nix::unistd::Pid::from_raw(pid);
        nix::sys::signal::kill(first, nix::sys::signal::Signal::SIGKILL).unwrap();
        container.wait();
        assert_eq!(cgroup::processes(&container.cgroup()).len(), 4);
        if by_kill {
            assert_eq!(container.status(), "stopped");
            container.kill_with("TERM").code(1);
            container.kill_with("KILL").ok();
            assert!(eventually(
                || cgroup::processes(&container.cgroup()).is_empty()
            ));
            container.kill_with("KILL").code(1);
        }
        container.command("delete", options).run().ok();
        assert!(!container.cgroup().exists());
    }
}
