//! Why the kernel refuses to execute a file that is there: looked at before, since a process that
//! has its filter and its user may not look any more.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::libc;
use nix::unistd::{AccessFlags, access};

use crate::executable::{Format, inspect};

/// What can be seen to be wrong with the file, as a hint; in the container, with its user.
pub fn examine(path: &Path) -> Option<String> {
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .ok()?;
    let format = inspect(&file).ok()?;
    if let Some(fault) = format.fault() {
        return Some(fault.words);
    }
    match format {
        Format::Elf(elf) => interpreter("its loader", elf.interpreter()?),
        Format::Script(script) => {
            interpreter("the interpreter of its #! line,", script.interpreter())
        }
        Format::Empty | Format::Unknown => None,
    }
}

fn interpreter(what: &str, path: &Path) -> Option<String> {
    let name = path.display();
    if access(path, AccessFlags::F_OK).is_err() {
        return Some(format!("{what} {name} is missing in the container"));
    }
    match access(path, AccessFlags::X_OK) {
        Ok(()) => None,
        Err(_) => Some(format!("{what} {name} is not executable for this user")),
    }
}
