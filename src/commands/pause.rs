use super::Global;
use crate::container::Container;

#[derive(clap::Args, Debug, Clone, PartialEq, Eq)]
#[group(skip)]
pub struct Args {
    /// Name of the container
    pub id: String,
}

pub fn run(args: Args, global: &Global) -> anyhow::Result<u8> {
    Container::pause(&global.root, &args.id, true)?;
    Ok(0)
}
