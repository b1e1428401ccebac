//! Draws what `--trace FILE` wrote: `cargo run --example picture -- TRACE >picture.svg`.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::{fs, io};

use serde_json::Value;

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 90.0;
const ROW: f64 = 20.0;
/// A step shorter than this part of the whole has no room for its name.
const NAMED: f64 = 0.02;

struct Step {
    row: u64,
    name: String,
    from: f64,
    took: f64,
    depth: usize,
}

fn main() -> io::Result<()> {
    let path = std::env::args_os()
        .nth(1)
        .ok_or_else(|| io::Error::other("usage: picture TRACE"))?;
    let text = fs::read_to_string(path)?;
    // As its other readers do: the end of the array may be missing.
    let text = format!("{}]", text.trim_end().trim_end_matches([',', ']']));
    let events: Vec<Value> = serde_json::from_str(&text).map_err(io::Error::other)?;
    io::Write::write_all(&mut io::stdout(), draw(&events).as_bytes())
}

/// Names of the rows, and the steps; those that lie within others below them.
fn read(events: &[Value]) -> (BTreeMap<u64, String>, Vec<Step>) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut names = BTreeMap::new();
    let mut steps = Vec::new();
    for event in events {
        let row = event["tid"].as_u64().unwrap_or(0);
        if event["ph"] == "M" {
            names.insert(row, text(&event["args"]["name"]));
            continue;
        }
        let object = match text(&event["args"]["name"]) {
            object if object.is_empty() => object,
            object => format!(" {object}"),
        };
        steps.push(Step {
            row,
            name: text(&event["name"]) + &object,
            from: event["ts"].as_f64().unwrap_or(0.0),
            took: event["dur"].as_f64().unwrap_or(0.0),
            depth: 0,
        });
    }
    steps.sort_by(|a, b| a.from.total_cmp(&b.from).then(b.took.total_cmp(&a.took)));
    for index in 0..steps.len() {
        let (row, from) = (steps[index].row, steps[index].from);
        let around = steps[..index]
            .iter()
            .filter(|step| step.row == row && from < step.from + step.took);
        steps[index].depth = around.map(|step| step.depth + 1).max().unwrap_or(0);
    }
    (names, steps)
}

fn draw(events: &[Value]) -> String {
    let (names, steps) = read(events);
    let begin = steps
        .iter()
        .map(|step| step.from)
        .fold(f64::INFINITY, f64::min);
    let end = steps
        .iter()
        .map(|step| step.from + step.took)
        .fold(0.0, f64::max);
    let scale = (WIDTH - LEFT - 10.0) / (end - begin).max(1.0);
    let mut rows = Vec::new();
    let mut top = 30.0;
    for (row, name) in &names {
        let depths = steps
            .iter()
            .filter(|step| step.row == *row)
            .map(|step| step.depth + 1);
        if let Some(depth) = depths.max() {
            rows.push((*row, name, top));
            top += depth as f64 * ROW + 12.0;
        }
    }
    let mut svg = String::new();
    let _ = writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {:.0}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>",
        top + 10.0
    );
    let millisecond = 1000.0;
    // A dozen lines at most.
    let between = ((end - begin) / millisecond / 12.0).ceil().max(1.0);
    let mut tick = 0.0;
    while begin + tick * millisecond < end {
        let x = LEFT + tick * millisecond * scale;
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" y1=\"18\" x2=\"{x:.1}\" y2=\"{top:.0}\" stroke=\"#ddd\"/><text x=\"{x:.1}\" y=\"14\" fill=\"#666\">{tick} ms</text>"
        );
        tick += between;
    }
    for (row, name, top) in rows {
        let _ = writeln!(
            svg,
            "<text x=\"4\" y=\"{:.1}\" font-weight=\"bold\">{}</text>",
            top + 14.0,
            escape(name)
        );
        for step in steps.iter().filter(|step| step.row == row) {
            let x = LEFT + (step.from - begin) * scale;
            let width = (step.took * scale).max(0.7);
            let y = top + step.depth as f64 * ROW;
            let color = match (step.name.starts_with("wait"), step.depth) {
                (true, _) => "#e8e8e8",
                (_, 0) => "#9ecae1",
                (_, 1) => "#fdd0a2",
                _ => "#c7e9c0",
            };
            let _ = writeln!(
                svg,
                "<g><title>{} {:.0} µs</title><rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"{color}\" stroke=\"#888\" stroke-width=\"0.3\"/>",
                escape(&step.name),
                step.took,
                ROW - 2.0
            );
            if step.took * scale > NAMED * WIDTH {
                let room = (step.took * scale / 5.8) as usize;
                let label: String = step.name.chars().take(room).collect();
                let _ = writeln!(
                    svg,
                    "<text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                    x + 2.0,
                    y + 13.0,
                    escape(&label)
                );
            }
            svg.push_str("</g>\n");
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
