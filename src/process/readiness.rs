//! sd_notify(3) out of a container: the program says READY=1 to a socket of husk's, and husk says it to
//! whoever waits for husk (systemd's `Type=notify`, podman's `--sdnotify=container`).

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, socket,
};
use nix::unistd::Pid;

use crate::error::{Error, Result, Step};
use crate::log;
use crate::sys;

/// The name of the caller's variable, and of the program's.
pub const VARIABLE: &str = "NOTIFY_SOCKET";

/// How long a manager may take to have read everything (sd_notify_barrier(3)).
const BARRIER: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Readiness {
    /// What the container sends to.
    inside: OwnedFd,
    /// Connected to the caller's manager.
    outside: OwnedFd,
}

/// What the caller's variable says, if it says anything.
pub fn manager() -> Option<OsString> {
    std::env::var_os(VARIABLE).filter(|value| !value.is_empty())
}

/// A socket for datagrams, as sd_notify uses them.
pub fn new_socket() -> Result<OwnedFd> {
    socket(
        AddressFamily::Unix,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .step("make", "notify socket")
}

impl Readiness {
    /// Between `inside`, which is bound, and the socket that the caller's variable names: a path, or
    /// after `@` a name without one.
    pub fn new(inside: OwnedFd, variable: &OsStr) -> Result<Readiness> {
        let fail = |errno| {
            Error::new("connect to")
                .on(format!("{VARIABLE} {}", variable.display()))
                .errno(errno)
                .hint("unset it if nobody waits for the container to be ready")
        };
        let address = match variable.as_bytes() {
            [b'@', name @ ..] => UnixAddr::new_abstract(name),
            _ => UnixAddr::new(Path::new(variable)),
        };
        let outside = new_socket()?;
        address
            .and_then(|address| connect(outside.as_raw_fd(), &address))
            .or_fail(fail)?;
        Ok(Readiness { inside, outside })
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.inside.as_fd()
    }

    /// Reads what has come. True when the program was ready, and the manager knows it: `main` is the
    /// process that it is to watch.
    pub fn pass(&self, main: Pid) -> bool {
        /// A program that says something without end must not keep husk from everything else.
        const AT_ONCE: usize = 64;
        let mut buffer = [0; 4096];
        // Descriptors that come along are nobody's: recv(2) drops them.
        for _ in 0..AT_ONCE {
            let received = recv(self.inside.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT);
            let Ok(length) = received else { break };
            let mut lines = buffer[..length].split(|&byte| byte == b'\n');
            if lines.any(|line| line == b"READY=1") {
                self.tell("READY=1\n");
                self.tell(&format!("MAINPID={main}\n"));
                return true;
            }
        }
        false
    }

    /// Nobody fails for want of a listener.
    fn tell(&self, line: &str) {
        let sent = send(
            self.outside.as_raw_fd(),
            line.as_bytes(),
            MsgFlags::MSG_NOSIGNAL,
        );
        if let Err(errno) = sent.step("send", format!("{} to {VARIABLE}", line.trim_end())) {
            log::warning(format_args!("{errno}"));
        }
    }

    /// Waits until the program is ready, or has ended; then until the manager has read that, as husk may
    /// be gone before it asks who sent it.
    pub fn wait(self, main: Pid, pidfd: Option<BorrowedFd>) -> Result<()> {
        loop {
            let mut ended = true;
            if let Some(pidfd) = pidfd {
                let mut fds = [
                    PollFd::new(self.fd(), PollFlags::POLLIN),
                    PollFd::new(pidfd, PollFlags::POLLIN),
                ];
                match poll(&mut fds, PollTimeout::NONE) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(errno) => return Err(errno).step("wait for", "the container to be ready"),
                }
                ended = fds[1].revents().is_some_and(|events| !events.is_empty());
            }
            if self.pass(main) {
                return self.barrier();
            }
            if ended {
                return Ok(());
            }
        }
    }

    fn barrier(&self) -> Result<()> {
        let (mut reader, writer) = std::io::pipe().step("make", "pipe")?;
        let sent = sys::socket::send(self.outside.as_fd(), b"BARRIER=1", Some(writer.as_fd()));
        drop(writer);
        if sent.is_err() {
            return Ok(());
        }
        let mut fds = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(BARRIER).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            // A manager that knows no barriers keeps the descriptor, or drops it unseen.
            Ok(0) => log::warning(format_args!("{VARIABLE}: no answer to BARRIER=1")),
            _ => drop(reader.read(&mut [0])),
        }
        Ok(())
    }
}
