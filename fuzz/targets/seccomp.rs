//! Seccomp profiles: what the compiled program answers, run by an interpreter, against the profile read
//! as it stands, rule by rule, without the compiler's plan. And the plan, which `seccomp explain` shows.

#![no_main]

use std::cmp::Ordering;
use std::sync::OnceLock;

use arbitrary::{Arbitrary, Unstructured};
use husk::seccomp::interpreter::{Call, assert_loadable, run};
use husk::seccomp::{self, Arch, compile_for, explain, number};
use libfuzzer_sys::{Corpus, fuzz_target};
use oci_spec::runtime::{
    Arch as OciArch, LinuxSeccomp, LinuxSeccompAction as Kind, LinuxSeccompArg,
    LinuxSeccompArgBuilder, LinuxSeccompOperator as Operator, LinuxSyscall,
};

#[derive(Debug, Arbitrary)]
struct Profile {
    native: u8,
    default: u8,
    default_errno: Option<u16>,
    architectures: Vec<u8>,
    rules: Vec<Rule>,
    calls: [u64; 2],
}

#[derive(Debug, Arbitrary)]
struct Rule {
    names: Vec<Name>,
    action: u8,
    errno: Option<u16>,
    args: Vec<Arg>,
}

#[derive(Debug, Arbitrary)]
struct Arg {
    index: u8,
    value: Value,
    two: Option<Value>,
    operator: u8,
}

/// Few calls, so that rules meet, multiplexers among them; or any.
#[derive(Debug, Clone, Copy)]
struct Name(&'static str);

impl<'a> Arbitrary<'a> for Name {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        static ALL: OnceLock<Vec<&str>> = OnceLock::new();
        const COMMON: [&str; 16] = [
            "read",
            "clone",
            "personality",
            "socket",
            "socketcall",
            "ipc",
            "shmget",
            "semop",
            "sendto",
            "mmap2",
            "set_tls",
            "futex_waitv",
            "arch_prctl",
            "pidfd_open",
            "readv",
            "no_such_call",
        ];
        let all = ALL.get_or_init(|| {
            let mut names: Vec<&str> = seccomp::names().collect();
            names.sort_unstable();
            names
        });
        Ok(Name(match u.ratio(3, 4)? {
            true => u.choose(&COMMON)?,
            false => u.choose(all)?,
        }))
    }
}

#[derive(Debug, Clone, Copy)]
struct Value(u64);

impl<'a> Arbitrary<'a> for Value {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        const COMMON: [u64; 12] = [
            0,
            1,
            2,
            5,
            0x1c,
            0x7fff_ffff,
            0x8000_0000,
            0xffff_ffff,
            0x1_0000_0000,
            0x1_0000_0005,
            0x7e02_0000,
            u64::MAX,
        ];
        Ok(Value(match u.ratio(7, 8)? {
            true => *u.choose(&COMMON)?,
            false => u.arbitrary()?,
        }))
    }
}

const KINDS: [Kind; 9] = [
    Kind::ScmpActAllow,
    Kind::ScmpActErrno,
    Kind::ScmpActKill,
    Kind::ScmpActKillProcess,
    Kind::ScmpActKillThread,
    Kind::ScmpActTrap,
    Kind::ScmpActTrace,
    Kind::ScmpActLog,
    Kind::ScmpActNotify,
];
const OPERATORS: [Operator; 7] = [
    Operator::ScmpCmpNe,
    Operator::ScmpCmpLt,
    Operator::ScmpCmpLe,
    Operator::ScmpCmpEq,
    Operator::ScmpCmpGe,
    Operator::ScmpCmpGt,
    Operator::ScmpCmpMaskedEq,
];
const ARCHITECTURES: [OciArch; 11] = [
    OciArch::ScmpArchX86_64,
    OciArch::ScmpArchX86,
    OciArch::ScmpArchX32,
    OciArch::ScmpArchAarch64,
    OciArch::ScmpArchArm,
    OciArch::ScmpArchRiscv64,
    OciArch::ScmpArchS390x,
    OciArch::ScmpArchS390,
    OciArch::ScmpArchPpc64le,
    OciArch::ScmpArchLoongarch64,
    OciArch::ScmpArchNative,
];

fn of<T: Copy>(all: &[T], number: u8) -> T {
    all[usize::from(number) % all.len()]
}

/// An errno where the action takes one.
fn errno(kind: Kind, errno: Option<u16>) -> Option<u32> {
    match kind {
        Kind::ScmpActErrno => errno.map(|errno| u32::from(errno) % 4096),
        Kind::ScmpActTrace => errno.map(u32::from),
        _ => None,
    }
}

fn profile(profile: &Profile) -> LinuxSeccomp {
    let default = of(&KINDS, profile.default);
    let syscalls: Vec<LinuxSyscall> = profile.rules.iter().map(rule).collect();
    let mut made = LinuxSeccomp::default();
    made.set_default_action(default)
        .set_default_errno_ret(errno(default, profile.default_errno))
        .set_architectures(Some(
            profile
                .architectures
                .iter()
                .map(|arch| of(&ARCHITECTURES, *arch))
                .collect(),
        ))
        .set_syscalls(Some(syscalls));
    made
}

fn rule(rule: &Rule) -> LinuxSyscall {
    let kind = of(&KINDS, rule.action);
    let args = rule.args.iter().map(|arg| {
        LinuxSeccompArgBuilder::default()
            .index(usize::from(arg.index % 6))
            .value(arg.value.0)
            .value_two(arg.two.map_or(0, |two| two.0))
            .op(of(&OPERATORS, arg.operator))
            .build()
            .unwrap()
    });
    let mut made = LinuxSyscall::default();
    made.set_names(rule.names.iter().map(|name| name.0.to_owned()).collect())
        .set_action(kind)
        .set_errno_ret(errno(kind, rule.errno))
        .set_args(Some(args.collect()));
    made
}

/// SECCOMP_RET_*.
fn value(kind: Kind, errno: Option<u32>) -> u32 {
    match kind {
        Kind::ScmpActKill | Kind::ScmpActKillThread => 0,
        Kind::ScmpActKillProcess => 0x8000_0000,
        Kind::ScmpActTrap => 0x0003_0000,
        Kind::ScmpActErrno => 0x0005_0000 | errno.unwrap_or(1),
        Kind::ScmpActNotify => 0x7fc0_0000,
        Kind::ScmpActTrace => 0x7ff0_0000 | errno.unwrap_or(1),
        Kind::ScmpActLog => 0x7ffc_0000,
        Kind::ScmpActAllow => 0x7fff_0000,
    }
}

/// The kernel's order of answers, as signed numbers of their upper half.
fn rank(value: u32) -> i32 {
    (value & 0xffff_0000) as i32
}

/// A test of one argument, as an ABI sees it.
#[derive(Clone, Copy, PartialEq)]
struct Test {
    index: usize,
    operator: Operator,
    value: u64,
    mask: u64,
}

impl Test {
    fn new(arg: &LinuxSeccompArg, arch: Arch) -> Option<Test> {
        let seen = if arch.is_wide() {
            u64::MAX
        } else {
            0xffff_ffff
        };
        let (value, mask) = match arg.op() {
            Operator::ScmpCmpMaskedEq => (arg.value_two().unwrap_or(0) & arg.value(), arg.value()),
            _ => (arg.value(), u64::MAX),
        };
        let test = Test {
            index: arg.index(),
            operator: arg.op(),
            value: value & seen,
            mask: mask & seen,
        };
        (test.mask != 0).then_some(test)
    }

    fn holds(&self, args: &[u64; 6]) -> bool {
        let arg = args[self.index];
        match self.operator {
            Operator::ScmpCmpNe => arg != self.value,
            Operator::ScmpCmpLt => arg < self.value,
            Operator::ScmpCmpLe => arg <= self.value,
            Operator::ScmpCmpEq => arg == self.value,
            Operator::ScmpCmpGe => arg >= self.value,
            Operator::ScmpCmpGt => arg > self.value,
            Operator::ScmpCmpMaskedEq => arg & self.mask == self.value,
        }
    }

    /// libseccomp's order of rules on one call: later arguments, equalities, narrower ranges first.
    fn order(&self, other: &Test) -> Ordering {
        let class = |test: &Test| match test.operator {
            Operator::ScmpCmpLt | Operator::ScmpCmpLe => 1,
            Operator::ScmpCmpGt | Operator::ScmpCmpGe => 2,
            _ => 0,
        };
        let by_value = self.value.cmp(&other.value);
        let by_value = if class(self) == 1 {
            by_value
        } else {
            by_value.reverse()
        };
        other
            .index
            .cmp(&self.index)
            .then(class(self).cmp(&class(other)))
            .then(by_value)
    }
}

/// The profile by itself.
struct Reading<'a> {
    profile: &'a LinuxSeccomp,
    default: u32,
    abis: Vec<Arch>,
}

impl Reading<'_> {
    fn rules(&self) -> &[LinuxSyscall] {
        self.profile.syscalls().as_deref().unwrap_or_default()
    }

    /// The answer to a call, by number (x32's with its bit).
    fn answer(&self, arch: Arch, nr: u32, args: &[u64; 6]) -> u32 {
        const KILL_THREAD: u32 = 0;
        const ENOSYS: u32 = 0x0005_0026;
        if !self.abis.contains(&arch) {
            return KILL_THREAD;
        }
        // Newer than all that the profile names: no such call.
        let denies = !matches!(
            self.default & 0x7fff_0000,
            0x7fff_0000 | 0x7ffc_0000 | 0x7ff0_0000
        );
        let named = self.rules().iter().flat_map(LinuxSyscall::names);
        let newest = named
            .filter_map(|name| number(name, arch))
            .filter(|nr| !is_private_to_arm(arch, *nr))
            .max();
        let s390 = matches!(arch, Arch::S390 | Arch::S390x);
        if let Some(newest) = newest
            && denies
            && (nr > newest && !is_private_to_arm(arch, nr) || s390 && nr == 0)
        {
            return ENOSYS;
        }
        let seen = args.map(|arg| {
            if arch.is_wide() {
                arg
            } else {
                arg & 0xffff_ffff
            }
        });
        let mut clauses: Vec<(Vec<Test>, u32)> = Vec::new();
        for rule in self.rules() {
            let action = value(rule.action(), rule.errno_ret());
            if action == self.default {
                continue;
            }
            for name in rule.names() {
                for clause in self.clauses(rule, name, arch, nr, action) {
                    if clause.is_empty() {
                        return action;
                    }
                    if !clauses.iter().any(|(other, _)| *other == clause) {
                        clauses.push((clause, action));
                    }
                }
            }
        }
        if clauses.iter().any(|(_, action)| *action != clauses[0].1) {
            clauses.sort_by(|(a, _), (b, _)| {
                let different = a
                    .iter()
                    .zip(b)
                    .map(|(a, b)| a.order(b))
                    .find(|order| order.is_ne());
                different.unwrap_or_else(|| b.len().cmp(&a.len()))
            });
        }
        let holds = clauses
            .iter()
            .find(|(tests, _)| tests.iter().all(|test| test.holds(&seen)));
        holds.map_or(self.default, |(_, action)| *action)
    }

    /// What a rule's `name` says of the call: lists of tests, any of which is enough.
    fn clauses(
        &self,
        rule: &LinuxSyscall,
        name: &str,
        arch: Arch,
        nr: u32,
        action: u32,
    ) -> Vec<Vec<Test>> {
        let args = rule.args().as_deref().unwrap_or_default();
        let mut clauses = Vec::new();
        if number(name, arch) == Some(nr) {
            let tests = |args: &[LinuxSeccompArg]| -> Vec<Test> {
                let mut args = args.to_vec();
                args.sort_by_key(LinuxSeccompArg::index);
                args.iter().filter_map(|arg| Test::new(arg, arch)).collect()
            };
            let repeats = args
                .iter()
                .enumerate()
                .any(|(at, arg)| args[..at].iter().any(|other| other.index() == arg.index()));
            match repeats {
                true => clauses.extend(args.iter().map(|arg| tests(std::slice::from_ref(arg)))),
                false => clauses.push(tests(args)),
            }
        }
        if let Some((multiplexer, part)) = part_of(name)
            && arch.has_multiplexers()
            && number(multiplexer, arch) == Some(nr)
            && (args.is_empty() || rank(action) <= rank(self.default))
            && !self.decides(multiplexer)
        {
            clauses.push(vec![Test {
                index: 0,
                operator: Operator::ScmpCmpEq,
                value: part,
                mask: mask(arch),
            }]);
        }
        clauses
    }

    /// Whether a rule without conditions is about the multiplexer as such.
    fn decides(&self, multiplexer: &str) -> bool {
        self.rules().iter().any(|rule| {
            rule.args().as_deref().is_none_or(<[_]>::is_empty)
                && rule.names().iter().any(|name| name == multiplexer)
        })
    }
}

fn mask(arch: Arch) -> u64 {
    if arch.is_wide() {
        u64::MAX
    } else {
        0xffff_ffff
    }
}

/// ARM's private calls are outside of the numbers that grow with each kernel.
fn is_private_to_arm(arch: Arch, nr: u32) -> bool {
    arch == Arch::Arm && nr >= 0xf_0000
}

/// linux/net.h and linux/ipc.h.
fn part_of(name: &str) -> Option<(&'static str, u64)> {
    const SOCKETCALL: [&str; 20] = [
        "socket",
        "bind",
        "connect",
        "listen",
        "accept",
        "getsockname",
        "getpeername",
        "socketpair",
        "send",
        "recv",
        "sendto",
        "recvfrom",
        "shutdown",
        "setsockopt",
        "getsockopt",
        "sendmsg",
        "recvmsg",
        "accept4",
        "recvmmsg",
        "sendmmsg",
    ];
    const IPC: [(&str, u64); 12] = [
        ("semop", 1),
        ("semget", 2),
        ("semctl", 3),
        ("semtimedop", 4),
        ("msgsnd", 11),
        ("msgrcv", 12),
        ("msgget", 13),
        ("msgctl", 14),
        ("shmat", 21),
        ("shmdt", 22),
        ("shmget", 23),
        ("shmctl", 24),
    ];
    let socket = SOCKETCALL.iter().position(|other| *other == name);
    let socket = socket.map(|at| ("socketcall", at as u64 + 1));
    socket.or_else(|| {
        IPC.iter()
            .find(|(other, _)| *other == name)
            .map(|(_, part)| ("ipc", *part))
    })
}

fuzz_target!(|input: Profile| -> Corpus {
    let native = of(&Arch::ALL, input.native);
    let made = profile(&input);
    let filter = match compile_for(&made, native) {
        Ok(filter) => filter,
        Err(error) => {
            let text = error.to_string();
            let expected = ["contradicts", "NOTIFY", "needs the name", "instructions"];
            assert!(expected.iter().any(|part| text.contains(part)), "{text}");
            return Corpus::Keep;
        }
    };
    assert_loadable(filter.program());
    let listed = made.architectures().iter().flatten();
    let listed = listed
        .filter_map(|arch| Arch::from_oci(*arch, native))
        .filter(|arch| native.may_meet(*arch));
    let reading = Reading {
        profile: &made,
        default: value(made.default_action(), made.default_errno_ret()),
        abis: [native].into_iter().chain(listed).collect(),
    };
    let plain = [
        input.calls[0],
        input.calls[1],
        0,
        u64::MAX,
        1,
        0x5555_5555_5555_5555,
    ];
    // At each value that a condition names, and beside it, in both halves.
    let mut lists = vec![plain];
    for arg in reading
        .rules()
        .iter()
        .filter_map(|rule| rule.args().as_deref())
        .flatten()
        .take(6)
    {
        let two = arg.value_two().unwrap_or(0);
        for value in [arg.value(), two] {
            for near in [
                value,
                value.wrapping_add(1),
                value.wrapping_sub(1),
                value ^ 1 << 32,
            ] {
                let mut args = plain;
                args[arg.index()] = near;
                lists.push(args);
            }
        }
        // Several tests of one rule at once.
        let mut args = *lists.last().unwrap_or(&plain);
        args[arg.index()] = arg.value();
        lists.push(args);
    }
    for arch in Arch::ALL {
        let bit = if arch == Arch::X32 { 0x4000_0000 } else { 0 };
        let mut numbers = vec![(bit, None), (bit | 1_000, None), (bit | 0xf_0006, None)];
        for name in reading.rules().iter().flat_map(LinuxSyscall::names).take(8) {
            for name in [
                Some(name.as_str()),
                part_of(name).map(|(multiplexer, _)| multiplexer),
            ]
            .into_iter()
            .flatten()
            {
                if let Some(nr) = number(name, arch) {
                    numbers.extend([
                        (nr, Some(name)),
                        (nr + 1, None),
                        (nr.saturating_sub(1) | bit, None),
                    ]);
                }
            }
        }
        for (nr, name) in numbers {
            for args in &lists {
                let call = Call {
                    arch: arch.audit(),
                    number: nr,
                    args: *args,
                    is_big_endian: arch.is_big_endian(),
                };
                let outcome = run(filter.program(), &call);
                let expected = reading.answer(arch, nr, args);
                assert_eq!(
                    outcome.value, expected,
                    "{arch:?} {nr:#x} {args:x?} of {input:?} on {native:?}"
                );
                if let Some(name) = name {
                    let verdict = explain(&made, native, arch, name, args).unwrap();
                    assert_eq!(
                        verdict.action.value(),
                        expected,
                        "explain {name} {arch:?} of {input:?}"
                    );
                }
            }
        }
    }
    Corpus::Keep
});
