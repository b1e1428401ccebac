//! Files and directories that husk makes, truncates or replaces by a path of its caller's: a log, a pid
//! file, a `config.json`. Nothing else in husk does that by path, `clippy.toml` refuses it. What is in a
//! container's root is made through `rootfs::Rootfs`, what is in a record through its directory's
//! descriptor.
//!
//! The paths are the caller's own words, as behind a shell's `>`: links that stand in them are followed.
//! A name that husk makes up is not.
#![allow(clippy::disallowed_methods)]

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use crate::sys::file::{open, openat};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};

/// To append to, made when it isn't there (0644).
pub fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o644)
        .custom_flags(libc::O_CLOEXEC | libc::O_NOCTTY)
        .open(path)
}

/// # Errors
/// `EEXIST` if anything is there, a link that leads nowhere included.
pub fn make_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

/// Writes what is there anew, which may be a device or a pipe.
pub fn overwrite(path: &Path, bytes: &[u8]) -> io::Result<()> {
    std::fs::write(path, bytes)
}

/// A file (0644) that has no name yet.
pub struct Nameless(File);

/// Begins a file for the file system of `path`.
///
/// # Errors
/// `EOPNOTSUPP` where a file must have a name.
pub fn begin(path: &Path, bytes: &[u8]) -> io::Result<Nameless> {
    let flags = OFlag::O_WRONLY | OFlag::O_TMPFILE | OFlag::O_CLOEXEC;
    let file = open(parent(path), flags, Mode::from_bits_truncate(0o644))?;
    let mut file = File::from(file);
    file.write_all(bytes)?;
    Ok(Nameless(file))
}

impl Nameless {
    /// Gives it the name.
    ///
    /// # Errors
    /// `EEXIST` if anything has that, a link that leads nowhere included.
    pub fn appear(self, path: &Path) -> io::Result<()> {
        let own = format!("/proc/self/fd/{}", self.0.as_raw_fd());
        let follow = AtFlags::AT_SYMLINK_FOLLOW;
        Ok(linkat(AT_FDCWD, own.as_str(), AT_FDCWD, path, follow)?)
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Puts a file (0644) in the place of what is there, complete from the first moment on. A link there is
/// replaced, not followed.
///
/// # Errors
/// `EINVAL` for a path without a last name.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    const TRIES: u32 = 100;
    let name = path.file_name().ok_or(Errno::EINVAL)?;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let directory = open(parent(path), flags, Mode::empty())?;
    // Somebody else may write there, and know what husk would call it: only a new file will do.
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let mode = Mode::from_bits_truncate(0o644);
    let mut tries = 0..TRIES;
    let (hidden, file) = loop {
        let number = tries.next().ok_or(Errno::EEXIST)?;
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}-{number}", std::process::id()));
        match openat(&directory, hidden.as_os_str(), flags, mode) {
            Err(Errno::EEXIST) => {}
            made => break (hidden, made?),
        }
    };
    let written = File::from(file)
        .write_all(bytes)
        .and_then(|()| Ok(renameat(&directory, hidden.as_os_str(), &directory, name)?));
    if written.is_err() {
        let _ = unlinkat(&directory, hidden.as_os_str(), UnlinkatFlags::NoRemoveDir);
    }
    written
}

/// One write(2) to a file that the kernel has: some take no second one.
pub fn tell_kernel(path: impl AsRef<Path>, text: &str) -> io::Result<()> {
    File::options()
        .write(true)
        .open(path)?
        .write_all(text.as_bytes())
}

pub fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().mode(mode).create(path)
}

/// With those above it that are missing. One that is there is fine.
pub fn make_directories(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn directory(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("husk-files-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        path
    }

    #[test]
    fn what_is_replaced_is_never_written_through_a_link() {
        let dir = directory("links");
        fs::write(dir.join("canary"), "canary").unwrap();
        let pid = std::process::id();
        for name in ["pid".to_owned(), ".pid".into(), format!(".pid.{pid}-0")] {
            symlink("canary", dir.join(name)).unwrap();
        }
        replace(&dir.join("pid"), b"17").unwrap();
        assert_eq!(fs::read_to_string(dir.join("canary")).unwrap(), "canary");
        assert!(!fs::symlink_metadata(dir.join("pid")).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(dir.join("pid")).unwrap(), "17");
        // The canary, the file, two links that were in the way.
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 4);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_file_appears_whole_where_nothing_is() {
        let dir = directory("appears");
        let path = dir.join("pid");
        let Ok(file) = begin(&path, b"17") else {
            // No file without a name there.
            return fs::remove_dir_all(dir).unwrap();
        };
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        file.appear(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "17");
        let again = begin(&path, b"18").unwrap().appear(&path);
        assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        symlink("nowhere", dir.join("link")).unwrap();
        let link = dir.join("link");
        begin(&link, b"19").unwrap().appear(&link).unwrap_err();
        assert_eq!(fs::read_to_string(&path).unwrap(), "17");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 2);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_replacement_that_fails_leaves_nothing() {
        let dir = directory("fails");
        fs::create_dir(dir.join("pid")).unwrap();
        replace(&dir.join("pid"), b"17").unwrap_err();
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        fs::remove_dir_all(dir).unwrap();
    }
}
