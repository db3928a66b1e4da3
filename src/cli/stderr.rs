//! Lines on standard error.

use std::fmt;
use std::io::{self, Write};

/// Writes a line to standard error. Where that fails there is nobody left to tell.
pub fn say(line: fmt::Arguments<'_>) {
    let _ = io::stderr().write_fmt(format_args!("{line}\n"));
}

/// `text` in one line: what would break it, or take over a terminal, is left out.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
