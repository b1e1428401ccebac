//! What went wrong, where in config.json, and what to do about it.
//!
//! One type for every failure. It is built where the failure is seen, carried
//! unchanged (from the container's side through the channel, too) and rendered
//! once, in `main`. The errno phrase stands last, in lower case: engines match
//! on `no such file or directory`, `permission denied` and the like.

use std::borrow::Cow;
use std::fmt;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure: the step that failed, on which object, because of which entry of
/// config.json (a JSON pointer), why, and a remedy where one is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Error(Box<Facts>);

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Facts {
    step: Cow<'static, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    object: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pointer: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    errno: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl Error {
    /// `step` is a verb phrase without its object: `mount`, `open namespace`.
    /// It may also be a whole sentence, for a refusal that has no object.
    pub fn new(step: impl Into<Cow<'static, str>>) -> Self {
        Error(Box::new(Facts {
            step: step.into(),
            ..Facts::default()
        }))
    }

    /// A broken rule of config.json: where, and what the rule is.
    pub fn config(pointer: impl Into<String>, reason: impl Into<String>) -> Self {
        Error::new("config.json").at(pointer).because(reason)
    }

    /// What the step was done to: a path, a name, `target <- source`.
    pub fn on(mut self, object: impl fmt::Display) -> Self {
        self.0.object = Some(object.to_string());
        self
    }

    /// The entry of config.json that asked for it, as a JSON pointer (RFC 6901).
    pub fn at(mut self, pointer: impl Into<String>) -> Self {
        self.0.pointer = Some(pointer.into());
        self
    }

    /// As [`Error::at`], unless a more precise pointer is already there.
    pub fn within(mut self, pointer: impl Into<String>) -> Self {
        self.0.pointer.get_or_insert_with(|| pointer.into());
        self
    }

    /// The reason in words, where errno alone would not say it.
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.0.reason = Some(reason.into());
        self
    }

    pub fn errno(mut self, errno: Errno) -> Self {
        self.0.errno = Some(errno as i32);
        self
    }

    /// What the user can do, as a full sentence without its closing stop.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    pub fn maybe_hint(self, hint: Option<String>) -> Self {
        match hint {
            Some(hint) => self.hint(hint),
            None => self,
        }
    }

    /// Without the pointer, for who shows it elsewhere.
    pub fn unplaced(mut self) -> Self {
        self.0.pointer = None;
        self
    }

    pub fn code(&self) -> Option<Errno> {
        self.0.errno.map(Errno::from_raw)
    }

    pub fn pointer(&self) -> Option<&str> {
        self.0.pointer.as_deref()
    }

    pub fn remedy(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
}

/// The phrase of an errno as engines look for it: lower case, without its number.
pub fn phrase(errno: Errno) -> String {
    match errno {
        Errno::EIO => "input/output error".into(),
        Errno::ELOOP => "too many levels of symbolic links".into(),
        Errno::ENOTSUP => "operation not supported".into(),
        other => other.desc().to_lowercase(),
    }
}

/// Of each part of a message. Engines' own paths are shorter.
const LONGEST: usize = 512;
/// At either end of a part that is too long.
const KEPT: usize = 120;

/// One line, without the hint.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&one_line(&self.0.step))?;
        if let Some(object) = &self.0.object {
            write!(f, " {}", one_line(object))?;
        }
        if let Some(pointer) = &self.0.pointer {
            write!(f, " ({})", one_line(pointer))?;
        }
        if let Some(reason) = &self.0.reason {
            write!(f, ": {}", one_line(reason))?;
        }
        if let Some(errno) = self.code() {
            write!(f, ": {}", phrase(errno))?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// Control characters, and those that break lines or turn the direction of what follows: a terminal would
/// show another text than the one that is there.
pub fn misleads(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Text from config.json may hold line breaks and control characters, and be of any length; a message
/// may not.
fn one_line(text: &str) -> Cow<'_, str> {
    if text.len() > LONGEST {
        let from = (0..=KEPT).rfind(|at| text.is_char_boundary(*at));
        let to = (text.len() - KEPT..).find(|at| text.is_char_boundary(*at));
        let (from, to) = (from.unwrap_or(0), to.unwrap_or(text.len()));
        let both = format!("{}[{} bytes]{}", &text[..from], to - from, &text[to..]);
        return one_line(&both).into_owned().into();
    }
    if !text.contains(misleads) {
        return Cow::Borrowed(text);
    }
    text.chars()
        .map(|c| {
            if misleads(c) {
                c.escape_default().to_string()
            } else {
                c.to_string()
            }
        })
        .collect::<String>()
        .into()
}

/// Escapes a key for use in a JSON pointer (RFC 6901, section 3).
pub fn pointer_key(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// Turns the errno of a failed call into an [`Error`].
pub trait Step<T> {
    /// The call was this step, done to this object.
    fn step(self, step: &'static str, object: impl fmt::Display) -> Result<T>;
    /// Builds the error from the errno, for steps that know more.
    fn or_fail(self, build: impl FnOnce(Errno) -> Error) -> Result<T>;
}

impl<T> Step<T> for nix::Result<T> {
    fn step(self, step: &'static str, object: impl fmt::Display) -> Result<T> {
        self.map_err(|errno| Error::new(step).on(object).errno(errno))
    }
    fn or_fail(self, build: impl FnOnce(Errno) -> Error) -> Result<T> {
        self.map_err(build)
    }
}

impl<T> Step<T> for std::io::Result<T> {
    fn step(self, step: &'static str, object: impl fmt::Display) -> Result<T> {
        self.map_err(|error| match error.raw_os_error() {
            Some(code) => Error::new(step).on(object).errno(Errno::from_raw(code)),
            None => Error::new(step).on(object).because(error.to_string()),
        })
    }
    fn or_fail(self, build: impl FnOnce(Errno) -> Error) -> Result<T> {
        self.map_err(|error| build(error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)))
    }
}

/// Adds to an error that is already one.
pub trait Locate<T> {
    /// Says which entry of config.json asked for it, unless that is already known.
    fn within(self, pointer: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Locate<T> for Result<T> {
    fn within(self, pointer: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| error.within(pointer()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_step_object_pointer_reason_and_errno_last() {
        let error = Error::new("mount")
            .on("/data <- /srv/x")
            .at("/mounts/4/source")
            .because("source")
            .errno(Errno::ENOENT)
            .hint("create it");
        assert_eq!(
            error.to_string(),
            "mount /data <- /srv/x (/mounts/4/source): source: no such file or directory"
        );
        assert_eq!(error.remedy(), Some("create it"));
    }

    #[test]
    fn phrases_are_lower_case() {
        assert_eq!(phrase(Errno::EACCES), "permission denied");
        assert_eq!(phrase(Errno::ESRCH), "no such process");
        assert_eq!(phrase(Errno::EISDIR), "is a directory");
        assert_eq!(phrase(Errno::ENOTDIR), "not a directory");
        assert_eq!(phrase(Errno::EPERM), "operation not permitted");
    }

    #[test]
    fn control_characters_do_not_break_the_line() {
        let error = Error::config("/hostname", "bad \"a\nb\u{1b}[2J\"");
        assert!(!error.to_string().contains(['\n', '\u{1b}']));
        let error = Error::new("exec").on("a\u{202e}b\u{2029}c\u{9b}d");
        assert_eq!(error.to_string(), "exec a\\u{202e}b\\u{2029}c\\u{9b}d");
    }

    #[test]
    fn a_part_of_any_length_leaves_the_line_readable() {
        let path = format!("/é{}é", "é".repeat(5_000));
        let line = Error::new("open")
            .on(&path)
            .errno(Errno::ENOENT)
            .to_string();
        assert!(line.len() < 400 && line.starts_with("open /éé"), "{line}");
        assert!(line.contains("é[") && line.contains(" bytes]é"), "{line}");
        assert!(line.ends_with("é: no such file or directory"), "{line}");
        let path = "/x".repeat(250);
        assert!(Error::new("open").on(&path).to_string().ends_with(&path));
    }

    #[test]
    fn within_keeps_the_more_precise_pointer() {
        let error = Error::config("/a/b", "x").within("/a");
        assert_eq!(error.pointer(), Some("/a/b"));
    }

    #[test]
    fn travels_through_the_channel() {
        let error = Error::new("chdir").on("/x").errno(Errno::ENOTDIR);
        let bytes = serde_json::to_vec(&error).unwrap();
        assert_eq!(serde_json::from_slice::<Error>(&bytes).unwrap(), error);
    }
}
