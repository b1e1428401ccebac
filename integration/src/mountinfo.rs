//! proc_pid_mountinfo(5).

use std::fs;

/// Where each mount of this process's namespace sits, sorted.
pub fn targets() -> Vec<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut targets: Vec<String> = text
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(str::to_owned)
        .collect();
    targets.sort();
    targets
}

/// The place of the first mount of that type.
pub fn first_of_type(kind: &str) -> Option<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").ok()?;
    text.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        (right.split(' ').next()? == kind).then(|| left.split(' ').nth(4).map(str::to_owned))?
    })
}
