//! Cores that join and leave a connection with JavaScript, its other messages, and its end.

use std::net::{Ipv4Addr, TcpStream};
use std::sync::mpsc;

use hypercore::net::{Connection, ConnectionOptions, Role, Server};
use hypercore::{Download, ErrorKind, GetOptions, Hypercore};
use serde_json::json;

use super::{assert_closed, assert_copied, change_both, fetch_all};
use crate::common::hex;
use crate::js::bytes;
use crate::model::{LIMIT, assert_sound, key_of, random, seed, text, until};
use crate::testbed::{Link, Testbed};

replication_tests! {
    cores_join_open_connection,
    listener_serves_requested_cores,
    extension_messages_are_delivered,
    unknown_messages_are_ignored,
    reopened_channels_resume,
    download_resumes_after_close,
    download_resumes_after_reset,
    closed_core_leaves_connection,
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
        testbed.theirs(name, json!({"key": mine.key().to_hex()}));
        let info = testbed.theirs(&format!("their-{name}"), json!({}));
        testbed.js.call("append", json!({"core": format!("their-{name}"), "text": [name]}));
        let copy = testbed.ours(&format!("copy-{name}"), Hypercore::options().key(key_of(&info)));

        let theirs = [name.to_owned(), format!("their-{name}")];
        if name == "they-first" {
            for core in &theirs {
                testbed.js.call("attach", json!({"conn": conn, "core": core}));
            }
            // When this block has arrived, the channels have, too.
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
    // The first cores still replicate.
    change_both(&mut testbed, &first, &text(&["more"]));
    fetch_all(&mut testbed, &first, 22);
    assert_copied(&mut testbed, &first);
}

/// The listening side serves any core whose channel the other side opens.
fn listener_serves_requested_cores(mut testbed: Testbed) {
    let mut mine = Vec::new();
    let mut copies = Vec::new();
    for number in 0..5 {
        let (name, theirs) = (format!("mine{number}"), format!("theirs{number}"));
        let core = testbed.ours(&name, Hypercore::options());
        core.append(&name).unwrap();
        testbed.theirs(&name, json!({"key": core.key().to_hex()}));
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
        // The last core is added after the connection was made.
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
        assert_eq!((hex(&got), peer), (message.to_owned(), pair.mine.peers()[0].id()));
    }
    let large = vec![7; 300_000];
    testbed.js.call("extensionSend", json!({"core": "mine", "name": "ping", "message": hex(&large)}));
    assert_eq!(told.recv_timeout(LIMIT).unwrap().0, large);

    reply.send(b"to you", &pair.mine.peers()[0]).unwrap();
    let event = testbed.js.event("extension");
    assert_eq!((bytes(&event, "message"), event["name"].as_str()), (b"to you".to_vec(), Some("reply")));
    ping.broadcast(&large).unwrap();
    let event = testbed.js.event("extension");
    assert_eq!((bytes(&event, "message"), event["name"].as_str()), (large, Some("ping")));

    // Messages of an extension that only one side registered are ignored.
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

/// Messages that a later version might send are ignored.
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
        // A sync with ten blocks, unknown flags and trailing bytes.
        "0100f7000a0affff",
        // Messages of types 42 and 1000 on the first channel.
        "012a00010203",
        "01fde80300",
        // A message on a channel that was never opened.
        "2a0000",
        // A control message of an unknown type.
        "00090102",
        // An empty batch for the first channel.
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
        testbed.theirs("keeper", json!({"key": core.key().to_hex()}));
        core
    };
    let link = testbed.connect(&[("theirs", &pair.copy), ("mine", &pair.mine), ("keeper", &_keeper)]);
    let conn = link.conn;
    change_both(&mut testbed, &pair, &text(&["before"]));
    fetch_all(&mut testbed, &pair, 1);

    // JavaScript leaves and rejoins.
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

    // We leave and rejoin.
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

/// We close the connection during downloads both ways. A new one continues them.
fn download_resumes_after_close(mut testbed: Testbed) {
    resumes_after(&mut testbed, |_, link| link.connection.close());
}

/// JavaScript resets the connection during downloads both ways.
fn download_resumes_after_reset(mut testbed: Testbed) {
    resumes_after(&mut testbed, |testbed, link| {
        testbed.js.call("disconnect", json!({"conn": link.conn, "how": "reset"}));
        link.connection
            .wait_timeout(LIMIT)
            .map_err(|error| assert_ne!(error.kind(), ErrorKind::Timeout))
            .unwrap_or_default();
    });
}

fn resumes_after(testbed: &mut Testbed, end: impl FnOnce(&mut Testbed, &Link)) {
    const BLOCKS: u64 = 60;
    let pair = testbed.pair();
    change_both(testbed, &pair, &random(15, BLOCKS, 200_000, 200_000, 20));
    let link = testbed.connect_pair(&pair);
    let (tell, told) = mpsc::channel();
    let subscription = pair.copy.on_download(move |block| tell.send(block.index).unwrap_or_default());
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
    // Blocks that had arrived are not requested again; those in flight may be, once.
    let uploads = testbed.js.call("info", json!({"core": "theirs"}))["counts"]["upload"].as_u64().unwrap();
    assert!((BLOCKS..=2 * BLOCKS).contains(&uploads), "{uploads} uploads");
}

/// A core that closes leaves its connection, which ends with its last core.
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
    // JavaScript may have ended the connection with its last core; otherwise we do.
    pair.copy.close().unwrap();
    link.connection.close();
    testbed.js.event("disconnect");
}
