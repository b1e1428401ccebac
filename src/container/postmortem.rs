//! What is known of a container's end, for who asks later.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Container, Status, find_locked};
use crate::error::{Error, Result};
use crate::process::Ended;
use crate::signal::Signal;

/// Keys of husk's in the state of a stopped container. What nobody saw is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Postmortem {
    /// What the first process returned. Only its parent is told, which husk is while it is in the
    /// foreground.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_status: Option<u8>,
    /// What killed it instead, as `SIGKILL`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// How many of its processes the kernel killed for want of memory: `oom_kill` of memory.events, which
    /// lasts as long as the cgroup. systemd removes that right after the last process, and nobody else counts: its
    /// `Result` says `oom-kill` only for a scope that `memory.oom.group` ends as a whole, and a count of its own it
    /// has not. So it is there if husk looked before: in the foreground it does at the end, `events` all the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_kills: Option<u64>,
}

impl Container {
    /// Keeps in the record how the first process ended.
    ///
    /// # Errors
    /// The container is gone, or is at work for somebody else.
    pub fn remember_end(root: &Path, id: &str, ended: Ended) -> Result<()> {
        let mut container = find_locked(root, id)?;
        let (exit_status, signal) = match ended {
            Ended::Exited(status) => (Some(status), None),
            Ended::Killed(number) => (None, Some(Signal::from_number(number).to_string())),
        };
        container.record.postmortem = Postmortem {
            exit_status,
            signal,
            oom_kills: container.oom_kills(),
        };
        container.home.write(&container.record)
    }

    /// What is known of the end, if it has come.
    pub fn postmortem(&self, status: Status) -> Postmortem {
        if status != Status::Stopped {
            return Postmortem::default();
        }
        Postmortem {
            oom_kills: self.oom_kills(),
            ..self.record.postmortem.clone()
        }
    }

    /// Why the first process ended before it was the program, as far as that is known.
    pub(super) fn stillbirth(&self) -> Error {
        let error = Error::new("start container").on(self.id());
        match self.oom_kills() {
            Some(1..) => error
                .at("/linux/resources/memory/limit")
                .because("out of memory: the limit is too small to execute the program in"),
            _ => error
                .at("/linux")
                .because("its process ended before the program was executed")
                .hint("killed? compare linux.resources.memory.limit and linux.seccomp"),
        }
    }

    /// The cgroup's, and those in the record once that is gone: systemd removes an empty scope.
    fn oom_kills(&self) -> Option<u64> {
        let cgroup = self.own_cgroup().ok().flatten();
        cgroup
            .and_then(|cgroup| cgroup.oom_kills())
            .or(self.record.postmortem.oom_kills)
    }
}
