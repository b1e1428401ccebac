use super::Global;
use super::second_look::explain;
use super::usual::{Given, Usual};
use crate::container::Container;
use crate::process::readiness;

pub const USUAL: &[Usual] = &[];

#[derive(clap::Args, Debug, Clone, PartialEq, Eq)]
#[group(skip)]
pub struct Args {
    /// Name of the container
    pub id: String,
}

impl Args {
    /// A line of an engine's.
    pub fn usual(given: &Given) -> Option<Args> {
        let id = given.id()?;
        Some(Args { id })
    }
}

pub fn run(args: Args, global: &Global) -> anyhow::Result<u8> {
    let manager = readiness::manager();
    let started = Container::start(&global.root, &args.id, manager.as_deref(), explain)?;
    if let Some(started) = started {
        started.wait()?;
    }
    Ok(0)
}
