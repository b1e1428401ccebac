//! A mount namespace that isn't the container's own: what it must be like, and what is left there.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, umount2};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::{Mode, fstat};
use nix::sys::wait::{WaitStatus, waitpid};
use serde::{Deserialize, Serialize};

use super::{Namespace, Plan};
use crate::error::{Error, Result, Step};
use crate::sys::file::open;
use crate::sys::mount;
use crate::sys::process::{self, Clone as Side};

impl Plan {
    /// In a namespace that isn't the container's own the root stays mounted until `delete` unmounts it.
    pub(super) fn check_shared(&self) -> Result<()> {
        if self.namespace == Namespace::New {
            return Ok(());
        }
        let (field, message) = if self.user_namespace && self.namespace == Namespace::Inherited {
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
            (Some(tree), Namespace::Inherited | Namespace::Joined) => {
                mount::lasting_mount_id(tree.as_fd())
                    .map(Some)
                    .step("number", "the mount of the root filesystem")
            }
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

/// A mount namespace that was joined, as it can be found again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elsewhere {
    path: PathBuf,
    /// A path below /proc/PID may lead to another one by then.
    inode: u64,
}

impl Elsewhere {
    pub fn new(path: &Path, inode: u64) -> Elsewhere {
        let path = path.to_owned();
        Elsewhere { path, inode }
    }

    /// `None` if it isn't there any more.
    fn open(&self) -> Option<OwnedFd> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let namespace = open(&self.path, flags, Mode::empty()).ok()?;
        let found = fstat(&namespace).ok()?;
        (found.st_ino == self.inode).then_some(namespace)
    }
}

/// Unmounts the root filesystem that lies at `path` with everything in it, if it is the mount of that
/// number ([`Plan::left_behind`]): another one is none of the container's.
///
/// # Errors
/// `EBUSY` if another mount lies on top of it.
pub fn unmount(path: &Path, number: u64, elsewhere: Option<&Elsewhere>) -> Result<()> {
    let fail = |errno| {
        let error = Error::new("unmount").on(path.display()).errno(errno);
        match errno {
            Errno::EBUSY => error.hint("another mount lies on top of it: unmount that first"),
            _ => error,
        }
    };
    let namespace = elsewhere.map(Elsewhere::open);
    if let Some(None) = namespace {
        return Ok(());
    }
    // In a process of its own: who enters another mount namespace has no way back, and what is to be
    // unmounted is named by the working directory.
    match process::clone3(0, None).or_fail(fail)? {
        Side::Child => {
            let entered = match namespace.flatten() {
                Some(namespace) => setns(&namespace, CloneFlags::CLONE_NEWNS),
                None => Ok(()),
            };
            let done = entered.and_then(|()| unmount_here(path, number));
            process::exit(done.map_or_else(|errno| errno as u8, |()| 0))
        }
        Side::Parent { pid, .. } => match waitpid(pid, None).or_fail(fail)? {
            WaitStatus::Exited(_, 0) => Ok(()),
            WaitStatus::Exited(_, errno) => Err(fail(Errno::from_raw(errno))),
            _ => Err(fail(Errno::ECHILD)),
        },
    }
}

fn unmount_here(path: &Path, number: u64) -> nix::Result<()> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    if let Ok(root) = open(path, flags, Mode::empty())
        && mount::lasting_mount_id(root.as_fd())? == number
    {
        nix::unistd::fchdir(&root)?;
        return umount2(".", MntFlags::MNT_DETACH);
    }
    match is_there(path, number) {
        true => Err(Errno::EBUSY),
        false => Ok(()),
    }
}

/// Whether it is mounted still, below another one or where `path` doesn't lead to any more.
fn is_there(path: &Path, number: u64) -> bool {
    mount::is_mounted(number).unwrap_or_else(|_| {
        // Before Linux 6.8, where the number is the one of mountinfo, which the next mount may have.
        let mounts = ::procfs::process::Process::myself().and_then(|process| process.mountinfo());
        mounts.is_ok_and(|mounts| {
            let mut mounts = mounts.0.iter();
            mounts.any(|mount| mount.mnt_id as u64 == number && mount.mount_point == path)
        })
    })
}
