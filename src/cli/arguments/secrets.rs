//! Encryption keys and seeds from options, files, standard input and the environment. No message contains one.

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

/// 32 bytes that are wiped on drop.
pub type Secret = Zeroizing<[u8; 32]>;

/// The options of every command that reads or writes blocks.
pub fn encryption() -> Vec<Arg> {
    vec![
        option(KEY, "HEX64", text(), "Key that encrypts the blocks; it is not stored, so give it each time")
            .conflicts_with(KEY_FILE),
        option(
            KEY_FILE,
            "FILE",
            text(),
            "Read the key (64 hex digits) from FILE, or from standard input if FILE is -; without \
             either option, the variable HYPERCORE_ENCRYPTION_KEY gives the key",
        )
        .value_hint(ValueHint::FilePath),
    ]
}

/// The options for the seed of a key pair.
pub fn seed_options() -> [Arg; 2] {
    [
        option(SEED, "HEX64", text(), "Derive the key pair from these 32 bytes instead of random ones")
            .conflicts_with(SEED_FILE),
        option(
            SEED_FILE,
            "FILE",
            text(),
            "Read the seed (64 hex digits) from FILE, or from standard input if FILE is -",
        )
        .value_hint(ValueHint::FilePath),
    ]
}

const KEY: &str = "encryption-key";
const KEY_FILE: &str = "encryption-key-file";
const KEY_VARIABLE: &str = "HYPERCORE_ENCRYPTION_KEY";
pub const SEED: &str = "seed";
pub const SEED_FILE: &str = "seed-file";

/// The most bytes of a file with a secret: 64 digits, and white space around them.
const MAX_FILE: usize = 4096;

/// The encryption key, if one is given. It may be read from standard input, so call this once.
pub fn encryption_key(args: &Args) -> Result<Option<Secret>> {
    let (key, origin) = match given(args, KEY, KEY_FILE)? {
        Some(found) => found,
        None => match std::env::var_os(KEY_VARIABLE) {
            None => return Ok(None),
            // An empty variable is probably a mistake. Ignoring it would write blocks unencrypted.
            Some(value) => match parse(&value) {
                Some(key) => (key, KEY_VARIABLE.to_owned()),
                None => {
                    return Err(
                        args.usage(format!("{KEY_VARIABLE}: not 64 hexadecimal digits; unset it to use no key"))
                    );
                }
            },
        },
    };
    remember_key_origin(origin);
    Ok(Some(key))
}

/// The seed, if one is given. It may be read from standard input, so call this once.
pub fn seed(args: &Args) -> Result<Option<Secret>> {
    if is_stdin(args, KEY_FILE) && is_stdin(args, SEED_FILE) {
        return Err(
            args.usage(format!("--{KEY_FILE} and --{SEED_FILE} both read standard input: name a file for one of them"))
        );
    }
    Ok(given(args, SEED, SEED_FILE)?.map(|(seed, _)| seed))
}

/// Fails if the encryption key comes from standard input, whose content is `what`.
pub fn leave_stdin_to(args: &Args, what: &str) -> Result<()> {
    if is_stdin(args, KEY_FILE) {
        return Err(
            args.usage(format!("--{KEY_FILE} - reads standard input, which is {what}: name a file for the key"))
        );
    }
    Ok(())
}

/// The secret that the option `name` or the file of the option `file_name` gives, and the option, for errors.
fn given(args: &Args, name: &str, file_name: &str) -> Result<Option<(Secret, String)>> {
    match (args.text(name), args.text(file_name)) {
        // The error does not repeat the value, which may be a secret with one digit missing.
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

/// Reads a secret from `input`; errors call it `name`.
fn read(input: impl Read, name: &Path) -> Result<Secret> {
    let refused = |what: &str| Failure::Failed(format!("{}: {what}", name.display()));
    // Reserve the full size: growing would leave copies of the secret in freed memory.
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_FILE + 1));
    input.take(MAX_FILE as u64 + 1).read_to_end(&mut text).map_err(|e| Error::from_io(e, "read", name))?;
    if text.len() > MAX_FILE {
        return Err(refused(&format!("more than {MAX_FILE} bytes; name a file of 64 hexadecimal digits")));
    }
    let secret = std::str::from_utf8(text.trim_ascii()).ok().and_then(|text| parse(OsStr::new(text)));
    secret.ok_or_else(|| refused("not 64 hexadecimal digits"))
}

/// Parses 64 hexadecimal digits.
fn parse(text: &OsStr) -> Option<Secret> {
    // The parser of keys would accept an id of 52 characters too.
    let key: Key = text.to_str().filter(|text| text.len() == 64)?.parse().ok()?;
    Some(Zeroizing::new(*key.as_bytes()))
}

fn is_stdin(args: &Args, name: &str) -> bool {
    args.text(name).is_some_and(|file| file == "-")
}
