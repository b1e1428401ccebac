//! Rules of `mounts` (but for the options themselves) and of the paths that are hidden.

use std::path::{Component, Path};

use oci_spec::runtime::{Linux, LinuxNamespaceType, Mount, Spec};

use super::{Finding, Findings, Origin, absolute, ids, namespace, quote};
use crate::bundle::did_you_mean;

/// PATH_MAX, without the NUL at the end.
const LONGEST_PATH: usize = 4095;

pub fn mounts(spec: &Spec, findings: &mut Findings) {
    for (i, entry) in spec.mounts().iter().flatten().enumerate() {
        mount(entry, &format!("/mounts/{i}"), spec, findings);
    }
}

fn mount(mount: &Mount, pointer: &str, spec: &Spec, findings: &mut Findings) {
    let destination = mount.destination();
    if destination.as_os_str().is_empty() {
        let pointer = format!("{pointer}/destination");
        findings.push(Finding::error(pointer, "the path is empty"));
    } else if !destination.is_absolute() {
        let path = destination.display();
        let message = format!("a relative destination is deprecated, read as /{path}");
        findings.push(Finding::warning(format!("{pointer}/destination"), message));
    }
    if destination.as_os_str().len() > LONGEST_PATH {
        // Each of its directories would be looked for before the kernel says so.
        let message = format!("longer than the {LONGEST_PATH} bytes of a path");
        findings.push(Finding::error(format!("{pointer}/destination"), message));
    }
    let options = mount.options().as_deref().unwrap_or_default();
    let is_root = |part: Component| !matches!(part, Component::Normal(_));
    let names_root = !destination.as_os_str().is_empty() && destination.components().all(is_root);
    if names_root && !options.iter().any(|option| option == "remount") {
        let message = "the container's root is root.path: what is mounted over it is never seen";
        let finding = Finding::error(format!("{pointer}/destination"), message);
        findings.push(finding.hint("make it root.path, or mount it on a directory below"));
    }
    overlay(mount, options, pointer, findings);
    let has = |names: &[&str]| options.iter().any(|o| names.contains(&o.as_str()));
    let is_bind = has(&["bind", "rbind"]);
    let source = mount.source().as_deref().unwrap_or(Path::new(""));
    if is_bind && source.as_os_str().is_empty() {
        let pointer = format!("{pointer}/source");
        findings.push(Finding::error(pointer, "a bind mount needs a source"));
    }
    if !is_bind && options.is_empty() && mount.typ().as_deref().unwrap_or_default().is_empty() {
        let message = "a mount that is no bind mount needs a type";
        findings.push(Finding::error(format!("{pointer}/type"), message));
    }
    let uids = mount.uid_mappings().as_deref().unwrap_or_default();
    let gids = mount.gid_mappings().as_deref().unwrap_or_default();
    ids::mappings(uids, &format!("{pointer}/uidMappings"), findings);
    ids::mappings(gids, &format!("{pointer}/gidMappings"), findings);
    if uids.is_empty() != gids.is_empty() {
        let (missing, given) = match uids.is_empty() {
            true => ("uidMappings", "gidMappings"),
            false => ("gidMappings", "uidMappings"),
        };
        let message = format!("{given} of a mount need {missing}, too");
        findings.push(Finding::error(format!("{pointer}/{missing}"), message));
    }
    let user = namespace(spec.linux().as_ref(), LinuxNamespaceType::User);
    if has(&["idmap", "ridmap"]) && uids.is_empty() && user == Origin::Inherited {
        let message = "an id-mapped mount needs mappings: its own or those of a user namespace";
        findings.push(Finding::error(format!("{pointer}/uidMappings"), message));
    }
}

/// What overlayfs can't do without; the kernel says no more than that something is invalid.
fn overlay(mount: &Mount, options: &[String], pointer: &str, findings: &mut Findings) {
    if mount.typ().as_deref() != Some("overlay")
        || options
            .iter()
            .any(|option| option == "bind" || option == "rbind" || option == "remount")
    {
        return;
    }
    let has = |key: &str| {
        let mut values = options.iter().filter_map(|option| option.split_once('='));
        values.any(|(name, value)| name == key && !value.is_empty())
    };
    let mut needs = |message: &str, hint: &str| {
        let pointer = format!("{pointer}/options");
        findings.push(Finding::error(pointer, message).hint(hint));
    };
    if !has("lowerdir") && !has("lowerdir+") {
        needs(
            "an overlay needs a lowerdir",
            "add \"lowerdir=DIR\", the layers that stay as they are, the topmost first",
        );
    }
    if has("upperdir") && !has("workdir") {
        needs(
            "an overlay with an upperdir needs a workdir",
            "add \"workdir=DIR\", an empty directory on the filesystem of the upperdir",
        );
    }
}

/// The values of the specification, and their recursive forms, which Docker writes.
pub fn propagation(linux: &Linux, findings: &mut Findings) {
    const KNOWN: [&str; 8] = [
        "shared",
        "slave",
        "private",
        "unbindable",
        "rshared",
        "rslave",
        "rprivate",
        "runbindable",
    ];
    if let Some(value) = linux.rootfs_propagation()
        && !value.is_empty()
        && !KNOWN.contains(&value.as_str())
    {
        let message = format!("invalid rootfs propagation {}", quote(value));
        let hint = did_you_mean(value, KNOWN)
            .unwrap_or_else(|| "known are shared, slave, private, unbindable".into());
        findings.push(Finding::error("/linux/rootfsPropagation", message).hint(hint));
    }
}

pub fn restricted_paths(linux: &Linux, findings: &mut Findings) {
    for (key, paths) in [
        ("maskedPaths", linux.masked_paths()),
        ("readonlyPaths", linux.readonly_paths()),
    ] {
        let paths = paths.as_deref().unwrap_or_default();
        for (i, path) in paths.iter().enumerate() {
            absolute(Path::new(path), || format!("/linux/{key}/{i}"), findings);
        }
    }
}

/// The label becomes a quoted mount option.
pub fn label(linux: &Linux, findings: &mut Findings) {
    if let Some(label) = linux.mount_label()
        && label.contains(|c: char| c == '"' || c.is_control())
    {
        let message = format!("{} has a quote or a control character", quote(label));
        findings.push(Finding::error("/linux/mountLabel", message));
    }
}
