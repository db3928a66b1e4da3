//! The progress bar of a long job, on a terminal.

use std::time::{Duration, Instant};

use super::screen::{self, Size, fit};
use super::units::{bytes, per_second, plural, time};

/// The least time between two drawings.
const REDRAW: Duration = Duration::from_millis(100);

/// A progress bar on standard error. Draws nothing if that is not a terminal.
pub struct Progress {
    what: &'static str,
    unit: Unit,
    total: Option<u64>,
    /// The part that was done before this job began.
    before: u64,
    started: Instant,
    /// When the bar was drawn last; `None` without a terminal.
    drawn: Option<Instant>,
    shown: bool,
}

/// The unit in which a job counts.
#[derive(Clone, Copy)]
pub enum Unit {
    Bytes,
    Blocks,
}

impl Progress {
    /// A bar for a job called `what`, of `total` units, if that is known.
    pub fn new(what: &'static str, unit: Unit, total: Option<u64>) -> Self {
        let started = Instant::now();
        Progress {
            what,
            unit,
            total: total.filter(|&total| total > 0),
            before: 0,
            started,
            drawn: screen::is_seen().then_some(started),
            shown: false,
        }
    }

    /// Sets the part that was done before this job began. It counts for the share, not for the rate.
    pub fn after(mut self, before: u64) -> Self {
        self.before = before;
        self
    }

    /// Draws the bar for `done` units, unless it was drawn a moment ago.
    pub fn at(&mut self, done: u64) {
        let now = Instant::now();
        if self.drawn.is_none_or(|drawn| now - drawn < REDRAW) {
            return;
        }
        self.drawn = Some(now);
        self.shown = true;
        let (on, off) = screen::colour();
        let line = self.line(done, now - self.started, Size::of_terminal().columns);
        screen::draw(vec![format!("{on}{line}{off}")]);
    }

    /// Sets the total.
    pub fn expect(&mut self, total: u64) {
        self.total = Some(total).filter(|&total| total > 0);
    }

    fn line(&self, done: u64, elapsed: Duration, columns: usize) -> String {
        let gone = done.saturating_sub(self.before);
        let rate = per_second(gone, elapsed);
        let (count, speed) = match self.unit {
            Unit::Bytes => (bytes(done), format!("{}/s", bytes(rate))),
            Unit::Blocks => (plural(done, "block"), format!("{rate}/s")),
        };
        let Some(total) = self.total else {
            return fit(&format!("{}  {count}  {speed}", self.what), columns);
        };
        let share = |of: u64| (u128::from(done.min(total)) * u128::from(of) / u128::from(total.max(1))) as u64;
        let left = match gone {
            0 => String::new(),
            // The rest takes as long per unit as the part that is done.
            _ => {
                let left = u128::from(total.saturating_sub(done)).saturating_mul(elapsed.as_millis().max(1));
                let seconds = left.div_ceil(u128::from(gone) * 1000);
                format!("  {} left", time(seconds.try_into().unwrap_or(u64::MAX)))
            }
        };
        let text = format!(" {:3} %  {count}  {speed}{left}", share(100));
        let room = columns.saturating_sub(self.what.len() + text.len() + 4).min(40);
        let filled = share(room as u64) as usize;
        let bar = format!("{}{}", "=".repeat(filled), " ".repeat(room - filled));
        fit(&format!("{} [{bar}]{text}", self.what), columns)
    }
}

impl Drop for Progress {
    /// Erases the bar.
    fn drop(&mut self) {
        if self.shown {
            screen::erase();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_at_any_width_fits_terminal() {
        let progress = Progress::new("appending", Unit::Bytes, Some(1 << 30));
        for columns in 0..200 {
            assert!(progress.line(1 << 29, Duration::from_secs(1), columns).len() < columns.max(1));
        }
    }

    #[test]
    fn bar_is_full_only_at_the_end() {
        let progress = Progress::new("appending", Unit::Bytes, Some(10));
        assert!(progress.line(1000, Duration::ZERO, 80).contains("100 %"));
        let progress = Progress::new("appending", Unit::Blocks, Some(1_000_000));
        assert!(progress.line(999_999, Duration::from_secs(1), 80).contains(" 99 %"));
    }

    #[test]
    fn rate_and_time_left_exclude_earlier_progress() {
        let progress = Progress::new("cloning", Unit::Blocks, Some(1000)).after(400);
        let line = progress.line(500, Duration::from_secs(2), 80);
        assert!(line.ends_with(" 50 %  500 blocks  50/s  10 s left"), "{line}");
        let line = progress.line(400, Duration::from_secs(2), 80);
        assert!(line.ends_with(" 40 %  400 blocks  0/s"), "{line}");
    }
}
