//! Conditions on a call's arguments, and the instructions that test them.

use std::cmp::Ordering;
use std::fmt;

use libc::sock_filter;
use oci_spec::runtime::{LinuxSeccompArg, LinuxSeccompOperator as Operator};
use seccompiler::{
    BackendError, BpfProgram, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule,
};

use super::arch::Arch;

/// Arguments are numbered from 0; there are this many.
pub const ARGUMENTS: usize = 6;
/// Where `args` begins in `struct seccomp_data`.
const ARGS_OFFSET: u32 = 16;
const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;

/// One test of one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    argument: u8,
    operator: Operator,
    value: u64,
    /// All ones unless the operator is MASKED_EQ.
    mask: u64,
}

impl Condition {
    /// `argument` is the checked `index` of `arg`.
    pub fn new(argument: u8, arg: &LinuxSeccompArg) -> Condition {
        let (value, mask) = match arg.op() {
            // The specification's names mislead: `value` is the mask, `valueTwo` what the
            // masked argument must equal. Bits of it outside of the mask don't count.
            Operator::ScmpCmpMaskedEq => (arg.value_two().unwrap_or(0) & arg.value(), arg.value()),
            _ => (arg.value(), u64::MAX),
        };
        Condition {
            argument,
            operator: arg.op(),
            value,
            mask,
        }
    }

    /// The first argument is `value`: how a multiplexer's parts are told apart.
    pub fn first_is(value: u64) -> Condition {
        Condition {
            argument: 0,
            operator: Operator::ScmpCmpEq,
            value,
            mask: u64::MAX,
        }
    }

    pub fn argument(self) -> u8 {
        self.argument
    }

    /// The condition as far as `arch` can see it: 32 bit ABIs have only the lower half of
    /// each argument. None where it always holds.
    pub fn on(self, arch: Arch) -> Option<Condition> {
        let seen = Condition {
            value: self.value & seen_by(arch),
            mask: self.mask & seen_by(arch),
            ..self
        };
        (seen.mask != 0).then_some(seen)
    }

    /// Whether the arguments, cut to what the ABI sees, meet the condition.
    pub fn holds(self, args: &[u64; ARGUMENTS]) -> bool {
        let arg = args[usize::from(self.argument)];
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

    /// How libseccomp orders rules on one call: the more specific comes first, that is,
    /// the later argument, an equality before a range, the narrower range.
    pub fn precedence(self, other: Condition) -> Ordering {
        let class = |operator| match operator {
            Operator::ScmpCmpEq | Operator::ScmpCmpNe | Operator::ScmpCmpMaskedEq => 0,
            Operator::ScmpCmpLt | Operator::ScmpCmpLe => 1,
            Operator::ScmpCmpGe | Operator::ScmpCmpGt => 2,
        };
        let by_value = match self.operator {
            Operator::ScmpCmpLt | Operator::ScmpCmpLe => self.value.cmp(&other.value),
            _ => other.value.cmp(&self.value),
        };
        other
            .argument
            .cmp(&self.argument)
            .then(class(self.operator).cmp(&class(other.operator)))
            .then(by_value)
    }

    /// The value, if the condition asks for one and no other.
    pub fn equality(self, arch: Arch) -> Option<u64> {
        let seen = seen_by(arch);
        let equal = matches!(
            self.operator,
            Operator::ScmpCmpEq | Operator::ScmpCmpMaskedEq
        );
        (equal && self.mask & seen == seen).then_some(self.value & seen)
    }

    fn compile(self, arch: Arch) -> Result<SeccompCondition, BackendError> {
        let operator = match self.operator {
            Operator::ScmpCmpNe => SeccompCmpOp::Ne,
            Operator::ScmpCmpLt => SeccompCmpOp::Lt,
            Operator::ScmpCmpLe => SeccompCmpOp::Le,
            Operator::ScmpCmpEq => SeccompCmpOp::Eq,
            Operator::ScmpCmpGe => SeccompCmpOp::Ge,
            Operator::ScmpCmpGt => SeccompCmpOp::Gt,
            Operator::ScmpCmpMaskedEq => SeccompCmpOp::MaskedEq(self.mask),
        };
        let upper_half_counts = arch.is_wide() && self.mask >> 32 != 0;
        let length = if upper_half_counts {
            SeccompCmpArgLen::Qword
        } else {
            SeccompCmpArgLen::Dword
        };
        SeccompCondition::new(self.argument, length, operator, self.value)
    }
}

/// The bits of an argument that a program of that ABI has.
fn seen_by(arch: Arch) -> u64 {
    match arch.is_wide() {
        true => u64::MAX,
        false => u64::from(u32::MAX),
    }
}

/// Where half of an argument lies in `struct seccomp_data`.
pub fn half(argument: u8, arch: Arch, upper: bool) -> u32 {
    let second = upper != arch.is_big_endian();
    ARGS_OFFSET + 8 * u32::from(argument) + 4 * u32::from(second)
}

/// Instructions that run on into the next one where all of `conditions` (at least one)
/// hold, and skip exactly that next one where not.
pub fn fragment(conditions: &[Condition], arch: Arch) -> Result<Vec<sock_filter>, BackendError> {
    let conditions = conditions
        .iter()
        .map(|condition| condition.compile(arch))
        .collect::<Result<_, _>>()?;
    let program: BpfProgram = SeccompRule::new(conditions)?.into();
    // seccompiler begins each rule with two jumps, into the rule and past it; the second is
    // never reached. It lays out arguments for little endian machines only.
    let swap = if arch.is_big_endian() { 4 } else { 0 };
    let instructions = program.into_iter().skip(2).map(|instruction| {
        let is_argument = instruction.code == LOAD_WORD && instruction.k >= ARGS_OFFSET;
        sock_filter {
            code: instruction.code,
            jt: instruction.jt,
            jf: instruction.jf,
            k: instruction.k ^ if is_argument { swap } else { 0 },
        }
    });
    Ok(instructions.collect())
}
/// `arg0 & 0x7e020000 == 0x0`.
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operator = match self.operator {
            Operator::ScmpCmpNe => "!=",
            Operator::ScmpCmpLt => "<",
            Operator::ScmpCmpLe => "<=",
            Operator::ScmpCmpEq | Operator::ScmpCmpMaskedEq => "==",
            Operator::ScmpCmpGe => ">=",
            Operator::ScmpCmpGt => ">",
        };
        write!(f, "arg{}", self.argument)?;
        if self.mask != u64::MAX {
            write!(f, " & {:#x}", self.mask)?;
        }
        write!(f, " {operator} {:#x}", self.value)
    }
}
