use std::os::fd::AsFd;
use std::path::PathBuf;

use super::checkpoint::{Common, given, images, require_root};
use super::{Driver, Global};
use crate::container::Container;
use crate::container::create;
use crate::container::restore::{Request, restore};
use crate::error::Step;
use crate::process::foreground::{self, Signals};
use crate::process::program::Passed;
use crate::sys::{fd, prctl};

#[derive(clap::Args, Debug, Clone, PartialEq, Eq)]
#[group(skip)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,
    /// Directory of config.json and of the root filesystem
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// Return once the container runs, instead of waiting for its end
    #[arg(short, long)]
    pub detach: bool,
    /// Unix socket that receives the terminal's master
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// File for the pid of the first process
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Leave orphaned processes of the container to the system's reaper
    #[arg(long)]
    pub no_subreaper: bool,
    /// Accepted from engines: how the root is changed is CRIU's matter
    #[arg(long)]
    pub no_pivot: bool,
    /// Profile in the place of the saved one
    #[arg(long, value_name = "TYPE:NAME")]
    pub lsm_profile: Option<String>,
    /// SELinux context of the mounts in the place of the saved one
    #[arg(long, value_name = "CONTEXT")]
    pub lsm_mount_context: Option<String>,
    /// Name of the container
    pub id: String,
}

pub fn run(args: Args, global: &Global) -> anyhow::Result<u8> {
    require_root("restore", global)?;
    // CRIU is to have none that the caller left open.
    fd::cloexec_from(3).step("close", "descriptors of the caller")?;
    let bundle = given(Some(&args.bundle)).unwrap_or(std::path::Path::new("."));
    let request = Request {
        create: create::Request {
            root: &global.root,
            id: &args.id,
            bundle,
            console_socket: given(args.console_socket.as_deref()),
            pidfd_socket: None,
            pid_file: given(args.pid_file.as_deref()),
            passed: Passed::default(),
            notify: false,
            cgroups: match global.driver() {
                Driver::Cgroupfs => create::Cgroups::Cgroupfs,
                Driver::Systemd => create::Cgroups::Systemd,
                Driver::Disabled => create::Cgroups::None,
            },
            rootless: false,
            no_pivot: false,
            no_new_keyring: false,
            overlay: None,
            lower: &[],
            attached: !args.detach,
            observed: false,
            at_once: false,
        },
        images: images(&args.common),
        work: given(args.common.work_path.as_deref()),
        choices: args.common.choices(),
        lsm_profile: args.lsm_profile.as_deref(),
        lsm_mount_context: args.lsm_mount_context.as_deref(),
    };
    if args.detach {
        restore(&request)?;
        return Ok(0);
    }
    let signals = Signals::hold()?;
    if !args.no_subreaper {
        // What the program leaves behind is reaped here, as by an init.
        prctl::set_child_subreaper(true).step("become", "reaper of the container")?;
    }
    let mut restored = restore(&request)?;
    let terminal = restored.terminal.take();
    let pidfd = restored.pidfd.as_fd();
    let ended = foreground::attend(&signals, restored.pid, pidfd, terminal, None);
    Container::delete(&global.root, &args.id, true)?;
    Ok(ended?.status())
}
