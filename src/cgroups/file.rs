//! Single files and directories of a cgroup, relative to its directory.
//!
//! A name is one path element: what came from config.json can't lead elsewhere.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use crate::sys::file::openat;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::{Whence, lseek};

/// What can be a directory or file in a cgroup: one path element that names something below.
pub fn is_name(name: &OsStr) -> bool {
    let bytes = name.as_bytes();
    !(bytes.is_empty()
        || bytes == b"."
        || bytes == b".."
        || bytes.iter().any(|byte| matches!(byte, b'/' | b'\n' | 0)))
}

/// # Errors
/// `EINVAL` for what is no name.
pub fn open(at: impl AsFd, name: impl AsRef<OsStr>, flags: OFlag) -> nix::Result<OwnedFd> {
    let name = name.as_ref();
    if !is_name(name) {
        return Err(Errno::EINVAL);
    }
    let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(at, name, flags, Mode::empty())
}

/// The directory of a cgroup below `at`, readable: for listing, clone3(2) and bpf(2).
pub fn open_dir(at: impl AsFd, name: impl AsRef<OsStr>) -> nix::Result<OwnedFd> {
    open(at, name, OFlag::O_RDONLY | OFlag::O_DIRECTORY)
}

pub fn read(at: impl AsFd, name: &str) -> nix::Result<String> {
    read_whole(open(at, name, OFlag::O_RDONLY)?)
}

/// A file that the kernel makes as one piece: all but the lists of processes. What comes short
/// of the buffer is the whole, so no second read(2) asks for the end.
pub fn read_whole(file: OwnedFd) -> nix::Result<String> {
    let mut buffer = [0; 4096];
    loop {
        match nix::unistd::read(&file, &mut buffer) {
            Ok(count) if count < buffer.len() => {
                return Ok(String::from_utf8_lossy(&buffer[..count]).into_owned());
            }
            Ok(_) => break,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    lseek(&file, 0, Whence::SeekSet)?;
    read_from(file)
}

pub fn read_all(at: impl AsFd, name: &str) -> nix::Result<String> {
    read_from(open(at, name, OFlag::O_RDONLY)?)
}

pub fn read_from(file: impl AsFd) -> nix::Result<String> {
    let text = crate::sys::fd::read_to_end(file.as_fd())?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// In one write(2), as the kernel takes each as a whole.
pub fn write(at: impl AsFd, name: &str, value: &str) -> nix::Result<()> {
    let file = open(at, name, OFlag::O_WRONLY)?;
    loop {
        match nix::unistd::write(&file, value.as_bytes()) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// The value of a line `key value` of a flat keyed file such as `cgroup.events`.
pub fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (name == key).then(|| value.parse().ok())?
    })
}
