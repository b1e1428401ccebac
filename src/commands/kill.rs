use super::Global;
use super::usual::{Given, Usual, flag};
use crate::bundle::did_you_mean;
use crate::container;
use crate::signal::Signal;

pub const USUAL: &[Usual] = &[flag("all", Some(b'a'))];

#[derive(clap::Args, Debug, Clone, PartialEq, Eq)]
#[group(skip)]
pub struct Args {
    /// Signal all processes of the container, and be content with a stopped one
    #[arg(short, long)]
    pub all: bool,
    /// Name of the container
    pub id: String,
    /// A name with or without SIG (TERM, sigkill, RTMIN+3) or a number
    #[arg(default_value = "SIGTERM", value_parser = parse_signal)]
    pub signal: Signal,
}

impl Args {
    /// A line of an engine's.
    pub fn usual(given: &Given) -> Option<Args> {
        let (id, signal) = given.id_and_more()?;
        let signal = match signal.as_slice() {
            [] => Signal::TERM,
            [signal] => signal.parse().ok()?,
            _ => return None,
        };
        let all = given.flag("all");
        Some(Args { all, id, signal })
    }
}

/// With the name that may be meant.
fn parse_signal(text: &str) -> Result<Signal, String> {
    text.parse().map_err(|why| {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        // Of three letters every signal is near to some other: there a letter may lack, or stand elsewhere.
        let sorted = |text: &str| {
            let mut letters: Vec<u8> = text.bytes().collect();
            letters.sort_unstable();
            letters
        };
        let known = crate::signal::names().filter(|known| match name.len() {
            0..=2 => false,
            3 => known.len() == 4 || sorted(known) == sorted(name),
            _ => true,
        });
        match did_you_mean(name, known) {
            Some(hint) => format!("{why}: {hint}"),
            None => why,
        }
    })
}

pub fn run(args: Args, global: &Global) -> anyhow::Result<u8> {
    container::find(&global.root, &args.id)?.signal(args.signal, args.all)?;
    Ok(0)
}
