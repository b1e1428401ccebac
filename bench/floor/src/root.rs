//! Inside: mounts, devices, masks, the change of root, privileges. The default config, line by line.

use core::ffi::{CStr, c_char, c_ulong, c_void};
use core::ptr::null;

use crate::words::{die, must};

fn mount(source: &CStr, target: &CStr, kind: &CStr, flags: c_ulong, data: &CStr) {
    // SAFETY: all are strings.
    let result = unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            flags,
            data.as_ptr().cast::<c_void>(),
        )
    };
    if result != 0 {
        die(target);
    }
}

/// Needs the current directory to be the bundle.
pub fn enter() {
    use libc::{MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, MS_REC, MS_REMOUNT, MS_SLAVE};
    let n = c"";
    mount(n, c"/", n, MS_REC | MS_SLAVE, n);
    mount(c"rootfs", c"rootfs", n, MS_BIND | MS_REC, n);
    // SAFETY: a string.
    must(c"chdir", unsafe { libc::chdir(c"rootfs".as_ptr()) });

    let strict = MS_NOSUID | MS_NOEXEC | MS_NODEV;
    mount(c"proc", c"proc", c"proc", 0, n);
    mount(
        c"tmpfs",
        c"dev",
        c"tmpfs",
        MS_NOSUID | libc::MS_STRICTATIME,
        c"mode=755,size=65536k",
    );
    for dir in [c"dev/pts", c"dev/shm", c"dev/mqueue"] {
        // SAFETY: a string.
        must(dir, unsafe { libc::mkdir(dir.as_ptr(), 0o755) });
    }
    mount(
        c"devpts",
        c"dev/pts",
        c"devpts",
        MS_NOSUID | MS_NOEXEC,
        c"newinstance,ptmxmode=0666,mode=0620,gid=5",
    );
    mount(
        c"shm",
        c"dev/shm",
        c"tmpfs",
        strict,
        c"mode=1777,size=65536k",
    );
    mount(c"mqueue", c"dev/mqueue", c"mqueue", strict, n);
    mount(c"sysfs", c"sys", c"sysfs", strict | MS_RDONLY, n);
    mount(
        c"cgroup",
        c"sys/fs/cgroup",
        c"cgroup2",
        strict | MS_RDONLY | libc::MS_RELATIME,
        n,
    );

    for (name, minor) in [
        (c"dev/null", 3),
        (c"dev/zero", 5),
        (c"dev/full", 7),
        (c"dev/random", 8),
        (c"dev/urandom", 9),
    ] {
        device(name, 1, minor);
    }
    device(c"dev/tty", 5, 0);
    for (to, name) in [
        (c"pts/ptmx", c"dev/ptmx"),
        (c"/proc/self/fd", c"dev/fd"),
        (c"/proc/self/fd/0", c"dev/stdin"),
        (c"/proc/self/fd/1", c"dev/stdout"),
        (c"/proc/self/fd/2", c"dev/stderr"),
    ] {
        // SAFETY: strings.
        must(name, unsafe { libc::symlink(to.as_ptr(), name.as_ptr()) });
    }

    // SAFETY: strings; the old root goes onto the new one, and is detached from it.
    unsafe {
        let here = c".".as_ptr();
        must(
            c"pivot_root",
            libc::syscall(libc::SYS_pivot_root, here, here),
        );
        must(c"umount2", libc::umount2(here, libc::MNT_DETACH));
        must(c"chdir", libc::chdir(c"/".as_ptr()));
    }

    for path in [
        c"/proc/bus",
        c"/proc/fs",
        c"/proc/irq",
        c"/proc/sys",
        c"/proc/sysrq-trigger",
    ] {
        // SAFETY: a string.
        if unsafe { libc::access(path.as_ptr(), libc::F_OK) } != 0 {
            continue;
        }
        mount(path, path, n, MS_BIND | MS_REC, n);
        mount(n, path, n, MS_BIND | MS_REMOUNT | MS_RDONLY, n);
    }
    for path in [
        c"/proc/acpi",
        c"/proc/asound",
        c"/proc/kcore",
        c"/proc/keys",
        c"/proc/latency_stats",
        c"/proc/timer_list",
        c"/proc/timer_stats",
        c"/proc/sched_debug",
        c"/sys/firmware",
        c"/proc/scsi",
    ] {
        mask(path);
    }
    mount(n, c"/", n, MS_BIND | MS_REMOUNT | MS_RDONLY, n);
}

fn device(name: &CStr, major: u32, minor: u32) {
    // SAFETY: a string and numbers.
    must(name, unsafe {
        libc::mknod(
            name.as_ptr(),
            libc::S_IFCHR | 0o666,
            libc::makedev(major, minor),
        )
    });
}

fn mask(path: &CStr) {
    // SAFETY: all zeroes is a valid stat.
    let mut status: libc::stat = unsafe { core::mem::zeroed() };
    // SAFETY: a string, and a structure that is valid to write.
    if unsafe { libc::stat(path.as_ptr(), &mut status) } != 0 {
        return;
    }
    if status.st_mode & libc::S_IFMT == libc::S_IFDIR {
        mount(c"tmpfs", path, c"tmpfs", libc::MS_RDONLY, c"");
    } else {
        mount(c"/dev/null", path, c"", libc::MS_BIND, c"");
    }
}

/// CAP_KILL, CAP_NET_BIND_SERVICE, CAP_AUDIT_WRITE.
const CAPABILITIES: u32 = 1 << 5 | 1 << 10 | 1 << 29;

/// Three capabilities, 1024 files, no new privileges, a keyring of its own.
pub fn drop_privileges() {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    let files = libc::rlimit {
        rlim_cur: 1024,
        rlim_max: 1024,
    };
    let header = Header {
        version: 0x2008_0522,
        pid: 0,
    };
    let sets = [CAPABILITIES, CAPABILITIES, 0, 0, 0, 0];
    // SAFETY: numbers, and structures that are valid for the calls to read.
    unsafe {
        libc::syscall(libc::SYS_keyctl, 1, null::<c_char>());
        must(
            c"setrlimit",
            libc::setrlimit(libc::RLIMIT_NOFILE as _, &files),
        );
        for capability in 0..=40 {
            if CAPABILITIES >> (capability % 32) & u32::from(capability < 32) == 0 {
                must(
                    c"PR_CAPBSET_DROP",
                    libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0),
                );
            }
        }
        must(
            c"setgroups",
            libc::syscall(libc::SYS_setgroups, 0, null::<u32>()),
        );
        must(c"setgid", libc::syscall(libc::SYS_setresgid, 0, 0, 0));
        must(c"setuid", libc::syscall(libc::SYS_setresuid, 0, 0, 0));
        must(
            c"capset",
            libc::syscall(libc::SYS_capset, &header, sets.as_ptr()),
        );
        must(
            c"no_new_privs",
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        );
    }
}
