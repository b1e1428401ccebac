use std::io::{IsTerminal, Write as _};
use std::path::{Path, PathBuf};

use super::form::{Form, Format};
use super::{Global, print};
use crate::bundle::{self, Bundle, Finding, Severity};
use crate::error::{Error, Result, Step};
use crate::preflight;

/// Exit status when there are errors, and when there was nothing to check.
const ERRORS: u8 = 1;
const UNREADABLE: u8 = 2;

#[derive(clap::Args, Debug, Clone, PartialEq, Eq)]
#[group(skip)]
pub struct Args {
    #[command(flatten)]
    pub form: Form,
    /// Leave this machine out: check the document alone
    #[arg(long)]
    pub document: bool,
    /// Directory of the bundle; - reads a config.json from standard input and checks it alone
    #[arg(value_name = "BUNDLE", default_value = ".")]
    pub bundle: PathBuf,
}

pub fn run(args: Args, _global: &Global) -> anyhow::Result<u8> {
    let raw = match read(&args.bundle) {
        Ok(raw) => raw,
        Err(error) => {
            crate::log::error(&error.into());
            return Ok(UNREADABLE);
        }
    };
    let mut findings = bundle::check(&raw);
    let has_error =
        |findings: &[Finding]| findings.iter().any(|one| one.severity == Severity::Error);
    let alone = args.document || args.bundle == Path::new("-");
    if !alone
        && !has_error(&findings)
        && let Ok(bundle) = Bundle::parse(&args.bundle, raw)
    {
        findings.extend(preflight::look(&bundle));
    }
    match args.form.format {
        Format::Json => {
            let mut text = serde_json::to_string_pretty(&findings)?;
            text.push('\n');
            print(&text)?;
        }
        Format::Text => print_text(&findings)?,
    }
    Ok(if has_error(&findings) { ERRORS } else { 0 })
}

fn read(bundle: &Path) -> Result<Vec<u8>> {
    if bundle == Path::new("-") {
        return bundle::read_stream(std::io::stdin().lock(), 0, Path::new("standard input"));
    }
    bundle::read_config(bundle)
}

fn print_text(findings: &[Finding]) -> Result<()> {
    let out = std::io::stdout();
    let color = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    out.lock()
        .write_all(to_text(findings, color).as_bytes())
        .step("write", "standard output")
}

/// A line a finding, its hint below, and how many at the end.
fn to_text(findings: &[Finding], color: bool) -> String {
    let paint = |code: &str, text: &str| match color {
        true => format!("\x1b[{code}m{text}\x1b[0m"),
        false => text.to_owned(),
    };
    let mut text = String::new();
    let (mut errors, mut warnings) = (0, 0);
    for finding in findings {
        let word = match finding.severity {
            Severity::Error => {
                errors += 1;
                paint("1;31", "error")
            }
            Severity::Warning => {
                warnings += 1;
                paint("1;33", "warning")
            }
        };
        let pointer = match finding.pointer.as_str() {
            "" => "config.json",
            pointer => pointer,
        };
        // One line: control characters of the document are escaped, as in every error.
        let line = Error::new(format!("{}: {}", paint_safe(pointer), finding.message)).to_string();
        let (place, rest) = line.split_at(line.find(": ").unwrap_or(0));
        text += &format!("{word} {}{rest}\n", paint("1", place));
        if let Some(hint) = &finding.hint {
            let hint = Error::new(hint.clone()).to_string();
            text += &format!("  {}: {hint}\n", paint("36", "hint"));
        }
    }
    let count = |number: usize, word: &str| match number {
        1 => format!("1 {word}"),
        _ => format!("{number} {word}s"),
    };
    text += &match (errors, warnings) {
        (0, 0) => "nothing found\n".to_owned(),
        _ => format!(
            "{}, {}\n",
            count(errors, "error"),
            count(warnings, "warning")
        ),
    };
    text
}

/// A key of the document may hold what splits the line above.
fn paint_safe(pointer: &str) -> String {
    pointer.replace(": ", ":\u{a0}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_a_line_a_finding_and_a_count() {
        let findings = [
            Finding::error("/process/cwd", "\"x\" is not absolute"),
            Finding::warning("", "a\x1b[2Jb").hint("remove\nit"),
        ];
        assert_eq!(
            to_text(&findings, false),
            "error /process/cwd: \"x\" is not absolute\n\
             warning config.json: a\\u{1b}[2Jb\n  hint: remove\\nit\n1 error, 1 warning\n"
        );
        assert_eq!(to_text(&[], false), "nothing found\n");
        assert!(
            to_text(&findings, true)
                .contains("\x1b[1;31merror\x1b[0m \x1b[1m/process/cwd\x1b[0m: ")
        );
    }
}
