//! Cutting the log, dropping blocks, deleting the core.

use std::fs;

use hypercore::{Error, ErrorKind, Hypercore};

use super::args::{Args, Opt};
use super::output::Output;
use super::{Command, Failure, OPENING, Result, WRITING, about, open, options};

pub const TRUNCATE: Command = Command {
    name: "truncate",
    usage: "DIR LENGTH [--fork N]",
    about: "cut the log to a length, and print that and the new fork",
    details: "What is cut is gone, here and for every reader that follows. Needs the secret key.",
    own_options: &[Opt::value("--fork", "N", "the new fork, larger than the present one; default one more")],
    shared_options: &[OPENING, WRITING],
    example: "hypercore truncate log 100",
    run: truncate,
};

pub const CLEAR: Command = Command {
    name: "clear",
    usage: "DIR START [END]",
    about: "drop a block, or those of a range, and give back their disk space",
    details: "END is the block before which the range ends. The log keeps its length, and `hypercore clone` can bring the\n\
              blocks again. Prints how many blocks were dropped, and how many bytes of disk space came free.",
    own_options: &[],
    shared_options: &[OPENING, WRITING],
    example: "hypercore clear log 0 1000",
    run: clear,
};

pub const PURGE: Command = Command {
    name: "purge",
    usage: "DIR",
    about: "delete the core's files, and nothing else in the directory",
    details: "The log and its secret key are gone for good.",
    own_options: &[],
    shared_options: &[OPENING, WRITING],
    example: "hypercore purge log",
    run: purge,
};

fn truncate(args: &mut Args) -> Result<()> {
    let dir = args.next_dir()?;
    let length = args.next_number("LENGTH")?;
    args.finish()?;
    let fork = args.number_of("--fork")?;
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

fn clear(args: &mut Args) -> Result<()> {
    let dir = args.next_dir()?;
    let start = args.next_number("START")?;
    let end = args.next_number_if_any("END")?;
    args.finish()?;
    let end = end.unwrap_or(start.saturating_add(1));
    let core = open(args, &dir)?;
    if end > core.len() {
        return Err(Failure::Failed(format!(
            "{}: the log has {} blocks: it cannot be cleared up to {end}",
            dir.display(),
            core.len()
        )));
    }
    let cleared = core.clear(start..end).map_err(|e| about(&dir, e))?;
    // What is printed has happened, also where closing fails.
    let mut out = Output::stdout();
    out.line(format_args!("cleared {} blocks, {} bytes", cleared.dropped_blocks, cleared.freed_bytes))?;
    out.finish()?;
    core.close().map_err(|e| about(&dir, e))
}

fn purge(args: &mut Args) -> Result<()> {
    let dir = args.next_dir()?;
    args.finish()?;
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
