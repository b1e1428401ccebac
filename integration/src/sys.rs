//! The few system calls that std and nix don't wrap.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout};

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// An anonymous file: output goes there, so that nobody ever waits for a pipe.
pub fn memfd(name: &str) -> io::Result<File> {
    let name = CString::new(name)?;
    // SAFETY: the name ends in NUL.
    let fd =
        check(unsafe { libc::syscall(libc::SYS_memfd_create, name.as_ptr(), libc::MFD_CLOEXEC) })?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { File::from_raw_fd(fd as RawFd) })
}

pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes numbers.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Reaps a child: its status as wait(2) has it, and what it took.
pub fn wait4(pid: i32) -> io::Result<(i32, libc::rusage)> {
    let mut status = 0;
    // SAFETY: all zeroes is a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both are valid for the call to write.
    check(unsafe { libc::wait4(pid, &mut status, 0, &mut usage) }.into())?;
    Ok((status, usage))
}

/// False when the time is over first.
pub fn readable(fd: impl AsFd, within: Duration) -> io::Result<bool> {
    let deadline = std::time::Instant::now() + within;
    loop {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
        match nix::poll::poll(&mut fds, timeout) {
            Ok(count) => return Ok(count > 0),
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Orphans of this process's descendants become its children.
pub fn become_subreaper() -> io::Result<()> {
    // SAFETY: the option takes a number.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }.into()).map(drop)
}

/// Makes the terminal `fd` the controlling one of the calling session leader.
pub fn make_controlling(fd: impl AsFd) -> io::Result<()> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the ioctl takes a number.
    check(unsafe { libc::ioctl(fd, libc::TIOCSCTTY, 0) }.into()).map(drop)
}

pub fn set_window_size(fd: impl AsFd, rows: u16, cols: u16) -> io::Result<()> {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: `size` is valid for the ioctl to read.
    check(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &size) }.into()).map(drop)
}

/// As dup2(2), without close-on-exec: for use between fork and exec.
pub fn place(from: RawFd, to: RawFd) -> io::Result<()> {
    if from == to {
        // SAFETY: the call takes numbers.
        return check(unsafe { libc::fcntl(from, libc::F_SETFD, 0) }.into()).map(drop);
    }
    // SAFETY: as above; the test chose a number that is nobody's.
    check(unsafe { libc::dup2(from, to) }.into()).map(drop)
}

/// Brings the loopback interface of the current network namespace up.
pub fn loopback_up() -> io::Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: all zeroes is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    let fd = socket.as_raw_fd();
    // SAFETY: the request is valid for the ioctl to read.
    check(unsafe { libc::ioctl(fd, libc::SIOCSIFFLAGS as _, &request) }.into()).map(drop)
}

/// fork(2) for a program of one thread.
pub fn fork() -> nix::Result<nix::unistd::ForkResult> {
    // SAFETY: callers have one thread; both sides may go on as usual.
    unsafe { nix::unistd::fork() }
}

/// Ignores these signals, which programs executed later inherit: for use between fork and exec.
pub fn ignore(signals: impl IntoIterator<Item = i32>) {
    for number in signals {
        // The kernel's sigaction with SIG_IGN: the C library refuses to touch 32 to 34.
        let ignore = [1u64, 0, 0, 0, 0, 0, 0, 0];
        // SAFETY: `ignore` is read only, no handler is installed; what can't be ignored is refused.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                number,
                ignore.as_ptr(),
                std::ptr::null_mut::<u64>(),
                size_of::<u64>(),
            )
        };
    }
}

/// A filter, for this process and what it executes, that answers attempts to set `RLIMIT_MEMLOCK` with
/// success and does nothing: for runtimes that insist on more than root may have here.
pub fn pretend_locked_memory() -> io::Result<()> {
    const ALLOW: u32 = 0x7fff_0000;
    const SUCCESS: u32 = 0x0005_0000;
    let put = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let filter = [
        put(0x20, 0, 0, 0),
        put(0x15, 0, 5, libc::SYS_prlimit64 as u32),
        put(0x20, 0, 0, 24),
        put(0x15, 0, 3, libc::RLIMIT_MEMLOCK as u32),
        // The new limit's address: null where it only asks.
        put(0x20, 0, 0, 32),
        put(0x15, 1, 0, 0),
        put(0x06, 0, 0, SUCCESS),
        put(0x06, 0, 0, ALLOW),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: the program is valid for the call to read.
    check(unsafe { libc::syscall(libc::SYS_seccomp, 1, 0, &program) }).map(drop)
}

/// Two names change places at once, renameat2(2) with `RENAME_EXCHANGE`.
pub fn exchange(one: &std::ffi::CStr, other: &std::ffi::CStr) -> io::Result<()> {
    let (here, exchange) = (libc::AT_FDCWD, 2);
    // SAFETY: two valid C strings.
    let done = unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            here,
            one.as_ptr(),
            here,
            other.as_ptr(),
            exchange,
        )
    };
    Ok(nix::errno::Errno::result(done).map(drop)?)
}

/// A filter, for this process and what it executes, that leaves these calls to whoever has the listener.
pub fn notify_of(calls: &[u32]) -> io::Result<OwnedFd> {
    const ALLOW: u32 = 0x7fff_0000;
    const NOTIFY: u32 = 0x7fc0_0000;
    const NEW_LISTENER: u32 = 8;
    let put = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut filter = vec![put(0x20, 0, 0, 0)];
    for (number, call) in calls.iter().enumerate() {
        let to_notify = (calls.len() - number) as u8;
        filter.push(put(0x15, to_notify, 0, *call));
    }
    filter.extend([put(0x06, 0, 0, ALLOW), put(0x06, 0, 0, NOTIFY)]);
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: the program is valid for the call to read.
    let fd = check(unsafe { libc::syscall(libc::SYS_seccomp, 1, NEW_LISTENER, &program) })?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Answers the call `id` of a listener by a copy of `file`, which closes at `execve`.
pub fn answer_by_descriptor(listener: impl AsFd, id: u64, file: &File) -> io::Result<()> {
    /// `SECCOMP_IOCTL_NOTIF_ADDFD` and `SECCOMP_ADDFD_FLAG_SEND` of linux/seccomp.h.
    const ADD: u32 = 0x4018_2103;
    const SEND: u32 = 2;
    let request = libc::seccomp_notif_addfd {
        id,
        flags: SEND,
        srcfd: file.as_raw_fd() as u32,
        newfd: 0,
        newfd_flags: libc::O_CLOEXEC as u32,
    };
    // SAFETY: `request` is valid for the ioctl to read.
    check(unsafe { libc::ioctl(listener.as_fd().as_raw_fd(), ADD as _, &request) }.into()).map(drop)
}
