//! Cutting the log, dropping blocks, deleting the core.

use std::fs;

use clap::Arg;
use hypercore::{Error, ErrorKind, Hypercore};

use super::args::Args;
use super::command::{Action, Command, core_dir, option, positional};
use super::output::Output;
use super::values::whole_number;
use super::{Failure, OPENING, Result, WRITING, about, open, options};

pub const TRUNCATE: Command = Command {
    name: "truncate",
    usage: "DIR LENGTH [--fork N]",
    about: "Cut the log to a length",
    details: "Removes the blocks from LENGTH on, here and at every reader that follows the log. Needs the secret key. \
              Prints the new length and fork.",
    arguments: truncate_arguments,
    shared: &[OPENING, WRITING],
    example: "hypercore truncate log 100",
    action: Action::Run(truncate),
};

pub const CLEAR: Command = Command {
    name: "clear",
    usage: "DIR START [END]",
    about: "Drop one block or a range, and free the disk space",
    details: "The log keeps its length, and `hypercore clone` can download the blocks again. Prints how many blocks were \
              dropped, and how many bytes of disk space were freed.",
    arguments: clear_arguments,
    shared: &[OPENING, WRITING],
    example: "hypercore clear log 0 1000",
    action: Action::Run(clear),
};

pub const PURGE: Command = Command {
    name: "purge",
    usage: "DIR",
    about: "Delete the core's files and nothing else in DIR",
    details: "The log and its secret key cannot be restored.",
    arguments: || vec![core_dir()],
    shared: &[OPENING, WRITING],
    example: "hypercore purge log",
    action: Action::Run(purge),
};

fn truncate_arguments() -> Vec<Arg> {
    vec![
        core_dir(),
        positional("LENGTH", whole_number(), "Number of blocks to keep"),
        option("fork", "N", whole_number(), "New fork, larger than the present one [default: the present one + 1]"),
    ]
}

fn clear_arguments() -> Vec<Arg> {
    vec![
        core_dir(),
        positional("START", whole_number(), "First block"),
        positional("END", whole_number(), "Block before which the range ends [default: START + 1]").required(false),
    ]
}

fn truncate(args: &Args) -> Result<()> {
    let dir = args.dir()?;
    let length: u64 = args.required("LENGTH")?;
    let fork: Option<u64> = args.get("fork");
    let core = open(args, &dir)?;
    if fork.is_none() && length == core.len() {
        let what = format!(
            "{}: the log has {length} blocks already: --fork raises the fork without cutting it",
            dir.display()
        );
        return Err(Failure::Failed(what));
    }
    let done = match fork {
        Some(fork) => core.truncate_to(length, fork),
        None => core.truncate(length),
    };
    let fork = done.map_err(|e| about(&dir, e))?;
    // What is printed has happened, also where closing fails.
    let mut out = Output::stdout();
    out.line(format_args!("length {}", core.len()))?;
    out.line(format_args!("fork {fork}"))?;
    out.finish()?;
    core.close().map_err(|e| about(&dir, e))
}

fn clear(args: &Args) -> Result<()> {
    let dir = args.dir()?;
    let start: u64 = args.required("START")?;
    let end = args.get("END").unwrap_or(start.saturating_add(1));
    let core = open(args, &dir)?;
    if end > core.len() {
        return Err(Failure::Failed(format!(
            "{}: the log has {} blocks: it cannot be cleared up to {end}",
            dir.display(),
            core.len()
        )));
    }
    let cleared = core.clear_with_diff(start..end).map_err(|e| about(&dir, e))?;
    // What is printed has happened, also where closing fails.
    let mut out = Output::stdout();
    out.line(format_args!("cleared {} blocks, {} bytes", cleared.blocks, cleared.bytes))?;
    out.finish()?;
    core.close().map_err(|e| about(&dir, e))
}

fn purge(args: &Args) -> Result<()> {
    let dir = args.dir()?;
    // What cannot be opened can still be replaced by a new core, under its lock, and that be deleted.
    let unopenable = match Hypercore::options().read_only(true).open(&dir) {
        Err(e) if e.kind() == ErrorKind::Corrupt => true,
        // So it is left by a purge that was cut short.
        Err(e) if e.kind() == ErrorKind::StorageEmpty => {
            fs::metadata(dir.join("oplog")).is_ok_and(|oplog| oplog.is_file() && oplog.len() == 0)
        }
        _ => false,
    };
    let core = match unopenable {
        true => {
            // Where nothing can be deleted, nothing is to be overwritten either.
            tempfile::tempfile_in(&dir).map_err(|e| Error::from_io(e, "delete files in", &dir))?;
            options(args)?.overwrite(true).open(&dir).map_err(|e| about(&dir, e))?
        }
        false => open(args, &dir)?,
    };
    core.purge().map_err(|e| about(&dir, e))
}
