//! Whole logs, ranges, single blocks, forks and seeks over a connection with JavaScript.

use std::sync::mpsc;

use hypercore::{
    Download, GetOptions, Hypercore, Manifest, MultiSignature, SeekOptions, SignOptions, Signer, UpdateOptions,
};
use serde_json::{Value, json};

use super::{assert_closed, assert_copied, change_both, fetch_all};
use crate::common::machine::one_in;
use crate::common::pair;
use crate::generated_blocks;
use crate::js::bytes;
use crate::model::{LIMIT, Seen, assert_sound, held, held_by_js, key_of, random, seed, text, truncate, until};
use crate::testbed::Testbed;

replication_tests! {
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
    sparse_peer_serves_held_blocks,
    live_forks_are_followed,
    forks_made_while_disconnected_are_followed,
    seeks_find_block_over_connection,
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
    // A get of a future block waits for its append.
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
    clone_blocks_of(&mut testbed, 1 << 20, 8);
}

fn largest_blocks_are_cloned(mut testbed: Testbed) {
    clone_blocks_of(&mut testbed, hypercore::MAX_BLOCK_SIZE as u32, 2);
}

fn clone_blocks_of(testbed: &mut Testbed, size: u32, count: u64) {
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

    // Version 11 cannot decrypt a core whose key is its signer's, though it stored the right blocks.
    let raw = testbed.setting.version == "11";
    let copied = Seen::by_js_as(&mut testbed.js, "mine", raw);
    if !raw {
        assert_eq!(copied, Seen::by_us(&pair.mine));
    } else {
        let stored =
            (0..100).map(|index| pair.mine.get_with(index, GetOptions::new().decrypt(false)).unwrap().unwrap());
        assert_eq!(copied.digests, [crate::model::digest(stored)]);
    }

    // A peer without the encryption key copies the stored blocks.
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

    // The manifest is stored.
    let (key, manifest) = (pair.copy.key(), pair.copy.manifest());
    pair.copy.close().unwrap();
    assert_eq!(testbed.ours("copy", Hypercore::options().key(key)).manifest(), manifest);
}

fn multisig_log_is_cloned(mut testbed: Testbed) {
    let signers = [1, 2, 3].map(|byte| Signer::new(pair(byte).public_key()));
    let ours = Manifest::new(signers.to_vec()).with_quorum(2);
    let mine = testbed.ours("mine", Hypercore::options().manifest(ours.clone()));
    for blocks in [["a", "b"], ["c", ""]] {
        let shares = [3, 2].map(|by| mine.sign_append(blocks, &pair(by)).unwrap()).into();
        let signature = MultiSignature::assemble(1, shares).encode(1);
        mine.append_with(blocks, SignOptions::new().signature(signature)).unwrap();
    }
    testbed.theirs("mine", json!({"key": mine.key().to_hex()}));

    let signers = [1, 2, 3].map(|byte| json!({"seed": seed(byte)}));
    let theirs = json!({"version": 1, "quorum": 2, "signers": signers});
    let info = testbed.theirs("theirs", json!({"manifest": theirs}));
    assert_eq!(key_of(&info), mine.key());
    testbed.js.call("close", json!({"core": "theirs"}));
    // A different quorum makes a different core.
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

/// A sparse copy serves the blocks it holds and reports the others as absent.
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

    // The second copies connect only to the first copies, never to the writers.
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

    // A block that the sparse copy clears is no longer served.
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

/// Has JavaScript download the blocks that its peer holds, which should be `blocks`.
fn available_by_js(testbed: &mut Testbed, core: &str, blocks: &[u64]) {
    testbed.js.call("until", json!({"core": core, "peers": 1, "remoteLength": 300}));
    // It asks for the head only when it looks for a block.
    testbed.js.call("get", json!({"core": core, "index": blocks[0], "wait": true}));
    // Version 11 has no downloads of available blocks.
    let what = match testbed.setting.version {
        "11" => json!({"core": core, "as": core, "blocks": blocks}),
        _ => json!({"core": core, "as": core, "start": 0, "end": 300, "ifAvailable": true}),
    };
    testbed.js.call("download", what);
    testbed.js.call("downloaded", json!({"as": core}));
}

/// The writer truncates and appends while its reader is connected.
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

/// The writer truncates and appends while its reader is disconnected.
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

/// A seek by tree nodes of the other side alone.
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
