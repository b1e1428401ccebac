//! Locks what comes from outside against the root of the container's user namespace.
//!
//! A mount that is attached in a namespace of the container's own user namespace is its root's: with
//! CAP_SYS_ADMIN he makes a read-only one writable, and looks below the mounts of an `rbind`. The kernel
//! locks mounts when it copies them into the mount namespace of another user namespace
//! (mount_namespaces(7)). So the process in between attaches them at a place of its own, in a mount
//! namespace of husk's user namespace, and the container's process finds locked copies there.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat, mknodat};

use super::handle::{is_kind, open_at};
use super::mounts::Mount;
use super::{Namespace, Plan};
use crate::error::{Error, Result, Step};
use crate::sys::file::open;
use crate::sys::mount::{self, Context};

fn fail(step: &'static str, place: &Path) -> impl Fn(Errno) -> Error {
    move |errno| {
        Error::new(step)
            .on(place.display())
            .at("/mounts")
            .errno(errno)
    }
}

impl Plan {
    /// Whether there is something to lock, once the sources are open.
    pub fn needs_locking(&self) -> bool {
        self.user_namespace
            && self.namespace == Namespace::New
            && self.mounts.iter().any(|mount| mount.tree().is_some())
    }

    /// For the process in between, before it enters anything: makes a mount namespace, and attaches
    /// there, on the directory `place`, what is open.
    pub fn stage(&self, place: &Path) -> Result<()> {
        let fail = fail("lock mounts at", place);
        unshare(CloneFlags::CLONE_NEWNS).or_fail(&fail)?;
        super::make_slave().or_fail(&fail)?;
        let stage = Context::open(c"tmpfs")
            .and_then(|context| context.mount(0).map_err(|(errno, _)| errno))
            .or_fail(&fail)?;
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = open(place, flags, Mode::empty()).or_fail(&fail)?;
        mount::move_mount(stage.as_fd(), directory.as_fd()).or_fail(&fail)?;
        for (index, mount) in self.mounts.iter().enumerate() {
            let Some(tree) = mount.tree() else { continue };
            let name = name(index);
            let stat = fstat(tree).or_fail(&fail)?;
            match is_kind(&stat, SFlag::S_IFDIR) {
                true => mkdirat(&stage, name.as_os_str(), Mode::S_IRWXU),
                false => mknodat(&stage, name.as_os_str(), SFlag::S_IFREG, Mode::S_IRUSR, 0),
            }
            .or_fail(&fail)?;
            let target = open_at(stage.as_fd(), &name).or_fail(&fail)?;
            mount::move_mount(tree.as_fd(), target.as_fd()).or_fail(&fail)?;
        }
        Ok(())
    }

    /// For the container's process, in its own copy of that mount namespace: finds the locked mounts.
    pub fn take_stage(&mut self, place: &Path) -> Result<()> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let stage =
            open(place, flags, Mode::empty()).or_fail(fail("find locked mounts at", place))?;
        self.stage = Some(stage);
        Ok(())
    }
}

/// Puts the locked copy in the place of what was opened outside. In its turn, as mounts are listed in the
/// order in which they were made.
pub(super) fn take(stage: &OwnedFd, index: usize, mount: &mut Mount) -> Result<()> {
    if mount.tree().is_some() {
        let name = name(index);
        let locked = mount::clone_tree(stage.as_raw_fd(), name.as_os_str(), true)
            .or_fail(fail("take locked mount", Path::new(&name)))?;
        mount.replace_tree(locked);
    }
    Ok(())
}

fn name(index: usize) -> OsString {
    index.to_string().into()
}
