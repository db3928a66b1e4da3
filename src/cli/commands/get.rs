//! `hypercore get`: writes one block.

use crate::cli::arguments::args::Args;
use crate::cli::arguments::command::{Action, Command, core_dir, positional};
use crate::cli::arguments::values::whole_number;
use crate::cli::failure::Result;
use crate::cli::open::{OPENING, READING, check_encryption, open};
use crate::cli::output::Output;
use crate::cli::stored::block;

pub const GET: Command = Command {
    name: "get",
    usage: "DIR INDEX",
    about: "Write one block to standard output",
    details: "Writes the bytes of the block and no newline. Fails if DIR does not hold the block.",
    arguments: || vec![core_dir(), positional("INDEX", whole_number(), "Index of the block, counted from 0")],
    shared: &[OPENING, READING],
    example: "hypercore get log 0",
    action: Action::Run(get),
};

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
