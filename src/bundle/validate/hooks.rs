//! Rules of `hooks`.

use oci_spec::runtime::{Hook, Hooks};

use super::process::environment;
use super::{Finding, Findings, absolute};

#[allow(deprecated)] // prestart hooks still come from engines.
pub fn hooks(hooks: &Hooks, findings: &mut Findings) {
    for (stage, hooks) in [
        ("prestart", hooks.prestart()),
        ("createRuntime", hooks.create_runtime()),
        ("createContainer", hooks.create_container()),
        ("startContainer", hooks.start_container()),
        ("poststart", hooks.poststart()),
        ("poststop", hooks.poststop()),
    ] {
        for (i, entry) in hooks.iter().flatten().enumerate() {
            hook(entry, &format!("/hooks/{stage}/{i}"), findings);
        }
    }
}

fn hook(hook: &Hook, pointer: &str, findings: &mut Findings) {
    absolute(hook.path(), || format!("{pointer}/path"), findings);
    if let Some(timeout) = hook.timeout()
        && timeout <= 0
    {
        let message = format!("a timeout of {timeout} seconds: it must be greater than zero");
        let hint = "leave it out for no timeout";
        findings.push(Finding::error(format!("{pointer}/timeout"), message).hint(hint));
    }
    environment(hook.env().as_deref(), pointer, findings);
}
