//! A map of the blocks that are held, for the terminal.

use std::ops::Range;
use std::path::Path;

use hypercore::Hypercore;

use super::screen::Size;
use super::units::plural;
use crate::cli::failure::{Result, about};
use crate::cli::output::Output;

/// The most rows of the map.
const MAP_ROWS: u64 = 16;
/// The most holes that are listed.
const NAMED_HOLES: usize = 8;

/// Prints how many blocks of `core` are held, the first holes, and the map. `dir` names the core in errors.
pub fn print_map(out: &mut Output, core: &Hypercore, dir: &Path) -> Result<()> {
    let length = core.len();
    if length == 0 {
        return out.line(format_args!("no blocks: the log is empty"));
    }
    let margin = (length - 1).to_string().len() + 2;
    let columns = Size::of_terminal().columns.saturating_sub(margin).max(8) as u64;
    let mut map = Map::new(length, columns * MAP_ROWS);
    let mut at = 0;
    while let Some(run) = core.held_from(at).map_err(|e| about(dir, e))? {
        at = run.end;
        map.add(run);
    }
    map.end();

    let share = percent(map.held, length);
    out.line(format_args!("held           {} of {}, {share} %", map.held, plural(length, "block")))?;
    out.line(format_args!("holes          {}", map.holes_text()))?;
    let shades = Shades::of_terminal();
    out.line(format_args!("map            {}; a sign for {}", shades.legend(), plural(map.per_cell, "block")))?;
    let cells: Vec<char> = map.cells.iter().enumerate().map(|(i, &held)| shades.of(held, map.size_of(i))).collect();
    for (row, cells) in cells.chunks(columns as usize).enumerate() {
        let first = row as u64 * columns * map.per_cell;
        let row: String = cells.iter().collect();
        out.line(format_args!("{first:>width$}  {row}", width = margin - 2))?;
    }
    Ok(())
}

/// Counts the held blocks in cells of equal size.
struct Map {
    length: u64,
    per_cell: u64,
    /// The held blocks of each cell.
    cells: Vec<u64>,
    held: u64,
    /// The end of the last run.
    at: u64,
    holes: u64,
    named: Vec<Range<u64>>,
}

impl Map {
    /// A map of `length` blocks, at least one, in at most `cells` cells.
    fn new(length: u64, cells: u64) -> Self {
        let per_cell = length.div_ceil(cells.max(1));
        let cells = vec![0; length.div_ceil(per_cell) as usize];
        Map { length, per_cell, cells, held: 0, at: 0, holes: 0, named: Vec::new() }
    }

    /// Adds a run of held blocks. Runs must come in order.
    fn add(&mut self, run: Range<u64>) {
        let run = run.start.max(self.at)..run.end.min(self.length);
        if run.is_empty() {
            return;
        }
        self.hole(run.start);
        self.at = run.end;
        self.held += run.end - run.start;
        let mut block = run.start;
        while block < run.end {
            let cell = block / self.per_cell;
            let end = run.end.min((cell + 1).saturating_mul(self.per_cell));
            self.cells[cell as usize] += end - block;
            block = end;
        }
    }

    /// Adds the hole after the last run.
    fn end(&mut self) {
        self.hole(self.length);
    }

    fn hole(&mut self, end: u64) {
        if self.at == end {
            return;
        }
        self.holes += 1;
        if self.named.len() < NAMED_HOLES {
            self.named.push(self.at..end);
        }
    }

    /// The blocks of cell `index`. The last cell may have fewer than the others.
    fn size_of(&self, index: usize) -> u64 {
        self.per_cell.min(self.length - index as u64 * self.per_cell)
    }

    fn holes_text(&self) -> String {
        let names: Vec<String> = self
            .named
            .iter()
            .map(|hole| match hole.end - hole.start {
                1 => hole.start.to_string(),
                _ => format!("{}:{}", hole.start, hole.end),
            })
            .collect();
        let more = if self.holes > self.named.len() as u64 { " …" } else { "" };
        match self.holes {
            0 => "none".into(),
            n => format!("{n}: {}{more}", names.join(" ")),
        }
    }
}

/// The signs of the map from empty to full. The first means that no block is held, the last that all are.
struct Shades([char; 5]);

impl Shades {
    /// Block characters if the locale is UTF-8, else ASCII.
    fn of_terminal() -> Self {
        let locale =
            ["LC_ALL", "LC_CTYPE", "LANG"].iter().filter_map(|name| std::env::var(name).ok()).find(|v| !v.is_empty());
        let unicode = locale.is_some_and(|locale| locale.to_ascii_uppercase().replace('-', "").contains("UTF8"));
        Shades(if unicode { ['·', '░', '▒', '▓', '█'] } else { ['.', ':', '+', '*', '#'] })
    }

    fn of(&self, held: u64, size: u64) -> char {
        match held {
            0 => self.0[0],
            _ if held >= size => self.0[4],
            // Thirds of the range between none and all.
            _ => self.0[1 + (u128::from(held) * 3 / u128::from(size)) as usize],
        }
    }

    fn legend(&self) -> String {
        let [none, few, some, most, all] = self.0;
        format!("{none} none {few}{some}{most} part {all} all")
    }
}

/// `part` of `whole` in percent. Only 0 is "0.0", and only `whole` is "100".
fn percent(part: u64, whole: u64) -> String {
    if part == whole {
        return "100".into();
    }
    let tenths = (u128::from(part) * 1000 + u128::from(whole) / 2) / u128::from(whole);
    let tenths = tenths.clamp(u128::from(part.min(1)), 999);
    format!("{}.{}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn map_of_runs_counts_cells_and_holes() {
        let mut map = Map::new(10, 4);
        map.add(1..4);
        map.add(6..9);
        map.end();
        assert_eq!((map.per_cell, map.cells.as_slice()), (3, &[2, 1, 3, 0][..]));
        assert_eq!(map.size_of(3), 1);
        assert_eq!((map.held, map.holes_text().as_str()), (6, "3: 0 4:6 9"));
    }

    #[test]
    fn nearly_empty_and_nearly_full_are_shown_as_part() {
        let shades = Shades(['0', '1', '2', '3', '4']);
        let drawn: String = (0..=9).map(|held| shades.of(held, 9)).collect();
        assert_eq!(drawn, "0112223334");
        assert_eq!(percent(999_999, 1_000_000), "99.9");
        assert_eq!(percent(1, 1_000_000), "0.1");
        assert_eq!(percent(0, 5), "0.0");
        assert_eq!(percent(5, 5), "100");
    }
}
