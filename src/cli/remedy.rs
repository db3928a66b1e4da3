//! What to do about an error.

use std::io;
use std::sync::OnceLock;

use hypercore::{Error, ErrorKind};

/// Where this process has its encryption key from, for errors about the key.
static KEY_ORIGIN: OnceLock<String> = OnceLock::new();

/// Remembers that the encryption key was given by `origin`, for errors about the key.
pub fn remember_key_origin(origin: String) {
    let _ = KEY_ORIGIN.set(origin);
}

/// What `error` says, and what to do about it where it comes from the operating system, which does not say that, or
/// is about the encryption key.
pub fn with_remedy(error: &Error) -> String {
    match error.kind() {
        ErrorKind::Encryption => format!("{error}{}", key_remedy()),
        _ => format!("{error}{}", error.io_error().map_or("", remedy)),
    }
}

/// What to do about an error of the operating system, to be put behind it.
pub fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "; check the name",
        io::ErrorKind::PermissionDenied => "; take another one, or run as a user who may",
        io::ErrorKind::NotADirectory => "; a file stands where a directory was to be: take another name",
        io::ErrorKind::IsADirectory => "; a directory stands where a file was to be: take another name",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; make room and try again",
        io::ErrorKind::FileTooLarge => "; raise the limit (`ulimit -f`) and try again",
        io::ErrorKind::ReadOnlyFilesystem => "; take another place, or --read-only where that will do",
        io::ErrorKind::AddrInUse => "; end who listens there, or take another port",
        io::ErrorKind::AddrNotAvailable => "; take an address of this machine, as 127.0.0.1 and 0.0.0.0 are",
        _ => "",
    }
}

/// What to say of an error about the encryption key, to be put behind it.
fn key_remedy() -> String {
    match KEY_ORIGIN.get() {
        Some(origin) => format!("; the key was given by {origin}"),
        None => "; --encryption-key-file, --encryption-key or the variable HYPERCORE_ENCRYPTION_KEY gives it".into(),
    }
}
