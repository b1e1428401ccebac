//! `update`: other limits for a container that exists, all of them or none.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::cgroups::with_resources;
use super::tests;
use crate::cgroup;
use crate::container::Container;
use crate::lab::Lab;
use crate::need::Need;
use crate::output::Output;

tests! {
    limits_come_from_a_file_or_standard_input.needs(HUGETLB),
    a_failed_update_leaves_every_limit_as_it_was.needs(HUGETLB),
    a_created_container_can_be_updated,
    a_paused_container_is_updated_and_stays_paused,
    device_rules_are_not_touched,
    options_may_stand_after_the_id,
    a_wrong_value_is_told_by_its_option,
    a_wrong_document_is_told_by_its_pointer,
    zeros_of_engines_change_nothing,
    nothing_to_change_is_fine,
    a_stopped_or_missing_container_is_refused,
    schemata_need_a_group.needs(&[Need::Husk]),
    a_limit_without_its_controller_is_told_by_its_option.needs(&[Need::Husk]),
    memory_and_swap_are_set_together.needs(SWAP),
    memory_without_a_limit_is_swap_without_one_too.needs(SWAP),
    a_limit_of_both_alone_takes_the_memory_limit_in_force.needs(SWAP_HUSK),
    quota_and_period_are_merged_with_what_is_in_force.needs(CPU),
    burst_and_quota_may_change_in_either_direction.needs(CPU),
    idle_and_shares.needs(CPU),
    pids_limit_holds_at_once.needs(PIDS),
    cpuset_changes_at_once.needs(CPUSET),
    io_limits_of_one_device_are_put_back.needs(IO_HUSK),
    check_before_update_rejects_what_is_in_use.needs(MEMORY),
    a_failed_update_puts_memory_and_pids_back.needs(MEMORY_PIDS),
    unified_is_written_last.needs(PIDS),
}

const HUGETLB: &[Need] = &[Need::Controller("hugetlb")];
const MEMORY: &[Need] = &[Need::Controller("memory")];
const CPU: &[Need] = &[Need::Controller("cpu")];
const CPUSET: &[Need] = &[Need::Controller("cpuset")];
const PIDS: &[Need] = &[Need::Controller("pids")];
const MEMORY_PIDS: &[Need] = &[Need::Controller("memory"), Need::Controller("pids")];
const IO_HUSK: &[Need] = &[Need::Husk, Need::Controller("io")];
const SWAP: &[Need] = &[Need::SwapAccounting];
const SWAP_HUSK: &[Need] = &[Need::Husk, Need::SwapAccounting];

fn document(lab: &Lab, resources: &Value) -> PathBuf {
    let file = lab.path("resources");
    fs::write(&file, resources.to_string()).unwrap();
    file
}

/// `update --resources FILE`
fn update(lab: &Lab, container: &Container, resources: Value) -> Output {
    let file = document(lab, &resources);
    container
        .command("update", &["--resources", file.to_str().unwrap()])
        .run()
}

fn pausing<'a>(lab: &'a Lab, resources: &[(&str, Value)]) -> Container<'a> {
    let mut bundle = lab.bundle().payload("pause");
    for (key, value) in resources {
        bundle = bundle.set(&format!("/linux/resources/{key}"), value.clone());
    }
    lab.start(&bundle)
}

fn pages(bytes: u64) -> Value {
    json!([{ "pageSize": "2MB", "limit": bytes }])
}

fn limits_come_from_a_file_or_standard_input(lab: &Lab) {
    let container = pausing(lab, &[("hugepageLimits", pages(2 << 20))]);
    let limit = || container.cgroup_file("hugetlb.2MB.max");
    assert_eq!(limit(), (2 << 20).to_string());
    update(lab, &container, json!({ "hugepageLimits": pages(4 << 20) })).ok();
    assert_eq!(limit(), (4 << 20).to_string());
    // As containerd, and as CRI-O has it.
    for (bytes, words) in [
        (6 << 20, &["update", "--resources=-", &container.id][..]),
        (8 << 20, &["update", "--resources", "-", &container.id]),
        (10 << 20, &["update", &container.id, "-r", "-"]),
    ] {
        let file = document(lab, &json!({ "hugepageLimits": pages(bytes) }));
        let stdin = fs::File::open(file).unwrap();
        lab.runtime(words.iter().copied()).stdin(stdin).run().ok();
        assert_eq!(limit(), bytes.to_string());
    }
    assert_eq!(
        container.cgroup_file("hugetlb.2MB.rsvd.max"),
        (10 << 20).to_string()
    );
    container.end();
}

fn a_failed_update_leaves_every_limit_as_it_was(lab: &Lab) {
    let depth = ("unified", json!({ "cgroup.max.depth": "7" }));
    let container = pausing(lab, &[("hugepageLimits", pages(2 << 20)), depth]);
    for unified in [
        json!({ "cgroup.max.depth": "3", "hugetlb.2MB.max": "many" }),
        json!({ "cgroup.max.depth": "3", "cgroup.nonsense": "1" }),
        json!({ "cgroup.max.depth": "3", "nonsense.max": "1" }),
    ] {
        let resources = json!({ "hugepageLimits": pages(4 << 20), "unified": unified });
        let output = update(lab, &container, resources).code(1);
        if !lab.is_husk() {
            continue;
        }
        output.refused().says("/unified/");
        let found = [
            "hugetlb.2MB.max",
            "hugetlb.2MB.rsvd.max",
            "cgroup.max.depth",
        ]
        .map(|file| container.cgroup_file(file));
        let two = (2 << 20).to_string();
        assert_eq!(found, [two.clone(), two, "7".into()], "{unified}");
    }
    container.end();
}

fn a_created_container_can_be_updated(lab: &Lab) {
    let container = lab.create(&lab.bundle().payload("pause"));
    let resources = json!({ "unified": { "cgroup.max.depth": "5" } });
    update(lab, &container, resources).ok();
    assert_eq!(container.cgroup_file("cgroup.max.depth"), "5");
    assert_eq!(container.status(), "created");
    container.start();
    container.end();
}

fn a_paused_container_is_updated_and_stays_paused(lab: &Lab) {
    let container = pausing(lab, &[]);
    container.command("pause", &[]).run().ok();
    let resources = json!({ "unified": { "cgroup.max.depth": "5" } });
    update(lab, &container, resources).ok();
    assert_eq!(container.cgroup_file("cgroup.max.depth"), "5");
    assert_eq!(container.status(), "paused");
    container.command("resume", &[]).run().ok();
    assert_eq!(container.status(), "running");
    container.end();
}

/// Engines send the rules that they know of; those of `create` stay in force.
fn device_rules_are_not_touched(lab: &Lab) {
    let device =
        json!([{ "path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11, "fileMode": 0o666 }]);
    let container = lab.start(&lab.bundle().set("/linux/devices", device).payload("pause"));
    let resources = json!({
        "devices": [{ "allow": true, "access": "rwm" }],
        "unified": { "cgroup.max.depth": "5" },
    });
    update(lab, &container, resources).ok();
    assert_eq!(container.cgroup_file("cgroup.max.depth"), "5");
    assert_eq!(container.ask("open /dev/kmsg r")[0]["error"], "EPERM");
    assert_eq!(container.ask("write /dev/null x")[0], true);
    container.end();
}

fn options_may_stand_after_the_id(lab: &Lab) {
    let container = pausing(lab, &[]);
    let file = document(lab, &json!({ "unified": { "cgroup.max.depth": "4" } }));
    let words = ["update", &container.id, "-r", file.to_str().unwrap()];
    lab.runtime(words).run().ok();
    assert_eq!(container.cgroup_file("cgroup.max.depth"), "4");
    container.end();
}

fn a_wrong_value_is_told_by_its_option(lab: &Lab) {
    let container = pausing(lab, &[]);
    for (option, value) in [
        ("--cpu-idle", "2"),
        ("--cpu-idle", "-1"),
        ("--cpu-period", "5"),
        ("--cpu-quota", "-2"),
        ("--cpu-quota", "many"),
        ("--cpu-rt-runtime", "1000"),
        ("--cpuset-cpus", "x"),
        ("--cpuset-mems", "3-1"),
        ("--memory", "12x"),
        ("--memory", "-2"),
        ("--memory-swap", "9999999999g"),
        ("--blkio-weight", "5"),
        ("--pids-limit", "none"),
    ] {
        let output = container.command("update", &[option, value]).run().code(1);
        if lab.is_husk() {
            output.refused().says(option);
        }
    }
    container.end();
}

fn a_wrong_document_is_told_by_its_pointer(lab: &Lab) {
    let container = pausing(lab, &[]);
    for (text, pointer) in [
        ("", ""),
        ("{", ""),
        ("{} {}", ""),
        (r#"{}},"linux":{"resources":{}"#, ""),
        ("[]", ""),
        (r#"{"memory":{"limit":"1g"}}"#, "/memory/limit"),
        (r#"{"memory":{"limit":-5}}"#, "/memory/limit"),
        (r#"{"cpu":{"idle":7}}"#, "/cpu/idle"),
        (r#"{"unified":{"../x":"1"}}"#, "/unified/..~1x"),
        (
            r#"{"hugepageLimits":[{"pageSize":"2mb","limit":1}]}"#,
            "/hugepageLimits/0",
        ),
    ] {
        let file = lab.path("document");
        fs::write(&file, text).unwrap();
        let output = container
            .command("update", &["--resources", file.to_str().unwrap()])
            .run();
        if lab.is_husk() {
            let refusal = output.code(1).refused().says(pointer);
            refusal.says("resources");
        }
    }
    let output = container
        .command("update", &["--resources", "/nowhere"])
        .run()
        .code(1);
    assert!(
        output.stderr.contains("no such file or directory"),
        "{output}"
    );
    container.end();
}

/// What docker and the CRI send for limits that nobody asked for: no controller is needed for it.
fn zeros_of_engines_change_nothing(lab: &Lab) {
    let container = pausing(lab, &[]);
    let resources = json!({
        "memory": { "limit": 0, "reservation": 0, "swap": 0, "kernel": 0, "swappiness": 0 },
        "cpu": { "shares": 0, "quota": 0, "period": 0, "cpus": "", "mems": "",
                 "realtimeRuntime": 0, "realtimePeriod": 0 },
        "blockIO": { "weight": 0 },
        "hugepageLimits": [],
    });
    update(lab, &container, resources).ok();
    container.end();
}

fn nothing_to_change_is_fine(lab: &Lab) {
    let container = pausing(lab, &[]);
    container.command("update", &[]).run().ok();
    update(lab, &container, json!({})).ok();
    container.end();
}

fn a_stopped_or_missing_container_is_refused(lab: &Lab) {
    let words = ["--cpu-idle", "0"];
    let container = pausing(lab, &[]);
    container.kill("KILL");
    container.wait();
    let output = container.command("update", &words).run().code(1);
    if lab.is_husk() {
        assert!(output.stderr.contains("container not running"), "{output}");
    }
    container.delete();
    let output = container.command("update", &words).run().code(1);
    assert!(output.stderr.contains("does not exist"), "{output}");
}

fn schemata_need_a_group(lab: &Lab) {
    let container = pausing(lab, &[]);
    for option in ["--l3-cache-schema", "--mem-bw-schema"] {
        let output = container.command("update", &[option, "MB:0=10"]).run();
        output.code(1).refused().says("linux.intelRdt");
    }
    container.end();
}

fn a_limit_without_its_controller_is_told_by_its_option(lab: &Lab) {
    let container = pausing(lab, &[]);
    let here = cgroup::controllers();
    for (controller, option, value) in [
        ("memory", "--memory", "64m"),
        ("pids", "--pids-limit", "9"),
        ("cpu", "--cpu-share", "512"),
        ("cpuset", "--cpuset-cpus", "0"),
        ("io", "--blkio-weight", "100"),
    ] {
        if !here.iter().any(|name| name == controller) {
            let output = container.command("update", &[option, value]).run();
            output
                .code(1)
                .refused()
                .says(option)
                .says(&format!("{controller} controller"));
        }
    }
    container.end();
}

fn memory_and_swap_are_set_together(lab: &Lab) {
    let memory = json!({ "limit": 32 << 20, "reservation": 24 << 20 });
    let container = pausing(lab, &[("memory", memory)]);
    let options = ["--memory", "50M", "--memory-swap", "80m"];
    container.command("update", &options).run().ok();
    let found =
        ["memory.max", "memory.swap.max", "memory.low"].map(|file| container.cgroup_file(file));
    let expected = [50 << 20, 30 << 20, 24 << 20].map(|bytes: u64| bytes.to_string());
    assert_eq!(found, expected);
    let options = ["--memory-reservation", "16m"];
    container.command("update", &options).run().ok();
    assert_eq!(container.cgroup_file("memory.low"), (16 << 20).to_string());
    assert_eq!(container.cgroup_file("memory.max"), (50 << 20).to_string());
    // Less for both than for one.
    let options = ["--memory", "50m", "--memory-swap", "40m"];
    let output = container.command("update", &options).run().code(1);
    if lab.is_husk() {
        output.refused().says("--memory-swap");
    }
    container.end();
}

fn memory_without_a_limit_is_swap_without_one_too(lab: &Lab) {
    let memory = json!({ "limit": 32 << 20, "swap": 48 << 20 });
    let container = pausing(lab, &[("memory", memory)]);
    assert_eq!(
        container.cgroup_file("memory.swap.max"),
        (16 << 20).to_string()
    );
    container.command("update", &["--memory", "-1"]).run().ok();
    let found = ["memory.max", "memory.swap.max"].map(|file| container.cgroup_file(file));
    assert_eq!(found, ["max", "max"]);
    container.end();
}

fn a_limit_of_both_alone_takes_the_memory_limit_in_force(lab: &Lab) {
    let container = pausing(lab, &[("memory", json!({ "limit": 32 << 20 }))]);
    let options = ["--memory-swap", "48m"];
    container.command("update", &options).run().ok();
    let found = ["memory.max", "memory.swap.max"].map(|file| container.cgroup_file(file));
    assert_eq!(
        found,
        [32 << 20, 16 << 20].map(|bytes: u64| bytes.to_string())
    );
    container.command("update", &["--memory", "-1"]).run().ok();
    let output = container.command("update", &options).run();
    output.code(1).refused().says("--memory-swap");
    container.end();
}

fn quota_and_period_are_merged_with_what_is_in_force(lab: &Lab) {
    let cpu = json!({ "quota": 500_000, "period": 1_000_000, "shares": 100 });
    let container = pausing(lab, &[("cpu", cpu)]);
    let weight = container.cgroup_file("cpu.weight");
    for (options, expected) in [
        (&["--cpu-period", "900000"][..], "500000 900000"),
        (&["--cpu-quota", "600000"], "600000 900000"),
        (&["--cpu-quota", "-1"], "max 900000"),
        (&["--cpu-period", "800000"], "max 800000"),
        (
            &["--cpu-quota", "20000", "--cpu-period", "50000"],
            "20000 50000",
        ),
    ] {
        container.command("update", options).run().ok();
        assert_eq!(container.cgroup_file("cpu.max"), expected, "{options:?}");
    }
    assert_eq!(container.cgroup_file("cpu.weight"), weight);
    container
        .command("update", &["--cpu-share", "1024"])
        .run()
        .ok();
    assert_eq!(container.cgroup_file("cpu.weight"), "100");
    assert_eq!(container.cgroup_file("cpu.max"), "20000 50000");
    container.end();
}

fn burst_and_quota_may_change_in_either_direction(lab: &Lab) {
    let cpu = json!({ "quota": 20_000, "period": 100_000, "burst": 20_000 });
    let container = pausing(lab, &[("cpu", cpu)]);
    for (quota, burst) in [("50000", "40000"), ("10000", "10000"), ("30000", "0")] {
        let options = ["--cpu-quota", quota, "--cpu-burst", burst];
        container.command("update", &options).run().ok();
        assert_eq!(container.cgroup_file("cpu.max"), format!("{quota} 100000"));
        assert_eq!(container.cgroup_file("cpu.max.burst"), burst);
    }
    // More than the quota that is in force.
    let output = container.command("update", &["--cpu-burst", "40000"]).run();
    let output = output.code(1);
    if lab.is_husk() {
        output.refused().says("--cpu-burst");
    }
    assert_eq!(container.cgroup_file("cpu.max.burst"), "0");
    container.end();
}

fn idle_and_shares(lab: &Lab) {
    let container = pausing(lab, &[("cpu", json!({ "shares": 512 }))]);
    let read = || ["cpu.idle", "cpu.weight"].map(|file| container.cgroup_file(file));
    let before = read();
    for idle in ["0", "1", "1"] {
        container
            .command("update", &["--cpu-idle", idle])
            .run()
            .ok();
        assert_eq!(container.cgroup_file("cpu.idle"), idle);
    }
    // Something else leaves it idle.
    container
        .command("update", &["--cpu-period", "50000"])
        .run()
        .ok();
    assert_eq!(container.cgroup_file("cpu.idle"), "1");
    if lab.is_husk() {
        // An idle cgroup has no weight; that it is idle stays.
        let output = container.command("update", &["--cpu-share", "200"]).run();
        output.code(1).refused().says("--cpu-share").says("idle");
        assert_eq!(container.cgroup_file("cpu.idle"), "1");
    }
    let options = ["--cpu-idle", "0", "--cpu-share", "512"];
    container.command("update", &options).run().ok();
    assert_eq!(read(), before);
    if lab.is_husk() {
        let file = lab.path("idle");
        let both = json!({ "unified": { "cpu.idle": "1", "cpu.weight": "8" } });
        fs::write(&file, both.to_string()).unwrap();
        let words = ["--resources", file.to_str().unwrap()];
        let output = container.command("update", &words).run().ok();
        assert!(output.stderr.contains("unable to apply both"), "{output}");
        assert_eq!(container.cgroup_file("cpu.idle"), "1");
    }
    container.end();
}

fn pids_limit_holds_at_once(lab: &Lab) {
    let container = pausing(lab, &[("pids", json!({ "limit": 20 }))]);
    container
        .command("update", &["--pids-limit", "4"])
        .run()
        .ok();
    assert_eq!(container.cgroup_file("pids.max"), "4");
    assert_eq!(container.ask("forks 10")[0]["errors"][0], "EAGAIN");
    container
        .command("update", &["--pids-limit", "-1"])
        .run()
        .ok();
    assert_eq!(container.cgroup_file("pids.max"), "max");
    container.end();
}

fn cpuset_changes_at_once(lab: &Lab) {
    let container = pausing(lab, &[]);
    let options = ["--cpuset-cpus", "0", "--cpuset-mems", "0"];
    container.command("update", &options).run().ok();
    let found = ["cpuset.cpus", "cpuset.mems"].map(|file| container.cgroup_file(file));
    assert_eq!(found, ["0", "0"]);
    assert_eq!(container.ask("facts")[0]["scheduler"]["cpus"], json!([0]));
    container.end();
}

fn io_limits_of_one_device_are_put_back(lab: &Lab) {
    let Some((major, minor)) = super::limits::disk() else {
        crate::runner::skip("no disk")
    };
    let device = |rate: u64| json!([{ "major": major, "minor": minor, "rate": rate }]);
    let container = pausing(
        lab,
        &[(
            "blockIO",
            json!({ "throttleReadBpsDevice": device(1_000_000) }),
        )],
    );
    let before = container.cgroup_file("io.max");
    let resources = json!({
        "blockIO": { "throttleReadBpsDevice": device(5_000_000), "throttleWriteIOPSDevice": device(10) },
        "unified": { "cgroup.nonsense": "1" },
    });
    update(lab, &container, resources).code(1);
    assert_eq!(container.cgroup_file("io.max"), before);
    let resources = json!({ "blockIO": { "throttleReadBpsDevice": device(0) } });
    update(lab, &container, resources).ok();
    assert_eq!(container.cgroup_file("io.max"), "");
    container.end();
}

fn check_before_update_rejects_what_is_in_use(lab: &Lab) {
    let container = pausing(lab, &[("memory", json!({ "limit": 64 << 20 }))]);
    for (memory, words) in [
        (
            json!({ "limit": 1024, "checkBeforeUpdate": true }),
            "rejecting memory limit",
        ),
        (
            json!({ "limit": 1024, "swap": 2048, "checkBeforeUpdate": true }),
            "rejecting memory+swap limit",
        ),
    ] {
        let output = update(lab, &container, json!({ "memory": memory })).code(1);
        assert!(output.stderr.contains(words), "{output}");
        assert_eq!(container.cgroup_file("memory.max"), (64 << 20).to_string());
        assert_eq!(container.status(), "running");
    }
    let memory = json!({ "limit": 48 << 20, "checkBeforeUpdate": true });
    update(lab, &container, json!({ "memory": memory })).ok();
    assert_eq!(container.cgroup_file("memory.max"), (48 << 20).to_string());
    container.end();
}

fn a_failed_update_puts_memory_and_pids_back(lab: &Lab) {
    let memory = json!({ "limit": 64 << 20, "reservation": 8 << 20 });
    let container = pausing(lab, &[("memory", memory), ("pids", json!({ "limit": 20 }))]);
    let resources = json!({
        "memory": { "limit": 32 << 20, "reservation": 4 << 20 },
        "pids": { "limit": 9 },
        "unified": { "memory.high": "16777216", "memory.oom.group": "seven" },
    });
    let output = update(lab, &container, resources).code(1);
    if lab.is_husk() {
        output.refused().says("/unified/memory.oom.group");
        let found = ["memory.max", "memory.low", "pids.max", "memory.high"]
            .map(|file| container.cgroup_file(file));
        let expected = [
            (64 << 20).to_string(),
            (8 << 20).to_string(),
            "20".into(),
            "max".into(),
        ];
        assert_eq!(found, expected);
    }
    container.end();
}

fn unified_is_written_last(lab: &Lab) {
    let bundle = with_resources(lab, "pids", json!({ "limit": 20 })).payload("pause");
    let container = lab.start(&bundle);
    let resources = json!({ "pids": { "limit": 10 }, "unified": { "pids.max": "15" } });
    update(lab, &container, resources).ok();
    assert_eq!(container.cgroup_file("pids.max"), "15");
    container.end();
}
