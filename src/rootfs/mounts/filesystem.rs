//! Filesystems that are made new for a container: where they go, and how they are configured.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use nix::sys::stat::{SFlag, fstat};

use super::{Kind, Mount, c_string, pointer};
use crate::bundle::mount_word;
use crate::error::{Error, Result, Step};
use crate::rootfs::handle::{self, Rootfs};
use crate::rootfs::options::Options;
use crate::sys::mount::{self, Attributes, Context};

impl Mount {
    pub(super) fn attach_filesystem(&mut self, root: &Rootfs) -> Result<Option<OwnedFd>> {
        let Kind::Filesystem { name, .. } = &self.kind else {
            return Ok(None);
        };
        let is_kernels = is_kernels(name);
        let (target, made) = self.filesystem_target(root, name)?;
        let tree = match self.tree.take() {
            Some(tree) => tree,
            None => {
                let covered = (!made).then_some(&target);
                match (self.make_filesystem(covered), &self.instead) {
                    (Err(error), Some(instead))
                        if matches!(error.code(), Some(Errno::EPERM | Errno::EBUSY)) =>
                    {
                        instead.open(self.attributes().set).or_fail(|errno| {
                            self.error("mount").because("in its place").errno(errno)
                        })?
                    }
                    (made, _) => made?,
                }
            }
        };
        if self.options.copy_up {
            super::super::copy_up::copy(&target, &tree).or_fail(|errno| {
                let error = self.error("copy into tmpfs").errno(errno);
                match errno {
                    Errno::EOVERFLOW => error
                        .hint("the mapping of the mount lacks the owner of a file that it covers"),
                    _ => error,
                }
            })?;
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
        if is_kernels {
            self.attached = Some(tree);
            return Ok(None);
        }
        let read_only = self.attributes().set & libc::MOUNT_ATTR_RDONLY != 0;
        Ok((self.is_delayed() && read_only).then_some(tree))
    }

    /// What the flags ask for; nothing lies below a new filesystem, so `rro` is `ro` there.
    fn attributes(&self) -> Attributes {
        let (all, own) = (self.options.recursive, self.options.attributes);
        Attributes {
            set: all.set & !own.clear | own.set,
            ..Attributes::default()
        }
    }

    /// Whether it is to be written to before it is read-only.
    fn is_delayed(&self) -> bool {
        self.path == Path::new("dev") || self.options.copy_up
    }

    /// The filesystem as a detached mount. A tmpfs without a mode gets that of what it covers.
    pub(super) fn make_filesystem(&self, covered: Option<&OwnedFd>) -> Result<OwnedFd> {
        let Kind::Filesystem { name, source, data } = &self.kind else {
            return Err(self.error("mount").because("it is no filesystem"));
        };
        let context = Context::open(name).or_fail(|errno| match errno {
            Errno::ENODEV => self
                .error("mount")
                .errno(errno)
                .at(format!("{}/type", pointer(self.index)))
                .because(format!(
                    "this kernel has no filesystem `{}`",
                    name.to_string_lossy()
                )),
            _ => self.refused(errno, None),
        })?;
        // An empty source is what `none` means; the kernel refuses the empty string.
        if !source.is_empty() {
            self.configure(&context, c"source", Some(source))?;
        }
        for flag in &self.options.flags {
            self.configure(&context, &c_string(flag, self.index)?, None)?;
        }
        let has_mode = data.iter().any(|(key, _)| key.as_c_str() == c"mode");
        if let Some(covered) = covered
            && name.as_c_str() == c"tmpfs"
            && !has_mode
        {
            let stat = fstat(covered).or_fail(|errno| self.error("mount").errno(errno))?;
            let mode = format!("{:o}", stat.st_mode & 0o7777);
            self.configure(&context, c"mode", Some(&c_string(&mode, self.index)?))?;
        }
        for (key, value) in data {
            self.configure(&context, key, value.as_deref())?;
        }
        let mut attributes = self.attributes().set;
        if self.is_delayed() {
            attributes &= !libc::MOUNT_ATTR_RDONLY;
        }
        let tree = context
            .mount(attributes)
            .map_err(|(errno, complaint)| self.refused(errno, complaint))?;
        if let Some(label) = &self.root_label {
            label
                .set_on_root(&tree)
                .or_fail(|errno| self.error("label").at("/linux/mountLabel").errno(errno))?;
        }
        Ok(tree)
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
            let hint = mount_word(&option).map(|words| format!("{option}: {words}"));
            self.error("mount")
                .at(format!("{}/options", pointer(self.index)))
                .because(format!("option `{option}`{}", said.unwrap_or_default()))
                .errno(errno)
                .maybe_hint(hint)
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
            (Errno::EPERM, b"mqueue") => error.hint(
                "mqueue needs an ipc namespace that belongs to the container's user namespace",
            ),
            (Errno::ENOTBLK, _) => {
                error.hint("a file is mounted by a loop device: losetup --find --show FILE")
            }
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
    /// True if nothing was there before.
    fn filesystem_target(&self, root: &Rootfs, name: &CStr) -> Result<(OwnedFd, bool)> {
        let mut made = false;
        let target = match is_kernels(name) {
            true => {
                let plain = match root.make_plain_directory(&self.path) {
                    Err(errno @ (Errno::EACCES | Errno::EPERM | Errno::EROFS)) => {
                        return Err(self.no_target(errno));
                    }
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
            false => {
                let there = root.lookup(&self.path);
                made = matches!(there, Err(Errno::ENOENT));
                match there {
                    Err(Errno::ENOENT) => root.make_directory(&self.path),
                    there => there,
                }
                .or_fail(|errno| self.no_target(errno))?
            }
        };
        if name.to_bytes() != b"proc" {
            self.check_proc(&target, None)?;
        }
        Ok((target, made))
    }
}

/// Whether the kernel shows itself and the host in it.
fn is_kernels(filesystem: &CStr) -> bool {
    matches!(filesystem.to_bytes(), b"proc" | b"sysfs")
}

impl Kind {
    pub(super) fn filesystem(
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
