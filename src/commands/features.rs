//! What husk supports, independent of the host (runtime-spec, features.md).
//!
//! Everything in these lists is accepted in a config.json and does what it says;
//! an empty list says "none", where an absent one would say "unknown".

use std::collections::BTreeMap;

use serde::Serialize;

use super::form::{Form, Format};
use super::{COMMIT, Global, SPEC_VERSION, VERSION, print};
use crate::cgroups::systemd;
use crate::criu;
use crate::preflight::Machine;
use crate::rootfs::options;

mod host;

/// What annotations that husk acts on begin with: who may write them gives it orders.
pub(super) const OBEYED: &[&str] = &["run.husk.", systemd::ANNOTATIONS, criu::CONFIG_ANNOTATION];

const HOOKS: &[&str] = &[
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];

const NAMESPACES: &[&str] = &[
    "cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts",
];

const CAPABILITIES: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

const SECCOMP_ACTIONS: &[&str] = &[
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];

const SECCOMP_OPERATORS: &[&str] = &[
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];

/// Those with a table of system calls.
const SECCOMP_ARCHS: &[&str] = &[
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_LOONGARCH64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
];

const SECCOMP_FLAGS: &[&str] = &[
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];

const MEMORY_POLICY_MODES: &[&str] = &[
    "MPOL_BIND",
    "MPOL_DEFAULT",
    "MPOL_INTERLEAVE",
    "MPOL_LOCAL",
    "MPOL_PREFERRED",
    "MPOL_PREFERRED_MANY",
    "MPOL_WEIGHTED_INTERLEAVE",
];

const MEMORY_POLICY_FLAGS: &[&str] = &[
    "MPOL_F_NUMA_BALANCING",
    "MPOL_F_RELATIVE_NODES",
    "MPOL_F_STATIC_NODES",
];

#[derive(clap::Args, Debug, Clone, PartialEq, Eq)]
#[group(skip)]
pub struct Args {
    /// Instead: what this machine, its kernel and this user have, and what is missing for what
    #[arg(long)]
    pub host: bool,
    #[command(flatten)]
    pub form: Form,
}

pub fn run(args: Args, _global: &Global) -> anyhow::Result<u8> {
    if args.host {
        let machine = Machine::see();
        let text = match args.form.format {
            Format::Text => host::to_text(&machine),
            Format::Json => serde_json::to_string_pretty(&machine)? + "\n",
        };
        return Ok(print(&text)?);
    }
    let mut text = serde_json::to_string_pretty(&features())?;
    text.push('\n');
    Ok(print(&text)?)
}

type List = &'static [&'static str];

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Features {
    oci_version_min: &'static str,
    oci_version_max: &'static str,
    hooks: List,
    mount_options: Vec<String>,
    linux: Linux,
    annotations: BTreeMap<&'static str, &'static str>,
    potentially_unsafe_config_annotations: List,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    namespaces: List,
    capabilities: List,
    cgroup: Cgroup,
    seccomp: Seccomp,
    apparmor: Enabled,
    selinux: Enabled,
    intel_rdt: IntelRdt,
    memory_policy: MemoryPolicy,
    mount_extensions: MountExtensions,
    net_devices: Enabled,
}

#[derive(Serialize)]
struct Enabled {
    enabled: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Cgroup {
    v1: bool,
    v2: bool,
    systemd: bool,
    systemd_user: bool,
    rdma: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Seccomp {
    enabled: bool,
    actions: List,
    operators: List,
    archs: List,
    known_flags: List,
    supported_flags: List,
}

#[derive(Serialize)]
struct IntelRdt {
    enabled: bool,
    schemata: bool,
    monitoring: bool,
}

#[derive(Serialize)]
struct MemoryPolicy {
    modes: List,
    flags: List,
}

#[derive(Serialize)]
struct MountExtensions {
    idmap: Enabled,
}

fn features() -> Features {
    Features {
        oci_version_min: "1.0.0",
        oci_version_max: SPEC_VERSION,
        hooks: HOOKS,
        mount_options: options::known(),
        linux: Linux {
            namespaces: NAMESPACES,
            capabilities: CAPABILITIES,
            cgroup: Cgroup {
                v1: false,
                v2: true,
                systemd: true,
                systemd_user: true,
                rdma: true,
            },
            seccomp: Seccomp {
                enabled: true,
                actions: SECCOMP_ACTIONS,
                operators: SECCOMP_OPERATORS,
                archs: SECCOMP_ARCHS,
                known_flags: SECCOMP_FLAGS,
                supported_flags: SECCOMP_FLAGS,
            },
            apparmor: Enabled { enabled: true },
            selinux: Enabled { enabled: true },
            intel_rdt: IntelRdt {
                enabled: true,
                schemata: true,
                monitoring: true,
            },
            memory_policy: MemoryPolicy {
                modes: MEMORY_POLICY_MODES,
                flags: MEMORY_POLICY_FLAGS,
            },
            mount_extensions: MountExtensions {
                idmap: Enabled { enabled: true },
            },
            net_devices: Enabled { enabled: true },
        },
        annotations: BTreeMap::from([("run.husk.commit", COMMIT), ("run.husk.version", VERSION)]),
        potentially_unsafe_config_annotations: OBEYED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// Engines read it into the specification's types; every member must be understood.
    #[test]
    fn reads_back_as_the_specifications_type() {
        let value = serde_json::to_value(features()).unwrap();
        let parsed: oci_spec::runtime::Features = serde_json::from_value(value.clone()).unwrap();
        assert_eq!(parsed.oci_version_min(), "1.0.0");
        assert_eq!(parsed.oci_version_max(), "1.3.0");
        let sorted = |mut value: serde_json::Value| {
            sort(&mut value);
            value
        };
        assert_eq!(
            sorted(serde_json::to_value(&parsed).unwrap()),
            sorted(value),
            "a member is not in the specification's type"
        );
    }

    fn sort(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Array(list) => list.sort_by_key(ToString::to_string),
            serde_json::Value::Object(map) => map.values_mut().for_each(sort),
            _ => {}
        }
    }

    #[test]
    fn lists_hold_nothing_twice() {
        for list in [
            HOOKS,
            NAMESPACES,
            CAPABILITIES,
            SECCOMP_ACTIONS,
            SECCOMP_OPERATORS,
            SECCOMP_ARCHS,
            SECCOMP_FLAGS,
            MEMORY_POLICY_MODES,
            MEMORY_POLICY_FLAGS,
        ] {
            assert_eq!(list.iter().collect::<HashSet<_>>().len(), list.len());
        }
    }

    #[test]
    fn capabilities_are_those_of_the_caps_crate() {
        let known: HashSet<String> = caps::all().iter().map(ToString::to_string).collect();
        let listed: HashSet<String> = CAPABILITIES.iter().map(ToString::to_string).collect();
        assert_eq!(listed, known);
    }
}
