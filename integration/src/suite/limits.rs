//! The limits of cgroup v2 and their conversions. Most need controllers that only the virtual
//! machine has on its v2 tree.

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use super::cgroups::{values, with_resources};
use super::tests;
use crate::cgroup;
use crate::container::Container;
use crate::lab::Lab;
use crate::need::Need;
use crate::output::End;

tests! {
    hugetlb_limit_is_applied.needs(HUGETLB),
    hugetlb_page_size_that_does_not_exist_is_refused.needs(HUGETLB),
    memory_limit_is_applied.needs(MEMORY),
    memory_limit_kills_what_exceeds_it.needs(MEMORY),
    memory_unlimited_reservation_and_low.needs(MEMORY),
    memory_swap_is_converted.needs(SWAP),
    memory_swap_below_the_limit_is_refused.needs(SWAP),
    memory_limit_too_small_to_start_is_told.needs(MEMORY),
    memory_that_ends_before_the_program_is_told.needs(MEMORY_HUSK),
    oom_kills_are_in_the_state_of_a_stopped_container.needs(MEMORY_HUSK),
    memory_check_before_update_is_checked.needs(MEMORY),
    cpu_shares_become_a_weight.needs(CPU),
    cpu_quota_and_period_become_cpu_max.needs(CPU),
    cpu_burst_is_applied.needs(CPU),
    cpu_idle_is_applied.needs(CPU),
    cpu_quota_holds.needs(CPU).seconds(60),
    a_start_that_is_throttled_ends_when_the_program_runs.needs(CPU).seconds(120),
    cpuset_is_applied_and_seen_by_the_process.needs(CPUSET),
    cpuset_of_a_missing_cpu_is_refused.needs(CPUSET),
    pids_limit_is_applied_and_holds.needs(PIDS),
    pids_limit_of_minus_one_is_none_and_zero_is_one.needs(PIDS),
    io_weight_and_throttles_are_applied.needs(IO),
    io_weights_go_to_bfq_where_it_is.needs(IO_MACHINE),
    io_limit_of_a_missing_device_is_refused.needs(IO),
    rdma_limits_are_applied.needs(RDMA),
    rdma_limit_of_a_missing_device_is_refused.needs(RDMA),
    hugetlb_limit_holds.needs(HUGETLB_MACHINE),
    realtime_limits_are_refused,
    keys_of_v1_alone_are_let_pass.needs(MEMORY),
    unified_values_win_and_their_controllers_are_enabled.needs(MEMORY),
    unified_file_that_does_not_exist_is_refused.needs(MEMORY),
    limits_hold_for_exec_too.needs(PIDS),
    controllers_are_enabled_down_a_deep_path.needs(PIDS),
    every_limit_at_once.needs(&[Need::Controller("memory"), Need::Controller("cpu"), Need::Controller("pids")]),
}

const MEMORY: &[Need] = &[Need::Controller("memory")];
const MEMORY_HUSK: &[Need] = &[Need::Husk, Need::Controller("memory")];

const CPU: &[Need] = &[Need::Controller("cpu")];

const CPUSET: &[Need] = &[Need::Controller("cpuset")];

const PIDS: &[Need] = &[Need::Controller("pids")];

const IO: &[Need] = &[Need::Controller("io")];

/// Whose scheduler and huge pages may be changed for a test.
const IO_MACHINE: &[Need] = &[Need::Controller("io"), Need::Systemd];

const HUGETLB_MACHINE: &[Need] = &[Need::Controller("hugetlb"), Need::Systemd];

const RDMA: &[Need] = &[Need::Controller("rdma")];

const HUGETLB: &[Need] = &[Need::Controller("hugetlb")];

const SWAP: &[Need] = &[Need::SwapAccounting];

fn hugetlb_limit_is_applied(lab: &Lab) {
    let limit = json!([{ "pageSize": "2MB", "limit": 4 << 20 }]);
    let found = values(
        lab,
        "hugepageLimits",
        limit,
        &["hugetlb.2MB.max", "hugetlb.2MB.rsvd.max"],
    );
    assert_eq!(found, [(4 << 20).to_string(), (4 << 20).to_string()]);
}

fn hugetlb_page_size_that_does_not_exist_is_refused(lab: &Lab) {
    for size in ["3MB", "2MB/../cgroup", "2mb"] {
        let limit = json!([{ "pageSize": size, "limit": 0 }]);
        let output = lab
            .run(&with_resources(lab, "hugepageLimits", limit).payload("exit 0"))
            .code(1);
        if lab.is_husk() {
            output
                .refused()
                .says("/linux/resources/hugepageLimits/0")
                .says(size);
        }
    }
}

fn memory_limit_is_applied(lab: &Lab) {
    let found = values(lab, "memory", json!({ "limit": 64 << 20 }), &["memory.max"]);
    assert_eq!(found, [(64 << 20).to_string()]);
}

fn memory_limit_kills_what_exceeds_it(lab: &Lab) {
    let memory = json!({ "limit": 32 << 20, "swap": 32 << 20 });
    let bundle =
        with_resources(lab, "memory", memory).payload("child-alloc 128 -- child-alloc 4 -- pause");
    let container = lab.start(&bundle);
    let lines = container.wait_for_lines(2);
    assert_eq!(lines[0]["signal"], 9);
    assert_eq!(lines[1]["code"], 0);
    assert!(
        container
            .cgroup_file("memory.events")
            .contains("oom_kill 1")
    );
    container.end();
}

fn memory_unlimited_reservation_and_low(lab: &Lab) {
    let memory = json!({ "limit": -1, "reservation": 16 << 20 });
    let found = values(lab, "memory", memory, &["memory.max", "memory.low"]);
    assert_eq!(found, ["max".to_owned(), (16 << 20).to_string()]);
}

fn memory_swap_is_converted(lab: &Lab) {
    let cases = [
        (
            json!({ "limit": 100 << 20, "swap": 150 << 20 }),
            (50 << 20).to_string(),
        ),
        (
            json!({ "limit": 100 << 20, "swap": 100 << 20 }),
            "0".to_owned(),
        ),
        (json!({ "limit": 100 << 20, "swap": -1 }), "max".to_owned()),
        (json!({ "limit": 100 << 20 }), "max".to_owned()),
        (json!({ "limit": -1 }), "max".to_owned()),
    ];
    for (memory, expected) in cases {
        let found = values(lab, "memory", memory.clone(), &["memory.swap.max"]);
        assert_eq!(found, [expected], "{memory}");
    }
}

fn memory_swap_below_the_limit_is_refused(lab: &Lab) {
    for memory in [
        json!({ "limit": 100 << 20, "swap": 50 << 20 }),
        json!({ "swap": 50 << 20 }),
    ] {
        let output = lab
            .run(&with_resources(lab, "memory", memory).payload("exit 0"))
            .code(1);
        if lab.is_husk() {
            output.refused().says("/linux/resources/memory/swap");
        }
    }
}

/// Whoever looks, after the end: the cgroup stays until `delete`.
fn oom_kills_are_in_the_state_of_a_stopped_container(lab: &Lab) {
    let memory = json!({ "limit": 32 << 20, "swap": 32 << 20 });
    let bundle = with_resources(lab, "memory", memory).payload("child-alloc 128 -- exit 0");
    let container = lab.start(&bundle);
    container.wait();
    assert_eq!(container.state()["oomKills"], 1);
    container.delete();
    let id = lab.id();
    let bundle = bundle.payload("alloc 128");
    lab.on_bundle("run", &bundle, &["--keep"], &id).run();
    let state = lab.runtime(["state", &id]).run().ok().json();
    assert_eq!(state["oomKills"], 1, "{state}");
    assert_eq!(state["signal"], "SIGKILL", "{state}");
    lab.runtime(["delete", &id]).run().ok();
}

/// The process that waits is killed when it comes to execute the program.
fn memory_that_ends_before_the_program_is_told(lab: &Lab) {
    let memory = json!({ "limit": 64 << 20, "swap": 64 << 20 });
    let container = lab.create(&with_resources(lab, "memory", memory).payload("pause"));
    container.pid();
    let path = container.cgroup().join("memory.max");
    fs::write(path, "4096").unwrap();
    let output = container.command("start", &[]).run().code(1);
    let known = [
        "out of memory: the limit is too small",
        "cannot start a container that has stopped",
    ];
    assert!(
        known.iter().any(|words| output.stderr.contains(words)),
        "{output}"
    );
    container.wait();
    container.force_delete();
}

fn memory_limit_too_small_to_start_is_told(lab: &Lab) {
    let memory = json!({ "limit": 4096, "swap": 4096 });
    let output = lab.run(&with_resources(lab, "memory", memory).payload("alloc 4"));
    assert_ne!(output.end, End::Code(0), "{output}");
    if lab.is_husk() && output.end == End::Code(1) {
        output.refused().says("memory");
    }
}

fn memory_check_before_update_is_checked(lab: &Lab) {
    let memory = json!({ "limit": 64 << 20, "checkBeforeUpdate": true });
    assert_eq!(
        values(lab, "memory", memory, &["memory.max"]),
        [(64 << 20).to_string()]
    );
}

fn cpu_shares_become_a_weight(lab: &Lab) {
    for (shares, weight) in [
        (1024, "100"),
        (2, "1"),
        (262_144, "10000"),
        (512, "59"),
        (2048, "174"),
    ] {
        let found = values(lab, "cpu", json!({ "shares": shares }), &["cpu.weight"]);
        if lab.is_husk() || [1024, 2].contains(&shares) && found[0] == weight {
            assert_eq!(found, [weight], "{shares}");
        }
    }
}

fn cpu_quota_and_period_become_cpu_max(lab: &Lab) {
    let cases = [
        (json!({ "quota": 20_000, "period": 50_000 }), "20000 50000"),
        (json!({ "quota": 20_000 }), "20000 100000"),
        (json!({ "period": 50_000 }), "max 50000"),
        (json!({ "quota": -1, "period": 50_000 }), "max 50000"),
    ];
    for (cpu, expected) in cases {
        assert_eq!(
            values(lab, "cpu", cpu.clone(), &["cpu.max"]),
            [expected],
            "{cpu}"
        );
    }
}

fn cpu_burst_is_applied(lab: &Lab) {
    let cpu = json!({ "quota": 20_000, "period": 50_000, "burst": 10_000 });
    assert_eq!(
        values(lab, "cpu", cpu, &["cpu.max.burst", "cpu.max"]),
        ["10000", "20000 50000"]
    );
}

fn cpu_idle_is_applied(lab: &Lab) {
    assert_eq!(
        values(lab, "cpu", json!({ "idle": 1 }), &["cpu.idle"]),
        ["1"]
    );
}

fn cpu_quota_holds(lab: &Lab) {
    let cpu = json!({ "quota": 10_000, "period": 100_000 });
    let answers = lab.ask(with_resources(lab, "cpu", cpu), "burn 2");
    let share = answers[0]["share"].as_f64().unwrap();
    // An emulated processor's clock ticks late; without the limit it is 1.
    assert!(share < 0.5, "{share} of a CPU instead of 0.1");
}

/// Execution closes the start's connection before the process is told from one that waits.
fn a_start_that_is_throttled_ends_when_the_program_runs(lab: &Lab) {
    let cpu = json!({ "quota": 4_000, "period": 100_000 });
    for _ in 0..10 {
        let container = lab.start(&with_resources(lab, "cpu", cpu.clone()).payload("pause"));
        assert_eq!(container.state()["status"], "running");
        container.force_delete();
    }
}

fn cpuset_is_applied_and_seen_by_the_process(lab: &Lab) {
    let bundle =
        with_resources(lab, "cpu", json!({ "cpus": "0", "mems": "0" })).payload("facts -- pause");
    let container = lab.start(&bundle);
    let facts = container.wait_for_lines(1).remove(0);
    assert_eq!(container.cgroup_file("cpuset.cpus"), "0");
    assert_eq!(container.cgroup_file("cpuset.mems"), "0");
    assert_eq!(facts["scheduler"]["cpus"], json!([0]));
    assert_eq!(container.ask("facts")[0]["scheduler"]["cpus"], json!([0]));
    container.end();
}

fn cpuset_of_a_missing_cpu_is_refused(lab: &Lab) {
    for cpus in ["4000", "x", "1-"] {
        let bundle = with_resources(lab, "cpu", json!({ "cpus": cpus })).payload("exit 0");
        let output = lab.run(&bundle).code(1);
        if lab.is_husk() {
            output.refused().says("/linux/resources/cpu/cpus");
        }
    }
}

fn pids_limit_is_applied_and_holds(lab: &Lab) {
    let bundle = with_resources(lab, "pids", json!({ "limit": 5 })).payload("forks 10 -- pause");
    let container = lab.start(&bundle);
    let line = container.wait_for_lines(1).remove(0);
    assert_eq!(line["made"], 4);
    assert_eq!(line["errors"][0], "EAGAIN");
    assert_eq!(container.cgroup_file("pids.max"), "5");
    container.end();
}

fn pids_limit_of_minus_one_is_none_and_zero_is_one(lab: &Lab) {
    assert_eq!(
        values(lab, "pids", json!({ "limit": -1 }), &["pids.max"]),
        ["max"]
    );
    if lab.is_husk() {
        let container =
            lab.create(&with_resources(lab, "pids", json!({ "limit": 0 })).payload("pause"));
        assert!(["0", "1"].contains(&container.cgroup_file("pids.max").as_str()));
        container.force_delete();
    }
}

/// A whole disk of this machine: its number, as `/sys/class/block` tells it.
pub(super) fn disk() -> Option<(u64, u64)> {
    let mut names: Vec<PathBuf> = fs::read_dir("/sys/class/block")
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    names.sort();
    let disk = names
        .iter()
        .find(|p| !p.join("partition").exists() && p.join("device").exists())?;
    let text = fs::read_to_string(disk.join("dev")).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn io_weight_and_throttles_are_applied(lab: &Lab) {
    let Some((major, minor)) = disk() else {
        crate::runner::skip("no disk")
    };
    let device = |rate: u64| json!([{ "major": major, "minor": minor, "rate": rate }]);
    let io = json!({
        "throttleReadBpsDevice": device(1_000_000), "throttleWriteBpsDevice": device(2_000_000),
        "throttleReadIOPSDevice": device(300), "throttleWriteIOPSDevice": device(400),
    });
    let found = values(lab, "blockIO", io, &["io.max"]);
    let expected = format!("{major}:{minor} rbps=1000000 wbps=2000000 riops=300 wiops=400");
    assert_eq!(found, [expected]);
    let container =
        lab.create(&with_resources(lab, "blockIO", json!({ "weight": 500 })).payload("pause"));
    let bfq = container.cgroup().join("io.bfq.weight").exists();
    let file = if bfq { "io.bfq.weight" } else { "io.weight" };
    if container.cgroup().join(file).exists() {
        let weight = container.cgroup_file(file);
        assert_eq!(weight, if bfq { "default 500" } else { "default 4950" });
    }
    container.force_delete();
}

fn unified_values_win_and_their_controllers_are_enabled(lab: &Lab) {
    let bundle = lab
        .bundle()
        .set("/linux/resources/memory", json!({ "limit": 64 << 20 }))
        .set(
            "/linux/resources/unified",
            json!({ "memory.max": "33554432", "memory.high": "16777216" }),
        )
        .payload("pause");
    let container = lab.create(&bundle);
    assert_eq!(container.cgroup_file("memory.max"), "33554432");
    assert_eq!(container.cgroup_file("memory.high"), "16777216");
    container.force_delete();
}

fn unified_file_that_does_not_exist_is_refused(lab: &Lab) {
    let output = lab
        .run(&with_resources(lab, "unified", json!({ "memory.nonsense": "1" })).payload("exit 0"));
    let output = output.code(1);
    assert!(output.stderr.contains("memory.nonsense"), "{output}");
}

fn limits_hold_for_exec_too(lab: &Lab) {
    let container = lab.start(&with_resources(lab, "pids", json!({ "limit": 6 })).payload("pause"));
    let made = container.ask("forks 10");
    assert!(made[0]["made"].as_u64() <= Some(4), "{made:?}");
    container.end();
}

fn controllers_are_enabled_down_a_deep_path(lab: &Lab) {
    let top = lab.id();
    let path = format!("/{top}/b/c");
    let bundle = with_resources(lab, "pids", json!({ "limit": 9 }))
        .set("/linux/cgroupsPath", path.as_str())
        .payload("pause");
    let container = lab.create(&bundle);
    let file = cgroup::path(&path).join("pids.max");
    assert_eq!(fs::read_to_string(file).unwrap().trim(), "9");
    container.force_delete();
    let _ = cgroup::remove(&cgroup::path(&top));
}

fn every_limit_at_once(lab: &Lab) {
    let bundle = lab
        .bundle()
        .set(
            "/linux/resources/memory",
            json!({ "limit": 64 << 20, "reservation": 32 << 20 }),
        )
        .set(
            "/linux/resources/cpu",
            json!({ "shares": 1024, "quota": 50_000, "period": 100_000 }),
        )
        .set("/linux/resources/pids", json!({ "limit": 50 }))
        .payload("pause");
    let container: Container = lab.create(&bundle);
    let expected = [
        ("memory.max", "67108864"),
        ("memory.low", "33554432"),
        ("cpu.weight", "100"),
        ("cpu.max", "50000 100000"),
        ("pids.max", "50"),
    ];
    expected
        .iter()
        .for_each(|(file, value)| assert_eq!(container.cgroup_file(file), *value, "{file}"));
    container.force_delete();
}

/// BFQ has v1's scale, and weights for single devices.
fn io_weights_go_to_bfq_where_it_is(lab: &Lab) {
    let Some((major, minor)) = disk() else {
        crate::runner::skip("no disk")
    };
    let scheduler = PathBuf::from(format!("/sys/dev/block/{major}:{minor}/queue/scheduler"));
    let before = fs::read_to_string(&scheduler).unwrap();
    if fs::write(&scheduler, "bfq").is_err() {
        crate::runner::skip("no BFQ scheduler")
    }
    let weights = json!({
        "weight": 500,
        "weightDevice": [{ "major": major, "minor": minor, "weight": 300 }],
    });
    let found = values(lab, "blockIO", weights, &["io.bfq.weight"]);
    let active = before.split(['[', ']']).nth(1).unwrap_or("none");
    fs::write(&scheduler, active).unwrap();
    assert_eq!(found, [format!("default 500\n{major}:{minor} 300")]);
}

fn io_limit_of_a_missing_device_is_refused(lab: &Lab) {
    let device = json!([{ "major": 250, "minor": 77, "rate": 1000 }]);
    let io = json!({ "throttleReadBpsDevice": device });
    let output = lab
        .run(&with_resources(lab, "blockIO", io).payload("exit 0"))
        .code(1);
    if lab.is_husk() {
        let refusal = output.refused().says("throttleReadBpsDevice/0");
        refusal.says("no such block device");
    }
}

/// The kernel's own device in software, on a link that is always there.
fn software_rdma(name: &str) -> bool {
    let run = |words: &[&str]| {
        let output = std::process::Command::new(words[0])
            .args(&words[1..])
            .output();
        output.is_ok_and(|output| output.status.success())
    };
    run(&["modprobe", "rdma_rxe"])
        && run(&["ip", "link", "set", "lo", "up"])
        && run(&["rdma", "link", "add", name, "type", "rxe", "netdev", "lo"])
}

fn rdma_limits_are_applied(lab: &Lab) {
    const NAME: &str = "husk_test0";
    if !software_rdma(NAME) {
        crate::runner::skip("no RDMA device can be made")
    }
    let limit = json!({ NAME: { "hcaHandles": 3, "hcaObjects": 10_000 } });
    let container = lab.create(&with_resources(lab, "rdma", limit).payload("pause"));
    let found = container.cgroup_file("rdma.max");
    let told = container.command("events", &["--stats"]).run().ok().line();
    let file = lab.path("resources");
    let limit = json!({ "rdma": { NAME: { "hcaObjects": 7 } } });
    fs::write(&file, limit.to_string()).unwrap();
    let words = ["--resources", file.to_str().unwrap()];
    container.command("update", &words).run().ok();
    let changed = container.cgroup_file("rdma.max");
    container.force_delete();
    let _ = std::process::Command::new("rdma")
        .args(["link", "delete", NAME])
        .output();
    let line = |text: &str| {
        let line = text.lines().find(|line| line.starts_with(NAME));
        line.unwrap_or_default().to_owned()
    };
    assert_eq!(
        line(&found),
        format!("{NAME} hca_handle=3 hca_object=10000")
    );
    assert_eq!(line(&changed), format!("{NAME} hca_handle=3 hca_object=7"));
    if lab.is_husk() {
        let told = &told["data"]["v2"]["rdma.max"][NAME];
        assert_eq!(*told, json!({ "hca_handle": 3, "hca_object": 10_000 }));
    }
}

fn rdma_limit_of_a_missing_device_is_refused(lab: &Lab) {
    let limit = json!({ "nothing0": { "hcaHandles": 3 } });
    let output = lab
        .run(&with_resources(lab, "rdma", limit).payload("exit 0"))
        .code(1);
    if lab.is_husk() {
        let refusal = output.refused().says("/linux/resources/rdma/nothing0");
        refusal.says("no such rdma device");
    }
}

/// What is reserved counts, so mmap(2) fails and nobody dies.
fn hugetlb_limit_holds(lab: &Lab) {
    const POOL: &str = "/proc/sys/vm/nr_hugepages";
    let before = fs::read_to_string(POOL).unwrap();
    fs::write(POOL, "8").unwrap();
    if fs::read_to_string(POOL).unwrap().trim() != "8" {
        let _ = fs::write(POOL, before.trim());
        crate::runner::skip("no 16 MiB in one piece")
    }
    let limit = json!([{ "pageSize": "2MB", "limit": 4 << 20 }]);
    let bundle =
        with_resources(lab, "hugepageLimits", limit).payload("hugepages 2 -- hugepages 3 -- pause");
    let container = lab.start(&bundle);
    let lines = container.wait_for_lines(2);
    let told = container.command("events", &["--stats"]).run().ok().line();
    container.end();
    let _ = fs::write(POOL, before.trim());
    assert_eq!(lines[0], 2);
    assert_eq!(lines[1]["error"], "ENOMEM");
    let told = &told["data"]["hugetlb"]["2MB"];
    assert_eq!(told["failcnt"], 1, "{told}");
}

/// cgroup v2 has nothing to turn them into.
fn realtime_limits_are_refused(lab: &Lab) {
    if lab.is_husk() {
        let bundle = with_resources(lab, "cpu", json!({ "realtimeRuntime": 1000 }));
        let output = lab.run(&bundle.payload("exit 0")).code(1);
        let refusal = output
            .refused()
            .says("/linux/resources/cpu/realtimeRuntime");
        refusal.says("cgroup v2");
    }
}

/// Engines write them into configurations for any kernel.
fn keys_of_v1_alone_are_let_pass(lab: &Lab) {
    let memory = json!({
        "limit": 64 << 20, "kernel": 64 << 20, "kernelTCP": 64 << 20,
        "swappiness": 60, "disableOOMKiller": true, "useHierarchy": true,
    });
    assert_eq!(
        values(lab, "memory", memory, &["memory.max"]),
        [(64 << 20).to_string()]
    );
}
