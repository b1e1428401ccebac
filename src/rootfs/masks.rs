//! `maskedPaths` and `readonlyPaths`: parts of the tree hidden or protected, after everything else.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;
use nix::sys::stat::{SFlag, fstat, makedev};

use super::handle::{Rootfs, is_kind};
use super::label::Label;
use crate::error::{Error, Result, Step};
use crate::sys::mount::{self, Attributes, Context};

fn error(step: &'static str, path: &Path, pointer: &str, index: usize) -> Error {
    Error::new(step)
        .on(path.display())
        .at(format!("/linux/{pointer}/{index}"))
}

/// Finds what is at a path of the container.
type Lookup<'a> = &'a dyn Fn(&Path) -> nix::Result<OwnedFd>;

/// Makes each path that exists read-only, by a mount of itself on itself.
pub fn protect(lookup: Lookup, paths: &[PathBuf]) -> Result<()> {
    for (index, path) in paths.iter().enumerate() {
        let fail = |errno| error("make read-only", path, "readonlyPaths", index).errno(errno);
        let target = match lookup(path) {
            Ok(target) => target,
            Err(Errno::ENOENT | Errno::ENOTDIR) => continue,
            Err(errno) => return Err(fail(errno)),
        };
        let tree = clone_of(&target).or_fail(fail)?;
        let read_only = Attributes {
            set: libc::MOUNT_ATTR_RDONLY,
            ..Attributes::default()
        };
        mount::set_attributes(tree.as_fd(), false, read_only).or_fail(fail)?;
        mount::move_mount(tree.as_fd(), target.as_fd()).or_fail(fail)?;
    }
    Ok(())
}

fn clone_of(file: &OwnedFd) -> nix::Result<OwnedFd> {
    use std::os::fd::AsRawFd;
    mount::clone_tree(file.as_raw_fd(), "", true)
}

/// Hides each path that exists: a directory behind an empty read-only tmpfs, one for all of them, and
/// anything else behind the container's /dev/null.
pub fn mask(root: &Rootfs, lookup: Lookup, paths: &[PathBuf], label: Option<&Label>) -> Result<()> {
    let mut null = None;
    let mut empty = None;
    for (index, path) in paths.iter().enumerate() {
        let fail = |errno| error("mask", path, "maskedPaths", index).errno(errno);
        let target = match lookup(path) {
            Ok(target) => target,
            Err(Errno::ENOENT | Errno::ENOTDIR) => continue,
            Err(errno) => return Err(fail(errno)),
        };
        let stat = fstat(&target).or_fail(fail)?;
        let cover = if is_kind(&stat, SFlag::S_IFDIR) {
            match &empty {
                Some(first) => clone_of(first).or_fail(fail)?,
                None => {
                    let tmpfs = empty_directory(label).or_fail(fail)?;
                    mount::move_mount(tmpfs.as_fd(), target.as_fd()).or_fail(fail)?;
                    empty = Some(tmpfs);
                    continue;
                }
            }
        } else if is_null(&stat) {
            // Masked already: the same path twice, or a runtime around this one.
            continue;
        } else {
            let null = match &null {
                Some(null) => null,
                None => null.insert(open_null(root, path, index)?),
            };
            let cover = clone_of(null).or_fail(fail)?;
            let private = Attributes {
                propagation: libc::MS_PRIVATE,
                ..Attributes::default()
            };
            mount::set_attributes(cover.as_fd(), false, private).or_fail(fail)?;
            cover
        };
        mount::move_mount(cover.as_fd(), target.as_fd()).or_fail(fail)?;
    }
    Ok(())
}

fn is_null(stat: &nix::sys::stat::FileStat) -> bool {
    is_kind(stat, SFlag::S_IFCHR) && stat.st_rdev == makedev(1, 3)
}

/// The container's own /dev/null, looked at before it is trusted: in its place an image may have put
/// a link to a file of procfs, which masking would then make writable (CVE-2025-31133).
fn open_null(root: &Rootfs, path: &Path, index: usize) -> Result<OwnedFd> {
    let fail = || error("mask", path, "maskedPaths", index);
    let null = root
        .lookup_plain(Path::new("dev/null"))
        .or_fail(|errno| fail().because("/dev/null of the container").errno(errno))?;
    match is_null(&fstat(&null).or_fail(|errno| fail().errno(errno))?) {
        true => Ok(null),
        false => Err(fail().because("/dev/null of the container is not the null device")),
    }
}

/// Nothing to see and nothing to write.
pub(super) fn empty_directory(label: Option<&Label>) -> nix::Result<OwnedFd> {
    let context = Context::open(c"tmpfs")?;
    context.set_string(c"nr_blocks", c"1")?;
    context.set_string(c"nr_inodes", c"1")?;
    context.set_string(c"mode", c"755")?;
    if let Some(label) = label {
        label.configure(&context)?;
    }
    let attributes = libc::MOUNT_ATTR_RDONLY
        | libc::MOUNT_ATTR_NOSUID
        | libc::MOUNT_ATTR_NODEV
        | libc::MOUNT_ATTR_NOEXEC;
    context.mount(attributes).map_err(|(errno, _)| errno)
}
