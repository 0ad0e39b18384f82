//! Why a run ended without a figure, and what the command's exit code says about it.

use std::process::ExitCode;

/// What can go wrong before there is something to report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line asks for something that cannot be.
    #[error("{0}")]
    Usage(String),
    /// The broker did not let somebody in, or does not answer at all.
    #[error("{0}")]
    Connect(String),
}

impl Error {
    /// 2 for usage, as clap has it, and 3 for a connection.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            Self::Connect(_) => ExitCode::from(3),
        }
    }

    /// What went wrong while something was opened or asked for.
    pub(crate) fn connect(what: &str, error: impl std::fmt::Display) -> Self {
        Self::Connect(format!("{what}: {error}"))
    }
}
