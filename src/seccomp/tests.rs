//! Profiles compiled and run in the interpreter.

mod verdicts;

use serde_json::{Value, json};

use super::interpreter::{Call, Outcome, assert_loadable, run};
use super::table::{Slot, Syscall};
use super::*;

const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x5_0001;
const ENOSYS: u32 = 0x5_0026;
const KILL_THREAD: u32 = 0;
const X32_BIT: u32 = 0x4000_0000;

/// A profile that answers EPERM, with these rules; further keys as given.
fn profile(rules: Value, more: Value) -> LinuxSeccomp {
    let mut profile = json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules });
    for (key, value) in more.as_object().unwrap() {
        profile[key] = value.clone();
    }
    serde_json::from_value(profile).unwrap()
}

fn allow(names: &[&str], args: Value) -> Value {
    json!({ "names": names, "action": "SCMP_ACT_ALLOW", "args": args })
}

fn compiled(profile: &LinuxSeccomp, native: Arch) -> Filter {
    let filter = compile_for(profile, native).unwrap();
    assert_loadable(filter.program());
    filter
}

fn call(arch: Arch, name: &str, args: [u64; 6]) -> Call {
    let slot = Syscall::named(name).unwrap().on(arch).unwrap();
    number(arch, slot.number(), args)
}

fn number(arch: Arch, number: u32, args: [u64; 6]) -> Call {
    Call {
        arch: arch.audit(),
        number: number | if arch == Arch::X32 { X32_BIT } else { 0 },
        args,
        is_big_endian: arch.is_big_endian(),
    }
}

fn answer(filter: &Filter, call: Call) -> u32 {
    run(filter.program(), &call).value
}

fn with(argument: usize, value: u64) -> [u64; 6] {
    let mut args = [0x5555_5555_5555_5555; 6];
    args[argument] = value;
    args
}

#[test]
fn operators_compare_64_bits() {
    const V: u64 = 0x5_0000_0007;
    // Below, at and above the value, in its lower and in its upper half.
    let data = [V - 1, V, V + 1, 0x4_ffff_ffff, 0x6_0000_0000, 7, u64::MAX];
    for (op, holds) in [
        ("NE", [true, false, true, true, true, true, true]),
        ("LT", [true, false, false, true, false, true, false]),
        ("LE", [true, true, false, true, false, true, false]),
        ("EQ", [false, true, false, false, false, false, false]),
        ("GE", [false, true, true, false, true, false, true]),
        ("GT", [false, false, true, false, true, false, true]),
    ] {
        for argument in 0..6 {
            let args = json!([{ "index": argument, "value": V, "op": format!("SCMP_CMP_{op}") }]);
            let profile = profile(json!([allow(&["prctl"], args)]), json!({}));
            for arch in [Arch::X86_64, Arch::S390x, Arch::Aarch64] {
                let filter = compiled(&profile, arch);
                for (datum, holds) in data.into_iter().zip(holds) {
                    let call = call(arch, "prctl", with(argument, datum));
                    let expected = if holds { ALLOW } else { EPERM };
                    assert_eq!(answer(&filter, call), expected, "{op} {datum:#x} {arch:?}");
                }
            }
        }
    }
}

#[test]
fn small_abis_see_the_lower_half() {
    let args = json!([{ "index": 1, "value": 0x1_0000_0005_u64, "op": "SCMP_CMP_EQ" }]);
    for (native, arch, name) in [
        (Arch::X86_64, Arch::X86, "SCMP_ARCH_X86"),
        (Arch::X86_64, Arch::X32, "SCMP_ARCH_X32"),
        (Arch::Aarch64, Arch::Arm, "SCMP_ARCH_ARM"),
        (Arch::S390x, Arch::S390, "SCMP_ARCH_S390"),
    ] {
        let more = json!({ "architectures": [name] });
        let filter = compiled(
            &profile(json!([allow(&["keyctl"], args.clone())]), more),
            native,
        );
        assert_eq!(answer(&filter, call(arch, "keyctl", with(1, 5))), ALLOW);
        assert_eq!(answer(&filter, call(arch, "keyctl", with(1, 6))), EPERM);
        assert_eq!(answer(&filter, call(native, "keyctl", with(1, 5))), EPERM);
    }
}

/// youki took `valueTwo` for the mask and `value` for the result: with Docker's rule
/// (mask CLONE_NEW*, result 0) clone(CLONE_NEWUSER) was allowed.
#[test]
fn youki_masked_eq_operands_swapped() {
    const NAMESPACES: u64 = 0x7e02_0000;
    let rule = |two: Value| {
        let args = json!([{ "index": 0, "value": NAMESPACES, "valueTwo": two,
                            "op": "SCMP_CMP_MASKED_EQ" }]);
        profile(
            json!([allow(&["clone"], args)]),
            json!({ "architectures": ["SCMP_ARCH_X86"] }),
        )
    };
    for (two, flags, expected) in [
        (json!(0), 0x11, ALLOW),
        (json!(0), 0x1000_0011, EPERM),
        (json!(0), 0x0002_0000, EPERM),
        (json!(null), 0x1000_0011, EPERM),
        (json!(null), 0x11, ALLOW),
        (json!(0x1000_0000), 0x1000_0011, ALLOW),
        (json!(0x1000_0000), 0x11, EPERM),
        // Bits of valueTwo outside of the mask don't count, as in libseccomp.
        (json!(0x1000_0001), 0x1000_0010, ALLOW),
        // Nor do upper halves of which the mask has nothing.
        (json!(0), 0x1_0000_0011, ALLOW),
    ] {
        let filter = compiled(&rule(two.clone()), Arch::X86_64);
        for arch in [Arch::X86_64, Arch::X86] {
            let answer = answer(&filter, call(arch, "clone", with(0, flags)));
            assert_eq!(answer, expected, "{two} {flags:#x} {arch:?}");
        }
    }
}

/// libseccomp-golang up to 0.9.0 ORed the conditions of one rule.
#[test]
fn cve_2017_18367_conditions_of_one_rule_are_anded() {
    let args = json!([
        { "index": 2, "value": 8, "op": "SCMP_CMP_GE" },
        { "index": 0, "value": 1, "op": "SCMP_CMP_EQ" },
        { "index": 1, "value": 2, "op": "SCMP_CMP_NE" },
    ]);
    let filter = compiled(
        &profile(json!([allow(&["fcntl"], args)]), json!({})),
        Arch::X86_64,
    );
    for (args, expected) in [
        ([1, 3, 8], ALLOW),
        ([2, 3, 8], EPERM),
        ([1, 2, 8], EPERM),
        ([1, 3, 7], EPERM),
        ([2, 2, 7], EPERM),
    ] {
        let args = [args[0], args[1], args[2], 0, 0, 0];
        assert_eq!(
            answer(&filter, call(Arch::X86_64, "fcntl", args)),
            expected,
            "{args:?}"
        );
    }
}

#[test]
fn conditions_on_one_argument_are_rules_of_their_own() {
    let args = json!([
        { "index": 0, "value": 1, "op": "SCMP_CMP_EQ" },
        { "index": 0, "value": 5, "op": "SCMP_CMP_EQ" },
        { "index": 1, "value": 9, "op": "SCMP_CMP_EQ" },
    ]);
    let filter = compiled(
        &profile(json!([allow(&["fcntl"], args)]), json!({})),
        Arch::X86_64,
    );
    for (a, b, expected) in [(1, 0, ALLOW), (5, 0, ALLOW), (0, 9, ALLOW), (2, 8, EPERM)] {
        let call = call(Arch::X86_64, "fcntl", [a, b, 0, 0, 0, 0]);
        assert_eq!(answer(&filter, call), expected, "{a} {b}");
    }
}

#[test]
fn rules_on_one_call() {
    let eq = |value: u64| json!([{ "index": 0, "value": value, "op": "SCMP_CMP_EQ" }]);
    let gt = |value: u64| json!([{ "index": 0, "value": value, "op": "SCMP_CMP_GT" }]);
    let rule = |action: &str, errno: Value, args: Value| json!({ "names": ["prctl"], "action": action, "errnoRet": errno, "args": args });
    let (kill, trap, errno) = ("SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP", "SCMP_ACT_ERRNO");
    const TRAP: u32 = 0x3_0000;
    for (what, rules, argument, expected) in [
        (
            "a rule without conditions beats those with, after it",
            vec![
                rule(trap, Value::Null, json!([])),
                rule(kill, Value::Null, eq(1)),
            ],
            1,
            TRAP,
        ),
        (
            "and before it",
            vec![
                rule(kill, Value::Null, eq(1)),
                rule(trap, Value::Null, json!(null)),
            ],
            1,
            TRAP,
        ),
        (
            "the first without conditions counts",
            vec![
                rule(trap, Value::Null, json!([])),
                rule(kill, Value::Null, json!([])),
            ],
            1,
            TRAP,
        ),
        (
            "one with the default action doesn't",
            vec![
                rule(errno, json!(1), json!([])),
                rule(trap, Value::Null, eq(1)),
            ],
            1,
            TRAP,
        ),
        (
            "the narrower range comes first",
            vec![
                rule(trap, Value::Null, gt(5)),
                rule(errno, json!(7), gt(10)),
            ],
            11,
            0x5_0007,
        ),
        (
            "a mask of nothing is no condition",
            vec![
                rule(kill, Value::Null, eq(1)),
                rule(
                    trap,
                    Value::Null,
                    json!([{ "index": 0, "value": 0, "op": "SCMP_CMP_MASKED_EQ" }]),
                ),
            ],
            1,
            TRAP,
        ),
    ] {
        let filter = compiled(&profile(json!(rules), json!({})), Arch::X86_64);
        let call = call(Arch::X86_64, "prctl", with(0, argument));
        assert_eq!(answer(&filter, call), expected, "{what}");
    }
}

#[test]
fn what_is_newer_than_the_profile_does_not_exist() {
    const KILL: u32 = 0x8000_0000;
    for (action, errno, below, beyond) in [
        ("SCMP_ACT_ERRNO", Value::Null, EPERM, ENOSYS),
        ("SCMP_ACT_ERRNO", json!(38), ENOSYS, ENOSYS),
        ("SCMP_ACT_KILL_PROCESS", Value::Null, KILL, ENOSYS),
        ("SCMP_ACT_KILL", Value::Null, KILL_THREAD, ENOSYS),
        ("SCMP_ACT_TRAP", Value::Null, 0x3_0000, ENOSYS),
        ("SCMP_ACT_TRACE", Value::Null, 0x7ff0_0001, 0x7ff0_0001),
        ("SCMP_ACT_LOG", Value::Null, 0x7ffc_0000, 0x7ffc_0000),
    ] {
        let more = json!({ "defaultAction": action, "defaultErrnoRet": errno,
                           "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"] });
        // x32's own readv is its 515; on the other two pidfd_open is the newest.
        let profile = profile(json!([allow(&["pidfd_open", "readv"], json!([]))]), more);
        let filter = compiled(&profile, Arch::X86_64);
        for (arch, newest) in [(Arch::X86_64, 434), (Arch::X86, 434), (Arch::X32, 515)] {
            let answer = |nr| answer(&filter, number(arch, nr, [0; 6]));
            assert_eq!(answer(newest), ALLOW, "{action} {arch:?}");
            assert_eq!(answer(newest - 1), below, "{action} {arch:?}");
            for nr in [newest + 1, newest + 2, 600, 100_000, 0x3fff_ffff] {
                assert_eq!(answer(nr), beyond, "{action} {arch:?} {nr}");
            }
        }
    }
}

#[test]
fn a_rule_with_the_default_action_counts_as_known() {
    let rules = json!([
        allow(&["read"], json!([])),
        { "names": ["statx"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1 },
    ]);
    let filter = compiled(&profile(rules, json!({})), Arch::X86_64);
    assert_eq!(answer(&filter, number(Arch::X86_64, 332, [0; 6])), EPERM);
    assert_eq!(answer(&filter, number(Arch::X86_64, 333, [0; 6])), ENOSYS);
}

#[test]
fn odd_numbers_of_s390_and_arm() {
    let filter = compiled(
        &profile(json!([allow(&["read"], json!([]))]), json!({})),
        Arch::S390x,
    );
    // What s390's kernels make of calls that they don't know.
    assert_eq!(answer(&filter, number(Arch::S390x, 0, [0; 6])), ENOSYS);
    assert_eq!(answer(&filter, number(Arch::S390x, 1, [0; 6])), EPERM);

    let more = json!({ "architectures": ["SCMP_ARCH_ARM"] });
    let rules = json!([allow(&["set_tls", "read"], json!([]))]);
    let filter = compiled(&profile(rules, more), Arch::Aarch64);
    for (nr, expected) in [
        (3, ALLOW),
        (4, ENOSYS),
        (0xe_ffff, ENOSYS),
        (0xf_0004, EPERM),
        (0xf_0005, ALLOW),
        (0xf_0006, EPERM),
        (0xf_0100, EPERM),
    ] {
        assert_eq!(
            answer(&filter, number(Arch::Arm, nr, [0; 6])),
            expected,
            "{nr:#x}"
        );
    }
}

#[test]
fn abis_that_are_not_listed_are_killed() {
    let rules = json!([allow(&["read", "write", "getpid"], json!([]))]);
    let only_native = compiled(&profile(rules.clone(), json!({})), Arch::X86_64);
    for stranger in [Arch::X86, Arch::X32, Arch::Aarch64, Arch::Arm, Arch::S390x] {
        let answer = answer(&only_native, number(stranger, 3, [0; 6]));
        assert_eq!(answer, KILL_THREAD, "{stranger:?}");
    }
    let more = json!({ "architectures": ["SCMP_ARCH_X32", "SCMP_ARCH_X86_64"] });
    let with_x32 = compiled(&profile(rules, more), Arch::X86_64);
    assert_eq!(answer(&with_x32, number(Arch::X32, 0, [0; 6])), ALLOW);
    assert_eq!(answer(&with_x32, number(Arch::X86, 3, [0; 6])), KILL_THREAD);
    // A tracer's way to skip a call is no x32 call.
    assert_eq!(
        answer(&only_native, number(Arch::X86_64, u32::MAX, [0; 6])),
        EPERM
    );
}

/// The kernel's bitmap covers what needs no argument, and a search is short.
#[test]
fn constant_answers_need_no_argument() {
    let mut names: Vec<&str> = table::names().step_by(2).collect();
    names.extend(["socketcall", "ipc"]);
    let eq = json!([{ "index": 0, "value": 3, "op": "SCMP_CMP_EQ" }]);
    let rules = json!([
        allow(&names, json!([])),
        allow(&["personality", "clone"], eq)
    ]);
    let more = json!({ "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"] });
    let profile = profile(rules, more);
    let filter = compiled(&profile, Arch::X86_64);
    for arch in [Arch::X86_64, Arch::X86, Arch::X32] {
        for nr in 0..600 {
            let Outcome {
                steps,
                saw_arguments,
                ..
            } = run(filter.program(), &number(arch, nr, [0; 6]));
            assert!(steps <= 24, "{steps} instructions for {nr} on {arch:?}");
            let conditional = ["personality", "clone"]
                .iter()
                .filter_map(|name| Syscall::named(name)?.on(arch).map(Slot::number));
            let conditional = conditional.collect::<Vec<u32>>().contains(&nr);
            assert!(conditional || !saw_arguments, "{nr} on {arch:?}");
        }
    }
}

/// The calls for which the kernel runs the program every time get to their answer soonest.
#[test]
fn one_of_several_values_is_found_soon() {
    const UPPER: u64 = 7 << 32;
    let values = [0, 8, 0x2_0000, UPPER, UPPER | 8, 0x2_0008, 0xffff_ffff];
    let one_of = values.map(|value| {
        let eq = json!([{ "index": 0, "value": value, "op": "SCMP_CMP_EQ" }]);
        allow(&["personality"], eq)
    });
    let mut rules = one_of.to_vec();
    rules.push(allow(&["getpid", "clone", "socket"], json!([])));
    for arch in [Arch::X86_64, Arch::S390x, Arch::Arm] {
        let filter = compiled(&profile(json!(rules), json!({})), arch);
        for value in 0..64_u64 {
            for value in [
                value,
                value << 32,
                value << 14,
                UPPER | value,
                !value,
                0xffff_ffff ^ value,
            ] {
                let seen = match arch.is_wide() {
                    true => u64::MAX,
                    false => u64::from(u32::MAX),
                };
                let allowed = values.iter().any(|one| one & seen == value & seen);
                let found = run(filter.program(), &call(arch, "personality", with(0, value)));
                let expected = match allowed {
                    true => libc::SECCOMP_RET_ALLOW,
                    false => libc::SECCOMP_RET_ERRNO | libc::EPERM as u32,
                };
                assert_eq!(found.value, expected, "{value:#x} on {arch:?}");
                assert!(found.steps <= 15, "{} for {value:#x}", found.steps);
            }
        }
    }
}

/// Subtrees of more than 255 instructions: the program does what the plan says.
#[test]
fn far_jumps() {
    let names: Vec<&str> = table::names().collect();
    let rules = names.iter().enumerate().filter(|(i, _)| i % 3 != 0);
    let rules: Vec<Value> = rules
        .map(|(i, name)| {
            let args = json!([{ "index": i % 6, "value": i, "op": "SCMP_CMP_GT" }]);
            json!({ "names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": 2 + i, "args": args })
        })
        .collect();
    let profile = profile(json!(rules), json!({ "architectures": ["SCMP_ARCH_ARM"] }));
    for native in [Arch::X86_64, Arch::Aarch64, Arch::S390x] {
        let filter = compiled(&profile, native);
        assert!(filter.program().len() > 1000);
        for arch in [native, Arch::Arm] {
            for name in names.iter().step_by(5) {
                if Syscall::named(name)
                    .and_then(|call| call.on(arch))
                    .is_none()
                {
                    continue;
                }
                for args in [[0; 6], [200; 6], [u64::MAX; 6]] {
                    let verdict = explain(&profile, native, arch, name, &args).unwrap();
                    let answer = answer(&filter, call(arch, name, args));
                    assert_eq!(answer, verdict.action.value(), "{name} {arch:?} {args:?}");
                }
            }
        }
    }
}

#[test]
fn a_program_too_long_for_the_kernel_is_refused() {
    let rules: Vec<Value> = (0..4100)
        .map(|i| {
            allow(
                &["ioctl"],
                json!([{ "index": 1, "value": i, "op": "SCMP_CMP_EQ" }]),
            )
        })
        .collect();
    let error = compile_for(&profile(json!(rules), json!({})), Arch::X86_64).unwrap_err();
    assert_eq!(error.pointer(), Some("/linux/seccomp"));
    assert!(error.remedy().unwrap().contains("4096"));
}

/// Docker's first answer to CVE-2026-31431 let socket(2) pass but for AF_ALG; libseccomp
/// then let all of socketcall(SYS_SOCKET) pass, whose arguments no filter can see.
#[test]
fn cve_2026_31431_arguments_behind_socketcall() {
    let not_alg = json!([{ "index": 0, "value": 38, "op": "SCMP_CMP_NE" }]);
    let alg = json!([{ "index": 0, "value": 38, "op": "SCMP_CMP_EQ" }]);
    let x86 = json!(["SCMP_ARCH_X86"]);
    let strict = json!({ "architectures": x86 });
    let lenient = json!({ "architectures": x86, "defaultAction": "SCMP_ACT_ALLOW" });
    let deny =
        |args: Value| json!({ "names": ["socket"], "action": "SCMP_ACT_ERRNO", "args": args });
    let explicit = json!({ "names": ["socketcall"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1 });
    for (what, rules, more, socket, bind) in [
        (
            "some arguments only",
            json!([allow(&["socket"], not_alg)]),
            &strict,
            EPERM,
            EPERM,
        ),
        (
            "all arguments",
            json!([allow(&["socket"], json!([]))]),
            &strict,
            ALLOW,
            EPERM,
        ),
        (
            "denied in two ways",
            json!([deny(alg.clone()), { "names": ["socket"], "action": "SCMP_ACT_KILL",
                                "args": [{ "index": 0, "value": 40, "op": "SCMP_CMP_EQ" }] }]),
            &lenient,
            EPERM,
            ALLOW,
        ),
        (
            "denied for some",
            json!([deny(alg)]),
            &lenient,
            EPERM,
            ALLOW,
        ),
        (
            "the profile denies socketcall itself",
            json!([allow(&["socket", "bind"], json!([])), explicit]),
            &strict,
            EPERM,
            EPERM,
        ),
        (
            "the profile allows socketcall itself",
            json!([allow(&["socketcall"], json!([]))]),
            &strict,
            ALLOW,
            ALLOW,
        ),
    ] {
        let filter = compiled(&profile(rules, more.clone()), Arch::X86_64);
        let answer = |part| answer(&filter, call(Arch::X86, "socketcall", with(0, part)));
        assert_eq!((answer(1), answer(2)), (socket, bind), "{what}");
    }
}
