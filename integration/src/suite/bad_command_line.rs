//! Broken command lines and identifiers: one line, status 1, nothing left.

use std::fs;

use super::tests;
use crate::lab::Lab;
use crate::need::Need;
use crate::output::End;

const HUSK: &[Need] = &[Need::Husk];

tests! {
    ids_that_are_no_ids_are_refused,
    an_id_never_leaves_the_root,
    missing_arguments_are_told,
    surplus_arguments_are_refused.needs(HUSK),
    unknown_options_and_commands_are_refused,
    a_misspelt_command_gets_a_hint.needs(HUSK),
    help_on_nothing_is_told_in_the_words_of_the_field.needs(HUSK),
    values_of_the_wrong_kind_are_refused.needs(HUSK),
    a_root_that_cannot_be_is_refused.needs(HUSK),
    a_read_only_root_gets_a_hint.needs(HUSK),
    a_log_that_cannot_be_opened_is_refused,
    a_foreign_directory_in_the_root_is_no_container,
    a_damaged_record_is_told_and_removed_by_force.needs(HUSK),
    standard_output_that_is_full_is_an_error.needs(HUSK),
}

/// `create`, `run` and all that take an id.
fn refused(lab: &Lab, args: &[&str]) -> String {
    let output = lab.runtime(args.iter().copied()).run();
    let code = if args[0] == "exec" { 255 } else { 1 };
    assert_eq!(output.end, End::Code(code), "{output}");
    if lab.is_husk() {
        let lines: Vec<&str> = output.stderr.lines().collect();
        let hint = lines.get(1).is_none_or(|line| line.starts_with("hint: "));
        assert!((1..=2).contains(&lines.len()) && hint, "{output}");
        assert_eq!(output.stdout, "", "{output}");
    }
    output.stderr
}

fn bad_ids() -> Vec<String> {
    let mut ids: Vec<String> = [
        "", ".", "..", "../x", "/x", "x/y", "x/", "a b", "a\tb", "a\nb", "ü", "a:b", "a,b", "a*",
        "~", "a@b", "a\\b", "a'b",
    ]
    .iter()
    .map(|id| (*id).to_owned())
    .collect();
    ids.push("x".repeat(10_000));
    ids
}

fn ids_that_are_no_ids_are_refused(lab: &Lab) {
    let bundle = lab.bundle().payload("echo never");
    bundle.write(&lab.id());
    let dir = bundle.dir.to_str().unwrap();
    for id in bad_ids() {
        for command in ["create", "run"] {
            let error = refused(lab, &[command, "--bundle", dir, &id]);
            assert!(error.len() < 500, "{} bytes", error.len());
        }
    }
}

fn an_id_never_leaves_the_root(lab: &Lab) {
    let outside = lab.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), "").unwrap();
    let name = outside.file_name().unwrap().to_str().unwrap();
    fs::create_dir_all(&lab.root).unwrap();
    for id in [
        &format!("../{name}"),
        &format!("./../{name}"),
        outside.to_str().unwrap(),
        "..",
        ".",
    ] {
        for command in ["state", "start", "kill", "delete"] {
            // What others say of it is theirs; what they do counts.
            match lab.is_husk() {
                true => drop(refused(lab, &[command, id])),
                false => drop(lab.runtime([command, id]).run()),
            }
        }
        lab.runtime(["delete", "--force", id]).run();
        assert!(
            outside.join("precious").exists() && lab.root.exists(),
            "{id}"
        );
    }
    std::os::unix::fs::symlink(&outside, lab.root.join("link")).unwrap();
    lab.runtime(["delete", "--force", "link"]).run();
    assert!(outside.join("precious").exists(), "followed a link");
    let _ = fs::remove_file(lab.root.join("link"));
}

fn missing_arguments_are_told(lab: &Lab) {
    for args in [
        &["create"][..],
        &["run"],
        &["start"],
        &["state"],
        &["kill"],
        &["delete"],
        &["exec"],
    ] {
        let output = lab.runtime(args.iter().copied()).run();
        assert!(matches!(output.end, End::Code(1 | 255)), "{output}");
        assert_ne!(output.stderr, "");
    }
    for args in [&["create", "--bundle"][..], &["run", "x", "--pid-file"]] {
        let output = lab.runtime(args.iter().copied()).run().code(1);
        assert_ne!(output.stderr, "");
    }
}

fn surplus_arguments_are_refused(lab: &Lab) {
    for args in [
        &["state", "a", "b"][..],
        &["start", "a", "b"],
        &["delete", "a", "b"],
        &["kill", "a", "9", "b"],
        &["list", "a"],
        &["create", "a", "b"],
    ] {
        refused(lab, args);
    }
}

fn unknown_options_and_commands_are_refused(lab: &Lab) {
    for args in [
        &["--no-such-option", "list"][..],
        &["list", "--no-such-option"],
        &["run", "--bundel", "x", "y"],
        &["nosuchcommand"],
        &["delete", "-x", "y"],
    ] {
        let output = lab.bare(args.iter().copied()).run();
        if args[0] == "nosuchcommand" && !lab.is_husk() {
            continue;
        }
        let output = output.code(1);
        if lab.is_husk() {
            let word = args
                .iter()
                .find(|a| a.contains("such") || a.starts_with('-'))
                .unwrap();
            assert!(
                output.stderr.contains(word.trim_start_matches('-')),
                "{output}"
            );
        }
    }
}

fn a_misspelt_command_gets_a_hint(lab: &Lab) {
    for (word, meant) in [
        ("creat", "create"),
        ("satrt", "start"),
        ("deleet", "delete"),
        ("ls", "list"),
    ] {
        let output = lab.bare([word, "x"]).run().code(1);
        if word != "ls" {
            assert!(output.stderr.contains(meant), "{output}");
        }
    }
}

fn help_on_nothing_is_told_in_the_words_of_the_field(lab: &Lab) {
    for args in [&["foo", "-h"][..], &["foo", "--help"], &["help", "foo"]] {
        let output = lab.bare(args.iter().copied()).run().code(1);
        assert!(
            output.stderr.contains("No help topic for 'foo'"),
            "{output}"
        );
    }
}

fn values_of_the_wrong_kind_are_refused(lab: &Lab) {
    for args in [
        &["--log-format", "xml", "list"][..],
        &["--log-level", "loud", "list"],
        &["--rootless", "perhaps", "list"],
        &["list", "--format", "xml"],
        &["run", "--preserve-fds", "many", "x"],
        &["run", "--preserve-fds", "-1", "x"],
        &["create", "--overlay=nfs:", "x"],
    ] {
        let output = lab.bare(args.iter().copied()).run();
        let refusal = output.refused();
        assert!(!refusal.line.is_empty());
    }
}

fn a_root_that_cannot_be_is_refused(lab: &Lab) {
    let file = lab.path("file");
    fs::write(&file, "").unwrap();
    let below = file.join("root");
    let bundle = lab.bundle().payload("exit 0");
    bundle.write(&lab.id());
    let dir = bundle.dir.to_str().unwrap();
    for root in ["/", "", file.to_str().unwrap(), below.to_str().unwrap()] {
        let output = lab
            .bare(["--root", root, "create", "--bundle", dir, "x"])
            .run();
        output.refused();
    }
}

fn a_read_only_root_gets_a_hint(lab: &Lab) {
    let root = lab.path("root");
    fs::create_dir(&root).unwrap();
    let bundle = lab.bundle().payload("exit 0");
    bundle.write(&lab.id());
    let (root, dir) = (root.to_str().unwrap(), bundle.dir.to_str().unwrap());
    let script = format!("mount -t tmpfs -o ro tmpfs {root} && exec \"$@\"");
    let output = lab
        .bare(["--root", root, "create", "--bundle", dir, "x"])
        .through(&["unshare", "-m", "/bin/sh", "-c", &script, "sh"])
        .run()
        .code(1);
    assert!(
        output
            .stderr
            .contains("read-only file system\nhint: --root DIR"),
        "{output}"
    );
}

fn a_log_that_cannot_be_opened_is_refused(lab: &Lab) {
    let output = lab
        .runtime(["list"])
        .global(&["--log", "/no/such/dir/log"])
        .run()
        .code(1);
    assert!(output.stderr.contains("/no/such/dir/log"), "{output}");
}

fn a_foreign_directory_in_the_root_is_no_container(lab: &Lab) {
    fs::create_dir_all(lab.root.join("foreign")).unwrap();
    fs::write(lab.root.join("file"), "").unwrap();
    let container = lab.create(&lab.bundle().payload("pause"));
    let ids = lab.runtime(["list", "-q"]).run().ok().stdout;
    assert!(ids.lines().any(|id| id == container.id), "{ids}");
    assert!(!ids.lines().any(|id| id == "file"), "{ids}");
    refused(lab, &["state", "foreign"]);
    container.force_delete();
    fs::remove_dir(lab.root.join("foreign")).unwrap();
    fs::remove_file(lab.root.join("file")).unwrap();
}

/// The disk was full, or somebody edited it.
fn a_damaged_record_is_told_and_removed_by_force(lab: &Lab) {
    for damage in ["", "{", "{}", "null", "\0\0\0\0"] {
        let container = lab.start(&lab.bundle().payload("pause"));
        container.pid();
        for entry in fs::read_dir(lab.root.join(&container.id))
            .unwrap()
            .flatten()
        {
            if entry.file_type().unwrap().is_file() {
                fs::write(entry.path(), damage).unwrap();
            }
        }
        let output = container.command("state", &[]).run().code(1);
        assert_ne!(output.stderr, "");
        container.force_delete();
        let _ = crate::cgroup::remove(&container.cgroup());
    }
}

fn standard_output_that_is_full_is_an_error(lab: &Lab) {
    let full = || {
        fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap()
    };
    let container = lab.create(&lab.bundle().payload("pause"));
    let output = container.command("state", &[]).stdout(full()).run().code(1);
    assert!(
        output.stderr.contains("no space left on device"),
        "{output}"
    );
    lab.runtime(["list"]).stdout(full()).run().code(1);
    container.force_delete();
}
