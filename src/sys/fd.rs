//! Descriptors: sweeping and moving them, and looking at what they are.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::Result;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::sys::stat::Mode;

use super::file::{openat, through_signals};

/// Marks every descriptor from `first` on close-on-exec, close_range(2) with
/// `CLOSE_RANGE_CLOEXEC` (Linux 5.11).
pub fn cloexec_from(first: u32) -> Result<()> {
    // SAFETY: no memory is passed; the flag only changes descriptor flags.
    let done = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    Errno::result(done).map(drop)
}

/// The whole of a file that the kernel makes, in as few calls as there can be: std asks for sizes first and
/// begins with 32 bytes, and musl's open(2) sets close-on-exec twice.
pub fn read_whole(path: &str) -> Result<Vec<u8>> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    read_to_end(openat(AT_FDCWD, path, flags, Mode::empty())?.as_fd())
}

/// What one read(2) gives of a file that the kernel makes: two kilobytes at most.
pub fn read_beginning(path: &str) -> Result<Vec<u8>> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let file = openat(AT_FDCWD, path, flags, Mode::empty())?;
    let mut buffer = [0; 2048];
    let count = through_signals(|| nix::unistd::read(&file, &mut buffer))?;
    Ok(buffer[..count].to_vec())
}

/// A regular file from its beginning: what comes short of the buffer is the end.
pub fn read_regular(file: BorrowedFd) -> Result<Vec<u8>> {
    // On the stack: what is kept of a small file is not longer than that.
    let mut buffer = [0; 4096];
    let mut bytes = Vec::new();
    loop {
        let count = through_signals(|| nix::unistd::read(file, &mut buffer))?;
        bytes.extend_from_slice(&buffer[..count]);
        if count < buffer.len() {
            return Ok(bytes);
        }
    }
}

/// What is left to read.
pub fn read_to_end(file: BorrowedFd) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match nix::unistd::read(file, &mut buffer) {
            Ok(0) => return Ok(bytes),
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Takes over descriptor `fd` that the process was started with.
///
/// # Errors
/// `EBADF` if it isn't open.
pub fn adopt(fd: RawFd) -> Result<OwnedFd> {
    // SAFETY: F_GETFD passes no memory.
    Errno::result(unsafe { libc::fcntl(fd, libc::F_GETFD) })?;
    // SAFETY: just seen to be open; the caller names a descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// One of the three standard streams.
pub fn stdio(number: u8) -> BorrowedFd<'static> {
    debug_assert!(number < 3);
    // SAFETY: 0, 1 and 2 are open for the whole life of the process: `main` sees to it first.
    unsafe { BorrowedFd::borrow_raw(RawFd::from(number)) }
}

/// Duplicates `fd` to the number `to` without close-on-exec, dup3(2); a descriptor that already has
/// this number only loses the flag.
pub fn place(fd: BorrowedFd, to: RawFd) -> Result<()> {
    if fd.as_raw_fd() == to {
        // SAFETY: F_SETFD passes no memory.
        return Errno::result(unsafe { libc::fcntl(to, libc::F_SETFD, 0) }).map(drop);
    }
    // SAFETY: no memory is passed. What was open at `to` is meant to be replaced.
    Errno::result(unsafe { libc::dup3(fd.as_raw_fd(), to, 0) }).map(drop)
}

/// Opens `/dev/null` on those of 0, 1, 2 that are closed: else the next descriptor that is opened
/// would be taken for a standard stream.
pub fn fill_stdio() -> Result<()> {
    let mut streams = [0, 1, 2].map(|fd| libc::pollfd {
        fd,
        events: 0,
        revents: 0,
    });
    // SAFETY: three entries to read and write. What was asked of none isn't waited for.
    let told = unsafe { libc::poll(streams.as_mut_ptr(), 3, 0) };
    if told >= 0
        && streams
            .iter()
            .all(|stream| stream.revents & libc::POLLNVAL == 0)
    {
        return Ok(());
    }
    for fd in 0..3 {
        // SAFETY: F_GETFD passes no memory.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
            // SAFETY: a constant C string. The lowest free number is `fd`, as all below are open.
            Errno::result(unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) })?;
        }
    }
    Ok(())
}

/// Whether an extended attribute can be set on the file at `path`: it is set and removed again.
///
/// # Errors
/// `EOPNOTSUPP` if the filesystem keeps none of that name space, `EPERM` without the privilege.
pub fn probe_xattr(path: &str, name: &std::ffi::CStr) -> Result<()> {
    let path = std::ffi::CString::new(path).map_err(|_| Errno::EINVAL)?;
    // SAFETY: three valid pointers; one byte of value.
    let set = unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), c"y".as_ptr().cast(), 1, 0) };
    Errno::result(set)?;
    // SAFETY: two valid C strings.
    Errno::result(unsafe { libc::removexattr(path.as_ptr(), name.as_ptr()) }).map(drop)
}

/// `NS_GET_NSTYPE`, ioctl_nsfs(2): the `CLONE_NEW*` flag of an open namespace.
///
/// # Errors
/// `ENOTTY` if it isn't one.
pub fn namespace_type(fd: RawFd) -> Result<libc::c_int> {
    const NS_GET_NSTYPE: libc::c_int = 0xb703;
    // SAFETY: takes no argument.
    Errno::result(unsafe { libc::ioctl(fd, NS_GET_NSTYPE as _) })
}

/// Closes every descriptor from `first` to `last`, both included.
pub fn close_range(first: u32, last: u32) -> Result<()> {
    if first > last {
        return Ok(());
    }
    // SAFETY: no memory is passed. Callers do this before they open anything of their own.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

/// Takes close-on-exec off descriptor `number`.
///
/// # Errors
/// `EBADF` if it isn't open.
pub fn keep(number: u32) -> Result<()> {
    // SAFETY: F_SETFD passes no memory.
    Errno::result(unsafe { libc::fcntl(number as RawFd, libc::F_SETFD, 0) }).map(drop)
}

/// flock(2), exclusive, without waiting. The lock belongs to the open file and everybody who has
/// inherited it.
///
/// # Errors
/// `EWOULDBLOCK` if another open file has it.
pub fn try_lock(fd: BorrowedFd) -> Result<()> {
    through_signals(|| {
        // SAFETY: no memory is passed.
        Errno::result(unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) })
    })
    .map(drop)
}

/// Closes every descriptor from `first` on but those of `kept`.
pub fn close_but(first: u32, kept: &[BorrowedFd]) -> Result<()> {
    let mut numbers: Vec<u32> = kept.iter().map(|fd| fd.as_raw_fd() as u32).collect();
    numbers.sort_unstable();
    let mut next = first;
    for number in numbers.into_iter().filter(|&number| number >= first) {
        if number > next {
            close_range(next, number - 1)?;
        }
        next = number + 1;
    }
    close_range(next, u32::MAX)
}

/// Whether somebody has the lock of [`try_lock`] through another open file. Asking takes a shared lock
/// for a moment, so that those who ask don't see each other.
pub fn is_locked(fd: BorrowedFd) -> Result<bool> {
    let shared = through_signals(|| {
        // SAFETY: no memory is passed.
        Errno::result(unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_SH | libc::LOCK_NB) })
    });
    match shared {
        Err(Errno::EWOULDBLOCK) => Ok(true),
        done => done.map(|_| false),
    }
}

pub fn is_open(number: u32) -> bool {
    // SAFETY: F_GETFD passes no memory.
    unsafe { libc::fcntl(number as RawFd, libc::F_GETFD) >= 0 }
}
