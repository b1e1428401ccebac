//! `linux.netDevices`: devices of the host that a container gets.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sched::{CloneFlags, setns, unshare};
use serde_json::{Value, json};

use super::tests;
use crate::bundle::Bundle;
use crate::lab::{Lab, eventually};
use crate::need::Need;

tests! {
    a_device_comes_with_its_attributes_and_addresses.needs(IP),
    a_device_can_get_another_name.needs(IP),
    a_pattern_becomes_a_free_number.needs(IP),
    a_user_namespace_gets_a_device.needs(IP),
    a_device_can_go_to_a_namespace_that_is_joined.needs(IP),
    husk_does_not_bring_a_device_back_at_the_end.needs(IP),
    a_name_that_is_taken_is_refused.needs(IP),
    what_cannot_be_moved_is_refused_before_anything_is_made.needs(IP),
    a_device_that_is_asked_for_twice_is_refused.needs(IP),
    a_failed_create_gives_devices_back_as_they_were.needs(IP),
    a_name_that_is_taken_on_the_way_gives_all_devices_back.needs(IP),
    delete_gives_back_what_a_killed_create_moved.needs(IP),
    delete_gives_back_what_was_moved_to_a_killed_container.needs(IP),
    hooks_find_the_device_in_the_container.needs(IP),
    an_impostor_is_not_given_back.needs(&[Need::Husk, Need::Program("ip")]),
    both_ends_of_a_pair_are_given_back.needs(IP),
}

const IP: &[Need] = &[Need::Program("ip")];

/// In a network namespace of this test's own.
fn own_network() {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    ip("link set lo up");
}

#[track_caller]
fn ip(words: &str) -> Value {
    run_ip(words, None)
}

/// In the network namespace of that file.
#[track_caller]
fn ip_in(namespace: &str, words: &str) -> Value {
    run_ip(words, Some(File::open(namespace).unwrap()))
}

#[track_caller]
fn run_ip(words: &str, namespace: Option<File>) -> Value {
    let mut command = Command::new("ip");
    command.arg("-json").args(words.split_whitespace());
    // SAFETY: between fork and exec there is only a system call.
    unsafe {
        command.pre_exec(move || match &namespace {
            Some(namespace) => Ok(setns(namespace, CloneFlags::CLONE_NEWNET)?),
            None => Ok(()),
        });
    }
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {words}: {errors}");
    serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
}

fn is_there(name: &str) -> bool {
    let links = ip("link show");
    let mut links = links.as_array().unwrap().iter();
    links.any(|link| link["ifname"] == name)
}

/// One end of a pair, with everything that a device can have; its other end is `peer`.
fn rich_device(name: &str) {
    ip(&format!("link add {name} type veth peer name peer"));
    ip("link set peer up");
    ip(&format!(
        "link set {name} mtu 1400 address 02:00:00:00:00:07"
    ));
    ip(&format!(
        "link set {name} alias gift group 7 txqueuelen 77 up"
    ));
    for address in [
        &format!("192.0.2.1/24 brd + label {name}:web"),
        "192.0.2.2/24",
        "198.51.100.1 peer 198.51.100.2/32 metric 9",
        "203.0.113.1/24 noprefixroute",
        "2001:db8::1/64 nodad",
        "2001:db8::2/64 nodad preferred_lft 0",
        "fd00::1/128 peer fd00::2/128 nodad",
        // These stay behind.
        "169.254.7.7/16 scope link",
        "203.0.113.9/24 valid_lft 1000 preferred_lft 1000",
    ] {
        ip(&format!("address add {address} dev {name}"));
    }
}

/// What a device is and has, with its name written as `NAME`, without what differs by nature.
fn portrait(link: &Value, all_addresses: bool) -> Value {
    let name = link["ifname"].as_str().unwrap();
    let mut addresses: Vec<Value> = link["addr_info"].as_array().unwrap().clone();
    if !all_addresses {
        addresses.retain(|address| address["scope"] == "global" && address["dynamic"] != true);
    }
    for address in &mut addresses {
        if let Some(label) = address["label"].as_str() {
            address["label"] = label.replace(name, "NAME").into();
        }
        // They count down.
        if address["dynamic"] == true {
            address["valid_life_time"] = Value::Null;
            address["preferred_life_time"] = Value::Null;
        }
    }
    let mut portrait = json!({ "addresses": addresses });
    for key in ["mtu", "address", "ifalias", "group", "txqlen"] {
        portrait[key] = link[key].clone();
    }
    portrait
}

fn show(name: &str) -> Value {
    ip(&format!("address show dev {name}"))[0].clone()
}

fn show_in(pid: i32, name: &str) -> Value {
    let namespace = format!("/proc/{pid}/ns/net");
    ip_in(&namespace, &format!("address show dev {name}"))[0].clone()
}

fn is_up(link: &Value) -> bool {
    link["flags"].as_array().unwrap().contains(&json!("UP"))
}

fn with_device(lab: &Lab, host: &str, container: &str) -> Bundle {
    let device = match container {
        "" => json!({}),
        name => json!({ "name": name }),
    };
    let bundle = lab.bundle().payload("pause");
    bundle.set(&format!("/linux/netDevices/{host}"), device)
}

/// A network namespace with a file of its own, as a pod's is. It ends with the test.
fn pod(lab: &Lab, commands: &[&str]) -> String {
    let path = lab.path("netns");
    File::create(&path).unwrap();
    let home = File::open("/proc/thread-self/ns/net").unwrap();
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    for command in commands {
        ip(command);
    }
    let none = None::<&str>;
    nix::mount::mount(
        Some("/proc/thread-self/ns/net"),
        &path,
        none,
        nix::mount::MsFlags::MS_BIND,
        none,
    )
    .unwrap();
    setns(home, CloneFlags::CLONE_NEWNET).unwrap();
    path.to_str().unwrap().to_owned()
}

fn close_pod(path: &str) {
    nix::mount::umount(path).unwrap();
}

fn a_device_comes_with_its_attributes_and_addresses(lab: &Lab) {
    own_network();
    rich_device("gift");
    let before = portrait(&show("gift"), false);
    let container = lab.start(&with_device(lab, "gift", ""));
    assert!(!is_there("gift"));
    let link = show_in(container.pid(), "gift");
    assert_eq!(portrait(&link, false), before);
    assert_eq!(before["addresses"].as_array().unwrap().len(), 7);
    // Nothing has come that was to stay; IPv6 makes a link-local address of its own.
    assert_eq!(
        portrait(&link, true)["addresses"].as_array().unwrap().len(),
        8
    );
    assert!(is_up(&link));
    assert_eq!(container.ask("net")[0]["gift"]["up"], true);
    container.end();
}

fn a_device_can_get_another_name(lab: &Lab) {
    own_network();
    rich_device("gift");
    let before = portrait(&show("gift"), false);
    let container = lab.start(&with_device(lab, "gift", "eth0"));
    let link = show_in(container.pid(), "eth0");
    assert_eq!(portrait(&link, false), before);
    assert!(is_up(&link));
    container.end();
}

fn a_pattern_becomes_a_free_number(lab: &Lab) {
    own_network();
    ip("link add one type veth peer name two");
    let bundle = with_device(lab, "one", "net%d").set("/linux/netDevices/two/name", "net%d");
    let container = lab.start(&bundle);
    let net = container.ask("net").remove(0);
    for name in ["net0", "net1"] {
        assert_eq!(net[name]["up"], true, "{net}");
    }
    container.end();
    for name in ["%d%d", "a%", "a%s", "%%d"] {
        let bundle = with_device(lab, "one", name);
        lab.run(&bundle)
            .refused()
            .says("/linux/netDevices/one/name");
    }
}

fn a_user_namespace_gets_a_device(lab: &Lab) {
    own_network();
    rich_device("gift");
    let before = portrait(&show("gift"), false);
    let bundle = with_device(lab, "gift", "eth0").user_namespace(100_000, 65536);
    let container = lab.start(&bundle);
    let link = show_in(container.pid(), "eth0");
    assert_eq!(portrait(&link, false), before);
    assert!(is_up(&link));
    container.end();
}

fn a_device_can_go_to_a_namespace_that_is_joined(lab: &Lab) {
    own_network();
    rich_device("gift");
    let before = portrait(&show("gift"), false);
    let pod = pod(lab, &["link add other type bridge"]);
    let bundle = with_device(lab, "gift", "eth0").join("network", &pod);
    let container = lab.start(&bundle);
    let link = show_in(container.pid(), "eth0");
    assert_eq!(portrait(&link, false), before);
    assert!(is_up(&link));
    container.end();
    // It isn't the container's to take along.
    assert!(is_up(&ip_in(&pod, "address show dev eth0")[0]));
    close_pod(&pod);
}

fn husk_does_not_bring_a_device_back_at_the_end(lab: &Lab) {
    own_network();
    rich_device("gift");
    let container = lab.start(&with_device(lab, "gift", ""));
    container.end();
    // What the kernel does with such a pair when one end's namespace goes.
    assert!(eventually(|| !is_there("peer")));
    assert!(!is_there("gift"));
}

fn a_name_that_is_taken_is_refused(lab: &Lab) {
    own_network();
    rich_device("gift");
    let before = show("gift");
    let unchanged = || {
        let now = show("gift");
        assert_eq!(now["ifindex"], before["ifindex"]);
        assert_eq!(portrait(&now, true), portrait(&before, true));
        assert!(is_up(&now));
    };
    let pod = pod(lab, &["link add eth0 type bridge"]);
    let bundle = with_device(lab, "gift", "eth0").join("network", &pod);
    let refused = lab.run(&bundle).refused();
    refused.says("/linux/netDevices/gift").says("file exists");
    unchanged();
    close_pod(&pod);
    let refused = lab.run(&with_device(lab, "gift", "lo")).refused();
    refused.says("/linux/netDevices/gift").says("file exists");
    unchanged();
}

fn what_cannot_be_moved_is_refused_before_anything_is_made(lab: &Lab) {
    own_network();
    let marker = lab.path("marker");
    let refuse = |bundle: Bundle| {
        let words = [lab.host_payload(), "hook", marker.to_str().unwrap()];
        lab.run(&bundle.hook("createRuntime", &words)).refused()
    };
    refuse(with_device(lab, "nothing", ""))
        .says("/linux/netDevices/nothing")
        .says("no such device");
    refuse(with_device(lab, "lo", "lo1")).says("/linux/netDevices/lo");
    refuse(with_device(lab, "lo", "").without_namespace("network"))
        .says("unable to move network devices without a private NET namespace");
    refuse(with_device(lab, "lo", "").join("network", "/proc/self/ns/net"))
        .says("the network namespace to join is the one that the devices are in");
    assert!(!marker.exists());
}

fn a_device_that_is_asked_for_twice_is_refused(lab: &Lab) {
    own_network();
    ip("link add one type veth peer name two");
    ip("link property add dev one altname first");
    let bundle = with_device(lab, "one", "").set("/linux/netDevices/first/name", "x");
    lab.run(&bundle).refused().says("asked for twice");
    assert!(is_there("one"));
    let bundle = with_device(lab, "one", "x").set("/linux/netDevices/two/name", "x");
    lab.run(&bundle).refused().says("already to be named");
}

fn a_failed_create_gives_devices_back_as_they_were(lab: &Lab) {
    own_network();
    rich_device("gift");
    ip("link add port type veth peer name cable");
    ip("link add bridge type bridge");
    ip("link set port master bridge");
    let before = [show("gift"), show("port")];
    let marker = lab.path("marker");
    let failing = [lab.host_payload(), "hook", marker.to_str().unwrap(), "3"];
    for hook in ["createRuntime", "createContainer"] {
        let bundle = with_device(lab, "gift", "eth0")
            .set("/linux/netDevices/port/name", "eth%d")
            .hook(hook, &failing);
        lab.run(&bundle).refused().says(&format!("/hooks/{hook}/0"));
        for (before, now) in before.iter().zip([show("gift"), show("port")]) {
            assert_eq!(now["ifindex"], before["ifindex"]);
            assert_eq!(is_up(&now), is_up(before));
            assert_eq!(portrait(&now, false), portrait(before, false));
        }
        assert_eq!(ip("link show dev port")[0]["master"], "bridge");
    }
}

/// The kernel moves a device and renames it then: what fails may have moved.
fn a_name_that_is_taken_on_the_way_gives_all_devices_back(lab: &Lab) {
    own_network();
    rich_device("gift");
    ip("link add port type veth peer name cable");
    let before = [show("gift"), show("port")];
    let bundle = with_device(lab, "gift", "eth%d").set("/linux/netDevices/port/name", "eth0");
    let refused = lab.run(&bundle).refused();
    refused.says("/linux/netDevices/port").says("file exists");
    for (before, now) in before.iter().zip([show("gift"), show("port")]) {
        assert_eq!(now["ifindex"], before["ifindex"]);
        assert_eq!(portrait(&now, false), portrait(before, false));
    }
}

fn delete_gives_back_what_a_killed_create_moved(lab: &Lab) {
    own_network();
    rich_device("gift");
    let pod = pod(lab, &[]);
    let join = |bundle: Bundle| bundle.join("network", &pod);
    delete_gives_back(lab, "eth0", join);
    close_pod(&pod);
}

/// With which the namespace ends, and the device with that.
fn delete_gives_back_what_was_moved_to_a_killed_container(lab: &Lab) {
    own_network();
    rich_device("gift");
    for name in ["eth0", "net%d", ""] {
        delete_gives_back(lab, name, |bundle| bundle);
    }
}

fn delete_gives_back(lab: &Lab, name: &str, place: impl Fn(Bundle) -> Bundle) {
    let before = show("gift");
    let began = lab.path("began");
    let words = format!(
        "echo $$ > {0}.new; mv {0}.new {0}; exec sleep 60",
        began.display()
    );
    let bundle =
        place(with_device(lab, "gift", name)).hook("createRuntime", &["/bin/sh", "-c", &words]);
    let id = lab.id();
    let mut create = lab.on_bundle("create", &bundle, &[], &id).spawn();
    assert!(eventually(|| began.exists()));
    assert!(!is_there("gift"));
    let pid = nix::unistd::Pid::from_raw(create.pid());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    create.wait();
    lab.runtime(["delete", "--force", &id]).run().ok();
    let now = show("gift");
    assert_eq!(now["ifindex"], before["ifindex"]);
    assert_eq!(portrait(&now, false), portrait(&before, false));
    assert!(is_up(&now));
    std::fs::remove_file(&began).unwrap();
}

fn hooks_find_the_device_in_the_container(lab: &Lab) {
    own_network();
    rich_device("gift");
    let list = lab.path("list");
    let words = format!("cat /proc/net/dev > {}", list.display());
    let bundle =
        with_device(lab, "gift", "eth0").hook("createContainer", &["/bin/sh", "-c", &words]);
    lab.create(&bundle).end();
    let seen = std::fs::read_to_string(&list).unwrap();
    assert!(seen.contains("eth0:"), "{seen}");
}

/// Who administers the namespace that a container joins puts a pair of his own in the place of the device,
/// with its number, its name and its address, while `create` fails: on the host it would get the device's
/// addresses, and its place in the bridge.
fn an_impostor_is_not_given_back(lab: &Lab) {
    own_network();
    rich_device("gift");
    ip("link add bridge type bridge");
    ip("link set gift master bridge");
    let pod = pod(lab, &[]);
    let script = format!(
        "nsenter --net={pod} sh -c 'index=$(ip -o link show eth0 | cut -d: -f1); ip link del eth0; \
         ip link add eth0 index $index address 02:00:00:00:00:07 type veth peer name mine'; exit 1"
    );
    let bundle = with_device(lab, "gift", "eth0")
        .join("network", &pod)
        .hook("createRuntime", &["/bin/sh", "-c", &script])
        .set(
            "/hooks/createRuntime/0/env",
            json!(["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]),
        );
    let output = lab.run(&bundle).code(1);
    assert!(
        output.stderr.contains("another device has taken its place"),
        "{output}"
    );
    assert!(!is_there("gift"));
    let links = ip("address show").to_string();
    assert!(
        !links.contains("192.0.2.1") && !links.contains("02:00:00:00:00:07"),
        "{links}"
    );
    // It is back where it came from.
    assert!(!ip_in(&pod, "link show dev mine").is_null());
    close_pod(&pod);
}

/// Each is what the other one is told by.
fn both_ends_of_a_pair_are_given_back(lab: &Lab) {
    own_network();
    rich_device("gift");
    let before = [show("gift"), show("peer")];
    let marker = lab.path("marker");
    let failing = [lab.host_payload(), "hook", marker.to_str().unwrap(), "3"];
    let bundle = with_device(lab, "gift", "eth0")
        .set("/linux/netDevices/peer/name", "eth1")
        .hook("createRuntime", &failing);
    lab.run(&bundle).refused().says("/hooks/createRuntime/0");
    for (before, now) in before.iter().zip([show("gift"), show("peer")]) {
        assert_eq!(now["ifindex"], before["ifindex"]);
        assert_eq!(is_up(&now), is_up(before));
        assert_eq!(portrait(&now, false), portrait(before, false));
    }
}
