//! What a profile comes to: how each call is answered, how long the filter is, and what it costs.

use std::collections::BTreeMap;

use oci_spec::runtime::LinuxSeccomp;

use super::action::Action;
use super::arch::Arch;
use super::interpreter::{self, Call};
use super::plan::{Answer, Plan, Source};
use super::table::{self, Syscall};
use super::{Filter, compile_for};
use crate::error::Result;

/// A profile, seen as a whole.
#[derive(Debug)]
pub struct Summary {
    pub filter: Filter,
    pub default: Action,
    pub abis: Vec<Abi>,
}

/// One ABI of a filter.
#[derive(Debug)]
pub struct Abi {
    pub arch: Arch,
    /// All calls of the tables that it has, by their answer.
    pub always: BTreeMap<String, Vec<&'static str>>,
    /// Calls whose arguments decide.
    pub conditional: Vec<Answered>,
    /// Instructions that one call executes.
    pub mean: f64,
    pub most: usize,
    /// How many calls the kernel answers from its bitmap, without executing the filter at all.
    pub unfiltered: usize,
}

/// A call whose arguments decide: conditions, answer, index of the rule; the first that holds.
#[derive(Debug)]
pub struct Answered {
    pub name: &'static str,
    pub clauses: Vec<(String, Action, usize)>,
}

/// Everything about a profile on a machine whose own ABI is `native`.
pub fn summarize(profile: &LinuxSeccomp, native: Arch) -> Result<Summary> {
    let filter = compile_for(profile, native)?;
    let plan = Plan::new(profile, native)?;
    let abis = plan.abis.iter().map(|abi| {
        let mut found = Abi {
            arch: abi.arch,
            always: BTreeMap::new(),
            conditional: Vec::new(),
            mean: 0.0,
            most: 0,
            unfiltered: 0,
        };
        let (mut steps, mut count) = (0, 0);
        let mut names: Vec<&str> = table::names().collect();
        names.sort_unstable();
        for name in names {
            let Some(slot) = Syscall::named(name).and_then(|call| call.on(abi.arch)) else {
                continue;
            };
            let decision = plan.decide(abi, slot);
            match &plan.answers[decision.answer as usize] {
                Answer::Always(action) => {
                    let note = match decision.source {
                        Source::Tail => " (newer than the profile)",
                        _ => "",
                    };
                    found
                        .always
                        .entry(format!("{action}{note}"))
                        .or_default()
                        .push(name);
                }
                Answer::When(clauses) => found.conditional.push(Answered {
                    name,
                    clauses: clauses
                        .iter()
                        .map(|clause| {
                            let conditions = clause.conditions.iter().map(ToString::to_string);
                            let text = conditions.collect::<Vec<_>>().join(" and ");
                            (text, clause.action, clause.rule as usize)
                        })
                        .collect(),
                }),
            }
            let outcome = interpreter::run(
                filter.program(),
                &Call {
                    arch: abi.arch.audit(),
                    number: slot.number(),
                    args: [0; 6],
                    is_big_endian: abi.arch.is_big_endian(),
                },
            );
            steps += outcome.steps;
            count += 1;
            found.most = found.most.max(outcome.steps);
            // seccomp_is_const_allow of the kernel.
            found.unfiltered +=
                usize::from(!outcome.saw_arguments && outcome.value == Action::ALLOW.value());
        }
        found.mean = f64::from(steps as u32) / f64::from(count.max(1));
        found
    });
    let abis = abis.collect();
    Ok(Summary {
        default: plan.default,
        abis,
        filter,
    })
}
