//! Opening files: as nix has it, but a signal that comes meanwhile isn't a failure (open(2), EINTR: what a FUSE
//! filesystem has, or the network, may take long).

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{self, OFlag, OpenHow};
use nix::sys::stat::Mode;
use nix::{NixPath, Result};

/// Again, as long as a signal gets in the way.
pub fn through_signals<T>(mut call: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            done => return done,
        }
    }
}

pub fn open<P: ?Sized + NixPath>(path: &P, flags: OFlag, mode: Mode) -> Result<OwnedFd> {
    through_signals(|| fcntl::open(path, flags, mode))
}

pub fn openat<P: ?Sized + NixPath>(
    directory: impl AsFd,
    path: &P,
    flags: OFlag,
    mode: Mode,
) -> Result<OwnedFd> {
    through_signals(|| fcntl::openat(directory.as_fd(), path, flags, mode))
}

pub fn openat2<P: ?Sized + NixPath>(
    directory: impl AsFd,
    path: &P,
    how: OpenHow,
) -> Result<OwnedFd> {
    through_signals(|| fcntl::openat2(directory.as_fd(), path, how))
}
