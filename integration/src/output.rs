//! What a command said and how it ended.

use std::fmt;

use serde_json::Value;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Code(i32),
    Signal(i32),
}

pub struct Output {
    pub command: String,
    pub end: End,
    pub stdout: String,
    pub stderr: String,
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Output { command, end, .. } = self;
        let (stdout, stderr) = (shortened(&self.stdout), shortened(&self.stderr));
        write!(
            f,
            "{command}\n  ended with {end:?}\n  stdout: {stdout}\n  stderr: {stderr}"
        )
    }
}

/// Facts are long; their beginning is enough to see what they are.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(1000) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl Output {
    #[track_caller]
    pub fn code(self, expected: i32) -> Self {
        assert_eq!(self.end, End::Code(expected), "{self}");
        self
    }

    #[track_caller]
    pub fn ok(self) -> Self {
        self.code(0)
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}\n{self}"))
    }

    /// The payload's lines, one for each operation.
    #[track_caller]
    pub fn lines(&self) -> Vec<Value> {
        lines(&self.stdout, self)
    }

    /// The one line of the payload's only operation.
    #[track_caller]
    pub fn line(&self) -> Value {
        let lines = self.lines();
        assert_eq!(lines.len(), 1, "one line expected: {self}");
        lines.into_iter().next().unwrap()
    }

    /// The command failed as husk fails: exit status 1, nothing on standard output, one
    /// line that says what is wrong and at most one with a hint.
    #[track_caller]
    pub fn refused(self) -> Refusal {
        let this = self.code(1);
        assert_eq!(
            this.stdout, "",
            "nothing belongs on standard output: {this}"
        );
        Refusal::parse(&this)
    }
}

#[track_caller]
pub fn lines(text: &str, context: &dyn fmt::Display) -> Vec<Value> {
    text.lines()
        .map(|line| {
            let line = line.trim_end_matches('\r');
            serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line:?}\n{context}"))
        })
        .collect()
}

/// An error as it is shown to a person.
pub struct Refusal {
    pub line: String,
    pub hint: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)?;
        self.hint.iter().try_for_each(|hint| write!(f, "\n{hint}"))
    }
}

impl Refusal {
    #[track_caller]
    fn parse(output: &Output) -> Refusal {
        let lines: Vec<&str> = output.stderr.lines().collect();
        let (line, hint) = match lines.as_slice() {
            [line] => (line, None),
            [line, hint] if hint.starts_with("hint: ") => (line, Some((*hint).to_owned())),
            _ => panic!("one line and at most one hint expected: {output}"),
        };
        assert!(line.len() <= 400, "too long to be read: {output}");
        Refusal {
            line: (*line).to_owned(),
            hint,
        }
    }

    /// The line holds this, whatever the case of its letters.
    #[track_caller]
    pub fn says(self, words: &str) -> Self {
        let (line, wanted) = (self.line.to_lowercase(), words.to_lowercase());
        assert!(line.contains(&wanted), "{words:?} is not in: {self}");
        self
    }

    #[track_caller]
    pub fn hints(self, words: &str) -> Self {
        let hint = self.hint.as_deref().unwrap_or_default().to_lowercase();
        assert!(
            hint.contains(&words.to_lowercase()),
            "{words:?} is not hinted at: {self}"
        );
        self
    }
}
