//! What a mount shows, opened as a detached mount with its flags and its mapping of ids: before the
//! container is there, or when its turn comes.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::stat::Mode;
use nix::sys::statfs::{PROC_SUPER_MAGIC, SYSFS_MAGIC, fstatfs};

use super::{Kind, Mount, Opened, pointer};
use crate::error::{Error, Result, Step};
use crate::rootfs::handle::{self, Rootfs};
use crate::rootfs::idmap::{Donors, MapIds};
use crate::sys::mount::{self, Attributes};

/// Flags of statfs(2) that belong to the mount and that the kernel locks where a mount comes from
/// another user namespace (mount_namespaces(7)), and the words that clear them.
const LOCKED: [(u64, &str, &str); 4] = [
    (libc::ST_RDONLY, "ro", "rw"),
    (libc::ST_NOSUID, "nosuid", "suid"),
    (libc::ST_NODEV, "nodev", "dev"),
    (libc::ST_NOEXEC, "noexec", "exec"),
];
/// These are locked together: none can be set or cleared.
const LOCKED_TIMES: u64 = libc::ST_NOATIME | libc::ST_NODIRATIME | mount::ST_RELATIME;

impl Mount {
    /// Opens the source of a bind mount, unless that is to be done in its turn. Runs where the host's files
    /// can be reached: in the runtime's mount namespace and with its privileges. So is a filesystem made that
    /// is to be id-mapped, which takes privileges over it. `root` is where the container's root lies.
    pub fn open_source(&mut self, donors: &mut Donors, root: &Path) -> Result<()> {
        let tree = match &self.kind {
            Kind::Bind {
                source,
                below,
                recursive,
                opened: Opened::Before,
            } => match below {
                None => mount::clone_tree(mount::CWD, source, *recursive),
                Some(below) => open_root(root)
                    .and_then(|root| root.lookup(below))
                    .and_then(|file| mount::clone_tree(file.as_raw_fd(), "", *recursive)),
            }
            .or_fail(|errno| self.no_source(errno))?,
            Kind::Bind { .. } => return self.keep_mapping(donors),
            Kind::Filesystem { .. } if self.idmap.is_some() => self.make_filesystem(None)?,
            _ => return Ok(()),
        };
        if let Some(idmap) = &self.idmap {
            let namespace = donors.find(idmap, &pointer(self.index))?;
            mount::map_ids(tree.as_fd(), idmap.recursive, namespace)
                .or_fail(|errno| self.not_mapped(&tree, errno))?;
        }
        if matches!(self.kind, Kind::Bind { .. }) {
            self.set_source_flags(&tree)?;
        }
        self.tree = Some(tree);
        Ok(())
    }

    /// For a source that is opened when its turn comes.
    fn keep_mapping(&mut self, donors: &mut Donors) -> Result<()> {
        if let Some(idmap) = &self.idmap {
            let namespace = donors.find(idmap, &pointer(self.index))?;
            let kept = namespace.try_clone_to_owned();
            self.donor = Some(kept.step("keep", "a user namespace")?);
        }
        Ok(())
    }

    /// Opens a source whose turn has come: where husk would find it, or inside the container, where what
    /// entries before this one have mounted is part of it.
    pub(super) fn open_in_turn(&self, root: &Rootfs, map_ids: MapIds) -> Result<OwnedFd> {
        let Kind::Bind {
            source,
            recursive,
            opened,
            ..
        } = &self.kind
        else {
            return Err(self.error("mount").because("it has no source"));
        };
        let tree = match opened {
            Opened::Before => return Err(self.error("mount").because("its source was not opened")),
            Opened::InTurn => mount::clone_tree(mount::CWD, source, *recursive),
            Opened::Inside => {
                let file = root.lookup(source).or_fail(|errno| self.no_source(errno))?;
                self.refuse_kernels(source, &file)?;
                mount::clone_tree(file.as_raw_fd(), "", *recursive)
            }
        }
        .or_fail(|errno| self.no_source(errno))?;
        match (&self.idmap, &self.donor) {
            (Some(idmap), Some(donor)) => {
                mount::map_ids(tree.as_fd(), idmap.recursive, donor.as_fd())
                    .or_fail(|errno| self.not_mapped(&tree, errno))?;
            }
            (Some(_), None) => map_ids(self.index, tree.as_fd())?,
            (None, _) => {}
        }
        self.set_source_flags(&tree)?;
        Ok(tree)
    }

    /// A link of a volume must not lead to a second way into the kernel's own filesystems, past what masks and
    /// protects them: only a source that names them is meant.
    fn refuse_kernels(&self, source: &Path, file: &OwnedFd) -> Result<()> {
        let named = |top| handle::lexical(source).starts_with(top);
        let found = fstatfs(file).or_fail(|errno| self.no_source(errno))?;
        match found.filesystem_type() {
            PROC_SUPER_MAGIC | SYSFS_MAGIC if !named("/proc") && !named("/sys") => Err(self
                .error("mount")
                .at(format!("{}/source", pointer(self.index)))
                .because("the source leads into procfs or sysfs, by a link inside the container")),
            _ => Ok(()),
        }
    }

    fn no_source(&self, errno: Errno) -> Error {
        let error = self
            .error("mount")
            .at(format!("{}/source", pointer(self.index)))
            .because("source")
            .errno(errno);
        match errno {
            Errno::EINVAL if matches!(self.kind, Kind::Bind { recursive: false, .. }) => error.hint(
                "in a user namespace what is mounted below a directory can't be left out: use rbind",
            ),
            _ => error,
        }
    }

    /// Which filesystem it is that can't be mapped is what the kernel doesn't say.
    fn not_mapped(&self, tree: &OwnedFd, errno: Errno) -> Error {
        let name = match &self.kind {
            Kind::Filesystem { name, .. } => name.to_string_lossy().into_owned(),
            Kind::Bind { source, .. } => filesystem_of(source).unwrap_or_else(|| {
                let kind = nix::sys::statfs::fstatfs(tree).map(|stat| stat.filesystem_type().0);
                kind.map_or("of the source".into(), |magic| format!("{magic:#x}"))
            }),
            Kind::Remount => String::new(),
        };
        let below = match &self.idmap {
            Some(idmap) if idmap.recursive => " or one mounted below it",
            _ => "",
        };
        let error = self.error("map ids of mount").errno(errno);
        match errno {
            Errno::EINVAL => error
                .because(format!(
                    "filesystem {name}{below} does not support id-mapped mounts on this kernel"
                ))
                .hint("leave idmap away, or put the files on ext4, xfs, btrfs or tmpfs (Linux 6.3)"),
            Errno::EPERM => error
                .because(format!(
                    "filesystem {name}{below} belongs to another user namespace, or is id-mapped already"
                ))
                .hint("mapping ids needs root where the filesystem was mounted"),
            _ => error,
        }
    }

    /// As [`Options::of_bind`] has it. In a user namespace, flags of the source are locked as the kernel
    /// would lock them, had the mount been made there: they stay unless they are cleared by name, and
    /// that is refused.
    ///
    /// [`Options::of_bind`]: crate::rootfs::options::Options::of_bind
    fn set_source_flags(&self, tree: &OwnedFd) -> Result<()> {
        let own = match self.options.bind {
            Some(_) => self.options.of_bind(self.confined),
            None => self.options.attributes,
        };
        let flags = || mount::flags(tree.as_fd()).or_fail(|errno| self.error("mount").errno(errno));
        if own.is_empty() && self.options.recursive.is_empty() {
            return Ok(());
        }
        let before = flags()?;
        self.set_attributes(tree, false, own)?;
        // Last: what is asked for the whole tree holds for its top, too.
        self.set_attributes(tree, true, self.options.recursive)?;
        if !self.confined {
            return Ok(());
        }
        let after = flags()?;
        let locked = |flag: &str, asked: &str| {
            self.error("mount")
                .at(format!("{}/options", pointer(self.index)))
                .because(format!(
                    "`{asked}` is asked for, but the source is mounted {flag}, which is locked in a user namespace"
                ))
                .errno(Errno::EPERM)
                .hint(format!("leave `{asked}` away, or mount the source without {flag}"))
        };
        for (bit, flag, word) in LOCKED {
            if before & !after & bit != 0 {
                return Err(locked(flag, word));
            }
        }
        if (before ^ after) & LOCKED_TIMES != 0 {
            return Err(locked(times(before), times(after)));
        }
        Ok(())
    }

    /// Flags that are named, those of all below first.
    pub(super) fn set_flags(&self, tree: &OwnedFd) -> Result<()> {
        self.set_attributes(tree, true, self.options.recursive)?;
        self.set_attributes(tree, false, self.options.attributes)
    }

    fn set_attributes(&self, tree: &OwnedFd, recursive: bool, change: Attributes) -> Result<()> {
        if change.is_empty() {
            return Ok(());
        }
        mount::set_attributes(tree.as_fd(), recursive, change).or_fail(|errno| {
            let error = self.error("set mount flags").errno(errno);
            match errno {
                Errno::EPERM => error.hint(
                    "flags that the source has outside are locked in a user namespace: leave away what would change them",
                ),
                _ => error,
            }
        })
    }

    /// In the container's mount namespace, as copies for another user namespace become slaves.
    pub(super) fn set_propagation(&self, tree: &OwnedFd) -> Result<()> {
        for &(propagation, recursive) in &self.options.propagation {
            let change = Attributes {
                propagation,
                ..Attributes::default()
            };
            mount::set_attributes(tree.as_fd(), recursive, change)
                .or_fail(|errno| self.error("set mount propagation").errno(errno))?;
        }
        Ok(())
    }
}

fn open_root(path: &Path) -> nix::Result<Rootfs> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    crate::sys::file::open(path, flags, Mode::empty()).map(Rootfs::new)
}

/// The word for what statfs(2) says of access times.
fn times(flags: u64) -> &'static str {
    match flags {
        _ if flags & libc::ST_NOATIME != 0 => "noatime",
        _ if flags & libc::ST_NODIRATIME != 0 => "nodiratime",
        _ if flags & mount::ST_RELATIME != 0 => "relatime",
        _ => "strictatime",
    }
}

/// The type of the filesystem that `path` is on, from mountinfo.
fn filesystem_of(path: &Path) -> Option<String> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let file = crate::sys::file::open(path, flags, Mode::empty()).ok()?;
    let id = mount::mount_id(file.as_fd(), c"").ok()?;
    let mounts = ::procfs::process::Process::myself()
        .ok()?
        .mountinfo()
        .ok()?;
    let found = mounts.0.into_iter().find(|mount| mount.mnt_id as u64 == id);
    found.map(|mount| mount.fs_type)
}
