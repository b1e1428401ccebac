//! The config.json that `husk spec` writes.
//!
//! Types of its own, because those of oci-spec keep capabilities in a hash set and so
//! write them in another order each time.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;

use crate::commands::SPEC_VERSION;

type Text = Cow<'static, str>;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    oci_version: Text,
    process: Process,
    root: Root,
    hostname: Text,
    mounts: Vec<Mount>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    linux: Linux,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Process {
    terminal: bool,
    user: User,
    args: Vec<Text>,
    env: Vec<Text>,
    cwd: Text,
    capabilities: Capabilities,
    rlimits: Vec<Rlimit>,
    no_new_privileges: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub additional_gids: Vec<u32>,
}

#[derive(Serialize)]
struct Capabilities {
    bounding: Vec<Text>,
    effective: Vec<Text>,
    permitted: Vec<Text>,
}

#[derive(Serialize)]
struct Rlimit {
    #[serde(rename = "type")]
    kind: Text,
    hard: u64,
    soft: u64,
}

#[derive(Serialize)]
struct Root {
    path: Text,
    readonly: bool,
}

#[derive(Serialize)]
struct Mount {
    destination: Text,
    #[serde(rename = "type")]
    kind: Text,
    source: Text,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    options: Vec<Text>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    uid_mappings: Vec<Mapping>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gid_mappings: Vec<Mapping>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resources: Option<Resources>,
    namespaces: Vec<Namespace>,
    masked_paths: Vec<Text>,
    readonly_paths: Vec<Text>,
}

#[derive(Serialize)]
struct Mapping {
    #[serde(rename = "containerID")]
    container_id: u32,
    #[serde(rename = "hostID")]
    host_id: u32,
    size: u32,
}

#[derive(Serialize)]
struct Resources {
    devices: Vec<DeviceRule>,
}

#[derive(Serialize)]
struct DeviceRule {
    allow: bool,
    access: Text,
}

#[derive(Serialize)]
struct Namespace {
    #[serde(rename = "type")]
    kind: Text,
}

impl Default for Spec {
    fn default() -> Self {
        Spec {
            oci_version: SPEC_VERSION.into(),
            process: Process {
                terminal: true,
                user: User {
                    uid: 0,
                    gid: 0,
                    additional_gids: Vec::new(),
                },
                args: texts(&["sh"]),
                env: texts(&[
                    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                    "TERM=xterm",
                ]),
                cwd: "/".into(),
                capabilities: Capabilities {
                    bounding: texts(CAPABILITIES),
                    effective: texts(CAPABILITIES),
                    permitted: texts(CAPABILITIES),
                },
                rlimits: vec![Rlimit {
                    kind: "RLIMIT_NOFILE".into(),
                    hard: 1024,
                    soft: 1024,
                }],
                no_new_privileges: true,
            },
            root: Root {
                path: "rootfs".into(),
                readonly: true,
            },
            hostname: "husk".into(),
            mounts: MOUNTS.iter().map(Mount::new).collect(),
            annotations: BTreeMap::new(),
            linux: Linux {
                uid_mappings: Vec::new(),
                gid_mappings: Vec::new(),
                resources: Some(Resources {
                    devices: vec![DeviceRule {
                        allow: false,
                        access: "rwm".into(),
                    }],
                }),
                namespaces: ["pid", "network", "ipc", "uts", "mount", "cgroup"]
                    .map(Namespace::new)
                    .into(),
                masked_paths: texts(MASKED),
                readonly_paths: texts(READONLY),
            },
        }
    }
}

impl Spec {
    /// A program of its own is run without a terminal: it need not be a shell.
    pub fn set_arguments(&mut self, args: Vec<String>) {
        self.process.args = args.into_iter().map(Text::from).collect();
        self.process.terminal = false;
    }

    /// `NAME=value`, in place of one of that name.
    pub fn set_variable(&mut self, entry: String) {
        let name = entry.split('=').next().unwrap_or_default().to_owned();
        let same = |other: &Text| other.split('=').next() == Some(&name);
        match self.process.env.iter().position(same) {
            Some(at) => self.process.env[at] = entry.into(),
            None => self.process.env.push(entry.into()),
        }
    }

    pub fn set_directory(&mut self, path: String) {
        self.process.cwd = path.into();
    }

    pub fn set_user(&mut self, user: User) {
        self.process.user = user;
    }

    /// Data that shall not be written into the image: in memory, with what the image has there.
    pub fn add_volume(&mut self, destination: String) {
        self.mounts.push(Mount {
            destination: destination.into(),
            kind: "tmpfs".into(),
            source: "tmpfs".into(),
            options: texts(&["nosuid", "nodev", "tmpcopyup"]),
        });
    }

    pub fn set_annotations(&mut self, annotations: BTreeMap<String, String>) {
        self.annotations = annotations;
    }

    /// What an ordinary user can have: the own ids as root in a user namespace, the host's
    /// network with its sysfs (a new sysfs needs a network namespace of one's own), no
    /// limits, no other user's or group's files.
    pub fn into_rootless(mut self, uid: u32, gid: u32) -> Self {
        let linux = &mut self.linux;
        linux.namespaces.retain(|ns| ns.kind != "network");
        linux.namespaces.push(Namespace::new("user"));
        linux.uid_mappings = vec![Mapping::one(uid)];
        linux.gid_mappings = vec![Mapping::one(gid)];
        linux.resources = None;
        for mount in &mut self.mounts {
            if mount.destination == "/sys" {
                mount.kind = "none".into();
                mount.source = "/sys".into();
                mount.options.insert(0, "rbind".into());
            }
            mount
                .options
                .retain(|option| !option.starts_with("uid=") && !option.starts_with("gid="));
        }
        self
    }
}

impl Mount {
    fn new(&(destination, kind, source, options): &Row) -> Self {
        Mount {
            destination: destination.into(),
            kind: kind.into(),
            source: source.into(),
            options: texts(options),
        }
    }
}

impl Mapping {
    fn one(host_id: u32) -> Self {
        Mapping {
            container_id: 0,
            host_id,
            size: 1,
        }
    }
}

impl Namespace {
    fn new(kind: &'static str) -> Self {
        Namespace { kind: kind.into() }
    }
}

fn texts(list: &[&'static str]) -> Vec<Text> {
    list.iter().map(|&text| text.into()).collect()
}

const CAPABILITIES: &[&str] = &["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];

/// Destination, type, source, options.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    &'static [&'static str],
);

const MOUNTS: [Row; 7] = [
    ("/proc", "proc", "proc", &[]),
    (
        "/dev",
        "tmpfs",
        "tmpfs",
        &["nosuid", "strictatime", "mode=755", "size=65536k"],
    ),
    (
        "/dev/pts",
        "devpts",
        "devpts",
        &[
            "nosuid",
            "noexec",
            "newinstance",
            "ptmxmode=0666",
            "mode=0620",
            "gid=5",
        ],
    ),
    (
        "/dev/shm",
        "tmpfs",
        "shm",
        &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
    ),
    (
        "/dev/mqueue",
        "mqueue",
        "mqueue",
        &["nosuid", "noexec", "nodev"],
    ),
    (
        "/sys",
        "sysfs",
        "sysfs",
        &["nosuid", "noexec", "nodev", "ro"],
    ),
    (
        "/sys/fs/cgroup",
        "cgroup",
        "cgroup",
        &["nosuid", "noexec", "nodev", "relatime", "ro"],
    ),
];

const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/proc/scsi",
    "/sys/devices/virtual/tpm",
];

const READONLY: &[&str] = &[
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];
