//! Limits of containers whose cgroup systemd has made: both what systemd says of them and what the kernel
//! does, before and after a `daemon-reload`.

use serde_json::{Value, json};

use super::systemd::{Scope, assert_gone, assert_properties, create, pausing, properties, reload};
use super::tests;
use crate::lab::{Lab, eventually};
use crate::need::Need;
use crate::output::Output;

tests! {
    limits_are_properties_and_survive_a_daemon_reload.needs(CONTROLLERS).seconds(60),
    what_it_has_no_property_for_survives_too.needs(CONTROLLERS).seconds(60),
    idle_and_oom_policy.needs(CONTROLLERS),
    updates_are_properties_and_survive_a_daemon_reload.needs(CONTROLLERS).seconds(60),
    a_failed_update_changes_nothing_at_systemd.needs(CONTROLLERS),
    oom_kills_are_told_as_long_as_there_is_a_scope.needs(CONTROLLERS).seconds(60),
    device_rules_are_left_alone.needs(SYSTEMD).seconds(60),
}

const SYSTEMD: &[Need] = &[Need::Systemd];
const CONTROLLERS: &[Need] = &[
    Need::Systemd,
    Need::Controller("memory"),
    Need::Controller("cpu"),
    Need::Controller("cpuset"),
    Need::Controller("pids"),
    Need::Controller("io"),
];

/// Both what systemd says of a limit and what the kernel does, before and after a `daemon-reload`.
#[track_caller]
fn assert_lasting(lab: &Lab, resources: Value, shown: &[(&str, &str)], files: &[(&str, &str)]) {
    let bundle = pausing(lab).set("/linux/resources", resources);
    let scope = create(lab, bundle);
    for _ in 0..2 {
        assert_properties(&scope.unit, shown);
        for (file, value) in files {
            assert_eq!(scope.file(file), *value, "{file}");
        }
        reload();
    }
    scope.end();
}

fn limits_are_properties_and_survive_a_daemon_reload(lab: &Lab) {
    let resources = json!({
        "memory": { "limit": 64 << 20, "reservation": 32 << 20, "swap": 96 << 20 },
        "cpu": { "shares": 2048, "quota": 33_333, "period": 50_000, "cpus": "0", "mems": "0" },
        "pids": { "limit": 40 },
        "blockIO": { "weight": 500 },
        "unified": { "memory.high": "50331648", "memory.min": "4096" }
    });
    let shown = [
        ("MemoryMax", "67108864"),
        ("MemoryLow", "33554432"),
        ("MemoryHigh", "50331648"),
        ("MemoryMin", "4096"),
        ("MemorySwapMax", "33554432"),
        ("CPUWeight", "174"),
        ("CPUQuotaPerSecUSec", "670ms"),
        ("CPUQuotaPeriodUSec", "50ms"),
        ("AllowedCPUs", "0"),
        ("AllowedMemoryNodes", "0"),
        ("TasksMax", "40"),
        ("IOWeight", "4950"),
    ];
    let files = [
        ("memory.max", "67108864"),
        ("memory.low", "33554432"),
        ("memory.high", "50331648"),
        ("memory.min", "4096"),
        ("memory.swap.max", "33554432"),
        ("cpu.weight", "174"),
        // Of a CPU's percents the next whole one.
        ("cpu.max", "33500 50000"),
        ("cpuset.cpus", "0"),
        ("cpuset.mems", "0"),
        ("pids.max", "40"),
    ];
    assert_lasting(lab, resources, &shown, &files);
    let unlimited = json!({
        "memory": { "limit": -1 },
        "cpu": { "quota": -1 },
        "pids": { "limit": -1 }
    });
    let shown = [
        ("MemoryMax", "infinity"),
        ("CPUQuotaPerSecUSec", "infinity"),
        ("TasksMax", "infinity"),
    ];
    let files = [
        ("memory.max", "max"),
        ("cpu.max", "max 100000"),
        ("pids.max", "max"),
    ];
    assert_lasting(lab, unlimited, &shown, &files);
}

fn what_it_has_no_property_for_survives_too(lab: &Lab) {
    let resources = json!({
        "cpu": { "quota": 50_000, "period": 100_000, "burst": 20_000 },
        "hugepageLimits": [{ "pageSize": "2MB", "limit": 4 << 20 }]
    });
    let files = [
        ("cpu.max.burst", "20000"),
        ("hugetlb.2MB.max", "4194304"),
        ("cpu.max", "50000 100000"),
    ];
    assert_lasting(lab, resources, &[("CPUQuotaPerSecUSec", "500ms")], &files);
}

fn idle_and_oom_policy(lab: &Lab) {
    let resources = json!({
        "cpu": { "idle": 1 },
        "unified": { "memory.oom.group": "1" }
    });
    let shown = [("CPUWeight", "idle"), ("OOMPolicy", "kill")];
    let files = [("cpu.idle", "1"), ("memory.oom.group", "1")];
    assert_lasting(lab, resources, &shown, &files);
}

/// The kernel's count ends with the cgroup, which systemd removes right after its last process: who asks later gets no
/// number, and not 0 either. systemd itself tells of it where it has to do with all processes of the scope; but the
/// kernel may hold the event back for 10 ms (CGROUP_FILE_NOTIFY_MIN_INTV), and by then the scope may have ended.
fn oom_kills_are_told_as_long_as_there_is_a_scope(lab: &Lab) {
    const CHANCES: usize = 8;
    assert_eq!(result_of_oom(lab, "0"), "success");
    let results: Vec<String> = (0..CHANCES).map(|_| result_of_oom(lab, "1")).collect();
    assert!(
        results.iter().any(|result| result == "oom-kill"),
        "{results:?}"
    );
}

/// The `Result` of a scope whose only process but the first is killed for want of memory, or both are.
fn result_of_oom(lab: &Lab, group: &str) -> String {
    let resources = json!({
        "memory": { "limit": 32 << 20, "swap": 32 << 20 },
        "unified": { "memory.oom.group": group }
    });
    let bundle = lab.bundle().payload("child-alloc 128 -- exit 0");
    let scope = create(lab, bundle.set("/linux/resources", resources));
    let directory = scope.directory();
    scope.container.start();
    scope.container.wait();
    assert!(eventually(|| !directory.exists()));
    let state = scope.container.state();
    assert_eq!(state["status"], "stopped");
    assert_eq!(state.get("oomKills"), None);
    let result = properties(&scope.unit, &["Result"]).remove("Result");
    scope.container.delete();
    assert_gone(&scope.unit);
    result.unwrap_or_default()
}

fn update(scope: &Scope, resources: &Value) -> Output {
    let update = scope.container.command("update", &["--resources", "-"]);
    update.stdin_text(&resources.to_string()).run()
}

fn updates_are_properties_and_survive_a_daemon_reload(lab: &Lab) {
    let bundle = pausing(lab).set(
        "/linux/resources",
        json!({
            "memory": { "limit": 64 << 20 },
            "cpu": { "shares": 2048, "quota": 50_000, "period": 100_000 },
            "pids": { "limit": 40 }
        }),
    );
    let scope = create(lab, bundle);
    for (resources, shown, files) in [
        (
            json!({
                "memory": { "limit": 80 << 20 },
                "cpu": { "quota": 12_345, "cpus": "0" },
                "pids": { "limit": -1 }
            }),
            vec![
                ("MemoryMax", "83886080"),
                ("CPUQuotaPerSecUSec", "130ms"),
                ("CPUWeight", "174"),
                ("AllowedCPUs", "0"),
                ("TasksMax", "infinity"),
            ],
            vec![
                ("memory.max", "83886080"),
                ("cpu.max", "13000 100000"),
                ("cpu.weight", "174"),
                ("cpuset.cpus", "0"),
                ("pids.max", "max"),
            ],
        ),
        (
            json!({ "cpu": { "idle": 1 } }),
            vec![("CPUWeight", "idle")],
            vec![("cpu.idle", "1"), ("cpu.max", "13000 100000")],
        ),
        (
            json!({ "cpu": { "idle": 0 } }),
            vec![("CPUWeight", "100")],
            vec![("cpu.idle", "0"), ("cpu.weight", "100")],
        ),
    ] {
        update(&scope, &resources).ok();
        for _ in 0..2 {
            assert_properties(&scope.unit, &shown);
            for (file, value) in &files {
                assert_eq!(scope.file(file), *value, "{file} after {resources}");
            }
            reload();
        }
    }
    scope.end();
}

fn a_failed_update_changes_nothing_at_systemd(lab: &Lab) {
    let resources = json!({ "memory": { "limit": 64 << 20 }, "pids": { "limit": 40 } });
    let scope = create(lab, pausing(lab).set("/linux/resources", resources));
    let wanted = json!({ "pids": { "limit": 30 }, "cpu": { "cpus": "4096" } });
    update(&scope, &wanted).code(1);
    assert_properties(&scope.unit, &[("TasksMax", "40"), ("AllowedCPUs", "")]);
    assert_eq!(scope.file("pids.max"), "40");
    scope.end();
}

fn device_rules_are_left_alone(lab: &Lab) {
    let bundle = pausing(lab).writable().capabilities(&["CAP_MKNOD"]).set(
        "/linux/resources/devices",
        json!([
            { "allow": false, "access": "rwm" },
            { "allow": true, "type": "c", "major": 10, "minor": 229, "access": "rm" }
        ]),
    );
    let scope = create(lab, bundle);
    scope.container.start();
    for round in 0..2 {
        let found = scope.container.ask(&format!(
            "open /dev/null r -- mknod /dev/k{round} c 10 229 -- open /dev/k{round} r \
             -- mknod /dev/b{round} b 7 7 -- open /dev/b{round} r"
        ));
        let refused: Vec<bool> = found.iter().map(|one| one["error"] == "EPERM").collect();
        assert_eq!(refused, [false, false, false, false, true], "{found:?}");
        assert_properties(&scope.unit, &[("DevicePolicy", "auto")]);
        reload();
    }
    scope.end();
}
