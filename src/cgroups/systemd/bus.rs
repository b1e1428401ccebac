//! A connection to a manager of systemd, by its own socket or by the message bus, with a deadline on
//! everything.
//!
//! What is asked for is written at once, handshake and first calls together, as the D-Bus specification
//! allows ("Authentication Protocol"): the answers come in one go.

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::wire::{self, Call, Kind, Message, Writer};
use crate::error::{Error, Result, Step};

/// For one answer. As long as runc and systemd's own tools are willing to wait.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is longer is none of the answers that are waited for, and is passed over.
const LONGEST: usize = 1 << 20;

#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    address: String,
    /// What was received and not looked at yet.
    input: Vec<u8>,
    /// What is to be sent.
    output: Vec<u8>,
    serial: u32,
    end: Instant,
    /// How often something was received since.
    late: u32,
}

impl Connection {
    /// Connects as the user `uid`, and queues the handshake; [`Connection::greet`] reads its answer.
    pub fn open(address: &str, uid: u32) -> Result<Connection> {
        let fail = |errno: Errno| Error::new("connect to systemd").on(address).errno(errno);
        let name = name_of(address).ok_or_else(|| {
            Error::new("connect to systemd")
                .on(address)
                .because("not an address of a Unix socket")
        })?;
        let flags = SockFlag::SOCK_CLOEXEC;
        let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None).or_fail(fail)?;
        // While the listener's queue is full connect(2) waits, but not for ever: EAGAIN.
        let patience = TimeVal::seconds(PATIENCE.as_secs() as i64);
        setsockopt(&fd, sockopt::SendTimeout, &patience).or_fail(fail)?;
        loop {
            match connect(fd.as_raw_fd(), &name) {
                Err(Errno::EINTR) => {}
                done => break done.or_fail(fail)?,
            }
        }
        // EXTERNAL: the other side asks the kernel who this is and compares.
        let identity: String = uid
            .to_string()
            .bytes()
            .map(|digit| format!("{digit:x}"))
            .collect();
        Ok(Connection {
            stream: fd.into(),
            address: address.to_owned(),
            input: Vec::new(),
            output: format!("\0AUTH EXTERNAL {identity}\r\nBEGIN\r\n").into_bytes(),
            serial: 0,
            end: Instant::now() + PATIENCE,
            late: 0,
        })
    }

    /// Queues a call, and returns its number.
    pub fn call(&mut self, call: &Call, body: impl FnOnce(&mut Writer)) -> u32 {
        self.serial += 1;
        self.output.append(&mut call.encode(self.serial, body));
        self.serial
    }

    /// Sends what is queued. From now on the other side has its time to answer.
    pub fn send(&mut self) -> Result<()> {
        self.end = Instant::now() + PATIENCE;
        self.late = 0;
        let output = std::mem::take(&mut self.output);
        self.stream
            .set_write_timeout(Some(PATIENCE))
            .and_then(|()| (&self.stream).write_all(&output))
            .map_err(|error| self.failed(&error))
    }

    /// Reads the answer to the handshake.
    pub fn greet(&mut self) -> Result<()> {
        loop {
            if let Some(end) = self.input.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.input.drain(..end + 2).collect();
                if line.starts_with(b"OK ") {
                    return Ok(());
                }
                return Err(Error::new("connect to systemd")
                    .on(&self.address)
                    .because("it takes this user for nobody it serves")
                    .errno(Errno::EACCES));
            }
            // "OK" and 32 digits: more than that without an end is something else.
            if self.input.len() > 1024 {
                return Err(self.nonsense());
            }
            self.receive()?;
        }
    }

    /// The next message.
    pub fn next(&mut self) -> Result<Message> {
        loop {
            while self.input.len() < wire::FIXED {
                self.receive()?;
            }
            let fixed = self.input.first_chunk().and_then(wire::length);
            let length = fixed.ok_or_else(|| self.nonsense())?;
            if length > LONGEST {
                self.pass_over(length)?;
                continue;
            }
            while self.input.len() < length {
                self.receive()?;
            }
            let message = Message::decode(&self.input[..length]);
            self.input.drain(..length);
            return message.ok_or_else(|| self.nonsense());
        }
    }

    /// The answer to the call of that number; what else comes meanwhile is told to `other`.
    pub fn answer(&mut self, serial: u32, mut other: impl FnMut(Message)) -> Result<Message> {
        loop {
            let message = self.next()?;
            match message.kind {
                Kind::Reply | Kind::Error if message.reply_to == Some(serial) => {
                    return Ok(message);
                }
                _ => other(message),
            }
        }
    }

    fn receive(&mut self) -> Result<()> {
        /// What has come in time is read, should husk itself be late; who goes on talking is not heard out.
        const LATE: u32 = 64;
        let left = self.end.saturating_duration_since(Instant::now());
        self.late += u32::from(left.is_zero());
        if self.late > LATE {
            return Err(self.failed(&io::ErrorKind::WouldBlock.into()));
        }
        // A timeout of nothing would be none.
        let left = left.max(Duration::from_millis(1));
        let mut buffer = [0; 4096];
        loop {
            let count = self
                .stream
                .set_read_timeout(Some(left))
                .and_then(|()| (&self.stream).read(&mut buffer));
            match count {
                Ok(0) => {
                    return Err(Error::new("talk to systemd")
                        .on(&self.address)
                        .because("it closed the connection")
                        .errno(Errno::ECONNRESET));
                }
                Ok(count) => {
                    self.input.extend(&buffer[..count]);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(&error)),
            }
            if Instant::now() > self.end {
                return Err(self.failed(&io::ErrorKind::WouldBlock.into()));
            }
        }
    }

    fn pass_over(&mut self, length: usize) -> Result<()> {
        let mut left = length;
        loop {
            let here = left.min(self.input.len());
            self.input.drain(..here);
            left -= here;
            if left == 0 {
                return Ok(());
            }
            self.receive()?;
        }
    }

    fn failed(&self, error: &io::Error) -> Error {
        let failed = Error::new("talk to systemd").on(&self.address);
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => failed
                .because(format!("no answer within {} s", PATIENCE.as_secs()))
                .errno(Errno::ETIMEDOUT)
                .hint("systemd is stopped, or busy: see systemctl status"),
            _ => failed.errno(error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)),
        }
    }

    fn nonsense(&self) -> Error {
        Error::new("talk to systemd")
            .on(&self.address)
            .because("what it says is not D-Bus")
            .errno(Errno::EBADMSG)
    }
}

/// The socket's name in `unix:path=/run/bus,guid=…`, of whose values any byte may be written as `%2f`.
fn name_of(address: &str) -> Option<UnixAddr> {
    let pairs = address.strip_prefix("unix:")?;
    pairs.split(',').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        let value = unescape(value)?;
        match key {
            "path" => UnixAddr::new(value.as_slice()).ok(),
            "abstract" => UnixAddr::new_abstract(&value).ok(),
            _ => None,
        }
    })
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[2..];
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn addresses() {
        let path = |address: &str| {
            name_of(address).and_then(|name| Some(name.path()?.to_str()?.to_owned()))
        };
        assert_eq!(path("unix:path=/run/bus"), Some("/run/bus".into()));
        assert_eq!(path("unix:guid=5,path=/a%2cb"), Some("/a,b".into()));
        assert_eq!(path("unix:path=/a%2"), None);
        assert_eq!(path("unix:path=/a%zz"), None);
        assert_eq!(path("tcp:host=here"), None);
        assert_eq!(path(&format!("unix:path=/{}", "x".repeat(108))), None);
        let name = name_of("unix:abstract=/tmp/bus,guid=5").unwrap();
        assert_eq!(name.as_abstract(), Some(&b"/tmp/bus"[..]));
    }

    /// Says `said` to whoever connects.
    fn with_peer(said: &'static [u8], test: impl FnOnce(Connection)) {
        let say = |mut stream: UnixStream| drop(stream.write_all(said));
        with_talker(say, test);
    }

    fn with_talker(say: impl FnOnce(UnixStream) + Send + 'static, test: impl FnOnce(Connection)) {
        let dir = std::env::temp_dir().join(format!(
            "husk-bus-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("bus");
        let listener = UnixListener::bind(&path).unwrap();
        let peer = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = [0; 26];
            stream.read_exact(&mut line).unwrap();
            say(stream);
            line
        });
        let mut connection = Connection::open(&format!("unix:path={}", path.display()), 0).unwrap();
        connection.send().unwrap();
        test(connection);
        assert_eq!(&peer.join().unwrap(), b"\0AUTH EXTERNAL 30\r\nBEGIN\r\n");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_peer_that_accepts() {
        with_peer(b"OK 0123\r\n", |mut connection| {
            connection.greet().unwrap();
            let error = connection.next().unwrap_err();
            assert_eq!(error.code(), Some(Errno::ECONNRESET));
        });
    }

    #[test]
    fn a_peer_that_refuses() {
        with_peer(b"REJECTED EXTERNAL\r\n", |mut connection| {
            assert_eq!(connection.greet().unwrap_err().code(), Some(Errno::EACCES));
        });
    }

    #[test]
    fn a_peer_that_talks_something_else() {
        with_peer(b"OK 0123\r\nHTTP/1.1 400 Bad Request", |mut connection| {
            connection.greet().unwrap();
            assert_eq!(connection.next().unwrap_err().code(), Some(Errno::EBADMSG));
        });
        with_peer(&[b'x'; 2000], |mut connection| {
            assert_eq!(connection.greet().unwrap_err().code(), Some(Errno::EBADMSG));
        });
    }

    /// Each of its messages comes in time, and none is the answer.
    #[test]
    fn a_peer_that_never_stops_talking_is_not_heard_for_ever() {
        let chatter = |mut stream: UnixStream| {
            let signal = b"l\x04\0\x01\0\0\0\0\x01\0\0\0\0\0\0\0";
            while stream.write_all(signal).is_ok() {}
        };
        with_talker(chatter, |mut connection| {
            connection.end = Instant::now() + Duration::from_millis(50);
            let error = connection.answer(1, drop).unwrap_err();
            assert_eq!(error.code(), Some(Errno::ETIMEDOUT));
            drop(connection);
        });
    }

    #[test]
    fn nobody_there() {
        let error = Connection::open("unix:path=/nonexistent/bus", 0).unwrap_err();
        assert_eq!(error.code(), Some(Errno::ENOENT));
    }
}
