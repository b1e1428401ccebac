use super::Global;
use crate::container;
use crate::signal::Signal;

#[derive(clap::Args, Debug, Clone, PartialEq, Eq)]
#[group(skip)]
pub struct Args {
    /// Signal all processes of the container, and be content with a stopped one
    #[arg(short, long)]
    pub all: bool,
    /// Name of the container
    pub id: String,
    /// A name with or without SIG (TERM, sigkill, RTMIN+3) or a number
    #[arg(default_value = "SIGTERM")]
    pub signal: Signal,
}

pub fn run(args: Args, global: &Global) -> anyhow::Result<u8> {
    container::find(&global.root, &args.id)?.signal(args.signal, args.all)?;
    Ok(0)
}
