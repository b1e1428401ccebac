//! The processes: husk's own protection, the birth of a container's first process, one more process
//! inside, and what a caller in the foreground sees of them.

pub mod channel;
pub mod exec;
pub mod foreground;
pub mod identity;
pub mod init;
mod lookup;
pub mod program;
pub mod protect;
mod terminal;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::Mode;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

use self::channel::{Channel, Report};
use self::init::Init;
use crate::error::{Error, Result, Step};
use crate::signal::Signal;
use crate::sys::process::{self as sys, Clone};

/// A process that husk made and talks to.
#[derive(Debug)]
pub struct Process {
    pub pid: Pid,
    pub pidfd: OwnedFd,
    pub channel: Channel,
}

impl Process {
    /// Kills and reaps it.
    pub fn end(&self) {
        let _ = sys::pidfd_send_signal(self.pidfd.as_fd(), libc::SIGKILL);
        let _ = reap(&self.pidfd);
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Exited(u8),
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

/// Makes the container's first process, in `cgroup`, which goes to work on `init` at once.
pub fn spawn(init: Init, cgroup: Option<BorrowedFd>) -> Result<Process> {
    let (channel, theirs) = Channel::pair()?;
    if init.namespaces.needs_go_between() {
        return spawn_through(init, cgroup, channel, theirs);
    }
    let own = enter_pid(|| init.namespaces.enter_pid(), init.namespaces.own())?;
    let cloned = sys::clone3(init.namespaces.clone_flags(), cgroup);
    match cloned.or_fail(no_process)? {
        Clone::Child => {
            drop(channel);
            init::run(init, theirs)
        }
        Clone::Parent { pid, pidfd } => {
            leave_pid(own)?;
            Ok(Process {
                pid,
                pidfd,
                channel,
            })
        }
    }
}

/// As [`spawn`], by way of a process that joins a user namespace and then makes the container's, as
/// its sibling.
fn spawn_through(
    init: Init,
    cgroup: Option<BorrowedFd>,
    channel: Channel,
    theirs: Channel,
) -> Result<Process> {
    match sys::clone3(0, cgroup).or_fail(no_process)? {
        Clone::Child => {
            drop(channel);
            let forked = init.namespaces.enter_all().and_then(|()| {
                let flags = init.namespaces.clone_flags() | libc::CLONE_PARENT as u64;
                sys::clone3(flags, None).or_fail(no_process)
            });
            match forked {
                Ok(Clone::Child) => init::run(init, theirs),
                Ok(Clone::Parent { pid, pidfd }) => {
                    let _ = theirs.report(&Report::Forked(pid, pidfd));
                }
                Err(error) => {
                    let _ = theirs.report(&Report::Failed(error));
                }
            }
            sys::exit(0)
        }
        Clone::Parent { pid: between, .. } => {
            drop(theirs);
            // The process may report before its maker does; it waits for nobody but husk.
            let first = channel.next_report();
            let _ = waitpid(between, None);
            match first? {
                Some(Report::Forked(pid, pidfd)) => Ok(Process {
                    pid,
                    pidfd,
                    channel,
                }),
                Some(Report::Failed(error)) => Err(error),
                _ => Err(Error::new("make process").because("the process in between ended early")),
            }
        }
    }
}

/// Lets children be born in another pid namespace; what comes back undoes it.
fn enter_pid(enter: impl FnOnce() -> Result<()>, own: u64) -> Result<Option<OwnedFd>> {
    if own & libc::CLONE_NEWPID as u64 == 0 {
        return Ok(None);
    }
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let ours = open("/proc/self/ns/pid", flags, Mode::empty()).step("open", "/proc/self/ns/pid")?;
    enter()?;
    Ok(Some(ours))
}

fn leave_pid(ours: Option<OwnedFd>) -> Result<()> {
    match ours {
        Some(ours) => setns(&ours, CloneFlags::CLONE_NEWPID).step("return to", "the pid namespace"),
        None => Ok(()),
    }
}

fn no_process(errno: Errno) -> Error {
    let error = Error::new("make process")
        .at("/linux/namespaces")
        .errno(errno);
    match errno {
        Errno::EPERM => error.hint("new namespaces need root, or a user namespace of the container's own"),
        Errno::ENOSPC => error.hint("a limit under /proc/sys/user (max_*_namespaces) is reached"),
        Errno::EAGAIN => error.hint("the limit of processes is reached: pids.max of the cgroup, RLIMIT_NPROC or kernel.pid_max"),
        Errno::EINVAL => error.hint("this kernel lacks one of the namespaces"),
        Errno::EBUSY | Errno::EOPNOTSUPP => {
            error.at("/linux/cgroupsPath").hint("the cgroup takes no processes")
        }
        Errno::ENOMEM => error.hint("out of memory, or the pid namespace has no first process any more"),
        _ => error,
    }
}

/// Waits until the process has ended, and reaps it.
pub fn reap(pidfd: &OwnedFd) -> nix::Result<Ended> {
    loop {
        match waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED) {
            Ok(WaitStatus::Exited(_, code)) => return Ok(Ended::Exited(code as u8)),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(Ended::Killed(signal as i32)),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Why a process that ended without a word did so.
pub fn explain_end(pidfd: &OwnedFd) -> Error {
    let error = Error::new("set up the container");
    match reap(pidfd) {
        Ok(Ended::Killed(libc::SIGKILL)) => error
            .because("its process was killed by SIGKILL")
            .hint("out of memory? compare linux.resources.memory.limit"),
        Ok(Ended::Killed(signal)) => error.because(format!(
            "its process was killed by {}",
            Signal::from_number(signal)
        )),
        Ok(Ended::Exited(status)) => {
            error.because(format!("its process ended with status {status}"))
        }
        Err(errno) => error.because("its process is gone").errno(errno),
    }
}
