//! The six kinds of hooks (spec digest, items 5, 6, 9 and 37).

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::tests;
use crate::bundle::{Bundle, PAYLOAD};
use crate::lab::Lab;
use crate::output::End;

tests! {
    hooks_run_at_their_time_and_in_their_order,
    hooks_of_one_kind_run_in_the_order_listed,
    hooks_of_the_runtime_run_in_its_namespaces,
    create_container_hooks_run_in_the_containers_namespaces_before_pivot_root,
    create_container_hooks_see_the_mounts_made,
    start_container_hooks_run_inside,
    start_container_hooks_inherit_the_programs_environment_alone,
    every_hook_gets_the_state_on_standard_input,
    hook_arguments_and_environment_are_its_own,
    hook_environment_is_empty_without_one,
    a_hook_without_args_gets_its_path_as_its_name,
    a_failing_create_hook_undoes_create,
    a_failing_start_container_hook_stops_the_container,
    a_failing_poststart_hook_stops_the_container,
    a_failing_poststop_hook_is_a_warning,
    what_a_failing_hook_says_is_told,
    a_hook_that_is_missing_is_told,
    a_hook_that_is_not_executable_is_told,
    a_hook_that_is_killed_is_told,
    a_hook_has_its_time_and_no_more,
    a_hook_in_time_is_left_alone,
    a_timed_out_hook_takes_its_children_along,
    poststop_hooks_run_once_by_delete_and_by_force,
    poststop_hooks_run_after_a_failed_create,
    run_runs_all_hooks,
    hooks_do_not_get_the_containers_streams_descriptors,
    hooks_may_change_the_container_before_it_starts,
}

const RUNTIME_KINDS: [&str; 3] = ["prestart", "createRuntime", "poststart"];

/// A hook that appends its facts and its standard input to `file`.
fn telling(lab: &Lab, file: &Path) -> Vec<String> {
    vec![
        lab.host_payload().into(),
        "hook".into(),
        file.to_str().unwrap().into(),
    ]
}

fn hook(bundle: Bundle, kind: &str, args: &[String]) -> Bundle {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    bundle.hook(kind, &args)
}

/// What the hooks told: facts and state, in their order.
fn told(file: &Path) -> Vec<(Value, Value)> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines()
        .map(|line| {
            let told: Value = serde_json::from_str(line).unwrap();
            let stdin = told["stdin"].as_str().unwrap();
            let state = serde_json::from_str(stdin).unwrap_or_else(|e| panic!("{e}: {stdin:?}"));
            (told["facts"].clone(), state)
        })
        .collect()
}

/// Every kind writes its name to one file, which the container sees at /tmp/order.
fn with_all_hooks(lab: &Lab, bundle: Bundle, dir: &Path) -> Bundle {
    let order = dir.join("order");
    fs::create_dir_all(dir).unwrap();
    let host = |word: &str| {
        let args = [
            lab.host_payload(),
            "hook-words",
            order.to_str().unwrap(),
            word,
        ];
        args.map(str::to_owned)
    };
    let mut bundle = bundle.bind(dir, "/tmp", &["bind"]);
    for kind in [
        "poststop",
        "poststart",
        "createContainer",
        "createRuntime",
        "prestart",
    ] {
        bundle = hook(bundle, kind, &host(kind));
    }
    bundle.hook(
        "startContainer",
        &[PAYLOAD, "hook-words", "/tmp/order", "startContainer"],
    )
}

fn words(dir: &Path) -> Vec<String> {
    let text = fs::read_to_string(dir.join("order")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn hooks_run_at_their_time_and_in_their_order(lab: &Lab) {
    let dir = lab.path("shared");
    let bundle = lab
        .bundle()
        .payload("hook-words /tmp/order program -- until 15 0");
    let bundle = with_all_hooks(lab, bundle, &dir);
    let container = lab.create(&bundle);
    assert_eq!(
        words(&dir),
        ["prestart", "createRuntime", "createContainer"]
    );
    container.start();
    let after_start = words(&dir);
    assert_eq!(after_start[3], "startContainer");
    assert!(
        after_start[4..].contains(&"poststart".to_owned()),
        "{after_start:?}"
    );
    container.kill("KILL");
    container.wait();
    assert!(!words(&dir).contains(&"poststop".to_owned()));
    container.delete();
    assert_eq!(words(&dir).last().unwrap(), "poststop");
}

fn hooks_of_one_kind_run_in_the_order_listed(lab: &Lab) {
    let dir = lab.path("shared");
    fs::create_dir(&dir).unwrap();
    let order = dir.join("order");
    let mut bundle = lab.bundle().payload("exit 0");
    for n in 0..5 {
        for kind in ["createRuntime", "poststop"] {
            let word = format!("{kind}{n}");
            bundle = bundle.hook(
                kind,
                &[
                    lab.host_payload(),
                    "hook-words",
                    order.to_str().unwrap(),
                    &word,
                ],
            );
        }
    }
    lab.run(&bundle).ok();
    let expected: Vec<String> = ["createRuntime", "poststop"]
        .iter()
        .flat_map(|kind| (0..5).map(move |n| format!("{kind}{n}")))
        .collect();
    assert_eq!(words(&dir), expected);
}

fn own_namespace(kind: &str) -> u64 {
    let link = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
    link.to_str()
        .unwrap()
        .split_once('[')
        .unwrap()
        .1
        .trim_end_matches(']')
        .parse()
        .unwrap()
}

fn hooks_of_the_runtime_run_in_its_namespaces(lab: &Lab) {
    for kind in ["prestart", "createRuntime", "poststart", "poststop"] {
        let file = lab.path(kind);
        let bundle = hook(lab.bundle().payload("exit 0"), kind, &telling(lab, &file));
        lab.run(&bundle).ok();
        let told = told(&file);
        assert_eq!(told.len(), 1, "{kind}");
        for ns in ["pid", "net", "ipc", "uts", "mnt", "cgroup"] {
            assert_eq!(told[0].0["ns"][ns], own_namespace(ns), "{kind}: {ns}");
        }
        assert_eq!(told[0].0["hostname"], "suite");
    }
}

fn create_container_hooks_run_in_the_containers_namespaces_before_pivot_root(lab: &Lab) {
    let file = lab.path("told");
    // Run from the host's path, though in the container's mount namespace.
    let bundle = hook(
        lab.bundle().payload("facts"),
        "createContainer",
        &telling(lab, &file),
    );
    let inside = lab.run(&bundle).ok().line();
    let told = told(&file).remove(0);
    for ns in ["net", "ipc", "uts", "mnt"] {
        assert_eq!(told.0["ns"][ns], inside["ns"][ns], "{ns}");
    }
    // As CVE-wary hooks need it: the container's root is not the root yet.
    assert_ne!(told.0["exe"], PAYLOAD);
}

/// NVIDIA's hook mounts into the root: the container's mounts have to be there by then.
fn create_container_hooks_see_the_mounts_made(lab: &Lab) {
    let file = lab.path("told");
    let source = lab.path("source");
    fs::create_dir(&source).unwrap();
    let bundle = lab
        .bundle()
        .bind(&source, "/opt", &["bind"])
        .dir("opt")
        .payload("facts");
    let rootfs = bundle.rootfs();
    let bundle = hook(bundle, "createContainer", &telling(lab, &file));
    lab.run(&bundle).ok();
    let facts = &told(&file)[0].0;
    let mounts = facts["mounts"].as_array().unwrap();
    let targets: Vec<&str> = mounts
        .iter()
        .map(|m| m["target"].as_str().unwrap())
        .collect();
    for name in ["opt", "proc", "dev", "dev/pts", "sys"] {
        let path = rootfs.join(name);
        assert!(
            targets.contains(&path.to_str().unwrap()),
            "{name}: {targets:?}"
        );
    }
}

fn start_container_hooks_run_inside(lab: &Lab) {
    let dir = lab.path("shared");
    fs::create_dir(&dir).unwrap();
    let bundle = lab
        .bundle()
        .bind(&dir, "/tmp", &["bind"])
        .hook("startContainer", &[PAYLOAD, "hook", "/tmp/told"])
        .payload("facts");
    let inside = lab.run(&bundle).ok().line();
    let (facts, state) = told(&dir.join("told")).remove(0);
    assert_eq!(facts["ns"], inside["ns"]);
    assert_eq!(facts["exe"], PAYLOAD);
    assert_eq!(facts["hostname"], "inside");
    assert_eq!(state["pid"], 1, "as seen in the container");
}

fn start_container_hooks_inherit_the_programs_environment_alone(lab: &Lab) {
    let dir = lab.path("shared");
    fs::create_dir(&dir).unwrap();
    let hook = |file: &str| json!({ "path": PAYLOAD, "args": [PAYLOAD, "hook", file] });
    let mut own = hook("/tmp/own");
    own["env"] = json!(["OWN=1"]);
    let bundle = lab
        .bundle()
        .bind(&dir, "/tmp", &["bind"])
        .set("/process/env", json!(["ONE=two"]))
        .set("/hooks/startContainer", json!([hook("/tmp/none"), own]));
    let run = lab.run_with(&bundle.payload("exit 0"), &[]);
    run.env("SECRET", "x").run().ok();
    let env = |file: &str| told(&dir.join(file))[0].0["env"].clone();
    assert_eq!(env("none"), json!([["HOME", "/"], ["ONE", "two"]]));
    assert_eq!(env("own"), json!([["OWN", "1"]]));
}

fn every_hook_gets_the_state_on_standard_input(lab: &Lab) {
    let dir = lab.path("shared");
    fs::create_dir(&dir).unwrap();
    let file = |kind: &str| dir.join(kind);
    let mut bundle = lab
        .bundle()
        .set("/annotations", json!({ "key": "value" }))
        .bind(&dir, "/tmp", &["bind"])
        .hook("startContainer", &[PAYLOAD, "hook", "/tmp/startContainer"])
        .payload("until 15 0");
    for kind in [
        "prestart",
        "createRuntime",
        "createContainer",
        "poststart",
        "poststop",
    ] {
        bundle = hook(bundle, kind, &telling(lab, &file(kind)));
    }
    let container = lab.start(&bundle);
    let pid = container.pid();
    container.end();
    let expected = [
        ("prestart", &["created"][..], true),
        ("createRuntime", &["created", "creating"], true),
        ("createContainer", &["created", "creating"], false),
        ("startContainer", &["created"], false),
        ("poststart", &["running"], true),
        ("poststop", &["stopped"], false),
    ];
    for (kind, statuses, host_pid) in expected {
        let told = told(&file(kind));
        assert_eq!(told.len(), 1, "{kind}");
        let state = &told[0].1;
        assert_eq!(state["id"], container.id.as_str(), "{kind}");
        assert_eq!(state["bundle"], bundle.dir.to_str().unwrap(), "{kind}");
        assert_eq!(state["annotations"]["key"], "value", "{kind}");
        assert!(state["ociVersion"].is_string(), "{kind}");
        let status = state["status"].as_str().unwrap();
        assert!(statuses.contains(&status), "{kind}: {status}");
        if host_pid {
            assert_eq!(state["pid"], pid, "{kind}");
        }
    }
}

fn hook_arguments_and_environment_are_its_own(lab: &Lab) {
    let file = lab.path("told");
    let hook = json!([{
        "path": lab.host_payload(),
        "args": ["own-name", "hook", file],
        "env": ["A=1", "B=x y"],
    }]);
    let bundle = lab
        .bundle()
        .set("/hooks/createRuntime", hook)
        .payload("exit 0");
    lab.run_with(&bundle, &[]).env("SECRET", "x").run().ok();
    let facts = &told(&file)[0].0;
    assert_eq!(facts["args"][0], "own-name");
    assert_eq!(facts["env"], json!([["A", "1"], ["B", "x y"]]));
}

fn hook_environment_is_empty_without_one(lab: &Lab) {
    let file = lab.path("told");
    let bundle = hook(
        lab.bundle().payload("exit 0"),
        "createRuntime",
        &telling(lab, &file),
    );
    lab.run_with(&bundle, &[]).env("SECRET", "x").run().ok();
    let env = told(&file)[0].0["env"].clone();
    assert!(!env.to_string().contains("SECRET"), "{env}");
}

fn a_hook_without_args_gets_its_path_as_its_name(lab: &Lab) {
    let file = lab.path("ran");
    let script = lab.path("script");
    fs::write(
        &script,
        format!("#!/bin/sh\necho \"$# $0\" > {}\n", file.display()),
    )
    .unwrap();
    crate::bundle::set_mode(&script, 0o755);
    let bundle = lab
        .bundle()
        .set("/hooks/createRuntime", json!([{ "path": script }]));
    lab.run(&bundle.payload("exit 0")).ok();
    assert_eq!(
        fs::read_to_string(&file).unwrap().trim(),
        format!("0 {}", script.display())
    );
}

fn failing(lab: &Lab, file: &Path) -> Vec<String> {
    let mut args = telling(lab, file);
    args.push("7".into());
    args
}

fn a_failing_create_hook_undoes_create(lab: &Lab) {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let bundle = hook(
            lab.bundle().payload("echo never"),
            kind,
            &failing(lab, &lab.path(kind)),
        );
        let id = lab.id();
        let output = lab.on_bundle("create", &bundle, &[], &id).run().code(1);
        let words = if kind == "prestart" { "prestart" } else { kind };
        assert!(
            output.stderr.contains(words) && output.stderr.contains('7'),
            "{output}"
        );
        lab.runtime(["state", &id]).run().code(1);
        assert_eq!(lab.finish(), Ok(()), "{kind}");
    }
}

fn a_failing_start_container_hook_stops_the_container(lab: &Lab) {
    let bundle = lab
        .bundle()
        .hook("startContainer", &[PAYLOAD, "hook", "/dev/null", "7"]);
    let bundle = bundle.payload("echo never");
    let container = lab.create(&bundle);
    container.pid();
    container.command("start", &[]).run().code(1);
    container.wait();
    assert_eq!(container.stdout(), "");
    container.force_delete();
}

/// The specification since 1.3: an error, and the container is stopped.
fn a_failing_poststart_hook_stops_the_container(lab: &Lab) {
    let file = lab.path("told");
    let bundle = hook(
        lab.bundle().payload("pause"),
        "poststart",
        &failing(lab, &file),
    );
    let container = lab.create(&bundle);
    container.pid();
    let output = container.command("start", &[]).run().code(1);
    assert!(output.stderr.contains("poststart"), "{output}");
    assert_eq!(container.wait(), End::Signal(9));
    container.force_delete();
}

fn a_failing_poststop_hook_is_a_warning(lab: &Lab) {
    let (first, second) = (lab.path("first"), lab.path("second"));
    let bundle = hook(
        lab.bundle().payload("exit 0"),
        "poststop",
        &failing(lab, &first),
    );
    let bundle = hook(bundle, "poststop", &telling(lab, &second));
    let container = lab.start(&bundle);
    container.wait();
    container.delete();
    assert_eq!(told(&second).len(), 1, "the remaining hooks run as well");
}

fn what_a_failing_hook_says_is_told(lab: &Lab) {
    let bundle = hook(
        lab.bundle().payload("exit 0"),
        "createRuntime",
        &failing(lab, &lab.path("x")),
    );
    let output = lab.run(&bundle).code(1);
    assert!(output.stderr.contains("the hook says no"), "{output}");
    if lab.is_husk() {
        output.refused().says("/hooks/createRuntime/0");
    }
}

fn a_hook_that_is_missing_is_told(lab: &Lab) {
    for kind in RUNTIME_KINDS {
        let bundle = lab
            .bundle()
            .hook(kind, &["/no/such/hook"])
            .payload("exit 0");
        let output = lab.run(&bundle).code(1);
        assert!(output.stderr.contains("/no/such/hook"), "{output}");
        assert!(
            output.stderr.contains("no such file or directory"),
            "{output}"
        );
    }
}

fn a_hook_that_is_not_executable_is_told(lab: &Lab) {
    let file = lab.path("file");
    fs::write(&file, "#!/bin/sh\n").unwrap();
    let bundle = lab
        .bundle()
        .hook("createRuntime", &[file.to_str().unwrap()])
        .payload("exit 0");
    let output = lab.run(&bundle).code(1);
    assert!(output.stderr.contains("permission denied"), "{output}");
}

fn a_hook_that_is_killed_is_told(lab: &Lab) {
    let bundle = lab
        .bundle()
        .hook("createRuntime", &[lab.host_payload(), "signal", "9"]);
    let output = lab.run(&bundle.payload("exit 0")).code(1);
    assert!(
        output.stderr.contains("killed") || output.stderr.contains("signal"),
        "{output}"
    );
}

fn with_timeout(lab: &Lab, kind: &str, seconds: u32, words: &[&str]) -> Bundle {
    let mut args = vec![lab.host_payload()];
    args.extend(words);
    let hook = json!([{ "path": args[0], "args": args, "timeout": seconds }]);
    lab.bundle()
        .set(&format!("/hooks/{kind}"), hook)
        .payload("exit 0")
}

fn a_hook_has_its_time_and_no_more(lab: &Lab) {
    for kind in ["createRuntime", "createContainer"] {
        let begin = Instant::now();
        let output = lab
            .run(&with_timeout(lab, kind, 1, &["sleep", "60"]))
            .code(1);
        let took = begin.elapsed();
        assert!(
            took >= Duration::from_secs(1) && took < Duration::from_secs(8),
            "{took:?}"
        );
        let words = ["timed out", "timeout", "killed", "deadline"];
        assert!(
            words.iter().any(|word| output.stderr.contains(word)),
            "{output}"
        );
    }
}

fn a_hook_in_time_is_left_alone(lab: &Lab) {
    let begin = Instant::now();
    lab.run(&with_timeout(lab, "createRuntime", 30, &["sleep", "0.1"]))
        .ok();
    assert!(begin.elapsed() < Duration::from_secs(10));
}

fn a_timed_out_hook_takes_its_children_along(lab: &Lab) {
    // The second one leaves the hook's session.
    let script = "sleep 40 & setsid sleep 40 & sleep 0.3; sleep 30";
    let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 1 }]);
    let hooks = json!({ "createRuntime": hook });
    lab.run(&lab.bundle().set("/hooks", hooks)).code(1);
    // `finish` looks for living children.
}

fn poststop_hooks_run_once_by_delete_and_by_force(lab: &Lab) {
    for force in [false, true] {
        let file = lab.path("told");
        let bundle = hook(
            lab.bundle().payload("pause"),
            "poststop",
            &telling(lab, &file),
        );
        let container = lab.start(&bundle);
        if force {
            container.force_delete();
            container.wait();
        } else {
            container.end();
        }
        assert_eq!(told(&file).len(), 1);
    }
}

/// The specification: a failure continues with the deletion, whose hooks run.
fn poststop_hooks_run_after_a_failed_create(lab: &Lab) {
    let file = lab.path("told");
    let bundle = hook(
        lab.bundle().payload("exit 0"),
        "createRuntime",
        &failing(lab, &lab.path("x")),
    );
    let bundle = hook(bundle, "poststop", &telling(lab, &file));
    lab.run(&bundle).code(1);
    assert_eq!(told(&file).len(), 1);
}

fn run_runs_all_hooks(lab: &Lab) {
    let dir = lab.path("shared");
    let bundle = with_all_hooks(lab, lab.bundle().payload("sleep 0.2"), &dir);
    lab.run(&bundle).ok();
    let expected = [
        "prestart",
        "createRuntime",
        "createContainer",
        "startContainer",
        "poststart",
        "poststop",
    ];
    assert_eq!(words(&dir), expected);
}

/// What the runtime itself has open is not for hooks.
fn hooks_do_not_get_the_containers_streams_descriptors(lab: &Lab) {
    let file = lab.path("told");
    let mut bundle = lab.bundle().payload("exit 0");
    for kind in ["createRuntime", "createContainer", "poststart", "poststop"] {
        bundle = hook(bundle, kind, &telling(lab, &file));
    }
    lab.run(&bundle).ok();
    for (facts, state) in told(&file) {
        let fds = facts["fds"].as_array().unwrap();
        let open: Vec<u64> = fds.iter().map(|f| f["fd"].as_u64().unwrap()).collect();
        assert!(
            open.iter().all(|fd| *fd <= 2),
            "{}: {fds:?}",
            state["status"]
        );
    }
}

/// A createRuntime hook in the network namespace of the container, as CNI does it.
fn hooks_may_change_the_container_before_it_starts(lab: &Lab) {
    let script = lab.path("script");
    let text = "#!/bin/sh\nread state\npid=${state##*\\\"pid\\\":}\npid=${pid%%[!0-9]*}\n\
                echo 777 > /proc/$pid/oom_score_adj\n";
    fs::write(&script, text).unwrap();
    crate::bundle::set_mode(&script, 0o755);
    let bundle = lab
        .bundle()
        .hook("createRuntime", &[script.to_str().unwrap()]);
    assert_eq!(lab.facts(&bundle)["oom_score_adj"], 777);
}
