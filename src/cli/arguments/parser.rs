//! Parses the command line with `clap`.

use std::ffi::OsString;

use clap::builder::PossibleValuesParser;
use clap::error::ErrorKind;

use super::args::Args;
use super::command::Command;
use super::usage_error;
use super::values::is_address;
use crate::cli::failure::{Failure, Result};

/// Options that take several addresses: `--from A B` means `--from A --from B`.
const ADDRESS_LISTS: [&str; 1] = ["--from"];

/// The meaning of a command line.
pub enum Request {
    Run(&'static Command, Args),
    /// Print the help of a command, or the list of commands.
    Help(Option<&'static Command>),
    Version,
}

/// Parses `arguments`, which do not contain the name of the program. Reads no file and no variable.
pub fn parse(commands: &'static [&'static Command], arguments: impl IntoIterator<Item = OsString>) -> Result<Request> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    // Only --help and --version can stand before the name of the command.
    let first = arguments.first().and_then(|name| find(commands, name.to_str()?));
    let wants_help = arguments.iter().take_while(|arg| *arg != "--").any(|arg| arg == "--help" || arg == "-h");
    match parser(commands).try_get_matches_from(repeat_list_options(arguments)) {
        Ok(mut matches) => match matches.remove_subcommand().zip(first) {
            Some(((_, matches), command)) => Ok(Request::Run(command, Args::new(command.usage_line(), matches))),
            None => Ok(Request::Help(None)),
        },
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp => Ok(Request::Help(first)),
            ErrorKind::DisplayVersion => Ok(Request::Version),
            // --help after a wrong argument still prints the help.
            _ if wants_help => Ok(Request::Help(first)),
            _ => {
                let usage = first.map_or_else(|| all_usage(commands), Command::usage_line);
                Err(Failure::Usage { message: usage_error::message(&error), usage })
            }
        },
    }
}

/// The command with this name.
pub fn find(commands: &[&'static Command], name: &str) -> Option<&'static Command> {
    commands.iter().find(|command| command.name == name).copied()
}

/// The parser of the complete command line.
pub fn parser(commands: &[&'static Command]) -> clap::Command {
    clap::Command::new("hypercore")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Secure, distributed, append-only logs")
        .no_binary_name(true)
        .override_usage("hypercore COMMAND [ARGUMENT]...")
        .subcommand_required(true)
        .disable_help_subcommand(true)
        .subcommands(commands.iter().map(|command| command.parser()))
        .mut_subcommand("help", |help| {
            let names = PossibleValuesParser::new(commands.iter().map(|command| command.name));
            help.mut_arg("COMMAND", |topic| topic.value_parser(names).hide_possible_values(true))
        })
}

fn all_usage(commands: &[&'static Command]) -> String {
    let names: Vec<&str> = commands.iter().map(|command| command.name).collect();
    format!("usage: hypercore COMMAND [ARGUMENT]..., where COMMAND is one of: {}", names.join(" "))
}

/// Inserts the option before each further address of a list. `clap` would take such an address for a positional
/// argument, or every positional argument for a value of the list.
///
/// A list ends at the first argument that is not an address, so that `clone --from A B KEY DIR` works.
fn repeat_list_options(arguments: Vec<OsString>) -> Vec<OsString> {
    let mut repeated = Vec::with_capacity(arguments.len());
    let mut list = None;
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let text = argument.to_str().unwrap_or_default();
        if text == "--" {
            repeated.push(argument);
            repeated.extend(arguments);
            break;
        }
        if let Some(name) = ADDRESS_LISTS.into_iter().find(|name| text == *name) {
            list = Some(name);
            repeated.push(argument);
            repeated.extend(arguments.next());
        } else if let Some(name) = list.filter(|_| !text.starts_with('-') && is_address(text)) {
            repeated.extend([name.into(), argument]);
        } else {
            list = text.split_once('=').and_then(|(name, _)| ADDRESS_LISTS.into_iter().find(|list| name == *list));
            repeated.push(argument);
        }
    }
    repeated
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_option_followed_by_addresses_takes_them() {
        for (line, expected) in [
            ("--from a:1 b:2 c", "--from a:1 --from b:2 c"),
            ("--from=a:1 b:2", "--from=a:1 --from b:2"),
            ("a:1 --from b:2 --live c:3", "a:1 --from b:2 --live c:3"),
            ("--from a:1 -- b:2", "--from a:1 -- b:2"),
            ("-- --from a:1 b:2", "-- --from a:1 b:2"),
            ("--from a:1 b:http", "--from a:1 b:http"),
            ("--from", "--from"),
        ] {
            let arguments = line.split(' ').map(OsString::from).collect();
            assert_eq!(repeat_list_options(arguments).join(" ".as_ref()), expected);
        }
    }
}
