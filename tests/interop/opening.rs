//! The options of an open in every combination, for a new core and for an existing one: both sides get the same key,
//! manifest and write permission, or both refuse.

use hypercore::{Hypercore, Key, Manifest, OpenOptions, Signer};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::common::{hex, pair};
use crate::js::Js;
use crate::model::{key_of, seed};

/// Of the options of the second open, one in this many is tried.
const STRIDE: usize = 13;

/// The options of an open.
#[derive(Clone, Copy, Debug)]
struct How {
    key: Option<Named>,
    /// The number of the key pair that is passed.
    pair: Option<u8>,
    manifest: Option<Named>,
    compat: Option<bool>,
}

/// Names a key or a manifest.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Named {
    /// The public key of key pair 7, or the manifest with it as the only signer.
    Single,
    /// The manifest of key pairs 7 and 8, or its hash.
    Two,
    /// The hash of the manifest of key pair 7.
    Hash,
}

fn manifest(named: Named) -> (Manifest, Value) {
    let signers: &[u8] = if named == Named::Two { &[7, 8] } else { &[7] };
    let ours = Manifest::new(signers.iter().map(|&by| Signer::new(pair(by).public_key())).collect());
    let theirs = json!({"signers": signers.iter().map(|&by| json!({"seed": seed(by)})).collect::<Vec<_>>()});
    (ours, theirs)
}

fn key(named: Named) -> Key {
    match named {
        Named::Single => pair(7).public_key(),
        other => manifest(other).0.key(),
    }
}

impl How {
    fn all() -> Vec<How> {
        let mut all = Vec::new();
        for key in [None, Some(Named::Single), Some(Named::Two), Some(Named::Hash)] {
            for pair in [None, Some(7), Some(8)] {
                for manifest in [None, Some(Named::Single), Some(Named::Two)] {
                    for compat in [None, Some(true), Some(false)] {
                        all.push(How { key, pair, manifest, compat });
                    }
                }
            }
        }
        all.retain(How::is_sound);
        all
    }

    /// The reference accepts any manifest with a key, and with a manifest and `compat` creates a core that it
    /// cannot open again.
    fn is_sound(&self) -> bool {
        match (self.key, self.manifest) {
            (Some(of), Some(named)) => {
                key(of) == manifest(named).0.key() || (of, named) == (Named::Single, Named::Single)
            }
            (None, Some(_)) => self.compat != Some(true),
            _ => true,
        }
    }

    /// Whether the open generates the key pair, and with it the key.
    fn is_random(&self) -> bool {
        self.key.is_none() && self.pair.is_none()
    }

    fn ours(&self) -> OpenOptions {
        let mut options = Hypercore::options();
        if let Some(named) = self.key {
            options = options.key(key(named));
        }
        if let Some(by) = self.pair {
            options = options.key_pair(pair(by));
        }
        if let Some(named) = self.manifest {
            options = options.manifest(manifest(named).0);
        }
        if let Some(compat) = self.compat {
            options = options.compat(compat);
        }
        options
    }

    fn theirs(&self) -> Value {
        let mut options = json!({});
        if let Some(named) = self.key {
            options["key"] = json!(key(named).to_hex());
        }
        if let Some(by) = self.pair {
            options["seed"] = json!(seed(by));
        }
        if let Some(named) = self.manifest {
            options["manifest"] = manifest(named).1;
        }
        if let Some(compat) = self.compat {
            options["compat"] = json!(compat);
        }
        options
    }
}

/// The properties of an open core that are compared.
#[derive(PartialEq, Debug)]
struct Known {
    key: Option<Key>,
    writable: bool,
    manifest: Option<(u64, Vec<String>)>,
}

impl Known {
    fn by_us(core: &Hypercore, random: bool) -> Known {
        let signers = |m: Manifest| (m.quorum, m.signers.iter().map(|s| hex(s.public_key.as_bytes())).collect());
        let manifest = core.manifest().map(signers).filter(|_| !random);
        Known { key: Some(core.key()).filter(|_| !random), writable: core.writable(), manifest }
    }

    fn by_js(info: &Value, random: bool) -> Known {
        let manifest = Some(&info["manifest"]).filter(|m| !m.is_null() && !random).map(|m| {
            let signers = m["signers"].as_array().unwrap().iter().map(|s| s["publicKey"].as_str().unwrap().to_owned());
            (m["quorum"].as_u64().unwrap(), signers.collect())
        });
        Known { key: Some(key_of(info)).filter(|_| !random), writable: info["writable"].as_bool().unwrap(), manifest }
    }
}

#[test]
fn new_core_opens_equally_with_any_options() {
    let Some(mut js) = Js::core() else { return };
    let mut differing = Vec::new();
    for how in How::all() {
        let dir = tempdir().unwrap();
        let (ours, theirs) = opened(&mut js, dir.path(), &how, how.is_random());
        if ours != theirs {
            differing.push(format!("{how:?}:\n  ours {ours:?}\n  theirs {theirs:?}"));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[test]
fn existing_core_opens_equally_with_any_options() {
    let Some(mut js) = Js::core() else { return };
    let mut differing = Vec::new();
    // A core with a generated key differs between the sides.
    let all = How::all().into_iter().filter(|how| !how.is_random());
    for (at, first) in all.enumerate() {
        for then in How::all().into_iter().skip(at % STRIDE).step_by(STRIDE) {
            let dir = tempdir().unwrap();
            if opened(&mut js, dir.path(), &first, false).0.is_err() {
                break;
            }
            let (mut ours, theirs) = opened(&mut js, dir.path(), &then, false);
            // Here a key pair passed to an open makes a core writable that was created without one.
            if let (Ok(ours), Ok(theirs), None, Some(_)) = (&mut ours, &theirs, first.pair, then.pair) {
                ours.writable = theirs.writable;
            }
            if ours != theirs {
                differing.push(format!("{first:?}, then {then:?}:\n  ours {ours:?}\n  theirs {theirs:?}"));
            }
        }
    }
    assert!(differing.is_empty(), "{} {}", differing.len(), differing.join("\n"));
}

/// Opens and closes a core on each side; returns ours and JavaScript's result.
fn opened(js: &mut Js, dir: &std::path::Path, how: &How, random: bool) -> (Result<Known, ()>, Result<Known, ()>) {
    let ours = how.ours().open(dir.join("ours")).map(|core| Known::by_us(&core, random)).map_err(|_| ());
    let mut request = how.theirs();
    request["dir"] = json!(dir.join("theirs"));
    let theirs = js.try_call("open", request).map(|info| Known::by_js(&info, random)).map_err(|_| ());
    if theirs.is_ok() {
        js.call("close", json!({}));
    }
    (ours, theirs)
}
