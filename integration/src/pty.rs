//! The other end of a container's terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Instant;

use crate::lab::{Command, Running, patience};
use crate::receiver::Receiver;
use crate::sys;

/// A terminal as a person's emulator holds it: we are the master.
pub struct Pty {
    master: File,
    slave: Option<OwnedFd>,
    seen: String,
}

impl Pty {
    pub fn new(rows: u16, cols: u16) -> Self {
        let pair = nix::pty::openpty(None, None).unwrap();
        sys::set_window_size(&pair.master, rows, cols).unwrap();
        Pty {
            master: pair.master.into(),
            slave: Some(pair.slave),
            seen: String::new(),
        }
    }

    /// From a master that a runtime sent to a console socket.
    pub fn of_master(master: OwnedFd) -> Self {
        Pty {
            master: master.into(),
            slave: None,
            seen: String::new(),
        }
    }

    fn slave(&self) -> &OwnedFd {
        self.slave.as_ref().expect("a terminal of our own")
    }

    /// Starts the command with this as its controlling terminal, in a session of its own.
    pub fn spawn(&self, command: Command) -> Running {
        let (input, output) = (
            self.slave().try_clone().unwrap(),
            self.slave().try_clone().unwrap(),
        );
        command.stdin(input).stdout(output).spawn_after(|| {
            nix::unistd::setsid()?;
            sys::make_controlling(std::io::stdin())
        })
    }

    /// The slave's settings as `cfmakeraw` would change them: whether it is raw.
    pub fn is_raw(&self) -> bool {
        use nix::sys::termios::{LocalFlags, tcgetattr};
        let flags = tcgetattr(self.slave()).unwrap().local_flags;
        !flags.intersects(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG)
    }

    pub fn resize(&self, rows: u16, cols: u16) {
        sys::set_window_size(&self.master, rows, cols).unwrap();
    }

    pub fn type_text(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// Reads until `what` has been seen; all that was read so far.
    #[track_caller]
    pub fn wait_for(&mut self, what: &str) -> &str {
        let deadline = Instant::now() + patience();
        while !self.seen.contains(what) {
            let left = deadline.saturating_duration_since(Instant::now());
            let ready = sys::readable(&self.master, left).unwrap();
            assert!(ready, "{what:?} doesn't come, only {:?}", self.seen);
            let mut buffer = [0u8; 4096];
            match self.master.read(&mut buffer) {
                Ok(0) | Err(_) => panic!("closed before {what:?}, after {:?}", self.seen),
                Ok(count) => self
                    .seen
                    .push_str(&String::from_utf8_lossy(&buffer[..count])),
            }
        }
        &self.seen
    }

    /// Whether every slave is closed: EIO. Drops what can still be read.
    pub fn is_hung_up(&mut self) -> bool {
        let ready = sys::readable(&self.master, std::time::Duration::ZERO).unwrap();
        let mut buffer = [0u8; 4096];
        ready && self.master.read(&mut buffer).is_err()
    }

    pub fn seen(&self) -> &str {
        &self.seen
    }
}

/// The socket of `--console-socket`.
pub struct ConsoleSocket(Receiver);

impl ConsoleSocket {
    pub fn new(path: &Path) -> Self {
        ConsoleSocket(Receiver::new(path))
    }

    pub fn path(&self) -> &str {
        self.0.path()
    }

    /// The master of the container's terminal and the text that came with it.
    #[track_caller]
    pub fn receive(&self) -> (Pty, String) {
        let (master, text) = self.0.receive();
        (Pty::of_master(master), text)
    }
}
