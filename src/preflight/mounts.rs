//! The root file system, its layers, and what is mounted over them.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::sys::statvfs::{FsFlags, fstatvfs};
use oci_spec::runtime::{LinuxNamespaceType, Mount};

use super::view::{self, Content, Lost, View};
use super::with_phrase;
use crate::bundle::{Bundle, Finding, did_you_mean, nearest};
use crate::rootfs::lexical;
use crate::rootfs::options::{self, Options};
use crate::rootfs::overlay::{LOWER, UPPER};
use crate::sys::file::open;
use crate::sys::mount::Context;

/// Filesystems whose files are the kernel's own.
const OPAQUE: &[&str] = &[
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "debugfs",
    "devpts",
    "devtmpfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "proc",
    "pstore",
    "securityfs",
    "sysfs",
    "tracefs",
];

/// `None` where there is no root to look into.
pub fn look(bundle: &Bundle, findings: &mut Vec<Finding>) -> Option<View> {
    let mut view = root(bundle, findings)?;
    for (index, mount) in bundle.spec.mounts().iter().flatten().enumerate() {
        one(bundle, index, mount, &mut view, findings);
    }
    Some(view)
}

fn root(bundle: &Bundle, findings: &mut Vec<Finding>) -> Option<View> {
    const POINTER: &str = "/root/path";
    let root = bundle.spec.root().as_ref()?;
    let path = bundle.dir.join(root.path());
    let mut layers = lower_layers(bundle, findings);
    match view::layer(&path) {
        Ok(layer) => layers.push(layer),
        Err(errno) => {
            let message = with_phrase(format!("root filesystem {}", path.display()), errno);
            let finding = Finding::error(POINTER, message);
            findings.push(match errno {
                Errno::ENOENT => finding.hint(beside(&path)),
                Errno::ENOTDIR => finding.hint(
                    "unpack the image into a directory: husk takes no archives or disk images",
                ),
                _ => finding,
            });
            return None;
        }
    }
    let is_empty = std::fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_none());
    if is_empty && layers.len() == 1 && bundle.spec.process().is_some() {
        let message = format!("the root filesystem {} is empty", path.display());
        findings.push(
            Finding::warning(POINTER, message).hint("was the image unpacked somewhere else?"),
        );
    }
    Some(View::new(layers))
}

/// What else could have been meant by a path that isn't there.
fn beside(path: &Path) -> String {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or("");
    let parent = path.parent().unwrap_or(Path::new("/"));
    let names: Vec<String> = std::fs::read_dir(parent)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .take(4096)
        .collect();
    match nearest(name, names.iter().map(String::as_str)) {
        Some(other) => format!("did you mean {}?", parent.join(other).display()),
        None => match std::fs::symlink_metadata(parent) {
            Ok(_) => format!("create {}, or correct the path", path.display()),
            Err(_) => format!("{} isn't there either", parent.display()),
        },
    }
}

/// Layers that annotations put over the root, the topmost first.
fn lower_layers(bundle: &Bundle, findings: &mut Vec<Finding>) -> Vec<crate::rootfs::Rootfs> {
    let annotations = bundle.spec.annotations().as_ref();
    let get = |key: &str| annotations.and_then(|annotations| annotations.get(key));
    let at = |key: &str| format!("/annotations/{key}");
    if let Some(upper) = get(UPPER).filter(|upper| !upper.starts_with("tmpfs")) {
        let path = bundle.dir.join(upper);
        if let Some(parent) = path.parent()
            && !parent.is_dir()
        {
            let message = with_phrase(format!("upper layer {}", path.display()), Errno::ENOENT);
            let hint = format!(
                "husk makes the last directory only: create {}",
                parent.display()
            );
            findings.push(Finding::error(at(UPPER), message).hint(hint));
        }
    }
    let wanted = get(LOWER).map(String::as_str).unwrap_or_default();
    let mut layers = Vec::new();
    for path in wanted.split(':').filter(|path| !path.is_empty()) {
        let path = bundle.dir.join(path);
        match view::layer(&path) {
            Ok(layer) => layers.push(layer),
            Err(errno) => {
                let message = with_phrase(format!("layer {}", path.display()), errno);
                let finding = Finding::error(at(LOWER), message);
                findings.push(match errno {
                    Errno::ENOENT => finding.hint(beside(&path)),
                    _ => finding,
                });
            }
        }
    }
    layers
}

fn one(bundle: &Bundle, index: usize, mount: &Mount, view: &mut View, findings: &mut Vec<Finding>) {
    let pointer = format!("/mounts/{index}");
    let words = mount.options().as_deref().unwrap_or_default();
    let options = Options::parse(words.iter().map(String::as_str));
    if options.remount {
        return;
    }
    let noexec = options.attributes.set | options.recursive.set;
    let mut noexec = (noexec & nix::libc::MOUNT_ATTR_NOEXEC != 0).then(|| pointer.clone());
    let filesystem = mount.typ().as_deref().unwrap_or_default();
    let content = match (options.bind, mount.source()) {
        (Some(_), Some(source)) => {
            if let Some(word) = options.meaningless() {
                let at = words.iter().position(|other| other == word).unwrap_or(0);
                let message = format!("`{word}` is no option of a bind mount");
                let known = options::known();
                let hint = did_you_mean(word, known.iter().map(String::as_str));
                let at = format!("{pointer}/options/{at}");
                findings.push(Finding::error(at, message).maybe_hint(hint));
            }
            let source = bundle.dir.join(source);
            match bind(&source, &pointer, mount, view, findings) {
                Some((content, true)) => {
                    let user = has_namespace(bundle, LinuxNamespaceType::User);
                    let change = options.of_bind(user);
                    if change.clear & nix::libc::MOUNT_ATTR_NOEXEC == 0 {
                        noexec.get_or_insert_with(|| pointer.clone());
                    }
                    content
                }
                Some((content, false)) => content,
                None => return,
            }
        }
        (Some(_), None) => return,
        (None, _) => {
            typed(filesystem, &options, words, &pointer, findings);
            match filesystem {
                name if OPAQUE.contains(&name) => Content::Opaque,
                // With what was there before, should it be copied.
                "tmpfs" | "ramfs" if !options.copy_up => Content::Empty,
                _ => Content::Opaque,
            }
        }
    };
    destination(
        filesystem, &options, &pointer, mount, view, &content, findings,
    );
    view.mount(mount.destination(), content, noexec);
}

/// What a bind mount shows, and whether its source can't be executed from.
fn bind(
    source: &Path,
    pointer: &str,
    mount: &Mount,
    view: &View,
    findings: &mut Vec<Finding>,
) -> Option<(Content, bool)> {
    let file = match open(source, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()) {
        Ok(file) => file,
        Err(errno) => {
            let message = with_phrase(format!("source {}", source.display()), errno);
            let finding = Finding::error(format!("{pointer}/source"), message);
            findings.push(match errno {
                Errno::ENOENT => finding.hint(beside(source)),
                Errno::ELOOP => finding.hint("it is a symbolic link that leads to itself"),
                _ => finding,
            });
            return None;
        }
    };
    let is_directory = is_directory(&file);
    match view.find(mount.destination()) {
        Ok(there) if there.is(SFlag::S_IFDIR) != is_directory => {
            let message = with_phrase(
                format!(
                    "{} onto {}",
                    source.display(),
                    mount.destination().display()
                ),
                Errno::ENOTDIR,
            );
            let hint = match is_directory {
                true => "the source is a directory, the destination is not",
                false => "the destination is a directory, the source is not",
            };
            findings.push(Finding::error(pointer, message).hint(hint));
        }
        _ => {}
    }
    let noexec = fstatvfs(&file).is_ok_and(|fs| fs.flags().contains(FsFlags::ST_NOEXEC));
    let content = match is_directory {
        true => Content::Layers(vec![view::layer(source).ok()?]),
        false => Content::File(file),
    };
    Some((content, noexec))
}

fn is_directory(file: &OwnedFd) -> bool {
    let kind = |stat: nix::sys::stat::FileStat| stat.st_mode & SFlag::S_IFMT.bits();
    fstat(file).is_ok_and(|stat| kind(stat) == SFlag::S_IFDIR.bits())
}

/// A mount of a filesystem: whether there is such a one, and whether it knows the options.
fn typed(
    name: &str,
    options: &Options,
    words: &[String],
    pointer: &str,
    findings: &mut Vec<Finding>,
) {
    match name {
        "" => {
            let message = "a mount needs a type, or the option bind or rbind";
            let hint = "add \"bind\" to its options if it is meant to be a bind mount";
            findings.push(Finding::error(format!("{pointer}/type"), message).hint(hint));
            return;
        }
        "bind" => {
            let message = "type `bind` without the option bind or rbind";
            let hint = "add \"bind\" or \"rbind\" to its options";
            findings.push(Finding::error(format!("{pointer}/options"), message).hint(hint));
            return;
        }
        _ => {}
    }
    let name = if name == "cgroup" { "cgroup2" } else { name };
    let known = super::read("/proc/filesystems").unwrap_or_default();
    let known: Vec<&str> = known
        .lines()
        .filter_map(|line| line.split('\t').nth(1))
        .collect();
    let type_name = name.split('.').next().unwrap_or(name);
    if !known.is_empty() && !known.contains(&type_name) {
        let message = format!("this kernel has no filesystem {name:?} at the moment");
        let hint = did_you_mean(name, known.iter().copied())
            .unwrap_or_else(|| format!("is a kernel module missing? modprobe {type_name}"));
        findings.push(Finding::warning(format!("{pointer}/type"), message).hint(hint));
        return;
    }
    if name == "cgroup2" {
        return;
    }
    let flags = options.flags.iter().map(|flag| (*flag).to_owned());
    let data = options.data.iter().cloned();
    for word in flags.chain(data) {
        if let Err(complaint) = takes(name, &word) {
            let at = words.iter().position(|other| *other == word).unwrap_or(0);
            let key = word.split('=').next().unwrap_or_default();
            let known = options::known();
            let names = filesystem_options(name);
            let hint = did_you_mean(key, names.iter().copied())
                .or_else(|| did_you_mean(key, known.iter().map(String::as_str)));
            let message = format!("`{word}`: {complaint}");
            let at = format!("{pointer}/options/{at}");
            findings.push(Finding::error(at, message).maybe_hint(hint));
        }
    }
}

/// Names to suggest; the kernel has no list to ask for.
fn filesystem_options(name: &str) -> &'static [&'static str] {
    match name {
        "tmpfs" => &[
            "gid",
            "huge",
            "inode32",
            "inode64",
            "mode",
            "mpol",
            "nr_blocks",
            "nr_inodes",
            "noswap",
            "size",
            "uid",
        ],
        "proc" => &["gid", "hidepid", "subset"],
        "devpts" => &["gid", "max", "mode", "newinstance", "ptmxmode", "uid"],
        "overlay" => &[
            "index",
            "lowerdir",
            "metacopy",
            "nfs_export",
            "redirect_dir",
            "upperdir",
            "userxattr",
            "volatile",
            "workdir",
            "xino",
        ],
        _ => &[],
    }
}

/// Asks the kernel, in a context from which nothing is ever mounted. Whoever may not ask is content.
fn takes(name: &str, word: &str) -> Result<(), String> {
    let (Ok(name), (key, value)) = (
        CString::new(name),
        match word.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (word, None),
        },
    ) else {
        return Ok(());
    };
    // A layer's name may be too long for one value: husk splits it.
    if matches!(key, "lowerdir" | "upperdir" | "workdir" | "fd") {
        return Ok(());
    }
    let (Ok(context), Ok(key)) = (Context::open(&name), CString::new(key)) else {
        return Ok(());
    };
    let set = match value.map(CString::new) {
        None => context.set_flag(&key),
        Some(Ok(value)) => context.set_string(&key, &value),
        Some(Err(_)) => return Ok(()),
    };
    match set {
        Err(errno @ (Errno::EINVAL | Errno::EOPNOTSUPP)) => Err(context
            .complaint()
            .unwrap_or_else(|| crate::error::phrase(errno))),
        _ => Ok(()),
    }
}

/// Whether something can be mounted there.
fn destination(
    filesystem: &str,
    options: &Options,
    pointer: &str,
    mount: &Mount,
    view: &View,
    content: &Content,
    findings: &mut Vec<Finding>,
) {
    let at = format!("{pointer}/destination");
    let destination = mount.destination();
    let plain = lexical(destination);
    if options.bind.is_none() && matches!(filesystem, "proc" | "sysfs") {
        if let Ok(found) = view.find_link(destination)
            && !found.is(SFlag::S_IFDIR)
        {
            let message = format!(
                "{} must be mounted on ordinary directory: {} is none in the root filesystem",
                filesystem,
                plain.display()
            );
            findings.push(Finding::error(at, message).hint("make it a directory in the image"));
            return;
        }
    } else if plain.starts_with("/proc") && plain != Path::new("/proc") && !is_lxcfs(&plain) {
        let message = "mounts inside /proc are refused: they would hide the kernel's answers";
        findings.push(Finding::error(at, message));
        return;
    }
    match view.find(destination) {
        Err(Lost::Errno(Errno::ELOOP)) => {
            let message = with_phrase(format!("mount point {}", plain.display()), Errno::ELOOP);
            findings.push(Finding::error(at, message));
        }
        Err(Lost::Errno(Errno::ENOTDIR)) => {
            let message = with_phrase(format!("mount point {}", plain.display()), Errno::ENOTDIR);
            let hint = "a file of the root filesystem stands on the way to it";
            findings.push(Finding::error(at, message).hint(hint));
        }
        Err(Lost::Errno(Errno::ENOENT)) if is_dangling(view, destination) => {
            let message = with_phrase(format!("mount point {}", plain.display()), Errno::ELOOP);
            let hint = "it is a symbolic link of the root filesystem that points nowhere";
            findings.push(Finding::error(at, message).hint(hint));
        }
        Ok(found)
            if !matches!(content, Content::File(_))
                && options.bind.is_none()
                && !found.is(SFlag::S_IFDIR) =>
        {
            let message = with_phrase(format!("mount point {}", plain.display()), Errno::ENOTDIR);
            let hint = format!(
                "a {filesystem} is mounted on a directory, and this is a file of the root filesystem"
            );
            findings.push(Finding::error(at, message).hint(hint));
        }
        _ => {}
    }
}

fn is_dangling(view: &View, path: &Path) -> bool {
    view.find_link(path)
        .is_ok_and(|found| found.is(SFlag::S_IFLNK))
}

fn is_lxcfs(path: &Path) -> bool {
    crate::rootfs::is_replaceable_proc_file(path)
}

/// Whether the program's file lies on a mount of the host that doesn't execute.
pub fn host_forbids(file: &impl AsRawFd) -> bool {
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    nix::sys::statvfs::statvfs(&path).is_ok_and(|fs| fs.flags().contains(FsFlags::ST_NOEXEC))
}

/// Whether the container gets a namespace of this kind that isn't the caller's.
pub fn has_namespace(bundle: &Bundle, kind: LinuxNamespaceType) -> bool {
    let linux = bundle.spec.linux().as_ref();
    let namespaces = linux.and_then(|linux| linux.namespaces().as_deref());
    namespaces
        .unwrap_or_default()
        .iter()
        .any(|namespace| namespace.typ() == kind)
}
