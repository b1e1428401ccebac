//! Network devices of the host that a container gets, runtime-spec's config-linux.md, "Network Devices".
//!
//! husk moves them, gives them the addresses back that the kernel takes from them on the way, and sets them
//! up. Nothing of it is undone at the container's end: the kernel returns devices of hardware to the first
//! network namespace and removes the others. Only while a container is being made can it fail, or be killed, and
//! then the devices come back, by what the record says of them.

mod link;
mod netlink;

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, fstat};
use nix::unistd::Uid;
use oci_spec::runtime::Linux;
use serde::{Deserialize, Serialize};

use self::link::{Address, Link};
use self::netlink::{Refusal, Socket};
use crate::error::{Error, Result, Step, pointer_key};
use crate::sys::file::open;

const POINTER: &str = "/linux/netDevices";

/// A device of the host as it was, and its name in the container, which may have a `%d`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Device {
    link: Link,
    addresses: Vec<Address>,
    to: String,
}

impl Device {
    fn error(&self, step: &'static str) -> Error {
        let key = pointer_key(&self.link.name);
        Error::new(step)
            .on(&self.link.name)
            .at(format!("{POINTER}/{key}"))
    }

    /// Whether that is what it has become: the kernel moves it first and names it then.
    fn is_gone_as(&self, link: &Link) -> bool {
        let is_numbered = || {
            let Some((front, back)) = self.to.split_once("%d") else {
                return false;
            };
            let number = link.name.strip_prefix(front);
            let number = number.and_then(|rest| rest.strip_suffix(back));
            number.is_some_and(|number| number.parse::<u32>().is_ok())
        };
        let is_named = link.name == self.to || link.name == self.link.name || is_numbered();
        is_named && link.hardware == self.link.hardware
    }
}

/// The devices to move, from where husk is.
#[derive(Debug)]
pub struct Plan {
    /// The network namespace that husk is in.
    home: OwnedFd,
    host: Socket,
    /// What the container joins; else it gets a namespace of its own.
    joined: Option<OwnedFd>,
    devices: Vec<Device>,
}

impl Plan {
    /// `None` if no devices are asked for. `joined` is the network namespace that the container joins.
    ///
    /// # Errors
    /// For a device that isn't there or can't be moved, and a name that is taken.
    pub fn new(linux: Option<&Linux>, joined: Option<BorrowedFd>) -> Result<Option<Plan>> {
        let asked = linux.and_then(|linux| linux.net_devices().as_ref());
        let Some(asked) = asked.filter(|devices| !devices.is_empty()) else {
            return Ok(None);
        };
        if !Uid::effective().is_root() {
            return Err(Error::config(
                POINTER,
                "network devices are not supported for rootless containers",
            )
            .hint("moving a device needs CAP_NET_ADMIN on the host: run husk as root"));
        }
        let home = own_namespace()?;
        let there = match joined {
            Some(namespace) if same(namespace, home.as_fd())? => {
                return Err(Error::config(
                    POINTER,
                    "the network namespace to join is the one that the devices are in",
                ));
            }
            Some(namespace) => Some(Socket::open_in(namespace, home.as_fd())?),
            None => None,
        };
        let host = Socket::open()?;
        let mut names: Vec<_> = asked.iter().collect();
        names.sort_by_key(|(name, _)| *name);
        let mut devices = Vec::new();
        for (name, device) in names {
            let to = device.name().as_deref().filter(|to| !to.is_empty());
            devices.push(look_at(&host, there.as_ref(), name, to.unwrap_or(name))?);
        }
        let mut seen = HashMap::new();
        for device in &devices {
            if let Some(other) = seen.insert(device.link.index, device) {
                return Err(device
                    .error("move network device")
                    .because(format!("it is asked for twice: also as {}", other.to)));
            }
        }
        let joined = joined.map(|namespace| namespace.try_clone_to_owned());
        let joined = joined.transpose().step("keep", "the network namespace")?;
        Ok(Some(Plan {
            home,
            host,
            joined,
            devices,
        }))
    }

    /// What a later command needs to take back what has moved, if the container doesn't come to be. `joined` is the
    /// path of the network namespace that the container joins.
    ///
    /// # Errors
    /// What /proc doesn't tell.
    pub fn journey(&self, joined: Option<&Path>) -> Result<Journey> {
        Ok(Journey {
            from: identity(self.home.as_fd())?,
            joined: joined.map(Path::to_owned),
            devices: self.devices.clone(),
        })
    }

    /// The network namespace that the container joins.
    pub fn joined(&self) -> Option<BorrowedFd<'_>> {
        self.joined.as_ref().map(AsFd::as_fd)
    }

    /// Moves the devices there.
    ///
    /// # Errors
    /// Some have moved: [`Journey::undo`] finds them.
    pub fn carry_out(&self, there: BorrowedFd) -> Result<()> {
        let container = Socket::open_in(there, self.home.as_fd())?;
        for device in &self.devices {
            self.take(device, there, &container)?;
        }
        Ok(())
    }

    fn take(&self, device: &Device, there: BorrowedFd, container: &Socket) -> Result<()> {
        let before = indexes(container)?;
        let index = device.link.index;
        self.host
            .send_away(index, there.as_raw_fd(), &device.to, None)
            .map_err(|refusal| explain_move(refusal, device))?;
        match arrival(container, &before, device)? {
            Some(link) => settle(container, link.index, device, &link.name),
            None => {
                let error = device.error("move network device");
                Err(error.because("it did not arrive").errno(Errno::ENODEV))
            }
        }
    }
}

/// The device of that name, and whether it can go.
fn look_at(host: &Socket, there: Option<&Socket>, name: &str, to: &str) -> Result<Device> {
    let pointer = format!("{POINTER}/{}", pointer_key(name));
    let fail = |step| Error::new(step).on(name).at(&pointer);
    let found = host
        .link_named(name)
        .map_err(|refusal| refusal.explain(fail("find network device")))?;
    let Some(link) = found else {
        return Err(fail("find network device")
            .errno(Errno::ENODEV)
            .hint("ip link shows the devices of this network namespace"));
    };
    if let Some(reason) = link.bound() {
        return Err(fail("move network device")
            .because(reason)
            .errno(Errno::EINVAL));
    }
    let taken = match there {
        _ if to.contains("%d") => false,
        Some(there) => there
            .link_named(to)
            .map_err(|refusal| refusal.explain(fail("look for network device")))?
            .is_some(),
        None => to == "lo",
    };
    if taken {
        return Err(Error::new("move network device")
            .on(format!("{name} -> {to}"))
            .at(&pointer)
            .because("the container's network namespace has a device of that name")
            .errno(Errno::EEXIST)
            .hint("give it another name, or one with %d, which becomes a free number"));
    }
    let addresses = host
        .addresses(link.index)
        .map_err(|refusal| refusal.explain(fail("read addresses of")))?;
    Ok(Device {
        link,
        addresses,
        to: to.to_owned(),
    })
}

fn indexes(socket: &Socket) -> Result<Vec<u32>> {
    let links = socket
        .links()
        .map_err(|refusal| refusal.explain(Error::new("list network devices")))?;
    Ok(links.iter().map(|link| link.index).collect())
}

/// The new device in a namespace that is this one.
fn arrival(socket: &Socket, before: &[u32], device: &Device) -> Result<Option<Link>> {
    let links = socket
        .links()
        .map_err(|refusal| refusal.explain(device.error("find network device")))?;
    Ok(links
        .into_iter()
        .filter(|link| !before.contains(&link.index) && link.hardware == device.link.hardware)
        .filter(|link| link.may_be(&device.link))
        // In a namespace that is joined others may arrive as well: prefer the name that was to be.
        .min_by_key(|link| link.name != device.to))
}

fn explain_move(refusal: Refusal, device: &Device) -> Error {
    let errno = refusal.errno;
    let error = refusal.explain(device.error("move network device"));
    match errno {
        Errno::EEXIST => error.hint("the container's network namespace has a device of that name"),
        Errno::EINVAL | Errno::EOPNOTSUPP => error
            .hint("the kernel leaves some devices where they are: bridges, wireless ones, ports"),
        _ => error,
    }
}

/// Addresses, then up: nobody sees the device without them.
fn settle(socket: &Socket, index: u32, device: &Device, name: &str) -> Result<()> {
    for address in &device.addresses {
        socket
            .add_address(index, address, (&device.link.name, name))
            .map_err(|refusal| refusal.explain(device.error("set addresses of network device")))?;
    }
    socket
        .set_up(index)
        .map_err(|refusal| refusal.explain(device.error("set up network device")))
}

/// From a container's network namespace back to where devices were.
struct Way<'a> {
    host: &'a Socket,
    home: BorrowedFd<'a>,
    from: &'a Socket,
    there: BorrowedFd<'a>,
}

impl Way<'_> {
    /// Brings back these devices, with their numbers there: as they were, by name, number, addresses, master
    /// and state. What could not be is told.
    ///
    /// A namespace that is joined may be others' to administer: they can put a device of their own in the
    /// place of one, under its name and its number, which would get the host's addresses and its place in a
    /// bridge. So nothing is given to a device before it is seen to be the one that went, which of a pair is
    /// seen by its other end. For that all must be back, as they may be each other's.
    fn bring_home<'d>(&self, devices: impl Iterator<Item = (&'d Device, u32)>) -> Vec<Error> {
        let fetched: Vec<_> = devices
            .map(|(device, index)| (device, self.fetch(device, index)))
            .collect();
        let restored = fetched
            .into_iter()
            .map(|(device, fetched)| fetched.and_then(|link| self.restore(device, &link)));
        restored.filter_map(Result::err).collect()
    }

    fn fetch(&self, device: &Device, index: u32) -> Result<Link> {
        let fail = |refusal: Refusal| refusal.explain(device.error("give back network device"));
        let before = &device.link;
        let found = self.from.link_at(index).map_err(fail)?;
        if !found.is_some_and(|link| link.may_be(before)) {
            return Err(impostor(device));
        }
        self.from
            .send_away(
                index,
                self.home.as_raw_fd(),
                &before.name,
                Some(before.index),
            )
            .map_err(fail)?;
        let link = self.host.link_named(&before.name).map_err(fail)?;
        link.ok_or_else(|| {
            device
                .error("give back network device")
                .errno(Errno::ENODEV)
        })
    }

    fn restore(&self, device: &Device, link: &Link) -> Result<()> {
        let fail = |refusal: Refusal| refusal.explain(device.error("give back network device"));
        let before = &device.link;
        let now = self.host.link_at(link.index).map_err(fail)?;
        if !now.is_some_and(|now| now.is_alike(before)) {
            let there = self.there.as_raw_fd();
            self.host
                .send_away(link.index, there, "returned%d", None)
                .map_err(fail)?;
            return Err(impostor(device));
        }
        for address in &device.addresses {
            self.host
                .add_address(link.index, address, (&before.name, &before.name))
                .map_err(fail)?;
        }
        self.host.restore(link.index, before).map_err(fail)
    }
}

fn impostor(device: &Device) -> Error {
    device
        .error("give back network device")
        .because("another device has taken its place there")
}

/// Devices on their way into a container that isn't there yet, for the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journey {
    /// Device and inode of the namespace that they come from.
    from: (u64, u64),
    /// Where the container's network namespace is found; `None` for one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    joined: Option<PathBuf>,
    devices: Vec<Device>,
}

impl Journey {
    /// Takes back what an interrupted `create` has moved. To be called where they came from; elsewhere, and
    /// when all is where it belongs, it does nothing. `own` is the network namespace that ends with the container.
    /// The others come back if one can't.
    pub fn undo(&self, own: Option<BorrowedFd>) -> Result<()> {
        let home = own_namespace()?;
        if identity(home.as_fd())? != self.from {
            return Ok(());
        }
        let joined = self.joined.as_deref().map(open_namespace);
        let there = match (&joined, own) {
            (Some(Ok(joined)), _) => joined.as_fd(),
            (None, Some(own)) => own,
            // Gone, or nothing was moved yet.
            (Some(Err(_)), _) | (None, None) => return Ok(()),
        };
        let host = Socket::open()?;
        let container = Socket::open_in(there, home.as_fd())?;
        let links = container
            .links()
            .map_err(|refusal| refusal.explain(Error::new("list network devices")))?;
        let mut gone = Vec::new();
        // The last ones first.
        for device in self.devices.iter().rev() {
            let fail = |refusal: Refusal| refusal.explain(device.error("find network device"));
            if host.link_at(device.link.index).map_err(fail)?.is_some() {
                continue;
            }
            if let Some(link) = links.iter().find(|link| device.is_gone_as(link)) {
                gone.push((device, link.index));
            }
        }
        let way = Way {
            host: &host,
            home: home.as_fd(),
            from: &container,
            there,
        };
        for error in way.bring_home(gone.into_iter()) {
            crate::log::warning(format_args!("{error}"));
        }
        Ok(())
    }
}

fn own_namespace() -> Result<OwnedFd> {
    open_namespace(Path::new("/proc/thread-self/ns/net"))
}

fn open_namespace(path: &Path) -> Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    open(path, flags, Mode::empty()).step("open namespace", path.display())
}

fn identity(namespace: BorrowedFd) -> Result<(u64, u64)> {
    let stat = fstat(namespace).step("look at", "the network namespace")?;
    Ok((stat.st_dev, stat.st_ino))
}

fn same(one: BorrowedFd, other: BorrowedFd) -> Result<bool> {
    Ok(identity(one)? == identity(other)?)
}
