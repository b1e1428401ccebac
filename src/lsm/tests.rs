use std::fs;
use std::path::PathBuf;

use super::*;

/// A stand-in for `/proc/thread-self`, whose files keep what was written last.
struct Own(PathBuf);

impl Own {
    fn new(name: &str, files: &[(&str, &str)]) -> Own {
        let dir = std::env::temp_dir().join(format!("husk-lsm-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("attr")).unwrap();
        for (path, text) in files {
            let file = dir.join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        Own(dir)
    }

    fn open(&self) -> OwnedFd {
        fs::File::open(&self.0).unwrap().into()
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.0.join(path)).unwrap()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn labels(apparmor: Option<&str>, selinux: Option<&str>) -> Labels {
    Labels {
        apparmor: apparmor.map(str::to_owned),
        selinux: selinux.map(str::to_owned),
    }
}

fn applied(own: &Own, labels: &Labels, no_new_privileges: bool) -> Result<()> {
    labels.apply(own.open().as_fd(), no_new_privileges)
}

#[test]
fn apparmor_has_a_file_of_its_own_or_the_shared_one() {
    let files = [
        ("attr/apparmor/exec", ""),
        ("attr/apparmor/current", "unconfined\n"),
        ("attr/exec", ""),
    ];
    let profile = labels(Some("small"), None);
    let own = Own::new("own", &files);
    applied(&own, &profile, true).unwrap();
    assert_eq!(own.read("attr/apparmor/exec"), "exec small");
    assert_eq!(own.read("attr/exec"), "");
    let own = Own::new(
        "shared",
        &[("attr/exec", ""), ("attr/current", "unconfined\n")],
    );
    applied(&own, &profile, true).unwrap();
    assert_eq!(own.read("attr/exec"), "exec small");
    let own = Own::new("neither", &[]);
    let error = applied(&own, &profile, true).unwrap_err();
    assert_eq!(error.pointer(), Some("/process/apparmorProfile"));
}

/// With no_new_privs the kernel lets nobody out of a profile: the new one comes on top.
#[test]
fn a_profile_is_stacked_only_on_a_profile_and_with_no_new_privs() {
    let profile = labels(Some("small"), None);
    for (current, no_new_privileges, expected) in [
        ("unconfined\n", true, "exec small"),
        ("outer (enforce)\n", true, "stack small"),
        ("outer (complain)\n", true, "stack small"),
        ("outer (enforce)\n", false, "exec small"),
        ("crun (unconfined)\n", true, "exec small"),
        ("crun//&unconfined (unconfined)\n", true, "exec small"),
    ] {
        let files = [
            ("attr/apparmor/exec", ""),
            ("attr/apparmor/current", current),
        ];
        let own = Own::new("stack", &files);
        applied(&own, &profile, no_new_privileges).unwrap();
        assert_eq!(own.read("attr/apparmor/exec"), expected, "{current}");
    }
}

#[test]
fn selinux_labels_the_program_and_the_keyring_but_no_later_key() {
    let own = Own::new("selinux", &[("attr/exec", ""), ("attr/keycreate", "")]);
    let labels = labels(None, Some("u:r:t:s0"));
    labels.begin_keys(own.open().as_fd()).unwrap();
    assert_eq!(own.read("attr/keycreate"), "u:r:t:s0");
    fs::write(own.0.join("attr/keycreate"), "").unwrap();
    labels.end_keys(own.open().as_fd()).unwrap();
    assert_eq!(own.read("attr/keycreate"), "\n");
    applied(&own, &labels, false).unwrap();
    assert_eq!(own.read("attr/exec"), "u:r:t:s0");
}

/// An image that mounts or links something over the attribute gets no write into it.
#[test]
fn cve_2019_16884_and_2025_52881_attributes_are_no_links() {
    let own = Own::new(
        "link",
        &[("elsewhere", ""), ("attr/current", "unconfined\n")],
    );
    std::os::unix::fs::symlink("../elsewhere", own.0.join("attr/exec")).unwrap();
    for labels in [labels(Some("small"), None), labels(None, Some("u:r:t:s0"))] {
        let error = applied(&own, &labels, false).unwrap_err();
        assert_eq!(error.code(), Some(Errno::ELOOP));
        assert_eq!(own.read("elsewhere"), "");
    }
}

#[test]
fn what_the_kernel_lacks_is_refused() {
    let none = Modules {
        apparmor: false,
        selinux: false,
    };
    let profile = labels(Some("small"), None).for_kernel(none).unwrap_err();
    assert_eq!(profile.pointer(), Some("/process/apparmorProfile"));
    assert!(profile.to_string().contains("AppArmor is not enabled"));
    assert!(profile.remedy().is_some());
    let label = labels(None, Some("u:r:t:s0")).for_kernel(none).unwrap_err();
    assert_eq!(label.pointer(), Some("/process/selinuxLabel"));
    let both = Modules {
        apparmor: true,
        selinux: true,
    };
    let unconfined = labels(Some("unconfined"), None);
    assert!(unconfined.for_kernel(none).unwrap().is_empty());
    labels(Some("small"), Some("u:r:t:s0"))
        .for_kernel(both)
        .unwrap();
}

#[test]
fn empty_text_is_no_label() {
    let raw = br#"{"cwd": "/", "args": ["x"], "apparmorProfile": "", "selinuxLabel": ""}"#;
    let (process, _) = crate::bundle::parse_process(raw).unwrap();
    let labels = Labels::plan(&process).unwrap();
    assert!(labels.is_empty() && !labels.has_key_label());
}
