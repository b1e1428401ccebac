//! The sums, and the page that docs/reliability.md is.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::case::{KINDS, Kind, Problem};
use super::scenario;
use super::tracer::Fault;

const HEAD: &str = include_str!("head.txt");
/// What isn't measured here.
const TAIL: &str = include_str!("tail.txt");

/// Of one runtime and one kind of strike.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Sum {
    pub cases: usize,
    pub clean: usize,
    /// Cases that have such a problem.
    pub problems: BTreeMap<Kind, usize>,
}

impl Sum {
    pub fn add(&mut self, problems: &[Problem]) {
        self.cases += 1;
        if problems.is_empty() {
            self.clean += 1;
        }
        for kind in KINDS {
            if problems.iter().any(|(other, _)| *other == kind) {
                *self.problems.entry(kind).or_default() += 1;
            }
        }
    }

    fn join(&mut self, other: &Sum) {
        self.cases += other.cases;
        self.clean += other.clean;
        for (kind, count) in &other.problems {
            *self.problems.entry(*kind).or_default() += count;
        }
    }

    fn of(&self, kind: Kind) -> usize {
        self.problems.get(&kind).copied().unwrap_or(0)
    }
}

/// What was found with one runtime.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Found {
    pub name: String,
    pub version: String,
    /// Every how many cases one was taken.
    pub every: usize,
    pub killed: Sum,
    pub failed: Sum,
    /// By scenario: cases, and cases with a problem.
    pub scenarios: Vec<(String, usize, usize)>,
    /// It insists on more locked memory than root has here, and was told that it has it.
    pub appeased: bool,
    /// What it can't do here, and why.
    pub without: Vec<(String, String)>,
    /// Where systemd itself was, what that machine is.
    #[serde(default)]
    pub machine: Option<String>,
    /// How many seconds `delete --force` had.
    #[serde(default)]
    pub second: u64,
}

impl Found {
    /// # Errors
    /// It can't be written.
    pub fn save(&self, dir: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(dir)?;
        let text = serde_json::to_vec_pretty(self)?;
        let kind = self.machine.as_ref().map_or("", |_| "-systemd");
        std::fs::write(dir.join(format!("{}{kind}.json", self.name)), text)
    }

    pub fn sum(&mut self, fault: Fault) -> &mut Sum {
        match fault {
            Fault::Kill => &mut self.killed,
            Fault::Fail(_) => &mut self.failed,
        }
    }

    /// Another sweep's, of other commands.
    fn join(&mut self, other: Found) {
        self.killed.join(&other.killed);
        self.failed.join(&other.failed);
        self.scenarios.extend(other.scenarios);
        self.without.extend(other.without);
        self.appeased |= other.appeased;
    }

    pub fn cases(&self) -> usize {
        self.killed.cases + self.failed.cases
    }

    pub fn clean(&self) -> usize {
        self.killed.clean + self.failed.clean
    }
}

fn first_line(command: &mut Command) -> String {
    let output = command
        .output()
        .map(|output| output.stdout)
        .unwrap_or_default();
    let text = String::from_utf8_lossy(&output).into_owned();
    text.lines().next().unwrap_or_default().to_owned()
}

/// systemd's version and the kernel's.
pub fn machine() -> String {
    let systemd = first_line(Command::new("systemctl").arg("--version"));
    let systemd = systemd.split(" (").next().unwrap_or_default().to_owned();
    format!("{systemd}, Linux {}", kernel())
}

fn kernel() -> String {
    let release = first_line(Command::new("uname").arg("-r"));
    release
        .split(['-', '+'])
        .next()
        .unwrap_or_default()
        .to_owned()
}

pub fn version(path: &Path) -> String {
    let said = first_line(Command::new(path).arg("--version"));
    let said = said.split(" (").next().unwrap_or_default();
    said.replace(':', "").replace(" version ", " ")
}

fn share(part: usize, whole: usize) -> String {
    match whole {
        0 => "–".into(),
        _ => format!("{part} ({:.1} %)", 100.0 * part as f64 / whole as f64),
    }
}

type Cell = Box<dyn Fn(&Found) -> String>;
type Row<'a> = (&'a str, &'a dyn Fn(&Found) -> String);

fn table(text: &mut String, all: &[&Found], rows: &[Row]) {
    let names: Vec<&str> = all.iter().map(|found| found.version.as_str()).collect();
    let _ = writeln!(text, "| | {} |", names.join(" | "));
    let _ = writeln!(text, "| --- |{}", " --: |".repeat(all.len()));
    for (title, cell) in rows {
        let cells: Vec<String> = all.iter().map(|found| cell(found)).collect();
        let _ = writeln!(text, "| {title} | {} |", cells.join(" | "));
    }
}

/// What was found by one run or several, husk first. Several of one runtime are one, however their files are named.
///
/// # Errors
/// Something in `dir` is no result.
pub fn saved(dir: &Path) -> std::io::Result<Vec<Found>> {
    let mut all: Vec<Found> = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let found: Found = serde_json::from_slice(&std::fs::read(entry?.path())?)?;
        let key = |one: &Found| (one.version.clone(), one.every, one.machine.clone());
        match all.iter_mut().find(|one| key(one) == key(&found)) {
            Some(one) => one.join(found),
            None => all.push(found),
        }
    }
    let order: Vec<String> = scenario::all().map(|one| one.name()).collect();
    for found in &mut all {
        let place = |name: &String| order.iter().position(|other| other == name);
        found.scenarios.sort_by_key(|(name, ..)| place(name));
    }
    all.sort_by_key(|found| (found.name != "husk", found.version.clone()));
    Ok(all)
}

/// The same on a machine where systemd itself makes the scopes.
fn systemd(text: &mut String, found: &Found) {
    let machine = found.machine.as_deref().unwrap_or_default();
    let _ = writeln!(
        text,
        "\n## With systemd itself\n\nThe cases *by systemd* again, every {}th, in the suite's virtual machine ({machine}), \
         where systemd is no stand-in: {}. Its time is that of an emulated processor, so `delete --force` has {} s there.\n",
        found.every, found.version, found.second
    );
    let _ = writeln!(text, "| | cases | with a fault |\n| --- | --: | --: |");
    for (name, cases, bad) in &found.scenarios {
        let _ = writeln!(text, "| `{name}` | {cases} | {bad} |");
    }
    let bad = found.cases() - found.clean();
    let _ = writeln!(text, "| **all** | **{}** | **{bad}** |", found.cases());
}

/// The whole page.
pub fn document(all: &[Found]) -> String {
    let mut text = HEAD.to_owned();
    let date = first_line(Command::new("date").arg("+%Y-%m-%d"));
    let kernel = kernel();
    let (beside_systemd, all): (Vec<&Found>, Vec<&Found>) =
        all.iter().partition(|found| found.machine.is_some());
    let taken: Vec<String> = all
        .iter()
        .map(|found| match found.every {
            1 => format!("{}: every case, {} in all", found.version, found.cases()),
            n => format!("{}: every {n}th, {} in all", found.version, found.cases()),
        })
        .collect();
    let _ = writeln!(
        text,
        "Measured on {date}, Linux {kernel}, x86-64, as root. {}.\n",
        taken.join("; ")
    );
    for found in all.iter().filter(|found| found.appeased) {
        let _ = writeln!(
            text,
            "{} insists on more locked memory than root may have on this machine: a filter told it that it \
             got it.\n",
            found.version
        );
    }
    text.push_str("## Killed right before a system call\n\n");
    table(
        &mut text,
        &all,
        &[
            ("cases", &|found| found.killed.cases.to_string()),
            ("nothing to find fault with", &|found| {
                share(found.killed.clean, found.killed.cases)
            }),
            ("something stays after `delete --force`", &|found| {
                share(found.killed.of(Kind::Leak), found.killed.cases)
            }),
            (
                "a command hangs, or `delete --force` takes over 1 s",
                &|found| share(found.killed.of(Kind::Hang), found.killed.cases),
            ),
            ("success, though something is missing", &|found| {
                share(found.killed.of(Kind::Silent), found.killed.cases)
            }),
            ("a message that says nothing", &|found| {
                share(found.killed.of(Kind::Mute), found.killed.cases)
            }),
            ("`state` or `list` fail", &|found| {
                share(found.killed.of(Kind::Blind), found.killed.cases)
            }),
        ],
    );
    text.push_str("\n## A system call fails\n\n");
    table(
        &mut text,
        &all,
        &[
            ("cases", &|found| found.failed.cases.to_string()),
            ("nothing to find fault with", &|found| {
                share(found.failed.clean, found.failed.cases)
            }),
            ("something stays after `delete --force`", &|found| {
                share(found.failed.of(Kind::Leak), found.failed.cases)
            }),
            (
                "a command hangs, or `delete --force` takes over 1 s",
                &|found| share(found.failed.of(Kind::Hang), found.failed.cases),
            ),
            ("success, though something is missing", &|found| {
                share(found.failed.of(Kind::Silent), found.failed.cases)
            }),
            ("a message that says nothing, or a crash", &|found| {
                share(found.failed.of(Kind::Mute), found.failed.cases)
            }),
            (
                "a failed `create`, `run` or `exec` cleans up only by `delete --force`",
                &|found| share(found.failed.of(Kind::Untidy), found.failed.cases),
            ),
            ("EINTR makes it fail", &|found| {
                share(found.failed.of(Kind::Fragile), found.failed.cases)
            }),
            ("`state` or `list` fail", &|found| {
                share(found.failed.of(Kind::Blind), found.failed.cases)
            }),
        ],
    );
    text.push_str("\n## By command\n\nCases with a fault, of all.\n\n");
    let is_there = |name: &String| {
        let mut rows = all.iter().flat_map(|found| &found.scenarios);
        rows.any(|(other, ..)| other == name)
    };
    let cells: Vec<(String, Cell)> = scenario::all()
        .map(|scenario| scenario.name())
        .filter(is_there)
        .map(|name| {
            let own = name.clone();
            let cell = move |found: &Found| {
                let row = found.scenarios.iter().find(|(other, ..)| *other == own);
                row.map_or("–".into(), |(_, cases, bad)| format!("{bad} of {cases}"))
            };
            (format!("`{name}`"), Box::new(cell) as Cell)
        })
        .collect();
    let rows: Vec<Row> = cells
        .iter()
        .map(|(name, cell)| (name.as_str(), cell.as_ref()))
        .collect();
    table(&mut text, &all, &rows);
    let without: Vec<String> = all
        .iter()
        .flat_map(|found| {
            let line =
                |(name, why): &(String, String)| format!("- {}: no `{name}`: {why}", found.version);
            found.without.iter().map(line)
        })
        .collect();
    if !without.is_empty() {
        let _ = writeln!(
            text,
            "\nNot run, as it fails or hangs under the tracer at times without any fault:\n\n{}",
            without.join("\n")
        );
    }
    for found in beside_systemd {
        systemd(&mut text, found);
    }
    text.push_str(TAIL);
    text
}
