//! The ground floor: system calls that no crate wraps, one thin function each.
//!
//! The only place with `unsafe`. Every wrapper returns the errno as it came;
//! callers say what it means.

pub mod arena;
pub mod bpf;
pub mod clock;
pub mod fd;
pub mod file;
pub mod keyring;
pub mod link;
pub mod mount;
pub mod netns;
pub mod prctl;
pub mod process;
mod raw;
pub mod sched;
pub mod seccomp;
pub mod socket;
pub mod spawn;
pub mod start;
pub mod tty;
pub mod xattr;
