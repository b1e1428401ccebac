//! Calls that a filter leaves to an agent (SCMP_ACT_NOTIFY): the agent gets the listener, and answers.

use nix::errno::Errno;
use serde_json::{Value, json};

use super::tests;
use crate::agent::{Agent, Answer, Answers};
use crate::bundle::Bundle;
use crate::lab::Lab;
use crate::output::End;
use crate::receiver::Receiver;

tests! {
    an_agent_answers_for_the_kernel,
    the_agent_is_told_of_container_and_process,
    each_exec_has_a_listener_of_its_own,
    every_call_that_could_bring_the_listener_may_be_notified,
    a_denied_call_is_no_obstacle_for_the_listener,
    without_an_agent_nothing_starts,
    an_agent_that_is_gone_leaves_enosys,
    an_agent_that_hangs_up_at_once_stops_nothing,
    where_nothing_notifies_the_agent_hears_nothing,
    listener_path_must_be_there_and_absolute,
    metadata_without_a_listener_path_is_refused,
    notify_as_default_action_is_refused,
    start_container_hooks_get_no_descriptor_of_it,
    the_program_gets_no_descriptor_of_it,
    wait_killable_recv_is_accepted_with_notify,
}

fn profile(path: &str, calls: &[&str]) -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": path,
        "listenerMetadata": "some metadata",
        "syscalls": [{ "names": calls, "action": "SCMP_ACT_NOTIFY" }],
    })
}

fn agent(lab: &Lab, answers: &[(i64, Answer)]) -> Agent {
    Agent::new(
        &lab.path("agent"),
        answers.iter().copied().collect::<Answers>(),
    )
}

fn notifying(lab: &Lab, agent: &Agent, calls: &[&str]) -> Bundle {
    lab.bundle()
        .set("/linux/seccomp", profile(agent.path(), calls))
}

fn an_agent_answers_for_the_kernel(lab: &Lab) {
    for nnp in [true, false] {
        let agent = agent(
            lab,
            &[
                (libc::SYS_getppid, Answer::Value(4711)),
                (libc::SYS_mkdirat, Answer::Error(Errno::ENOMEDIUM)),
            ],
        );
        let bundle = notifying(lab, &agent, &["getppid", "mkdirat", "unshare"])
            .set("/process/noNewPrivileges", nnp);
        let words =
            "syscall getppid -- syscall mkdirat -100 s:/tmp/x 0 -- syscall unshare 0 -- facts";
        let answers = lab.ask(bundle, words);
        assert_eq!(answers[0]["result"], 4711);
        assert_eq!(answers[1]["error"], "ENOMEDIUM");
        assert_eq!(answers[2]["result"], 0);
        assert_eq!(answers[3]["nnp"], u8::from(nnp));
        let numbers: Vec<i64> = agent.calls().iter().map(|(_, number)| *number).collect();
        assert_eq!(
            numbers[..3],
            [libc::SYS_getppid, libc::SYS_mkdirat, libc::SYS_unshare]
        );
    }
}

/// runtime-spec, config-linux.md, "The Container Process State".
fn the_agent_is_told_of_container_and_process(lab: &Lab) {
    let agent = agent(lab, &[]);
    let bundle = notifying(lab, &agent, &["getppid"])
        .set("/annotations", json!({ "a": "b" }))
        .payload("syscall getppid -- pause");
    let container = lab.start(&bundle);
    let told = agent.told();
    container.wait_for_lines(1);
    let pid = container.pid();
    assert_eq!(told["fds"], json!(["seccompFd"]));
    assert_eq!(told["pid"], pid);
    assert_eq!(told["metadata"], "some metadata");
    assert_eq!(told["ociVersion"], bundle.config["ociVersion"]);
    let state = &told["state"];
    assert_eq!(state["ociVersion"], bundle.config["ociVersion"]);
    assert_eq!(state["id"], container.id.as_str());
    assert_eq!(state["status"], "created");
    assert_eq!(state["pid"], pid);
    assert_eq!(state["bundle"], bundle.dir.to_str().unwrap());
    assert_eq!(state["annotations"], json!({ "a": "b" }));
    assert_eq!(agent.calls(), [(pid as u32, libc::SYS_getppid)]);
    assert!(agent.is_idle(), "one message, no more");
    container.end();
    // Metadata that isn't there is not sent either.
    let bundle = bundle.remove("/linux/seccomp/listenerMetadata");
    let container = lab.start(&bundle.payload("pause"));
    assert!(agent.told().get("metadata").is_none());
    container.end();
}

fn each_exec_has_a_listener_of_its_own(lab: &Lab) {
    for nnp in [true, false] {
        let agent = agent(lab, &[(libc::SYS_getppid, Answer::Value(815))]);
        let bundle = notifying(lab, &agent, &["getppid"])
            .set("/process/noNewPrivileges", nnp)
            .payload("pause");
        let container = lab.start(&bundle);
        agent.told();
        let answers = container.ask("syscall getppid -- facts");
        assert_eq!(answers[0]["result"], 815);
        let told = agent.told();
        let calls = agent.calls();
        assert_eq!(told["pid"], calls[0].0);
        assert_ne!(told["pid"], container.pid());
        assert_eq!(told["state"]["pid"], container.pid());
        assert_eq!(told["state"]["status"], "running");
        container.end();
    }
}

/// runc refuses to notify write(2), and hangs where others of these are notified.
fn every_call_that_could_bring_the_listener_may_be_notified(lab: &Lab) {
    let calls = [
        "write",
        "writev",
        "sendmsg",
        "sendto",
        "connect",
        "socket",
        "read",
        "recvmsg",
        "recvfrom",
        "poll",
        "ppoll",
        "futex",
        "nanosleep",
        "clock_nanosleep",
        "sched_yield",
        "close",
        "fcntl",
        "ioctl",
        "dup",
        "dup2",
        "dup3",
        "pidfd_getfd",
        "open",
        "openat",
        "openat2",
        "prctl",
        "capset",
        "capget",
        "rt_sigprocmask",
        "rt_sigaction",
        "execve",
        "exit",
        "exit_group",
        "mmap",
        "munmap",
        "clone",
        "clone3",
    ];
    for nnp in [true, false] {
        let agent = agent(lab, &[]);
        let bundle = notifying(lab, &agent, &calls)
            .set("/process/noNewPrivileges", nnp)
            .set("/process/user/uid", 1000)
            .payload("echo heard -- read-line");
        let container = lab.create(&bundle);
        container.start();
        let seen = crate::lab::eventually(|| container.stdout().starts_with("heard\n"));
        assert!(seen, "{}", container.stderr());
        let called: Vec<i64> = agent.calls().iter().map(|(_, number)| *number).collect();
        // With no_new_privs nothing stands between the filter and the program.
        match nnp {
            true => assert_eq!(called[0], libc::SYS_execve),
            false => assert!(called.contains(&libc::SYS_execve)),
        }
        assert!(called.contains(&libc::SYS_write));
        assert_eq!(container.wait(), End::Code(0));
        container.delete();
        assert_eq!(
            lab.run(&bundle.payload("echo again")).ok().stdout,
            "again\n"
        );
    }
}

/// What kills or fails may be as little in the way as what notifies.
fn a_denied_call_is_no_obstacle_for_the_listener(lab: &Lab) {
    let denied = [
        "sendmsg",
        "recvmsg",
        "sched_yield",
        "nanosleep",
        "clock_nanosleep",
        "connect",
        "socket",
    ];
    for action in ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS"] {
        let agent = agent(lab, &[(libc::SYS_getppid, Answer::Value(3))]);
        let bundle = notifying(lab, &agent, &["getppid"])
            .set("/process/noNewPrivileges", true)
            .set(
                "/linux/seccomp/syscalls/-",
                json!({ "names": denied, "action": action }),
            );
        assert_eq!(lab.ask(bundle, "syscall getppid")[0]["result"], 3);
    }
}

fn without_an_agent_nothing_starts(lab: &Lab) {
    let path = lab.path("nobody");
    let bundle = lab
        .bundle()
        .set(
            "/linux/seccomp",
            profile(path.to_str().unwrap(), &["getppid"]),
        )
        .payload("echo ran");
    let words = "failed to connect with seccomp agent";
    let output = lab.run(&bundle).code(1);
    assert_eq!(output.stdout, "");
    assert!(output.stderr.contains(words), "{output}");
    assert!(
        output.stderr.contains("no such file or directory"),
        "{output}"
    );
    let container = lab.create(&bundle);
    container.pid();
    container
        .command("start", &[])
        .run()
        .refused()
        .says(words)
        .says("/linux/seccomp/listenerPath");
    container.wait();
    assert_eq!(container.status(), "stopped");
    assert_eq!(container.stdout(), "");
    container.delete();
    // In exec, the container goes on.
    let agent = agent(lab, &[]);
    let container = lab.start(&notifying(lab, &agent, &["getppid"]).payload("pause"));
    std::fs::remove_file(agent.path()).unwrap();
    let output = container.exec("/bin/payload echo ran").code(255);
    assert!(output.stderr.contains(words), "{output}");
    assert_eq!(output.stdout, "");
    assert_eq!(container.status(), "running");
    container.end();
}

fn an_agent_that_is_gone_leaves_enosys(lab: &Lab) {
    let receiver = Receiver::new(&lab.path("agent"));
    let bundle = lab
        .bundle()
        .set("/linux/seccomp", profile(receiver.path(), &["getppid"]))
        .payload("read-line -- syscall getppid");
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let mut run = lab.run_with(&bundle, &[]).stdin(reader).spawn();
    let (listener, _) = receiver.receive();
    drop(listener);
    nix::unistd::write(&writer, b"\n").unwrap();
    let lines = run.wait().ok().lines();
    assert_eq!(lines[1]["error"], "ENOSYS");
}

fn an_agent_that_hangs_up_at_once_stops_nothing(lab: &Lab) {
    let path = lab.path("agent");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let bundle = lab.bundle().set(
        "/linux/seccomp",
        profile(path.to_str().unwrap(), &["getppid"]),
    );
    // The connection stands in the queue; nobody ever takes it.
    let container = lab.start(&bundle.payload("pause"));
    drop(listener);
    container.end();
}

fn where_nothing_notifies_the_agent_hears_nothing(lab: &Lab) {
    let receiver = Receiver::new(&lab.path("agent"));
    let mut unused = profile(receiver.path(), &[]);
    unused.as_object_mut().unwrap().remove("syscalls");
    lab.facts(&lab.bundle().set("/linux/seccomp", unused.clone()));
    assert!(!receiver.has_waiting());
    // Not even looked for.
    unused["listenerPath"] = json!("/no/such/agent");
    lab.facts(&lab.bundle().set("/linux/seccomp", unused));
}

fn listener_path_must_be_there_and_absolute(lab: &Lab) {
    for (path, words) in [
        ("", "listenerPath"),
        ("agent.sock", "must be absolute"),
        ("@a", "must be absolute"),
    ] {
        let bundle = lab
            .bundle()
            .set("/linux/seccomp", profile(path, &["getppid"]));
        let bundle = bundle.remove("/linux/seccomp/listenerMetadata");
        lab.run(&bundle)
            .refused()
            .says(words)
            .says("/linux/seccomp/");
    }
    let bundle = lab
        .bundle()
        .set("/linux/seccomp", profile("/x", &["getppid"]));
    let bundle = bundle
        .remove("/linux/seccomp/listenerMetadata")
        .remove("/linux/seccomp/listenerPath");
    lab.run(&bundle).refused().says("listenerPath");
}

fn metadata_without_a_listener_path_is_refused(lab: &Lab) {
    let profile = json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x" });
    lab.run(&lab.bundle().set("/linux/seccomp", profile))
        .refused()
        .says("/linux/seccomp/listenerMetadata");
}

fn notify_as_default_action_is_refused(lab: &Lab) {
    let profile = json!({ "defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/x" });
    lab.run(&lab.bundle().set("/linux/seccomp", profile))
        .refused()
        .says("/linux/seccomp/defaultAction");
}

fn start_container_hooks_get_no_descriptor_of_it(lab: &Lab) {
    let agent = agent(lab, &[]);
    let bundle = notifying(lab, &agent, &["getppid"])
        .writable()
        .hook("startContainer", &["/bin/payload", "hook", "/tmp/seen"])
        .payload("cat /tmp/seen");
    let text = lab.run(&bundle).ok().line();
    let seen: Value = serde_json::from_str(text.as_str().unwrap().lines().next().unwrap()).unwrap();
    assert_eq!(numbers(&seen["facts"]), [0, 1, 2]);
}

fn numbers(facts: &Value) -> Vec<u64> {
    let fds = facts["fds"].as_array().unwrap();
    fds.iter().map(|fd| fd["fd"].as_u64().unwrap()).collect()
}

fn the_program_gets_no_descriptor_of_it(lab: &Lab) {
    let agent = agent(lab, &[]);
    let container = lab.start(&notifying(lab, &agent, &["getppid"]).payload("facts -- pause"));
    let init = container.wait_for_lines(1).remove(0);
    assert_eq!(numbers(&init), [0, 1, 2]);
    assert_eq!(numbers(&container.ask("facts")[0]), [0, 1, 2]);
    // Nor is a thread left that isn't under the filter.
    let tasks = format!("/proc/{}/task", container.pid());
    assert_eq!(std::fs::read_dir(tasks).unwrap().count(), 1);
    container.end();
}

/// Linux 5.19.
fn wait_killable_recv_is_accepted_with_notify(lab: &Lab) {
    let agent = agent(lab, &[(libc::SYS_getppid, Answer::Value(5))]);
    for flags in [
        json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]),
        json!([
            "SECCOMP_FILTER_FLAG_LOG",
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
            "SECCOMP_FILTER_FLAG_TSYNC",
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW"
        ]),
    ] {
        let bundle = notifying(lab, &agent, &["getppid"]).set("/linux/seccomp/flags", flags);
        assert_eq!(lab.ask(bundle, "syscall getppid")[0]["result"], 5);
    }
    let bundle = notifying(lab, &agent, &["getppid"])
        .set("/linux/seccomp/flags", json!(["SECCOMP_FILTER_FLAG_OTHER"]));
    lab.run(&bundle).refused().says("/linux/seccomp/flags/0");
}
