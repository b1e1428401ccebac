//! Rules of `process`, and of what else in config.json is set on the process itself.

use std::collections::HashSet;
use std::fmt::Write;

use oci_spec::runtime::{
    Capability, Linux, LinuxCapabilities, LinuxSchedulerPolicy, MemoryPolicyFlagType,
    MemoryPolicyModeType, Process, Scheduler, User,
};

use super::lists::{MAX_CPU, MAX_NODE, number_list};
use super::{Finding, Findings, absolute, quote};

/// `(uid_t) -1`: "no change" to system calls.
const NO_ID: u32 = u32::MAX;
/// The kernel's NGROUPS_MAX.
const NGROUPS_MAX: usize = 65_536;

/// `pointer` is the process object's: `/process`, or empty for a document of its own.
pub fn process(process: &Process, pointer: &str, findings: &mut Findings) {
    match process.args().as_deref().unwrap_or_default() {
        [] => {
            let pointer = format!("{pointer}/args");
            findings.push(Finding::error(pointer, "args must not be empty"));
        }
        [program, ..] if program.is_empty() => {
            let pointer = format!("{pointer}/args/0");
            findings.push(Finding::error(pointer, "the name of the program is empty"));
        }
        _ => {}
    }
    absolute(process.cwd(), || format!("{pointer}/cwd"), findings);
    environment(process.env().as_deref(), pointer, findings);
    lengths(process, pointer, findings);
    user(process.user(), pointer, findings);
    if process.terminal() == Some(true)
        && let Some(size) = process.console_size()
    {
        for (key, value) in [("height", size.height()), ("width", size.width())] {
            if value > u16::MAX.into() {
                let message = format!("{value} is more than a terminal's {}", u16::MAX);
                findings.push(Finding::error(
                    format!("{pointer}/consoleSize/{key}"),
                    message,
                ));
            }
        }
    }
    rlimits(process, pointer, findings);
    if let Some(sets) = process.capabilities() {
        capabilities(sets, &format!("{pointer}/capabilities"), findings);
    }
    for (key, label) in [
        ("apparmorProfile", process.apparmor_profile()),
        ("selinuxLabel", process.selinux_label()),
    ] {
        if label.iter().any(|label| label.contains(char::is_control)) {
            let message = "contains a control character";
            findings.push(Finding::error(format!("{pointer}/{key}"), message));
        }
    }
    if let Some(score) = process.oom_score_adj()
        && !(-1000..=1000).contains(&score)
    {
        let message = format!("{score} is out of range: -1000 to 1000");
        findings.push(Finding::error(format!("{pointer}/oomScoreAdj"), message));
    }
    if let Some(priority) = process.io_priority()
        && !(0..=7).contains(&priority.priority())
    {
        let message = format!("{} is out of range: 0 to 7", priority.priority());
        findings.push(Finding::error(
            format!("{pointer}/ioPriority/priority"),
            message,
        ));
    }
    if let Some(attributes) = process.scheduler() {
        scheduler(attributes, &format!("{pointer}/scheduler"), findings);
    }
    if let Some(affinity) = process.exec_cpu_affinity() {
        for (key, list) in [
            ("initial", affinity.initial()),
            ("final", affinity.cpu_affinity_final()),
        ] {
            if let Some(Err(reason)) = list.as_deref().map(|list| number_list(list, MAX_CPU)) {
                let pointer = format!("{pointer}/execCPUAffinity/{key}");
                findings.push(Finding::error(pointer, reason));
            }
        }
    }
}

/// MAX_ARG_STRLEN of the kernel: one argument, or one variable, with the NUL at its end.
fn lengths(process: &Process, pointer: &str, findings: &mut Findings) {
    const LONGEST_PAGES: usize = 32;
    // The least page there is: where pages are larger the kernel takes longer ones.
    const PAGE: usize = 4096;
    for (key, list) in [("args", process.args()), ("env", process.env())] {
        for (index, text) in list.iter().flatten().enumerate() {
            if text.len() < LONGEST_PAGES * PAGE {
                continue;
            }
            let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
                .ok()
                .flatten();
            let longest = page.map_or(PAGE, |page| page as usize) * LONGEST_PAGES;
            if text.len() >= longest {
                let message = format!("{} bytes: argument list too long", text.len());
                let hint = format!("one string may have {} at most: use a file", longest - 1);
                let at = format!("{pointer}/{key}/{index}");
                findings.push(Finding::error(at, message).hint(hint));
            }
        }
    }
}

/// An entry without `=` is no variable (POSIX, "Environment Variables"); runc refuses it, crun
/// and youki mangle it.
pub fn environment(env: Option<&[String]>, pointer: &str, findings: &mut Findings) {
    for (i, entry) in env.unwrap_or_default().iter().enumerate() {
        let message = match entry.find('=') {
            Some(0) => "the name of the variable is empty".into(),
            Some(_) => continue,
            None => format!("{} has no =", quote(entry)),
        };
        let finding = Finding::error(format!("{pointer}/env/{i}"), message);
        findings.push(finding.hint("an entry is written NAME=value"));
    }
}

fn user(user: &User, pointer: &str, findings: &mut Findings) {
    let mut refuse = |id: u32, place: &dyn Fn() -> String| {
        if id == NO_ID {
            let message = format!("{id} is no id: system calls take it for \"no change\"");
            findings.push(Finding::error(place(), message));
        }
    };
    refuse(user.uid(), &|| format!("{pointer}/user/uid"));
    refuse(user.gid(), &|| format!("{pointer}/user/gid"));
    let groups = user.additional_gids().as_deref().unwrap_or_default();
    for (i, gid) in groups.iter().enumerate() {
        refuse(*gid, &|| format!("{pointer}/user/additionalGids/{i}"));
    }
    if groups.len() > NGROUPS_MAX {
        let message = format!(
            "{} groups, more than the kernel's {NGROUPS_MAX}",
            groups.len()
        );
        findings.push(Finding::error(
            format!("{pointer}/user/additionalGids"),
            message,
        ));
    }
    if let Some(umask) = user.umask()
        && umask > 0o777
    {
        let message = format!("{umask} (octal {umask:o}) is no umask: at most 511 (octal 777)");
        let finding = Finding::error(format!("{pointer}/user/umask"), message);
        findings.push(finding.maybe_hint(octal_hint(umask)));
    }
}

/// JSON has no octal numbers, so people write a mode's octal digits as a decimal number.
pub fn octal_hint(mode: u32) -> Option<String> {
    let meant = u32::from_str_radix(&mode.to_string(), 8).ok()?;
    Some(format!("JSON numbers are decimal: octal {mode} is {meant}"))
}

fn rlimits(process: &Process, pointer: &str, findings: &mut Findings) {
    let mut seen = Vec::new();
    for (i, rlimit) in process.rlimits().iter().flatten().enumerate() {
        let pointer = format!("{pointer}/rlimits/{i}");
        let (typ, soft, hard) = (rlimit.typ(), rlimit.soft(), rlimit.hard());
        if soft > hard {
            let message = format!("{typ}: the soft limit {soft} is above the hard limit {hard}");
            findings.push(Finding::error(format!("{pointer}/soft"), message));
        }
        if seen.contains(&typ) {
            let message = format!("{typ} is set twice");
            findings.push(Finding::error(format!("{pointer}/type"), message));
        }
        seen.push(typ);
    }
}

/// Sets that the kernel would not take as they are. The specification wants a warning for what
/// can't be granted, and the container to start without it.
fn capabilities(sets: &LinuxCapabilities, pointer: &str, findings: &mut Findings) {
    let outside = |set: &Option<HashSet<Capability>>, of: &[&Option<HashSet<Capability>>]| {
        let is_in = |set: &Option<HashSet<Capability>>, capability: &Capability| {
            set.as_ref().is_some_and(|set| set.contains(capability))
        };
        let mut names: Vec<String> = set
            .iter()
            .flatten()
            .filter(|capability| !of.iter().all(|set| is_in(set, capability)))
            .map(|capability| format!("CAP_{capability}"))
            .collect();
        names.sort();
        // One finding for all of a set: podman's builds list fourteen that can't be ambient.
        match names.as_slice() {
            [] => None,
            [name] => Some((format!("capability {name}"), "it is")),
            _ => Some((format!("capabilities {}", names.join(", ")), "they are")),
        }
    };
    if let Some((names, are)) = outside(sets.effective(), &[sets.permitted()]) {
        let message = format!("can't grant effective {names}: {are} not permitted");
        findings.push(Finding::warning(format!("{pointer}/effective"), message));
    }
    if let Some((names, are)) = outside(sets.inheritable(), &[sets.bounding()]) {
        let message = format!("can't grant inheritable {names}: {are} not in the bounding set");
        findings.push(Finding::warning(format!("{pointer}/inheritable"), message));
    }
    if let Some((names, are)) = outside(sets.ambient(), &[sets.permitted(), sets.inheritable()]) {
        let message =
            format!("can't raise ambient {names}: {are} not both permitted and inheritable");
        findings.push(Finding::warning(format!("{pointer}/ambient"), message));
    }
}

/// sched_setattr(2)
fn scheduler(scheduler: &Scheduler, pointer: &str, findings: &mut Findings) {
    use LinuxSchedulerPolicy::{SchedDeadline, SchedFifo, SchedIso, SchedRr};
    let policy = *scheduler.policy();
    let mut refuse = |key: &str, message: String| {
        findings.push(Finding::error(format!("{pointer}/{key}"), message));
    };
    if policy == SchedIso {
        refuse("policy", "SCHED_ISO is reserved: no kernel has it".into());
    }
    if let Some(nice) = scheduler.nice()
        && !(-20..=19).contains(nice)
    {
        refuse("nice", format!("{nice} is out of range: -20 to 19"));
    }
    let priority = scheduler.priority().unwrap_or(0);
    match policy {
        SchedFifo | SchedRr if !(1..=99).contains(&priority) => {
            let message = format!("{policy} needs a priority from 1 to 99, not {priority}");
            refuse("priority", message);
        }
        SchedFifo | SchedRr => {}
        _ if priority != 0 => {
            let message = format!("a priority is for SCHED_FIFO and SCHED_RR, not for {policy}");
            refuse("priority", message);
        }
        _ => {}
    }
    let runtime = scheduler.runtime().unwrap_or(0);
    let deadline = scheduler.deadline().unwrap_or(0);
    let period = scheduler.period().unwrap_or(0);
    if policy != SchedDeadline {
        for (key, value) in [
            ("runtime", runtime),
            ("deadline", deadline),
            ("period", period),
        ] {
            if value != 0 {
                refuse(key, format!("only SCHED_DEADLINE has one, not {policy}"));
            }
        }
    } else if runtime < 1024 {
        let message = format!("SCHED_DEADLINE needs at least 1024 ns, not {runtime}");
        refuse("runtime", message);
    } else if deadline < runtime {
        let message = format!("{deadline} ns is less than the runtime of {runtime} ns");
        refuse("deadline", message);
    } else if period != 0 && period < deadline {
        let message = format!("{period} ns is less than the deadline of {deadline} ns");
        refuse("period", message);
    }
}

/// set_mempolicy(2)
pub fn memory_policy(linux: &Linux, findings: &mut Findings) {
    use MemoryPolicyModeType::{MpolBind, MpolDefault, MpolLocal, MpolPreferred};
    let Some(policy) = linux.memory_policy() else {
        return;
    };
    let mode = policy.mode();
    let nodes = match number_list(policy.nodes().as_deref().unwrap_or_default(), MAX_NODE) {
        Ok(ranges) => ranges.into_iter().map(|r| r.count()).sum::<usize>(),
        Err(reason) => {
            let message = format!("invalid memory policy nodes: {reason}");
            findings.push(Finding::error("/linux/memoryPolicy/nodes", message));
            return;
        }
    };
    match mode {
        MpolDefault | MpolLocal if nodes > 0 => {
            let message = format!(
                "invalid memory policy: {mode} mode requires 0 nodes but got {nodes}: set_mempolicy(2) takes them for an invalid argument"
            );
            findings.push(Finding::error("/linux/memoryPolicy/nodes", message));
        }
        MpolDefault | MpolLocal | MpolPreferred => {}
        _ if nodes == 0 => {
            let message = format!("invalid memory policy: {mode} mode requires at least one node");
            findings.push(Finding::error("/linux/memoryPolicy/nodes", message));
        }
        _ => {}
    }
    let flags = policy.flags().as_deref().unwrap_or_default();
    let has = |flag| flags.contains(&flag);
    let mut wrong = String::new();
    if has(MemoryPolicyFlagType::MpolFStaticNodes) && has(MemoryPolicyFlagType::MpolFRelativeNodes)
    {
        wrong.push_str("MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each other");
    } else if has(MemoryPolicyFlagType::MpolFNumaBalancing)
        && !matches!(mode, MpolBind | MemoryPolicyModeType::MpolPreferredMany)
    {
        let _ = write!(
            wrong,
            "MPOL_F_NUMA_BALANCING is for MPOL_BIND and MPOL_PREFERRED_MANY, not for {mode}"
        );
    } else if !flags.is_empty() && matches!(mode, MpolDefault | MpolLocal) {
        let _ = write!(wrong, "{mode} takes no flags");
    }
    if !wrong.is_empty() {
        let message = format!("invalid memory policy flags: {wrong}");
        findings.push(Finding::error("/linux/memoryPolicy/flags", message));
    }
}

/// No flag is supported by the specification (config-linux.md, "Personality").
pub fn personality(linux: &Linux, findings: &mut Findings) {
    let flags = linux
        .personality()
        .as_ref()
        .and_then(|p| p.flags().as_ref());
    if let Some(flag) = flags.and_then(|flags| flags.first()) {
        let message = format!("no flag is supported, found {}", quote(flag));
        findings.push(Finding::error("/linux/personality/flags", message));
    }
}
