//! Finding the program as execvp(3) does, so that what is missing is told before it is started.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::{SFlag, stat};
use nix::unistd::{AccessFlags, faccessat};

use super::autopsy;
use crate::error::{Error, Result};

/// For a container whose environment has no PATH.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The file to execute for `name`, with the current directory and user.
///
/// # Errors
/// In words that engines know: `executable file not found in $PATH`, `no such file or directory`,
/// `permission denied`, `is a directory`.
pub fn find(name: &str, environment: &[String]) -> Result<CString> {
    let found = match name.contains('/') {
        true => check(Path::new(name))
            .map(|()| PathBuf::from(name))
            .map_err(|errno| (errno, PathBuf::from(name))),
        false => search(name, environment),
    };
    let fail = |(errno, path): (Errno, PathBuf)| {
        let error = Error::new("exec").on(name).at("/process/args/0");
        match errno {
            Errno::ENOENT if !name.contains('/') => {
                error.because("executable file not found in $PATH").errno(errno)
            }
            Errno::EACCES if autopsy::is_on_noexec(&path) => error.errno(errno).hint(format!(
                "{} lies on a mount that is noexec",
                path.display()
            )),
            Errno::EACCES => error
                .errno(errno)
                .hint(format!("the file or a directory above it has no x permission for this user: chmod +x {name}")),
            _ => error.errno(errno),
        }
    };
    found
        .and_then(|path| {
            CString::new(path.as_os_str().as_bytes()).map_err(|_| (Errno::EINVAL, path))
        })
        .map_err(fail)
}

/// The first that can be executed; else why the last that is there can't be.
fn search(name: &str, environment: &[String]) -> std::result::Result<PathBuf, (Errno, PathBuf)> {
    let path = environment
        .iter()
        .rev()
        .find_map(|entry| entry.strip_prefix("PATH="))
        .unwrap_or(DEFAULT_PATH);
    let mut worst = (Errno::ENOENT, PathBuf::new());
    for directory in path.split(':') {
        let candidate = match directory {
            "" => Path::new(".").join(name),
            directory => Path::new(directory).join(name),
        };
        match check(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(errno @ (Errno::EACCES | Errno::EISDIR)) => worst = (errno, candidate),
            Err(_) => {}
        }
    }
    Err(worst)
}

fn check(path: &Path) -> nix::Result<()> {
    let kind = stat(path)?.st_mode & SFlag::S_IFMT.bits();
    if kind == SFlag::S_IFDIR.bits() {
        return Err(Errno::EISDIR);
    }
    // As execve(2): and a device of the image is not to be opened for a look at what it is.
    if kind != SFlag::S_IFREG.bits() {
        return Err(Errno::EACCES);
    }
    // Root may execute what has an x bit for anybody, and nothing else: access(2) knows.
    faccessat(AT_FDCWD, path, AccessFlags::X_OK, AtFlags::AT_EACCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find_in(path: &str, name: &str) -> Result<CString> {
        find(name, &["PATH=/nowhere".into(), format!("PATH={path}")])
    }

    #[test]
    fn the_last_path_of_the_environment_counts() {
        assert_eq!(find_in("/x:/bin", "sh").unwrap().as_c_str(), c"/bin/sh");
        assert_eq!(find("/bin/sh", &[]).unwrap().as_c_str(), c"/bin/sh");
        assert!(find("sh", &[]).is_ok());
    }

    #[test]
    fn failures_are_in_the_words_of_the_field() {
        let text = |result: Result<CString>| result.unwrap_err().to_string();
        assert_eq!(
            text(find_in("/bin", "no-such")),
            "exec no-such (/process/args/0): executable file not found in $PATH: \
             no such file or directory"
        );
        assert!(text(find("/no/such", &[])).ends_with(": no such file or directory"));
        assert!(text(find("/etc/passwd", &[])).ends_with(": permission denied"));
        assert!(text(find_in("/etc", "passwd")).ends_with(": permission denied"));
        assert!(text(find("/etc", &[])).ends_with(": is a directory"));
        assert!(text(find("/dev/null", &[])).ends_with(": permission denied"));
        assert!(text(find("/etc/passwd/x", &[])).ends_with(": not a directory"));
    }
}
