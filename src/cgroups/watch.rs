//! Waiting for what the kernel tells of a cgroup.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Whence, lseek};

use super::file;
use super::tree::Cgroup;
use crate::error::{Result, Step};

/// The kernel marks these files readable by priority when their text changes (cgroup-v2.rst,
/// "Notification").
#[derive(Debug)]
pub struct Watch {
    cgroup_events: OwnedFd,
    /// Not without the memory controller.
    memory_events: Option<OwnedFd>,
    oom_kills: u64,
}

impl Cgroup {
    pub fn watch(&self) -> Result<Watch> {
        let cgroup_events = file::open(self.fd(), "cgroup.events", OFlag::O_RDONLY)
            .step("open cgroup.events of", self.path().display())?;
        let memory_events = file::open(self.fd(), "memory.events", OFlag::O_RDONLY).ok();
        let mut watch = Watch {
            cgroup_events,
            memory_events,
            oom_kills: 0,
        };
        // What was before isn't an event.
        watch.oom_killed();
        Ok(watch)
    }
}

impl Watch {
    /// Whether the cgroup has no process any more, or is gone.
    pub fn is_deserted(&mut self) -> Result<bool> {
        match reread(&self.cgroup_events) {
            Ok(events) => Ok(file::keyed(&events, "populated") == Some(0)),
            Err(Errno::ENODEV | Errno::ENOENT) => Ok(true),
            Err(errno) => Err(errno).step("read", "cgroup.events"),
        }
    }

    /// Whether the OOM killer has killed since it was last asked.
    pub fn oom_killed(&mut self) -> bool {
        let now = self.memory_events.as_ref().and_then(|events| {
            let text = reread(events).ok()?;
            file::keyed(&text, "oom_kill")
        });
        let Some(now) = now else { return false };
        let more = now > self.oom_kills;
        self.oom_kills = now;
        more
    }

    /// Until something changes after the two questions above were last asked, or for that long, but for at
    /// most a second: the kernel holds marks back for some milliseconds (cgroup_file_notify), and has none to
    /// give when the cgroup is removed meanwhile.
    pub fn wait(&self, time: Duration) -> Result<()> {
        let mut fds = vec![PollFd::new(self.cgroup_events.as_fd(), PollFlags::POLLPRI)];
        if let Some(events) = &self.memory_events {
            fds.push(PollFd::new(events.as_fd(), PollFlags::POLLPRI));
        }
        let time =
            PollTimeout::try_from(time.min(Duration::from_secs(1)) + Duration::from_millis(1))
                .unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, time) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno).step("wait for", "events of the cgroup"),
        }
    }
}

fn reread(file: &OwnedFd) -> nix::Result<String> {
    lseek(file, 0, Whence::SeekSet)?;
    file::read_from(file)
}
