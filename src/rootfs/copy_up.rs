//! `tmpcopyup`: what a directory holds, copied into the tmpfs that is about to cover it.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::Result;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, copy_file_range, readlinkat};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstat, mkdirat,
    mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat, symlinkat};

use super::handle::{is_kind, stat_at};
use crate::sys::file::openat;
use crate::sys::xattr;

/// Directories deeper than this are refused (`ELOOP`) rather than run out of stack.
const DEPTH: usize = 256;

/// Copies below `from` (a handle) into `to`: files, directories, links, device nodes, with owner, mode,
/// extended attributes and time of change. Symbolic links are copied, never followed.
pub fn copy(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    let from = openat(
        from,
        ".",
        OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    copy_directory(from, to.as_fd(), 0)
}

fn copy_directory(from: OwnedFd, to: BorrowedFd, depth: usize) -> Result<()> {
    if depth > DEPTH {
        return Err(Errno::ELOOP);
    }
    let source = from.try_clone().map_err(|_| Errno::EMFILE)?;
    for entry in Dir::from_fd(from)?.iter() {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        copy_entry(source.as_fd(), to, name, depth)?;
    }
    Ok(())
}

fn copy_entry(from: BorrowedFd, to: BorrowedFd, name: &OsStr, depth: usize) -> Result<()> {
    let stat = stat_at(from, name)?;
    let mode = Mode::from_bits_truncate(stat.st_mode & 0o7777);
    if is_kind(&stat, SFlag::S_IFDIR) {
        mkdirat(to, name, Mode::S_IRWXU)?;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let below = openat(from, name, flags, Mode::empty())?;
        let copy = openat(to, name, flags, Mode::empty())?;
        let source = below.try_clone().map_err(|_| Errno::EMFILE)?;
        copy_directory(below, copy.as_fd(), depth + 1)?;
        own(to, name, &stat)?;
        copy_attributes(source.as_fd(), copy.as_fd())?;
        fchmod(&copy, mode)?;
    } else if is_kind(&stat, SFlag::S_IFLNK) {
        symlinkat(readlinkat(from, name)?.as_os_str(), to, name)?;
        own(to, name, &stat)?;
    } else if is_kind(&stat, SFlag::S_IFREG) {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let source = openat(from, name, flags, Mode::empty())?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let copy = openat(to, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
        copy_bytes(&source, &copy)?;
        own(to, name, &stat)?;
        copy_attributes(source.as_fd(), copy.as_fd())?;
        fchmod(&copy, mode)?;
    } else {
        mknodat(
            to,
            name,
            SFlag::from_bits_truncate(stat.st_mode),
            mode,
            stat.st_rdev,
        )?;
        own(to, name, &stat)?;
        fchmodat(to, name, mode, FchmodatFlags::FollowSymlink)?;
    }
    let changed = TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec);
    utimensat(
        to,
        name,
        &changed,
        &changed,
        UtimensatFlags::NoFollowSymlink,
    )
}

fn own(directory: BorrowedFd, name: &OsStr, stat: &FileStat) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    fchownat(
        directory,
        name,
        Some(uid),
        Some(gid),
        AtFlags::AT_SYMLINK_NOFOLLOW,
    )
}

/// Extended attributes, file capabilities and access lists among them: after the owner, whose change
/// takes capabilities away.
fn copy_attributes(from: BorrowedFd, to: BorrowedFd) -> Result<()> {
    let names = match xattr::list(from) {
        Err(Errno::EOPNOTSUPP) => return Ok(()),
        names => names?,
    };
    for name in names {
        // Labels are the policy's to give, and trusted attributes belong to the filesystem below.
        let text = name.to_bytes();
        if text.starts_with(b"trusted.") || text == b"security.selinux" {
            continue;
        }
        match xattr::set(to, &name, &xattr::get(from, &name)?) {
            // A tmpfs has those of users only since Linux 6.6.
            Ok(()) | Err(Errno::EOPNOTSUPP) => {}
            failed => failed?,
        }
    }
    Ok(())
}

fn copy_bytes(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    let mut left = fstat(from)?.st_size as usize;
    while left > 0 {
        match copy_file_range(from, None, to, None, left) {
            Ok(0) => break,
            Ok(copied) => left = left.saturating_sub(copied),
            // Across filesystems that can't: by way of memory.
            Err(Errno::EXDEV | Errno::EOPNOTSUPP | Errno::EINVAL) => {
                return copy_through_memory(from, to, left);
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// `left` bytes at most: what is written to the source meanwhile would have no end.
fn copy_through_memory(from: &OwnedFd, to: &OwnedFd, mut left: usize) -> Result<()> {
    let mut buffer = vec![0; 1 << 16];
    while left > 0 {
        let most = buffer.len().min(left);
        let length = match nix::unistd::read(from, &mut buffer[..most]) {
            Ok(0) => break,
            Err(Errno::EINTR) => continue,
            length => length?,
        };
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            let written = nix::unistd::write(to, rest)?;
            rest = &rest[written..];
        }
        left -= length;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::memfd::{MFdFlags, memfd_create};

    #[test]
    fn a_source_that_grows_is_copied_as_long_as_it_was() {
        let memory = || memfd_create(c"copy", MFdFlags::MFD_CLOEXEC).unwrap();
        let (from, to) = (memory(), memory());
        nix::unistd::write(&from, &[7; 100_000]).unwrap();
        nix::unistd::lseek(&from, 0, nix::unistd::Whence::SeekSet).unwrap();
        copy_through_memory(&from, &to, 70_000).unwrap();
        assert_eq!(fstat(&to).unwrap().st_size, 70_000);
        copy_through_memory(&from, &to, 1_000_000).unwrap();
        assert_eq!(fstat(&to).unwrap().st_size, 100_000);
    }
}
