//! What a test needs of the machine it runs on.

use std::path::Path;
use std::process::Command;

use crate::cgroup;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The runtime under test is husk: the test is about what only husk has.
    Husk,
    /// This controller is on the v2 tree.
    Controller(&'static str),
    /// More than a few limits of `setrlimit` can be raised (CAP_SYS_RESOURCE).
    SysResource,
    /// This program is on PATH.
    Program(&'static str),
    /// CRIU, and a kernel that its version knows.
    Criu,
    /// A swap area, or at least the kernel's accounting of swap.
    SwapAccounting,
    /// AppArmor is on, and profiles can be loaded.
    AppArmor,
    /// systemd is the first process.
    Systemd,
    /// Filesystems whose server is a process.
    Fuse,
    /// A mounted resctrl: hardware with classes of cache and bandwidth.
    Resctrl,
}

/// Where a test that can't run here can run.
pub enum Missing {
    /// In the virtual machine.
    Elsewhere(String),
    /// Nowhere, until somebody does something about it.
    Here(String),
}

impl Need {
    pub fn missing(self, runtime: &Path) -> Option<Missing> {
        use Missing::{Elsewhere, Here};
        match self {
            Need::Husk => {
                (!is_husk(runtime)).then(|| Here(format!("{} is not husk", runtime.display())))
            }
            Need::Controller(name) => (!cgroup::controllers().iter().any(|c| c == name))
                .then(|| Elsewhere(format!("no {name} controller on cgroup v2"))),
            Need::SysResource => {
                (!has_sys_resource()).then(|| Elsewhere("no CAP_SYS_RESOURCE".into()))
            }
            Need::Program(name) => find_program(name)
                .is_none()
                .then(|| Here(format!("{name} is not installed"))),
            Need::Criu => {
                if let missing @ Some(_) = Need::Program("criu").missing(runtime) {
                    return missing;
                }
                let checked = Command::new("criu").arg("check").output();
                (!checked.is_ok_and(|output| output.status.success()))
                    .then(|| Here("criu check fails: this version doesn't know the kernel".into()))
            }
            Need::SwapAccounting => {
                if let missing @ Some(_) = Need::Controller("memory").missing(runtime) {
                    return missing;
                }
                (!cgroup::path("runner/memory.swap.max").exists())
                    .then(|| Here("the kernel doesn't account for swap".into()))
            }
            Need::AppArmor => {
                let state = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
                let on = state.is_ok_and(|s| s.starts_with('Y'));
                (!on || find_program("apparmor_parser").is_none())
                    .then(|| Elsewhere("no AppArmor".into()))
            }
            Need::Resctrl => crate::mountinfo::first_of_type("resctrl")
                .is_none()
                .then(|| Here("no resctrl is mounted: it takes hardware".into())),
            Need::Systemd => {
                (!Path::new("/run/systemd/system").exists()).then(|| Elsewhere("no systemd".into()))
            }
            Need::Fuse => std::fs::File::open("/dev/fuse")
                .is_err()
                .then(|| Here("no FUSE".into())),
        }
    }

    /// Whether this is about the machine, so that the virtual machine is the place for it.
    pub fn of_the_machine(self) -> bool {
        matches!(
            self,
            Need::Controller(_)
                | Need::SysResource
                | Need::SwapAccounting
                | Need::AppArmor
                | Need::Systemd
        )
    }
}

pub fn is_husk(runtime: &Path) -> bool {
    runtime
        .file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with("husk"))
}

pub fn has_sys_resource() -> bool {
    const CAP_SYS_RESOURCE: u32 = 24;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .is_some_and(|bits| bits & (1 << CAP_SYS_RESOURCE) != 0)
}

pub fn find_program(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.exists())
}
