//! Making processes, and handles to them.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::str::SplitAsciiWhitespace;

use nix::Result;
use nix::errno::Errno;
use nix::unistd::{Gid, Pid, Uid};

/// Linux 5.7; the libraries' constant is cut to 32 bits or absent.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which side of [`clone3`] this is.
#[derive(Debug)]
pub enum Clone {
    Parent { pid: Pid, pidfd: OwnedFd },
    Child,
}

/// clone3(2) without shared memory: `flags` are `CLONE_NEW*` and `CLONE_PARENT`. The child starts in
/// `cgroup` (Linux 5.7) if one is given, and the parent gets a pidfd.
///
/// The child has a copy of everything, the heap included, and must never return into the caller's
/// callers: it ends with [`exit`] or [`execveat`].
///
/// # Errors
/// `EINVAL` or `EPERM` for namespaces that the kernel lacks or forbids, `ENOSPC` when a limit on
/// nested or counted namespaces is reached, `EAGAIN` when pids run out, `EBUSY` and `EOPNOTSUPP` for
/// a cgroup that takes no processes.
pub fn clone3(flags: u64, cgroup: Option<BorrowedFd>) -> Result<Clone> {
    let mut pidfd: RawFd = -1;
    // SAFETY: clone_args is plain old data, for which zeroes are valid.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = flags | libc::CLONE_PIDFD as u64;
    arguments.pidfd = &raw mut pidfd as u64;
    // With CLONE_PARENT the kernel takes the signal of the caller and refuses one here.
    if flags & libc::CLONE_PARENT as u64 == 0 {
        arguments.exit_signal = libc::SIGCHLD as u64;
    }
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: husk has one thread, so the child's copy of memory is whole. No stack is given and
    // CLONE_VM isn't set: the child goes on here on its own copy of the stack.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw mut arguments,
            size_of::<libc::clone_args>(),
        )
    };
    match Errno::result(pid)? {
        0 => Ok(Clone::Child),
        pid => Ok(Clone::Parent {
            pid: Pid::from_raw(pid as i32),
            // SAFETY: CLONE_PIDFD made this descriptor, and nobody else has it.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        }),
    }
}

/// Lets go of the pages of this program's code: they come back from its file when they are executed.
pub fn forget_code() {
    const PAGE: usize = 4096;
    unsafe extern "C" {
        // The linker's: where the file begins in memory, and where the code ends. All between is only read.
        static __executable_start: u8;
        static etext: u8;
    }
    let begin = (&raw const __executable_start as usize).next_multiple_of(PAGE);
    let end = (&raw const etext as usize) / PAGE * PAGE;
    // SAFETY: these pages are as in the file, which they are read from again.
    unsafe {
        libc::madvise(
            begin as *mut libc::c_void,
            end.saturating_sub(begin),
            libc::MADV_DONTNEED,
        )
    };
}

/// Ends the calling process at once: no destructors, no atexit handlers.
pub fn exit(status: u8) -> ! {
    // SAFETY: doesn't return, touches no memory.
    unsafe { libc::_exit(status.into()) }
}

/// setgroups(2), setresgid(2) and setresuid(2) of the calling thread: the C library's would stop all
/// threads, of which there is one, by signals that it blocks and unblocks.
pub fn set_groups(groups: &[Gid]) -> Result<()> {
    // SAFETY: a Gid is a gid_t; so many are valid to read.
    let done = unsafe { libc::syscall(SETGROUPS, groups.len(), groups.as_ptr()) };
    Errno::result(done).map(drop)
}

pub fn set_gids(gid: Gid) -> Result<()> {
    let gid = gid.as_raw();
    // SAFETY: no memory is passed.
    Errno::result(unsafe { libc::syscall(SETRESGID, gid, gid, gid) }).map(drop)
}

pub fn set_uids(uid: Uid) -> Result<()> {
    let uid = uid.as_raw();
    // SAFETY: no memory is passed.
    Errno::result(unsafe { libc::syscall(SETRESUID, uid, uid, uid) }).map(drop)
}

#[cfg(not(any(target_arch = "x86", target_arch = "arm")))]
use libc::{SYS_setgroups as SETGROUPS, SYS_setresgid as SETRESGID, SYS_setresuid as SETRESUID};
// The calls of the older name take 16 bits there.
#[cfg(any(target_arch = "x86", target_arch = "arm"))]
use libc::{
    SYS_setgroups32 as SETGROUPS, SYS_setresgid32 as SETRESGID, SYS_setresuid32 as SETRESUID,
};

/// # Errors
/// `ESRCH` when there is no such process.
pub fn pidfd_open(pid: Pid) -> Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
    // SAFETY: a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// # Errors
/// `ESRCH` when the process has ended and been reaped, `EINVAL` for a signal that isn't one.
pub fn pidfd_send_signal(pidfd: BorrowedFd, signal: i32) -> Result<()> {
    // SAFETY: a null siginfo makes the kernel fill it in as for kill(2).
    let done = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    Errno::result(done).map(drop)
}

/// Strings for execve(2), made before the moment when nothing may fail any more.
#[derive(Debug)]
pub struct Strings {
    owned: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl Strings {
    /// # Errors
    /// `EINVAL` if one has a NUL byte inside.
    pub fn new<T: Into<Vec<u8>>>(strings: impl IntoIterator<Item = T>) -> Result<Self> {
        let owned = strings
            .into_iter()
            .map(|string| CString::new(string).map_err(|_| Errno::EINVAL))
            .collect::<Result<Vec<_>>>()?;
        let pointers = owned
            .iter()
            .map(|string| string.as_ptr())
            .chain([std::ptr::null()])
            .collect();
        Ok(Strings { owned, pointers })
    }

    pub fn first(&self) -> Option<&CString> {
        self.owned.first()
    }

    pub fn iter(&self) -> impl Iterator<Item = &CString> {
        self.owned.iter()
    }
}

/// execve(2). Returns only on failure.
pub fn execve(path: &CString, arguments: &Strings, environment: &Strings) -> Errno {
    // SAFETY: both vectors end with a null pointer and their strings live as long as they do.
    unsafe {
        libc::execve(
            path.as_ptr(),
            arguments.pointers.as_ptr(),
            environment.pointers.as_ptr(),
        )
    };
    Errno::last()
}

/// execveat(2): runs the file `path` relative to `dir`, or `dir` itself if `path` is empty and
/// `flags` has `AT_EMPTY_PATH`. Returns only on failure.
pub fn execveat(
    dir: RawFd,
    path: &CString,
    arguments: &Strings,
    environment: &Strings,
    flags: i32,
) -> Errno {
    // SAFETY: both vectors end with a null pointer and their strings live as long as they do.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            dir,
            path.as_ptr(),
            arguments.pointers.as_ptr(),
            environment.pointers.as_ptr(),
            flags,
        )
    };
    Errno::last()
}

/// Gives one signal its default action, whatever the caller made of it. By rt_sigaction(2) itself: the
/// C libraries refuse to touch those that they use (32 to 34), which a caller may have ignored, too.
pub fn reset_signal_action(number: i32) {
    // The kernel's sigaction, larger on no architecture: SIG_DFL, no flags, an empty mask are zeroes.
    let default = [0u64; 8];
    // SAFETY: `default` is read only, and no handler is installed that could run.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            number,
            default.as_ptr(),
            std::ptr::null_mut::<u64>(),
            size_of::<u64>(),
        )
    };
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Exited(u8),
    /// By a signal; nix knows no real-time signals.
    Killed(i32),
}

impl Ended {
    /// As a shell tells it: the status, or 128 and the signal.
    pub fn status(self) -> u8 {
        match self {
            Ended::Exited(status) => status,
            Ended::Killed(signal) => 128u8.saturating_add(signal as u8),
        }
    }
}

/// Waits for the end of a child and reaps it.
///
/// # Errors
/// `ECHILD` if it isn't a child, or has been reaped.
pub fn reap(pidfd: impl AsFd) -> Result<Ended> {
    let id = pidfd.as_fd().as_raw_fd() as libc::id_t;
    loop {
        match waitid(libc::P_PIDFD, id, libc::WEXITED) {
            Ok(Some((_, ended))) => return Ok(ended),
            Ok(None) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Reaps a child that has ended, if there is one.
///
/// # Errors
/// `ECHILD` if there are no children.
pub fn reap_any() -> Result<Option<(Pid, Ended)>> {
    waitid(libc::P_ALL, 0, libc::WEXITED | libc::WNOHANG)
}

fn waitid(
    kind: libc::idtype_t,
    id: libc::id_t,
    flags: libc::c_int,
) -> Result<Option<(Pid, Ended)>> {
    // SAFETY: siginfo_t is plain old data, for which zeroes are valid.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel fills in the siginfo.
    Errno::result(unsafe { libc::waitid(kind, id, &raw mut info, flags) })?;
    // SAFETY: waitid fills in the fields of a SIGCHLD, or leaves zeroes.
    let pid = unsafe { info.si_pid() };
    // SAFETY: as above.
    let status = unsafe { info.si_status() };
    let ended = match info.si_code {
        libc::CLD_EXITED => Ended::Exited(status as u8),
        _ => Ended::Killed(status),
    };
    Ok((pid != 0).then(|| (Pid::from_raw(pid), ended)))
}

/// Whether this process has a child of that number, in the kernel's own words, whatever /proc shows.
pub fn is_child(pid: i32) -> bool {
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    libc::id_t::try_from(pid).is_ok_and(|pid| waitid(libc::P_PID, pid, flags).is_ok())
}

/// The fields of proc_pid_stat(5) from the third on. The name before them may hold anything.
pub fn stat_fields(stat: &[u8]) -> Option<SplitAsciiWhitespace<'_>> {
    let rest = &stat[stat.iter().rposition(|&byte| byte == b')')? + 1..];
    Some(std::str::from_utf8(rest).ok()?.split_ascii_whitespace())
}

/// What a file of proc_pid_task_children(5) lists.
pub fn children(path: &str) -> Result<Vec<i32>> {
    let text = super::fd::read_whole(path)?;
    let text = String::from_utf8_lossy(&text);
    Ok(text.split_whitespace().flat_map(str::parse).collect())
}

/// Ends this process by a signal without a system call, where any call may wait for ever.
pub fn fault() -> ! {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: an instruction that is defined to be invalid; nothing comes after it.
    unsafe {
        std::arch::asm!("ud2", options(noreturn))
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::process::abort()
}

/// Whether that signal has been sent to this process, which holds it back, sigpending(2).
pub fn is_pending(number: i32) -> bool {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the set is valid for the call to fill in.
    if unsafe { libc::sigpending(set.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: it has been filled in.
    unsafe { libc::sigismember(set.as_ptr(), number) == 1 }
}

/// setdomainname(2): the NIS domain of the UTS namespace.
pub fn set_domain_name(name: &str) -> Result<()> {
    // SAFETY: pointer and length of one string; the kernel wants no NUL.
    Errno::result(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len() as _) }).map(drop)
}
