//! Enabling controllers down a path, and saying why one isn't there.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;

use super::file;
use super::hierarchy::{Hierarchy, mounts};
use super::tree::Place;
use crate::bundle::did_you_mean;
use crate::error::{Error, Result, Step, phrase};

const CONTROLLERS: &str = "cgroup.controllers";
const SUBTREE: &str = "cgroup.subtree_control";

fn lists(words: &str, word: &str) -> bool {
    words.split_ascii_whitespace().any(|other| other == word)
}

/// Enables every controller of the root for the cgroup `leaf`, so far as that is possible: limits
/// may come later, and a nested engine expects what the host has. What can't be enabled is only an
/// error for a limit that needs it, see [`explain`].
///
/// # Errors
/// The cgroup is in a threaded part of the tree and can't hold processes.
pub fn enable(hierarchy: &Hierarchy, place: &Place, leaf: BorrowedFd) -> Result<()> {
    let path = place.path();
    let available = file::read(hierarchy.fd(), CONTROLLERS)
        .step("read", hierarchy.mount().join(CONTROLLERS).display())?;
    let enabled = file::read(leaf, CONTROLLERS).step("read", path.join(CONTROLLERS).display())?;
    if available
        .split_ascii_whitespace()
        .all(|controller| lists(&enabled, controller))
    {
        return Ok(());
    }
    descend(hierarchy, place, |at| {
        let available = file::read(at, CONTROLLERS)?;
        let enabled = file::read(at, SUBTREE)?;
        let missing: Vec<_> = available
            .split_ascii_whitespace()
            .filter(|controller| !lists(&enabled, controller))
            .collect();
        enable_at(at, &missing);
        Ok(())
    })
    .step("enable controllers for", path.display())?;
    let kind = file::read(leaf, "cgroup.type").unwrap_or_default();
    if kind.trim() == "domain invalid" {
        file::write(leaf, "cgroup.type", "threaded").or_fail(|errno| {
            Error::new("use cgroup")
                .on(path.display())
                .at("/linux/cgroupsPath")
                .because("the cgroup above it is threaded, so it can only be so too")
                .errno(errno)
        })?;
    }
    Ok(())
}

fn enable_at(at: BorrowedFd, missing: &[&str]) {
    if missing.is_empty() {
        return;
    }
    let all = missing
        .iter()
        .map(|controller| format!("+{controller}"))
        .collect::<Vec<_>>();
    match file::write(at, SUBTREE, &all.join(" ")) {
        // EBUSY: it has processes of its own. Taking the controllers that are still possible then
        // would make it threaded, which nobody asked for.
        Ok(()) | Err(Errno::EBUSY) => {}
        // One that fails (cpu with realtime processes about, say) must not keep off the others.
        Err(_) => {
            for one in all {
                let _ = file::write(at, SUBTREE, &one);
            }
        }
    }
}

/// Visits the root and all directories above the cgroup.
fn descend(
    hierarchy: &Hierarchy,
    place: &Place,
    mut visit: impl FnMut(BorrowedFd) -> nix::Result<()>,
) -> nix::Result<()> {
    let mut dir: Option<OwnedFd> = None;
    for name in place.below.iter() {
        let at = dir.as_ref().map_or(hierarchy.fd(), |dir| dir.as_fd());
        visit(at)?;
        dir = Some(file::open_dir(at, name)?);
    }
    Ok(())
}

/// Why `controller` can't be used in the cgroup at `place`, and a remedy; `None` if it can.
pub fn explain(place: &Place, controller: &str) -> Option<(String, Option<String>)> {
    let hierarchy = Hierarchy::at(&place.mount).ok()??;
    if !lists(&file::read(hierarchy.fd(), CONTROLLERS).ok()?, controller) {
        return Some(absent(&place.mount, controller));
    }
    // The first level from above at which it isn't handed down.
    let mut path = place.mount.clone();
    let mut names = place.below.iter();
    let mut reason = None;
    let _ = descend(&hierarchy, place, |at| {
        if !lists(&file::read(at, SUBTREE)?, controller) {
            let errno = file::write(at, SUBTREE, &format!("+{controller}")).err();
            reason = Some((path.join(SUBTREE), errno));
            return Err(Errno::ECANCELED);
        }
        path.extend(names.next());
        Ok(())
    });
    let (file, errno) = reason?;
    let reason = format!(
        "the {controller} controller is not enabled in {}",
        file.display()
    );
    Some(match errno {
        None => (reason, Some("it could be enabled now: try again".into())),
        Some(Errno::EBUSY) => (
            format!("{reason} and can't be: that cgroup has processes of its own"),
            Some(
                "a cgroup has either processes or controllers for those below it; choose \
                 linux.cgroupsPath elsewhere, or move the processes"
                    .into(),
            ),
        ),
        Some(Errno::EOPNOTSUPP) => (
            format!("{reason} and can't be: that part of the tree is threaded"),
            None,
        ),
        Some(errno) => (format!("{reason} and can't be: {}", phrase(errno)), None),
    })
}

impl Hierarchy {
    /// Why the tree as a whole hasn't got a controller, and a remedy; `None` if it has.
    pub fn lacks(&self, controller: &str) -> Option<(String, Option<String>)> {
        let available = file::read(self.fd(), CONTROLLERS).ok()?;
        (!lists(&available, controller)).then(|| absent(self.mount(), controller))
    }
}

/// Those of cgroup v2 whose files take values (cgroup-v2.rst).
const KNOWN: [&str; 8] = [
    "cpu", "cpuset", "hugetlb", "io", "memory", "misc", "pids", "rdma",
];

/// Why the root hasn't got it.
fn absent(mount: &Path, controller: &str) -> (String, Option<String>) {
    let old = match controller {
        "io" => "blkio",
        other => other,
    };
    let v1 = mounts()
        .unwrap_or_default()
        .into_iter()
        .find(|mount| mount.fs_type == "cgroup" && mount.super_options.contains_key(old));
    if let Some(v1) = v1 {
        return (
            format!(
                "the {controller} controller is on cgroup v1 at {}; husk uses cgroup v2 only",
                v1.mount_point.display()
            ),
            Some("boot with systemd.unified_cgroup_hierarchy=1 or cgroup_no_v1=all".into()),
        );
    }
    let table = std::fs::read_to_string("/proc/cgroups").unwrap_or_default();
    let row = table
        .lines()
        .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>())
        .find(|row| row.first() == Some(&old));
    match row.as_deref() {
        Some([_, _, _, "0"]) => (
            format!("the {controller} controller is switched off in this kernel"),
            Some(format!("remove cgroup_disable={old} from its command line")),
        ),
        Some([_, "0", ..]) => (
            format!(
                "the {controller} controller isn't handed down to {}",
                mount.display()
            ),
            Some("enable it in the cgroup that this tree is a part of".into()),
        ),
        Some(_) => (
            format!(
                "the {controller} controller is on a cgroup v1 hierarchy; husk uses cgroup v2 only"
            ),
            Some("boot with systemd.unified_cgroup_hierarchy=1 or cgroup_no_v1=all".into()),
        ),
        None => (
            format!(
                "no {controller} controller is on cgroup v2 at {}, nor does /proc/cgroups know one",
                mount.display()
            ),
            did_you_mean(controller, KNOWN),
        ),
    }
}
