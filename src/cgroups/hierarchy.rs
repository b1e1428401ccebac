//! Where the cgroup2 tree is.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, fstatfs};
use procfs::process::{MountInfo, Process};

use crate::error::{Error, Result, Step};
use crate::sys::file::openat2;

const USUAL: &str = "/sys/fs/cgroup";

/// A mounted cgroup2 tree. Under a cgroup namespace its root is the namespace's.
#[derive(Debug)]
pub struct Hierarchy {
    root: OwnedFd,
    mount: PathBuf,
}

impl Hierarchy {
    /// `/sys/fs/cgroup`, or on a hybrid host the cgroup2 mount that mountinfo names
    /// (`/sys/fs/cgroup/unified`, most often).
    pub fn find() -> Result<Hierarchy> {
        if let Some(hierarchy) = Hierarchy::at(Path::new(USUAL))? {
            return Ok(hierarchy);
        }
        let mut mounts: Vec<_> = mounts()?
            .into_iter()
            .filter(|mount| mount.fs_type == "cgroup2")
            .collect();
        // The whole tree rather than a part that is bound somewhere.
        mounts.sort_by_key(|mount| (mount.root != "/", !mount.mount_point.starts_with(USUAL)));
        for mount in mounts {
            if let Some(hierarchy) = Hierarchy::at(&mount.mount_point)? {
                return Ok(hierarchy);
            }
        }
        Err(Error::new("find the cgroup v2 tree")
            .because("no cgroup2 file system is mounted")
            .hint(format!("mount it: mount -t cgroup2 none {USUAL}")))
    }

    /// The tree that is mounted at `mount`; `None` if there is none.
    pub fn at(mount: &Path) -> Result<Option<Hierarchy>> {
        let root = match open_absolute(mount, OFlag::O_PATH) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
            root => root.step("open", mount.display())?,
        };
        Ok(is_cgroup2(&root)
            .step("statfs", mount.display())?
            .then(|| Hierarchy {
                root,
                mount: mount.into(),
            }))
    }

    pub fn mount(&self) -> &Path {
        &self.mount
    }

    /// The cgroup above the caller's own, relative to the root: there a user whose session was
    /// delegated to him can make one. Below his own, which has processes, it couldn't have limits.
    pub fn beside_caller(&self) -> PathBuf {
        let text = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let own = text.lines().find_map(|line| line.strip_prefix("0::/"));
        own.map(Path::new)
            .and_then(Path::parent)
            // Outside of the cgroup namespace.
            .filter(|above| !above.starts_with(".."))
            .map(Path::to_owned)
            .unwrap_or_default()
    }

    /// An `O_PATH` descriptor of the root.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

/// A directory by its absolute path, none of whose elements is a symbolic link.
pub(super) fn open_absolute(path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(flags | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    openat2(AT_FDCWD, path, how)
}

/// The same for a file, to read.
pub(super) fn open_file(path: &Path) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    openat2(AT_FDCWD, path, how)
}

pub(super) fn is_cgroup2(fd: impl AsFd) -> nix::Result<bool> {
    Ok(fstatfs(fd)?.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

/// All mounts of this mount namespace. Slow where there are many: for hybrid hosts and errors only.
pub(super) fn mounts() -> Result<Vec<MountInfo>> {
    Process::myself()
        .and_then(|process| process.mountinfo())
        .map(|mounts| mounts.0)
        .map_err(|error| Error::new("read /proc/self/mountinfo").because(error.to_string()))
}
