//! What the kernel is told about running the program: when, where, on whose memory, as which system.

use nix::errno::Errno;
use nix::libc;
use nix::unistd::Pid;
use oci_spec::runtime::{
    IOPriorityClass, Linux, LinuxIOPriority, LinuxPersonalityDomain, LinuxSchedulerFlag,
    LinuxSchedulerPolicy, MemoryPolicyFlagType, MemoryPolicyModeType, Process, Scheduler,
};

use crate::bundle;
use crate::error::{Error, Result, Step};
use crate::log;
use crate::sys::sched::{self, Attributes, Cpus, Nodes};
use crate::sys::{self, prctl};

/// The kernel's greatest NR_CPUS, less one.
const MAX_CPU: u32 = 8191;
/// The kernel's greatest MAX_NUMNODES, less one.
const MAX_NODE: u32 = 1023;

/// `process.scheduler` and `process.ioPriority`: what one process can set for another one.
///
/// Where husk rules the host it sets them, with privileges that a user namespace hasn't, when
/// everything else is done: nothing that is made or run before has to live under them. Elsewhere only
/// the process itself may, before it becomes the program's user.
#[derive(Debug, Default)]
pub struct Schedule {
    attributes: Option<Attributes>,
    policy: &'static str,
    /// Class and level.
    io: Option<(u16, u16)>,
    /// Whether its cgroup is to have only some of the CPUs.
    some_cpus: bool,
}

impl Schedule {
    pub fn plan(process: &Process, linux: Option<&Linux>) -> Schedule {
        let resources = linux.and_then(|linux| linux.resources().as_ref());
        let cpus = resources
            .and_then(|resources| resources.cpu().as_ref())
            .and_then(|cpu| cpu.cpus().as_deref());
        Schedule {
            attributes: process.scheduler().as_ref().map(attributes),
            policy: process
                .scheduler()
                .as_ref()
                .map_or("", |scheduler| policy(*scheduler.policy()).1),
            io: process.io_priority().as_ref().map(io_priority),
            some_cpus: cpus.is_some_and(|cpus| !cpus.is_empty()),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.attributes.is_none() && self.io.is_none()
    }

    /// Sets it for a process, or for the calling one.
    pub fn apply(&self, pid: Option<Pid>) -> Result<()> {
        if let Some(attributes) = self.attributes {
            sched::set_attributes(pid, attributes).or_fail(|errno| self.refused(errno))?;
        }
        if let Some((class, level)) = self.io {
            sched::set_io_priority(pid, class, level).or_fail(|errno| {
                let error = Error::new("set I/O priority")
                    .at("/process/ioPriority")
                    .errno(errno);
                match errno {
                    Errno::EPERM => error
                        .hint("IOPRIO_CLASS_RT needs CAP_SYS_ADMIN or CAP_SYS_NICE on the host"),
                    _ => error,
                }
            })?;
        }
        Ok(())
    }

    fn refused(&self, errno: Errno) -> Error {
        let error = Error::new("set scheduler")
            .on(self.policy)
            .at("/process/scheduler")
            .errno(errno);
        match errno {
            // sched_setattr(2): a deadline is promised on all CPUs of the machine.
            Errno::EPERM if self.policy == "SCHED_DEADLINE" && self.some_cpus => error
                .because("process scheduler can't be used together with AllowedCPUs")
                .hint("leave linux.resources.cpu.cpus away: a deadline needs all CPUs"),
            Errno::EPERM => error.hint(
                "it needs CAP_SYS_NICE on the host, or the limits RLIMIT_NICE or RLIMIT_RTPRIO",
            ),
            Errno::EBUSY => error.hint("the CPUs have no time left for another deadline"),
            Errno::EOPNOTSUPP => error.hint("this kernel can't clamp utilization"),
            Errno::EINVAL => {
                error.hint("this kernel lacks the policy or a flag, or the times are out of range")
            }
            _ => error,
        }
    }
}

/// Whether this process has the privileges of the host, and not of some user namespace: the kernel
/// asks for them where a process is not of the caller's user, sched_setattr(2).
pub fn rules_the_host() -> bool {
    const CAP_SYS_NICE: u64 = 1 << 23;
    let held = prctl::capabilities().is_ok_and(|held| held.effective & CAP_SYS_NICE != 0);
    held && std::fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]))
}

fn policy(policy: LinuxSchedulerPolicy) -> (u32, &'static str) {
    use LinuxSchedulerPolicy as Policy;
    match policy {
        Policy::SchedOther => (0, "SCHED_OTHER"),
        Policy::SchedFifo => (1, "SCHED_FIFO"),
        Policy::SchedRr => (2, "SCHED_RR"),
        Policy::SchedBatch => (3, "SCHED_BATCH"),
        // Refused as a rule of the document: no kernel has it.
        Policy::SchedIso => (4, "SCHED_ISO"),
        Policy::SchedIdle => (5, "SCHED_IDLE"),
        Policy::SchedDeadline => (6, "SCHED_DEADLINE"),
    }
}

/// What isn't given is 0, as in the specification's own structure.
fn attributes(scheduler: &Scheduler) -> Attributes {
    use LinuxSchedulerFlag as Flag;
    let flag = |flag: &Flag| match flag {
        Flag::SchedResetOnFork => 0x01,
        Flag::SchedFlagReclaim => 0x02,
        Flag::SchedFlagDLOverrun => 0x04,
        Flag::SchedFlagKeepPolicy => 0x08,
        Flag::SchedFlagKeepParams => 0x10,
        Flag::SchedFlagUtilClampMin => 0x20,
        Flag::SchedFlagUtilClampMax => 0x40,
    };
    let flags = scheduler.flags().iter().flatten();
    Attributes {
        policy: policy(*scheduler.policy()).0,
        flags: flags.fold(0, |all, one| all | flag(one)),
        nice: scheduler.nice().unwrap_or(0),
        priority: scheduler.priority().unwrap_or(0).max(0) as u32,
        runtime: scheduler.runtime().unwrap_or(0),
        deadline: scheduler.deadline().unwrap_or(0),
        period: scheduler.period().unwrap_or(0),
        ..Attributes::default()
    }
}

fn io_priority(priority: &LinuxIOPriority) -> (u16, u16) {
    let class = match priority.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    (class, priority.priority().clamp(0, 7) as u16)
}

/// The CPUs that a process is bound to besides its cgroup's, once it is in there.
#[derive(Debug, Default)]
pub enum Affinity {
    /// To none: the caller's own choice is none of the container's.
    #[default]
    Reset,
    /// As it was born, `execCPUAffinity` without `final`.
    Keep,
    Bind(Box<Cpus>),
}

/// `process.execCPUAffinity`, for a process of `exec`: husk's own CPUs from before the process is born
/// into the container's cgroup, and the process's from then on.
#[derive(Debug, Default)]
pub struct ExecAffinity {
    initial: Option<Box<Cpus>>,
    pub afterwards: Affinity,
}

impl ExecAffinity {
    pub fn plan(process: &Process) -> Result<ExecAffinity> {
        let Some(affinity) = process.exec_cpu_affinity() else {
            return Ok(ExecAffinity::default());
        };
        let cpus = |list: Option<&str>, key| {
            let list = list.filter(|list| !list.is_empty());
            list.map(|list| {
                let numbers = bundle::number_list(list, MAX_CPU).map_err(|reason| {
                    Error::config(format!("/process/execCPUAffinity/{key}"), reason)
                })?;
                Ok(Box::new(Cpus::of(numbers.into_iter().flatten())))
            })
            .transpose()
        };
        Ok(ExecAffinity {
            initial: cpus(affinity.initial().as_deref(), "initial")?,
            afterwards: match cpus(affinity.cpu_affinity_final().as_deref(), "final")? {
                Some(cpus) => Affinity::Bind(cpus),
                None => Affinity::Keep,
            },
        })
    }

    /// In husk, before it makes the process.
    pub fn begin(&self) -> Result<()> {
        match &self.initial {
            Some(cpus) => {
                // The words of runc's log.
                log::debug(format_args!("nsexec: affinity: {:#x}", **cpus));
                bind(cpus, "initial")
            }
            None => Ok(()),
        }
    }
}

impl Affinity {
    pub fn apply(&self) -> Result<()> {
        match self {
            Affinity::Reset => {
                // A sandbox around husk may refuse it: then its choice holds.
                let _ = sched::set_affinity(&Cpus::ALL);
                Ok(())
            }
            Affinity::Keep => Ok(()),
            Affinity::Bind(cpus) => bind(cpus, "final"),
        }
    }
}

fn bind(cpus: &Cpus, key: &str) -> Result<()> {
    sched::set_affinity(cpus).or_fail(|errno| {
        let error = Error::new("set CPU affinity")
            .at(format!("/process/execCPUAffinity/{key}"))
            .errno(errno);
        match errno {
            Errno::EINVAL => error.hint("none of these CPUs is online and in the cgroup's cpuset"),
            _ => error,
        }
    })
}

/// `linux.memoryPolicy` and `linux.personality`: a process sets them for itself, before a filter may
/// forbid it.
#[derive(Debug, Default)]
pub struct Surroundings {
    memory: Option<Memory>,
    personality: Option<libc::c_ulong>,
}

#[derive(Debug)]
struct Memory {
    name: String,
    /// With its flags.
    mode: i32,
    nodes: Option<Nodes>,
}

impl Surroundings {
    pub fn plan(linux: Option<&Linux>) -> Result<Surroundings> {
        Ok(Surroundings {
            memory: linux.map(memory).transpose()?.flatten(),
            personality: linux
                .and_then(|linux| linux.personality().as_ref())
                // linux/personality.h
                .map(|personality| match personality.domain() {
                    LinuxPersonalityDomain::PerLinux => 0,
                    LinuxPersonalityDomain::PerLinux32 => 8,
                }),
        })
    }

    pub fn apply(&self) -> Result<()> {
        if let Some(domain) = self.personality {
            prctl::set_personality(domain).or_fail(|errno| {
                let error = Error::new("set personality")
                    .at("/linux/personality")
                    .errno(errno);
                match errno {
                    Errno::EINVAL => error.hint("this machine runs no 32-bit programs"),
                    _ => error,
                }
            })?;
        }
        if let Some(memory) = &self.memory {
            sys::sched::set_memory_policy(memory.mode, memory.nodes.as_ref()).or_fail(|errno| {
                let error = Error::new("set_mempolicy")
                    .on(&memory.name)
                    .at("/linux/memoryPolicy")
                    .errno(errno);
                match errno {
                    Errno::ENOSYS => error.hint("this kernel was built without NUMA"),
                    Errno::EINVAL => error.hint(
                        "the nodes are not there or not in the cgroup's cpuset, or this kernel lacks the mode or a flag",
                    ),
                    _ => error,
                }
            })?;
        }
        Ok(())
    }
}

fn memory(linux: &Linux) -> Result<Option<Memory>> {
    use MemoryPolicyFlagType as Flag;
    use MemoryPolicyModeType as Mode;
    let Some(policy) = linux.memory_policy() else {
        return Ok(None);
    };
    let mode = match policy.mode() {
        Mode::MpolDefault => 0,
        Mode::MpolPreferred => 1,
        Mode::MpolBind => 2,
        Mode::MpolInterleave => 3,
        Mode::MpolLocal => 4,
        Mode::MpolPreferredMany => 5,
        Mode::MpolWeightedInterleave => 6,
    };
    let flag = |flag: &Flag| match flag {
        Flag::MpolFNumaBalancing => 1 << 13,
        Flag::MpolFRelativeNodes => 1 << 14,
        Flag::MpolFStaticNodes => 1 << 15,
    };
    let flags = policy.flags().iter().flatten();
    let listed = policy.nodes().as_deref().unwrap_or_default();
    let listed = bundle::number_list(listed, MAX_NODE)
        .map_err(|reason| Error::config("/linux/memoryPolicy/nodes", reason))?;
    let mut nodes: Nodes = Default::default();
    for node in listed.iter().cloned().flatten() {
        nodes[node as usize / 64] |= 1 << (node % 64);
    }
    Ok(Some(Memory {
        name: policy.mode().to_string(),
        mode: flags.fold(mode, |all, one| all | flag(one)),
        nodes: (!listed.is_empty()).then_some(nodes),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn process(fields: Value) -> Process {
        let mut document = json!({"user": {"uid": 0, "gid": 0}, "args": ["x"], "cwd": "/"});
        for (key, value) in fields.as_object().unwrap() {
            document[key] = value.clone();
        }
        let (process, _) = bundle::parse_process(document.to_string().as_bytes()).unwrap();
        process
    }

    #[test]
    fn scheduler_becomes_the_kernels_attributes() {
        let planned = |scheduler: Value| {
            let schedule = Schedule::plan(&process(json!({ "scheduler": scheduler })), None);
            schedule.attributes.unwrap()
        };
        assert_eq!(
            planned(json!({"policy": "SCHED_OTHER", "nice": -5})),
            Attributes {
                nice: -5,
                ..Attributes::default()
            }
        );
        for (name, number) in [("SCHED_BATCH", 3), ("SCHED_IDLE", 5)] {
            assert_eq!(planned(json!({ "policy": name })).policy, number);
        }
        let rr = planned(json!({"policy": "SCHED_RR", "priority": 7}));
        assert_eq!((rr.policy, rr.priority), (2, 7));
        let deadline = planned(json!({
            "policy": "SCHED_DEADLINE", "runtime": 42000, "deadline": 100000, "period": 1000000,
            "flags": ["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_RECLAIM", "SCHED_FLAG_DL_OVERRUN"]
        }));
        assert_eq!(
            deadline,
            Attributes {
                policy: 6,
                flags: 7,
                runtime: 42_000,
                deadline: 100_000,
                period: 1_000_000,
                ..Attributes::default()
            }
        );
        let flags = json!({"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_KEEP_POLICY",
            "SCHED_FLAG_KEEP_PARAMS", "SCHED_FLAG_UTIL_CLAMP_MIN", "SCHED_FLAG_UTIL_CLAMP_MAX"]});
        assert_eq!(planned(flags).flags, 0x78);
    }

    #[test]
    fn io_priorities_are_class_and_level() {
        let planned =
            |priority: Value| Schedule::plan(&process(json!({ "ioPriority": priority })), None).io;
        for (priority, expected) in [
            (json!({"class": "IOPRIO_CLASS_RT", "priority": 3}), (1, 3)),
            (json!({"class": "IOPRIO_CLASS_BE", "priority": 7}), (2, 7)),
            (json!({"class": "IOPRIO_CLASS_IDLE"}), (3, 0)),
        ] {
            assert_eq!(planned(priority), Some(expected));
        }
    }

    #[test]
    fn exec_affinity_of_one_side_leaves_the_other_alone() {
        let planned = |affinity: Value| {
            ExecAffinity::plan(&process(json!({ "execCPUAffinity": affinity }))).unwrap()
        };
        let both = planned(json!({"initial": "0-1", "final": "65"}));
        assert_eq!(both.initial, Some(Box::new(Cpus::of([0, 1]))));
        assert!(matches!(both.afterwards, Affinity::Bind(cpus) if *cpus == Cpus::of([65])));
        let first = planned(json!({"initial": "1"}));
        assert!(matches!(first.afterwards, Affinity::Keep));
        let last = planned(json!({"final": "1"}));
        assert_eq!(last.initial, None);
        assert_eq!(format!("{:#x}", Cpus::of([0, 5])), "0x21");
        assert_eq!(format!("{:#x}", Cpus::of([1, 68])), "0x100000000000000002");
        let none = ExecAffinity::plan(&process(json!({}))).unwrap();
        assert!(matches!(none.afterwards, Affinity::Reset));
    }

    #[test]
    fn memory_policy_becomes_mode_and_mask() {
        let planned = |policy: Value| {
            let linux: Linux = serde_json::from_value(json!({ "memoryPolicy": policy })).unwrap();
            memory(&linux).unwrap().unwrap()
        };
        for (number, name) in [
            "MPOL_DEFAULT",
            "MPOL_PREFERRED",
            "MPOL_BIND",
            "MPOL_INTERLEAVE",
            "MPOL_LOCAL",
            "MPOL_PREFERRED_MANY",
            "MPOL_WEIGHTED_INTERLEAVE",
        ]
        .into_iter()
        .enumerate()
        {
            let policy = planned(json!({ "mode": name }));
            assert_eq!((policy.mode, policy.nodes), (number as i32, None), "{name}");
        }
        let policy = planned(json!({"mode": "MPOL_BIND", "nodes": "0-1,64",
            "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_NUMA_BALANCING"]}));
        let mut nodes = Nodes::default();
        (nodes[0], nodes[1]) = (0b11, 1);
        assert_eq!(policy.mode, 2 | 1 << 15 | 1 << 13);
        assert_eq!(policy.nodes, Some(nodes));
    }
}
