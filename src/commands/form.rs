//! `--format text|json`, of commands that answer people and programs.

#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

/// The option, to be flattened into a command's own.
#[derive(clap::Args, Debug, Clone, PartialEq, Eq)]
#[group(skip)]
pub struct Form {
    /// Form of the answer: lines for people, or a document for programs
    #[arg(
        short,
        long,
        value_name = "text|json",
        value_enum,
        hide_possible_values = true,
        default_value = "text"
    )]
    pub format: Format,
}
