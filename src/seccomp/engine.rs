//! Seccomp profiles in the engines' own format, resolved as Docker and podman do before they write
//! config.json: `includes` and `excludes` by capability, architecture and kernel, `archMap` to a list
//! of architectures.

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompArg};
use serde::Deserialize;
use serde_json::{Value, json};

/// The capabilities that Docker gives a container by default.
pub const DOCKER_CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// What a profile is resolved for.
#[derive(Debug, Clone, Copy)]
pub struct Host<'a> {
    /// As Go calls it: `amd64`, `arm64`, `s390x`, …
    pub architecture: &'a str,
    /// Those of the container.
    pub capabilities: &'a [&'a str],
    /// Version and patch level: `(6, 18)`.
    pub kernel: (u32, u32),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    arch_map: Vec<ArchMap>,
    syscalls: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: String,
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    args: Option<Vec<LinuxSeccompArg>>,
    includes: Option<Filter>,
    excludes: Option<Filter>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    #[serde(default)]
    caps: Vec<String>,
    #[serde(default)]
    arches: Vec<String>,
    min_kernel: Option<String>,
}

/// What an engine would write.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// `/linux/seccomp`.
    pub profile: LinuxSeccomp,
    /// For each of its rules the index of the engine's that it was made from.
    pub origins: Vec<usize>,
}

/// Whether a profile has what only engines understand.
pub fn is_engines(profile: &Value) -> bool {
    let rules = profile.get("syscalls").and_then(Value::as_array);
    let conditional =
        |rule: &Value| rule.get("includes").is_some() || rule.get("excludes").is_some();
    profile.get("archMap").is_some() || rules.is_some_and(|rules| rules.iter().any(conditional))
}

/// The `/linux/seccomp` that an engine would write for a container on `host`. The error is a reason.
pub fn resolve(profile: &str, host: &Host) -> Result<Resolved, String> {
    let profile: Profile = serde_json::from_str(profile).map_err(|error| error.to_string())?;
    let native = scmp_name(host.architecture)?;
    let architectures = match profile
        .arch_map
        .iter()
        .find(|entry| entry.architecture == native)
    {
        Some(entry) => {
            let subordinate = entry.sub_architectures.iter().flatten();
            std::iter::once(&entry.architecture)
                .chain(subordinate)
                .collect()
        }
        None => Vec::new(),
    };
    let (mut syscalls, mut origins) = (Vec::new(), Vec::new());
    for (index, rule) in profile.syscalls.iter().enumerate() {
        if !applies(rule, host)? {
            continue;
        }
        let mut resolved = json!({ "names": rule.names, "action": rule.action });
        if let Some(errno) = rule.errno_ret {
            resolved["errnoRet"] = errno.into();
        }
        if let Some(args) = rule.args.as_ref().filter(|args| !args.is_empty()) {
            resolved["args"] = json!(args);
        }
        syscalls.push(resolved);
        origins.push(index);
    }
    let mut resolved = json!({
        "defaultAction": profile.default_action,
        "architectures": architectures,
        "syscalls": Value::Array(syscalls),
    });
    if let Some(errno) = profile.default_errno_ret {
        resolved["defaultErrnoRet"] = errno.into();
    }
    let profile = serde_json::from_value(resolved).map_err(|error| error.to_string())?;
    Ok(Resolved { profile, origins })
}

fn scmp_name(go_name: &str) -> Result<&'static str, String> {
    Ok(match go_name {
        "amd64" => "SCMP_ARCH_X86_64",
        "386" => "SCMP_ARCH_X86",
        "arm64" => "SCMP_ARCH_AARCH64",
        "arm" => "SCMP_ARCH_ARM",
        "riscv64" => "SCMP_ARCH_RISCV64",
        "s390x" => "SCMP_ARCH_S390X",
        "ppc64le" => "SCMP_ARCH_PPC64LE",
        "loong64" => "SCMP_ARCH_LOONGARCH64",
        other => return Err(format!("unknown architecture {other}")),
    })
}

/// Everything that `includes` asks for must be there, nothing that `excludes` names.
fn applies(rule: &Rule, host: &Host) -> Result<bool, String> {
    let has_cap = |cap: &String| host.capabilities.contains(&cap.as_str());
    let is_arch = |arch: &String| arch == host.architecture;
    if let Some(excludes) = &rule.excludes
        && (excludes.caps.iter().any(has_cap)
            || excludes.arches.iter().any(is_arch)
            || reaches(host, excludes.min_kernel.as_deref())? == Some(true))
    {
        return Ok(false);
    }
    let Some(includes) = &rule.includes else {
        return Ok(true);
    };
    Ok(includes.caps.iter().all(has_cap)
        && (includes.arches.is_empty() || includes.arches.iter().any(is_arch))
        && reaches(host, includes.min_kernel.as_deref())? != Some(false))
}

fn reaches(host: &Host, least: Option<&str>) -> Result<Option<bool>, String> {
    let Some(least) = least else {
        return Ok(None);
    };
    let version = least
        .split_once('.')
        .and_then(|(version, level)| Some((version.parse().ok()?, level.parse().ok()?)))
        .ok_or_else(|| format!("minKernel {least}: want VERSION.PATCHLEVEL"))?;
    Ok(Some(host.kernel >= version))
}
