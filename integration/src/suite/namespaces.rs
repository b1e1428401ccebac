//! Each kind of namespace: new, joined by path, inherited.

use std::fs::File;
use std::path::PathBuf;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;

use super::tests;
use crate::lab::Lab;
use crate::need::Need;

tests! {
    every_namespace_that_is_asked_for_is_new,
    a_namespace_that_is_not_asked_for_is_inherited,
    an_inherited_mount_namespace_has_the_root_until_it_is_deleted,
    a_root_that_is_covered_is_not_left_in_silence,
    a_joined_mount_namespace_is_as_it_was_after_delete,
    the_first_process_of_a_new_pid_namespace_is_1,
    loopback_is_up_in_a_new_network_namespace,
    namespaces_can_be_joined_by_path,
    a_pid_namespace_can_be_joined,
    a_user_namespace_can_be_joined,
    root_of_a_user_namespace_owns_what_the_others_bring,
    a_namespace_of_another_type_is_refused,
    a_path_that_is_no_namespace_is_refused,
    hostname_is_set_in_the_container_only,
    domainname_is_set,
    nothing_is_set_in_the_runtimes_own_namespaces.needs(&[Need::Husk]),
    user_namespace_maps_ids,
    several_mappings_and_sizes,
    setgroups_works_with_a_mapping_written_by_root,
    a_process_of_a_user_namespace_owns_its_standard_streams,
    user_namespace_without_a_pid_namespace,
    a_cgroup_namespace_is_rooted_at_the_container,
    without_a_cgroup_namespace_the_path_is_the_hosts,
    time_offsets_are_applied,
    exec_has_the_containers_clocks,
    an_ipc_namespace_is_empty,
    a_second_container_shares_the_namespaces_of_the_first,
    exec_joins_every_namespace,
    the_runtime_stays_where_it_was,
}

const KINDS: [(&str, &str); 6] = [
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("mount", "mnt"),
    ("cgroup", "cgroup"),
];

fn own(kind: &str) -> u64 {
    let link = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
    inode(link.to_str().unwrap())
}

fn of(pid: i32, kind: &str) -> u64 {
    let link = std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
    inode(link.to_str().unwrap())
}

fn inode(link: &str) -> u64 {
    link.split_once('[')
        .unwrap()
        .1
        .trim_end_matches(']')
        .parse()
        .unwrap()
}

fn every_namespace_that_is_asked_for_is_new(lab: &Lab) {
    let facts = lab.facts(&lab.bundle().user_namespace(100_000, 65536));
    for (_, kind) in KINDS {
        assert_ne!(facts["ns"][kind], own(kind), "{kind}");
    }
    assert_ne!(facts["ns"]["user"], own("user"));
    assert_eq!(facts["ns"]["time"], own("time"));
}

fn a_namespace_that_is_not_asked_for_is_inherited(lab: &Lab) {
    for (name, kind) in KINDS {
        let mut bundle = lab.bundle().without_namespace(name);
        if name == "uts" {
            bundle = bundle.remove("/hostname");
        }
        if name == "ipc" {
            bundle = bundle.only_mounts(&["/proc", "/dev", "/sys"]);
        }
        let facts = lab.facts(&bundle);
        assert_eq!(facts["ns"][kind], own(kind), "{name}");
        let others = KINDS.iter().filter(|(_, other)| *other != kind);
        others.for_each(|(_, other)| assert_ne!(facts["ns"][other], own(other), "{name}: {other}"));
    }
}

fn an_inherited_mount_namespace_has_the_root_until_it_is_deleted(lab: &Lab) {
    let bundle = lab
        .bundle()
        .without_namespace("mount")
        .set("/linux/maskedPaths", json!(["/proc/version"]))
        .payload("pause");
    let root = bundle.dir.join("rootfs");
    let mounts = || {
        let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let below = format!(" {}", root.display());
        text.lines()
            .filter(|line| line.contains(&below))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let before = mounts();
    let container = lab.start(&bundle);
    let during = mounts();
    assert!(during.len() > before.len() + 3, "{during:?}");
    assert!(
        during[before.len()..]
            .iter()
            .all(|line| !line.contains("shared:")),
        "{during:?}"
    );
    assert!(!std::fs::read_to_string("/proc/version").unwrap().is_empty());
    container.end();
    assert_eq!(mounts(), before);
    // The kernel gives the number of a mount that is gone to the next one.
    if has_lasting_mount_numbers() {
        let none = None::<&str>;
        let container = lab.start(&bundle);
        container.kill("KILL");
        container.wait();
        umount2(&root, MntFlags::MNT_DETACH).unwrap();
        mount(Some(&root), &root, none, MsFlags::MS_BIND, none).unwrap();
        let anothers = mounts();
        container.delete();
        assert_eq!(mounts(), anothers);
        umount2(&root, MntFlags::MNT_DETACH).unwrap();
    }
    // One that fails when the root is mounted already.
    let broken = bundle.mount(json!({
        "destination": "/x", "type": "tmpfs", "source": "tmpfs", "options": ["size=nonsense"],
    }));
    let refused = lab.run(&broken);
    assert!(refused.stderr.contains("nonsense"), "{}", refused.stderr);
    assert_eq!(mounts(), before);
}

fn mounts_below(pid: &str, root: &std::path::Path) -> Vec<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let below = format!(" {}", root.display());
    let lines = text.lines().filter(|line| line.contains(&below));
    lines.map(str::to_owned).collect()
}

/// In an inherited mount namespace: what lies on top is somebody's, what lies below is the container's.
fn a_root_that_is_covered_is_not_left_in_silence(lab: &Lab) {
    let bundle = lab.bundle().without_namespace("mount").payload("pause");
    let root = bundle.dir.join("rootfs");
    let before = mounts_below("self", &root);
    let container = lab.start(&bundle);
    container.kill("KILL");
    container.wait();
    let none = None::<&str>;
    mount(Some("x"), &root, Some("tmpfs"), MsFlags::empty(), none).unwrap();
    let covered = mounts_below("self", &root);
    let delete = container.command("delete", &[]).run();
    if lab.is_husk() {
        let refusal = delete.refused().says("unmount").says("busy");
        refusal.hints("another mount lies on top of it");
        assert_eq!(mounts_below("self", &root), covered);
    }
    umount2(&root, MntFlags::MNT_DETACH).unwrap();
    container.force_delete();
    assert_eq!(mounts_below("self", &root), before);
}

/// The root stays mounted there while the container is, and not longer.
fn a_joined_mount_namespace_is_as_it_was_after_delete(lab: &Lab) {
    use std::os::unix::process::CommandExt;
    let mut sleeper = std::process::Command::new("sleep");
    sleeper.arg("1000");
    // SAFETY: two system calls between fork and exec.
    unsafe {
        sleeper.pre_exec(|| {
            unshare(CloneFlags::CLONE_NEWNS)?;
            let none = None::<&str>;
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            Ok(mount(none, "/", none, private, none)?)
        });
    }
    let mut holder = sleeper.spawn().unwrap();
    let pid = holder.id().to_string();
    let path = format!("/proc/{pid}/ns/mnt");
    let bundle = lab.bundle().join("mount", &path).payload("pause");
    let root = bundle.dir.join("rootfs");
    let before = mounts_below(&pid, &root);
    let own = mounts_below("self", &root);
    let container = lab.start(&bundle);
    assert!(mounts_below(&pid, &root).len() > before.len() + 3);
    container.end();
    assert_eq!(mounts_below(&pid, &root), before);
    // One that fails when the root is mounted already.
    lab.run(&bundle.another().mount(json!({
        "destination": "/x", "type": "tmpfs", "source": "tmpfs", "options": ["size=nonsense"],
    })))
    .code(1);
    assert_eq!(mounts_below(&pid, &root), before);
    assert_eq!(mounts_below("self", &root), own);
    // The namespace ends before the container is deleted.
    let container = lab.start(&bundle);
    container.kill("KILL");
    container.wait();
    holder.kill().unwrap();
    holder.wait().unwrap();
    container.delete();
}

/// Linux 6.8.
fn has_lasting_mount_numbers() -> bool {
    let name = nix::sys::utsname::uname().unwrap();
    let mut numbers = name.release().to_str().unwrap().split(['.', '-']);
    let mut next = || numbers.next().and_then(|text| text.parse::<u32>().ok());
    next().zip(next()) >= Some((6, 8))
}

fn the_first_process_of_a_new_pid_namespace_is_1(lab: &Lab) {
    let facts = lab.facts(&lab.bundle());
    assert_eq!((&facts["pid"], &facts["ppid"]), (&json!(1), &json!(0)));
    let facts = lab.facts(&lab.bundle().without_namespace("pid"));
    assert!(facts["pid"].as_u64() > Some(1));
}

fn loopback_is_up_in_a_new_network_namespace(lab: &Lab) {
    let net = lab.ask(lab.bundle(), "net");
    assert_eq!(net[0]["lo"], json!({ "up": true }), "{net:?}");
}

fn namespaces_can_be_joined_by_path(lab: &Lab) {
    let holder = lab.start(&lab.bundle().payload("pause"));
    for (name, kind) in [
        ("network", "net"),
        ("ipc", "ipc"),
        ("uts", "uts"),
        ("cgroup", "cgroup"),
    ] {
        let path = format!("/proc/{}/ns/{kind}", holder.pid());
        let mut bundle = lab.bundle().join(name, &path);
        if name == "uts" {
            bundle = bundle.remove("/hostname");
        }
        let facts = lab.facts(&bundle);
        assert_eq!(facts["ns"][kind], of(holder.pid(), kind), "{name}");
        if name == "uts" {
            assert_eq!(facts["hostname"], "inside");
        }
    }
    holder.end();
}

fn a_pid_namespace_can_be_joined(lab: &Lab) {
    let holder = lab.start(&lab.bundle().payload("pause"));
    let path = format!("/proc/{}/ns/pid", holder.pid());
    let facts = lab.facts(&lab.bundle().join("pid", &path));
    assert_eq!(facts["ns"]["pid"], of(holder.pid(), "pid"));
    assert!(facts["pid"].as_u64() > Some(1), "{}", facts["pid"]);
    holder.end();
}

fn a_user_namespace_can_be_joined(lab: &Lab) {
    let holder = lab.start(&lab.bundle().user_namespace(100_000, 65536).payload("pause"));
    let user = format!("/proc/{}/ns/user", holder.pid());
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    let bundle = lab
        .bundle()
        .join("user", &user)
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map);
    let facts = lab.facts(&bundle);
    assert_eq!(facts["ns"]["user"], of(holder.pid(), "user"));
    assert_eq!(facts["uid"], 0);
    assert_ne!(facts["ns"]["net"], of(holder.pid(), "net"));
    holder.end();
}

/// The message queues' directory and the loopback device are theirs who made the namespaces.
fn root_of_a_user_namespace_owns_what_the_others_bring(lab: &Lab) {
    let new = || lab.bundle().user_namespace(100_000, 65536);
    let holder = lab.start(&new().payload("pause"));
    let joining = lab
        .bundle()
        .join("user", format!("/proc/{}/ns/user", holder.pid()));
    for bundle in [new(), joining] {
        let answers = lab.ask(bundle, "stat /dev/mqueue -- stat /sys/class/net/lo/mtu");
        for answer in answers {
            assert_eq!(
                (&answer["uid"], &answer["gid"]),
                (&json!(0), &json!(0)),
                "{answer}"
            );
        }
    }
    holder.end();
}

fn a_namespace_of_another_type_is_refused(lab: &Lab) {
    for (name, wrong) in [
        ("network", "uts"),
        ("ipc", "net"),
        ("uts", "ipc"),
        ("pid", "uts"),
    ] {
        let bundle = lab
            .bundle()
            .remove("/hostname")
            .join(name, format!("/proc/self/ns/{wrong}"));
        let output = lab.run(&bundle).code(1);
        assert_eq!(output.stdout, "");
    }
}

fn a_path_that_is_no_namespace_is_refused(lab: &Lab) {
    for path in ["/proc/self/ns/nothing", "/dev/null", "/"] {
        lab.run(&lab.bundle().join("network", path)).code(1);
    }
}

fn hostname_is_set_in_the_container_only(lab: &Lab) {
    let facts = lab.facts(&lab.bundle().set("/hostname", "some.name"));
    assert_eq!(facts["hostname"], "some.name");
    assert_eq!(nix::unistd::gethostname().unwrap(), "suite");
}

fn domainname_is_set(lab: &Lab) {
    let facts = lab.facts(&lab.bundle().set("/domainname", "some.domain"));
    assert_eq!(facts["domainname"], "some.domain");
}

/// Which a path can name, too.
fn nothing_is_set_in_the_runtimes_own_namespaces(lab: &Lab) {
    let lab = lab.with_own_runtime();
    let lab = lab.further_through(&["unshare", "--uts", "--ipc", "--net"]);
    for (kind, file, pointer, value) in [
        ("uts", "uts", "/hostname", json!("others")),
        ("uts", "uts", "/domainname", json!("others")),
        (
            "uts",
            "uts",
            "/linux/sysctl",
            json!({ "kernel.hostname": "others" }),
        ),
        (
            "ipc",
            "ipc",
            "/linux/sysctl",
            json!({ "kernel.msgmax": "4711" }),
        ),
        (
            "network",
            "net",
            "/linux/sysctl",
            json!({ "net.ipv4.ip_forward": "1" }),
        ),
    ] {
        let bundle = || {
            let bundle = lab.bundle().remove("/hostname");
            let bundle = bundle.join(kind, format!("/proc/self/ns/{file}"));
            bundle.set(pointer, value.clone())
        };
        let refused = lab.run(&bundle().payload("exit 0")).refused();
        refused.says(pointer).says("it would change the host");
        let bundle = bundle();
        bundle.write("checked");
        let dir = bundle.dir.to_str().unwrap();
        let check = lab.runtime(["check", dir]).run();
        assert!(check.stdout.contains("it would change the host"), "{check}");
    }
    // What it is called already it may be called.
    let name = nix::unistd::gethostname().unwrap();
    let name = name.to_str().unwrap();
    let bundle = lab.bundle().join("uts", "/proc/self/ns/uts");
    let bundle = bundle.set("/hostname", name);
    assert_eq!(lab.ask(bundle, "facts")[0]["hostname"], name);
}

fn user_namespace_maps_ids(lab: &Lab) {
    let facts = lab.facts(&lab.bundle().user_namespace(100_000, 65536));
    assert_eq!((&facts["uid"], &facts["gid"]), (&json!(0), &json!(0)));
    let map = facts["uid_map"].as_str().unwrap();
    assert_eq!(
        map.split_whitespace().collect::<Vec<_>>(),
        ["0", "100000", "65536"]
    );

    let container = lab.start(
        &lab.bundle()
            .user_namespace(100_000, 65536)
            .set("/process/user/uid", 7)
            .payload("pause"),
    );
    let status = std::fs::read_to_string(format!("/proc/{}/status", container.pid())).unwrap();
    let uid = status.lines().find_map(|l| l.strip_prefix("Uid:")).unwrap();
    assert_eq!(uid.split_whitespace().next(), Some("100007"));
    container.end();
}

fn several_mappings_and_sizes(lab: &Lab) {
    let map = json!([
        { "containerID": 0, "hostID": 100_000, "size": 1 },
        { "containerID": 1, "hostID": 1, "size": 9 },
        { "containerID": 1000, "hostID": 200_000, "size": 50 },
    ]);
    let bundle = lab
        .bundle()
        .namespace("user")
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map)
        .set("/process/user/uid", 1049);
    let facts = lab.facts(&bundle);
    assert_eq!(facts["uid"], 1049);
    assert_eq!(facts["uid_map"].as_str().unwrap().lines().count(), 3);
    assert_eq!(facts["gid_map"].as_str().unwrap().lines().count(), 3);
}

fn setgroups_works_with_a_mapping_written_by_root(lab: &Lab) {
    let bundle = lab
        .bundle()
        .user_namespace(100_000, 65536)
        .set("/process/user/additionalGids", json!([10, 20]));
    let facts = lab.facts(&bundle);
    let mut groups: Vec<_> = facts["groups"].as_array().unwrap().clone();
    groups.retain(|g| *g != json!(0));
    assert_eq!(groups, [json!(10), json!(20)]);
    assert_eq!(facts["setgroups"], "allow");
}

fn a_process_of_a_user_namespace_owns_its_standard_streams(lab: &Lab) {
    let bundle = lab
        .bundle()
        .user_namespace(100_000, 65536)
        .set("/process/user/uid", 7);
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let command = lab.run_with(&bundle.payload("append /proc/self/fd/1 x"), &[]);
    command.stdout(writer).run().ok();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut File::from(reader), &mut text).unwrap();
    assert_eq!(text, "xtrue\n");
}

fn user_namespace_without_a_pid_namespace(lab: &Lab) {
    let bundle = lab
        .bundle()
        .user_namespace(100_000, 65536)
        .without_namespace("pid")
        .only_mounts(&["/dev", "/dev/pts", "/dev/shm", "/sys"])
        .bind("/proc", "/proc", &["rbind"])
        .remove("/linux/maskedPaths")
        .remove("/linux/readonlyPaths");
    let facts = lab.facts(&bundle);
    assert_eq!(facts["ns"]["pid"], own("pid"));
    assert_ne!(facts["ns"]["user"], own("user"));
}

fn a_cgroup_namespace_is_rooted_at_the_container(lab: &Lab) {
    assert_eq!(lab.facts(&lab.bundle())["cgroup"], "/");
}

fn without_a_cgroup_namespace_the_path_is_the_hosts(lab: &Lab) {
    let container = lab.start(&lab.bundle().without_namespace("cgroup"));
    container.wait();
    let facts = container.lines().remove(0);
    assert_eq!(facts["cgroup"], format!("/{}", container.id));
    container.delete();
}

fn time_offsets_are_applied(lab: &Lab) {
    let mut before = std::time::Duration::ZERO;
    if let Ok(text) = std::fs::read_to_string("/proc/uptime") {
        let seconds: f64 = text.split(' ').next().unwrap().parse().unwrap();
        before = std::time::Duration::from_secs_f64(seconds);
    }
    let bundle = lab.bundle().namespace("time").set(
        "/linux/timeOffsets",
        json!({ "monotonic": { "secs": 7000 }, "boottime": { "secs": 90_000, "nanosecs": 5 } }),
    );
    let answers = lab.ask(bundle, "clock -- facts");
    let boottime = answers[0]["boottime"].as_u64().unwrap();
    let expected = before.as_secs() + 90_000;
    assert!(
        (expected..expected + 60).contains(&boottime),
        "{boottime}, not {expected}"
    );
    assert_ne!(answers[1]["ns"]["time"], own("time"));
    let offsets = answers[1]["timens_offsets"].as_str().unwrap();
    let words: Vec<&str> = offsets.split_whitespace().collect();
    assert_eq!(words, ["monotonic", "7000", "0", "boottime", "90000", "5"]);
}

/// runc #4635, with and without a user namespace.
fn exec_has_the_containers_clocks(lab: &Lab) {
    for user_namespace in [false, true] {
        let offsets = json!({
            "monotonic": { "secs": 7881, "nanosecs": 2_718_281 },
            "boottime": { "secs": 1337, "nanosecs": 3_141_519 },
        });
        let mut bundle = lab.bundle().namespace("time");
        if user_namespace {
            bundle = bundle.user_namespace(100_000, 65536);
        }
        let bundle = bundle.set("/linux/timeOffsets", offsets);
        let container = lab.start(&bundle.payload("pause"));
        let facts = container.ask("facts").remove(0);
        let offsets = facts["timens_offsets"].as_str().unwrap();
        let words: Vec<&str> = offsets.split_whitespace().collect();
        let expected = [
            "monotonic",
            "7881",
            "2718281",
            "boottime",
            "1337",
            "3141519",
        ];
        assert_eq!(words, expected);
        container.end();
    }
}

fn an_ipc_namespace_is_empty(lab: &Lab) {
    let queue = "/proc/sysvipc/shm";
    // SAFETY: the call takes numbers; the segment goes with the namespace of the suite.
    let made = unsafe { libc::shmget(libc::IPC_PRIVATE, 4096, 0o600) };
    assert!(made >= 0);
    let inside = lab.ask(lab.bundle(), &format!("cat {queue}"));
    assert_eq!(inside[0].as_str().unwrap().lines().count(), 1, "{inside:?}");
    assert!(std::fs::read_to_string(queue).unwrap().lines().count() > 1);
    // SAFETY: as above; no memory is attached.
    unsafe { libc::shmctl(made, libc::IPC_RMID, std::ptr::null_mut()) };
}

/// As the containers of a pod share those of its pause container.
fn a_second_container_shares_the_namespaces_of_the_first(lab: &Lab) {
    let pause = lab.start(&lab.bundle().set("/hostname", "pod").payload("pause"));
    let ns = |kind: &str| PathBuf::from(format!("/proc/{}/ns/{kind}", pause.pid()));
    let bundle = lab
        .bundle()
        .remove("/hostname")
        .join("network", ns("net"))
        .join("ipc", ns("ipc"))
        .join("uts", ns("uts"));
    let facts = lab.facts(&bundle);
    assert_eq!(facts["hostname"], "pod");
    for kind in ["net", "ipc", "uts"] {
        assert_eq!(facts["ns"][kind], of(pause.pid(), kind));
    }
    for kind in ["pid", "mnt"] {
        assert_ne!(facts["ns"][kind], of(pause.pid(), kind));
    }
    pause.end();
}

fn exec_joins_every_namespace(lab: &Lab) {
    let container = lab.start(&lab.bundle().user_namespace(100_000, 65536).payload("pause"));
    let facts = container.ask("facts").remove(0);
    for kind in ["pid", "net", "ipc", "uts", "mnt", "cgroup", "user"] {
        assert_eq!(facts["ns"][kind], of(container.pid(), kind), "{kind}");
    }
    container.end();
}

/// A network namespace that the caller of the runtime has just made stays the container's
/// own when none is asked for.
fn the_runtime_stays_where_it_was(lab: &Lab) {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let facts = lab.facts(&lab.bundle().without_namespace("network"));
    assert_eq!(facts["ns"]["net"], own("net"));
}
