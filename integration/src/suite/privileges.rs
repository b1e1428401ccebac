//! What the process may do: capabilities, no_new_privs, limits, scores.

use std::fs;

use serde_json::{Value, json};

use super::tests;
use crate::bundle::Bundle;
use crate::lab::Lab;
use crate::need::Need;

tests! {
    a_capability_counts_for_the_program_itself,
    every_capability_set_is_as_configured,
    without_capabilities_there_are_none,
    a_user_without_ambient_capabilities_has_none,
    ambient_capabilities_survive_execve,
    ambient_capabilities_that_are_not_inheritable_are_a_warning.needs(&[Need::Husk]),
    capabilities_that_cannot_be_ambient_are_told_in_one_line.needs(&[Need::Husk]),
    the_bounding_set_binds,
    an_unknown_capability_is_a_warning,
    no_new_privileges_is_set_or_not,
    rlimits_are_set,
    every_rlimit_can_be_lowered,
    rlimits_can_be_raised.needs(&[Need::SysResource]),
    rlimits_can_be_raised_in_a_user_namespace.needs(&[Need::SysResource, Need::Program("prlimit")]),
    oom_score_adj_is_set,
    oom_score_adj_is_left_alone_when_absent,
    affinity_is_that_of_the_cgroup_not_of_the_caller,
}

fn every_capability_set_is_as_configured(lab: &Lab) {
    let caps = json!({
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_NET_RAW"],
        "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
        "effective": ["CAP_CHOWN", "CAP_KILL"],
        "inheritable": ["CAP_KILL", "CAP_NET_RAW"],
        "ambient": ["CAP_KILL"],
    });
    // As another user than root, so that execve doesn't give root's.
    let bundle = lab
        .bundle()
        .set("/process/capabilities", caps)
        .set("/process/user/uid", 1000);
    let caps = &lab.facts(&bundle)["caps"];
    assert_eq!(
        caps["bounding"],
        json!(["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_NET_RAW"])
    );
    assert_eq!(caps["inheritable"], json!(["CAP_KILL", "CAP_NET_RAW"]));
    assert_eq!(caps["ambient"], json!(["CAP_KILL"]));
    assert_eq!(caps["permitted"], json!(["CAP_KILL"]));
    assert_eq!(caps["effective"], json!(["CAP_KILL"]));
}

const SETS: [&str; 5] = [
    "bounding",
    "effective",
    "permitted",
    "inheritable",
    "ambient",
];

fn without_capabilities_there_are_none(lab: &Lab) {
    for bundle in [
        lab.bundle().remove("/process/capabilities"),
        lab.bundle().set("/process/capabilities", json!({})),
    ] {
        let caps = &lab.facts(&bundle)["caps"];
        SETS.iter()
            .for_each(|set| assert_eq!(caps[set], json!([]), "{set}"));
    }
}

/// CVE-2016-8867.
fn a_user_without_ambient_capabilities_has_none(lab: &Lab) {
    let bundle = lab
        .bundle()
        .capabilities(&["CAP_KILL", "CAP_CHOWN"])
        .set("/process/user/uid", 1000);
    let caps = &lab.facts(&bundle)["caps"];
    for set in ["effective", "permitted", "inheritable", "ambient"] {
        assert_eq!(caps[set], json!([]), "{set}");
    }
    assert_eq!(caps["bounding"], json!(["CAP_CHOWN", "CAP_KILL"]));
}

fn ambient_capabilities_survive_execve(lab: &Lab) {
    let mut bundle = lab.bundle().set("/process/user/uid", 1000);
    for set in SETS {
        bundle = bundle.set(
            &format!("/process/capabilities/{set}"),
            json!(["CAP_NET_BIND_SERVICE"]),
        );
    }
    let caps = &lab.facts(&bundle)["caps"];
    SETS.iter()
        .for_each(|set| assert_eq!(caps[set], json!(["CAP_NET_BIND_SERVICE"]), "{set}"));
}

/// On standard error, and not in a log file, which engines read for errors.
fn ambient_capabilities_that_are_not_inheritable_are_a_warning(lab: &Lab) {
    let bundle = lab
        .bundle()
        .set("/process/user/uid", 1000)
        .set(
            "/process/capabilities/bounding",
            json!(["CAP_KILL", "CAP_CHOWN"]),
        )
        .set(
            "/process/capabilities/permitted",
            json!(["CAP_KILL", "CAP_CHOWN"]),
        )
        .set("/process/capabilities/inheritable", json!(["CAP_KILL"]))
        .set(
            "/process/capabilities/ambient",
            json!(["CAP_KILL", "CAP_CHOWN"]),
        );
    let words = "can't raise ambient capability CAP_CHOWN: ";
    let output = lab.run(&bundle).ok();
    assert_eq!(output.line()["caps"]["ambient"], json!(["CAP_KILL"]));
    assert!(output.stderr.contains(words), "{output}");
    let log = lab.path("log");
    let quiet = lab
        .run_with(&bundle, &[])
        .global(&["--log", log.to_str().unwrap()])
        .run()
        .ok();
    assert_eq!(quiet.stderr, "");
    assert!(fs::read_to_string(&log).unwrap().contains(words));
}

/// What podman builds with: every capability ambient, none inheritable.
fn capabilities_that_cannot_be_ambient_are_told_in_one_line(lab: &Lab) {
    let all = json!(["CAP_KILL", "CAP_CHOWN", "CAP_FOWNER"]);
    let mut bundle = lab.bundle();
    for set in ["bounding", "effective", "permitted", "ambient"] {
        bundle = bundle.set(&format!("/process/capabilities/{set}"), all.clone());
    }
    let bundle = bundle.set("/process/capabilities/inheritable", json!([]));
    let output = lab.run(&bundle).ok();
    assert_eq!(output.line()["caps"]["ambient"], json!([]));
    let words = "can't raise ambient capabilities CAP_CHOWN, CAP_FOWNER, CAP_KILL: ";
    assert!(output.stderr.contains(words), "{output}");
    assert_eq!(output.stderr.lines().count(), 1, "{output}");
}

fn the_bounding_set_binds(lab: &Lab) {
    let bundle = lab.bundle().writable().capabilities(&["CAP_KILL"]);
    let answers = lab.ask(
        bundle,
        "create /x y -- chown /x 5 5 -- mknod /y c 1 3 -- syscall 170 s:name 4",
    );
    assert_eq!(answers[0], true);
    answers[1..]
        .iter()
        .for_each(|a| assert_eq!(a["error"], "EPERM", "{answers:?}"));
}

fn an_unknown_capability_is_a_warning(lab: &Lab) {
    let bundle = lab
        .bundle()
        .capabilities(&["CAP_KILL", "CAP_NO_SUCH_THING"]);
    let output = lab.run(&bundle).ok();
    assert_eq!(output.line()["caps"]["effective"], json!(["CAP_KILL"]));
}

fn no_new_privileges_is_set_or_not(lab: &Lab) {
    for (given, expected) in [(true, 1), (false, 0)] {
        let facts = lab.facts(&lab.bundle().set("/process/noNewPrivileges", given));
        assert_eq!(facts["nnp"], expected);
    }
}

fn rlimits(bundle: Bundle, limits: &[(&str, u64, u64)]) -> Bundle {
    let limits: Vec<Value> = limits
        .iter()
        .map(|(kind, soft, hard)| json!({ "type": kind, "soft": soft, "hard": hard }))
        .collect();
    bundle.set("/process/rlimits", limits)
}

fn rlimits_are_set(lab: &Lab) {
    let facts = lab.facts(&rlimits(
        lab.bundle(),
        &[("RLIMIT_NOFILE", 100, 200), ("RLIMIT_CORE", 0, 0)],
    ));
    assert_eq!(
        facts["rlimits"]["RLIMIT_NOFILE"],
        json!({ "soft": 100, "hard": 200 })
    );
    assert_eq!(
        facts["rlimits"]["RLIMIT_CORE"],
        json!({ "soft": 0, "hard": 0 })
    );
}

fn every_rlimit_can_be_lowered(lab: &Lab) {
    let all = [
        "RLIMIT_AS",
        "RLIMIT_CORE",
        "RLIMIT_CPU",
        "RLIMIT_DATA",
        "RLIMIT_FSIZE",
        "RLIMIT_LOCKS",
        "RLIMIT_MEMLOCK",
        "RLIMIT_MSGQUEUE",
        "RLIMIT_NICE",
        "RLIMIT_NOFILE",
        "RLIMIT_NPROC",
        "RLIMIT_RSS",
        "RLIMIT_RTPRIO",
        "RLIMIT_RTTIME",
        "RLIMIT_SIGPENDING",
        "RLIMIT_STACK",
    ];
    let now = lab.facts(&lab.bundle());
    let limits: Vec<(&str, u64, u64)> = all
        .iter()
        .map(|kind| {
            let hard = now["rlimits"][kind]["hard"].as_u64().unwrap().min(1 << 30);
            (*kind, hard / 2, hard)
        })
        .collect();
    let facts = lab.facts(&rlimits(lab.bundle(), &limits));
    for (kind, soft, hard) in limits {
        assert_eq!(
            facts["rlimits"][kind],
            json!({ "soft": soft, "hard": hard }),
            "{kind}"
        );
    }
}

fn rlimits_can_be_raised(lab: &Lab) {
    let limits = [("RLIMIT_NOFILE", 1 << 19, 1 << 20), ("RLIMIT_NICE", 30, 40)];
    let facts = lab.facts(&rlimits(lab.bundle(), &limits));
    assert_eq!(
        facts["rlimits"]["RLIMIT_NOFILE"],
        json!({ "soft": 1 << 19, "hard": 1 << 20 })
    );
    assert_eq!(
        facts["rlimits"]["RLIMIT_NICE"],
        json!({ "soft": 30, "hard": 40 })
    );
}

/// No privilege in there is enough: what engines ask for as a matter of course is above what systemd
/// gives to those who start them.
fn rlimits_can_be_raised_in_a_user_namespace(lab: &Lab) {
    let limit = json!([{ "type": "RLIMIT_NOFILE", "soft": 2000, "hard": 3000 }]);
    let bundle = || {
        let bundle = lab.bundle().user_namespace(100_000, 65536);
        bundle.set("/process/rlimits", limit.clone())
    };
    let low = ["prlimit", "--nofile=1000:1500"];
    let init = lab.run_with(&bundle(), &[]).through(&low).run();
    let container = lab.start(&bundle().payload("pause"));
    let exec = container.exec_with(&[], "/bin/payload facts");
    for facts in [init, exec.through(&low).run()] {
        assert_eq!(
            facts.ok().line()["rlimits"]["RLIMIT_NOFILE"],
            json!({ "soft": 2000, "hard": 3000 })
        );
    }
    container.end();
}

fn oom_score_adj_is_set(lab: &Lab) {
    for value in [0, 1, 500, 1000] {
        let facts = lab.facts(&lab.bundle().set("/process/oomScoreAdj", value));
        assert_eq!(facts["oom_score_adj"], value);
    }
}

fn oom_score_adj_is_left_alone_when_absent(lab: &Lab) {
    fs::write("/proc/self/oom_score_adj", "300").unwrap();
    assert_eq!(lab.facts(&lab.bundle())["oom_score_adj"], 300);
}

fn affinity_is_that_of_the_cgroup_not_of_the_caller(lab: &Lab) {
    let mut one = nix::sched::CpuSet::new();
    one.set(0).unwrap();
    let all = lab.facts(&lab.bundle())["scheduler"]["cpus"].clone();
    nix::sched::sched_setaffinity(nix::unistd::Pid::this(), &one).unwrap();
    let facts = lab.facts(&lab.bundle());
    if lab.is_husk() {
        assert_eq!(facts["scheduler"]["cpus"], all);
    }
}

/// With CAP_DAC_OVERRIDE a user may execute what only its owner may.
fn a_capability_counts_for_the_program_itself(lab: &Lab) {
    let bundle = || {
        let bundle = lab.bundle().executable("bin/own", "#!/bin/payload exit\n");
        crate::bundle::set_mode(&bundle.rootfs().join("bin/own"), 0o700);
        bundle.args(&["/bin/own"]).set(
            "/process/user",
            serde_json::json!({ "uid": 1000, "gid": 1000 }),
        )
    };
    let output = lab.run(&bundle()).code(1);
    assert!(output.stderr.contains("permission denied"), "{output}");
    let output = lab.run(&bundle().capabilities(&["CAP_DAC_OVERRIDE"]));
    assert!(!output.stderr.contains("permission denied"), "{output}");
    let filtered = bundle()
        .capabilities(&["CAP_DAC_OVERRIDE"])
        .set("/process/noNewPrivileges", false)
        .set(
            "/linux/seccomp",
            serde_json::json!({ "defaultAction": "SCMP_ACT_ALLOW" }),
        );
    let output = lab.run(&filtered);
    assert!(!output.stderr.contains("permission denied"), "{output}");
}
