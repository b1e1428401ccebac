use super::Global;
use crate::container::Container;

#[derive(clap::Args, Debug, Clone, PartialEq, Eq)]
#[group(skip)]
pub struct Args {
    /// Kill a running container first, and be content with a missing one
    #[arg(short, long)]
    pub force: bool,
    /// Name of the container
    pub id: String,
}

pub fn run(args: Args, global: &Global) -> anyhow::Result<u8> {
    Container::delete(&global.root, &args.id, args.force)?;
    Ok(0)
}
