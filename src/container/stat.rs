//! Which process the first one is: told from later ones with the same number by when it began.

use std::os::fd::OwnedFd;

use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;
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
        let pid = Pid::from_raw(self.pid);
        let pidfd = sys::process::pidfd_open(pid).ok()?;
        // Only now: from here on the number can't be given to another process unnoticed.
        let stat = stat_of(pid)?;
        let ended = matches!(stat.state, 'Z' | 'X' | 'x');
        (stat.start_time == self.start_time && !ended).then_some(pidfd)
    }
}

/// Fields 3, 9 and 22 of proc_pid_stat(5).
pub(super) struct Stat {
    pub state: char,
    pub flags: u64,
    pub start_time: u64,
}

/// The name before these fields may hold anything.
pub(super) fn stat_of(pid: Pid) -> Option<Stat> {
    let text = beginning(&format!("/proc/{pid}/stat")).ok()?;
    let rest = &text[text.iter().rposition(|&byte| byte == b')')? + 1..];
    let mut fields = std::str::from_utf8(rest).ok()?.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some(Stat {
        state,
        flags: fields.nth(5)?.parse().ok()?,
        start_time: fields.nth(12)?.parse().ok()?,
    })
}

/// The kernel makes the line at the first read(2), and its first kilobyte has far more than those fields.
fn beginning(path: &str) -> nix::Result<Vec<u8>> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let file = openat(AT_FDCWD, path, flags, Mode::empty())?;
    let mut buffer = [0; 1024];
    let count = nix::unistd::read(&file, &mut buffer)?;
    Ok(buffer[..count].to_vec())
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
