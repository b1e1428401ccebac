//! What husk knows and changes of network devices: links and their addresses.

use nix::errno::Errno;
use nix::libc;
use serde::{Deserialize, Serialize};

use super::netlink::{Attributes, Refusal, Request, Socket, text, word};
use crate::error::Result;

/// linux/rtnetlink.h and linux/if_link.h, as far as libc lacks them.
mod code {
    pub const NEWLINK: u16 = 16;
    pub const GETLINK: u16 = 18;
    pub const SETLINK: u16 = 19;
    pub const NEWADDR: u16 = 20;
    pub const GETADDR: u16 = 22;

    pub const LINK_ADDRESS: u16 = 1;
    pub const LINK_NAME: u16 = 3;
    pub const LINK_OTHER_END: u16 = 5;
    pub const LINK_MASTER: u16 = 10;
    pub const LINK_INFO: u16 = 18;
    pub const LINK_NAMESPACE: u16 = 28;
    pub const LINK_FILTER: u16 = 29;
    pub const LINK_OTHER_NAMESPACE: u16 = 37;
    pub const LINK_NEW_INDEX: u16 = 49;
    /// Linux 5.6.
    pub const LINK_BURNT_IN: u16 = 54;
    /// Linux 5.14, both.
    pub const LINK_PARENT: u16 = 56;
    pub const LINK_PARENT_BUS: u16 = 57;
    /// IFLA_INFO_KIND, within [`LINK_INFO`].
    pub const INFO_KIND: u16 = 1;
    /// Linux 6.15.
    pub const LINK_IMMUTABLE: u16 = 67;
    /// RTEXT_FILTER_SKIP_STATS
    pub const SKIP_STATISTICS: u32 = 8;

    pub const ADDRESS: u16 = 1;
    pub const LOCAL: u16 = 2;
    pub const LABEL: u16 = 3;
    pub const BROADCAST: u16 = 4;
    /// Lifetimes: a permanent address may be one not to speak from (`preferred_lft 0`).
    pub const CACHE: u16 = 6;
    pub const FLAGS: u16 = 8;
    pub const PRIORITY: u16 = 9;
    pub const PROTOCOL: u16 = 11;
}

/// struct ifinfomsg and struct ifaddrmsg.
const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;

/// One network device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// Its hardware address; not every device has one.
    pub hardware: Vec<u8>,
    up: bool,
    loopback: bool,
    /// The kernel moves it nowhere.
    immutable: bool,
    /// What it is a port of, a bridge for example.
    master: Option<u32>,
    #[serde(default)]
    make: Make,
    /// The device at the other end, or below it: its number, and the number of its network namespace where
    /// that is another one.
    #[serde(default)]
    other_end: (Option<u32>, Option<u32>),
}

/// What nobody can change of a device, wherever it goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Make {
    /// `veth`, `dummy`; empty for hardware.
    kind: String,
    /// Hardware's name and its bus.
    parent: (String, String),
    burnt_in: Vec<u8>,
}

impl Link {
    /// From the answer to RTM_GETLINK.
    fn parse(answer: &[u8]) -> Option<Link> {
        let flags = word(answer, 8)?;
        let mut link = Link {
            index: word(answer, 4)?,
            name: String::new(),
            hardware: Vec::new(),
            up: flags & libc::IFF_UP as u32 != 0,
            loopback: flags & libc::IFF_LOOPBACK as u32 != 0,
            immutable: false,
            master: None,
            make: Make::default(),
            other_end: (None, None),
        };
        for (kind, value) in Attributes(answer.get(LINK_HEADER..)?) {
            match kind {
                code::LINK_NAME => link.name = text(value),
                code::LINK_ADDRESS => link.hardware = value.to_vec(),
                code::LINK_MASTER => link.master = word(value, 0).filter(|master| *master != 0),
                code::LINK_IMMUTABLE => link.immutable = value.first().is_some_and(|&it| it != 0),
                code::LINK_OTHER_END => link.other_end.0 = word(value, 0),
                code::LINK_OTHER_NAMESPACE => link.other_end.1 = word(value, 0),
                code::LINK_BURNT_IN => link.make.burnt_in = value.to_vec(),
                code::LINK_PARENT => link.make.parent.0 = text(value),
                code::LINK_PARENT_BUS => link.make.parent.1 = text(value),
                code::LINK_INFO => {
                    let mut about = Attributes(value);
                    let kind = about.find(|(kind, _)| *kind == code::INFO_KIND);
                    link.make.kind = kind.map_or_else(String::new, |(_, value)| text(value));
                }
                _ => {}
            }
        }
        Some(link)
    }

    /// Whether `other`, seen elsewhere, can be the same device.
    pub fn may_be(&self, other: &Link) -> bool {
        self.make == other.make
    }

    /// Whether `other`, seen in the same network namespace as this, has the same other end, too: so of a pair
    /// another one isn't taken for it.
    pub fn is_alike(&self, other: &Link) -> bool {
        self.may_be(other) && self.other_end == other.other_end
    }

    /// Why it has to stay where it is.
    pub fn bound(&self) -> Option<&'static str> {
        match (self.loopback, self.immutable) {
            (true, _) => Some("every network namespace has a loopback device of its own"),
            (_, true) => Some("this kind of device can't leave its network namespace"),
            _ => None,
        }
    }
}

/// An address that stays until it is taken away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    family: u8,
    prefix: u8,
    flags: u32,
    /// Attributes as the kernel gave them; the label of an IPv4 address is apart, for it bears the name of
    /// the device.
    kept: Vec<(u16, Vec<u8>)>,
    label: Option<String>,
}

impl Address {
    /// From the answer to RTM_GETADDR: the device's index too. `None` for an address that doesn't go along:
    /// one of a narrower scope than global, or one that the kernel made or that expires.
    fn parse(answer: &[u8]) -> Option<(u32, Address)> {
        let &[family, prefix, low_flags, scope, ..] = answer else {
            return None;
        };
        let mut address = Address {
            family,
            prefix,
            flags: low_flags.into(),
            kept: Vec::new(),
            label: None,
        };
        for (kind, value) in Attributes(answer.get(ADDRESS_HEADER..)?) {
            match kind {
                code::FLAGS => address.flags = word(value, 0)?,
                code::LABEL => address.label = Some(text(value)),
                code::ADDRESS
                | code::LOCAL
                | code::BROADCAST
                | code::CACHE
                | code::PRIORITY
                | code::PROTOCOL => {
                    address.kept.push((kind, value.to_vec()));
                }
                _ => {}
            }
        }
        let global = scope == libc::RT_SCOPE_UNIVERSE;
        let permanent = address.flags & libc::IFA_F_PERMANENT != 0;
        // Of an IPv4 address the same bit says that it is a secondary one.
        let temporary = libc::c_int::from(family) == libc::AF_INET6
            && address.flags & libc::IFA_F_TEMPORARY != 0;
        (global && permanent && !temporary).then_some((word(answer, 4)?, address))
    }

    /// What may be said about a new address; the rest of the flags is the kernel's.
    fn settable_flags(&self) -> u32 {
        const IFA_F_MCAUTOJOIN: u32 = 0x400;
        self.flags
            & (libc::IFA_F_NODAD
                | libc::IFA_F_OPTIMISTIC
                | libc::IFA_F_HOMEADDRESS
                | libc::IFA_F_MANAGETEMPADDR
                | libc::IFA_F_NOPREFIXROUTE
                | IFA_F_MCAUTOJOIN)
    }

    /// As the kernel does it when a device is renamed: `eth0:1` becomes `net0:1`.
    fn label_for(&self, old: &str, new: &str) -> Option<String> {
        /// IFNAMSIZ, less the closing NUL.
        const LONGEST: usize = 15;
        let label = self.label.as_deref()?;
        let renamed = match label.strip_prefix(old) {
            Some(rest) => format!("{new}{rest}"),
            None => label.to_owned(),
        };
        Some(if renamed.len() > LONGEST {
            new.to_owned()
        } else {
            renamed
        })
    }
}

fn link_request(kind: u16, index: u32, flags: u32, change: u32) -> Request {
    let mut header = [0; LINK_HEADER];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..].copy_from_slice(&change.to_ne_bytes());
    Request::new(kind, &header)
}

impl Socket {
    /// `None` if there is no such device. Alternative names count, too.
    pub fn link_named(&self, name: &str) -> Result<Option<Link>, Refusal> {
        self.link(link_request(code::GETLINK, 0, 0, 0).name(code::LINK_NAME, name))
    }

    pub fn link_at(&self, index: u32) -> Result<Option<Link>, Refusal> {
        self.link(link_request(code::GETLINK, index, 0, 0))
    }

    fn link(&self, request: Request) -> Result<Option<Link>, Refusal> {
        let request = request.number(code::LINK_FILTER, code::SKIP_STATISTICS);
        match self.ask(&request) {
            Ok(answers) => match answers.first().and_then(|answer| Link::parse(answer)) {
                Some(link) => Ok(Some(link)),
                None => Err(Errno::EBADMSG.into()),
            },
            Err(refusal) if refusal.errno == Errno::ENODEV => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    pub fn links(&self) -> Result<Vec<Link>, Refusal> {
        let request = link_request(code::GETLINK, 0, 0, 0)
            .dump()
            .number(code::LINK_FILTER, code::SKIP_STATISTICS);
        let answers = self.ask(&request)?;
        Ok(answers
            .iter()
            .filter_map(|answer| Link::parse(answer))
            .collect())
    }

    /// The addresses of a device that stay with it, in the order in which they have to be set for the
    /// kernel to have them in the same order again: it puts an IPv4 address last and an IPv6 one first.
    pub fn addresses(&self, index: u32) -> Result<Vec<Address>, Refusal> {
        let answers = self.ask(&Request::new(code::GETADDR, &[0; ADDRESS_HEADER]).dump())?;
        let stay = answers.iter().filter_map(|answer| Address::parse(answer));
        let (mut addresses, sixes): (Vec<_>, Vec<_>) = stay
            .filter(|(of, _)| *of == index)
            .map(|(_, address)| address)
            .partition(|address| libc::c_int::from(address.family) != libc::AF_INET6);
        addresses.extend(sixes.into_iter().rev());
        Ok(addresses)
    }

    /// Moves a device to another network namespace, where it is down and has no address. `new_index` is
    /// the number that it would like to have there.
    pub fn send_away(
        &self,
        index: u32,
        namespace: i32,
        name: &str,
        new_index: Option<u32>,
    ) -> Result<(), Refusal> {
        let mut request = link_request(code::SETLINK, index, 0, 0)
            .attribute(code::LINK_NAMESPACE, &namespace.to_ne_bytes())
            .name(code::LINK_NAME, name);
        if let Some(new) = new_index {
            request = request.number(code::LINK_NEW_INDEX, new);
        }
        self.ask(&request).map(drop)
    }

    pub fn add_address(
        &self,
        index: u32,
        address: &Address,
        (old, new): (&str, &str),
    ) -> Result<(), Refusal> {
        let mut header = [0; ADDRESS_HEADER];
        header[0] = address.family;
        header[1] = address.prefix;
        header[4..].copy_from_slice(&index.to_ne_bytes());
        let mut request = Request::new(code::NEWADDR, &header).create();
        for (kind, value) in &address.kept {
            request = request.attribute(*kind, value);
        }
        if let Some(label) = address.label_for(old, new) {
            request = request.name(code::LABEL, &label);
        }
        request = request.number(code::FLAGS, address.settable_flags());
        self.ask(&request).map(drop)
    }

    pub fn set_up(&self, index: u32) -> Result<(), Refusal> {
        let up = libc::IFF_UP as u32;
        self.ask(&link_request(code::NEWLINK, index, up, up))
            .map(drop)
    }

    /// State and master as they were in `before`.
    pub fn restore(&self, index: u32, before: &Link) -> Result<(), Refusal> {
        if let Some(master) = before.master {
            let request =
                link_request(code::SETLINK, index, 0, 0).number(code::LINK_MASTER, master);
            self.ask(&request)?;
        }
        if before.up {
            self.set_up(index)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = (value.len() as u16 + 4).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn address(family: i32, scope: u8, flags: u32, label: Option<&str>) -> Option<(u32, Address)> {
        let mut answer = vec![family as u8, 24, flags as u8, scope];
        answer.extend(7u32.to_ne_bytes());
        answer.extend(attribute(code::LOCAL, &[192, 0, 2, 1]));
        answer.extend(attribute(code::FLAGS, &flags.to_ne_bytes()));
        if let Some(label) = label {
            answer.extend(attribute(code::LABEL, label.as_bytes()));
        }
        Address::parse(&answer)
    }

    #[test]
    fn permanent_addresses_of_global_scope_go_along() {
        const PERMANENT: u32 = libc::IFA_F_PERMANENT;
        const SECONDARY: u32 = libc::IFA_F_SECONDARY;
        let global = libc::RT_SCOPE_UNIVERSE;
        let link = libc::RT_SCOPE_LINK;
        for (family, scope, flags, goes) in [
            (libc::AF_INET, global, PERMANENT, true),
            (libc::AF_INET, global, PERMANENT | SECONDARY, true),
            (libc::AF_INET, global, 0, false),
            (libc::AF_INET, link, PERMANENT, false),
            (libc::AF_INET6, global, PERMANENT, true),
            (libc::AF_INET6, global, PERMANENT | SECONDARY, false),
            (libc::AF_INET6, global, 0, false),
            (libc::AF_INET6, link, PERMANENT, false),
        ] {
            let parsed = address(family, scope, flags, None);
            assert_eq!(parsed.is_some(), goes, "{family} {scope} {flags:#x}");
        }
    }

    #[test]
    fn labels_follow_the_name() {
        let renamed = |label: &str, old: &str, new: &str| {
            let parsed = address(libc::AF_INET, 0, libc::IFA_F_PERMANENT, Some(label));
            parsed.unwrap().1.label_for(old, new).unwrap()
        };
        assert_eq!(renamed("eth0", "eth0", "net1"), "net1");
        assert_eq!(renamed("eth0:web", "eth0", "net1"), "net1:web");
        assert_eq!(
            renamed("eth0:web", "eth0", "abcdefghijklm"),
            "abcdefghijklm"
        );
        assert_eq!(renamed("other", "eth0", "net1"), "other");
    }

    #[test]
    fn what_the_kernel_says_of_its_own_is_not_said_to_it() {
        let flags = libc::IFA_F_PERMANENT | libc::IFA_F_NOPREFIXROUTE | libc::IFA_F_TENTATIVE;
        let (index, address) = address(libc::AF_INET6, 0, flags, None).unwrap();
        assert_eq!(index, 7);
        assert_eq!(address.settable_flags(), libc::IFA_F_NOPREFIXROUTE);
    }

    #[test]
    fn a_device_is_told_from_another_one_by_what_nobody_can_change() {
        let link = |kind: &[u8], other_end: u32| {
            let mut answer = vec![0; LINK_HEADER];
            answer.extend(attribute(code::LINK_NAME, b"eth0\0"));
            let info = attribute(code::INFO_KIND, kind);
            answer.extend(attribute(code::LINK_INFO | 0x8000, &info));
            answer.extend(attribute(code::LINK_OTHER_END, &other_end.to_ne_bytes()));
            Link::parse(&answer).unwrap()
        };
        let before = link(b"veth\0", 7);
        assert!(before.is_alike(&link(b"veth\0", 7)));
        assert!(before.may_be(&link(b"veth\0", 8)) && !before.is_alike(&link(b"veth\0", 8)));
        assert!(!before.may_be(&link(b"tun\0", 7)));
    }

    #[test]
    fn cut_off_answers_are_none() {
        assert_eq!(Link::parse(&[0; 11]), None);
        assert_eq!(Address::parse(&[2, 24, 0x80, 0, 1]), None);
    }
}
