//! Parsers for the values of arguments.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser, ValueParser};
use hypercore::{Key, MAX_BLOCK_SIZE};

/// A range of blocks or bytes: its start, and its end or its length, if given.
pub type Range = (u64, Option<u64>);

/// The error is the text after the name of the argument.
type Parsed<T> = Result<T, String>;

/// Any text, as an `OsString`: the name of a file, or a secret, which is parsed later because `clap` would repeat
/// it in an error.
pub fn text() -> ValueParser {
    clap::value_parser!(OsString)
}

pub fn directory() -> ValueParser {
    parser(|value| match value.is_empty() {
        // An empty path would be the current directory. It is more likely a shell variable that is not set.
        true => Err("the name is empty: give a directory, or . for the current one".into()),
        false => Ok(PathBuf::from(value)),
    })
}

pub fn whole_number() -> ValueParser {
    parser(|value| number(&value.to_string_lossy()))
}

pub fn block_size() -> ValueParser {
    parser(|value| {
        let size = number(&value.to_string_lossy())?;
        let size = usize::try_from(size).ok().filter(|size| (1..=MAX_BLOCK_SIZE).contains(size));
        size.ok_or_else(|| format!("{} is not between 1 and {MAX_BLOCK_SIZE}", value.to_string_lossy()))
    })
}

pub fn key() -> ValueParser {
    parser(|value| {
        let key = value.to_str().and_then(|text| text.parse::<Key>().ok());
        key.ok_or_else(|| not(value, "a key: give 64 hexadecimal digits or the 52 characters of an id"))
    })
}

/// `HOST:PORT`, as a `String`. The host is not resolved.
pub fn address() -> ValueParser {
    parser(|value| {
        let address = value.to_str().filter(|text| is_address(text));
        address.map(str::to_owned).ok_or_else(|| not(value, "HOST:PORT, as in 127.0.0.1:4977"))
    })
}

/// Seconds, which may have a fraction, as a `Duration`.
pub fn duration() -> ValueParser {
    parser(|value| value.to_str().and_then(seconds).ok_or_else(|| not(value, "a number of seconds")))
}

/// `START:END`, as a [`Range`] with an end. Either number may be missing.
pub fn block_range() -> ValueParser {
    parser(|value| {
        let text = value.to_string_lossy();
        let (start, end) = text.split_once(':').ok_or_else(|| not(value, "START:END"))?;
        let start = if start.is_empty() { 0 } else { number(start)? };
        let end = if end.is_empty() { None } else { Some(number(end)?) };
        match end {
            Some(end) if end < start => Err(format!("{text} ends before it starts")),
            _ => Ok::<Range, _>((start, end)),
        }
    })
}

/// `OFFSET` or `OFFSET:LENGTH`, as a [`Range`] with a length.
pub fn byte_range() -> ValueParser {
    parser(|value| {
        let text = value.to_string_lossy();
        let (offset, length) = text.split_once(':').map_or((&*text, None), |(offset, length)| (offset, Some(length)));
        Ok::<Range, _>((number(offset)?, length.map(number).transpose()?))
    })
}

/// Whether `text` is `HOST:PORT`.
pub fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        let is_name = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c == '/');
        is_name && digits && port.parse::<u16>().is_ok()
    })
}

fn parser<T: Clone + Send + Sync + 'static>(parse: fn(&OsStr) -> Parsed<T>) -> ValueParser {
    OsStringValueParser::new().try_map(move |value| parse(&value)).into()
}

/// The error for a `value` that is not `expected`.
fn not(value: &OsStr, expected: &str) -> String {
    format!("{:?} is not {expected}", value.to_string_lossy())
}

fn number(text: &str) -> Parsed<u64> {
    // `u64::from_str` would accept a plus sign.
    let digits = Some(text).filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    let number = digits.and_then(|digits| digits.parse().ok());
    number.ok_or_else(|| not(text.as_ref(), "a whole number below 2^64"))
}

/// Parses seconds: decimal digits with at most one point.
fn seconds(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let whole = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // Digits below a nanosecond are dropped.
    let nanos = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    Some(Duration::new(whole, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_with_fraction_are_parsed() {
        for (text, millis) in
            [("0", 0), ("30", 30_000), ("0.05", 50), (".5", 500), ("2.", 2000), ("1.0009999999999", 1000)]
        {
            assert_eq!(seconds(text).map(|time| time.as_millis()), Some(millis), "{text}");
        }
        assert_eq!(seconds("18446744073709551615.999999999"), Some(Duration::MAX));
        for text in ["", ".", "x", "-1", "+1", "1.-1", "1.+1", "1.1.1", "1e3", "18446744073709551616", "1.5s", "٣"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}
