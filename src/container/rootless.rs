//! What changes for a caller without privileges: what must be asked for otherwise, and which wishes
//! may stay unfulfilled.

use std::path::PathBuf;

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::unistd::Uid;
use oci_spec::runtime::Spec;

use super::create::{Cgroups, Request};
use crate::cgroups::{self, Cgroup, Hierarchy};
use crate::error::{Error, Result, Step};
use crate::log;
use crate::namespaces::{self, Origin};
use crate::process;

/// Refuses what the kernel would refuse later, in words that say less.
pub fn check(spec: &Spec, namespaces: &namespaces::Plan, request: &Request) -> Result<()> {
    if request.rootless && !Uid::effective().is_root() && !namespaces.in_user_namespace() {
        return Err(Error::config(
            "/linux/namespaces",
            "rootless container requires user namespaces",
        )
        .hint("husk spec --rootless writes a config.json that an ordinary user can run"));
    }
    if namespaces.origin(CloneFlags::CLONE_NEWUSER) != Origin::New {
        return Ok(());
    }
    check_mount_owners(spec)?;
    let user = spec
        .process()
        .as_ref()
        .map(oci_spec::runtime::Process::user);
    let groups = user.and_then(|user| user.additional_gids().as_deref());
    match groups {
        Some([_, ..]) if namespaces.id_maps().is_some_and(namespaces::IdMaps::without_groups) => {
            Err(Error::config(
                "/process/user/additionalGids",
                "cannot set any additional groups: the user namespace has only the caller's own group",
            )
            .hint("map a range of groups (/etc/subgid), or leave additionalGids away"))
        }
        _ => Ok(()),
    }
}

/// Files of a new filesystem can only belong to ids that the user namespace has.
fn check_mount_owners(spec: &Spec) -> Result<()> {
    let linux = spec.linux().as_ref();
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        for (at, option) in mount.options().iter().flatten().enumerate() {
            let (host, number): (fn(_, _) -> _, _) = match option.split_once('=') {
                Some(("uid", number)) => (namespaces::host_uid, number),
                Some(("gid", number)) => (namespaces::host_gid, number),
                _ => continue,
            };
            let Ok(id) = number.parse() else { continue };
            if host(linux, id).is_none() {
                return Err(Error::config(
                    format!("/mounts/{index}/options/{at}"),
                    format!("`{option}`: {id} is not mapped in the container's user namespace"),
                )
                .hint("leave the option away, or map that id"));
            }
        }
    }
    Ok(())
}

/// How much a container depends on a cgroup of its own.
#[derive(Debug, Clone, Copy)]
pub struct Demand {
    /// Missing permissions are to be put up with.
    rootless: bool,
    named: bool,
    limited: bool,
}

impl Demand {
    pub fn of(request: &Request, spec: &Spec, limits: &cgroups::Plan) -> Demand {
        Demand {
            rootless: request.rootless,
            named: wanted(spec).is_ok_and(|path| path.is_some()),
            limited: !limits.writes.is_empty() || !limits.unified.is_empty(),
        }
    }

    /// Whether the container may do without a cgroup that could not be had.
    ///
    /// # Errors
    /// It was asked for, by its path or by a limit; or something else than permission was missing.
    pub fn renounce(self, error: Error) -> Result<()> {
        let permission = matches!(
            error.code(),
            // ENOENT: moving between parts that are delegated to different namespaces, cgroups(7).
            Some(Errno::EACCES | Errno::EPERM | Errno::EROFS | Errno::ENOENT)
        );
        if !self.rootless || !permission || self.named {
            return Err(error);
        }
        if self.limited {
            let missing = Error::new(
                "rootless needs no limits + no cgrouppath when no permission is granted for cgroups",
            )
            .at("/linux/resources")
            .because(error.to_string())
            .hint(
                "run husk in a cgroup of the user's own: systemd-run --user --scope -p Delegate=yes",
            );
            return Err(missing);
        }
        log::debug(format_args!("no cgroup for the container: {error}"));
        Ok(())
    }

    /// Whether a process of the caller can be born in it. Making a directory takes less than moving
    /// there: the cgroup above both must be the caller's, cgroups(7), "Delegation containment".
    pub fn try_out(self, cgroup: &Cgroup) -> Result<()> {
        if !self.rootless {
            return Ok(());
        }
        process::try_cgroup(cgroup.fd()).or_fail(|errno| {
            Error::new("enter cgroup")
                .on(cgroup.path().display())
                .at("/linux/cgroupsPath")
                .errno(errno)
                .hint(
                    "the cgroup above this one and husk's own must be the user's: run husk by \
                     systemd-run --user --scope",
                )
        })
    }

    /// Without a cgroup nothing can be limited.
    pub fn forgo(self) -> Result<()> {
        if !self.limited {
            return Ok(());
        }
        Err(Error::config(
            "/linux/resources",
            "cannot set limits without a cgroup: the cgroup manager is disabled",
        )
        .hint("leave --cgroup-manager disabled away, or take the limits out"))
    }
}

/// `linux.cgroupsPath`.
pub fn wanted(spec: &Spec) -> Result<Option<&str>> {
    let linux = spec.linux().as_ref();
    linux
        .and_then(|linux| linux.cgroups_path().as_deref())
        .filter(|path| !path.as_os_str().is_empty())
        .map(|path| {
            path.to_str()
                .ok_or_else(|| Error::config("/linux/cgroupsPath", "not UTF-8"))
        })
        .transpose()
}

/// The tree, and where in it the container's cgroup is to be.
pub struct Whereabouts {
    pub hierarchy: Hierarchy,
    /// Empty where systemd is still to say it.
    pub below: PathBuf,
}

impl Whereabouts {
    pub fn path(&self) -> Option<PathBuf> {
        let known = !self.below.as_os_str().is_empty();
        known.then(|| self.hierarchy.mount().join(&self.below))
    }
}

/// `None` if the container gets no cgroup.
pub fn whereabouts(request: &Request, spec: &Spec, demand: Demand) -> Result<Option<Whereabouts>> {
    if request.cgroups == Cgroups::None {
        demand.forgo()?;
        return Ok(None);
    }
    let hierarchy = match Hierarchy::find() {
        Err(error) if request.rootless => {
            demand.renounce(error.errno(Errno::ENOENT))?;
            return Ok(None);
        }
        found => found?,
    };
    let below = match (request.cgroups, wanted(spec)?) {
        (Cgroups::Systemd, _) => PathBuf::new(),
        // At the top an ordinary user has no say, but perhaps where he is.
        (_, None) if request.rootless => hierarchy
            .beside_caller()
            .join(cgroups::path(None, request.id)?),
        (_, path) => cgroups::path(path, request.id)?,
    };
    Ok(Some(Whereabouts { hierarchy, below }))
}
