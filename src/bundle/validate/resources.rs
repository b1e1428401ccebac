//! Rules of `linux.resources` and `linux.intelRdt`. Which files they become is the cgroup's
//! business.

use oci_spec::runtime::{
    Linux, LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxDeviceType, LinuxMemory, LinuxResources,
};

use super::lists::{MAX_CPU, MAX_NODE, cpuset_list};
use super::{Finding, Findings, quote};
use crate::bundle::syntax::child;

const POINTER: &str = "/linux/resources";

pub fn resources(resources: &LinuxResources, findings: &mut Findings) {
    for (i, rule) in resources.devices().iter().flatten().enumerate() {
        device_rule(rule, i, findings);
    }
    if let Some(limits) = resources.memory() {
        memory(limits, findings);
    }
    if let Some(limits) = resources.cpu() {
        cpu(limits, findings);
    }
    if let Some(limits) = resources.block_io() {
        block_io(limits, findings);
    }
    hugepages(resources, findings);
    for (device, limits) in resources.rdma().iter().flatten() {
        if limits.hca_handles().is_none() && limits.hca_objects().is_none() {
            let pointer = child(&format!("{POINTER}/rdma"), device);
            let message = "neither hcaHandles nor hcaObjects is given";
            findings.push(Finding::error(pointer, message));
        }
    }
    for file in resources.unified().iter().flatten().map(|(file, _)| file) {
        let why = match file.as_str() {
            _ if file.contains('/') => "it has a slash",
            _ if !file.contains('.') => "it has no dot",
            _ if file.starts_with('.') => "it starts with a dot",
            _ => continue,
        };
        let pointer = child(&format!("{POINTER}/unified"), file);
        let message = format!("{} is no file of a cgroup: {why}", quote(file));
        let hint = undotted(file).unwrap_or_else(|| "as in memory.high".into());
        findings.push(Finding::error(pointer, message).hint(hint));
    }
}

/// A name whose parts are joined by something else than dots, as a shell or systemd would have them.
fn undotted(file: &str) -> Option<String> {
    const CONTROLLERS: [&str; 9] = [
        "cgroup", "cpu", "cpuset", "hugetlb", "io", "memory", "misc", "pids", "rdma",
    ];
    let (controller, _) = file.split_once(['_', '-', ' '])?;
    let name = file.replace(['_', '-', ' '], ".");
    (CONTROLLERS.contains(&controller) && !file.contains(['.', '/']))
        .then(|| format!("did you mean {name}?"))
}

fn device_rule(rule: &LinuxDeviceCgroup, i: usize, findings: &mut Findings) {
    let pointer = |key: &str| format!("{POINTER}/devices/{i}/{key}");
    if let Some(typ @ (LinuxDeviceType::U | LinuxDeviceType::P)) = rule.typ() {
        let message = format!("invalid device type {:?}", typ.as_str());
        findings.push(Finding::error(pointer("type"), message).hint("known are a, b, c"));
    }
    for (key, number) in [("major", rule.major()), ("minor", rule.minor())] {
        if let Some(number) = number
            && !(-1..=i64::from(u32::MAX)).contains(&number)
        {
            let message = format!("{number} is no {key} number");
            findings.push(Finding::error(pointer(key), message).hint("leave it out for all"));
        }
    }
    if let Some(access) = rule.access()
        && let Some(letter) = access.chars().find(|c| !"rwm".contains(*c))
    {
        let message = format!("{} has the letter {letter:?}", quote(access));
        let hint = "access is made of r (read), w (write), m (mknod)";
        findings.push(Finding::error(pointer("access"), message).hint(hint));
    }
}

fn memory(memory: &LinuxMemory, findings: &mut Findings) {
    let mut refuse = |key: &str, message: String| {
        findings.push(Finding::error(format!("{POINTER}/memory/{key}"), message));
    };
    for (key, value) in [
        ("limit", memory.limit()),
        ("reservation", memory.reservation()),
        ("swap", memory.swap()),
    ] {
        if let Some(value) = value
            && value < -1
        {
            refuse(
                key,
                format!("{value} is negative; only -1, unlimited, may be"),
            );
        }
    }
    // `swap` is memory and swap together.
    let limit = memory.limit().unwrap_or(0);
    match memory.swap() {
        Some(swap) if swap > 0 && limit == 0 => {
            refuse("swap", "a swap limit needs a memory limit, too".into());
        }
        Some(swap) if swap > 0 && swap < limit => refuse(
            "swap",
            format!("{swap} is less than the memory limit {limit}: it counts memory and swap"),
        ),
        _ => {}
    }
    if let Some(swappiness) = memory.swappiness()
        && swappiness > 100
    {
        refuse(
            "swappiness",
            format!("{swappiness} is out of range: 0 to 100"),
        );
    }
}

/// The limits of period, quota and burst are the kernel's (kernel/sched/core.c,
/// tg_set_cfs_bandwidth).
fn cpu(cpu: &LinuxCpu, findings: &mut Findings) {
    let mut refuse = |key: &str, message: String| {
        findings.push(Finding::error(format!("{POINTER}/cpu/{key}"), message));
    };
    if let Some(period) = cpu.period()
        && period != 0
        && !(1_000..=1_000_000).contains(&period)
    {
        refuse(
            "period",
            format!("{period} us is out of range: 1000 to 1000000"),
        );
    }
    let quota = cpu.quota().unwrap_or(0);
    if quota < -1 {
        refuse(
            "quota",
            format!("{quota} is negative; only -1, unlimited, may be"),
        );
    } else if (1..1_000).contains(&quota) {
        refuse(
            "quota",
            format!("{quota} us is less than the kernel's 1000"),
        );
    }
    if let Some(burst) = cpu.burst()
        && quota > 0
        && burst > quota.unsigned_abs()
    {
        refuse(
            "burst",
            format!("{burst} us is more than the quota of {quota} us"),
        );
    }
    if let Some(idle) = cpu.idle()
        && !(0..=1).contains(&idle)
    {
        refuse("idle", format!("{idle} is neither 0 nor 1"));
    }
    for (key, list, max) in [
        ("cpus", cpu.cpus(), MAX_CPU),
        ("mems", cpu.mems(), MAX_NODE),
    ] {
        if let Some(Err(reason)) = list.as_deref().map(|list| cpuset_list(list, max)) {
            refuse(key, format!("no list as in 0-3,7: {reason}"));
        }
    }
}

fn block_io(block_io: &LinuxBlockIo, findings: &mut Findings) {
    let mut weight = |value: Option<u16>, pointer: String| {
        if let Some(value) = value
            && value != 0
            && !(10..=1000).contains(&value)
        {
            let message = format!("{value} is out of range: 10 to 1000");
            findings.push(Finding::error(pointer, message));
        }
    };
    let pointer = format!("{POINTER}/blockIO");
    weight(block_io.weight(), format!("{pointer}/weight"));
    weight(block_io.leaf_weight(), format!("{pointer}/leafWeight"));
    let devices = block_io.weight_device().as_deref().unwrap_or_default();
    for (i, device) in devices.iter().enumerate() {
        let pointer = format!("{pointer}/weightDevice/{i}");
        weight(device.weight(), format!("{pointer}/weight"));
        weight(device.leaf_weight(), format!("{pointer}/leafWeight"));
    }
    for (i, device) in devices.iter().enumerate() {
        if device.weight().is_none() && device.leaf_weight().is_none() {
            let message = "neither weight nor leafWeight is given";
            findings.push(Finding::error(
                format!("{pointer}/weightDevice/{i}"),
                message,
            ));
        }
    }
}

fn hugepages(resources: &LinuxResources, findings: &mut Findings) {
    let mut seen = Vec::new();
    for (i, limit) in resources.hugepage_limits().iter().flatten().enumerate() {
        let pointer = format!("{POINTER}/hugepageLimits/{i}/pageSize");
        let size = limit.page_size().as_str();
        if !is_page_size(size) {
            let hint = match size.to_ascii_uppercase() {
                upper if is_page_size(&upper) => format!("did you mean {upper}?"),
                _ => "as in 64KB, 2MB or 1GB".into(),
            };
            let message = format!("{} is no page size", quote(size));
            findings.push(Finding::error(pointer.as_str(), message).hint(hint));
        }
        if limit.limit() < 0 {
            let pointer = format!("{POINTER}/hugepageLimits/{i}/limit");
            let message = format!("expected an unsigned 64-bit number, got {}", limit.limit());
            findings.push(Finding::error(pointer, message));
        }
        if seen.contains(&size) {
            findings.push(Finding::error(pointer, format!("{size} is limited twice")));
        }
        seen.push(size);
    }
}

/// `^[1-9][0-9]*[KMG]B$`: it becomes part of a file name (runc #4103).
fn is_page_size(size: &str) -> bool {
    let digits = ["KB", "MB", "GB"]
        .iter()
        .find_map(|unit| size.strip_suffix(unit))
        .unwrap_or_default();
    !digits.is_empty() && !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit())
}

/// The closID becomes a directory, the schemata lines of a file. `/` is the default group.
pub fn intel_rdt(linux: &Linux, findings: &mut Findings) {
    let Some(rdt) = linux.intel_rdt() else {
        return;
    };
    let mut refuse = |key: &str, message: String| {
        findings.push(Finding::error(format!("/linux/intelRdt/{key}"), message));
    };
    let id = rdt.clos_id().as_deref().unwrap_or_default();
    if id == "." || id == ".." || id != "/" && id.contains('/') || id.contains('\n') {
        refuse("closID", format!("{} is no name of a directory", quote(id)));
    }
    let memory = rdt.mem_bw_schema().as_deref().unwrap_or_default();
    let cache = rdt.l3_cache_schema().as_deref().unwrap_or_default();
    for (key, line) in [("l3CacheSchema", cache), ("memBwSchema", memory)] {
        if line.contains('\n') {
            refuse(key, "more than one line".into());
        }
    }
    if !memory.is_empty() && !memory.starts_with("MB:") {
        refuse(
            "memBwSchema",
            format!("{} does not start with MB:", quote(memory)),
        );
    }
    for (i, line) in rdt.schemata().iter().flatten().enumerate() {
        if line.contains('\n') {
            refuse(&format!("schemata/{i}"), "more than one line".into());
        }
    }
}
