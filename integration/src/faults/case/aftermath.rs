//! What is left after a case, and whether the runtime can take it away.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use husk_integration::output::End;
use husk_integration::receiver::Receiver;
use husk_integration::sys;
use serde_json::Value;

use super::super::device;
use super::super::ground::{Ground, Thing};
use super::super::scenario::Shape;
use super::super::tracer::Traced;
use super::{Bench, Held, Kind, Problem, second};

impl Bench<'_> {
    /// Whatever happened: it is seen, removed, and nothing is left.
    pub(super) fn aftermath(
        &mut self,
        id: &str,
        traced: &Traced,
        ground: &Ground,
        held: Held,
        problems: &mut Vec<Problem>,
    ) {
        problems.extend(self.look(id));
        let made = traced.end == End::Code(0) || self.is_made(id);
        let deleted = self.ask(&["delete", "--force", id]);
        if !deleted.is_ok() {
            problems.push((Kind::Leak, format!("delete --force {}", deleted.describe())));
        } else if deleted.took > second() {
            let time = deleted.took.as_secs_f64();
            problems.push((Kind::Hang, format!("delete --force takes {time:.1} s")));
        }
        drop(held.receiver);
        let _ = fs::remove_file(&self.place.console);
        if let Some(lines) = held.lines
            && lines.are_held()
        {
            problems.push((
                Kind::Leak,
                "somebody has a descriptor of the engine's".into(),
            ));
        }
        let _ = fs::remove_file(&self.place.pidfds);
        // What belongs to a container that was made ends with it.
        if let Some(before) = held.device.filter(|_| !made) {
            let now = device::portrait();
            if now.as_ref() != Some(&before) {
                let now = now.map_or("gone".into(), |now| now.to_string());
                problems.push((
                    Kind::Leak,
                    format!("the network device is {now}, not {before}"),
                ));
            }
        }
        let _ = fs::remove_file(self.place.dir.join("resources.json"));
        // The upper layer of a container that was made is the user's, who may have written to it.
        let upper = self.place.upper();
        let is_users = |thing: &Thing| match thing {
            Thing::File(path) => made && is_upper(path, &upper),
            _ => false,
        };
        let deadline = Instant::now() + second();
        let left = loop {
            let mut left = ground.left(Duration::ZERO);
            left.retain(|thing| !is_users(thing));
            if left.is_empty() || Instant::now() > deadline {
                break left;
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        for thing in &left {
            problems.push((Kind::Leak, format!("left: {thing}")));
        }
        let is_clean = deleted.is_ok() && left.is_empty();
        if self.scenario.has_device() {
            device::make();
        }
        if is_clean && let Err(what) = self.again(id) {
            problems.push((Kind::Leak, format!("the id can't be used again: {what}")));
        }
        ground.clean();
        if !is_clean {
            self.next += 1;
        }
    }

    /// Whether `create` had come to its end when it was struck, where that matters.
    fn is_made(&self, id: &str) -> bool {
        let record = fs::read_to_string(self.root.join(id).join("record.json"));
        self.scenario.is_husks() && record.is_ok_and(|text| text.contains("\"phase\":\"created\""))
    }

    /// What `state` and `list` say.
    fn look(&self, id: &str) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut blind = |words: String| problems.push((Kind::Blind, words));
        let state = self.ask(&["state", id]);
        let found = serde_json::from_str::<Value>(&state.stdout).ok();
        let status = found.as_ref().and_then(|state| state["status"].as_str());
        match (state.is_ok(), status) {
            (true, Some("creating" | "created" | "running" | "paused" | "stopped")) => {}
            (false, _) if state.end == Some(End::Code(1)) && says_missing(&state.stderr) => {}
            _ => blind(format!("state {}{}", state.describe(), state.stdout.trim())),
        }
        // youki has a table and nothing else.
        let (words, is_json): (&[&str], _) = match self.runtime.name == "youki" {
            true => (&["list"], false),
            false => (&["list", "--format", "json"], true),
        };
        let list = self.ask(words);
        let is_understood = || serde_json::from_str::<Value>(&list.stdout).is_ok();
        if !list.is_ok() || is_json && !is_understood() {
            blind(format!("list {}{}", list.describe(), list.stdout.trim()));
        }
        for answer in [state, list] {
            if answer.took > 2 * second() {
                problems.push((Kind::Hang, "state or list".into()));
            }
        }
        problems
    }

    /// A container under the same id.
    fn again(&self, id: &str) -> Result<(), String> {
        let mut words = vec!["create".to_owned()];
        words.extend([
            "--bundle".to_owned(),
            self.place.bundle.display().to_string(),
        ]);
        words.push(id.to_owned());
        let receiver = (self.scenario.shape == Shape::Terminal).then(|| {
            words.splice(
                1..1,
                [
                    "--console-socket".to_owned(),
                    self.place.console.display().to_string(),
                ],
            );
            Receiver::new(&self.place.console)
        });
        let created = self.ask_to(&words, &sys::memfd("again").unwrap());
        let deleted = self.ask(&["delete", "--force", id]);
        if receiver.is_some() {
            let _ = fs::remove_file(&self.place.console);
        }
        for answer in [created, deleted] {
            if !answer.is_ok() {
                return Err(answer.describe());
            }
        }
        Ok(())
    }
}

/// The layer itself or what is in it, or overlayfs's own directory beside it.
fn is_upper(path: &Path, upper: &Path) -> bool {
    path.starts_with(upper) || path.starts_with(upper.with_extension("work"))
}

fn says_missing(words: &str) -> bool {
    let words = words.to_lowercase();
    words.contains("not exist") || words.contains("no such")
}
