//! Keys and seeds that a command is given: on the command line, in a file, on standard input or in the environment.
//! None is ever shown.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use hypercore::{Error, Key};
use zeroize::Zeroizing;

use clap::{Arg, ValueHint};

use super::args::Args;
use super::command::option;
use super::values::text;
use crate::cli::failure::{Failure, Result};
use crate::cli::remedy::remember_key_origin;

/// 32 bytes that are wiped when they are dropped.
pub type Secret = Zeroizing<[u8; 32]>;

/// For every command that reads or writes blocks.
pub fn encryption() -> Vec<Arg> {
    vec![
        option(KEY, "HEX64", text(), "Key that encrypts the blocks; it is not stored, give it each time")
            .conflicts_with(KEY_FILE),
        option(
            KEY_FILE,
            "FILE",
            text(),
            "Read that key from FILE: 64 hex digits, - for standard input; the variable HYPERCORE_ENCRYPTION_KEY gives \
             it too",
        )
        .value_hint(ValueHint::FilePath),
    ]
}

/// The two options that give the seed of a key pair.
pub fn seed_options() -> [Arg; 2] {
    [
        option(SEED, "HEX64", text(), "Derive the key pair from these 32 bytes").conflicts_with(SEED_FILE),
        option(SEED_FILE, "FILE", text(), "Read that seed from FILE: 64 hex digits, - for standard input")
            .value_hint(ValueHint::FilePath),
    ]
}

const KEY: &str = "encryption-key";
const KEY_FILE: &str = "encryption-key-file";
const KEY_VARIABLE: &str = "HYPERCORE_ENCRYPTION_KEY";
pub const SEED: &str = "seed";
pub const SEED_FILE: &str = "seed-file";

/// The most bytes of a file with 64 digits, whatever white space stands around them.
const MAX_FILE: usize = 4096;

/// The encryption key that is given, if any. Reads standard input where that is named: to be called once.
pub fn encryption_key(args: &Args) -> Result<Option<Secret>> {
    let (key, origin) = match given(args, KEY, KEY_FILE)? {
        Some(found) => found,
        None => match std::env::var_os(KEY_VARIABLE) {
            None => return Ok(None),
            // One that is set to nothing was perhaps to be set: what it was to protect must not be written as plain
            // text.
            Some(value) => match parse(&value) {
                Some(key) => (key, KEY_VARIABLE.to_owned()),
                None => {
                    return Err(args.usage(format!(
                        "{KEY_VARIABLE}: not 64 hexadecimal digits; unset it where no key is to be used"
                    )));
                }
            },
        },
    };
    remember_key_origin(origin);
    Ok(Some(key))
}

/// The seed that is given, if any.
pub fn seed(args: &Args) -> Result<Option<Secret>> {
    if is_stdin(args, KEY_FILE) && is_stdin(args, SEED_FILE) {
        return Err(
            args.usage(format!("--{KEY_FILE} and --{SEED_FILE} both name standard input, which can be read only once"))
        );
    }
    Ok(given(args, SEED, SEED_FILE)?.map(|(seed, _)| seed))
}

/// Fails where the encryption key is on standard input, which is to be read for something else: `what`.
pub fn leave_stdin_to(args: &Args, what: &str) -> Result<()> {
    if is_stdin(args, KEY_FILE) {
        return Err(
            args.usage(format!("--{KEY_FILE} - takes standard input, which is {what}: name a file for the key"))
        );
    }
    Ok(())
}

/// The secret that the option `name` gives, or the file that `file_name` names, and which of them it was.
fn given(args: &Args, name: &str, file_name: &str) -> Result<Option<(Secret, String)>> {
    match (args.text(name), args.text(file_name)) {
        // It may be a secret with one digit too few: it is not repeated.
        (Some(value), _) => match parse(value) {
            Some(secret) => Ok(Some((secret, format!("--{name}")))),
            None => Err(args.usage(format!("--{name}: not 64 hexadecimal digits"))),
        },
        (None, Some(file)) if file.is_empty() => Err(args.usage(format!("--{file_name} is empty: name a file, or -"))),
        (None, Some(file)) if file == "-" => {
            Ok(Some((read(io::stdin().lock(), Path::new("standard input"))?, format!("--{file_name} -"))))
        }
        (None, Some(file)) => {
            let path = Path::new(file);
            let opened = File::open(path).map_err(|e| Error::from_io(e, "open", path))?;
            Ok(Some((read(opened, path)?, format!("--{file_name} {}", path.display()))))
        }
        (None, None) => Ok(None),
    }
}

/// The secret in `input`, which is called `name`.
fn read(input: impl Read, name: &Path) -> Result<Secret> {
    let refused = |what: &str| Failure::Failed(format!("{}: {what}", name.display()));
    // With all its room from the beginning, so that it is never copied.
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_FILE + 1));
    input.take(MAX_FILE as u64 + 1).read_to_end(&mut text).map_err(|e| Error::from_io(e, "read", name))?;
    if text.len() > MAX_FILE {
        return Err(refused(&format!(
            "this is larger than {MAX_FILE} bytes: name a file that holds 64 hexadecimal digits"
        )));
    }
    let secret = std::str::from_utf8(text.trim_ascii()).ok().and_then(|text| parse(OsStr::new(text)));
    secret.ok_or_else(|| refused("this is not 64 hexadecimal digits"))
}

/// 64 hexadecimal digits as bytes.
fn parse(text: &OsStr) -> Option<Secret> {
    // A key in hexadecimal is read in the same way, but may be an id too.
    let key: Key = text.to_str().filter(|text| text.len() == 64)?.parse().ok()?;
    Some(Zeroizing::new(*key.as_bytes()))
}

fn is_stdin(args: &Args, name: &str) -> bool {
    args.text(name).is_some_and(|file| file == "-")
}
