//! Keeping the host's husk out of reach of containers.
//!
//! A process that enters a container shows its executable there as /proc/PID/exe, and an entrypoint
//! of `/proc/self/exe` runs it: opened for writing, that would be the host's binary (CVE-2019-5736).
//! So such a process runs from a read-only mount of the binary that nothing else is attached to: what
//! can be reached through /proc is `EROFS` for everybody.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, FcntlArg, FdFlag, OFlag, SealFlag, fcntl};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::{Mode, fstat};
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use nix::sys::statvfs::FsFlags;

use crate::error::{Error, Result, Step};
use crate::sys;
use crate::sys::file::openat;
use crate::sys::mount::{Attributes, clone_tree, set_attributes};
use crate::sys::start;

const SELF: &str = "/proc/self/exe";

fn seals() -> SealFlag {
    SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE
}

fn fail(errno: Errno) -> Error {
    Error::new("protect husk's own binary").errno(errno)
}

/// Runs husk again from where it can't be written, unless it already does. For every command that puts
/// a process into a container, and before anything else that has an effect. Then `luggage` comes along.
pub fn run_protected(luggage: impl FnOnce() -> Option<OwnedFd>) -> Result<()> {
    static DONE: AtomicBool = AtomicBool::new(false);
    if DONE.load(Ordering::Relaxed) {
        return Ok(());
    }
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let executable = openat(AT_FDCWD, SELF, flags, Mode::empty())
        .or_fail(|errno| fail(errno).hint("husk needs /proc to be mounted"))?;
    if !is_protected(&executable)? {
        return Err(fail(run_again(&executable, luggage)?));
    }
    *kept() = Kept::adopt(&executable);
    DONE.store(true, Ordering::Relaxed);
    Ok(())
}

/// What gets through the execution. The kernel's first table of descriptors has 64.
#[derive(Debug)]
struct Kept {
    /// To close it is to unmount, for which the kernel waits until no processor looks at the mount any more
    /// (synchronize_rcu_expedited), so it is left for when husk waits anyway.
    mount: Option<OwnedFd>,
    luggage: Option<OwnedFd>,
}

/// The number of the mount tells whether there is luggage: who calls husk may have left any number open, but not
/// for a mount of its binary.
const MOUNT: RawFd = 60;
const MOUNT_WITH_LUGGAGE: RawFd = 62;
const LUGGAGE: RawFd = 61;

static KEPT: Mutex<Kept> = Mutex::new(Kept {
    mount: None,
    luggage: None,
});

fn kept() -> MutexGuard<'static, Kept> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Kept {
    /// The luggage is made only if there is a number for it. Whether it was.
    fn leave(mount: &OwnedFd, luggage: impl FnOnce() -> Option<OwnedFd>) -> bool {
        if sys::fd::is_open(LUGGAGE as u32) || !keep(mount, MOUNT_WITH_LUGGAGE) {
            keep(mount, MOUNT);
            return false;
        }
        luggage().is_some_and(|luggage| keep(&luggage, LUGGAGE))
    }

    fn adopt(executable: &OwnedFd) -> Kept {
        if let Some(mount) = adopt_mount(MOUNT_WITH_LUGGAGE, executable) {
            let luggage = sys::fd::adopt(LUGGAGE).ok();
            if let Some(luggage) = &luggage {
                close_on_exec(luggage);
            }
            let mount = Some(mount);
            return Kept { mount, luggage };
        }
        Kept {
            mount: adopt_mount(MOUNT, executable),
            luggage: None,
        }
    }
}

/// Whether it could have the number.
fn keep(fd: &OwnedFd, number: RawFd) -> bool {
    match fcntl(fd, FcntlArg::F_DUPFD(number)) {
        Ok(got) if got == number => true,
        // The number is the caller's.
        Ok(other) => {
            drop(sys::fd::adopt(other));
            false
        }
        Err(_) => false,
    }
}

fn close_on_exec(fd: &OwnedFd) {
    let _ = fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
}

fn adopt_mount(number: RawFd, executable: &OwnedFd) -> Option<OwnedFd> {
    let fd = sys::fd::adopt(number).ok()?;
    let flags = fcntl(&fd, FcntlArg::F_GETFL).unwrap_or(0);
    let is_ours = || {
        let (it, this) = (fstat(&fd).ok()?, fstat(executable).ok()?);
        Some((it.st_dev, it.st_ino) == (this.st_dev, this.st_ino))
    };
    if flags & libc::O_PATH != 0 && is_ours() == Some(true) {
        close_on_exec(&fd);
        return Some(fd);
    }
    let _ = fd.into_raw_fd();
    None
}

/// Whether the descriptor of this number is none of the caller's.
pub fn holds(number: u32) -> bool {
    let kept = kept();
    let mut fds = kept.mount.iter().chain(&kept.luggage);
    fds.any(|fd| fd.as_raw_fd() as u32 == number)
}

/// What came along.
pub fn luggage() -> Option<OwnedFd> {
    kept().luggage.take()
}

/// Unmounts what only its descriptor has kept so far. For when there is nothing else to do.
pub fn let_go() {
    drop(kept().mount.take());
}

fn is_protected(executable: &OwnedFd) -> Result<bool> {
    let fs = fstatfs(executable).or_fail(fail)?;
    let read_only = fs.flags().contains(FsFlags::ST_RDONLY);
    // The kernel keeps what memfd_create(2) makes in a tmpfs of its own.
    Ok(read_only || fs.filesystem_type() == TMPFS_MAGIC && is_sealed())
}

/// Why it didn't.
fn run_again(executable: &OwnedFd, luggage: impl FnOnce() -> Option<OwnedFd>) -> Result<Errno> {
    let mut left = false;
    let copy = match read_only_mount(executable) {
        // Without the privilege to mount.
        Err(Errno::EPERM) => sealed_copy().or_fail(fail)?,
        done => done
            .inspect(|mount| left = Kept::leave(mount, luggage))
            .or_fail(fail)?,
    };
    let failed = start::again(copy.as_fd());
    if left {
        kept().luggage = sys::fd::adopt(LUGGAGE).ok();
    }
    Ok(failed)
}

fn is_sealed() -> bool {
    File::open(SELF)
        .ok()
        .and_then(|file| fcntl(&file, FcntlArg::F_GET_SEALS).ok())
        .is_some_and(|found| SealFlag::from_bits_truncate(found).contains(seals()))
}

/// A detached mount: once this process image is gone, so is the last reference to it.
fn read_only_mount(executable: &OwnedFd) -> nix::Result<OwnedFd> {
    let tree = clone_tree(executable.as_raw_fd(), "", false)?;
    set_attributes(
        tree.as_fd(),
        false,
        Attributes {
            set: libc::MOUNT_ATTR_RDONLY,
            ..Attributes::default()
        },
    )?;
    Ok(tree)
}

fn sealed_copy() -> nix::Result<OwnedFd> {
    // MFD_EXEC, Linux 6.3: where vm.memfd_noexec is set, execution must be asked for.
    let executable = MFdFlags::from_bits_retain(0x10);
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let memory = match memfd_create(c"husk", flags | executable) {
        Err(Errno::EINVAL) => memfd_create(c"husk", flags)?,
        done => done?,
    };
    let mut copy = File::from(memory);
    let mut original = File::open(SELF).map_err(errno_of)?;
    std::io::copy(&mut original, &mut copy).map_err(errno_of)?;
    fcntl(&copy, FcntlArg::F_ADD_SEALS(seals()))?;
    Ok(copy.into())
}

fn errno_of(error: std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
