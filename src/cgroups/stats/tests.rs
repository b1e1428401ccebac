use super::*;

#[test]
fn flat_files() {
    let values = flat("usage_usec 12\nuser_usec 7\nnr_periods 0\nbroken\n");
    assert_eq!(values.len(), 3);
    assert_eq!(values["usage_usec"], 12);
}

#[test]
fn nested_files() {
    let devices = nested(
        "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n253:1\nmlx5_0 hca_handle=max\n",
    );
    assert_eq!(devices["8:0"]["wios"], 4);
    assert_eq!(devices["mlx5_0"]["hca_handle"], u64::MAX);
    assert!(!devices.contains_key("253:1"));
}

#[test]
fn pressure_files() {
    let psi = pressure(
        "some avg10=1.50 avg60=0.25 avg300=0.00 total=99\n\
         full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n",
    );
    let some = psi.some.unwrap();
    assert_eq!((some.avg10, some.avg60, some.total), (1.5, 0.25, 99));
    assert_eq!(psi.full.unwrap().total, 7);
    // irq.pressure has no line "some".
    assert_eq!(
        pressure("full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n").some,
        None
    );
}

#[test]
fn lists_of_numbers() {
    assert_eq!(list("0-3,7\n"), [0, 1, 2, 3, 7]);
    assert_eq!(list("0\n"), [0]);
    assert!(list("\n").is_empty());
}

/// What decodes runc's output must find its keys.
#[test]
fn an_idle_cgroup_has_runcs_keys() {
    let text = serde_json::to_string(&Stats::default()).unwrap();
    const CPUSET: &str = r#""cpuset":{"cpu_exclusive":0,"mem_hardwall":0,"mem_exclusive":0,"memory_migrate":0,"memory_spread_page":0,"memory_spread_slab":0,"memory_pressure":0,"sched_load_balance":0,"sched_relax_domain_level":0}"#;
    let memory = ["usage", "swap", "kernel", "kernelTCP"]
        .map(|name| format!(r#""{name}":{{"limit":0,"failcnt":0}}"#))
        .join(",");
    let expected = format!(
        r#"{{"cpu":{{"usage":{{"kernel":0,"user":0}},"throttling":{{}}}},{CPUSET},"memory":{{{memory}}},"pids":{{}},"blkio":{{}},"hugetlb":{{}},"intel_rdt":{{}},"network_interfaces":[]}}"#
    );
    assert_eq!(text, expected);
}
