use super::Global;

#[derive(clap::Args, Debug, Clone, PartialEq, Eq)]
#[group(skip)]
pub struct Args {
    /// Kill a running container first, and be content with a missing one
    #[arg(short, long)]
    pub force: bool,
    /// Name of the container
    pub id: String,
}

pub fn run(_args: Args, _global: &Global) -> anyhow::Result<u8> {
    anyhow::bail!("delete: not wired yet")
}
