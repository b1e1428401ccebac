//! A container's first process, from its birth by clone3(2) to the execution of the program.
//!
//! It works a plan off and decides nothing. Whatever fails is reported, and the process ends.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sched::CloneFlags;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::{Mode, fstat, umask};
use nix::unistd::{geteuid, getpid, setsid};

use super::channel::{self, Channel, Report};
use super::program::{Prepared, Program};
use super::terminal;
use crate::error::{Error, Result, Step};
use crate::hooks::{self, Hook, Point, Subject};
use crate::lsm::Labels;
use crate::namespaces::{self, Origin};
use crate::rootfs;
use crate::sys;
use crate::trace::{self, Role};

/// What ends a process that has no handler for it.
const DEADLY: [Signal; 7] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGALRM,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

fn deadly() -> SigSet {
    DEADLY.iter().copied().collect()
}

/// Everything that the process is to do.
#[derive(Debug)]
pub struct Init {
    pub namespaces: namespaces::Plan,
    pub rootfs: rootfs::Plan,
    /// A directory to lock mounts at, if there are some to lock.
    pub stage: Option<PathBuf>,
    /// `None` for a container that can't be started.
    pub program: Option<Program>,
    /// A terminal, of this size if one is given.
    pub terminal: Option<Option<sys::tty::Size>>,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    pub sysctl: Vec<(String, String)>,
    /// Name of its session keyring.
    pub keyring: Option<CString>,
    /// Whether husk has work to do when the mounts are there: network devices, hooks.
    pub halfway: bool,
    /// Who made it without privileges on the host is to find the way in before the start, too.
    pub open_to_maker: bool,
    pub create_hooks: Vec<Hook>,
    pub start_hooks: Vec<Hook>,
    pub subject: Subject,
    pub gate: Gate,
    /// It is moved into its cgroup when it is there already: it waits for that.
    pub cgroup_comes: bool,
}

/// What a created container waits at.
#[derive(Debug)]
pub struct Gate {
    /// Where `start` sends its end of a connection to. As long as it is open the program waits.
    pub door: OwnedFd,
    /// A socket where one message lies, with a handle to that socket's name: whether it is still linked
    /// tells whether the record is still there. As a descriptor it would be a file of the host's.
    /// inotify(7) would tell by itself, but its end takes a grace period of the kernel, 5 to 15 ms of
    /// every start.
    pub name: OwnedFd,
}

/// How often a created container looks whether its record is still there, in milliseconds.
const LOOK: u16 = 5000;

/// Before what failed for want of memory is tried again.
const PAUSE: Duration = Duration::from_millis(20);

/// How often that is, while husk waits for it.
const TRIES: u32 = 100;

/// Who isn't started by then may wait for long, and needs no more of husk's code than that.
const SETTLED: u16 = 100;

impl Gate {
    /// Whether the record has the socket still.
    fn is_named(&self) -> bool {
        let handle = sys::socket::peek(self.name.as_fd(), &mut [0]);
        let name = handle.and_then(|(_, handle)| fstat(handle.ok_or(Errno::EBADMSG)?));
        name.is_ok_and(|name| name.st_nlink > 0)
    }
}

/// The life of the process. Never returns.
pub fn run(init: Init, channel: Channel) -> ! {
    trace::take_role(Role::Init);
    let failed = |error| {
        // Nobody listens when husk is gone, and then there is nobody to tell.
        let _ = channel.report(&Report::Failed(error));
        sys::process::exit(1)
    };
    match init.set_up(&channel) {
        Err(error) => failed(error),
        Ok(waiting) => match channel.report(&Report::Ready) {
            Ok(()) => waiting.run(channel),
            Err(error) => failed(error),
        },
    }
}

impl Init {
    fn set_up(mut self, channel: &Channel) -> Result<Waiting> {
        if !self.needs_go_between() {
            self.close_the_rest(&[channel.fd()])?;
        }
        trace::send_to(channel.fd());
        // The words of runc's log, for those who know it; its suite is among them.
        channel.debug(format_args!(
            "nsexec started, nsexec container setup: namespaces {:#x}",
            self.namespaces.own()
        ));
        sys::prctl::set_parent_death_signal(libc::SIGKILL).step("bind", "the process to husk")?;
        setsid().step("make", "session")?;
        let mapped_from_outside = self.namespaces.origin(CloneFlags::CLONE_NEWUSER) == Origin::New;
        if mapped_from_outside || self.cgroup_comes {
            channel.wait()?;
        }
        trace::step("make time namespace", || self.namespaces.make_time())?;
        if self.namespaces.origin(CloneFlags::CLONE_NEWNS) == Origin::New {
            self.rootfs.open_place()?;
            if let Some(stage) = &self.stage {
                self.rootfs.take_stage(stage)?;
            }
        }
        self.namespaces.become_root()?;
        sys::prctl::set_dumpable(false).step("protect", "the process")?;
        if let Some(name) = &self.keyring {
            join_keyring(name, self.program.as_ref().map(Program::labels))?;
        }
        trace::step("enter namespaces", || self.namespaces.enter())?;
        trace::step("set names", || self.name_host())?;
        let new_network = self.namespaces.origin(CloneFlags::CLONE_NEWNET) == Origin::New;
        if new_network && !self.namespaces.has_network() {
            trace::step("set up loopback", sys::link::loopback_up)
                .step("set up", "the loopback device")?;
        }
        channel.debug(format_args!("child process in init(): mounts are next"));
        let callers = umask(Mode::empty());
        let rootfs = self.rootfs.path().to_owned();
        let map_ids = |entry, tree: BorrowedFd<'_>| {
            let tree = tree.try_clone_to_owned().step("send", "a mount")?;
            channel.report(&Report::Unmapped(entry, tree))?;
            channel.wait()
        };
        let built = trace::step("build root", || self.rootfs.build(&map_ids))?;
        umask(callers);
        let terminal = match self.terminal {
            Some(size) => Some(terminal::open(&built, size, channel)?),
            None => None,
        };
        if self.halfway {
            channel.report(&Report::Mounted)?;
            trace::step("wait for husk", || channel.wait())?;
        }
        hooks::run(
            Point::CreateContainer,
            &self.create_hooks,
            &|| self.subject.json("creating", Some(getpid())),
            Some(&rootfs),
        )?;
        trace::step("pivot_root", || built.enter())?;
        trace::step("write sysctls", || write_sysctl(&self.sysctl))?;
        trace::step("mask and protect paths", || built.seal())?;
        let prepared = match self.program {
            Some(program) => {
                if let Some(terminal) = &terminal {
                    terminal::take(terminal, program.identity.uid())?;
                }
                Some(trace::step("become the user, find the program", || {
                    program.prepare()
                })?)
            }
            None => None,
        };
        channel.debug(format_args!(
            "init: closing the pipe to signal completion, the program is next"
        ));
        // Before anybody can know that there is a container to be killed.
        deadly().thread_block().step("block", "signals")?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let signals = SignalFd::with_flags(&deadly(), flags).step("watch", "signals")?;
        if self.open_to_maker {
            // Until the program is executed this is husk, an image of the host's user namespace, where
            // only root may look into what is protected (ptrace(2)). In its pid namespace it is alone.
            sys::prctl::set_dumpable(true).step("open", "the process to its maker")?;
        }
        // A change of user takes this away as well; from here on the channel's end says it.
        sys::prctl::set_parent_death_signal(0).step("release", "the process from husk")?;
        if let Some(prepared) = &prepared {
            for hook in &mut self.start_hooks {
                hook.inherit(prepared.environment());
            }
        }
        Ok(Waiting {
            prepared,
            signals,
            start_hooks: self.start_hooks,
            subject: self.subject,
            gate: self.gate,
        })
    }

    /// Whether a process in between has something to do for this one.
    pub fn needs_go_between(&self) -> bool {
        self.namespaces.needs_go_between() || self.stage.is_some()
    }

    /// For the process in between: everything before it makes this one.
    pub fn enter(&self, theirs: &Channel, own: &Channel) -> Result<u64> {
        self.close_the_rest(&[theirs.fd(), own.fd()])?;
        trace::send_to(own.fd());
        let clocks = self.namespaces.open_clocks()?;
        // To enter a user namespace takes nobody's right to trace: its members who may could have what is
        // still the host's.
        if !self.must_stay_open() {
            sys::prctl::set_dumpable(false).step("protect", "the process")?;
        }
        if let Some(stage) = &self.stage {
            self.rootfs.stage(stage)?;
        }
        self.namespaces.enter_all(clocks)?;
        Ok(self.namespaces.clone_flags())
    }

    /// The files of /proc/PID belong to root where a process can't be dumped: an ordinary user could map no
    /// ids then. In the user namespace that is made for it there is nobody else.
    fn must_stay_open(&self) -> bool {
        !geteuid().is_root() && self.namespaces.origin(CloneFlags::CLONE_NEWUSER) == Origin::New
    }

    /// What husk has open, the lock of the record among it, is not for a process that may wait for
    /// days, nor for those who may be able to look at it (CVE-2016-9962).
    pub fn close_the_rest(&self, channels: &[BorrowedFd]) -> Result<()> {
        let preserved = self.program.as_ref().map_or(0, Program::preserved);
        let mut kept = self.rootfs.descriptors();
        kept.extend(self.namespaces.descriptors());
        kept.extend([self.gate.door.as_fd(), self.gate.name.as_fd()]);
        kept.extend(channels);
        sys::fd::close_but(3 + preserved, &kept).step("close", "descriptors")
    }

    fn name_host(&self) -> Result<()> {
        if let Some(name) = &self.hostname {
            nix::unistd::sethostname(name).or_fail(|errno| {
                Error::new("set host name")
                    .on(name)
                    .at("/hostname")
                    .errno(errno)
            })?;
        }
        if let Some(name) = &self.domainname {
            sys::process::set_domain_name(name).or_fail(|errno| {
                Error::new("set domain name")
                    .on(name)
                    .at("/domainname")
                    .errno(errno)
            })?;
        }
        Ok(())
    }
}

/// A session keyring of its own: the caller's keys are none of the container's business.
pub fn join_keyring(name: &CString, labels: Option<&Labels>) -> Result<()> {
    let labels = labels.filter(|labels| labels.has_key_label());
    let own = match labels {
        Some(_) => Some(rootfs::Procfs::trusted()?.own_directory()?),
        None => None,
    };
    if let (Some(labels), Some(own)) = (labels, &own) {
        labels.begin_keys(own.as_fd())?;
    }
    let joined = join_named(name);
    if let (Some(labels), Some(own)) = (labels, &own) {
        labels.end_keys(own.as_fd())?;
    }
    joined
}

fn join_named(name: &CString) -> Result<()> {
    match sys::keyring::join_session(name) {
        // All to who has it; to processes of its owner view, read, search and link.
        Ok(serial) => sys::keyring::set_permissions(serial, 0x3f1b_0000)
            .step("set permissions of", "the session keyring"),
        // A kernel without keyrings, or a filter around husk: nothing to isolate.
        Err(Errno::ENOSYS | Errno::EPERM) => Ok(()),
        Err(errno) => Err({
            let error = Error::new("make session keyring")
                .on(name.to_string_lossy())
                .errno(errno);
            match errno {
                Errno::EDQUOT => error.hint("raise kernel.keys.maxkeys, or give --no-new-keyring"),
                _ => error,
            }
        }),
    }
}

/// Writes sysctl values through a procfs of its own, seen by nobody else: what is mounted at /proc may
/// be an image's or a racing container's idea of it (CVE-2025-52881).
fn write_sysctl(values: &[(String, String)]) -> Result<()> {
    if values.is_empty() {
        return Ok(());
    }
    let procfs = rootfs::Procfs::new()?;
    for (key, value) in values {
        procfs.write_sysctl(key, value)?;
    }
    Ok(())
}

/// A created container: everything is done but what needs the start.
struct Waiting {
    prepared: Option<Prepared>,
    /// For those that are held back.
    signals: SignalFd,
    start_hooks: Vec<Hook>,
    subject: Subject,
    gate: Gate,
}

impl Waiting {
    fn run(self, channel: Channel) -> ! {
        // Husk writes the record after the report: only then is this a container.
        let mut tries = 0;
        while let Err(error) = channel.wait() {
            if error.code() != Some(Errno::ENOMEM) || tries == TRIES {
                sys::process::exit(1);
            }
            tries += 1;
            std::thread::sleep(PAUSE);
        }
        drop(channel);
        trace::forget();
        let waited = trace::step("wait for start", || {
            // Who started it hears how long that was.
            self.wait_for_start()
                .inspect(|connection| trace::send_to(connection.as_fd()))
        });
        let Some(connection) = waited else {
            sys::process::exit(1)
        };
        let error = self.start(connection.as_fd());
        let _ = sys::socket::send(connection.as_fd(), &channel::failure(&error), None);
        sys::process::exit(1)
    }

    /// `None` when the record is gone: then nobody can start or delete this container any more.
    ///
    /// The first process of a pid namespace is deaf to signals that it has no handler for: what would end
    /// the program ends it here.
    fn wait_for_start(&self) -> Option<OwnedFd> {
        let mut patience = SETTLED;
        loop {
            let mut fds = [
                PollFd::new(self.gate.door.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, patience) {
                Ok(0) if !self.gate.is_named() => return None,
                Ok(0) if patience == SETTLED => {
                    sys::process::forget_code();
                    patience = LOOK;
                }
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                // There may be memory later, and a container that was made is not to end for want of it.
                Err(Errno::EAGAIN | Errno::ENOMEM) => {
                    std::thread::sleep(PAUSE);
                    continue;
                }
                Err(_) => return None,
            }
            if fds[0].any() == Some(true) {
                match sys::socket::receive(self.gate.door.as_fd(), &mut [0]) {
                    Ok((_, Some(connection))) => return Some(connection),
                    Ok((_, None)) | Err(Errno::EAGAIN) => {}
                    Err(Errno::ENOMEM) => std::thread::sleep(PAUSE),
                    Err(_) => return None,
                }
            } else if let Ok(Some(info)) = self.signals.read_signal() {
                sys::process::exit(128u8.saturating_add(info.ssi_signo as u8));
            }
        }
    }

    fn start(self, connection: BorrowedFd) -> Error {
        let state = || self.subject.json("created", Some(getpid()));
        let guard = self.prepared.as_ref().and_then(Prepared::guard);
        let run = hooks::run_under(
            guard.as_ref(),
            Point::StartContainer,
            &self.start_hooks,
            &state,
            Some(Path::new("/")),
        );
        match (run, &self.prepared) {
            (Err(error), _) => error,
            (Ok(()), None) => Error::config("/process", "missing: there is nothing to start"),
            (Ok(()), Some(prepared)) => {
                // Execution would close both, and the connection's end be heard maybe before: nobody who
                // was told of the start is to find a container that waits.
                drop((self.gate, self.signals));
                prepared.execute(connection)
            }
        }
    }
}
