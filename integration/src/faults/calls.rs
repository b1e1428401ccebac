//! System calls by their names, and what each of them may rightly say when it fails.

use std::collections::HashMap;
use std::sync::OnceLock;

use nix::errno::Errno;

const TABLE: &str = include_str!("../../../src/seccomp/syscalls.tbl");

/// The name of a call on x86-64.
pub fn name(number: u64) -> &'static str {
    static NAMES: OnceLock<HashMap<u64, &'static str>> = OnceLock::new();
    let names = NAMES.get_or_init(|| {
        let mut rows = TABLE.lines().filter(|line| !line.starts_with('#'));
        let head = rows.next().unwrap_or_default();
        let column = head.split_whitespace().position(|word| word == "x86_64");
        let row = |line: &'static str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            Some((words.get(column?)?.parse().ok()?, *words.first()?))
        };
        rows.filter_map(row).collect()
    });
    names.get(&number).copied().unwrap_or("?")
}

/// The errors that the manual page has for it, as far as a right caller can meet them. None for calls that
/// can't fail when they are called rightly, nor for those that get memory: where there is none, a language's runtime
/// ends the process, before `main` or in it. In a user namespace (`confined`) EPERM is how the kernel
/// refuses some filesystems, for which runtimes then have a substitute.
pub fn errors(name: &str, confined: bool) -> &'static [Errno] {
    use Errno::{EAGAIN, EINTR, EIO, ENOENT, ENOMEM, ENOSPC, EPERM};
    match name {
        "open" | "openat" | "openat2" => &[EIO, ENOMEM, EINTR],
        "read" | "pread64" | "readv" => &[EIO, EINTR],
        "write" | "pwrite64" | "writev" => &[ENOSPC, EIO, EINTR],
        "sendto" | "sendmsg" | "recvmsg" | "recvfrom" => &[ENOMEM, EINTR],
        "connect" => &[EAGAIN, EPERM],
        "accept" | "accept4" => &[ENOMEM, EINTR],
        "bind" => &[ENOMEM, ENOSPC],
        "poll" | "ppoll" | "select" | "pselect6" | "epoll_wait" | "epoll_pwait" => &[ENOMEM, EINTR],
        "flock" => &[ENOMEM, EINTR],
        "wait4" | "waitid" | "nanosleep" | "clock_nanosleep" => &[EINTR],
        "clone" | "clone3" | "fork" | "vfork" => &[EAGAIN, ENOMEM],
        "execve" | "execveat" => &[EIO, ENOMEM],
        "mkdir" | "mkdirat" | "mknod" | "mknodat" | "symlink" | "symlinkat" | "link" | "linkat" => {
            &[ENOSPC, ENOENT, EIO]
        }
        "rename" | "renameat" | "renameat2" => &[ENOSPC, EIO],
        "unlink" | "unlinkat" | "rmdir" => &[EIO, EPERM],
        "stat" | "fstat" | "lstat" | "newfstatat" | "statx" | "readlink" | "readlinkat"
        | "access" | "faccessat" | "faccessat2" | "getdents64" | "statfs" | "fstatfs"
        | "getcwd" => &[EIO, ENOMEM],
        "chdir" | "fchdir" | "chroot" | "pivot_root" | "umount2" => &[EIO, EPERM],
        "chown" | "fchown" | "lchown" | "fchownat" | "chmod" | "fchmod" | "fchmodat"
        | "fchmodat2" | "setxattr" | "fsetxattr" | "ftruncate" => &[EIO, EPERM],
        "fsopen" | "fsconfig" | "fsmount" if confined => &[ENOMEM],
        "mount" | "fsopen" | "fsconfig" | "fsmount" | "fspick" | "open_tree" | "move_mount"
        | "mount_setattr" => &[ENOMEM, EPERM],
        "unshare" | "setns" | "bpf" | "seccomp" => &[ENOMEM, EPERM],
        // A filter around the runtime forbids it with EPERM, and then to everybody in the container, too.
        "keyctl" | "add_key" => &[ENOMEM],
        "prctl" | "capset" | "setsid" | "sethostname" | "setdomainname" | "setrlimit"
        | "prlimit64" | "sched_setaffinity" | "sched_setattr" | "ioprio_set" | "setpriority"
        | "setgroups" | "setgid" | "setresgid" | "setuid" | "setresuid" | "personality"
        | "pidfd_send_signal" | "kill" | "tgkill" => &[EPERM],
        "socket" | "socketpair" | "pipe" | "pipe2" | "eventfd2" | "signalfd4" | "epoll_create1"
        | "epoll_ctl" | "timerfd_create" | "inotify_init1" | "inotify_add_watch"
        | "memfd_create" | "pidfd_open" | "pidfd_getfd" | "dup" | "dup2" | "dup3" | "fcntl"
        | "setsockopt" | "getsockopt" | "getsockname" | "close_range" | "listen" | "capget" => {
            &[ENOMEM]
        }
        "getrandom" => &[EINTR],
        "ioctl" | "close" | "fsync" | "fdatasync" => &[EIO],
        _ => &[],
    }
}

/// Calls that are done all the same before they say that they failed, as the kernel does it.
pub fn done_all_the_same(name: &str) -> bool {
    name == "close"
}
