//! Lines on standard error.

use std::fmt;
use std::io::{self, Write};

/// Writes a line to standard error. A failure to write is ignored: it cannot be reported.
pub fn say(line: fmt::Arguments<'_>) {
    let _ = io::stderr().write_fmt(format_args!("{line}\n"));
}

/// `text` with a space for each control character, so that it stays one line and cannot control a terminal.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
