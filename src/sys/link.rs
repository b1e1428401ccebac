//! Network links, netdevice(7).

use std::os::fd::{AsFd, AsRawFd};

use nix::Result;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Sets the loopback device of the current network namespace up: a new one has it down.
pub fn loopback_up() -> Result<()> {
    let socket = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: ifreq is plain old data, for which zeroes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: `request` is a valid ifreq whose name ends with a zero byte.
    Errno::result(unsafe { libc::ioctl(fd, libc::SIOCSIFFLAGS as _, &request) }).map(drop)
}
