//! The `hypercore` command: the table of its commands, and the entry point that runs one of them.
//!
//! Results go to standard output, messages to standard error. Scripts depend on the names of commands and
//! options, the lines of output and the exit codes, so these do not change.

mod appender;
mod arguments;
mod commands;
mod download;
mod failure;
#[cfg(target_os = "linux")]
mod file_changes;
mod line_reader;
mod open;
mod output;
mod remedy;
mod signals;
mod stderr;
mod stored;
mod terminal;
mod thread;

use std::ffi::OsString;

use arguments::command::{Action, Command};
use arguments::parser::{self, Request};
use commands::{
    append, cat, clear, clone, completions, create, demo, get, has, help, info, man, purge, seek, serve, truncate,
    verify,
};
pub use failure::Failure;
use failure::Result;
use output::Output;
pub use stderr::{one_line, say};

const COMMANDS: &[&Command] = &[
    &create::CREATE,
    &append::APPEND,
    &get::GET,
    &cat::CAT,
    &info::INFO,
    &seek::SEEK,
    &has::HAS,
    &truncate::TRUNCATE,
    &clear::CLEAR,
    &verify::VERIFY,
    &purge::PURGE,
    &serve::SERVE,
    &clone::CLONE,
    &demo::DEMO,
    &help::HELP,
    &completions::COMPLETIONS,
    &man::MAN,
];

/// Runs the command that `arguments` name; they do not contain the name of the program.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Result<()> {
    signals::survive_file_size_limits()?;
    match parser::parse(COMMANDS, arguments)? {
        Request::Run(command, args) => match command.action {
            Action::Run(run) => run(&args),
            Action::Describe(describe) => describe(&args, COMMANDS),
        },
        Request::Help(command) => help::print(command, COMMANDS),
        Request::Version => {
            let mut out = Output::stdout();
            out.line(format_args!("hypercore {}", env!("CARGO_PKG_VERSION")))?;
            out.finish()
        }
    }
}
