//! Which process the first one is: told from later ones with the same number by when it began.

use std::os::fd::OwnedFd;

use nix::unistd::Pid;

use super::record::Init;
use crate::error::Result;
use crate::sys;

impl Init {
    /// The process that has this number now.
    pub fn of(pid: Pid) -> Result<Init> {
        let start_time = stat_of(pid).map_or(0, |stat| stat.start_time);
        Ok(Init {
            pid: pid.as_raw(),
            start_time,
        })
    }

    /// A handle to the process, unless it has ended.
    pub(super) fn open(self) -> Option<OwnedFd> {
        let pidfd = sys::process::pidfd_open(Pid::from_raw(self.pid)).ok()?;
        // Only now: from here on the number can't be given to another process unnoticed.
        self.look().map(|_| pidfd)
    }

    /// What is to be seen of it now, unless it has ended.
    pub(super) fn look(self) -> Option<Stat> {
        let stat = stat_of(Pid::from_raw(self.pid))?;
        let ended = matches!(stat.state, 'Z' | 'X' | 'x');
        (stat.start_time == self.start_time && !ended).then_some(stat)
    }
}

/// Fields 3, 9 and 22 of proc_pid_stat(5).
pub(super) struct Stat {
    pub state: char,
    flags: u64,
    pub start_time: u64,
}

impl Stat {
    /// Whether it still is what was made, and has never executed a program.
    pub fn is_unborn(&self) -> bool {
        // PF_FORKNOEXEC of include/linux/sched.h.
        self.flags & 0x40 != 0
    }
}

/// The name before these fields may hold anything.
pub(super) fn stat_of(pid: Pid) -> Option<Stat> {
    // Its first kilobyte has far more than these fields.
    let text = sys::fd::read_beginning(&format!("/proc/{pid}/stat")).ok()?;
    let rest = &text[text.iter().rposition(|&byte| byte == b')')? + 1..];
    let mut fields = std::str::from_utf8(rest).ok()?.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some(Stat {
        state,
        flags: fields.nth(5)?.parse().ok()?,
        start_time: fields.nth(12)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_alone_is_not_the_process() {
        let me = Init::of(nix::unistd::getpid()).unwrap();
        assert!(me.start_time > 0);
        assert!(me.open().is_some());
        let reused = Init {
            start_time: me.start_time + 1,
            ..me
        };
        assert!(reused.open().is_none());
    }
}
