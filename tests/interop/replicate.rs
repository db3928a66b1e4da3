//! Replication over TCP with version 10.38.2 and 11.37.1, each as the one who listens and as the one who calls; every story is
//! told in both directions, with a log of theirs that we copy and a log of ours that they copy.

use std::net::{Ipv4Addr, TcpStream};
use std::sync::mpsc;

use hypercore::net::{Connection, ConnectionOptions, Role, Server};
use hypercore::{
    Download, ErrorKind, GetOptions, Hypercore, Manifest, MultiSignature, SeekOptions, SignOptions, Signer,
    UpdateOptions,
};
use serde_json::{Value, json};

use crate::generated_blocks;
use crate::js::{bytes, to_hex};
use crate::machine::one_in;
use crate::model::{
    LIMIT, Op, Seen, assert_sound, held, held_by_js, key_of, key_pair, random, seed, text, truncate, until,
};
use crate::testbed::{Pair, Setting, Testbed};

macro_rules! stories {
    ($($story:ident,)*) => {
        stories!(js10_listens, "10", true, $($story,)*);
        stories!(js10_calls, "10", false, $($story,)*);
        stories!(js11_listens, "11", true, $($story,)*);
        stories!(js11_calls, "11", false, $($story,)*);
    };
    ($module:ident, $version:literal, $js_listens:literal, $($story:ident,)*) => {
        mod $module {
            $(#[test]
            fn $story() {
                let setting = super::Setting { version: $version, js_listens: $js_listens };
                let name = concat!(stringify!($module), "::", stringify!($story));
                if let Some(testbed) = super::Testbed::new(setting, name) {
                    super::$story(testbed);
                }
            })*
        }
    };
}

stories! {
    whole_log_is_cloned,
    ranges_and_lists_are_downloaded,
    single_blocks_come_on_demand,
    live_appends_are_followed,
    tiny_blocks_are_cloned,
    mebibyte_blocks_are_cloned,
    largest_blocks_are_cloned,
    encrypted_log_is_cloned,
    manifest_is_learned_over_connection,
    multisig_log_is_cloned,
    cores_join_open_connection,
    listener_serves_requested_cores,
    sparse_peer_serves_held_blocks,
    live_forks_are_followed,
    forks_made_while_disconnected_are_followed,
    seeks_find_block_over_connection,
    extension_messages_are_delivered,
    unknown_messages_are_ignored,
    reopened_channels_resume,
    download_resumes_after_close,
    download_resumes_after_reset,
    closed_core_leaves_connection,
}

/// Has both copies fetch all of `length` blocks.
#[track_caller]
fn fetch_all(testbed: &mut Testbed, pair: &Pair, length: u64) {
    pair.copy.download(Download::range(0..length)).unwrap().wait_timeout(LIMIT).unwrap();
    testbed.js.call("download", json!({"core": "mine", "as": "all", "start": 0, "end": length}));
    testbed.js.call("downloaded", json!({"as": "all"}));
    testbed.js.call("until", json!({"core": "mine", "contiguous": length}));
}

/// JavaScript was told of an end and of no fault: what it was still sending may have met a closed socket, which its system
/// reports, but nothing that we sent was refused.
fn assert_closed(disconnect: &Value) {
    let of_the_socket = ["ECONNRESET", "EPIPE"].iter().any(|code| disconnect["code"] == *code);
    assert!(disconnect["error"].is_null() || of_the_socket, "{disconnect}");
}

#[track_caller]
fn assert_copied(testbed: &mut Testbed, pair: &Pair) {
    assert_eq!(Seen::by_us(&pair.copy), Seen::by_js(&mut testbed.js, "theirs"));
    assert_eq!(Seen::by_js(&mut testbed.js, "mine"), Seen::by_us(&pair.mine));
    assert_sound(&pair.copy);
    for core in ["mine", "theirs"] {
        assert_eq!(testbed.js.call("verifyHead", json!({"core": core}))["valid"], true);
    }
}

/// The same change to the log of theirs and to ours.
fn change_both(testbed: &mut Testbed, pair: &Pair, op: &Op) {
    op.by_js(&mut testbed.js, "theirs");
    op.by_us(&pair.mine);
}

fn whole_log_is_cloned(mut testbed: Testbed) {
    let pair = testbed.pair();
    change_both(&mut testbed, &pair, &random(1, 3000, 0, 400, 700));
    let link = testbed.connect_pair(&pair);
    pair.copy.update_with(UpdateOptions::new().wait(true).timeout(LIMIT)).unwrap();
    assert_eq!(pair.copy.len(), 3000);
    testbed.js.call("update", json!({"core": "mine", "wait": true}));
    fetch_all(&mut testbed, &pair, 3000);
    assert_copied(&mut testbed, &pair);

    let open = testbed.js.event("open");
    assert_eq!(bytes(&open, "publicKey"), link.connection.remote_public_key().unwrap().as_bytes());
    let [peer] = pair.copy.peers().try_into().unwrap();
    assert_eq!((peer.remote_length(), peer.remote_fork()), (3000, 0));
    assert_eq!(peer.remote_public_key(), link.connection.remote_public_key().unwrap());
    let [told] =
        testbed.js.call("peers", json!({"core": "mine"}))["peers"].as_array().unwrap().clone().try_into().unwrap();
    assert_eq!((&told["remoteLength"], &told["remoteFork"]), (&json!(3000), &json!(0)));
    assert_eq!(told["remoteUploading"], true);

    link.connection.close();
    assert_closed(&testbed.js.event("disconnect"));
}

fn ranges_and_lists_are_downloaded(mut testbed: Testbed) {
    let pair = testbed.pair();
    change_both(&mut testbed, &pair, &random(2, 400, 1, 60, 400));
    let _link = testbed.connect_pair(&pair);
    pair.copy.download(Download::range(100..200)).unwrap().wait_timeout(LIMIT).unwrap();
    assert_eq!(held(&pair.copy), [(100, 200)]);
    pair.copy.download(Download::blocks([399, 5, 150])).unwrap().wait_timeout(LIMIT).unwrap();
    assert_eq!(held(&pair.copy), [(5, 6), (100, 200), (399, 400)]);
    assert_sound(&pair.copy);

    let download = |testbed: &mut Testbed, range: Value| {
        let mut request = range;
        request["as"] = json!("some");
        request["core"] = json!("mine");
        testbed.js.call("download", request);
        testbed.js.call("downloaded", json!({"as": "some"}));
        held_by_js(&mut testbed.js, "mine")
    };
    testbed.js.call("update", json!({"core": "mine", "wait": true}));
    assert_eq!(download(&mut testbed, json!({"start": 100, "end": 200})), [(100, 200)]);
    assert_eq!(download(&mut testbed, json!({"blocks": [5, 150, 399]})), [(5, 6), (100, 200), (399, 400)]);
    testbed
        .js
        .call("check", json!({"core": "mine", "random": {"seed": 2, "min": 1, "max": 60}, "start": 100, "end": 200}));
}

fn single_blocks_come_on_demand(mut testbed: Testbed) {
    let pair = testbed.pair();
    change_both(&mut testbed, &pair, &random(3, 1000, 0, 60, 1000));
    let _link = testbed.connect_pair(&pair);
    for index in [17, 999, 0, 500] {
        let block = generated_blocks::sized_block(3, index, 0, 60);
        let got = pair.copy.get_with(index, GetOptions::new().timeout(LIMIT)).unwrap();
        assert_eq!(got, Some(block.clone()));
        let answer = testbed.js.call("get", json!({"core": "mine", "index": index, "wait": true}));
        assert_eq!(bytes(&answer, "block"), block);
    }
    let expected = [(0, 1), (17, 18), (500, 501), (999, 1000)];
    assert_eq!(held(&pair.copy), expected);
    assert_eq!(held_by_js(&mut testbed.js, "mine"), expected);
    assert_sound(&pair.copy);
}

fn live_appends_are_followed(mut testbed: Testbed) {
    let pair = testbed.pair();
    let _link = testbed.connect_pair(&pair);
    let _all = pair.copy.download(Download::all()).unwrap();
    testbed.js.call("download", json!({"core": "mine", "as": "all", "start": 0, "end": -1}));
    for round in 1..=12 {
        let op = random(round, u64::from(round), 0, 300, 2);
        let length = pair.mine.len() + u64::from(round);
        let grown = testbed.js.start("until", json!({"core": "mine", "contiguous": length}));
        change_both(&mut testbed, &pair, &op);
        until(&pair.copy, "our copy grows", |copy| copy.contiguous_length().unwrap() == length);
        testbed.js.finish(grown);
    }
    // A block that is not there yet is waited for.
    let next = pair.mine.len();
    let waiting = testbed.js.start("get", json!({"core": "mine", "index": next, "wait": true}));
    let copy = pair.copy.clone();
    let waiter = std::thread::spawn(move || copy.get_with(next, GetOptions::new().timeout(LIMIT)));
    change_both(&mut testbed, &pair, &text(&["awaited"]));
    assert_eq!(waiter.join().unwrap().unwrap().as_deref(), Some(b"awaited".as_slice()));
    assert_eq!(bytes(&testbed.js.finish(waiting), "block"), b"awaited");
    assert_copied(&mut testbed, &pair);
}

fn tiny_blocks_are_cloned(mut testbed: Testbed) {
    let pair = testbed.pair();
    let count = 10_000 / one_in(8) as u64;
    change_both(&mut testbed, &pair, &random(4, count, 0, 3, count / 4));
    let _link = testbed.connect_pair(&pair);
    fetch_all(&mut testbed, &pair, count);
    assert_copied(&mut testbed, &pair);
}

fn mebibyte_blocks_are_cloned(mut testbed: Testbed) {
    large(&mut testbed, 1 << 20, 8);
}

fn largest_blocks_are_cloned(mut testbed: Testbed) {
    large(&mut testbed, hypercore::MAX_BLOCK_SIZE as u32, 2);
}

fn large(testbed: &mut Testbed, size: u32, count: u64) {
    let pair = testbed.pair();
    change_both(testbed, &pair, &random(5, count, size, size, 2));
    let _link = testbed.connect_pair(&pair);
    fetch_all(testbed, &pair, count);
    assert_copied(testbed, &pair);
}

fn encrypted_log_is_cloned(mut testbed: Testbed) {
    let ours = || Hypercore::options().encryption_key([0xee; 32]);
    let pair = testbed.pair_of(json!({"encryptionKey": seed(0xee)}), ours(), |key| ours().key(key));
    let op = random(6, 100, 0, 300, 30);
    change_both(&mut testbed, &pair, &op);
    let _link = testbed.connect_pair(&pair);
    fetch_all(&mut testbed, &pair, 100);
    assert_eq!(Seen::by_us(&pair.copy), Seen::by_js(&mut testbed.js, "theirs"));
    assert_sound(&pair.copy);

    // Version 11 cannot decrypt cores whose key is their signer's, though it made our copy right.
    let raw = testbed.setting.version == "11";
    let copied = Seen::by_js_as(&mut testbed.js, "mine", raw);
    if !raw {
        assert_eq!(copied, Seen::by_us(&pair.mine));
    } else {
        let stored =
            (0..100).map(|index| pair.mine.get_with(index, GetOptions::new().decrypt(false)).unwrap().unwrap());
        assert_eq!(copied.digests, [crate::model::digest(stored)]);
    }

    // Who has no key for it copies it all the same.
    let bystander = testbed.ours("bystander", Hypercore::options().key(pair.copy.key()));
    let _second = testbed.connect(&[("theirs", &bystander)]);
    bystander.download(Download::range(0..100)).unwrap().wait_timeout(LIMIT).unwrap();
    for index in 0..100 {
        let stored = pair.copy.get_with(index, GetOptions::new().decrypt(false)).unwrap().unwrap();
        assert_eq!(bystander.get(index).unwrap(), stored);
    }
}

fn manifest_is_learned_over_connection(mut testbed: Testbed) {
    let pair = testbed
        .pair_of(json!({"compat": false}), Hypercore::options().compat(false), |key| Hypercore::options().key(key));
    assert_eq!(
        (pair.copy.manifest(), testbed.js.call("info", json!({"core": "mine"}))["manifest"].clone()),
        (None, Value::Null)
    );
    change_both(&mut testbed, &pair, &random(7, 50, 0, 90, 20));
    let (tell, told) = mpsc::channel();
    let _subscription = pair.copy.on_manifest(move || tell.send(()).unwrap());
    let _link = testbed.connect_pair(&pair);
    fetch_all(&mut testbed, &pair, 50);
    told.recv_timeout(LIMIT).unwrap();
    assert_copied(&mut testbed, &pair);
    assert_eq!(pair.copy.manifest().unwrap().key(), pair.copy.key());
    let manifest = pair.mine.manifest().unwrap();
    assert_ne!(pair.mine.key(), manifest.signers[0].public_key);
    let theirs = testbed.js.call("info", json!({"core": "mine"}))["manifest"].clone();
    assert_eq!(bytes(&theirs["signers"][0], "publicKey"), manifest.signers[0].public_key.as_bytes());

    // What was learnt is kept.
    let (key, manifest) = (pair.copy.key(), pair.copy.manifest());
    pair.copy.close().unwrap();
    assert_eq!(testbed.ours("copy", Hypercore::options().key(key)).manifest(), manifest);
}

fn multisig_log_is_cloned(mut testbed: Testbed) {
    let signers = [1, 2, 3].map(|byte| Signer::new(key_pair(byte).public_key()));
    let ours = Manifest::new(signers.to_vec()).with_quorum(2);
    let mine = testbed.ours("mine", Hypercore::options().manifest(ours.clone()));
    for blocks in [["a", "b"], ["c", ""]] {
        let shares = [3, 2].map(|by| mine.sign_append(blocks, &key_pair(by)).unwrap()).into();
        let signature = MultiSignature::assemble(1, shares).encode(1);
        mine.append_with(blocks, SignOptions::new().signature(signature)).unwrap();
    }
    testbed.theirs("mine", json!({"key": mine.key().to_string()}));

    let signers = [1, 2, 3].map(|byte| json!({"seed": seed(byte)}));
    let theirs = json!({"version": 1, "quorum": 2, "signers": signers});
    let info = testbed.theirs("theirs", json!({"manifest": theirs}));
    assert_eq!(key_of(&info), mine.key());
    testbed.js.call("close", json!({"core": "theirs"}));
    // Another quorum is another core.
    let theirs = json!({"version": 1, "quorum": 3, "signers": signers});
    let info = testbed.theirs("three", json!({"manifest": theirs}));
    for blocks in [["x", "y"], ["z", ""]] {
        let share = |by: u8| json!({"core": "three", "seed": seed(by), "text": blocks});
        let proofs = [1, 2, 3].map(|by| testbed.js.call("sign", share(by)));
        let signature = testbed.js.call("assemble", json!({"core": "three", "proofs": proofs}))["signature"].clone();
        testbed.js.call("append", json!({"core": "three", "text": blocks, "signature": signature}));
    }
    let copy = testbed.ours("copy", Hypercore::options().key(key_of(&info)));

    let _link = testbed.connect(&[("mine", &mine), ("three", &copy)]);
    copy.download(Download::range(0..4)).unwrap().wait_timeout(LIMIT).unwrap();
    assert_eq!(Seen::by_us(&copy), Seen::by_js(&mut testbed.js, "three"));
    assert_sound(&copy);
    assert_eq!(copy.manifest().unwrap().quorum, 3);
    testbed.js.call("download", json!({"core": "mine", "as": "all", "start": 0, "end": 4}));
    testbed.js.call("downloaded", json!({"as": "all"}));
    assert_eq!(Seen::by_js(&mut testbed.js, "mine"), Seen::by_us(&mine));
}

fn cores_join_open_connection(mut testbed: Testbed) {
    let first = testbed.pair();
    change_both(&mut testbed, &first, &random(8, 20, 0, 50, 20));
    let link = testbed.connect_pair(&first);
    fetch_all(&mut testbed, &first, 20);

    let conn = link.conn;
    for name in ["they-first", "we-first"] {
        let mine = testbed.ours(name, Hypercore::options());
        mine.append(name).unwrap();
        testbed.theirs(name, json!({"key": mine.key().to_string()}));
        let info = testbed.theirs(&format!("their-{name}"), json!({}));
        testbed.js.call("append", json!({"core": format!("their-{name}"), "text": [name]}));
        let copy = testbed.ours(&format!("copy-{name}"), Hypercore::options().key(key_of(&info)));

        let theirs = [name.to_owned(), format!("their-{name}")];
        if name == "they-first" {
            for core in &theirs {
                testbed.js.call("attach", json!({"conn": conn, "core": core}));
            }
            // When this has come, that has, too.
            text(&["tick"]).by_js(&mut testbed.js, "theirs");
            first.copy.get_with(20, GetOptions::new().timeout(LIMIT)).unwrap();
            text(&["tick"]).by_us(&first.mine);
        }
        let _replications = [&mine, &copy].map(|core| core.replicate_on(&link.connection).unwrap());
        if name == "we-first" {
            for core in &theirs {
                testbed.js.call("attach", json!({"conn": conn, "core": core}));
            }
        }
        assert_eq!(copy.get_with(0, GetOptions::new().timeout(LIMIT)).unwrap().as_deref(), Some(name.as_bytes()));
        let answer = testbed.js.call("get", json!({"core": name, "index": 0, "wait": true}));
        assert_eq!(bytes(&answer, "block"), name.as_bytes());
    }
    // The first ones live on.
    change_both(&mut testbed, &first, &text(&["more"]));
    fetch_all(&mut testbed, &first, 22);
    assert_copied(&mut testbed, &first);
}

/// Whoever listens gives the cores that the other names.
fn listener_serves_requested_cores(mut testbed: Testbed) {
    let mut mine = Vec::new();
    let mut copies = Vec::new();
    for number in 0..5 {
        let (name, theirs) = (format!("mine{number}"), format!("theirs{number}"));
        let core = testbed.ours(&name, Hypercore::options());
        core.append(&name).unwrap();
        testbed.theirs(&name, json!({"key": core.key().to_string()}));
        let info = testbed.theirs(&theirs, json!({}));
        testbed.js.call("append", json!({"core": theirs, "text": [theirs]}));
        copies.push((theirs, testbed.ours(&format!("copy{number}"), Hypercore::options().key(key_of(&info)))));
        mine.push((name, core));
    }
    let version = testbed.setting.version;
    let mut server = None;
    let mut connection = None;
    if testbed.setting.js_listens {
        let listen = json!({"cores": [], "onDemand": true, "version": version});
        let port = testbed.js.call("listen", listen)["port"].as_u64().unwrap() as u16;
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        let opened = Connection::open(stream, Role::Initiator, ConnectionOptions::new()).unwrap();
        for (_, core) in mine.iter().chain(&copies) {
            core.replicate_on(&opened).unwrap();
        }
        connection = Some(opened);
    } else {
        let cores = mine.iter().chain(&copies).map(|(_, core)| core.clone());
        // The last one is served from later on.
        let mut cores: Vec<Hypercore> = cores.collect();
        let last = cores.pop().unwrap();
        let listening = Server::listen((Ipv4Addr::LOCALHOST, 0), cores).unwrap();
        let port = listening.local_addr().port();
        let names: Vec<&String> = mine.iter().chain(&copies[..4]).map(|(name, _)| name).collect();
        let request = json!({"port": port, "cores": names, "version": version});
        let conn = testbed.js.call("connect", request)["conn"].clone();
        assert_eq!(testbed.js.call("get", json!({"core": "mine0", "index": 0, "wait": true}))["size"], 5);
        listening.add(last);
        testbed.js.call("attach", json!({"conn": conn, "core": "theirs4"}));
        server = Some(listening);
    }
    for (name, copy) in &copies {
        let got = copy.get_with(0, GetOptions::new().timeout(LIMIT)).unwrap();
        assert_eq!(got.as_deref(), Some(name.as_bytes()));
    }
    for (name, _) in &mine {
        let answer = testbed.js.call("get", json!({"core": name, "index": 0, "wait": true}));
        assert_eq!(bytes(&answer, "block"), name.as_bytes());
    }
    if let Some(server) = server {
        assert_eq!(server.connections().len(), 1);
        server.close();
    }
    if let Some(connection) = connection {
        connection.close();
    }
    assert_closed(&testbed.js.event("disconnect"));
}

/// A peer that has only some blocks of a log of somebody else gives those, and says of the others that it has them not.
fn sparse_peer_serves_held_blocks(mut testbed: Testbed) {
    let pair = testbed.pair();
    change_both(&mut testbed, &pair, &random(9, 300, 0, 90, 300));
    let link = testbed.connect_pair(&pair);
    let some = [3, 120, 121, 122, 299];
    pair.copy.download(Download::blocks(some)).unwrap().wait_timeout(LIMIT).unwrap();
    testbed.js.call("download", json!({"core": "mine", "as": "some", "blocks": some}));
    testbed.js.call("downloaded", json!({"as": "some"}));
    link.connection.close();
    testbed.js.event("disconnect");

    // Who reads now never meets the writer.
    let expected = [(3, 4), (120, 123), (299, 300)];
    let second = testbed.ours("second", Hypercore::options().key(pair.mine.key()));
    let info = testbed.js.call("info", json!({"core": "theirs"}));
    testbed.theirs("second", json!({"key": info["key"]}));
    let _link = testbed.connect(&[("mine", &second), ("second", &pair.copy)]);

    assert_eq!(second.get_with(121, GetOptions::new().timeout(LIMIT)).unwrap(), Some(pair.mine.get(121).unwrap()));
    second.download(Download::range(0..300).if_available(true)).unwrap().wait_timeout(LIMIT).unwrap();
    assert_eq!(held(&second), expected);
    assert_sound(&second);
    assert_eq!(second.tree_hash().unwrap(), pair.mine.tree_hash().unwrap());

    available_by_js(&mut testbed, "second", &some);
    assert_eq!(held_by_js(&mut testbed.js, "second"), expected);

    // What the holder loses, it no longer gives.
    pair.copy.clear(120..123).unwrap();
    testbed.js.call("clear", json!({"core": "mine", "start": 120, "end": 123}));
    let third = testbed.ours("third", Hypercore::options().key(pair.mine.key()));
    testbed.theirs("third", json!({"key": info["key"]}));
    let _link = testbed.connect(&[("mine", &third), ("third", &pair.copy)]);
    third.update_with(UpdateOptions::new().wait(true).timeout(LIMIT)).unwrap();
    third.download(Download::range(0..300).if_available(true)).unwrap().wait_timeout(LIMIT).unwrap();
    assert_eq!(held(&third), [(3, 4), (299, 300)]);
    available_by_js(&mut testbed, "third", &[3, 299]);
    assert_eq!(held_by_js(&mut testbed.js, "third"), [(3, 4), (299, 300)]);
}

/// Has JavaScript fetch what is to be had, which should be `blocks`.
fn available_by_js(testbed: &mut Testbed, core: &str, blocks: &[u64]) {
    testbed.js.call("until", json!({"core": core, "peers": 1, "remoteLength": 300}));
    // It asks for no head on its own before it looks for a block.
    testbed.js.call("get", json!({"core": core, "index": blocks[0], "wait": true}));
    // Version 11 knows no downloads of what is available.
    let what = match testbed.setting.version {
        "11" => json!({"core": core, "as": core, "blocks": blocks}),
        _ => json!({"core": core, "as": core, "start": 0, "end": 300, "ifAvailable": true}),
    };
    testbed.js.call("download", what);
    testbed.js.call("downloaded", json!({"as": core}));
}

/// The writer cuts its log and goes another way while its reader looks on.
fn live_forks_are_followed(mut testbed: Testbed) {
    let pair = testbed.pair();
    change_both(&mut testbed, &pair, &random(10, 200, 0, 90, 50));
    let _link = testbed.connect_pair(&pair);
    fetch_all(&mut testbed, &pair, 200);
    let (tell, told) = mpsc::channel();
    let _subscription = pair.copy.on_truncate(move |ancestors, fork| tell.send((ancestors, fork)).unwrap());

    for (fork, cut) in [(1, 150), (2, 149), (3, 64), (4, 0), (5, 1)] {
        let ops = [truncate(cut), random(20 + fork as u32, 40, 0, 90, 13)];
        let length = cut + 40;
        for op in &ops {
            change_both(&mut testbed, &pair, op);
        }
        until(&pair.copy, "our copy follows", |copy| (copy.fork(), copy.len()) == (fork, length));
        let told = told.recv_timeout(LIMIT).unwrap();
        assert_eq!(told.1, fork);
        assert!(told.0 <= cut, "{told:?}");
        testbed.js.call("until", json!({"core": "mine", "fork": fork, "length": length}));
        assert_eq!(testbed.js.event_where("truncate", |event| event["core"] == "mine")["fork"], fork);
        fetch_all(&mut testbed, &pair, length);
        assert_copied(&mut testbed, &pair);
    }
}

/// The writer cuts its log while its reader is away.
fn forks_made_while_disconnected_are_followed(mut testbed: Testbed) {
    let pair = testbed.pair();
    change_both(&mut testbed, &pair, &random(11, 100, 0, 90, 50));
    let link = testbed.connect_pair(&pair);
    fetch_all(&mut testbed, &pair, 100);
    link.connection.close();
    testbed.js.event("disconnect");

    for op in [truncate(70), text(&["elsewhere"]), truncate(30), random(12, 50, 0, 90, 9)] {
        change_both(&mut testbed, &pair, &op);
    }
    let _link = testbed.connect_pair(&pair);
    until(&pair.copy, "our copy follows", |copy| (copy.fork(), copy.len()) == (2, 80));
    testbed.js.call("until", json!({"core": "mine", "fork": 2, "length": 80}));
    fetch_all(&mut testbed, &pair, 80);
    assert_copied(&mut testbed, &pair);
}

/// The block that holds a byte, by the tree of the other side alone.
fn seeks_find_block_over_connection(mut testbed: Testbed) {
    let pair = testbed.pair();
    change_both(&mut testbed, &pair, &random(13, 500, 0, 90, 500));
    let _link = testbed.connect_pair(&pair);
    testbed.js.call("update", json!({"core": "mine", "wait": true}));
    pair.copy.update_with(UpdateOptions::new().wait(true).timeout(LIMIT)).unwrap();
    let all = pair.mine.byte_length();
    for byte in [0, 1, all / 3, all / 2, all - 1, 77] {
        let expected = pair.mine.seek(byte).unwrap();
        assert_eq!(
            pair.copy.seek_with(byte, SeekOptions::new().timeout(LIMIT)).unwrap(),
            Some(expected),
            "byte {byte}"
        );
        let answer = testbed.js.call("seek", json!({"core": "mine", "bytes": byte, "wait": true}));
        assert_eq!(
            (answer["index"].as_u64(), answer["offset"].as_u64()),
            (Some(expected.0), Some(expected.1)),
            "byte {byte}"
        );
    }
    assert_sound(&pair.copy);
}

fn extension_messages_are_delivered(mut testbed: Testbed) {
    let pair = testbed.pair();
    let (tell, told) = mpsc::channel();
    let reply = pair.mine.register_extension("reply", |_, _| ()).unwrap();
    let ping = {
        let tell = tell.clone();
        pair.mine
            .register_extension("ping", move |message, peer| tell.send((message.to_vec(), peer.id())).unwrap())
            .unwrap()
    };
    for name in ["ping", "reply"] {
        testbed.js.call("extension", json!({"core": "mine", "name": name}));
    }
    let link = testbed.connect_pair(&pair);
    testbed.js.call("until", json!({"core": "mine", "peers": 1}));
    until(&pair.mine, "a peer comes", |core| core.peers().len() == 1);

    for message in ["", "00", "0102ff"] {
        testbed
            .js
            .call("extensionSend", json!({"core": "mine", "name": "ping", "message": message, "conn": link.conn}));
        let (got, peer) = told.recv_timeout(LIMIT).unwrap();
        assert_eq!((to_hex(&got), peer), (message.to_owned(), pair.mine.peers()[0].id()));
    }
    let large = vec![7; 300_000];
    testbed.js.call("extensionSend", json!({"core": "mine", "name": "ping", "message": to_hex(&large)}));
    assert_eq!(told.recv_timeout(LIMIT).unwrap().0, large);

    reply.send(b"to you", &pair.mine.peers()[0]).unwrap();
    let event = testbed.js.event("extension");
    assert_eq!((bytes(&event, "message"), event["name"].as_str()), (b"to you".to_vec(), Some("reply")));
    ping.broadcast(&large).unwrap();
    let event = testbed.js.event("extension");
    assert_eq!((bytes(&event, "message"), event["name"].as_str()), (large, Some("ping")));

    // One that only one side knows is passed over.
    testbed.js.call("extension", json!({"core": "mine", "name": "unheard of"}));
    testbed.js.call("extensionSend", json!({"core": "mine", "name": "unheard of", "message": "00"}));
    let unheard = pair.mine.register_extension("unheard of, too", |_, _| ()).unwrap();
    unheard.broadcast(b"?").unwrap();
    drop(ping);
    testbed.js.call("extensionSend", json!({"core": "mine", "name": "ping", "message": "01"}));
    change_both(&mut testbed, &pair, &text(&["still here"]));
    fetch_all(&mut testbed, &pair, 1);
    assert!(told.try_recv().is_err());
}

/// What a later version may say is passed over.
fn unknown_messages_are_ignored(mut testbed: Testbed) {
    let pair = testbed.pair();
    change_both(&mut testbed, &pair, &random(14, 10, 0, 90, 10));
    let link = testbed.connect_pair(&pair);
    fetch_all(&mut testbed, &pair, 10);
    let conn = link.conn;

    let refused = testbed.js.call("channel", json!({"conn": conn, "protocol": "unheard/of"}));
    assert_eq!(refused["opened"], false);
    let refused = testbed.js.call("channel", json!({"conn": conn, "protocol": "hypercore/alpha", "id": seed(0x77)}));
    assert_eq!(refused["opened"], false);
    for message in [
        // A sync of ten blocks with flags that mean nothing yet, and bytes behind its end.
        "0100f7000a0affff",
        // Message 42 and message 1000 of the first channel.
        "012a00010203",
        "01fde80300",
        // A message on a channel that was never opened.
        "2a0000",
        // A control message of a kind that is none.
        "00090102",
        // A batch for the first channel with nothing in it.
        "000001",
    ] {
        testbed.js.call("raw", json!({"conn": conn, "message": message}));
        change_both(&mut testbed, &pair, &text(&["still here"]));
        let length = pair.mine.len();
        fetch_all(&mut testbed, &pair, length);
    }
    assert!(!link.connection.is_closed());
    assert_copied(&mut testbed, &pair);
}

fn reopened_channels_resume(mut testbed: Testbed) {
    let pair = testbed.pair();
    let _keeper = {
        let core = testbed.ours("keeper", Hypercore::options());
        testbed.theirs("keeper", json!({"key": core.key().to_string()}));
        core
    };
    let link = testbed.connect(&[("theirs", &pair.copy), ("mine", &pair.mine), ("keeper", &_keeper)]);
    let conn = link.conn;
    change_both(&mut testbed, &pair, &text(&["before"]));
    fetch_all(&mut testbed, &pair, 1);

    // They leave and come back.
    for core in ["theirs", "mine"] {
        testbed.js.call("detach", json!({"conn": conn, "core": core}));
    }
    for core in [&pair.copy, &pair.mine] {
        until(core, "they leave", |core| core.peers().is_empty());
    }
    change_both(&mut testbed, &pair, &text(&["unseen"]));
    for core in ["theirs", "mine"] {
        testbed.js.call("attach", json!({"conn": conn, "core": core}));
    }
    fetch_all(&mut testbed, &pair, 2);

    // We leave and come back.
    for replication in &link.replications[..2] {
        replication.close();
    }
    for core in ["theirs", "mine"] {
        testbed.js.call("until", json!({"core": core, "peers": 0}));
    }
    assert!(!link.connection.is_closed());
    change_both(&mut testbed, &pair, &text(&["unseen", "again"]));
    for core in ["theirs", "mine"] {
        testbed.js.call("attach", json!({"conn": conn, "core": core}));
    }
    let _again = [&pair.copy, &pair.mine].map(|core| core.replicate_on(&link.connection).unwrap());
    fetch_all(&mut testbed, &pair, 4);
    assert_copied(&mut testbed, &pair);
}

/// We close the connection while blocks come and go; a new one goes on where the old one ended.
fn download_resumes_after_close(mut testbed: Testbed) {
    ended_in_the_middle(&mut testbed, |_, link| link.connection.close());
}

/// They drop the connection while blocks come and go.
fn download_resumes_after_reset(mut testbed: Testbed) {
    ended_in_the_middle(&mut testbed, |testbed, link| {
        testbed.js.call("disconnect", json!({"conn": link.conn, "how": "reset"}));
        link.connection
            .wait_timeout(LIMIT)
            .map_err(|error| assert_ne!(error.kind(), ErrorKind::Timeout))
            .unwrap_or_default();
    });
}

fn ended_in_the_middle(testbed: &mut Testbed, end: impl FnOnce(&mut Testbed, &crate::testbed::Link)) {
    const BLOCKS: u64 = 60;
    let pair = testbed.pair();
    change_both(testbed, &pair, &random(15, BLOCKS, 200_000, 200_000, 20));
    let link = testbed.connect_pair(&pair);
    let (tell, told) = mpsc::channel();
    let subscription = pair.copy.on_download(move |index, _, _| tell.send(index).unwrap_or_default());
    let download = pair.copy.download(Download::range(0..BLOCKS)).unwrap();
    let begun = testbed.js.start("until", json!({"core": "mine", "peers": 1}));
    testbed.js.call("download", json!({"core": "mine", "as": "all", "start": 0, "end": BLOCKS}));
    testbed.js.finish(begun);
    told.recv_timeout(LIMIT).unwrap();
    end(testbed, &link);
    drop(subscription);
    assert_closed(&testbed.js.event("disconnect"));
    for core in [&pair.copy, &pair.mine] {
        until(core, "the peer is gone", |core| core.peers().is_empty());
    }
    assert_sound(&pair.copy);

    let _link = testbed.connect_pair(&pair);
    download.wait_timeout(LIMIT).unwrap();
    testbed.js.call("downloaded", json!({"as": "all"}));
    assert_copied(testbed, &pair);
    // What had come was not asked for again; what was under way then, a second time.
    let uploads = testbed.js.call("info", json!({"core": "theirs"}))["counts"]["upload"].as_u64().unwrap();
    assert!((BLOCKS..=2 * BLOCKS).contains(&uploads), "{uploads} uploads");
}

/// A core that closes leaves its connection, which ends with the last one.
fn closed_core_leaves_connection(mut testbed: Testbed) {
    let pair = testbed.pair();
    change_both(&mut testbed, &pair, &text(&["one", "two"]));
    let link = testbed.connect_pair(&pair);
    fetch_all(&mut testbed, &pair, 2);

    pair.mine.close().unwrap();
    testbed.js.call("until", json!({"core": "mine", "peers": 0}));
    text(&["three"]).by_js(&mut testbed.js, "theirs");
    assert_eq!(pair.copy.get_with(2, GetOptions::new().timeout(LIMIT)).unwrap().as_deref(), Some(b"three".as_slice()));
    testbed.js.call("close", json!({"core": "theirs"}));
    until(&pair.copy, "they leave", |core| core.peers().is_empty());
    // Whoever closed the last core ended the connection, or it is up to us.
    pair.copy.close().unwrap();
    link.connection.close();
    testbed.js.event("disconnect");
}
