//! The built binary's door: statuses, streams and the log, which engines depend on.
//!
//! `RUNTIME` names the binary; without it the one in cargo's target directory is meant.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("RUNTIME") {
        return path.into();
    }
    // target/debug/deps/cli-… → target/debug/husk
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join("husk");
    assert!(path.exists(), "{} is missing: cargo build", path.display());
    path
}

fn husk(args: &[&str]) -> Output {
    Command::new(binary())
        .args(args)
        .env_remove("XDG_RUNTIME_DIR")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// A directory that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("husk-cli-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Scratch(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[track_caller]
fn refused(output: &Output, stderr: &str) {
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout), "");
    assert_eq!(text(&output.stderr), stderr);
}

#[test]
fn an_error_is_one_line_and_a_hint_on_stderr() {
    refused(
        &husk(&["crate", "c"]),
        "husk: unknown command \"crate\"\n\
         hint: did you mean create? `husk --help` lists options and commands\n",
    );
    refused(
        &husk(&["exec", "-u", "root", "c", "sh"]),
        "husk: exec: --user \"root\": want a number; names are not looked up\n\
         hint: `husk exec --help` lists its options\n",
    );
    refused(
        &husk(&["--root", "/nowhere", "update", "--memory", "1m", "c"]),
        "husk: container c: container does not exist\n",
    );
}

#[test]
fn every_lifecycle_command_needs_an_id() {
    for command in ["create", "start", "state", "kill", "delete", "run", "exec"] {
        let output = husk(&[command]);
        assert_eq!(output.status.code(), Some(1), "{command}");
        assert!(
            text(&output.stderr).contains("requires an argument"),
            "{command}"
        );
    }
}

/// containerd decodes a stream of objects, podman one object; the time must parse.
#[test]
fn json_log_gets_one_object_an_error_and_keeps_what_was_there() {
    let scratch = Scratch::new("json");
    let log = scratch.path("log.json");
    for run in 1..=2 {
        let output = husk(&[
            "--log",
            &log,
            "--log-format=json",
            "create",
            "--bundel",
            "x",
        ]);
        let stderr = "husk: create: unknown option --bundel\n\
            hint: did you mean --bundle? `husk create --help` lists its options\n";
        refused(&output, stderr);
        let content = fs::read_to_string(&log).unwrap();
        assert_eq!(content.lines().count(), run);
        let line = content.lines().last().unwrap();
        let start = "{\"level\":\"error\",\"msg\":\"create: unknown option --bundel\\nhint: \
            did you mean --bundle? `husk create --help` lists its options\",\"time\":\"2";
        assert!(line.starts_with(start), "{line}");
        assert!(line.ends_with("Z\"}"), "{line}");
        assert!(content.ends_with('\n'));
    }
    let mode = fs::metadata(&log).unwrap().permissions().mode();
    assert_eq!(mode & 0o7133, 0, "{mode:o}");
}

#[test]
fn text_log() {
    let scratch = Scratch::new("text");
    let log = scratch.path("log");
    husk(&["--log", &log, "state"]);
    let line = fs::read_to_string(&log).unwrap();
    assert!(line.starts_with("time=\"2"), "{line}");
    let end =
        "level=error msg=\"state: requires an argument: <ID>\\nhint: usage: husk state <ID>\"\n";
    assert!(line.ends_with(end), "{line}");
}

#[test]
fn a_log_that_cannot_be_written_hides_nothing() {
    let nowhere = "/proc/nowhere/log";
    refused(
        &husk(&["--log", nowhere, "list"]),
        "husk: open log file /proc/nowhere/log: no such file or directory\n",
    );
    let output = husk(&["--log", "/dev/full", "crate"]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = text(&output.stderr);
    assert!(stderr.starts_with("husk: unknown command \"crate\"\nhint: "));
    assert!(stderr.ends_with("husk: write log file /dev/full: no space left on device\n"));
}

#[test]
fn debug_goes_to_the_log_only_when_asked() {
    let scratch = Scratch::new("debug");
    let log = scratch.path("log");
    assert_eq!(husk(&["--log", &log, "features"]).status.code(), Some(0));
    assert_eq!(fs::read_to_string(&log).unwrap(), "");
    let output = husk(&["--debug", "--log", &log, "features"]);
    assert_eq!(text(&output.stderr), "");
    let line = fs::read_to_string(&log).unwrap();
    assert!(line.contains("level=debug msg=\"husk "), "{line}");
    let output = husk(&["--debug", "--log-format", "json", "features"]);
    assert!(text(&output.stderr).starts_with("{\"level\":\"debug\","));
}

/// CRI-O parses standard output and error together.
#[test]
fn features_prints_json_and_nothing_else() {
    let output = husk(&["features"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stderr), "");
    let stdout = text(&output.stdout);
    assert!(stdout.starts_with("{\n") && stdout.ends_with("}\n"));
    assert!(stdout.contains("\"ociVersionMin\": \"1.0.0\""));
    assert!(stdout.contains("\"ociVersionMax\": \"1.3.0\""));
}

#[test]
fn a_full_standard_output_is_an_error() {
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let output = Command::new(binary())
        .arg("features")
        .stdout(full)
        .output()
        .unwrap();
    refused(
        &output,
        "husk: write standard output: no space left on device\n",
    );
}

/// docker takes the word after `version` of the first line, and what follows `commit:`.
#[test]
fn version() {
    for option in ["--version", "-v", "-version"] {
        let output = husk(&[option]);
        assert_eq!(output.status.code(), Some(0));
        let stdout = text(&output.stdout);
        let mut lines = stdout.lines();
        assert!(lines.next().unwrap().starts_with("husk version "));
        assert!(lines.next().unwrap().starts_with("commit: "));
        assert_eq!(lines.next(), Some("spec: 1.3.0"));
    }
}

#[test]
fn spec_makes_the_file_once() {
    let scratch = Scratch::new("spec");
    let bundle = scratch.0.to_str().unwrap();
    let file = Path::new(bundle).join("config.json");
    assert_eq!(husk(&["spec", "-b", bundle]).status.code(), Some(0));
    fs::write(&file, "mine").unwrap();
    let output = husk(&["spec", "-b", bundle]);
    let stderr = format!(
        "husk: write {}: file exists\nhint: remove the file first, or give another --bundle\n",
        file.display()
    );
    refused(&output, &stderr);
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");

    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/proc/nowhere", &file).unwrap();
    assert_eq!(husk(&["spec", "-b", bundle]).status.code(), Some(1));

    let output = husk(&["spec", "-b", "/proc/nowhere"]);
    let stderr = "husk: write /proc/nowhere/config.json: no such file or directory\n\
        hint: --bundle must be an existing directory\n";
    refused(&output, stderr);
}
