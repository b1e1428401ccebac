//! The seccomp profile of config.json, compiled to classic BPF and installed.
//!
//! Profile → [`plan`] (which answer each ABI and call gets, and from which rule) →
//! [`program`] (the instructions). Compiling is pure and happens in the parent; the
//! container's process only makes the system call.

mod action;
mod arch;
mod condition;
pub mod engine;
mod explain;
pub mod interpreter;
pub mod observed;
mod plan;
mod program;
mod rule;
mod summary;
mod table;
#[cfg(test)]
mod tests;

use std::fmt;
use std::os::fd::OwnedFd;

use libc::{c_ulong, sock_filter};
use oci_spec::runtime::{
    Arch as OciArch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag,
};

pub use action::Action;
pub use arch::Arch;
pub use condition::ARGUMENTS;
pub use explain::{Reason, Verdict, explain};
use plan::Plan;
use rule::POINTER;
pub use summary::{Abi, Answered, Summary, summarize};

use crate::bundle::nearest;
use crate::error::{Error, Result};
use crate::sys;

/// The longest program that the kernel loads (BPF_MAXINSNS).
const MAX_INSTRUCTIONS: usize = 4096;

/// The nearest name of a system call, for hints.
pub fn nearest_call(name: &str) -> Option<&'static str> {
    nearest(name, table::names())
}

/// Whether any table has the name.
pub fn is_call(name: &str) -> bool {
    table::Syscall::named(name).is_some()
}

/// The name's number on an ABI, as `seccomp_data.nr` has it there.
#[cfg(fuzzing)]
pub fn number(name: &str, arch: Arch) -> Option<u32> {
    const X32_BIT: u32 = 0x4000_0000;
    let number = table::Syscall::named(name)?.on(arch)?.number();
    Some(if arch == Arch::X32 {
        number | X32_BIT
    } else {
        number
    })
}

/// All names that the tables have.
#[cfg(fuzzing)]
pub fn names() -> impl Iterator<Item = &'static str> {
    table::names()
}

/// A compiled profile, ready to be installed.
#[derive(Debug, Clone)]
pub struct Filter {
    program: Vec<sock_filter>,
    flags: c_ulong,
    lets_yield: bool,
    warnings: Vec<Warning>,
}

/// What of a profile has no effect here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// No table has this name: an older or newer kernel's, or a typing error.
    UnknownSyscall { pointer: String, name: String },
    /// This machine can't run the architecture's programs, or there is no table for it.
    ForeignArchitecture { pointer: String, name: OciArch },
    /// The kernel takes SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV only with SCMP_ACT_NOTIFY.
    NothingToWaitFor { pointer: String },
}

impl Warning {
    /// Where in config.json it stands.
    pub fn pointer(&self) -> &str {
        match self {
            Warning::UnknownSyscall { pointer, .. }
            | Warning::ForeignArchitecture { pointer, .. }
            | Warning::NothingToWaitFor { pointer } => pointer,
        }
    }
}

/// Compiles a profile for this machine. Errors point into `/linux/seccomp`.
pub fn compile(profile: &LinuxSeccomp) -> Result<Filter> {
    let native = Arch::native().ok_or_else(|| {
        Error::config(POINTER, "no system call table for this architecture")
            .hint("remove /linux/seccomp to run without a filter")
    })?;
    compile_for(profile, native)
}

/// Compiles a profile for a machine whose own programs are of the ABI `native`.
pub fn compile_for(profile: &LinuxSeccomp, native: Arch) -> Result<Filter> {
    let mut plan = Plan::new(profile, native)?;
    let flags = flags(profile, &mut plan.warnings);
    let program =
        program::assemble(&plan).map_err(|error| Error::config(POINTER, error.to_string()))?;
    if program.len() > MAX_INSTRUCTIONS {
        return Err(Error::config(
            POINTER,
            format!("the filter needs {} instructions", program.len()),
        )
        .hint(format!(
            "the kernel loads at most {MAX_INSTRUCTIONS}: use fewer rules with conditions"
        )));
    }
    Ok(Filter {
        program,
        flags,
        lets_yield: plan.always("sched_yield") == Some(Action::ALLOW),
        warnings: plan.warnings,
    })
}

impl Filter {
    /// Filters this process and all that come from it from now on. Returns the listener
    /// where the profile uses SCMP_ACT_NOTIFY. The caller must hold CAP_SYS_ADMIN or have
    /// set no_new_privs. Allocates nothing.
    pub fn install(&self) -> nix::Result<Option<OwnedFd>> {
        sys::seccomp::set_mode_filter(self.flags, &self.program)
    }

    pub fn program(&self) -> &[sock_filter] {
        &self.program
    }

    /// SECCOMP_FILTER_FLAG_*.
    pub fn flags(&self) -> c_ulong {
        self.flags
    }

    /// Whether [`Filter::install`] returns a listener.
    pub fn notifies(&self) -> bool {
        self.flags & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER != 0
    }

    /// Whether a process under the filter may call sched_yield(2) without any consequence.
    pub fn lets_yield(&self) -> bool {
        self.lets_yield
    }

    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }
}

/// SPEC_ALLOW is what a profile without flags gets, as in runc: what the mitigation of
/// speculative store bypass costs every filtered process, it isn't worth since Linux 5.16
/// stopped tying the two together. TSYNC is void: the process that installs the filter has
/// no other threads.
fn flags(profile: &LinuxSeccomp, warnings: &mut Vec<Warning>) -> c_ulong {
    let rules = profile.syscalls().as_deref().unwrap_or_default();
    let notifies = rules
        .iter()
        .any(|rule| rule.action() == LinuxSeccompAction::ScmpActNotify);
    let mut bits = if notifies {
        libc::SECCOMP_FILTER_FLAG_NEW_LISTENER
    } else {
        0
    };
    let Some(flags) = profile.flags() else {
        return bits | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    };
    for (index, flag) in flags.iter().enumerate() {
        bits |= match flag {
            LinuxSeccompFilterFlag::SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG,
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 0,
            LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => {
                libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW
            }
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv if notifies => {
                libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
            }
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => {
                warnings.push(Warning::NothingToWaitFor {
                    pointer: format!("{POINTER}/flags/{index}"),
                });
                0
            }
        };
    }
    bits
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::UnknownSyscall { pointer, name } => {
                write!(
                    f,
                    "seccomp: unknown system call {name:?} ({pointer}) is ignored"
                )?;
                match nearest(name, table::names()) {
                    Some(known) => write!(f, ": did you mean {known}?"),
                    None => Ok(()),
                }
            }
            Warning::ForeignArchitecture { pointer, name } => {
                write!(
                    f,
                    "seccomp: {name} ({pointer}) can't run here and is ignored"
                )
            }
            Warning::NothingToWaitFor { pointer } => write!(
                f,
                "seccomp: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV ({pointer}) is ignored: no rule has SCMP_ACT_NOTIFY"
            ),
        }
    }
}
