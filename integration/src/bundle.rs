//! A bundle: a root filesystem with the payload and a config.json that a test changes.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

pub const PAYLOAD: &str = "/bin/payload";

pub struct Bundle {
    pub dir: PathBuf,
    pub config: Value,
    raw: Option<Vec<u8>>,
}

impl Bundle {
    /// `payload` is hard-linked in: it must be on the same filesystem.
    pub fn new(dir: PathBuf, payload: &Path) -> Self {
        let rootfs = dir.join("rootfs");
        for name in ["bin", "dev", "etc", "proc", "run", "sys", "tmp"] {
            fs::create_dir_all(rootfs.join(name)).unwrap();
        }
        fs::hard_link(payload, rootfs.join("bin/payload")).unwrap();
        Bundle {
            dir,
            config: base(),
            raw: None,
        }
    }

    /// The same directory, for another change of the config.
    pub fn another(&self) -> Self {
        Bundle {
            dir: self.dir.clone(),
            config: self.config.clone(),
            raw: self.raw.clone(),
        }
    }

    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    /// `process.args`: the payload with these words, parted at blanks.
    pub fn payload(self, words: &str) -> Self {
        let mut args = vec![PAYLOAD];
        args.extend(words.split_whitespace());
        self.args(&args)
    }

    pub fn args(self, args: &[&str]) -> Self {
        self.set("/process/args", json!(args))
    }

    /// Sets what the pointer (RFC 6901) points to and makes the objects on the way;
    /// `-` after an array appends to it.
    #[track_caller]
    pub fn set(mut self, pointer: &str, value: impl Into<Value>) -> Self {
        let mut place = &mut self.config;
        for key in pointer.split('/').skip(1) {
            let key = key.replace("~1", "/").replace("~0", "~");
            if key == "-" || place.is_array() {
                if place.is_null() {
                    *place = json!([]);
                }
                let array = place.as_array_mut().expect("an array");
                let index = if key == "-" {
                    array.len()
                } else {
                    key.parse().unwrap()
                };
                if index == array.len() {
                    array.push(Value::Null);
                }
                place = &mut array[index];
            } else {
                if place.is_null() {
                    *place = json!({});
                }
                place = place
                    .as_object_mut()
                    .expect("an object")
                    .entry(key)
                    .or_insert(Value::Null);
            }
        }
        *place = value.into();
        self
    }

    #[track_caller]
    pub fn remove(mut self, pointer: &str) -> Self {
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        match self.config.pointer_mut(parent) {
            Some(Value::Object(object)) => drop(object.remove(key)),
            Some(Value::Array(array)) => drop(array.remove(key.parse().unwrap())),
            _ => panic!("nothing at {parent}"),
        }
        self
    }

    pub fn change(mut self, how: impl FnOnce(&mut Value)) -> Self {
        how(&mut self.config);
        self
    }

    /// This instead of a config.json made from `config`.
    pub fn raw(mut self, text: impl Into<Vec<u8>>) -> Self {
        self.raw = Some(text.into());
        self
    }

    pub fn mount(self, mount: Value) -> Self {
        self.set("/mounts/-", mount)
    }

    pub fn bind(self, source: impl AsRef<Path>, destination: &str, options: &[&str]) -> Self {
        self.mount(json!({
            "destination": destination,
            "source": source.as_ref(),
            "type": "none",
            "options": options,
        }))
    }

    /// All mounts but those for these destinations go.
    pub fn only_mounts(self, destinations: &[&str]) -> Self {
        self.change(|config| {
            config["mounts"]
                .as_array_mut()
                .unwrap()
                .retain(|m| destinations.contains(&m["destination"].as_str().unwrap_or("")));
        })
    }

    pub fn without_namespace(self, kind: &str) -> Self {
        self.change(|config| {
            namespaces(config).retain(|n| n["type"] != kind);
        })
    }

    pub fn namespace(self, kind: &str) -> Self {
        self.without_namespace(kind)
            .set("/linux/namespaces/-", json!({ "type": kind }))
    }

    pub fn join(self, kind: &str, path: impl AsRef<Path>) -> Self {
        let namespace = json!({ "type": kind, "path": path.as_ref() });
        self.without_namespace(kind)
            .set("/linux/namespaces/-", namespace)
    }

    /// A user namespace in which 0.. is `host`.. for `size` ids.
    pub fn user_namespace(self, host: u32, size: u32) -> Self {
        let map = json!([{ "containerID": 0, "hostID": host, "size": size }]);
        self.namespace("user")
            .set("/linux/uidMappings", map.clone())
            .set("/linux/gidMappings", map)
    }

    pub fn capabilities(self, names: &[&str]) -> Self {
        let mut this = self;
        for set in ["bounding", "effective", "permitted"] {
            this = this.set(&format!("/process/capabilities/{set}"), json!(names));
        }
        this
    }

    pub fn writable(self) -> Self {
        self.set("/root/readonly", false)
    }

    pub fn hook(self, kind: &str, args: &[&str]) -> Self {
        self.set(
            &format!("/hooks/{kind}/-"),
            json!({ "path": args[0], "args": args }),
        )
    }

    /// A file in the root filesystem, with the directories on the way.
    pub fn file(self, path: &str, content: &str) -> Self {
        let path = self.rootfs().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    pub fn executable(self, path: &str, content: &str) -> Self {
        let this = self.file(path, content);
        set_mode(&this.rootfs().join(path), 0o755);
        this
    }

    pub fn dir(self, path: &str) -> Self {
        fs::create_dir_all(self.rootfs().join(path)).unwrap();
        self
    }

    pub fn link(self, path: &str, target: &str) -> Self {
        let path = self.rootfs().join(path);
        let _ = fs::remove_dir(&path);
        symlink(target, path).unwrap();
        self
    }

    /// Writes config.json. Without a path of its own the cgroup is named `cgroup`.
    pub fn write(&self, cgroup: &str) {
        let file = self.dir.join("config.json");
        let text = match &self.raw {
            Some(raw) => raw.clone(),
            None => {
                let mut config = self.config.clone();
                if config["linux"].is_object() && config["linux"].get("cgroupsPath").is_none() {
                    config["linux"]["cgroupsPath"] = json!(format!("/{cgroup}"));
                }
                serde_json::to_vec_pretty(&config).unwrap()
            }
        };
        fs::write(file, text).unwrap();
    }
}

fn namespaces(config: &mut Value) -> &mut Vec<Value> {
    config["linux"]["namespaces"]
        .as_array_mut()
        .expect("linux.namespaces")
}

pub fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// What `runc spec` writes, without a terminal.
fn base() -> Value {
    let caps = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": [PAYLOAD, "facts"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                "bounding": caps, "effective": caps, "permitted": caps
            },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "inside",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
              "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
              "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs",
              "options": ["nosuid", "noexec", "nodev", "ro"] },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
              "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] }
        ],
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" },
                { "type": "uts" }, { "type": "mount" }, { "type": "cgroup" }
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware",
                "/proc/scsi"
            ],
            "readonlyPaths": [
                "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"
            ]
        }
    })
}
