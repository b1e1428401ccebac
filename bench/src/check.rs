//! The guard: system calls, instructions and times of husk against those that are committed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::results::Results;
use crate::runtime::Runtime;
use crate::site::Site;
use crate::{Wish, counts, life, steps};

/// More than this is a loss.
const TOLERANCE: f64 = 1.15;
/// Times are the machine's as well: one of these goes has to hold.
const GOES: usize = 4;
const RATIOS: [&str; 6] = ["cycle", "docker cycle", "run", "exec", "state", "kill"];

/// Writes the baseline, or compares with it; false where something was lost.
pub fn run(
    wish: &Wish,
    site: &Site,
    husk: &Runtime,
    path: &Path,
    results: &mut Results,
) -> Result<bool, String> {
    let calls: BTreeMap<String, u64> = counts::of(site, husk)?
        .iter()
        .map(|(command, calls)| (command.clone(), counts::total(calls)))
        .collect();
    let instructions = steps::of(site, husk)?;
    if wish.baseline.is_some() {
        let ratios = ratios(wish, site, husk, results);
        // Two digits: more would only be noise.
        let ratios: BTreeMap<_, _> = ratios
            .into_iter()
            .map(|(name, ratio)| (name, (ratio * 100.0).round() / 100.0))
            .collect();
        let text = serde_json::to_string_pretty(&json!({
            "calls": calls, "instructions": instructions, "ratios": ratios,
        }));
        let text = text.map_err(|error| error.to_string())? + "\n";
        fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        return Ok(true);
    }
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let known: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let mut held = true;
    for (what, counted) in [("calls", &calls), ("instructions", &instructions)] {
        for (command, count) in counted {
            let Some(before) = known[what][command].as_u64() else {
                continue;
            };
            let lost = *count as f64 > before as f64 * TOLERANCE;
            held &= !lost;
            println!("{command:20} {before:8} -> {count:8} {what}{}", word(lost));
        }
    }
    let mut open: Vec<&str> = RATIOS.to_vec();
    for go in 1..=GOES {
        let mut results = Results::new(&results.runtimes, results.fifo);
        let now = ratios(wish, site, husk, &mut results);
        open.retain(|name| {
            let (Some(before), Some(now)) = (known["ratios"][*name].as_f64(), now.get(*name))
            else {
                return false;
            };
            let lost = *now > before * TOLERANCE;
            if !lost || go == GOES {
                println!("{name:20} {before:6.2} -> {now:6.2} floors{}", word(lost));
            }
            lost
        });
        if open.is_empty() {
            break;
        }
    }
    Ok(held && open.is_empty())
}

fn word(lost: bool) -> &'static str {
    if lost { "   LOST" } else { "" }
}

fn ratios(
    wish: &Wish,
    site: &Site,
    husk: &Runtime,
    results: &mut Results,
) -> BTreeMap<String, f64> {
    life::cycles(wish, site, results);
    life::foreground(wish, site, results);
    life::running(wish, site, results);
    RATIOS
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), results.ratio(name, &husk.name)?)))
        .collect()
}
