//! What happens in a container: numbers at intervals, and the OOM killer's work.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sched::CloneFlags;
use serde_json::Value;

use super::{Container, Status, find};
use crate::cgroups::{Cgroup, NetworkInterface, Stats};
use crate::error::{Error, Result};

#[derive(Debug)]
pub enum Event {
    Stats(Box<Stats>),
    /// The kernel killed a process for want of memory.
    Oom,
}

/// A container whose processes can be watched.
pub struct Watched {
    container: Container,
    cgroup: Cgroup,
}

impl Watched {
    pub fn find(root: &Path, id: &str) -> Result<Watched> {
        let container = find(root, id)?;
        if container.status()? == Status::Stopped {
            return Err(Error::new("watch container")
                .on(id)
                .because("container not running"));
        }
        let cgroup = container.require_cgroup()?;
        Ok(Watched { container, cgroup })
    }

    pub fn stats(&self) -> Stats {
        let mut stats = self.cgroup.stats();
        stats.network_interfaces = self.network_interfaces();
        let rdt = self.container.record.rdt.as_ref();
        let told = rdt.and_then(|group| serde_json::to_value(group.stats().ok()?).ok());
        if let Some(Value::Object(told)) = told {
            stats.intel_rdt = told;
        }
        stats
    }

    /// Those of the container's own network namespace; the host's are not its. Loopback isn't told.
    fn network_interfaces(&self) -> Vec<NetworkInterface> {
        let own = CloneFlags::CLONE_NEWNET.bits() as u64;
        let init = match self.container.record.init {
            Some(init) if self.container.record.namespaces & own != 0 => init,
            _ => return Vec::new(),
        };
        let text = std::fs::read(format!("/proc/{}/net/dev", init.pid));
        // Only if the number is still that process's was it its file.
        match (text, self.container.init()) {
            // A name of a device may be of any bytes.
            (Ok(text), Ok(Some(_))) => interfaces(&String::from_utf8_lossy(&text)),
            _ => Vec::new(),
        }
    }

    /// Calls `tell` with each event, and with numbers at once and then at each interval, until the
    /// container has no process any more or `tell` returns false.
    pub fn watch(
        &self,
        interval: Duration,
        mut tell: impl FnMut(Event) -> Result<bool>,
    ) -> Result<()> {
        let mut watch = self.cgroup.watch()?;
        let mut next = Instant::now();
        loop {
            // In this order: a process that was killed for want of memory may have been the last.
            let ended = watch.is_deserted()?;
            if watch.oom_killed() && !tell(Event::Oom)? {
                return Ok(());
            }
            if ended {
                return Ok(());
            }
            if Instant::now() >= next {
                // Whoever greps a stream for `oom` means the event, not a key of memory.events.
                let stats = Stats {
                    v2: None,
                    ..self.stats()
                };
                if !tell(Event::Stats(Box::new(stats)))? {
                    return Ok(());
                }
                next += interval;
                // After a pause of the machine there is no catching up.
                next = next.max(Instant::now());
            }
            watch.wait(next.saturating_duration_since(Instant::now()))?;
        }
    }
}

/// /proc/PID/net/dev, proc_pid_net(5): eight counters of what was received, eight of what was sent.
fn interfaces(text: &str) -> Vec<NetworkInterface> {
    text.lines()
        .skip(2)
        .filter_map(|line| {
            let (name, rest) = line.split_once(':')?;
            let counters: Vec<u64> = rest
                .split_ascii_whitespace()
                .map_while(|word| word.parse().ok())
                .collect();
            let [rx_bytes, rx_packets, rx_errors, rx_dropped, ..] = counters[..] else {
                return None;
            };
            let [tx_bytes, tx_packets, tx_errors, tx_dropped, ..] = *counters.get(8..)? else {
                return None;
            };
            Some(NetworkInterface {
                name: name.trim().to_owned(),
                rx_bytes,
                rx_packets,
                rx_errors,
                rx_dropped,
                tx_bytes,
                tx_packets,
                tx_errors,
                tx_dropped,
            })
        })
        .filter(|interface| interface.name != "lo")
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_read_from_net_dev() {
        let text = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       2    0    0    0     0          0         0      100       2    0    0    0     0       0          0
  eth0:    2000      20    1    3    0     0          0         0     4000      40    5    7    0     0       0          0
";
        let expected = NetworkInterface {
            name: "eth0".into(),
            rx_bytes: 2000,
            rx_packets: 20,
            rx_errors: 1,
            rx_dropped: 3,
            tx_bytes: 4000,
            tx_packets: 40,
            tx_errors: 5,
            tx_dropped: 7,
        };
        assert_eq!(interfaces(text), [expected]);
    }
}
