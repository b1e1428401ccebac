//! seccomp(2).

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

/// Adds `program` to the calling thread's filters: seccomp(2),
/// SECCOMP_SET_MODE_FILTER. `flags` are SECCOMP_FILTER_FLAG_*; with
/// SECCOMP_FILTER_FLAG_NEW_LISTENER the listener comes back (close on exec).
///
/// Allocates nothing. EACCES: neither no_new_privs nor CAP_SYS_ADMIN;
/// EBUSY: a listener is there already; EINVAL: an unknown flag or a bad program.
pub fn set_mode_filter(
    flags: libc::c_ulong,
    program: &[libc::sock_filter],
) -> nix::Result<Option<OwnedFd>> {
    let fprog = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| Errno::EINVAL)?,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: `fprog` and the `len` instructions that it points to outlive the call,
    // and the kernel only reads them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::c_ulong::from(libc::SECCOMP_SET_MODE_FILTER),
            flags,
            &raw const fprog,
        )
    };
    let fd = i32::try_from(Errno::result(result)?).map_err(|_| Errno::EOVERFLOW)?;
    if flags & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER == 0 {
        return Ok(None);
    }
    // SAFETY: with NEW_LISTENER a result that is not an error is a new descriptor,
    // which nothing else owns.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// The next call that waits for an answer: SECCOMP_IOCTL_NOTIF_RECV of seccomp_unotify(2).
///
/// # Errors
/// `ENOENT` if its process died meanwhile.
pub fn receive(listener: BorrowedFd) -> nix::Result<libc::seccomp_notif> {
    // SAFETY: a structure of numbers, for which all zeros is what the kernel wants to find.
    let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    const RECEIVE: libc::Ioctl =
        nix::request_code_readwrite!(b'!', 0, size_of::<libc::seccomp_notif>()) as libc::Ioctl;
    // SAFETY: the kernel writes one such structure, which outlives the call.
    Errno::result(unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE, &raw mut call) })?;
    Ok(call)
}

/// Whether the call `id` still waits, and so its process is still the one that made it:
/// SECCOMP_IOCTL_NOTIF_ID_VALID.
pub fn waits(listener: BorrowedFd, id: u64) -> bool {
    const ID_VALID: libc::Ioctl =
        nix::request_code_write!(b'!', 2, size_of::<u64>()) as libc::Ioctl;
    // SAFETY: the kernel reads a number of eight bytes.
    unsafe { libc::ioctl(listener.as_raw_fd(), ID_VALID, &raw const id) == 0 }
}

/// Lets the call `id` fail with `errno`, or say 0 without having been made.
pub fn answer(listener: BorrowedFd, id: u64, errno: i32) -> nix::Result<()> {
    let mut answer = libc::seccomp_notif_resp {
        id,
        val: 0,
        error: -errno,
        flags: 0,
    };
    const SEND: libc::Ioctl =
        nix::request_code_readwrite!(b'!', 1, size_of::<libc::seccomp_notif_resp>()) as libc::Ioctl;
    // SAFETY: the kernel reads one such structure, which outlives the call.
    Errno::result(unsafe { libc::ioctl(listener.as_raw_fd(), SEND, &raw mut answer) }).map(drop)
}
