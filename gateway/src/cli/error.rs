//! How a command ends when it does not end well.

use std::io;

use crate::config::Problems;

/// Why a command failed, in words for a person.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The arguments make no sense.
    #[error("{0}")]
    Usage(String),
    /// The configuration makes no sense.
    #[error("the configuration cannot be used\n{0}")]
    Config(#[from] Problems),
    /// The configuration makes no sense, as the part says that it is for.
    #[error("{0}")]
    Unusable(String),
    /// It was tried, and did not work.
    #[error("{0}")]
    Failed(String),
    /// Whoever read our output has left: the end of the work, not a failure.
    #[error("nobody reads the output any more")]
    OutputClosed,
}

impl CliError {
    /// The exit code: 0 fine, 1 failed, 2 bad usage or bad configuration.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::OutputClosed => 0,
            Self::Failed(_) => 1,
            Self::Usage(_) | Self::Config(_) | Self::Unusable(_) => 2,
        }
    }
}

impl From<io::Error> for CliError {
    /// An error of writing to standard output.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Failed(format!("standard output cannot be written: {error}")),
        }
    }
}
