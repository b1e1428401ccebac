//! sd_notify(3): what a program says of its readiness reaches who waits for the runtime.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg};
use serde_json::json;

use super::tests;
use crate::lab::{Lab, eventually, patience};
use crate::need::Need;
use crate::output::End;

tests! {
    start_waits_until_the_program_is_ready,
    a_detached_run_waits_as_well,
    a_foreground_run_passes_it_on_and_stays_the_main_process,
    a_program_that_ends_is_not_waited_for,
    readiness_in_a_longer_message_counts_and_nothing_else_does,
    any_user_of_the_container_may_say_it,
    the_socket_is_there_only_on_demand,
    the_sockets_mode_is_changed_by_no_name.needs(&[Need::Husk, Need::Program("strace")]),
    a_manager_that_is_not_there_is_told_before_the_start,
}

/// systemd, as far as this goes: reads, and closes the descriptors of barriers.
struct Manager {
    path: PathBuf,
    said: Receiver<String>,
}

impl Manager {
    fn new(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        let (say, said) = mpsc::channel();
        std::thread::spawn(move || {
            loop {
                let _ = say.send(next(&socket));
            }
        });
        Manager {
            path: path.to_owned(),
            said,
        }
    }

    fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }

    #[track_caller]
    fn next(&self) -> String {
        self.said.recv_timeout(patience()).expect("no message")
    }

    fn rest(&self) -> Vec<String> {
        self.said.try_iter().collect()
    }
}

fn next(socket: &UnixDatagram) -> String {
    let mut bytes = [0u8; 4096];
    let mut space = nix::cmsg_space!([RawFd; 4]);
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message =
        recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut slices, Some(&mut space), flags).unwrap();
    for control in message.cmsgs().unwrap() {
        if let ControlMessageOwned::ScmRights(fds) = control {
            // SAFETY: the kernel has just made these descriptors for us.
            fds.iter()
                .for_each(|&fd| drop(unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    let length = message.bytes;
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

fn start_waits_until_the_program_is_ready(lab: &Lab) {
    let manager = Manager::new(&lab.path("manager"));
    let bundle = lab
        .bundle()
        .bind(&lab.dir, "/tmp", &["bind"])
        .payload("ready -- wait-for /tmp/go -- notify READY=1 -- pause");
    let id = lab.id();
    let mut created = lab
        .on_bundle("create", &bundle, &[], &id)
        .env("NOTIFY_SOCKET", manager.path())
        .spawn();
    created.wait().ok();
    let container = crate::container::Container::new(lab, id, created);
    let pid = container.pid();
    let start = container.command("start", &[]);
    let mut start = start.env("NOTIFY_SOCKET", manager.path()).spawn();
    container.wait_for_lines(1);
    assert_eq!(manager.rest(), Vec::<String>::new());
    // Nobody is locked out while start waits.
    assert_eq!(container.status(), "running");
    container.ask("facts");
    std::fs::write(lab.dir.join("go"), "").unwrap();
    start.wait().ok();
    assert_eq!(manager.next(), "READY=1\n");
    assert_eq!(manager.next(), format!("MAINPID={pid}\n"));
    assert_eq!(manager.next(), "BARRIER=1");
    container.end();
}

fn a_detached_run_waits_as_well(lab: &Lab) {
    let manager = Manager::new(&lab.path("manager"));
    let bundle = lab.bundle().payload("sleep 0.2 -- notify READY=1 -- pause");
    let id = lab.id();
    let run = lab.on_bundle("run", &bundle, &["--detach"], &id);
    run.env("NOTIFY_SOCKET", manager.path()).run().ok();
    let state = lab.runtime(["state", &id]).run().ok().json();
    assert_eq!(manager.next(), "READY=1\n");
    assert_eq!(manager.next(), format!("MAINPID={}\n", state["pid"]));
    lab.runtime(["delete", "--force", &id]).run().ok();
}

fn a_foreground_run_passes_it_on_and_stays_the_main_process(lab: &Lab) {
    let manager = Manager::new(&lab.path("manager"));
    let bundle = lab.bundle().payload("notify READY=1 -- exit 5");
    let run = lab.run_with(&bundle, &[]);
    let mut run = run.env("NOTIFY_SOCKET", manager.path()).spawn();
    run.wait().code(5);
    assert_eq!(manager.next(), "READY=1\n");
    assert_eq!(manager.next(), format!("MAINPID={}\n", run.pid()));
}

fn a_program_that_ends_is_not_waited_for(lab: &Lab) {
    let manager = Manager::new(&lab.path("manager"));
    let bundle = lab.bundle().payload("sleep 0.1 -- exit 0");
    let id = lab.id();
    let run = lab.on_bundle("run", &bundle, &["--detach"], &id);
    run.env("NOTIFY_SOCKET", manager.path()).run().ok();
    assert_eq!(manager.rest(), Vec::<String>::new());
    lab.runtime(["delete", "--force", &id]).run().ok();
}

fn readiness_in_a_longer_message_counts_and_nothing_else_does(lab: &Lab) {
    let manager = Manager::new(&lab.path("manager"));
    let words = "notify STATUS=starting READY=0 -- notify MAINPID=1 XREADY=1 \
                 -- notify STATUS=up READY=1 MAINPID=1 -- notify READY=1 -- exit 0";
    let run = lab.run_with(&lab.bundle().payload(words), &[]);
    run.env("NOTIFY_SOCKET", manager.path()).run().ok();
    assert_eq!(manager.next(), "READY=1\n");
    assert!(manager.next().starts_with("MAINPID="));
    assert_eq!(manager.rest(), Vec::<String>::new());
}

fn any_user_of_the_container_may_say_it(lab: &Lab) {
    for bundle in [
        lab.bundle().set("/process/user/uid", 1000),
        // Its root may make nothing in this root filesystem, which is the host's.
        lab.bundle()
            .dir("run/notify")
            .user_namespace(100_000, 65_536),
    ] {
        let manager = Manager::new(&lab.path("manager"));
        let run = lab.run_with(&bundle.payload("notify READY=1"), &[]);
        let run = run.env("NOTIFY_SOCKET", manager.path());
        assert_eq!(run.run().ok().line(), true);
        assert_eq!(manager.next(), "READY=1\n");
    }
}

fn the_socket_is_there_only_on_demand(lab: &Lab) {
    let manager = Manager::new(&lab.path("manager"));
    let variable = |facts: &serde_json::Value| {
        let env = facts["env"].as_array().unwrap();
        let found = env.iter().find(|pair| pair[0] == "NOTIFY_SOCKET");
        found.map(|pair| pair[1].clone())
    };
    let bundle = lab.bundle().set("/process/env/-", "NOTIFY_SOCKET=/mine");
    let facts = lab.facts(&bundle);
    assert_eq!(variable(&facts), Some(json!("/mine")));
    let run = lab.run_with(&bundle.payload("facts -- create /run/notify/x y"), &[]);
    let run = run.env("NOTIFY_SOCKET", manager.path());
    let answers = run.run().ok().lines();
    assert_eq!(
        variable(&answers[0]),
        Some(json!("/run/notify/notify.sock"))
    );
    assert_eq!(answers[1]["error"], "EROFS");
}

fn a_manager_that_is_not_there_is_told_before_the_start(lab: &Lab) {
    let nobody = lab.path("nobody");
    let id = lab.id();
    let bundle = lab.bundle().payload("echo ran");
    let mut created = lab
        .on_bundle("create", &bundle, &[], &id)
        .env("NOTIFY_SOCKET", nobody.to_str().unwrap())
        .spawn();
    created.wait().ok();
    let container = crate::container::Container::new(lab, id, created);
    container.pid();
    let start = container.command("start", &[]);
    start
        .env("NOTIFY_SOCKET", nobody.to_str().unwrap())
        .run()
        .refused()
        .says("NOTIFY_SOCKET")
        .says("no such file or directory");
    assert_eq!(container.status(), "created");
    // Who starts it without a manager waits for nothing.
    container.start();
    assert_eq!(container.wait(), End::Code(0));
    assert!(eventually(|| container.stdout() == "ran\n"));
    container.delete();
}

/// A container that may mount could put a link in its place at that moment: it is made with its mode.
fn the_sockets_mode_is_changed_by_no_name(lab: &Lab) {
    use std::os::unix::fs::PermissionsExt;
    let manager = Manager::new(&lab.path("manager"));
    let bundle = lab.bundle().payload("notify READY=1 -- pause");
    let id = lab.id();
    let create = lab.on_bundle("create", &bundle, &[], &id);
    let create = create.env("NOTIFY_SOCKET", manager.path());
    let strict = || {
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
        Ok(())
    };
    create.spawn_after(strict).wait().ok();
    let calls = lab.path("calls");
    let which = "trace=chmod,fchmod,fchmodat,bind";
    let start = lab.runtime(["start", &id]);
    let start = start.env("NOTIFY_SOCKET", manager.path());
    let start = start.through(&["strace", "-f", "-o", calls.to_str().unwrap(), "-e", which]);
    start.spawn_after(strict).wait().ok();
    let calls = std::fs::read_to_string(calls).unwrap();
    assert!(calls.contains("bind("), "{calls}");
    assert!(!calls.contains("chmod"), "{calls}");
    let socket = lab.root.join(&id).join("notify/notify.sock");
    let mode = std::fs::metadata(socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o777);
    lab.runtime(["delete", "--force", &id]).run().ok();
}
