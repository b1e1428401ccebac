//! The processes of a cgroup: listing, killing, freezing.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Pid, Whence, lseek};

use super::hierarchy::open_file;
use super::tree::{Cgroup, Place};
use super::{file, walk};
use crate::error::{Error, Result, Step};
use crate::sys::process::{pidfd_open, pidfd_send_signal};

/// As long as runc waits for the freezer.
const PATIENCE: Duration = Duration::from_secs(10);

impl Cgroup {
    /// Its processes and those of the cgroups below it, in ascending order, as this process's pid
    /// namespace numbers them.
    pub fn procs(&self) -> Result<Vec<Pid>> {
        list(self.fd()).step("list the processes of", self.path().display())
    }

    /// Moves a process here. Slow (milliseconds, a global lock): for processes that couldn't be
    /// cloned into the cgroup.
    ///
    /// # Errors
    /// `EBUSY` when the cgroup has enabled controllers for cgroups below it.
    pub fn add(&self, pid: Pid) -> Result<()> {
        file::write(self.fd(), "cgroup.procs", &pid.to_string()).or_fail(|errno| {
            let error = Error::new("move process")
                .on(format!("{pid} into {}", self.path().display()))
                .errno(errno);
            match errno {
                Errno::EBUSY => error.because("it has sub-cgroups with controllers of their own"),
                _ => error,
            }
        })
    }

    /// Whether no process is in it or below, or none is any more within that time.
    pub fn is_empty_within(&self, time: Duration) -> Result<bool> {
        let empty = |events: &str| file::keyed(events, "populated") == Some(0);
        match wait(self.fd(), Instant::now() + time, empty) {
            // Gone.
            Err(Errno::ENOENT | Errno::ENODEV) => Ok(true),
            done => done.step("wait for the end of", self.path().display()),
        }
    }

    /// Sends SIGKILL to all its processes and those below. They may still be ending when it
    /// returns; [`super::Place::remove`] waits for them.
    pub fn kill(&self) -> Result<()> {
        match file::write(self.fd(), "cgroup.kill", "1") {
            // Before Linux 5.14, and in a threaded cgroup.
            Err(Errno::ENOENT | Errno::EOPNOTSUPP) => self.kill_each(),
            // Gone with its last process: systemd removes it then.
            Err(Errno::ENODEV) => Ok(()),
            done => done.step("kill the processes of", self.path().display()),
        }
    }

    /// Sends the signal to all its processes and those below, as far as they are there when it is called.
    pub fn signal(&self, signal: i32) -> Result<()> {
        self.signal_each(&self.procs()?, signal)
    }

    /// A number is somebody else's as soon as its process is reaped: a handle is taken first, and used if the
    /// number is still listed then.
    fn signal_each(&self, pids: &[Pid], signal: i32) -> Result<()> {
        let handle = |&pid: &Pid| Some((pid, pidfd_open(pid).ok()?));
        // Not so many at once that descriptors run out.
        for some in pids.chunks(128) {
            let handles: Vec<_> = some.iter().filter_map(handle).collect();
            let listed = self.procs()?;
            for (_, process) in handles.iter().filter(|(pid, _)| listed.contains(pid)) {
                let _ = pidfd_send_signal(process.as_fd(), signal);
            }
        }
        Ok(())
    }

    /// Frozen, no process escapes by forking. Signals reach frozen processes.
    fn kill_each(&self) -> Result<()> {
        // A container that won't freeze is killed all the same.
        let _ = file::write(self.fd(), "cgroup.freeze", "1");
        let mut found = Ok(());
        for _ in 0..100 {
            match self.procs() {
                Ok(pids) if pids.is_empty() => break,
                Ok(pids) => {
                    if let Err(error) = self.signal_each(&pids, libc::SIGKILL) {
                        found = Err(error);
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => {
                    found = Err(error);
                    break;
                }
            }
        }
        match file::write(self.fd(), "cgroup.freeze", "0") {
            Ok(()) | Err(Errno::ENOENT | Errno::ENODEV) => found,
            Err(errno) => Err(errno).step("thaw", self.path().display()),
        }
    }

    /// Stops all its processes, and returns when they have stopped.
    ///
    /// # Errors
    /// It's thawed again if that takes longer than ten seconds.
    pub fn freeze(&self) -> Result<()> {
        let frozen = self.set_frozen(true);
        if frozen.is_err() {
            let _ = file::write(self.fd(), "cgroup.freeze", "0");
        }
        frozen
    }

    pub fn thaw(&self) -> Result<()> {
        self.set_frozen(false)
    }

    fn set_frozen(&self, frozen: bool) -> Result<()> {
        let (step, value) = match frozen {
            true => ("freeze", "1"),
            false => ("thaw", "0"),
        };
        let path = self.path();
        file::write(self.fd(), "cgroup.freeze", value).step(step, path.display())?;
        let wanted = Some(u64::from(frozen));
        let end = Instant::now() + PATIENCE;
        let done = wait(self.fd(), end, |events| {
            file::keyed(events, "frozen") == wanted
        })
        .step(step, path.display())?;
        if done {
            return Ok(());
        }
        Err(Error::new(step).on(path.display()).because(match frozen {
            true => "a process doesn't stop within 10 seconds (it may wait for a device)",
            false => "it stays frozen: a cgroup above it is frozen",
        }))
    }

    pub fn is_frozen(&self) -> Result<bool> {
        let events = file::read(self.fd(), "cgroup.events")
            .step("read cgroup.events of", self.path().display())?;
        Ok(file::keyed(&events, "frozen") == Some(1))
    }

    /// The same of a record's cgroup, which is looked at closely only if it is.
    pub fn is_frozen_at(place: &Place) -> Result<bool> {
        let path = place.path().join("cgroup.events");
        let frozen = match open_file(&path).and_then(file::read_whole) {
            Ok(events) => file::keyed(&events, "frozen") == Some(1),
            // Gone, or going.
            Err(Errno::ENOENT | Errno::ENODEV) => false,
            Err(errno) => return Err(errno).step("read", path.display()),
        };
        match frozen {
            true => Cgroup::open(place)?.map_or(Ok(false), |cgroup| cgroup.is_frozen()),
            false => Ok(false),
        }
    }

    /// Whether controllers are on below it: then it can't have processes itself, cgroups(7), "No internal
    /// processes", unless those below are its processes' threads.
    pub fn is_divided(&self) -> Result<bool> {
        let read = |name: &'static str| {
            file::read(self.fd(), name).step("read", self.path().join(name).display())
        };
        Ok(!read("cgroup.subtree_control")?.trim().is_empty()
            && read("cgroup.type")?.trim() != "domain threaded")
    }

    /// How often the kernel has killed a process here for want of memory; `None` without the memory
    /// controller.
    pub fn oom_kills(&self) -> Option<u64> {
        file::keyed(&file::read(self.fd(), "memory.events").ok()?, "oom_kill")
    }
}

pub(super) fn list(dir: BorrowedFd) -> nix::Result<Vec<Pid>> {
    let mut pids = Vec::new();
    read_pids(dir, &mut pids)?;
    walk::below(dir, |parent, name| match file::open_dir(parent, name) {
        Ok(child) => read_pids(child.as_fd(), &mut pids),
        Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno),
    })?;
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

fn read_pids(dir: BorrowedFd, pids: &mut Vec<Pid>) -> nix::Result<()> {
    let text = match file::read_all(dir, "cgroup.procs") {
        // Threads of a process in a threaded cgroup: their numbers do for signals.
        Err(Errno::EOPNOTSUPP) => file::read_all(dir, "cgroup.threads"),
        text => text,
    };
    match text {
        // 0 stands for a process of another pid namespace.
        Ok(text) => pids.extend(
            text.lines()
                .filter_map(|line| line.parse().ok())
                .filter(|pid| *pid > 0)
                .map(Pid::from_raw),
        ),
        Err(Errno::ENOENT | Errno::ENODEV) => {}
        Err(errno) => return Err(errno),
    }
    Ok(())
}

/// Waits until `cgroup.events` is as wanted; false if it isn't at `end`.
pub(super) fn wait(
    dir: BorrowedFd,
    end: Instant,
    wanted: impl Fn(&str) -> bool,
) -> nix::Result<bool> {
    let events = file::open(dir, "cgroup.events", OFlag::O_RDONLY)?;
    loop {
        lseek(&events, 0, Whence::SeekSet)?;
        if wanted(&file::read_from(&events)?) {
            return Ok(true);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        // At least one millisecond, or the last one would be spent spinning.
        let left =
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLPRI)], left) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Whether /proc/PID/stat tells of state D.
pub(super) fn is_uninterruptible(stat: &str) -> bool {
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| rest.trim_start().starts_with('D'))
}
