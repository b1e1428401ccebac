use super::interpreter::{Request, run, unreachable};
use super::*;

/// The rules as the specification words them, one access at a time.
fn decide(rules: &[Rule], request: Request) -> bool {
    [MKNOD, READ, WRITE]
        .into_iter()
        .filter(|bit| request.access & bit != 0)
        .all(|bit| {
            let mut allowed = false;
            for rule in rules {
                if rule.kind.is_none_or(|kind| kind == request.kind)
                    && rule.major.is_none_or(|major| major == request.major)
                    && rule.minor.is_none_or(|minor| minor == request.minor)
                    && rule.access & bit != 0
                {
                    allowed = rule.allow;
                }
            }
            allowed
        })
}

/// xorshift64*: the same cases in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % sides
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

const NUMBERS: [u32; 5] = [0, 1, 7, 0x8000_0001, u32::MAX];

fn random_rule(dice: &mut Dice) -> Rule {
    let number = |dice: &mut Dice| match dice.below(3) {
        0 => None,
        _ => Some(dice.pick(&NUMBERS)),
    };
    Rule {
        allow: dice.below(2) == 1,
        kind: dice.pick(&[None, Some(Kind::Block), Some(Kind::Char)]),
        major: number(dice),
        minor: number(dice),
        access: match dice.below(2) {
            0 => ALL,
            _ => 1 + dice.below(7) as u8,
        },
    }
}

#[test]
fn programs_decide_as_the_rules_do() {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut requests = Vec::new();
    for kind in [Kind::Block, Kind::Char] {
        for major in NUMBERS.into_iter().chain([2]) {
            for minor in NUMBERS.into_iter().chain([2]) {
                for access in 1..=ALL {
                    requests.push(Request {
                        kind,
                        major,
                        minor,
                        access,
                    });
                }
            }
        }
    }
    let mut without_program = 0;
    for case in 0..6_000 {
        let rules: Vec<Rule> = (0..dice.below(12))
            .map(|_| random_rule(&mut dice))
            .collect();
        let List {
            rules: list,
            otherwise,
        } = simplify(&rules);
        let program = Program::emit(&list, otherwise);
        let unconditional = list.is_empty() && otherwise;
        if unconditional {
            without_program += 1;
        } else if !list.is_empty() {
            assert_eq!(unreachable(program.instructions()), None);
        }
        for request in &requests {
            let expected = decide(&rules, *request);
            assert_eq!(
                unconditional || run(program.instructions(), *request),
                expected,
                "case {case}: {request:?} of {rules:?} as {list:?}"
            );
        }
    }
    assert!(without_program > 20, "{without_program}");
}

fn rules(json: &str) -> Vec<LinuxDeviceCgroup> {
    serde_json::from_str(json).unwrap()
}

const CHAR: Kind = Kind::Char;
const BLOCK: Kind = Kind::Block;

#[test]
fn what_containers_may_use() {
    let request = |kind, major, minor, access| Request {
        kind,
        major,
        minor,
        access,
    };
    let deny_all = r#"{"allow":false,"access":"rwm"}"#;
    // (list, request, granted)
    let table = [
        ("[]", request(CHAR, 1, 3, READ | WRITE), true),
        ("[]", request(CHAR, 1, 11, READ), false),
        ("[]", request(BLOCK, 8, 0, READ), false),
        ("[]", request(BLOCK, 8, 0, MKNOD), true),
        ("[]", request(BLOCK, 8, 0, MKNOD | READ), false),
        ("[]", request(CHAR, 136, 77, READ | WRITE), true),
        ("[]", request(CHAR, 10, 200, READ | WRITE), true),
        ("[]", request(CHAR, 10, 229, READ), false),
        // The defaults stand behind the list.
        (
            r#"[{"allow":false,"type":"c","major":1,"minor":3,"access":"rwm"}]"#,
            request(CHAR, 1, 3, READ),
            true,
        ),
        // runc's engines say -1 for any.
        (
            r#"[DENY,{"allow":true,"type":"b","major":8,"minor":-1,"access":"r"}]"#,
            request(BLOCK, 8, 16, READ),
            true,
        ),
        (
            r#"[DENY,{"allow":true,"type":"b","major":8,"minor":-1,"access":"r"}]"#,
            request(BLOCK, 8, 16, READ | WRITE),
            false,
        ),
        // Later entries win.
        (
            r#"[DENY,{"allow":true,"type":"b","major":8,"access":"rw"},{"allow":false,"type":"b","major":8,"minor":1}]"#,
            request(BLOCK, 8, 1, READ),
            false,
        ),
        // Denying to read denies to read and write.
        (
            r#"[{"allow":true},{"allow":false,"type":"b","major":8,"minor":1,"access":"r"}]"#,
            request(BLOCK, 8, 1, READ | WRITE),
            false,
        ),
        (
            r#"[{"allow":true},{"allow":false,"type":"b","major":8,"minor":1,"access":"r"}]"#,
            request(BLOCK, 8, 1, WRITE),
            true,
        ),
        // Read and write may be granted by two entries.
        (
            r#"[DENY,{"allow":true,"type":"c","major":9,"access":"r"},{"allow":true,"minor":4,"access":"w"}]"#,
            request(CHAR, 9, 4, READ | WRITE),
            true,
        ),
        // A rule for all types with a number is about that number only.
        (
            r#"[DENY,{"allow":true,"type":"a","major":7,"access":"rwm"}]"#,
            request(BLOCK, 8, 0, READ),
            false,
        ),
    ];
    for (list, request, granted) in table {
        let list = list.replace("DENY", deny_all);
        let program = compile(&rules(&list), "/d").unwrap().unwrap();
        assert_eq!(
            run(program.instructions(), request),
            granted,
            "{request:?} of {list}"
        );
    }
}

#[test]
fn everything_allowed_needs_no_program() {
    for list in [
        r#"[{"allow":true,"access":"rwm"}]"#,
        r#"[{"allow":true}]"#,
        r#"[{"allow":false},{"allow":true,"type":"c"},{"allow":true,"type":"b"}]"#,
        r#"[{"allow":false},{"allow":true,"access":"r"},{"allow":true,"access":"wm"}]"#,
        r#"[{"allow":true},{"allow":false,"type":"c","major":1,"minor":3}]"#,
    ] {
        assert_eq!(compile(&rules(list), "/d").unwrap(), None, "{list}");
    }
}

/// The lists of the engines differ only in what the defaults say anyway.
#[test]
fn engines_lists_make_one_small_program() {
    let none = compile(&[], "/d").unwrap().unwrap();
    assert!(none.instructions().len() <= 30, "{none:?}");
    for list in [
        r#"[{"allow":false,"access":"rwm"}]"#,
        r#"[{"allow":false,"access":"rwm"},{"allow":false,"access":"rwm"}]"#,
        r#"[{"allow":false,"access":"rwm"},
            {"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"},
            {"allow":true,"type":"c","major":1,"minor":8,"access":"rwm"},
            {"allow":true,"type":"c","major":136,"access":"rwm"},
            {"allow":true,"type":"c","major":5,"minor":2,"access":"rwm"}]"#,
    ] {
        assert_eq!(
            compile(&rules(list), "/d").unwrap().as_ref(),
            Some(&none),
            "{list}"
        );
    }
}

#[test]
fn bad_rules_are_named() {
    for (list, message) in [
        (
            r#"[{"allow":true,"type":"p"}]"#,
            "config.json (/d/0/type): a rule is for a, b or c, not p",
        ),
        (
            r#"[{"allow":true},{"allow":true,"major":-2}]"#,
            "config.json (/d/1/major): -2 is no device number",
        ),
        (
            r#"[{"allow":true,"minor":4294967296}]"#,
            "config.json (/d/0/minor): 4294967296 is no device number",
        ),
        (
            r#"[{"allow":true,"access":"rwx"}]"#,
            "config.json (/d/0/access): 'x' is none of r, w and m",
        ),
    ] {
        assert_eq!(
            compile(&rules(list), "/d").unwrap_err().to_string(),
            message
        );
    }
}

#[test]
fn the_longest_list_still_fits_and_a_longer_one_is_refused() {
    // Alternating verdicts: nothing can be shared between neighbours.
    let list = |length| -> Vec<_> {
        (0..length)
            .map(|number| {
                let mut rule = LinuxDeviceCgroup::default();
                rule.set_allow(number % 2 == 0)
                    .set_typ(Some(LinuxDeviceType::B))
                    .set_major(Some(number / 2))
                    .set_minor(if number % 2 == 0 { None } else { Some(1) })
                    .set_access(Some("r".into()));
                rule
            })
            .collect()
    };
    let program = compile(&list(MOST as i64), "/d").unwrap().unwrap();
    assert_eq!(unreachable(program.instructions()), None);
    for (minor, granted) in [(0, true), (1, false)] {
        let request = Request {
            kind: BLOCK,
            major: 17,
            minor,
            access: READ,
        };
        assert_eq!(run(program.instructions(), request), granted);
    }
    let error = compile(&list(MOST as i64 + 1), "/d").unwrap_err();
    assert_eq!(
        error.to_string(),
        "config.json (/d): 6001 rules, of which 6000 are the most"
    );
}
