//! The mounted resctrl file system and its groups.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, fstat, mkdirat};
use nix::sys::statfs::{FsType, fstatfs};
use nix::unistd::{UnlinkatFlags, unlinkat};
use procfs::FromRead;
use procfs::process::MountInfos;

use super::POINTER;
use crate::error::{Error, Result, Step};
use crate::sys;
use crate::sys::file::{open, openat};

/// Where the monitoring groups of a group are.
pub const MONITORS: &str = "mon_groups";

/// RDTGROUP_SUPER_MAGIC of linux/magic.h.
const MAGIC: FsType = FsType(0x0765_5821);

const DIRECTORY: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
    mount: PathBuf,
}

impl Tree {
    /// Wherever it is mounted, as mountinfo says.
    pub fn find() -> Result<Tree> {
        const LIST: &str = "/proc/self/mountinfo";
        let file =
            open(LIST, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).step("open", LIST)?;
        let mounts = MountInfos::from_read(File::from(file))
            .map_err(|error| Error::new("read").on(LIST).because(error.to_string()))?;
        for mount in mounts.0.iter().filter(|mount| mount.fs_type == "resctrl") {
            if let Some(tree) = Tree::at(&mount.mount_point)? {
                return Ok(tree);
            }
        }
        Err(
            Error::config(POINTER, "intelRdt: no resctrl file system is mounted").hint(
                "where the processor has it: mount -t resctrl resctrl /sys/fs/resctrl; else remove intelRdt",
            ),
        )
    }

    /// `None` if it isn't mounted there.
    pub fn at(mount: &Path) -> Result<Option<Tree>> {
        let tree = match open(mount, DIRECTORY, Mode::empty()) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
            root => Tree {
                root: root.step("open", mount.display())?,
                mount: mount.to_owned(),
            },
        };
        let kind = fstatfs(&tree.root).step("statfs", mount.display())?;
        Ok((kind.filesystem_type() == MAGIC).then_some(tree))
    }

    /// A directory that the tests take for one.
    #[cfg(test)]
    pub fn pretended(mount: &Path) -> Tree {
        Tree {
            root: open(mount, DIRECTORY, Mode::empty()).unwrap(),
            mount: mount.to_owned(),
        }
    }

    pub fn mount(&self) -> &Path {
        &self.mount
    }

    /// The default group.
    pub fn root(&self) -> Result<Group> {
        Ok(Group {
            dir: self.root.try_clone().step("open", self.mount.display())?,
            path: self.mount.clone(),
        })
    }

    pub fn monitors(&self) -> Result<bool> {
        Ok(self.root()?.open(MONITORS)?.is_some())
    }

    /// Until it is dropped nobody else makes or compares groups, if he keeps to the kernel's document.
    pub fn lock(&self) -> Result<OwnedFd> {
        const TRIES: u32 = 1500;
        // A description of its own: its end is the end of the lock.
        let lock =
            openat(&self.root, ".", DIRECTORY, Mode::empty()).step("open", self.mount.display())?;
        for _ in 0..TRIES {
            match sys::fd::try_lock(lock.as_fd()) {
                Err(Errno::EWOULDBLOCK) => std::thread::sleep(Duration::from_millis(10)),
                done => return done.map(|()| lock).step("lock", self.mount.display()),
            }
        }
        Err(Error::new("lock")
            .on(self.mount.display())
            .at(POINTER)
            .because("another program is at work on resctrl")
            .errno(Errno::EWOULDBLOCK))
    }

    /// The steps in which the kernel sets a bandwidth: it rounds up.
    pub fn granularity(&self, resource: &str) -> Option<u64> {
        let info = self.root().ok()?.open("info").ok()??;
        let text = info.open(resource).ok()??.read("bandwidth_gran").ok()?;
        text.trim().parse().ok().filter(|step| *step > 0)
    }

    /// Adds what the kernel has to say about the last command.
    pub fn explain(&self, done: Result<()>) -> Result<()> {
        done.map_err(|error| {
            let info = self.root().and_then(|root| root.existing("info"));
            match info.and_then(|info| info.read("last_cmd_status")) {
                Ok(status) if !matches!(status.trim(), "" | "ok") => {
                    error.because(status.trim().to_owned())
                }
                _ => error,
            }
        })
    }
}

/// A directory of the tree: a group, or what groups are in.
#[derive(Debug)]
pub struct Group {
    dir: OwnedFd,
    path: PathBuf,
}

impl Group {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A directory in it; `None` if there is none of that name.
    pub fn open(&self, name: &str) -> Result<Option<Group>> {
        let path = self.path.join(name);
        match openat(&self.dir, name, DIRECTORY, Mode::empty()) {
            Ok(dir) => Ok(Some(Group { dir, path })),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno).step("open resctrl group", path.display()),
        }
    }

    pub fn existing(&self, name: &str) -> Result<Group> {
        self.open(name)?.ok_or_else(|| {
            Error::new("open resctrl group")
                .on(self.path.join(name).display())
                .at(POINTER)
                .errno(Errno::ENOENT)
        })
    }

    pub fn make(&self, name: &str, pointer: &str) -> Result<Group> {
        let path = self.path.join(name);
        mkdirat(&self.dir, name, Mode::from_bits_truncate(0o755)).or_fail(|errno| {
            let error = Error::new("make resctrl group")
                .on(path.display())
                .at(pointer)
                .errno(errno);
            match errno {
                Errno::ENOSPC => error.hint(
                    "the processor has no more of them: see num_closids and num_rmids below info/",
                ),
                Errno::EPERM => {
                    error.hint("this processor monitors only: use closID / with enableMonitoring")
                }
                _ => error,
            }
        })?;
        #[cfg(test)]
        super::tests::play_kernel(&path);
        self.existing(name).inspect_err(|_| self.forget(name))
    }

    /// What was made here a moment ago, by a step that failed.
    pub fn forget(&self, name: &str) {
        if let Err(error) = self.remove(name) {
            crate::log::warning(format_args!("{error}"));
        }
    }

    pub fn remove(&self, name: &str) -> Result<()> {
        #[cfg(test)]
        super::tests::empty_out(&self.path.join(name));
        match unlinkat(&self.dir, name, UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno).step("remove resctrl group", self.path.join(name).display()),
        }
    }

    pub fn inode(&self) -> Result<u64> {
        let stat = fstat(&self.dir).step("look at resctrl group", self.path.display())?;
        Ok(stat.st_ino)
    }

    pub fn has_tasks(&self) -> bool {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(&self.dir, "tasks", flags, Mode::empty()).is_ok()
    }

    /// Whether nobody lives in it: the dead are listed until someone has waited for them.
    pub fn is_empty(&self) -> Result<bool> {
        let tasks = self.read("tasks")?;
        Ok(tasks.split_whitespace().all(|pid| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
            status.map_or(true, |status| status.contains("\nState:\tZ"))
        }))
    }

    pub fn read(&self, name: &str) -> Result<String> {
        let path = self.path.join(name);
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(&self.dir, name, flags, Mode::empty()).step("open", path.display())?;
        let mut text = String::new();
        File::from(file)
            .read_to_string(&mut text)
            .step("read", path.display())?;
        Ok(text)
    }

    /// In one call: to the kernel that is one command.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path.join(name);
        let flags = OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(&self.dir, name, flags, Mode::empty()).step("open", path.display())?;
        let on = format!("{} <- {}", path.display(), text.trim().replace('\n', " "));
        File::from(file)
            .write_all(text.as_bytes())
            .step("write", on)
    }
}
