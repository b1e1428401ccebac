//! Terminals: a person's own in the foreground, and a console socket for engines.

use serde_json::json;

use super::tests;
use crate::bundle::Bundle;
use crate::lab::{Lab, eventually};
use crate::output::End;
use crate::pty::{ConsoleSocket, Pty};

tests! {
    a_foreground_terminal_is_the_containers_controlling_one,
    the_persons_terminal_is_raw_meanwhile_and_as_before_afterwards,
    what_is_typed_arrives_and_what_is_said_is_seen,
    control_c_reaches_the_container_not_the_runtime,
    resizing_reaches_the_container,
    the_exit_status_comes_through_a_terminal,
    output_has_no_carriage_returns_added,
    a_signal_to_the_runtime_is_forwarded,
    without_a_terminal_signals_are_forwarded_too,
    console_socket_gets_one_master_by_its_name,
    the_console_is_dev_console_and_of_its_own_devpts,
    console_size_is_set,
    detached_run_with_a_console_socket,
    the_end_of_the_container_hangs_the_master_up,
    a_terminal_belongs_to_its_user,
    exec_with_a_terminal_in_the_foreground,
    exec_tty_with_a_console_socket,
    exec_without_tty_has_none,
    terminal_without_a_console_socket_is_refused_for_create,
    console_socket_without_a_terminal_is_refused,
    a_console_socket_that_is_missing_or_too_long_is_refused,
    a_foreground_terminal_needs_a_terminal,
    a_huge_output_arrives_whole,
}

fn with_terminal(lab: &Lab, words: &str) -> Bundle {
    lab.bundle().set("/process/terminal", true).payload(words)
}

fn a_foreground_terminal_is_the_containers_controlling_one(lab: &Lab) {
    let mut pty = Pty::new(30, 90);
    let bundle = with_terminal(lab, "facts -- open /dev/tty rw -- ready");
    let mut run = pty.spawn(lab.run_with(&bundle, &[]));
    run.wait().ok();
    let seen = pty.wait_for("\n\"ready\"").to_owned();
    let lines = crate::output::lines(&seen, &seen);
    assert_eq!(lines[0]["tty"][0], json!({ "rows": 30, "cols": 90 }));
    assert!(
        lines[0]["tty"]
            .as_array()
            .unwrap()
            .iter()
            .all(|tty| !tty.is_null())
    );
    assert!(
        lines[0]["controlling_tty"].as_i64() == lines[0]["pgid"].as_i64(),
        "{}",
        lines[0]
    );
    assert_eq!(lines[1], true);
}

fn the_persons_terminal_is_raw_meanwhile_and_as_before_afterwards(lab: &Lab) {
    let mut pty = Pty::new(24, 80);
    let bundle = with_terminal(lab, "ready -- read-line");
    assert!(!pty.is_raw());
    let mut run = pty.spawn(lab.run_with(&bundle, &[]));
    pty.wait_for("ready");
    assert!(eventually(|| pty.is_raw()));
    pty.type_text("x\n");
    run.wait().ok();
    assert!(!pty.is_raw());
}

fn what_is_typed_arrives_and_what_is_said_is_seen(lab: &Lab) {
    let mut pty = Pty::new(24, 80);
    let bundle = with_terminal(lab, "ready -- read-line -- echo-error seen-as-well");
    let mut run = pty.spawn(lab.run_with(&bundle, &[]));
    pty.wait_for("ready");
    pty.type_text("typed\n");
    pty.wait_for("\"typed\\n\"");
    pty.wait_for("seen-as-well");
    run.wait().ok();
}

fn control_c_reaches_the_container_not_the_runtime(lab: &Lab) {
    let mut pty = Pty::new(24, 80);
    let bundle = with_terminal(lab, "until 2 42");
    let mut run = pty.spawn(lab.run_with(&bundle, &[]));
    pty.wait_for("ready");
    assert!(eventually(|| pty.is_raw()));
    pty.type_text("\x03");
    run.wait().code(42);
}

fn resizing_reaches_the_container(lab: &Lab) {
    let mut pty = Pty::new(24, 80);
    let bundle = with_terminal(lab, "resized 50");
    let mut run = pty.spawn(lab.run_with(&bundle, &[]));
    pty.wait_for("ready");
    assert!(eventually(|| pty.is_raw()));
    pty.resize(50, 133);
    // The kernel tells the foreground process group of the person's terminal.
    pty.wait_for("{\"cols\":133,\"rows\":50}");
    run.wait().ok();
}

fn the_exit_status_comes_through_a_terminal(lab: &Lab) {
    for code in [0, 7] {
        let pty = Pty::new(24, 80);
        let bundle = with_terminal(lab, &format!("exit {code}"));
        pty.spawn(lab.run_with(&bundle, &[])).wait().code(code);
    }
    let pty = Pty::new(24, 80);
    let bundle = with_terminal(lab, "signal 9").without_namespace("pid");
    pty.spawn(lab.run_with(&bundle, &[])).wait().code(137);
}

/// runc clears ONLCR, and scripts compare lines with what they expect.
fn output_has_no_carriage_returns_added(lab: &Lab) {
    let mut pty = Pty::new(24, 80);
    let bundle = with_terminal(lab, "echo one -- echo two");
    // Not through the test's own terminal, which would add them: the runtime's output is a file.
    let command = lab.run_with(&bundle, &[]);
    let mut run = pty.spawn(command);
    run.wait().ok();
    pty.wait_for("two");
    assert!(pty.seen().contains("one"), "{:?}", pty.seen());
    assert!(!pty.seen().contains("\r\r\n"), "{:?}", pty.seen());
}

fn a_signal_to_the_runtime_is_forwarded(lab: &Lab) {
    let mut pty = Pty::new(24, 80);
    let bundle = with_terminal(lab, "until 15 43");
    let mut run = pty.spawn(lab.run_with(&bundle, &[]));
    pty.wait_for("ready");
    signal(run.pid(), nix::sys::signal::SIGTERM);
    run.wait().code(43);
}

fn without_a_terminal_signals_are_forwarded_too(lab: &Lab) {
    use nix::sys::signal::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
    for sent in [SIGTERM, SIGINT, SIGHUP, SIGUSR1] {
        let bundle = lab.bundle().payload(&format!("until {} 44", sent as i32));
        let mut run = lab.run_with(&bundle, &[]).spawn();
        assert!(eventually(|| run.stdout().contains("ready")));
        signal(run.pid(), sent);
        run.wait().code(44);
    }
}

fn signal(pid: i32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
}

fn socket(lab: &Lab) -> ConsoleSocket {
    // A socket's path has room for 107 bytes, less than the name of a test's directory takes.
    ConsoleSocket::new(&std::path::PathBuf::from(format!("/run/{}", lab.id())))
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.path());
    }
}

fn console_socket_gets_one_master_by_its_name(lab: &Lab) {
    let socket = socket(lab);
    let bundle = with_terminal(lab, "ready -- read-line");
    let container = lab.create_with(&bundle, &["--console-socket", socket.path()]);
    let (mut pty, name) = socket.receive();
    assert!(name.starts_with('/') && name.contains("pt"), "{name:?}");
    container.start();
    pty.wait_for("ready");
    pty.type_text("typed\n");
    pty.wait_for("\"typed\\n\"");
    assert_eq!(container.wait(), End::Code(0));
    container.delete();
}

fn the_console_is_dev_console_and_of_its_own_devpts(lab: &Lab) {
    let socket = socket(lab);
    let bundle = with_terminal(
        lab,
        "stat /dev/console -- readlink /proc/self/fd/1 -- stat /dev/pts/0 -- facts -- pause",
    );
    let container = lab.create_with(&bundle, &["--console-socket", socket.path()]);
    let (mut pty, _) = socket.receive();
    container.start();
    let seen = pty.wait_for("\"umask\"").to_owned();
    let lines: Vec<serde_json::Value> = seen
        .lines()
        .take(3)
        .map(|l| serde_json::from_str(l.trim()).unwrap())
        .collect();
    assert_eq!(lines[0]["type"], "char");
    assert_eq!(
        (&lines[0]["major"], &lines[0]["minor"]),
        (&json!(136), &json!(0))
    );
    assert!(
        ["/dev/pts/0", "/dev/console"].contains(&lines[1].as_str().unwrap()),
        "{}",
        lines[1]
    );
    assert_eq!(lines[2]["type"], "char");
    container.end();
}

fn console_size_is_set(lab: &Lab) {
    let socket = socket(lab);
    let bundle = with_terminal(lab, "facts -- pause").set(
        "/process/consoleSize",
        json!({ "height": 41, "width": 141 }),
    );
    let container = lab.create_with(&bundle, &["--console-socket", socket.path()]);
    let (mut pty, _) = socket.receive();
    container.start();
    pty.wait_for("{\"cols\":141,\"rows\":41}");
    container.end();
}

fn detached_run_with_a_console_socket(lab: &Lab) {
    let socket = socket(lab);
    let id = lab.id();
    let bundle = with_terminal(lab, "ready -- read-line");
    let options = ["--detach", "--console-socket", socket.path()];
    lab.on_bundle("run", &bundle, &options, &id).run().ok();
    let (mut pty, _) = socket.receive();
    pty.wait_for("ready");
    pty.type_text("typed\n");
    pty.wait_for("\"typed\\n\"");
    lab.runtime(["delete", "--force", &id]).run().ok();
}

/// Nobody else keeps the slave open.
fn the_end_of_the_container_hangs_the_master_up(lab: &Lab) {
    let socket = socket(lab);
    let bundle = with_terminal(lab, "ready -- pause");
    let container = lab.create_with(&bundle, &["--console-socket", socket.path()]);
    let (mut pty, _) = socket.receive();
    container.start();
    pty.wait_for("ready");
    container.kill("KILL");
    container.wait();
    assert!(
        eventually(|| pty.is_hung_up()),
        "somebody keeps the terminal"
    );
    container.delete();
}

fn a_terminal_belongs_to_its_user(lab: &Lab) {
    let socket = socket(lab);
    let bundle = with_terminal(
        lab,
        "stat-target /proc/self/fd/0 -- open /dev/console rw -- ready -- pause",
    )
    .set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    let container = lab.create_with(&bundle, &["--console-socket", socket.path()]);
    let (mut pty, _) = socket.receive();
    container.start();
    let seen = pty.wait_for("ready").to_owned();
    let lines = crate::output::lines(&seen, &seen);
    assert_eq!(lines[0]["uid"], 1000, "{}", lines[0]);
    assert_eq!(lines[1], true);
    container.end();
}

fn exec_with_a_terminal_in_the_foreground(lab: &Lab) {
    let container = lab.start(&lab.bundle().payload("pause"));
    let mut pty = Pty::new(33, 99);
    let exec = container.exec_with(
        &["--tty"],
        "/bin/payload facts -- ready -- read-line -- exit 5",
    );
    let mut running = pty.spawn(exec);
    pty.wait_for("{\"cols\":99,\"rows\":33}");
    pty.wait_for("ready");
    assert!(eventually(|| pty.is_raw()));
    pty.type_text("x\n");
    running.wait().code(5);
    assert!(!pty.is_raw());
    container.end();
}

fn exec_tty_with_a_console_socket(lab: &Lab) {
    let container = lab.start(&lab.bundle().payload("pause"));
    let socket = socket(lab);
    let options = ["--tty", "--detach", "--console-socket", socket.path()];
    container
        .exec_with(&options, "/bin/payload ready -- read-line -- pause")
        .run()
        .ok();
    let (mut pty, _) = socket.receive();
    pty.wait_for("ready");
    pty.type_text("typed\n");
    pty.wait_for("\"typed\\n\"");
    container.end();
}

fn exec_without_tty_has_none(lab: &Lab) {
    let socket = socket(lab);
    let bundle = with_terminal(lab, "pause");
    let container = lab.create_with(&bundle, &["--console-socket", socket.path()]);
    let _pty = socket.receive();
    container.start();
    let facts = container.ask("facts").remove(0);
    assert_eq!(facts["tty"], json!([null, null, null]));
    container.end();
}

fn terminal_without_a_console_socket_is_refused_for_create(lab: &Lab) {
    let bundle = with_terminal(lab, "exit 0");
    let output = lab
        .on_bundle("create", &bundle, &[], &lab.id())
        .run()
        .code(1);
    assert!(output.stderr.contains("console"), "{output}");
    let output = lab
        .on_bundle("run", &bundle, &["--detach"], &lab.id())
        .run()
        .code(1);
    assert!(output.stderr.contains("console"), "{output}");
}

fn console_socket_without_a_terminal_is_refused(lab: &Lab) {
    let socket = socket(lab);
    let bundle = lab.bundle().payload("exit 0");
    let options = ["--console-socket", socket.path()];
    let output = lab.on_bundle("create", &bundle, &options, &lab.id()).run();
    if lab.is_husk() {
        let output = output.code(1);
        assert!(output.stderr.contains("(/process/terminal)"), "{output}");
        assert!(
            output.stderr.contains("hint: set process.terminal"),
            "{output}"
        );
        return;
    }
    if output.end == End::Code(0) {
        lab.runtime([
            "delete",
            "--force",
            output.command.rsplit(' ').next().unwrap(),
        ])
        .run()
        .ok();
    }
}

fn a_console_socket_that_is_missing_or_too_long_is_refused(lab: &Lab) {
    let bundle = with_terminal(lab, "exit 0");
    let long = format!("/tmp/{}", "x".repeat(200));
    for path in ["/no/such/socket", &long, "/dev/null"] {
        let options = ["--console-socket", path];
        lab.on_bundle("create", &bundle, &options, &lab.id())
            .run()
            .code(1);
    }
}

fn a_foreground_terminal_needs_a_terminal(lab: &Lab) {
    let bundle = with_terminal(lab, "facts");
    let output = lab.run_with(&bundle, &[]).run();
    // Either it says so, or the container has a terminal and the output comes through it.
    match output.end {
        End::Code(0) => assert!(!output.line()["tty"][1].is_null(), "{output}"),
        End::Code(1) => assert_ne!(output.stderr, ""),
        _ => panic!("{output}"),
    }
}

fn a_huge_output_arrives_whole(lab: &Lab) {
    let text = "x".repeat(300_000);
    let bundle = with_terminal(lab, "cat /etc/text -- echo the-end").file("etc/text", &text);
    let mut pty = Pty::new(24, 80);
    let mut run = pty.spawn(lab.run_with(&bundle, &[]));
    let seen = pty.wait_for("the-end").to_owned();
    assert_eq!(seen.matches('x').count(), 300_000);
    run.wait().ok();
}
