//! What husk tells without running anything: profiles explained, images' configs converted, what this
//! machine has.

use std::fs;

use serde_json::{Value, json};

use super::tests;
use crate::lab::Lab;
use crate::need::Need;

const HUSK: &[Need] = &[Need::Husk];

tests! {
    explain_agrees_with_the_filter_in_force.needs(HUSK),
    explain_reads_every_kind_of_profile.needs(HUSK),
    explain_refuses_what_it_does_not_know.needs(HUSK),
    an_image_config_becomes_a_bundle_that_runs.needs(HUSK),
    names_of_users_are_looked_up_in_the_image.needs(HUSK),
    labels_of_an_image_give_no_orders.needs(HUSK),
    a_manifest_is_no_image_config.needs(HUSK),
    spec_takes_a_program.needs(HUSK),
    features_of_the_host_are_what_the_machine_has.needs(HUSK),
    a_trace_has_every_step_of_both_sides.needs(HUSK),
    a_trace_is_not_seen_by_the_program.needs(HUSK),
    a_waiting_container_has_no_trace_open.needs(HUSK),
}

/// Each call is made in a container with Docker's profile, and comes to what was said.
fn explain_agrees_with_the_filter_in_force(lab: &Lab) {
    let host = crate::profile::Host {
        architecture: if cfg!(target_arch = "x86_64") {
            "amd64"
        } else {
            "arm64"
        },
        capabilities: &crate::profile::DOCKER_CAPABILITIES,
        kernel: (6, 18),
    };
    let profile = crate::profile::resolve(crate::profile::DOCKER, &host).unwrap();
    let bundle = lab
        .bundle()
        .set("/linux/seccomp", serde_json::to_value(&profile).unwrap());
    bundle.write(&lab.id());
    let dir = bundle.dir.to_str().unwrap();
    let explain = |name: &str, arg: &str| {
        let arg = format!("0={arg}");
        let words = [
            "seccomp",
            "explain",
            dir,
            "--syscall",
            name,
            "--arg",
            &arg,
            "--format",
            "json",
        ];
        let rows: Vec<Value> = serde_json::from_str(&lab.bare(words).run().ok().stdout).unwrap();
        (
            rows[0]["answer"].as_str().unwrap().to_owned(),
            rows[0]["because"].as_str().unwrap().to_owned(),
        )
    };
    // With what is harmless when it is allowed; CLONE_NEWUSER with nothing to run on fails otherwise.
    let calls = [
        ("getpid", "0"),
        ("personality", "0"),
        ("personality", "0x7"),
        ("socket", "40"),
        ("keyctl", "0"),
        ("bpf", "0x63"),
        ("swapon", "0"),
        ("unshare", "0"),
    ];
    let words: Vec<String> = calls
        .iter()
        .map(|(name, arg)| format!("syscall {name} {arg}"))
        .collect();
    let answers = lab.ask(bundle.another(), &words.join(" -- "));
    let mut denied = 0;
    for ((name, arg), answer) in calls.iter().zip(&answers) {
        let (said, because) = explain(name, arg);
        let is_denied = answer["error"] == "EPERM";
        denied += usize::from(is_denied);
        let expected = if is_denied { "errno EPERM" } else { "allow" };
        assert_eq!(said, expected, "{name}({arg}): {because}; {answer}");
        assert!(because.starts_with("/linux/seccomp/"), "{because}");
    }
    assert!((4..8).contains(&denied), "{answers:?}");
    assert_eq!(explain("clone", "0x10000000").0, "errno EPERM");
    assert_eq!(explain("clone", "17").0, "allow");
    assert_eq!(explain("clone3", "0").0, "errno ENOSYS");
}

fn explain_reads_every_kind_of_profile(lab: &Lab) {
    let profile = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        { "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 17 },
        { "names": ["kill"], "action": "SCMP_ACT_KILL_PROCESS",
          "args": [{ "index": 1, "value": 9, "op": "SCMP_CMP_EQ" }] }] });
    let bundle = lab.bundle().set("/linux/seccomp", profile.clone());
    bundle.write(&lab.id());
    let (alone, engines) = (lab.path("alone.json"), lab.path("docker.json"));
    fs::write(&alone, profile.to_string()).unwrap();
    fs::write(&engines, crate::profile::DOCKER).unwrap();
    let config = bundle.dir.join("config.json");
    let explain = |path: &str, more: &[&str]| {
        let words = ["seccomp", "explain", path]
            .into_iter()
            .chain(more.iter().copied());
        lab.bare(words).run().ok().stdout
    };
    for (path, base) in [
        (&bundle.dir, "/linux/seccomp"),
        (&config, "/linux/seccomp"),
        (&alone, ""),
    ] {
        let path = path.to_str().unwrap();
        let text = explain(path, &["-s", "mkdirat"]);
        assert!(text.contains(": errno EEXIST\n"), "{text}");
        assert!(text.contains(&format!("  {base}/syscalls/0\n")), "{text}");
        let text = explain(path, &["-s", "kill", "-a", "0=1", "-a", "1=9"]);
        assert!(
            text.contains("kill(arg0=0x1, arg1=0x9): kill process\n"),
            "{text}"
        );
        let text = explain(path, &[]);
        assert!(text.contains("kill: kill process if arg1 == 0x9"), "{text}");
    }
    // By capability, and by the rule's place in the engine's own file.
    let engines = engines.to_str().unwrap();
    let plain = explain(engines, &["-s", "mount"]);
    assert!(
        plain.contains("errno EPERM") && plain.contains("no rule holds"),
        "{plain}"
    );
    let admin = explain(engines, &["-s", "mount", "--cap", "sys_admin"]);
    assert!(admin.contains("mount(): allow"), "{admin}");
    let whole: Value = serde_json::from_str(&explain(engines, &["--format", "json"])).unwrap();
    assert!(whole["instructions"].as_u64().unwrap() < 500, "{whole}");
    let abis = whole["abis"].as_array().unwrap();
    assert!(abis[0]["always"]["allow"].as_array().unwrap().len() > 250);
    assert!(abis[0]["instructionsMost"].as_u64().unwrap() < 20);
    // Of another machine.
    let arm = explain(engines, &["-s", "arm_fadvise64_64", "--arch", "arm"]);
    assert!(arm.starts_with("arm arm_fadvise64_64()"), "{arm}");
}

fn explain_refuses_what_it_does_not_know(lab: &Lab) {
    let file = lab.path("profile.json");
    fs::write(&file, "{\"defaultAction\": \"SCMP_ACT_ALLOW\"}").unwrap();
    let path = file.to_str().unwrap();
    for (words, expected) in [
        (vec![path, "-s", "mkdri"], "did you mean mkdir?"),
        (vec![path, "-s", "mkdir", "-a", "7=1"], "N from 0 to 5"),
        (vec![path, "-s", "mkdir", "--arch", "vax"], "want one of"),
        (vec!["/no/such/file"], "no such file or directory"),
    ] {
        let words = ["seccomp", "explain"].into_iter().chain(words);
        let output = lab.bare(words).run().code(1);
        assert!(output.stderr.contains(expected), "{output}");
    }
}

fn image_config(lab: &Lab, config: Value) -> String {
    let file = lab.path("image.json");
    let image = json!({ "architecture": "amd64", "os": "linux", "created": "2026-01-02T03:04:05Z",
        "author": "somebody", "config": config, "rootfs": { "type": "layers", "diff_ids": [] } });
    fs::write(&file, image.to_string()).unwrap();
    file.to_str().unwrap().to_owned()
}

fn an_image_config_becomes_a_bundle_that_runs(lab: &Lab) {
    let bundle = lab.bundle().file("data/kept", "from the image");
    let image = image_config(
        lab,
        json!({
            "Entrypoint": ["/bin/payload"], "Cmd": ["facts"], "User": "1000:2000",
            "Env": ["PATH=/bin", "GREETING=hello world"], "WorkingDir": "/etc",
            "Labels": { "org.example.name": "x", "org.opencontainers.image.author": "the label" },
            "StopSignal": "SIGINT", "ExposedPorts": { "80/tcp": {}, "53/udp": {} }, "Volumes": { "/data": {} }
        }),
    );
    let dir = bundle.dir.to_str().unwrap();
    lab.bare(["spec", "--bundle", dir, "--image-config", &image])
        .run()
        .ok();
    let text = fs::read_to_string(bundle.dir.join("config.json")).unwrap();
    let config: Value = serde_json::from_str(&text).unwrap();
    let annotations = &config["annotations"];
    for (key, value) in [
        ("org.opencontainers.image.author", "the label"),
        ("org.opencontainers.image.stopSignal", "SIGINT"),
        ("org.opencontainers.image.exposedPorts", "53/udp,80/tcp"),
        ("org.opencontainers.image.os", "linux"),
        ("org.example.name", "x"),
    ] {
        assert_eq!(annotations[key], value, "{annotations}");
    }
    let output = lab.runtime(["run", "--bundle", dir, &lab.id()]).run().ok();
    let facts: Value = output.line();
    assert_eq!(facts["args"], json!(["/bin/payload", "facts"]));
    assert_eq!(facts["cwd"], "/etc");
    let env = facts["env"].as_array().unwrap();
    assert!(env.contains(&json!(["GREETING", "hello world"])), "{env:?}");
    assert!(env.contains(&json!(["PATH", "/bin"])), "{env:?}");
    assert_eq!(facts["uid"], 1000, "{facts}");
    assert_eq!(facts["gid"], 2000, "{facts}");
    // Other arguments than the image's, after its entry point; and the volume is not the image's.
    fs::remove_file(bundle.dir.join("config.json")).unwrap();
    lab.bare([
        "spec",
        "--bundle",
        dir,
        "--image-config",
        &image,
        "--",
        "cat",
        "/data/kept",
    ])
    .run()
    .ok();
    let output = lab.runtime(["run", "--bundle", dir, &lab.id()]).run().ok();
    assert!(output.stdout.contains("from the image"), "{output}");
}

/// Annotations of these names put directories of the host below the root, and more.
fn labels_of_an_image_give_no_orders(lab: &Lab) {
    let bundle = lab.bundle();
    let (layer, upper) = (lab.path("layer"), lab.path("upper"));
    for dir in [&layer, &upper] {
        fs::create_dir(dir).unwrap();
    }
    fs::write(layer.join("canary"), "of the host").unwrap();
    let image = image_config(
        lab,
        json!({
            "Cmd": ["/bin/payload", "cat", "/canary"],
            "Labels": {
                "run.husk.overlay.lower": layer, "run.husk.overlay.upper": upper,
                "org.systemd.property.Description": "'x'", "org.criu.config": "/rootfs/criu.conf",
                "org.example.name": "x"
            }
        }),
    );
    let dir = bundle.dir.to_str().unwrap();
    let made = lab
        .bare(["spec", "--bundle", dir, "--image-config", &image])
        .run()
        .ok();
    for key in ["run.husk.overlay.lower", "org.systemd.property.Description"] {
        assert!(made.stderr.contains(key), "{made}");
    }
    let text = fs::read_to_string(bundle.dir.join("config.json")).unwrap();
    let config: Value = serde_json::from_str(&text).unwrap();
    let annotations = config["annotations"].as_object().unwrap();
    assert_eq!(annotations["org.example.name"], "x");
    for prefix in ["run.husk.", "org.systemd.", "org.criu."] {
        assert!(
            annotations.keys().all(|key| !key.starts_with(prefix)),
            "{annotations:?}"
        );
    }
    let output = lab.runtime(["run", "--bundle", dir, &lab.id()]).run();
    assert!(!output.stdout.contains("of the host"), "{output}");
    assert_eq!(fs::read_dir(&upper).unwrap().count(), 0);
}

fn names_of_users_are_looked_up_in_the_image(lab: &Lab) {
    let bundle = lab
        .bundle()
        .file("etc/passwd", "root:x:0:0::/:\nweb:x:33:34::/var/www:\n")
        .file(
            "etc/group",
            "root:x:0:\nweb:x:34:\nadm:x:4:other,web\nlog:x:5:web\n",
        );
    let dir = bundle.dir.to_str().unwrap();
    let user = |name: &str| {
        let _ = fs::remove_file(bundle.dir.join("config.json"));
        let image = image_config(lab, json!({ "User": name }));
        let output = lab
            .bare(["spec", "--bundle", dir, "--image-config", &image])
            .run();
        let text = fs::read_to_string(bundle.dir.join("config.json")).unwrap_or_default();
        let config: Value = serde_json::from_str(&text).unwrap_or_default();
        (config["process"]["user"].clone(), output.stderr)
    };
    assert_eq!(
        user("web").0,
        json!({ "uid": 33, "gid": 34, "additionalGids": [4, 5] })
    );
    assert_eq!(
        user("33").0,
        json!({ "uid": 33, "gid": 34, "additionalGids": [4, 5] })
    );
    assert_eq!(user("web:adm").0, json!({ "uid": 33, "gid": 4 }));
    assert_eq!(user("7").0, json!({ "uid": 7, "gid": 0 }));
    assert_eq!(user("7:8").0, json!({ "uid": 7, "gid": 8 }));
    let (_, error) = user("nobody-here");
    assert!(
        error.contains("nobody-here") && error.contains("/etc/passwd"),
        "{error}"
    );
}

fn a_manifest_is_no_image_config(lab: &Lab) {
    let file = lab.path("manifest.json");
    fs::write(
        &file,
        r#"{"schemaVersion": 2, "config": {"digest": "sha256:00"}, "layers": []}"#,
    )
    .unwrap();
    let output = lab
        .bare(["spec", "--image-config", file.to_str().unwrap()])
        .run()
        .code(1);
    assert!(
        output.stderr.contains("manifest") && output.stderr.contains("config.digest"),
        "{output}"
    );
    assert!(!lab.dir.join("config.json").exists());
}

fn spec_takes_a_program(lab: &Lab) {
    let bundle = lab.bundle();
    let dir = bundle.dir.to_str().unwrap();
    lab.bare(["spec", "--bundle", dir, "--", "payload", "echo", "x y"])
        .run()
        .ok();
    let output = lab.runtime(["run", "--bundle", dir, &lab.id()]).run().ok();
    assert_eq!(output.stdout.trim(), "x y");
}

fn features_of_the_host_are_what_the_machine_has(lab: &Lab) {
    let output = lab
        .bare(["features", "--host", "--format", "json"])
        .run()
        .ok();
    let host: Value = serde_json::from_str(&output.stdout).unwrap();
    let mut controllers: Vec<String> =
        serde_json::from_value(host["cgroup"]["controllers"].clone()).unwrap();
    let mut there = crate::cgroup::controllers();
    controllers.sort();
    there.sort();
    assert_eq!(controllers, there);
    assert_eq!(host["root"], true);
    for kind in ["cgroup", "ipc", "mount", "network", "pid", "uts"] {
        assert_eq!(host["namespaces"][kind], true, "{host}");
    }
    let apparmor = std::path::Path::new("/sys/kernel/security/apparmor").exists();
    assert_eq!(host["apparmor"], apparmor);
    assert_eq!(host["mounts"]["idmap"], true, "{host}");
    // For people: what is missing is said with what it is missing for.
    let text = lab.bare(["features", "--host"]).run().ok().stdout;
    assert!(text.contains("cgroup v2"), "{text}");
    if !there.contains(&"memory".to_owned()) {
        assert!(text.contains("memory controller"), "{text}");
    }
}

fn events(path: &std::path::Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    // As its readers do: the array's end may be missing.
    let text = format!("{}]", text.trim_end().trim_end_matches(','));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Each step of husk, of the container's process and of hooks, in one file that Perfetto reads.
fn a_trace_has_every_step_of_both_sides(lab: &Lab) {
    let trace = lab.path("trace.json");
    let option = ["--trace", trace.to_str().unwrap()];
    let bundle = lab
        .bundle()
        .payload("pause")
        .hook("prestart", &[lab.host_payload(), "exit", "0"])
        .hook("poststart", &[lab.host_payload(), "exit", "0"]);
    let id = lab.id();
    let create = lab.on_bundle("create", &bundle, &[], &id);
    create.global(&option).run().ok();
    lab.runtime(["start", &id]).global(&option).run().ok();
    let words = ["exec", &id, crate::bundle::PAYLOAD, "echo", "x"];
    lab.runtime(words).global(&option).run().ok();
    let words = ["delete", "--force", &id];
    lab.runtime(words).global(&option).run().ok();
    let events = events(&trace);
    let rows: std::collections::HashMap<u64, &str> = events
        .iter()
        .filter(|event| event["ph"] == "M")
        .map(|event| {
            (
                event["tid"].as_u64().unwrap(),
                event["args"]["name"].as_str().unwrap(),
            )
        })
        .collect();
    let steps: Vec<(&str, &str)> = events
        .iter()
        .filter(|event| event["ph"] == "X")
        .map(|event| {
            (
                rows[&event["tid"].as_u64().unwrap()],
                event["name"].as_str().unwrap(),
            )
        })
        .collect();
    for step in [
        ("husk", "create"),
        ("husk", "read config.json"),
        ("husk", "make cgroup"),
        ("husk", "clone"),
        ("husk", "prestart"),
        ("husk", "load device program"),
        ("init", "mount"),
        ("init", "pivot_root"),
        ("init", "wait for start"),
        ("husk", "start"),
        ("husk", "poststart"),
        ("exec", "enter the container"),
        ("husk", "delete"),
        ("husk", "remove cgroup"),
    ] {
        assert!(steps.contains(&step), "{step:?} is missing in {steps:?}");
    }
    let mounts = steps.iter().filter(|step| step.1 == "mount").count();
    assert_eq!(mounts, bundle.config["mounts"].as_array().unwrap().len());
    for event in events.iter().filter(|event| event["ph"] == "X") {
        assert!(
            event["ts"].as_f64() > Some(0.0) && event["dur"].as_f64() >= Some(0.0),
            "{event}"
        );
    }
    // A step lies within the command that took it.
    let span = |name: &str| {
        let event = events.iter().find(|event| event["name"] == name).unwrap();
        let (from, took) = (
            event["ts"].as_f64().unwrap(),
            event["dur"].as_f64().unwrap(),
        );
        (from, from + took)
    };
    let (create, cgroup) = (span("create"), span("make cgroup"));
    assert!(
        create.0 <= cgroup.0 && cgroup.1 <= create.1,
        "{create:?} {cgroup:?}"
    );
}

/// The program gets neither the file nor its descriptor.
fn a_trace_is_not_seen_by_the_program(lab: &Lab) {
    let trace = lab.path("trace.json");
    let output = lab
        .run_with(&lab.bundle(), &[])
        .global(&["--trace", trace.to_str().unwrap()])
        .run()
        .ok();
    let facts: Value = output.line();
    assert_eq!(facts["fds"].as_array().unwrap().len(), 3, "{facts}");
    assert!(events(&trace).len() > 10);
    let nowhere = lab
        .bare(["--trace", "/no/such/dir/trace", "list"])
        .run()
        .code(1);
    assert!(
        nowhere.stderr.contains("no such file or directory"),
        "{nowhere}"
    );
}

/// It could be written to, days later, by whoever finds a way into that process.
fn a_waiting_container_has_no_trace_open(lab: &Lab) {
    let trace = lab.path("trace.json");
    let option = ["--trace", trace.to_str().unwrap()];
    let bundle = lab.bundle().payload("pause");
    let bundle = bundle.hook("startContainer", &[crate::bundle::PAYLOAD, "exit", "0"]);
    let id = lab.id();
    let create = lab.on_bundle("create", &bundle, &[], &id);
    create.global(&option).spawn().wait().ok();
    let state = lab.runtime(["state", &id]).run().ok().json();
    let links = fs::read_dir(format!("/proc/{}/fd", state["pid"])).unwrap();
    let open: Vec<_> = links
        .map(|link| fs::read_link(link.unwrap().path()).unwrap())
        .collect();
    assert!(!open.contains(&trace), "{open:?}");
    // Who starts it without a trace hears of it nothing that stops it.
    lab.runtime(["start", &id]).run().ok();
    lab.runtime(["delete", "--force", &id]).run().ok();
    let names = |events: &[Value]| -> Vec<String> {
        let names = events.iter().filter_map(|event| event["name"].as_str());
        names.map(str::to_owned).collect()
    };
    let so_far = names(&events(&trace));
    assert!(so_far.contains(&"pivot_root".into()), "{so_far:?}");
    assert!(!so_far.contains(&"startContainer".into()), "{so_far:?}");
    // Who starts it with one has the steps that come then.
    let id = lab.id();
    let create = lab.on_bundle("create", &bundle, &[], &id);
    create.global(&option).spawn().wait().ok();
    lab.runtime(["start", &id]).global(&option).run().ok();
    lab.runtime(["delete", "--force", &id]).run().ok();
    let all = names(&events(&trace));
    for step in ["wait for start", "startContainer"] {
        assert!(all.contains(&step.into()), "{step}: {all:?}");
    }
}
