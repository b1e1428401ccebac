//! rtnetlink(7): requests to the kernel and its answers. Every length that comes in is checked.

use std::cell::Cell;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv, send,
    socket,
};

use crate::error::{Error, Result, Step};
use crate::sys;

/// struct nlmsghdr: length, type, flags, sequence number, port.
const HEADER: usize = 16;

/// A dump that was interrupted by a change is asked for again that often.
const DUMPS: u32 = 8;

/// What the kernel answers when it refuses: an errno, and words where it has some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub errno: Errno,
    pub words: Option<String>,
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Refusal {
        Refusal { errno, words: None }
    }
}

impl Refusal {
    pub fn explain(self, error: Error) -> Error {
        let error = error.errno(self.errno);
        match self.words {
            Some(words) => error.because(words),
            None => error,
        }
    }
}

/// A request: a header of its family's own and attributes.
#[derive(Debug, Clone)]
pub struct Request {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Request {
    /// `family` is struct ifinfomsg or struct ifaddrmsg.
    pub fn new(kind: u16, family: &[u8]) -> Request {
        let mut body = family.to_vec();
        pad(&mut body);
        Request {
            kind,
            flags: (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16,
            body,
        }
    }

    /// Asks for all there are.
    pub fn dump(mut self) -> Request {
        self.flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
        self
    }

    /// Asks for a new thing: one that is there already is `EEXIST`.
    pub fn create(mut self) -> Request {
        self.flags |= (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
        self
    }

    /// Attributes here are names, numbers and addresses: far from the 65535 bytes that fit in one.
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Request {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.body.extend(length.to_ne_bytes());
        self.body.extend(kind.to_ne_bytes());
        self.body.extend(&value[..usize::from(length - 4)]);
        pad(&mut self.body);
        self
    }

    pub fn number(self, kind: u16, value: u32) -> Request {
        self.attribute(kind, &value.to_ne_bytes())
    }

    pub fn name(self, kind: u16, name: &str) -> Request {
        let mut bytes = name.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    fn bytes(&self, sequence: u32) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + self.body.len());
        bytes.extend(((HEADER + self.body.len()) as u32).to_ne_bytes());
        bytes.extend(self.kind.to_ne_bytes());
        bytes.extend(self.flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend(0u32.to_ne_bytes());
        bytes.extend(&self.body);
        bytes
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// A conversation with the kernel about one network namespace.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: Cell<u32>,
}

impl Socket {
    /// About the network namespace that husk is in.
    pub fn open() -> Result<Socket> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )
        .step("make", "netlink socket")?;
        // From now on nobody but the kernel can send anything to it.
        connect(fd.as_raw_fd(), &NetlinkAddr::new(0, 0)).step("connect", "netlink socket")?;
        // Words in refusals are a courtesy of newer kernels.
        let _ = sys::link::explain_refusals(fd.as_fd());
        Ok(Socket {
            fd,
            sequence: Cell::new(0),
        })
    }

    /// About another one: a socket stays in the namespace in which it was made. `home` is where husk is.
    pub fn open_in(namespace: BorrowedFd, home: BorrowedFd) -> Result<Socket> {
        setns(namespace, CloneFlags::CLONE_NEWNET).step("enter", "the network namespace")?;
        let opened = Socket::open();
        // Whoever stays here finds nothing any more.
        let mut left = Ok(());
        for _ in 0..DUMPS {
            left = setns(home, CloneFlags::CLONE_NEWNET);
            if left.is_ok() {
                break;
            }
        }
        left.step("leave", "the network namespace")?;
        opened
    }

    /// Sends the request and collects the answers: family header and attributes of each.
    pub fn ask(&self, request: &Request) -> Result<Vec<Vec<u8>>, Refusal> {
        for _ in 0..DUMPS {
            if let Some(answers) = self.ask_once(request)? {
                return Ok(answers);
            }
        }
        Err(Errno::EINTR.into())
    }

    /// `None` for answers that don't belong together: something changed meanwhile.
    fn ask_once(&self, request: &Request) -> Result<Option<Vec<Vec<u8>>>, Refusal> {
        let sequence = self.sequence.get().wrapping_add(1);
        self.sequence.set(sequence);
        let fd = self.fd.as_raw_fd();
        retry(|| send(fd, &request.bytes(sequence), MsgFlags::empty()))?;
        let mut reader = Reader::new(sequence);
        loop {
            let size = retry(|| recv(fd, &mut [], MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC))?;
            let mut buffer = vec![0; size];
            let size = retry(|| recv(fd, &mut buffer, MsgFlags::MSG_TRUNC))?;
            if let Some(end) = reader.read(buffer.get(..size).ok_or(Errno::EMSGSIZE)?) {
                end?;
                return Ok((!reader.interrupted).then_some(reader.answers));
            }
        }
    }
}

fn retry(mut call: impl FnMut() -> nix::Result<usize>) -> nix::Result<usize> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            done => return done,
        }
    }
}

/// Takes the kernel's datagrams apart.
#[derive(Debug)]
struct Reader {
    sequence: u32,
    answers: Vec<Vec<u8>>,
    interrupted: bool,
}

impl Reader {
    fn new(sequence: u32) -> Reader {
        Reader {
            sequence,
            answers: Vec::new(),
            interrupted: false,
        }
    }

    /// One datagram of messages. `Some` when the answer is complete.
    fn read(&mut self, mut datagram: &[u8]) -> Option<Result<(), Refusal>> {
        const DONE: u16 = libc::NLMSG_DONE as u16;
        const ERROR: u16 = libc::NLMSG_ERROR as u16;
        while !datagram.is_empty() {
            let Some((kind, flags, sequence, payload)) = message(datagram) else {
                return Some(Err(Errno::EBADMSG.into()));
            };
            let length = (HEADER + payload.len()).next_multiple_of(4);
            datagram = datagram.get(length..).unwrap_or_default();
            if sequence != self.sequence {
                continue;
            }
            self.interrupted |= flags & libc::NLM_F_DUMP_INTR as u16 != 0;
            match kind {
                DONE | ERROR => return Some(outcome(kind == DONE, flags, payload)),
                _ => self.answers.push(payload.to_vec()),
            }
        }
        None
    }
}

/// The first message: type, flags, sequence number, payload.
fn message(bytes: &[u8]) -> Option<(u16, u16, u32, &[u8])> {
    let length = usize::try_from(word(bytes, 0)?).ok()?;
    let payload = bytes.get(HEADER..length)?;
    Some((half(bytes, 4)?, half(bytes, 6)?, word(bytes, 8)?, payload))
}

/// The end of an answer: a negative errno, or zero. The refused request stands behind it, cut to its
/// header where the kernel was asked to, then attributes (NLMSGERR_ATTR_MSG).
fn outcome(done: bool, flags: u16, payload: &[u8]) -> Result<(), Refusal> {
    const MESSAGE: u16 = 1;
    let errno = match word(payload, 0) {
        Some(0) => return Ok(()),
        Some(number) => Errno::from_raw((number as i32).wrapping_neg()),
        // The end of a dump, in kernels that say no more.
        None if done => return Ok(()),
        None => Errno::EBADMSG,
    };
    let behind = match (done, flags & libc::NLM_F_CAPPED as u16 != 0) {
        (true, _) => Some(4),
        (false, true) => Some(4 + HEADER),
        (false, false) => word(payload, 4)
            .and_then(|length| usize::try_from(length).ok())
            .map(|length| 4usize.saturating_add(length.next_multiple_of(4))),
    };
    let words = behind
        .filter(|_| flags & libc::NLM_F_ACK_TLVS as u16 != 0)
        .and_then(|behind| payload.get(behind..))
        .and_then(|rest| Attributes(rest).find(|(kind, _)| *kind == MESSAGE))
        .map(|(_, value)| text(value));
    Err(Refusal { errno, words })
}

/// The attributes in these bytes, as far as they are whole.
#[derive(Debug, Clone)]
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        /// Flags of the kind: nested, in network byte order.
        const FLAGS: u16 = 0xc000;
        let length = usize::from(half(self.0, 0)?);
        let value = self.0.get(4..length)?;
        let kind = half(self.0, 2)? & !FLAGS;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// A number in the host's byte order.
pub fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_ne_bytes(*bytes))
}

/// A string that ends with a NUL.
pub fn text(value: &[u8]) -> String {
    let end = value.iter().position(|&byte| byte == 0);
    String::from_utf8_lossy(&value[..end.unwrap_or(value.len())]).into_owned()
}

#[cfg(test)]
#[path = "netlink/tests.rs"]
mod tests;
