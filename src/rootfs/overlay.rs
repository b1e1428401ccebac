//! An overlay as the root filesystem: layers below, and on top a tmpfs that forgets or a directory
//! that keeps.
//!
//! It lives in the container's own mount namespace: when the last process is gone so is the mount,
//! and there is nothing to undo.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::{Mode, fchmod, fstat, mkdirat};
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, fstatfs};
use nix::unistd::{Gid, Uid, fchown};

use super::label::Label;
use crate::error::{Error, Result, Step};
use crate::files;
use crate::sys::file::{open, openat};
use crate::sys::mount::{self, Context};

/// `OVL_MAX_STACK` of the kernel (fs/overlayfs/params.h).
const LAYERS: usize = 500;
/// The longest value that fsconfig(2) takes, without its NUL.
const VALUE: usize = 255;

/// Annotations that ask for an overlay, as `--lower` and `--overlay` do.
pub const LOWER: &str = "run.husk.overlay.lower";
pub const UPPER: &str = "run.husk.overlay.upper";

const DIRECTORY: OFlag = OFlag::O_PATH
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_CLOEXEC);

/// Where changes go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upper {
    /// Memory, charged to the container, gone with it. `size` as tmpfs(5) takes it.
    Tmpfs { size: Option<String> },
    /// A directory, made when missing, with `<name>.work` beside it.
    Directory(PathBuf),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    /// Topmost first; the bundle's root filesystem comes last.
    lower: Vec<PathBuf>,
    upper: Upper,
    /// Where it was asked for: a JSON pointer or an option of the command line.
    origin: String,
}

impl Upper {
    /// `tmpfs`, `tmpfs:size=N`, or a directory. Relative ones are below `base`.
    pub fn parse(text: &str, base: &Path, origin: &str) -> Result<Upper> {
        let bad = |reason: String| Error::new("overlay").at(origin).because(reason);
        match text.strip_prefix("tmpfs") {
            Some("") => Ok(Upper::Tmpfs { size: None }),
            Some(options) if options.starts_with(':') => match options[1..].split_once('=') {
                Some(("size", size)) if is_size(size) => Ok(Upper::Tmpfs {
                    size: Some(size.to_owned()),
                }),
                _ => Err(bad(format!(
                    "`{}` is no option of an upper tmpfs",
                    &options[1..]
                ))
                .hint("write tmpfs:size=64m")),
            },
            _ if text.is_empty() => Err(bad("the upper layer has no name".into())
                .hint("write tmpfs, tmpfs:size=64m or a directory")),
            _ if text.contains('\0') => Err(bad("a NUL character inside".into())),
            _ => Ok(Upper::Directory(base.join(text))),
        }
    }
}

/// The writable side of an overlay, open.
struct Writable {
    upper: OwnedFd,
    work: OwnedFd,
    /// What both are on, if husk mounted it.
    tmpfs: Option<OwnedFd>,
}

/// A number with k, m, g or % behind it.
fn is_size(text: &str) -> bool {
    let digits = text.trim_end_matches(['k', 'K', 'm', 'M', 'g', 'G', '%']);
    !digits.is_empty()
        && text.len() - digits.len() <= 1
        && digits.bytes().all(|byte| byte.is_ascii_digit())
}

impl Overlay {
    /// `lower` as the user gave them, topmost first, relative to `base`.
    pub fn plan(
        upper: Upper,
        lower: impl IntoIterator<Item = PathBuf>,
        rootfs: &Path,
        base: &Path,
        origin: &str,
    ) -> Result<Overlay> {
        let mut lower: Vec<PathBuf> = lower.into_iter().map(|path| base.join(path)).collect();
        lower.push(rootfs.to_owned());
        let bad = |reason: String| Error::new("overlay").at(origin).because(reason);
        if lower.len() > LAYERS {
            return Err(bad(format!(
                "{} layers, but the kernel takes at most {LAYERS} with the bundle's own",
                lower.len()
            )));
        }
        if lower.iter().any(|path| super::handle::has_nul(path)) {
            return Err(bad("a NUL character inside".into()));
        }
        Ok(Overlay {
            lower,
            upper,
            origin: origin.to_owned(),
        })
    }

    fn error(&self, step: &'static str, object: &Path) -> Error {
        Error::new(step).on(object.display()).at(&self.origin)
    }

    /// What must be there is there; nothing is made yet.
    pub fn check(&self) -> Result<()> {
        for layer in &self.lower {
            match std::fs::metadata(layer) {
                Ok(stat) if stat.is_dir() => {}
                Ok(_) => {
                    return Err(self.error("open lower layer", layer).errno(Errno::ENOTDIR));
                }
                failed => {
                    failed.or_fail(|errno| self.error("open lower layer", layer).errno(errno))?;
                }
            }
        }
        Ok(())
    }

    /// The directories on the host that this overlay will make, for the record and for undoing.
    pub fn missing(&self) -> Vec<PathBuf> {
        match &self.upper {
            Upper::Tmpfs { .. } => Vec::new(),
            Upper::Directory(upper) => [upper.clone(), work_beside(upper)]
                .into_iter()
                .filter(|path| std::fs::symlink_metadata(path).is_err())
                .collect(),
        }
    }

    /// A detached mount of it. In the container's mount namespace, still with the host's tree.
    pub fn mount(&self, user_namespace: bool, label: Option<&Label>) -> Result<OwnedFd> {
        let context = Context::open(c"overlay").or_fail(|errno| {
            Error::new("mount overlay")
                .at(&self.origin)
                .errno(errno)
                .hint("the kernel module `overlay` is missing: try modprobe overlay")
        })?;
        let fail = |object: &Path, errno, complaint: Option<String>| {
            let error = self.error("mount overlay", object).errno(errno);
            match complaint {
                Some(text) => error.because(text),
                None => error,
            }
        };
        let set = |key: &CStr, value: &str, object: &Path| {
            let value = CString::new(value).unwrap_or_default();
            context
                .set_string(key, &value)
                .or_fail(|errno| fail(object, errno, context.complaint()))
        };
        let whole = Path::new("/");
        set(c"source", "overlay", whole)?;
        if user_namespace {
            context
                .set_flag(c"userxattr")
                .or_fail(|errno| fail(whole, errno, context.complaint()))?;
        }
        if let Some(label) = label {
            label
                .configure(&context)
                .or_fail(|errno| fail(whole, errno, context.complaint()))?;
        }
        let lower = self.add_lower(&set)?;
        // Open until the superblock exists: the names given lead through the descriptors.
        let layers = self.open_upper(user_namespace)?;
        let object = match &self.upper {
            Upper::Tmpfs { .. } => Path::new("tmpfs"),
            Upper::Directory(path) => path,
        };
        set(c"upperdir", &by_descriptor(&layers.upper), object)?;
        set(c"workdir", &by_descriptor(&layers.work), object)?;
        let mounted = context.mount(0).map_err(|(errno, complaint)| {
            let error = fail(object, errno, complaint);
            match errno {
                Errno::EBUSY => error.hint("another container uses this upper directory"),
                Errno::EINVAL if lower.len() > 14 => {
                    error.hint("more than 14 layers need Linux 6.8 or newer")
                }
                _ => error,
            }
        })?;
        if let Some(tmpfs) = &layers.tmpfs {
            // The overlay has its own reference. On top of the host's root the tmpfs would be what is
            // unmounted when the container has pivoted, and the host's root would stay.
            umount2(by_descriptor(tmpfs).as_str(), MntFlags::MNT_DETACH)
                .or_fail(|errno| fail(object, errno, None))?;
        }
        Ok(mounted)
    }

    /// Names the lower layers; they are to be kept open until the superblock exists. What fits into
    /// one value is given as one, which every kernel takes; more need `lowerdir+` (Linux 6.8).
    fn add_lower(&self, set: &impl Fn(&CStr, &str, &Path) -> Result<()>) -> Result<Vec<OwnedFd>> {
        let mut layers = Vec::with_capacity(self.lower.len());
        for path in &self.lower {
            let layer = open(path, DIRECTORY, Mode::empty())
                .or_fail(|errno| self.error("open lower layer", path).errno(errno))?;
            layers.push(layer);
        }
        let names: Vec<String> = layers.iter().map(by_descriptor).collect();
        let list = names.join(":");
        if list.len() <= VALUE {
            set(
                c"lowerdir",
                &list,
                self.lower.first().map_or(Path::new("/"), PathBuf::as_path),
            )?;
        } else {
            for (name, path) in names.iter().zip(&self.lower) {
                set(c"lowerdir+", name, path)?;
            }
        }
        Ok(layers)
    }

    /// The upper and the work directory.
    fn open_upper(&self, user_namespace: bool) -> Result<Writable> {
        match &self.upper {
            Upper::Tmpfs { size } => {
                let object = Path::new("tmpfs");
                self.tmpfs(size.as_deref())
                    .and_then(|tmpfs| {
                        let make = |name| {
                            mkdirat(&tmpfs, name, Mode::from_bits_retain(0o755))?;
                            openat(&tmpfs, name, DIRECTORY, Mode::empty())
                        };
                        let upper = make("upper")?;
                        self.copy_owner(&upper)?;
                        let work = make("work")?;
                        Ok(Writable {
                            upper,
                            work,
                            tmpfs: Some(tmpfs),
                        })
                    })
                    .or_fail(|errno| self.error("make upper layer", object).errno(errno))
            }
            Upper::Directory(path) => {
                let upper = self.open_directory(path, true)?;
                self.check_directory(path, &upper, user_namespace)?;
                Ok(Writable {
                    upper,
                    work: self.open_directory(&work_beside(path), false)?,
                    tmpfs: None,
                })
            }
        }
    }

    /// Overlayfs takes layers of its own mount namespace only: so the tmpfs is attached for a moment,
    /// behind the process's root.
    fn tmpfs(&self, size: Option<&str>) -> nix::Result<OwnedFd> {
        let context = Context::open(c"tmpfs")?;
        context.set_string(c"source", c"husk-upper")?;
        context.set_string(c"mode", c"755")?;
        if let Some(size) = size {
            let size = CString::new(size).map_err(|_| Errno::EINVAL)?;
            context.set_string(c"size", &size)?;
        }
        let tmpfs = context
            .mount(libc::MOUNT_ATTR_NODEV)
            .map_err(|(errno, _)| errno)?;
        mount::move_mount(tmpfs.as_fd(), open("/", DIRECTORY, Mode::empty())?.as_fd())?;
        Ok(tmpfs)
    }

    /// The merged root has the upper directory's owner and mode: they should be those of the topmost
    /// layer, as if there were no overlay.
    fn copy_owner(&self, upper: &OwnedFd) -> nix::Result<()> {
        let Some(top) = self.lower.first() else {
            return Ok(());
        };
        let top = fstat(open(top, DIRECTORY, Mode::empty())?)?;
        let upper = openat(
            upper,
            ".",
            OFlag::O_RDONLY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )?;
        let owner = (Uid::from_raw(top.st_uid), Gid::from_raw(top.st_gid));
        fchown(&upper, Some(owner.0), Some(owner.1))?;
        fchmod(&upper, Mode::from_bits_truncate(top.st_mode & 0o7777))
    }

    fn open_directory(&self, path: &Path, shown: bool) -> Result<OwnedFd> {
        let fail = |errno| {
            let error = self.error("open upper layer", path).errno(errno);
            match errno {
                Errno::ENOENT => error.hint("the directory that it is in must exist"),
                _ => error,
            }
        };
        match open(path, DIRECTORY, Mode::empty()) {
            Err(Errno::ENOENT) => {
                files::make_directory(path, 0o755).or_fail(fail)?;
                let made = open(path, DIRECTORY, Mode::empty()).or_fail(fail)?;
                if shown {
                    self.copy_owner(&made).or_fail(fail)?;
                }
                Ok(made)
            }
            done => done.or_fail(fail),
        }
    }

    /// The kernel would take some of these and fail later, in the container (EIO on a rename).
    fn check_directory(&self, path: &Path, upper: &OwnedFd, user_namespace: bool) -> Result<()> {
        let fail = |errno| self.error("use as upper layer", path).errno(errno);
        let kind = fstatfs(upper).or_fail(fail)?.filesystem_type();
        if kind == OVERLAYFS_SUPER_MAGIC {
            return Err(self
                .error("use as upper layer", path)
                .because("it is on an overlay itself, which can't carry one")
                .hint("use a directory of another filesystem, or --overlay=tmpfs"));
        }
        let attribute = match user_namespace {
            true => c"user.overlay.husk",
            false => c"trusted.overlay.husk",
        };
        crate::sys::fd::probe_xattr(&by_descriptor(upper), attribute).or_fail(|errno| {
            fail(errno)
                .because("its filesystem keeps no extended attributes")
                .hint("use a directory of another filesystem, or --overlay=tmpfs")
        })
    }
}

/// A name for what is open, short and independent of where it lies.
fn by_descriptor(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn work_beside(upper: &Path) -> PathBuf {
    let mut name = upper.file_name().unwrap_or_default().to_owned();
    name.push(".work");
    upper.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Upper> {
        Upper::parse(text, Path::new("/b"), "--overlay")
    }

    #[test]
    fn uppers_are_parsed() {
        let tmpfs = |size: Option<&str>| Upper::Tmpfs {
            size: size.map(str::to_owned),
        };
        assert_eq!(parse("tmpfs").unwrap(), tmpfs(None));
        assert_eq!(parse("tmpfs:size=64m").unwrap(), tmpfs(Some("64m")));
        assert_eq!(parse("tmpfs:size=50%").unwrap(), tmpfs(Some("50%")));
        assert_eq!(parse("up").unwrap(), Upper::Directory("/b/up".into()));
        assert_eq!(parse("/up").unwrap(), Upper::Directory("/up".into()));
        // A directory may be called so.
        assert_eq!(
            parse("tmpfs-upper").unwrap(),
            Upper::Directory("/b/tmpfs-upper".into())
        );
        for bad in [
            "",
            "tmpfs:",
            "tmpfs:size=",
            "tmpfs:size=1x",
            "tmpfs:mode=7",
            "tmpfs:size=1mm",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_bundles_root_is_the_lowest_layer() {
        let overlay = Overlay::plan(
            Upper::Tmpfs { size: None },
            ["top".into(), "/abs".into()],
            Path::new("/b/rootfs"),
            Path::new("/b"),
            "--lower",
        )
        .unwrap();
        let expected: [PathBuf; 3] = ["/b/top".into(), "/abs".into(), "/b/rootfs".into()];
        assert_eq!(overlay.lower, expected);
    }

    #[test]
    fn too_many_layers_are_refused_before_the_kernel_does() {
        let many = (0..LAYERS).map(|n| PathBuf::from(format!("/l{n}")));
        let planned = Overlay::plan(
            Upper::Tmpfs { size: None },
            many,
            Path::new("/r"),
            Path::new("/"),
            "--lower",
        );
        assert!(planned.unwrap_err().to_string().contains("501 layers"));
    }

    #[test]
    fn the_work_directory_is_beside_and_of_its_own() {
        assert_eq!(work_beside(Path::new("/x/up")), Path::new("/x/up.work"));
    }
}
