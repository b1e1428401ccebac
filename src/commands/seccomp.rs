use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use caps::Capability;
use oci_spec::runtime::{LinuxSeccomp, Spec};
use serde::Serialize;

use super::form::{Form, Format};
use super::{Global, print};
use crate::bundle;
use crate::error::{Error, Result, Step};
use crate::preflight;
use crate::seccomp::engine::{self, DOCKER_CAPABILITIES, Host};
use crate::seccomp::{self, ARGUMENTS, Arch, Reason, Summary, Verdict};

#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Explain,
}

#[derive(clap::Args, Debug, Clone, PartialEq, Eq)]
#[group(skip)]
pub struct Args {
    /// What the filter answers to this system call; may be repeated
    #[arg(short, long, value_name = "NAME")]
    pub syscall: Vec<String>,
    /// With this argument (0 to 5) of the call, in decimal or hexadecimal; the others are 0
    #[arg(short, long, value_name = "N=VALUE", value_parser = parse_argument)]
    pub arg: Vec<(usize, u64)>,
    /// Made by a program of this ABI [default: this machine's]
    #[arg(long, value_name = "ARCH", value_parser = parse_arch)]
    pub arch: Option<Arch>,
    /// The container has this capability, for engines' profiles; may be repeated [default: Docker's]
    #[arg(short, long, value_name = "CAP")]
    pub cap: Vec<String>,
    #[command(flatten)]
    pub form: Form,
    /// explain: what a profile does, from the profile alone; nothing is run
    #[arg(value_name = "explain", value_enum, hide_possible_values = true)]
    pub action: Action,
    /// A bundle, its config.json, a linux.seccomp object, or an engine's profile; - for standard input
    #[arg(value_name = "PROFILE|BUNDLE")]
    pub profile: PathBuf,
}

fn parse_argument(text: &str) -> Result<(usize, u64), String> {
    let want = || format!("want N=VALUE with N from 0 to {}", ARGUMENTS - 1);
    let (index, value) = text.split_once('=').ok_or_else(want)?;
    let index = index
        .parse()
        .ok()
        .filter(|index| *index < ARGUMENTS)
        .ok_or_else(want)?;
    let value = match value.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        // -1 is what AT_FDCWD and its like are written as.
        None => value
            .parse()
            .ok()
            .or_else(|| value.parse::<i64>().ok().map(i64::cast_unsigned)),
    };
    value
        .map(|value| (index, value))
        .ok_or_else(|| "the value is no number".into())
}

fn parse_arch(text: &str) -> Result<Arch, String> {
    let plain = text.trim_start_matches("SCMP_ARCH_").to_ascii_lowercase();
    let found = Arch::ALL.into_iter().find(|arch| arch.name() == plain);
    found.ok_or_else(|| {
        let names: Vec<_> = Arch::ALL.iter().map(|arch| arch.name()).collect();
        format!("want one of {}", names.join(", "))
    })
}

/// A profile and where its parts are written.
struct Source {
    profile: LinuxSeccomp,
    /// The pointer of the profile in its document.
    base: &'static str,
    /// Of each rule, if an engine's profile was resolved.
    origins: Option<Vec<usize>>,
}

impl Source {
    fn rule(&self, index: usize) -> String {
        let index = self
            .origins
            .as_ref()
            .map_or(index, |origins| origins[index]);
        format!("{}/syscalls/{index}", self.base)
    }

    fn reason(&self, reason: Reason, arch: Arch) -> String {
        match reason {
            Reason::Rule(index) => self.rule(index),
            Reason::Default => format!("{}/defaultAction: no rule holds", self.base),
            Reason::NewerThanProfile => {
                "newer than every call that the profile names: programs are told that it isn't there".into()
            }
            Reason::ArchitectureNotListed => {
                format!("{}/architectures doesn't list {}", self.base, arch.name())
            }
            Reason::NoSuchCall => format!("{}/defaultAction: {} has no such call", self.base, arch.name()),
        }
    }
}

pub fn run(args: Args, _global: &Global) -> anyhow::Result<u8> {
    let native =
        Arch::native().ok_or_else(|| Error::new("no system call table for this architecture"))?;
    let arch = args.arch.unwrap_or(native);
    // A filter answers for the ABIs of one machine.
    let machine = if native.may_meet(arch) { native } else { arch };
    let source = read(&args, machine)?;
    let Action::Explain = args.action;
    let text = if args.syscall.is_empty() {
        let summary = seccomp::summarize(&source.profile, machine)?;
        match args.form.format {
            Format::Text => whole(&source, &summary),
            Format::Json => serde_json::to_string_pretty(&whole_json(&source, &summary))? + "\n",
        }
    } else {
        let mut values = [0; ARGUMENTS];
        for (index, value) in &args.arg {
            values[*index] = *value;
        }
        let mut verdicts = Vec::new();
        for name in &args.syscall {
            if !seccomp::is_call(name) {
                let hint = seccomp::nearest_call(name).map(|name| format!("did you mean {name}?"));
                let error = Error::new("--syscall")
                    .on(name)
                    .because("no such system call");
                return Err(error.maybe_hint(hint).into());
            }
            verdicts.push((
                name,
                seccomp::explain(&source.profile, machine, arch, name, &values)?,
            ));
        }
        match args.form.format {
            Format::Text => {
                let lines = verdicts
                    .iter()
                    .map(|(name, verdict)| line(&source, arch, name, &args.arg, *verdict));
                lines.collect()
            }
            Format::Json => {
                let rows: Vec<Row> = verdicts
                    .iter()
                    .map(|(name, verdict)| Row::new(&source, arch, name, *verdict))
                    .collect();
                serde_json::to_string_pretty(&rows)? + "\n"
            }
        }
    };
    Ok(print(&text)?)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    syscall: &'a str,
    arch: &'static str,
    answer: String,
    because: String,
}

impl<'a> Row<'a> {
    fn new(source: &Source, arch: Arch, name: &'a str, verdict: Verdict) -> Row<'a> {
        Row {
            syscall: name,
            arch: arch.name(),
            answer: verdict.action.to_string(),
            because: source.reason(verdict.reason, arch),
        }
    }
}

fn line(
    source: &Source,
    arch: Arch,
    name: &str,
    args: &[(usize, u64)],
    verdict: Verdict,
) -> String {
    let given: Vec<String> = args
        .iter()
        .map(|(index, value)| format!("arg{index}={value:#x}"))
        .collect();
    let row = Row::new(source, arch, name, verdict);
    format!(
        "{} {name}({}): {}\n  {}\n",
        row.arch,
        given.join(", "),
        row.answer,
        row.because
    )
}

/// Reads whatever kind of document it is.
fn read(args: &Args, machine: Arch) -> Result<Source> {
    let path = &args.profile;
    let raw = if path == Path::new("-") {
        bundle::read_stream(std::io::stdin().lock(), 0, Path::new("standard input"))?
    } else if path.is_dir() {
        bundle::read_config(path)?
    } else {
        let file = std::fs::File::open(path).step("open", path.display())?;
        bundle::read_stream(file, 0, path)?
    };
    let not_json = |error: serde_json::Error| {
        Error::new("read profile")
            .on(path.display())
            .because(error.to_string())
    };
    let value = bundle::parse_value(&raw).map_err(|reason| {
        Error::new("read profile")
            .on(path.display())
            .because(reason)
    })?;
    if value.get("ociVersion").is_some() || value.get("linux").is_some() {
        let spec: Box<Spec> = bundle::Bundle::parse(Path::new("."), raw)?.spec;
        let profile = spec
            .linux()
            .as_ref()
            .and_then(|linux| linux.seccomp().clone());
        let profile = profile.ok_or_else(|| {
            Error::new("config.json")
                .at("/linux/seccomp")
                .because("missing: without a profile every call is allowed")
        })?;
        return Ok(Source {
            profile,
            base: "/linux/seccomp",
            origins: None,
        });
    }
    if !engine::is_engines(&value) {
        let profile = serde_json::from_slice(&raw).map_err(not_json)?;
        return Ok(Source {
            profile,
            base: "",
            origins: None,
        });
    }
    let given: Vec<String> = args
        .cap
        .iter()
        .map(|name| capability(name))
        .collect::<Result<_>>()?;
    let capabilities: Vec<&str> = match given.is_empty() {
        true => DOCKER_CAPABILITIES.to_vec(),
        false => given.iter().map(String::as_str).collect(),
    };
    let host = Host {
        architecture: machine.go_name(),
        capabilities: &capabilities,
        kernel: kernel(),
    };
    let text = String::from_utf8_lossy(&raw);
    let resolved = engine::resolve(&text, &host).map_err(|reason| {
        Error::new("read profile")
            .on(path.display())
            .because(reason)
    })?;
    Ok(Source {
        profile: resolved.profile,
        base: "",
        origins: Some(resolved.origins),
    })
}

fn capability(name: &str) -> Result<String> {
    let upper = name.to_ascii_uppercase();
    let full = format!("CAP_{}", upper.trim_start_matches("CAP_"));
    match full.parse::<Capability>() {
        Ok(_) => Ok(full),
        Err(_) => {
            let error = Error::new("--cap").on(name).because("no such capability");
            Err(error.maybe_hint(bundle::near_capability(name)))
        }
    }
}

/// Of this machine.
fn kernel() -> (u32, u32) {
    let name = nix::sys::utsname::uname().ok();
    let release = name.as_ref().and_then(|name| name.release().to_str());
    preflight::version(release.unwrap_or_default())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Whole<'a> {
    default: String,
    instructions: usize,
    abis: Vec<WholeAbi<'a>>,
    warnings: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WholeAbi<'a> {
    arch: &'static str,
    always: &'a std::collections::BTreeMap<String, Vec<&'static str>>,
    by_arguments: Vec<Conditional>,
    instructions_mean: f64,
    instructions_most: usize,
    unfiltered: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Conditional {
    syscall: &'static str,
    when: String,
    answer: String,
    because: String,
}

fn whole_json<'a>(source: &Source, summary: &'a Summary) -> Whole<'a> {
    let abis = summary.abis.iter().map(|abi| WholeAbi {
        arch: abi.arch.name(),
        always: &abi.always,
        by_arguments: abi
            .conditional
            .iter()
            .flat_map(|call| {
                call.clauses.iter().map(|(when, action, rule)| Conditional {
                    syscall: call.name,
                    when: when.clone(),
                    answer: action.to_string(),
                    because: source.rule(*rule),
                })
            })
            .collect(),
        instructions_mean: abi.mean,
        instructions_most: abi.most,
        unfiltered: abi.unfiltered,
    });
    Whole {
        default: summary.default.to_string(),
        instructions: summary.filter.program().len(),
        abis: abis.collect(),
        warnings: summary
            .filter
            .warnings()
            .iter()
            .map(ToString::to_string)
            .collect(),
    }
}

fn whole(source: &Source, summary: &Summary) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "default   {}", summary.default);
    let length = summary.filter.program().len();
    let _ = writeln!(text, "program   {length} instructions of at most 4096");
    for abi in &summary.abis {
        let _ = writeln!(
            text,
            "\n{}: a call costs {:.1} instructions, {} at most; {} calls cost none, the kernel knows their answer",
            abi.arch.name(),
            abi.mean,
            abi.most,
            abi.unfiltered
        );
        for (answer, names) in &abi.always {
            let _ = writeln!(text, "  {answer}: {} calls", names.len());
            if *answer != summary.default.to_string() && names.len() <= 40 {
                let _ = writeln!(text, "    {}", names.join(" "));
            }
        }
        if !abi.conditional.is_empty() {
            let _ = writeln!(
                text,
                "  by arguments, else {}: {} calls",
                summary.default,
                abi.conditional.len()
            );
        }
        for call in &abi.conditional {
            for (when, action, rule) in &call.clauses {
                let _ = writeln!(
                    text,
                    "    {}: {action} if {when}  {}",
                    call.name,
                    source.rule(*rule)
                );
            }
        }
    }
    for warning in summary.filter.warnings() {
        let _ = writeln!(text, "\nwarning: {warning}");
    }
    text
}
