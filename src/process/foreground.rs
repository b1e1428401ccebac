//! A caller that stays: signals, the terminal and the end of the program pass through here.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{Pid, getpid, read, write};

use super::Ended;
use super::readiness::Readiness;
use crate::error::{Result, Step};
use crate::sys::{self, fd::stdio, file::through_signals, tty};

/// Signals held back from the moment before the process is made, so that none is lost.
#[derive(Debug)]
pub struct Signals {
    signals: SignalFd,
}

impl Signals {
    /// Holds back what a caller may send. The process that is made later resets its mask.
    pub fn hold() -> Result<Signals> {
        let mut set = SigSet::all();
        for signal in [
            Signal::SIGSEGV,
            Signal::SIGBUS,
            Signal::SIGILL,
            Signal::SIGFPE,
            Signal::SIGABRT,
            Signal::SIGTRAP,
            Signal::SIGSYS,
            Signal::SIGTTOU,
            Signal::SIGTTIN,
        ] {
            set.remove(signal);
        }
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&set), None).step("hold back", "signals")?;
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .step("make", "signal descriptor")?;
        crate::signal::hold();
        Ok(Signals { signals })
    }
}

/// The caller's terminal in raw mode; restored when dropped.
#[derive(Debug)]
struct Raw {
    modes: Termios,
}

impl Raw {
    fn new() -> Option<Raw> {
        let modes = tcgetattr(stdio(0)).ok()?;
        let mut raw = modes.clone();
        cfmakeraw(&mut raw);
        tcsetattr(stdio(0), SetArg::TCSANOW, &raw).ok()?;
        Some(Raw { modes })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(stdio(0), SetArg::TCSADRAIN, &self.modes);
    }
}

/// The size of the caller's terminal, if any of the standard streams is one.
pub fn caller_size() -> Option<tty::Size> {
    (0..3).find_map(|number| tty::size(stdio(number)).ok())
}

/// Passes signals, and the terminal's bytes and size, until the process has ended and what it wrote
/// has been passed on.
pub fn attend(
    signals: &Signals,
    pid: Pid,
    pidfd: BorrowedFd,
    terminal: Option<OwnedFd>,
    mut readiness: Option<Readiness>,
) -> Result<Ended> {
    let _raw = terminal.as_ref().and_then(|_| Raw::new());
    let mut relay = terminal.map(Relay::new).transpose()?;
    if let Some(relay) = &relay {
        relay.resize();
    }
    let mut ended = None;
    loop {
        // husk is what the caller's manager watches, and stays.
        if readiness.as_ref().is_some_and(|one| one.pass(getpid())) {
            readiness = None;
        }
        ended = ended.or(drain(signals, pid, pidfd, relay.as_ref())?);
        match (ended, &mut relay) {
            (Some(ended), None) => return Ok(ended),
            (Some(ended), Some(relay)) => {
                relay.finish();
                return Ok(ended);
            }
            _ => {}
        }
        let mut fds = vec![PollFd::new(signals.signals.as_fd(), PollFlags::POLLIN)];
        if let Some(relay) = &relay {
            relay.watch(&mut fds);
        }
        if let Some(readiness) = &readiness {
            fds.push(PollFd::new(readiness.fd(), PollFlags::POLLIN));
        }
        // A side that nobody has open is always ready, so it is looked at now and then instead.
        let timeout = match relay.as_ref().is_some_and(|relay| relay.idle) {
            true => PollTimeout::from(50u8),
            false => PollTimeout::NONE,
        };
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).step("wait for", "the container"),
        }
        drop(fds);
        if let Some(relay) = &mut relay {
            relay.pass();
        }
    }
}

/// Deals with the signals that have come; the end of the process if it was among them.
fn drain(
    signals: &Signals,
    pid: Pid,
    pidfd: BorrowedFd,
    relay: Option<&Relay>,
) -> Result<Option<Ended>> {
    let mut ended = None;
    let next = || through_signals(|| signals.signals.read_signal());
    while let Some(info) = next().step("read", "signals")? {
        match info.ssi_signo as i32 {
            libc::SIGCHLD => ended = ended.or(reap_all(pid)),
            libc::SIGWINCH => {
                if let Some(relay) = relay {
                    relay.resize();
                }
            }
            libc::SIGURG => {}
            // A terminal in raw mode sends none, so these come from elsewhere: for the program.
            number => {
                let _ = sys::process::pidfd_send_signal(pidfd, number);
            }
        }
    }
    // A child that ended before the signals were held back.
    Ok(ended.or_else(|| reap_all(pid)))
}

/// Reaps everything that has ended, orphans of the container among it.
fn reap_all(pid: Pid) -> Option<Ended> {
    let mut ended = None;
    loop {
        match sys::process::reap_any() {
            Ok(Some((which, how))) if which == pid => ended = Some(how),
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return ended,
        }
    }
}

/// Bytes between the caller's standard streams and the terminal.
#[derive(Debug)]
struct Relay {
    master: OwnedFd,
    input: Vec<u8>,
    output: Vec<u8>,
    input_open: bool,
    /// Nobody has the other side open at the moment: an init may close and open it again.
    idle: bool,
}

const CHUNK: usize = 32 * 1024;

impl Relay {
    fn new(master: OwnedFd) -> Result<Relay> {
        let flags = fcntl(&master, FcntlArg::F_GETFL).step("read flags of", "terminal")?;
        let flags = OFlag::from_bits_truncate(flags) | OFlag::O_NONBLOCK;
        fcntl(&master, FcntlArg::F_SETFL(flags)).step("set flags of", "terminal")?;
        Ok(Relay {
            master,
            input: Vec::new(),
            output: Vec::new(),
            input_open: true,
            idle: false,
        })
    }

    fn resize(&self) {
        if let Some(size) = caller_size() {
            let _ = tty::set_size(self.master.as_fd(), size);
        }
    }

    /// What to wait for: nothing is read that can't be passed on, so nothing piles up.
    fn watch<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        let mut master = PollFlags::empty();
        if self.output.is_empty() {
            master |= PollFlags::POLLIN;
        }
        if !self.input.is_empty() {
            master |= PollFlags::POLLOUT;
        }
        if !master.is_empty() && !self.idle {
            fds.push(PollFd::new(self.master.as_fd(), master));
        }
        if self.input_open && self.input.is_empty() {
            fds.push(PollFd::new(stdio(0), PollFlags::POLLIN));
        }
        if !self.output.is_empty() {
            fds.push(PollFd::new(stdio(1), PollFlags::POLLOUT));
        }
    }

    fn pass(&mut self) {
        if self.input_open && self.input.is_empty() && readable(stdio(0)) {
            self.input_open = fill(stdio(0), &mut self.input);
        }
        if !self.input.is_empty() {
            match write(&self.master, &self.input) {
                Ok(length) => drop(self.input.drain(..length)),
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(_) => self.input.clear(),
            }
        }
        if self.output.is_empty() {
            self.idle = !fill(self.master.as_fd(), &mut self.output);
        }
        self.write_output();
    }

    fn write_output(&mut self) {
        if self.output.is_empty() {
            return;
        }
        match write(stdio(1), &self.output) {
            Ok(length) => drop(self.output.drain(..length)),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            // Nobody reads: the program must not notice.
            Err(_) => self.output.clear(),
        }
    }

    /// What the program wrote before its end.
    fn finish(&mut self) {
        loop {
            while !self.output.is_empty() {
                let mut fds = [PollFd::new(stdio(1), PollFlags::POLLOUT)];
                let _ = poll(&mut fds, PollTimeout::NONE);
                self.write_output();
            }
            if !fill(self.master.as_fd(), &mut self.output) || self.output.is_empty() {
                break;
            }
        }
    }
}

fn readable(fd: BorrowedFd) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// Reads once. False at the end.
fn fill(from: BorrowedFd, buffer: &mut Vec<u8>) -> bool {
    buffer.resize(CHUNK, 0);
    let (length, open) = match read(from, buffer) {
        Ok(0) => (0, false),
        Ok(length) => (length, true),
        Err(Errno::EAGAIN | Errno::EINTR) => (0, true),
        Err(_) => (0, false),
    };
    buffer.truncate(length);
    open
}
