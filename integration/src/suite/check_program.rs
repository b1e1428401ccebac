//! `husk check` on programs and hooks that the kernel won't execute, and what `start` says of them.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use super::check::{Case, HUSK, all_found, check, good};
use super::tests;
use crate::bundle::{Bundle, set_mode};
use crate::diagnosis::elf;
use crate::lab::Lab;

tests! {
    the_program_is_looked_for_as_the_kernel_will.needs(HUSK),
    the_program_is_found_behind_links_layers_and_volumes.needs(HUSK),
    hooks_are_looked_at.needs(HUSK),
    start_tells_what_execve_stumbles_over.needs(HUSK),
    run_tells_why_a_program_can_not_be_executed.needs(HUSK),
    a_program_that_somebody_writes_is_told.needs(HUSK),
    hooks_of_the_container_are_looked_for_in_it.needs(HUSK),
}

fn with_program(bundle: Bundle, bytes: &[u8]) -> Bundle {
    let path = bundle.rootfs().join("bin/tool");
    fs::write(&path, bytes).unwrap();
    set_mode(&path, 0o755);
    bundle.args(&["/bin/tool"])
}

fn the_program_is_looked_for_as_the_kernel_will(lab: &Lab) {
    const AT: &str = "/process/args/0";
    let volume = lab.path("volume");
    fs::create_dir(&volume).unwrap();
    fs::copy(lab.host_payload(), volume.join("tool")).unwrap();
    let native = if cfg!(target_arch = "x86_64") {
        62
    } else {
        183
    };
    let foreign = if cfg!(target_arch = "x86_64") {
        183
    } else {
        62
    };
    let enoent = "no such file or directory";
    all_found(
        lab,
        &[
            Case {
                name: "not on PATH",
                breakage: &|b| b.args(&["paylaod"]),
                pointer: AT,
                words: &["executable file not found in $PATH", enoent],
                hint: &["did you mean payload?"],
            },
            Case {
                name: "a whole command line",
                breakage: &|b| b.args(&["payload facts"]),
                pointer: AT,
                words: &["executable file not found"],
                hint: &["a string of its own"],
            },
            Case {
                name: "no such path",
                breakage: &|b| b.args(&["/usr/bin/payload"]),
                pointer: AT,
                words: &["/usr/bin/payload", enoent],
                hint: &["has it at /bin/payload"],
            },
            Case {
                name: "almost the path",
                breakage: &|b| b.args(&["/bin/paylod"]),
                pointer: AT,
                words: &[enoent],
                hint: &["did you mean /bin/payload?"],
            },
            Case {
                name: "a dangling link",
                breakage: &|b| b.link("bin/tool", "/opt/tool").args(&["/bin/tool"]),
                pointer: AT,
                words: &[enoent],
                hint: &["its target /opt/tool is missing"],
            },
            Case {
                name: "a dangling link on PATH",
                breakage: &|b| b.link("bin/tool", "/opt/tool").args(&["tool"]),
                pointer: AT,
                words: &["executable file not found in $PATH"],
                hint: &[
                    "/bin/tool is a symbolic link",
                    "its target /opt/tool is missing",
                ],
            },
            Case {
                name: "a loop of links",
                breakage: &|b| b.link("bin/tool", "tool").args(&["/bin/tool"]),
                pointer: AT,
                words: &["too many"],
                hint: &["leads to itself"],
            },
            Case {
                name: "a directory",
                breakage: &|b| b.args(&["/etc"]),
                pointer: AT,
                words: &["is a directory"],
                hint: &["not a directory"],
            },
            Case {
                name: "no x bit",
                breakage: &|b| b.file("bin/tool", "#!/bin/payload\n").args(&["/bin/tool"]),
                pointer: AT,
                words: &["permission denied"],
                hint: &["chmod +x /bin/tool"],
            },
            Case {
                name: "no x bit on PATH",
                breakage: &|b| b.file("bin/tool", "#!/bin/payload\n").args(&["tool"]),
                pointer: AT,
                words: &["permission denied"],
                hint: &["chmod +x tool"],
            },
            Case {
                name: "not for this user",
                breakage: &|b| {
                    let b = b.executable("bin/tool", "#!/bin/payload\n");
                    set_mode(&b.rootfs().join("bin/tool"), 0o700);
                    b.args(&["/bin/tool"]).set("/process/user/uid", 1000)
                },
                pointer: AT,
                words: &["permission denied"],
                hint: &["user 1000"],
            },
            Case {
                name: "for another machine",
                breakage: &|b| with_program(b, &elf(foreign, None)),
                pointer: AT,
                words: &["exec format error"],
                hint: &["and this machine is"],
            },
            Case {
                name: "no loader",
                breakage: &|b| with_program(b, &elf(native, Some("/lib/ld-musl-x86_64.so.1"))),
                pointer: AT,
                words: &[enoent],
                hint: &["its loader /lib/ld-musl-x86_64.so.1 is missing", "musl"],
            },
            Case {
                name: "a header for another machine, and nothing else",
                breakage: &|b| {
                    let mut bytes = elf(foreign, None);
                    bytes[54..58].fill(0);
                    with_program(b, &bytes)
                },
                pointer: AT,
                words: &["exec format error"],
                hint: &["and this machine is"],
            },
            Case {
                name: "a loader for another machine",
                breakage: &|b| {
                    let b = with_program(b, &elf(foreign, None));
                    fs::rename(b.rootfs().join("bin/tool"), b.rootfs().join("bin/ld.so")).unwrap();
                    with_program(b, &elf(native, Some("/bin/ld.so")))
                },
                pointer: AT,
                words: &["corrupted shared library"],
                hint: &["its loader /bin/ld.so: it is for"],
            },
            Case {
                name: "a loader that is text",
                breakage: &|b| {
                    let b = b.executable("bin/ld.so", &"text".repeat(40));
                    with_program(b, &elf(native, Some("/bin/ld.so")))
                },
                pointer: AT,
                words: &["corrupted shared library"],
                hint: &["its loader /bin/ld.so is no ELF file"],
            },
            Case {
                name: "an argument that is too long",
                breakage: &|b| b.args(&["/bin/payload", &"x".repeat(8 << 20)]),
                pointer: "/process/args/1",
                words: &["8388608 bytes", "argument list too long"],
                hint: &["at most"],
            },
            Case {
                name: "cut off",
                breakage: &|b| with_program(b, &elf(native, None)[..80]),
                pointer: AT,
                words: &["exec format error"],
                hint: &["cut off"],
            },
            Case {
                name: "empty",
                breakage: &|b| with_program(b, b""),
                pointer: AT,
                words: &["exec format error"],
                hint: &["empty"],
            },
            Case {
                name: "text without #!",
                breakage: &|b| with_program(b, b"echo hello\n"),
                pointer: AT,
                words: &["exec format error"],
                hint: &["#! line"],
            },
            Case {
                name: "no interpreter",
                breakage: &|b| with_program(b, b"#!/bin/bash\n"),
                pointer: AT,
                words: &[enoent],
                hint: &["/bin/bash, is missing"],
            },
            Case {
                name: "an empty #! line",
                breakage: &|b| with_program(b, b"#!\n"),
                pointer: AT,
                words: &["exec format error"],
                hint: &["names no interpreter"],
            },
            Case {
                name: "CRLF",
                breakage: &|b| with_program(b, b"#!/bin/payload\r\n"),
                pointer: AT,
                words: &[enoent],
                hint: &["carriage return"],
            },
            Case {
                name: "a #! line that is too long",
                breakage: &|b| with_program(b, format!("#!/bin/{}\n", "x".repeat(300)).as_bytes()),
                pointer: AT,
                words: &["exec format error"],
                hint: &["256 bytes"],
            },
            Case {
                name: "an interpreter that isn't executable",
                breakage: &|b| with_program(b.file("bin/sh", "#!/bin/payload\n"), b"#!/bin/sh\n"),
                pointer: AT,
                words: &["permission denied"],
                hint: &["its interpreter /bin/sh", "chmod +x /bin/sh"],
            },
            Case {
                name: "an interpreter for another machine",
                breakage: &|b| {
                    let b = with_program(b, &elf(foreign, None));
                    fs::rename(b.rootfs().join("bin/tool"), b.rootfs().join("bin/sh")).unwrap();
                    with_program(b, b"#!/bin/sh\n")
                },
                pointer: AT,
                words: &["exec format error"],
                hint: &["its interpreter /bin/sh"],
            },
            Case {
                name: "on a noexec volume",
                breakage: &|b| {
                    b.bind(&volume, "/mnt", &["bind", "noexec"])
                        .args(&["/mnt/tool"])
                },
                pointer: AT,
                words: &["permission denied"],
                hint: &["noexec", "/mounts/7"],
            },
            Case {
                name: "hidden by a tmpfs",
                breakage: &|b| {
                    b.mount(json!({ "destination": "/bin", "type": "tmpfs", "source": "tmpfs" }))
                },
                pointer: AT,
                words: &[enoent],
                hint: &[],
            },
            Case {
                name: "a working directory that is a file",
                breakage: &|b| b.file("etc/passwd", "").set("/process/cwd", "/etc/passwd"),
                pointer: "/process/cwd",
                words: &["not a directory"],
                hint: &["directory"],
            },
        ],
    );
}

fn the_program_is_found_behind_links_layers_and_volumes(lab: &Lab) {
    let (layer, volume) = (lab.path("layer"), lab.path("volume"));
    for dir in [&layer, &volume] {
        fs::create_dir_all(dir.join("opt")).unwrap();
        fs::copy(lab.host_payload(), dir.join("opt/tool")).unwrap();
        symlink("/opt/tool", dir.join("link")).unwrap();
    }
    let lower = json!({ "run.husk.overlay.lower": layer.to_str().unwrap() });
    for bundle in [
        good(lab).link("usr", "/bin/..").args(&["/usr/bin/payload"]),
        good(lab).set("/process/cwd", "/bin").args(&["./payload"]),
        good(lab)
            .set("/annotations", lower.clone())
            .args(&["/link"]),
        good(lab)
            .bind(volume.join("opt"), "/opt", &["bind"])
            .args(&["/opt/tool"]),
        good(lab)
            .bind(volume.join("opt/tool"), "/bin/other", &["bind"])
            .args(&["other"]),
        // In what only the kernel knows it may be.
        good(lab).args(&["/proc/1/root/bin/payload"]),
    ] {
        assert_eq!(
            check(lab, &bundle),
            Vec::<Value>::new(),
            "{}",
            bundle.config["process"]["args"]
        );
    }
}

fn hooks_are_looked_at(lab: &Lab) {
    let dir = lab.path("hooks");
    fs::create_dir(&dir).unwrap();
    let hook = |name: &str, text: &str, mode: u32| {
        let path = dir.join(name);
        fs::write(&path, text).unwrap();
        set_mode(&path, mode);
        path.to_str().unwrap().to_owned()
    };
    let plain = hook("plain", "#!/bin/sh\n", 0o644);
    let crlf = hook("crlf", "#!/bin/sh\r\n", 0o755);
    let lost = hook("lost", "#!/no/such/sh\n", 0o755);
    let empty = hook("empty", "", 0o755);
    let text = hook("text", "echo\n", 0o755);
    let enoent = "no such file or directory";
    all_found(
        lab,
        &[
            Case {
                name: "missing",
                breakage: &|b| b.hook("prestart", &["/no/such/hook"]),
                pointer: "/hooks/prestart/0/path",
                words: &["/no/such/hook", enoent],
                hint: &["on the host"],
            },
            Case {
                name: "not executable",
                breakage: &|b| b.hook("createRuntime", &[&plain]),
                pointer: "/hooks/createRuntime/0/path",
                words: &["permission denied"],
                hint: &["chmod +x"],
            },
            Case {
                name: "CRLF",
                breakage: &|b| b.hook("createContainer", &[&crlf]),
                pointer: "/hooks/createContainer/0/path",
                words: &[enoent],
                hint: &["carriage return"],
            },
            Case {
                name: "no interpreter",
                breakage: &|b| b.hook("poststart", &[&lost]),
                pointer: "/hooks/poststart/0/path",
                words: &[enoent],
                hint: &["/no/such/sh"],
            },
            Case {
                name: "empty",
                breakage: &|b| b.hook("poststop", &[&empty]),
                pointer: "/hooks/poststop/0/path",
                words: &["exec format error"],
                hint: &["empty"],
            },
            Case {
                name: "no program",
                breakage: &|b| b.hook("poststop", &[&text]),
                pointer: "/hooks/poststop/0/path",
                words: &["exec format error"],
                hint: &["#! line"],
            },
            Case {
                name: "a directory",
                breakage: &|b| b.hook("poststop", &["/etc"]),
                pointer: "/hooks/poststop/0/path",
                words: &["is a directory"],
                hint: &["name a program"],
            },
        ],
    );
}

/// Another file of that name on the host is not this one.
fn hooks_of_the_container_are_looked_for_in_it(lab: &Lab) {
    const AT: &str = "/hooks/startContainer/0/path";
    let bundle = good(lab).hook("startContainer", &["/bin/payload"]);
    assert_eq!(check(lab, &bundle), Vec::<Value>::new());
    all_found(
        lab,
        &[
            Case {
                name: "missing",
                breakage: &|b| b.hook("startContainer", &["/bin/ls"]),
                pointer: AT,
                words: &["hook /bin/ls", "no such file or directory"],
                hint: &["isn't in the root filesystem"],
            },
            Case {
                name: "no x bit",
                breakage: &|b| {
                    b.file("bin/hook", "#!/bin/payload\n")
                        .hook("startContainer", &["/bin/hook"])
                },
                pointer: AT,
                words: &["permission denied"],
                hint: &["chmod +x /bin/hook"],
            },
        ],
    );
}

fn run_tells_why_a_program_can_not_be_executed(lab: &Lab) {
    let volume = lab.path("volume");
    fs::create_dir(&volume).unwrap();
    fs::copy(lab.host_payload(), volume.join("tool")).unwrap();
    let native = if cfg!(target_arch = "x86_64") {
        62
    } else {
        183
    };
    for (breakage, words) in [
        (
            &(|b: Bundle| {
                b.bind(&volume, "/mnt", &["bind", "noexec"])
                    .args(&["/mnt/tool"])
            }) as &dyn Fn(Bundle) -> Bundle,
            "permission denied\nhint: it lies on a mount that is noexec: /mounts/7",
        ),
        (
            &|b: Bundle| with_program(b, b"#!/etc\n"),
            "its interpreter /etc: name a program, not a directory",
        ),
        (
            &|b: Bundle| with_program(b.executable("bin/sh", "#!/no/such\n"), b"#!/bin/sh\n"),
            "the interpreter /bin/sh of its #! line: the interpreter /no/such of its #! line is missing",
        ),
        (
            &|b: Bundle| {
                let b = b.executable("bin/ld.so", &"text".repeat(40));
                with_program(b, &elf(native, Some("/bin/ld.so")))
            },
            "shared library\nhint: its loader /bin/ld.so is no ELF file",
        ),
        (
            &|b: Bundle| {
                let limit = json!({ "type": "RLIMIT_NOFILE", "soft": 64, "hard": 1u64 << 40 });
                b.set("/process/rlimits/0", limit)
            },
            "more than fs.nr_open, ",
        ),
        (
            &|b: Bundle| {
                b.dir("empty")
                    .set("/root/path", "rootfs/empty")
                    .args(&["payload"])
            },
            "hint: none of the directories of $PATH has a file: is the image in",
        ),
    ] {
        let output = lab.run(&breakage(good(lab))).code(1);
        assert!(output.stderr.contains(words), "{words}: {output}");
        assert!(output.stderr.lines().count() <= 2, "{output}");
    }
}

fn a_program_that_somebody_writes_is_told(lab: &Lab) {
    let bundle = with_program(good(lab), b"");
    let path = bundle.rootfs().join("bin/tool");
    fs::copy(lab.host_payload(), &path).unwrap();
    let writer = fs::File::options().append(true).open(&path).unwrap();
    let output = lab.run(&bundle).code(1);
    assert!(output.stderr.contains("text file busy\nhint: "), "{output}");
    assert!(output.stderr.contains("open for writing"), "{output}");
    drop(writer);
}

/// The caller of start and the log hear it, not only the container's standard error.
fn start_tells_what_execve_stumbles_over(lab: &Lab) {
    for (program, words) in [
        (
            &b"#!/bin/bash\n"[..],
            "the interpreter /bin/bash of its #! line is missing",
        ),
        (b"#!/bin/payload\r\n", "carriage return"),
        (b"echo\n", "neither an ELF program nor a script"),
        (b"", "the file is empty"),
        (&elf(4, None), "it is for m68k"),
        (
            &elf(
                if cfg!(target_arch = "x86_64") {
                    62
                } else {
                    183
                },
                Some("/lib/ld-x.so"),
            ),
            "its loader /lib/ld-x.so is missing",
        ),
    ] {
        let bundle = with_program(good(lab), program);
        let (id, log) = (lab.id(), lab.path("log"));
        let globals = ["--log", log.to_str().unwrap(), "--log-format", "json"];
        lab.on_bundle("create", &bundle, &[], &id).run().ok();
        let output = lab.runtime(["start", &id]).global(&globals).run().code(1);
        assert!(output.stderr.contains(words), "{output}");
        let logged = fs::read_to_string(&log).unwrap();
        let entry: Value = serde_json::from_str(&logged).unwrap();
        assert!(entry["msg"].as_str().unwrap().contains(words), "{logged}");
        lab.runtime(["delete", "--force", &id]).run().ok();
    }
}
