//! Writing a plan's limits, and saying what the kernel has against one.

use std::path::Path;

use nix::errno::Errno;

use super::plan::{Absent, Plan, Write};
use super::tree::Cgroup;
use super::{controllers, file};
use crate::bundle::did_you_mean;
use crate::error::{Error, Result};

impl Cgroup {
    /// Sets the limits of a plan. Those before a failed one stay set.
    ///
    /// # Errors
    /// A file that isn't there, with the reason why; a value that the kernel refuses; a memory limit
    /// below what is in use, if that was to be checked.
    pub fn apply(&self, plan: &Plan) -> Result<()> {
        self.check_ceilings(plan)?;
        let mut again = Vec::new();
        for write in &plan.writes {
            match self.set(write) {
                Err((_, Errno::EINVAL)) if write.again => again.push(write),
                done => done.map_err(|(write, errno)| self.refused(write, errno))?,
            }
        }
        for write in again.into_iter().chain(&plan.unified) {
            self.set(write)
                .map_err(|(write, errno)| self.refused(write, errno))?;
        }
        Ok(())
    }

    /// The error comes with the write that it is about.
    pub(super) fn set<'w>(&self, write: &'w Write) -> Result<(), (&'w Write, Errno)> {
        match (
            file::write(self.fd(), &write.file, &write.value),
            &write.absent,
        ) {
            (Err(Errno::ENOENT), Absent::Ignore) => Ok(()),
            (Err(Errno::ENOENT), Absent::Instead(other)) => self.set(other),
            (done, _) => done.map_err(|errno| (write, errno)),
        }
    }

    /// Best effort, as the kernel takes and gives memory meanwhile. Without `memory.current` there
    /// is nothing to compare with, and the limit itself fails.
    pub(super) fn check_ceilings(&self, plan: &Plan) -> Result<()> {
        if plan.ceilings.is_empty() {
            return Ok(());
        }
        let used = file::read(self.fd(), "memory.current").ok();
        let Some(used) = used.and_then(|used| used.trim().parse::<u64>().ok()) else {
            return Ok(());
        };
        for ceiling in &plan.ceilings {
            if ceiling.limit <= used {
                let what = match ceiling.with_swap {
                    true => "memory+swap",
                    false => "memory",
                };
                return Err(Error::new(format!("rejecting {what} limit"))
                    .on(ceiling.limit)
                    .at(ceiling.pointer.clone())
                    .because(format!("{used} bytes of memory are in use already")));
            }
        }
        Ok(())
    }

    fn refused(&self, write: &Write, errno: Errno) -> Error {
        let error = Error::new("set")
            .on(format!(
                "{} of {} to {}",
                write.file,
                self.path().display(),
                write.value.trim()
            ))
            .at(write.pointer.clone());
        if errno == Errno::ENOENT {
            // Without the errno: engines take its phrase for a missing program.
            return self.absent(write, error);
        }
        let (reason, hint) = objection(write, errno);
        let error = match reason {
            Some(reason) => error.because(reason),
            None => error,
        };
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
        .errno(errno)
    }

    fn absent(&self, write: &Write, error: Error) -> Error {
        let Some((controller, _)) = write.file.split_once('.') else {
            return error.because("there is no such file");
        };
        if controller != "cgroup"
            && let Some((reason, hint)) = controllers::explain(self.place(), controller)
        {
            let error = error.because(reason);
            return match hint {
                Some(hint) => error.hint(hint),
                None => error,
            };
        }
        let error = error.because(format!("this kernel has no {}", write.file));
        let there = files_of(&self.path());
        let near = did_you_mean(&write.file, there.iter().map(String::as_str));
        match controller {
            "hugetlb" => {
                let sizes = huge_page_sizes();
                let mut parts = write.file.split('.');
                let is_sized = parts
                    .nth(1)
                    .is_some_and(|part| sizes.iter().any(|s| s == part));
                error.hint(match near {
                    Some(near) if is_sized => near,
                    _ if sizes.is_empty() => "it has no huge pages".into(),
                    _ => format!("its huge pages are of {}", sizes.join(", ")),
                })
            }
            "memory" if write.file.starts_with("memory.swap") => error
                .hint("it has no swap accounting (swapaccount=1 on its command line, CONFIG_SWAP)"),
            _ => error.maybe_hint(near),
        }
    }
}

/// The names of what can be set there.
fn files_of(cgroup: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(cgroup).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.collect()
}

/// Why the kernel refuses a value, where it's known, and a remedy.
fn objection(write: &Write, errno: Errno) -> (Option<String>, Option<String>) {
    let reason = match (write.file.as_ref(), errno) {
        ("cpu.max", Errno::EINVAL) => {
            "the quota is at least 1000, the period from 1000 to 1000000 microseconds, and \
             cpu.max.burst at most the quota"
                .into()
        }
        ("cpu.max.burst", Errno::EINVAL) => "the burst is at most the quota".into(),
        ("cpu.weight", Errno::EINVAL) => "an idle cgroup (cpu.idle 1) has no weight".into(),
        ("cpuset.cpus", Errno::EINVAL | Errno::ERANGE) => {
            format!("this machine's CPUs are {}", online("cpu"))
        }
        ("cpuset.mems", Errno::EINVAL | Errno::ERANGE) => {
            format!("this machine's memory nodes are {}", online("node"))
        }
        ("io.max" | "io.weight" | "io.bfq.weight", Errno::ENODEV | Errno::ENXIO) => {
            "there is no such block device, or it is a partition: the limit is for a whole disk"
                .into()
        }
        ("io.weight", Errno::EOPNOTSUPP | Errno::EINVAL) if write.value.contains(':') => {
            "the weight of one device needs the BFQ scheduler or the iocost controller".into()
        }
        ("rdma.max", Errno::ENODEV) => "there is no such RDMA device".into(),
        (_, Errno::EROFS) => {
            let hint = "mount the cgroup2 tree writable";
            return (None, Some(hint.into()));
        }
        (_, Errno::EACCES | Errno::EPERM) => {
            let hint = "without root, the cgroup must have been delegated to you";
            return (None, Some(hint.into()));
        }
        (file, Errno::EINVAL | Errno::ERANGE) => {
            let limit = [".max", ".high", ".low", ".min"];
            let hint = match limit.iter().any(|end| file.ends_with(end)) {
                true => format!("{file} takes a number or max"),
                false => format!("see {file} in the kernel's cgroup-v2 documentation"),
            };
            return (
                Some("the kernel doesn't take that value".into()),
                Some(hint),
            );
        }
        _ => return (None, None),
    };
    (Some(reason), None)
}

fn online(what: &str) -> String {
    std::fs::read_to_string(format!("/sys/devices/system/{what}/online"))
        .map_or_else(|_| "not known".into(), |list| list.trim().to_owned())
}

/// As they stand in the names of files: `2MB`.
pub(super) fn huge_page_sizes() -> Vec<String> {
    let Ok(list) = std::fs::read_dir("/sys/kernel/mm/hugepages") else {
        return Vec::new();
    };
    let mut sizes: Vec<u64> = list
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            name.strip_prefix("hugepages-")?
                .strip_suffix("kB")?
                .parse()
                .ok()
        })
        .collect();
    sizes.sort_unstable();
    sizes
        .into_iter()
        .map(|kib| match kib {
            kib if kib % (1 << 20) == 0 => format!("{}GB", kib >> 20),
            kib if kib % (1 << 10) == 0 => format!("{}MB", kib >> 10),
            kib => format!("{kib}KB"),
        })
        .collect()
}
