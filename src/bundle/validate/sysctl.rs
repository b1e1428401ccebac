//! Rules of `linux.sysctl`: only what belongs to a namespace of the container may be set.

use oci_spec::runtime::{Linux, LinuxNamespaceType, Spec};

use super::{Finding, Findings, Origin, namespace, quote};
use crate::bundle::did_you_mean;
use crate::bundle::syntax::child;

/// The kernel's ipc/ipc_sysctl.c.
const IPC: [&str; 12] = [
    "kernel/auto_msgmni",
    "kernel/msg_next_id",
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/sem_next_id",
    "kernel/shm_next_id",
    "kernel/shm_rmid_forced",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
];

/// The file of a sysctl below /proc/sys. A key whose first separator is a dot has dots for
/// slashes and the reverse (sysctl.d(5)): `net.ipv4.conf.eth0/1.rp_filter`. `None` if it names no
/// file there: an empty part, `.` or `..`.
pub fn sysctl_path(key: &str) -> Option<String> {
    let dotted = key.find(['.', '/']).map(|i| key.as_bytes()[i]) == Some(b'.');
    let path: String = match dotted {
        true => key
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect(),
        false => key.into(),
    };
    path.split('/')
        .all(|part| !matches!(part, "" | "." | ".."))
        .then_some(path)
}

/// What a configuration sets in its namespaces: pointer, value, and whose it is.
pub fn settings(spec: &Spec) -> Vec<(String, &str, LinuxNamespaceType)> {
    let names = [
        ("/hostname", spec.hostname()),
        ("/domainname", spec.domainname()),
    ];
    let names = names.into_iter().filter_map(|(pointer, name)| {
        let name = name.as_deref().filter(|name| !name.is_empty())?;
        Some((pointer.to_owned(), name, LinuxNamespaceType::Uts))
    });
    let sysctl = spec
        .linux()
        .iter()
        .flat_map(|linux| linux.sysctl())
        .flatten();
    let sysctl = sysctl.filter_map(|(key, value)| {
        let (typ, _) = owner(&sysctl_path(key)?)?;
        Some((child("/linux/sysctl", key), value.as_str(), typ))
    });
    let mut all: Vec<_> = names.chain(sysctl).collect();
    all.sort_by(|one, other| one.0.cmp(&other.0));
    all
}

pub fn sysctl(spec: &Spec, linux: &Linux, findings: &mut Findings) {
    let Some(sysctl) = linux.sysctl() else {
        return;
    };
    let mut entries: Vec<_> = sysctl.iter().collect();
    entries.sort();
    for (key, value) in entries {
        let pointer = child("/linux/sysctl", key);
        let Some(path) = sysctl_path(key) else {
            let message = format!("{} is no sysctl", quote(key));
            findings.push(Finding::error(pointer, message));
            continue;
        };
        let Some((typ, name)) = owner(&path) else {
            let message = format!(
                "sysctl {key:?} is not in a separate kernel namespace: it would change the host"
            );
            let hint = did_you_mean(&path, known()).map(|hint| hint.replace('/', "."));
            findings.push(Finding::error(pointer, message).maybe_hint(hint));
            continue;
        };
        if namespace(Some(linux), typ) == Origin::Inherited {
            let article = if name == "ipc" { "an" } else { "a" };
            let message = format!(
                "sysctl {key:?} needs {article} {name} namespace: it would change the host"
            );
            let hint = format!("add {{\"type\": \"{name}\"}} to /linux/namespaces");
            findings.push(Finding::error(pointer, message).hint(hint));
            continue;
        }
        let (property, set) = match path.as_str() {
            "kernel/hostname" => ("hostname", spec.hostname()),
            "kernel/domainname" => ("domainname", spec.domainname()),
            _ => continue,
        };
        if let Some(set) = set.as_deref().filter(|set| !set.is_empty() && set != value) {
            let message = format!("sysctl {key:?} conflicts with /{property}, which is {set:?}");
            findings.push(Finding::error(pointer, message));
        }
    }
}

fn owner(path: &str) -> Option<(LinuxNamespaceType, &'static str)> {
    match path {
        "kernel/hostname" | "kernel/domainname" => Some((LinuxNamespaceType::Uts, "uts")),
        _ if path.starts_with("net/") => Some((LinuxNamespaceType::Network, "network")),
        _ if path.starts_with("fs/mqueue/") || IPC.contains(&path) => {
            Some((LinuxNamespaceType::Ipc, "ipc"))
        }
        _ => None,
    }
}

fn known() -> impl Iterator<Item = &'static str> {
    let uts = ["kernel/hostname", "kernel/domainname"];
    IPC.into_iter().chain(uts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_dots_and_in_slashes() {
        for (key, expected) in [
            ("net.ipv4.ip_forward", Some("net/ipv4/ip_forward")),
            ("net/ipv4/ip_forward", Some("net/ipv4/ip_forward")),
            (
                "net.ipv4.conf.eno2/100.rp_filter",
                Some("net/ipv4/conf/eno2.100/rp_filter"),
            ),
            (
                "net/ipv4/conf/eno2.100/rp_filter",
                Some("net/ipv4/conf/eno2.100/rp_filter"),
            ),
            ("net..ipv4", None),
            ("net/../kernel/panic", None),
            ("net.//.kernel.panic", None),
            ("/kernel/panic", None),
            ("kernel/", None),
            ("", None),
        ] {
            assert_eq!(sysctl_path(key).as_deref(), expected, "{key}");
        }
    }
}
