//! One more process in a running container.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, setresgid, setresuid, setsid};

use super::channel::{self, Channel, Report};
use super::init::join_keyring;
use super::program::{Prepared, Program};
use super::{Process, spawn_through, terminal};
use crate::error::{Error, Result, Step};
use crate::rootfs::Rootfs;
use crate::sys::file::open;
use crate::sys::process as sys;
use crate::sys::{self as system, tty};
use crate::trace::{self, Role};

/// What is to be run, and where.
#[derive(Debug)]
pub struct Exec {
    pub program: Program,
    /// The container's first process.
    pub init: OwnedFd,
    /// Its root: that of its mount namespace may be another one, where it did not pivot.
    pub root: OwnedFd,
    /// `CLONE_NEW*` of the namespaces to enter.
    pub namespaces: u64,
    pub terminal: Option<Option<tty::Size>>,
    /// The container's session keyring.
    pub keyring: Option<CString>,
}

impl Exec {
    fn kinds(&self) -> CloneFlags {
        CloneFlags::from_bits_retain(self.namespaces as i32)
    }

    /// What is entered before the process is born: the pid namespace, which is for children only; and
    /// with a user namespace everything, in the one call in which the kernel takes that first and checks
    /// the others by it. An ordinary user may enter none of them before.
    fn early(&self) -> CloneFlags {
        match self.kinds().contains(CloneFlags::CLONE_NEWUSER) {
            true => self.kinds(),
            false => self.kinds() & CloneFlags::CLONE_NEWPID,
        }
    }
}

fn no_entry(step: &'static str, errno: Errno) -> Error {
    let error = Error::new(step).errno(errno);
    match errno {
        Errno::EPERM => error.hint(
            "only root and the user who made its user namespace may enter a container, and the latter \
             only after its start",
        ),
        _ => error,
    }
}

/// Makes the process. It waits for [`Channel::go`] when it is ready, then its end of the channel is
/// closed by the execution, or tells what failed.
pub fn spawn(exec: Exec, cgroup: Option<BorrowedFd>) -> Result<Process> {
    let enter = |exec: &Exec, theirs: &Channel, own: &Channel| {
        let kept = [theirs.fd(), own.fd(), exec.init.as_fd(), exec.root.as_fd()];
        system::fd::close_but(3 + exec.program.preserved(), &kept).step("close", "descriptors")?;
        trace::send_to(own.fd());
        system::prctl::set_dumpable(false).step("protect", "the process")?;
        let early = exec.early();
        if !early.is_empty() {
            setns(&exec.init, early).or_fail(|errno| no_entry("enter namespaces", errno))?;
        }
        Ok(0)
    };
    spawn_through(Channel::pair()?, cgroup, exec, enter, run)
        .map_err(|error| error.within("/process"))
}

fn run(exec: Exec, channel: Channel) -> ! {
    trace::take_role(Role::Exec);
    trace::send_to(channel.fd());
    let prepared = match trace::step("enter the container", || enter(exec, &channel)) {
        Ok(prepared) => prepared,
        Err(error) => {
            let _ = channel.report(&Report::Failed(error));
            sys::exit(1)
        }
    };
    if channel
        .report(&Report::Ready)
        .and_then(|()| channel.wait())
        .is_err()
    {
        sys::exit(1)
    }
    let error = prepared.execute(channel.fd());
    let _ = system::socket::send(channel.fd(), &channel::failure(&error), None);
    sys::exit(1)
}

fn enter(exec: Exec, channel: &Channel) -> Result<Prepared> {
    // The words of runc's log, for those who know it; its suite is among them.
    channel.debug(format_args!(
        "nsexec container setup: namespaces {:#x}",
        exec.namespaces
    ));
    system::prctl::set_parent_death_signal(libc::SIGKILL).step("bind", "the process to husk")?;
    setsid().step("make", "session")?;
    let late = exec.kinds() - exec.early();
    if !late.is_empty() {
        setns(&exec.init, late).or_fail(|errno| no_entry("enter namespaces", errno))?;
    }
    let own_users = exec.kinds().contains(CloneFlags::CLONE_NEWUSER);
    drop(exec.init);
    channel.debug(format_args!(
        "child process in init(): the container is entered"
    ));
    if let Some(name) = &exec.keyring {
        join_keyring(name, Some(exec.program.labels()))?;
    }
    nix::unistd::fchdir(&exec.root)
        .and_then(|()| nix::unistd::chroot("."))
        .or_fail(|errno| Error::new("enter the container's root").errno(errno))?;
    drop(exec.root);
    if own_users {
        let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
        // Where root isn't mapped the program's own user does.
        let _ = setresgid(gid, gid, gid).and_then(|()| setresuid(uid, uid, uid));
    }
    if let Some(size) = exec.terminal {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = open(Path::new("/"), flags, Mode::empty()).step("open", "/")?;
        let terminal = terminal::open_pair(&Rootfs::new(root), size, channel)?;
        terminal::take(&terminal, exec.program.identity.uid())?;
    }
    let prepare = || exec.program.prepare();
    let prepared = trace::step("become the user, find the program", prepare)?;
    channel.debug(format_args!("setns_init: about to exec the program"));
    system::prctl::set_parent_death_signal(0).step("release", "the process from husk")?;
    Ok(prepared)
}

/// Waits until the process is ready; its terminal, if it made one.
pub fn wait_ready(process: &Process) -> Result<Option<OwnedFd>> {
    let mut master = None;
    loop {
        match process.channel.next_report()? {
            Some(Report::Terminal(fd)) => master = Some(fd),
            Some(Report::Ready) => return Ok(master),
            Some(Report::Failed(error)) => return Err(error),
            Some(_) => {}
            None => return Err(super::explain_end(&process.pidfd)),
        }
    }
}

/// Lets it run: what is reported until the program is executed. A seccomp listener goes to `deliver`.
pub fn release(process: &Process, deliver: impl FnMut(OwnedFd) -> Result<()>) -> Result<()> {
    process.channel.go()?;
    channel::read_outcome(process.channel.fd().as_fd(), deliver)
}
