//! Bundles of a second set, written without knowledge of the messages: what `husk check` finds in them,
//! and that `run` says the same at the same place.

use std::fs;

use serde_json::{Value, json};

use super::check::{Case, HUSK, all_found, good};
use super::tests;
use crate::bundle::Bundle;
use crate::lab::Lab;

tests! {
    mounts_that_the_kernel_would_refuse_are_found.needs(HUSK),
    options_that_mean_nothing_are_refused.needs(HUSK),
    a_file_in_place_of_a_disk_is_told.needs(HUSK),
    what_is_mounted_over_the_root_is_refused.needs(HUSK),
    a_mount_point_that_can_not_be_made_is_told.needs(HUSK),
    run_points_to_the_mount_that_check_points_to.needs(HUSK),
}

fn typed(destination: &str, kind: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": kind, "source": kind, "options": options })
}

fn without(bundle: Bundle, kind: &str) -> Bundle {
    bundle
        .user_namespace(100_000, 65_536)
        .without_namespace(kind)
}

fn mounts_that_the_kernel_would_refuse_are_found(lab: &Lab) {
    let dir = lab.path("volume");
    fs::create_dir(&dir).unwrap();
    let ids = json!([{ "containerID": 0, "hostID": 100_000, "size": 10 }]);
    all_found(
        lab,
        &[
            Case {
                name: "type none without bind",
                breakage: &|b| {
                    b.mount(json!({ "destination": "/data", "type": "none", "source": "/usr" }))
                },
                pointer: "/mounts/7/type",
                words: &["no filesystem \"none\""],
                hint: &["add \"bind\""],
            },
            Case {
                name: "a filesystem without a module",
                breakage: &|b| b.mount(typed("/data", "quuxfs", &[])),
                pointer: "/mounts/7/type",
                words: &["no filesystem \"quuxfs\", nor a module"],
                hint: &["modprobe quuxfs"],
            },
            Case {
                name: "a layer that is missing",
                breakage: &|b| b.mount(typed("/data", "overlay", &["lowerdir=/usr:/no/such"])),
                pointer: "/mounts/7/options/0",
                words: &["lowerdir /no/such", "no such file or directory"],
                hint: &["create"],
            },
            Case {
                name: "an upperdir without a workdir",
                breakage: &|b| {
                    let upper = format!("upperdir={}", dir.display());
                    b.mount(typed("/data", "overlay", &["lowerdir=/usr", &upper]))
                },
                pointer: "/mounts/7/options",
                words: &["needs a workdir"],
                hint: &["workdir=DIR"],
            },
            Case {
                name: "proc of the host's pid namespace",
                breakage: &|b| without(b, "pid"),
                pointer: "/mounts/0",
                words: &["a pid namespace of the container's own", "not permitted"],
                hint: &["/linux/namespaces"],
            },
            Case {
                name: "ids that proc can't map",
                breakage: &|b| {
                    b.mount(
                        json!({ "destination": "/host", "type": "bind", "source": "/proc",
                        "options": ["rbind"], "uidMappings": ids, "gidMappings": ids }),
                    )
                },
                pointer: "/mounts/7/uidMappings",
                words: &["/proc is on proc", "can't map ids"],
                hint: &["remove"],
            },
            Case {
                name: "a device in place of a directory",
                breakage: &|b| {
                    b.set(
                        "/linux/devices",
                        json!([{ "path": "/etc", "type": "c", "major": 1, "minor": 3 }]),
                    )
                },
                pointer: "/linux/devices/0/path",
                words: &["/etc is a directory", "file exists"],
                hint: &[],
            },
        ],
    );
}

fn options_that_mean_nothing_are_refused(lab: &Lab) {
    let dir = lab.path("volume");
    fs::create_dir(&dir).unwrap();
    let cases = [
        Case {
            name: "several in one string",
            breakage: &|b| b.bind(&dir, "/data", &["rbind,ro"]),
            pointer: "/mounts/7/options/0",
            words: &["`rbind,ro` is several options in one string"],
            hint: &["write \"rbind\", \"ro\""],
        },
        Case {
            name: "a misspelt option of a bind mount",
            breakage: &|b| b.bind(&dir, "/data", &["bind", "noexce"]),
            pointer: "/mounts/7/options/1",
            words: &["`noexce` is no option of a bind mount"],
            hint: &["did you mean noexec"],
        },
        Case {
            name: "several values in one string",
            breakage: &|b| b.mount(typed("/data", "tmpfs", &["size=64m,mode=755"])),
            pointer: "/mounts/7/options/0",
            words: &["size=64m,mode=755"],
            hint: &["a string of its own"],
        },
    ];
    let ignored = Case {
        name: "a filesystem's option on a bind mount",
        breakage: &|b| b.bind(&dir, "/data", &["bind", "size=64m"]),
        pointer: "/mounts/7/options/1",
        words: &["`size=64m` is no option of a bind mount"],
        hint: &["remove size=64m"],
    };
    all_found(lab, &[ignored]);
    all_found(lab, &cases);
    for case in cases {
        let output = lab.run(&(case.breakage)(good(lab))).code(1);
        assert!(output.stderr.contains("/mounts/7/options"), "{output}");
        assert!(output.stderr.contains(case.hint[0]), "{output}");
    }
}

fn a_file_in_place_of_a_disk_is_told(lab: &Lab) {
    let known = fs::read_to_string("/proc/filesystems").unwrap();
    let Some(kind) = ["ext4", "xfs", "btrfs"]
        .into_iter()
        .find(|kind| known.lines().any(|line| line == format!("\t{kind}")))
    else {
        eprintln!("skipped: this kernel has no filesystem for disks");
        return;
    };
    let image = lab.path("disk.img");
    fs::write(&image, [0; 4096]).unwrap();
    let mount = json!({ "destination": "/data", "type": kind, "source": image.to_str().unwrap() });
    let broken = |b: Bundle| b.mount(mount.clone());
    all_found(
        lab,
        &[Case {
            name: "a file",
            breakage: &broken,
            pointer: "/mounts/7/source",
            words: &[" is a file", "block device required"],
            hint: &["losetup --find --show"],
        }],
    );
    let output = lab.run(&broken(good(lab))).code(1);
    assert!(
        output.stderr.contains("block device required\nhint: "),
        "{output}"
    );
    assert!(output.stderr.contains("losetup"), "{output}");
}

/// It was mounted, hidden by `pivot_root`, and nothing said.
fn what_is_mounted_over_the_root_is_refused(lab: &Lab) {
    let broken = |b: Bundle| b.mount(typed("/", "tmpfs", &[]));
    let output = lab.run(&broken(good(lab))).code(1);
    assert!(output.stderr.contains("/mounts/7/destination"), "{output}");
    assert!(output.stderr.contains("never seen"), "{output}");
    let bundle = good(lab).mount(json!({ "destination": "/", "options": ["remount", "nosuid"] }));
    lab.run(&bundle).ok();
}

fn a_mount_point_that_can_not_be_made_is_told(lab: &Lab) {
    let dir = lab.path("volume");
    fs::create_dir(&dir).unwrap();
    let broken = |b: Bundle| {
        b.bind(&dir, "/data", &["bind", "ro"])
            .mount(typed("/data/new/place", "tmpfs", &[]))
    };
    all_found(
        lab,
        &[Case {
            name: "below a read-only mount",
            breakage: &broken,
            pointer: "/mounts/8/destination",
            words: &["/data/new/place", "read-only file system"],
            hint: &["/mounts/7 is read-only"],
        }],
    );
    let output = lab.run(&broken(good(lab))).code(1);
    assert!(output.stderr.contains("/mounts/8/destination"), "{output}");
    assert!(
        output.stderr.contains("read-only file system\nhint: "),
        "{output}"
    );
    // The root of a user namespace makes nothing in a directory of the host's root.
    let broken = |b: Bundle| {
        b.user_namespace(100_000, 65_536)
            .mount(typed("/new/sys", "sysfs", &[]))
    };
    all_found(
        lab,
        &[Case {
            name: "in a directory of another's",
            breakage: &broken,
            pointer: "/mounts/7/destination",
            words: &["mount point /new/sys", "permission denied"],
            hint: &["create /new/sys", "uid 100000"],
        }],
    );
    let output = lab.run(&broken(good(lab))).code(1);
    let words = "/mounts/7/destination): mount point: permission denied\nhint: create /new/sys";
    assert!(output.stderr.contains(words), "{output}");
}

fn run_points_to_the_mount_that_check_points_to(lab: &Lab) {
    for (breakage, pointer, words) in [
        (
            &(|b: Bundle| {
                b.mount(json!({ "destination": "/data", "type": "none", "source": "/usr" }))
            }) as &dyn Fn(Bundle) -> Bundle,
            "/mounts/7/type",
            "hint: add \"bind\"",
        ),
        (
            &|b: Bundle| b.mount(typed("/data", "overlay", &["lowerdir=/usr", "upperdir=/x"])),
            "/mounts/7/options",
            "workdir",
        ),
        (
            &|b: Bundle| b.mount(typed("/data", "overlay", &["lowerdir=/no/such"])),
            "/mounts/7",
            "no such file or directory",
        ),
        (
            &|b: Bundle| b.user_namespace(100_000, 65_536).without_namespace("pid"),
            "/mounts/0",
            "pid namespace",
        ),
    ] {
        let output = lab.run(&breakage(good(lab))).code(1);
        assert!(output.stderr.contains(&format!("({pointer}")), "{output}");
        assert!(output.stderr.contains(words), "{output}");
    }
}
