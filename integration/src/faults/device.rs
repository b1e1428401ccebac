//! A network device of the host that a container gets: one end of a pair.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use serde_json::{Value, json};

pub const NAME: &str = "gift";

const NEW: &str = "\
link delete gift
link delete peer
link add gift type veth peer name peer
link set peer up
link set gift address 02:00:00:00:00:07 mtu 1400 up
address add 192.0.2.1/24 dev gift
address add 2001:db8::1/64 dev gift nodad
";

/// Makes a new one; whatever is left of the one before is gone, wherever it is.
pub fn make() {
    let mut batch = Command::new("ip")
        .args(["-force", "-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    batch
        .stdin
        .take()
        .unwrap()
        .write_all(NEW.as_bytes())
        .unwrap();
    batch.wait().unwrap();
}

/// What it is and has, here; `None` if it isn't.
pub fn portrait() -> Option<Value> {
    let shown = Command::new("ip")
        .args(["-json", "address", "show", "dev", NAME])
        .output()
        .ok()?;
    let shown: Value = serde_json::from_slice(&shown.stdout).ok()?;
    let link = &shown[0];
    let is_up = link["flags"].as_array()?.contains(&json!("UP"));
    let addresses = link["addr_info"].as_array()?.iter();
    let addresses: Vec<Value> = addresses
        .filter(|address| address["scope"] == "global")
        .map(|address| json!([address["local"], address["prefixlen"]]))
        .collect();
    Some(json!([
        link["ifindex"],
        link["address"],
        link["mtu"],
        is_up,
        addresses
    ]))
}

/// A network namespace at `path`, as a pod has it.
pub fn make_pod(path: &Path) -> std::io::Result<()> {
    File::create(path)?;
    let home = File::open("/proc/thread-self/ns/net")?;
    unshare(CloneFlags::CLONE_NEWNET)?;
    let own = Some("/proc/thread-self/ns/net");
    let none = None::<&str>;
    let mounted = mount(own, path, none, MsFlags::MS_BIND, none);
    setns(home, CloneFlags::CLONE_NEWNET)?;
    Ok(mounted?)
}
