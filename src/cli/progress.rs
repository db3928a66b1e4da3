//! How far a long job is, as one line that is drawn over and over. Only on a terminal; elsewhere nothing is drawn.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// A drawn line stays this long at least.
const REDRAW: Duration = Duration::from_millis(100);

/// A line on standard error that tells how far a job is.
pub struct Progress {
    what: &'static str,
    unit: Unit,
    total: Option<u64>,
    started: Instant,
    /// When the line was drawn last; none where there is no terminal.
    drawn: Option<Instant>,
    width: usize,
    colour: bool,
    shown: bool,
}

/// What a job counts.
#[derive(Clone, Copy)]
pub enum Unit {
    Bytes,
    Blocks,
}

impl Progress {
    /// A job that does `what` to so many of `unit`, if that is known.
    pub fn new(what: &'static str, unit: Unit, total: Option<u64>) -> Self {
        let started = Instant::now();
        Progress {
            what,
            unit,
            total: total.filter(|&total| total > 0),
            started,
            drawn: io::stderr().is_terminal().then_some(started),
            width: terminal_width(),
            colour: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
            shown: false,
        }
    }

    /// Tells that the job has done `done`.
    pub fn at(&mut self, done: u64) {
        let now = Instant::now();
        if self.drawn.is_none_or(|drawn| now - drawn < REDRAW) {
            return;
        }
        self.drawn = Some(now);
        self.shown = true;
        let line = self.line(done, now - self.started);
        let (on, off) = if self.colour { ("\x1b[36m", "\x1b[0m") } else { ("", "") };
        let mut stderr = io::stderr();
        let _ = write!(stderr, "\r{on}{line}{off}\x1b[K").and_then(|()| stderr.flush());
    }

    /// Sets how much there is to do in all.
    pub fn expect(&mut self, total: u64) {
        self.total = Some(total).filter(|&total| total > 0);
    }

    /// Takes the line away: what comes next stands alone.
    pub fn hide(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }

    fn line(&self, done: u64, elapsed: Duration) -> String {
        let rate = (done as f64 / elapsed.as_secs_f64().max(0.001)) as u64;
        let (count, speed) = match self.unit {
            Unit::Bytes => (bytes(done), format!("{}/s", bytes(rate))),
            Unit::Blocks => (format!("{done} blocks"), format!("{rate}/s")),
        };
        let Some(total) = self.total else {
            return fit(format!("{}  {count}  {speed}", self.what), self.width);
        };
        let share = (done as f64 / total as f64).min(1.0);
        let text = format!(" {:3.0} %  {count}  {speed}", share * 100.0);
        let room = self.width.saturating_sub(self.what.len() + text.len() + 4).min(40);
        let filled = (room as f64 * share) as usize;
        let bar = format!("{}{}", "=".repeat(filled), " ".repeat(room - filled));
        fit(format!("{} [{bar}]{text}", self.what), self.width)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.hide();
    }
}

/// Writes a line to standard error, in the place of a progress line if there is one.
pub fn note(line: fmt::Arguments<'_>) {
    let clear = if io::stderr().is_terminal() { "\r\x1b[K" } else { "" };
    super::say(format_args!("{clear}{line}"));
}

/// The columns of the terminal, as the environment says.
pub fn terminal_width() -> usize {
    let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.trim().parse().ok());
    columns.filter(|&columns| (20..=1000).contains(&columns)).unwrap_or(80)
}

/// `n` bytes with a unit that keeps the number short.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1024.0;
    let mut unit = 0;
    // What would round to 1024 is 1 of the next unit.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `n` of what `what` is one of.
pub fn plural(n: u64, what: &str) -> String {
    if n == 1 { format!("{n} {what}") } else { format!("{n} {what}s") }
}

/// `line` cut so that it stays in one row of the terminal.
fn fit(line: String, width: usize) -> String {
    line.chars().take(width.saturating_sub(1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_round_into_the_next_unit() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(1024 * 1024 - 1), "1.0 MiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
    }

    #[test]
    fn a_line_fits_the_terminal() {
        let mut progress = Progress::new("appending", Unit::Bytes, Some(1 << 30));
        for width in 20..200 {
            progress.width = width;
            assert!(progress.line(1 << 29, Duration::from_secs(1)).len() < width);
        }
    }

    #[test]
    fn a_bar_never_runs_over() {
        let progress = Progress::new("appending", Unit::Bytes, Some(10));
        assert!(progress.line(1000, Duration::ZERO).contains("100 %"));
    }
}
