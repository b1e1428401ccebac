use super::Global;
use super::list::Shown;
use super::print;
use crate::container;

#[derive(clap::Args, Debug, Clone, PartialEq, Eq)]
#[group(skip)]
pub struct Args {
    /// Name of the container
    pub id: String,
}

pub fn run(args: Args, global: &Global) -> anyhow::Result<u8> {
    let shown = Shown::of(container::find(&global.root, &args.id)?)?;
    let text = serde_json::to_string_pretty(&shown)?;
    Ok(print(&format!("{text}\n"))?)
}
