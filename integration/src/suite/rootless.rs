//! husk without root: as an ordinary user, and as root of a user namespace.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use serde_json::{Value, json};

use super::tests;
use crate::lab::Lab;
use crate::need::Need;
use crate::output::End;
use crate::pty::{ConsoleSocket, Pty};
use crate::user::{FIRST, Ranges, UID, give};

tests! {
    what_spec_writes_runs_as_it_is.needs(&[Need::Husk]),
    a_users_container_lives_through_all_its_states,
    exec_enters_all_namespaces_of_a_users_container,
    exec_before_the_start_is_for_the_maker.needs(&[Need::Husk]),
    a_range_of_ids_comes_by_newuidmap.needs(&[Need::Program("newuidmap")]),
    a_missing_newuidmap_is_named.needs(&[Need::Husk]),
    ids_that_were_not_granted_are_refused_with_the_remedy.needs(&[Need::Husk, Need::Program("newuidmap")]),
    root_of_a_user_namespace_shares_it_with_the_container,
    root_of_a_user_namespace_makes_another_below.needs(&[Need::Program("newuidmap")]),
    root_of_a_namespace_without_mounts_of_its_own.needs(&[Need::Husk]),
    a_users_container_needs_a_user_namespace,
    groups_need_a_range_of_groups.needs(&[Need::Husk]),
    a_users_terminal_in_the_foreground,
    a_users_terminal_by_a_console_socket,
    the_runtime_runs_from_a_sealed_copy.needs(&[Need::Husk]),
    records_are_below_xdg_runtime_dir.needs(&[Need::Husk]),
    without_xdg_runtime_dir_the_error_says_so.needs(&[Need::Husk]),
    an_oom_score_below_the_callers_is_only_a_warning.needs(&[Need::Husk]),
    a_hard_limit_above_the_callers_is_an_error,
}

fn user(lab: &Lab) -> Lab {
    lab.as_user(Vec::new())
}

/// As root of a user namespace that maps the user and, with [`Ranges`], his range; `more` are further
/// options of unshare(1).
fn root_of_a_namespace(lab: &Lab, more: &[&str]) -> Lab {
    let user = user(lab);
    let mut words = vec!["unshare", "--user"];
    words.extend(more);
    user.further_through(&words)
}

fn what_spec_writes_runs_as_it_is(lab: &Lab) {
    let lab = user(lab);
    let bundle = lab.bundle().executable("bin/sh", "#!/bin/payload facts\n");
    let dir = bundle.dir.to_str().unwrap();
    lab.runtime(["spec", "--rootless", "--bundle", dir])
        .run()
        .ok();
    let mut pty = Pty::new(24, 80);
    let mut run = pty.spawn(lab.runtime(["run", "--bundle", dir, &lab.id()]));
    run.wait().ok();
    let text = pty.wait_for("\"umask\"").to_owned();
    let facts = crate::output::lines(text.trim(), &text).remove(0);
    assert_eq!(facts["uid"], 0);
    assert_eq!(facts["hostname"], "husk");
    assert_eq!(map_of(&facts, "uid_map"), [0, UID, 1]);
    assert_eq!(map_of(&facts, "gid_map"), [0, UID, 1]);
    assert_eq!(facts["setgroups"], "deny");
}

fn map_of(facts: &Value, file: &str) -> Vec<u32> {
    let text = facts[file].as_str().unwrap_or_default();
    let numbers = text.split_whitespace();
    numbers.map(|number| number.parse().unwrap()).collect()
}

fn a_users_container_lives_through_all_its_states(lab: &Lab) {
    let lab = user(lab);
    let container = lab.create(&lab.bundle().payload("ready -- until TERM 7"));
    assert_eq!(container.status(), "created");
    container.start();
    container.wait_for_lines(1);
    assert_eq!(container.status(), "running");
    assert_eq!(
        fs::metadata(format!("/proc/{}", container.pid()))
            .unwrap()
            .uid(),
        UID
    );
    let list = lab.runtime(["list", "--format", "json"]).run().ok().json();
    assert_eq!(list[0]["id"], container.id.as_str());
    container.kill("TERM");
    assert_eq!(container.wait(), End::Code(7));
    assert_eq!(container.status(), "stopped");
    container.delete();
    let killed = lab.start(&lab.bundle().payload("pause"));
    killed.force_delete();
    assert_eq!(killed.wait(), End::Signal(9));
    assert_eq!(fs::read_dir(&lab.root).unwrap().count(), 0);
}

fn exec_enters_all_namespaces_of_a_users_container(lab: &Lab) {
    let lab = user(lab);
    let container = lab.start(&lab.bundle().payload("facts -- pause"));
    let first = container.wait_for_lines(1).remove(0);
    let other = container
        .ask("facts -- write /proc/self/oom_score_adj 500")
        .remove(0);
    assert_eq!(other["ns"], first["ns"]);
    assert_eq!(other["caps"], first["caps"]);
    assert_eq!(other["mounts"], first["mounts"]);
    assert_eq!((&other["uid"], &other["gid"]), (&json!(0), &json!(0)));
    let output = container
        .exec_with(&["--user", "1"], "/bin/payload facts")
        .run();
    assert!(output.code(255).stderr.contains("uid 1 is not mapped"));
    container.end();
}

/// Until then the container's process is husk itself.
fn exec_before_the_start_is_for_the_maker(lab: &Lab) {
    let lab = user(lab);
    let container = lab.create(&lab.bundle().payload("pause"));
    let facts = container.ask("facts").remove(0);
    assert_eq!(facts["uid"], 0);
    assert_eq!(container.status(), "created");
    container.start();
    container.end();
    // Nor is who enters to trace it, and to keep a filter from it that it doesn't have yet.
    let filter = json!({ "defaultAction": "SCMP_ACT_ALLOW" });
    let filtered = lab.bundle().set("/linux/seccomp", filter).payload("pause");
    let container = lab.create(&filtered);
    let output = container.exec_with(&[], "/bin/payload facts").run();
    assert!(output.code(255).stderr.contains("after its start"));
    container.start();
    container.ask("facts");
    container.end();
    // In a pid namespace that others live in it stays closed.
    let container = lab.create(&lab.bundle().without_namespace("pid").only_mounts(&["/dev"]));
    let output = container.exec_with(&[], "/bin/payload facts").run();
    assert!(output.code(255).stderr.contains("after its start"));
    container.end();
}

fn a_range_of_ids_comes_by_newuidmap(lab: &Lab) {
    let _ranges = Ranges::new(lab);
    let lab = user(lab);
    let bundle = lab
        .bundle()
        .with_ranges()
        .set(
            "/process/user",
            json!({ "uid": 1, "gid": 2, "additionalGids": [3, 65536] }),
        )
        .payload("facts -- pause");
    let container = lab.start(&bundle);
    let facts = container.wait_for_lines(1).remove(0);
    assert_eq!(map_of(&facts, "uid_map"), [0, UID, 1, 1, FIRST, 65536]);
    assert_eq!(map_of(&facts, "gid_map"), [0, UID, 1, 1, FIRST, 65536]);
    assert_eq!((&facts["uid"], &facts["gid"]), (&json!(1), &json!(2)));
    assert_eq!(facts["groups"], json!([3, 65536]));
    let process = fs::metadata(format!("/proc/{}", container.pid())).unwrap();
    assert_eq!((process.uid(), process.gid()), (FIRST, FIRST + 1));
    let other = container
        .exec_with(&["--user", "65536:1"], "/bin/payload facts")
        .run()
        .ok()
        .line();
    assert_eq!(other["uid"], 65536);
    container.kill("KILL");
    assert_eq!(container.wait(), End::Signal(9));
    container.delete();
}

fn a_missing_newuidmap_is_named(lab: &Lab) {
    let lab = user(lab);
    let bundle = lab.bundle().with_ranges();
    let bare = lab.path("bin");
    fs::create_dir(&bare).unwrap();
    // In a mount namespace of its own in which distributions' places for it are empty.
    let script = format!(
        "for dir in /usr/bin /usr/local/bin /bin; do mount --bind {} $dir; done; exec \"$@\"",
        bare.display()
    );
    for name in ["mount", "setpriv", "sh"] {
        let program = crate::need::find_program(name).unwrap();
        fs::copy(fs::canonicalize(program).unwrap(), bare.join(name)).unwrap();
    }
    let output = lab
        .run_with(&bundle, &[])
        .through(&["unshare", "--mount", "/bin/sh", "-c", &script, "sh"])
        .run();
    let refusal = output.refused();
    refusal
        .says("/linux/gidMappings")
        .says("newgidmap, which is not on PATH")
        .hints("/etc/subgid");
}

fn ids_that_were_not_granted_are_refused_with_the_remedy(lab: &Lab) {
    let _ranges = Ranges::new(lab);
    let lab = user(lab);
    let bundle = lab
        .bundle()
        .with_ranges()
        .set("/linux/uidMappings/1/hostID", 1_000_000);
    lab.run(&bundle)
        .refused()
        .says("/linux/uidMappings")
        .says("not allowed")
        .hints("/etc/subuid needs a line");
}

fn root_of_a_user_namespace_shares_it_with_the_container(lab: &Lab) {
    let lab = root_of_a_namespace(lab, &["--map-root-user", "--mount"]);
    let bundle = lab
        .bundle()
        .without_namespace("user")
        .remove("/linux/uidMappings")
        .remove("/linux/gidMappings")
        .payload("facts -- open /dev/null rw -- pause");
    let container = lab.start(&bundle);
    let lines = container.wait_for_lines(2);
    assert_eq!(map_of(&lines[0], "uid_map"), [0, UID, 1]);
    assert_eq!(lines[1], true);
    assert_eq!(container.status(), "running");
    container.end();
}

/// husk in a container of husk, as podman and docker without root run it: with privileges over a range of
/// ids, and none on the host.
fn root_of_a_user_namespace_makes_another_below(lab: &Lab) {
    let _ranges = Ranges::new(lab);
    let lab = user(lab);
    let map = json!([
        { "containerID": 0, "hostID": 10, "size": 1 },
        { "containerID": 1, "hostID": 0, "size": 1 },
    ]);
    let inner = lab
        .bundle()
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map)
        .set(
            "/process/user",
            json!({ "uid": 1, "gid": 1, "additionalGids": [0] }),
        )
        .payload("facts -- open /dev/null rw");
    inner.write("inner");
    let all = [
        "CHOWN",
        "DAC_OVERRIDE",
        "KILL",
        "NET_ADMIN",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_ADMIN",
        "SYS_CHROOT",
    ]
    .map(|name| format!("CAP_{name}"));
    let outer = lab
        .bundle()
        .with_ranges()
        .capabilities(&all.each_ref().map(String::as_str))
        .set("/linux/maskedPaths", json!([]))
        .set("/linux/readonlyPaths", json!([]))
        .dir("inner")
        .dir("runtime")
        .bind(&inner.dir, "/inner", &["rbind", "rw"])
        .bind(lab.runtime.parent().unwrap(), "/runtime", &["rbind", "ro"])
        .mount(json!({ "destination": "/run", "type": "tmpfs", "source": "run" }));
    let husk = Path::new("/runtime").join(lab.runtime.file_name().unwrap());
    let husk = husk.to_str().unwrap();
    let output = lab
        .run(&outer.args(&[husk, "run", "--bundle", "/inner", "nested"]))
        .ok();
    let lines = output.lines();
    assert_eq!(map_of(&lines[0], "uid_map"), [0, 10, 1, 1, 0, 1]);
    assert_eq!(lines[0]["setgroups"], "allow");
    assert_eq!(
        (&lines[0]["uid"], &lines[0]["groups"]),
        (&json!(1), &json!([0]))
    );
    assert_eq!(lines[1], true);
}

/// There husk may not mount in its own mount namespace, though it has every capability in its user
/// namespace.
fn root_of_a_namespace_without_mounts_of_its_own(lab: &Lab) {
    let lab = root_of_a_namespace(lab, &["--map-root-user"]);
    for bundle in [
        lab.bundle(),
        lab.bundle()
            .without_namespace("user")
            .remove("/linux/uidMappings")
            .remove("/linux/gidMappings"),
    ] {
        let bundle = match bundle.config["linux"]["uidMappings"].is_null() {
            true => bundle,
            false => bundle
                .set("/linux/uidMappings/0/hostID", 0)
                .set("/linux/gidMappings/0/hostID", 0),
        };
        let facts = lab.facts(&bundle);
        assert_eq!(facts["uid"], 0);
    }
}

fn a_users_container_needs_a_user_namespace(lab: &Lab) {
    let lab = user(lab);
    let bundle = lab
        .bundle()
        .without_namespace("user")
        .remove("/linux/uidMappings")
        .remove("/linux/gidMappings");
    let refusal = lab.run(&bundle).refused();
    if lab.is_husk() {
        refusal.says("/linux/namespaces").hints("spec --rootless");
    }
}

fn groups_need_a_range_of_groups(lab: &Lab) {
    let lab = user(lab);
    let bundle = lab.bundle().set("/process/user/additionalGids", json!([0]));
    lab.run(&bundle)
        .refused()
        .says("/process/user/additionalGids")
        .hints("/etc/subgid");
    let container = lab.start(&lab.bundle().payload("pause"));
    let output = container
        .exec_with(&["-g", "0"], "/bin/payload facts")
        .run();
    assert!(output.code(255).stderr.contains("additionalGids"));
    container.end();
}

fn a_users_terminal_in_the_foreground(lab: &Lab) {
    let lab = user(lab);
    let mut pty = Pty::new(30, 90);
    let bundle = lab
        .bundle()
        .set("/process/terminal", true)
        .payload("facts -- stat-target /dev/console -- open /dev/tty rw -- ready");
    let mut run = pty.spawn(lab.run_with(&bundle, &[]));
    run.wait().ok();
    let seen = pty.wait_for("\n\"ready\"").to_owned();
    let lines = crate::output::lines(&seen, &seen);
    assert_eq!(lines[0]["tty"][0], json!({ "rows": 30, "cols": 90 }));
    assert_eq!(
        (&lines[1]["uid"], &lines[1]["type"]),
        (&json!(0), &json!("char"))
    );
    assert_eq!(lines[2], true);
}

fn a_users_terminal_by_a_console_socket(lab: &Lab) {
    let lab = user(lab);
    let path = lab.dir.join("console.sock");
    let socket = ConsoleSocket::new(&path);
    chown(&path, Some(UID), Some(UID)).unwrap();
    let bundle = lab
        .bundle()
        .set("/process/terminal", true)
        .payload("ready -- pause");
    let container = lab.create_with(&bundle, &["--console-socket", socket.path()]);
    let (mut pty, _) = socket.receive();
    container.start();
    pty.wait_for("ready");
    container
        .exec_with(
            &["--tty", "--detach", "--console-socket", socket.path()],
            "/bin/payload ready",
        )
        .run()
        .ok();
    let (mut other, _) = socket.receive();
    other.wait_for("ready");
    container.end();
}

/// CVE-2019-5736 without the privilege to mount: what a container reaches through /proc is a memfd that
/// nobody can write to any more.
fn the_runtime_runs_from_a_sealed_copy(lab: &Lab) {
    let lab = user(lab);
    let container = lab.create(&lab.bundle().payload("pause"));
    let exe = format!("/proc/{}/exe", container.pid());
    assert!(
        fs::read_link(&exe)
            .unwrap()
            .to_string_lossy()
            .contains("memfd:husk")
    );
    let copy = fs::File::open(&exe).unwrap();
    let seals = nix::fcntl::fcntl(&copy, nix::fcntl::FcntlArg::F_GET_SEALS).unwrap();
    let write = nix::fcntl::SealFlag::F_SEAL_WRITE.bits();
    assert_eq!(seals & write, write);
    container.start();
    let before = fs::read(&lab.runtime).unwrap();
    let bundle = lab.bundle().writable().link("bin/self", "/proc/self/exe");
    lab.run(&bundle.args(&["/bin/self", "--version"]));
    assert_eq!(fs::read(&lab.runtime).unwrap(), before);
    container.end();
}

fn records_are_below_xdg_runtime_dir(lab: &Lab) {
    let lab = user(lab);
    let runtime_dir = lab.path("xdg");
    fs::create_dir(&runtime_dir).unwrap();
    give(&runtime_dir);
    let xdg = runtime_dir.to_str().unwrap();
    let id = lab.id();
    let bundle = lab.bundle().payload("pause");
    bundle.write(&id);
    let dir = bundle.dir.to_str().unwrap();
    let bare = |args: &[&str]| {
        lab.bare(args.iter().copied())
            .env("XDG_RUNTIME_DIR", xdg)
            .run()
    };
    bare(&["create", "--bundle", dir, &id]).ok();
    let root = fs::metadata(runtime_dir.join("husk")).unwrap();
    assert_eq!(root.permissions().mode() & 0o7777, 0o1700);
    assert_eq!(root.uid(), UID);
    assert!(runtime_dir.join("husk").join(&id).is_dir());
    bare(&["delete", "--force", &id]).ok();
}

fn without_xdg_runtime_dir_the_error_says_so(lab: &Lab) {
    let lab = user(lab);
    let bundle = lab.bundle();
    bundle.write("x");
    let output = lab
        .bare(["run", "--bundle", bundle.dir.to_str().unwrap(), &lab.id()])
        .run();
    output
        .refused()
        .says("/run/husk")
        .says("permission denied")
        .hints("XDG_RUNTIME_DIR");
}

fn an_oom_score_below_the_callers_is_only_a_warning(lab: &Lab) {
    let lab = user(lab);
    let score = |score: i32| {
        let bundle = lab.bundle().set("/process/oomScoreAdj", score);
        let command = lab
            .run_with(&bundle, &[])
            .global(&["--log-level", "warning"]);
        let output = command.run().ok();
        let facts = output.line();
        (facts["oom_score_adj"].as_i64().unwrap(), output.stderr)
    };
    let own: i64 = fs::read_to_string("/proc/self/oom_score_adj")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let (raised, said) = score(777);
    assert_eq!(raised, 777);
    assert!(!said.contains("oom_score_adj"), "{said}");
    let (kept, said) = score(-500);
    assert_eq!(kept, own);
    assert!(said.contains("oom_score_adj"), "{said}");
}

fn a_hard_limit_above_the_callers_is_an_error(lab: &Lab) {
    let lab = user(lab);
    let limit = json!([{ "type": "RLIMIT_NOFILE", "soft": 2000, "hard": 2000 }]);
    let refusal = lab
        .run_with(&lab.bundle().set("/process/rlimits", limit), &[])
        .through(&["prlimit", "--nofile=1000:1000"])
        .run()
        .refused();
    if lab.is_husk() {
        refusal
            .says("/process/rlimits/0")
            .says("operation not permitted")
            .hints("CAP_SYS_RESOURCE");
    }
}
