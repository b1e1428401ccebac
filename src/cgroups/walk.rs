//! The cgroups below a cgroup.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::file;
use crate::sys::file::openat;

/// Calls `visit` with each cgroup below `top`, as its parent's directory and its name, children
/// before their parent. What vanishes meanwhile is left out.
///
/// A container can nest cgroups as deeply as it likes, so neither the stack nor the number of
/// descriptors grows with depth: the way back is `..`, which is stable as cgroups can't be renamed.
pub fn below(
    top: BorrowedFd,
    mut visit: impl FnMut(BorrowedFd, &OsStr) -> nix::Result<()>,
) -> nix::Result<()> {
    let mut current = top.try_clone_to_owned().map_err(errno)?;
    let mut levels = vec![children(top)?];
    loop {
        let Some(level) = levels.last_mut() else {
            return Ok(());
        };
        if let Some(name) = level.last() {
            match file::open_dir(&current, name) {
                Ok(child) => {
                    levels.push(children(child.as_fd())?);
                    current = child;
                }
                Err(Errno::ENOENT) => drop(level.pop()),
                Err(errno) => return Err(errno),
            }
            continue;
        }
        levels.pop();
        let Some(name) = levels.last_mut().and_then(Vec::pop) else {
            return Ok(());
        };
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        current = openat(&current, "..", flags, Mode::empty())?;
        visit(current.as_fd(), &name)?;
    }
}

fn children(dir: BorrowedFd) -> nix::Result<Vec<OsString>> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    // A descriptor of its own: a shared one would share the position.
    let mut list = match Dir::openat(dir, ".", flags, Mode::empty()) {
        Err(Errno::ENOENT) => return Ok(Vec::new()),
        list => list?,
    };
    let mut names = Vec::new();
    for entry in list.iter() {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if entry.file_type() == Some(Type::Directory) && file::is_name(name) {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

fn errno(error: std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
