//! The v2 tree as the tests see it: rooted at the suite's own cgroup.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub const MOUNT: &str = "/sys/fs/cgroup";

pub fn path(name: &str) -> PathBuf {
    Path::new(MOUNT).join(name.trim_start_matches('/'))
}

/// Controllers that a container can have here.
pub fn controllers() -> Vec<String> {
    let text = fs::read_to_string(path("cgroup.controllers")).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

/// Enables what can be enabled below `dir`; what can't be stays as it is.
pub fn enable_all(dir: &Path) {
    let controllers = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// Cgroups right below the root of the tree whose names begin so.
pub fn beginning(prefix: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(MOUNT)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    found.sort();
    found
}

/// Processes of the cgroup itself.
pub fn processes(dir: &Path) -> Vec<i32> {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Kills everything in the cgroup and removes it with all below it.
pub fn remove(dir: &Path) -> io::Result<()> {
    let _ = fs::write(dir.join("cgroup.freeze"), "0");
    let _ = fs::write(dir.join("cgroup.kill"), "1");
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match remove_tree(dir) {
            Ok(()) => return Ok(()),
            // One below may have been removed meanwhile by who made it.
            Err(_) if !dir.exists() => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(dir)
}
