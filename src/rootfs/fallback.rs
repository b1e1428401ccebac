//! What is mounted where the kernel refuses a user namespace a new instance of sysfs or cgroup2: the
//! caller's own, not more open than was asked for.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;

use super::masks;
use crate::sys::mount::{self, Attributes};

/// `MOUNT_ATTR__ATIME`: a field, not flags.
const ATIME: u64 = 0x70;

#[derive(Debug)]
pub enum Instead {
    /// sysfs shows network devices, so it takes the owner of the network namespace to mount it.
    Sysfs,
    /// cgroup2 takes the owner of the cgroup namespace. Of the host's tree the container gets no more
    /// than its own cgroup, and nothing if it has none.
    Cgroup(Option<PathBuf>),
}

impl Instead {
    /// A detached mount with these `MOUNT_ATTR_*`.
    pub fn open(&self, attributes: u64) -> nix::Result<OwnedFd> {
        let (tree, recursive) = match self {
            Instead::Sysfs => (
                mount::clone_tree(mount::CWD, Path::new("/sys"), true)?,
                true,
            ),
            Instead::Cgroup(None) => return masks::empty_directory(None),
            Instead::Cgroup(Some(path)) => match mount::clone_tree(mount::CWD, path, false) {
                Err(Errno::ENOENT) => return masks::empty_directory(None),
                tree => (tree?, false),
            },
        };
        let change = Attributes {
            // With the access times of the mount that it is a copy of.
            set: attributes & !ATIME,
            propagation: libc::MS_SLAVE,
            ..Attributes::default()
        };
        // With all that is mounted below: /sys has writable mounts on it, the tree of cgroups first
        // (CVE-2023-25809).
        mount::set_attributes(tree.as_fd(), recursive, change)?;
        Ok(tree)
    }
}
