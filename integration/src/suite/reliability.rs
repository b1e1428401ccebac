//! Nothing waits for ever, and what can't be done is said in time.

use std::fs;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::tests;
use crate::bundle::{Bundle, PAYLOAD};
use crate::lab::{Lab, eventually};
use crate::need::Need;
use crate::output::End;
use crate::stuck::Stuck;
use crate::systemd::StandIn;

const HUSK: &[Need] = &[Need::Husk];
const FUSE: &[Need] = &[Need::Husk, Need::Fuse];
const USERS: &[Need] = &[Need::Husk, Need::Program("prlimit")];

tests! {
    delete_force_ends_a_start_whose_hook_hangs.needs(HUSK),
    delete_force_ends_a_create_whose_hook_in_the_container_hangs.needs(HUSK),
    a_signal_ends_run_while_a_hook_hangs.needs(HUSK),
    a_timed_out_hook_takes_along_what_left_its_session.needs(HUSK),
    an_agent_that_never_accepts_is_an_error.needs(HUSK),
    groups_that_cannot_be_dropped_are_an_error.needs(HUSK),
    a_full_disk_is_an_error_and_leaves_nothing.needs(HUSK),
    a_read_only_root_directory_is_an_error.needs(HUSK),
    without_proc_nothing_is_made_and_nobody_declared_dead.needs(HUSK),
    a_created_container_ends_when_its_record_is_gone.needs(HUSK),
    delete_force_ends_hooks_on_the_host_that_hang.needs(HUSK).seconds(120),
    delete_force_ends_a_create_that_was_stopped.needs(HUSK).seconds(60),
    delete_force_spares_a_hook_that_comes_to_its_end.needs(HUSK).seconds(60),
    who_waits_in_the_kernel_keeps_nobody_for_ever.needs(FUSE).seconds(120),
    who_outlives_the_first_process_in_the_kernel_is_deleted_later.needs(FUSE).seconds(120),
    nobody_holds_an_engines_descriptors.needs(HUSK),
    a_hook_on_the_host_ends_with_a_killed_husk.needs(HUSK),
    a_full_table_of_processes_is_an_error.needs(USERS),
    systemd_that_is_stopped_is_an_error_in_time.needs(HUSK).seconds(200),
}

/// What a container's process waits for in a hook: a file that never comes.
fn hangs(lab: &Lab, kind: &str, program: &str) -> (Bundle, std::path::PathBuf) {
    let mark = lab.path("reached");
    let hook = match kind {
        "startContainer" => vec![program.to_owned(), "sleep".into(), "100".into()],
        _ => vec![
            "/bin/sh".into(),
            "-c".into(),
            format!("touch {}; sleep 100", mark.display()),
        ],
    };
    let words: Vec<&str> = hook.iter().map(String::as_str).collect();
    (lab.bundle().payload("pause").hook(kind, &words), mark)
}

#[track_caller]
fn in_time<T>(limit: Duration, what: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let done = what();
    assert!(begin.elapsed() < limit, "took {:?}", begin.elapsed());
    done
}

fn delete_force_ends_a_start_whose_hook_hangs(lab: &Lab) {
    let (bundle, _) = hangs(lab, "startContainer", PAYLOAD);
    let container = lab.create(&bundle);
    let pid = container.pid();
    let mut start = container.command("start", &[]).spawn();
    let children = format!("/proc/{pid}/task/{pid}/children");
    let is_there = || fs::read_to_string(&children).is_ok_and(|text| !text.trim().is_empty());
    assert!(eventually(is_there));
    in_time(Duration::from_secs(8), || container.force_delete());
    assert_ne!(start.wait().end, End::Code(0));
    container.command("state", &[]).run().code(1);
}

fn delete_force_ends_a_create_whose_hook_in_the_container_hangs(lab: &Lab) {
    let (bundle, mark) = hangs(lab, "createContainer", PAYLOAD);
    let id = lab.id();
    let mut create = lab.on_bundle("create", &bundle, &[], &id).spawn();
    assert!(eventually(|| mark.exists()));
    in_time(Duration::from_secs(8), || {
        lab.runtime(["delete", "--force", &id]).run().ok()
    });
    create.wait().code(1);
    lab.runtime(["state", &id]).run().code(1);
}

fn a_signal_ends_run_while_a_hook_hangs(lab: &Lab) {
    for (kind, signal) in [
        ("prestart", Signal::SIGINT),
        ("createRuntime", Signal::SIGTERM),
        ("poststart", Signal::SIGHUP),
    ] {
        let (bundle, mark) = hangs(lab, kind, PAYLOAD);
        let mut run = lab.run_with(&bundle, &[]).spawn();
        assert!(eventually(|| mark.exists()));
        kill(Pid::from_raw(run.pid()), signal).unwrap();
        let output = in_time(Duration::from_secs(8), || run.wait()).code(1);
        let words = format!("interrupted by {signal}");
        assert!(output.stderr.contains(&words), "{output}");
    }
}

fn a_timed_out_hook_takes_along_what_left_its_session(lab: &Lab) {
    let mark = lab.path("mark");
    let script = format!(
        "setsid sleep 100 & sleep 0.2; touch {}; sleep 100",
        mark.display()
    );
    let hook = json!([{
        "path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 1, "env": ["PATH=/usr/bin:/bin"]
    }]);
    let bundle = lab
        .bundle()
        .set("/hooks/createRuntime", hook)
        .payload("exit 0");
    lab.run(&bundle).code(1);
    assert!(mark.exists());
    // Adopted by this test, if it lived.
    assert_eq!(lab.finish(), Ok(()));
}

fn an_agent_that_never_accepts_is_an_error(lab: &Lab) {
    let path = lab.path("agent");
    let listener = UnixListener::bind(&path).unwrap();
    // As many as the backlog takes: the next one waits.
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(1).unwrap()).unwrap();
    let waiting: Vec<UnixStream> = (0..2)
        .map(|_| UnixStream::connect(&path).unwrap())
        .collect();
    let bundle = lab.bundle().payload("pause").set(
        "/linux/seccomp",
        json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "listenerPath": path,
            "syscalls": [{ "names": ["getppid"], "action": "SCMP_ACT_NOTIFY" }],
        }),
    );
    let container = lab.create(&bundle);
    container.pid();
    in_time(Duration::from_secs(9), || {
        container
            .command("start", &[])
            .run()
            .refused()
            .says("timed out");
    });
    container.wait();
    container.delete();
    drop(waiting);
}

/// Without CAP_SETGID the caller's groups would stay the program's.
fn groups_that_cannot_be_dropped_are_an_error(lab: &Lab) {
    let through = [
        "setpriv",
        "--groups",
        "4242",
        "--inh-caps",
        "-setgid",
        "--bounding-set",
        "-setgid",
    ];
    let bundle = lab.bundle().payload("facts");
    let output = lab.run_with(&bundle, &[]).through(&through).run();
    output.refused().says("set groups");
}

fn small_tmpfs(lab: &Lab, flags: MsFlags) -> std::path::PathBuf {
    let place = lab.path("disk");
    fs::create_dir(&place).unwrap();
    mount(
        Some("disk"),
        &place,
        Some("tmpfs"),
        flags,
        Some("size=4k,mode=755"),
    )
    .unwrap();
    place
}

fn a_full_disk_is_an_error_and_leaves_nothing(lab: &Lab) {
    let place = small_tmpfs(lab, MsFlags::empty());
    // The one page that there is.
    fs::write(place.join("full"), "x").unwrap();
    let bundle = lab.bundle().payload("exit 0");
    let id = lab.id();
    bundle.write(&id);
    let root = place.to_str().unwrap();
    let dir = bundle.dir.to_str().unwrap();
    let husk = |words: &[&str]| lab.bare(words).global(&["--root", root]).run();
    husk(&["create", "--bundle", dir, &id])
        .refused()
        .says("no space left on device");
    assert_eq!(fs::read_dir(&place).unwrap().count(), 1);
    assert!(!crate::cgroup::path(&id).exists());
    // With room it goes on as if nothing had been.
    fs::remove_file(place.join("full")).unwrap();
    husk(&["delete", "--force", &id]).ok();
    nix::mount::umount(&place).unwrap();
}

fn a_read_only_root_directory_is_an_error(lab: &Lab) {
    let place = small_tmpfs(lab, MsFlags::MS_RDONLY);
    let bundle = lab.bundle().payload("exit 0");
    let id = lab.id();
    bundle.write(&id);
    let root = place.join("husk");
    for root in [place.to_str().unwrap(), root.to_str().unwrap()] {
        let dir = bundle.dir.to_str().unwrap();
        let husk = |words: &[&str]| lab.bare(words).global(&["--root", root]).run();
        husk(&["create", "--bundle", dir, &id])
            .refused()
            .says("read-only file system");
        husk(&["state", &id]).refused().says("does not exist");
    }
    assert!(!crate::cgroup::path(&id).exists());
    nix::mount::umount(&place).unwrap();
}

/// A husk that can't look must not take what lives for dead.
fn without_proc_nothing_is_made_and_nobody_declared_dead(lab: &Lab) {
    let container = lab.start(&lab.bundle().payload("pause"));
    // The numbers of another pid namespace are as good as none.
    let once = "umount -l /proc && exec \"$@\"";
    let all = "while umount -l /proc 2>/dev/null; do :; done; exec \"$@\"";
    let through = ["unshare", "-m", "sh", "-c", all, "sh"];
    for script in [once, all] {
        let through = ["unshare", "-m", "sh", "-c", script, "sh"];
        for word in ["state", "delete", "kill"] {
            let command = container.command(word, &[]).through(&through);
            let output = in_time(Duration::from_secs(5), || command.run());
            assert_ne!(output.end, End::Code(0), "{output}");
            assert!(output.stderr.contains("/proc"), "{output}");
        }
    }
    let id = lab.id();
    let bundle = lab.bundle().payload("exit 0");
    let command = lab.on_bundle("create", &bundle, &[], &id).through(&through);
    let output = in_time(Duration::from_secs(5), || command.run());
    assert_ne!(output.end, End::Code(0), "{output}");
    lab.runtime(["state", &id]).run().code(1);
    assert_eq!(container.status(), "running");
    container.end();
}

fn a_created_container_ends_when_its_record_is_gone(lab: &Lab) {
    let container = lab.create(&lab.bundle().payload("pause"));
    let cgroup = container.cgroup();
    container.pid();
    fs::remove_dir_all(lab.root.join(&container.id)).unwrap();
    container.wait();
    fs::remove_dir(cgroup).unwrap();
}

/// What hangs has no timeout, and something of it in a session of its own.
fn delete_force_ends_hooks_on_the_host_that_hang(lab: &Lab) {
    for kind in ["createRuntime", "poststart", "poststop"] {
        let mark = lab.path("mark");
        let script = format!(
            "setsid sleep 1000 & sleep 0.2; touch {}; sleep 1000",
            mark.display()
        );
        let hook = json!([{
            "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]
        }]);
        let bundle = lab
            .bundle()
            .set(&format!("/hooks/{kind}"), hook)
            .payload("pause");
        let id = lab.id();
        let mut hanging = lab.on_bundle("create", &bundle, &[], &id);
        if kind != "createRuntime" {
            hanging.run().ok();
            let word = if kind == "poststart" {
                "start"
            } else {
                "delete"
            };
            hanging = lab.runtime([word, &id]);
        }
        let mut hanging = hanging.patience(Duration::from_secs(30)).spawn();
        assert!(eventually(|| mark.exists()), "{kind}");
        let delete = lab
            .runtime(["delete", "--force", &id])
            .patience(Duration::from_secs(20));
        let took = in_time(Duration::from_secs(9), || {
            let begin = Instant::now();
            delete.run().ok();
            begin.elapsed()
        });
        assert!(took > Duration::from_secs(4), "{kind}: {took:?}");
        let ended = hanging.wait();
        match kind {
            "poststop" => ended.ok(),
            _ => ended.code(1),
        };
        // The hook, with what has left its session.
        assert_eq!(lab.finish(), Ok(()), "{kind}");
    }
}

fn delete_force_ends_a_create_that_was_stopped(lab: &Lab) {
    let (bundle, mark) = hangs(lab, "createRuntime", PAYLOAD);
    let id = lab.id();
    let mut create = lab
        .on_bundle("create", &bundle, &[], &id)
        .patience(Duration::from_secs(30))
        .spawn();
    assert!(eventually(|| mark.exists()));
    kill(Pid::from_raw(create.pid()), Signal::SIGSTOP).unwrap();
    let delete = lab
        .runtime(["delete", "--force", &id])
        .patience(Duration::from_secs(20));
    in_time(Duration::from_secs(9), || delete.run().ok());
    create.wait().code(1);
}

/// Who tears down a network isn't killed for being asked twice.
fn delete_force_spares_a_hook_that_comes_to_its_end(lab: &Lab) {
    let (begun, ended) = (lab.path("begun"), lab.path("ended"));
    let script = format!(
        "touch {}; sleep 2; touch {}",
        begun.display(),
        ended.display()
    );
    let hook =
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"] }]);
    let container = lab.create(&lab.bundle().set("/hooks/poststop", hook).payload("pause"));
    container.pid();
    let mut first = container.command("delete", &["--force"]).spawn();
    assert!(eventually(|| begun.exists()));
    container.force_delete();
    assert!(ended.exists());
    first.wait().ok();
}

/// Its first process is in state D: neither signals nor the freezer reach it.
fn who_waits_in_the_kernel_keeps_nobody_for_ever(lab: &Lab) {
    let stuck = Stuck::mount(&lab.path("stuck")).unwrap();
    let bundle = lab
        .bundle()
        .dir("stuck")
        .bind(&stuck.path, "/stuck", &["rbind"])
        .payload("ready -- wait-for /stuck/x");
    let container = lab.start(&bundle);
    let pid = container.pid();
    assert!(eventually(|| stuck.is_waited_for()));
    let patiently = |word: &str, options: &[&str]| {
        let command = container
            .command(word, options)
            .patience(Duration::from_secs(20));
        in_time(Duration::from_secs(13), || command.run())
    };
    container.kill_with("KILL").ok();
    let is_stuck = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ")
            .next()
            .is_some_and(|rest| rest.starts_with('D'))
    };
    assert!(eventually(is_stuck));
    patiently("pause", &[]).refused().says("doesn't stop");
    assert_eq!(container.status(), "running");
    let exec = container
        .exec_with(&[], "/bin/payload facts")
        .patience(Duration::from_secs(20));
    in_time(Duration::from_secs(13), || exec.run());
    patiently("delete", &["--force"])
        .refused()
        .says("is still there after 10 s");
    // It can be asked again, and finds the end when that has come.
    assert_eq!(container.status(), "running");
    let list = lab.runtime(["list", "-q"]).run().ok().stdout;
    assert_eq!(list.trim(), container.id);
    drop(stuck);
    container.wait();
    container.force_delete();
}

/// Without a pid namespace the first process ends, and the cgroup is busy: that is said, and the record stays.
fn who_outlives_the_first_process_in_the_kernel_is_deleted_later(lab: &Lab) {
    let stuck = Stuck::mount(&lab.path("stuck")).unwrap();
    let bundle = lab
        .bundle()
        .dir("stuck")
        .bind(&stuck.path, "/stuck", &["rbind"])
        .without_namespace("pid")
        .payload("ready -- pause");
    let container = lab.start(&bundle);
    let cgroup = container.cgroup();
    let words = "/bin/payload wait-for /stuck/x";
    container.exec_with(&["--detach"], words).run().ok();
    assert!(eventually(|| stuck.is_waited_for()));
    let delete = || {
        let command = container.command("delete", &["--force"]);
        let command = command.patience(Duration::from_secs(30));
        in_time(Duration::from_secs(13), || command.run())
    };
    for _ in 0..2 {
        let refused = delete().refused();
        refused
            .says("remove cgroup")
            .says("device or resource busy");
        assert!(cgroup.exists());
        assert_eq!(container.status(), "stopped");
    }
    drop(stuck);
    container.wait();
    container.force_delete();
    assert!(!cgroup.exists());
}

fn reap_all(lab: &Lab) {
    let is_alone = || lab.left().iter().all(|thing| !thing.starts_with("process"));
    assert!(eventually(is_alone));
}

/// Who waits for the end of what a container and its runtime write sees it when both are gone.
fn nobody_holds_an_engines_descriptors(lab: &Lab) {
    let (bundle, mark) = hangs(lab, "createContainer", PAYLOAD);
    let plain = lab.bundle().payload("pause");
    for (bundle, is_killed) in [(&plain, false), (&bundle, true)] {
        let (mut other, end) = std::io::pipe().unwrap();
        let (mut passed, passed_end) = std::io::pipe().unwrap();
        let id = lab.id();
        let mut create = lab
            .on_bundle("create", bundle, &["--preserve-fds", "1"], &id)
            .stdout(end)
            .fd(passed_end, 3)
            .spawn();
        match is_killed {
            true => {
                assert!(eventually(|| mark.exists()));
                kill(Pid::from_raw(create.pid()), Signal::SIGKILL).unwrap();
                create.wait();
            }
            false => {
                create.wait().ok();
                lab.runtime(["start", &id]).run().ok();
            }
        }
        drop(create);
        lab.runtime(["delete", "--force", &id]).run().ok();
        for pipe in [&mut other, &mut passed] {
            let is_told = crate::sys::readable(&*pipe, Duration::from_secs(1)).unwrap();
            assert!(is_told, "killed: {is_killed}");
            assert_eq!(std::io::Read::read(pipe, &mut [0]).unwrap(), 0);
        }
        reap_all(lab);
    }
}

/// Nobody could tell any more whose it is.
fn a_hook_on_the_host_ends_with_a_killed_husk(lab: &Lab) {
    for kind in ["createRuntime", "poststart"] {
        let began = lab.path(kind);
        let words = format!(
            "echo $$ > {0}.new; mv {0}.new {0}; exec sleep 1000",
            began.display()
        );
        let bundle = lab.bundle().payload("pause");
        let bundle = bundle.hook(kind, &["/bin/sh", "-c", &words]);
        let id = lab.id();
        let mut hanging = lab.on_bundle("create", &bundle, &[], &id);
        if kind == "poststart" {
            hanging.run().ok();
            hanging = lab.runtime(["start", &id]);
        }
        let mut hanging = hanging.spawn();
        assert!(eventually(|| began.exists()), "{kind}");
        let pid = fs::read_to_string(&began).unwrap().trim().parse().unwrap();
        kill(Pid::from_raw(hanging.pid()), Signal::SIGKILL).unwrap();
        hanging.wait();
        let end = crate::lab::wait_for_child(pid);
        assert_eq!(end, End::Signal(libc::SIGKILL), "{kind}");
        lab.runtime(["delete", "--force", &id]).run().ok();
        assert_eq!(lab.finish(), Ok(()), "{kind}");
    }
}

/// Of the processes of a user namespace's root, which nobody else's count as.
fn a_full_table_of_processes_is_an_error(lab: &Lab) {
    let lab = lab.as_user(Vec::new());
    let lab = lab.further_through(&["unshare", "--user", "--map-root-user"]);
    let mut refused = 0;
    for most in 1..5 {
        let limit = format!("--nproc={most}");
        let bundle = lab
            .bundle()
            .set("/linux/uidMappings/0/hostID", 0)
            .set("/linux/gidMappings/0/hostID", 0)
            .payload("exit 0");
        let id = lab.id();
        let output = lab
            .on_bundle("create", &bundle, &[], &id)
            .last_through(&["prlimit", &limit])
            .run();
        if output.end != End::Code(0) {
            output.refused().says("make process").says("try again");
            refused += 1;
            assert!(!lab.root.join(&id).exists());
        }
        lab.runtime(["delete", "--force", &id]).run().ok();
    }
    assert!(refused > 0);
}

/// As who is busy, or hangs: each command that needs it says so in time, and none is lost for good.
fn systemd_that_is_stopped_is_an_error_in_time(lab: &Lab) {
    let manager = StandIn::start().unwrap();
    let bundle = lab.bundle().payload("pause").set("/linux/cgroupsPath", "");
    let create = |id: &str| {
        lab.on_bundle("create", &bundle, &[], id)
            .global(&["--systemd-cgroup"])
            .patience(Duration::from_secs(60))
    };
    let (id, other) = (lab.id(), lab.id());
    create(&id).run().ok();
    let pid = lab.runtime(["state", &id]).run().ok().json()["pid"]
        .as_i64()
        .unwrap();
    assert!(crate::systemd::scope(&format!("husk-{id}.scope")).exists());
    lab.runtime(["start", &id]).run().ok();
    manager.stop();
    let limit = Duration::from_secs(30) + crate::lab::patience();
    let patiently = |command: crate::lab::Command| {
        in_time(limit, || command.patience(Duration::from_secs(60)).run())
            .refused()
            .says("no answer within 30 s");
    };
    let mut delete = lab
        .runtime(["delete", "--force", &id])
        .patience(Duration::from_secs(60))
        .spawn();
    patiently(create(&other));
    in_time(limit, || delete.wait())
        .refused()
        .says("no answer within 30 s");
    assert!(!lab.root.join(&other).exists());
    // What needs no systemd goes on.
    assert_eq!(
        lab.runtime(["state", &id]).run().ok().json()["status"],
        "stopped"
    );
    manager.go_on();
    lab.runtime(["delete", "--force", &id]).run().ok();
    crate::lab::wait_for_child(i32::try_from(pid).unwrap());
    assert!(!crate::systemd::scope(&format!("husk-{id}.scope")).exists());
}
