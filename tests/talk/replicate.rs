//! Two or more machines without sockets bring their logs in step, over slow and broken lines, in bounded steps.

use std::sync::Arc;
use std::time::Duration;

use hypercore::Download;
use hypercore::ErrorKind;
use hypercore::lowlevel::replication::{
    Action, CloseReason, Config, Handshake, Message, PeerId, Replicator, Sync, Woken,
};

use crate::net::{Core, Net, all, assert_same, block, blocks, download, pair};

#[test]
fn a_log_is_cloned_and_nothing_is_asked_for_twice() {
    for count in [1, 2, 7, 100, 3000] {
        let (mut net, a, b, line) = pair(count);
        let want = download(&mut net, b, Download::range(0..count));
        net.settle();
        assert_same(&net, a, b);
        assert!(matches!(net.hosts[b].woken[&want], Ok(Woken::Downloaded)));
        let asked = net.lines[line].sent[1][1] as u64;
        assert!(asked <= count + 1, "{asked} requests for {count} blocks");
        assert_eq!(net.lines[line].sent[0][3] as u64, asked);
        assert!(net.hosts[b].stored.values().all(|times| *times == 1));
        assert_eq!(net.hosts[b].rejected, 0);
        // Nor is a node sent that is there already, or on its way: a tree has as many nodes besides its leaves as it has leaves.
        let nodes = net.hosts[b].received_nodes as u64;
        assert!(nodes <= count + 64, "{nodes} nodes for {count} blocks");
    }
}

#[test]
fn the_head_is_followed_and_blocks_come_on_demand() {
    let (mut net, a, b, line) = pair(50);
    net.settle();
    assert_eq!(net.hosts[b].core.head, net.hosts[a].core.head);
    assert!(net.hosts[b].core.blocks.is_empty());
    let it = &mut net.hosts[b];
    let want = it.machine.wait_for_block(17, &it.core);
    net.settle();
    assert!(matches!(net.hosts[b].woken[&want], Ok(Woken::Block)));
    assert_eq!(net.hosts[b].core.blocks.len(), 1);
    assert_eq!(net.hosts[b].core.blocks[&17], block(17, 20));
    assert_eq!(net.lines[line].sent[1][1], 2);
}

#[test]
fn a_live_log_is_followed() {
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
fn a_block_that_is_not_written_yet_is_waited_for() {
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
fn a_block_that_is_cleared_as_soon_as_it_is_stored_is_asked_for_again() {
    for of_a_caller in [true, false] {
        let (mut net, _, b, _) = pair(9);
        net.settle();
        net.hosts[b].outcome_takes = Duration::from_millis(50);
        let it = &mut net.hosts[b];
        let first = it.machine.wait_for_block(4, &it.core);
        net.until(|net| net.hosts[b].woken.contains_key(&first));
        // Whoever waited may go on before the machine hears that the block it asked for is stored.
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
fn slow_commits_do_not_stop_the_pipeline() {
    let (mut net, a, b, line) = pair(2000);
    net.hosts[b].commit_takes = Duration::from_millis(20);
    download(&mut net, b, all());
    let start = net.now;
    net.settle();
    assert_same(&net, a, b);
    // One at a time would take more than a minute.
    assert!(net.now - start < Duration::from_secs(2), "{:?}", net.now - start);
    assert!(net.lines[line].sent[1][1] <= 2001);
}

#[test]
fn a_chain_of_readers_passes_the_log_on() {
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
fn several_peers_share_the_work() {
    let mut net = Net::new();
    let mut writer = Core::writer();
    writer.append(blocks(1200));
    let reader = Core::reader_of(&writer);
    let sources: Vec<usize> = (0..4).map(|_| net.host(writer.clone())).collect();
    let b = net.host(reader);
    let lines: Vec<usize> = sources.iter().map(|a| net.connect_by(*a, b, Duration::from_millis(10), 1e5)).collect();
    download(&mut net, b, all());
    net.settle();
    assert_same(&net, sources[0], b);
    for line in lines {
        let served = net.lines[line].sent[0][3];
        assert!((150..600).contains(&served), "one served {served} of 1200 blocks");
    }
}

#[test]
fn the_share_of_a_slow_peer_goes_to_others() {
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
    // The slow one alone would take 200 seconds, the fast one alone 0.4.
    assert!(net.now - start < Duration::from_secs(6), "{:?}", net.now - start);
    assert_same(&net, fast, b);
}

#[test]
fn the_share_of_a_mute_or_vanished_peer_goes_to_others() {
    for vanish in [false, true] {
        let mut net = Net::new();
        let mut writer = Core::writer();
        writer.append(blocks(600));
        let reader = Core::reader_of(&writer);
        let (good, bad, b) = (net.host(writer.clone()), net.host(writer), net.host(reader));
        let line = net.connect(bad, b);
        let lines = [line, net.connect(good, b)];
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
            let gone = net.peer(line, b);
            lost = net.hosts[b].machine.peers().find(|info| info.peer == gone).unwrap().in_flight;
            assert!(lost > 0);
            net.cut(line);
        }
        net.until(|net| net.hosts[b].woken.contains_key(&want));
        assert_same(&net, good, b);
        if vanish {
            // Nothing is asked for twice but what it was to send, and once the head.
            let asked = lines.map(|line| net.lines[line].sent[1][1]);
            assert!(asked.iter().all(|asked| *asked > 50), "not all were asked: {asked:?}");
            let most = 600 + lost + 1;
            assert!(asked.iter().sum::<usize>() <= most, "blocks were asked for twice: {asked:?}, at most {most}");
        }
    }
}

#[test]
fn answers_may_come_in_any_order() {
    for disorder in [2, 3, 16, 100] {
        let (mut net, a, b, line) = pair(1500);
        net.hosts[a].disorder = disorder;
        download(&mut net, b, all());
        net.settle();
        assert_same(&net, a, b);
        assert_eq!(net.hosts[b].rejected, 0);
        assert!(net.lines[line].sent[1][1] <= 1501);
    }
}

#[test]
fn blocks_that_go_away_in_the_middle_of_it_come_from_others() {
    let (mut net, a, b, _) = pair(2000);
    let c = net.host(net.hosts[a].core.clone());
    let line = net.connect_by(c, b, Duration::from_millis(40), 2e5);
    net.hosts[b].commit_takes = Duration::from_millis(3);
    download(&mut net, b, all());
    net.until(|net| net.hosts[b].core.blocks.len() > 600);
    // Many that are asked for now, on which others lean.
    net.change(a, |core| core.clear(500..1400));
    net.settle();
    assert_same(&net, c, b);
    assert!(net.hosts[b].closed.is_empty());
    assert!(net.lines[line].sent[0][3] > 100);
}

#[test]
fn a_seek_finds_the_block_over_the_network() {
    for seeks in [0, 1, 19, 20, 777, 1999, 2000] {
        let (mut net, _, b, _) = pair(100);
        net.settle();
        let it = &mut net.hosts[b];
        let want = it.machine.wait_for_seek(seeks, 0, &it.core);
        net.settle();
        let found = net.hosts[b].woken[&want].as_ref().unwrap();
        assert_eq!(*found, Woken::Seek { index: seeks / 20, offset: seeks % 20 });
    }
    // Before anything is known of the log, and beyond its end until it grows.
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
fn an_update_waits_for_those_who_may_have_more_and_no_longer() {
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
fn a_manifest_comes_over_the_line() {
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
fn extensions_talk_beside() {
    let (mut net, a, b, line) = pair(1);
    let to = net.peer(line, a);
    for (name, text) in [("chat", "hello"), ("chat", "again"), ("other", "x"), ("chat", "")] {
        net.hosts[a].machine.send_extension(to, name, text.into());
    }
    net.settle();
    let heard: Vec<_> = net.hosts[b].extensions.iter().map(|(_, name, m)| (name.as_str(), &m[..])).collect();
    assert_eq!(heard, [("chat", &b"hello"[..]), ("chat", b"again"), ("other", b"x"), ("chat", b"")]);
}

#[test]
fn what_nobody_has_is_over_where_only_the_available_was_wanted() {
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
fn a_list_of_blocks_is_downloaded_and_no_other() {
    let (mut net, _, b, _) = pair(100);
    let want = download(&mut net, b, Download::blocks(vec![90, 3, 5, 90, 44]));
    net.settle();
    assert!(matches!(net.hosts[b].woken[&want], Ok(Woken::Downloaded)));
    assert_eq!(net.hosts[b].core.blocks.keys().copied().collect::<Vec<_>>(), [3, 5, 44, 90]);
}

/// A block that nobody has keeps a download open. The others are not looked through again for each answer that comes.
#[test]
fn a_long_list_with_a_block_that_nobody_has_costs_no_more_than_its_length() {
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
fn cancelled_wants_are_taken_back() {
    let (mut net, _, b, line) = pair(5000);
    let range = download(&mut net, b, all());
    let it = &mut net.hosts[b];
    let get = it.machine.wait_for_block(4999, &it.core);
    net.until(|net| net.hosts[b].core.blocks.len() > 500);
    net.hosts[b].machine.cancel(range);
    net.hosts[b].machine.cancel(get);
    net.settle();
    let there = net.hosts[b].core.blocks.len();
    assert!(there < 2000, "{there}");
    assert!(net.lines[line].sent[1][2] > 0);
    assert!(!net.hosts[b].woken.contains_key(&range));
    // It can be taken up again.
    download(&mut net, b, all());
    net.settle();
    assert_eq!(net.hosts[b].core.blocks.len(), 5000);
}

#[test]
fn what_a_sparse_peer_has_is_found_out_and_no_more_is_asked_of_it() {
    let (mut net, a, b, line) = pair(3000);
    net.settle();
    let it = &mut net.hosts[b];
    for i in (0..3000).step_by(3).chain(700..760) {
        it.machine.wait_for_block(i, &it.core);
    }
    net.settle();
    net.cut(line);
    let c = net.host(Core::reader_of(&net.hosts[a].core));
    let line = net.connect(b, c);
    let it = &mut net.hosts[c];
    let want = it.machine.download(Arc::new(Download::range(0..3000).if_available(true)), &it.core);
    net.until(|net| net.hosts[c].core.blocks.len() == net.hosts[b].core.blocks.len());
    assert_eq!(net.hosts[c].core.blocks, net.hosts[b].core.blocks);
    net.settle();
    assert!(matches!(net.hosts[c].woken[&want], Ok(Woken::Downloaded)));
    assert_eq!(net.lines[line].sent[0][4], 0, "it was asked for what it does not have");
    assert_eq!(net.lines[line].sent[1][5], 1, "one segment was asked about, once");
}

#[test]
fn a_peer_that_is_behind_gives_what_it_has() {
    // The reader holds block 0, and so the nodes beside its path; a block below one that reaches past the peer's end cannot be proved by it.
    for (behind, provable) in [(1, 1), (6, 4), (10, 8), (12, 8), (16, 16), (31, 16)] {
        let mut net = Net::new();
        let mut writer = Core::writer();
        writer.append((0..behind).map(|i| block(i, 20)));
        let old = writer.clone();
        writer.append((behind..37).map(|i| block(i, 20)));
        let reader = Core::reader_of(&writer);
        let (a, b, c) = (net.host(writer), net.host(old), net.host(reader));
        let line = net.connect(a, c);
        let it = &mut net.hosts[c];
        it.machine.wait_for_block(0, &it.core);
        net.settle();
        net.cut(line);
        assert_eq!((net.hosts[c].core.length(), net.hosts[c].core.blocks.len()), (37, 1));
        net.connect(b, c);
        download(&mut net, c, all());
        net.settle();
        assert_eq!(net.hosts[c].core.blocks.keys().copied().collect::<Vec<_>>(), (0..provable).collect::<Vec<_>>());
        assert_eq!(net.lines[1].sent[0][4], 0, "it was asked for what it cannot prove");
        // Of the longer log it learns only where it can be proved from its own end.
        assert_eq!(net.hosts[b].core.length(), if [1, 16].contains(&behind) { 37 } else { behind });
    }
}

#[test]
fn peers_that_want_nothing_part_and_meet_again() {
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
    // One that has regained interest opens the channel again, should the other close it.
    let it = &mut net.hosts[b];
    it.machine.set_downloading(true, &it.core, net.now);
    let line = net.connect(a, b);
    net.settle();
    assert_eq!(net.hosts[b].joined, 1);
    let peer = net.peer(line, b);
    assert!(net.hosts[b].machine.closed(peer));
}

#[test]
fn a_core_that_cannot_store_asks_no_more() {
    let (mut net, a, b, line) = pair(1000);
    download(&mut net, b, all());
    net.until(|net| net.hosts[b].core.blocks.len() > 100);
    net.hosts[b].broken = true;
    net.settle();
    assert!(net.hosts[b].machine.has_failed());
    let there = net.hosts[b].core.blocks.len();
    let asked = net.lines[line].sent[1][1];
    net.change(a, |core| core.append([block(1000, 20)]));
    net.settle();
    assert_eq!((net.hosts[b].core.blocks.len(), net.lines[line].sent[1][1]), (there, asked));
    assert!(net.hosts[b].closed.is_empty());
}

#[test]
fn closing_fails_whoever_waits() {
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
fn many_downloads_end_each_in_its_time() {
    let (mut net, a, b, _) = pair(400);
    net.change(a, |core| core.clear(0..100));
    // The first hundred can never be complete, and must not keep the others waiting.
    let wants: Vec<_> = (0..400).map(|i| download(&mut net, b, Download::range(i..i + 1))).collect();
    net.settle();
    let woken = |want| net.hosts[b].woken.contains_key(want);
    assert!(!wants[..100].iter().any(woken));
    assert!(wants[100..].iter().all(woken));
}

/// While what one peer proved is being stored, nobody else is asked for a longer head; once it is, the others are.
#[test]
fn a_longer_log_offered_during_a_commit_is_asked_for_after_it() {
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
fn a_block_whose_answer_was_wrong_is_asked_of_a_third_though_another_is_silent() {
    let mut net = Net::new();
    let mut writer = Core::writer();
    writer.append(blocks(9));
    let reader = Core::reader_of(&writer);
    let a = net.host(writer);
    let b = net.host(reader);
    let line = net.connect(a, b);
    let it = &mut net.hosts[b];
    it.machine.wait_for_upgrade(&it.core);
    net.settle();
    // Asked for a longer head with the block, the first cannot be told that the block is no longer needed.
    net.hosts[a].tamper = Some(Box::new(|message| !matches!(message, Message::Data(_))));
    net.change(a, |core| core.append([block(9, 20)]));
    let (peer, now) = (net.peer(line, b), net.now);
    let it = &mut net.hosts[b];
    let known = hypercore::lowlevel::replication::Range { drop: false, start: 0, length: 10 };
    it.machine.handle(peer, Message::Range(known), &it.core, now);
    let want = it.machine.wait_for_block(9, &it.core);
    net.run_for(Duration::from_millis(100));
    let liar = net.host(net.hosts[a].core.clone());
    net.hosts[liar].tamper = Some(Box::new(|message| {
        if let Message::Data(data) = message {
            data.proof.block.iter_mut().for_each(|block| block.value[0] ^= 1);
        }
        true
    }));
    net.connect(liar, b);
    net.until(|net| net.hosts[b].rejected == 1);
    let honest = net.host(net.hosts[a].core.clone());
    net.connect(honest, b);
    net.run_for(Duration::from_secs(60));
    assert!(matches!(net.hosts[b].woken.get(&want), Some(Ok(Woken::Block))), "{:?}", net.hosts[b].woken);
}

#[test]
fn a_peer_behind_us_is_asked_as_soon_as_it_can_prove_what_it_has() {
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
        // Of the node over its blocks that both logs have, we know nothing.
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
