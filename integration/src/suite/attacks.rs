//! Attacks that once worked on a runtime, by CVE. Hostile: the root filesystem and the
//! processes inside. Trusted: config.json.

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use super::tests;
use crate::bundle::Bundle;
use crate::lab::Lab;
use crate::output::End;

tests! {
    cve_2024_21626_cwd_leaked_fd,
    cve_2024_21626_program_through_leaked_fd,
    cve_2024_21626_exec_cwd_through_a_link,
    cve_2019_16884_nothing_is_mounted_over_proc,
    cve_2019_19921_proc_that_is_a_link_is_refused,
    cve_2025_54867_sys_that_is_a_link_is_refused,
    cve_2025_31133_a_null_device_that_is_none_is_refused,
    cve_2025_52565_console_link_is_not_followed,
    cve_2025_52565_a_prepared_devpts_is_refused,
    cve_2025_52881_what_lies_over_a_sysctl_is_not_written,
    cve_2025_24965_nothing_is_written_into_the_root_but_mount_points,
    hugetlb_page_sizes_lead_nowhere,
    a_class_id_of_resctrl_is_one_name,
    cve_2026_41579_dev_link_does_not_reach_the_host,
    cve_2026_47766_default_devices_do_not_reach_the_host,
    cve_2019_5736_the_runtime_cannot_be_overwritten,
    cve_2019_5736_nor_by_who_shares_its_processes,
    cve_2016_9962_who_shares_the_processes_sees_nothing,
    cve_2024_45310_mount_points_are_made_inside_only,
    cve_2016_9962_the_entering_process_cannot_be_looked_into,
    cve_2021_43784_many_mappings_do_not_overflow,
    hostile_passwd_and_group_files_are_read_with_care,
}

/// A directory of the host that must stay as it is.
fn canary(lab: &Lab) -> PathBuf {
    let dir = lab.path("canary");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("file"), "canary").unwrap();
    dir
}

#[track_caller]
fn assert_untouched(canary: &std::path::Path) {
    let names: Vec<_> = fs::read_dir(canary)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names, ["file"]);
    assert_eq!(fs::read_to_string(canary.join("file")).unwrap(), "canary");
}

/// By what status is each runtime's own.
#[track_caller]
fn assert_refused(lab: &Lab, output: &crate::output::Output) {
    match lab.is_husk() {
        true => assert_eq!(output.end, End::Code(1), "{output}"),
        false => assert_ne!(output.end, End::Code(0), "{output}"),
    }
}

fn cve_2024_21626_cwd_leaked_fd(lab: &Lab) {
    for number in (3..20).chain([64, 100]) {
        for suffix in ["", "/..", "/../../.."] {
            if !suffix.is_empty() && number > 12 {
                continue;
            }
            let cwd = format!("/proc/self/fd/{number}{suffix}");
            let bundle = lab
                .bundle()
                .set("/process/cwd", cwd.as_str())
                .payload("facts -- ls .");
            let command = lab.run_with(&bundle, &[]);
            let output = command.fd(fs::File::open("/").unwrap(), 10).run();
            assert_refused(lab, &output);
        }
    }
}

fn cve_2024_21626_program_through_leaked_fd(lab: &Lab) {
    let host = lab.host_payload();
    for number in 3..16 {
        let program = format!("/proc/self/fd/{number}{host}");
        let bundle = lab.bundle().args(&[&program, "echo", "escaped"]);
        let command = lab.run_with(&bundle, &[]);
        let output = command.fd(fs::File::open("/").unwrap(), 10).run();
        assert_ne!(output.end, End::Code(0), "{output}");
        assert_eq!(output.stdout, "");
    }
}

fn cve_2024_21626_exec_cwd_through_a_link(lab: &Lab) {
    let mut bundle = lab.bundle();
    for number in 3..16 {
        bundle = bundle.link(&format!("fd{number}"), &format!("/proc/self/fd/{number}"));
    }
    let container = lab.start(&bundle.payload("pause"));
    for number in 3..16 {
        let cwd = format!("/fd{number}");
        let exec = container.exec_with(&["--cwd", &cwd], "/bin/payload ls .");
        let output = exec.fd(fs::File::open("/").unwrap(), 10).run().code(255);
        assert_eq!(output.stdout, "");
    }
    container.end();
}

fn cve_2019_16884_nothing_is_mounted_over_proc(lab: &Lab) {
    let source = canary(lab);
    let mut destinations = vec!["/proc/self/attr", "/proc/sys", "/proc/1"];
    if lab.is_husk() {
        destinations.extend(["/proc", "/proc/../proc/sys", "/etc/../proc/sys"]);
    }
    for destination in destinations {
        let bundle = lab
            .bundle()
            .bind(&source, destination, &["bind"])
            .payload("facts");
        assert_refused(lab, &lab.run(&bundle));
    }
    // Those that lxcfs provides are fine.
    let bundle = lab
        .bundle()
        .bind(source.join("file"), "/proc/meminfo", &["bind"]);
    assert_eq!(lab.ask(bundle, "cat /proc/meminfo"), [json!("canary")]);
    assert_untouched(&source);
}

/// And CVE-2023-27561, its return.
fn cve_2019_19921_proc_that_is_a_link_is_refused(lab: &Lab) {
    let canary = canary(lab);
    for target in [canary.to_str().unwrap(), "/etc", "etc", "/tmp/proc"] {
        let bundle = lab
            .bundle()
            .writable()
            .link("proc", target)
            .payload("facts");
        assert_refused(lab, &lab.run(&bundle));
    }
    // As engines give the host's, to a container that shares its processes.
    for place in ["proc", "sys"] {
        let host = format!("/{place}");
        let bundle = lab
            .bundle()
            .writable()
            .only_mounts(&["/dev"])
            .link(place, canary.to_str().unwrap())
            .bind(&host, &host, &["rbind"])
            .payload("facts");
        if lab.is_husk() {
            lab.run(&bundle).code(1);
        }
    }
    let bundle = lab.bundle().payload("facts");
    fs::remove_dir(bundle.rootfs().join("proc")).unwrap();
    fs::write(bundle.rootfs().join("proc"), "").unwrap();
    assert_refused(lab, &lab.run(&bundle));
    assert_untouched(&canary);
}

fn cve_2025_54867_sys_that_is_a_link_is_refused(lab: &Lab) {
    let canary = canary(lab);
    for target in [canary.to_str().unwrap(), "/etc"] {
        let bundle = lab.bundle().writable().link("sys", target).payload("facts");
        assert_refused(lab, &lab.run(&bundle));
    }
    assert_untouched(&canary);
}

/// The image's /dev is used, with a /dev/null that is something else, which a runtime
/// could bind over what it masks.
fn cve_2025_31133_a_null_device_that_is_none_is_refused(lab: &Lab) {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    let canary = canary(lab);
    let mode = Mode::from_bits_truncate(0o666);
    for kind in ["file", "link", "zero", "dir"] {
        let dev = lab.path("dev");
        fs::create_dir(&dev).unwrap();
        let null = dev.join("null");
        match kind {
            "file" => fs::write(&null, "I am everything").unwrap(),
            "link" => std::os::unix::fs::symlink(canary.join("file"), &null).unwrap(),
            "zero" => mknod(&null, SFlag::S_IFCHR, mode, makedev(1, 5)).unwrap(),
            _ => fs::create_dir(&null).unwrap(),
        }
        let bundle = lab
            .bundle()
            .file("etc/secret", "secret")
            .only_mounts(&["/proc"])
            .bind(&dev, "/dev", &["bind"])
            .set("/linux/maskedPaths", json!(["/etc/secret"]));
        let output = lab.run(&bundle.payload("cat /etc/secret"));
        // Refused, or masked with a true null device all the same.
        if output.end == End::Code(0) {
            let shown = ["everything", "secret", "canary"];
            let leaked = shown.iter().any(|word| output.stdout.contains(word));
            assert!(!leaked, "{kind}: {output}");
        }
        if lab.is_husk() && output.end == End::Code(0) {
            assert_eq!(output.line(), json!(""), "{kind}");
        }
        assert_untouched(&canary);
    }
}

fn cve_2025_52565_console_link_is_not_followed(lab: &Lab) {
    let canary = canary(lab);
    let file = canary.join("file");
    let bundle = lab
        .bundle()
        .writable()
        .only_mounts(&["/proc"])
        .link("dev/console", file.to_str().unwrap())
        .link("dev/ptmx", file.to_str().unwrap())
        .set("/process/terminal", true)
        .payload("exit 0");
    let pty = crate::pty::Pty::new(24, 80);
    pty.spawn(lab.run_with(&bundle, &[])).wait();
    assert_untouched(&canary);
}

fn with_dev_link(bundle: Bundle, target: &str) -> Bundle {
    bundle
        .writable()
        .only_mounts(&["/proc"])
        .link("dev", target)
        .payload("exit 0")
}

fn cve_2026_41579_dev_link_does_not_reach_the_host(lab: &Lab) {
    let canary = canary(lab);
    fs::write(canary.join("file"), "canary").unwrap();
    let upwards = format!("../../../../../../../..{}", canary.display());
    for target in [canary.to_str().unwrap(), &upwards] {
        lab.run(&with_dev_link(lab.bundle(), target));
        let bundle = with_dev_link(lab.bundle(), target);
        let id = lab.id();
        if lab.on_bundle("create", &bundle, &[], &id).run().end == End::Code(0) {
            lab.runtime(["start", &id]).run();
            lab.runtime(["delete", "--force", &id]).run().ok();
        }
        assert_untouched(&canary);
    }
}

fn cve_2026_47766_default_devices_do_not_reach_the_host(lab: &Lab) {
    let canary = canary(lab);
    let file = canary.join("file");
    let names = [
        "null", "zero", "full", "tty", "random", "urandom", "fd", "stdin", "stdout", "stderr",
        "ptmx", "shm", "pts",
    ];
    for name in names {
        let bundle = lab
            .bundle()
            .writable()
            .only_mounts(&["/proc"])
            .link(&format!("dev/{name}"), file.to_str().unwrap())
            .payload("exit 0");
        lab.run(&bundle);
        let bundle = lab
            .bundle()
            .writable()
            .only_mounts(&["/proc"])
            .link(&format!("dev/{name}"), canary.join("new").to_str().unwrap())
            .payload("exit 0");
        lab.run(&bundle);
        assert_untouched(&canary);
    }
}

fn fingerprint(path: &std::path::Path) -> (u64, std::time::SystemTime, u64) {
    use std::os::unix::fs::MetadataExt;
    let meta = fs::metadata(path).unwrap();
    let sum = fs::read(path)
        .unwrap()
        .iter()
        .fold(0u64, |a, b| a.wrapping_mul(31) + u64::from(*b));
    (meta.ino(), meta.modified().unwrap(), sum)
}

/// The entrypoint is the runtime itself, by a link and by `#!`; and whoever finds it as
/// /proc/PID/exe while it enters can't open it for writing.
fn cve_2019_5736_the_runtime_cannot_be_overwritten(lab: &Lab) {
    let lab = &lab.with_own_runtime();
    let before = fingerprint(&lab.runtime);
    let bundle = lab
        .bundle()
        .writable()
        .link("bin/self", "/proc/self/exe")
        .executable("bin/script", "#!/proc/self/exe\n")
        .capabilities(&["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE"]);
    for program in ["/bin/self", "/bin/script", "/proc/self/exe"] {
        lab.run(&bundle_with(&bundle, program));
    }
    let container = lab.start(&bundle.payload("overwrite-runtimes 3 -- pause"));
    let mut execs = 0;
    while !container.stdout().contains('\n') {
        container.exec_with(&[], "/bin/self").run();
        container.exec_with(&[], "/bin/payload exit 0").run();
        execs += 2;
    }
    let report = container.lines().remove(0);
    assert_eq!(report["written"], 0, "{report}");
    assert!(execs > 10, "{execs} execs");
    container.end();
    assert_eq!(fingerprint(&lab.runtime), before);
}

fn bundle_with(bundle: &Bundle, program: &str) -> Bundle {
    bundle.another().args(&[program, "--help"])
}

fn cve_2024_45310_mount_points_are_made_inside_only(lab: &Lab) {
    let canary = canary(lab);
    let up = "../../../../../../../../..";
    let bundle = lab
        .bundle()
        .writable()
        .link("way", canary.to_str().unwrap())
        .link("upway", &format!("{up}{}", canary.display()))
        .bind("/etc/hostname", "/way/new-file", &["bind"])
        .bind("/etc", "/upway/new/dir", &["bind"])
        .mount(json!({ "destination": "/way/tmp", "type": "tmpfs", "source": "x" }));
    lab.run(&bundle.payload("exit 0"));
    assert_untouched(&canary);
}

fn cve_2016_9962_the_entering_process_cannot_be_looked_into(lab: &Lab) {
    let bundle = lab
        .bundle()
        .capabilities(&["CAP_SYS_PTRACE"])
        .payload("spy 2 -- pause");
    let container = lab.start(&bundle);
    while !container.stdout().contains('\n') {
        container.exec_with(&[], "/bin/payload exit 0").run().ok();
    }
    let report = container.lines().remove(0);
    let targets = report["targets"].as_array().unwrap();
    let root = lab.root.to_str().unwrap();
    let leaked: Vec<_> = targets
        .iter()
        .filter(|t| t.as_str().unwrap().starts_with(root) || *t == "/" && report["roots"] == true)
        .collect();
    assert!(leaked.is_empty(), "{report}");
    container.end();
}

fn cve_2021_43784_many_mappings_do_not_overflow(lab: &Lab) {
    let map: Vec<_> = (0..340)
        .map(|n| json!({ "containerID": n, "hostID": n, "size": 1 }))
        .collect();
    let bundle = lab
        .bundle()
        .namespace("user")
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map);
    let facts = lab.facts(&bundle);
    assert_eq!(facts["uid_map"].as_str().unwrap().lines().count(), 340);
}

/// HOME comes from there.
fn hostile_passwd_and_group_files_are_read_with_care(lab: &Lab) {
    let canary = canary(lab);
    let long = format!("root:x:0:0::{}:/\n", "/x".repeat(100_000));
    for passwd in [
        "",
        "\0\0\0",
        "root",
        "root:::::::::::",
        ":::",
        &long,
        "root:x:0:0::/a\nb:x:0:0::/c",
    ] {
        let output = lab.run(&lab.bundle().file("etc/passwd", passwd).payload("exit 3"));
        assert!(matches!(output.end, End::Code(3 | 1)), "{output}");
    }
    let bundle = lab
        .bundle()
        .link("etc/passwd", canary.join("file").to_str().unwrap());
    lab.run(&bundle.payload("exit 3")).code(3);
    assert_untouched(&canary);
}

/// The image's /dev/pts is full of links to where a runtime would look for the terminal that it made.
fn cve_2025_52565_a_prepared_devpts_is_refused(lab: &Lab) {
    let canary = canary(lab);
    let dev = lab.path("dev");
    fs::create_dir_all(dev.join("pts")).unwrap();
    fs::write(dev.join("console"), "").unwrap();
    let names = (0..64).map(|n| n.to_string()).chain(["ptmx".into()]);
    for name in names {
        std::os::unix::fs::symlink(canary.join("file"), dev.join("pts").join(name)).unwrap();
    }
    std::os::unix::fs::symlink("pts/ptmx", dev.join("ptmx")).unwrap();
    let bundle = lab
        .bundle()
        .only_mounts(&["/proc"])
        .bind(&dev, "/dev", &["bind"])
        .set("/process/terminal", true)
        .payload("cat /dev/console -- write /dev/console overwritten");
    let pty = crate::pty::Pty::new(24, 80);
    let output = pty.spawn(lab.run_with(&bundle, &[])).wait();
    assert_untouched(&canary);
    if lab.is_husk() {
        assert_eq!(fs::read_to_string(dev.join("console")).unwrap(), "");
        assert_ne!(output.end, End::Code(0), "{output}");
    }
}

/// A racing container's mount, and here a hook's, which wins every time: a sysctl must reach the kernel,
/// or fail, and what lies over its file stay as it was.
fn cve_2025_52881_what_lies_over_a_sysctl_is_not_written(lab: &Lab) {
    for (over, canary_is) in [("sys/kernel/domainname", "file"), ("sys/kernel", "dir")] {
        let fake = lab.path("fake");
        match canary_is {
            "file" => fs::write(&fake, "canary").unwrap(),
            _ => {
                fs::create_dir(&fake).unwrap();
                fs::write(fake.join("domainname"), "canary").unwrap();
            }
        }
        let bundle = lab.bundle();
        let target = bundle.rootfs().join("proc").join(over);
        let script = format!("mount --bind {} {}", fake.display(), target.display());
        let bundle = bundle
            .hook("createContainer", &["/bin/sh", "-c", &script])
            .set(
                "/linux/sysctl",
                json!({ "kernel.domainname": "true.domain" }),
            )
            .set("/linux/readonlyPaths", json!([]))
            .payload("facts");
        let output = lab.run(&bundle);
        let written = match canary_is {
            "file" => fs::read_to_string(&fake).unwrap(),
            _ => fs::read_to_string(fake.join("domainname")).unwrap(),
        };
        assert_eq!(written, "canary", "{over}");
        if output.end == End::Code(0) {
            assert_eq!(output.line()["domainname"], "true.domain", "{over}");
        }
        if lab.is_husk() {
            output.ok();
        }
    }
}

/// Everything below, with what it is and holds.
fn tree(root: &std::path::Path) -> std::collections::BTreeMap<PathBuf, String> {
    use std::os::unix::fs::MetadataExt;
    let mut seen = std::collections::BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let is = match meta.is_file() {
                true => format!(
                    "{:o} {} bytes {}",
                    meta.mode(),
                    meta.size(),
                    meta.mtime_nsec()
                ),
                false => format!("{:o} {}", meta.mode(), meta.rdev()),
            };
            if meta.is_dir() {
                left.push(path.clone());
            }
            seen.insert(path.strip_prefix(root).unwrap().to_owned(), is);
        }
    }
    seen
}

/// crun wrote a file of its own, through whatever link the image had there.
fn cve_2025_24965_nothing_is_written_into_the_root_but_mount_points(lab: &Lab) {
    let canary = canary(lab);
    let bundle = lab
        .bundle()
        .writable()
        .dir("proc/x")
        .link(".krun_config.json", canary.join("file").to_str().unwrap())
        .file("etc/passwd", "root:x:0:0::/:\n")
        .bind("/etc", "/made/dir", &["bind"])
        .bind("/etc/hostname", "/made/file", &["bind"])
        .set("/hostname", "other")
        .payload("pause");
    let root = bundle.rootfs();
    let before = tree(&root);
    let container = lab.start(&bundle);
    container.exec("/bin/payload exit 0").ok();
    container.end();
    let mut after = tree(&root);
    for made in ["made", "made/dir", "made/file"] {
        let is = after.remove(&PathBuf::from(made)).unwrap();
        assert!(
            is.starts_with('4') || is.contains(" 0 bytes"),
            "{made}: {is}"
        );
    }
    assert_eq!(after, before);
    assert_untouched(&canary);
}

/// A page size becomes a part of a file's name (runc 4103).
fn hugetlb_page_sizes_lead_nowhere(lab: &Lab) {
    for size in [
        "../../x",
        "2MB/../../../x",
        "/etc/x",
        "",
        "2MB.limit_in_bytes/..",
    ] {
        let limits = json!([{ "pageSize": size, "limit": 0 }]);
        let bundle = lab.bundle().set("/linux/resources/hugepageLimits", limits);
        let output = lab.run(&bundle.payload("exit 3"));
        assert_ne!(output.end, End::Code(3), "{size:?}: {output}");
    }
}

fn a_class_id_of_resctrl_is_one_name(lab: &Lab) {
    for id in ["../x", "a/b", "..", "."] {
        let bundle = lab.bundle().set("/linux/intelRdt", json!({ "closID": id }));
        let output = lab.run(&bundle.payload("exit 3"));
        assert_ne!(output.end, End::Code(3), "{id:?}: {output}");
    }
}

/// A container whose pid namespace others join, while they do, until `spy` has reported.
#[track_caller]
fn joined_by_others(lab: &Lab, spy: &Bundle) -> serde_json::Value {
    let holder = lab.start(spy);
    let path = format!("/proc/{}/ns/pid", holder.pid());
    let mut joined = 0;
    while !holder.stdout().contains('\n') {
        let bundle = lab.bundle().join("pid", &path).payload("exit 0");
        lab.run(&bundle).ok();
        let container = lab.create(&lab.bundle().join("pid", &path).payload("exit 0"));
        container.force_delete();
        joined += 2;
    }
    let report = holder.lines().remove(0);
    assert!(joined > 4, "{joined} containers");
    holder.end();
    report
}

/// With all that a container can be given for it.
fn cve_2019_5736_nor_by_who_shares_its_processes(lab: &Lab) {
    let lab = &lab.with_own_runtime();
    let before = fingerprint(&lab.runtime);
    let bundle = lab
        .bundle()
        .capabilities(&["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE"])
        .payload("overwrite-runtimes 3 -- pause");
    let report = joined_by_others(lab, &bundle);
    assert_eq!(report["written"], 0, "{report}");
    assert!(report["opened"].as_u64() > Some(0), "{report}");
    assert_eq!(fingerprint(&lab.runtime), before);
}

/// Of a process of the same user, with the same capabilities in the end.
fn cve_2016_9962_who_shares_the_processes_sees_nothing(lab: &Lab) {
    let report = joined_by_others(lab, &lab.bundle().payload("spy 3 -- pause"));
    assert!(report["strangers"].as_u64() > Some(1), "{report}");
    let targets = report["targets"].as_array().unwrap().iter();
    let mut targets = targets.map(|target| target.as_str().unwrap());
    // The program's own streams are seen while it ends: without its memory it is a stranger, too.
    let stream = |target: &str| {
        let kinds = ["pipe:", "/memfd:", "/dev/null"];
        kinds.iter().any(|kind| target.starts_with(kind))
    };
    assert!(targets.all(stream), "{report}");
}
