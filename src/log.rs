//! The log: one line an entry, in the file of `--log` or on standard error.
//!
//! Engines read the file. containerd decodes it as a stream of JSON objects and keeps
//! the last one whose level is `error`; podman wants the whole file to be one object.
//! So a command that fails writes nothing but its error there, unless `--log-level` or `--debug` asks for
//! more; one that succeeds writes its warnings at its end. Without a file warnings are shown at once.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use serde::Serialize;

use crate::error::{Error, Result, Step, misleads, phrase};
use crate::files;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    #[default]
    Error,
    Warning,
    Info,
    Debug,
}

impl Level {
    pub const fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Info => "info",
            Level::Debug => "debug",
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Default)]
struct Log {
    file: Option<(PathBuf, File)>,
    format: Format,
    level: Level,
}

static LOG: OnceLock<Log> = OnceLock::new();

/// The file's number is another file's by now.
static CLOSED: AtomicBool = AtomicBool::new(false);

/// In a child that closes what it doesn't need: what it has to say goes to standard error, or to husk.
pub fn close() {
    CLOSED.store(true, Ordering::Relaxed);
}

impl Log {
    fn file(&self) -> Option<&(PathBuf, File)> {
        match CLOSED.load(Ordering::Relaxed) {
            true => None,
            false => self.file.as_ref(),
        }
    }
}

/// Opens the log. Until then, and where `path` is `None`, entries go to standard error.
/// Only the first call counts.
///
/// The file is opened at once, before anything else is done: a log that can't be had is
/// an error of its own, and the path is the caller's, before any change of directory or
/// of namespaces. Many husks append to one file; each entry is one write.
pub fn init(path: Option<&Path>, format: Format, level: Level) -> Result<()> {
    let opened = match path {
        Some(path) => files::append(path)
            .map(|file| Some((path.to_owned(), file)))
            .step("open log file", path.display()),
        None => Ok(None),
    };
    let (file, result) = match opened {
        Ok(file) => (file, Ok(())),
        Err(error) => (None, Err(error)),
    };
    let _ = LOG.set(Log {
        file,
        format,
        level,
    });
    result
}

/// Whether an entry of this level is written at all: ask before computing a costly one.
pub fn enabled(level: Level) -> bool {
    level <= LOG.get().map_or(Level::Error, |log| log.level)
}

pub fn warning(message: fmt::Arguments<'_>) {
    write(Level::Warning, message);
}

pub fn info(message: fmt::Arguments<'_>) {
    write(Level::Info, message);
}

pub fn debug(message: fmt::Arguments<'_>) {
    write(Level::Debug, message);
}

/// Warnings below the level of the file, until it is known how the command ends.
static HELD: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// To be called when a command has succeeded: its warnings go to the file after all. One that fails leaves
/// its error there and nothing else, for readers that want a single object.
pub fn succeeded() {
    if let Some(log) = LOG.get()
        && let Some((path, file)) = log.file()
        && let Ok(held) = HELD.lock()
        && !held.is_empty()
    {
        append(path, file, &held.concat());
    }
}

fn write(level: Level, message: fmt::Arguments<'_>) {
    let Some(log) = LOG.get() else { return };
    if !enabled(level) && level != Level::Warning {
        return;
    }
    let entry = entry(log.format, level, &message.to_string(), SystemTime::now());
    if !enabled(level) {
        if let Ok(mut held) = HELD.lock() {
            held.push(entry);
        }
        return;
    }
    match log.file() {
        Some((path, file)) => append(path, file, &entry),
        None => to_stderr(&entry),
    }
}

/// The final word of a command that failed: the line and its hint on standard error, and
/// both as one entry in the log file, if there is one.
pub fn error(error: &anyhow::Error) {
    let (line, hint) = render(error);
    let hint = hint.map_or_else(String::new, |hint| format!("\nhint: {hint}"));
    to_stderr(&format!("husk: {line}{hint}\n"));
    if let Some(log) = LOG.get()
        && let Some((path, file)) = log.file()
    {
        let message = format!("{line}{hint}");
        let entry = entry(log.format, Level::Error, &message, SystemTime::now());
        append(path, file, &entry);
    }
}

/// The line of an error with its causes, and its remedy.
pub fn render(error: &anyhow::Error) -> (String, Option<String>) {
    let mut line = String::new();
    let mut hint = None;
    for cause in error.chain() {
        if !line.is_empty() {
            line.push_str(": ");
        }
        if let Some(errno) = errno(cause) {
            line.push_str(&phrase(errno));
        } else {
            let _ = write!(line, "{cause}");
        }
        if hint.is_none() {
            hint = cause.downcast_ref::<Error>().and_then(Error::remedy);
        }
    }
    (one_line(line), hint.map(|hint| one_line(hint.to_owned())))
}

/// A system error that reached `main` bare: std would print "No such file or directory
/// (os error 2)", which no engine matches.
fn errno(cause: &(dyn std::error::Error + 'static)) -> Option<Errno> {
    match cause.downcast_ref::<io::Error>() {
        Some(error) => error.raw_os_error().map(Errno::from_raw),
        None => cause.downcast_ref::<Errno>().copied(),
    }
}

/// [`Error`] escapes control characters in its parts; other errors don't.
fn one_line(text: String) -> String {
    if text.contains(misleads) {
        Error::new(text).to_string()
    } else {
        text
    }
}

fn entry(format: Format, level: Level, message: &str, at: SystemTime) -> String {
    #[derive(Serialize)]
    struct Entry<'a> {
        level: &'static str,
        msg: &'a str,
        time: &'a str,
    }
    let (level, time) = (level.name(), &rfc3339(at));
    let mut line = match format {
        Format::Text => format!("time=\"{time}\" level={level} msg={}", Quoted(message)),
        Format::Json => serde_json::to_string(&Entry {
            level,
            msg: message,
            time,
        })
        .unwrap_or_default(),
    };
    line.push('\n');
    line
}

/// Text in double quotes with the escapes of Go's `%q`, which is what the readers of
/// `key="value"` lines expect.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                c if c.is_control() && c.is_ascii() => write!(f, "\\x{:02x}", u32::from(c))?,
                c if c.is_control() => write!(f, "\\u{:04x}", u32::from(c))?,
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}

fn append(path: &Path, mut file: &File, entry: &str) {
    if let Err(error) = file.write_all(entry.as_bytes()) {
        let why = error
            .raw_os_error()
            .map_or_else(|| error.to_string(), |code| phrase(Errno::from_raw(code)));
        to_stderr(&format!("husk: write log file {}: {why}\n", path.display()));
    }
}

/// Lines for the one who watches, which were asked for: on standard error whatever the level.
pub fn notice(text: &str) {
    to_stderr(&format!("husk: {text}"));
}

/// One write, so that lines of several processes don't mix; nobody is left to be told of a failure.
fn to_stderr(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

/// `2026-08-19T12:00:00Z`, in UTC.
pub fn rfc3339(at: SystemTime) -> String {
    let mut text = date_and_time(since_epoch(at).as_secs());
    text.push('Z');
    text
}

/// `2026-08-19T12:00:00.000000001Z`, in UTC; always nine digits, so that it sorts as text.
pub fn rfc3339_nanos(at: SystemTime) -> String {
    let elapsed = since_epoch(at);
    let mut text = date_and_time(elapsed.as_secs());
    let _ = write!(text, ".{:09}Z", elapsed.subsec_nanos());
    text
}

fn since_epoch(at: SystemTime) -> Duration {
    at.duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn date_and_time(seconds: u64) -> String {
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

/// Year, month and day of a day counted from 1970-01-01, after Howard Hinnant's
/// `civil_from_days`: years begin in March, so that the leap day is the last of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64, nanos: u32) -> SystemTime {
        UNIX_EPOCH + Duration::new(seconds, nanos)
    }

    #[test]
    fn dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_799, "2000-02-29T23:59:59Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (1_787_140_800, "2026-08-19T12:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(at(seconds, 999_999_999)), text);
        }
        assert_eq!(rfc3339_nanos(at(0, 7)), "1970-01-01T00:00:00.000000007Z");
        assert_eq!(
            rfc3339(UNIX_EPOCH - Duration::from_secs(1)),
            "1970-01-01T00:00:00Z"
        );
    }

    #[test]
    fn json_entry_has_the_three_keys_on_one_line() {
        let line = entry(Format::Json, Level::Error, "a \"b\"\nhint: c", at(0, 0));
        assert_eq!(
            line,
            "{\"level\":\"error\",\"msg\":\"a \\\"b\\\"\\nhint: c\",\"time\":\"1970-01-01T00:00:00Z\"}\n"
        );
    }

    #[test]
    fn text_entry_is_quoted() {
        let line = entry(
            Format::Text,
            Level::Warning,
            "a \"b\"\\\nc\u{1b}[0m\u{85}é",
            at(0, 0),
        );
        assert_eq!(
            line,
            "time=\"1970-01-01T00:00:00Z\" level=warning msg=\"a \\\"b\\\"\\\\\\nc\\x1b[0m\\u0085é\"\n"
        );
    }

    #[test]
    fn an_error_is_one_line_with_its_causes_errno_last() {
        let inner = Error::new("mount")
            .on("/x")
            .errno(Errno::ENOENT)
            .hint("create it");
        let error = anyhow::Error::from(inner).context("create c1\n");
        assert_eq!(
            render(&error),
            (
                "create c1\\n: mount /x: no such file or directory".into(),
                Some("create it".into())
            )
        );
        let bare =
            anyhow::Error::from(io::Error::from_raw_os_error(libc::EACCES)).context("open /x");
        assert_eq!(render(&bare).0, "open /x: permission denied");
        let bare = anyhow::Error::from(Errno::ESRCH);
        assert_eq!(render(&bare), ("no such process".into(), None));
    }

    #[test]
    fn only_errors_unless_asked() {
        assert!(enabled(Level::Error));
        assert!(!enabled(Level::Warning));
        assert!(Level::Warning <= Level::Debug);
    }
}
