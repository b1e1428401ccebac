//! When, where, on whose memory and as which system the program runs: `process.scheduler`,
//! `ioPriority`, `execCPUAffinity`, `linux.memoryPolicy`, `linux.personality`.

use std::fs;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::tests;
use crate::bundle::{Bundle, PAYLOAD};
use crate::container::Container;
use crate::lab::Lab;
use crate::need::Need;

tests! {
    every_scheduling_policy_is_set,
    scheduler_flags_and_nice_are_set,
    a_deadline_is_set_with_its_times,
    a_deadline_does_not_go_with_some_of_the_cpus.needs(&[Need::Controller("cpuset"), Need::Husk]),
    the_scheduler_is_set_in_a_user_namespace_too.needs(&[Need::Husk]),
    hooks_are_not_scheduled_as_the_program.needs(&[Need::Husk]),
    an_unprivileged_husk_sets_what_it_may.needs(&[Need::Program("setpriv"), Need::Husk]),
    every_io_priority_is_set,
    exec_is_scheduled_as_the_container_or_as_its_document_says,
    memory_policies_are_set,
    memory_policy_of_the_container_is_execs_too,
    a_memory_policy_that_the_kernel_refuses_is_told.needs(&[Need::Husk]),
    personality_is_set,
    personality_of_the_container_is_execs_too,
    runc_4900_personality_comes_before_the_filter,
    exec_affinity_has_no_effect_at_create,
    exec_affinity_final_binds_the_process,
    exec_affinity_initial_alone_stays,
    exec_affinity_of_the_container_is_execs_too,
    exec_affinity_without_a_cpu_is_told.needs(&[Need::Husk]),
}

fn scheduled(lab: &Lab, scheduler: Value) -> Value {
    lab.facts(&lab.bundle().set("/process/scheduler", scheduler))["scheduler"].clone()
}

fn every_scheduling_policy_is_set(lab: &Lab) {
    for (policy, number, priority) in [
        ("SCHED_OTHER", 0, 0),
        ("SCHED_FIFO", 1, 3),
        ("SCHED_RR", 2, 4),
        ("SCHED_BATCH", 3, 0),
        ("SCHED_IDLE", 5, 0),
    ] {
        let found = scheduled(lab, json!({"policy": policy, "priority": priority}));
        assert_eq!(found["policy"], number, "{policy}");
        assert_eq!(found["attributes"]["priority"], priority, "{policy}");
    }
}

/// Bit 30 is how sched_getscheduler(2) tells of the flag.
fn scheduler_flags_and_nice_are_set(lab: &Lab) {
    for nice in [-3, 7] {
        let found = scheduled(
            lab,
            json!({"policy": "SCHED_BATCH", "nice": nice, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}),
        );
        assert_eq!(found["nice"], nice);
        assert_eq!(found["policy"], 3 | 1 << 30);
        assert_eq!(found["attributes"]["flags"], 1);
    }
}

fn a_deadline_is_set_with_its_times(lab: &Lab) {
    let found = scheduled(
        lab,
        json!({"policy": "SCHED_DEADLINE", "runtime": 420_000, "deadline": 1_000_000,
            "period": 10_000_000, "flags": ["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_DL_OVERRUN"]}),
    );
    let attributes = &found["attributes"];
    assert_eq!(found["policy"], 6 | 1 << 30);
    assert_eq!(attributes["flags"], 0b101);
    assert_eq!(attributes["runtime"], 420_000);
    assert_eq!(attributes["deadline"], 1_000_000);
    assert_eq!(attributes["period"], 10_000_000);
}

/// sched_setattr(2): the words are those that are looked for.
fn a_deadline_does_not_go_with_some_of_the_cpus(lab: &Lab) {
    let scheduler = json!({"policy": "SCHED_DEADLINE", "runtime": 420_000, "deadline": 1_000_000,
        "period": 1_000_000});
    let bundle = lab
        .bundle()
        .set("/process/scheduler", scheduler)
        .set("/linux/resources/cpu/cpus", "0");
    lab.run(&bundle)
        .refused()
        .says("/process/scheduler")
        .says("process scheduler can't be used together with AllowedCPUs")
        .says("operation not permitted");
}

/// The privileges of a user namespace are not enough for it, those of husk are.
fn the_scheduler_is_set_in_a_user_namespace_too(lab: &Lab) {
    let bundle = lab
        .bundle()
        .user_namespace(100_000, 65_536)
        .set("/process/user/uid", 1000)
        .set(
            "/process/scheduler",
            json!({"policy": "SCHED_RR", "priority": 2}),
        )
        .set(
            "/process/ioPriority",
            json!({"class": "IOPRIO_CLASS_RT", "priority": 1}),
        );
    let found = &lab.facts(&bundle)["scheduler"];
    assert_eq!(found["policy"], 2);
    assert_eq!(found["ioprio_class"], 1);
    let container = lab.start(&bundle.payload("pause"));
    assert_eq!(container.ask("facts")[0]["scheduler"]["policy"], 2);
    container.end();
}

/// They would be starved, or starve others; and a deadline forbids to make processes.
fn hooks_are_not_scheduled_as_the_program(lab: &Lab) {
    let file = lab.path("seen");
    let script = format!("cut -d ' ' -f 41 /proc/self/stat >{}", file.display());
    let bundle = lab
        .bundle()
        .hook("createContainer", &["/bin/sh", "-c", &script])
        .set(
            "/process/scheduler",
            json!({"policy": "SCHED_RR", "priority": 2}),
        );
    assert_eq!(lab.facts(&bundle)["scheduler"]["policy"], 2);
    assert_eq!(fs::read_to_string(file).unwrap().trim(), "0");
}

/// Then the process does it itself, while it is still of husk's user.
fn an_unprivileged_husk_sets_what_it_may(lab: &Lab) {
    let run = |scheduler: Value| {
        let bundle = lab
            .bundle()
            .set("/process/user/uid", 1000)
            .set("/process/ioPriority", json!({"class": "IOPRIO_CLASS_IDLE"}))
            .set("/process/scheduler", scheduler);
        lab.run_with(&bundle, &[])
            .through(&["setpriv", "--bounding-set", "-sys_nice"])
            .run()
    };
    let found = run(json!({"policy": "SCHED_BATCH", "nice": 5})).ok().line();
    assert_eq!(found["scheduler"]["policy"], 3);
    assert_eq!(found["scheduler"]["nice"], 5);
    assert_eq!(found["scheduler"]["ioprio_class"], 3);
    run(json!({"policy": "SCHED_FIFO", "priority": 5}))
        .refused()
        .says("set scheduler SCHED_FIFO (/process/scheduler): operation not permitted")
        .hints("CAP_SYS_NICE");
}

fn every_io_priority_is_set(lab: &Lab) {
    for (class, number, level) in [
        ("IOPRIO_CLASS_RT", 1, 0),
        ("IOPRIO_CLASS_BE", 2, 6),
        ("IOPRIO_CLASS_BE", 2, 0),
        ("IOPRIO_CLASS_IDLE", 3, 0),
    ] {
        let priority = json!({ "class": class, "priority": level });
        let found = &lab.facts(&lab.bundle().set("/process/ioPriority", priority))["scheduler"];
        assert_eq!(found["ioprio_class"], number, "{class}");
        assert_eq!(found["ioprio_data"], level, "{class}");
    }
}

fn exec_document(lab: &Lab, container: &Container, fields: Value) -> Value {
    let mut process = json!({
        "user": {"uid": 0, "gid": 0},
        "args": [PAYLOAD, "facts"],
        "cwd": "/",
    });
    for (key, value) in fields.as_object().unwrap() {
        process[key] = value.clone();
    }
    let file = lab.path("process");
    fs::write(&file, process.to_string()).unwrap();
    let options = ["--process", file.to_str().unwrap()];
    container.command("exec", &options).run().ok().line()["scheduler"].clone()
}

fn exec_is_scheduled_as_the_container_or_as_its_document_says(lab: &Lab) {
    let bundle = lab
        .bundle()
        .payload("facts -- pause")
        .set(
            "/process/scheduler",
            json!({"policy": "SCHED_BATCH", "nice": 19}),
        )
        .set(
            "/process/ioPriority",
            json!({"class": "IOPRIO_CLASS_BE", "priority": 4}),
        );
    let container = lab.start(&bundle);
    let first = container.wait_for_lines(1)[0]["scheduler"].clone();
    let second = container.ask("facts")[0]["scheduler"].clone();
    for found in [&first, &second] {
        assert_eq!(found["policy"], 3);
        assert_eq!(found["nice"], 19);
        assert_eq!(found["ioprio_data"], 4);
    }
    let found = exec_document(
        lab,
        &container,
        json!({
            "scheduler": {"policy": "SCHED_DEADLINE", "flags": ["SCHED_FLAG_RESET_ON_FORK"],
                "nice": 19, "runtime": 42_000, "deadline": 100_000, "period": 1_000_000},
            "ioPriority": {"class": "IOPRIO_CLASS_IDLE"},
        }),
    );
    assert_eq!(found["policy"], 6 | 1 << 30);
    assert_eq!(found["attributes"]["runtime"], 42_000);
    assert_eq!(found["ioprio_class"], 3);
    // What a document doesn't say is not the container's either.
    let found = exec_document(lab, &container, json!({}));
    assert_eq!(found["policy"], 0);
    assert_eq!(found["ioprio_class"], 0);
    container.end();
}

fn memory_policies_are_set(lab: &Lab) {
    for (mode, nodes, flags, number, mask) in [
        ("MPOL_DEFAULT", "", json!([]), 0, 0),
        (
            "MPOL_PREFERRED",
            "0",
            json!(["MPOL_F_RELATIVE_NODES"]),
            1 | 1 << 14,
            1,
        ),
        (
            "MPOL_BIND",
            "0",
            json!(["MPOL_F_STATIC_NODES"]),
            2 | 1 << 15,
            1,
        ),
        (
            "MPOL_BIND",
            "0",
            json!(["MPOL_F_NUMA_BALANCING"]),
            2 | 1 << 13,
            1,
        ),
        ("MPOL_INTERLEAVE", "0", json!([]), 3, 1),
        ("MPOL_LOCAL", "", json!([]), 4, 0),
        ("MPOL_PREFERRED_MANY", "0", json!([]), 5, 1),
        ("MPOL_WEIGHTED_INTERLEAVE", "0", json!([]), 6, 1),
    ] {
        let policy = json!({"mode": mode, "nodes": nodes, "flags": flags});
        let bundle = lab.bundle().set("/linux/memoryPolicy", policy);
        let found = &lab.facts(&bundle)["memory_policy"];
        assert_eq!(found["mode"], number, "{mode}");
        assert_eq!(found["nodes"], mask, "{mode}");
    }
}

fn memory_policy_of_the_container_is_execs_too(lab: &Lab) {
    let policy = json!({"mode": "MPOL_INTERLEAVE", "nodes": "0"});
    let bundle = lab
        .bundle()
        .payload("pause")
        .set("/linux/memoryPolicy", policy);
    let container = lab.start(&bundle);
    assert_eq!(container.ask("facts")[0]["memory_policy"]["mode"], 3);
    container.end();
}

fn a_memory_policy_that_the_kernel_refuses_is_told(lab: &Lab) {
    let policy = json!({"mode": "MPOL_BIND", "nodes": "1023"});
    lab.run(&lab.bundle().set("/linux/memoryPolicy", policy))
        .refused()
        .says("set_mempolicy MPOL_BIND (/linux/memoryPolicy): invalid argument")
        .hints("nodes");
}

fn with_personality(bundle: Bundle, domain: &str) -> Bundle {
    bundle.set("/linux/personality", json!({ "domain": domain }))
}

#[cfg(target_arch = "x86_64")]
const MACHINES: [&str; 2] = ["x86_64", "i686"];
#[cfg(target_arch = "aarch64")]
const MACHINES: [&str; 2] = ["aarch64", "armv8l"];

fn personality_is_set(lab: &Lab) {
    for (domain, machine) in [("LINUX", MACHINES[0]), ("LINUX32", MACHINES[1])] {
        let facts = lab.facts(&with_personality(lab.bundle(), domain));
        assert_eq!(facts["machine"], machine);
    }
}

fn personality_of_the_container_is_execs_too(lab: &Lab) {
    let container = lab.start(&with_personality(lab.bundle(), "LINUX32").payload("pause"));
    assert_eq!(container.ask("facts")[0]["machine"], MACHINES[1]);
    container.end();
}

fn runc_4900_personality_comes_before_the_filter(lab: &Lab) {
    let filter = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["personality", "set_mempolicy", "sched_setattr", "ioprio_set"],
            "action": "SCMP_ACT_ERRNO"}],
    });
    let bundle = with_personality(lab.bundle(), "LINUX32")
        .payload("facts -- pause")
        .set("/linux/memoryPolicy", json!({"mode": "MPOL_LOCAL"}))
        .set("/process/scheduler", json!({"policy": "SCHED_BATCH"}))
        .set("/process/ioPriority", json!({"class": "IOPRIO_CLASS_IDLE"}))
        .set("/linux/seccomp", filter);
    for no_new_privileges in [true, false] {
        let bundle = bundle
            .another()
            .set("/process/noNewPrivileges", no_new_privileges);
        let container = lab.start(&bundle);
        let first = container.wait_for_lines(1)[0].clone();
        for facts in [first, container.ask("facts")[0].clone()] {
            assert_eq!(facts["machine"], MACHINES[1]);
            assert_eq!(facts["memory_policy"]["mode"], 4);
            assert_eq!(facts["scheduler"]["policy"], 3);
            assert_eq!(facts["scheduler"]["ioprio_class"], 3);
        }
        container.end();
    }
}

/// The CPUs that this process may use, in order.
fn cpus() -> Vec<usize> {
    let set = sched_getaffinity(Pid::this()).unwrap();
    (0..CpuSet::count())
        .filter(|&cpu| set.is_set(cpu).unwrap())
        .collect()
}

fn exec_affinity_has_no_effect_at_create(lab: &Lab) {
    let all = cpus();
    let affinity = json!({"initial": all[0].to_string(), "final": all[0].to_string()});
    let bundle = lab.bundle().set("/process/execCPUAffinity", affinity);
    assert_eq!(lab.facts(&bundle)["scheduler"]["cpus"], json!(all));
}

fn exec_affinity_final_binds_the_process(lab: &Lab) {
    let all = cpus();
    let (first, last) = (all[0], all[all.len() - 1]);
    let container = lab.start(&lab.bundle().payload("pause"));
    for (initial, wanted) in [(first, last), (last, first), (last, last)] {
        let affinity = json!({"initial": initial.to_string(), "final": wanted.to_string()});
        let found = exec_document(lab, &container, json!({ "execCPUAffinity": affinity }));
        assert_eq!(found["cpus"], json!([wanted]));
    }
    let affinity = json!({"final": format!("{first}, {last}")});
    let found = exec_document(lab, &container, json!({ "execCPUAffinity": affinity }));
    let mut both = vec![first, last];
    both.dedup();
    assert_eq!(found["cpus"], json!(both));
    // The caller's is reset, as ever.
    let mut one = CpuSet::new();
    one.set(first).unwrap();
    sched_setaffinity(Pid::this(), &one).unwrap();
    let found = exec_document(lab, &container, json!({}));
    assert_eq!(found["cpus"], json!(all));
    container.end();
}

/// config.md: without `final` the runtime should not change it after the process has joined.
fn exec_affinity_initial_alone_stays(lab: &Lab) {
    let all = cpus();
    let last = all[all.len() - 1];
    let container = lab.start(&lab.bundle().payload("pause"));
    let affinity = json!({"initial": last.to_string()});
    let found = exec_document(lab, &container, json!({ "execCPUAffinity": affinity }));
    assert_eq!(found["cpus"], json!([last]));
    container.end();
}

fn exec_affinity_of_the_container_is_execs_too(lab: &Lab) {
    let all = cpus();
    let last = all[all.len() - 1];
    let affinity = json!({"initial": all[0].to_string(), "final": last.to_string()});
    let bundle = lab
        .bundle()
        .payload("pause")
        .set("/process/execCPUAffinity", affinity);
    let container = lab.start(&bundle);
    let found = container.ask("facts")[0]["scheduler"]["cpus"].clone();
    assert_eq!(found, json!([last]));
    // runc's words for `initial`, which nobody can see afterwards.
    let exec = container.exec_with(&[], "/bin/payload exit 0");
    let said = exec.global(&["--debug"]).run().ok().stderr;
    let words = format!(": affinity: {:#x}", 1 << all[0]);
    assert!(said.contains("nsexec") && said.contains(&words), "{said}");
    container.end();
}

fn exec_affinity_without_a_cpu_is_told(lab: &Lab) {
    for key in ["initial", "final"] {
        let bundle = lab
            .bundle()
            .payload("pause")
            .set("/process/execCPUAffinity", json!({ key: "8191" }));
        let container = lab.start(&bundle);
        let output = container.exec("/bin/payload facts");
        let line = output.stderr.lines().next().unwrap_or_default();
        assert!(
            line.contains(&format!("/process/execCPUAffinity/{key}")),
            "{output}"
        );
        assert!(line.ends_with("invalid argument"), "{output}");
        container.end();
    }
}
