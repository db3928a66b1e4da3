//! The options that commands share for opening cores, and how cores are opened with them.

use std::fs;
use std::io;
use std::path::Path;

use clap::Arg;
use clap::builder::PossibleValuesParser;
use hypercore::{Durability, Error, ErrorKind, Hypercore, OpenOptions};

use super::arguments::args::Args;
use super::arguments::command::{flag, option};
use super::arguments::secrets::{encryption, encryption_key};
use super::failure::{Failure, Result, about};
use super::signals;
use super::stderr::{one_line, say};

/// The options of every command that opens a core.
pub const OPENING: fn() -> Vec<Arg> = || {
    let mut options = encryption();
    options.push(flag(
        "no-lock",
        "Take no lock, for file systems without locks; make sure that no other process has the core open",
    ));
    options.push(no_map());
    options
};

pub fn no_map() -> Arg {
    flag("no-map", "Read without memory maps: slower, but a failing disk gives an error that names the file")
}

/// The options of every command that writes.
pub const WRITING: fn() -> Vec<Arg> = || {
    let levels = PossibleValuesParser::new(["none", "flush", "always"]);
    let help = "Set what a power cut can destroy: none (anything), flush (the latest changes), always (nothing) \
                [default: flush]";
    vec![option("durability", "LEVEL", levels, help).hide_possible_values(true)]
};

/// The options of every command that can work without writing.
pub const READING: fn() -> Vec<Arg> =
    || vec![flag("read-only", "Write nothing and take no lock: works while another process has the core open")];

/// Opens the core in `dir` with the shared options; fails if there is none.
pub fn open(args: &Args, dir: &Path) -> Result<Hypercore> {
    open_with(options(args)?, dir)
}

/// Opens the core in `dir` with `options`; fails if there is none. Warns of blocks that a crash destroyed.
pub fn open_with(options: OpenOptions, dir: &Path) -> Result<Hypercore> {
    let missing = |what: &str| Failure::Failed(format!("{}: {what}; `hypercore create` creates a core", dir.display()));
    match fs::metadata(dir) {
        Ok(found) if !found.is_dir() => return Err(missing("this is a file, not the directory of a core")),
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(missing("there is no such directory")),
        Err(e) => return Err(Error::from_io(e, "open", dir).into()),
    }
    match options.create_if_missing(false).open(dir) {
        Err(e) if e.kind() == ErrorKind::StorageEmpty => Err(missing("there is no core in this directory")),
        Err(e) => Err(about(dir, e)),
        Ok(core) => {
            warn_of_loss(&core, dir);
            Ok(core)
        }
    }
}

/// Warns of blocks of the core in `dir` that a crash destroyed.
pub fn warn_of_loss(core: &Hypercore, dir: &Path) {
    if let Some(recovery) = core.recovery() {
        say(format_args!("{}", one_line(&format!("warning: {}: {recovery}", dir.display()))));
    }
}

/// Fails if the blocks of `core` in `dir` are known not to be encrypted with the given key, or to be encrypted when
/// no key is given.
pub fn check_encryption(core: &Hypercore, dir: &Path) -> Result<()> {
    core.check_encryption().map_err(|e| about(dir, e))
}

/// The options of the library for the shared options. Reads the encryption key, perhaps from standard input: call it
/// once.
pub fn options(args: &Args) -> Result<OpenOptions> {
    // No peer is connected that could bring a missing block.
    let mut options = Hypercore::options().wait(false);
    if let Some(key) = encryption_key(args)? {
        options = options.encryption_key(*key);
    }
    if let Some(durability) = durability(args) {
        options = options.durability(durability);
    }
    options = options.read_only(args.has("read-only")).lock(!args.has("no-lock"));
    if args.has("no-map") {
        return Ok(options.map_limit(0));
    }
    // The library maps no file without the lock.
    if !args.has("read-only") && !args.has("no-lock") {
        signals::report_lost_maps()?;
    }
    Ok(options)
}

/// The value of `--durability`.
fn durability(args: &Args) -> Option<Durability> {
    let level: Option<String> = args.get("durability");
    level.map(|level| match level.as_str() {
        "none" => Durability::None,
        "always" => Durability::Always,
        _ => Durability::Flush,
    })
}
