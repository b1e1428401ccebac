//! What husk keeps of a container: a directory of its own under `--root`.
//!
//! | file | |
//! | --- | --- |
//! | `record.json` | this structure; replaced as a whole, never changed in place |
//! | `config.json` | the bundle's, byte for byte, as it was at `create` |
//! | `start.sock` | where a created container's first process waits for `start` |
//! | `notify/notify.sock` | where its program says that it is ready, if husk's caller wants to know |
//! | `network` | its network namespace, mounted there while devices are on their way into it |
//!
//! The directory itself is locked by whoever changes the container.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, renameat};
use nix::mount::{MntFlags, umount2};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, connect, socket};
use nix::sys::stat::{Mode, fstat, mkdirat, umask};
use nix::sys::statfs::{FsType, fstatfs};
use nix::unistd::{Pid, Uid, UnlinkatFlags, unlinkat};
use serde::{Deserialize, Serialize};

use super::agent::Agent;
use super::postmortem::Postmortem;
use crate::bundle::did_you_mean;
use crate::cgroups::Place;
use crate::error::{Error, Result, Step};
use crate::files;
use crate::hooks::Hook;
use crate::namespaces;
use crate::network::Journey;
use crate::process::worker::Worker;
use crate::process::{channel, readiness};
use crate::rdt;
use crate::rootfs::Elsewhere;
use crate::sys;
use crate::sys::file::{openat, openat2};

/// Increased when an older husk could misread what a newer one writes.
const FORMAT: u32 = 2;

const RECORD: &str = "record.json";
const NEW_RECORD: &str = "record.new";
const CONFIG: &str = "config.json";
const SOCKET: &str = "start.sock";
const NETWORK: &str = "network";
const NOTIFY_DIRECTORY: &str = "notify";
/// In that directory.
pub const NOTIFY: &str = "notify.sock";

/// How far `create` has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// What the record names is about to exist, or some of it does.
    Creating,
    Created,
}

/// A process, told from a later one with the same number by when it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Init {
    pub pid: i32,
    /// Field 22 of proc_pid_stat(5).
    pub start_time: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    pub format: u32,
    pub phase: Phase,
    pub oci_version: String,
    pub id: String,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    /// RFC 3339 with nanoseconds.
    pub created: String,
    /// uid of who created it.
    pub owner: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<Init>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<Place>,
    /// `CLONE_NEW*` of the namespaces that are not the host's.
    pub namespaces: u64,
    /// Whether its first process is that of its pid namespace, so that all others end with it.
    pub first_in_pids: bool,
    /// Name of the session keyring that its processes are in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keyring: Option<String>,
    /// Directories of an upper layer that husk made for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub made: Vec<PathBuf>,
    /// Its root filesystem's mount, where `create` leaves that in the caller's mount namespace or in
    /// [`Record::root_mount_in`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_mount: Option<u64>,
    /// The mount namespace that it joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_mount_in: Option<Elsewhere>,
    /// Network devices that `create` moves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journey: Option<Journey>,
    /// CRIU made its first process, which then has executed nothing and yet may run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restored: bool,
    /// Whether its program says at a socket of husk's that it is ready.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub notify: bool,
    /// Who answers the calls that its seccomp filter leaves to somebody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seccomp_agent: Option<Agent>,
    /// Its resctrl group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rdt: Option<rdt::Place>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub poststart: Vec<Hook>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub poststop: Vec<Hook>,
    /// How it ended, where husk saw it.
    #[serde(default)]
    pub postmortem: Postmortem,
}

impl Record {
    pub fn format() -> u32 {
        FORMAT
    }

    /// What stands in a file, which `path` names in errors.
    ///
    /// # Errors
    /// `EBADMSG` for one that can't be understood.
    pub fn parse(text: &[u8], path: &Path) -> Result<Record> {
        let bad = |reason: String| {
            Error::new("read record")
                .on(path.display())
                .because(reason)
                .errno(Errno::EBADMSG)
        };
        let record: Record = serde_json::from_slice(text).map_err(|error| {
            bad(error.to_string()).hint("husk delete --force removes what can be found of it")
        })?;
        match record.format {
            FORMAT => Ok(record),
            other => Err(bad(format!("format {other} is not known to this husk"))
                .hint("it was written by another version of husk: use that one")),
        }
    }
}

/// The open directory of one container.
#[derive(Debug)]
pub struct Home {
    fd: OwnedFd,
    path: PathBuf,
}

const DIRECTORY: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

impl Home {
    /// Makes the directory of a new container, and `root` above it.
    ///
    /// # Errors
    /// The id is taken.
    pub fn make(root: &Path, id: &str) -> Result<Home> {
        let root_fd = open_root(root)?;
        match mkdirat(&root_fd, id, Mode::S_IRWXU) {
            Ok(()) => {}
            Err(Errno::EEXIST) => {
                return Err(taken(id));
            }
            Err(errno) => {
                let error = Error::new("make directory")
                    .on(root.join(id).display())
                    .errno(errno);
                return Err(match errno {
                    Errno::EROFS | Errno::EACCES | Errno::ENOSPC | Errno::EDQUOT => {
                        error.hint("--root DIR keeps the containers' records elsewhere")
                    }
                    _ => error,
                });
            }
        }
        let path = root.join(id);
        let home = openat(&root_fd, id, DIRECTORY, Mode::empty())
            .step("open", path.display())
            .map(|fd| Home { fd, path });
        home.and_then(|home| home.lock().map(|()| home))
            .inspect_err(|_| {
                // Without a record it would be nobody's, and the id taken.
                let _ = unlinkat(&root_fd, id, UnlinkatFlags::RemoveDir);
            })
    }

    /// `None` if there is no such container.
    pub fn open(root: &Path, id: &str) -> Result<Option<Home>> {
        let path = root.join(id);
        match openat(AT_FDCWD, &path, DIRECTORY, Mode::empty()) {
            Ok(fd) => Ok(Some(Home { fd, path })),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(None),
            Err(errno) => Err(errno).step("open", path.display()),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for other commands that change this container, but not for ever.
    pub fn lock(&self) -> Result<()> {
        self.lock_while(|_| {})
    }

    /// The same; each time that it has to wait, some 10 ms, that is done before, with how often it had to.
    pub fn lock_while(&self, mut waiting: impl FnMut(u32)) -> Result<()> {
        const TRIES: u32 = 1500;
        for turn in 0..TRIES {
            match sys::fd::try_lock(self.fd.as_fd()) {
                Err(Errno::EWOULDBLOCK) => {
                    waiting(turn);
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
                done => return done.step("lock", self.path.display()),
            }
        }
        Err(Error::new("lock")
            .on(self.path.display())
            .because("another command is at work on this container")
            .errno(Errno::EWOULDBLOCK))
    }

    /// Who has the lock, if it can be told.
    pub fn worker(&self) -> Result<Option<Worker>> {
        Worker::at(self.fd.as_fd())
    }

    /// Whether someone is changing the container right now.
    pub fn is_locked(&self) -> Result<bool> {
        // A description of its own: the lock must not be taken from under this process.
        match openat(&self.fd, ".", DIRECTORY, Mode::empty()) {
            // Deleted meanwhile.
            Err(Errno::ENOENT) => Ok(false),
            again => again
                .and_then(|fd| sys::fd::is_locked(fd.as_fd()))
                .step("look at the lock of", self.path.display()),
        }
    }

    /// Replaces the record at once.
    pub fn write(&self, record: &Record) -> Result<()> {
        self.draft(record)?.publish()
    }

    /// What the record is to be, written beside it. No other is written in the meantime.
    pub fn draft(&self, record: &Record) -> Result<Draft<'_>> {
        let text = serde_json::to_vec(record)
            .map_err(|error| Error::new("write record").because(error.to_string()))?;
        self.write_file(NEW_RECORD, &text)?;
        Ok(Draft(self))
    }

    /// `None` when `create` was ended before it wrote one.
    ///
    /// # Errors
    /// `EBADMSG` for one that can't be understood.
    pub fn read(&self) -> Result<Option<Record>> {
        let path = self.path.join(RECORD);
        match openat(&self.fd, RECORD, FILE, Mode::empty()) {
            Err(Errno::ENOENT) => Ok(None),
            file => parse(file.step("open", path.display())?, &path).map(Some),
        }
    }

    /// Whether the directory was removed while it was open here.
    pub fn is_gone(&self) -> bool {
        fstat(&self.fd).is_ok_and(|stat| stat.st_nlink == 0)
    }

    pub fn write_config(&self, raw: &[u8]) -> Result<()> {
        self.write_file(CONFIG, raw)
    }

    pub fn read_config(&self) -> Result<Vec<u8>> {
        let path = self.path.join(CONFIG);
        let file = openat(&self.fd, CONFIG, FILE, Mode::empty()).step("open", path.display())?;
        sys::fd::read_regular(file.as_fd()).step("read", path.display())
    }

    fn write_file(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let flags = OFlag::O_WRONLY
            | OFlag::O_CREAT
            | OFlag::O_TRUNC
            | OFlag::O_NOFOLLOW
            | OFlag::O_CLOEXEC;
        let path = self.path.join(name);
        let file = openat(&self.fd, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)
            .step("make", path.display())?;
        File::from(file)
            .write_all(bytes)
            .step("write", path.display())
    }

    /// Whether the first process still waits for its start. It doesn't notice that it is looked at: to
    /// connect a datagram socket sends nothing.
    pub fn is_waiting(&self) -> Result<bool> {
        match self.connect() {
            Err(error) if matches!(error.code(), Some(Errno::ENOENT | Errno::ECONNREFUSED)) => {
                Ok(false)
            }
            done => done.map(|_| true),
        }
    }

    /// By way of the directory's descriptor: a path may be longer than a socket's name (108 bytes).
    fn socket_address(&self) -> Result<UnixAddr> {
        let path = format!("/proc/self/fd/{}/{SOCKET}", self.fd.as_raw_fd());
        UnixAddr::new(path.as_str()).step("name", "start socket")
    }

    /// The socket that the first process waits at.
    pub fn open_door(&self) -> Result<OwnedFd> {
        let door = new_socket()?;
        bind(door.as_raw_fd(), &self.socket_address()?)
            .step("bind", self.path.join(SOCKET).display())?;
        Ok(door)
    }

    /// A socket where a handle to the door's name lies.
    pub fn door_name(&self) -> Result<OwnedFd> {
        let path = self.path.join(SOCKET);
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let name = openat(&self.fd, SOCKET, flags, Mode::empty()).step("open", path.display())?;
        let (own, other) = channel::connection()?;
        sys::socket::send(other.as_fd(), b"n", Some(name.as_fd())).step("keep", path.display())?;
        Ok(own)
    }

    fn connect(&self) -> Result<OwnedFd> {
        let socket = new_socket()?;
        connect(socket.as_raw_fd(), &self.socket_address()?)
            .step("connect to", self.path.join(SOCKET).display())?;
        Ok(socket)
    }

    /// Lets the first process go on, which gets the other end of what is returned.
    pub fn knock(&self) -> Result<Knock> {
        let (own, other) = channel::connection()?;
        let door = self.connect()?;
        sys::socket::send(door.as_fd(), b"s", Some(other.as_fd()))
            .step("send to", self.path.join(SOCKET).display())?;
        Ok(Knock(own))
    }

    /// Makes the directory of the notify socket: its path.
    pub fn make_notify(&self) -> Result<PathBuf> {
        let path = self.path.join(NOTIFY_DIRECTORY);
        // Whatever the umask is: the program's user must get through.
        let mode = Mode::from_bits_truncate(0o755);
        unmasked(|| mkdirat(&self.fd, NOTIFY_DIRECTORY, mode))
            .step("make directory", path.display())?;
        Ok(path)
    }

    /// A new notify socket, for every user of the container.
    pub fn bind_notify(&self) -> Result<OwnedFd> {
        let name = format!("{NOTIFY_DIRECTORY}/{NOTIFY}");
        let path = self.path.join(&name);
        // That of a start that was killed.
        let _ = unlinkat(&self.fd, name.as_str(), UnlinkatFlags::NoRemoveDir);
        let socket = readiness::new_socket()?;
        let address = format!("/proc/self/fd/{}/{name}", self.fd.as_raw_fd());
        // Made with its mode, not changed to it: the container may have put a link there meanwhile.
        UnixAddr::new(address.as_str())
            .and_then(|address| unmasked(|| bind(socket.as_raw_fd(), &address)))
            .step("bind", path.display())?;
        Ok(socket)
    }

    /// Holds the network namespace of that process, so that what is moved there can be taken back, whoever ends.
    ///
    /// # Errors
    /// Who may not mount.
    pub fn hold_network(&self, pid: Pid) -> Result<OwnedFd> {
        let path = format!("/proc/{pid}/ns/net");
        let namespace = openat(
            AT_FDCWD,
            path.as_str(),
            FILE.difference(OFlag::O_NOFOLLOW),
            Mode::empty(),
        )
        .step("open namespace", &path)?;
        self.write_file(NETWORK, &[])?;
        let on = self.path.join(NETWORK);
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let target = openat(&self.fd, NETWORK, flags, Mode::empty()).step("open", on.display())?;
        let tree = sys::mount::clone_tree(namespace.as_raw_fd(), "", false);
        tree.and_then(|tree| sys::mount::move_mount(tree.as_fd(), target.as_fd()))
            .step("mount network namespace", on.display())?;
        Ok(namespace)
    }

    /// `None` if it isn't held.
    pub fn held_network(&self) -> Result<Option<OwnedFd>> {
        /// NSFS_MAGIC of linux/magic.h.
        const MAGIC: FsType = FsType(0x6e73_6673);
        let path = self.path.join(NETWORK);
        let file = match openat(&self.fd, NETWORK, FILE, Mode::empty()) {
            Err(Errno::ENOENT) => return Ok(None),
            file => file.step("open", path.display())?,
        };
        let kind = fstatfs(&file).step("statfs", path.display())?;
        Ok((kind.filesystem_type() == MAGIC).then_some(file))
    }

    /// Lets it end with those who are in it.
    pub fn release_network(&self) -> Result<()> {
        let name = format!("/proc/self/fd/{}/{NETWORK}", self.fd.as_raw_fd());
        let flags = MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW;
        match umount2(name.as_str(), flags) {
            // Not there, not mounted, or not for who may not mount.
            Ok(()) | Err(Errno::ENOENT | Errno::EINVAL | Errno::EPERM) => {}
            Err(errno) => {
                return Err(errno).step("unmount", self.path.join(NETWORK).display());
            }
        }
        self.unlink(&[NETWORK])
    }

    /// Removes everything, the record last: before that it can be done again.
    pub fn remove(self) -> Result<()> {
        self.unlink(&[SOCKET, CONFIG, RECORD])?;
        let remove = || unlinkat(AT_FDCWD, &self.path, UnlinkatFlags::RemoveDir);
        let removed = match remove() {
            // What few containers have, or a killed husk has left.
            Err(Errno::ENOTEMPTY) => {
                let notify = format!("{NOTIFY_DIRECTORY}/{NOTIFY}");
                self.unlink(&[NEW_RECORD, &notify])?;
                let _ = unlinkat(&self.fd, NOTIFY_DIRECTORY, UnlinkatFlags::RemoveDir);
                self.release_network()?;
                remove()
            }
            removed => removed,
        };
        match removed {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno).step("remove", self.path.display()),
        }
    }

    fn unlink(&self, names: &[&str]) -> Result<()> {
        for name in names {
            match unlinkat(&self.fd, *name, UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno).step("remove", self.path.join(name).display()),
            }
        }
        Ok(())
    }
}

/// The end of the connection at which the start of a program is heard of.
#[derive(Debug)]
pub struct Knock(pub(super) OwnedFd);

/// A record that lies beside the one that holds.
#[must_use]
pub struct Draft<'a>(&'a Home);

impl Draft<'_> {
    /// From now on it is the record.
    pub fn publish(self) -> Result<()> {
        let Draft(home) = self;
        renameat(&home.fd, NEW_RECORD, &home.fd, RECORD)
            .step("write", home.path.join(RECORD).display())
    }
}

/// The record of a container below `root`, in as few calls as there can be; `None` where it takes a closer
/// look to tell what is there.
pub fn glance(root: BorrowedFd, id: &str) -> Option<Record> {
    let path = Path::new(id).join(RECORD);
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    parse(openat2(root, &path, how).ok()?, &path).ok()
}

fn parse(file: OwnedFd, path: &Path) -> Result<Record> {
    let text = sys::fd::read_regular(file.as_fd()).step("read", path.display())?;
    Record::parse(&text, path)
}

/// What `make` makes has the mode that it asks for: for everybody, without one.
fn unmasked<T>(make: impl FnOnce() -> T) -> T {
    let callers = umask(Mode::empty());
    let made = make();
    umask(callers);
    made
}

pub fn taken(id: &str) -> Error {
    Error::new("create container")
        .on(id)
        .because("container with given ID already exists")
        .hint(format!(
            "choose another id, or delete that one: husk delete {id} (--force if it runs)"
        ))
}

const FILE: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

fn new_socket() -> Result<OwnedFd> {
    socket(
        AddressFamily::Unix,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .step("make", "socket")
}

/// No container has this id.
pub fn missing(root: &Path, id: &str) -> Error {
    Error::new("container")
        .on(id)
        .because("container does not exist")
        .maybe_hint(other(root, id))
}

/// The container that may be meant. Not of an engine's ids, which nobody types.
fn other(root: &Path, id: &str) -> Option<String> {
    const TYPED: usize = 32;
    let entries = (id.len() <= TYPED)
        .then(|| std::fs::read_dir(root).ok())
        .flatten()?;
    let names = entries.flatten().take(1024);
    let names: Vec<String> = names
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.len() <= TYPED)
        .collect();
    did_you_mean(id, names.iter().map(String::as_str))
}

/// The directory of all records, made when it is missing: for its owner alone. An ordinary user's is sticky,
/// as what clears XDG_RUNTIME_DIR of old files leaves such directories in peace (XDG base directory
/// specification).
fn open_root(root: &Path) -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    match openat(AT_FDCWD, root, flags, Mode::empty()) {
        Err(Errno::ENOENT) => {
            let rootless = !Uid::effective().is_root() || namespaces::nested();
            let mode = if rootless { 0o1700 } else { 0o700 };
            files::make_directories(root, mode).or_fail(|errno| {
                let error = Error::new("make directory").on(root.display()).errno(errno);
                match errno {
                    Errno::EACCES | Errno::EROFS => error.hint(
                        "an ordinary user's containers are below XDG_RUNTIME_DIR: set it, or give --root",
                    ),
                    _ => error,
                }
            })?;
            openat(AT_FDCWD, root, flags, Mode::empty()).step("open", root.display())
        }
        done => done.step("open", root.display()),
    }
}

/// The ids under `root`, and that directory; `None` if it isn't there.
pub fn ids(root: &Path) -> Result<Option<(OwnedFd, Vec<String>)>> {
    let entries = match std::fs::read_dir(root) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        entries => entries.step("read directory", root.display())?,
    };
    let mut ids = Vec::new();
    for entry in entries {
        let entry = entry.step("read directory", root.display())?;
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if let (true, Ok(id)) = (is_directory, entry.file_name().into_string()) {
            ids.push(id);
        }
    }
    ids.sort();
    Ok(Some((open_root(root)?, ids)))
}
