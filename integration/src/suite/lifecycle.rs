//! create, start, state, kill, delete, run (spec digest, section A).

use std::fs;

use serde_json::json;

use super::tests;
use crate::lab::{Lab, eventually};
use crate::need::Need;
use crate::output::End;

tests! {
    run_gives_the_exit_status,
    run_of_a_process_killed_by_a_signal_gives_128_and_the_signal,
    run_passes_standard_input_output_and_error,
    run_leaves_nothing_even_when_the_process_fails,
    run_keep_keeps_the_record,
    a_kept_container_tells_how_it_ended.needs(&[Need::Husk]),
    run_detached_returns_while_the_container_runs,
    a_container_goes_through_its_whole_life,
    state_has_every_property_of_the_specification,
    state_after_the_end_has_no_pid,
    the_program_is_not_run_before_start,
    config_is_snapshotted_at_create,
    a_relative_bundle_is_made_absolute,
    the_bundle_is_the_current_directory_by_default,
    root_path_may_be_absolute,
    an_id_that_is_taken_is_refused_and_its_container_unharmed,
    an_id_can_be_used_again_after_delete,
    ids_of_every_permitted_character,
    delete_of_a_running_container_is_refused_and_has_no_effect,
    delete_of_a_created_container_is_allowed,
    delete_force_kills_a_running_container,
    delete_force_of_a_missing_container_succeeds,
    delete_of_a_stopped_container_kills_what_it_left,
    kill_of_a_stopped_container_reaches_what_it_left.needs(&[Need::Husk]),
    start_of_a_running_container_is_refused_and_has_no_effect,
    start_of_a_stopped_container_is_refused,
    start_without_a_process_is_refused.needs(&[Need::Husk]),
    kill_knows_names_and_numbers,
    kill_sends_term_by_default,
    kill_of_a_stopped_container_says_container_not_running,
    without_ps_that_is_said.needs(&[Need::Husk]),
    kill_all_of_a_stopped_container_succeeds,
    kill_zero_only_asks.needs(&[Need::Husk]),
    kill_reaches_a_created_container,
    a_created_container_ends_by_the_signals_that_end_programs.needs(&[Need::Husk]),
    a_created_container_whose_process_was_killed_is_stopped,
    every_command_on_a_missing_container_says_does_not_exist,
    list_is_empty_without_containers,
    list_shows_containers_as_table_json_and_ids,
    every_container_of_a_root_is_its_own,
    children_die_with_the_first_process,
    annotations_and_owner_are_told,
}

fn run_gives_the_exit_status(lab: &Lab) {
    for code in [0, 1, 7, 255] {
        lab.run(&lab.bundle().payload(&format!("exit {code}")))
            .code(code);
    }
}

fn run_of_a_process_killed_by_a_signal_gives_128_and_the_signal(lab: &Lab) {
    // The first process of a pid namespace can't raise these itself: a namespace less.
    for signal in [9, 15, 6] {
        let bundle = lab
            .bundle()
            .without_namespace("pid")
            .payload(&format!("signal {signal}"));
        lab.run(&bundle).code(128 + signal);
    }
}

fn run_passes_standard_input_output_and_error(lab: &Lab) {
    let bundle = lab.bundle().payload("stdin -- echo out -- echo-error err");
    let output = lab
        .run_with(&bundle, &[])
        .stdin_text("some\nlines")
        .run()
        .ok();
    assert_eq!(output.stdout, "\"some\\nlines\"\nout\n");
    assert_eq!(output.stderr, "err\n");
}

fn run_leaves_nothing_even_when_the_process_fails(lab: &Lab) {
    lab.run(&lab.bundle().payload("exit 3")).code(3);
    lab.run(&lab.bundle().payload("abort"));
    assert_eq!(lab.finish(), Ok(()));
}

fn run_keep_keeps_the_record(lab: &Lab) {
    let id = lab.id();
    let bundle = lab.bundle().payload("exit 0");
    lab.on_bundle("run", &bundle, &["--keep"], &id).run().ok();
    let state = lab.runtime(["state", &id]).run().ok().json();
    assert_eq!(state["status"], "stopped");
    lab.runtime(["delete", &id]).run().ok();
}

fn a_kept_container_tells_how_it_ended(lab: &Lab) {
    for (words, key, value) in [
        ("exit 0", "exitStatus", json!(0)),
        ("exit 7", "exitStatus", json!(7)),
        // Deaf to SIGABRT, as a first process without a handler is.
        ("abort", "signal", json!("SIGSEGV")),
    ] {
        let id = lab.id();
        let bundle = lab.bundle().payload(words);
        lab.on_bundle("run", &bundle, &["--keep"], &id).run();
        let state = lab.runtime(["state", &id]).run().ok().json();
        assert_eq!(state[key], value, "{state}");
        let other = ["exitStatus", "signal"].into_iter().find(|one| *one != key);
        assert!(state.get(other.unwrap()).is_none(), "{state}");
        let list = lab.runtime(["list", "--format", "json"]).run().ok().json();
        let mut listed = list.as_array().unwrap().iter();
        assert!(listed.any(|one| one["id"] == id.as_str() && one[key] == value));
        lab.runtime(["delete", &id]).run().ok();
    }
    // Not husk's to reap: nobody told it.
    let container = lab.start(&lab.bundle().payload("exit 7"));
    container.wait();
    let state = container.state();
    assert_eq!(state["status"], "stopped");
    assert!(state.get("exitStatus").is_none(), "{state}");
    container.delete();
}

fn run_detached_returns_while_the_container_runs(lab: &Lab) {
    let id = lab.id();
    let bundle = lab.bundle().payload("pause");
    lab.on_bundle("run", &bundle, &["--detach"], &id).run().ok();
    let state = lab.runtime(["state", &id]).run().ok().json();
    assert_eq!(state["status"], "running");
    lab.runtime(["delete", "--force", &id]).run().ok();
}

fn a_container_goes_through_its_whole_life(lab: &Lab) {
    let container = lab.create(&lab.bundle().payload("until 15 3"));
    assert_eq!(container.status(), "created");
    container.start();
    assert_eq!(container.wait_for_lines(1), [json!("ready")]);
    assert_eq!(container.status(), "running");
    container.kill("TERM");
    assert_eq!(container.wait(), End::Code(3));
    assert_eq!(container.status(), "stopped");
    container.delete();
    container.command("state", &[]).run().code(1);
}

fn state_has_every_property_of_the_specification(lab: &Lab) {
    let bundle = lab.bundle().payload("pause");
    let container = lab.create(&bundle);
    let state = container.state();
    let version = state["ociVersion"].as_str().expect("ociVersion");
    assert!(version.starts_with("1."), "{version}");
    assert_eq!(state["id"], container.id.as_str());
    assert_eq!(state["status"], "created");
    assert_eq!(state["bundle"], bundle.dir.to_str().unwrap());
    assert_eq!(state["rootfs"], bundle.rootfs().to_str().unwrap());
    let pid = state["pid"].as_u64().expect("pid");
    assert!(fs::exists(format!("/proc/{pid}")).unwrap());
    let created = state["created"].as_str().expect("created");
    assert!(
        created.len() >= 20 && created.contains('T') && created.ends_with('Z'),
        "{created}"
    );
    container.start();
    let state = container.state();
    assert_eq!(
        (&state["status"], &state["pid"]),
        (&json!("running"), &json!(pid))
    );
    assert_eq!(state["created"], created);
    container.end();
}

fn state_after_the_end_has_no_pid(lab: &Lab) {
    let container = lab.start(&lab.bundle().payload("exit 0"));
    container.wait();
    let state = container.state();
    assert_eq!(state["status"], "stopped");
    assert!(state["pid"].as_u64().unwrap_or(0) == 0, "{state}");
    container.delete();
}

fn the_program_is_not_run_before_start(lab: &Lab) {
    let container = lab.create(&lab.bundle().payload("echo runs"));
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert_eq!(container.stdout(), "");
    container.start();
    assert_eq!(container.wait(), End::Code(0));
    assert_eq!(container.stdout(), "runs\n");
    container.delete();
}

fn config_is_snapshotted_at_create(lab: &Lab) {
    let bundle = lab.bundle().payload("echo before");
    let container = lab.create(&bundle);
    let bundle = bundle.payload("echo after");
    bundle.write(&container.id);
    container.start();
    container.wait();
    assert_eq!(container.stdout(), "before\n");
    fs::remove_file(bundle.dir.join("config.json")).unwrap();
    container.delete();
}

fn a_relative_bundle_is_made_absolute(lab: &Lab) {
    let bundle = lab.bundle().payload("pause");
    let id = lab.id();
    bundle.write(&id);
    let name = bundle.dir.file_name().unwrap().to_str().unwrap();
    lab.runtime(["create", "--bundle", name, &id])
        .cwd(&lab.dir)
        .run()
        .ok();
    let state = lab.runtime(["state", &id]).run().ok().json();
    assert_eq!(state["bundle"], bundle.dir.to_str().unwrap());
    lab.runtime(["delete", "--force", &id]).run().ok();
}

fn the_bundle_is_the_current_directory_by_default(lab: &Lab) {
    let bundle = lab.bundle().payload("exit 4");
    let id = lab.id();
    bundle.write(&id);
    lab.runtime(["run", &id]).cwd(&bundle.dir).run().code(4);
}

fn root_path_may_be_absolute(lab: &Lab) {
    let bundle = lab.bundle();
    let rootfs = bundle.rootfs();
    let bundle = bundle
        .set("/root/path", rootfs.to_str().unwrap())
        .payload("exit 4");
    lab.run(&bundle).code(4);
}

fn an_id_that_is_taken_is_refused_and_its_container_unharmed(lab: &Lab) {
    let container = lab.start(&lab.bundle().payload("pause"));
    let second = lab.bundle().payload("echo second");
    for command in ["create", "run"] {
        let output = lab
            .on_bundle(command, &second, &[], &container.id)
            .run()
            .code(1);
        assert!(output.stderr.contains("exist"), "{output}");
    }
    assert_eq!(container.status(), "running");
    assert_eq!(container.ask("echo \"alive\""), [json!("alive")]);
    container.end();
}

fn an_id_can_be_used_again_after_delete(lab: &Lab) {
    let bundle = lab.bundle().payload("exit 0");
    let id = lab.id();
    for _ in 0..3 {
        lab.on_bundle("create", &bundle, &[], &id).run().ok();
        lab.runtime(["start", &id]).run().ok();
        let stopped = || lab.runtime(["state", &id]).run().json()["status"] == "stopped";
        assert!(eventually(stopped));
        lab.runtime(["delete", &id]).run().ok();
    }
}

fn ids_of_every_permitted_character(lab: &Lab) {
    let long = "x".repeat(200);
    for id in ["a", "A-b_c.d+e", "0", &long, "run.husk"] {
        let bundle = lab
            .bundle()
            .payload("exit 0")
            .set("/linux/cgroupsPath", format!("/{}", lab.id()));
        lab.on_bundle("run", &bundle, &[], id).run().ok();
    }
}

fn delete_of_a_running_container_is_refused_and_has_no_effect(lab: &Lab) {
    let container = lab.start(&lab.bundle().payload("pause"));
    let output = container.command("delete", &[]).run().code(1);
    assert!(
        output.stderr.contains("running") || output.stderr.contains("not stopped"),
        "{output}"
    );
    assert_eq!(container.status(), "running");
    container.ask("exit 0");
    container.end();
}

fn delete_of_a_created_container_is_allowed(lab: &Lab) {
    let container = lab.create(&lab.bundle().payload("echo never"));
    let pid = container.pid();
    container.delete();
    assert_eq!(crate::lab::wait_for_child(pid), End::Signal(9));
    assert_eq!(container.stdout(), "");
    container.command("state", &[]).run().code(1);
}

fn delete_force_kills_a_running_container(lab: &Lab) {
    let container = lab.start(&lab.bundle().payload("forks 3 -- pause"));
    container.wait_for_lines(1);
    container.force_delete();
    assert_eq!(container.wait(), End::Signal(9));
}

fn delete_force_of_a_missing_container_succeeds(lab: &Lab) {
    lab.runtime(["delete", "--force", "nobody"]).run().ok();
    lab.runtime(["delete", "-f", "nobody"]).run().ok();
    lab.runtime(["delete", "nobody"]).run().code(1);
}

/// Without a pid namespace of its own, the container's children outlive its first process.
fn delete_of_a_stopped_container_kills_what_it_left(lab: &Lab) {
    let container = lab.start(&lab.bundle().without_namespace("pid").payload("orphans 3"));
    container.wait();
    assert_eq!(container.status(), "stopped");
    container.force_delete();
}

/// Who kills it means all of it.
fn kill_of_a_stopped_container_reaches_what_it_left(lab: &Lab) {
    let container = lab.start(&lab.bundle().without_namespace("pid").payload("orphans 3"));
    container.wait();
    let procs = || crate::cgroup::processes(&container.cgroup());
    assert_eq!(procs().len(), 3);
    assert_eq!(
        container
            .command("ps", &[])
            .run()
            .ok()
            .stdout
            .lines()
            .count(),
        4
    );
    container
        .command("kill", &[])
        .run()
        .refused()
        .says("container not running");
    container.kill_with("KILL").ok();
    assert!(eventually(|| procs().is_empty()));
    container
        .kill_with("KILL")
        .refused()
        .says("container not running");
    assert_eq!(
        container
            .command("ps", &[])
            .run()
            .ok()
            .stdout
            .lines()
            .count(),
        1
    );
    container.delete();
}

fn without_ps_that_is_said(lab: &Lab) {
    let container = lab.start(&lab.bundle().payload("pause"));
    let ps = |options| container.command("ps", options).env("PATH", "/nowhere");
    let refusal = ps(&[]).run().refused();
    refusal.says("run ps: no such file").hints("procps");
    assert_eq!(
        ps(&["--format", "json"]).run().ok().stdout,
        format!("[{}]\n", container.pid())
    );
    container.end();
}

fn start_of_a_running_container_is_refused_and_has_no_effect(lab: &Lab) {
    let container = lab.start(&lab.bundle().payload("echo once -- pause"));
    assert!(eventually(|| container.stdout() == "once\n"));
    container.command("start", &[]).run().code(1);
    assert_eq!(container.status(), "running");
    assert_eq!(container.stdout(), "once\n");
    container.end();
}

fn start_of_a_stopped_container_is_refused(lab: &Lab) {
    let container = lab.start(&lab.bundle().payload("exit 0"));
    container.wait();
    container.command("start", &[]).run().code(1);
    assert_eq!(container.status(), "stopped");
    container.delete();
}

/// `process` is optional until start.
fn start_without_a_process_is_refused(lab: &Lab) {
    let bundle = lab.bundle().remove("/process");
    let container = lab.create(&bundle);
    container.pid();
    container
        .command("start", &[])
        .run()
        .refused()
        .says("/process");
    container.force_delete();
    lab.run(&bundle).refused().says("/process");
}

fn kill_knows_names_and_numbers(lab: &Lab) {
    for name in ["USR1", "SIGUSR1", "sigusr1", "usr1", "10"] {
        let container = lab.start(&lab.bundle().payload("until 10 5"));
        container.wait_for_lines(1);
        container.kill(name);
        assert_eq!(container.wait(), End::Code(5), "{name}");
        container.delete();
    }
    let container = lab.start(&lab.bundle().payload("pause"));
    for name in ["NOSUCH", "999", "-1", "USR1x"] {
        container.kill_with(name).code(1);
    }
    assert_eq!(container.status(), "running");
    container.end();
}

fn kill_sends_term_by_default(lab: &Lab) {
    let container = lab.start(&lab.bundle().payload("until 15 6"));
    container.wait_for_lines(1);
    container.command("kill", &[]).run().ok();
    assert_eq!(container.wait(), End::Code(6));
    container.delete();
}

/// containerd and CRI-O look for these very words.
fn kill_of_a_stopped_container_says_container_not_running(lab: &Lab) {
    let container = lab.start(&lab.bundle().payload("exit 0"));
    container.wait();
    let output = container.kill_with("TERM").code(1);
    assert!(output.stderr.contains("container not running"), "{output}");
    container.delete();
}

fn kill_all_of_a_stopped_container_succeeds(lab: &Lab) {
    let container = lab.start(&lab.bundle().payload("exit 0"));
    container.wait();
    lab.runtime(["kill", "--all", &container.id, "9"])
        .run()
        .ok();
    lab.runtime(["kill", "-a", &container.id, "KILL"])
        .run()
        .ok();
    container.delete();
}

fn kill_zero_only_asks(lab: &Lab) {
    let container = lab.start(&lab.bundle().payload("pause"));
    container.kill("0");
    assert_eq!(container.status(), "running");
    container.end();
}

fn kill_reaches_a_created_container(lab: &Lab) {
    let container = lab.create(&lab.bundle().payload("echo never"));
    container.kill("KILL");
    assert_eq!(container.wait(), End::Signal(9));
    assert_eq!(container.status(), "stopped");
    assert_eq!(container.stdout(), "");
    container.delete();
}

/// As one of runc does: whoever stops a container that was never started need not know that.
fn a_created_container_ends_by_the_signals_that_end_programs(lab: &Lab) {
    for (signal, number) in [("TERM", 15), ("INT", 2), ("HUP", 1), ("USR1", 10)] {
        let container = lab.create(&lab.bundle().payload("exit 0"));
        container.kill(signal);
        assert_eq!(container.wait(), End::Code(128 + number));
        assert_eq!(container.status(), "stopped");
        container.delete();
    }
    // The program has them as they were.
    let container = lab.start(&lab.bundle().payload("facts -- until 15 7"));
    let facts = container.wait_for_lines(2).remove(0);
    assert_eq!(facts["signals"], lab.facts(&lab.bundle())["signals"]);
    container.kill("TERM");
    assert_eq!(container.wait(), End::Code(7));
    container.delete();
}

fn a_created_container_whose_process_was_killed_is_stopped(lab: &Lab) {
    let container = lab.create(&lab.bundle().payload("echo never"));
    let pid = nix::unistd::Pid::from_raw(container.pid());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    container.wait();
    assert_eq!(container.status(), "stopped");
    let output = container.command("start", &[]).run().code(1);
    assert!(!output.stderr.is_empty());
    container.delete();
}

/// containerd treats these words as "already gone".
fn every_command_on_a_missing_container_says_does_not_exist(lab: &Lab) {
    for command in ["state", "start", "kill", "delete", "exec"] {
        let mut args = vec![command, "nobody"];
        if command == "exec" {
            args.push("/bin/true");
        }
        let output = lab.runtime(args).run();
        let code = if command == "exec" { 255 } else { 1 };
        let output = output.code(code);
        assert!(output.stderr.contains("does not exist"), "{output}");
    }
}

fn list_is_empty_without_containers(lab: &Lab) {
    fs::create_dir(&lab.root).unwrap();
    let table = lab.runtime(["list"]).run().ok();
    assert_eq!(table.stdout.lines().count(), 1, "{table}");
    assert_eq!(lab.runtime(["list", "--quiet"]).run().ok().stdout, "");
    let json = lab.runtime(["list", "--format", "json"]).run().ok();
    assert!(["[]", "null"].contains(&json.stdout.trim()), "{json}");
}

fn list_shows_containers_as_table_json_and_ids(lab: &Lab) {
    let bundle = lab.bundle().payload("pause");
    let (first, second) = (lab.create(&bundle), lab.start(&bundle));
    let mut ids = vec![first.id.clone(), second.id.clone()];
    ids.sort();
    let quiet = lab.runtime(["list", "-q"]).run().ok().stdout;
    assert_eq!(quiet.lines().collect::<Vec<_>>(), ids);
    let list = lab.runtime(["list", "-f", "json"]).run().ok().json();
    let list = list.as_array().unwrap();
    assert_eq!(list.len(), 2);
    for container in list {
        let created = container["id"] == first.id.as_str();
        assert_eq!(
            container["status"],
            if created { "created" } else { "running" }
        );
        for key in ["ociVersion", "pid", "bundle", "rootfs", "created", "owner"] {
            assert!(!container[key].is_null(), "{key} in {container}");
        }
        assert_eq!(container["owner"], "root");
    }
    let table = lab.runtime(["list"]).run().ok().stdout;
    let lines: Vec<&str> = table.lines().collect();
    let heads: Vec<&str> = lines[0].split_whitespace().collect();
    assert_eq!(heads, ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    assert_eq!(lines.len(), 3, "{table}");
    first.force_delete();
    second.end();
}

fn every_container_of_a_root_is_its_own(lab: &Lab) {
    let bundle = lab.bundle().payload("pause");
    let (first, second) = (lab.start(&bundle), lab.start(&bundle));
    first.end();
    assert_eq!(second.status(), "running");
    let other = lab.bare([
        "--root",
        lab.path("other").to_str().unwrap(),
        "state",
        &second.id,
    ]);
    other.run().code(1);
    second.end();
}

fn children_die_with_the_first_process(lab: &Lab) {
    let container = lab.start(&lab.bundle().payload("forks 5 -- until 15 0"));
    container.wait_for_lines(2);
    container.kill("TERM");
    container.wait();
    let procs = || crate::cgroup::processes(&container.cgroup());
    assert!(eventually(|| procs().is_empty()), "{:?}", procs());
    container.delete();
}

fn annotations_and_owner_are_told(lab: &Lab) {
    let bundle = lab.bundle().payload("pause").set(
        "/annotations",
        json!({ "org.example.key": "value", "empty": "" }),
    );
    let container = lab.create(&bundle);
    let state = container.state();
    assert_eq!(state["annotations"]["org.example.key"], "value");
    assert_eq!(state["annotations"]["empty"], "");
    assert!(state["owner"].is_string(), "{state}");
    container.force_delete();
}
