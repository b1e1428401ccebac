//! husk: an OCI low-level container runtime. `docs/architecture.md` is the map.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod bundle;
pub mod cgroups;
pub mod cli;
pub mod commands;
pub mod container;
pub mod criu;
pub mod error;
pub mod executable;
pub mod files;
pub mod hooks;
pub mod log;
pub mod lsm;
pub mod namespaces;
pub mod network;
pub mod preflight;
pub mod process;
pub mod rdt;
pub mod rootfs;
pub mod seccomp;
pub mod signal;
pub mod sys;
pub mod trace;
