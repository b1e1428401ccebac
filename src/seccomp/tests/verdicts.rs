//! What a profile is refused for, what is told about it, and what explains it.

use super::*;

#[test]
fn refusals_point_at_the_place() {
    let arg = |index: u64| json!([{ "index": index, "value": 1, "op": "SCMP_CMP_EQ" }]);
    let twice = json!([
        allow(&["ioctl"], arg(1)),
        { "names": ["ioctl"], "action": "SCMP_ACT_LOG", "args": arg(1) },
    ]);
    for (rules, more, pointer, hint) in [
        (
            json!([allow(&["read"], arg(6))]),
            json!({}),
            "syscalls/0/args/0/index",
            "0 to 5",
        ),
        (
            json!([allow(&[], json!([]))]),
            json!({}),
            "syscalls/0/names",
            "",
        ),
        (
            json!([allow(&["read", ""], json!([]))]),
            json!({}),
            "syscalls/0/names/1",
            "",
        ),
        (twice, json!({}), "syscalls/1", "keep one"),
        (
            json!([{ "names": ["read"], "action": "SCMP_ACT_ALLOW", "errnoRet": 1 }]),
            json!({}),
            "syscalls/0/errnoRet",
            "SCMP_ACT_TRACE",
        ),
        (
            json!([]),
            json!({ "defaultAction": "SCMP_ACT_KILL", "defaultErrnoRet": 1 }),
            "defaultErrnoRet",
            "SCMP_ACT_ERRNO",
        ),
        (
            json!([]),
            json!({ "defaultErrnoRet": 5000 }),
            "defaultErrnoRet",
            "4095",
        ),
        (
            json!([]),
            json!({ "defaultAction": "SCMP_ACT_NOTIFY" }),
            "defaultAction",
            "name the calls",
        ),
    ] {
        let error = compile_for(&profile(rules, more), Arch::X86_64).unwrap_err();
        assert_eq!(
            error.pointer(),
            Some(format!("/linux/seccomp/{pointer}").as_str())
        );
        assert!(error.remedy().unwrap_or_default().contains(hint), "{error}");
    }
}

#[test]
fn what_has_no_effect_is_told() {
    let rules = json!([allow(
        &["read", "personalty", "arm_fadvise64_64"],
        json!([])
    )]);
    let more = json!({ "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_ARM", "SCMP_ARCH_MIPS"],
                       "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"] });
    let filter = compiled(&profile(rules, more), Arch::X86_64);
    let told: Vec<String> = filter.warnings().iter().map(Warning::to_string).collect();
    assert_eq!(
        told,
        [
            "seccomp: SCMP_ARCH_ARM (/linux/seccomp/architectures/1) can't run here and is ignored",
            "seccomp: SCMP_ARCH_MIPS (/linux/seccomp/architectures/2) can't run here and is ignored",
            "seccomp: unknown system call \"personalty\" (/linux/seccomp/syscalls/0/names/1) \
             is ignored: did you mean personality?",
            "seccomp: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (/linux/seccomp/flags/0) \
             is ignored: no rule has SCMP_ACT_NOTIFY",
        ]
    );
}

#[test]
fn flags_of_the_filter() {
    let flag = |name: &str| json!([format!("SECCOMP_FILTER_FLAG_{name}")]);
    for (flags, plain, notifying) in [
        (json!(null), 4, 12),
        (json!([]), 0, 8),
        (flag("LOG"), 2, 10),
        (flag("SPEC_ALLOW"), 4, 12),
        (flag("TSYNC"), 0, 8),
        (flag("WAIT_KILLABLE_RECV"), 0, 40),
    ] {
        for (action, expected) in [("SCMP_ACT_ALLOW", plain), ("SCMP_ACT_NOTIFY", notifying)] {
            let rules = json!([{ "names": ["getppid"], "action": action }]);
            let more = json!({ "flags": flags });
            let filter = compiled(&profile(rules, more), Arch::X86_64);
            assert_eq!(filter.flags(), expected, "{flags} {action}");
            assert_eq!(filter.notifies(), action == "SCMP_ACT_NOTIFY");
        }
    }
}

#[test]
fn explains_which_rule_decides() {
    let eq = json!([{ "index": 0, "value": 3, "op": "SCMP_CMP_EQ" }]);
    let rules = json!([allow(&["read", "statx"], json!([])), allow(&["prctl"], eq)]);
    let profile = profile(rules, json!({ "architectures": ["SCMP_ARCH_X86"] }));
    for (arch, name, argument, value, reason) in [
        (Arch::X86_64, "read", 0, ALLOW, Reason::Rule(0)),
        (Arch::X86_64, "prctl", 3, ALLOW, Reason::Rule(1)),
        (Arch::X86, "prctl", 1 << 32 | 3, ALLOW, Reason::Rule(1)),
        (Arch::X86_64, "prctl", 4, EPERM, Reason::Default),
        (Arch::X86_64, "write", 0, EPERM, Reason::Default),
        (Arch::X86_64, "mseal", 0, ENOSYS, Reason::NewerThanProfile),
        (Arch::X86_64, "chown32", 0, EPERM, Reason::NoSuchCall),
        (
            Arch::X32,
            "read",
            0,
            KILL_THREAD,
            Reason::ArchitectureNotListed,
        ),
    ] {
        let verdict = explain(&profile, Arch::X86_64, arch, name, &with(0, argument)).unwrap();
        assert_eq!(
            (verdict.action.value(), verdict.reason),
            (value, reason),
            "{name} {arch:?}"
        );
    }
}
