//! The socket between husk and the process that becomes the container: a few typed messages.
//!
//! Its end tells that the other side is gone; nobody waits for what will never come.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::Pid;

use crate::error::{Error, Result, Step};
use crate::log;
use crate::sys::socket;
use crate::trace;

/// From the container's process to husk.
#[derive(Debug)]
pub enum Report {
    /// The go-between made the process: its pid, and a pidfd of it.
    Forked(Pid, OwnedFd),
    /// The source of this entry of `mounts`: husk is to map its ids.
    Unmapped(usize, OwnedFd),
    /// Namespaces and mounts are there: hooks may run.
    Mounted,
    /// The master side of the terminal.
    Terminal(OwnedFd),
    /// husk's end of a socket that is the process's own.
    Connected(OwnedFd),
    /// Everything is set up but the program itself.
    Ready,
    Failed(Error),
}

/// From husk to the container's process: go on with the next step.
const GO: &[u8] = b"g";

/// With the listener of the seccomp filter that binds the process from now on.
const LISTENER: &[u8] = b"l";

/// An error with all its words fits; the kernel's limit for a message is far above.
const LONGEST: usize = 64 * 1024;

/// One end of the channel.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
}

fn lost(errno: Errno) -> Error {
    Error::new("talk to the container's process").errno(errno)
}

impl Channel {
    pub fn pair() -> Result<(Channel, Channel)> {
        let (one, other) = connection()?;
        Ok((Channel { socket: one }, Channel { socket: other }))
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub fn report(&self, report: &Report) -> Result<()> {
        let (bytes, fd) = match report {
            Report::Forked(pid, pidfd) => (format!("f{pid}").into_bytes(), Some(pidfd.as_fd())),
            Report::Unmapped(entry, tree) => (format!("i{entry}").into_bytes(), Some(tree.as_fd())),
            Report::Mounted => (b"m".to_vec(), None),
            Report::Terminal(master) => (b"t".to_vec(), Some(master.as_fd())),
            Report::Connected(socket) => (b"c".to_vec(), Some(socket.as_fd())),
            Report::Ready => (b"r".to_vec(), None),
            Report::Failed(error) => (failure(error), None),
        };
        socket::send(self.socket.as_fd(), &bytes, fd)
            .map(drop)
            .or_fail(lost)
    }

    /// A line for the log, which husk has open and its child doesn't. Nobody waits for it.
    pub fn debug(&self, message: fmt::Arguments<'_>) {
        if !log::enabled(log::Level::Debug) {
            return;
        }
        let mut bytes = format!("d{message}").into_bytes();
        bytes.truncate(LONGEST);
        let _ = socket::send(self.socket.as_fd(), &bytes, None);
    }

    /// `None` when the process is gone. What it has for the log is written on the way.
    pub fn next_report(&self) -> Result<Option<Report>> {
        let mut buffer = Vec::new();
        let (tag, rest, fd) = loop {
            let fd = match next_message(self.socket.as_fd(), &mut buffer) {
                Err(Errno::ECONNRESET) => return Ok(None),
                done => done.or_fail(lost)?,
            };
            match buffer.split_first() {
                None => return Ok(None),
                Some((b'd', text)) => log::debug(format_args!("{}", text.escape_ascii())),
                Some((&trace::EVENT, line)) => trace::relay(line),
                // Borrowed anew: the loop's own borrow would last.
                Some(_) => break (&buffer[0], &buffer[1..], fd),
            }
        };
        let number = || {
            std::str::from_utf8(rest)
                .ok()
                .and_then(|digits| digits.parse::<u32>().ok())
                .ok_or_else(|| lost(Errno::EBADMSG))
        };
        match (tag, fd) {
            (b'f', Some(pidfd)) => {
                let pid = Pid::from_raw(number()?.cast_signed());
                Ok(Some(Report::Forked(pid, pidfd)))
            }
            (b'i', Some(tree)) => Ok(Some(Report::Unmapped(number()? as usize, tree))),
            (b'm', None) => Ok(Some(Report::Mounted)),
            (b't', Some(master)) => Ok(Some(Report::Terminal(master))),
            (b'c', Some(socket)) => Ok(Some(Report::Connected(socket))),
            (b'r', None) => Ok(Some(Report::Ready)),
            (b'e', None) => Ok(Some(Report::Failed(read_failure(rest)))),
            _ => Err(lost(Errno::EBADMSG)),
        }
    }

    pub fn go(&self) -> Result<()> {
        socket::send(self.socket.as_fd(), GO, None)
            .map(drop)
            .or_fail(lost)
    }

    /// Waits for the next [`Channel::go`].
    ///
    /// # Errors
    /// `EPIPE` when husk is gone: then there is nobody to report to.
    pub fn wait(&self) -> Result<()> {
        let mut buffer = [0; 8];
        match socket::receive(self.socket.as_fd(), &mut buffer).or_fail(lost)? {
            (0, _) => Err(lost(Errno::EPIPE)),
            _ => Ok(()),
        }
    }
}

/// Two ends of a new connection.
pub fn connection() -> Result<(OwnedFd, OwnedFd)> {
    socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )
    .step("make socket", "for the container's process")
}

/// Puts the next message into `buffer`, nothing at the end, and gives the descriptor that came with it. Most
/// are a letter, and to clear what the longest takes costs more than to ask for the length.
fn next_message(socket: BorrowedFd, buffer: &mut Vec<u8>) -> nix::Result<Option<OwnedFd>> {
    let length = socket::next_length(socket)?;
    buffer.resize(length.min(LONGEST), 0);
    let (length, fd) = socket::receive(socket, buffer)?;
    buffer.truncate(length);
    Ok(fd)
}

/// A failure as bytes, for the channel and for `start`'s connection.
pub fn failure(error: &Error) -> Vec<u8> {
    let mut bytes = b"e".to_vec();
    bytes.extend(serde_json::to_vec(error).unwrap_or_default());
    bytes
}

fn read_failure(json: &[u8]) -> Error {
    serde_json::from_slice(json).unwrap_or_else(|_| Error::new("set up the container"))
}

/// Sends a seccomp listener to husk, and waits until the agent has it.
pub fn hand_over(connection: BorrowedFd, listener: BorrowedFd) -> Result<()> {
    socket::send(connection, LISTENER, Some(listener)).or_fail(lost)?;
    let mut buffer = [0; 8];
    match socket::receive(connection, &mut buffer).or_fail(lost)? {
        (0, _) => Err(lost(Errno::EPIPE)),
        _ => Ok(()),
    }
}

/// What `start` hears: nothing (the program runs), or why it doesn't. A seccomp listener may come
/// before, which goes to `deliver`.
pub fn read_outcome(
    connection: BorrowedFd,
    mut deliver: impl FnMut(OwnedFd) -> Result<()>,
) -> Result<()> {
    let mut buffer = Vec::new();
    loop {
        let listener = next_message(connection, &mut buffer).or_fail(lost)?;
        match (buffer.split_first(), listener) {
            (None, _) => return Ok(()),
            (_, Some(listener)) if buffer == LISTENER => {
                deliver(listener)?;
                socket::send(connection, GO, None).or_fail(lost)?;
            }
            (Some((&trace::EVENT, line)), _) => trace::relay(line),
            (Some((b'e', json)), _) => return Err(read_failure(json)),
            _ => return Err(lost(Errno::EBADMSG)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_arrive_as_they_were_sent() {
        let (husk, init) = Channel::pair().unwrap();
        let error = Error::config("/process/cwd", "x".repeat(30_000)).errno(Errno::EACCES);
        init.debug(format_args!("never seen, and in nobody's way"));
        init.report(&Report::Mounted).unwrap();
        init.report(&Report::Failed(error.clone())).unwrap();
        init.report(&Report::Terminal(init.socket.try_clone().unwrap()))
            .unwrap();
        assert!(matches!(husk.next_report().unwrap(), Some(Report::Mounted)));
        let Some(Report::Failed(received)) = husk.next_report().unwrap() else {
            panic!("not a failure");
        };
        assert_eq!(received, error);
        assert!(matches!(
            husk.next_report().unwrap(),
            Some(Report::Terminal(_))
        ));
    }

    #[test]
    fn the_end_is_seen_on_both_sides() {
        let (husk, init) = Channel::pair().unwrap();
        drop(init);
        assert!(husk.next_report().unwrap().is_none());
        assert_eq!(husk.go().unwrap_err().code(), Some(Errno::EPIPE));
        let (husk, init) = Channel::pair().unwrap();
        drop(husk);
        assert_eq!(init.wait().unwrap_err().code(), Some(Errno::EPIPE));
    }
}
