//! Operations on processes: waiting, dying, spending, system calls by name.

use std::ffi::CString;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use serde_json::{Value, json};

use crate::{errno_name, facts, print_line};

pub fn perform(name: &str, args: &[&str]) -> Option<Value> {
    match (name, args) {
        ("exit", [code]) => std::process::exit(code.parse().unwrap_or(99)),
        ("abort", []) => std::process::abort(),
        ("signal", [number]) => {
            let number = number.parse().unwrap_or(0);
            // SAFETY: raise(3) takes a number.
            unsafe { libc::raise(number) };
            None
        }
        ("echo", words) => {
            println!("{}", words.join(" "));
            None
        }
        ("echo-error", words) => {
            eprintln!("{}", words.join(" "));
            None
        }
        ("stdin", []) => {
            let mut text = String::new();
            let _ = std::io::stdin().read_to_string(&mut text);
            Some(json!(text))
        }
        ("read-line", []) => {
            let mut text = String::new();
            let _ = std::io::stdin().read_line(&mut text);
            Some(json!(text))
        }
        ("wait-for", [path]) => {
            while !std::path::Path::new(path).exists() {
                std::thread::sleep(Duration::from_millis(5));
            }
            None
        }
        ("notify", words) => Some(notify(&words.join("\n"))),
        ("ready", []) => {
            print_line(&json!("ready"));
            None
        }
        ("sleep", [seconds]) => {
            std::thread::sleep(Duration::from_secs_f64(seconds.parse().unwrap_or(0.0)));
            None
        }
        ("pause", []) => loop {
            nix::unistd::pause();
        },
        ("until", [signal, code]) => until(signal, code),
        ("resized", [rows]) => Some(resized(rows)),
        ("orphans", [count]) => orphans(count.parse().unwrap_or(1)),
        ("forks", [count]) => Some(forks(count.parse().unwrap_or(1))),
        ("alloc", [mib]) => Some(alloc(mib.parse().unwrap_or(1))),
        ("hugepages", [count]) => Some(huge_pages(count.parse().unwrap_or(1))),
        ("child-alloc", [mib]) => Some(child_alloc(mib)),
        ("burn", [seconds]) => Some(burn(seconds.parse().unwrap_or(1.0))),
        ("net", []) => Some(net()),
        ("clock", []) => Some(clock()),
        ("syscall", [name, rest @ ..]) => Some(system_call(name, rest)),
        ("int80", [number]) => Some(int80(number.parse().unwrap_or(0))),
        ("overwrite-runtimes", [seconds]) => {
            Some(crate::spy::overwrite(seconds.parse().unwrap_or(1.0)))
        }
        ("spy", [seconds]) => Some(crate::spy::look(seconds.parse().unwrap_or(1.0))),
        ("seize", [seconds, host]) => Some(crate::spy::seize(seconds.parse().unwrap_or(1.0), host)),
        ("hook", [file]) => hook(file, 0),
        ("hook", [file, code]) => hook(file, code.parse().unwrap_or(0)),
        ("hook-words", [file, word]) => hook_words(file, word),
        ("child", words) => Some(child(words)),
        ("fd-read", [fd]) => Some(fd_read(fd)),
        _ => Some(json!({ "error": format!("no operation {name} with {} arguments", args.len()) })),
    }
}

/// Says "ready", waits for the signal, then exits with `code`.
fn until(signal: &str, code: &str) -> Option<Value> {
    let number: i32 = signal.parse().unwrap_or(libc::SIGTERM);
    let signal = Signal::try_from(number).unwrap_or(Signal::SIGTERM);
    let mut set = SigSet::empty();
    set.add(signal);
    let _ = set.thread_block();
    print_line(&json!("ready"));
    let _ = set.wait();
    std::process::exit(code.parse().unwrap_or(99))
}

/// Says "ready", then waits for SIGWINCH until the terminal has so many rows.
fn resized(rows: &str) -> Value {
    let mut set = SigSet::empty();
    set.add(Signal::SIGWINCH);
    let _ = set.thread_block();
    print_line(&json!("ready"));
    loop {
        let _ = set.wait();
        let size = facts::tty(0);
        if size["rows"].as_u64() == rows.parse().ok() {
            return size;
        }
    }
}

/// As sd_notify(3).
fn notify(text: &str) -> Value {
    let socket = std::env::var_os("NOTIFY_SOCKET").unwrap_or_default();
    let sent = std::os::unix::net::UnixDatagram::unbound()
        .and_then(|datagram| datagram.send_to(text.as_bytes(), socket));
    match sent {
        Ok(_) => json!(true),
        Err(error) => json!({ "error": error.to_string() }),
    }
}

/// Leaves that many sleeping children behind and goes on.
fn forks(count: usize) -> Value {
    let mut errors = Vec::new();
    let mut pids = Vec::new();
    for _ in 0..count {
        // SAFETY: the child only sleeps; this program has one thread.
        match unsafe { nix::unistd::fork() } {
            Ok(nix::unistd::ForkResult::Child) => loop {
                nix::unistd::pause();
            },
            Ok(nix::unistd::ForkResult::Parent { child }) => pids.push(child.as_raw()),
            Err(errno) => errors.push(errno_name(errno as i32)),
        }
    }
    json!({ "made": pids.len(), "pids": pids, "errors": errors })
}

/// As [`forks`], but the children are in sessions of their own, and this process ends.
fn orphans(count: usize) -> Option<Value> {
    for _ in 0..count {
        // SAFETY: the child only sleeps; this program has one thread.
        if let Ok(nix::unistd::ForkResult::Child) = unsafe { nix::unistd::fork() } {
            let _ = nix::unistd::setsid();
            loop {
                nix::unistd::pause();
            }
        }
    }
    None
}

fn alloc(mib: usize) -> Value {
    let mut memory = vec![0u8; mib << 20];
    for page in memory.chunks_mut(4096) {
        page[0] = 1;
    }
    std::hint::black_box(&memory);
    json!(mib)
}

/// Maps that many pages of 2 MiB, uses and unmaps them.
fn huge_pages(count: usize) -> Value {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB | libc::MAP_HUGE_2MB;
    let length = count << 21;
    // SAFETY: a new mapping of this program's own, written within its length, and unmapped once.
    unsafe {
        let memory = libc::mmap(
            std::ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            flags,
            -1,
            0,
        );
        if memory == libc::MAP_FAILED {
            return crate::failure(&std::io::Error::last_os_error());
        }
        std::ptr::write_bytes(memory.cast::<u8>(), 1, length);
        libc::munmap(memory, length);
    }
    json!(count)
}

/// The allocation in a child, so that the OOM killer leaves this process alive.
fn child_alloc(mib: &str) -> Value {
    child(&["alloc", mib])
}

/// Runs this program again with other words; its exit code or signal.
fn child(words: &[&str]) -> Value {
    use std::os::unix::process::ExitStatusExt;
    match std::process::Command::new("/proc/self/exe")
        .args(words)
        .output()
    {
        Ok(output) => json!({
            "code": output.status.code(),
            "signal": output.status.signal(),
            "stdout": String::from_utf8_lossy(&output.stdout),
        }),
        Err(error) => crate::failure(&error),
    }
}

/// Spends CPU for that long; how much it got (seconds of CPU a second).
fn burn(seconds: f64) -> Value {
    let begin = Instant::now();
    let mut spins: u64 = 0;
    while begin.elapsed().as_secs_f64() < seconds {
        spins = std::hint::black_box(spins.wrapping_add(1));
    }
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF);
    let used = usage.map_or(0.0, |u| {
        let (user, system) = (u.user_time(), u.system_time());
        (user.tv_sec() + system.tv_sec()) as f64 + (user.tv_usec() + system.tv_usec()) as f64 / 1e6
    });
    json!({ "share": used / begin.elapsed().as_secs_f64() })
}

/// Interfaces with their flags, from /sys/class/net or, without it, /proc/net/dev.
fn net() -> Value {
    let text = std::fs::read_to_string("/proc/net/dev").unwrap_or_default();
    text.lines()
        .skip(2)
        .filter_map(|line| line.split_once(':'))
        .map(|(name, _)| {
            let name = name.trim();
            (name.to_owned(), json!({ "up": is_up(name) }))
        })
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn is_up(name: &str) -> Option<bool> {
    use std::os::fd::AsRawFd;
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    // SAFETY: all zeroes is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request
        .ifr_name
        .iter_mut()
        .zip(name.bytes().take(libc::IFNAMSIZ - 1))
    {
        *to = from as libc::c_char;
    }
    // SAFETY: the request is valid for the ioctl to fill in.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &mut request) } != 0 {
        return None;
    }
    // SAFETY: SIOCGIFFLAGS has filled in the flags.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Some(i32::from(flags) & libc::IFF_UP != 0)
}

fn clock() -> Value {
    json!({
        "monotonic": now(libc::CLOCK_MONOTONIC),
        "boottime": now(libc::CLOCK_BOOTTIME),
    })
}

fn now(id: libc::clockid_t) -> i64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is valid for the call to fill in.
    unsafe { libc::clock_gettime(id, &mut time) };
    time.tv_sec
}

/// `syscall NAME|NUMBER ARG...`: an argument is a number (decimal or 0x…) or `s:TEXT`,
/// a pointer to that text.
fn system_call(name: &str, args: &[&str]) -> Value {
    let number = match name.parse().ok().or_else(|| number_of(name)) {
        Some(number) => number,
        None => return json!({ "error": format!("unknown system call {name}") }),
    };
    let texts: Vec<CString> = args
        .iter()
        .map(|arg| CString::new(arg.strip_prefix("s:").unwrap_or_default()).unwrap_or_default())
        .collect();
    let mut words = [0 as libc::c_long; 6];
    for ((word, arg), text) in words.iter_mut().zip(args).zip(&texts) {
        *word = match arg.strip_prefix("0x") {
            _ if arg.starts_with("s:") => text.as_ptr() as libc::c_long,
            Some(hex) => u64::from_str_radix(hex, 16).unwrap_or(0) as libc::c_long,
            None => arg.parse().unwrap_or(0),
        };
    }
    let _ = std::io::stdout().flush();
    let [a, b, c, d, e, f] = words;
    // SAFETY: the test that asks for the call vouches for it; texts outlive it.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result == -1 {
        let code = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
        return json!({ "error": errno_name(code) });
    }
    json!({ "result": result })
}

/// A call of i386 without arguments, by its number there.
#[cfg(target_arch = "x86_64")]
fn int80(number: i64) -> Value {
    let result: i64;
    // SAFETY: the test asks for calls without arguments; the kernel clobbers r8 to r11.
    unsafe {
        std::arch::asm!(
            "int 0x80",
            inlateout("rax") number => result,
            lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
        );
    }
    match result as i32 {
        error @ -4095..0 => json!({ "error": errno_name(-error) }),
        _ => json!({ "result": result }),
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn int80(_number: i64) -> Value {
    Value::Null
}

fn number_of(name: &str) -> Option<libc::c_long> {
    Some(match name {
        "acct" => libc::SYS_acct,
        "add_key" => libc::SYS_add_key,
        "bpf" => libc::SYS_bpf,
        "chmod" => libc::SYS_fchmodat,
        "clone" => libc::SYS_clone,
        "clone3" => libc::SYS_clone3,
        "getcwd" => libc::SYS_getcwd,
        "getpid" => libc::SYS_getpid,
        "getppid" => libc::SYS_getppid,
        "init_module" => libc::SYS_init_module,
        "io_uring_setup" => libc::SYS_io_uring_setup,
        "kexec_load" => libc::SYS_kexec_load,
        "keyctl" => libc::SYS_keyctl,
        "kill" => libc::SYS_kill,
        "mkdirat" => libc::SYS_mkdirat,
        "mount" => libc::SYS_mount,
        "open_by_handle_at" => libc::SYS_open_by_handle_at,
        "perf_event_open" => libc::SYS_perf_event_open,
        "personality" => libc::SYS_personality,
        "pivot_root" => libc::SYS_pivot_root,
        "ptrace" => libc::SYS_ptrace,
        "quotactl" => libc::SYS_quotactl,
        "reboot" => libc::SYS_reboot,
        "setns" => libc::SYS_setns,
        "settimeofday" => libc::SYS_settimeofday,
        "socket" => libc::SYS_socket,
        "swapon" => libc::SYS_swapon,
        "umount2" => libc::SYS_umount2,
        "unshare" => libc::SYS_unshare,
        "userfaultfd" => libc::SYS_userfaultfd,
        _ => return None,
    })
}

/// As a hook: appends one line to `file` with its facts and what stood on standard input.
fn hook(file: &str, code: i32) -> Option<Value> {
    let mut stdin = String::new();
    let _ = std::io::stdin().read_to_string(&mut stdin);
    let line = json!({ "facts": facts::all(), "stdin": stdin });
    append(file, &line.to_string());
    if code != 0 {
        eprintln!("the hook says no");
        std::process::exit(code);
    }
    None
}

/// As a hook: appends a word to `file`, for the order of things.
fn hook_words(file: &str, word: &str) -> Option<Value> {
    append(file, word);
    None
}

fn append(file: &str, line: &str) {
    let opened = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(file);
    if let Ok(mut opened) = opened {
        let _ = opened.write_all(format!("{line}\n").as_bytes());
    }
}

fn fd_read(fd: &str) -> Value {
    use std::os::fd::FromRawFd;
    let Ok(fd) = fd.parse() else {
        return Value::Null;
    };
    // SAFETY: the descriptor is only read from, and a bad one gives EBADF.
    let mut file = std::mem::ManuallyDrop::new(unsafe { std::fs::File::from_raw_fd(fd) });
    let mut buffer = [0u8; 4096];
    match file.read(&mut buffer) {
        Ok(count) => json!(String::from_utf8_lossy(&buffer[..count])),
        Err(error) => crate::failure(&error),
    }
}
