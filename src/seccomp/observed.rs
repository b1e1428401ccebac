//! What a filter denies, told instead of denied: `run --seccomp-log`.

use std::collections::BTreeMap;

use super::Filter;
use super::action::Action;
use super::arch::Arch;
use super::interpreter::{self, Call};
use super::table::{self, Syscall};

/// BPF_RET | BPF_K.
const RETURN: u16 = 0x06;

impl Filter {
    /// The same filter, but what it denies waits for an answer.
    pub fn asking(&self) -> Filter {
        let mut asking = self.clone();
        for instruction in &mut asking.program {
            if instruction.code == RETURN && Action::from_value(instruction.k).is_denial() {
                instruction.k = libc::SECCOMP_RET_USER_NOTIF;
            }
        }
        asking.flags |= libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
        asking
    }

    /// What the filter itself answers.
    pub fn decide(&self, call: &libc::seccomp_data) -> Action {
        let is_big_endian = cfg!(target_endian = "big");
        let outcome = interpreter::run(
            &self.program,
            &Call {
                arch: call.arch,
                number: call.nr.cast_unsigned(),
                args: call.args,
                is_big_endian,
            },
        );
        Action::from_value(outcome.value)
    }
}

/// One call that was denied.
#[derive(Debug, Clone)]
pub struct Denied {
    pub count: u64,
    pub answer: Action,
    /// Of the first time.
    pub args: [u64; 6],
    /// Name of the program that made it first.
    pub program: String,
}

/// By AUDIT_ARCH_* and number.
pub type Calls = BTreeMap<(u32, u32), Denied>;

/// The ABI and the name of a call; the number where no table has it.
pub fn name(arch: u32, number: u32) -> (&'static str, String) {
    // x86_64 and x32 share their value.
    const X32: u32 = 0x4000_0000;
    let is_x32 = number & X32 != 0;
    let known = Arch::ALL.into_iter().find(|known| {
        known.audit() == arch && (*known == Arch::X32) == (is_x32 && arch == Arch::X32.audit())
    });
    let Some(known) = known else {
        return ("unknown", number.to_string());
    };
    let found = table::names().find(|name| {
        let slot = Syscall::named(name).and_then(|call| call.on(known));
        slot.is_some_and(|slot| slot.number() | if known == Arch::X32 { X32 } else { 0 } == number)
    });
    (
        known.name(),
        found.map_or_else(|| number.to_string(), str::to_owned),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxSeccomp;

    #[test]
    fn what_is_denied_asks_and_the_rest_stays() {
        let profile: LinuxSeccomp = serde_json::from_str(
            r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
                {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["write"], "action": "SCMP_ACT_LOG"},
                {"names": ["mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 17},
                {"names": ["kill"], "action": "SCMP_ACT_KILL_PROCESS"}]}"#,
        )
        .unwrap();
        let filter = super::super::compile(&profile).unwrap();
        let asking = filter.asking();
        assert!(asking.notifies() && !filter.notifies());
        let native = Arch::native().unwrap();
        for (call, answer, asks) in [
            ("read", "allow", false),
            ("write", "log", false),
            ("mkdirat", "errno EEXIST", true),
            ("kill", "kill process", true),
            ("mount", "errno EPERM", true),
        ] {
            let number = Syscall::named(call).unwrap().on(native).unwrap().number();
            let data = libc::seccomp_data {
                nr: number.cast_signed(),
                arch: native.audit(),
                instruction_pointer: 0,
                args: [0; 6],
            };
            assert_eq!(filter.decide(&data).to_string(), answer, "{call}");
            let asked = asking.decide(&data).value() == libc::SECCOMP_RET_USER_NOTIF;
            assert_eq!(asked, asks, "{call}");
            assert_eq!(
                name(native.audit(), number),
                (native.name(), call.to_owned())
            );
        }
    }
}
