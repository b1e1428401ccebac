//! A network namespace that a task beside this one makes.

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::Result;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use super::{link, raw, socket};

/// What its few calls need, and more.
const STACK: usize = 16 * 1024;

#[repr(align(16))]
struct Stack(UnsafeCell<[u8; STACK]>);

// SAFETY: only a task touches it, and `BEGUN` lets there be one.
unsafe impl Sync for Stack {}

static STACK_OF_TASK: Stack = Stack(UnsafeCell::new([0; STACK]));
static BEGUN: AtomicBool = AtomicBool::new(false);

/// A task that makes a network namespace, hands it over, and then sets its loopback device up.
///
/// It has this process's memory (clone(2), `CLONE_VM`), but is a process of its own, of which the C library knows
/// nothing: a copy of this process that is made meanwhile is whole, and execve(2) here doesn't end it. It calls the
/// kernel directly, as `errno` is this process's.
#[derive(Debug)]
pub struct Maker {
    /// Brings one message: the task's pid and, unless that failed, the namespace.
    socket: OwnedFd,
    pid: Option<Pid>,
}

impl Maker {
    /// # Errors
    /// `EBUSY` the second time, `ENOSYS` where nobody wrote the calls for the processor; those of socketpair(2) and
    /// clone(2).
    pub fn begin() -> Result<Maker> {
        if !raw::KNOWN {
            return Err(Errno::ENOSYS);
        }
        let (kind, flags) = (SockType::SeqPacket, SockFlag::SOCK_CLOEXEC);
        let (ours, its) = socketpair(AddressFamily::Unix, kind, None, flags)?;
        if BEGUN.swap(true, Ordering::Relaxed) {
            return Err(Errno::EBUSY);
        }
        let stack = STACK_OF_TASK.0.get().cast::<u8>();
        // SAFETY: a stack grows down from its end, which is that of the static.
        let end = unsafe { stack.add(STACK) };
        let socket = its.as_raw_fd() as usize as *mut c_void;
        // SAFETY: the stack is the task's alone, and stays. The task has its own table of descriptors, makes system
        // calls, and never returns to what called this.
        let pid = unsafe { libc::clone(make, end.cast(), libc::CLONE_VM, socket) };
        Errno::result(pid)?;
        Ok(Maker {
            socket: ours,
            pid: None,
        })
    }

    /// What [`Maker::into_socket`] has given away, maybe before execve(2).
    pub fn from_socket(socket: OwnedFd) -> Maker {
        Maker { socket, pid: None }
    }

    /// Gives it away: whoever has it waits for the task, which is this process's child.
    pub fn into_socket(self) -> OwnedFd {
        let kept = ManuallyDrop::new(self);
        // SAFETY: what it is taken from is neither used nor dropped any more.
        unsafe { std::ptr::read(&raw const kept.socket) }
    }

    /// Returns when the namespace is there, while the task may still be at work on the loopback device. `None` if it
    /// could not be made, or was given out before.
    pub fn namespace(&mut self) -> Option<OwnedFd> {
        if self.pid.is_some() {
            return None;
        }
        let mut pid = [0; 4];
        let (length, namespace) = socket::receive(self.socket.as_fd(), &mut pid).ok()?;
        if length == pid.len() {
            self.pid = Some(Pid::from_raw(i32::from_ne_bytes(pid)));
        }
        namespace
    }

    /// Returns when the task has ended.
    ///
    /// # Errors
    /// Why the loopback device isn't up, or the namespace not there; `ECHILD` if the task was killed before it was
    /// heard of.
    pub fn finish(mut self) -> Result<()> {
        match self.wait()? {
            WaitStatus::Exited(_, 0) => Ok(()),
            WaitStatus::Exited(_, errno) => Err(Errno::from_raw(errno)),
            _ => Err(Errno::EINTR),
        }
    }

    fn wait(&mut self) -> Result<WaitStatus> {
        drop(self.namespace());
        let pid = self.pid.filter(|pid| pid.as_raw() > 0);
        let pid = pid.ok_or(Errno::ECHILD)?;
        self.pid = Some(Pid::from_raw(0));
        // Made without a signal for its end, it is one of those that are found only so.
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::__WALL;
        loop {
            match waitid(Id::Pid(pid), flags) {
                Err(Errno::EINTR) => {}
                ended => return ended,
            }
        }
    }
}

impl Drop for Maker {
    /// Nobody else would wait for it.
    fn drop(&mut self) {
        let _ = self.wait();
    }
}

/// An errno that a call of the task has returned, as the task's status.
type Status = c_int;

/// The task.
extern "C" fn make(socket: *mut c_void) -> c_int {
    let socket = socket as usize as c_int;
    let namespace = namespace();
    // SAFETY: no memory is passed.
    let pid = unsafe { raw::call(libc::SYS_getpid, [0; 4]) } as i32;
    let sent = send(socket, &pid.to_ne_bytes(), namespace.as_ref().ok());
    let done = namespace.and(sent).and_then(|()| loopback_up());
    done.err().unwrap_or(0)
}

fn status_of(result: isize) -> std::result::Result<c_int, Status> {
    match result {
        0.. => Ok(result as c_int),
        _ => Err(-result as Status),
    }
}

fn namespace() -> std::result::Result<c_int, Status> {
    // SAFETY: no memory is passed. The task alone moves.
    status_of(unsafe { raw::call(libc::SYS_unshare, [libc::CLONE_NEWNET as usize, 0, 0, 0]) })?;
    let open = [
        libc::AT_FDCWD as usize,
        c"/proc/self/ns/net".as_ptr() as usize,
        (libc::O_RDONLY | libc::O_CLOEXEC) as usize,
        0,
    ];
    // SAFETY: the path ends with NUL.
    status_of(unsafe { raw::call(libc::SYS_openat, open) })
}

/// cmsg(3) with one descriptor.
#[repr(C)]
struct Rights {
    header: libc::cmsghdr,
    fd: c_int,
}

fn send(socket: c_int, bytes: &[u8], fd: Option<&c_int>) -> std::result::Result<(), Status> {
    // SAFETY: both are plain old data, for which zeroes are valid.
    let (mut message, mut rights): (libc::msghdr, Rights) = unsafe { std::mem::zeroed() };
    let mut slice = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    message.msg_iov = &raw mut slice;
    message.msg_iovlen = 1;
    if let Some(fd) = fd {
        rights.header.cmsg_level = libc::SOL_SOCKET;
        rights.header.cmsg_type = libc::SCM_RIGHTS;
        rights.header.cmsg_len = (size_of::<libc::cmsghdr>() + size_of::<c_int>()) as _;
        rights.fd = *fd;
        message.msg_control = (&raw mut rights).cast();
        message.msg_controllen = size_of::<Rights>() as _;
    }
    let flags = libc::MSG_NOSIGNAL as usize;
    let send = [socket as usize, &raw const message as usize, flags, 0];
    // SAFETY: the message points to what is on this stack.
    status_of(unsafe { raw::call(libc::SYS_sendmsg, send) }).map(drop)
}

fn loopback_up() -> std::result::Result<(), Status> {
    let kind = (libc::SOCK_DGRAM | libc::SOCK_CLOEXEC) as usize;
    let open = [libc::AF_INET as usize, kind, 0, 0];
    // SAFETY: no memory is passed.
    let socket = status_of(unsafe { raw::call(libc::SYS_socket, open) })? as usize;
    let request = link::loopback_up_request();
    let set = [
        socket,
        libc::SIOCSIFFLAGS as usize,
        &raw const request as usize,
        0,
    ];
    // SAFETY: the request is a valid ifreq whose name ends with a zero byte.
    status_of(unsafe { raw::call(libc::SYS_ioctl, set) }).map(drop)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use nix::errno::Errno;

    use super::Maker;

    #[test]
    fn a_task_makes_a_network_namespace_and_leaves_this_process_where_it_is() {
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        let maker = match Maker::begin() {
            Err(errno) => return assert_eq!(errno, Errno::ENOSYS),
            Ok(maker) => maker,
        };
        assert_eq!(Maker::begin().unwrap_err(), Errno::EBUSY);
        let mut maker = Maker::from_socket(maker.into_socket());
        let namespace = maker.namespace();
        let ended = maker.finish();
        if !nix::unistd::geteuid().is_root() {
            assert_eq!(ended, Err(Errno::EPERM));
            return;
        }
        let namespace = namespace.unwrap();
        let path = format!("/proc/self/fd/{}", namespace.as_raw_fd());
        assert_ne!(std::fs::read_link(path).unwrap(), own);
        assert_eq!(ended, Ok(()), "its loopback device is up");
        assert_eq!(std::fs::read_link("/proc/self/ns/net").unwrap(), own);
    }
}
