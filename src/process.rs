//! The processes: husk's own protection, the birth of a container's first process, one more process
//! inside, and what a caller in the foreground sees of them.

mod autopsy;
pub mod channel;
pub mod criu;
pub mod exec;
pub mod foreground;
pub mod identity;
pub mod init;
pub mod limits;
mod listener;
mod lookup;
pub mod observer;
pub mod oom_score;
pub mod program;
pub mod protect;
pub mod readiness;
pub mod schedule;
mod terminal;
pub mod worker;

pub use crate::sys::process::{Ended, reap};
pub use lookup::DEFAULT_PATH;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use self::channel::{Channel, Report};
use self::init::Init;
use crate::error::{Error, Result, Step};
use crate::log;
use crate::signal::Signal;
use crate::sys::process::{self as sys, Clone};
use crate::trace::{self, Role};

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

/// Makes the container's first process, in `cgroup`, which goes to work on `init` at once.
pub fn spawn(init: Init, cgroup: Option<BorrowedFd>) -> Result<Process> {
    let (channel, theirs) = Channel::pair()?;
    if init.needs_go_between() {
        return spawn_through((channel, theirs), cgroup, init, Init::enter, init::run);
    }
    match sys::clone3(init.namespaces.clone_flags(), cgroup).or_fail(no_process)? {
        Clone::Child => {
            log::close();
            drop(channel);
            init::run(init, theirs)
        }
        Clone::Parent { pid, pidfd } => Ok(Process {
            pid,
            pidfd,
            channel,
        }),
    }
}

/// Makes a process by way of another one, which enters what exists already and then makes the process
/// as its sibling. `enter` gets both channels: that of the process, and the one between's own, to which it
/// reports; it closes what else is open.
///
/// In a pid namespace that others live in, a process can be looked at from its birth on: this one is
/// born with nothing open but what it needs (CVE-2016-9962). And new namespaces must belong to a user
/// namespace that is joined, which would cost husk its own privileges.
fn spawn_through<T>(
    (channel, theirs): (Channel, Channel),
    cgroup: Option<BorrowedFd>,
    task: T,
    enter: impl FnOnce(&T, &Channel, &Channel) -> Result<u64>,
    run: fn(T, Channel) -> !,
) -> Result<Process> {
    // Two senders on one channel would have to wait for each other.
    let (reports, reporter) = Channel::pair()?;
    match sys::clone3(0, cgroup).or_fail(no_process)? {
        Clone::Child => {
            log::close();
            drop((channel, reports));
            trace::take_role(Role::GoBetween);
            let forked = enter(&task, &theirs, &reporter).and_then(|flags| {
                sys::clone3(flags | libc::CLONE_PARENT as u64, None).or_fail(no_process)
            });
            let report = match forked {
                Ok(Clone::Child) => {
                    drop(reporter);
                    run(task, theirs)
                }
                Ok(Clone::Parent { pid, pidfd }) => Report::Forked(pid, pidfd),
                Err(error) => Report::Failed(error),
            };
            let _ = reporter.report(&report);
            sys::exit(0)
        }
        Clone::Parent { pid: between, .. } => {
            drop((theirs, reporter, task));
            let report = trace::step("wait for the go-between", || reports.next_report());
            let _ = waitpid(between, None);
            match report? {
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

/// Whether a process of this caller can be born in `cgroup`: one that ends at once is.
pub fn try_cgroup(cgroup: BorrowedFd) -> nix::Result<()> {
    match sys::clone3(0, Some(cgroup))? {
        Clone::Child => sys::exit(0),
        Clone::Parent { pid, .. } => waitpid(pid, None).map(drop),
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
