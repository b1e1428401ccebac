//! What a bind mount keeps of its source's flags, without and with a user namespace (item 24 of the
//! spec digest; the same questions as runc's mounts_sshfs.bats and userns.bats ask).

use std::fs;
use std::path::PathBuf;

use nix::mount::{MsFlags, mount, umount};
use serde_json::json;

use super::mounts::{directory, has, mount_at};
use super::tests;
use crate::bundle::Bundle;
use crate::lab::Lab;
use crate::need::Need;

tests! {
    a_bind_without_options_keeps_all_flags,
    one_flag_clears_all_that_are_not_named.needs(&[Need::Husk]),
    filesystem_data_of_a_bind_is_ignored_with_a_warning.needs(&[Need::Husk]),
    no_flag_is_cleared_by_other_options.needs(&[Need::Husk]),
    access_times_change_only_to_a_mode_that_is_named.needs(&[Need::Husk]),
    recursive_flags_outlast_flags_of_the_mount_alone.needs(&[Need::Husk]),
    a_user_namespace_keeps_locked_flags_that_are_not_named.needs(&[Need::Husk]),
    a_user_namespace_lets_access_times_be_negated_without_effect.needs(&[Need::Husk]),
    a_user_namespace_keeps_flags_of_a_source_inside.needs(&[Need::Husk]),
    a_user_namespace_keeps_all_flags.needs(&[Need::Husk]),
    a_user_namespace_lets_no_locked_flag_be_cleared.needs(&[Need::Husk]),
    a_user_namespace_lets_no_access_time_be_changed.needs(&[Need::Husk]),
    a_user_namespace_lets_flags_be_added_and_symfollow_be_cleared.needs(&[Need::Husk]),
    clearing_what_is_not_there_is_no_error_in_a_user_namespace.needs(&[Need::Husk]),
    the_root_of_a_user_namespace_cannot_unlock_mounts.needs(&[Need::Husk]),
    the_root_of_a_user_namespace_cannot_look_below_mounts.needs(&[Need::Husk]),
    a_shared_mount_of_a_user_namespace_does_not_reach_the_host.needs(&[Need::Husk]),
    sources_out_of_the_containers_reach_are_mounted_in_a_user_namespace.needs(&[Need::Husk]),
}

const ALL: [&str; 7] = [
    "ro",
    "nosuid",
    "nodev",
    "noexec",
    "noatime",
    "nodiratime",
    "nosymfollow",
];

/// A filesystem of the host's, mounted with these flags.
struct Source(PathBuf);

impl Source {
    fn new(lab: &Lab, flags: MsFlags) -> Source {
        let dir = directory(lab);
        mount(
            Some("x"),
            &dir,
            Some("tmpfs"),
            MsFlags::empty(),
            None::<&str>,
        )
        .unwrap();
        let flags = flags | MsFlags::MS_BIND | MsFlags::MS_REMOUNT;
        mount(None::<&str>, &dir, None::<&str>, flags, None::<&str>).unwrap();
        Source(dir)
    }

    fn restricted(lab: &Lab) -> Source {
        let flags = MsFlags::MS_RDONLY
            | MsFlags::MS_NOSUID
            | MsFlags::MS_NODEV
            | MsFlags::MS_NOEXEC
            | MsFlags::MS_NOATIME
            | MsFlags::MS_NODIRATIME
            | MsFlags::from_bits_retain(256); // MS_NOSYMFOLLOW
        Source::new(lab, flags)
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        let _ = umount(&self.0);
    }
}

fn in_user_namespace(bundle: Bundle) -> Bundle {
    bundle.user_namespace(100_000, 65536)
}

#[track_caller]
fn assert_flags(lab: &Lab, bundle: Bundle, there: &[&str], gone: &[&str]) {
    let mount = mount_at(&lab.facts(&bundle), "/tmp");
    for flag in there {
        assert!(has(&mount, flag), "no {flag}: {mount}");
    }
    for flag in gone {
        assert!(!has(&mount, flag), "{flag}: {mount}");
    }
}

fn a_bind_without_options_keeps_all_flags(lab: &Lab) {
    let source = Source::restricted(lab);
    assert_flags(
        lab,
        lab.bundle().bind(&source.0, "/tmp", &["bind"]),
        &ALL,
        &[],
    );
}

/// As `mount --bind` and runc have it, but for access times.
fn one_flag_clears_all_that_are_not_named(lab: &Lab) {
    let source = Source::restricted(lab);
    for (word, there, gone) in [
        ("dev", "rw", "ro"),
        ("nosuid", "nosuid", "ro"),
        ("ro", "ro", "nosuid"),
        ("atime", "rw", "ro"),
    ] {
        let bundle = lab
            .bundle()
            .bind(&source.0, "/tmp", &["bind", word, "rprivate"]);
        let there = [there, "noatime", "nodiratime"];
        assert_flags(
            lab,
            bundle,
            &there,
            &[gone, "nodev", "noexec", "nosymfollow"],
        );
    }
}

fn no_flag_is_cleared_by_other_options(lab: &Lab) {
    let source = Source::restricted(lab);
    for word in ["rprivate", "defaults", "rnosuid", "silent"] {
        let bundle = lab.bundle().bind(&source.0, "/tmp", &["rbind", word]);
        assert_flags(lab, bundle, &ALL, &[]);
    }
}

type Words = &'static [&'static str];

/// The source's flag, the options of the bind mount, what is there then, and what isn't.
fn access_times_change_only_to_a_mode_that_is_named(lab: &Lab) {
    let no_atime = MsFlags::MS_NOATIME;
    let no_diratime = MsFlags::MS_NODIRATIME;
    let cases: [(MsFlags, Words, Words, Words); 8] = [
        (no_atime, &["norelatime"], &["noatime"], &["relatime"]),
        (no_atime, &["atime"], &["noatime"], &["relatime"]),
        (no_atime, &["relatime"], &["relatime"], &["noatime"]),
        (
            no_atime,
            &["nodiratime"],
            &["nodiratime", "relatime"],
            &["noatime"],
        ),
        (
            no_atime,
            &["nodiratime", "strictatime"],
            &["nodiratime"],
            &["noatime", "relatime"],
        ),
        (
            no_atime,
            &["nodiratime", "norelatime"],
            &["nodiratime", "relatime"],
            &["noatime"],
        ),
        (
            no_diratime,
            &["strictatime"],
            &[],
            &["noatime", "relatime", "nodiratime"],
        ),
        (no_diratime, &["diratime"], &["nodiratime"], &[]),
    ];
    for (flag, words, there, gone) in cases {
        let source = Source::new(lab, flag);
        let words: Vec<&str> = ["bind"].iter().chain(words).copied().collect();
        let bundle = lab.bundle().bind(&source.0, "/tmp", &words);
        assert_flags(lab, bundle, there, gone);
    }
}

/// A flag that only the top is asked for doesn't make the top of a read-only tree writable.
fn recursive_flags_outlast_flags_of_the_mount_alone(lab: &Lab) {
    let source = Source::new(lab, MsFlags::empty());
    for words in [["rbind", "rro", "nosuid"], ["rbind", "nosuid", "rro"]] {
        let bundle = lab.bundle().bind(&source.0, "/tmp", &words);
        assert_flags(lab, bundle, &["ro", "nosuid"], &[]);
    }
}

fn a_user_namespace_keeps_locked_flags_that_are_not_named(lab: &Lab) {
    let source = Source::new(
        lab,
        MsFlags::MS_RDONLY
            | MsFlags::MS_NOSUID
            | MsFlags::MS_NOEXEC
            | MsFlags::MS_NOATIME
            | MsFlags::from_bits_retain(256),
    );
    let bundle = lab.bundle().bind(&source.0, "/tmp", &["bind", "dev"]);
    let there = ["ro", "nosuid", "noexec", "noatime"];
    assert_flags(
        lab,
        in_user_namespace(bundle),
        &there,
        &["nodev", "nosymfollow"],
    );
}

fn a_user_namespace_lets_access_times_be_negated_without_effect(lab: &Lab) {
    let both = MsFlags::MS_NOATIME | MsFlags::MS_NODIRATIME;
    let source = Source::new(lab, both);
    for word in ["atime", "diratime", "norelatime", "nostrictatime"] {
        let bundle = lab.bundle().bind(&source.0, "/tmp", &["bind", word]);
        assert_flags(
            lab,
            in_user_namespace(bundle),
            &["noatime", "nodiratime"],
            &[],
        );
    }
}

/// What an entry before has mounted is no way around the lock.
fn a_user_namespace_keeps_flags_of_a_source_inside(lab: &Lab) {
    let source = Source::restricted(lab);
    let bundle = lab.bundle().dir("tmp").dir("mnt");
    let inside = bundle.rootfs().join("mnt");
    let bundle =
        bundle
            .bind(&source.0, "/mnt", &["bind"])
            .bind(&inside, "/tmp", &["rbind", "nosuid"]);
    let there = ["ro", "nosuid", "nodev", "noexec", "noatime"];
    assert_flags(lab, in_user_namespace(bundle), &there, &["nosymfollow"]);
    let bundle = lab.bundle().dir("tmp").dir("mnt");
    let inside = bundle.rootfs().join("mnt");
    let bundle = bundle
        .bind(&source.0, "/mnt", &["bind"])
        .bind(&inside, "/tmp", &["rbind", "rw"]);
    lab.run(&in_user_namespace(bundle.payload("exit 0")))
        .refused()
        .says("operation not permitted");
}

/// The OCI's validation has such a mount.
fn filesystem_data_of_a_bind_is_ignored_with_a_warning(lab: &Lab) {
    let source = directory(lab);
    let with = |options: &[&str]| lab.bundle().bind(&source, "/tmp", options);
    let answers = lab.ask(with(&["bind", "mode=0700", "size=64k"]), "stat /tmp");
    assert_eq!(answers[0]["mode"], 0o755);
    let output = lab.run(&with(&["bind", "size=64k"]).payload("exit 0")).ok();
    for words in [
        "/mounts/7/options/1",
        "`size=64k` is no option of a bind mount",
    ] {
        assert!(output.stderr.contains(words), "{output}");
    }
    lab.run(&with(&["bind", "size=64k", "sise"]))
        .refused()
        .says("/mounts/7/options/2")
        .says("`sise` is no option of a bind mount");
}

fn a_user_namespace_keeps_all_flags(lab: &Lab) {
    let source = Source::restricted(lab);
    let bundle = lab.bundle().bind(&source.0, "/tmp", &["bind"]);
    assert_flags(lab, in_user_namespace(bundle), &ALL, &[]);
}

fn a_user_namespace_lets_no_locked_flag_be_cleared(lab: &Lab) {
    let source = Source::restricted(lab);
    for (word, flag) in [
        ("rw", "ro"),
        ("suid", "nosuid"),
        ("dev", "nodev"),
        ("exec", "noexec"),
    ] {
        let bundle = lab.bundle().bind(&source.0, "/tmp", &["bind", word]);
        lab.run(&in_user_namespace(bundle.payload("exit 0")))
            .refused()
            .says("/mounts/7/options")
            .says(&format!("`{word}` is asked for"))
            .says(&format!("the source is mounted {flag}"))
            .says("locked in a user namespace: operation not permitted");
    }
}

fn a_user_namespace_lets_no_access_time_be_changed(lab: &Lab) {
    for (flag, word) in [
        (MsFlags::MS_NOATIME, "strictatime"),
        (MsFlags::MS_NOATIME, "relatime"),
        (MsFlags::MS_RELATIME, "noatime"),
        (MsFlags::MS_RELATIME, "nodiratime"),
        (MsFlags::MS_STRICTATIME, "relatime"),
    ] {
        let source = Source::new(lab, flag);
        let bundle = lab.bundle().bind(&source.0, "/tmp", &["bind", word]);
        lab.run(&in_user_namespace(bundle.payload("exit 0")))
            .refused()
            .says("locked in a user namespace")
            .says("operation not permitted");
        let same = match flag {
            MsFlags::MS_NOATIME => "noatime",
            MsFlags::MS_RELATIME => "relatime",
            _ => "strictatime",
        };
        let bundle = lab.bundle().bind(&source.0, "/tmp", &["bind", same]);
        lab.run(&in_user_namespace(bundle.payload("exit 0"))).ok();
    }
}

fn a_user_namespace_lets_flags_be_added_and_symfollow_be_cleared(lab: &Lab) {
    let source = Source::new(lab, MsFlags::MS_NODEV | MsFlags::from_bits_retain(256));
    let bundle = lab
        .bundle()
        .bind(&source.0, "/tmp", &["bind", "ro", "noexec", "symfollow"]);
    let there = ["ro", "noexec", "nodev"];
    assert_flags(lab, in_user_namespace(bundle), &there, &["nosymfollow"]);
}

fn clearing_what_is_not_there_is_no_error_in_a_user_namespace(lab: &Lab) {
    let source = Source::new(lab, MsFlags::MS_NODEV);
    let bundle = lab
        .bundle()
        .bind(&source.0, "/tmp", &["bind", "rw", "suid", "exec"]);
    assert_flags(
        lab,
        in_user_namespace(bundle),
        &["rw", "nodev"],
        &["nosuid"],
    );
}

fn sources_out_of_the_containers_reach_are_mounted_in_a_user_namespace(lab: &Lab) {
    let (one, two) = (directory(lab), directory(lab));
    let mut bundle = lab.bundle();
    for (n, dir) in [one, two].into_iter().enumerate() {
        fs::create_dir(dir.join("in")).unwrap();
        fs::write(dir.join("in/file"), format!("{n}")).unwrap();
        crate::bundle::set_mode(&dir, 0o700);
        let target = format!("tmp/{n}");
        bundle = bundle
            .dir(&target)
            .bind(dir.join("in"), &format!("/{target}"), &["bind"]);
    }
    let container = lab.start(&in_user_namespace(bundle).payload("ready -- pause"));
    let answers = container.ask("cat /tmp/0/file -- cat /tmp/1/file");
    assert_eq!(answers, [json!("0"), json!("1")]);
    container.end();
}

/// With all power in its own user namespace it could make a read-only volume writable.
fn the_root_of_a_user_namespace_cannot_unlock_mounts(lab: &Lab) {
    let (one, two) = (
        directory(lab),
        Source::new(lab, MsFlags::MS_RDONLY | MsFlags::MS_NODEV),
    );
    crate::bundle::set_mode(&one, 0o777);
    fs::write(one.join("file"), "x").unwrap();
    let bundle = lab
        .bundle()
        .dir("tmp/1")
        .dir("tmp/2")
        .dir("tmp/3")
        .bind(&one, "/tmp/1", &["bind", "ro", "nosuid"])
        .bind(&two.0, "/tmp/2", &["bind"])
        .bind(one.join("file"), "/tmp/3/file", &["bind", "ro", "idmap"])
        .writable()
        .file("tmp/3/file", "")
        .capabilities(&["CAP_SYS_ADMIN"]);
    let words = "mount x /tmp/1 none bind,remount -- create /tmp/1/x y -- \
        mount x /tmp/1 none bind,remount,ro -- mount x /tmp/2 none bind,remount -- \
        mount x /tmp/3/file none bind,remount -- mount x /tmp none none -- facts";
    let answers = lab.ask(in_user_namespace(bundle), words);
    for n in [0, 2, 3, 4] {
        assert_eq!(answers[n]["error"], "EPERM", "{n}: {answers:?}");
    }
    assert_eq!(answers[1]["error"], "EROFS");
    let mount = mount_at(&answers[6], "/tmp/1");
    assert!(has(&mount, "ro") && has(&mount, "nosuid"), "{mount}");
    assert!(!one.join("x").exists());
}

/// What a mount of the host covers stays covered.
fn the_root_of_a_user_namespace_cannot_look_below_mounts(lab: &Lab) {
    let source = directory(lab);
    fs::create_dir(source.join("sub")).unwrap();
    fs::write(source.join("sub/covered"), "secret").unwrap();
    mount(
        Some("y"),
        &source.join("sub"),
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .unwrap();
    let bundle = lab
        .bundle()
        .bind(&source, "/tmp", &["rbind"])
        .dir("mnt")
        .capabilities(&["CAP_SYS_ADMIN"]);
    let words = "umount /tmp/sub -- ls /tmp/sub -- mount /tmp /mnt none bind -- ls /mnt/sub";
    let answers = lab.ask(in_user_namespace(bundle), words);
    assert_eq!(answers[0]["error"], "EINVAL");
    assert_eq!(answers[1], json!([]));
    assert_eq!(answers[2]["error"], "EINVAL");
    umount(&source.join("sub")).unwrap();
}

/// It would be a way to mount on the host without a right there.
fn a_shared_mount_of_a_user_namespace_does_not_reach_the_host(lab: &Lab) {
    let source = Source::new(lab, MsFlags::empty());
    crate::bundle::set_mode(&source.0, 0o777);
    mount(
        None::<&str>,
        &source.0,
        None::<&str>,
        MsFlags::MS_SHARED,
        None::<&str>,
    )
    .unwrap();
    let before = crate::mountinfo::targets();
    let bundle = lab
        .bundle()
        .bind(&source.0, "/tmp", &["rbind", "rshared"])
        .capabilities(&["CAP_SYS_ADMIN"])
        .payload("mkdir /tmp/x -- mount x /tmp/x tmpfs none -- facts -- pause");
    let container = lab.start(&in_user_namespace(bundle));
    let answers = container.wait_for_lines(3);
    assert_eq!(answers[..2], [json!(true), json!(true)]);
    let shown = mount_at(&answers[2], "/tmp")["propagation"].to_string();
    assert!(
        shown.contains("shared:") && shown.contains("master:"),
        "{shown}"
    );
    assert_eq!(crate::mountinfo::targets(), before);
    container.end();
}
