//! The seccomp agent: who answers the calls that a container's filter leaves to somebody else,
//! runtime-spec's config-linux.md, "The Container Process State".

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use nix::unistd::Pid;
use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{Error, Result, Step};
use crate::sys::socket;

const POINTER: &str = "/linux/seccomp/listenerPath";

const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    path: PathBuf,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    metadata: String,
}

impl Agent {
    /// For a filter that notifies.
    pub fn plan(spec: &Spec) -> Result<Agent> {
        let linux = spec.linux().as_ref();
        let profile = linux.and_then(|linux| linux.seccomp().as_ref());
        let path = profile.and_then(|profile| profile.listener_path().clone());
        let path = path.ok_or_else(|| Error::config(POINTER, "missing"))?;
        if !path.is_absolute() {
            // `create`, `start` and `exec` may have one current directory each.
            return Err(Error::config(POINTER, "must be absolute"));
        }
        let metadata = profile.and_then(|profile| profile.listener_metadata().clone());
        Ok(Agent {
            path,
            metadata: metadata.unwrap_or_default(),
        })
    }

    /// Sends the listener of the process `pid`, of a container in that state.
    pub fn deliver(&self, listener: BorrowedFd, pid: Option<Pid>, state: &Value) -> Result<()> {
        let mut told = json!({
            "ociVersion": state["ociVersion"],
            "fds": ["seccompFd"],
            "pid": pid.map_or(0, Pid::as_raw),
            "state": state,
        });
        if !self.metadata.is_empty() {
            told["metadata"] = self.metadata.as_str().into();
        }
        let fail = |step: &'static str| {
            move |errno| {
                Error::new(step)
                    .on(self.path.display())
                    .at(POINTER)
                    .errno(errno)
            }
        };
        // The program waits for him.
        let mut stream = socket::connect_within(&self.path, PATIENCE)
            .map(UnixStream::from)
            .or_fail(fail("failed to connect with seccomp agent"))
            .map_err(|error| {
                error.hint("the agent must listen there before the container starts")
            })?;
        let told = told.to_string();
        let sent = socket::send(stream.as_fd(), told.as_bytes(), Some(listener))
            .or_fail(fail("send seccomp listener to agent"))?;
        stream
            .write_all(&told.as_bytes()[sent..])
            .or_fail(fail("send seccomp listener to agent"))
    }
}
