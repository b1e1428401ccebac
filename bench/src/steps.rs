//! Instructions of a command and of all processes that it makes, one by one: the debugger's way, which
//! needs no counters of the processor's, knows every system call, and says the same on a busy machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use crate::bundle::{self, Filter};
use crate::runtime::{Runtime, wait_for};
use crate::site::Site;

/// Instructions by command: what a container's life takes in one, and what is done to one that runs.
pub fn of(site: &Site, runtime: &Runtime) -> Result<BTreeMap<String, u64>, String> {
    let walk = |words: &[&str]| walk(site, runtime, words);
    let mut all = BTreeMap::new();
    let id = format!("steps-{}", runtime.name);
    for (name, filter) in [("run", Filter::None), ("docker run", Filter::Docker)] {
        let bundle = bundle::make(site, &id, "/bin/true", filter);
        let words = ["run", "--bundle", &bundle.to_string_lossy(), &id];
        all.insert(name.to_owned(), walk(&words)?);
    }
    let bundle = bundle::make(site, &id, "/bin/pause", Filter::None);
    let (_, pid) = runtime.create(site, &bundle, &id)?;
    all.insert("start".into(), walk(&["start", &id])?);
    let commands: [(&str, &[&str]); 4] = [
        ("exec", &["exec", &id, "/bin/true"]),
        ("state", &["state", &id]),
        ("list", &["list"]),
        ("kill", &["kill", &id, "KILL"]),
    ];
    for (name, words) in commands {
        all.insert(name.into(), walk(words)?);
    }
    wait_for(pid);
    all.insert("delete".into(), walk(&["delete", &id])?);
    Ok(all)
}

fn walk(site: &Site, runtime: &Runtime, words: &[&str]) -> Result<u64, String> {
    let failed = |error: io::Error| format!("{} {}: {error}", runtime.name, words[0]);
    let file = fs::metadata(&runtime.path).map_err(failed)?;
    let mut command = runtime.command(site, &[], words);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: one system call that touches no memory.
    unsafe {
        command.pre_exec(
            || match libc::syscall(libc::SYS_ptrace, libc::PTRACE_TRACEME, 0, 0, 0) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            },
        );
    }
    let child = command.spawn().map_err(failed)?;
    let first = child.id() as i32;
    let mut steps = 0;
    let mut ended = None;
    // The processes that are walked through.
    let mut walking: BTreeSet<i32> = BTreeSet::new();
    loop {
        let mut status = 0;
        // SAFETY: `status` is valid to write.
        let pid = unsafe { libc::waitpid(-1, &mut status, libc::__WALL) };
        if pid < 0 {
            break;
        }
        if !libc::WIFSTOPPED(status) {
            walking.remove(&pid);
            if pid == first {
                ended = Some(status);
            }
            if walking.is_empty() && ended.is_some() {
                break;
            }
            continue;
        }
        let (signal, event) = (libc::WSTOPSIG(status), status >> 16);
        let begun = !walking.contains(&pid);
        let executed = event == libc::PTRACE_EVENT_EXEC || (begun && pid == first);
        if executed {
            let now = fs::metadata(format!("/proc/{pid}/exe"));
            // Or a copy of it, where husk may not mount.
            let same = now.is_ok_and(|now| now.len() == file.len());
            if !same {
                trace(libc::PTRACE_DETACH.into(), pid, 0);
                walking.remove(&pid);
                if walking.is_empty() && ended.is_some() {
                    break;
                }
                continue;
            }
        }
        if begun || executed {
            let options = libc::PTRACE_O_TRACECLONE
                | libc::PTRACE_O_TRACEFORK
                | libc::PTRACE_O_TRACEVFORK
                | libc::PTRACE_O_TRACEEXEC
                | libc::PTRACE_O_EXITKILL;
            trace(libc::PTRACE_SETOPTIONS.into(), pid, options.into());
            walking.insert(pid);
            trace(libc::PTRACE_SINGLESTEP.into(), pid, 0);
            continue;
        }
        let mut pass = 0;
        if signal == libc::SIGTRAP && event == 0 {
            steps += 1;
        } else if event == 0 {
            pass = i64::from(signal);
        }
        trace(libc::PTRACE_SINGLESTEP.into(), pid, pass);
    }
    match ended {
        Some(0) => Ok(steps),
        _ => Err(format!("{} {} failed step by step", runtime.name, words[0])),
    }
}

fn trace(request: i64, pid: i32, data: i64) {
    // SAFETY: these requests take a number, no memory. A process that is gone is waited for.
    unsafe { libc::syscall(libc::SYS_ptrace, request, pid, 0, data) };
}
