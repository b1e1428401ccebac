//! Other limits for a cgroup that is in use: all of them, or none.

use oci_spec::runtime::LinuxResources;

use super::file;
use super::plan::{Absent, Plan, Write};
use super::tree::Cgroup;
use crate::error::Result;

impl Cgroup {
    /// Adds what is in force to limits that mean something only together with it: the period to a
    /// quota that comes alone and the other way round, the memory limit to one of memory and swap.
    pub fn complete(&self, resources: &mut LinuxResources) {
        if let Some(cpu) = resources.cpu_mut() {
            let quota = cpu.quota().filter(|quota| *quota != 0);
            let period = cpu.period().filter(|period| *period != 0);
            if quota.is_some() != period.is_some()
                && let Ok(text) = file::read(self.fd(), "cpu.max")
                && let Some((now, every)) = text.trim().split_once(' ')
            {
                match quota {
                    Some(_) => cpu.set_period(every.parse().ok()),
                    None => cpu.set_quota(now.parse().ok()),
                };
            }
        }
        if let Some(memory) = resources.memory_mut()
            && memory.limit().unwrap_or(0) == 0
            && memory.swap().is_some_and(|swap| swap > 0)
            && let Ok(text) = file::read(self.fd(), "memory.max")
            && let Ok(limit) = text.trim().parse()
        {
            memory.set_limit(Some(limit));
        }
    }

    /// Sets the limits of a plan and does what else is to be done, or leaves all limits as they were.
    ///
    /// # Errors
    /// Those of [`Cgroup::apply`] and of `rest`. A hint tells of values that could not be put back.
    pub fn change(&self, plan: &mut Plan, rest: impl FnOnce() -> Result<()>) -> Result<()> {
        self.check_ceilings(plan)?;
        let writes = plan.writes.iter().chain(&plan.unified);
        let mut before = Plan {
            writes: writes.filter_map(|write| self.before(write)).collect(),
            ..Plan::default()
        };
        let done = self
            .tell_owner(plan)
            .and_then(|()| self.apply(plan))
            .and_then(|()| rest());
        let Err(error) = done else { return Ok(()) };
        // What was refused because of another file's value is tried again when that is back.
        before.writes.reverse();
        let _ = self.tell_owner(&mut before);
        for _ in 0..2 {
            before.writes.retain(|write| self.set(write).is_err());
        }
        Err(match before.writes.is_empty() {
            true => error,
            false => {
                let files: Vec<_> = before.writes.iter().map(|old| old.file.as_ref()).collect();
                error.hint(format!("{} could not be put back", files.join(", ")))
            }
        })
    }

    /// systemd would write its own idea of a unit's limits again one day.
    fn tell_owner(&self, plan: &mut Plan) -> Result<()> {
        let Some(owner) = &self.place().owner else {
            return Ok(());
        };
        // Idle is a weight to systemd: to end it there must be another, and this is the kernel's.
        let ends_idle = |write: &Write| write.file == "cpu.idle" && write.value == "0";
        if let Some(at) = plan.writes.iter().position(ends_idle)
            && file::read(self.fd(), "cpu.idle").is_ok_and(|now| now.trim() == "1")
        {
            let weight = Write {
                file: "cpu.weight".into(),
                value: "100".into(),
                ..plan.writes[at].clone()
            };
            plan.writes.insert(at + 1, weight);
        }
        owner.update(plan)
    }

    /// What undoes a write.
    fn before(&self, write: &Write) -> Option<Write> {
        match (file::read(self.fd(), &write.file), &write.absent) {
            (Ok(text), _) => Some(Write {
                value: value_before(&write.file, &text, &write.value),
                absent: Absent::Refuse,
                ..write.clone()
            }),
            (Err(_), Absent::Instead(other)) => self.before(other),
            // Can't be read, so it can't be put back either: cgroup.kill, memory.reclaim.
            (Err(_), _) => None,
        }
    }
}

/// What to write to `file`, which holds `text`, to undo a write of `value`. Most have one value; in
/// others each device has a line.
fn value_before(file: &str, text: &str, value: &str) -> String {
    let (reset, has_default) = match file {
        "io.max" => ("rbps=max wbps=max riops=max wiops=max", false),
        "io.latency" => ("target=0", false),
        "io.weight" | "io.bfq.weight" => ("default", true),
        "rdma.max" => ("hca_handle=max hca_object=max", false),
        "misc.max" => ("max", false),
        // An empty list is written as an empty line, as nothing would be no write.
        _ if text.trim().is_empty() => return "\n".into(),
        _ => return text.trim().into(),
    };
    let key = match value.trim().split_once(' ') {
        Some((key, _)) => key,
        None if has_default => "default",
        None => return text.trim().into(),
    };
    let line = text
        .lines()
        .find(|line| line.split_once(' ').is_some_and(|(name, _)| name == key));
    match line {
        Some(line) => line.trim().into(),
        None => format!("{key} {reset}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_file_is_put_back() {
        const IO_MAX: &str = "8:0 rbps=max wbps=5 riops=max wiops=max\n";
        for (file, text, value, expected) in [
            ("memory.max", "max\n", "100", "max"),
            ("cpu.max", "20000 50000\n", "max 100000", "20000 50000"),
            ("cpuset.cpus", "\n", "0-1", "\n"),
            ("io.max", IO_MAX, "8:0 rbps=7", IO_MAX.trim()),
            (
                "io.max",
                IO_MAX,
                "8:16 rbps=7",
                "8:16 rbps=max wbps=max riops=max wiops=max",
            ),
            ("io.weight", "default 100\n8:0 50\n", "7", "default 100"),
            ("io.weight", "default 100\n8:0 50\n", "8:0 7", "8:0 50"),
            ("io.weight", "default 100\n", "8:16 7", "8:16 default"),
            ("io.bfq.weight", "default 100\n", "7", "default 100"),
            (
                "rdma.max",
                "mlx5_0 hca_handle=2 hca_object=max\n",
                "mlx5_0 hca_handle=9",
                "mlx5_0 hca_handle=2 hca_object=max",
            ),
        ] {
            assert_eq!(value_before(file, text, value), expected, "{file} {value}");
        }
    }
}
