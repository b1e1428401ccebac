//! AppArmor and SELinux: what confines the program, and what is refused where it couldn't.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::json;

use super::tests;
use crate::lab::Lab;
use crate::need::Need;
use crate::output::End;

tests! {
    a_profile_confines_the_program.needs(&[Need::AppArmor]),
    a_profile_confines_exec_too.needs(&[Need::AppArmor]),
    exec_apparmor_takes_another_profile.needs(&[Need::AppArmor]),
    crun_2063_a_profile_confines_in_a_user_namespace.needs(&[Need::AppArmor]),
    a_profile_confines_hooks_that_run_inside.needs(&[Need::AppArmor, Need::Husk]),
    a_confined_caller_with_no_new_privileges_stacks.needs(&[Need::AppArmor, Need::Husk]),
    a_profile_that_is_not_loaded_is_told_at_create.needs(&[Need::AppArmor, Need::Husk]),
    cve_2025_52881_what_lies_over_a_label_is_not_written.needs(&[Need::AppArmor]),
    cve_2019_16884_an_image_without_a_real_proc_gets_no_write.needs(&[Need::AppArmor, Need::Husk]),
    a_label_without_its_module_is_refused.needs(&[Need::Husk]),
    an_empty_label_is_none,
    a_mount_label_without_selinux_means_nothing,
}

/// A loaded profile that allows everything but what `/etc/secret` says.
struct Profile(String);

impl Profile {
    fn load(name: &str) -> Profile {
        let profile = Profile(format!("husk-suite-{}-{name}", std::process::id()));
        profile.parse("--replace");
        profile
    }

    fn parse(&self, how: &str) {
        let text = format!(
            "profile {} flags=(attach_disconnected,mediate_deleted) {{\n\
             file,\ncapability,\nnetwork,\nmount,\numount,\npivot_root,\nsignal,\nptrace,\nunix,\n\
             change_profile,\ndeny /etc/secret rwlk,\n}}\n",
            self.0
        );
        let mut parser = Command::new("apparmor_parser")
            .args([how, "--skip-cache"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        use std::io::Write;
        let mut stdin = parser.stdin.take().unwrap();
        stdin.write_all(text.as_bytes()).unwrap();
        drop(stdin);
        assert!(parser.wait().unwrap().success(), "apparmor_parser {how}");
    }

    fn enforced(&self) -> String {
        format!("{} (enforce)", self.0)
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        self.parse("--remove");
    }
}

const PROBE: &str = "facts -- cat /etc/secret -- cat /etc/open";

#[track_caller]
fn assert_confined(lines: &[serde_json::Value], label: &str) {
    assert_eq!(lines[0]["apparmor"], label);
    assert_eq!(lines[1], json!({"error": "EACCES"}));
    assert_eq!(lines[2], "open");
}

fn files(lab: &Lab) -> crate::bundle::Bundle {
    lab.bundle()
        .file("etc/secret", "secret")
        .file("etc/open", "open")
}

fn a_profile_confines_the_program(lab: &Lab) {
    let profile = Profile::load("run");
    for no_new_privileges in [true, false] {
        let bundle = files(lab)
            .set("/process/noNewPrivileges", no_new_privileges)
            .set("/process/apparmorProfile", profile.0.as_str());
        assert_confined(&lab.ask(bundle, PROBE), &profile.enforced());
    }
    // For another user, too: the profile is asked for before the change.
    let bundle = files(lab)
        .set("/process/user/uid", 1000)
        .set("/process/apparmorProfile", profile.0.as_str());
    assert_confined(&lab.ask(bundle, PROBE), &profile.enforced());
}

fn a_profile_confines_exec_too(lab: &Lab) {
    let profile = Profile::load("exec");
    let bundle = files(lab)
        .payload("pause")
        .set("/process/apparmorProfile", profile.0.as_str());
    let container = lab.start(&bundle);
    assert_confined(&container.ask(PROBE), &profile.enforced());
    container.end();
}

fn exec_apparmor_takes_another_profile(lab: &Lab) {
    let profile = Profile::load("option");
    let container = lab.start(&files(lab).payload("pause"));
    let open = container.ask(PROBE);
    assert_eq!(open[1], "secret");
    let words = format!("/bin/payload {PROBE}");
    let confined = container
        .exec_with(&["--apparmor", &profile.0], &words)
        .run()
        .ok()
        .lines();
    assert_confined(&confined, &profile.enforced());
    let unknown = container
        .exec_with(&["--apparmor", "husk-no-such"], &words)
        .run();
    assert!(
        unknown.stderr.contains("/process/apparmorProfile"),
        "{unknown}"
    );
    container.end();
}

/// Masks in /proc keep it from a procfs of its own: the container's is used.
fn crun_2063_a_profile_confines_in_a_user_namespace(lab: &Lab) {
    let profile = Profile::load("userns");
    let bundle = files(lab)
        .payload(&format!("{PROBE} -- pause"))
        .user_namespace(100_000, 65_536)
        .set("/linux/maskedPaths", json!(["/proc/kcore", "/proc/sys"]))
        .set("/process/apparmorProfile", profile.0.as_str());
    let container = lab.start(&bundle);
    assert_confined(&container.wait_for_lines(3), &profile.enforced());
    assert_confined(&container.ask(PROBE), &profile.enforced());
    container.end();
}

/// They are programs of the image.
fn a_profile_confines_hooks_that_run_inside(lab: &Lab) {
    let profile = Profile::load("hook");
    let write = |path| ["/bin/payload", "write", path, "changed"];
    let bundle = files(lab)
        .writable()
        .hook("startContainer", &write("/etc/secret"))
        .hook("startContainer", &write("/etc/open"))
        .set("/process/apparmorProfile", profile.0.as_str());
    let etc = bundle.rootfs().join("etc");
    lab.facts(&bundle);
    assert_eq!(fs::read_to_string(etc.join("open")).unwrap(), "changed");
    assert_eq!(fs::read_to_string(etc.join("secret")).unwrap(), "secret");
}

fn a_confined_caller_with_no_new_privileges_stacks(lab: &Lab) {
    let outer = Profile::load("outer");
    let inner = Profile::load("inner");
    fs::write("/proc/self/attr/apparmor/exec", format!("exec {}", outer.0)).unwrap();
    let bundle = files(lab)
        .set("/process/noNewPrivileges", true)
        .set("/process/apparmorProfile", inner.0.as_str());
    let lines = lab.ask(bundle, PROBE);
    let label = lines[0]["apparmor"].as_str().unwrap();
    assert!(
        label.contains(&inner.0) && label.contains(&outer.0),
        "{label}"
    );
    assert_eq!(lines[1], json!({"error": "EACCES"}));
}

fn a_profile_that_is_not_loaded_is_told_at_create(lab: &Lab) {
    let bundle = lab
        .bundle()
        .set("/process/apparmorProfile", "husk-no-such-profile");
    lab.on_bundle("create", &bundle, &[], "none")
        .run()
        .refused()
        .says("husk-no-such-profile (/process/apparmorProfile)")
        .says("no such file or directory")
        .hints("apparmor_parser");
}

/// There is nothing at /proc but the image's own files: the write still goes to the kernel.
fn cve_2019_16884_an_image_without_a_real_proc_gets_no_write(lab: &Lab) {
    let profile = Profile::load("proc");
    let bundle = files(lab)
        .file("proc/thread-self", "1/task/1")
        .file("proc/1/task/1/attr/apparmor/exec", "")
        .file("proc/1/task/1/attr/exec", "")
        .only_mounts(&["/dev"])
        .set("/linux/maskedPaths", json!([]))
        .set("/linux/readonlyPaths", json!([]))
        .set("/process/apparmorProfile", profile.0.as_str());
    let rootfs = bundle.rootfs();
    let lines = lab.ask(bundle, PROBE);
    assert_eq!(lines[1], json!({"error": "EACCES"}));
    let written = fs::read_to_string(rootfs.join("proc/1/task/1/attr/apparmor/exec")).unwrap();
    assert_eq!(written, "");
}

/// A racing container's mount, and here a hook's, which wins every time: the label holds, or the start fails.
fn cve_2025_52881_what_lies_over_a_label_is_not_written(lab: &Lab) {
    let profile = Profile::load("over");
    let fake = lab.path("fake");
    fs::write(&fake, "canary").unwrap();
    let bundle = files(lab).set("/process/apparmorProfile", profile.0.as_str());
    let proc = bundle.rootfs().join("proc/1");
    let script = format!(
        "for f in attr task/1/attr; do for g in exec apparmor/exec; do \
         mount --bind {} {}/$f/$g; done; done",
        fake.display(),
        proc.display()
    );
    let bundle = bundle.hook("createContainer", &["/bin/sh", "-c", &script]);
    let output = lab.run(&bundle.payload(PROBE));
    assert_eq!(fs::read_to_string(&fake).unwrap(), "canary");
    if output.end == End::Code(0) {
        assert_eq!(output.lines()[1], json!({"error": "EACCES"}), "{output}");
    }
    if lab.is_husk() {
        output.ok();
    }
}

fn is_on(path: &str) -> bool {
    std::path::Path::new(path).exists()
}

/// A program without its confinement is not what was asked for.
fn a_label_without_its_module_is_refused(lab: &Lab) {
    let container = lab.start(&lab.bundle().payload("pause"));
    for (pointer, option, module, there) in [
        (
            "/process/apparmorProfile",
            "--apparmor",
            "AppArmor",
            fs::read_to_string("/sys/module/apparmor/parameters/enabled")
                .is_ok_and(|enabled| enabled.starts_with('Y')),
        ),
        (
            "/process/selinuxLabel",
            "--process-label",
            "SELinux",
            is_on("/sys/fs/selinux/enforce"),
        ),
    ] {
        if there {
            continue;
        }
        let bundle = lab.bundle().set(pointer, "u:r:t:s0");
        lab.run(&bundle)
            .refused()
            .says(pointer)
            .says(&format!("{module} is not enabled on this host"))
            .hints("leave");
        let output = container
            .exec_with(&[option, "u:r:t:s0"], "/bin/payload facts")
            .run();
        assert!(output.stderr.contains(pointer), "{output}");
        assert!(output.stdout.is_empty(), "{output}");
    }
    container.end();
}

fn an_empty_label_is_none(lab: &Lab) {
    let bundle = lab
        .bundle()
        .set("/process/apparmorProfile", "")
        .set("/process/selinuxLabel", "")
        .set("/linux/mountLabel", "");
    lab.facts(&bundle);
}

/// As the specification's own validation has it on every host.
fn a_mount_label_without_selinux_means_nothing(lab: &Lab) {
    if is_on("/sys/fs/selinux/enforce") {
        return;
    }
    let bundle = lab.bundle().set(
        "/linux/mountLabel",
        "system_u:object_r:svirt_sandbox_file_t:s0:c715,c811",
    );
    lab.facts(&bundle);
}
