//! Lines that are wrong, and what is said about them.

use super::*;

#[test]
fn wrong_lines_are_told_in_one_line_with_a_hint() {
    let table = [
        // line, message, part of the hint
        (
            "crate c",
            "unknown command \"crate\"",
            "did you mean create?",
        ),
        // podman's question whether pods can be restored.
        (
            "restore --lsm-mount-context",
            "restore: option --lsm-mount-context requires an argument",
            "",
        ),
        (
            "checkpoint --manage-cgroups-mode some c",
            "checkpoint: --manage-cgroups-mode \"some\": is none of soft, full, strict, ignore",
            "",
        ),
        (
            "checkpoint --empty-ns pid c",
            "checkpoint: --empty-ns \"pid\": CRIU can do without the content of a network namespace only",
            "",
        ),
        (
            "--rot /x list",
            "unknown option --rot",
            "did you mean --root?",
        ),
        (
            "--bundle /x create c",
            "unknown option --bundle",
            "husk run --bundle",
        ),
        ("-x list", "unknown option -x", "`husk --help`"),
        (
            "--root",
            "option --root requires an argument",
            "`husk --help`",
        ),
        (
            "--log-format xml list",
            "option --log-format: \"xml\" is none of text, json",
            "",
        ),
        (
            "--log-level loud list",
            "option --log-level: \"loud\" is none of error, warning, info, debug",
            "",
        ),
        (
            "--cgroup-manager x list",
            "option --cgroup-manager: \"x\" is none of cgroupfs, systemd, disabled",
            "",
        ),
        (
            "--rootless maybe list",
            "option --rootless: \"maybe\" is none of true, false, auto",
            "",
        ),
        (
            "--debug=maybe list",
            "option --debug is true or false, not maybe",
            "",
        ),
        (
            "--root / list",
            "--root /: the root directory can't hold containers",
            "/run/husk",
        ),
        (
            "create",
            "create: requires an argument: <ID>",
            "usage: husk create [OPTIONS] <ID>",
        ),
        (
            "start",
            "start: requires an argument: <ID>",
            "usage: husk start <ID>",
        ),
        ("state", "state: requires an argument: <ID>", "usage: "),
        ("kill", "kill: requires an argument: <ID>", "usage: "),
        ("delete", "delete: requires an argument: <ID>", "usage: "),
        (
            "exec",
            "exec: requires an argument: <ID> <PROGRAM>...",
            "usage: ",
        ),
        (
            "exec c",
            "exec: requires an argument: <PROGRAM>...",
            "usage: ",
        ),
        (
            "state a b",
            "state: unexpected argument \"b\"",
            "`husk state --help`",
        ),
        ("list a", "list: unexpected argument \"a\"", ""),
        ("features a", "features: unexpected argument \"a\"", ""),
        (
            "create --bundel /x c",
            "create: unknown option --bundel",
            "did you mean --bundle?",
        ),
        (
            "create --console c",
            "create: unknown option --console",
            "did you mean --console-socket?",
        ),
        ("create -x c", "create: unknown option -x", ""),
        (
            "create --detach c",
            "create: unknown option --detach",
            "an option of run, exec",
        ),
        (
            "create --config f c",
            "create: unknown option --config",
            "`husk create --help`",
        ),
        (
            "create c --bundle",
            "create: option --bundle requires an argument",
            "",
        ),
        (
            "create -b",
            "create: option --bundle requires an argument",
            "",
        ),
        (
            "create --bundle= c",
            "create: option --bundle requires an argument",
            "",
        ),
        (
            "create --preserve-fds x c",
            "create: --preserve-fds \"x\": want a number",
            "",
        ),
        (
            "create --preserve-fds -1 c",
            "create: --preserve-fds \"-1\": want a number",
            "",
        ),
        (
            "run --detach=maybe c",
            "run: option --detach is true or false, not maybe",
            "",
        ),
        (
            "list -f yaml",
            "list: --format \"yaml\": is none of table, json",
            "",
        ),
        ("stop c", "unknown command \"stop\"", "husk kill ID"),
        ("rm c", "unknown command \"rm\"", "husk delete ID"),
        (
            "run --rm c",
            "run: unknown option --rm",
            "deletes the container at its end",
        ),
        (
            "run --name c",
            "run: unknown option --name",
            "stands at the end",
        ),
        (
            "run --volume /a:/a c",
            "run: unknown option --volume",
            "(/mounts)",
        ),
        (
            "exec -it c sh",
            "exec: unknown option -it",
            "-t gives it a terminal",
        ),
        (
            "update --pids-limit ten c",
            "update: --pids-limit \"ten\": want a number",
            "",
        ),
        ("kill c FOO", "kill: unknown signal \"FOO\"", ""),
        (
            "kill c SIGTRM",
            "kill: unknown signal \"SIGTRM\": did you mean TERM?",
            "",
        ),
        (
            "kill c HPU",
            "kill: unknown signal \"HPU\": did you mean HUP?",
            "",
        ),
        ("kill c 65", "kill: signal 65 is not between 0 and 64", ""),
        ("kill -9 c", "kill: unknown option -9", "husk kill ID 9"),
        (
            "exec -u root c sh",
            "exec: --user \"root\": want a number; names are not looked up",
            "",
        ),
        (
            "exec -u 1: c sh",
            "exec: --user \"1:\": want a number; names are not looked up",
            "",
        ),
        (
            "exec -g -1 c sh",
            "exec: --additional-gids \"-1\": want a number; names are not looked up",
            "",
        ),
    ];
    for (line, message, hint) in table {
        let error = match parse_line(line) {
            Err(error) => error,
            Ok((name, ..)) => panic!("{line}: accepted as {name}"),
        };
        assert_eq!(error.to_string(), message, "{line}");
        let remedy = error.remedy().unwrap_or_default();
        assert!(remedy.contains(hint), "{line}: {remedy}");
        assert!(!remedy.contains('\n'), "{line}: {remedy}");
    }
}

#[test]
fn a_wrong_line_still_says_where_the_log_is() {
    let mut said = Said::default();
    let line = "--log /l --log-format json create --no-such c";
    assert!(parse(words(line).into_iter(), &mut said, |_| Ok(())).is_err());
    assert_eq!(said.log, some_path("/l"));
    assert_eq!(said.log_format, Format::Json);
}

#[test]
fn paths_need_not_be_utf8() {
    let odd = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    let mut said = Said::default();
    let line = [
        odd(b"--root"),
        odd(b"/r\xff"),
        odd(b"create"),
        odd(b"--bundle=/b\xff"),
        odd(b"c"),
    ];
    let Ok(Reading::Words {
        command,
        definition,
        options,
        positionals,
    }) = read(line.into_iter(), &mut said, |_| Ok(()))
    else {
        panic!("refused");
    };
    let usual = create::Args::usual(&Given {
        options: &options,
        positionals: &positionals,
    });
    let mut matches = matches(command, definition, options, positionals).unwrap();
    let global = said.resolve().unwrap();
    assert_eq!(global.root.as_os_str().as_bytes(), b"/r\xff");
    let create = create::Args::from_arg_matches_mut(&mut matches).unwrap();
    assert_eq!(usual.as_ref(), Some(&create));
    assert_eq!(create.bundle.as_os_str().as_bytes(), b"/b\xff");

    for line in [
        vec![odd(b"create"), odd(b"c\xff")],
        vec![odd(b"create"), odd(b"-\xff")],
        vec![odd(b"create\xff")],
        vec![odd(b"--log-format"), odd(b"\xff"), odd(b"list")],
    ] {
        assert!(parse(line.into_iter(), &mut Said::default(), |_| Ok(())).is_err());
    }
}
