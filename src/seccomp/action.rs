//! What a filter answers.

use std::fmt;

use nix::errno::Errno;
use oci_spec::runtime::LinuxSeccompAction;

use crate::error::{Error, Result};

/// The largest errno that the kernel returns (MAX_ERRNO); it cuts larger ones down to it.
const MAX_ERRNO: u32 = 4095;
const DATA: u32 = libc::SECCOMP_RET_DATA;

/// A filter's return value: SECCOMP_RET_* and its 16 bits of data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Action(u32);

impl Action {
    pub const KILL_THREAD: Action = Action(libc::SECCOMP_RET_KILL_THREAD);
    pub const ALLOW: Action = Action(libc::SECCOMP_RET_ALLOW);
    pub const ENOSYS: Action = Action(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32);

    /// `errno` is `errnoRet` or `defaultErrnoRet`, which stands at `pointer`.
    pub fn new(
        kind: LinuxSeccompAction,
        errno: Option<u32>,
        pointer: impl FnOnce() -> String,
    ) -> Result<Action> {
        use LinuxSeccompAction as Kind;
        let (action, limit) = match kind {
            Kind::ScmpActKill | Kind::ScmpActKillThread => (libc::SECCOMP_RET_KILL_THREAD, None),
            Kind::ScmpActKillProcess => (libc::SECCOMP_RET_KILL_PROCESS, None),
            Kind::ScmpActTrap => (libc::SECCOMP_RET_TRAP, None),
            Kind::ScmpActErrno => (libc::SECCOMP_RET_ERRNO, Some(MAX_ERRNO)),
            Kind::ScmpActNotify => (libc::SECCOMP_RET_USER_NOTIF, None),
            Kind::ScmpActTrace => (libc::SECCOMP_RET_TRACE, Some(DATA)),
            Kind::ScmpActLog => (libc::SECCOMP_RET_LOG, None),
            Kind::ScmpActAllow => (libc::SECCOMP_RET_ALLOW, None),
        };
        match (limit, errno) {
            (None, None) => Ok(Action(action)),
            (None, Some(_)) => Err(Error::config(
                pointer(),
                format!("{kind} returns no errno"),
            )
            .hint("only SCMP_ACT_ERRNO and SCMP_ACT_TRACE take one: remove it, or change the action")),
            (Some(limit), Some(errno)) if errno > limit => Err(Error::config(
                pointer(),
                format!("{errno} is no errno that {kind} can return"),
            )
            .hint(format!("it returns at most {limit}"))),
            (Some(_), errno) => Ok(Action(action | errno.unwrap_or(libc::EPERM as u32))),
        }
    }

    /// Of a filter's return value.
    pub fn from_value(value: u32) -> Action {
        Action(value)
    }

    /// What a call that is denied returns; `None` for answers that end its process.
    pub fn errno(self) -> Option<i32> {
        let is_errno = self.0 & !DATA == libc::SECCOMP_RET_ERRNO;
        is_errno.then_some((self.0 & DATA) as i32)
    }

    pub fn value(self) -> u32 {
        self.0
    }

    /// Whether the call itself is left undone: everything but ALLOW, LOG and TRACE
    /// (whose tracer is trusted to know new calls; so has it runc).
    pub fn is_denial(self) -> bool {
        !matches!(
            self.0 & !DATA,
            libc::SECCOMP_RET_ALLOW | libc::SECCOMP_RET_LOG | libc::SECCOMP_RET_TRACE
        )
    }

    /// The kernel's own order (kernel/seccomp.c, seccomp_run_filters): of several
    /// filters' answers the least permissive counts.
    pub fn is_more_permissive_than(self, other: Action) -> bool {
        let rank = |action: Action| (action.0 & !DATA) as i32;
        rank(self) > rank(other)
    }
}

/// `allow`, `errno EPERM`, `kill process`.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let data = self.0 & DATA;
        match self.0 & !DATA {
            libc::SECCOMP_RET_ERRNO if data == 0 => f.write_str("errno 0 (not done, said to be)"),
            libc::SECCOMP_RET_ERRNO => match Errno::from_raw(data as i32) {
                Errno::UnknownErrno => write!(f, "errno {data}"),
                errno => write!(f, "errno {errno:?}"),
            },
            libc::SECCOMP_RET_ALLOW => f.write_str("allow"),
            libc::SECCOMP_RET_LOG => f.write_str("log"),
            libc::SECCOMP_RET_TRACE => write!(f, "trace {data}"),
            libc::SECCOMP_RET_TRAP => f.write_str("trap (SIGSYS)"),
            libc::SECCOMP_RET_USER_NOTIF => f.write_str("notify the agent"),
            libc::SECCOMP_RET_KILL_PROCESS => f.write_str("kill process"),
            _ => f.write_str("kill thread"),
        }
    }
}

#[cfg(test)]
mod tests {
    use LinuxSeccompAction as Kind;

    use super::*;

    fn new(kind: Kind, errno: Option<u32>) -> Result<Action> {
        Action::new(kind, errno, || "/linux/seccomp/x".into())
    }

    #[test]
    fn all_nine_actions() {
        for (kind, errno, value) in [
            (Kind::ScmpActKill, None, 0),
            (Kind::ScmpActKillThread, None, 0),
            (Kind::ScmpActKillProcess, None, 0x8000_0000),
            (Kind::ScmpActTrap, None, 0x0003_0000),
            (Kind::ScmpActErrno, None, 0x0005_0001),
            (Kind::ScmpActErrno, Some(38), 0x0005_0026),
            (Kind::ScmpActErrno, Some(0), 0x0005_0000),
            (Kind::ScmpActNotify, None, 0x7fc0_0000),
            (Kind::ScmpActTrace, None, 0x7ff0_0001),
            (Kind::ScmpActTrace, Some(0xffff), 0x7ff0_ffff),
            (Kind::ScmpActLog, None, 0x7ffc_0000),
            (Kind::ScmpActAllow, None, 0x7fff_0000),
        ] {
            assert_eq!(new(kind, errno).unwrap().value(), value, "{kind} {errno:?}");
        }
    }

    #[test]
    fn an_errno_must_fit_its_action() {
        for (kind, errno) in [
            (Kind::ScmpActAllow, 1),
            (Kind::ScmpActKillProcess, 0),
            (Kind::ScmpActNotify, 38),
            (Kind::ScmpActErrno, 4096),
            (Kind::ScmpActErrno, 0x7fff_0000),
            (Kind::ScmpActTrace, 0x1_0000),
        ] {
            let error = new(kind, Some(errno)).unwrap_err();
            assert_eq!(error.pointer(), Some("/linux/seccomp/x"));
            assert!(error.remedy().is_some());
        }
    }

    #[test]
    fn permissiveness_is_the_kernels() {
        let order = [
            Kind::ScmpActKillProcess,
            Kind::ScmpActKillThread,
            Kind::ScmpActTrap,
            Kind::ScmpActErrno,
            Kind::ScmpActNotify,
            Kind::ScmpActTrace,
            Kind::ScmpActLog,
            Kind::ScmpActAllow,
        ]
        .map(|kind| new(kind, None).unwrap());
        for pair in order.windows(2) {
            assert!(pair[1].is_more_permissive_than(pair[0]));
            assert!(!pair[0].is_more_permissive_than(pair[1]));
        }
    }
}
