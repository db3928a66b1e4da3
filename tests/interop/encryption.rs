//! We tell encrypted logs of either side from plain ones, and JavaScript ignores the marker that we store in
//! the user data.

use std::path::Path;

use hypercore::{Durability, Encrypted, ErrorKind, GetOptions, Hypercore, OpenOptions};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::common::pair;
use crate::js::{Js, bytes};
use crate::model::{assert_sound, assert_sound_to_js, seed};

const KEY: [u8; 32] = [0xee; 32];
const OTHER: [u8; 32] = [0xdd; 32];
const MARKER: &str = "hypercore-blocking/encryption";

fn ours(dir: &Path, key: Option<[u8; 32]>) -> Hypercore {
    let options = Hypercore::options().create_if_missing(false).wait(false);
    key.map_or(options.clone(), |key| options.encryption_key(key)).open(dir).unwrap()
}

fn open_in_js(js: &mut Js, dir: &Path, compat: bool, encrypted: bool) {
    let mut request = json!({"dir": dir, "seed": seed(7), "compat": compat});
    if encrypted {
        request["encryptionKey"] = json!(seed(0xee));
    }
    js.call("open", request);
}

fn get_in_js(js: &mut Js, index: u64) -> Vec<u8> {
    bytes(&js.call("get", json!({"index": index})), "block")
}

/// Fails unless reads and appends are refused, and blocks can only be read as stored.
#[track_caller]
fn refuses(dir: &Path, key: Option<[u8; 32]>) {
    let core = ours(dir, key);
    let length = core.len();
    assert_eq!(core.get(0).unwrap_err().kind(), ErrorKind::Encryption);
    assert_eq!(core.append("x").unwrap_err().kind(), ErrorKind::Encryption);
    assert_eq!(core.seek(1).unwrap_err().kind(), ErrorKind::Encryption);
    assert!(core.get_with(0, GetOptions::new().decrypt(false)).unwrap().is_some());
    assert_eq!(core.len(), length);
    core.close().unwrap();
}

#[test]
fn encrypted_javascript_log_is_marked_at_first_open_with_its_key() {
    for compat in [true, false] {
        let Some(mut js) = Js::core() else { return };
        let dir = tempdir().unwrap();
        open_in_js(&mut js, dir.path(), compat, true);
        js.call("append", json!({"text": ["one", "", "three"]}));
        js.call("truncate", json!({"length": 2}));
        js.call("append", json!({"text": ["three again"]}));
        js.call("close", json!({}));

        let core = ours(dir.path(), None);
        assert_eq!(core.is_encrypted(), Encrypted::Unknown);
        assert_eq!(core.get(0).unwrap().len(), 8 + 3);
        core.close().unwrap();
        refuses(dir.path(), Some(OTHER));
        let core = ours(dir.path(), Some(KEY));
        assert_eq!((core.is_encrypted(), core.get(2).unwrap()), (Encrypted::Yes, b"three again".to_vec()));
        core.close().unwrap();
        refuses(dir.path(), None);

        open_in_js(&mut js, dir.path(), compat, true);
        assert_eq!(get_in_js(&mut js, 2), b"three again");
        js.call("append", json!({"text": ["four"]}));
        js.call("flush", json!({}));
        assert_sound_to_js(&mut js, "main");
        js.call("close", json!({}));

        refuses(dir.path(), None);
        refuses(dir.path(), Some(OTHER));
        let core = ours(dir.path(), Some(KEY));
        assert_eq!((core.get(3).unwrap(), core.append("five").unwrap().length), (b"four".to_vec(), 5));
        assert_sound(&core);
        core.close().unwrap();
        open_in_js(&mut js, dir.path(), compat, true);
        assert_eq!(get_in_js(&mut js, 4), b"five");
        js.call("close", json!({}));
    }
}

#[test]
fn marked_log_opens_in_javascript_with_and_without_key() {
    let encrypted: fn(OpenOptions) -> OpenOptions = |options| options.encryption_key(KEY);
    let plain: fn(OpenOptions) -> OpenOptions = |options| options;
    for (is_encrypted, with) in [(true, encrypted), (false, plain)] {
        for (compat, flushed) in [(true, true), (true, false), (false, true), (false, false)] {
            let Some(mut js) = Js::core() else { return };
            let dir = tempdir().unwrap();
            let core = with(Hypercore::options().key_pair(pair(7)).compat(compat)).open(dir.path()).unwrap();
            core.append_batch(["one", "two"]).unwrap();
            let marker = core.user_data(MARKER).unwrap();
            assert_eq!(marker.len(), if is_encrypted { 32 } else { 1 });
            if flushed {
                core.close().unwrap();
            } else {
                // The marker of a plain log is in the oplog entry of its first blocks.
                for file in ["oplog", "tree", "bitfield", "data"] {
                    let bytes = std::fs::read(dir.path().join(file)).unwrap_or_default();
                    std::fs::create_dir_all(dir.path().join("copy")).unwrap();
                    std::fs::write(dir.path().join("copy").join(file), bytes).unwrap();
                }
            }
            let at = if flushed { dir.path().to_owned() } else { dir.path().join("copy") };

            let mut request = json!({"dir": at, "createIfMissing": false});
            js.call("open", request.clone());
            let stored = get_in_js(&mut js, 1);
            assert_eq!(stored.len(), if is_encrypted { 8 + 3 } else { 3 });
            assert_eq!(bytes(&js.call("userData", json!({}))["values"], MARKER), marker);
            js.call("close", json!({}));
            if is_encrypted {
                request["encryptionKey"] = json!(seed(0xee));
                js.call("open", request);
            } else {
                js.call("open", request);
            }
            assert_eq!(get_in_js(&mut js, 1), b"two");
            js.call("append", json!({"text": ["three"]}));
            assert_sound_to_js(&mut js, "main");
            js.call("flush", json!({}));
            js.call("close", json!({}));

            refuses(&at, if is_encrypted { None } else { Some(KEY) });
            let core = ours(&at, is_encrypted.then_some(KEY));
            let known = if is_encrypted { Encrypted::Yes } else { Encrypted::No };
            assert_eq!((core.is_encrypted(), core.get(2).unwrap()), (known, b"three".to_vec()));
            assert_sound(&core);
        }
    }
}

/// With this durability we store no marker in a plain log.
#[test]
fn plain_log_without_durability_has_no_user_data() {
    let Some(mut js) = Js::core() else { return };
    let dir = tempdir().unwrap();
    let core = Hypercore::options().durability(Durability::None).open(dir.path()).unwrap();
    core.append("one").unwrap();
    core.close().unwrap();
    js.call("open", json!({"dir": dir.path(), "createIfMissing": false}));
    assert_eq!(js.call("userData", json!({}))["values"], Value::Object(serde_json::Map::new()));
    js.call("close", json!({}));
}
