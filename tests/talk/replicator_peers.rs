//! How a replicator in the simulated network shares requests between peers that are fast, slow, silent, sparse,
//! behind or wrong.

use std::sync::Arc;
use std::time::Duration;

use hypercore::Download;
use hypercore::lowlevel::replication::{
    Action, CloseReason, Config, Handshake, Message, PeerId, Replicator, Sync, Woken,
};

use crate::simulated_core::{Core, block, blocks};
use crate::simulated_network::{Net, all, assert_same, download, pair};

#[test]
fn chain_of_readers_passes_log_on() {
    let (mut net, a, b, _) = pair(300);
    let c = net.host(Core::reader_of(&net.hosts[a].core));
    let d = net.host(Core::reader_of(&net.hosts[a].core));
    net.connect(b, c);
    net.connect(c, d);
    for host in [b, c, d] {
        download(&mut net, host, all());
    }
    net.settle();
    for host in [b, c, d] {
        assert_same(&net, a, host);
    }
    net.change(a, |core| core.append([block(300, 20)]));
    net.settle();
    for host in [b, c, d] {
        assert_same(&net, a, host);
    }
}

#[test]
fn equal_peers_share_requests() {
    let mut net = Net::new();
    let mut writer = Core::writer();
    writer.append(blocks(1200));
    let reader = Core::reader_of(&writer);
    let sources: Vec<usize> = (0..4).map(|_| net.host(writer.clone())).collect();
    let b = net.host(reader);
    let links: Vec<usize> = sources.iter().map(|a| net.connect_by(*a, b, Duration::from_millis(10), 1e5)).collect();
    download(&mut net, b, all());
    net.settle();
    assert_same(&net, sources[0], b);
    for link in links {
        let served = net.links[link].sent[0][3];
        assert!((150..600).contains(&served), "one served {served} of 1200 blocks");
    }
}

#[test]
fn requests_of_slow_peer_move_to_fast_peer() {
    let mut net = Net::new();
    let mut writer = Core::writer();
    writer.append((0..400).map(|i| block(i, 1000)));
    let reader = Core::reader_of(&writer);
    let (fast, slow, b) = (net.host(writer.clone()), net.host(writer), net.host(reader));
    net.connect_by(slow, b, Duration::from_millis(10), 2e3);
    net.connect_by(fast, b, Duration::from_millis(10), 1e6);
    let want = download(&mut net, b, Download::range(0..400));
    let start = net.now;
    net.until(|net| net.hosts[b].woken.contains_key(&want));
    // The slow peer alone would take 200 seconds, the fast one 0.4.
    assert!(net.now - start < Duration::from_secs(6), "{:?}", net.now - start);
    assert_same(&net, fast, b);
}

#[test]
fn requests_of_silent_or_vanished_peer_move_to_others() {
    for vanish in [false, true] {
        let mut net = Net::new();
        let mut writer = Core::writer();
        writer.append(blocks(600));
        let reader = Core::reader_of(&writer);
        let (good, bad, b) = (net.host(writer.clone()), net.host(writer), net.host(reader));
        let link = net.connect(bad, b);
        let links = [link, net.connect(good, b)];
        let mut answers = 0;
        if !vanish {
            net.hosts[bad].tamper = Some(Box::new(move |message| {
                answers += usize::from(message.kind() == 3);
                message.kind() != 3 || answers < 20
            }));
        }
        let want = download(&mut net, b, Download::range(0..600));
        let mut lost = 0;
        if vanish {
            net.until(|net| net.hosts[b].core.blocks.len() > 100);
            let gone = net.peer(link, b);
            lost = net.hosts[b].machine.peers().find(|info| info.peer == gone).unwrap().in_flight;
            assert!(lost > 0);
            net.cut(link);
        }
        net.until(|net| net.hosts[b].woken.contains_key(&want));
        assert_same(&net, good, b);
        if vanish {
            // Only the requests in flight to the vanished peer, and one for the head, are sent twice.
            let asked = links.map(|link| net.links[link].sent[1][1]);
            assert!(asked.iter().all(|asked| *asked > 50), "not all were asked: {asked:?}");
            let most = 600 + lost + 1;
            assert!(asked.iter().sum::<usize>() <= most, "blocks were asked for twice: {asked:?}, at most {most}");
        }
    }
}

#[test]
fn blocks_cleared_during_download_come_from_other_peer() {
    let (mut net, a, b, _) = pair(2000);
    let c = net.host(net.hosts[a].core.clone());
    let link = net.connect_by(c, b, Duration::from_millis(40), 2e5);
    net.hosts[b].commit_takes = Duration::from_millis(3);
    download(&mut net, b, all());
    net.until(|net| net.hosts[b].core.blocks.len() > 600);
    // Many of these are in flight, with proofs that others depend on.
    net.change(a, |core| core.clear(500..1400));
    net.settle();
    assert_same(&net, c, b);
    assert!(net.hosts[b].closed.is_empty());
    assert!(net.links[link].sent[0][3] > 100);
}

#[test]
fn sparse_peer_is_asked_only_for_held_blocks() {
    let (mut net, a, b, link) = pair(3000);
    net.settle();
    let it = &mut net.hosts[b];
    for i in (0..3000).step_by(3).chain(700..760) {
        it.machine.wait_for_block(i, &it.core);
    }
    net.settle();
    net.cut(link);
    let c = net.host(Core::reader_of(&net.hosts[a].core));
    let link = net.connect(b, c);
    let it = &mut net.hosts[c];
    let want = it.machine.download(Arc::new(Download::range(0..3000).if_available(true)), &it.core);
    net.until(|net| net.hosts[c].core.blocks.len() == net.hosts[b].core.blocks.len());
    assert_eq!(net.hosts[c].core.blocks, net.hosts[b].core.blocks);
    net.settle();
    assert!(matches!(net.hosts[c].woken[&want], Ok(Woken::Downloaded)));
    assert_eq!(net.links[link].sent[0][4], 0, "it was asked for blocks that it does not hold");
    assert_eq!(net.links[link].sent[1][5], 1, "one want message for one segment");
}

#[test]
fn peer_behind_serves_provable_blocks() {
    // The reader holds block 0 and the nodes beside its path. The peer cannot prove a block below a node that reaches
    // past the peer's own end.
    for (behind, provable) in [(1, 1), (6, 4), (10, 8), (12, 8), (16, 16), (31, 16)] {
        let mut net = Net::new();
        let mut writer = Core::writer();
        writer.append((0..behind).map(|i| block(i, 20)));
        let old = writer.clone();
        writer.append((behind..37).map(|i| block(i, 20)));
        let reader = Core::reader_of(&writer);
        let (a, b, c) = (net.host(writer), net.host(old), net.host(reader));
        let link = net.connect(a, c);
        let it = &mut net.hosts[c];
        it.machine.wait_for_block(0, &it.core);
        net.settle();
        net.cut(link);
        assert_eq!((net.hosts[c].core.length(), net.hosts[c].core.blocks.len()), (37, 1));
        net.connect(b, c);
        download(&mut net, c, all());
        net.settle();
        assert_eq!(net.hosts[c].core.blocks.keys().copied().collect::<Vec<_>>(), (0..provable).collect::<Vec<_>>());
        assert_eq!(net.links[1].sent[0][4], 0, "it was asked for blocks that it cannot prove");
        // The peer learns of the longer log only where it can be proved from the peer's own end.
        assert_eq!(net.hosts[b].core.length(), if [1, 16].contains(&behind) { 37 } else { behind });
    }
}

#[test]
fn idle_peers_close_and_reopen_channel() {
    let (mut net, a, b, _) = pair(5);
    for host in [a, b] {
        let it = &mut net.hosts[host];
        it.machine.set_downloading(false, &it.core, net.now);
    }
    net.settle();
    let idle = |reason: &CloseReason| matches!(reason, CloseReason::Idle);
    assert!(net.hosts.iter().flat_map(|host| &host.closed).any(|(_, reason)| idle(reason)));
    assert_eq!((net.hosts[a].joined, net.hosts[b].joined), (0, 0));
    assert_eq!(net.hosts[b].core.length(), 5);
    // A side that wants to download again reopens the channel if the other closes it.
    let it = &mut net.hosts[b];
    it.machine.set_downloading(true, &it.core, net.now);
    let link = net.connect(a, b);
    net.settle();
    assert_eq!(net.hosts[b].joined, 1);
    let peer = net.peer(link, b);
    assert!(net.hosts[b].machine.closed(peer));
}

/// During the commit of an upgrade no other peer is asked for a longer head. After it the others are.
#[test]
fn head_offered_during_commit_is_requested_after_it() {
    let mut writer = Core::writer();
    writer.append(blocks(1));
    let short = writer.clone();
    writer.append([block(1, 9), block(2, 9)]);
    let mut core = Core::reader_of(&writer);
    let mut machine = Replicator::new(Config::default());
    let (first, second, now) = (PeerId(1), PeerId(2), Duration::ZERO);
    let handshake = Handshake { seeks: true, capability: [0; 32] };
    let upgrade_asked = |machine: &mut Replicator, core: &Core, of: PeerId| {
        let mut asked = None;
        while let Some(action) = machine.poll(core, now) {
            match action {
                Action::Send { peer, message: Message::Request(request) } if peer == of => {
                    asked = asked.or(request.wanted.upgrade.map(|upgrade| (upgrade.start, request)));
                }
                _ => {}
            }
        }
        asked
    };
    let offer = |core: &Core, remote_length| {
        let can_upgrade = true;
        Message::Sync(Sync { length: core.length(), remote_length, can_upgrade, uploading: true, ..Sync::default() })
    };

    machine.opened(first, &handshake, &core, now);
    machine.handle(first, offer(&short, 0), &core, now);
    let (_, request) = upgrade_asked(&mut machine, &core, first).expect("the first peer is asked");
    let Message::Data(data) = short.answer(&request) else { panic!("no answer") };
    machine.handle(first, Message::Data(data.clone()), &core, now);
    while machine.poll(&core, now).is_some() {}
    let (outcome, change) = core.commit(&data);
    machine.changed(&change.unwrap(), &core);

    machine.opened(second, &handshake, &core, now);
    machine.handle(second, offer(&writer, 1), &core, now);
    assert!(upgrade_asked(&mut machine, &core, second).is_none());
    machine.committed(first, request.id, outcome, &core, now);
    let (start, _) = upgrade_asked(&mut machine, &core, second).expect("the second peer is asked");
    assert_eq!(start, 1);
}

#[test]
fn block_with_false_response_is_requested_from_third_peer() {
    let mut net = Net::new();
    let mut writer = Core::writer();
    writer.append(blocks(9));
    let reader = Core::reader_of(&writer);
    let a = net.host(writer);
    let b = net.host(reader);
    let link = net.connect(a, b);
    let it = &mut net.hosts[b];
    it.machine.wait_for_upgrade(&it.core);
    net.settle();
    // The request asks for the head as well as the block, so it cannot be cancelled when the block arrives.
    net.hosts[a].tamper = Some(Box::new(|message| !matches!(message, Message::Data(_))));
    net.change(a, |core| core.append([block(9, 20)]));
    let (peer, now) = (net.peer(link, b), net.now);
    let it = &mut net.hosts[b];
    let known = hypercore::lowlevel::replication::Range { drop: false, start: 0, length: 10 };
    it.machine.handle(peer, Message::Range(known), &it.core, now);
    let want = it.machine.wait_for_block(9, &it.core);
    net.run_for(Duration::from_millis(100));
    let lying = net.host(net.hosts[a].core.clone());
    net.hosts[lying].tamper = Some(Box::new(|message| {
        if let Message::Data(data) = message {
            data.proof.block.iter_mut().for_each(|block| block.value[0] ^= 1);
        }
        true
    }));
    net.connect(lying, b);
    net.until(|net| net.hosts[b].rejected == 1);
    let honest = net.host(net.hosts[a].core.clone());
    net.connect(honest, b);
    net.run_for(Duration::from_secs(60));
    assert!(matches!(net.hosts[b].woken.get(&want), Some(Ok(Woken::Block))), "{:?}", net.hosts[b].woken);
}

#[test]
fn peer_behind_is_asked_once_it_can_prove_blocks() {
    for grows in [false, true] {
        let mut net = Net::new();
        let mut writer = Core::writer();
        writer.append(blocks(60));
        let reader = Core::reader_of(&writer);
        let behind = writer.clone();
        writer.append((60..100).map(|i| block(i, 20)));
        writer.blocks.retain(|index, _| *index == 40);
        let (sparse, behind, b) = (net.host(writer), net.host(behind), net.host(reader));
        net.connect(sparse, b);
        net.settle();
        net.connect(behind, b);
        let it = &mut net.hosts[b];
        let wants = [
            it.machine.wait_for_block(5, &it.core),
            it.machine.download(Arc::new(Download::range(2..5)), &it.core),
            it.machine.download(Arc::new(Download::blocks(vec![33, 47])), &it.core),
        ];
        net.settle();
        // The reader does not know the node above the blocks that both logs share.
        assert!(net.hosts[b].woken.is_empty());
        if grows {
            net.change(behind, |core| core.append((60..100).map(|i| block(i, 20))));
        } else {
            let it = &mut net.hosts[b];
            it.machine.wait_for_block(40, &it.core);
        }
        net.settle();
        assert!(wants.iter().all(|want| net.hosts[b].woken.contains_key(want)), "grows: {grows}");
    }
}
