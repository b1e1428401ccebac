//! husk: an OCI low-level container runtime. `docs/architecture.md` is the map.

pub mod error;
pub mod rootfs;
pub mod sys;
