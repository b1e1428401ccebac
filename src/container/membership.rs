//! The cgroup of a container that is there.

use std::os::fd::OwnedFd;
use std::path::Path;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::Container;
use crate::cgroups::Cgroup;
use crate::error::{Error, Result, Step};

impl Container {
    /// Where one more process is to be born: with the first one, which may have divided the container's
    /// cgroup and moved below it, as systemd does. `None` for a container without a cgroup.
    pub(super) fn cgroup_of_init(&self) -> Result<Option<OwnedFd>> {
        let Some(place) = &self.record.cgroup else {
            return Ok(None);
        };
        let below = match self.cgroup()? {
            Some(cgroup) if !cgroup.is_divided()? => {
                let cgroup = cgroup.fd().try_clone_to_owned();
                return cgroup.map(Some).step("open cgroup", self.id());
            }
            Some(_) => place.below.as_path(),
            // Its processes were moved, and it was removed, by an administrator.
            None => Path::new(""),
        };
        let path = format!(
            "/proc/{}/cgroup",
            self.record.init.map_or(0, |init| init.pid)
        );
        let text = std::fs::read_to_string(&path).step("read", &path)?;
        let unified = text.lines().find_map(|line| line.strip_prefix("0::/"));
        let below = unified
            .map(Path::new)
            .filter(|found| found.starts_with(below))
            .ok_or_else(|| {
                Error::new("find cgroup of the first process")
                    .on(&path)
                    .because("it has left the container's")
            })?;
        let directory = place.mount.join(below);
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        open(&directory, flags, Mode::empty())
            .step("open cgroup", directory.display())
            .map(Some)
    }

    pub fn cgroup(&self) -> Result<Option<Cgroup>> {
        match &self.record.cgroup {
            Some(place) => Cgroup::open(place),
            None => Ok(None),
        }
    }

    /// Only if it is known to be this container's.
    pub(super) fn own_cgroup(&self) -> Result<Option<Cgroup>> {
        match &self.record.cgroup {
            Some(place) if place.inode.is_some() => Cgroup::open(place),
            _ => Ok(None),
        }
    }

    /// For what can't be done without one.
    pub fn require_cgroup(&self) -> Result<Cgroup> {
        self.cgroup()?.ok_or_else(|| {
            let error = Error::new("cgroup not exist").on(self.id());
            match &self.record.cgroup {
                Some(_) => error,
                None => error.because("the container was made without one").hint(
                    "it takes a cgroup that husk may write to, and no --cgroup-manager disabled",
                ),
            }
        })
    }
}
