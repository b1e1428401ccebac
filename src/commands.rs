//! The commands, one file each: an `Args` structure and a `run()`.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use clap::{ArgMatches, Args as _, FromArgMatches as _};

use crate::bundle;
use crate::error::{Error, Result, Step, misleads};
use crate::namespaces::Ahead;
use crate::process::program::Passed;
use crate::process::protect;
use crate::sys;
use crate::sys::fd;
use crate::sys::process::reset_signal_action;

mod form;
mod global;
mod second_look;
pub mod usual;
pub use global::{Driver, Global, Rootless};
use usual::{Given, Usual};

pub mod check;
pub mod checkpoint;
pub mod create;
pub mod delete;
pub mod events;
pub mod exec;
pub mod features;
pub mod kill;
pub mod list;
pub mod pause;
pub mod ps;
pub mod restore;
pub mod resume;
pub mod run;
pub mod seccomp;
pub mod spec;
pub mod start;
pub mod state;
pub mod update;

/// The release of the runtime specification that configs are read by.
pub const SPEC_VERSION: &str = "1.3.0";
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Given by the build; a source tarball has none.
pub const COMMIT: &str = match option_env!("HUSK_COMMIT") {
    Some(commit) if !commit.is_empty() => commit,
    _ => "unknown",
};

/// What the command line needs to know of a command.
pub struct Command {
    pub name: &'static str,
    pub about: &'static str,
    pub tail: Tail,
    /// Exit status when `run` fails; what is wrong on the command line is always 1.
    pub failure: u8,
    augment: fn(clap::Command) -> clap::Command,
    run: fn(&mut ArgMatches, &Global) -> anyhow::Result<u8>,
    /// The options that need no definition.
    pub usual: &'static [&'static [Usual]],
    /// What a line of these alone asks for, unless clap has to look at it.
    pub read_usual: fn(&Given) -> Option<Task>,
    /// What `run` makes of the words before it does anything.
    #[cfg(fuzzing)]
    pub understand: fn(&mut ArgMatches) -> clap::error::Result<()>,
}

/// A command that has been told all.
pub type Task = Box<dyn FnOnce(&Global) -> anyhow::Result<u8>>;

/// What may follow the container's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// Options, as before it.
    Options,
    /// Options, then a program: from its first word on, everything is the program's.
    Program,
    /// Words for another program, whatever they look like.
    Verbatim,
}

impl Command {
    /// The definition of this one command, not built yet.
    pub fn definition(&self) -> clap::Command {
        (self.augment)(clap::Command::new(self.name))
            .about(self.about)
            .long_about(None)
            .no_binary_name(true)
            .args_override_self(true)
            .disable_help_flag(true)
    }

    pub fn task(&self, mut matches: ArgMatches) -> Task {
        let run = self.run;
        Box::new(move |global| run(&mut matches, global))
    }
}

macro_rules! command {
    ($module:ident, $tail:expr, $failure:literal, $about:literal) => {
        command!($module, $tail, $failure, $about, &[], |_| None)
    };
    ($module:ident, $tail:expr, $failure:literal, $about:literal, usual $($of:ident)+) => {
        command!($module, $tail, $failure, $about, &[$($of::USUAL),+], |given| {
            let args = $module::Args::usual(given)?;
            Some(Box::new(move |global| $module::run(args, global)))
        })
    };
    ($module:ident, $tail:expr, $failure:literal, $about:literal, $usual:expr, $read:expr) => {
        Command {
            name: stringify!($module),
            about: $about,
            tail: $tail,
            failure: $failure,
            augment: $module::Args::augment_args,
            run: |matches, global| {
                $module::run($module::Args::from_arg_matches_mut(matches)?, global)
            },
            usual: $usual,
            read_usual: $read,
            #[cfg(fuzzing)]
            understand: |matches| $module::Args::from_arg_matches_mut(matches).map(drop),
        }
    };
}

/// In the order of `--help`.
pub static ALL: &[Command] = &[
    command!(
        run,
        Tail::Options,
        1,
        "Create a container, start it and wait for its end",
        usual create run
    ),
    command!(
        create,
        Tail::Options,
        1,
        "Make a container from a bundle, ready to be started",
        usual create
    ),
    command!(
        start,
        Tail::Options,
        1,
        "Start the program of a created container",
        usual start
    ),
    command!(
        state,
        Tail::Options,
        1,
        "Print the state of a container as JSON",
        usual state
    ),
    command!(
        kill,
        Tail::Options,
        1,
        "Send a signal to a container's first process",
        usual kill
    ),
    command!(
        delete,
        Tail::Options,
        1,
        "Remove a stopped container and all that belongs to it",
        usual delete
    ),
    command!(
        exec,
        Tail::Program,
        255,
        "Run one more program in a running container",
        usual exec
    ),
    command!(list, Tail::Options, 1, "List the containers under --root"),
    command!(ps, Tail::Verbatim, 1, "List the processes of a container"),
    command!(
        pause,
        Tail::Options,
        1,
        "Freeze all processes of a container"
    ),
    command!(resume, Tail::Options, 1, "Let a paused container go on"),
    command!(update, Tail::Options, 1, "Change the limits of a container"),
    command!(
        events,
        Tail::Options,
        1,
        "Print what a container uses, and when it runs out of memory, as JSON"
    ),
    command!(
        checkpoint,
        Tail::Options,
        1,
        "Write a running container into files, by CRIU"
    ),
    command!(
        restore,
        Tail::Options,
        1,
        "Make a container from the files of a checkpoint, by CRIU"
    ),
    command!(
        check,
        Tail::Options,
        2,
        "Say what is wrong with a bundle, without making anything"
    ),
    command!(
        seccomp,
        Tail::Options,
        1,
        "Explain what a seccomp profile does with a system call"
    ),
    command!(spec, Tail::Options, 1, "Write a config.json to start from"),
    command!(
        features,
        Tail::Options,
        1,
        "Print what this runtime supports as JSON"
    ),
];

/// A number of descriptors.
fn parse_count(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "want a number".into())
}

/// For the commands that put a process into a container: moves husk out of reach. At once, as what was read
/// of the command line before is read again.
pub fn protect(command: &Command) -> Result<()> {
    match command.name {
        "run" | "create" => protect::run_protected(|| begin_network(sys::start::words())),
        "exec" => protect::run_protected(|| None),
        _ => Ok(()),
    }
}

/// Before husk ends: waits for what was begun, and for which there was no use.
pub fn settle() {
    drop(protect::luggage().map(Ahead::from_socket));
}

/// The network namespace takes longest of all: it is begun before husk has executed itself, by what the words and
/// the file seem to say. What they do say is found out after that.
fn begin_network<'w>(mut words: impl Iterator<Item = &'w OsStr>) -> Option<OwnedFd> {
    let mut bundle = Path::new(".");
    while let Some(word) = words.next() {
        match word.as_bytes() {
            b"--bundle" | b"-bundle" | b"-b" => bundle = Path::new(words.next()?),
            word => {
                let value = [&b"--bundle="[..], b"-bundle=", b"-b="]
                    .iter()
                    .find_map(|option| word.strip_prefix(*option));
                bundle = value.map_or(bundle, |value| Path::new(OsStr::from_bytes(value)));
            }
        }
    }
    let config = bundle::glimpse(bundle)?;
    Ahead::begin(&config).map(Ahead::into_socket)
}

/// For the commands that put a process into a container, before anything else: takes count of what it
/// is to get, drops every other descriptor that the caller left open but the one that `document` may
/// be, and moves husk out of reach.
fn enter_container(preserved: u32, document: Option<&Path>) -> Result<Passed> {
    // sd_listen_fds(3): a value meant for another process is none of ours.
    let ours = std::env::var("LISTEN_PID")
        .ok()
        .and_then(|pid| pid.parse().ok());
    let listening = std::env::var("LISTEN_FDS")
        .ok()
        .filter(|_| ours == Some(std::process::id()));
    let passed = Passed {
        preserved,
        listening: listening.and_then(|count| count.parse().ok()).unwrap_or(0),
    };
    let first = 3u32
        .checked_add(preserved)
        .and_then(|first| first.checked_add(passed.listening))
        .filter(|&first| first <= i32::MAX as u32)
        .ok_or_else(|| {
            Error::new("--preserve-fds")
                .on(preserved)
                .because("too many")
        })?;
    protect::run_protected(|| None)?;
    for number in 3..first {
        if !fd::is_open(number) || protect::holds(number) {
            return Err(Error::new("--preserve-fds").on(preserved).because(format!(
                "preserved-fd {} is not open: descriptor {number}",
                number - 3
            )));
        }
    }
    fd::cloexec_from(first).step("close", "descriptors of the caller")?;
    if let Some(number) = document.and_then(named_descriptor) {
        // One that isn't open says so when it is read.
        let _ = fd::keep(number);
    }
    stop_ignoring()?;
    Ok(passed)
}

/// The number in `/dev/fd/63`: how shells name what another program writes, as in `--process <(make-it)`.
fn named_descriptor(path: &Path) -> Option<u32> {
    let number = ["/dev/fd", "/proc/self/fd"]
        .iter()
        .find_map(|dir| path.strip_prefix(dir).ok())?;
    number.to_str()?.parse().ok()
}

/// A program starts with every signal at its default, whatever husk's caller ignores (nohup, daemons).
/// SIGPIPE stays with husk until then.
fn stop_ignoring() -> Result<()> {
    const STATUS: &str = "/proc/self/status";
    // Who is in many groups has a line of them before this one.
    let ignored = match ignored_in(&fd::read_beginning(STATUS).step("read", STATUS)?) {
        Some(mask) => mask,
        None => ignored_in(&fd::read_whole(STATUS).step("read", STATUS)?).unwrap_or(0),
    };
    for number in (1..=64).filter(|number| ignored >> (number - 1) & 1 == 1) {
        if number != libc::SIGPIPE {
            reset_signal_action(number);
        }
    }
    Ok(())
}

fn ignored_in(status: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(status).ok()?;
    let (_, mask) = text.split_once("\nSigIgn:\t")?;
    u64::from_str_radix(mask.get(..16)?, 16).ok()
}

/// Writes to standard output, where engines expect this text and nothing else. Returns exit status 0.
pub fn print(text: &str) -> Result<u8> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(harmless(text).as_bytes())
        .and_then(|()| stdout.flush())
        .map(|()| 0)
        .step("write", "standard output")
}

/// Text for a terminal: what a container may have named (a process, an annotation of its image, a network
/// device) must not give it orders. The escapes are those of JSON, in which control characters below a blank
/// don't occur but as escapes already.
fn harmless(text: &str) -> Cow<'_, str> {
    let acts = |c: char| misleads(c) && !matches!(c, '\n' | '\t');
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 64);
    for c in text.chars() {
        match acts(c) {
            true => shown += &format!("\\u{:04x}", u32::from(c)),
            false => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_gives_a_terminal_no_orders() {
        assert!(matches!(harmless("a\tb\n\u{e9}"), Cow::Borrowed(_)));
        assert_eq!(
            harmless("a\u{1b}[2Jb\r\u{9b}31m\n"),
            "a\\u001b[2Jb\\u000d\\u009b31m\n"
        );
        let json = serde_json::to_string("x\u{9b}y\u{7f}\u{1b}").unwrap();
        let read: String = serde_json::from_str(&harmless(&json)).unwrap();
        assert_eq!(read, "x\u{9b}y\u{7f}\u{1b}");
    }

    #[test]
    fn ignored_signals_are_read_only_where_all_digits_are() {
        let status =
            b"Groups:\t0 \nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001002\nSigCgt:\t0";
        assert_eq!(ignored_in(status), Some(0x1002));
        assert_eq!(ignored_in(&status[..55]), None);
        assert_eq!(ignored_in(&status[..30]), None);
    }

    #[test]
    fn definitions_are_sound() {
        for command in ALL {
            command.definition().debug_assert();
            assert!(!command.about.ends_with('.'));
        }
    }
}
