//! What a cgroup's processes use, in the form of `runc events`, whose names and units are those of
//! cgroup v1; and the v2 files as they are beside it.

mod shape;

use std::collections::BTreeMap;

use self::shape::{
    Blkio, BlkioEntry, Cpu, CpuUsage, Cpuset, Hugetlb, Memory, MemoryEntry, Pids, Pressure, Psi,
    Throttling, V2, Values,
};
pub use self::shape::{NetworkInterface, Stats};
use super::file;
use super::tree::Cgroup;

/// Stands for "no limit" in v1's files, too.
const UNLIMITED: u64 = u64::MAX;

/// Where a key is without a value in a line: `max` is such a value.
fn number(text: &str) -> u64 {
    match text {
        "max" => UNLIMITED,
        _ => text.parse().unwrap_or(0),
    }
}

/// `key value` in each line, as `memory.stat`.
fn flat(text: &str) -> Values {
    let pair = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

/// `device key=value key=value` in each line, as `io.stat`.
fn nested(text: &str) -> BTreeMap<String, Values> {
    text.lines()
        .filter_map(|line| {
            let (device, rest) = line.split_once(' ')?;
            let pairs = rest.split_ascii_whitespace().filter_map(|pair| {
                let (key, value) = pair.split_once('=')?;
                Some((key.to_owned(), number(value)))
            });
            Some((device.to_owned(), pairs.collect()))
        })
        .collect()
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and `full` (Documentation/accounting/psi.rst).
fn pressure(text: &str) -> Psi {
    let mut psi = Psi::default();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let place = match words.next() {
            Some("some") => &mut psi.some,
            Some("full") => &mut psi.full,
            _ => continue,
        };
        let mut found = Pressure::default();
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            match key {
                "avg10" => found.avg10 = value.parse().unwrap_or(0.0),
                "avg60" => found.avg60 = value.parse().unwrap_or(0.0),
                "avg300" => found.avg300 = value.parse().unwrap_or(0.0),
                "total" => found.total = value.parse().unwrap_or(0),
                _ => {}
            }
        }
        *place = Some(found);
    }
    psi
}

/// The numbers of a list such as `0-3,7`.
fn list(text: &str) -> Vec<u16> {
    text.trim()
        .split(',')
        .filter_map(|item| {
            let (first, last) = item.split_once('-').unwrap_or((item, item));
            Some(first.parse::<u16>().ok()?..=last.parse().ok()?)
        })
        .flatten()
        .collect()
}

impl Cgroup {
    /// What a controller that isn't here would tell is 0 or left out. Each file is read once, so that what is
    /// told of it twice, by v1's name and by its own, is of one moment.
    pub fn stats(&self) -> Stats {
        let v2 = self.v2();
        Stats {
            cpu: cpu(&v2),
            cpuset: Cpuset {
                cpus: list(&self.text("cpuset.cpus.effective")),
                mems: list(&self.text("cpuset.mems.effective")),
                ..Cpuset::default()
            },
            memory: self.memory(&v2),
            pids: Pids {
                current: number(self.text("pids.current").trim()),
                limit: match number(self.text("pids.max").trim()) {
                    UNLIMITED => 0,
                    limit => limit,
                },
            },
            blkio: blkio(&v2),
            hugetlb: self.hugetlb(),
            v2: Some(v2),
            ..Stats::default()
        }
    }

    /// Empty if the kernel doesn't have it, or not here.
    fn text(&self, name: &str) -> String {
        file::read(self.fd(), name).unwrap_or_default()
    }

    fn memory_entry(&self, prefix: &str) -> Option<MemoryEntry> {
        let read = |name: &str| {
            file::read(self.fd(), &format!("{prefix}.{name}"))
                .ok()
                .map(|text| number(text.trim()))
        };
        Some(MemoryEntry {
            usage: read("current")?,
            limit: read("max").unwrap_or(UNLIMITED),
            // From Linux 5.19, for swap from 6.5.
            max: read("peak").unwrap_or(0),
            failcnt: 0,
        })
    }

    fn memory(&self, v2: &V2) -> Memory {
        let raw = flat(&self.text("memory.stat"));
        let usage = self.memory_entry("memory").unwrap_or_default();
        let mut swap = self.memory_entry("memory.swap").unwrap_or_default();
        // v1 counts memory and swap together.
        swap.usage = swap.usage.saturating_add(usage.usage);
        swap.limit = swap.limit.saturating_add(usage.limit);
        swap.max = 0;
        Memory {
            cache: raw.get("file").copied().unwrap_or(0),
            usage,
            swap,
            psi: v2.pressure.get("memory.pressure").cloned(),
            raw,
            ..Memory::default()
        }
    }

    fn hugetlb(&self) -> BTreeMap<String, Hugetlb> {
        let sizes = super::apply::huge_page_sizes();
        let entry = |size: String| {
            let read = |name: &str| file::read(self.fd(), &format!("hugetlb.{size}.{name}")).ok();
            // What is reserved counts, where the kernel tells it (5.7).
            let usage = read("rsvd.current").or_else(|| read("current"))?;
            let failcnt = read("events").and_then(|text| file::keyed(&text, "max"));
            let entry = Hugetlb {
                usage: number(usage.trim()),
                failcnt: failcnt.unwrap_or(0),
            };
            Some((size, entry))
        };
        sizes.into_iter().filter_map(entry).collect()
    }

    /// The files as they are, where the kernel has them.
    fn v2(&self) -> V2 {
        let mut v2 = V2::default();
        let read = |name| file::read(self.fd(), name).ok();
        for name in [
            "cgroup.stat",
            "cpu.stat",
            "memory.events",
            "memory.events.local",
            "memory.swap.events",
            "pids.events",
        ] {
            v2.flat.extend(read(name).map(|text| (name, flat(&text))));
        }
        for name in ["io.stat", "rdma.current", "rdma.max"] {
            let told = read(name).map(|text| (name, nested(&text)));
            v2.nested.extend(told);
        }
        // EOPNOTSUPP with psi=0 on the kernel's command line.
        for name in [
            "cpu.pressure",
            "io.pressure",
            "irq.pressure",
            "memory.pressure",
        ] {
            let told = read(name).map(|text| (name, pressure(&text)));
            v2.pressure.extend(told);
        }
        v2
    }
}

fn cpu(v2: &V2) -> Cpu {
    let stat = v2.flat.get("cpu.stat");
    let count = |key: &str| stat.and_then(|stat| stat.get(key)).copied().unwrap_or(0);
    let nanoseconds = |key: &str| count(key).saturating_mul(1000);
    Cpu {
        usage: CpuUsage {
            total: nanoseconds("usage_usec"),
            kernel: nanoseconds("system_usec"),
            user: nanoseconds("user_usec"),
        },
        throttling: Throttling {
            periods: count("nr_periods"),
            throttled_periods: count("nr_throttled"),
            throttled_time: nanoseconds("throttled_usec"),
        },
        psi: v2.pressure.get("cpu.pressure").cloned(),
    }
}

fn blkio(v2: &V2) -> Blkio {
    let mut blkio = Blkio {
        psi: v2.pressure.get("io.pressure").cloned(),
        ..Blkio::default()
    };
    for (device, values) in v2.nested.get("io.stat").into_iter().flatten() {
        let Some((major, minor)) = device.split_once(':') else {
            continue;
        };
        for (key, &value) in values {
            let (table, op) = match key.as_str() {
                "rbytes" => (&mut blkio.bytes, "Read"),
                "wbytes" => (&mut blkio.bytes, "Write"),
                "rios" => (&mut blkio.operations, "Read"),
                "wios" => (&mut blkio.operations, "Write"),
                _ => continue,
            };
            table.push(BlkioEntry {
                major: number(major),
                minor: number(minor),
                op,
                value,
            });
        }
    }
    blkio
}

#[cfg(test)]
mod tests;
