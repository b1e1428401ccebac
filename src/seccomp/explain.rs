//! Which line of a profile decides a call.

use oci_spec::runtime::LinuxSeccomp;

use super::action::Action;
use super::arch::Arch;
use super::condition::ARGUMENTS;
use super::plan::{Answer, Plan, Source};
use super::table::Syscall;
use crate::error::Result;

/// The answer to one call, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    pub action: Action,
    pub reason: Reason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// `/linux/seccomp/syscalls/N`.
    Rule(usize),
    /// No rule holds: `/linux/seccomp/defaultAction`.
    Default,
    /// The call is newer than all that the profile names on this ABI.
    NewerThanProfile,
    /// The ABI isn't one of `/linux/seccomp/architectures`.
    ArchitectureNotListed,
    /// The ABI has no such call.
    NoSuchCall,
}

/// Decides the call `name` with `args` of a program of the ABI `arch` on a machine whose
/// own ABI is `native`. Reads the plan, not the program made from it.
pub fn explain(
    profile: &LinuxSeccomp,
    native: Arch,
    arch: Arch,
    name: &str,
    args: &[u64; ARGUMENTS],
) -> Result<Verdict> {
    let plan = Plan::new(profile, native)?;
    let verdict = |action, reason| Ok(Verdict { action, reason });
    let Some(abi) = plan.abis.iter().find(|abi| abi.arch == arch) else {
        return verdict(Action::KILL_THREAD, Reason::ArchitectureNotListed);
    };
    let Some(slot) = Syscall::named(name).and_then(|call| call.on(arch)) else {
        return verdict(plan.default, Reason::NoSuchCall);
    };
    let decision = plan.decide(abi, slot);
    let reason = |source| match source {
        Source::Default => Reason::Default,
        Source::Tail => Reason::NewerThanProfile,
        Source::Rule(rule) => Reason::Rule(rule as usize),
    };
    match &plan.answers[decision.answer as usize] {
        Answer::Always(action) => verdict(*action, reason(decision.source)),
        Answer::When(clauses) => {
            let seen = args.map(|arg| {
                if arch.is_wide() {
                    arg
                } else {
                    arg & 0xffff_ffff
                }
            });
            let clause = clauses
                .iter()
                .find(|clause| clause.conditions.iter().all(|one| one.holds(&seen)));
            match clause {
                Some(clause) => verdict(clause.action, Reason::Rule(clause.rule as usize)),
                None => verdict(plan.default, Reason::Default),
            }
        }
    }
}
