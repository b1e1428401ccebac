//! Attributes of the calling process: prctl(2), capset(2).

use nix::Result;
use nix::errno::Errno;

fn prctl(option: libc::c_int, arguments: [libc::c_ulong; 4]) -> Result<libc::c_int> {
    let [a, b, c, d] = arguments;
    // SAFETY: only called below, with options whose arguments are numbers.
    Errno::result(unsafe { libc::prctl(option, a, b, c, d) })
}

/// Whether other processes of the same user may trace this one and read its /proc entries.
pub fn set_dumpable(on: bool) -> Result<()> {
    prctl(libc::PR_SET_DUMPABLE, [on.into(), 0, 0, 0]).map(drop)
}

/// The signal (0 for none) that this process gets when its parent thread ends.
pub fn set_parent_death_signal(signal: libc::c_int) -> Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, [signal as libc::c_ulong, 0, 0, 0]).map(drop)
}

pub fn set_no_new_privileges() -> Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, [1, 0, 0, 0]).map(drop)
}

/// Whether permitted capabilities survive the change from uid 0 to another one.
pub fn set_keep_capabilities(on: bool) -> Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, [on.into(), 0, 0, 0]).map(drop)
}

/// Orphaned descendants become children of this process.
pub fn set_child_subreaper(reaper: bool) -> Result<()> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, [reaper.into(), 0, 0, 0]).map(drop)
}

pub fn is_child_subreaper() -> Result<bool> {
    let mut reaper: libc::c_int = 0;
    let place = &raw mut reaper as libc::c_ulong;
    prctl(libc::PR_GET_CHILD_SUBREAPER, [place, 0, 0, 0]).map(|_| reaper != 0)
}

/// # Errors
/// `EINVAL` for a capability that this kernel doesn't know.
pub fn drop_bounding(capability: u8) -> Result<()> {
    prctl(libc::PR_CAPBSET_DROP, [capability.into(), 0, 0, 0]).map(drop)
}

/// # Errors
/// `EINVAL` for a capability that this kernel doesn't know.
pub fn has_bounding(capability: u8) -> Result<bool> {
    prctl(libc::PR_CAPBSET_READ, [capability.into(), 0, 0, 0]).map(|set| set == 1)
}

/// # Errors
/// `EPERM` unless the capability is permitted and inheritable.
pub fn raise_ambient(capability: u8) -> Result<()> {
    prctl(
        libc::PR_CAP_AMBIENT,
        [
            libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong,
            capability.into(),
            0,
            0,
        ],
    )
    .map(drop)
}

pub fn clear_ambient() -> Result<()> {
    prctl(
        libc::PR_CAP_AMBIENT,
        [libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong, 0, 0, 0],
    )
    .map(drop)
}

/// Three of the five capability sets as bit masks, capabilities(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Default, Clone, Copy)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`: 64-bit sets in two halves.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

pub fn capabilities() -> Result<Capabilities> {
    let mut header = CapHeader {
        version: CAPABILITY_VERSION,
        pid: 0,
    };
    let mut data = [CapData::default(); 2];
    // SAFETY: version 3 writes exactly two CapData.
    let done = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) };
    Errno::result(done)?;
    let join =
        |half: fn(&CapData) -> u32| u64::from(half(&data[0])) | u64::from(half(&data[1])) << 32;
    Ok(Capabilities {
        effective: join(|data| data.effective),
        permitted: join(|data| data.permitted),
        inheritable: join(|data| data.inheritable),
    })
}

pub fn set_capabilities(sets: Capabilities) -> Result<()> {
    let mut header = CapHeader {
        version: CAPABILITY_VERSION,
        pid: 0,
    };
    let half = |shift: u32| CapData {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: version 3 reads exactly two CapData.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) };
    Errno::result(done).map(drop)
}

/// An entry of the system-wide or user-wide personality(2), `PER_LINUX32` for 32 bit.
pub fn set_personality(domain: libc::c_ulong) -> Result<()> {
    // SAFETY: no memory is passed.
    Errno::result(unsafe { libc::personality(domain) }).map(drop)
}

/// The soft and the hard limit of a resource, prlimit(2) on the calling process.
///
/// # Errors
/// `EINVAL` for a resource that this kernel doesn't know.
pub fn rlimit(resource: u32) -> Result<(u64, u64)> {
    let mut limit = libc::rlimit64 {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is valid for the call to write to, and no new value is given.
    let done = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            0,
            resource,
            std::ptr::null::<libc::rlimit64>(),
            &raw mut limit,
        )
    };
    Errno::result(done).map(|_| (limit.rlim_cur, limit.rlim_max))
}

/// Sets both limits of a resource, prlimit(2) on the calling process.
///
/// # Errors
/// `EPERM` to raise the hard limit without CAP_SYS_RESOURCE, `EINVAL` for soft over hard.
pub fn set_rlimit(resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = libc::rlimit64 {
        rlim_cur: soft,
        rlim_max: hard,
    };
    // SAFETY: `limit` is valid for the call, and no old value is asked for.
    let done = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            0,
            resource,
            &raw const limit,
            std::ptr::null_mut::<libc::rlimit64>(),
        )
    };
    Errno::result(done).map(drop)
}
