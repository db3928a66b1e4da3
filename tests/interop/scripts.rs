//! Tests of the drivers: two JavaScript processes use the requests of our tests with each other, so that a failure
//! elsewhere is ours and not the drivers'.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::common::hex;
use crate::common::machine::limit;
use crate::common::watchdog::Watchdog;
use crate::generated_blocks;
use crate::js::{self, Js, bytes};

/// Blocks generated from the same numbers are equal on both sides.
#[test]
fn generated_blocks_are_equal_in_javascript() {
    let Some(mut js) = Js::core() else { return };
    let dir = tempfile::tempdir().unwrap();
    js.call("open", json!({"dir": dir.path()}));
    js.call("append", json!({"random": {"seed": 4_000_000_001u32, "count": 60, "min": 0, "max": 77}}));
    js.call("append", json!({"random": {"seed": 3, "count": 1, "sizes": [100_001]}}));

    let mut digest = Sha256::new();
    for index in 0..61 {
        let ours = match index {
            60 => generated_blocks::block(3, 60, 100_001),
            _ => generated_blocks::sized_block(4_000_000_001, index, 0, 77),
        };
        assert_eq!(bytes(&js.call("get", json!({"index": index})), "block"), ours, "block {index}");
        digest.update((ours.len() as u64).to_le_bytes());
        digest.update(&ours);
    }
    assert_eq!(js.call("digest", json!({}))["sha256"], hex(&digest.finalize()));
    js.call("check", json!({"random": {"seed": 4_000_000_001u32, "max": 77}, "end": 60}));

    let refusal = js.try_call("check", json!({"random": {"seed": 5}})).unwrap_err();
    assert!(refusal.message.contains("block 0 is not the expected one"), "{}", refusal.message);
}

/// One process opens what another left, the newer version opens cores of the older ones, and an open core is locked.
#[test]
fn core_written_by_one_process_opens_in_another() {
    for version in ["10", "10.4.1", "10.0.0"] {
        let (Some(mut writer), Some(mut reader)) = (Js::core(), Js::core()) else { return };
        let dir = tempfile::tempdir().unwrap();
        let made = writer.call("open", json!({"dir": dir.path(), "version": version, "seed": "07".repeat(32)}));
        writer.call("append", json!({"random": {"seed": 1, "count": 300}, "batch": 40}));
        writer.call("truncate", json!({"length": 290}));
        writer.call("clear", json!({"start": 10, "end": 20}));
        let left = writer.call("digest", json!({"start": 20}));

        let locked = reader.try_call("open", json!({"dir": dir.path()})).unwrap_err();
        assert_eq!(locked.code.as_deref(), Some("ELOCKED"), "{}", locked.message);

        writer.call("close", json!({}));
        let found = reader.call("open", json!({"dir": dir.path(), "createIfMissing": false}));
        assert_eq!(found["key"], made["key"]);
        assert_eq!((&found["length"], &found["fork"]), (&json!(290), &json!(1)));
        assert_eq!(reader.call("digest", json!({"start": 20})), {
            let mut expected = left;
            expected["n"] = json!(3);
            expected
        });
        assert_eq!(reader.call("held", json!({}))["ranges"], json!([[0, 10], [20, 290]]));
        assert!(reader.end().success());
    }
}

/// A process killed in the middle of an append leaves the log as it was.
#[test]
fn append_killed_midway_is_undone() {
    let Some(mut js) = Js::core() else { return };
    let dir = tempfile::tempdir().unwrap();
    js.call("open", json!({"dir": dir.path()}));
    js.call("append", json!({"text": ["a", "b"]}));
    let before = fs::metadata(dir.path().join("oplog")).unwrap().len();
    js.die(json!({"at": {"file": "oplog", "bytes": 33}, "then": {"op": "append", "text": ["c"]}}));
    assert_eq!(fs::metadata(dir.path().join("oplog")).unwrap().len(), before + 33);

    let Some(mut js) = Js::core() else { return };
    assert_eq!(js.call("open", json!({"dir": dir.path()}))["length"], 2);
    assert_eq!(js.call("audit", json!({}))["report"], json!({"tree": 0, "blocks": 0}));
}

/// Two of two signers sign an append, and the head verifies; a signature over other blocks does not.
#[test]
fn append_signed_by_two_verifies() {
    let signers = [json!({"seed": "01".repeat(32)}), json!({"seed": "02".repeat(32), "namespace": "03".repeat(32)})];
    for version in ["10", "11"] {
        let Some(mut js) = Js::core() else { return };
        let dir = tempfile::tempdir().unwrap();
        let manifest = json!({"quorum": 2, "signers": signers});
        js.call("open", json!({"dir": dir.path(), "version": version, "manifest": manifest}));

        let mut sign = |text: [&str; 2]| {
            let proofs = ["01", "02"].map(|seed| js.call("sign", json!({"seed": seed.repeat(32), "text": text})));
            js.call("assemble", json!({"proofs": proofs}))["signature"].clone()
        };
        let (first, other) = (sign(["one", "two"]), sign(["some", "other"]));
        js.call("append", json!({"text": ["one", "two"], "signature": first}));
        assert_eq!(js.call("verifyHead", json!({}))["valid"], true);

        // Version 10 appends with any signature, which its peers would reject.
        match js.try_call("append", json!({"text": ["three"], "signature": other})) {
            Ok(_) => assert_eq!((version, &js.call("verifyHead", json!({}))["valid"]), ("10", &json!(false))),
            Err(refusal) => assert_eq!((version, refusal.code.as_deref()), ("11", Some("INVALID_SIGNATURE"))),
        }
    }
}

/// A server and a client of each pair of versions: clone, live appends, a fork, extension messages, several cores,
/// and channels closed and opened again.
#[test]
fn server_and_client_of_each_version_replicate() {
    let _watchdog = Watchdog::new("server_and_client_of_each_version_replicate", limit(300));
    for (ours, theirs) in [("10", "10"), ("10", "11"), ("11", "10"), ("11", "11")] {
        let (Some(mut server), Some(mut client)) = (Js::replicate(), Js::replicate()) else { return };
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| dir.path().join(name);

        let main = server.call("open", json!({"dir": place("main"), "version": ours}));
        let second = server.call("open", json!({"core": "second", "dir": place("second"), "version": ours}));
        server.call("append", json!({"random": {"seed": 1, "count": 2000}, "batch": 500}));
        server.call("append", json!({"core": "second", "text": ["another core"]}));
        let port = server.call("listen", json!({"cores": ["main"], "onDemand": true, "version": ours}))["port"].clone();

        client.call("open", json!({"dir": place("clone"), "version": theirs, "key": main["key"]}));
        client.call("open", json!({"core": "second", "dir": place("c2"), "version": theirs, "key": second["key"]}));
        let conn = client.call("connect", json!({"port": port, "version": theirs}))["conn"].clone();
        assert_eq!(client.event("open")["handshakeHash"], server.event("open")["handshakeHash"]);

        client.call("update", json!({"wait": true}));
        client.call("download", json!({"as": "all", "start": 0, "end": -1}));
        client.call("until", json!({"contiguous": 2000, "peers": 1}));
        client.call("check", json!({"random": {"seed": 1}, "end": 2000}));

        client.call("attach", json!({"conn": conn, "core": "second"}));
        assert_eq!(client.call("get", json!({"core": "second", "index": 0, "wait": true}))["size"], 12);

        let grown = client.start("until", json!({"contiguous": 2001}));
        server.call("append", json!({"text": ["live"]}));
        client.finish(grown);

        let forked = client.start("until", json!({"fork": 1, "length": 1501}));
        server.call("truncate", json!({"length": 1500}));
        server.call("append", json!({"text": ["forked"]}));
        client.finish(forked);
        assert_eq!(client.call("get", json!({"index": 1500, "wait": true}))["size"], 6);
        assert_eq!(client.events("truncate").len(), 1);

        for side in [&mut server, &mut client] {
            side.call("extension", json!({"name": "greeting"}));
        }
        client.call("extensionSend", json!({"name": "greeting", "message": "0102"}));
        assert_eq!(server.event("extension")["message"], "0102");
        assert_eq!(client.call("channel", json!({"conn": conn, "protocol": "unheard/of"}))["opened"], false);

        client.call("detach", json!({"conn": conn}));
        server.call("append", json!({"text": ["unseen"]}));
        client.call("attach", json!({"conn": conn}));
        client.call("until", json!({"length": 1502}));

        client.call("disconnect", json!({"conn": conn}));
        assert_eq!(server.event("disconnect")["error"], Value::Null);
    }
}

/// The generators make the committed fixtures byte for byte.
#[test]
fn committed_fixtures_are_current() {
    if Js::core().is_none() {
        return;
    }
    for (generator, vectors) in [("make-old.js", "old"), ("make-js10.js", "js10")] {
        let made = tempfile::tempdir().unwrap();
        let status = Command::new("node").arg(js::folder().join(generator)).arg(made.path()).status().unwrap();
        assert!(status.success(), "{generator}");
        assert_same(made.path(), &js::folder().join("../vectors").join(vectors));
    }
}

fn assert_same(made: &Path, kept: &Path) {
    let names = |dir: &Path| {
        let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(made), names(kept), "{}", kept.display());
    for name in names(made) {
        let (made, kept) = (made.join(&name), kept.join(&name));
        if made.is_dir() {
            assert_same(&made, &kept);
        } else {
            assert!(fs::read(&made).unwrap() == fs::read(&kept).unwrap(), "{} is another", kept.display());
        }
    }
}
