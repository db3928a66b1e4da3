//! Replicators in the simulated network bring their logs in step, over slow and unreliable links, in a bounded
//! number of steps.

use std::sync::Arc;
use std::time::Duration;

use hypercore::Download;
use hypercore::ErrorKind;
use hypercore::lowlevel::replication::Woken;

use crate::simulated_core::{Core, block, blocks};
use crate::simulated_network::{Net, all, assert_same, download, pair};

#[test]
fn clone_requests_each_block_once() {
    for count in [1, 2, 7, 100, 3000] {
        let (mut net, a, b, link) = pair(count);
        let want = download(&mut net, b, Download::range(0..count));
        net.settle();
        assert_same(&net, a, b);
        assert!(matches!(net.hosts[b].woken[&want], Ok(Woken::Downloaded)));
        let asked = net.links[link].sent[1][1] as u64;
        assert!(asked <= count + 1, "{asked} requests for {count} blocks");
        assert_eq!(net.links[link].sent[0][3] as u64, asked);
        assert!(net.hosts[b].stored.values().all(|times| *times == 1));
        assert_eq!(net.hosts[b].rejected, 0);
        // No node is sent that is stored or in flight: a tree has about as many inner nodes as leaves.
        let nodes = net.hosts[b].received_nodes as u64;
        assert!(nodes <= count + 64, "{nodes} nodes for {count} blocks");
    }
}

#[test]
fn head_is_followed_and_blocks_come_on_demand() {
    let (mut net, a, b, link) = pair(50);
    net.settle();
    assert_eq!(net.hosts[b].core.head, net.hosts[a].core.head);
    assert!(net.hosts[b].core.blocks.is_empty());
    let it = &mut net.hosts[b];
    let want = it.machine.wait_for_block(17, &it.core);
    net.settle();
    assert!(matches!(net.hosts[b].woken[&want], Ok(Woken::Block)));
    assert_eq!(net.hosts[b].core.blocks.len(), 1);
    assert_eq!(net.hosts[b].core.blocks[&17], block(17, 20));
    assert_eq!(net.links[link].sent[1][1], 2);
}

#[test]
fn live_appends_are_followed() {
    let (mut net, a, b, _) = pair(0);
    download(&mut net, b, all());
    for i in 0..40 {
        net.change(a, |core| core.append([block(i, 30)]));
        if i % 3 == 0 {
            net.settle();
            assert_same(&net, a, b);
        }
    }
    net.settle();
    assert_same(&net, a, b);
}

#[test]
fn wait_for_future_block_ends_with_its_append() {
    let (mut net, a, b, _) = pair(3);
    let it = &mut net.hosts[b];
    let want = it.machine.wait_for_block(5, &it.core);
    net.settle();
    assert!(!net.hosts[b].woken.contains_key(&want));
    net.change(a, |core| core.append([block(3, 9), block(4, 9)]));
    net.settle();
    assert!(!net.hosts[b].woken.contains_key(&want));
    net.change(a, |core| core.append([block(5, 9), block(6, 9)]));
    net.settle();
    assert!(matches!(net.hosts[b].woken[&want], Ok(Woken::Block)));
    assert_eq!(net.hosts[b].core.blocks.len(), 1);
}

#[test]
fn block_cleared_before_commit_outcome_is_requested_again() {
    for of_a_caller in [true, false] {
        let (mut net, _, b, _) = pair(9);
        net.settle();
        net.hosts[b].outcome_takes = Duration::from_millis(50);
        let it = &mut net.hosts[b];
        let first = it.machine.wait_for_block(4, &it.core);
        net.until(|net| net.hosts[b].woken.contains_key(&first));
        // The waiter may continue before the replicator learns the outcome of the commit.
        net.change(b, |core| core.clear(4..5));
        let it = &mut net.hosts[b];
        let again = match of_a_caller {
            true => it.machine.wait_for_block(4, &it.core),
            false => download(&mut net, b, Download::range(2..6)),
        };
        net.settle();
        assert!(net.hosts[b].woken.contains_key(&again), "of a caller: {of_a_caller}");
        assert!(net.hosts[b].core.blocks.contains_key(&4));
    }
}

#[test]
fn slow_commits_keep_requests_in_flight() {
    let (mut net, a, b, link) = pair(2000);
    net.hosts[b].commit_takes = Duration::from_millis(20);
    download(&mut net, b, all());
    let start = net.now;
    net.settle();
    assert_same(&net, a, b);
    // One block at a time would take more than a minute.
    assert!(net.now - start < Duration::from_secs(2), "{:?}", net.now - start);
    assert!(net.links[link].sent[1][1] <= 2001);
}

#[test]
fn responses_in_any_order_are_stored() {
    for disorder in [2, 3, 16, 100] {
        let (mut net, a, b, link) = pair(1500);
        net.hosts[a].disorder = disorder;
        download(&mut net, b, all());
        net.settle();
        assert_same(&net, a, b);
        assert_eq!(net.hosts[b].rejected, 0);
        assert!(net.links[link].sent[1][1] <= 1501);
    }
}

#[test]
fn seek_finds_block_over_network() {
    for seeks in [0, 1, 19, 20, 777, 1999, 2000] {
        let (mut net, _, b, _) = pair(100);
        net.settle();
        let it = &mut net.hosts[b];
        let want = it.machine.wait_for_seek(seeks, 0, &it.core);
        net.settle();
        let found = net.hosts[b].woken[&want].as_ref().unwrap();
        assert_eq!(*found, Woken::Seek { index: seeks / 20, offset: seeks % 20 });
    }
    // One seek before the head is known, and one beyond its end, which waits until the log grows.
    let (mut net, a, b, _) = pair(10);
    let it = &mut net.hosts[b];
    let wants = [55, 205].map(|bytes| it.machine.wait_for_seek(bytes, 0, &it.core));
    net.settle();
    assert_eq!(net.hosts[b].woken.get(&wants[0]).unwrap().as_ref().unwrap(), &Woken::Seek { index: 2, offset: 15 });
    assert!(!net.hosts[b].woken.contains_key(&wants[1]));
    net.change(a, |core| core.append([block(10, 20)]));
    net.settle();
    assert_eq!(net.hosts[b].woken[&wants[1]].as_ref().unwrap(), &Woken::Seek { index: 10, offset: 5 });
}

#[test]
fn update_ends_when_no_peer_may_have_more() {
    let mut net = Net::new();
    let mut writer = Core::writer();
    writer.append(blocks(5));
    let b = net.host(Core::reader_of(&writer));
    let a = net.host(writer);
    let update = |net: &mut Net| {
        let it = &mut net.hosts[b];
        it.machine.wait_for_upgrade(&it.core)
    };
    let upgraded = |net: &Net, want| match net.hosts[b].woken.get(want) {
        Some(Ok(Woken::Upgraded(upgraded))) => Some(*upgraded),
        None => None,
        Some(other) => panic!("{other:?}"),
    };
    let alone = update(&mut net);
    net.settle();
    assert_eq!(upgraded(&net, &alone), Some(false));
    net.hosts[b].machine.set_finding_peers(1);
    let searching = update(&mut net);
    net.settle();
    assert_eq!(upgraded(&net, &searching), None);
    net.connect(a, b);
    net.settle();
    assert_eq!(upgraded(&net, &searching), Some(true));
    assert_eq!(net.hosts[b].core.length(), 5);
    let again = update(&mut net);
    net.settle();
    assert_eq!(upgraded(&net, &again), Some(false));
}

#[test]
fn manifest_is_received_with_and_without_blocks() {
    for count in [0, 5] {
        let mut net = Net::new();
        let mut writer = Core::manifest_writer();
        if count > 0 {
            writer.append(blocks(count));
        }
        let reader = Core::reader_of(&writer);
        let (a, b) = (net.host(writer), net.host(reader));
        net.connect(a, b);
        download(&mut net, b, all());
        net.settle();
        assert_eq!(net.hosts[b].core.verifier.manifest(), net.hosts[a].core.verifier.manifest());
        assert_same(&net, a, b);
    }
}

#[test]
fn extension_messages_are_delivered() {
    let (mut net, a, b, link) = pair(1);
    let to = net.peer(link, a);
    for (name, text) in [("chat", "hello"), ("chat", "again"), ("other", "x"), ("chat", "")] {
        net.hosts[a].machine.send_extension(to, name, text.into());
    }
    net.settle();
    let heard: Vec<_> = net.hosts[b].extensions.iter().map(|(_, name, m)| (name.as_str(), &m[..])).collect();
    assert_eq!(heard, [("chat", &b"hello"[..]), ("chat", b"again"), ("other", b"x"), ("chat", b"")]);
}

#[test]
fn if_available_download_ends_without_missing_blocks() {
    let (mut net, a, b, _) = pair(200);
    net.change(a, |core| core.clear(50..150));
    let it = &mut net.hosts[b];
    let available = it.machine.download(Arc::new(Download::range(0..200).if_available(true)), &it.core);
    let whole = download(&mut net, b, Download::range(0..200));
    net.settle();
    assert!(matches!(net.hosts[b].woken[&available], Ok(Woken::Downloaded)));
    assert!(!net.hosts[b].woken.contains_key(&whole));
    assert_eq!(net.hosts[b].core.blocks, net.hosts[a].core.blocks);
    assert_eq!(net.hosts[b].core.blocks.len(), 100);
}

#[test]
fn block_list_download_stores_only_listed_blocks() {
    let (mut net, _, b, _) = pair(100);
    let want = download(&mut net, b, Download::blocks(vec![90, 3, 5, 90, 44]));
    net.settle();
    assert!(matches!(net.hosts[b].woken[&want], Ok(Woken::Downloaded)));
    assert_eq!(net.hosts[b].core.blocks.keys().copied().collect::<Vec<_>>(), [3, 5, 44, 90]);
}

/// A block that no peer has keeps the download open. The rest of the list must not be searched again
/// for each response.
#[test]
fn long_list_with_missing_block_costs_linear_lookups() {
    const COUNT: u64 = 6000;
    for peers in [1, 8] {
        let mut net = Net::new();
        let mut writer = Core::writer();
        writer.append(blocks(COUNT));
        let reader = net.host(Core::reader_of(&writer));
        writer.clear(0..1);
        for _ in 0..peers {
            let host = net.host(writer.clone());
            net.connect(host, reader);
        }
        download(&mut net, reader, Download::blocks(0..COUNT));
        net.until(|net| net.hosts[reader].core.blocks.len() as u64 == COUNT - 1);
        net.run_for(Duration::from_secs(60));
        let looked_up = net.hosts[reader].core.looked_up.get();
        assert!(looked_up < (20 + 2 * peers) * COUNT, "{looked_up} looks for {COUNT} blocks of {peers} peers");
    }
}

#[test]
fn cancelled_waits_cancel_their_requests() {
    let (mut net, _, b, link) = pair(5000);
    let range = download(&mut net, b, all());
    let it = &mut net.hosts[b];
    let get = it.machine.wait_for_block(4999, &it.core);
    net.until(|net| net.hosts[b].core.blocks.len() > 500);
    net.hosts[b].machine.cancel(range);
    net.hosts[b].machine.cancel(get);
    net.settle();
    let there = net.hosts[b].core.blocks.len();
    assert!(there < 2000, "{there}");
    assert!(net.links[link].sent[1][2] > 0);
    assert!(!net.hosts[b].woken.contains_key(&range));
    // A new download continues.
    download(&mut net, b, all());
    net.settle();
    assert_eq!(net.hosts[b].core.blocks.len(), 5000);
}

#[test]
fn failed_store_ends_requests() {
    let (mut net, a, b, link) = pair(1000);
    download(&mut net, b, all());
    net.until(|net| net.hosts[b].core.blocks.len() > 100);
    net.hosts[b].broken = true;
    net.settle();
    assert!(net.hosts[b].machine.has_failed());
    let there = net.hosts[b].core.blocks.len();
    let asked = net.links[link].sent[1][1];
    net.change(a, |core| core.append([block(1000, 20)]));
    net.settle();
    assert_eq!((net.hosts[b].core.blocks.len(), net.links[link].sent[1][1]), (there, asked));
    assert!(net.hosts[b].closed.is_empty());
}

#[test]
fn close_fails_all_waits() {
    let (mut net, a, b, _) = pair(5);
    let it = &mut net.hosts[b];
    let wants = [it.machine.wait_for_block(77, &it.core), it.machine.wait_for_seek(1 << 30, 0, &it.core)];
    let range = download(&mut net, b, all());
    net.settle();
    net.hosts[b].machine.close();
    net.settle();
    for want in wants.into_iter().chain([range]) {
        assert_eq!(net.hosts[b].woken[&want].as_ref().unwrap_err().kind(), ErrorKind::Closed);
    }
    assert_eq!((net.hosts[a].joined, net.hosts[b].joined), (0, 0));
}

#[test]
fn many_downloads_end_independently() {
    let (mut net, a, b, _) = pair(400);
    net.change(a, |core| core.clear(0..100));
    // The first hundred downloads never end, and must not hold up the others.
    let wants: Vec<_> = (0..400).map(|i| download(&mut net, b, Download::range(i..i + 1))).collect();
    net.settle();
    let woken = |want| net.hosts[b].woken.contains_key(want);
    assert!(!wants[..100].iter().any(woken));
    assert!(wants[100..].iter().all(woken));
}
