//! `tandem completions` and `tandem man`: what shells and manuals know of the command line.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Command;

use crate::cli::failure::Failure;
use crate::cli::output::Output;

pub(super) const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  tandem completions bash > ~/.local/share/bash-completion/completions/tandem
  tandem completions zsh > ~/.zfunc/_tandem
  tandem completions fish > ~/.config/fish/completions/tandem.fish";

pub(super) const MAN_EXAMPLES: &str = "\
Examples:
  tandem man ~/.local/share/man/man1 && man tandem-consume";

/// `tandem completions`.
#[derive(clap::Args)]
#[command(after_help = COMPLETIONS_EXAMPLES)]
pub(super) struct Completions {
    /// For which shell.
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

/// `tandem man`.
#[derive(clap::Args)]
#[command(after_help = MAN_EXAMPLES)]
pub(super) struct Man {
    /// Where to write them; made where it is not there.
    folder: PathBuf,
}

impl Completions {
    pub(super) fn run(self, mut command: Command) -> ExitCode {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "tandem", &mut script);
        end(std::io::Write::write_all(&mut std::io::stdout(), &script))
    }
}

impl Man {
    pub(super) fn run(self, command: Command) -> ExitCode {
        end(write(&self.folder, command))
    }
}

fn write(folder: &Path, command: Command) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    clap_mangen::generate_to(command, folder)
}

fn end(result: std::io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => Output::default().failure(&Failure::from(error)).into(),
    }
}
