//! `linux.resources` as writes to cgroup v2 files, made and checked before anything is done.

use std::borrow::Cow;
use std::ffi::OsStr;

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxNetwork, LinuxResources,
    LinuxThrottleDevice,
};

use super::{convert, devices, file};
use crate::error::{Error, Result, pointer_key};

/// What a file's absence means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Absent {
    Refuse,
    /// The value is what the kernel does without the file.
    Ignore,
    Instead(Box<Write>),
}

/// One value for one file of the cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub file: Cow<'static, str>,
    pub value: String,
    /// The entry that asked for it.
    pub pointer: String,
    pub absent: Absent,
    /// On `EINVAL` it is tried again after the others: the kernel compares it with one of them.
    pub again: bool,
}

/// Whether the device rules are a matter of this plan: at `create` they are, `update` keeps those
/// that are in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Devices {
    Confine,
    Keep,
}

/// A memory limit that may only be set above what is in use (`checkBeforeUpdate`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ceiling {
    pub limit: u64,
    /// It is one of memory and swap together.
    pub with_swap: bool,
    pub pointer: String,
}

/// In the words that are known for it.
const IDLE_AND_WEIGHT: &str =
    "unable to apply both cpu.idle and cpu.weight: an idle cgroup has no weight";

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    pub writes: Vec<Write>,
    /// `linux.resources.unified`: after the others, so that it wins.
    pub unified: Vec<Write>,
    pub ceilings: Vec<Ceiling>,
    /// `None` if every device is allowed, or none is to be touched.
    pub devices: Option<devices::Program>,
    /// What has no meaning on cgroup v2 and was left out.
    pub warnings: Vec<Error>,
}

/// Turns resources into a plan. `pointer` is where they stand (`/linux/resources`). `pids` is
/// `pids.limit` if it is given: oci-spec makes 0 of an absent one, and 0 is a limit.
///
/// # Errors
/// Values that can't be meant or have no counterpart on cgroup v2.
pub fn plan(
    resources: Option<&LinuxResources>,
    pids: Option<i64>,
    devices: Devices,
    pointer: &str,
) -> Result<Plan> {
    let mut plan = Planner {
        plan: Plan::default(),
        base: pointer,
    };
    if let Some(resources) = resources {
        plan.resources(resources)?;
    }
    if let Some(limit) = pids {
        // 0 allows no process besides init, as does 1, which systemd can express too.
        let value = match limit {
            ..0 => "max".into(),
            _ => limit.max(1).to_string(),
        };
        plan.write("pids.max", value, "/pids/limit");
    }
    if let Some(unified) = resources.and_then(|resources| resources.unified().as_ref()) {
        let mut entries: Vec<_> = unified.iter().collect();
        entries.sort();
        let idle = unified.get("cpu.idle").map(|idle| idle.trim()) == Some("1");
        for (name, value) in entries {
            // The kernel has it last, and refuses it.
            if idle && matches!(name.as_str(), "cpu.weight" | "cpu.weight.nice") {
                plan.warn(&format!("/unified/{name}"), IDLE_AND_WEIGHT);
                continue;
            }
            plan.unified(name, value)?;
        }
    }
    if devices == Devices::Confine {
        let rules = resources.and_then(|resources| resources.devices().as_deref());
        plan.plan.devices = devices::compile(rules.unwrap_or_default(), &plan.at("/devices"))?;
    }
    Ok(plan.plan)
}

struct Planner<'a> {
    plan: Plan,
    base: &'a str,
}

impl Planner<'_> {
    fn at(&self, field: &str) -> String {
        format!("{}{field}", self.base)
    }

    fn error(&self, field: &str, reason: impl Into<String>) -> Error {
        Error::config(self.at(field), reason)
    }

    fn warn(&mut self, field: &str, reason: &str) {
        let warning = self.error(field, reason);
        self.plan.warnings.push(warning);
    }

    fn write(
        &mut self,
        file: impl Into<Cow<'static, str>>,
        value: impl ToString,
        field: &str,
    ) -> &mut Write {
        let write = Write {
            file: file.into(),
            value: value.to_string(),
            pointer: self.at(field),
            absent: Absent::Refuse,
            again: false,
        };
        self.plan.writes.push(write);
        let last = self.plan.writes.len() - 1;
        &mut self.plan.writes[last]
    }

    fn resources(&mut self, resources: &LinuxResources) -> Result<()> {
        if let Some(memory) = resources.memory() {
            self.memory(memory)?;
        }
        if let Some(cpu) = resources.cpu() {
            self.cpu(cpu)?;
        }
        if let Some(block) = resources.block_io() {
            self.block_io(block)?;
        }
        if let Some(limits) = resources.hugepage_limits() {
            self.hugepages(limits)?;
        }
        if let Some(network) = resources.network() {
            self.network(network);
        }
        let mut rdma: Vec<_> = resources.rdma().iter().flatten().collect();
        rdma.sort_by_key(|(device, _)| *device);
        for (device, limits) in rdma {
            let field = format!("/rdma/{}", pointer_key(device));
            if device.is_empty() || device.contains(|c: char| c.is_whitespace() || c.is_control()) {
                return Err(self.error(&field, "that is no name of a device"));
            }
            let mut value = device.clone();
            if let Some(handles) = limits.hca_handles() {
                value += &format!(" hca_handle={handles}");
            }
            if let Some(objects) = limits.hca_objects() {
                value += &format!(" hca_object={objects}");
            }
            if value == *device {
                return Err(self.error(&field, "hcaHandles or hcaObjects is missing"));
            }
            self.write("rdma.max", value, &field);
        }
        Ok(())
    }

    fn memory(&mut self, memory: &LinuxMemory) -> Result<()> {
        let sized = |limit: Option<i64>| limit.filter(|limit| *limit != 0);
        let amount = |planner: &Self, value: i64, field: &str| {
            convert::limit(value)
                .ok_or_else(|| planner.error(field, format!("{value} is neither a size nor -1")))
        };
        let limit = match sized(memory.limit()) {
            Some(limit) => Some(amount(self, limit, "/memory/limit")?),
            None => None,
        };
        // Swap first: a lower memory limit shall not push into swap what may not be there.
        let swap = convert::swap(memory.limit(), memory.swap())
            .map_err(|reason| self.error("/memory/swap", reason))?;
        if let Some(swap) = swap {
            let none = matches!(swap.as_str(), "max" | "0");
            let field = match sized(memory.swap()) {
                Some(_) => "/memory/swap",
                None => "/memory/limit",
            };
            let write = self.write("memory.swap.max", swap, field);
            if none {
                write.absent = Absent::Ignore;
            }
        }
        if let Some(limit) = limit {
            self.write("memory.max", limit, "/memory/limit");
        }
        if let Some(reservation) = sized(memory.reservation()) {
            let value = amount(self, reservation, "/memory/reservation")?;
            self.write("memory.low", value, "/memory/reservation");
        }
        if memory.check_before_update() == Some(true) {
            for (limit, field, with_swap) in [
                (memory.swap(), "/memory/swap", true),
                (memory.limit(), "/memory/limit", false),
            ] {
                if let Some(limit) = limit.and_then(|limit| u64::try_from(limit).ok())
                    && limit > 0
                {
                    let pointer = self.at(field);
                    self.plan.ceilings.push(Ceiling {
                        limit,
                        with_swap,
                        pointer,
                    });
                }
            }
        }
        #[allow(deprecated)]
        let kernel = memory.kernel();
        for (value, field) in [
            (kernel, "/memory/kernel"),
            (memory.kernel_tcp(), "/memory/kernelTCP"),
        ] {
            if value.is_some_and(|value| value > 0) {
                self.warn(
                    field,
                    "ignored: on cgroup v2 the kernel's memory counts towards memory.limit",
                );
            }
        }
        // Engines write swappiness 0 and disableOOMKiller false into any configuration.
        if memory.swappiness().is_some_and(|value| value > 0) {
            self.warn(
                "/memory/swappiness",
                "ignored: cgroup v2 has no swappiness of a cgroup's own",
            );
        }
        if memory.disable_oom_killer() == Some(true) {
            self.warn(
                "/memory/disableOOMKiller",
                "ignored: cgroup v2 can't switch it off",
            );
        }
        Ok(())
    }

    fn cpu(&mut self, cpu: &LinuxCpu) -> Result<()> {
        if cpu.realtime_runtime().is_some_and(|runtime| runtime > 0) {
            return Err(self.error(
                "/cpu/realtimeRuntime",
                "cgroup v2 has no realtime runtime of a cgroup's own",
            ));
        }
        if cpu.realtime_period().is_some_and(|period| period > 0) {
            self.warn(
                "/cpu/realtimePeriod",
                "ignored: cgroup v2 has no realtime period of a cgroup's own",
            );
        }
        let idle = cpu.idle();
        match idle {
            None => {}
            // The kernel's default, and files since Linux 5.15 only.
            Some(0) => self.write("cpu.idle", 0, "/cpu/idle").absent = Absent::Ignore,
            Some(1) => drop(self.write("cpu.idle", 1, "/cpu/idle")),
            Some(other) => {
                return Err(self.error("/cpu/idle", format!("{other} is neither 0 nor 1")));
            }
        }
        if let Some(weight) = cpu.shares().and_then(convert::weight_of_shares) {
            if idle == Some(1) {
                self.warn("/cpu/shares", IDLE_AND_WEIGHT);
            } else {
                self.write("cpu.weight", weight, "/cpu/shares");
            }
        }
        self.bandwidth(cpu)?;
        for (list, file, field) in [
            (cpu.cpus(), "cpuset.cpus", "/cpu/cpus"),
            (cpu.mems(), "cpuset.mems", "/cpu/mems"),
        ] {
            let Some(list) = list
                .as_deref()
                .map(str::trim)
                .filter(|list| !list.is_empty())
            else {
                continue;
            };
            let plain = |c: char| c.is_ascii_digit() || matches!(c, ',' | '-' | ':' | '/' | ' ');
            if !list.chars().all(plain) {
                return Err(self.error(
                    field,
                    format!("{list:?} is no list of numbers such as \"0-3,7\""),
                ));
            }
            self.write(file, list, field);
        }
        Ok(())
    }

    fn bandwidth(&mut self, cpu: &LinuxCpu) -> Result<()> {
        let quota = cpu.quota().filter(|quota| *quota != 0);
        let period = cpu.period().filter(|period| *period != 0);
        if let Some(burst) = cpu.burst() {
            if let Some(quota) = quota.filter(|quota| *quota > 0)
                && i64::try_from(burst).map_or(true, |burst| burst > quota)
            {
                return Err(self.error(
                    "/cpu/burst",
                    format!("{burst} is more than the quota, {quota}"),
                ));
            }
            // First, as a burst that is left over may not exceed the new quota; but it may not
            // exceed the old one either.
            let write = self.write("cpu.max.burst", burst, "/cpu/burst");
            write.again = true;
            if burst == 0 {
                write.absent = Absent::Ignore;
            }
        }
        if quota.is_some() || period.is_some() {
            let runtime = match quota {
                Some(quota) if quota > 0 => quota.to_string(),
                _ => "max".into(),
            };
            let field = match quota {
                Some(_) => "/cpu/quota",
                None => "/cpu/period",
            };
            let value = format!("{runtime} {}", period.unwrap_or(100_000));
            self.write("cpu.max", value, field);
        }
        Ok(())
    }

    fn block_io(&mut self, block: &LinuxBlockIo) -> Result<()> {
        if let Some(weight) = block.weight().filter(|weight| *weight != 0) {
            self.io_weight("", weight, "/blockIO/weight")?;
        }
        const LEAF: &str = "cgroup v2 has no weight against the cgroups below";
        if block.leaf_weight().is_some_and(|weight| weight != 0) {
            return Err(self.error("/blockIO/leafWeight", LEAF));
        }
        for (index, device) in block.weight_device().iter().flatten().enumerate() {
            let field = format!("/blockIO/weightDevice/{index}");
            if device.leaf_weight().is_some_and(|weight| weight != 0) {
                return Err(self.error(&format!("{field}/leafWeight"), LEAF));
            }
            let number = self.device(device.major(), device.minor(), &field)?;
            if let Some(weight) = device.weight().filter(|weight| *weight != 0) {
                self.io_weight(&format!("{number} "), weight, &format!("{field}/weight"))?;
            }
        }
        self.throttle(
            block.throttle_read_bps_device(),
            "rbps",
            "/blockIO/throttleReadBpsDevice",
        )?;
        self.throttle(
            block.throttle_write_bps_device(),
            "wbps",
            "/blockIO/throttleWriteBpsDevice",
        )?;
        self.throttle(
            block.throttle_read_iops_device(),
            "riops",
            "/blockIO/throttleReadIOPSDevice",
        )?;
        self.throttle(
            block.throttle_write_iops_device(),
            "wiops",
            "/blockIO/throttleWriteIOPSDevice",
        )
    }

    /// The BFQ scheduler's file has v1's scale and is there if BFQ is; `io.weight` is iocost's.
    fn io_weight(&mut self, device: &str, weight: u16, field: &str) -> Result<()> {
        if !(10..=1000).contains(&weight) {
            return Err(self.error(field, format!("{weight} is not from 10 to 1000")));
        }
        let instead = Write {
            file: "io.weight".into(),
            value: format!("{device}{}", convert::io_weight(weight)),
            pointer: self.at(field),
            absent: Absent::Refuse,
            again: false,
        };
        self.write("io.bfq.weight", format!("{device}{weight}"), field)
            .absent = Absent::Instead(Box::new(instead));
        Ok(())
    }

    fn throttle(
        &mut self,
        devices: &Option<Vec<LinuxThrottleDevice>>,
        key: &str,
        field: &str,
    ) -> Result<()> {
        for (index, device) in devices.iter().flatten().enumerate() {
            let field = format!("{field}/{index}");
            let number = self.device(device.major(), device.minor(), &field)?;
            // 0 took the limit away on v1; v2 refuses it.
            let rate = match device.rate() {
                0 => "max".into(),
                rate => rate.to_string(),
            };
            self.write("io.max", format!("{number} {key}={rate}"), &field);
        }
        Ok(())
    }

    fn device(&self, major: i64, minor: i64, field: &str) -> Result<String> {
        match (u32::try_from(major), u32::try_from(minor)) {
            (Ok(major), Ok(minor)) => Ok(format!("{major}:{minor}")),
            _ => Err(self.error(field, format!("{major}:{minor} is no device number"))),
        }
    }

    fn hugepages(&mut self, limits: &[LinuxHugepageLimit]) -> Result<()> {
        for (index, limit) in limits.iter().enumerate() {
            let field = format!("/hugepageLimits/{index}");
            let size = limit.page_size();
            // It becomes part of a file's name.
            if !is_page_size(size) {
                return Err(self.error(
                    &format!("{field}/pageSize"),
                    format!("{size:?} is no page size such as \"2MB\" or \"1GB\""),
                ));
            }
            let field = format!("{field}/limit");
            let bytes = u64::try_from(limit.limit())
                .map_err(|_| self.error(&field, format!("{} is no size", limit.limit())))?;
            self.write(format!("hugetlb.{size}.max"), bytes, &field);
            // What a process reserves counts from Linux 5.7.
            self.write(format!("hugetlb.{size}.rsvd.max"), bytes, &field)
                .absent = Absent::Ignore;
        }
        Ok(())
    }

    fn network(&mut self, network: &LinuxNetwork) {
        const NONE: &str = "ignored: cgroup v2 has no counterpart";
        if network.class_id().is_some_and(|id| id != 0) {
            self.warn("/network/classID", NONE);
        }
        if network
            .priorities()
            .as_ref()
            .is_some_and(|list| !list.is_empty())
        {
            self.warn("/network/priorities", NONE);
        }
    }

    fn unified(&mut self, name: &str, value: &str) -> Result<()> {
        let field = format!("/unified/{}", pointer_key(name));
        if !file::is_name(OsStr::new(name)) || !name.contains('.') || name.starts_with('.') {
            return Err(self.error(
                &field,
                format!("{name:?} is no cgroup file, such as \"memory.high\""),
            ));
        }
        let mut lines: Vec<_> = value
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        if lines.is_empty() {
            // The kernel would read nothing as 0. Only an empty list means something.
            if !name.starts_with("cpuset.") {
                return Err(self.error(&field, "the value is empty"));
            }
            lines.push("\n");
        }
        for line in lines {
            self.plan.unified.push(Write {
                file: name.to_owned().into(),
                value: line.to_owned(),
                pointer: self.at(&field),
                absent: Absent::Refuse,
                again: false,
            });
        }
        Ok(())
    }
}

/// `^[1-9][0-9]*[KMG]B$`
fn is_page_size(size: &str) -> bool {
    let digits = ["KB", "MB", "GB"]
        .into_iter()
        .find_map(|unit| size.strip_suffix(unit));
    digits.is_some_and(|digits| {
        !digits.is_empty()
            && !digits.starts_with('0')
            && digits.bytes().all(|byte| byte.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests;
