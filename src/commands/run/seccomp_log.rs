//! The end of `run --seccomp-log`.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;
use serde_json::json;

use crate::error::{Result, Step};
use crate::files;
use crate::seccomp::observed::{Calls, name};

#[derive(Serialize)]
struct Row {
    syscall: String,
    arch: &'static str,
    count: u64,
    answer: String,
    args: Vec<String>,
    program: String,
}

fn rows(calls: &Calls) -> Vec<Row> {
    let rows = calls.iter().map(|((arch, number), denied)| {
        let (arch, syscall) = name(*arch, *number);
        Row {
            syscall,
            arch,
            count: denied.count,
            answer: denied.answer.to_string(),
            args: denied.args.iter().map(|arg| format!("{arg:#x}")).collect(),
            program: denied.program.clone(),
        }
    });
    rows.collect()
}

/// What would let them pass.
fn rule(rows: &[Row]) -> serde_json::Value {
    let mut names: Vec<&str> = rows.iter().map(|row| row.syscall.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    json!({ "names": names, "action": "SCMP_ACT_ALLOW" })
}

/// To `file` as JSON, or for people if it is empty.
pub fn tell(calls: &Calls, file: &str) -> Result<()> {
    let rows = rows(calls);
    if !file.is_empty() {
        let rules = if rows.is_empty() {
            Vec::new()
        } else {
            vec![rule(&rows)]
        };
        let text = serde_json::to_string_pretty(&json!({ "calls": rows, "rules": rules }));
        return files::overwrite(
            Path::new(file),
            (text.unwrap_or_default() + "\n").as_bytes(),
        )
        .step("write", file);
    }
    crate::log::notice(&to_text(&rows));
    Ok(())
}

fn to_text(rows: &[Row]) -> String {
    let mut text = String::from("seccomp: ");
    if rows.is_empty() {
        text += "the filter denied nothing\n";
        return text;
    }
    text += "the filter denied these calls:\n";
    for row in rows {
        let args = row.args.join(", ");
        let _ = writeln!(
            text,
            "  {} {} times: {}, first by {:?}: {}({args})",
            row.arch, row.count, row.answer, row.program, row.syscall
        );
    }
    let _ = writeln!(
        text,
        "to allow them, add to /linux/seccomp/syscalls:\n  {}",
        rule(rows)
    );
    text
}
