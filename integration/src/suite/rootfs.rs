//! The root filesystem: read-only root, propagation, default devices, masked and
//! read-only paths, pivot_root.

use std::fs;
use std::os::unix::fs::symlink;

use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};

use super::tests;
use crate::bundle::set_mode;
use crate::lab::Lab;

tests! {
    the_root_is_the_bundles,
    a_readonly_root_cannot_be_written,
    a_readonly_root_leaves_other_mounts_writable,
    a_writable_root_can_be_written,
    the_host_is_out_of_reach_after_pivot_root,
    no_mount_of_the_host_is_left_in_the_container,
    root_propagation_is_applied,
    a_mount_on_the_host_reaches_a_slave_root,
    a_mount_on_the_host_does_not_reach_a_private_root,
    a_mount_in_the_container_does_not_reach_the_host,
    default_devices_are_there,
    default_devices_work,
    default_links_are_there,
    an_image_that_has_its_own_dev_entries_is_served,
    devices_of_the_config_are_made,
    a_device_over_another_kind_of_file_is_refused,
    a_device_of_the_config_may_be_a_default_one,
    devices_in_a_user_namespace_are_the_hosts,
    masked_files_and_directories_show_nothing,
    masked_paths_that_do_not_exist_are_ignored,
    readonly_paths_cannot_be_written,
    readonly_paths_keep_the_flags_of_their_mount,
    a_masked_path_of_the_image_is_masked,
    default_masks_hide_what_they_should,
    nothing_is_left_in_the_image_but_mount_points,
    a_root_on_a_noexec_filesystem_is_told,
    a_root_that_is_a_mount_of_its_own_works,
    cwd_is_entered_and_made_when_missing,
}

fn the_root_is_the_bundles(lab: &Lab) {
    let bundle = lab.bundle().file("etc/where", "here");
    assert_eq!(lab.ask(bundle, "cat /etc/where"), [json!("here")]);
}

fn a_readonly_root_cannot_be_written(lab: &Lab) {
    let bundle = lab.bundle().file("etc/where", "here").dir("data");
    let rootfs = bundle.rootfs();
    let errors = lab.ask(
        bundle,
        "write /etc/where x -- mkdir /data/x -- rm /etc/where -- create /x x",
    );
    assert!(errors.iter().all(|e| e["error"] == "EROFS"), "{errors:?}");
    assert_eq!(
        fs::read_to_string(rootfs.join("etc/where")).unwrap(),
        "here"
    );
}

fn a_readonly_root_leaves_other_mounts_writable(lab: &Lab) {
    let shared = lab.path("shared");
    fs::create_dir(&shared).unwrap();
    let bundle = lab.bundle().bind(&shared, "/tmp", &["bind"]);
    assert_eq!(
        lab.ask(bundle, "create /tmp/x y -- create /dev/shm/x y"),
        [json!(true), json!(true)]
    );
    assert_eq!(fs::read_to_string(shared.join("x")).unwrap(), "y");
}

fn a_writable_root_can_be_written(lab: &Lab) {
    let bundle = lab.bundle().writable();
    let rootfs = bundle.rootfs();
    assert_eq!(lab.ask(bundle, "create /etc/new y"), [json!(true)]);
    assert_eq!(fs::read_to_string(rootfs.join("etc/new")).unwrap(), "y");
}

fn the_host_is_out_of_reach_after_pivot_root(lab: &Lab) {
    let canary = lab.path("canary");
    fs::write(&canary, "host").unwrap();
    let bundle = lab
        .bundle()
        .capabilities(&["CAP_SYS_ADMIN", "CAP_SYS_CHROOT"])
        .dir("sub");
    // The classic way out of a chroot.
    let words = format!(
        "ls / -- stat {0} -- chroot /sub -- stat ../../../../../../{0} -- chdir ../../../../../.. -- ls .",
        canary.display(),
    );
    let answers = lab.ask(bundle, &words);
    assert_eq!(answers[1]["error"], "ENOENT");
    assert_eq!(answers[3]["error"], "ENOENT");
    assert_eq!(answers[5], answers[0], "left the container's root");
}

fn no_mount_of_the_host_is_left_in_the_container(lab: &Lab) {
    let facts = lab.facts(&lab.bundle());
    let targets: Vec<&str> = mounts(&facts)
        .iter()
        .map(|m| m["target"].as_str().unwrap())
        .collect();
    let expected = ["/", "/proc", "/dev", "/sys"];
    assert!(expected.iter().all(|e| targets.contains(e)), "{targets:?}");
    for target in &targets {
        let known = *target == "/" || expected[1..].iter().any(|e| target.starts_with(e));
        assert!(known, "{target} in {targets:?}");
    }
}

fn mounts(facts: &Value) -> &Vec<Value> {
    facts["mounts"].as_array().unwrap()
}

fn root_propagation_of(facts: &Value) -> String {
    let root = mounts(facts).iter().find(|m| m["target"] == "/").unwrap();
    let words = root["propagation"].as_array().unwrap();
    words
        .iter()
        .map(|w| w.as_str().unwrap())
        .collect::<Vec<_>>()
        .join(" ")
}

fn root_propagation_is_applied(lab: &Lab) {
    for (given, word) in [
        ("private", ""),
        ("rprivate", ""),
        ("shared", "shared:"),
        ("rshared", "shared:"),
        ("unbindable", "unbindable"),
    ] {
        let facts = lab.facts(&lab.bundle().set("/linux/rootfsPropagation", given));
        let found = root_propagation_of(&facts);
        assert!(
            found.starts_with(word) && found.is_empty() == word.is_empty(),
            "{given}: {found:?}"
        );
    }
}

/// A shared directory of the host, bound into the container.
fn with_a_shared_mount(lab: &Lab, propagation: &str, how: &str) -> Value {
    let outside = lab.path("outside");
    fs::create_dir(&outside).unwrap();
    let none = None::<&str>;
    mount(Some("x"), &outside, Some("tmpfs"), MsFlags::empty(), none).unwrap();
    mount(none, &outside, none, MsFlags::MS_SHARED, none).unwrap();
    fs::create_dir(outside.join("later")).unwrap();
    let bundle = lab
        .bundle()
        .set("/linux/rootfsPropagation", propagation)
        .bind(&outside, "/tmp", &["rbind", how])
        .payload("pause");
    let container = lab.start(&bundle);
    mount(
        Some("y"),
        &outside.join("later"),
        Some("tmpfs"),
        MsFlags::empty(),
        none,
    )
    .unwrap();
    fs::write(outside.join("later/file"), "").unwrap();
    let seen = container.ask("ls /tmp/later").remove(0);
    container.end();
    nix::mount::umount(&outside.join("later")).unwrap();
    nix::mount::umount2(&outside, nix::mount::MntFlags::MNT_DETACH).unwrap();
    seen
}

fn a_mount_on_the_host_reaches_a_slave_root(lab: &Lab) {
    assert_eq!(
        with_a_shared_mount(lab, "rslave", "rslave"),
        json!(["file"])
    );
}

fn a_mount_on_the_host_does_not_reach_a_private_root(lab: &Lab) {
    assert_eq!(with_a_shared_mount(lab, "rprivate", "rprivate"), json!([]));
}

fn a_mount_in_the_container_does_not_reach_the_host(lab: &Lab) {
    let none = None::<&str>;
    let shared = lab.path("shared");
    fs::create_dir(&shared).unwrap();
    mount(Some(&shared), &shared, none, MsFlags::MS_BIND, none).unwrap();
    mount(none, &shared, none, MsFlags::MS_SHARED, none).unwrap();
    let before = crate::mountinfo::targets();
    let bundle = lab
        .bundle()
        .capabilities(&["CAP_SYS_ADMIN"])
        .bind(&shared, "/tmp", &["rbind"])
        .payload("mkdir /tmp/x -- mount x /tmp/x tmpfs none -- create /tmp/x/file y -- pause");
    let container = lab.start(&bundle);
    let answers = container.wait_for_lines(3);
    assert_eq!(answers, [json!(true), json!(true), json!(true)]);
    assert_eq!(crate::mountinfo::targets(), before);
    container.end();
    nix::mount::umount(&shared).unwrap();
}

const DEVICES: [(&str, u64, u64); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

fn assert_default_devices(answers: &[Value]) {
    for ((path, major, minor), stat) in DEVICES.iter().zip(answers) {
        assert_eq!(stat["type"], "char", "{path}: {stat}");
        assert_eq!(
            (&stat["major"], &stat["minor"]),
            (&json!(major), &json!(minor)),
            "{path}"
        );
        assert_eq!(stat["mode"], 0o666, "{path}");
    }
}

fn stat_devices() -> String {
    DEVICES
        .map(|(path, ..)| format!("stat {path}"))
        .join(" -- ")
}

fn default_devices_are_there(lab: &Lab) {
    let answers = lab.ask(lab.bundle(), &stat_devices());
    assert_default_devices(&answers);
    assert!(
        answers.iter().all(|s| s["uid"] == 0 && s["gid"] == 0),
        "{answers:?}"
    );
}

fn default_devices_work(lab: &Lab) {
    let words = "write /dev/null x -- cat /dev/null -- read-byte /dev/zero -- read-byte /dev/urandom \
                 -- write /dev/full x -- open /dev/tty r -- open /dev/ptmx rw";
    let answers = lab.ask(lab.bundle(), words);
    assert_eq!(answers[..4], [json!(true), json!(""), json!(1), json!(1)]);
    assert_eq!(answers[4]["error"], "ENOSPC");
    assert_eq!(
        answers[5]["error"], "ENXIO",
        "there is no controlling terminal"
    );
    assert_eq!(answers[6], true);
}

fn default_links_are_there(lab: &Lab) {
    let words = "readlink /dev/fd -- readlink /dev/stdin -- readlink /dev/stdout -- readlink /dev/stderr \
                 -- readlink /dev/ptmx";
    let answers = lab.ask(lab.bundle(), words);
    let expected = [
        "/proc/self/fd",
        "/proc/self/fd/0",
        "/proc/self/fd/1",
        "/proc/self/fd/2",
    ];
    assert_eq!(answers[..4], expected.map(|e| json!(e)));
    assert!(
        ["/dev/pts/ptmx", "pts/ptmx"].contains(&answers[4].as_str().unwrap_or("")),
        "{answers:?}"
    );
}

/// No tmpfs over /dev, and the image brings some entries with it.
fn an_image_that_has_its_own_dev_entries_is_served(lab: &Lab) {
    let bundle = lab.bundle().writable().only_mounts(&["/proc"]);
    let dev = bundle.rootfs().join("dev");
    nix::sys::stat::mknod(
        &dev.join("null"),
        nix::sys::stat::SFlag::S_IFCHR,
        nix::sys::stat::Mode::from_bits_truncate(0o666),
        nix::sys::stat::makedev(1, 3),
    )
    .unwrap();
    symlink("/proc/self/fd", dev.join("fd")).unwrap();
    symlink("/proc/self/fd/1", dev.join("stdout")).unwrap();
    set_mode(&dev.join("null"), 0o666);
    let answers = lab.ask(
        bundle,
        &format!("{} -- readlink /dev/stdin", stat_devices()),
    );
    assert_default_devices(&answers);
    assert_eq!(answers[6], "/proc/self/fd/0");
}

fn devices_of_the_config_are_made(lab: &Lab) {
    let devices = json!([
        { "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 3, "gid": 4 },
        { "path": "/dev/deep/er/loop", "type": "b", "major": 7, "minor": 9, "fileMode": 0o600 },
        { "path": "/dev/fifo", "type": "p", "fileMode": 0o622, "uid": 1, "gid": 2 },
        { "path": "/dev/unbuffered", "type": "u", "major": 10, "minor": 200 },
        { "path": "/tmp/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666 },
    ]);
    let bundle = lab.bundle().writable().set("/linux/devices", devices);
    let words = "stat /dev/fuse -- stat /dev/deep/er/loop -- stat /dev/fifo -- stat /dev/unbuffered -- stat /tmp/null";
    let answers = lab.ask(bundle, words);
    let expected = [
        ("char", 10, 229, 0o640, 3, 4),
        ("block", 7, 9, 0o600, 0, 0),
        ("fifo", 0, 0, 0o622, 1, 2),
        ("char", 10, 200, 0o666, 0, 0),
        ("char", 1, 3, 0o666, 0, 0),
    ];
    for (stat, (kind, major, minor, mode, uid, gid)) in answers.iter().zip(expected) {
        assert_eq!(stat["type"], kind, "{stat}");
        if kind != "fifo" {
            assert_eq!(
                (&stat["major"], &stat["minor"]),
                (&json!(major), &json!(minor))
            );
        }
        let unset = stat["path"] == "/dev/unbuffered";
        assert!(unset || stat["mode"] == mode, "{stat}");
        assert_eq!((&stat["uid"], &stat["gid"]), (&json!(uid), &json!(gid)));
    }
}

fn a_device_over_another_kind_of_file_is_refused(lab: &Lab) {
    let device = json!([{ "path": "/etc/thing", "type": "c", "major": 1, "minor": 3 }]);
    let bundle = lab
        .bundle()
        .file("etc/thing", "a file")
        .set("/linux/devices", device);
    let rootfs = bundle.rootfs();
    lab.run(&bundle).code(1);
    assert_eq!(
        fs::read_to_string(rootfs.join("etc/thing")).unwrap(),
        "a file"
    );
}

fn a_device_of_the_config_may_be_a_default_one(lab: &Lab) {
    let device =
        json!([{ "path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666 }]);
    let bundle = lab.bundle().set("/linux/devices", device);
    assert_default_devices(&lab.ask(bundle, &stat_devices()));
}

/// mknod(2) is refused there: they are bound from the host.
fn devices_in_a_user_namespace_are_the_hosts(lab: &Lab) {
    let device =
        json!([{ "path": "/dev/mine", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666 }]);
    let bundle = lab.bundle().user_namespace(100_000, 65536);
    let words = format!(
        "{} -- write /dev/null x -- read-byte /dev/zero",
        stat_devices()
    );
    let answers = lab.ask(bundle, &words);
    for ((path, major, minor), stat) in DEVICES.iter().zip(&answers) {
        assert_eq!(stat["type"], "char", "{path}: {stat}");
        assert_eq!(
            (&stat["major"], &stat["minor"]),
            (&json!(major), &json!(minor)),
            "{path}"
        );
    }
    assert_eq!(answers[6..], [json!(true), json!(1)]);
    let bundle = lab
        .bundle()
        .user_namespace(100_000, 65536)
        .set("/linux/devices", device);
    // There is no such file on the host to bind: an error, never an ordinary file instead.
    let output = lab.run(&bundle.payload("stat /dev/mine -- write /dev/mine x"));
    if output.end == crate::output::End::Code(0) {
        assert_eq!(output.lines()[0]["type"], "char");
    }
}

fn masked_files_and_directories_show_nothing(lab: &Lab) {
    let bundle = lab
        .bundle()
        .file("etc/secret", "secret")
        .file("etc/secrets/one", "secret")
        .set("/linux/maskedPaths", json!(["/etc/secret", "/etc/secrets", "/proc/self/limits"]))
        .payload("cat /etc/secret -- ls /etc/secrets -- create /etc/secrets/x y -- cat /proc/self/limits");
    let answers = lab.run(&bundle).ok().lines();
    assert_eq!(answers[..2], [json!(""), json!([])]);
    assert_eq!(answers[2]["error"], "EROFS");
}

fn masked_paths_that_do_not_exist_are_ignored(lab: &Lab) {
    let bundle = lab
        .bundle()
        .set(
            "/linux/maskedPaths",
            json!(["/no/such", "/proc/nothing", "/etc"]),
        )
        .set(
            "/linux/readonlyPaths",
            json!(["/no/such/either", "/proc/nothing"]),
        );
    assert_eq!(lab.ask(bundle, "ls /etc"), [json!([])]);
}

fn readonly_paths_cannot_be_written(lab: &Lab) {
    let bundle = lab
        .bundle()
        .writable()
        .file("etc/dir/file", "x")
        .file("etc/file", "x")
        .set(
            "/linux/readonlyPaths",
            json!(["/etc/dir", "/etc/file", "/proc/sys"]),
        );
    let words = "write /etc/dir/file y -- create /etc/dir/new y -- write /etc/file y -- create /etc/other y \
                 -- write /proc/sys/kernel/domainname y";
    let answers = lab.ask(bundle, words);
    for (n, answer) in answers.iter().enumerate() {
        if n == 3 {
            assert_eq!(*answer, true);
        } else {
            assert_eq!(answer["error"], "EROFS", "{n}");
        }
    }
}

fn readonly_paths_keep_the_flags_of_their_mount(lab: &Lab) {
    let bundle = lab
        .bundle()
        .mount(
            json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "noexec", "nodev", "size=1m"] }),
        )
        .set("/linux/readonlyPaths", json!(["/tmp"]));
    let facts = lab.facts(&bundle);
    let last = mounts(&facts)
        .iter()
        .rfind(|m| m["target"] == "/tmp")
        .unwrap();
    for option in ["ro", "nosuid", "noexec", "nodev"] {
        assert!(
            last["options"].as_array().unwrap().contains(&json!(option)),
            "{last}"
        );
    }
}

fn a_masked_path_of_the_image_is_masked(lab: &Lab) {
    let bundle = lab
        .bundle()
        .file("etc/real/key", "secret")
        .link("etc/alias", "real")
        .set("/linux/maskedPaths", json!(["/etc/alias"]));
    let answers = lab.ask(bundle, "ls /etc/alias -- ls /etc/real");
    assert_eq!(answers, [json!([]), json!([])]);
}

fn default_masks_hide_what_they_should(lab: &Lab) {
    let words = "cat /proc/keys -- cat /proc/timer_list -- ls /proc/acpi -- ls /sys/firmware \
                 -- write /proc/sysrq-trigger h -- write /proc/sys/vm/drop_caches 1";
    for answer in lab.ask(lab.bundle(), words) {
        let empty = answer == json!("") || answer == json!([]);
        let denied =
            ["ENOENT", "EROFS", "EACCES"].contains(&answer["error"].as_str().unwrap_or(""));
        assert!(empty || denied, "{answer}");
    }
}

fn nothing_is_left_in_the_image_but_mount_points(lab: &Lab) {
    let bundle = lab
        .bundle()
        .writable()
        .bind("/etc/hostname", "/etc/deep/hostname", &["bind"]);
    let rootfs = bundle.rootfs();
    let before = every_path(&rootfs);
    lab.run(&bundle.payload("exit 0")).ok();
    let mut after = every_path(&rootfs);
    after.retain(|path| !before.contains(path));
    assert_eq!(after, ["/etc/deep", "/etc/deep/hostname"]);
    assert_eq!(
        fs::metadata(rootfs.join("etc/deep/hostname"))
            .unwrap()
            .len(),
        0
    );
}

fn every_path(dir: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(next) = pending.pop() {
        for entry in fs::read_dir(next).unwrap().flatten() {
            let path = entry.path();
            found.push(format!("/{}", path.strip_prefix(dir).unwrap().display()));
            if entry.file_type().unwrap().is_dir() {
                pending.push(path);
            }
        }
    }
    found.sort();
    found
}

fn a_root_on_a_noexec_filesystem_is_told(lab: &Lab) {
    let bundle = lab.bundle();
    let rootfs = bundle.rootfs();
    let none = None::<&str>;
    mount(Some(&rootfs), &rootfs, none, MsFlags::MS_BIND, none).unwrap();
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_NOEXEC;
    mount(none, &rootfs, none, flags, none).unwrap();
    let output = lab.run(&bundle.payload("exit 0"));
    assert_ne!(output.end, crate::output::End::Code(0));
    assert!(
        output.stderr.to_lowercase().contains("permission denied"),
        "{output}"
    );
    nix::mount::umount(&rootfs).unwrap();
}

/// As engines do: the root filesystem is an overlay or a bind mount already.
fn a_root_that_is_a_mount_of_its_own_works(lab: &Lab) {
    let bundle = lab.bundle().writable().file("etc/where", "here");
    let rootfs = bundle.rootfs();
    let none = None::<&str>;
    mount(Some(&rootfs), &rootfs, none, MsFlags::MS_BIND, none).unwrap();
    mount(none, &rootfs, none, MsFlags::MS_SHARED, none).unwrap();
    let before = crate::mountinfo::targets();
    assert_eq!(
        lab.ask(bundle, "cat /etc/where -- create /etc/x y"),
        [json!("here"), json!(true)]
    );
    assert_eq!(crate::mountinfo::targets(), before);
    nix::mount::umount(&rootfs).unwrap();
}

fn cwd_is_entered_and_made_when_missing(lab: &Lab) {
    let facts = lab.facts(
        &lab.bundle()
            .dir("work/here")
            .set("/process/cwd", "/work/here"),
    );
    assert_eq!(facts["cwd"], "/work/here");
    let bundle = lab
        .bundle()
        .writable()
        .set("/process/cwd", "/not/there/yet");
    assert_eq!(lab.facts(&bundle)["cwd"], "/not/there/yet");
}
