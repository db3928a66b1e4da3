//! The lines that are drawn over and over at the foot of a terminal. They are taken away before anything else is written there,
//! and drawn again after it.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::cli::stderr::say;

/// What is drawn at present, on standard error. There is one terminal, so there is one of this.
static DRAWN: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The columns and rows of a terminal of which nothing is known.
const USUAL: Size = Size { columns: 80, rows: 24 };

/// How much room there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub columns: usize,
    pub rows: usize,
}

impl Size {
    /// That of the terminal which is standard output, or else standard error: as COLUMNS says, as the terminal says, or 80 by 24.
    pub fn of_terminal() -> Self {
        let size = asked().unwrap_or(USUAL);
        let told = std::env::var("COLUMNS").ok().and_then(|columns| columns.trim().parse().ok());
        let columns = told.filter(|columns| (20..=1000).contains(columns)).unwrap_or(size.columns);
        Size { columns, ..size }
    }
}

#[cfg(unix)]
fn asked() -> Option<Size> {
    use rustix::termios::tcgetwinsize;
    let size = tcgetwinsize(io::stdout()).or_else(|_| tcgetwinsize(io::stderr())).ok()?;
    // A terminal that was not told its size says 0.
    let size = Size { columns: size.ws_col.into(), rows: size.ws_row.into() };
    (size.columns > 0 && size.rows > 0).then_some(size)
}

#[cfg(not(unix))]
fn asked() -> Option<Size> {
    None
}

/// Whether anybody sees what is drawn.
pub fn is_seen() -> bool {
    io::stderr().is_terminal()
}

/// The escape sequences around what is to stand out; empty where colours are not wanted.
pub fn colour() -> (&'static str, &'static str) {
    match std::env::var_os("NO_COLOR") {
        Some(value) if !value.is_empty() => ("", ""),
        _ => ("\x1b[36m", "\x1b[0m"),
    }
}

/// Draws `lines` in the place of those that were drawn before. None of them may be longer than the terminal is wide.
pub fn draw(lines: Vec<String>) {
    let mut drawn = drawn();
    let mut text = erasing(drawn.len());
    text += &lines.join("\n");
    *drawn = lines;
    write(&text);
}

/// Takes away what is drawn.
pub fn erase() {
    let mut drawn = drawn();
    write(&erasing(drawn.len()));
    drawn.clear();
}

/// The text that takes away what is drawn; empty while another thread is drawing.
#[cfg(target_os = "linux")]
pub fn erasing_if_free() -> String {
    DRAWN.try_lock().map_or(String::new(), |drawn| erasing(drawn.len()))
}

/// Does what writes to the terminal, above what is drawn.
pub fn above<T>(print: impl FnOnce() -> T) -> T {
    let drawn = drawn();
    write(&erasing(drawn.len()));
    let printed = print();
    write(&drawn.join("\n"));
    printed
}

/// Writes a line to standard error, above what is drawn.
pub fn note(line: fmt::Arguments<'_>) {
    above(|| say(line));
}

/// `line` cut so that it stays in one row.
pub fn fit(line: &str, columns: usize) -> String {
    line.chars().take(columns.saturating_sub(1)).collect()
}

fn drawn() -> MutexGuard<'static, Vec<String>> {
    // It tells what was written last, whatever came of it.
    DRAWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What clears `rows` rows, in the last of which the cursor is.
fn erasing(rows: usize) -> String {
    match rows {
        0 => String::new(),
        1 => "\r\x1b[J".into(),
        rows => format!("\r\x1b[{}A\x1b[J", rows - 1),
    }
}

/// In one piece, so that nothing half drawn is seen. Where it fails there is nobody to see it.
fn write(text: &str) {
    if text.is_empty() {
        return;
    }
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}
