//! Session keyrings, keyctl(2).

use std::ffi::CStr;

use nix::Result;
use nix::errno::Errno;

/// Joins a new or existing session keyring of that name; its serial number.
///
/// # Errors
/// `ENOSYS` without keyrings in the kernel, `EDQUOT` when the user's quota is used up.
pub fn join_session(name: &CStr) -> Result<i32> {
    // SAFETY: `name` is a valid C string for the length of the call.
    let serial = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            libc::KEYCTL_JOIN_SESSION_KEYRING,
            name.as_ptr(),
        )
    };
    Errno::result(serial).map(|serial| serial as i32)
}

/// The permission bits of a key: possessor, user, group, other, a byte each (keyctl_describe(3)).
pub fn set_permissions(serial: i32, bits: u32) -> Result<()> {
    // SAFETY: no memory is passed.
    let done = unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_SETPERM, serial, bits) };
    Errno::result(done).map(drop)
}
