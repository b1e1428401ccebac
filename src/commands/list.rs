use std::borrow::Cow;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use nix::sched::{CloneFlags, CpuSet, sched_getaffinity, unshare};
use nix::unistd::Pid;
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
    pub fn of(container: Container) -> Result<Shown> {
        let status = container.status()?;
        let postmortem = container.postmortem(status);
        Ok(Shown::new(container.record, status, postmortem))
    }

    fn new(record: Record, status: Status, postmortem: Postmortem) -> Shown {
        let pid = match status {
            Status::Stopped => 0,
            _ => record.init.map_or(0, |init| init.pid),
        };
        Shown {
            oci_version: record.oci_version,
            id: record.id,
            pid,
            status: status.name(),
            bundle: record.bundle,
            rootfs: record.rootfs,
            created: record.created,
            annotations: record.annotations,
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
    let containers = at_once(&ids, |ids| look_at(global, &root, ids));
    Ok(print(&args.show(&containers)?)?)
}

/// Those that are there, in this order.
fn look_at(global: &Global, root: &OwnedFd, ids: &[String]) -> Vec<Shown> {
    let mut containers = Vec::with_capacity(ids.len());
    for id in ids {
        // Most containers run, and a record and two files of the kernel's say all of one that does.
        if let Some(record) = record::glance(root.as_fd(), id)
            && let Ok(Some(status)) = record.status()
            && status != Status::Stopped
        {
            containers.push(Shown::new(record, status, Postmortem::default()));
            continue;
        }
        // It may go at any moment, and one that can't be read mustn't hide the others.
        match container::look_up(&global.root, id) {
            Ok(Found::Container(container)) => match Shown::of(*container) {
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
    containers
}

/// Fewer are looked at before a thread would have begun.
const WORTH_A_THREAD: usize = 64;

/// Looks at several stretches of `ids` at the same time: nearly all of it is the kernel's work.
fn at_once<T: Send>(ids: &[String], look: impl Fn(&[String]) -> Vec<T> + Sync) -> Vec<T> {
    let count = (ids.len() / WORTH_A_THREAD).clamp(1, cpus().min(4));
    let (first, others) = ids.split_at(ids.len().div_ceil(count));
    std::thread::scope(|scope| {
        let stretches = others.chunks(first.len().max(1)).map(|ids| {
            let look = &look;
            let thread = std::thread::Builder::new().spawn_scoped(scope, move || {
                // A table of descriptors that two threads share takes a lock for each.
                let _ = unshare(CloneFlags::CLONE_FILES);
                look(ids)
            });
            (ids, thread.ok())
        });
        // All are begun before the first one is waited for.
        let stretches: Vec<_> = stretches.collect();
        let mut all = look(first);
        for (ids, thread) in stretches {
            // Where there may be no more threads, here.
            all.extend(match thread.map(|thread| thread.join()) {
                Some(Ok(found)) => found,
                _ => look(ids),
            });
        }
        all
    })
}

/// How many this process may run on. The library's answer would read the limits of all cgroups above it first.
fn cpus() -> usize {
    sched_getaffinity(Pid::from_raw(0)).map_or(1, |set| {
        let on = |cpu: &usize| set.is_set(*cpu).unwrap_or(false);
        (0..CpuSet::count()).filter(on).count().max(1)
    })
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
    const HEADER: [&str; 6] = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"];
    let rows: Vec<Row> = containers.iter().map(Row::of).collect();
    let header = Row(HEADER.map(Cow::Borrowed));
    let all = || std::iter::once(&header).chain(&rows);
    let widths: [usize; 5] = std::array::from_fn(|column| {
        let longest = all().map(|row| row.0[column].chars().count()).max();
        longest.unwrap_or(0).max(9) + 3
    });
    let mut text = String::with_capacity((rows.len() + 1) * (widths.iter().sum::<usize>() + 12));
    for Row(cells) in all() {
        for (cell, width) in cells.iter().zip(&widths) {
            text += cell;
            let wanting = width - cell.chars().count();
            text.extend(std::iter::repeat_n(' ', wanting));
        }
        text += &cells[5];
        text.push('\n');
    }
    text
}

/// Borrowed, but for what is written otherwise than it is kept: of a thousand each takes its time.
struct Row<'a>([Cow<'a, str>; 6]);

impl Row<'_> {
    fn of(shown: &Shown) -> Row<'_> {
        let bundle = shown.bundle.to_string_lossy();
        Row([
            Cow::Borrowed(&shown.id),
            Cow::Owned(shown.pid.to_string()),
            Cow::Borrowed(shown.status),
            // A row is one line.
            match bundle.contains('\n') {
                true => Cow::Owned(bundle.replace('\n', "\\n")),
                false => bundle,
            },
            Cow::Borrowed(&shown.created),
            Cow::Borrowed(&shown.owner),
        ])
    }
}
