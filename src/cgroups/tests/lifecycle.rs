use super::*;

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
/// By systemd, say, between two calls of husk's.
#[test]
fn one_that_is_gone_has_nobody_to_kill() {
    let Some((hierarchy, top)) = tree() else {
        return;
    };
    let cgroup = hierarchy.survey(&top).unwrap().make().unwrap();
    cgroup.place().remove().unwrap();
    cgroup.kill().unwrap();
    assert_eq!(cgroup.procs().unwrap(), []);
}

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
