//! `exec --cgroup`: into a cgroup below the container's, and nowhere else.

use serde_json::{Value, json};

use super::tests;
use crate::bundle::Bundle;
use crate::container::Container;
use crate::lab::Lab;
use crate::need::Need;
use crate::output::End;

tests! {
    exec_into_a_sub_cgroup.needs(&[Need::Husk]),
    exec_into_a_divided_cgroup.needs(&[Need::Husk, Need::Controller("pids")]),
    exec_cgroup_with_dots_is_refused.needs(&[Need::Husk]),
}

fn writable_cgroup(lab: &Lab) -> Bundle {
    lab.bundle().change(|config| {
        for mount in config["mounts"].as_array_mut().unwrap() {
            if mount["type"] == "cgroup" {
                mount["options"] = json!(["rw"]);
            }
        }
    })
}

/// Where `exec --cgroup PATH` ends up, or `None` when it isn't there yet and says so.
fn cgroup_of_exec(container: &Container, path: &str) -> Option<Value> {
    let exec = container
        .exec_with(&["--cgroup", path], "/bin/payload facts")
        .run();
    if exec.end == End::Code(255) {
        assert!(exec.stderr.contains("--cgroup"), "{exec}");
        return None;
    }
    Some(exec.ok().line()["cgroup"].clone())
}

fn exec_into_a_sub_cgroup(lab: &Lab) {
    let container = lab.start(&writable_cgroup(lab).payload("mkdir /sys/fs/cgroup/sub -- pause"));
    container.wait_for_lines(1);
    for path in ["sub", "/sub"] {
        assert_eq!(cgroup_of_exec(&container, path), Some(json!("/sub")));
    }
    for path in ["/", "."] {
        assert_eq!(cgroup_of_exec(&container, path), Some(json!("/")));
    }
    // Engines and runc's suite know these words.
    for (path, words) in [
        ("nothing", " adding pid "),
        ("nothing", "no such file or directory"),
        ("..", "bad sub cgroup path"),
        ("whaaat:/", "unknown controller "),
    ] {
        let exec = container.exec_with(&["--cgroup", path], "/bin/payload echo ran");
        let exec = exec.run().code(255);
        assert!(exec.stderr.contains(words), "{exec}");
        assert_eq!(exec.stdout, "");
    }
    container.end();
}

/// A divided cgroup takes no processes: who names it is told so, who names none joins the first process.
fn exec_into_a_divided_cgroup(lab: &Lab) {
    let words = "mkdir /sys/fs/cgroup/sub -- write /sys/fs/cgroup/sub/cgroup.procs 1 \
                 -- write /sys/fs/cgroup/cgroup.subtree_control +pids -- pause";
    let container = lab.start(&writable_cgroup(lab).payload(words));
    container.wait_for_lines(3);
    let exec = container.exec_with(&["--cgroup", "/"], "/bin/payload echo ran");
    let exec = exec.run().code(255);
    assert!(exec.stderr.contains(" adding pid "), "{exec}");
    assert!(exec.stderr.contains(" to cgroups"), "{exec}");
    assert!(exec.stderr.contains("device or resource busy"), "{exec}");
    assert_eq!(container.ask("facts")[0]["cgroup"], "/sub");
    assert_eq!(cgroup_of_exec(&container, "sub"), Some(json!("/sub")));
    container.end();
}

fn exec_cgroup_with_dots_is_refused(lab: &Lab) {
    let container = lab.start(&lab.bundle().payload("pause"));
    for path in ["..", "/../..", "sub/../../x", "../runner"] {
        let place = cgroup_of_exec(&container, path);
        assert_eq!(place, None, "{path}");
    }
    container.end();
}
