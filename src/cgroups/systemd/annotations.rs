//! Properties that annotations ask for: `org.systemd.property.NAME`, its value in GVariant's text format.
//!
//! Who may write annotations may not be who may run things on the host: a unit can be told to start,
//! stop and execute (CVE-2024-3154). So only properties of this list are passed on.

use super::properties::Property;
use super::wire::Value;
use crate::error::{Error, Result, pointer_key};

pub const PREFIX: &str = "org.systemd.property.";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bool,
    Int,
    Number,
    Text,
    Bytes,
    Texts,
}

/// What only the container itself, its share of the machine or the time of its end depends on. `After` and
/// `Before` order; what would draw in, stop or start other units is not here, nor what takes the
/// unit from husk (`Slice`, `Delegate`, `RefuseManualStop`).
const ALLOWED: &[(&str, Kind)] = &[
    ("After", Kind::Texts),
    ("AllowedCPUs", Kind::Bytes),
    ("AllowedMemoryNodes", Kind::Bytes),
    ("Before", Kind::Texts),
    ("CPUAccounting", Kind::Bool),
    ("CPUQuotaPerSecUSec", Kind::Number),
    ("CPUQuotaPeriodUSec", Kind::Number),
    ("CPUWeight", Kind::Number),
    ("CollectMode", Kind::Text),
    ("DefaultDependencies", Kind::Bool),
    ("DefaultMemoryLow", Kind::Number),
    ("DefaultMemoryMin", Kind::Number),
    ("DefaultStartupMemoryLow", Kind::Number),
    ("Description", Kind::Text),
    ("FinalKillSignal", Kind::Int),
    ("IOAccounting", Kind::Bool),
    ("IOWeight", Kind::Number),
    ("IPAccounting", Kind::Bool),
    ("IgnoreOnIsolate", Kind::Bool),
    ("KillMode", Kind::Text),
    ("KillSignal", Kind::Int),
    ("ManagedOOMMemoryPressure", Kind::Text),
    ("ManagedOOMPreference", Kind::Text),
    ("ManagedOOMSwap", Kind::Text),
    ("MemoryAccounting", Kind::Bool),
    ("MemoryHigh", Kind::Number),
    ("MemoryLow", Kind::Number),
    ("MemoryMax", Kind::Number),
    ("MemoryMin", Kind::Number),
    ("MemorySwapMax", Kind::Number),
    ("MemoryZSwapMax", Kind::Number),
    ("MemoryZSwapWriteback", Kind::Bool),
    ("OOMPolicy", Kind::Text),
    ("PartOf", Kind::Texts),
    ("RuntimeMaxUSec", Kind::Number),
    ("RuntimeRandomizedExtraUSec", Kind::Number),
    ("SendSIGHUP", Kind::Bool),
    ("SendSIGKILL", Kind::Bool),
    ("StartupAllowedCPUs", Kind::Bytes),
    ("StartupAllowedMemoryNodes", Kind::Bytes),
    ("StartupCPUWeight", Kind::Number),
    ("StartupIOWeight", Kind::Number),
    ("StartupMemoryHigh", Kind::Number),
    ("StartupMemoryLow", Kind::Number),
    ("StartupMemoryMax", Kind::Number),
    ("StartupMemorySwapMax", Kind::Number),
    ("StartupMemoryZSwapMax", Kind::Number),
    ("TasksAccounting", Kind::Bool),
    ("TasksMax", Kind::Number),
    ("TimeoutStopUSec", Kind::Number),
];

/// The property of an annotation; `None` if it is about something else.
///
/// # Errors
/// A property that isn't allowed, a value that isn't of its type.
pub fn property(key: &str, value: &str) -> Result<Option<Property>> {
    let Some(given) = key.strip_prefix(PREFIX) else {
        return Ok(None);
    };
    let pointer = format!("/annotations/{}", pointer_key(key));
    let fail = |reason: String| Error::config(pointer.as_str(), reason);
    if given.len() < 3 || !given.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return Err(fail(format!(
            "{given:?} is no name of a property: it takes three letters or more, and nothing else"
        )));
    }
    // As unit files spell times: in seconds.
    let seconds = given
        .strip_suffix("Sec")
        .filter(|stem| !stem.ends_with('U'));
    let name = match seconds {
        Some(stem) => format!("{stem}USec"),
        None => given.to_owned(),
    };
    let allowed = ALLOWED.iter().find(|(allowed, _)| *allowed == name);
    let Some((_, kind)) = allowed else {
        return Err(fail(format!(
            "systemd's property {given} may not be set by a configuration"
        ))
        .hint(
            "what makes systemd run something, touch other units or leave the container's \
             to others is refused",
        ));
    };
    let parsed = Parser::parse(value)
        .ok_or_else(|| fail(format!("{value:?} is no value in GVariant's text format")))?;
    let parsed = match seconds {
        Some(_) => parsed.microseconds(),
        None => Some(parsed),
    };
    let value = parsed
        .and_then(|parsed| parsed.into_value(*kind))
        .ok_or_else(|| fail(format!("{value:?} is not {}", kind.words())))?;
    Ok(Some(Property {
        name,
        value,
        pointer,
    }))
}

impl Kind {
    fn words(self) -> &'static str {
        match self {
            Kind::Bool => "a boolean: true or false",
            Kind::Int => "an integer of 32 bits",
            Kind::Number => "a positive integer of 64 bits",
            Kind::Text => "a string in quotes",
            Kind::Bytes => "a list of bytes such as [byte 0x01]",
            Kind::Texts => "a list of strings in quotes",
        }
    }
}

/// What a text may be. Types are told by the property, so a type that is given has no say.
#[derive(Debug, Clone, PartialEq)]
enum Parsed {
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Parsed>),
}

impl Parsed {
    /// From seconds.
    fn microseconds(self) -> Option<Parsed> {
        match self {
            Parsed::Integer(seconds) => seconds.checked_mul(1_000_000).map(Parsed::Integer),
            Parsed::Float(seconds) if (0.0..1e13).contains(&seconds) => {
                Some(Parsed::Integer((seconds * 1e6).round() as i128))
            }
            _ => None,
        }
    }

    fn into_value(self, kind: Kind) -> Option<Value> {
        Some(match (kind, self) {
            (Kind::Bool, Parsed::Bool(value)) => Value::Bool(value),
            (Kind::Int, Parsed::Integer(value)) => Value::Int(value.try_into().ok()?),
            (Kind::Number, Parsed::Integer(value)) => Value::Number(value.try_into().ok()?),
            (Kind::Text, Parsed::Text(value)) => Value::Text(value),
            (Kind::Bytes, Parsed::List(list)) => Value::Bytes(
                list.into_iter()
                    .map(|one| match one {
                        Parsed::Integer(value) => value.try_into().ok(),
                        _ => None,
                    })
                    .collect::<Option<_>>()?,
            ),
            (Kind::Texts, Parsed::List(list)) => Value::Texts(
                list.into_iter()
                    .map(|one| match one {
                        Parsed::Text(value) => Some(value),
                        _ => None,
                    })
                    .collect::<Option<_>>()?,
            ),
            _ => return None,
        })
    }
}

/// GVariant's text format, without tuples, dictionaries and maybes, which no property here is.
struct Parser<'a> {
    rest: &'a str,
}

/// They stand before a value.
const TYPES: &[&str] = &[
    "boolean", "byte", "int16", "uint16", "int32", "uint32", "int64", "uint64", "handle", "double",
    "string",
];

impl Parser<'_> {
    fn parse(text: &str) -> Option<Parsed> {
        let mut parser = Parser { rest: text };
        let value = parser.value(true)?;
        parser.rest.trim_start().is_empty().then_some(value)
    }

    fn word(&mut self, belongs: impl Fn(char) -> bool) -> &str {
        let end = self.rest.find(|c| !belongs(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    /// With its type, if that is given.
    fn value(&mut self, list_allowed: bool) -> Option<Parsed> {
        self.rest = self.rest.trim_start();
        if self.rest.starts_with('@') {
            self.word(|c| !c.is_whitespace());
        } else if let Some((word, rest)) = self.rest.split_once(char::is_whitespace)
            && TYPES.contains(&word)
        {
            self.rest = rest;
        }
        self.rest = self.rest.trim_start();
        match self.rest.chars().next()? {
            quote @ ('\'' | '"') => self.text(quote).map(Parsed::Text),
            // One in another is no property's.
            '[' if list_allowed => self.list(),
            c if c.is_ascii_alphabetic() => match self.word(|c| c.is_ascii_alphanumeric()) {
                "true" => Some(Parsed::Bool(true)),
                "false" => Some(Parsed::Bool(false)),
                _ => None,
            },
            _ => number(self.word(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))),
        }
    }

    fn list(&mut self) -> Option<Parsed> {
        let mut list = Vec::new();
        self.rest = self.rest.strip_prefix('[')?.trim_start();
        if let Some(rest) = self.rest.strip_prefix(']') {
            self.rest = rest;
            return Some(Parsed::List(list));
        }
        loop {
            list.push(self.value(false)?);
            self.rest = self.rest.trim_start();
            let mut chars = self.rest.chars();
            let next = chars.next()?;
            self.rest = chars.as_str();
            match next {
                ',' => {}
                ']' => return Some(Parsed::List(list)),
                _ => return None,
            }
        }
    }

    fn text(&mut self, quote: char) -> Option<String> {
        let mut chars = self.rest.chars();
        chars.next();
        let mut text = String::new();
        loop {
            let c = match chars.next()? {
                c if c == quote => break,
                '\\' => match chars.next()? {
                    'u' => unicode(&mut chars, 4)?,
                    'U' => unicode(&mut chars, 8)?,
                    c if c.is_ascii_alphanumeric() => return None,
                    c => c,
                },
                c => c,
            };
            // systemd writes texts into a unit file, some of its versions as they are: the next line would be a
            // setting of its own, and all that isn't in the list could be said there.
            if c.is_control() {
                return None;
            }
            text.push(c);
        }
        self.rest = chars.as_str();
        Some(text)
    }
}

fn unicode(chars: &mut std::str::Chars, digits: usize) -> Option<char> {
    let mut number = 0u32;
    for _ in 0..digits {
        number = number.checked_mul(16)? + chars.next()?.to_digit(16)?;
    }
    char::from_u32(number)
}

fn number(word: &str) -> Option<Parsed> {
    let (sign, digits) = match word.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, word.strip_prefix('+').unwrap_or(word)),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    if let Some(hex) = digits.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16)
            .ok()
            .map(|value| Parsed::Integer(sign * i128::from(value)));
    }
    if let Ok(value) = digits.parse::<u64>() {
        return Some(Parsed::Integer(sign * i128::from(value)));
    }
    let value: f64 = digits.parse().ok()?;
    value
        .is_finite()
        .then_some(Parsed::Float(sign as f64 * value))
}

#[cfg(test)]
mod tests;
