//! Extensions: application messages between the peers of a core.

use std::sync::Arc;

use crate::core::handle::Hypercore;
use crate::core::peers::{ExtensionHandler, Peer};
use crate::core::shared::Shared;
use crate::{Error, Result};

/// The longest name and message of an extension, in bytes.
const MAX_NAME: usize = 255;
const MAX_MESSAGE: usize = 1024 * 1024;

/// An extension of the protocol; made by [`Hypercore::register_extension`]. Dropping it unregisters the extension.
pub struct Extension {
    shared: Arc<Shared>,
    name: String,
    id: u64,
}

/// Extensions of the protocol.
impl Hypercore {
    /// Registers an extension: messages to and from peers that registered the same name.
    ///
    /// `name` has 1 to 255 bytes. The last extension that is registered under a name receives its messages.
    /// `handler` is called with each message and its sender, in order with the events of the core and with no lock
    /// held (see [`Hypercore::on_append`]). Fails with [`BadArgument`](crate::ErrorKind::BadArgument) for a name
    /// that is empty or too long, and with [`Closed`](crate::ErrorKind::Closed).
    #[doc(alias = "registerExtension")]
    pub fn register_extension(
        &self,
        name: &str,
        handler: impl Fn(&[u8], &Peer) + Send + Sync + 'static,
    ) -> Result<Extension> {
        Extension::register(self, name, Arc::new(handler))
    }
}

impl Extension {
    pub(crate) fn register(core: &Hypercore, name: &str, handler: ExtensionHandler) -> Result<Self> {
        if name.is_empty() || name.len() > MAX_NAME {
            return Err(Error::bad_argument(format!(
                "an extension's name of {} bytes: give one of 1 to {MAX_NAME}",
                name.len()
            )));
        }
        core.session.check_open()?;
        let shared = core.session.shared.clone();
        let mut extensions = shared.extensions.lock();
        let id = extensions.iter().map(|(_, id, _)| *id).max().unwrap_or(0) + 1;
        // The last registration of a name replaces the earlier one, as in the reference.
        let replaced = extensions.iter().position(|(n, _, _)| n == name).map(|at| extensions.swap_remove(at));
        extensions.push((name.to_owned(), id, handler.clone()));
        // Under the lock, so that the network sees registering and unregistering of a name in their order.
        let old_handler = shared.network.get().and_then(|network| network.set_extension(name, Some(handler)));
        drop(extensions);
        drop((replaced, old_handler));
        Ok(Extension { shared, name: name.to_owned(), id })
    }

    /// The name under which the extension is registered.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sends `message`, of at most 1 MiB, to one peer. Does not wait for it to arrive.
    ///
    /// A peer that does not know the extension ignores it. While more than 16 MiB wait for the peer to read them,
    /// fails with [`InvalidOperation`](crate::ErrorKind::InvalidOperation) and sends nothing. A peer that reads
    /// nothing at all is disconnected after
    /// [`ConnectionOptions::idle_timeout`](crate::net::ConnectionOptions::idle_timeout). Fails with
    /// [`BadArgument`](crate::ErrorKind::BadArgument) if `message` is too long.
    pub fn send(&self, message: &[u8], peer: &Peer) -> Result<()> {
        self.send_to(message, Some(peer.id()))
    }

    /// Sends `message` to every peer, as [`Extension::send`] does. If it fails for some peers, the others have been
    /// sent the message.
    pub fn broadcast(&self, message: &[u8]) -> Result<()> {
        self.send_to(message, None)
    }

    fn send_to(&self, message: &[u8], peer: Option<u64>) -> Result<()> {
        if message.len() > MAX_MESSAGE {
            return Err(Error::bad_argument(format!(
                "an extension message of {} bytes is longer than {MAX_MESSAGE}: send it in parts",
                message.len()
            )));
        }
        match self.shared.network.get() {
            Some(network) => network.send_extension(&self.name, message, peer),
            None => Ok(()),
        }
    }
}

impl Drop for Extension {
    fn drop(&mut self) {
        let mut extensions = self.shared.extensions.lock();
        let own = extensions.iter().position(|(_, id, _)| *id == self.id).map(|at| extensions.swap_remove(at));
        let network = self.shared.network.get().filter(|_| own.is_some());
        let old_handler = network.and_then(|network| network.set_extension(&self.name, None));
        drop(extensions);
        drop((own, old_handler));
    }
}

impl std::fmt::Debug for Extension {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Extension").field("name", &self.name).finish_non_exhaustive()
    }
}
