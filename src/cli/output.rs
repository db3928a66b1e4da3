//! Standard output. A closed pipe ends a command quietly; another failure to write is an error.

use std::fmt;
use std::io::{self, BufWriter, StdoutLock, Write};

use super::failure::{Failure, Result};
use super::remedy::remedy;

/// Standard output, locked and buffered. Everything is written once [`Output::flush`] or
/// [`Output::finish`] has returned.
pub struct Output(BufWriter<StdoutLock<'static>>);

impl Output {
    /// Locks standard output until dropped.
    pub fn stdout() -> Self {
        Output(BufWriter::with_capacity(64 * 1024, io::stdout().lock()))
    }

    pub fn line(&mut self, line: fmt::Arguments<'_>) -> Result<()> {
        self.0.write_fmt(format_args!("{line}\n")).map_err(failure)
    }

    pub fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.write_all(bytes).map_err(failure)
    }

    pub fn flush(&mut self) -> Result<()> {
        self.0.flush().map_err(failure)
    }

    /// Flushes, and unlocks standard output.
    pub fn finish(mut self) -> Result<()> {
        self.flush()
    }
}

fn failure(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::OutputClosed,
        _ => Failure::Failed(format!("standard output: cannot write: {error}{}", remedy(&error))),
    }
}
