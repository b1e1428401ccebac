//! What passes between the caller and the container: descriptors, signals, children; and the
//! directory of records.

use std::fs;
use std::time::Instant;

use serde_json::{Value, json};

use super::{Need, tests};
use crate::bundle::PAYLOAD;
use crate::lab::Lab;
use crate::output::End;

const HUSK: &[Need] = &[Need::Husk];

tests! {
    the_first_process_is_handed_over_to_the_callers_reaper,
    standard_streams_are_the_callers_own,
    nobody_holds_the_streams_when_the_container_is_gone,
    root_is_made_for_its_owner_only,
    a_relative_root_is_absolute_from_then_on,
    list_of_a_missing_root_is_an_error,
    list_of_many_is_in_order_and_whole.needs(HUSK),
    a_half_made_record_is_removed_by_force,
    runc_a_created_container_has_no_file_open.needs(HUSK),
    a_created_container_ends_when_its_record_is_removed.needs(HUSK),
    the_runtime_dies_with_the_shim_only_before_create_returns,
    preserved_descriptors_are_passed_on,
    runc_a_process_document_may_be_a_descriptor_of_the_callers,
    listen_fds_are_passed_on,
    a_preserved_descriptor_that_is_not_open_is_refused,
    descriptor_60_is_the_callers_or_nobodys,
    no_signal_is_held_back_from_hooks,
}

/// Sockets and anonymous inodes lead nowhere: a file or directory of the host would (CVE-2024-21626).
fn runc_a_created_container_has_no_file_open(lab: &Lab) {
    let container = lab.create(&lab.bundle().payload("pause"));
    let links = fs::read_dir(format!("/proc/{}/fd", container.pid())).unwrap();
    for link in links {
        let link = link.unwrap();
        let number: u32 = link.file_name().to_str().unwrap().parse().unwrap();
        let target = fs::read_link(link.path()).unwrap().display().to_string();
        let harmless = target.starts_with("socket:[") || target.starts_with("anon_inode:");
        assert!(number < 3 || harmless, "{number} is {target}");
    }
    container.end();
}

fn a_created_container_ends_when_its_record_is_removed(lab: &Lab) {
    let container = lab.create(&lab.bundle().payload("pause"));
    let begin = Instant::now();
    fs::remove_file(lab.root.join(&container.id).join("start.sock")).unwrap();
    assert_eq!(container.wait(), End::Code(1));
    assert!(begin.elapsed() < crate::lab::patience());
    container.delete();
}

/// `Container::wait` fails when the process isn't ours to reap.
fn the_first_process_is_handed_over_to_the_callers_reaper(lab: &Lab) {
    let container = lab.start(&lab.bundle().payload("exit 9"));
    let pid = container.pid();
    assert_eq!(container.wait(), End::Code(9));
    container.delete();
    assert!(!fs::exists(format!("/proc/{pid}")).unwrap());
}

fn standard_streams_are_the_callers_own(lab: &Lab) {
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let bundle = lab.bundle().payload("echo through -- echo-error too");
    let id = lab.id();
    let create = lab.on_bundle("create", &bundle, &[], &id).stdout(writer);
    let mut running = create.spawn();
    running.wait().ok();
    drop(running);
    lab.runtime(["start", &id]).run().ok();
    let text = std::io::read_to_string(fs::File::from(reader)).unwrap();
    assert_eq!(text, "through\n");
    lab.runtime(["delete", "--force", &id]).run().ok();
}

/// A pipe's reader sees its end as soon as the container is gone, though the runtime's
/// callers live on.
fn nobody_holds_the_streams_when_the_container_is_gone(lab: &Lab) {
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let bundle = lab.bundle().payload("echo x -- until 15 0");
    let id = lab.id();
    lab.on_bundle("create", &bundle, &[], &id)
        .stdout(writer)
        .spawn()
        .wait()
        .ok();
    lab.runtime(["start", &id]).run().ok();
    let state = lab.runtime(["state", &id]).run().json();
    lab.runtime(["kill", &id, "KILL"]).run().ok();
    let pid = state["pid"].as_i64().unwrap() as i32;
    assert_eq!(crate::lab::wait_for_child(pid), End::Signal(9));
    let mut file = fs::File::from(reader);
    let mut text = Vec::new();
    while crate::sys::readable(&file, crate::lab::patience()).unwrap() {
        let mut buffer = [0u8; 100];
        match std::io::Read::read(&mut file, &mut buffer).unwrap() {
            0 => {
                lab.runtime(["delete", &id]).run().ok();
                return;
            }
            count => text.extend_from_slice(&buffer[..count]),
        }
    }
    panic!("somebody still holds the pipe, after {text:?}");
}

fn root_is_made_for_its_owner_only(lab: &Lab) {
    use std::os::unix::fs::PermissionsExt;
    let container = lab.create(&lab.bundle().payload("pause"));
    let mode = fs::metadata(&lab.root).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o700);
    let record = fs::metadata(lab.root.join(&container.id))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(record & 0o066, 0, "{record:o}");
    container.force_delete();
}

fn a_relative_root_is_absolute_from_then_on(lab: &Lab) {
    let bundle = lab.bundle().payload("pause");
    let id = lab.id();
    bundle.write(&id);
    let dir = bundle.dir.to_str().unwrap();
    lab.bare(["--root", "root", "create", "--bundle", dir, &id])
        .run()
        .ok();
    let state = lab.runtime(["state", &id]).cwd("/").run().ok().json();
    assert_eq!(state["status"], "created");
    lab.runtime(["delete", "--force", &id]).cwd("/").run().ok();
}

fn list_of_a_missing_root_is_an_error(lab: &Lab) {
    lab.runtime(["list"]).run().code(1);
    assert!(!lab.root.exists());
}

/// A create that was killed at the worst moment leaves a directory without a record.
fn a_half_made_record_is_removed_by_force(lab: &Lab) {
    fs::create_dir_all(lab.root.join("half")).unwrap();
    lab.runtime(["delete", "--force", "half"]).run().ok();
    assert!(!lab.root.join("half").exists());
    if lab.is_husk() {
        fs::create_dir_all(lab.root.join("half")).unwrap();
        let list = lab.runtime(["list", "--format", "json"]).run().ok();
        assert!(
            ["[]", "null"].contains(&list.stdout.trim()) || list.json().is_array(),
            "{list}"
        );
        lab.runtime(["delete", "--force", "half"]).run().ok();
    }
}

/// containerd starts runtimes with a parent death signal; the container must not inherit it.
fn the_runtime_dies_with_the_shim_only_before_create_returns(lab: &Lab) {
    let bundle = lab.bundle();
    let facts = lab
        .run_with(&bundle, &[])
        .spawn_after(|| {
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::SIGKILL)?;
            Ok(())
        })
        .wait()
        .ok()
        .line();
    assert_eq!(facts["pdeathsig"], 0);
}

fn file_with(lab: &Lab, text: &str) -> fs::File {
    let path = lab.path("text");
    fs::write(&path, text).unwrap();
    fs::File::open(path).unwrap()
}

fn preserved_descriptors_are_passed_on(lab: &Lab) {
    let bundle = lab
        .bundle()
        .payload("fd-read 3 -- fd-read 4 -- fd-read 5 -- facts");
    let output = lab
        .run_with(&bundle, &["--preserve-fds", "2"])
        .fd(file_with(lab, "three"), 3)
        .fd(file_with(lab, "four"), 4)
        .fd(file_with(lab, "five"), 5)
        .run()
        .ok();
    let answers = output.lines();
    assert_eq!(answers[..2], [json!("three"), json!("four")]);
    assert_eq!(answers[2]["error"], "EBADF");
    let open: Vec<_> = answers[3]["fds"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["fd"].clone())
        .collect();
    assert_eq!(json!(open), json!([0, 1, 2, 3, 4]));

    let container = lab.start(&lab.bundle().payload("pause"));
    let exec = container.exec_with(&["--preserve-fds=1"], "/bin/payload fd-read 3 -- fd-read 4");
    let answers = exec
        .fd(file_with(lab, "x"), 3)
        .fd(file_with(lab, "y"), 4)
        .run()
        .ok()
        .lines();
    assert_eq!(answers[0], "x");
    assert_eq!(answers[1]["error"], "EBADF");
    container.end();
}

/// Socket activation (sd_listen_fds): counted on top of `--preserve-fds`.
fn listen_fds_are_passed_on(lab: &Lab) {
    let bundle = lab.bundle().payload("fd-read 3 -- fd-read 4 -- facts");
    let answers = lab
        .run_with(&bundle, &[])
        .through(&[
            "/bin/sh",
            "-c",
            "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\"",
            "sh",
        ])
        .fd(file_with(lab, "three"), 3)
        .fd(file_with(lab, "four"), 4)
        .run()
        .ok()
        .lines();
    assert_eq!(answers[0], "three");
    assert_eq!(answers[1]["error"], "EBADF");
    let env = answers[2]["env"].as_array().unwrap();
    assert!(env.contains(&json!(["LISTEN_FDS", "1"])), "{env:?}");
    assert!(env.contains(&json!(["LISTEN_PID", "1"])), "{env:?}");
}

fn a_preserved_descriptor_that_is_not_open_is_refused(lab: &Lab) {
    let bundle = lab.bundle().payload("exit 0");
    lab.run_with(&bundle, &["--preserve-fds", "7"])
        .run()
        .refused()
        .says("preserved-fd 0");
}

/// As many as are looked at by several threads: copies of one record, a broken one and a half-made one.
fn list_of_many_is_in_order_and_whole(lab: &Lab) {
    let container = lab.start(&lab.bundle().payload("pause"));
    let record = fs::read_to_string(lab.root.join(&container.id).join("record.json")).unwrap();
    let copies: Vec<String> = (0..300).map(|index| format!("copy-{index:03}")).collect();
    for id in &copies {
        fs::create_dir(lab.root.join(id)).unwrap();
        let text = record.replace(&container.id, id);
        fs::write(lab.root.join(id).join("record.json"), text).unwrap();
    }
    fs::write(lab.root.join("copy-150/record.json"), "{").unwrap();
    fs::remove_file(lab.root.join("copy-250/record.json")).unwrap();
    let output = lab.runtime(["list", "-f", "json"]).run().ok();
    for said in ["copy-150", "container copy-250: never finished"] {
        assert!(output.stderr.contains(said), "{said}: {}", output.stderr);
    }
    let list = output.json();
    let list = list.as_array().unwrap().iter();
    assert!(list.clone().all(|shown| shown["status"] == "running"));
    let shown: Vec<&str> = list.map(|shown| shown["id"].as_str().unwrap()).collect();
    let mut ids: Vec<&str> = copies.iter().map(String::as_str).collect();
    ids.retain(|id| !["copy-150", "copy-250"].contains(id));
    ids.push(&container.id);
    ids.sort_unstable();
    assert_eq!(shown, ids);
    for id in &copies {
        fs::remove_dir_all(lab.root.join(id)).unwrap();
    }
    container.end();
}

/// husk takes its own through an execution by that number.
fn descriptor_60_is_the_callers_or_nobodys(lab: &Lab) {
    let bundle = lab.bundle().payload("fd-read 60 -- facts");
    let with = |last: i32| {
        let run = lab.run_with(&bundle, &["--preserve-fds", "58"]);
        (3..=last).fold(run, |run, number| {
            run.fd(file_with(lab, &number.to_string()), number)
        })
    };
    let answers = with(60).run().ok().lines();
    assert_eq!(answers[0], "60");
    with(59).run().refused().says("preserved-fd 57");
}

/// As in `exec --process <(make-it)`: the program gets the document, not the descriptor.
fn runc_a_process_document_may_be_a_descriptor_of_the_callers(lab: &Lab) {
    use std::io::Write;
    let container = lab.start(&lab.bundle().payload("pause"));
    for path in ["/dev/fd/63", "/proc/self/fd/63"] {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let process = json!({"args": [crate::bundle::PAYLOAD, "facts"], "cwd": "/tmp"});
        fs::File::from(writer)
            .write_all(process.to_string().as_bytes())
            .unwrap();
        let command = container.command("exec", &["--process", path]);
        let facts = command.fd(reader, 63).run().ok().line();
        assert_eq!(facts["cwd"], "/tmp");
        let numbers = facts["fds"].as_object().map(|fds| fds.len());
        let numbers = numbers.or(facts["fds"].as_array().map(Vec::len));
        assert_eq!(numbers, Some(3), "{facts}");
    }
    container.end();
}

/// What the runtime holds back for itself, in the foreground and in a created container, isn't for hooks:
/// a shell's `trap` and timeout(1) would never hear of it.
fn no_signal_is_held_back_from_hooks(lab: &Lab) {
    let dir = lab.path("shared");
    fs::create_dir(&dir).unwrap();
    let told = dir.join("told");
    let outside = [lab.host_payload(), "hook", told.to_str().unwrap()];
    let mut bundle = lab
        .bundle()
        .bind(&dir, "/tmp", &["bind"])
        .hook("startContainer", &[PAYLOAD, "hook", "/tmp/told"])
        .payload("exit 0");
    for kind in ["createRuntime", "createContainer", "poststop"] {
        bundle = bundle.hook(kind, &outside);
    }
    lab.run(&bundle).ok();
    let told = fs::read_to_string(&told).unwrap();
    assert_eq!(told.lines().count(), 4, "{told}");
    for line in told.lines() {
        let hook: Value = serde_json::from_str(line).unwrap();
        let blocked = hook["facts"]["signals"]["blocked"].as_str().unwrap();
        let blocked = u64::from_str_radix(blocked, 16).unwrap();
        assert_eq!(blocked, 0, "{blocked:x}: {}", hook["stdin"]);
    }
}
