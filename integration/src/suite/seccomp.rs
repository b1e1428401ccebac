//! Seccomp filters, seen from inside: which calls get which errno.

use std::fs;

use serde_json::{Value, json};

use super::tests;
use crate::bundle::Bundle;
use crate::lab::Lab;
use crate::need::Need;
use crate::output::End;

tests! {
    without_a_profile_there_is_no_filter,
    a_call_gets_the_errno_of_its_rule,
    the_default_action_and_its_errno_are_applied,
    every_argument_operator_compares_as_documented,
    conditions_on_several_arguments_are_all_needed,
    two_rules_for_one_call_are_alternatives,
    kill_process_kills_with_sigsys,
    trap_raises_sigsys,
    log_lets_the_call_through,
    unknown_calls_of_a_profile_are_skipped,
    a_filter_is_loaded_with_and_without_no_new_privileges,
    the_filter_does_not_stop_the_runtime_itself,
    a_32_bit_call_is_filtered_too.needs(&[Need::Husk]),
    crun_errno_ret_of_two_profiles_is_not_mixed_up,
    execve_may_be_the_only_call_denied,
    start_container_hooks_are_filtered_too.needs(&[Need::Husk]),
    the_log_of_a_filter_tells_what_it_denied.needs(&[Need::Husk]),
    the_log_of_a_filter_has_its_limits.needs(&[Need::Husk]),
    filter_flags_are_accepted.needs(&[Need::Husk]),
}

fn with_profile(lab: &Lab, profile: Value) -> Bundle {
    lab.bundle().set("/linux/seccomp", profile)
}

fn deny(calls: Value) -> Value {
    json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": calls })
}

fn without_a_profile_there_is_no_filter(lab: &Lab) {
    let facts = lab.facts(&lab.bundle());
    assert_eq!(
        (&facts["seccomp"], &facts["seccomp_filters"]),
        (&json!(0), &json!(0))
    );
}

fn a_call_gets_the_errno_of_its_rule(lab: &Lab) {
    let profile = deny(json!([
        { "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO" },
        { "names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 71 },
        { "names": ["personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 },
    ]));
    let words = "facts -- syscall mkdirat -100 s:/dev/shm/x 0 -- syscall getppid -- syscall personality 0 -- syscall getpid";
    let answers = lab.ask(with_profile(lab, profile), words);
    assert_eq!(
        (&answers[0]["seccomp"], &answers[0]["seccomp_filters"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(answers[1]["error"], "EPERM");
    assert_eq!(answers[2]["error"], "EPROTO");
    assert_eq!(answers[3]["error"], "ENOSYS");
    assert_eq!(answers[4]["result"], 1);
}

/// Everything that a small static program needs, and nothing else.
fn the_default_action_and_its_errno_are_applied(lab: &Lab) {
    let needed = [
        "arch_prctl",
        "brk",
        "clone",
        "close",
        "dup",
        "execve",
        "execveat",
        "exit",
        "exit_group",
        "fcntl",
        "fstat",
        "futex",
        "getrandom",
        "ioctl",
        "madvise",
        "mmap",
        "mprotect",
        "munmap",
        "newfstatat",
        "open",
        "poll",
        "prctl",
        "pread64",
        "prlimit64",
        "read",
        "readlink",
        "rseq",
        "rt_sigaction",
        "rt_sigprocmask",
        "rt_sigreturn",
        "sched_getaffinity",
        "set_robust_list",
        "set_tid_address",
        "sigaltstack",
        "statx",
        "tgkill",
        "tkill",
        "write",
        "writev",
        "openat",
        "gettid",
        "close_range",
        "epoll_wait",
        "getcwd",
        "chdir",
        "setgroups",
        "setresuid",
        "setresgid",
        "setuid",
        "setgid",
        "capset",
        "capget",
        "fchdir",
        "getdents64",
        "faccessat2",
        "sendmsg",
        "recvmsg",
        "sendto",
        "recvfrom",
        "lseek",
        "access",
        "wait4",
        "fstatfs",
        "statfs",
        "nanosleep",
        "pipe2",
        "clone3",
        "epoll_create1",
        "epoll_ctl",
        "epoll_pwait",
    ];
    for (errno, name) in [
        (Value::Null, "EPERM"),
        (json!(38), "ENOSYS"),
        (json!(13), "EACCES"),
    ] {
        let mut profile = json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [{ "names": needed.as_slice(), "action": "SCMP_ACT_ALLOW" }],
        });
        if !errno.is_null() {
            profile["defaultErrnoRet"] = errno;
        }
        let answers = lab.ask(
            with_profile(lab, profile),
            "syscall getppid -- syscall unshare 0",
        );
        assert!(
            answers.iter().all(|a| a["error"] == name),
            "{name}: {answers:?}"
        );
    }
}

fn every_argument_operator_compares_as_documented(lab: &Lab) {
    // personality(2) takes one argument; 0xffffffff only asks. Its low values change
    // nothing that matters to a static program that ends at once.
    type Case = (
        &'static str,
        u64,
        Option<u64>,
        &'static [u64],
        &'static [u64],
    );
    let cases: [Case; 8] = [
        ("SCMP_CMP_EQ", 8, None, &[8], &[0, 9]),
        ("SCMP_CMP_NE", 8, None, &[0, 9], &[8]),
        ("SCMP_CMP_LT", 8, None, &[0, 7], &[8]),
        ("SCMP_CMP_LE", 8, None, &[0, 8], &[0xffff_ffff]),
        ("SCMP_CMP_GT", 8, None, &[9, 0xffff_ffff], &[0, 8]),
        ("SCMP_CMP_GE", 8, None, &[8, 9], &[0]),
        // value is the mask, valueTwo what is compared (youki had them the other way round).
        (
            "SCMP_CMP_MASKED_EQ",
            0xc,
            Some(8),
            &[8, 9, 0xb],
            &[0, 4, 0xc],
        ),
        ("SCMP_CMP_EQ", 0x1_0000_0008, None, &[0x1_0000_0008], &[8]),
    ];
    for (op, value, two, deny_for, allow_for) in cases {
        let mut arg = json!({ "index": 0, "value": value, "op": op });
        if let Some(two) = two {
            arg["valueTwo"] = json!(two);
        }
        let profile = deny(json!([
            { "names": ["personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": 71, "args": [arg] }
        ]));
        let words: Vec<String> = deny_for
            .iter()
            .chain(allow_for)
            .map(|v| format!("syscall personality {v:#x}"))
            .collect();
        let answers = lab.ask(with_profile(lab, profile), &words.join(" -- "));
        let (denied, allowed) = answers.split_at(deny_for.len());
        assert!(
            denied.iter().all(|a| a["error"] == "EPROTO"),
            "{op} {value}: {denied:?}"
        );
        assert!(
            allowed.iter().all(|a| a["error"] != "EPROTO"),
            "{op} {value}: {allowed:?}"
        );
    }
}

/// CVE-2017-18367: they were alternatives in libseccomp's binding for Go.
fn conditions_on_several_arguments_are_all_needed(lab: &Lab) {
    let profile = deny(json!([{
        "names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 71,
        "args": [
            { "index": 0, "value": 1, "op": "SCMP_CMP_EQ" },
            { "index": 1, "value": 0, "op": "SCMP_CMP_EQ" },
        ],
    }]));
    let words = "syscall kill 1 0 -- syscall kill 1 18 -- syscall kill 0 0";
    let answers = lab.ask(with_profile(lab, profile), words);
    assert_eq!(answers[0]["error"], "EPROTO");
    assert_eq!(answers[1]["result"], 0);
    assert_eq!(answers[2]["result"], 0);
}

fn two_rules_for_one_call_are_alternatives(lab: &Lab) {
    let rule = |value: u64| {
        json!({ "names": ["personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": 71,
            "args": [{ "index": 0, "value": value, "op": "SCMP_CMP_EQ" }] })
    };
    let profile = deny(json!([rule(8), rule(0x2_0008)]));
    let words =
        "syscall personality 0x8 -- syscall personality 0x20008 -- syscall personality 0xffffffff";
    let answers = lab.ask(with_profile(lab, profile), words);
    assert_eq!(
        (&answers[0]["error"], &answers[1]["error"]),
        (&json!("EPROTO"), &json!("EPROTO"))
    );
    assert!(
        answers[2]["result"].is_i64() || answers[2]["result"].is_u64(),
        "{answers:?}"
    );
}

fn kill_process_kills_with_sigsys(lab: &Lab) {
    for action in [
        "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_KILL_THREAD",
        "SCMP_ACT_KILL",
    ] {
        let profile = deny(json!([{ "names": ["getppid"], "action": action }]));
        let bundle = with_profile(lab, profile).payload("syscall getppid -- echo survived");
        let output = lab.run(&bundle).code(128 + libc::SIGSYS);
        assert_eq!(output.stdout, "");
    }
}

fn trap_raises_sigsys(lab: &Lab) {
    let profile = deny(json!([{ "names": ["getppid"], "action": "SCMP_ACT_TRAP" }]));
    let bundle = with_profile(lab, profile)
        .without_namespace("pid")
        .payload("syscall getppid");
    lab.run(&bundle).code(128 + libc::SIGSYS);
}

fn log_lets_the_call_through(lab: &Lab) {
    let profile = deny(json!([{ "names": ["getppid"], "action": "SCMP_ACT_LOG" }]));
    assert_eq!(
        lab.ask(with_profile(lab, profile), "syscall getppid"),
        [json!({ "result": 0 })]
    );
}

fn unknown_calls_of_a_profile_are_skipped(lab: &Lab) {
    let profile = deny(json!([
        { "names": ["no_such_call_at_all", "getppid"], "action": "SCMP_ACT_ERRNO" },
        { "names": ["another_one"], "action": "SCMP_ACT_ERRNO",
          "args": [{ "index": 0, "value": 1, "op": "SCMP_CMP_EQ" }] },
    ]));
    let answers = lab.ask(with_profile(lab, profile), "syscall getppid");
    assert_eq!(answers[0]["error"], "EPERM");
}

fn a_filter_is_loaded_with_and_without_no_new_privileges(lab: &Lab) {
    for nnp in [true, false] {
        for uid in [0, 1000] {
            let profile = deny(json!([{ "names": ["personality"], "action": "SCMP_ACT_ERRNO" }]));
            let bundle = with_profile(lab, profile)
                .set("/process/noNewPrivileges", nnp)
                .set("/process/user/uid", uid);
            let answers = lab.ask(bundle, "facts -- syscall personality 0");
            assert_eq!(answers[0]["seccomp"], 2);
            assert_eq!(answers[0]["nnp"], u8::from(nnp));
            assert_eq!(answers[1]["error"], "EPERM");
        }
    }
}

/// With noNewPrivileges the filter can be the very last step: what only the runtime's own
/// steps need may be denied. (The OCI's suite denies getcwd.)
fn the_filter_does_not_stop_the_runtime_itself(lab: &Lab) {
    let names = [
        "getcwd",
        "setresuid",
        "setuid",
        "setgroups",
        "capset",
        "chdir",
        "fchdir",
        "mount",
        "pivot_root",
        "umount2",
        "sethostname",
        "setns",
        "unshare",
    ];
    let profile = deny(json!([{ "names": names, "action": "SCMP_ACT_ERRNO" }]));
    let names: &[&str] = if lab.is_husk() { &names } else { &["getcwd"] };
    let mut profile = profile;
    profile["syscalls"][0]["names"] = json!(names);
    if !lab.is_husk() {
        return;
    }
    let bundle = with_profile(lab, profile).set("/process/user/uid", 1000);
    let answers = lab.ask(bundle, "syscall getcwd 0 0 -- syscall unshare 0");
    assert!(answers.iter().all(|a| a["error"] == "EPERM"), "{answers:?}");
}

/// Through `int 0x80` a process of x86_64 reaches the calls of i386: an architecture that
/// isn't in the list is not a way around the filter.
fn a_32_bit_call_is_filtered_too(lab: &Lab) {
    let rule = json!([{ "names": ["getppid"], "action": "SCMP_ACT_ERRNO" }]);
    let mut profile = deny(rule.clone());
    profile["architectures"] = json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]);
    let answers = lab.ask(with_profile(lab, profile), "int80 64 -- int80 20");
    assert_eq!(answers[0]["error"], "EPERM");
    assert_eq!(answers[1]["result"], 1);
    // Not in the list: the filter of libseccomp kills such a call.
    let bundle = with_profile(lab, deny(rule)).payload("int80 64");
    let output = lab.run(&bundle);
    assert_ne!(output.end, End::Code(0), "{output}");
}

/// crun's cache of filters leaves errnoRet out of its key.
fn crun_errno_ret_of_two_profiles_is_not_mixed_up(lab: &Lab) {
    for (errno, name) in [(1, "EPERM"), (38, "ENOSYS"), (1, "EPERM")] {
        let profile =
            deny(json!([{ "names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno }]));
        let answers = lab.ask(with_profile(lab, profile), "syscall getppid");
        assert_eq!(answers[0]["error"], name);
    }
}

fn execve_may_be_the_only_call_denied(lab: &Lab) {
    let profile = deny(
        json!([{ "names": ["execve", "execveat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 71 }]),
    );
    let output = lab.run(&with_profile(lab, profile).payload("exit 0"));
    assert_ne!(output.end, End::Code(0));
    assert!(
        output.stderr.to_lowercase().contains("protocol error"),
        "{output}"
    );
}

/// They run programs of the image.
fn start_container_hooks_are_filtered_too(lab: &Lab) {
    for nnp in [true, false] {
        for uid in [0, 1000] {
            let profile = deny(json!([{ "names": ["unshare"], "action": "SCMP_ACT_KILL" }]));
            let bundle = with_profile(lab, profile)
                .set("/process/noNewPrivileges", nnp)
                .set("/process/user/uid", uid)
                .payload("exit 0");
            lab.run(&bundle).ok();
            let bundle = bundle.hook(
                "startContainer",
                &["/bin/payload", "syscall", "unshare", "0"],
            );
            lab.run(&bundle)
                .refused()
                .says("error running startContainer hook #0:")
                .says("bad system call");
        }
    }
}

fn filter_flags_are_accepted(lab: &Lab) {
    for flag in [
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    ] {
        let mut profile = deny(json!([{ "names": ["getppid"], "action": "SCMP_ACT_ERRNO" }]));
        profile["flags"] = json!([flag]);
        let answers = lab.ask(with_profile(lab, profile), "syscall getppid");
        assert_eq!(answers[0]["error"], "EPERM", "{flag}");
    }
    // SPEC_ALLOW is what a profile without flags gets; runc's suite reads it in the log.
    for (flags, number) in [
        (json!(null), 4),
        (json!([]), 0),
        (
            json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"]),
            2,
        ),
        (
            json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]),
            6,
        ),
    ] {
        let mut profile = deny(json!([]));
        profile["flags"] = flags;
        let bundle = with_profile(lab, profile).payload("exit 0");
        let output = lab.run_with(&bundle, &[]).global(&["--debug"]).run().ok();
        let words = format!("\"seccomp filter flags: {number}\"");
        assert!(output.stderr.contains(&words), "{output}");
    }
}

const WATCHED: &str = r#"{ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
    { "names": ["mkdirat", "mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 17 },
    { "names": ["personality"], "action": "SCMP_ACT_ERRNO",
      "args": [{ "index": 0, "value": 7, "op": "SCMP_CMP_EQ" }] }] }"#;

/// The same answers as from the filter itself, and what they were at the end.
fn the_log_of_a_filter_tells_what_it_denied(lab: &Lab) {
    let profile: Value = serde_json::from_str(WATCHED).unwrap();
    for new_privileges in [true, false] {
        let file = lab.path("denied.json");
        let bundle = with_profile(lab, profile.clone())
            .set("/process/noNewPrivileges", !new_privileges)
            .payload("mkdir /dev/shm/a -- mkdir /dev/shm/b -- syscall personality 7 -- syscall personality 0");
        let plain = lab.run(&bundle).ok().lines();
        let option = format!("--seccomp-log={}", file.to_str().unwrap());
        let watched = lab.run_with(&bundle, &[&option]).run().ok().lines();
        assert_eq!(watched, plain);
        let told: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        let calls = told["calls"].as_array().unwrap();
        let count = |name: &str| {
            let of = |call: &&Value| call["syscall"].as_str().unwrap().starts_with(name);
            calls
                .iter()
                .filter(of)
                .map(|call| call["count"].as_u64().unwrap())
                .sum::<u64>()
        };
        assert_eq!((count("mkdir"), count("personality")), (2, 1), "{told}");
        assert_eq!(calls.len(), 2, "{told}");
        let of_mkdir = calls
            .iter()
            .find(|call| call["answer"] == "errno EEXIST")
            .unwrap();
        assert_eq!(of_mkdir["program"], "payload", "{told}");
        assert_eq!(told["rules"][0]["action"], "SCMP_ACT_ALLOW");
        // For people, and with the rule that would let it pass.
        let output = lab.run_with(&bundle, &["--seccomp-log"]).run().ok();
        assert!(
            output
                .stderr
                .contains("1 times: errno EPERM, first by \"payload\": personality(0x7"),
            "{output}"
        );
        assert!(
            output.stderr.contains("\"action\":\"SCMP_ACT_ALLOW\""),
            "{output}"
        );
    }
}

/// A storm of calls is answered, a deadly answer is deadly, and what can't be watched is refused.
fn the_log_of_a_filter_has_its_limits(lab: &Lab) {
    let profile = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        { "names": ["getppid"], "action": "SCMP_ACT_KILL_PROCESS" }] });
    let bundle = with_profile(lab, profile).payload("echo before -- syscall getppid -- echo never");
    let output = lab.run_with(&bundle, &["--seccomp-log"]).run().code(137);
    assert!(
        output.stdout.contains("before") && !output.stdout.contains("never"),
        "{output}"
    );
    assert!(
        output.stderr.contains("kill process") && output.stderr.contains("getppid("),
        "{output}"
    );
    let profile: Value = serde_json::from_str(WATCHED).unwrap();
    let many = vec!["mkdir /dev/shm/a"; 500].join(" -- ");
    let bundle = with_profile(lab, profile).payload(&many);
    let output = lab.run_with(&bundle, &["--seccomp-log"]).run().ok();
    assert!(
        output.stderr.contains(" 500 times: errno EEXIST"),
        "{}",
        output.stderr
    );
    let plain = lab.bundle().payload("echo x");
    let output = lab.run_with(&plain, &["--seccomp-log"]).run().code(1);
    assert!(output.stderr.contains("there is no filter"), "{output}");
    let output = lab
        .run_with(&bundle, &["--seccomp-log", "--detach"])
        .run()
        .code(1);
    assert!(output.stderr.contains("--detach"), "{output}");
}
