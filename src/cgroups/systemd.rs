//! systemd as the one who makes a container's cgroup: a transient scope, or a slice.
//!
//! systemd wants a process for a scope, and moves it there. So the container's first process is born where
//! husk is, waits, and goes on when its scope is there: [`Scope::start`]. From then on the cgroup is like
//! any other; what systemd has no property for is written to its files. A scope is delegated to its
//! processes: systemd leaves what is below it alone, and its files but at a `daemon-reload`.
//!
//! Device rules are no matter of systemd's: its lists can't say everything and ask for files below
//! `/dev`. husk attaches its own program as ever, and systemd takes away only programs of its own.
//!
//! There are two round trips for a start and two for a stop, a connection each.

mod annotations;
mod bus;
mod jobs;
mod properties;
mod unit;
mod wire;

use std::os::fd::AsFd;

use nix::fcntl::OFlag;
use nix::sys::stat::fstat;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use self::jobs::{Manager, is_absence, own_manager};
use self::properties::{Property, When};
use self::unit::Unit;
use self::wire::Value;
use super::controllers;
use super::hierarchy::{Hierarchy, is_cgroup2, open_absolute};
use super::plan::Plan;
use super::tree::{Cgroup, Place};
use crate::error::{Error, Result, Step};

/// Names of annotations that are properties of a container's unit.
pub use self::annotations::PREFIX as ANNOTATIONS;

/// A unit as a record keeps it: everything that it takes to speak of it to the manager that has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    pub unit: String,
    /// The address of a user's manager; `None` is the machine's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// A unit that is to be started, with nothing done yet.
#[derive(Debug)]
pub struct Scope {
    manager: Manager,
    unit: Unit,
    properties: Vec<Property>,
    place: Place,
}

/// What a unit is planned from.
#[derive(Debug)]
pub struct Wanted<'a> {
    pub id: &'a str,
    /// `linux.cgroupsPath`
    pub path: Option<&'a str>,
    pub annotations: Vec<(&'a str, &'a str)>,
}

impl Scope {
    /// Asks the caller's manager who it is, and changes nothing. The plan's quota becomes what systemd makes
    /// of it.
    ///
    /// # Errors
    /// There is no systemd, names that no unit has, properties that nobody may set.
    pub fn plan(hierarchy: &Hierarchy, wanted: &Wanted, plan: &mut Plan) -> Result<Scope> {
        let user = own_manager()?;
        let slice = match user {
            None => "system.slice",
            Some(_) => "user.slice",
        };
        let unit = Unit::of(wanted.path, wanted.id, slice)?;
        let mut asked = Vec::new();
        for (key, value) in &wanted.annotations {
            asked.extend(annotations::property(key, value)?);
        }
        asked.sort_by(|a, b| a.name.cmp(&b.name));
        let owner = Owner {
            unit: unit.name.clone(),
            user,
        };
        let manager = Manager::connect(&owner).map_err(|error| match is_absence(&error) {
            true => error.hint("is systemd the first process here? leave --systemd-cgroup away"),
            false => error,
        })?;
        properties::round_quota(plan);
        let mut properties = base(&unit, wanted.id);
        properties.retain(|own| !asked.iter().any(|other| other.name == own.name));
        properties.append(&mut asked);
        properties.append(&mut properties::of(plan, manager.version, When::Start));
        let place = Place {
            mount: hierarchy.mount().into(),
            below: manager.cgroup.join(unit.path()),
            made: 0,
            inode: None,
            owner: Some(owner),
        };
        if !unit.is_slice() {
            place.check_idle()?;
        }
        Ok(Scope {
            manager,
            unit,
            properties,
            place,
        })
    }

    /// To be recorded before [`Scope::start`].
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Starts the unit with this process in it.
    ///
    /// # Errors
    /// `EEXIST` if the unit is somebody else's.
    pub fn start(mut self, pid: Pid) -> Result<Cgroup> {
        if !self.unit.is_slice() {
            self.properties
                .push(own("PIDs", Value::Pids(vec![pid.as_raw() as u32])));
        }
        self.manager.start(&self.properties)?;
        if !self.unit.is_slice() {
            let path = format!("/proc/{pid}/cgroup");
            let text = std::fs::read_to_string(&path).step("read", &path)?;
            self.place.below = unit::place_of(&text, &self.unit.name).ok_or_else(|| {
                Error::new("find the cgroup of systemd unit")
                    .on(&self.unit.name)
                    .because(format!("{path} doesn't name it: {}", text.trim()))
                    .hint("systemd and husk must be in the same pid and cgroup namespaces")
            })?;
        }
        let cgroup = self.open()?;
        // systemd hands down those controllers that it has properties for.
        if let Some(hierarchy) = Hierarchy::at(&self.place.mount)? {
            controllers::enable(&hierarchy, &self.place, cgroup.fd())?;
        }
        // Other than a scope a slice takes no processes.
        if self.unit.is_slice() {
            cgroup.add(pid)?;
        }
        Ok(cgroup)
    }

    fn open(&mut self) -> Result<Cgroup> {
        let path = self.place.path();
        let dir = open_absolute(&path, OFlag::O_RDONLY).step("open cgroup", path.display())?;
        if !is_cgroup2(dir.as_fd()).step("statfs", path.display())? {
            return Err(Error::new("open cgroup")
                .on(path.display())
                .because("it is not on cgroup v2"));
        }
        self.place.inode = Some(fstat(&dir).step("stat", path.display())?.st_ino);
        Ok(Cgroup::adopted(dir, self.place.clone()))
    }
}

fn own(name: &str, value: Value) -> Property {
    Property {
        name: name.into(),
        value,
        pointer: String::new(),
    }
}

/// What every unit of husk's has.
fn base(unit: &Unit, id: &str) -> Vec<Property> {
    let mut properties = vec![
        own("Description", Value::Text(format!("husk container {id}"))),
        // It has nothing to do with when the machine starts or stops its services.
        own("DefaultDependencies", Value::Bool(false)),
    ];
    properties.extend(
        [
            "CPUAccounting",
            "IOAccounting",
            "MemoryAccounting",
            "TasksAccounting",
        ]
        .map(|name| own(name, Value::Bool(true))),
    );
    match unit.is_slice() {
        true => properties.push(own("Wants", Value::Texts(vec![unit.slice.clone()]))),
        false => {
            properties.push(own("Slice", Value::Text(unit.slice.clone())));
            properties.push(own("Delegate", Value::Bool(true)));
        }
    }
    properties
}

impl Owner {
    /// Stops the unit, whose processes have been killed, and waits until it is gone; false if its manager
    /// isn't there.
    pub(super) fn stop(&self) -> Result<bool> {
        let mut manager = match Manager::connect(self) {
            // A user who has logged out: his units went with their manager.
            Err(error) if is_absence(&error) => return Ok(false),
            manager => manager?,
        };
        manager.stop().map(|()| true)
    }

    /// Makes new limits known to systemd, so that they survive a `daemon-reload`. The plan's quota becomes
    /// what systemd makes of it; it is then to be written to the cgroup's files as well.
    pub fn update(&self, plan: &mut Plan) -> Result<()> {
        properties::round_quota(plan);
        let mut manager = Manager::connect(self)?;
        let properties = properties::of(plan, manager.version, When::Later);
        if properties.is_empty() {
            return Ok(());
        }
        manager.set(&properties)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_has_neither_a_slice_nor_delegation() {
        let unit = Unit::of(Some("a.slice::a-x.slice"), "x", "system.slice").unwrap();
        let properties = base(&unit, "x");
        assert!(properties.iter().any(|p| p.name == "Wants"));
        assert!(
            properties
                .iter()
                .all(|p| p.name != "Delegate" && p.name != "Slice")
        );
    }

    #[test]
    fn records_of_units_are_short() {
        let owner = Owner {
            unit: "a.scope".into(),
            user: None,
        };
        let text = serde_json::to_string(&owner).unwrap();
        assert_eq!(text, r#"{"unit":"a.scope"}"#);
        assert_eq!(serde_json::from_str::<Owner>(&text).unwrap(), owner);
    }
}
