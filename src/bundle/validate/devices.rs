//! Rules of `linux.devices`.

use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceType};

use super::process::octal_hint;
use super::{Finding, Findings, absolute};

/// A `dev_t` has 12 bits for the major and 20 for the minor number.
const MAX_MAJOR: i64 = 0xfff;
const MAX_MINOR: i64 = 0xf_ffff;
/// Permissions, set-id bits, sticky bit; above them the file type, which engines leave in.
const MODE: u32 = 0o7777;
const FILE_TYPE: u32 = 0o170_000;

pub fn devices(linux: &Linux, findings: &mut Findings) {
    for (i, entry) in linux.devices().iter().flatten().enumerate() {
        device(entry, &format!("/linux/devices/{i}"), findings);
    }
}

fn device(device: &LinuxDevice, pointer: &str, findings: &mut Findings) {
    absolute(device.path(), || format!("{pointer}/path"), findings);
    if device.typ() == LinuxDeviceType::A {
        let message = "invalid device type \"a\"";
        let hint = "known are c, b, u, p; all devices at once are for /linux/resources/devices";
        findings.push(Finding::error(format!("{pointer}/type"), message).hint(hint));
    }
    // A fifo's numbers mean nothing and are ignored.
    if device.typ() != LinuxDeviceType::P {
        for (key, number, max) in [
            ("major", device.major(), MAX_MAJOR),
            ("minor", device.minor(), MAX_MINOR),
        ] {
            if !(0..=max).contains(&number) {
                let message = format!("{number} is no {key} number: 0 to {max}");
                findings.push(Finding::error(format!("{pointer}/{key}"), message));
            }
        }
    }
    if let Some(mode) = device.file_mode() {
        let pointer = format!("{pointer}/fileMode");
        if mode & !(MODE | FILE_TYPE) != 0 {
            let message = format!("{mode} (octal {mode:o}) is no file mode");
            findings.push(Finding::error(pointer, message).maybe_hint(octal_hint(mode)));
        } else if (0o777 + 1..=777).contains(&mode)
            && let Some(hint) = octal_hint(mode)
        {
            let message = format!("{mode} is the mode {mode:o} in octal");
            findings.push(Finding::warning(pointer, message).hint(hint));
        }
    }
}
