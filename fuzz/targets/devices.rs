//! Lists of device rules: the program that husk loads, run by an interpreter, against the list as the
//! specification words it, one kind of access at a time.

#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use husk::cgroups::devices::interpreter::{Request, run, unreachable};
use husk::cgroups::devices::{Kind, compile};
use libfuzzer_sys::fuzz_target;
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

#[derive(Debug, Arbitrary)]
struct Entry {
    allow: bool,
    kind: Option<u8>,
    major: Option<Number>,
    minor: Option<Number>,
    access: Option<u8>,
}

/// Few numbers, so that rules meet; and any.
#[derive(Debug, Clone, Copy)]
struct Number(i64);

impl<'a> Arbitrary<'a> for Number {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        const COMMON: [i64; 13] = [
            -1,
            0,
            1,
            3,
            5,
            7,
            8,
            10,
            136,
            200,
            0x7fff_ffff,
            0x8000_0000,
            0xffff_ffff,
        ];
        Ok(Number(match u.ratio(15, 16)? {
            true => *u.choose(&COMMON)?,
            false => u.arbitrary()?,
        }))
    }
}

const MKNOD: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;

fn entry(entry: &Entry) -> LinuxDeviceCgroup {
    let kinds = [
        LinuxDeviceType::A,
        LinuxDeviceType::B,
        LinuxDeviceType::C,
        LinuxDeviceType::U,
    ];
    let letters = |bits: u8| {
        let all = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')];
        all.iter()
            .filter(|(bit, _)| bits & bit != 0)
            .map(|(_, letter)| *letter)
            .collect()
    };
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(entry.allow)
        .set_typ(
            entry
                .kind
                .map(|kind| kinds[usize::from(kind) % kinds.len()]),
        )
        .set_major(entry.major.map(|number| number.0))
        .set_minor(entry.minor.map(|number| number.0))
        .set_access(entry.access.map(letters));
    rule
}

/// What every container may use, whatever its list says.
const ALWAYS: [(Kind, Option<u32>, Option<u32>, u8); 12] = [
    (Kind::Char, None, None, MKNOD),
    (Kind::Block, None, None, MKNOD),
    (Kind::Char, Some(1), Some(3), 7),
    (Kind::Char, Some(1), Some(5), 7),
    (Kind::Char, Some(1), Some(7), 7),
    (Kind::Char, Some(1), Some(8), 7),
    (Kind::Char, Some(1), Some(9), 7),
    (Kind::Char, Some(5), Some(0), 7),
    (Kind::Char, Some(5), Some(1), 7),
    (Kind::Char, Some(5), Some(2), 7),
    (Kind::Char, Some(136), None, 7),
    (Kind::Char, Some(10), Some(200), 7),
];

fn granted(list: &[LinuxDeviceCgroup], request: Request) -> bool {
    [READ, WRITE, MKNOD]
        .into_iter()
        .filter(|bit| request.access & bit != 0)
        .all(|bit| {
            ALWAYS.iter().any(|(kind, major, minor, access)| {
                *kind == request.kind
                    && major.is_none_or(|major| major == request.major)
                    && minor.is_none_or(|minor| minor == request.minor)
                    && access & bit != 0
            }) || list
                .iter()
                .rev()
                .find(|rule| speaks_of(rule, request, bit))
                .is_some_and(LinuxDeviceCgroup::allow)
        })
}

fn speaks_of(rule: &LinuxDeviceCgroup, request: Request, bit: u8) -> bool {
    let number = |said: Option<i64>, asked: u32| {
        said.is_none_or(|said| said == -1 || said == i64::from(asked))
    };
    let letter = match bit {
        READ => 'r',
        WRITE => 'w',
        _ => 'm',
    };
    let kind = match rule.typ().unwrap_or_default() {
        LinuxDeviceType::B => Some(Kind::Block),
        LinuxDeviceType::C | LinuxDeviceType::U => Some(Kind::Char),
        _ => None,
    };
    kind.is_none_or(|kind| kind == request.kind)
        && number(rule.major(), request.major)
        && number(rule.minor(), request.minor)
        && rule
            .access()
            .as_deref()
            .is_none_or(|access| access.is_empty() || access.contains(letter))
}

fuzz_target!(|entries: Vec<Entry>| {
    let list: Vec<LinuxDeviceCgroup> = entries.iter().take(100).map(entry).collect();
    let sound = |number: Option<i64>| {
        number.is_none_or(|number| number == -1 || u32::try_from(number).is_ok())
    };
    let program = match compile(&list, "/d") {
        Ok(program) => program,
        Err(_) => {
            return assert!(
                !list
                    .iter()
                    .all(|rule| sound(rule.major()) && sound(rule.minor()))
            );
        }
    };
    if let Some(program) = &program {
        assert_eq!(unreachable(program.instructions()), None);
    }
    // What the rules name, and its neighbours.
    let named = |numbers: &mut Vec<u32>, number: Option<i64>| {
        if let Some(number) = number.and_then(|number| u32::try_from(number).ok()) {
            numbers.extend([number, number.wrapping_add(1)]);
        }
    };
    let (mut majors, mut minors) = (vec![1, 2], vec![2, 3]);
    for rule in list.iter().take(12) {
        named(&mut majors, rule.major());
        named(&mut minors, rule.minor());
    }
    for numbers in [&mut majors, &mut minors] {
        numbers.sort_unstable();
        numbers.dedup();
    }
    for kind in [Kind::Block, Kind::Char] {
        for &major in &majors {
            for &minor in &minors {
                for access in 1..=7 {
                    let request = Request {
                        kind,
                        major,
                        minor,
                        access,
                    };
                    let says = program
                        .as_ref()
                        .is_none_or(|program| run(program.instructions(), request));
                    assert_eq!(
                        says,
                        granted(&list, request),
                        "{request:?} of {list:#?}: {program:?}"
                    );
                }
            }
        }
    }
});
