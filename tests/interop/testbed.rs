//! Cores of both sides in one directory, and connections between them.

use std::net::{Ipv4Addr, TcpListener, TcpStream};

use hypercore::net::{Connection, ConnectionOptions, Replication, Role};
use hypercore::{Hypercore, Key, OpenOptions};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::machine::limit;
use crate::common::watchdog::Watchdog;
use crate::js::Js;
use crate::model::key_of;

/// The version of JavaScript, and which side listens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Setting {
    pub version: &'static str,
    pub js_listens: bool,
}

/// A JavaScript process, and a directory for cores of both sides.
pub struct Testbed {
    pub setting: Setting,
    pub js: Js,
    dir: TempDir,
    _watchdog: Watchdog,
}

/// A connection, and its number in JavaScript.
pub struct Link {
    pub connection: Connection,
    pub conn: u64,
    /// In the order of the cores.
    pub replications: Vec<Replication>,
}

/// A core of ours, whose copy JavaScript has open as "mine", and our copy of the core that JavaScript has
/// open as "theirs".
pub struct Pair {
    pub mine: Hypercore,
    pub copy: Hypercore,
}

impl Testbed {
    /// `None` if there is no JavaScript.
    pub fn new(setting: Setting, name: &'static str) -> Option<Testbed> {
        let watchdog = Watchdog::new(name, limit(150));
        let js = Js::replicate()?;
        Some(Testbed { setting, js, dir: tempfile::tempdir().unwrap(), _watchdog: watchdog })
    }

    /// Opens a core of JavaScript under a name; returns its info.
    #[track_caller]
    pub fn theirs(&mut self, name: &str, options: Value) -> Value {
        let mut request = options;
        request["core"] = json!(name);
        request["dir"] = json!(self.dir.path().join("theirs").join(name));
        request["version"] = json!(self.setting.version);
        self.js.call("open", request)
    }

    #[track_caller]
    pub fn ours(&self, name: &str, options: OpenOptions) -> Hypercore {
        options.open(self.dir.path().join("ours").join(name)).unwrap()
    }

    /// Opens a core of each side and its copy on the other.
    #[track_caller]
    pub fn pair(&mut self) -> Pair {
        self.pair_of(json!({}), Hypercore::options(), |key| Hypercore::options().key(key))
    }

    /// As [`Testbed::pair`], with the options `js` for both cores of JavaScript, `ours` for our core, and `copy`
    /// for our copy.
    #[track_caller]
    pub fn pair_of(&mut self, js: Value, ours: OpenOptions, copy: impl FnOnce(Key) -> OpenOptions) -> Pair {
        let theirs = self.theirs("theirs", js.clone());
        let copy = self.ours("copy", copy(key_of(&theirs)));
        let mine = self.ours("mine", ours);
        let mut options = js;
        options["key"] = json!(mine.key().to_hex());
        self.theirs("mine", options);
        Pair { mine, copy }
    }

    /// Connects both sides and replicates our cores with those that JavaScript has open under these names.
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

    #[track_caller]
    pub fn connect_pair(&mut self, pair: &Pair) -> Link {
        self.connect(&[("theirs", &pair.copy), ("mine", &pair.mine)])
    }
}
