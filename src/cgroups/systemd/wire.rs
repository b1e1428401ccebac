//! D-Bus messages as bytes: as much of the D-Bus specification's "Message Protocol" as the calls to
//! systemd take. What comes in is somebody else's: every length is compared with what is there.

/// A value of a property, with the types that systemd's unit properties have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Bool(bool),
    Int(i32),
    Number(u64),
    Text(String),
    Bytes(Vec<u8>),
    Texts(Vec<String>),
    Pids(Vec<u32>),
    /// A device's path, and its share or rate.
    PerDevice(Vec<(String, u64)>),
}

impl Value {
    fn signature(&self) -> &'static str {
        match self {
            Value::Bool(_) => "b",
            Value::Int(_) => "i",
            Value::Number(_) => "t",
            Value::Text(_) => "s",
            Value::Bytes(_) => "ay",
            Value::Texts(_) => "as",
            Value::Pids(_) => "au",
            Value::PerDevice(_) => "a(st)",
        }
    }
}

/// Marshals, in little endian.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    fn byte(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub fn u32(&mut self, value: u32) {
        self.align(4);
        self.bytes.extend(value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.align(8);
        self.bytes.extend(value.to_le_bytes());
    }

    pub fn bool(&mut self, value: bool) {
        self.u32(value.into());
    }

    /// No caller has strings of 4 GiB.
    pub fn text(&mut self, value: &str) {
        self.u32(value.len() as u32);
        self.bytes.extend(value.as_bytes());
        self.byte(0);
    }

    fn signature(&mut self, value: &str) {
        self.byte(value.len() as u8);
        self.bytes.extend(value.as_bytes());
        self.byte(0);
    }

    /// `alignment` is that of the elements: there is padding before the first one also where there is none.
    pub fn array(&mut self, alignment: usize, elements: impl FnOnce(&mut Writer)) {
        self.u32(0);
        let length = self.bytes.len() - 4;
        self.align(alignment);
        let begin = self.bytes.len();
        elements(self);
        let size = (self.bytes.len() - begin) as u32;
        self.bytes[length..length + 4].copy_from_slice(&size.to_le_bytes());
    }

    pub fn structure(&mut self, fields: impl FnOnce(&mut Writer)) {
        self.align(8);
        fields(self);
    }

    pub fn variant(&mut self, value: &Value) {
        self.signature(value.signature());
        match value {
            Value::Bool(value) => self.bool(*value),
            Value::Int(value) => self.u32(*value as u32),
            Value::Number(value) => self.u64(*value),
            Value::Text(value) => self.text(value),
            Value::Bytes(list) => self.array(1, |writer| writer.bytes.extend(list)),
            Value::Texts(list) => self.array(4, |writer| {
                list.iter().for_each(|text| writer.text(text));
            }),
            Value::Pids(list) => self.array(4, |writer| {
                list.iter().for_each(|pid| writer.u32(*pid));
            }),
            Value::PerDevice(list) => self.array(8, |writer| {
                for (device, value) in list {
                    writer.structure(|writer| {
                        writer.text(device);
                        writer.u64(*value);
                    });
                }
            }),
        }
    }
}

/// A method call: whose, which, and the types of what its body holds.
#[derive(Debug)]
pub struct Call<'a> {
    pub destination: &'a str,
    pub path: &'a str,
    pub interface: &'a str,
    pub member: &'a str,
    pub signature: &'a str,
}

const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SENDER: u8 = 7;
const SIGNATURE: u8 = 8;

impl Call<'_> {
    /// The whole message. `serial` is not 0.
    pub fn encode(&self, serial: u32, body: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut arguments = Writer::default();
        body(&mut arguments);
        let mut writer = Writer::default();
        writer.bytes.extend([b'l', METHOD_CALL, 0, 1]);
        writer.u32(arguments.bytes.len() as u32);
        writer.u32(serial);
        writer.array(8, |writer| {
            for (field, kind, text) in [
                (PATH, "o", self.path),
                (DESTINATION, "s", self.destination),
                (INTERFACE, "s", self.interface),
                (MEMBER, "s", self.member),
            ] {
                writer.structure(|writer| {
                    writer.byte(field);
                    writer.signature(kind);
                    writer.text(text);
                });
            }
            if !self.signature.is_empty() {
                writer.structure(|writer| {
                    writer.byte(SIGNATURE);
                    writer.signature("g");
                    writer.signature(self.signature);
                });
            }
        });
        // A body begins at a multiple of eight, so it can be marshalled by itself.
        writer.align(8);
        writer.bytes.append(&mut arguments.bytes);
        writer.bytes
    }
}

/// Unmarshals. `None` is the end, or nonsense.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big_endian: bool,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8], big_endian: bool) -> Self {
        Reader {
            bytes,
            at: 0,
            big_endian,
        }
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn align(&mut self, to: usize) -> Option<()> {
        let padding = self.at.next_multiple_of(to) - self.at;
        self.take(padding).map(drop)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn number<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.align(N)?;
        let mut bytes: [u8; N] = self.take(N)?.try_into().ok()?;
        if self.big_endian {
            bytes.reverse();
        }
        Some(bytes)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.number().map(u32::from_le_bytes)
    }

    /// Of a string or an object's path.
    pub fn text(&mut self) -> Option<&'a str> {
        let length = self.u32()? as usize;
        self.terminated(length)
    }

    fn signature(&mut self) -> Option<&'a str> {
        let length = self.byte()?.into();
        self.terminated(length)
    }

    fn terminated(&mut self, length: usize) -> Option<&'a str> {
        let bytes = self.take(length.checked_add(1)?)?;
        let (end, text) = bytes.split_last()?;
        (*end == 0).then(|| std::str::from_utf8(text).ok())?
    }

    /// A variant that holds a string.
    pub fn text_variant(&mut self) -> Option<&'a str> {
        (self.signature()? == "s").then(|| self.text())?
    }

    /// Steps over a value of a simple type: header fields have no others.
    fn skip(&mut self, kind: &str) -> Option<()> {
        match kind {
            "y" => self.byte().map(drop),
            "n" | "q" => self.number::<2>().map(drop),
            "b" | "i" | "u" | "h" => self.u32().map(drop),
            "x" | "t" | "d" => self.number::<8>().map(drop),
            "s" | "o" => self.text().map(drop),
            "g" => self.signature().map(drop),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Reply,
    Error,
    Signal,
    /// A call, which nobody here answers, or what a later protocol brings.
    Other,
}

/// A received message.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    pub kind: Kind,
    pub reply_to: Option<u32>,
    pub interface: String,
    pub member: String,
    /// The name of an error.
    pub error: String,
    /// Who said it, in the words of the bus; empty where there is none in between.
    pub sender: String,
    pub signature: String,
    body: Vec<u8>,
    big_endian: bool,
}

/// The part of a message that tells its length.
pub const FIXED: usize = 16;

/// The length of the whole message, from its first [`FIXED`] bytes.
pub fn length(fixed: &[u8; FIXED]) -> Option<usize> {
    // "The maximum length of a message, including header, header alignment padding, and body is 2 to
    // the 27th power."
    const LONGEST: usize = 1 << 27;
    let big_endian = match fixed[0] {
        b'l' => false,
        b'B' => true,
        _ => return None,
    };
    if fixed[3] != 1 {
        return None;
    }
    let mut reader = Reader::new(&fixed[4..], big_endian);
    let body = reader.u32()? as usize;
    reader.u32()?;
    let fields = reader.u32()? as usize;
    let length = FIXED
        .checked_add(fields)?
        .checked_next_multiple_of(8)?
        .checked_add(body)?;
    (length <= LONGEST).then_some(length)
}

impl Message {
    /// From a whole message, as [`length`] measures it.
    pub fn decode(bytes: &[u8]) -> Option<Message> {
        let fixed: &[u8; FIXED] = bytes.get(..FIXED)?.try_into().ok()?;
        if length(fixed)? != bytes.len() {
            return None;
        }
        let big_endian = fixed[0] == b'B';
        let mut reader = Reader::new(bytes, big_endian);
        reader.take(4)?;
        let body = reader.u32()? as usize;
        reader.u32()?;
        let end = (reader.u32()? as usize).checked_add(FIXED)?;
        let mut message = Message {
            kind: match fixed[1] {
                METHOD_RETURN => Kind::Reply,
                ERROR => Kind::Error,
                SIGNAL => Kind::Signal,
                0 => return None,
                _ => Kind::Other,
            },
            reply_to: None,
            interface: String::new(),
            member: String::new(),
            error: String::new(),
            sender: String::new(),
            signature: String::new(),
            body: bytes.get(bytes.len().checked_sub(body)?..)?.to_vec(),
            big_endian,
        };
        while reader.at < end {
            reader.align(8)?;
            let field = reader.byte()?;
            let kind = reader.signature()?;
            match (field, kind) {
                (REPLY_SERIAL, "u") => message.reply_to = Some(reader.u32()?),
                (INTERFACE, "s") => message.interface = reader.text()?.to_owned(),
                (MEMBER, "s") => message.member = reader.text()?.to_owned(),
                (ERROR_NAME, "s") => message.error = reader.text()?.to_owned(),
                (SENDER, "s") => message.sender = reader.text()?.to_owned(),
                (SIGNATURE, "g") => message.signature = reader.signature()?.to_owned(),
                (_, other) => reader.skip(other)?,
            }
        }
        (reader.at == end).then_some(message)
    }

    pub fn body(&self) -> Reader<'_> {
        Reader::new(&self.body, self.big_endian)
    }

    /// What an error says in words.
    pub fn words(&self) -> String {
        match self.signature.starts_with('s') {
            true => self.body().text().unwrap_or_default().to_owned(),
            false => String::new(),
        }
    }
}

#[cfg(test)]
mod tests;
