//! The arguments of a command, parsed and checked one by one.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::ArgMatches;
use clap::parser::MatchesError;

use crate::cli::failure::{Failure, Result};

/// The arguments of one command. Options are named without their dashes, other arguments as in the usage.
pub struct Args {
    /// The usage line of the command, for errors.
    usage: String,
    matches: ArgMatches,
}

impl Args {
    pub fn new(usage: String, matches: ArgMatches) -> Self {
        Args { usage, matches }
    }

    /// Whether the flag `name` is given; false if the command does not have it.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).unwrap_or(false)
    }

    /// The value of `name`, if it is given and the command has it.
    pub fn get<T: Clone + Send + Sync + 'static>(&self, name: &str) -> Option<T> {
        of_command(self.matches.try_get_one(name)).cloned()
    }

    /// The value of `name`, which is required.
    pub fn required<T: Clone + Send + Sync + 'static>(&self, name: &str) -> Result<T> {
        self.get(name).ok_or_else(|| self.usage(format!("{name} is missing")))
    }

    /// All values of `name`.
    pub fn all<T: Clone + Send + Sync + 'static>(&self, name: &str) -> Vec<T> {
        of_command(self.matches.try_get_many(name)).map_or(Vec::new(), |values| values.cloned().collect())
    }

    /// The text of `name`, which is parsed by nobody yet.
    pub fn text(&self, name: &str) -> Option<&OsStr> {
        of_command(self.matches.try_get_one::<OsString>(name)).map(OsString::as_os_str)
    }

    /// The directory that the argument DIR names.
    pub fn dir(&self) -> Result<PathBuf> {
        self.required("DIR")
    }

    /// The failure that `message` tells of, with the command's usage.
    pub fn usage(&self, message: String) -> Failure {
        Failure::Usage { message, usage: self.usage.clone() }
    }
}

/// What was `found`; nothing for an argument that the command does not have.
fn of_command<T>(found: std::result::Result<Option<T>, MatchesError>) -> Option<T> {
    match found {
        Ok(found) => found,
        Err(MatchesError::UnknownArgument { .. }) => None,
        Err(error) => panic!("an argument is read as another type than it is parsed as: {error}"),
    }
}
