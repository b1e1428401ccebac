//! As much of the protocol buffers' encoding as CRIU's messages need: varints, and bytes with a length.
//! <https://protobuf.dev/programming-guides/encoding/>

use nix::errno::Errno;

/// The low three bits of a key.
const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const BYTES: u64 = 2;
const FIXED_32: u64 = 5;

/// A message being written. Fields that are not set have the default of CRIU's definition.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Message(Vec<u8>);

impl Message {
    /// Of types `uint32` and enumerations.
    pub fn number(&mut self, field: u32, value: u64) -> &mut Message {
        self.key(field, VARINT);
        self.varint(value);
        self
    }

    /// Of type `int32`: negative ones are written as 64 bits.
    pub fn signed(&mut self, field: u32, value: i32) -> &mut Message {
        self.number(field, i64::from(value) as u64)
    }

    /// Written only if it is set.
    pub fn flag(&mut self, field: u32, on: bool) -> &mut Message {
        match on {
            true => self.number(field, 1),
            false => self,
        }
    }

    pub fn text(&mut self, field: u32, text: impl AsRef<[u8]>) -> &mut Message {
        let text = text.as_ref();
        self.key(field, BYTES);
        self.varint(text.len() as u64);
        self.0.extend_from_slice(text);
        self
    }

    pub fn message(&mut self, field: u32, message: &Message) -> &mut Message {
        self.text(field, &message.0)
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn key(&mut self, field: u32, kind: u64) {
        self.varint(u64::from(field) << 3 | kind);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl Value<'_> {
    pub fn number(self) -> Option<u64> {
        match self {
            Value::Number(number) => Some(number),
            Value::Bytes(_) => None,
        }
    }

    /// `int32`, of which only the low bits count.
    pub fn signed(self) -> Option<i32> {
        self.number().map(|number| number as i32)
    }
}

/// The fields of a message, in their order. After an error there is nothing more.
#[derive(Debug, Clone)]
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub fn of(message: &'a [u8]) -> Fields<'a> {
        Fields(message)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let key = self.varint()?;
        let value = match key & 7 {
            VARINT => Value::Number(self.varint()?),
            BYTES => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            FIXED_64 => Value::Bytes(self.take(8)?),
            FIXED_32 => Value::Bytes(self.take(4)?),
            _ => return None,
        };
        Some((key >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    /// The field's number and its value; `EBADMSG` for bytes that are no message.
    type Item = nix::Result<(u64, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.ok_or(Errno::EBADMSG))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_definition() {
        let mut message = Message::default();
        message.number(1, 150);
        assert_eq!(message.bytes(), [0x08, 0x96, 0x01]);
        let mut text = Message::default();
        text.text(2, "testing");
        assert_eq!(text.bytes(), b"\x12\x07testing");
        let mut outer = Message::default();
        outer.message(3, &message);
        assert_eq!(outer.bytes(), [0x1a, 0x03, 0x08, 0x96, 0x01]);
        let mut signed = Message::default();
        signed.signed(1, -2);
        assert_eq!(signed.bytes().len(), 11);
    }

    #[test]
    fn what_was_written_is_read() {
        let mut message = Message::default();
        let mut inner = Message::default();
        inner.text(1, "post-restore").signed(2, -7);
        message
            .number(1, u64::MAX)
            .flag(2, true)
            .flag(3, false)
            .message(60, &inner);
        let fields: Vec<_> = Fields::of(message.bytes()).map(Result::unwrap).collect();
        assert_eq!(fields.len(), 3);
        assert_eq!(fields[0], (1, Value::Number(u64::MAX)));
        assert_eq!(fields[1], (2, Value::Number(1)));
        let Value::Bytes(inner) = fields[2].1 else {
            panic!("not a message");
        };
        let inner: Vec<_> = Fields::of(inner).map(Result::unwrap).collect();
        assert_eq!(inner[0], (1, Value::Bytes(b"post-restore")));
        assert_eq!(inner[1].1.signed(), Some(-7));
    }

    #[test]
    fn unknown_kinds_of_fields_are_passed_over_and_broken_ones_end_it() {
        let known: Vec<_> = Fields::of(b"\x09abcdefgh\x15abcd\x08\x01").collect();
        assert_eq!(known.len(), 3);
        assert_eq!(known[2], Ok((1, Value::Number(1))));
        for broken in [
            &b"\x08"[..],
            b"\x12\x05abcd",
            b"\x0b",
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ] {
            let fields: Vec<_> = Fields::of(broken).collect();
            assert_eq!(fields, [Err(Errno::EBADMSG)], "{broken:?}");
        }
    }
}
