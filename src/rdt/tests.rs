//! Against a directory in which the tests play the kernel: no machine of ours has the hardware.

use std::cell::Cell;
use std::fs;
use std::path::Path;

use super::*;

thread_local! {
    /// Numbers the directories of a thread.
    static NEXT: Cell<u32> = const { Cell::new(0) };
}

/// A new group has its files at once.
pub fn play_kernel(group: &Path) {
    for file in ["tasks", "schemata"] {
        fs::write(group.join(file), "").unwrap();
    }
    if group
        .parent()
        .is_none_or(|parent| !parent.ends_with(MONITORS))
    {
        fs::create_dir(group.join(MONITORS)).unwrap();
    }
}

/// And its directory can be removed with all that the kernel put there.
pub fn empty_out(group: &Path) {
    let Ok(entries) = fs::read_dir(group) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => fs::remove_dir_all(path).unwrap(),
            false => fs::remove_file(path).unwrap(),
        }
    }
}

struct Fake(std::path::PathBuf);

impl Fake {
    fn new() -> Fake {
        let number = NEXT.replace(NEXT.get() + 1);
        let thread = format!("{:?}", std::thread::current().id());
        let name = format!("husk-rdt-{}-{thread}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(path.join("info/MB")).unwrap();
        fs::write(path.join("info/MB/bandwidth_gran"), "10\n").unwrap();
        fs::write(path.join("info/last_cmd_status"), "ok\n").unwrap();
        fs::create_dir(path.join(MONITORS)).unwrap();
        fs::write(path.join("tasks"), "").unwrap();
        fs::write(path.join("schemata"), "L3:0=fffff\nMB:0=100\n").unwrap();
        Fake(path)
    }

    fn group(&self, name: &str, schemata: &str) -> &Fake {
        let path = self.0.join(name);
        fs::create_dir(&path).unwrap();
        play_kernel(&path);
        fs::write(path.join("schemata"), schemata).unwrap();
        self
    }

    fn tree(&self) -> Tree {
        Tree::pretended(&self.0)
    }

    fn plan(&self, json: &str) -> Result<Plan> {
        let rdt: LinuxIntelRdt = serde_json::from_str(json).unwrap();
        Plan::within(self.tree(), &rdt, "id")
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.0.join(path)).unwrap()
    }

    fn has(&self, path: &str) -> bool {
        self.0.join(path).exists()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn me() -> Pid {
    nix::unistd::getpid()
}

#[test]
fn without_a_class_the_group_is_the_containers_own() {
    let fake = Fake::new();
    let plan = fake.plan(r#"{"l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=20"}"#);
    let plan = plan.unwrap();
    assert!(!fake.has("id"), "planning makes nothing");
    let place = plan.make().unwrap();
    assert_eq!(fake.read("id/schemata"), "L3:0=f\nMB:0=20\n");
    place.join_in(&fake.tree(), me()).unwrap();
    assert_eq!(fake.read("id/tasks"), me().to_string());
    // Whoever is in it: the container has ended.
    place.remove_in(&fake.tree()).unwrap();
    assert!(!fake.has("id"));
    place.remove_in(&fake.tree()).unwrap();
}

#[test]
fn nothing_given_writes_no_schemata() {
    let fake = Fake::new();
    fake.plan("{}").unwrap().make().unwrap();
    assert_eq!(fake.read("id/schemata"), "");
}

#[test]
fn a_group_with_the_containers_id_is_somebody_elses() {
    let fake = Fake::new();
    fake.group("id", "L3:0=f\n");
    let error = fake.plan("{}").unwrap_err();
    assert!(error.to_string().contains("it isn't husk's"), "{error}");
}

#[test]
fn a_class_alone_must_exist() {
    let fake = Fake::new();
    let error = fake.plan(r#"{"closID": "gold"}"#).unwrap_err();
    assert_eq!(error.pointer(), Some(CLASS));
    fake.group("gold", "L3:0=f\n");
    let place = fake.plan(r#"{"closID": "gold"}"#).unwrap().make().unwrap();
    place.join_in(&fake.tree(), me()).unwrap();
    assert_eq!(fake.read("gold/tasks"), me().to_string());
    place.remove_in(&fake.tree()).unwrap();
    assert_eq!(fake.read("gold/schemata"), "L3:0=f\n");
    // Directories that are there for something else.
    let error = fake.plan(r#"{"closID": "info"}"#).unwrap_err();
    assert!(error.to_string().contains("it is no group"), "{error}");
}

#[test]
fn a_class_with_schemata_is_made_or_compared() {
    let fake = Fake::new();
    let gold = r#"{"closID": "gold", "memBwSchema": "MB:0=20", "schemata": ["L3:0=f"]}"#;
    let first = fake.plan(gold).unwrap().make().unwrap();
    assert_eq!(fake.read("gold/schemata"), "MB:0=20\nL3:0=f\n");
    let second = fake.plan(gold).unwrap().make().unwrap();
    assert_eq!(second.made, None);
    let error = fake.plan(r#"{"closID": "gold", "l3CacheSchema": "L3:0=ff"}"#);
    let error = error.unwrap_err();
    assert!(
        error.to_string().contains("it has L3:0=f, not ff"),
        "{error}"
    );
    // The second one lives there, so the first one's end doesn't take it away.
    second.join_in(&fake.tree(), me()).unwrap();
    first.remove_in(&fake.tree()).unwrap();
    assert!(fake.has("gold"));
    fs::write(fake.0.join("gold/tasks"), "").unwrap();
    second.remove_in(&fake.tree()).unwrap();
    assert!(fake.has("gold"), "it made nothing");
    first.remove_in(&fake.tree()).unwrap();
    assert!(!fake.has("gold"));
}

#[test]
fn a_class_that_appears_meanwhile_is_compared_too() {
    let fake = Fake::new();
    let gold = r#"{"closID": "gold", "memBwSchema": "MB:0=20"}"#;
    let plan = fake.plan(gold).unwrap();
    fake.group("gold", "MB:0=20\n");
    assert_eq!(plan.make().unwrap().made, None);
    let silver = r#"{"closID": "silver", "memBwSchema": "MB:0=20"}"#;
    let plan = fake.plan(silver).unwrap();
    fake.group("silver", "MB:0=50\n");
    assert!(plan.make().is_err());
    assert!(fake.has("silver"), "it is somebody else's");
}

#[test]
fn the_default_group_is_compared_and_stays() {
    let fake = Fake::new();
    let place = fake.plan(r#"{"closID": "/"}"#).unwrap().make().unwrap();
    place.join_in(&fake.tree(), me()).unwrap();
    assert_eq!(fake.read("tasks"), me().to_string());
    place.remove_in(&fake.tree()).unwrap();
    assert!(fake.has("tasks"));
    let error = fake.plan(r#"{"closID": "/", "l3CacheSchema": "L3:0=f"}"#);
    assert!(error.is_err());
}

#[test]
fn monitoring_has_a_group_of_its_own() {
    let fake = Fake::new();
    fake.group("gold", "");
    for (class, at) in [("gold", "gold/mon_groups/id"), ("/", "mon_groups/id")] {
        let json = format!(r#"{{"closID": "{class}", "enableMonitoring": true}}"#);
        let place = fake.plan(&json).unwrap().make().unwrap();
        place.join_in(&fake.tree(), me()).unwrap();
        assert_eq!(fake.read(&format!("{at}/tasks")), me().to_string());
        place.remove_in(&fake.tree()).unwrap();
        assert!(!fake.has(at));
    }
    let own = fake.plan(r#"{"enableMonitoring": true}"#).unwrap().make();
    assert!(fake.has("id/mon_groups/id"));
    own.unwrap().remove_in(&fake.tree()).unwrap();
    assert!(!fake.has("id"));
    fs::remove_dir(fake.0.join(MONITORS)).unwrap();
    let error = fake.plan(r#"{"enableMonitoring": true}"#).unwrap_err();
    assert_eq!(error.pointer(), Some(MONITORING));
}

#[test]
fn what_fails_half_way_leaves_nothing() {
    let fake = Fake::new();
    // A monitoring group of that name is somebody else's; the group is not.
    fs::create_dir(fake.0.join("mon_groups/id")).unwrap();
    fake.group("gold", "");
    fs::create_dir(fake.0.join("gold/mon_groups/id")).unwrap();
    let plan = fake.plan(r#"{"closID": "gold", "enableMonitoring": true}"#);
    let error = plan.unwrap().make().unwrap_err();
    assert_eq!(error.pointer(), Some(MONITORING));
    assert!(fake.has("gold/mon_groups/id"));
}

/// As a record from before the group was made has it.
#[test]
fn a_group_that_may_be_somebody_elses_is_removed_only_when_empty() {
    let fake = Fake::new();
    let plan = fake.plan("{}").unwrap();
    let place = plan.place().clone();
    place.remove_in(&fake.tree()).unwrap();
    fake.group("id", "");
    fs::write(fake.0.join("id/tasks"), me().to_string()).unwrap();
    place.remove_in(&fake.tree()).unwrap();
    assert!(fake.has("id"));
    fs::write(fake.0.join("id/tasks"), "").unwrap();
    place.remove_in(&fake.tree()).unwrap();
    assert!(!fake.has("id"));
    // Nor is one with another inode.
    let mut known = fake.plan("{}").unwrap().make().unwrap();
    if let Some(made) = &mut known.made {
        made.inode = made.inode.map(|inode| inode + 1);
    }
    known.remove_in(&fake.tree()).unwrap();
    assert!(fake.has("id"));
}

#[test]
fn update_writes_what_is_given() {
    let fake = Fake::new();
    let place = fake.plan("{}").unwrap().make().unwrap();
    let tree = fake.tree();
    place.update_in(&tree, None, None).unwrap();
    assert_eq!(fake.read("id/schemata"), "");
    place
        .update_in(&tree, Some("L3:0=3"), Some("MB:0=30"))
        .unwrap();
    assert_eq!(fake.read("id/schemata"), "L3:0=3\nMB:0=30\n");
    for (cache, bandwidth) in [(Some("L3:0=3\nMB:0=1"), None), (None, Some("L3:0=3"))] {
        assert!(place.update_in(&tree, cache, bandwidth).is_err());
    }
}

#[test]
fn errors_say_what_the_kernel_says() {
    let fake = Fake::new();
    fake.group("gold", "");
    fs::write(fake.0.join("info/last_cmd_status"), "mask overlaps\n").unwrap();
    fs::remove_file(fake.0.join("gold/tasks")).unwrap();
    let place = Place {
        mount: fake.0.clone(),
        group: Some("gold".into()),
        made: None,
        monitor: None,
    };
    let error = place.join_in(&fake.tree(), me()).unwrap_err();
    assert!(error.to_string().contains("mask overlaps"), "{error}");
    assert_eq!(error.pointer(), Some(POINTER));
}

#[test]
fn another_file_system_is_no_resctrl() {
    let fake = Fake::new();
    assert!(Tree::at(&fake.0).unwrap().is_none());
    assert!(Tree::at(Path::new("/nowhere")).unwrap().is_none());
}

#[test]
fn what_it_says_of_a_container_has_runcs_keys() {
    let fake = Fake::new();
    for (file, text) in [
        ("info/L3/cbm_mask", "fffff\n"),
        ("info/L3/min_cbm_bits", "1\n"),
        ("info/L3/num_closids", "16\n"),
        ("info/MB/delay_linear", "1\n"),
        ("info/MB/min_bandwidth", "10\n"),
        ("info/MB/num_closids", "8\n"),
    ] {
        fs::create_dir_all(fake.0.join(file).parent().unwrap()).unwrap();
        fs::write(fake.0.join(file), text).unwrap();
    }
    fake.group("gold", "    L3:0=f\n    MB:0= 20\n");
    for (domain, factor) in [("mon_L3_00", 1), ("mon_L3_01", 2)] {
        let data = fake.0.join("gold/mon_data").join(domain);
        fs::create_dir_all(&data).unwrap();
        fs::write(data.join("llc_occupancy"), format!("{}\n", 100 * factor)).unwrap();
        fs::write(data.join("mbm_total_bytes"), format!("{}\n", 7 * factor)).unwrap();
        fs::write(data.join("mbm_local_bytes"), format!("{}\n", 3 * factor)).unwrap();
    }
    let place = fake.plan(r#"{"closID": "gold"}"#).unwrap().make().unwrap();
    let stats = place.stats_in(&fake.tree()).unwrap();
    let expected = serde_json::json!({
        "l3_cache_info": { "cbm_mask": "fffff", "min_cbm_bits": 1, "num_closids": 16 },
        "l3_cache_schema_root": "L3:0=fffff",
        "l3_cache_schema": "L3:0=f",
        "mem_bw_info": { "bandwidth_gran": 10, "delay_linear": 1, "min_bandwidth": 10, "num_closids": 8 },
        "mem_bw_schema_root": "MB:0=100",
        "mem_bw_schema": "MB:0= 20",
        "mbm_stats": [
            { "mbm_total_bytes": 7, "mbm_local_bytes": 3 },
            { "mbm_total_bytes": 14, "mbm_local_bytes": 6 },
        ],
        "cmt_stats": [{ "llc_occupancy": 100 }, { "llc_occupancy": 200 }],
    });
    assert_eq!(serde_json::to_value(&stats).unwrap(), expected);
    fs::remove_dir_all(fake.0.join("info/L3")).unwrap();
    fs::remove_dir_all(fake.0.join("info/MB")).unwrap();
    fs::remove_dir_all(fake.0.join("gold/mon_data")).unwrap();
    let stats = place.stats_in(&fake.tree()).unwrap();
    assert_eq!(serde_json::to_string(&stats).unwrap(), "{}");
}
