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
    match inspect(&file).ok()? {
        Format::Elf(elf) => {
            if let Some(why) = elf.broken {
                return Some(why.into());
            }
            if !elf.fits() {
                let here = std::env::consts::ARCH;
                let there = elf.architecture();
                return Some(format!("it is for {there}, and this machine is {here}"));
            }
            interpreter("its loader", elf.interpreter()?)
        }
        Format::Script(script) if script.interpreter.is_empty() => {
            Some("its #! line names no interpreter".into())
        }
        Format::Script(script) if script.cut_off => {
            Some("its #! line is longer than the 256 bytes that the kernel reads".into())
        }
        Format::Script(script) if script.carriage_return => Some(
            "its #! line ends with a carriage return, as on Windows: \
             remove it from all lines (sed -i 's/\\r$//')"
                .into(),
        ),
        Format::Script(script) => {
            interpreter("the interpreter of its #! line,", script.interpreter())
        }
        Format::Empty => Some("the file is empty".into()),
        Format::Unknown => Some("it is neither an ELF program nor a script with a #! line".into()),
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
