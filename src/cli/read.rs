//! Reading blocks and bytes, and finding out what is held.

use std::io::Read;
use std::path::Path;

use clap::Arg;
use hypercore::{ByteOptions, Error, GetOptions, Hypercore, SeekOptions};

use super::args::Args;
use super::command::{Action, Command, core_dir, flag, option, positional};
#[cfg(target_os = "linux")]
use super::open_beside;
use super::output::Output;
use super::progress::plural;
use super::values::{Range, byte_range, whole_number};
use super::{Failure, OPENING, READING, Result, about, check_encryption, open};

pub const GET: Command = Command {
    name: "get",
    usage: "DIR INDEX",
    about: "Write one block to standard output",
    details: "Writes the block's bytes and nothing else, no newline either. Fails if the block is not held.",
    arguments: || vec![core_dir(), positional("INDEX", whole_number(), "Index of the block, counted from 0")],
    shared: &[OPENING, READING],
    example: "hypercore get log 0",
    action: Action::Run(get),
};

pub const CAT: Command = Command {
    name: "cat",
    usage: "DIR [--start N] [--end N] [--bytes OFFSET[:LENGTH]] [--lines] [--live]",
    about: "Write blocks in order, or a range of bytes",
    details: "Fails at the first block that is not held, after writing the blocks before it. With --live, on Linux, it \
              takes no lock, so that another process can append.",
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

pub const SEEK: Command = Command {
    name: "seek",
    usage: "DIR BYTE",
    about: "Find the block that holds a byte",
    details: "Prints the index of the block and the byte's offset in it. For the end of the log, prints the log's length \
              and 0.",
    arguments: || vec![core_dir(), positional("BYTE", whole_number(), "Byte offset in the log, counted from 0")],
    shared: &[OPENING, READING],
    example: "hypercore seek log 100000",
    action: Action::Run(seek),
};

pub const HAS: Command = Command {
    name: "has",
    usage: "DIR START [END]",
    about: "Tell whether a block, or every block of a range, is held",
    details: "Prints true or false. The exit code is 0 for both.",
    arguments: has_arguments,
    shared: &[OPENING, READING],
    example: "hypercore has log 0 100",
    action: Action::Run(has),
};

fn has_arguments() -> Vec<Arg> {
    vec![
        core_dir(),
        positional("START", whole_number(), "First block"),
        positional("END", whole_number(), "Block before which the range ends [default: START + 1]").required(false),
    ]
}

fn get(args: &Args) -> Result<()> {
    let dir = args.dir()?;
    let index = args.required("INDEX")?;
    let core = open(args, &dir)?;
    check_encryption(&core, &dir)?;
    let block = block(&core, &dir, index)?;
    let mut out = Output::stdout();
    out.bytes(&block)?;
    out.finish()
}

fn cat(args: &Args) -> Result<()> {
    let dir = args.dir()?;
    let (start, end) = (args.get("start").unwrap_or(0), args.get("end"));
    let (lines, live) = (args.has("lines"), args.has("live"));
    if live && args.has("read-only") && cfg!(not(target_os = "linux")) {
        return Err(args.usage("--live with --read-only is for Linux: nothing tells of what is appended here".into()));
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

fn seek(args: &Args) -> Result<()> {
    let dir = args.dir()?;
    let byte: u64 = args.required("BYTE")?;
    let core = open(args, &dir)?;
    check_encryption(&core, &dir)?;
    if byte > core.byte_length() {
        return Err(past_end(&core, &dir, byte));
    }
    let (index, offset) = if byte == core.byte_length() { (core.len(), 0) } else { holder(&core, &dir, byte)? };
    let mut out = Output::stdout();
    out.line(format_args!("{index} {offset}"))?;
    out.finish()
}

fn has(args: &Args) -> Result<()> {
    let dir = args.dir()?;
    let start: u64 = args.required("START")?;
    let end = args.get("END").unwrap_or(start.saturating_add(1));
    let core = open(args, &dir)?;
    let has = core.has_range(start..end).map_err(|e| about(&dir, e))?;
    let mut out = Output::stdout();
    out.line(format_args!("{has}"))?;
    out.finish()
}

/// Writes what is there and then what another process appends, which has the lock meanwhile.
#[cfg(target_os = "linux")]
fn cat_live(args: &Args, mut blocks: Blocks) -> Result<()> {
    // Without a core there is nothing to watch.
    drop(open_beside(args, blocks.dir)?);
    let oplog = blocks.dir.join("oplog");
    let failed = |e| Error::from_io(e, "watch", &oplog);
    // Before the log is looked at: no growth is missed.
    let mut changes = super::watch::Changes::of(&oplog).map_err(failed)?;
    while !blocks.write(&open_beside(args, blocks.dir)?)? {
        changes.wait().map_err(failed)?;
    }
    Ok(())
}

/// Writes what is there, and waits for more.
#[cfg(not(target_os = "linux"))]
fn cat_live(args: &Args, mut blocks: Blocks) -> Result<()> {
    let core = open(args, blocks.dir)?;
    let (grown, growth) = crossbeam_channel::unbounded();
    let _subscription = core.on_append(move || grown.send(()).unwrap_or(()));
    while !blocks.write(&core)? && growth.recv().is_ok() {}
    Ok(())
}

/// Blocks to be written, and how far that is.
struct Blocks<'a> {
    dir: &'a Path,
    next: u64,
    end: Option<u64>,
    lines: bool,
    /// Whether they need not all be there yet.
    live: bool,
}

impl Blocks<'_> {
    /// Writes those that `core` has by now; true if these are all.
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

/// The block that holds byte `byte`, which the log has, and the byte's place in it.
fn holder(core: &Hypercore, dir: &Path, byte: u64) -> Result<(u64, u64)> {
    let found = core.seek_with(byte, SeekOptions::new().wait(false)).map_err(|e| about(dir, e))?;
    let (mut index, offset) = found.ok_or_else(|| {
        Failure::Failed(format!(
            "{}: which block holds byte {byte} is not known here; `hypercore clone` brings what tells",
            dir.display()
        ))
    })?;
    // Where blocks are empty, several begin with this byte, and only the last of them holds it.
    let is_empty =
        |index| matches!(core.get_with(index, GetOptions::new().wait(false)), Ok(Some(block)) if block.is_empty());
    while offset == 0 && index + 1 < core.len() && is_empty(index) {
        index += 1;
    }
    Ok((index, offset))
}

/// Block `index`, or a failure that tells why there is none.
fn block(core: &Hypercore, dir: &Path, index: u64) -> Result<Vec<u8>> {
    let length = core.len();
    if index >= length {
        return Err(Failure::Failed(format!(
            "{}: there is no block {index}: the log has {}",
            dir.display(),
            plural(length, "block")
        )));
    }
    let block = core.get_with(index, GetOptions::new().wait(false)).map_err(|e| about(dir, e))?;
    block.ok_or_else(|| {
        Failure::Failed(format!(
            "{}: block {index} is not held; `hypercore clone` brings it from a peer",
            dir.display()
        ))
    })
}

fn past_end(core: &Hypercore, dir: &Path, byte: u64) -> Failure {
    Failure::Failed(format!(
        "{}: byte {byte} is past the end of the log, which has {} bytes",
        dir.display(),
        core.byte_length()
    ))
}
