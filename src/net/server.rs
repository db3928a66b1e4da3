//! A TCP listener that serves cores to everyone who connects.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::core::Hypercore;
use crate::logging;
use crate::net::connection::{Connection, ConnectionOptions, Lookup};
use crate::sync::{Mutex, Rank, Signal, deadline};
use crate::wire::noise::Role;
use crate::{Error, Result};

/// The options of a server.
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
    /// The default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// The options of each connection.
    pub fn connection(mut self, options: ConnectionOptions) -> Self {
        self.connection = options;
        self
    }

    /// The most connections at a time; default 256. Further ones are closed at once.
    pub fn max_connections(mut self, most: usize) -> Self {
        self.max_connections = most;
        self
    }
}

/// Serves cores over TCP. A peer gets the cores that it asks for by discovery key. Dropping the server closes it.
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
    /// Listens at `address` and serves `cores`, with the default options. With port 0 the system assigns a free
    /// port; see [`Server::local_addr`]. Returns once the socket listens.
    pub fn listen(address: impl ToSocketAddrs, cores: impl IntoIterator<Item = Hypercore>) -> Result<Self> {
        Self::listen_with(address, cores, ServerOptions::default())
    }

    /// Like [`Server::listen`], with options.
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

    /// The address that the server listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.address
    }

    /// Serves one more core: to peers that connect from now on, and to connected peers that ask for it from now on.
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
        // `accept` blocks without a deadline. Connecting to ourselves ends it.
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
                Ok((stream, address)) => self.take_in(stream, address),
                // The peer is gone already, or the process has no free descriptors. In the latter case
                // accepting fails until there are some, so wait before the next try.
                Err(error) => {
                    logging::event!(warn, "cannot accept connections: {error}");
                    self.connections.lock().retain(|c| !c.is_closed());
                    self.stop.wait(deadline(Duration::from_millis(100)));
                }
            }
        }
    }

    fn take_in(self: &Arc<Self>, stream: TcpStream, address: SocketAddr) {
        {
            let mut connections = self.connections.lock();
            connections.retain(|c| !c.is_closed());
            if connections.len() >= self.options.max_connections {
                drop(connections);
                let most = self.options.max_connections;
                logging::event!(
                    warn,
                    "connection from {address}: refused, because {most} connections are open already"
                );
                return;
            }
        }
        let ours = Arc::downgrade(self);
        let lookup: Lookup = Arc::new(move |wanted| {
            let server = ours.upgrade()?;
            let cores = server.cores.lock();
            cores.iter().find(|core| core.discovery_key() == *wanted).cloned()
        });
        // A peer that cannot be served, because a thread cannot be started or its stream is gone, is dropped.
        let options = self.options.connection.clone();
        match Connection::open_with(stream, Role::Responder, options, Some(lookup)) {
            Ok(connection) => self.connections.lock().push(connection),
            Err(error) => logging::event!(warn, "connection from {address}: not opened: {error}"),
        }
    }
}
