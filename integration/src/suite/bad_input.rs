//! Input that is made to hurt: each is refused in a line, in two seconds of the processor's time and 64 MB
//! at most, and leaves nothing.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::symlink;
use std::time::Duration;

use serde_json::{Value, json};

use super::tests;
use crate::bundle::Bundle;
use crate::cost::measure;
use crate::lab::{Command, Lab, patience};
use crate::need::Need;
use crate::output::Refusal;

const HUSK: &[Need] = &[Need::Husk];

tests! {
    nul_bytes.needs(HUSK),
    control_characters.needs(HUSK),
    a_hundred_megabytes.needs(HUSK).seconds(120),
    just_small_enough_to_be_read.needs(HUSK).seconds(120),
    ten_thousand_levels.needs(HUSK),
    a_hundred_thousand_mounts.needs(HUSK).seconds(120),
    long_ids.needs(HUSK),
    long_strings.needs(HUSK),
    numbers_out_of_range.needs(HUSK).seconds(120),
    loops_of_links.needs(HUSK),
    documents_of_exec_and_update.needs(HUSK).seconds(120),
    documents_of_images_and_engines.needs(HUSK).seconds(120),
}

const TIME: Duration = Duration::from_secs(2);
const MEMORY: u64 = 64 << 20;

/// Runs what has to be refused, within bounds, and leaves nothing.
#[track_caller]
fn bounded(lab: &Lab, what: &str, command: Command) -> Refusal {
    let (output, cost) = measure(command, patience());
    assert!(cost.processor <= TIME, "{what}: {cost:?}\n{output}");
    assert!(cost.memory <= MEMORY, "{what}: {cost:?}\n{output}");
    let refusal = output.refused();
    if let Err(left) = lab.finish() {
        panic!("{what}: {left}");
    }
    refusal
}

/// By `create` and by `run`.
#[track_caller]
fn refused(lab: &Lab, what: &str, bundle: &Bundle, says: &str) {
    for command in ["create", "run"] {
        let command = lab.on_bundle(command, bundle, &[], &lab.id());
        bounded(lab, what, command).says(says);
    }
}

/// A config.json that is written piece by piece: in memory it would count for the runtime, too, which
/// begins as a copy of this process.
fn written<'a>(lab: &Lab, pieces: impl Iterator<Item = &'a str>) -> Bundle {
    let bundle = lab.bundle();
    let mut file = BufWriter::new(File::create(bundle.dir.join("config.json")).unwrap());
    for piece in pieces {
        file.write_all(piece.as_bytes()).unwrap();
    }
    file.flush().unwrap();
    bundle
}

#[track_caller]
fn refused_file(lab: &Lab, what: &str, bundle: &Bundle, says: &str) {
    for command in ["create", "run", "check"] {
        let dir = bundle.dir.to_str().unwrap();
        if command == "check" {
            let (output, cost) = measure(lab.runtime(["check", dir]), patience());
            assert!(
                cost.processor <= TIME && cost.memory <= MEMORY,
                "{what}: {cost:?}\n{output}"
            );
            let told = format!("{}{}", output.stdout, output.stderr);
            assert!(told.contains(says), "{what}: {says} isn't in {told}");
            assert!(told.len() < 64 << 10, "{what}: {} bytes", told.len());
            continue;
        }
        let command = lab.runtime([command, "--bundle", dir, &lab.id()]);
        bounded(lab, what, command).says(says);
    }
}

/// Everywhere a text goes to the kernel or into a file.
const TEXTS: [&str; 24] = [
    "/ociVersion",
    "/hostname",
    "/domainname",
    "/root/path",
    "/process/args/0",
    "/process/args/1",
    "/process/env/0",
    "/process/cwd",
    "/process/apparmorProfile",
    "/process/rlimits/0/type",
    "/process/capabilities/bounding/0",
    "/mounts/0/destination",
    "/mounts/0/source",
    "/mounts/0/type",
    "/mounts/1/options/0",
    "/linux/cgroupsPath",
    "/linux/namespaces/0/path",
    "/linux/sysctl/kernel.domainname",
    "/linux/maskedPaths/0",
    "/linux/readonlyPaths/0",
    "/linux/mountLabel",
    "/linux/rootfsPropagation",
    "/hooks/poststop/0/path",
    "/annotations/x",
];

fn with_text(lab: &Lab, pointer: &str, text: &str) -> Bundle {
    // What stands around it, where the base has nothing.
    let bundle = lab
        .bundle()
        .set("/hooks/poststop", json!([{ "path": "/bin/true" }]))
        .set("/annotations", json!({}))
        .set("/linux/sysctl", json!({}))
        .set("/linux/maskedPaths", json!([]))
        .set("/linux/readonlyPaths", json!([]))
        .set(
            "/process/rlimits",
            json!([{ "type": "RLIMIT_CORE", "soft": 0, "hard": 0 }]),
        )
        .payload("echo never");
    bundle.set(pointer, text)
}

fn nul_bytes(lab: &Lab) {
    for pointer in TEXTS {
        if pointer.contains("/capabilities/") {
            continue; // Names that nobody knows are left out, whatever they are.
        }
        let bundle = with_text(lab, pointer, "/a\0b");
        refused(lab, pointer, &bundle, pointer);
    }
    for pointer in ["/annotations/a\0b", "/linux/sysctl/net.a\0b"] {
        let bundle = with_text(lab, pointer, "x");
        refused(lab, pointer, &bundle, "NUL");
    }
    // Not as \u0000, but as it is.
    for text in ["\0", "{\0}", "{\"a\":\"\0\"}", "{}\0", "{\"a\":1\0}"] {
        refused(lab, text, &lab.bundle().raw(text), "config.json");
    }
}

/// Whatever is refused because of them, or for another reason, can be printed.
fn control_characters(lab: &Lab) {
    for pointer in TEXTS {
        let bundle = with_text(lab, pointer, "\u{1b}]0;x\u{7}\n\r\u{9b}2J\u{7f}");
        let (output, cost) = measure(lab.run_with(&bundle, &[]), patience());
        assert!(
            cost.processor <= TIME && cost.memory <= MEMORY,
            "{cost:?}\n{output}"
        );
        let bad = |c: char| c.is_control() && c != '\n';
        assert!(
            !output.stderr.contains(bad),
            "{pointer}: {:?}",
            output.stderr
        );
        lab.finish().unwrap();
    }
}

fn a_hundred_megabytes(lab: &Lab) {
    const MANY: usize = 100 << 10;
    let kilobyte = "x".repeat(1024);
    let string = ["{\"annotations\":{\"a\":\""]
        .into_iter()
        .chain(std::iter::repeat_n(kilobyte.as_str(), MANY));
    let bundle = written(lab, string.chain(["\"}}"]));
    refused_file(lab, "a string", &bundle, "larger than 16 MiB");
    for (what, unit) in [
        ("brackets", "[[[[[[[["),
        ("objects", "{\"a\":[]},"),
        ("blanks", "        "),
    ] {
        let bundle = written(lab, std::iter::repeat_n(unit, 100 << 20 >> 3));
        refused_file(lab, what, &bundle, "larger than 16 MiB");
    }
}

/// The largest that is read at all, and what makes the most of it.
fn just_small_enough_to_be_read(lab: &Lab) {
    const SIZE: usize = (16 << 20) - 1024;
    let head = r#"{"ociVersion":"1.3.0","root":{"path":"rootfs"},"process":{"cwd":"/","args":["#;
    for (what, before, unit, says) in [
        ("empty objects", "{\"a\":[", "{},", "values"),
        ("empty strings", head, "\"\",", "values"),
        ("brackets", "", "[", "values"),
        ("commas", "[", ",", "values"),
        ("strings in a row", "{\"a\":", "\"\"", "line 1 column"),
        ("escapes", "{\"a\":\"", "\\u0000", "line 1 column"),
        (
            "a string without end",
            "{\"a\":\"",
            "xxxxxxxx",
            "line 1 column",
        ),
        ("a number", "{\"a\":", "9", "line 1 column"),
        ("a key without end", "{\"", "k", "line 1 column"),
        ("blanks", "", " \n", "empty"),
    ] {
        let units = std::iter::repeat_n(unit, SIZE / unit.len());
        let bundle = written(lab, [before].into_iter().chain(units));
        refused_file(lab, what, &bundle, says);
    }
}

fn ten_thousand_levels(lab: &Lab) {
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":", "}]")] {
        let deep = format!("{}1{}", open.repeat(10_000), close.repeat(10_000));
        refused(lab, open, &lab.bundle().raw(deep.as_str()), "config.json");
        // Where something else is expected, and where nobody looks.
        for pointer in [
            "/annotations",
            "/process",
            "/mounts",
            "/linux",
            "/unknown",
            "/process/unknown",
        ] {
            let bundle = lab.bundle().payload("echo never").set(pointer, "DEEP");
            let text = serde_json::to_string(&bundle.config).unwrap();
            let bundle = bundle.raw(text.replace("\"DEEP\"", &deep));
            let says = match pointer.ends_with("unknown") {
                true => "nested deeper than 127 levels",
                false => "config.json",
            };
            refused(lab, pointer, &bundle, says);
        }
    }
}

fn a_hundred_thousand_mounts(lab: &Lab) {
    let head = r#"{"ociVersion":"1.3.0","root":{"path":"rootfs"},"process":{"args":["/bin/payload"],"cwd":"/"},
        "linux":{"namespaces":[{"type":"mount"},{"type":"user"}]},"mounts":["#;
    let of = |unit: &'static str, count| {
        [head]
            .into_iter()
            .chain(std::iter::repeat_n(unit, count))
            .chain(["{}]}"])
    };
    let tmpfs = r#"{"destination":"/tmp","type":"tmpfs","source":"tmpfs"},"#;
    refused_file(
        lab,
        "100,000 mounts",
        &written(lab, of(tmpfs, 100_000)),
        "values",
    );
    // As many as pass the count, each compared with those before.
    let bind = r#"{"destination":"a","source":"rootfs/b","options":["bind"]},"#;
    let bundle = written(lab, of(bind, 25_000));
    refused_file(lab, "25,000 bind mounts", &bundle, "mounts");
    let wrong = written(
        lab,
        of(r#"{"destination":"a","source":"rootfs/b"},"#, 30_000),
    );
    refused_file(lab, "30,000 wrong ones", &wrong, "mounts");
}

fn long_ids(lab: &Lab) {
    let bundle = lab.bundle().payload("echo never");
    bundle.write(&lab.id());
    let dir = bundle.dir.to_str().unwrap();
    for id in ["x".repeat(10_000), "../".repeat(3_333), "é".repeat(5_000)] {
        for command in ["create", "run"] {
            let command = lab.runtime([command, "--bundle", dir, &id]);
            bounded(lab, "a long id", command);
        }
        for command in [
            "state", "start", "kill", "delete", "pause", "resume", "ps", "events", "update",
        ] {
            bounded(lab, command, lab.runtime([command, &id]));
        }
    }
}

/// A name that is too long is the kernel's to refuse, or husk's: nothing of it is left either way.
fn long_strings(lab: &Lab) {
    for pointer in [
        "/hostname",
        "/root/path",
        "/process/cwd",
        "/mounts/0/destination",
        "/linux/cgroupsPath",
    ] {
        for text in [format!("/{}", "x".repeat(10_000)), "/x".repeat(5_000)] {
            refused(lab, pointer, &with_text(lab, pointer, &text), "");
        }
    }
    // Whether they are too many is the kernel's to say, when the program starts.
    let many = (0..4_000).map(|n| format!("K{n}={}", "v".repeat(2_000)));
    let bundle = lab.bundle().set("/process/env", many.collect::<Vec<_>>());
    let command = lab.run_with(&bundle, &[]);
    bounded(lab, "environment", command).says("argument list too long");
}

fn numbers_out_of_range(lab: &Lab) {
    let pointers = [
        "/process/user/uid",
        "/process/user/umask",
        "/process/oomScoreAdj",
        "/process/consoleSize/height",
        "/linux/resources/memory/limit",
        "/linux/resources/cpu/shares",
        "/linux/resources/pids/limit",
        "/linux/devices/0/major",
        "/linux/uidMappings/0/size",
        "/hooks/poststop/0/timeout",
    ];
    let numbers = [
        "-9223372036854775809",
        "18446744073709551616",
        "1e400",
        "-1e400",
        "1.5",
        "1e2",
        "-0.0",
        "340282366920938463463374607431768211456",
    ];
    for pointer in pointers {
        for number in numbers {
            let bundle = with_text(lab, "/annotations/x", "y")
                .set("/process/consoleSize", json!({ "height": 1, "width": 1 }))
                .set(
                    "/linux/devices",
                    json!([{ "type": "c", "path": "/dev/x", "major": 1, "minor": 1 }]),
                )
                .user_namespace(0, 1)
                .set(pointer, "NUMBER");
            let text = serde_json::to_string(&bundle.config)
                .unwrap()
                .replace("\"NUMBER\"", number);
            refused(lab, number, &bundle.raw(text), "config.json");
        }
    }
}

fn loops_of_links(lab: &Lab) {
    let around = lab.path("around");
    symlink(&around, &around).unwrap();
    let around = around.to_str().unwrap();
    const SAYS: &str = "too many levels of symbolic links";
    let bundle = || {
        lab.bundle()
            .payload("echo never")
            .link("loop", "loop")
            .link("far", "/far/../far")
    };
    for (what, bundle) in [
        ("root", bundle().set("/root/path", around)),
        ("source", bundle().bind(around, "/tmp", &["bind"])),
        (
            "source inside",
            bundle().bind(format!("{around}/x"), "/tmp", &["bind"]),
        ),
        ("destination", bundle().bind("/etc", "/loop", &["bind"])),
        (
            "below the destination",
            bundle().bind("/etc", "/far/a/b", &["bind"]),
        ),
        ("directory", bundle().set("/process/cwd", "/loop")),
        ("program", bundle().args(&["/loop"])),
        (
            "namespace",
            bundle().without_namespace("uts").join("uts", around),
        ),
    ] {
        refused(lab, what, &bundle, SAYS);
    }
    for (what, bundle) in [
        (
            "masked",
            bundle().set("/linux/maskedPaths", json!(["/loop"])),
        ),
        (
            "read-only",
            bundle().set("/linux/readonlyPaths", json!(["/far"])),
        ),
    ] {
        refused(lab, what, &bundle, "symbolic links");
    }
    let bundle = lab.bundle();
    symlink("config.json", bundle.dir.join("config.json")).unwrap();
    for command in ["create", "run"] {
        let command = lab.runtime([command, "--bundle", bundle.dir.to_str().unwrap(), &lab.id()]);
        bounded(lab, "config.json", command).says(SAYS);
    }
}

/// Both read a document of their own.
fn documents_of_exec_and_update(lab: &Lab) {
    let file = lab.path("document");
    let container = lab.start(&lab.bundle().payload("pause"));
    let mut documents: Vec<(String, &str)> = vec![
        (
            format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000)),
            "nested deeper",
        ),
        (format!("{{\"a\":[{}1]}}", "{},".repeat(300_000)), "values"),
        ("{\0}".into(), "NUL"),
        ("{\"pids\":{\"limit\":1e400},\"args\":1e400}".into(), ""),
        (String::new(), "empty"),
    ];
    documents.push((Value::Array(vec![json!({}); 10]).to_string(), ""));
    for (text, says) in documents {
        std::fs::write(&file, &text).unwrap();
        drop(text);
        let path = file.to_str().unwrap();
        for (command, option, code) in [("exec", "--process", 255), ("update", "--resources", 1)] {
            let (output, cost) = measure(
                lab.runtime([command, option, path, &container.id]),
                patience(),
            );
            assert!(
                cost.processor <= TIME && cost.memory <= MEMORY,
                "{command}: {cost:?}\n{output}"
            );
            let output = output.code(code);
            assert!(
                output.stderr.contains(says) && output.stderr.len() < 1_000,
                "{command}: {output}"
            );
        }
    }
    container.end();
}

/// An image's config comes from whoever made the image.
fn documents_of_images_and_engines(lab: &Lab) {
    let file = lab.path("document");
    let bundle = lab.path("spec");
    std::fs::create_dir(&bundle).unwrap();
    let filled = |unit: &str| unit.repeat(((16 << 20) - 1024) / unit.len());
    for (text, says) in [
        (format!("{{\"a\":[{}1]}}", filled("{},")), "values"),
        (
            format!("{{\"config\":{{\"Env\":[{}\"\"]}}}}", filled("\"\",")),
            "values",
        ),
        ("[".repeat(10_000), "recursion limit"),
        (filled("x"), "expected value"),
        ("x".repeat(17 << 20), "larger than 16 MiB"),
    ] {
        std::fs::write(&file, &text).unwrap();
        drop(text);
        let (file, bundle) = (file.to_str().unwrap(), bundle.to_str().unwrap());
        let image = ["spec", "--bundle", bundle, "--image-config", file];
        let profile = ["seccomp", "explain", file];
        for command in [&image[..], &profile[..]] {
            bounded(lab, command[0], lab.runtime(command.iter().copied())).says(says);
        }
        assert_eq!(std::fs::read_dir(bundle).unwrap().count(), 0);
    }
}
