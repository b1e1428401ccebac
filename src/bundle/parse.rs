//! Bytes to types: a fast way for the usual document, a slow one that repairs and explains.

use oci_spec::runtime::{
    LinuxDevice, LinuxDeviceType, LinuxIdMapping, LinuxSchedulerFlag, Process, Spec,
};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;

use super::schema::{self, Kind, Report, quote};
use super::{Extra, Finding, Findings, repair, strict, syntax};

/// Larger documents are counted first. Below, no document can take more than tens of megabytes.
const COUNTED: usize = 512 << 10;
/// No engine's config comes near: a device takes 10 values, a seccomp profile 1,000.
const MAX_VALUES: usize = 150_000;

/// config.json. `None` if `findings` tell why not.
pub fn config(raw: &[u8], findings: &mut Findings) -> Option<(Box<Spec>, Extra)> {
    if too_many_values(raw, findings) {
        return None;
    }
    match plainly::<Box<Spec>>(raw) {
        Some(mut spec)
            if !misspelt(spec.process().as_ref())
                && !arrays_for_objects(raw)
                && !half_mapped(raw, &spec) =>
        {
            repair::forget_other_platforms(&mut spec);
            let extra = extra(raw, &spec, findings);
            refuse_nul(raw, &schema::CONFIG, findings);
            Some((spec, extra))
        }
        _ => slow_config(raw, Report::Values, findings),
    }
}

/// A `process` object. `None` if `findings` tell why not.
pub fn process(raw: &[u8], findings: &mut Findings) -> Option<Process> {
    if too_many_values(raw, findings) {
        return None;
    }
    match plainly::<Process>(raw) {
        Some(mut process) if !misspelt(Some(&process)) && !arrays_for_objects(raw) => {
            repair::forget_other_platforms_of(&mut process);
            refuse_nul(raw, &schema::PROCESS, findings);
            Some(process)
        }
        _ => {
            let mut value = syntax::read(raw, findings)?;
            let kind = &schema::PROCESS;
            if mentions_nul(raw) {
                nul_below_known(kind, &value, findings);
            }
            schema::walk(kind, &mut value, Report::Values, findings);
            repair::process(&mut value);
            typed(&value, findings)
        }
    }
}

/// As [`config`], but reports all that the slow way can tell.
pub fn check(raw: &[u8], findings: &mut Findings) -> Option<(Box<Spec>, Extra)> {
    match too_many_values(raw, findings) {
        true => None,
        false => slow_config(raw, Report::Everything, findings),
    }
}

/// The properties of a sound config.json that nobody knows.
pub fn unknown(raw: &[u8], findings: &mut Findings) {
    let kind = &schema::CONFIG;
    if str::from_utf8(raw).is_ok_and(|text| schema::is_plain(kind, text)) {
        return;
    }
    if let Some(mut value) = syntax::read(raw, findings) {
        schema::walk(kind, &mut value, Report::Unknown, findings);
    }
}

#[cold]
#[inline(never)]
fn slow_config(raw: &[u8], report: Report, findings: &mut Findings) -> Option<(Box<Spec>, Extra)> {
    let mut value = syntax::read(raw, findings)?;
    let kind = &schema::CONFIG;
    // First: the walk leaves out items of lists, and later ones would be told in their place.
    if mentions_nul(raw) {
        nul_below_known(kind, &value, findings);
    }
    schema::walk(kind, &mut value, report, findings);
    for platform in repair::OTHER_PLATFORMS {
        if let Some(map) = value.as_object_mut() {
            map.remove(*platform);
        }
    }
    let extra = Extra {
        pids_limit: value
            .pointer("/linux/resources/pids/limit")
            .and_then(Value::as_i64),
    };
    device_numbers(&value, findings);
    repair::config(&mut value);
    Some((typed(&value, findings)?, extra))
}

/// The fast way: the text is looked through once for what is no UTF-8, in place of each string of it.
fn plainly<T: DeserializeOwned>(raw: &[u8]) -> Option<T> {
    serde_json::from_str(str::from_utf8(raw).ok()?).ok()
}

/// The last step of the slow way: as text once more, because each other source of the types would
/// double their code. It succeeds unless the schema here and the crate's types differ: then the
/// crate's own words must do.
fn typed<T: DeserializeOwned>(value: &Value, findings: &mut Findings) -> Option<T> {
    if findings.has_error() {
        return None;
    }
    let text = serde_json::to_string(value).unwrap_or_default();
    match serde_json::from_str(&text) {
        Ok(typed) => Some(typed),
        Err(error) => {
            let pointer = strict::pointer(text.as_bytes(), &error);
            findings.push(Finding::error(pointer, syntax::told(&error)));
            None
        }
    }
}

/// `oci_spec` 0.10 knows two scheduler flags under names that no one else uses. Found on the fast
/// way, they were really spelt so: the slow way refuses them.
fn misspelt(process: Option<&Process>) -> bool {
    process
        .and_then(|p| p.scheduler().as_ref())
        .and_then(|s| s.flags().as_ref())
        .is_some_and(|flags| {
            flags.iter().any(|f| {
                matches!(
                    f,
                    LinuxSchedulerFlag::SchedResetOnFork | LinuxSchedulerFlag::SchedFlagDLOverrun
                )
            })
        })
}

/// serde's derived types take an array for an object, its items for the fields in their order:
/// `"user": []` would pass. So a bracket that doesn't follow a key of which an array is expected
/// sends the document the slow way, which knows better.
pub(super) fn arrays_for_objects(raw: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(raw) else {
        return true;
    };
    // Most documents have none even among the brackets in strings.
    text.match_indices('[').any(|(at, _)| misplaced(&raw[..at]))
        && outside_strings(raw).any(|(at, byte)| byte == b'[' && misplaced(&raw[..at]))
}

/// Is an array out of place after this?
fn misplaced(before: &[u8]) -> bool {
    match before.trim_ascii_end().split_last() {
        Some((b':', before)) => match before.trim_ascii_end().strip_suffix(b"\"") {
            Some(key) => {
                let start = key.iter().rposition(|b| *b == b'"').map_or(0, |i| i + 1);
                !schema::is_list(&key[start..])
            }
            None => false,
        },
        Some((b'[' | b',', _)) | None => true,
        Some(_) => false,
    }
}

/// The bytes of a JSON text that belong to no string, with their offsets.
fn outside_strings(raw: &[u8]) -> impl Iterator<Item = (usize, u8)> {
    let mut in_string = false;
    let mut escaped = false;
    raw.iter().copied().enumerate().filter(move |(_, byte)| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ => return !in_string,
        }
        false
    })
}

/// Whether an id mapping lacks a number, which `oci_spec` reads as 0: the host's root might be meant, or
/// nobody. The slow way refuses it.
fn half_mapped(raw: &[u8], spec: &Spec) -> bool {
    let linux = spec.linux().as_ref();
    let of_mounts = spec.mounts().iter().flatten();
    let lists = of_mounts
        .flat_map(|mount| [mount.uid_mappings(), mount.gid_mappings()])
        .chain(
            linux
                .into_iter()
                .flat_map(|l| [l.uid_mappings(), l.gid_mappings()]),
        );
    let is_zero = |entry: &LinuxIdMapping| {
        entry.container_id() == 0 || entry.host_id() == 0 || entry.size() == 0
    };
    if !lists.flatten().flatten().any(is_zero) {
        return false;
    }
    let Ok(read) = serde_json::from_slice::<Presence>(raw) else {
        return true;
    };
    let of_linux = read.linux.into_iter();
    let mut entries = of_linux
        .flat_map(|linux| [linux.uid_mappings, linux.gid_mappings])
        .chain(
            read.mounts
                .into_iter()
                .flatten()
                .flat_map(|mount| [mount.uid_mappings, mount.gid_mappings]),
        )
        .flatten()
        .flatten();
    entries.any(|entry| [entry.container_id, entry.host_id, entry.size].contains(&None))
}

#[derive(Deserialize)]
struct Presence {
    linux: Option<PresenceLinux>,
    mounts: Option<Vec<PresenceMount>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PresenceMount {
    uid_mappings: Option<Vec<PresenceMapping>>,
    gid_mappings: Option<Vec<PresenceMapping>>,
}

#[derive(Deserialize)]
struct PresenceMapping {
    #[serde(rename = "containerID")]
    container_id: Option<u32>,
    #[serde(rename = "hostID")]
    host_id: Option<u32>,
    size: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PresenceLinux {
    uid_mappings: Option<Vec<PresenceMapping>>,
    gid_mappings: Option<Vec<PresenceMapping>>,
    devices: Option<Vec<PresenceDevice>>,
    resources: Option<PresenceResources>,
}

#[derive(Deserialize)]
struct PresenceDevice {
    major: Option<IgnoredAny>,
    minor: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct PresenceResources {
    pids: Option<PresencePids>,
}

#[derive(Deserialize)]
struct PresencePids {
    limit: Option<i64>,
}

/// `oci_spec` reads absent numbers as 0. Only where that matters, and only if there is such a 0,
/// the document is read once more.
fn extra(raw: &[u8], spec: &Spec, findings: &mut Findings) -> Extra {
    let Some(linux) = spec.linux() else {
        return Extra::default();
    };
    let limit = linux
        .resources()
        .as_ref()
        .and_then(|r| r.pids().as_ref())
        .map(|p| p.limit());
    let devices = linux.devices().as_deref().unwrap_or_default();
    let unnumbered = |d: &LinuxDevice| is_numbered(d.typ()) && (d.major() == 0 || d.minor() == 0);
    if limit != Some(0) && !devices.iter().any(unnumbered) {
        return Extra { pids_limit: limit };
    }
    let Ok(Presence {
        linux: Some(read), ..
    }) = serde_json::from_slice(raw)
    else {
        return Extra { pids_limit: limit };
    };
    for (i, (device, read)) in devices
        .iter()
        .zip(read.devices.iter().flatten())
        .enumerate()
    {
        let typ = device.typ();
        if is_numbered(typ) {
            number_missing(i, typ.as_str(), "major", read.major.is_none(), findings);
            number_missing(i, typ.as_str(), "minor", read.minor.is_none(), findings);
        }
    }
    Extra {
        pids_limit: read.resources.and_then(|r| r.pids).and_then(|p| p.limit),
    }
}

fn is_numbered(typ: LinuxDeviceType) -> bool {
    use LinuxDeviceType::{B, C, U};
    matches!(typ, B | C | U)
}

/// The same rule of devices on the slow way.
fn device_numbers(value: &Value, findings: &mut Findings) {
    let devices = value
        .pointer("/linux/devices")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    for (i, device) in devices.enumerate() {
        let type_name = device.get("type").and_then(Value::as_str).unwrap_or("");
        if matches!(type_name, "b" | "c" | "u") {
            for key in ["major", "minor"] {
                number_missing(i, type_name, key, device.get(key).is_none(), findings);
            }
        }
    }
}

fn number_missing(i: usize, type_name: &str, key: &str, missing: bool, findings: &mut Findings) {
    if missing {
        findings.push(Finding::error(
            format!("/linux/devices/{i}/{key}"),
            format!("a device of type {type_name} needs a {key} number"),
        ));
    }
}

/// Strings of config.json end up in system calls, which end them at a NUL. JSON can spell one only
/// as `\u0000`, so a document without a backslash is done.
fn refuse_nul(raw: &[u8], kind: &Kind, findings: &mut Findings) {
    if mentions_nul(raw)
        && let Some(value) = syntax::read(raw, findings)
    {
        nul_below_known(kind, &value, findings);
    }
}

fn mentions_nul(raw: &[u8]) -> bool {
    raw.contains(&b'\\') && raw.windows(6).any(|w| w == b"\\u0000")
}

/// Unknown properties and other platforms' are ignored, whatever they hold.
fn nul_below_known(kind: &Kind, value: &Value, findings: &mut Findings) {
    match (kind, value) {
        (Kind::Object(fields), Value::Object(map)) => {
            for (key, value) in map {
                let known = |f: &schema::Field| f.name == key && !matches!(f.kind, Kind::Foreign);
                if fields.iter().any(known) {
                    nul(value, &syntax::child("", key), findings);
                }
            }
        }
        _ => nul(value, "", findings),
    }
}

fn nul(value: &Value, pointer: &str, findings: &mut Findings) {
    match value {
        Value::String(text) if text.contains('\0') => {
            let message = format!("{} contains a NUL character", quote(text));
            findings.push(Finding::error(pointer, message));
        }
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                nul(item, &format!("{pointer}/{i}"), findings);
            }
        }
        Value::Object(map) => {
            // A null is as good as absent.
            for (key, value) in map.iter().filter(|(_, value)| !value.is_null()) {
                let pointer = syntax::child(pointer, key);
                if key.contains('\0') {
                    let message = format!("the key {} contains a NUL character", quote(key));
                    findings.push(Finding::error(pointer.as_str(), message));
                }
                nul(value, &pointer, findings);
            }
        }
        _ => {}
    }
}

/// Types take up to 25 times the space of the text that they are read from (`{},{},{}`): a count
/// bounds the memory whatever the text.
pub fn too_many_values(raw: &[u8], findings: &mut Findings) -> bool {
    if raw.len() <= COUNTED {
        return false;
    }
    let values = outside_strings(raw)
        .filter(|(_, byte)| matches!(byte, b',' | b'[' | b'{'))
        .count();
    if values > MAX_VALUES {
        let message = format!("holds {values} values, more than {MAX_VALUES}");
        findings.push(Finding::error("", message));
    }
    values > MAX_VALUES
}
