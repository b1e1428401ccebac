//! What `bench/engines` has measured: `ENGINE RUNTIME MILLISECONDS`, a line a run.

use std::fs;
use std::path::Path;

use crate::results::Results;

pub fn read(path: &Path, results: &mut Results) -> Result<(), String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [engine, name, milliseconds] = words[..] else {
            return Err(format!("{}: {line:?}", path.display()));
        };
        let known = results.runtimes.iter().find(|runtime| runtime.name == name);
        let (Some(runtime), Ok(value)) = (known.cloned(), milliseconds.parse()) else {
            return Err(format!("{}: {line:?}", path.display()));
        };
        results.add(&format!("engine {engine}"), &runtime, value);
    }
    Ok(())
}
