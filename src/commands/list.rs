use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use super::{Global, print};
use crate::container::{self, Container, Found, Postmortem, Status, record};
use crate::error::{Error, Result};
use crate::log;

#[derive(clap::Args, Debug, Clone, PartialEq, Eq)]
#[group(skip)]
pub struct Args {
    /// How to print
    #[arg(short, long, default_value = "table")]
    pub format: Format,
    /// Print only the names
    #[arg(short, long)]
    pub quiet: bool,
}

#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Table,
    Json,
}

/// A container as `state` and `list` print it, runc's keys in runc's order.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    oci_version: String,
    id: String,
    /// 0 when there is none any more.
    pid: i32,
    status: &'static str,
    bundle: PathBuf,
    rootfs: PathBuf,
    created: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    /// Name of the user who created it, `#` and the number without one.
    owner: String,
    #[serde(flatten)]
    postmortem: Postmortem,
}

impl Shown {
    pub fn of(container: &Container) -> Result<Shown> {
        let status = container.status()?;
        let record = &container.record;
        let pid = match status {
            Status::Stopped => 0,
            _ => record.init.map_or(0, |init| init.pid),
        };
        Ok(Shown {
            oci_version: record.oci_version.clone(),
            id: record.id.clone(),
            pid,
            status: status.name(),
            bundle: record.bundle.clone(),
            rootfs: record.rootfs.clone(),
            created: record.created.clone(),
            annotations: record.annotations.clone(),
            owner: owner(record.owner),
            postmortem: container.postmortem(status),
        })
    }
}

fn owner(uid: u32) -> String {
    if uid == 0 {
        return "root".into();
    }
    let number = uid.to_string();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == number).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("#{number}"))
}

pub fn run(args: Args, global: &Global) -> anyhow::Result<u8> {
    let ids = match record::ids(&global.root)? {
        None if global.root_given => {
            return Err(Error::new("read directory")
                .on(global.root.display())
                .errno(nix::errno::Errno::ENOENT)
                .into());
        }
        ids => ids.unwrap_or_default(),
    };
    if args.quiet {
        let lines: String = ids.iter().map(|id| format!("{id}\n")).collect();
        return Ok(print(&lines)?);
    }
    let mut containers = Vec::new();
    for id in ids {
        // It may go at any moment, and one that can't be read mustn't hide the others.
        match container::look_up(&global.root, &id) {
            Ok(Found::Container(container)) => match Shown::of(&container) {
                Ok(shown) => containers.push(shown),
                Err(error) => log::warning(format_args!("{error}")),
            },
            Ok(Found::Remains(_)) => {
                log::warning(format_args!(
                    "container {id}: never finished; husk delete --force {id}"
                ));
            }
            Ok(Found::Nothing) => {}
            Err(error) => log::warning(format_args!("{error}")),
        }
    }
    Ok(print(&match args.format {
        Format::Json => format!("{}\n", serde_json::to_string(&containers)?),
        Format::Table => table(&containers),
    })?)
}

/// Columns at least 12 wide and 3 apart, as runc's.
fn table(containers: &[Shown]) -> String {
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(String::from)];
    rows.extend(containers.iter().map(|shown| {
        [
            shown.id.clone(),
            shown.pid.to_string(),
            shown.status.into(),
            shown.bundle.display().to_string(),
            shown.created.clone(),
            shown.owner.clone(),
        ]
    }));
    let width = |column: usize| {
        let longest = rows.iter().map(|row| row[column].chars().count()).max();
        longest.unwrap_or(0).max(9) + 3
    };
    let widths: Vec<usize> = (0..5).map(width).collect();
    let line = |row: &[String; 6]| {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line += &format!("{cell:<width$}");
        }
        line + &row[5] + "\n"
    };
    rows.iter().map(line).collect()
}
