//! On the machine's own cgroup2 tree, in cgroups with names of their own. As root; otherwise skipped,
//! aloud.

use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::unistd::{Pid, Uid};

use super::*;
use crate::sys::bpf;

/// A place at the top that no other test has, cleared however the test ends.
struct Top(Place);

impl std::ops::Deref for Top {
    type Target = Path;
    fn deref(&self) -> &Path {
        &self.0.below
    }
}

impl AsRef<Path> for Top {
    fn as_ref(&self) -> &Path {
        self
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Ok(Some(cgroup)) = Cgroup::open(&self.0)
        {
            let _ = cgroup.thaw();
            let _ = cgroup.kill();
            let _ = self.0.remove();
        }
    }
}

fn tree() -> Option<(Hierarchy, Top)> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    if !Uid::effective().is_root() {
        eprintln!("SKIPPED: needs root");
        return None;
    }
    let hierarchy = match Hierarchy::find() {
        Ok(hierarchy) => hierarchy,
        Err(error) => {
            eprintln!("SKIPPED: {error}");
            return None;
        }
    };
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let top = Top(Place {
        mount: hierarchy.mount().into(),
        below: format!("husk-test-{}-{number}", std::process::id()).into(),
        made: 0,
        inode: None,
    });
    Some((hierarchy, top))
}

fn exists(hierarchy: &Hierarchy, below: &Path) -> bool {
    hierarchy.mount().join(below).exists()
}

/// A process that does `script` once it is in the cgroup and told to.
fn spawn_in(cgroup: &Cgroup, script: &str) -> Child {
    let child = Command::new("/bin/sh")
        .args(["-c", &format!("read go; {script}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    cgroup.add(Pid::from_raw(child.id() as i32)).unwrap();
    child
}

fn go(mut child: Child) -> String {
    drop(child.stdin.take());
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

#[test]
fn paths() {
    for (given, id, expected) in [
        (None, "c1", Ok("husk-c1")),
        (Some(""), "c1", Ok("husk-c1")),
        (Some("/docker/abc"), "c1", Ok("docker/abc")),
        (Some("docker/abc"), "c1", Ok("docker/abc")),
        (Some("one"), "c1", Ok("one")),
        (Some("/a:b:c"), "c1", Ok("a:b:c")),
        (Some("..."), "c1", Ok("...")),
        (Some("/"), "c1", Err("root of the cgroup tree")),
        (Some("/a/../b"), "c1", Err("has an element")),
        (Some("../b"), "c1", Err("has an element")),
        (Some("/a/./b"), "c1", Err("has an element")),
        (Some("/a//b"), "c1", Err("has an empty element")),
        (Some("//a"), "c1", Err("has an empty element")),
        (Some("/a/"), "c1", Err("has an empty element")),
        (Some("/a\nb"), "c1", Err("has a line break or NUL")),
        (Some("/a\0b"), "c1", Err("has a line break or NUL")),
        (
            Some("system.slice:husk:c1"),
            "c1",
            Err("names a systemd unit"),
        ),
    ] {
        match (path(given, id), expected) {
            (Ok(path), Ok(expected)) => assert_eq!(path, Path::new(expected), "{given:?}"),
            (Err(error), Err(part)) => {
                assert_eq!(error.pointer(), Some("/linux/cgroupsPath"), "{given:?}");
                assert!(error.to_string().contains(part), "{given:?}: {error}");
            }
            (path, _) => panic!("{given:?}: {path:?}"),
        }
    }
    let long = "x".repeat(256);
    assert!(path(Some(&long), "c1").is_err());
    assert!(path(None, &long).is_err());
}

#[test]
fn made_and_removed_with_its_parents() {
    let Some((hierarchy, top)) = tree() else {
        return;
    };
    let below = top.join("a/b");
    let site = hierarchy.survey(&below).unwrap();
    assert_eq!(site.place().made, 2);
    assert_eq!(site.place().inode, None);
    assert!(!exists(&hierarchy, &top), "a survey makes nothing");
    let early = site.place().clone();
    let cgroup = site.make().unwrap();
    assert!(exists(&hierarchy, &below));
    // Every controller of the root is there.
    let read = |dir: &Path, name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
    assert_eq!(
        read(&cgroup.path(), "cgroup.controllers"),
        read(hierarchy.mount(), "cgroup.controllers")
    );
    // A record travels as JSON.
    let json = serde_json::to_string(cgroup.place()).unwrap();
    let place: Place = serde_json::from_str(&json).unwrap();
    assert_eq!(&place, cgroup.place());
    let found = Cgroup::open(&place).unwrap().unwrap();
    assert_eq!(found.procs().unwrap(), []);
    assert!(!found.is_frozen().unwrap());
    assert!(Cgroup::open(&early).unwrap().is_some());
    place.remove().unwrap();
    assert!(!exists(&hierarchy, &top), "the parents were husk's");
    place.remove().unwrap();
    assert!(Cgroup::open(&place).unwrap().is_none());
}

#[test]
fn parents_go_with_the_last_container_and_strangers_stay() {
    let Some((hierarchy, top)) = tree() else {
        return;
    };
    let make = |name: &str| hierarchy.survey(&top.join(name)).unwrap().make().unwrap();
    let (first, second) = (make("p/one"), make("p/two"));
    // The first made the parents, but the second is there longer.
    first.place().remove().unwrap();
    assert!(exists(&hierarchy, &top.join("p/two")));
    assert_eq!(second.place().made, 0);
    second.place().remove().unwrap();
    assert!(!exists(&hierarchy, &top));
    // A directory that was there before stays.
    let stranger = hierarchy.mount().join(&top);
    std::fs::create_dir(&stranger).unwrap();
    let third = make("p/three");
    third.place().remove().unwrap();
    assert!(stranger.exists());
    assert!(!stranger.join("p").exists());
    std::fs::remove_dir(&stranger).unwrap();
}

/// What a killed `create` leaves: a record, and perhaps some of the directories.
#[test]
fn a_record_from_before_is_enough_to_clean_up() {
    let Some((hierarchy, top)) = tree() else {
        return;
    };
    let below = top.join("a/b");
    for made in ["", "a", "a/b"] {
        let place = hierarchy.survey(&below).unwrap().place().clone();
        let path = hierarchy.mount().join(&top).join(made);
        std::fs::create_dir_all(path).unwrap();
        place.remove().unwrap();
        assert!(!exists(&hierarchy, &top), "{made}");
    }
}

#[test]
fn another_cgroup_at_the_same_path_is_left_alone() {
    let Some((hierarchy, top)) = tree() else {
        return;
    };
    let place = hierarchy
        .survey(&top)
        .unwrap()
        .make()
        .unwrap()
        .place()
        .clone();
    let path = place.path();
    std::fs::remove_dir(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(Cgroup::open(&place).unwrap().is_none());
    place.remove().unwrap();
    assert!(path.exists());
    std::fs::remove_dir(&path).unwrap();
}

#[test]
fn a_cgroup_in_use_or_frozen_is_refused() {
    let Some((hierarchy, top)) = tree() else {
        return;
    };
    let cgroup = hierarchy.survey(&top).unwrap().make().unwrap();
    let child = spawn_in(&cgroup, "true");
    let error = hierarchy.survey(&top).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("container's cgroup is not empty: 1 process(es) found"),
        "{error}"
    );
    go(child);
    // Empty, it may be taken over, and is removed as the container's own.
    assert!(hierarchy.survey(&top).is_ok());
    cgroup.freeze().unwrap();
    let error = hierarchy.survey(&top).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("container's cgroup unexpectedly frozen"),
        "{error}"
    );
    // In a frozen parent nothing would ever start.
    let error = hierarchy
        .survey(&top.join("x"))
        .unwrap()
        .make()
        .unwrap_err();
    assert!(
        error.to_string().ends_with("unexpectedly frozen"),
        "{error}"
    );
    assert!(error.remedy().unwrap().contains("above"), "{error:?}");
    assert!(!exists(&hierarchy, &top.join("x")), "nothing is left");
    cgroup.thaw().unwrap();
    cgroup.place().remove().unwrap();
}

#[test]
fn freezing_stops_and_killing_ends() {
    let Some((hierarchy, top)) = tree() else {
        return;
    };
    let cgroup = hierarchy.survey(&top).unwrap().make().unwrap();
    let mut child = spawn_in(&cgroup, "while :; do :; done");
    drop(child.stdin.take());
    let pid = Pid::from_raw(child.id() as i32);
    assert_eq!(cgroup.procs().unwrap(), [pid]);
    cgroup.freeze().unwrap();
    assert!(cgroup.is_frozen().unwrap());
    let used = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<_> = stat
            .split(' ')
            .skip(13)
            .take(2)
            .map(str::to_owned)
            .collect();
        fields
    };
    let before = used();
    std::thread::sleep(Duration::from_millis(60));
    assert_eq!(used(), before, "a frozen process takes no time");
    cgroup.thaw().unwrap();
    assert!(!cgroup.is_frozen().unwrap());
    // Frozen or not, a kill ends it.
    cgroup.freeze().unwrap();
    cgroup.kill().unwrap();
    assert!(!child.wait().unwrap().success());
    cgroup.place().remove().unwrap();
    assert!(!exists(&hierarchy, &top));
}

/// A nested engine's cgroups, deeper than there are descriptors or stack frames to spare.
#[test]
fn sub_cgroups_are_listed_killed_and_removed() {
    let Some((hierarchy, top)) = tree() else {
        return;
    };
    let cgroup = hierarchy.survey(&top).unwrap().make().unwrap();
    let mut child = spawn_in(&cgroup, "sleep 1000");
    let mut other = Command::new("/bin/sleep").arg("1000").spawn().unwrap();
    let mut deep = cgroup.path();
    for _ in 0..300 {
        deep.push("d");
        std::fs::create_dir(&deep).unwrap();
    }
    for name in ["x", "y", "z/z"] {
        std::fs::create_dir_all(cgroup.path().join(name)).unwrap();
    }
    std::fs::write(deep.join("cgroup.procs"), other.id().to_string()).unwrap();
    let mut expected = [child.id() as i32, other.id() as i32].map(Pid::from_raw);
    expected.sort_unstable();
    assert_eq!(cgroup.procs().unwrap(), expected);
    cgroup.kill().unwrap();
    // Nobody reaps them before the removal: the dead don't count.
    cgroup.place().remove().unwrap();
    assert!(!exists(&hierarchy, &top));
    child.wait().unwrap();
    other.wait().unwrap();
}

#[test]
fn removal_waits_for_processes_and_gives_up() {
    let Some((hierarchy, top)) = tree() else {
        return;
    };
    let cgroup = hierarchy.survey(&top).unwrap().make().unwrap();
    let mut child = spawn_in(&cgroup, "sleep 0.2");
    drop(child.stdin.take());
    let begin = Instant::now();
    cgroup.place().remove().unwrap();
    assert!((150..2000).contains(&begin.elapsed().as_millis()));
    child.wait().unwrap();

    let cgroup = hierarchy.survey(&top).unwrap().make().unwrap();
    let child = spawn_in(&cgroup, "true");
    let error = cgroup.place().remove().unwrap_err();
    let text = error.to_string();
    let reason = format!(
        "1 process(es) in it haven't ended, the first is {}",
        child.id()
    );
    assert!(text.contains(&reason), "{text}");
    assert!(text.ends_with("resource busy"), "{text}");
    go(child);
    cgroup.place().remove().unwrap();
    assert!(!exists(&hierarchy, &top));
}

#[test]
fn racing_for_the_same_parents() {
    let Some((hierarchy, top)) = tree() else {
        return;
    };
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (hierarchy, top) = (&hierarchy, &top);
            scope.spawn(move || {
                for round in 0..50 {
                    let below = top.join(format!("p/q/{thread}-{round}"));
                    let cgroup = hierarchy.survey(&below).unwrap().make().unwrap();
                    cgroup.place().remove().unwrap();
                }
            });
        }
    });
    assert!(!exists(&hierarchy, &top), "the last one clears up");
}

#[test]
fn limits_without_their_controller_say_where_it_is() {
    let Some((hierarchy, top)) = tree() else {
        return;
    };
    let all = std::fs::read_to_string(hierarchy.mount().join("cgroup.controllers")).unwrap();
    if all
        .split_whitespace()
        .any(|controller| controller == "memory")
    {
        eprintln!("SKIPPED: this tree has a memory controller");
        return;
    }
    let cgroup = hierarchy.survey(&top).unwrap().make().unwrap();
    let resources = serde_json::from_str(r#"{"memory":{"limit":10000000}}"#).unwrap();
    let plan = plan(Some(&resources), None, Devices::Keep, "/linux/resources").unwrap();
    let error = cgroup.apply(&plan).unwrap_err();
    cgroup.place().remove().unwrap();
    let text = error.to_string();
    let start = format!(
        "set memory.max of {} to 10000000 (/linux/resources/memory/limit): the memory controller ",
        hierarchy.mount().join(&top).display()
    );
    assert!(text.starts_with(&start), "{text}");
    // Engines would take it for a missing program.
    assert!(!text.contains("no such file"), "{text}");
}

#[test]
fn limits_are_written_and_unified_wins() {
    let Some((hierarchy, top)) = tree() else {
        return;
    };
    let cgroup = hierarchy.survey(&top).unwrap().make().unwrap();
    let file = cgroup.path().join("hugetlb.2MB.max");
    if !file.exists() {
        eprintln!("SKIPPED: this tree has no hugetlb controller with 2MB pages");
        return cgroup.place().remove().unwrap();
    }
    let apply = |json: &str| {
        let resources = serde_json::from_str(json).unwrap();
        cgroup.apply(&plan(Some(&resources), None, Devices::Keep, "").unwrap())
    };
    let read = |name: &str| std::fs::read_to_string(cgroup.path().join(name)).unwrap();
    apply(r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#).unwrap();
    assert_eq!(read("hugetlb.2MB.max"), "4194304\n");
    assert_eq!(read("hugetlb.2MB.rsvd.max"), "4194304\n");
    apply(
        r#"{"hugepageLimits":[{"pageSize":"2MB","limit":0}],
            "unified":{"hugetlb.2MB.max":"2097152","cgroup.max.depth":"3"}}"#,
    )
    .unwrap();
    assert_eq!(read("hugetlb.2MB.max"), "2097152\n");
    assert_eq!(read("hugetlb.2MB.rsvd.max"), "0\n");
    assert_eq!(read("cgroup.max.depth"), "3\n");
    for (json, reason) in [
        (
            r#"{"hugepageLimits":[{"pageSize":"3MB","limit":0}]}"#,
            "(/hugepageLimits/0/limit): this kernel has no hugetlb.3MB.max",
        ),
        (
            r#"{"unified":{"hugetlb.2MB.max":"many"}}"#,
            "(/unified/hugetlb.2MB.max): invalid argument",
        ),
        (
            r#"{"unified":{"cgroup.nonsense":"1"}}"#,
            "(/unified/cgroup.nonsense): this kernel has no cgroup.nonsense",
        ),
        (
            r#"{"unified":{"nonsense.max":"1"}}"#,
            "(/unified/nonsense.max): no nonsense controller is on cgroup v2",
        ),
    ] {
        let error = apply(json).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
    cgroup.place().remove().unwrap();
}

/// The rule of no internal processes: enabling fails, and a limit that needs it says so.
#[test]
fn a_busy_parent_keeps_its_controllers_and_limits_say_so() {
    let Some((hierarchy, top)) = tree() else {
        return;
    };
    let all = std::fs::read_to_string(hierarchy.mount().join("cgroup.controllers")).unwrap();
    if !all
        .split_whitespace()
        .any(|controller| controller == "hugetlb")
    {
        eprintln!("SKIPPED: this tree has no hugetlb controller");
        return;
    }
    let parent = hierarchy.mount().join(&top);
    std::fs::create_dir(&parent).unwrap();
    let mut child = Command::new("/bin/sleep").arg("1000").spawn().unwrap();
    std::fs::write(parent.join("cgroup.procs"), child.id().to_string()).unwrap();
    let cgroup = hierarchy.survey(&top.join("c")).unwrap().make().unwrap();
    let kind = std::fs::read_to_string(cgroup.path().join("cgroup.type")).unwrap();
    let resources =
        serde_json::from_str(r#"{"hugepageLimits":[{"pageSize":"2MB","limit":0}]}"#).unwrap();
    let plan = plan(Some(&resources), None, Devices::Keep, "").unwrap();
    let error = cgroup.apply(&plan).unwrap_err();
    child.kill().unwrap();
    child.wait().unwrap();
    cgroup.place().remove().unwrap();
    std::fs::remove_dir(&parent).unwrap();
    assert_eq!(kind, "domain\n");
    let reason = format!(
        "(/hugepageLimits/0/limit): the hugetlb controller is not enabled in {} and can't be: that \
         cgroup has processes of its own",
        parent.join("cgroup.subtree_control").display()
    );
    assert!(error.to_string().contains(&reason), "{error}");
}

#[test]
fn a_threaded_parent_makes_a_threaded_child() {
    let Some((hierarchy, top)) = tree() else {
        return;
    };
    let parent = hierarchy.mount().join(&top);
    std::fs::create_dir_all(parent.join("t")).unwrap();
    std::fs::write(parent.join("t/cgroup.type"), "threaded").unwrap();
    let cgroup = hierarchy.survey(&top.join("t/c")).unwrap().make();
    let kind = std::fs::read_to_string(parent.join("t/c/cgroup.type"));
    // Listing and killing go by threads there.
    let cgroup = cgroup.unwrap();
    let mut child = Command::new("/bin/sleep").arg("1000").spawn().unwrap();
    let moved = std::fs::write(parent.join("cgroup.procs"), child.id().to_string())
        .and_then(|()| std::fs::write(parent.join("t/c/cgroup.threads"), child.id().to_string()));
    let listed = cgroup.procs();
    // cgroup.kill isn't for threaded cgroups, so this goes the way of old kernels.
    let killed = cgroup.kill();
    let ended = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(5));
        child.try_wait().unwrap().is_some()
    });
    child.kill().unwrap();
    child.wait().unwrap();
    cgroup.place().remove().unwrap();
    std::fs::remove_dir(parent.join("t")).unwrap();
    std::fs::remove_dir(&parent).unwrap();
    assert_eq!(kind.unwrap(), "threaded\n");
    moved.unwrap();
    assert_eq!(listed.unwrap(), [Pid::from_raw(child.id() as i32)]);
    killed.unwrap();
    assert!(ended);
}

#[test]
fn delegation_gives_the_kernels_list_of_files() {
    use std::os::unix::fs::MetadataExt;
    let Some((hierarchy, top)) = tree() else {
        return;
    };
    let cgroup = hierarchy.survey(&top).unwrap().make().unwrap();
    cgroup.delegate(Uid::from_raw(12345)).unwrap();
    let owner = |name: &str| cgroup.path().join(name).metadata().unwrap().uid();
    let owners = [
        "",
        "cgroup.procs",
        "cgroup.subtree_control",
        "cgroup.max.depth",
    ]
    .map(owner);
    cgroup.place().remove().unwrap();
    assert_eq!(owners, [12345, 12345, 12345, 0]);
}

/// Opens in the cgroup, as the kernel decides.
fn opens(cgroup: &Cgroup, device: &str, redirect: &str) -> bool {
    let script = format!("(exec 3{redirect}{device}) 2>/dev/null && echo yes || echo no");
    go(spawn_in(cgroup, &script)) == "yes\n"
}

#[test]
fn the_kernel_asks_the_device_program() {
    let Some((hierarchy, top)) = tree() else {
        return;
    };
    let cgroup = hierarchy.survey(&top.join("one")).unwrap().make().unwrap();
    let confine = |json: &str| {
        let resources = serde_json::from_str(json).unwrap();
        let plan = plan(Some(&resources), None, Devices::Confine, "").unwrap();
        plan.devices.unwrap()
    };
    let attached = |cgroup: &Cgroup| bpf::attached_devices(cgroup.fd()).unwrap();
    assert!(opens(&cgroup, "/dev/kmsg", "<"));
    let first = match cgroup.attach_devices(&confine("{}"), None) {
        Err(error) if error.code() == Some(nix::errno::Errno::EPERM) => {
            eprintln!("SKIPPED: {error}");
            return cgroup.place().remove().unwrap();
        }
        first => first.unwrap(),
    };
    assert!(opens(&cgroup, "/dev/null", "<>"));
    assert!(opens(&cgroup, "/dev/zero", "<"));
    assert!(!opens(&cgroup, "/dev/kmsg", "<"));
    let one = attached(&cgroup);
    assert_eq!(one.len(), 1);

    // The same program again isn't loaded again, also after its record was written and read.
    let json = serde_json::to_string(&first).unwrap();
    let known = serde_json::from_str(&json).unwrap();
    let other = hierarchy.survey(&top.join("two")).unwrap().make().unwrap();
    let second = other.attach_devices(&confine("{}"), Some(&known)).unwrap();
    assert_eq!(second, first);
    assert_eq!(attached(&other), one);
    other.place().remove().unwrap();

    // Another one takes its place, and later rules win in the kernel too.
    let kmsg = r#"{"devices":[{"allow":false},{"allow":true,"type":"c","major":1,"minor":11,"access":"r"}]}"#;
    let found = Cgroup::open(cgroup.place()).unwrap().unwrap();
    let third = found.attach_devices(&confine(kmsg), Some(&known)).unwrap();
    assert_ne!(third, first);
    let two = attached(&found);
    assert!(two.len() == 1 && two != one, "{one:?} {two:?}");
    assert!(opens(&cgroup, "/dev/kmsg", "<"));
    assert!(!opens(&cgroup, "/dev/kmsg", "<>"));
    // What is gone, or whose number another one has by now, is loaded anew.
    for (field, value) in [("id", u64::from(u32::MAX)), ("load_time", 1)] {
        let mut stale = serde_json::to_value(&first).unwrap();
        stale[field] = value.into();
        let stale = serde_json::from_value(stale).unwrap();
        let fourth = found.attach_devices(&confine("{}"), Some(&stale)).unwrap();
        assert!(fourth != first && fourth != stale, "{fourth:?}");
        assert_eq!(attached(&found).len(), 1);
    }
    assert!(!opens(&cgroup, "/dev/kmsg", "<"));
    cgroup.place().remove().unwrap();
}

/// Every shape that the compiler makes passes the verifier.
#[test]
fn the_verifier_takes_what_is_emitted() {
    if !Uid::effective().is_root() {
        eprintln!("SKIPPED: needs root");
        return;
    }
    let lists = [
        r#"[]"#,
        r#"[{"allow":true},{"allow":false,"type":"b"}]"#,
        r#"[{"allow":true},{"allow":false,"access":"w"}]"#,
        r#"[{"allow":true,"type":"b"},{"allow":false,"major":8,"access":"rw"},{"allow":true,"type":"b","major":8,"minor":1,"access":"r"}]"#,
        r#"[{"allow":true,"type":"c"},{"allow":true,"type":"b","access":"r"}]"#,
        r#"[{"allow":true,"minor":4294967295},{"allow":false,"major":4294967295}]"#,
        r#"[{"allow":true,"type":"c","major":1},{"allow":true,"type":"c","major":1,"minor":3},{"allow":true,"type":"c"}]"#,
    ];
    for list in lists {
        let rules: Vec<_> = serde_json::from_str(list).unwrap();
        let program = devices::compile(&rules, "").unwrap().unwrap();
        match bpf::load_device(program.instructions(), c"husk_test", None) {
            Ok(fd) => assert!(bpf::info(fd.as_fd()).unwrap().has_name(c"husk_test")),
            Err(nix::errno::Errno::EPERM) => return eprintln!("SKIPPED: not permitted"),
            Err(errno) => {
                let mut log = vec![0; 1 << 16];
                let _ = bpf::load_device(program.instructions(), c"husk_test", Some(&mut log));
                panic!("{list}: {errno}\n{}", String::from_utf8_lossy(&log));
            }
        }
    }
}
