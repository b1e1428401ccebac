//! Whether this user may map the ids that a user namespace asks for.

use nix::unistd::{Uid, User};
use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType};

use super::mounts::has_namespace;
use super::read;
use crate::bundle::{Bundle, Finding};

pub fn look(bundle: &Bundle, findings: &mut Vec<Finding>) {
    let Some(linux) = bundle.spec.linux() else {
        return;
    };
    if !has_namespace(bundle, LinuxNamespaceType::User) {
        if !Uid::effective().is_root() {
            let message = "a container without a user namespace needs root";
            let hint = "run husk as root, or start from `husk spec --rootless`";
            findings.push(Finding::error("/linux/namespaces", message).hint(hint));
        }
        return;
    }
    for (key, mappings, own, subordinate, helper) in [
        (
            "uidMappings",
            linux.uid_mappings(),
            "/proc/self/uid_map",
            "/etc/subuid",
            "newuidmap",
        ),
        (
            "gidMappings",
            linux.gid_mappings(),
            "/proc/self/gid_map",
            "/etc/subgid",
            "newgidmap",
        ),
    ] {
        let mappings = mappings.as_deref().unwrap_or_default();
        let pointer = format!("/linux/{key}");
        here(mappings, own, &pointer, findings);
        if !Uid::effective().is_root() {
            permitted(mappings, subordinate, helper, &pointer, findings);
        }
    }
}

/// Host ids that don't exist in the user namespace that husk itself is in.
fn here(mappings: &[LinuxIdMapping], file: &str, pointer: &str, findings: &mut Vec<Finding>) {
    let Some(table) = read(file) else { return };
    let ranges: Vec<(u64, u64)> = table
        .lines()
        .filter_map(|line| {
            let mut numbers = line.split_whitespace().map(str::parse::<u64>);
            let (first, _, size) = (
                numbers.next()?.ok()?,
                numbers.next()?,
                numbers.next()?.ok()?,
            );
            Some((first, first + size))
        })
        .collect();
    for (index, mapping) in mappings.iter().enumerate() {
        let first = u64::from(mapping.host_id());
        let end = first + u64::from(mapping.size());
        // One line of the new map must lie within one line of this one's.
        let inside = ranges.iter().any(|(from, to)| *from <= first && end <= *to);
        if !ranges.is_empty() && !inside {
            let message = format!("host ids {first} to {} don't all exist here", end - 1);
            let hint = format!("husk runs in a user namespace itself: {file} tells what it has");
            findings.push(Finding::error(format!("{pointer}/{index}"), message).hint(hint));
        }
    }
}

/// What a user who isn't root may map: the own id, and what /etc/subuid gives.
fn permitted(
    mappings: &[LinuxIdMapping],
    file: &str,
    helper: &str,
    pointer: &str,
    findings: &mut Vec<Finding>,
) {
    let own = match helper {
        "newuidmap" => Uid::effective().as_raw(),
        _ => nix::unistd::Gid::effective().as_raw(),
    };
    if let [only] = mappings
        && only.host_id() == own
        && only.size() == 1
    {
        return;
    }
    if !is_on_path(helper) {
        let message = format!("mapping more than the own id needs {helper}, which isn't installed");
        findings.push(Finding::error(pointer, message).hint("apt-get install uidmap"));
        return;
    }
    let granted = granted(file);
    for (index, mapping) in mappings.iter().enumerate() {
        let first = u64::from(mapping.host_id());
        let end = first + u64::from(mapping.size());
        let is_own = mapping.host_id() == own && mapping.size() == 1;
        if !is_own
            && !granted
                .iter()
                .any(|(from, to)| *from <= first && end <= *to)
        {
            let message = format!("host ids {first} to {} are not this user's", end - 1);
            let hint = match granted.first() {
                Some((from, to)) => format!("{file} gives {from} to {}", to - 1),
                None => format!("add a line to {file}: USER:100000:65536"),
            };
            findings.push(Finding::error(format!("{pointer}/{index}"), message).hint(hint));
        }
    }
}

pub fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).exists())
}

/// subuid(5) has the user's name or number, the first id, how many: the first id and the end of each.
pub fn granted(file: &str) -> Vec<(u64, u64)> {
    let uid = Uid::effective();
    let name = User::from_uid(uid).ok().flatten().map(|user| user.name);
    let text = read(file).unwrap_or_default();
    let rows = text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let who = fields.next()?;
        let is_own = Some(who) == name.as_deref() || who == uid.to_string();
        let (first, count): (u64, u64) =
            (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        is_own.then_some((first, first + count))
    });
    rows.collect()
}
