//! What engines write: real configurations of podman and containerd, Docker's mounts, and
//! the default seccomp profiles of Docker and podman.

use std::fs;

use serde_json::{Value, json};

use super::mounts::{has, mount_at};
use super::tests;
use crate::bundle::{Bundle, PAYLOAD};
use crate::lab::Lab;
use crate::need::Need;
use crate::output::End;
use crate::profile::{DOCKER, DOCKER_CAPABILITIES, Host, PODMAN, resolve};
use crate::pty::Pty;

tests! {
    podman_run,
    podman_run_with_a_terminal,
    podman_run_privileged,
    podman_run_with_everything.needs(&[Need::Husk]),
    podman_container_of_a_pod,
    containerd_ctr_run,
    containerd_ctr_run_with_seccomp,
    docker_default_mounts_and_masks,
    docker_default_profile_denies_what_it_should,
    docker_default_profile_follows_capabilities,
    podman_default_profile_denies_what_it_should,
    default_profiles_let_ordinary_programs_run,
    default_profiles_hold_for_a_user_without_no_new_privileges,
}

macro_rules! config {
    ($name:literal) => {
        include_str!(concat!("../../data/configs/", $name, ".json"))
    };
}

/// The configuration in a bundle of this suite: what names the engine's host (sources of
/// binds, namespaces by path, the root, hooks) is replaced by what is here.
fn adapted(lab: &Lab, config: &str) -> Bundle {
    let mut config: Value = serde_json::from_str(config).unwrap();
    let sources = lab.path("sources");
    fs::create_dir(&sources).unwrap();
    let bundle = lab.bundle();
    for mount in config["mounts"].as_array_mut().unwrap() {
        let source = mount["source"].as_str().unwrap_or("").to_owned();
        if mount["type"] != "bind" || source == "/etc" {
            continue;
        }
        let place = sources.join(source.rsplit('/').next().unwrap());
        match source.ends_with("shm") {
            true => fs::create_dir(&place).unwrap(),
            false => fs::write(&place, "from the engine").unwrap(),
        }
        mount["source"] = json!(place);
    }
    for namespace in config["linux"]["namespaces"].as_array_mut().unwrap() {
        namespace.as_object_mut().unwrap().remove("path");
    }
    // Without CAP_SYS_RESOURCE no hard limit can be raised.
    config["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 }]);
    config["process"]["args"] = json!([PAYLOAD, "facts"]);
    config["root"]["path"] = json!("rootfs");
    config["linux"]
        .as_object_mut()
        .unwrap()
        .remove("cgroupsPath");
    bundle.change(|own| *own = config)
}

/// That the effect is what the configuration says, as far as facts can tell.
#[track_caller]
fn assert_as_configured(config: &Value, facts: &Value) {
    let process = &config["process"];
    assert_eq!(facts["uid"], process["user"]["uid"]);
    assert_eq!(facts["gid"], process["user"]["gid"]);
    assert_eq!(facts["cwd"], process["cwd"]);
    if let Some(umask) = process["user"].get("umask") {
        assert_eq!(facts["umask"], *umask);
    }
    assert_eq!(facts["nnp"], u8::from(process["noNewPrivileges"] == true));
    let filtered = config["linux"].get("seccomp").is_some();
    assert_eq!(facts["seccomp"], if filtered { 2 } else { 0 });
    let sorted = |list: &Value| {
        let mut names: Vec<String> = list
            .as_array()
            .into_iter()
            .flatten()
            .map(|n| n.as_str().unwrap().into())
            .collect();
        names.sort();
        names
    };
    let here = sorted(&facts["caps"]["bounding"]);
    let mut wanted = sorted(&process["capabilities"]["bounding"]);
    // A privileged container gets what this machine can give.
    wanted.retain(|cap| has_capability(cap));
    assert_eq!(here, wanted);
    for mount in config["mounts"].as_array().unwrap() {
        let target = mount["destination"].as_str().unwrap();
        let found = mount_at(facts, target);
        for option in mount["options"].as_array().unwrap() {
            let option = option.as_str().unwrap();
            if ["ro", "nosuid", "nodev", "noexec"].contains(&option) {
                assert!(has(&found, option), "{option}: {found}");
            }
        }
    }
    let env = facts["env"].as_array().unwrap();
    for variable in process["env"].as_array().unwrap() {
        let (key, value) = variable.as_str().unwrap().split_once('=').unwrap();
        assert!(env.contains(&json!([key, value])), "{variable}");
    }
    if let Some(hostname) = config.get("hostname") {
        assert_eq!(facts["hostname"], *hostname);
    }
}

fn has_capability(name: &str) -> bool {
    let missing = !crate::need::has_sys_resource();
    name != "CAP_SYS_RESOURCE" || !missing
}

fn runs_as_configured(lab: &Lab, config: &str) {
    let bundle = adapted(lab, config);
    assert_as_configured(&bundle.config, &lab.facts(&bundle));
}

fn podman_run(lab: &Lab) {
    runs_as_configured(lab, config!("podman-run"));
}

fn podman_run_with_a_terminal(lab: &Lab) {
    let bundle = adapted(lab, config!("podman-run-tty"))
        .set("/process/terminal", true)
        .payload("facts -- ready");
    let mut pty = Pty::new(24, 80);
    let mut run = pty.spawn(lab.run_with(&bundle, &[]));
    let seen = pty.wait_for("\n\"ready\"").to_owned();
    run.wait().ok();
    let facts = serde_json::from_str(seen.lines().next().unwrap().trim()).unwrap();
    assert_as_configured(&bundle.config, &facts);
    assert_eq!(mount_at(&facts, "/dev/console")["type"], "devpts");
}

fn podman_run_privileged(lab: &Lab) {
    let bundle = adapted(lab, config!("podman-run-privileged"));
    assert_as_configured(&bundle.config, &lab.facts(&bundle));
    // Every device of the host may be made and opened.
    let bundle =
        bundle.payload("mknod /dev/shm/kmsg c 1 11 -- mknod /dev/k c 1 11 -- open /dev/k r");
    let answers = lab.run(&bundle).ok().lines();
    assert_eq!(answers[1..], [json!(true), json!(true)]);
}

/// `--read-only --tmpfs --volume --user --ulimit --oom-score-adj --sysctl --device …`
fn podman_run_with_everything(lab: &Lab) {
    let bundle =
        adapted(lab, config!("podman-run-full")).payload("facts -- ls /hostetc -- create /t/x y");
    let answers = lab.run(&bundle).ok().lines();
    assert_as_configured(&bundle.config, &answers[0]);
    assert_eq!(answers[0]["oom_score_adj"], 100);
    assert!(answers[1].as_array().unwrap().contains(&json!("passwd")));
}

fn podman_container_of_a_pod(lab: &Lab) {
    let pause = lab.start(&lab.bundle().payload("pause"));
    let mut bundle = adapted(lab, config!("podman-pod"));
    for (kind, file) in [("network", "net"), ("ipc", "ipc"), ("uts", "uts")] {
        bundle = bundle.join(kind, format!("/proc/{}/ns/{file}", pause.pid()));
    }
    let facts = lab.facts(&bundle);
    assert_as_configured(&bundle.config, &facts);
    pause.end();
}

fn containerd_ctr_run(lab: &Lab) {
    runs_as_configured(lab, config!("containerd-ctr-run"));
}

fn containerd_ctr_run_with_seccomp(lab: &Lab) {
    let config = config!("containerd-ctr-run-seccomp");
    let bundle = adapted(lab, config);
    if let Some(network) = bundle.config["linux"]["namespaces"].as_array() {
        assert!(
            network.iter().all(|n| n["type"] != "network"),
            "it is on the host's network"
        );
    }
    // A sysfs can't be mounted by one who doesn't own the network: engines bind it then.
    assert_as_configured(&bundle.config, &lab.facts(&bundle));
}

/// As dockerd writes them (daemon/pkg/oci/defaults.go).
fn docker(lab: &Lab) -> Bundle {
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": source, "options": options });
    let mounts = json!([
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"]
        ),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5"
            ]
        ),
        mount(
            "/sys",
            "sysfs",
            "sysfs",
            &["nosuid", "noexec", "nodev", "ro"]
        ),
        mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &["ro", "nosuid", "noexec", "nodev"]
        ),
        mount(
            "/dev/mqueue",
            "mqueue",
            "mqueue",
            &["nosuid", "noexec", "nodev"]
        ),
        mount(
            "/dev/shm",
            "tmpfs",
            "shm",
            &["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"]
        ),
    ]);
    let devices = [
        ("c", None, None, "m"),
        ("b", None, None, "m"),
        ("c", Some(1), Some(5), "rwm"),
        ("c", Some(1), Some(3), "rwm"),
        ("c", Some(5), Some(2), "rwm"),
        ("c", Some(136), None, "rwm"),
    ];
    let mut rules = vec![json!({ "allow": false, "access": "rwm" })];
    for (kind, major, minor, access) in devices {
        let mut rule = json!({ "allow": true, "type": kind, "access": access });
        if let Some(major) = major {
            rule["major"] = json!(major);
        }
        if let Some(minor) = minor {
            rule["minor"] = json!(minor);
        }
        rules.push(rule);
    }
    let paths = |list: &[&str]| json!(list);
    lab.bundle()
        .writable()
        .capabilities(&DOCKER_CAPABILITIES)
        .set("/process/noNewPrivileges", false)
        .set("/process/oomScoreAdj", 0)
        .set("/mounts", mounts)
        .set("/linux/resources", json!({ "devices": rules, "memory": {}, "cpu": { "shares": 0 },
            "pids": {}, "blockIO": { "weight": 0 } }))
        .set("/linux/sysctl", json!({ "net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647" }))
        .set("/linux/maskedPaths", paths(&["/proc/asound", "/proc/acpi", "/proc/interrupts",
            "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
            "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
            "/sys/devices/virtual/powercap"]))
        .set("/linux/readonlyPaths", paths(&["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys",
            "/proc/sysrq-trigger"]))
}

fn docker_default_mounts_and_masks(lab: &Lab) {
    let bundle = docker(lab).payload("facts -- cat /proc/keys -- ls /proc/acpi -- write /proc/sys/kernel/hostname x -- cat /proc/interrupts");
    let answers = lab.run(&bundle).ok().lines();
    assert_as_configured(&bundle.config, &answers[0]);
    assert_eq!(answers[1], "");
    assert_eq!(answers[3]["error"], "EROFS");
    assert_eq!(answers[4], "");
}

fn profile(name: &str, capabilities: &[&str]) -> Value {
    let host = Host {
        architecture: "amd64",
        capabilities,
        kernel: (6, 1),
    };
    serde_json::to_value(resolve(name, &host).unwrap()).unwrap()
}

/// `(call, errno)`; an empty errno for what must be let through.
#[track_caller]
fn check_calls(lab: &Lab, bundle: Bundle, calls: &[(&str, &str)]) {
    let words: Vec<String> = calls
        .iter()
        .map(|(call, _)| format!("syscall {call}"))
        .collect();
    let answers = lab.ask(bundle, &words.join(" -- "));
    for ((call, errno), answer) in calls.iter().zip(&answers) {
        match errno.is_empty() {
            true => assert!(answer["error"].is_null(), "{call}: {answer}"),
            false => assert_eq!(answer["error"], *errno, "{call}"),
        }
    }
}

/// Denied by Docker's profile though the capabilities would do, or none is needed.
const DOCKER_CALLS: [(&str, &str); 16] = [
    ("keyctl 0 -3 0", "EPERM"),
    ("add_key s:user s:a s:b 1 -3", "EPERM"),
    ("unshare 0", "EPERM"),
    ("unshare 0x10000000", "EPERM"),
    ("clone 0x10000011 0 0 0 0", "EPERM"),
    ("clone3 0 0", "ENOSYS"),
    ("personality 0x40000", "EPERM"),
    ("personality 0xffffffff", ""),
    ("personality 0x0", ""),
    ("mount s:x s:/ s:tmpfs 0 0", "EPERM"),
    ("bpf 0 0 0", "EPERM"),
    ("perf_event_open 0 0 0 0 0", "EPERM"),
    ("userfaultfd 0", "EPERM"),
    ("socket 40 1 0", "EPERM"),
    ("socket 2 1 0", ""),
    ("getcwd 0 0", "ERANGE"),
];

fn docker_default_profile_denies_what_it_should(lab: &Lab) {
    let profile = profile(DOCKER, &DOCKER_CAPABILITIES);
    check_calls(
        lab,
        docker(lab).set("/linux/seccomp", profile),
        &DOCKER_CALLS,
    );
}

/// With CAP_SYS_ADMIN the profile lets mount(2) and unshare(2) through.
fn docker_default_profile_follows_capabilities(lab: &Lab) {
    let capabilities: Vec<&str> = DOCKER_CAPABILITIES
        .iter()
        .copied()
        .chain(["CAP_SYS_ADMIN"])
        .collect();
    let bundle = docker(lab)
        .capabilities(&capabilities)
        .set("/linux/seccomp", profile(DOCKER, &capabilities));
    let calls = [
        ("mount s:x s:/tmp s:tmpfs 0 0", ""),
        ("unshare 0x04000000", ""),
        ("keyctl 0 -3 0", "EPERM"),
    ];
    check_calls(lab, bundle, &calls);
}

fn podman_default_profile_denies_what_it_should(lab: &Lab) {
    let profile = profile(PODMAN, &DOCKER_CAPABILITIES);
    let calls = [
        ("mount s:x s:/ s:tmpfs 0 0", "EPERM"),
        ("bpf 0 0 0", "EPERM"),
        ("perf_event_open 0 0 0 0 0", "EPERM"),
        ("open_by_handle_at 0 0 0", "EPERM"),
        ("init_module 0 0 0", "EPERM"),
        ("kexec_load 0 0 0 0", "EPERM"),
        ("socket 2 1 0", ""),
        ("personality 0xffffffff", ""),
        // Its default is "no such call", so that programs fall back to what they know.
        ("600", "ENOSYS"),
    ];
    check_calls(lab, docker(lab).set("/linux/seccomp", profile), &calls);
}

/// Threads, children, sockets, signals, files: through the whole life of a container.
fn default_profiles_let_ordinary_programs_run(lab: &Lab) {
    for name in [DOCKER, PODMAN] {
        let bundle = docker(lab).set("/linux/seccomp", profile(name, &DOCKER_CAPABILITIES));
        let words = "facts -- net -- child echo x -- forks 2 -- create /tmp/x y -- mknod /tmp/fifo p 0 0 \
                     -- chown /tmp/x 5 5 -- until 15 3";
        let container = lab.start(&bundle.payload(words));
        let lines = container.wait_for_lines(8);
        assert_eq!(lines[2]["stdout"], "x\n");
        assert!(
            lines[4..7].iter().all(|line| *line == true),
            "{:?}",
            &lines[4..7]
        );
        container.ask("facts -- child exit 0");
        container.kill("TERM");
        assert_eq!(container.wait(), End::Code(3));
        container.delete();
    }
}

/// Docker's own way: the filter has to be loaded while the privilege for it is still there.
fn default_profiles_hold_for_a_user_without_no_new_privileges(lab: &Lab) {
    for name in [DOCKER, PODMAN] {
        let bundle = docker(lab)
            .set("/linux/seccomp", profile(name, &DOCKER_CAPABILITIES))
            .set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
        let container = lab.start(&bundle.payload("facts -- pause"));
        let facts = container.wait_for_lines(1).remove(0);
        assert_eq!(
            [&facts["seccomp"], &facts["nnp"], &facts["uid"]],
            [&json!(2), &json!(0), &json!(1000)]
        );
        let exec = container.ask("facts -- syscall bpf 0 0 0");
        assert_eq!(exec[0]["seccomp"], 2);
        assert_eq!(exec[1]["error"], "EPERM");
        container.end();
    }
}
