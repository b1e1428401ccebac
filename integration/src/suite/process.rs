//! The container's process: what config.json's `process` (and hostname's neighbours,
//! sysctl and oomScoreAdj) make of it.

use std::fs;

use serde_json::{Value, json};

use super::tests;
use crate::bundle::{Bundle, PAYLOAD};
use crate::lab::Lab;

tests! {
    arguments_and_environment_are_passed_as_they_are,
    the_environment_of_the_runtime_does_not_leak,
    the_last_of_two_variables_of_one_name_counts,
    program_is_found_on_the_path_of_the_container,
    program_may_be_relative_to_the_working_directory,
    program_may_be_a_script,
    home_is_filled_in_from_passwd,
    user_and_groups_are_set,
    without_additional_gids_there_are_none,
    umask_is_set_or_left,
    sysctls_of_its_namespaces_are_set,
    a_sysctl_of_the_host_is_refused,
    only_standard_descriptors_are_open,
    descriptors_of_the_caller_do_not_leak,
    signals_are_as_after_a_fresh_start,
    the_process_is_dumpable_and_has_no_parent_death_signal,
    the_process_leads_its_session,
    a_closed_standard_input_is_not_somebody_elses,
    cwd_of_a_user_who_cannot_enter_it_before,
    cwd_must_be_reachable_for_its_user,
    a_missing_program_is_told_at_create,
    a_program_without_permission_is_told_at_create,
    a_directory_is_no_program,
    a_missing_interpreter_is_told,
    two_hundred_variables_and_a_long_argument_are_passed,
}

fn arguments_and_environment_are_passed_as_they_are(lab: &Lab) {
    let odd = [
        "",
        " ",
        "two words",
        "\"quoted\"",
        "new\nline",
        "ünïcode",
        "$HOME",
        "--",
    ];
    let mut args = vec![PAYLOAD, "facts", "--", "echo"];
    args.extend(&odd[..7]);
    let env = json!([
        "PATH=/bin",
        "EMPTY=",
        "EQUALS=a=b",
        "SPACE= x ",
        "LINE=a\nb",
        "UTF=ü",
        "HOME=/h"
    ]);
    let facts = lab
        .run(&lab.bundle().args(&args).set("/process/env", env))
        .ok();
    let facts: Value = serde_json::from_str(facts.stdout.lines().next().unwrap()).unwrap();
    assert_eq!(facts["args"], json!(args));
    let expected = json!([
        ["PATH", "/bin"],
        ["EMPTY", ""],
        ["EQUALS", "a=b"],
        ["SPACE", " x "],
        ["LINE", "a\nb"],
        ["UTF", "ü"],
        ["HOME", "/h"]
    ]);
    assert_eq!(facts["env"], expected);
}

fn the_environment_of_the_runtime_does_not_leak(lab: &Lab) {
    let bundle = lab.bundle().set("/process/env", json!(["A=1", "HOME=/"]));
    let command = lab.run_with(&bundle, &[]);
    let output = command
        .env("SECRET", "x")
        .env("_OCI_SYNCPIPE", "3")
        .env("XDG_RUNTIME_DIR", "/x")
        .run()
        .ok();
    assert_eq!(output.line()["env"], json!([["A", "1"], ["HOME", "/"]]));
}

/// getenv(3) would find the first one.
fn the_last_of_two_variables_of_one_name_counts(lab: &Lab) {
    let env = json!(["A=1", "HOME=/", "A=2", "B=3", "A=4"]);
    let facts = lab.facts(&lab.bundle().set("/process/env", env));
    let of_a: Vec<&Value> = facts["env"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|pair| pair[0] == "A")
        .collect();
    assert_eq!(of_a, [&json!(["A", "4"])]);
}

fn program_is_found_on_the_path_of_the_container(lab: &Lab) {
    let bundle = lab
        .bundle()
        .dir("opt/tools")
        .args(&["payload", "exit", "5"])
        .set("/process/env", json!(["PATH=/nowhere:/opt/tools:/bin"]));
    lab.run(&bundle).code(5);
    let bundle = bundle.set("/process/env", json!(["PATH=/nowhere:/opt/tools"]));
    let output = lab.run(&bundle).code(1);
    assert!(
        output.stderr.contains("executable file not found"),
        "{output}"
    );
}

fn program_may_be_relative_to_the_working_directory(lab: &Lab) {
    let bundle = lab
        .bundle()
        .set("/process/cwd", "/bin")
        .args(&["./payload", "exit", "5"]);
    lab.run(&bundle).code(5);
}

fn program_may_be_a_script(lab: &Lab) {
    let bundle = lab
        .bundle()
        .executable("bin/script", &format!("#!{PAYLOAD} cat\n"))
        .args(&["script"]);
    assert_eq!(
        lab.run(&bundle).ok().line(),
        json!(format!("#!{PAYLOAD} cat\n"))
    );
}

fn home_of(facts: &Value) -> Value {
    let env = facts["env"].as_array().unwrap();
    env.iter()
        .find(|pair| pair[0] == "HOME")
        .map_or(Value::Null, |pair| pair[1].clone())
}

fn home_is_filled_in_from_passwd(lab: &Lab) {
    let passwd = "root:x:0:0::/root:/bin/sh\nme:x:1000:1000::/home/me:/bin/sh\n";
    for (uid, home) in [(0, "/root"), (1000, "/home/me"), (4321, "/")] {
        let bundle = lab
            .bundle()
            .file("etc/passwd", passwd)
            .set("/process/user/uid", uid);
        assert_eq!(home_of(&lab.facts(&bundle)), home, "{uid}");
    }
    let given = json!(["HOME=/given"]);
    let bundle = lab
        .bundle()
        .file("etc/passwd", passwd)
        .set("/process/env", given);
    assert_eq!(home_of(&lab.facts(&bundle)), "/given");
    assert_eq!(home_of(&lab.facts(&lab.bundle())), "/");
}

fn user_and_groups_are_set(lab: &Lab) {
    let user = json!({ "uid": 1234, "gid": 5678, "additionalGids": [7, 8, 9, 4_000_000_000u32] });
    let facts = lab.facts(&lab.bundle().set("/process/user", user));
    for (key, expected) in [("uid", 1234), ("euid", 1234), ("gid", 5678), ("egid", 5678)] {
        assert_eq!(facts[key], expected, "{key}");
    }
    let mut groups: Vec<u64> = facts["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|g| g.as_u64().unwrap())
        .collect();
    groups.retain(|group| *group != 5678);
    assert_eq!(groups, [7, 8, 9, 4_000_000_000]);
}

/// Not those of the caller either.
fn without_additional_gids_there_are_none(lab: &Lab) {
    nix::unistd::setgroups(&[nix::unistd::Gid::from_raw(27)]).unwrap();
    let facts = lab.facts(
        &lab.bundle()
            .set("/process/user", json!({ "uid": 1000, "gid": 1000 })),
    );
    let groups = facts["groups"].as_array().unwrap();
    assert!(
        groups.iter().all(|group| *group == json!(1000)),
        "{groups:?}"
    );
}

fn umask_is_set_or_left(lab: &Lab) {
    let facts = lab.facts(&lab.bundle().set("/process/user/umask", 0o077));
    assert_eq!(facts["umask"], 0o077);
    let old = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o027));
    let facts = lab.facts(&lab.bundle());
    nix::sys::stat::umask(old);
    assert!(
        [json!(0o027), json!(0o022)].contains(&facts["umask"]),
        "{}",
        facts["umask"]
    );
}

fn sysctls_of_its_namespaces_are_set(lab: &Lab) {
    let sysctl = json!({
        "net.ipv4.ip_forward": "1",
        "net/ipv4/ping_group_range": "0 7",
        "kernel.shmmax": "65536",
        "kernel.msgmax": "4096",
        "fs.mqueue.msg_max": "11",
        "net.core.somaxconn": "77",
    });
    let bundle = lab.bundle().set("/linux/sysctl", sysctl);
    let words = "cat /proc/sys/net/ipv4/ip_forward -- cat /proc/sys/net/ipv4/ping_group_range \
                 -- cat /proc/sys/kernel/shmmax -- cat /proc/sys/kernel/msgmax \
                 -- cat /proc/sys/fs/mqueue/msg_max -- cat /proc/sys/net/core/somaxconn";
    let answers = lab.ask(bundle, words);
    let values: Vec<&str> = answers.iter().map(|a| a.as_str().unwrap().trim()).collect();
    assert_eq!(values, ["1", "0\t7", "65536", "4096", "11", "77"]);
}

fn a_sysctl_of_the_host_is_refused(lab: &Lab) {
    let value = |name: &str| fs::read_to_string(format!("/proc/sys/{name}")).unwrap();
    let before = value("vm/swappiness");
    let cases = [
        ("vm.swappiness", "77", ""),
        ("net.ipv4.ip_forward", "1", "network"),
        ("kernel.shmmax", "1", "ipc"),
        ("kernel.domainname", "x", "uts"),
        ("kernel.pid_max", "400", "pid"),
        ("kernel.core_pattern", "/x", ""),
    ];
    for (name, text, namespace) in cases {
        let mut bundle = lab.bundle().set("/linux/sysctl", json!({ name: text }));
        if !namespace.is_empty() {
            bundle = bundle.without_namespace(namespace).remove("/hostname");
        }
        let output = lab.run(&bundle).code(1);
        assert!(output.stderr.contains(name), "{output}");
    }
    assert_eq!(value("vm/swappiness"), before);
}

fn only_standard_descriptors_are_open(lab: &Lab) {
    let open: Vec<u64> = fds(&lab.facts(&lab.bundle()));
    assert_eq!(open, [0, 1, 2]);
    let container = lab.start(&lab.bundle());
    container.wait();
    assert_eq!(fds(&container.lines().remove(0)), [0, 1, 2]);
    container.delete();
}

fn fds(facts: &Value) -> Vec<u64> {
    facts["fds"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["fd"].as_u64().unwrap())
        .collect()
}

fn descriptors_of_the_caller_do_not_leak(lab: &Lab) {
    let container = lab.start(&lab.bundle().payload("pause"));
    let root = || fs::File::open("/").unwrap();
    let leaky = |mut command: crate::lab::Command| {
        for number in 10..20 {
            command = command.fd(root(), number);
        }
        command.run().ok().line()
    };
    assert_eq!(fds(&leaky(lab.run_with(&lab.bundle(), &[]))), [0, 1, 2]);
    let exec = container.exec_with(&[], "/bin/payload facts");
    assert_eq!(fds(&leaky(exec)), [0, 1, 2]);
    container.end();
}

fn signals_are_as_after_a_fresh_start(lab: &Lab) {
    let bundle = lab.bundle();
    let facts = lab
        .run_with(&bundle, &[])
        .spawn_after(|| {
            nix::sys::signal::SigSet::all().thread_block()?;
            Ok(())
        })
        .wait()
        .ok()
        .line();
    let zero = "0000000000000000";
    assert_eq!(facts["signals"]["blocked"], zero);
    // std ignores SIGPIPE in every Rust program, the payload as well.
    let ignored = facts["signals"]["ignored"].as_str().unwrap();
    assert!(
        ["0000000000000000", "0000000000001000"].contains(&ignored),
        "{ignored}"
    );
}

fn the_process_is_dumpable_and_has_no_parent_death_signal(lab: &Lab) {
    let facts = lab.facts(&lab.bundle());
    assert_eq!(facts["dumpable"], 1);
    assert_eq!(facts["pdeathsig"], 0);
    assert_eq!(facts["subreaper"], 0);
}

fn the_process_leads_its_session(lab: &Lab) {
    let facts = lab.facts(&lab.bundle());
    assert_eq!(facts["sid"], facts["pid"]);
    assert_eq!(facts["pgid"], facts["pid"]);
}

fn a_closed_standard_input_is_not_somebody_elses(lab: &Lab) {
    let bundle = lab.bundle();
    let command = lab.run_with(&bundle, &[]);
    let facts = command
        .spawn_after(|| nix::unistd::close(0).map_err(Into::into))
        .wait()
        .ok()
        .line();
    let first = facts["fds"]
        .as_array()
        .unwrap()
        .iter()
        .find(|f| f["fd"] == 0);
    let target = first.map_or("", |f| f["target"].as_str().unwrap());
    assert!(["", "/dev/null"].contains(&target), "{target}");
}

/// Only its user may enter it: root without CAP_DAC_OVERRIDE may not.
fn cwd_of_a_user_who_cannot_enter_it_before(lab: &Lab) {
    let bundle = lab.bundle().dir("private").set("/process/cwd", "/private");
    let dir = bundle.rootfs().join("private");
    std::os::unix::fs::chown(&dir, Some(1000), Some(1000)).unwrap();
    crate::bundle::set_mode(&dir, 0o700);
    let bundle = bundle.set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    assert_eq!(lab.facts(&bundle)["cwd"], "/private");
}

fn cwd_must_be_reachable_for_its_user(lab: &Lab) {
    let bundle = lab
        .bundle()
        .file("etc/file", "")
        .set("/process/cwd", "/etc/file");
    let output = lab.run(&bundle).code(1);
    assert!(
        output.stderr.to_lowercase().contains("not a directory"),
        "{output}"
    );
}

fn refused_at_create(lab: &Lab, bundle: &Bundle) -> String {
    let output = lab
        .on_bundle("create", bundle, &[], &lab.id())
        .run()
        .code(1);
    output.stderr
}

fn a_missing_program_is_told_at_create(lab: &Lab) {
    let error = refused_at_create(lab, &lab.bundle().args(&["/bin/missing"]));
    assert!(
        error.contains("no such file or directory") || error.contains("not found"),
        "{error}"
    );
    let error = refused_at_create(lab, &lab.bundle().args(&["missing"]));
    assert!(error.contains("executable file not found"), "{error}");
}

fn a_program_without_permission_is_told_at_create(lab: &Lab) {
    let error = refused_at_create(
        lab,
        &lab.bundle().file("bin/text", "x").args(&["/bin/text"]),
    );
    assert!(error.contains("permission denied"), "{error}");
}

/// Engines give 126 or 127 for one of these phrases.
fn a_directory_is_no_program(lab: &Lab) {
    let error = refused_at_create(lab, &lab.bundle().args(&["/etc"]));
    assert!(
        error.contains("permission denied") || error.contains("is a directory"),
        "{error}"
    );
}

fn a_missing_interpreter_is_told(lab: &Lab) {
    let bundle = lab
        .bundle()
        .executable("bin/script", "#!/no/such/shell\n")
        .args(&["/bin/script"]);
    let output = lab.run(&bundle);
    assert_ne!(output.end, crate::output::End::Code(0));
    assert!(
        output
            .stderr
            .to_lowercase()
            .contains("no such file or directory"),
        "{output}"
    );
    if lab.is_husk() {
        let output = output.code(1);
        assert!(output.stderr.contains("interpreter"), "{output}");
    }
}

fn two_hundred_variables_and_a_long_argument_are_passed(lab: &Lab) {
    let mut env: Vec<String> = (0..200)
        .map(|n| format!("V{n}={}", "x".repeat(500)))
        .collect();
    env.push("HOME=/".into());
    let long = "y".repeat(100_000);
    let bundle = lab
        .bundle()
        .set("/process/env", json!(env))
        .args(&[PAYLOAD, "facts", "--", "rm", &long]);
    let output = lab.run(&bundle).ok();
    let facts = &output.lines()[0];
    assert_eq!(facts["env"].as_array().unwrap().len(), 201);
    assert_eq!(facts["args"][4], long);
}
