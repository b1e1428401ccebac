//! Content of images and names of containers that are made to hurt, beside what has a CVE.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use super::tests;
use crate::bundle::{Bundle, set_mode};
use crate::diagnosis::elf;
use crate::lab::Lab;
use crate::need::Need;
use crate::output::{End, Output};

const HUSK: &[Need] = &[Need::Husk];

tests! {
    a_fifo_for_a_config_file_does_not_hang_the_runtime,
    a_fifo_for_a_loader_or_an_interpreter_does_not_hang_the_runtime,
    a_fifo_for_a_file_of_procfs_does_not_hang_the_runtime,
    a_source_below_the_root_is_found_by_any_name,
    a_source_below_the_root_is_looked_for_inside,
    a_link_of_a_volume_is_no_second_way_into_procfs,
    what_is_printed_gives_a_terminal_no_orders.needs(HUSK),
    a_device_of_any_name_is_counted.needs(&[Need::Husk, Need::Program("ip")]),
}

/// A hostile image puts a fifo where the runtime reads, or an endless device.
fn a_fifo_for_a_config_file_does_not_hang_the_runtime(lab: &Lab) {
    let bundle = lab.bundle().payload("exit 3");
    let fifo = bundle.rootfs().join("etc/passwd");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
    if lab.is_husk() {
        let output = lab.run(&bundle);
        assert!(matches!(output.end, End::Code(3 | 1)), "{output}");
        let output = lab.run(
            &lab.bundle()
                .link("etc/passwd", "/dev/zero")
                .payload("exit 3"),
        );
        assert!(matches!(output.end, End::Code(3 | 1)), "{output}");
    }
}

/// The program is there, and what it names is a fifo, or a device that does something when it is opened:
/// it is neither waited for nor opened, not even to tell what is wrong.
fn a_fifo_for_a_loader_or_an_interpreter_does_not_hang_the_runtime(lab: &Lab) {
    let programs: [&dyn Fn(Bundle) -> Bundle; 3] = [
        &|bundle| {
            let tool = bundle.rootfs().join("bin/tool");
            fs::write(&tool, elf(62, Some("/lib/trap"))).unwrap();
            set_mode(&tool, 0o755);
            bundle
        },
        &|bundle| bundle.executable("bin/tool", "#!/lib/trap\n"),
        &|bundle| bundle.link("bin/tool", "/lib/trap"),
    ];
    for program in programs {
        let bundle = program(lab.bundle().dir("lib")).args(&["/bin/tool"]);
        let trap = bundle.rootfs().join("lib/trap");
        nix::unistd::mkfifo(&trap, nix::sys::stat::Mode::from_bits_truncate(0o777)).unwrap();
        let output = lab.run(&bundle);
        assert_ne!(output.end, End::Code(0), "{output}");
        if lab.is_husk() {
            let check = lab.runtime(["check", bundle.dir.to_str().unwrap()]).run();
            assert!(matches!(check.end, End::Code(0 | 1)), "{check}");
        }
    }
}

/// The links on the way to a source below the container's root are the image's: on the host they would lead
/// to the host's files.
fn a_source_below_the_root_is_looked_for_inside(lab: &Lab) {
    const SECRET: &str = "the host's own";
    let canary = lab.path("canary");
    fs::create_dir(&canary).unwrap();
    fs::write(canary.join("secret"), SECRET).unwrap();
    let absolute = canary.to_str().unwrap().to_owned();
    let climbing = format!("../../../../../../../../..{absolute}");
    for link in [absolute, climbing] {
        for (source, destination, file) in [
            ("data", "/mnt", "/mnt/secret"),
            ("data/secret", "/file", "/file"),
        ] {
            let bundle = lab.bundle().link("data", &link);
            let source = bundle.rootfs().join(source);
            let bundle = bundle.bind(source, destination, &["bind"]);
            let output = lab.run(&bundle.payload(&format!("cat {file}")));
            assert!(!output.stdout.contains(SECRET), "{output}");
            if lab.is_husk() {
                let refused = output.refused();
                refused.says("/mounts/").says("no such file or directory");
            }
        }
    }
    let bundle = lab
        .bundle()
        .file("there/file", "inside")
        .link("data", "/there");
    let source = bundle.rootfs().join("data");
    let bundle = bundle.bind(source, "/mnt", &["bind"]);
    if lab.is_husk() {
        assert_eq!(lab.ask(bundle, "cat /mnt/file")[0], "inside");
    }
}

#[track_caller]
fn assert_plain(output: &Output) {
    let acts = |c: char| c.is_control() && c != '\n' && c != '\t';
    let all = format!("{}{}", output.stdout, output.stderr);
    assert!(!all.contains(acts), "{:?}", all);
}

/// Annotations come from images, lines of ps(1) from the container's processes.
fn what_is_printed_gives_a_terminal_no_orders(lab: &Lab) {
    const EVIL: &str = "a\u{1b}[2J\u{9b}31m\u{7f}\r";
    let bundle = lab.bundle().payload("pause").set("/annotations/evil", EVIL);
    let container = lab.start(&bundle);
    let state = container.command("state", &[]).run().ok();
    assert_plain(&state);
    assert_eq!(state.json()["annotations"]["evil"], EVIL);
    let list = lab.runtime(["list", "--format", "json"]).run().ok();
    assert_plain(&list);
    assert_eq!(list.json()[0]["annotations"]["evil"], EVIL);
    let bin = lab.path("bin");
    fs::create_dir(&bin).unwrap();
    let ps = bin.join("ps");
    let pid = container.pid();
    let script = format!("#!/bin/sh\nprintf 'PID CMD\\n{pid} a\\033[2J\\302\\23331m\\n'\n");
    fs::write(&ps, script).unwrap();
    fs::set_permissions(&ps, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let table = container.command("ps", &[]).env("PATH", &path).run().ok();
    assert_plain(&table);
    let expected = format!("{pid} a\\u001b[2J\\u009b31m");
    assert!(table.stdout.contains(&expected), "{table}");
    container.end();
}

/// A container names its devices, by bytes that are no text as well: its numbers are told all the same.
fn a_device_of_any_name_is_counted(lab: &Lab) {
    let bundle = lab.bundle().payload("pause");
    let container = lab.start(&bundle);
    let namespace = format!("--net=/proc/{}/ns/net", container.pid());
    let script = "ip link add good type veth peer name \"$(printf 'b\\377\\033')\"";
    let made = std::process::Command::new("nsenter")
        .args([namespace.as_str(), "sh", "-c", script])
        .output()
        .unwrap();
    if !made.status.success() {
        container.end();
        crate::runner::skip("no veth here")
    }
    let output = container.command("events", &["--stats"]).run().ok();
    assert_plain(&output);
    let stats = output.json();
    let found = stats["data"]["network_interfaces"].as_array().unwrap();
    let names = found.iter().map(|one| one["Name"].as_str().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    assert_eq!(names, ["b\u{fffd}\u{1b}", "good"], "{output}");
    container.end();
}

/// Where nothing is mounted at /proc, what is there is the image's.
fn a_fifo_for_a_file_of_procfs_does_not_hang_the_runtime(lab: &Lab) {
    let bundle = lab
        .bundle()
        .only_mounts(&["/dev"])
        .set("/linux/maskedPaths", json!([]))
        .set("/linux/readonlyPaths", json!([]))
        .set(
            "/process/rlimits",
            json!([{ "type": "RLIMIT_NOFILE", "hard": 1_u64 << 40, "soft": 1024 }]),
        )
        .payload("exit 3");
    let directory = bundle.rootfs().join("proc/sys/fs");
    fs::create_dir_all(&directory).unwrap();
    nix::unistd::mkfifo(
        &directory.join("nr_open"),
        nix::sys::stat::Mode::from_bits_truncate(0o666),
    )
    .unwrap();
    if lab.is_husk() {
        let output = lab.run(&bundle);
        assert!(output.stderr.contains("/process/rlimits/0"), "{output}");
    }
}

/// A source inside the container may lead through a link that somebody else has put into a volume: not to where
/// procfs isn't protected.
fn a_link_of_a_volume_is_no_second_way_into_procfs(lab: &Lab) {
    let volume = lab.path("volume");
    fs::create_dir_all(&volume).unwrap();
    std::os::unix::fs::symlink("/proc/sys/kernel", volume.join("way")).unwrap();
    let bundle = lab
        .bundle()
        .set("/linux/readonlyPaths", json!(["/proc/sys"]));
    let source = bundle.rootfs().join("volume/way");
    let bundle = bundle
        .bind(&volume, "/volume", &["bind"])
        .bind(&source, "/kernel", &["bind"])
        .payload("write /kernel/domainname x");
    let output = lab.run(&bundle);
    if output.end == End::Code(0) {
        assert_ne!(output.lines()[0], json!(null), "{output}");
        assert!(output.lines()[0]["error"].is_string(), "{output}");
    }
    if lab.is_husk() {
        assert!(output.stderr.contains("leads into procfs"), "{output}");
    }
}

/// Nor is a link of the host that leads to the root, or through it and out again.
fn a_source_below_the_root_is_found_by_any_name(lab: &Lab) {
    const SECRET: &str = "the host's own";
    let canary = lab.path("canary");
    fs::create_dir(&canary).unwrap();
    fs::write(canary.join("secret"), SECRET).unwrap();
    let bundle = || {
        let bundle = lab.bundle().link("data", canary.to_str().unwrap());
        let bundle = bundle.link("up", "/usr/lib").link("own", "/there");
        let bundle = bundle.file("there/file", "inside").dir("usr/lib");
        std::os::unix::fs::symlink(&bundle.dir, bundle.dir.join("alias")).unwrap();
        std::os::unix::fs::symlink("alias/rootfs", bundle.dir.join("root")).unwrap();
        fs::create_dir(bundle.dir.join("beside")).unwrap();
        fs::write(bundle.dir.join("beside/file"), "beside").unwrap();
        bundle
    };
    for name in ["alias/rootfs", "root", "rootfs/../root", "root/../rootfs"] {
        let bundle = bundle();
        let source = bundle.dir.join(name).join("data");
        let bundle = bundle.bind(source, "/mnt", &["bind"]);
        let output = lab.run(&bundle.payload("cat /mnt/secret"));
        assert!(!output.stdout.contains(SECRET), "{name}: {output}");
        if lab.is_husk() {
            output.refused().says("/mounts/").says("no such file");
        }
    }
    // Nor when the root is named by a link, the source isn't, and an entry before brings the link.
    let volume = lab.path("volume");
    fs::create_dir(&volume).unwrap();
    std::os::unix::fs::symlink(&canary, volume.join("data")).unwrap();
    let bundle_by_link = bundle();
    let source = bundle_by_link.rootfs().join("mnt/data");
    let root = bundle_by_link.dir.join("root");
    let bundle_by_link = bundle_by_link
        .set("/root/path", root.to_str().unwrap())
        .bind(&volume, "/mnt", &["bind"])
        .bind(source, "/srv", &["bind"]);
    let output = lab.run(&bundle_by_link.payload("cat /srv/secret"));
    assert!(!output.stdout.contains(SECRET), "{output}");
    if !lab.is_husk() {
        return;
    }
    for (name, expected) in [
        ("root/own", "inside"),
        ("root/there/../own", "inside"),
        ("rootfs/../beside", "beside"),
        ("root/../beside", "beside"),
        ("root/up/../../beside", "beside"),
        ("rootfs/up/../../beside", "beside"),
    ] {
        let bundle = bundle();
        let source = bundle.dir.join(name);
        let bundle = bundle.bind(source, "/mnt", &["bind"]);
        assert_eq!(lab.ask(bundle, "cat /mnt/file")[0], expected, "{name}");
    }
}
