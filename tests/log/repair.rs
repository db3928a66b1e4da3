//! Repair of damage: nodes and roots are rebuilt from the nodes below them, blocks that differ from the signed ones
//! are dropped and can be downloaded again, nothing else changes, and each fault is reported.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hypercore::lowlevel::oplog::Oplog;
use hypercore::net::{Role, pipe};
use hypercore::{Access, Audit, Durability, ErrorKind, Fault, Hypercore, Storage};

use crate::common::machine::{one_in, tries};
use crate::common::powercut::{Cut, Image, Recorder, Replay};
use crate::common::{Random, pair, watchdog};

const NODE: usize = 40;

fn block(index: u64) -> Vec<u8> {
    let mut random = Random::new(index + 3);
    let size = 1 + random.below(700) as usize;
    random.bytes(size)
}

/// The files of a writer's log of `length` blocks.
fn image_of(length: u64) -> Image {
    let disk = Recorder::new(Image::new());
    let core = Hypercore::options().key_pair(pair(1)).open_in(disk.clone()).unwrap();
    core.append_batch((0..length).map(block)).unwrap();
    core.close().unwrap();
    disk.image()
}

fn open(disk: &Recorder) -> hypercore::Result<Hypercore> {
    let options = Hypercore::options().create_if_missing(false).timeout(Duration::from_secs(60));
    options.durability(Durability::Flush).open_in(disk.clone())
}

fn found(core: &Hypercore) -> Vec<Fault> {
    let mut faults = core.verify().unwrap().faults;
    faults.sort_by_key(|fault| format!("{fault:?}"));
    faults
}

/// Repairs, and checks that no fault is left, also after the next open.
fn repair(disk: &Recorder, what: &str) -> Audit {
    let core = open(disk).unwrap_or_else(|e| panic!("{what}: {e}"));
    let before = core.verify().unwrap();
    assert!(!before.is_sound(), "{what} was not found");
    let audit = core.repair().unwrap();
    assert_eq!(audit.faults, before.faults, "{what}");
    assert!(audit.repaired && audit.is_sound(), "{what}");
    assert_eq!(core.verify().unwrap().faults, [], "{what}");
    core.close().unwrap();
    let core = open(disk).unwrap();
    assert_eq!(core.verify().unwrap().faults, [], "{what}, opened again");
    for index in 0..core.len() {
        if core.has(index).unwrap() {
            assert_eq!(core.get(index).unwrap(), block(index), "{what}");
        }
    }
    audit
}

/// Downloads all missing blocks from a complete copy.
fn download(disk: &Recorder, whole: &Image) {
    let (core, peer) = (open(disk).unwrap(), open(&Recorder::new(whole.clone())).unwrap());
    let (here, there) = pipe();
    let _ours = core.replicate(here, Role::Initiator).unwrap();
    let _theirs = peer.replicate(there, Role::Responder).unwrap();
    for index in 0..core.len() {
        assert_eq!(core.get(index).unwrap(), block(index));
    }
    assert_eq!(core.verify().unwrap().faults, []);
    core.close().unwrap();
}

/// Damages a node in one of five ways.
fn damage(tree: &mut [u8], index: usize, way: u64) {
    let node = &mut tree[index * NODE..(index + 1) * NODE];
    match way {
        0 => node.fill(0),
        1 => node[20] ^= 4,
        2 => node[0] ^= 1,
        3 => node[7] = 0xff,
        _ => node.fill(0xee),
    }
}

#[test]
fn damaged_node_is_rebuilt_from_blocks() {
    let _watchdog = watchdog();
    for length in [1, 2, 3, 7, 8, 13] {
        let whole = image_of(length);
        let nodes = whole["tree"].len() / NODE;
        for index in 0..nodes {
            for way in (0..5).skip(index % one_in(5)).step_by(one_in(5)) {
                let mut image = whole.clone();
                damage(image.get_mut("tree").unwrap(), index, way);
                if image == whole || whole["tree"][index * NODE..(index + 1) * NODE].iter().all(|&b| b == 0) {
                    continue;
                }
                let disk = Recorder::new(image);
                let what = format!("node {index} of a log of {length}, in way {way}");
                let audit = repair(&disk, &what);
                assert_eq!(audit.faults, [Fault::Node(index as u64)], "{what}");
                assert_eq!(audit.blocks, length, "{what}");
                assert!(disk.image()["tree"] == whole["tree"], "{what}");
            }
        }
    }
}

#[test]
fn node_that_cannot_be_rebuilt_is_dropped_and_downloaded_again() {
    let _watchdog = watchdog();
    let whole = image_of(13);
    let nodes = whole["tree"].len() / NODE;
    let mut random = Random::new(9);
    let mut dropped = 0;
    let rounds = tries(150);
    for round in 0..rounds {
        let mut image = whole.clone();
        for _ in 0..2 + random.below(3) {
            let (index, way) = (random.below(nodes as u64) as usize, random.below(5));
            damage(image.get_mut("tree").unwrap(), index, way);
        }
        if random.below(2) == 0 {
            let data = image.get_mut("data").unwrap();
            let at = random.below(data.len() as u64) as usize;
            data[at] ^= 1;
        }
        let disk = Recorder::new(image);
        match open(&disk) {
            Ok(core) if core.verify().unwrap().faults.is_empty() => continue,
            Ok(_) => {}
            // A root that cannot be rebuilt.
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::Corrupt, "round {round}");
                continue;
            }
        }
        let audit = repair(&disk, &format!("round {round}"));
        dropped += 13 - audit.blocks;
        download(&disk, &whole);
    }
    assert!(dropped > rounds / 2);
}

#[test]
fn block_with_flipped_bit_is_dropped_alone() {
    let _watchdog = watchdog();
    let whole = image_of(8);
    let mut at = 0;
    for index in 0..8 {
        let mut image = whole.clone();
        image.get_mut("data").unwrap()[at] ^= 0x10;
        let disk = Recorder::new(image);
        let audit = repair(&disk, "a flipped bit");
        assert_eq!((audit.faults, audit.blocks), (vec![Fault::Block(index)], 7));
        let size = block(index).len();
        assert!(disk.image()["data"][at..at + size].iter().all(|&b| b == 0), "its space is freed");
        download(&disk, &whole);
        assert!(disk.image()["data"] == whole["data"]);
        at += size;
    }
}

#[test]
fn bits_of_missing_blocks_are_cleared() {
    let _watchdog = watchdog();
    let whole = image_of(12);
    // A reader has two blocks, and its bitfield claims all of them.
    let disk = Recorder::new(Image::new());
    let reader = Hypercore::options().key(pair(1).public_key()).open_in(disk.clone()).unwrap();
    let peer = open(&Recorder::new(whole.clone())).unwrap();
    let (here, there) = pipe();
    let ours = reader.replicate(here, Role::Initiator).unwrap();
    let _theirs = peer.replicate(there, Role::Responder).unwrap();
    reader.get(2).unwrap();
    reader.get(9).unwrap();
    ours.close();
    reader.close().unwrap();
    let mut image = disk.image();
    let bits = image.get_mut("bitfield").unwrap();
    (bits[0], bits[1]) = (0xff, 0xff);
    let disk = Recorder::new(image);
    let audit = repair(&disk, "bits without blocks");
    assert_eq!(audit.blocks, 2);
    let core = open(&disk).unwrap();
    let held: Vec<u64> = (0..12).filter(|&index| core.has(index).unwrap()).collect();
    assert_eq!(held, [2, 9]);
    assert_eq!(core.contiguous_length().unwrap(), 0);
    core.close().unwrap();
    drop((core, peer));
    download(&disk, &whole);
}

#[test]
fn wrong_contiguous_length_is_reported_and_fixed() {
    for (stored, faults) in [(9, vec![Fault::ContiguousLength(9)]), (2, vec![Fault::ContiguousLength(2)]), (0, vec![])]
    {
        let disk = Recorder::new(image_of(6));
        let core = open(&disk).unwrap();
        core.clear(4..5).unwrap();
        core.close().unwrap();
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        let read = |stored: Option<u64>| {
            let file = storage.open("oplog", Access::Write).unwrap().unwrap();
            let (mut oplog, recovered) = Oplog::open(&storage, file).unwrap();
            let mut header = recovered.unwrap().header;
            if let Some(stored) = stored {
                header.contiguous_length = stored;
                oplog.flush(&header, false).unwrap();
            }
            header.contiguous_length
        };
        assert_eq!(read(None), 4);
        read(Some(stored));
        let core = open(&disk).unwrap();
        assert_eq!(core.contiguous_length().unwrap(), 4, "the stored length is not used");
        assert_eq!(found(&core), faults);
        assert_eq!(core.repair().unwrap().faults, faults);
        assert_eq!(found(&core), []);
        core.close().unwrap();
        assert_eq!(read(None), 4);
    }
}

#[test]
fn interrupted_repair_is_finished_by_next_one() {
    let _watchdog = watchdog();
    let whole = image_of(13);
    let mut image = whole.clone();
    let tree = image.get_mut("tree").unwrap();
    [(7, 0), (8, 1), (16, 0), (18, 2), (24, 3)].into_iter().for_each(|(index, way)| damage(tree, index, way));
    image.get_mut("data").unwrap()[40] ^= 1;
    let disk = Recorder::recording(image.clone());
    let core = open(&disk).unwrap();
    core.repair().unwrap();
    core.close().unwrap();
    let calls = disk.calls();
    let mut replay = Replay::new(&image, &calls);
    let mut random = Random::new(1);
    let mut states = BTreeMap::new();
    loop {
        let seeds: Vec<Cut> = (0..tries(20)).map(|_| Cut::Seed(random.next())).collect();
        for cut in [&[Cut::Killed { torn: None }, Cut::Killed { torn: Some(50) }], seeds.as_slice()].concat() {
            let disk = Recorder::new(replay.image(cut));
            let core = open(&disk).unwrap();
            core.repair().unwrap();
            let audit = core.verify().unwrap();
            assert_eq!(audit.faults, [], "after {} calls, {cut:?}", replay.position());
            *states.entry(audit.blocks).or_insert(0) += 1;
            core.close().unwrap();
        }
        if !replay.step() {
            break;
        }
    }
    assert_eq!(states.len(), 1, "all ends drop the same blocks: {states:?}");
}
