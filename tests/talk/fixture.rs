//! What the stories with real threads stand on: a watchdog, cores that are connected, and ears for their events.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;
use std::{env, fs};

use hypercore::net::{Connection, ConnectionOptions, Duplex, Halves, Replication, Role, pipe};
use hypercore::{Hypercore, Memory, Subscription};

use crate::machine::{limit, program};
use crate::watchdog::Watchdog;

/// How long a story may take on a busy machine.
const LIMIT: Duration = limit(120);

/// Connections of some stories must not be seen by those that count threads or memory.
static CONNECTIONS: RwLock<()> = RwLock::new(());

/// A story beside others.
pub struct Story(#[allow(dead_code)] RwLockReadGuard<'static, ()>, #[allow(dead_code)] Watchdog);

/// A story that is the only one with connections.
pub struct Alone(#[allow(dead_code)] RwLockWriteGuard<'static, ()>, #[allow(dead_code)] Watchdog);

pub fn story(name: &'static str) -> Story {
    let guard = CONNECTIONS.read().unwrap_or_else(PoisonError::into_inner);
    Story(guard, Watchdog::new(name, LIMIT))
}

pub fn alone(name: &'static str) -> Alone {
    let guard = CONNECTIONS.write().unwrap_or_else(PoisonError::into_inner);
    Alone(guard, Watchdog::new(name, LIMIT))
}

/// A story of `liars` that measures the memory of its process, which has no other. Where it is not that process, it
/// runs it and gives nothing.
pub fn alone_in_process(name: &'static str) -> Option<Alone> {
    const CHILD: &str = "HYPERCORE_TEST_ALONE";
    if env::var_os(CHILD).is_some() {
        return Some(alone(name));
    }
    let test = format!("malicious_peers::{name}");
    let child = program(env::current_exe().unwrap()).args(["--exact", &test]).env(CHILD, "1").output().unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    let ran = child.status.success() && said.contains("1 passed");
    assert!(ran, "{said}{}", String::from_utf8_lossy(&child.stderr));
    None
}

/// A writer's core of `blocks` blocks, each the text of its index.
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

/// Two ends of a connection that carries no core yet.
pub fn connection() -> (Connection, Connection) {
    let (a, b) = pipe();
    let open = |end, role| Connection::open(end, role, ConnectionOptions::default()).unwrap();
    (open(a, Role::Initiator), open(b, Role::Responder))
}

/// Replicates two cores with each other.
type Replicate = Box<dyn FnOnce(&Hypercore, &Hypercore) -> [Replication; 2]>;

/// A stream of bytes within this machine, of three kinds.
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

/// A stream put together by its user, of which each half is a file of its own: as of a serial line, or of a process.
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

/// Hears what callbacks tell.
pub struct Ear<T> {
    told: Receiver<T>,
    _subscription: Option<Subscription>,
}

impl<T: Send + 'static> Ear<T> {
    /// `subscribe` is given where to tell to.
    pub fn new(subscribe: impl FnOnce(Sender<T>) -> Subscription) -> Self {
        let (tell, told) = channel();
        Ear { told, _subscription: Some(subscribe(tell)) }
    }

    /// The next thing told; the watchdog looks after what never comes.
    pub fn hear(&self) -> T {
        self.told.recv().unwrap()
    }

    /// Whether nothing is told for a moment.
    pub fn hears_nothing_for(&self, moment: Duration) -> bool {
        matches!(self.told.recv_timeout(moment), Err(RecvTimeoutError::Timeout))
    }
}

/// Blocks until `copy` is `length` blocks long.
pub fn grow_to(copy: &Hypercore, length: u64) {
    let ear = Ear::new(|tell| copy.on_append(move || tell.send(()).unwrap_or(())));
    while copy.len() < length {
        ear.hear();
    }
}

/// The moment from which on threads of connections and servers are looked for; those of earlier stories may end when they like.
pub struct Threads(u64);

impl Threads {
    /// In the system's hundredths of a second since it was started.
    pub fn now() -> Self {
        let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
        let hundredths: String = uptime.chars().take_while(|c| *c != ' ').filter(|c| *c != '.').collect();
        Threads(hundredths.parse().unwrap_or(0))
    }

    /// All that were started since have been joined.
    #[track_caller]
    pub fn none_came(&self) {
        assert_eq!(self.came(), [""; 0], "threads are left");
    }

    /// All that were started since and have not been joined are `expected`, in the order of their names.
    #[track_caller]
    pub fn are(&self, expected: &[&str]) {
        if option_env!("HYPERCORE_EMULATED").is_none() && cfg!(target_os = "linux") {
            assert_eq!(self.came(), expected);
        }
    }

    /// The names of those that were started since and have not been joined; not of those that only run callbacks.
    fn came(&self) -> Vec<&'static str> {
        const NAMES: [&str; 3] = ["hypercore-read", "hypercore-write", "hypercore-accep"];
        // The system lists a thread for a moment after it was joined, but as one that exits.
        const EXITING: u64 = 4;
        let mut came = Vec::new();
        // An emulator's threads are its own, and end some time after those that it plays.
        if option_env!("HYPERCORE_EMULATED").is_some() {
            return came;
        }
        for task in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
            let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            let Some((name, rest)) = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')')) else { continue };
            let number = |at| rest.split_whitespace().nth(at).and_then(|number| number.parse().ok()).unwrap_or(0);
            let (flags, started): (u64, u64) = (number(6), number(19));
            // One that is to run callbacks has the name of who started it until it runs. Who reads or writes has waited.
            let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            let waits = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            let has_waited = waits.is_some_and(|waits| waits.trim() != "0");
            let name = NAMES.into_iter().find(|known| *known == name);
            came.extend(name.filter(|_| flags & EXITING == 0 && started > self.0 && has_waited));
        }
        came.sort_unstable();
        came
    }
}
