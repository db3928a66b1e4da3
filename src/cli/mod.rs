//! What the command line can do: the table of commands, their help, how each opens its core, and the ways to fail.
//!
//! Answers go to standard output, everything else to standard error. Names of commands and options, lines of output and exit
//! codes are what scripts are written against: they do not change.

mod append;
mod args;
mod clone;
mod command;
mod completions;
mod create;
mod demo;
mod dial;
mod edit;
mod help;
mod info;
mod lines;
mod man;
mod output;
mod parser;
mod progress;
mod read;
mod screen;
mod secrets;
mod serve;
mod signals;
mod status;
mod usage_error;
mod values;
mod verify;
#[cfg(target_os = "linux")]
mod watch;

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use clap::Arg;
use clap::builder::PossibleValuesParser;
use hypercore::{Durability, Error, ErrorKind, Hypercore, OpenOptions};

use args::Args;
use command::{Action, Command, flag, option};
use output::Output;
use parser::Request;

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
        Failure::Failed(with_way_out(&error))
    }
}

const COMMANDS: &[&Command] = &[
    &create::CREATE,
    &append::APPEND,
    &read::GET,
    &read::CAT,
    &info::INFO,
    &read::SEEK,
    &read::HAS,
    &edit::TRUNCATE,
    &edit::CLEAR,
    &verify::VERIFY,
    &edit::PURGE,
    &serve::SERVE,
    &clone::CLONE,
    &demo::DEMO,
    &help::HELP,
    &completions::COMPLETIONS,
    &man::MAN,
];

/// Threads of the command call nothing deep.
const THREAD_STACK: usize = 512 * 1024;

/// A thread to be spawned, on a stack that is small also where addresses are few.
fn thread(name: &str) -> std::thread::Builder {
    std::thread::Builder::new().name(name.into()).stack_size(THREAD_STACK)
}

/// For every command that opens a core.
const OPENING: fn() -> Vec<Arg> = || {
    let mut options = secrets::encryption();
    options
        .push(flag("no-lock", "Take no lock, for file systems without locks: no other process may have the core open"));
    options.push(no_map());
    options
};

fn no_map() -> Arg {
    flag("no-map", "Read without memory maps: slower, but a failing disk gives an error that names the file")
}

/// For every command that writes.
const WRITING: fn() -> Vec<Arg> = || {
    let levels = PossibleValuesParser::new(["none", "flush", "always"]);
    let help = "What a power cut may take: none (no promise), flush (only the latest changes), always (nothing) \
                [default: flush]";
    vec![option("durability", "LEVEL", levels, help).hide_possible_values(true)]
};

/// For every command that can do without writing.
const READING: fn() -> Vec<Arg> =
    || vec![flag("read-only", "Write nothing and take no lock: works while another process has the core open")];

/// Runs the command that `arguments`, without the program's name, ask for.
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

/// Writes a line to standard error. Where that fails there is nobody left to tell.
pub fn say(line: fmt::Arguments<'_>) {
    let _ = io::stderr().write_fmt(format_args!("{line}\n"));
}

/// `text` in one line: what would break it, or take over a terminal, is left out.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// What `error` says, and what to do about it where it comes from the operating system, which does not say that, or
/// is about the encryption key.
fn with_way_out(error: &Error) -> String {
    match error.kind() {
        ErrorKind::Encryption => format!("{error}{}", secrets::way_out()),
        _ => format!("{error}{}", error.io_error().map_or("", way_out)),
    }
}

/// What to do about an error of the operating system, to be put behind it.
fn way_out(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "; check the name",
        io::ErrorKind::PermissionDenied => "; take another one, or run as a user who may",
        io::ErrorKind::NotADirectory => "; a file stands where a directory was to be: take another name",
        io::ErrorKind::IsADirectory => "; a directory stands where a file was to be: take another name",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; make room and try again",
        io::ErrorKind::FileTooLarge => "; raise the limit (`ulimit -f`) and try again",
        io::ErrorKind::ReadOnlyFilesystem => "; take another place, or --read-only where that will do",
        io::ErrorKind::AddrInUse => "; end who listens there, or take another port",
        io::ErrorKind::AddrNotAvailable => "; take an address of this machine, as 127.0.0.1 and 0.0.0.0 are",
        _ => "",
    }
}

/// The core that must be in `dir`, opened as the shared options say.
fn open(args: &Args, dir: &Path) -> Result<Hypercore> {
    open_with(options(args)?, dir)
}

/// The core that must be in `dir`, as it is at this moment, whoever else has it open.
#[cfg(target_os = "linux")]
fn open_beside(args: &Args, dir: &Path) -> Result<Hypercore> {
    open_with(options(args)?.read_only(true), dir)
}

fn open_with(options: OpenOptions, dir: &Path) -> Result<Hypercore> {
    let missing = |what: &str| Failure::Failed(format!("{}: {what}; `hypercore create` makes a core", dir.display()));
    match fs::metadata(dir) {
        Ok(found) if !found.is_dir() => return Err(missing("this is a file, not the directory of a core")),
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(missing("there is no such directory")),
        Err(e) => return Err(Error::from_io(e, "open", dir).into()),
    }
    match options.create_if_missing(false).open(dir) {
        Err(e) if e.kind() == ErrorKind::StorageEmpty => Err(missing("there is no core in this directory")),
        Err(e) => Err(about(dir, e)),
        Ok(core) => {
            warn_of_loss(&core, dir);
            Ok(core)
        }
    }
}

/// Says what a crash took of the core in `dir`, if it did.
fn warn_of_loss(core: &Hypercore, dir: &Path) {
    if let Some(recovery) = core.recovery() {
        say(format_args!("{}", one_line(&format!("warning: {}: {recovery}", dir.display()))));
    }
}

/// Fails if `core`, which is in `dir`, is known to be encrypted otherwise than with the key that was given.
fn check_encryption(core: &Hypercore, dir: &Path) -> Result<()> {
    core.check_encryption().map_err(|e| about(dir, e))
}

/// What the shared options say.
fn options(args: &Args) -> Result<OpenOptions> {
    // Nobody would bring what is not here.
    let mut options = Hypercore::options().wait(false);
    if let Some(key) = args.encryption_key()? {
        options = options.encryption_key(**key);
    }
    if let Some(durability) = durability(args) {
        options = options.durability(durability);
    }
    options = options.read_only(args.has("read-only")).lock(!args.has("no-lock"));
    mapping(args, options)
}

/// `options` with or without memory maps, as `--no-map` says.
fn mapping(args: &Args, options: OpenOptions) -> Result<OpenOptions> {
    if args.has("no-map") {
        return Ok(options.map_limit(0));
    }
    // What is not locked is not mapped.
    if !args.has("read-only") && !args.has("no-lock") {
        signals::report_lost_maps()?;
    }
    Ok(options)
}

/// `error`, said about `dir` where it names no file itself.
fn about(dir: &Path, error: Error) -> Failure {
    match error.path() {
        Some(_) => error.into(),
        None => error.at(dir).into(),
    }
}

/// The durability that is asked for, if any.
fn durability(args: &Args) -> Option<Durability> {
    let level: Option<String> = args.get("durability");
    level.map(|level| match level.as_str() {
        "none" => Durability::None,
        "always" => Durability::Always,
        _ => Durability::Flush,
    })
}
