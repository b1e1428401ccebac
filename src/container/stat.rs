//! Which process the first one is: told from later ones with the same number by when it began.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;

use super::record::Init;
use crate::error::{Error, Result, Step};
use crate::sys;

/// How long an execution may take to come to an end.
const EXECUTION: Duration = Duration::from_secs(5);

impl Init {
    /// The process that has this number now.
    pub fn of(pid: Pid) -> Result<Init> {
        match stat_of(pid)? {
            Some(stat) => Ok(Init {
                pid: pid.as_raw(),
                start_time: stat.start_time,
            }),
            None => Err(Error::new("find the container's process").errno(Errno::ESRCH)),
        }
    }

    /// A handle to the process, unless it has ended.
    ///
    /// # Errors
    /// As [`Init::look`].
    pub(super) fn open(self) -> Result<Option<OwnedFd>> {
        let pidfd = match sys::process::pidfd_open(Pid::from_raw(self.pid)) {
            // Nobody, or a thread of somebody else's.
            Err(Errno::ESRCH | Errno::EINVAL | Errno::ENOENT) => return Ok(None),
            pidfd => pidfd.step("open pidfd of process", self.pid)?,
        };
        // Only now: from here on the number can't be given to another process unnoticed.
        Ok(self.look()?.map(|_| pidfd))
    }

    /// What is to be seen of it now, unless it has ended.
    ///
    /// # Errors
    /// It can't be found out: a living process must not pass for an ended one.
    pub(super) fn look(self) -> Result<Option<Stat>> {
        let stat = self.look_at_remains()?;
        Ok(stat.filter(|stat| !stat.has_ended()))
    }

    /// As [`Init::look`], but its end leaves something to be seen until somebody has waited for it.
    pub(super) fn look_at_remains(self) -> Result<Option<Stat>> {
        match stat_of(Pid::from_raw(self.pid))? {
            Some(stat) if stat.start_time == self.start_time => Ok(Some(stat)),
            // In a /proc of another pid namespace anybody may have the number.
            Some(_) if !shows_own_numbers() => Err(not_here(
                Error::new("find process").on(self.pid).errno(Errno::ENOENT),
            )),
            _ => Ok(None),
        }
    }

    /// Of a process whose end of the start's connection was closed, by execution or by its end: whether it
    /// has ended without a program, and who collects it hasn't come yet.
    ///
    /// Execution closes (do_close_on_exec) just before it takes away what `is_unborn` goes by. To end the
    /// start in between would let a `state` that comes after it say "created". A throttled cgroup can make
    /// it long.
    pub(super) fn is_stillborn(self) -> Result<bool> {
        let mut began = None;
        loop {
            match self.look_at_remains()? {
                Some(stat) if stat.is_unborn() && stat.is_ending() => return Ok(true),
                Some(stat)
                    if stat.is_unborn()
                        && began.get_or_insert_with(Instant::now).elapsed() < EXECUTION =>
                {
                    std::thread::sleep(Duration::from_micros(50));
                }
                _ => return Ok(false),
            }
        }
    }
}

/// Fields 3, 9 and 22 of proc_pid_stat(5).
pub(super) struct Stat {
    state: char,
    flags: u64,
    start_time: u64,
}

impl Stat {
    fn has_ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }

    /// Whether it still is what was made, and has never executed a program.
    pub fn is_unborn(&self) -> bool {
        // PF_FORKNOEXEC of include/linux/sched.h.
        self.flags & 0x40 != 0
    }

    /// Whether it has ended, or is about to: its files are closed by then.
    fn is_ending(&self) -> bool {
        // PF_EXITING of include/linux/sched.h.
        self.has_ended() || self.flags & 0x4 != 0
    }
}

/// Whether /proc is there, and its numbers are those of this process's pid namespace.
fn shows_own_numbers() -> bool {
    let own = std::process::id().to_string();
    std::fs::read_link("/proc/self").is_ok_and(|link| link == Path::new(&own))
}

fn not_here(error: Error) -> Error {
    error.hint("husk needs /proc, of the pid namespace that it is in")
}

/// `None` when there is no such process any more.
fn stat_of(pid: Pid) -> Result<Option<Stat>> {
    let path = format!("/proc/{pid}/stat");
    // Its first kilobyte has far more than these fields.
    let text = match sys::fd::read_beginning(&path) {
        Err(Errno::ENOENT | Errno::ESRCH) if shows_own_numbers() => return Ok(None),
        text => text.or_fail(|errno| {
            let error = Error::new("read").on(&path).errno(errno);
            match errno {
                Errno::ENOENT => not_here(error),
                _ => error,
            }
        })?,
    };
    let parse = || {
        let mut fields = sys::process::stat_fields(&text)?;
        let state = fields.next()?.chars().next()?;
        Some(Stat {
            state,
            flags: fields.nth(5)?.parse().ok()?,
            start_time: fields.nth(12)?.parse().ok()?,
        })
    };
    match parse() {
        Some(stat) => Ok(Some(stat)),
        None => Err(Errno::EBADMSG).step("understand", &path),
    }
}

/// Whether the process ends within that time. A pidfd is readable from then on.
pub(super) fn wait_for_end(pidfd: &OwnedFd, patience: Duration) -> bool {
    let end = Instant::now() + patience;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(0) => return false,
            Err(Errno::EINTR) => {}
            Ok(_) | Err(_) => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_alone_is_not_the_process() {
        let me = Init::of(nix::unistd::getpid()).unwrap();
        assert!(me.start_time > 0);
        assert!(me.open().unwrap().is_some());
        let reused = Init {
            start_time: me.start_time + 1,
            ..me
        };
        assert!(reused.open().unwrap().is_none());
    }
}
