//! "did you mean": the known word closest to one that is not known.

/// The longest word worth comparing: no name of the specification is longer.
const LONGEST: usize = 64;

/// The known word that `word` was most likely meant to be. Letter case doesn't count; else one
/// edit in three letters may differ, or `word` is a distinctive part of the known one
/// (`NOFILE` for `RLIMIT_NOFILE`).
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let letters = word.to_ascii_lowercase();
    if letters.is_empty() || letters.len() > LONGEST {
        return None;
    }
    let mut closest: Option<(usize, &str)> = None;
    let mut containing = None;
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
    }
    closest.map(|(_, candidate)| candidate).or(containing)
}

/// The hint made of [`nearest`].
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(word, known).map(|candidate| format!("did you mean {candidate}?"))
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
            "containerPath",
            "container_path",
        ],
        "containerID" => &["container", "inside"],
        "hostID" => &["host", "outside"],
        "names" => &["name", "syscall", "syscalls"],
        "path" => &["file", "filename", "source"],
        _ => &[],
    }
}

/// Optimal string alignment: insertions, deletions, substitutions and swapped neighbours.
fn distance(a: &[u8], b: &[u8]) -> usize {
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
            ("", &namespaces[..], None),
            ("x", &namespaces[..], None),
        ] {
            assert_eq!(nearest(word, known.iter().copied()), expected, "{word}");
        }
    }

    #[test]
    fn long_words_are_not_compared() {
        let long = "a".repeat(10_000);
        assert_eq!(nearest(&long, ["pid"]), None);
        assert_eq!(nearest("pid", [long.as_str()]), None);
    }
}
