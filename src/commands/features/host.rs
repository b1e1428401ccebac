//! `features --host`, for people.

use std::fmt::Write as _;

use crate::preflight::Machine;

pub fn to_text(machine: &Machine) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<12} {value}");
    };
    let word = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    row(
        "kernel",
        format!("Linux {} on {}", machine.kernel, machine.architecture),
    );
    row("root", word(machine.root));
    let there: Vec<&str> = machine
        .namespaces
        .iter()
        .filter(|(_, there)| **there)
        .map(|(name, _)| name.as_str())
        .collect();
    row("namespaces", there.join(" "));
    row(
        "cgroup v2",
        match &machine.cgroup.mount {
            Some(mount) => format!(
                "{}: {}",
                mount.display(),
                machine.cgroup.controllers.join(" ")
            ),
            None => "none".into(),
        },
    );
    row("overlay", word(machine.mounts.overlay));
    row("idmap", word(machine.mounts.idmap));
    row("seccomp", machine.seccomp.join(" "));
    row("apparmor", word(machine.apparmor));
    row("selinux", word(machine.selinux));
    row("resctrl", word(machine.resctrl));
    row("systemd", word(machine.systemd));
    for missing in &machine.missing {
        let _ = writeln!(text, "\nmissing: {}\n  {}", missing.what, missing.why);
        if let Some(hint) = &missing.hint {
            let _ = writeln!(text, "  hint: {hint}");
        }
    }
    text
}
