//! What every command gets from the options before its name.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use nix::unistd::geteuid;

use crate::error::{Error, Result, Step};
use crate::namespaces;

/// Who makes the cgroup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Driver {
    /// husk itself, through the filesystem.
    #[default]
    Cgroupfs,
    /// systemd, as a transient scope.
    Systemd,
    /// Nobody: the container stays where its creator is.
    Disabled,
}

/// Whether missing permissions are to be put up with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Rootless {
    #[default]
    Auto,
    True,
    False,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Global {
    /// Where the containers' records are: absolute, without `.` and `..`. It need not exist.
    pub root: PathBuf,
    /// `--root` was given: then its absence is an error for those who only read.
    pub root_given: bool,
    pub rootless: Rootless,
    driver: Driver,
}

impl Global {
    /// Resolves `--root` against the current directory and its default against the environment.
    pub fn new(root: Option<&Path>, driver: Driver, rootless: Rootless) -> Result<Self> {
        let path = match root {
            Some(given) => clean(&std::path::absolute(given).step("--root", given.display())?),
            None => default_root(),
        };
        if path == Path::new("/") {
            return Err(Error::new("--root")
                .on("/")
                .because("the root directory can't hold containers")
                .hint("give a directory of its own, such as /run/husk"));
        }
        Ok(Global {
            root: path,
            root_given: root.is_some(),
            rootless,
            driver,
        })
    }

    /// The driver for a cgroup that is to be made. For commands on an existing container
    /// its record says who made it; engines don't repeat these options there.
    pub fn driver(&self) -> Driver {
        self.driver
    }

    /// Whether missing permissions are to be put up with: root in a user namespace has no more of them
    /// on the host than the user who made it.
    pub fn is_rootless(&self) -> bool {
        match self.rootless {
            Rootless::True => true,
            Rootless::False => false,
            Rootless::Auto => !geteuid().is_root() || namespaces::nested(),
        }
    }
}

/// Resolves `.` and `..` by their letters, as filepath.Clean does for runc's `--root`.
fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::ParentDir => {
                cleaned.pop();
            }
            Component::Normal(name) => cleaned.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    cleaned
}

fn default_root() -> PathBuf {
    let xdg = std::env::var_os("XDG_RUNTIME_DIR");
    choose_root(xdg.as_deref(), || {
        if !geteuid().is_root() {
            return true;
        }
        // Root in a user namespace of an ordinary user, where podman runs, may not write
        // to /run; root on the machine may have XDG_RUNTIME_DIR from a login, or sudo.
        std::env::var_os("USER").is_none_or(|user| user != "root")
            && std::fs::read("/proc/self/uid_map").is_ok_and(|map| !maps_everything(&map))
    })
}

fn choose_root(xdg: Option<&OsStr>, is_rootless: impl FnOnce() -> bool) -> PathBuf {
    match xdg.map(Path::new) {
        Some(runtime) if runtime.is_absolute() && is_rootless() => clean(&runtime.join("husk")),
        _ => PathBuf::from("/run/husk"),
    }
}

/// The initial user namespace's map is `0 0 4294967295`.
fn maps_everything(map: &[u8]) -> bool {
    map.split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty())
        .eq([&b"0"[..], b"0", b"4294967295"])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(path: &str) -> Result<PathBuf> {
        Global::new(Some(Path::new(path)), Driver::default(), Rootless::Auto)
            .map(|global| global.root)
    }

    #[test]
    fn root_is_absolute_and_never_the_root_directory() {
        assert_eq!(root("/run/x").unwrap(), Path::new("/run/x"));
        assert_eq!(root("/run/./x/../y//").unwrap(), Path::new("/run/y"));
        assert_eq!(
            root("here").unwrap(),
            std::env::current_dir().unwrap().join("here")
        );
        for path in ["/", "//", "/.", "/..", "/run/..", "/../.."] {
            assert!(root(path).is_err(), "{path}");
        }
        assert!(root("").is_err());
    }

    #[test]
    fn default_root_is_the_users_own_only_for_users() {
        let choose = |xdg: Option<&str>, rootless| choose_root(xdg.map(OsStr::new), || rootless);
        assert_eq!(choose(None, false), Path::new("/run/husk"));
        assert_eq!(choose(None, true), Path::new("/run/husk"));
        assert_eq!(choose(Some("/run/user/0"), false), Path::new("/run/husk"));
        assert_eq!(
            choose(Some("/run/user/1"), true),
            Path::new("/run/user/1/husk")
        );
        assert_eq!(choose(Some("relative"), true), Path::new("/run/husk"));
        assert_eq!(choose(Some(""), true), Path::new("/run/husk"));
    }

    #[test]
    fn user_namespaces_are_told_by_their_map() {
        assert!(maps_everything(b"         0          0 4294967295\n"));
        assert!(!maps_everything(
            b"         0       1000          1\n         1     100000      65536\n"
        ));
        assert!(!maps_everything(b""));
    }
}
