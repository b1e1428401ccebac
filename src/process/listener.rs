//! The way of a seccomp listener out of the process that the filter binds.
//!
//! From the moment on that the filter is there, any call of the process may wait for an agent who has
//! no listener yet: write(2), sendmsg(2), whatever would bring it to him. So the process makes none.
//! A second thread does, which shares the descriptors but not the filter: it sees the listener,
//! sends it to husk and waits for the word that the agent has it, while the first one looks at a
//! variable. The execution of the program ends the thread.

use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::channel;
use crate::error::{Error, Result, Step};
use crate::seccomp::Filter;
use crate::sys;

/// Number of the listener, or one of these.
static LISTENER: AtomicI32 = AtomicI32::new(NOT_YET);
const NOT_YET: i32 = -1;
const NEVER: i32 = -2;

/// The agent has it.
static DELIVERED: AtomicBool = AtomicBool::new(false);

/// Longer than husk waits for the agent.
const PATIENCE: Duration = Duration::from_secs(15);

/// What the thread calls needs no more.
const STACK: usize = 128 * 1024;

/// Installs the filter; returns when the agent has the listener, if there is one. `connection` leads
/// to the husk that waits for the program.
pub fn install(filter: &Filter, connection: BorrowedFd) -> Result<()> {
    if !filter.notifies() {
        return filter
            .install()
            .map(drop)
            .or_fail(|errno| refused(filter, errno));
    }
    let connection = connection
        .try_clone_to_owned()
        .step("copy", "the connection to husk")?;
    // Detached at once: that, too, may be a call.
    std::thread::Builder::new()
        .stack_size(STACK)
        .spawn(move || deliver(&connection))
        .map(drop)
        .or_fail(|errno| {
            Error::new("make thread for the seccomp listener")
                .at("/linux/seccomp/listenerPath")
                .errno(errno)
                .hint("SCMP_ACT_NOTIFY takes one more: raise linux.resources.pids.limit, RLIMIT_NPROC or RLIMIT_AS")
        })?;
    match filter.install() {
        // From here on no system call, until the agent can answer it.
        Ok(listener) => {
            let number = listener.map_or(NEVER, OwnedFd::into_raw_fd);
            LISTENER.store(number, Ordering::Release);
            // The clock is read without a call.
            let end = Instant::now() + PATIENCE;
            while !DELIVERED.load(Ordering::Acquire) {
                // A real-time process that may not yield, on its only CPU, keeps the other thread away.
                if Instant::now() > end {
                    sys::process::fault();
                }
                match filter.lets_yield() {
                    true => drop(nix::sched::sched_yield()),
                    false => std::hint::spin_loop(),
                }
            }
            Ok(())
        }
        Err(errno) => {
            LISTENER.store(NEVER, Ordering::Release);
            Err(refused(filter, errno))
        }
    }
}

/// The other thread.
fn deliver(connection: &OwnedFd) {
    /// The first thread can wake nobody.
    const LOOK: Duration = Duration::from_micros(50);
    let number = loop {
        match LISTENER.load(Ordering::Acquire) {
            NOT_YET => std::thread::sleep(LOOK),
            NEVER => return,
            number => break number,
        }
    };
    let sent = sys::fd::adopt(number)
        .step("take", "the seccomp listener")
        .and_then(|listener| channel::hand_over(connection.as_fd(), listener.as_fd()));
    match sent {
        Ok(()) => DELIVERED.store(true, Ordering::Release),
        // husk is gone, or has told its caller what is wrong: nobody would answer the program.
        Err(_) => sys::process::exit(1),
    }
}

fn refused(filter: &Filter, errno: Errno) -> Error {
    let error = match filter.notifies() {
        true => Error::new("seccomp notify unsupported: install seccomp filter"),
        false => Error::new("install seccomp filter"),
    };
    let error = error.at("/linux/seccomp").errno(errno);
    match errno {
        Errno::EACCES => error.hint("set process.noNewPrivileges to true"),
        Errno::EBUSY => {
            error.hint("husk itself is under a filter with a listener, and a process has only one")
        }
        _ => error,
    }
}
