//! `hypercore clear`: drops blocks.

use clap::Arg;

use crate::cli::arguments::args::Args;
use crate::cli::arguments::command::{Action, Command, core_dir, positional};
use crate::cli::arguments::values::whole_number;
use crate::cli::failure::{Failure, Result, about};
use crate::cli::open::{OPENING, WRITING, open};
use crate::cli::output::Output;

pub const CLEAR: Command = Command {
    name: "clear",
    usage: "DIR START [END]",
    about: "Delete blocks and free their disk space",
    details: "The log keeps its length, and `hypercore clone` can download the blocks again. Prints how many blocks were \
              deleted and how many bytes of disk space became free.",
    arguments,
    shared: &[OPENING, WRITING],
    example: "hypercore clear log 0 1000",
    action: Action::Run(clear),
};

fn arguments() -> Vec<Arg> {
    vec![
        core_dir(),
        positional("START", whole_number(), "First block to delete"),
        positional("END", whole_number(), "Block before which to stop [default: START + 1]").required(false),
    ]
}

fn clear(args: &Args) -> Result<()> {
    let dir = args.dir()?;
    let start: u64 = args.required("START")?;
    let end = args.get("END").unwrap_or(start.saturating_add(1));
    let core = open(args, &dir)?;
    if end > core.len() {
        return Err(Failure::Failed(format!(
            "{}: the log has {} blocks, so it cannot be cleared up to {end}; give an END within the log",
            dir.display(),
            core.len()
        )));
    }
    let cleared = core.clear(start..end).map_err(|e| about(&dir, e))?;
    // Print before closing: the change is stored even if closing fails.
    let mut out = Output::stdout();
    out.line(format_args!("cleared {} blocks, {} bytes", cleared.dropped_blocks, cleared.freed_bytes))?;
    out.finish()?;
    core.close().map_err(|e| about(&dir, e))
}
