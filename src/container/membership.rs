//! The cgroup of a container that is there.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::Container;
use super::exec::stopped;
use crate::cgroups::Cgroup;
use crate::error::{Error, Result, Step};
use crate::sys::file::open;
use crate::sys::process::pidfd_send_signal;

impl Container {
    /// Where one more process is to be born: with the first one, which may have divided the container's
    /// cgroup and moved below it, as systemd does. `None` for a container without a cgroup.
    /// `init` is a pidfd of that one.
    pub(super) fn cgroup_of_init(&self, init: BorrowedFd) -> Result<Option<OwnedFd>> {
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
        // As long as it isn't reaped nobody else has its number: that was its own file.
        pidfd_send_signal(init, 0).or_fail(|_| stopped(self.id()))?;
        let below = unified(&text)
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

/// Where in the v2 tree a process is, by its /proc/PID/cgroup. One outside of the reader's cgroup namespace
/// is shown with `..`, which leads out of the tree where that is mounted.
fn unified(text: &str) -> Option<&Path> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let path = Path::new(path);
    let plain = |component| matches!(component, Component::Normal(_));
    path.components().all(plain).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_outside_of_ones_namespace_is_not_followed() {
        let found = |text| unified(text).map(|path| path.display().to_string());
        assert_eq!(found("1:cpu:/x\n0::/a/b\n").as_deref(), Some("a/b"));
        assert_eq!(found("0::/\n").as_deref(), Some(""));
        for text in [
            "0::/../a\n",
            "0::/..\n",
            "0::/a/../../b\n",
            "0::relative\n",
            "",
        ] {
            assert_eq!(found(text), None, "{text}");
        }
    }
}
