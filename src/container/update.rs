//! Other limits for a container that exists.

use std::path::Path;

use oci_spec::runtime::LinuxResources;

use super::{Status, find_locked};
use crate::bundle;
use crate::cgroups::{self, Devices};
use crate::error::{Error, Result};
use crate::log;

/// What is to be changed.
#[derive(Debug)]
pub struct Change<'a> {
    /// The limits that are named, and no other; device rules stay.
    pub resources: LinuxResources,
    /// `pids.limit`.
    pub pids: Option<i64>,
    /// Lines for the resctrl group that `linux.intelRdt` asked for.
    pub l3_cache: Option<&'a str>,
    pub memory_bandwidth: Option<&'a str>,
}

/// Makes the change, with the lock that keeps other commands from the container.
///
/// # Errors
/// All limits are then as they were before.
pub fn update(root: &Path, id: &str, change: Change) -> Result<()> {
    let Change {
        mut resources,
        pids,
        l3_cache,
        memory_bandwidth,
    } = change;
    let container = find_locked(root, id)?;
    if container.status()? == Status::Stopped {
        return Err(Error::new("update container")
            .on(id)
            .because("container not running"));
    }
    let rdt = match (l3_cache, memory_bandwidth, &container.record.rdt) {
        (None, None, _) => None,
        (_, _, None) => {
            return Err(Error::new("update container")
                .on(id)
                .because("it has no resctrl group: its config.json has no linux.intelRdt"));
        }
        (.., rdt) => rdt.as_ref(),
    };
    let cgroup = container.require_cgroup()?;
    cgroup.complete(&mut resources);
    bundle::check_resources(&resources)?;
    let mut plan = cgroups::plan(Some(&resources), pids, Devices::Keep, "")?;
    for warning in &plan.warnings {
        log::warning(format_args!("{warning}"));
    }
    cgroup.change(&mut plan, || match rdt {
        Some(group) => group.update(l3_cache, memory_bandwidth),
        None => Ok(()),
    })
}
