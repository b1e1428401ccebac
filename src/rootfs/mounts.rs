//! The entries of `mounts`: checked first, sources opened next, attached last.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;
use nix::sys::stat::{SFlag, fstat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use oci_spec::runtime as oci;

use super::handle::{self, Rootfs, Target};
use super::label::Label;
use super::options::{self, Options};
use crate::bundle;
use crate::error::{Error, Result, Step};
use crate::sys::mount::{self, Attributes, Context};

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
    /// The detached mount, once its source has been opened.
    tree: Option<OwnedFd>,
}

#[derive(Debug)]
enum Kind {
    Bind {
        source: PathBuf,
        recursive: bool,
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
    pub cgroups: &'a Path,
    pub label: Option<&'a Label>,
    /// Propagation of bind mounts that don't ask for one.
    pub propagation: u64,
}

fn pointer(index: usize) -> String {
    format!("/mounts/{index}")
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
        if let Some(at) = words
            .iter()
            .position(|word| matches!(word.split('=').next(), Some("idmap" | "ridmap")))
        {
            return Err(Error::config(
                format!("{}/options/{at}", pointer(index)),
                "id-mapped mounts are not available in this version",
            ));
        }
        if let Some(word) = options.meaningless() {
            let at = words.iter().position(|other| other == word).unwrap_or(0);
            return Err(Error::config(
                format!("{}/options/{at}", pointer(index)),
                format!("`{word}` is no option of a bind mount"),
            )
            .maybe_hint(bundle::did_you_mean(
                word,
                options::known().iter().map(String::as_str),
            )));
        }
        for (given, field) in [
            (entry.uid_mappings().is_some(), "uidMappings"),
            (entry.gid_mappings().is_some(), "gidMappings"),
        ] {
            if given {
                return Err(Error::config(
                    format!("{}/{field}", pointer(index)),
                    "id-mapped mounts are not available in this version",
                ));
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
                recursive,
            }
        } else if filesystem == "cgroup" && !around.own_cgroup_namespace {
            // A new mount of it from the initial cgroup namespace would show the same, after waiting
            // some 10 ms for an RCU grace period.
            options.data.clear();
            Kind::Bind {
                source: around.cgroups.to_owned(),
                recursive: false,
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
        Ok(Mount {
            index,
            root_label,
            path: handle::clean(entry.destination()),
            destination: entry.destination().display().to_string(),
            options,
            kind,
            tree: None,
        })
    }

    /// Whether this entry puts the host's devices at /dev, so that husk makes none.
    pub fn replaces_dev(&self) -> bool {
        matches!(self.kind, Kind::Bind { .. }) && self.path == Path::new("dev")
    }

    /// Its source, while it is open and not yet attached.
    pub fn tree(&self) -> Option<BorrowedFd<'_>> {
        self.tree.as_ref().map(AsFd::as_fd)
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

    /// Opens the source of a bind mount as a detached mount with its flags. Runs where the host's
    /// files can be reached: in the runtime's mount namespace and with its privileges.
    pub fn open_source(&mut self) -> Result<()> {
        let Kind::Bind { source, recursive } = &self.kind else {
            return Ok(());
        };
        let tree = mount::clone_tree(mount::CWD, source, *recursive).or_fail(|errno| {
            let error = self
                .error("mount")
                .at(format!("{}/source", pointer(self.index)))
                .because("source")
                .errno(errno);
            match errno {
                Errno::ENOENT => error.hint(format!("create {} first", source.display())),
                _ => error,
            }
        })?;
        self.set_up(&tree)?;
        self.tree = Some(tree);
        Ok(())
    }

    /// Flags and propagation of a mount that nobody uses yet.
    fn set_up(&self, tree: &OwnedFd) -> Result<()> {
        let apply = |recursive, change: Attributes| match change.is_empty() {
            true => Ok(()),
            false => mount::set_attributes(tree.as_fd(), recursive, change)
                .or_fail(|errno| self.error("set mount flags").errno(errno)),
        };
        apply(true, self.options.recursive)?;
        apply(false, self.options.attributes)?;
        for &(propagation, recursive) in &self.options.propagation {
            let change = Attributes {
                propagation,
                ..Attributes::default()
            };
            apply(recursive, change)?;
        }
        Ok(())
    }

    /// Attaches the mount inside `root`. What comes back is to be made read-only once the container's
    /// devices are in it.
    pub fn attach(&mut self, root: &Rootfs) -> Result<Option<OwnedFd>> {
        match &self.kind {
            Kind::Bind { .. } => self.attach_bind(root).map(|()| None),
            Kind::Filesystem { .. } => self.attach_filesystem(root),
            Kind::Remount => self.change(root).map(|()| None),
        }
    }

    fn attach_bind(&mut self, root: &Rootfs) -> Result<()> {
        let Some(tree) = self.tree.take() else {
            return Err(self.error("mount").because("its source was not opened"));
        };
        let source = fstat(&tree).or_fail(|errno| self.error("mount").errno(errno))?;
        let kind = match handle::is_kind(&source, SFlag::S_IFDIR) {
            true => Target::Directory,
            false => Target::File,
        };
        let target = root
            .make_target(&self.path, kind)
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
            _ => mount::move_mount(tree.as_fd(), target.as_fd())
                .or_fail(|errno| self.error("mount").errno(errno)),
        }
    }

    fn attach_filesystem(&mut self, root: &Rootfs) -> Result<Option<OwnedFd>> {
        let Kind::Filesystem { name, source, data } = &self.kind else {
            return Ok(None);
        };
        let target = self.filesystem_target(root, name)?;
        let context = Context::open(name).or_fail(|errno| {
            let error = self.error("mount").errno(errno);
            match errno {
                Errno::ENODEV => {
                    error
                        .at(format!("{}/type", pointer(self.index)))
                        .because(format!(
                            "this kernel has no filesystem `{}`",
                            name.to_string_lossy()
                        ))
                }
                _ => error,
            }
        })?;
        // An empty source is what `none` means; the kernel refuses the empty string.
        if !source.is_empty() {
            self.configure(&context, c"source", Some(source))?;
        }
        for flag in &self.options.flags {
            self.configure(&context, &c_string(flag, self.index)?, None)?;
        }
        if name.as_c_str() == c"tmpfs" && !data.iter().any(|(key, _)| key.as_c_str() == c"mode") {
            // As the directory that it covers, and not the kernel's 1777.
            let covered = fstat(&target).or_fail(|errno| self.error("mount").errno(errno))?;
            let mode = format!("{:o}", covered.st_mode & 0o7777);
            self.configure(&context, c"mode", Some(&c_string(&mode, self.index)?))?;
        }
        for (key, value) in data {
            self.configure(&context, key, value.as_deref())?;
        }
        let mut attributes = self.options.attributes;
        let delayed = self.path == Path::new("dev")
            && attributes.set & libc::MOUNT_ATTR_RDONLY != 0
            || self.options.copy_up;
        if delayed {
            attributes.set &= !libc::MOUNT_ATTR_RDONLY;
        }
        let tree = context
            .mount(attributes.set)
            .map_err(|(errno, complaint)| self.refused(errno, complaint))?;
        if let Some(label) = &self.root_label {
            label
                .set_on_root(&tree)
                .or_fail(|errno| self.error("label").at("/linux/mountLabel").errno(errno))?;
        }
        if self.options.copy_up {
            super::copy_up::copy(&target, &tree)
                .or_fail(|errno| self.error("copy into tmpfs").errno(errno))?;
        }
        mount::move_mount(tree.as_fd(), target.as_fd())
            .or_fail(|errno| self.error("mount").errno(errno))?;
        for &(propagation, recursive) in &self.options.propagation {
            // A new filesystem is private unless what it is mounted in is shared, which it is not.
            if propagation != libc::MS_PRIVATE {
                let change = Attributes {
                    propagation,
                    ..Attributes::default()
                };
                mount::set_attributes(tree.as_fd(), recursive, change)
                    .or_fail(|errno| self.error("set mount propagation").errno(errno))?;
            }
        }
        let read_only = self.options.attributes.set & libc::MOUNT_ATTR_RDONLY != 0;
        Ok((delayed && read_only).then_some(tree))
    }

    fn configure(&self, context: &Context, key: &CStr, value: Option<&CStr>) -> Result<()> {
        let done = match value {
            Some(value) => context.set_string(key, value),
            None => context.set_flag(key),
        };
        done.or_fail(|errno| {
            let option = match value {
                Some(value) => format!("{}={}", key.to_string_lossy(), value.to_string_lossy()),
                None => key.to_string_lossy().into_owned(),
            };
            let said = context.complaint().map(|text| format!(": {text}"));
            self.error("mount")
                .at(format!("{}/options", pointer(self.index)))
                .because(format!("option `{option}`{}", said.unwrap_or_default()))
                .errno(errno)
        })
    }

    fn refused(&self, errno: Errno, complaint: Option<String>) -> Error {
        let error = self.error("mount").errno(errno);
        let error = match complaint {
            Some(text) => error.because(text),
            None => error,
        };
        let Kind::Filesystem { name, .. } = &self.kind else {
            return error;
        };
        match (errno, name.to_bytes()) {
            (Errno::EPERM, b"sysfs") => error.hint(
                "sysfs needs a network namespace that belongs to the container's user namespace",
            ),
            (Errno::EPERM, b"proc") => error.hint(
                "the host's /proc is partly hidden, or the pid namespace belongs to another user namespace",
            ),
            (Errno::EINVAL, b"devpts") => error.hint(
                "`gid=` and `uid=` must be mapped in the container's user namespace",
            ),
            _ => error,
        }
    }

    /// proc and sysfs go onto real directories only: a link in their place would send later writes
    /// elsewhere (CVE-2019-19921, CVE-2023-27561, CVE-2025-54867).
    fn filesystem_target(&self, root: &Rootfs, name: &CStr) -> Result<OwnedFd> {
        let target = match name.to_bytes() {
            b"proc" | b"sysfs" => {
                let plain = match root.lookup_plain(&self.path) {
                    Err(Errno::ENOENT) => root.make_directory(&self.path),
                    done => done,
                };
                let ordinary = || {
                    self.error("mount").because(format!(
                        "{} must be mounted on ordinary directory",
                        name.to_string_lossy()
                    ))
                };
                let target = plain.or_fail(|errno| ordinary().errno(errno))?;
                let stat = fstat(&target).or_fail(|errno| ordinary().errno(errno))?;
                if !handle::is_kind(&stat, SFlag::S_IFDIR) {
                    return Err(ordinary().errno(Errno::ENOTDIR));
                }
                target
            }
            _ => root
                .make_target(&self.path, Target::Directory)
                .or_fail(|errno| self.no_target(errno))?,
        };
        if name.to_bytes() != b"proc" {
            self.check_proc(&target, None)?;
        }
        Ok(target)
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
            Errno::ELOOP => error.hint(format!(
                "{} leads through a symbolic link that points nowhere",
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
        self.set_up(&target)
    }
}

impl Kind {
    fn filesystem(
        index: usize,
        name: &str,
        source: Option<&Path>,
        options: &mut Options,
    ) -> Result<Kind> {
        let name = match name {
            "" => {
                return Err(Error::config(
                    format!("{}/type", pointer(index)),
                    "a mount needs a type, or the option bind or rbind",
                )
                .hint("add \"bind\" to its options if it is meant to be a bind mount"));
            }
            "bind" => {
                return Err(Error::config(
                    format!("{}/options", pointer(index)),
                    "type `bind` without the option bind or rbind",
                )
                .hint("add \"bind\" or \"rbind\" to its options"));
            }
            "cgroup" => {
                options.data.clear();
                "cgroup2"
            }
            name => name,
        };
        if options.copy_up && name != "tmpfs" {
            return Err(Error::config(
                format!("{}/options", pointer(index)),
                format!("tmpcopyup is for tmpfs, not for {name}"),
            ));
        }
        let source = source.map(|path| path.to_string_lossy().into_owned());
        let data = options
            .data
            .iter()
            .flat_map(|word| split_lower_layers(name, word))
            .map(|(key, value)| {
                let value = value.map(|value| c_string(&value, index)).transpose()?;
                Ok((c_string(&key, index)?, value))
            })
            .collect::<Result<_>>()?;
        Ok(Kind::Filesystem {
            name: c_string(name, index)?,
            source: c_string(source.as_deref().unwrap_or_default(), index)?,
            data,
        })
    }
}

/// `key=value` in two; a list of overlay layers too long for one fsconfig(2) value becomes many
/// `lowerdir+` (Linux 6.5).
fn split_lower_layers(filesystem: &str, word: &str) -> Vec<(String, Option<String>)> {
    match word.split_once('=') {
        Some(("lowerdir", layers)) if filesystem == "overlay" && layers.len() > 255 => layers
            .split(':')
            .map(|layer| ("lowerdir+".to_owned(), Some(layer.to_owned())))
            .collect(),
        Some((key, value)) => vec![(key.to_owned(), Some(value.to_owned()))],
        None => vec![(word.to_owned(), None)],
    }
}
