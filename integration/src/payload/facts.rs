//! Everything a process can say about itself.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::RawFd;

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd;
use serde_json::{Value, json};

pub fn all() -> Value {
    let status = status();
    let uname = nix::sys::utsname::uname().ok();
    let text = |s: &std::ffi::OsStr| s.to_string_lossy().into_owned();
    let mut facts = json!({
        "pid": std::process::id(),
        "ppid": std::os::unix::process::parent_id(),
        "sid": unistd::getsid(None).map_or(-1, |pid| pid.as_raw()),
        "pgid": unistd::getpgrp().as_raw(),
        "uid": unistd::getuid().as_raw(),
        "euid": unistd::geteuid().as_raw(),
        "gid": unistd::getgid().as_raw(),
        "egid": unistd::getegid().as_raw(),
        "groups": unistd::getgroups().unwrap_or_default().iter().map(|g| g.as_raw()).collect::<Vec<_>>(),
        "caps": caps(&status),
        "nnp": number(&status, "NoNewPrivs"),
        "seccomp": number(&status, "Seccomp"),
        "seccomp_filters": number(&status, "Seccomp_filters"),
        "threads": number(&status, "Threads"),
        "umask": umask(),
        "signals": {
            "blocked": status.get("SigBlk"),
            "ignored": status.get("SigIgn"),
        },
        "cwd": std::env::current_dir().map(|p| text(p.as_os_str())).unwrap_or_default(),
        "exe": fs::read_link("/proc/self/exe").map(|p| text(p.as_os_str())).ok(),
        "comm": line("/proc/self/comm"),
        "args": std::env::args_os().map(|a| text(&a)).collect::<Vec<_>>(),
        "env": std::env::vars_os().map(|(k, v)| json!([text(&k), text(&v)])).collect::<Vec<_>>(),
        "fds": fds(),
        "mounts": mounts(),
        "ns": namespaces(),
        "tty": (0..3).map(tty).collect::<Vec<_>>(),
    });
    let surroundings = json!({
        "hostname": uname.as_ref().map(|u| text(u.nodename())),
        "domainname": uname.as_ref().map(|u| text(u.domainname())),
        "machine": uname.as_ref().map(|u| text(u.machine())),
        "rlimits": rlimits(),
        "oom_score_adj": line("/proc/self/oom_score_adj").and_then(|s| s.parse::<i64>().ok()),
        "personality": line("/proc/self/personality"),
        "apparmor": line("/proc/self/attr/current"),
        "scheduler": scheduler(),
        "memory_policy": memory_policy(),
        "cgroup": cgroup(),
        "timens_offsets": line("/proc/self/timens_offsets"),
        "uid_map": fs::read_to_string("/proc/self/uid_map").ok(),
        "gid_map": fs::read_to_string("/proc/self/gid_map").ok(),
        "setgroups": line("/proc/self/setgroups"),
        "controlling_tty": unistd::tcgetpgrp(std::io::stdin()).ok().map(|p| p.as_raw()),
        "dumpable": prctl(libc::PR_GET_DUMPABLE),
        "pdeathsig": pdeathsig(),
        "subreaper": subreaper(),
        "keyring": keyring(),
    });
    for (key, value) in surroundings.as_object().into_iter().flatten() {
        facts[key] = value.clone();
    }
    facts
}

fn line(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim_end_matches(['\n', '\0']).to_owned())
}

fn status() -> BTreeMap<String, String> {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
        .collect()
}

fn number(status: &BTreeMap<String, String>, key: &str) -> Option<u64> {
    status.get(key)?.parse().ok()
}

fn caps(status: &BTreeMap<String, String>) -> Value {
    let set = |key: &str| {
        let bits = status
            .get(key)
            .and_then(|hex| u64::from_str_radix(hex, 16).ok())
            .unwrap_or(0);
        (0..64)
            .filter(|n| bits & (1 << n) != 0)
            .map(|n| {
                CAPS.get(n)
                    .map_or(format!("CAP_{n}"), |c| format!("CAP_{c}"))
            })
            .collect::<Vec<_>>()
    };
    json!({
        "inheritable": set("CapInh"),
        "permitted": set("CapPrm"),
        "effective": set("CapEff"),
        "bounding": set("CapBnd"),
        "ambient": set("CapAmb"),
    })
}

/// In the kernel's order (include/uapi/linux/capability.h).
const CAPS: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

fn umask() -> u32 {
    use nix::sys::stat::{Mode, umask};
    let old = umask(Mode::empty());
    umask(old);
    old.bits()
}

fn rlimits() -> Value {
    let all = [
        ("RLIMIT_AS", Resource::RLIMIT_AS),
        ("RLIMIT_CORE", Resource::RLIMIT_CORE),
        ("RLIMIT_CPU", Resource::RLIMIT_CPU),
        ("RLIMIT_DATA", Resource::RLIMIT_DATA),
        ("RLIMIT_FSIZE", Resource::RLIMIT_FSIZE),
        ("RLIMIT_LOCKS", Resource::RLIMIT_LOCKS),
        ("RLIMIT_MEMLOCK", Resource::RLIMIT_MEMLOCK),
        ("RLIMIT_MSGQUEUE", Resource::RLIMIT_MSGQUEUE),
        ("RLIMIT_NICE", Resource::RLIMIT_NICE),
        ("RLIMIT_NOFILE", Resource::RLIMIT_NOFILE),
        ("RLIMIT_NPROC", Resource::RLIMIT_NPROC),
        ("RLIMIT_RSS", Resource::RLIMIT_RSS),
        ("RLIMIT_RTPRIO", Resource::RLIMIT_RTPRIO),
        ("RLIMIT_RTTIME", Resource::RLIMIT_RTTIME),
        ("RLIMIT_SIGPENDING", Resource::RLIMIT_SIGPENDING),
        ("RLIMIT_STACK", Resource::RLIMIT_STACK),
    ];
    all.iter()
        .filter_map(|(name, resource)| {
            let (soft, hard) = getrlimit(*resource).ok()?;
            Some(((*name).to_owned(), json!({ "soft": soft, "hard": hard })))
        })
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn scheduler() -> Value {
    // SAFETY: these calls take numbers and return numbers. musl's own function is a stub.
    let policy = unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) };
    // SAFETY: as above; `which` 0 is PRIO_PROCESS, `who` 0 the caller.
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    // SAFETY: as above; 1 is IOPRIO_WHO_PROCESS.
    let ioprio = unsafe { libc::syscall(libc::SYS_ioprio_get, 1, 0) };
    let cpus = nix::sched::sched_getaffinity(unistd::Pid::this()).map(|set| {
        (0..nix::sched::CpuSet::count())
            .filter(|cpu| set.is_set(*cpu).unwrap_or(false))
            .collect::<Vec<_>>()
    });
    json!({
        "policy": policy,
        "attributes": scheduler_attributes(),
        "nice": nice,
        "ioprio_class": ioprio >> 13,
        "ioprio_data": ioprio & 0x1fff,
        "cpus": cpus.unwrap_or_default(),
    })
}

/// What sched_getattr(2) says: flags, nice, priority, and the three times.
fn scheduler_attributes() -> Value {
    let mut words = [0u64; 7];
    // SAFETY: the kernel writes at most the 56 bytes that it is told of.
    let done = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, words.as_mut_ptr(), 56, 0) };
    match done {
        0 => json!({
            "flags": words[1],
            "nice": words[2] as u32 as i32,
            "priority": words[2] >> 32,
            "runtime": words[3],
            "deadline": words[4],
            "period": words[5],
        }),
        _ => Value::Null,
    }
}

/// Mode with flags, and the first 64 nodes, get_mempolicy(2).
fn memory_policy() -> Value {
    let mut mode = 0i32;
    let mut nodes = [0u64; 16];
    // SAFETY: a number and a mask of as many bits as are told.
    let done = unsafe {
        libc::syscall(
            libc::SYS_get_mempolicy,
            &raw mut mode,
            nodes.as_mut_ptr(),
            1024,
            0,
            0,
        )
    };
    match done {
        0 => json!({"mode": mode, "nodes": nodes[0]}),
        _ => Value::Null,
    }
}

fn fds() -> Value {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else {
        return Value::Null;
    };
    let numbers: Vec<RawFd> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    // The descriptor of the listing itself is closed by now and has no target.
    let mut open: Vec<(RawFd, String)> = numbers
        .into_iter()
        .filter_map(|fd| {
            let target = fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
            Some((fd, target.to_string_lossy().into_owned()))
        })
        .collect();
    open.sort();
    open.into_iter()
        .map(|(fd, target)| json!({ "fd": fd, "target": target }))
        .collect()
}

/// proc_pid_mountinfo(5), an object a line.
fn mounts() -> Value {
    let Ok(text) = fs::read_to_string("/proc/self/mountinfo") else {
        return Value::Null;
    };
    text.lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let left: Vec<&str> = left.split(' ').collect();
            let right: Vec<&str> = right.split(' ').collect();
            Some(json!({
                "id": left.first()?.parse::<u64>().ok()?,
                "parent": left.get(1)?.parse::<u64>().ok()?,
                "dev": left.get(2)?,
                "root": left.get(3)?,
                "target": left.get(4)?,
                "options": left.get(5)?.split(',').collect::<Vec<_>>(),
                "propagation": left.get(6..)?,
                "type": right.first()?,
                "source": right.get(1)?,
                "fs_options": right.get(2)?.split(',').collect::<Vec<_>>(),
            }))
        })
        .collect()
}

fn namespaces() -> Value {
    ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"]
        .iter()
        .map(|kind| {
            let inode = fs::read_link(format!("/proc/self/ns/{kind}"))
                .ok()
                .and_then(|link| {
                    let text = link.to_string_lossy().into_owned();
                    let number = text
                        .split_once('[')?
                        .1
                        .strip_suffix(']')?
                        .parse::<u64>()
                        .ok()?;
                    Some(number)
                });
            ((*kind).to_owned(), json!(inode))
        })
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// Where the process is in the v2 tree.
fn cgroup() -> Option<String> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix("0::"))
        .map(str::to_owned)
}

pub fn tty(fd: RawFd) -> Value {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: `size` is valid for the ioctl to fill in.
    if unsafe { libc::ioctl(fd, libc::TIOCGWINSZ, &mut size) } != 0 {
        return Value::Null;
    }
    json!({ "rows": size.ws_row, "cols": size.ws_col })
}

fn prctl(option: i32) -> i32 {
    // SAFETY: the options used here take no pointer.
    unsafe { libc::prctl(option, 0, 0, 0, 0) }
}

fn pdeathsig() -> i32 {
    let mut signal = -1;
    // SAFETY: `signal` is valid for the call to fill in.
    unsafe { libc::prctl(libc::PR_GET_PDEATHSIG, &mut signal, 0, 0, 0) };
    signal
}

fn subreaper() -> i32 {
    let mut set = -1;
    // SAFETY: `set` is valid for the call to fill in.
    unsafe { libc::prctl(libc::PR_GET_CHILD_SUBREAPER, &mut set, 0, 0, 0) };
    set
}

/// What keyctl(2) KEYCTL_DESCRIBE says of the session keyring.
fn keyring() -> Option<String> {
    const KEYCTL_DESCRIBE: libc::c_long = 6;
    const SESSION: libc::c_long = -3;
    let mut buffer = [0u8; 256];
    // SAFETY: the buffer is as long as it is said to be.
    let length = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_DESCRIBE,
            SESSION,
            buffer.as_mut_ptr(),
            buffer.len(),
        )
    };
    let length = usize::try_from(length).ok()?.min(buffer.len());
    Some(
        String::from_utf8_lossy(&buffer[..length])
            .trim_end_matches('\0')
            .to_owned(),
    )
}
