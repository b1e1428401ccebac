//! The rules of config.json that need no kernel, in the order of the document.
//!
//! What the specification calls an error is one; what it lets pass (capabilities that can't be
//! granted, deprecated forms) is a warning. Where it is silent, the kernel's own rules hold.

mod devices;
mod hooks;
mod ids;
pub(super) mod lists;
mod mounts;
mod namespaces;
mod process;
mod resources;
mod seccomp;
pub(super) mod sysctl;

use std::path::Path;

use oci_spec::runtime::{Linux, LinuxNamespaceType, Spec};

use super::schema::quote;
use super::{Finding, Findings};

pub(super) use process::process;
pub(super) use resources::resources;

/// The kernel's `__NEW_UTS_LEN`.
const UTS_NAME_MAX: usize = 64;

/// All rules of config.json.
pub(super) fn config(spec: &Spec, findings: &mut Findings) {
    version(spec.version(), findings);
    match spec.root() {
        None => findings.push(Finding::error("/root", "\"root\" is required")),
        Some(root) if root.path().as_os_str().is_empty() => {
            findings.push(Finding::error("/root/path", "the path is empty"));
        }
        Some(_) => {}
    }
    mounts::mounts(spec, findings);
    if let Some(process) = spec.process() {
        self::process(process, "/process", findings);
        ids::process_ids(process, spec.linux().as_ref(), findings);
    }
    uts_name("hostname", spec.hostname().as_deref(), spec, findings);
    uts_name("domainname", spec.domainname().as_deref(), spec, findings);
    if let Some(hooks) = spec.hooks() {
        hooks::hooks(hooks, findings);
    }
    annotations(spec, findings);
    if let Some(linux) = spec.linux() {
        self::linux(spec, linux, findings);
    }
}

fn linux(spec: &Spec, linux: &Linux, findings: &mut Findings) {
    namespaces::namespaces(linux, findings);
    namespaces::mounts_of_the_host(spec, findings);
    ids::user_namespace(linux, findings);
    namespaces::time_offsets(linux, findings);
    devices::devices(linux, findings);
    namespaces::net_devices(linux, findings);
    if let Some(resources) = linux.resources() {
        resources::resources(resources, findings);
    }
    resources::intel_rdt(linux, findings);
    process::memory_policy(linux, findings);
    sysctl::sysctl(spec, linux, findings);
    if let Some(seccomp) = linux.seccomp() {
        seccomp::seccomp(seccomp, findings);
    }
    mounts::propagation(linux, findings);
    mounts::restricted_paths(linux, findings);
    mounts::label(linux, findings);
    process::personality(linux, findings);
}

/// Where the container's namespace of one type comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Inherited,
    New,
    Joined,
}

fn namespace(linux: Option<&Linux>, typ: LinuxNamespaceType) -> Origin {
    let namespaces = linux.and_then(|l| l.namespaces().as_deref());
    match namespaces.into_iter().flatten().find(|n| n.typ() == typ) {
        None => Origin::Inherited,
        Some(namespace) => match namespace.path() {
            Some(path) if !path.as_os_str().is_empty() => Origin::Joined,
            _ => Origin::New,
        },
    }
}

/// SemVer 2.0.0, major version 1: all 1.x are upward compatible (config.md). Before 1.0 lay
/// drafts, one of which the specification's own example names; runtimes take them.
fn version(version: &str, findings: &mut Findings) {
    const POINTER: &str = "/ociVersion";
    if version.is_empty() {
        findings.push(Finding::error(POINTER, "\"ociVersion\" is required"));
        return;
    }
    match major(version) {
        None => {
            let message = format!("{} is no semantic version", quote(version));
            let bare = version.trim().trim_start_matches(['v', 'V', '=', ' ']);
            let hint = match major(bare) {
                Some(_) => format!("write {}", quote(bare)),
                None => "it has three numbers, as in 1.3.0".into(),
            };
            findings.push(Finding::error(POINTER, message).hint(hint));
        }
        Some(1) => {}
        Some(0) => {
            let message = format!("{version} is a draft from before 1.0.0, read as 1.x");
            findings.push(Finding::warning(POINTER, message));
        }
        Some(_) => {
            let message = format!("{version} is not supported, only 1.x is");
            findings.push(Finding::error(POINTER, message));
        }
    }
}

/// The major version of a SemVer 2.0.0 string.
fn major(version: &str) -> Option<u64> {
    let (rest, build) = version.split_once('+').unwrap_or((version, "x"));
    let (core, pre) = rest.split_once('-').unwrap_or((rest, "x"));
    let is_number = |n: &str| {
        !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()) && (n == "0" || !n.starts_with('0'))
    };
    let is_label =
        |id: &str| !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let is_pre =
        |id: &str| is_label(id) && (!id.bytes().all(|b| b.is_ascii_digit()) || is_number(id));
    let valid = core.split('.').count() == 3
        && core.split('.').all(is_number)
        && pre.split('.').all(is_pre)
        && build.split('.').all(is_label);
    match valid {
        true => core.split('.').next()?.parse().ok(),
        false => None,
    }
}

fn uts_name(key: &str, name: Option<&str>, spec: &Spec, findings: &mut Findings) {
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        return;
    };
    let pointer = format!("/{key}");
    if namespace(spec.linux().as_ref(), LinuxNamespaceType::Uts) == Origin::Inherited {
        let message = format!("a {key} needs a uts namespace: it would be the host's");
        let hint = "add {\"type\": \"uts\"} to /linux/namespaces";
        findings.push(Finding::error(pointer.as_str(), message).hint(hint));
    }
    if name.len() > UTS_NAME_MAX {
        let length = name.len();
        let message = format!("{length} bytes long, more than the kernel's {UTS_NAME_MAX}");
        findings.push(Finding::error(pointer, message));
    }
}

fn annotations(spec: &Spec, findings: &mut Findings) {
    let annotations = spec.annotations().as_ref();
    if annotations.is_some_and(|map| map.contains_key("")) {
        findings.push(Finding::error("/annotations/", "the key is empty"));
    }
}

/// A path inside the container or on the host that must not depend on a working directory.
fn absolute(path: &Path, pointer: impl FnOnce() -> String, findings: &mut Findings) {
    if path.is_absolute() {
        return;
    }
    let message = match path.as_os_str().is_empty() {
        true => "the path is empty".into(),
        false => format!("{} is not absolute", quote(&path.to_string_lossy())),
    };
    let pointer = pointer();
    let plain = path.to_string_lossy();
    let plain = plain.trim_start_matches("./");
    let hint = match pointer.as_str() {
        _ if plain.is_empty() || plain.starts_with("..") => None,
        at if at.starts_with("/linux/namespaces") => {
            Some("a namespace is named by its file: /proc/PID/ns/TYPE or /run/netns/NAME".into())
        }
        at if at.starts_with("/hooks") => {
            Some("write its whole path on the host, which begins with /".into())
        }
        _ => Some(format!("write {}", quote(&format!("/{plain}")))),
    };
    findings.push(Finding::error(pointer, message).maybe_hint(hint));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn semantic_versions() {
        for (text, expected) in [
            ("1.0.0", Some(1)),
            ("1.3.0", Some(1)),
            ("1.0.2-dev", Some(1)),
            ("1.0.0-rc.1", Some(1)),
            ("1.2.1+build.05", Some(1)),
            ("0.5.0-dev", Some(0)),
            ("2.0.0", Some(2)),
            ("1.0", None),
            ("1", None),
            ("v1.0.0", None),
            ("1.0.0.0", None),
            ("01.0.0", None),
            ("1.0.0-", None),
            ("1.0.0-01", None),
            ("1.0.0+", None),
            (" 1.0.0", None),
            ("1.0.x", None),
            ("99999999999999999999.0.0", None),
        ] {
            assert_eq!(major(text), expected, "{text}");
        }
    }
}
