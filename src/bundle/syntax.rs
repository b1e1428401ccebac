//! The slow reader: JSON text to a value, with syntax errors explained.

use serde_json::Value;
use serde_json::error::Category;

use super::{Finding, Findings, did_you_mean, strict};
use crate::error::pointer_key;

/// Appends a key to a JSON pointer.
pub fn child(pointer: &str, key: &str) -> String {
    format!("{pointer}/{}", pointer_key(key))
}

/// The document as a value. `None` if `findings` tell what is wrong with it.
pub fn read(raw: &[u8], findings: &mut Findings) -> Option<Value> {
    let mut pointer = String::new();
    match strict::read(raw, &mut pointer) {
        Ok(value) => Some(value),
        Err(error) => {
            findings.push(explain(raw, &error, pointer));
            None
        }
    }
}

/// What is wrong with the text, where, and what should stand there.
fn explain(raw: &[u8], error: &serde_json::Error, pointer: String) -> Finding {
    if raw.iter().all(u8::is_ascii_whitespace) {
        return Finding::error("", "the file is empty");
    }
    if let Some(encoding) = foreign_encoding(raw) {
        return Finding::error("", encoding.0).hint(encoding.1);
    }
    let (line, column) = (error.line(), error.column());
    let at = format!("line {line} column {column}");
    let told = told(error);
    if error.classify() == Category::Data {
        return Finding::error(pointer, format!("{at}: {told}"));
    }
    let place = Place::find(raw, line, column);
    let (message, hint) = place.explain(&told);
    let at = format!("line {} column {}", place.line, place.column);
    Finding::error(pointer, format!("{at}: {message}")).maybe_hint(hint)
}

/// The error without its place.
pub fn told(error: &serde_json::Error) -> String {
    let mut text = error.to_string();
    let at = format!(" at line {} column {}", error.line(), error.column());
    if text.ends_with(&at) {
        text.truncate(text.len() - at.len());
    }
    text
}

fn foreign_encoding(raw: &[u8]) -> Option<(&'static str, &'static str)> {
    match raw {
        [0xef, 0xbb, 0xbf, ..] => Some((
            "the file starts with a byte order mark, which JSON does not allow",
            "remove its first three bytes, EF BB BF",
        )),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, b'{', 0, ..] | [b'{', 0, _, 0, ..] => Some((
            "the file is not UTF-8 but UTF-16",
            "convert it with iconv -f UTF-16 -t UTF-8",
        )),
        [0x1f, 0x8b, ..] => Some(("the file is compressed by gzip", "unpack it with gunzip")),
        _ if raw.starts_with(b"---\n") || is_yaml(raw) => Some((
            "the file is not JSON; it looks like YAML",
            "convert it: config.json is JSON, with braces and double quotes",
        )),
        _ => None,
    }
}

/// `ociVersion: 1.0.0`, and no brace before.
fn is_yaml(raw: &[u8]) -> bool {
    let mut lines = raw.split(|byte| *byte == b'\n');
    let first = lines.find(|line| !line.trim_ascii().is_empty() && line[0] != b'#');
    first.is_some_and(|line| {
        let end = line.iter().position(|byte| !byte.is_ascii_alphanumeric());
        let (name, rest) = line.split_at(end.unwrap_or(line.len()));
        !name.is_empty() && (rest.starts_with(b": ") || rest.trim_ascii() == b":")
    })
}

/// The byte at which the parser stopped and what surrounds it.
struct Place<'a> {
    raw: &'a [u8],
    offset: usize,
    /// Both from 1, as editors count; columns are bytes.
    line: usize,
    column: usize,
    /// The line on which the last character before it stands, if that is not its own line.
    earlier_line: Option<usize>,
}

impl<'a> Place<'a> {
    fn find(raw: &'a [u8], line: usize, column: usize) -> Self {
        let start = match line {
            0 | 1 => 0,
            _ => raw
                .iter()
                .enumerate()
                .filter(|(_, byte)| **byte == b'\n')
                .nth(line - 2)
                .map_or(raw.len(), |(i, _)| i + 1),
        };
        // The parser has consumed a byte that it refuses: after a line break, that is column 0.
        let offset = match column {
            0 => start.saturating_sub(1),
            _ => (start + column - 1).min(raw.len()),
        };
        let line_start = raw[..offset]
            .iter()
            .rposition(|b| *b == b'\n')
            .map_or(0, |i| i + 1);
        let line = line - usize::from(line_start < start);
        let gap = raw[..offset]
            .iter()
            .rev()
            .take_while(|byte| byte.is_ascii_whitespace());
        let breaks = gap.filter(|byte| **byte == b'\n').count();
        Place {
            raw,
            offset,
            line,
            column: offset - line_start + 1,
            earlier_line: (breaks > 0).then(|| line.saturating_sub(breaks)),
        }
    }

    fn byte(&self) -> u8 {
        self.raw.get(self.offset).copied().unwrap_or(b' ')
    }

    /// What stands there, in words.
    fn found(&self) -> String {
        match self.byte() {
            byte if self.offset >= self.raw.len() || byte.is_ascii_whitespace() => {
                "the end of the line".into()
            }
            0 => "a NUL byte".into(),
            byte if byte.is_ascii_graphic() => match self.word() {
                "" => format!("`{}`", byte as char),
                word => format!("`{word}`"),
            },
            byte => match self.character() {
                Some(character) => format!("`{character}`"),
                None => format!("the byte 0x{byte:02X}"),
            },
        }
    }

    /// What isn't ASCII and can be shown.
    fn character(&self) -> Option<char> {
        let rest = self
            .raw
            .get(self.offset..self.raw.len().min(self.offset + 4))?;
        let text = rest.utf8_chunks().next()?.valid();
        text.chars()
            .next()
            .filter(|c| !c.is_ascii() && !c.is_control())
    }

    /// What stands there for a mistake of editors, merges and templates.
    fn mishap(&self) -> Option<String> {
        let rest = &self.raw[self.offset.min(self.raw.len())..];
        let is = |text: &str| rest.starts_with(text.as_bytes());
        if is("<<<<<<<") || is("=======") || is(">>>>>>>") {
            return Some("a merge left its conflict here: choose one side".into());
        }
        let is_second =
            self.offset > 0 && self.raw[self.offset - 1] == b'{' && (is("{") || is("%"));
        if is_second || is("{{") || is("${") || is("<%") || is("{%") {
            return Some("it looks like a template that nobody has filled in".into());
        }
        match self.character()? {
            '\u{201c}' | '\u{201d}' | '\u{201e}' | '\u{201f}' | '\u{2018}' | '\u{2019}'
            | '\u{ab}' | '\u{bb}' => Some("these are typographic quotes: write \"".into()),
            '\u{a0}' | '\u{2007}' | '\u{202f}' | '\u{200b}' | '\u{feff}' | '\u{3000}' => {
                Some("a blank that only looks like one (U+00A0 or such): write a plain one".into())
            }
            '\u{ff0c}' => Some("a wide comma: write ,".into()),
            '\u{ff1a}' => Some("a wide colon: write :".into()),
            _ => None,
        }
    }

    /// The letters and digits from here on.
    fn word(&self) -> &'a str {
        let rest = &self.raw[self.offset..];
        let is_word = |b: &u8| b.is_ascii_alphanumeric() || matches!(*b, b'_' | b'-' | b'+' | b'.');
        let end = rest.iter().take(40).take_while(|b| is_word(b)).count();
        std::str::from_utf8(&rest[..end]).unwrap_or_default()
    }

    /// The start of the number in whose middle the parser stopped.
    fn number(&self) -> &'a str {
        let before = self.raw[..self.offset]
            .iter()
            .rev()
            .take_while(|b| b.is_ascii_alphanumeric() || matches!(**b, b'_' | b'-' | b'+' | b'.'))
            .count();
        let start = Place {
            offset: self.offset - before,
            ..*self
        };
        start.word()
    }

    fn comma_hint(&self, verb: &str) -> String {
        match self.earlier_line {
            Some(line) => format!("{verb} at the end of line {line}"),
            None => format!("{verb} before it"),
        }
    }

    /// Message and hint for what `serde_json` told.
    fn explain(&self, told: &str) -> (String, Option<String>) {
        let (message, hint) = self.explain_plainly(told);
        (message, self.mishap().or(hint))
    }

    fn explain_plainly(&self, told: &str) -> (String, Option<String>) {
        let found = self.found();
        if self.byte() == 0 && self.offset < self.raw.len() {
            return ("a NUL byte, which JSON does not allow".into(), None);
        }
        let in_a_word = self.offset > 0 && self.raw[self.offset - 1].is_ascii_alphanumeric();
        match told {
            "expected `,` or `}`" | "expected `,` or `]`"
                if in_a_word && !self.word().is_empty() =>
            {
                self.explain_number()
            }
            "expected `,` or `}`" | "expected `,` or `]`" if starts_value(self.byte()) => (
                format!("missing comma: {told} after the value, found {found}"),
                Some(self.comma_hint("add a comma")),
            ),
            "expected `:`" => (
                format!("missing colon: expected `:` after the key, found {found}"),
                self.comment(),
            ),
            "trailing comma" => (
                format!("trailing comma: expected another value before {found}"),
                Some(self.comma_hint("remove the comma")),
            ),
            "trailing characters" => (
                format!("expected the end of the file after the closing brace, found {found}"),
                None,
            ),
            "key must be a string" => (
                format!("expected a key in double quotes, found {found}"),
                self.comment(),
            ),
            "expected value" | "expected ident" => self.explain_value(&found),
            "invalid number" => self.explain_number(),
            "recursion limit exceeded" => ("nested deeper than 127 levels".into(), None),
            "control character (\\u0000-\\u001F) found while parsing a string" => {
                match self.byte() {
                    b'\n' | b'\r' => (
                        "the string is not closed at the end of its line".into(),
                        Some(
                            "a closing double quote is missing; a line break is written \\n".into(),
                        ),
                    ),
                    b'\t' => ("a tab in a string".into(), Some("write it as \\t".into())),
                    byte => (
                        format!("the control character 0x{byte:02X} in a string"),
                        None,
                    ),
                }
            }
            "invalid unicode code point" => ("a string that is not UTF-8".into(), None),
            "invalid escape" => (
                format!("no escape sequence in a string: \\{}", self.byte() as char),
                Some("a backslash is written \\\\".into()),
            ),
            _ => match told.strip_prefix("EOF while parsing ") {
                Some(what) => (
                    format!("the file ends in the middle of {what}"),
                    Some(
                        "a closing brace, bracket or quote is missing, or the file was cut off"
                            .into(),
                    ),
                ),
                None => (format!("{told}, found {found}"), self.comment()),
            },
        }
    }

    fn explain_value(&self, found: &str) -> (String, Option<String>) {
        let word = self.word();
        let hint = match self.byte() {
            b'\'' => Some("strings take double quotes".into()),
            b'}' | b']' | b',' => Some("a value is missing, or there is a comma too many".into()),
            _ if matches!(word, "None" | "nil" | "undefined" | "NULL") => {
                Some("did you mean null?".into())
            }
            byte if byte.is_ascii_alphabetic() => did_you_mean(word, ["true", "false", "null"])
                .or_else(|| Some("strings take double quotes".into())),
            _ => self.comment(),
        };
        (format!("expected a value, found {found}"), hint)
    }

    /// Octal and hexadecimal numbers, `512M`, `1_000`.
    fn explain_number(&self) -> (String, Option<String>) {
        let number = self.number();
        let (digits, radix) = match number.strip_prefix("0x") {
            Some(digits) => (digits, 16),
            None => (number.trim_start_matches("0o"), 8),
        };
        let hint = match i64::from_str_radix(digits, radix) {
            Ok(decimal) if number.starts_with('0') => {
                format!("JSON numbers are decimal: {number} is {decimal}")
            }
            _ => "a number has digits only; sizes are in bytes".into(),
        };
        (format!("`{number}` is no JSON number"), Some(hint))
    }

    fn comment(&self) -> Option<String> {
        match self.byte() {
            b'/' | b'#' => Some("JSON has no comments: remove it".into()),
            b';' => Some("entries are parted by commas".into()),
            b'=' => Some("key and value are parted by a colon".into()),
            b'\'' => Some("strings take double quotes".into()),
            _ => None,
        }
    }
}

fn starts_value(byte: u8) -> bool {
    matches!(byte, b'"' | b'{' | b'[' | b'-') || byte.is_ascii_alphanumeric()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syntax_errors_say_where_and_what_was_expected() {
        for (text, pointer, message, hint) in [
            ("", "", "the file is empty", ""),
            (" \n\t\n", "", "the file is empty", ""),
            ("\u{feff}{}", "", "byte order mark", "EF BB BF"),
            ("{\0}", "", "line 1 column 2: a NUL byte", ""),
            ("{\"a\": \"x\0y\"}", "/a", "line 1 column 9: a NUL byte", ""),
            (
                "{]",
                "",
                "line 1 column 2: expected a key in double quotes, found `]`",
                "",
            ),
            (
                "{\n  \"a\": {\n    \"b\": 1\n    \"c\": 2\n  }\n}",
                "/a",
                "line 4 column 5: missing comma: expected `,` or `}` after the value, found `\"`",
                "add a comma at the end of line 3",
            ),
            (
                "{\"a\": [1 2]}",
                "/a",
                "line 1 column 10: missing comma: expected `,` or `]` after the value, found `2`",
                "add a comma before it",
            ),
            ("{\"a\" 1}", "", "line 1 column 6: missing colon", ""),
            (
                "{\"a\": [1,\n]}",
                "/a",
                "line 2 column 1: trailing comma",
                "remove the comma at the end of line 1",
            ),
            (
                "{\"a\": 1,}",
                "",
                "line 1 column 9: trailing comma",
                "remove the comma before it",
            ),
            (
                "{\"a\": 1}}",
                "",
                "line 1 column 9: expected the end of the file",
                "",
            ),
            (
                "{a: 1}",
                "",
                "expected a key in double quotes, found `a`",
                "",
            ),
            (
                "{'a': 1}",
                "",
                "expected a key in double quotes",
                "strings take double quotes",
            ),
            (
                "{ // x\n}",
                "",
                "expected a key in double quotes",
                "JSON has no comments",
            ),
            (
                "{\"a\": /* x */ 1}",
                "/a",
                "expected a value, found `/`",
                "JSON has no comments",
            ),
            (
                "{\"a\": 'x'}",
                "/a",
                "expected a value",
                "strings take double quotes",
            ),
            (
                "{\"a\": True}",
                "/a",
                "expected a value, found `True`",
                "did you mean true?",
            ),
            (
                "{\"a\": None}",
                "/a",
                "expected a value, found `None`",
                "did you mean null?",
            ),
            (
                "{\"a\": yes}",
                "/a",
                "expected a value, found `yes`",
                "strings take double quotes",
            ),
            (
                "{\"a\": }",
                "/a",
                "expected a value, found `}`",
                "a value is missing",
            ),
            (
                "{\"a\": [1,,2]}",
                "/a/1",
                "expected a value, found `,`",
                "a comma too many",
            ),
            (
                "{\"a\": 0022}",
                "/a",
                "`0022` is no JSON number",
                "0022 is 18",
            ),
            (
                "{\"a\": 0x1F}",
                "",
                "`0x1F` is no JSON number",
                "0x1F is 31",
            ),
            (
                "{\"a\": [512M]}",
                "/a",
                "`512M` is no JSON number",
                "sizes are in bytes",
            ),
            (
                "{\"a\": \"x\n\"}",
                "/a",
                "not closed at the end of its line",
                "closing double quote",
            ),
            ("{\"a\": \"x\ty\"}", "/a", "a tab in a string", "\\t"),
            (
                "{\u{201c}a\": 1}",
                "",
                "found `\u{201c}`",
                "typographic quotes",
            ),
            ("{\u{a0}\"a\": 1}", "", "expected a key", "U+00A0"),
            ("{\n<<<<<<< HEAD\n", "", "expected a key", "merge"),
            ("{\"a\": {{ .B }}}", "/a", "expected a key", "template"),
            ("{\"a\": 1; \"b\": 2}", "", "expected `,`", "commas"),
            ("{\"a\" = 1}", "", "missing colon", "colon"),
            (
                "{\"a\": \"\\d\"}",
                "/a",
                "no escape sequence",
                "a backslash is written \\\\",
            ),
            (
                "{\"a\": [1, 2",
                "/a",
                "the file ends in the middle of a list",
                "cut off",
            ),
            (
                "{\"a\": {\"b\": \"x",
                "/a/b",
                "the file ends in the middle of a string",
                "cut off",
            ),
            (
                "{\"a\": {\"b\": 1, \"b\": 2}}",
                "/a",
                "the key \"b\" stands here twice",
                "",
            ),
        ] {
            let mut findings = Findings::default();
            assert!(read(text.as_bytes(), &mut findings).is_none(), "{text:?}");
            let [finding] = &findings.0[..] else {
                panic!("{text:?}: {findings:?}")
            };
            assert_eq!(finding.pointer, pointer, "{text:?}: {finding:?}");
            assert!(finding.message.contains(message), "{text:?}: {finding:?}");
            let given = finding.hint.as_deref().unwrap_or_default();
            assert!(given.contains(hint), "{text:?}: {finding:?}");
        }
    }

    #[test]
    fn bytes_that_are_not_text() {
        for (bytes, message) in [
            (&b"\xff\xfe{\0}\0"[..], "UTF-16"),
            (b"{\0}\0", "UTF-16"),
            (b"\0{\0}", "UTF-16"),
            (b"\x1f\x8b\x08\0", "gzip"),
            (b"{\"a\": \"\xe9\"}", "not UTF-8"),
            (b"# x\nociVersion: 1.0.0\nroot:\n", "YAML"),
            (b"\x7fELF", "expected a value, found the byte 0x7F"),
        ] {
            let mut findings = Findings::default();
            assert!(read(bytes, &mut findings).is_none());
            assert!(findings.0[0].message.contains(message), "{findings:?}");
        }
    }

    #[test]
    fn deep_nesting_is_an_error_not_an_overflow() {
        for (open, levels) in [("[", 10_000), ("{\"a\":", 10_000), ("[", 128)] {
            let mut findings = Findings::default();
            let text = open.repeat(levels);
            assert!(read(text.as_bytes(), &mut findings).is_none());
            let message = &findings.0[0].message;
            assert!(
                message.contains("nested deeper than 127 levels"),
                "{message}"
            );
        }
    }
}
