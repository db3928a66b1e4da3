//! `Replication`: the handle to one core on one connection.

use std::fmt;
use std::sync::Arc;

use super::{Connection, ConnectionOptions, Counters};
use crate::Result;
use crate::core::Hypercore;
use crate::crypto::keys::Key;
use crate::net::driver::Driver;
use crate::net::duplex::Duplex;
use crate::wire::noise::Role;

/// One core's part in a connection. Dropping it does not end it: the core replicates until the connection or
/// the core is closed, or [`Replication::close`] is called.
#[derive(Clone)]
pub struct Replication {
    connection: Connection,
    core: Arc<Driver>,
}

impl Replication {
    /// The connection.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The key that the peer proved to own; none until the handshake is done.
    #[doc(alias = "remotePublicKey")]
    pub fn remote_public_key(&self) -> Option<Key> {
        self.connection.remote_public_key()
    }

    /// The bytes received and sent so far on the connection, for all its cores.
    pub fn counters(&self) -> Counters {
        self.connection.counters()
    }

    /// Blocks until the connection ends; see [`Connection::wait`].
    pub fn wait(&self) -> Result<()> {
        self.connection.wait()
    }

    /// Ends the replication of this core. If the connection carries no other core, ends it as well and waits
    /// for its threads.
    pub fn close(&self) {
        if self.connection.0.detach(&self.core) {
            self.connection.close();
        }
    }
}

impl fmt::Debug for Replication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replication").field("connection", &self.connection).finish_non_exhaustive()
    }
}

impl Hypercore {
    /// Replicates this core over a byte stream, on two new threads, until either side closes. Returns at once,
    /// before the handshake; [`Replication::wait`] returns its errors.
    ///
    /// One side has to be the initiator, usually the one that connected, and the other the responder.
    ///
    /// ```no_run
    /// use hypercore::Hypercore;
    /// use hypercore::net::Role;
    ///
    /// let key = "7jfgaa9nutjyixzikb7tgmsf9gkwq7iqz498zr1nd5ig1fng4esy".parse()?;
    /// let core = Hypercore::options().key(key).open("copy")?;
    /// let stream = std::net::TcpStream::connect("127.0.0.1:4977")?;
    /// let _replication = core.replicate(stream, Role::Initiator)?;
    /// println!("{:?}", core.get(0)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn replicate(&self, stream: impl Duplex, role: Role) -> Result<Replication> {
        let connection = Connection::open(stream, role, ConnectionOptions::default())?;
        self.replicate_on(&connection)
    }

    /// Replicates this core over a connection that may carry other cores, at any time before the connection
    /// ends. Returns at once. Fails if the connection or the core is closed.
    #[doc(alias = "replicate")]
    pub fn replicate_on(&self, connection: &Connection) -> Result<Replication> {
        let core = Driver::of(self)?;
        connection.0.attach(&core)?;
        Ok(Replication { connection: connection.clone(), core })
    }
}
