//! JSON text to a value, with duplicate keys refused and the place of an error as a pointer.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::error::pointer_key;

/// The document; in an error `pointer` tells the value in which reading ended.
pub fn read(raw: &[u8], pointer: &mut String) -> serde_json::Result<Value> {
    let mut reader = serde_json::Deserializer::from_slice(raw);
    let value = Strict { pointer, key: None }.deserialize(&mut reader)?;
    reader.end().map(|()| value)
}

/// The value in which the type that told `error` refused `raw`, one line of JSON.
pub fn pointer(raw: &[u8], error: &serde_json::Error) -> String {
    let mut pointer = String::new();
    let end = error.column().min(raw.len());
    // The last byte that was read: of the value that is refused, or before it.
    let kept = match raw[..end].last() {
        Some(b':' | b',' | b'[') => end,
        _ => end.saturating_sub(1),
    };
    let mut text = raw[..kept].to_vec();
    let told = error.to_string();
    // Of a whole object or array its end is refused. In any other value reading ends, too, at a
    // point in the place of that byte: no value ends in one.
    if !told.starts_with("missing field") && !told.starts_with("invalid length") {
        text.push(b'.');
    }
    let _ = read(&text, &mut pointer);
    pointer
}

/// `serde_json::Value`, but a key may stand only once in an object: of two, runtimes differ in
/// which one they take (RFC 8259, section 4).
struct Strict<'p, 'k> {
    /// Of the value around.
    pointer: &'p mut String,
    key: Option<Key<'k>>,
}

enum Key<'k> {
    Name(&'k str),
    Index(usize),
}

impl<'de> DeserializeSeed<'de> for Strict<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let pointer = self.pointer;
        let length = pointer.len();
        match self.key {
            Some(Key::Name(name)) => pointer.extend(["/", &pointer_key(name)]),
            Some(Key::Index(index)) => pointer.extend(["/", &index.to_string()]),
            None => {}
        }
        let value = deserializer.deserialize_any(StrictVisitor { pointer })?;
        // Not after an error: then it tells where.
        pointer.truncate(length);
        Ok(value)
    }
}

struct StrictVisitor<'p> {
    pointer: &'p mut String,
}

impl<'de> Visitor<'de> for StrictVisitor<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let pointer = self.pointer;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(Strict {
            key: Some(Key::Index(items.len())),
            pointer: &mut *pointer,
        })? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let pointer = self.pointer;
        let mut entries = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if entries.contains_key(&key) {
                return Err(A::Error::custom(format_args!(
                    "the key {key:?} stands here twice"
                )));
            }
            let value = map.next_value_seed(Strict {
                key: Some(Key::Name(&key)),
                pointer: &mut *pointer,
            })?;
            entries.insert(key, value);
        }
        Ok(Value::Object(entries))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    #[test]
    fn what_a_type_refuses_has_its_pointer() {
        type Type = BTreeMap<String, Vec<(u8, String)>>;
        for (text, pointer, message) in [
            (r#"{"a":[[1,"x"],["2","y"]]}"#, "/a/1/0", "invalid type"),
            (r#"{"a":[[1,2]]}"#, "/a/0/1", "invalid type: integer `2`"),
            (r#"{"a/b":[[300,""]],"c":[]}"#, "/a~1b/0/0", "invalid value"),
            (r#"{"a":[],"c":[[1]]}"#, "/c/0", "invalid length 1"),
            (r#"{"a":{"b":1}}"#, "/a", "invalid type: map"),
            ("5", "", "invalid type: integer `5`, expected a map"),
        ] {
            let error = serde_json::from_str::<Type>(text).unwrap_err();
            assert_eq!(super::pointer(text.as_bytes(), &error), pointer, "{text}");
            assert!(error.to_string().starts_with(message), "{error}");
        }
        #[derive(Debug, serde::Deserialize)]
        struct Named {
            #[allow(dead_code)]
            name: String,
        }
        for text in [r#"{"a":{"x":{"b":1}}}"#, r#"{"a":{"x":{}},"b":{}}"#] {
            let refused = serde_json::from_str::<BTreeMap<String, BTreeMap<String, Named>>>(text);
            let error = refused.unwrap_err();
            assert_eq!(super::pointer(text.as_bytes(), &error), "/a/x", "{error}");
        }
    }
}
