//! `make bench`: runtimes in turns on the same bundle, and the floor: a static program of the bare system
//! calls (`bench/floor`). Everything happens enclosed, as the tests do.
//!
//!     bench [--quick] [--rounds N] [--only WORD] [--no-fifo] [--engines FILE] [--write DOCS] --floor FILE NAME=PATH...
//!     bench --check BASELINE | --baseline BASELINE
//!     bench --order SCRIPT

mod bundle;
mod check;
mod counts;
mod debugger;
mod engines;
mod gap;
mod goals;
mod growth;
mod life;
mod many;
mod memory;
mod order;
mod page;
mod pictures;
mod plot;
mod results;
mod runtime;
mod site;
mod steps;
mod traces;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use husk_integration::{enclosure, sys};

use results::Results;
use runtime::Runtime;
use site::Site;

/// What the command line asks for.
pub struct Wish {
    pub quick: bool,
    pub rounds: usize,
    pub fifo: bool,
    /// Only measures whose name has this in it.
    pub only: Option<String>,
    pub write: Option<PathBuf>,
    pub check: Option<PathBuf>,
    pub baseline: Option<PathBuf>,
    /// Where the order of husk's functions goes.
    pub order: Option<PathBuf>,
    /// What `bench/engines` has measured.
    pub engines: Option<PathBuf>,
    pub floor: PathBuf,
    pub runtimes: Vec<Runtime>,
}

fn wish() -> Result<Wish, String> {
    let mut wish = Wish {
        quick: false,
        rounds: 0,
        fifo: true,
        only: None,
        write: None,
        check: None,
        baseline: None,
        order: None,
        engines: None,
        floor: PathBuf::new(),
        runtimes: Vec::new(),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--quick" => wish.quick = true,
            "--no-fifo" => wish.fifo = false,
            "--rounds" => {
                wish.rounds = value()?.parse().map_err(|_| "--rounds needs a number")?;
            }
            "--only" => wish.only = Some(value()?),
            "--write" => wish.write = Some(value()?.into()),
            "--check" => wish.check = Some(value()?.into()),
            "--order" => wish.order = Some(value()?.into()),
            "--engines" => wish.engines = Some(value()?.into()),
            "--baseline" => wish.baseline = Some(value()?.into()),
            "--floor" => wish.floor = value()?.into(),
            _ => {
                let (name, path) = word
                    .split_once('=')
                    .ok_or(format!("NAME=PATH, not {word}"))?;
                wish.runtimes.push(Runtime::new(name, Path::new(path))?);
            }
        }
    }
    if !wish.floor.is_file() {
        return Err("--floor FILE: the built bench/floor".into());
    }
    if wish.rounds == 0 {
        wish.rounds = if wish.quick { 10 } else { 60 };
    }
    // First, as everything is divided by it.
    let floor = Runtime::new("floor", &wish.floor)?;
    wish.runtimes.insert(0, floor);
    if wish.check.is_none() && wish.baseline.is_none() && wish.order.is_none() {
        for name in ["crun", "runc", "youki"] {
            let known = wish.runtimes.iter().any(|runtime| runtime.name == name);
            if let Some(path) = runtime::in_path(name).filter(|_| !known) {
                wish.runtimes.push(Runtime::new(name, &path)?);
            }
        }
    }
    Ok(wish)
}

/// Becomes a runtime that insists on more locked memory than root may have here, and is told that it got
/// it: for engines, which start it themselves.
fn appease(words: impl Iterator<Item = String>) -> String {
    let words: Vec<String> = words.collect();
    let Some((program, words)) = words.split_first() else {
        return "--appease PROGRAM WORD...".into();
    };
    if let Err(error) = sys::pretend_locked_memory() {
        return error.to_string();
    }
    let error = Command::new(program).args(words).exec();
    format!("{program}: {error}")
}

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("--appease") {
        eprintln!("bench: {}", appease(std::env::args().skip(2)));
        return ExitCode::FAILURE;
    }
    let wish = match wish() {
        Ok(wish) => wish,
        Err(error) => {
            eprintln!("bench: {error}");
            return ExitCode::from(2);
        }
    };
    // What is written when all is over, as the files of the host are seen only outside.
    let dir = std::env::temp_dir().join(format!("husk-bench-{}", std::process::id()));
    let inside = || match measure(&wish, &dir) {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(error) => {
            eprintln!("bench: {error}");
            1
        }
    };
    match enclosure::enclose(&dir, inside) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// False where a comparison with the baseline has failed.
fn measure(wish: &Wish, dir: &Path) -> Result<bool, String> {
    let begun = Instant::now();
    sys::become_subreaper().map_err(|error| format!("subreaper: {error}"))?;
    let site =
        Site::new(dir, &wish.floor).map_err(|error| format!("{}: {error}", dir.display()))?;
    let fifo = wish.fifo && site::real_time();
    let mut runtimes = wish.runtimes.clone();
    for runtime in &mut runtimes {
        runtime.try_out(&site);
    }
    let mut results = Results::new(&runtimes, fifo);
    if let Some(path) = wish.baseline.as_ref().or(wish.check.as_ref()) {
        let husk = wish.runtimes.get(1).ok_or("which runtime? husk=PATH")?;
        return check::run(wish, &site, husk, path, &mut results);
    }
    if let Some(path) = &wish.order {
        let husk = wish.runtimes.get(1).ok_or("which runtime? husk=PATH")?;
        return order::write(&site, husk, path).map(|()| true);
    }
    type Measure = fn(&Wish, &Site, &mut Results);
    let measures: [(&str, Measure); 10] = [
        ("life", life::cycles),
        ("run", life::foreground),
        ("running", life::running),
        ("memory", memory::measure),
        ("cost", memory::cost),
        ("throughput", many::throughput),
        ("density", many::density),
        ("growth", growth::measure),
        ("traces", traces::measure),
        ("gap", gap::measure),
    ];
    let wanted = |name: &str| wish.only.as_ref().is_none_or(|only| name.contains(only));
    for (name, measure) in measures {
        if wanted(name) {
            eprintln!("{:6.1} s  {name}", begun.elapsed().as_secs_f64());
            measure(wish, &site, &mut results);
        }
    }
    if wanted("counts") {
        eprintln!("{:6.1} s  counts", begun.elapsed().as_secs_f64());
        counts::measure(wish, &site, &mut results);
    }
    if let Some(path) = &wish.engines {
        engines::read(path, &mut results)?;
    }
    results.docker_lines = bundle::docker_lines(&site);
    results.seconds = begun.elapsed().as_secs_f64();
    print!("{}", page::text(&results, false));
    if let Some(docs) = &wish.write {
        page::write(&results, docs).map_err(|error| format!("{}: {error}", docs.display()))?;
    }
    Ok(true)
}
