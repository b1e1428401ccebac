//! The container's filesystem: its root, its mounts, its devices, and the way into it.
//!
//! [`Plan::new`] checks, [`Plan::open_sources`] opens what lies on the host, [`Plan::build`] puts it
//! together in the container's mount namespace, [`Built::enter`] makes it `/`, and [`Built::seal`]
//! takes away what the container mustn't see or write.

mod alias;
pub mod checkpoint;
mod copy_up;
mod devices;
mod fallback;
mod handle;
pub mod idmap;
mod inherited;
mod label;
mod lock;
mod masks;
mod mounts;
mod no_pivot;
pub mod options;
pub mod overlay;
mod procfs;

use std::cell::OnceCell;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sys::stat::{Mode, SFlag, fstat, makedev};
use oci_spec::runtime::{self as oci, Spec};

use self::devices::Node;
pub use self::handle::{Rootfs, lexical};
use self::idmap::{Donors, MapIds, Mapping, UserNamespace};
pub use self::inherited::{Elsewhere, unmount};
use self::label::Label;
pub use self::mounts::is_replaceable_proc_file;
use self::mounts::{Mount, Surroundings};
use self::overlay::Overlay;
pub use self::procfs::Procfs;
use crate::error::{Error, Result, Step};
use crate::sys::file::open;
use crate::sys::mount::{self, Attributes};
use crate::trace;

/// Whose mount namespace the container lives in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespace {
    New,
    Joined,
    Inherited,
}

/// What the rootfs must know of the rest of the container.
#[derive(Debug)]
pub struct Setting<'a> {
    pub bundle: &'a Path,
    pub namespace: Namespace,
    pub own_cgroup_namespace: bool,
    pub user_namespace: Option<UserNamespace>,
    /// husk itself is in a user namespace: then the container is, too.
    pub nested: bool,
    /// Where the cgroup2 tree is mounted on the host, for a container that has something to do with it.
    pub cgroups: Option<&'a Path>,
    /// Where the container's own cgroup will be.
    pub own_cgroup: Option<&'a Path>,
    pub overlay: Option<Overlay>,
    /// SELinux context of the mounts, on a host that has SELinux.
    pub mount_label: Option<String>,
    /// `chroot` in place of pivot_root(2), for hosts whose root is an initramfs.
    pub no_pivot: bool,
}

#[derive(Debug)]
pub struct Plan {
    path: PathBuf,
    readonly: bool,
    /// `MS_SHARED` and its like, for the container's root at the end.
    propagation: Option<u64>,
    namespace: Namespace,
    no_pivot: bool,
    /// The container's own.
    user_namespace: bool,
    /// In a user namespace, its own or husk's.
    confined: bool,
    /// Until the sources are open.
    donors: Donors,
    overlay: Option<Overlay>,
    label: Option<Label>,
    mounts: Vec<Mount>,
    /// Empty where /dev is the host's.
    nodes: Vec<Node>,
    own_dev: bool,
    masked: Vec<PathBuf>,
    protected: Vec<PathBuf>,
    working_directory: Option<PathBuf>,
    tree: Option<OwnedFd>,
    /// The caller may not mount: init opens the sources, in a mount namespace where it may.
    sources_by_init: bool,
    /// The directory that the root is mounted on, in the container's mount namespace.
    place: Option<OwnedFd>,
    /// Where locked mounts wait for their turn ([`Plan::take_stage`]).
    stage: Option<OwnedFd>,
}

const SLAVE: Attributes = Attributes {
    set: 0,
    clear: 0,
    propagation: libc::MS_SLAVE,
};

const READ_ONLY: Attributes = Attributes {
    set: libc::MOUNT_ATTR_RDONLY,
    clear: 0,
    propagation: 0,
};

impl Plan {
    /// # Errors
    /// For what can't be meant as it stands; nothing is touched yet.
    pub fn new(spec: &Spec, setting: Setting) -> Result<Plan> {
        let root = spec
            .root()
            .as_ref()
            .ok_or_else(|| Error::config("/root", "missing"))?;
        let linux = spec.linux().as_ref();
        let propagation = linux
            .and_then(|linux| linux.rootfs_propagation().as_deref())
            .filter(|word| !word.is_empty())
            .map(options::propagation)
            .transpose()?;
        let path = setting.bundle.join(root.path());
        let user_namespace = setting.user_namespace.is_some();
        let confined = user_namespace || setting.nested;
        let label = setting.mount_label.map(|text| {
            let text = CString::new(text)
                .map_err(|_| Error::config("/linux/mountLabel", "a NUL character inside"))?;
            Ok(Label::new(text, confined))
        });
        let label = label.transpose()?;
        let around = Surroundings {
            confined,
            label: label.as_ref(),
            bundle: setting.bundle,
            root: &path,
            own_cgroup_namespace: setting.own_cgroup_namespace,
            cgroups: setting.cgroups,
            own_cgroup: setting.own_cgroup,
            propagation: propagation.unwrap_or(libc::MS_SLAVE),
        };
        let mut mounts = spec
            .mounts()
            .iter()
            .flatten()
            .enumerate()
            .map(|(index, entry)| Mount::plan(index, entry, around))
            .collect::<Result<Vec<_>>>()?;
        // With a user namespace init would be another user, in mounts that its root could change. And what
        // it has are slaves, through which nothing reaches the host.
        let by_init = setting.namespace == Namespace::New
            && !user_namespace
            && propagation != Some(libc::MS_SHARED);
        let known = OnceCell::new();
        let place = |source: &Path| known.get_or_init(|| alias::Root::find(&path)).place(source);
        for index in 0..mounts.len() {
            let (before, rest) = mounts.split_at_mut(index);
            rest[0].choose_turn(before, &path, place, by_init);
        }
        let own_dev = !mounts.iter().any(Mount::replaces_dev);
        let listed = linux
            .and_then(|linux| linux.devices().as_deref())
            .unwrap_or_default();
        let paths = |list: Option<&Vec<String>>| -> Vec<PathBuf> {
            list.into_iter().flatten().map(PathBuf::from).collect()
        };
        let plan = Plan {
            path,
            readonly: root.readonly().unwrap_or(false),
            propagation,
            namespace: setting.namespace,
            no_pivot: setting.no_pivot,
            user_namespace,
            confined,
            donors: Donors::new(setting.user_namespace),
            overlay: setting.overlay,
            label,
            mounts,
            nodes: if own_dev {
                devices::plan(listed)
            } else {
                Vec::new()
            },
            own_dev,
            masked: paths(linux.and_then(|linux| linux.masked_paths().as_ref())),
            protected: paths(linux.and_then(|linux| linux.readonly_paths().as_ref())),
            working_directory: spec.process().as_ref().map(|process| process.cwd().clone()),
            tree: None,
            sources_by_init: false,
            place: None,
            stage: None,
        };
        plan.check_shared()?;
        Ok(plan)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn overlay(&self) -> Option<&Overlay> {
        self.overlay.as_ref()
    }

    /// Opens the root and the sources of bind mounts, on the host, before there is a container.
    ///
    /// A caller who may not mount leaves that to init, which finds the same files in its copy of the
    /// caller's mount namespace.
    pub fn open_sources(&mut self) -> Result<()> {
        let mut donors = std::mem::take(&mut self.donors);
        let stat = nix::sys::stat::stat(&self.path).or_fail(|errno| self.no_root(errno))?;
        if !handle::is_kind(&stat, SFlag::S_IFDIR) {
            return Err(self.no_root(Errno::ENOTDIR));
        }
        if let Some(overlay) = &self.overlay {
            overlay.check()?;
        }
        // With an overlay, too: to learn whether husk may.
        match mount::clone_tree(mount::CWD, &self.path, true) {
            // The kernel's word for a lack of privilege, whatever the path.
            Err(Errno::EPERM) => {
                self.sources_by_init = true;
                self.mounts.iter().try_for_each(Mount::require_no_mapping)
            }
            root => self.clone_sources(root.or_fail(|errno| self.no_root(errno))?, &mut donors),
        }
    }

    fn no_root(&self, errno: Errno) -> Error {
        Error::new("open root filesystem")
            .on(self.path.display())
            .at("/root/path")
            .errno(errno)
    }

    fn clone_sources(&mut self, root: OwnedFd, donors: &mut Donors) -> Result<()> {
        if self.overlay.is_none() {
            // Mounts made on it mustn't appear in the host's copy of the same mount.
            let kind = match self.propagation {
                Some(libc::MS_PRIVATE) => libc::MS_PRIVATE,
                _ => libc::MS_SLAVE,
            };
            let change = Attributes {
                propagation: kind,
                ..Attributes::default()
            };
            mount::set_attributes(root.as_fd(), true, change)
                .or_fail(|errno| self.no_root(errno))?;
            self.tree = Some(root);
        }
        for mount in &mut self.mounts {
            mount.open_source(donors, &self.path)?;
        }
        if self.confined {
            for node in &mut self.nodes {
                node.open_host()?;
            }
        }
        Ok(())
    }

    /// One more bind mount, the last one: of what came to be only after [`Plan::open_sources`].
    pub fn bind(&mut self, entry: &oci::Mount) -> Result<()> {
        let around = Surroundings {
            confined: self.confined,
            label: self.label.as_ref(),
            bundle: Path::new("/"),
            root: &self.path,
            own_cgroup_namespace: true,
            cgroups: None,
            own_cgroup: None,
            propagation: self.propagation.unwrap_or(libc::MS_SLAVE),
        };
        let mut mount = Mount::plan(self.mounts.len(), entry, around)?;
        if !self.sources_by_init {
            mount.open_source(&mut Donors::default(), &self.path)?;
        }
        self.mounts.push(mount);
        Ok(())
    }

    /// What husk needs to map ids for an init that may not, in a user namespace.
    pub fn take_mappings(&mut self) -> Vec<Mapping> {
        match self.user_namespace {
            true => self
                .mounts
                .iter_mut()
                .filter_map(Mount::take_mapping)
                .collect(),
            false => Vec::new(),
        }
    }

    /// Everything that [`Plan::open_sources`] opened, for whoever closes all else.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let mounts = self.mounts.iter().flat_map(Mount::descriptors);
        let nodes = self.nodes.iter().filter_map(Node::host);
        let tree = self.tree.as_ref().map(AsFd::as_fd);
        mounts.chain(nodes).chain(tree).collect()
    }

    /// Opens the directory that the root will be mounted on, and what the caller could not open. In the
    /// container's mount namespace, and before the container's own root takes over, who may not be let
    /// through to it.
    pub fn open_place(&mut self) -> Result<()> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let place = open(&self.path, flags, Mode::empty()).or_fail(|errno| self.no_root(errno))?;
        self.place = Some(place);
        if !self.sources_by_init {
            return Ok(());
        }
        let root =
            mount::clone_tree(mount::CWD, &self.path, true).or_fail(|errno| self.no_root(errno))?;
        self.clone_sources(root, &mut Donors::default())
    }

    /// Puts everything together, in the container's mount namespace with the host's root still `/`.
    pub fn build(mut self, map_ids: MapIds) -> Result<Built> {
        if self.namespace == Namespace::New {
            make_slave().step("make slave", "/")?;
        } else if self.namespace == Namespace::Joined {
            inherited::refuse_shared_root()?;
        }
        let root = self.attach_root()?;
        let mut late = Vec::new();
        for (index, mount) in self.mounts.iter_mut().enumerate() {
            let pointer = format_args!("/mounts/{index}");
            if let Some(stage) = &self.stage {
                lock::take(stage, index, mount)?;
            }
            late.extend(trace::step_on("mount", pointer, || {
                mount.attach(&root, map_ids)
            })?);
        }
        self.stage = None;
        if self.own_dev {
            let dev = root
                .make_directory(Path::new("dev"))
                .step("open", "/dev of the container")?;
            for node in &mut self.nodes {
                node.make_near(&root, dev.as_fd())?;
            }
            devices::make_links(dev.as_fd())?;
        }
        if let Some(path) = &self.working_directory {
            make_working_directory(&root, path);
        }
        Ok(Built {
            root,
            plan: self,
            late,
        })
    }

    /// Attaches the root where it lies: hooks look for the container's files there.
    fn attach_root(&mut self) -> Result<Rootfs> {
        if self.place.is_none() {
            self.open_place()?;
        }
        let tree = match (&self.overlay, self.tree.take()) {
            (Some(overlay), _) => overlay.mount(self.confined, self.label.as_ref())?,
            (None, Some(tree)) => tree,
            (None, None) => {
                return Err(Error::new("attach root filesystem").because("it was not opened"));
            }
        };
        let Some(place) = self.place.take() else {
            return Err(Error::new("attach root filesystem").because("nowhere to attach it"));
        };
        mount::move_mount(tree.as_fd(), place.as_fd())
            .step("attach root filesystem", self.path.display())?;
        // Attached below a shared mount it has become shared itself, with everything that is in it.
        let inherited = self.namespace == Namespace::Inherited;
        if self.overlay.is_some() || inherited {
            mount::set_attributes(tree.as_fd(), inherited, SLAVE)
                .step("make slave", self.path.display())?;
        }
        Ok(Rootfs::new(tree))
    }
}

/// What is mounted from here on in this mount namespace doesn't appear in the one that it was copied from.
fn make_slave() -> nix::Result<()> {
    let flags = MsFlags::MS_SLAVE | MsFlags::MS_REC;
    nix::mount::mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)
}

/// As the peers do. Where it can't be made (read-only, a file in the way), the change into it says why.
fn make_working_directory(root: &Rootfs, path: &Path) {
    if root.open(path, OFlag::O_PATH | OFlag::O_DIRECTORY).is_err() {
        let _ = root.make_directory(path);
    }
}

/// A root filesystem put together but not yet entered.
#[derive(Debug)]
pub struct Built {
    root: Rootfs,
    plan: Plan,
    /// Mounts that become read-only when the devices are made.
    late: Vec<OwnedFd>,
}

impl Built {
    pub fn root(&self) -> &Rootfs {
        &self.root
    }

    /// Puts the terminal at /dev/console.
    pub fn place_console(&self, terminal: BorrowedFd) -> Result<()> {
        use std::os::fd::AsRawFd;
        let fail = |errno| {
            Error::new("mount")
                .on("/dev/console")
                .at("/process/terminal")
                .errno(errno)
        };
        let dev = self.root.make_directory(Path::new("dev")).or_fail(fail)?;
        let name = std::ffi::OsStr::new("console");
        match nix::sys::stat::mknodat(&dev, name, SFlag::S_IFREG, Mode::from_bits_retain(0o600), 0)
        {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(fail(errno)),
        }
        let target = handle::open_at(dev.as_fd(), name).or_fail(fail)?;
        let tree = mount::clone_tree(terminal.as_raw_fd(), "", false).or_fail(fail)?;
        mount::move_mount(tree.as_fd(), target.as_fd()).or_fail(fail)
    }

    /// Makes the root filesystem the root of this process and drops the host's.
    pub fn enter(&self) -> Result<()> {
        let fail = |step| move |errno| Error::new(step).on(self.plan.path.display()).errno(errno);
        nix::unistd::fchdir(self.root.fd()).or_fail(fail("enter root filesystem"))?;
        if self.plan.no_pivot || self.plan.namespace != Namespace::New {
            if self.plan.namespace == Namespace::New {
                no_pivot::clear_host(&self.root)?;
                // The namespace's own root, too: a process that enters it later starts there.
                let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
                let host = open("/", flags, Mode::empty()).or_fail(fail("move"))?;
                mount::move_mount(self.root.fd(), host.as_fd()).or_fail(fail("move"))?;
            }
            nix::unistd::chroot(".").or_fail(fail("chroot to"))?;
            return nix::unistd::chdir("/").or_fail(fail("enter root filesystem"));
        }
        nix::unistd::pivot_root(".", ".").or_fail(|errno| {
            let error = fail("pivot_root to")(errno);
            match errno {
                Errno::EINVAL => {
                    error.hint("where the host's root is an initramfs, use --no-pivot")
                }
                _ => error,
            }
        })?;
        self.drop_host()?;
        nix::unistd::chdir("/").step("enter", "/")
    }

    /// The host's root now lies on top of the new one (pivot_root(2), NOTES), and on top of it what was
    /// mounted over it: `/..` would lead there, and so would setns(2), until nothing is left.
    fn drop_host(&self) -> Result<()> {
        const LAYERS: usize = 64;
        let fail = |errno| Error::new("unmount the host's root").errno(errno);
        let own = mount::mount_id(self.root.fd(), c"").or_fail(fail)?;
        for _ in 0..LAYERS {
            umount2(".", MntFlags::MNT_DETACH).or_fail(fail)?;
            if mount::mount_id(self.root.fd(), c"/..").or_fail(fail)? == own {
                return Ok(());
            }
        }
        Err(Error::new("unmount the host's root").because("too many mounts lie on top of it"))
    }

    /// After the last hook that may want to write: read-only root and paths, masks.
    pub fn seal(self) -> Result<()> {
        let plan = &self.plan;
        let lookup = |path: &Path| mounts::lookup(&plan.mounts, &self.root, path);
        masks::protect(&lookup, &plan.protected)?;
        masks::mask(&self.root, &lookup, &plan.masked, plan.label.as_ref())?;
        for mount in &self.late {
            mount::set_attributes(mount.as_fd(), false, READ_ONLY).or_fail(|errno| {
                Error::new("make mount read-only")
                    .at("/mounts")
                    .errno(errno)
            })?;
        }
        if plan.readonly {
            mount::set_attributes(self.root.fd(), false, READ_ONLY).or_fail(|errno| {
                Error::new("make root filesystem read-only")
                    .at("/root/readonly")
                    .errno(errno)
            })?;
        }
        if let Some(propagation) = plan.propagation {
            let change = Attributes {
                propagation,
                ..Attributes::default()
            };
            mount::set_attributes(self.root.fd(), false, change).or_fail(|errno| {
                Error::new("set propagation of the root")
                    .at("/linux/rootfsPropagation")
                    .errno(errno)
            })?;
        }
        Ok(())
    }
}

/// Opens the pseudoterminal multiplexer of the container's own /dev/pts.
///
/// The device is looked at before it is used: the image may have put anything in its place
/// (CVE-2025-52565).
pub fn open_multiplexer(root: &Rootfs) -> Result<OwnedFd> {
    let fail = || {
        Error::new("open terminal")
            .on("/dev/pts/ptmx of the container")
            .at("/process/terminal")
    };
    // Opened as it is found, and looked at afterwards: to open the multiplexer has no effect but on a
    // devpts, and O_NONBLOCK keeps a fifo from holding husk up.
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
    let master = root
        .open_plain(Path::new("dev/pts/ptmx"), flags)
        .or_fail(|errno| {
            fail()
                .errno(errno)
                .hint("a terminal needs a mount of type devpts at /dev/pts")
        })?;
    let stat = fstat(&master).or_fail(|errno| fail().errno(errno))?;
    let kind = nix::sys::statfs::fstatfs(&master).or_fail(|errno| fail().errno(errno))?;
    if stat.st_rdev != makedev(5, 2)
        || !handle::is_kind(&stat, SFlag::S_IFCHR)
        || kind.filesystem_type() != nix::sys::statfs::DEVPTS_SUPER_MAGIC
    {
        return Err(fail()
            .because("it is not a pseudoterminal multiplexer on a devpts")
            .hint("a terminal needs a mount of type devpts at /dev/pts"));
    }
    fcntl(&master, FcntlArg::F_SETFL(OFlag::O_RDWR)).or_fail(|errno| fail().errno(errno))?;
    Ok(master)
}
