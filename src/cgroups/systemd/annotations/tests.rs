use super::*;

fn of(name: &str, value: &str) -> Result<(String, Value)> {
    let property = property(&format!("{PREFIX}{name}"), value)?.unwrap();
    Ok((property.name, property.value))
}

#[test]
fn values_of_all_types() {
    for (name, text, value) in [
        ("DefaultDependencies", "true", Value::Bool(true)),
        ("SendSIGKILL", "boolean false", Value::Bool(false)),
        (
            "TimeoutStopUSec",
            "uint64 123456789",
            Value::Number(123_456_789),
        ),
        ("TimeoutStopUSec", " 0x10 ", Value::Number(16)),
        ("TasksMax", "18446744073709551615", Value::Number(u64::MAX)),
        ("KillSignal", "int32 15", Value::Int(15)),
        (
            "CollectMode",
            "'inactive-or-failed'",
            Value::Text("inactive-or-failed".into()),
        ),
        (
            "Description",
            r#""it's \"so\" \u00e4""#,
            Value::Text("it's \"so\" ä".into()),
        ),
        (
            "After",
            "['crio.service', \"b.target\"]",
            Value::Texts(vec!["crio.service".into(), "b.target".into()]),
        ),
        ("After", "@as []", Value::Texts(vec![])),
        ("AllowedCPUs", "[byte 0x03, 1]", Value::Bytes(vec![3, 1])),
    ] {
        assert_eq!(
            of(name, text).unwrap(),
            (name.to_owned(), value),
            "{name} {text}"
        );
    }
}

#[test]
fn seconds_become_microseconds() {
    for (name, text, value) in [
        ("TimeoutStopSec", "30", 30_000_000),
        ("TimeoutStopSec", "uint64 1", 1_000_000),
        ("RuntimeMaxSec", "1.5", 1_500_000),
        ("RuntimeMaxSec", "double 0.25", 250_000),
    ] {
        let (name, found) = of(name, text).unwrap();
        assert!(name.ends_with("USec"));
        assert_eq!(found, Value::Number(value), "{text}");
    }
    for text in ["-1", "-1.5", "'30'", "true", "1e30", "99999999999999999999"] {
        assert!(of("TimeoutStopSec", text).is_err(), "{text}");
    }
}

#[test]
fn cve_2024_3154_what_makes_systemd_act_is_refused() {
    for name in [
        "ExecStart",
        "ExecStop",
        "ExecStopPost",
        "ExecReload",
        "OnFailure",
        "OnSuccess",
        "Requires",
        "Wants",
        "BindsTo",
        "Requisite",
        "Upholds",
        "Conflicts",
        "PropagatesStopTo",
        "RequiresMountsFor",
        "SuccessAction",
        "FailureAction",
        "JobTimeoutAction",
        "StartLimitAction",
        "RebootArgument",
        "JoinsNamespaceOf",
        "User",
        "PAMName",
        "Slice",
        "Delegate",
        "PIDs",
        "PIDFDs",
        "Controller",
        "BPFProgram",
        "IPIngressFilterPath",
        "DeviceAllow",
        "DevicePolicy",
        "RefuseManualStop",
        "execstart",
        "Foo",
    ] {
        let error = of(name, "true").unwrap_err();
        let pointer = format!("/annotations/{PREFIX}{name}");
        assert_eq!(error.pointer(), Some(pointer.as_str()));
        assert!(error.remedy().is_some(), "{name}");
    }
}

#[test]
fn names_are_three_letters_or_more() {
    for name in [
        "",
        "A",
        "Ab",
        "A.b",
        "Exec Start",
        "Äfter",
        "A1b",
        "After\0",
    ] {
        let error = of(name, "true").unwrap_err();
        assert!(
            error.to_string().contains("no name of a property"),
            "{name}"
        );
    }
    assert_eq!(property("org.systemd.properties.After", "x").unwrap(), None);
}

#[test]
fn values_of_other_types_are_refused() {
    for (name, text) in [
        ("DefaultDependencies", "1"),
        ("DefaultDependencies", "'true'"),
        ("TasksMax", "-1"),
        ("TasksMax", "1.5"),
        ("TasksMax", "18446744073709551616"),
        ("TasksMax", "infinity"),
        ("KillSignal", "2147483648"),
        ("After", "'crio.service'"),
        ("After", "[1]"),
        ("AllowedCPUs", "[256]"),
        ("AllowedCPUs", "[-1]"),
    ] {
        let error = of(name, text).unwrap_err();
        assert!(error.pointer().is_some(), "{name} {text}");
    }
}

#[test]
fn texts_that_are_nothing_are_refused() {
    let deep = "[".repeat(100_000);
    for text in [
        "",
        " ",
        "tru",
        "true false",
        "'",
        "'a",
        "\"a'",
        "'a'b",
        "[",
        "[1",
        "[1,",
        "[1,,2]",
        "[1 2]",
        "@",
        "@as",
        "uint64",
        "--1",
        "0x",
        "0xg",
        ".",
        "-",
        "+",
        "1e",
        "(1,)",
        "{}",
        "<1>",
        "nothing",
        "uint64 uint64 1",
        "@t @t 1",
        "'\\x41'",
        "'\\u00'",
        "'\\ud800'",
        "'\\u0000'",
        "1_000",
        "[[1]]",
        &deep,
    ] {
        assert_eq!(Parser::parse(text), None, "{text:.20}");
    }
}

#[test]
fn the_list_is_sorted_and_has_nothing_twice() {
    assert!(ALLOWED.is_sorted_by(|a, b| a.0 < b.0));
}

/// systemd puts them into a unit file.
#[test]
fn a_text_is_one_line() {
    for name in ["Description", "KillMode", "After"] {
        for text in [
            "a\nOnFailure=b.service",
            "a\r",
            "\t",
            "a\\nb",
            "a\\u000ab",
            "a\\U0000000ab",
            "\\u0085",
        ] {
            let text = match name {
                "After" => format!("['{text}']"),
                _ => format!("'{text}'"),
            };
            let error = of(name, &text).unwrap_err();
            assert!(error.to_string().contains("GVariant"), "{text:?}: {error}");
        }
    }
}
