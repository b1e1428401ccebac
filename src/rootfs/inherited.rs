//! A mount namespace that isn't the container's own: what it must be like, and what is left there.

use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::Mode;

use super::{Namespace, Plan};
use crate::error::{Error, Result, Step};
use crate::sys::mount;

impl Plan {
    /// In an inherited namespace the root stays mounted until `delete` unmounts it.
    pub(super) fn check_inherited(&self) -> Result<()> {
        if self.namespace != Namespace::Inherited {
            return Ok(());
        }
        let (field, message) = if self.user_namespace {
            (
                "/linux/namespaces",
                "a user namespace needs a mount namespace of the container's own",
            )
        } else if self.overlay.is_some() {
            (
                "/annotations",
                "an overlay needs a mount namespace of the container's own",
            )
        } else {
            return Ok(());
        };
        Err(Error::config(field, message).hint("add {\"type\": \"mount\"} to linux.namespaces"))
    }

    /// The mount that [`super::Built::enter`] leaves in a mount namespace that isn't the container's own: its
    /// number, for [`unmount`]. Known once the sources are open.
    pub fn left_behind(&self) -> Result<Option<u64>> {
        match (&self.tree, self.namespace) {
            (Some(tree), Namespace::Inherited) => mount::lasting_mount_id(tree.as_fd())
                .map(Some)
                .step("number", "the mount of the root filesystem"),
            _ => Ok(None),
        }
    }
}

/// In a joined namespace the root is attached where others live: it mustn't spread from there.
pub(super) fn refuse_shared_root() -> Result<()> {
    let step = "read mounts of the joined mount namespace";
    let mounts = ::procfs::process::Process::myself()
        .and_then(|process| process.mountinfo())
        .map_err(|error| Error::new(step).because(error.to_string()))?;
    let shared = mounts.0.iter().any(|mount| {
        mount.mount_point == Path::new("/")
            && mount
                .opt_fields
                .iter()
                .any(|field| matches!(field, ::procfs::process::MountOptFields::Shared(_)))
    });
    match shared {
        true => Err(Error::new("join mount namespace")
            .at("/linux/namespaces")
            .because("its root is a shared mount: what the container mounts would appear elsewhere")
            .hint("make it private there: mount --make-rprivate /")),
        false => Ok(()),
    }
}

/// Unmounts the root filesystem that lies at `path` with everything in it, if it is the mount of that
/// number ([`Plan::left_behind`]): another one is none of the container's.
pub fn unmount(path: &Path, number: u64) -> Result<()> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let Ok(root) = open(path, flags, Mode::empty()) else {
        return Ok(());
    };
    if mount::lasting_mount_id(root.as_fd()).step("number", "a mount")? != number {
        return Ok(());
    }
    let link = format!("/proc/self/fd/{}", root.as_raw_fd());
    umount2(link.as_str(), MntFlags::MNT_DETACH).step("unmount", path.display())
}
