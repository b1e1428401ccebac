//! What there is on the host before a case, and what is there too much after it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use husk_integration::{cgroup, mountinfo};
use nix::mount::{MntFlags, umount2};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thing {
    Process(i32, String),
    Cgroup(PathBuf),
    Mount(String),
    File(PathBuf),
    Device(String),
}

impl std::fmt::Display for Thing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Thing::Process(_, words) => write!(f, "process {words}"),
            Thing::Cgroup(path) => write!(f, "cgroup {}", path.display()),
            Thing::Mount(target) => write!(f, "mount {target}"),
            Thing::File(path) => write!(f, "file {}", path.display()),
            Thing::Device(name) => write!(f, "network device {name}"),
        }
    }
}

pub struct Ground {
    /// Below these no file may appear.
    places: Vec<PathBuf>,
    /// Only what can come of a case counts: other things come and go on a whole machine.
    crowded: bool,
    before: BTreeSet<Thing>,
}

/// In the names of all containers of a sweep, of their scopes and cgroups.
pub const MARK: &str = "case-";

impl Ground {
    pub fn new(places: &[&Path], crowded: bool) -> Ground {
        let mut ground = Ground {
            places: places.iter().map(|path| (*path).to_owned()).collect(),
            crowded,
            before: BTreeSet::new(),
        };
        ground.before = ground.look();
        ground
    }

    fn look(&self) -> BTreeSet<Thing> {
        let mut things = BTreeSet::new();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let counts = |name: &str| !self.crowded || name.contains(MARK);
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let number = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            let Some(pid) = number else { continue };
            let read = |name: &str| fs::read_to_string(entry.path().join(name)).unwrap_or_default();
            // One that is dead and not reaped yet, or was so meanwhile, isn't there.
            let stat = read("stat");
            let state = stat
                .rsplit(')')
                .next()
                .and_then(|rest| rest.split_whitespace().next());
            if matches!(state, Some("Z" | "X") | None) {
                continue;
            }
            let cgroup = read("cgroup");
            if cgroup != own && !counts(&cgroup) {
                continue;
            }
            things.insert(Thing::Process(pid, read("cmdline").replace('\0', " ")));
        }
        below(Path::new(cgroup::MOUNT), true, &mut |path| {
            if counts(&path.to_string_lossy()) {
                things.insert(Thing::Cgroup(path));
            }
        });
        for place in &self.places {
            below(place, false, &mut |path| {
                if path.starts_with("/tmp") || counts(&path.to_string_lossy()) {
                    things.insert(Thing::File(path));
                }
            });
        }
        let devices = fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
        let names = devices.lines().filter_map(|line| line.split_once(':'));
        things.extend(names.map(|(name, _)| Thing::Device(name.trim().to_owned())));
        things.extend(mountinfo::targets().into_iter().map(Thing::Mount));
        things
    }

    /// What is there that wasn't before, unless it goes by itself within that time.
    pub fn left(&self, within: Duration) -> Vec<Thing> {
        let deadline = Instant::now() + within;
        loop {
            let left: Vec<Thing> = self.look().difference(&self.before).cloned().collect();
            if left.is_empty() || Instant::now() > deadline {
                return left;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whatever the runtime can't.
    pub fn clean(&self) {
        for _ in 0..5 {
            let left = self.left(Duration::ZERO);
            if left.is_empty() {
                return;
            }
            for thing in left.iter().rev() {
                match thing {
                    Thing::Process(pid, _) => super::ptrace::kill(*pid),
                    Thing::Cgroup(path) => drop(cgroup::remove(path)),
                    Thing::Mount(target) => drop(umount2(target.as_str(), MntFlags::MNT_DETACH)),
                    Thing::Device(name) => {
                        let words = ["link", "delete", name];
                        let _ = std::process::Command::new("ip").args(words).status();
                    }
                    Thing::File(path) => {
                        let _ = fs::remove_dir_all(path).or_else(|_| fs::remove_file(path));
                    }
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn below(dir: &Path, directories: bool, found: &mut impl FnMut(PathBuf)) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_directory {
            below(&path, directories, found);
        }
        if is_directory || !directories {
            found(path);
        }
    }
}
