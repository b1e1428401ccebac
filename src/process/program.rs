//! The last steps before the program runs, the same for a container's first process and for `exec`.

use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::stat::{Mode, SFlag, fstat, major, makedev};
use nix::unistd::Uid;
use oci_spec::runtime as oci;

use super::identity::Identity;
use super::limits::Limits;
use super::schedule::{self, Affinity, Schedule, Surroundings};
use super::{autopsy, listener, lookup};
use crate::error::{Error, Result, Step};
use crate::hooks::Guard;
use crate::lsm::Labels;
use crate::rootfs::Procfs;
use crate::seccomp::Filter;
use crate::sys::{self, process::Strings};

/// A program to run, checked.
#[derive(Debug)]
pub struct Program {
    arguments: Vec<String>,
    environment: Vec<String>,
    directory: PathBuf,
    pub identity: Identity,
    pub limits: Limits,
    /// Empty once husk has taken it over.
    schedule: Schedule,
    affinity: Affinity,
    surroundings: Surroundings,
    labels: Labels,
    filter: Option<Filter>,
    /// Descriptors from 3 on that the program gets, sd_listen_fds(3) among them.
    preserved: u32,
    /// Whether some of them are sockets to listen at.
    listens: bool,
    caller_umask: Mode,
}

/// Descriptors for the program besides 0, 1 and 2.
#[derive(Debug, Clone, Copy, Default)]
pub struct Passed {
    pub preserved: u32,
    /// Those of `LISTEN_FDS`, which come first.
    pub listening: u32,
}

impl Passed {
    pub fn count(self) -> u32 {
        self.preserved + self.listening
    }
}

impl Program {
    pub fn plan(
        process: &oci::Process,
        linux: Option<&oci::Linux>,
        filter: Option<Filter>,
        passed: Passed,
        caller_umask: Mode,
    ) -> Result<Program> {
        let mut environment = without_repeats(process.env().clone().unwrap_or_default());
        if passed.listening > 0 {
            environment.push(format!("LISTEN_FDS={}", passed.listening));
        }
        Ok(Program {
            arguments: process.args().clone().unwrap_or_default(),
            environment,
            directory: process.cwd().clone(),
            identity: Identity::plan(process, linux),
            limits: Limits::plan(process),
            schedule: Schedule::plan(process, linux),
            affinity: Affinity::Reset,
            surroundings: Surroundings::plan(linux)?,
            labels: Labels::plan(process)?,
            filter,
            preserved: passed.count(),
            listens: passed.listening > 0,
            caller_umask,
        })
    }

    /// For a process that joins the container, and may be bound to some CPUs.
    pub fn bind(&mut self, affinity: Affinity) {
        self.affinity = affinity;
    }

    /// What husk is to set when the process is ready, where it has the privilege. What it takes over
    /// the process doesn't do.
    pub fn hand_over_schedule(&mut self) -> Option<Schedule> {
        (!self.schedule.is_empty() && schedule::rules_the_host())
            .then(|| std::mem::take(&mut self.schedule))
    }

    /// Whether the program is confined by more than the process that waits for its start is.
    pub fn gives_up_more(&self) -> bool {
        self.filter.is_some() || !self.labels.is_empty()
    }

    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// How many descriptors from 3 on are the program's.
    pub fn preserved(&self) -> u32 {
        self.preserved
    }

    /// Limits, working directory, user and privileges; finds the file to execute. In the container,
    /// with its root.
    pub fn prepare(mut self) -> Result<Prepared> {
        self.limits.apply()?;
        self.affinity.apply()?;
        self.schedule.apply(None)?;
        self.surroundings.apply()?;
        if self.identity.no_new_privileges {
            sys::prctl::set_no_new_privileges().or_fail(|errno| {
                Error::new("set no_new_privs")
                    .at("/process/noNewPrivileges")
                    .errno(errno)
            })?;
        }
        if !self.labels.is_empty() {
            let own = Procfs::trusted()?.own_directory()?;
            self.labels
                .apply(own.as_fd(), self.identity.no_new_privileges)?;
        }
        // The user may not be allowed to go there, or only the user (an NFS home).
        let early = nix::unistd::chdir(&self.directory);
        self.identity.assume(self.caller_umask)?;
        if early != Ok(()) {
            nix::unistd::chdir(&self.directory).or_fail(|errno| self.no_directory(errno))?;
        }
        // The change of user made this process readable to others of that user again.
        sys::prctl::set_dumpable(false).step("protect", "the process")?;
        self.check_directory()?;
        // Whether the program may be executed is also a question of capabilities.
        if restricts_early(self.filter.as_ref(), &self.identity) {
            self.identity.restrict()?;
        } else {
            self.identity.act()?;
        }
        let Some(name) = self.arguments.first() else {
            return Err(Error::config("/process/args", "must not be empty"));
        };
        let path = lookup::find(name, &self.environment)?;
        let ailment = autopsy::examine(Path::new(OsStr::from_bytes(path.as_bytes())));
        self.add_home();
        if self.listens {
            // As the program sees itself.
            self.environment
                .push(format!("LISTEN_PID={}", nix::unistd::getpid()));
        }
        let nul = |pointer: &str| {
            let error = Error::config(pointer, "a NUL character inside");
            move |_| error
        };
        let arguments =
            Strings::new(std::mem::take(&mut self.arguments)).or_fail(nul("/process/args"))?;
        let environment =
            Strings::new(std::mem::take(&mut self.environment)).or_fail(nul("/process/env"))?;
        let prepared = Prepared {
            path,
            ailment,
            arguments,
            environment,
            program: self,
        };
        Ok(prepared)
    }

    fn no_directory(&self, errno: Errno) -> Error {
        let error = Error::new("change to directory")
            .on(self.directory.display())
            .at("/process/cwd")
            .errno(errno);
        match errno {
            Errno::ENOENT => error.hint("create it in the root filesystem, or correct process.cwd"),
            _ => error,
        }
    }

    /// A working directory outside the root would be a way out of it (CVE-2024-21626).
    fn check_directory(&self) -> Result<()> {
        match nix::unistd::getcwd() {
            Ok(path) if path.is_absolute() => Ok(()),
            _ => Err(Error::new("change to directory")
                .on(self.directory.display())
                .at("/process/cwd")
                .because("it is outside of the container")),
        }
    }

    /// HOME as login(1) would set it, where the configuration doesn't.
    fn add_home(&mut self) {
        let given = |entry: &String| {
            entry
                .strip_prefix("HOME=")
                .is_some_and(|home| !home.is_empty())
        };
        if self.environment.iter().any(given) {
            return;
        }
        self.environment.retain(|entry| !entry.starts_with("HOME="));
        let uid = self.identity.uid().as_raw().to_string();
        // What an image may write here is bounded, and only ends in a variable.
        let home = read_passwd().and_then(|passwd| {
            String::from_utf8_lossy(&passwd).lines().find_map(|line| {
                let mut fields = line.split(':').skip(2);
                (fields.next() == Some(&uid)).then(|| fields.nth(2).unwrap_or_default().to_owned())
            })
        });
        let home = home.filter(|home| !home.is_empty() && !home.contains('\0'));
        self.environment
            .push(format!("HOME={}", home.as_deref().unwrap_or("/")));
    }
}

/// With no_new_privs anybody may install a filter; otherwise it takes CAP_SYS_ADMIN, so the
/// capabilities go after it.
fn restricts_early(filter: Option<&Filter>, identity: &Identity) -> bool {
    filter.is_none() || identity.no_new_privileges
}

/// A program of which nothing but its execution is missing.
#[derive(Debug)]
pub struct Prepared {
    path: CString,
    /// What execve(2) will stumble over, if it does.
    ailment: Option<String>,
    arguments: Strings,
    environment: Strings,
    program: Program,
}

impl Prepared {
    fn restricts_early(&self) -> bool {
        restricts_early(self.program.filter.as_ref(), &self.program.identity)
    }

    /// What hooks that have none of their own get just before it, as in runc.
    pub fn environment(&self) -> impl Iterator<Item = String> {
        let entries = self.environment.iter();
        entries.map(|entry| entry.to_string_lossy().into_owned())
    }

    /// What filters the program filters hooks that are run in the container just before it, too. But one
    /// that leaves calls to an agent doesn't: nobody would answer theirs.
    pub fn guard(&self) -> Option<Guard> {
        let filter = self.program.filter.clone()?;
        if filter.notifies() {
            return None;
        }
        let early = self.restricts_early();
        Some(Arc::new(move || {
            if !early {
                let held = sys::prctl::capabilities()?;
                // Execution counts them anew.
                sys::prctl::set_capabilities(sys::prctl::Capabilities {
                    effective: held.permitted,
                    ..held
                })?;
            }
            filter.install().map(drop)
        }))
    }

    /// Runs the program in place of this one. Returns only on failure. `connection` leads to the husk
    /// that waits for it.
    ///
    /// As few calls as can be come after the filter: with no_new_privs execve(2) alone.
    pub fn execute(&self, connection: BorrowedFd) -> Error {
        match self.drop_the_rest(connection) {
            Err(error) => error,
            Ok(()) => {
                // Not execveat(2): filters of the field name execve alone.
                let errno = sys::process::execve(&self.path, &self.arguments, &self.environment);
                self.no_execution(errno)
            }
        }
    }

    fn drop_the_rest(&self, connection: BorrowedFd) -> Result<()> {
        sys::fd::cloexec_from(3 + self.program.preserved).step("close", "descriptors")?;
        for number in 0..self.program.preserved {
            sys::fd::keep(3 + number).step("keep descriptor", 3 + number)?;
        }
        reset_signals().step("reset", "signals")?;
        if let Some(filter) = &self.program.filter {
            if !self.restricts_early() {
                self.program.identity.regain()?;
            }
            listener::install(filter, connection)?;
        }
        if !self.restricts_early() {
            self.program.identity.restrict()?;
        }
        Ok(())
    }

    fn no_execution(&self, errno: Errno) -> Error {
        if errno == Errno::ENOENT {
            // The file is there: it was found before. In one line, and in the field's words.
            let why = self.ailment.as_deref();
            let why =
                why.unwrap_or("the interpreter of its #! line, or its ELF loader, is missing");
            return Error::new(format!("{why} (/process/args/0): exec"))
                .on(self.path.to_string_lossy())
                .errno(errno);
        }
        let error = Error::new("exec")
            .on(self.path.to_string_lossy())
            .at("/process/args/0")
            .errno(errno);
        match errno {
            Errno::ENOEXEC | Errno::EACCES | Errno::ELIBBAD if self.ailment.is_some() => {
                error.maybe_hint(self.ailment.clone())
            }
            Errno::ETXTBSY => error.hint(
                "a process has the file open for writing: let it close it, or copy the program",
            ),
            Errno::ENOEXEC => {
                error.hint("it is for another architecture, or a script without a #! line")
            }
            Errno::EACCES => {
                error.hint("its interpreter is not executable, or it is on a noexec mount")
            }
            _ => error,
        }
    }
}

/// Of a variable that is there twice the last one counts, in the place of the first.
fn without_repeats(environment: Vec<String>) -> Vec<String> {
    let mut places = HashMap::with_capacity(environment.len());
    let mut kept: Vec<String> = Vec::with_capacity(environment.len());
    for entry in environment {
        let name = entry.split('=').next().unwrap_or_default().to_owned();
        match places.get(&name) {
            Some(&place) => kept[place] = entry,
            None => {
                places.insert(name, kept.len());
                kept.push(entry);
            }
        }
    }
    kept
}

/// The image's user database. It may be anything: a fifo, a device, endless.
fn read_passwd() -> Option<Vec<u8>> {
    const ENOUGH: u64 = 1 << 20;
    let file = std::fs::File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open("/etc/passwd")
        .ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(ENOUGH).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Rust ignores SIGPIPE, which would stay so across execve(2). What the caller ignored husk has taken
/// back at its start.
pub(super) fn reset_signals() -> nix::Result<()> {
    sys::process::reset_signal_action(libc::SIGPIPE);
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
}

/// Whether the device is everybody's: one of memory, as /dev/null and /dev/zero are, or /dev/tty.
fn is_shared(device: libc::dev_t) -> bool {
    major(device) == 1 || device == makedev(5, 0)
}

/// Gives the standard streams to the program's user, who may want to open them anew by /dev/stdout;
/// not those that are shared by everybody. `owner` is a uid of the host.
pub fn give_stdio(owner: Uid) {
    if owner.is_root() {
        return;
    }
    for number in 0..3 {
        let stream = sys::fd::stdio(number);
        let Ok(stat) = fstat(stream) else { continue };
        let is_device = stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFCHR.bits();
        if is_device && is_shared(stat.st_rdev) || stat.st_uid == owner.as_raw() {
            continue;
        }
        // On a read-only filesystem, or without the privilege, it stays as it is.
        let _ = nix::unistd::fchown(stream, Some(owner), None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_that_are_everybodys_are_given_to_nobody() {
        for (device, shared) in [
            (makedev(1, 3), true),
            (makedev(1, 5), true),
            (makedev(1, 9), true),
            (makedev(5, 0), true),
            (makedev(5, 1), false),
            (makedev(4, 1), false),
            (makedev(136, 7), false),
        ] {
            assert_eq!(is_shared(device), shared, "{device:x}");
        }
    }
}
