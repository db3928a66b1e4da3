//! Names a test that hangs, and ends the whole run: a thread that is stuck in a system call cannot be ended alone.

use std::io::{self, Write};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;
use std::{process, thread};

use super::machine::limit;

/// A limit of the test's duration. Dropped in time, it does nothing.
pub struct Watchdog {
    _alive: Sender<()>,
}

impl Watchdog {
    pub fn new(name: impl Into<String>, limit: Duration) -> Watchdog {
        let name = name.into();
        let (alive, dropped) = mpsc::channel::<()>();
        thread::spawn(move || {
            if dropped.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                // `eprintln` would be captured with the test's output.
                let _ = writeln!(io::stderr(), "watchdog: {name} did not end within {limit:?}");
                process::abort();
            }
        });
        Watchdog { _alive: alive }
    }
}

/// A watchdog over the test that calls this, of 180 seconds.
pub fn watchdog() -> Watchdog {
    of_this_test(180)
}

/// A watchdog of 1200 seconds, for a test that keeps all processors busy for minutes while others run, too.
pub fn patient_watchdog() -> Watchdog {
    of_this_test(1200)
}

fn of_this_test(seconds: u64) -> Watchdog {
    Watchdog::new(thread::current().name().unwrap_or("a test"), limit(seconds))
}
