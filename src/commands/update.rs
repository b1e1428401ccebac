use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::Global;
use crate::bundle;
use crate::bundle::advise;
use crate::container::update::{Change, update};
use crate::error::{Error, Result, Step};
use crate::log;

#[derive(clap::Args, Debug, Clone, PartialEq, Eq)]
#[group(skip)]
pub struct Args {
    /// File with limits as in linux.resources, - for standard input; the options of these are then not used
    #[arg(short, long, value_name = "FILE")]
    pub resources: Option<PathBuf>,
    /// Weight of the container's block I/O, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    pub blkio_weight: Option<u16>,
    /// Period that --cpu-quota is for
    #[arg(long, value_name = "MICROSECONDS")]
    pub cpu_period: Option<u64>,
    /// Time on the CPUs in each period, -1 for no limit
    #[arg(long, value_name = "MICROSECONDS")]
    pub cpu_quota: Option<i64>,
    /// Unused time of earlier periods that one may take besides
    #[arg(long, value_name = "MICROSECONDS")]
    pub cpu_burst: Option<u64>,
    /// Share of the CPUs against other cgroups, 1024 being usual
    #[arg(long, value_name = "SHARES")]
    pub cpu_share: Option<u64>,
    /// Period of realtime scheduling
    #[arg(long, value_name = "MICROSECONDS", hide = true)]
    pub cpu_rt_period: Option<u64>,
    /// Time for realtime scheduling
    #[arg(long, value_name = "MICROSECONDS", hide = true)]
    pub cpu_rt_runtime: Option<i64>,
    /// CPUs to run on, as in 0-3,7
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes to use, as in 0-1
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// 1 to run only when the CPUs have nothing else to do
    #[arg(long, value_name = "0|1")]
    pub cpu_idle: Option<i64>,
    /// Memory limit, as in 512m; -1 for none
    #[arg(long, value_name = "BYTES", value_parser = parse_size)]
    pub memory: Option<i64>,
    /// Memory that is taken from the container only if others have no more
    #[arg(long, value_name = "BYTES", value_parser = parse_size)]
    pub memory_reservation: Option<i64>,
    /// Limit of memory and swap together, -1 for none
    #[arg(long, value_name = "BYTES", value_parser = parse_size)]
    pub memory_swap: Option<i64>,
    #[arg(long, value_name = "BYTES", value_parser = parse_size, hide = true)]
    pub kernel_memory: Option<i64>,
    #[arg(long, value_name = "BYTES", value_parser = parse_size, hide = true)]
    pub kernel_memory_tcp: Option<i64>,
    /// Number of processes and threads, -1 for no limit
    #[arg(long, value_name = "N")]
    pub pids_limit: Option<i64>,
    /// Line of the resctrl schemata for the L3 cache
    #[arg(long, value_name = "SCHEMA")]
    pub l3_cache_schema: Option<String>,
    /// Line of the resctrl schemata for memory bandwidth
    #[arg(long, value_name = "SCHEMA")]
    pub mem_bw_schema: Option<String>,
    /// Name of the container
    pub id: String,
}

/// Which option is which entry of `linux.resources`.
const OPTIONS: &[(&str, &str)] = &[
    ("--blkio-weight", "/blockIO/weight"),
    ("--cpu-period", "/cpu/period"),
    ("--cpu-quota", "/cpu/quota"),
    ("--cpu-burst", "/cpu/burst"),
    ("--cpu-share", "/cpu/shares"),
    ("--cpu-rt-period", "/cpu/realtimePeriod"),
    ("--cpu-rt-runtime", "/cpu/realtimeRuntime"),
    ("--cpuset-cpus", "/cpu/cpus"),
    ("--cpuset-mems", "/cpu/mems"),
    ("--cpu-idle", "/cpu/idle"),
    ("--memory", "/memory/limit"),
    ("--memory-reservation", "/memory/reservation"),
    ("--memory-swap", "/memory/swap"),
    ("--kernel-memory", "/memory/kernel"),
    ("--kernel-memory-tcp", "/memory/kernelTCP"),
    ("--pids-limit", "/pids/limit"),
];

/// And of `linux.intelRdt`.
const SCHEMATA: &[(&str, &str)] = &[
    ("--l3-cache-schema", "/linux/intelRdt/l3CacheSchema"),
    ("--mem-bw-schema", "/linux/intelRdt/memBwSchema"),
];

impl Args {
    /// What the options ask for, in the form of `--resources`.
    fn document(&self) -> Value {
        let mut groups = Map::new();
        for (option, pointer) in OPTIONS {
            let Some(value) = self.given(option) else {
                continue;
            };
            let mut keys = pointer.split('/').skip(1);
            if let (Some(group), Some(key)) = (keys.next(), keys.next()) {
                groups.entry(group).or_insert_with(|| json!({}))[key] = value;
            }
        }
        Value::Object(groups)
    }

    fn given(&self, option: &str) -> Option<Value> {
        match option {
            "--blkio-weight" => self.blkio_weight.map(Value::from),
            "--cpu-period" => self.cpu_period.map(Value::from),
            "--cpu-quota" => self.cpu_quota.map(Value::from),
            "--cpu-burst" => self.cpu_burst.map(Value::from),
            "--cpu-share" => self.cpu_share.map(Value::from),
            "--cpu-rt-period" => self.cpu_rt_period.map(Value::from),
            "--cpu-rt-runtime" => self.cpu_rt_runtime.map(Value::from),
            "--cpuset-cpus" => self.cpuset_cpus.clone().map(Value::from),
            "--cpuset-mems" => self.cpuset_mems.clone().map(Value::from),
            "--cpu-idle" => self.cpu_idle.map(Value::from),
            "--memory" => self.memory.map(Value::from),
            "--memory-reservation" => self.memory_reservation.map(Value::from),
            "--memory-swap" => self.memory_swap.map(Value::from),
            "--kernel-memory" => self.kernel_memory.map(Value::from),
            "--kernel-memory-tcp" => self.kernel_memory_tcp.map(Value::from),
            "--pids-limit" => self.pids_limit.map(Value::from),
            _ => None,
        }
    }
}

/// Names the option in the place of the entry that it became.
fn by_option(error: Error) -> Error {
    let mut options = OPTIONS.iter().chain(SCHEMATA);
    let option = error
        .pointer()
        .and_then(|pointer| options.find(|(_, entry)| *entry == pointer));
    match option {
        Some((option, _)) => error.at(*option),
        None => error,
    }
}

/// A number of bytes with or without a unit, in powers of 1024: `64m`, `1.5G`, `512KiB`; or -1.
fn parse_size(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text:?} is no size such as 64m or 2g, nor -1");
    if text == "-1" {
        return Ok(-1);
    }
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim_start().to_ascii_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let shift = match unit.strip_suffix('i').unwrap_or(unit) {
        "" if !unit.is_empty() => return Err(wrong()),
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return Err(wrong()),
    };
    let scale = 1i64 << shift;
    if let Ok(whole) = number.parse::<i64>() {
        return whole
            .checked_mul(scale)
            .ok_or_else(|| format!("{text:?} is too large"));
    }
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let bytes = number * scale as f64;
    match bytes < i64::MAX as f64 {
        true => Ok(bytes as i64),
        false => Err(format!("{text:?} is too large")),
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    if path == Path::new("-") {
        return bundle::read_stream(std::io::stdin().lock(), 0, Path::new("standard input"));
    }
    let file = std::fs::File::open(path)
        .step("open", path.display())
        .map_err(|error| advise(error, path))?;
    bundle::read_stream(file, 0, path)
}

pub fn run(args: Args, global: &Global) -> anyhow::Result<u8> {
    let (raw, by_options) = match &args.resources {
        Some(path) => {
            if args.document() != json!({}) {
                log::warning(format_args!(
                    "update: with --resources other options are not used"
                ));
            }
            (read(path)?, false)
        }
        None => (serde_json::to_vec(&args.document())?, true),
    };
    let done = bundle::parse_resources(&raw).and_then(|(resources, extra, warnings)| {
        for warning in warnings {
            log::warning(format_args!(
                "resources ({}): {}",
                warning.pointer, warning.message
            ));
        }
        let change = Change {
            resources,
            pids: extra.pids_limit,
            l3_cache: args.l3_cache_schema.as_deref(),
            memory_bandwidth: args.mem_bw_schema.as_deref(),
        };
        update(&global.root, &args.id, change)
    });
    match by_options {
        true => done.map_err(by_option)?,
        false => done?,
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("1024", Some(1024)),
            ("64k", Some(64 << 10)),
            ("64K", Some(64 << 10)),
            ("64m", Some(64 << 20)),
            ("64MB", Some(64 << 20)),
            ("64MiB", Some(64 << 20)),
            ("64 mb", Some(64 << 20)),
            ("2g", Some(2 << 30)),
            ("1.5g", Some(3 << 29)),
            ("3T", Some(3 << 40)),
            ("12b", Some(12)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("9999999p", None),
            ("99999999999.5g", None),
            ("", None),
            ("m", None),
            ("-2", None),
            ("-1m", None),
            ("+1", None),
            ("1x", None),
            ("1i", None),
            ("1mm", None),
            ("1.2.3", None),
            ("0x10", None),
            ("1e3", None),
            (" 1", None),
        ] {
            assert_eq!(parse_size(text).ok(), bytes, "{text:?}");
        }
    }

    /// Every option of a limit is in the table, and each of the table is one.
    #[test]
    fn the_table_of_options_is_whole() {
        use clap::Args as _;
        let definition = Args::augment_args(clap::Command::new("update"));
        let own: Vec<String> = definition
            .get_arguments()
            .filter_map(|arg| arg.get_long().map(|long| format!("--{long}")))
            .filter(|long| !long.ends_with("-schema") && long != "--resources")
            .collect();
        let table: Vec<&str> = OPTIONS.iter().map(|(option, _)| *option).collect();
        assert_eq!(own, table);
        for option in table {
            let words = [option, "1", "c"];
            let matches = definition
                .clone()
                .no_binary_name(true)
                .get_matches_from(words);
            let args = <Args as clap::FromArgMatches>::from_arg_matches(&matches).unwrap();
            assert!(args.given(option).is_some(), "{option}");
        }
    }
}
