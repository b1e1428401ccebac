//! Id-mapped mounts: files that appear with other owners than they are stored with.
//!
//! mount_setattr(2) takes the mapping from a user namespace. Where none has it, one is made for it, by
//! a process that does nothing else and ends at once: its descriptor keeps the namespace.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::stat::Mode;
use oci_spec::runtime as oci;

use crate::error::{Error, Result, Step};
use crate::files;
use crate::sys::file::open;
use crate::sys::mount;
use crate::sys::process::{self, Clone as Side};

/// Lines for uid_map and gid_map, user_namespaces(7): for a mount the left side is what is stored, the
/// right side what it is for the caller of husk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maps {
    pub uid: String,
    pub gid: String,
}

/// The container's user namespace, as far as it is there before the container is.
#[derive(Debug)]
pub enum UserNamespace {
    New(Maps),
    Joined(OwnedFd),
}

/// What a mount asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idmap {
    /// `None` for the mapping of the container's user namespace.
    pub own: Option<Maps>,
    /// The mounts below it, too.
    pub recursive: bool,
}

impl Maps {
    pub fn new(uids: &[oci::LinuxIdMapping], gids: &[oci::LinuxIdMapping]) -> Maps {
        let lines = |list: &[oci::LinuxIdMapping]| {
            list.iter()
                .map(|m| format!("{} {} {}\n", m.container_id(), m.host_id(), m.size()))
                .collect()
        };
        Maps {
            uid: lines(uids),
            gid: lines(gids),
        }
    }
}

/// User namespaces to take mappings from; mounts of equal mappings share one.
#[derive(Debug, Default)]
pub struct Donors {
    container: Option<UserNamespace>,
    made: Vec<(Maps, OwnedFd)>,
}

impl Donors {
    pub fn new(container: Option<UserNamespace>) -> Donors {
        Donors {
            container,
            made: Vec::new(),
        }
    }

    /// The namespace for this mount. `pointer` is the mount's, for messages.
    pub fn find(&mut self, idmap: &Idmap, pointer: &str) -> Result<BorrowedFd<'_>> {
        let maps = match (&idmap.own, &self.container) {
            (Some(own), _) => own,
            (None, Some(UserNamespace::New(maps))) => maps,
            (None, Some(UserNamespace::Joined(namespace))) => return Ok(namespace.as_fd()),
            (None, None) => {
                return Err(Error::config(
                    format!("{pointer}/uidMappings"),
                    "an id-mapped mount needs mappings: its own or those of a user namespace",
                ));
            }
        };
        let at = match self.made.iter().position(|(other, _)| other == maps) {
            Some(at) => at,
            None => {
                let namespace = make(maps, pointer)?;
                self.made.push((maps.clone(), namespace));
                self.made.len() - 1
            }
        };
        Ok(self.made[at].1.as_fd())
    }
}

/// What husk does for an init that may not: maps the ids of a detached mount, of the entry of that index.
pub type MapIds<'a> = &'a dyn Fn(usize, BorrowedFd) -> Result<()>;

/// What husk needs for that.
#[derive(Debug)]
pub struct Mapping {
    pub entry: usize,
    pub recursive: bool,
    pub namespace: OwnedFd,
}

impl Mapping {
    pub fn apply(&self, tree: BorrowedFd) -> Result<()> {
        mount::map_ids(tree, self.recursive, self.namespace.as_fd()).or_fail(|errno| {
            let error = Error::new("map ids of mount")
                .at(format!("/mounts/{}", self.entry))
                .errno(errno);
            match errno {
                Errno::EINVAL => error.because(
                    "a filesystem that was mounted inside does not support id-mapped mounts on this kernel",
                ),
                Errno::EPERM => error.because(
                    "what was mounted inside belongs to the container's user namespace, or is id-mapped already",
                ),
                _ => error,
            }
        })
    }
}

/// A user namespace with these maps and nobody in it.
fn make(maps: &Maps, pointer: &str) -> Result<OwnedFd> {
    let fail = |errno| {
        let error = Error::new("make user namespace for id-mapped mount")
            .at(pointer)
            .errno(errno);
        match errno {
            Errno::ENOSPC => error.hint("raise /proc/sys/user/max_user_namespaces"),
            _ => error,
        }
    };
    let (theirs, ours) = nix::unistd::pipe2(OFlag::O_CLOEXEC).or_fail(fail)?;
    match process::clone3(libc::CLONE_NEWUSER as u64, None).or_fail(fail)? {
        Side::Child => {
            // Until the other side lets go, or is gone.
            drop(ours);
            while nix::unistd::read(&theirs, &mut [0]) == Err(Errno::EINTR) {}
            process::exit(0)
        }
        Side::Parent { pid, pidfd } => {
            let mapped = [
                ("gid_map", "gidMappings", &maps.gid),
                ("uid_map", "uidMappings", &maps.uid),
            ]
            .into_iter()
            .try_for_each(|(file, field, map)| {
                files::tell_kernel(format!("/proc/{pid}/{file}"), map).or_fail(|errno| {
                    let error = Error::new("map ids")
                        .on(map.trim_end().replace('\n', ", "))
                        .at(format!("{pointer}/{field}"))
                        .errno(errno);
                    match errno {
                        Errno::EPERM => error.hint("only root may map other ids than its own"),
                        Errno::EINVAL => {
                            error.hint("the mappings overlap, or a host id is not mapped here")
                        }
                        _ => error,
                    }
                })
            })
            .and_then(|()| {
                let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
                open(
                    format!("/proc/{pid}/ns/user").as_str(),
                    flags,
                    Mode::empty(),
                )
                .or_fail(fail)
            });
            drop(ours);
            let _ = process::reap(pidfd);
            mapped
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_lines_of_three_numbers() {
        let list: Vec<oci::LinuxIdMapping> = serde_json::from_str(
            r#"[{"containerID": 0, "hostID": 1000, "size": 1},
                {"containerID": 1, "hostID": 100000, "size": 9}]"#,
        )
        .unwrap();
        let maps = Maps::new(&list, &list[1..]);
        assert_eq!(maps.uid, "0 1000 1\n1 100000 9\n");
        assert_eq!(maps.gid, "1 100000 9\n");
    }

    #[test]
    fn without_any_mapping_there_is_nothing_to_take() {
        let wanted = Idmap {
            own: None,
            recursive: false,
        };
        let error = Donors::default().find(&wanted, "/mounts/3").unwrap_err();
        assert_eq!(error.pointer(), Some("/mounts/3/uidMappings"));
    }
}
