//! Filters in the kernel: what calls do in a process that has installed one.
//!
//! Needs root (no_new_privs is the caller's business, and not set here).

use std::alloc::{GlobalAlloc, Layout, System};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use husk::seccomp::{Filter, compile};
use husk_integration::profile::{DOCKER, DOCKER_CAPABILITIES, Host, PODMAN, resolve};
use libc::{c_int, c_long};
use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Value, json};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps alloc's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps dealloc's contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    Exit(c_int),
    Signal(c_int),
}

/// Runs `body` in a child. It must not allocate, nor take locks: other threads of the
/// harness may hold them for ever.
fn in_child(body: impl FnOnce() -> c_int) -> End {
    // SAFETY: the child only makes system calls and ends with _exit.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
    if pid == 0 {
        let code = body();
        // SAFETY: ends the child without running the parent's exit handlers.
        unsafe { libc::_exit(code) };
    }
    wait(pid)
}

fn wait(pid: c_int) -> End {
    let mut status = 0;
    // SAFETY: `status` is ours.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    if waited != pid {
        return End::Exit(-1);
    }
    if libc::WIFSIGNALED(status) {
        End::Signal(libc::WTERMSIG(status))
    } else {
        End::Exit(libc::WEXITSTATUS(status))
    }
}

/// 0, or the errno of the call. A child that the call made ends at once.
fn errno_of(number: c_long, args: [c_long; 3]) -> c_int {
    // SAFETY: the tests choose calls that touch no memory.
    let result = unsafe { libc::syscall(number, args[0], args[1], args[2], 0, 0, 0) };
    if result == -1 {
        return std::io::Error::last_os_error().raw_os_error().unwrap_or(-1);
    }
    let makes_a_child = number == libc::SYS_clone || number == libc::SYS_clone3;
    if makes_a_child && result == 0 {
        // SAFETY: see above.
        unsafe { libc::_exit(0) };
    }
    0
}

fn filter(profile: Value) -> Filter {
    let profile: LinuxSeccomp = serde_json::from_value(profile).unwrap();
    compile(&profile).unwrap()
}

fn engine_profile(text: &str) -> LinuxSeccomp {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let host = Host {
        architecture,
        capabilities: &DOCKER_CAPABILITIES,
        kernel: (6, 1),
    };
    resolve(text, &host).unwrap()
}

const NEW_USER: c_long = libc::CLONE_NEWUSER as c_long;

#[test]
fn docker_default_profile() {
    let filter = compile(&engine_profile(DOCKER)).unwrap();
    for (what, number, args, errno) in [
        ("getppid", libc::SYS_getppid, [0; 3], 0),
        ("personality(PER_LINUX)", libc::SYS_personality, [0; 3], 0),
        (
            "personality(query)",
            libc::SYS_personality,
            [0xffff_ffff, 0, 0],
            0,
        ),
        (
            "personality(ADDR_NO_RANDOMIZE)",
            libc::SYS_personality,
            [0x4_0000, 0, 0],
            libc::EPERM,
        ),
        (
            "clone(CLONE_NEWUSER)",
            libc::SYS_clone,
            [NEW_USER | 17, 0, 0],
            libc::EPERM,
        ),
        ("clone(SIGCHLD)", libc::SYS_clone, [17, 0, 0], 0),
        ("clone3", libc::SYS_clone3, [0; 3], libc::ENOSYS),
        (
            "unshare(CLONE_NEWUSER)",
            libc::SYS_unshare,
            [NEW_USER, 0, 0],
            libc::EPERM,
        ),
        ("socket(AF_UNIX)", libc::SYS_socket, [1, 1, 0], 0),
        ("socket(AF_ALG)", libc::SYS_socket, [38, 5, 0], libc::EPERM),
        (
            "socket(AF_VSOCK)",
            libc::SYS_socket,
            [40, 1, 0],
            libc::EPERM,
        ),
        ("a call of the future", 600, [0; 3], libc::ENOSYS),
        ("mount", libc::SYS_mount, [0; 3], libc::EPERM),
        ("bpf", libc::SYS_bpf, [0; 3], libc::EPERM),
    ] {
        let end = in_child(|| match filter.install() {
            Ok(_) => errno_of(number, args),
            Err(_) => 255,
        });
        assert_eq!(end, End::Exit(errno), "{what}");
    }
}

/// Between clone3 and execve there is no room for surprises.
#[test]
fn install_allocates_nothing() {
    let filter = compile(&engine_profile(DOCKER)).unwrap();
    let end = in_child(|| {
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        let installed = filter.install().is_ok();
        let after = ALLOCATIONS.load(Ordering::Relaxed);
        c_int::from(!installed || before != after)
    });
    assert_eq!(end, End::Exit(0));
}

#[test]
fn install_leaves_no_new_privs_alone() {
    let filter = filter(json!({ "defaultAction": "SCMP_ACT_ALLOW" }));
    let end = in_child(|| {
        // SAFETY: no memory involved.
        let before = unsafe { libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) };
        let installed = filter.install().is_ok();
        // SAFETY: no memory involved.
        let after = unsafe { libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) };
        c_int::from(!installed || before != after)
    });
    assert_eq!(end, End::Exit(0));
}

#[test]
fn actions_on_getppid() {
    for (action, errno, end) in [
        ("SCMP_ACT_ALLOW", None, End::Exit(0)),
        ("SCMP_ACT_LOG", None, End::Exit(0)),
        ("SCMP_ACT_ERRNO", None, End::Exit(libc::EPERM)),
        ("SCMP_ACT_ERRNO", Some(77), End::Exit(77)),
        ("SCMP_ACT_ERRNO", Some(0), End::Exit(0)),
        // Without a tracer the call fails.
        ("SCMP_ACT_TRACE", Some(1), End::Exit(libc::ENOSYS)),
        ("SCMP_ACT_TRAP", None, End::Signal(libc::SIGSYS)),
        ("SCMP_ACT_KILL", None, End::Signal(libc::SIGSYS)),
        ("SCMP_ACT_KILL_THREAD", None, End::Signal(libc::SIGSYS)),
        ("SCMP_ACT_KILL_PROCESS", None, End::Signal(libc::SIGSYS)),
    ] {
        let mut rule = json!({ "names": ["getppid"], "action": action });
        if let Some(errno) = errno {
            rule["errnoRet"] = errno.into();
        }
        let default = match action {
            "SCMP_ACT_ALLOW" => "SCMP_ACT_LOG",
            _ => "SCMP_ACT_ALLOW",
        };
        let filter = filter(json!({ "defaultAction": default, "syscalls": [rule] }));
        let ended = in_child(|| match filter.install() {
            Ok(_) => errno_of(libc::SYS_getppid, [0; 3]),
            Err(_) => 255,
        });
        assert_eq!(ended, end, "{action} {errno:?}");
    }
}

#[test]
fn the_kernel_takes_every_flag() {
    for flags in [
        json!(null),
        json!([]),
        json!(["SECCOMP_FILTER_FLAG_LOG"]),
        json!(["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]),
        json!(["SECCOMP_FILTER_FLAG_TSYNC"]),
        json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]),
        json!([
            "SECCOMP_FILTER_FLAG_LOG",
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
            "SECCOMP_FILTER_FLAG_TSYNC",
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"
        ]),
    ] {
        for action in ["SCMP_ACT_NOTIFY", "SCMP_ACT_ERRNO"] {
            let rules = json!([{ "names": ["acct"], "action": action }]);
            let filter = filter(
                json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": flags, "syscalls": rules }),
            );
            let end = in_child(|| match filter.install() {
                Ok(listener) => c_int::from(listener.is_some() != filter.notifies()),
                Err(errno) => errno as c_int,
            });
            assert_eq!(end, End::Exit(0), "{flags} {action}");
        }
    }
}

/// The listener answers a call of another process under the same filter.
#[test]
fn notify_reaches_the_listener() {
    let rules = json!([{ "names": ["getppid"], "action": "SCMP_ACT_NOTIFY" }]);
    let filter = filter(json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules }));
    let end = in_child(|| {
        let Ok(Some(listener)) = filter.install() else {
            return 254;
        };
        // SAFETY: as in in_child.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: no memory involved.
            let answer = unsafe { libc::syscall(libc::SYS_getppid) };
            // SAFETY: see in_child.
            unsafe { libc::_exit(answer as c_int) };
        }
        // SAFETY: a structure of integers.
        let mut request: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        let fd = listener.as_raw_fd();
        // SAFETY: the kernel fills the structure that it asks for.
        let received = unsafe { libc::ioctl(fd, libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut request) };
        if received != 0 || c_long::from(request.data.nr) != libc::SYS_getppid {
            return 253;
        }
        let mut response = libc::seccomp_notif_resp {
            id: request.id,
            val: 42,
            error: 0,
            flags: 0,
        };
        // SAFETY: as above.
        let sent = unsafe { libc::ioctl(fd, libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut response) };
        if sent != 0 {
            return 252;
        }
        match wait(pid) {
            End::Exit(code) => code,
            End::Signal(_) => 251,
        }
    });
    assert_eq!(end, End::Exit(42));
}

/// getpid (20) as 32 bit programs call it.
#[cfg(target_arch = "x86_64")]
fn getpid_32() -> c_int {
    let mut result: i32 = 20;
    // SAFETY: the call takes no arguments and touches no memory.
    unsafe {
        std::arch::asm!("int 0x80", inout("eax") result, out("r8") _, out("r9") _,
                        out("r10") _, out("r11") _);
    }
    c_int::from(result <= 0)
}

#[cfg(target_arch = "x86_64")]
#[test]
fn other_abis_of_the_machine() {
    let rules = json!([{ "names": ["getpid", "exit_group"], "action": "SCMP_ACT_ALLOW" }]);
    let with = |architectures: Value| {
        filter(
            json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules,
                       "architectures": architectures }),
        )
    };
    let run = |filter: &Filter, body: fn() -> c_int| {
        in_child(|| match filter.install() {
            Ok(_) => body(),
            Err(_) => 255,
        })
    };
    let x32_getpid = || errno_of(0x4000_0000 | libc::SYS_getpid, [0; 3]);
    let killed = End::Signal(libc::SIGSYS);
    assert_eq!(run(&with(json!([])), x32_getpid), killed);
    // Whether the kernel itself has x32 is another matter.
    let listed = run(&with(json!(["SCMP_ARCH_X32"])), x32_getpid);
    assert!(
        [End::Exit(0), End::Exit(libc::ENOSYS)].contains(&listed),
        "{listed:?}"
    );

    if in_child(getpid_32) != End::Exit(0) {
        eprintln!("SKIP: this kernel runs no 32 bit programs");
        return;
    }
    assert_eq!(
        run(&with(json!(["SCMP_ARCH_X86"])), getpid_32),
        End::Exit(0)
    );
    assert_eq!(run(&with(json!([])), getpid_32), killed);
}

/// What every container pays. The best of many runs: no other load can make that longer for long.
#[test]
fn an_engines_profile_costs_little() {
    for (engine, text) in [("docker", DOCKER), ("podman", PODMAN)] {
        let profile = engine_profile(text);
        let compiled = (0..200).map(|_| {
            let start = Instant::now();
            std::hint::black_box(compile(&profile).unwrap());
            start.elapsed()
        });
        let compiled = compiled.min().unwrap();
        let filter = compile(&profile).unwrap();
        let installed = (0..100).map(|_| {
            let end = in_child(|| {
                let start = Instant::now();
                match filter.install() {
                    Ok(_) => start.elapsed().as_millis().min(100) as c_int,
                    Err(_) => 101,
                }
            });
            match end {
                End::Exit(milliseconds) => milliseconds,
                End::Signal(signal) => panic!("signal {signal}"),
            }
        });
        let installed = installed.min().unwrap();
        let length = filter.program().len();
        eprintln!("{engine}: {length} instructions, compiled in {compiled:?}");
        assert!(length <= 600, "{engine}: {length} instructions");
        // Without optimization; a release takes a twentieth.
        assert!(
            compiled <= Duration::from_millis(10),
            "{engine}: {compiled:?}"
        );
        assert!(installed <= 2, "{engine}: {installed} ms");
    }
}
