//! What the specification allows and `oci_spec` 0.10 refuses, put into the form that it accepts.
//!
//! Each repair names the crate's shortcoming, so that it can go when the crate is mended. Nulls
//! and unknown capabilities are already gone (`schema`).

use oci_spec::runtime::{Process, Spec};
use serde_json::{Value, json};

/// Platforms that husk is not for. Their properties are ignored as unknown ones are, but the
/// crate would want their types right; `uidMappings` and `gidMappings` never stood at the top.
pub const OTHER_PLATFORMS: &[&str] = &[
    "freebsd",
    "solaris",
    "vm",
    "windows",
    "zos",
    "uidMappings",
    "gidMappings",
];

/// What the crate makes of [`OTHER_PLATFORMS`] where their types are right.
pub fn forget_other_platforms(spec: &mut Spec) {
    spec.set_solaris(None)
        .set_vm(None)
        .set_windows(None)
        .set_zos(None)
        .set_uid_mappings(None)
        .set_gid_mappings(None);
    if let Some(process) = spec.process_mut() {
        forget_other_platforms_of(process);
    }
}

pub fn forget_other_platforms_of(process: &mut Process) {
    process.set_command_line(None);
}

/// The crate's two spellings of its own.
const SCHEDULER_FLAGS: [(&str, &str); 2] = [
    ("SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK"),
    ("SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_D_L_OVERRUN"),
];

pub fn config(value: &mut Value) {
    if let Some(process_value) = value.get_mut("process") {
        process(process_value);
    }
    if let Some(linux) = value.get_mut("linux") {
        hugepage_limits(linux);
        device_wildcard(linux);
        seccomp_arguments(linux);
        empty_memory_policy(linux);
    }
}

pub fn process(process: &mut Value) {
    let Some(map) = process.as_object_mut() else {
        return;
    };
    // For Windows: typed by the crate, ignored here.
    map.remove("commandLine");
    // Absent, the user is root (runc, crun).
    map.entry("user").or_insert_with(|| json!({}));
    scheduler_flags(process);
    cpu_affinity(process);
}

fn items<'a>(value: &'a mut Value, pointer: &str) -> impl Iterator<Item = &'a mut Value> {
    value
        .pointer_mut(pointer)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
}

fn scheduler_flags(process: &mut Value) {
    for flag in items(process, "/scheduler/flags") {
        for (name, misspelt) in SCHEDULER_FLAGS {
            if flag == name {
                *flag = misspelt.into();
            }
        }
    }
}

/// The schema allows spaces and the empty list; the crate allows neither.
fn cpu_affinity(process: &mut Value) {
    let Some(affinity) = process
        .get_mut("execCPUAffinity")
        .and_then(Value::as_object_mut)
    else {
        return;
    };
    for key in ["initial", "final"] {
        if let Some(Value::String(list)) = affinity.get_mut(key) {
            list.retain(|c| c != ' ');
            if list.is_empty() {
                affinity.remove(key);
            }
        }
    }
}

/// `uint64` in the specification, `i64` in the crate. The kernel takes all above `i64::MAX` as
/// "max", as it does `i64::MAX` itself (page_counter_memparse).
fn hugepage_limits(linux: &mut Value) {
    for limit in items(linux, "/resources/hugepageLimits") {
        if let Some(limit) = limit.get_mut("limit")
            && limit.as_u64().is_some_and(|limit| limit > i64::MAX as u64)
        {
            *limit = i64::MAX.into();
        }
    }
}

/// An empty type is as good as none: all devices (runc).
fn device_wildcard(linux: &mut Value) {
    for rule in items(linux, "/resources/devices") {
        if let Some(rule) = rule.as_object_mut()
            && rule.get("type").is_some_and(|t| t == "")
        {
            rule.remove("type");
        }
    }
}

/// An absent value is 0 (runc, libseccomp's Go binding).
fn seccomp_arguments(linux: &mut Value) {
    for rule in items(linux, "/seccomp/syscalls") {
        for argument in items(rule, "/args") {
            if let Some(argument) = argument.as_object_mut() {
                argument.entry("value").or_insert_with(|| 0.into());
            }
        }
    }
}

/// `"memoryPolicy": {}` asks for nothing (runc).
fn empty_memory_policy(linux: &mut Value) {
    if let Some(linux) = linux.as_object_mut()
        && linux.get("memoryPolicy").is_some_and(|p| *p == json!({}))
    {
        linux.remove("memoryPolicy");
    }
}
