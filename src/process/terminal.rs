//! The container's terminal: its own pseudoterminal inside, a socket or the caller's terminal outside.

use std::os::fd::{AsFd, OwnedFd};

use nix::sys::termios::{OutputFlags, SetArg, tcgetattr, tcsetattr};
use nix::unistd::Uid;

use super::channel::{Channel, Report};
use crate::error::{Error, Result, Step};
use crate::rootfs::{Built, open_multiplexer};
use crate::sys::{fd, tty};

fn fail(step: &'static str) -> impl FnOnce(nix::errno::Errno) -> Error {
    move |errno| Error::new(step).at("/process/terminal").errno(errno)
}

/// In the container: makes a pseudoterminal on its devpts, puts it at /dev/console, and sends the
/// master side to husk. Returns the container's side.
pub fn open(built: &Built, size: Option<tty::Size>, channel: &Channel) -> Result<OwnedFd> {
    let terminal = open_pair(built.root(), size, channel)?;
    built.place_console(terminal.as_fd())?;
    Ok(terminal)
}

/// As [`open`], for one more process in a container whose root this is.
pub fn open_pair(
    root: &crate::rootfs::Rootfs,
    size: Option<tty::Size>,
    channel: &Channel,
) -> Result<OwnedFd> {
    let master = open_multiplexer(root)?;
    tty::unlock(master.as_fd()).or_fail(fail("unlock terminal"))?;
    let terminal = tty::peer(master.as_fd()).or_fail(fail("open terminal"))?;
    if let Some(size) = size {
        tty::set_size(master.as_fd(), size).or_fail(fail("set terminal size"))?;
    }
    // Lines end as the program writes them, so that output can be compared and piped.
    let mut modes = tcgetattr(&terminal).or_fail(fail("read terminal modes"))?;
    modes.output_flags.remove(OutputFlags::ONLCR);
    tcsetattr(&terminal, SetArg::TCSANOW, &modes).or_fail(fail("set terminal modes"))?;
    channel.report(&Report::Terminal(master))?;
    Ok(terminal)
}

/// Makes the terminal the standard streams and the controlling terminal of this session leader.
pub fn take(terminal: &OwnedFd, owner: Uid) -> Result<()> {
    // Where the id isn't mapped or the devpts is read-only it stays root's.
    let _ = nix::unistd::fchown(terminal, Some(owner), None);
    tty::set_controlling(terminal.as_fd()).or_fail(fail("take terminal"))?;
    for number in 0..3 {
        fd::place(terminal.as_fd(), number).or_fail(fail("take terminal"))?;
    }
    Ok(())
}
