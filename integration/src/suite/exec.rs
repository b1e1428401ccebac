//! exec: another process in a running container.

use std::fs;

use serde_json::{Value, json};

use super::tests;
use crate::bundle::PAYLOAD;
use crate::container::Container;
use crate::lab::{Lab, eventually, wait_for_child};
use crate::output::End;

tests! {
    exec_enters_the_root_of_a_container_that_did_not_pivot,
    exec_and_dot_dot_stay_inside_where_a_mount_covers_the_hosts_root,
    exec_gives_the_exit_status,
    exec_of_a_process_killed_by_a_signal_gives_128_and_the_signal,
    exec_passes_standard_streams,
    exec_is_in_the_containers_cgroup_root_and_namespaces,
    exec_takes_what_the_container_has,
    exec_env_adds_and_replaces,
    exec_cwd_is_used,
    exec_user_forms,
    cve_2026_30892_exec_user_forms,
    cve_2016_3697_numeric_user_names_are_not_looked_up,
    exec_additional_groups_are_set,
    exec_cap_adds_capabilities_without_making_them_inheritable,
    exec_no_new_privs,
    exec_process_file_replaces_everything,
    exec_process_file_with_capabilities_and_rlimits,
    exec_words_after_the_id_are_the_programs_own,
    exec_detach_returns_at_once,
    exec_forwards_signals_to_its_process,
    exec_in_a_created_container_is_possible_or_refused_in_words,
    exec_in_a_stopped_container_is_refused,
    exec_looks_the_program_up_in_the_containers_path,
    exec_does_not_apply_oom_score_of_the_caller,
    exec_sees_the_mounts_of_the_container,
    exec_without_a_pid_namespace_does_not_end_with_its_children,
    youki_exec_applies_no_seccomp,
    many_execs_at_once,
    exec_process_dies_with_the_container,
    exec_needs_a_program,
    exec_process_file_errors_are_told,
}

/// Its mount namespace's own root would be the host's.
fn exec_enters_the_root_of_a_container_that_did_not_pivot(lab: &Lab) {
    let bundle = lab.bundle().file("inside", "x").payload("pause");
    let container = lab.create_with(&bundle, &["--no-pivot"]);
    container.start();
    assert_eq!(container.ask("cat /inside")[0], "x");
    container.end();
}

/// What lies over the caller's `/` is unmounted first, and the host's root would stay below it.
fn exec_and_dot_dot_stay_inside_where_a_mount_covers_the_hosts_root(lab: &Lab) {
    let cover = lab.path("cover");
    std::fs::create_dir(&cover).unwrap();
    for _ in 0..3 {
        nix::mount::mount(
            Some(&cover),
            "/",
            None::<&str>,
            nix::mount::MsFlags::MS_BIND,
            None::<&str>,
        )
        .unwrap();
    }
    let bundle = lab
        .bundle()
        .file("inside", "x")
        .payload("cat /../inside -- pause");
    let container = lab.start(&bundle);
    assert_eq!(container.wait_for_lines(1)[0], "x");
    assert_eq!(container.ask("cat /inside")[0], "x");
    container.end();
    for _ in 0..3 {
        nix::mount::umount2("/", nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}

fn running(lab: &Lab) -> Container<'_> {
    lab.start(&lab.bundle().payload("pause"))
}

fn facts(container: &Container, options: &[&str]) -> Value {
    container
        .exec_with(options, "/bin/payload facts")
        .run()
        .ok()
        .line()
}

fn exec_gives_the_exit_status(lab: &Lab) {
    let container = running(lab);
    for code in [0, 1, 7, 254] {
        container.exec(&format!("{PAYLOAD} exit {code}")).code(code);
    }
    container.end();
}

fn exec_of_a_process_killed_by_a_signal_gives_128_and_the_signal(lab: &Lab) {
    let container = running(lab);
    for signal in [9, 15] {
        container
            .exec(&format!("{PAYLOAD} signal {signal}"))
            .code(128 + signal);
    }
    container.end();
}

fn exec_passes_standard_streams(lab: &Lab) {
    let container = running(lab);
    let exec = container.exec_with(&[], "/bin/payload stdin -- echo-error err");
    let output = exec.stdin_text("typed").run().ok();
    assert_eq!(
        (output.stdout.as_str(), output.stderr.as_str()),
        ("\"typed\"\n", "err\n")
    );
    container.end();
}

fn exec_is_in_the_containers_cgroup_root_and_namespaces(lab: &Lab) {
    let bundle = lab.bundle().file("etc/where", "here").payload("pause");
    let container = lab.start(&bundle);
    let answers = container.ask("facts -- cat /etc/where");
    assert_eq!(answers[0]["cgroup"], "/");
    assert_eq!(answers[0]["hostname"], "inside");
    assert!(answers[0]["pid"].as_u64() > Some(1));
    assert_eq!(answers[1], "here");
    container.end();
}

fn exec_takes_what_the_container_has(lab: &Lab) {
    let bundle = lab
        .bundle()
        .capabilities(&["CAP_KILL"])
        .dir("work")
        .set(
            "/process/user",
            json!({ "uid": 0, "gid": 5, "additionalGids": [6], "umask": 0o077 }),
        )
        .set("/process/cwd", "/work")
        .set("/process/env", json!(["A=1", "HOME=/h"]))
        .payload("pause");
    let container = lab.start(&bundle);
    let facts = facts(&container, &[]);
    assert_eq!(facts["caps"]["effective"], json!(["CAP_KILL"]));
    assert_eq!(facts["caps"]["bounding"], json!(["CAP_KILL"]));
    assert_eq!((&facts["uid"], &facts["gid"]), (&json!(0), &json!(5)));
    assert_eq!(facts["cwd"], "/work");
    assert_eq!(facts["env"], json!([["A", "1"], ["HOME", "/h"]]));
    assert_eq!(facts["nnp"], 1);
    assert_eq!(facts["umask"], 0o077);
    assert_eq!(
        facts["rlimits"]["RLIMIT_NOFILE"],
        json!({ "soft": 1024, "hard": 1024 })
    );
    container.end();
}

fn exec_env_adds_and_replaces(lab: &Lab) {
    let bundle = lab
        .bundle()
        .set("/process/env", json!(["A=1", "HOME=/h"]))
        .payload("pause");
    let container = lab.start(&bundle);
    let again = facts(&container, &["-e", "B=4"]);
    assert!(
        again["env"]
            .as_array()
            .unwrap()
            .contains(&json!(["B", "4"]))
    );
    let facts = facts(&container, &["--env", "B=2", "--env", "A=3", "--env=C=x=y"]);
    let env = facts["env"].as_array().unwrap();
    for pair in [["B", "2"], ["C", "x=y"]] {
        assert!(env.contains(&json!(pair)), "{env:?}");
    }
    // The later one of two counts for getenv(3) only if the first one is gone.
    let first = env.iter().find(|pair| pair[0] == "A").unwrap();
    if lab.is_husk() {
        assert_eq!(first[1], "3", "{env:?}");
    }
    container.end();
}

fn exec_cwd_is_used(lab: &Lab) {
    let container = lab.start(&lab.bundle().dir("work/deep").payload("pause"));
    assert_eq!(
        facts(&container, &["--cwd", "/work/deep"])["cwd"],
        "/work/deep"
    );
    container
        .exec_with(&["--cwd", "relative"], "/bin/payload exit 0")
        .run()
        .code(255);
    container.end();
}

fn exec_user_forms(lab: &Lab) {
    let container = running(lab);
    for (form, uid, gid) in [
        ("7", 7, 0),
        ("7:8", 7, 8),
        ("0:9", 0, 9),
        ("4294967294:1", 4_294_967_294_u32, 1),
    ] {
        if uid > i32::MAX as u32 && !lab.is_husk() {
            continue;
        }
        let facts = facts(&container, &["--user", form]);
        assert_eq!(
            (&facts["uid"], &facts["gid"]),
            (&json!(uid), &json!(gid)),
            "{form}"
        );
    }
    assert_eq!(facts(&container, &["-u", "7:8"])["uid"], 7);
    container.end();
}

/// crun 1.19 to 1.26 took `-u 1` for root.
fn cve_2026_30892_exec_user_forms(lab: &Lab) {
    let container = running(lab);
    for form in ["1", "1:", "01"] {
        let output = container
            .exec_with(&["--user", form], "/bin/payload facts")
            .run();
        if output.end == End::Code(0) {
            assert_eq!(output.line()["uid"], 1, "{form}");
        }
    }
    for form in [
        "x",
        "",
        ":",
        ":1",
        "-1",
        "4294967295",
        "4294967296",
        "1:x",
        "1:-1",
        "1:2:3",
        " 1",
        "1 ",
        "0x1",
        "+1",
    ] {
        let output = container
            .exec_with(&["--user", form], "/bin/payload facts")
            .run();
        if lab.is_husk() {
            assert_ne!(output.end, End::Code(0), "{form:?}: {output}");
        }
    }
    container.end();
}

fn cve_2016_3697_numeric_user_names_are_not_looked_up(lab: &Lab) {
    let passwd = "root:x:0:0::/:\n1000:x:0:0::/:\n";
    let container = lab.start(&lab.bundle().file("etc/passwd", passwd).payload("pause"));
    assert_eq!(facts(&container, &["--user", "1000"])["uid"], 1000);
    container.end();
}

fn exec_additional_groups_are_set(lab: &Lab) {
    let container = running(lab);
    let facts = facts(
        &container,
        &[
            "--user",
            "7:8",
            "--additional-gids",
            "20",
            "--additional-gids",
            "21",
        ],
    );
    let groups = facts["groups"].as_array().unwrap();
    assert!(
        [20, 21].iter().all(|g| groups.contains(&json!(g))),
        "{groups:?}"
    );
    container.end();
}

/// CVE-2022-27650, CVE-2022-29162, CVE-2025-27612.
fn exec_cap_adds_capabilities_without_making_them_inheritable(lab: &Lab) {
    let container = lab.start(&lab.bundle().capabilities(&["CAP_KILL"]).payload("pause"));
    let facts = facts(&container, &["--cap", "CAP_NET_RAW", "--cap", "CAP_CHOWN"]);
    let expected = json!(["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"]);
    for set in ["inheritable", "ambient"] {
        assert_eq!(facts["caps"][set], json!([]), "{set}");
    }
    for set in ["effective", "permitted", "bounding"] {
        // crun puts them in the place of the others.
        if lab.is_husk() {
            assert_eq!(facts["caps"][set], expected, "{set}");
        }
    }
    if lab.is_husk() {
        let words = [
            "exec",
            "--cap",
            "CAP_NET_ADMN",
            &container.id,
            "/bin/payload",
        ];
        let output = lab.runtime(words).run().code(255);
        assert!(
            output.stderr.contains("did you mean CAP_NET_ADMIN?"),
            "{output}"
        );
    }
    container.end();
}

fn exec_no_new_privs(lab: &Lab) {
    let bundle = lab
        .bundle()
        .set("/process/noNewPrivileges", false)
        .payload("pause");
    let container = lab.start(&bundle);
    assert_eq!(facts(&container, &[])["nnp"], 0);
    assert_eq!(facts(&container, &["--no-new-privs"])["nnp"], 1);
    container.end();
}

fn process_file(lab: &Lab, process: Value) -> String {
    let file = lab.path("process");
    fs::write(&file, process.to_string()).unwrap();
    file.to_str().unwrap().to_owned()
}

fn exec_process_file_replaces_everything(lab: &Lab) {
    let container = running(lab);
    let file = process_file(
        lab,
        json!({
            "user": { "uid": 3, "gid": 4, "additionalGids": [5], "umask": 0o027 },
            "args": [PAYLOAD, "facts"],
            "env": ["ONLY=this", "HOME=/h"],
            "cwd": "/tmp",
            "noNewPrivileges": false,
        }),
    );
    let facts = container
        .command("exec", &["--process", &file])
        .run()
        .ok()
        .line();
    assert_eq!(
        (&facts["uid"], &facts["gid"], &facts["umask"]),
        (&json!(3), &json!(4), &json!(0o027))
    );
    assert!(facts["groups"].as_array().unwrap().contains(&json!(5)));
    assert_eq!(facts["env"], json!([["ONLY", "this"], ["HOME", "/h"]]));
    assert_eq!(facts["cwd"], "/tmp");
    assert_eq!(facts["nnp"], 0);
    container.end();
}

fn exec_process_file_with_capabilities_and_rlimits(lab: &Lab) {
    let container = running(lab);
    let caps = json!(["CAP_CHOWN", "CAP_SYS_ADMIN"]);
    let file = process_file(
        lab,
        json!({
            "user": { "uid": 0, "gid": 0 },
            "args": [PAYLOAD, "facts"],
            "env": ["HOME=/"],
            "cwd": "/",
            "capabilities": { "bounding": caps, "effective": caps, "permitted": caps },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 50, "hard": 60 }],
            "oomScoreAdj": 400,
        }),
    );
    let facts = container.command("exec", &["-p", &file]).run().ok().line();
    assert_eq!(facts["caps"]["effective"], caps);
    assert_eq!(
        facts["rlimits"]["RLIMIT_NOFILE"],
        json!({ "soft": 50, "hard": 60 })
    );
    assert_eq!(facts["oom_score_adj"], 400);
    container.end();
}

fn exec_words_after_the_id_are_the_programs_own(lab: &Lab) {
    let container = running(lab);
    let output = container
        .exec("/bin/payload echo --cwd / -t --user x --help -v")
        .ok();
    assert_eq!(output.stdout, "--cwd / -t --user x --help -v\n");
    container.end();
}

fn exec_detach_returns_at_once(lab: &Lab) {
    let container = running(lab);
    let file = lab.path("pid");
    let options = ["-d", "--pid-file", file.to_str().unwrap()];
    container
        .exec_with(&options, "/bin/payload until 15 3")
        .run()
        .ok();
    let pid: i32 = fs::read_to_string(&file).unwrap().parse().unwrap();
    let procs = crate::cgroup::processes(&container.cgroup());
    assert!(procs.contains(&pid), "{pid} in {procs:?}");
    container.end();
    assert_eq!(wait_for_child(pid), End::Signal(9));
}

fn exec_forwards_signals_to_its_process(lab: &Lab) {
    let container = running(lab);
    let mut exec = container.exec_with(&[], "/bin/payload until 15 3").spawn();
    assert!(eventually(|| exec.stdout().contains("ready")));
    let pid = nix::unistd::Pid::from_raw(exec.pid());
    nix::sys::signal::kill(pid, nix::sys::signal::SIGTERM).unwrap();
    exec.wait().code(3);
    container.end();
}

fn exec_in_a_created_container_is_possible_or_refused_in_words(lab: &Lab) {
    let container = lab.create(&lab.bundle().payload("pause"));
    let output = container.exec("/bin/payload exit 3");
    match output.end {
        End::Code(3) => {}
        End::Code(255) => assert!(output.stderr.contains("created"), "{output}"),
        _ => panic!("{output}"),
    }
    container.force_delete();
}

fn exec_in_a_stopped_container_is_refused(lab: &Lab) {
    let container = lab.start(&lab.bundle().payload("exit 0"));
    container.wait();
    let output = container.exec("/bin/payload exit 3").code(255);
    assert!(
        output.stderr.contains("stopped") || output.stderr.contains("not running"),
        "{output}"
    );
    container.delete();
}

fn exec_looks_the_program_up_in_the_containers_path(lab: &Lab) {
    let bundle = lab
        .bundle()
        .set("/process/env", json!(["PATH=/nowhere:/bin", "HOME=/"]))
        .payload("pause");
    let container = lab.start(&bundle);
    container.exec("payload exit 4").code(4);
    let output = container.exec("nothing-like-it").code(255);
    assert!(
        output.stderr.contains("executable file not found"),
        "{output}"
    );
    container.end();
}

fn exec_does_not_apply_oom_score_of_the_caller(lab: &Lab) {
    let container = lab.start(
        &lab.bundle()
            .set("/process/oomScoreAdj", 200)
            .payload("pause"),
    );
    fs::write("/proc/self/oom_score_adj", "300").unwrap();
    let found = facts(&container, &[])["oom_score_adj"].as_i64();
    assert!([Some(200), Some(300)].contains(&found), "{found:?}");
    container.end();
}

fn exec_sees_the_mounts_of_the_container(lab: &Lab) {
    let container = lab.start(
        &lab.bundle()
            .payload("create /dev/shm/x made-inside -- pause"),
    );
    container.wait_for_lines(1);
    assert_eq!(container.ask("cat /dev/shm/x"), [json!("made-inside")]);
    container.end();
}

fn exec_without_a_pid_namespace_does_not_end_with_its_children(lab: &Lab) {
    let container = lab.start(&lab.bundle().without_namespace("pid").payload("pause"));
    container.exec("/bin/payload orphans 2").ok();
    assert_eq!(container.status(), "running");
    container.kill("KILL");
    container.wait();
    container.force_delete();
}

/// The filter of the container is there in exec's process as well.
fn youki_exec_applies_no_seccomp(lab: &Lab) {
    let profile = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        { "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 71 } ] });
    for nnp in [true, false] {
        let bundle = lab
            .bundle()
            .set("/linux/seccomp", profile.clone())
            .set("/process/noNewPrivileges", nnp)
            .payload("mkdir /dev/shm/x -- pause");
        let container = lab.start(&bundle);
        assert_eq!(container.wait_for_lines(1)[0]["error"], "EPROTO");
        let answers = container.ask("facts -- mkdir /dev/shm/y");
        assert_eq!(answers[0]["seccomp"], 2);
        assert_eq!(answers[1]["error"], "EPROTO");
        container.end();
    }
}

fn many_execs_at_once(lab: &Lab) {
    let container = running(lab);
    let mut all: Vec<_> = (0..16)
        .map(|n| {
            container
                .exec_with(&[], &format!("{PAYLOAD} exit {n}"))
                .spawn()
        })
        .collect();
    for (n, exec) in all.iter_mut().enumerate() {
        exec.wait().code(n as i32);
    }
    container.end();
}

fn exec_process_dies_with_the_container(lab: &Lab) {
    let container = running(lab);
    let mut exec = container
        .exec_with(&[], "/bin/payload echo x -- pause")
        .spawn();
    assert!(eventually(|| exec.stdout().contains('x')));
    container.kill("KILL");
    container.wait();
    exec.wait().code(128 + 9);
    container.delete();
}

fn exec_needs_a_program(lab: &Lab) {
    let container = running(lab);
    let output = container.command("exec", &[]).run();
    assert!(matches!(output.end, End::Code(1 | 255)), "{output}");
    assert_ne!(output.stderr, "");
    container.end();
}

fn exec_process_file_errors_are_told(lab: &Lab) {
    let container = running(lab);
    let missing = lab.path("missing");
    let output = container
        .command("exec", &["--process", missing.to_str().unwrap()])
        .run()
        .code(255);
    assert!(
        output.stderr.contains("no such file or directory"),
        "{output}"
    );
    for broken in [
        json!("text"),
        json!({ "args": 7, "cwd": "/" }),
        json!({ "args": [], "cwd": "/" }),
    ] {
        let file = process_file(lab, broken);
        let output = container
            .command("exec", &["--process", &file])
            .run()
            .code(255);
        assert_ne!(output.stderr, "");
    }
    container.end();
}
