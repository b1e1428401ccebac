//! What a command takes, by wait4(2): of the process itself and of those that it has waited for.

use std::time::Duration;

use crate::lab::Command;
use crate::output::{End, Output};
use crate::sys;

#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// The processor's time, which other programs on the machine don't lengthen.
    pub processor: Duration,
    /// Resident memory at its peak, in bytes. At least that of the caller when it forked.
    pub memory: u64,
}

/// Runs the command to its end. What hangs is killed and told by `patience`.
#[track_caller]
pub fn measure(command: Command, patience: Duration) -> (Output, Cost) {
    let running = command.spawn();
    let pidfd = sys::pidfd_open(running.pid()).unwrap();
    if !sys::readable(&pidfd, patience).unwrap() {
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(running.pid()),
            nix::sys::signal::Signal::SIGKILL,
        )
        .unwrap();
    }
    let (status, usage) = sys::wait4(running.pid()).unwrap();
    let time = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64)
    };
    let output = Output {
        command: running.line().to_owned(),
        end: match libc::WIFEXITED(status) {
            true => End::Code(libc::WEXITSTATUS(status)),
            false => End::Signal(libc::WTERMSIG(status)),
        },
        stdout: running.stdout(),
        stderr: running.stderr(),
    };
    let cost = Cost {
        processor: time(usage.ru_utime) + time(usage.ru_stime),
        memory: usage.ru_maxrss as u64 * 1024,
    };
    (output, cost)
}
