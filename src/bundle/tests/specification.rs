//! The specification's JSON schemas, walked: every property has the type, the names and the range that they
//! say.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::*;

/// The files of `schema/`, without the other platforms'.
pub struct Schemas(BTreeMap<String, Value>);

/// A place in a document: `-` stands for an item of a list, `*` for a key that is free.
pub struct Place<'a> {
    pub pointer: String,
    pub schema: &'a Value,
}

pub fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

impl Schemas {
    pub fn load() -> Schemas {
        let dir = home().join("integration/data/spec-fixtures");
        let files = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let files = files.filter(|path| path.extension().is_some_and(|e| e == "json"));
        Schemas(
            files
                .map(|path| {
                    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                    let mut schema = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
                    let whole = Value::clone(&schema);
                    unite(&whole, &mut schema);
                    (name, schema)
                })
                .collect(),
        )
    }

    /// Where `$ref` leads; `None` for a file of another platform.
    fn resolve<'a>(&'a self, file: &'a str, schema: &'a Value) -> Option<(&'a str, &'a Value)> {
        let chosen = schema.pointer("/anyOf/0").unwrap_or(schema);
        let Some(reference) = chosen.get("$ref").and_then(Value::as_str) else {
            return Some((file, chosen));
        };
        let (other, pointer) = reference.split_once('#').unwrap();
        let file = if other.is_empty() { file } else { other };
        let target = self.0.get(file)?.pointer(pointer).unwrap();
        self.resolve(file, target)
    }

    /// All places of the documents that this schema describes.
    pub fn places(&self, file: &str) -> Vec<Place<'_>> {
        let mut places = Vec::new();
        let (file, schema) = self.0.get_key_value(file).unwrap();
        self.collect(file, schema, "", &mut places);
        places
    }

    fn collect<'a>(
        &'a self,
        file: &'a str,
        schema: &'a Value,
        pointer: &str,
        places: &mut Vec<Place<'a>>,
    ) {
        let Some((file, schema)) = self.resolve(file, schema) else {
            return;
        };
        if !pointer.is_empty() {
            let pointer = pointer.to_owned();
            places.push(Place { pointer, schema });
        }
        let properties = schema.get("properties").and_then(Value::as_object);
        for (name, schema) in properties.into_iter().flatten() {
            self.collect(file, schema, &format!("{pointer}/{name}"), places);
        }
        for (key, step) in [("items", "-"), ("additionalProperties", "*")] {
            if let Some(schema) = schema.get(key) {
                self.collect(file, schema, &format!("{pointer}/{step}"), places);
            }
        }
    }

    /// The smallest value that the schema allows.
    fn smallest(&self, file: &str, schema: &Value) -> Value {
        let Some((file, schema)) = self.resolve(file, schema) else {
            return Value::Null;
        };
        if let Some(name) = schema.pointer("/enum/0") {
            return name.clone();
        }
        match kind(schema) {
            "object" => {
                let required = schema.get("required").and_then(Value::as_array);
                let names = required.into_iter().flatten().filter_map(Value::as_str);
                let smallest = |name| self.smallest(file, &schema["properties"][name]);
                Value::Object(
                    names
                        .map(|name| (name.to_owned(), smallest(name)))
                        .collect(),
                )
            }
            "array" => json!([]),
            "boolean" => json!(true),
            "integer" => json!(1),
            _ => match schema.get("pattern").and_then(Value::as_str) {
                Some("^[cbup]$") => json!("c"),
                Some("^RLIMIT_[A-Z]+$") => json!("RLIMIT_NOFILE"),
                Some("^[1-9][0-9]*[KMG]B$") => json!("2MB"),
                _ => json!("/x"),
            },
        }
    }

    /// A document with `value` at that place, and what has to be there beside it.
    fn document(&self, file: &str, pointer: &str, value: Value) -> Value {
        let (file, schema) = self.0.get_key_value(file).unwrap();
        let steps: Vec<&str> = pointer.split('/').skip(1).collect();
        self.around(file, schema, &steps, value)
    }

    fn around(&self, file: &str, schema: &Value, steps: &[&str], value: Value) -> Value {
        let Some((step, rest)) = steps.split_first() else {
            return value;
        };
        let (file, schema) = self.resolve(file, schema).unwrap();
        match *step {
            "-" => json!([self.around(file, &schema["items"], rest, value)]),
            "*" => json!({ "x": self.around(file, &schema["additionalProperties"], rest, value) }),
            name => {
                let mut around = self.smallest(file, schema);
                let inner = &schema["properties"][name];
                around[name] = self.around(file, inner, rest, value);
                around
            }
        }
    }
}

/// Puts what `allOf` demands into the schema itself.
fn unite(whole: &Value, schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            for part in map
                .remove("allOf")
                .iter()
                .flat_map(|all| all.as_array().unwrap())
            {
                let local = part.get("$ref").and_then(Value::as_str);
                let part = match local {
                    Some(reference) => whole.pointer(reference.trim_start_matches('#')).unwrap(),
                    None => part,
                };
                let mut united = Value::Object(std::mem::take(map));
                merge(&mut united, part.clone());
                *map = united.as_object().unwrap().clone();
            }
            map.values_mut().for_each(|schema| unite(whole, schema));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| unite(whole, item)),
        _ => {}
    }
}

/// The type; some schemas of objects don't say it.
fn kind(schema: &Value) -> &str {
    match schema.get("type").and_then(Value::as_str) {
        Some(kind) => kind,
        None if schema.get("properties").is_some() => "object",
        None => "string",
    }
}

/// The errors of a sound configuration with `value` at that place, which stand there.
fn complaints(schemas: &Schemas, pointer: &str, value: Value) -> Vec<String> {
    let mut config: Value = serde_json::from_str(BASE).unwrap();
    merge(
        &mut config,
        schemas.document("config-schema.json", pointer, value),
    );
    let here = pointer.replace("/-", "/0").replace("/*", "/x");
    let found = errors(config.to_string().as_bytes());
    found
        .into_iter()
        .filter(|error| error.pointer == here)
        .map(|error| error.message)
        .collect()
}

#[test]
fn every_property_has_its_type() {
    let schemas = Schemas::load();
    let places = schemas.places("config-schema.json");
    assert!(places.len() > 250, "{}", places.len());
    for Place { pointer, schema } in places {
        // Windows' alone; ignored.
        if pointer == "/process/commandLine" {
            continue;
        }
        let wrong = match kind(schema) {
            "object" | "array" => json!("text"),
            _ => json!({ "an": "object" }),
        };
        let found = complaints(&schemas, &pointer, wrong);
        assert!(found.len() == 1, "{pointer}: {found:?}");
        assert!(found[0].starts_with("expected "), "{pointer}: {found:?}");
    }
}

#[test]
fn every_closed_set_of_names_is_closed() {
    let schemas = Schemas::load();
    let mut sets = 0;
    for Place { pointer, schema } in schemas.places("config-schema.json") {
        let names = schema.get("enum").and_then(Value::as_array);
        if names.is_none() && schema.get("pattern").is_none() {
            continue;
        }
        sets += 1;
        for name in names.into_iter().flatten() {
            let mut found = complaints(&schemas, &pointer, name.clone());
            // What a rule says about it, with what is beside it, is another thing.
            found.retain(|message| message.starts_with("invalid "));
            assert!(found.is_empty(), "{pointer} {name}: {found:?}");
        }
        let found = complaints(&schemas, &pointer, json!("?"));
        assert!(!found.is_empty(), "{pointer} takes everything");
    }
    assert!(sets >= 19, "{sets}");
}

#[test]
fn every_number_has_its_range() {
    let schemas = Schemas::load();
    for Place { pointer, schema } in schemas.places("config-schema.json") {
        // In the schema nine bits; the kernel knows three more of a mode.
        if kind(schema) != "integer" || pointer.ends_with("/fileMode") {
            continue;
        }
        let bound = |key: &str| {
            let bound = schema.get(key)?;
            bound
                .as_i64()
                .map(i128::from)
                .or(bound.as_u64().map(i128::from))
        };
        let beyond = [
            bound("minimum").map(|n| n - 1),
            bound("maximum").map(|n| n + 1),
        ];
        for number in beyond.into_iter().flatten() {
            let number: Value = serde_json::from_str(&number.to_string()).unwrap();
            let found = complaints(&schemas, &pointer, number.clone());
            assert!(!found.is_empty(), "{pointer}: {number} is taken");
        }
    }
}
