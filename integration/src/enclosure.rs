//! A world of its own for the whole suite: namespaces, a v2 tree rooted at a throw-away
//! cgroup, and a tmpfs for the bundles. When it ends, nothing in it survives.

use std::fs;
use std::io;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};

use crate::{cgroup, mountinfo, sys};

/// Runs `inside` enclosed and returns its exit status. `dir` becomes an empty tmpfs
/// inside and is removed afterwards. The caller must have one thread.
pub fn enclose(dir: &Path, inside: impl FnOnce() -> i32) -> io::Result<i32> {
    let tree = mountinfo::first_of_type("cgroup2")
        .ok_or_else(|| io::Error::other("no cgroup2 is mounted here: mount -t cgroup2 none DIR"))?;
    let tree = Path::new(&tree);
    cgroup::enable_all(tree);
    let own = tree.join(format!("husk-suite-{}", std::process::id()));
    fs::create_dir(&own)?;
    fs::create_dir_all(dir)?;
    let status = match sys::fork()? {
        ForkResult::Child => {
            let status = enter(&own, dir, inside).unwrap_or_else(|error| {
                eprintln!("suite: cannot enclose itself: {error}");
                1
            });
            std::process::exit(status);
        }
        ForkResult::Parent { child } => wait_for(child)?,
    };
    let removed = cgroup::remove(&own);
    fs::remove_dir(dir)?;
    removed?;
    Ok(status)
}

fn enter(own: &Path, dir: &Path, inside: impl FnOnce() -> i32) -> io::Result<i32> {
    fs::write(own.join("cgroup.procs"), "0")?;
    unshare(
        CloneFlags::CLONE_NEWCGROUP
            | CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWNET,
    )?;
    // No processes in a cgroup that hands controllers on.
    let runner = own.join("runner");
    fs::create_dir(&runner)?;
    fs::write(runner.join("cgroup.procs"), "0")?;
    cgroup::enable_all(own);
    match sys::fork()? {
        ForkResult::Child => {
            // The first process of the pid namespace reaps; the second one works.
            std::process::exit(first_process(dir, inside)?);
        }
        ForkResult::Parent { child } => wait_for(child),
    }
}

fn first_process(dir: &Path, inside: impl FnOnce() -> i32) -> io::Result<i32> {
    nix::unistd::setsid()?;
    prepare(dir)?;
    match sys::fork()? {
        ForkResult::Child => std::process::exit(inside()),
        ForkResult::Parent { child } => loop {
            match waitpid(None, None)? {
                WaitStatus::Exited(pid, code) if pid == child => return Ok(code),
                WaitStatus::Signaled(pid, signal, _) if pid == child => {
                    return Ok(128 + signal as i32);
                }
                _ => {}
            }
        },
    }
}

fn prepare(dir: &Path) -> io::Result<()> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), none)?;
    // A layer at a time: what the host has mounted there may be several deep.
    while umount2(cgroup::MOUNT, MntFlags::MNT_DETACH).is_ok() {}
    mount(
        Some("none"),
        cgroup::MOUNT,
        Some("cgroup2"),
        MsFlags::empty(),
        none,
    )?;
    mount(
        Some("suite"),
        dir,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=755"),
    )?;
    private_run(&dir.join("run"))?;
    sys::loopback_up()?;
    nix::unistd::sethostname("suite")?;
    Ok(())
}

/// The default `--root` is below /run: no test may write to the host's. The sockets of
/// systemd stay.
fn private_run(scratch: &Path) -> io::Result<()> {
    let none = None::<&str>;
    fs::create_dir(scratch)?;
    mount(
        Some("run"),
        scratch,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=755"),
    )?;
    for name in ["systemd", "dbus", "user"] {
        let (source, target) = (Path::new("/run").join(name), scratch.join(name));
        if source.is_dir() {
            fs::create_dir(&target)?;
            mount(
                Some(&source),
                &target,
                none,
                MsFlags::MS_BIND | MsFlags::MS_REC,
                none,
            )?;
        }
    }
    mount(Some(scratch), "/run", none, MsFlags::MS_MOVE, none)?;
    fs::remove_dir(scratch)
}

fn wait_for(child: Pid) -> io::Result<i32> {
    loop {
        match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, code)) => return Ok(code),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(128 + signal as i32),
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
