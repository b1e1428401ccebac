use super::{Global, create, refuse};
use crate::error::Result;

#[derive(clap::Args, Debug, Clone, PartialEq, Eq)]
#[group(skip)]
pub struct Args {
    #[command(flatten)]
    pub create: create::Args,
    /// Return once the program runs, instead of waiting for its end
    #[arg(short, long)]
    pub detach: bool,
    /// Keep the stopped container until it is deleted
    #[arg(long)]
    pub keep: bool,
    /// Leave orphaned processes of the container to the system's reaper
    #[arg(long)]
    pub no_subreaper: bool,
}

impl Args {
    /// Options that a later version brings.
    pub fn refuse_later(&self) -> Result<()> {
        self.create.refuse_later()?;
        refuse(&[("--keep", self.keep), ("--no-subreaper", self.no_subreaper)])
    }
}

pub fn run(args: Args, global: &Global) -> anyhow::Result<u8> {
    args.refuse_later()?;
    global.driver()?;
    anyhow::bail!("run: not wired yet")
}
