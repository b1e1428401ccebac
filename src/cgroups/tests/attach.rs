use std::os::fd::AsFd;

use super::*;
use crate::sys::bpf;

/// Opens in the cgroup, as the kernel decides.
fn opens(cgroup: &Cgroup, device: &str, redirect: &str) -> bool {
    let script = format!("(exec 3{redirect}{device}) 2>/dev/null && echo yes || echo no");
    go(spawn_in(cgroup, &script)) == "yes\n"
}

#[test]
fn the_kernel_asks_the_device_program() {
    let Some((hierarchy, top)) = tree() else {
        return;
    };
    let cgroup = hierarchy.survey(&top.join("one")).unwrap().make().unwrap();
    let confine = |json: &str| {
        let resources = serde_json::from_str(json).unwrap();
        let plan = plan(Some(&resources), None, Devices::Confine, "").unwrap();
        plan.devices.unwrap()
    };
    let attached = |cgroup: &Cgroup| bpf::attached_devices(cgroup.fd()).unwrap();
    assert!(opens(&cgroup, "/dev/kmsg", "<"));
    let first = match cgroup.attach_devices(&confine("{}"), None) {
        Err(error) if error.code() == Some(nix::errno::Errno::EPERM) => {
            eprintln!("SKIPPED: {error}");
            return cgroup.place().remove().unwrap();
        }
        first => first.unwrap(),
    };
    assert!(opens(&cgroup, "/dev/null", "<>"));
    assert!(opens(&cgroup, "/dev/zero", "<"));
    assert!(!opens(&cgroup, "/dev/kmsg", "<"));
    let one = attached(&cgroup);
    assert_eq!(one.len(), 1);

    // The same program again isn't loaded again, also after its record was written and read.
    let json = serde_json::to_string(&first).unwrap();
    let known = serde_json::from_str(&json).unwrap();
    let other = hierarchy.survey(&top.join("two")).unwrap().make().unwrap();
    let second = other.attach_devices(&confine("{}"), Some(&known)).unwrap();
    assert_eq!(second, first);
    assert_eq!(attached(&other), one);
    other.place().remove().unwrap();

    // Another one takes its place, and later rules win in the kernel too.
    let kmsg = r#"{"devices":[{"allow":false},{"allow":true,"type":"c","major":1,"minor":11,"access":"r"}]}"#;
    let found = Cgroup::open(cgroup.place()).unwrap().unwrap();
    let third = found.attach_devices(&confine(kmsg), Some(&known)).unwrap();
    assert_ne!(third, first);
    let two = attached(&found);
    assert!(two.len() == 1 && two != one, "{one:?} {two:?}");
    assert!(opens(&cgroup, "/dev/kmsg", "<"));
    assert!(!opens(&cgroup, "/dev/kmsg", "<>"));
    // What is gone, or whose number another one has by now, is loaded anew.
    for (field, value) in [("id", u64::from(u32::MAX)), ("load_time", 1)] {
        let mut stale = serde_json::to_value(&first).unwrap();
        stale[field] = value.into();
        let stale = serde_json::from_value(stale).unwrap();
        let fourth = found.attach_devices(&confine("{}"), Some(&stale)).unwrap();
        assert!(fourth != first && fourth != stale, "{fourth:?}");
        assert_eq!(attached(&found).len(), 1);
    }
    assert!(!opens(&cgroup, "/dev/kmsg", "<"));
    cgroup.place().remove().unwrap();
}

/// Every shape that the compiler makes passes the verifier.
#[test]
fn the_verifier_takes_what_is_emitted() {
    if !Uid::effective().is_root() {
        eprintln!("SKIPPED: needs root");
        return;
    }
    let lists = [
        r#"[]"#,
        r#"[{"allow":true},{"allow":false,"type":"b"}]"#,
        r#"[{"allow":true},{"allow":false,"access":"w"}]"#,
        r#"[{"allow":true,"type":"b"},{"allow":false,"major":8,"access":"rw"},{"allow":true,"type":"b","major":8,"minor":1,"access":"r"}]"#,
        r#"[{"allow":true,"type":"c"},{"allow":true,"type":"b","access":"r"}]"#,
        r#"[{"allow":true,"minor":4294967295},{"allow":false,"major":4294967295}]"#,
        r#"[{"allow":true,"type":"c","major":1},{"allow":true,"type":"c","major":1,"minor":3},{"allow":true,"type":"c"}]"#,
    ];
    for list in lists {
        let rules: Vec<_> = serde_json::from_str(list).unwrap();
        let program = devices::compile(&rules, "").unwrap().unwrap();
        match bpf::load_device(program.instructions(), c"husk_test", None) {
            Ok(fd) => assert!(bpf::info(fd.as_fd()).unwrap().has_name(c"husk_test")),
            Err(nix::errno::Errno::EPERM) => return eprintln!("SKIPPED: not permitted"),
            Err(errno) => {
                let mut log = vec![0; 1 << 16];
                let _ = bpf::load_device(program.instructions(), c"husk_test", Some(&mut log));
                panic!("{list}: {errno}\n{}", String::from_utf8_lossy(&log));
            }
        }
    }
}
