//! The parsed arguments of a command.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::ArgMatches;
use clap::parser::MatchesError;

use crate::cli::failure::{Failure, Result};

/// The arguments of one command, each checked by its parser. Options are named without their dashes, positional
/// arguments as in the usage line.
pub struct Args {
    /// The usage line of the command, for usage errors.
    usage: String,
    matches: ArgMatches,
}

impl Args {
    pub fn new(usage: String, matches: ArgMatches) -> Self {
        Args { usage, matches }
    }

    /// Whether the flag `name` is given; false if the command has no such flag.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).unwrap_or(false)
    }

    /// The value of `name`; `None` if it is not given, or if the command has no such argument.
    pub fn get<T: Clone + Send + Sync + 'static>(&self, name: &str) -> Option<T> {
        of_command(self.matches.try_get_one(name)).cloned()
    }

    /// The value of `name`, which the parser requires.
    pub fn required<T: Clone + Send + Sync + 'static>(&self, name: &str) -> Result<T> {
        self.get(name).ok_or_else(|| self.usage(format!("{name} is missing")))
    }

    /// All values of `name`, in order.
    pub fn all<T: Clone + Send + Sync + 'static>(&self, name: &str) -> Vec<T> {
        of_command(self.matches.try_get_many(name)).map_or(Vec::new(), |values| values.cloned().collect())
    }

    /// The value of `name`, whose parser is [`super::values::text`].
    pub fn text(&self, name: &str) -> Option<&OsStr> {
        of_command(self.matches.try_get_one::<OsString>(name)).map(OsString::as_os_str)
    }

    /// The directory of the positional argument DIR.
    pub fn dir(&self) -> Result<PathBuf> {
        self.required("DIR")
    }

    /// A usage error with the usage line of the command.
    pub fn usage(&self, message: String) -> Failure {
        Failure::Usage { message, usage: self.usage.clone() }
    }
}

/// The result of a look-up, with `None` for an argument that the command does not have.
fn of_command<T>(found: std::result::Result<Option<T>, MatchesError>) -> Option<T> {
    match found {
        Ok(found) => found,
        Err(MatchesError::UnknownArgument { .. }) => None,
        Err(error) => panic!("an argument is read as another type than its parser makes: {error}"),
    }
}
