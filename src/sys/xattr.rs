//! Extended attributes, which nix doesn't wrap.

use std::ffi::{CStr, CString};
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

/// The names of all attributes that the caller may see, flistxattr(2).
pub fn list(fd: BorrowedFd) -> Result<Vec<CString>> {
    let names = whole(|buffer| {
        // SAFETY: a buffer with its length; none of length 0 is written to.
        unsafe { libc::flistxattr(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) }
    })?;
    let names = names.split(|byte| *byte == 0);
    Ok(names
        .filter(|name| !name.is_empty())
        .filter_map(|name| CString::new(name).ok())
        .collect())
}

/// fgetxattr(2).
pub fn get(fd: BorrowedFd, name: &CStr) -> Result<Vec<u8>> {
    whole(|buffer| {
        // SAFETY: a C string; a buffer with its length; none of length 0 is written to.
        unsafe {
            libc::fgetxattr(
                fd.as_raw_fd(),
                name.as_ptr(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
            )
        }
    })
}

/// Asks for the length first, and again if it has grown meanwhile.
fn whole(read: impl Fn(&mut [u8]) -> libc::ssize_t) -> Result<Vec<u8>> {
    loop {
        let mut buffer = vec![0; Errno::result(read(&mut []))? as usize];
        if buffer.is_empty() {
            return Ok(buffer);
        }
        match Errno::result(read(&mut buffer)) {
            Ok(length) => {
                buffer.truncate(length as usize);
                return Ok(buffer);
            }
            Err(Errno::ERANGE) => {}
            Err(errno) => return Err(errno),
        }
    }
}
