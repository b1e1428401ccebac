//! What `delete --force` does to a container that another command is at work on, and to that command.

use std::os::fd::AsFd;

use super::record::{Home, Init};
use crate::cgroups::Cgroup;
use crate::error::{Result, Step};
use crate::log;
use crate::sys;

/// How long hooks on the host may go on, in hundredths of a second.
const HOOKS_PATIENCE: u32 = 500;

/// And how long the next ones, which a command runs that comes to its end: `poststop`.
const NEXT: u32 = 50;

/// For each hundredth of a second that the lock isn't had.
pub fn put_on(home: &Home, turn: u32) {
    let done = match turn {
        0 => kill(home),
        HOOKS_PATIENCE.. if turn.is_multiple_of(NEXT) => end_hooks(home),
        _ => Ok(()),
    };
    if let Err(error) = done {
        log::debug(format_args!("before the lock is had: {error}"));
    }
}

/// The command has nothing to wait for then: `start` runs hooks in the container, and `create` waits for it.
fn kill(home: &Home) -> Result<()> {
    let record = home.read()?;
    let cgroup = record.as_ref().and_then(|record| record.cgroup.as_ref());
    if let Some(place) = cgroup.filter(|place| place.inode.is_some())
        && let Some(cgroup) = Cgroup::open(place)?
    {
        cgroup.kill()?;
    }
    let init = record.and_then(|record| record.init);
    let pidfd = init.map_or(Ok(None), Init::open)?;
    pidfd.map_or(Ok(()), |pidfd| {
        sys::process::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL).step("kill", "container")
    })
}

/// What the command waits for on the host is killed. It comes to its end as if that had failed by itself, and
/// undoes what there is to undo.
fn end_hooks(home: &Home) -> Result<()> {
    if let Some(worker) = home.worker()? {
        worker.kill_what_he_started();
    }
    Ok(())
}
