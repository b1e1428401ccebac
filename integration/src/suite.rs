//! The tests, by theme. Each is named after what it proves.

use crate::lab::Lab;
use crate::need::Need;

mod advertised_options;
mod attacks;
mod bad_command_line;
mod bad_config;
mod bad_input;
mod cgroups;
mod check;
mod check_mounts;
mod check_program;
mod checkpoint;
mod churn;
mod contract;
mod devices;
mod diagnosis;
mod engine_contract;
mod engines;
mod events;
mod exec;
mod exec_cgroup;
mod explain;
mod hooks;
mod hostile;
mod idmap;
mod inheritance;
mod lifecycle;
mod limits;
mod load;
mod locked_mounts;
mod lsm;
mod mount_options;
mod mount_targets;
mod mounts;
mod namespaces;
mod neighbours;
mod network_devices;
mod overlay;
mod pause;
mod pidfd_socket;
mod privileges;
mod process;
mod races;
mod rdt;
mod readiness;
mod records;
mod regressions;
mod reliability;
mod rootfs;
mod rootless;
mod rootless_cgroups;
mod rootless_mounts;
mod scheduling;
mod seccomp;
mod seccomp_notify;
mod specification;
mod systemd;
mod systemd_limits;
mod terminal;
mod update;

#[derive(Clone, Copy)]
pub struct Test {
    module: &'static str,
    function: &'static str,
    pub body: fn(&Lab),
    pub needs: &'static [Need],
    /// How long it may take, where half a minute is not enough.
    pub seconds: Option<u64>,
}

impl Test {
    pub fn name(&self) -> String {
        let module = self.module.rsplit("::").next().unwrap_or_default();
        format!("{module}::{}", self.function)
    }

    const fn new(module: &'static str, function: &'static str, body: fn(&Lab)) -> Test {
        Test {
            module,
            function,
            body,
            needs: &[],
            seconds: None,
        }
    }

    const fn needs(mut self, needs: &'static [Need]) -> Test {
        self.needs = needs;
        self
    }

    const fn seconds(mut self, seconds: u64) -> Test {
        self.seconds = Some(seconds);
        self
    }
}

/// Lists a file's tests, each with what it needs: `a, b.needs(&[Need::Husk])`.
macro_rules! tests {
    ($($function:ident $(.$with:ident($value:expr))*),* $(,)?) => {
        pub const TESTS: &[crate::suite::Test] = &[
            $(crate::suite::Test::new(module_path!(), stringify!($function), $function)
                $(.$with($value))*),*
        ];
    };
}
use tests;

pub fn all() -> Vec<Test> {
    let files: &[&'static [Test]] = &[
        lifecycle::TESTS,
        load::TESTS,
        namespaces::TESTS,
        network_devices::TESTS,
        rootfs::TESTS,
        rootless::TESTS,
        rootless_cgroups::TESTS,
        rootless_mounts::TESTS,
        mounts::TESTS,
        mount_options::TESTS,
        mount_targets::TESTS,
        devices::TESTS,
        diagnosis::TESTS,
        idmap::TESTS,
        locked_mounts::TESTS,
        advertised_options::TESTS,
        overlay::TESTS,
        process::TESTS,
        privileges::TESTS,
        scheduling::TESTS,
        lsm::TESTS,
        seccomp::TESTS,
        seccomp_notify::TESTS,
        specification::TESTS,
        cgroups::TESTS,
        limits::TESTS,
        systemd::TESTS,
        systemd_limits::TESTS,
        rdt::TESTS,
        update::TESTS,
        pause::TESTS,
        events::TESTS,
        engines::TESTS,
        engine_contract::TESTS,
        exec::TESTS,
        explain::TESTS,
        exec_cgroup::TESTS,
        terminal::TESTS,
        hooks::TESTS,
        hostile::TESTS,
        contract::TESTS,
        pidfd_socket::TESTS,
        inheritance::TESTS,
        readiness::TESTS,
        bad_config::TESTS,
        bad_input::TESTS,
        bad_command_line::TESTS,
        attacks::TESTS,
        races::TESTS,
        neighbours::TESTS,
        records::TESTS,
        regressions::TESTS,
        reliability::TESTS,
        check::TESTS,
        check_mounts::TESTS,
        check_program::TESTS,
        checkpoint::TESTS,
        churn::TESTS,
    ];
    files
        .iter()
        .flat_map(|tests| tests.iter())
        .copied()
        .collect()
}
