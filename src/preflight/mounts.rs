//! The root file system, its layers, and what is mounted over them.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::sys::statvfs::{FsFlags, fstatvfs};
use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType, Mount};

use super::view::{self, Content, Limits, Lost, View};
use super::{filesystem, with_phrase};
use crate::bundle::{Bundle, Finding, beside};
use crate::rootfs::options::{Consequence, Options};
use crate::rootfs::overlay::{LOWER, UPPER};
use crate::rootfs::{Rootfs, lexical};
use crate::sys::file::open;

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
    devices(bundle, &view, findings);
    Some(view)
}

/// A device can take the place of a file where it is bound, and never of a directory.
fn devices(bundle: &Bundle, view: &View, findings: &mut Vec<Finding>) {
    let linux = bundle.spec.linux().as_ref();
    let devices = linux.and_then(|linux| linux.devices().as_deref());
    for (index, device) in devices.unwrap_or_default().iter().enumerate() {
        let Ok(found) = view.find_link(device.path()) else {
            continue;
        };
        let kind = match () {
            () if found.is(SFlag::S_IFDIR) => Some("a directory"),
            () if found.is(SFlag::S_IFREG) && !has_namespace(bundle, LinuxNamespaceType::User) => {
                Some("a file")
            }
            () => None,
        };
        if let Some(kind) = kind {
            let message = format!("{} is {kind} of the container", device.path().display());
            findings.push(
                Finding::error(
                    format!("/linux/devices/{index}/path"),
                    with_phrase(message, Errno::EEXIST),
                )
                .hint("remove it from the root filesystem, or choose another path"),
            );
        }
    }
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

/// Layers that annotations put over the root, the topmost first.
fn lower_layers(bundle: &Bundle, findings: &mut Vec<Finding>) -> Vec<Rootfs> {
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
    if let Some(mistake) = options.mistake(words) {
        let at = format!("{pointer}/options/{}", mistake.at);
        match mistake.consequence {
            Consequence::Ignored(hint) => {
                findings.push(Finding::warning(at, mistake.message).hint(hint));
            }
            Consequence::Refused(hint) => {
                findings.push(Finding::error(at, mistake.message).maybe_hint(hint));
                view.mount(mount.destination(), Content::Opaque, Limits::default());
                return;
            }
        }
    }
    let noexec = options.attributes.set | options.recursive.set;
    let mut limits = Limits {
        noexec: (noexec & nix::libc::MOUNT_ATTR_NOEXEC != 0).then(|| pointer.clone()),
        read_only: (options.is_read_only() && lexical(mount.destination()) != Path::new("/dev"))
            .then(|| pointer.clone()),
    };
    let kind = mount.typ().as_deref().unwrap_or_default();
    let content = match (options.bind, mount.source()) {
        (Some(_), Some(source)) => {
            let source = bundle.dir.join(source);
            let file = open_source(bundle, &source);
            match bind((&source, file), &pointer, mount, view, findings) {
                Some((content, true)) => {
                    let user = has_namespace(bundle, LinuxNamespaceType::User);
                    let change = options.of_bind(user);
                    if change.clear & nix::libc::MOUNT_ATTR_NOEXEC == 0 {
                        limits.noexec.get_or_insert_with(|| pointer.clone());
                    }
                    content
                }
                Some((content, false)) => content,
                None => return,
            }
        }
        (Some(_), None) => return,
        (None, _) => {
            filesystem::look(bundle, mount, &options, &pointer, findings);
            match kind {
                name if OPAQUE.contains(&name) => Content::Opaque,
                // With what was there before, should it be copied.
                "tmpfs" | "ramfs" if !options.copy_up => Content::Empty,
                _ => Content::Opaque,
            }
        }
    };
    destination(kind, &options, &pointer, mount, view, &content, findings);
    owner(bundle, &pointer, mount.destination(), view, findings);
    view.mount(mount.destination(), content, limits);
}

/// As `create` does: below the container's root links are the image's.
fn open_source(bundle: &Bundle, source: &Path) -> nix::Result<OwnedFd> {
    let root = bundle.spec.root().as_ref();
    let root = root.map(|root| bundle.dir.join(root.path()));
    let below = root
        .as_deref()
        .and_then(|root| Some((root, source.strip_prefix(root).ok()?)));
    match below {
        Some((root, below)) => view::layer(root)?.lookup(below),
        None => open(source, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()),
    }
}

/// What a bind mount shows, and whether its source can't be executed from.
fn bind(
    (source, file): (&Path, nix::Result<OwnedFd>),
    pointer: &str,
    mount: &Mount,
    view: &View,
    findings: &mut Vec<Finding>,
) -> Option<(Content, bool)> {
    let file = match file {
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
    if mount
        .uid_mappings()
        .as_ref()
        .is_some_and(|maps| !maps.is_empty())
        && let Some(name) = filesystem::without_mappings(&file)
    {
        let message = format!("{} is on {name}, which can't map ids", source.display());
        let hint = "remove uidMappings and gidMappings of this mount";
        findings.push(Finding::error(format!("{pointer}/uidMappings"), message).hint(hint));
    }
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
        true => Content::Layers(vec![Rootfs::new(file)]),
        false => Content::File(file),
    };
    Some((content, noexec))
}

fn is_directory(file: &OwnedFd) -> bool {
    let kind = |stat: nix::sys::stat::FileStat| stat.st_mode & SFlag::S_IFMT.bits();
    fstat(file).is_ok_and(|stat| kind(stat) == SFlag::S_IFDIR.bits())
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
        Err(Lost::Errno(Errno::ENOENT))
            if let Some(entry) = view.read_only(destination)
                && !is_dangling(view, destination) =>
        {
            let message = with_phrase(format!("mount point {}", plain.display()), Errno::EROFS);
            let hint =
                format!("{entry} is read-only and has no such directory: make it in its source");
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

/// In a new user namespace its root makes what is missing, and may do so only in directories that are
/// its own, or everybody's.
fn owner(
    bundle: &Bundle,
    pointer: &str,
    destination: &Path,
    view: &View,
    findings: &mut Vec<Finding>,
) {
    let linux = bundle.spec.linux().as_ref();
    let (Some(uids), Some(gids)) = (
        linux.and_then(|linux| linux.uid_mappings().as_deref()),
        linux.and_then(|linux| linux.gid_mappings().as_deref()),
    ) else {
        return;
    };
    let annotations = bundle.spec.annotations().as_ref();
    let is_layered =
        annotations.is_some_and(|all| all.contains_key(UPPER) || all.contains_key(LOWER));
    let is_missing = matches!(view.find(destination), Err(Lost::Errno(Errno::ENOENT)));
    if uids.is_empty() || is_layered || !is_missing || is_dangling(view, destination) {
        return;
    }
    let Some(above) = destination
        .ancestors()
        .find_map(|path| view.find(path).ok())
    else {
        return;
    };
    let holds = |maps: &[LinuxIdMapping], id: u32| {
        maps.iter().any(|map| {
            id.checked_sub(map.host_id())
                .is_some_and(|at| at < map.size())
        })
    };
    let is_own = holds(uids, above.stat.st_uid) && holds(gids, above.stat.st_gid);
    if is_own || above.stat.st_mode & 0o002 != 0 || !view.is_roots_own(&above.path) {
        return;
    }
    let plain = lexical(destination);
    let root = uids.iter().find(|map| map.container_id() == 0);
    let root = root.map_or("nobody".into(), |map| format!("uid {}", map.host_id()));
    let message = with_phrase(format!("mount point {}", plain.display()), Errno::EACCES);
    let hint = format!(
        "create {} in the root filesystem: the container's root is {root} on the host, and {} is uid {}'s",
        plain.display(),
        above.path.display(),
        above.stat.st_uid
    );
    findings.push(Finding::error(format!("{pointer}/destination"), message).hint(hint));
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
