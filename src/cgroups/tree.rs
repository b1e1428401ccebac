//! Making a container's cgroup and finding it again.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag};
use nix::sys::stat::{Mode, fstat, mkdirat};
use nix::unistd::{Gid, Uid, fchown, fchownat};
use serde::{Deserialize, Serialize};

use super::hierarchy::{Hierarchy, is_cgroup2, open_absolute};
use super::systemd::Owner;
use super::{controllers, file, processes};
use crate::error::{Error, Result, Step};
use crate::sys::file::openat2;
use crate::sys::{fd, xattr};

/// On directories that husk made above a container's own: who finds one empty may remove it.
pub(super) const MADE: &std::ffi::CStr = c"user.husk.made";

/// Where a container's cgroup is: what its record keeps, from before the cgroup is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Where the cgroup2 tree is mounted.
    pub mount: PathBuf,
    /// The cgroup's path below that.
    pub below: PathBuf,
    /// How many directories right above it husk makes.
    pub made: usize,
    /// The inode number, once it exists. Numbers aren't used again before the next boot, so a
    /// cgroup that someone else made at the same path meanwhile is told apart.
    pub inode: Option<u64>,
    /// The unit that systemd makes it for, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
}

impl Place {
    pub fn path(&self) -> PathBuf {
        self.mount.join(&self.below)
    }

    /// The names on the way down, the cgroup's own last.
    pub(super) fn names(&self) -> Vec<&OsStr> {
        self.below.iter().collect()
    }
}

/// A place that has been looked at and found fit, with nothing made yet.
#[derive(Debug)]
pub struct Site<'h> {
    hierarchy: &'h Hierarchy,
    place: Place,
    /// The deepest directory on the way to the cgroup that exists; `None` is the root.
    deepest: Option<OwnedFd>,
    /// The cgroup itself, if it exists.
    leaf: Option<OwnedFd>,
}

/// A container's cgroup.
#[derive(Debug)]
pub struct Cgroup {
    dir: OwnedFd,
    place: Place,
    /// Nobody had it before.
    fresh: bool,
}

impl Hierarchy {
    /// Looks for a place, made by [`super::path`], and changes nothing.
    ///
    /// # Errors
    /// The cgroup exists and is in use or frozen.
    pub fn survey(&self, below: &Path) -> Result<Site<'_>> {
        let place = Place {
            mount: self.mount().into(),
            below: below.into(),
            made: 0,
            inode: None,
            owner: None,
        };
        let mut site = Site {
            hierarchy: self,
            place,
            deepest: None,
            leaf: None,
        };
        let path = || site.place.path().display().to_string();
        let names = site.place.names();
        let Some((leaf, parents)) = names.split_last() else {
            return Err(Error::new(
                "use the root of the cgroup tree for a container",
            ));
        };
        let mut depth = 0;
        if let Some(parent) = below
            .parent()
            .filter(|parent| parent.iter().next().is_some())
        {
            match open_below(self.fd(), parent) {
                Ok(dir) => {
                    site.deepest = Some(dir);
                    depth = parents.len();
                }
                Err(Errno::ENOENT) => {
                    for name in parents {
                        let at = site.deepest.as_ref().map_or(self.fd(), |dir| dir.as_fd());
                        match file::open_dir(at, name) {
                            Ok(dir) => site.deepest = Some(dir),
                            Err(Errno::ENOENT) => break,
                            Err(errno) => return Err(errno).step("open cgroup", path()),
                        }
                        depth += 1;
                    }
                }
                Err(errno) => return Err(errno).step("open cgroup", path()),
            }
        }
        if depth == parents.len() {
            let at = site.deepest.as_ref().map_or(self.fd(), |dir| dir.as_fd());
            match file::open_dir(at, leaf) {
                Ok(dir) => {
                    require_idle(dir.as_fd(), &site.place)?;
                    site.leaf = Some(dir);
                }
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno).step("open cgroup", path()),
            }
        }
        site.place.made = parents.len() - depth;
        Ok(site)
    }
}

impl Site<'_> {
    /// To be recorded before [`Site::make`].
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Makes the directories that are missing and enables all controllers down to the cgroup.
    ///
    /// # Errors
    /// Nothing of what it made is left then.
    pub fn make(self) -> Result<Cgroup> {
        // Another container's end may remove a directory on the way at any moment.
        const ATTEMPTS: usize = 16;
        let hierarchy = self.hierarchy;
        let place = self.place.clone();
        let mut site = self;
        for _ in 0..ATTEMPTS {
            match site.attempt() {
                Err(error) if error.code() == Some(Errno::ENOENT) => {}
                done => return done,
            }
            site = hierarchy.survey(&place.below)?;
        }
        Err(Error::new("make cgroup")
            .on(place.path().display())
            .because("a directory above it is removed again and again"))
    }

    fn attempt(self) -> Result<Cgroup> {
        let Site {
            hierarchy,
            mut place,
            deepest,
            leaf,
        } = self;
        let mut fresh = false;
        let cgroup = make(hierarchy, &place, deepest, leaf, &mut fresh).and_then(|dir| {
            // Until the first process is in it everybody would find it empty.
            match fd::try_lock(dir.as_fd()) {
                Ok(()) => {}
                Err(Errno::EWOULDBLOCK) => {
                    fresh = false;
                    return Err(refuse(
                        &place,
                        "another container is being made in it".into(),
                    ));
                }
                Err(errno) => {
                    return Err(errno).step("lock cgroup", place.path().display());
                }
            }
            // Also one that this process has made: another may have found it before the lock was taken, and
            // be done with its container by now.
            require_idle(dir.as_fd(), &place).inspect_err(|_| {
                fresh &= processes::list(dir.as_fd()).is_ok_and(|found| found.is_empty());
            })?;
            controllers::enable(hierarchy, &place, dir.as_fd())?;
            let inode = fstat(&dir).step("stat", place.path().display())?.st_ino;
            Ok((dir, inode))
        });
        match cgroup {
            Ok((dir, inode)) => {
                place.inode = Some(inode);
                Ok(Cgroup { dir, place, fresh })
            }
            Err(error) => {
                let _ = if fresh {
                    place.remove()
                } else {
                    place.remove_parents()
                };
                Err(error)
            }
        }
    }
}

fn make(
    hierarchy: &Hierarchy,
    place: &Place,
    mut dir: Option<OwnedFd>,
    leaf: Option<OwnedFd>,
    fresh: &mut bool,
) -> Result<OwnedFd> {
    if let Some(leaf) = leaf {
        return Ok(leaf);
    }
    let names = place.names();
    let missing = &names[names.len() - place.made - 1..];
    for (index, name) in missing.iter().enumerate() {
        let at = dir.as_ref().map_or(hierarchy.fd(), |dir| dir.as_fd());
        let made = match mkdirat(at, *name, Mode::from_bits_truncate(0o755)) {
            Ok(()) => true,
            Err(Errno::EEXIST) => false,
            Err(errno) => return Err(cannot_make(place, errno)),
        };
        let last = index + 1 == missing.len();
        *fresh = made && last;
        let child = file::open_dir(at, name).step("open cgroup", place.path().display())?;
        if made && !last {
            // Without the mark only the record knows whose it is, and the record of a container
            // that came later doesn't.
            let _ = xattr::set(child.as_fd(), MADE, b"1");
        }
        dir = Some(child);
    }
    dir.ok_or_else(|| Error::new("use the root of the cgroup tree for a container"))
}

fn cannot_make(place: &Place, errno: Errno) -> Error {
    let error = Error::new("make cgroup")
        .on(place.path().display())
        .errno(errno);
    match errno {
        Errno::EAGAIN => error.because("cgroup.max.depth or cgroup.max.descendants above it"),
        Errno::EROFS => error.hint("mount the cgroup2 tree writable"),
        Errno::EACCES | Errno::EPERM => {
            let error = error.because("unable to apply cgroup configuration");
            error.hint("without root, only a cgroup that was delegated to you can be used")
        }
        _ => error,
    }
}

fn refuse(place: &Place, reason: String) -> Error {
    Error::new("use cgroup")
        .on(place.path().display())
        .at("/linux/cgroupsPath")
        .because(reason)
}

impl Place {
    /// For a cgroup that systemd is to make: one that is there already must be nobody's, as well. systemd
    /// would put the process into a frozen one, and it would stay there.
    pub(super) fn check_idle(&self) -> Result<()> {
        match open_absolute(&self.path(), OFlag::O_RDONLY) {
            Ok(dir) => require_idle(dir.as_fd(), self),
            Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno).step("open cgroup", self.path().display()),
        }
    }
}

/// Only empty, thawed cgroups are taken: others are someone's, and in a frozen one nothing starts.
fn require_idle(dir: BorrowedFd, place: &Place) -> Result<()> {
    let path = place.path();
    let events = file::read(dir, "cgroup.events").step("read cgroup.events of", path.display())?;
    let refuse = |reason: String| refuse(place, reason);
    if file::keyed(&events, "populated") == Some(1) {
        let count = processes::list(dir).map_or(0, |found| found.len());
        return Err(refuse(format!(
            "container's cgroup is not empty: {count} process(es) found"
        ))
        .hint("choose another linux.cgroupsPath, or end what runs there"));
    }
    if file::keyed(&events, "frozen") == Some(1) {
        let own = file::read(dir, "cgroup.freeze").is_ok_and(|state| state.trim() == "1");
        return Err(
            refuse("container's cgroup unexpectedly frozen".into()).hint(match own {
                true => "write 0 to its cgroup.freeze",
                false => "a cgroup above it is frozen: write 0 to the cgroup.freeze of that",
            }),
        );
    }
    Ok(())
}

/// Where only the kernel's own interface can be: no symbolic link, no other file system.
fn open_below(root: BorrowedFd, path: &Path) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(
            ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_SYMLINKS
                | ResolveFlag::RESOLVE_NO_XDEV,
        );
    openat2(root, path, how)
}

impl Cgroup {
    /// One that systemd has just made.
    pub(super) fn adopted(dir: OwnedFd, place: Place) -> Cgroup {
        Cgroup {
            dir,
            place,
            fresh: true,
        }
    }

    /// The cgroup of a record; `None` if it is gone, or another one stands there.
    pub fn open(place: &Place) -> Result<Option<Cgroup>> {
        let path = place.path();
        let dir = match open_absolute(&path, OFlag::O_RDONLY) {
            Err(Errno::ENOENT) => return Ok(None),
            dir => dir.step("open cgroup", path.display())?,
        };
        let same = match place.inode {
            Some(inode) => fstat(&dir).step("stat", path.display())?.st_ino == inode,
            None => is_cgroup2(&dir).step("statfs", path.display())?,
        };
        if !same {
            return Ok(None);
        }
        Ok(Some(Cgroup {
            dir,
            place: place.clone(),
            fresh: false,
        }))
    }

    /// Its directory, for `CLONE_INTO_CGROUP`.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    pub fn path(&self) -> PathBuf {
        self.place.path()
    }

    /// Whether [`Site::make`] made the directory, so that nothing is attached to it yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Gives the cgroup to a user, so that the container's root can divide it further: the directory
    /// and the files that the kernel lists for that (cgroups(7), "Cgroup delegation").
    ///
    /// The specification asks for it when the container has a cgroup namespace of its own and
    /// mounts the tree writable, and only then.
    pub fn delegate(&self, owner: Uid) -> Result<()> {
        const LIST: &str = "/sys/kernel/cgroup/delegate";
        const ALWAYS: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n";
        let path = self.path();
        let unchanged: Option<Gid> = None;
        let list = std::fs::read_to_string(LIST).unwrap_or_else(|_| ALWAYS.into());
        fchown(&self.dir, Some(owner), unchanged).step("chown", path.display())?;
        for name in list.lines().filter(|name| file::is_name(name.as_ref())) {
            let flags = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
            match fchownat(&self.dir, name, Some(owner), unchanged, flags) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno).step("chown", path.join(name).display()),
            }
        }
        Ok(())
    }
}
