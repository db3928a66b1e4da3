//! Cores of both sides in one place, and connections between them.

use std::net::{Ipv4Addr, TcpListener, TcpStream};

use hypercore::net::{Connection, ConnectionOptions, Replication, Role};
use hypercore::{Hypercore, Key, OpenOptions};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::machine::limit;
use crate::common::watchdog::Watchdog;
use crate::js::Js;
use crate::model::key_of;

/// Which version is on the other side, and who waits for the other's call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Setting {
    pub version: &'static str,
    pub js_listens: bool,
}

/// A JavaScript process with cores, and a place for cores.
pub struct Testbed {
    pub setting: Setting,
    pub js: Js,
    dir: TempDir,
    _watchdog: Watchdog,
}

/// A connection of ours, and its number there.
pub struct Link {
    pub connection: Connection,
    pub conn: u64,
    /// In the order in which the cores were given.
    pub replications: Vec<Replication>,
}

/// A core of ours and its copy there, which is open as "mine"; a core of theirs, open as "theirs", and its copy here.
pub struct Pair {
    pub mine: Hypercore,
    pub copy: Hypercore,
}

impl Testbed {
    /// None where there is no JavaScript.
    pub fn new(setting: Setting, name: &'static str) -> Option<Testbed> {
        let watchdog = Watchdog::new(name, limit(150));
        let js = Js::replicate()?;
        Some(Testbed { setting, js, dir: tempfile::tempdir().unwrap(), _watchdog: watchdog })
    }

    /// Opens a core of JavaScript under a name.
    #[track_caller]
    pub fn theirs(&mut self, name: &str, options: Value) -> Value {
        let mut request = options;
        request["core"] = json!(name);
        request["dir"] = json!(self.dir.path().join("theirs").join(name));
        request["version"] = json!(self.setting.version);
        self.js.call("open", request)
    }

    /// Opens a core of ours.
    #[track_caller]
    pub fn ours(&self, name: &str, options: OpenOptions) -> Hypercore {
        options.open(self.dir.path().join("ours").join(name)).unwrap()
    }

    /// A core of each side and its copy on the other.
    #[track_caller]
    pub fn pair(&mut self) -> Pair {
        self.pair_of(json!({}), Hypercore::options(), |key| Hypercore::options().key(key))
    }

    /// As [`Testbed::pair`], with `js` for the cores of JavaScript, `ours` for the core that we write, and `copy` for our copy.
    #[track_caller]
    pub fn pair_of(&mut self, js: Value, ours: OpenOptions, copy: impl FnOnce(Key) -> OpenOptions) -> Pair {
        let theirs = self.theirs("theirs", js.clone());
        let copy = self.ours("copy", copy(key_of(&theirs)));
        let mine = self.ours("mine", ours);
        let mut options = js;
        options["key"] = json!(mine.key().to_string());
        self.theirs("mine", options);
        Pair { mine, copy }
    }

    /// Connects, and replicates from the start the cores of JavaScript open under these names and ours.
    #[track_caller]
    pub fn connect(&mut self, cores: &[(&str, &Hypercore)]) -> Link {
        self.connect_with(cores, ConnectionOptions::new())
    }

    #[track_caller]
    pub fn connect_with(&mut self, cores: &[(&str, &Hypercore)], options: ConnectionOptions) -> Link {
        let names: Vec<&str> = cores.iter().map(|(name, _)| *name).collect();
        let replicate = |connection: &Connection| -> Vec<Replication> {
            cores.iter().map(|(_, core)| core.replicate_on(connection).unwrap()).collect()
        };
        let version = self.setting.version;
        if self.setting.js_listens {
            let port = self.js.call("listen", json!({"cores": names, "version": version}))["port"].as_u64().unwrap();
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port as u16)).unwrap();
            let connection = Connection::open(stream, Role::Initiator, options).unwrap();
            let replications = replicate(&connection);
            let conn = self.js.event("connection")["conn"].as_u64().unwrap();
            self.js.call("unlisten", json!({}));
            return Link { connection, conn, replications };
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let pending = self.js.start("connect", json!({"port": port, "cores": names, "version": version}));
        let connection = Connection::open(listener.accept().unwrap().0, Role::Responder, options).unwrap();
        let replications = replicate(&connection);
        let conn = self.js.finish(pending)["conn"].as_u64().unwrap();
        self.js.event("connection");
        Link { connection, conn, replications }
    }

    /// Connects both cores of a pair.
    #[track_caller]
    pub fn connect_pair(&mut self, pair: &Pair) -> Link {
        self.connect(&[("theirs", &pair.copy), ("mine", &pair.mine)])
    }
}
