//! Rules of `linux.seccomp`; names of system calls are the filter compiler's business.

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction};

use super::{Finding, Findings};

const POINTER: &str = "/linux/seccomp";
/// The kernel's MAX_ERRNO, to which it cuts greater values.
const MAX_ERRNO: u32 = 4095;
/// SECCOMP_RET_DATA
const MAX_DATA: u32 = 0xffff;

pub fn seccomp(seccomp: &LinuxSeccomp, findings: &mut Findings) {
    let default_action = seccomp.default_action();
    errno(
        default_action,
        seccomp.default_errno_ret(),
        &format!("{POINTER}/defaultErrnoRet"),
        findings,
    );
    let has_listener = seccomp
        .listener_path()
        .as_ref()
        .is_some_and(|path| !path.as_os_str().is_empty());
    let metadata = seccomp.listener_metadata().as_deref().unwrap_or_default();
    if !metadata.is_empty() && !has_listener {
        let message = "listenerMetadata needs a listenerPath";
        findings.push(Finding::error(
            format!("{POINTER}/listenerMetadata"),
            message,
        ));
    }
    if default_action == LinuxSeccompAction::ScmpActNotify {
        let message = "SCMP_ACT_NOTIFY cannot be used as default action";
        findings.push(Finding::error(format!("{POINTER}/defaultAction"), message));
    }
    for (i, rule) in seccomp.syscalls().iter().flatten().enumerate() {
        let pointer = || format!("{POINTER}/syscalls/{i}");
        if rule.names().is_empty() {
            let pointer = format!("{}/names", pointer());
            findings.push(Finding::error(pointer, "a rule needs at least one name"));
        }
        if let Some(n) = rule.names().iter().position(String::is_empty) {
            let pointer = format!("{}/names/{n}", pointer());
            findings.push(Finding::error(pointer, "the name is empty"));
        }
        if rule.errno_ret().is_some() {
            let pointer = format!("{}/errnoRet", pointer());
            errno(rule.action(), rule.errno_ret(), &pointer, findings);
        }
        if rule.action() == LinuxSeccompAction::ScmpActNotify && !has_listener {
            let message = "SCMP_ACT_NOTIFY needs a listenerPath in /linux/seccomp";
            findings.push(Finding::error(format!("{}/action", pointer()), message));
        }
        for (n, argument) in rule.args().iter().flatten().enumerate() {
            if argument.index() > 5 {
                let message = format!("no argument {}: system calls have 0 to 5", argument.index());
                let pointer = format!("{}/args/{n}/index", pointer());
                findings.push(Finding::error(pointer, message));
            }
        }
    }
}

fn errno(action: LinuxSeccompAction, value: Option<u32>, pointer: &str, findings: &mut Findings) {
    let Some(value) = value else {
        return;
    };
    let max = match action {
        LinuxSeccompAction::ScmpActErrno => MAX_ERRNO,
        LinuxSeccompAction::ScmpActTrace => MAX_DATA,
        _ => {
            let message = format!("the action {action} returns no errno");
            let hint = "only SCMP_ACT_ERRNO and SCMP_ACT_TRACE do";
            findings.push(Finding::error(pointer, message).hint(hint));
            return;
        }
    };
    if value > max {
        let message = format!("{value} is more than {action} can return: {max}");
        findings.push(Finding::error(pointer, message));
    }
}
