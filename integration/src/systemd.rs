//! A stand-in for systemd, where there is none: as much of its manager as makes scopes for a runtime, at its
//! private socket. What is tested against it is the runtime: when it speaks, what it leaves, how long it waits.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid};

use crate::{cgroup, sys};

const PLACE: &str = "/run/systemd";
const SOCKET: &str = "/run/systemd/private";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const OBJECT: &str = "/org/freedesktop/systemd1";

/// A process that is there as long as this.
pub struct StandIn {
    pid: Pid,
}

impl StandIn {
    /// The caller has one thread. From now on it has a mount namespace of its own, for nobody else to meet this,
    /// nor for this to be in the way of the real one.
    pub fn start() -> io::Result<StandIn> {
        let none = None::<&str>;
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        fs::create_dir_all(PLACE)?;
        mount(none, PLACE, Some("tmpfs"), MsFlags::empty(), none)?;
        let listener = UnixListener::bind(SOCKET)?;
        // There from the beginning to the end, as on a machine.
        let slice = cgroup::path("system.slice");
        fs::create_dir_all(&slice)?;
        cgroup::enable_all(&slice);
        match sys::fork()? {
            ForkResult::Child => {
                let _ = serve(&listener);
                std::process::exit(1)
            }
            ForkResult::Parent { child } => Ok(StandIn { pid: child }),
        }
    }

    /// It answers nothing from now on.
    pub fn stop(&self) {
        kill(self.pid, Signal::SIGSTOP).unwrap();
    }

    pub fn go_on(&self) {
        kill(self.pid, Signal::SIGCONT).unwrap();
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        let _ = kill(self.pid, Signal::SIGKILL);
        let _ = waitpid(self.pid, None);
        let _ = umount2(PLACE, MntFlags::MNT_DETACH);
        let _ = cgroup::remove(&cgroup::path("system.slice"));
    }
}

/// Where a scope of that name is.
pub fn scope(name: &str) -> PathBuf {
    cgroup::path("system.slice").join(name)
}

struct Peer {
    stream: UnixStream,
    input: Vec<u8>,
    greeted: bool,
}

struct State {
    scopes: Vec<(String, PathBuf)>,
    jobs: u32,
    serial: u32,
}

fn serve(listener: &UnixListener) -> io::Result<()> {
    let mut peers: Vec<Peer> = Vec::new();
    let mut state = State {
        scopes: Vec::new(),
        jobs: 0,
        serial: 0,
    };
    loop {
        let mut fds = vec![PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        fds.extend(
            peers
                .iter()
                .map(|peer| PollFd::new(peer.stream.as_fd(), PollFlags::POLLIN)),
        );
        // Empty scopes are looked for as often.
        let timeout = match state.scopes.is_empty() {
            true => PollTimeout::NONE,
            false => PollTimeout::from(5u8),
        };
        poll(&mut fds, timeout)?;
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any() == Some(true)).collect();
        if ready[0] {
            let (stream, _) = listener.accept()?;
            peers.push(Peer {
                stream,
                input: Vec::new(),
                greeted: false,
            });
        }
        let mut number = 0;
        peers.retain_mut(|peer| {
            number += 1;
            !ready.get(number).copied().unwrap_or(false) || attend(peer, &mut state).is_some()
        });
        state.scopes.retain(|(_, dir)| {
            let events = fs::read_to_string(dir.join("cgroup.events")).unwrap_or_default();
            events.contains("populated 1") || cgroup::remove(dir).is_err()
        });
    }
}

/// `None` when the peer is gone.
fn attend(peer: &mut Peer, state: &mut State) -> Option<()> {
    let mut buffer = [0; 8192];
    let count = peer
        .stream
        .read(&mut buffer)
        .ok()
        .filter(|count| *count > 0)?;
    peer.input.extend(&buffer[..count]);
    if !peer.greeted {
        let begin = b"BEGIN\r\n";
        let Some(at) = peer
            .input
            .windows(begin.len())
            .position(|part| part == begin)
        else {
            return Some(());
        };
        peer.input.drain(..at + begin.len());
        peer.stream
            .write_all(b"OK 0123456789abcdef0123456789abcdef\r\n")
            .ok()?;
        peer.greeted = true;
    }
    while let Some(call) = take_message(&mut peer.input) {
        let answer = state.answer(&call);
        peer.stream.write_all(&answer).ok()?;
    }
    Some(())
}

struct Call {
    serial: u32,
    member: String,
    body: Vec<u8>,
}

fn take_message(input: &mut Vec<u8>) -> Option<Call> {
    let fixed = input.get(..16)?;
    let number = |at: usize| u32::from_le_bytes(fixed[at..at + 4].try_into().unwrap_or_default());
    let (body, serial, fields) = (number(4) as usize, number(8), number(12) as usize);
    let begin = (16 + fields).next_multiple_of(8);
    let message: Vec<u8> = input.get(..begin + body)?.to_vec();
    input.drain(..begin + body);
    let mut reader = Reader {
        bytes: &message[..16 + fields],
        at: 16,
    };
    let mut member = String::new();
    while reader.at < reader.bytes.len() {
        reader.align(8);
        let code = reader.byte()?;
        let kind = reader.signature()?;
        match (code, kind.as_str()) {
            (3, "s") => member = reader.text()?,
            _ => reader.skip(&kind)?,
        }
    }
    Some(Call {
        serial,
        member,
        body: message[begin..].to_vec(),
    })
}

impl State {
    fn answer(&mut self, call: &Call) -> Vec<u8> {
        let mut body = Reader {
            bytes: &call.body,
            at: 0,
        };
        let done = match call.member.as_str() {
            "Get" => {
                let _ = body.text();
                let value = match body.text().as_deref() {
                    Some("Version") => "252 (stand-in)",
                    _ => "",
                };
                return self.reply(call, "v", |writer| {
                    writer.signature("s");
                    writer.text(value);
                });
            }
            "StartTransientUnit" => self.begin(&mut body),
            "StopUnit" => self.end(&mut body),
            _ => return self.reply(call, "", |_| {}),
        };
        match done {
            Ok(unit) => {
                self.jobs += 1;
                let job = format!("{OBJECT}/job/{}", self.jobs);
                let mut bytes = self.reply(call, "o", |writer| writer.text(&job));
                let number = self.jobs;
                bytes.extend(self.message(
                    4,
                    &[(1, "o", OBJECT), (2, "s", MANAGER), (3, "s", "JobRemoved")],
                    None,
                    "uoss",
                    |writer| {
                        writer.number(number);
                        writer.text(&job);
                        writer.text(&unit);
                        writer.text("done");
                    },
                ));
                bytes
            }
            Err(name) => self.message(3, &[(4, "s", name)], Some(call.serial), "s", |writer| {
                writer.text("refused");
            }),
        }
    }

    fn begin(&mut self, body: &mut Reader) -> Result<String, &'static str> {
        const BAD: &str = "org.freedesktop.DBus.Error.InvalidArgs";
        let unit = body.text().ok_or(BAD)?;
        let pids = body.pids().ok_or(BAD)?;
        let dir = scope(&unit);
        if self.scopes.iter().any(|(name, _)| *name == unit) {
            return Err("org.freedesktop.systemd1.UnitExists");
        }
        fs::create_dir_all(&dir).map_err(|_| BAD)?;
        for pid in pids {
            if fs::write(dir.join("cgroup.procs"), pid.to_string()).is_err() {
                let _ = cgroup::remove(&dir);
                return Err("org.freedesktop.systemd1.NoSuchProcess");
            }
        }
        self.scopes.push((unit.clone(), dir));
        Ok(unit)
    }

    fn end(&mut self, body: &mut Reader) -> Result<String, &'static str> {
        let unit = body.text().unwrap_or_default();
        let at = self.scopes.iter().position(|(name, _)| *name == unit);
        let (unit, dir) = self
            .scopes
            .remove(at.ok_or("org.freedesktop.systemd1.NoSuchUnit")?);
        let deadline = Instant::now() + Duration::from_secs(2);
        while cgroup::remove(&dir).is_err() && Instant::now() < deadline {}
        Ok(unit)
    }

    fn reply(&mut self, call: &Call, signature: &str, body: impl FnOnce(&mut Writer)) -> Vec<u8> {
        self.message(2, &[], Some(call.serial), signature, body)
    }

    fn message(
        &mut self,
        kind: u8,
        fields: &[(u8, &str, &str)],
        reply_to: Option<u32>,
        signature: &str,
        body: impl FnOnce(&mut Writer),
    ) -> Vec<u8> {
        self.serial += 1;
        let mut content = Writer::default();
        body(&mut content);
        let mut message = Writer {
            bytes: vec![b'l', kind, 1, 1],
        };
        message.number(content.bytes.len() as u32);
        message.number(self.serial);
        // The length of the fields, which is known when they are there.
        message.number(0);
        for (code, kind, value) in fields {
            message.field(*code, kind);
            message.text(value);
        }
        if let Some(serial) = reply_to {
            message.field(5, "u");
            message.number(serial);
        }
        if !signature.is_empty() {
            message.field(8, "g");
            message.signature(signature);
        }
        let length = message.bytes.len() as u32 - 16;
        message.bytes[12..16].copy_from_slice(&length.to_le_bytes());
        message.align(8);
        message.bytes.extend(content.bytes);
        message.bytes
    }
}

#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    fn field(&mut self, code: u8, kind: &str) {
        self.align(8);
        self.bytes.push(code);
        self.signature(kind);
    }

    fn number(&mut self, number: u32) {
        self.align(4);
        self.bytes.extend(number.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u32);
        self.bytes.extend(text.bytes().chain([0]));
    }

    fn signature(&mut self, text: &str) {
        self.bytes.push(text.len() as u8);
        self.bytes.extend(text.bytes().chain([0]));
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, count: usize) -> Option<&[u8]> {
        let bytes = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(bytes)
    }

    fn byte(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    fn number(&mut self) -> Option<u32> {
        self.align(4);
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn words(&mut self, length: usize) -> Option<String> {
        let bytes = self.take(length + 1)?;
        Some(String::from_utf8_lossy(&bytes[..length]).into_owned())
    }

    fn text(&mut self) -> Option<String> {
        let length = self.number()?;
        self.words(length as usize)
    }

    fn signature(&mut self) -> Option<String> {
        let length = self.byte()?;
        self.words(length.into())
    }

    /// What `PIDs` says among the properties, after the mode.
    fn pids(&mut self) -> Option<Vec<u32>> {
        self.text()?;
        let end = self.number()? as usize;
        self.align(8);
        let end = self.at + end;
        let mut pids = Vec::new();
        while self.at < end {
            self.align(8);
            let name = self.text()?;
            let kind = self.signature()?;
            if (name.as_str(), kind.as_str()) == ("PIDs", "au") {
                let count = self.number()? / 4;
                pids = (0..count).map(|_| self.number()).collect::<Option<_>>()?;
            } else {
                self.skip(&kind)?;
            }
        }
        Some(pids)
    }

    /// A value of one complete type.
    fn skip(&mut self, kind: &str) -> Option<()> {
        match kind.as_bytes().first()? {
            b'y' => drop(self.byte()?),
            b'b' | b'u' | b'i' => drop(self.number()?),
            b't' | b'x' | b'd' => {
                self.align(8);
                self.take(8)?;
            }
            b's' | b'o' => drop(self.text()?),
            b'g' => drop(self.signature()?),
            b'v' => {
                let inner = self.signature()?;
                self.skip(&inner)?;
            }
            b'a' => {
                let length = self.number()? as usize;
                if matches!(kind.as_bytes().get(1)?, b't' | b'x' | b'd' | b'(' | b'{') {
                    self.align(8);
                }
                self.take(length)?;
            }
            // Not met outside of arrays.
            _ => return None,
        }
        Some(())
    }
}
