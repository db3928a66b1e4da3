//! `hypercore create`: creates a core.

use std::path::Path;

use clap::{Arg, ValueHint};
use hypercore::{ErrorKind, Hypercore, Key, KeyPair};

use crate::cli::arguments::args::Args;
use crate::cli::arguments::command::{Action, Command, flag, option, positional};
use crate::cli::arguments::secrets;
use crate::cli::arguments::values::{directory, key};
use crate::cli::failure::{Failure, Result, about};
use crate::cli::open::{OPENING, WRITING, options};
use crate::cli::output::Output;

pub const CREATE: Command = Command {
    name: "create",
    usage: "DIR [--key KEY | --seed HEX64 | --seed-file FILE] [--overwrite]",
    about: "Create a core and print its key and id",
    details: "Without --key the core is writable, and DIR holds its secret key. Readers need the key that is printed.",
    arguments,
    shared: &[OPENING, WRITING],
    example: "hypercore create log",
    action: Action::Run(create),
};

fn arguments() -> Vec<Arg> {
    let mut arguments = vec![
        positional("DIR", directory(), "Directory of the core, created if missing").value_hint(ValueHint::DirPath),
        option("key", "KEY", key(), "Create a read-only core with this public key, to be filled by `hypercore clone`")
            .conflicts_with_all([secrets::SEED, secrets::SEED_FILE]),
    ];
    arguments.extend(secrets::seed_options());
    arguments.push(flag("overwrite", "Replace an existing core; its blocks and its secret key are lost"));
    arguments
}

fn create(args: &Args) -> Result<()> {
    let dir = args.dir()?;
    let key: Option<Key> = args.get("key");
    let seed = secrets::seed(args)?;
    let overwrite = args.has("overwrite");
    let mut options = options(args)?.overwrite(overwrite);
    if let Some(key) = key {
        options = options.key(key);
    }
    if let Some(seed) = seed {
        options = options.key_pair(KeyPair::from_seed(&seed));
    }
    if !overwrite {
        refuse_existing(&dir)?;
    }
    let core = options.open(&dir).map_err(|e| about(&dir, e))?;
    let key = core.key();
    core.close().map_err(|e| about(&dir, e))?;

    let mut out = Output::stdout();
    out.line(format_args!("key {}", key.to_hex()))?;
    out.line(format_args!("id {}", key.id()))?;
    out.finish()
}

/// Fails if there is a core in `dir`. Changes nothing.
fn refuse_existing(dir: &Path) -> Result<()> {
    match Hypercore::options().read_only(true).open(dir) {
        Ok(core) => Err(Failure::Failed(format!(
            "{}: the core {} exists already; --overwrite replaces it, unless another process has it locked",
            dir.display(),
            core.key()
        ))),
        Err(error) if error.kind() == ErrorKind::StorageEmpty => Ok(()),
        Err(error) => Err(about(dir, error)),
    }
}
