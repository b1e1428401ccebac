//! The options of mounts (spec digest, items 24 to 26).

use std::fs;
use std::path::PathBuf;

use nix::mount::{MsFlags, mount, umount};
use serde_json::{Value, json};

use super::mounts::{directory, has, mount_at};
use super::tests;
use crate::lab::Lab;
use crate::need::Need;

tests! {
    every_flag_of_a_bind_mount_is_applied,
    every_flag_of_a_filesystem_is_applied,
    clearing_flags_clear_what_the_source_had,
    the_last_of_two_contrary_options_wins,
    propagation_options_are_applied,
    recursive_options_reach_submounts,
    plain_bind_leaves_submounts_out_and_rbind_takes_them,
    readonly_bind_of_a_tree_leaves_submounts_writable,
    unknown_options_are_filesystem_data,
    tmpfs_takes_size_and_mode,
    tmpcopyup_copies_what_was_there.needs(&[Need::Husk]),
    proc_options_are_taken,
    many_lines_of_mount_data_work,
}

/// A tmpfs of the host's with these flags; the caller unmounts it.
fn filesystem(lab: &Lab, flags: MsFlags) -> PathBuf {
    let dir = directory(lab);
    mount(Some("x"), &dir, Some("tmpfs"), flags, None::<&str>).unwrap();
    dir
}

/// What each option makes mountinfo say; `-x` for an option that must not be there.
const FLAGS: [(&str, &str); 24] = [
    ("ro", "ro"),
    ("rw", "rw"),
    ("nosuid", "nosuid"),
    ("suid", "-nosuid"),
    ("nodev", "nodev"),
    ("dev", "-nodev"),
    ("noexec", "noexec"),
    ("exec", "-noexec"),
    ("noatime", "noatime"),
    ("atime", "-noatime"),
    ("nodiratime", "nodiratime"),
    ("diratime", "-nodiratime"),
    ("relatime", "relatime"),
    ("norelatime", "-noatime"),
    ("strictatime", "-relatime"),
    ("nostrictatime", "-noatime"),
    ("nosymfollow", "nosymfollow"),
    ("symfollow", "-nosymfollow"),
    ("rbind", "rw"),
    ("bind", "rw"),
    ("iversion", "rw"),
    ("noiversion", "rw"),
    ("loud", "rw"),
    ("silent", "rw"),
];

fn check_flags(lab: &Lab, flags: &[(&str, &str)], make: impl Fn(&str) -> Value) {
    let mut bundle = lab.bundle();
    for (n, (option, _)) in flags.iter().enumerate() {
        let mut mount = make(option);
        mount["destination"] = json!(format!("/tmp/{n}"));
        bundle = bundle.dir(&format!("tmp/{n}")).mount(mount);
    }
    let facts = lab.facts(&bundle);
    for (n, (option, expected)) in flags.iter().enumerate() {
        let mount = mount_at(&facts, &format!("/tmp/{n}"));
        match expected.strip_prefix('-') {
            Some(absent) => assert!(!has(&mount, absent), "{option}: {mount}"),
            None => assert!(has(&mount, expected), "{option}: {mount}"),
        }
    }
}

fn every_flag_of_a_bind_mount_is_applied(lab: &Lab) {
    let source = directory(lab);
    let husk = lab.is_husk();
    let flags: Vec<_> = FLAGS
        .into_iter()
        .filter(|(o, _)| husk || !o.contains("symfollow"))
        .collect();
    check_flags(
        lab,
        &flags,
        |option| json!({ "type": "none", "source": source, "options": ["bind", option] }),
    );
}

fn every_flag_of_a_filesystem_is_applied(lab: &Lab) {
    let mut flags: Vec<_> = FLAGS
        .into_iter()
        .filter(|(o, _)| !o.ends_with("bind"))
        .collect();
    flags.extend([("sync", "sync"), ("async", "-sync"), ("dirsync", "dirsync")]);
    flags.extend([
        ("lazytime", "lazytime"),
        ("nolazytime", "-lazytime"),
        ("defaults", "rw"),
    ]);
    flags.extend([("mand", "rw"), ("nomand", "rw")]);
    if !lab.is_husk() {
        let unknown = [
            "symfollow",
            "nosymfollow",
            "lazytime",
            "nolazytime",
            "silent",
            "loud",
        ];
        flags.retain(|(option, _)| !unknown.contains(option));
    }
    check_flags(
        lab,
        &flags,
        |option| json!({ "type": "tmpfs", "source": "tmpfs", "options": [option] }),
    );
}

fn clearing_flags_clear_what_the_source_had(lab: &Lab) {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_NOATIME;
    let source = filesystem(lab, flags);
    let facts = lab.facts(
        &lab.bundle()
            .dir("tmp/plain")
            .dir("tmp/cleared")
            .bind(&source, "/tmp/plain", &["bind"])
            .bind(
                &source,
                "/tmp/cleared",
                &["bind", "suid", "dev", "exec", "relatime"],
            ),
    );
    let plain = mount_at(&facts, "/tmp/plain");
    let cleared = mount_at(&facts, "/tmp/cleared");
    for option in ["nosuid", "nodev", "noexec", "noatime"] {
        assert!(has(&plain, option), "{option}: {plain}");
        assert!(!has(&cleared, option), "{option}: {cleared}");
    }
    umount(&source).unwrap();
}

fn the_last_of_two_contrary_options_wins(lab: &Lab) {
    let source = directory(lab);
    let facts = lab.facts(
        &lab.bundle()
            .dir("tmp/a")
            .dir("tmp/b")
            .bind(&source, "/tmp/a", &["bind", "ro", "rw", "noexec", "exec"])
            .bind(&source, "/tmp/b", &["bind", "rw", "ro", "exec", "noexec"]),
    );
    let (a, b) = (mount_at(&facts, "/tmp/a"), mount_at(&facts, "/tmp/b"));
    assert!(has(&a, "rw") && !has(&a, "noexec"), "{a}");
    assert!(has(&b, "ro") && has(&b, "noexec"), "{b}");
}

fn propagation_options_are_applied(lab: &Lab) {
    let source = filesystem(lab, MsFlags::empty());
    mount(
        None::<&str>,
        &source,
        None::<&str>,
        MsFlags::MS_SHARED,
        None::<&str>,
    )
    .unwrap();
    let options = [
        "private",
        "rprivate",
        "shared",
        "rshared",
        "slave",
        "rslave",
        "unbindable",
        "runbindable",
    ];
    let mut bundle = lab.bundle();
    for option in options {
        let target = format!("tmp/{option}");
        bundle = bundle
            .dir(&target)
            .bind(&source, &format!("/{target}"), &["bind", option]);
    }
    let facts = lab.facts(&bundle);
    for option in options {
        let mount = mount_at(&facts, &format!("/tmp/{option}"));
        let found = mount["propagation"].to_string();
        let expected = match option.trim_start_matches('r') {
            "private" => "[]",
            "shared" => "shared:",
            "slave" => "master:",
            _ => "unbindable",
        };
        assert!(found.contains(expected), "{option}: {found}");
    }
    umount(&source).unwrap();
}

fn recursive_options_reach_submounts(lab: &Lab) {
    let source = filesystem(lab, MsFlags::empty());
    let sub = source.join("sub");
    fs::create_dir(&sub).unwrap();
    mount(
        Some("y"),
        &sub,
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .unwrap();
    let options = [
        "rro",
        "rnosuid",
        "rnodev",
        "rnoexec",
        "rnoatime",
        "rnodiratime",
    ];
    let mut bundle = lab.bundle();
    for option in options {
        let target = format!("tmp/{option}");
        bundle = bundle
            .dir(&target)
            .bind(&source, &format!("/{target}"), &["rbind", option]);
    }
    let facts = lab.facts(&bundle);
    for option in options {
        for target in [format!("/tmp/{option}"), format!("/tmp/{option}/sub")] {
            let mount = mount_at(&facts, &target);
            assert!(has(&mount, &option[1..]), "{option}: {mount}");
        }
    }
    umount(&sub).unwrap();
    umount(&source).unwrap();
}

/// A directory with another filesystem mounted below it.
fn nested(lab: &Lab) -> PathBuf {
    let source = directory(lab);
    let sub = source.join("sub");
    fs::create_dir(&sub).unwrap();
    mount(
        Some("y"),
        &sub,
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .unwrap();
    fs::write(sub.join("file"), "x").unwrap();
    source
}

fn plain_bind_leaves_submounts_out_and_rbind_takes_them(lab: &Lab) {
    let source = nested(lab);
    let bundle = lab
        .bundle()
        .dir("tmp/bind")
        .dir("tmp/rbind")
        .bind(&source, "/tmp/bind", &["bind"])
        .bind(&source, "/tmp/rbind", &["rbind"]);
    let answers = lab.ask(bundle, "ls /tmp/bind/sub -- ls /tmp/rbind/sub");
    assert_eq!(answers, [json!([]), json!(["file"])]);
    umount(&source.join("sub")).unwrap();
}

fn readonly_bind_of_a_tree_leaves_submounts_writable(lab: &Lab) {
    let source = nested(lab);
    let bundle = lab.bundle().bind(&source, "/tmp", &["rbind", "ro"]);
    let answers = lab.ask(bundle, "create /tmp/x y -- create /tmp/sub/x y");
    assert_eq!(answers[0]["error"], "EROFS");
    assert_eq!(answers[1], true);
    umount(&source.join("sub")).unwrap();
}

fn unknown_options_are_filesystem_data(lab: &Lab) {
    let mount = json!({ "destination": "/tmp", "type": "tmpfs", "source": "named",
        "options": ["nosuid", "size=4096k", "nr_inodes=100", "mode=0700"] });
    let facts = lab.facts(&lab.bundle().mount(mount));
    let mount = mount_at(&facts, "/tmp");
    assert_eq!(mount["source"], "named");
    ["size=4096k", "nr_inodes=100", "mode=700", "nosuid"]
        .iter()
        .for_each(|option| assert!(has(&mount, option), "{option}: {mount}"));
}

fn tmpfs_takes_size_and_mode(lab: &Lab) {
    let mount = json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs",
        "options": ["size=1m", "mode=1770", "uid=5", "gid=6"] });
    let answers = lab.ask(lab.bundle().mount(mount), "statfs /tmp -- stat /tmp");
    let size = |key: &str| answers[0][key].as_u64().unwrap();
    assert_eq!(size("blocks") * size("block_size"), 1 << 20);
    let stat = &answers[1];
    assert_eq!(
        (&stat["mode"], &stat["uid"], &stat["gid"]),
        (&json!(0o1770), &json!(5), &json!(6))
    );
}

fn tmpcopyup_copies_what_was_there(lab: &Lab) {
    let mount = json!({ "destination": "/etc", "type": "tmpfs", "source": "tmpfs",
        "options": ["tmpcopyup", "size=1m"] });
    let bundle = lab
        .bundle()
        .file("etc/a", "1")
        .file("etc/sub/b", "2")
        .link("etc/l", "a")
        .mount(mount);
    let rootfs = bundle.rootfs();
    let words = "cat /etc/a -- cat /etc/sub/b -- readlink /etc/l -- write /etc/a 3 -- cat /etc/a";
    let answers = lab.ask(bundle, words);
    assert_eq!(
        answers,
        [json!("1"), json!("2"), json!("a"), json!(true), json!("3")]
    );
    assert_eq!(fs::read_to_string(rootfs.join("etc/a")).unwrap(), "1");
}

fn proc_options_are_taken(lab: &Lab) {
    let bundle = lab.bundle().change(|config| {
        config["mounts"][0]["options"] = json!(["nosuid", "nodev", "noexec", "hidepid=2"]);
    });
    let mount = mount_at(&lab.facts(&bundle), "/proc");
    let hidden = has(&mount, "hidepid=2") || has(&mount, "hidepid=invisible");
    assert!(hidden && has(&mount, "noexec"), "{mount}");
}

fn many_lines_of_mount_data_work(lab: &Lab) {
    let sizes: Vec<String> = (0..200).map(|n| format!("size={}k", 100 + n)).collect();
    let mount =
        json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": sizes });
    assert!(has(
        &mount_at(&lab.facts(&lab.bundle().mount(mount)), "/tmp"),
        "size=300k"
    ));
}
