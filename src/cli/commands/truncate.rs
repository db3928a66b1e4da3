//! `hypercore truncate`: truncates the log to an earlier length.

use clap::Arg;

use crate::cli::arguments::args::Args;
use crate::cli::arguments::command::{Action, Command, core_dir, option, positional};
use crate::cli::arguments::values::whole_number;
use crate::cli::failure::{Failure, Result, about};
use crate::cli::open::{OPENING, WRITING, open};
use crate::cli::output::Output;

pub const TRUNCATE: Command = Command {
    name: "truncate",
    usage: "DIR LENGTH [--fork N]",
    about: "Cut the log to a length",
    details: "Removes the blocks from LENGTH on, here and at every reader that follows the log. Needs the secret key. \
              Prints the new length and fork.",
    arguments,
    shared: &[OPENING, WRITING],
    example: "hypercore truncate log 100",
    action: Action::Run(truncate),
};

fn arguments() -> Vec<Arg> {
    vec![
        core_dir(),
        positional("LENGTH", whole_number(), "Number of blocks to keep"),
        option("fork", "N", whole_number(), "New fork number, above the present one [default: the present one + 1]"),
    ]
}

fn truncate(args: &Args) -> Result<()> {
    let dir = args.dir()?;
    let length: u64 = args.required("LENGTH")?;
    let fork: Option<u64> = args.get("fork");
    let core = open(args, &dir)?;
    if fork.is_none() && length == core.len() {
        let what = format!(
            "{}: the log has {length} blocks already; --fork raises the fork without cutting the log",
            dir.display()
        );
        return Err(Failure::Failed(what));
    }
    let done = match fork {
        Some(fork) => core.truncate_to(length, fork),
        None => core.truncate(length),
    };
    let fork = done.map_err(|e| about(&dir, e))?;
    // Print before closing: the change is stored even if closing fails.
    let mut out = Output::stdout();
    out.line(format_args!("length {}", core.len()))?;
    out.line(format_args!("fork {fork}"))?;
    out.finish()?;
    core.close().map_err(|e| about(&dir, e))
}
