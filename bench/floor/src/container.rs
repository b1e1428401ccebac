//! The commands.

use core::ffi::{CStr, c_char, c_int, c_long};
use core::ptr::{null, null_mut};

use crate::words::{Line, die, must, parse};
use crate::{Call, root};

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

fn clone3(flags: c_int, cgroup: c_int) -> i32 {
    let args = CloneArgs {
        flags: flags as u64 | CLONE_INTO_CGROUP,
        exit_signal: libc::SIGCHLD as u64,
        cgroup: cgroup as u64,
        ..CloneArgs::default()
    };
    // SAFETY: one thread, no CLONE_VM: the child goes on with a copy.
    must(c"clone3", unsafe {
        libc::syscall(libc::SYS_clone3, &args, size_of::<CloneArgs>())
    }) as i32
}

/// A file of the container below `--root`.
fn file(call: &Call, name: &CStr) -> Line {
    let line = Line::new().text(call.root).text(c"/").text(call.id);
    line.text(name)
}

fn cgroup(call: &Call) -> Line {
    Line::new().text(c"/sys/fs/cgroup/floor-").text(call.id)
}

fn open(path: &CStr, flags: c_int) -> c_int {
    // SAFETY: a string.
    let fd = unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC, 0o600) };
    if fd < 0 {
        die(path);
    }
    fd
}

fn read(path: &CStr, bytes: &mut [u8]) -> usize {
    let fd = open(path, libc::O_RDONLY);
    // SAFETY: the bytes are valid for the call to write.
    let count = must(path, unsafe {
        libc::read(fd, bytes.as_mut_ptr().cast(), bytes.len()) as i64
    });
    // SAFETY: the descriptor is ours.
    unsafe { libc::close(fd) };
    count as usize
}

/// The pid that the record has.
fn pid(call: &Call) -> i32 {
    let mut bytes = [0; 16];
    let count = read(file(call, c"/pid").as_cstr(), &mut bytes);
    parse(&bytes[..count])
}

/// Makes the cgroup and the process in it; the child returns in the bundle's root with 0.
fn make(call: &Call) -> i32 {
    let place = cgroup(call);
    // SAFETY: a string.
    must(c"mkdir", unsafe {
        libc::mkdir(place.as_cstr().as_ptr(), 0o755)
    });
    let directory = open(place.as_cstr(), libc::O_DIRECTORY | libc::O_RDONLY);
    let namespaces = libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWNET;
    let child = clone3(namespaces, directory);
    if child != 0 {
        limit_devices(directory);
        return child;
    }
    // SAFETY: numbers and strings.
    unsafe {
        libc::setsid();
        must(c"unshare", libc::unshare(libc::CLONE_NEWCGROUP));
        must(c"sethostname", libc::sethostname(c"floor".as_ptr(), 5));
        must(c"chdir", libc::chdir(call.bundle.as_ptr()));
    }
    loopback();
    0
}

fn loopback() {
    // SAFETY: all zeroes is a valid ifreq, which is valid for the ioctl to read.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        must(c"socket", socket);
        let mut request: libc::ifreq = core::mem::zeroed();
        request.ifr_name[0] = b'l' as c_char;
        request.ifr_name[1] = b'o' as c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as _;
        must(
            c"SIOCSIFFLAGS",
            libc::ioctl(socket, libc::SIOCSIFFLAGS as _, &request),
        );
        libc::close(socket);
    }
}

/// Program, filter: what the child needs of the bundle, read while it still sees it.
struct Program {
    path: [u8; 64],
    filter: [u64; 2048],
    length: usize,
}

fn program() -> Program {
    let mut program = Program {
        path: [0; 64],
        filter: [0; 2048],
        length: 0,
    };
    read(c"program", &mut program.path[..63]);
    // SAFETY: a string.
    if unsafe { libc::access(c"filter".as_ptr(), libc::R_OK) } == 0 {
        // SAFETY: the same memory as bytes.
        let bytes = unsafe {
            core::slice::from_raw_parts_mut(program.filter.as_mut_ptr().cast::<u8>(), 2048 * 8)
        };
        program.length = read(c"filter", bytes) / 8;
    }
    program
}

fn execute(program: &Program, environment: *const *const c_char) -> ! {
    if program.length > 0 {
        let filter = libc::sock_fprog {
            len: program.length as u16,
            filter: program.filter.as_ptr().cast_mut().cast(),
        };
        // SAFETY: the filter is valid for the call to read.
        must(c"seccomp", unsafe {
            libc::syscall(libc::SYS_seccomp, 1, 0, &filter)
        });
    }
    let words = [program.path.as_ptr().cast::<c_char>(), null()];
    // SAFETY: lists that end in null, of strings.
    unsafe { libc::execve(words[0], words.as_ptr(), environment) };
    die(c"execve")
}

pub fn create(call: &Call) {
    // SAFETY: strings.
    unsafe {
        must(
            c"record",
            libc::mkdir(file(call, c"").as_cstr().as_ptr(), 0o700),
        );
        must(
            c"fifo",
            libc::mkfifo(file(call, c"/start").as_cstr().as_ptr(), 0o600),
        );
    }
    let start = open(file(call, c"/start").as_cstr(), libc::O_PATH);
    let mut pipe = [0; 2];
    // SAFETY: two descriptors are valid to write.
    must(c"pipe2", unsafe {
        libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC)
    });
    let child = make(call);
    let mut byte = 0u8;
    if child == 0 {
        let program = program();
        root::enter();
        root::drop_privileges();
        let wait = Line::new().text(c"/proc/self/fd/").number(start as u64);
        // SAFETY: a byte is valid for both calls.
        unsafe {
            libc::write(pipe[1], (&raw const byte).cast(), 1);
            let fifo = open(wait.as_cstr(), libc::O_RDONLY);
            libc::read(fifo, (&raw mut byte).cast(), 1);
        }
        execute(&program, call.environment);
    }
    // SAFETY: our descriptor; a byte is valid to write.
    unsafe {
        libc::close(pipe[1]);
        if libc::read(pipe[0], (&raw mut byte).cast(), 1) != 1 {
            die(c"the container's process ended");
        }
    }
    record(call, child);
}

fn record(call: &Call, child: i32) {
    let line = Line::new().number(child as u64);
    let (new, path) = (file(call, c"/pid.new"), file(call, c"/pid"));
    let fd = open(new.as_cstr(), libc::O_CREAT | libc::O_WRONLY);
    line.write_to(fd);
    // SAFETY: our descriptor; strings.
    unsafe {
        libc::close(fd);
        must(
            c"rename",
            libc::rename(new.as_cstr().as_ptr(), path.as_cstr().as_ptr()),
        );
    }
    if let Some(path) = call.pid_file {
        let fd = open(path, libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC);
        line.write_to(fd);
    }
}

pub fn start(call: &Call) {
    let fifo = open(file(call, c"/start").as_cstr(), libc::O_WRONLY);
    // SAFETY: one byte is valid to read.
    must(c"start", unsafe {
        libc::write(fifo, c"1".as_ptr().cast(), 1) as i64
    });
}

pub fn run(call: &Call) {
    let child = make(call);
    if child == 0 {
        let program = program();
        root::enter();
        root::drop_privileges();
        execute(&program, call.environment);
    }
    let code = wait(child);
    remove_cgroup(call);
    // SAFETY: ends the process.
    unsafe { libc::_exit(code) }
}

fn wait(child: i32) -> c_int {
    let mut status = 0;
    // SAFETY: `status` is valid to write.
    must(c"waitpid", unsafe { libc::waitpid(child, &mut status, 0) });
    libc::WEXITSTATUS(status)
}

pub fn state(call: &Call) {
    let pid = pid(call);
    // SAFETY: numbers.
    let alive = unsafe { libc::kill(pid, 0) } == 0;
    let line = Line::new().text(c"{\"id\":\"").text(call.id);
    let line = line.text(c"\",\"pid\":").number(pid as u64);
    let line = line.text(if alive {
        c",\"status\":\"running\"}"
    } else {
        c",\"status\":\"stopped\"}"
    });
    line.end().write_to(1);
}

fn pidfd(pid: i32) -> c_int {
    // SAFETY: numbers.
    must(c"pidfd_open", unsafe {
        libc::syscall(libc::SYS_pidfd_open, pid, 0)
    }) as c_int
}

pub fn kill(call: &Call) {
    let process = pidfd(pid(call));
    let signal = match call.rest.map(CStr::to_bytes) {
        Some(b"CONT") => libc::SIGCONT,
        _ => libc::SIGKILL,
    };
    // SAFETY: numbers, and no siginfo.
    must(c"kill", unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process,
            signal,
            null_mut::<libc::siginfo_t>(),
            0,
        )
    });
}

fn remove_cgroup(call: &Call) {
    let place = cgroup(call);
    // SAFETY: a string.
    while unsafe { libc::rmdir(place.as_cstr().as_ptr()) } != 0 {
        // SAFETY: errno of this thread; a pause while the last process leaves.
        unsafe {
            if *libc::__errno_location() != libc::EBUSY {
                die(c"rmdir");
            }
            libc::usleep(100);
        }
    }
}

pub fn delete(call: &Call) {
    // SAFETY: numbers.
    unsafe { libc::kill(pid(call), libc::SIGKILL) };
    remove_cgroup(call);
    // SAFETY: strings.
    unsafe {
        must(
            c"unlink",
            libc::unlink(file(call, c"/start").as_cstr().as_ptr()),
        );
        must(
            c"unlink",
            libc::unlink(file(call, c"/pid").as_cstr().as_ptr()),
        );
        must(c"rmdir", libc::rmdir(file(call, c"").as_cstr().as_ptr()));
    }
}

pub fn exec(call: &Call) {
    let process = pidfd(pid(call));
    let directory = open(cgroup(call).as_cstr(), libc::O_DIRECTORY | libc::O_RDONLY);
    // SAFETY: numbers.
    must(c"setns", unsafe {
        libc::setns(process, libc::CLONE_NEWPID)
    });
    let child = clone3(0, directory);
    if child == 0 {
        let others = libc::CLONE_NEWNS
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUTS
            | libc::CLONE_NEWNET
            | libc::CLONE_NEWCGROUP;
        // SAFETY: numbers, a string.
        unsafe {
            libc::setsid();
            must(c"setns", libc::setns(process, others));
            must(c"chdir", libc::chdir(c"/".as_ptr()));
        }
        root::drop_privileges();
        let words = [call.rest.unwrap_or(c"/bin/true").as_ptr(), null()];
        // SAFETY: lists that end in null, of strings.
        unsafe { libc::execve(words[0], words.as_ptr(), call.environment) };
        die(c"execve");
    }
    let code = wait(child);
    // SAFETY: ends the process.
    unsafe { libc::_exit(code) }
}

/// One instruction of the kernel's virtual machine.
const fn instruction(code: u8, registers: u8, offset: i16, value: i32) -> u64 {
    code as u64
        | (registers as u64) << 8
        | (offset as u16 as u64) << 16
        | (value as u32 as u64) << 32
}

/// Devices of the default: block or character, major, minor; -1 is any.
const DEVICES: [(i32, i32, i32, i32); 11] = [
    // All may be made, these may be used: rwm is 7, m is 1.
    (2, -1, -1, 1),
    (1, -1, -1, 1),
    (2, 1, 3, 7),
    (2, 1, 5, 7),
    (2, 1, 7, 7),
    (2, 1, 8, 7),
    (2, 1, 9, 7),
    (2, 5, 0, 7),
    (2, 5, 1, 7),
    (2, 5, 2, 7),
    (2, 136, -1, 7),
];

fn limit_devices(cgroup: c_int) {
    let mut code = [0u64; 96];
    let mut count = 0;
    let mut put = |instruction: u64| {
        code[count] = instruction;
        count += 1;
    };
    // r2 type, r3 access, r4 major, r5 minor, from the context in r1.
    put(instruction(0x61, 0x12, 0, 0));
    put(instruction(0xbf, 0x23, 0, 0));
    put(instruction(0x57, 0x02, 0, 0xffff));
    put(instruction(0x77, 0x03, 0, 16));
    put(instruction(0x61, 0x14, 4, 0));
    put(instruction(0x61, 0x15, 8, 0));
    for (kind, major, minor, access) in DEVICES {
        let more = i16::from(major >= 0) + i16::from(minor >= 0) + 3 * i16::from(access != 7);
        let mut to_next = more + 2;
        let mut unless = |register: u8, value: i32| {
            put(instruction(0x55, register, to_next, value));
            to_next -= 1;
        };
        unless(2, kind);
        if major >= 0 {
            unless(4, major);
        }
        if minor >= 0 {
            unless(5, minor);
        }
        if access != 7 {
            // r6: what is asked for beyond that.
            put(instruction(0xbf, 0x36, 0, 0));
            put(instruction(0x57, 0x06, 0, 7 & !access));
            put(instruction(0x55, 0x06, 2, 0));
        }
        put(instruction(0xb7, 0, 0, 1));
        put(instruction(0x95, 0, 0, 0));
    }
    put(instruction(0xb7, 0, 0, 0));
    put(instruction(0x95, 0, 0, 0));

    let mut load = [0u64; 16];
    load[0] = 15 | (count as u64) << 32;
    load[1] = code.as_ptr() as u64;
    load[2] = c"Apache-2.0".as_ptr() as u64;
    let program = bpf(5, &load);
    let mut attach = [0u64; 16];
    attach[0] = cgroup as u64 | (program as u64) << 32;
    attach[1] = 6 | 2 << 32;
    bpf(8, &attach);
}

fn bpf(command: c_int, attributes: &[u64; 16]) -> c_long {
    // SAFETY: the attributes are valid for the call to read, and so is what they point to.
    must(c"bpf", unsafe {
        libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), 120)
    })
}
