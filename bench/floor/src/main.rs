//! The bare system calls of a container's life, without a runtime around them: no config is read, nothing
//! is checked, every error ends it. What it does is what the default config asks for. The measure of
//! `make bench`: no runtime that does the same work can be faster.
//!
//!     floor --root DIR create|run --bundle DIR [--pid-file FILE] ID
//!     floor --root DIR start|state|kill|delete ID
//!     floor --root DIR exec ID PROGRAM
//!
//! The bundle has `rootfs`, the program's path in a file `program`, and a filter in `filter` if one is to
//! be installed. It is also what the containers run, by its own name: `true`, `pause`, `cost`; and `rss`,
//! which tells what memory a command has had at most.
// The C library calls `main`: nothing of std runs before, and what is unused is not linked.
#![no_main]

mod container;
mod payload;
mod root;
mod words;

use core::ffi::{CStr, c_char, c_int};

use words::{Line, die};

/// Options and operands, as the kernel passed them.
pub struct Call {
    pub root: &'static CStr,
    pub command: &'static CStr,
    pub bundle: &'static CStr,
    pub pid_file: Option<&'static CStr>,
    pub id: &'static CStr,
    pub rest: Option<&'static CStr>,
    pub environment: *const *const c_char,
}

/// # Safety
/// Called by the C library's start, with the arguments and the environment of the process.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn main(
    count: c_int,
    words: *const *const c_char,
    environment: *const *const c_char,
) -> c_int {
    let word = |index: c_int| -> Option<&'static CStr> {
        // SAFETY: the first `count` entries are strings that live as long as the process.
        (index < count).then(|| unsafe { CStr::from_ptr(*words.add(index as usize)) })
    };
    let name = word(0).unwrap_or(c"");
    if payload::run(name, words, environment) {
        return 0;
    }
    let mut call = Call {
        root: c"",
        command: c"",
        bundle: c"",
        pid_file: None,
        id: c"",
        rest: None,
        environment,
    };
    let mut operands = 0;
    let mut index = 1;
    while let Some(this) = word(index) {
        let next = word(index + 1);
        let mut option = true;
        match this.to_bytes() {
            b"--root" => call.root = next.unwrap_or(c""),
            b"--bundle" => call.bundle = next.unwrap_or(c""),
            b"--pid-file" => call.pid_file = next,
            _ => option = false,
        }
        if option {
            index += 2;
            continue;
        }
        match operands {
            0 => call.command = this,
            1 => call.id = this,
            _ => call.rest = Some(this),
        }
        operands += 1;
        index += 1;
    }
    match call.command.to_bytes() {
        b"create" => container::create(&call),
        b"run" => container::run(&call),
        b"start" => container::start(&call),
        b"state" => container::state(&call),
        b"kill" => container::kill(&call),
        b"delete" => container::delete(&call),
        b"exec" => container::exec(&call),
        b"--version" => Line::new().text(c"floor 0").end().write_to(1),
        _ => die(c"usage: floor --root DIR COMMAND ..."),
    }
    0
}
