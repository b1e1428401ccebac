//! Writes man pages and shell completions from the command line's own definitions:
//! `cargo run --example pages -- DIR` fills DIR/man1, DIR/bash, DIR/zsh and DIR/fish.
#![allow(clippy::disallowed_methods)]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap_complete::{Shell, generate_to};

fn main() -> io::Result<()> {
    let dir = std::env::args_os()
        .nth(1)
        .map(PathBuf::from)
        .ok_or_else(|| io::Error::other("usage: pages DIR"))?;
    manual(&dir.join("man1"))?;
    for (shell, name) in [
        (Shell::Bash, "bash"),
        (Shell::Zsh, "zsh"),
        (Shell::Fish, "fish"),
    ] {
        let place = dir.join(name);
        fs::create_dir_all(&place)?;
        generate_to(shell, &mut husk::cli::tree(), "husk", &place)?;
    }
    Ok(())
}

/// husk(1), and husk-COMMAND(1) for each.
fn manual(place: &Path) -> io::Result<()> {
    fs::create_dir_all(place)?;
    let tree = husk::cli::tree();
    let source = format!("husk {}", husk::commands::VERSION);
    let page = |command: clap::Command, name: &str| {
        let mut text = Vec::new();
        clap_mangen::Man::new(command.disable_help_flag(true))
            .title(name.to_uppercase())
            .section("1")
            .source(source.as_str())
            .manual("husk")
            .render(&mut text)?;
        fs::write(place.join(format!("{name}.1")), text)
    };
    for command in tree.get_subcommands() {
        // For the length of this program.
        let name: &'static str = format!("husk-{}", command.get_name()).leak();
        page(command.clone().name(name), name)?;
    }
    page(tree, "husk")
}
