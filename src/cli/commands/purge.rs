//! `hypercore purge`: deletes a core.

use std::fs;

use hypercore::{Error, ErrorKind, Hypercore};

use crate::cli::arguments::args::Args;
use crate::cli::arguments::command::{Action, Command, core_dir};
use crate::cli::failure::{Result, about};
use crate::cli::open::{OPENING, WRITING, open, options};

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

fn purge(args: &Args) -> Result<()> {
    let dir = args.dir()?;
    // A core that cannot be opened is replaced by a new one, under its lock, which is then deleted.
    let unopenable = match Hypercore::options().read_only(true).open(&dir) {
        Err(e) if e.kind() == ErrorKind::Corrupt => true,
        // An interrupted purge leaves an empty oplog.
        Err(e) if e.kind() == ErrorKind::StorageEmpty => {
            fs::metadata(dir.join("oplog")).is_ok_and(|oplog| oplog.is_file() && oplog.len() == 0)
        }
        _ => false,
    };
    let core = match unopenable {
        true => {
            // Do not overwrite a core in a directory in which files cannot be deleted.
            tempfile::tempfile_in(&dir).map_err(|e| Error::from_io(e, "delete files in", &dir))?;
            options(args)?.overwrite(true).open(&dir).map_err(|e| about(&dir, e))?
        }
        false => open(args, &dir)?,
    };
    core.purge().map_err(|e| about(&dir, e))
}
