//! A container as later commands find it: its record, its status, its end.

mod agent;
pub mod checkpoint;
pub mod create;
pub mod events;
pub mod exec;
mod ground;
mod membership;
mod notify;
pub mod plan;
mod postmortem;
mod pressure;
pub mod record;
pub mod restore;
mod rootless;
mod stat;
mod subgroup;
pub mod update;

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use serde_json::Value;

pub use self::notify::Started;
pub use self::postmortem::Postmortem;
use self::record::{Home, Phase};
pub use self::record::{Knock, Record};
use self::stat::wait_for_end;
use crate::cgroups::Cgroup;
use crate::error::{Error, Result, Step};
use crate::hooks::{self, Point, Subject};
use crate::log;
use crate::process::channel;
use crate::process::observer::Observer;
use crate::process::readiness::Readiness;
use crate::rootfs;
use crate::signal::Signal;
use crate::sys;
use crate::sys::file::openat;
use crate::trace;

/// How long a killed container may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a process whose creator was killed may be there yet.
const LAST_BREATH: Duration = Duration::from_millis(500);

/// Runtime-spec's runtime.md, "State", and `paused`, which all runtimes have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub fn name(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

/// # Errors
/// The id is not one element of a path, or has characters that engines don't use in one.
pub fn check_id(id: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+.-".contains(&byte);
    let reason = match id {
        "" => "it is empty",
        "." | ".." => "it names a directory",
        _ if id.len() > 255 => "it is longer than 255 characters",
        _ if !id.bytes().all(allowed) => "only letters, digits and _ + . - are allowed",
        _ => return Ok(()),
    };
    let shown: String = id.chars().take(64).collect();
    Err(Error::new("invalid container ID format:")
        .on(format!("`{shown}`"))
        .because(reason))
}

/// A container that exists on disk.
#[derive(Debug)]
pub struct Container {
    home: Home,
    pub record: Record,
    /// This command holds the lock.
    locked: bool,
}

/// What is found under an id.
#[derive(Debug)]
pub enum Found {
    Container(Box<Container>),
    /// A directory without a record: `create` was killed in its first moments.
    Remains(Home),
    Nothing,
}

/// Looks the id up; nothing is locked.
pub fn look_up(root: &Path, id: &str) -> Result<Found> {
    check_id(id)?;
    let Some(home) = Home::open(root, id)? else {
        return Ok(Found::Nothing);
    };
    Ok(match home.read()? {
        Some(record) => Found::Container(Box::new(Container {
            home,
            record,
            locked: false,
        })),
        None => Found::Remains(home),
    })
}

/// As [`look_up`], for commands that need a container.
pub fn find(root: &Path, id: &str) -> Result<Container> {
    match look_up(root, id)? {
        Found::Container(container) => Ok(*container),
        Found::Remains(_) | Found::Nothing => Err(record::missing(root, id)),
    }
}

/// Finds and locks: what the record says stays true until the container is dropped.
fn find_locked(root: &Path, id: &str) -> Result<Container> {
    check_id(id)?;
    let home = Home::open(root, id)?.ok_or_else(|| record::missing(root, id))?;
    lock(root, home, id)
}

/// It may have been deleted, or finished, while this command waited.
fn lock(root: &Path, home: Home, id: &str) -> Result<Container> {
    home.lock()?;
    let record = home.read()?.ok_or_else(|| record::missing(root, id))?;
    Ok(Container {
        home,
        record,
        locked: true,
    })
}

impl Record {
    /// What can be told without the container's directory: all of what has come into being here.
    pub fn status(&self) -> Result<Option<Status>> {
        if self.phase == Phase::Creating {
            return Ok(None);
        }
        let seen = match self.init {
            Some(init) => init.look()?,
            None => None,
        };
        let Some(seen) = seen else {
            return Ok(Some(Status::Stopped));
        };
        if self.is_frozen()? {
            return Ok(Some(Status::Paused));
        }
        Ok(match (self.restored, seen.is_unborn()) {
            // By CRIU, which executes nothing.
            (true, _) => None,
            (false, true) => Some(Status::Created),
            (false, false) => Some(Status::Running),
        })
    }

    fn is_frozen(&self) -> Result<bool> {
        self.cgroup.as_ref().map_or(Ok(false), Cgroup::is_frozen_at)
    }
}

impl Container {
    pub fn id(&self) -> &str {
        &self.record.id
    }

    /// A handle to the first process, unless it has ended.
    pub fn init(&self) -> Result<Option<OwnedFd>> {
        match self.record.init {
            Some(init) => init.open(),
            None => Ok(None),
        }
    }

    /// The root directory of the first process. To be opened while a handle to that process is held.
    fn open_root(&self) -> Result<OwnedFd> {
        let path = format!("/proc/{}/root", self.record.init.map_or(0, |init| init.pid));
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = openat(AT_FDCWD, path.as_str(), flags, Mode::empty()).or_fail(|errno| {
            let error = Error::new("open").on(&path).errno(errno);
            match errno {
                // Of a created container it is husk, and the host's root's to look into.
                Errno::EACCES => error.hint(
                    "only root and the user who made its user namespace may enter a container, and the \
                     latter only after its start",
                ),
                _ => error,
            }
        })?;
        // Only if the number is still that process's was it the right one.
        match self.init()? {
            Some(_) => Ok(root),
            None => Err(exec::stopped(self.id())),
        }
    }

    pub fn status(&self) -> Result<Status> {
        if let Some(status) = self.record.status()? {
            return Ok(status);
        }
        Ok(match self.record.phase {
            // A creator that was killed holds no lock any more.
            Phase::Creating => match !self.locked && self.home.is_locked()? {
                true => Status::Creating,
                false => Status::Stopped,
            },
            Phase::Created => match self.home.is_waiting()? {
                true => Status::Created,
                false => Status::Running,
            },
        })
    }

    fn subject(&self) -> Subject {
        Subject {
            version: self.record.oci_version.clone(),
            id: self.record.id.clone(),
            bundle: self.record.bundle.clone(),
            annotations: self.record.annotations.clone(),
        }
    }

    pub fn bundle(&self) -> &Path {
        &self.record.bundle
    }

    fn pid(&self) -> Option<Pid> {
        self.record.init.map(|init| Pid::from_raw(init.pid))
    }

    /// Finds it, and lets its program run: see [`Container::begin`].
    pub fn start(
        root: &Path,
        id: &str,
        manager: Option<&OsStr>,
        explain: impl FnOnce(Error, &Path) -> Error,
    ) -> Result<Option<Started>> {
        let container = find_locked(root, id)?;
        if let Some(knock) = container.knock()? {
            return container.begin(Some(knock), manager, None, explain);
        }
        let refuse = |words: &'static str| Error::new(words).on(id);
        let refused = match container.status()? {
            Status::Created => return container.begin(None, manager, None, explain),
            Status::Stopped => refuse("cannot start a container that has stopped:")
                .hint("it can't be started again: `husk delete` it, then `husk create` it anew"),
            Status::Running => refuse("cannot start an already running container:")
                .hint("`husk exec` runs one more program in it"),
            Status::Paused => refuse("cannot start a container in the paused state:")
                .hint("`husk resume` lets it go on"),
            Status::Creating => refuse("cannot start a container in the creating state:"),
        };
        Err(refused)
    }

    /// Who hears it waits for its start: nothing else has to be found out about the process. `None` if nobody does, if
    /// nobody would act on it, or more has to be done before.
    fn knock(&self) -> Result<Option<Knock>> {
        let record = &self.record;
        let is_prepared = record.phase == Phase::Created && !record.restored && !record.notify;
        match is_prepared && !record.is_frozen()? {
            true => Ok(self.home.knock().ok()),
            false => Ok(None),
        }
    }

    /// Lets the program of a created container run, and says why it doesn't if it doesn't. With a `manager`,
    /// who waits at that socket for the container to be ready, more is to be waited for. `knock`: what `create`
    /// has, if it was asked to. An observer gets the seccomp listener in place of the agent. What fails is
    /// explained while the container is still there, with its bundle.
    pub fn begin(
        self,
        knock: Option<Knock>,
        manager: Option<&OsStr>,
        observer: Option<&mut Observer>,
        explain: impl FnOnce(Error, &Path) -> Error,
    ) -> Result<Option<Started>> {
        let container = self;
        let readiness = match manager {
            Some(socket) if container.record.notify => {
                Some(Readiness::new(container.home.bind_notify()?, socket)?)
            }
            _ => None,
        };
        let started = container.release(knock, observer).and_then(|()| {
            hooks::run(
                Point::Poststart,
                &container.record.poststart,
                &|| container.subject().json("running", container.pid()),
                Some(&container.record.bundle),
            )
        });
        match started {
            // runtime.md, "Lifecycle", 8 and 10: then the container is stopped and deleted.
            Err(error) if error.pointer().is_some_and(|at| at.starts_with("/hooks/")) => {
                let error = explain(error, container.bundle());
                container.destroy()?;
                Err(error)
            }
            Err(error) => Err(explain(error, container.bundle())),
            Ok(()) => match readiness.zip(container.pid()) {
                Some((readiness, pid)) => Ok(Some(Started {
                    readiness,
                    pid,
                    pidfd: container.init()?,
                })),
                None => Ok(None),
            },
        }
    }

    /// Sends the seccomp listener of a process to the agent of the container.
    fn deliver(&self, listener: &OwnedFd, pid: Option<Pid>, state: Value) -> Result<()> {
        match &self.record.seccomp_agent {
            Some(agent) => agent.deliver(listener.as_fd(), pid, &state),
            None => Err(Error::config("/linux/seccomp/listenerPath", "missing")),
        }
    }

    fn release(&self, knock: Option<Knock>, mut observer: Option<&mut Observer>) -> Result<()> {
        let knock = knock.map_or_else(|| self.home.knock(), Ok);
        let Knock(connection) = knock.map_err(|error| match self.status() {
            // Killed since it was looked at.
            Ok(Status::Stopped) => self.stillbirth(),
            _ => error,
        })?;
        let outcome = trace::step("wait for execve", || {
            channel::read_outcome(connection.as_fd(), |listener| {
                if let Some(observer) = &mut observer {
                    return observer.watch(listener);
                }
                let state = self.subject().state("created", self.pid());
                self.deliver(&listener, self.pid(), state)
            })
        });
        if outcome.is_err() {
            // It has said why it ends: who asks for its state now is to be told that it has.
            if let Some(init) = self.init()? {
                wait_for_end(&init, Duration::from_secs(1));
            }
            return outcome;
        }
        // The end of the connection is execution or death; of a process that is there the kernel knows
        // which.
        let stillborn = match self.record.init {
            Some(init) => init.is_stillborn()?,
            None => false,
        };
        match stillborn {
            true => Err(self.stillbirth()),
            false => Ok(()),
        }
    }

    /// Sends a signal to the first process; SIGKILL to all of them where they have no pid namespace
    /// that would end with it.
    pub fn signal(&self, signal: Signal, all: bool) -> Result<()> {
        let stopped = || {
            Error::new("kill container")
                .on(self.id())
                .because("container not running")
        };
        let kill = signal == Signal::KILL;
        let others_stay = !self.record.first_in_pids;
        if self.status()? == Status::Stopped {
            return match self.own_cgroup()? {
                // Those that have outlived the first one, in a cgroup that is known to be the container's.
                Some(cgroup) if kill && others_stay && !cgroup.procs()?.is_empty() => cgroup.kill(),
                _ if all => Ok(()),
                _ => Err(stopped()),
            };
        }
        if let (true, Some(cgroup)) = (all || kill && others_stay, self.cgroup()?) {
            if kill {
                return cgroup.kill();
            }
            if all {
                return cgroup.signal(signal.number());
            }
        }
        let Some(init) = self.init()? else {
            return Err(stopped());
        };
        match sys::process::pidfd_send_signal(init.as_fd(), signal.number()) {
            Err(Errno::ESRCH) => Err(stopped()),
            done => done.step("send", format!("{signal} to {}", self.id())),
        }
    }

    /// Freezes or thaws all processes.
    pub fn pause(root: &Path, id: &str, freeze: bool) -> Result<()> {
        let container = find_locked(root, id)?;
        let status = container.status()?;
        let cgroup = container.require_cgroup()?;
        match (freeze, status) {
            (true, Status::Running | Status::Created) => cgroup.freeze(),
            (true, _) => Err(Error::new("pause container").on(id).because(format!(
                "container not running or created: {}",
                status.name()
            ))),
            (false, Status::Paused) => cgroup.thaw(),
            (false, _) => Err(Error::new("resume container")
                .on(id)
                .because("container not paused")),
        }
    }

    /// Removes the container and everything that `create` made for it.
    pub fn delete(root: &Path, id: &str, force: bool) -> Result<()> {
        check_id(id)?;
        let home = match Home::open(root, id)? {
            Some(home) => home,
            None if force => return Ok(()),
            None => return Err(record::missing(root, id)),
        };
        home.lock_while(|turn| {
            if force {
                pressure::put_on(&home, turn);
            }
        })?;
        match home.read() {
            Ok(Some(record)) => Container {
                home,
                record,
                locked: true,
            }
            .delete_locked(force),
            Ok(None) if !force => Err(record::missing(root, id)),
            // Another delete was faster, and the name may be another container's by now.
            Ok(None) if home.is_gone() => Ok(()),
            // Its creator was killed before it made anything.
            Ok(None) => home.remove(),
            // Nobody can say any more what belongs to it.
            Err(error) if force && error.code() == Some(Errno::EBADMSG) => {
                log::warning(format_args!("{error}"));
                home.remove()
            }
            Err(error) => Err(error),
        }
    }

    fn delete_locked(self, force: bool) -> Result<()> {
        match self.status()? {
            // Engines delete what they have created and never started (containerd's shim).
            Status::Stopped | Status::Created => {}
            _ if force => {}
            status => {
                return Err(Error::new("cannot delete container")
                    .on(format!(
                        "{} that is not stopped: {}",
                        self.id(),
                        status.name()
                    ))
                    .hint(format!(
                        "stop it first, or: husk delete --force {}",
                        self.id()
                    )));
            }
        }
        self.destroy()
    }

    /// Kills what is left, undoes `create`, and runs the last hooks.
    fn destroy(self) -> Result<()> {
        // Of most containers nothing is left but an empty cgroup.
        let cgroup = self.record.cgroup.as_ref();
        let gone = self.init()?.is_none()
            && match cgroup {
                Some(place) => trace::step("remove cgroup", || place.remove_empty())?,
                None => true,
            };
        if !gone {
            trace::step("kill what is left", || self.kill())?;
            trace::step("remove cgroup", || self.remove_cgroup())?;
        }
        if let Some(rdt) = &self.record.rdt {
            rdt.remove()?;
        }
        if let Some(journey) = &self.record.journey {
            // The devices' own namespace knows what is left to do; the container goes in any case.
            let own = self.home.held_network();
            let undone = own.and_then(|own| journey.undo(own.as_ref().map(AsFd::as_fd)));
            if let Err(error) = undone {
                log::warning(format_args!("{error}"));
            }
        }
        if let Some(number) = self.record.root_mount {
            rootfs::unmount(
                &self.record.rootfs,
                number,
                self.record.root_mount_in.as_ref(),
            )?;
        }
        if self.record.phase == Phase::Creating {
            for path in self.record.made.iter().rev() {
                // Only while nothing has been written there; "work" is overlayfs's own.
                let _ = std::fs::remove_dir(path.join("work"));
                let _ = std::fs::remove_dir(path);
            }
        }
        let (bundle, poststop) = (&self.record.bundle, &self.record.poststop);
        let state = || self.subject().json("stopped", None);
        hooks::run_all(Point::Poststop, poststop, &state, Some(bundle), |error| {
            log::warning(format_args!("{error}"));
        });
        self.home.remove()
    }

    /// A record from before the cgroup was made may name one that another container got: that is
    /// removed only if nobody is in it.
    fn remove_cgroup(&self) -> Result<()> {
        let Some(place) = &self.record.cgroup else {
            return Ok(());
        };
        if place.inode.is_none() {
            match self.cgroup()? {
                // Its own first process ends with its creator, who was killed a moment ago.
                Some(cgroup) if cgroup.is_empty_within(LAST_BREATH)? => {}
                // A unit may be there without one.
                None if place.owner.is_some() => {}
                _ => return Ok(()),
            }
        }
        place.remove()
    }

    fn kill(&self) -> Result<()> {
        let init = self.init()?;
        if let Some(cgroup) = self.own_cgroup()? {
            cgroup.kill()?;
        }
        let Some(init) = init else { return Ok(()) };
        match sys::process::pidfd_send_signal(init.as_fd(), libc::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(errno).step("kill container", self.id()),
        }
        wait_for_end(&init, PATIENCE)
            .then_some(())
            .ok_or_else(|| {
                Error::new("kill container")
                    .on(self.id())
                    .because(format!("its first process is still there after {} s", PATIENCE.as_secs()))
                    .hint("it waits in the kernel for a device or a network filesystem; delete again later")
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_one_element_of_a_path() {
        for id in ["a", "A-b_c.d+9", "..a", "-x", &"x".repeat(255)] {
            assert!(check_id(id).is_ok(), "{id}");
        }
        for id in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "a b",
            "a\0",
            "ä",
            "a\n",
            &"x".repeat(256),
        ] {
            assert!(check_id(id).is_err(), "{id:?}");
        }
    }
}
