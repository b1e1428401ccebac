//! What the program in the container tells of itself.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::time::Duration;

use husk_integration::sys;
use serde_json::Value;

use super::case::within;

/// By their places in what it tells.
pub type Facts = BTreeMap<String, Value>;

/// What isn't as it should be.
pub fn compare(wanted: &Facts, found: &Facts) -> Option<String> {
    let differ = |(key, value): (&String, &Value)| match found.get(key) {
        Some(found) if found == value => None,
        Some(found) => Some(format!("{key} is {found}, not {value}")),
        None => Some(format!("{key} isn't {value}")),
    };
    let others: Vec<String> = wanted.iter().filter_map(differ).collect();
    (!others.is_empty()).then(|| format!("success, but {}", others.join(", ")))
}

/// What a terminal has to say until the line is complete.
pub fn read_some(mut master: &File) -> String {
    let mut said = Vec::new();
    let mut buffer = [0; 4096];
    while !said.contains(&b'\n') && sys::readable(master, Duration::from_secs(1)).unwrap_or(false) {
        match master.read(&mut buffer) {
            Ok(length) if length > 0 => said.extend_from_slice(&buffer[..length]),
            _ => break,
        }
    }
    String::from_utf8_lossy(&said).into_owned()
}

/// Waits for what the program tells of itself, a line with an object.
pub fn told(id: &str, mut said: impl FnMut() -> String) -> Result<Facts, String> {
    let mut words = String::new();
    let mut facts = Facts::new();
    let complete = within(Duration::from_secs(5), || {
        words = said();
        let objects = words
            .lines()
            .filter(|line| line.trim_start().starts_with('{'));
        let values = objects.map(|line| serde_json::from_str::<Value>(line.trim()));
        match values.flatten().next() {
            Some(mut value) => {
                // No order is asked for, and youki has none.
                if let Some(variables) = value["env"].as_array_mut() {
                    variables.sort_by_key(Value::to_string);
                }
                flatten(id, String::new(), &value, &mut facts);
                true
            }
            None => false,
        }
    });
    match complete {
        true => Ok(facts),
        false => Err(format!("success, but the program says {words:?}")),
    }
}

/// What the kernel numbers anew for each mount.
const NUMBERS: [&str; 3] = ["/id", "/parent", "/dev"];

fn is_the_hosts(kind: &str, number: &Value) -> bool {
    use std::os::unix::fs::MetadataExt;
    let own = fs::metadata(format!("/proc/self/ns/{kind}"));
    own.is_ok_and(|own| Some(own.ino()) == number.as_u64())
}

fn flatten(id: &str, path: String, value: &Value, facts: &mut Facts) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                flatten(id, format!("{path}/{key}"), value, facts);
            }
        }
        Value::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                flatten(id, format!("{path}/{index}"), value, facts);
            }
        }
        _ if path.starts_with("/mounts/") && NUMBERS.iter().any(|name| path.ends_with(name)) => {}
        // The kernel's number for a namespace is never the same; whether it is the host's is a fact.
        _ => {
            let value = match path.strip_prefix("/ns/") {
                Some(kind) => is_the_hosts(kind, value).into(),
                None => match value.as_str() {
                    // An overlay's layers are named by descriptors, whose numbers say nothing.
                    Some(text) if text.contains("/proc/self/fd/") => "a descriptor".into(),
                    // As little as that of a pipe.
                    Some(text) if text.starts_with("pipe:[") => "a pipe".into(),
                    Some(text) => text.replace(id, "ID").into(),
                    None => value.clone(),
                },
            };
            facts.insert(path, value);
        }
    }
}
