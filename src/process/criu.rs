//! CRIU as a process: found on PATH, and born where what it makes is to be.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::libc;
use nix::sys::stat::Mode;
use nix::unistd::{AccessFlags, access};

use super::channel::{Channel, Report};
use super::program::reset_signals;
use super::{DEFAULT_PATH, Process, explain_end, no_process};
use crate::criu::Session;
use crate::error::{Error, Result, Step};
use crate::rootfs;
use crate::sys::fd;
use crate::sys::file::open;
use crate::sys::process::{Clone, Strings, clone3, execveat, exit};

/// What it gets.
#[derive(Debug, Default)]
pub struct Task {
    /// Descriptors that keep their numbers.
    pub kept: Vec<OwnedFd>,
    /// Directories that husk has open under these numbers. It gets them as they are in its own mount
    /// namespace, as it mounts something there.
    pub directories: Vec<(PathBuf, RawFd)>,
    /// For a restore: the root to lay out, and the directory to mount it at, in a mount namespace of
    /// CRIU's own, which the container's is copied from.
    pub root: Option<(rootfs::Plan, PathBuf)>,
}

/// # Errors
/// When there is none.
pub fn find() -> Result<CString> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    let found = path
        .as_bytes()
        .split(|&byte| byte == b':')
        .filter(|directory| !directory.is_empty())
        .map(|directory| PathBuf::from(OsStr::from_bytes(directory)).join("criu"))
        .find(|file| file.is_file() && access(file, AccessFlags::X_OK).is_ok());
    found
        .and_then(|file| CString::new(file.into_os_string().into_vec()).ok())
        .ok_or_else(|| {
            Error::new("find criu")
                .because("there is none on PATH")
                .hint("install CRIU (https://criu.org): it does checkpoint and restore")
        })
}

/// Starts it, in `cgroup`. Returns when it has been executed, and waits for a request.
pub fn spawn(
    program: &CString,
    task: Task,
    cgroup: Option<BorrowedFd>,
) -> Result<(Process, Session)> {
    let (channel, theirs) = Channel::pair()?;
    let flags = match task.root {
        Some(_) => libc::CLONE_NEWNS as u64,
        None => 0,
    };
    match clone3(flags, cgroup).or_fail(no_process)? {
        Clone::Child => {
            drop(channel);
            let error = run(program, task, &theirs);
            let _ = theirs.report(&Report::Failed(error));
            exit(1)
        }
        Clone::Parent { pid, pidfd } => {
            drop((theirs, task));
            let process = Process {
                pid,
                pidfd,
                channel,
            };
            // The end of the channel is the execution, or the end.
            let connected = process.channel.next_report()?;
            match (connected, process.channel.next_report()?) {
                (Some(Report::Connected(socket)), None) => Ok((process, Session::new(socket))),
                (_, Some(Report::Failed(error))) | (Some(Report::Failed(error)), _) => {
                    process.end();
                    Err(error)
                }
                _ => Err(explain_end(&process.pidfd)),
            }
        }
    }
}

/// Only returns when something fails.
fn run(program: &CString, task: Task, channel: &Channel) -> Error {
    let socket = match set_up(task, channel) {
        Ok(socket) => socket,
        Err(error) => return error,
    };
    let fail = |errno: Errno| {
        Error::new("execute")
            .on(program.to_string_lossy())
            .errno(errno)
    };
    let number = socket.as_raw_fd().to_string();
    let arguments = Strings::new(["criu".to_owned(), "swrk".to_owned(), number]);
    let environment = Strings::new(
        std::env::vars_os().map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat()),
    );
    match (arguments, environment, reset_signals()) {
        (Ok(arguments), Ok(environment), Ok(())) => fail(execveat(
            AT_FDCWD.as_raw_fd(),
            program,
            &arguments,
            &environment,
            0,
        )),
        (Err(errno), ..) | (_, Err(errno), _) | (.., Err(errno)) => fail(errno),
    }
}

/// Its end of the conversation.
fn set_up(task: Task, channel: &Channel) -> Result<OwnedFd> {
    if let Some((root, place)) = task.root {
        root.lay_out(&place)?;
    }
    let keep = |fd: &OwnedFd, number| fd::place(fd.as_fd(), number).step("keep", "a descriptor");
    for (path, number) in task.directories {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = open(&path, flags, Mode::empty()).step("open", path.display())?;
        keep(&directory, number)?;
    }
    for kept in task.kept {
        keep(&kept, kept.as_raw_fd())?;
        let _ = kept.into_raw_fd();
    }
    let (session, socket) = Session::pair()?;
    keep(&socket, socket.as_raw_fd())?;
    channel.report(&Report::Connected(session.into()))?;
    Ok(socket)
}
