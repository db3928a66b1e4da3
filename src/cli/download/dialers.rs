//! Connections to addresses, dialled again when they are lost.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hypercore::net::Role;
use hypercore::{Error, Hypercore, Peer};

use crate::cli::failure::Result;
use crate::cli::stderr::one_line;
use crate::cli::terminal::screen::note;
use crate::cli::thread::thread;

/// The first and the longest pause before an address is dialled again. Each failure doubles the pause.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// The timeout of one attempt to connect.
const ATTEMPT: Duration = Duration::from_secs(10);

/// Keeps a core connected to addresses until it is dropped or the core closes. Each address has a thread.
pub struct Dialers(Arc<Shared>);

struct Shared {
    core: Hypercore,
    states: Mutex<States>,
    stopping: Condvar,
    changed: Box<dyn Fn() + Send + Sync>,
}

struct States {
    stopped: bool,
    dialers: Vec<State>,
    /// The last failure, with its address.
    trouble: Option<String>,
}

/// The state of the connection to one address.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The first attempt is under way.
    Dialling,
    /// A connection was made. Whether the peer has the core is not known yet.
    Connected(SocketAddr),
    /// The core replicates.
    Joined,
    /// An attempt failed or a connection was lost. It is or will be dialled again.
    Failed,
}

impl Dialers {
    /// Connects `core` to `addresses`, each `HOST:PORT`. `changed` is called after each failure.
    pub fn start(core: &Hypercore, addresses: &[String], changed: impl Fn() + Send + Sync + 'static) -> Result<Self> {
        let states = States { stopped: false, dialers: vec![State::Dialling; addresses.len()], trouble: None };
        let shared = Arc::new(Shared {
            core: core.clone(),
            states: Mutex::new(states),
            stopping: Condvar::new(),
            changed: Box::new(changed),
        });
        let dialers = Dialers(shared.clone());
        for (index, address) in addresses.iter().enumerate() {
            let (shared, address) = (shared.clone(), address.clone());
            let dial = move || shared.dial_until_stopped(index, &address);
            thread("dial").spawn(dial).map_err(Error::from)?;
        }
        Ok(dialers)
    }

    /// Records that the core replicates with `peer`.
    pub fn joined(&self, peer: &Peer) {
        let Some(address) = peer.remote_address() else { return };
        for state in &mut self.0.states().dialers {
            if *state == State::Connected(address) {
                *state = State::Joined;
            }
        }
    }

    /// Whether every address has joined or failed.
    pub fn are_settled(&self) -> bool {
        self.0.states().dialers.iter().all(|state| matches!(state, State::Joined | State::Failed))
    }

    /// Stops dialling and warning. Dropping may come later than this: a callback that is running holds a reference.
    pub fn stop(&self) {
        self.0.states().stopped = true;
        self.0.stopping.notify_all();
    }

    /// The last failure, with its address.
    pub fn trouble(&self) -> Option<String> {
        self.0.states().trouble.clone()
    }
}

impl Drop for Dialers {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn dial_until_stopped(&self, index: usize, address: &str) {
        let mut pause = PAUSES.0;
        // For a name with several addresses: the index of the one to try first.
        let mut first = 0;
        let mut told = String::new();
        loop {
            let (trouble, was_joined) = match connect(address, &mut first) {
                Ok(stream) => self.replicate(index, stream),
                Err(error) => (format!("cannot connect: {error}"), false),
            };
            if was_joined {
                (pause, told) = (PAUSES.0, String::new());
            } else {
                // Another address of the name may be the right one.
                first += 1;
            }
            let trouble = format!("{address}: {trouble}");
            let mut states = self.states();
            if states.stopped || !self.core.readable() {
                return;
            }
            states.dialers[index] = State::Failed;
            states.trouble = Some(trouble.clone());
            drop(states);
            (self.changed)();
            if trouble != told {
                note(format_args!("warning: {}; dialling again", one_line(&trouble)));
                told = trouble;
            }
            let states = self.states();
            let (states, _) = self
                .stopping
                .wait_timeout_while(states, pause, |states| !states.stopped)
                .unwrap_or_else(PoisonError::into_inner);
            if states.stopped {
                return;
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Replicates over `stream` until the connection ends. Returns why it ended, and whether the peer had the core.
    fn replicate(&self, index: usize, stream: TcpStream) -> (String, bool) {
        if let Ok(peer) = stream.peer_addr() {
            self.states().dialers[index] = State::Connected(peer);
        }
        let ended = self.core.replicate(stream, Role::Initiator).and_then(|replication| replication.wait());
        let was_joined = self.states().dialers[index] == State::Joined;
        let why = match (ended, was_joined) {
            (Err(error), _) => format!("connection lost: {error}"),
            (Ok(()), true) => "connection lost: the peer closed it".into(),
            (Ok(()), false) => "the peer closed the connection: it may not have this core".into(),
        };
        (why, was_joined)
    }

    fn states(&self) -> MutexGuard<'_, States> {
        // The states are consistent after a panic: each change is one assignment.
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connects to one of the addresses that `address` resolves to. Tries index `first` first, and sets it to the
/// index that accepted.
fn connect(address: &str, first: &mut usize) -> io::Result<TcpStream> {
    let resolved: Vec<SocketAddr> = address.to_socket_addrs()?.collect();
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for step in 0..resolved.len() {
        let at = first.wrapping_add(step) % resolved.len();
        match TcpStream::connect_timeout(&resolved[at], ATTEMPT) {
            Ok(stream) => {
                *first = at;
                return Ok(stream);
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}
