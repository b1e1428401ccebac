//! cgroup v2: paths, limits, devices. What needs controllers runs in the virtual machine.

use std::fs;

use serde_json::{Value, json};

use super::tests;
use crate::bundle::Bundle;
use crate::cgroup;
use crate::container::Container;
use crate::lab::{Lab, eventually};
use crate::need::Need;
use crate::output::End;

tests! {
    an_absolute_path_is_from_the_root_of_the_tree,
    a_relative_path_is_always_at_the_same_place,
    the_name_of_a_unit_is_a_path_without_the_systemd_driver,
    without_a_path_there_is_a_cgroup_all_the_same,
    a_deep_path_is_made_and_removed_again,
    what_was_there_before_stays,
    the_cgroup_is_there_before_the_process_runs,
    sub_cgroups_left_in_the_container_are_removed,
    two_containers_with_one_cgroup_are_refused,
    a_frozen_cgroup_is_refused_without_hanging,
    a_path_that_climbs_out_is_refused,
    a_limit_without_its_controller_is_refused_by_name,
    an_empty_limit_needs_no_controller,
    unified_without_its_controller_is_refused,
    unified_keys_that_are_paths_are_refused,
    unified_core_files_are_written,
    devices_deny_by_default,
    devices_are_allowed_in_their_order,
    devices_deny_after_allow,
    device_access_is_per_kind_of_access,
    device_wildcards_match,
    default_devices_stay_usable_under_any_rules,
    mknod_is_allowed_but_use_is_not,
    no_device_rules_at_all_leave_defaults,
    devices_hold_for_exec_too,
    many_device_rules_work,
    a_delegated_cgroup_belongs_to_the_containers_root,
    a_cgroup_is_delegated_only_as_the_specification_says,
    exec_joins_the_first_process_where_the_cgroup_is_divided,
    exec_joins_the_first_process_where_its_cgroup_is_gone.needs(&[Need::Husk]),
}

pub(super) fn with_resources(lab: &Lab, key: &str, value: Value) -> Bundle {
    lab.bundle().set(&format!("/linux/resources/{key}"), value)
}

/// The values of these files of a container made with `resources`.
pub(super) fn values(lab: &Lab, key: &str, value: Value, files: &[&str]) -> Vec<String> {
    let container = lab.create(&with_resources(lab, key, value).payload("pause"));
    let values = files
        .iter()
        .map(|file| container.cgroup_file(file))
        .collect();
    container.force_delete();
    values
}

fn cgroup_of(pid: i32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    text.lines()
        .find_map(|line| line.strip_prefix("0::"))
        .unwrap()
        .to_owned()
}

fn an_absolute_path_is_from_the_root_of_the_tree(lab: &Lab) {
    let path = format!("/{}", lab.id());
    let bundle = lab
        .bundle()
        .set("/linux/cgroupsPath", path.as_str())
        .payload("pause");
    let container = lab.create(&bundle);
    assert_eq!(cgroup_of(container.pid()), path);
    container.force_delete();
    assert!(!cgroup::path(&path).exists());
}

fn a_relative_path_is_always_at_the_same_place(lab: &Lab) {
    let name = lab.id();
    let bundle = lab
        .bundle()
        .set("/linux/cgroupsPath", name.as_str())
        .payload("pause");
    let mut places = Vec::new();
    for _ in 0..2 {
        let container = lab.create(&bundle);
        places.push(cgroup_of(container.pid()));
        container.force_delete();
        assert!(eventually(|| !cgroup::path(places.last().unwrap()).exists()));
    }
    assert_eq!(places[0], places[1]);
    assert!(places[0].ends_with(&name), "{places:?}");
}

/// BuildKit asks for that in a dockerd with the systemd driver.
fn the_name_of_a_unit_is_a_path_without_the_systemd_driver(lab: &Lab) {
    let path = format!("system.slice:docker:{}", lab.id());
    let bundle = lab
        .bundle()
        .set("/linux/cgroupsPath", path.as_str())
        .payload("pause");
    let container = lab.create(&bundle);
    let place = cgroup_of(container.pid());
    assert!(place.ends_with(&path), "{place:?}");
    container.force_delete();
    assert!(eventually(|| !cgroup::path(&place).exists()));
}

fn without_a_path_there_is_a_cgroup_all_the_same(lab: &Lab) {
    let bundle = lab.bundle().payload("pause");
    let id = lab.id();
    bundle.write(&id);
    let file = bundle.dir.join("config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    config["linux"]
        .as_object_mut()
        .unwrap()
        .remove("cgroupsPath");
    let bundle = bundle.raw(config.to_string());
    lab.on_bundle("create", &bundle, &[], &id).run().ok();
    let pid = lab.runtime(["state", &id]).run().json()["pid"]
        .as_i64()
        .unwrap();
    let path = cgroup_of(pid as i32);
    assert!(path.contains(&id), "{path}");
    lab.runtime(["delete", "--force", &id]).run().ok();
    assert!(!cgroup::path(&path).exists(), "{path}");
}

/// The directories on the way may be anybody's by now; the container's own goes.
fn a_deep_path_is_made_and_removed_again(lab: &Lab) {
    let top = lab.id();
    let path = format!("/{top}/b/c/d");
    let bundle = lab
        .bundle()
        .set("/linux/cgroupsPath", path.as_str())
        .payload("pause");
    let container = lab.create(&bundle);
    assert_eq!(cgroup_of(container.pid()), path);
    container.force_delete();
    assert!(!cgroup::path(&path).exists());
    let _ = cgroup::remove(&cgroup::path(&top));
}

fn what_was_there_before_stays(lab: &Lab) {
    let top = lab.id();
    let parent = cgroup::path(&top);
    fs::create_dir_all(parent.join("mine")).unwrap();
    let bundle = lab
        .bundle()
        .set("/linux/cgroupsPath", format!("/{top}/theirs"))
        .payload("exit 0");
    lab.run(&bundle).ok();
    assert!(parent.join("mine").exists() && !parent.join("theirs").exists());
    cgroup::remove(&parent).unwrap();
}

fn the_cgroup_is_there_before_the_process_runs(lab: &Lab) {
    let container = lab.create(&lab.bundle().payload("pause"));
    assert_eq!(cgroup::processes(&container.cgroup()), [container.pid()]);
    container.force_delete();
}

fn writable_cgroup(bundle: Bundle) -> Bundle {
    bundle.change(|config| {
        for mount in config["mounts"].as_array_mut().unwrap() {
            if mount["type"] == "cgroup" {
                mount["options"] = json!(["rw"]);
            }
        }
    })
}

fn sub_cgroups_left_in_the_container_are_removed(lab: &Lab) {
    let words = "mkdir /sys/fs/cgroup/a -- mkdir /sys/fs/cgroup/a/b -- mkdir /sys/fs/cgroup/c \
                 -- forks 1 -- write /sys/fs/cgroup/a/b/cgroup.procs 2 -- pause";
    let container = lab.start(&writable_cgroup(lab.bundle()).payload(words));
    container.wait_for_lines(5);
    container.end();
}

fn two_containers_with_one_cgroup_are_refused(lab: &Lab) {
    let path = format!("/{}", lab.id());
    let bundle = lab
        .bundle()
        .set("/linux/cgroupsPath", path.as_str())
        .payload("pause");
    let container = lab.create(&bundle);
    let output = lab.on_bundle("create", &bundle, &[], &lab.id()).run();
    if lab.is_husk() {
        let output = output.code(1);
        assert!(output.stderr.contains("not empty"), "{output}");
    } else if output.end == End::Code(0) {
        let id = output.command.rsplit(' ').next().unwrap().to_owned();
        lab.runtime(["delete", "--force", &id]).run().ok();
    }
    assert_eq!(
        container.status(),
        if lab.is_husk() {
            "created".into()
        } else {
            container.status()
        }
    );
    container.force_delete();
}

/// crun and youki hang here.
fn a_frozen_cgroup_is_refused_without_hanging(lab: &Lab) {
    let name = lab.id();
    let dir = cgroup::path(&name);
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("cgroup.freeze"), "1").unwrap();
    let bundle = lab
        .bundle()
        .set("/linux/cgroupsPath", format!("/{name}"))
        .payload("exit 0");
    let output = lab
        .on_bundle("create", &bundle, &[], &lab.id())
        .run()
        .code(1);
    assert!(output.stderr.contains("frozen"), "{output}");
    let _ = cgroup::remove(&dir);
}

fn a_path_that_climbs_out_is_refused(lab: &Lab) {
    for path in ["../../outside", "/a/../../outside", "/../outside"] {
        let bundle = lab
            .bundle()
            .set("/linux/cgroupsPath", path)
            .payload("facts");
        let output = lab.run(&bundle);
        // Either refused or, as runc does, brought back below the root.
        if output.end == End::Code(0) {
            assert!(!lab.is_husk(), "{output}");
        } else if lab.is_husk() {
            output.refused().says("/linux/cgroupsPath");
        }
    }
    assert!(!cgroup::path("../outside").exists());
    let _ = cgroup::remove(&cgroup::path("outside"));
    let _ = cgroup::remove(&cgroup::path("a"));
}

/// On this hybrid host, or with a controller that no v2 tree has.
fn a_limit_without_its_controller_is_refused_by_name(lab: &Lab) {
    let limits = [
        ("memory", "memory", json!({ "limit": 1 << 26 })),
        ("cpu", "cpu", json!({ "shares": 512 })),
        ("cpuset", "cpu", json!({ "cpus": "0" })),
        ("pids", "pids", json!({ "limit": 10 })),
        ("io", "blockIO", json!({ "weight": 100 })),
        ("rdma", "rdma", json!({ "mlx5_0": { "hcaHandles": 3 } })),
    ];
    let here = cgroup::controllers();
    for (controller, key, limit) in limits {
        if here.iter().any(|c| c == controller) {
            continue;
        }
        let output = lab
            .run(&with_resources(lab, key, limit).payload("exit 0"))
            .code(1);
        if lab.is_husk() {
            let refusal = output
                .refused()
                .says(controller)
                .says(&format!("/linux/resources/{key}"));
            refusal.says("controller");
        }
    }
}

fn an_empty_limit_needs_no_controller(lab: &Lab) {
    let bundle = lab
        .bundle()
        .set("/linux/resources/memory", json!({}))
        .set("/linux/resources/cpu", json!({ "shares": 0 }))
        .set("/linux/resources/blockIO", json!({}))
        .set("/linux/resources/hugepageLimits", json!([]));
    lab.run(&bundle.payload("exit 0")).ok();
}

fn unified_without_its_controller_is_refused(lab: &Lab) {
    let bundle = with_resources(lab, "unified", json!({ "nonsense.max": "1" })).payload("exit 0");
    let output = lab.run(&bundle).code(1);
    assert!(output.stderr.contains("nonsense"), "{output}");
}

fn unified_keys_that_are_paths_are_refused(lab: &Lab) {
    for key in ["../cgroup.procs", "sub/memory.max", "memorymax", ""] {
        let bundle = with_resources(lab, "unified", json!({ key: "1" })).payload("exit 0");
        let output = lab.run(&bundle).code(1);
        if lab.is_husk() {
            output.refused().says("/linux/resources/unified");
        }
    }
}

fn unified_core_files_are_written(lab: &Lab) {
    let files = json!({ "cgroup.max.depth": "3", "cgroup.max.descendants": "17" });
    let found = values(
        lab,
        "unified",
        files,
        &["cgroup.max.depth", "cgroup.max.descendants"],
    );
    assert_eq!(found, ["3", "17"]);
}

/// Opens /dev/fuse, /dev/null and a loop device under these rules.
fn device_answers(lab: &Lab, rules: Value, words: &str) -> Vec<Value> {
    let devices = json!([
        { "path": "/dev/mem", "type": "c", "major": 1, "minor": 1, "fileMode": 0o666 },
        { "path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11, "fileMode": 0o666 },
        { "path": "/dev/loop7", "type": "b", "major": 7, "minor": 7, "fileMode": 0o666 },
    ]);
    let bundle = lab
        .bundle()
        .capabilities(&["CAP_MKNOD", "CAP_SYS_RAWIO", "CAP_SYSLOG"])
        .set("/linux/devices", devices)
        .set("/linux/resources/devices", rules);
    lab.ask(bundle, words)
}

fn deny_all() -> Value {
    json!({ "allow": false, "access": "rwm" })
}

fn devices_deny_by_default(lab: &Lab) {
    let words = "open /dev/kmsg r -- open /dev/kmsg w -- open /dev/loop7 r -- open /dev/null rw";
    let answers = device_answers(lab, json!([deny_all()]), words);
    assert!(
        answers[..3].iter().all(|a| a["error"] == "EPERM"),
        "{answers:?}"
    );
    assert_eq!(answers[3], true);
}

fn devices_are_allowed_in_their_order(lab: &Lab) {
    let allow = json!({ "allow": true, "type": "c", "major": 1, "minor": 11, "access": "rw" });
    let words = "open /dev/kmsg r -- open /dev/mem r";
    let answers = device_answers(lab, json!([deny_all(), allow]), words);
    assert_eq!(answers[0], true);
    assert_eq!(answers[1]["error"], "EPERM");
    // The later rule wins: everything is denied again.
    let answers = device_answers(lab, json!([allow, deny_all()]), words);
    assert!(answers.iter().all(|a| a["error"] == "EPERM"), "{answers:?}");
}

fn devices_deny_after_allow(lab: &Lab) {
    let rules = json!([
        { "allow": true, "access": "rwm" },
        { "allow": false, "type": "c", "major": 1, "minor": 11, "access": "w" },
    ]);
    let answers = device_answers(
        lab,
        rules,
        "open /dev/kmsg r -- open /dev/kmsg w -- open /dev/kmsg rw",
    );
    assert_eq!(answers[0], true);
    assert_eq!(
        (&answers[1]["error"], &answers[2]["error"]),
        (&json!("EPERM"), &json!("EPERM"))
    );
}

fn device_access_is_per_kind_of_access(lab: &Lab) {
    for (access, read, write) in [
        ("r", true, false),
        ("w", false, true),
        ("rw", true, true),
        ("m", false, false),
    ] {
        let allow =
            json!({ "allow": true, "type": "c", "major": 1, "minor": 11, "access": access });
        let answers = device_answers(
            lab,
            json!([deny_all(), allow]),
            "open /dev/kmsg r -- open /dev/kmsg w",
        );
        for (answer, allowed) in answers.iter().zip([read, write]) {
            assert_eq!(*answer == json!(true), allowed, "{access}: {answers:?}");
        }
    }
}

fn device_wildcards_match(lab: &Lab) {
    let words = "open /dev/kmsg r -- stat /dev/loop7 -- open /dev/loop7 r";
    let all_minors = json!({ "allow": true, "type": "c", "major": 1, "access": "r" });
    let answers = device_answers(lab, json!([deny_all(), all_minors]), words);
    assert_eq!(answers[0], true);
    assert_eq!(answers[2]["error"], "EPERM");
    let any_block = json!({ "allow": true, "type": "b", "access": "r" });
    let answers = device_answers(lab, json!([deny_all(), any_block]), words);
    assert_eq!(answers[0]["error"], "EPERM");
    assert_ne!(answers[2]["error"], "EPERM");
    let minus_one = json!({ "allow": true, "type": "c", "major": -1, "minor": -1, "access": "r" });
    if lab.is_husk() {
        assert_eq!(
            device_answers(lab, json!([deny_all(), minus_one]), words)[0],
            true
        );
    }
}

fn default_devices_stay_usable_under_any_rules(lab: &Lab) {
    let words = "write /dev/null x -- read-byte /dev/zero -- read-byte /dev/random -- read-byte /dev/urandom \
                 -- open /dev/full r -- open /dev/ptmx rw -- open /dev/tty rw";
    let answers = device_answers(lab, json!([deny_all()]), words);
    assert!(
        answers[..6].iter().all(|a| a["error"].is_null()),
        "{answers:?}"
    );
    assert_eq!(answers[6]["error"], "ENXIO");
}

fn mknod_is_allowed_but_use_is_not(lab: &Lab) {
    let words = "mknod /dev/shm/k c 1 11 -- open /dev/shm/k r -- mknod /dev/shm/b b 7 7";
    let bundle = lab
        .bundle()
        .capabilities(&["CAP_MKNOD"])
        .only_mounts(&["/proc", "/dev", "/dev/shm"]);
    let bundle = bundle.change(|config| {
        config["mounts"][2]["options"] = json!(["nosuid", "noexec", "mode=1777"]);
    });
    let answers = lab.ask(bundle, words);
    assert_eq!(answers[0], true);
    assert_eq!(answers[1]["error"], "EPERM");
    assert_eq!(answers[2], true);
}

fn no_device_rules_at_all_leave_defaults(lab: &Lab) {
    let bundle = lab.bundle().remove("/linux/resources");
    assert_eq!(
        lab.ask(bundle, "write /dev/null x -- open /dev/ptmx rw"),
        [json!(true), json!(true)]
    );
}

fn devices_hold_for_exec_too(lab: &Lab) {
    let device =
        json!([{ "path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11, "fileMode": 0o666 }]);
    let container = lab.start(&lab.bundle().set("/linux/devices", device).payload("pause"));
    assert_eq!(container.ask("open /dev/kmsg r")[0]["error"], "EPERM");
    container.end();
}

fn many_device_rules_work(lab: &Lab) {
    let mut rules = vec![deny_all()];
    for minor in 0..300 {
        rules.push(
            json!({ "allow": true, "type": "c", "major": 200, "minor": minor, "access": "rwm" }),
        );
    }
    rules.push(json!({ "allow": true, "type": "c", "major": 1, "minor": 11, "access": "r" }));
    let answers = device_answers(lab, json!(rules), "open /dev/kmsg r -- open /dev/mem r");
    assert_eq!(answers[0], true);
    assert_eq!(answers[1]["error"], "EPERM");
}

/// Only with a cgroup namespace and a writable cgroup mount (spec digest, item 48).
fn a_delegated_cgroup_belongs_to_the_containers_root(lab: &Lab) {
    use std::os::unix::fs::MetadataExt;
    let owner = |container: &Container, name: &str| {
        fs::metadata(container.cgroup().join(name)).unwrap().uid()
    };
    let bundle = lab.bundle().user_namespace(100_000, 65536).payload("pause");
    let plain = lab.create(&bundle);
    assert_eq!(owner(&plain, ""), 0);
    plain.force_delete();
    let delegated = lab.create(&writable_cgroup(bundle));
    for name in [
        "",
        "cgroup.procs",
        "cgroup.subtree_control",
        "cgroup.threads",
    ] {
        assert_eq!(owner(&delegated, name), 100_000, "{name}");
    }
    assert_eq!(owner(&delegated, "cgroup.freeze"), 0);
    delegated.force_delete();
}

/// config-linux.md, "Cgroup ownership": the mount's source counts, and the cgroup namespace is to be new.
fn a_cgroup_is_delegated_only_as_the_specification_says(lab: &Lab) {
    use std::os::unix::fs::MetadataExt;
    let owner = |bundle: Bundle| {
        let container = lab.create(&bundle.payload("pause"));
        let owner = fs::metadata(container.cgroup()).unwrap().uid();
        container.force_delete();
        owner
    };
    let bundle = || writable_cgroup(lab.bundle().user_namespace(100_000, 65536));
    let mount = |bundle: Bundle, key: &str, value: Value| {
        bundle.change(|config| {
            for mount in config["mounts"].as_array_mut().unwrap() {
                if mount["type"] == "cgroup" {
                    mount[key] = value.clone();
                }
            }
        })
    };
    assert_eq!(owner(bundle()), 100_000);
    assert_eq!(owner(mount(bundle(), "type", json!("cgroup2"))), 100_000);
    assert_eq!(owner(mount(bundle(), "options", json!(["ro"]))), 0);
    assert_eq!(owner(mount(bundle(), "source", json!("none"))), 0);
    assert_eq!(owner(bundle().without_namespace("cgroup")), 0);
    // The user of the container's own process.
    let user = bundle().set("/process/user/uid", 5);
    assert_eq!(owner(user), 100_005);
}

/// The cgroup of the container itself takes no process then (EBUSY).
fn exec_joins_the_first_process_where_the_cgroup_is_divided(lab: &Lab) {
    let Some(controller) = cgroup::controllers()
        .into_iter()
        .find(|name| ["memory", "io", "hugetlb"].contains(&name.as_str()))
    else {
        crate::runner::skip("no controller that divides")
    };
    let words = format!(
        "mkdir /sys/fs/cgroup/a -- write /sys/fs/cgroup/a/cgroup.procs 1 \
         -- write /sys/fs/cgroup/cgroup.subtree_control +{controller} -- pause"
    );
    let container = lab.start(&writable_cgroup(lab.bundle()).payload(&words));
    let lines = container.wait_for_lines(3);
    assert!(
        lines.iter().all(|line| line["error"].is_null()),
        "{lines:?}"
    );
    let inner = container.cgroup().join("a");
    container
        .exec_with(&["--detach"], "/bin/payload pause")
        .run()
        .ok();
    assert!(eventually(|| cgroup::processes(&inner).len() == 2));
    container.end();
}

fn exec_joins_the_first_process_where_its_cgroup_is_gone(lab: &Lab) {
    let container = lab.start(&lab.bundle().payload("pause"));
    let elsewhere = cgroup::path(&lab.id());
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("cgroup.procs"), container.pid().to_string()).unwrap();
    fs::remove_dir(container.cgroup()).unwrap();
    container
        .exec_with(&["--detach"], "/bin/payload pause")
        .run()
        .ok();
    assert_eq!(cgroup::processes(&elsewhere).len(), 2);
    assert_eq!(container.status(), "running");
    container.end();
    cgroup::remove(&elsewhere).unwrap();
}
