//! What this machine, its kernel and this user have: for `features --host`. Nothing is tried out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nix::unistd::Uid;
use serde::Serialize;

use super::{host, ids, read};
use crate::cgroups::Hierarchy;

/// The controllers that config.json has limits for.
const CONTROLLERS: &[&str] = &["cpu", "cpuset", "hugetlb", "io", "memory", "pids", "rdma"];

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    pub kernel: String,
    pub architecture: &'static str,
    /// husk has all of root's privileges, outside of a user namespace.
    pub root: bool,
    /// Capabilities that husk lacks though it is root.
    pub missing_capabilities: Vec<String>,
    pub namespaces: BTreeMap<String, bool>,
    pub cgroup: Cgroup,
    pub mounts: Mounts,
    /// Actions of seccomp filters that the kernel knows; empty without filters.
    pub seccomp: Vec<String>,
    pub apparmor: bool,
    pub selinux: bool,
    pub resctrl: bool,
    pub systemd: bool,
    pub rootless: Rootless,
    /// What can't be done here, and why.
    pub missing: Vec<Missing>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cgroup {
    /// Where the cgroup2 tree is mounted.
    pub mount: Option<PathBuf>,
    pub controllers: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Mounts {
    pub overlay: bool,
    /// Linux 5.12; each filesystem must support it as well.
    pub idmap: bool,
    /// Overlays of many layers, Linux 6.8.
    pub many_layers: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rootless {
    pub newuidmap: bool,
    pub newgidmap: bool,
    /// First id and count, of /etc/subuid for this user.
    pub subordinate_uids: Vec<(u64, u64)>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Missing {
    /// What is not to be had.
    pub what: String,
    pub why: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Machine {
    pub fn see() -> Machine {
        let mut missing = Vec::new();
        let mut lacks = |what: &str, why: &str, hint: Option<String>| {
            missing.push(Missing {
                what: what.into(),
                why: why.into(),
                hint,
            });
        };
        let kernel = read("/proc/sys/kernel/osrelease").unwrap_or_default();
        let version = version(&kernel);
        if version < (5, 15) {
            lacks(
                "a supported kernel",
                &format!("this is Linux {kernel}, husk needs 5.15"),
                None,
            );
        }
        let namespaces: BTreeMap<String, bool> = host::namespaces_there().collect();
        for (name, there) in &namespaces {
            if !there {
                lacks(
                    &format!("{name} namespaces"),
                    "the kernel has none, or they are switched off",
                    None,
                );
            }
        }
        let mut cgroup = Cgroup {
            mount: None,
            controllers: Vec::new(),
        };
        match Hierarchy::find() {
            Ok(hierarchy) => {
                cgroup.mount = Some(hierarchy.mount().to_owned());
                for controller in CONTROLLERS {
                    if let Some((why, hint)) = hierarchy.lacks(controller) {
                        lacks(
                            &format!("limits of the {controller} controller"),
                            &why,
                            hint,
                        );
                    }
                }
                let file = hierarchy.mount().join("cgroup.controllers");
                let list = read(file).unwrap_or_default();
                cgroup.controllers = list.split_whitespace().map(str::to_owned).collect();
            }
            Err(error) => {
                let hint = error.remedy().map(str::to_owned);
                lacks("cgroups", &error.to_string(), hint);
            }
        }
        let filesystems = read("/proc/filesystems").unwrap_or_default();
        let overlay = filesystems.lines().any(|line| line.ends_with("\toverlay"));
        if !overlay {
            lacks(
                "overlay root filesystems",
                "the kernel has no overlay filesystem at the moment",
                Some("modprobe overlay".into()),
            );
        }
        let seccomp: Vec<String> = read("/proc/sys/kernel/seccomp/actions_avail")
            .unwrap_or_default()
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        if seccomp.is_empty() {
            lacks("seccomp filters", "the kernel was built without them", None);
        }
        let apparmor = host::has_apparmor();
        if !apparmor {
            lacks("process.apparmorProfile", "AppArmor is not enabled", None);
        }
        let selinux = host::has_filesystem_mounted("selinuxfs");
        if !selinux {
            lacks("process.selinuxLabel", "SELinux is not enabled", None);
        }
        let resctrl = host::has_filesystem_mounted("resctrl");
        if !resctrl {
            lacks("linux.intelRdt", "no resctrl is mounted", None);
        }
        let root = Uid::effective().is_root();
        let missing_capabilities: Vec<String> = match root {
            true => caps::all()
                .into_iter()
                .filter(|capability| !super::may(*capability))
                .map(|capability| capability.to_string())
                .collect(),
            false => Vec::new(),
        };
        if !missing_capabilities.is_empty() {
            lacks(
                "all of root's privileges",
                &format!("husk runs without {}", missing_capabilities.join(", ")),
                None,
            );
        }
        let rootless = Rootless {
            newuidmap: ids::is_on_path("newuidmap"),
            newgidmap: ids::is_on_path("newgidmap"),
            subordinate_uids: ids::granted("/etc/subuid"),
        };
        if !(root || rootless.newuidmap && rootless.newgidmap) {
            lacks(
                "mappings of more than the own id",
                "newuidmap or newgidmap is not installed",
                Some("apt-get install uidmap".into()),
            );
        }
        Machine {
            architecture: std::env::consts::ARCH,
            root: root
                && read("/proc/self/uid_map").is_none_or(|map| {
                    map.trim_start().starts_with("0 ") && map.ends_with("4294967295")
                }),
            missing_capabilities,
            namespaces,
            cgroup,
            mounts: Mounts {
                overlay,
                idmap: version >= (5, 12),
                many_layers: version >= (6, 8),
            },
            seccomp,
            apparmor,
            selinux,
            resctrl,
            systemd: Path::new("/run/systemd/system").exists(),
            rootless,
            missing,
            kernel,
        }
    }
}

/// Version and patch level.
pub fn version(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(['.', '-'])
        .map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}
