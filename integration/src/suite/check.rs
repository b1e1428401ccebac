//! `husk check`: what it finds on bundles that can't work on this machine, and that it finds nothing
//! on those that can.

use std::fs;

use serde_json::{Value, json};

use super::tests;
use crate::bundle::Bundle;
use crate::lab::Lab;
use crate::need::Need;
use crate::output::End;

pub(super) const HUSK: &[Need] = &[Need::Husk];

tests! {
    a_good_bundle_has_no_findings.needs(HUSK),
    nothing_is_made.needs(HUSK),
    real_configurations_have_no_findings.needs(HUSK),
    the_root_and_mounts_are_looked_at.needs(HUSK),
    the_kernel_is_asked.needs(HUSK),
    limits_are_held_against_the_machine.needs(HUSK),
    exit_status_tells_errors_from_no_bundle.needs(HUSK),
    text_is_for_people.needs(HUSK),
}

/// One in which there is nothing to find.
pub(super) fn good(lab: &Lab) -> Bundle {
    lab.bundle()
}

pub(super) fn check(lab: &Lab, bundle: &Bundle) -> Vec<Value> {
    bundle.write(&lab.id());
    let output = lab
        .bare(["check", "--format", "json", bundle.dir.to_str().unwrap()])
        .run();
    let findings: Vec<Value> =
        serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output}"));
    let errors = findings
        .iter()
        .any(|finding| finding["severity"] == "error");
    assert_eq!(output.end, End::Code(i32::from(errors)), "{output}");
    findings
}

pub(super) struct Case<'a> {
    pub(super) name: &'a str,
    pub(super) breakage: &'a dyn Fn(Bundle) -> Bundle,
    pub(super) pointer: &'a str,
    /// Parts of the message and of the hint.
    pub(super) words: &'a [&'a str],
    pub(super) hint: &'a [&'a str],
}

/// Each breakage is the only finding, at its place, in these words.
pub(super) fn all_found(lab: &Lab, cases: &[Case]) {
    let mut wrong = Vec::new();
    for case in cases {
        let bundle = (case.breakage)(good(lab));
        let findings = check(lab, &bundle);
        let fits = |finding: &Value| {
            let has = |key: &str, words: &[&str]| {
                let text = finding[key].as_str().unwrap_or_default();
                words.iter().all(|word| text.contains(word))
            };
            finding["pointer"] == case.pointer
                && has("message", case.words)
                && has("hint", case.hint)
        };
        if findings.len() != 1 || !findings.iter().any(fits) {
            wrong.push(format!("{}: {}", case.name, json!(findings)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn a_good_bundle_has_no_findings(lab: &Lab) {
    assert_eq!(check(lab, &good(lab)), Vec::<Value>::new());
    let full = good(lab)
        .hook("prestart", &[lab.host_payload()])
        .user_namespace(100_000, 65_536)
        .dir("mnt/usr")
        .bind("/usr", "/mnt/usr", &["rbind", "ro"])
        .set(
            "/linux/sysctl",
            json!({ "net.ipv4.ip_forward": "1", "kernel.msgmax": "8192" }),
        );
    assert_eq!(check(lab, &full), Vec::<Value>::new());
}

fn nothing_is_made(lab: &Lab) {
    let bundle = good(lab).bind("/usr", "/not/there/yet", &["rbind"]);
    bundle.write("check-makes-nothing");
    let names = || {
        let mut names: Vec<_> = fs::read_dir(bundle.rootfs())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        names.sort();
        names
    };
    let before = names();
    check(lab, &bundle);
    assert_eq!(names(), before);
    assert!(!lab.root.exists());
    assert!(!crate::cgroup::path("check-makes-nothing").exists());
}

/// Of engines, as they are. Their roots and files are on other machines: the document alone.
fn real_configurations_have_no_findings(lab: &Lab) {
    for text in [
        include_str!("../../data/configs/containerd-ctr-run-seccomp.json"),
        include_str!("../../data/configs/containerd-ctr-run.json"),
        include_str!("../../data/configs/podman-pod.json"),
        include_str!("../../data/configs/podman-run-full.json"),
        include_str!("../../data/configs/podman-run-privileged.json"),
        include_str!("../../data/configs/podman-run-tty.json"),
        include_str!("../../data/configs/podman-run.json"),
    ] {
        let output = lab
            .bare(["check", "--format", "json", "-"])
            .stdin_text(text)
            .run()
            .ok();
        assert_eq!(output.stdout.trim(), "[]");
    }
}

fn the_root_and_mounts_are_looked_at(lab: &Lab) {
    let (file, dir) = (lab.path("file"), lab.path("volume"));
    fs::write(&file, "x").unwrap();
    fs::create_dir(&dir).unwrap();
    let missing = dir.with_file_name("volum");
    let mount = |destination: &str, kind: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": kind, "options": options });
    let enoent = "no such file or directory";
    all_found(
        lab,
        &[
            Case {
                name: "no root",
                breakage: &|b| b.set("/root/path", "rootfz"),
                pointer: "/root/path",
                words: &["rootfz", enoent],
                hint: &["did you mean", "rootfs?"],
            },
            Case {
                name: "root is an archive",
                breakage: &|b| {
                    fs::write(b.dir.join("image.tar"), "x").unwrap();
                    b.set("/root/path", "image.tar")
                },
                pointer: "/root/path",
                words: &["not a directory"],
                hint: &["unpack"],
            },
            Case {
                name: "no source",
                breakage: &|b| b.bind(&missing, "/data", &["rbind"]),
                pointer: "/mounts/7/source",
                words: &[missing.to_str().unwrap(), enoent],
                hint: &["did you mean"],
            },
            Case {
                name: "directory onto file",
                breakage: &|b| b.file("etc/conf", "").bind(&dir, "/etc/conf", &["bind"]),
                pointer: "/mounts/7",
                words: &["not a directory"],
                hint: &["the source is a directory"],
            },
            Case {
                name: "file onto directory",
                breakage: &|b| b.bind(&file, "/etc", &["bind"]),
                pointer: "/mounts/7",
                words: &["not a directory"],
                hint: &["the destination is a directory"],
            },
            Case {
                name: "unknown bind option",
                breakage: &|b| b.bind(&dir, "/data", &["rbind", "noexce"]),
                pointer: "/mounts/7/options/1",
                words: &["noexce"],
                hint: &["noexec"],
            },
            Case {
                name: "unknown tmpfs option",
                breakage: &|b| b.mount(mount("/data", "tmpfs", &["nosuid", "sise=1m"])),
                pointer: "/mounts/7/options/1",
                words: &["sise"],
                hint: &["did you mean size?"],
            },
            Case {
                name: "bad value of a tmpfs option",
                breakage: &|b| b.mount(mount("/data", "tmpfs", &["size=many"])),
                pointer: "/mounts/7/options/0",
                words: &["size=many"],
                hint: &[],
            },
            Case {
                name: "unknown filesystem",
                breakage: &|b| b.mount(mount("/data", "tmpsf", &[])),
                pointer: "/mounts/7/type",
                words: &["tmpsf"],
                hint: &["tmpfs"],
            },
            Case {
                name: "type bind without the option",
                breakage: &|b| b.mount(mount("/data", "bind", &["ro"])),
                pointer: "/mounts/7/options",
                words: &["without the option"],
                hint: &["add"],
            },
            Case {
                name: "proc on a link",
                breakage: &|b| b.link("proc", "/etc"),
                pointer: "/mounts/0/destination",
                words: &["must be mounted on ordinary directory"],
                hint: &["directory"],
            },
            Case {
                name: "inside proc",
                breakage: &|b| b.bind(&file, "/proc/sys/kernel/x", &["bind"]),
                pointer: "/mounts/7/destination",
                words: &["inside /proc"],
                hint: &[],
            },
            Case {
                name: "dangling mount point",
                breakage: &|b| {
                    b.link("data", "/nowhere/at/all")
                        .bind(&dir, "/data", &["bind"])
                },
                pointer: "/mounts/7/destination",
                words: &["symbolic link"],
                hint: &["points nowhere"],
            },
            Case {
                name: "file on the way to a mount point",
                breakage: &|b| b.file("data", "").bind(&dir, "/data/x", &["bind"]),
                pointer: "/mounts/7/destination",
                words: &["not a directory"],
                hint: &["on the way"],
            },
            Case {
                name: "no layer",
                breakage: &|b| {
                    b.set(
                        "/annotations",
                        json!({ "run.husk.overlay.lower": "/no/such/layer" }),
                    )
                },
                pointer: "/annotations/run.husk.overlay.lower",
                words: &["/no/such/layer", enoent],
                hint: &["isn't there either"],
            },
            Case {
                name: "nowhere for the upper layer",
                breakage: &|b| {
                    b.set(
                        "/annotations",
                        json!({ "run.husk.overlay.upper": "/no/such/upper" }),
                    )
                },
                pointer: "/annotations/run.husk.overlay.upper",
                words: &["/no/such/upper", enoent],
                hint: &["create /no/such"],
            },
        ],
    );
}

fn the_kernel_is_asked(lab: &Lab) {
    let mut cases = vec![
        Case {
            name: "a namespace that is gone",
            breakage: &|b| b.join("network", "/proc/4194303/ns/net"),
            pointer: "/linux/namespaces/5/path",
            words: &["/proc/4194303/ns/net", "no such file or directory"],
            hint: &["is gone"],
        },
        Case {
            name: "a named namespace that was never made",
            breakage: &|b| b.join("network", "/run/netns/never"),
            pointer: "/linux/namespaces/5/path",
            words: &["/run/netns/never", "no such file or directory"],
            hint: &["ip netns add never"],
        },
        Case {
            name: "a namespace of another type",
            breakage: &|b| b.join("ipc", "/proc/self/ns/uts"),
            pointer: "/linux/namespaces/5/path",
            words: &["of type uts, not ipc"],
            hint: &[],
        },
        Case {
            name: "no such sysctl",
            breakage: &|b| b.set("/linux/sysctl", json!({ "net.ipv4.ip_froward": "1" })),
            pointer: "/linux/sysctl/net.ipv4.ip_froward",
            words: &["no such file or directory"],
            hint: &["did you mean ip_forward?"],
        },
        Case {
            name: "no such network device",
            breakage: &|b| b.set("/linux/netDevices", json!({ "lp": {} })),
            pointer: "/linux/netDevices/lp",
            words: &["no network device \"lp\""],
            hint: &["did you mean lo?"],
        },
        Case {
            name: "no seccomp agent",
            breakage: &|b| {
                b.set(
                    "/linux/seccomp",
                    json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/no/agent", "syscalls": [
                        { "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }] }),
                )
            },
            pointer: "/linux/seccomp/listenerPath",
            words: &["/no/agent", "no such file or directory"],
            hint: &["start the agent"],
        },
        Case {
            name: "no such system call",
            breakage: &|b| {
                b.set(
                    "/linux/seccomp",
                    json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                        { "names": ["mkdri"], "action": "SCMP_ACT_ERRNO" }] }),
                )
            },
            pointer: "/linux/seccomp/syscalls/0/names/0",
            words: &["mkdri", "did you mean mkdir?"],
            hint: &[],
        },
        Case {
            name: "a filter that lets nothing be executed",
            breakage: &|b| {
                b.set(
                    "/linux/seccomp",
                    json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
                        { "names": ["write", "exit_group"], "action": "SCMP_ACT_ALLOW" }] }),
                )
            },
            pointer: "/linux/seccomp/defaultAction",
            words: &["execve is denied"],
            hint: &["allow execve"],
        },
        Case {
            name: "more files than the kernel's most",
            breakage: &|b| {
                b.set(
                    "/process/rlimits/0",
                    json!({ "type": "RLIMIT_NOFILE", "soft": 1024, "hard": 1u64 << 40 }),
                )
            },
            pointer: "/process/rlimits/0/hard",
            words: &["above fs.nr_open"],
            hint: &["at most"],
        },
        Case {
            name: "no process",
            breakage: &|b| b.remove("/process"),
            pointer: "/process",
            words: &["no process"],
            hint: &["husk spec"],
        },
        Case {
            name: "a memory node that isn't there",
            breakage: &|b| {
                b.set(
                    "/linux/memoryPolicy",
                    json!({ "mode": "MPOL_BIND", "nodes": "900" }),
                )
            },
            pointer: "/linux/memoryPolicy/nodes",
            words: &["memory node 900"],
            hint: &["it has 0"],
        },
    ];
    let no_selinux = !std::path::Path::new("/sys/fs/selinux/enforce").exists();
    let no_apparmor = !std::path::Path::new("/sys/kernel/security/apparmor").exists();
    if no_selinux {
        cases.push(Case {
            name: "no SELinux",
            breakage: &|b| b.set("/process/selinuxLabel", "system_u:system_r:container_t:s0"),
            pointer: "/process/selinuxLabel",
            words: &["SELinux is not enabled"],
            hint: &["remove"],
        });
    }
    if no_apparmor {
        cases.push(Case {
            name: "no AppArmor",
            breakage: &|b| b.set("/process/apparmorProfile", "docker-default"),
            pointer: "/process/apparmorProfile",
            words: &["AppArmor is not enabled"],
            hint: &["apparmor=1"],
        });
    }
    if !crate::need::has_sys_resource() {
        cases.push(Case {
            name: "a hard limit above the own",
            breakage: &|b| {
                b.set(
                    "/process/rlimits/0",
                    json!({ "type": "RLIMIT_MEMLOCK", "soft": 1024, "hard": 1u64 << 50 }),
                )
            },
            pointer: "/process/rlimits/0/hard",
            words: &["RLIMIT_MEMLOCK", "hard limit"],
            hint: &["CAP_SYS_RESOURCE"],
        });
    }
    all_found(lab, &cases);
}

fn limits_are_held_against_the_machine(lab: &Lab) {
    let controllers = crate::cgroup::controllers();
    let has = |name: &str| controllers.iter().any(|controller| controller == name);
    let set = |pointer: &'static str, value: Value| {
        move |bundle: Bundle| bundle.set(&format!("/linux/resources{pointer}"), value.clone())
    };
    let (huge, throttle) = (
        set(
            "/hugepageLimits",
            json!([{ "pageSize": "3MB", "limit": 0 }]),
        ),
        set(
            "/blockIO/throttleReadBpsDevice",
            json!([{ "major": 250, "minor": 99, "rate": 1 }]),
        ),
    );
    let (cpus, tiny) = (
        set("/cpu/cpus", json!("4000")),
        set("/memory/limit", json!(512)),
    );
    let memory = set("/memory/limit", json!(512 << 20));
    let mut findings = Vec::new();
    for (name, breakage, pointer, words, hint, controller) in [
        (
            "huge pages",
            &huge as &dyn Fn(Bundle) -> Bundle,
            "/hugepageLimits/0/pageSize",
            "3MB",
            "",
            "hugetlb",
        ),
        (
            "a disk",
            &throttle,
            "/blockIO/throttleReadBpsDevice/0",
            "250:99",
            "lsblk",
            "io",
        ),
        (
            "a CPU",
            &cpus,
            "/cpu/cpus",
            "CPU 4000",
            "it has 0",
            "cpuset",
        ),
        (
            "memory",
            &tiny,
            "/memory/limit",
            "too small",
            "the unit is bytes",
            "memory",
        ),
    ] {
        let found = check(lab, &breakage(good(lab)));
        let pointer = format!("/linux/resources{pointer}");
        let fits = |finding: &&Value| {
            let text = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
            finding["pointer"] == pointer.as_str()
                && text("message").contains(words)
                && text("hint").contains(hint)
        };
        let expected = if has(controller) { 1 } else { 2 };
        if found.iter().filter(fits).count() != 1 || found.len() > expected + 1 {
            findings.push(format!("{name}: {}", json!(found)));
        }
    }
    if !has("memory") {
        let found = check(lab, &memory(good(lab)));
        let message = found[0]["message"].as_str().unwrap();
        assert!(message.contains("memory controller"), "{found:?}");
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}

fn exit_status_tells_errors_from_no_bundle(lab: &Lab) {
    let nowhere = lab.bare(["check", "/no/such/bundle"]).run();
    assert_eq!(nowhere.end, End::Code(2), "{nowhere}");
    assert!(
        nowhere.stderr.contains("no such file or directory"),
        "{nowhere}"
    );
    let broken = lab
        .bundle()
        .raw("{\n  \"ociVersion\": \"1.0.0\"\n  \"root\": {}\n}");
    let findings = check(lab, &broken);
    let message = findings[0]["message"].as_str().unwrap();
    assert!(message.contains("line 3"), "{message}");
    // Warnings are none.
    let warned = good(lab).set("/process/capabilites", json!({}));
    let findings = check(lab, &warned);
    assert_eq!(findings[0]["severity"], "warning");
    assert_eq!(findings[0]["pointer"], "/process/capabilites");
    assert!(
        findings[0]["hint"]
            .as_str()
            .unwrap()
            .contains("capabilities"),
        "{findings:?}"
    );
    // A document alone: nothing else is looked at.
    let text = serde_json::to_string(&good(lab).set("/root/path", "/no/such").config).unwrap();
    lab.bare(["check", "-"]).stdin_text(&text).run().ok();
}

fn text_is_for_people(lab: &Lab) {
    let bundle = good(lab).args(&["paylaod"]);
    bundle.write(&lab.id());
    let output = lab
        .bare(["check", bundle.dir.to_str().unwrap()])
        .run()
        .code(1);
    assert_eq!(
        output.stdout,
        "error /process/args/0: exec paylaod: executable file not found in $PATH: no such file or directory\n  \
         hint: did you mean payload?\n1 error, 0 warnings\n"
    );
}
