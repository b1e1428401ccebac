//! `diagnosis NAME=PATH...`: every case on each of these runtimes, and on standard output the document
//! that docs/errors.md is. Run it as root.
//!
//! `diagnosis --appeased PROGRAM ARG...` executes the program where every attempt to raise the limit of locked
//! memory seems to succeed.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use husk_integration::diagnosis::{Answer, Case, Way, cases};
use husk_integration::enclosure;
use husk_integration::lab::Lab;
use husk_integration::need::find_program;
use husk_integration::output::End;
use husk_integration::sys;

const HEAD: &str = include_str!("../../diagnosis/head.txt");

/// In place of the first runtime: what follows is a program to execute.
const APPEASED: &str = "--appeased";

struct Runtime {
    name: String,
    path: PathBuf,
}

/// The answers to one case, a person's and an engine's for each runtime.
type Answers = Vec<[Answer; 2]>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("diagnosis: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    if let [first, program, arguments @ ..] = &words[..]
        && first == APPEASED
    {
        sys::pretend_locked_memory().map_err(|error| error.to_string())?;
        let error = Command::new(program).args(arguments).exec();
        return Err(format!("{}: {error}", program.display()));
    }
    let runtimes = std::env::args()
        .skip(1)
        .map(|argument| {
            let (name, path) = argument
                .split_once('=')
                .ok_or("usage: diagnosis NAME=PATH...")?;
            let found = match path.contains('/') {
                true => std::fs::canonicalize(path).ok(),
                false => find_program(path),
            };
            Ok(Runtime {
                name: name.to_owned(),
                path: found.ok_or(format!("{path}: not found"))?,
            })
        })
        .collect::<Result<Vec<_>, String>>()?;
    if runtimes.is_empty() {
        return Err("usage: diagnosis NAME=PATH...".into());
    }
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let payload = program.with_file_name("payload");
    let dir = PathBuf::from(format!("/tmp/husk-diagnosis-{}", std::process::id()));
    let inside = || match document(&runtimes, &dir, &payload) {
        Ok(text) => {
            print!("{text}");
            0
        }
        Err(message) => {
            eprintln!("diagnosis: {message}");
            1
        }
    };
    match enclosure::enclose(&dir, inside) {
        Ok(0) => Ok(()),
        Ok(status) => Err(format!("ended with {status}")),
        Err(error) => Err(error.to_string()),
    }
}

fn document(runtimes: &[Runtime], dir: &Path, payload: &Path) -> Result<String, String> {
    let own = dir.join("payload");
    std::fs::copy(payload, &own).map_err(|error| format!("{}: {error}", payload.display()))?;
    let (mut labs, mut appeased) = (Vec::new(), Vec::new());
    for runtime in runtimes {
        let place = dir.join(&runtime.name);
        let lab = Lab::new(place, runtime.path.clone(), own.clone());
        let mut lab = lab.map_err(|error| error.to_string())?;
        let try_out = |lab: &Lab| lab.run(&lab.bundle().payload("echo works"));
        let mut output = try_out(&lab);
        if output.end != End::Code(0) && output.to_string().to_lowercase().contains("rlim") {
            let this = std::env::current_exe().map_err(|error| error.to_string())?;
            lab = lab.further_through(&[&this.to_string_lossy(), APPEASED]);
            appeased.push(&*runtime.name);
            output = try_out(&lab);
        }
        if output.end != End::Code(0) {
            return Err(format!("an unbroken bundle fails: {output}"));
        }
        labs.push(lab);
    }
    let cases = cases();
    let mut all = Vec::new();
    for case in &cases {
        let mut answers: Answers = Vec::new();
        for lab in &labs {
            let pair = [case.ask(lab, Way::Person), case.ask(lab, Way::Engine)];
            let (person, engine) = (pair[0].score.letters(), pair[1].score.letters());
            eprintln!("{} {person} {engine} {}", case.name, lab.runtime.display());
            answers.push(pair);
        }
        all.push(answers);
    }
    let mut text = HEAD.to_owned();
    for name in appeased {
        text.push_str(&format!(
            "{name} insists on more locked memory than root may have on this machine: a filter told it that it has it.\n\n"
        ));
    }
    text.push_str(&versions(runtimes));
    text.push_str("\n## Scores\n");
    for (index, title) in [
        "`run`: what a person sees",
        "`create` and `start` with a JSON log: what an engine sees",
    ]
    .iter()
    .enumerate()
    {
        text.push_str(&format!("\n### {title}\n\n"));
        text.push_str(&scores(runtimes, &cases, &all, index));
    }
    text.push_str("\n## The words\n");
    text.push_str(&words(runtimes, &cases, &all));
    Ok(text)
}

fn versions(runtimes: &[Runtime]) -> String {
    let first_line = |command: &mut Command| {
        let output = command
            .output()
            .map(|output| output.stdout)
            .unwrap_or_default();
        let text = String::from_utf8_lossy(&output).into_owned();
        text.lines().next().unwrap_or_default().to_owned()
    };
    let each: Vec<String> = runtimes
        .iter()
        .map(|runtime| {
            let said = first_line(Command::new(&runtime.path).arg("--version"));
            let said = said.split(" (").next().unwrap_or_default().to_owned();
            said.replace(" version ", " ").replace(':', "")
        })
        .collect();
    let date = first_line(Command::new("date").arg("+%Y-%m-%d"));
    let kernel = first_line(Command::new("uname").arg("-r"));
    let kernel = kernel
        .split(['-', '+'])
        .next()
        .unwrap_or_default()
        .to_owned();
    format!(
        "Measured on {date}, Linux {kernel}, x86-64, as root: {}.\n",
        each.join(", ")
    )
}

fn scores(runtimes: &[Runtime], cases: &[Case], all: &[Answers], way: usize) -> String {
    let mut groups: Vec<&str> = Vec::new();
    for case in cases {
        if !groups.contains(&case.group) {
            groups.push(case.group);
        }
    }
    let remedies = cases.iter().filter(|case| case.remedy != "-").count();
    let count = cases.len();
    let mut table = String::from(
        "| | field | cause | **field and cause** | remedy | clear | exit | clean |\n|---|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    let mut by_group = format!(
        "\nField and cause by group:\n\n| | {} |\n|---|{}\n",
        groups.join(" | "),
        "--:|".repeat(groups.len())
    );
    for (index, runtime) in runtimes.iter().enumerate() {
        let scores: Vec<_> = all
            .iter()
            .map(|answers| answers[index][way].score)
            .collect();
        let sum = |earned: fn(&husk_integration::diagnosis::Score) -> bool| {
            scores.iter().filter(|score| earned(score)).count()
        };
        table.push_str(&format!(
            "| {} | {} | {} | **{}/{count}** | {}/{remedies} | {} | {} | {} |\n",
            runtime.name,
            sum(|s| s.field),
            sum(|s| s.cause),
            sum(|s| s.field && s.cause),
            sum(|s| s.remedy == Some(true)),
            sum(|s| s.clear),
            sum(|s| s.exit),
            sum(|s| s.clean),
        ));
        let mut of: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for (case, score) in cases.iter().zip(&scores) {
            let entry = of.entry(case.group).or_default();
            entry.0 += usize::from(score.field && score.cause);
            entry.1 += 1;
        }
        let each: Vec<String> = groups
            .iter()
            .map(|group| format!("{}/{}", of[group].0, of[group].1))
            .collect();
        by_group.push_str(&format!("| {} | {} |\n", runtime.name, each.join(" | ")));
    }
    table + &by_group
}

fn words(runtimes: &[Runtime], cases: &[Case], all: &[Answers]) -> String {
    let (mut text, mut group) = (String::new(), "");
    for (case, answers) in cases.iter().zip(all) {
        if case.group != group {
            group = case.group;
            let names: Vec<&str> = runtimes.iter().map(|runtime| &*runtime.name).collect();
            let rule = "---|".repeat(names.len() + 1);
            text.push_str(&format!(
                "\n### {group}\n\n| | {} |\n|{rule}\n",
                names.join(" | ")
            ));
        }
        text.push_str(&format!("| {} |", case.what));
        for pair in answers {
            let answer = &pair[0];
            let left = if answer.left.is_empty() {
                ""
            } else {
                ", something left"
            };
            let letters = answer.score.letters();
            text.push_str(&format!(
                " {} `{letters}` {}{left} |",
                cell(&answer.message),
                answer.status
            ));
        }
        text.push('\n');
    }
    text
}

/// A message as a cell of a table: without times, short of what is long.
fn cell(message: &str) -> String {
    let lines = message.lines().map(|line| {
        let line: String = line.chars().filter(|c| !c.is_control()).collect();
        match line
            .strip_prefix("time=\"")
            .and_then(|rest| rest.split_once("\" "))
        {
            Some((_, rest)) => rest.to_owned(),
            None => line,
        }
    });
    let lines: Vec<String> = lines.filter(|line| !line.trim().is_empty()).collect();
    if lines.is_empty() {
        return "(nothing)".into();
    }
    let shown = lines.iter().take(4).map(|line| {
        let short: String = line.chars().take(300).collect();
        let more = if short.len() < line.len() { "…" } else { "" };
        let text = format!("{short}{more}");
        text.replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('|', "&#124;")
            .replace('`', "&#96;")
            .replace('*', "&#42;")
            .replace('_', "&#95;")
    });
    let mut shown: Vec<String> = shown.collect();
    if lines.len() > 4 {
        shown.push(format!("… {} more lines", lines.len() - 4));
    }
    shown.join("<br>")
}
