//! What resctrl says of a container, in the form of `intel_rdt` in `runc events`.

use serde::Serialize;

use super::tree::{Group, MONITORS, Tree};
use super::{Place, Result};

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    #[serde(skip_serializing_if = "Option::is_none")]
    l3_cache_info: Option<CacheInfo>,
    /// The line of the default group.
    #[serde(skip_serializing_if = "String::is_empty")]
    l3_cache_schema_root: String,
    /// That of the container's.
    #[serde(skip_serializing_if = "String::is_empty")]
    l3_cache_schema: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mem_bw_info: Option<BandwidthInfo>,
    #[serde(skip_serializing_if = "String::is_empty")]
    mem_bw_schema_root: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    mem_bw_schema: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mbm_stats: Vec<Bandwidth>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cmt_stats: Vec<Occupancy>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct CacheInfo {
    cbm_mask: String,
    min_cbm_bits: u64,
    num_closids: u64,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct BandwidthInfo {
    bandwidth_gran: u64,
    delay_linear: u64,
    min_bandwidth: u64,
    num_closids: u64,
}

/// Bytes, of one domain of caches.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Bandwidth {
    mbm_total_bytes: u64,
    mbm_local_bytes: u64,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Occupancy {
    llc_occupancy: u64,
}

impl Place {
    /// What there is: processors and kernels have some of it.
    ///
    /// # Errors
    /// The group is gone.
    pub fn stats(&self) -> Result<Stats> {
        self.stats_in(&self.tree()?)
    }

    pub(super) fn stats_in(&self, tree: &Tree) -> Result<Stats> {
        let root = tree.root()?;
        let group = self.group_in(tree)?;
        let mut stats = Stats::default();
        let (theirs, ours) = (root.read("schemata")?, group.read("schemata")?);
        let info = root.open("info")?;
        if let Some(l3) = info.as_ref().and_then(|info| info.open("L3").ok()?) {
            stats.l3_cache_info = Some(CacheInfo {
                cbm_mask: text(&l3, "cbm_mask"),
                min_cbm_bits: number(&l3, "min_cbm_bits"),
                num_closids: number(&l3, "num_closids"),
            });
            stats.l3_cache_schema_root = line(&theirs, "L3:");
            stats.l3_cache_schema = line(&ours, "L3:");
        }
        if let Some(mb) = info.as_ref().and_then(|info| info.open("MB").ok()?) {
            stats.mem_bw_info = Some(BandwidthInfo {
                bandwidth_gran: number(&mb, "bandwidth_gran"),
                delay_linear: number(&mb, "delay_linear"),
                min_bandwidth: number(&mb, "min_bandwidth"),
                num_closids: number(&mb, "num_closids"),
            });
            stats.mem_bw_schema_root = line(&theirs, "MB:");
            stats.mem_bw_schema = line(&ours, "MB:");
        }
        let monitored = match &self.monitor {
            Some(monitor) => group.existing(MONITORS)?.existing(&monitor.name)?,
            None => group,
        };
        stats.add_monitors(&monitored)?;
        Ok(stats)
    }
}

impl Stats {
    /// `mon_data/mon_L3_00`, and one more for each further cache.
    fn add_monitors(&mut self, group: &Group) -> Result<()> {
        let Some(data) = group.open("mon_data")? else {
            return Ok(());
        };
        for index in 0.. {
            let Some(domain) = data.open(&format!("mon_L3_{index:02}"))? else {
                break;
            };
            let read = |name: &str| domain.read(name).ok()?.trim().parse().ok();
            if let (Some(mbm_total_bytes), Some(mbm_local_bytes)) =
                (read("mbm_total_bytes"), read("mbm_local_bytes"))
            {
                self.mbm_stats.push(Bandwidth {
                    mbm_total_bytes,
                    mbm_local_bytes,
                });
            }
            if let Some(llc_occupancy) = read("llc_occupancy") {
                self.cmt_stats.push(Occupancy { llc_occupancy });
            }
        }
        Ok(())
    }
}

fn text(group: &Group, name: &str) -> String {
    group
        .read(name)
        .map_or_else(|_| String::new(), |text| text.trim().to_owned())
}

fn number(group: &Group, name: &str) -> u64 {
    text(group, name).parse().unwrap_or(0)
}

/// The kernel aligns the names of resources.
fn line(schemata: &str, resource: &str) -> String {
    schemata
        .lines()
        .map(str::trim)
        .find(|line| line.starts_with(resource))
        .unwrap_or_default()
        .to_owned()
}
