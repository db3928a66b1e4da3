//! Downloads a core and prints its length as it grows, until a signal comes.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use hypercore::Error;

use super::fetch::{Fetch, GRACE, Shared};
use super::here::Here;
use crate::cli::failure::{Failure, Result, about};
use crate::cli::open::check_encryption;
use crate::cli::output::Output;
use crate::cli::terminal::screen;
use crate::cli::thread::thread;

/// What a signal does.
pub type Ending = Box<dyn FnOnce() + Send>;

impl Fetch<'_> {
    /// Prints the log's length whenever everything up to it is here, until SIGINT or SIGTERM comes and what is given to `ending` is done.
    pub fn follow_until_signal(&self, ending: &Sender<Ending>) -> Result<()> {
        let (core, shared) = (self.core.clone(), self.shared.clone());
        let _ = ending.send(Box::new(move || {
            shared.stopped.store(true, Ordering::SeqCst);
            // Ends what waits for the network; what is being stored is, first.
            let _ = core.close();
            shared.ring();
        }));
        let printer = Printer::start(&self.shared)?;
        let mut here = Here::new(self.start);
        let mut printed = (0, 0);
        let mut known = false;
        loop {
            if self.shared.stopped.load(Ordering::SeqCst) {
                return Ok(());
            }
            match self.step(&printer, &mut here, &mut known, &mut printed) {
                // Closing comes in the middle of anything.
                Err(_) if self.shared.stopped.load(Ordering::SeqCst) => return Ok(()),
                stepped => stepped?,
            }
            let _ = self.wait(if known { None } else { self.look_again(GRACE) });
        }
    }

    fn step(&self, printer: &Printer, here: &mut Here, known: &mut bool, printed: &mut (u64, u64)) -> Result<()> {
        self.check()?;
        printer.check()?;
        let (length, fork) = (self.core.len(), self.core.fork());
        // What an earlier run left is not told of before a peer has said whether it is still the log.
        *known = *known || self.is_in_step(length, fork, GRACE);
        let end = self.end.unwrap_or(length).min(length);
        if !*known || (length, fork) == *printed || here.up_to(self.core).map_err(|e| about(self.dir, e))? < end {
            return Ok(());
        }
        check_encryption(self.core, self.dir)?;
        if printer.takes(length) {
            *printed = (length, fork);
        }
        Ok(())
    }
}

/// Prints lengths on a thread of its own: where nobody reads standard output, that is all that stands still.
struct Printer {
    lengths: Sender<u64>,
    failed: Receiver<Failure>,
}

impl Printer {
    /// Rings the bell whenever it can take another length, or has failed.
    fn start(shared: &Arc<Shared>) -> Result<Self> {
        let (lengths, taken) = bounded(1);
        let (failing, failed) = unbounded();
        let shared = shared.clone();
        let print = move || {
            for length in taken {
                if let Err(failure) = print_length(length) {
                    let _ = failing.send(failure);
                    return shared.ring();
                }
                shared.ring();
            }
        };
        thread("print").spawn(print).map_err(Error::from)?;
        Ok(Printer { lengths, failed })
    }

    /// Whether `length` will be printed; not if another one is still waiting for that.
    fn takes(&self, length: u64) -> bool {
        self.lengths.try_send(length).is_ok()
    }

    fn check(&self) -> Result<()> {
        self.failed.try_recv().map_or(Ok(()), Err)
    }
}

fn print_length(length: u64) -> Result<()> {
    let print = || {
        let mut out = Output::stdout();
        out.line(format_args!("length {length}"))?;
        out.finish()
    };
    // What is drawn is in the way on a terminal only; elsewhere nobody who draws is to wait until this is read.
    if io::stdout().is_terminal() { screen::above(print) } else { print() }
}
