//! What husk's protections cost, for docs/security.md: the same work with and without each, in turns, the
//! least of many batches. `costs HUSK`, as root.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use husk::rootfs::{Procfs, Rootfs};
use husk::sys::{fd, prctl};
use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

const BATCHES: usize = 400;

/// Microseconds that each of two takes: the least of the batches, which alternate.
fn compare(times: u32, mut one: impl FnMut(), mut other: impl FnMut()) -> (f64, f64) {
    let mut least = (Duration::MAX, Duration::MAX);
    for _ in 0..BATCHES {
        let begin = Instant::now();
        (0..times).for_each(|_| one());
        least.0 = least.0.min(begin.elapsed());
        let begin = Instant::now();
        (0..times).for_each(|_| other());
        least.1 = least.1.min(begin.elapsed());
    }
    let each = |sum: Duration| sum.as_secs_f64() * 1e6 / f64::from(times);
    (each(least.0), each(least.1))
}

fn main() -> ExitCode {
    let Some(husk) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: costs HUSK");
        return ExitCode::from(2);
    };
    match run(&husk) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("costs: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(husk: &Path) -> Result<(), Box<dyn std::error::Error>> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let place = PathBuf::from(format!("/tmp/husk-costs-{}", std::process::id()));
    std::fs::create_dir(&place)?;
    let measured = measure(husk, &place);
    let _ = nix::mount::umount2(&place, nix::mount::MntFlags::MNT_DETACH);
    std::fs::remove_dir(&place)?;
    measured
}

/// Of the table.
fn row(what: &str, costs: String, how: String) {
    println!("| {what} | {costs} | {how} |");
}

fn measure(husk: &Path, place: &Path) -> Result<(), Box<dyn std::error::Error>> {
    println!("\n| what | costs | |\n| --- | --: | --- |");
    let none = None::<&str>;
    mount(Some("costs"), place, Some("tmpfs"), MsFlags::empty(), none)?;
    let binary = place.join("husk");
    std::fs::copy(husk, &binary)?;
    // From a read-only mount husk sees that it needn't protect itself.
    let safe = place.join("safe");
    std::fs::create_dir(&safe)?;
    mount(Some(place), &safe, none, MsFlags::MS_BIND, none)?;
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(none, &safe, none, flags, none)?;
    let fails = |husk: &Path| {
        let husk = husk.to_owned();
        move || {
            let mut command = Command::new(&husk);
            command.args(["create", "--bundle", "/nowhere", "x"]);
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            let _ = command.status();
        }
    };
    let (with, without) = compare(1, fails(&binary), fails(&safe.join("husk")));
    row(
        "the binary runs from a read-only clone",
        format!("{:.0} µs", with - without),
        format!("a `create` that fails at once: {with:.0} µs with, {without:.0} µs without"),
    );

    let (dumpable, _) = compare(500, || prctl::set_dumpable(true).unwrap(), || {});
    row(
        "not dumpable",
        format!("{dumpable:.1} µs"),
        "each of the two calls in the container's process".into(),
    );

    // As a caller who leaves many open.
    let many: Vec<File> = (0..200)
        .map(|_| File::open("/dev/null"))
        .collect::<Result<_, _>>()?;
    let (marked, _) = compare(200, || fd::cloexec_from(3).unwrap(), || {});
    row(
        "descriptors are marked close-on-exec",
        format!("{marked:.1} µs"),
        format!("a sweep, with {} open", many.len()),
    );
    drop(many);

    let sysctl = |value: &str| std::fs::write("/proc/sys/kernel/domainname", value);
    let domain = std::fs::read_to_string("/proc/sys/kernel/domainname")?;
    let domain = domain.trim_end().to_owned();
    unshare(CloneFlags::CLONE_NEWUTS)?;
    let private =
        || drop(Procfs::new().and_then(|procfs| procfs.write_sysctl("kernel.domainname", &domain)));
    let (with, without) = compare(5, private, || drop(sysctl(&domain)));
    row(
        "a private procfs",
        format!("{:.0} µs", with - without),
        "for a container with sysctls or labels".into(),
    );

    for name in ["usr/lib/x/y", "dev"] {
        std::fs::create_dir_all(place.join(name))?;
    }
    let mut options = std::fs::OpenOptions::new();
    let handle = options
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open(place)?;
    let root = Rootfs::new(handle.into());
    for path in ["dev", "usr/lib/x/y"] {
        let inside = Path::new(path);
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        let (with, without) = compare(
            200,
            || drop(root.open(inside, flags)),
            || {
                drop(nix::fcntl::openat(
                    root.fd().as_fd(),
                    inside,
                    flags,
                    nix::sys::stat::Mode::empty(),
                ))
            },
        );
        row(
            "lookups that can't leave the root",
            format!("{:.2} µs", with - without),
            format!("each, of `{path}`: {with:.2} µs by `openat2`, {without:.2} µs by `openat`"),
        );
    }
    Ok(())
}
