use super::Global;
use super::second_look::explain;
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
    let started = Container::start(&global.root, &args.id, manager.as_deref(), explain)?;
    if let Some(started) = started {
        started.wait()?;
    }
    Ok(0)
}
