//! The descriptor-based mount interface (Linux 5.2 to 5.12), and what it says on failure.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::{NixPath, Result};

fn owned(fd: libc::c_long) -> Result<OwnedFd> {
    let fd = Errno::result(fd)?;
    // SAFETY: the system call just made it, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// `AT_FDCWD` as a directory, for paths as the user wrote them.
pub const CWD: RawFd = libc::AT_FDCWD;

/// A detached copy of the mount at `path`, open_tree(2) with `OPEN_TREE_CLONE`. An empty path means
/// `dir` itself. Final symbolic links are followed.
///
/// # Errors
/// `ENOENT`, `EACCES`, `ENOTDIR`, `ELOOP` for the path; `EPERM` without CAP_SYS_ADMIN; `EINVAL` for a
/// descriptor of another mount namespace or of an unbindable mount.
pub fn clone_tree<P: ?Sized + NixPath>(dir: RawFd, path: &P, recursive: bool) -> Result<OwnedFd> {
    let mut flags = libc::OPEN_TREE_CLONE as libc::c_int | libc::OPEN_TREE_CLOEXEC as libc::c_int;
    if path.is_empty() {
        flags |= libc::AT_EMPTY_PATH;
    }
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    // SAFETY: a valid C string for the length of the call.
    owned(path.with_nix_path(|path| unsafe {
        libc::syscall(libc::SYS_open_tree, dir, path.as_ptr(), flags)
    })?)
}

/// Attaches the detached mount `tree` on top of `target`, move_mount(2).
///
/// # Errors
/// `ENOTDIR` when one is a directory and the other isn't, `EINVAL` when `target` isn't in this mount
/// namespace, `ELOOP` for a mount onto itself, `ENOSPC` at `fs.mount-max`.
pub fn move_mount(tree: BorrowedFd, target: BorrowedFd) -> Result<()> {
    // SAFETY: constant C strings.
    let done = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH,
        )
    };
    Errno::result(done).map(drop)
}

/// What mount_setattr(2) is to change. `MOUNT_ATTR_*` and `MS_SHARED` and its like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    pub set: u64,
    pub clear: u64,
    pub propagation: u64,
}

impl Attributes {
    pub fn is_empty(self) -> bool {
        self == Attributes::default()
    }
}

/// Changes the mount that `mount` is the root of, and with `recursive` all below it.
///
/// # Errors
/// `EPERM` for a flag that is locked in this user namespace, `EBUSY` for read-only with writers,
/// `EINVAL` for a descriptor that isn't a mount's root.
pub fn set_attributes(mount: BorrowedFd, recursive: bool, change: Attributes) -> Result<()> {
    let attributes = libc::mount_attr {
        attr_set: change.set,
        attr_clr: change.clear,
        propagation: change.propagation,
        userns_fd: 0,
    };
    set(mount, recursive, attributes)
}

/// Makes owners of files on a detached mount appear as `namespace` maps them, `MOUNT_ATTR_IDMAP`.
///
/// # Errors
/// `EINVAL` for a filesystem that can't, `EPERM` without privileges over the filesystem or over
/// `namespace`, or for a mount that is mapped already.
pub fn map_ids(mount: BorrowedFd, recursive: bool, namespace: BorrowedFd) -> Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: namespace.as_raw_fd() as u64,
    };
    set(mount, recursive, attributes)
}

fn set(mount: BorrowedFd, recursive: bool, mut attributes: libc::mount_attr) -> Result<()> {
    let mut flags = libc::AT_EMPTY_PATH;
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    // SAFETY: `attributes` is valid and its size is given.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw mut attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    Errno::result(done).map(drop)
}

/// statvfs(3)'s flag for relatime, which the libraries don't agree on.
pub const ST_RELATIME: u64 = 4096;

/// The flags of the mount that `file` is on, `ST_*` of statvfs(3): GNU's statfs has no name for them.
pub fn flags(file: BorrowedFd) -> Result<u64> {
    // SAFETY: statvfs is plain old data, for which zeroes are valid.
    let mut found: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: a structure that the library fills in.
    Errno::result(unsafe { libc::fstatvfs(file.as_raw_fd(), &raw mut found) })?;
    Ok(found.f_flag)
}

/// The number of the mount that `path`, relative to `dir`, is on, as in /proc/PID/mountinfo (statx(2),
/// Linux 5.8). The next mount may get it when this one is gone.
pub fn mount_id(dir: BorrowedFd, path: &CStr) -> Result<u64> {
    statx_mount(dir, path, libc::STATX_MNT_ID)
}

/// A number that no other mount ever gets (Linux 6.8); before that [`mount_id`].
pub fn lasting_mount_id(mount: BorrowedFd) -> Result<u64> {
    /// The libraries don't all know it.
    const STATX_MNT_ID_UNIQUE: libc::c_uint = 0x4000;
    statx_mount(mount, c"", libc::STATX_MNT_ID | STATX_MNT_ID_UNIQUE)
}

/// Whether the mount of that lasting number is in this mount namespace, statmount(2).
///
/// # Errors
/// `ENOSYS` before Linux 6.8.
pub fn is_mounted(number: u64) -> Result<bool> {
    const SYS_STATMOUNT: libc::c_long = 457;
    /// `struct mnt_id_req`, first version.
    #[repr(C)]
    struct Request {
        size: u32,
        spare: u32,
        mount: u64,
        wanted: u64,
    }
    let request = Request {
        size: size_of::<Request>() as u32,
        spare: 0,
        mount: number,
        wanted: 0,
    };
    let mut found = [0u64; 64];
    // SAFETY: a structure that says its size, and a buffer of the size that is given.
    let done = unsafe {
        libc::syscall(
            SYS_STATMOUNT,
            &raw const request,
            found.as_mut_ptr(),
            size_of_val(&found),
            0,
        )
    };
    match Errno::result(done) {
        Ok(_) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

fn statx_mount(dir: BorrowedFd, path: &CStr, wanted: libc::c_uint) -> Result<u64> {
    // SAFETY: statx is plain old data, for which zeroes are valid.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: a valid C string, and a structure that the kernel fills in.
    let done = unsafe {
        libc::syscall(
            libc::SYS_statx,
            dir.as_raw_fd(),
            path.as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC,
            wanted,
            &raw mut found,
        )
    };
    Errno::result(done).map(|_| found.stx_mnt_id)
}

/// A filesystem being configured, fsopen(2).
#[derive(Debug)]
pub struct Context {
    fd: OwnedFd,
}

impl Context {
    /// # Errors
    /// `ENODEV` for a filesystem that the kernel doesn't have, `EPERM` for one that can't be mounted
    /// in this user namespace.
    pub fn open(filesystem: &CStr) -> Result<Context> {
        // SAFETY: a valid C string.
        let fd =
            unsafe { libc::syscall(libc::SYS_fsopen, filesystem.as_ptr(), libc::FSOPEN_CLOEXEC) };
        owned(fd).map(|fd| Context { fd })
    }

    fn config(
        &self,
        command: libc::c_uint,
        key: Option<&CStr>,
        value: *const libc::c_void,
        aux: RawFd,
    ) -> Result<()> {
        let key = key.map_or(std::ptr::null(), CStr::as_ptr);
        // SAFETY: called below only, with `value` as the command demands: null or a valid C string.
        let done = unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                self.fd.as_raw_fd(),
                command,
                key,
                value,
                aux,
            )
        };
        Errno::result(done).map(drop)
    }

    /// An option without a value, such as `userxattr`.
    pub fn set_flag(&self, key: &CStr) -> Result<()> {
        self.config(libc::FSCONFIG_SET_FLAG as _, Some(key), std::ptr::null(), 0)
    }

    /// `key=value`; the kernel takes values of up to 255 bytes.
    pub fn set_string(&self, key: &CStr, value: &CStr) -> Result<()> {
        self.config(
            libc::FSCONFIG_SET_STRING as _,
            Some(key),
            value.as_ptr().cast(),
            0,
        )
    }

    /// An option whose value is an open file.
    pub fn set_fd(&self, key: &CStr, fd: BorrowedFd) -> Result<()> {
        self.config(
            libc::FSCONFIG_SET_FD as _,
            Some(key),
            std::ptr::null(),
            fd.as_raw_fd(),
        )
    }

    /// Makes the superblock (or finds an existing one) and a detached mount of it.
    pub fn mount(self, attributes: u64) -> std::result::Result<OwnedFd, (Errno, Option<String>)> {
        self.config(libc::FSCONFIG_CMD_CREATE as _, None, std::ptr::null(), 0)
            .map_err(|errno| (errno, self.complaint()))?;
        // SAFETY: no memory is passed.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_fsmount,
                self.fd.as_raw_fd(),
                libc::FSMOUNT_CLOEXEC,
                attributes as libc::c_uint,
            )
        };
        owned(fd).map_err(|errno| (errno, self.complaint()))
    }

    /// The last error or warning that the filesystem wrote about its configuration, such as
    /// `tmpfs: Unknown parameter 'sise'`.
    pub fn complaint(&self) -> Option<String> {
        let mut last = None;
        let mut text = [0u8; 512];
        while let Ok(length @ 1..) = nix::unistd::read(&self.fd, &mut text) {
            let line = String::from_utf8_lossy(&text[..length]);
            if let Some(line) = line.strip_prefix("e ").or(line.strip_prefix("w ")) {
                last = Some(line.trim().to_owned());
            }
        }
        last
    }
}
