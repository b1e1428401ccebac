//! Writing a running container into files, by CRIU.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, FcntlArg, OFlag, fcntl};
use nix::sched::CloneFlags;
use nix::sys::stat::{Mode, fstatat, stat};
use nix::unistd::{Pid, UnlinkatFlags, unlinkat};
use oci_spec::runtime::{LinuxNamespaceType, Spec};

use super::plan::rootfs_setting;
use super::record::Record;
use super::{Container, Status, find_locked};
use crate::bundle::Bundle;
use crate::criu::{self, Choices, External, Kind, Options};
use crate::error::{Error, Result, Step};
use crate::files;
use crate::log;
use crate::namespaces;
use crate::process::criu::{Task, find, spawn};
use crate::process::{self, Ended};
use crate::rootfs::{self, Rootfs};
use crate::sys::file::open;

/// Namespaces that a restore takes from outside by a name, as runc calls them.
const NAMED: [(LinuxNamespaceType, &str, &str); 2] = [
    (LinuxNamespaceType::Network, "net", NETWORK),
    (LinuxNamespaceType::Pid, "pid", PIDS),
];
const NETWORK: &str = "extRootNetNS";
const PIDS: &str = "extRootPidNS";

/// The name of a joined namespace of that kind, a name of /proc/PID/ns.
pub(super) fn name_of(kind: &str) -> Option<&'static str> {
    NAMED
        .iter()
        .find(|(_, file, _)| *file == kind)
        .map(|(.., name)| *name)
}

#[derive(Debug)]
pub struct Request<'a> {
    pub root: &'a Path,
    pub id: &'a str,
    pub images: &'a Path,
    pub work: Option<&'a Path>,
    /// Relative to the images: those of a checkpoint of memory before.
    pub parent: Option<&'a str>,
    pub choices: Choices,
    pub leave_running: bool,
    /// Memory only.
    pub pre_dump: bool,
    pub page_server: Option<(&'a str, u16)>,
    /// Gets a NUL when pages can be asked for.
    pub status_fd: Option<OwnedFd>,
}

/// The directories of images and of the log.
#[derive(Debug)]
pub(super) struct Places {
    images: (PathBuf, OwnedFd),
    work: Option<(PathBuf, OwnedFd)>,
    /// For messages.
    log: PathBuf,
}

impl Places {
    /// Makes those that are missing.
    pub fn make(images: &Path, work: Option<&Path>, log: &str) -> Result<Places> {
        make_directory(images)?;
        Places::open(images, work, log)
    }

    pub fn open(images: &Path, work: Option<&Path>, log: &str) -> Result<Places> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let open_at = |path: &Path| open(path, flags, Mode::empty()).step("open", path.display());
        let opened = open_at(images).map_err(|error| match error.code() {
            Some(Errno::ENOENT) => error.hint("--image-path names the directory of a checkpoint"),
            _ => error,
        })?;
        let opened_work = match work {
            Some(path) => {
                make_directory(path)?;
                Some((path.to_owned(), open_at(path)?))
            }
            None => None,
        };
        let directory = opened_work.as_ref().map_or(&opened, |(_, opened)| opened);
        let log_path = work.unwrap_or(images).join(log);
        // CRIU writes it anew, through a link that came with the images.
        let stale = fstatat(directory, log, AtFlags::AT_SYMLINK_NOFOLLOW);
        if stale.is_ok() {
            unlinkat(directory, log, UnlinkatFlags::NoRemoveDir)
                .step("remove", log_path.display())?;
        }
        Ok(Places {
            images: (images.to_owned(), opened),
            work: opened_work,
            log: log_path,
        })
    }

    /// The numbers of both in CRIU's process.
    pub fn images(&self) -> BorrowedFd<'_> {
        self.images.1.as_fd()
    }

    pub fn work(&self) -> Option<BorrowedFd<'_>> {
        self.work.as_ref().map(|(_, opened)| opened.as_fd())
    }

    /// For CRIU.
    pub fn directories(&self) -> Vec<(PathBuf, RawFd)> {
        let all = [&self.images].into_iter().chain(&self.work);
        all.map(|(path, opened)| (path.clone(), opened.as_raw_fd()))
            .collect()
    }

    /// CRIU's own words about what went wrong, and where there are more.
    pub fn complain(&self, error: Error, answer: &criu::Answer) -> Error {
        let log = std::path::absolute(&self.log).unwrap_or_else(|_| self.log.clone());
        let error = match criu::complaints(&log).or_else(|| answer.message.clone()) {
            Some(words) => error.because(words),
            None => error,
        };
        let error = match answer.errno {
            Some(errno) if errno > 0 => error.errno(Errno::from_raw(errno)),
            _ => error,
        };
        match log.exists() {
            true => error.hint(format!("criu tells more in {}", log.display())),
            false => error,
        }
    }
}

fn make_directory(path: &Path) -> Result<()> {
    files::make_directories(path, 0o700).step("make directory", path.display())
}

/// `org.criu.config`; empty for no file at all.
pub(super) fn config_of(annotations: &std::collections::BTreeMap<String, String>) -> Option<&str> {
    match annotations.get(criu::CONFIG_ANNOTATION) {
        Some(path) => Some(path.as_str()).filter(|path| !path.is_empty()),
        None => Some(criu::CONFIG),
    }
}

/// What a restored container would lack.
fn check_record(record: &Record, spec: &Spec) -> Result<()> {
    let refuse = |words: &'static str| {
        Err(Error::new("checkpoint container")
            .on(&record.id)
            .because(words)
            .errno(Errno::EOPNOTSUPP))
    };
    if record.notify {
        return refuse(
            "it was started for a caller who waits at NOTIFY_SOCKET, and has that mounted",
        );
    }
    if record.seccomp_agent.is_some() {
        return refuse("its seccomp filter asks an agent, whose listener can't be saved");
    }
    check_devices(spec)
}

/// Moved devices are part of the network namespace, whose devices CRIU makes anew.
pub(super) fn check_devices(spec: &Spec) -> Result<()> {
    let linux = spec.linux().as_ref();
    match linux.and_then(|linux| linux.net_devices().as_ref()) {
        Some(devices) if !devices.is_empty() => Err(Error::config(
            "/linux/netDevices",
            "network devices of the host can't be checkpointed or restored",
        )),
        _ => Ok(()),
    }
}

pub fn checkpoint(request: &Request) -> Result<()> {
    let container = find_locked(request.root, request.id)?;
    match container.status()? {
        Status::Running | Status::Paused => {}
        status => {
            return Err(Error::new(format!(
                "Container cannot be checkpointed in {} state:",
                status.name()
            ))
            .on(request.id));
        }
    }
    let raw = container.home.read_config()?;
    let bundle = Bundle::parse(&container.record.bundle, raw)?;
    check_record(&container.record, &bundle.spec)?;
    let program = find()?;
    if let Some(fd) = &request.status_fd {
        let flags = fcntl(fd, FcntlArg::F_GETFL).step("--status-fd", "")?;
        if OFlag::from_bits_truncate(flags) & OFlag::O_ACCMODE == OFlag::O_RDONLY {
            return Err(Error::new("--status-fd").because("not open for writing"));
        }
    }
    let namespaces = namespaces::Plan::open(bundle.spec.linux().as_ref())?;
    let cgroups = container.record.cgroup.as_ref();
    let cgroups = cgroups.map(|place| place.mount.as_path());
    let setting = rootfs_setting(&bundle, &namespaces, cgroups)?;
    let rootfs = rootfs::Plan::new(&bundle.spec, setting)?;
    rootfs.check_restorable()?;
    let root = Rootfs::new(container.open_root()?);
    rootfs.check_plain(&root)?;
    let pid = container
        .pid()
        .ok_or_else(|| Error::new("checkpoint container").because("it has no process"))?;

    let places = Places::make(request.images, request.work, LOG)?;
    check_parent(request)?;
    if request.pre_dump || request.choices.lazy_pages {
        check_features(&program, request)?;
    }
    let mut options = Options {
        choices: request.choices.clone(),
        images: Some(places.images()),
        work: places.work(),
        log: LOG,
        config: config_of(&container.record.annotations),
        root: Some(&container.record.rootfs),
        pid: Some(pid),
        leave_running: request.leave_running,
        parent: request.parent,
        freeze: container.cgroup()?.map(|cgroup| cgroup.place().path()),
        page_server: request.page_server,
        external: external_namespaces(&bundle.spec, pid)?,
        ..Options::default()
    };
    let kind = match request.pre_dump {
        true => Kind::PreDump,
        false => Kind::Dump,
    };
    if kind == Kind::Dump {
        let mounts = rootfs.outside(&root).into_iter().chain(rootfs.masks(&root));
        options.mounts = mounts
            .map(|outside| External {
                key: outside.point,
                value: outside.name,
            })
            .collect();
        write_descriptors(request.images, pid)?;
    }
    drop(root);
    dump(&program, request, &places, &options, kind)?;
    match request.leave_running || request.pre_dump {
        true => Ok(()),
        // What it was is in the images.
        false => container.destroy(),
    }
}

const LOG: &str = "dump.log";

fn dump(
    program: &std::ffi::CString,
    request: &Request,
    places: &Places,
    options: &Options,
    kind: Kind,
) -> Result<()> {
    let task = Task {
        directories: places.directories(),
        ..Task::default()
    };
    let (criu, session) = spawn(program, task, None)?;
    let answer = session.ask(&options.request(kind), |notice| {
        match (notice.script, &request.status_fd) {
            ("status-ready", Some(fd)) => tell_ready(fd.as_fd()),
            _ => Ok(()),
        }
    });
    session.end();
    let ended = process::reap(&criu.pidfd).step("wait for", "criu")?;
    let failed = || Error::new("criu failed to checkpoint").on(request.id);
    let answer = answer?;
    match (answer.success, ended) {
        (false, _) => Err(places.complain(failed(), &answer)),
        // It would wait for more of them.
        (true, _) if kind == Kind::PreDump => Ok(()),
        (true, Ended::Exited(0)) => Ok(()),
        (true, ended) => Err(failed().because(format!("it ended with status {}", ended.status()))),
    }
}

fn tell_ready(fd: BorrowedFd) -> Result<()> {
    match nix::unistd::write(fd, b"\0") {
        Ok(_) => Ok(()),
        // Nobody waits for it.
        Err(errno) => {
            log::warning(format_args!("write to --status-fd: {}", errno.desc()));
            Ok(())
        }
    }
}

fn check_parent(request: &Request) -> Result<()> {
    let Some(parent) = request.parent else {
        return Ok(());
    };
    let fail = || Error::new("invalid --parent-path").on(parent);
    if Path::new(parent).is_absolute() {
        return Err(fail().because("--parent-path must be relative to --image-path"));
    }
    let path = request.images.join(parent);
    match std::fs::metadata(&path) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(fail().errno(Errno::ENOTDIR)),
        found => found.map(drop).or_fail(|errno| fail().errno(errno)),
    }
}

fn check_features(program: &std::ffi::CString, request: &Request) -> Result<()> {
    let (criu, session) = spawn(program, Task::default(), None)?;
    let answer = session.ask(&criu::ask_for_features(), |_| Ok(()));
    session.end();
    let _ = process::reap(&criu.pidfd);
    let answer = answer?;
    let missing = |option: &'static str, what: &'static str| {
        Err(Error::new(option)
            .because(format!("this kernel or this criu can't {what}"))
            .errno(Errno::EOPNOTSUPP))
    };
    if request.pre_dump && !answer.tracks_memory {
        return missing("--pre-dump", "track which memory changes");
    }
    if request.choices.lazy_pages && !answer.lazy_pages {
        return missing("--lazy-pages", "load memory lazily");
    }
    Ok(())
}

/// Network and pid namespaces that the container has joined, by their inodes.
fn external_namespaces(spec: &Spec, pid: Pid) -> Result<Vec<String>> {
    let listed = spec.linux().iter().flat_map(|linux| linux.namespaces());
    let joined = listed.flatten().filter(|namespace| {
        let path = namespace.path().as_deref();
        path.is_some_and(|path| !path.as_os_str().is_empty())
    });
    let mut external = Vec::new();
    for namespace in joined {
        let known = NAMED.iter().find(|(kind, ..)| *kind == namespace.typ());
        let Some((_, file, name)) = known else {
            continue;
        };
        let path = format!("/proc/{pid}/ns/{file}");
        let inode = stat(path.as_str()).step("stat", &path)?.st_ino;
        external.push(format!("{file}[{inode}]:{name}"));
    }
    Ok(external)
}

/// What the standard streams are: a restore puts those of its caller in the place of pipes.
fn write_descriptors(images: &Path, pid: Pid) -> Result<()> {
    let streams: Vec<String> = (0..3)
        .map(|number| {
            let target = std::fs::read_link(format!("/proc/{pid}/fd/{number}"));
            target.map_or_else(|_| String::new(), |target| target.display().to_string())
        })
        .collect();
    let path = images.join(criu::DESCRIPTORS);
    let text = serde_json::to_vec(&streams)
        .map_err(|error| Error::new("write").because(error.to_string()))?;
    files::replace(&path, &text).step("write", path.display())
}

impl Container {
    /// Of a restored process, which CRIU puts into a time namespace whatever the configuration says.
    pub(super) fn note_namespaces(&mut self, pid: Pid) {
        self.record.namespaces = namespaces::differing(pid);
        let new_pids = CloneFlags::CLONE_NEWPID.bits() as u64;
        self.record.first_in_pids &= self.record.namespaces & new_pids != 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_came_with_the_images_is_not_written_to() {
        let dir = std::env::temp_dir().join(format!("husk-places-{}", std::process::id()));
        let images = dir.join("images");
        files::make_directories(&images, 0o700).unwrap();
        files::replace(&dir.join("canary"), b"canary").unwrap();
        let link = images.join(LOG);
        nix::unistd::symlinkat("../canary", nix::fcntl::AT_FDCWD, &link).unwrap();
        Places::open(&images, None, LOG).unwrap();
        assert!(std::fs::symlink_metadata(&link).is_err());
        assert_eq!(std::fs::read(dir.join("canary")).unwrap(), b"canary");
        for name in ["canary", "images", ""] {
            let path = dir.join(name);
            let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir(&path));
        }
    }
}
