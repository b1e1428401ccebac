use std::process::Command;

use nix::errno::Errno;

use super::list::Format;
use super::{Global, print};
use crate::container::{self, Status};
use crate::error::{Error, Result, Step};

#[derive(clap::Args, Debug, Clone, PartialEq, Eq)]
#[group(skip)]
pub struct Args {
    /// How to print: the table of ps(1), or an array of pids
    #[arg(short, long, default_value = "table")]
    pub format: Format,
    /// Name of the container
    pub id: String,
    /// Arguments for ps(1) instead of -ef
    #[arg(value_name = "PS ARGS")]
    pub ps_args: Vec<String>,
}

pub fn run(args: Args, global: &Global) -> anyhow::Result<u8> {
    let container = container::find(&global.root, &args.id)?;
    let procs = match container.status()? {
        // As with runc, a container that has ended has no processes, and that is no error.
        Status::Stopped if container.cgroup()?.is_none() => Vec::new(),
        _ => container.require_cgroup()?.procs()?,
    };
    let mut pids: Vec<i32> = procs.iter().map(|pid| pid.as_raw()).collect();
    pids.sort_unstable();
    Ok(print(&match args.format {
        Format::Json => format!("{}\n", serde_json::to_string(&pids)?),
        Format::Table => table(&args.ps_args, &pids)?,
    })?)
}

/// What ps(1) says of the whole host, reduced to these processes.
fn table(arguments: &[String], pids: &[i32]) -> Result<String> {
    let mut command = Command::new("ps");
    match arguments {
        [] => command.arg("-ef"),
        given => command.args(given),
    };
    let output = command.output().or_fail(|errno| {
        let error = Error::new("run").on("ps").errno(errno);
        match errno {
            Errno::ENOENT => error.hint("install ps (Debian: procps), or ask with --format json"),
            _ => error,
        }
    })?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(Error::new("run").on("ps").because(words.trim().to_owned()));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let column = header
        .split_ascii_whitespace()
        .position(|title| title == "PID")
        .ok_or_else(|| {
            Error::new("read output of")
                .on("ps")
                .because("couldn't find PID field in ps output")
        })?;
    let ours = lines.filter(|line| {
        let field = line.split_ascii_whitespace().nth(column);
        field
            .and_then(|field| field.parse().ok())
            .is_some_and(|pid: i32| pids.contains(&pid))
    });
    Ok([header]
        .into_iter()
        .chain(ours)
        .map(|line| format!("{line}\n"))
        .collect())
}
