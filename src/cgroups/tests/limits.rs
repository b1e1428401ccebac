use super::*;

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
    if Path::new("/sys/fs/cgroup/memory/tasks").exists() {
        let end = "is on cgroup v1 at /sys/fs/cgroup/memory; husk uses cgroup v2 only";
        assert!(text.ends_with(end), "{text}");
    }
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
            "(/unified/hugetlb.2MB.max): the kernel doesn't take that value: invalid argument",
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
        let error = apply(json).unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
    }
    for (file, hint) in [
        ("hugetlb.2MB.maxx", "did you mean hugetlb.2MB.max?"),
        ("hugetlb.3MB.max", "its huge pages are of 2MB"),
        ("hugetlb.2MB.max", "takes a number or max"),
    ] {
        let error = apply(&format!(r#"{{"unified":{{"{file}":"ten"}}}}"#)).unwrap_err();
        assert!(
            error.remedy().is_some_and(|words| words.contains(hint)),
            "{file}: {error:?}"
        );
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
