//! What a container without root has mounted.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use serde_json::json;

use super::tests;
use crate::lab::Lab;
use crate::need::Need;
use crate::user::{UID, give};

tests! {
    ids_for_mounts_must_be_mapped,
    devices_come_from_the_host_and_work,
    sysfs_is_the_callers_without_a_network_namespace.needs(&[Need::Husk]),
    an_overlay_in_a_users_namespace.needs(&[Need::Husk]),
    a_users_volume_is_mounted_with_its_flags,
    sysctl_hooks_and_masks_in_a_users_container,
}

fn user(lab: &Lab) -> Lab {
    lab.as_user(Vec::new())
}

fn ids_for_mounts_must_be_mapped(lab: &Lab) {
    let lab = user(lab);
    let at = "/mounts/2/options/-";
    for (option, mapped) in [
        ("gid=5", false),
        ("uid=1", false),
        ("gid=0", true),
        ("uid=0", true),
    ] {
        let output = lab.run(&lab.bundle().set(at, option));
        match mapped {
            true => drop(output.ok()),
            false if lab.is_husk() => {
                let refusal = output.refused();
                refusal
                    .says("/mounts/2/options/5")
                    .says(option)
                    .says("is not mapped");
            }
            false => drop(output.refused()),
        }
    }
}

fn devices_come_from_the_host_and_work(lab: &Lab) {
    let lab = user(lab);
    let device = json!([{ "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229 }]);
    let mut bundle = lab.bundle();
    let has_fuse = Path::new("/dev/fuse").exists();
    if has_fuse {
        bundle = bundle.set("/linux/devices", device);
    }
    let lines = lab.ask(
        bundle,
        "open /dev/null rw -- read-byte /dev/zero -- stat /dev/urandom -- mknod /tmp/x c 1 3 -- stat /dev/fuse",
    );
    assert_eq!(lines[0], true);
    assert_eq!(lines[2]["minor"], 9);
    assert_eq!(
        lines[3]["error"]
            .as_str()
            .map(|e| e == "EPERM" || e == "EROFS"),
        Some(true)
    );
    assert_eq!(lines[4]["minor"] == 229, has_fuse);
}

fn sysfs_is_the_callers_without_a_network_namespace(lab: &Lab) {
    let lab = user(lab);
    let bundle = lab.bundle().without_namespace("network");
    let lines = lab.ask(
        bundle,
        "statfs /sys -- mkdir /sys/fs/cgroup/x -- facts -- ls /sys",
    );
    assert!(lines[3].as_array().unwrap().contains(&json!("kernel")));
    assert_eq!(lines[1]["error"], "EROFS");
    for mount in lines[2]["mounts"].as_array().unwrap() {
        let target = mount["target"].as_str().unwrap_or_default();
        if target == "/sys" || target.starts_with("/sys/") {
            assert!(mount.to_string().contains("\"ro\""), "{mount}");
        }
    }
}

fn an_overlay_in_a_users_namespace(lab: &Lab) {
    let lab = user(lab);
    let bundle = lab.bundle().writable();
    let upper = bundle.dir.join("upper");
    let id = lab.id();
    let option = format!("--overlay={}", upper.display());
    let bundle = bundle.payload("create /etc/new text -- rm-all /tmp -- ls /");
    let lines = lab
        .on_bundle("run", &bundle, &[&option], &id)
        .run()
        .ok()
        .lines();
    assert_eq!(lines[0], true);
    assert_eq!(lines[1], true);
    assert_eq!(fs::read_to_string(upper.join("etc/new")).unwrap(), "text");
    assert_eq!(fs::metadata(upper.join("etc/new")).unwrap().uid(), UID);
    assert!(bundle.rootfs().join("tmp").is_dir());
    let output = lab
        .run_with(&bundle.payload("create /x y"), &["--overlay=tmpfs"])
        .run();
    assert_eq!(output.ok().line(), true);
    assert!(!upper.join("x").exists());
}

fn a_users_volume_is_mounted_with_its_flags(lab: &Lab) {
    let lab = user(lab);
    let volume = lab.path("volume");
    fs::create_dir(&volume).unwrap();
    give(&volume);
    fs::set_permissions(&volume, fs::Permissions::from_mode(0o700)).unwrap();
    let bundle = lab
        .bundle()
        .dir("one")
        .dir("two")
        .bind(&volume, "/one", &["rbind", "rw"])
        .bind(&volume, "/two", &["rbind", "ro", "noexec"]);
    let lines = lab.ask(
        bundle,
        "create /one/file text -- cat /two/file -- create /two/x y",
    );
    assert_eq!(
        lines,
        [json!(true), json!("text"), json!({ "error": "EROFS" })]
    );
    assert_eq!(fs::metadata(volume.join("file")).unwrap().uid(), UID);
}

fn sysctl_hooks_and_masks_in_a_users_container(lab: &Lab) {
    let lab = user(lab);
    let file = lab.path("hooks");
    let bundle = lab
        .bundle()
        .set("/linux/sysctl", json!({ "net.ipv4.ip_forward": "1" }))
        .set("/linux/maskedPaths", json!(["/proc/keys", "/etc"]))
        .file("etc/secret", "x")
        .hook(
            "createRuntime",
            &[lab.host_payload(), "hook", file.to_str().unwrap()],
        )
        .payload("cat /proc/sys/net/ipv4/ip_forward -- cat /proc/keys -- ls /etc");
    let lines = lab.run(&bundle).ok().lines();
    assert_eq!(lines[0], "1\n");
    assert_eq!(lines[1], "");
    assert_eq!(lines[2], json!([]));
    assert!(fs::read_to_string(&file).unwrap().contains("creating"));
}
