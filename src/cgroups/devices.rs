//! `linux.resources.devices`: from a list of rules to a program that decides.
//!
//! A list is read as the specification and the v1 controller mean it: for each kind of access
//! (read, write, mknod) that a process asks for, the last rule that speaks of it decides, and the
//! request is granted if all are. What no rule speaks of is denied. A rule that denies reading
//! therefore also stops `O_RDWR`.

#[cfg(any(test, fuzzing))]
pub mod interpreter;
mod program;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use crate::error::{Error, Result};
pub use program::Program;

/// The kinds of access, as `BPF_DEVCG_ACC_*`.
const MKNOD: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;
const ALL: u8 = MKNOD | READ | WRITE;

/// As `BPF_DEVCG_DEV_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Block = 1,
    Char = 2,
}

/// One entry of the list; `None` stands for any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rule {
    allow: bool,
    kind: Option<Kind>,
    major: Option<u32>,
    minor: Option<u32>,
    access: u8,
}

impl Rule {
    const fn allow(kind: Kind, major: Option<u32>, minor: Option<u32>, access: u8) -> Rule {
        Rule {
            allow: true,
            kind: Some(kind),
            major,
            minor,
            access,
        }
    }

    /// Whether the two can speak of the same request.
    fn overlaps(&self, other: &Rule) -> bool {
        fn meet<T: PartialEq>(a: Option<T>, b: Option<T>) -> bool {
            a.is_none() || b.is_none() || a == b
        }
        meet(self.kind, other.kind)
            && meet(self.major, other.major)
            && meet(self.minor, other.minor)
            && self.access & other.access != 0
    }

    /// Whether every device that `other` speaks of is one of this rule's.
    fn covers_devices_of(&self, other: &Rule) -> bool {
        fn covers<T: PartialEq>(a: Option<T>, b: Option<T>) -> bool {
            a.is_none() || a == b
        }
        covers(self.kind, other.kind)
            && covers(self.major, other.major)
            && covers(self.minor, other.minor)
    }

    fn is_any(&self) -> bool {
        self.kind.is_none() && self.major.is_none() && self.minor.is_none()
    }

    /// The same but for being about the other type.
    fn is_twin_of(&self, other: &Rule) -> bool {
        matches!((self.kind, other.kind), (Some(a), Some(b)) if a != b)
            && (self.major, self.minor, self.access) == (other.major, other.minor, other.access)
    }
}

/// What every container may use, whatever its own list says: the devices that the specification
/// has in every container, its terminals, tun/tap, and making any node (which doesn't open it).
/// The same as the peers'; engines rely on it.
const DEFAULTS: [Rule; 12] = [
    Rule::allow(Kind::Char, None, None, MKNOD),
    Rule::allow(Kind::Block, None, None, MKNOD),
    Rule::allow(Kind::Char, Some(1), Some(3), ALL), // null
    Rule::allow(Kind::Char, Some(1), Some(5), ALL), // zero
    Rule::allow(Kind::Char, Some(1), Some(7), ALL), // full
    Rule::allow(Kind::Char, Some(1), Some(8), ALL), // random
    Rule::allow(Kind::Char, Some(1), Some(9), ALL), // urandom
    Rule::allow(Kind::Char, Some(5), Some(0), ALL), // tty
    Rule::allow(Kind::Char, Some(5), Some(1), ALL), // console
    Rule::allow(Kind::Char, Some(5), Some(2), ALL), // ptmx
    Rule::allow(Kind::Char, Some(136), None, ALL),  // pts/*
    Rule::allow(Kind::Char, Some(10), Some(200), ALL), // net/tun
];

/// A rule takes five instructions at most, and a jump reaches 32,767.
pub const MOST: usize = 6_000;

/// The program for a list of rules with [`DEFAULTS`] behind it; `None` if everything is allowed.
///
/// `pointer` is where the list stands.
///
/// # Errors
/// Rules that can't be meant, each with its pointer, and lists of more than [`MOST`] rules.
pub fn compile(rules: &[LinuxDeviceCgroup], pointer: &str) -> Result<Option<Program>> {
    if rules.len() > MOST {
        return Err(Error::config(
            pointer,
            format!("{} rules, of which {MOST} are the most", rules.len()),
        ));
    }
    let mut parsed = Vec::with_capacity(rules.len() + DEFAULTS.len());
    for (index, rule) in rules.iter().enumerate() {
        parsed.push(parse(rule).map_err(|(field, reason)| {
            Error::config(format!("{pointer}/{index}/{field}"), reason)
        })?);
    }
    parsed.extend(DEFAULTS);
    let List { rules, otherwise } = simplify(&parsed);
    if rules.is_empty() && otherwise {
        return Ok(None);
    }
    Ok(Some(Program::emit(&rules, otherwise)))
}

/// An absent field stands for everything that it could name, as does -1 for a number (runc's
/// engines send it). `u` is mknod's other name of `c`.
fn parse(rule: &LinuxDeviceCgroup) -> Result<Rule, (&'static str, String)> {
    let number = |field, number: Option<i64>| match number {
        None | Some(-1) => Ok(None),
        Some(number) => u32::try_from(number)
            .map(Some)
            .map_err(|_| (field, format!("{number} is no device number"))),
    };
    let kind = match rule.typ().unwrap_or_default() {
        LinuxDeviceType::A => None,
        LinuxDeviceType::B => Some(Kind::Block),
        LinuxDeviceType::C | LinuxDeviceType::U => Some(Kind::Char),
        LinuxDeviceType::P => return Err(("type", "a rule is for a, b or c, not p".into())),
    };
    let mut access = 0;
    for letter in rule.access().as_deref().unwrap_or_default().chars() {
        access |= match letter {
            'r' => READ,
            'w' => WRITE,
            'm' => MKNOD,
            other => return Err(("access", format!("{other:?} is none of r, w and m"))),
        };
    }
    Ok(Rule {
        allow: rule.allow(),
        kind,
        major: number("major", rule.major())?,
        minor: number("minor", rule.minor())?,
        access: if access == 0 { ALL } else { access },
    })
}

/// The same decisions in fewer rules, strongest first.
struct List {
    rules: Vec<Rule>,
    /// For what no rule speaks of.
    otherwise: bool,
}

fn simplify(rules: &[Rule]) -> List {
    let mut kept: Vec<Rule> = Vec::with_capacity(rules.len());
    let mut otherwise = false;
    for rule in rules.iter().rev() {
        let mut rule = *rule;
        // What stronger rules have decided for all of its devices isn't its business.
        for stronger in &kept {
            if stronger.covers_devices_of(&rule) {
                rule.access &= !stronger.access;
            }
        }
        if rule.access == 0 {
            continue;
        }
        // Block and char are all there is. Among neighbours that say the same, order is free.
        let twin = kept
            .iter()
            .rposition(|other| other.allow != rule.allow)
            .map_or(0, |at| at + 1);
        if let Some(twin) = (twin..kept.len()).find(|&at| kept[at].is_twin_of(&rule)) {
            kept.remove(twin);
            rule.kind = None;
        }
        // What it leaves undecided of a device that no other rule names.
        let rest = kept
            .iter()
            .filter(|kept| kept.is_any())
            .fold(ALL, |rest, kept| rest & !kept.access);
        if rule.is_any() && rest & !rule.access == 0 {
            otherwise = rule.allow;
            break;
        }
        kept.push(rule);
    }
    // From the weakest up: a rule that says what is said without it is dropped.
    let mut list: Vec<Rule> = Vec::with_capacity(kept.len());
    for rule in kept.into_iter().rev() {
        let needed = rule.allow != otherwise
            || list
                .iter()
                .any(|weaker| weaker.allow != rule.allow && weaker.overlaps(&rule));
        if needed {
            list.push(rule);
        }
    }
    list.reverse();
    List {
        rules: list,
        otherwise,
    }
}

#[cfg(test)]
mod tests;
