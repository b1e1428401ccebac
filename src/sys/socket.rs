//! Unix sockets that carry whole messages, and descriptors with them, unix(7).

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::Result;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
    connect, recv, recvmsg, sendmsg, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use super::file::through_signals;

/// A stream to who listens at `path`. How long he may take to accept, and to read what is sent later, is
/// limited.
///
/// # Errors
/// `ETIMEDOUT`.
pub fn connect_within(path: &Path, time: Duration) -> Result<OwnedFd> {
    let socket = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let limit = TimeVal::new(time.as_secs() as _, 0);
    setsockopt(&socket, sockopt::SendTimeout, &limit)?;
    match connect(socket.as_raw_fd(), &UnixAddr::new(path)?) {
        Err(Errno::EAGAIN) => Err(Errno::ETIMEDOUT),
        done => done.map(|()| socket),
    }
}

/// Sends one message; `EPIPE` when the other side is gone, never a signal. Of a stream's bytes maybe
/// only so many as are returned.
pub fn send(socket: BorrowedFd, bytes: &[u8], fd: Option<BorrowedFd>) -> Result<usize> {
    let fds = fd.map(|fd| [fd.as_raw_fd()]);
    let control = fds.as_ref().map(|fds| ControlMessage::ScmRights(fds));
    loop {
        let sent = sendmsg::<()>(
            socket.as_raw_fd(),
            &[IoSlice::new(bytes)],
            control.as_slice(),
            MsgFlags::MSG_NOSIGNAL,
            None,
        );
        match sent {
            Err(Errno::EINTR) => {}
            done => return done,
        }
    }
}

/// Waits for the next message: how long it is, 0 when the other side is gone.
pub fn next_length(socket: BorrowedFd) -> Result<usize> {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC;
    through_signals(|| recv(socket.as_raw_fd(), &mut [], flags))
}

/// Receives one message into `buffer`: its length, 0 when the other side is gone, and the descriptor
/// that came along, close-on-exec.
pub fn receive(socket: BorrowedFd, buffer: &mut [u8]) -> Result<(usize, Option<OwnedFd>)> {
    receive_as(socket, buffer, MsgFlags::empty())
}

/// The same, and the message stays where it is: the descriptor is another one of the same file.
pub fn peek(socket: BorrowedFd, buffer: &mut [u8]) -> Result<(usize, Option<OwnedFd>)> {
    receive_as(socket, buffer, MsgFlags::MSG_PEEK)
}

fn receive_as(
    socket: BorrowedFd,
    buffer: &mut [u8],
    flags: MsgFlags,
) -> Result<(usize, Option<OwnedFd>)> {
    let mut space = nix::cmsg_space!(std::os::fd::RawFd);
    loop {
        let mut slices = [IoSliceMut::new(buffer)];
        let message = match recvmsg::<()>(
            socket.as_raw_fd(),
            &mut slices,
            Some(&mut space),
            flags | MsgFlags::MSG_CMSG_CLOEXEC,
        ) {
            Err(Errno::EINTR) => continue,
            done => done?,
        };
        let mut received = None;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(fds) = control {
                for fd in fds {
                    // SAFETY: the kernel just made it for this process, and nobody else has it.
                    received = Some(unsafe { OwnedFd::from_raw_fd(fd) });
                }
            }
        }
        return Ok((message.bytes, received));
    }
}
