//! `linux.intelRdt`. Few machines have the hardware: the rules are tested beside the code, against a
//! directory in which the tests play the kernel; here is what can be seen without it, and once with it.

use std::fs;
use std::path::PathBuf;

use nix::mount::{MsFlags, mount, umount};
use serde_json::json;

use super::tests;
use crate::lab::Lab;
use crate::mountinfo;
use crate::need::Need;

tests! {
    without_resctrl_it_is_refused_before_anything_is_made,
    another_file_system_of_that_name_is_no_resctrl.needs(&[Need::Husk]),
    a_container_has_a_class_of_its_own.needs(&[Need::Resctrl]),
    a_class_can_be_named_and_monitored.needs(&[Need::Resctrl]),
}

fn tree() -> Option<PathBuf> {
    mountinfo::first_of_type("resctrl").map(PathBuf::from)
}

fn without_resctrl_it_is_refused_before_anything_is_made(lab: &Lab) {
    if tree().is_some() {
        return;
    }
    for rdt in [
        json!({}),
        json!({ "closID": "gold" }),
        json!({ "closID": "/", "enableMonitoring": true }),
        json!({ "l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=20", "schemata": ["L2:0=3"] }),
    ] {
        let marker = lab.path("marker");
        let hook = [lab.host_payload(), "hook", marker.to_str().unwrap()];
        let bundle = lab.bundle().set("/linux/intelRdt", rdt);
        let refused = lab.run(&bundle.hook("createRuntime", &hook)).refused();
        refused.says("/linux/intelRdt").says("resctrl");
        assert!(!marker.exists());
    }
}

fn another_file_system_of_that_name_is_no_resctrl(lab: &Lab) {
    if tree().is_some() {
        return;
    }
    let dir = lab.path("resctrl");
    fs::create_dir(&dir).unwrap();
    let none = None::<&str>;
    mount(Some("resctrl"), &dir, Some("tmpfs"), MsFlags::empty(), none).unwrap();
    fs::create_dir(dir.join("gold")).unwrap();
    fs::write(dir.join("gold/tasks"), "").unwrap();
    let bundle = lab.bundle().set("/linux/intelRdt/closID", "gold");
    lab.run(&bundle).refused().says("/linux/intelRdt");
    assert_eq!(fs::read_to_string(dir.join("gold/tasks")).unwrap(), "");
    umount(&dir).unwrap();
}

fn tasks(group: &str) -> Vec<String> {
    let path = tree().unwrap().join(group).join("tasks");
    let text = fs::read_to_string(path).unwrap();
    text.split_whitespace().map(str::to_owned).collect()
}

fn a_container_has_a_class_of_its_own(lab: &Lab) {
    let bundle = lab.bundle().set("/linux/intelRdt", json!({}));
    let container = lab.start(&bundle.payload("pause"));
    assert_eq!(tasks(&container.id), [container.pid().to_string()]);
    let id = container.id.clone();
    container.end();
    assert!(!tree().unwrap().join(id).exists());
}

fn a_class_can_be_named_and_monitored(lab: &Lab) {
    let rdt = json!({ "closID": "/", "enableMonitoring": true });
    let bundle = lab.bundle().set("/linux/intelRdt", rdt);
    let container = lab.start(&bundle.payload("pause"));
    let group = format!("mon_groups/{}", container.id);
    assert_eq!(tasks(&group), [container.pid().to_string()]);
    let sleeper = container.exec_with(&["--detach"], "/bin/payload pause");
    sleeper.run().ok();
    assert_eq!(tasks(&group).len(), 2);
    container.end();
    assert!(!tree().unwrap().join(group).exists());
}
