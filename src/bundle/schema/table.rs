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

pub fn config() -> Kind {
    object([
        required("ociVersion", Kind::Text),
        required(
            "root",
            object([
                required("path", Kind::Text),
                optional("readonly", Kind::Bool),
            ]),
        ),
        optional("mounts", list(mount())),
        optional("process", process()),
        optional("hostname", Kind::Text),
        optional("domainname", Kind::Text),
        optional("hooks", hooks()),
        optional("annotations", map(Kind::Text)),
        optional("linux", linux()),
        optional("freebsd", Kind::Foreign),
        optional("solaris", Kind::Foreign),
        optional("vm", Kind::Foreign),
        optional("windows", Kind::Foreign),
        optional("zos", Kind::Foreign),
    ])
}

pub fn process() -> Kind {
    object([
        optional("terminal", Kind::Bool),
        optional(
            "consoleSize",
            object([expected("height", u64()), expected("width", u64())]),
        ),
        optional(
            "user",
            object([
                optional("uid", u32()),
                optional("gid", u32()),
                optional("umask", u32()),
                optional("additionalGids", list(u32())),
                optional("username", Kind::Text),
            ]),
        ),
        optional("args", texts()),
        optional("commandLine", Kind::Foreign),
        optional("env", texts()),
        required("cwd", Kind::Text),
        optional(
            "capabilities",
            object(
                [
                    "bounding",
                    "effective",
                    "inheritable",
                    "permitted",
                    "ambient",
                ]
                .map(|set| optional(set, Kind::Capabilities)),
            ),
        ),
        optional("rlimits", list(rlimit())),
        optional("noNewPrivileges", Kind::Bool),
        optional("apparmorProfile", Kind::Text),
        optional("oomScoreAdj", i32()),
        optional("selinuxLabel", Kind::Text),
        optional(
            "ioPriority",
            object([
                expected(
                    "class",
                    name(
                        "I/O priority class",
                        "IOPRIO_CLASS_RT IOPRIO_CLASS_BE IOPRIO_CLASS_IDLE",
                    ),
                ),
                optional("priority", i32()),
            ]),
        ),
        optional("scheduler", scheduler()),
        optional(
            "execCPUAffinity",
            object([
                optional("initial", Kind::Cpus),
                optional("final", Kind::Cpus),
            ]),
        ),
    ])
}

fn rlimit() -> Kind {
    object([
        required(
            "type",
            name(
                "rlimit type",
                "RLIMIT_AS RLIMIT_CORE RLIMIT_CPU RLIMIT_DATA RLIMIT_FSIZE RLIMIT_LOCKS \
                 RLIMIT_MEMLOCK RLIMIT_MSGQUEUE RLIMIT_NICE RLIMIT_NOFILE RLIMIT_NPROC RLIMIT_RSS \
                 RLIMIT_RTPRIO RLIMIT_RTTIME RLIMIT_SIGPENDING RLIMIT_STACK",
            ),
        ),
        expected("soft", u64()),
        expected("hard", u64()),
    ])
}

fn scheduler() -> Kind {
    object([
        required(
            "policy",
            name(
                "scheduler policy",
                "SCHED_OTHER SCHED_FIFO SCHED_RR SCHED_BATCH SCHED_ISO SCHED_IDLE SCHED_DEADLINE",
            ),
        ),
        optional("nice", i32()),
        optional("priority", i32()),
        optional(
            "flags",
            list(name(
                "scheduler flag",
                "SCHED_FLAG_RESET_ON_FORK SCHED_FLAG_RECLAIM SCHED_FLAG_DL_OVERRUN \
                 SCHED_FLAG_KEEP_POLICY SCHED_FLAG_KEEP_PARAMS SCHED_FLAG_UTIL_CLAMP_MIN \
                 SCHED_FLAG_UTIL_CLAMP_MAX",
            )),
        ),
        optional("runtime", u64()),
        optional("deadline", u64()),
        optional("period", u64()),
    ])
}

fn mount() -> Kind {
    object([
        required("destination", Kind::Text),
        optional("type", Kind::Text),
        optional("source", Kind::Text),
        optional("options", texts()),
        optional("uidMappings", list(id_mapping())),
        optional("gidMappings", list(id_mapping())),
    ])
}

fn id_mapping() -> Kind {
    object([
        // Read as zero, a missing hostID would make the host's root the container's.
        required("containerID", u32()),
        required("hostID", u32()),
        required("size", u32()),
    ])
}

fn hooks() -> Kind {
    let hook = || {
        object([
            required("path", Kind::Text),
            optional("args", texts()),
            optional("env", texts()),
            optional("timeout", i64()),
        ])
    };
    object(
        [
            "prestart",
            "createRuntime",
            "createContainer",
            "startContainer",
            "poststart",
            "poststop",
        ]
        .map(|stage| optional(stage, list(hook()))),
    )
}

fn linux() -> Kind {
    let offset = || object([optional("secs", i64()), optional("nanosecs", u32())]);
    object([
        optional("namespaces", list(namespace())),
        optional("uidMappings", list(id_mapping())),
        optional("gidMappings", list(id_mapping())),
        optional("timeOffsets", map(offset())),
        optional("devices", list(device())),
        optional("netDevices", map(object([optional("name", Kind::Text)]))),
        optional("cgroupsPath", Kind::Text),
        optional("resources", resources()),
        optional(
            "intelRdt",
            object([
                optional("closID", Kind::Text),
                optional("schemata", texts()),
                optional("l3CacheSchema", Kind::Text),
                optional("memBwSchema", Kind::Text),
                optional("enableMonitoring", Kind::Bool),
            ]),
        ),
        optional("memoryPolicy", memory_policy()),
        optional("sysctl", map(Kind::Text)),
        optional("seccomp", seccomp()),
        optional("rootfsPropagation", Kind::Text),
        optional("maskedPaths", texts()),
        optional("readonlyPaths", texts()),
        optional("mountLabel", Kind::Text),
        optional(
            "personality",
            object([
                required("domain", name("personality domain", "LINUX LINUX32")),
                optional("flags", texts()),
            ]),
        ),
    ])
}

fn namespace() -> Kind {
    object([
        required(
            "type",
            name(
                "namespace type",
                "pid network mount ipc uts user cgroup time",
            ),
        ),
        optional("path", Kind::Text),
    ])
}

fn device() -> Kind {
    object([
        required("type", name("device type", "c b u p")),
        required("path", Kind::Text),
        optional("major", i64()),
        optional("minor", i64()),
        optional("fileMode", u32()),
        optional("uid", u32()),
        optional("gid", u32()),
    ])
}

fn memory_policy() -> Kind {
    let modes = "MPOL_DEFAULT MPOL_BIND MPOL_INTERLEAVE MPOL_WEIGHTED_INTERLEAVE MPOL_PREFERRED \
                 MPOL_PREFERRED_MANY MPOL_LOCAL";
    object([
        Field {
            name: "mode",
            kind: name("memory policy mode", modes),
            need: Need::RequiredUnlessEmpty,
        },
        optional("nodes", Kind::Text),
        optional(
            "flags",
            list(name(
                "memory policy flag",
                "MPOL_F_NUMA_BALANCING MPOL_F_RELATIVE_NODES MPOL_F_STATIC_NODES",
            )),
        ),
    ])
}

fn seccomp() -> Kind {
    let action = || name("seccomp action", SECCOMP_ACTIONS);
    let argument = || {
        object([
            required("index", u32()),
            expected("value", u64()),
            optional("valueTwo", u64()),
            required(
                "op",
                name(
                    "seccomp operator",
                    "SCMP_CMP_NE SCMP_CMP_LT SCMP_CMP_LE SCMP_CMP_EQ SCMP_CMP_GE SCMP_CMP_GT \
                     SCMP_CMP_MASKED_EQ",
                ),
            ),
        ])
    };
    object([
        required("defaultAction", action()),
        optional("defaultErrnoRet", u32()),
        optional(
            "architectures",
            list(name("seccomp architecture", SECCOMP_ARCHITECTURES)),
        ),
        optional(
            "flags",
            list(name(
                "seccomp flag",
                "SECCOMP_FILTER_FLAG_TSYNC SECCOMP_FILTER_FLAG_LOG SECCOMP_FILTER_FLAG_SPEC_ALLOW \
                 SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
            )),
        ),
        optional("listenerPath", Kind::Text),
        optional("listenerMetadata", Kind::Text),
        optional(
            "syscalls",
            list(object([
                required("names", texts()),
                required("action", action()),
                optional("errnoRet", u32()),
                optional("args", list(argument())),
            ])),
        ),
    ])
}

fn resources() -> Kind {
    let throttle = || {
        list(object([
            expected("major", i64()),
            expected("minor", i64()),
            optional("rate", u64()),
        ]))
    };
    object([
        optional(
            "devices",
            list(object([
                expected("allow", Kind::Bool),
                optional(
                    "type",
                    Kind::NameOrEmpty {
                        what: "device type",
                        known: "a b c",
                    },
                ),
                optional("major", i64()),
                optional("minor", i64()),
                optional("access", Kind::Text),
            ])),
        ),
        optional("memory", memory()),
        optional("cpu", cpu()),
        optional("pids", object([expected("limit", i64())])),
        optional(
            "blockIO",
            object([
                optional("weight", u16()),
                optional("leafWeight", u16()),
                optional(
                    "weightDevice",
                    list(object([
                        expected("major", i64()),
                        expected("minor", i64()),
                        optional("weight", u16()),
                        optional("leafWeight", u16()),
                    ])),
                ),
                optional("throttleReadBpsDevice", throttle()),
                optional("throttleWriteBpsDevice", throttle()),
                optional("throttleReadIOPSDevice", throttle()),
                optional("throttleWriteIOPSDevice", throttle()),
            ]),
        ),
        optional(
            "hugepageLimits",
            list(object([
                required("pageSize", Kind::Text),
                expected("limit", u64()),
            ])),
        ),
        optional(
            "network",
            object([
                optional("classID", u32()),
                optional(
                    "priorities",
                    list(object([
                        expected("name", Kind::Text),
                        expected("priority", u32()),
                    ])),
                ),
            ]),
        ),
        optional(
            "rdma",
            map(object([
                optional("hcaHandles", u32()),
                optional("hcaObjects", u32()),
            ])),
        ),
        optional("unified", map(Kind::Text)),
    ])
}

fn memory() -> Kind {
    object([
        optional("limit", i64()),
        optional("reservation", i64()),
        optional("swap", i64()),
        optional("kernel", i64()),
        optional("kernelTCP", i64()),
        optional("swappiness", u64()),
        optional("disableOOMKiller", Kind::Bool),
        optional("useHierarchy", Kind::Bool),
        optional("checkBeforeUpdate", Kind::Bool),
    ])
}

fn cpu() -> Kind {
    object([
        optional("shares", u64()),
        optional("quota", i64()),
        optional("burst", u64()),
        optional("period", u64()),
        optional("realtimeRuntime", i64()),
        optional("realtimePeriod", u64()),
        optional("cpus", Kind::Text),
        optional("mems", Kind::Text),
        optional("idle", i64()),
    ])
}

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

fn optional(name: &'static str, kind: Kind) -> Field {
    let need = Need::Optional;
    Field { name, kind, need }
}

fn expected(name: &'static str, kind: Kind) -> Field {
    let need = Need::Expected;
    Field { name, kind, need }
}

/// The one place below config.json's objects that has a property of this name, as a pointer.
pub fn home(key: &str) -> Option<String> {
    fn search(fields: &[Field], key: &str, above: &str, found: &mut Vec<String>) {
        for field in fields {
            let pointer = format!("{above}/{}", field.name);
            if let Kind::Object(fields) = &field.kind {
                search(fields, key, &pointer, found);
            }
            if field.name == key {
                found.push(pointer);
            }
        }
    }
    let mut found = Vec::new();
    if let Kind::Object(fields) = &config() {
        search(fields, key, "", &mut found);
    }
    match found.as_slice() {
        [_] => found.pop(),
        _ => None,
    }
}

fn required(name: &'static str, kind: Kind) -> Field {
    let need = Need::Required;
    Field { name, kind, need }
}

fn object<const N: usize>(fields: [Field; N]) -> Kind {
    Kind::Object(fields.into())
}

fn list(kind: Kind) -> Kind {
    Kind::List(Box::new(kind))
}

fn map(kind: Kind) -> Kind {
    Kind::Map(Box::new(kind))
}

fn texts() -> Kind {
    list(Kind::Text)
}

fn name(what: &'static str, known: &'static str) -> Kind {
    Kind::Name { what, known }
}

fn integer(min: i128, max: i128, words: &'static str) -> Kind {
    Kind::Integer(Range { min, max, words })
}

fn u16() -> Kind {
    integer(0, u16::MAX.into(), "an unsigned 16-bit number")
}

fn u32() -> Kind {
    integer(0, u32::MAX.into(), "an unsigned 32-bit number")
}

fn u64() -> Kind {
    integer(0, u64::MAX.into(), "an unsigned 64-bit number")
}

fn i32() -> Kind {
    integer(i32::MIN.into(), i32::MAX.into(), "a 32-bit number")
}

fn i64() -> Kind {
    integer(i64::MIN.into(), i64::MAX.into(), "a 64-bit number")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visit(kind: &Kind) {
        match kind {
            Kind::Object(fields) => {
                for field in fields {
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
        visit(&config());
    }
}
