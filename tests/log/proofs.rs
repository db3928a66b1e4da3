//! Proofs of logs of all small sizes: a reader with few nodes accepts them, and then stores the nodes that
//! the log has.

use hypercore::lowlevel::flat_tree::full_roots;
use hypercore::lowlevel::index::NodeIndex;
use hypercore::lowlevel::manifest::Verifier;
use hypercore::lowlevel::merkle::{self, Head, NodeSource, Overlay, Proof, Request, Seek, SeekRequest};
use hypercore::{ErrorKind, Manifest};

use crate::common::machine::one_in;
use crate::proof_fixture::{Log, Reader, ancestors, earlier, knowing, missing_nodes, node_request, upgrade, varied};

#[test]
fn proof_of_block_verifies_from_any_held_ancestor() {
    for length in 1..=64 {
        let log = Log::of(length);
        for index in 0..length {
            for (level, top) in ancestors(&log, NodeIndex::of_block(index)).enumerate() {
                let mut reader = knowing(&log, &[top]);
                let request = Request { block: node_request(index, level as u64), ..Request::default() };
                let verified = reader.verify(log.prove(&request).unwrap()).unwrap();
                let change = verified.settle(&reader.nodes).unwrap();
                assert_eq!(change.block, Some((index, log.blocks[index as usize].clone())));
                reader.nodes.apply(&change.patch);
                assert_eq!(missing_nodes(&reader.nodes, &reader.head, NodeIndex::of_block(index)), 0);
                reader.assert_part_of(&log);
            }
        }
    }
}

#[test]
fn proof_of_node_verifies_from_any_held_ancestor() {
    for length in [1, 2, 3, 5, 8, 13, 31, 32, 64] {
        let log = Log::of(length);
        for &index in log.nodes.0.keys() {
            for (level, top) in ancestors(&log, index).enumerate() {
                let mut reader = knowing(&log, &[top]);
                let request = Request { hash: node_request(index.0, level as u64), ..Request::default() };
                reader.take(log.prove(&request).unwrap()).unwrap();
                assert_eq!(reader.nodes.node(index).unwrap(), log.nodes.node(index).unwrap());
                reader.assert_part_of(&log);
            }
        }
    }
}

#[test]
fn blocks_proven_in_any_order_match_log() {
    for length in 1..=64 {
        let log = Log::of(length);
        for stride in [1, 5, 23] {
            let mut reader = Reader::of(&log);
            reader.upgrade(&log, length);
            for i in 0..length {
                // Reaches every block even if stride and length have a common factor.
                let index = (i * stride + i * stride / length * u64::from(length % stride == 0)) % length;
                let request = reader.block_request(index);
                reader.take(log.prove(&request).unwrap()).unwrap();
            }
            reader.assert_part_of(&log);
            assert!(reader.blocks.len() as u64 == length || stride != 1);
        }
    }
}

#[test]
fn upgrade_between_any_lengths_verifies() {
    for length in (1..=24).step_by(one_in(6)).chain([64]) {
        let log = Log::of(length);
        for start in 0..length {
            for to in (start + 1..=length).rev().step_by(one_in(5)) {
                let mut reader = earlier(&log, start);
                let request = Request { upgrade: upgrade(start, to), ..Request::default() };
                reader.take(log.prove(&request).unwrap()).unwrap();
                assert_eq!(reader.head, log.head);
                reader.assert_part_of(&log);
                assert!(full_roots(length).all(|root| reader.nodes.0.contains_key(&root)));
            }
        }
    }
}

/// A reader with nothing but the roots can prove its head to readers whose roots it has, and to empty readers.
#[test]
fn upgrade_is_provable_only_from_lengths_with_held_roots() {
    for length in [1, 5, 6, 7, 8, 13] {
        let log = Log::of(length);
        let reader = knowing(&log, &[]);
        for start in 0..length {
            let request = Request { upgrade: upgrade(start, length), ..Request::default() };
            let from_all = merkle::prove(&log.nodes, &log.head, None, &request);
            assert!(from_all.is_ok());
            let needed = from_all.unwrap().upgrade.unwrap().nodes;
            let held = needed.iter().all(|node| reader.nodes.0.contains_key(&node.index));
            let from_roots = merkle::prove(&reader.nodes, &reader.head, None, &request);
            assert_eq!(from_roots.is_ok(), held, "from {start} of {length}");
        }
        let from_one = Request { upgrade: upgrade(1, length), ..Request::default() };
        assert!(length < 2 || merkle::prove(&reader.nodes, &reader.head, None, &from_one).is_err());
    }
}

#[test]
fn proof_of_block_with_upgrade_verifies() {
    for length in (1..=16).step_by(one_in(5)) {
        let log = Log::of(length);
        for start in 0..length {
            for to in start + 1..=length {
                for index in (0..to).step_by(one_in(3)) {
                    let mut reader = earlier(&log, start);
                    let request = Request { upgrade: upgrade(start, to), ..reader.block_request(index) };
                    reader.take(log.prove(&request).unwrap()).unwrap();
                    assert_eq!(reader.head, log.head);
                    assert_eq!(reader.blocks.len(), 1);
                    reader.assert_part_of(&log);
                }
            }
        }
    }
}

/// Block and offset of a byte, found by adding up the sizes: the first block that ends after the byte.
fn place(log: &Log, bytes: u64, padding: u64) -> (u64, u64) {
    let mut rest = bytes;
    for (index, block) in log.blocks.iter().enumerate() {
        let size = block.len() as u64 - padding;
        if rest < size {
            return (index as u64, rest);
        }
        rest -= size;
    }
    (log.head.length(), rest)
}

/// Seeks as a program with a peer does: requests each node that the reader lacks.
fn seek(reader: &mut Reader, log: &Log, bytes: u64, padding: u64) -> (u64, u64) {
    for _ in 0..10 {
        let seek = Some(SeekRequest { bytes, padding });
        let request = match merkle::seek_local(&reader.nodes, &reader.head, bytes, padding).unwrap() {
            Seek::Found { block, offset } => return (block, offset),
            Seek::Within { start, end } => {
                let nodes = NodeIndex(start + end - 1).depth().into();
                Request { hash: node_request(2 * (start + (end - start) / 3), nodes), seek, ..Request::default() }
            }
            Seek::Beyond => {
                let (from, to) = (reader.head.length(), log.head.length());
                Request { upgrade: upgrade(from, to), seek, ..Request::default() }
            }
        };
        reader.take(log.prove(&request).unwrap()).unwrap();
    }
    panic!("byte {bytes} of a log of {} is not found", log.head.length());
}

#[test]
fn seek_proofs_find_every_byte() {
    for length in (1..=64).step_by(one_in(17)) {
        for (padding, shortest) in [(0, 1), (8, 9)] {
            let mut log = Log::new();
            log.append((0..length).map(|i| vec![1; shortest + varied(i, 7).len()]).collect());
            let end = log.head.byte_length() - padding * length;
            for bytes in 0..=end {
                let mut blank = Reader::of(&log);
                if bytes == 0 {
                    blank.upgrade(&log, length);
                }
                let mut with_head = knowing(&log, &[]);
                let found = seek(&mut with_head, &log, bytes, padding);
                assert_eq!(found, place(&log, bytes, padding), "byte {bytes} of {length} blocks");
                assert_eq!(seek(&mut blank, &log, bytes, padding), found);
                blank.assert_part_of(&log);
                with_head.assert_part_of(&log);
            }
            let beyond = merkle::seek_local(&log.nodes, &log.head, end + 1, padding).unwrap();
            assert_eq!(beyond, Seek::Beyond);
        }
    }
}

#[test]
fn seek_passes_over_empty_blocks() {
    for length in 1..=40 {
        let log = Log::of(length);
        for bytes in 1..log.head.byte_length() {
            let mut reader = knowing(&log, &[]);
            let (block, offset) = seek(&mut reader, &log, bytes, 0);
            // The found block may be empty; then the byte is the first one of the next block that is not.
            let start = log.offset(block);
            assert_eq!(start + offset, bytes);
            let holder = log.blocks[block as usize..].iter().find(|block| !block.is_empty()).unwrap();
            assert!(offset < holder.len() as u64);
            assert!(offset == 0 || !log.blocks[block as usize].is_empty());
        }
    }
}

#[test]
fn proof_of_block_or_node_with_seek_verifies() {
    for length in 2..=20 {
        let log = Log::of(length);
        for index in 0..length {
            for (level, top) in ancestors(&log, NodeIndex::of_block(index)).enumerate() {
                let start = log.offset(top.first_block());
                for bytes in start..start + log.nodes.0[&top].size {
                    let node = node_request(index, level as u64);
                    let seek = Some(SeekRequest { bytes, padding: 0 });
                    let above: Vec<_> = ancestors(&log, top).flat_map(|node| [node, node.sibling()]).collect();
                    let mut reader = knowing(&log, &above);
                    reader.take(log.prove(&Request { block: node, seek, ..Request::default() }).unwrap()).unwrap();
                    let hash = node_request(2 * index, level as u64);
                    reader.take(log.prove(&Request { hash, seek, ..Request::default() }).unwrap()).unwrap();
                    reader.assert_part_of(&log);
                    match merkle::seek_local(&reader.nodes, &reader.head, bytes, 0).unwrap() {
                        Seek::Found { block, offset } => assert_eq!(log.offset(block) + offset, bytes),
                        other => panic!("byte {bytes} of {length} blocks: {other:?}"),
                    }
                }
            }
        }
    }
}

#[test]
fn byte_range_is_exact_and_out_of_bounds_past_end() {
    for length in 0..=64 {
        let log = Log::of(length);
        for index in 0..length {
            let range = merkle::byte_range(&log.nodes, &log.head, index).unwrap();
            assert_eq!(range, (log.offset(index), log.blocks[index as usize].len() as u64));
        }
        assert_eq!(merkle::byte_offset(&log.nodes, &log.head, length).unwrap(), log.head.byte_length());
        for beyond in [length, length + 1, u64::MAX] {
            let error = merkle::byte_range(&log.nodes, &log.head, beyond).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::OutOfBounds);
        }
        // With a padding larger than the blocks, the log has no bytes to find.
        for padding in [9, u64::MAX / 2, u64::MAX] {
            let beyond = merkle::seek_local(&log.nodes, &log.head, 1, padding).unwrap();
            assert_eq!(beyond, Seek::Beyond);
        }
    }
}

#[test]
fn proofs_verified_together_use_each_others_nodes() {
    let log = Log::of(32);
    let mut reader = Reader::of(&log);
    reader.upgrade(&log, 32);
    let mut asker = reader.clone();
    let mut proofs = Vec::new();
    for index in [9, 8, 11, 30, 31] {
        proofs.push(log.prove(&asker.block_request(index)).unwrap());
        asker.take(proofs[proofs.len() - 1].clone()).unwrap();
    }
    assert!(reader.verify(proofs[1].clone()).is_err());
    let mut overlay = Overlay::new(&reader.nodes);
    for proof in proofs {
        let verified = merkle::verify(&overlay, &reader.head, proof, &reader.verifier).unwrap();
        let change = verified.settle(&overlay).unwrap();
        overlay.apply(&change.patch);
    }
    for index in asker.nodes.0.keys() {
        assert_eq!(overlay.node(*index).unwrap(), asker.nodes.node(*index).unwrap());
    }
    let patch = merkle::truncate(&overlay, &reader.head, 9, 1).unwrap();
    overlay.apply(&patch);
    assert_eq!(overlay.node(NodeIndex(16)).unwrap(), log.nodes.node(NodeIndex(16)).unwrap());
    for gone in [17, 18, 22, 31] {
        assert_eq!(overlay.node(NodeIndex(gone)).unwrap(), None);
    }
}

#[test]
fn upgrade_from_shorter_length_reaches_newer_head_once() {
    let log = Log::of(12);
    let proof = log.prove(&Request { upgrade: upgrade(4, 8), ..Request::default() }).unwrap();
    let mut reader = earlier(&log, 8);
    reader.take(proof.clone()).unwrap();
    assert_eq!(reader.head, log.head);
    let error = reader.verify(proof.clone()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidOperation);
    let mut other_fork = proof;
    other_fork.fork = 1;
    reader.head = log.head_at(8);
    assert_eq!(reader.verify(other_fork).unwrap_err().kind(), ErrorKind::InvalidOperation);
}

#[test]
fn verified_proof_fits_only_head_it_was_made_for() {
    let log = Log::of(12);
    let reader = earlier(&log, 8);
    let longer = reader.verify(log.prove(&Request { upgrade: upgrade(8, 12), ..Request::default() }).unwrap()).unwrap();
    let block =
        reader.verify(log.prove(&Request { block: node_request(3, 3), ..Request::default() }).unwrap()).unwrap();
    assert!(longer.fits(&reader.head) && block.fits(&reader.head));
    assert!(!longer.fits(&log.head_at(9)) && block.fits(&log.head_at(9)));
    assert!(!longer.fits(&log.head_at(7)) && !block.fits(&log.head_at(7)));
    let forked = Head { fork: 1, ..reader.head.clone() };
    assert!(!longer.fits(&forked) && !block.fits(&forked));
}

#[test]
fn manifest_is_learned_from_proof_it_signs() {
    let log = Log::of(5);
    let key = log.key_pair.public_key();
    let request = Request { upgrade: upgrade(0, 5), ..Request::default() };

    // The proof shows that the core is compat.
    let mut reader = Reader::of(&log);
    reader.verifier = Verifier::new(key, None, true).unwrap();
    let change = reader.verify(log.prove(&request).unwrap()).unwrap().settle(&reader.nodes).unwrap();
    assert_eq!(change.manifest, Some(Manifest::single(key)));
    // The other fields of a compat manifest are ignored and not kept.
    let mut odd = log.prove(&request).unwrap();
    odd.manifest = Some(Manifest::single(key).with_quorum(9));
    assert_eq!(reader.verify(odd).unwrap().settle(&reader.nodes).unwrap().manifest, Some(Manifest::single(key)));

    // A core whose key is the hash of a manifest needs the manifest.
    let mut log = Log::new();
    let manifest = Manifest::single(key);
    log.verifier = Verifier::new(manifest.key(), Some(manifest.clone()), false).unwrap();
    log.append(vec![vec![1], vec![2]]);
    let request = Request { upgrade: upgrade(0, 2), ..Request::default() };
    for compat in [false, true] {
        reader.verifier = Verifier::new(manifest.key(), None, compat).unwrap();
        let mut proof = log.prove(&request).unwrap();
        assert_eq!(reader.verify(proof.clone()).unwrap_err().kind(), ErrorKind::InvalidSignature);
        proof.manifest = Some(manifest.clone());
        let change = reader.verify(proof.clone()).unwrap().settle(&reader.nodes).unwrap();
        assert_eq!(change.manifest, Some(manifest.clone()));
        proof.manifest = Some(manifest.clone().with_quorum(2));
        assert_eq!(reader.verify(proof).unwrap_err().kind(), ErrorKind::InvalidChecksum);
        // A manifest without an upgrade is checked against the key only.
        let alone = |manifest| Proof { manifest: Some(manifest), ..Proof::default() };
        let change = reader.verify(alone(manifest.clone())).unwrap().settle(&reader.nodes).unwrap();
        assert_eq!(change.manifest, Some(manifest.clone()));
        assert!(reader.verify(alone(Manifest::single(manifest.key()))).is_err());
    }
    reader.verifier = log.verifier.clone();
    let change = reader.verify(log.prove(&request).unwrap()).unwrap().settle(&reader.nodes).unwrap();
    assert_eq!(change.manifest, None);
}
