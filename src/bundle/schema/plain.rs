//! Whether there is anything to say about a document: one pass over its text, which keeps nothing. Almost all
//! documents need no other.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::{Field, Kind, Need};

/// Whether [`super::walk`] would find nothing to report of unknown properties. False also where it takes more than
/// a pass to tell: of nulls, of other platforms, of keys with escapes.
pub fn is_plain(kind: &Kind, text: &str) -> bool {
    let mut reader = serde_json::Deserializer::from_str(text);
    Plain(kind).deserialize(&mut reader).is_ok() && reader.end().is_ok()
}

struct Plain<'k>(&'k Kind);

impl<'de> DeserializeSeed<'de> for Plain<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

fn told<E: Error>(is_plain: bool) -> Result<(), E> {
    match is_plain {
        true => Ok(()),
        false => Err(E::custom("not plain")),
    }
}

impl<'de> Visitor<'de> for Plain<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.words())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        told(matches!(self.0, Kind::Bool))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        told(matches!(self.0, Kind::Integer(range) if range.holds(value.into())))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        told(matches!(self.0, Kind::Integer(range) if range.holds(value.into())))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        told(match self.0 {
            Kind::Text => true,
            Kind::Name { known, .. } => super::is_known(value, known),
            Kind::NameOrEmpty { known, .. } => value.is_empty() || super::is_known(value, known),
            Kind::Cpus => super::is_list_of_cpus(value),
            _ => false,
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let item = match self.0 {
            Kind::List(item) => item,
            // Which exist was looked at before.
            Kind::Capabilities => &Kind::Text,
            _ => return told(false),
        };
        while items.next_element_seed(Plain(item))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        match self.0 {
            Kind::Object(fields) => object(fields, entries),
            Kind::Map(kind) => {
                let mut keys = Vec::new();
                while let Some(key) = entries.next_key::<&str>()? {
                    keys.push(key);
                    entries.next_value_seed(Plain(kind))?;
                }
                keys.sort_unstable();
                told(keys.windows(2).all(|pair| pair[0] != pair[1]))
            }
            _ => told(false),
        }
    }
}

fn object<'de, A: MapAccess<'de>>(fields: &[Field], mut entries: A) -> Result<(), A::Error> {
    // A bit each: no object has more fields.
    let mut seen = 0_u64;
    while let Some(key) = entries.next_key::<&str>()? {
        let Some(index) = fields.iter().position(|field| field.name == key) else {
            return told(false);
        };
        let bit = 1_u64.checked_shl(index as u32).unwrap_or(0);
        told(bit != 0 && seen & bit == 0)?;
        seen |= bit;
        entries.next_value_seed(Plain(&fields[index].kind))?;
    }
    let missing = |(index, field): (usize, &Field)| {
        let is_needed = match field.need {
            Need::Optional | Need::Expected => false,
            Need::Required => true,
            Need::RequiredUnlessEmpty => seen != 0,
        };
        is_needed && seen >> index & 1 == 0
    };
    told(!fields.iter().enumerate().any(missing))
}
