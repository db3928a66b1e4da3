//! Lines at the foot of a terminal that are redrawn in place. They are erased before other text is written, and drawn
//! again below it.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::cli::stderr::say;

/// The lines that are on the terminal now. A process has one standard error, so this is one static.
static DRAWN: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The size of a terminal that does not tell its size.
const USUAL: Size = Size { columns: 80, rows: 24 };

/// The size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub columns: usize,
    pub rows: usize,
}

impl Size {
    /// The size of the terminal on standard output, else on standard error, else 80 by 24. The variable COLUMNS,
    /// from 20 to 1000, overrides the columns.
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
    // A terminal without a size reports 0.
    let size = Size { columns: size.ws_col.into(), rows: size.ws_row.into() };
    (size.columns > 0 && size.rows > 0).then_some(size)
}

#[cfg(not(unix))]
fn asked() -> Option<Size> {
    None
}

/// Whether drawn lines are visible: standard error is a terminal.
pub fn is_seen() -> bool {
    io::stderr().is_terminal()
}

/// The escape sequences before and after highlighted text; empty if NO_COLOR is set.
pub fn colour() -> (&'static str, &'static str) {
    match std::env::var_os("NO_COLOR") {
        Some(value) if !value.is_empty() => ("", ""),
        _ => ("\x1b[36m", "\x1b[0m"),
    }
}

/// Replaces the drawn lines by `lines`. Each must be narrower than the terminal.
pub fn draw(lines: Vec<String>) {
    let mut drawn = drawn();
    let mut text = erasing(drawn.len());
    text += &lines.join("\n");
    *drawn = lines;
    write(&text);
}

/// Erases the drawn lines.
pub fn erase() {
    let mut drawn = drawn();
    write(&erasing(drawn.len()));
    drawn.clear();
}

/// The text that erases the drawn lines; empty while another thread is drawing, so that this never blocks.
#[cfg(target_os = "linux")]
pub fn erasing_if_free() -> String {
    DRAWN.try_lock().map_or(String::new(), |drawn| erasing(drawn.len()))
}

/// Calls `print`, which writes to the terminal, and keeps the drawn lines below its text.
pub fn above<T>(print: impl FnOnce() -> T) -> T {
    let drawn = drawn();
    write(&erasing(drawn.len()));
    let printed = print();
    write(&drawn.join("\n"));
    printed
}

/// Writes a line to standard error, above the drawn lines.
pub fn note(line: fmt::Arguments<'_>) {
    above(|| say(line));
}

/// `line` cut to one character less than `columns`, so that the cursor stays in the row.
pub fn fit(line: &str, columns: usize) -> String {
    line.chars().take(columns.saturating_sub(1)).collect()
}

fn drawn() -> MutexGuard<'static, Vec<String>> {
    // The list is valid after a panic: it is assigned as a whole.
    DRAWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The escape sequence that erases `rows` rows. The cursor is in the last of them.
fn erasing(rows: usize) -> String {
    match rows {
        0 => String::new(),
        1 => "\r\x1b[J".into(),
        rows => format!("\r\x1b[{}A\x1b[J", rows - 1),
    }
}

/// Writes `text` in one piece, so that no half-drawn line is visible. A failure to write is ignored.
fn write(text: &str) {
    if text.is_empty() {
        return;
    }
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}
