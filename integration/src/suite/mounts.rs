//! The mounts of config.json (spec digest, items 23 to 26).

use std::fs;
use std::path::PathBuf;

use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};

use super::tests;
use crate::lab::Lab;

tests! {
    the_default_mounts_have_their_types_and_options,
    mounts_are_made_in_their_order,
    mounts_are_listed_in_their_order,
    a_shared_bind_mount_reaches_the_host,
    an_option_makes_a_bind_whatever_the_type,
    a_bind_source_may_be_relative_to_the_bundle,
    a_bind_source_may_be_a_link,
    a_file_can_be_bound_over_a_file_and_over_nothing,
    sockets_fifos_and_devices_can_be_bound,
    a_missing_mount_point_is_made,
    a_relative_destination_is_below_the_root,
    a_destination_link_is_followed_inside_the_root,
    a_destination_with_dots_stays_inside_the_root,
    a_mount_over_a_mount_hides_it,
    a_remount_changes_flags,
    mqueue_is_mounted,
    cgroup_shows_the_containers_own_cgroup,
    a_writable_cgroup_mount_can_be_written,
    cgroup_without_a_cgroup_namespace_shows_the_whole_tree,
    sysfs_can_be_mounted_in_a_new_network_namespace,
    devpts_is_a_new_instance,
    a_bind_of_the_hosts_proc_works,
    a_hundred_mounts_work,
    a_mount_below_a_readonly_bind_needs_its_mount_point,
}

/// What the container's mountinfo says of the mount at `target`.
pub(super) fn mount_at(facts: &Value, target: &str) -> Value {
    let mounts = facts["mounts"].as_array().unwrap();
    let found = mounts.iter().rfind(|m| m["target"] == target);
    found
        .unwrap_or_else(|| panic!("nothing at {target} in {mounts:?}"))
        .clone()
}

pub(super) fn has(mount: &Value, option: &str) -> bool {
    ["options", "fs_options"]
        .iter()
        .any(|key| mount[key].as_array().unwrap().contains(&json!(option)))
}

pub(super) fn directory(lab: &Lab) -> PathBuf {
    let dir = lab.path("source");
    fs::create_dir(&dir).unwrap();
    dir
}

fn the_default_mounts_have_their_types_and_options(lab: &Lab) {
    let facts = lab.facts(&lab.bundle());
    let expected: [(&str, &str, &[&str]); 7] = [
        ("/proc", "proc", &["rw"]),
        ("/dev", "tmpfs", &["nosuid", "mode=755", "size=65536k"]),
        (
            "/dev/pts",
            "devpts",
            &["nosuid", "noexec", "gid=5", "mode=620", "ptmxmode=666"],
        ),
        ("/dev/shm", "tmpfs", &["nosuid", "nodev", "noexec"]),
        ("/dev/mqueue", "mqueue", &["nosuid", "nodev", "noexec"]),
        ("/sys", "sysfs", &["ro", "nosuid", "nodev", "noexec"]),
        (
            "/sys/fs/cgroup",
            "cgroup2",
            &["ro", "nosuid", "nodev", "noexec", "relatime"],
        ),
    ];
    for (target, kind, options) in expected {
        let mount = mount_at(&facts, target);
        assert_eq!(mount["type"], kind, "{mount}");
        options
            .iter()
            .for_each(|option| assert!(has(&mount, option), "{option}: {mount}"));
    }
    assert!(has(&mount_at(&facts, "/"), "ro"));
}

fn mounts_are_made_in_their_order(lab: &Lab) {
    let (first, second) = (directory(lab), directory(lab));
    fs::write(first.join("who"), "first").unwrap();
    fs::write(second.join("who"), "second").unwrap();
    fs::create_dir(second.join("sub")).unwrap();
    let bundle = lab
        .bundle()
        .bind(&first, "/tmp", &["bind"])
        .bind(&second, "/tmp", &["bind"])
        .bind(&first, "/tmp/sub", &["bind"]);
    assert_eq!(
        lab.ask(bundle, "cat /tmp/who -- cat /tmp/sub/who"),
        [json!("second"), json!("first")]
    );
}

/// The validation of OCI's runtime-tools, `mounts`: since Linux 6.8 the kernel lists mounts as they were
/// made, whenever they were attached.
fn mounts_are_listed_in_their_order(lab: &Lab) {
    let source = directory(lab);
    let targets = ["/srv/a", "/srv/b", "/srv/c", "/srv/d", "/srv/e"];
    let tmpfs = |target| json!({ "destination": target, "type": "tmpfs", "source": "tmpfs" });
    for options in [
        &["bind"][..],
        &["rbind", "ro"],
        &["rbind", "private", "nosuid"],
        &["rbind", "rshared"],
    ] {
        for user_namespace in [false, true] {
            let bundle = targets
                .iter()
                .fold(lab.bundle(), |made, dir| made.dir(&dir[1..]));
            let bundle = bundle
                .bind(&source, targets[0], options)
                .mount(tmpfs(targets[1]))
                .bind(&source, targets[2], options)
                .mount(tmpfs(targets[3]))
                .bind(&source, targets[4], options);
            let bundle = match user_namespace {
                true => bundle.user_namespace(100_000, 65536),
                false => bundle,
            };
            let order: Vec<String> = bundle.config["mounts"]
                .as_array()
                .unwrap()
                .iter()
                .map(|mount| mount["destination"].as_str().unwrap().to_owned())
                .collect();
            let facts = lab.facts(&bundle);
            let listed: Vec<&str> = facts["mounts"]
                .as_array()
                .unwrap()
                .iter()
                .filter_map(|mount| mount["target"].as_str())
                .filter(|target| order.iter().any(|wanted| wanted == target))
                .collect();
            assert_eq!(
                listed, order,
                "{options:?}, in a user namespace: {user_namespace}"
            );
        }
    }
}

/// What the container mounts in it: for volumes that a container provides, engines ask for both.
fn a_shared_bind_mount_reaches_the_host(lab: &Lab) {
    let none = None::<&str>;
    let source = directory(lab);
    mount(Some(&source), &source, none, MsFlags::MS_BIND, none).unwrap();
    mount(none, &source, none, MsFlags::MS_SHARED, none).unwrap();
    let bundle = lab
        .bundle()
        .capabilities(&["CAP_SYS_ADMIN"])
        .bind(&source, "/tmp", &["rbind", "rshared"])
        .set("/linux/rootfsPropagation", "rshared")
        .payload("mkdir /tmp/x -- mount x /tmp/x tmpfs none -- create /tmp/x/file y -- pause");
    let container = lab.start(&bundle);
    let answers = container.wait_for_lines(3);
    assert_eq!(answers, [json!(true), json!(true), json!(true)]);
    let seen = fs::read_to_string(source.join("x/file"));
    container.end();
    nix::mount::umount(&source.join("x")).unwrap();
    nix::mount::umount(&source).unwrap();
    assert_eq!(seen.unwrap(), "y");
}

fn an_option_makes_a_bind_whatever_the_type(lab: &Lab) {
    let source = directory(lab);
    fs::write(source.join("file"), "x").unwrap();
    for kind in ["bind", "none", "tmpfs", "nonsense", ""] {
        let mount =
            json!({ "destination": "/tmp", "type": kind, "source": source, "options": ["bind"] });
        assert_eq!(
            lab.ask(lab.bundle().mount(mount), "ls /tmp"),
            [json!(["file"])],
            "{kind}"
        );
    }
    let mount = json!({ "destination": "/tmp", "source": source, "options": ["rbind"] });
    assert_eq!(
        lab.ask(lab.bundle().mount(mount), "ls /tmp"),
        [json!(["file"])]
    );
}

fn a_bind_source_may_be_relative_to_the_bundle(lab: &Lab) {
    let bundle = lab.bundle();
    fs::create_dir(bundle.dir.join("data")).unwrap();
    fs::write(bundle.dir.join("data/file"), "x").unwrap();
    assert_eq!(
        lab.ask(bundle.bind("data", "/tmp", &["bind"]), "ls /tmp"),
        [json!(["file"])]
    );
}

fn a_bind_source_may_be_a_link(lab: &Lab) {
    let source = directory(lab);
    fs::write(source.join("file"), "x").unwrap();
    let link = lab.path("link");
    std::os::unix::fs::symlink(&source, &link).unwrap();
    assert_eq!(
        lab.ask(lab.bundle().bind(&link, "/tmp", &["bind"]), "ls /tmp"),
        [json!(["file"])]
    );
}

fn a_file_can_be_bound_over_a_file_and_over_nothing(lab: &Lab) {
    let source = lab.path("file");
    fs::write(&source, "bound").unwrap();
    let bundle = lab
        .bundle()
        .file("etc/there", "image")
        .bind(&source, "/etc/there", &["bind"])
        .bind(&source, "/etc/new/here", &["bind", "ro"]);
    let rootfs = bundle.rootfs();
    let words =
        "cat /etc/there -- cat /etc/new/here -- write /etc/new/here x -- write /etc/there x";
    let answers = lab.ask(bundle, words);
    assert_eq!(answers[..2], [json!("bound"), json!("bound")]);
    assert_eq!(answers[2]["error"], "EROFS");
    assert_eq!(answers[3], true);
    assert_eq!(
        fs::read_to_string(rootfs.join("etc/there")).unwrap(),
        "image"
    );
}

fn sockets_fifos_and_devices_can_be_bound(lab: &Lab) {
    let dir = directory(lab);
    let socket = dir.join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let fifo = dir.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let bundle = lab
        .bundle()
        .bind(&socket, "/run/socket", &["bind"])
        .bind(&fifo, "/run/fifo", &["bind"])
        .bind("/dev/null", "/run/null", &["bind"]);
    let answers = lab.ask(
        bundle,
        "stat /run/socket -- stat /run/fifo -- stat /run/null",
    );
    let kinds: Vec<_> = answers
        .iter()
        .map(|a| a["type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["socket", "fifo", "char"]);
}

fn a_missing_mount_point_is_made(lab: &Lab) {
    let source = directory(lab);
    let bundle = lab.bundle().bind(&source, "/a/b/c", &["bind"]).mount(
        json!({ "destination": "/d/e", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"] }),
    );
    let answers = lab.ask(
        bundle,
        "stat /a -- stat /a/b -- create /a/b/c/x y -- stat /d -- stat /d/e",
    );
    for parent in [0, 1, 3] {
        assert_eq!(answers[parent]["mode"], 0o755, "{}", answers[parent]);
    }
    assert_eq!(answers[2], true);
    assert_eq!(answers[4]["mode"], 0o1777);
}

fn a_relative_destination_is_below_the_root(lab: &Lab) {
    let source = directory(lab);
    fs::write(source.join("file"), "x").unwrap();
    let bundle = lab
        .bundle()
        .bind(&source, "tmp", &["bind"])
        .set("/process/cwd", "/etc");
    assert_eq!(lab.ask(bundle, "ls /tmp"), [json!(["file"])]);
}

fn a_destination_link_is_followed_inside_the_root(lab: &Lab) {
    let canary = directory(lab);
    let source = directory(lab);
    fs::write(source.join("file"), "x").unwrap();
    // Absolute and upward links: both mean something below the container's root.
    let outside = canary
        .strip_prefix("/")
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    let bundle = lab
        .bundle()
        .dir(&outside)
        .dir("real")
        .link("absolute", canary.to_str().unwrap())
        .link("upward", "../../../../../real")
        .bind(&source, "/absolute", &["bind"])
        .bind(&source, "/upward", &["bind"]);
    let words = format!("ls /{outside} -- ls /real");
    let answers = lab.ask(bundle, &words);
    assert_eq!(answers, [json!(["file"]), json!(["file"])]);
    assert_eq!(fs::read_dir(&canary).unwrap().count(), 0);
}

fn a_destination_with_dots_stays_inside_the_root(lab: &Lab) {
    let source = directory(lab);
    fs::write(source.join("file"), "x").unwrap();
    let bundle = lab
        .bundle()
        .bind(&source, "/etc/../../../../tmp/./", &["bind"])
        .bind(&source, "/../../run", &["bind"]);
    assert_eq!(
        lab.ask(bundle, "ls /tmp -- ls /run"),
        [json!(["file"]), json!(["file"])]
    );
}

fn a_mount_over_a_mount_hides_it(lab: &Lab) {
    let source = directory(lab);
    fs::write(source.join("file"), "x").unwrap();
    let bundle = lab.bundle().bind(&source, "/dev/shm", &["bind"]);
    assert_eq!(lab.ask(bundle, "ls /dev/shm"), [json!(["file"])]);
}

fn a_remount_changes_flags(lab: &Lab) {
    let source = directory(lab);
    let bundle = lab.bundle().bind(&source, "/tmp", &["bind"]).mount(
        json!({ "destination": "/tmp", "type": "none", "source": source,
            "options": ["bind", "remount", "ro", "noexec"] }),
    );
    let facts = lab.facts(&bundle);
    let mount = mount_at(&facts, "/tmp");
    assert!(has(&mount, "ro") && has(&mount, "noexec"), "{mount}");
    let count = facts["mounts"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|m| m["target"] == "/tmp")
        .count();
    assert_eq!(count, 1);
}

fn mqueue_is_mounted(lab: &Lab) {
    let answers = lab.ask(lab.bundle(), "statfs /dev/mqueue -- create /dev/mqueue/q x");
    assert_eq!(answers[0]["magic"], "0x19800202");
}

fn cgroup_shows_the_containers_own_cgroup(lab: &Lab) {
    let bundle = lab
        .bundle()
        .payload("cat /sys/fs/cgroup/cgroup.procs -- mkdir /sys/fs/cgroup/x");
    let answers = lab.run(&bundle).ok().lines();
    assert_eq!(answers[0], "1\n");
    assert_eq!(answers[1]["error"], "EROFS");
}

fn a_writable_cgroup_mount_can_be_written(lab: &Lab) {
    let bundle = lab.bundle().change(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        let mount = mounts.iter_mut().find(|m| m["type"] == "cgroup").unwrap();
        mount["options"] = json!(["nosuid", "noexec", "nodev", "relatime", "rw"]);
    });
    let words = "mkdir /sys/fs/cgroup/sub -- cat /sys/fs/cgroup/sub/cgroup.procs -- rmdir /sys/fs/cgroup/sub \
                 -- mkdir /sys/fs/cgroup/stays";
    // What a nested engine leaves below goes with the container.
    assert_eq!(
        lab.ask(bundle, words),
        [json!(true), json!(""), json!(true), json!(true)]
    );
}

fn cgroup_without_a_cgroup_namespace_shows_the_whole_tree(lab: &Lab) {
    let container = lab.start(&lab.bundle().without_namespace("cgroup").payload("pause"));
    let path = format!("/sys/fs/cgroup/{}", container.id);
    let answers = container.ask(&format!("stat {path} -- stat /sys/fs/cgroup/cgroup.procs"));
    let direct = answers[0]["type"] == "dir";
    assert!(direct || answers[1]["type"] == "file", "{answers:?}");
    container.end();
}

fn sysfs_can_be_mounted_in_a_new_network_namespace(lab: &Lab) {
    let answers = lab.ask(lab.bundle(), "ls /sys/class/net -- create /sys/x y");
    assert_eq!(answers[0], json!(["lo"]));
    assert!(answers[1]["error"].is_string());
}

fn devpts_is_a_new_instance(lab: &Lab) {
    let _outside = nix::pty::openpty(None, None).unwrap();
    let answers = lab.ask(lab.bundle(), "ls /dev/pts -- stat /dev/pts/ptmx");
    assert_eq!(answers[0], json!(["ptmx"]));
    assert_eq!(answers[1]["mode"], 0o666);
}

fn a_bind_of_the_hosts_proc_works(lab: &Lab) {
    let bundle = lab
        .bundle()
        .without_namespace("pid")
        .only_mounts(&["/dev", "/sys"])
        .remove("/linux/maskedPaths")
        .remove("/linux/readonlyPaths")
        .bind("/proc", "/proc", &["rbind"]);
    assert_eq!(mount_at(&lab.facts(&bundle), "/proc")["type"], "proc");
}

fn a_hundred_mounts_work(lab: &Lab) {
    let source = directory(lab);
    fs::write(source.join("file"), "x").unwrap();
    let bundle = (0..100).fold(lab.bundle(), |bundle, n| {
        bundle.bind(&source, &format!("/tmp/{n}"), &["bind", "ro", "nosuid"])
    });
    let facts = lab.facts(&bundle);
    let ours = facts["mounts"].as_array().unwrap().iter();
    let count = ours
        .filter(|m| m["target"].as_str().unwrap().starts_with("/tmp/"))
        .count();
    assert_eq!(count, 100);
}

fn a_mount_below_a_readonly_bind_needs_its_mount_point(lab: &Lab) {
    let (outer, inner) = (directory(lab), directory(lab));
    fs::create_dir(outer.join("there")).unwrap();
    fs::write(inner.join("file"), "x").unwrap();
    let bundle =
        lab.bundle()
            .bind(&outer, "/tmp", &["bind", "ro"])
            .bind(&inner, "/tmp/there", &["bind"]);
    assert_eq!(lab.ask(bundle, "ls /tmp/there"), [json!(["file"])]);
}
