//! `--no-pivot`: the host's tree stays below the container's root, out of reach but not out of sight.
//!
//! To mount a new procfs or sysfs, an unprivileged user needs one in the mount namespace on which
//! nothing is covered (mount_too_revealing). The host's own would be that: a user namespace made in the
//! container could so go round every masked path. It has to go first.

use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::Mode;

use super::handle::Rootfs;
use crate::error::{Error, Result, Step};
use crate::sys::file::open;
use crate::sys::mount::{self, Context};

/// Detaches everything of the host that `root` doesn't lie on, in a mount namespace of the container's
/// own. What the kernel has locked there is covered, if it is a procfs or a sysfs.
pub fn clear_host(root: &Rootfs) -> Result<()> {
    let link = format!("/proc/self/fd/{}", root.fd().as_raw_fd());
    let root = std::fs::read_link(&link).step("read", &link)?;
    let step = "read mounts of the container's mount namespace";
    let mounts = ::procfs::process::Process::myself()
        .and_then(|process| process.mountinfo())
        .map_err(|error| Error::new(step).because(error.to_string()))?;
    // The last ones first: they lie on others.
    for mount in mounts.0.iter().rev() {
        let path = mount.mount_point.as_path();
        if root.starts_with(path) || path.starts_with(&root) {
            continue;
        }
        let fail = |errno| Error::new("unmount").on(path.display()).errno(errno);
        match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            // Gone with what it lay on.
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(_) if matches!(mount.fs_type.as_str(), "proc" | "sysfs") => {
                cover(path).or_fail(fail)?;
            }
            Err(_) => {}
        }
    }
    Ok(())
}

fn cover(path: &Path) -> nix::Result<()> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let target = match open(path, flags, Mode::empty()) {
        Err(Errno::ENOENT) => return Ok(()),
        target => target?,
    };
    let empty = Context::open(c"tmpfs")?
        .mount(0)
        .map_err(|(errno, _)| errno)?;
    mount::move_mount(empty.as_fd(), target.as_fd())
}
