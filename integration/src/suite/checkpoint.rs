//! `checkpoint` and `restore`: a container written into files, and made again.

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use super::tests;
use crate::bundle::Bundle;
use crate::container::Container;
use crate::lab::{Lab, eventually, wait_for_child};
use crate::need::Need;
use crate::output::End;
use crate::receiver::Receiver;

/// It closes a network for the time being by the other one.
const CRIU: &[Need] = &[Need::Criu, Need::Program("iptables-restore")];
const HUSK: &[Need] = &[Need::Husk, Need::Criu, Need::Program("iptables-restore")];

tests! {
    a_container_goes_on_where_it_was.needs(CRIU),
    pipes_of_the_caller_take_the_place_of_pipes.needs(CRIU),
    what_bind_mounts_show_comes_from_the_host_again.needs(CRIU),
    it_goes_on_in_its_place_if_asked_to.needs(CRIU),
    a_restore_in_the_foreground_ends_with_the_program.needs(HUSK),
    hooks_run_for_a_restored_container.needs(CRIU),
    a_namespace_that_was_joined_is_joined_again.needs(HUSK),
    only_what_runs_can_be_saved.needs(HUSK),
    a_restore_that_fails_leaves_nothing_and_says_where_more_is.needs(HUSK),
    what_could_not_be_made_again_is_refused.needs(HUSK),
    without_criu_that_is_said.needs(&[Need::Husk]),
    a_restore_under_an_id_that_is_taken_harms_nobody.needs(&[Need::Husk]),
    engines_find_both_by_their_help.needs(&[Need::Husk]),
}

/// A container with a terminal: none of its files is outside.
struct Saved<'a> {
    lab: &'a Lab,
    bundle: Bundle,
    socket: Receiver,
    images: PathBuf,
}

impl<'a> Saved<'a> {
    fn new(lab: &'a Lab, bundle: Bundle) -> Self {
        let name = lab.id();
        Saved {
            lab,
            bundle: bundle.set("/process/terminal", true),
            socket: Receiver::new(&lab.path(&format!("{name}.sock"))),
            images: lab.path(&format!("{name}.images")),
        }
    }

    fn start(&self) -> (Container<'a>, OwnedFd) {
        let options = ["--console-socket", self.socket.path()];
        let container = self.lab.create_with(&self.bundle, &options);
        let (master, _) = self.socket.receive();
        container.start();
        assert!(eventually(|| contains(&master, "ready")));
        (container, master)
    }

    fn images(&self) -> &str {
        self.images.to_str().unwrap()
    }

    fn save(&self, container: &Container) {
        let options = ["--image-path", self.images()];
        container.command("checkpoint", &options).run().ok();
    }

    /// The pid of its first process, and its terminal.
    #[track_caller]
    fn restore(&self, id: &str) -> (i32, OwnedFd) {
        let file = self.lab.path(&format!("{id}.pid"));
        let options = [
            "--detach",
            "--image-path",
            self.images(),
            "--console-socket",
            self.socket.path(),
            "--pid-file",
            file.to_str().unwrap(),
        ];
        let restore = self.lab.on_bundle("restore", &self.bundle, &options, id);
        restore.run().ok();
        let pid = fs::read_to_string(file).unwrap().parse().unwrap();
        (pid, self.socket.receive().0)
    }
}

/// What the program has written to its terminal so far has that.
fn contains(master: &OwnedFd, words: &str) -> bool {
    let mut bytes = [0; 1024];
    let length = nix::unistd::read(master, &mut bytes).unwrap_or(0);
    String::from_utf8_lossy(&bytes[..length]).contains(words)
}

/// Ends it by the handler that it had before it was saved.
fn end(lab: &Lab, id: &str, pid: i32) {
    lab.runtime(["kill", id, "TERM"]).run().ok();
    assert_eq!(wait_for_child(pid), End::Code(7));
    lab.runtime(["delete", id]).run().ok();
}

fn a_container_goes_on_where_it_was(lab: &Lab) {
    let saved = Saved::new(lab, lab.bundle().payload("until 15 7"));
    let (container, _master) = saved.start();
    let id = container.id.clone();
    container.ask("create /dev/shm/note kept");
    // As often as one likes.
    let mut terminals = Vec::new();
    for _ in 0..2 {
        saved.save(&container);
        lab.runtime(["state", &id]).run().code(1);
        assert!(!container.cgroup().exists());
        assert!(saved.images.join("inventory.img").exists());

        let (pid, terminal) = saved.restore(&id);
        terminals.push(terminal);
        let state = lab.runtime(["state", &id]).run().ok().json();
        assert_eq!(state["status"], "running");
        assert_eq!(state["pid"], pid);
        let procs = fs::read_to_string(container.cgroup().join("cgroup.procs")).unwrap();
        assert!(procs.lines().any(|line| line == pid.to_string()), "{procs}");
        assert_eq!(container.ask("cat /dev/shm/note")[0], "kept");
    }
    let state = lab.runtime(["state", &id]).run().ok().json();
    end(
        lab,
        &id,
        i32::try_from(state["pid"].as_i64().unwrap()).unwrap(),
    );
}

fn pipes_of_the_caller_take_the_place_of_pipes(lab: &Lab) {
    let pipe = || nix::unistd::pipe().unwrap();
    let images = lab.path("images");
    let images = ["--image-path", images.to_str().unwrap()];
    let bundle = lab.bundle().payload("ready -- read-line");
    let id = lab.id();
    let pipes = |command: &str, options: &[&str]| {
        let ((stdin, input), (output, stdout)) = (pipe(), pipe());
        // Standard error is a file of the test's: outside of every container.
        lab.on_bundle(command, &bundle, options, &id)
            .through(&["/bin/sh", "-c", "exec \"$@\" 2>&1", "sh"])
            .stdin(stdin)
            .stdout(stdout)
            .run()
            .ok();
        (input, output)
    };
    let (_input, output) = pipes("run", &["--detach"]);
    assert!(eventually(|| contains(&output, "ready")));
    lab.runtime(["checkpoint", images[0], images[1], &id])
        .run()
        .ok();
    let (input, output) = pipes("restore", &["--detach", images[0], images[1]]);
    let state = lab.runtime(["state", &id]).run().ok().json();
    nix::unistd::write(&input, b"words\n").unwrap();
    let mut text = String::new();
    fs::File::from(output).read_to_string(&mut text).unwrap();
    assert_eq!(text.trim(), "\"words\\n\"");
    let pid = i32::try_from(state["pid"].as_i64().unwrap()).unwrap();
    assert_eq!(wait_for_child(pid), End::Code(0));
    lab.runtime(["delete", &id]).run().ok();
}

fn what_bind_mounts_show_comes_from_the_host_again(lab: &Lab) {
    let (outer, inner) = (lab.path("outer"), lab.path("inner"));
    fs::create_dir(&outer).unwrap();
    fs::create_dir(&inner).unwrap();
    fs::write(inner.join("word"), "before").unwrap();
    let bundle = lab
        .bundle()
        .payload("until 15 7")
        .dir("real")
        .link("linked", "/real")
        .bind(&outer, "/linked", &["bind"])
        .bind(&inner, "/linked/in/ner", &["bind", "ro"]);
    let saved = Saved::new(lab, bundle);
    let (container, _master) = saved.start();
    saved.save(&container);
    // The mount point in the mount is made again.
    fs::remove_dir_all(outer.join("in")).unwrap();
    fs::write(inner.join("word"), "after").unwrap();
    let (pid, _terminal) = saved.restore(&container.id);
    let seen = container.ask("cat /real/in/ner/word -- write /real/in/ner/word x");
    assert_eq!(seen[0], "after");
    assert_eq!(seen[1]["error"], "EROFS");
    end(lab, &container.id, pid);
}

fn it_goes_on_in_its_place_if_asked_to(lab: &Lab) {
    let saved = Saved::new(lab, lab.bundle().payload("until 15 7"));
    let (container, _master) = saved.start();
    let options = ["--image-path", saved.images(), "--leave-running"];
    container.command("checkpoint", &options).run().ok();
    assert_eq!(container.status(), "running");
    end(lab, &container.id, container.pid());
    // And what was saved is another container's beginning.
    let other = lab.id();
    let (pid, _terminal) = saved.restore(&other);
    end(lab, &other, pid);
}

fn a_restore_in_the_foreground_ends_with_the_program(lab: &Lab) {
    let saved = Saved::new(lab, lab.bundle().payload("until 15 7"));
    let (container, _master) = saved.start();
    saved.save(&container);
    let id = container.id.as_str();
    let options = ["--image-path", saved.images()];
    let mut restore = lab
        .on_bundle("restore", &saved.bundle, &options, id)
        .spawn();
    assert!(eventually(|| {
        let state = lab.runtime(["state", id]).run();
        state.end == End::Code(0) && state.json()["status"] == "running"
    }));
    lab.runtime(["kill", id, "TERM"]).run().ok();
    restore.wait().code(7);
    lab.runtime(["state", id]).run().code(1);
}

fn hooks_run_for_a_restored_container(lab: &Lab) {
    let log = lab.path("hooks");
    let log = log.to_str().unwrap();
    let payload = lab.host_payload().to_owned();
    let bundle = lab
        .bundle()
        .payload("until 15 7")
        .hook("createRuntime", &[&payload, "hook", log]);
    let saved = Saved::new(lab, bundle);
    let (container, _master) = saved.start();
    let before = fs::read_to_string(log).unwrap().lines().count();
    saved.save(&container);
    let (pid, _terminal) = saved.restore(&container.id);
    let text = fs::read_to_string(log).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2 * before, "{text}");
    assert!(
        lines[before..].join("").contains(&pid.to_string()),
        "{text}"
    );
    end(lab, &container.id, pid);
}

fn a_namespace_that_was_joined_is_joined_again(lab: &Lab) {
    // Another container's, as in a pod.
    let pod = lab.start(&lab.bundle().payload("pause"));
    let inode = |pid: i32, kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
    let mut bundle = lab.bundle().payload("until 15 7");
    for (kind, file) in [("network", "net"), ("ipc", "ipc"), ("uts", "uts")] {
        bundle = bundle.join(kind, format!("/proc/{}/ns/{file}", pod.pid()));
    }
    let bundle = bundle.remove("/hostname");
    let saved = Saved::new(lab, bundle);
    let (container, _master) = saved.start();
    saved.save(&container);
    let (pid, _terminal) = saved.restore(&container.id);
    for kind in ["net", "ipc", "uts"] {
        assert_eq!(inode(pid, kind), inode(pod.pid(), kind), "{kind}");
    }
    end(lab, &container.id, pid);
    pod.end();
}

fn only_what_runs_can_be_saved(lab: &Lab) {
    let container = lab.create(&lab.bundle().payload("pause"));
    let images = lab.path("images");
    let options = ["--image-path", images.to_str().unwrap()];
    container
        .command("checkpoint", &options)
        .run()
        .refused()
        .says("Container cannot be checkpointed in created state");
    assert!(!images.exists());
    container.force_delete();
    container.command("checkpoint", &options).run().refused();
}

fn a_restore_that_fails_leaves_nothing_and_says_where_more_is(lab: &Lab) {
    let saved = Saved::new(lab, lab.bundle().payload("until 15 7"));
    let options = [
        "--detach",
        "--image-path",
        saved.images(),
        "--console-socket",
        saved.socket.path(),
    ];
    let id = lab.id();
    let restore = || {
        lab.on_bundle("restore", &saved.bundle, &options, &id)
            .run()
            .refused()
    };
    restore().says("no such file or directory");
    let (container, _master) = saved.start();
    saved.save(&container);
    fs::remove_file(saved.images.join("inventory.img")).unwrap();
    restore()
        .says("criu failed to restore")
        .hints("restore.log");
    lab.runtime(["state", &id]).run().code(1);
}

fn what_could_not_be_made_again_is_refused(lab: &Lab) {
    let images = lab.path("images");
    let options = ["--image-path", images.to_str().unwrap()];
    let bundle = lab.bundle().payload("pause");
    let container = lab.create_with(&bundle, &["--overlay"]);
    container.start();
    container
        .command("checkpoint", &options)
        .run()
        .refused()
        .says("overlay");
    assert!(!images.exists());
    assert_eq!(container.status(), "running");
    container.end();
    let container = lab.start(&bundle);
    for (option, value, words) in [
        ("--parent-path", "/absolute", "must be relative"),
        ("--parent-path", "../nothing", "no such file or directory"),
        ("--page-server", "nowhere", "want ADDRESS:PORT"),
        ("--status-fd", "77", "bad file"),
    ] {
        let options = [options[0], options[1], option, value];
        let refusal = container.command("checkpoint", &options).run().refused();
        refusal.says(words).says(option);
    }
    assert_eq!(container.status(), "running");
    container.end();
}

fn without_criu_that_is_said(lab: &Lab) {
    let container = lab.start(&lab.bundle().payload("pause"));
    container
        .command("checkpoint", &["--image-path", "/nowhere"])
        .env("PATH", "/nowhere")
        .run()
        .refused()
        .says("find criu: there is none on PATH")
        .hints("install");
    assert!(!PathBuf::from("/nowhere").exists());
    container.end();
}

/// What stands for CRIU until it is asked for something, and the files of a checkpoint as far as husk reads them.
fn without_a_criu(lab: &Lab) -> (String, PathBuf) {
    use std::os::unix::fs::PermissionsExt;
    let programs = lab.path("programs");
    fs::create_dir(&programs).unwrap();
    let program = programs.join("criu");
    fs::write(&program, "#!/bin/sh\nexit 1\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let images = lab.path("images");
    fs::create_dir(&images).unwrap();
    (format!("{}:/usr/bin:/bin", programs.display()), images)
}

fn a_restore_under_an_id_that_is_taken_harms_nobody(lab: &Lab) {
    let (path, images) = without_a_criu(lab);
    fs::write(images.join("descriptors.json"), "[]").unwrap();
    let bundle = lab.bundle().payload("pause");
    let container = lab.start(&bundle);
    let options = ["--image-path", images.to_str().unwrap()];
    let restore = lab.on_bundle("restore", &bundle, &options, &container.id);
    let refused = restore.env("PATH", &path).run().refused();
    refused.says("container with given ID already exists");
    assert_eq!(container.status(), "running");
    container.end();
}

/// podman's two questions.
fn engines_find_both_by_their_help(lab: &Lab) {
    let help = lab.bare(["checkpoint", "--help"]).run().ok().stdout;
    assert!(help.contains("--leave-running"), "{help}");
    let asked = lab.bare(["restore", "--lsm-mount-context"]).run();
    assert!(asked.stderr.contains("requires an argument"), "{asked}");
}
