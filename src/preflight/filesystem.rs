//! Mounts of a filesystem: whether this kernel has it, takes its options, and lets the container have it.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::statfs::{self, FsType, fstatfs};
use oci_spec::runtime::{LinuxNamespaceType as Type, Mount};

use super::mounts::has_namespace;
use super::{read, with_phrase};
use crate::bundle::{Bundle, Finding, did_you_mean};
use crate::error::phrase;
use crate::rootfs::options::{self, Options};
use crate::sys::mount::Context;

/// Those whose place is a device, but who take a file as well.
const TAKE_FILES: &[&str] = &["erofs", "fuseblk"];

pub fn look(
    bundle: &Bundle,
    mount: &Mount,
    options: &Options,
    pointer: &str,
    findings: &mut Vec<Finding>,
) {
    let name = mount.typ().as_deref().unwrap_or_default();
    let words = mount.options().as_deref().unwrap_or_default();
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
    let table = read("/proc/filesystems").unwrap_or_default();
    let known: Vec<(&str, &str)> = table.lines().filter_map(|l| l.split_once('\t')).collect();
    let type_name = name.split('.').next().unwrap_or(name);
    let Some((kind, _)) = known.iter().find(|(_, known)| *known == type_name) else {
        if !known.is_empty() {
            findings.push(unknown(type_name, &known, mount, format!("{pointer}/type")));
        }
        return;
    };
    if name == "cgroup2" {
        return;
    }
    if kind.is_empty() && !TAKE_FILES.contains(&type_name) {
        device(name, mount.source().as_deref(), pointer, findings);
    }
    owner(bundle, name, pointer, findings);
    if name == "overlay" {
        layers(words, pointer, findings);
    }
    let flags = options.flags.iter().map(|flag| (*flag).to_owned());
    for word in flags.chain(options.data.iter().cloned()) {
        if let Err(complaint) = takes(name, &word) {
            let at = words.iter().position(|other| *other == word).unwrap_or(0);
            let key = word.split('=').next().unwrap_or_default();
            let known = options::known();
            let hint = match word.split_once(',') {
                Some((_, rest)) if rest.contains('=') => {
                    Some("each option is a string of its own".to_owned())
                }
                _ if word.contains('=') && filesystem_options(name).contains(&key) => value_of(key),
                _ => did_you_mean(key, filesystem_options(name).iter().copied())
                    .or_else(|| did_you_mean(key, known.iter().map(String::as_str))),
            };
            let message = format!("`{word}`: {complaint}");
            let at = format!("{pointer}/options/{at}");
            findings.push(Finding::error(at, message).maybe_hint(hint));
        }
    }
}

/// What a known option wants, where that is plain.
fn value_of(key: &str) -> Option<String> {
    let words = match key {
        "size" | "nr_blocks" | "nr_inodes" => {
            "a number, with k, m or g behind it if need be, as in 64m"
        }
        "mode" => "octal digits, as in 1777",
        "uid" | "gid" => "a number",
        _ => return None,
    };
    Some(format!("{key} takes {words}"))
}

/// Names that are no misspelt ones, whatever this kernel has.
const REAL: &[&str] = &[
    "9p", "afs", "bcachefs", "btrfs", "ceph", "cifs", "erofs", "exfat", "ext2", "ext3", "ext4",
    "f2fs", "fuse", "iso9660", "jfs", "nfs", "nfs4", "nilfs2", "ntfs", "ntfs3", "ocfs2", "overlay",
    "smb3", "squashfs", "udf", "vfat", "virtiofs", "xfs", "zfs",
];

/// A filesystem that the kernel hasn't got; with a module it may get it when it is mounted.
fn unknown(name: &str, known: &[(&str, &str)], mount: &Mount, at: String) -> Finding {
    let near = match REAL.contains(&name) {
        true => None,
        false => did_you_mean(name, known.iter().map(|(_, name)| *name)),
    };
    if name == "none" {
        let hint = match mount.source() {
            Some(source) if source.exists() => "add \"bind\" to its options to show that source",
            _ => "name a filesystem, or add \"bind\" to its options",
        };
        return Finding::error(at, "there is no filesystem \"none\"").hint(hint);
    }
    if near.is_none() && has_module(name) {
        let message = format!("this kernel has no filesystem {name:?} at the moment");
        return Finding::warning(at, message).hint(format!("modprobe {name}"));
    }
    let message = format!("this kernel has no filesystem {name:?}, nor a module for it");
    let hint = near.unwrap_or_else(|| format!("is a kernel module missing? modprobe {name}"));
    Finding::error(at, message).hint(hint)
}

/// Whether the kernel would find one by itself, as it asks modprobe(8) for `fs-NAME`.
fn has_module(name: &str) -> bool {
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_default();
    let path = PathBuf::from("/lib/modules")
        .join(release)
        .join("modules.alias");
    let wanted = format!("fs-{name}");
    read(path).is_some_and(|aliases| {
        aliases
            .lines()
            .any(|line| line.split(' ').nth(1) == Some(wanted.as_str()))
    })
}

/// What is mounted from a disk.
fn device(name: &str, source: Option<&Path>, pointer: &str, findings: &mut Vec<Finding>) {
    let at = format!("{pointer}/source");
    // A relative one is looked up where husk is started, as by mount(8).
    let Some(source) = source.filter(|source| source.is_absolute()) else {
        return;
    };
    match std::fs::metadata(source) {
        Ok(found) if found.is_file() => {
            let message = with_phrase(
                format!(
                    "{} is a file: {name} is mounted from a disk",
                    source.display()
                ),
                Errno::ENOTBLK,
            );
            let hint = format!(
                "make a loop device of it, and name that: losetup --find --show {}",
                source.display()
            );
            findings.push(Finding::error(at, message).hint(hint));
        }
        Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => {
            let message = with_phrase(format!("source {}", source.display()), Errno::ENOENT);
            findings.push(Finding::error(at, message).hint("lsblk shows the disks that there are"));
        }
        _ => {}
    }
}

/// Those that show a namespace can only be mounted by who owns that: a user namespace of the container's
/// own owns none of the host's.
fn owner(bundle: &Bundle, name: &str, pointer: &str, findings: &mut Vec<Finding>) {
    let (kind, words) = match name {
        "proc" => (Type::Pid, "a pid"),
        "mqueue" => (Type::Ipc, "an ipc"),
        _ => return,
    };
    if has_namespace(bundle, Type::User) && !has_namespace(bundle, kind) {
        let message =
            format!("with a user namespace {name} needs {words} namespace of the container's own");
        let hint = format!("give it {words} namespace in /linux/namespaces, or bind the host's");
        findings.push(Finding::error(pointer, with_phrase(message, Errno::EPERM)).hint(hint));
    }
}

/// Overlayfs says of its directories only that something is missing.
fn layers(words: &[String], pointer: &str, findings: &mut Vec<Finding>) {
    for (at, word) in words.iter().enumerate() {
        let Some((key, value)) = word.split_once('=') else {
            continue;
        };
        // With a backslash names hold colons.
        let directories: Vec<&str> = match key {
            "lowerdir" if !value.contains('\\') => value.split(':').collect(),
            "upperdir" | "workdir" | "lowerdir+" => vec![value],
            _ => continue,
        };
        for directory in directories {
            let path = Path::new(directory);
            if path.is_absolute() && !path.is_dir() {
                let errno = if path.exists() {
                    Errno::ENOTDIR
                } else {
                    Errno::ENOENT
                };
                let message = with_phrase(format!("{key} {directory}"), errno);
                let finding = Finding::error(format!("{pointer}/options/{at}"), message);
                findings.push(finding.hint(format!("create the directory {directory}")));
            }
        }
    }
}

/// The filesystem that a file is on, if it is one that never maps ids: those that the kernel makes up,
/// and those whose ids are a server's.
pub fn without_mappings(file: &OwnedFd) -> Option<&'static str> {
    const NFS: FsType = statfs::NFS_SUPER_MAGIC;
    let kind = fstatfs(file).ok()?.filesystem_type();
    let names = [
        (statfs::PROC_SUPER_MAGIC, "proc"),
        (statfs::SYSFS_MAGIC, "sysfs"),
        (statfs::CGROUP2_SUPER_MAGIC, "cgroup2"),
        (statfs::DEVPTS_SUPER_MAGIC, "devpts"),
        (statfs::DEBUGFS_MAGIC, "debugfs"),
        (statfs::TRACEFS_MAGIC, "tracefs"),
        (statfs::SECURITYFS_MAGIC, "securityfs"),
        (statfs::BPF_FS_MAGIC, "bpf"),
        (NFS, "nfs"),
    ];
    names
        .into_iter()
        .find_map(|(magic, name)| (magic == kind).then_some(name))
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
        Err(errno @ (Errno::EINVAL | Errno::EOPNOTSUPP)) => {
            Err(context.complaint().unwrap_or_else(|| phrase(errno)))
        }
        _ => Ok(()),
    }
}
