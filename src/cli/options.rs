//! The options before the command: one table for parsing, help and completions.

use std::ffi::OsStr;
use std::path::PathBuf;

use crate::commands::usual::Takes;
use crate::commands::{Driver, Global, Rootless};
use crate::error::{Error, Result};
use crate::log::{Format, Level};

pub struct GlobalOption {
    pub long: &'static str,
    pub short: Option<char>,
    pub takes: Takes,
    value_name: &'static str,
    help: &'static str,
}

const fn value(long: &'static str, value_name: &'static str, help: &'static str) -> GlobalOption {
    GlobalOption {
        long,
        short: None,
        takes: Takes::Value,
        value_name,
        help,
    }
}

const fn flag(long: &'static str, short: Option<char>, help: &'static str) -> GlobalOption {
    GlobalOption {
        long,
        short,
        takes: Takes::Nothing,
        value_name: "",
        help,
    }
}

pub const HELP: GlobalOption = flag("help", Some('h'), "Print help");

pub static GLOBAL: &[GlobalOption] = &[
    value(
        "root",
        "DIR",
        "Directory of the containers' records [default: /run/husk, for users $XDG_RUNTIME_DIR/husk]",
    ),
    value("log", "FILE", "Append errors to this file, too"),
    value("log-format", "text|json", "Form of the log [default: text]"),
    value(
        "log-level",
        "error|warning|info|debug",
        "What goes into the log [default: error in a log file, else warning]",
    ),
    flag("debug", None, "Same as --log-level debug"),
    flag("systemd-cgroup", None, "Same as --cgroup-manager systemd"),
    value(
        "trace",
        "FILE",
        "Append what each step takes to this file, for Perfetto or chrome://tracing",
    ),
    value(
        "cgroup-manager",
        "cgroupfs|systemd|disabled",
        "Who makes the cgroup [default: cgroupfs]",
    ),
    value(
        "rootless",
        "true|false|auto",
        "Put up with missing permissions [default: auto]",
    ),
    HELP,
    flag("version", Some('v'), "Print the version"),
];

impl GlobalOption {
    /// As clap shows it.
    pub fn to_arg(&self) -> clap::Arg {
        let arg = clap::Arg::new(self.long).long(self.long).help(self.help);
        let arg = match self.short {
            Some(short) => arg.short(short),
            None => arg,
        };
        match self.takes {
            Takes::Nothing => arg.action(clap::ArgAction::SetTrue),
            Takes::Value | Takes::OptionalValue => arg.value_name(self.value_name),
        }
    }
}

/// The global options as they were given.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Said {
    root: Option<PathBuf>,
    pub log: Option<PathBuf>,
    pub log_format: Format,
    log_level: Option<Level>,
    pub trace: Option<PathBuf>,
    debug: bool,
    driver: Driver,
    rootless: Rootless,
}

impl Said {
    /// A log file is for engines, which take all that is in there for an error; who reads standard error
    /// is to know what is not as asked.
    pub fn log_level(&self) -> Level {
        match (self.debug, self.log_level, &self.log) {
            (true, ..) => Level::Debug,
            (false, Some(level), _) => level,
            (false, None, Some(_)) => Level::Error,
            (false, None, None) => Level::Warning,
        }
    }

    pub fn resolve(&self) -> Result<Global> {
        Global::new(self.root.as_deref(), self.driver, self.rootless)
    }

    /// The last one counts, as everywhere on the line.
    pub fn set(&mut self, long: &str, value: &OsStr) -> Result<()> {
        let one_of = |choices: &[&str]| {
            Error::new("option")
                .on(format!("--{long}"))
                .because(format!(
                    "{:?} is none of {}",
                    value.to_string_lossy(),
                    choices.join(", ")
                ))
        };
        let text = value.to_str();
        match long {
            "root" => self.root = Some(PathBuf::from(value)),
            // An empty value is how scripts and Go programs say "not given".
            "log" => self.log = Some(value).filter(|v| !v.is_empty()).map(PathBuf::from),
            "log-format" => {
                self.log_format = match text {
                    Some("text" | "") => Format::Text,
                    Some("json") => Format::Json,
                    _ => return Err(one_of(&["text", "json"])),
                }
            }
            "log-level" => {
                self.log_level = Some(match text {
                    Some("error") => Level::Error,
                    Some("warning" | "warn") => Level::Warning,
                    Some("info") => Level::Info,
                    Some("debug") => Level::Debug,
                    _ => return Err(one_of(&["error", "warning", "info", "debug"])),
                })
            }
            "trace" => self.trace = Some(value).filter(|v| !v.is_empty()).map(PathBuf::from),
            "cgroup-manager" => {
                self.driver = match text {
                    Some("cgroupfs") => Driver::Cgroupfs,
                    Some("systemd") => Driver::Systemd,
                    Some("disabled") => Driver::Disabled,
                    _ => return Err(one_of(&["cgroupfs", "systemd", "disabled"])),
                }
            }
            "rootless" => {
                self.rootless = match (text, parse_bool(value)) {
                    (Some("auto" | ""), _) => Rootless::Auto,
                    (_, Some(true)) => Rootless::True,
                    (_, Some(false)) => Rootless::False,
                    _ => return Err(one_of(&["true", "false", "auto"])),
                }
            }
            _ => {}
        }
        Ok(())
    }

    pub fn set_flag(&mut self, long: &str, on: bool) {
        match long {
            "debug" => self.debug = on,
            "systemd-cgroup" if on => self.driver = Driver::Systemd,
            "systemd-cgroup" => self.driver = Driver::Cgroupfs,
            _ => {}
        }
    }
}

/// What Go's `strconv.ParseBool` takes.
pub fn parse_bool(value: &OsStr) -> Option<bool> {
    match value.to_str()? {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Some(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}
