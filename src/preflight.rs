//! What stands in a bundle's way on this machine, found without making anything: the paths that
//! config.json names, the program that it starts, the limits that it wants, what this kernel has.
//!
//! [`check`](crate::bundle::check) says what is wrong with the document itself. A look from outside
//! can't know everything; what it can't know it doesn't tell.

mod filesystem;
mod host;
mod ids;
mod limits;
mod machine;
mod mounts;
mod program;
mod view;

use std::path::Path;

pub use machine::{Machine, version};

use nix::errno::Errno;

use crate::bundle::{Bundle, Finding};
use crate::error::phrase;

/// All findings, in the order of the document.
pub fn look(bundle: &Bundle) -> Vec<Finding> {
    let mut findings = Vec::new();
    let view = mounts::look(bundle, &mut findings);
    if let Some(view) = &view {
        program::look(bundle, view, &mut findings);
    }
    program::hooks(bundle, view.as_ref(), &mut findings);
    host::look(bundle, &mut findings);
    ids::look(bundle, &mut findings);
    limits::look(bundle, &mut findings);
    findings
}

/// `reason: no such file or directory`, as errors end.
fn with_phrase(reason: impl std::fmt::Display, errno: Errno) -> String {
    format!("{reason}: {}", phrase(errno))
}

/// What a file of the kernel holds, without the line's end.
fn read(path: impl AsRef<Path>) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.trim_end().to_owned())
}

/// Whether husk has this capability: a bit of capabilities(7).
fn may(capability: caps::Capability) -> bool {
    let sets = crate::sys::prctl::capabilities();
    sets.is_ok_and(|sets| sets.effective & capability.bitmask() != 0)
}
