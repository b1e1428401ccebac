//! systemd as the one who makes the cgroup. These tests run beside the enclosure, where systemd is.

use std::collections::HashMap;
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command as Program;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;

use super::tests;
use crate::bundle::Bundle;
use crate::cgroup;
use crate::container::Container;
use crate::lab::{Command, Lab, Running, eventually, patience};
use crate::need::Need;

tests! {
    a_scope_is_made_with_the_process_in_it.needs(SYSTEMD),
    names_and_slices.needs(SYSTEMD).seconds(60),
    bad_names_are_refused_and_leave_nothing.needs(HUSK),
    exec_and_pause_need_no_option.needs(SYSTEMD),
    annotations_become_properties.needs(SYSTEMD),
    cve_2024_3154_annotations_that_act_are_refused.needs(HUSK),
    a_property_it_refuses_is_named_and_leaves_nothing.needs(HUSK),
    a_failed_create_leaves_no_unit.needs(SYSTEMD),
    a_unit_of_someone_else_is_refused_and_spared.needs(HUSK),
    a_frozen_cgroup_that_waits_for_the_unit_is_refused.needs(HUSK),
    a_unit_that_systemd_stopped_tells_until_delete.needs(SYSTEMD).seconds(60),
    a_failed_unit_of_that_name_is_reset.needs(SYSTEMD).seconds(60),
    a_killed_create_leaves_nothing_to_stay.needs(HUSK).seconds(120),
    a_killed_container_takes_its_unit_along.needs(SYSTEMD),
    the_bus_does_where_there_is_no_private_socket.needs(HUSK),
    a_manager_that_is_gone_does_not_keep_a_container.needs(HUSK),
    no_systemd_is_told.needs(ONLY_HUSK),
    no_answer_is_an_error_in_time.needs(HUSK).seconds(60),
    nonsense_for_an_answer_is_an_error.needs(ONLY_HUSK),
}

const SYSTEMD: &[Need] = &[Need::Systemd];
const HUSK: &[Need] = &[Need::Systemd, Need::Husk];
const ONLY_HUSK: &[Need] = &[Need::Husk];

/// A container that systemd has made the cgroup of.
pub(super) struct Scope<'a> {
    pub container: Container<'a>,
    pub unit: String,
}

impl Scope<'_> {
    #[track_caller]
    pub fn directory(&self) -> PathBuf {
        let place = properties(&self.unit, &["ControlGroup"]).remove("ControlGroup");
        cgroup::path(&place.expect("a unit with a cgroup"))
    }

    #[track_caller]
    pub fn file(&self, name: &str) -> String {
        let path = self.directory().join(name);
        let text = fs::read_to_string(&path);
        let text = text.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        text.trim().to_owned()
    }

    /// Deletes the container, and proves that the unit went with it.
    #[track_caller]
    pub fn end(self) {
        let directory = self.directory();
        self.container.force_delete();
        assert!(!directory.exists(), "{}", directory.display());
        assert_gone(&self.unit);
    }
}

/// A name that no other test has.
fn path_for(slice: &str, id: &str) -> String {
    format!("{slice}:husktest:{id}")
}

fn create_command(lab: &Lab, bundle: &Bundle, id: &str) -> Command {
    lab.on_bundle("create", bundle, &[], id)
        .global(&["--systemd-cgroup"])
}

#[track_caller]
pub(super) fn create(lab: &Lab, bundle: Bundle) -> Scope<'_> {
    let id = lab.id();
    let bundle = bundle.set("/linux/cgroupsPath", path_for("", &id));
    let unit = format!("husktest-{id}.scope");
    let container = created(lab, &bundle, &id);
    Scope { container, unit }
}

#[track_caller]
fn created<'a>(lab: &'a Lab, bundle: &Bundle, id: &str) -> Container<'a> {
    let mut running: Running = create_command(lab, bundle, id).spawn();
    running.wait().ok();
    Container::new(lab, id.to_owned(), running)
}

pub(super) fn pausing(lab: &Lab) -> Bundle {
    lab.bundle().payload("pause")
}

#[track_caller]
fn systemctl(words: &[&str]) -> String {
    let output = Program::new("systemctl").args(words).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(super) fn properties(unit: &str, names: &[&str]) -> HashMap<String, String> {
    let list = names.join(",");
    let text = systemctl(&["show", unit, "--property", &list]);
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[track_caller]
pub(super) fn assert_properties(unit: &str, expected: &[(&str, &str)]) {
    let names: Vec<&str> = expected.iter().map(|(name, _)| *name).collect();
    let found = properties(unit, &names);
    for (name, value) in expected {
        let found = found.get(*name).map(String::as_str);
        assert_eq!(found, Some(*value), "{name} of {unit}");
    }
}

/// systemd doesn't know it: it is neither active nor failed.
#[track_caller]
pub(super) fn assert_gone(unit: &str) {
    let listed = || systemctl(&["list-units", "--all", "--no-legend", "--plain", unit]);
    assert!(eventually(|| listed().is_empty()), "{}", listed());
}

pub(super) fn reload() {
    systemctl(&["daemon-reload"]);
}

fn a_scope_is_made_with_the_process_in_it(lab: &Lab) {
    let scope = create(lab, pausing(lab));
    assert_properties(
        &scope.unit,
        &[
            ("ActiveState", "active"),
            ("Slice", "system.slice"),
            ("Delegate", "yes"),
            ("Transient", "yes"),
            ("DefaultDependencies", "no"),
            ("TasksAccounting", "yes"),
            ("MemoryAccounting", "yes"),
        ],
    );
    let directory = scope.directory();
    assert_eq!(
        directory,
        cgroup::path(&format!("system.slice/{}", scope.unit))
    );
    assert_eq!(cgroup::processes(&directory), [scope.container.pid()]);
    scope.container.start();
    assert_eq!(scope.container.status(), "running");
    scope.container.end();
    assert!(!directory.exists());
    assert_gone(&scope.unit);
}

fn names_and_slices(lab: &Lab) {
    let top = format!("husktest{}", std::process::id());
    for (path, unit, place) in [
        ("".to_owned(), "husk-ID.scope", "system.slice/husk-ID.scope"),
        (
            "::husktest-ID".into(),
            "husktest-ID.scope",
            "system.slice/husktest-ID.scope",
        ),
        (
            "-:husktest:ID".into(),
            "husktest-ID.scope",
            "husktest-ID.scope",
        ),
        (
            format!("{top}-b.slice:husktest:ID"),
            "husktest-ID.scope",
            &format!("{top}.slice/{top}-b.slice/husktest-ID.scope"),
        ),
        (
            format!("{top}.slice:x:{top}-c.slice"),
            &format!("{top}-c.slice"),
            &format!("{top}.slice/{top}-c.slice"),
        ),
    ] {
        if path.is_empty() && !lab.is_husk() {
            continue;
        }
        let id = lab.id();
        let bundle = pausing(lab).set("/linux/cgroupsPath", path.replace("ID", &id));
        let container = created(lab, &bundle, &id);
        let (unit, place) = (unit.replace("ID", &id), place.replace("ID", &id));
        assert_properties(
            &unit,
            &[
                ("ActiveState", "active"),
                ("ControlGroup", &format!("/{place}")),
            ],
        );
        assert_eq!(cgroup::processes(&cgroup::path(&place)), [container.pid()]);
        container.force_delete();
        assert_gone(&unit);
        assert!(!cgroup::path(&place).exists());
    }
    systemctl(&["stop", &format!("{top}.slice")]);
}

fn bad_names_are_refused_and_leave_nothing(lab: &Lab) {
    for path in [
        "/husktest/x",
        "husktest",
        "system.slice:husktest",
        "system:husktest:x",
        "system.slice:husktest:../x",
        "system.slice:husktest:x/y",
        "-husktest.slice:husktest:x",
        "a.slice:husktest:a--b.slice",
        "system.slice:husktest:x y",
        "system.slice:husktest:-.slice",
    ] {
        let id = lab.id();
        let bundle = pausing(lab).set("/linux/cgroupsPath", path);
        let output = create_command(lab, &bundle, &id).run();
        output.refused().says("/linux/cgroupsPath");
        assert!(!lab.root.join(&id).exists(), "{path}");
    }
}

fn exec_and_pause_need_no_option(lab: &Lab) {
    let scope = create(lab, pausing(lab));
    scope.container.start();
    let mut exec = scope
        .container
        .exec_with(&["--detach"], "/bin/payload pause")
        .spawn();
    exec.wait().ok();
    assert_eq!(cgroup::processes(&scope.directory()).len(), 2);
    scope.container.command("pause", &[]).run().ok();
    assert_eq!(scope.container.status(), "paused");
    assert!(scope.file("cgroup.events").contains("frozen 1"));
    scope.container.command("resume", &[]).run().ok();
    assert_eq!(scope.container.status(), "running");
    scope.container.end();
    assert_gone(&scope.unit);
}

fn annotations_become_properties(lab: &Lab) {
    let bundle = pausing(lab).set(
        "/annotations",
        json!({
            "org.systemd.property.TimeoutStopSec": "uint64 7",
            "org.systemd.property.RuntimeMaxUSec": "uint64 3600000000",
            "org.systemd.property.CollectMode": "'inactive-or-failed'",
            "org.systemd.property.After": "['dbus.service']",
            "org.systemd.property.DefaultDependencies": "true",
            "org.systemd.property.SendSIGHUP": "true",
            "org.example.other": "x"
        }),
    );
    let scope = create(lab, bundle);
    assert_properties(
        &scope.unit,
        &[
            ("TimeoutStopUSec", "7s"),
            ("RuntimeMaxUSec", "1h"),
            ("CollectMode", "inactive-or-failed"),
            ("DefaultDependencies", "yes"),
            ("SendSIGHUP", "yes"),
        ],
    );
    let after = properties(&scope.unit, &["After"]).remove("After");
    let after = after.unwrap_or_default();
    assert!(
        after.split(' ').any(|unit| unit == "dbus.service"),
        "{after}"
    );
    scope.end();
}

/// Annotations reach systemd, which runs what it is told to.
fn cve_2024_3154_annotations_that_act_are_refused(lab: &Lab) {
    let mark = lab.path("mark");
    for (name, value) in [
        (
            "ExecStop",
            format!("[('/bin/touch', ['touch', '{}'], false)]", mark.display()),
        ),
        ("ExecStopPost", "''".into()),
        ("OnFailure", "['poweroff.target']".into()),
        ("Wants", "['poweroff.target']".into()),
        ("Requires", "['poweroff.target']".into()),
        ("Conflicts", "['dbus.service']".into()),
        ("SuccessAction", "'poweroff'".into()),
        ("Slice", "'-.slice'".into()),
        ("Delegate", "false".into()),
        ("PIDs", "[uint32 1]".into()),
        ("DevicePolicy", "'auto'".into()),
        ("X", "true".into()),
        ("Exec.Stop", "true".into()),
        ("TasksMax", "'many'".into()),
    ] {
        let id = lab.id();
        let bundle = pausing(lab)
            .set("/linux/cgroupsPath", path_for("", &id))
            .set(&format!("/annotations/org.systemd.property.{name}"), value);
        let output = create_command(lab, &bundle, &id).run();
        output
            .refused()
            .says(&format!("/annotations/org.systemd.property.{name}"));
        assert!(!lab.root.join(&id).exists());
        assert_gone(&format!("husktest-{id}.scope"));
    }
    assert!(!mark.exists());
}

fn a_property_it_refuses_is_named_and_leaves_nothing(lab: &Lab) {
    let id = lab.id();
    let bundle = pausing(lab)
        .set("/linux/cgroupsPath", path_for("", &id))
        .set("/annotations/org.systemd.property.KillMode", "'nonsense'");
    create_command(lab, &bundle, &id)
        .run()
        .refused()
        .says("/annotations/org.systemd.property.KillMode");
    assert!(!lab.root.join(&id).exists());
    assert_gone(&format!("husktest-{id}.scope"));
}

fn a_failed_create_leaves_no_unit(lab: &Lab) {
    for bundle in [
        lab.bundle().args(&["/bin/missing"]),
        pausing(lab).hook("createRuntime", &["/bin/false"]),
        pausing(lab).set(
            "/linux/resources/unified",
            json!({ "memory.nonsense": "1" }),
        ),
    ] {
        let id = lab.id();
        let bundle = bundle.set("/linux/cgroupsPath", path_for("", &id));
        create_command(lab, &bundle, &id).run().code(1);
        assert!(!lab.root.join(&id).exists());
        assert_gone(&format!("husktest-{id}.scope"));
    }
}

fn a_unit_of_someone_else_is_refused_and_spared(lab: &Lab) {
    let scope = create(lab, pausing(lab));
    let (id, taken) = (lab.id(), scope.container.id.clone());
    let bundle = pausing(lab).set("/linux/cgroupsPath", path_for("", &taken));
    let output = create_command(lab, &bundle, &id).run();
    output
        .refused()
        .says("/linux/cgroupsPath")
        .says("container's cgroup is not empty");
    assert!(!lab.root.join(&id).exists());
    assert_eq!(scope.container.status(), "created");
    assert_properties(&scope.unit, &[("ActiveState", "active")]);
    scope.end();
}

/// systemd would put the process into it, and it would stay there.
fn a_frozen_cgroup_that_waits_for_the_unit_is_refused(lab: &Lab) {
    let id = lab.id();
    let cgroup = Path::new("/sys/fs/cgroup/system.slice").join(format!("husktest-{id}.scope"));
    fs::create_dir(&cgroup).unwrap();
    fs::write(cgroup.join("cgroup.freeze"), "1").unwrap();
    let bundle = pausing(lab).set("/linux/cgroupsPath", path_for("", &id));
    let output = create_command(lab, &bundle, &id).run();
    fs::remove_dir(&cgroup).unwrap();
    output
        .refused()
        .says("container's cgroup unexpectedly frozen");
    assert!(!lab.root.join(&id).exists());
}

/// runc's delete.bats, "runc delete removes failed systemd unit".
fn a_unit_that_systemd_stopped_tells_until_delete(lab: &Lab) {
    let annotations = json!({
        "org.systemd.property.RuntimeMaxUSec": "uint64 1000000",
        "org.systemd.property.TimeoutStopSec": "uint64 1",
    });
    let scope = create(lab, pausing(lab).set("/annotations", annotations));
    scope.container.start();
    let told = || properties(&scope.unit, &["ActiveState", "Result"]);
    let failed = eventually(|| told().get("ActiveState") == Some(&"failed".to_owned()));
    assert!(failed, "{:?}", told());
    assert_properties(&scope.unit, &[("Result", "timeout")]);
    assert!(eventually(|| scope.container.status() == "stopped"));
    scope.container.delete();
    assert_gone(&scope.unit);
}

fn a_failed_unit_of_that_name_is_reset(lab: &Lab) {
    let id = lab.id();
    let unit = format!("husktest-{id}.scope");
    let ended = Program::new("systemd-run")
        .args(["--scope", "--quiet", "--unit", &unit])
        .args(["-p", "RuntimeMaxSec=1", "sleep", "1000"])
        .status();
    assert!(!ended.unwrap().success());
    let failed = eventually(|| {
        properties(&unit, &["ActiveState"]).get("ActiveState") == Some(&"failed".to_owned())
    });
    assert!(
        failed,
        "{:?}",
        properties(&unit, &["ActiveState", "Result"])
    );
    let bundle = pausing(lab).set("/linux/cgroupsPath", path_for("", &id));
    let container = created(lab, &bundle, &id);
    assert_properties(&unit, &[("ActiveState", "active")]);
    container.force_delete();
    assert_gone(&unit);
}

/// At whichever moment husk is killed.
fn a_killed_create_leaves_nothing_to_stay(lab: &Lab) {
    let usual = {
        let begin = Instant::now();
        create(lab, pausing(lab)).end();
        begin.elapsed()
    };
    for step in 0..24 {
        let id = lab.id();
        let unit = format!("husktest-{id}.scope");
        let bundle = pausing(lab).set("/linux/cgroupsPath", path_for("", &id));
        let mut create = create_command(lab, &bundle, &id).spawn();
        std::thread::sleep(usual * step / 24);
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(create.pid()),
            nix::sys::signal::Signal::SIGKILL,
        );
        create.wait();
        lab.runtime(["delete", "--force", &id]).run().ok();
        assert!(!lab.root.join(&id).exists());
        assert_gone(&unit);
        let place = cgroup::path(&format!("system.slice/{unit}"));
        assert!(!place.exists(), "{}", place.display());
    }
}

fn a_killed_container_takes_its_unit_along(lab: &Lab) {
    let scope = create(lab, pausing(lab));
    scope.container.start();
    scope.container.kill("KILL");
    scope.container.wait();
    assert_gone(&scope.unit);
    assert_eq!(scope.container.status(), "stopped");
    scope.container.delete();
}

const RUN: [&str; 2] = ["/run/systemd", "/run/dbus"];

/// The host's sockets out of sight, for this test alone. What `with` does is done in their place.
fn hidden(directories: &[&str], with: impl FnOnce(), then: impl FnOnce()) {
    let none = None::<&str>;
    for directory in directories {
        let (source, kind) = (Some("hidden"), Some("tmpfs"));
        mount(source, *directory, kind, MsFlags::empty(), none).unwrap();
    }
    with();
    then();
    for directory in directories {
        umount2(*directory, MntFlags::MNT_DETACH).unwrap();
    }
}

fn the_bus_does_where_there_is_no_private_socket(lab: &Lab) {
    let none = None::<&str>;
    let private = "/run/systemd/private";
    let nothing = lab.path("nothing");
    fs::write(&nothing, "").unwrap();
    mount(Some(&nothing), private, none, MsFlags::MS_BIND, none).unwrap();
    let scope = create(lab, pausing(lab));
    umount2(private, MntFlags::MNT_DETACH).unwrap();
    assert_properties(&scope.unit, &[("ActiveState", "active")]);
    mount(Some(&nothing), private, none, MsFlags::MS_BIND, none).unwrap();
    scope.container.force_delete();
    umount2(private, MntFlags::MNT_DETACH).unwrap();
    assert_gone(&scope.unit);
}

/// A user's manager ends when he logs out, and takes his units along.
fn a_manager_that_is_gone_does_not_keep_a_container(lab: &Lab) {
    let scope = create(lab, pausing(lab));
    hidden(&RUN, || (), || scope.container.force_delete());
    assert!(!lab.root.join(&scope.container.id).exists());
    assert_gone(&scope.unit);
}

/// `/run` as it is where there is no systemd, or something else in its place.
fn with_another(lab: &Lab, make: impl FnOnce(), says: &str) -> Duration {
    let mut took = Duration::ZERO;
    let prepare = || {
        fs::create_dir("/run/systemd").unwrap();
        make();
    };
    hidden(&["/run"], prepare, || {
        let id = lab.id();
        let bundle = pausing(lab).set("/linux/cgroupsPath", path_for("", &id));
        let begin = Instant::now();
        create_command(lab, &bundle, &id)
            .patience(patience() + Duration::from_secs(40))
            .run()
            .refused()
            .says(says);
        took = begin.elapsed();
        assert!(!lab.root.join(&id).exists());
    });
    took
}

fn no_systemd_is_told(lab: &Lab) {
    with_another(lab, || (), "no such file or directory");
}

fn no_answer_is_an_error_in_time(lab: &Lab) {
    let mut listener = None;
    let listen = || listener = UnixListener::bind("/run/systemd/private").ok();
    let took = with_another(lab, listen, "no answer within 30 s");
    assert!(took < Duration::from_secs(30) + patience(), "{took:?}");
}

fn nonsense_for_an_answer_is_an_error(lab: &Lab) {
    let listen = || {
        let listener = UnixListener::bind("/run/systemd/private").unwrap();
        std::thread::spawn(move || {
            use std::io::{Read, Write};
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(
                b"OK 0\r\nl\xff\xff\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            );
            let _ = stream.read(&mut [0; 4096]);
        });
    };
    with_another(lab, listen, "not D-Bus");
}
