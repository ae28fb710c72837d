//! Completions for shells, made from the parser itself: for laptops and for images that people look around in. The core
//! does without.

use clap::CommandFactory;
use clap_complete::shells::{Bash, Fish, Zsh};

use crate::cli::Cli;

/// The shells that people use where containers are built and looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Shell {
    Bash,
    Fish,
    Zsh,
}

/// The completions for a shell, made from the parser itself.
pub fn write(shell: Shell) -> Vec<u8> {
    let (mut text, mut command) = (Vec::new(), Cli::command());
    match shell {
        Shell::Bash => clap_complete::generate(Bash, &mut command, "boathook", &mut text),
        Shell::Fish => clap_complete::generate(Fish, &mut command, "boathook", &mut text),
        Shell::Zsh => clap_complete::generate(Zsh, &mut command, "boathook", &mut text),
    }
    text
}
