//! Where mounts go and what they then show: the questions of runc's mounts.bats, mask.bats and
//! mounts_propagation.bats.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use nix::mount::{MsFlags, mount, umount};
use serde_json::json;

use super::mounts::{directory, has, mount_at};
use super::tests;
use crate::bundle::{Bundle, set_mode};
use crate::lab::Lab;
use crate::need::Need;

tests! {
    a_source_shows_what_entries_before_it_mounted.needs(&[Need::Husk]),
    a_source_in_a_user_namespace_shows_what_entries_before_it_mounted.needs(&[Need::Husk]),
    a_destination_may_be_as_the_host_sees_it.needs(&[Need::Husk]),
    a_link_that_points_nowhere_leads_to_where_it_points.needs(&[Need::Husk]),
    a_link_on_the_way_that_points_nowhere_is_followed.needs(&[Need::Husk]),
    a_climbing_link_that_points_nowhere_stays_inside.needs(&[Need::Husk]),
    links_in_a_circle_are_refused.needs(&[Need::Husk]),
    a_tmpfs_has_the_mode_of_what_it_covers.needs(&[Need::Husk]),
    a_tmpfs_on_a_new_directory_has_the_usual_mode.needs(&[Need::Husk]),
    new_directories_inherit_the_group.needs(&[Need::Husk]),
    proc_and_sysfs_go_on_ordinary_directories_only.needs(&[Need::Husk]),
    masked_directories_share_one_readonly_tmpfs.needs(&[Need::Husk]),
    masks_cannot_be_taken_away_without_power.needs(&[Need::Husk]),
    without_pivot_root_no_unmasked_sysfs_can_be_had.needs(&[Need::Husk]),
    every_propagation_of_the_root_is_applied.needs(&[Need::Husk]),
}

fn in_user_namespace(bundle: Bundle) -> Bundle {
    bundle.user_namespace(100_000, 65536)
}

/// A tree of mounts in the container, parts of which are bound again into it and beside it.
fn ordered(lab: &Lab) -> Bundle {
    let source = directory(lab);
    for below in ["a/x", "b/y", "c/z"] {
        fs::create_dir_all(source.join(below)).unwrap();
        fs::write(source.join(below).join("file"), below).unwrap();
    }
    std::os::unix::fs::symlink("b", source.join("link")).unwrap();
    set_mode(&source, 0o750);
    let bundle = lab.bundle().dir("mnt").dir("final");
    let root = bundle.rootfs();
    let inside = |path: &str| root.join(path).to_str().unwrap().to_owned();
    bundle
        .bind(source.join("a"), "/mnt", &["bind", "rprivate"])
        .bind(source.join("link"), "/mnt/x", &["bind", "rprivate"])
        .bind(source.join("c"), "/mnt/x/y", &["bind", "rprivate"])
        .bind(source.join("a"), "/mnt/x/y/z", &["bind", "rprivate"])
        .bind(
            inside("mnt/x"),
            &inside("mnt/x/y/z/x"),
            &["rbind", "rprivate"],
        )
        .bind(inside("mnt"), &inside("final"), &["rbind", "rprivate"])
}

const ORDERED: &str = "cat /final/x/y/z/x/y/z/x/file -- ls /mnt/x/y/z/x/y/z -- ls /final";

fn a_source_shows_what_entries_before_it_mounted(lab: &Lab) {
    let answers = lab.ask(ordered(lab), ORDERED);
    assert_eq!(answers, [json!("a/x"), json!(["x"]), json!(["x"])]);
}

fn a_source_in_a_user_namespace_shows_what_entries_before_it_mounted(lab: &Lab) {
    let answers = lab.ask(in_user_namespace(ordered(lab)), ORDERED);
    assert_eq!(answers, [json!("a/x"), json!(["x"]), json!(["x"])]);
}

fn a_destination_may_be_as_the_host_sees_it(lab: &Lab) {
    let source = directory(lab);
    fs::write(source.join("file"), "x").unwrap();
    let bundle = lab.bundle();
    let target = bundle.rootfs().join("tmp").to_str().unwrap().to_owned();
    let answers = lab.ask(bundle.bind(&source, &target, &["bind"]), "cat /tmp/file");
    assert_eq!(answers, [json!("x")]);
}

fn a_link_that_points_nowhere_leads_to_where_it_points(lab: &Lab) {
    let source = directory(lab);
    fs::write(source.join("file"), "x").unwrap();
    let bundle = lab.bundle().link("etc/hosts", "/run/made/hosts");
    let root = bundle.rootfs();
    let bundle = bundle.bind(source.join("file"), "/etc/hosts", &["bind"]);
    let answers = lab.ask(bundle, "cat /etc/hosts -- facts -- readlink /etc/hosts");
    assert_eq!(answers[0], "x");
    mount_at(&answers[1], "/run/made/hosts");
    assert_eq!(answers[2], "/run/made/hosts");
    assert_eq!(fs::metadata(root.join("run/made/hosts")).unwrap().len(), 0);
    let bundle = lab.bundle().link("etc/there", "../opt/there");
    let bundle = bundle.bind(&source, "/etc/there", &["bind"]);
    assert_eq!(lab.ask(bundle, "cat /opt/there/file"), [json!("x")]);
}

fn a_link_on_the_way_that_points_nowhere_is_followed(lab: &Lab) {
    let source = directory(lab);
    fs::write(source.join("file"), "x").unwrap();
    let bundle = lab
        .bundle()
        .link("jump", "/opt/foo/bar")
        .link("etc/hosts", "/jump/baz/hosts")
        .bind(source.join("file"), "/etc/hosts", &["bind"]);
    let answers = lab.ask(bundle, "cat /opt/foo/bar/baz/hosts");
    assert_eq!(answers, [json!("x")]);
}

/// It is the image's to say where, but never outside of it.
fn a_climbing_link_that_points_nowhere_stays_inside(lab: &Lab) {
    let source = directory(lab);
    let outside = lab.path("outside");
    let bundle = lab
        .bundle()
        .link("up", "../../../../../../../..")
        .link("out", &format!("/up/{}/x", outside.display()))
        .bind(&source, "/out", &["bind"]);
    let root = bundle.rootfs();
    lab.run(&bundle.payload("exit 0")).ok();
    assert!(!outside.exists());
    let inside = outside.strip_prefix("/").unwrap().join("x");
    assert!(root.join(inside).is_dir());
}

fn links_in_a_circle_are_refused(lab: &Lab) {
    let source = directory(lab);
    let bundle = lab.bundle().link("a", "b").link("b", "a");
    lab.run(&bundle.bind(&source, "/a/x", &["bind"]).payload("exit 0"))
        .refused()
        .says("/mounts/7/destination")
        .says("too many levels of symbolic links");
}

fn tmpfs(target: &str, options: &[&str]) -> serde_json::Value {
    json!({ "destination": target, "type": "tmpfs", "source": "tmpfs", "options": options })
}

fn a_tmpfs_has_the_mode_of_what_it_covers(lab: &Lab) {
    let bundle = lab.bundle().dir("here").dir("there");
    let root = bundle.rootfs();
    for name in ["here", "there"] {
        set_mode(&root.join(name), 0o710);
    }
    let bundle = bundle
        .mount(tmpfs("/here", &["nodev"]))
        .mount(tmpfs("/there", &["nodev", "mode=1500"]));
    let answers = lab.ask(bundle, "stat /here -- stat /there");
    assert_eq!(answers[0]["mode"], 0o710);
    assert_eq!(answers[1]["mode"], 0o1500);
    assert_eq!(
        fs::metadata(root.join("there")).unwrap().mode() & 0o7777,
        0o710
    );
}

fn a_tmpfs_on_a_new_directory_has_the_usual_mode(lab: &Lab) {
    let bundle = lab.bundle().mount(tmpfs("/not/there/yet", &["nodev"]));
    let root = bundle.rootfs();
    assert_eq!(lab.ask(bundle, "stat /not/there/yet")[0]["mode"], 0o1777);
    for made in ["not", "not/there", "not/there/yet"] {
        let mode = fs::metadata(root.join(made)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o755, "{made}");
    }
}

fn new_directories_inherit_the_group(lab: &Lab) {
    let bundle = lab.bundle().dir("setgid");
    let root = bundle.rootfs();
    set_mode(&root.join("setgid"), 0o7755);
    lab.run(
        &bundle
            .mount(tmpfs("/setgid/a/b", &["ro"]))
            .payload("exit 0"),
    )
    .ok();
    for (made, mode) in [
        ("setgid", 0o7755),
        ("setgid/a", 0o2755),
        ("setgid/a/b", 0o2755),
    ] {
        let found = fs::metadata(root.join(made)).unwrap().permissions().mode();
        assert_eq!(found & 0o7777, mode, "{made}");
    }
}

/// CVE-2019-19921, CVE-2023-27561.
fn proc_and_sysfs_go_on_ordinary_directories_only(lab: &Lab) {
    for name in ["proc", "sys"] {
        for target in ["/other", "/nowhere"] {
            let bundle = lab.bundle().dir("other").link(name, target);
            lab.run(&bundle.payload("exit 0"))
                .refused()
                .says("must be mounted on ordinary directory");
        }
    }
}

fn masked_directories_share_one_readonly_tmpfs(lab: &Lab) {
    let bundle = lab
        .bundle()
        .file("one/secret", "1")
        .file("two/secret", "2")
        .file("file", "3")
        .set(
            "/linux/maskedPaths",
            json!(["/one", "/two", "/file", "/not/there"]),
        )
        .capabilities(&["CAP_DAC_OVERRIDE"])
        .writable();
    let words = "stat /one -- stat /two -- ls /one -- ls /two -- create /one/x y -- \
        cat /file -- rm /file -- rm-all /two";
    let answers = lab.ask(bundle, words);
    assert_eq!(answers[0]["dev"], answers[1]["dev"]);
    assert_eq!(answers[2..4], [json!([]), json!([])]);
    assert_eq!(answers[4]["error"], "EROFS");
    assert_eq!(answers[5], "");
    assert_eq!(answers[6]["error"], "EBUSY");
    assert_eq!(answers[7]["error"], "EBUSY");
}

fn masks_cannot_be_taken_away_without_power(lab: &Lab) {
    let bundle = lab
        .bundle()
        .file("one/secret", "1")
        .set("/linux/maskedPaths", json!(["/one"]));
    let answers = lab.ask(bundle, "umount /one -- ls /one");
    assert_eq!(answers[0]["error"], "EPERM");
    assert_eq!(answers[1], json!([]));
}

/// A user namespace made in the container may have a new sysfs if one lies open anywhere in the mount
/// namespace: the host's did, below the container's root (runc's no_pivot.bats, with a procfs).
fn without_pivot_root_no_unmasked_sysfs_can_be_had(lab: &Lab) {
    let bundle = lab
        .bundle()
        .set("/linux/maskedPaths", json!(["/sys/kernel", "/sys/fs"]))
        .dir("mnt")
        .payload("syscall unshare 0x50020000 -- mount x /mnt sysfs none -- ls /mnt");
    for options in [&[][..], &["--no-pivot"]] {
        let answers = lab.run_with(&bundle, options).run().ok().lines();
        assert_eq!(answers[0]["result"], 0, "{options:?}");
        assert_eq!(answers[1]["error"], "EPERM", "{options:?}");
        assert_eq!(answers[2], json!([]), "{options:?}");
    }
}

fn every_propagation_of_the_root_is_applied(lab: &Lab) {
    // On a shared mount of the host, or a slave could not be told from a private one.
    let bundle = lab.bundle();
    let root = bundle.rootfs();
    let none = None::<&str>;
    mount(Some(&root), &root, none, MsFlags::MS_BIND, none).unwrap();
    mount(none, &root, none, MsFlags::MS_SHARED, none).unwrap();
    for (given, expected) in [
        ("", "[\"master:"),
        ("slave", "[\"master:"),
        ("rslave", "[\"master:"),
        ("private", "[]"),
        ("rprivate", "[]"),
        ("shared", "[\"shared:"),
        ("rshared", "[\"shared:"),
        ("unbindable", "[\"unbindable"),
        ("runbindable", "[\"unbindable"),
    ] {
        let mut again = lab.bundle().set("/linux/rootfsPropagation", given);
        again = again.set("/root/path", root.to_str().unwrap());
        let found = mount_at(&lab.facts(&again), "/");
        let words = found["propagation"].to_string();
        assert!(words.starts_with(expected), "{given}: {words}");
        assert!(has(&found, "ro"), "{given}: {found}");
    }
    umount(&root).unwrap();
}
