//! `hypercore serve`: replicates cores over TCP.

use std::io;
use std::path::{Path, PathBuf};

use clap::Arg;
use crossbeam_channel::unbounded;
use hypercore::net::Server;
use hypercore::{ErrorKind, Hypercore, MAX_BLOCK_SIZE};

use crate::cli::arguments::args::Args;
use crate::cli::arguments::command::{Action, Command, core_dir, flag, option};
use crate::cli::arguments::secrets;
use crate::cli::arguments::values::address;
use crate::cli::failure::{Failure, Result, about};
use crate::cli::line_reader::{Lines, Part, batches};
use crate::cli::open::{OPENING, WRITING, check_encryption, open_with, options};
use crate::cli::output::Output;
use crate::cli::remedy::remedy;
use crate::cli::signals;
use crate::cli::terminal::peer_status::Status;
use crate::cli::thread::thread;

pub const SERVE: Command = Command {
    name: "serve",
    usage: "DIR... [--listen ADDR] [--append-lines]",
    about: "Replicate cores over TCP until SIGINT or SIGTERM",
    details: "Prints the address on which it listens, then the key of each core. Only peers that know a core's key can \
              read it. One connection can carry several cores.",
    arguments,
    shared: &[OPENING, WRITING],
    example: "hypercore serve log --listen 0.0.0.0:4977",
    action: Action::Run(serve),
};

fn arguments() -> Vec<Arg> {
    vec![
        core_dir().help("Directories of the cores").num_args(1..),
        option(
            "listen",
            "ADDR",
            address(),
            "HOST:PORT on which to listen; port 0 takes a free one [default: 127.0.0.1:0]",
        ),
        flag("append-lines", "Append each line of standard input to the first core"),
    ]
}

fn serve(args: &Args) -> Result<()> {
    let dirs: Vec<PathBuf> = args.all("DIR");
    let address = args.get("listen").unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let appends = args.has("append-lines");
    if appends {
        secrets::leave_stdin_to(args, "to be appended")?;
    }
    let options = options(args)?;
    let mut cores = Vec::new();
    for dir in &dirs {
        cores.push(open_with(options.clone(), dir)?);
    }
    if appends && !cores[0].writable() {
        return Err(Failure::Failed(format!(
            "{}: --append-lines needs the secret key, which is not here",
            dirs[0].display()
        )));
    }
    if appends {
        check_encryption(&cores[0], &dirs[0])?;
    }

    let (ending, end) = unbounded::<Result<()>>();
    let on_signal = ending.clone();
    signals::on_end(move || {
        let _ = on_signal.send(Ok(()));
    })?;
    // Start before the first connection is accepted.
    let status = Status::show(&cores)?;
    let server = Server::listen(&address, cores.clone())
        .map_err(|e| Failure::Failed(format!("{address}: cannot listen: {}", reason(&e))))?;
    let mut out = Output::stdout();
    out.line(format_args!("listening {}", server.local_addr()))?;
    for core in &cores {
        out.line(format_args!("core {}", core.key().to_hex()))?;
    }
    out.finish()?;
    if appends {
        let (core, dir, ending) = (cores[0].clone(), dirs[0].clone(), ending.clone());
        // The end of the input does not end serving.
        let append = move || append_lines(&core, &dir).unwrap_or_else(|failure| drop(ending.send(Err(failure))));
        thread("append-lines").spawn(append).map_err(hypercore::Error::from)?;
    }

    let outcome = end.recv().unwrap_or(Ok(()));
    server.close();
    let outcome = outcome.and(close(&cores, &dirs));
    drop(status);
    outcome
}

/// Appends lines until standard input ends. A last line without newline may be incomplete and is not appended.
fn append_lines(core: &Hypercore, dir: &Path) -> Result<()> {
    let stdin = |what: String| Failure::Failed(format!("standard input: {what}"));
    let mut lines = Lines::new(io::stdin().lock());
    loop {
        match lines.read().map_err(|e| stdin(format!("cannot read: {e}")))? {
            Part::Lines(text) => {
                for batch in batches(text) {
                    match core.append_batch(batch) {
                        // A signal closed the core. The batch is not stored, and was not acknowledged.
                        Err(e) if e.kind() == ErrorKind::Closed => return Ok(()),
                        appended => appended.map_err(|e| about(dir, e))?,
                    };
                }
            }
            Part::TooLong => {
                return Err(stdin(format!("a line is larger than the {MAX_BLOCK_SIZE} bytes that fit in a block")));
            }
            Part::End(_) => return Ok(()),
        }
    }
}

fn close(cores: &[Hypercore], dirs: &[PathBuf]) -> Result<()> {
    let mut done = Ok(());
    for (core, dir) in cores.iter().zip(dirs) {
        done = done.and(core.close().map_err(|e| about(dir, e)));
    }
    done
}

/// The error of the operating system with its remedy, without the name of the operation.
fn reason(error: &hypercore::Error) -> String {
    error.io_error().map_or_else(|| error.to_string(), |error| format!("{error}{}", remedy(error)))
}
