//! Classes of cache and memory bandwidth: `linux.intelRdt` by way of resctrl, the kernel's
//! Documentation/filesystems/resctrl.rst; the rules are those of runtime-spec's config-linux.md, "IntelRdt".
//!
//! A group is a directory. Processes are in the one whose `tasks` their pid was written to, and so are the
//! processes that they make. Nothing here is touched unless config.json asks for it.

mod schemata;
mod stats;
mod tree;

use std::path::PathBuf;

use nix::unistd::Pid;
use oci_spec::runtime::{Linux, LinuxIntelRdt};
use serde::{Deserialize, Serialize};

use self::schemata::Schemata;
use self::tree::{Group, MONITORS, Tree};
use crate::error::{Error, Locate, Result};

const POINTER: &str = "/linux/intelRdt";
const CLASS: &str = "/linux/intelRdt/closID";
const MONITORING: &str = "/linux/intelRdt/enableMonitoring";

/// The group of a container: what its record keeps, from before anything is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Where resctrl is mounted.
    mount: PathBuf,
    /// The group's name; `None` is the default group, which has everything.
    group: Option<String>,
    /// The group is husk's to make.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    made: Option<Made>,
    /// The monitoring group below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    monitor: Option<Made>,
}

/// A directory that husk makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Made {
    name: String,
    /// Others may be in it: config.json has named it.
    shared: bool,
    /// Once it exists: tells it from one that someone else made meanwhile.
    inode: Option<u64>,
}

impl Made {
    /// # Errors
    /// Its pointer is that of what asked for it.
    fn make(&mut self, parent: &Group, pointer: &str) -> Result<Group> {
        let group = parent.make(&self.name, pointer)?;
        // Without it nobody would know whose it is.
        let inode = group.inode().inspect_err(|_| parent.forget(&self.name))?;
        self.inode = Some(inode);
        Ok(group)
    }

    /// A record from before it was made may name what someone else made: that is removed only if nobody is
    /// in it, as is a group that others may have joined.
    fn remove(&self, parent: &Group) -> Result<()> {
        let Some(group) = parent.open(&self.name)? else {
            return Ok(());
        };
        let ours = match self.inode {
            Some(inode) => group.inode()? == inode && (!self.shared || group.is_empty()?),
            None => group.is_empty()?,
        };
        match ours {
            true => parent.remove(&self.name),
            false => Ok(()),
        }
    }
}

/// What is to be made, checked against what is there.
#[derive(Debug)]
pub struct Plan {
    tree: Tree,
    place: Place,
    schemata: Schemata,
}

impl Plan {
    /// `None` if config.json doesn't ask for it; then the host isn't even looked at.
    ///
    /// # Errors
    /// No resctrl is mounted; the class isn't there or isn't as described; no monitoring here.
    pub fn new(linux: Option<&Linux>, id: &str) -> Result<Option<Plan>> {
        let Some(rdt) = linux.and_then(|linux| linux.intel_rdt().as_ref()) else {
            return Ok(None);
        };
        Plan::within(Tree::find()?, rdt, id).map(Some)
    }

    fn within(tree: Tree, rdt: &LinuxIntelRdt, id: &str) -> Result<Plan> {
        let class = rdt.clos_id().as_deref().filter(|class| !class.is_empty());
        let schemata = Schemata::of(
            rdt.l3_cache_schema().as_deref(),
            rdt.mem_bw_schema().as_deref(),
            rdt.schemata().as_deref().unwrap_or_default(),
        );
        let group = match class {
            Some("/") => None,
            Some(class) => Some(class),
            None => Some(id),
        };
        let mut place = Place {
            mount: tree.mount().to_owned(),
            group: group.map(str::to_owned),
            made: None,
            monitor: None,
        };
        let root = tree.root()?;
        let found = match group {
            None => Some(root),
            Some(name) => root.open(name).within(|| CLASS.into())?,
        };
        match (&found, class) {
            (Some(group), Some(_)) => check(&tree, group, &schemata)?,
            (Some(_), None) => {
                return Err(Error::new("make resctrl group")
                    .on(id)
                    .at(POINTER)
                    .because("a group with the container's id exists, and it isn't husk's")
                    .hint("name it as closID, or remove it"));
            }
            (None, Some(class)) if schemata.is_empty() => {
                return Err(Error::new("find resctrl group")
                    .on(class)
                    .at(CLASS)
                    .because("it does not exist, and nothing says what it is to be")
                    .hint(
                        "make it beforehand, or describe it: l3CacheSchema, memBwSchema, schemata",
                    ));
            }
            (None, _) => {
                place.made = Some(Made {
                    name: group.unwrap_or(id).to_owned(),
                    shared: class.is_some(),
                    inode: None,
                });
            }
        }
        if rdt.enable_monitoring().unwrap_or(false) {
            if !tree.monitors()? {
                return Err(Error::config(MONITORING, "resctrl monitors nothing here")
                    .hint("the processor or the kernel has no cache or bandwidth monitoring"));
            }
            place.monitor = Some(Made {
                name: id.to_owned(),
                shared: false,
                inode: None,
            });
        }
        Ok(Plan {
            tree,
            place,
            schemata,
        })
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Makes the groups; the place, now with what is known of them.
    ///
    /// # Errors
    /// What this made is gone again.
    pub fn make(self) -> Result<Place> {
        let Plan {
            tree,
            mut place,
            schemata,
        } = self;
        // The kernel's document asks for it: who makes a group holds this until it is complete.
        let _locked = tree.lock()?;
        match place.make_in(&tree, &schemata) {
            Ok(()) => Ok(place),
            Err(error) => {
                // Only what has got its inode: the rest was never made.
                place.made = place.made.filter(|made| made.inode.is_some());
                place.monitor = place.monitor.filter(|made| made.inode.is_some());
                if let Err(error) = place.remove_in(&tree) {
                    crate::log::warning(format_args!("{error}"));
                }
                Err(error)
            }
        }
    }
}

/// Whether a group that exists is what is asked for.
fn check(tree: &Tree, group: &Group, schemata: &Schemata) -> Result<()> {
    if !group.has_tasks() {
        return Err(Error::new("find resctrl group")
            .on(group.path().display())
            .at(CLASS)
            .because("it is no group: it has no tasks"));
    }
    if schemata.is_empty() {
        return Ok(());
    }
    let current = group.read("schemata").within(|| CLASS.into())?;
    let granularity = |resource: &str| tree.granularity(resource);
    match schemata.differs(&current, granularity) {
        None => Ok(()),
        Some(difference) => Err(Error::new("compare resctrl group")
            .on(group.path().display())
            .at(CLASS)
            .because(format!("it exists and is another one: {difference}"))
            .hint("leave the schemata away to use it as it is, or name another closID")),
    }
}

impl Place {
    fn make_in(&mut self, tree: &Tree, schemata: &Schemata) -> Result<()> {
        let root = tree.root()?;
        let group = match (&mut self.made, &self.group) {
            (Some(made), _) => match made.make(&root, POINTER) {
                // Another container of that class was faster.
                Err(error) if made.shared && error.code() == Some(nix::errno::Errno::EEXIST) => {
                    let group = root.existing(&made.name)?;
                    check(tree, &group, schemata)?;
                    self.made = None;
                    group
                }
                made => {
                    let group = made?;
                    if !schemata.is_empty() {
                        tree.explain(group.write("schemata", &schemata.text()))
                            .within(|| POINTER.into())?;
                    }
                    group
                }
            },
            (None, Some(name)) => root.existing(name)?,
            (None, None) => root,
        };
        if let Some(monitor) = &mut self.monitor {
            monitor.make(&group.existing(MONITORS)?, MONITORING)?;
        }
        Ok(())
    }

    /// Puts a process there, and whatever it makes from now on.
    pub fn join(&self, pid: Pid) -> Result<()> {
        self.join_in(&self.tree()?, pid)
    }

    fn join_in(&self, tree: &Tree, pid: Pid) -> Result<()> {
        let pid = pid.to_string();
        let group = self.group_in(tree)?;
        // The class first: a monitoring group takes only processes of its own class.
        tree.explain(group.write("tasks", &pid))
            .within(|| POINTER.into())?;
        if let Some(monitor) = &self.monitor {
            let monitors = group.existing(MONITORS)?;
            let monitor = monitors.existing(&monitor.name)?;
            tree.explain(monitor.write("tasks", &pid))
                .within(|| MONITORING.into())?;
        }
        Ok(())
    }

    /// Writes these lines: `L3:…` and `MB:…`.
    pub fn update(&self, cache: Option<&str>, bandwidth: Option<&str>) -> Result<()> {
        self.update_in(&self.tree()?, cache, bandwidth)
    }

    fn update_in(&self, tree: &Tree, cache: Option<&str>, bandwidth: Option<&str>) -> Result<()> {
        for (pointer, line, prefix) in [
            ("l3CacheSchema", cache, ""),
            ("memBwSchema", bandwidth, "MB:"),
        ] {
            let line = line.unwrap_or_default();
            if line.contains('\n') || !line.is_empty() && !line.starts_with(prefix) {
                return Err(Error::new("update resctrl group")
                    .on(line)
                    .at(format!("{POINTER}/{pointer}"))
                    .because("it is not one line of that kind"));
            }
        }
        let schemata = Schemata::of(cache, bandwidth, &[]);
        if schemata.is_empty() {
            return Ok(());
        }
        let _locked = tree.lock()?;
        tree.explain(self.group_in(tree)?.write("schemata", &schemata.text()))
    }

    /// Removes what husk made. What isn't there any more is no error.
    pub fn remove(&self) -> Result<()> {
        if self.made.is_none() && self.monitor.is_none() {
            return Ok(());
        }
        // All groups end with the mount.
        match Tree::at(&self.mount)? {
            Some(tree) => {
                let _locked = tree.lock()?;
                self.remove_in(&tree)
            }
            None => Ok(()),
        }
    }

    fn remove_in(&self, tree: &Tree) -> Result<()> {
        let root = tree.root()?;
        if let Some(monitor) = &self.monitor {
            let group = match &self.group {
                Some(name) => root.open(name)?,
                None => Some(tree.root()?),
            };
            let monitors = group.map(|group| group.open(MONITORS)).transpose()?;
            if let Some(monitors) = monitors.flatten() {
                monitor.remove(&monitors)?;
            }
        }
        match &self.made {
            Some(made) => made.remove(&root),
            None => Ok(()),
        }
    }

    fn tree(&self) -> Result<Tree> {
        Tree::at(&self.mount)?.ok_or_else(|| {
            Error::new("find resctrl")
                .on(self.mount.display())
                .at(POINTER)
                .because("it is not mounted any more")
        })
    }

    fn group_in(&self, tree: &Tree) -> Result<Group> {
        match &self.group {
            Some(name) => tree.root()?.existing(name),
            None => tree.root(),
        }
    }
}

#[cfg(test)]
mod tests;
