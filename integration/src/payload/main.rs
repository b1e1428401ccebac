//! What the containers run: one static program that does what it is told and
//! prints what it saw, one line of JSON for each operation.
//!
//! `payload OP ARG... [-- OP ARG...]...` does one operation after the other. A
//! failed operation prints `{"error": "ENOENT"}` and the next one is done all the same.
//! A file that begins with `#!/bin/payload OP` is a script: its path is the last argument.

mod facts;
mod files;
mod run;
mod spy;

use serde_json::{Value, json};

fn main() {
    let args: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    for operation in args.split(|arg| arg == "--") {
        let words: Vec<&str> = operation.iter().map(String::as_str).collect();
        let Some((name, rest)) = words.split_first() else {
            continue;
        };
        if let Some(value) = perform(name, rest) {
            print_line(&value);
        }
    }
}

fn print_line(value: &Value) {
    use std::io::Write;
    let mut line = value.to_string();
    line.push('\n');
    // A closed standard output is for the test to notice.
    let _ = std::io::stdout().write_all(line.as_bytes());
}

/// `None` for operations that print nothing or in their own way.
fn perform(name: &str, args: &[&str]) -> Option<Value> {
    let result = match name {
        "facts" => Ok(facts::all()),
        _ => match files::perform(name, args) {
            Some(result) => result,
            None => return run::perform(name, args),
        },
    };
    Some(result.unwrap_or_else(|error| failure(&error)))
}

fn failure(error: &std::io::Error) -> Value {
    match error.raw_os_error() {
        Some(code) => json!({ "error": errno_name(code) }),
        None => json!({ "error": error.to_string() }),
    }
}

fn errno_name(code: i32) -> String {
    format!("{:?}", nix::errno::Errno::from_raw(code))
}
