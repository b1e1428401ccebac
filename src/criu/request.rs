//! What CRIU is asked for: `criu_req` and `criu_opts` of its images/rpc.proto.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::unistd::Pid;

use super::wire::Message;

/// `criu_req_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Dump = 1,
    Restore = 2,
    /// Memory only; the processes go on.
    PreDump = 4,
    Notify = 6,
    Features = 9,
}

/// `criu_cg_mode`: what is made of the cgroups that are in the images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CgroupMode {
    Ignore = 0,
    Soft = 3,
    Full = 4,
    Strict = 5,
    /// CRIU's own, which is soft.
    #[default]
    Default = 6,
}

/// What callers choose, with the same meaning for both directions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choices {
    pub tcp_established: bool,
    pub tcp_skip_in_flight: bool,
    pub ext_unix_sk: bool,
    pub shell_job: bool,
    pub file_locks: bool,
    pub link_remap: bool,
    pub auto_dedup: bool,
    pub lazy_pages: bool,
    /// `CLONE_NEW*` of namespaces whose content is neither saved nor restored.
    pub empty_namespaces: u32,
    pub cgroups: CgroupMode,
}

/// A mount point whose content is not in the images: on a checkpoint the path inside and the name that
/// it gets, on a restore that name and the path outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct External {
    pub key: PathBuf,
    pub value: PathBuf,
}

/// `criu_opts`, as far as husk uses it.
#[derive(Debug, Default)]
pub struct Options<'a> {
    pub choices: Choices,
    /// Directory of the images: the number that its descriptor has in CRIU's process.
    pub images: Option<BorrowedFd<'a>>,
    /// Directory of the log, the images' if there is none.
    pub work: Option<BorrowedFd<'a>>,
    pub log: &'a str,
    pub config: Option<&'a str>,
    pub root: Option<&'a Path>,
    pub mounts: Vec<External>,
    /// The first process, to save.
    pub pid: Option<Pid>,
    pub leave_running: bool,
    pub parent: Option<&'a str>,
    pub freeze: Option<PathBuf>,
    pub page_server: Option<(&'a str, u16)>,
    /// As `net[INODE]:NAME`.
    pub external: Vec<String>,
    /// Make the first process again, as a child of husk's.
    pub restore: bool,
    /// Descriptors of CRIU's own that stand for what was outside.
    pub inherited: Vec<(String, i32)>,
    /// Kinds and paths of namespaces.
    pub joined: Vec<(&'static str, PathBuf)>,
    /// Controllers and paths of cgroups.
    pub cgroups: Vec<(String, String)>,
    pub lsm_profile: Option<&'a str>,
    pub lsm_mount_context: Option<&'a str>,
}

/// Warnings and what CRIU does, step by step: it goes to a file of its own.
const LOG_LEVEL: i32 = 4;

impl Options<'_> {
    fn message(&self) -> Message {
        let mut opts = Message::default();
        let choices = &self.choices;
        opts.signed(1, self.images.map_or(-1, |fd| fd.as_raw_fd()));
        if let Some(pid) = self.pid {
            opts.signed(2, pid.as_raw());
        }
        opts.flag(3, self.leave_running)
            .flag(4, choices.ext_unix_sk)
            .flag(5, choices.tcp_established)
            .flag(6, self.restore)
            .flag(7, choices.shell_job)
            .flag(8, choices.file_locks)
            .signed(9, LOG_LEVEL)
            .text(10, self.log);
        if let Some((address, port)) = self.page_server {
            let mut server = Message::default();
            server.text(1, address).signed(2, port.into());
            opts.message(11, &server);
        }
        opts.flag(12, true);
        if let Some(root) = self.root {
            opts.text(13, root.as_os_str().as_bytes());
        }
        if let Some(parent) = self.parent {
            opts.text(14, parent).flag(15, true);
        }
        opts.flag(16, choices.auto_dedup);
        if let Some(work) = self.work {
            opts.signed(17, work.as_raw_fd());
        }
        opts.flag(18, choices.link_remap);
        for External { key, value } in &self.mounts {
            let mut mount = Message::default();
            mount
                .text(1, key.as_os_str().as_bytes())
                .text(2, value.as_os_str().as_bytes());
            opts.message(23, &mount);
        }
        opts.flag(24, true);
        for (controller, path) in &self.cgroups {
            let mut cgroup = Message::default();
            cgroup.text(1, controller).text(2, path);
            opts.message(25, &cgroup);
        }
        opts.flag(26, self.restore);
        for (key, fd) in &self.inherited {
            let mut inherited = Message::default();
            inherited.text(1, key).signed(2, *fd);
            opts.message(27, &inherited);
        }
        opts.number(34, choices.cgroups as u64);
        for external in &self.external {
            opts.text(37, external);
        }
        if choices.empty_namespaces != 0 {
            opts.number(38, choices.empty_namespaces.into());
        }
        for (kind, path) in &self.joined {
            let mut joined = Message::default();
            joined.text(1, kind).text(2, path.as_os_str().as_bytes());
            opts.message(39, &joined);
        }
        if let Some(freeze) = &self.freeze {
            opts.text(44, freeze.as_os_str().as_bytes());
        }
        opts.flag(46, choices.tcp_skip_in_flight)
            .flag(48, choices.lazy_pages)
            .flag(50, true);
        if let Some(config) = self.config {
            opts.text(51, config);
        }
        if let Some(profile) = self.lsm_profile {
            opts.text(53, profile);
        }
        if let Some(context) = self.lsm_mount_context {
            opts.text(63, context);
        }
        opts
    }

    pub fn request(&self, kind: Kind) -> Message {
        let mut request = Message::default();
        request.number(1, kind as u64).message(2, &self.message());
        request
    }
}

/// Whether memory can be tracked, for [`Kind::PreDump`], and loaded lazily.
pub fn ask_for_features() -> Message {
    let mut features = Message::default();
    features.flag(1, true).flag(2, true);
    let mut request = Message::default();
    request
        .number(1, Kind::Features as u64)
        .message(5, &features);
    request
}

/// The answer to a notification: CRIU goes on, or gives up.
pub fn acknowledge(success: bool) -> Message {
    let mut request = Message::default();
    request
        .number(1, Kind::Notify as u64)
        .number(3, success.into());
    request
}
