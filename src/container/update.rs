//! Other limits for a container that exists.

use std::path::Path;

use oci_spec::runtime::LinuxResources;

use super::{Status, find_locked};
use crate::bundle;
use crate::cgroups::{self, Devices};
use crate::error::{Error, Result};
use crate::log;

/// Changes the limits that `resources` name and no other; device rules stay. `pids` is `pids.limit`.
///
/// # Errors
/// All limits are then as they were before.
pub fn update(
    root: &Path,
    id: &str,
    mut resources: LinuxResources,
    pids: Option<i64>,
) -> Result<()> {
    let container = find_locked(root, id)?;
    if container.status()? == Status::Stopped {
        return Err(Error::new("update container")
            .on(id)
            .because("container not running"));
    }
    let cgroup = container
        .cgroup()?
        .ok_or_else(|| Error::new("cgroup not exist").on(id))?;
    cgroup.complete(&mut resources);
    bundle::check_resources(&resources)?;
    let plan = cgroups::plan(Some(&resources), pids, Devices::Keep, "")?;
    for warning in &plan.warnings {
        log::warning(format_args!("{warning}"));
    }
    cgroup.change(&plan)
}
