//! seccomp(2).

use std::os::fd::{FromRawFd, OwnedFd};

use nix::errno::Errno;

/// Adds `program` to the calling thread's filters: seccomp(2),
/// SECCOMP_SET_MODE_FILTER. `flags` are SECCOMP_FILTER_FLAG_*; with
/// SECCOMP_FILTER_FLAG_NEW_LISTENER the listener comes back (close on exec).
///
/// Allocates nothing. EACCES: neither no_new_privs nor CAP_SYS_ADMIN;
/// EBUSY: a listener is there already; EINVAL: an unknown flag or a bad program.
pub fn set_mode_filter(flags: u32, program: &[libc::sock_filter]) -> nix::Result<Option<OwnedFd>> {
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
            libc::c_ulong::from(flags),
            &raw const fprog,
        )
    };
    let fd = i32::try_from(Errno::result(result)?).map_err(|_| Errno::EOVERFLOW)?;
    if u64::from(flags) & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u64 == 0 {
        return Ok(None);
    }
    // SAFETY: with NEW_LISTENER a result that is not an error is a new descriptor,
    // which nothing else owns.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
}
