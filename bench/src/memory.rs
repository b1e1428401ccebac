//! Memory of `create` and of the process that waits; what a call costs inside.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use crate::Wish;
use crate::bundle::{self, Filter};
use crate::life::in_turns;
use crate::results::Results;
use crate::runtime::wait_for;
use crate::site::Site;

pub fn measure(wish: &Wish, site: &Site, results: &mut Results) {
    for (prefix, filter) in [("", Filter::None), ("docker ", Filter::Docker)] {
        let measure = format!("{prefix}memory");
        let rounds = if wish.quick { 2 } else { 10 };
        in_turns(results, &measure, rounds, |runtime, round, results| {
            let id = format!("memory-{}", runtime.name);
            let bundle = bundle::make(site, &id, "/bin/true", filter);
            let pid_file = bundle.join("pid");
            let words = [
                "create",
                "--bundle",
                &bundle.to_string_lossy(),
                "--pid-file",
                &pid_file.to_string_lossy(),
                &id,
            ];
            let said = bundle.join("said");
            let file = fs::File::create(&said).map_err(|error| error.to_string())?;
            let rss = site.rss.to_string_lossy();
            let mut command = runtime.command(site, &[&rss], &words);
            let status = command.stdout(Stdio::null()).stderr(file).status();
            let text = fs::read_to_string(&said).unwrap_or_default();
            let last = text.trim().lines().last().unwrap_or("").to_owned();
            if !status.is_ok_and(|status| status.success()) {
                runtime.forget(site, &id);
                return Err(format!("create: {text}"));
            }
            let pid = fs::read_to_string(&pid_file).unwrap_or_default();
            let pid = pid.trim().parse().map_err(|_| "no pid")?;
            // As one that waits, not one that has just come.
            std::thread::sleep(Duration::from_millis(250));
            let (resident, private) = (resident(pid), private(pid));
            runtime.time(site, &["start", &id])?;
            wait_for(pid);
            runtime.time(site, &["delete", &id])?;
            if round > 0 {
                let peak = last.parse().map_err(|_| format!("memory: {text}"))?;
                results.add(&format!("{prefix}create KiB"), runtime, peak);
                results.add(&format!("{prefix}waiting KiB"), runtime, resident);
                results.add(&format!("{prefix}private KiB"), runtime, private);
            }
            Ok(())
        });
    }
}

/// Resident memory of this process, in KiB.
fn resident(pid: i32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0.0)
}

/// What of that is this process's alone, in KiB: the rest is the file's pages, which are there once.
fn private(pid: i32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let lines = text.lines().filter(|line| line.starts_with("Anonymous:"));
    let numbers = lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    numbers.sum()
}

/// Nanoseconds of a call that every filter allows, and of one whose argument Docker's profile looks at.
pub fn cost(wish: &Wish, site: &Site, results: &mut Results) {
    let rounds = if wish.quick { 2 } else { 12 };
    in_turns(results, "cost", rounds, |runtime, round, results| {
        // One after the other, as what the processor gives changes.
        for (prefix, filter) in [("", Filter::None), ("docker ", Filter::Docker)] {
            let id = format!("cost-{}", runtime.name);
            let bundle = bundle::make(site, &id, "/bin/cost", filter);
            let words = ["run", "--bundle", &bundle.to_string_lossy(), &id];
            let output = runtime.command(site, &[], &words).output();
            let output = output.map_err(|error| error.to_string())?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let mut numbers = text.split_whitespace().map(str::parse::<f64>);
            let (Some(Ok(plain)), Some(Ok(checked))) = (numbers.next(), numbers.next()) else {
                runtime.forget(site, &id);
                return Err(String::from_utf8_lossy(&output.stderr).into_owned());
            };
            if round > 0 {
                results.add(&format!("{prefix}call ns"), runtime, plain);
                results.add(&format!("{prefix}checked call ns"), runtime, checked);
            }
        }
        Ok(())
    });
}
