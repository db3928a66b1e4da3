//! A reader follows a truncated and rewritten log to its new fork from any common length, and finds the conflict of
//! two logs that were signed for the same fork.

use hypercore::lowlevel::manifest::Verifier;
use hypercore::lowlevel::merkle::{self, Proof, Reorg, Request};
use hypercore::{ErrorKind, Manifest};

use crate::common::machine::one_in;
use crate::proof_fixture::{Log, Reader, node_request, upgrade, varied};

/// Blocks that differ from those of any other `salt`.
fn blocks(from: u64, to: u64, salt: u8) -> Vec<Vec<u8>> {
    (from..to).map(|i| [&varied(i, salt.into())[..], &[salt], &i.to_le_bytes()].concat()).collect()
}

fn log(length: u64, salt: u8) -> Log {
    let mut log = Log::new();
    log.append(blocks(0, length, salt));
    log
}

/// `log` truncated to `common` blocks and grown to `length` again.
fn forked(log: &Log, common: u64, length: u64, salt: u8) -> Log {
    let mut fork = log.clone();
    fork.truncate(common);
    if length > common {
        fork.append(blocks(common, length, salt));
    }
    fork
}

fn whole(log: &Log) -> Proof {
    log.prove(&Request { upgrade: upgrade(0, log.head.length()), ..Request::default() }).unwrap()
}

fn start(reader: &Reader, remote: &Log) -> Reorg {
    Reorg::start(&reader.nodes, &reader.head, &whole(remote), &reader.verifier).unwrap()
}

/// Follows `remote` to its fork. Each request is for the block that `pick` chooses from the wanted range.
/// Returns the common length.
fn follow(reader: &mut Reader, remote: &Log, pick: impl Fn(u64, u64) -> u64) -> u64 {
    let mut reorg = start(reader, remote);
    let mut asked = 0;
    while let Some(wanted) = reorg.wanted() {
        assert!(wanted.start < wanted.end && wanted.end <= reader.head.length());
        let hash = Some(wanted.request(pick(wanted.start, wanted.end)));
        let proof = remote.prove(&Request { hash, ..Request::default() }).unwrap();
        assert!(reorg.update(&reader.nodes, &proof).unwrap());
        asked += 1;
        assert!(asked <= 8);
    }
    let verified = reorg.finish().unwrap();
    let ancestors = verified.ancestors();
    reader.commit(verified);
    assert_eq!(reader.head, remote.head);
    ancestors
}

/// A reader with each `step`th block of `log`.
fn reader(log: &Log, step: usize) -> Reader {
    let mut reader = Reader::of(log);
    if log.head.length() > 0 {
        reader.upgrade(log, log.head.length());
    }
    for index in (0..log.head.length()).rev().step_by(step) {
        let request = reader.block_request(index);
        reader.take(log.prove(&request).unwrap()).unwrap();
    }
    reader
}

#[test]
fn fork_from_any_common_length_is_followed() {
    for length in [0, 1, 2, 3, 7, 8, 13, 16, 32] {
        let old = log(length, 1);
        let everything = reader(&old, 1);
        let little = reader(&old, 5);
        for common in (0..=length).step_by(one_in(5)) {
            for longer in [0, 1, 2, 5, 16] {
                let new = forked(&old, common, common + longer, 2);
                if new.head.length() == 0 {
                    continue;
                }
                for pick in [|start, _| start, |_, end| end - 1, |start, end| (start + end) / 2] {
                    let mut all = everything.clone();
                    assert_eq!(follow(&mut all, &new, pick), common);
                    all.blocks.retain(|index, _| *index < common);
                    assert_eq!(all.blocks.len() as u64, common);
                    all.assert_part_of(&new);

                    let mut some = little.clone();
                    let ancestors = follow(&mut some, &new, pick);
                    assert!(ancestors <= common);
                    some.blocks.retain(|index, _| *index < ancestors);
                    some.assert_part_of(&new);
                    for index in 0..new.head.length() {
                        let request = some.block_request(index);
                        some.take(new.prove(&request).unwrap()).unwrap();
                    }
                    some.assert_part_of(&new);
                }
            }
        }
    }
}

#[test]
fn fork_in_proof_with_block_is_followed() {
    let old = log(11, 1);
    let new = forked(&old, 6, 14, 2);
    for to in 1..=14 {
        for block in 0..to {
            let request = Request { upgrade: upgrade(0, to), block: node_request(block, 0), ..Request::default() };
            let mut reader = reader(&old, 1);
            let proof = new.prove(&request).unwrap();
            let mut reorg = Reorg::start(&reader.nodes, &reader.head, &proof, &reader.verifier).unwrap();
            while let Some(wanted) = reorg.wanted() {
                let hash = Some(wanted.request(wanted.start));
                let proof = new.prove(&Request { hash, ..Request::default() }).unwrap();
                assert!(reorg.update(&reader.nodes, &proof).unwrap());
            }
            let verified = reorg.finish().unwrap();
            assert_eq!(verified.ancestors(), 6);
            reader.commit(verified);
            reader.blocks.retain(|index, _| *index < 6);
            reader.assert_part_of(&new);
        }
    }
}

/// A prologue is valid without a signature, so anybody can serve it as the beginning of the log, but not as
/// a truncated log.
#[test]
fn reorg_to_prologue_needs_signature() {
    let mut old = Log::new();
    let prologue = log(3, 1);
    let manifest = Manifest::single(old.key_pair.public_key()).with_prologue(prologue.head.tree_hash(), 3);
    old.verifier = Verifier::new(manifest.key(), Some(manifest), false).unwrap();
    old.append(blocks(0, 9, 1));
    let new = forked(&old, 3, 3, 2);
    let mut holder = reader(&old, 1);
    let newcomer = Reader::of(&old);
    for (fork, signature) in [(1, Vec::new()), (1 << 40, Vec::new()), (2, new.head.signature.clone())] {
        let mut forged = whole(&new);
        forged.fork = fork;
        forged.upgrade.as_mut().unwrap().signature = signature;
        for reader in [&holder, &newcomer] {
            let refused = Reorg::start(&reader.nodes, &reader.head, &forged, &reader.verifier);
            assert_eq!(refused.map(|_| ()).unwrap_err().kind(), ErrorKind::InvalidSignature, "fork {fork}");
        }
    }
    assert_eq!(follow(&mut holder, &new, |start, _| start), 3);
}

#[test]
fn proof_that_does_not_lead_to_fork_is_refused() {
    let old = log(16, 1);
    let new = forked(&old, 9, 20, 2);
    let reader = reader(&old, 1);
    let refused = |proof: &Proof| {
        Reorg::start(&reader.nodes, &reader.head, proof, &reader.verifier).map(|_| ()).unwrap_err().kind()
    };
    assert_eq!(refused(&whole(&old)), ErrorKind::InvalidOperation);
    let mut unsigned = whole(&new);
    unsigned.upgrade.as_mut().unwrap().signature[3] ^= 1;
    assert_eq!(refused(&unsigned), ErrorKind::InvalidSignature);
    let mut higher = whole(&new);
    higher.fork += 1;
    assert_eq!(refused(&higher), ErrorKind::InvalidSignature);
    let partial = new.prove(&Request { upgrade: upgrade(9, 20), ..Request::default() }).unwrap();
    assert_eq!(refused(&partial), ErrorKind::InvalidOperation);

    let mut reorg = start(&reader, &new);
    let wanted = reorg.wanted().unwrap();
    let request = |block| Request { hash: Some(wanted.request(block)), ..Request::default() };
    let honest = new.prove(&request(wanted.start)).unwrap();
    let mut wrong = old.prove(&request(wanted.start)).unwrap();
    assert_eq!(reorg.update(&reader.nodes, &wrong).unwrap_err().kind(), ErrorKind::InvalidOperation);
    wrong.fork = 1;
    assert_eq!(reorg.update(&reader.nodes, &wrong).unwrap_err().kind(), ErrorKind::InvalidChecksum);
    let elsewhere = new.prove(&Request { hash: node_request(36, 0), ..Request::default() }).unwrap();
    assert!(!reorg.update(&reader.nodes, &elsewhere).unwrap());
    let no_deeper = new.prove(&Request { hash: node_request(15, 0), ..Request::default() }).unwrap();
    assert!(!reorg.update(&reader.nodes, &no_deeper).unwrap());
    assert_eq!(reorg.wanted(), Some(wanted));
    assert!(reorg.clone().finish().is_none());
    assert!(reorg.update(&reader.nodes, &honest).unwrap());
    assert!(!reorg.update(&reader.nodes, &honest).unwrap());
}

#[test]
fn two_signed_logs_of_one_fork_conflict_where_they_differ() {
    for length in 1..=13 {
        let mine = log(length, 1);
        for other_length in 1..=13 {
            for common in 0..=length.min(other_length) {
                let mut theirs = forked(&mine, common, other_length.max(common), 2);
                // The writer lost its state and signs the same fork again.
                theirs = {
                    let mut again = Log::new();
                    again.append(theirs.blocks.clone());
                    again
                };
                let asked = length.min(theirs.head.length());
                let proof = theirs.prove(&Request { upgrade: upgrade(0, asked), ..Request::default() }).unwrap();
                let found = merkle::conflict(&mine.nodes, &mine.head, &proof, &mine.verifier).unwrap();
                assert_eq!(found.is_some(), common < asked, "{common} of {length} and {other_length}");
                if let Some(found) = found {
                    assert_ne!(found.local.hash, found.remote.hash);
                    assert_eq!((found.fork, found.length), (0, asked));
                }
            }
        }
    }
}

#[test]
fn proof_with_shifted_sizes_or_bad_signature_is_no_conflict() {
    let long = log(4, 1);
    let mut short = log(3, 1);
    let honest = long.prove(&Request { upgrade: upgrade(0, 3), ..Request::default() }).unwrap();
    let found = |log: &Log, proof: &Proof| merkle::conflict(&log.nodes, &log.head, proof, &log.verifier);
    assert_eq!(found(&short, &honest).unwrap(), None);
    let mut shifted = honest.clone();
    let upgrade = shifted.upgrade.as_mut().unwrap();
    upgrade.nodes[1].size -= 1;
    upgrade.additional_nodes[0].size += 1;
    assert_eq!(found(&short, &shifted).unwrap(), None);
    let mut unsigned = honest.clone();
    unsigned.upgrade.as_mut().unwrap().signature[0] ^= 1;
    assert_eq!(found(&short, &unsigned).unwrap_err().kind(), ErrorKind::InvalidSignature);
    short.truncate(2);
    assert_eq!(found(&short, &honest).unwrap(), None);
}
