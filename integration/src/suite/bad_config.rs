//! Broken bundles: each is refused with one line that names the field by JSON pointer and
//! says why, with exit status 1, and leaves nothing.

use std::fs;

use serde_json::{Value, json};

use super::tests;
use crate::bundle::Bundle;
use crate::lab::{Lab, patience};
use crate::need::Need;

const HUSK: &[Need] = &[Need::Husk];

tests! {
    broken_process.needs(HUSK),
    broken_root_and_mounts.needs(HUSK),
    broken_namespaces.needs(HUSK),
    broken_devices_and_resources.needs(HUSK),
    broken_seccomp.needs(HUSK),
    broken_hooks_and_annotations.needs(HUSK),
    broken_json_tells_line_and_column.needs(HUSK),
    a_bundle_without_config_is_told,
    a_bundle_that_is_no_directory_is_told,
    wrong_types_are_told_where.needs(HUSK),
    unknown_keys_are_ignored,
    an_older_and_a_newer_minor_version_are_accepted,
    a_misspelt_value_gets_a_hint.needs(HUSK),
    control_characters_do_not_reach_the_terminal.needs(HUSK),
    deep_nesting_is_refused_quickly.needs(HUSK),
    a_huge_config_is_refused_or_read_quickly.needs(HUSK),
    a_minimal_configuration_runs.needs(HUSK),
}

const TABLE: &str = include_str!("bad_config.txt");

/// Every case of a section by `create` and by `run`: the same words, and nothing is left.
fn all_refused(lab: &Lab, section: &str) {
    let start = TABLE
        .find(&format!("[{section}]\n"))
        .expect("a section of the table");
    let lines = TABLE[start..]
        .lines()
        .skip(1)
        .take_while(|line| !line.starts_with('['));
    let (mut count, mut wrong) = (0, Vec::new());
    for line in lines.filter(|line| !line.is_empty()) {
        let fields: Vec<&str> = line.split(" | ").map(str::trim).collect();
        let [name, breakage, pointer, words] = fields[..] else {
            panic!("{line}")
        };
        let bundle = lab.bundle().payload("echo never");
        let bundle = breakage.split("; ").fold(bundle, break_it);
        let words: Vec<&str> = words.split(", ").collect();
        count += 1;
        for command in ["create", "run"] {
            let id = lab.id();
            let output = lab.on_bundle(command, &bundle, &[], &id).run();
            if let Some(why) = complaint(&output, pointer, &words) {
                wrong.push(format!(
                    "{name} ({command}): {why}\n  {}",
                    output.stderr.trim_end()
                ));
                lab.runtime(["delete", "--force", &id]).run();
            }
        }
        if let Err(left) = lab.finish() {
            wrong.push(format!("{name}: {left}"));
        }
    }
    assert!(
        count > 0 && wrong.is_empty(),
        "{} of {count} cases:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// One change, as the head of the table explains them.
fn break_it(bundle: Bundle, change: &str) -> Bundle {
    let words: Vec<&str> = change.trim().split(' ').collect();
    let json = |n: usize| serde_json::from_str::<Value>(&words[n..].join(" ")).unwrap();
    match words[0] {
        "set" => bundle.set(words[1], json(2)),
        "drop" => bundle.remove(words[1]),
        "file" => bundle.file(words[1], "x"),
        "link" => bundle.link(words[1], words[2]),
        "args" => bundle.args(&words[1..]),
        "bind" => bundle.bind(words[1], words[2], &words[3..]),
        "without" => bundle.without_namespace(words[1]),
        "namespace" => bundle.namespace(words[1]),
        "userns" => bundle.user_namespace(words[1].parse().unwrap(), words[2].parse().unwrap()),
        _ => panic!("{change}"),
    }
}

fn complaint(output: &crate::output::Output, pointer: &str, words: &[&str]) -> Option<String> {
    let lines: Vec<&str> = output.stderr.lines().collect();
    if output.end != crate::output::End::Code(1) {
        return Some(format!("ended with {:?}", output.end));
    }
    if !output.stdout.is_empty() {
        return Some("standard output is not empty".into());
    }
    let hint = lines.get(1).is_none_or(|line| line.starts_with("hint: "));
    if lines.is_empty() || lines.len() > 2 || !hint {
        return Some(format!("{} lines", lines.len()));
    }
    if lines[0].len() > 400 {
        return Some("too long".into());
    }
    if !lines[0].contains(&format!("({pointer})")) && !lines[0].contains(&format!("({pointer}/")) {
        return Some(format!("doesn't point at {pointer}"));
    }
    let line = lines[0].to_lowercase();
    let missing = words
        .iter()
        .find(|word| !line.contains(&word.to_lowercase()));
    missing.map(|word| format!("doesn't say {word:?}"))
}

fn broken_process(lab: &Lab) {
    all_refused(lab, "process");
}

fn broken_root_and_mounts(lab: &Lab) {
    all_refused(lab, "root and mounts");
}

fn broken_namespaces(lab: &Lab) {
    all_refused(lab, "namespaces");
    let map: Vec<Value> = (0..341)
        .map(|n| json!({ "containerID": n, "hostID": n, "size": 1 }))
        .collect();
    let bundle = lab
        .bundle()
        .user_namespace(0, 10)
        .set("/linux/uidMappings", map);
    lab.run(&bundle)
        .refused()
        .says("(/linux/uidMappings")
        .says("340");
}

fn broken_devices_and_resources(lab: &Lab) {
    all_refused(lab, "devices and resources");
}

fn broken_seccomp(lab: &Lab) {
    all_refused(lab, "seccomp");
}

fn broken_hooks_and_annotations(lab: &Lab) {
    all_refused(lab, "hooks and annotations");
}

/// The pointer, and the type that is there.
fn wrong_types_are_told_where(lab: &Lab) {
    all_refused(lab, "types");
}

fn broken_json_tells_line_and_column(lab: &Lab) {
    let good = "{\n  \"ociVersion\": \"1.0.0\",\n  \"hostname\": \"x\"\n}";
    let cases: [(String, &str); 7] = [
        (String::new(), "empty"),
        (
            good.replace("\"ociVersion\":", "\"ociVersion\""),
            "line 2 column 1",
        ),
        (good.replace("\"1.0.0\",", "\"1.0.0\""), "line 3"),
        (good.replace("\"x\"\n", "\"x\",\n"), "line 4"),
        (good.trim_end_matches('}').to_owned(), "line 3"),
        (format!("{good} x"), "line 4 column 3"),
        (good.replace("\"x\"", "\"\\q\""), "line 3"),
    ];
    for (text, place) in cases {
        let output = lab.run(&lab.bundle().raw(text));
        output.refused().says("config.json").says(place);
    }
    let not_utf8 = lab.bundle().raw(b"{ \"ociVersion\": \"\xff\" }".to_vec());
    lab.run(&not_utf8).refused().says("config.json");
    lab.run(&lab.bundle().raw("[]"))
        .refused()
        .says("config.json");
    lab.run(&lab.bundle().raw("null"))
        .refused()
        .says("config.json");
}

fn a_bundle_without_config_is_told(lab: &Lab) {
    let bundle = lab.bundle();
    let id = lab.id();
    bundle.write(&id);
    fs::remove_file(bundle.dir.join("config.json")).unwrap();
    let dir = bundle.dir.to_str().unwrap();
    let output = lab.runtime(["run", "--bundle", dir, &id]).run().code(1);
    assert!(output.stderr.contains("config.json"), "{output}");
    if lab.is_husk() {
        output
            .refused()
            .says("no such file or directory")
            .hints("spec");
    }
    fs::create_dir(bundle.dir.join("config.json")).unwrap();
    lab.runtime(["run", "--bundle", dir, &id]).run().code(1);
}

fn a_bundle_that_is_no_directory_is_told(lab: &Lab) {
    let file = lab.path("file");
    fs::write(&file, "").unwrap();
    for bundle in [file.to_str().unwrap(), "/no/such/bundle"] {
        let output = lab.runtime(["run", "--bundle", bundle, "x"]).run().code(1);
        assert!(output.stderr.contains(bundle), "{output}");
    }
}

fn unknown_keys_are_ignored(lab: &Lab) {
    let bundle = [
        "/unknown",
        "/process/unknown",
        "/linux/unknown",
        "/linux/resources/unknown",
        "/mounts/0/unknown",
        "/root/unknown",
        "/vm",
        "/windows",
    ]
    .iter()
    .fold(lab.bundle().payload("exit 3"), |bundle, pointer| {
        bundle.set(pointer, json!({ "a": [1] }))
    });
    let output = lab.run(&bundle).code(3);
    assert_eq!(output.stdout, "");
}

fn an_older_and_a_newer_minor_version_are_accepted(lab: &Lab) {
    for version in [
        "1.0.0",
        "1.0.0-rc5",
        "1.0.2-dev",
        "1.2.1",
        "1.3.0",
        "1.99.0",
        "1.3.0+dev",
    ] {
        lab.run(&lab.bundle().set("/ociVersion", version).payload("exit 3"))
            .code(3);
    }
}

fn a_misspelt_value_gets_a_hint(lab: &Lab) {
    let cases: [(&str, Value, &str); 5] = [
        ("/linux/namespaces/0/type", json!("netwrok"), "network"),
        (
            "/process/rlimits/0/type",
            json!("RLIMIT_NOFILES"),
            "RLIMIT_NOFILE",
        ),
        (
            "/linux/seccomp",
            json!({ "defaultAction": "SCMP_ACT_ALOW" }),
            "SCMP_ACT_ALLOW",
        ),
        ("/linux/rootfsPropagation", json!("rslve"), "rslave"),
        (
            "/mounts/-",
            json!({ "destination": "/tmp", "source": "/etc", "options": ["bind", "noexce"] }),
            "noexec",
        ),
    ];
    for (pointer, value, expected) in cases {
        lab.run(&lab.bundle().set(pointer, value))
            .refused()
            .hints(expected);
    }
}

fn control_characters_do_not_reach_the_terminal(lab: &Lab) {
    let evil = "a\u{1b}[2J\u{7}\nb\r\u{9b}";
    for pointer in [
        "/process/cwd",
        "/linux/rootfsPropagation",
        "/linux/namespaces/0/type",
        "/root/path",
    ] {
        let output = lab.run(&lab.bundle().set(pointer, evil)).code(1);
        let bad: Vec<char> = output
            .stderr
            .chars()
            .filter(|c| c.is_control() && *c != '\n')
            .collect();
        assert!(bad.is_empty(), "{pointer}: {bad:?}");
        output.refused();
    }
}

fn deep_nesting_is_refused_quickly(lab: &Lab) {
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let begin = std::time::Instant::now();
    lab.run(&lab.bundle().raw(deep))
        .refused()
        .says("config.json");
    assert!(begin.elapsed() < patience() / 5);
}

fn a_huge_config_is_refused_or_read_quickly(lab: &Lab) {
    let mut huge = b"{\"annotations\":{\"key\":\"".to_vec();
    huge.resize(100 << 20, b'x');
    huge.extend_from_slice(b"\"}}");
    let bundle = lab.bundle().raw(huge);
    let command = lab.run_with(&bundle, &[]);
    let begin = std::time::Instant::now();
    command.run().refused().says("config.json");
    assert!(begin.elapsed() < patience() / 5);
}

/// As the specification's own minimal example, with a cgroup of this suite.
fn a_minimal_configuration_runs(lab: &Lab) {
    let minimal = json!({ "ociVersion": "1.0.0", "root": { "path": "rootfs" },
        "process": { "args": ["/bin/payload", "exit", "3"], "cwd": "/" },
        "linux": { "namespaces": [{ "type": "mount" }] } });
    let id = lab.id();
    let mut minimal = minimal;
    minimal["linux"]["cgroupsPath"] = json!(format!("/{id}"));
    let bundle = lab.bundle().raw(minimal.to_string());
    lab.on_bundle("run", &bundle, &[], &id).run().code(3);
}
