//! Reading blocks and bytes, and finding out what is held.

use std::ffi::OsStr;
use std::io::Read;
use std::path::Path;
use std::sync::mpsc;

use hypercore::{ByteOptions, Error, GetOptions, Hypercore, SeekOptions};

use super::args::{Args, Opt};
use super::output::Output;
use super::{Command, Failure, OPENING, READING, Result, about, open};

pub const GET: Command = Command {
    name: "get",
    usage: "DIR INDEX",
    about: "write one block, and nothing else",
    details: "Blocks are counted from 0. Fails if the block is not held.",
    own_options: &[],
    shared_options: &[OPENING, READING],
    example: "hypercore get log 0",
    run: get,
};

pub const CAT: Command = Command {
    name: "cat",
    usage: "DIR [--start N] [--end N] [--bytes OFFSET[:LENGTH]] [--lines] [--live]",
    about: "write blocks in order, or a range of bytes",
    details: "At a block that is not held it stops and fails.",
    own_options: &[
        Opt::value("--start", "N", "the first block; default 0"),
        Opt::value("--end", "N", "the block before which to end; default the log's length"),
        Opt::value("--bytes", "OFFSET[:LENGTH]", "bytes instead of blocks, to the end where no length is given"),
        Opt::flag("--lines", "a newline after each block"),
        Opt::flag("--live", "wait for more at the end of the log, until interrupted"),
    ],
    shared_options: &[OPENING, READING],
    example: "hypercore cat log --start 10 --end 20 --lines",
    run: cat,
};

pub const SEEK: Command = Command {
    name: "seek",
    usage: "DIR BYTE",
    about: "find the block that holds a byte: its index, and the byte's place in it",
    details: "For the end of the log, its length and 0.",
    own_options: &[],
    shared_options: &[OPENING, READING],
    example: "hypercore seek log 100000",
    run: seek,
};

pub const HAS: Command = Command {
    name: "has",
    usage: "DIR START [END]",
    about: "tell whether a block, or every block of a range, is held: true or false",
    details: "END is the block before which the range ends. The exit code is 0 for both answers.",
    own_options: &[],
    shared_options: &[OPENING, READING],
    example: "hypercore has log 0 100",
    run: has,
};

fn get(args: &mut Args) -> Result<()> {
    let dir = args.next_dir()?;
    let index = args.next_number("INDEX")?;
    args.finish()?;
    let core = open(args, &dir)?;
    let block = block(&core, &dir, index)?;
    let mut out = Output::stdout();
    out.bytes(&block)?;
    out.finish()
}

fn cat(args: &mut Args) -> Result<()> {
    let dir = args.next_dir()?;
    args.finish()?;
    let (start, end) = (args.number_of("--start")?, args.number_of("--end")?);
    let (lines, live) = (args.has("--lines"), args.has("--live"));
    let bytes = args.value("--bytes").map(|range| byte_range(args, range)).transpose()?;
    if bytes.is_some() && (start.is_some() || end.is_some() || lines || live) {
        return Err(args.usage("--bytes goes with none of --start, --end, --lines, --live".into()));
    }
    if live && args.has("--read-only") {
        return Err(args.usage(
            "--live and --read-only exclude each other: the one follows the log, the other shows it as it was".into(),
        ));
    }
    let start = start.unwrap_or(0);
    if let Some(end) = end.filter(|&end| end < start) {
        return Err(args.usage(format!("--end {end} is before --start {start}")));
    }
    let core = open(args, &dir)?;
    match bytes {
        Some((offset, length)) => cat_bytes(&core, &dir, offset, length),
        None => cat_blocks(&core, &dir, start, end, lines, live),
    }
}

fn seek(args: &mut Args) -> Result<()> {
    let dir = args.next_dir()?;
    let byte = args.next_number("BYTE")?;
    args.finish()?;
    let core = open(args, &dir)?;
    if byte > core.byte_length() {
        return Err(past_end(&core, &dir, byte));
    }
    let (index, offset) = if byte == core.byte_length() { (core.len(), 0) } else { holder(&core, &dir, byte)? };
    let mut out = Output::stdout();
    out.line(format_args!("{index} {offset}"))?;
    out.finish()
}

fn has(args: &mut Args) -> Result<()> {
    let dir = args.next_dir()?;
    let start = args.next_number("START")?;
    let end = args.next_number_if_any("END")?;
    args.finish()?;
    let end = end.unwrap_or(start.saturating_add(1));
    let core = open(args, &dir)?;
    let has = core.has_range(start..end).map_err(|e| about(&dir, e))?;
    let mut out = Output::stdout();
    out.line(format_args!("{has}"))?;
    out.finish()
}

fn cat_blocks(core: &Hypercore, dir: &Path, start: u64, end: Option<u64>, lines: bool, live: bool) -> Result<()> {
    let mut out = Output::stdout();
    // Subscribed before the length is looked at: no growth is missed.
    let (grown, growth) = mpsc::channel();
    let _subscription = live.then(|| {
        core.on_append(move || {
            let _ = grown.send(());
        })
    });
    let mut next = start;
    loop {
        let here = core.len();
        let until = match end {
            Some(end) if live => end.min(here),
            Some(end) => end,
            None => here,
        };
        if start > here && !live {
            return Err(Failure::Failed(format!("{}: --start {start} is past the log's {here} blocks", dir.display())));
        }
        while next < until {
            let block = match block(core, dir, next) {
                Ok(block) => block,
                Err(failure) => {
                    out.flush()?;
                    return Err(failure);
                }
            };
            out.bytes(&block)?;
            if lines {
                out.bytes(b"\n")?;
            }
            next += 1;
        }
        out.flush()?;
        if !live || end.is_some_and(|end| next >= end) || growth.recv().is_err() {
            return Ok(());
        }
    }
}

fn cat_bytes(core: &Hypercore, dir: &Path, offset: u64, length: Option<u64>) -> Result<()> {
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

fn byte_range(args: &Args, range: &OsStr) -> Result<(u64, Option<u64>)> {
    let text = range.to_string_lossy();
    match text.split_once(':') {
        Some((offset, length)) => {
            Ok((args.to_number("--bytes", offset.as_ref())?, Some(args.to_number("--bytes", length.as_ref())?)))
        }
        None => Ok((args.to_number("--bytes", range)?, None)),
    }
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
            "{}: there is no block {index}: the log has {length} blocks",
            dir.display()
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
