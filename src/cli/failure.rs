//! The ways in which a command ends other than by success: usage error, failure, or closed output; with its exit code.

use std::path::Path;

use hypercore::Error;

use super::remedy::with_remedy;

pub type Result<T> = std::result::Result<T, Failure>;

/// Why a command stopped.
#[derive(Debug)]
pub enum Failure {
    /// Wrong usage: exit code 2, an error line, and the usage line of the command.
    Usage { message: String, usage: String },
    /// Exit code 1 and one error line.
    Failed(String),
    /// Exit code 1; the command has printed its errors itself.
    Reported,
    /// The reader closed standard output, as in `… | head`: exit code 0.
    OutputClosed,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Failed(with_remedy(&error))
    }
}

/// The failure for `error`, which names `dir` unless the error names a file itself.
pub fn about(dir: &Path, error: Error) -> Failure {
    match error.path() {
        Some(_) => error.into(),
        None => error.at(dir).into(),
    }
}
