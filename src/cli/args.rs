//! The arguments of one command: options anywhere among the others, `--name value` or `--name=value`, and `--` after which
//! nothing is an option.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::iter::Peekable;
use std::path::PathBuf;
use std::time::Duration;

use hypercore::{Durability, Key};

use super::secrets::{self, Secret};
use super::{Command, Failure, Result};

/// An option that a command takes.
pub struct Opt {
    /// With its two dashes.
    pub name: &'static str,
    /// What its value is called; none for an option that has none.
    pub value: Option<&'static str>,
    pub help: &'static str,
    /// For an option that may be given again: what else follows its value is one more, if it looks like this.
    more: Option<fn(&str) -> bool>,
}

impl Opt {
    /// An option without a value.
    pub const fn flag(name: &'static str, help: &'static str) -> Self {
        Opt { name, value: None, help, more: None }
    }

    /// An option with a value, which is called `what`.
    pub const fn value(name: &'static str, what: &'static str, help: &'static str) -> Self {
        Opt { name, value: Some(what), help, more: None }
    }

    /// An option that may be given several times, and with several values of which each but the first is told by `more`.
    pub const fn values(name: &'static str, what: &'static str, more: fn(&str) -> bool, help: &'static str) -> Self {
        Opt { name, value: Some(what), help, more: Some(more) }
    }
}

/// What follows the name of a command, sorted into options and the rest.
pub struct Args {
    command: &'static Command,
    options: Vec<(&'static str, OsString)>,
    rest: VecDeque<OsString>,
    help: bool,
    encryption_key: OnceCell<Option<Secret>>,
}

impl Args {
    /// Sorts `raw`, the arguments after the command's name.
    pub fn parse(command: &'static Command, raw: impl IntoIterator<Item = OsString>) -> Result<Self> {
        let mut args =
            Args { command, options: Vec::new(), rest: VecDeque::new(), help: false, encryption_key: OnceCell::new() };
        let mut raw = raw.into_iter().peekable();
        while let Some(arg) = raw.next() {
            let bytes = arg.as_encoded_bytes();
            if bytes == b"--" {
                args.rest.extend(raw);
                break;
            }
            if bytes == b"--help" || bytes == b"-h" {
                args.help = true;
            } else if bytes == b"-" || !bytes.starts_with(b"-") {
                args.rest.push_back(arg);
            } else {
                args.option(&arg, &mut raw)?;
            }
        }
        Ok(args)
    }

    fn option(&mut self, arg: &OsStr, raw: &mut Peekable<impl Iterator<Item = OsString>>) -> Result<()> {
        let (name, inline) = split_at_equals(arg);
        let Some(option) = self.command.options().find(|option| name == option.name) else {
            return Err(self.usage(format!("unknown option {name}")));
        };
        let value = match (option.value, inline) {
            (None, None) => OsString::new(),
            (None, Some(_)) => return Err(self.usage(format!("{} takes no value", option.name))),
            (Some(_), Some(value)) => value,
            (Some(what), None) => {
                raw.next().ok_or_else(|| self.usage(format!("{} needs a value: {what}", option.name)))?
            }
        };
        let Some(more) = option.more else {
            if option.value.is_some() && self.has(option.name) {
                return Err(self.usage(format!("{} is given twice", option.name)));
            }
            self.options.push((option.name, value));
            return Ok(());
        };
        self.options.push((option.name, value));
        let is_one_more = |next: &OsString| next.to_str().is_some_and(|text| !text.starts_with('-') && more(text));
        while let Some(value) = raw.next_if(is_one_more) {
            self.options.push((option.name, value));
        }
        Ok(())
    }

    /// Whether help was asked for instead.
    pub fn wants_help(&self) -> bool {
        self.help
    }

    /// Whether the option `name` is there.
    pub fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// The value of the option `name`, if it is there.
    pub fn value(&self, name: &str) -> Option<&OsStr> {
        self.options.iter().find(|(n, _)| *n == name).map(|(_, value)| value.as_os_str())
    }

    /// All values of the option `name`.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &OsStr> {
        self.options.iter().filter(move |(n, _)| *n == name).map(|(_, value)| value.as_os_str())
    }

    /// The value of the option `name` as a number.
    pub fn number_of(&self, name: &str) -> Result<Option<u64>> {
        self.value(name).map(|value| self.to_number(name, value)).transpose()
    }

    /// The value of the option `name` as a core's key.
    pub fn key_of(&self, name: &str) -> Result<Option<Key>> {
        self.value(name).map(|value| self.to_key(name, value)).transpose()
    }

    /// The encryption key that is given in any way; read once, for standard input cannot be read again.
    pub fn encryption_key(&self) -> Result<Option<&Secret>> {
        if self.encryption_key.get().is_none() {
            let key = secrets::encryption_key(self)?;
            let _ = self.encryption_key.set(key);
        }
        Ok(self.encryption_key.get().and_then(Option::as_ref))
    }

    /// The value of `--durability`.
    pub fn durability(&self) -> Result<Option<Durability>> {
        let Some(value) = self.value("--durability") else { return Ok(None) };
        match value.to_str() {
            Some("none") => Ok(Some(Durability::None)),
            Some("flush") => Ok(Some(Durability::Flush)),
            Some("always") => Ok(Some(Durability::Always)),
            _ => {
                Err(self
                    .usage(format!("--durability: {:?} is not one of none, flush, always", value.to_string_lossy())))
            }
        }
    }

    /// The next argument, which is called `what` in the usage.
    pub fn next(&mut self, what: &str) -> Result<OsString> {
        self.next_if_any().ok_or_else(|| self.usage(format!("{what} is missing")))
    }

    /// The next argument, if there is one more.
    pub fn next_if_any(&mut self) -> Option<OsString> {
        self.rest.pop_front()
    }

    /// Whether there is one more argument.
    pub fn has_next(&self) -> bool {
        !self.rest.is_empty()
    }

    /// The next argument as a number.
    pub fn next_number(&mut self, what: &str) -> Result<u64> {
        let value = self.next(what)?;
        self.to_number(what, &value)
    }

    /// The next argument as a number, if there is one more.
    pub fn next_number_if_any(&mut self, what: &str) -> Result<Option<u64>> {
        self.next_if_any().map(|value| self.to_number(what, &value)).transpose()
    }

    /// The next argument as a core's directory.
    pub fn next_dir(&mut self) -> Result<PathBuf> {
        let dir = self.next("DIR")?;
        // An empty path would be the current directory: more likely it is a variable that was never set.
        if dir.is_empty() {
            return Err(self.usage("DIR is empty: name a directory, or . for the current one".into()));
        }
        Ok(dir.into())
    }

    /// Fails if there are arguments that nobody took.
    pub fn finish(&self) -> Result<()> {
        match self.rest.front() {
            None => Ok(()),
            Some(arg) => Err(self.usage(format!("unexpected argument {:?}", arg.to_string_lossy()))),
        }
    }

    /// The failure that `message` tells of, with the command's usage.
    pub fn usage(&self, message: String) -> Failure {
        Failure::Usage { message, usage: self.command.usage_line() }
    }

    /// `value` as `HOST:PORT`; `what` names it in the failure.
    pub fn to_address(&self, what: &str, value: &OsStr) -> Result<String> {
        let address = value.to_str().filter(|text| is_address(text));
        address.map(str::to_owned).ok_or_else(|| {
            self.usage(format!("{what}: {:?} is not HOST:PORT, as 127.0.0.1:4977 is", value.to_string_lossy()))
        })
    }

    /// `value` as a number; `what` names it in the failure.
    pub fn to_number(&self, what: &str, value: &OsStr) -> Result<u64> {
        let digits = value.to_str().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
        digits.and_then(|digits| digits.parse().ok()).ok_or_else(|| {
            self.usage(format!("{what}: {:?} is not a whole number below 2^64", value.to_string_lossy()))
        })
    }

    /// `value` as a number of seconds, which may have a fraction; `what` names it in the failure.
    pub fn to_seconds(&self, what: &str, value: &OsStr) -> Result<Duration> {
        let seconds = value.to_str().and_then(seconds);
        seconds.ok_or_else(|| self.usage(format!("{what}: {:?} is not a number of seconds", value.to_string_lossy())))
    }

    /// `value` as a core's key; `what` names it in the failure.
    pub fn to_key(&self, what: &str, value: &OsStr) -> Result<Key> {
        let key = value.to_str().and_then(|text| text.parse().ok());
        key.ok_or_else(|| {
            self.usage(format!(
                "{what}: {:?} is not a key: give 64 hexadecimal digits or the 52 characters of an id",
                value.to_string_lossy()
            ))
        })
    }
}

/// `text` as seconds: digits, with a point among them or none.
fn seconds(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let whole = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // What is below a nanosecond is nothing.
    let nanos = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    Some(Duration::new(whole, nanos))
}

/// Whether `text` is `HOST:PORT`.
pub fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        let is_name = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c == '/');
        is_name && digits && port.parse::<u16>().is_ok()
    })
}

/// `--name=value` as its name and value. What is not Unicode is the name of no option, nor a value that one takes.
fn split_at_equals(arg: &OsStr) -> (Cow<'_, str>, Option<OsString>) {
    match arg.to_str().and_then(|text| text.split_once('=')) {
        Some((name, value)) => (name.into(), Some(value.into())),
        None => (arg.to_string_lossy(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_may_have_a_fraction() {
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
