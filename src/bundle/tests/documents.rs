//! Whole documents: real configs, the specification's examples, hostile ones, files.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::bundle::{Bundle, MAX_BYTES, check, parse_process};

fn data(folder: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/data");
    let files = fs::read_dir(root.join(folder)).unwrap();
    let mut files: Vec<_> = files
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

#[test]
fn real_configs_have_no_findings() {
    for (path, raw) in data("configs") {
        if path.to_string_lossy().ends_with(".process.json") {
            let (process, warnings) = parse_process(&raw).unwrap();
            assert_eq!(process.user().uid(), 1);
            assert_eq!(warnings, []);
            continue;
        }
        assert_eq!(check(&raw), [], "{}", path.display());
        let bundle = Bundle::parse("/b".as_ref(), raw).unwrap();
        assert!(bundle.spec.process().is_some(), "{}", path.display());
    }
}

#[test]
fn the_specifications_good_examples_load() {
    for (path, raw) in data("spec-fixtures/good") {
        let mut raw = raw;
        if path.ends_with("linux-netdevice.json") {
            // An example of the types only: devices would be moved into the namespace they are in.
            let [error] = &errors(&raw)[..] else { panic!() };
            assert_eq!(error.pointer, "/linux/netDevices");
            let text = String::from_utf8(raw).unwrap();
            raw = text
                .replace(
                    "\"linux\": {",
                    "\"linux\": {\"namespaces\": [{\"type\": \"network\"}],",
                )
                .into();
        }
        assert_eq!(errors(&raw), [], "{}", path.display());
    }
}

#[test]
fn the_specifications_bad_examples_are_refused_where_they_are_bad() {
    for (path, raw) in data("spec-fixtures/bad") {
        let pointer = match path.file_name().and_then(|n| n.to_str()) {
            Some("invalid-json.json") => "",
            Some("linux-hugepage.json") => "/linux/resources/hugepageLimits/0/pageSize",
            Some("linux-netdevice.json") => "/linux/netDevices/eth0/name",
            Some("linux-rdma.json") => "/linux/resources/rdma/mlx5_1/hcaHandles",
            name => panic!("{name:?}"),
        };
        assert_eq!(errors(&raw)[0].pointer, pointer, "{}", path.display());
    }
}

/// The table knows every property of the specification's JSON schemas.
#[test]
fn the_schema_knows_every_property() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/data/spec-fixtures");
    let table = include_str!("../schema/table.rs");
    for file in ["config-schema", "config-linux", "defs", "defs-linux"] {
        let text = fs::read_to_string(root.join(format!("{file}.json"))).unwrap();
        let mut names = Vec::new();
        properties(&serde_json::from_str(&text).unwrap(), &mut names);
        for name in names {
            let by_value = ["monotonic", "boottime"].contains(&name.as_str());
            assert!(
                by_value || table.contains(&format!("\"{name}\"")),
                "{file}: {name}"
            );
        }
    }
}

fn properties(value: &Value, names: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::Object(properties)) = map.get("properties") {
                names.extend(properties.keys().cloned());
            }
            if let Some(Value::Array(known)) = map.get("enum") {
                // Space-separated in the table.
                let text = include_str!("../schema/table.rs");
                for name in known.iter().filter_map(Value::as_str) {
                    assert!(
                        text.contains(name)
                            || ["shared", "slave", "private", "unbindable"].contains(&name),
                        "{name}"
                    );
                }
            }
            map.values().for_each(|value| properties(value, names));
        }
        Value::Array(items) => items.iter().for_each(|value| properties(value, names)),
        _ => {}
    }
}

#[test]
fn a_check_finds_everything_at_once() {
    let raw = br#"{
        "ociVersion": "1.0.0", "root": {"path": "r", "readonly": true}, "prozess": {},
        "process": {"args": ["x"], "cwd": "/", "user": {"uid": 0, "gid": 0}, "capabilites": {}},
        "hostname": "h",
        "linux": {"namespaces": [{"type": "pid"}], "resources": {"pids": {}},
            "uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}
    }"#;
    let found: Vec<_> = check(raw)
        .into_iter()
        .map(|f| (f.severity, f.pointer, f.hint.unwrap_or_default()))
        .collect();
    let expected = [
        (
            Severity::Warning,
            "/process/capabilites",
            "did you mean capabilities?",
        ),
        (Severity::Warning, "/linux/resources/pids/limit", ""),
        (Severity::Warning, "/prozess", "did you mean process?"),
        (
            Severity::Error,
            "/hostname",
            "add {\"type\": \"uts\"} to /linux/namespaces",
        ),
        (
            Severity::Error,
            "/linux/uidMappings",
            "add {\"type\": \"user\"} to /linux/namespaces",
        ),
    ]
    .map(|(severity, pointer, hint)| (severity, pointer.to_string(), hint.to_string()));
    assert_eq!(found, expected);
    // All wrong types at once, not the first only.
    let raw = br#"{"ociVersion": 1, "root": {"path": []}, "mounts": {}}"#;
    assert_eq!(check(raw).len(), 3);
}

#[test]
fn a_property_in_the_wrong_place_is_sent_to_its_own() {
    let raw = br#"{
        "ociVersion": "1.0.0", "root": {"path": "r", "readOnly": true}, "capabilities": {},
        "process": {"args": ["x"], "cwd": "/", "user": {"uid": 0, "gid": 0}, "gid": 1, "flags": []},
        "linux": {"memory": {"limit": 67108864}}
    }"#;
    let found: Vec<_> = check(raw)
        .into_iter()
        .map(|f| (f.pointer, f.hint.unwrap_or_default()))
        .collect();
    let expected = [
        ("/root/readOnly", "did you mean readonly?"),
        // Several objects have flags.
        ("/process/flags", ""),
        ("/process/gid", "its place is /process/user/gid"),
        ("/linux/memory", "its place is /linux/resources/memory"),
        ("/capabilities", "its place is /process/capabilities"),
    ]
    .map(|(pointer, hint)| (pointer.to_string(), hint.to_string()));
    assert_eq!(found, expected);
}

#[test]
fn documents_that_are_no_object() {
    for (text, words) in [
        ("[]", "expected an object, got an array"),
        ("\"x\"", "expected an object, got the string \"x\""),
        ("null", "expected an object, got null"),
        ("7", "expected an object, got the number 7"),
    ] {
        let error = Bundle::parse("/b".as_ref(), text.into()).unwrap_err();
        assert_eq!(error.to_string(), format!("config.json: {words}"));
        let error = parse_process(text.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), format!("process document: {words}"));
    }
}

#[test]
fn errors_are_one_line_with_pointer_and_reason() {
    for (raw, line) in [
        (
            patched(r#"{"process": {"user": {"uid": "root"}}}"#),
            "config.json (/process/user/uid): expected an unsigned 32-bit number, got the string \"root\"",
        ),
        (
            b"{\n  \"ociVersion\" \"1.0.0\"\n}".to_vec(),
            "config.json: line 2 column 16: missing colon: expected `:` after the key, found `\"`",
        ),
        (
            b"{\"process\": {\"cwd\": \"/\", \"cwd\": \"/\"}}".to_vec(),
            "config.json (/process): line 1 column 30: the key \"cwd\" stands here twice",
        ),
    ] {
        let error = Bundle::parse("/b".as_ref(), raw).unwrap_err();
        assert_eq!(error.to_string(), line);
    }
}

#[test]
fn process_documents_have_the_same_repairs_and_rules() {
    for (text, pointer) in [
        (r#"{"args": ["x"], "cwd": "x"}"#, "/cwd"),
        (r#"{"args": [], "cwd": "/"}"#, "/args"),
        (
            r#"{"args": ["x"], "cwd": "/", "user": {"uid": "0"}}"#,
            "/user/uid",
        ),
        (
            r#"{"args": ["x"], "cwd": "/", "env": ["A=\u0000"]}"#,
            "/env/0",
        ),
        (
            r#"{"args": ["\u0000"], "cwd": "/", "user": {"uid": 0, "gid": 0}}"#,
            "/args/0",
        ),
        (r#"{"args": ["x"]}"#, "/cwd"),
        (
            r#"{"args": ["x"], "cwd": "/", "rlimits": [{"type": "RLIMIT_X", "soft": 1, "hard": 1}]}"#,
            "/rlimits/0/type",
        ),
    ] {
        let error = parse_process(text.as_bytes()).unwrap_err();
        assert_eq!(error.pointer(), Some(pointer), "{text}");
        assert!(
            error.to_string().starts_with("process document ("),
            "{error}"
        );
    }
    let text = r#"{"args": ["x"], "cwd": "/", "capabilities": {"bounding": ["CAP_X"]},
        "scheduler": {"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_RESET_ON_FORK"]}}"#;
    let (process, warnings) = parse_process(text.as_bytes()).unwrap();
    assert_eq!(process.user().uid(), 0);
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].pointer, "/capabilities/bounding/0");
}

#[test]
fn deep_nesting_is_ignored_or_refused() {
    for (open, close, refused) in [("{\"a\":", "}", false), ("[", "]", true)] {
        let deep = format!("{}0{}", open.repeat(10_000), close.repeat(10_000));
        let raw = format!(r#"{{"ociVersion": "1.0.0", "root": {{"path": "r"}}, "x": {deep}}}"#);
        match Bundle::parse("/b".as_ref(), raw.into()) {
            Ok(_) => assert!(!refused),
            Err(error) => assert!(
                error.to_string().ends_with("deeper than 127 levels"),
                "{error}"
            ),
        }
    }
}

/// Brackets in strings are no arrays: such documents are common and go the fast way.
#[test]
fn brackets_in_strings_cost_nothing() {
    for text in ["[[ -f x ]]", r#"{\"a\":[1,[2]]}"#, "a,[b", "x:[y", r"\\"] {
        let raw = format!(r#"{{"args": ["{text}"], "cwd": "/"}}"#);
        assert!(!parse::arrays_for_objects(raw.as_bytes()), "{raw}");
    }
    assert!(parse::arrays_for_objects(b"[]"));
    assert!(parse::arrays_for_objects(b" {\"user\" : [ ]}"));
}

/// 100 MB are refused unread; below the limit a count keeps the types from taking gigabytes.
#[test]
fn huge_documents_are_refused_early() {
    let many = format!(
        r#"{{"linux": {{"uidMappings": [{}{{}}]}}}}"#,
        "{},".repeat(300_000)
    );
    let nulls = format!(r#"{{"x": [{}0]}}"#, "0,".repeat(300_000));
    for text in [many, nulls] {
        let error = Bundle::parse("/b".as_ref(), text.into()).unwrap_err();
        assert!(error.to_string().contains("more than 150000"), "{error}");
    }
    let long = format!(
        r#"{{"ociVersion": "1.0.0", "root": {{"path": "r"}}, "x": "{}"}}"#,
        ",{[\\\"".repeat(300_000)
    );
    assert!(Bundle::parse("/b".as_ref(), long.into()).is_ok());
}

#[test]
fn files() {
    let dir = std::env::temp_dir().join(format!("husk-bundle-{}", std::process::id()));
    fs::create_dir(&dir).unwrap();
    let config = dir.join("config.json");
    let refused = || Bundle::load(&dir).unwrap_err();

    let error = refused();
    assert!(
        error
            .to_string()
            .ends_with("/config.json: no such file or directory"),
        "{error}"
    );
    assert!(error.remedy().unwrap().contains("husk spec"));

    fs::create_dir(&config).unwrap();
    assert!(
        refused()
            .to_string()
            .ends_with("/config.json: is a directory")
    );
    fs::remove_dir(&config).unwrap();

    nix::unistd::mkfifo(&config, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(
        refused()
            .to_string()
            .ends_with("/config.json: not a regular file")
    );
    fs::remove_file(&config).unwrap();

    fs::File::create(&config)
        .unwrap()
        .set_len(100 << 20)
        .unwrap();
    assert!(refused().to_string().ends_with("larger than 16 MiB"));
    fs::File::create(&config)
        .unwrap()
        .set_len(MAX_BYTES)
        .unwrap();
    assert!(refused().to_string().contains("NUL byte"), "{}", refused());
    fs::File::create(&config).unwrap();
    assert_eq!(refused().to_string(), "config.json: the file is empty");

    fs::write(&config, BASE).unwrap();
    let bundle = Bundle::load(&dir).unwrap();
    assert_eq!(
        (bundle.dir.as_path(), bundle.raw.as_slice()),
        (dir.as_path(), BASE.as_bytes())
    );
    assert!(Bundle::load(Path::new("relative")).is_err());
    fs::remove_dir_all(&dir).unwrap();

    let bundle = Bundle::parse("some/where".as_ref(), BASE.into()).unwrap();
    assert!(bundle.dir.is_absolute() && bundle.dir.ends_with("some/where"));
}
