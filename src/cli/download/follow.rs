//! Follows a core: prints its length at each change, until a signal.

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

/// The function that a signal calls.
pub type Ending = Box<dyn FnOnce() + Send>;

impl Fetch<'_> {
    /// Prints the length of the log whenever it has changed and the range is complete up to it. Sends `ending` the
    /// function that SIGINT and SIGTERM must call, and returns after that.
    pub fn follow_until_signal(&self, ending: &Sender<Ending>) -> Result<()> {
        let (core, shared) = (self.core.clone(), self.shared.clone());
        let _ = ending.send(Box::new(move || {
            shared.stopped.store(true, Ordering::SeqCst);
            // Closing ends the waits for the network, after the blocks that are being stored.
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
                // The core may be closed at any moment of the step.
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
        // Do not print the length of an earlier run before a peer has confirmed the log.
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

/// Prints lengths on a thread: a blocked standard output must not block the download.
struct Printer {
    lengths: Sender<u64>,
    failed: Receiver<Failure>,
}

impl Printer {
    /// Starts the thread. It rings the bell after each printed length and after a failure.
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

    /// Queues `length`; false if another length is still queued.
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
    // Lines drawn on the terminal must move only if standard output is a terminal. In a pipe, a slow reader must
    // not block the thread that draws.
    if io::stdout().is_terminal() { screen::above(print) } else { print() }
}
