//! The specification's own examples, and what `features` lists: everything is used once.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use super::tests;
use crate::agent::{Agent, Answers};
use crate::bundle::{Bundle, PAYLOAD};
use crate::lab::Lab;
use crate::need::Need;
use crate::output::End;

tests! {
    the_example_of_everything_runs,
    the_smallest_examples_are_created,
    the_example_of_network_devices_gets_its_devices.needs(&[Need::Husk, Need::Program("ip")]),
    bad_examples_are_refused_where_they_are_bad.needs(&[Need::Husk]),
    features_are_the_same_everywhere,
    every_hook_that_is_listed_runs,
    every_namespace_that_is_listed_is_made,
    every_capability_that_is_listed_is_taken,
    every_seccomp_action_that_is_listed_acts,
    every_seccomp_operator_that_is_listed_compares,
    every_seccomp_architecture_that_is_listed_is_taken,
    every_seccomp_flag_is_as_it_is_listed.needs(&[Need::Husk]),
    every_memory_policy_that_is_listed_is_set,
    annotations_are_listed_with_values,
}

macro_rules! example {
    ($name:literal) => {
        include_str!(concat!("../../data/spec-fixtures/", $name, ".json"))
    };
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// With what this machine has, and programs that are there.
fn the_example_of_everything_runs(lab: &Lab) {
    let mut config = parsed(example!("good/spec-example"));
    for label in [
        "/process/apparmorProfile",
        "/process/selinuxLabel",
        "/linux/mountLabel",
    ] {
        let (parent, key) = label.rsplit_once('/').unwrap();
        let parent = config.pointer_mut(parent).unwrap();
        assert!(parent.as_object_mut().unwrap().remove(key).is_some());
    }
    let limits = &mut config["linux"]["resources"];
    limits
        .as_object_mut()
        .unwrap()
        .retain(|key, _| key == "devices");
    config["linux"]["devices"] = json!([]);
    config["linux"]
        .as_object_mut()
        .unwrap()
        .remove("cgroupsPath");
    let (host, marks) = (lab.host_payload(), lab.path("marks"));
    fs::create_dir(&marks).unwrap();
    fs::set_permissions(&marks, fs::Permissions::from_mode(0o777)).unwrap();
    for (stage, hooks) in config["hooks"].as_object_mut().unwrap() {
        for (index, hook) in hooks.as_array_mut().unwrap().iter_mut().enumerate() {
            let (program, dir) = match stage.as_str() {
                "startContainer" => (PAYLOAD, "/marks".into()),
                _ => (host, marks.display().to_string()),
            };
            hook["path"] = json!(program);
            hook["args"] = json!([program, "hook", format!("{dir}/{stage}{index}")]);
        }
    }
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!([PAYLOAD, "facts", "--", "clock"]);
    let bundle =
        lab.bundle()
            .dir("marks")
            .change(|own| *own = config)
            .bind(&marks, "/marks", &["rbind"]);
    let answers = lab.run(&bundle).ok().lines();
    let facts = &answers[0];
    assert_eq!((&facts["uid"], &facts["gid"]), (&json!(1), &json!(1)));
    assert_eq!(facts["groups"], json!([5, 6]));
    assert_eq!(facts["hostname"], "slartibartfast");
    assert_eq!(facts["domainname"], "foobarbaz.test");
    assert_eq!(facts["nnp"], 1);
    assert_eq!(facts["seccomp"], 2);
    assert_eq!(facts["caps"]["ambient"], json!(["CAP_NET_BIND_SERVICE"]));
    assert!(answers[1]["boottime"].as_i64() > Some(604_800));
    let mut made: Vec<String> = fs::read_dir(&marks)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    made.sort();
    let all = [
        "createContainer0",
        "createRuntime0",
        "createRuntime1",
        "poststart0",
        "poststop0",
        "prestart0",
        "prestart1",
        "startContainer0",
    ];
    assert_eq!(made, all);
}

fn the_smallest_examples_are_created(lab: &Lab) {
    let created = lab.create(&lab.bundle().raw(example!("good/minimal")));
    let output = created.command("start", &[]).run();
    assert_eq!(output.end, End::Code(1), "{output}");
    created.force_delete();
    let mut config = parsed(example!("good/minimal-for-start"));
    config["process"]["args"] = json!([PAYLOAD, "facts"]);
    let facts = lab.facts(&lab.bundle().change(|own| *own = config));
    assert_eq!(facts["uid"], 0);
    // No machine here has these devices.
    let rdma = lab.bundle().raw(example!("good/linux-rdma"));
    lab.run(&rdma).refused().says("/linux/resources/rdma");
}

fn the_example_of_network_devices_gets_its_devices(lab: &Lab) {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    let ip = |words: &str| {
        let status = std::process::Command::new("ip")
            .args(words.split(' '))
            .status();
        assert!(status.unwrap().success(), "ip {words}");
    };
    let example = parsed(example!("good/linux-netdevice"));
    let bundle = lab.bundle().payload("pause");
    let bundle =
        bundle.change(|own| own["linux"]["netDevices"] = example["linux"]["netDevices"].clone());
    lab.run(&bundle)
        .refused()
        .says("/linux/netDevices/")
        .says("no such device");
    ip("link add eth0 type veth peer name ens4");
    ip("link add ens5 type ifb");
    let container = lab.start(&bundle);
    let net = container.ask("net").remove(0);
    for name in ["container_eth0", "ens4", "ens5"] {
        assert_eq!(net[name]["up"], true, "{net}");
    }
    container.end();
}

fn bad_examples_are_refused_where_they_are_bad(lab: &Lab) {
    for (text, words) in [
        (example!("bad/invalid-json"), "line 1"),
        (
            example!("bad/linux-hugepage"),
            "/linux/resources/hugepageLimits/0/pageSize",
        ),
        (
            example!("bad/linux-netdevice"),
            "/linux/netDevices/eth0/name",
        ),
        (
            example!("bad/linux-rdma"),
            "/linux/resources/rdma/mlx5_1/hcaHandles",
        ),
    ] {
        lab.run(&lab.bundle().raw(text)).refused().says(words);
    }
}

fn features(lab: &Lab) -> Value {
    lab.bare(["features"]).run().ok().json()
}

#[track_caller]
fn names(list: &Value) -> Vec<&str> {
    let names: Vec<&str> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|n| n.as_str().unwrap())
        .collect();
    assert!(!names.is_empty());
    names
}

/// features.md: they "SHOULD NOT depend on the host".
fn features_are_the_same_everywhere(lab: &Lab) {
    let here = features(lab);
    let elsewhere = lab
        .bare(["features"])
        .through(&["/usr/bin/env", "-i"])
        .cwd("/")
        .run();
    assert_eq!(elsewhere.ok().json(), here);
    for version in [&here["ociVersionMin"], &here["ociVersionMax"]] {
        let bundle = lab.bundle().set("/ociVersion", version.clone());
        lab.run(&bundle).ok();
    }
}

fn every_hook_that_is_listed_runs(lab: &Lab) {
    for hook in names(&features(lab)["hooks"]) {
        let marks = lab.path("marks");
        fs::create_dir(&marks).unwrap();
        let (program, dir) = match hook {
            "startContainer" => (PAYLOAD, "/marks"),
            _ => (lab.host_payload(), marks.to_str().unwrap()),
        };
        let bundle = lab.bundle().dir("marks").bind(&marks, "/marks", &["rbind"]);
        lab.run(&bundle.hook(hook, &[program, "hook", &format!("{dir}/mark")]))
            .ok();
        assert!(marks.join("mark").exists(), "{hook}");
    }
}

fn every_namespace_that_is_listed_is_made(lab: &Lab) {
    for name in names(&features(lab)["linux"]["namespaces"]) {
        let kind = match name {
            "network" => "net",
            "mount" => "mnt",
            other => other,
        };
        let bundle = match name {
            "user" => lab.bundle().user_namespace(100_000, 65536),
            _ => lab.bundle().namespace(name),
        };
        let own = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        let theirs = lab.facts(&bundle)["ns"][kind].as_u64().unwrap();
        assert!(
            !own.to_str().unwrap().contains(&theirs.to_string()),
            "{name}"
        );
    }
}

fn every_capability_that_is_listed_is_taken(lab: &Lab) {
    let listed = features(lab);
    let listed = names(&listed["linux"]["capabilities"]);
    let mut bundle = lab.bundle();
    for set in ["bounding", "effective", "permitted"] {
        bundle = bundle.set(&format!("/process/capabilities/{set}"), json!(listed));
    }
    let output = lab.run(&bundle).ok();
    assert!(!output.stderr.contains("unknown capability"), "{output}");
    // What the suite has itself is what the machine can give.
    let facts = output.line();
    let given = facts["caps"]["bounding"].as_array().unwrap().len();
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let own = u64::from_str_radix(own.unwrap().trim(), 16).unwrap();
    assert_eq!(given, own.count_ones() as usize);
}

fn with_rule(lab: &Lab, rule: Value) -> Bundle {
    let profile = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] });
    lab.bundle().set("/linux/seccomp", profile)
}

fn every_seccomp_action_that_is_listed_acts(lab: &Lab) {
    for action in names(&features(lab)["linux"]["seccomp"]["actions"]) {
        let rule = json!({ "names": ["getppid"], "action": action });
        let agent = Agent::new(&lab.path("agent"), Answers::default());
        let mut bundle = with_rule(lab, rule).payload("syscall getppid");
        if action == "SCMP_ACT_NOTIFY" {
            bundle = bundle.set("/linux/seccomp/listenerPath", agent.path());
        }
        let output = lab.run(&bundle);
        match action {
            // SIGSYS; without the thread that says it, nothing is said.
            "SCMP_ACT_KILL"
            | "SCMP_ACT_KILL_PROCESS"
            | "SCMP_ACT_KILL_THREAD"
            | "SCMP_ACT_TRAP" => assert_eq!(output.end, End::Code(128 + 31), "{action}"),
            "SCMP_ACT_ERRNO" => assert_eq!(output.ok().line()["error"], "EPERM"),
            // Nobody traces.
            "SCMP_ACT_TRACE" => assert_eq!(output.ok().line()["error"], "ENOSYS"),
            "SCMP_ACT_ALLOW" | "SCMP_ACT_LOG" => assert_eq!(output.ok().line()["result"], 0),
            "SCMP_ACT_NOTIFY" => {
                output.ok();
                assert_eq!(agent.calls().len(), 1, "{:?}", agent.calls());
            }
            other => panic!("{other}"),
        }
    }
}

/// 5 is compared with numbers below, at and above it.
fn every_seccomp_operator_that_is_listed_compares(lab: &Lab) {
    for operator in names(&features(lab)["linux"]["seccomp"]["operators"]) {
        let holds = |value: u64| match operator {
            "SCMP_CMP_NE" => value != 5,
            "SCMP_CMP_LT" => value < 5,
            "SCMP_CMP_LE" => value <= 5,
            "SCMP_CMP_EQ" => value == 5,
            "SCMP_CMP_GE" => value >= 5,
            "SCMP_CMP_GT" => value > 5,
            "SCMP_CMP_MASKED_EQ" => value & 5 == 4,
            other => panic!("{other}"),
        };
        let argument = json!({ "index": 3, "value": 5, "valueTwo": 4, "op": operator });
        let rule = json!({ "names": ["keyctl"], "action": "SCMP_ACT_ERRNO", "errnoRet": 71, "args": [argument] });
        let calls: Vec<String> = (3..8)
            .map(|n| format!("syscall keyctl 9999 0 0 {n}"))
            .collect();
        let answers = lab.ask(with_rule(lab, rule), &calls.join(" -- "));
        for (value, answer) in (3..8).zip(&answers) {
            assert_eq!(
                answer["error"] == "EPROTO",
                holds(value),
                "{operator} {value}: {answer}"
            );
        }
    }
}

fn every_seccomp_architecture_that_is_listed_is_taken(lab: &Lab) {
    for architecture in names(&features(lab)["linux"]["seccomp"]["archs"]) {
        let rule = json!({ "names": ["getppid"], "action": "SCMP_ACT_ERRNO" });
        let bundle = with_rule(lab, rule).set("/linux/seccomp/architectures/-", architecture);
        let output = lab.run(&bundle).ok();
        assert_eq!(output.line()["seccomp"], 2, "{architecture}");
        // Of a foreign one it is said that it means nothing here, and nothing else is.
        assert!(
            output
                .stderr
                .lines()
                .all(|line| line.contains("can't run here")),
            "{output}"
        );
    }
}

fn every_seccomp_flag_is_as_it_is_listed(lab: &Lab) {
    let features = features(lab);
    let seccomp = &features["linux"]["seccomp"];
    let supported = names(&seccomp["supportedFlags"]);
    for flag in names(&seccomp["knownFlags"]) {
        let rule = json!({ "names": ["getppid"], "action": "SCMP_ACT_ERRNO" });
        let bundle = with_rule(lab, rule).set("/linux/seccomp/flags/-", flag);
        let output = lab.run(&bundle.payload("syscall getppid"));
        match supported.contains(&flag) {
            true => assert_eq!(output.ok().line()["error"], "EPERM", "{flag}"),
            false => drop(output.refused().says("/linux/seccomp/flags/0")),
        }
    }
}

fn every_memory_policy_that_is_listed_is_set(lab: &Lab) {
    let features = features(lab);
    let listed = &features["linux"]["memoryPolicy"];
    let policy = |mode: &str| match mode {
        "MPOL_DEFAULT" | "MPOL_LOCAL" => json!({ "mode": mode }),
        _ => json!({ "mode": mode, "nodes": "0" }),
    };
    // linux/mempolicy.h
    let numbers = [
        ("MPOL_DEFAULT", 0),
        ("MPOL_PREFERRED", 1),
        ("MPOL_BIND", 2),
        ("MPOL_INTERLEAVE", 3),
        ("MPOL_LOCAL", 4),
        ("MPOL_PREFERRED_MANY", 5),
        ("MPOL_WEIGHTED_INTERLEAVE", 6),
    ];
    for mode in names(&listed["modes"]) {
        let facts = lab.facts(&lab.bundle().set("/linux/memoryPolicy", policy(mode)));
        let number = numbers.iter().find(|(name, _)| *name == mode).unwrap().1;
        assert_eq!(facts["memory_policy"]["mode"], number, "{mode}");
    }
    for flag in names(&listed["flags"]) {
        let bundle = lab.bundle().set("/linux/memoryPolicy", policy("MPOL_BIND"));
        lab.run(&bundle.set("/linux/memoryPolicy/flags/-", flag))
            .ok();
    }
}

/// Engines look there for what a runtime can do besides, and for what they had better not pass on.
fn annotations_are_listed_with_values(lab: &Lab) {
    let features = features(lab);
    for (key, value) in features["annotations"].as_object().unwrap() {
        assert!(
            key.contains('.') && value.as_str().is_some_and(|v| !v.is_empty()),
            "{key}"
        );
    }
    let unsafe_ones = names(&features["potentiallyUnsafeConfigAnnotations"]);
    assert!(unsafe_ones.iter().all(|name| name.contains('.')));
}
