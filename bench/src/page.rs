//! The tables: on standard output, and with plots in docs/.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use crate::counts;
use crate::plot;
use crate::results::Results;

type Plot = (&'static str, String);

/// What was measured: the name on the page, the measure.
const LIFE: [(&str, &str); 15] = [
    ("`create`", "create"),
    ("`start`", "start"),
    ("`delete`", "delete"),
    ("**create, start, exit, delete**", "cycle"),
    ("**`run`**, foreground", "run"),
    ("`exec`", "exec"),
    ("`state`", "state"),
    ("`kill`", "kill"),
    ("with Docker's profile: `create`", "docker create"),
    ("`start`", "docker start"),
    ("`delete`", "docker delete"),
    ("**create, start, exit, delete**", "docker cycle"),
    ("**`run`**, foreground", "docker run"),
    ("`state`, of many", "state, many"),
    ("`exec`, of many", "exec, many"),
];
const MEMORY: [(&str, &str); 5] = [
    ("`create`, peak", "create KiB"),
    ("the process that waits", "waiting KiB"),
    ("with Docker's profile: `create`, peak", "docker create KiB"),
    ("the process that waits", "docker waiting KiB"),
    ("the kernel's, for each container that runs", "kernel KiB"),
];
const MANY: [(&str, &str); 4] = [
    ("lives a second", "lives/s"),
    ("with Docker's profile", "docker lives/s"),
    ("all started and running, s", "start all s"),
    ("`list`, ms", "list, many"),
];
const COST: [(&str, &str); 4] = [
    ("`getppid`, no filter", "call ns"),
    ("`personality`, no filter", "checked call ns"),
    ("`getppid`, Docker's profile", "docker call ns"),
    ("`personality`, Docker's profile", "docker checked call ns"),
];
/// The title, and the measure's name before and after the number.
const GROWTH: [(&str, &str, &str); 3] = [
    (
        "`create` and `start` of one more, ms, with so many running:",
        "start with ",
        " running",
    ),
    (
        "`run`, ms, with so many bind mounts in the bundle:",
        "run with ",
        " mounts in the bundle",
    ),
    (
        "`run`, ms, with so many mounts on the host:",
        "run with ",
        " mounts on the host",
    ),
];
const COMMANDS: [&str; 7] = ["create", "start", "delete", "run", "exec", "state", "kill"];

fn names(results: &Results) -> Vec<String> {
    let names = results.runtimes.iter();
    names.map(|runtime| runtime.name.clone()).collect()
}

fn cell(results: &Results, measure: &str, name: &str, digits: usize) -> String {
    let Some(median) = results.median(measure, name) else {
        return "–".into();
    };
    let mut cell = format!("{median:.digits$}");
    if let Some(fifth) = results.share(measure, name, 0.2).filter(|_| digits == 2) {
        let _ = write!(cell, " ({fifth:.2})");
    }
    match results.ratio(measure, name) {
        Some(ratio) if name != "floor" => cell + &format!(" **×{ratio:.2}**"),
        _ => cell,
    }
}

fn head(page: &mut String, names: &[String]) {
    let _ = writeln!(page, "| | {} |", names.join(" | "));
    let _ = writeln!(page, "| --- |{}", " --: |".repeat(names.len()));
}

fn table(page: &mut String, results: &Results, rows: &[(&str, &str)], digits: usize) {
    let names = names(results);
    head(page, &names);
    for (label, measure) in rows {
        if !results.measures.contains_key(*measure) {
            continue;
        }
        let cells: Vec<String> = names
            .iter()
            .map(|name| cell(results, measure, name, digits))
            .collect();
        let _ = writeln!(page, "| {label} | {} |", cells.join(" | "));
    }
    page.push('\n');
}

fn calls(page: &mut String, results: &Results) {
    let names: Vec<String> = names(results)
        .into_iter()
        .filter(|name| results.counts.contains_key(name))
        .collect();
    if names.is_empty() {
        return;
    }
    page.push_str(
        "## System calls\n\n`strace -f -c`, all processes of the command; `create` with the \
         container's process until its end.\n\n",
    );
    head(page, &names);
    for command in COMMANDS {
        let cells: Vec<String> = names
            .iter()
            .map(|name| match results.counts[name].get(command) {
                Some(calls) => counts::total(calls).to_string(),
                None => "–".into(),
            })
            .collect();
        let _ = writeln!(page, "| `{command}` | {} |", cells.join(" | "));
    }
    page.push('\n');
}

/// One row a step: what was measured with so many.
fn series(results: &Results, before: &str, after: &str) -> Vec<(f64, String)> {
    let steps = results.measures.keys().filter_map(|measure| {
        let middle = measure.strip_prefix(before)?.strip_suffix(after)?;
        Some((middle.parse().ok()?, measure.clone()))
    });
    steps.collect()
}

fn steps(page: &mut String, results: &Results, title: &str, before: &str, after: &str) {
    let names = names(results);
    let series = series(results, before, after);
    if series.is_empty() {
        return;
    }
    let _ = writeln!(page, "{title}\n");
    head(page, &names);
    for (count, measure) in series {
        let cells: Vec<String> = names
            .iter()
            .map(|name| match results.median(&measure, name) {
                Some(median) => format!("{median:.2}"),
                None => "–".into(),
            })
            .collect();
        let _ = writeln!(page, "| {count} | {} |", cells.join(" | "));
    }
    page.push('\n');
}

fn first_line(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.unwrap_or_default()
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name"));
    let name = line.and_then(|line| line.split_once(": "));
    let name = name
        .map_or("an unknown processor", |(_, name)| name)
        .to_owned();
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{name}, {count} of them")
}

/// All tables.
pub fn text(results: &Results) -> String {
    let mut page = String::from("# Speed and memory\n\n");
    let versions: Vec<String> = results
        .runtimes
        .iter()
        .filter(|runtime| !runtime.is_floor())
        .map(|runtime| format!("{} {}", runtime.name, runtime.version))
        .collect();
    let _ = writeln!(
        page,
        "Written by `make bench` on {}: {}. Linux {}, {}, {} s in all.\n",
        first_line("date", &["-u", "+%Y-%m-%d"]),
        versions.join(", "),
        first_line("uname", &["-r"]),
        processor(),
        results.seconds as u64,
    );
    page.push_str(
        "The bundle is that of `runc spec`: six namespaces, seven file systems, masked and read-only paths, \
         three capabilities, a read-only root, device rules; a small static program. All runtimes ran in \
         turns, round by round, enclosed in namespaces of their own with a cgroup2 tree of their own. The \
         *floor* is a static program of the bare system calls that such a container takes (`bench/floor`): \
         it reads no config and checks nothing. Cells: median (20th percentile) **× the floor's median**; \
         milliseconds where nothing else stands.\n\n",
    );
    let appeased = results.runtimes.iter().filter(|runtime| runtime.appeased);
    for runtime in appeased {
        let _ = writeln!(
            page,
            "{} insists on more locked memory than root may have on this machine: a filter told it that it \
             got it.\n",
            runtime.name
        );
    }
    page.push_str(if results.fifo {
        "All processes were scheduled SCHED_FIFO: other work on the machine disturbed them little.\n\n"
    } else {
        "Other work on the machine has disturbed this as it may.\n\n"
    });
    let titled = |page: &mut String, title: &str, rows: &[(&str, &str)], digits: usize| {
        if rows
            .iter()
            .any(|(_, measure)| results.measures.contains_key(*measure))
        {
            page.push_str(title);
            table(page, results, rows, digits);
        }
    };
    titled(&mut page, "## The life of a container\n\n", &LIFE, 2);
    titled(&mut page, "## Memory\n\nKiB, resident.\n\n", &MEMORY, 0);
    let title =
        "## Many containers\n\n200 lives, 32 at a time; 1000 that run beside each other.\n\n";
    titled(&mut page, title, &MANY, 1);
    for (title, before, after) in GROWTH {
        steps(&mut page, results, title, before, after);
    }
    titled(
        &mut page,
        "## Inside\n\nNanoseconds of one call.\n\n",
        &COST,
        0,
    );
    calls(&mut page, results);
    page
}

fn group(results: &Results, rows: &[(&str, &str)]) -> Vec<(String, Vec<Option<f64>>)> {
    let names = names(results);
    let values = |measure: &str| {
        let values = names.iter().map(|name| results.median(measure, name));
        values.collect()
    };
    rows.iter()
        .map(|(label, measure)| ((*label).to_owned(), values(measure)))
        .collect()
}

fn growing(results: &Results, before: &str, after: &str) -> Vec<(String, Vec<(f64, f64)>)> {
    let series = series(results, before, after);
    let line = |name: &String| {
        let points = series
            .iter()
            .filter_map(|(x, measure)| Some((*x, results.median(measure, name)?)));
        (name.clone(), points.collect::<Vec<_>>())
    };
    let lines = names(results);
    let lines = lines.iter().map(line);
    lines.filter(|(_, points)| !points.is_empty()).collect()
}

fn plots(results: &Results) -> Vec<Plot> {
    let names = names(results);
    let life = [
        ("a life", "cycle"),
        ("run", "run"),
        ("exec", "exec"),
        ("life, profile", "docker cycle"),
        ("run, profile", "docker run"),
    ];
    let memory = [("create", "create KiB"), ("waiting", "waiting KiB")];
    let rate = [
        ("no filter", "lives/s"),
        ("Docker's profile", "docker lives/s"),
    ];
    let bars =
        |title: &str, rows: &[(&str, &str)]| plot::bars(title, &names, &group(results, rows));
    let lines = |title: &str, across: &str, before: &str, after: &str| {
        plot::lines(title, across, &growing(results, before, after))
    };
    vec![
        ("life", bars("The life of a container, ms", &life)),
        ("memory", bars("Resident memory, KiB", &memory)),
        ("throughput", bars("Lives a second, 32 at a time", &rate)),
        (
            "density",
            lines(
                "create and start of one more, ms",
                "containers that run",
                "start with ",
                " running",
            ),
        ),
        (
            "bundle-mounts",
            lines(
                "run, ms",
                "bind mounts in the bundle",
                "run with ",
                " mounts in the bundle",
            ),
        ),
        (
            "host-mounts",
            lines(
                "run, ms",
                "mounts on the host",
                "run with ",
                " mounts on the host",
            ),
        ),
    ]
}

/// `performance.md`, and its plots below `performance/`.
pub fn write(results: &Results, docs: &Path) -> io::Result<()> {
    let dir = docs.join("performance");
    fs::create_dir_all(&dir)?;
    let mut page = text(results);
    page.push_str("## Plots\n\n");
    for (name, svg) in plots(results) {
        fs::write(dir.join(format!("{name}.svg")), svg)?;
        let _ = writeln!(page, "![{name}](performance/{name}.svg)\n");
    }
    fs::write(
        docs.join("performance.md"),
        page.trim_end().to_owned() + "\n",
    )
}
