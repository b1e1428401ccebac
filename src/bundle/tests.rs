//! Documents from bytes to findings: the rules, the repairs, real configs.

mod coverage;
mod documents;
mod fuzzed;
mod plain;
mod repairs;
mod rules;
mod specification;

use serde_json::Value;

use super::{Finding, Findings, Severity, parse, validate};

/// A container with all namespaces but user and time.
const BASE: &str = r#"{
    "ociVersion": "1.3.0",
    "root": {"path": "rootfs"},
    "process": {"args": ["sh"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
    "linux": {"namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"},
        {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"}]}
}"#;

/// What [`super::Bundle::parse`] finds.
fn findings(raw: &[u8]) -> Vec<Finding> {
    let mut findings = Findings::default();
    if let Some((spec, _)) = parse::config(raw, &mut findings) {
        validate::config(&spec, &mut findings);
    }
    findings.0
}

fn errors(raw: &[u8]) -> Vec<Finding> {
    let mut errors = findings(raw);
    errors.retain(|f| f.severity == Severity::Error);
    errors
}

/// The base with a JSON merge patch (RFC 7396).
fn patched(patch: &str) -> Vec<u8> {
    let mut value: Value = serde_json::from_str(BASE).unwrap();
    let patch = serde_json::from_str(patch).unwrap_or_else(|e| panic!("{patch}: {e}"));
    merge(&mut value, patch);
    serde_json::to_vec(&value).unwrap()
}

fn merge(target: &mut Value, patch: Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, patch) in patch {
                match patch {
                    Value::Null => drop(target.remove(&key)),
                    patch => merge(target.entry(key).or_insert(Value::Null), patch),
                }
            }
        }
        (target, mut patch) => {
            // RFC 7396: a patch object in place of another type counts from empty, without nulls.
            if let Value::Object(map) = &mut patch {
                map.retain(|_, value| !value.is_null());
            }
            *target = patch;
        }
    }
}
