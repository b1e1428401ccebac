//! What husk is held to: times the floor, or as it says.

use crate::results::Results;

pub struct Goal {
    pub what: &'static str,
    /// The most, or for rates the least.
    pub limit: f64,
    pub unit: &'static str,
    pub least: bool,
    pub measured: Option<f64>,
}

impl Goal {
    pub fn is_met(&self) -> Option<bool> {
        let measured = self.measured?;
        Some(match self.least {
            true => measured >= self.limit,
            false => measured <= self.limit,
        })
    }
}

pub fn of(results: &Results, husk: &str) -> Vec<Goal> {
    let floors = |measure: &str| results.ratio(measure, husk);
    let value = |measure: &str, divided_by: f64| {
        results
            .median(measure, husk)
            .map(|value| value / divided_by)
    };
    let most = |what, limit, measured| Goal {
        what,
        limit,
        unit: " floors",
        least: false,
        measured,
    };
    let mib = |goal: Goal| Goal {
        unit: " MiB",
        ..goal
    };
    let to_crun = results
        .median("list, many", husk)
        .zip(results.median("list, many", "crun"))
        .map(|(husk, crun)| husk / crun);
    // The same call without a filter, in the same round of measurements. A whole process has a faster or a slower
    // processor, by a third on shared machines: so those that had the faster one, on both sides.
    let checked = results
        .share("docker checked call ns", husk, 0.2)
        .zip(results.share("checked call ns", husk, 0.2))
        .map(|(with, without)| with / without);
    vec![
        most("create, start, exit, delete", 1.7, floors("cycle")),
        most(
            "the same with Docker's profile",
            1.4,
            floors("docker cycle"),
        ),
        most("`run`, foreground", 1.5, floors("run")),
        most("`exec`", 2.5, floors("exec")),
        most("`state`", 2.0, floors("state")),
        most("`kill`", 2.0, floors("kill")),
        mib(most(
            "peak memory of `create`",
            2.0,
            value("create KiB", 1024.0),
        )),
        mib(most(
            "memory of the process that waits",
            1.0,
            value("waiting KiB", 1024.0),
        )),
        Goal {
            least: true,
            ..most(
                "200 containers, 32 at a time, lives a second",
                0.7,
                floors("lives/s"),
            )
        },
        most("1,000 running: all started", 1.3, floors("start all s")),
        Goal {
            unit: " of crun's time",
            ..most("`list` with 1,000", 0.5, to_crun)
        },
        Goal {
            unit: " of the call without a filter",
            ..most("a call whose argument the profile looks at", 1.25, checked)
        },
    ]
}
