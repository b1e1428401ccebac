//! Putting a device program into the kernel and onto a cgroup.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use super::devices::Program;
use super::tree::Cgroup;
use crate::error::{Error, Result, Step};
use crate::sys::bpf;

const NAME: &CStr = c"husk_devices";

/// A program that was loaded. Nearly all containers have the same one, and loading takes the kernel
/// as long as a tenth of a container's whole start, so one that is still there is attached again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loaded {
    program: String,
    id: u32,
    load_time: u64,
}

impl Loaded {
    /// Its descriptor, if the kernel has it still. Ids are used again, an id together with the time
    /// of loading is not.
    fn open(&self, program: &Program) -> Option<OwnedFd> {
        if self.program != program.text() {
            return None;
        }
        let fd = bpf::program_by_id(self.id).ok()?;
        let info = bpf::info(fd.as_fd()).ok()?;
        let same = info.load_time == self.load_time && info.is_device() && info.has_name(NAME);
        same.then_some(fd)
    }
}

impl Cgroup {
    /// Makes the kernel ask `program` at each open and mknod of a device by the cgroup's processes,
    /// in the place of one that husk attached before and beside those of others.
    ///
    /// `known` is what an earlier call returned, on any cgroup of this host, from a file that only
    /// root can write; a difference to what is returned now is worth keeping.
    ///
    /// # Errors
    /// `EPERM` in a user namespace, where no one may load such a program: the caller may go on
    /// there, as it can't make device nodes either.
    pub fn attach_devices(&self, program: &Program, known: Option<&Loaded>) -> Result<Loaded> {
        let fail = |errno: Errno| {
            Error::new("attach the device program to")
                .on(self.path().display())
                .at("/linux/resources/devices")
                .errno(errno)
        };
        let mut replaced = None;
        if !self.is_fresh() {
            for id in bpf::attached_devices(self.fd()).map_err(fail)? {
                // Some can't be opened or are gone meanwhile; husk's own can.
                if let Ok(fd) = bpf::program_by_id(id)
                    && bpf::info(fd.as_fd()).is_ok_and(|info| info.has_name(NAME))
                {
                    replaced = Some(fd);
                }
            }
        }
        let reused = known.and_then(|known| known.open(program).map(|fd| (fd, known.clone())));
        let (fd, loaded) = match reused {
            Some(reused) => reused,
            None => load(program)?,
        };
        bpf::attach_device(self.fd(), fd.as_fd(), replaced.as_ref().map(AsFd::as_fd)).map_err(
            |errno| match errno {
                Errno::EPERM => {
                    fail(errno).because("a cgroup above it has a program that tolerates no other")
                }
                _ => fail(errno),
            },
        )?;
        Ok(loaded)
    }
}

fn load(program: &Program) -> Result<(OwnedFd, Loaded)> {
    let fd = match bpf::load_device(program.instructions(), NAME, None) {
        Err(Errno::EPERM) => load_unlimited(program),
        loaded => loaded,
    }
    .or_fail(|errno| rejected(program, errno))?;
    let info = bpf::info(fd.as_fd()).step("ask for", "the device program")?;
    let loaded = Loaded {
        program: program.text(),
        id: info.id,
        load_time: info.load_time,
    };
    Ok((fd, loaded))
}

/// Before Linux 5.11 programs count towards `RLIMIT_MEMLOCK`, of which some have 64 KiB.
fn load_unlimited(program: &Program) -> nix::Result<OwnedFd> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_MEMLOCK)?;
    setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY)?;
    let loaded = bpf::load_device(program.instructions(), NAME, None);
    setrlimit(Resource::RLIMIT_MEMLOCK, soft, hard)?;
    loaded
}

fn rejected(program: &Program, errno: Errno) -> Error {
    let error = Error::new("load the device program")
        .at("/linux/resources/devices")
        .errno(errno);
    match errno {
        Errno::EPERM => error.hint("it takes CAP_BPF or CAP_SYS_ADMIN outside of user namespaces"),
        Errno::EINVAL | Errno::EACCES => {
            let mut log = vec![0; 64 << 10];
            let _ = bpf::load_device(program.instructions(), NAME, Some(&mut log));
            let text = CStr::from_bytes_until_nul(&log).unwrap_or_default();
            error.because(format!(
                "the kernel's verifier says: {}",
                text.to_string_lossy().trim()
            ))
        }
        _ => error,
    }
}
