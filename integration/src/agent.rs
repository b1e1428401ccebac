//! A seccomp agent: receives listeners and answers the calls that they tell of, seccomp_unotify(2).

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::mpsc::{self, Receiver as Messages, Sender};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;

use crate::lab::patience;
use crate::receiver::Receiver;

/// What a call gets.
#[derive(Debug, Clone, Copy)]
pub enum Answer {
    Value(i64),
    Error(Errno),
    /// The kernel does it.
    Continue,
}

/// By the number of the call; what isn't named continues.
pub type Answers = BTreeMap<i64, Answer>;

pub struct Agent {
    path: String,
    told: Messages<Value>,
    calls: Messages<(u32, i64)>,
}

impl Agent {
    /// Listens at `path` and serves, in threads of the test's process, until the test ends.
    pub fn new(path: &Path, answers: Answers) -> Agent {
        let socket = Receiver::new(path);
        let (tell, told) = mpsc::channel();
        let (call, calls) = mpsc::channel();
        let path = socket.path().to_owned();
        std::thread::spawn(move || {
            loop {
                let (listener, text) = socket.accept();
                let _ = tell.send(serde_json::from_str(&text).unwrap());
                let (answers, call) = (answers.clone(), call.clone());
                std::thread::spawn(move || serve(&listener, &answers, &call));
            }
        });
        Agent { path, told, calls }
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    /// The next container process state.
    #[track_caller]
    pub fn told(&self) -> Value {
        self.told
            .recv_timeout(patience())
            .expect("no container process state")
    }

    /// Whether nothing came that wasn't asked for.
    pub fn is_idle(&self) -> bool {
        self.told.recv_timeout(Duration::from_millis(50)).is_err()
    }

    /// The calls so far: the pid of who made it, as seen here, and its number.
    pub fn calls(&self) -> Vec<(u32, i64)> {
        self.calls.try_iter().collect()
    }
}

/// Until nobody is left under the filter.
fn serve(listener: &OwnedFd, answers: &Answers, calls: &Sender<(u32, i64)>) {
    loop {
        let mut fds = [PollFd::new(
            std::os::fd::AsFd::as_fd(listener),
            PollFlags::POLLIN,
        )];
        let _ = poll(&mut fds, PollTimeout::NONE);
        let events = fds[0].revents().unwrap_or(PollFlags::empty());
        if !events.contains(PollFlags::POLLIN) {
            return;
        }
        // SAFETY: all zeroes is what the kernel asks for.
        let mut notice: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: `notice` is valid for the ioctl to write.
        if unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE as _, &mut notice) } < 0 {
            continue;
        }
        let number = i64::from(notice.data.nr);
        let _ = calls.send((notice.pid, number));
        let answer = answers.get(&number).copied();
        let response = libc::seccomp_notif_resp {
            id: notice.id,
            val: match answer {
                Some(Answer::Value(value)) => value,
                _ => 0,
            },
            error: match answer {
                Some(Answer::Error(errno)) => -(errno as i32),
                _ => 0,
            },
            flags: match answer {
                None | Some(Answer::Continue) => CONTINUE,
                _ => 0,
            },
        };
        // SAFETY: `response` is valid for the ioctl to read.
        unsafe { libc::ioctl(listener.as_raw_fd(), SEND as _, &response) };
    }
}

/// `SECCOMP_IOCTL_NOTIF_RECV` and `_SEND`, `SECCOMP_USER_NOTIF_FLAG_CONTINUE` of linux/seccomp.h.
pub const RECEIVE: u32 = 0xc050_2100;
pub const SEND: u32 = 0xc018_2101;
pub const CONTINUE: u32 = 1;
