//! Rules of id mappings, and of ids that must be mapped.

use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType, Process};

use super::{Finding, Findings, Origin, namespace};

/// The kernel's UID_GID_MAP_MAX_EXTENTS, since 4.15.
const MAX_ENTRIES: usize = 340;

pub fn user_namespace(linux: &Linux, findings: &mut Findings) {
    let origin = namespace(Some(linux), LinuxNamespaceType::User);
    for (key, list) in [
        ("uidMappings", linux.uid_mappings()),
        ("gidMappings", linux.gid_mappings()),
    ] {
        let pointer = format!("/linux/{key}");
        let list = list.as_deref().unwrap_or_default();
        match origin {
            Origin::Inherited if !list.is_empty() => {
                let hint = "add {\"type\": \"user\"} to /linux/namespaces";
                let message = "mappings need a user namespace";
                findings.push(Finding::error(pointer.as_str(), message).hint(hint));
            }
            Origin::New if list.is_empty() => {
                let kind = &key[..3];
                let message = format!("a new user namespace needs {kind} mappings");
                let hint = "as in [{\"containerID\": 0, \"hostID\": 100000, \"size\": 65536}]";
                findings.push(Finding::error(pointer.as_str(), message).hint(hint));
            }
            _ => {}
        }
        mappings(list, &pointer, findings);
    }
}

/// What the kernel takes in uid_map and gid_map (user_namespaces(7)).
pub fn mappings(list: &[LinuxIdMapping], pointer: &str, findings: &mut Findings) {
    if list.len() > MAX_ENTRIES {
        let message = format!(
            "{} entries, more than the kernel's {MAX_ENTRIES}",
            list.len()
        );
        findings.push(Finding::error(pointer, message));
        return;
    }
    for (i, entry) in list.iter().enumerate() {
        if entry.size() == 0 {
            let pointer = format!("{pointer}/{i}/size");
            findings.push(Finding::error(pointer, "a mapping of size 0 maps nothing"));
        }
        for (key, first) in [
            ("containerID", entry.container_id()),
            ("hostID", entry.host_id()),
        ] {
            if first.checked_add(entry.size()).is_none() || first == u32::MAX {
                let message = format!(
                    "{} ids from {first} on go beyond the last id, {}",
                    entry.size(),
                    u32::MAX - 1
                );
                findings.push(Finding::error(format!("{pointer}/{i}/{key}"), message));
            }
        }
    }
    overlap(
        list,
        "containerID",
        LinuxIdMapping::container_id,
        pointer,
        findings,
    );
    overlap(list, "hostID", LinuxIdMapping::host_id, pointer, findings);
}

fn overlap(
    list: &[LinuxIdMapping],
    key: &str,
    first: impl Fn(&LinuxIdMapping) -> u32,
    pointer: &str,
    findings: &mut Findings,
) {
    let mut sorted: Vec<(u32, u32, usize)> = list
        .iter()
        .enumerate()
        .map(|(i, entry)| (first(entry), entry.size(), i))
        .collect();
    sorted.sort_unstable();
    for pair in sorted.windows(2) {
        let [(a, size, i), (b, _, j)] = *pair else {
            continue;
        };
        if b - a < size {
            let (later, earlier) = (i.max(j), i.min(j));
            let message = format!("overlaps {pointer}/{earlier} at {key} {b}");
            findings.push(Finding::error(format!("{pointer}/{later}"), message));
        }
    }
}

/// The ids of the process are the user namespace's: unmapped ones don't exist there.
pub fn process_ids(process: &Process, linux: Option<&Linux>, findings: &mut Findings) {
    let Some(linux) = linux else {
        return;
    };
    if namespace(Some(linux), LinuxNamespaceType::User) == Origin::Inherited {
        return;
    }
    let user = process.user();
    let uids = linux.uid_mappings().as_deref().unwrap_or_default();
    let gids = linux.gid_mappings().as_deref().unwrap_or_default();
    mapped(
        "uid",
        user.uid(),
        uids,
        "uidMappings",
        "/process/user/uid",
        findings,
    );
    mapped(
        "gid",
        user.gid(),
        gids,
        "gidMappings",
        "/process/user/gid",
        findings,
    );
    for (i, gid) in user.additional_gids().iter().flatten().enumerate() {
        let pointer = format!("/process/user/additionalGids/{i}");
        mapped("gid", *gid, gids, "gidMappings", &pointer, findings);
    }
}

fn mapped(
    what: &str,
    id: u32,
    list: &[LinuxIdMapping],
    key: &str,
    pointer: &str,
    findings: &mut Findings,
) {
    let holds = |entry: &LinuxIdMapping| {
        id.checked_sub(entry.container_id())
            .is_some_and(|offset| offset < entry.size())
    };
    // Of a mapping that maps nothing, or what isn't there, that is told.
    let is_broken = |entry: &LinuxIdMapping| {
        entry.size() == 0 || entry.container_id().checked_add(entry.size()).is_none()
    };
    if list.is_empty() || list.iter().any(holds) || list.iter().any(is_broken) {
        return;
    }
    let ranges: Vec<String> = list
        .iter()
        .take(3)
        .map(|entry| {
            let (first, size) = (entry.container_id(), entry.size());
            match size {
                0 | 1 => first.to_string(),
                _ => format!("{first}-{}", u64::from(first) + u64::from(size) - 1),
            }
        })
        .collect();
    let more = if list.len() > 3 { ", ..." } else { "" };
    let ranges = ranges.join(", ");
    let message = format!(
        "{what} {id} is not mapped in the user namespace: /linux/{key} maps {ranges}{more}"
    );
    findings.push(Finding::error(pointer, message));
}
