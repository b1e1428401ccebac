//! The command line, in two phases: the global options and the command's name are read
//! without clap, then only that command's definition is built. The whole tree (0.17 ms)
//! is built for help and suggestions.
//!
//! Engines spell options in Go's way: `-no-subreaper`, `--detach=true`, `--env -x`. Each
//! word is brought into one form before clap sees it: options as `--name` or
//! `--name=value`, then `--`, then the rest.

use std::cell::OnceCell;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::ArgMatches;

use crate::commands::usual::{Given, Takes};
use crate::commands::{self, Command, Global, Tail, Task};
use crate::error::Result;

mod examples;
mod habits;
mod options;
mod usage;

use options::GLOBAL;
pub use options::Said;
pub use usage::tree;

/// What the command line asks for.
pub enum Invocation {
    /// Help or the version: text for standard output.
    Print(String),
    Run {
        command: &'static Command,
        task: Task,
        global: Global,
    },
}

/// What is known of a command line before the words mean anything.
pub enum Reading {
    Print(String),
    Words {
        command: &'static Command,
        /// What the options were looked up in, if they were not the usual ones.
        definition: Option<Box<clap::Command>>,
        options: Vec<OsString>,
        positionals: Vec<OsString>,
    },
}

/// Reads the words after the program's name. The global options are left in `said` even
/// when a later word is wrong, so that the error reaches the log that was asked for. `met` is called with
/// the command as soon as that is known, before any of its options is read.
// What it needs of the stack is not to lie below all that the command needs.
#[inline(never)]
pub fn parse(
    words: impl Iterator<Item = OsString>,
    said: &mut Said,
    met: impl FnMut(&Command) -> Result<()>,
) -> Result<Invocation> {
    let (command, task) = match read(words, said, met)? {
        Reading::Print(text) => return Ok(Invocation::Print(text)),
        Reading::Words {
            command,
            definition,
            options,
            positionals,
        } => {
            let given = Given {
                options: &options,
                positionals: &positionals,
            };
            let usual = definition.is_none().then(|| (command.read_usual)(&given));
            let task = match usual.flatten() {
                Some(task) => task,
                None => command.task(matches(command, definition, options, positionals)?),
            };
            (command, task)
        }
    };
    Ok(Invocation::Run {
        command,
        task,
        global: said.resolve()?,
    })
}

/// Brings the words into one form.
pub fn read(
    words: impl Iterator<Item = OsString>,
    said: &mut Said,
    met: impl FnMut(&Command) -> Result<()>,
) -> Result<Reading> {
    let mut line = Line {
        words,
        said,
        met,
        command: None,
        definition: OnceCell::new(),
        options: Vec::new(),
        positionals: Vec::new(),
        only_positionals: false,
        help: false,
        version: false,
    };
    line.read()?;
    if line.version {
        return Ok(Reading::Print(usage::version()));
    }
    let Some(command) = line.command else {
        return Ok(Reading::Print(usage::help()));
    };
    if line.help {
        return Ok(Reading::Print(usage::command_help(command)));
    }
    Ok(Reading::Words {
        command,
        definition: line.definition.into_inner().map(Box::new),
        options: line.options,
        positionals: line.positionals,
    })
}

/// What clap makes of the words.
pub fn matches(
    command: &Command,
    definition: Option<Box<clap::Command>>,
    options: Vec<OsString>,
    mut positionals: Vec<OsString>,
) -> Result<ArgMatches> {
    let mut canonical = options;
    canonical.push("--".into());
    canonical.append(&mut positionals);
    definition
        .map_or_else(|| command.definition(), |definition| *definition)
        .try_get_matches_from(canonical)
        .map_err(|error| usage::explain(command, &error))
}

struct Line<'a, W, M> {
    words: W,
    said: &'a mut Said,
    met: M,
    command: Option<&'static Command>,
    /// Of the command, once an option asks for it.
    definition: OnceCell<clap::Command>,
    /// Of the command, in canonical form.
    options: Vec<OsString>,
    positionals: Vec<OsString>,
    only_positionals: bool,
    help: bool,
    version: bool,
}

/// An option's name as it was written.
enum Name<'a> {
    Long(&'a [u8]),
    Short(u8),
}

/// A known option.
struct Known {
    long: String,
    takes: Takes,
    global: bool,
}

impl<W: Iterator<Item = OsString>, M: FnMut(&Command) -> Result<()>> Line<'_, W, M> {
    fn read(&mut self) -> Result<()> {
        while let Some(word) = self.words.next() {
            if self.only_positionals {
                self.positionals.push(word);
                continue;
            }
            match word.as_bytes() {
                b"--" => self.only_positionals = self.command.is_some(),
                [b'-', b'-', option @ ..] => self.long(option)?,
                [b'-', _, ..] => self.single_dash(&word)?,
                _ => self.positional(word)?,
            }
            if self.version || (self.help && self.command.is_some()) {
                break;
            }
        }
        Ok(())
    }

    fn positional(&mut self, word: OsString) -> Result<()> {
        let Some(command) = self.command else {
            if word == "help" {
                self.help = true;
                return Ok(());
            }
            let command = commands::ALL
                .iter()
                .find(|command| word == command.name)
                .ok_or_else(|| {
                    let asks = self.help || self.words.any(|word| word == "-h" || word == "--help");
                    usage::unknown_command(&word, asks)
                })?;
            (self.met)(command)?;
            self.command = Some(command);
            return Ok(());
        };
        self.positionals.push(word);
        self.only_positionals = match command.tail {
            Tail::Options => false,
            Tail::Program => self.positionals.len() == 2,
            Tail::Verbatim => true,
        };
        Ok(())
    }

    fn long(&mut self, option: &[u8]) -> Result<()> {
        let (name, value) = split_value(option);
        let known = self
            .find(&Name::Long(name))
            .ok_or_else(|| self.unknown("--", name))?;
        self.apply(known, value)
    }

    /// `-td`, `-uVALUE`, `-u=VALUE`, `-u VALUE`; or Go's `-user=VALUE`, which is what a
    /// word means that is exactly an option's name, unless it is a row of flags, too.
    fn single_dash(&mut self, word: &OsStr) -> Result<()> {
        let letters = &word.as_bytes()[1..];
        let (name, value) = split_value(letters);
        let is_flag = |&letter: &u8| {
            self.find(&Name::Short(letter))
                .is_some_and(|known| known.takes == Takes::Nothing)
        };
        if name.len() > 1
            && !name.iter().all(is_flag)
            && let Some(known) = self.find(&Name::Long(name))
        {
            return self.apply(known, value);
        }
        let mut rest = letters;
        while let [letter, after @ ..] = rest {
            let known = self
                .find(&Name::Short(*letter))
                .ok_or_else(|| self.unknown("-", name))?;
            let is_last = known.takes != Takes::Nothing || after.first() == Some(&b'=');
            if is_last {
                let value = after
                    .strip_prefix(b"=")
                    .or(Some(after).filter(|v| !v.is_empty()));
                return self.apply(known, value);
            }
            self.apply(known, None)?;
            rest = after;
        }
        Ok(())
    }

    /// The command's options stand before the global ones, should a name be in both.
    fn find(&self, name: &Name) -> Option<Known> {
        let of_command = self.command.and_then(|command| {
            let mut all = command.usual.iter().copied().flatten();
            let usual = all.find(|usual| match name {
                Name::Long(name) => usual.long.as_bytes() == *name,
                Name::Short(letter) => usual.short == Some(*letter),
            });
            if let Some(usual) = usual {
                return Some(Known {
                    long: usual.long.to_owned(),
                    takes: usual.takes,
                    global: false,
                });
            }
            let definition = self.definition.get_or_init(|| command.definition());
            let mut arguments = definition.get_arguments();
            let defined = arguments.find(|arg| match name {
                Name::Long(name) => arg.get_long().is_some_and(|long| long.as_bytes() == *name),
                Name::Short(letter) => arg.get_short() == Some(char::from(*letter)),
            })?;
            Some(Known {
                long: defined.get_long().unwrap_or_default().to_owned(),
                takes: Takes::of(defined),
                global: false,
            })
        });
        of_command.or_else(|| {
            GLOBAL
                .iter()
                .find(|option| match name {
                    Name::Long(name) => option.long.as_bytes() == *name,
                    Name::Short(letter) => option.short == Some(char::from(*letter)),
                })
                .map(|option| Known {
                    long: option.long.to_owned(),
                    takes: option.takes,
                    global: true,
                })
        })
    }

    fn apply(&mut self, option: Known, value: Option<&[u8]>) -> Result<()> {
        let long = option.long.as_str();
        let value = value.map(OsStr::from_bytes).map(OsStr::to_owned);
        let value = match option.takes {
            Takes::Nothing => return self.flag(&option, value),
            Takes::OptionalValue => value,
            Takes::Value => Some(
                value
                    .or_else(|| self.words.next())
                    .ok_or_else(|| self.wrong(format!("option --{long} requires an argument")))?,
            ),
        };
        if option.global {
            let value = value.unwrap_or_default();
            return self.said.set(long, &value);
        }
        let mut word = format!("--{long}").into_bytes();
        if let Some(value) = value {
            word.push(b'=');
            word.extend_from_slice(value.as_bytes());
        }
        self.options.push(OsString::from_vec(word));
        Ok(())
    }

    /// Go's flags may have a value: the last one counts, and `false` takes it back.
    fn flag(&mut self, option: &Known, value: Option<OsString>) -> Result<()> {
        let long = option.long.as_str();
        let on = match value {
            None => true,
            Some(value) => options::parse_bool(&value).ok_or_else(|| {
                let value = value.display();
                self.wrong(format!("option --{long} is true or false, not {value}"))
            })?,
        };
        match (option.global, long) {
            (true, "help") => self.help = on,
            (true, "version") => self.version = on,
            (true, _) => self.said.set_flag(long, on),
            (false, _) => {
                let word = OsString::from(format!("--{long}"));
                self.options.retain(|earlier| *earlier != word);
                if on {
                    self.options.push(word);
                }
            }
        }
        Ok(())
    }

    fn wrong(&self, reason: String) -> crate::error::Error {
        usage::wrong(self.command, reason)
    }

    fn unknown(&self, dashes: &str, name: &[u8]) -> crate::error::Error {
        usage::unknown_option(self.command, dashes, &String::from_utf8_lossy(name))
    }
}

/// `name=value`, at the first equals sign.
fn split_value(option: &[u8]) -> (&[u8], Option<&[u8]>) {
    match option.iter().position(|&byte| byte == b'=') {
        Some(at) => (&option[..at], Some(&option[at + 1..])),
        None => (option, None),
    }
}

#[cfg(test)]
mod tests;
