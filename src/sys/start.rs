//! The beginning of the process, without what the language's runtime does before `main`: it looks at
//! descriptors, which husk does itself, and prepares to say a word when the stack overflows, which
//! takes a stack of its own and ten system calls in each of the starts that a container's life takes.

use std::ffi::{CStr, OsStr, OsString, c_char, c_int};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::atomic::{AtomicPtr, Ordering};

use nix::errno::Errno;

static ARGUMENTS: AtomicPtr<*const c_char> = AtomicPtr::new(std::ptr::null_mut());

unsafe extern "C" {
    static mut environ: *const *const c_char;
}

/// Makes `$run`, a `fn(Vec<OsString>) -> u8` of the words after the program's name, the program's `main`.
#[macro_export]
macro_rules! start_with {
    ($run:path) => {
        // SAFETY: the C library's start calls this once, and nothing else has the name.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn main(
            count: std::ffi::c_int,
            words: *const *const std::ffi::c_char,
        ) -> std::ffi::c_int {
            // SAFETY: these are main's.
            let words = unsafe { $crate::sys::start::begin(count, words) };
            std::ffi::c_int::from($run(words))
        }
    };
}

/// The words after the program's name.
///
/// # Safety
/// `words` are so many strings and a null, and stay.
pub unsafe fn begin(count: c_int, words: *const *const c_char) -> Vec<OsString> {
    ARGUMENTS.store(words.cast_mut(), Ordering::Relaxed);
    // What is written to a pipe that nobody reads is an error, not the end: as std has it.
    // SAFETY: no handler is installed that could run.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    // SAFETY: these are main's.
    unsafe { std::slice::from_raw_parts(words, usize::try_from(count).unwrap_or(0)) }
        .iter()
        .skip(1)
        .map(|&word| {
            // SAFETY: the string is main's, and ends with NUL.
            let word = unsafe { CStr::from_ptr(word) };
            OsString::from_vec(word.to_bytes().to_vec())
        })
        .collect()
}

/// The words after the program's name, where they are. None if the process didn't begin with [`begin`].
pub fn words() -> impl Iterator<Item = &'static OsStr> {
    let mut next = ARGUMENTS.load(Ordering::Relaxed);
    std::iter::from_fn(move || {
        if next.is_null() {
            return None;
        }
        // SAFETY: main's list ends with a null, which was not passed yet.
        let word = unsafe { *next };
        if word.is_null() {
            return None;
        }
        // SAFETY: after a word comes a word or the null.
        next = unsafe { next.add(1) };
        // SAFETY: the string is main's, stays, and ends with NUL.
        let word = unsafe { CStr::from_ptr(word) };
        Some(OsStr::from_bytes(word.to_bytes()))
    })
    .skip(1)
}

/// Executes this file with the words and the environment that the process was started with. Returns only
/// on failure.
pub fn again(file: BorrowedFd) -> Errno {
    let words = ARGUMENTS.load(Ordering::Relaxed);
    // SAFETY: one thread, and nobody changes it.
    let environment = unsafe { environ };
    // SAFETY: both lists are those that the process was started with: strings, and a null.
    let failed = unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            words,
            environment,
            libc::AT_EMPTY_PATH,
        )
    };
    Errno::result(failed).err().unwrap_or(Errno::EINVAL)
}
