//! One test a shortcoming of `oci_spec` 0.10: what it refuses or loses, and the specification
//! allows.

use oci_spec::runtime::{LinuxSchedulerFlag, Spec};

use super::*;
use crate::bundle::{Bundle, Extra};

/// The crate refuses it, the bundle takes it with these warnings.
fn repaired(patch: &str, pointers: &[&str]) -> (Spec, Extra) {
    let raw = patched(patch);
    assert!(
        serde_json::from_slice::<Spec>(&raw).is_err(),
        "needs no repair: {patch}"
    );
    let bundle = Bundle::parse("/b".as_ref(), raw).unwrap();
    let found: Vec<_> = bundle.warnings.iter().map(|w| w.pointer.as_str()).collect();
    assert_eq!(found, pointers, "{patch}");
    (*bundle.spec, bundle.extra)
}

#[test]
fn unknown_capabilities_are_left_out() {
    let (spec, _) = repaired(
        r#"{"process": {"capabilities": {"bounding": ["CAP_X", "CAP_KILL", "CAP_Y"]}}}"#,
        &[
            "/process/capabilities/bounding/0",
            "/process/capabilities/bounding/2",
        ],
    );
    let sets = spec
        .process()
        .as_ref()
        .unwrap()
        .capabilities()
        .clone()
        .unwrap();
    assert_eq!(sets.bounding().as_ref().unwrap().len(), 1);
}

#[test]
fn scheduler_flags_by_their_real_names() {
    let (spec, _) = repaired(
        r#"{"process": {"scheduler": {"policy": "SCHED_OTHER",
            "flags": ["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_RECLAIM"]}}}"#,
        &[],
    );
    let scheduler = spec
        .process()
        .as_ref()
        .unwrap()
        .scheduler()
        .clone()
        .unwrap();
    assert_eq!(
        scheduler.flags().as_deref().unwrap(),
        [
            LinuxSchedulerFlag::SchedResetOnFork,
            LinuxSchedulerFlag::SchedFlagDLOverrun,
            LinuxSchedulerFlag::SchedFlagReclaim,
        ]
    );
}

#[test]
fn a_process_without_user_is_root() {
    let (spec, _) = repaired(r#"{"process": {"user": null}}"#, &[]);
    let process = spec.process().clone().unwrap();
    assert_eq!((process.user().uid(), process.user().gid()), (0, 0));
}

#[test]
fn a_seccomp_argument_without_value_compares_with_0() {
    let (spec, _) = repaired(
        r#"{"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"],
            "action": "SCMP_ACT_ERRNO", "args": [{"index": 1, "op": "SCMP_CMP_EQ"}]}]}}}"#,
        &[],
    );
    let seccomp = spec.linux().as_ref().unwrap().seccomp().clone().unwrap();
    let args = seccomp.syscalls().as_ref().unwrap()[0]
        .args()
        .clone()
        .unwrap();
    assert_eq!((args[0].index(), args[0].value()), (1, 0));
}

#[test]
fn pids_limit_0_is_a_limit_and_absence_is_none() {
    for (patch, limit) in [
        (
            r#"{"linux": {"resources": {"pids": {"limit": 0}}}}"#,
            Some(0),
        ),
        (r#"{"linux": {"resources": {"pids": {}}}}"#, None),
        (r#"{"linux": {"resources": {}}}"#, None),
        (
            r#"{"linux": {"resources": {"pids": {"limit": -1}}}}"#,
            Some(-1),
        ),
        (
            r#"{"linux": {"resources": {"pids": {"limit": 7}}}}"#,
            Some(7),
        ),
    ] {
        let bundle = Bundle::parse("/b".as_ref(), patched(patch)).unwrap();
        assert_eq!(bundle.extra.pids_limit, limit, "{patch}");
    }
    // On the slow way, too.
    let (_, extra) = repaired(
        r#"{"process": {"user": null}, "linux": {"resources": {"pids": {"limit": 0}}}}"#,
        &[],
    );
    assert_eq!(extra.pids_limit, Some(0));
}

#[test]
fn null_is_absent_everywhere() {
    // A merge patch can't write null.
    for (text, limit) in [
        (r#""linux": {"resources": {"pids": {"limit": null}}}"#, None),
        (
            r#""linux": {"resources": {"pids": null, "memory": {"limit": null}}}"#,
            None,
        ),
        (
            r#""linux": null, "mounts": null, "hooks": {"prestart": null}"#,
            None,
        ),
        (
            r#""process": {"cwd": "/", "args": ["x"], "user": {"uid": null, "gid": null}}"#,
            None,
        ),
        (
            r#""linux": {"uidMappings": null, "devices": [{"path": "/p", "type": "p", "major": null}]}"#,
            None,
        ),
    ] {
        let raw = format!(r#"{{"ociVersion": "1.0.0", "root": {{"path": "r"}}, {text}}}"#);
        let bundle = Bundle::parse("/b".as_ref(), raw.into()).unwrap();
        assert_eq!(bundle.extra.pids_limit, limit, "{text}");
        assert_eq!(bundle.warnings, [], "{text}");
    }
}

#[test]
fn hugepage_limits_are_unsigned() {
    let (spec, _) = repaired(
        r#"{"linux": {"resources": {"hugepageLimits": [{"pageSize": "2MB", "limit": 18446744073709551615}]}}}"#,
        &[],
    );
    let resources = spec.linux().as_ref().unwrap().resources().clone().unwrap();
    assert_eq!(
        resources.hugepage_limits().as_ref().unwrap()[0].limit(),
        i64::MAX
    );
}

#[test]
fn an_empty_type_in_a_device_rule_means_all() {
    let (spec, _) = repaired(
        r#"{"linux": {"resources": {"devices": [{"allow": false, "type": ""}]}}}"#,
        &[],
    );
    let resources = spec.linux().as_ref().unwrap().resources().clone().unwrap();
    assert_eq!(resources.devices().as_ref().unwrap()[0].typ(), None);
}

#[test]
fn an_empty_affinity_is_none_and_spaces_are_allowed() {
    let (spec, _) = repaired(
        r#"{"process": {"execCPUAffinity": {"initial": "0-3, 7", "final": ""}}}"#,
        &[],
    );
    let affinity = spec
        .process()
        .as_ref()
        .unwrap()
        .exec_cpu_affinity()
        .clone()
        .unwrap();
    assert_eq!(affinity.initial().as_deref(), Some("0-3,7"));
    assert_eq!(affinity.cpu_affinity_final(), &None);
}

#[test]
fn an_empty_memory_policy_asks_for_nothing() {
    let (spec, _) = repaired(r#"{"linux": {"memoryPolicy": {}}}"#, &[]);
    assert_eq!(spec.linux().as_ref().unwrap().memory_policy(), &None);
}

#[test]
fn other_platforms_are_ignored_whatever_they_hold() {
    for patch in [
        r#"{"windows": {"layerFolders": 7}}"#,
        r#"{"solaris": "x", "zos": [], "vm": 1}"#,
        r#"{"uidMappings": "never stood here"}"#,
        r#"{"process": {"commandLine": 5}}"#,
    ] {
        repaired(patch, &[]);
    }
}

/// Every property of the table survives the crate's types: none is lost or renamed.
#[test]
fn every_property_reaches_its_type() {
    let full: Value = serde_json::from_str(include_str!("full.json")).unwrap();
    let bundle = Bundle::parse("/b".as_ref(), serde_json::to_vec(&full).unwrap()).unwrap();
    assert_eq!(bundle.warnings, []);
    let mut written = serde_json::to_value(&bundle.spec).unwrap();
    // The crate's own spelling.
    let flags = written.pointer_mut("/process/scheduler/flags").unwrap();
    *flags = full.pointer("/process/scheduler/flags").unwrap().clone();
    for set in ["bounding", "effective", "permitted"] {
        let set = written
            .pointer_mut(&format!("/process/capabilities/{set}"))
            .unwrap();
        set.as_array_mut().unwrap().sort_by_key(|c| c.to_string());
    }
    // The crate writes these even where the document leaves them out.
    for i in 0..2 {
        let device = written.pointer_mut(&format!("/linux/devices/{i}")).unwrap();
        if device["type"] == "p" {
            device
                .as_object_mut()
                .unwrap()
                .retain(|key, _| key != "major" && key != "minor");
        }
    }
    assert_same(&written, &full, "");
}

fn assert_same(written: &Value, full: &Value, pointer: &str) {
    match (written, full) {
        (Value::Object(a), Value::Object(b)) => {
            for (key, value) in b {
                let pointer = format!("{pointer}/{key}");
                assert_same(a.get(key).unwrap_or(&Value::Null), value, &pointer);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                assert_same(a, b, &format!("{pointer}/{i}"));
            }
        }
        _ => assert_eq!(written, full, "{pointer}"),
    }
}
