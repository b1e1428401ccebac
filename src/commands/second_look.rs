//! What `husk check` would say to what has failed: near names, broken interpreters, absent modules. It is
//! looked for only once there is an error, so that a container that comes to be doesn't pay for it.

use std::path::Path;

use crate::bundle::{Bundle, Severity};
use crate::error::Error;
use crate::preflight;

/// The error with a hint from a look at the same place of config.json, if there is a better one.
pub fn explain(error: Error, bundle: &Path) -> Error {
    let Some(pointer) = error.pointer().map(str::to_owned) else {
        return error;
    };
    // What is wrong with the document itself has been said.
    let Ok(bundle) = Bundle::load(bundle) else {
        return error;
    };
    let is_there = |place: &str| {
        let rest = place.strip_prefix(pointer.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    // Of a process that has ended nothing says why: a limit or a filter that can't be meant may.
    let is_vague = pointer == "/linux";
    let found = preflight::look(&bundle);
    // The filter is there before the program is.
    if pointer == "/process/args/0"
        && error.remedy().is_none()
        && let Some(denial) = found.iter().find(|finding| {
            finding.severity == Severity::Error && finding.pointer.starts_with("/linux/seccomp/")
        })
    {
        return error.hint(format!("{}: {}", denial.pointer, denial.message));
    }
    let found = found
        .into_iter()
        .filter(|finding| is_there(&finding.pointer))
        .filter(|finding| !is_vague || finding.severity == Severity::Error)
        .find_map(|finding| finding.hint);
    match found {
        Some(hint)
            if error.remedy().is_none()
                || pointer.starts_with("/hooks/")
                || pointer == "/process/args/0"
                || is_vague =>
        {
            error.hint(hint)
        }
        _ => error,
    }
}
