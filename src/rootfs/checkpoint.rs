//! The root filesystem of a container that CRIU saves and makes again.
//!
//! CRIU saves mounts, and files of a tmpfs. What lies on the host, which is what bind mounts show, it is
//! told by names: on a checkpoint which mount points these are, on a restore what is to be mounted there.
//! It also wants the root mounted, and all mount points in it there.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::{Mode, SFlag, fstat, stat};

use super::handle::{self, Rootfs, Target};
use super::{Namespace, Plan};
use crate::error::{Error, Result, Step};
use crate::sys::file::open;
use crate::sys::mount;

/// The name that masks of files go by, and the host's file that is put there.
const NULL: &str = "/dev/null";

/// A mount of something that is outside of the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outside {
    /// Where the configuration has it.
    pub name: PathBuf,
    /// Where its mount point is, links resolved.
    pub point: PathBuf,
    /// What is there.
    pub source: PathBuf,
}

fn inside(path: &Path) -> PathBuf {
    Path::new("/").join(path)
}

impl Plan {
    /// # Errors
    /// For what CRIU would make again as something else.
    pub fn check_restorable(&self) -> Result<()> {
        if self.namespace != Namespace::New {
            return Err(Error::config(
                "/linux/namespaces",
                "a container without a mount namespace of its own can't be checkpointed or restored",
            )
            .hint("add {\"type\": \"mount\"} to linux.namespaces"));
        }
        if self.overlay.is_some() {
            return Err(overlaid());
        }
        match self.mounts.iter().find_map(|mount| mount.mapped()) {
            Some(pointer) => Err(Error::config(
                pointer,
                "an id-mapped mount can't be checkpointed or restored: criu would mount it without the mapping",
            )),
            None => Ok(()),
        }
    }

    /// That the root is the bundle's directory and no overlay that husk has put over it, which would end
    /// with the container.
    pub fn check_plain(&self, root: &Rootfs) -> Result<()> {
        let there = fstat(root.fd()).step("stat", "the container's root")?;
        let here = stat(&self.path).step("stat", self.path.display())?;
        match (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino) {
            true => Ok(()),
            false => Err(overlaid()),
        }
    }

    /// What lies outside, looked up in `root`.
    pub fn outside(&self, root: &Rootfs) -> Vec<Outside> {
        let binds = self
            .mounts
            .iter()
            .filter_map(|mount| Some((mount.path(), mount.outside()?)));
        let nodes = self.nodes.iter().filter(|_| self.user_namespace);
        let nodes = nodes.map(|node| (node.path(), node.path()));
        binds
            .chain(nodes)
            .map(|(path, source)| {
                let path = handle::clean(path);
                let point = root.without_links(&path).unwrap_or_else(|_| path.clone());
                Outside {
                    name: inside(&path),
                    point: inside(&point),
                    source: source.to_owned(),
                }
            })
            .collect()
    }

    /// Masks of files: mounts of the container's /dev/null, which the host's is as good as.
    pub fn masks(&self, root: &Rootfs) -> Vec<Outside> {
        let null = |point: PathBuf| Outside {
            name: NULL.into(),
            point,
            source: NULL.into(),
        };
        let is_file = |path: &Path| {
            let file = root.lookup(path).ok()?;
            let stat = fstat(&file).ok()?;
            (!handle::is_kind(&stat, SFlag::S_IFDIR)).then_some(())
        };
        self.masked
            .iter()
            .filter(|path| is_file(path).is_some())
            .filter_map(|path| root.without_links(&handle::clean(path)).ok())
            .map(|point| null(inside(&point)))
            .collect()
    }

    /// Opens the bundle's root as it is on the host.
    pub fn open_root(&self) -> Result<Rootfs> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = open(&self.path, flags, Mode::empty())
            .step("open root filesystem", self.path.display())?;
        Ok(Rootfs::new(root))
    }

    /// Makes the mount points in the root, those in bind mounts too, and leaves the root mounted at
    /// `place`. In a mount namespace that ends with CRIU: nothing is to be unmounted. What was a slave of
    /// the host's stays one, since CRIU makes the container's mounts slaves of the same.
    pub fn lay_out(mut self, place: &Path) -> Result<()> {
        super::make_slave().step("make slave", "/")?;
        let tree = self
            .tree
            .take()
            .ok_or_else(|| Error::new("attach root filesystem").because("it was not opened"))?;
        attach(&tree, place)?;
        // Without what is mounted next. Only what is attached can be cloned.
        let bare = mount::clone_tree(mount::CWD, place, true)
            .step("open root filesystem", place.display())?;
        let root = Rootfs::new(tree);
        let mut new: Vec<PathBuf> = Vec::new();
        for entry in &mut self.mounts {
            // There is nothing yet that its mount point would be in: CRIU saves that, too.
            if new.iter().any(|above| entry.path().starts_with(above)) || entry.is_remount() {
                continue;
            }
            if entry.is_bind() {
                entry.attach(&root, &|_, _| Ok(()))?;
                continue;
            }
            let path = entry.path().to_owned();
            root.make_target(&path, Target::Directory)
                .or_fail(|errno| {
                    Error::new("make mount point")
                        .on(inside(&path).display())
                        .errno(errno)
                })?;
            new.push(path);
        }
        umount2(place, MntFlags::MNT_DETACH).step("unmount", place.display())?;
        attach(&bare, place)
    }
}

fn attach(tree: &OwnedFd, place: &Path) -> Result<()> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let target = open(place, flags, Mode::empty()).step("open", place.display())?;
    mount::move_mount(tree.as_fd(), target.as_fd()).step("attach root filesystem", place.display())
}

fn overlaid() -> Error {
    Error::new("checkpoint or restore a container")
        .because("its root is an overlay of husk's own, which ends with it")
        .hint("give the bundle a root that is mounted outside, without --overlay")
        .errno(Errno::EOPNOTSUPP)
}
