//! The socket of sd_notify(3) that a container gets: in a directory of the record, which is mounted
//! read-only at /run/notify. `create` makes the directory, `start` the socket.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::unistd::Pid;
use oci_spec::runtime::{LinuxNamespaceType, Mount, Spec};

use super::record::NOTIFY;
use crate::error::Result;
use crate::log;
use crate::process::readiness::{Readiness, VARIABLE};

const DIRECTORY: &str = "/run/notify";

/// Tells the program where to say that it is ready, in place of what the configuration says. False for
/// a container on the host's mounts, where nothing is mounted.
pub fn offer(spec: &mut Spec) -> bool {
    let linux = spec.linux().as_ref();
    let namespaces = linux.and_then(|linux| linux.namespaces().as_deref());
    let own = namespaces
        .unwrap_or_default()
        .iter()
        .any(|namespace| namespace.typ() == LinuxNamespaceType::Mount);
    if !own {
        log::warning(format_args!(
            "{VARIABLE} is not passed on: the container has no mount namespace"
        ));
        return false;
    }
    if let Some(process) = spec.process_mut() {
        let mut env = process.env().clone().unwrap_or_default();
        env.push(format!("{VARIABLE}={DIRECTORY}/{NOTIFY}"));
        process.set_env(Some(env));
    }
    true
}

/// The mount of the record's directory.
pub fn mount(source: &Path) -> Mount {
    let mut mount = Mount::default();
    mount.set_destination(DIRECTORY.into());
    mount.set_typ(Some("bind".into()));
    mount.set_source(Some(source.to_owned()));
    let options = ["bind", "nosuid", "noexec", "nodev", "ro"];
    mount.set_options(Some(options.map(String::from).into()));
    mount
}

/// A started container that hasn't said yet that it is ready.
#[derive(Debug)]
pub struct Started {
    pub readiness: Readiness,
    pub pid: Pid,
    /// `None` when it has ended.
    pub pidfd: Option<OwnedFd>,
}

impl Started {
    /// Until it says so, or ends. Nobody else is kept waiting: the container isn't locked any more.
    pub fn wait(self) -> Result<()> {
        let pidfd = self.pidfd.as_ref().map(AsFd::as_fd);
        self.readiness.wait(self.pid, pidfd)
    }
}
