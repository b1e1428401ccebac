//! Device nodes and the links that belong to /dev.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, readlinkat};
use nix::sys::stat::{Mode, SFlag, makedev, mknodat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, symlinkat, unlinkat};
use oci_spec::runtime as oci;

use super::handle::{Rootfs, Target, is_kind, stat_at};
use crate::error::{Error, Locate, Result, Step};
use crate::sys::mount;

/// Runtime-spec's config-linux.md, "Default Devices". /dev/console and /dev/ptmx come otherwise.
const DEFAULTS: &[(&str, u64, u64)] = &[
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// Runtime-spec's runtime-linux.md, "Dev symbolic links", and what programs look for besides.
const LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
];

/// A node to be there.
#[derive(Debug)]
pub struct Node {
    path: PathBuf,
    kind: SFlag,
    device: libc::dev_t,
    mode: Mode,
    owner: Option<(Uid, Gid)>,
    pointer: Option<String>,
    /// The host's node as a detached mount, where the kernel doesn't let nodes be made.
    host: Option<OwnedFd>,
}

/// The nodes that a container gets: the default ones first, then those of `linux.devices`, which win.
pub fn plan(listed: &[oci::LinuxDevice]) -> Vec<Node> {
    let listed: Vec<Node> = listed.iter().enumerate().map(Node::listed).collect();
    let mut nodes: Vec<Node> = DEFAULTS
        .iter()
        .filter(|(path, ..)| !listed.iter().any(|node| node.path == Path::new(path)))
        .map(|&(path, major, minor)| Node {
            path: path.into(),
            kind: SFlag::S_IFCHR,
            device: makedev(major, minor),
            mode: Mode::from_bits_retain(0o666),
            owner: None,
            pointer: None,
            host: None,
        })
        .collect();
    // /dev/ptmx is the container's own, a link to the devpts of its mounts, and no node of the host's.
    nodes.extend(
        listed
            .into_iter()
            .filter(|node| node.path != Path::new("/dev/ptmx")),
    );
    nodes
}

impl Node {
    fn listed((index, device): (usize, &oci::LinuxDevice)) -> Node {
        let kind = match device.typ() {
            oci::LinuxDeviceType::B => SFlag::S_IFBLK,
            oci::LinuxDeviceType::P => SFlag::S_IFIFO,
            // `u` is an unbuffered character device: the same to Linux. `a` is refused as a device.
            oci::LinuxDeviceType::C | oci::LinuxDeviceType::U | oci::LinuxDeviceType::A => {
                SFlag::S_IFCHR
            }
        };
        let number = match kind {
            SFlag::S_IFIFO => 0,
            _ => makedev(device.major() as u64, device.minor() as u64),
        };
        let ids = (device.uid().unwrap_or(0), device.gid().unwrap_or(0));
        Node {
            path: device.path().clone(),
            kind,
            device: number,
            // Engines send the whole of st_mode here, the type included.
            mode: Mode::from_bits_truncate(device.file_mode().unwrap_or(0o666) & 0o7777),
            owner: (ids != (0, 0)).then(|| (Uid::from_raw(ids.0), Gid::from_raw(ids.1))),
            pointer: Some(format!("/linux/devices/{index}")),
            host: None,
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The host's node, while it is open and not yet attached.
    pub fn host(&self) -> Option<BorrowedFd<'_>> {
        self.host.as_ref().map(AsFd::as_fd)
    }

    fn error(&self, step: &'static str) -> Error {
        let error = Error::new(step).on(self.path.display());
        match &self.pointer {
            Some(pointer) => error.at(pointer),
            None => error,
        }
    }

    /// Takes the host's node, for a container in a user namespace: mknod(2) is refused there.
    pub fn open_host(&mut self) -> Result<()> {
        if self.kind == SFlag::S_IFIFO {
            return Ok(());
        }
        let node = mount::clone_tree(mount::CWD, &self.path, false).or_fail(|errno| {
            self.error("open device").errno(errno).hint(
                "in a user namespace devices are taken from the host: it must have the same node",
            )
        })?;
        self.check(
            &nix::sys::stat::fstat(&node).or_fail(|errno| self.error("stat").errno(errno))?,
        )?;
        // Or what the container mounts on it would appear on the host's.
        let private = mount::Attributes {
            propagation: nix::libc::MS_PRIVATE,
            ..mount::Attributes::default()
        };
        mount::set_attributes(node.as_fd(), false, private)
            .or_fail(|errno| self.error("make private").errno(errno))?;
        self.host = Some(node);
        Ok(())
    }

    /// Makes the node inside `root`, or finds it there as it should be.
    pub fn make(&mut self, root: &Rootfs) -> Result<()> {
        if let Some(host) = self.host.take() {
            let target = root
                .make_target(&self.path, Target::File)
                .or_fail(|errno| self.error("make mount point").errno(errno))?;
            return mount::move_mount(host.as_fd(), target.as_fd())
                .or_fail(|errno| self.error("mount device").errno(errno));
        }
        let (parent, name) = root
            .make_parent(&self.path)
            .or_fail(|errno| self.error("make directory of device").errno(errno))?;
        self.make_in(parent.as_fd(), name)
    }

    /// As [`Node::make`], for the directory that is already open if the node is right in it.
    pub fn make_near(&mut self, root: &Rootfs, dev: BorrowedFd) -> Result<()> {
        match (self.host.is_none(), self.path.strip_prefix("/dev")) {
            (true, Ok(name)) if name.components().count() == 1 => {
                let name = name.as_os_str().to_owned();
                self.make_in(dev, &name)
            }
            _ => self.make(root),
        }
    }

    fn make_in(&self, parent: BorrowedFd, name: &OsStr) -> Result<()> {
        match mknodat(parent, name, self.kind, self.mode, self.device) {
            Ok(()) => {}
            Err(Errno::EEXIST) => {
                let there =
                    stat_at(parent, name).or_fail(|errno| self.error("stat").errno(errno))?;
                return self.check(&there);
            }
            Err(errno) => return Err(self.error("make device").errno(errno)),
        }
        match self.owner {
            Some((uid, gid)) => fchownat(
                parent,
                name,
                Some(uid),
                Some(gid),
                AtFlags::AT_SYMLINK_NOFOLLOW,
            )
            .or_fail(|errno| self.error("change owner of device").errno(errno)),
            None => Ok(()),
        }
    }

    /// A node that is there must be the one that was asked for (config-linux.md, "Devices").
    fn check(&self, there: &nix::sys::stat::FileStat) -> Result<()> {
        let same = is_kind(there, self.kind)
            && (self.kind == SFlag::S_IFIFO || there.st_rdev == self.device);
        match same {
            true => Ok(()),
            false => Err(self
                .error("make device")
                .because("another kind of file is already there")
                .errno(Errno::EEXIST)),
        }
    }
}

/// Makes the links of /dev, and /dev/ptmx as one to the container's own pty multiplexer.
pub fn make_links(dev: BorrowedFd) -> Result<()> {
    for &(name, to) in LINKS {
        match symlinkat(to, dev, name) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => {
                return Err(Error::new("make link")
                    .on(format!("/dev/{name}"))
                    .errno(errno));
            }
        }
    }
    let made = match symlinkat("pts/ptmx", dev, "ptmx") {
        // A node of the image would be the host's multiplexer.
        Err(Errno::EEXIST) if readlinkat(dev, "ptmx").is_ok_and(|to| to == "pts/ptmx") => Ok(()),
        Err(Errno::EEXIST) => unlinkat(dev, "ptmx", UnlinkatFlags::NoRemoveDir)
            .and_then(|()| symlinkat("pts/ptmx", dev, "ptmx")),
        done => done,
    };
    made.step("make link", "/dev/ptmx")
        .within(|| "/mounts".into())
}
