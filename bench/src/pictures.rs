//! The plots of what was measured.

use crate::page::{names, series};
use crate::plot;
use crate::results::Results;

/// The name of the file, and the picture.
pub type Plot = (&'static str, String);

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

pub fn all(results: &Results) -> Vec<Plot> {
    let names = names(results);
    let life = [
        ("a life", "cycle"),
        ("run", "run"),
        ("life, profile", "docker cycle"),
        ("run, profile", "docker run"),
    ];
    let exec = [("exec", "exec"), ("state", "state"), ("kill", "kill")];
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
        ("exec", bars("In a running container, ms", &exec)),
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
