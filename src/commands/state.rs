use super::Global;
use super::list::Shown;
use super::print;
use super::usual::{Given, Usual};
use crate::container;

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
    let shown = Shown::of(container::find(&global.root, &args.id)?)?;
    let text = serde_json::to_string_pretty(&shown)?;
    Ok(print(&format!("{text}\n"))?)
}
