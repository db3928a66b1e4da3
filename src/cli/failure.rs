//! The ways in which a command can fail.

use std::path::Path;

use hypercore::Error;

use super::remedy::with_remedy;

pub type Result<T> = std::result::Result<T, Failure>;

/// Why a command does not end well.
#[derive(Debug)]
pub enum Failure {
    /// It was called wrongly: exit code 2, after what is wrong and how it is called rightly.
    Usage { message: String, usage: String },
    /// It did not work: exit code 1, after one line that says why.
    Failed(String),
    /// It did not work, and all there is to say was said.
    Reported,
    /// Nobody reads standard output any more, as in `… | head`: no failure at all.
    OutputClosed,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Failed(with_remedy(&error))
    }
}

/// `error`, said about `dir` where it names no file itself.
pub fn about(dir: &Path, error: Error) -> Failure {
    match error.path() {
        Some(_) => error.into(),
        None => error.at(dir).into(),
    }
}
