use std::path::PathBuf;

use super::second_look::explain;
use super::usual::{Given, Usual, flag, value};
use super::{Driver, Global};
use crate::container::create::{Cgroups, Request, create};
use crate::process::program::Passed;
use crate::process::readiness;

pub const USUAL: &[Usual] = &[
    value("bundle", Some(b'b')),
    value("console-socket", None),
    value("pid-file", None),
    flag("no-pivot", None),
    flag("no-new-keyring", None),
    flag("no-subreaper", None),
];

#[derive(clap::Args, Debug, Clone, PartialEq, Eq)]
#[group(skip)]
pub struct Args {
    /// Directory of config.json and of the root filesystem
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// Unix socket that receives the terminal's master
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Unix socket that receives a pidfd of the first process
    #[arg(long, value_name = "SOCKET")]
    pub pidfd_socket: Option<PathBuf>,
    /// File for the pid of the first process
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Change the root without pivot_root, for a rootfs on a ramdisk
    #[arg(long)]
    pub no_pivot: bool,
    /// Stay in the caller's session keyring
    #[arg(long)]
    pub no_new_keyring: bool,
    /// Leave orphaned processes of the container to the system's reaper
    #[arg(long)]
    pub no_subreaper: bool,
    /// Pass this many descriptors from 3 on to the program, after those of LISTEN_FDS
    #[arg(long, value_name = "N", default_value = "0", value_parser = super::parse_count)]
    pub preserve_fds: u32,
    /// Put a writable layer over the rootfs: tmpfs[:size=N], forgotten at the end, or a directory, kept
    #[arg(long, value_name = "tmpfs[:size=N]|DIR", num_args = 0..=1, require_equals = true, default_missing_value = "tmpfs")]
    pub overlay: Option<String>,
    /// Put this read-only layer between rootfs and overlay; may be repeated, the topmost first
    #[arg(long, value_name = "DIR")]
    pub lower: Vec<PathBuf>,
    /// Name of the container: letters, digits and _ + . -
    pub id: String,
}

impl Args {
    /// A line of an engine's.
    pub fn usual(given: &Given) -> Option<Args> {
        Some(Args {
            bundle: given.path("bundle")?.unwrap_or_else(|| ".".into()),
            console_socket: given.path("console-socket")?,
            pidfd_socket: None,
            pid_file: given.path("pid-file")?,
            no_pivot: given.flag("no-pivot"),
            no_new_keyring: given.flag("no-new-keyring"),
            no_subreaper: given.flag("no-subreaper"),
            preserve_fds: 0,
            overlay: None,
            lower: Vec::new(),
            id: given.id()?,
        })
    }
}

impl Args {
    /// What is asked of [`create`].
    pub fn request<'a>(
        &'a self,
        global: &'a Global,
        passed: Passed,
        attached: bool,
    ) -> Request<'a> {
        Request {
            root: &global.root,
            id: &self.id,
            bundle: &self.bundle,
            console_socket: self.console_socket.as_deref(),
            pidfd_socket: self.pidfd_socket.as_deref(),
            pid_file: self.pid_file.as_deref(),
            passed,
            notify: readiness::manager().is_some(),
            cgroups: match global.driver() {
                Driver::Cgroupfs => Cgroups::Cgroupfs,
                Driver::Systemd => Cgroups::Systemd,
                Driver::Disabled => Cgroups::None,
            },
            rootless: global.is_rootless(),
            no_pivot: self.no_pivot,
            no_new_keyring: self.no_new_keyring,
            overlay: self.overlay.as_deref(),
            lower: &self.lower,
            attached,
            observed: false,
            at_once: false,
        }
    }
}

pub fn run(args: Args, global: &Global) -> anyhow::Result<u8> {
    let passed = super::enter_container(args.preserve_fds, None)?;
    create(&args.request(global, passed, false)).map_err(|error| explain(error, &args.bundle))?;
    Ok(0)
}
