//! bpf(2), as far as the programs that guard a cgroup's devices need it.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::Result;
use nix::errno::Errno;

const PROG_LOAD: i32 = 5;
const PROG_ATTACH: i32 = 8;
const PROG_GET_FD_BY_ID: i32 = 13;
const OBJ_GET_INFO_BY_FD: i32 = 15;
const PROG_QUERY: i32 = 16;

const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const F_ALLOW_MULTI: u32 = 1 << 1;
const F_REPLACE: u32 = 1 << 2;

/// Size of `union bpf_attr` as husk passes it. Newer kernels write into members that an older
/// header doesn't have, so it's larger than any of them; what a kernel doesn't know must be zero.
const ATTR: usize = 256;

/// How often the loading of a program is tried again.
const TRIES: u32 = 16;

/// One instruction (`struct bpf_insn`): operation, destination in the low and source in the high
/// four bits of `registers`, jump or memory offset, immediate.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    pub code: u8,
    pub registers: u8,
    pub offset: i16,
    pub immediate: i32,
}

/// What the kernel says of a loaded program (the first members of `struct bpf_prog_info`).
/// Numbers are used again after a program is gone; a number together with its load time isn't.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Info {
    /// A `BPF_PROG_TYPE_*`.
    pub kind: u32,
    pub id: u32,
    tag: [u8; 8],
    jited_length: u32,
    translated_length: u32,
    jited: u64,
    translated: u64,
    /// Nanoseconds since boot.
    pub load_time: u64,
    created_by: u32,
    map_count: u32,
    maps: u64,
    name: [u8; 16],
}

impl Info {
    pub fn is_device(&self) -> bool {
        self.kind == PROG_TYPE_CGROUP_DEVICE
    }

    /// The name given to [`load_device`].
    pub fn has_name(&self, name: &CStr) -> bool {
        CStr::from_bytes_until_nul(&self.name).is_ok_and(|own| own == name)
    }
}

/// A member of `union bpf_attr` in its first bytes, zeroes behind.
#[repr(C, align(8))]
struct Attr<T> {
    member: T,
    rest: [u8; ATTR],
}

impl<T> Attr<T> {
    fn new(member: T) -> Self {
        Attr {
            member,
            rest: [0; ATTR],
        }
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
    replaced: u32,
}

#[repr(C)]
struct ById {
    id: u32,
    next_id: u32,
    flags: u32,
}

#[repr(C)]
struct InfoByFd {
    program: u32,
    length: u32,
    info: u64,
}

#[repr(C)]
struct Query {
    target: u32,
    kind: u32,
    flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
}

/// # Safety
/// The pointers in `attr` must be valid for what `command` does with them.
unsafe fn bpf<T>(command: i32, attr: &mut Attr<T>) -> Result<i32> {
    // SAFETY: `attr` is at least ATTR bytes long, all of them initialised, and alive during the
    // call; the rest is the caller's promise.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, ATTR) };
    Errno::result(done).map(|done| done as i32)
}

fn raw(fd: BorrowedFd) -> u32 {
    fd.as_raw_fd() as u32
}

/// Loads a `BPF_PROG_TYPE_CGROUP_DEVICE` program under a name of letters, digits and underscores.
/// The verifier writes what it thinks of it into `log` (NUL-terminated), if one is given.
///
/// # Errors
/// `EACCES` and `EINVAL` when the verifier rejects it, `EPERM` without the right to (`CAP_BPF`, an
/// initial user namespace) or, before Linux 5.11, over `RLIMIT_MEMLOCK`, `ENOSPC` when the log is
/// too short.
pub fn load_device(
    instructions: &[Instruction],
    name: &CStr,
    log: Option<&mut [u8]>,
) -> Result<OwnedFd> {
    let mut short = [0; 16];
    for (to, from) in short.iter_mut().take(15).zip(name.to_bytes()) {
        *to = *from;
    }
    let mut load = Load {
        kind: PROG_TYPE_CGROUP_DEVICE,
        count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name: short,
    };
    if let Some(log) = log {
        load.log_level = 1;
        load.log_size = log.len() as u32;
        load.log = log.as_mut_ptr() as u64;
    }
    // The kernel gives up looking through a program when a signal comes (bpf_check, EAGAIN).
    let mut tries = 0..TRIES;
    let fd = loop {
        // SAFETY: instructions and licence are read, the log is written within its length; all three
        // outlive the call.
        match unsafe { bpf(PROG_LOAD, &mut Attr::new(load)) } {
            Err(Errno::EAGAIN) if tries.next().is_some() => {}
            done => break done?,
        }
    };
    // SAFETY: a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Attaches a device program to the cgroup whose directory is `cgroup`, beside those that are there
/// (all must allow an access), or in the place of the program `replaced`.
///
/// # Errors
/// `EPERM` when a program further up forbids it, `E2BIG` beyond 64 programs, `ENOENT` when
/// `replaced` isn't attached.
pub fn attach_device(
    cgroup: BorrowedFd,
    program: BorrowedFd,
    replaced: Option<BorrowedFd>,
) -> Result<()> {
    let attach = Attach {
        target: raw(cgroup),
        program: raw(program),
        kind: ATTACH_CGROUP_DEVICE,
        flags: F_ALLOW_MULTI | replaced.map_or(0, |_| F_REPLACE),
        replaced: replaced.map_or(0, raw),
    };
    // SAFETY: no pointers.
    unsafe { bpf(PROG_ATTACH, &mut Attr::new(attach)) }.map(drop)
}

/// The numbers of the device programs attached to this cgroup itself.
pub fn attached_devices(cgroup: BorrowedFd) -> Result<Vec<u32>> {
    // BPF_CGROUP_MAX_PROGS is 64.
    let mut ids = [0u32; 64];
    let mut attr = Attr::new(Query {
        target: raw(cgroup),
        kind: ATTACH_CGROUP_DEVICE,
        flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: ids.len() as u32,
    });
    // SAFETY: the kernel writes at most `count` numbers to `ids`.
    unsafe { bpf(PROG_QUERY, &mut attr) }?;
    let count = attr.member.count as usize;
    Ok(ids.into_iter().take(count).collect())
}

/// # Errors
/// `ENOENT` when no program has this number, `EPERM` without `CAP_SYS_ADMIN`.
pub fn program_by_id(id: u32) -> Result<OwnedFd> {
    let by_id = ById {
        id,
        next_id: 0,
        flags: 0,
    };
    // SAFETY: no pointers.
    let fd = unsafe { bpf(PROG_GET_FD_BY_ID, &mut Attr::new(by_id)) }?;
    // SAFETY: a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

pub fn info(program: BorrowedFd) -> Result<Info> {
    let mut info = Info::default();
    let by_fd = InfoByFd {
        program: raw(program),
        length: size_of::<Info>() as u32,
        info: &raw mut info as u64,
    };
    // SAFETY: the kernel writes at most `length` bytes to `info`, any of which are valid; the
    // pointers that it reads from there are null with length 0.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut Attr::new(by_fd)) }?;
    Ok(info)
}
