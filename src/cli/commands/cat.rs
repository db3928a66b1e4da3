//! `hypercore cat`: writes blocks in order, or a range of bytes.

use std::io::Read;
use std::path::Path;

use clap::Arg;
use hypercore::{ByteOptions, Error, Hypercore};

use crate::cli::arguments::args::Args;
use crate::cli::arguments::command::{Action, Command, core_dir, flag, option};
use crate::cli::arguments::values::{Range, byte_range, whole_number};
use crate::cli::failure::{Failure, Result, about};
#[cfg(target_os = "linux")]
use crate::cli::file_changes::Changes;
use crate::cli::open::{OPENING, READING, check_encryption, open};
#[cfg(target_os = "linux")]
use crate::cli::open::{open_with, options};
use crate::cli::output::Output;
use crate::cli::stored::{block, past_end};
use crate::cli::terminal::units::plural;

pub const CAT: Command = Command {
    name: "cat",
    usage: "DIR [--start N] [--end N] [--bytes OFFSET[:LENGTH]] [--lines] [--live]",
    about: "Write blocks in order, or a range of bytes",
    details: "Fails at the first block that DIR does not hold, after it has written the blocks before it. With --live \
              on Linux, takes no lock, so that another process can append.",
    arguments: cat_arguments,
    shared: &[OPENING, READING],
    example: "hypercore cat log --start 10 --end 20 --lines",
    action: Action::Run(cat),
};

fn cat_arguments() -> Vec<Arg> {
    vec![
        core_dir(),
        option("start", "N", whole_number(), "First block [default: 0]"),
        option("end", "N", whole_number(), "Block before which to stop [default: the log's length]"),
        option(
            "bytes",
            "OFFSET[:LENGTH]",
            byte_range(),
            "Write LENGTH bytes from byte OFFSET on; without LENGTH, up to the end of the log",
        )
        .conflicts_with_all(["start", "end", "lines", "live"]),
        flag("lines", "Write a newline after each block"),
        flag("live", "At the end of the log, wait for new blocks until interrupted"),
    ]
}

fn cat(args: &Args) -> Result<()> {
    let dir = args.dir()?;
    let (start, end) = (args.get("start").unwrap_or(0), args.get("end"));
    let (lines, live) = (args.has("lines"), args.has("live"));
    if live && args.has("read-only") && cfg!(not(target_os = "linux")) {
        return Err(args.usage("--live with --read-only works only on Linux".into()));
    }
    if let Some(end) = end.filter(|&end| end < start) {
        return Err(args.usage(format!("--end {end} is before --start {start}")));
    }
    let mut blocks = Blocks { dir: &dir, next: start, end, lines, live };
    match args.get("bytes") {
        Some(range) => cat_bytes(&open(args, &dir)?, &dir, range),
        None if live => cat_live(args, blocks),
        None => blocks.write(&open(args, &dir)?).map(drop),
    }
}

/// Writes the blocks of the log, then those that another process appends. Takes no lock, so that the
/// other process can.
#[cfg(target_os = "linux")]
fn cat_live(args: &Args, mut blocks: Blocks) -> Result<()> {
    // A read-only core is a snapshot: each look at the log opens it again.
    let options = options(args)?.read_only(true);
    // Fail if there is no core to watch.
    drop(open_with(options.clone(), blocks.dir)?);
    let oplog = blocks.dir.join("oplog");
    let failed = |e| Error::from_io(e, "watch", &oplog);
    // Watch before reading, so that no append is missed.
    let mut changes = Changes::of(&oplog).map_err(failed)?;
    while !blocks.write(&open_with(options.clone(), blocks.dir)?)? {
        changes.wait().map_err(failed)?;
    }
    Ok(())
}

/// Writes the blocks of the log, and then those that are appended.
#[cfg(not(target_os = "linux"))]
fn cat_live(args: &Args, mut blocks: Blocks) -> Result<()> {
    let core = open(args, blocks.dir)?;
    let (grown, growth) = crossbeam_channel::unbounded();
    let _subscription = core.on_append(move || grown.send(()).unwrap_or(()));
    while !blocks.write(&core)? && growth.recv().is_ok() {}
    Ok(())
}

/// The blocks that are still to be written.
struct Blocks<'a> {
    dir: &'a Path,
    next: u64,
    end: Option<u64>,
    lines: bool,
    /// Whether blocks past the end of the log are waited for.
    live: bool,
}

impl Blocks<'_> {
    /// Writes the blocks that `core` has now. Returns whether the end of the range is reached.
    fn write(&mut self, core: &Hypercore) -> Result<bool> {
        check_encryption(core, self.dir)?;
        let here = core.len();
        let until = match self.end {
            Some(end) if self.live => end.min(here),
            Some(end) => end,
            None => here,
        };
        if self.next > here && !self.live {
            let (dir, next) = (self.dir.display(), self.next);
            return Err(Failure::Failed(format!(
                "{dir}: --start {next} is past the end of the log, which has {}",
                plural(here, "block")
            )));
        }
        let mut out = Output::stdout();
        while self.next < until {
            let block = match block(core, self.dir, self.next) {
                Ok(block) => block,
                Err(failure) => {
                    out.flush()?;
                    return Err(failure);
                }
            };
            out.bytes(&block)?;
            if self.lines {
                out.bytes(b"\n")?;
            }
            self.next += 1;
        }
        out.finish()?;
        Ok(self.end.is_some_and(|end| self.next >= end))
    }
}

fn cat_bytes(core: &Hypercore, dir: &Path, (offset, length): Range) -> Result<()> {
    check_encryption(core, dir)?;
    let total = core.byte_length();
    if offset > total {
        return Err(past_end(core, dir, offset));
    }
    let here = total - offset;
    let wanted = length.unwrap_or(here);
    let options = ByteOptions::new().byte_offset(offset).byte_length(wanted.min(here));
    let mut stream = core.byte_stream(options).map_err(|e| about(dir, e))?;
    let mut out = Output::stdout();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => out.bytes(&buffer[..n])?,
            Err(error) => {
                out.flush()?;
                return Err(about(dir, Error::from(error)));
            }
        }
    }
    out.finish()?;
    if wanted > here { Err(past_end(core, dir, offset.saturating_add(wanted))) } else { Ok(()) }
}
