//! `hypercore clone`: downloads a core from peers.

use std::time::Duration;

use clap::{Arg, ArgAction, ValueHint};
use crossbeam_channel::bounded;
use hypercore::Key;

use crate::cli::arguments::args::Args;
use crate::cli::arguments::command::{Action, Command, flag, option, positional};
use crate::cli::arguments::values::{self, address, block_range, directory, duration};
use crate::cli::download::fetch::Fetch;
use crate::cli::download::follow::Ending;
use crate::cli::failure::{Result, about};
use crate::cli::open::{OPENING, WRITING, check_encryption, options, warn_of_loss};
use crate::cli::output::Output;
use crate::cli::signals;
use crate::cli::terminal::peer_status::Status;

/// The default of `--timeout`.
const TIMEOUT: Duration = Duration::from_secs(30);

pub const CLONE: Command = Command {
    name: "clone",
    usage: "KEY DIR --from ADDR... [--range START:END] [--live] [--timeout SECONDS]",
    about: "Download a core from one or several peers",
    details: "Downloads, verifies and stores the blocks that DIR does not hold. Ends when DIR holds the range, or \
              else the longest log that the connected peers announced. Stored blocks stay after a failure or a \
              signal, and the next clone resumes there.",
    arguments,
    shared: &[OPENING, WRITING],
    example: "hypercore clone 51ckunxisfzhtbj1ow4h6uh5x71xonmc3xm4fyiy58cq7571rzdo \\\n    copy --from 127.0.0.1:4977",
    action: Action::Run(clone),
};

fn arguments() -> Vec<Arg> {
    vec![
        positional("KEY", values::key(), "Public key of the core: 64 hex digits or the 52-character id"),
        positional("DIR", directory(), "Directory of the core, created if missing").value_hint(ValueHint::DirPath),
        option("from", "ADDR", address(), "HOST:PORT of a peer; clone asks several peers at the same time")
            .required(true)
            .action(ArgAction::Append),
        option(
            "range",
            "START:END",
            block_range(),
            "Only blocks START to END - 1; without START from block 0, without END to the end of the log",
        ),
        flag("live", "Follow the log until SIGINT or SIGTERM, and print its length whenever it changes"),
        option(
            "timeout",
            "SECONDS",
            duration(),
            "Seconds without progress after which clone fails; 0 and --live wait without limit [default: 30]",
        ),
    ]
}

fn clone(args: &Args) -> Result<()> {
    let key: Key = args.required("KEY")?;
    let dir = args.dir()?;
    let range = args.get("range").unwrap_or((0, None));
    let live = args.has("live");
    let timeout = args.get("timeout").unwrap_or(TIMEOUT);
    let timeout = Some(timeout).filter(|timeout| !live && !timeout.is_zero());
    let addresses: Vec<String> = args.all("from");

    // A signal that comes before the download has started waits for it, and then ends it.
    let (ending, end) = bounded::<Ending>(1);
    if live {
        signals::on_end(move || end.recv().map_or((), |end| end()))?;
    }
    let core = options(args)?.key(key).open(&dir).map_err(|e| about(&dir, e))?;
    warn_of_loss(&core, &dir);
    let status = if live { Status::show(std::slice::from_ref(&core))? } else { None };
    let fetch = Fetch::start(&core, &dir, &addresses, range)?;
    // The downloaded blocks show whether the encryption key is right.
    let done = if live {
        fetch.follow_until_signal(&ending)
    } else {
        fetch.finish(timeout).and_then(|()| check_encryption(&core, &dir))
    };
    let (length, byte_length) = (core.len(), core.byte_length());
    // Close also after a failure: it stores the downloaded blocks.
    let done = done.and(core.close().map_err(|e| about(&dir, e)));
    drop(status);
    done?;
    if live {
        return Ok(());
    }

    let mut out = Output::stdout();
    out.line(format_args!("length {length}"))?;
    out.line(format_args!("byte-length {byte_length}"))?;
    out.finish()
}
