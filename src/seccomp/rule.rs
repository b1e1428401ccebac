//! One rule of the profile: checked, its conditions sorted out.

use oci_spec::runtime::LinuxSyscall;

use super::action::Action;
use super::condition::{ARGUMENTS, Condition};
use crate::error::{Error, Result};

pub const POINTER: &str = "/linux/seccomp";

/// Index into the profile's `syscalls`.
pub type RuleIndex = u32;

/// One rule of the profile, checked.
pub struct Rule<'a> {
    pub index: RuleIndex,
    pub action: Action,
    pub names: &'a [String],
    /// Any of these; one empty list for a rule without conditions.
    pub alternatives: Vec<Vec<Condition>>,
    /// Whether the rule also holds for its calls when they are made through a multiplexer,
    /// where their arguments are out of sight. A rule that permits only some arguments must
    /// not open the multiplexer to all of them (CVE-2026-31431 stayed in reach that way).
    pub covers_multiplexers: bool,
}

impl Rule<'_> {
    pub fn new(index: RuleIndex, rule: &LinuxSyscall, default: Action) -> Result<Rule<'_>> {
        let pointer = || format!("{POINTER}/syscalls/{index}");
        let action = Action::new(rule.action(), rule.errno_ret(), || {
            format!("{}/errnoRet", pointer())
        })?;
        if rule.names().is_empty() {
            return Err(Error::config(
                format!("{}/names", pointer()),
                "a rule needs the name of a system call",
            ));
        }
        let alternatives = alternatives(rule, &pointer)?;
        let is_conditional = alternatives.iter().all(|conditions| !conditions.is_empty());
        Ok(Rule {
            index,
            action,
            names: rule.names(),
            covers_multiplexers: !(is_conditional && action.is_more_permissive_than(default)),
            alternatives,
        })
    }
}

/// The conditions of a rule are ANDed (CVE-2017-18367), unless they test one argument
/// twice: then each is a rule of its own. runc and libseccomp-golang have it so since
/// profiles relied on it.
fn alternatives(rule: &LinuxSyscall, pointer: &impl Fn() -> String) -> Result<Vec<Vec<Condition>>> {
    let mut conditions = Vec::new();
    for (position, arg) in rule.args().iter().flatten().enumerate() {
        let argument = u8::try_from(arg.index()).ok();
        let argument = argument.filter(|index| usize::from(*index) < ARGUMENTS);
        let Some(argument) = argument else {
            return Err(Error::config(
                format!("{}/args/{position}/index", pointer()),
                format!("no system call has an argument {}", arg.index()),
            )
            .hint("arguments are numbered from 0 to 5"));
        };
        conditions.push(Condition::new(argument, arg));
    }
    let arguments = conditions.iter().map(|condition| condition.argument());
    let mask = arguments.fold(0_u8, |mask, argument| mask | 1 << argument);
    if mask.count_ones() as usize != conditions.len() {
        return Ok(conditions.into_iter().map(|one| vec![one]).collect());
    }
    conditions.sort_by_key(|condition| condition.argument());
    Ok(vec![conditions])
}
