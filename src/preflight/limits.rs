//! Limits: whether their controllers are here, and whether they can be meant on this machine.

use std::collections::BTreeSet;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};
use oci_spec::runtime::LinuxResources;

use super::{host, read};
use crate::bundle::{Bundle, Finding, did_you_mean};
use crate::cgroups::{self, Devices, Hierarchy};

/// Less than this and no program starts: the kernel's own memory for a process counts, too.
const LEAST_MEMORY: i64 = 256 << 10;

pub fn look(bundle: &Bundle, findings: &mut Vec<Finding>) {
    let Some(linux) = bundle.spec.linux() else {
        return;
    };
    let resources = linux.resources().as_ref();
    if let Some(resources) = resources {
        sizes(resources, findings);
    }
    let plan = match cgroups::plan(
        resources,
        bundle.extra.pids_limit,
        Devices::Confine,
        "/linux/resources",
    ) {
        Ok(plan) => plan,
        Err(error) => {
            findings.push(error.into());
            return;
        }
    };
    for warning in plan.warnings {
        let mut finding = Finding::from(warning);
        finding.severity = crate::bundle::Severity::Warning;
        findings.push(finding);
    }
    let hierarchy = match Hierarchy::find() {
        Ok(hierarchy) => hierarchy,
        Err(error) => {
            findings.push(error.into());
            return;
        }
    };
    let mut told = BTreeSet::new();
    for write in plan.writes.iter().chain(&plan.unified) {
        let controller = write.file.split('.').next().unwrap_or_default();
        if controller == "cgroup" || !told.insert(controller.to_owned()) {
            continue;
        }
        if let Some((reason, hint)) = hierarchy.lacks(controller) {
            findings.push(Finding::error(write.pointer.clone(), reason).maybe_hint(hint));
        }
    }
    for write in &plan.unified {
        if let Some(finding) = absent(&write.file, &write.pointer, &hierarchy) {
            findings.push(finding);
        }
    }
    place(bundle, &hierarchy, findings);
}

/// A file that no cgroup has, as far as those tell that are there.
fn absent(file: &str, pointer: &str, hierarchy: &Hierarchy) -> Option<Finding> {
    let (controller, _) = file.split_once('.')?;
    let mut cgroups = std::fs::read_dir(hierarchy.mount()).ok()?.flatten();
    let files = cgroups.find_map(|entry| {
        let names = std::fs::read_dir(entry.path()).ok()?.flatten();
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        let own: Vec<String> = names
            .filter(|name| name.split('.').next() == Some(controller))
            .collect();
        (!own.is_empty()).then_some(own)
    })?;
    if files.iter().any(|name| name == file) {
        return None;
    }
    let hint = did_you_mean(file, files.iter().map(String::as_str));
    let message = format!("this kernel has no {file}");
    Some(Finding::error(pointer, message).maybe_hint(hint))
}

/// Where the cgroup is to be made.
fn place(bundle: &Bundle, hierarchy: &Hierarchy, findings: &mut Vec<Finding>) {
    const POINTER: &str = "/linux/cgroupsPath";
    let linux = bundle.spec.linux().as_ref();
    let wanted = linux.and_then(|linux| linux.cgroups_path().as_deref());
    let Some(text) = wanted
        .and_then(Path::to_str)
        .filter(|text| !text.is_empty())
    else {
        return;
    };
    // The name of a systemd unit, for those who run husk with that driver.
    if !text.contains('/') && text.split(':').count() == 3 {
        return;
    }
    let below = match cgroups::path(Some(text), "x") {
        Ok(below) => below,
        Err(error) => {
            findings.push(error.into());
            return;
        }
    };
    if let Err(error) = hierarchy.survey(&below) {
        findings.push(error.into());
        return;
    }
    let path = hierarchy.mount().join(&below);
    let there = path.ancestors().find(|above| above.exists());
    if let Some(there) = there
        && let Err(errno @ (Errno::EACCES | Errno::EROFS)) = access(there, AccessFlags::W_OK)
    {
        let message = super::with_phrase(format!("cgroup {} can't be made", path.display()), errno);
        let hint = match errno {
            Errno::EROFS => "the cgroup2 tree is mounted read-only",
            _ => "without root, only a cgroup that was delegated to you can be used",
        };
        findings.push(Finding::error(POINTER, message).hint(hint));
    }
}

fn sizes(resources: &LinuxResources, findings: &mut Vec<Finding>) {
    const AT: &str = "/linux/resources";
    if let Some(memory) = resources.memory()
        && let Some(limit) = memory.limit().filter(|limit| *limit > 0)
    {
        let pointer = format!("{AT}/memory/limit");
        if limit < LEAST_MEMORY {
            let message = format!("{limit} bytes are too small to start a program in");
            let hint = match limit {
                1..65536 => "the unit is bytes: 512 MiB are 536870912",
                _ => "give it a few MiB at least",
            };
            findings.push(Finding::error(pointer, message).hint(hint));
        } else if let Some(total) = total_memory()
            && limit > total
        {
            let message =
                format!("{limit} bytes are more than the {total} of this machine: no limit");
            findings.push(Finding::warning(pointer, message));
        }
    }
    if let Some(cpu) = resources.cpu() {
        let machine = "/sys/devices/system";
        for (list, file, what, key) in [
            (cpu.cpus(), "cpu/online", "CPU", "cpus"),
            (cpu.mems(), "node/online", "memory node", "mems"),
        ] {
            if let Some(list) = list {
                let file = format!("{machine}/{file}");
                host::online(list, &file, what, &format!("{AT}/cpu/{key}"), findings);
            }
        }
    }
    huge_pages(resources, findings);
    block_devices(resources, findings);
}

fn total_memory() -> Option<i64> {
    let text = read("/proc/meminfo")?;
    let row = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: i64 = row.split_whitespace().next()?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// `hugepages-2048kB` for 2MB.
fn huge_pages(resources: &LinuxResources, findings: &mut Vec<Finding>) {
    let sizes: Vec<String> = std::fs::read_dir("/sys/kernel/mm/hugepages")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            let kilobytes: u64 = name
                .strip_prefix("hugepages-")?
                .strip_suffix("kB")?
                .parse()
                .ok()?;
            Some(match kilobytes {
                size if size >= 1 << 20 => format!("{}GB", size >> 20),
                size if size >= 1 << 10 => format!("{}MB", size >> 10),
                size => format!("{size}KB"),
            })
        })
        .collect();
    for (index, limit) in resources.hugepage_limits().iter().flatten().enumerate() {
        if !sizes.is_empty() && !sizes.contains(limit.page_size()) {
            let pointer = format!("/linux/resources/hugepageLimits/{index}/pageSize");
            let message = format!("this machine has no huge pages of {}", limit.page_size());
            let hint = did_you_mean(limit.page_size(), sizes.iter().map(String::as_str))
                .unwrap_or_else(|| format!("it has {}", sizes.join(", ")));
            findings.push(Finding::error(pointer, message).hint(hint));
        }
    }
}

fn block_devices(resources: &LinuxResources, findings: &mut Vec<Finding>) {
    let Some(block) = resources.block_io() else {
        return;
    };
    let there =
        |major: i64, minor: i64| Path::new(&format!("/sys/dev/block/{major}:{minor}")).exists();
    for (key, listed) in [
        ("throttleReadBpsDevice", block.throttle_read_bps_device()),
        ("throttleWriteBpsDevice", block.throttle_write_bps_device()),
        ("throttleReadIOPSDevice", block.throttle_read_iops_device()),
        (
            "throttleWriteIOPSDevice",
            block.throttle_write_iops_device(),
        ),
    ] {
        for (index, device) in listed.iter().flatten().enumerate() {
            missing_device(key, index, device.major(), device.minor(), there, findings);
        }
    }
    for (index, device) in block.weight_device().iter().flatten().enumerate() {
        missing_device(
            "weightDevice",
            index,
            device.major(),
            device.minor(),
            there,
            findings,
        );
    }
}

fn missing_device(
    key: &str,
    index: usize,
    major: i64,
    minor: i64,
    there: impl Fn(i64, i64) -> bool,
    findings: &mut Vec<Finding>,
) {
    if Path::new("/sys/dev/block").exists() && !there(major, minor) {
        let pointer = format!("/linux/resources/blockIO/{key}/{index}");
        let message = format!("this machine has no block device {major}:{minor}");
        findings
            .push(Finding::error(pointer, message).hint("lsblk shows the numbers of those it has"));
    }
}
