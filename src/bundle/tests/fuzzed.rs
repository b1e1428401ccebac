//! What the fuzzer found: documents that `create` and `check` judged differently.

use super::*;
use crate::bundle::{Bundle, check};

/// Whether both let it pass.
#[track_caller]
fn agreed(raw: &[u8]) -> bool {
    let checked = check(raw)
        .iter()
        .all(|finding| finding.severity != Severity::Error);
    let created = Bundle::parse("/b".as_ref(), raw.to_vec())
        .and_then(|bundle| bundle.unknown_properties().map(drop));
    assert_eq!(created.is_ok(), checked, "{created:?}");
    checked
}

/// A null is as good as absent, and so is its key.
#[test]
fn a_null_below_a_key_with_a_nul_is_nothing() {
    assert!(agreed(&patched(
        r#"{"mounts": [{"destination": "/a", "type": "tmpfs", "\u0000": null}]}"#
    )));
    let text = String::from_utf8(patched(r#"{"annotations": {"a": "b"}}"#)).unwrap();
    assert!(agreed(
        text.replace(r#""a":"b""#, r#""\u0000":null"#).as_bytes()
    ));
    assert!(!agreed(
        text.replace(r#""a":"b""#, r#""\u0000":"""#).as_bytes()
    ));
}

/// Found by the tests of bad input: two keys of one name where nobody looks were a warning at `create`.
#[test]
fn unknown_properties_are_json_that_all_readers_read_alike() {
    let text = String::from_utf8(patched(r#"{"unknown": {"a": 1}}"#)).unwrap();
    assert!(agreed(text.as_bytes()));
    assert!(!agreed(
        text.replace(r#""a":1"#, r#""a":1,"a":2"#).as_bytes()
    ));
    let deep = format!("{}1{}", r#"{"a":"#.repeat(10_000), "}".repeat(10_000));
    assert!(!agreed(text.replace(r#"{"a":1}"#, &deep).as_bytes()));
}

/// What is left out before it must not shift the pointer.
#[test]
fn a_nul_behind_an_unknown_capability_is_told_in_its_place() {
    let raw = patched(r#"{"process": {"capabilities": {"effective": ["CAP_NO", ["a\u0000"]]}}}"#);
    let found = check(&raw);
    let nul = found.iter().find(|finding| finding.message.contains("NUL"));
    let pointer = nul.map(|finding| finding.pointer.as_str());
    assert_eq!(pointer, Some("/process/capabilities/effective/1/0"));
    assert!(!agreed(&raw));
}

/// The fast way kept what the crate has types for.
#[test]
fn other_platforms_are_unknown_to_both_readers() {
    for platform in [
        r#"{"uidMappings": [], "gidMappings": []}"#,
        r#"{"solaris": {"milestone": "m"}}"#,
        r#"{"windows": {"layerFolders": ["l"]}}"#,
        r#"{"vm": {"kernel": {"path": "/k"}}}"#,
        r#"{"process": {"commandLine": "sh"}}"#,
    ] {
        let raw = patched(platform);
        let read = |reader: fn(&[u8], &mut Findings) -> _| reader(&raw, &mut Findings::default());
        let fast: Option<(Box<oci_spec::runtime::Spec>, _)> = read(parse::config);
        assert!(fast.is_some(), "{platform}");
        assert_eq!(fast, read(parse::check), "{platform}");
        assert!(agreed(&raw), "{platform}");
    }
}
