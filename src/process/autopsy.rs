//! Why the kernel refuses to execute a file that is there: looked at before, since a process that
//! has its filter and its user may not look any more.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::libc;
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{AccessFlags, access};

use crate::executable::{Format, inspect};

/// Interpreters of interpreters that the kernel follows, and one more.
const DEPTH: usize = 6;

/// What can be seen to be wrong with the file, as a hint; in the container, with its user.
pub fn examine(path: &Path) -> Option<String> {
    examine_below(path, 0)
}

fn examine_below(path: &Path, depth: usize) -> Option<String> {
    let format = format(path)?;
    if let Some(fault) = format.fault() {
        return Some(fault.words);
    }
    match format {
        Format::Elf(elf) => {
            let path = elf.interpreter()?;
            unusable(&format!("its loader {}", path.display()), path)
        }
        Format::Script(_) if depth == DEPTH => Some("interpreters are nested too deeply".into()),
        Format::Script(script) => {
            let what = format!(
                "the interpreter {} of its #! line",
                script.interpreter().display()
            );
            let why = unusable(&what, script.interpreter());
            why.or_else(|| {
                let why = examine_below(script.interpreter(), depth + 1)?;
                Some(format!("{what}: {why}"))
            })
        }
        Format::Preceded(_) | Format::Foreign(_) | Format::Empty | Format::Unknown => None,
    }
}

fn format(path: &Path) -> Option<Format> {
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .ok()?;
    inspect(&file).ok()
}

fn unusable(what: &str, path: &Path) -> Option<String> {
    if access(path, AccessFlags::F_OK).is_err() {
        let whole = Path::new("/").join(path);
        return Some(match std::fs::read_link(path) {
            Ok(target) => format!(
                "{what} is a symbolic link, and its target {} is missing in the container",
                target.display()
            ),
            Err(_) if path.is_relative() && access(&whole, AccessFlags::F_OK).is_ok() => format!(
                "{what} is missing in the working directory, below which it is looked for: write {}",
                whole.display()
            ),
            Err(_) => {
                let usual = path.file_name().and_then(|name| {
                    let mut usual = super::DEFAULT_PATH
                        .split(':')
                        .map(|at| Path::new(at).join(name));
                    usual.find(|path| access(path, AccessFlags::F_OK).is_ok())
                });
                match usual {
                    Some(there) => {
                        format!(
                            "{what} is missing in the container, which has {}",
                            there.display()
                        )
                    }
                    None => format!("{what} is missing in the container"),
                }
            }
        });
    }
    // What isn't one is not opened, either.
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => return Some(format!("{what} is a directory")),
        Ok(found) if !found.is_file() => return Some(format!("{what} is no regular file")),
        _ => {}
    }
    if access(path, AccessFlags::X_OK).is_ok() {
        return None;
    }
    Some(match is_on_noexec(path) {
        true => format!("{what} lies on a mount that is noexec"),
        false => format!("{what} is not executable for this user"),
    })
}

/// Whether nothing on its mount can be executed.
pub fn is_on_noexec(path: &Path) -> bool {
    statvfs(path).is_ok_and(|mount| mount.flags().contains(FsFlags::ST_NOEXEC))
}
