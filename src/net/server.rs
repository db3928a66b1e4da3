//! A listener that serves cores over TCP to whoever connects.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::core::Hypercore;
use crate::net::connection::{Connection, ConnectionOptions, Lookup};
use crate::sync::{Mutex, Rank, Signal, deadline};
use crate::wire::noise::Role;
use crate::{Error, Result};

/// How a server treats those who connect.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    connection: ConnectionOptions,
    max_connections: usize,
}

impl Default for ServerOptions {
    fn default() -> Self {
        ServerOptions { connection: ConnectionOptions::default(), max_connections: 256 }
    }
}

impl ServerOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How each connection is made.
    pub fn connection(mut self, options: ConnectionOptions) -> Self {
        self.connection = options;
        self
    }

    /// How many may be connected at a time, default 256; more are turned away at once.
    pub fn max_connections(mut self, most: usize) -> Self {
        self.max_connections = most;
        self
    }
}

/// Serves cores over TCP: each peer gets those of them that it asks for by name. Ends when closed or dropped.
///
/// ```
/// use hypercore::Hypercore;
/// use hypercore::net::{Role, Server};
///
/// let core = Hypercore::in_memory()?;
/// core.append(b"hello")?;
/// let server = Server::listen("127.0.0.1:0", [core.clone()])?;
///
/// let copy = Hypercore::options().key(core.key()).open_in(hypercore::Memory::new())?;
/// let _replication = copy.replicate(std::net::TcpStream::connect(server.local_addr())?, Role::Initiator)?;
/// assert_eq!(copy.get(0)?, b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Server {
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    address: SocketAddr,
    cores: Mutex<Vec<Hypercore>>,
    connections: Mutex<Vec<Connection>>,
    stop: Signal<()>,
    options: ServerOptions,
}

impl Server {
    /// Listens at `address` and serves `cores`. The port 0 gives a free one; see [`Server::local_addr`].
    pub fn listen(address: impl ToSocketAddrs, cores: impl IntoIterator<Item = Hypercore>) -> Result<Self> {
        Self::listen_with(address, cores, ServerOptions::default())
    }

    /// As [`Server::listen`], told how to treat those who connect.
    pub fn listen_with(
        address: impl ToSocketAddrs,
        cores: impl IntoIterator<Item = Hypercore>,
        options: ServerOptions,
    ) -> Result<Self> {
        let listener = TcpListener::bind(address)?;
        let shared = Arc::new(Shared {
            address: listener.local_addr()?,
            cores: Mutex::new(Rank::Session, cores.into_iter().collect()),
            connections: Mutex::new(Rank::Session, Vec::new()),
            stop: Signal::new(),
            options,
        });
        let ours = shared.clone();
        let acceptor = std::thread::Builder::new()
            .name("hypercore-accept".into())
            .stack_size(256 * 1024)
            .spawn(move || ours.accept_until_closed(&listener))
            .map_err(Error::from)?;
        Ok(Server { shared, acceptor: Some(acceptor) })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.address
    }

    /// Serves one more core, to those who connect from now on and to those connected who then ask for it.
    pub fn add(&self, core: Hypercore) {
        self.shared.cores.lock().push(core);
    }

    /// The connections that are open.
    pub fn connections(&self) -> Vec<Connection> {
        let mut connections = self.shared.connections.lock();
        connections.retain(|c| !c.is_closed());
        connections.clone()
    }

    /// Stops listening, ends all connections and waits for their threads.
    pub fn close(mut self) {
        self.shut();
    }

    fn shut(&mut self) {
        let Some(acceptor) = self.acceptor.take() else { return };
        self.shared.stop.set(());
        // Accepting blocks without a deadline: a connection of our own ends it.
        let mut address = self.shared.address;
        if address.ip().is_unspecified() {
            address.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
        }
        if TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok() {
            let _ = acceptor.join();
        }
        let connections = std::mem::take(&mut *self.shared.connections.lock());
        connections.iter().for_each(Connection::close);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shut();
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("local_addr", &self.local_addr()).finish_non_exhaustive()
    }
}

impl Shared {
    fn accept_until_closed(self: &Arc<Self>, listener: &TcpListener) {
        loop {
            let accepted = listener.accept();
            if self.stop.peek().is_some() {
                return;
            }
            match accepted {
                Ok((stream, _)) => self.take_in(stream),
                // The one who connected is gone, or there are no descriptors left: then accepting fails until some are, and
                // trying at once would only burn time.
                Err(_) => {
                    self.connections.lock().retain(|c| !c.is_closed());
                    self.stop.wait(deadline(Duration::from_millis(100)));
                }
            }
        }
    }

    fn take_in(self: &Arc<Self>, stream: TcpStream) {
        {
            let mut connections = self.connections.lock();
            connections.retain(|c| !c.is_closed());
            if connections.len() >= self.options.max_connections {
                return;
            }
        }
        let ours = Arc::downgrade(self);
        let lookup: Lookup = Arc::new(move |wanted| {
            let server = ours.upgrade()?;
            let cores = server.cores.lock();
            cores.iter().find(|core| core.discovery_key() == *wanted).cloned()
        });
        // One who cannot be served, for want of threads or a stream that is gone already, is turned away.
        let options = self.options.connection.clone();
        if let Ok(connection) = Connection::open_with(stream, Role::Responder, options, Some(lookup)) {
            self.connections.lock().push(connection);
        }
    }
}
