//! The namespaces of a container: made, joined by path, or shared with the caller.

mod id_maps;
mod network;

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::{Mode, fstat, stat};
use nix::sys::utsname::uname;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Gid, Pid, Uid};
use oci_spec::runtime::{Linux, LinuxNamespaceType as Type};

pub use id_maps::{IdMaps, host_gid, host_uid, nested};
pub use network::Ahead;

use crate::error::{Error, Result, Step};
use crate::files;
use crate::sys;
use crate::sys::file::open;

/// Where one kind of namespace comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    New,
    Joined,
    Inherited,
}

#[derive(Debug)]
struct Joined {
    kind: CloneFlags,
    namespace: OwnedFd,
    path: String,
    pointer: String,
}

impl Joined {
    fn enter(&self) -> nix::Result<()> {
        setns(&self.namespace, self.kind)
    }

    fn error(&self, errno: Errno) -> Error {
        Error::new("join namespace")
            .on(&self.path)
            .at(&self.pointer)
            .errno(errno)
    }
}

/// All namespaces of a container; those to be joined are open and of the right type.
#[derive(Debug)]
pub struct Plan {
    new: CloneFlags,
    joined: Vec<Joined>,
    /// The network namespace among the new ones, if it is there already.
    network: Option<OwnedFd>,
    id_maps: Option<IdMaps>,
    /// Lines for /proc/self/timens_offsets.
    offsets: String,
}

/// Names as in /proc/PID/ns and in config.json.
const KINDS: &[(Type, CloneFlags, &str)] = &[
    (Type::Pid, CloneFlags::CLONE_NEWPID, "pid"),
    (Type::Network, CloneFlags::CLONE_NEWNET, "network"),
    (Type::Mount, CloneFlags::CLONE_NEWNS, "mount"),
    (Type::Ipc, CloneFlags::CLONE_NEWIPC, "ipc"),
    (Type::Uts, CloneFlags::CLONE_NEWUTS, "uts"),
    (Type::User, CloneFlags::CLONE_NEWUSER, "user"),
    (Type::Cgroup, CloneFlags::CLONE_NEWCGROUP, "cgroup"),
    (Type::Time, NEWTIME, "time"),
];

/// Names in /proc/PID/ns.
const FILES: &[(CloneFlags, &str)] = &[
    (CloneFlags::CLONE_NEWPID, "pid"),
    (CloneFlags::CLONE_NEWNET, "net"),
    (CloneFlags::CLONE_NEWNS, "mnt"),
    (CloneFlags::CLONE_NEWIPC, "ipc"),
    (CloneFlags::CLONE_NEWUTS, "uts"),
    (CloneFlags::CLONE_NEWUSER, "user"),
    (CloneFlags::CLONE_NEWCGROUP, "cgroup"),
    (NEWTIME, "time"),
];

/// `CLONE_NEW*` of all namespaces in which the process `pid` and the caller differ.
pub fn differing(pid: Pid) -> u64 {
    let inode = |who: &str, name: &str| stat(format!("/proc/{who}/ns/{name}").as_str()).ok();
    let pid = pid.to_string();
    let differ = FILES.iter().filter(|(_, name)| {
        let (theirs, ours) = (inode(&pid, name), inode("self", name));
        theirs.zip(ours).is_some_and(|(theirs, ours)| {
            (theirs.st_dev, theirs.st_ino) != (ours.st_dev, ours.st_ino)
        })
    });
    let kinds = differ.map(|(kind, _)| *kind);
    kinds.fold(CloneFlags::empty(), CloneFlags::union).bits() as u64
}

/// Whether the caller is in that namespace.
fn is_own(namespace: BorrowedFd<'_>, kind: CloneFlags) -> nix::Result<bool> {
    let file = FILES.iter().find(|(other, _)| *other == kind);
    let (_, name) = file.ok_or(Errno::EINVAL)?;
    let (it, own) = (
        fstat(namespace)?,
        stat(format!("/proc/self/ns/{name}").as_str())?,
    );
    Ok((it.st_dev, it.st_ino) == (own.st_dev, own.st_ino))
}

/// Linux 5.6; it isn't among nix's flags as clone(2) can't take it.
const NEWTIME: CloneFlags = CloneFlags::from_bits_retain(0x80);

/// nsfs ioctl, ioctl_ns(2).
fn kind_of(namespace: &OwnedFd) -> nix::Result<CloneFlags> {
    sys::fd::namespace_type(namespace.as_raw_fd()).map(CloneFlags::from_bits_retain)
}

impl Plan {
    /// # Errors
    /// For a path that can't be opened or is another kind of namespace.
    pub fn open(linux: Option<&Linux>) -> Result<Plan> {
        let mut plan = Plan {
            new: CloneFlags::empty(),
            joined: Vec::new(),
            network: None,
            id_maps: None,
            offsets: String::new(),
        };
        let Some(linux) = linux else {
            return Ok(plan);
        };
        for (index, entry) in linux.namespaces().iter().flatten().enumerate() {
            let Some(&(_, kind, name)) = KINDS.iter().find(|(typ, ..)| *typ == entry.typ()) else {
                continue;
            };
            let path = entry
                .path()
                .as_deref()
                .filter(|path| !path.as_os_str().is_empty());
            match path {
                None => plan.new |= kind,
                Some(path) => plan.join(index, kind, name, path)?,
            }
        }
        // The mount namespace last: the paths of /proc are another's behind it.
        plan.joined
            .sort_by_key(|joined| joined.kind == CloneFlags::CLONE_NEWNS);
        if plan.new.contains(CloneFlags::CLONE_NEWUSER) {
            plan.id_maps = Some(IdMaps::plan(linux)?);
        }
        for (clock, offset) in linux.time_offsets().iter().flatten() {
            let (seconds, nanoseconds) =
                (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
            plan.offsets += &format!("{clock} {seconds} {nanoseconds}\n");
        }
        Ok(plan)
    }

    fn join(&mut self, index: usize, kind: CloneFlags, name: &str, path: &Path) -> Result<()> {
        let pointer = format!("/linux/namespaces/{index}/path");
        let fail = || Error::new("open namespace").on(path.display()).at(&pointer);
        // O_NONBLOCK: a fifo in its place mustn't hold husk up.
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let namespace = open(path, flags, Mode::empty()).or_fail(|errno| fail().errno(errno))?;
        match kind_of(&namespace) {
            Ok(found) if found == kind => {}
            Ok(found) => {
                let found = KINDS
                    .iter()
                    .find(|(_, kind, _)| *kind == found)
                    .map_or("unknown", |(.., name)| name);
                return Err(fail()
                    .because(format!("it is of type {found}, not {name}"))
                    .errno(Errno::EINVAL));
            }
            Err(_) => {
                return Err(fail().because("it is not a namespace").errno(Errno::EINVAL));
            }
        }
        // setns(2) refuses to enter the user namespace that one is in.
        if kind == CloneFlags::CLONE_NEWUSER
            && is_own(namespace.as_fd(), kind).or_fail(|errno| fail().errno(errno))?
        {
            return Ok(());
        }
        self.joined.push(Joined {
            kind,
            namespace,
            path: path.display().to_string(),
            pointer,
        });
        Ok(())
    }

    pub fn origin(&self, kind: CloneFlags) -> Origin {
        if self.new.contains(kind) {
            Origin::New
        } else if self.joins(kind) {
            Origin::Joined
        } else {
            Origin::Inherited
        }
    }

    fn joins(&self, kind: CloneFlags) -> bool {
        self.joined(kind).is_some()
    }

    /// The namespace of that kind that is joined, and its path.
    pub fn joined(&self, kind: CloneFlags) -> Option<(BorrowedFd<'_>, &Path)> {
        let joined = self.joined.iter().find(|joined| joined.kind == kind)?;
        Some((joined.namespace.as_fd(), Path::new(&joined.path)))
    }

    /// Husk's own namespaces can be joined by their paths, too: what is set there would be set for the host.
    /// A name that the host has already changes nothing. `settings` gives pointers, values and whose they are.
    pub fn spare_own<'a>(
        &self,
        settings: impl FnOnce() -> Vec<(String, &'a str, Type)>,
    ) -> Result<()> {
        if self.joined.is_empty() {
            return Ok(());
        }
        for (pointer, value, typ) in settings() {
            let Some(&(_, kind, name)) = KINDS.iter().find(|(other, ..)| *other == typ) else {
                continue;
            };
            let Some((namespace, path)) = self.joined(kind) else {
                continue;
            };
            let host = uname().or_fail(|errno| Error::new("read host name").errno(errno))?;
            let unchanged = match pointer.as_str() {
                "/hostname" => host.nodename() == value,
                "/domainname" => host.domainname() == value,
                _ => false,
            };
            let own = is_own(namespace, kind);
            if !unchanged && own.or_fail(|errno| Error::new("compare namespaces").errno(errno))? {
                return Err(Error::config(
                    pointer,
                    format!(
                        "it would change the host: the {name} namespace that is joined, {}, is husk's own",
                        path.display()
                    ),
                ));
            }
        }
        Ok(())
    }

    /// All namespaces that are joined, with their names in /proc/PID/ns.
    pub fn all_joined(&self) -> impl Iterator<Item = (&'static str, BorrowedFd<'_>, &Path)> {
        self.joined.iter().filter_map(|joined| {
            let (_, name) = FILES.iter().find(|(kind, _)| *kind == joined.kind)?;
            Some((*name, joined.namespace.as_fd(), Path::new(&joined.path)))
        })
    }

    /// `CLONE_NEW*` of all namespaces in which container and caller differ.
    pub fn own(&self) -> u64 {
        let joined = self.joined.iter().map(|joined| joined.kind);
        joined.fold(self.new, CloneFlags::union).bits() as u64
    }

    /// The user namespace to join, if one is.
    pub fn joined_user(&self) -> Option<BorrowedFd<'_>> {
        let mut joined = self.joined.iter();
        let user = joined.find(|joined| joined.kind == CloneFlags::CLONE_NEWUSER);
        user.map(|joined| joined.namespace.as_fd())
    }

    pub fn in_user_namespace(&self) -> bool {
        self.origin(CloneFlags::CLONE_NEWUSER) != Origin::Inherited
    }

    /// Takes what was made ahead, if it is for this container: one in a user namespace makes its own. What
    /// comes back has to be finished before the container is.
    pub fn adopt(&mut self, mut ahead: Ahead) -> Option<Ahead> {
        if self.new.contains(CloneFlags::CLONE_NEWNET) && !self.in_user_namespace() {
            self.network = ahead.namespace();
        }
        self.has_network().then_some(ahead)
    }

    /// Whether the process finds its network namespace as it is to be.
    pub fn has_network(&self) -> bool {
        self.network.is_some()
    }

    /// What clone3(2) makes. The time namespace must be made by the process itself, for its clocks to
    /// be set.
    pub fn clone_flags(&self) -> u64 {
        let there = match self.has_network() {
            true => CloneFlags::CLONE_NEWNET,
            false => CloneFlags::empty(),
        };
        (self.new - self.made_inside() - NEWTIME - there).bits() as u64
    }

    /// What the process makes once it is who and where it will be: the cgroup namespace is rooted at the
    /// cgroup of its maker, and the maker owns the root of an ipc namespace's mqueue and the files of a
    /// network namespace's loopback device, which must be root of the user namespace if there is one.
    fn made_inside(&self) -> CloneFlags {
        let mut kinds = CloneFlags::CLONE_NEWCGROUP;
        if self.in_user_namespace() {
            kinds |= CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWNET;
        }
        self.new & kinds
    }

    /// Whether a process in between is needed, which enters a namespace for the one that it makes: a
    /// pid namespace is for children only, and one's own privileges end at a user namespace.
    pub fn needs_go_between(&self) -> bool {
        self.joins(CloneFlags::CLONE_NEWUSER)
            || self.joins(CloneFlags::CLONE_NEWPID)
            || self.new.contains(CloneFlags::CLONE_NEWUSER) && !self.joined.is_empty()
    }

    /// For the process in between: everything that is joined, in an order in which the privileges
    /// last. Namespaces of the joined user namespace are for its members, others for root. Then makes the
    /// time namespace, in which the process's child is born, with `clocks` of [`Plan::open_clocks`].
    pub fn enter_all(&self, clocks: Option<File>) -> Result<()> {
        let (user, others): (Vec<_>, Vec<_>) = self
            .joined
            .iter()
            .partition(|joined| joined.kind == CloneFlags::CLONE_NEWUSER);
        let mut refused = Vec::new();
        for joined in others {
            match joined.enter() {
                Err(Errno::EPERM) => refused.push(joined),
                done => done.or_fail(|errno| joined.error(errno))?,
            }
        }
        for joined in user.into_iter().chain(refused) {
            joined.enter().or_fail(|errno| joined.error(errno))?;
        }
        if self.makes_time_between() {
            unshare(NEWTIME).or_fail(no_time)?;
            if let Some(mut clocks) = clocks {
                clocks
                    .write_all(self.offsets.as_bytes())
                    .or_fail(|errno| self.refused_offsets(errno))?;
            }
        }
        Ok(())
    }

    /// For the process in between, while it can still be dumped: its own clocks' file is root's afterwards.
    pub fn open_clocks(&self) -> Result<Option<File>> {
        if self.offsets.is_empty() || !self.makes_time_between() {
            return Ok(None);
        }
        let clocks = File::options().write(true).open(CLOCKS);
        clocks
            .map(Some)
            .or_fail(|errno| self.refused_offsets(errno))
    }

    /// For the container's process: joins what is not yet joined and makes what clone3(2) could not.
    pub fn enter(&self) -> Result<()> {
        if !self.needs_go_between() {
            for joined in &self.joined {
                joined.enter().or_fail(|errno| joined.error(errno))?;
            }
        }
        if let Some(network) = &self.network {
            setns(network, CloneFlags::CLONE_NEWNET).or_fail(|errno| {
                Error::new("enter network namespace")
                    .at("/linux/namespaces")
                    .errno(errno)
            })?;
        }
        for (_, kind, name) in KINDS {
            if self.made_inside().contains(*kind) {
                unshare(*kind).or_fail(|errno| {
                    Error::new(format!("make {name} namespace"))
                        .at("/linux/namespaces")
                        .errno(errno)
                })?;
            }
        }
        Ok(())
    }

    fn refused_offsets(&self, errno: Errno) -> Error {
        let error = Error::new("make time namespace").errno(errno);
        let impossible = self.offsets.lines().find_map(|line| {
            let mut words = line.split(' ');
            let (clock, seconds) = (words.next()?, words.next()?.parse().ok()?);
            Some((clock, impossible_offset(clock, seconds)?))
        });
        match impossible {
            Some((clock, why)) => error
                .at(format!("/linux/timeOffsets/{clock}/secs"))
                .because(why),
            None => error.at("/linux/timeOffsets"),
        }
    }

    pub fn makes_time(&self) -> bool {
        self.new.contains(NEWTIME)
    }

    /// Whether the process in between makes the time namespace: one of a new user namespace is made inside that.
    fn makes_time_between(&self) -> bool {
        self.makes_time()
            && self.needs_go_between()
            && !self.new.contains(CloneFlags::CLONE_NEWUSER)
    }

    /// Makes the time namespace and sets its clocks, while nobody is in it; then enters it. Unless the process
    /// in between has.
    pub fn make_time(&self) -> Result<()> {
        if !self.makes_time() || self.makes_time_between() {
            return Ok(());
        }
        unshare(NEWTIME).or_fail(no_time)?;
        if !self.offsets.is_empty() {
            files::tell_kernel(CLOCKS, &self.offsets)
                .or_fail(|errno| self.refused_offsets(errno))?;
        }
        let namespace = open(
            "/proc/self/ns/time_for_children",
            OFlag::O_RDONLY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
        .or_fail(no_time)?;
        setns(&namespace, NEWTIME).or_fail(no_time)
    }

    /// The namespaces to be joined or entered, open.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let joined = self.joined.iter().map(|joined| &joined.namespace);
        joined.chain(&self.network).map(AsFd::as_fd)
    }

    /// Of a new user namespace.
    pub fn id_maps(&self) -> Option<&IdMaps> {
        self.id_maps.as_ref()
    }

    /// Becomes root of the container's user namespace: what is made from now on is its, and files that
    /// only its root may read can be.
    pub fn become_root(&self) -> Result<()> {
        if !self.in_user_namespace() {
            return Ok(());
        }
        let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
        nix::unistd::setresgid(gid, gid, gid)
            .and_then(|()| nix::unistd::setresuid(uid, uid, uid))
            .or_fail(|errno| Error::new("become root of the user namespace").errno(errno))
    }
}

/// The offsets of the time namespace in which children of the process that opens it are born.
const CLOCKS: &str = "/proc/self/timens_offsets";

fn no_time(errno: Errno) -> Error {
    Error::new("make time namespace")
        .at("/linux/timeOffsets")
        .errno(errno)
}

/// Why a clock can't be put forward by so many seconds: time_namespaces(7) has it from 0 to 146 years.
pub fn impossible_offset(clock: &str, seconds: i64) -> Option<String> {
    const LATEST: i64 = i64::MAX / 2_000_000_000;
    let id = match clock {
        "monotonic" => ClockId::CLOCK_MONOTONIC,
        "boottime" => ClockId::CLOCK_BOOTTIME,
        _ => return None,
    };
    let now = clock_gettime(id).ok()?.tv_sec();
    match now.checked_add(seconds) {
        Some(0..=LATEST) => None,
        Some(i64::MIN..=-1) => Some(format!(
            "the clock would be below zero: it is at {now} s, so {} is the least",
            -now
        )),
        _ => Some(format!(
            "the clock would be beyond the {LATEST} s that it can show"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(json: &str) -> Result<Plan> {
        let linux: Linux = serde_json::from_str(json).unwrap();
        Plan::open(Some(&linux))
    }

    #[test]
    fn cgroup_and_time_are_left_to_the_process_itself() {
        let plan = plan(
            r#"{"namespaces": [{"type": "pid"}, {"type": "cgroup"}, {"type": "time"}],
                "timeOffsets": {"boottime": {"secs": -5}}}"#,
        )
        .unwrap();
        assert_eq!(plan.clone_flags(), libc::CLONE_NEWPID as u64);
        assert_eq!(plan.origin(NEWTIME), Origin::New);
        assert_eq!(plan.origin(CloneFlags::CLONE_NEWNET), Origin::Inherited);
        assert_eq!(plan.offsets, "boottime -5 0\n");
    }

    #[test]
    fn the_wrong_type_is_an_error_that_says_so() {
        let error =
            plan(r#"{"namespaces": [{"type": "uts", "path": "/proc/self/ns/ipc"}]}"#).unwrap_err();
        assert_eq!(
            error.to_string(),
            "open namespace /proc/self/ns/ipc (/linux/namespaces/0/path): \
             it is of type ipc, not uts: invalid argument"
        );
        let error = plan(r#"{"namespaces": [{"type": "uts", "path": "/dev/null"}]}"#).unwrap_err();
        assert!(error.to_string().contains("it is not a namespace"));
    }

    #[test]
    fn the_own_user_namespace_is_not_joined_again() {
        let plan =
            plan(r#"{"namespaces": [{"type": "user", "path": "/proc/self/ns/user"}]}"#).unwrap();
        assert!(!plan.in_user_namespace());
    }
}
