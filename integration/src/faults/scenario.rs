//! What is struck: each command, in the shapes that make it do different things.

use std::fs;
use std::path::{Path, PathBuf};

use husk_integration::bundle::{Bundle, PAYLOAD};
use husk_integration::{cgroup, systemd};
use serde_json::json;

use super::tracer::Side;
use super::{device, lines};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Plain,
    /// All six kinds. They read what they are told: crun takes it for a failure if they don't.
    Hooks,
    /// An upper layer that the runtime makes.
    Overlay,
    Terminal,
    UserNamespace,
    /// With descriptors of an engine's: passed on, listened at, and a socket for a pidfd.
    Descriptors,
    /// With a network device of the host for its own namespace.
    Device,
    /// With one for a namespace that it joins.
    PodsDevice,
    /// In a class of resctrl of its own, and monitored.
    Rdt,
    /// The same of a container that runs.
    RdtForce,
    /// Of a container that runs.
    Force,
    /// With the systemd driver, and a stand-in for systemd.
    Systemd,
    /// The same of a container that runs.
    SystemdForce,
}

#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    pub command: &'static str,
    pub shape: Shape,
    sides: &'static [Side],
}

const BOTH: &[Side] = &[Side::Parent, Side::Child];
const ONE: &[Side] = &[Side::Parent];

const ALL: &[(&str, Shape, &[Side])] = &[
    ("create", Shape::Plain, BOTH),
    ("create", Shape::Hooks, BOTH),
    ("create", Shape::Overlay, BOTH),
    ("create", Shape::Terminal, BOTH),
    ("create", Shape::UserNamespace, BOTH),
    ("start", Shape::Plain, BOTH),
    ("start", Shape::Hooks, BOTH),
    ("run", Shape::Plain, BOTH),
    ("run", Shape::Hooks, BOTH),
    ("exec", Shape::Plain, BOTH),
    ("exec", Shape::UserNamespace, BOTH),
    ("update", Shape::Plain, ONE),
    ("pause", Shape::Plain, ONE),
    ("resume", Shape::Plain, ONE),
    ("kill", Shape::Plain, ONE),
    ("delete", Shape::Plain, ONE),
    ("delete", Shape::Hooks, ONE),
    ("delete", Shape::Force, ONE),
    ("create", Shape::Descriptors, BOTH),
    ("run", Shape::Descriptors, BOTH),
    ("exec", Shape::Descriptors, BOTH),
    ("create", Shape::Device, BOTH),
    ("create", Shape::PodsDevice, BOTH),
    ("create", Shape::Rdt, BOTH),
    ("exec", Shape::Rdt, ONE),
    ("update", Shape::Rdt, ONE),
    ("delete", Shape::Rdt, ONE),
    ("delete", Shape::RdtForce, ONE),
    ("create", Shape::Systemd, BOTH),
    ("start", Shape::Systemd, ONE),
    ("run", Shape::Systemd, BOTH),
    ("exec", Shape::Systemd, ONE),
    ("update", Shape::Systemd, ONE),
    ("pause", Shape::Systemd, ONE),
    ("kill", Shape::Systemd, ONE),
    ("delete", Shape::Systemd, ONE),
    ("delete", Shape::SystemdForce, ONE),
];

pub fn all() -> impl Iterator<Item = Scenario> {
    ALL.iter().map(|(command, shape, sides)| Scenario {
        command,
        shape: *shape,
        sides,
    })
}

/// What `update` sets, and `create` before it.
pub const UPDATED: (&str, &str) = ("cgroup.max.descendants", "7");
pub const SCHEMA: &str = "L3:0=3";
pub const CREATED: (&str, &str) = ("cgroup.max.depth", "9");

impl Scenario {
    pub fn name(&self) -> String {
        let shape = match self.shape {
            Shape::Plain => "",
            Shape::Hooks => " with hooks",
            Shape::Overlay => " with an overlay",
            Shape::Terminal => " with a terminal",
            Shape::UserNamespace => " in a user namespace",
            Shape::Descriptors => " with descriptors",
            Shape::Device => " with a network device",
            Shape::PodsDevice => " with a network device for a pod",
            Shape::Rdt => " in a resctrl group",
            Shape::RdtForce => " --force in a resctrl group",
            Shape::Force => " --force",
            Shape::Systemd => " by systemd",
            Shape::SystemdForce => " --force by systemd",
        };
        format!("{}{shape}", self.command)
    }

    pub fn sides(&self) -> &'static [Side] {
        self.sides
    }

    /// Only husk has it, or speaks to the stand-in, or is known to find it.
    pub fn is_husks(&self) -> bool {
        self.shape == Shape::Overlay
            || self.is_by_systemd()
            || self.has_device()
            || self.has_group()
    }

    pub fn has_device(&self) -> bool {
        matches!(self.shape, Shape::Device | Shape::PodsDevice)
    }

    pub fn has_group(&self) -> bool {
        matches!(self.shape, Shape::Rdt | Shape::RdtForce)
    }

    pub fn is_by_systemd(&self) -> bool {
        matches!(self.shape, Shape::Systemd | Shape::SystemdForce)
    }

    pub fn is_by_force(&self) -> bool {
        matches!(
            self.shape,
            Shape::Force | Shape::SystemdForce | Shape::RdtForce
        )
    }

    pub fn cgroup(&self, id: &str) -> PathBuf {
        match self.is_by_systemd() {
            true => systemd::scope(&format!("husk-{id}.scope")),
            false => cgroup::path(id),
        }
    }

    /// The program tells what it sees, and this is compared.
    pub fn tells(&self) -> bool {
        matches!(self.command, "create" | "start" | "run" | "exec")
    }

    /// The container is there before the command.
    pub fn is_created_before(&self) -> bool {
        !matches!(self.command, "create" | "run")
    }

    pub fn is_started_before(&self) -> bool {
        self.is_created_before() && self.command != "start"
    }

    pub fn bundle(&self, dir: PathBuf, payload: &Path) -> Bundle {
        let words = match (self.command, self.shape) {
            ("run", _) => "facts",
            ("create" | "start", _) => "facts -- pause",
            ("delete", Shape::Plain | Shape::Hooks | Shape::Systemd | Shape::Rdt) => "exit 0",
            _ => "ready -- pause",
        };
        let device = format!("/linux/netDevices/{}", device::NAME);
        let bundle = Bundle::new(dir.clone(), payload)
            .payload(words)
            .set("/linux/resources/unified", json!({ CREATED.0: CREATED.1 }));
        match self.shape {
            Shape::Plain | Shape::Overlay | Shape::Force | Shape::Descriptors => bundle,
            Shape::Rdt | Shape::RdtForce => {
                bundle.set("/linux/intelRdt", json!({ "enableMonitoring": true }))
            }
            Shape::Device => bundle.set(&device, json!({ "name": "eth%d" })),
            Shape::PodsDevice => {
                let pod = dir.with_file_name("pod");
                bundle
                    .set(&device, json!({ "name": "eth0" }))
                    .join("network", pod)
            }
            Shape::Systemd | Shape::SystemdForce => bundle.set("/linux/cgroupsPath", ""),
            Shape::Terminal => bundle.set("/process/terminal", true),
            Shape::UserNamespace => bundle.user_namespace(100_000, 65_536),
            Shape::Hooks => {
                let host = payload.to_str().unwrap_or_default();
                let on_host = [
                    "prestart",
                    "createRuntime",
                    "createContainer",
                    "poststart",
                    "poststop",
                ];
                let with = |bundle: Bundle, kind: &&str| bundle.hook(kind, &[host, "stdin"]);
                let bundle = on_host.iter().fold(bundle, with);
                bundle.hook("startContainer", &[PAYLOAD, "stdin"])
            }
        }
    }

    /// The words after the global options.
    pub fn words(&self, id: &str, place: &Place, is_husk: bool) -> Vec<String> {
        let mut words = vec![self.command.to_owned()];
        match self.command {
            "create" | "run" => words.extend(place.of_bundle(self.shape)),
            "update" if self.has_group() => {
                words.extend(["--l3-cache-schema".to_owned(), SCHEMA.to_owned()]);
            }
            "update" => {
                let resources = json!({ "unified": { UPDATED.0: UPDATED.1 } });
                let file = place.dir.join("resources.json");
                let _ = fs::write(&file, resources.to_string());
                words.extend(["--resources".to_owned(), file.display().to_string()]);
            }
            "delete" if self.is_by_force() => words.push("--force".into()),
            _ => {}
        }
        if self.shape == Shape::Descriptors {
            words.extend(lines::OPTIONS.map(str::to_owned));
            if is_husk {
                words.extend([
                    "--pidfd-socket".to_owned(),
                    place.pidfds.display().to_string(),
                ]);
            }
        }
        words.push(id.to_owned());
        match self.command {
            "exec" => words.extend([PAYLOAD.to_owned(), "facts".to_owned()]),
            "kill" => words.push("KILL".into()),
            _ => {}
        }
        words
    }
}

/// Where a scenario's files are.
pub struct Place {
    pub dir: PathBuf,
    pub bundle: PathBuf,
    pub console: PathBuf,
    pub pidfds: PathBuf,
}

impl Place {
    pub fn of_bundle(&self, shape: Shape) -> Vec<String> {
        let mut words = vec!["--bundle".to_owned(), self.bundle.display().to_string()];
        match shape {
            Shape::Overlay => words.push(format!("--overlay={}", self.upper().display())),
            Shape::Terminal => {
                words.extend([
                    "--console-socket".to_owned(),
                    self.console.display().to_string(),
                ]);
            }
            _ => {}
        }
        words
    }

    /// The upper layer, which isn't there before.
    pub fn upper(&self) -> PathBuf {
        self.dir.join("upper")
    }
}
