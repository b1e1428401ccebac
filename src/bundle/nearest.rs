//! "did you mean": the known word closest to one that is not known.

use std::path::Path;

use nix::errno::Errno;

use crate::error::Error;

/// The longest word worth comparing: no name of the specification is longer.
const LONGEST: usize = 64;

/// The known word that `word` was most likely meant to be. Letter case doesn't count; else one
/// edit in three letters may differ, or one is a distinctive part of the other (`NOFILE` for
/// `RLIMIT_NOFILE`).
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let letters = word.to_ascii_lowercase();
    if letters.is_empty() || letters.len() > LONGEST {
        return None;
    }
    let mut closest: Option<(usize, &str)> = None;
    let mut containing = None;
    let mut contained: Option<&str> = None;
    for candidate in known {
        let other = candidate.to_ascii_lowercase();
        let allowed = match letters.len().min(other.len()) {
            0..=2 => 1,
            3..=5 => 2,
            n => n / 3,
        };
        let distance = distance(letters.as_bytes(), other.as_bytes());
        if distance <= allowed && closest.is_none_or(|(best, _)| distance < best) {
            closest = Some((distance, candidate));
        }
        if containing.is_none() && letters.len() >= 3 && other.contains(&letters) {
            containing = Some(candidate);
        }
        let is_longest = contained.is_none_or(|best| best.len() < other.len());
        if other.len() >= 4 && letters.contains(&other) && is_longest {
            contained = Some(candidate);
        }
    }
    closest
        .map(|(_, candidate)| candidate)
        .or(containing)
        .or(contained)
}

/// The hint made of [`nearest`].
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(word, known).map(|candidate| format!("did you mean {candidate}?"))
}

/// What else could have been meant by a path of this machine that isn't there.
pub fn beside(path: &Path) -> String {
    if let Some(part) = part_for_a_shell(path) {
        return format!("{part} means something to a shell only: write the whole path");
    }
    if let Some(hint) = neighbour(path) {
        return hint;
    }
    let parent = path.parent().unwrap_or(Path::new("/"));
    match std::fs::symlink_metadata(parent) {
        Ok(_) => format!("create {}, or correct the path", path.display()),
        Err(_) => format!("{} isn't there either", parent.display()),
    }
}

fn part_for_a_shell(path: &Path) -> Option<&str> {
    let mut parts = path.iter().filter_map(|part| part.to_str());
    parts.find(|part| *part == "~" || part.starts_with('$'))
}

/// The hint made of what lies beside a path that isn't there and is nearly called so.
pub fn neighbour(path: &Path) -> Option<String> {
    if part_for_a_shell(path).is_some() {
        return None;
    }
    let name = path.file_name().and_then(|name| name.to_str())?;
    let parent = path.parent().unwrap_or(Path::new("/"));
    let names: Vec<String> = std::fs::read_dir(parent)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .take(4096)
        .collect();
    let other = nearest(name, names.iter().map(String::as_str))?;
    Some(format!("did you mean {}?", parent.join(other).display()))
}

/// With what may have been meant by a path that isn't there.
pub fn advise(error: Error, path: &Path) -> Error {
    match error.code() {
        Some(Errno::ENOENT) if error.remedy().is_none() => error.hint(beside(path)),
        _ => error,
    }
}

/// What other programs call a value.
pub fn also_called(name: &str) -> Option<&'static str> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.trim_start_matches("SCMP_ARCH_");
    Some(match bare {
        "AMD64" | "X64" | "X86-64" => "SCMP_ARCH_X86_64",
        "I386" | "I486" | "I586" | "I686" | "386" | "IA32" => "SCMP_ARCH_X86",
        "ARM64" | "ARMV8" => "SCMP_ARCH_AARCH64",
        "ARMHF" | "ARMV7" | "ARMV7L" | "ARMEL" => "SCMP_ARCH_ARM",
        "PPC64EL" => "SCMP_ARCH_PPC64LE",
        "RT" | "REALTIME" | "REAL-TIME" | "IOPRIO_CLASS_REALTIME" => "IOPRIO_CLASS_RT",
        "BE" | "BEST-EFFORT" | "BEST_EFFORT" => "IOPRIO_CLASS_BE",
        "SCMP_ACT_DENY" | "SCMP_ACT_BLOCK" | "SCMP_ACT_REJECT" | "DENY" => "SCMP_ACT_ERRNO",
        "SCMP_ACT_PERMIT" | "SCMP_ACT_ACCEPT" | "PERMIT" => "SCMP_ACT_ALLOW",
        "CHAR" | "CHARACTER" => "c",
        "BLOCK" => "b",
        "FIFO" | "PIPE" => "p",
        "ALL" => "a",
        "NORMAL" | "SCHED_NORMAL" | "SCHED_CFS" => "SCHED_OTHER",
        _ => return None,
    })
}

/// What other programs call a property.
pub fn aliases(name: &str) -> &'static [&'static str] {
    match name {
        "destination" => &[
            "target",
            "dst",
            "mountpoint",
            "mountPath",
            "mount_path",
            "containerPath",
            "container_path",
            "dest",
            "to",
            "where",
        ],
        "type" => &["kind", "name", "resource"],
        "defaultAction" => &["default", "default_action"],
        "op" => &["operator", "cmp", "comparison"],
        "cwd" => &["workingDir", "workdir", "working_dir", "WorkingDir"],
        "containerID" => &["container", "inside"],
        "hostID" => &["host", "outside"],
        "names" => &["name", "syscall", "syscalls"],
        "path" => &[
            "file", "filename", "source", "command", "cmd", "exec", "rootfs",
        ],
        _ => &[],
    }
}

/// Optimal string alignment: insertions, deletions, substitutions and swapped neighbours. Far from everything is
/// what is longer than any word worth comparing.
pub fn distance(a: &[u8], b: &[u8]) -> usize {
    if a.len() > LONGEST || b.len() > LONGEST {
        return usize::MAX;
    }
    let mut before = [0; LONGEST + 1];
    let mut above = [0; LONGEST + 1];
    let mut row = [0; LONGEST + 1];
    for (j, cell) in above.iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        row[0] = i;
        for j in 1..=b.len() {
            let differs = usize::from(a[i - 1] != b[j - 1]);
            row[j] = (above[j] + 1)
                .min(row[j - 1] + 1)
                .min(above[j - 1] + differs);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = above;
        above = row;
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant() {
        let rlimits = ["RLIMIT_AS", "RLIMIT_NOFILE", "RLIMIT_NPROC", "RLIMIT_NICE"];
        let namespaces = [
            "pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time",
        ];
        for (word, known, expected) in [
            ("RLIMIT_NOFILES", &rlimits[..], Some("RLIMIT_NOFILE")),
            ("rlimit_nofile", &rlimits[..], Some("RLIMIT_NOFILE")),
            ("NOFILE", &rlimits[..], Some("RLIMIT_NOFILE")),
            ("RLIMIT_NOFLIE", &rlimits[..], Some("RLIMIT_NOFILE")),
            ("banana", &rlimits[..], None),
            ("net", &namespaces[..], Some("network")),
            ("mnt", &namespaces[..], Some("mount")),
            ("usr", &namespaces[..], Some("user")),
            ("network_namespace", &namespaces[..], Some("network")),
            (
                "RLIMIT_NOFILE_SOFT_LIMIT",
                &rlimits[..],
                Some("RLIMIT_NOFILE"),
            ),
            ("", &namespaces[..], None),
            ("x", &namespaces[..], None),
        ] {
            assert_eq!(nearest(word, known.iter().copied()), expected, "{word}");
        }
    }

    #[test]
    fn slips_of_the_finger_are_counted() {
        for (a, b, expected) in [
            ("", "", 0),
            ("create", "create", 0),
            ("crate", "create", 1),
            ("craete", "create", 1),
            ("", "ab", 2),
            ("start", "state", 2),
        ] {
            assert_eq!(distance(a.as_bytes(), b.as_bytes()), expected, "{a} {b}");
            assert_eq!(distance(b.as_bytes(), a.as_bytes()), expected, "{b} {a}");
        }
    }

    #[test]
    fn long_words_are_not_compared() {
        let long = "a".repeat(10_000);
        assert_eq!(nearest(&long, ["pid"]), None);
        assert_eq!(nearest("pid", [long.as_str()]), None);
    }
}
