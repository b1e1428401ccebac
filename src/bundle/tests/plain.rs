//! The pass that keeps nothing says no more than the walk through the values.

use serde_json::{Value, json};

use crate::bundle::schema::{CONFIG, Report, is_plain, walk};
use crate::bundle::{Findings, syntax};

/// Without what only the walk can tell.
fn full() -> Value {
    let mut full: Value = serde_json::from_str(include_str!("full.json")).unwrap();
    if let Some(map) = full.as_object_mut() {
        map.retain(|key, _| {
            !["freebsd", "solaris", "vm", "windows", "zos"].contains(&key.as_str())
        });
    }
    if let Some(process) = full["process"].as_object_mut() {
        process.remove("commandLine");
    }
    full
}

fn walk_is_silent(text: &str) -> bool {
    let mut findings = Findings::default();
    let value = syntax::read(text.as_bytes(), &mut findings);
    if let Some(mut value) = value {
        walk(&CONFIG, &mut value, Report::Unknown, &mut findings);
    }
    findings.0.is_empty()
}

/// Each place in the document, by its pointer.
fn places(value: &Value, pointer: &str, found: &mut Vec<String>) {
    found.push(pointer.into());
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                places(value, &syntax::child(pointer, key), found);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                places(item, &format!("{pointer}/{index}"), found);
            }
        }
        _ => {}
    }
}

#[test]
fn where_the_pass_finds_nothing_the_walk_reports_nothing() {
    let full = full();
    assert!(
        is_plain(&CONFIG, &full.to_string()),
        "all that is known is plain"
    );
    let mut pointers = Vec::new();
    places(&full, "", &mut pointers);
    assert!(pointers.len() > 250, "{}", pointers.len());
    let others = [
        json!(null),
        json!(true),
        json!(1),
        json!(-1),
        json!(1.5),
        json!(u64::MAX),
        json!(5_000_000_000_u64),
        json!(""),
        json!("x"),
        json!([]),
        json!(["x"]),
        json!([{}]),
        json!({}),
        json!({"x": 1}),
        json!({"x": "y"}),
    ];
    let (mut plain, mut told) = (0, 0);
    let mut compare = |document: &Value| {
        let text = document.to_string();
        match is_plain(&CONFIG, &text) {
            true => {
                assert!(walk_is_silent(&text), "{text}");
                plain += 1;
            }
            false => told += 1,
        }
    };
    for pointer in &pointers {
        for other in &others {
            let mut document = full.clone();
            *document.pointer_mut(pointer).unwrap() = other.clone();
            compare(&document);
        }
        let Some(map) = full.pointer(pointer).and_then(Value::as_object) else {
            continue;
        };
        for key in map.keys() {
            let mut document = full.clone();
            let map = document
                .pointer_mut(pointer)
                .unwrap()
                .as_object_mut()
                .unwrap();
            let value = map.remove(key).unwrap();
            compare(&document);
            let map = document
                .pointer_mut(pointer)
                .unwrap()
                .as_object_mut()
                .unwrap();
            map.insert(format!("{key}x"), value);
            compare(&document);
        }
    }
    assert!(plain > 500 && told > 2000, "{plain} plain, {told} not");
}

#[test]
fn a_key_that_stands_twice_is_not_plain() {
    for text in [
        r#"{"ociVersion":"1.0.0","root":{"path":"a","path":"b"}}"#,
        r#"{"ociVersion":"1.0.0","root":{"path":"a"},"annotations":{"a":"","b":"","a":""}}"#,
        r#"{"ociVersion":"1.0.0","root":{"path":"a"},"root":{"path":"a"}}"#,
        r#"{"ociVersion":"1.0.0","root":{"path":"a"}} x"#,
    ] {
        assert!(!is_plain(&CONFIG, text), "{text}");
        assert!(!walk_is_silent(text), "{text}");
    }
    let escaped =
        r#"{"ociVersion":"1.0.0","root":{"path":"a"},"annotations":{"\u0061":"","a":""}}"#;
    assert!(!is_plain(&CONFIG, escaped));
}
