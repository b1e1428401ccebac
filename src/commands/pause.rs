use super::Global;

#[derive(clap::Args, Debug, Clone, PartialEq, Eq)]
#[group(skip)]
pub struct Args {
    /// Name of the container
    pub id: String,
}

pub fn run(_args: Args, _global: &Global) -> anyhow::Result<u8> {
    anyhow::bail!("pause: not wired yet")
}
