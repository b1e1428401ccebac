//! husk: an OCI low-level container runtime. `docs/architecture.md` is the map.

pub mod bundle;
pub mod error;
