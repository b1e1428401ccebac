//! The command lines that engines use, read without clap: to build a definition of all that a command may be told, and
//! to match it, takes more than what a `state` does. A line with anything else in it goes to clap, which says the same
//! of these, too (the tests hold both against each other).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    Nothing,
    Value,
    /// Only after an equals sign.
    OptionalValue,
}

impl Takes {
    pub fn of(arg: &clap::Arg) -> Takes {
        if !arg.get_action().takes_values() {
            Takes::Nothing
        } else if arg.is_require_equals_set() {
            Takes::OptionalValue
        } else {
            Takes::Value
        }
    }
}

/// An option that engines use.
pub struct Usual {
    pub long: &'static str,
    pub short: Option<u8>,
    pub takes: Takes,
}

pub const fn flag(long: &'static str, short: Option<u8>) -> Usual {
    let takes = Takes::Nothing;
    Usual { long, short, takes }
}

pub const fn value(long: &'static str, short: Option<u8>) -> Usual {
    let takes = Takes::Value;
    Usual { long, short, takes }
}

/// Options of a command in their canonical form (`--name`, `--name=value`), and its positional words.
pub struct Given<'w> {
    pub options: &'w [OsString],
    pub positionals: &'w [OsString],
}

impl<'w> Given<'w> {
    pub fn flag(&self, long: &str) -> bool {
        let is_it = |word: &OsString| word.as_bytes().strip_prefix(b"--") == Some(long.as_bytes());
        self.options.iter().any(is_it)
    }

    /// The last value of the option.
    fn value(&self, long: &str) -> Option<&'w OsStr> {
        let of = |word: &'w OsString| {
            let value = word.as_bytes().strip_prefix(b"--")?;
            let value = value.strip_prefix(long.as_bytes())?.strip_prefix(b"=")?;
            Some(OsStr::from_bytes(value))
        };
        self.options.iter().rev().find_map(of)
    }

    /// `None` for a path that clap refuses.
    pub fn path(&self, long: &str) -> Option<Option<PathBuf>> {
        match self.value(long) {
            Some(path) if path.is_empty() => None,
            path => Some(path.map(PathBuf::from)),
        }
    }

    /// The only positional word, if that is so.
    pub fn id(&self) -> Option<String> {
        match self.positionals {
            [id] => text(id),
            _ => None,
        }
    }

    /// The id, and the words after it.
    pub fn id_and_more(&self) -> Option<(String, Vec<String>)> {
        let (id, more) = self.positionals.split_first()?;
        Some((text(id)?, more.iter().map(text).collect::<Option<_>>()?))
    }
}

fn text(word: &OsString) -> Option<String> {
    word.to_str().map(str::to_owned)
}
