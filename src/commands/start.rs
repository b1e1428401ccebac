use super::Global;
use super::second_look::explain;
use crate::container::{self, Container};
use crate::error::Error;
use crate::process::readiness;

#[derive(clap::Args, Debug, Clone, PartialEq, Eq)]
#[group(skip)]
pub struct Args {
    /// Name of the container
    pub id: String,
}

pub fn run(args: Args, global: &Global) -> anyhow::Result<u8> {
    let manager = readiness::manager();
    let started = Container::start(&global.root, &args.id, manager.as_deref(), None)
        .map_err(|error| look_again(error, &args.id, global))?;
    if let Some(started) = started {
        started.wait()?;
    }
    Ok(0)
}

/// As `create` does, while the container is still there to tell its bundle.
fn look_again(error: Error, id: &str, global: &Global) -> Error {
    match container::find(&global.root, id) {
        Ok(container) => explain(error, container.bundle()),
        Err(_) => error,
    }
}
