//! cgroup v2: where a container's limits are, and its processes together.
//!
//! [`plan`] and [`path`] turn config.json into what is to be done, without system calls.
//! [`Hierarchy::survey`] looks at the place, [`Site::make`] makes the [`Cgroup`], and its [`Place`]
//! is what the container's record keeps for later commands. [`systemd`] makes it in husk's place. Every file is reached from a directory's
//! descriptor by a single name.

mod apply;
mod attach;
mod change;
mod controllers;
mod convert;
pub mod devices;
mod file;
mod hierarchy;
mod plan;
mod processes;
mod remove;
mod stats;
pub mod systemd;
mod tree;
mod walk;
mod watch;

use std::ffi::OsStr;
use std::path::PathBuf;

pub use attach::Loaded;
pub use hierarchy::Hierarchy;
pub use plan::{Devices, Plan, plan};
pub use stats::{NetworkInterface, Stats};
pub use tree::{Cgroup, Place, Site};

use crate::error::{Error, Result};

/// Where the cgroup of container `id` is below the mount, from `linux.cgroupsPath`. An absolute and
/// a relative path mean the same place.
///
/// Without one it's `husk-<id>` at the top. There it is the same place whoever calls (a place below
/// the caller's own cgroup wouldn't be), the root may have processes beside sub-cgroups, on a
/// systemd host the controllers are already enabled and systemd leaves strangers at the top alone,
/// and no directory above is left to be made and removed.
///
/// What would name a unit for the systemd driver is a path, too: BuildKit in a dockerd with that driver
/// gives `system.slice:docker:ID` and runs the runtime without `--systemd-cgroup`.
///
/// # Errors
/// Paths that leave the tree or name its root.
pub fn path(cgroups_path: Option<&str>, id: &str) -> Result<PathBuf> {
    const POINTER: &str = "/linux/cgroupsPath";
    let Some(path) = cgroups_path.filter(|path| !path.is_empty()) else {
        let name = format!("husk-{id}");
        if name.len() > LONGEST || !file::is_name(OsStr::new(&name)) {
            return Err(Error::new("name cgroup")
                .on(name)
                .because("the id makes no name of a cgroup")
                .hint("choose a shorter id, or set linux.cgroupsPath"));
        }
        return Ok(name.into());
    };
    let below = path.strip_prefix('/').unwrap_or(path);
    if below.is_empty() {
        return Err(Error::config(
            POINTER,
            "\"/\" is the root of the cgroup tree, which can't be a container's",
        ));
    }
    for name in below.split('/') {
        let wrong = match name {
            "" => "has an empty element",
            "." | ".." => "has an element \".\" or \"..\"",
            _ if name.len() > LONGEST => "has an element of more than 255 bytes",
            _ if !file::is_name(OsStr::new(name)) => "has a line break or NUL",
            _ => continue,
        };
        return Err(Error::config(POINTER, format!("{path:?} {wrong}")));
    }
    Ok(below.into())
}

/// `NAME_MAX`.
const LONGEST: usize = 255;

#[cfg(test)]
mod tests;
