//! When, where and on whose memory a process runs: sched(7), ioprio_set(2), set_mempolicy(2).

use std::fmt;

use nix::Result;
use nix::errno::Errno;
use nix::unistd::Pid;

/// The kernel's `struct sched_attr` in its second form (Linux 5.3), of 56 bytes.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Filled in by [`set_attributes`].
    pub size: u32,
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    /// In nanoseconds, as the next two.
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
    pub util_min: u32,
    pub util_max: u32,
}

/// sched_setattr(2); `None` is the calling process.
///
/// # Errors
/// `EPERM` without the privilege, and for a deadline where not all CPUs are allowed; `EBUSY` when the
/// CPUs have no time left for another deadline; `EINVAL` for attributes that don't fit together.
pub fn set_attributes(pid: Option<Pid>, attributes: Attributes) -> Result<()> {
    let attributes = Attributes {
        size: size_of::<Attributes>() as u32,
        ..attributes
    };
    // SAFETY: the kernel reads as many bytes as `size` says, which is all of it.
    let done = unsafe {
        libc::syscall(
            libc::SYS_sched_setattr,
            pid.map_or(0, Pid::as_raw),
            &raw const attributes,
            0,
        )
    };
    Errno::result(done).map(drop)
}

/// CPUs by their numbers, as many as the kernel can be built for (CONFIG_NR_CPUS).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cpus([u64; 8192 / 64]);

impl Cpus {
    pub const ALL: Cpus = Cpus([u64::MAX; 8192 / 64]);

    /// Numbers from 8192 on are no CPUs.
    pub fn of(numbers: impl IntoIterator<Item = u32>) -> Cpus {
        let mut bits = [0; 8192 / 64];
        for number in numbers {
            if let Some(word) = bits.get_mut(number as usize / 64) {
                *word |= 1 << (number % 64);
            }
        }
        Cpus(bits)
    }
}

/// As one number with a bit for each CPU.
impl fmt::LowerHex for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let highest = self.0.iter().rposition(|&word| word != 0).unwrap_or(0);
        let (below, rest) = self.0.split_at(highest);
        fmt::LowerHex::fmt(&rest[0], f)?;
        below
            .iter()
            .rev()
            .try_for_each(|word| write!(f, "{word:016x}"))
    }
}

/// sched_setaffinity(2) of the calling process.
///
/// # Errors
/// `EINVAL` when its cgroup allows none of them, or none is online.
pub fn set_affinity(cpus: &Cpus) -> Result<()> {
    // SAFETY: pointer and size of one array; pid 0 is the calling process.
    let done = unsafe {
        libc::syscall(
            libc::SYS_sched_setaffinity,
            0,
            size_of_val(&cpus.0),
            cpus.0.as_ptr(),
        )
    };
    Errno::result(done).map(drop)
}

/// ioprio_set(2) of one process; `None` is the calling one.
///
/// # Errors
/// `EPERM` for the real-time class without CAP_SYS_ADMIN or CAP_SYS_NICE.
pub fn set_io_priority(pid: Option<Pid>, class: u16, level: u16) -> Result<()> {
    const IOPRIO_WHO_PROCESS: i32 = 1;
    const IOPRIO_CLASS_SHIFT: u32 = 13;
    let priority = i32::from(class) << IOPRIO_CLASS_SHIFT | i32::from(level);
    // SAFETY: no memory is passed.
    let done = unsafe {
        libc::syscall(
            libc::SYS_ioprio_set,
            IOPRIO_WHO_PROCESS,
            pid.map_or(0, Pid::as_raw),
            priority,
        )
    };
    Errno::result(done).map(drop)
}

/// Memory nodes by their numbers, as many as the kernel can be built for (CONFIG_NODES_SHIFT).
pub type Nodes = [u64; 1024 / 64];

/// set_mempolicy(2) of the calling process. `mode` with its flags.
///
/// # Errors
/// `EINVAL` for a mode that the kernel doesn't have, or nodes that aren't there, aren't allowed by the
/// cgroup, or don't go with the mode; `ENOSYS` for a kernel without NUMA.
pub fn set_memory_policy(mode: i32, nodes: Option<&Nodes>) -> Result<()> {
    let pointer = nodes.map_or(std::ptr::null(), |nodes| nodes.as_ptr());
    // The kernel takes one off.
    let bits = nodes.map_or(0, |nodes| size_of_val(nodes) * 8 + 1);
    // SAFETY: the kernel reads at most `bits` bits of an array that has one less, and none of null.
    Errno::result(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, bits) }).map(drop)
}
