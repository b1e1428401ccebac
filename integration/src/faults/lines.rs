//! Descriptors of whoever calls a runtime, an engine: what the container gets, and what is nobody's but its own.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::path::Path;
use std::time::Duration;

use husk_integration::receiver::Receiver;
use husk_integration::sys;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// Numbers from 3 on: one that is listened at, one that is preserved, and one that was forgotten to be closed.
const COUNT: usize = 3;
pub const OPTIONS: [&str; 2] = ["--preserve-fds", "1"];

pub struct Lines {
    ends: Vec<File>,
    others: Vec<File>,
    /// Where a pidfd is to come.
    pub pidfds: Receiver,
}

impl Lines {
    pub fn new(socket: &Path) -> std::io::Result<Lines> {
        let mut lines = Lines {
            ends: Vec::new(),
            others: Vec::new(),
            pidfds: Receiver::new(socket),
        };
        for _ in 0..COUNT {
            let (other, end) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
            // Above all that it could be placed at.
            let end = fcntl(end, FcntlArg::F_DUPFD_CLOEXEC(100))?;
            // SAFETY: the call has just made it.
            lines.ends.push(unsafe { File::from_raw_fd(end) });
            lines.others.push(File::from(other));
        }
        Ok(lines)
    }

    /// What the command is to have from 3 on.
    pub fn ends(&self) -> Vec<RawFd> {
        self.ends.iter().map(AsRawFd::as_raw_fd).collect()
    }

    /// Whether somebody has one of them still, a second after this process let go of them.
    pub fn are_held(self) -> bool {
        let Lines { ends, others, .. } = self;
        drop(ends);
        let is_held = |mut other: &File| {
            let told = sys::readable(other, Duration::from_secs(1)).unwrap_or(false);
            !told || other.read(&mut [0]).is_ok_and(|count| count > 0)
        };
        others.iter().any(is_held)
    }
}
