//! Id-mapped mounts (spec digest, item 25).

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

use super::mounts::directory;
use super::tests;
use crate::bundle::Bundle;
use crate::lab::Lab;
use crate::need::Need;

tests! {
    a_mounts_own_mapping_shifts_owners.needs(&[Need::Husk]),
    mappings_alone_mean_an_idmapped_mount.needs(&[Need::Husk]),
    what_is_written_is_stored_as_the_mapping_says.needs(&[Need::Husk]),
    an_owner_that_is_not_mapped_cannot_write.needs(&[Need::Husk]),
    the_containers_mapping_is_the_default.needs(&[Need::Husk]),
    a_joined_namespaces_mapping_is_the_default.needs(&[Need::Husk]),
    a_mapping_of_its_own_wins_over_the_containers.needs(&[Need::Husk]),
    mappings_of_several_lines_work.needs(&[Need::Husk]),
    one_source_can_have_two_mappings.needs(&[Need::Husk]),
    equal_mappings_share_a_user_namespace.needs(&[Need::Husk, Need::Program("strace")]),
    idmap_leaves_submounts_and_ridmap_maps_them.needs(&[Need::Husk]),
    relative_sources_can_be_mapped.needs(&[Need::Husk]),
    files_can_be_mapped.needs(&[Need::Husk]),
    flags_and_propagation_of_a_mapped_mount_are_applied.needs(&[Need::Husk]),
    a_tmpfs_can_be_mapped.needs(&[Need::Husk]),
    a_tmpfs_in_a_user_namespace_can_be_mapped.needs(&[Need::Husk]),
    a_filesystem_that_cannot_be_mapped_is_named.needs(&[Need::Husk]),
    a_mount_that_is_mapped_already_is_refused.needs(&[Need::Husk]),
    a_remount_cannot_map.needs(&[Need::Husk]),
    what_an_entry_before_mounted_can_be_mapped.needs(&[Need::Husk]),
    what_was_mounted_inside_can_be_mapped_for_a_user_namespace.needs(&[Need::Husk]),
    what_was_mounted_inside_and_mapped_cannot_be_mapped_again.needs(&[Need::Husk]),
    ids_that_do_not_exist_here_are_refused.needs(&[Need::Husk]),
}

/// A directory with a file of this owner.
fn owned(lab: &Lab, uid: u32, gid: u32) -> PathBuf {
    let dir = directory(lab);
    file(&dir, uid, gid);
    dir
}

fn file(dir: &Path, uid: u32, gid: u32) {
    fs::write(dir.join("file"), "x").unwrap();
    chown(dir.join("file"), Some(uid), Some(gid)).unwrap();
}

fn map(inside: u32, outside: u32, size: u32) -> Value {
    json!([{ "containerID": inside, "hostID": outside, "size": size }])
}

fn mapped(source: &Path, options: &[&str], uids: Value, gids: Value) -> Value {
    json!({ "destination": "/tmp", "type": "none", "source": source, "options": options,
        "uidMappings": uids, "gidMappings": gids })
}

fn owner(answer: &Value) -> (u64, u64) {
    let id = |key: &str| answer[key].as_u64().unwrap_or_else(|| panic!("{answer}"));
    (id("uid"), id("gid"))
}

fn at(mut mount: Value, destination: &str) -> Value {
    mount["destination"] = json!(destination);
    mount
}

/// What nobody is mapped to.
const NOBODY: (u64, u64) = (65534, 65534);

fn in_user_namespace(bundle: Bundle) -> Bundle {
    bundle.user_namespace(100_000, 65536)
}

fn a_mounts_own_mapping_shifts_owners(lab: &Lab) {
    let source = owned(lab, 7, 8);
    let mount = mapped(
        &source,
        &["bind", "idmap"],
        map(0, 5000, 1000),
        map(0, 6000, 1000),
    );
    let answers = lab.ask(lab.bundle().mount(mount), "stat /tmp/file");
    assert_eq!(owner(&answers[0]), (5007, 6008));
    let stored = fs::metadata(source.join("file")).unwrap();
    assert_eq!((stored.uid(), stored.gid()), (7, 8));
}

fn mappings_alone_mean_an_idmapped_mount(lab: &Lab) {
    let source = owned(lab, 7, 8);
    let mount = mapped(&source, &["bind"], map(0, 5000, 1000), map(0, 6000, 1000));
    let answers = lab.ask(lab.bundle().mount(mount), "stat /tmp/file");
    assert_eq!(owner(&answers[0]), (5007, 6008));
}

fn what_is_written_is_stored_as_the_mapping_says(lab: &Lab) {
    let source = owned(lab, 0, 0);
    let mount = mapped(
        &source,
        &["bind", "idmap"],
        map(10, 100_000, 9),
        map(20, 100_000, 9),
    );
    chown(&source, Some(10), Some(20)).unwrap();
    let bundle = in_user_namespace(lab.bundle().mount(mount));
    let answers = lab.ask(
        bundle,
        "create /tmp/new y -- stat /tmp/new -- stat /tmp/file",
    );
    assert_eq!(answers[0], true);
    assert_eq!(owner(&answers[1]), (0, 0));
    assert_eq!(owner(&answers[2]), NOBODY);
    let stored = fs::metadata(source.join("new")).unwrap();
    assert_eq!((stored.uid(), stored.gid()), (10, 20));
}

fn an_owner_that_is_not_mapped_cannot_write(lab: &Lab) {
    let source = owned(lab, 0, 0);
    let mount = mapped(
        &source,
        &["bind", "idmap"],
        map(0, 5000, 10),
        map(0, 5000, 10),
    );
    let bundle = lab
        .bundle()
        .mount(mount)
        .capabilities(&["CAP_DAC_OVERRIDE"]);
    let answers = lab.ask(bundle, "create /tmp/new y");
    assert_eq!(answers[0]["error"], "EOVERFLOW");
}

fn the_containers_mapping_is_the_default(lab: &Lab) {
    let source = owned(lab, 7, 8);
    for word in ["idmap", "ridmap"] {
        let bundle = in_user_namespace(lab.bundle().bind(&source, "/tmp", &["bind", word]));
        let answers = lab.ask(bundle, "stat /tmp/file");
        assert_eq!(owner(&answers[0]), (7, 8), "{word}");
    }
    let plain = in_user_namespace(lab.bundle().bind(&source, "/tmp", &["bind"]));
    assert_eq!(owner(&lab.ask(plain, "stat /tmp/file")[0]), NOBODY);
}

fn a_joined_namespaces_mapping_is_the_default(lab: &Lab) {
    let source = owned(lab, 7, 8);
    let holder = lab.start(&in_user_namespace(lab.bundle()).payload("ready -- pause"));
    let namespace = format!("/proc/{}/ns/user", holder.pid());
    let bundle = lab
        .bundle()
        .join("user", namespace)
        .bind(&source, "/tmp", &["bind", "idmap"]);
    let answers = lab.ask(bundle, "stat /tmp/file");
    assert_eq!(owner(&answers[0]), (7, 8));
    holder.end();
}

fn a_mapping_of_its_own_wins_over_the_containers(lab: &Lab) {
    let source = owned(lab, 100, 211);
    let mount = mapped(
        &source,
        &["bind", "idmap"],
        map(100, 101_000, 9),
        map(200, 102_000, 99),
    );
    let bundle = in_user_namespace(lab.bundle().mount(mount));
    let answers = lab.ask(bundle, "stat /tmp/file");
    assert_eq!(owner(&answers[0]), (1000, 2011));
}

fn mappings_of_several_lines_work(lab: &Lab) {
    let source = owned(lab, 102, 230);
    let lines = |list: &[(u32, u32, u32)]| {
        let entry = |&(inside, outside, size)| map(inside, outside, size)[0].clone();
        Value::Array(list.iter().map(entry).collect())
    };
    let uids = lines(&[(100, 1000, 1), (101, 2000, 1), (102, 3000, 1)]);
    let gids = lines(&[(210, 1100, 10), (230, 3300, 10)]);
    let mount = mapped(&source, &["bind", "idmap"], uids, gids);
    let answers = lab.ask(lab.bundle().mount(mount), "stat /tmp/file");
    assert_eq!(owner(&answers[0]), (3000, 3300));
}

fn one_source_can_have_two_mappings(lab: &Lab) {
    let source = owned(lab, 7, 8);
    let mut bundle = lab.bundle().dir("tmp/1").dir("tmp/2").dir("tmp/plain");
    for (target, base) in [("/tmp/1", 1000), ("/tmp/2", 2000)] {
        let mut mount = mapped(
            &source,
            &["bind", "idmap"],
            map(0, base, 9),
            map(0, base, 9),
        );
        mount["destination"] = json!(target);
        bundle = bundle.mount(mount);
    }
    let bundle = bundle.bind(&source, "/tmp/plain", &["bind"]);
    let answers = lab.ask(
        bundle,
        "stat /tmp/1/file -- stat /tmp/2/file -- stat /tmp/plain/file",
    );
    let owners: Vec<_> = answers.iter().map(owner).collect();
    assert_eq!(owners, [(1007, 1008), (2007, 2008), (7, 8)]);
}

fn equal_mappings_share_a_user_namespace(lab: &Lab) {
    let source = owned(lab, 7, 8);
    let mut bundle = lab.bundle();
    for (n, base) in [1000, 1000, 2000, 1000].into_iter().enumerate() {
        let mut mount = mapped(
            &source,
            &["bind", "idmap"],
            map(0, base, 9),
            map(0, base, 9),
        );
        mount["destination"] = json!(format!("/tmp/{n}"));
        bundle = bundle.dir(&format!("tmp/{n}")).mount(mount);
    }
    let trace = lab.path("trace");
    let words = [
        "strace",
        "-f",
        "-e",
        "trace=clone3",
        "-o",
        trace.to_str().unwrap(),
    ];
    lab.run_with(&bundle.payload("exit 0"), &[])
        .through(&words)
        .run()
        .ok();
    let trace = fs::read_to_string(trace).unwrap();
    let made = trace.matches("CLONE_NEWUSER").count();
    assert_eq!(made, 2, "{trace}");
}

/// A directory with a mount below it, a file in each.
fn nested(lab: &Lab) -> PathBuf {
    let source = owned(lab, 7, 8);
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
    file(&sub, 7, 8);
    source
}

fn idmap_leaves_submounts_and_ridmap_maps_them(lab: &Lab) {
    let source = nested(lab);
    for (word, below) in [("idmap", NOBODY), ("ridmap", (7, 8))] {
        let bundle = in_user_namespace(lab.bundle().bind(&source, "/tmp", &["rbind", word]));
        let answers = lab.ask(bundle, "stat /tmp/file -- stat /tmp/sub/file");
        assert_eq!(owner(&answers[0]), (7, 8), "{word}");
        assert_eq!(owner(&answers[1]), below, "{word}");
    }
    umount2(&source.join("sub"), MntFlags::empty()).unwrap();
}

fn relative_sources_can_be_mapped(lab: &Lab) {
    let bundle = lab.bundle();
    let source = bundle.dir.join("beside");
    fs::create_dir(&source).unwrap();
    file(&source, 7, 8);
    let mount = mapped(
        Path::new("beside"),
        &["bind", "idmap"],
        map(0, 50, 9),
        map(0, 60, 9),
    );
    let answers = lab.ask(bundle.mount(mount), "stat /tmp/file");
    assert_eq!(owner(&answers[0]), (57, 68));
}

fn files_can_be_mapped(lab: &Lab) {
    let source = owned(lab, 7, 8).join("file");
    let mut mount = mapped(&source, &["bind", "idmap"], map(0, 50, 9), map(0, 60, 9));
    mount["destination"] = json!("/tmp/one");
    let bundle = lab.bundle().file("tmp/one", "").mount(mount);
    assert_eq!(owner(&lab.ask(bundle, "stat /tmp/one")[0]), (57, 68));
}

fn flags_and_propagation_of_a_mapped_mount_are_applied(lab: &Lab) {
    let source = owned(lab, 7, 8);
    let options = ["bind", "idmap", "ro", "nosuid", "shared"];
    let mount = mapped(&source, &options, map(0, 50, 9), map(0, 60, 9));
    let answers = lab.ask(lab.bundle().mount(mount), "facts -- create /tmp/x y");
    let mount = super::mounts::mount_at(&answers[0], "/tmp");
    for word in ["ro", "nosuid", "idmapped"] {
        assert!(super::mounts::has(&mount, word), "{word}: {mount}");
    }
    assert!(
        mount["propagation"].to_string().contains("shared:"),
        "{mount}"
    );
    assert_eq!(answers[1]["error"], "EROFS");
}

fn a_tmpfs_can_be_mapped(lab: &Lab) {
    let mount = json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs",
        "options": ["idmap", "mode=1777", "uid=3", "gid=4"],
        "uidMappings": map(0, 50, 9), "gidMappings": map(0, 60, 9) });
    let bundle = lab
        .bundle()
        .mount(mount)
        .set("/process/user", json!({ "uid": 55, "gid": 66 }));
    let answers = lab.ask(bundle, "stat /tmp -- create /tmp/x y -- stat /tmp/x");
    assert_eq!(owner(&answers[0]), (53, 64));
    assert_eq!(answers[1], true);
    assert_eq!(owner(&answers[2]), (55, 66));
}

/// It is made outside: ids on it are the left side of the mapping, and the container's root is 0.
fn a_tmpfs_in_a_user_namespace_can_be_mapped(lab: &Lab) {
    let mount = json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs",
        "options": ["ridmap", "mode=755", "uid=3", "gid=4"] });
    let bundle = in_user_namespace(lab.bundle().mount(mount));
    assert_eq!(owner(&lab.ask(bundle, "stat /tmp")[0]), (3, 4));
}

fn a_filesystem_that_cannot_be_mapped_is_named(lab: &Lab) {
    let mappings = (map(0, 50, 9), map(0, 60, 9));
    let bind = mapped(
        Path::new("/proc/sys"),
        &["bind", "idmap"],
        mappings.0.clone(),
        mappings.1.clone(),
    );
    lab.run(&lab.bundle().mount(bind).payload("exit 0"))
        .refused()
        .says("/mounts/7")
        .says("/tmp <- /proc/sys")
        .says("filesystem proc does not support id-mapped mounts")
        .says("invalid argument");
    let typed = json!({ "destination": "/tmp", "type": "mqueue", "source": "mqueue",
        "options": ["idmap"], "uidMappings": mappings.0, "gidMappings": mappings.1 });
    lab.run(&lab.bundle().mount(typed).payload("exit 0"))
        .refused()
        .says("/mounts/7")
        .says("filesystem mqueue does not support id-mapped mounts");
}

fn a_mount_that_is_mapped_already_is_refused(lab: &Lab) {
    let source = owned(lab, 7, 8);
    let rootfs = lab.bundle();
    let first = mapped(&source, &["bind", "idmap"], map(0, 50, 9), map(0, 60, 9));
    let again = rootfs.rootfs().join("tmp");
    let mut second = mapped(&again, &["bind", "idmap"], map(0, 70, 9), map(0, 80, 9));
    second["destination"] = json!("/mnt");
    let bundle = rootfs.dir("mnt").mount(first).mount(second);
    lab.run(&bundle.payload("exit 0"))
        .refused()
        .says("/mounts/8")
        .says("mapped already")
        .says("operation not permitted");
}

fn a_remount_cannot_map(lab: &Lab) {
    let mount = mapped(
        Path::new("x"),
        &["bind", "remount", "idmap"],
        map(0, 5, 9),
        map(0, 6, 9),
    );
    lab.run(&lab.bundle().mount(mount))
        .refused()
        .says("/mounts/7")
        .says("a remount can't map ids");
}

/// runc's "mount order, container idmap source".
fn what_an_entry_before_mounted_can_be_mapped(lab: &Lab) {
    let source = owned(lab, 7, 8);
    let bundle = lab.bundle().dir("mnt").dir("tmp");
    let first = bundle.rootfs().join("mnt");
    let mount = mapped(&first, &["bind", "idmap"], map(0, 50, 9), map(0, 60, 9));
    let bundle = bundle.bind(&source, "/mnt", &["bind"]).mount(mount);
    let answers = lab.ask(bundle, "stat /mnt/file -- stat /tmp/file");
    assert_eq!(owner(&answers[0]), (7, 8));
    assert_eq!(owner(&answers[1]), (57, 68));
}

/// runc's "mount order, container idmap source (userns)". Mapping takes privileges over the filesystem,
/// which init hasn't then: husk does it.
fn what_was_mounted_inside_can_be_mapped_for_a_user_namespace(lab: &Lab) {
    let source = owned(lab, 7, 8);
    let bundle = lab.bundle().dir("mnt").dir("tmp").dir("srv");
    let first = bundle.rootfs().join("mnt");
    let container = mapped(&first, &["bind", "idmap"], json!([]), json!([]));
    let (uids, gids) = (map(0, 100_050, 9), map(0, 100_060, 9));
    let own = at(mapped(&first, &["bind", "idmap"], uids, gids), "/srv");
    let bundle = bundle
        .bind(&source, "/mnt", &["bind"])
        .mount(container)
        .mount(own);
    let words = "stat /mnt/file -- stat /tmp/file -- stat /srv/file";
    let answers = lab.ask(in_user_namespace(bundle), words);
    assert_eq!(owner(&answers[0]), NOBODY);
    assert_eq!(owner(&answers[1]), (7, 8));
    assert_eq!(owner(&answers[2]), (57, 68));
}

fn what_was_mounted_inside_and_mapped_cannot_be_mapped_again(lab: &Lab) {
    let source = owned(lab, 7, 8);
    let bundle = lab.bundle().dir("mnt").dir("tmp");
    let first = bundle.rootfs().join("mnt");
    let once = mapped(&source, &["bind", "idmap"], json!([]), json!([]));
    let twice = mapped(&first, &["bind", "idmap"], json!([]), json!([]));
    let bundle = bundle.mount(at(once, "/mnt")).mount(twice);
    lab.run(&in_user_namespace(bundle))
        .refused()
        .says("/mounts/8")
        .says("id-mapped already");
}

fn ids_that_do_not_exist_here_are_refused(lab: &Lab) {
    let overlapping = json!([
        { "containerID": 0, "hostID": 5, "size": 9 },
        { "containerID": 3, "hostID": 500, "size": 9 },
    ]);
    let mount = mapped(
        Path::new("/etc"),
        &["bind", "idmap"],
        overlapping,
        map(0, 6, 9),
    );
    lab.run(&lab.bundle().mount(mount))
        .refused()
        .says("/mounts/7/uidMappings/1")
        .says("overlap");
}
