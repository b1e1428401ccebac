//! `events`: what a container uses, and when it runs out of memory.

use std::os::fd::OwnedFd;

use nix::fcntl::OFlag;
use serde_json::{Value, json};

use super::cgroups::with_resources;
use super::tests;
use crate::bundle::Bundle;
use crate::container::Container;
use crate::lab::{Lab, Running, eventually};
use crate::need::Need;
use crate::output::End;

tests! {
    stats_are_one_line_that_begins_as_runcs_does,
    stats_have_every_block_of_runc,
    stats_of_a_paused_container_are_told,
    stats_come_at_intervals_until_the_container_ends,
    events_end_when_the_container_is_deleted,
    events_end_when_nobody_reads_them,
    events_of_a_stopped_or_missing_container_are_refused,
    an_interval_must_be_a_duration,
    pressure_is_told,
    huge_pages_are_told.needs(&[Need::Controller("hugetlb")]),
    interfaces_of_the_containers_own_network_are_told.needs(&[Need::Husk, Need::Program("ip")]),
    memory_is_told_as_v1_counts_it.needs(SWAP),
    processes_and_their_limit_are_told.needs(&[Need::Controller("pids")]),
    throttling_is_told.needs(CPU),
    block_io_is_told.needs(&[Need::Controller("io")]),
    cpuset_is_told.needs(&[Need::Husk, Need::Controller("cpuset")]),
    an_oom_kill_is_an_event.needs(MEMORY),
    the_oom_kill_of_the_first_process_is_an_event.needs(MEMORY_HUSK),
}

const CPU: &[Need] = &[Need::Controller("cpu")];
const MEMORY: &[Need] = &[Need::Controller("memory")];
const MEMORY_HUSK: &[Need] = &[Need::Husk, Need::Controller("memory")];
const SWAP: &[Need] = &[Need::SwapAccounting];

fn stats(container: &Container) -> Value {
    let event = container.command("events", &["--stats"]).run().ok().line();
    assert_eq!(event["type"], "stats");
    assert_eq!(event["id"], container.id.as_str());
    event["data"].clone()
}

fn watch(container: &Container, interval: &str) -> Running {
    container
        .command("events", &["--interval", interval])
        .spawn()
}

/// The lines that are whole so far.
fn lines(running: &Running) -> Vec<Value> {
    let text = running.stdout();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// Nobody else inherits its ends.
fn pipe() -> (OwnedFd, OwnedFd) {
    nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap()
}

fn pausing(lab: &Lab) -> Container<'_> {
    lab.start(&lab.bundle().payload("pause"))
}

fn stats_are_one_line_that_begins_as_runcs_does(lab: &Lab) {
    let container = pausing(lab);
    let output = container.command("events", &["--stats"]).run().ok();
    let start = format!(
        r#"{{"type":"stats","id":"{}","data":{{"cpu":"#,
        container.id
    );
    assert!(output.stdout.starts_with(&start), "{output}");
    assert!(output.stdout.ends_with("}\n"), "{output}");
    assert_eq!(output.stdout.matches('\n').count(), 1, "{output}");
    container.end();
}

fn stats_have_every_block_of_runc(lab: &Lab) {
    let container = pausing(lab);
    let stats = stats(&container);
    for pointer in [
        "/cpu/usage/kernel",
        "/cpu/usage/user",
        "/cpu/usage/total",
        "/cpu/throttling",
        "/cpuset/mem_hardwall",
        "/memory/usage/limit",
        "/memory/swap/failcnt",
        "/memory/kernel",
        "/memory/kernelTCP",
        "/pids",
        "/blkio",
        "/hugetlb",
        "/intel_rdt",
        "/network_interfaces",
    ] {
        assert!(stats.pointer(pointer).is_some(), "{pointer}: {stats}");
    }
    // In nanoseconds, and the sum of both parts.
    let usage = &stats["cpu"]["usage"];
    let number = |key: &str| usage[key].as_u64().unwrap();
    assert!(number("total") > 100_000, "{usage}");
    let sum = number("kernel") + number("user");
    assert!(sum.abs_diff(number("total")) <= 2000, "{usage}");
    if lab.is_husk() {
        let stat = &stats["v2"]["cpu.stat"];
        assert_eq!(
            stat["usage_usec"].as_u64().unwrap() * 1000,
            number("total"),
            "{stat}"
        );
    }
    container.end();
}

fn stats_of_a_paused_container_are_told(lab: &Lab) {
    let container = pausing(lab);
    container.command("pause", &[]).run().ok();
    assert!(stats(&container)["cpu"].is_object());
    container.command("resume", &[]).run().ok();
    container.end();
}

fn stats_come_at_intervals_until_the_container_ends(lab: &Lab) {
    let container = pausing(lab);
    let mut events = watch(&container, "50ms");
    assert!(eventually(|| lines(&events).len() >= 4));
    let all = lines(&events);
    assert!(all.iter().all(|line| line["type"] == "stats"), "{all:?}");
    let total = |line: &Value| line["data"]["cpu"]["usage"]["total"].as_u64().unwrap_or(0);
    assert!(total(&all[0]) <= total(&all[3]), "{all:?}");
    container.kill("KILL");
    container.wait();
    events.wait().ok();
    container.delete();
}

fn events_end_when_the_container_is_deleted(lab: &Lab) {
    let container = pausing(lab);
    // It needs no interval to notice.
    let mut events = watch(&container, "1h");
    if lab.is_husk() {
        assert!(eventually(|| lines(&events).len() == 1));
    }
    container.force_delete();
    events.wait().ok();
}

fn events_end_when_nobody_reads_them(lab: &Lab) {
    let container = pausing(lab);
    let (reader, writer) = pipe();
    let mut events = container
        .command("events", &["--interval", "20ms"])
        .stdout(writer)
        .spawn();
    drop(reader);
    let output = events.wait();
    if lab.is_husk() {
        assert!(
            matches!(output.end, End::Code(0) | End::Signal(13)),
            "{output}"
        );
        assert_eq!(output.stderr, "");
    }
    container.end();
}

fn events_of_a_stopped_or_missing_container_are_refused(lab: &Lab) {
    let container = pausing(lab);
    container.kill("KILL");
    container.wait();
    let output = container.command("events", &["--stats"]).run().code(1);
    assert!(output.stderr.contains("not running"), "{output}");
    container.delete();
    let output = container.command("events", &[]).run().code(1);
    assert!(output.stderr.contains("does not exist"), "{output}");
}

fn an_interval_must_be_a_duration(lab: &Lab) {
    let container = pausing(lab);
    for interval in ["0s", "-1s", "5", "soon"] {
        let output = container
            .command("events", &[&format!("--interval={interval}")])
            .run()
            .code(1);
        if lab.is_husk() {
            output.refused().says("interval");
        }
    }
    container.end();
}

fn pressure_is_told(lab: &Lab) {
    let container = pausing(lab);
    if std::fs::read(container.cgroup().join("cpu.pressure")).is_err() {
        container.end();
        crate::runner::skip("the kernel doesn't account for pressure")
    }
    let stats = stats(&container);
    for pointer in [
        "/cpu/psi/some/avg10",
        "/cpu/psi/full/total",
        "/blkio/psi/some/avg300",
    ] {
        assert!(
            stats.pointer(pointer).is_some_and(Value::is_number),
            "{pointer}: {stats}"
        );
    }
    container.end();
}

fn huge_pages_are_told(lab: &Lab) {
    let limit = json!([{ "pageSize": "2MB", "limit": 4 << 20 }]);
    let container = lab.start(&with_resources(lab, "hugepageLimits", limit).payload("pause"));
    let stats = stats(&container);
    assert_eq!(stats["hugetlb"]["2MB"], json!({ "failcnt": 0 }), "{stats}");
    container.end();
}

fn interfaces_of_the_containers_own_network_are_told(lab: &Lab) {
    let container = pausing(lab);
    assert_eq!(stats(&container)["network_interfaces"], json!([]));
    let pid = container.pid().to_string();
    let words = [
        "ip", "link", "add", "there", "type", "veth", "peer", "name", "here", "netns", &pid,
    ];
    let made = std::process::Command::new(words[0])
        .args(&words[1..])
        .output()
        .unwrap();
    if !made.status.success() {
        container.end();
        crate::runner::skip("no veth here")
    }
    let interfaces = stats(&container)["network_interfaces"].clone();
    container.end();
    let expected = [
        "Name",
        "RxBytes",
        "RxPackets",
        "RxErrors",
        "RxDropped",
        "TxBytes",
        "TxPackets",
        "TxErrors",
        "TxDropped",
    ];
    assert_eq!(interfaces[0]["Name"], "here", "{interfaces}");
    for key in expected {
        assert!(!interfaces[0][key].is_null(), "{key}: {interfaces}");
    }
}

fn memory_is_told_as_v1_counts_it(lab: &Lab) {
    let memory = json!({ "limit": 64 << 20, "swap": 96 << 20 });
    let container = lab.start(&with_resources(lab, "memory", memory).payload("pause"));
    let told = stats(&container)["memory"].clone();
    assert_eq!(told["usage"]["limit"], 64 << 20, "{told}");
    // Memory and swap together.
    assert_eq!(told["swap"]["limit"], 96 << 20, "{told}");
    let usage = told["usage"]["usage"].as_u64().unwrap();
    assert!((4096..64 << 20).contains(&usage), "{told}");
    assert!(told["swap"]["usage"].as_u64() >= Some(usage), "{told}");
    assert!(told["raw"]["anon"].is_u64(), "{told}");
    assert!(told["psi"]["some"]["avg10"].is_number(), "{told}");
    container.command("update", &["--memory", "-1"]).run().ok();
    let told = stats(&container)["memory"].clone();
    assert_eq!(told["usage"]["limit"], u64::MAX, "{told}");
    assert_eq!(told["swap"]["limit"], u64::MAX, "{told}");
    container.end();
}

fn processes_and_their_limit_are_told(lab: &Lab) {
    let bundle = with_resources(lab, "pids", json!({ "limit": 9 })).payload("forks 2 -- pause");
    let container = lab.start(&bundle);
    container.wait_for_lines(1);
    assert_eq!(
        stats(&container)["pids"],
        json!({ "current": 3, "limit": 9 })
    );
    container
        .command("update", &["--pids-limit", "-1"])
        .run()
        .ok();
    assert_eq!(stats(&container)["pids"], json!({ "current": 3 }));
    container.end();
}

/// The limit is felt, and its numbers tell so.
fn throttling_is_told(lab: &Lab) {
    let cpu = json!({ "quota": 5_000, "period": 50_000 });
    let bundle = with_resources(lab, "cpu", cpu).payload("burn 1 -- pause");
    let container = lab.start(&bundle);
    container.wait_for_lines(1);
    let told = stats(&container)["cpu"]["throttling"].clone();
    let number = |key: &str| told[key].as_u64().unwrap_or(0);
    assert!(number("throttledPeriods") >= 3, "{told}");
    assert!(number("periods") >= number("throttledPeriods"), "{told}");
    assert!(number("throttledTime") >= 100_000_000, "{told}");
    container.end();
}

fn block_io_is_told(lab: &Lab) {
    let Some((major, minor)) = super::limits::disk() else {
        crate::runner::skip("no disk")
    };
    let read = |bundle: Bundle| {
        let rule =
            json!({ "allow": true, "type": "b", "major": major, "minor": minor, "access": "r" });
        let device = json!([{ "path": "/dev/disk", "type": "b", "major": major, "minor": minor, "fileMode": 0o444 }]);
        bundle
            .set("/linux/devices", device)
            .set("/linux/resources/devices/-", rule)
    };
    let container = lab.start(&read(lab.bundle()).payload("read-byte /dev/disk -- pause"));
    container.wait_for_lines(1);
    // What was cached already isn't read: another container's reading is no fault of this one's.
    let told = stats(&container);
    for entry in told["blkio"]["ioServiceBytesRecursive"]
        .as_array()
        .into_iter()
        .flatten()
    {
        assert!(
            ["Read", "Write"].contains(&entry["op"].as_str().unwrap()),
            "{told}"
        );
        assert!(
            entry["value"].is_u64() || entry.get("value").is_none(),
            "{told}"
        );
    }
    if lab.is_husk() {
        assert!(told["v2"]["io.stat"].is_object(), "{told}");
    }
    container.end();
}

fn cpuset_is_told(lab: &Lab) {
    let bundle = with_resources(lab, "cpu", json!({ "cpus": "0", "mems": "0" })).payload("pause");
    let container = lab.start(&bundle);
    let told = stats(&container)["cpuset"].clone();
    assert_eq!((&told["cpus"], &told["mems"]), (&json!([0]), &json!([0])));
    container.end();
}

fn small_memory() -> Value {
    json!({ "limit": 32 << 20, "swap": 32 << 20 })
}

fn ooms(events: &Running) -> usize {
    lines(events)
        .iter()
        .filter(|line| line["type"] == "oom")
        .count()
}

fn an_oom_kill_is_an_event(lab: &Lab) {
    let bundle = with_resources(lab, "memory", small_memory())
        .payload("read-line -- child-alloc 128 -- pause");
    let (reader, writer) = pipe();
    let id = lab.id();
    let mut created = lab
        .on_bundle("create", &bundle, &[], &id)
        .stdin(reader)
        .spawn();
    created.wait().ok();
    let container = Container::new(lab, id, created);
    container.start();
    let mut events = watch(&container, "50ms");
    assert!(eventually(|| !lines(&events).is_empty()));
    assert_eq!(ooms(&events), 0);
    // runc's own suite looks for the word.
    assert!(!lines(&events)[0].to_string().contains("oom"));
    nix::unistd::write(&writer, b"\n").unwrap();
    assert!(eventually(|| ooms(&events) == 1), "{:?}", lines(&events));
    let oom = lines(&events)
        .into_iter()
        .find(|line| line["type"] == "oom")
        .unwrap();
    assert_eq!(oom, json!({ "type": "oom", "id": container.id }));
    if lab.is_husk() {
        let told = stats(&container);
        assert_eq!(told["v2"]["memory.events"]["oom_kill"], 1, "{told}");
    }
    container.force_delete();
    events.wait().ok();
}

/// With it the cgroup is empty at once, and events end; not without telling why.
fn the_oom_kill_of_the_first_process_is_an_event(lab: &Lab) {
    let bundle =
        with_resources(lab, "memory", small_memory()).payload("read-line -- alloc 128 -- pause");
    let (reader, writer) = pipe();
    let id = lab.id();
    let mut created = lab
        .on_bundle("create", &bundle, &[], &id)
        .stdin(reader)
        .spawn();
    created.wait().ok();
    let container = Container::new(lab, id, created);
    container.start();
    let mut events = watch(&container, "1h");
    assert!(eventually(|| !lines(&events).is_empty()));
    nix::unistd::write(&writer, b"\n").unwrap();
    assert_eq!(container.wait(), End::Signal(9));
    events.wait().ok();
    assert_eq!(ooms(&events), 1);
    container.delete();
}
