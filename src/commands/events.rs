use std::time::Duration;

use nix::errno::Errno;
use serde::Serialize;

use super::{Global, print};
use crate::cgroups::Stats;
use crate::container::events::{Event, Watched};
use crate::error::{Error, Result};

#[derive(clap::Args, Debug, Clone, PartialEq, Eq)]
#[group(skip)]
pub struct Args {
    /// Print the numbers of this moment and end
    #[arg(long)]
    pub stats: bool,
    /// Time between two prints of the numbers
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_duration)]
    pub interval: Duration,
    /// Name of the container
    pub id: String,
}

/// One line of output. runc's readers look at the keys' order.
#[derive(Serialize)]
struct Line<'a> {
    r#type: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Stats>,
}

fn line(id: &str, event: &Event) -> Result<String> {
    let line = match event {
        Event::Stats(stats) => Line {
            r#type: "stats",
            id,
            data: Some(stats),
        },
        Event::Oom => Line {
            r#type: "oom",
            id,
            data: None,
        },
    };
    match serde_json::to_string(&line) {
        Ok(text) => Ok(text + "\n"),
        Err(error) => Err(Error::new("print event").because(error.to_string())),
    }
}

/// A duration as Go writes it: `5s`, `100ms`, `1m30s`, `1.5h`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration such as 5s, 100ms or 1m30s");
    let mut rest = text;
    let mut nanoseconds = 0.0;
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(wrong)?;
        let (number, after) = rest.split_at(end);
        let end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let scale = match unit {
            "ns" => 1.0,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return Err(wrong()),
        };
        nanoseconds += number.parse::<f64>().map_err(|_| wrong())? * scale;
        rest = after;
    }
    match nanoseconds {
        _ if text.is_empty() => Err(wrong()),
        ..1.0 => Err("duration interval must be greater than 0".into()),
        _ => Ok(Duration::from_nanos(nanoseconds as u64)),
    }
}

pub fn run(args: Args, global: &Global) -> anyhow::Result<u8> {
    let watched = Watched::find(&global.root, &args.id)?;
    if args.stats {
        let event = Event::Stats(Box::new(watched.stats()));
        return Ok(print(&line(&args.id, &event)?)?);
    }
    watched.watch(args.interval, |event| {
        let text = line(&args.id, &event)?;
        match print(&text) {
            // Nobody reads any more.
            Err(error) if error.code() == Some(Errno::EPIPE) => Ok(false),
            printed => printed.map(|_| true),
        }
    })?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, milliseconds) in [
            ("5s", Some(5000)),
            ("100ms", Some(100)),
            ("1m30s", Some(90_000)),
            ("1.5h", Some(5_400_000)),
            ("2000us", Some(2)),
            ("2000\u{b5}s", Some(2)),
            (".5s", Some(500)),
            ("1h1m1s1ms", Some(3_661_001)),
            ("", None),
            ("0", None),
            ("0s", None),
            ("-1s", None),
            ("5", None),
            ("s", None),
            ("5 s", None),
            ("5x", None),
            ("1..5s", None),
        ] {
            let duration = parse_duration(text).ok();
            assert_eq!(
                duration,
                milliseconds.map(Duration::from_millis),
                "{text:?}"
            );
        }
    }
}
