//! Whether the source of a mount is the container's, when its path comes to the root by other names than the
//! root's own: through a link of the host, or with `..`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, stat};

use super::handle::{MAX_LINKS, components_of, is_kind};
use crate::sys::file::{open, openat, openat2};

/// Where a path leads that is more than names of directories.
#[derive(Debug, PartialEq, Eq)]
pub enum Place {
    /// From the container's root on: links on the way are the image's.
    Below(PathBuf),
    /// On the host, without links.
    Host(PathBuf),
}

/// Whether a path that begins at the root doesn't name what is outside.
pub fn stays_below(path: &Path) -> bool {
    leave(&components_of(path)).is_none()
}

/// Follows the links of an absolute path, until it comes to `root`. `None` if there is none to follow, or
/// if nothing is there.
pub fn resolve(path: &Path, root: &Path) -> Option<Place> {
    let plain = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    match openat2(AT_FDCWD, path, plain) {
        Err(Errno::ELOOP) => walk(path, &stat(root).ok()?).ok(),
        _ => None,
    }
}

fn walk(path: &Path, root: &FileStat) -> nix::Result<Place> {
    const FLAGS: OFlag = OFlag::O_PATH
        .union(OFlag::O_NOFOLLOW)
        .union(OFlag::O_CLOEXEC);
    let top = || open("/", FLAGS, Mode::empty());
    let mut here = top()?;
    let mut resolved = PathBuf::from("/");
    // The next name last.
    let mut rest = components_of(path);
    let mut links = 0;
    while let Some(name) = rest.pop() {
        let next = openat(&here, &*name, FLAGS, Mode::empty())?;
        let found = fstat(&next)?;
        if is_kind(&found, SFlag::S_IFLNK) {
            links += 1;
            if links > MAX_LINKS {
                return Err(Errno::ELOOP);
            }
            let target = PathBuf::from(readlinkat(&next, "")?);
            if target.is_absolute() {
                here = top()?;
                resolved = "/".into();
            }
            rest.extend(components_of(&target));
            continue;
        }
        here = next;
        match name == ".." {
            true => drop(resolved.pop()),
            false => resolved.push(name),
        }
        if (found.st_dev, found.st_ino) == (root.st_dev, root.st_ino) {
            match leave(&rest) {
                None => return Ok(Place::Below(rest.iter().rev().collect())),
                Some(outside) => rest.truncate(outside),
            }
        }
    }
    Ok(Place::Host(resolved))
}

/// How many names, counted from the end, are left of a path when it has left the directory that it begins in.
fn leave(rest: &[OsString]) -> Option<usize> {
    let mut depth = 0_usize;
    for (left, name) in rest.iter().enumerate().rev() {
        match name == ".." {
            false => depth += 1,
            true if depth == 0 => return Some(left + 1),
            true => depth -= 1,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leaves_where_it_began() {
        for (path, stays) in [
            ("", true),
            ("a/../b", true),
            ("a/..", true),
            ("..", false),
            ("a/../../b", false),
            ("../rootfs", false),
        ] {
            assert_eq!(stays_below(Path::new(path)), stays, "{path}");
        }
    }
}
