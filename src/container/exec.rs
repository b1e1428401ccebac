//! One more process in a container: what it is made of.

use std::ffi::CString;
use std::os::fd::AsFd;
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use oci_spec::runtime::Process as Specification;

use super::create::stdio_owner;
use super::plan::{caller_umask, filter_of, size_of};
use super::subgroup::Subgroup;
use super::{Container, Status, find};
use crate::bundle::Bundle;
use crate::bundle::advise;
use crate::error::{Error, Result, Step, phrase};
use crate::log;
use crate::process::exec::{self, Exec};
use crate::process::program::{Passed, Program, give_stdio};
use crate::process::schedule::ExecAffinity;
use crate::process::{self, Process, foreground, oom_score};
use crate::trace;

/// A process that runs, or rather waits for [`exec::release`].
#[derive(Debug)]
pub struct Joined {
    container: Container,
    pub process: Process,
    pub terminal: Option<std::os::fd::OwnedFd>,
}

impl Joined {
    /// Lets the program run.
    pub fn release(&self) -> Result<()> {
        exec::release(&self.process, |listener| {
            let container = &self.container;
            let status = container.status()?.name();
            let state = container.subject().state(status, container.pid());
            container.deliver(&listener, Some(self.process.pid), state)
        })
    }
}

/// A container that a process may join, and the configuration that it was created with.
pub struct Target {
    container: Container,
    init: std::os::fd::OwnedFd,
    bundle: Bundle,
}

impl Target {
    pub fn find(root: &Path, id: &str, paused_too: bool) -> Result<Target> {
        let container = find(root, id)?;
        match container.status()? {
            Status::Stopped | Status::Creating => {
                return Err(stopped(id));
            }
            Status::Paused if !paused_too => {
                return Err(Error::new(
                    "cannot exec in a paused container (use --ignore-paused to override):",
                )
                .on(id));
            }
            _ => {}
        }
        let init = container.init()?.ok_or_else(|| stopped(id))?;
        let raw = container.home.read_config()?;
        let bundle = Bundle::parse(&container.record.bundle, raw)?;
        Ok(Target {
            container,
            init,
            bundle,
        })
    }

    /// The process of the container's own configuration: where `exec` without a file starts from.
    pub fn template(&self) -> Result<Specification> {
        self.bundle.spec.process().clone().ok_or_else(|| {
            Error::config("/process", "missing").hint("describe the process with --process FILE")
        })
    }

    /// Makes the process, up to the moment before the program is executed.
    pub fn join(
        self,
        process: &Specification,
        passed: Passed,
        cgroup: &[String],
        rootless: bool,
    ) -> Result<Joined> {
        let subgroup = Subgroup::parse(cgroup)?;
        let filter = filter_of(&self.bundle.spec)?;
        let linux = self.bundle.spec.linux().as_ref();
        let affinity = ExecAffinity::plan(process)?;
        let mut program = Program::plan(process, linux, filter, passed, caller_umask())?;
        affinity.begin()?;
        program.bind(affinity.afterwards);
        let schedule = program.hand_over_schedule();
        let oom_score_adj = program.identity.oom_score_adj;
        let limits = program.limits.clone();
        let terminal = process
            .terminal()
            .unwrap_or(false)
            .then(|| size_of(process).or_else(foreground::caller_size));
        if let (None, Some(owner)) = (&terminal, stdio_owner(&self.bundle.spec, Some(process))) {
            give_stdio(owner);
        }
        let mut cgroup = match &subgroup {
            Some(subgroup) => Some(subgroup.open(&self.container)?),
            None => self.container.cgroup_of_init(self.init.as_fd())?,
        };
        if let (true, None, Some(fd)) = (rootless, &subgroup, &cgroup)
            && let Err(errno @ (Errno::EACCES | Errno::EPERM | Errno::ENOENT)) =
                process::try_cgroup(fd.as_fd())
        {
            log::warning(format_args!(
                "the process stays outside of the container's cgroup, its limits don't hold for it: {}",
                phrase(errno)
            ));
            cgroup = None;
        }
        let keyring = self.container.record.keyring.clone();
        let root = self.container.open_root()?;
        let exec = Exec {
            program,
            init: self.init,
            root,
            // Its mount namespace is always entered: the root is there.
            namespaces: self.container.record.namespaces | libc::CLONE_NEWNS as u64,
            terminal,
            keyring: keyring.and_then(|name| CString::new(name).ok()),
        };
        let cgroup_fd = cgroup.as_ref().map(AsFd::as_fd);
        let process = oom_score::inherited(oom_score_adj, rootless, || {
            limits.inherited(|| trace::step("clone", || exec::spawn(exec, cgroup_fd)))
        })
        .map_err(|error| match (&subgroup, error.code()) {
            (Some(subgroup), Some(errno @ (Errno::EBUSY | Errno::EOPNOTSUPP))) => {
                subgroup.not_joined(errno)
            }
            _ => error,
        })?;
        if let Some(rdt) = &self.container.record.rdt {
            rdt.join(process.pid)?;
        }
        process::protect::let_go();
        let terminal = trace::step("wait for the process", || exec::wait_ready(&process))?;
        if let Some(schedule) = schedule {
            schedule
                .apply(Some(process.pid))
                .inspect_err(|_| process.end())?;
        }
        Ok(Joined {
            container: self.container,
            process,
            terminal,
        })
    }
}

pub(super) fn stopped(id: &str) -> Error {
    Error::new("cannot exec in a stopped container:")
        .on(id)
        .hint("`husk state` tells how it ended; delete it and create it anew")
}

/// Reads the document of `exec --process`, from a file or a pipe.
pub fn read_process(path: &Path) -> Result<Specification> {
    let file = std::fs::File::open(path)
        .step("open", path.display())
        .map_err(|error| advise(error, path))?;
    let raw = crate::bundle::read_stream(file, 0, path)?;
    let (process, warnings) = crate::bundle::parse_process(&raw)?;
    for warning in warnings {
        log::warning(format_args!(
            "{} ({}): {}",
            path.display(),
            warning.pointer,
            warning.message
        ));
    }
    Ok(process)
}
