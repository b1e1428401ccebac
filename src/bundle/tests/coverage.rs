//! docs/spec-coverage.md is whole and true: a row for every property of the schemas, whose files and tests
//! are there.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::specification::{Schemas, home};

struct Row {
    files: Vec<String>,
    tests: Vec<String>,
}

/// By section and property.
fn rows() -> BTreeMap<(String, String), Row> {
    let text = fs::read_to_string(home().join("docs/spec-coverage.md")).unwrap();
    let mut rows = BTreeMap::new();
    let mut section = String::new();
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title.to_owned();
        }
        let cells: Vec<&str> = line.split(" | ").collect();
        let [property, files, tests] = cells[..] else {
            continue;
        };
        let Some(property) = property.strip_prefix("| `") else {
            continue;
        };
        let row = Row {
            files: quoted(files),
            tests: quoted(tests),
        };
        let key = (section.clone(), property.trim_end_matches('`').to_owned());
        assert!(!row.files.is_empty() && !row.tests.is_empty(), "{line}");
        assert!(rows.insert(key, row).is_none(), "twice: {line}");
    }
    rows
}

/// What stands between backticks.
fn quoted(cell: &str) -> Vec<String> {
    let parts = cell.split('`').enumerate();
    let inside = parts.filter(|(index, _)| index % 2 == 1);
    inside.map(|(_, part)| part.to_owned()).collect()
}

#[test]
fn every_property_of_the_specification_has_a_row() {
    /// In features-linux.md, but not in its schema.
    const IN_TEXT_ONLY: &[&str] = &[
        "/linux/intelRdt/monitoring",
        "/linux/intelRdt/schemata",
        "/linux/memoryPolicy/flags",
        "/linux/memoryPolicy/modes",
    ];
    let schemas = Schemas::load();
    let mut rows = rows();
    for (section, file) in [
        ("config.json", "config-schema.json"),
        ("state", "state-schema.json"),
        ("features", "features-schema.json"),
    ] {
        for place in schemas.places(file) {
            if place.pointer.ends_with("/-") || place.pointer.ends_with("/*") {
                continue;
            }
            let row = rows.remove(&(section.to_owned(), place.pointer.clone()));
            assert!(row.is_some(), "{section}: no row for {}", place.pointer);
        }
    }
    let left: Vec<_> = rows.keys().map(|(_, property)| property.as_str()).collect();
    assert_eq!(left, IN_TEXT_ONLY);
}

#[test]
fn what_a_row_names_is_there() {
    let mut sources = Vec::new();
    read_all(&home().join("src"), &mut sources);
    read_all(&home().join("integration/src/suite"), &mut sources);
    let mut wrong = Vec::new();
    for ((_, property), row) in rows() {
        let files = row.files.iter().filter(|file| !home().join(file).is_file());
        wrong.extend(files.map(|file| format!("{property}: no file {file}")));
        let tests = row.tests.iter().filter(|test| !exists(test, &sources));
        wrong.extend(tests.map(|test| format!("{property}: no test {test}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// `topic::name` is the suite's; what has more parts is a module of the program.
fn exists(test: &str, sources: &[(String, String)]) -> bool {
    let Some((module, name)) = test.rsplit_once("::") else {
        return false;
    };
    let place = match module.contains("::") {
        false => format!("integration/src/suite/{module}.rs"),
        true => format!(
            "src/{}",
            module.trim_end_matches("::tests").replace("::", "/")
        ),
    };
    let function = format!("fn {name}(");
    sources
        .iter()
        .any(|(path, text)| path.contains(&place) && text.contains(&function))
}

fn read_all(dir: &Path, sources: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_all(&path, sources);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            sources.push((path.display().to_string(), text));
        }
    }
}
