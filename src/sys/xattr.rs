//! Extended attributes, which nix doesn't wrap.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::Result;
use nix::errno::Errno;

/// fsetxattr(2). `fd` must not be an `O_PATH` descriptor.
pub fn set(fd: BorrowedFd, name: &CStr, value: &[u8]) -> Result<()> {
    // SAFETY: a C string and a buffer with its length, both alive during the call.
    let done = unsafe {
        libc::fsetxattr(
            fd.as_raw_fd(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    };
    Errno::result(done).map(drop)
}

/// Whether the attribute is there, fgetxattr(2). `fd` must not be an `O_PATH` descriptor.
pub fn has(fd: BorrowedFd, name: &CStr) -> Result<bool> {
    // SAFETY: a C string; with size 0 the kernel writes nothing through the null pointer.
    let size = unsafe { libc::fgetxattr(fd.as_raw_fd(), name.as_ptr(), std::ptr::null_mut(), 0) };
    match Errno::result(size) {
        Ok(_) => Ok(true),
        Err(Errno::ENODATA) => Ok(false),
        Err(errno) => Err(errno),
    }
}
