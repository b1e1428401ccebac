//! config.json as a typed specification, and every rule of it that needs no kernel.
//!
//! Nothing here looks at the host: the only system calls are those that read the file. What is
//! wrong is a [`Finding`] with a JSON pointer. `create` takes the first error, and all warnings;
//! [`check`] returns everything.

mod habits;
mod nearest;
mod parse;
mod repair;
mod schema;
mod strict;
mod syntax;
mod validate;

#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag, fstat};
use oci_spec::runtime::{LinuxResources, Process, Spec};
use serde::Serialize;
use serde_json::Value;

use crate::error::{Error, Result, Step};
use crate::sys::file::open;

pub use habits::{arguments, mount_word, number, shell};
pub use nearest::{advise, beside, did_you_mean, distance, nearest, neighbour};
pub use schema::near_capability;
pub use validate::lists::number_list;
pub use validate::sysctl::{settings, sysctl_path};

/// The specification that husk implements. (`oci_spec::runtime::VERSION` still says 1.1.0.)
pub const OCI_VERSION: &str = "1.3.0";

/// No document is larger: arguments and environment together are limited to 6 MiB by the kernel.
pub const MAX_BYTES: u64 = 16 << 20;

const CONFIG: &str = "config.json";

/// A bundle whose config.json keeps all rules that can be checked without looking at the host.
#[derive(Debug)]
pub struct Bundle {
    /// Absolute.
    pub dir: PathBuf,
    /// config.json byte for byte, for the container's record: later changes have no effect
    /// (runtime.md, "Lifecycle").
    pub raw: Vec<u8>,
    /// Of three kilobytes, which are not moved about.
    pub spec: Box<Spec>,
    pub extra: Extra,
    /// What is not as asked but doesn't stop the container.
    pub warnings: Vec<Finding>,
}

/// What `oci_spec` 0.10 can't express.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Extra {
    /// `linux.resources.pids.limit`; `Some(0)` is a real limit, `None` is none asked for.
    /// `oci_spec` has 0 for both.
    pub pids_limit: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Error,
    Warning,
}

/// One thing wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub severity: Severity,
    /// RFC 6901, from the document's root; empty for the document itself.
    pub pointer: String,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Finding {
    // Cold: the compiler moves what leads here out of the way of documents without findings.
    #[cold]
    #[inline(never)]
    fn new(severity: Severity, pointer: String, message: String) -> Self {
        Finding {
            severity,
            pointer,
            message,
            hint: None,
        }
    }

    #[cold]
    pub fn error(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Finding::new(Severity::Error, pointer.into(), message.into())
    }

    #[cold]
    pub fn warning(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Finding::new(Severity::Warning, pointer.into(), message.into())
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }

    /// `document` is what the pointer points into: `config.json`.
    fn into_error(self, document: &'static str) -> Error {
        let error = Error::new(document).because(self.message);
        let error = match self.pointer.is_empty() {
            true => error,
            false => error.at(self.pointer),
        };
        match self.hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

/// One line: where, what, and what to do.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({}): {}", self.pointer, self.message)?;
        match &self.hint {
            Some(hint) => write!(f, ": {hint}"),
            None => Ok(()),
        }
    }
}

/// What stopped a step, told by the entry that asked for it.
impl From<Error> for Finding {
    fn from(error: Error) -> Finding {
        let hint = error.remedy().map(str::to_owned);
        let pointer = error.pointer().unwrap_or_default().to_owned();
        let text = error.unplaced().to_string();
        let message = text.strip_prefix("config.json: ").unwrap_or(&text);
        Finding::error(pointer, message).maybe_hint(hint)
    }
}

/// Where every rule puts what it finds, in the order of the document.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn push(&mut self, finding: Finding) {
        self.0.push(finding);
    }

    fn has_error(&self) -> bool {
        self.0.iter().any(|f| f.severity == Severity::Error)
    }

    /// With pointers into `linux.resources`.
    fn of_resources(mut self) -> Self {
        for finding in &mut self.0 {
            if let Some(below) = finding.pointer.strip_prefix("/linux/resources") {
                finding.pointer = below.into();
            }
        }
        self
    }

    /// The warnings, unless there is an error.
    fn warnings(self, document: &'static str) -> Result<Vec<Finding>> {
        let mut warnings = self.0;
        match warnings.iter().position(|f| f.severity == Severity::Error) {
            Some(first) => Err(warnings.swap_remove(first).into_error(document)),
            None => Ok(warnings),
        }
    }
}

impl Bundle {
    /// Reads and checks `dir/config.json`.
    pub fn load(dir: &Path) -> Result<Bundle> {
        Bundle::load_with(dir, |_| {})
    }

    /// The same; `begin` sees the bytes before they are understood.
    pub fn load_with(dir: &Path, begin: impl FnOnce(&[u8])) -> Result<Bundle> {
        let raw = read_config(dir)?;
        begin(&raw);
        Bundle::parse(dir, raw)
    }

    /// Properties that nobody knows, which are ignored (config.md, "Extensibility"): a misspelt one asks
    /// for nothing. Looked for apart, since it takes as long as reading the document.
    ///
    /// # Errors
    /// What is in there is no JSON that all readers read alike.
    pub fn unknown_properties(&self) -> Result<Vec<Finding>> {
        let mut findings = Findings::default();
        parse::unknown(&self.raw, &mut findings);
        findings.warnings(CONFIG)
    }

    /// The bundle in `dir`, whose config.json consists of these bytes.
    pub fn parse(dir: &Path, raw: Vec<u8>) -> Result<Bundle> {
        let dir = std::path::absolute(dir).step("find the bundle", dir.display())?;
        let mut findings = Findings::default();
        let parsed = parse::config(&raw, &mut findings);
        if let Some((spec, _)) = &parsed {
            validate::config(spec, &mut findings);
        }
        let warnings = findings
            .warnings(CONFIG)
            .map_err(|error| with_hint_of_check(error, &raw))?;
        let Some((spec, extra)) = parsed else {
            return Err(Error::new(CONFIG).because("not understood"));
        };
        Ok(Bundle {
            dir,
            raw,
            spec,
            extra,
            warnings,
        })
    }
}

/// The bytes of `dir/config.json`.
pub fn read_config(dir: &Path) -> Result<Vec<u8>> {
    read_document(&dir.join(CONFIG)).map_err(|error| match error.code() {
        Some(nix::errno::Errno::ENOENT) if dir.is_dir() => {
            error.hint("a bundle is a directory with a config.json; `husk spec` writes one")
        }
        Some(nix::errno::Errno::ENOTDIR) => {
            error.hint("a bundle is the directory that holds config.json, not a file")
        }
        Some(nix::errno::Errno::ENOENT) => {
            let advice = beside(dir);
            error.hint(format!("there is no directory {}: {advice}", dir.display()))
        }
        _ => error,
    })
}

/// What `dir/config.json` begins with, if that is a regular file: enough for most to hold all but a seccomp profile.
pub fn glimpse(dir: &Path) -> Option<Vec<u8>> {
    const ENOUGH: usize = 16 << 10;
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let file = open(&dir.join(CONFIG), flags, Mode::empty()).ok()?;
    let stat = fstat(&file).ok()?;
    if stat.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFREG.bits() {
        return None;
    }
    let mut bytes = vec![0; ENOUGH.min(usize::try_from(stat.st_size).ok()?)];
    let length = nix::unistd::read(&file, &mut bytes).ok()?;
    bytes.truncate(length);
    Some(bytes)
}

/// The bytes of a document in a regular file, [`MAX_BYTES`] at most.
pub fn read_document(path: &Path) -> Result<Vec<u8>> {
    // O_NONBLOCK: a fifo of that name must not stop us here for ever.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .step("open", path.display())?;
    read(file, path)
}

const PROCESS: &str = "process document";

/// The document of `exec --process FILE`: a `process` object, with the repairs and rules that hold
/// for config.json's. Pointers are relative to it. What depends on the container (are the ids
/// mapped?) is not checked.
pub fn parse_process(raw: &[u8]) -> Result<(Process, Vec<Finding>)> {
    let mut findings = Findings::default();
    let process = parse::process(raw, &mut findings);
    if let Some(process) = &process {
        validate::process(process, "", &mut findings);
    }
    let warnings = findings.warnings(PROCESS)?;
    match process {
        Some(process) => Ok((process, warnings)),
        None => Err(Error::new(PROCESS).because("not understood")),
    }
}

/// The rules of [`parse_process`] for a process that was composed, not read.
pub fn check_process(process: &Process) -> Result<Vec<Finding>> {
    let mut findings = Findings::default();
    validate::process(process, "", &mut findings);
    findings.warnings(PROCESS)
}

const RESOURCES: &str = "resources";

/// The document of `update --resources FILE`: a `linux.resources` object, as a type. Pointers are
/// relative to it. Its rules are those of [`check_resources`].
pub fn parse_resources(raw: &[u8]) -> Result<(LinuxResources, Extra, Vec<Finding>)> {
    let mut findings = Findings::default();
    // By itself first: what is whole stays in its place in the other document.
    if syntax::read(raw, &mut findings).is_none() {
        findings.warnings(RESOURCES)?;
        return Err(Error::new(RESOURCES).because("not understood"));
    }
    let before =
        format!(r#"{{"ociVersion":"{OCI_VERSION}","root":{{"path":"/"}},"linux":{{"resources":"#);
    let config = [before.as_bytes(), raw, b"}}"].concat();
    let parsed = parse::config(&config, &mut findings);
    let warnings = findings.of_resources().warnings(RESOURCES)?;
    let (spec, extra) = parsed.ok_or_else(|| Error::new(RESOURCES).because("not understood"))?;
    let resources = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.resources().clone());
    Ok((resources.unwrap_or_default(), extra, warnings))
}

/// A JSON document of another kind, from an image or an engine, as a value. Like config.json it must not hold
/// so many values that they fill the memory.
pub fn parse_value(raw: &[u8]) -> Result<Value, String> {
    let mut findings = Findings::default();
    if parse::too_many_values(raw, &mut findings) {
        let told = findings.0.pop().map(|finding| finding.message);
        return Err(told.unwrap_or_default());
    }
    serde_json::from_slice(raw).map_err(|error| error.to_string())
}

/// The rules of `linux.resources`, for limits that are to take the place of others.
pub fn check_resources(resources: &LinuxResources) -> Result<Vec<Finding>> {
    let mut findings = Findings::default();
    validate::resources(resources, &mut findings);
    findings.of_resources().warnings(RESOURCES)
}

/// Everything that can be said of a config.json without looking at the host: the findings of
/// [`Bundle::parse`], all of them, and unknown or missing properties besides.
pub fn check(raw: &[u8]) -> Vec<Finding> {
    let mut findings = Findings::default();
    if let Some((spec, _)) = parse::check(raw, &mut findings) {
        validate::config(&spec, &mut findings);
    }
    findings.0
}

/// What [`check`] advises at the place of an error: the fast way doesn't see what stands there instead.
#[cold]
fn with_hint_of_check(error: Error, raw: &[u8]) -> Error {
    if error.remedy().is_some() {
        return error;
    }
    let at = error.pointer().unwrap_or_default();
    let hint = check(raw)
        .into_iter()
        .find(|found| found.severity == Severity::Error && found.pointer == at)
        .and_then(|found| found.hint);
    error.maybe_hint(hint)
}

/// The types that the slow way makes of a config.json, where it makes any: those of the fast way.
#[cfg(fuzzing)]
pub fn parse_slowly(raw: &[u8]) -> Option<(Box<Spec>, Extra)> {
    parse::check(raw, &mut Findings::default())
}

/// Reads a JSON document, but not more than [`MAX_BYTES`] of it. Only regular files are read:
/// `exec --process` may name a pipe, which [`read_stream`] takes.
fn read(file: File, path: &Path) -> Result<Vec<u8>> {
    let metadata = file.metadata().step("stat", path.display())?;
    if !metadata.is_file() {
        let error = Error::new("read").on(path.display());
        return Err(match metadata.is_dir() {
            true => error.errno(nix::errno::Errno::EISDIR),
            false => error.because("not a regular file"),
        });
    }
    read_stream(file, metadata.len(), path)
}

/// Reads a JSON document to its end, but not more than [`MAX_BYTES`] of it. `expected` is its
/// likely size, 0 if unknown; `name` is for the error.
pub fn read_stream(stream: impl Read, expected: u64, name: &Path) -> Result<Vec<u8>> {
    let too_large = || {
        Error::new("read")
            .on(name.display())
            .because(format!("larger than {} MiB", MAX_BYTES >> 20))
    };
    if expected > MAX_BYTES {
        return Err(too_large());
    }
    let mut raw = Vec::with_capacity(expected as usize + 1);
    stream
        .take(MAX_BYTES + 1)
        .read_to_end(&mut raw)
        .step("read", name.display())?;
    match raw.len() as u64 > MAX_BYTES {
        true => Err(too_large()),
        false => Ok(raw),
    }
}
