//! Formats bytes, rates, counts and durations as text.

use std::time::Duration;

/// `n` bytes in B, KiB, MiB and so on, with one decimal.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut unit = 0;
    let rounded_tenths = |unit: usize| (u128::from(n) * 10 + (512 << (10 * unit))) >> (10 * (unit + 1));
    // A number that would round to 1024 is 1.0 of the next unit.
    while rounded_tenths(unit) >= 10240 && unit + 1 < UNITS.len() {
        unit += 1;
    }
    let tenths = rounded_tenths(unit);
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// `n` in `elapsed`, as a number per second.
pub fn per_second(n: u64, elapsed: Duration) -> u64 {
    let rate = u128::from(n) * 1_000_000_000 / elapsed.as_nanos().max(1_000_000);
    rate.try_into().unwrap_or(u64::MAX)
}

/// `n` and the singular noun `what`, with an s unless `n` is 1.
pub fn plural(n: u64, what: &str) -> String {
    if n == 1 { format!("{n} {what}") } else { format!("{n} {what}s") }
}

/// Seconds in s, min and h.
pub fn time(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..360_000 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => "days".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_near_next_unit_round_into_it() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(1024 * 1024 - 1), "1.0 MiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
    }

    #[test]
    fn time_of_any_length_has_at_most_two_units() {
        assert_eq!(["0 s", "1 min 1 s", "1 h 1 min", "days"].map(str::to_owned), [0, 61, 3661, u64::MAX].map(time));
    }
}
