//! Sessions: views of one open core, each with its own options. The core closes with its last session.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use zeroize::Zeroizing;

use crate::core::encryption::Encryption;
use crate::core::options::{OnWait, SessionOptions};
use crate::core::shared::Shared;
use crate::core::state::{SnapshotView, closed};
use crate::crypto::block_cipher::PADDING;
use crate::crypto::keys::KeyPair;
use crate::sync::{Rank, RwLock};
use crate::{Error, ErrorKind, Result};

/// One view of a core.
pub(crate) struct Session {
    pub(crate) shared: Arc<Shared>,
    pub(crate) id: u64,
    pub(crate) sparse: bool,
    pub(crate) wait: bool,
    pub(crate) timeout: Option<Duration>,
    pub(crate) on_wait: Option<OnWait>,
    writable: bool,
    key_pair: Option<KeyPair>,
    encryption: Option<Arc<Encryption>>,
    /// The state that a snapshot session shows. Its `update` replaces it.
    snapshot: Option<RwLock<Arc<SnapshotView>>>,
    /// Shared with the core's list of open sessions, so that closing the core sets it too.
    closed: Arc<AtomicBool>,
}

/// The options of a core's first session.
pub(crate) struct FirstSession {
    pub(crate) sparse: bool,
    pub(crate) wait: bool,
    pub(crate) timeout: Option<Duration>,
    pub(crate) on_wait: Option<OnWait>,
    pub(crate) writable: bool,
    pub(crate) key_pair: Option<KeyPair>,
    pub(crate) encryption_key: Option<Zeroizing<[u8; 32]>>,
}

impl Session {
    pub(crate) fn first(shared: Arc<Shared>, with: FirstSession) -> Self {
        let encryption = with.encryption_key.map(|key| Encryption::new(key, shared.key.as_bytes()));
        let (id, closed) = shared.sessions.add();
        Session {
            id,
            sparse: with.sparse,
            wait: with.wait,
            timeout: with.timeout,
            on_wait: with.on_wait,
            writable: with.writable,
            key_pair: with.key_pair,
            encryption,
            snapshot: None,
            closed,
            shared,
        }
    }

    /// Opens another session on the same core.
    pub(crate) fn derive(&self, options: SessionOptions) -> Result<Session> {
        self.check_open()?;
        let shared = self.shared.clone();
        let sparse = self.sparse && options.sparse != Some(false);
        let view = match &self.snapshot {
            _ if !options.snapshot => None,
            // A snapshot of a snapshot shows the same state.
            Some(view) => Some(view.read().clone()),
            None => Some(shared.take_view(sparse)?),
        };
        let encryption = match options.encryption_key {
            Some(key) => Some(Encryption::new(key, shared.key.as_bytes())),
            None => self.encryption.clone(),
        };
        let (id, closed) = shared.sessions.add();
        Ok(Session {
            id,
            sparse,
            wait: self.wait && options.wait != Some(false),
            timeout: options.timeout.unwrap_or(self.timeout),
            on_wait: options.on_wait.or_else(|| self.on_wait.clone()),
            writable: self.writable && options.writable != Some(false),
            key_pair: options.key_pair.or_else(|| self.key_pair.clone()),
            encryption,
            snapshot: view.map(|view| RwLock::new(Rank::Events, view)),
            closed,
            shared,
        })
    }

    /// Whether this session shows a fixed state.
    pub(crate) fn is_snapshot(&self) -> bool {
        self.snapshot.is_some()
    }

    /// The state that a snapshot session shows, or `None` for any other session.
    pub(crate) fn view(&self) -> Option<Arc<SnapshotView>> {
        self.snapshot.as_ref().map(|view| view.read().clone())
    }

    /// Moves a snapshot to the present state. Returns whether that changed its length or fork.
    pub(crate) fn refresh_view(&self) -> Result<bool> {
        let Some(slot) = &self.snapshot else { return Ok(false) };
        let view = self.shared.take_view(self.sparse)?;
        let old = std::mem::replace(&mut *slot.write(), view.clone());
        Ok((old.length, old.fork) != (view.length, view.fork))
    }

    /// Whether this session or its core was closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.is_closed() { Err(closed()) } else { Ok(()) }
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.writable && !self.shared.read_only && self.key_pair.is_some() && !self.is_closed()
    }

    pub(crate) fn key_pair(&self) -> Option<&KeyPair> {
        self.key_pair.as_ref()
    }

    pub(crate) fn encryption_key(&self) -> Option<&[u8; 32]> {
        self.encryption.as_ref().map(|e| e.key())
    }

    pub(crate) fn padding(&self) -> u64 {
        if self.encryption.is_some() { PADDING as u64 } else { 0 }
    }

    pub(crate) fn encryption(&self) -> Option<&Arc<Encryption>> {
        self.encryption.as_ref()
    }

    /// Returns the key pair to sign with: `given`, else the session's.
    pub(crate) fn signing_key_pair(&self, given: Option<&KeyPair>) -> Result<KeyPair> {
        let pair = given.or(self.key_pair.as_ref());
        self.check_writable(pair.is_some())?;
        pair.cloned().ok_or_else(closed)
    }

    pub(crate) fn check_writable(&self, can_sign: bool) -> Result<()> {
        self.check_open()?;
        let why = if self.shared.read_only {
            "the core was opened read-only"
        } else if !self.writable {
            "the session is not writable"
        } else if !can_sign {
            "the core has no secret key here: only the holder of the key pair can write"
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::NotWritable, why).at(self.shared.storage.path("oplog")))
    }
}
