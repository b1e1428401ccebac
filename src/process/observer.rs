//! Answers for a container whose filter asks in place of denying: the same as the filter would, and
//! takes count. A tool for finding out, not a boundary: who waits for an answer can change its
//! arguments meanwhile (seccomp_unotify(2)), but nothing is ever allowed here.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, poll};
use nix::unistd::Pid;

use crate::error::{Result, Step};
use crate::seccomp::observed::{Calls, Denied};
use crate::seccomp::{Action, Filter};
use crate::sys;

/// The thread that answers, and what it has seen.
#[derive(Debug)]
pub struct Observer {
    filter: Arc<Filter>,
    calls: Arc<Mutex<Calls>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Observer {
    /// `filter` is the one that denies.
    pub fn new(filter: Filter) -> Observer {
        Observer {
            filter: Arc::new(filter),
            calls: Arc::default(),
            ended: Arc::default(),
            thread: None,
        }
    }

    /// From here on calls are answered. The execution of the program is among those that may wait.
    pub fn watch(&mut self, listener: OwnedFd) -> Result<()> {
        let (filter, calls, ended) = (self.filter.clone(), self.calls.clone(), self.ended.clone());
        let thread = std::thread::Builder::new()
            .spawn(move || serve(&listener, &filter, &calls, &ended))
            .step("make", "the thread that answers for the filter")?;
        self.thread = Some(thread);
        Ok(())
    }

    /// All that was denied. For when the container has ended.
    pub fn finish(mut self) -> Calls {
        self.ended.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.clone()
    }
}

fn serve(listener: &OwnedFd, filter: &Filter, calls: &Mutex<Calls>, ended: &AtomicBool) {
    /// Milliseconds: processes that outlive the first one keep the listener open.
    const LOOK: u8 = 100;
    loop {
        let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, LOOK) {
            Ok(0) if ended.load(Ordering::Acquire) => return,
            Ok(0) | Err(Errno::EINTR) => continue,
            Err(_) => return,
            Ok(_) => {}
        }
        let ready = fds[0].revents().unwrap_or(PollFlags::empty());
        if !ready.contains(PollFlags::POLLIN) {
            // Nobody is under the filter any more.
            return;
        }
        match sys::seccomp::receive(listener.as_fd()) {
            Ok(call) => {
                let answer = filter.decide(&call.data);
                note(&call, answer, calls);
                // Whoever is gone meanwhile needs no answer.
                let _ = reply(listener, &call, answer);
            }
            Err(Errno::ENOENT | Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

/// More than all ABIs of a machine have: a program can make calls of four thousand million numbers.
const MOST: usize = 4096;

fn note(call: &libc::seccomp_notif, answer: Action, calls: &Mutex<Calls>) {
    let key = (call.data.arch, call.data.nr.cast_unsigned());
    let mut calls = calls.lock().unwrap_or_else(PoisonError::into_inner);
    if calls.len() >= MOST && !calls.contains_key(&key) {
        return;
    }
    let denied = calls.entry(key).or_insert_with(|| Denied {
        count: 0,
        answer,
        args: call.data.args,
        program: std::fs::read_to_string(format!("/proc/{}/comm", call.pid))
            .map(|name| name.trim_end().to_owned())
            .unwrap_or_default(),
    });
    denied.count += 1;
}

fn reply(listener: &OwnedFd, call: &libc::seccomp_notif, answer: Action) -> nix::Result<()> {
    match answer.errno() {
        Some(errno) => sys::seccomp::answer(listener.as_fd(), call.id, errno),
        None => {
            // A filter's own SIGSYS can't be sent from outside to a first process of a pid namespace
            // that doesn't handle it; SIGKILL can.
            let pid = Pid::from_raw(call.pid.cast_signed());
            let pidfd = sys::process::pidfd_open(pid)?;
            // Or it has ended meanwhile, and somebody else has its number.
            if !sys::seccomp::waits(listener.as_fd(), call.id) {
                return Err(Errno::ENOENT);
            }
            sys::process::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL)?;
            sys::seccomp::answer(listener.as_fd(), call.id, libc::EPERM)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_numbers_without_end_take_no_memory_without_end() {
        let calls = Mutex::default();
        for number in (0..2 * MOST).chain(0..2 * MOST) {
            let call = libc::seccomp_notif {
                id: 0,
                pid: std::process::id(),
                flags: 0,
                data: libc::seccomp_data {
                    nr: number as i32,
                    arch: 7,
                    instruction_pointer: 0,
                    args: [0; 6],
                },
            };
            note(&call, Action::ENOSYS, &calls);
        }
        let calls = calls.into_inner().unwrap();
        assert_eq!(calls.len(), MOST);
        assert!(calls.values().all(|denied| denied.count == 2));
    }
}
