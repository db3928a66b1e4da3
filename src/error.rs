//! The error type of this library: its kind, the file it concerns, and a message with the remedy.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Result with this library's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// The kind of an [`Error`], on which a program can act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument is invalid whatever the state of the core: a malformed key, a range that ends before it starts, a
    /// block that is too large.
    BadArgument,
    /// An index or length is past the end of the log.
    OutOfBounds,
    /// The storage has no core, and the options say not to create one.
    StorageEmpty,
    /// The storage has another core, or files that are no core's, or the options contradict the stored core.
    StorageConflict,
    /// Another process, or another open core of this process, has locked the core.
    Locked,
    /// The files of the core are damaged: they contradict each other, or bytes are missing.
    Corrupt,
    /// The encryption key is missing or wrong, or a key was given for plain blocks.
    Encryption,
    /// The core was opened read-only, or its secret key is not held.
    NotWritable,
    /// The current state of the core does not allow the operation.
    InvalidOperation,
    /// A proof does not fit the tree.
    InvalidProof,
    /// A signature is not valid.
    InvalidSignature,
    /// A hash does not match.
    InvalidChecksum,
    /// Bytes are not a valid encoding.
    Decoding,
    /// The encoding cannot represent a value.
    Encoding,
    /// The core, session or connection is closed.
    Closed,
    /// The deadline passed.
    Timeout,
    /// The caller cancelled the request.
    Cancelled,
    /// The block is not held, and the call does not wait for a peer to send it.
    BlockNotAvailable,
    /// The block that this snapshot showed was cut from the log.
    SnapshotNotAvailable,
    /// An earlier write failed. The core must be opened again before it can write.
    Failed,
    /// The peer broke the protocol.
    Protocol,
    /// Two different trees of the same length and fork are signed.
    Conflict,
    /// The operating system reported an error; see [`Error::io_error`].
    Io,
}

/// An error: a kind, a message, and the file it concerns, if there is one.
///
/// Clones are cheap, so that each waiter of a failed request can receive the error.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    path: Option<PathBuf>,
    source: Option<io::Error>,
}

impl Error {
    /// An error of `kind`. `message` tells what failed, the value, and the remedy.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error(Arc::new(Inner { kind, message: message.into(), path: None, source: None }))
    }

    /// An error of the operating system in the operation `what` on the file at `path`. The message is "cannot `what`".
    pub fn from_io(source: io::Error, what: &str, path: impl AsRef<Path>) -> Self {
        Error(Arc::new(Inner {
            kind: ErrorKind::Io,
            message: format!("cannot {what}"),
            path: Some(path.as_ref().to_owned()),
            source: Some(source),
        }))
    }

    /// The same error, concerning the file at `path`.
    pub fn at(self, path: impl AsRef<Path>) -> Self {
        let source = self.0.source.as_ref().map(copy_io);
        Error(Arc::new(Inner {
            kind: self.0.kind,
            message: self.0.message.clone(),
            path: Some(path.as_ref().to_owned()),
            source,
        }))
    }

    /// The kind of the error.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The path of the file that the error concerns, if there is one.
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// The operating system's error, if there is one. Only errors of kind [`ErrorKind::Io`] have one.
    pub fn io_error(&self) -> Option<&io::Error> {
        self.0.source.as_ref()
    }

    pub(crate) fn bad_argument(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::BadArgument, message)
    }

    pub(crate) fn decoding(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Decoding, message)
    }

    pub(crate) fn corrupt(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, message)
    }

    pub(crate) fn invalid_proof(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidProof, message)
    }

    pub(crate) fn protocol(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Protocol, message)
    }
}

fn copy_io(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.0.path {
            write!(f, "{}: ", path.display())?;
        }
        f.write_str(&self.0.message)?;
        match &self.0.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({self})", self.0.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|e| e as _)
    }
}

impl From<io::Error> for Error {
    /// Returns the [`Error`] from which an [`io::Error`] was made, or else an error of kind [`ErrorKind::Io`].
    fn from(source: io::Error) -> Self {
        match source.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(inner) => inner.clone(),
            None => Error(Arc::new(Inner {
                kind: ErrorKind::Io,
                message: "input or output failed".into(),
                path: None,
                source: Some(source),
            })),
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::Io => error.io_error().map_or(io::ErrorKind::Other, io::Error::kind),
            ErrorKind::StorageEmpty => io::ErrorKind::NotFound,
            ErrorKind::BadArgument | ErrorKind::OutOfBounds => io::ErrorKind::InvalidInput,
            ErrorKind::Corrupt | ErrorKind::Decoding => io::ErrorKind::InvalidData,
            ErrorKind::NotWritable => io::ErrorKind::PermissionDenied,
            ErrorKind::Locked => io::ErrorKind::ResourceBusy,
            ErrorKind::Timeout => io::ErrorKind::TimedOut,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}
