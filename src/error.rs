//! The one error of this library: what kind it is, what it is about, and what to do.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Result with this library's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, in a form a program can act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument can never be right: a malformed key, a range that ends before it starts, a block that is too big.
    BadArgument,
    /// An index or length past the end of the log.
    OutOfBounds,
    /// There is no core in this place and none was to be made.
    StorageEmpty,
    /// Another core is in this place, or files of no core, or options contradict what is stored.
    StorageConflict,
    /// Another process (or another open core of this one) holds the core.
    Locked,
    /// The files of the core contradict themselves.
    Corrupt,
    /// The encryption key is missing or wrong, or one was given for blocks that are plain.
    Encryption,
    /// The core was opened read-only, or has no secret key.
    NotWritable,
    /// The operation does not fit the core's state.
    InvalidOperation,
    /// A proof does not fit the tree.
    InvalidProof,
    /// A signature does not verify.
    InvalidSignature,
    /// A hash does not match.
    InvalidChecksum,
    /// Bytes that are not the encoding they should be.
    Decoding,
    /// A value that its encoding cannot represent.
    Encoding,
    /// The core, session or connection is closed.
    Closed,
    /// The deadline passed.
    Timeout,
    /// The caller cancelled the request.
    Cancelled,
    /// The block is not here, and no peer is to be waited for.
    BlockNotAvailable,
    /// The block this snapshot showed was cut from the log.
    SnapshotNotAvailable,
    /// An earlier write failed; the core must be opened again before it can write.
    Failed,
    /// The peer broke the protocol.
    Protocol,
    /// Two signed trees of the same length and fork contradict each other.
    Conflict,
    /// The operating system reports an error; see [`Error::io_error`].
    Io,
}

/// An error: a kind, a sentence, and where known the file it is about.
///
/// Cheap to clone, so that every waiter of a failed request can have it.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    path: Option<PathBuf>,
    source: Option<io::Error>,
}

impl Error {
    /// An error of `kind`; `message` says what happened and what to do.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error(Arc::new(Inner { kind, message: message.into(), path: None, source: None }))
    }

    /// An operating system error while doing `what` to the file at `path`.
    pub fn from_io(source: io::Error, what: &str, path: impl AsRef<Path>) -> Self {
        Error(Arc::new(Inner {
            kind: ErrorKind::Io,
            message: format!("cannot {what}"),
            path: Some(path.as_ref().to_owned()),
            source: Some(source),
        }))
    }

    /// The same error, said about the file at `path`.
    pub fn at(self, path: impl AsRef<Path>) -> Self {
        let source = self.0.source.as_ref().map(copy_io);
        Error(Arc::new(Inner {
            kind: self.0.kind,
            message: self.0.message.clone(),
            path: Some(path.as_ref().to_owned()),
            source,
        }))
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The file this is about, where there is one.
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// What the operating system said, for [`ErrorKind::Io`].
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
    /// Gives back the [`Error`] that an [`io::Error`] was made of, if it was.
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
