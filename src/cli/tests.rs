use std::path::{Path, PathBuf};

use clap::FromArgMatches;

use super::*;
use crate::commands::exec::User;
use crate::commands::{
    Driver, Rootless, create, delete, exec, kill, list, ps, run, spec, start, state,
};
use crate::log::{Format, Level};

/// The words of a line, split at blanks.
fn words(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

fn parse_line(line: &str) -> Result<(&'static str, ArgMatches, Global, Said)> {
    let mut said = Said::default();
    let (name, matches) = match read(words(line).into_iter(), &mut said, |_| Ok(()))? {
        Reading::Words {
            command,
            definition,
            options,
            positionals,
        } => (
            command.name,
            matches(command, definition, options, positionals)?,
        ),
        Reading::Print(text) => panic!("{line}: printed {text}"),
    };
    let global = said.resolve()?;
    Ok((name, matches, global, said))
}

#[track_caller]
fn args<A: FromArgMatches>(line: &str) -> A {
    match parse_line(line) {
        Ok((_, mut matches, ..)) => A::from_arg_matches_mut(&mut matches).unwrap(),
        Err(error) => panic!("{line}: {error}"),
    }
}

fn printed(line: &str) -> String {
    match parse(words(line).into_iter(), &mut Said::default(), |_| Ok(())) {
        Ok(Invocation::Print(text)) => text,
        Ok(Invocation::Run { command, .. }) => panic!("{line}: ran {}", command.name),
        Err(error) => panic!("{line}: {error}"),
    }
}

/// Whether a line is read without clap, and if so that clap says the same.
#[track_caller]
fn is_usual<A: FromArgMatches + PartialEq + std::fmt::Debug>(
    line: &str,
    usual: fn(&Given) -> Option<A>,
) -> bool {
    let reading = read(words(line).into_iter(), &mut Said::default(), |_| Ok(()));
    let Ok(Reading::Words {
        command,
        definition,
        options,
        positionals,
    }) = reading
    else {
        panic!("{line}: not read");
    };
    let args = usual(&Given {
        options: &options,
        positionals: &positionals,
    });
    let Some(args) = args.filter(|_| definition.is_none()) else {
        return false;
    };
    let mut matches = match matches(command, None, options, positionals) {
        Ok(matches) => matches,
        Err(error) => panic!("{line}: {error}"),
    };
    assert_eq!(
        A::from_arg_matches_mut(&mut matches).unwrap(),
        args,
        "{line}"
    );
    true
}

#[test]
fn what_engines_write_is_read_without_clap_as_clap_reads_it() {
    for line in [
        "create c",
        "create --bundle /b --pid-file /p --console-socket /s --no-pivot --no-new-keyring c",
        "create -b /b --bundle=/c -bundle /d c --pid-file=/p",
        "create --no-pivot=false --no-subreaper c",
        "--root /r --log /l --log-format json --systemd-cgroup create --bundle /b c",
    ] {
        assert!(is_usual(line, create::Args::usual), "{line}");
    }
    for line in [
        "run c",
        "run -d -b /b c",
        "run --detach --keep --pid-file /p c",
        "run --detach=false c",
    ] {
        assert!(is_usual(line, run::Args::usual), "{line}");
    }
    for line in ["start c", "start -- c"] {
        assert!(is_usual(line, start::Args::usual), "{line}");
    }
    assert!(is_usual("state c", state::Args::usual));
    for line in [
        "delete c",
        "delete --force c",
        "delete -f c",
        "delete c --force",
    ] {
        assert!(is_usual(line, delete::Args::usual), "{line}");
    }
    for line in [
        "kill c",
        "kill c 9",
        "kill --all c SIGTERM",
        "kill -a c term",
    ] {
        assert!(is_usual(line, kill::Args::usual), "{line}");
    }
    for line in [
        "exec c true",
        "exec c sh -c x --force -t",
        "exec --process /p --pid-file /f --detach c",
        "exec -t --console-socket /s -p /p c",
        "exec -td c sh",
    ] {
        assert!(is_usual(line, exec::Args::usual), "{line}");
    }
}

/// Clap refuses these, or knows more of them.
#[test]
fn what_is_not_usual_is_left_to_clap() {
    for line in [
        "create",
        "create a b",
        "create --preserve-fds 1 c",
        "create --bundle= c",
        "create --overlay c",
    ] {
        assert!(!is_usual(line, create::Args::usual), "{line}");
    }
    for line in ["kill c NOSIGNAL", "kill c 9 9", "kill"] {
        assert!(!is_usual(line, kill::Args::usual), "{line}");
    }
    for line in ["exec c", "exec --cwd / c sh", "exec"] {
        assert!(!is_usual(line, exec::Args::usual), "{line}");
    }
    assert!(!is_usual("run --seccomp-log c", run::Args::usual));
    assert!(!is_usual("delete a b", delete::Args::usual));
}

fn some_path(path: &str) -> Option<PathBuf> {
    Some(PathBuf::from(path))
}

fn plain_create() -> create::Args {
    args("create c")
}

/// What engines really call (docs: the exact argv of containerd, conmon, buildkit, podman, CRI-O).
#[test]
fn engines_create() {
    let containerd = "--root /run/containerd/runc/k8s.io --log /b/log.json --log-format json \
        create --bundle /b --pid-file /b/init.pid --console-socket /s --no-pivot --no-new-keyring c";
    let (name, _, global, said) = parse_line(containerd).unwrap();
    assert_eq!(name, "create");
    assert_eq!(global.root, Path::new("/run/containerd/runc/k8s.io"));
    assert!(global.root_given);
    assert_eq!(said.log, some_path("/b/log.json"));
    assert_eq!(said.log_format, Format::Json);
    assert_eq!(said.log_level(), Level::Error);
    let mut expected = create::Args {
        bundle: "/b".into(),
        pid_file: some_path("/b/init.pid"),
        console_socket: some_path("/s"),
        no_pivot: true,
        no_new_keyring: true,
        ..plain_create()
    };
    assert_eq!(args::<create::Args>(containerd), expected);

    let conmon = "--systemd-cgroup --log-format=json --log /l --root=/r create --bundle /b \
        --pid-file /p --preserve-fds 2 c";
    let (.., global, said) = parse_line(conmon).unwrap();
    assert_eq!(global.root, Path::new("/r"));
    assert_eq!(global.driver(), Driver::Systemd);
    assert_eq!(said.log_format, Format::Json);
    expected = create::Args {
        bundle: "/b".into(),
        pid_file: some_path("/p"),
        preserve_fds: 2,
        ..plain_create()
    };
    assert_eq!(args::<create::Args>(conmon), expected);

    let (.., global, _) = parse_line("--cgroup-manager disabled create c").unwrap();
    assert_eq!(global.driver(), Driver::Disabled);
}

#[test]
fn engines_exec() {
    let detached: exec::Args =
        args("exec --process /f --console-socket /s --detach --pid-file /b/1.pid c");
    assert_eq!(detached.process, some_path("/f"));
    assert_eq!(detached.console_socket, some_path("/s"));
    assert_eq!(detached.pid_file, some_path("/b/1.pid"));
    assert!(detached.detach);
    assert_eq!(detached.id, "c");
    assert!(detached.program.is_empty());
    assert_eq!(
        args::<exec::Args>("exec --pid-file /b/1.pid --process /f --console-socket /s --detach c"),
        detached
    );
}

#[test]
fn engines_the_rest() {
    for (line, all, number) in [
        ("kill c", false, 15),
        ("kill c 9", false, 9),
        ("kill c KILL", false, 9),
        ("kill --all c 9", true, 9),
        ("kill -a c SIGTERM", true, 15),
        ("kill c 9 --all", true, 9),
        ("kill c -a", true, 15),
        ("kill c rtmin+1", false, 35),
    ] {
        let kill: kill::Args = args(line);
        assert_eq!((kill.all, kill.signal.number()), (all, number), "{line}");
        assert_eq!(kill.id, "c", "{line}");
    }
    for (line, force) in [
        ("delete c", false),
        ("delete --force c", true),
        ("delete c -f", true),
    ] {
        assert_eq!(args::<delete::Args>(line).force, force, "{line}");
    }
    for line in ["start c", "pause c", "resume c", "state c"] {
        assert_eq!(args::<state::Args>(line).id, "c", "{line}");
    }
    let json: ps::Args = args("ps --format json c");
    assert_eq!(json.format, list::Format::Json);
    assert!(json.ps_args.is_empty());
    let forwarded: ps::Args = args("ps c -e -o pid,cmd --help -- x");
    assert_eq!(
        forwarded.ps_args,
        ["-e", "-o", "pid,cmd", "--help", "--", "x"]
    );
    assert_eq!(parse_line("features").unwrap().0, "features");
    let buildkit: run::Args = args("run --bundle /b --no-pivot --keep c");
    assert!(buildkit.keep && buildkit.create.no_pivot && !buildkit.detach);
}

#[test]
fn every_option_of_every_command() {
    let create: create::Args = args(
        "create -b /b --console-socket /c --pidfd-socket /d --pid-file /p --no-pivot \
         --no-new-keyring --no-subreaper --preserve-fds 3 --overlay=/upper --lower /1 --lower=/2 c",
    );
    assert_eq!(
        create,
        create::Args {
            bundle: "/b".into(),
            console_socket: some_path("/c"),
            pidfd_socket: some_path("/d"),
            pid_file: some_path("/p"),
            no_pivot: true,
            no_new_keyring: true,
            no_subreaper: true,
            preserve_fds: 3,
            overlay: Some("/upper".into()),
            lower: vec!["/1".into(), "/2".into()],
            id: "c".into(),
        }
    );
    assert_eq!(
        args::<run::Args>("run -d --keep --no-subreaper --overlay c"),
        run::Args {
            create: create::Args {
                overlay: Some("tmpfs".into()),
                no_subreaper: true,
                ..plain_create()
            },
            detach: true,
            keep: true,
            seccomp_log: None,
        }
    );
    assert_eq!(
        args::<exec::Args>(
            "exec -p /f --console-socket /c --pidfd-socket /d --cwd /w -e A=1 --env B=x=y -t \
             -u 1:2 -g 3 --additional-gids 4 -d --pid-file /p --process-label l --apparmor a \
             --no-new-privs -c CAP_KILL --cap CAP_CHOWN --preserve-fds 1 --cgroup x --ignore-paused \
             c sh -c x"
        ),
        exec::Args {
            process: some_path("/f"),
            console_socket: some_path("/c"),
            pidfd_socket: some_path("/d"),
            cwd: Some("/w".into()),
            env: vec!["A=1".into(), "B=x=y".into()],
            tty: true,
            user: Some(User {
                uid: 1,
                gid: Some(2)
            }),
            additional_gids: vec![3, 4],
            detach: true,
            pid_file: some_path("/p"),
            process_label: Some("l".into()),
            apparmor: Some("a".into()),
            no_new_privs: true,
            cap: vec!["CAP_KILL".into(), "CAP_CHOWN".into()],
            preserve_fds: 1,
            cgroup: vec!["x".into()],
            ignore_paused: true,
            id: "c".into(),
            program: vec!["sh".into(), "-c".into(), "x".into()],
        }
    );
    let list: list::Args = args("list -f json -q");
    assert!(list.quiet && list.format == list::Format::Json);
    let spec: spec::Args = args("spec -b /b --rootless");
    assert!(spec.rootless && spec.bundle == Path::new("/b"));
}

#[test]
fn spellings_of_one_option() {
    for line in [
        "run -b /x c",
        "run -b=/x c",
        "run -b/x c",
        "run --bundle /x c",
        "run --bundle=/x c",
        "run -bundle /x c",
        "run -bundle=/x c",
        "run c -b /x",
        "run c --bundle=/x",
        "run --bundle=/first --bundle /x c",
        "run -b /x -- c",
    ] {
        assert_eq!(
            args::<run::Args>(line).create.bundle,
            Path::new("/x"),
            "{line}"
        );
    }
    for (line, detach) in [
        ("run c", false),
        ("run -d c", true),
        ("run -detach c", true),
        ("run -no-subreaper -d c", true),
        ("run --detach=true c", true),
        ("run --detach=1 c", true),
        ("run -d=T c", true),
        ("run -d=false c", false),
        ("run --detach=false c", false),
        ("run --detach --detach=false c", false),
        ("run --detach=false -d c", true),
    ] {
        assert_eq!(args::<run::Args>(line).detach, detach, "{line}");
    }
    assert!(args::<run::Args>("run -no-subreaper c").create.no_subreaper);
    assert!(
        args::<run::Args>("run -no-subreaper=true c")
            .create
            .no_subreaper
    );
    // A row of flags, and one that ends with a value.
    let exec: exec::Args = args("exec -tdu 5 c x");
    assert!(exec.tty && exec.detach && exec.user.is_some());
    let exec: exec::Args = args("exec -tu5 c x");
    assert!(exec.tty && exec.user.is_some());
    // The word is an option's name: not -c with "ap", as Go reads it.
    assert_eq!(
        args::<exec::Args>("exec -cap CAP_KILL c x").cap,
        ["CAP_KILL"]
    );
    assert_eq!(args::<exec::Args>("exec -cCAP_KILL c x").cap, ["CAP_KILL"]);
}

#[test]
fn values_may_look_like_options() {
    assert_eq!(args::<exec::Args>("exec --env -x=1 c y").env, ["-x=1"]);
    assert_eq!(args::<exec::Args>("exec -e --tty c y").env, ["--tty"]);
    assert!(!args::<exec::Args>("exec -e --tty c y").tty);
    assert_eq!(args::<state::Args>("state -- -c").id, "-c");
}

#[test]
fn execs_program_keeps_its_words() {
    for (line, tty, program) in [
        ("exec c sh", false, &["sh"][..]),
        ("exec c sh -t --debug", false, &["sh", "-t", "--debug"]),
        ("exec -t c sh -h", true, &["sh", "-h"]),
        ("exec c -t sh -t", true, &["sh", "-t"]),
        ("exec c -- -odd -t", false, &["-odd", "-t"]),
        ("exec c sh -- x", false, &["sh", "--", "x"]),
        ("exec -- c -t", false, &["-t"]),
        ("exec -p /f c", false, &[]),
    ] {
        let exec: exec::Args = args(line);
        assert_eq!((exec.tty, exec.id.as_str()), (tty, "c"), "{line}");
        assert_eq!(exec.program, program, "{line}");
    }
}

#[test]
fn overlay_takes_its_value_only_after_an_equals_sign() {
    for (line, overlay) in [
        ("run c", None),
        ("run --overlay c", Some("tmpfs")),
        ("run c --overlay", Some("tmpfs")),
        ("run --overlay=tmpfs:size=64m c", Some("tmpfs:size=64m")),
        ("run -overlay=/dir c", Some("/dir")),
    ] {
        let run: run::Args = args(line);
        assert_eq!(run.create.overlay.as_deref(), overlay, "{line}");
        assert_eq!(run.create.id, "c", "{line}");
    }
}

#[test]
fn global_options() {
    let (.., global, said) = parse_line("--debug -root /x -rootless=false list").unwrap();
    assert_eq!(global.root, Path::new("/x"));
    assert_eq!(global.rootless, Rootless::False);
    assert_eq!(said.log_level(), Level::Debug);
    for (line, level) in [
        ("list", Level::Warning),
        ("--log /x list", Level::Error),
        ("--log /x --log-level warning list", Level::Warning),
        ("--log-level warning list", Level::Warning),
        ("--log-level=info list", Level::Info),
        ("--debug=false list", Level::Warning),
        ("list --debug", Level::Debug),
    ] {
        assert_eq!(parse_line(line).unwrap().3.log_level(), level, "{line}");
    }
    for (line, driver) in [
        ("list", Driver::Cgroupfs),
        ("--systemd-cgroup list", Driver::Systemd),
        ("--cgroup-manager=systemd list", Driver::Systemd),
        ("--cgroup-manager disabled list", Driver::Disabled),
        (
            "--systemd-cgroup --cgroup-manager cgroupfs list",
            Driver::Cgroupfs,
        ),
        ("--systemd-cgroup=false list", Driver::Cgroupfs),
    ] {
        let (_, _, global, _) = parse_line(line).unwrap();
        assert_eq!(global.driver(), driver, "{line}");
    }
    for (line, rootless) in [
        ("list", Rootless::Auto),
        ("--rootless auto list", Rootless::Auto),
        ("--rootless true list", Rootless::True),
        ("--rootless=1 list", Rootless::True),
    ] {
        assert_eq!(parse_line(line).unwrap().2.rootless, rootless, "{line}");
    }
    let (.., global, said) = parse_line("--log= list").unwrap();
    assert_eq!(said.log, None);
    assert!(!global.root_given);
    // A script's unset variable must not mean the default directory.
    assert!(parse_line("--root= list").is_err());
}

#[test]
fn help_and_version() {
    for line in [
        "--version",
        "-v",
        "-version",
        "--debug -v",
        "-v --no-such-option",
    ] {
        let version = printed(line);
        assert!(version.starts_with("husk version "), "{line}");
        assert!(version.contains("\ncommit: "), "{line}");
        assert!(version.ends_with("\nspec: 1.3.0\n"), "{line}");
    }
    for line in ["", "--help", "-h", "help", "--debug"] {
        assert!(printed(line).contains("Commands:"), "{line}");
    }
    for line in [
        "create --help",
        "create -h",
        "help create",
        "--help create",
        "create x -h",
    ] {
        assert!(printed(line).contains("Usage: husk create "), "{line}");
    }
}

mod refused;

/// What help shows can be typed.
#[test]
fn examples_in_the_help_are_understood() {
    let mut count = 0;
    for command in commands::ALL {
        let lines = examples::of(command.name);
        assert!(
            lines.starts_with("Examples:\n"),
            "{} has none",
            command.name
        );
        for example in lines.lines().skip(1) {
            let line = example.trim();
            let line = line.split("  ").next().unwrap_or(line);
            let line = line.split(['|', '<', '&']).next().unwrap_or(line);
            let (name, ..) = parse_line(line.trim().strip_prefix("husk").unwrap())
                .unwrap_or_else(|error| panic!("{example}: {error}"));
            assert_eq!(name, command.name, "{example}");
            count += 1;
        }
    }
    assert!(count > 30, "{count}");
}
