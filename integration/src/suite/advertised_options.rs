//! Every mount option that `features` advertises is used, and has its effect (spec digest, items 24
//! and 63).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

use super::mounts::{directory, has, mount_at};
use super::tests;
use crate::lab::Lab;
use crate::need::Need;

tests! {
    every_advertised_option_has_a_check.needs(&[Need::Husk]),
    flags_are_set_and_cleared_on_the_mount_alone.needs(&[Need::Husk]),
    recursive_flags_are_set_and_cleared_on_all_below.needs(&[Need::Husk]),
    recursive_flags_of_a_filesystem_are_applied.needs(&[Need::Husk]),
    superblock_options_reach_the_filesystem.needs(&[Need::Husk]),
    propagation_reaches_as_far_as_it_says.needs(&[Need::Husk]),
    options_without_an_effect_are_taken.needs(&[Need::Husk]),
    remount_changes_the_mount_and_not_its_source.needs(&[Need::Husk]),
    tmpcopyup_keeps_modes_owners_times_and_links.needs(&[Need::Husk]),
    idmap_is_advertised.needs(&[Need::Husk]),
}

/// An option, whether the source has all flags or none, and what mountinfo then says: `-x` for what
/// must not be there.
const FLAGS: [(&str, Source, &[&str]); 18] = [
    ("ro", Source::Plain, &["ro"]),
    ("rw", Source::Restricted, &["rw", "-ro"]),
    ("nosuid", Source::Plain, &["nosuid"]),
    ("suid", Source::Restricted, &["-nosuid"]),
    ("nodev", Source::Plain, &["nodev"]),
    ("dev", Source::Restricted, &["-nodev"]),
    ("noexec", Source::Plain, &["noexec"]),
    ("exec", Source::Restricted, &["-noexec"]),
    ("noatime", Source::Plain, &["noatime", "-relatime"]),
    ("atime", Source::Restricted, &["-noatime", "relatime"]),
    ("nodiratime", Source::Plain, &["nodiratime"]),
    ("diratime", Source::Restricted, &["-nodiratime"]),
    ("relatime", Source::Restricted, &["-noatime", "relatime"]),
    ("norelatime", Source::Restricted, &["-noatime", "relatime"]),
    (
        "strictatime",
        Source::Restricted,
        &["-noatime", "-relatime"],
    ),
    (
        "nostrictatime",
        Source::Restricted,
        &["-noatime", "relatime"],
    ),
    ("nosymfollow", Source::Plain, &["nosymfollow"]),
    ("symfollow", Source::Restricted, &["-nosymfollow"]),
];

/// On a tmpfs, with what mountinfo says of its superblock.
const SUPERBLOCK: [(&str, &str); 5] = [
    ("sync", "sync"),
    ("async", "-sync"),
    ("dirsync", "dirsync"),
    ("lazytime", "lazytime"),
    ("nolazytime", "-lazytime"),
];

const PROPAGATION: [(&str, &str); 4] = [
    ("private", "[]"),
    ("shared", "shared:"),
    ("slave", "master:"),
    ("unbindable", "unbindable"),
];

/// Understood, and nothing comes of them: see `rootfs/options.rs`.
const WITHOUT_EFFECT: [&str; 7] = [
    "defaults",
    "iversion",
    "noiversion",
    "loud",
    "silent",
    "mand",
    "nomand",
];

/// Each has a test of its own, here or in `mount_options` and `idmap`.
const OTHERS: [&str; 6] = ["bind", "rbind", "remount", "tmpcopyup", "idmap", "ridmap"];

#[derive(Clone, Copy, PartialEq)]
enum Source {
    Plain,
    Restricted,
}

fn features(lab: &Lab) -> Value {
    lab.bare(["features"]).run().ok().json()
}

fn every_advertised_option_has_a_check(lab: &Lab) {
    let features = features(lab);
    let advertised: BTreeSet<String> = features["mountOptions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|word| word.as_str().unwrap().to_owned())
        .collect();
    let mut checked: BTreeSet<String> = WITHOUT_EFFECT
        .into_iter()
        .chain(OTHERS)
        .map(String::from)
        .collect();
    for (word, ..) in FLAGS {
        checked.extend([word.to_owned(), format!("r{word}")]);
    }
    for (word, _) in PROPAGATION {
        checked.extend([word.to_owned(), format!("r{word}")]);
    }
    checked.extend(SUPERBLOCK.map(|(word, _)| word.to_owned()));
    assert_eq!(advertised, checked);
}

fn idmap_is_advertised(lab: &Lab) {
    let features = features(lab);
    assert_eq!(
        features["linux"]["mountExtensions"]["idmap"]["enabled"],
        true
    );
}

/// Two filesystems, one below the other, with all flags or none.
struct Tree(PathBuf);

impl Tree {
    fn new(lab: &Lab, kind: Source) -> Tree {
        let top = directory(lab);
        fill(&top);
        fs::create_dir(top.join("sub")).unwrap();
        fill(&top.join("sub"));
        let times = MsFlags::MS_STRICTATIME;
        // MS_NOSYMFOLLOW, which nix doesn't name.
        let restricted = MsFlags::MS_RDONLY
            | MsFlags::MS_NOSUID
            | MsFlags::MS_NODEV
            | MsFlags::MS_NOEXEC
            | MsFlags::MS_NOATIME
            | MsFlags::MS_NODIRATIME
            | MsFlags::from_bits_retain(256);
        let flags = if kind == Source::Plain {
            times
        } else {
            restricted
        };
        for dir in [top.clone(), top.join("sub")] {
            let flags = flags | MsFlags::MS_BIND | MsFlags::MS_REMOUNT;
            mount(None::<&str>, &dir, None::<&str>, flags, None::<&str>).unwrap();
        }
        Tree(top)
    }
}

fn fill(dir: &Path) {
    mount(
        Some("x"),
        dir,
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .unwrap();
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = umount2(&self.0.join("sub"), MntFlags::empty());
        let _ = umount2(&self.0, MntFlags::empty());
    }
}

#[track_caller]
fn assert_says(mount: &Value, expected: &[&str], option: &str) {
    for word in expected {
        match word.strip_prefix('-') {
            Some(absent) => assert!(!has(mount, absent), "{option}: {mount}"),
            None => assert!(has(mount, word), "{option}: {mount}"),
        }
    }
}

/// The same mounts, with these options and their flag by its name.
fn bind_all(lab: &Lab, prefix: &str, check: impl Fn(&Value, &str, &str, Source, &[&str])) {
    let plain = Tree::new(lab, Source::Plain);
    let restricted = Tree::new(lab, Source::Restricted);
    let mut bundle = lab.bundle();
    for (word, source, _) in FLAGS {
        let target = format!("tmp/{word}");
        let tree = if source == Source::Plain {
            &plain
        } else {
            &restricted
        };
        let option = format!("{prefix}{word}");
        bundle = bundle
            .dir(&target)
            .bind(&tree.0, &format!("/{target}"), &["rbind", &option]);
    }
    let facts = lab.facts(&bundle);
    for (word, source, expected) in FLAGS {
        check(&facts, word, &format!("/tmp/{word}"), source, expected);
    }
}

fn flags_are_set_and_cleared_on_the_mount_alone(lab: &Lab) {
    bind_all(lab, "", |facts, word, target, source, expected| {
        // Access times of a bind mount stay unless a mode is named.
        let expected = match word {
            "atime" | "norelatime" | "nostrictatime" => &["noatime"],
            "diratime" => &["nodiratime"],
            _ => expected,
        };
        assert_says(&mount_at(facts, target), expected, word);
        let below = mount_at(facts, &format!("{target}/sub"));
        let unchanged: &[&str] = match source {
            Source::Plain => &[
                "rw",
                "-nosuid",
                "-nodev",
                "-noexec",
                "-noatime",
                "-relatime",
            ],
            Source::Restricted => &[
                "ro",
                "nosuid",
                "nodev",
                "noexec",
                "noatime",
                "nodiratime",
                "nosymfollow",
            ],
        };
        assert_says(&below, unchanged, word);
    });
}

fn recursive_flags_are_set_and_cleared_on_all_below(lab: &Lab) {
    bind_all(lab, "r", |facts, word, target, _, expected| {
        assert_says(&mount_at(facts, target), expected, word);
        assert_says(&mount_at(facts, &format!("{target}/sub")), expected, word);
    });
}

/// They were lost once: `rro` on a tmpfs left it writable.
fn recursive_flags_of_a_filesystem_are_applied(lab: &Lab) {
    let set = [
        "rro",
        "rnosuid",
        "rnodev",
        "rnoexec",
        "rnoatime",
        "rnosymfollow",
    ];
    let mut bundle = lab.bundle();
    for option in set {
        bundle = bundle.dir(&format!("tmp/{option}")).mount(json!({
            "destination": format!("/tmp/{option}"), "type": "tmpfs", "source": "x",
            "options": [option],
        }));
    }
    let answers = lab.ask(bundle, "facts -- create /tmp/rro/x y");
    for option in set {
        let mount = mount_at(&answers[0], &format!("/tmp/{option}"));
        assert!(has(&mount, &option[1..]), "{option}: {mount}");
    }
    assert_eq!(answers[1]["error"], "EROFS");
}

fn superblock_options_reach_the_filesystem(lab: &Lab) {
    let mut bundle = lab.bundle();
    for (word, _) in SUPERBLOCK {
        bundle = bundle.dir(&format!("tmp/{word}")).mount(json!({
            "destination": format!("/tmp/{word}"), "type": "tmpfs", "source": "x",
            "options": [word],
        }));
    }
    let facts = lab.facts(&bundle);
    for (word, expected) in SUPERBLOCK {
        assert_says(
            &mount_at(&facts, &format!("/tmp/{word}")),
            &[expected],
            word,
        );
    }
}

fn propagation_reaches_as_far_as_it_says(lab: &Lab) {
    let source = Tree::new(lab, Source::Plain);
    let shared = MsFlags::MS_SHARED | MsFlags::MS_REC;
    mount(None::<&str>, &source.0, None::<&str>, shared, None::<&str>).unwrap();
    let mut bundle = lab.bundle();
    for (word, _) in PROPAGATION {
        for option in [word.to_owned(), format!("r{word}")] {
            let target = format!("tmp/{option}");
            bundle =
                bundle
                    .dir(&target)
                    .bind(&source.0, &format!("/{target}"), &["rbind", &option]);
        }
    }
    let facts = lab.facts(&bundle);
    let found = |target: String| mount_at(&facts, &target)["propagation"].to_string();
    for (word, expected) in PROPAGATION {
        let (one, all) = (
            found(format!("/tmp/{word}")),
            found(format!("/tmp/r{word}")),
        );
        assert!(one.contains(expected), "{word}: {one}");
        assert!(all.contains(expected), "r{word}: {all}");
        let below = found(format!("/tmp/r{word}/sub"));
        assert!(below.contains(expected), "r{word}, below: {below}");
        // What isn't named is as in every container: the host reaches in, nothing reaches out.
        let below = found(format!("/tmp/{word}/sub"));
        assert!(below.contains("master:"), "{word}, below: {below}");
        assert!(!below.contains("shared:"), "{word}, below: {below}");
    }
}

fn options_without_an_effect_are_taken(lab: &Lab) {
    let options: Vec<&str> = WITHOUT_EFFECT.to_vec();
    let mount =
        json!({ "destination": "/tmp", "type": "tmpfs", "source": "x", "options": options });
    let source = directory(lab);
    let mut bind = vec!["bind"];
    bind.extend(WITHOUT_EFFECT);
    let bundle = lab
        .bundle()
        .dir("mnt")
        .mount(mount)
        .bind(&source, "/mnt", &bind);
    let answers = lab.ask(bundle, "create /tmp/x y -- create /mnt/x y");
    assert_eq!(answers, [json!(true), json!(true)]);
}

fn remount_changes_the_mount_and_not_its_source(lab: &Lab) {
    let source = directory(lab);
    let remount = json!({ "destination": "/tmp", "source": "x", "type": "none",
        "options": ["bind", "remount", "ro", "nodev"] });
    let bundle = lab
        .bundle()
        .dir("mnt")
        .bind(&source, "/tmp", &["bind"])
        .mount(remount)
        .bind(&source, "/mnt", &["bind"]);
    let answers = lab.ask(bundle, "facts -- create /tmp/x y -- create /mnt/x y");
    assert_says(&mount_at(&answers[0], "/tmp"), &["ro", "nodev"], "remount");
    assert_eq!(answers[1]["error"], "EROFS");
    assert_eq!(answers[2], true);
}

fn tmpcopyup_keeps_modes_owners_times_and_links(lab: &Lab) {
    use std::os::unix::fs::{PermissionsExt, chown};
    let mount = json!({ "destination": "/etc", "type": "tmpfs", "source": "tmpfs",
        "options": ["tmpcopyup", "ro"] });
    let bundle = lab
        .bundle()
        .dir("etc/open")
        .file("etc/open/secret", "1")
        .link("etc/dangling", "/no/where");
    let etc = bundle.rootfs().join("etc");
    fs::set_permissions(etc.join("open"), fs::Permissions::from_mode(0o777)).unwrap();
    fs::set_permissions(etc.join("open/secret"), fs::Permissions::from_mode(0o4640)).unwrap();
    chown(etc.join("open"), Some(5), Some(6)).unwrap();
    std::os::unix::fs::lchown(etc.join("dangling"), Some(7), Some(8)).unwrap();
    fs::File::options()
        .write(true)
        .open(etc.join("open/secret"))
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000))
        .unwrap();
    let attribute = xattr(&etc.join("open/secret"));
    let words = "stat /etc/open -- stat /etc/open/secret -- stat /etc/dangling -- \
        readlink /etc/dangling -- create /etc/x y -- getxattr /etc/open/secret user.test";
    let answers = lab.ask(bundle.mount(mount), words);
    let of = |n: usize| ["mode", "uid", "gid"].map(|key| answers[n][key].as_u64().unwrap());
    assert_eq!(of(0), [0o777, 5, 6]);
    assert_eq!(of(1), [0o4640, 0, 0]);
    assert_eq!(answers[1]["mtime"], 1_000_000);
    assert_eq!(of(2)[1..], [7, 8]);
    assert_eq!(answers[3], "/no/where");
    assert_eq!(answers[4]["error"], "EROFS");
    if attribute {
        assert_eq!(answers[5], "kept");
    }
}

/// Whether the file could be given the attribute `user.test`.
fn xattr(path: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap();
    let value = b"kept";
    // SAFETY: valid C strings, and a value of this length.
    let done = unsafe {
        libc::setxattr(
            path.as_ptr(),
            c"user.test".as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    };
    done == 0
}
