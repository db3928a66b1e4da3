//! Connected cores in memory, and queues of what their callbacks report.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use hypercore::net::{Connection, ConnectionOptions, Duplex, Halves, Replication, Role, pipe};
use hypercore::{Hypercore, Memory, Subscription, UpdateOptions};

/// A writable core with these blocks.
pub fn writer_of<B: AsRef<[u8]>>(blocks: impl IntoIterator<Item = B>) -> Hypercore {
    let core = Hypercore::in_memory().unwrap();
    core.append_batch(blocks).unwrap();
    core
}

/// Closes both ends of a connection and waits until their threads have ended.
pub fn disconnect(both: &(Replication, Replication)) {
    both.0.connection().close();
    both.1.connection().close();
}

/// Asks the peers for a longer head and waits for the answer; whether there was one.
pub fn ask_for_head(core: &Hypercore) -> bool {
    core.update_with(UpdateOptions::new().wait(true)).unwrap()
}

/// Blocks until `core` has fork number `fork`.
pub fn wait_for_fork(core: &Hypercore, fork: u64) {
    let events = Events::new(|tell| core.on_truncate(move |_, _| tell.send(()).unwrap_or(())));
    while core.fork() < fork {
        events.next();
    }
}

/// Blocks until a peer has joined.
pub fn wait_for_peer(core: &Hypercore) {
    let events = Events::new(|tell| core.on_peer_add(move |_| tell.send(()).unwrap_or(())));
    if core.peers().is_empty() {
        events.next();
    }
}

/// Records which blocks a core downloads.
pub struct Downloads {
    core: Hypercore,
    brought: Receiver<u64>,
    _subscription: Subscription,
}

impl Downloads {
    pub fn of(core: &Hypercore) -> Self {
        let (tell, brought) = channel();
        let subscription = core.on_download(move |block| tell.send(block.index).unwrap_or(()));
        Downloads { core: core.clone(), brought, _subscription: subscription }
    }

    /// Waits for `count` downloaded blocks and closes the core; returns all blocks that were downloaded, in order.
    pub fn until_closed(self, count: usize) -> Vec<u64> {
        let mut brought: Vec<u64> = (0..count).map(|_| self.brought.recv().unwrap()).collect();
        let closed = Events::new(|tell| self.core.on_close(move || tell.send(()).unwrap_or(())));
        self.core.close().unwrap();
        closed.next();
        brought.extend(self.brought.try_iter());
        brought
    }

    /// Fails unless exactly these blocks are downloaded, each once, in any order. Closes the core.
    #[track_caller]
    pub fn assert_are(self, expected: impl IntoIterator<Item = u64>) {
        let expected: Vec<u64> = expected.into_iter().collect();
        let mut brought = self.until_closed(expected.len());
        brought.sort_unstable();
        assert_eq!(brought, expected);
    }
}

/// A writable core with blocks [`block`]`(0..blocks)`.
pub fn writer(blocks: u64) -> Hypercore {
    let core = Hypercore::in_memory().unwrap();
    core.append_batch((0..blocks).map(block)).unwrap();
    core
}

pub fn block(index: u64) -> Vec<u8> {
    format!("block {index}").into_bytes()
}

/// An empty copy of a core, in memory.
pub fn copy_of(core: &Hypercore) -> Hypercore {
    Hypercore::options().key(core.key()).open_in(Memory::new()).unwrap()
}

/// Replicates two cores with each other over a pipe; `one` is the initiator.
pub fn connect(one: &Hypercore, other: &Hypercore) -> (Replication, Replication) {
    let (a, b) = pipe();
    (one.replicate(a, Role::Initiator).unwrap(), other.replicate(b, Role::Responder).unwrap())
}

/// The two ends of a connection that carries no core yet.
pub fn connection() -> (Connection, Connection) {
    let (a, b) = pipe();
    let open = |end, role| Connection::open(end, role, ConnectionOptions::default()).unwrap();
    (open(a, Role::Initiator), open(b, Role::Responder))
}

/// Replicates two cores with each other.
type Replicate = Box<dyn FnOnce(&Hypercore, &Hypercore) -> [Replication; 2]>;

/// Every kind of byte stream within one machine, with its name.
pub fn streams() -> Vec<(&'static str, Replicate)> {
    fn both<D: Duplex>(ends: (D, D), one: &Hypercore, other: &Hypercore) -> [Replication; 2] {
        [one.replicate(ends.0, Role::Initiator).unwrap(), other.replicate(ends.1, Role::Responder).unwrap()]
    }
    vec![
        ("pipe", Box::new(|one: &Hypercore, other: &Hypercore| both(pipe(), one, other))),
        ("tcp", Box::new(|one: &Hypercore, other: &Hypercore| both(tcp(), one, other))),
        #[cfg(unix)]
        (
            "unix",
            Box::new(|one: &Hypercore, other: &Hypercore| {
                both(std::os::unix::net::UnixStream::pair().unwrap(), one, other)
            }),
        ),
        #[cfg(unix)]
        ("two lines of one direction each", Box::new(|one: &Hypercore, other: &Hypercore| both(lines(), one, other))),
    ]
}

/// A stream whose two halves are files of their own, like a serial line's or a child process's.
#[cfg(unix)]
fn lines() -> (Halves, Halves) {
    use std::net::Shutdown;
    use std::os::unix::net::UnixStream;
    let ((a, b), (c, d)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
    let halves = |reader: UnixStream, writer: UnixStream| {
        let both = [reader.try_clone().unwrap(), writer.try_clone().unwrap()];
        let close = move || both.iter().for_each(|half| _ = half.shutdown(Shutdown::Both));
        Halves::new(reader, writer, close)
    };
    (halves(a, c), halves(d, b))
}

pub fn tcp() -> (std::net::TcpStream, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let one = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (one, listener.accept().unwrap().0)
}

/// A queue of what a callback reports.
pub struct Events<T> {
    reports: Receiver<T>,
    _subscription: Option<Subscription>,
}

impl<T: Send + 'static> Events<T> {
    /// `subscribe` registers a callback that sends to the queue.
    pub fn new(subscribe: impl FnOnce(Sender<T>) -> Subscription) -> Self {
        let (tell, reports) = channel();
        Events { reports, _subscription: Some(subscribe(tell)) }
    }

    /// Waits for the next report. There is no deadline: the watchdog ends a test that waits for ever.
    pub fn next(&self) -> T {
        self.reports.recv().unwrap()
    }

    /// Whether nothing is reported for this long.
    pub fn is_silent_for(&self, moment: Duration) -> bool {
        matches!(self.reports.recv_timeout(moment), Err(RecvTimeoutError::Timeout))
    }
}

/// Blocks until `copy` is `length` blocks long.
pub fn wait_for_length(copy: &Hypercore, length: u64) {
    let events = Events::new(|tell| copy.on_append(move || tell.send(()).unwrap_or(())));
    while copy.len() < length {
        events.next();
    }
}
