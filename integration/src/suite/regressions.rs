//! Bugs that a review of the source found: each test is named after what holds since.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

use super::tests;
use crate::bundle::{Bundle, PAYLOAD};
use crate::cgroup;
use crate::container::Container;
use crate::lab::{Command, Lab, eventually, patience};
use crate::need::Need;
use crate::output::End;
use crate::sys;

const HUSK: &[Need] = &[Need::Husk];

tests! {
    a_mount_on_a_device_of_a_user_namespace_stays_inside,
    a_mount_on_a_masked_file_stays_inside,
    state_never_says_created_of_a_running_container.seconds(120),
    create_goes_on_while_others_ask_for_its_state.seconds(120),
    a_create_in_anothers_cgroup_leaves_that_one_running,
    creates_that_race_for_a_cgroup_spare_who_has_it.needs(HUSK),
    deletion_of_a_half_made_container_spares_anothers_cgroup.needs(HUSK),
    a_half_made_container_is_stopped_and_needs_no_force.needs(HUSK),
    listen_fds_meant_for_another_process_are_not_passed.needs(HUSK),
    listen_pid_is_the_programs_own.needs(HUSK),
    a_user_namespace_works_with_a_joined_network_namespace,
    run_ends_though_its_caller_ignores_sigchld,
    an_end_by_a_real_time_signal_is_told,
    exec_follows_the_first_process_of_a_divided_cgroup
        .needs(&[Need::Husk, Need::Controller("hugetlb")]),
    start_of_what_its_filter_kills_fails.needs(HUSK),
    kill_leaves_nothing_of_a_container_in_anothers_pid_namespace,
    a_failed_create_removes_the_upper_directory_it_made.needs(HUSK),
    inheritable_beyond_the_bounding_set_is_a_warning.needs(HUSK),
    create_container_hooks_have_the_callers_umask.needs(HUSK),
    signals_that_the_caller_ignores_have_their_default_inside.needs(HUSK),
    a_create_that_can_write_no_record_leaves_the_id_free.needs(HUSK),
}

fn running(lab: &Lab) -> Container<'_> {
    lab.start(&lab.bundle().payload("pause"))
}

/// A shell that does this before it becomes the runtime.
fn after(shell: &str) -> [String; 4] {
    let line = format!("{shell}; exec \"$@\"");
    ["/bin/sh".into(), "-c".into(), line, "sh".into()]
}

/// What the container's root binds over a clone of a shared mount of the host's would
/// appear there as well.
fn mounted_on(lab: &Lab, bundle: Bundle, path: &str) {
    let none = None::<&str>;
    mount(
        Some("/dev"),
        "/dev",
        none,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        none,
    )
    .unwrap();
    mount(none, "/dev", none, MsFlags::MS_SHARED, none).unwrap();
    let words =
        format!("create /dev/shm/x y -- mount /dev/shm/x {path} none bind -- cat {path} -- pause");
    let bundle = bundle
        .user_namespace(100_000, 65536)
        .capabilities(&["CAP_SYS_ADMIN"])
        .payload(&words);
    let container = lab.start(&bundle);
    assert_eq!(
        container.wait_for_lines(3),
        [json!(true), json!(true), json!("y")]
    );
    for node in ["/dev/full", "/dev/null"] {
        let kind = fs::metadata(node).unwrap().file_type();
        assert!(kind.is_char_device(), "{node} of the host is {kind:?}");
    }
    container.end();
    umount2("/dev", MntFlags::MNT_DETACH).unwrap();
}

fn a_mount_on_a_device_of_a_user_namespace_stays_inside(lab: &Lab) {
    mounted_on(lab, lab.bundle(), "/dev/full");
}

fn a_mount_on_a_masked_file_stays_inside(lab: &Lab) {
    let bundle = lab
        .bundle()
        .file("etc/secret", "secret")
        .set("/linux/maskedPaths", json!(["/etc/secret"]));
    mounted_on(lab, bundle, "/etc/secret");
}

/// Those who ask whether a lock is held must not see each other.
fn state_never_says_created_of_a_running_container(lab: &Lab) {
    const TIMES: usize = 200;
    let container = running(lab);
    let shell = format!("i=0; while [ $((i += 1)) -le {TIMES} ]; do \"$@\" || exit 9; done");
    let mut loops: Vec<_> = (0..4)
        .map(|_| {
            container
                .command("state", &[])
                .through(&["/bin/sh", "-c", &shell, "sh"])
                .patience(patience() * 6)
                .spawn()
        })
        .collect();
    for running in &mut loops {
        let output = running.wait().ok();
        let states: Vec<Value> = serde_json::Deserializer::from_str(&output.stdout)
            .into_iter()
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(states.len(), TIMES);
        assert!(states.iter().all(|state| state["status"] == "running"));
    }
    container.end();
}

/// Nor may they be in the way of who wants the lock.
fn create_goes_on_while_others_ask_for_its_state(lab: &Lab) {
    let id = lab.id();
    let stop = lab.path("stop");
    let shell = format!(
        "while [ ! -e {} ]; do \"$@\" >/dev/null 2>&1; done",
        stop.display()
    );
    let mut asking: Vec<_> = (0..2)
        .map(|_| {
            lab.runtime(["state", &id])
                .through(&["/bin/sh", "-c", &shell, "sh"])
                .patience(patience() * 6)
                .spawn()
        })
        .collect();
    let bundle = lab.bundle().payload("exit 3");
    for _ in 0..40 {
        lab.on_bundle("run", &bundle, &[], &id).run().code(3);
    }
    fs::write(&stop, "").unwrap();
    asking.iter_mut().for_each(|running| drop(running.wait()));
}

#[track_caller]
fn assert_unharmed(container: &Container, dir: &std::path::Path) {
    assert_eq!(container.status(), "running");
    assert_eq!(cgroup::processes(dir), [container.pid()]);
}

fn a_create_in_anothers_cgroup_leaves_that_one_running(lab: &Lab) {
    let path = format!("/{}", lab.id());
    let bundle = lab
        .bundle()
        .set("/linux/cgroupsPath", path.as_str())
        .payload("pause");
    let container = lab.start(&bundle);
    for command in ["create", "run"] {
        let id = lab.id();
        let output = lab.on_bundle(command, &bundle, &[], &id).run();
        if !lab.is_husk() {
            lab.runtime(["delete", "--force", &id]).run().ok();
            continue;
        }
        output.refused().says("not empty");
        assert!(!lab.root.join(&id).exists());
        assert_unharmed(&container, &cgroup::path(&path));
    }
    container.end();
}

/// Both find it empty, and the one that comes too late undoes what it did.
fn creates_that_race_for_a_cgroup_spare_who_has_it(lab: &Lab) {
    let path = format!("/{}", lab.id());
    let bundle = lab
        .bundle()
        .set("/linux/cgroupsPath", path.as_str())
        .payload("pause");
    for _ in 0..15 {
        let mut creates: Vec<_> = (0..4)
            .map(|_| {
                let id = lab.id();
                let create = lab.on_bundle("create", &bundle, &[], &id).spawn();
                (id, create)
            })
            .collect();
        let ends: Vec<_> = creates
            .iter_mut()
            .map(|(_, create)| create.wait().end)
            .collect();
        let made = creates.iter().zip(&ends);
        let made: Vec<_> = made.filter(|(_, end)| **end == End::Code(0)).collect();
        assert_eq!(made.len(), 1, "{ends:?}");
        for ((id, _), _) in &made {
            let state = lab.runtime(["state", id]).run().ok().json();
            assert_eq!(state["status"], "created", "{ends:?}");
        }
        for ((id, _), _) in &made {
            lab.runtime(["delete", "--force", id]).run().ok();
        }
    }
}

/// The record of a create that was killed right after it had written what it was about to
/// make, in the cgroup of that container.
fn half_made(lab: &Lab, like: &Container, cgroup: &str) -> String {
    let record = |id: &str| lab.root.join(id).join("record.json");
    let text = fs::read_to_string(record(&like.id)).unwrap();
    let mut half: Value = serde_json::from_str(&text).unwrap();
    let id = lab.id();
    assert!(half["cgroup"]["inode"].is_u64(), "{half}");
    assert_eq!(half["phase"], "created");
    half["id"] = json!(id);
    half["phase"] = json!("creating");
    half["cgroup"]["below"] = json!(cgroup);
    half["cgroup"]["inode"] = Value::Null;
    half.as_object_mut().unwrap().remove("init");
    fs::create_dir(lab.root.join(&id)).unwrap();
    fs::write(record(&id), half.to_string()).unwrap();
    id
}

fn deletion_of_a_half_made_container_spares_anothers_cgroup(lab: &Lab) {
    let container = running(lab);
    for options in [&["delete", "--force"][..], &["delete"]] {
        let half = half_made(lab, &container, &container.id);
        let words = options.iter().copied().chain([half.as_str()]);
        lab.runtime(words).run().ok();
        assert!(!lab.root.join(&half).exists());
        assert_unharmed(&container, &container.cgroup());
    }
    container.end();
}

fn a_half_made_container_is_stopped_and_needs_no_force(lab: &Lab) {
    let container = running(lab);
    let place = lab.id();
    let half = half_made(lab, &container, &place);
    // Made, but not yet noted in the record.
    fs::create_dir(cgroup::path(&place)).unwrap();
    let kept = lab.path("kept");
    let upper = ["upper", "upper.work"].map(|name| kept.join(name));
    fs::create_dir_all(&upper[0]).unwrap();
    fs::create_dir_all(upper[1].join("work")).unwrap();
    let file = lab.root.join(&half).join("record.json");
    let mut record: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    record["made"] = json!(upper);
    fs::write(&file, record.to_string()).unwrap();
    let state = lab.runtime(["state", &half]).run().ok().json();
    assert_eq!(state["status"], "stopped");
    lab.runtime(["delete", &half]).run().ok();
    assert!(!lab.root.join(&half).exists());
    assert!(!cgroup::path(&place).exists());
    assert_eq!(fs::read_dir(&kept).unwrap().count(), 0);
    container.end();
}

fn open_file(lab: &Lab, text: &str) -> fs::File {
    let path = lab.path("text");
    fs::write(&path, text).unwrap();
    fs::File::open(path).unwrap()
}

fn variable<'a>(facts: &'a Value, name: &str) -> Option<&'a str> {
    let mut all = facts["env"].as_array().unwrap().iter();
    all.find(|pair| pair[0] == name)?[1].as_str()
}

/// sd_listen_fds(3).
fn listen_fds_meant_for_another_process_are_not_passed(lab: &Lab) {
    let other = std::process::id().to_string();
    for pid in [Some(other.as_str()), Some("nonsense"), None] {
        let bundle = lab.bundle().payload("fd-read 3 -- facts");
        let mut run = lab
            .run_with(&bundle, &[])
            .env("LISTEN_FDS", "1")
            .fd(open_file(lab, "three"), 3);
        if let Some(pid) = pid {
            run = run.env("LISTEN_PID", pid);
        }
        let answers = run.run().ok().lines();
        assert_eq!(answers[0]["error"], "EBADF", "{pid:?}");
        assert_eq!(variable(&answers[1], "LISTEN_FDS"), None);
        assert_eq!(variable(&answers[1], "LISTEN_PID"), None);
    }
}

fn listen_pid_is_the_programs_own(lab: &Lab) {
    let listening = after("export LISTEN_PID=$$ LISTEN_FDS=1");
    let listening = listening.each_ref().map(String::as_str);
    let bundle = lab
        .bundle()
        .without_namespace("pid")
        .payload("fd-read 3 -- facts");
    let container = running(lab);
    for command in [
        lab.run_with(&bundle, &[]),
        container.exec_with(&[], "/bin/payload fd-read 3 -- facts"),
    ] {
        let command = command.through(&listening);
        let answers = command.fd(open_file(lab, "three"), 3).run().ok().lines();
        assert_eq!(answers[0], "three");
        let pid = answers[1]["pid"].as_u64().unwrap();
        assert!(pid > 1);
        assert_eq!(variable(&answers[1], "LISTEN_FDS"), Some("1"));
        assert_eq!(
            variable(&answers[1], "LISTEN_PID"),
            Some(pid.to_string().as_str())
        );
    }
    container.end();
}

/// It is joined before the user namespace is entered, whose owner has no right to it.
fn a_user_namespace_works_with_a_joined_network_namespace(lab: &Lab) {
    let made = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        fs::File::open("/proc/thread-self/ns/net").unwrap()
    });
    let network = made.join().unwrap();
    let path = format!("/proc/{}/fd/{}", std::process::id(), network.as_raw_fd());
    // A sysfs is for who owns the network namespace.
    let bundle = lab
        .bundle()
        .only_mounts(&["/proc", "/dev"])
        .user_namespace(100_000, 65536)
        .join("network", path);
    let facts = lab.facts(&bundle);
    assert_eq!(facts["ns"]["net"], network.metadata().unwrap().ino());
    assert_ne!(
        facts["ns"]["user"],
        fs::metadata("/proc/self/ns/user").unwrap().ino()
    );
    assert_eq!(facts["uid"], 0);
}

/// Ignored, children end without a status. A shell doesn't pass that on.
fn run_ends_though_its_caller_ignores_sigchld(lab: &Lab) {
    let deaf = |command: Command| {
        let mut running = command.spawn_after(|| {
            sys::ignore([libc::SIGCHLD]);
            Ok(())
        });
        running.wait()
    };
    let bundle = lab.bundle().payload("exit 7");
    deaf(lab.run_with(&bundle, &[])).code(7);
    let container = running(lab);
    deaf(container.exec_with(&[], "/bin/payload exit 8")).code(8);
    container.end();
}

fn an_end_by_a_real_time_signal_is_told(lab: &Lab) {
    let container = running(lab);
    for signal in [35, 64] {
        let words = format!("signal {signal}");
        container
            .exec(&format!("{PAYLOAD} {words}"))
            .code(128 + signal);
        // The first process of a pid namespace can't raise it itself.
        let bundle = lab.bundle().without_namespace("pid").payload(&words);
        lab.run(&bundle).code(128 + signal);
    }
    container.end();
}

/// As systemd does: cgroups(7), "No internal processes".
fn exec_follows_the_first_process_of_a_divided_cgroup(lab: &Lab) {
    let bundle = lab.bundle().change(|config| {
        for mount in config["mounts"].as_array_mut().unwrap() {
            if mount["type"] == "cgroup" {
                mount["options"] = json!(["rw"]);
            }
        }
    });
    let words = "mkdir /sys/fs/cgroup/init -- write /sys/fs/cgroup/init/cgroup.procs 0 \
        -- write /sys/fs/cgroup/cgroup.subtree_control +hugetlb -- pause";
    let container = lab.start(&bundle.payload(words));
    assert!(container.wait_for_lines(3).iter().all(|a| *a == true));
    assert_eq!(container.ask("facts")[0]["cgroup"], "/init");
    assert_eq!(cgroup::processes(&container.cgroup()), [0_i32; 0]);
    container.end();
}

fn start_of_what_its_filter_kills_fails(lab: &Lab) {
    let kill = "SCMP_ACT_KILL_PROCESS";
    let allow = "SCMP_ACT_ALLOW";
    for profile in [
        json!({ "defaultAction": allow, "syscalls": [
            { "names": ["execve", "execveat"], "action": kill } ] }),
        json!({ "defaultAction": kill, "syscalls": [
            { "names": ["read", "write", "close", "exit_group"], "action": allow } ] }),
    ] {
        let bundle = lab
            .bundle()
            .set("/linux/seccomp", profile)
            .payload("echo never");
        let container = lab.create(&bundle);
        container.pid();
        container.command("start", &[]).run().refused();
        assert_eq!(container.wait(), End::Signal(31));
        assert_eq!(container.status(), "stopped");
        container.delete();
    }
}

fn kill_leaves_nothing_of_a_container_in_anothers_pid_namespace(lab: &Lab) {
    let holder = running(lab);
    let path = format!("/proc/{}/ns/pid", holder.pid());
    let bundle = lab.bundle().join("pid", path).payload("forks 3 -- pause");
    let container = lab.start(&bundle);
    container.wait_for_lines(1);
    let dir = container.cgroup();
    assert_eq!(cgroup::processes(&dir).len(), 4);
    container.kill("KILL");
    assert!(
        eventually(|| cgroup::processes(&dir).is_empty()),
        "{:?}",
        cgroup::processes(&dir)
    );
    container.wait();
    container.delete();
    assert_unharmed(&holder, &holder.cgroup());
    holder.end();
}

fn a_failed_create_removes_the_upper_directory_it_made(lab: &Lab) {
    let parent = lab.path("kept");
    fs::create_dir(&parent).unwrap();
    let option = format!("--overlay={}", parent.join("upper").display());
    let bundle = lab.bundle().args(&["/no/such"]);
    for command in ["create", "run"] {
        lab.on_bundle(command, &bundle, &[&option], &lab.id())
            .run()
            .refused()
            .says("/no/such");
        let left: Vec<_> = fs::read_dir(&parent).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

fn inheritable_beyond_the_bounding_set_is_a_warning(lab: &Lab) {
    let bundle = lab.bundle().capabilities(&["CAP_KILL"]).set(
        "/process/capabilities/inheritable",
        json!(["CAP_KILL", "CAP_NET_RAW"]),
    );
    let run = lab
        .run_with(&bundle, &[])
        .global(&["--log-level", "warning"]);
    let output = run.run().ok();
    assert_eq!(output.line()["caps"]["inheritable"], json!(["CAP_KILL"]));
    assert!(output.stderr.contains("CAP_NET_RAW"), "{output}");
}

fn create_container_hooks_have_the_callers_umask(lab: &Lab) {
    let umask = after("umask 027");
    let umask = umask.each_ref().map(String::as_str);
    for kind in ["createRuntime", "createContainer"] {
        let file = lab.path("told");
        let told = file.to_str().unwrap();
        let bundle = lab
            .bundle()
            .hook(kind, &[lab.host_payload(), "hook", told])
            .payload("exit 0");
        lab.run_with(&bundle, &[]).through(&umask).run().ok();
        let told: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        assert_eq!(told["facts"]["umask"], 0o027, "{kind}");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o640, "{kind}");
    }
}

fn signals_that_the_caller_ignores_have_their_default_inside(lab: &Lab) {
    // The payload's own runtime ignores this one.
    const SIGPIPE: u64 = 1 << 12;
    let container = running(lab);
    for command in [
        lab.run_with(&lab.bundle(), &[]),
        container.exec_with(&[], "/bin/payload facts"),
    ] {
        let mut running = command.spawn_after(|| {
            sys::ignore(1..=64);
            Ok(())
        });
        let facts = running.wait().ok().line();
        let set = |name: &str| {
            let hex = facts["signals"][name].as_str().unwrap();
            u64::from_str_radix(hex, 16).unwrap()
        };
        assert_eq!(set("ignored") & !SIGPIPE, 0);
        assert_eq!(set("blocked"), 0);
    }
    container.end();
}

fn a_create_that_can_write_no_record_leaves_the_id_free(lab: &Lab) {
    let root = lab.path("full");
    fs::create_dir(&root).unwrap();
    // Room for a container's directory, and for no file in it.
    let (none, options) = (None::<&str>, Some("nr_inodes=2"));
    mount(none, &root, Some("tmpfs"), MsFlags::empty(), options).unwrap();
    let bundle = lab.bundle().payload("exit 0");
    let refused = lab
        .run_with(&bundle, &[])
        .global(&["--root", root.to_str().unwrap()])
        .run()
        .code(1);
    let left = fs::read_dir(&root).unwrap().count();
    umount2(&root, MntFlags::MNT_DETACH).unwrap();
    let words = "no space left on device";
    assert!(refused.stderr.contains(words), "{}", refused.stderr);
    assert_eq!(left, 0);
}
