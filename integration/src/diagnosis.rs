//! How a runtime explains a broken bundle: the cases of `diagnosis/cases.txt`, each run as a person
//! does and as an engine does, and what the message is worth.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::bundle::{Bundle, set_mode};
use crate::cgroup;
use crate::lab::Lab;
use crate::output::{End, Output};

const TABLE: &str = include_str!("../diagnosis/cases.txt");
const SECOND: &str = include_str!("../diagnosis/second.txt");

/// A program for another machine or with this loader, as far as execve(2) reads it.
pub fn elf(machine: u16, loader: Option<&str>) -> Vec<u8> {
    let mut file = vec![0; 120];
    file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    file[16] = 2;
    file[18..20].copy_from_slice(&machine.to_le_bytes());
    file[32] = 64;
    file[54] = 56;
    file[56] = 1;
    if let Some(loader) = loader {
        file[64] = 3;
        file[72] = 120;
        file[96] = u8::try_from(loader.len() + 1).unwrap();
        file.extend_from_slice(loader.as_bytes());
        file.push(0);
    }
    file
}

/// One line of the table.
pub struct Case {
    pub group: &'static str,
    pub name: &'static str,
    pub what: &'static str,
    changes: &'static str,
    field: &'static str,
    cause: &'static str,
    pub remedy: &'static str,
    exit: &'static str,
}

/// Those that several runtimes are measured by.
pub fn cases() -> Vec<Case> {
    read(TABLE)
}

/// Those that husk was not written for.
pub fn second_cases() -> Vec<Case> {
    read(SECOND)
}

fn read(table: &'static str) -> Vec<Case> {
    let (mut group, mut cases) = ("", Vec::new());
    for line in table.lines() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            group = name.trim_end_matches(']');
            continue;
        }
        let columns: Vec<&str> = line.split(" | ").map(str::trim).collect();
        let [name, what, changes, field, cause, remedy, ref exit @ ..] = columns[..] else {
            panic!("six columns at least: {line}");
        };
        cases.push(Case {
            group,
            name,
            what,
            changes,
            field,
            cause,
            remedy,
            exit: exit.first().copied().unwrap_or("failure"),
        });
    }
    cases
}

/// Who runs it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// `run`, and what standard output and standard error show.
    Person,
    /// `create` and `start` with `--log FILE --log-format json`, and what the file says.
    Engine,
}

/// What a runtime made of a case.
pub struct Answer {
    pub status: i32,
    pub message: String,
    /// What was still there when it should have been gone.
    pub left: Vec<String>,
    pub score: Score,
}

/// Each is a point; `remedy` is `None` where none is asked.
#[derive(Clone, Copy, Default)]
pub struct Score {
    pub field: bool,
    pub cause: bool,
    pub remedy: Option<bool>,
    pub clear: bool,
    pub exit: bool,
    pub clean: bool,
}

impl Score {
    /// The letters of what was earned.
    pub fn letters(self) -> String {
        let remedy = self
            .remedy
            .map_or('-', |earned| if earned { 'R' } else { '.' });
        let letter = |earned, letter| if earned { letter } else { '.' };
        [
            letter(self.field, 'F'),
            letter(self.cause, 'C'),
            remedy,
            letter(self.clear, '1'),
            letter(self.exit, 'X'),
            letter(self.clean, 'L'),
        ]
        .iter()
        .collect()
    }
}

/// The bundle and the commands of a case.
struct Scene {
    bundle: Bundle,
    /// Edits of the text of config.json.
    edits: Vec<Edit>,
    options: Vec<String>,
    /// Commands that succeed, before the one that counts.
    prior: Vec<Vec<String>>,
    /// Instead of `run`, or of `create` and `start`.
    command: Option<Vec<String>>,
}

enum Edit {
    Replace(String, String),
    Cut(usize),
    Whole(String),
}

fn unescape(text: &str) -> String {
    text.replace("\\n", "\n")
        .replace("\\r", "\r")
        .replace("\\ufeff", "\u{feff}")
}

impl Scene {
    fn change(mut self, change: &str, id: &str) -> Scene {
        let dir = self.bundle.dir.to_str().unwrap().to_owned();
        let change = change.replace("@B", &dir).replace("@I", id);
        let words: Vec<&str> = change.split(' ').collect();
        let owned = || words[1..].iter().map(|word| (*word).to_owned()).collect();
        let rest = |n: usize| words[n..].join(" ");
        let json = |n: usize| serde_json::from_str::<Value>(&rest(n)).unwrap();
        let put = |path: &Path, content: &[u8]| {
            fs::write(path, content).unwrap();
            set_mode(path, u32::from_str_radix(words[1], 8).unwrap());
        };
        let bundle = self.bundle;
        self.bundle = match words[0] {
            "set" => bundle.set(words[1], json(2)),
            "drop" => bundle.remove(words[1]),
            "long" => {
                let text = words[2].to_owned() + &"x".repeat(words[3].parse().unwrap());
                bundle.set(words[1], Value::String(text))
            }
            "file" => bundle.file(words[1], "x"),
            "dir" => bundle.dir(words[1]),
            "args" => bundle.args(&words[1..]),
            "bind" => bundle.bind(words[1], words[2], &words[3..]),
            "only" => bundle.only_mounts(&words[1..]),
            "without" => bundle.without_namespace(words[1]),
            "namespace" => bundle.namespace(words[1]),
            "userns" => bundle.user_namespace(words[1].parse().unwrap(), words[2].parse().unwrap()),
            // In the root filesystem, and in the bundle beside it.
            "script" => {
                put(
                    &bundle.rootfs().join(words[2]),
                    unescape(&rest(3)).as_bytes(),
                );
                bundle
            }
            "tool" => {
                put(&bundle.dir.join(words[2]), unescape(&rest(3)).as_bytes());
                bundle
            }
            "elf" => {
                let path = bundle.rootfs().join(words[3]);
                let loader = Some(words[2]).filter(|loader| *loader != "-");
                fs::write(&path, elf(words[1].parse().unwrap(), loader)).unwrap();
                set_mode(&path, 0o755);
                bundle
            }
            "text" => {
                let (from, to) = change["text ".len()..].split_once(" => ").unwrap();
                self.edits
                    .push(Edit::Replace(from.to_owned(), unescape(to)));
                bundle
            }
            "cut" => {
                self.edits.push(Edit::Cut(words[1].parse().unwrap()));
                bundle
            }
            "raw" => {
                self.edits.push(Edit::Whole(rest(1)));
                bundle
            }
            "options" => {
                self.options = owned();
                bundle
            }
            "prior" => {
                self.prior.push(owned());
                bundle
            }
            "wait" => {
                self.prior.push(Vec::new());
                bundle
            }
            "command" => {
                self.command = Some(owned());
                bundle
            }
            _ => panic!("{change}"),
        };
        self
    }

    fn write(&self, id: &str) {
        self.bundle.write(id);
        let path = self.bundle.dir.join("config.json");
        for edit in &self.edits {
            let text = fs::read_to_string(&path).unwrap();
            let text = match edit {
                Edit::Replace(from, to) if from == "^" => format!("{to}{text}"),
                Edit::Replace(from, to) => {
                    assert!(text.contains(from), "{from} is not in {text}");
                    text.replacen(from, to, 1)
                }
                Edit::Cut(length) => text[..*length].to_owned(),
                Edit::Whole(text) => text.clone(),
            };
            fs::write(&path, text).unwrap();
        }
    }
}

impl Case {
    fn scene(&self, lab: &Lab, id: &str) -> Scene {
        let scene = Scene {
            bundle: lab.bundle().payload("echo never"),
            edits: Vec::new(),
            options: Vec::new(),
            prior: Vec::new(),
            command: None,
        };
        self.changes
            .split("; ")
            .fold(scene, |scene, change| scene.change(change, id))
    }

    /// Runs it and takes away whatever is left.
    pub fn ask(&self, lab: &Lab, way: Way) -> Answer {
        let id = lab.id();
        // What an earlier case has left for good is not this one's.
        let before = lab.left();
        let scene = self.scene(lab, &id);
        scene.write(&id);
        let log = lab.path("log");
        let log = log.to_str().unwrap();
        let run = |args: &[String]| {
            let command = lab.runtime(args);
            match way {
                Way::Person => command.run(),
                Way::Engine => command
                    .global(&["--log", log, "--log-format", "json"])
                    .run(),
            }
        };
        for prior in &scene.prior {
            if prior.is_empty() {
                wait_for_end(lab, &id);
                continue;
            }
            run(prior);
            let _ = fs::remove_file(log);
        }
        let dir = scene.bundle.dir.to_str().unwrap();
        let on_bundle = |command: &str| {
            let mut args = vec![command.to_owned(), "--bundle".into(), dir.into()];
            args.extend(scene.options.iter().cloned());
            args.push(id.clone());
            args
        };
        let succeeded = |output: &Output| output.end == End::Code(0);
        let (output, must_delete) = match (&scene.command, way) {
            (Some(command), _) => (run(command), true),
            (None, Way::Person) => (run(&on_bundle("run")), !scene.prior.is_empty()),
            (None, Way::Engine) => {
                let created = run(&on_bundle("create"));
                match succeeded(&created) {
                    true => (run(&["start".into(), id.clone()]), true),
                    false => (created, !scene.prior.is_empty()),
                }
            }
        };
        if must_delete {
            lab.runtime(["delete", "--force", &id]).run();
        }
        let left = left_behind(lab, &before);
        let message = match way {
            Way::Person => format!("{}{}", output.stderr, output.stdout),
            Way::Engine => messages(log),
        };
        // runc says so of every container where there is no memory controller.
        let lines = message
            .lines()
            .filter(|line| !line.contains("unable to get oom kill count"));
        let message = lines.collect::<Vec<_>>().join("\n").trim().to_owned();
        let status = match output.end {
            End::Code(code) => code,
            End::Signal(signal) => 128 + signal,
        };
        let score = self.score(&message, &id, status, left.is_empty());
        lab.runtime(["delete", "--force", &id]).run();
        if !left.is_empty() {
            for dir in cgroup::beginning(lab.tag()) {
                let _ = cgroup::remove(&dir);
            }
        }
        let _ = fs::remove_dir_all(&scene.bundle.dir);
        Answer {
            status,
            message,
            left,
            score,
        }
    }

    fn score(&self, message: &str, id: &str, status: i32, clean: bool) -> Score {
        let text = message.to_lowercase();
        let field = fits(&text, &self.field.replace("@I", id));
        let cause = fits(&text, self.cause);
        Score {
            field,
            cause,
            remedy: (self.remedy != "-").then(|| fits(&text, self.remedy)),
            clear: (field || cause) && is_clear(message),
            exit: match self.exit {
                "any" => true,
                "zero" => status == 0,
                _ => status != 0,
            },
            clean,
        }
    }
}

/// Alternatives are parted by ` or `, words that must all be there by commas.
fn fits(text: &str, words: &str) -> bool {
    words.split(" or ").any(|alternative| {
        alternative
            .split(", ")
            .all(|word| text.contains(&word.to_lowercase()))
    })
}

/// One line, a second one at most if it is a hint; no structures, nothing said twice.
fn is_clear(message: &str) -> bool {
    let said: Vec<&str> = message
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && *line != "never")
        .collect();
    let few = match said[..] {
        [_] => true,
        [_, second] => second.starts_with("hint:"),
        _ => false,
    };
    let mut segments: Vec<&str> = said.iter().flat_map(|line| line.split(": ")).collect();
    let all = segments.len();
    segments.sort_unstable();
    segments.dedup();
    few && said[0].chars().count() <= 400
        && segments.len() == all
        && !["&{", "Some(", " { ", "map["]
            .iter()
            .any(|dump| message.contains(dump))
}

/// The texts in a log of JSON objects.
fn messages(log: &str) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let entries = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
    let texts: Vec<String> = entries
        .map_while(Result::ok)
        .filter_map(|entry| entry["msg"].as_str().map(str::to_owned))
        .collect();
    texts.join("\n")
}

fn wait_for_end(lab: &Lab, id: &str) {
    let deadline = Instant::now() + crate::lab::patience();
    while Instant::now() < deadline {
        let state = lab.runtime(["state", id]).run();
        if state.stdout.contains("stopped") {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What is still there after a second and a half.
fn left_behind(lab: &Lab, before: &[String]) -> Vec<String> {
    let deadline = Instant::now() + Duration::from_millis(1500);
    loop {
        let mut left = lab.left();
        left.retain(|path| !before.contains(path));
        if left.is_empty() || Instant::now() > deadline {
            return left;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
