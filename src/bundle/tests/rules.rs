//! Every rule by example: `rules.txt` holds, for each, a patch to the base config and the one
//! finding that it must make.

use super::*;

/// `error POINTER: WORDS & WORDS` or `warning …`, then the patch: its only error (or its only
/// finding at all, a warning) is there and has the words in its message or hint. `ok`, then
/// patches that make no finding. Deeper indented lines continue a patch.
const RULES: &str = include_str!("rules.txt");

#[derive(Clone, Copy)]
struct Expected<'a> {
    severity: Severity,
    pointer: &'a str,
    words: &'a str,
}

fn parse_heading(line: &str) -> Option<Expected<'_>> {
    let (severity, rest) = match line.split_once(' ') {
        Some(("error", rest)) => (Severity::Error, rest),
        Some(("warning", rest)) => (Severity::Warning, rest),
        _ => {
            assert_eq!(line, "ok");
            return None;
        }
    };
    let (pointer, words) = rest.split_once(": ").unwrap();
    Some(Expected {
        severity,
        pointer,
        words,
    })
}

fn verdict(expected: Option<Expected<'_>>, patch: &str) -> Result<(), String> {
    let mut found = findings(&patched(patch));
    let Some(expected) = expected else {
        return match found.is_empty() {
            true => Ok(()),
            false => Err(format!("{found:#?}")),
        };
    };
    if expected.severity == Severity::Error {
        found.retain(|f| f.severity == Severity::Error);
    }
    let [finding] = &found[..] else {
        return Err(format!("{} findings: {found:#?}", found.len()));
    };
    let text = format!("{} | {:?}", finding.message, finding.hint).replace("\\\"", "\"");
    let is_as_expected = finding.severity == expected.severity
        && finding.pointer == expected.pointer
        && expected
            .words
            .split(" & ")
            .all(|words| text.contains(words));
    match is_as_expected {
        true => Ok(()),
        false => Err(format!("{finding:#?}")),
    }
}

#[test]
fn every_rule() {
    let mut rows: Vec<(Option<Expected>, &str, String)> = Vec::new();
    let mut heading = "";
    for line in RULES
        .lines()
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
    {
        match line.strip_prefix("    ") {
            None => heading = line,
            Some(more) if more.starts_with(' ') => {
                let (_, _, patch) = rows.last_mut().unwrap();
                patch.push_str(more);
            }
            Some(patch) => rows.push((parse_heading(heading), heading, patch.into())),
        }
    }
    assert!(rows.len() > 240, "{}", rows.len());
    let failures: Vec<String> = rows
        .iter()
        .filter_map(|(expected, heading, patch)| {
            let why = verdict(*expected, patch).err()?;
            Some(format!("{heading}\n    {patch}\n{why}"))
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn names_longer_than_the_kernel_takes() {
    for (length, pointers) in [(64, &[][..]), (65, &["/hostname"][..])] {
        let found = errors(&patched(&format!(
            r#"{{"hostname": "{}"}}"#,
            "a".repeat(length)
        )));
        let found: Vec<_> = found.iter().map(|f| f.pointer.as_str()).collect();
        assert_eq!(found, pointers);
    }
}

#[test]
fn a_key_with_a_nul() {
    let found = errors(&patched(r#"{"annotations": {"a\u0000": "x"}}"#));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].pointer, "/annotations/a\0");
}

/// CVE-2021-43784 was an overflow of the length of such a list.
#[test]
fn cve_2021_43784_more_mappings_than_the_kernel_takes() {
    let list = |n| {
        let entry = |i| format!(r#"{{"containerID": {i}, "hostID": {i}, "size": 1}}"#);
        let entries: Vec<String> = (0..n).map(entry).collect();
        format!("[{}]", entries.join(","))
    };
    for (n, message) in [
        (340, None),
        (341, Some("341 entries, more than the kernel's 340")),
        (100_000, Some("100000 entries, more than the kernel's 340")),
    ] {
        let found = errors(&patched(&format!(
            r#"{{"linux": {{"namespaces": [{{"type": "user"}}], "uidMappings": {},
                "gidMappings": {}}}}}"#,
            list(n),
            list(1)
        )));
        let found = found.iter().find(|f| f.pointer == "/linux/uidMappings");
        match (n, found) {
            // So many are refused before they are read.
            (100_000, None) => {}
            (_, found) => assert_eq!(found.map(|f| f.message.as_str()), message),
        }
    }
}
