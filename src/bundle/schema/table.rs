//! config.json of runtime-spec 1.3 for Linux, as its JSON schemas have it.

use super::{Field, Kind, Need, Range};

/// All that the kernel (6.18) knows, without their prefix.
pub const CAPABILITIES: &str = "AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF \
    CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL \
    LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN NET_BIND_SERVICE NET_BROADCAST \
    NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_MODULE \
    SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG WAKE_ALARM";

const SECCOMP_ACTIONS: &str = "SCMP_ACT_KILL SCMP_ACT_KILL_PROCESS SCMP_ACT_KILL_THREAD \
    SCMP_ACT_TRAP SCMP_ACT_ERRNO SCMP_ACT_TRACE SCMP_ACT_ALLOW SCMP_ACT_LOG SCMP_ACT_NOTIFY";

/// `SCMP_ARCH_NATIVE` is the crate's and runc's.
const SECCOMP_ARCHITECTURES: &str = "SCMP_ARCH_NATIVE SCMP_ARCH_X86 SCMP_ARCH_X86_64 \
    SCMP_ARCH_X32 SCMP_ARCH_ARM SCMP_ARCH_AARCH64 SCMP_ARCH_LOONGARCH64 SCMP_ARCH_M68K \
    SCMP_ARCH_MIPS SCMP_ARCH_MIPS64 SCMP_ARCH_MIPS64N32 SCMP_ARCH_MIPSEL SCMP_ARCH_MIPSEL64 \
    SCMP_ARCH_MIPSEL64N32 SCMP_ARCH_PPC SCMP_ARCH_PPC64 SCMP_ARCH_PPC64LE SCMP_ARCH_S390 \
    SCMP_ARCH_S390X SCMP_ARCH_SH SCMP_ARCH_SHEB SCMP_ARCH_PARISC SCMP_ARCH_PARISC64 \
    SCMP_ARCH_RISCV64";

pub const CONFIG: Kind = Kind::Object(&[
    required("ociVersion", Kind::Text),
    required(
        "root",
        Kind::Object(&[
            required("path", Kind::Text),
            optional("readonly", Kind::Bool),
        ]),
    ),
    optional("mounts", Kind::List(&MOUNT)),
    optional("process", PROCESS),
    optional("hostname", Kind::Text),
    optional("domainname", Kind::Text),
    optional("hooks", HOOKS),
    optional("annotations", Kind::Map(&Kind::Text)),
    optional("linux", LINUX),
    optional("freebsd", Kind::Foreign),
    optional("solaris", Kind::Foreign),
    optional("vm", Kind::Foreign),
    optional("windows", Kind::Foreign),
    optional("zos", Kind::Foreign),
]);

pub const PROCESS: Kind = Kind::Object(&[
    optional("terminal", Kind::Bool),
    optional(
        "consoleSize",
        Kind::Object(&[expected("height", U64), expected("width", U64)]),
    ),
    optional(
        "user",
        Kind::Object(&[
            optional("uid", U32),
            optional("gid", U32),
            optional("umask", U32),
            optional("additionalGids", Kind::List(&U32)),
            optional("username", Kind::Text),
        ]),
    ),
    optional("args", TEXTS),
    optional("commandLine", Kind::Foreign),
    optional("env", TEXTS),
    required("cwd", Kind::Text),
    optional(
        "capabilities",
        Kind::Object(&[
            optional("bounding", Kind::Capabilities),
            optional("effective", Kind::Capabilities),
            optional("inheritable", Kind::Capabilities),
            optional("permitted", Kind::Capabilities),
            optional("ambient", Kind::Capabilities),
        ]),
    ),
    optional("rlimits", Kind::List(&RLIMIT)),
    optional("noNewPrivileges", Kind::Bool),
    optional("apparmorProfile", Kind::Text),
    optional("oomScoreAdj", I32),
    optional("selinuxLabel", Kind::Text),
    optional(
        "ioPriority",
        Kind::Object(&[
            expected(
                "class",
                name(
                    "I/O priority class",
                    "IOPRIO_CLASS_RT IOPRIO_CLASS_BE IOPRIO_CLASS_IDLE",
                ),
            ),
            optional("priority", I32),
        ]),
    ),
    optional("scheduler", SCHEDULER),
    optional(
        "execCPUAffinity",
        Kind::Object(&[
            optional("initial", Kind::Cpus),
            optional("final", Kind::Cpus),
        ]),
    ),
]);

const RLIMIT: Kind = Kind::Object(&[
    required(
        "type",
        name(
            "rlimit type",
            "RLIMIT_AS RLIMIT_CORE RLIMIT_CPU RLIMIT_DATA RLIMIT_FSIZE RLIMIT_LOCKS \
                 RLIMIT_MEMLOCK RLIMIT_MSGQUEUE RLIMIT_NICE RLIMIT_NOFILE RLIMIT_NPROC RLIMIT_RSS \
                 RLIMIT_RTPRIO RLIMIT_RTTIME RLIMIT_SIGPENDING RLIMIT_STACK",
        ),
    ),
    expected("soft", U64),
    expected("hard", U64),
]);

const SCHEDULER: Kind = Kind::Object(&[
    required(
        "policy",
        name(
            "scheduler policy",
            "SCHED_OTHER SCHED_FIFO SCHED_RR SCHED_BATCH SCHED_ISO SCHED_IDLE SCHED_DEADLINE",
        ),
    ),
    optional("nice", I32),
    optional("priority", I32),
    optional(
        "flags",
        Kind::List(&name(
            "scheduler flag",
            "SCHED_FLAG_RESET_ON_FORK SCHED_FLAG_RECLAIM SCHED_FLAG_DL_OVERRUN \
                 SCHED_FLAG_KEEP_POLICY SCHED_FLAG_KEEP_PARAMS SCHED_FLAG_UTIL_CLAMP_MIN \
                 SCHED_FLAG_UTIL_CLAMP_MAX",
        )),
    ),
    optional("runtime", U64),
    optional("deadline", U64),
    optional("period", U64),
]);

const MOUNT: Kind = Kind::Object(&[
    required("destination", Kind::Text),
    optional("type", Kind::Text),
    optional("source", Kind::Text),
    optional("options", TEXTS),
    optional("uidMappings", Kind::List(&ID_MAPPING)),
    optional("gidMappings", Kind::List(&ID_MAPPING)),
]);

const ID_MAPPING: Kind = Kind::Object(&[
    // Read as zero, a missing hostID would make the host's root the container's.
    required("containerID", U32),
    required("hostID", U32),
    required("size", U32),
]);

const HOOKS: Kind = Kind::Object(&[
    optional("prestart", STAGE),
    optional("createRuntime", STAGE),
    optional("createContainer", STAGE),
    optional("startContainer", STAGE),
    optional("poststart", STAGE),
    optional("poststop", STAGE),
]);

const LINUX: Kind = Kind::Object(&[
    optional("namespaces", Kind::List(&NAMESPACE)),
    optional("uidMappings", Kind::List(&ID_MAPPING)),
    optional("gidMappings", Kind::List(&ID_MAPPING)),
    optional(
        "timeOffsets",
        Kind::Map(&Kind::Object(&[
            optional("secs", I64),
            optional("nanosecs", U32),
        ])),
    ),
    optional("devices", Kind::List(&DEVICE)),
    optional(
        "netDevices",
        Kind::Map(&Kind::Object(&[optional("name", Kind::Text)])),
    ),
    optional("cgroupsPath", Kind::Text),
    optional("resources", RESOURCES),
    optional(
        "intelRdt",
        Kind::Object(&[
            optional("closID", Kind::Text),
            optional("schemata", TEXTS),
            optional("l3CacheSchema", Kind::Text),
            optional("memBwSchema", Kind::Text),
            optional("enableMonitoring", Kind::Bool),
        ]),
    ),
    optional("memoryPolicy", MEMORY_POLICY),
    optional("sysctl", Kind::Map(&Kind::Text)),
    optional("seccomp", SECCOMP),
    optional("rootfsPropagation", Kind::Text),
    optional("maskedPaths", TEXTS),
    optional("readonlyPaths", TEXTS),
    optional("mountLabel", Kind::Text),
    optional(
        "personality",
        Kind::Object(&[
            required("domain", name("personality domain", "LINUX LINUX32")),
            optional("flags", TEXTS),
        ]),
    ),
]);

const NAMESPACE: Kind = Kind::Object(&[
    required(
        "type",
        name(
            "namespace type",
            "pid network mount ipc uts user cgroup time",
        ),
    ),
    optional("path", Kind::Text),
]);

const DEVICE: Kind = Kind::Object(&[
    required("type", name("device type", "c b u p")),
    required("path", Kind::Text),
    optional("major", I64),
    optional("minor", I64),
    optional("fileMode", U32),
    optional("uid", U32),
    optional("gid", U32),
]);

const MEMORY_POLICY: Kind = Kind::Object(&[
    Field {
        name: "mode",
        kind: name(
            "memory policy mode",
            "MPOL_DEFAULT MPOL_BIND MPOL_INTERLEAVE MPOL_WEIGHTED_INTERLEAVE MPOL_PREFERRED \
                 MPOL_PREFERRED_MANY MPOL_LOCAL",
        ),
        need: Need::RequiredUnlessEmpty,
    },
    optional("nodes", Kind::Text),
    optional(
        "flags",
        Kind::List(&name(
            "memory policy flag",
            "MPOL_F_NUMA_BALANCING MPOL_F_RELATIVE_NODES MPOL_F_STATIC_NODES",
        )),
    ),
]);

const SECCOMP: Kind = Kind::Object(&[
    required("defaultAction", ACTION),
    optional("defaultErrnoRet", U32),
    optional(
        "architectures",
        Kind::List(&name("seccomp architecture", SECCOMP_ARCHITECTURES)),
    ),
    optional(
        "flags",
        Kind::List(&name(
            "seccomp flag",
            "SECCOMP_FILTER_FLAG_TSYNC SECCOMP_FILTER_FLAG_LOG SECCOMP_FILTER_FLAG_SPEC_ALLOW \
                 SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
        )),
    ),
    optional("listenerPath", Kind::Text),
    optional("listenerMetadata", Kind::Text),
    optional(
        "syscalls",
        Kind::List(&Kind::Object(&[
            required("names", TEXTS),
            required("action", ACTION),
            optional("errnoRet", U32),
            optional("args", Kind::List(&ARGUMENT)),
        ])),
    ),
]);

const RESOURCES: Kind = Kind::Object(&[
    optional(
        "devices",
        Kind::List(&Kind::Object(&[
            expected("allow", Kind::Bool),
            optional(
                "type",
                Kind::NameOrEmpty {
                    what: "device type",
                    known: "a b c",
                },
            ),
            optional("major", I64),
            optional("minor", I64),
            optional("access", Kind::Text),
        ])),
    ),
    optional("memory", MEMORY),
    optional("cpu", CPU),
    optional("pids", Kind::Object(&[expected("limit", I64)])),
    optional(
        "blockIO",
        Kind::Object(&[
            optional("weight", U16),
            optional("leafWeight", U16),
            optional(
                "weightDevice",
                Kind::List(&Kind::Object(&[
                    expected("major", I64),
                    expected("minor", I64),
                    optional("weight", U16),
                    optional("leafWeight", U16),
                ])),
            ),
            optional("throttleReadBpsDevice", THROTTLE),
            optional("throttleWriteBpsDevice", THROTTLE),
            optional("throttleReadIOPSDevice", THROTTLE),
            optional("throttleWriteIOPSDevice", THROTTLE),
        ]),
    ),
    optional(
        "hugepageLimits",
        Kind::List(&Kind::Object(&[
            required("pageSize", Kind::Text),
            expected("limit", U64),
        ])),
    ),
    optional(
        "network",
        Kind::Object(&[
            optional("classID", U32),
            optional(
                "priorities",
                Kind::List(&Kind::Object(&[
                    expected("name", Kind::Text),
                    expected("priority", U32),
                ])),
            ),
        ]),
    ),
    optional(
        "rdma",
        Kind::Map(&Kind::Object(&[
            optional("hcaHandles", U32),
            optional("hcaObjects", U32),
        ])),
    ),
    optional("unified", Kind::Map(&Kind::Text)),
]);

const MEMORY: Kind = Kind::Object(&[
    optional("limit", I64),
    optional("reservation", I64),
    optional("swap", I64),
    optional("kernel", I64),
    optional("kernelTCP", I64),
    optional("swappiness", U64),
    optional("disableOOMKiller", Kind::Bool),
    optional("useHierarchy", Kind::Bool),
    optional("checkBeforeUpdate", Kind::Bool),
]);

const CPU: Kind = Kind::Object(&[
    optional("shares", U64),
    optional("quota", I64),
    optional("burst", U64),
    optional("period", U64),
    optional("realtimeRuntime", I64),
    optional("realtimePeriod", U64),
    optional("cpus", Kind::Text),
    optional("mems", Kind::Text),
    optional("idle", I64),
]);

const ACTION: Kind = name("seccomp action", SECCOMP_ACTIONS);

const ARGUMENT: Kind = Kind::Object(&[
    required("index", U32),
    expected("value", U64),
    optional("valueTwo", U64),
    required(
        "op",
        name(
            "seccomp operator",
            "SCMP_CMP_NE SCMP_CMP_LT SCMP_CMP_LE SCMP_CMP_EQ SCMP_CMP_GE SCMP_CMP_GT \
                     SCMP_CMP_MASKED_EQ",
        ),
    ),
]);

const THROTTLE: Kind = Kind::List(&Kind::Object(&[
    expected("major", I64),
    expected("minor", I64),
    optional("rate", U64),
]));

const STAGE: Kind = Kind::List(&Kind::Object(&[
    required("path", Kind::Text),
    optional("args", TEXTS),
    optional("env", TEXTS),
    optional("timeout", I64),
]));

/// Is an array expected of this key? (No key has one in one place and an object in another.)
pub fn is_list(key: &[u8]) -> bool {
    matches!(
        key,
        b"additionalGids"
            | b"ambient"
            | b"architectures"
            | b"args"
            | b"bounding"
            | b"createContainer"
            | b"createRuntime"
            | b"devices"
            | b"effective"
            | b"env"
            | b"flags"
            | b"gidMappings"
            | b"hugepageLimits"
            | b"inheritable"
            | b"maskedPaths"
            | b"mounts"
            | b"names"
            | b"namespaces"
            | b"options"
            | b"permitted"
            | b"poststart"
            | b"poststop"
            | b"prestart"
            | b"priorities"
            | b"readonlyPaths"
            | b"rlimits"
            | b"schemata"
            | b"startContainer"
            | b"syscalls"
            | b"throttleReadBpsDevice"
            | b"throttleReadIOPSDevice"
            | b"throttleWriteBpsDevice"
            | b"throttleWriteIOPSDevice"
            | b"uidMappings"
            | b"weightDevice"
    )
}

const fn optional(name: &'static str, kind: Kind) -> Field {
    let need = Need::Optional;
    Field { name, kind, need }
}

const fn expected(name: &'static str, kind: Kind) -> Field {
    let need = Need::Expected;
    Field { name, kind, need }
}

/// The one place below config.json's objects that has a property of this name, as a pointer.
pub fn home(key: &str) -> Option<String> {
    fn search(fields: &[Field], key: &str, above: &str, found: &mut Vec<String>) {
        for field in fields {
            let pointer = format!("{above}/{}", field.name);
            if let Kind::Object(fields) = field.kind {
                search(fields, key, &pointer, found);
            }
            if field.name == key {
                found.push(pointer);
            }
        }
    }
    let mut found = Vec::new();
    if let Kind::Object(fields) = CONFIG {
        search(fields, key, "", &mut found);
    }
    match found.as_slice() {
        [_] => found.pop(),
        _ => None,
    }
}

const fn required(name: &'static str, kind: Kind) -> Field {
    let need = Need::Required;
    Field { name, kind, need }
}

const TEXTS: Kind = Kind::List(&Kind::Text);

const fn name(what: &'static str, known: &'static str) -> Kind {
    Kind::Name { what, known }
}

const fn integer(min: i128, max: i128, words: &'static str) -> Kind {
    Kind::Integer(Range { min, max, words })
}

const U16: Kind = integer(0, u16::MAX as i128, "an unsigned 16-bit number");

const U32: Kind = integer(0, u32::MAX as i128, "an unsigned 32-bit number");

const U64: Kind = integer(0, u64::MAX as i128, "an unsigned 64-bit number");

const I32: Kind = integer(i32::MIN as i128, i32::MAX as i128, "a 32-bit number");

const I64: Kind = integer(i64::MIN as i128, i64::MAX as i128, "a 64-bit number");

#[cfg(test)]
mod tests {
    use super::*;

    fn visit(kind: &Kind) {
        match kind {
            Kind::Object(fields) => {
                for field in *fields {
                    let list = matches!(field.kind, Kind::List(_) | Kind::Capabilities);
                    assert_eq!(is_list(field.name.as_bytes()), list, "{}", field.name);
                    visit(&field.kind);
                }
            }
            Kind::List(kind) | Kind::Map(kind) => visit(kind),
            _ => {}
        }
    }

    #[test]
    fn the_names_of_lists_are_those_of_the_table() {
        visit(&CONFIG);
    }
}
