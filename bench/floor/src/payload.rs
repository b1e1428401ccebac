//! What the containers run.

use core::ffi::{CStr, c_char};

use crate::words::{Line, die, must};

/// Whether this name is a payload's, which then has run.
pub fn run(name: &CStr, words: *const *const c_char, environment: *const *const c_char) -> bool {
    let name = name.to_bytes();
    let last = name.iter().rposition(|byte| *byte == b'/');
    match &name[last.map_or(0, |at| at + 1)..] {
        b"true" => {}
        b"pause" => {
            // SAFETY: waits for a signal.
            unsafe { libc::pause() };
        }
        b"cost" => cost(),
        b"rss" => rss(words, environment),
        _ => return false,
    }
    true
}

/// Nanoseconds that these take, the least of three hundred times a thousand, which are short enough for some to be
/// disturbed by nothing: `getppid`, which every filter allows whatever its arguments, and `personality`, whose argument
/// engines' profiles look at.
fn cost() {
    const TIMES: u64 = 1_000;
    let best = |call: &dyn Fn()| {
        let mut best = u64::MAX;
        for _ in 0..300 {
            let before = now();
            for _ in 0..TIMES {
                call();
            }
            best = best.min(now() - before);
        }
        best / TIMES
    };
    let ppid = best(&|| {
        // SAFETY: the call takes nothing.
        unsafe { libc::syscall(libc::SYS_getppid) };
    });
    let personality = best(&|| {
        // SAFETY: asks for the personality and changes nothing.
        unsafe { libc::syscall(libc::SYS_personality, 0xffff_ffffu64) };
    });
    let line = Line::new().number(ppid).text(c" ").number(personality);
    line.end().write_to(1);
}

fn now() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is valid for the call to write.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// `rss COMMAND...`: executes it and writes the peak of its resident memory, in KiB, to descriptor 2. This
/// process is between because a child's peak begins with that of who made it.
fn rss(words: *const *const c_char, environment: *const *const c_char) {
    // SAFETY: one thread; what follows in the child is execve.
    let child = must(c"fork", unsafe { libc::fork() }) as i32;
    if child == 0 {
        // SAFETY: both lists are those of this process; the first word is this program.
        unsafe { libc::execve(*words.add(1), words.add(1), environment) };
        die(c"execve");
    }
    let mut status = 0;
    // SAFETY: all zeroes is a valid rusage.
    let mut usage: libc::rusage = unsafe { core::mem::zeroed() };
    // SAFETY: both are valid for the call to write.
    must(c"wait4", unsafe {
        libc::wait4(child, &mut status, 0, &mut usage)
    });
    Line::new().number(usage.ru_maxrss as u64).end().write_to(2);
    // SAFETY: ends the process.
    unsafe { libc::_exit(libc::WEXITSTATUS(status)) }
}
