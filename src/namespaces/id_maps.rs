//! The id maps of a user namespace, user_namespaces(7): who may write them, and with whose help.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::sys::stat::stat;
use nix::unistd::{Gid, Pid, Uid};
use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType as Type};

use crate::error::{Error, Result, Step};
use crate::files;
use crate::sys::{prctl, xattr};

/// Bits of capability.h.
const SETGID: u64 = 1 << 6;
const SETUID: u64 = 1 << 7;

/// `USER_NS_INIT_INO` of linux/nsfs.h: the inode of the machine's first user namespace.
const FIRST: u64 = 0xEFFF_FFFD;

/// Whether husk itself runs in a user namespace: as root of one it has no privileges on the host.
pub fn nested() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(look_whether_nested)
}

fn look_whether_nested() -> bool {
    stat("/proc/self/ns/user").is_ok_and(|stat| stat.st_ino != FIRST)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Uid,
    Gid,
}

impl Kind {
    fn file(self) -> &'static str {
        match self {
            Kind::Uid => "uid_map",
            Kind::Gid => "gid_map",
        }
    }

    fn pointer(self) -> &'static str {
        match self {
            Kind::Uid => "/linux/uidMappings",
            Kind::Gid => "/linux/gidMappings",
        }
    }

    /// The set-id program that maps ids which /etc/subuid and /etc/subgid grant to a user.
    fn helper(self) -> (&'static str, &'static str) {
        match self {
            Kind::Uid => ("newuidmap", "/etc/subuid"),
            Kind::Gid => ("newgidmap", "/etc/subgid"),
        }
    }
}

/// How a map comes into the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Way {
    /// With the privilege to map any id that is mapped here.
    Privileged,
    /// Anybody may map his own id. The own group only if the namespace gives up setgroups(2).
    OwnId,
    Helper(PathBuf),
}

#[derive(Debug, Clone)]
struct Map {
    kind: Kind,
    /// Container's first id, host's first id, how many.
    extents: Vec<(u32, u32, u32)>,
    way: Way,
}

/// The maps of a new user namespace.
#[derive(Debug, Clone)]
pub struct IdMaps {
    /// Groups first: with the ids of the namespace's root a process would be another's to change.
    maps: [Map; 2],
}

impl IdMaps {
    /// # Errors
    /// The container's root has no id; the caller may not map these ids and nobody is there to help.
    pub fn plan(linux: &Linux) -> Result<IdMaps> {
        let held = prctl::capabilities()
            .or_fail(|errno| Error::new("read capabilities").errno(errno))?
            .effective;
        let (uid, gid) = (Uid::effective().as_raw(), Gid::effective().as_raw());
        let gids = linux.gid_mappings().as_deref().unwrap_or_default();
        let uids = linux.uid_mappings().as_deref().unwrap_or_default();
        Ok(IdMaps {
            maps: [
                Map::plan(Kind::Gid, gids, held & SETGID != 0, gid)?,
                Map::plan(Kind::Uid, uids, held & SETUID != 0, uid)?,
            ],
        })
    }

    pub fn gid_lines(&self) -> String {
        self.maps[0].lines()
    }

    pub fn uid_lines(&self) -> String {
        self.maps[1].lines()
    }

    /// Whether no process of the namespace will be able to choose its groups.
    pub fn without_groups(&self) -> bool {
        self.maps[0].way == Way::OwnId
    }

    /// Writes the maps of the user namespace that `pid`, not yet reaped, was born in.
    pub fn write(&self, pid: Pid) -> Result<()> {
        self.maps.iter().try_for_each(|map| map.write(pid))
    }
}

impl Map {
    fn plan(kind: Kind, mappings: &[LinuxIdMapping], privileged: bool, own: u32) -> Result<Map> {
        let extents: Vec<_> = mappings
            .iter()
            .map(|m| (m.container_id(), m.host_id(), m.size()))
            .collect();
        if !extents
            .iter()
            .any(|&(first, _, size)| first == 0 && size > 0)
        {
            return Err(
                Error::config(kind.pointer(), "id 0 of the container is not mapped")
                    .hint("its root makes the mounts: map containerID 0"),
            );
        }
        let way = match extents[..] {
            _ if privileged => Way::Privileged,
            [(_, host, 1)] if host == own => Way::OwnId,
            _ => Way::Helper(find_helper(kind)?),
        };
        Ok(Map { kind, extents, way })
    }

    fn write(&self, pid: Pid) -> Result<()> {
        if let Way::Helper(program) = &self.way {
            return self.write_by(program, pid);
        }
        let fail = |file: &str, errno| {
            let error = Error::new("map ids")
                .on(format!("/proc/{pid}/{file}"))
                .at(self.kind.pointer())
                .errno(errno);
            match errno {
                Errno::EPERM => error.hint(
                    "every host id must be mapped where husk runs: compare /proc/self/uid_map and gid_map",
                ),
                Errno::EINVAL => error.hint("the mappings overlap, or there are too many of them"),
                _ => error,
            }
        };
        if self.kind == Kind::Gid && self.way == Way::OwnId {
            files::tell_kernel(format!("/proc/{pid}/setgroups"), "deny")
                .or_fail(|errno| fail("setgroups", errno))?;
        }
        let file = self.kind.file();
        files::tell_kernel(format!("/proc/{pid}/{file}"), &self.lines())
            .or_fail(|errno| fail(file, errno))
    }

    fn lines(&self) -> String {
        self.extents
            .iter()
            .map(|(container, host, size)| format!("{container} {host} {size}\n"))
            .collect()
    }

    fn write_by(&self, program: &Path, pid: Pid) -> Result<()> {
        let (_, table) = self.kind.helper();
        let extents = self.extents.iter();
        let numbers = extents.flat_map(|&(container, host, size)| [container, host, size]);
        let output = Command::new(program)
            .arg(pid.to_string())
            .args(numbers.map(|number| number.to_string()))
            .stdin(Stdio::null())
            .output()
            .step("run", program.display())?;
        if output.status.success() {
            return Ok(());
        }
        let words = String::from_utf8_lossy(&output.stderr);
        let error = Error::new("map ids")
            .on(self.lines().trim_end().replace('\n', ", "))
            .at(self.kind.pointer())
            .because(words.trim());
        Err(match is_set_id(program) {
            false => error.hint(format!(
                "{} must be set-uid root, or have the file capability",
                program.display()
            )),
            true => error.hint(format!(
                "{table} needs a line USER:FIRST:COUNT that covers the host ids, and husk must not \
                 run with no_new_privs"
            )),
        })
    }
}

/// On PATH, or where distributions have it.
fn find_helper(kind: Kind) -> Result<PathBuf> {
    let (name, table) = kind.helper();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = OsStr::new("/usr/bin:/usr/local/bin:/bin");
    std::env::split_paths(&path)
        .chain(std::env::split_paths(usual))
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .find(|file| nix::unistd::access(file, nix::unistd::AccessFlags::X_OK).is_ok())
        .ok_or_else(|| {
            Error::config(
                kind.pointer(),
                format!("without privileges this mapping needs {name}, which is not on PATH"),
            )
            .hint(format!(
                "install it (Debian: uidmap; elsewhere: shadow-utils) and give the user a range in \
                 {table}, or map only the own id, with size 1"
            ))
        })
}

/// Set-uid, or with capabilities in the file: then it can do more than its caller.
fn is_set_id(program: &Path) -> bool {
    let set_uid = program
        .metadata()
        .is_ok_and(|file| file.permissions().mode() & 0o4000 != 0);
    let file = File::open(program);
    set_uid || file.is_ok_and(|file| xattr::has(file.as_fd(), c"security.capability") == Ok(true))
}

/// Which uid of the host `uid` of the container is, by the mappings of its configuration; itself where
/// there is no user namespace.
pub fn host_uid(linux: Option<&Linux>, uid: u32) -> Option<u32> {
    host_id(linux, Kind::Uid, uid)
}

/// As [`host_uid`], for a group.
pub fn host_gid(linux: Option<&Linux>, gid: u32) -> Option<u32> {
    host_id(linux, Kind::Gid, gid)
}

fn host_id(linux: Option<&Linux>, kind: Kind, id: u32) -> Option<u32> {
    let namespaces = linux.and_then(|linux| linux.namespaces().as_ref());
    if !namespaces
        .into_iter()
        .flatten()
        .any(|namespace| namespace.typ() == Type::User)
    {
        return Some(id);
    }
    let mappings = linux.and_then(|linux| match kind {
        Kind::Uid => linux.uid_mappings().as_ref(),
        Kind::Gid => linux.gid_mappings().as_ref(),
    });
    mappings.into_iter().flatten().find_map(|mapping| {
        let offset = id.checked_sub(mapping.container_id())?;
        (offset < mapping.size()).then(|| mapping.host_id().saturating_add(offset))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mappings(json: &str) -> Vec<LinuxIdMapping> {
        serde_json::from_str(json).unwrap()
    }

    const RANGES: &str = r#"[{"containerID": 0, "hostID": 1000, "size": 1},
                             {"containerID": 1, "hostID": 100000, "size": 65536}]"#;

    #[test]
    fn maps_are_lines_of_three_numbers() {
        let map = Map::plan(Kind::Uid, &mappings(RANGES), true, 0).unwrap();
        assert_eq!(map.lines(), "0 1000 1\n1 100000 65536\n");
    }

    #[test]
    fn only_the_own_id_needs_neither_privilege_nor_help() {
        let one = mappings(r#"[{"containerID": 0, "hostID": 1000, "size": 1}]"#);
        let way = |privileged, own| Map::plan(Kind::Gid, &one, privileged, own).map(|map| map.way);
        assert_eq!(way(true, 1000).unwrap(), Way::Privileged);
        assert_eq!(way(false, 1000).unwrap(), Way::OwnId);
        assert_ne!(way(false, 1001).ok(), Some(Way::OwnId));
        let two = mappings(r#"[{"containerID": 0, "hostID": 1000, "size": 2}]"#);
        let map = Map::plan(Kind::Gid, &two, false, 1000).ok();
        assert_ne!(map.map(|map| map.way), Some(Way::OwnId));
    }

    #[test]
    fn the_containers_root_must_be_mapped() {
        let none = mappings(r#"[{"containerID": 1, "hostID": 1000, "size": 1}]"#);
        let error = Map::plan(Kind::Uid, &none, true, 0).unwrap_err();
        assert_eq!(error.pointer(), Some("/linux/uidMappings"));
    }

    #[test]
    fn ids_of_the_host_are_looked_up() {
        let linux: Linux = serde_json::from_str(&format!(
            r#"{{"namespaces": [{{"type": "user"}}], "uidMappings": {RANGES}, "gidMappings": []}}"#
        ))
        .unwrap();
        assert_eq!(host_uid(Some(&linux), 0), Some(1000));
        assert_eq!(host_uid(Some(&linux), 65536), Some(165_535));
        assert_eq!(host_uid(Some(&linux), 65537), None);
        assert_eq!(host_gid(Some(&linux), 0), None);
        assert_eq!(host_gid(None, 7), Some(7));
    }
}
