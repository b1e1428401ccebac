//! From the profile's rules to one answer per ABI and call.

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSyscall};

use super::Warning;
use super::action::Action;
use super::arch::Arch;
use super::condition::Condition;
use super::rule::{POINTER, Rule, RuleIndex};
use super::table::{SLOTS, Slot, Syscall};
use crate::error::{Error, Result};

/// What programs of an ABI that isn't in the profile get; libseccomp and runc do the same.
pub const BAD_ARCH: Action = Action::KILL_THREAD;

/// Index into [`Plan::answers`]. Equal actions have equal ids.
pub type AnswerId = u32;
const DEFAULT: AnswerId = 0;
const ENOSYS: AnswerId = 1;

/// What a decision rests on.
#[derive(Debug, Clone, Copy)]
pub enum Source {
    Default,
    /// Newer than all that the profile names.
    Tail,
    /// The first rule on the call; of several with conditions each clause knows its own.
    Rule(RuleIndex),
}

/// What the filter is going to answer, before it is a program.
pub struct Plan {
    pub default: Action,
    /// At least one; the native one is the first.
    pub abis: Vec<Abi>,
    pub answers: Vec<Answer>,
    pub warnings: Vec<Warning>,
    has_enosys_tail: bool,
    /// Multiplexers that a rule without conditions decides.
    sealed: Vec<&'static str>,
}

pub struct Abi {
    pub arch: Arch,
    decisions: Vec<Decision>,
    /// The largest call that the profile names on this ABI.
    newest: Option<Slot>,
}

/// How one call is answered, and why.
#[derive(Clone, Copy)]
pub struct Decision {
    pub answer: AnswerId,
    pub source: Source,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    Always(Action),
    /// The first clause that holds; the default action if none does.
    When(Vec<Clause>),
}

#[derive(Debug)]
pub struct Clause {
    /// All must hold; sorted by argument.
    pub conditions: Vec<Condition>,
    pub action: Action,
    pub rule: RuleIndex,
}

impl Clause {
    /// The argument, and the value that it must have, if that is all that the clause asks.
    pub fn equality(&self, arch: Arch) -> Option<(u8, u64)> {
        match self.conditions[..] {
            [condition] => Some((condition.argument(), condition.equality(arch)?)),
            _ => None,
        }
    }
}

/// Which rule a clause stems from makes no difference to the program.
impl PartialEq for Clause {
    fn eq(&self, other: &Clause) -> bool {
        self.conditions == other.conditions && self.action == other.action
    }
}

impl Eq for Clause {}

impl Plan {
    pub fn new(profile: &LinuxSeccomp, native: Arch) -> Result<Plan> {
        if profile.default_action() == LinuxSeccompAction::ScmpActNotify {
            return Err(Error::config(
                format!("{POINTER}/defaultAction"),
                "SCMP_ACT_NOTIFY cannot be used as default action",
            )
            .hint("name the calls that the agent is to answer"));
        }
        let default = Action::new(
            profile.default_action(),
            profile.default_errno_ret(),
            || format!("{POINTER}/defaultErrnoRet"),
        )?;
        let mut plan = Plan {
            default,
            abis: vec![Abi::new(native)],
            answers: vec![Answer::Always(default), Answer::Always(Action::ENOSYS)],
            warnings: Vec::new(),
            has_enosys_tail: default.is_denial() && default != Action::ENOSYS,
            sealed: Vec::new(),
        };
        plan.add_architectures(profile, native);
        let rules = profile.syscalls().as_deref().unwrap_or_default();
        plan.seal_multiplexers(rules);
        for (index, rule) in rules.iter().enumerate() {
            let rule = Rule::new(index as RuleIndex, rule, default)?;
            plan.add(&rule)?;
        }
        for answer in &mut plan.answers {
            if let Answer::When(clauses) = answer {
                order(clauses);
            }
        }
        Ok(plan)
    }

    /// The answers to all numbers of an ABI, in ascending order: each holds from its number
    /// up to the next one's, the last one for ever. Neighbours differ.
    pub fn ranges(&self, abi: &Abi) -> Vec<(u32, AnswerId)> {
        let mut ranges: Vec<(u32, AnswerId)> = Vec::with_capacity(128);
        for index in 0..SLOTS {
            let slot = Slot::at(index);
            let answer = self.decide(abi, slot).answer;
            if ranges.last().is_none_or(|(_, last)| *last != answer) {
                ranges.push((slot.number(), answer));
            }
        }
        ranges
    }

    /// The decision on one call.
    pub fn decide(&self, abi: &Abi, slot: Slot) -> Decision {
        let is_private = slot.is_private() && abi.arch == Arch::Arm;
        let is_newer = abi.newest.is_some_and(|newest| slot > newest) && !is_private;
        // The number that s390's kernels put in place of calls that they don't know.
        let is_nothing = matches!(abi.arch, Arch::S390x | Arch::S390) && slot.index() == 0;
        if self.has_enosys_tail && (is_newer || is_nothing && abi.newest.is_some()) {
            return Decision {
                answer: ENOSYS,
                source: Source::Tail,
            };
        }
        abi.decisions[slot.index()]
    }

    /// The answer to a native call, if it is the same whatever the arguments are.
    pub fn always(&self, name: &str) -> Option<Action> {
        let native = self.abis.first()?;
        let slot = Syscall::named(name)?.on(native.arch)?;
        match &self.answers[self.decide(native, slot).answer as usize] {
            Answer::Always(action) => Some(*action),
            Answer::When(_) => None,
        }
    }

    fn add_architectures(&mut self, profile: &LinuxSeccomp, native: Arch) {
        let names = profile.architectures().as_deref().unwrap_or_default();
        for (index, name) in names.iter().enumerate() {
            let arch = Arch::from_oci(*name, native).filter(|arch| native.may_meet(*arch));
            match arch {
                Some(arch) if self.abis.iter().any(|abi| abi.arch == arch) => {}
                Some(arch) => self.abis.push(Abi::new(arch)),
                None => self.warnings.push(Warning::ForeignArchitecture {
                    pointer: format!("{POINTER}/architectures/{index}"),
                    name: *name,
                }),
            }
        }
    }

    /// A profile that rules on socketcall(2) or ipc(2) as such has the last word on it, also
    /// where it only repeats the default action.
    fn seal_multiplexers(&mut self, rules: &[LinuxSyscall]) {
        if !self.abis.iter().any(|abi| abi.arch.has_multiplexers()) {
            return;
        }
        let decides = |rule: &&LinuxSyscall| rule.args().as_deref().is_none_or(<[_]>::is_empty);
        let names = rules.iter().filter(decides).flat_map(LinuxSyscall::names);
        for name in names {
            match name.as_str() {
                "socketcall" => self.sealed.push("socketcall"),
                "ipc" => self.sealed.push("ipc"),
                _ => {}
            }
        }
    }

    fn intern(&mut self, action: Action) -> AnswerId {
        let answer = Answer::Always(action);
        let known = self.answers.iter().position(|known| *known == answer);
        known.unwrap_or_else(|| {
            self.answers.push(answer);
            self.answers.len() - 1
        }) as AnswerId
    }

    fn add(&mut self, rule: &Rule) -> Result<()> {
        // Rules that only repeat the default action are void, as in runc; but what they name
        // is known to the profile.
        let answer = (rule.action != self.default).then(|| self.intern(rule.action));
        for (position, name) in rule.names.iter().enumerate() {
            let pointer = || format!("{POINTER}/syscalls/{}/names/{position}", rule.index);
            let Some(syscall) = Syscall::named(name) else {
                if name.is_empty() {
                    return Err(Error::config(pointer(), "a system call needs a name"));
                }
                self.warnings.push(Warning::UnknownSyscall {
                    pointer: pointer(),
                    name: name.clone(),
                });
                continue;
            };
            let part = syscall
                .part_of()
                .filter(|(multiplexer, _)| {
                    rule.covers_multiplexers && !self.sealed.contains(multiplexer)
                })
                .and_then(|(multiplexer, part)| Some((Syscall::named(multiplexer)?, part)));
            for abi in &mut self.abis {
                if let Some(slot) = syscall.on(abi.arch) {
                    if !slot.is_private() {
                        abi.newest = abi.newest.max(Some(slot));
                    }
                    for conditions in &rule.alternatives {
                        match abi.add(&mut self.answers, rule, answer, slot, conditions) {
                            None => {}
                            Some(other) => return Err(contradiction(rule.index, other)),
                        }
                    }
                }
                if let Some((multiplexer, part)) = part
                    && abi.arch.has_multiplexers()
                    && let Some(slot) = multiplexer.on(abi.arch)
                {
                    // Rules that differ only in arguments that are out of sight contradict each
                    // other here, and nobody can help it: the first counts.
                    let conditions = [Condition::first_is(part)];
                    abi.add(&mut self.answers, rule, answer, slot, &conditions);
                }
            }
        }
        Ok(())
    }
}

impl Abi {
    fn new(arch: Arch) -> Abi {
        let undecided = Decision {
            answer: DEFAULT,
            source: Source::Default,
        };
        Abi {
            arch,
            decisions: vec![undecided; SLOTS],
            newest: None,
        }
    }

    /// As libseccomp: the first rule without conditions decides, whatever rules with
    /// conditions say before or after it. Returns the rule that this one contradicts.
    fn add(
        &mut self,
        answers: &mut Vec<Answer>,
        rule: &Rule,
        answer: Option<AnswerId>,
        slot: Slot,
        conditions: &[Condition],
    ) -> Option<RuleIndex> {
        let answer = answer?;
        let decision = &mut self.decisions[slot.index()];
        let known = answers.get_mut(decision.answer as usize);
        let is_open = decision.answer == DEFAULT;
        if !is_open && matches!(known, Some(Answer::Always(_))) {
            return None;
        }
        let conditions: Vec<Condition> = conditions
            .iter()
            .filter_map(|condition| condition.on(self.arch))
            .collect();
        let source = Source::Rule(rule.index);
        if conditions.is_empty() {
            *decision = Decision { answer, source };
            return None;
        }
        let clause = Clause {
            conditions,
            action: rule.action,
            rule: rule.index,
        };
        if let Some(Answer::When(clauses)) = known {
            let mut twins = clauses.iter();
            let twin = twins.find(|other| other.conditions == clause.conditions);
            return match twin {
                Some(twin) => (twin.action != clause.action).then_some(twin.rule),
                None => {
                    clauses.push(clause);
                    None
                }
            };
        }
        let answer = answers.len() as AnswerId;
        answers.push(Answer::When(vec![clause]));
        *decision = Decision { answer, source };
        None
    }
}

fn contradiction(rule: RuleIndex, other: RuleIndex) -> Error {
    Error::config(
        format!("{POINTER}/syscalls/{rule}"),
        format!("contradicts {POINTER}/syscalls/{other}"),
    )
    .hint("both give the same call with the same arguments an action: keep one")
}

/// Where all actions are the same, the order of the clauses makes no difference.
fn order(clauses: &mut [Clause]) {
    if clauses
        .windows(2)
        .all(|pair| pair[0].action == pair[1].action)
    {
        return;
    }
    clauses.sort_by(|a, b| {
        let pairs = a.conditions.iter().zip(&b.conditions);
        pairs
            .map(|(a, b)| a.precedence(*b))
            .find(|ordering| ordering.is_ne())
            .unwrap_or_else(|| b.conditions.len().cmp(&a.conditions.len()))
    });
}
