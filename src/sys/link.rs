//! Network links, netdevice(7).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

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
    let request = loopback_up_request();
    // SAFETY: `request` is a valid ifreq whose name ends with a zero byte.
    Errno::result(unsafe { libc::ioctl(fd, libc::SIOCSIFFLAGS as _, &request) }).map(drop)
}

/// What `SIOCSIFFLAGS` takes.
pub(super) fn loopback_up_request() -> libc::ifreq {
    // SAFETY: ifreq is plain old data, for which zeroes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    request
}

/// Has the kernel put words into its refusals, and leave the refused request out (netlink(7)).
pub fn explain_refusals(socket: BorrowedFd) -> Result<()> {
    let on: libc::c_int = 1;
    for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
        // SAFETY: the option's value is a valid int of the size that is given.
        Errno::result(unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_NETLINK,
                option,
                (&raw const on).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        })?;
    }
    Ok(())
}
