//! What engines rely on without saying so: pid files, logs, words, exit codes. The number
//! of a contract is that of the list in docs where the engines' sources are quoted.

use std::fs;

use serde_json::{Value, json};

use super::tests;
use crate::lab::{Lab, eventually};
use crate::need::Need;
use crate::output::End;

tests! {
    pid_file_holds_digits_only,
    pid_file_is_replaced_not_written_into,
    the_pid_file_is_written_through_no_link.needs(&[Need::Husk]),
    exec_writes_a_pid_file_before_it_returns,
    pid_file_in_a_missing_directory_is_refused_and_leaves_nothing,
    the_log_gets_one_json_object_that_containerd_can_read,
    the_log_is_appended_to,
    the_log_is_one_object_for_podman_despite_warnings,
    nothing_is_logged_when_all_is_well,
    errors_go_to_the_log_and_to_standard_error,
    a_missing_interpreter_is_told_in_one_line.needs(&[Need::Husk]),
    an_error_of_start_is_told_by_start,
    text_log_format_is_text,
    debug_says_more.needs(&[Need::Husk]),
    missing_executable_has_the_words_for_127,
    non_executable_has_the_words_for_126,
    a_directory_over_a_file_keeps_the_words_of_the_kernel,
    single_dash_long_options_are_accepted.needs(&[Need::Husk]),
    options_with_equals_signs_and_after_the_id_are_accepted,
    version_has_its_lines,
    features_is_the_only_thing_on_standard_output.needs(&[Need::Husk]),
    exec_failure_of_the_runtime_is_255,
    a_failed_exec_leaves_the_container_running,
    exec_uses_what_create_saw_not_the_bundle,
    no_pivot_and_no_new_keyring_are_known,
    the_session_keyring_is_the_containers.needs(&[Need::Husk]),
    spec_writes_a_config_that_runs,
    spec_does_not_overwrite,
    help_is_help,
}

fn assert_pid_file(path: &std::path::Path, pid: i32) {
    assert_eq!(fs::read(path).unwrap(), pid.to_string().into_bytes());
}

fn pid_file_holds_digits_only(lab: &Lab) {
    let file = lab.path("pid");
    let container = lab.create_with(
        &lab.bundle().payload("pause"),
        &["--pid-file", file.to_str().unwrap()],
    );
    assert_pid_file(&file, container.pid());
    container.force_delete();
}

/// Somebody may watch the directory and read at once.
fn pid_file_is_replaced_not_written_into(lab: &Lab) {
    let dir = lab.path("dir");
    fs::create_dir(&dir).unwrap();
    let file = dir.join("pid");
    fs::write(&file, "99999999 and more than a pid").unwrap();
    let before = fs::File::open(&file).unwrap();
    let container = lab.create_with(
        &lab.bundle().payload("pause"),
        &["--pid-file", file.to_str().unwrap()],
    );
    assert_pid_file(&file, container.pid());
    let old = std::io::read_to_string(before).unwrap();
    assert_eq!(old, "99999999 and more than a pid", "written in place");
    let names: Vec<_> = fs::read_dir(&dir)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names.len(), 1, "{names:?}");
    container.force_delete();
}

fn exec_writes_a_pid_file_before_it_returns(lab: &Lab) {
    let container = lab.start(&lab.bundle().payload("pause"));
    let file = lab.path("pid");
    let options = ["--detach", "--pid-file", file.to_str().unwrap()];
    container
        .exec_with(&options, "/bin/payload until 15 9")
        .run()
        .ok();
    let text = fs::read_to_string(&file).unwrap();
    let pid: i32 = text.parse().unwrap_or_else(|_| panic!("{text:?}"));
    let words = || fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    // husk returns after execve, so that a failure of it can be told; runc before.
    let expected = "/bin/payload\x00until\x0015\x009\x00";
    assert!(lab.is_husk() || eventually(|| words() == expected));
    assert_eq!(words(), expected);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).unwrap();
    assert_eq!(crate::lab::wait_for_child(pid), End::Signal(9));
    container.end();
}

fn pid_file_in_a_missing_directory_is_refused_and_leaves_nothing(lab: &Lab) {
    let file = lab.path("missing").join("pid");
    let bundle = lab.bundle().payload("pause");
    for command in ["create", "run"] {
        let options = ["--pid-file", file.to_str().unwrap()];
        let output = lab
            .on_bundle(command, &bundle, &options, &lab.id())
            .run()
            .code(1);
        assert!(
            output
                .stderr
                .contains(file.parent().unwrap().to_str().unwrap()),
            "{output}"
        );
        assert!(
            output.stderr.contains("no such file or directory"),
            "{output}"
        );
    }
}

/// The objects of a log file, as containerd decodes them.
fn log_of(path: &std::path::Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    serde_json::Deserializer::from_str(&text)
        .into_iter()
        .map(|v| v.unwrap())
        .collect()
}

fn assert_rfc3339(time: &Value) {
    let time = time.as_str().unwrap();
    let shape: String = time
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    assert!(shape.starts_with("0000-00-00T00:00:00"), "{time}");
    let rest = shape[19..].trim_start_matches(['.', '0']);
    assert!(
        rest == "Z" || rest == "+00:00" || rest.starts_with(['+', '-']),
        "{time}"
    );
}

fn the_log_gets_one_json_object_that_containerd_can_read(lab: &Lab) {
    let log = lab.path("log");
    let command = lab.runtime(["state", "nobody"]);
    let output = command
        .global(&["--log", log.to_str().unwrap(), "--log-format", "json"])
        .run()
        .code(1);
    let objects = log_of(&log);
    assert_eq!(objects.len(), 1, "{objects:?}");
    assert_eq!(objects[0]["level"], "error");
    let message = objects[0]["msg"].as_str().unwrap();
    assert!(message.contains("does not exist"), "{message}");
    assert_rfc3339(&objects[0]["time"]);
    assert!(output.stderr.contains("does not exist"), "{output}");
    assert_eq!(fs::read_to_string(&log).unwrap().matches('\n').count(), 1);
}

fn the_log_is_appended_to(lab: &Lab) {
    let log = lab.path("log");
    for id in ["first", "second"] {
        let globals = ["--log", log.to_str().unwrap(), "--log-format=json"];
        lab.runtime(["state", id]).global(&globals).run().code(1);
    }
    let objects = log_of(&log);
    assert_eq!(objects.len(), 2);
    assert_eq!(objects[1]["level"], "error");
}

fn the_log_is_one_object_for_podman_despite_warnings(lab: &Lab) {
    let log = lab.path("log");
    let bundle = lab
        .bundle()
        .capabilities(&["CAP_NO_SUCH_THING"])
        .args(&["/no/such/program"]);
    let command = lab.on_bundle("create", &bundle, &[], &lab.id());
    let globals = ["--log", log.to_str().unwrap(), "--log-format", "json"];
    command.global(&globals).run().code(1);
    if !lab.is_husk() {
        return;
    }
    let text = fs::read_to_string(&log).unwrap();
    let object: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let message = object["msg"].as_str().unwrap();
    assert!(message.contains("no such file or directory"), "{message}");
}

fn nothing_is_logged_when_all_is_well(lab: &Lab) {
    let log = lab.path("log");
    let globals = ["--log", log.to_str().unwrap(), "--log-format", "json"];
    let bundle = lab.bundle().payload("exit 0");
    let output = lab.run_with(&bundle, &[]).global(&globals).run().ok();
    assert_eq!(fs::read_to_string(&log).unwrap_or_default(), "");
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", ""));
}

fn errors_go_to_the_log_and_to_standard_error(lab: &Lab) {
    let log = lab.path("log");
    let bundle = lab.bundle().args(&["/no/such/program"]);
    let globals = ["--log", log.to_str().unwrap(), "--log-format", "json"];
    let command = lab
        .on_bundle("create", &bundle, &[], &lab.id())
        .global(&globals);
    let output = command.run().code(1);
    let message = log_of(&log).pop().unwrap()["msg"]
        .as_str()
        .unwrap()
        .to_owned();
    for text in [&message, &output.stderr] {
        assert!(
            text.contains("/no/such/program") && text.contains("no such file"),
            "{text}"
        );
    }
}

/// In one line, with these words side by side: runc's suite looks for them.
fn a_missing_interpreter_is_told_in_one_line(lab: &Lab) {
    let bundle = lab
        .bundle()
        .executable("run.sh", "#!/no/such/interpreter x\n");
    let words = "exec /run.sh: no such file or directory";
    let output = lab.run(&bundle.another().args(&["/run.sh"]));
    assert_eq!(output.stderr.lines().count(), 1, "{output}");
    assert!(output.code(1).stderr.contains(words));
    let container = lab.start(&bundle.payload("pause"));
    let output = container.exec("/run.sh").code(255);
    assert_eq!(output.stderr.lines().count(), 1, "{output}");
    assert!(output.stderr.contains(words), "{output}");
    container.end();
}

/// What only execve sees.
fn an_error_of_start_is_told_by_start(lab: &Lab) {
    let log = lab.path("log");
    let elf = "\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0";
    let bundle = lab
        .bundle()
        .executable("bin/broken", elf)
        .args(&["/bin/broken"]);
    let id = lab.id();
    let globals = ["--log", log.to_str().unwrap(), "--log-format", "json"];
    let created = lab
        .on_bundle("create", &bundle, &[], &id)
        .global(&globals)
        .run();
    if created.end == End::Code(0) {
        let started = lab.runtime(["start", &id]).global(&globals).run();
        if lab.is_husk() {
            started.refused().says("exec format error");
        }
        lab.runtime(["delete", "--force", &id]).run().ok();
    }
    if lab.is_husk() {
        let objects = log_of(&log);
        assert!(
            objects[0]["msg"]
                .as_str()
                .unwrap()
                .contains("exec format error"),
            "{objects:?}"
        );
    }
}

fn text_log_format_is_text(lab: &Lab) {
    let log = lab.path("log");
    let globals = ["--log", log.to_str().unwrap()];
    lab.runtime(["state", "nobody"])
        .global(&globals)
        .run()
        .code(1);
    let text = fs::read_to_string(&log).unwrap();
    assert!(
        text.contains("level=error") && text.contains("does not exist"),
        "{text}"
    );
}

fn debug_says_more(lab: &Lab) {
    let log = lab.path("log");
    let globals = [
        "--debug",
        "--log",
        log.to_str().unwrap(),
        "--log-format",
        "json",
    ];
    let bundle = lab.bundle().payload("exit 0");
    let output = lab.run_with(&bundle, &[]).global(&globals).run().ok();
    assert_eq!(output.stderr, "");
    let objects = log_of(&log);
    let said = |word: &str| {
        objects
            .iter()
            .any(|o| o["level"] == "debug" && o["msg"].as_str().unwrap().contains(word))
    };
    // The container's process has its word in it.
    assert!(said("nsexec started"), "{objects:?}");
    assert!(said("child process in init()"), "{objects:?}");
    // Without a file it is for standard error, and the program's own output stays apart.
    let output = lab.run_with(&bundle, &[]).global(&["--debug"]).run().ok();
    assert!(output.stderr.contains("level=debug msg="), "{output}");
    assert!(
        output.stderr.contains("child process in init()"),
        "{output}"
    );
    assert_eq!(output.stdout, "");
    let container = lab.start(&bundle.payload("pause"));
    let exec = container.exec_with(&[], "/bin/payload exit 0");
    let exec = exec.global(&["--debug"]).run().ok();
    for words in [
        "nsexec container setup",
        "child process in init()",
        "setns_init: about to exec",
    ] {
        assert!(exec.stderr.contains(words), "{exec}");
    }
    container.end();
}

fn missing_executable_has_the_words_for_127(lab: &Lab) {
    for program in ["missing", "/bin/missing", "./missing"] {
        let bundle = lab.bundle().args(&[program]);
        let output = lab
            .on_bundle("create", &bundle, &[], &lab.id())
            .run()
            .code(1);
        let words = ["executable file not found", "no such file or directory"];
        assert!(words.iter().any(|w| output.stderr.contains(w)), "{output}");
    }
}

fn non_executable_has_the_words_for_126(lab: &Lab) {
    let bundle = lab.bundle().file("etc/text", "x").args(&["/etc/text"]);
    let output = lab
        .on_bundle("create", &bundle, &[], &lab.id())
        .run()
        .code(1);
    assert!(output.stderr.contains("permission denied"), "{output}");
}

fn a_directory_over_a_file_keeps_the_words_of_the_kernel(lab: &Lab) {
    let dir = lab.path("dir");
    fs::create_dir(&dir).unwrap();
    let file = lab.path("file");
    fs::write(&file, "").unwrap();
    let bundle = lab
        .bundle()
        .file("etc/file", "")
        .bind(&dir, "/etc/file", &["bind"]);
    let output = lab.run(&bundle).code(1);
    assert!(output.stderr.contains("not a directory"), "{output}");
    let bundle = lab.bundle().bind(&file, "/etc", &["bind"]);
    let output = lab.run(&bundle).code(1);
    let words = ["not a directory", "is a directory"];
    assert!(words.iter().any(|w| output.stderr.contains(w)), "{output}");
}

/// As go-runc and people's scripts write them.
fn single_dash_long_options_are_accepted(lab: &Lab) {
    let bundle = lab.bundle().payload("exit 3");
    let id = lab.id();
    bundle.write(&id);
    let (root, dir) = (lab.root.to_str().unwrap(), bundle.dir.to_str().unwrap());
    lab.bare(["-root", root, "run", "-no-subreaper", "-bundle", dir, &id])
        .run()
        .code(3);
    lab.bare([&format!("-root={root}"), "delete", "-force", &id])
        .run()
        .ok();
}

fn options_with_equals_signs_and_after_the_id_are_accepted(lab: &Lab) {
    let bundle = lab.bundle().payload("exit 3");
    let id = lab.id();
    bundle.write(&id);
    let dir = bundle.dir.to_str().unwrap();
    lab.runtime(["run", &format!("--bundle={dir}"), &id])
        .run()
        .code(3);
    if lab.is_husk() {
        lab.runtime(["run", &id, "--bundle", dir]).run().code(3);
        lab.runtime(["run", &id, "-b", dir]).run().code(3);
    }
}

fn version_has_its_lines(lab: &Lab) {
    let output = lab.bare(["--version"]).run().ok();
    let lines: Vec<&str> = output.stdout.lines().collect();
    let words: Vec<&str> = lines[0].split(' ').collect();
    assert_eq!(words[1], "version", "{output}");
    assert!(
        words[2].chars().next().unwrap().is_ascii_digit(),
        "{output}"
    );
    assert!(
        lines.iter().any(|line| line.starts_with("spec: 1.")),
        "{output}"
    );
    if lab.is_husk() {
        assert_eq!(words[0], "husk");
        assert!(
            lines.iter().any(|line| line.starts_with("commit: ")),
            "{output}"
        );
        assert_eq!(lab.bare(["-v"]).run().ok().stdout, output.stdout);
    }
}

fn features_is_the_only_thing_on_standard_output(lab: &Lab) {
    let output = lab.bare(["features"]).run().ok();
    assert_eq!(output.stderr, "");
    let features = output.json();
    for key in ["ociVersionMin", "ociVersionMax"] {
        assert!(features[key].as_str().unwrap().starts_with("1."), "{key}");
    }
    assert_eq!(features["hooks"].as_array().unwrap().len(), 6);
    assert!(features["linux"]["namespaces"].as_array().unwrap().len() >= 7);
    assert_eq!(features["linux"]["cgroup"]["v2"], true);
    assert_eq!(features["linux"]["cgroup"]["v1"], false);
}

fn exec_failure_of_the_runtime_is_255(lab: &Lab) {
    let container = lab.start(&lab.bundle().payload("pause"));
    let output = container.exec("/no/such/program").code(255);
    assert!(
        output.stderr.contains("no such file or directory"),
        "{output}"
    );
    container.exec("missing").code(255);
    let output = lab
        .runtime(["exec", "nobody", "/bin/payload"])
        .run()
        .code(255);
    assert!(output.stderr.contains("does not exist"), "{output}");
    container.end();
}

fn a_failed_exec_leaves_the_container_running(lab: &Lab) {
    let container = lab.start(&lab.bundle().payload("pause"));
    container.exec("/no/such/program").code(255);
    container
        .exec_with(&["--cwd", "/nowhere/at/all"], "/bin/payload exit 0")
        .run();
    container
        .exec_with(&["--user", "x"], "/bin/payload exit 0")
        .run();
    assert_eq!(container.status(), "running");
    let procs = || crate::cgroup::processes(&container.cgroup());
    assert!(eventually(|| procs().len() == 1), "{:?}", procs());
    container.end();
}

fn exec_uses_what_create_saw_not_the_bundle(lab: &Lab) {
    let bundle = lab
        .bundle()
        .set("/process/env", json!(["WHEN=create", "HOME=/"]));
    let container = lab.start(&bundle.payload("pause"));
    let dir = container.state()["bundle"].as_str().unwrap().to_owned();
    let file = std::path::Path::new(&dir).join("config.json");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("WHEN=create", "WHEN=later")).unwrap();
    if lab.is_husk() {
        let facts = container.ask("facts").remove(0);
        assert!(
            facts["env"]
                .as_array()
                .unwrap()
                .contains(&json!(["WHEN", "create"]))
        );
    }
    container.end();
}

fn no_pivot_and_no_new_keyring_are_known(lab: &Lab) {
    let bundle = lab.bundle().payload("exit 3");
    lab.run_with(&bundle, &["--no-new-keyring"]).run().code(3);
    lab.run_with(&bundle, &["--no-pivot"]).run().code(3);
}

/// The caller's keys stay his; `exec` enters the container's keyring and makes none.
fn the_session_keyring_is_the_containers(lab: &Lab) {
    if !fs::exists("/proc/keys").unwrap() {
        crate::runner::skip("this kernel has no keyrings");
    }
    let bundle = lab.bundle().set("/linux/maskedPaths", json!([]));
    let keyrings = |told: &Value, id: &str| {
        let name = format!("_ses.{id}:");
        let lines = told.as_str().unwrap().lines();
        lines.filter(|line| line.contains(&name)).count()
    };
    let container = lab.start(&bundle.another().payload("cat /proc/keys -- pause"));
    let told = container.wait_for_lines(1);
    assert_eq!(keyrings(&told[0], &container.id), 1, "{told:?}");
    let inside = container.exec("/bin/payload cat /proc/keys").ok().json();
    assert_eq!(keyrings(&inside, &container.id), 1, "{inside}");
    container.end();
    let bundle = bundle.payload("cat /proc/keys");
    let id = lab.id();
    let without = lab.on_bundle("run", &bundle, &["--no-new-keyring"], &id);
    assert_eq!(keyrings(&without.run().ok().json(), &id), 0);
}

fn spec_writes_a_config_that_runs(lab: &Lab) {
    let bundle = lab.bundle();
    lab.bare(["spec"]).cwd(&bundle.dir).run().ok();
    let text = fs::read_to_string(bundle.dir.join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(config["process"]["args"], json!(["sh"]));
    assert_eq!(config["root"]["path"], "rootfs");
    config["process"]["args"] = json!(["/bin/payload", "exit", "6"]);
    config["process"]["terminal"] = json!(false);
    let bundle = bundle.raw(config.to_string());
    let id = lab.id();
    lab.on_bundle("run", &bundle, &[], &id).run().code(6);
    let other = lab.bundle();
    lab.bare(["spec", "--bundle", other.dir.to_str().unwrap()])
        .run()
        .ok();
    assert_eq!(
        fs::read_to_string(other.dir.join("config.json")).unwrap(),
        text
    );
}

fn spec_does_not_overwrite(lab: &Lab) {
    let dir = lab.path("dir");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("config.json"), "mine").unwrap();
    let output = lab
        .bare(["spec", "--bundle", dir.to_str().unwrap()])
        .run()
        .code(1);
    assert!(output.stderr.contains("exist"), "{output}");
    assert_eq!(fs::read_to_string(dir.join("config.json")).unwrap(), "mine");
}

fn help_is_help(lab: &Lab) {
    for args in [
        &["--help"][..],
        &["create", "--help"],
        &["run", "-h"],
        &["help"],
    ] {
        let output = lab.bare(args).run().ok();
        assert!(output.stdout.to_lowercase().contains("usage"), "{output}");
        assert_eq!(output.stderr, "");
    }
}

/// In a directory where others may write, who know what husk calls things.
fn the_pid_file_is_written_through_no_link(lab: &Lab) {
    let dir = lab.path("pids");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("canary"), "canary").unwrap();
    for name in ["pid", ".pid"] {
        std::os::unix::fs::symlink("canary", dir.join(name)).unwrap();
    }
    let file = dir.join("pid");
    let options = ["--pid-file", file.to_str().unwrap()];
    let container = lab.create_with(&lab.bundle().payload("pause"), &options);
    assert_pid_file(&file, container.pid());
    assert!(!fs::symlink_metadata(&file).unwrap().is_symlink());
    let canary = fs::read_to_string(dir.join("canary")).unwrap();
    assert_eq!(canary, "canary");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 3);
    container.end();
}
