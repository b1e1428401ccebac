//! Whether the source of a mount is the container's, whatever names its path has on the way to the root: links of
//! the host, `..`, another mount of it.
//!
//! What is outside of the root is the host's, and trusted. Nothing below the root is looked at here.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::readlink;
use nix::sys::stat::{SFlag, lstat, stat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, statfs};

use super::handle::{MAX_LINKS, components_of, is_kind};

/// A directory or file of the host: its device and inode.
type Id = (u64, u64);

/// The container's root and the directories above it.
#[derive(Debug)]
pub struct Root {
    ids: Vec<Id>,
}

/// What an absolute path leads to.
#[derive(Debug, PartialEq, Eq)]
pub enum Place {
    /// The container's, by this path from its root on: links on the way are the image's.
    Below(PathBuf),
    /// The host's, but the path given would come there through the root: this one doesn't.
    Around(PathBuf),
    /// A directory that the root is part of.
    Above,
    /// The host's, or nothing.
    Elsewhere,
}

impl Root {
    /// Nothing is known of a root that isn't there: what it lacks is told when it is opened.
    pub fn find(path: &Path) -> Root {
        let walked = walk(path, None);
        Root {
            ids: walked.map_or_else(|_| Vec::new(), |walked| walked.ids),
        }
    }

    pub fn place(&self, path: &Path) -> Place {
        let Ok(walked) = walk(path, self.ids.last()) else {
            return Place::Elsewhere;
        };
        match (walked.below, walked.around) {
            (Some(below), _) => Place::Below(below),
            (None, true) => Place::Around(walked.path),
            // The top has no name, and is above all.
            (None, false) => match walked.ids.last() {
                Some(id) if !self.ids.contains(id) => Place::Elsewhere,
                _ => Place::Above,
            },
        }
    }
}

/// Whether a path that begins at the root doesn't name what is outside.
pub fn stays_below(path: &Path) -> bool {
    leave(&components_of(path)).is_none()
}

/// A path as far as it was followed.
struct Walked {
    /// Without links, but those of procfs.
    path: PathBuf,
    /// Of each directory of `path`, and of what it leads to.
    ids: Vec<Id>,
    /// What is left of it below the root.
    below: Option<PathBuf>,
    /// Whether it went through the root.
    around: bool,
}

fn walk(path: &Path, root: Option<&Id>) -> nix::Result<Walked> {
    let mut walked = Walked {
        path: "/".into(),
        ids: Vec::new(),
        below: None,
        around: false,
    };
    // The next name last.
    let mut rest = components_of(path);
    let mut links = 0;
    // Whether names can be taken back from the path.
    let mut plain = true;
    while let Some(name) = rest.pop() {
        if name == ".." && plain {
            walked.path.pop();
            walked.ids.pop();
        } else {
            let next = walked.path.join(&name);
            let mut found = lstat(&next)?;
            if is_kind(&found, SFlag::S_IFLNK) {
                // What these show leads to what they are about, not to where a path of that text would.
                if statfs(&walked.path)?.filesystem_type() == PROC_SUPER_MAGIC {
                    found = stat(&next)?;
                    plain = false;
                } else {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::ELOOP);
                    }
                    let target = PathBuf::from(readlink(&next)?);
                    if target.is_absolute() {
                        walked.path = "/".into();
                        walked.ids.clear();
                        plain = true;
                    }
                    rest.extend(components_of(&target));
                    continue;
                }
            }
            walked.path = next;
            walked.ids.push((found.st_dev, found.st_ino));
        }
        if root.is_some() && walked.ids.last() == root {
            match leave(&rest) {
                None => {
                    walked.below = Some(rest.iter().rev().collect());
                    break;
                }
                Some(outside) => rest.truncate(outside),
            }
            walked.around = true;
        }
    }
    Ok(walked)
}

/// How many names, counted from the end, are left of a path when it has left the directory that it begins in.
fn leave(rest: &[OsString]) -> Option<usize> {
    let mut depth = 0_usize;
    for (left, name) in rest.iter().enumerate().rev() {
        match name == ".." {
            false => depth += 1,
            true if depth == 0 => return Some(left + 1),
            true => depth -= 1,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_path_leaves_where_it_began() {
        for (path, stays) in [
            ("", true),
            ("a/../b", true),
            ("a/..", true),
            ("..", false),
            ("a/../../b", false),
            ("../rootfs", false),
        ] {
            assert_eq!(stays_below(Path::new(path)), stays, "{path}");
        }
    }

    #[test]
    fn a_root_is_found_by_any_name() {
        let dir = std::env::temp_dir().join(format!("husk-alias-{}", std::process::id()));
        fs::create_dir_all(dir.join("rootfs/inside")).unwrap();
        fs::create_dir_all(dir.join("beside")).unwrap();
        symlink("rootfs", dir.join("link")).unwrap();
        symlink(&dir, dir.join("rootfs/out")).unwrap();
        symlink("loop", dir.join("loop")).unwrap();
        let dir = dir.canonicalize().unwrap();
        let held = fs::File::open(dir.join("beside")).unwrap();
        // By a link, as some engines name it.
        let root = Root::find(&dir.join("link"));
        let below = |path: &str| Place::Below(path.into());
        for (path, place) in [
            ("rootfs", below("")),
            ("rootfs/", below("")),
            ("rootfs/inside", below("inside")),
            ("rootfs/out/beside", below("out/beside")),
            ("rootfs/nothing/there", below("nothing/there")),
            ("rootfs/../rootfs/inside", below("inside")),
            ("link/../link/inside", below("inside")),
            ("rootfs/out/../../beside", Place::Around(dir.join("beside"))),
            ("link/..", Place::Around(dir.clone())),
            (".", Place::Above),
            ("beside/..", Place::Above),
            ("beside", Place::Elsewhere),
            ("nothing", Place::Elsewhere),
            ("loop", Place::Elsewhere),
        ] {
            assert_eq!(root.place(&dir.join(path)), place, "{path}");
        }
        assert_eq!(root.place(Path::new("/")), Place::Above);
        let held = format!("/proc/self/fd/{}", held.as_raw_fd());
        assert_eq!(root.place(Path::new(&held)), Place::Elsewhere);
        let through = format!("{held}/../rootfs/out");
        assert_eq!(root.place(Path::new(&through)), below("out"));
        fs::remove_dir_all(dir).unwrap();
    }
}
