//! `hypercore has`: tells whether blocks are held.

use clap::Arg;

use crate::cli::arguments::args::Args;
use crate::cli::arguments::command::{Action, Command, core_dir, positional};
use crate::cli::arguments::values::whole_number;
use crate::cli::failure::{Result, about};
use crate::cli::open::{OPENING, READING, open};
use crate::cli::output::Output;

pub const HAS: Command = Command {
    name: "has",
    usage: "DIR START [END]",
    about: "Tell whether DIR holds a block or a whole range",
    details: "Prints true or false, and exits with 0 for both.",
    arguments,
    shared: &[OPENING, READING],
    example: "hypercore has log 0 100",
    action: Action::Run(has),
};

fn arguments() -> Vec<Arg> {
    vec![
        core_dir(),
        positional("START", whole_number(), "First block"),
        positional("END", whole_number(), "Block before which the range ends [default: START + 1]").required(false),
    ]
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
