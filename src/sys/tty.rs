//! Pseudoterminals, pty(7) and ioctl_tty(2).

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::Result;
use nix::errno::Errno;

/// Rows and columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub rows: u16,
    pub columns: u16,
}

/// Allows the other side of the pseudoterminal to be opened.
pub fn unlock(master: BorrowedFd) -> Result<()> {
    let locked: libc::c_int = 0;
    // SAFETY: the kernel reads an int.
    let done = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK as _, &raw const locked) };
    Errno::result(done).map(drop)
}

/// Opens the other side without any path (Linux 4.13), not as the controlling terminal.
///
/// # Errors
/// `ENOTTY` if `master` isn't a pseudoterminal.
pub fn peer(master: BorrowedFd) -> Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the argument is a number.
    let fd = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER as _, flags) };
    let fd = Errno::result(fd)?;
    // SAFETY: a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The number N of /dev/pts/N.
pub fn number(master: BorrowedFd) -> Result<u32> {
    let mut number: libc::c_uint = 0;
    // SAFETY: the kernel writes an unsigned int.
    let done = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN as _, &raw mut number) };
    Errno::result(done).map(|_| number)
}

/// Makes the terminal the controlling one of the calling session leader.
pub fn set_controlling(terminal: BorrowedFd) -> Result<()> {
    // SAFETY: the argument is a number.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY as _, 0) }).map(drop)
}

/// # Errors
/// `ENOTTY` if it isn't a terminal.
pub fn size(terminal: BorrowedFd) -> Result<Size> {
    // SAFETY: winsize is plain old data, for which zeroes are valid.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes a winsize.
    let done = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ as _, &raw mut size) };
    Errno::result(done).map(|_| Size {
        rows: size.ws_row,
        columns: size.ws_col,
    })
}

pub fn set_size(terminal: BorrowedFd, size: Size) -> Result<()> {
    let size = libc::winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the kernel reads a winsize.
    let done = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ as _, &raw const size) };
    Errno::result(done).map(drop)
}
