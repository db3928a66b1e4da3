//! Remedies: the end of an error line says what the user can do.

use std::io;
use std::sync::OnceLock;

use hypercore::{Error, ErrorKind};

/// The option or variable that gave the encryption key of this process.
static KEY_ORIGIN: OnceLock<String> = OnceLock::new();

/// Stores which option or variable gave the encryption key, for errors about the key. Only the first call counts.
pub fn remember_key_origin(origin: String) {
    let _ = KEY_ORIGIN.set(origin);
}

/// The text of `error` with a remedy, if the operating system reported it or it is about the encryption key. Other
/// errors of the library contain their remedy.
pub fn with_remedy(error: &Error) -> String {
    match error.kind() {
        ErrorKind::Encryption => format!("{error}{}", key_remedy()),
        _ => format!("{error}{}", error.io_error().map_or("", remedy)),
    }
}

/// The remedy for an error of the operating system, with its semicolon.
pub fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "; check the name",
        io::ErrorKind::PermissionDenied => "; choose another path, or run as a user with the permission",
        io::ErrorKind::NotADirectory => "; a file has the name of the directory: choose another name",
        io::ErrorKind::IsADirectory => "; a directory has the name of the file: choose another name",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; make room and try again",
        io::ErrorKind::FileTooLarge => "; raise the limit (`ulimit -f`) and try again",
        io::ErrorKind::ReadOnlyFilesystem => "; choose another place, or use --read-only",
        io::ErrorKind::AddrInUse => "; stop the process that listens there, or choose another port",
        io::ErrorKind::AddrNotAvailable => "; choose an address of this machine, such as 127.0.0.1 or 0.0.0.0",
        _ => "",
    }
}

/// The remedy for an error about the encryption key: which option or variable gave it, or could give it.
fn key_remedy() -> String {
    match KEY_ORIGIN.get() {
        Some(origin) => format!("; the key was given by {origin}"),
        None => "; --encryption-key-file, --encryption-key or the variable HYPERCORE_ENCRYPTION_KEY gives it".into(),
    }
}
