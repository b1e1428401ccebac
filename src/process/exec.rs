//! One more process in a running container.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{OFlag, open};
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
use crate::sys::process as sys;
use crate::sys::{self as system, tty};

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

/// Makes the process. It waits for [`Channel::go`] when it is ready, then its end of the channel is
/// closed by the execution, or tells what failed.
pub fn spawn(exec: Exec, cgroup: Option<BorrowedFd>) -> Result<Process> {
    let enter = |exec: &Exec, theirs: &Channel| {
        let kept = [theirs.fd(), exec.init.as_fd(), exec.root.as_fd()];
        system::fd::close_but(3 + exec.program.preserved(), &kept).step("close", "descriptors")?;
        system::prctl::set_dumpable(false).step("protect", "the process")?;
        let pid = CloneFlags::from_bits_retain(exec.namespaces as i32) & CloneFlags::CLONE_NEWPID;
        if !pid.is_empty() {
            setns(&exec.init, pid)
                .or_fail(|errno| Error::new("enter pid namespace").errno(errno))?;
        }
        Ok(0)
    };
    spawn_through(Channel::pair()?, cgroup, exec, enter, run)
        .map_err(|error| error.within("/process"))
}

fn run(exec: Exec, channel: Channel) -> ! {
    let prepared = match enter(exec, &channel) {
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
    channel.wait()?;
    // The words of runc's log, for those who know it; its suite is among them.
    channel.debug(format_args!(
        "nsexec container setup: namespaces {:#x}",
        exec.namespaces
    ));
    system::prctl::set_parent_death_signal(libc::SIGKILL).step("bind", "the process to husk")?;
    setsid().step("make", "session")?;
    // One call for all: the kernel enters the user namespace first and checks the others by it.
    let kinds = CloneFlags::from_bits_retain(exec.namespaces as i32) - CloneFlags::CLONE_NEWPID;
    if !kinds.is_empty() {
        setns(&exec.init, kinds).or_fail(|errno| Error::new("enter namespaces").errno(errno))?;
    }
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
    if kinds.contains(CloneFlags::CLONE_NEWUSER) {
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
    let prepared = exec.program.prepare()?;
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
