//! The shape of config.json, for documents that the fast way refuses: every wrong type, range,
//! name and missing property at once, each with its pointer.

mod plain;
mod table;

use serde_json::{Map, Value};

use super::habits;
use super::nearest::{aliases, also_called};
use super::{Finding, Findings, did_you_mean, nearest};
use crate::error::pointer_key;

pub use plain::is_plain;
pub use table::{CONFIG, PROCESS, is_list};

/// What may stand at one place.
pub enum Kind {
    Bool,
    Integer(Range),
    Text,
    /// One of a closed set of names, space-separated.
    Name {
        what: &'static str,
        known: &'static str,
    },
    /// As `Name`, or empty.
    NameOrEmpty {
        what: &'static str,
        known: &'static str,
    },
    /// As in `0-3,7`: the crate refuses others, but can't say where.
    Cpus,
    /// A set of capabilities: an unknown one is left out with a warning (config.md, "Linux
    /// Process": "a runtime SHOULD NOT fail").
    Capabilities,
    List(&'static Kind),
    Map(&'static Kind),
    Object(&'static [Field]),
    /// For another platform: ignored, but known.
    Foreign,
}

pub struct Range {
    min: i128,
    max: i128,
    words: &'static str,
}

pub struct Field {
    pub name: &'static str,
    pub kind: Kind,
    need: Need,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    Optional,
    /// Required by the specification; absent, every runtime reads zero.
    Expected,
    Required,
    /// Required unless the whole object is empty.
    RequiredUnlessEmpty,
}

/// What a capability that doesn't exist may be meant to be.
pub fn near_capability(name: &str) -> Option<String> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.trim_start_matches("CAP_");
    let near = nearest(bare, table::CAPABILITIES.split(' '));
    near.map(|name| format!("did you mean CAP_{name}?"))
}

/// What a walk reports.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// What stops a container, and values that are left out.
    Values,
    /// Unknown and missing properties, too, that a runtime ignores.
    Everything,
    /// Unknown properties alone, of a document that has been walked before.
    Unknown,
}

/// Reports what doesn't fit, and removes nulls (as good as absent in Go's and the crate's optional
/// fields) and unknown capabilities from `value`.
pub fn walk(kind: &Kind, value: &mut Value, report: Report, findings: &mut Findings) {
    let pointer = String::new();
    Walk {
        report,
        findings,
        pointer,
    }
    .visit(kind, value);
}

struct Walk<'a> {
    report: Report,
    findings: &'a mut Findings,
    /// Of the value that is visited.
    pointer: String,
}

impl Walk<'_> {
    fn error(&mut self, message: String, hint: Option<String>) {
        let finding = Finding::error(self.pointer.as_str(), message);
        self.findings.push(finding.maybe_hint(hint));
    }

    fn warning(&mut self, message: String, hint: Option<String>) {
        let finding = Finding::warning(self.pointer.as_str(), message);
        self.findings.push(finding.maybe_hint(hint));
    }

    /// One level down, and up again.
    fn below(&mut self, key: &str, visit: impl FnOnce(&mut Self)) {
        let length = self.pointer.len();
        self.pointer.push('/');
        match key.contains(['~', '/']) {
            true => self.pointer.push_str(&pointer_key(key)),
            false => self.pointer.push_str(key),
        }
        visit(self);
        self.pointer.truncate(length);
    }

    fn visit(&mut self, kind: &Kind, value: &mut Value) {
        match (kind, value) {
            (Kind::Foreign, _) | (Kind::Bool, Value::Bool(_)) | (Kind::Text, Value::String(_)) => {}
            (Kind::NameOrEmpty { .. }, Value::String(name)) if name.is_empty() => {}
            (
                Kind::Name { what, known } | Kind::NameOrEmpty { what, known },
                Value::String(name),
            ) => {
                if !is_known(name, known) {
                    let hint = also_called(name)
                        .filter(|known_as| is_known(known_as, known))
                        .map(|known_as| format!("did you mean {known_as}?"))
                        .or_else(|| did_you_mean(name, known.split(' ')))
                        .unwrap_or_else(|| format!("known are {}", known.replace(' ', ", ")));
                    self.error(format!("invalid {what} {}", quote(name)), Some(hint));
                }
            }
            (Kind::Cpus, Value::String(text)) => {
                if !is_list_of_cpus(text) {
                    let message = format!("{} is no list of CPUs", quote(text));
                    self.error(message, Some("as in 0-3,7".into()));
                }
            }
            (Kind::Integer(range), Value::Number(number)) => {
                let integer = number
                    .as_i64()
                    .map(i128::from)
                    .or(number.as_u64().map(i128::from));
                if integer.is_none() && number.is_f64() {
                    let message = format!("expected a whole number, got {number}");
                    self.error(message, range.whole(number.as_f64()));
                } else if !integer.is_some_and(|i| range.holds(i)) {
                    let message = format!("expected {}, got the number {number}", range.words);
                    let hint = match self.pointer.contains("/rlimits/") {
                        true => format!("from 0 to {}, which is no limit", range.max),
                        false => format!("from {} to {}", range.min, range.max),
                    };
                    self.error(message, Some(hint));
                }
            }
            (Kind::Capabilities, Value::Array(items)) => self.capabilities(items),
            (Kind::List(kind), Value::Array(items)) => {
                for (i, item) in items.iter_mut().enumerate() {
                    self.below(&i.to_string(), |walk| walk.visit(kind, item));
                }
            }
            (Kind::Map(kind), Value::Object(map)) => {
                map.retain(|_, value| !value.is_null());
                for (key, value) in map {
                    self.below(key, |walk| walk.visit(kind, value));
                }
            }
            (Kind::Object(fields), Value::Object(map)) => self.object(fields, map),
            (kind, value) => {
                let message = format!("expected {}, got {}", kind.words(), describe(value));
                let hint = self
                    .list_of_texts(kind, value)
                    .or_else(|| habits::form(&self.pointer, value))
                    .or_else(|| kind.remedy(value));
                self.error(message, hint);
            }
        }
    }

    /// What to write for arguments in one string, and for an environment as an object.
    fn list_of_texts(&self, kind: &Kind, value: &Value) -> Option<String> {
        let Kind::List(item) = kind else { return None };
        if !matches!(**item, Kind::Text) {
            return None;
        }
        let name = self.pointer.rsplit('/').next().unwrap_or_default();
        let entry = |(key, value): (&String, &Value)| match value.as_str() {
            Some(text) => format!("{key}={text}"),
            None => format!("{key}={value}"),
        };
        match (name, value) {
            ("args", Value::String(text)) => habits::arguments(text),
            ("env", Value::Object(map)) => map
                .iter()
                .next()
                .map(|first| format!("write a list of strings: [{}, ...]", quote(&entry(first)))),
            _ => None,
        }
    }

    fn object(&mut self, fields: &[Field], map: &mut Map<String, Value>) {
        map.retain(|_, value| !value.is_null());
        for field in fields {
            if let Some(value) = map.get_mut(field.name) {
                self.below(field.name, |walk| walk.visit(&field.kind, value));
                continue;
            }
            let missing = match field.need {
                Need::Optional => false,
                Need::Expected => self.report == Report::Everything,
                Need::Required => true,
                Need::RequiredUnlessEmpty => !map.is_empty(),
            };
            if missing {
                self.below(field.name, |walk| walk.missing(field, fields, map));
            }
        }
        if self.report != Report::Values {
            let known = || fields.iter().map(|f| f.name);
            for key in map.keys().filter(|key| known().all(|k| k != *key)) {
                let hint = table::home(key)
                    .map(|place| format!("its place is {place}"))
                    .or_else(|| {
                        let place = habits::place(&self.pointer, key)?;
                        Some(format!("its place is {place}"))
                    })
                    .or_else(|| did_you_mean(key, known()));
                self.below(key, |walk| {
                    walk.warning("unknown property, ignored".into(), hint);
                });
            }
        }
    }

    fn missing(&mut self, field: &Field, fields: &[Field], map: &Map<String, Value>) {
        let message = match &field.kind {
            Kind::Name { what, .. } => format!("invalid {what}: {:?} is required", field.name),
            _ => format!("{:?} is required", field.name),
        };
        let unknown = map
            .keys()
            .map(String::as_str)
            .filter(|key| fields.iter().all(|f| f.name != *key));
        let aliases = aliases(field.name);
        let hint = unknown
            .clone()
            .find(|key| aliases.contains(key))
            .or_else(|| nearest(field.name, unknown))
            .map(|key| format!("{key:?} is no property: did you mean {:?}?", field.name));
        match field.need {
            Need::Expected => self.warning(format!("{message}; read as zero"), hint),
            _ => self.error(message, hint),
        }
    }

    /// One finding for all sets that a misspelt capability stands in.
    fn left_out(&mut self, name: &str, place: &str, hint: Option<String>) {
        let message = format!("unknown capability {}, left out of ", quote(name));
        let set = self.pointer.rsplit('/').next().unwrap_or_default();
        let mut told = self.findings.0.iter_mut();
        match told.find(|finding| finding.message.starts_with(&message)) {
            Some(finding) if finding.message.ends_with(set) => {}
            Some(finding) => {
                finding.message.push_str(", ");
                finding.message.push_str(set);
            }
            None => {
                let message = message + set;
                self.below(place, |walk| walk.warning(message, hint));
            }
        }
    }

    fn capabilities(&mut self, items: &mut Vec<Value>) {
        if self.report == Report::Unknown {
            return;
        }
        let mut index = 0;
        items.retain(|item| {
            let place = index.to_string();
            index += 1;
            let Some(name) = item.as_str() else {
                let message = format!("expected a string, got {}", describe(item));
                self.below(&place, |walk| walk.error(message, None));
                return true;
            };
            // The crate takes names in any case, with and without prefix.
            let upper = name.to_ascii_uppercase();
            let bare = upper.trim_start_matches("CAP_");
            if is_known(bare, table::CAPABILITIES) {
                return true;
            }
            self.left_out(name, &place, near_capability(name));
            false
        });
    }
}

impl Kind {
    fn words(&self) -> &'static str {
        match self {
            Kind::Bool => "true or false",
            Kind::Integer(range) => range.words,
            Kind::Text | Kind::Cpus | Kind::Name { .. } | Kind::NameOrEmpty { .. } => "a string",
            Kind::List(_) | Kind::Capabilities => "an array",
            Kind::Map(_) | Kind::Object(_) => "an object",
            Kind::Foreign => "a value",
        }
    }

    /// What to write instead of a value of the wrong type, where that is plain.
    fn remedy(&self, value: &Value) -> Option<String> {
        match (self, value) {
            (Kind::Integer(range), Value::String(text)) => range.remedy(text),
            (Kind::Bool, Value::String(text)) if matches!(text.as_str(), "true" | "false") => {
                Some(format!("write {text} without quotes"))
            }
            (Kind::Bool, Value::Number(number)) => match number.as_i64() {
                Some(0) => Some("write false".into()),
                Some(1) => Some("write true".into()),
                _ => None,
            },
            (
                Kind::Text | Kind::Cpus | Kind::Name { .. } | Kind::NameOrEmpty { .. },
                Value::Number(_) | Value::Bool(_),
            ) => Some(format!("write \"{value}\" in quotes")),
            (Kind::List(item), Value::String(text)) if matches!(**item, Kind::Text) => {
                Some(format!("write [{}]", quote(text)))
            }
            (Kind::List(_), Value::Object(_)) => Some("put it in brackets: [{...}]".into()),
            _ => None,
        }
    }
}

fn is_known(name: &str, known: &str) -> bool {
    known.split(' ').any(|known| known == name)
}

fn is_list_of_cpus(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_digit() || b", -".contains(&byte);
    text.bytes().all(known)
}

impl Range {
    fn holds(&self, value: i128) -> bool {
        self.min <= value && value <= self.max
    }

    /// JSON has 1e9 and 5.0 as well, which the specification's types haven't.
    fn whole(&self, number: Option<f64>) -> Option<String> {
        // All below are exact.
        const LARGEST: f64 = 9_007_199_254_740_992.0;
        let number = number.filter(|number| number.abs() <= LARGEST)?;
        let whole = number.trunc() as i128;
        let fits = number.fract() == 0.0 && self.min <= whole && whole <= self.max;
        fits.then(|| format!("write {whole}"))
    }

    fn remedy(&self, text: &str) -> Option<String> {
        let text = text.trim();
        if matches!(text, "unlimited" | "infinity" | "max" | "RLIM_INFINITY") {
            return match self.min {
                0 => Some(format!("write {} for no limit", self.max)),
                _ => Some("write -1 for no limit".into()),
            };
        }
        if text.len() > 1
            && text.starts_with('0')
            && let Ok(mode) = i64::from_str_radix(text.trim_start_matches("0o"), 8)
        {
            return Some(format!("JSON numbers are decimal: {text} is {mode}"));
        }
        if text.parse::<i128>().is_ok() {
            return Some(format!("write {text} without quotes"));
        }
        habits::bytes(text)
    }
}

/// A value as it may stand in a message: short.
fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the string {}", quote(text)),
        Value::Array(_) => "an array".into(),
        Value::Object(_) => "an object".into(),
    }
}

/// Text from the document in quotes, cut to a length that fits a message.
pub fn quote(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}
