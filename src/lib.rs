//! husk: an OCI low-level container runtime. `docs/architecture.md` is the map.

pub mod cgroups;
pub mod error;
pub mod sys;
