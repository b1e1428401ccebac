//! Follows a command of husk and all processes that it makes, as a debugger does, until they execute another
//! program, or the command has ended: a created container's process waits for its start then.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use crate::runtime::Runtime;
use crate::site::Site;

/// What is done to the processes on their way.
pub trait Debugger {
    /// The ptrace(2) request by which a stopped process goes on.
    const RESUME: i64;

    /// The process is a new one, or has `executed` the runtime.
    fn begun(&mut self, pid: i32, executed: bool) -> io::Result<()>;

    /// It has stopped by itself.
    fn trapped(&mut self, pid: i32) -> io::Result<()>;
}

pub fn follow(
    site: &Site,
    runtime: &Runtime,
    words: &[&str],
    debugger: &mut impl Debugger,
) -> Result<(), String> {
    let status = attend(site, runtime, words, debugger);
    match status.map_err(|error| format!("{} {}: {error}", runtime.name, words[0]))? {
        Some(0) => Ok(()),
        _ => Err(format!(
            "{} {} failed under a tracer",
            runtime.name, words[0]
        )),
    }
}

/// With which status the command has ended.
fn attend<D: Debugger>(
    site: &Site,
    runtime: &Runtime,
    words: &[&str],
    debugger: &mut D,
) -> io::Result<Option<i32>> {
    const OPTIONS: i32 = libc::PTRACE_O_TRACECLONE
        | libc::PTRACE_O_TRACEFORK
        | libc::PTRACE_O_TRACEVFORK
        | libc::PTRACE_O_TRACEEXEC
        | libc::PTRACE_O_EXITKILL;
    let length = fs::metadata(&runtime.path)?.len();
    let mut command = runtime.command(site, &[], words);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: one system call that touches no memory.
    unsafe {
        command.pre_exec(|| match ptrace(libc::PTRACE_TRACEME, 0, 0) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
    let first = command.spawn()?.id() as i32;
    let mut followed = BTreeSet::new();
    let mut ended = None;
    while ended.is_none() || !followed.is_empty() {
        let mut status = 0;
        // SAFETY: `status` is valid to write.
        let pid = unsafe { libc::waitpid(-1, &mut status, libc::__WALL) };
        if pid < 0 {
            break;
        }
        if !libc::WIFSTOPPED(status) {
            followed.remove(&pid);
            if pid == first {
                ended = Some(status);
                for left in &followed {
                    // SAFETY: a signal to a process that this one follows.
                    unsafe { libc::kill(*left, libc::SIGKILL) };
                }
            }
            continue;
        }
        let (signal, event) = (libc::WSTOPSIG(status), status >> 16);
        let begun = !followed.contains(&pid);
        let executed = event == libc::PTRACE_EVENT_EXEC || (begun && pid == first);
        // Or a copy of it, where husk may not mount.
        let is_runtime =
            || fs::metadata(format!("/proc/{pid}/exe")).is_ok_and(|now| now.len() == length);
        if executed && !is_runtime() {
            ptrace(libc::PTRACE_DETACH, pid, 0);
            followed.remove(&pid);
            continue;
        }
        let mut pass = 0;
        if begun || executed {
            ptrace(libc::PTRACE_SETOPTIONS, pid, OPTIONS.into());
            debugger.begun(pid, executed)?;
            followed.insert(pid);
        } else if signal == libc::SIGTRAP && event == 0 {
            debugger.trapped(pid)?;
        } else if event == 0 {
            pass = i64::from(signal);
        }
        ptrace(D::RESUME, pid, pass);
    }
    Ok(ended)
}

/// A process that is gone is waited for: what fails for its sake is no error.
pub fn ptrace(request: impl Into<i64>, pid: i32, data: i64) -> i64 {
    // SAFETY: `data` is a number, or the address of registers, which are valid for both requests that take
    // them.
    unsafe { libc::syscall(libc::SYS_ptrace, request.into(), pid, 0, data) }
}
