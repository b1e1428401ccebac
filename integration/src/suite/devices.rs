//! Devices (spec digest, items 43 and 44; the questions of runc's dev.bats). Those of the default
//! configuration are tested in `rootfs`.

use serde_json::{Value, json};

use super::tests;
use crate::bundle::Bundle;
use crate::lab::Lab;
use crate::need::Need;

tests! {
    a_listed_tty_is_the_default_one,
    a_listed_multiplexer_is_the_containers_own.needs(&[Need::Husk]),
    a_fifo_may_have_numbers.needs(&[Need::Husk]),
    a_node_that_is_as_it_should_be_is_kept.needs(&[Need::Husk]),
    a_node_that_is_not_as_it_should_be_is_refused.needs(&[Need::Husk]),
    a_fifo_in_a_user_namespace_is_made.needs(&[Need::Husk]),
    a_device_that_the_host_lacks_is_refused_in_a_user_namespace.needs(&[Need::Husk]),
    the_hosts_dev_is_left_as_it_is,
    links_of_dev_lead_where_they_should,
}

fn devices(bundle: Bundle, list: Value) -> Bundle {
    bundle.set("/linux/devices", list)
}

#[track_caller]
fn assert_character(stat: &Value, major: u64, minor: u64) {
    assert_eq!(stat["type"], "char", "{stat}");
    assert_eq!(
        (&stat["major"], &stat["minor"]),
        (&json!(major), &json!(minor))
    );
    assert_eq!(stat["mode"], 0o666, "{stat}");
}

fn a_listed_tty_is_the_default_one(lab: &Lab) {
    let list = json!([{ "path": "/dev/tty", "type": "c", "major": 5, "minor": 0 }]);
    let answers = lab.ask(devices(lab.bundle(), list), "stat /dev/tty");
    assert_character(&answers[0], 5, 0);
    assert_eq!(answers[0]["uid"], 0);
}

/// A node of its number would be the host's multiplexer.
fn a_listed_multiplexer_is_the_containers_own(lab: &Lab) {
    let list = json!([{ "path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2 }]);
    for bundle in [lab.bundle(), lab.bundle().user_namespace(100_000, 65536)] {
        let words = "readlink /dev/ptmx -- stat-target /dev/ptmx";
        let answers = lab.ask(devices(bundle, list.clone()), words);
        assert_eq!(answers[0], "pts/ptmx");
        assert_character(&answers[1], 5, 2);
    }
}

fn a_fifo_may_have_numbers(lab: &Lab) {
    let list = json!([{ "path": "/dev/pipe", "type": "p", "major": 3, "minor": 4,
        "fileMode": 0o640, "uid": 1, "gid": 2 }]);
    let stat = lab
        .ask(devices(lab.bundle(), list), "stat /dev/pipe")
        .remove(0);
    let found = [&stat["type"], &stat["mode"], &stat["uid"], &stat["gid"]];
    assert_eq!(found, [&json!("fifo"), &json!(0o640), &json!(1), &json!(2)]);
}

fn a_node_that_is_as_it_should_be_is_kept(lab: &Lab) {
    let list = json!([{ "path": "/opt/null", "type": "c", "major": 1, "minor": 3 }]);
    let bundle = lab.bundle().dir("opt").writable();
    let node = bundle.rootfs().join("opt/null");
    node_at(&node, 1, 3);
    let answers = lab.ask(devices(bundle, list), "stat /opt/null -- write /opt/null x");
    assert_eq!(
        (&answers[0]["major"], &answers[0]["minor"]),
        (&json!(1), &json!(3))
    );
    assert_eq!(answers[1], true);
}

fn node_at(path: &std::path::Path, major: u64, minor: u64) {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    let mode = Mode::from_bits_truncate(0o666);
    mknod(path, SFlag::S_IFCHR, mode, makedev(major, minor)).unwrap();
}

fn a_node_that_is_not_as_it_should_be_is_refused(lab: &Lab) {
    for (kind, major, minor) in [("c", 1, 5), ("b", 1, 3), ("u", 2, 3), ("p", 1, 3)] {
        let list = json!([{ "path": "/opt/node", "type": kind, "major": major, "minor": minor }]);
        let bundle = lab.bundle().dir("opt").writable();
        node_at(&bundle.rootfs().join("opt/node"), 1, 3);
        lab.run(&devices(bundle, list).payload("exit 0"))
            .refused()
            .says("/opt/node (/linux/devices/0)")
            .says("another kind of file is already there: file exists");
    }
}

fn a_fifo_in_a_user_namespace_is_made(lab: &Lab) {
    let list = json!([{ "path": "/dev/pipe", "type": "p", "fileMode": 0o640, "uid": 1 }]);
    let bundle = lab.bundle().user_namespace(100_000, 65536);
    let stat = lab.ask(devices(bundle, list), "stat /dev/pipe").remove(0);
    let found = [&stat["type"], &stat["mode"], &stat["uid"]];
    assert_eq!(found, [&json!("fifo"), &json!(0o640), &json!(1)]);
}

fn a_device_that_the_host_lacks_is_refused_in_a_user_namespace(lab: &Lab) {
    let list = json!([{ "path": "/dev/no-such", "type": "c", "major": 1, "minor": 3 }]);
    let bundle = devices(lab.bundle().user_namespace(100_000, 65536), list);
    lab.run(&bundle.payload("exit 0"))
        .refused()
        .says("/dev/no-such (/linux/devices/0)")
        .says("no such file or directory")
        .hints("devices are taken from the host");
}

fn the_hosts_dev_is_left_as_it_is(lab: &Lab) {
    let bundle =
        lab.bundle()
            .only_mounts(&["/proc", "/sys"])
            .bind("/dev", "/dev", &["rbind", "rprivate"]);
    let list = json!([{ "path": "/dev/husk-made", "type": "c", "major": 1, "minor": 3 }]);
    let words = "stat /dev/null -- stat /dev/husk-made -- stat /dev/core";
    let host_has_core = std::fs::symlink_metadata("/dev/core").is_ok();
    let answers = lab.ask(devices(bundle, list), words);
    assert_character(&answers[0], 1, 3);
    assert_eq!(answers[1]["error"], "ENOENT");
    assert!(!std::path::Path::new("/dev/husk-made").exists());
    assert_eq!(
        std::fs::symlink_metadata("/dev/core").is_ok(),
        host_has_core
    );
}

fn links_of_dev_lead_where_they_should(lab: &Lab) {
    let words = "readlink /dev/fd -- readlink /dev/stdin -- readlink /dev/stdout -- \
        readlink /dev/stderr -- readlink /dev/core -- readlink /dev/ptmx";
    let answers = lab.ask(lab.bundle(), words);
    let expected = [
        "/proc/self/fd",
        "/proc/self/fd/0",
        "/proc/self/fd/1",
        "/proc/self/fd/2",
        "/proc/kcore",
        "pts/ptmx",
    ];
    assert_eq!(answers, expected.map(|target| json!(target)));
}
