//! What containers that share a user namespace, a pid namespace or a root file system can do to each other, and
//! through that to the host.

use std::fs;

use serde_json::json;

use super::races::{LONG, Racer, race};
use super::tests;
use crate::lab::Lab;
use crate::output::End;

tests! {
    cve_2016_9962_who_shares_users_and_processes_traces_nobody_outside,
    who_shares_users_traces_nobody_who_sets_clocks,
    race_for_proc_that_is_moved_before_it_is_masked.seconds(LONG),
}

/// Who may trace in its user namespace seizes everybody who is born in its pid namespace: none of them while it
/// is still in the host's files.
fn cve_2016_9962_who_shares_users_and_processes_traces_nobody_outside(lab: &Lab) {
    let file = lab.path("canary");
    fs::write(&file, "canary").unwrap();
    let spy = lab
        .bundle()
        .user_namespace(100_000, 65_536)
        .capabilities(&["CAP_SYS_PTRACE"])
        .payload(&format!("seize 3 {} -- pause", file.display()));
    let holder = lab.start(&spy);
    let path = |name| format!("/proc/{}/ns/{name}", holder.pid());
    let (users, processes) = (path("user"), path("pid"));
    let mut born = 0;
    while !holder.stdout().contains('\n') {
        let bundle = lab.bundle().join("user", &users).join("pid", &processes);
        lab.run(&bundle.payload("exit 0"));
        born += 1;
    }
    let report = holder.lines().remove(0);
    assert!(born > 4, "{born} containers");
    assert!(report["tries"].as_u64() > Some(1000), "{report}");
    assert_eq!(report["outside"], 0, "{report}");
    holder.end();
}

/// The same for an ordinary user, whose processes must write files of /proc that are root's where nobody may
/// look into them: the clocks of a new time namespace.
fn who_shares_users_traces_nobody_who_sets_clocks(lab: &Lab) {
    let lab = lab.as_user(Vec::new());
    let file = lab.path("canary");
    fs::write(&file, "canary").unwrap();
    let spy = lab
        .bundle()
        .capabilities(&["CAP_SYS_PTRACE"])
        .payload(&format!("seize 3 {} -- pause", file.display()));
    let holder = lab.start(&spy);
    let path = |name| format!("/proc/{}/ns/{name}", holder.pid());
    let (users, processes) = (path("user"), path("pid"));
    let bundle = || {
        let bundle = lab.bundle().join("user", &users).join("pid", &processes);
        let offsets = json!({ "monotonic": { "secs": 7000 }, "boottime": { "secs": 9000 } });
        let bundle = bundle.remove("/linux/uidMappings");
        let bundle = bundle.remove("/linux/gidMappings");
        bundle.namespace("time").set("/linux/timeOffsets", offsets)
    };
    let mut born = 0;
    while !holder.stdout().contains('\n') {
        lab.run(&bundle().payload("exit 0"));
        born += 1;
    }
    let report = holder.lines().remove(0);
    assert!(born > 4, "{born} containers");
    assert!(report["tries"].as_u64() > Some(1000), "{report}");
    assert_eq!(report["outside"], 0, "{report}");
    if lab.is_husk() {
        let facts = lab.ask(bundle(), "facts").remove(0);
        let offsets = facts["timens_offsets"].as_str().unwrap();
        let words: Vec<&str> = offsets.split_whitespace().collect();
        assert_eq!(words, ["monotonic", "7000", "0", "boottime", "9000", "0"]);
    }
    holder.end();
}

/// A directory that something is mounted on may be renamed by who doesn't see the mount, and the mount goes
/// along: what is hidden and protected is to be so wherever it is then.
fn race_for_proc_that_is_moved_before_it_is_masked(lab: &Lab) {
    let root = lab.path("shared-root");
    for name in ["bin", "dev", "proc", "other", "sys", "tmp"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    fs::hard_link(lab.host_payload(), root.join("bin/payload")).unwrap();
    let swapper = Racer::swapper(root.join("proc"), root.join("other"));
    let bundle = || {
        lab.bundle()
            .set("/root/path", root.to_str().unwrap())
            .writable()
            .only_mounts(&["/proc", "/dev"])
            .set("/linux/maskedPaths", json!(["/proc/version"]))
            .set("/linux/readonlyPaths", json!(["/proc/sys"]))
            .payload(
                "cat /proc/version -- cat /other/version -- \
                 write /proc/sys/kernel/domainname x -- write /other/sys/kernel/domainname x",
            )
    };
    let moved = std::cell::Cell::new(0);
    race(lab, &swapper, bundle, |round, output| {
        if output.end == End::Code(0) {
            let lines = output.lines();
            let absent = json!({ "error": "ENOENT" });
            for line in &lines[..2] {
                assert!(
                    *line == json!("") || *line == absent,
                    "in round {round}: {lines:?}"
                );
            }
            let protected = json!({ "error": "EROFS" });
            for line in &lines[2..4] {
                assert!(
                    *line == protected || *line == absent,
                    "in round {round}: {lines:?}"
                );
            }
            moved.set(moved.get() + u32::from(lines[2] != protected));
        }
    });
    println!("moved in {} rounds", moved.get());
}
