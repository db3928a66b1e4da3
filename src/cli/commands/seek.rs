//! `hypercore seek`: finds the block that holds a byte.

use std::path::Path;

use hypercore::{GetOptions, Hypercore, SeekOptions};

use crate::cli::arguments::args::Args;
use crate::cli::arguments::command::{Action, Command, core_dir, positional};
use crate::cli::arguments::values::whole_number;
use crate::cli::failure::{Failure, Result, about};
use crate::cli::open::{OPENING, READING, check_encryption, open};
use crate::cli::output::Output;
use crate::cli::stored::past_end;

pub const SEEK: Command = Command {
    name: "seek",
    usage: "DIR BYTE",
    about: "Find the block that holds a byte",
    details: "Prints the index of the block and the byte's offset in it. If BYTE is the log's byte length, prints the \
              log's length in blocks and 0.",
    arguments: || vec![core_dir(), positional("BYTE", whole_number(), "Byte offset in the log, counted from 0")],
    shared: &[OPENING, READING],
    example: "hypercore seek log 100000",
    action: Action::Run(seek),
};

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

/// The index of the block that holds byte `byte` of the log, and the byte's offset in it.
fn holder(core: &Hypercore, dir: &Path, byte: u64) -> Result<(u64, u64)> {
    let found = core.seek_with(byte, SeekOptions::new().wait(false)).map_err(|e| about(dir, e))?;
    let (mut index, offset) = found.ok_or_else(|| {
        Failure::Failed(format!(
            "{}: the tree nodes that locate byte {byte} are not held; `hypercore clone` downloads them",
            dir.display()
        ))
    })?;
    // Empty blocks start at the same byte as the block after them, which holds it.
    let is_empty =
        |index| matches!(core.get_with(index, GetOptions::new().wait(false)), Ok(Some(block)) if block.is_empty());
    while offset == 0 && index + 1 < core.len() && is_empty(index) {
        index += 1;
    }
    Ok((index, offset))
}
