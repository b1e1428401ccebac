use super::Global;
use super::usual::{Given, Usual, flag};
use crate::container::Container;

pub const USUAL: &[Usual] = &[flag("force", Some(b'f'))];

#[derive(clap::Args, Debug, Clone, PartialEq, Eq)]
#[group(skip)]
pub struct Args {
    /// Kill a running container first, and be content with a missing one
    #[arg(short, long)]
    pub force: bool,
    /// Name of the container
    pub id: String,
}

impl Args {
    /// A line of an engine's.
    pub fn usual(given: &Given) -> Option<Args> {
        Some(Args {
            force: given.flag("force"),
            id: given.id()?,
        })
    }
}

pub fn run(args: Args, global: &Global) -> anyhow::Result<u8> {
    Container::delete(&global.root, &args.id, args.force)?;
    Ok(0)
}
