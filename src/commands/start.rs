use super::Global;
use crate::container::Container;
use crate::process::readiness;

#[derive(clap::Args, Debug, Clone, PartialEq, Eq)]
#[group(skip)]
pub struct Args {
    /// Name of the container
    pub id: String,
}

pub fn run(args: Args, global: &Global) -> anyhow::Result<u8> {
    let manager = readiness::manager();
    if let Some(started) = Container::start(&global.root, &args.id, manager.as_deref(), None)? {
        started.wait()?;
    }
    Ok(0)
}
