//! Making a process that becomes another program. std's way panics where it can't read how that went, and
//! leaves the process behind.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::Result;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::SigSet;
use nix::unistd::{Pid, chdir, getpid, getppid, pipe2, setpgid};

use super::fd::place;
use super::file::through_signals;
use super::prctl::set_parent_death_signal;
use super::process::{self, Clone, Strings, clone3};

/// What the process is to become.
#[derive(Debug)]
pub struct Recipe<'a> {
    pub path: &'a CString,
    pub arguments: &'a Strings,
    pub environment: &'a Strings,
    pub directory: Option<&'a CString>,
    pub stdio: [BorrowedFd<'a>; 3],
}

/// What was made of it.
#[derive(Debug)]
pub struct Child {
    pub pid: Pid,
    pub pidfd: OwnedFd,
}

/// A child that executes the program: with a process group of its own, with nothing held back or ignored of what
/// this process does, killed when this thread ends, and bound by `last` right before.
///
/// # Errors
/// Those of execve(2), too; then there is no child.
pub fn spawn(recipe: &Recipe, last: impl FnOnce() -> Result<()>) -> Result<Child> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    let parent = getpid();
    let child = match clone3(0, None)? {
        Clone::Child => {
            let Err(errno) = become_it(recipe, parent, last);
            let bytes = (errno as i32).to_ne_bytes();
            let _ = through_signals(|| nix::unistd::write(&writer, &bytes));
            process::exit(127)
        }
        Clone::Parent { pid, pidfd } => Child { pid, pidfd },
    };
    drop(writer);
    let mut bytes = [0; 4];
    let told = match through_signals(|| nix::unistd::read(&reader, &mut bytes)) {
        // Closed by the execution, or by an end, which its status tells.
        Ok(0) => return Ok(child),
        Ok(4) => Errno::from_raw(i32::from_ne_bytes(bytes)),
        Ok(_) => Errno::EBADMSG,
        Err(errno) => {
            let _ = process::pidfd_send_signal(child.pidfd.as_fd(), libc::SIGKILL);
            errno
        }
    };
    let _ = process::reap(child.pidfd);
    Err(told)
}

fn become_it(
    recipe: &Recipe,
    parent: Pid,
    last: impl FnOnce() -> Result<()>,
) -> Result<std::convert::Infallible> {
    set_parent_death_signal(libc::SIGKILL)?;
    // It may have ended before that.
    if getppid() != parent {
        return Err(Errno::ESRCH);
    }
    setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
    // None of the three has a number that is to be another's: the standard streams are open.
    for (stream, number) in recipe.stdio.iter().zip(0..) {
        place(*stream, number)?;
    }
    if let Some(directory) = recipe.directory {
        chdir(directory.as_c_str())?;
    }
    process::reset_signal_action(libc::SIGPIPE);
    SigSet::empty().thread_set_mask()?;
    last()?;
    Err(process::execve(
        recipe.path,
        recipe.arguments,
        recipe.environment,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::Ended;

    fn shell(script: &str, path: &str) -> Result<Child> {
        let null = std::fs::File::open("/dev/null").unwrap();
        spawn(
            &Recipe {
                path: &CString::new(path).unwrap(),
                arguments: &Strings::new(["sh", "-c", script]).unwrap(),
                environment: &Strings::new(["A=b"]).unwrap(),
                directory: Some(&c"/".into()),
                stdio: [null.as_fd(); 3],
            },
            || Ok(()),
        )
    }

    fn end(child: &Child) -> Ended {
        process::reap(&child.pidfd).unwrap()
    }

    #[test]
    fn it_runs_with_what_it_was_given() {
        let child = shell(r#"[ "$A" = b ] && [ "$PWD" = / ] && exit 7"#, "/bin/sh").unwrap();
        assert_eq!(end(&child), Ended::Exited(7));
        let child = shell("kill -PIPE $$", "/bin/sh").unwrap();
        assert_eq!(end(&child), Ended::Killed(libc::SIGPIPE));
    }

    #[test]
    fn what_cannot_be_executed_leaves_no_child() {
        assert_eq!(shell("", "/nonexistent").unwrap_err(), Errno::ENOENT);
        assert_eq!(shell("", "/etc/passwd").unwrap_err(), Errno::EACCES);
    }
}
