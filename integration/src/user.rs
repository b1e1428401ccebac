//! An ordinary user, for containers without root's privileges.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;

use crate::bundle::Bundle;
use crate::cgroup;
use crate::lab::Lab;

/// Nobody on the machine has it, and /etc/passwd doesn't know it unless [`Ranges`] say so.
pub const UID: u32 = 24_680;
/// First of the subordinate ids that [`Ranges`] give to the user.
pub const FIRST: u32 = 7_000_000;
const NAME: &str = "husk-suite-user";

/// Becomes the user, with no groups but its own.
pub fn become_user() -> Vec<String> {
    let uid = UID.to_string();
    let words = [
        "setpriv",
        "--reuid",
        &uid,
        "--regid",
        &uid,
        "--clear-groups",
    ];
    words.map(str::to_owned).into()
}

/// Gives a directory of the test to the user, and all directories below it: files are hard links.
pub fn give(dir: &Path) {
    chown(dir, Some(UID), Some(UID)).unwrap();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            give(&entry.path());
        }
    }
}

impl Bundle {
    /// For a user who has nothing but his own id: no path of a cgroup, no groups but one.
    pub fn rootless(self) -> Self {
        self.user_namespace(UID, 1)
            .set("/linux/cgroupsPath", "")
            .remove("/linux/resources")
            .change(|config| {
                for mount in config["mounts"].as_array_mut().unwrap() {
                    if let Some(options) = mount["options"].as_array_mut() {
                        options.retain(|option| option != "gid=5");
                    }
                }
            })
    }

    /// As [`Bundle::rootless`], with the ids of [`Ranges`] from 1 on.
    pub fn with_ranges(self) -> Self {
        let map = json!([
            { "containerID": 0, "hostID": UID, "size": 1 },
            { "containerID": 1, "hostID": FIRST, "size": 65536 },
        ]);
        self.rootless()
            .set("/linux/uidMappings", map.clone())
            .set("/linux/gidMappings", map)
    }
}

/// As long as it lives, the test's own /etc says that the user exists and has subordinate ids.
pub struct Ranges;

impl Ranges {
    pub fn new(lab: &Lab) -> Ranges {
        let upper = lab.path("etc");
        let work = lab.path("etc-work");
        fs::create_dir(&upper).unwrap();
        fs::create_dir(&work).unwrap();
        let append = |name: &str, line: String| {
            let old = fs::read_to_string(Path::new("/etc").join(name)).unwrap_or_default();
            fs::write(upper.join(name), old + &line).unwrap();
        };
        append("passwd", format!("{NAME}:x:{UID}:{UID}::/:/bin/sh\n"));
        append("subuid", format!("{NAME}:{FIRST}:65536\n"));
        append("subgid", format!("{NAME}:{FIRST}:65536\n"));
        let layers = format!(
            "lowerdir=/etc,upperdir={},workdir={}",
            upper.display(),
            work.display()
        );
        let none = MsFlags::empty();
        mount(
            Some("etc"),
            "/etc",
            Some("overlay"),
            none,
            Some(layers.as_str()),
        )
        .unwrap();
        Ranges
    }
}

impl Drop for Ranges {
    fn drop(&mut self) {
        let _ = umount2("/etc", MntFlags::MNT_DETACH);
    }
}

/// A cgroup that belongs to the user, as systemd delegates one; it is removed in the end.
pub struct Delegated {
    pub dir: PathBuf,
}

impl Delegated {
    pub fn new(lab: &Lab) -> Delegated {
        let dir = cgroup::path(&format!("{}-user", lab.id()));
        let session = dir.join("session");
        fs::create_dir(&dir).unwrap();
        cgroup::enable_all(&dir);
        fs::create_dir(&session).unwrap();
        for dir in [&dir, &session] {
            chown(dir, Some(UID), Some(UID)).unwrap();
            for file in ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
                chown(dir.join(file), Some(UID), Some(UID)).unwrap();
            }
        }
        Delegated { dir }
    }

    /// Words in front of a command that is to be in the user's session.
    pub fn enter(&self) -> Vec<String> {
        let procs = self.dir.join("session/cgroup.procs");
        let script = format!("echo $$ >{} && exec \"$@\"", procs.display());
        ["sh", "-c", &script, "sh"].map(str::to_owned).into()
    }

    /// The path of `name` in it, as `linux.cgroupsPath` has it.
    pub fn below(&self, name: &str) -> String {
        let dir = self.dir.strip_prefix(cgroup::MOUNT).unwrap();
        format!("/{}/{name}", dir.display())
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        let _ = cgroup::remove(&self.dir);
    }
}
