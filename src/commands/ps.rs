use super::Global;
use super::list::Format;

#[derive(clap::Args, Debug, Clone, PartialEq, Eq)]
#[group(skip)]
pub struct Args {
    /// How to print: the table of ps(1), or an array of pids
    #[arg(short, long, default_value = "table")]
    pub format: Format,
    /// Name of the container
    pub id: String,
    /// Arguments for ps(1) instead of -ef
    #[arg(value_name = "PS ARGS")]
    pub ps_args: Vec<String>,
}

pub fn run(_args: Args, _global: &Global) -> anyhow::Result<u8> {
    anyhow::bail!("ps: not wired yet")
}
