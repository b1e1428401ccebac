//! `linux.resources` as properties of a unit (systemd.resource-control(5), org.freedesktop.systemd1(5)).
//!
//! They are derived from the writes that are planned for the cgroup's files: so both always say the same,
//! and systemd, which writes its own idea of a unit into these files at every `daemon-reload`, has no
//! other. A file that no property is about stays as husk wrote it, as does a value that systemd can't say.

use super::wire::Value;
use crate::cgroups::plan::{Absent, Plan, Write};

/// A property of a unit, and the entry of config.json that asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Property {
    pub name: String,
    pub value: Value,
    pub pointer: String,
}

/// When it is set: not everything can be changed of a unit that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    Start,
    Later,
}

const INFINITY: u64 = u64::MAX;

/// What a plan is for a systemd of this version.
pub fn of(plan: &Plan, version: u32, when: When) -> Vec<Property> {
    let mut found = Vec::new();
    for write in plan.writes.iter().chain(&plan.unified) {
        // systemd itself writes both files of block I/O's weights, from a value of the newer scale.
        let write = match &write.absent {
            Absent::Instead(other) => other,
            _ => write,
        };
        let known = values(&write.file, write.value.trim(), version, when);
        found.extend(known.into_iter().map(|(name, value)| Property {
            name: name.to_owned(),
            value,
            pointer: write.pointer.clone(),
        }));
    }
    found
}

fn values(file: &str, value: &str, version: u32, when: When) -> Vec<(&'static str, Value)> {
    let amount = |name: &'static str| {
        amount(value)
            .map(|amount| (name, Value::Number(amount)))
            .into_iter()
            .collect()
    };
    let mask = |name: &'static str| match mask(value) {
        Some(mask) if version >= 244 => vec![(name, Value::Bytes(mask))],
        _ => Vec::new(),
    };
    match file {
        "memory.max" => amount("MemoryMax"),
        "memory.high" => amount("MemoryHigh"),
        "memory.low" => amount("MemoryLow"),
        "memory.min" if version >= 240 => amount("MemoryMin"),
        "memory.swap.max" => amount("MemorySwapMax"),
        "memory.zswap.max" if version >= 253 => amount("MemoryZSwapMax"),
        // It can't be changed once the unit is there.
        "memory.oom.group" if version >= 253 && when == When::Start => {
            let policy = if value == "1" { "kill" } else { "continue" };
            vec![("OOMPolicy", Value::Text(policy.into()))]
        }
        "pids.max" => amount("TasksMax"),
        "cpu.weight" => weight(value, "CPUWeight"),
        "cpu.idle" if version >= 252 && value == "1" => vec![("CPUWeight", Value::Number(0))],
        "cpu.max" => bandwidth(value, version),
        "cpuset.cpus" => mask("AllowedCPUs"),
        "cpuset.mems" => mask("AllowedMemoryNodes"),
        "io.weight" => match value.split_once(' ') {
            None => weight(value, "IOWeight"),
            Some(("default", value)) => weight(value, "IOWeight"),
            Some((device, value)) => match (device_path(device), value.parse()) {
                (Some(path), Ok(weight @ 1..=10_000)) => {
                    vec![("IODeviceWeight", Value::PerDevice(vec![(path, weight)]))]
                }
                _ => Vec::new(),
            },
        },
        "io.max" => rates(value),
        _ => Vec::new(),
    }
}

fn weight(value: &str, name: &'static str) -> Vec<(&'static str, Value)> {
    match value.parse() {
        Ok(weight @ 1..=10_000) => vec![(name, Value::Number(weight))],
        _ => Vec::new(),
    }
}

/// A number of bytes or tasks, with the suffixes that the kernel takes.
fn amount(value: &str) -> Option<u64> {
    if value == "max" {
        return Some(INFINITY);
    }
    let (digits, shift) = match value.as_bytes().last()?.to_ascii_lowercase() {
        b'k' => (&value[..value.len() - 1], 10),
        b'm' => (&value[..value.len() - 1], 20),
        b'g' => (&value[..value.len() - 1], 30),
        b't' => (&value[..value.len() - 1], 40),
        _ => (value, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// `cpu.max`: `QUOTA PERIOD`, either of which may be left away.
fn bandwidth(value: &str, version: u32) -> Vec<(&'static str, Value)> {
    let (quota, period) = value.split_once(' ').unwrap_or((value, "100000"));
    let Some(period) = period.parse().ok().filter(|period| *period > 0) else {
        return Vec::new();
    };
    let per_second = match quota {
        "max" => INFINITY,
        quota => match quota.parse() {
            Ok(quota) => per_second(quota, period),
            Err(_) => return Vec::new(),
        },
    };
    let mut found = vec![("CPUQuotaPerSecUSec", Value::Number(per_second))];
    if version >= 242 && (1000..=1_000_000).contains(&period) {
        found.push(("CPUQuotaPeriodUSec", Value::Number(period)));
    }
    found
}

/// systemd keeps a quota as whole percents of a CPU and rounds down: husk rounds up before.
fn per_second(quota: u64, period: u64) -> u64 {
    const PERCENT: u128 = 10_000;
    let exact = (u128::from(quota) * 1_000_000).div_ceil(u128::from(period));
    let rounded = exact.div_ceil(PERCENT) * PERCENT;
    u64::try_from(rounded).unwrap_or(INFINITY)
}

/// Makes the quotas of a plan those that systemd will say they are.
pub fn round_quota(plan: &mut Plan) {
    let writes = plan.writes.iter_mut().chain(&mut plan.unified);
    for write in writes.filter(|write| write.file == "cpu.max") {
        round(write);
    }
}

fn round(write: &mut Write) {
    let value = write.value.trim();
    let (quota, period) = value.split_once(' ').unwrap_or((value, "100000"));
    if let (Ok(quota), Ok(period @ 1..)) = (quota.parse::<u64>(), period.parse::<u64>()) {
        let rounded = u128::from(per_second(quota, period)) * u128::from(period) / 1_000_000;
        write.value = format!("{rounded} {period}");
    }
}

/// `0-3,7` as bits, the first byte's lowest being 0.
fn mask(list: &str) -> Option<Vec<u8>> {
    // More than a kernel can be built for.
    const MOST: usize = 1 << 16;
    let mut mask = Vec::new();
    for range in list
        .split([',', ' ', '\n'])
        .filter(|range| !range.is_empty())
    {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last >= MOST {
            return None;
        }
        mask.resize(mask.len().max(last / 8 + 1), 0);
        for number in first..=last {
            mask[number / 8] |= 1 << (number % 8);
        }
    }
    Some(mask)
}

/// systemd knows devices by their files.
fn device_path(number: &str) -> Option<String> {
    let (major, minor) = number.split_once(':')?;
    let (major, minor): (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
    Some(format!("/dev/block/{major}:{minor}"))
}

/// `io.max`: `MAJOR:MINOR KEY=RATE…`.
fn rates(value: &str) -> Vec<(&'static str, Value)> {
    let mut words = value.split_ascii_whitespace();
    let Some(path) = words.next().and_then(device_path) else {
        return Vec::new();
    };
    words
        .filter_map(|word| {
            let (key, rate) = word.split_once('=')?;
            let name = match key {
                "rbps" => "IOReadBandwidthMax",
                "wbps" => "IOWriteBandwidthMax",
                "riops" => "IOReadIOPSMax",
                "wiops" => "IOWriteIOPSMax",
                _ => return None,
            };
            let rate = amount(rate)?;
            Some((name, Value::PerDevice(vec![(path.clone(), rate)])))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(file: &'static str, value: &str) -> Write {
        Write {
            file: file.into(),
            value: value.into(),
            pointer: "/p".into(),
            absent: Absent::Refuse,
            again: false,
        }
    }

    fn of_file(file: &str, value: &str, version: u32) -> Vec<(&'static str, Value)> {
        values(file, value, version, When::Start)
    }

    #[test]
    fn every_limit_that_systemd_knows() {
        use Value::{Bytes, Number, PerDevice, Text};
        let on = |rate| PerDevice(vec![("/dev/block/8:0".into(), rate)]);
        for (file, value, expected) in [
            (
                "memory.max",
                "67108864",
                vec![("MemoryMax", Number(64 << 20))],
            ),
            ("memory.max", "max", vec![("MemoryMax", Number(INFINITY))]),
            ("memory.max", "64M", vec![("MemoryMax", Number(64 << 20))]),
            ("memory.max", "lots", vec![]),
            ("memory.high", "1k", vec![("MemoryHigh", Number(1024))]),
            ("memory.low", "5", vec![("MemoryLow", Number(5))]),
            ("memory.min", "5", vec![("MemoryMin", Number(5))]),
            ("memory.swap.max", "0", vec![("MemorySwapMax", Number(0))]),
            ("memory.zswap.max", "7", vec![("MemoryZSwapMax", Number(7))]),
            (
                "memory.oom.group",
                "1",
                vec![("OOMPolicy", Text("kill".into()))],
            ),
            (
                "memory.oom.group",
                "0",
                vec![("OOMPolicy", Text("continue".into()))],
            ),
            ("pids.max", "20", vec![("TasksMax", Number(20))]),
            ("pids.max", "max", vec![("TasksMax", Number(INFINITY))]),
            ("cpu.weight", "100", vec![("CPUWeight", Number(100))]),
            ("cpu.weight", "10001", vec![]),
            ("cpu.idle", "1", vec![("CPUWeight", Number(0))]),
            ("cpu.idle", "0", vec![]),
            (
                "cpuset.cpus",
                "0,2-3",
                vec![("AllowedCPUs", Bytes(vec![0b1101]))],
            ),
            ("cpuset.cpus", "8", vec![("AllowedCPUs", Bytes(vec![0, 1]))]),
            ("cpuset.cpus", "3-1", vec![]),
            ("cpuset.cpus", "0-99999999999", vec![]),
            ("cpuset.cpus", "0-9:2/4", vec![]),
            (
                "cpuset.mems",
                "0",
                vec![("AllowedMemoryNodes", Bytes(vec![1]))],
            ),
            ("io.weight", "4950", vec![("IOWeight", Number(4950))]),
            ("io.weight", "default 10", vec![("IOWeight", Number(10))]),
            ("io.weight", "8:0 10", vec![("IODeviceWeight", on(10))]),
            (
                "io.max",
                "8:0 rbps=1048576 wiops=max",
                vec![
                    ("IOReadBandwidthMax", on(1 << 20)),
                    ("IOWriteIOPSMax", on(INFINITY)),
                ],
            ),
            ("io.max", "x rbps=1", vec![]),
            ("hugetlb.2MB.max", "0", vec![]),
            ("rdma.max", "mlx4_0 hca_handle=2", vec![]),
            ("cpu.max.burst", "1000", vec![]),
        ] {
            assert_eq!(of_file(file, value, 257), expected, "{file} {value}");
        }
    }

    #[test]
    fn quotas_are_whole_percents() {
        for (quota, period, per_second_expected, rounded) in [
            (50_000, 100_000, 500_000, 50_000),
            (500_000, 1_000_000, 500_000, 500_000),
            (1000, 100_000, 10_000, 1000),
            (1001, 100_000, 20_000, 2000),
            (33_333, 100_000, 340_000, 34_000),
            (1_000, 1_000_000, 10_000, 10_000),
            (3, 7, 430_000, 3),
            (400_000, 100_000, 4_000_000, 400_000),
        ] {
            assert_eq!(per_second(quota, period), per_second_expected);
            let mut plan = Plan::default();
            plan.writes
                .push(write("cpu.max", &format!("{quota} {period}")));
            round_quota(&mut plan);
            assert_eq!(plan.writes[0].value, format!("{rounded} {period}"));
        }
        assert_eq!(per_second(u64::MAX, 1), INFINITY);
        assert_eq!(
            of_file("cpu.max", "max 100000", 257),
            [
                ("CPUQuotaPerSecUSec", Value::Number(INFINITY)),
                ("CPUQuotaPeriodUSec", Value::Number(100_000))
            ]
        );
        assert_eq!(of_file("cpu.max", "1000 0", 257), []);
        let mut plan = Plan::default();
        plan.unified.push(write("cpu.max", "max"));
        round_quota(&mut plan);
        assert_eq!(plan.unified[0].value, "max");
    }

    #[test]
    fn an_older_systemd_is_not_told_what_it_does_not_know() {
        for (file, value, version) in [
            ("memory.min", "5", 239),
            ("memory.zswap.max", "5", 252),
            ("memory.oom.group", "1", 252),
            ("cpu.idle", "1", 251),
            ("cpuset.cpus", "0", 243),
            ("cpuset.mems", "0", 243),
        ] {
            assert_eq!(of_file(file, value, version), [], "{file}");
            assert_ne!(of_file(file, value, version + 1), [], "{file}");
        }
        assert_eq!(of_file("cpu.max", "1000 10000", 241).len(), 1);
        assert_eq!(of_file("cpu.max", "1000 10000", 242).len(), 2);
        assert_eq!(values("memory.oom.group", "1", 257, When::Later), []);
    }

    #[test]
    fn the_weight_of_block_io_is_that_of_the_newer_file() {
        let mut plan = Plan::default();
        plan.writes.push(Write {
            absent: Absent::Instead(Box::new(write("io.weight", "4950"))),
            ..write("io.bfq.weight", "500")
        });
        plan.unified.push(write("memory.max", "1M"));
        let found = of(&plan, 257, When::Start);
        assert_eq!(found[0].name, "IOWeight");
        assert_eq!(found[0].value, Value::Number(4950));
        assert_eq!(found[1].name, "MemoryMax");
        assert_eq!(found[1].pointer, "/p");
    }
}
