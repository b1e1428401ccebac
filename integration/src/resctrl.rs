//! A stand-in for resctrl, where the processor has none: a directory that runtimes take for the mounted file system,
//! in which the kernel's part is played. Whom it is for runs under a seccomp filter whose supervisor answers a few
//! calls (seccomp_unotify(2)): mountinfo gets one more line, the directory says that it is a resctrl, groups come
//! with their files and go with them.

use std::fs::{self, File};
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
    recvmsg, sendmsg, socketpair,
};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid};

use crate::agent::{CONTINUE, RECEIVE, SEND};
use crate::sys;

/// A process that is there as long as this.
pub struct StandIn {
    pid: Pid,
    door: Door,
    tree: PathBuf,
}

/// The way under its filter.
#[derive(Clone)]
pub struct Door(Arc<OwnedFd>);

impl StandIn {
    /// Makes the tree. The caller has one thread.
    pub fn start(tree: &Path) -> io::Result<StandIn> {
        fs::create_dir(tree)?;
        let info = tree.join("info/L3");
        fs::create_dir_all(&info)?;
        fs::write(tree.join("info/last_cmd_status"), "ok\n")?;
        fs::write(info.join("num_closids"), "16\n")?;
        fs::create_dir(tree.join("info/L3_MON"))?;
        fs::write(tree.join("info/L3_MON/mon_features"), "llc_occupancy\n")?;
        populate(tree)?;
        let flags = SockFlag::SOCK_CLOEXEC;
        let (control, other) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        match sys::fork()? {
            ForkResult::Child => {
                drop(control);
                let _ = supervise(&other, tree);
                std::process::exit(1)
            }
            ForkResult::Parent { child } => Ok(StandIn {
                pid: child,
                door: Door(Arc::new(control)),
                tree: tree.to_owned(),
            }),
        }
    }

    pub fn door(&self) -> Door {
        self.door.clone()
    }

    /// The groups that there are, monitoring groups as `mon_groups/NAME`.
    pub fn groups(&self) -> Vec<String> {
        let mut groups = Vec::new();
        for (dir, prefix) in [
            (self.tree.clone(), ""),
            (self.tree.join("mon_groups"), "mon_groups/"),
        ] {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let own = ["info", "mon_groups", "mon_data"].contains(&name.as_str());
                if !own && entry.path().is_dir() {
                    groups.push(format!("{prefix}{name}"));
                }
            }
        }
        groups.sort();
        groups
    }

    /// Those who are in a group, the dead not counted.
    pub fn tasks(&self, group: &str) -> Vec<String> {
        let text = fs::read_to_string(self.tree.join(group).join("tasks")).unwrap_or_default();
        text.split_whitespace().map(str::to_owned).collect()
    }
}

impl Door {
    /// From now on this process and what it executes see the tree. Made for the moment between fork and exec.
    ///
    /// # Errors
    /// Of the kernel.
    pub fn enter(&self) -> io::Result<()> {
        let listener = sys::notify_of(&CALLS)?;
        let fds = [listener.as_raw_fd()];
        let message = [ControlMessage::ScmRights(&fds)];
        let words = [IoSlice::new(b"l")];
        sendmsg::<UnixAddr>(
            self.0.as_raw_fd(),
            &words,
            &message,
            MsgFlags::empty(),
            None,
        )?;
        Ok(())
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        let _ = kill(self.pid, Signal::SIGKILL);
        let _ = waitpid(self.pid, None);
        let _ = fs::remove_dir_all(&self.tree);
    }
}

/// What is answered here; all others are the kernel's.
const CALLS: [u32; 8] = [
    libc::SYS_open as u32,
    libc::SYS_openat as u32,
    libc::SYS_statfs as u32,
    libc::SYS_fstatfs as u32,
    libc::SYS_mkdir as u32,
    libc::SYS_mkdirat as u32,
    libc::SYS_rmdir as u32,
    libc::SYS_unlinkat as u32,
];

fn populate(group: &Path) -> io::Result<()> {
    for (name, text) in [
        ("tasks", ""),
        ("schemata", "L3:0=f\n"),
        ("cpus", "0\n"),
        ("cpus_list", "\n"),
    ] {
        fs::write(group.join(name), text)?;
    }
    // A monitoring group has none below it.
    if group
        .parent()
        .is_none_or(|parent| !parent.ends_with("mon_groups"))
    {
        fs::create_dir(group.join("mon_groups"))?;
    }
    fs::create_dir(group.join("mon_data"))
}

fn supervise(control: &OwnedFd, tree: &Path) -> io::Result<()> {
    let mut listeners: Vec<OwnedFd> = Vec::new();
    loop {
        let mut fds = vec![PollFd::new(control.as_fd(), PollFlags::POLLIN)];
        fds.extend(
            listeners
                .iter()
                .map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)),
        );
        match poll(&mut fds, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => continue,
            done => done?,
        };
        let events: Vec<PollFlags> = fds
            .iter()
            .map(|fd| fd.revents().unwrap_or(PollFlags::empty()))
            .collect();
        let mut number = 0;
        listeners.retain(|listener| {
            number += 1;
            if events[number].contains(PollFlags::POLLIN) {
                answer(listener, tree);
            }
            // Nobody is under the filter any more.
            !events[number].contains(PollFlags::POLLHUP)
        });
        if !events[0].is_empty() {
            match receive(control)? {
                Some(listener) => listeners.push(listener),
                None => return Ok(()),
            }
        }
    }
}

fn receive(control: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0];
    let mut slices = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<UnixAddr>(control.as_raw_fd(), &mut slices, Some(&mut space), flags)?;
    let fds = message.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    });
    // SAFETY: the kernel has just made it for this process.
    Ok(fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// The call of another process.
struct Call<'a> {
    listener: &'a OwnedFd,
    id: u64,
    pid: u32,
    arguments: [u64; 6],
}

impl Call<'_> {
    fn path(&self, argument: usize) -> Option<PathBuf> {
        let memory = File::open(format!("/proc/{}/mem", self.pid)).ok()?;
        let mut bytes = vec![0; libc::PATH_MAX as usize];
        let count = memory.read_at(&mut bytes, self.arguments[argument]).ok()?;
        let end = bytes[..count].iter().position(|byte| *byte == 0)?;
        Some(PathBuf::from(
            String::from_utf8(bytes[..end].to_vec()).ok()?,
        ))
    }

    fn of_descriptor(&self, argument: usize) -> Option<PathBuf> {
        let name = match self.arguments[argument] as i32 {
            libc::AT_FDCWD => "cwd".to_owned(),
            fd => format!("fd/{fd}"),
        };
        fs::read_link(format!("/proc/{}/{name}", self.pid)).ok()
    }

    /// A path that is relative to a descriptor.
    fn path_at(&self, directory: usize, path: usize) -> Option<PathBuf> {
        let path = self.path(path)?;
        match path.is_absolute() {
            true => Some(path),
            false => Some(self.of_descriptor(directory)?.join(path)),
        }
    }

    /// Gives the caller a descriptor of a file with that text, as the result of the call.
    fn give(&self, text: &[u8]) -> io::Result<()> {
        let mut file = sys::memfd("mountinfo")?;
        file.write_all(text)?;
        file.rewind()?;
        sys::answer_by_descriptor(self.listener, self.id, &file)
    }
}

/// Without an answer of this one the kernel does it.
fn answer(listener: &OwnedFd, tree: &Path) {
    // SAFETY: all zeroes is what the kernel asks for.
    let mut notice: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: `notice` is valid for the ioctl to write.
    if unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE as _, &mut notice) } < 0 {
        return;
    }
    let call = Call {
        listener,
        id: notice.id,
        pid: notice.pid,
        arguments: notice.data.args,
    };
    let played = play(&call, i64::from(notice.data.nr), tree);
    let (error, flags) = match played {
        Some(Played::Given) => return,
        Some(Played::Done(error)) => (-error, 0),
        None => (0, CONTINUE),
    };
    let response = libc::seccomp_notif_resp {
        id: notice.id,
        val: 0,
        error,
        flags,
    };
    // SAFETY: `response` is valid for the ioctl to read.
    unsafe { libc::ioctl(listener.as_raw_fd(), SEND as _, &response) };
}

enum Played {
    /// With 0, or this errno.
    Done(i32),
    Given,
}

fn play(call: &Call, number: i64, tree: &Path) -> Option<Played> {
    let is_group = |path: &Path| {
        let parent = path.parent();
        parent == Some(tree)
            || path.starts_with(tree) && parent.is_some_and(|parent| parent.ends_with("mon_groups"))
    };
    match number {
        libc::SYS_open | libc::SYS_openat => {
            let path = call.path(usize::from(number == libc::SYS_openat))?;
            if path.file_name()? != "mountinfo" {
                return None;
            }
            let mut text = Vec::new();
            let own = format!("/proc/{}/mountinfo", call.pid);
            File::open(own).ok()?.read_to_end(&mut text).ok()?;
            let line = format!(
                "1 1 0:999 / {} rw,relatime - resctrl resctrl rw\n",
                tree.display()
            );
            text.extend(line.as_bytes());
            call.give(&text).ok().map(|()| Played::Given)
        }
        libc::SYS_statfs | libc::SYS_fstatfs => {
            let path = match number {
                libc::SYS_statfs => call.path(0)?,
                _ => call.of_descriptor(0)?,
            };
            if path != tree {
                return None;
            }
            // Its first field is the type: RDTGROUP_SUPER_MAGIC.
            let mut bytes = [0; size_of::<libc::statfs>()];
            bytes[..8].copy_from_slice(&0x0765_5821_u64.to_ne_bytes());
            let memory = File::options()
                .write(true)
                .open(format!("/proc/{}/mem", call.pid))
                .ok()?;
            memory.write_all_at(&bytes, call.arguments[1]).ok()?;
            Some(Played::Done(0))
        }
        libc::SYS_mkdir | libc::SYS_mkdirat => {
            let path = match number {
                libc::SYS_mkdir => call.path(0)?,
                _ => call.path_at(0, 1)?,
            };
            if !is_group(&path) {
                return None;
            }
            let made = fs::create_dir(&path).and_then(|()| populate(&path));
            Some(Played::Done(made.err().map_or(0, |error| {
                error.raw_os_error().unwrap_or(libc::EIO)
            })))
        }
        _ => {
            let path = match number {
                libc::SYS_rmdir => call.path(0)?,
                _ => call.path_at(0, 1)?,
            };
            if !is_group(&path) || !path.is_dir() {
                return None;
            }
            let gone = fs::remove_dir_all(&path);
            Some(Played::Done(gone.err().map_or(0, |error| {
                error.raw_os_error().unwrap_or(libc::EIO)
            })))
        }
    }
}
