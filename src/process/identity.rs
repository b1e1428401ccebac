//! Who the program is and what it may do: ids and capabilities.

use std::str::FromStr;

use caps::Capability;
use nix::errno::Errno;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid};
use oci_spec::runtime as oci;

use crate::error::{Error, Result, Step};
use crate::sys::{self, prctl};

/// The five sets of capabilities(7) as bit masks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sets {
    bounding: u64,
    effective: u64,
    permitted: u64,
    inheritable: u64,
    ambient: u64,
}

#[derive(Debug)]
pub struct Identity {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
    /// In a user namespace that may have no say in groups, user_namespaces(7).
    confined: bool,
    umask: Option<Mode>,
    sets: Sets,
    pub no_new_privileges: bool,
    /// Under no circumstances touched if `None`.
    pub oom_score_adj: Option<i32>,
}

impl Identity {
    pub fn plan(process: &oci::Process, linux: Option<&oci::Linux>) -> Identity {
        let user = process.user();
        let groups = user.additional_gids().iter().flatten();
        let listed = linux.and_then(|linux| linux.namespaces().as_ref());
        let is_user = |one: &oci::LinuxNamespace| one.typ() == oci::LinuxNamespaceType::User;
        let own = listed.is_some_and(|listed| listed.iter().any(is_user));
        Identity {
            confined: own || crate::namespaces::nested(),
            uid: Uid::from_raw(user.uid()),
            gid: Gid::from_raw(user.gid()),
            groups: groups.map(|&gid| Gid::from_raw(gid)).collect(),
            umask: user
                .umask()
                .map(|bits| Mode::from_bits_truncate(bits & 0o777)),
            sets: process
                .capabilities()
                .as_ref()
                .map_or(Sets::default(), Sets::of),
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            oom_score_adj: process.oom_score_adj(),
        }
    }

    pub fn uid(&self) -> Uid {
        self.uid
    }

    /// Becomes the user. Capabilities stay permitted until [`Identity::restrict`].
    pub fn assume(&self, caller_umask: Mode) -> Result<()> {
        umask(self.umask.unwrap_or(caller_umask));
        self.drop_bounding()?;
        let unmapped = |error: Error, errno, id| match errno {
            Errno::EINVAL => error.because(format!("{id} is not mapped in the user namespace")),
            _ => error,
        };
        match sys::process::set_groups(&self.groups) {
            Err(Errno::EPERM) if self.groups.is_empty() && self.confined => {}
            done => done.or_fail(|errno| {
                let error = Error::new("set groups")
                    .at("/process/user/additionalGids")
                    .errno(errno);
                match errno {
                    Errno::EPERM => error.hint(
                        "a user namespace with nothing but its maker's group allows no others: map a \
                         range of groups (/etc/subgid)",
                    ),
                    _ => unmapped(error, errno, "one of them".into()),
                }
            })?,
        }
        sys::process::set_gids(self.gid).or_fail(|errno| {
            let error = Error::new("set gid")
                .on(self.gid)
                .at("/process/user/gid")
                .errno(errno);
            unmapped(error, errno, format!("gid {}", self.gid))
        })?;
        if !self.uid.is_root() {
            prctl::set_keep_capabilities(true).step("keep capabilities", "")?;
        }
        sys::process::set_uids(self.uid).or_fail(|errno| {
            let error = Error::new("set uid")
                .on(self.uid)
                .at("/process/user/uid")
                .errno(errno);
            let error = unmapped(error, errno, format!("uid {}", self.uid));
            match errno {
                Errno::EAGAIN => error.hint("RLIMIT_NPROC of that user is used up"),
                _ => error,
            }
        })
    }

    fn drop_bounding(&self) -> Result<()> {
        for capability in 0..64 {
            if self.sets.bounding & 1 << capability != 0 {
                continue;
            }
            match prctl::drop_bounding(capability) {
                // Past the last one of this kernel.
                Err(Errno::EINVAL) => break,
                done => done.or_fail(|errno| {
                    Error::new("drop capability")
                        .at("/process/capabilities/bounding")
                        .errno(errno)
                })?,
            }
        }
        Ok(())
    }

    /// Makes everything that is permitted effective again: the change of user took it away.
    pub fn regain(&self) -> Result<()> {
        let fail = |errno| Error::new("keep capabilities").errno(errno);
        let held = prctl::capabilities().or_fail(fail)?;
        prctl::set_capabilities(prctl::Capabilities {
            effective: held.permitted,
            ..held
        })
        .or_fail(fail)
    }

    /// Acts with the capabilities of the configuration, without giving up the others yet.
    pub fn act(&self) -> Result<()> {
        let fail = |errno| Error::new("set effective capabilities").errno(errno);
        let held = prctl::capabilities().or_fail(fail)?;
        prctl::set_capabilities(prctl::Capabilities {
            effective: self.sets.effective & self.sets.permitted & held.permitted,
            ..held
        })
        .or_fail(fail)
    }

    /// Reduces the capabilities to those of the configuration. What the caller itself doesn't have
    /// can't be given: the specification wants no error for that (config.md, "capabilities").
    pub fn restrict(&self) -> Result<()> {
        let fail = |errno| {
            Error::new("set capabilities")
                .at("/process/capabilities")
                .errno(errno)
        };
        let held = prctl::capabilities().or_fail(fail)?.permitted;
        let permitted = self.sets.permitted & held;
        let inheritable = self.sets.inheritable & held & self.sets.bounding;
        prctl::set_capabilities(prctl::Capabilities {
            effective: self.sets.effective & permitted,
            permitted,
            inheritable,
        })
        .or_fail(fail)?;
        prctl::clear_ambient().or_fail(fail)?;
        let ambient = self.sets.ambient & permitted & inheritable;
        for capability in (0..64).filter(|bit| ambient & 1 << bit != 0) {
            prctl::raise_ambient(capability)
                .or_fail(|errno| fail(errno).at("/process/capabilities/ambient"))?;
        }
        Ok(())
    }
}

impl Sets {
    fn of(capabilities: &oci::LinuxCapabilities) -> Sets {
        let mask = |set: &Option<oci::Capabilities>| {
            set.iter()
                .flatten()
                .filter_map(bit)
                .fold(0, |mask, bit| mask | bit)
        };
        Sets {
            bounding: mask(capabilities.bounding()),
            effective: mask(capabilities.effective()),
            permitted: mask(capabilities.permitted()),
            inheritable: mask(capabilities.inheritable()),
            ambient: mask(capabilities.ambient()),
        }
    }
}

/// `None` for a capability that is newer than this program: it is warned of when the config is read.
fn bit(capability: &oci::Capability) -> Option<u64> {
    let name = capability.to_string();
    let name = match name.starts_with("CAP_") {
        true => name,
        false => format!("CAP_{name}"),
    };
    Capability::from_str(&name)
        .ok()
        .map(|known| known.bitmask())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_become_their_bits() {
        let sets: oci::LinuxCapabilities = serde_json::from_str(
            r#"{"bounding": ["CAP_CHOWN", "CAP_KILL"], "permitted": ["CAP_CHECKPOINT_RESTORE"],
                "effective": [], "ambient": ["CAP_NET_RAW"]}"#,
        )
        .unwrap();
        assert_eq!(
            Sets::of(&sets),
            Sets {
                bounding: 1 | 1 << 5,
                permitted: 1 << 40,
                ambient: 1 << 13,
                ..Sets::default()
            }
        );
    }
}
