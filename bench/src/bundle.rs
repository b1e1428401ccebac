//! The config of `runc spec`, the same for all, and for the floor what it reads in its place.

use std::fs;
use std::path::PathBuf;

use husk_integration::profile::{self, Host};
use serde_json::{Value, json};

use crate::site::Site;

#[derive(Clone, Copy, PartialEq)]
pub enum Filter {
    None,
    /// Docker's default profile.
    Docker,
}

/// What a bundle has more of.
#[derive(Clone, Copy, Default)]
pub struct Extra {
    /// Bind mounts.
    pub mounts: usize,
    /// Environment variables.
    pub variables: usize,
    /// Layers over the root filesystem, in husk's annotations.
    pub layers: usize,
    /// Lines of Docker's profile: a call that it allows in each.
    pub calls: usize,
}

/// A bundle of this id. One id has one bundle: engines do it so, and the cgroup has the id's name.
pub fn make(site: &Site, id: &str, program: &str, filter: Filter) -> PathBuf {
    make_with(site, id, program, filter, Extra::default())
}

pub fn make_with(site: &Site, id: &str, program: &str, filter: Filter, extra: Extra) -> PathBuf {
    let dir = site.dir.join("bundles").join(id);
    if dir.is_dir() {
        let _ = fs::remove_dir_all(&dir);
    }
    let written = fs::create_dir_all(&dir)
        .and_then(|()| site.link_rootfs(&dir))
        .and_then(|()| fs::write(dir.join("program"), program))
        .and_then(|()| {
            let config = config(site, id, program, filter, extra);
            fs::write(dir.join("config.json"), config.to_string())
        })
        .and_then(|()| match filter {
            Filter::Docker => fs::write(dir.join("filter"), linear_filter()),
            Filter::None => Ok(()),
        });
    if let Err(error) = written {
        eprintln!("bench: {}: {error}", dir.display());
    }
    dir
}

fn config(site: &Site, id: &str, program: &str, filter: Filter, extra: Extra) -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let mut config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": [program],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true,
        },
        "root": {"path": site.rootfs, "readonly": true},
        "hostname": "bench",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
             "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
             "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs",
             "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
             "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]},
        ],
        "linux": {
            "cgroupsPath": format!("/bench-{id}"),
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"},
                {"type": "mount"}, {"type": "cgroup"},
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    });
    if let Some(list) = config["mounts"].as_array_mut() {
        for index in 0..extra.mounts {
            list.push(json!({
                "destination": format!("/many/{index}"), "type": "bind",
                "source": site.dir.join("source"), "options": ["bind", "ro"],
            }));
        }
    }
    if let Some(list) = config["process"]["env"].as_array_mut() {
        list.extend(
            (0..extra.variables).map(|index| json!(format!("VARIABLE_{index}=value {index}"))),
        );
    }
    if extra.layers > 0 {
        let layers: Vec<String> = (0..extra.layers)
            .map(|index| site.layer(index).display().to_string())
            .collect();
        config["annotations"] = json!({
            "run.husk.overlay.lower": layers.join(":"),
            "run.husk.overlay.upper": "tmpfs",
        });
    }
    if filter == Filter::Docker || extra.calls > 0 {
        config["linux"]["seccomp"] = docker();
    }
    if extra.calls > 0
        && let Some(names) = config["linux"]["seccomp"]["syscalls"][0]["names"].as_array_mut()
    {
        names.truncate(extra.calls);
    }
    config
}

/// How long Docker's config is, a value a line, as it is shown.
pub fn docker_lines(site: &Site) -> usize {
    let config = config(site, "lines", "/bin/true", Filter::Docker, Extra::default());
    let text = serde_json::to_string_pretty(&config).unwrap_or_default();
    text.lines().count()
}

/// The profile as dockerd hands it to a runtime on this machine.
fn docker() -> Value {
    let host = Host {
        architecture: if cfg!(target_arch = "aarch64") {
            "arm64"
        } else {
            "amd64"
        },
        capabilities: &["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"],
        kernel: (6, 18),
    };
    match profile::resolve(profile::DOCKER, &host) {
        Ok(profile) => serde_json::to_value(profile).unwrap_or_default(),
        Err(error) => {
            eprintln!("bench: Docker's profile: {error}");
            Value::Null
        }
    }
}

/// For the floor: as long as what libseccomp makes of Docker's profile, and in the same shape: for each of
/// two architectures one call after the other. The calls that the payload makes are among the allowed.
fn linear_filter() -> Vec<u8> {
    const NATIVE: u32 = if cfg!(target_arch = "aarch64") {
        0xc000_00b7
    } else {
        0xc000_003e
    };
    const COMPATIBLE: u32 = if cfg!(target_arch = "aarch64") {
        0x4000_0028
    } else {
        0x4000_0003
    };
    const LOAD: u16 = 0x20;
    const EQUAL: u16 = 0x15;
    const JUMP: u16 = 0x05;
    const RETURN: u16 = 0x06;
    const CALLS: u32 = 253;
    let statement = |code: u16, jumps: [u8; 2], value: u32| {
        let mut bytes = [0; 8];
        bytes[..2].copy_from_slice(&code.to_ne_bytes());
        bytes[2..4].copy_from_slice(&jumps);
        bytes[4..].copy_from_slice(&value.to_ne_bytes());
        bytes
    };
    let mut code = vec![statement(LOAD, [0, 0], 4)];
    for architecture in [NATIVE, COMPATIBLE] {
        code.push(statement(EQUAL, [1, 0], architecture));
        code.push(statement(JUMP, [0, 0], 2 * CALLS + 2));
        code.push(statement(LOAD, [0, 0], 0));
        for number in 0..CALLS {
            code.push(statement(EQUAL, [0, 1], number));
            code.push(statement(RETURN, [0, 0], 0x7fff_0000));
        }
        code.push(statement(RETURN, [0, 0], 0x0005_0001));
    }
    code.push(statement(RETURN, [0, 0], 0x0005_0001));
    code.concat()
}
