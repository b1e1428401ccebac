//! Removing a container's cgroup.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::fstatat;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::hierarchy::{is_cgroup2, open_absolute};
use super::tree::{MADE, Place};
use super::{file, processes, walk};
use crate::error::{Error, Result, Step};
use crate::sys::xattr;

/// For processes that were killed to be gone. Usually it takes milliseconds; one that waits
/// uninterruptibly for a device may take for ever.
const PATIENCE: Duration = Duration::from_secs(5);

const OWNER_PATIENCE: Duration = Duration::from_secs(1);

impl Place {
    /// Removes the cgroup with all below it, and the directories above it that husk made, so far as
    /// they are empty. Gone already is fine. Processes in it must have been killed: this waits for
    /// their end, not longer than five seconds.
    ///
    /// # Errors
    /// It can be called again.
    pub fn remove(&self) -> Result<()> {
        if let Some(owner) = &self.owner
            && !owner.stop()?
        {
            self.leave_to_owner();
        }
        let path = self.path();
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(());
        };
        match open_absolute(parent, OFlag::O_RDONLY) {
            Err(Errno::ENOENT) => {}
            parent => {
                let parent = parent.step("open cgroup", parent_of(&path))?;
                // Where the tree isn't mounted any more, an empty directory could be anyone's.
                if self.inode.is_none() && !is_cgroup2(&parent).step("statfs", parent_of(&path))? {
                    return Ok(());
                }
                self.remove_leaf(&parent, name)?;
            }
        }
        self.remove_parents()
    }

    /// The same for a cgroup that nobody has used further: false where it takes more.
    pub fn remove_empty(&self) -> Result<bool> {
        let path = self.path();
        let (None, Some(inode)) = (&self.owner, self.inode) else {
            return Ok(false);
        };
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(false);
        };
        let Ok(parent) = open_absolute(parent, OFlag::O_RDONLY) else {
            return Ok(false);
        };
        let same = fstatat(&parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| stat.st_ino == inode);
        if !same || unlinkat(&parent, name, UnlinkatFlags::RemoveDir).is_err() {
            return Ok(false);
        }
        self.remove_parents().map(|()| true)
    }

    /// Nobody was there to stop the unit. Should its manager only be out of sight, it removes the empty
    /// cgroup by itself; one that was taken away from under it would leave it a unit that never ends.
    fn leave_to_owner(&self) {
        let end = Instant::now() + OWNER_PATIENCE;
        while self.path().exists() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn remove_leaf(&self, parent: &OwnedFd, name: &OsStr) -> Result<()> {
        let mut end = None;
        let fail = |errno: Errno| {
            Error::new("remove cgroup")
                .on(self.path().display())
                .errno(errno)
        };
        let mut pause = Duration::from_millis(1);
        loop {
            if let Some(inode) = self.inode {
                match fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
                    Err(Errno::ENOENT) => return Ok(()),
                    stat if stat.map_err(fail)?.st_ino != inode => return Ok(()),
                    _ => {}
                }
            }
            match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => return Ok(()),
                Err(Errno::EBUSY) => {}
                Err(errno) => return Err(fail(errno)),
            }
            let end = *end.get_or_insert_with(|| Instant::now() + PATIENCE);
            let dir = match file::open_dir(parent, name) {
                Err(Errno::ENOENT) => return Ok(()),
                dir => dir.map_err(fail)?,
            };
            // The container's own (a nested engine's, systemd's). Those in use are tried again.
            walk::below(dir.as_fd(), |parent, name| {
                match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
                    Ok(()) | Err(Errno::ENOENT | Errno::EBUSY) => Ok(()),
                    Err(errno) => Err(errno),
                }
            })
            .map_err(fail)?;
            let empty = processes::wait(dir.as_fd(), end, |events| {
                file::keyed(events, "populated") == Some(0)
            });
            match empty {
                Ok(false) => return Err(self.still_used(dir)),
                Err(Errno::ENODEV | Errno::ENOENT) => return Ok(()),
                empty => drop(empty.map_err(fail)?),
            }
            if Instant::now() > end {
                return Err(fail(Errno::EBUSY));
            }
            if pause > Duration::from_millis(1) {
                std::thread::sleep(pause);
            }
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    fn still_used(&self, dir: OwnedFd) -> Error {
        let error = Error::new("remove cgroup")
            .on(self.path().display())
            .errno(Errno::EBUSY);
        let pids = processes::list(dir.as_fd()).unwrap_or_default();
        let Some(first) = pids.first() else {
            return error;
        };
        let stuck = std::fs::read_to_string(format!("/proc/{first}/stat"))
            .is_ok_and(|stat| processes::is_uninterruptible(&stat));
        error
            .because(format!(
                "{} process(es) in it haven't ended, the first is {first}{}",
                pids.len(),
                if stuck {
                    ", in uninterruptible sleep"
                } else {
                    ""
                }
            ))
            .hint("delete the container again when they are gone")
    }

    /// The directories above, from below, until one that isn't husk's or isn't empty.
    pub(super) fn remove_parents(&self) -> Result<()> {
        let mut left = self.made;
        for below in self.below.ancestors().skip(1) {
            let Some(name) = below.file_name() else {
                break;
            };
            let path = self.mount.join(below);
            let dir = match open_absolute(&path, OFlag::O_RDONLY) {
                Ok(dir) => Some(dir),
                Err(Errno::ENOENT) => None,
                Err(errno) => return Err(errno).step("open cgroup", path.display()),
            };
            let ours = left > 0
                || dir
                    .as_ref()
                    .is_none_or(|dir| xattr::has(dir.as_fd(), MADE).unwrap_or(false));
            left = left.saturating_sub(1);
            if !ours {
                break;
            }
            let Some(dir) = dir else { continue };
            // By the descriptor's own parent, as the path could be another's by now.
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            let parent = crate::sys::file::openat(&dir, "..", flags, nix::sys::stat::Mode::empty())
                .step("open cgroup", parent_of(&path))?;
            match unlinkat(&parent, name, UnlinkatFlags::RemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(Errno::EBUSY | Errno::ENOTEMPTY) => break,
                Err(errno) => return Err(errno).step("remove cgroup", path.display()),
            }
        }
        Ok(())
    }
}

fn parent_of(path: &Path) -> String {
    path.parent().unwrap_or(path).display().to_string()
}
