//! Tests of the built binary on generated bundles.

#[path = "../../src/seccomp/interpreter.rs"]
pub mod bpf;
pub mod profile;
