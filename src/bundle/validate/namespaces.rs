//! Rules of namespaces and of what needs one of its own: time offsets, network devices.

use std::collections::HashMap;

use oci_spec::runtime::{Linux, LinuxNamespaceType, Spec};

use super::{Finding, Findings, Origin, absolute, namespace, quote};
use crate::bundle::did_you_mean;
use crate::bundle::syntax::child;

/// The kernel's IFNAMSIZ, less the closing NUL.
const INTERFACE_NAME_MAX: usize = 15;

pub fn namespaces(linux: &Linux, findings: &mut Findings) {
    let mut seen = Vec::new();
    for (i, namespace) in linux.namespaces().iter().flatten().enumerate() {
        if seen.contains(&namespace.typ()) {
            let message = format!("a second namespace of type {}", name(namespace.typ()));
            findings.push(Finding::error(format!("/linux/namespaces/{i}"), message));
        }
        seen.push(namespace.typ());
        if let Some(path) = namespace.path()
            && !path.as_os_str().is_empty()
        {
            absolute(path, || format!("/linux/namespaces/{i}/path"), findings);
        }
    }
}

/// Mounts are then made in the host's tree, for all to see until the container is deleted.
pub fn mounts_of_the_host(spec: &Spec, findings: &mut Findings) {
    let origin = namespace(spec.linux().as_ref(), LinuxNamespaceType::Mount);
    let user = namespace(spec.linux().as_ref(), LinuxNamespaceType::User);
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    // With a user namespace of its own it is an error.
    if origin == Origin::Inherited && user == Origin::Inherited && !mounts.is_empty() {
        let message = "no mount namespace: the container's mounts are made in the host's, and a chroot alone confines it";
        let hint = "add {\"type\": \"mount\"} to /linux/namespaces";
        findings.push(Finding::warning("/linux/namespaces", message).hint(hint));
    }
}

/// The name in config.json; the crate's own names are those of /proc/PID/ns.
fn name(typ: LinuxNamespaceType) -> &'static str {
    match typ {
        LinuxNamespaceType::Mount => "mount",
        LinuxNamespaceType::Cgroup => "cgroup",
        LinuxNamespaceType::Uts => "uts",
        LinuxNamespaceType::Ipc => "ipc",
        LinuxNamespaceType::User => "user",
        LinuxNamespaceType::Pid => "pid",
        LinuxNamespaceType::Network => "network",
        LinuxNamespaceType::Time => "time",
    }
}

/// A time namespace takes offsets only until its first process is in it (time_namespaces(7)).
pub fn time_offsets(linux: &Linux, findings: &mut Findings) {
    const POINTER: &str = "/linux/timeOffsets";
    let Some(offsets) = linux.time_offsets().as_ref().filter(|o| !o.is_empty()) else {
        return;
    };
    match namespace(Some(linux), LinuxNamespaceType::Time) {
        Origin::New => {}
        Origin::Inherited => {
            let hint = "add {\"type\": \"time\"} to /linux/namespaces";
            let message = "time offsets need a time namespace";
            findings.push(Finding::error(POINTER, message).hint(hint));
        }
        Origin::Joined => {
            let message = "time offsets need a new time namespace: one that is joined has its own";
            findings.push(Finding::error(POINTER, message));
        }
    }
    for (clock, offset) in offsets {
        let pointer = child(POINTER, clock);
        if !["monotonic", "boottime"].contains(&clock.as_str()) {
            let message = format!("{} is no clock with an offset", quote(clock));
            let hint = did_you_mean(clock, ["monotonic", "boottime"])
                .unwrap_or_else(|| "those that have are monotonic and boottime".into());
            findings.push(Finding::error(pointer.as_str(), message).hint(hint));
        }
        if let Some(nanosecs) = offset.nanosecs()
            && nanosecs >= 1_000_000_000
        {
            let message = format!("{nanosecs} ns are a second or more");
            findings.push(Finding::error(format!("{pointer}/nanosecs"), message));
        }
    }
}

pub fn net_devices(linux: &Linux, findings: &mut Findings) {
    const POINTER: &str = "/linux/netDevices";
    let Some(devices) = linux.net_devices().as_ref().filter(|d| !d.is_empty()) else {
        return;
    };
    if namespace(Some(linux), LinuxNamespaceType::Network) == Origin::Inherited {
        let message = "unable to move network devices without a private NET namespace";
        let hint = "add {\"type\": \"network\"} to /linux/namespaces";
        findings.push(Finding::error(POINTER, message).hint(hint));
    }
    let mut taken: HashMap<&str, &str> = HashMap::new();
    let mut names: Vec<_> = devices.iter().collect();
    names.sort_by_key(|(name, _)| *name);
    for (host, device) in names {
        let pointer = child(POINTER, host);
        interface_name(host, &pointer, findings);
        let name = device.name().as_deref().filter(|name| !name.is_empty());
        if let Some(name) = name {
            let pointer = format!("{pointer}/name");
            interface_name(name, &pointer, findings);
            if name.contains('%') && (name.matches('%').count() > 1 || !name.contains("%d")) {
                let message = format!(
                    "{}: the one pattern that a name may have is %d",
                    quote(name)
                );
                findings.push(Finding::error(pointer, message));
            }
        }
        let name = name.unwrap_or(host);
        if !name.contains("%d")
            && let Some(other) = taken.insert(name, host)
        {
            let message = format!("{other:?} is already to be named {name:?} in the container");
            findings.push(Finding::error(pointer, message));
        }
    }
}

/// The kernel's dev_valid_name().
fn interface_name(name: &str, pointer: &str, findings: &mut Findings) {
    let message = if name.is_empty() {
        "the name of a network device is empty".into()
    } else if name.len() > INTERFACE_NAME_MAX {
        let name = quote(name);
        format!("{name} is no name of a network device: more than {INTERFACE_NAME_MAX} bytes")
    } else if name == "."
        || name == ".."
        || name.contains(|c: char| matches!(c, '/' | ':') || c.is_ascii_whitespace())
    {
        let name = quote(name);
        format!("{name} is no name of a network device: it has a space, a slash or a colon")
    } else {
        return;
    };
    findings.push(Finding::error(pointer, message));
}
