//! Help, the version, and what is said about a wrong command line.

use std::error::Error as _;
use std::ffi::OsStr;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::habits;
use super::options::{GLOBAL, HELP};
use crate::bundle::distance;
use crate::commands::{self, COMMIT, Command, SPEC_VERSION, VERSION};
use crate::error::Error;

/// docker looks for the word after `version` and for `commit:`.
pub fn version() -> String {
    format!("husk version {VERSION}\ncommit: {COMMIT}\nspec: {SPEC_VERSION}\n")
}

/// The whole command line as clap sees it: for help, completions and man pages.
pub fn tree() -> clap::Command {
    clap::Command::new("husk")
        .about("Runs containers from OCI bundles")
        .after_help("`husk COMMAND --help` shows the options of a command")
        .term_width(usize::MAX)
        .disable_help_flag(true)
        .disable_help_subcommand(true)
        .override_usage("husk [OPTIONS] COMMAND [ARGUMENTS]")
        .args(GLOBAL.iter().map(super::options::GlobalOption::to_arg))
        .subcommands(commands::ALL.iter().map(complete))
}

pub fn help() -> String {
    tree().render_help().to_string()
}

pub fn command_help(command: &Command) -> String {
    complete(command).render_help().to_string()
}

/// A command's definition for people: with its help option and its full name.
fn complete(command: &Command) -> clap::Command {
    command
        .definition()
        .no_binary_name(false)
        .bin_name(format!("husk {}", command.name))
        .arg(HELP.to_arg())
        .after_help(super::examples::of(command.name))
}

pub fn wrong(command: Option<&Command>, reason: String) -> Error {
    match command {
        Some(command) => Error::new(command.name).because(reason),
        None => Error::new(reason),
    }
    .hint(pointer(command))
}

/// Where to read on.
fn pointer(command: Option<&Command>) -> String {
    match command {
        Some(command) => format!("`husk {} --help` lists its options", command.name),
        None => "`husk --help` lists options and commands".into(),
    }
}

/// With the field's words for a command whose help is asked for.
pub fn unknown_command(word: &OsStr, help: bool) -> Error {
    let word = word.to_string_lossy();
    let names = commands::ALL.iter().map(|command| command.name);
    let hint = match (habits::command(&word), closest(&word, names)) {
        (Some(words), _) => words.into(),
        (None, Some(name)) => format!("did you mean {name}? {}", pointer(None)),
        (None, None) => pointer(None),
    };
    let error = Error::new("unknown command").on(format!("{word:?}"));
    match help {
        true => error.because(format!("No help topic for '{word}'")),
        false => error,
    }
    .hint(hint)
}

pub fn unknown_option(command: Option<&Command>, dashes: &str, name: &str) -> Error {
    let error = wrong(command, format!("unknown option {dashes}{name}"));
    if command.is_some_and(|command| command.name == "kill")
        && name.bytes().all(|b| b.is_ascii_digit())
    {
        return error.hint(format!(
            "the signal stands after the id: husk kill ID {name}"
        ));
    }
    if let Some(words) = habits::option(command.map(|command| command.name), name) {
        return error.hint(words);
    }
    let definition = command.map(Command::definition);
    let own = definition
        .iter()
        .flat_map(clap::Command::get_arguments)
        .filter_map(clap::Arg::get_long);
    let known = own.chain(GLOBAL.iter().map(|option| option.long));
    if let Some(close) = closest(name, known) {
        return error.hint(format!("did you mean --{close}? {}", pointer(command)));
    }
    let others: Vec<&str> = commands::ALL
        .iter()
        .filter(|command| {
            let definition = command.definition();
            definition
                .get_arguments()
                .any(|arg| arg.get_long() == Some(name))
        })
        .map(|command| command.name)
        .collect();
    match (command, others.as_slice()) {
        (_, []) => error,
        (None, [first, ..]) => error.hint(format!(
            "options of a command stand after its name: husk {first} --{name}"
        )),
        (Some(_), others) => error.hint(format!(
            "--{name} is an option of {}; {}",
            others.join(", "),
            pointer(command)
        )),
    }
}

/// clap's findings in one line, without its colours and its paragraphs.
pub fn explain(command: &Command, error: &clap::Error) -> Error {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(" "),
        _ => String::new(),
    };
    let argument = context(ContextKind::InvalidArg);
    let value = context(ContextKind::InvalidValue);
    // `--user <UID[:GID]>`, or `[SIGNAL]`, whose message needs no name.
    let option = argument
        .split(' ')
        .next()
        .filter(|word| word.starts_with('-'));
    let subject = option.map_or_else(String::new, |option| format!("{option} {value:?}: "));
    let reason = match error.kind() {
        ErrorKind::MissingRequiredArgument => {
            let mut usage = complete(command).render_usage().to_string();
            usage.replace_range(..usage.find("husk").unwrap_or(0), "usage: ");
            return Error::new(command.name)
                .because(format!("requires an argument: {argument}"))
                .hint(usage);
        }
        ErrorKind::UnknownArgument => format!("unexpected argument {argument:?}"),
        ErrorKind::InvalidValue if value.is_empty() => {
            format!(
                "option {} requires an argument",
                option.unwrap_or(&argument)
            )
        }
        ErrorKind::InvalidValue => {
            let valid = context(ContextKind::ValidValue);
            format!("{subject}is none of {}", valid.replace(' ', ", "))
        }
        ErrorKind::ValueValidation => match error.source() {
            Some(source) if source.to_string().contains("digit found") => {
                format!("{subject}want a number")
            }
            Some(source) => format!("{subject}{source}"),
            None => format!("{subject}not a valid value"),
        },
        ErrorKind::InvalidUtf8 => "an argument is not valid UTF-8".into(),
        _ => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            line.strip_prefix("error: ").unwrap_or(line).to_owned()
        }
    };
    wrong(Some(command), reason)
}

/// The name that was probably meant: one that begins so, or one within a few slips of the finger.
fn closest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (word.len() / 3).clamp(1, 3);
    names
        .filter_map(|name| {
            let begins = word.len() >= 3 && name.starts_with(word);
            let distance = match begins {
                true => 1,
                false => distance(word.as_bytes(), name.as_bytes()),
            };
            (distance <= allowed && distance < name.len()).then_some((distance, name))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions_are_near_or_none() {
        let names = || commands::ALL.iter().map(|command| command.name);
        assert_eq!(closest("crate", names()), Some("create"));
        assert_eq!(closest("feat", names()), Some("features"));
        assert_eq!(closest("ls", names()), Some("ps"));
        assert_eq!(closest("frobnicate", names()), None);
        assert_eq!(closest("x", names()), None);
        assert_eq!(closest("", names()), None);
    }

    #[test]
    fn the_tree_is_sound_and_names_every_command() {
        tree().debug_assert();
        let help = help();
        for command in commands::ALL {
            assert!(help.contains(&format!("  {} ", command.name)), "{help}");
        }
        assert!(help.contains("--cgroup-manager <cgroupfs|systemd|disabled>"));
    }

    /// runc's test suite looks for the program and the command on the second line that isn't empty.
    #[test]
    fn a_commands_help_names_it_in_its_second_line() {
        for command in commands::ALL {
            let help = command_help(command);
            let mut lines = help.lines().filter(|line| !line.is_empty());
            let usage = lines.nth(1).unwrap();
            assert!(
                usage.starts_with(&format!("Usage: husk {}", command.name)),
                "{usage}"
            );
            assert!(help.contains("-h, --help"), "{help}");
        }
    }
}
