//! The place of all measurements: a tmpfs with one root file system for all containers.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

pub struct Site {
    pub dir: PathBuf,
    pub rootfs: PathBuf,
    /// The floor's program under the name that makes it measure a command's memory.
    pub rss: PathBuf,
}

/// How many mounts a bundle has at most.
pub const MOUNTS: usize = 1000;
/// And how many layers.
pub const LAYERS: usize = 40;

impl Site {
    pub fn new(dir: &Path, floor: &Path) -> io::Result<Self> {
        let rootfs = dir.join("rootfs");
        for name in ["bin", "proc", "dev", "sys", "tmp", "etc", "many"] {
            fs::create_dir_all(rootfs.join(name))?;
        }
        for name in ["true", "pause", "cost"] {
            fs::copy(floor, rootfs.join("bin").join(name))?;
        }
        for index in 0..MOUNTS {
            fs::create_dir(rootfs.join(format!("many/{index}")))?;
        }
        for index in 0..LAYERS {
            let layer = dir.join(format!("layers/{index}"));
            fs::create_dir_all(&layer)?;
            fs::write(layer.join(format!("of-{index}")), "")?;
        }
        fs::create_dir(dir.join("source"))?;
        let rss = dir.join("rss");
        fs::copy(floor, &rss)?;
        Ok(Site {
            dir: dir.to_owned(),
            rootfs,
            rss,
        })
    }

    pub fn layer(&self, index: usize) -> PathBuf {
        self.dir.join(format!("layers/{index}"))
    }

    /// `rootfs` in a bundle's directory.
    pub fn link_rootfs(&self, bundle: &Path) -> io::Result<()> {
        symlink(&self.rootfs, bundle.join("rootfs"))
    }
}

/// Whether this process and those it makes now go before all ordinary ones.
pub fn real_time() -> bool {
    // The whole of the kernel's sched_param.
    let priority: libc::c_int = 5;
    // SAFETY: the raw call, as musl's function refuses; the number is valid to read.
    unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_FIFO, &priority) == 0 }
}
