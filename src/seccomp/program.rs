//! From the plan to classic BPF.
//!
//! Classic BPF jumps only forwards, and its conditional jumps reach 255 instructions. The
//! program is therefore written from its end: each target is known when the jump to it is
//! written, and one that is out of reach gets a copy (of a return) or an unconditional
//! jump in front of it. Answers that need no argument are found by comparing the number
//! alone: such calls the kernel looks up in a bitmap without running the program
//! (kernel/seccomp.c, seccomp_cache_prepare). So the native calls for which it does run, those whose
//! arguments count, are compared first.

use libc::sock_filter;
use seccompiler::BackendError;

use super::action::Action;
use super::arch::Arch;
use super::condition::{fragment, half};
use super::plan::{Abi, Answer, AnswerId, BAD_ARCH, Clause, Plan};

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const IF_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;

/// __X32_SYSCALL_BIT
const X32_BIT: u32 = 0x4000_0000;
/// The number that a tracer writes to skip a call: no x32 call, for all its bits.
const SKIPPED: u32 = u32::MAX;

/// How many single numbers are compared one after another before a search is worth it.
const LONGEST_CHAIN: usize = 4;

/// Writes the program that answers as `plan` says.
pub fn assemble(plan: &Plan) -> Result<Vec<sock_filter>, BackendError> {
    let mut writer = Writer {
        plan,
        reversed: Vec::with_capacity(512),
        returns: Vec::with_capacity(64),
        blocks: Vec::new(),
    };
    let mut entry = Target::Return(BAD_ARCH);
    let mut audits: Vec<u32> = Vec::new();
    for abi in &plan.abis {
        if !audits.contains(&abi.arch.audit()) {
            audits.push(abi.arch.audit());
        }
    }
    // Written last, the native ABI stands and is compared first.
    let mut entries = Vec::new();
    for audit in audits.into_iter().rev() {
        entries.push((audit, writer.machine(audit)?));
    }
    for (audit, target) in entries {
        entry = Target::Code(writer.branch(IF_EQUAL, audit, target, entry));
    }
    writer.load(ARCH, entry);
    writer.reversed.reverse();
    Ok(writer.reversed)
}

/// An instruction's place, counted from the program's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Label(usize);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Return(Action),
    Code(Label),
}

struct Writer<'a> {
    plan: &'a Plan,
    reversed: Vec<sock_filter>,
    /// The returns among them.
    returns: Vec<Label>,
    /// Conditional answers that are written already; ABIs that see the same bits of the
    /// arguments share them.
    blocks: Vec<(AnswerId, Layout, Label)>,
}

/// What decides how an argument is read.
type Layout = (bool, bool);

impl Writer<'_> {
    /// Everything that arrives under one AUDIT_ARCH value.
    fn machine(&mut self, audit: u32) -> Result<Target, BackendError> {
        let plan = self.plan;
        let find = |x32: bool| {
            let mut abis = plan.abis.iter().filter(|abi| abi.arch.audit() == audit);
            abis.find(|abi| (abi.arch == Arch::X32) == x32)
        };
        let x32 = find(true).map(|abi| self.abi(abi, X32_BIT)).transpose()?;
        let tell = |writer: &mut Self, plain| match audit == Arch::X86_64.audit() {
            true => writer.tell_x32(x32, plain),
            false => plain,
        };
        let first = match find(false) {
            Some(abi) => {
                let mut ranges = plan.ranges(abi);
                let asked = self.take_asked(&mut ranges);
                let plain = self.search(abi.arch, &ranges, None)?;
                let others = tell(self, plain);
                self.ask(abi.arch, asked.iter(), others)?
            }
            None => tell(self, Target::Return(BAD_ARCH)),
        };
        Ok(self.enter(first))
    }

    /// An x32 call has the number of machine and a bit more.
    fn tell_x32(&mut self, x32: Option<Target>, plain: Target) -> Target {
        let x32 = match x32 {
            Some(x32) => x32,
            None => {
                let default = Target::Return(self.plan.default);
                Target::Code(self.branch(IF_EQUAL, SKIPPED, default, Target::Return(BAD_ARCH)))
            }
        };
        Target::Code(self.branch(IF_AT_LEAST, X32_BIT, x32, plain))
    }

    /// Takes the calls whose arguments count out of `ranges`, if they are few.
    fn take_asked(&self, ranges: &mut Vec<(u32, AnswerId)>) -> Vec<(u32, AnswerId)> {
        let is_asked = |id: AnswerId| matches!(self.plan.answers[id as usize], Answer::When(_));
        let ends = ranges.iter().skip(1).map(|(start, _)| *start);
        let asked: Vec<(u32, AnswerId)> = ranges
            .iter()
            .zip(ends)
            .filter(|((start, id), end)| is_asked(*id) && start + 1 == *end)
            .map(|(range, _)| *range)
            .collect();
        if asked.len() > LONGEST_CHAIN {
            return Vec::new();
        }
        // What they are answered there, nobody asks: as the ones before.
        let mut before = None;
        ranges.retain(|range| {
            let stays = !asked.contains(range) && before != Some(range.1);
            if stays {
                before = Some(range.1);
            }
            stays
        });
        asked
    }

    /// Compares the number with those of `asked`, one after the other.
    fn ask<'r>(
        &mut self,
        arch: Arch,
        asked: impl DoubleEndedIterator<Item = &'r (u32, AnswerId)>,
        others: Target,
    ) -> Result<Target, BackendError> {
        let mut target = others;
        for (number, id) in asked.rev() {
            let hit = self.answer(arch, *id)?;
            target = Target::Code(self.branch(IF_EQUAL, *number, hit, target));
        }
        Ok(target)
    }

    /// Loads the number for code that wants it.
    fn enter(&mut self, target: Target) -> Target {
        match target {
            Target::Return(_) => target,
            Target::Code(_) => {
                self.load(NUMBER, target);
                Target::Code(self.here())
            }
        }
    }

    fn abi(&mut self, abi: &Abi, bit: u32) -> Result<Target, BackendError> {
        let mut ranges = self.plan.ranges(abi);
        for (start, _) in &mut ranges {
            *start |= bit;
        }
        self.search(abi.arch, &ranges, None)
    }

    /// The search over `ranges`, which end before `end` (None: nowhere).
    fn search(
        &mut self,
        arch: Arch,
        ranges: &[(u32, AnswerId)],
        end: Option<u32>,
    ) -> Result<Target, BackendError> {
        let width = |i: usize| match ranges.get(i + 1).map(|(start, _)| *start).or(end) {
            Some(next) => next - ranges[i].0,
            None => u32::MAX,
        };
        let answer = |i: usize| ranges[i].1;
        // Runs of more than one number, or else the last range: the others are exceptions.
        let mut wide = (0..ranges.len()).filter(|i| width(*i) > 1).peekable();
        let base = answer(wide.peek().copied().unwrap_or(ranges.len() - 1));
        let middle = ranges.len() / 2;
        let mut split = None;
        let mut before = None;
        for i in wide {
            // Between two runs with different answers there must be a comparison anyway.
            if let Some(before) = before.filter(|before| answer(*before) != answer(i)) {
                for at in [before + 1, i] {
                    let is_nearer = |than: usize| middle.abs_diff(at) < middle.abs_diff(than);
                    if split.is_none_or(is_nearer) {
                        split = Some(at);
                    }
                }
            }
            before = Some(i);
        }
        let exceptions = ranges.iter().filter(|(_, id)| *id != base);
        if split.is_none() && exceptions.clone().count() <= LONGEST_CHAIN {
            let others = self.answer(arch, base)?;
            return self.ask(arch, exceptions, others);
        }
        let split = split.unwrap_or(middle);
        let pivot = ranges[split].0;
        let (low, high) = ranges.split_at(split);
        let high = self.search(arch, high, end)?;
        let low = self.search(arch, low, Some(pivot))?;
        Ok(Target::Code(self.branch(IF_AT_LEAST, pivot, high, low)))
    }

    fn answer(&mut self, arch: Arch, id: AnswerId) -> Result<Target, BackendError> {
        let plan = self.plan;
        let clauses = match &plan.answers[id as usize] {
            Answer::Always(action) => return Ok(Target::Return(*action)),
            Answer::When(clauses) => clauses,
        };
        let layout = (arch.is_wide(), arch.is_big_endian());
        let twin = self.blocks.iter().find(|(other, of, _)| {
            *of == layout && plan.answers[*other as usize] == plan.answers[id as usize]
        });
        if let Some((_, _, label)) = twin {
            return Ok(Target::Code(*label));
        }
        self.fall_through_to(plan.default);
        let argument = |clause: &Clause| Some(clause.equality(arch)?.0);
        let is_choice = |one: &Clause, other: &Clause| {
            one.action == other.action
                && argument(one).is_some_and(|asked| argument(other) == Some(asked))
        };
        for clauses in clauses.chunk_by(is_choice).rev() {
            let clause = &clauses[0];
            match argument(clause) {
                Some(argument) => {
                    let values = clauses.iter().filter_map(|clause| clause.equality(arch));
                    let values = values.map(|(_, value)| value).collect();
                    self.choose(arch, clause.action, argument, values);
                }
                None => {
                    self.give(clause.action);
                    let test = fragment(&clause.conditions, arch)?;
                    self.reversed.extend(test.into_iter().rev());
                }
            }
        }
        self.blocks.push((id, layout, self.here()));
        Ok(Target::Code(self.here()))
    }

    /// Where one argument is to be one of several values: its halves are loaded once, not for each.
    fn choose(&mut self, arch: Arch, action: Action, argument: u8, mut values: Vec<u64>) {
        let miss = Target::Code(self.here());
        let upper = |value: &u64| (value >> 32) as u32;
        values.sort_by_key(upper);
        let mut lower = Vec::new();
        for values in values.chunk_by(|one, other| upper(one) == upper(other)) {
            let mut target = miss;
            for value in values.iter().rev() {
                let hit = Target::Return(action);
                target = Target::Code(self.branch(IF_EQUAL, *value as u32, hit, target));
            }
            self.load(half(argument, arch, false), target);
            lower.push((upper(&values[0]), Target::Code(self.here())));
        }
        if arch.is_wide() {
            let mut target = miss;
            for (upper, lower) in lower {
                target = Target::Code(self.branch(IF_EQUAL, upper, lower, target));
            }
            self.load(half(argument, arch, true), target);
        }
    }

    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) {
        self.reversed.push(sock_filter { code, jt, jf, k });
    }

    fn give(&mut self, action: Action) {
        self.push(RETURN, 0, 0, action.value());
        self.returns.push(self.here());
    }

    fn at(&self, label: Label) -> &sock_filter {
        &self.reversed[label.0 - 1]
    }

    /// The instruction written last, the program's first so far.
    fn here(&self) -> Label {
        Label(self.reversed.len())
    }

    /// How many instructions a jump skips that is written after `more` others.
    fn distance(&self, label: Label, more: usize) -> usize {
        self.reversed.len() + more - label.0
    }

    /// Makes the next instruction in line return `action`.
    fn fall_through_to(&mut self, action: Action) {
        let next = self.reversed.last();
        if next.is_none_or(|next| next.code != RETURN || next.k != action.value()) {
            self.give(action);
        }
    }

    /// Loads a word of `seccomp_data` and goes on at `target`.
    fn load(&mut self, offset: u32, target: Target) {
        match target {
            Target::Return(action) => self.fall_through_to(action),
            Target::Code(label) => {
                let distance = self.distance(label, 0);
                if distance > 0 {
                    self.push(JUMP, 0, 0, distance as u32);
                }
            }
        }
        self.push(LOAD, 0, 0, offset);
    }

    fn branch(&mut self, code: u16, k: u32, hit: Target, miss: Target) -> Label {
        // What makes `miss` reachable may push `hit` one instruction further away.
        let hit = self.reachable(hit, 1);
        let miss = self.reachable(miss, 0);
        let (jt, jf) = (self.distance(hit, 0), self.distance(miss, 0));
        self.push(code, jt as u8, jf as u8, k);
        self.here()
    }

    /// A place for `target` that a conditional jump reaches after `more` instructions.
    fn reachable(&mut self, target: Target, more: usize) -> Label {
        let is_near = |writer: &Self, label| writer.distance(label, more) <= usize::from(u8::MAX);
        match target {
            Target::Code(label) if is_near(self, label) => return label,
            Target::Code(label) => {
                let distance = self.distance(label, 0);
                self.push(JUMP, 0, 0, distance as u32);
            }
            Target::Return(action) => {
                let near = self.returns.iter().rev().copied();
                let mut near = near.take_while(|label| is_near(self, *label));
                if let Some(twin) = near.find(|label| self.at(*label).k == action.value()) {
                    return twin;
                }
                self.give(action);
            }
        }
        self.here()
    }
}
