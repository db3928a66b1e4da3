//! Making a core.

use std::path::Path;

use hypercore::{ErrorKind, Hypercore, KeyPair};

use super::args::{Args, Opt};
use super::output::Output;
use super::{Command, Failure, OPENING, Result, WRITING, about, options, secrets};

pub const CREATE: Command = Command {
    name: "create",
    usage: "DIR [--key KEY] [--seed HEX64 | --seed-file FILE] [--overwrite]",
    about: "make a core in a directory, and print its key and id",
    details: "Without options the core has a new key pair and is writable. The key is what others need to read it;\n\
              the secret half stays in DIR.",
    own_options: &[
        Opt::value("--key", "KEY", "make a read-only core, to be filled by `hypercore clone`"),
        Opt::value("--seed", "HEX64", "grow the key pair from 32 bytes, the same each time"),
        Opt::value("--seed-file", "FILE", "the same from a file of 64 hexadecimal digits, - for standard input"),
        Opt::flag("--overwrite", "start anew over a core that is there; its data is lost"),
    ],
    shared_options: &[OPENING, WRITING],
    example: "hypercore create log",
    run: create,
};

fn create(args: &mut Args) -> Result<()> {
    let dir = args.next_dir()?;
    args.finish()?;
    let key = args.key_of("--key")?;
    for option in ["--seed", "--seed-file"] {
        if key.is_some() && args.has(option) {
            let why = "one makes a reader, the other a writer";
            return Err(args.usage(format!("--key and {option} exclude each other: {why}")));
        }
    }
    let seed = secrets::seed(args)?;
    let overwrite = args.has("--overwrite");
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
    out.line(format_args!("key {key}"))?;
    out.line(format_args!("id {}", key.id()))?;
    out.finish()
}

/// Fails if there is a core in `dir`, which is not touched.
fn refuse_existing(dir: &Path) -> Result<()> {
    match Hypercore::options().read_only(true).open(dir) {
        Ok(core) => Err(Failure::Failed(format!(
            "{}: the core {} is here already; --overwrite starts anew over it, once no other process has it locked",
            dir.display(),
            core.key()
        ))),
        Err(error) if error.kind() == ErrorKind::StorageEmpty => Ok(()),
        Err(error) => Err(about(dir, error)),
    }
}
