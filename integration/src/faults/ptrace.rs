//! ptrace(2) on x86-64, waiting for it, and a filter: the only `unsafe` of this program.

use std::io;
use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        done => Ok(done),
    }
}

fn request(what: libc::c_uint, pid: i32, address: usize, data: usize) -> io::Result<()> {
    // SAFETY: only requests come here whose address and data are numbers, or point to what is valid for them.
    check(unsafe { libc::ptrace(what as _, pid, address, data) }).map(drop)
}

/// Traces a process that may go on running.
pub fn seize(pid: i32, options: i32) -> io::Result<()> {
    request(libc::PTRACE_SEIZE as _, pid, 0, options as usize)
}

/// Stops it.
pub fn interrupt(pid: i32) -> io::Result<()> {
    request(libc::PTRACE_INTERRUPT as _, pid, 0, 0)
}

/// Lets a stopped one go on, to its next call's beginning or end where calls are looked at.
pub fn resume(pid: i32, calls: bool, signal: i32) -> io::Result<()> {
    let how = match calls {
        true => libc::PTRACE_SYSCALL,
        false => libc::PTRACE_CONT,
    };
    request(how as _, pid, 0, signal as usize)
}

/// The number of what was made, while its maker is stopped for that.
pub fn made(pid: i32) -> io::Result<i32> {
    let mut number: libc::c_ulong = 0;
    request(
        libc::PTRACE_GETEVENTMSG as _,
        pid,
        0,
        (&raw mut number) as usize,
    )?;
    i32::try_from(number).map_err(io::Error::other)
}

pub fn detach(pid: i32) -> io::Result<()> {
    request(libc::PTRACE_DETACH as _, pid, 0, 0)
}

pub type Registers = libc::user_regs_struct;

pub fn registers(pid: i32) -> io::Result<Registers> {
    let mut registers = MaybeUninit::<Registers>::uninit();
    let place = registers.as_mut_ptr() as usize;
    request(libc::PTRACE_GETREGS as _, pid, 0, place)?;
    // SAFETY: the call has filled them in.
    Ok(unsafe { registers.assume_init() })
}

pub fn set_registers(pid: i32, registers: &Registers) -> io::Result<()> {
    let place = std::ptr::from_ref(registers) as usize;
    request(libc::PTRACE_SETREGS as _, pid, 0, place)
}

/// Something that happened to a child or a traced process: its number and its status, as wait(2) has it.
pub fn happened() -> Option<(i32, i32)> {
    let mut status = 0;
    // SAFETY: `status` is valid for the call to fill in.
    let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG | libc::__WALL) };
    (pid > 0).then_some((pid, status))
}

/// SIGCHLD is held back by this process. False when the time is over before one comes.
pub fn wait_for_news(deadline: Instant) -> bool {
    let left = deadline.saturating_duration_since(Instant::now());
    // A look now and then in any case: signals of one kind don't queue.
    let left = left.min(Duration::from_millis(100));
    let timeout = libc::timespec {
        tv_sec: left.as_secs() as _,
        tv_nsec: left.subsec_nanos() as _,
    };
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the set is made empty before it is read, and nothing is to be told about the signal.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGCHLD);
        libc::sigtimedwait(set.as_ptr(), std::ptr::null_mut(), &timeout);
    }
    Instant::now() < deadline
}

/// Holds SIGCHLD back, or lets it through again.
pub fn hold_news(hold: bool) {
    let how = match hold {
        true => libc::SIG_BLOCK,
        false => libc::SIG_UNBLOCK,
    };
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: as above.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGCHLD);
        libc::sigprocmask(how, set.as_ptr(), std::ptr::null_mut());
    }
}

pub fn kill(pid: i32) {
    // SAFETY: the call takes numbers.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

/// From now on attempts of this process's descendants to set RLIMIT_MEMLOCK succeed, and do nothing.
pub fn appease() -> io::Result<()> {
    const ALLOW: u32 = 0x7fff_0000;
    const SUCCESS: u32 = 0x0005_0000;
    let put = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let memlock = libc::RLIMIT_MEMLOCK as u32;
    let mut filter = [
        put(0x20, 0, 0, 0),
        put(0x15, 0, 5, libc::SYS_prlimit64 as u32),
        put(0x20, 0, 0, 24),
        put(0x15, 0, 3, memlock),
        // The new limit's address: null where it only asks.
        put(0x20, 0, 0, 32),
        put(0x15, 1, 0, 0),
        put(0x06, 0, 0, SUCCESS),
        put(0x06, 0, 0, ALLOW),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the program is valid for the call to copy.
    let done = unsafe { libc::syscall(libc::SYS_seccomp, 1, 0, &raw const program) };
    check(done).map(drop)
}
