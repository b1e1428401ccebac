//! The eBPF program of a list of device rules.
//!
//! The kernel calls it with a `struct bpf_cgroup_dev_ctx` (type and access in one word, major,
//! minor) at each open and mknod; 1 grants. Register 3 holds the accesses that are still
//! undecided; each rule takes those it grants out of it, or ends the matter.

use std::fmt::Write as _;

use super::{ALL, Kind, Rule};
use crate::sys::bpf::Instruction;

/// A program as it is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    instructions: Vec<Instruction>,
}

impl Program {
    pub fn instructions(&self) -> &[Instruction] {
        &self.instructions
    }

    /// The instructions in hexadecimal digits: equal for equal programs.
    pub(in crate::cgroups) fn text(&self) -> String {
        let mut text = String::with_capacity(self.instructions.len() * 16);
        for instruction in &self.instructions {
            let word = u64::from(instruction.code) << 56
                | u64::from(instruction.registers) << 48
                | u64::from(instruction.offset as u16) << 32
                | u64::from(instruction.immediate as u32);
            // Writing to a String doesn't fail.
            let _ = write!(text, "{word:016x}");
        }
        text
    }

    /// `rules` are strongest first, and not more than [`super::MOST`] and the defaults.
    pub(super) fn emit(rules: &[Rule], otherwise: bool) -> Program {
        let mut code = Code::default();
        let (granted, denied) = (code.label(), code.label());
        code.prologue();
        // Without a bit there is nothing to refuse (access(2) with X_OK).
        code.jump(JEQ, ACCESS, 0, granted);
        for run in rules.chunk_by(|a, b| a.allow == b.allow) {
            code.run(run, if run[0].allow { granted } else { denied });
        }
        let (first, second) = if otherwise {
            (granted, denied)
        } else {
            (denied, granted)
        };
        for end in [first, second] {
            code.place(end);
            code.plain(MOV, RESULT, i32::from(end == granted));
            code.plain(EXIT, 0, 0);
        }
        Program {
            instructions: code.link(),
        }
    }
}

const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// Class, source and operation of the instructions (linux/bpf_common.h, linux/bpf.h).
const LDX_W: u8 = 0x61;
const MOV: u8 = 0xb7;
const MOV_X: u8 = 0xbf;
const AND: u8 = 0x57;
const RSH: u8 = 0x77;
const JA: u8 = 0x05;
const JEQ: u8 = 0x15;
const JSET: u8 = 0x45;
/// Of the lower half of a register: a 64-bit comparison would extend the sign of a large minor.
const JEQ32: u8 = 0x16;
const JNE32: u8 = 0x56;
const EXIT: u8 = 0x95;

#[derive(Clone, Copy, PartialEq, Eq)]
struct Label(usize);

/// Instructions whose jumps go to labels until [`Code::link`].
#[derive(Default)]
struct Code {
    instructions: Vec<Instruction>,
    jumps: Vec<(usize, Label)>,
    labels: Vec<usize>,
}

impl Code {
    fn label(&mut self) -> Label {
        self.labels.push(0);
        Label(self.labels.len() - 1)
    }

    fn place(&mut self, label: Label) {
        self.labels[label.0] = self.instructions.len();
    }

    fn push(&mut self, code: u8, registers: u8, offset: i16, immediate: i32) {
        self.instructions.push(Instruction {
            code,
            registers,
            offset,
            immediate,
        });
    }

    fn plain(&mut self, code: u8, register: u8, immediate: i32) {
        self.push(code, register, 0, immediate);
    }

    fn jump(&mut self, code: u8, register: u8, immediate: u32, to: Label) {
        self.jumps.push((self.instructions.len(), to));
        self.push(code, register, 0, immediate as i32);
    }

    fn prologue(&mut self) {
        self.push(LDX_W, CONTEXT << 4 | KIND, 0, 0);
        self.push(MOV_X, KIND << 4 | ACCESS, 0, 0);
        self.plain(AND, KIND, 0xffff);
        self.plain(RSH, ACCESS, 16);
        self.push(LDX_W, CONTEXT << 4 | MAJOR, 4, 0);
        self.push(LDX_W, CONTEXT << 4 | MINOR, 8, 0);
    }

    /// Rules that all say the same, so their order doesn't matter: each type and each major is
    /// compared once.
    fn run(&mut self, rules: &[Rule], end: Label) {
        let rules = distinct(rules);
        for same_kind in rules.chunk_by(|a, b| a.kind == b.kind) {
            let after_kind = self.label();
            if let Some(kind) = same_kind[0].kind {
                self.jump(JNE32, KIND, kind as u32, after_kind);
            }
            for same_major in same_kind.chunk_by(|a, b| a.major == b.major) {
                self.major(same_major, end);
            }
            self.place(after_kind);
        }
    }

    fn major(&mut self, rules: &[Rule], end: Label) {
        let after = self.label();
        if let (Some(major), [only]) = (rules[0].major, rules)
            && only.minor.is_none()
            && only.access == ALL
        {
            return self.jump(JEQ32, MAJOR, major, end);
        }
        if let Some(major) = rules[0].major {
            self.jump(JNE32, MAJOR, major, after);
        }
        for rule in rules {
            match (rule.minor, rule.access) {
                (Some(minor), ALL) => self.jump(JEQ32, MINOR, minor, end),
                (Some(minor), _) => {
                    let next = self.label();
                    self.jump(JNE32, MINOR, minor, next);
                    self.decide(rule, end);
                    self.place(next);
                }
                (None, _) => self.decide(rule, end),
            }
        }
        self.place(after);
    }

    /// For a request that the rule matches but for its access.
    fn decide(&mut self, rule: &Rule, end: Label) {
        match (rule.allow, rule.access) {
            (_, ALL) => self.jump(JA, 0, 0, end),
            (true, access) => {
                self.plain(AND, ACCESS, i32::from(ALL & !access));
                self.jump(JEQ, ACCESS, 0, end);
            }
            (false, access) => self.jump(JSET, ACCESS, access.into(), end),
        }
    }

    fn link(mut self) -> Vec<Instruction> {
        for (at, label) in self.jumps {
            let distance = self.labels[label.0] - at - 1;
            debug_assert!(distance <= i16::MAX as usize);
            self.instructions[at].offset = distance as i16;
        }
        self.instructions
    }
}

/// Without those that another one contains: the verifier refuses code that can't be reached.
fn distinct(run: &[Rule]) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::with_capacity(run.len());
    for rule in run {
        let contains = |a: &Rule, b: &Rule| a.covers_devices_of(b) && b.access & !a.access == 0;
        if rules.iter().any(|other| contains(other, rule)) {
            continue;
        }
        rules.retain(|other| !contains(rule, other));
        rules.push(*rule);
    }
    rules.sort_by_key(|rule| (rule.kind, rule.major, rule.minor));
    rules
}

const _: () = assert!(Kind::Block as u32 == 1 && Kind::Char as u32 == 2);
