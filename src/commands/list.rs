use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::PathBuf;

use serde::Serialize;

use super::{Global, print};
use crate::container::{self, Container, Found, Postmortem, Record, Status, record};
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
        Ok(Shown::new(
            &container.record,
            status,
            container.postmortem(status),
        ))
    }

    fn new(record: &Record, status: Status, postmortem: Postmortem) -> Shown {
        let pid = match status {
            Status::Stopped => 0,
            _ => record.init.map_or(0, |init| init.pid),
        };
        Shown {
            oci_version: record.oci_version.clone(),
            id: record.id.clone(),
            pid,
            status: status.name(),
            bundle: record.bundle.clone(),
            rootfs: record.rootfs.clone(),
            created: record.created.clone(),
            annotations: record.annotations.clone(),
            owner: owner(record.owner),
            postmortem,
        }
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
        ids => ids,
    };
    let Some((root, ids)) = ids else {
        return Ok(print(&args.show(&[])?)?);
    };
    if args.quiet {
        let lines: String = ids.iter().map(|id| format!("{id}\n")).collect();
        return Ok(print(&lines)?);
    }
    let mut containers = Vec::new();
    for id in ids {
        // Most containers run, and a record and two files of the kernel's say all of one that does.
        if let Some(record) = record::glance(root.as_fd(), &id)
            && let Ok(Some(status)) = record.status()
            && status != Status::Stopped
        {
            containers.push(Shown::new(&record, status, Postmortem::default()));
            continue;
        }
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
    Ok(print(&args.show(&containers)?)?)
}

impl Args {
    fn show(&self, containers: &[Shown]) -> serde_json::Result<String> {
        Ok(match self.format {
            _ if self.quiet => String::new(),
            Format::Json => format!("{}\n", serde_json::to_string(containers)?),
            Format::Table => table(containers),
        })
    }
}

/// Columns at least 12 wide and 3 apart, as runc's.
fn table(containers: &[Shown]) -> String {
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(String::from)];
    rows.extend(containers.iter().map(|shown| {
        [
            shown.id.clone(),
            shown.pid.to_string(),
            shown.status.into(),
            // A row is one line.
            shown.bundle.display().to_string().replace('\n', "\\n"),
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
