//! Who makes a container's cgroup, and where.

use super::create::{Cgroups, Request};
use super::plan::Plan;
use super::record::{self, Home};
use super::rootless::{self, Whereabouts};
use crate::cgroups::systemd::{Scope, Wanted};
use crate::cgroups::{Place, Site};
use crate::error::Result;

pub enum Ground<'h> {
    /// husk, before there is a process.
    Tree(Site<'h>),
    /// systemd, for a process that is there.
    Unit(Box<Scope>),
    /// Nobody: the process stays where husk is.
    Nowhere,
}

impl<'h> Ground<'h> {
    /// Looks at the place, and changes nothing there.
    pub fn survey(
        whereabouts: Option<&'h Whereabouts>,
        request: &Request,
        plan: &mut Plan,
    ) -> Result<Ground<'h>> {
        match Ground::look(whereabouts, request, plan) {
            // What occupies the place may be the container of another command for this id, which has won.
            Err(_) if Home::open(request.root, request.id)?.is_some() => {
                Err(record::taken(request.id))
            }
            ground => ground,
        }
    }

    fn look(
        whereabouts: Option<&'h Whereabouts>,
        request: &Request,
        plan: &mut Plan,
    ) -> Result<Ground<'h>> {
        let Some(Whereabouts { hierarchy, below }) = whereabouts else {
            return Ok(Ground::Nowhere);
        };
        if request.cgroups != Cgroups::Systemd {
            return hierarchy.survey(below).map(Ground::Tree);
        }
        let annotations = plan.subject.annotations.iter();
        let wanted = Wanted {
            id: request.id,
            path: rootless::wanted(&plan.bundle.spec)?,
            annotations: annotations
                .map(|(key, value)| (key.as_str(), value.as_str()))
                .collect(),
        };
        let scope = Scope::plan(hierarchy, &wanted, &mut plan.cgroup)?;
        Ok(Ground::Unit(Box::new(scope)))
    }

    pub fn place(&self) -> Option<&Place> {
        match self {
            Ground::Tree(site) => Some(site.place()),
            Ground::Unit(scope) => Some(scope.place()),
            Ground::Nowhere => None,
        }
    }
}
