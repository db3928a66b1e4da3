//! Connections to addresses, made again when they are lost.

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

/// The first and the longest pause before an address is dialled again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// The longest that one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(10);

/// Keeps a core connected to addresses, each on a thread of its own, until it is dropped or the core closes.
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
    /// What went wrong last, with which address.
    trouble: Option<String>,
}

/// How far a dialler is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The first attempt is under way.
    Dialling,
    /// A connection was made; whether the other side has the core is not known yet.
    Connected(SocketAddr),
    /// The core replicates.
    Joined,
    /// An attempt failed or a connection was lost, and it is or will be dialled again.
    Failed,
}

impl Dialers {
    /// Connects `core` to `addresses`, each `HOST:PORT`. `changed` is called when a dialler got further.
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

    /// Tells that the core replicates with `peer`.
    pub fn joined(&self, peer: &Peer) {
        let Some(address) = peer.remote_address() else { return };
        for state in &mut self.0.states().dialers {
            if *state == State::Connected(address) {
                *state = State::Joined;
            }
        }
    }

    /// Whether it is known of every address what came of it.
    pub fn are_settled(&self) -> bool {
        self.0.states().dialers.iter().all(|state| matches!(state, State::Joined | State::Failed))
    }

    /// Dials no more, and has nothing more to say of what ends. Whoever drops all this may do so later than it is meant to end: a
    /// callback that is being delivered holds it.
    pub fn stop(&self) {
        self.0.states().stopped = true;
        self.0.stopping.notify_all();
    }

    /// What went wrong last, with which address.
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
        // Where a name has several addresses: which of them is tried first.
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
                // The next one may be what was meant.
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

    /// Replicates over `stream` until the connection ends; tells why it did, and whether the other side had the core.
    fn replicate(&self, index: usize, stream: TcpStream) -> (String, bool) {
        if let Ok(peer) = stream.peer_addr() {
            self.states().dialers[index] = State::Connected(peer);
        }
        let ended = self.core.replicate(stream, Role::Initiator).and_then(|replication| replication.wait());
        let was_joined = self.states().dialers[index] == State::Joined;
        let why = match (ended, was_joined) {
            (Err(error), _) => format!("connection lost: {error}"),
            (Ok(()), true) => "connection lost: the other side closed it".into(),
            (Ok(()), false) => "the other side closed the connection: it may not have this core".into(),
        };
        (why, was_joined)
    }

    fn states(&self) -> MutexGuard<'_, States> {
        // What the states say holds after any panic.
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection to one of the addresses that `address` resolves to, trying number `first` first, which is set to the one it is to.
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
