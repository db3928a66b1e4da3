//! `hypercore append`: appends files or standard input.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use clap::{Arg, ValueHint};
use hypercore::Error;

use crate::cli::appender::{Appender, Cut, DEFAULT_BLOCK};
use crate::cli::arguments::args::Args;
use crate::cli::arguments::command::{Action, Command, flag, option, positional};
use crate::cli::arguments::secrets;
use crate::cli::arguments::values::{block_size, directory, text};
use crate::cli::failure::{Failure, Result, about};
use crate::cli::open::{OPENING, WRITING, check_encryption, options, warn_of_loss};
use crate::cli::output::Output;

/// The files of a core. Appending one to its own core would never end, because it grows while it is read.
const CORE_FILES: [&str; 5] = ["oplog", "tree", "bitfield", "data", "header"];

pub const APPEND: Command = Command {
    name: "append",
    usage: "DIR [FILE]... [--lines | --whole | --block-size N]",
    about: "Append files or standard input",
    details: "Creates the core if DIR has none. Each file starts a new block. Prints the new length in blocks and in \
              bytes.",
    arguments,
    shared: &[OPENING, WRITING],
    example: "hypercore append log --lines < access.log",
    action: Action::Run(append),
};

fn arguments() -> Vec<Arg> {
    vec![
        positional("DIR", directory(), "Directory of the core, created if missing").value_hint(ValueHint::DirPath),
        positional("FILE", text(), "Files to append; standard input if none is named, or for -")
            .required(false)
            .num_args(0..)
            .value_hint(ValueHint::FilePath),
        flag("lines", "One block per line, without its newline, appended as lines arrive")
            .conflicts_with_all(["whole", "block-size"]),
        flag("whole", "One block per file").conflicts_with("block-size"),
        option("block-size", "N", block_size(), "Blocks of N bytes, at most 15728640 [default: 65536]"),
    ]
}

enum Input {
    Stdin,
    File(PathBuf),
}

fn append(args: &Args) -> Result<()> {
    let dir = args.dir()?;
    let cut = cut(args);
    let mut inputs = Vec::new();
    for name in args.all("FILE") {
        inputs.push(input(args, name, &inputs)?);
    }
    if inputs.is_empty() {
        inputs.push(Input::Stdin);
    }
    if inputs.iter().any(|input| matches!(input, Input::Stdin)) {
        secrets::leave_stdin_to(args, "to be appended")?;
    }
    let options = options(args)?;
    let total = check_inputs(&dir, &inputs)?;

    let core = options.open(&dir).map_err(|e| about(&dir, e))?;
    warn_of_loss(&core, &dir);
    // Check before reading a pipe, which cannot be read again.
    check_encryption(&core, &dir)?;
    let mut appender = Appender::new(&core, &dir, cut, total);
    for input in &inputs {
        append_input(&mut appender, input)?;
    }
    appender.append_pending()?;
    drop(appender);
    let (length, byte_length) = (core.len(), core.byte_length());
    core.close().map_err(|e| about(&dir, e))?;

    let mut out = Output::stdout();
    out.line(format_args!("length {length}"))?;
    out.line(format_args!("byte-length {byte_length}"))?;
    out.finish()
}

/// Appends all of `input`.
fn append_input(appender: &mut Appender, input: &Input) -> Result<()> {
    match input {
        Input::Stdin => appender.append_from(io::stdin().lock(), Path::new("standard input")),
        Input::File(path) => {
            let file = File::open(path).map_err(|e| appender.failed(&Error::from_io(e, "open", path)))?;
            appender.append_from(file, path)
        }
    }
}

fn cut(args: &Args) -> Cut {
    match (args.has("lines"), args.has("whole")) {
        (true, _) => Cut::Lines,
        (_, true) => Cut::Whole,
        _ => Cut::Every(args.get("block-size").unwrap_or(DEFAULT_BLOCK)),
    }
}

fn input(args: &Args, name: OsString, before: &[Input]) -> Result<Input> {
    if name != "-" {
        return Ok(Input::File(name.into()));
    }
    if before.iter().any(|input| matches!(input, Input::Stdin)) {
        return Err(args.usage("- is given twice, but standard input can be read only once".into()));
    }
    Ok(Input::Stdin)
}

/// Fails if a file cannot be read, before anything is appended. Returns the bytes of all inputs, if known.
fn check_inputs(dir: &Path, inputs: &[Input]) -> Result<Option<u64>> {
    let mut total = Some(0u64);
    for input in inputs {
        let Input::File(path) = input else {
            total = None;
            continue;
        };
        let found = fs::metadata(path).map_err(|e| Error::from_io(e, "open", path))?;
        if found.is_dir() {
            return Err(Failure::Failed(format!("{}: it is a directory; name the files in it", path.display())));
        }
        // Opening and closing a named pipe here would end its writer.
        if !found.is_file() {
            total = None;
            continue;
        }
        File::open(path).map_err(|e| Error::from_io(e, "open", path))?;
        if is_of_core(dir, path) {
            return Err(Failure::Failed(format!(
                "{}: it is a file of the core to which it would be appended; name another file",
                path.display()
            )));
        }
        total = total.and_then(|total| total.checked_add(found.len()));
    }
    Ok(total)
}

fn is_of_core(dir: &Path, path: &Path) -> bool {
    let (Ok(dir), Ok(path)) = (dir.canonicalize(), path.canonicalize()) else { return false };
    path.parent() == Some(&dir) && CORE_FILES.iter().any(|name| path.file_name().is_some_and(|n| n == *name))
}
