//! A Unix socket to which the runtime brings a descriptor.

use std::io::{IoSliceMut, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg};

use crate::lab::patience;
use crate::sys;

pub struct Receiver {
    pub path: PathBuf,
    listener: UnixListener,
}

impl Receiver {
    pub fn new(path: &Path) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        Receiver {
            path: path.to_owned(),
            listener,
        }
    }

    pub fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// The one descriptor of the next connection, which must come with its first bytes, and all its text.
    #[track_caller]
    pub fn receive(&self) -> (OwnedFd, String) {
        assert!(self.is_called(), "nobody connects");
        self.accept()
    }

    /// Whether somebody connects before patience is at its end.
    pub fn is_called(&self) -> bool {
        sys::readable(&self.listener, patience()).unwrap()
    }

    /// As [`Receiver::receive`], but waits for ever.
    pub fn accept(&self) -> (OwnedFd, String) {
        read(self.listener.accept().unwrap().0)
    }

    pub fn has_waiting(&self) -> bool {
        sys::readable(&self.listener, std::time::Duration::ZERO).unwrap()
    }
}

fn read(mut stream: UnixStream) -> (OwnedFd, String) {
    let mut bytes = vec![0u8; 4096];
    let mut space = nix::cmsg_space!([RawFd; 4]);
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message =
        recvmsg::<UnixAddr>(stream.as_raw_fd(), &mut slices, Some(&mut space), flags).unwrap();
    let fds: Vec<OwnedFd> = message
        .cmsgs()
        .unwrap()
        .filter_map(|c| match c {
            ControlMessageOwned::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        // SAFETY: the kernel has just made these descriptors for us.
        .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
        .collect();
    let length = message.bytes;
    let [fd]: [OwnedFd; 1] = fds.try_into().expect("one descriptor");
    bytes.truncate(length);
    stream.read_to_end(&mut bytes).unwrap();
    (fd, String::from_utf8(bytes).unwrap())
}
