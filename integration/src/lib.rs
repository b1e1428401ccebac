//! Tests of the built husk: each makes a bundle, runs the binary, and looks at the effect
//! from inside the container or on the host. README.md says how to run them.

pub mod agent;
#[path = "../../src/seccomp/interpreter.rs"]
pub mod bpf;
pub mod bundle;
pub mod cgroup;
pub mod container;
pub mod cost;
pub mod diagnosis;
pub mod enclosure;
pub mod lab;

pub mod mountinfo;
pub mod need;
pub mod output;
pub mod profile;
pub mod pty;
pub mod receiver;
pub mod resctrl;
pub mod runner;
pub mod stuck;
pub mod suite;
pub mod sys;
pub mod systemd;
pub mod user;
