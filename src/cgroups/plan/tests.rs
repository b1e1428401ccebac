use super::*;

const BASE: &str = "/linux/resources";

fn resources(json: &str) -> LinuxResources {
    serde_json::from_str(json).unwrap()
}

fn planned(json: &str) -> Result<Plan> {
    plan(Some(&resources(json)), None, Devices::Keep, BASE)
}

/// "file value pointer" of each write, without the common start of the pointer.
fn lines(writes: &[Write]) -> Vec<String> {
    writes
        .iter()
        .map(|write| {
            let pointer = write.pointer.strip_prefix(BASE).unwrap();
            format!("{} <- {} {pointer}", write.file, write.value)
        })
        .collect()
}

#[test]
fn resources_become_writes() {
    let table: &[(&str, &[&str])] = &[
        ("{}", &[]),
        // memory
        (
            r#"{"memory":{"limit":1048576,"swap":2097152,"reservation":524288}}"#,
            &[
                "memory.swap.max <- 1048576 /memory/swap",
                "memory.max <- 1048576 /memory/limit",
                "memory.low <- 524288 /memory/reservation",
            ],
        ),
        (
            r#"{"memory":{"limit":-1,"reservation":-1}}"#,
            &[
                "memory.swap.max <- max /memory/limit",
                "memory.max <- max /memory/limit",
                "memory.low <- max /memory/reservation",
            ],
        ),
        (r#"{"memory":{"limit":0,"swap":0,"reservation":0}}"#, &[]),
        (
            r#"{"memory":{"swappiness":0,"disableOOMKiller":false,"useHierarchy":true,"kernel":-1,"kernelTCP":0}}"#,
            &[],
        ),
        // cpu
        (
            r#"{"cpu":{"shares":1024}}"#,
            &["cpu.weight <- 100 /cpu/shares"],
        ),
        (r#"{"cpu":{"shares":0,"quota":0,"period":0}}"#, &[]),
        (
            r#"{"cpu":{"quota":50000}}"#,
            &["cpu.max <- 50000 100000 /cpu/quota"],
        ),
        (
            r#"{"cpu":{"quota":50000,"period":200000}}"#,
            &["cpu.max <- 50000 200000 /cpu/quota"],
        ),
        (
            r#"{"cpu":{"quota":-1}}"#,
            &["cpu.max <- max 100000 /cpu/quota"],
        ),
        (
            r#"{"cpu":{"period":5000}}"#,
            &["cpu.max <- max 5000 /cpu/period"],
        ),
        (
            r#"{"cpu":{"quota":50000,"burst":20000}}"#,
            &[
                "cpu.max.burst <- 20000 /cpu/burst",
                "cpu.max <- 50000 100000 /cpu/quota",
            ],
        ),
        (
            r#"{"cpu":{"idle":0,"shares":2}}"#,
            &["cpu.idle <- 0 /cpu/idle", "cpu.weight <- 1 /cpu/shares"],
        ),
        (
            r#"{"cpu":{"idle":1,"shares":2}}"#,
            &["cpu.idle <- 1 /cpu/idle"],
        ),
        (
            r#"{"cpu":{"cpus":"0-3,7","mems":"0"}}"#,
            &[
                "cpuset.cpus <- 0-3,7 /cpu/cpus",
                "cpuset.mems <- 0 /cpu/mems",
            ],
        ),
        (r#"{"cpu":{"cpus":"","mems":" "}}"#, &[]),
        (r#"{"cpu":{"realtimeRuntime":0}}"#, &[]),
        // io
        (
            r#"{"blockIO":{"weight":500,"weightDevice":[{"major":8,"minor":0,"weight":10}]}}"#,
            &[
                "io.bfq.weight <- 500 /blockIO/weight",
                "io.bfq.weight <- 8:0 10 /blockIO/weightDevice/0/weight",
            ],
        ),
        (
            r#"{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":600},{"major":8,"minor":16,"rate":0}],
                "throttleWriteBpsDevice":[{"major":8,"minor":0,"rate":1}],
                "throttleReadIOPSDevice":[{"major":8,"minor":0,"rate":2}],
                "throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":3}]}}"#,
            &[
                "io.max <- 8:0 rbps=600 /blockIO/throttleReadBpsDevice/0",
                "io.max <- 8:16 rbps=max /blockIO/throttleReadBpsDevice/1",
                "io.max <- 8:0 wbps=1 /blockIO/throttleWriteBpsDevice/0",
                "io.max <- 8:0 riops=2 /blockIO/throttleReadIOPSDevice/0",
                "io.max <- 8:0 wiops=3 /blockIO/throttleWriteIOPSDevice/0",
            ],
        ),
        // huge pages, rdma
        (
            r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#,
            &[
                "hugetlb.2MB.max <- 4194304 /hugepageLimits/0/limit",
                "hugetlb.2MB.rsvd.max <- 4194304 /hugepageLimits/0/limit",
            ],
        ),
        (
            r#"{"rdma":{"rxe3":{"hcaObjects":10000},"mlx5_1":{"hcaHandles":3,"hcaObjects":0}}}"#,
            &[
                "rdma.max <- mlx5_1 hca_handle=3 hca_object=0 /rdma/mlx5_1",
                "rdma.max <- rxe3 hca_object=10000 /rdma/rxe3",
            ],
        ),
    ];
    for (json, expected) in table {
        assert_eq!(lines(&planned(json).unwrap().writes), *expected, "{json}");
    }
}

#[test]
fn pids_zero_is_a_limit_and_absent_is_none() {
    // oci-spec has 0 for an absent limit, so the resources alone must not count.
    let some = resources(r#"{"pids":{}}"#);
    for (limit, expected) in [
        (None, None),
        (Some(-1), Some("max")),
        (Some(-7), Some("max")),
        (Some(0), Some("1")),
        (Some(1), Some("1")),
        (Some(64), Some("64")),
        (Some(i64::MAX), Some("9223372036854775807")),
    ] {
        let plan = plan(Some(&some), limit, Devices::Keep, BASE).unwrap();
        let value = plan.writes.first().map(|write| write.value.as_str());
        assert_eq!(value, expected, "{limit:?}");
    }
}

#[test]
fn unified_comes_last_sorted_and_line_by_line() {
    let plan = planned(
        r#"{"memory":{"limit":4096},
            "unified":{"memory.max":"8192","io.max":"8:0 rbps=1\n8:16 wbps=2\n","cpuset.cpus":""}}"#,
    )
    .unwrap();
    assert_eq!(lines(&plan.writes), ["memory.max <- 4096 /memory/limit"]);
    assert_eq!(
        lines(&plan.unified),
        [
            "cpuset.cpus <- \n /unified/cpuset.cpus",
            "io.max <- 8:0 rbps=1 /unified/io.max",
            "io.max <- 8:16 wbps=2 /unified/io.max",
            "memory.max <- 8192 /unified/memory.max",
        ]
    );
}

#[test]
fn absence_of_a_file_matters_where_the_value_does() {
    let absent = |json: &str, file: &str| {
        let plan = planned(json).unwrap();
        let write = plan.writes.into_iter().find(|write| write.file == file);
        write.unwrap().absent
    };
    for (json, file, ignored) in [
        (
            r#"{"memory":{"limit":1,"swap":1}}"#,
            "memory.swap.max",
            true,
        ),
        (
            r#"{"memory":{"limit":1,"swap":-1}}"#,
            "memory.swap.max",
            true,
        ),
        (
            r#"{"memory":{"limit":1,"swap":3}}"#,
            "memory.swap.max",
            false,
        ),
        (r#"{"memory":{"limit":-1}}"#, "memory.max", false),
        (r#"{"cpu":{"idle":0}}"#, "cpu.idle", true),
        (r#"{"cpu":{"idle":1}}"#, "cpu.idle", false),
        (r#"{"cpu":{"burst":0}}"#, "cpu.max.burst", true),
        (r#"{"cpu":{"burst":5}}"#, "cpu.max.burst", false),
        (
            r#"{"hugepageLimits":[{"pageSize":"2MB","limit":0}]}"#,
            "hugetlb.2MB.rsvd.max",
            true,
        ),
        (
            r#"{"hugepageLimits":[{"pageSize":"2MB","limit":0}]}"#,
            "hugetlb.2MB.max",
            false,
        ),
    ] {
        let expected = if ignored {
            Absent::Ignore
        } else {
            Absent::Refuse
        };
        assert_eq!(absent(json, file), expected, "{json} {file}");
    }
    match absent(r#"{"blockIO":{"weight":500}}"#, "io.bfq.weight") {
        Absent::Instead(write) => {
            assert_eq!((&*write.file, &*write.value), ("io.weight", "4950"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_v2_lacks_is_said() {
    for (json, pointers) in [
        (r#"{"memory":{"kernel":4096}}"#, vec!["/memory/kernel"]),
        (
            r#"{"memory":{"kernelTCP":4096}}"#,
            vec!["/memory/kernelTCP"],
        ),
        (
            r#"{"memory":{"swappiness":60,"disableOOMKiller":true}}"#,
            vec!["/memory/swappiness", "/memory/disableOOMKiller"],
        ),
        (r#"{"cpu":{"idle":1,"shares":512}}"#, vec!["/cpu/shares"]),
        (
            r#"{"unified":{"cpu.idle":"1","cpu.weight":"8"}}"#,
            vec!["/unified/cpu.weight"],
        ),
        (r#"{"unified":{"cpu.idle":"0","cpu.weight":"8"}}"#, vec![]),
        (
            r#"{"cpu":{"realtimePeriod":1000000}}"#,
            vec!["/cpu/realtimePeriod"],
        ),
        (
            r#"{"network":{"classID":1048577,"priorities":[{"name":"eth0","priority":500}]}}"#,
            vec!["/network/classID", "/network/priorities"],
        ),
        (r#"{"network":{"classID":0,"priorities":[]}}"#, vec![]),
    ] {
        let plan = planned(json).unwrap();
        let found: Vec<_> = plan
            .warnings
            .iter()
            .map(|warning| warning.pointer().unwrap().strip_prefix(BASE).unwrap())
            .collect();
        assert_eq!(found, pointers, "{json}");
    }
}

#[test]
fn check_before_update_makes_ceilings() {
    let plan = planned(r#"{"memory":{"limit":4096,"swap":-1,"checkBeforeUpdate":true}}"#).unwrap();
    assert_eq!(
        plan.ceilings,
        [Ceiling {
            limit: 4096,
            with_swap: false,
            pointer: "/linux/resources/memory/limit".into()
        }]
    );
    let plan = planned(r#"{"memory":{"limit":4096,"checkBeforeUpdate":false}}"#).unwrap();
    assert!(plan.ceilings.is_empty());
}

#[test]
fn what_cannot_be_meant_is_refused_with_its_pointer() {
    for (json, message) in [
        (
            r#"{"memory":{"limit":-2}}"#,
            "(/linux/resources/memory/limit): -2 is neither a size nor -1",
        ),
        (
            r#"{"memory":{"reservation":-5}}"#,
            "(/linux/resources/memory/reservation): -5 is neither a size nor -1",
        ),
        (
            r#"{"memory":{"swap":4096}}"#,
            "(/linux/resources/memory/swap): memory and swap together can only be limited with a memory limit",
        ),
        (
            r#"{"memory":{"limit":4096,"swap":4095}}"#,
            "(/linux/resources/memory/swap): memory and swap together (4095) are less than memory alone (4096)",
        ),
        (
            r#"{"cpu":{"realtimeRuntime":950000}}"#,
            "(/linux/resources/cpu/realtimeRuntime): cgroup v2 has no realtime runtime of a cgroup's own",
        ),
        (
            r#"{"cpu":{"idle":2}}"#,
            "(/linux/resources/cpu/idle): 2 is neither 0 nor 1",
        ),
        (
            r#"{"cpu":{"quota":1000,"burst":1001}}"#,
            "(/linux/resources/cpu/burst): 1001 is more than the quota, 1000",
        ),
        (
            r#"{"cpu":{"cpus":"all"}}"#,
            "(/linux/resources/cpu/cpus): \"all\" is no list of numbers such as \"0-3,7\"",
        ),
        (
            r#"{"blockIO":{"weight":9}}"#,
            "(/linux/resources/blockIO/weight): 9 is not from 10 to 1000",
        ),
        (
            r#"{"blockIO":{"weightDevice":[{"major":8,"minor":0,"weight":1001}]}}"#,
            "(/linux/resources/blockIO/weightDevice/0/weight): 1001 is not from 10 to 1000",
        ),
        (
            r#"{"blockIO":{"leafWeight":300}}"#,
            "(/linux/resources/blockIO/leafWeight): cgroup v2 has no weight against the cgroups below",
        ),
        (
            r#"{"blockIO":{"throttleReadBpsDevice":[{"major":-1,"minor":0,"rate":1}]}}"#,
            "(/linux/resources/blockIO/throttleReadBpsDevice/0): -1:0 is no device number",
        ),
        // A page size became a path in a peer (runc #4103).
        (
            r#"{"hugepageLimits":[{"pageSize":"../../x/2MB","limit":1}]}"#,
            "(/linux/resources/hugepageLimits/0/pageSize): \"../../x/2MB\" is no page size such as \"2MB\" or \"1GB\"",
        ),
        (
            r#"{"hugepageLimits":[{"pageSize":"64kB","limit":1}]}"#,
            "(/linux/resources/hugepageLimits/0/pageSize): \"64kB\" is no page size such as \"2MB\" or \"1GB\"",
        ),
        (
            r#"{"hugepageLimits":[{"pageSize":"2MB","limit":-1}]}"#,
            "(/linux/resources/hugepageLimits/0/limit): -1 is no size",
        ),
        (
            r#"{"rdma":{"mlx5_1":{}}}"#,
            "(/linux/resources/rdma/mlx5_1): hcaHandles or hcaObjects is missing",
        ),
        (
            r#"{"rdma":{"a b":{"hcaHandles":1}}}"#,
            "(/linux/resources/rdma/a b): that is no name of a device",
        ),
        (
            r#"{"unified":{"../memory.max":"1"}}"#,
            "(/linux/resources/unified/..~1memory.max): \"../memory.max\" is no cgroup file, such as \"memory.high\"",
        ),
        (
            r#"{"unified":{"tasks":"1"}}"#,
            "(/linux/resources/unified/tasks): \"tasks\" is no cgroup file, such as \"memory.high\"",
        ),
        (
            r#"{"unified":{"..":"1"}}"#,
            "(/linux/resources/unified/..): \"..\" is no cgroup file, such as \"memory.high\"",
        ),
        (
            r#"{"unified":{"memory.max":""}}"#,
            "(/linux/resources/unified/memory.max): the value is empty",
        ),
    ] {
        let error = planned(json).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("config.json {message}"),
            "{json}"
        );
    }
}

#[test]
fn devices_are_confined_by_default_and_kept_by_update() {
    assert!(
        plan(None, None, Devices::Confine, BASE)
            .unwrap()
            .devices
            .is_some()
    );
    assert_eq!(plan(None, None, Devices::Keep, BASE).unwrap().devices, None);
    let privileged = resources(r#"{"devices":[{"allow":true,"access":"rwm"}]}"#);
    let plan = plan(Some(&privileged), None, Devices::Confine, BASE).unwrap();
    assert_eq!(plan.devices, None);
}
