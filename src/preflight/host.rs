//! What this kernel must have and allow: namespaces, security modules, sysctls, devices, schedulers.

use std::path::Path;

use caps::Capability;
use nix::errno::Errno;
use oci_spec::runtime::{
    Linux, LinuxNamespaceType as Type, LinuxSchedulerPolicy, LinuxSeccomp, LinuxSeccompAction,
};

use super::mounts::has_namespace;
use super::{may, read, with_phrase};
use crate::bundle::{
    Bundle, Finding, did_you_mean, neighbour, number, number_list, settings, sysctl_path,
};
use crate::error::pointer_key;
use crate::namespaces;
use crate::seccomp;

pub fn look(bundle: &Bundle, findings: &mut Vec<Finding>) {
    process(bundle, findings);
    let Some(linux) = bundle.spec.linux() else {
        return;
    };
    namespaces(bundle, findings);
    for (clock, offset) in linux.time_offsets().iter().flatten() {
        if let Some(why) = namespaces::impossible_offset(clock, offset.secs().unwrap_or(0)) {
            let pointer = format!("/linux/timeOffsets/{clock}/secs");
            findings.push(Finding::error(pointer, why));
        }
    }
    labels(bundle, findings);
    sysctl(bundle, findings);
    filter(bundle, findings);
    if linux.intel_rdt().is_some() && !has_filesystem_mounted("resctrl") {
        let message = "no resctrl is mounted on this machine";
        let hint =
            "mount it (mount -t resctrl resctrl /sys/fs/resctrl); it needs a processor with RDT";
        findings.push(Finding::error("/linux/intelRdt", message).hint(hint));
    }
    devices_of_the_network(bundle, findings);
    if let Some(policy) = linux.memory_policy()
        && let Some(nodes) = policy.nodes()
    {
        online(
            nodes,
            "/sys/devices/system/node/online",
            "memory node",
            "/linux/memoryPolicy/nodes",
            findings,
        );
    }
}

/// What a list asks for beyond what there is.
pub fn online(list: &str, file: &str, what: &str, pointer: &str, findings: &mut Vec<Finding>) {
    const ANY: u32 = u32::MAX - 1;
    let Some(there) = read(file) else { return };
    let (Ok(wanted), Ok(there)) = (number_list(list, ANY), number_list(&there, ANY)) else {
        return;
    };
    let missing = |number: &u32| !there.iter().any(|range| range.contains(number));
    let mut wanted = wanted
        .iter()
        .flat_map(|range| [*range.start(), *range.end()]);
    if let Some(number) = wanted.find(missing) {
        let listed: Vec<String> = there
            .iter()
            .map(|range| match range.start() == range.end() {
                true => range.start().to_string(),
                false => format!("{}-{}", range.start(), range.end()),
            })
            .collect();
        let message = format!("{what} {number} isn't on this machine");
        let hint = format!("it has {}", listed.join(","));
        findings.push(Finding::error(pointer, message).hint(hint));
    }
}

pub fn has_filesystem_mounted(name: &str) -> bool {
    let mounts = read("/proc/self/mounts").unwrap_or_default();
    mounts
        .lines()
        .any(|line| line.split(' ').nth(2) == Some(name))
}

fn process(bundle: &Bundle, findings: &mut Vec<Finding>) {
    let Some(process) = bundle.spec.process() else {
        return;
    };
    let user = has_namespace(bundle, Type::User);
    for (index, rlimit) in process.rlimits().iter().flatten().enumerate() {
        let name = rlimit.typ().to_string();
        if name == "RLIMIT_NOFILE"
            && let Some(most) = read("/proc/sys/fs/nr_open").and_then(|most| most.parse().ok())
            && rlimit.hard() > most
        {
            let message = format!("{name}: {} is above fs.nr_open, {most}", rlimit.hard());
            let hint =
                format!("give it {most} at most, or raise it for the machine: sysctl fs.nr_open");
            findings
                .push(Finding::error(format!("/process/rlimits/{index}/hard"), message).hint(hint));
        } else if let Some(hard) = hard_limit(&name)
            && rlimit.hard() > hard
            && (crate::namespaces::nested() || !may(Capability::CAP_SYS_RESOURCE))
        {
            let message = format!(
                "{name}: {} is above husk's own hard limit, {hard}",
                rlimit.hard()
            );
            let hint =
                "raising it needs CAP_SYS_RESOURCE: lower it here, or raise it for the caller";
            findings
                .push(Finding::error(format!("/process/rlimits/{index}/hard"), message).hint(hint));
        }
    }
    if let Some(score) = process.oom_score_adj()
        && let Some(own) = read("/proc/self/oom_score_adj").and_then(|own| own.parse::<i32>().ok())
        && score < own
        && !may(Capability::CAP_SYS_RESOURCE)
    {
        let message = format!("{score} is below husk's own, {own}: that needs CAP_SYS_RESOURCE");
        findings.push(Finding::warning("/process/oomScoreAdj", message));
    }
    capabilities(bundle, findings);
    if let Some(scheduler) = process.scheduler() {
        use LinuxSchedulerPolicy::{SchedDeadline, SchedFifo, SchedRr};
        let realtime = matches!(scheduler.policy(), SchedDeadline | SchedFifo | SchedRr);
        if realtime && !may(Capability::CAP_SYS_NICE) {
            let message = format!(
                "{:?} needs CAP_SYS_NICE, which husk hasn't got here",
                scheduler.policy()
            );
            findings.push(Finding::warning("/process/scheduler/policy", message));
        }
    }
    if process.no_new_privileges() != Some(true)
        && bundle
            .spec
            .linux()
            .as_ref()
            .is_some_and(|linux| linux.seccomp().is_some())
        && !user
        && !may(Capability::CAP_SYS_ADMIN)
    {
        let message = "a seccomp filter without no_new_privs needs CAP_SYS_ADMIN";
        findings.push(Finding::error("/process/noNewPrivileges", message).hint("set it to true"));
    }
}

/// In the names of config.json.
fn hard_limit(name: &str) -> Option<u64> {
    let title = match name {
        "RLIMIT_AS" => "Max address space",
        "RLIMIT_CORE" => "Max core file size",
        "RLIMIT_CPU" => "Max cpu time",
        "RLIMIT_DATA" => "Max data size",
        "RLIMIT_FSIZE" => "Max file size",
        "RLIMIT_LOCKS" => "Max file locks",
        "RLIMIT_MEMLOCK" => "Max locked memory",
        "RLIMIT_MSGQUEUE" => "Max msgqueue size",
        "RLIMIT_NICE" => "Max nice priority",
        "RLIMIT_NOFILE" => "Max open files",
        "RLIMIT_NPROC" => "Max processes",
        "RLIMIT_RSS" => "Max resident set",
        "RLIMIT_RTPRIO" => "Max realtime priority",
        "RLIMIT_RTTIME" => "Max realtime timeout",
        "RLIMIT_SIGPENDING" => "Max pending signals",
        "RLIMIT_STACK" => "Max stack size",
        _ => return None,
    };
    let text = read("/proc/self/limits")?;
    let row = text.lines().find_map(|line| line.strip_prefix(title))?;
    match row.split_whitespace().nth(1)? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

fn capabilities(bundle: &Bundle, findings: &mut Vec<Finding>) {
    let process = bundle.spec.process().as_ref();
    let Some(sets) = process.and_then(|process| process.capabilities().as_ref()) else {
        return;
    };
    for (key, set) in [
        ("bounding", sets.bounding()),
        ("permitted", sets.permitted()),
    ] {
        let mut names: Vec<String> = set.iter().flatten().map(ToString::to_string).collect();
        names.sort();
        for name in names {
            let full = format!("CAP_{}", name.trim_start_matches("CAP_"));
            let Ok(capability) = full.parse::<Capability>() else {
                continue;
            };
            if crate::sys::prctl::has_bounding(capability.index()) == Ok(false) {
                let message =
                    format!("{full} isn't in husk's own bounding set: the container won't have it");
                findings.push(Finding::warning(
                    format!("/process/capabilities/{key}"),
                    message,
                ));
            }
        }
    }
}

/// The file of /proc/self/ns, and the limit below /proc/sys/user.
fn kernel_names(kind: Type) -> (&'static str, &'static str) {
    match kind {
        Type::Mount => ("mnt", "max_mnt_namespaces"),
        Type::Cgroup => ("cgroup", "max_cgroup_namespaces"),
        Type::Uts => ("uts", "max_uts_namespaces"),
        Type::Ipc => ("ipc", "max_ipc_namespaces"),
        Type::User => ("user", "max_user_namespaces"),
        Type::Pid => ("pid", "max_pid_namespaces"),
        Type::Network => ("net", "max_net_namespaces"),
        Type::Time => ("time", "max_time_namespaces"),
    }
}

fn namespaces(bundle: &Bundle, findings: &mut Vec<Finding>) {
    let linux = bundle.spec.linux().as_ref();
    let listed = linux
        .and_then(|linux| linux.namespaces().as_deref())
        .unwrap_or_default();
    for (index, namespace) in listed.iter().enumerate() {
        let pointer = format!("/linux/namespaces/{index}");
        let (file, limit) = kernel_names(namespace.typ());
        if !Path::new("/proc/self/ns").join(file).exists() {
            let message = format!("this kernel has no {} namespaces", namespace.typ());
            findings.push(Finding::error(format!("{pointer}/type"), message));
            continue;
        }
        let is_new = namespace
            .path()
            .as_deref()
            .is_none_or(|path| path.as_os_str().is_empty());
        if is_new && read(Path::new("/proc/sys/user").join(limit)).as_deref() == Some("0") {
            let message = format!(
                "{} namespaces are switched off on this machine",
                namespace.typ()
            );
            let hint = format!("sysctl -w user.{limit}=15000");
            findings.push(Finding::error(pointer, message).hint(hint));
        }
    }
    // What create says of those to be joined.
    let joined = namespaces::Plan::open(linux);
    if let Err(error) = joined.and_then(|plan| plan.spare_own(|| settings(&bundle.spec))) {
        let lost = error.code() == Some(Errno::ENOENT) && error.remedy().is_none();
        let finding = Finding::from(error);
        findings.push(match lost {
            true => {
                let hint = lost_namespace(linux, &finding.pointer);
                finding.hint(hint)
            }
            false => finding,
        });
    }
}

/// What may have become of a namespace that isn't where it should be.
fn lost_namespace(linux: Option<&Linux>, pointer: &str) -> String {
    let index = pointer
        .split('/')
        .nth(3)
        .and_then(|index| index.parse::<usize>().ok());
    let listed = linux.and_then(|linux| linux.namespaces().as_deref());
    let listed = listed.unwrap_or_default();
    let path = index.and_then(|index| listed.get(index)?.path().as_deref());
    let near = path.and_then(neighbour);
    let named = path.and_then(|path| path.strip_prefix("/run/netns").ok());
    match (near, named) {
        (Some(near), _) => near,
        (None, Some(name)) => format!("make it: ip netns add {}", name.display()),
        (None, None) => "the process or bind mount that held it is gone".into(),
    }
}

pub fn has_apparmor() -> bool {
    read("/sys/module/apparmor/parameters/enabled").as_deref() == Some("Y")
}

/// Every kind by its name in config.json, and whether it can be had.
pub fn namespaces_there() -> impl Iterator<Item = (String, bool)> {
    let kinds = [
        (Type::Cgroup, "cgroup"),
        (Type::Ipc, "ipc"),
        (Type::Mount, "mount"),
        (Type::Network, "network"),
        (Type::Pid, "pid"),
        (Type::Time, "time"),
        (Type::User, "user"),
        (Type::Uts, "uts"),
    ];
    kinds.into_iter().map(|(kind, name)| {
        let (file, limit) = kernel_names(kind);
        let exists = Path::new("/proc/self/ns").join(file).exists();
        let limit = read(Path::new("/proc/sys/user").join(limit));
        (name.to_owned(), exists && limit.as_deref() != Some("0"))
    })
}

/// Labels that no module of this kernel knows: applied they would be nothing.
fn labels(bundle: &Bundle, findings: &mut Vec<Finding>) {
    let Some(process) = bundle.spec.process() else {
        return;
    };
    let given = |label: &Option<String>| label.clone().filter(|label| !label.is_empty());
    if let Some(profile) = given(process.apparmor_profile()).filter(|name| name != "unconfined") {
        const POINTER: &str = "/process/apparmorProfile";
        if !has_apparmor() {
            let message = format!("profile {profile:?}: AppArmor is not enabled in this kernel");
            let hint = "remove apparmorProfile, or boot with apparmor=1 security=apparmor";
            findings.push(Finding::error(POINTER, message).hint(hint));
        } else if let Some(loaded) = read("/sys/kernel/security/apparmor/profiles") {
            let names: Vec<&str> = loaded
                .lines()
                .filter_map(|line| line.rsplit_once(" (").map(|(name, _)| name))
                .collect();
            if !names.contains(&profile.as_str()) {
                let message = format!("profile {profile:?} is not loaded");
                let hint = did_you_mean(&profile, names.iter().copied())
                    .unwrap_or_else(|| "load it: apparmor_parser -r FILE".into());
                findings.push(Finding::error(POINTER, message).hint(hint));
            }
        }
    }
    let linux = bundle.spec.linux().as_ref();
    if let Some(label) = linux.and_then(|linux| given(linux.mount_label()))
        && !has_filesystem_mounted("selinuxfs")
    {
        let message = format!("label {label:?} is left out: SELinux is not enabled in this kernel");
        findings.push(Finding::warning("/linux/mountLabel", message));
    }
    if let Some(label) = given(process.selinux_label())
        && !has_filesystem_mounted("selinuxfs")
    {
        let message = format!("label {label:?}: SELinux is not enabled in this kernel");
        let hint = "remove selinuxLabel: a container that is not confined by it would be started";
        findings.push(Finding::error("/process/selinuxLabel", message).hint(hint));
    }
}

/// Of those that every namespace has a copy of, the own ones tell what there is.
fn sysctl(bundle: &Bundle, findings: &mut Vec<Finding>) {
    let linux = bundle.spec.linux().as_ref();
    let Some(listed) = linux.and_then(|linux| linux.sysctl().as_ref()) else {
        return;
    };
    let mut keys: Vec<&String> = listed.keys().collect();
    keys.sort();
    for key in keys {
        let Some(path) = sysctl_path(key) else {
            continue;
        };
        let path = Path::new("/proc/sys").join(path);
        // Devices of the container's network are not there yet.
        let of_a_device =
            key.contains(".conf.") || key.contains(".neigh.") || key.contains("/conf/");
        if of_a_device {
            continue;
        }
        if path.exists() {
            let is_number = |text: &str| {
                let mut words = text.split_whitespace();
                words.all(|word| {
                    let digits = word.trim_start_matches('-');
                    digits.starts_with("0x") || digits.parse::<u64>().is_ok()
                })
            };
            let now = read(&path).filter(|now| !now.is_empty());
            let value = &listed[key];
            if now.is_some_and(|now| is_number(&now)) && !is_number(value) {
                let message = format!("{value:?} is no number, as the kernel has there");
                let pointer = format!("/linux/sysctl/{}", pointer_key(key));
                findings.push(Finding::error(pointer, message).maybe_hint(number(value)));
            }
            continue;
        }
        let parent = path.parent().unwrap_or(Path::new("/"));
        let names: Vec<String> = std::fs::read_dir(parent)
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let message = with_phrase(format!("sysctl {key} ({})", path.display()), Errno::ENOENT);
        let hint = did_you_mean(name, names.iter().map(String::as_str))
            .unwrap_or_else(|| "this kernel hasn't got it; is a module missing?".into());
        let pointer = format!("/linux/sysctl/{}", pointer_key(key));
        findings.push(Finding::error(pointer, message).hint(hint));
    }
}

fn filter(bundle: &Bundle, findings: &mut Vec<Finding>) {
    const POINTER: &str = "/linux/seccomp";
    let linux = bundle.spec.linux().as_ref();
    let Some(profile) = linux.and_then(|linux| linux.seccomp().as_ref()) else {
        return;
    };
    match seccomp::compile(profile) {
        Err(error) => findings.push(error.into()),
        Ok(filter) => {
            for warning in filter.warnings() {
                findings.push(Finding::warning(warning.pointer(), warning.to_string()));
            }
            execution(profile, findings);
        }
    }
    let Some(known) = read("/proc/sys/kernel/seccomp/actions_avail") else {
        let message = "this kernel has no seccomp filters";
        findings.push(Finding::error(POINTER, message));
        return;
    };
    let rules = profile.syscalls().iter().flatten();
    let notifies = rules
        .into_iter()
        .any(|rule| rule.action() == LinuxSeccompAction::ScmpActNotify);
    if notifies && !known.split_whitespace().any(|word| word == "user_notif") {
        findings.push(Finding::error(
            POINTER,
            "this kernel can't notify a listener: SCMP_ACT_NOTIFY",
        ));
    }
    if notifies && let Some(path) = profile.listener_path() {
        let path = bundle.dir.join(path);
        let patience = std::time::Duration::from_secs(1);
        if let Err(errno) = crate::sys::socket::connect_within(&path, patience) {
            let message = with_phrase(format!("seccomp agent at {}", path.display()), errno);
            let hint = "start the agent that answers SCMP_ACT_NOTIFY before the container";
            findings.push(Finding::error("/linux/seccomp/listenerPath", message).hint(hint));
        }
    }
}

/// A program that is filtered before it is executed has to be let do that.
fn execution(profile: &LinuxSeccomp, findings: &mut Vec<Finding>) {
    let Some(native) = seccomp::Arch::native() else {
        return;
    };
    let arguments = [0; seccomp::ARGUMENTS];
    let Ok(verdict) = seccomp::explain(profile, native, native, "execve", &arguments) else {
        return;
    };
    // What an agent answers isn't known.
    let asks = verdict.action.value() & nix::libc::SECCOMP_RET_ACTION_FULL
        == nix::libc::SECCOMP_RET_USER_NOTIF;
    if verdict.action.is_denial() && !asks {
        let pointer = match verdict.reason {
            seccomp::Reason::Rule(rule) => format!("/linux/seccomp/syscalls/{rule}"),
            _ => "/linux/seccomp/defaultAction".into(),
        };
        let message = format!(
            "execve is denied ({}): no program can be started",
            verdict.action
        );
        let hint = "allow execve in linux.seccomp: the filter is there before the program is";
        findings.push(Finding::error(pointer, message).hint(hint));
    }
}

fn devices_of_the_network(bundle: &Bundle, findings: &mut Vec<Finding>) {
    let linux = bundle.spec.linux().as_ref();
    let Some(devices) = linux.and_then(|linux| linux.net_devices().as_ref()) else {
        return;
    };
    let mut wanted: Vec<&String> = devices.keys().collect();
    wanted.sort();
    let there: Vec<String> = std::fs::read_dir("/sys/class/net")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    for name in wanted {
        if !there.is_empty() && !there.contains(name) {
            let message = format!("no network device {name:?} on this machine");
            let hint = did_you_mean(name, there.iter().map(String::as_str))
                .unwrap_or_else(|| format!("it has {}", there.join(", ")));
            let pointer = format!("/linux/netDevices/{}", crate::error::pointer_key(name));
            findings.push(Finding::error(pointer, message).hint(hint));
        }
    }
}
