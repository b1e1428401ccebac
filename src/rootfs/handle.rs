//! The root filesystem as a descriptor: everything below it is reached through here.
//!
//! What is inside is hostile, and may change while husk looks (CVE-2021-30465, CVE-2024-45310).
//! Every lookup is one openat2(2) that can't leave the root; what has been opened is used by its
//! descriptor and never looked up again; what is made is made by single name in an open directory.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::sys::file::{openat, openat2};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, mkdirat, mknodat};

/// How often a lookup is tried again when a rename elsewhere disturbs it (openat2(2), EAGAIN).
const LOOKUP_TRIES: usize = 128;

/// As the kernel (path_resolution(7)).
pub const MAX_LINKS: usize = 40;

/// Never through a link.
const NEW_DIRECTORY: OFlag = OFlag::O_PATH
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// A root directory. Paths given to its methods are resolved as if it were `/`.
#[derive(Debug)]
pub struct Rootfs {
    fd: OwnedFd,
}

/// What is at a path of the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Directory,
    File,
}

impl Rootfs {
    /// `fd` is a directory opened with `O_PATH`.
    pub fn new(fd: OwnedFd) -> Rootfs {
        Rootfs { fd }
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Opens what is at `path`; symbolic links are resolved inside the root, magic links refused.
    ///
    /// # Errors
    /// As openat2(2); `EAGAIN` only if something renames without end.
    pub fn open(&self, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
        self.resolve(path, flags, ResolveFlag::empty())
    }

    /// A handle to what is at `path`, for use as a mount's target or for `fstat`.
    pub fn lookup(&self, path: &Path) -> nix::Result<OwnedFd> {
        self.open(path, OFlag::O_PATH)
    }

    /// As [`Rootfs::open`], but `ELOOP` if any component is a symbolic link.
    pub fn open_plain(&self, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
        self.resolve(path, flags, ResolveFlag::RESOLVE_NO_SYMLINKS)
    }

    /// As [`Rootfs::lookup`], but `ELOOP` if any component is a symbolic link.
    pub fn lookup_plain(&self, path: &Path) -> nix::Result<OwnedFd> {
        self.open_plain(path, OFlag::O_PATH)
    }

    fn resolve(&self, path: &Path, flags: OFlag, more: ResolveFlag) -> nix::Result<OwnedFd> {
        resolve_in(self.fd(), path, flags, more)
    }

    /// Makes the directory and those above it that are missing, mode 0755; opens it (`O_PATH`). A link
    /// that points nowhere is followed to where, inside the root.
    ///
    /// # Errors
    /// `ENOTDIR` where a file is in the way, `ELOOP` for links in a circle, `EROFS`.
    pub fn make_directory(&self, path: &Path) -> nix::Result<OwnedFd> {
        match self.open(path, OFlag::O_PATH | OFlag::O_DIRECTORY) {
            Err(Errno::ENOENT) => self.make_missing(path),
            done => done,
        }
    }

    /// As [`Rootfs::make_directory`], but `ELOOP` if any component is a symbolic link, and if one comes to be
    /// there meanwhile.
    pub fn make_plain_directory(&self, path: &Path) -> nix::Result<OwnedFd> {
        match self.lookup_plain(path) {
            Err(Errno::ENOENT) => {
                self.make_missing(path)?;
                self.lookup_plain(path)
            }
            done => done,
        }
    }

    /// The same where nothing is at `path`, or a link that points nowhere.
    fn make_missing(&self, path: &Path) -> nix::Result<OwnedFd> {
        // Most are only the last name of a path, and no link is there.
        if let Some(made) = self.make_last(path) {
            return Ok(made);
        }
        let path = self.without_links(path)?;
        let mut prefix = PathBuf::new();
        let mut parent = self.open(Path::new("."), OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        let mut made = false;
        for name in path.iter() {
            prefix.push(name);
            if !made {
                match self.open(&prefix, OFlag::O_PATH | OFlag::O_DIRECTORY) {
                    Ok(directory) => {
                        parent = directory;
                        continue;
                    }
                    Err(Errno::ENOENT) => made = true,
                    Err(errno) => return Err(errno),
                }
            }
            match mkdirat(&parent, name, Mode::from_bits_retain(0o755)) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno),
            }
            parent = openat(&parent, name, NEW_DIRECTORY, Mode::empty())?;
        }
        Ok(parent)
    }

    fn make_last(&self, path: &Path) -> Option<OwnedFd> {
        let name = path.file_name()?;
        let parent = self.open(path.parent()?, OFlag::O_PATH | OFlag::O_DIRECTORY);
        let parent = parent.ok()?;
        mkdirat(&parent, name, Mode::from_bits_retain(0o755)).ok()?;
        openat(&parent, name, NEW_DIRECTORY, Mode::empty()).ok()
    }

    /// Where `path` leads inside the root, also beyond what exists: no links, no `..`. Only a plan, as
    /// something may change meanwhile: what is done with it is done by lookups that can't leave the root.
    pub fn without_links(&self, path: &Path) -> nix::Result<PathBuf> {
        let mut real = PathBuf::new();
        let mut left: Vec<std::ffi::OsString> = components_of(path);
        let mut links = 0;
        while let Some(name) = left.pop() {
            if name == ".." {
                real.pop();
                continue;
            }
            real.push(name);
            let file = match self.open(&real, OFlag::O_PATH | OFlag::O_NOFOLLOW) {
                Ok(file) => file,
                Err(Errno::ENOENT) => continue,
                Err(errno) => return Err(errno),
            };
            if is_kind(&fstat(&file)?, SFlag::S_IFLNK) {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::ELOOP);
                }
                let target = PathBuf::from(readlinkat(&file, "")?);
                match target.is_absolute() {
                    true => real.clear(),
                    false => drop(real.pop()),
                }
                left.extend(components_of(&target));
            }
        }
        Ok(real)
    }

    /// The directory that `path` is in, made when missing, and the last name of `path`.
    ///
    /// # Errors
    /// `EINVAL` for a path without a last name, such as `/` or `..`.
    pub fn make_parent<'p>(&self, path: &'p Path) -> nix::Result<(OwnedFd, &'p std::ffi::OsStr)> {
        let name = path.file_name().ok_or(Errno::EINVAL)?;
        let parent = path.parent().unwrap_or(Path::new("."));
        Ok((self.make_directory(parent)?, name))
    }

    /// What `path` is, as a mount's target; an empty file or a directory is made when nothing is there.
    pub fn make_target(&self, path: &Path, kind: Target) -> nix::Result<OwnedFd> {
        match self.lookup(path) {
            Err(Errno::ENOENT) => {}
            done => return done,
        }
        match kind {
            Target::Directory => self.make_missing(path),
            Target::File => {
                let path = self.without_links(path)?;
                let (parent, name) = self.make_parent(&path)?;
                match mknodat(
                    &parent,
                    name,
                    SFlag::S_IFREG,
                    Mode::from_bits_retain(0o644),
                    0,
                ) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(errno) => return Err(errno),
                }
                open_at(parent.as_fd(), name)
            }
        }
    }
}

/// A handle to what is at `path` below `directory`, as if that were `/`.
pub fn lookup_below(directory: BorrowedFd, path: &Path) -> nix::Result<OwnedFd> {
    resolve_in(directory, path, OFlag::O_PATH, ResolveFlag::empty())
}

fn resolve_in(
    directory: BorrowedFd,
    path: &Path,
    flags: OFlag,
    more: ResolveFlag,
) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS | more);
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    for _ in 0..LOOKUP_TRIES {
        match openat2(directory, path, how) {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            done => return done,
        }
    }
    Err(Errno::EAGAIN)
}

/// The names of a path and its `..`, the last one first.
pub fn components_of(path: &Path) -> Vec<std::ffi::OsString> {
    path.components()
        .rev()
        .filter_map(|component| match component {
            Component::Normal(_) | Component::ParentDir => Some(component.as_os_str().to_owned()),
            _ => None,
        })
        .collect()
}

/// A handle to `name` in an open directory; never through a symbolic link.
pub fn open_at(directory: BorrowedFd, name: &std::ffi::OsStr) -> nix::Result<OwnedFd> {
    let file = openat(
        directory,
        name,
        OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    match is_kind(&fstat(&file)?, SFlag::S_IFLNK) {
        true => Err(Errno::ELOOP),
        false => Ok(file),
    }
}

/// The metadata of `name` in an open directory, of a symbolic link itself.
pub fn stat_at(directory: BorrowedFd, name: &std::ffi::OsStr) -> nix::Result<FileStat> {
    nix::sys::stat::fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)
}

/// Whether the file is of this type.
pub fn is_kind(stat: &FileStat, kind: SFlag) -> bool {
    stat.st_mode & SFlag::S_IFMT.bits() == kind.bits()
}

/// `path` without `.`, doubled slashes and a slash at its end or beginning; `..` is kept.
pub fn clean(path: &Path) -> PathBuf {
    path.components()
        .filter(|component| !matches!(component, Component::RootDir | Component::CurDir))
        .collect()
}

/// As [`clean`], with `..` taken back lexically: what the path looks like, for messages and for
/// rules on names. Never for a lookup.
pub fn lexical(path: &Path) -> PathBuf {
    let mut plain = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::ParentDir => {
                plain.pop();
            }
            _ => {}
        }
    }
    plain
}

/// What of `path` is below `above`, both as [`clean`] has them: alike byte by byte up to the end of a name.
pub fn below<'p>(path: &'p Path, above: &Path) -> Option<&'p Path> {
    let (path, above) = (path.as_os_str().as_bytes(), above.as_os_str().as_bytes());
    let rest = path.strip_prefix(above)?;
    let below = match rest.first() {
        Some(b'/') => &rest[1..],
        Some(_) if !above.is_empty() => return None,
        _ => rest,
    };
    Some(Path::new(OsStr::from_bytes(below)))
}

/// NUL can't be in a path that reaches the kernel.
pub fn has_nul(path: &Path) -> bool {
    path.as_os_str().as_bytes().contains(&0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// A directory that is removed again.
    struct Temporary(PathBuf);

    impl Temporary {
        fn new(name: &str) -> Temporary {
            let path = std::env::temp_dir().join(format!("husk-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(path.join("root")).unwrap();
            Temporary(path)
        }
        fn root(&self) -> Rootfs {
            let fd = crate::sys::file::open(
                &self.0.join("root"),
                OFlag::O_PATH | OFlag::O_DIRECTORY,
                Mode::empty(),
            )
            .unwrap();
            Rootfs::new(fd)
        }
        fn path(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }
    }

    impl Drop for Temporary {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn directories_are_made_below_what_exists() {
        let base = Temporary::new("mkdir");
        fs::create_dir(base.path("root/a")).unwrap();
        base.root()
            .make_directory(Path::new("/a/b/./c//d/"))
            .unwrap();
        assert!(base.path("root/a/b/c/d").is_dir());
    }

    #[test]
    fn absolute_and_climbing_links_stay_inside() {
        let base = Temporary::new("links");
        fs::create_dir(base.path("outside")).unwrap();
        symlink(base.path("outside"), base.path("root/abs")).unwrap();
        symlink("../../../../outside", base.path("root/rel")).unwrap();
        for link in ["abs", "rel"] {
            let path = Path::new(link).join("x");
            base.root().make_directory(&path).unwrap();
            let file = Path::new(link).join("y");
            base.root().make_target(&file, Target::File).unwrap();
        }
        assert_eq!(fs::read_dir(base.path("outside")).unwrap().count(), 0);
        base.root().make_directory(Path::new("../../up")).unwrap();
        assert!(base.path("root/up").is_dir());
    }

    #[test]
    fn a_dangling_link_leads_to_where_it_points_inside() {
        let base = Temporary::new("dangling");
        symlink("/nowhere/../../new", base.path("root/link")).unwrap();
        symlink("b", base.path("root/a")).unwrap();
        symlink("a", base.path("root/b")).unwrap();
        let root = base.root();
        root.make_target(Path::new("link"), Target::File).unwrap();
        assert!(base.path("root/new").is_file());
        symlink("../../../up", base.path("root/climbing")).unwrap();
        root.make_directory(Path::new("climbing/x")).unwrap();
        assert!(base.path("root/up/x").is_dir());
        let circle = root.make_directory(Path::new("a/x"));
        assert_eq!(circle.unwrap_err(), Errno::ELOOP);
    }

    #[test]
    fn a_file_target_is_made_once_and_kept() {
        let base = Temporary::new("file");
        fs::write(base.path("root/full"), "kept").unwrap();
        let root = base.root();
        root.make_target(Path::new("/full"), Target::File).unwrap();
        root.make_target(Path::new("/new/empty"), Target::File)
            .unwrap();
        assert_eq!(fs::read_to_string(base.path("root/full")).unwrap(), "kept");
        assert_eq!(fs::read_to_string(base.path("root/new/empty")).unwrap(), "");
    }

    #[test]
    fn plain_lookups_refuse_links() {
        let base = Temporary::new("plain");
        fs::create_dir(base.path("root/real")).unwrap();
        symlink("real", base.path("root/proc")).unwrap();
        let root = base.root();
        assert_eq!(
            root.lookup_plain(Path::new("proc")).unwrap_err(),
            Errno::ELOOP
        );
        assert!(root.lookup_plain(Path::new("real")).is_ok());
    }

    #[test]
    fn what_is_below_is_told_by_whole_names() {
        for (path, above, rest) in [
            ("proc/sys", "proc", Some("sys")),
            ("proc/sys/net", "proc/sys", Some("net")),
            ("proc", "proc", Some("")),
            ("process", "proc", None),
            ("pro", "proc", None),
            ("proc/sys", "", Some("proc/sys")),
            ("", "", Some("")),
            ("", "proc", None),
        ] {
            let found = below(Path::new(path), Path::new(above));
            assert_eq!(found, rest.map(Path::new), "{path} below {above}");
        }
    }

    #[test]
    fn paths_are_cleaned() {
        assert_eq!(clean(Path::new("/a//b/./c/")), Path::new("a/b/c"));
        assert_eq!(lexical(Path::new("a/../../proc/x/..")), Path::new("/proc"));
    }
}
