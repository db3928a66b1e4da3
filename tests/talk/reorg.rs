//! A writer truncates its log and appends other blocks; readers in the simulated network follow it onto the new fork.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use hypercore::lowlevel::replication::{CommitOutcome, Message, Woken};
use hypercore::{Error, ErrorKind};

use crate::simulated_core::{Core, block};
use crate::simulated_network::{Net, all, assert_same, download, pair};

/// Truncates the log of `host` to `common` blocks and appends different ones up to `length`.
fn fork(net: &mut Net, host: usize, common: u64, length: u64) {
    net.change(host, |core| core.truncate(common));
    if length > common {
        let fork = net.hosts[host].core.head.fork;
        net.change(host, |core| core.append((common..length).map(|i| block(i + fork * 1_000_000, 25))));
    }
}

#[test]
fn live_fork_is_followed_from_every_common_length() {
    for (length, commons) in
        [(1, vec![0]), (8, (0..8).collect()), (21, vec![0, 1, 7, 16, 20]), (300, vec![0, 255, 256, 299])]
    {
        for common in commons {
            for longer in [1, 2, 9] {
                let (mut net, a, b, _) = pair(length);
                download(&mut net, b, all());
                net.settle();
                fork(&mut net, a, common, common + longer);
                net.settle();
                assert_same(&net, a, b);
                assert_eq!(net.hosts[b].core.head.fork, 1);
                assert_eq!(net.hosts[b].rejected, 0);
                // Blocks before the fork are not downloaded again.
                assert!((0..common).all(|i| net.hosts[b].stored[&i] == 1));
            }
        }
    }
}

#[test]
fn sparse_reader_follows_fork() {
    for common in [0, 3, 50, 99] {
        let (mut net, a, b, _) = pair(100);
        let it = &mut net.hosts[b];
        for i in [1, 49, 51, 98] {
            it.machine.wait_for_block(i, &it.core);
        }
        net.settle();
        fork(&mut net, a, common, 120);
        net.settle();
        assert_eq!(net.hosts[b].core.head, net.hosts[a].core.head);
        let it = &mut net.hosts[b];
        let wants = [2, 60, 110].map(|i| it.machine.wait_for_block(i, &it.core));
        net.settle();
        assert!(wants.iter().all(|want| matches!(net.hosts[b].woken[want], Ok(Woken::Block))));
        assert!([2, 60, 110].iter().all(|i| net.hosts[b].core.blocks[i] == net.hosts[a].core.blocks[i]));
    }
}

#[test]
fn successive_forks_end_at_last_one() {
    let (mut net, a, b, _) = pair(64);
    let c = net.host(Core::reader_of(&net.hosts[a].core));
    net.connect(b, c);
    for host in [b, c] {
        download(&mut net, host, all());
    }
    net.settle();
    for round in 0..10 {
        fork(&mut net, a, 60 - round * 5, 70);
        if round % 4 == 3 {
            net.settle();
            assert_same(&net, a, b);
            assert_same(&net, a, c);
        }
    }
    net.settle();
    assert_same(&net, a, b);
    assert_same(&net, a, c);
    assert_eq!(net.hosts[c].core.head.fork, 10);
}

#[test]
fn log_truncated_to_zero_is_followed_after_next_append() {
    let (mut net, a, b, _) = pair(10);
    download(&mut net, b, all());
    net.settle();
    fork(&mut net, a, 0, 0);
    net.settle();
    assert_eq!(net.hosts[b].core.length(), 10);
    net.change(a, |core| core.append([block(77, 5)]));
    net.settle();
    assert_same(&net, a, b);
}

#[test]
fn fork_during_download_is_followed() {
    let (mut net, a, b, _) = pair(3000);
    download(&mut net, b, all());
    net.until(|net| net.hosts[b].core.blocks.len() > 700);
    fork(&mut net, a, 1500, 2500);
    net.settle();
    assert_same(&net, a, b);
    let (mut net, a, b, _) = pair(3000);
    download(&mut net, b, all());
    net.until(|net| net.hosts[b].core.blocks.len() > 700);
    fork(&mut net, a, 100, 5000);
    net.settle();
    assert_same(&net, a, b);
    assert!(net.hosts[b].closed.is_empty());
}

#[test]
fn wait_for_truncated_block_fails_with_snapshot_not_available() {
    let (mut net, a, b, _) = pair(10);
    net.change(a, |core| core.clear(6..8));
    net.settle();
    let it = &mut net.hosts[b];
    let in_the_log = it.machine.wait_for_block(6, &it.core);
    let below = it.machine.wait_for_block(3, &it.core);
    let future = it.machine.wait_for_block(11, &it.core);
    net.settle();
    assert!(net.hosts[b].woken.contains_key(&below));
    assert!(!net.hosts[b].woken.contains_key(&in_the_log));
    fork(&mut net, a, 5, 12);
    net.settle();
    let error = net.hosts[b].woken[&in_the_log].as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SnapshotNotAvailable);
    assert!(matches!(net.hosts[b].woken[&future], Ok(Woken::Block)));
}

#[test]
fn reader_learns_fork_from_other_reader() {
    // c was disconnected during the fork and learns of it from b, which follows a.
    let (mut net, a, b, link) = pair(40);
    let c = net.host(Core::reader_of(&net.hosts[a].core));
    let other = net.connect(a, c);
    for host in [b, c] {
        download(&mut net, host, all());
    }
    net.settle();
    net.cut(other);
    fork(&mut net, a, 30, 35);
    net.settle();
    net.cut(link);
    assert_eq!(net.hosts[c].core.head.fork, 0);
    net.connect(b, c);
    net.settle();
    assert_same(&net, a, c);
}

#[test]
fn proof_refused_after_fork_closes_no_peer() {
    let (mut net, a, b, link) = pair(20);
    net.settle();
    let peer = net.peer(link, b);
    let asked = Rc::new(Cell::new(0));
    let last = asked.clone();
    net.hosts[b].tamper = Some(Box::new(move |message| {
        if let Message::Request(request) = message {
            last.set(request.id);
        }
        true
    }));
    net.hosts[b].commit_takes = Duration::from_secs(10);
    let it = &mut net.hosts[b];
    it.machine.wait_for_block(3, &it.core);
    net.run_for(Duration::from_secs(1));
    let request = asked.get();
    fork(&mut net, a, 10, 30);
    net.run_for(Duration::from_secs(1));
    let now = net.now;
    let it = &mut net.hosts[b];
    assert_eq!(it.core.head.fork, 1);
    // The proof was checked against nodes of the other fork.
    let wrong = Error::new(ErrorKind::InvalidProof, "the proof leads to another root");
    it.machine.committed(peer, request, CommitOutcome::Rejected(wrong), &it.core, now);
    it.machine.conflict_checked(peer, Box::default(), true, &it.core);
    let want = it.machine.wait_for_block(4, &it.core);
    net.settle();
    assert!(net.hosts[b].closed.is_empty(), "{:?}", net.hosts[b].closed);
    assert_eq!(net.hosts[b].conflicts, 0);
    assert!(matches!(net.hosts[b].woken.get(&want), Some(Ok(Woken::Block))), "{:?}", net.hosts[b].woken);
}
