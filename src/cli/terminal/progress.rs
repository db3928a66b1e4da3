//! How far a long job is, as one line that is drawn over and over. Only on a terminal; elsewhere nothing is drawn.

use std::time::{Duration, Instant};

use super::screen::{self, Size, fit};
use super::units::{bytes, per_second, plural, time};

/// A drawn line stays this long at least.
const REDRAW: Duration = Duration::from_millis(100);

/// A line on standard error that tells how far a job is.
pub struct Progress {
    what: &'static str,
    unit: Unit,
    total: Option<u64>,
    /// What was done before this job began.
    before: u64,
    started: Instant,
    /// When the line was drawn last; none where there is no terminal.
    drawn: Option<Instant>,
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
            before: 0,
            started,
            drawn: screen::is_seen().then_some(started),
            shown: false,
        }
    }

    /// Tells that so much had been done before this job began: it counts for the share, and not for the rate.
    pub fn after(mut self, before: u64) -> Self {
        self.before = before;
        self
    }

    /// Tells that so much is done.
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

    /// Sets how much there is to do in all.
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
            // As long for what is left as it took for what is done.
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
    /// Takes the line away: what comes next stands alone.
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
    fn a_line_fits_the_terminal() {
        let progress = Progress::new("appending", Unit::Bytes, Some(1 << 30));
        for columns in 0..200 {
            assert!(progress.line(1 << 29, Duration::from_secs(1), columns).len() < columns.max(1));
        }
    }

    #[test]
    fn a_bar_never_runs_over_and_is_full_only_at_the_end() {
        let progress = Progress::new("appending", Unit::Bytes, Some(10));
        assert!(progress.line(1000, Duration::ZERO, 80).contains("100 %"));
        let progress = Progress::new("appending", Unit::Blocks, Some(1_000_000));
        assert!(progress.line(999_999, Duration::from_secs(1), 80).contains(" 99 %"));
    }

    #[test]
    fn rate_and_time_are_those_of_this_job_alone() {
        let progress = Progress::new("cloning", Unit::Blocks, Some(1000)).after(400);
        let line = progress.line(500, Duration::from_secs(2), 80);
        assert!(line.ends_with(" 50 %  500 blocks  50/s  10 s left"), "{line}");
        let line = progress.line(400, Duration::from_secs(2), 80);
        assert!(line.ends_with(" 40 %  400 blocks  0/s"), "{line}");
    }
}
