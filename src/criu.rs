//! CRIU, which writes processes into files and makes them again: the calls that it answers at a socket
//! (<https://criu.org/RPC>), and what it leaves in its log. It is a program of its own, not linked.

mod request;
mod wire;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, Shutdown, SockFlag, SockType, shutdown, socketpair};
use nix::unistd::Pid;

pub use self::request::{
    CgroupMode, Choices, External, Kind, Options, acknowledge, ask_for_features,
};
pub use self::wire::Message;
use self::wire::{Fields, Value};
use crate::error::{Error, Result, Step};
use crate::log;
use crate::sys::socket;

/// Under this name a checkpoint keeps the list of its standard streams, as the field does.
pub const DESCRIPTORS: &str = "descriptors.json";

/// Where CRIU's options are read from unless the annotation `org.criu.config` names another file.
pub const CONFIG: &str = "/etc/criu/runc.conf";
pub const CONFIG_ANNOTATION: &str = "org.criu.config";

/// Larger than any answer.
const LONGEST: usize = 64 * 1024;

/// How much of a log is looked at, from its end.
const LOG: u64 = 64 * 1024;
/// How many lines of it are shown.
const EXCERPT: usize = 3;
/// And how many characters.
const LINE: usize = 300;

/// A moment in CRIU's work at which it waits for husk.
#[derive(Debug)]
pub struct Notice<'a> {
    /// As of its action scripts: `setup-namespaces`, `post-restore`, and others.
    pub script: &'a str,
    /// The first process, if there is one.
    pub pid: Option<Pid>,
    /// What came along: the terminal's master.
    pub fd: Option<OwnedFd>,
}

/// `criu_resp`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answer {
    kind: u64,
    pub success: bool,
    pub errno: Option<i32>,
    pub message: Option<String>,
    notice: Option<(String, Option<i32>)>,
    /// Of [`Kind::Features`].
    pub tracks_memory: bool,
    pub lazy_pages: bool,
}

impl Answer {
    fn parse(bytes: &[u8]) -> nix::Result<Answer> {
        let mut answer = Answer::default();
        for field in Fields::of(bytes) {
            match field? {
                (1, Value::Number(kind)) => answer.kind = kind,
                (2, Value::Number(success)) => answer.success = success != 0,
                (5, Value::Bytes(notice)) => answer.notice = Some(parse_notice(notice)?),
                (7, value) => answer.errno = value.signed(),
                (8, Value::Bytes(features)) => {
                    for feature in Fields::of(features) {
                        match feature? {
                            (1, Value::Number(on)) => answer.tracks_memory = on != 0,
                            (2, Value::Number(on)) => answer.lazy_pages = on != 0,
                            _ => {}
                        }
                    }
                }
                (9, Value::Bytes(text)) => {
                    answer.message = Some(String::from_utf8_lossy(text).into_owned());
                }
                _ => {}
            }
        }
        Ok(answer)
    }
}

fn parse_notice(bytes: &[u8]) -> nix::Result<(String, Option<i32>)> {
    let (mut script, mut pid) = (String::new(), None);
    for field in Fields::of(bytes) {
        match field? {
            (1, Value::Bytes(name)) => script = String::from_utf8_lossy(name).into_owned(),
            (2, value) => pid = value.signed(),
            _ => {}
        }
    }
    Ok((script, pid))
}

/// The socket at which a `criu swrk` answers one request.
#[derive(Debug)]
pub struct Session {
    socket: OwnedFd,
}

impl From<Session> for OwnedFd {
    fn from(session: Session) -> OwnedFd {
        session.socket
    }
}

fn lost(errno: Errno) -> Error {
    Error::new("talk to criu").errno(errno)
}

impl Session {
    pub fn new(socket: OwnedFd) -> Session {
        Session { socket }
    }

    /// And CRIU's end of it, made by CRIU's process: it opens what a request names by number through
    /// /proc/PID/fd of who made the socket.
    pub fn pair() -> Result<(Session, OwnedFd)> {
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .step("make socket", "for criu")?;
        Ok((Session { socket: ours }, theirs))
    }

    /// There is nothing more to ask. Its answers can still come.
    pub fn end(&self) {
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Write);
    }

    fn send(&self, message: &Message) -> Result<()> {
        socket::send(self.socket.as_fd(), message.bytes(), None)
            .map(drop)
            .or_fail(lost)
    }

    /// Sends the request, and waits for its answer. CRIU waits for `notified` in between, and gives up
    /// if that fails.
    ///
    /// # Errors
    /// What `notified` found wrong. That CRIU failed is an answer, also when it ends without one.
    pub fn ask(
        &self,
        request: &Message,
        mut notified: impl FnMut(Notice) -> Result<()>,
    ) -> Result<Answer> {
        self.send(request)?;
        let mut buffer = vec![0; LONGEST];
        let mut failure = None;
        loop {
            let (length, fd) = match socket::receive(self.socket.as_fd(), &mut buffer) {
                Ok((0, _)) | Err(Errno::ECONNRESET) => {
                    let ended = Answer {
                        message: Some("it ended without an answer".into()),
                        ..Answer::default()
                    };
                    return failure.map_or(Ok(ended), Err);
                }
                done => done.or_fail(lost)?,
            };
            let answer = Answer::parse(&buffer[..length]).or_fail(lost)?;
            let Some((script, pid)) = answer
                .notice
                .as_ref()
                .filter(|_| answer.kind == Kind::Notify as u64)
            else {
                return failure.map_or(Ok(answer), Err);
            };
            log::debug(format_args!("criu: {script}"));
            let done = notified(Notice {
                script,
                pid: pid.filter(|&pid| pid > 0).map(Pid::from_raw),
                fd,
            });
            let sent = self.send(&acknowledge(done.is_ok()));
            match done {
                Ok(()) => sent?,
                // CRIU may be gone already; what is wrong is known.
                Err(error) => failure = failure.or(Some(error)),
            }
        }
    }
}

/// The last lines of a log that tell of errors.
pub fn complaints(log: &Path) -> Option<String> {
    let mut file = File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG)))
        .ok()?;
    let mut bytes = Vec::new();
    file.take(LOG).read_to_end(&mut bytes).ok()?;
    excerpt(&String::from_utf8_lossy(&bytes))
}

fn excerpt(text: &str) -> Option<String> {
    let lines: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split_once("Error (").map(|(_, rest)| rest.trim()))
        .map(|line| line.split_once("): ").map_or(line, |(_, words)| words))
        // That it failed is known.
        .filter(|words| !words.ends_with(" FAILED."))
        .collect();
    let mut shown = &lines[lines.len().saturating_sub(EXCERPT)..];
    while let [_, rest @ ..] = shown
        && !rest.is_empty()
        && shown.iter().map(|line| line.len()).sum::<usize>() > LINE
    {
        shown = rest;
    }
    let words: String = shown.join("; ").chars().take(LINE).collect();
    (!words.is_empty()).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(script: &str, pid: i32) -> Vec<u8> {
        let mut inner = Message::default();
        inner.text(1, script).signed(2, pid);
        let mut message = Message::default();
        message
            .number(1, Kind::Notify as u64)
            .flag(2, true)
            .message(5, &inner);
        message.bytes().to_vec()
    }

    fn dumped() -> Vec<u8> {
        let mut message = Message::default();
        message.number(1, Kind::Dump as u64).flag(2, true);
        message.bytes().to_vec()
    }

    #[test]
    fn answers_are_read() {
        let mut message = Message::default();
        message
            .number(1, Kind::Restore as u64)
            .number(2, 0)
            .signed(7, 52)
            .text(9, "no such thing");
        let answer = Answer::parse(message.bytes()).unwrap();
        assert!(!answer.success);
        assert_eq!(answer.errno, Some(52));
        assert_eq!(answer.message.as_deref(), Some("no such thing"));
        let broken = &notice("post-restore", 9)[..12];
        assert_eq!(Answer::parse(broken), Err(Errno::EBADMSG));
    }

    #[test]
    fn notifications_come_before_the_answer() {
        let (session, criu) = Session::pair().unwrap();
        for message in [notice("pre-dump", 0), notice("post-dump", 77), dumped()] {
            socket::send(criu.as_fd(), &message, None).unwrap();
        }
        let mut seen = Vec::new();
        let answer = session
            .ask(&ask_for_features(), |notice| {
                seen.push((notice.script.to_owned(), notice.pid));
                Ok(())
            })
            .unwrap();
        assert!(answer.success);
        assert_eq!(
            seen,
            [
                ("pre-dump".to_owned(), None),
                ("post-dump".to_owned(), Some(Pid::from_raw(77)))
            ]
        );
        let mut buffer = [0; 64];
        let mut received = || {
            let (length, _) = socket::receive(criu.as_fd(), &mut buffer).unwrap();
            buffer[..length].to_vec()
        };
        assert_eq!(received(), ask_for_features().bytes());
        assert_eq!(received(), acknowledge(true).bytes());
    }

    #[test]
    fn a_notification_that_fails_is_what_is_told() {
        let (session, criu) = Session::pair().unwrap();
        for message in [notice("setup-namespaces", 7), dumped()] {
            socket::send(criu.as_fd(), &message, None).unwrap();
        }
        let error = session
            .ask(&ask_for_features(), |_| Err(Error::new("run hook")))
            .unwrap_err();
        assert_eq!(error.to_string(), "run hook");
    }

    #[test]
    fn the_excerpt_has_the_errors_without_their_source() {
        let log = "(00.001) Warn  (criu/log.c:1): x\n\
                   (00.002) Error (criu/mount.c:12): mnt: no root\n\
                   (00.003)  77: Error (criu/files.c:9): Can't open\n\
                   (00.004) Error (criu/cr-restore.c:2): Restoring FAILED.\n";
        assert_eq!(excerpt(log).as_deref(), Some("mnt: no root; Can't open"));
        assert_eq!(excerpt("fine\n"), None);
    }
}
