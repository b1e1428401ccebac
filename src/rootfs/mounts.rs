//! The entries of `mounts`: checked first, sources opened next, attached last.

mod filesystem;
mod source;

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::{SFlag, fstat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use oci_spec::runtime as oci;

use super::alias::{self, Place};
use super::fallback::Instead;
use super::handle::{self, Rootfs, Target};
use super::idmap::{Idmap, MapIds, Mapping, Maps};
use super::label::Label;
use super::options::{Consequence, Options};
use crate::error::{Error, Result, Step};
use crate::log;
use crate::sys::mount;

/// Files of procfs that may be mounted over: what lxcfs and FIPS set-ups replace. Everything else
/// there is husk's and the kernel's word about the container (CVE-2019-16884).
const PROC_TARGETS: &[&str] = &[
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
];

/// Whether a mount may lie on this file of procfs.
pub fn is_replaceable_proc_file(plain: &Path) -> bool {
    PROC_TARGETS
        .iter()
        .any(|allowed| plain == Path::new(allowed))
}

/// One mount, checked.
#[derive(Debug)]
pub struct Mount {
    index: usize,
    /// Relative to the root, without what [`handle::clean`] takes away.
    path: PathBuf,
    /// As written, for messages.
    destination: String,
    options: Options,
    kind: Kind,
    root_label: Option<Label>,
    idmap: Option<Idmap>,
    /// Flags of sources are locked as in [`Surroundings::confined`].
    confined: bool,
    /// What does where the kernel doesn't let a user namespace have the filesystem itself.
    instead: Option<Instead>,
    /// The detached mount, once its source has been opened.
    tree: Option<OwnedFd>,
    /// Where the mapping comes from, for a source that is opened late.
    donor: Option<OwnedFd>,
    /// What was attached, if the kernel speaks through it.
    attached: Option<OwnedFd>,
}

/// When the source of a bind mount is opened, and by whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opened {
    /// By husk, before there is a container.
    Before,
    /// By init when its turn comes, in its copy of husk's mount namespace: the kernel lists mounts in the
    /// order in which they were made (since Linux 6.8), not in that in which they were attached.
    InTurn,
    /// Likewise, but below the container's root: it is what entries before this one have mounted.
    Inside,
}

#[derive(Debug)]
enum Kind {
    Bind {
        source: PathBuf,
        /// The same from the container's root on, if it lies below that: its links are the image's, and lead
        /// where they would lead inside.
        below: Option<PathBuf>,
        recursive: bool,
        opened: Opened,
    },
    Filesystem {
        name: CString,
        source: CString,
        data: Vec<(CString, Option<CString>)>,
    },
    /// Changes the mount that is already there.
    Remount,
}

/// What surrounds the mounts.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// What relative sources are relative to.
    pub bundle: &'a Path,
    /// Whether the container gets a cgroup namespace of its own.
    pub own_cgroup_namespace: bool,
    /// Where the cgroup2 tree is mounted on the host.
    pub label: Option<&'a Label>,
    /// The root filesystem as the host sees it.
    pub root: &'a Path,
    pub cgroups: Option<&'a Path>,
    /// Where the container's own cgroup will be.
    pub own_cgroup: Option<&'a Path>,
    /// Whether there is a user namespace, in which flags that a source has outside are locked.
    pub confined: bool,
    /// Propagation of bind mounts that don't ask for one.
    pub propagation: u64,
}

/// What is at this path of the container. In a procfs or sysfs that was attached it is found from the descriptor
/// on: the directory below it can be renamed meanwhile by who shares it, and the mount goes along.
pub fn lookup(mounts: &[Mount], root: &Rootfs, path: &Path) -> nix::Result<OwnedFd> {
    let plain = handle::clean(&handle::lexical(path));
    for (index, mount) in mounts.iter().enumerate().rev() {
        let Some(attached) = &mount.attached else {
            continue;
        };
        let Some(below) = handle::below(&plain, &mount.path) else {
            continue;
        };
        let covers = |later: &Mount| {
            !later.is_remount() && handle::below(&mount.path, &later.path).is_some()
        };
        match mounts[index + 1..].iter().any(covers) {
            true => break,
            false => return handle::lookup_below(attached.as_fd(), below),
        }
    }
    root.lookup(path)
}

fn pointer(index: usize) -> String {
    format!("/mounts/{index}")
}

/// Mappings mean an id-mapped mount even where the option that should be there isn't.
fn idmap_of(entry: &oci::Mount, options: &Options) -> Option<Idmap> {
    let uids = entry.uid_mappings().as_deref().unwrap_or_default();
    let gids = entry.gid_mappings().as_deref().unwrap_or_default();
    let own = (!uids.is_empty()).then(|| Maps::new(uids, gids));
    match (options.idmap, own) {
        (None, None) => None,
        (recursive, own) => Some(Idmap {
            own,
            recursive: recursive.unwrap_or(false),
        }),
    }
}

fn c_string(text: &str, index: usize) -> Result<CString> {
    CString::new(text).map_err(|_| Error::config(pointer(index), "a NUL character inside"))
}

impl Mount {
    /// # Errors
    /// For an entry that can't be meant as it stands; nothing is touched yet.
    pub fn plan(index: usize, entry: &oci::Mount, around: Surroundings) -> Result<Mount> {
        let words = entry.options().as_deref().unwrap_or_default();
        let mut options = Options::parse(words.iter().map(String::as_str));
        if let Some(mistake) = options.mistake(words) {
            let at = format!("{}/options/{}", pointer(index), mistake.at);
            let error = Error::config(at, mistake.message);
            match mistake.consequence {
                // All in one line: a warning is nothing but that.
                Consequence::Ignored(hint) => {
                    log::warning(format_args!("{error} and is ignored; {hint}"));
                }
                Consequence::Refused(hint) => return Err(error.maybe_hint(hint)),
            }
        }
        if handle::has_nul(entry.destination()) {
            return Err(Error::config(
                format!("{}/destination", pointer(index)),
                "a NUL character inside",
            ));
        }
        let source = entry.source().as_deref();
        let filesystem = entry.typ().as_deref().unwrap_or_default();
        let mut kind = if options.remount {
            Kind::Remount
        } else if let Some(recursive) = options.bind {
            let source = source
                .filter(|path| !path.as_os_str().is_empty())
                .ok_or_else(|| {
                    Error::config(
                        format!("{}/source", pointer(index)),
                        "a bind mount needs a source",
                    )
                })?;
            Kind::Bind {
                source: around.bundle.join(source),
                below: None,
                recursive,
                opened: Opened::Before,
            }
        } else if let ("cgroup", false, Some(tree)) =
            (filesystem, around.own_cgroup_namespace, around.cgroups)
        {
            // A new mount of it from the initial cgroup namespace would show the same, after waiting
            // some 10 ms for an RCU grace period.
            options.data.clear();
            Kind::Bind {
                source: tree.to_owned(),
                below: None,
                recursive: false,
                opened: Opened::Before,
            }
        } else {
            Kind::filesystem(index, filesystem, source, &mut options)?
        };
        if matches!(kind, Kind::Bind { .. }) && options.propagation.is_empty() {
            options.propagation.push((around.propagation, true));
        }
        let mut root_label = None;
        if let (Some(label), Kind::Filesystem { name, data, .. }) = (around.label, &mut kind) {
            label.add_to(name, data);
            root_label = label.is_set_on_root(name).then(|| label.clone());
        }
        let idmap = idmap_of(entry, &options);
        if let (Some(_), Kind::Remount) = (&idmap, &kind) {
            return Err(Error::config(
                pointer(index),
                "a remount can't map ids: only a mount that nobody uses yet takes a mapping",
            ));
        }
        // Some callers give destinations as the host sees them.
        let destination = entry.destination();
        let inside = destination.strip_prefix(around.root);
        Ok(Mount {
            index,
            root_label,
            path: handle::clean(inside.unwrap_or(destination)),
            destination: destination.display().to_string(),
            instead: match filesystem {
                // The host's root is refused nothing: what fails for him is an error.
                _ if !around.confined => None,
                "cgroup" | "cgroup2" => {
                    Some(Instead::Cgroup(around.own_cgroup.map(Path::to_owned)))
                }
                "sysfs" => Some(Instead::Sysfs),
                _ => None,
            },
            options,
            kind,
            idmap,
            confined: around.confined,
            tree: None,
            donor: None,
            attached: None,
        })
    }

    /// Decides when the source is opened, knowing what is mounted `before` and where the container's `root`
    /// is; `place` says where a path leads that isn't below it by its letters. `by_init` says whether init can
    /// open what husk can.
    pub fn choose_turn(
        &mut self,
        before: &[Mount],
        root: &Path,
        place: impl FnOnce(&Path) -> Place,
        by_init: bool,
    ) {
        let Kind::Bind {
            source,
            below: found_below,
            recursive,
            opened,
        } = &mut self.kind
        else {
            return;
        };
        let named = source.strip_prefix(root).ok();
        let below = match named.filter(|below| alias::stays_below(below)) {
            Some(below) => handle::clean(below),
            None => match place(source) {
                Place::Below(below) => below,
                // All below would include the container's root, which is mounted by then.
                Place::Above if *recursive => return,
                elsewhere => {
                    if let Place::Around(path) = elsewhere {
                        *source = path;
                    }
                    if by_init {
                        *opened = Opened::InTurn;
                    }
                    return;
                }
            },
        };
        let plain = handle::clean(&handle::lexical(&below));
        if !before
            .iter()
            .any(|mount| plain.starts_with(&mount.path) || mount.path.starts_with(&plain))
        {
            *found_below = Some(below);
            return;
        }
        *source = below;
        *opened = Opened::Inside;
    }

    /// Whether this entry puts the host's devices at /dev, so that husk makes none.
    pub fn replaces_dev(&self) -> bool {
        matches!(self.kind, Kind::Bind { .. }) && self.path == Path::new("dev")
    }

    /// Where it lies, relative to the root.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn is_bind(&self) -> bool {
        matches!(self.kind, Kind::Bind { .. })
    }

    pub fn is_remount(&self) -> bool {
        matches!(self.kind, Kind::Remount)
    }

    /// What it shows of the host.
    pub fn outside(&self) -> Option<&Path> {
        match &self.kind {
            Kind::Bind { source, opened, .. } if *opened != Opened::Inside => Some(source),
            _ => None,
        }
    }

    /// Whether the ids of its files are mapped, and which entry it is.
    pub fn mapped(&self) -> Option<String> {
        self.idmap.as_ref().map(|_| pointer(self.index))
    }

    /// What is to be attached, if it is open already.
    pub fn tree(&self) -> Option<&OwnedFd> {
        self.tree.as_ref()
    }

    pub fn replace_tree(&mut self, tree: OwnedFd) {
        self.tree = Some(tree);
    }

    /// Where husk is to take the mapping from when init, in a user namespace, opens the source.
    pub fn take_mapping(&mut self) -> Option<Mapping> {
        Some(Mapping {
            entry: self.index,
            recursive: self.idmap.as_ref()?.recursive,
            namespace: self.donor.take()?,
        })
    }

    /// What it has open until it is attached.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.tree.iter().chain(&self.donor).map(AsFd::as_fd)
    }

    /// Mapping ids takes privileges over the filesystem, which init in a user namespace hasn't.
    pub fn require_no_mapping(&self) -> Result<()> {
        match &self.idmap {
            None => Ok(()),
            Some(_) => Err(Error::config(
                format!("{}/uidMappings", pointer(self.index)),
                "id-mapped mounts need root's privileges",
            )),
        }
    }

    fn error(&self, step: &'static str) -> Error {
        let object = match &self.kind {
            Kind::Bind { source, .. } => format!("{} <- {}", self.destination, source.display()),
            Kind::Filesystem { name, .. } => {
                format!("{} <- {}", self.destination, name.to_string_lossy())
            }
            Kind::Remount => self.destination.clone(),
        };
        Error::new(step).on(object).at(pointer(self.index))
    }

    /// Attaches the mount inside `root`; `map_ids` does what takes husk's privileges. What comes back is to be made read-only once the container's
    /// devices are in it.
    pub fn attach(&mut self, root: &Rootfs, map_ids: MapIds) -> Result<Option<OwnedFd>> {
        match &self.kind {
            Kind::Bind { .. } => self.attach_bind(root, map_ids).map(|()| None),
            Kind::Filesystem { .. } => self.attach_filesystem(root),
            Kind::Remount => self.change(root).map(|()| None),
        }
    }

    fn attach_bind(&mut self, root: &Rootfs, map_ids: MapIds) -> Result<()> {
        let tree = match self.tree.take() {
            Some(tree) => tree,
            None => self.open_in_turn(root, map_ids)?,
        };
        let source = fstat(&tree).or_fail(|errno| self.error("mount").errno(errno))?;
        let kind = match handle::is_kind(&source, SFlag::S_IFDIR) {
            true => Target::Directory,
            false => Target::File,
        };
        // As for the filesystems themselves.
        let is_plain = ["/proc", "/sys"]
            .map(Path::new)
            .contains(&handle::lexical(&self.path).as_path());
        let target = match is_plain {
            true => root.make_plain_directory(&self.path),
            false => root.make_target(&self.path, kind),
        }
        .or_fail(|errno| self.no_target(errno))?;
        self.check_proc(&target, Some(&tree))?;
        let there = fstat(&target).or_fail(|errno| self.error("mount").errno(errno))?;
        // The kernel would only say that something is invalid.
        match (kind, handle::is_kind(&there, SFlag::S_IFDIR)) {
            (Target::Directory, false) => Err(self
                .error("mount")
                .errno(Errno::ENOTDIR)
                .hint("the source is a directory, the destination is not")),
            (Target::File, true) => Err(self
                .error("mount")
                .errno(Errno::ENOTDIR)
                .hint("the destination is a directory, the source is not")),
            _ => {
                self.set_propagation(&tree)?;
                mount::move_mount(tree.as_fd(), target.as_fd())
                    .or_fail(|errno| self.error("mount").errno(errno))?;
                self.attached = is_plain.then_some(tree);
                Ok(())
            }
        }
    }

    fn no_target(&self, errno: Errno) -> Error {
        let error = self
            .error("mount")
            .at(format!("{}/destination", pointer(self.index)))
            .because("mount point")
            .errno(errno);
        match errno {
            Errno::EROFS => error.hint(format!(
                "create {} in the root filesystem: what is there is read-only",
                self.destination
            )),
            Errno::EACCES | Errno::EPERM if self.confined => error.hint(format!(
                "create {} in the root filesystem: the container's root may not, as its directory \
                 is not its own",
                self.destination
            )),
            Errno::ELOOP => error.hint(format!(
                "{} leads through symbolic links in a circle, or too many of them",
                self.destination
            )),
            _ => error,
        }
    }

    /// Nothing may be mounted over files of procfs but what [`PROC_TARGETS`] lists, and on /proc itself
    /// only a procfs.
    fn check_proc(&self, target: &OwnedFd, tree: Option<&OwnedFd>) -> Result<()> {
        let plain = handle::lexical(&self.path);
        if is_replaceable_proc_file(&plain) {
            return Ok(());
        }
        let is_proc = |fd: &OwnedFd| -> Result<bool> {
            let kind = fstatfs(fd).or_fail(|errno| self.error("mount").errno(errno))?;
            Ok(kind.filesystem_type() == PROC_SUPER_MAGIC)
        };
        if plain == Path::new("/proc") {
            match tree {
                Some(tree) if is_proc(tree)? => return Ok(()),
                _ => {}
            }
        } else if !plain.starts_with("/proc") && !is_proc(target)? {
            return Ok(());
        }
        Err(self
            .error("mount")
            .at(format!("{}/destination", pointer(self.index)))
            .because("mounts inside /proc are refused: they would hide the kernel's answers"))
    }

    fn change(&self, root: &Rootfs) -> Result<()> {
        let target = root
            .lookup(&self.path)
            .or_fail(|errno| self.no_target(errno))?;
        if self.options.bind.is_none() && !self.options.data.is_empty() {
            return Err(self
                .error("remount")
                .at(format!("{}/options", pointer(self.index)))
                .because("options of the filesystem itself can't be changed by a remount"));
        }
        self.set_flags(&target)?;
        self.set_propagation(&target)
    }
}
