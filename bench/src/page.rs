//! The tables: on standard output, and with plots in docs/.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use crate::counts;
use crate::gap::Cost;
use crate::goals;
use crate::pictures;
use crate::results::Results;

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
const MEMORY: [(&str, &str); 7] = [
    ("`create`, peak", "create KiB"),
    ("the process that waits", "waiting KiB"),
    ("of that its own, not the file's pages", "private KiB"),
    ("with Docker's profile: `create`, peak", "docker create KiB"),
    ("the process that waits", "docker waiting KiB"),
    (
        "of that its own, not the file's pages",
        "docker private KiB",
    ),
    ("the kernel's, for each container that runs", "kernel KiB"),
];
const MANY: [(&str, &str); 7] = [
    ("lives a second", "lives/s"),
    ("processors' time of a life, ms", "lives/s processors"),
    ("with Docker's profile: lives a second", "docker lives/s"),
    (
        "processors' time of a life, ms",
        "docker lives/s processors",
    ),
    ("all started and running, s", "start all s"),
    ("by the middle one of each hundred, s", "start all middle s"),
    ("`list`, ms", "list, many"),
];
const COST: [(&str, &str); 4] = [
    ("`getppid`, no filter", "call ns"),
    ("`personality`, no filter", "checked call ns"),
    ("`getppid`, Docker's profile", "docker call ns"),
    ("`personality`, Docker's profile", "docker checked call ns"),
];
/// The title, and the measure's name before and after the number.
const GROWTH: [(&str, &str, &str); 6] = [
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
        "`run`, ms, with so many environment variables:",
        "run with ",
        " variables",
    ),
    (
        "`run`, ms, with so many of the calls that Docker's profile allows, a line of the config each:",
        "run with ",
        " calls of the profile",
    ),
    (
        "`run`, ms, with so many layers over the root file system (husk's annotations):",
        "run with ",
        " layers",
    ),
    (
        "`run`, ms, with so many mounts on the host:",
        "run with ",
        " mounts on the host",
    ),
];
const ENGINES: [(&str, &str); 3] = [
    ("`docker run --rm`", "engine docker"),
    ("`ctr run --rm`", "engine ctr"),
    ("`podman run --rm`", "engine podman"),
];
const COMMANDS: [&str; 7] = ["create", "start", "delete", "run", "exec", "state", "kill"];

pub fn names(results: &Results) -> Vec<String> {
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
pub fn series(results: &Results, before: &str, after: &str) -> Vec<(f64, String)> {
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
    let row = |page: &mut String, label: &str, cell: &dyn Fn(&String) -> Option<String>| {
        let cells = names.iter().map(|name| cell(name).unwrap_or("–".into()));
        let _ = writeln!(
            page,
            "| {label} | {} |",
            cells.collect::<Vec<_>>().join(" | ")
        );
    };
    for (count, measure) in &series {
        row(page, &count.to_string(), &|name| {
            Some(format!("{:.2}", results.median(measure, name)?))
        });
    }
    // Where it grows as the number does, both are the same.
    let middle = series.len() / 2;
    let halves = [("first", 0, middle), ("second", middle, series.len() - 1)];
    for (half, from, to) in halves.into_iter().filter(|(_, from, to)| from < to) {
        let ((few, less), (many, more)) = (&series[from], &series[to]);
        row(page, &format!("each of the {half} half, µs"), &|name| {
            let grown = results.median(more, name)? - results.median(less, name)?;
            Some(format!("{:.1}", grown * 1000.0 / (many - few)))
        });
    }
    page.push('\n');
}

/// What is aimed at, and whether it is reached.
fn goals(page: &mut String, results: &Results) {
    let Some(husk) = results.runtimes.iter().find(|runtime| runtime.is_husk) else {
        return;
    };
    let goals = goals::of(results, &husk.name);
    if goals.iter().all(|goal| goal.measured.is_none()) {
        return;
    }
    let _ = writeln!(page, "## What {} is held to\n", husk.name);
    page.push_str("| | goal | measured | |\n| --- | --: | --: | --- |\n");
    for goal in &goals {
        let (Some(measured), Some(met)) = (goal.measured, goal.is_met()) else {
            continue;
        };
        let _ = writeln!(
            page,
            "| {} | {} {}{} | {measured:.2} | {} |",
            goal.what,
            if goal.least { "≥" } else { "≤" },
            goal.limit,
            goal.unit,
            if met { "met" } else { "**not met**" },
        );
    }
    page.push('\n');
    if !results.gaps.is_empty() {
        page.push_str(
            "Where it goes that the floor doesn't take: [below](#what-husk-has-more-than-the-floor).\n\n",
        );
    }
}

/// Where the time goes that is not the floor's.
fn traces(page: &mut String, results: &Results) {
    if results.traces.is_empty() {
        return;
    }
    page.push_str(
        "## Where husk's time goes\n\nWhat `husk --trace` says of its steps, medians in microseconds: when a step \
         begins, counted from the first one, and what it takes, in all where it comes more than once. Steps of \
         different processes overlap; a step may be a part of the one before it. What is not in it is the start of \
         husk, twice: before the first step, and before that from where it is not protected yet.\n\n",
    );
    for trace in &results.traces {
        let _ = writeln!(page, "`{}`:\n", trace.command);
        page.push_str("| begins | takes | process | step |\n| --: | --: | --- | --- |\n");
        for step in &trace.steps {
            let _ = writeln!(
                page,
                "| {:.0} | {:.0} | {} | {} |",
                step.begins, step.takes, step.process, step.name
            );
        }
        page.push('\n');
    }
}

/// Command by command, and within it by the calls that make the difference.
fn gaps(page: &mut String, results: &Results) {
    if results.gaps.is_empty() {
        return;
    }
    page.push_str(
        "## What husk has more than the floor\n\nMedians of one command: milliseconds until it ended, and of \
         processors; page faults; system calls. Below them the calls whose time in the kernel differs most, \
         microseconds in all of so many: from `strace -f -T`, what each takes above the median call, which does \
         next to nothing but being traced; waiting for another process isn't counted. What processor time is in no call is the start of \
         programs, page faults, and husk's own code.\n\nAll of 1,000 started is `create` and `start`, one after \
         the other. Of 200 lives at a time no processor is ever idle: what counts is not how long `create`, `start` \
         and `delete` take but how much of the processors; what a step of husk does beside another one is no gain \
         there. `create`'s calls are those of `run`.\n\n",
    );
    for gap in &results.gaps {
        let (floor, husk) = (&gap.floor, &gap.husk);
        let _ = writeln!(page, "| `{}` | floor | husk | more |", gap.command);
        page.push_str("| --- | --: | --: | --: |\n");
        let mut row = |label: &str, digits: usize, of: &dyn Fn(&Cost) -> f64| {
            let (floor, husk) = (of(floor), of(husk));
            let more = husk - floor;
            let _ = writeln!(
                page,
                "| {label} | {floor:.digits$} | {husk:.digits$} | {more:.digits$} |"
            );
        };
        row("until its end, ms", 2, &|cost| cost.wall);
        row("processors, ms", 2, &|cost| cost.processor);
        row("page faults", 0, &|cost| cost.faults);
        if husk.calls.is_empty() {
            page.push('\n');
            continue;
        }
        let counts = |cost: &Cost| cost.calls.values().map(|call| call.0 as f64).sum();
        row("system calls that don't wait", 0, &counts);
        let time = |cost: &Cost, name: &str| cost.calls.get(name).map_or(0.0, |call| call.1);
        let all = |cost: &Cost| cost.calls.values().map(|call| call.1).sum();
        row("all of them, µs", 0, &all);
        let mut names: Vec<&String> = floor.calls.keys().chain(husk.calls.keys()).collect();
        names.sort();
        names.dedup();
        let more = |name: &str| time(husk, name) - time(floor, name);
        names.sort_by(|one, other| more(other).abs().total_cmp(&more(one).abs()));
        for name in names.into_iter().take(12) {
            let cell = |cost: &Cost| match cost.calls.get(name) {
                Some((count, time)) => format!("{time:.0} ({count})"),
                None => "–".into(),
            };
            let _ = writeln!(
                page,
                "| `{name}`, µs | {} | {} | {:.0} |",
                cell(floor),
                cell(husk),
                more(name)
            );
        }
        page.push('\n');
    }
}

/// The calls that each command makes most.
fn calls_by_name(page: &mut String, results: &Results) {
    let Some(husk) = results.runtimes.iter().find(|runtime| runtime.is_husk) else {
        return;
    };
    let Some(counts) = results.counts.get(&husk.name) else {
        return;
    };
    let _ = writeln!(page, "{}'s, by their names:\n", husk.name);
    for command in COMMANDS {
        let Some(calls) = counts.get(command) else {
            continue;
        };
        let mut calls: Vec<_> = calls.iter().collect();
        calls.sort_by_key(|(name, count)| (std::cmp::Reverse(**count), (*name).clone()));
        let words: Vec<String> = calls
            .iter()
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        let _ = writeln!(page, "- `{command}`: {}", words.join(", "));
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

/// All tables, and what the text says of the plots where they are.
pub fn text(results: &Results, plotted: bool) -> String {
    let mut page = String::from("# Speed and memory\n\n");
    let plots = |page: &mut String, names: &[&str]| {
        for name in names.iter().filter(|_| plotted) {
            let _ = writeln!(page, "![{name}](performance/{name}.svg)\n");
        }
    };
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
        // What a distribution adds to its number says little.
        first_line("uname", &["-r"])
            .split('-')
            .next()
            .unwrap_or_default(),
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
    goals(&mut page, results);
    titled(&mut page, "## The life of a container\n\n", &LIFE, 2);
    plots(&mut page, &["life", "exec"]);
    titled(&mut page, "## Memory\n\nKiB, resident.\n\n", &MEMORY, 0);
    plots(&mut page, &["memory"]);
    let title = "## Many containers\n\n200 lives, 32 at a time. 1000 of each runtime that run beside as many of the floor's, \
                 made in turns, ten at a time: the sum of all, and what the middle one of each hundred took, times a \
                 hundred.\n\n";
    titled(&mut page, title, &MANY, 1);
    plots(&mut page, &["throughput", "density"]);
    if results
        .measures
        .keys()
        .any(|name| name.starts_with("run with "))
    {
        let _ = writeln!(
            page,
            "## What grows\n\nThe config with Docker's profile, as above, has {} lines with a value on each.\n",
            results.docker_lines
        );
    }
    for (title, before, after) in GROWTH {
        steps(&mut page, results, title, before, after);
    }
    plots(&mut page, &["bundle-mounts", "host-mounts"]);
    let title = "## Under engines\n\nOf a trivial program, without a network, milliseconds: most of it is the engine's.\n\n";
    titled(&mut page, title, &ENGINES, 2);
    titled(
        &mut page,
        "## Inside\n\nNanoseconds of one call.\n\n",
        &COST,
        0,
    );
    calls(&mut page, results);
    calls_by_name(&mut page, results);
    traces(&mut page, results);
    gaps(&mut page, results);
    page
}

/// `performance.md`, and its plots below `performance/`.
pub fn write(results: &Results, docs: &Path) -> io::Result<()> {
    let dir = docs.join("performance");
    fs::create_dir_all(&dir)?;
    for (name, svg) in pictures::all(results) {
        fs::write(dir.join(format!("{name}.svg")), svg)?;
    }
    let page = text(results, true);
    fs::write(
        docs.join("performance.md"),
        page.trim_end().to_owned() + "\n",
    )
}
