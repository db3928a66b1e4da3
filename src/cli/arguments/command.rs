//! The description of a command: name, arguments, help and action.

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, ValueHint};

use super::args::Args;
use super::values::directory;
use crate::cli::failure::Result;

/// A command of `hypercore`.
pub struct Command {
    pub name: &'static str,
    /// The arguments after the name, for the help and for usage errors.
    pub usage: &'static str,
    /// One line for the list of commands, without a full stop.
    pub about: &'static str,
    /// More sentences for the help of the command.
    pub details: &'static str,
    /// The positional arguments in order, and the options of this command alone.
    pub arguments: fn() -> Vec<Arg>,
    /// Groups of options that other commands have too.
    pub shared: &'static [fn() -> Vec<Arg>],
    pub example: &'static str,
    pub action: Action,
}

/// The action of a command.
#[derive(Clone, Copy)]
pub enum Action {
    Run(fn(&Args) -> Result<()>),
    /// Prints something about the table of commands, which it gets.
    Describe(fn(&Args, &'static [&'static Command]) -> Result<()>),
}

/// The heading of the shared options in a command's help.
pub const SHARED: &str = "Options of several commands";

impl Command {
    pub fn usage_line(&self) -> String {
        format!("usage: {}", self.synopsis())
    }

    pub fn synopsis(&self) -> String {
        format!("hypercore {} {}", self.name, self.usage).trim_end().to_owned()
    }

    /// The parser of the arguments after the name. Its help texts are not wrapped.
    pub fn parser(&self) -> clap::Command {
        let shared = self.shared.iter().flat_map(|group| group());
        clap::Command::new(self.name)
            .override_usage(self.synopsis())
            .about(self.about)
            .long_about(format!("{}.\n\n{}", self.about, self.details))
            .args((self.arguments)())
            .args(shared.map(|option| option.help_heading(SHARED)))
    }
}

/// A required positional argument.
pub fn positional(name: &'static str, parser: impl Into<ValueParser>, help: &'static str) -> Arg {
    Arg::new(name).value_name(name).required(true).value_parser(parser.into()).help(help)
}

/// The option `--name` with a value, which can be given once.
pub fn option(name: &'static str, value_name: &'static str, parser: impl Into<ValueParser>, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value_name).value_parser(parser.into()).help(help)
}

/// The option `--name` without a value, which can be repeated.
pub fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).overrides_with(name).help(help)
}

/// The positional argument DIR of a command that needs an existing core.
pub fn core_dir() -> Arg {
    positional("DIR", directory(), "Directory of the core").value_hint(ValueHint::DirPath)
}
