//! Which blocks an open gives up after a crash, case by case; the modules of `crash` try all cases.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hypercore::{Durability, ErrorKind, Fault, Hypercore, KeyPair, Recovery};
use serde_json::Value;

use crate::common::powercut::{Call, Cut, Image, Kind, Recorder, Replay};
use crate::common::{Random, copy_of, files_of, hex, pair, unhex, watchdog};
use crate::crash::opening;

const LARGE: usize = 256 << 10;
const ALL: [Durability; 3] = [Durability::None, Durability::Flush, Durability::Always];

fn open(dir: &Path) -> Hypercore {
    Hypercore::options().create_if_missing(false).open(dir).unwrap()
}

fn change(file: PathBuf, f: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(&file).unwrap();
    f(&mut bytes);
    fs::write(file, bytes).unwrap();
}

/// Appends four large blocks and a small one, kills the process, and flips a bit of the first block.
fn flipped_bit_in_a_large_block(durability: Durability) {
    let dir = tempfile::tempdir().unwrap();
    let core = Hypercore::options().durability(durability).open(dir.path()).unwrap();
    let mut random = Random::new(2);
    let blocks: Vec<Vec<u8>> = (0..4).map(|_| random.bytes(LARGE)).collect();
    for block in &blocks {
        core.append(block).unwrap();
    }
    core.append("small").unwrap();
    let left = copy_of(dir.path());
    change(left.path().join("data"), |data| data[LARGE / 3] ^= 4);

    let core = open(left.path());
    assert_eq!((core.len(), core.recovery()), (5, None));
    assert_eq!(core.get(0).unwrap_err().kind(), ErrorKind::InvalidChecksum);
    for index in 1..4 {
        assert!(core.get(index).unwrap() == blocks[index as usize]);
    }
    assert_eq!(core.get(4).unwrap(), b"small");
    assert_eq!(core.verify().unwrap().faults, [Fault::Block(0)]);
    assert_eq!(core.append("goes on").unwrap().length, 6);
    assert_eq!(core.repair().unwrap().faults, [Fault::Block(0)]);
    assert!(!core.has(0).unwrap() && core.has_range(1..6).unwrap());
    core.close().unwrap();
    let core = open(left.path());
    assert_eq!((core.len(), core.fork(), core.get(5).unwrap()), (6, 0, b"goes on".to_vec()));
    assert_eq!(core.verify().unwrap().faults, []);
}

#[test]
fn flipped_bit_in_large_block_keeps_length() {
    ALL.into_iter().for_each(flipped_bit_in_a_large_block);
}

#[test]
fn lost_sectors_of_block_written_with_always_keep_length() {
    for cut in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let core = Hypercore::options().durability(Durability::Always).open(dir.path()).unwrap();
        let mut random = Random::new(3);
        (0..3).for_each(|_| _ = core.append(random.bytes(5000)).unwrap());
        let left = copy_of(dir.path());
        change(left.path().join("data"), |data| if cut { data.truncate(12_000) } else { data[11_264..12_288].fill(0) });
        let core = open(left.path());
        assert_eq!((core.len(), core.recovery()), (3, None));
        assert!(core.get(1).is_ok() && core.get(2).is_err());
        assert_eq!(core.verify().unwrap().faults, [Fault::Block(2)]);
        assert_eq!(core.append("goes on").unwrap().length, 4);
    }
}

#[test]
fn damaged_tree_node_with_sound_data_keeps_length() {
    for durability in ALL {
        let disk = Recorder::new(Image::new());
        let core = opening(durability).open_in(disk.clone()).unwrap();
        core.append_batch((0..11_usize).map(|i| vec![i as u8 + 1; i * 50])).unwrap();
        core.flush().unwrap();
        core.append_batch((0..3_usize).map(|i| vec![i as u8 + 20; 70])).unwrap();
        let image = disk.image();
        for at in (0..image["tree"].len()).step_by(40) {
            let node = &image["tree"][at..at + 40];
            if node.iter().all(|&byte| byte == 0) {
                continue;
            }
            for spoil in
                [|node: &mut [u8]| node.fill(0), |node: &mut [u8]| node[20] ^= 1, |node: &mut [u8]| node[0] ^= 8]
            {
                let mut image = image.clone();
                spoil(&mut image.get_mut("tree").unwrap()[at..at + 40]);
                let core = opening(durability).create_if_missing(false).open_in(Recorder::new(image)).unwrap();
                assert_eq!((core.len(), core.recovery()), (14, None), "{durability:?}: node {}", at / 40);
                core.repair().unwrap();
                assert_eq!(core.verify().unwrap().faults, []);
                // All nodes can be rebuilt from the blocks.
                assert!(core.has_range(0..14).unwrap(), "{durability:?}: node {}", at / 40);
                assert_eq!(core.append("goes on").unwrap().length, 15);
            }
        }
    }
}

#[test]
fn open_without_data_file_changes_no_file_and_later_open_finds_all_blocks() {
    for durability in ALL {
        for flushes in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let core = Hypercore::options().durability(durability).open(dir.path()).unwrap();
            core.append_batch(["one", "two"]).unwrap();
            if flushes {
                core.flush().unwrap();
            }
            core.append("three").unwrap();
            let left = copy_of(dir.path());
            let (data, away) = (left.path().join("data"), left.path().join("away"));
            fs::rename(&data, &away).unwrap();
            let before = files_of(left.path());
            let core = Hypercore::options().durability(durability).create_if_missing(false).open(left.path()).unwrap();
            assert_eq!((core.len(), core.recovery()), (3, None), "{durability:?}");
            assert!(core.get(0).is_err());
            core.close().unwrap();
            assert!(files_of(left.path()) == before, "{durability:?}: reads changed the files");
            fs::rename(&away, &data).unwrap();
            let core = open(left.path());
            for (index, block) in ["one", "two", "three"].iter().enumerate() {
                assert_eq!(core.get(index as u64).unwrap(), block.as_bytes(), "{durability:?}");
            }
            assert_eq!(core.verify().unwrap().faults, []);
        }
    }
}

#[test]
fn synced_clear_before_lost_or_damaged_append_is_kept() {
    for spoil in [
        |data: &mut Vec<u8>| data.truncate(1999),
        |data: &mut Vec<u8>| data[1990..2000].fill(0),
        |data: &mut Vec<u8>| {
            data[1995] ^= 1;
        },
    ] {
        let dir = tempfile::tempdir().unwrap();
        let core = Hypercore::options().durability(Durability::Flush).open(dir.path()).unwrap();
        core.append_batch((1..5).map(|i| [i; 497])).unwrap();
        core.append("x").unwrap();
        core.clear(1..2).unwrap();
        core.append("last").unwrap();
        core.append("of all").unwrap();
        let left = copy_of(dir.path());
        change(left.path().join("data"), |data| {
            assert_eq!(data.len(), 1999);
            // The last bytes are those of `last` and `of all`.
            data.resize(2000, 0);
            spoil(data);
            data.truncate(1999);
        });
        let core = open(left.path());
        let held: Vec<u64> = (0..core.len()).filter(|&index| core.has(index).unwrap()).collect();
        assert_eq!(held[..4], [0, 2, 3, 4]);
        assert!((2..5).all(|index| core.get(index).is_ok()));
        core.append("goes on").unwrap();
        assert!(!core.has(1).unwrap());
        core.close().unwrap();
        assert!(!open(left.path()).has(1).unwrap());
    }
}

#[test]
fn append_lost_in_power_cut_is_reported_until_log_grows_past_it() {
    let dir = tempfile::tempdir().unwrap();
    let core = Hypercore::options().durability(Durability::Flush).open(dir.path()).unwrap();
    core.append_batch(["first", "second"]).unwrap();
    core.append_batch(["lost", "as well"]).unwrap();
    core.append("and this").unwrap();
    let left = copy_of(dir.path());
    change(left.path().join("data"), |data| data.truncate(13));
    let before = files_of(left.path());
    let core = open(left.path());
    let told = core.recovery().unwrap();
    assert_eq!((told.from, told.to, told.blocks), (5, 2, 3));
    assert_eq!(told.missing, []);
    core.close().unwrap();
    assert!(files_of(left.path()) == before, "reads changed the files");
    for length in 3..=5 {
        let core = open(left.path());
        assert_eq!(core.recovery(), Some(told.clone()));
        assert_eq!(core.append("anew").unwrap().length, length);
        assert_eq!(core.recovery().is_some(), length < 5);
        core.close().unwrap();
    }
    assert_eq!(open(left.path()).recovery(), None);
    // After a truncate, no loss is reported.
    let core = open(left.path());
    core.truncate(1).unwrap();
    core.close().unwrap();
    assert_eq!(open(left.path()).recovery(), None);
}

#[test]
fn power_cut_after_killed_truncate_lists_no_absent_block_as_held() {
    let _watchdog = watchdog();
    let mut random = Random::new(8);
    for calls in 0..16 {
        let disk = Recorder::recording(Image::new());
        let core = opening(Durability::Flush).open_in(disk.clone()).unwrap();
        core.append_batch((1..5).map(|i| vec![i; 700])).unwrap();
        core.flush().unwrap();
        core.append_batch((5..8).map(|i| vec![i; 300])).unwrap();
        disk.die_after(Some(calls));
        let _ = core.truncate(2);
        std::mem::forget(core);
        disk.die_after(None);
        disk.unlock();
        let died = disk.position();
        let core = opening(Durability::Flush).open_in(disk.clone()).unwrap();
        assert!([2, 7].contains(&core.len()), "killed after {calls} calls: length {}", core.len());
        core.append("goes on").unwrap();
        core.close().unwrap();
        let all = disk.calls();
        let mut replay = Replay::new(&Image::new(), &all);
        loop {
            let cuts = (0..replay.pending()).map(Cut::Prefix).chain((0..12).map(|_| Cut::Seed(random.next())));
            for cut in cuts.filter(|_| replay.position() >= died).collect::<Vec<_>>() {
                let at =
                    || format!("killed after {calls} calls, then cut after {} of {died}, {cut:?}", replay.position());
                let options = opening(Durability::Flush).create_if_missing(false);
                let core =
                    options.open_in(Recorder::new(replay.image(cut))).unwrap_or_else(|e| panic!("{}: {e}", at()));
                assert!((0..core.len()).all(|index| core.has(index).unwrap() && core.get(index).is_ok()), "{}", at());
                assert_eq!(core.verify().unwrap().faults, [], "{}", at());
            }
            if !replay.step() {
                break;
            }
        }
    }
}

#[test]
fn append_with_failure_after_commit_point_succeeds() {
    for (kind, errno) in [(Kind::Sync, 5), (Kind::Sync, 28), (Kind::Write, 5)] {
        for asks in [false, true] {
            let disk = Recorder::recording(Image::new());
            let core = opening(Durability::Flush).open_in(disk.clone()).unwrap();
            core.append("first").unwrap();
            let appended = Arc::new(AtomicU64::new(0));
            let told = appended.clone();
            let subscription = core.on_append(move || _ = told.fetch_add(1, Ordering::SeqCst));
            // The batch is so large that a flush is due. Before it come three writes of blocks and the
            // write of the entry.
            let blocks = [vec![1_u8; 8 << 20], vec![2; 8 << 20]];
            let after = if kind == Kind::Write { 4 } else { 0 };
            disk.fail(Some(crate::common::powercut::Fault { kind, after, errno, stays: true }));
            let position = disk.position();
            assert_eq!(core.append_batch(&blocks).unwrap().length, 3, "{kind:?}");
            let entry = |call: &Call| matches!(call, Call::Write { name, offset: 8192.., .. } if name == "oplog");
            assert!(disk.calls()[position..].iter().any(entry) && !disk.failed().is_empty(), "{kind:?}");
            assert_eq!(appended.load(Ordering::SeqCst), 1, "{kind:?}");
            assert!(core.len() == 3 && core.get(2).unwrap() == blocks[1]);
            if asks {
                assert_eq!(core.append("next").unwrap_err().kind(), ErrorKind::Failed, "{kind:?}");
                assert_eq!(core.set_user_data("a", "b").unwrap_err().kind(), ErrorKind::Failed, "{kind:?}");
            }
            disk.fail(None);
            drop(subscription);
            // The close returns the failure if no other call did.
            assert_eq!(core.close().is_err(), !asks, "{kind:?}");
            let core = opening(Durability::Flush).create_if_missing(false).open_in(disk).unwrap();
            assert!(core.len() == 3 && core.get(1).unwrap() == blocks[0]);
            assert_eq!(core.append("next").unwrap().length, 4);
        }
    }
}

#[test]
fn user_data_too_large_is_refused_before_anything_is_committed() {
    let disk = Recorder::recording(Image::new());
    let core = opening(Durability::Flush).open_in(disk.clone()).unwrap();
    core.append("first").unwrap();
    core.set_user_data("a", [1; 5000]).unwrap();
    let position = disk.position();
    let error = core.set_user_data("b", vec![0; 256 << 20]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadArgument);
    assert_eq!(disk.position(), position, "nothing was written");
    assert_eq!(core.user_data("b"), None);
    core.append("second").unwrap();
    core.close().unwrap();
    let core = opening(Durability::Flush).create_if_missing(false).open_in(disk).unwrap();
    assert_eq!((core.len(), core.user_data("a").unwrap().len(), core.user_data("b")), (2, 5000, None));
}

#[test]
fn overwrite_leaves_no_old_secret_in_any_file() {
    for durability in ALL {
        for sizes in [&[40][..], &[40, 6000], &[6000, 40], &[6000, 9000, 7000], &[6000, 7000]] {
            let disk = Recorder::new(Image::new());
            let pair = KeyPair::from_seed(&Random::new(99).bytes(32).try_into().unwrap());
            let open = || Hypercore::options().durability(durability).key_pair(pair.clone());
            let core = open().open_in(disk.clone()).unwrap();
            let mut random = Random::new(7);
            let mut secrets = vec![pair.secret_key()[..32].to_vec()];
            for &size in sizes {
                let value = random.bytes(size);
                core.set_user_data("secret", &value).unwrap();
                core.append(random.bytes(30)).unwrap();
                secrets.push(value);
                core.flush().unwrap();
            }
            let value = random.bytes(64);
            core.set_user_data("last", &value).unwrap();
            secrets.push(value);
            let shown = |image: &Image| {
                let holds = |secret: &Vec<u8>, bytes: &Vec<u8>| {
                    let firsts: HashSet<&[u8]> = secret.chunks_exact(8).collect();
                    bytes.windows(8).any(|window| firsts.contains(window))
                };
                secrets.iter().filter(|secret| image.values().any(|bytes| holds(secret, bytes))).count()
            };
            assert!(shown(&disk.image()) >= 3, "{durability:?} {sizes:?}");
            core.close().unwrap();
            let core = Hypercore::options().durability(durability).key_pair(crate::common::pair(5)).overwrite(true);
            let core = core.open_in(disk.clone()).unwrap();
            assert_eq!(shown(&disk.image()), 0, "{durability:?} {sizes:?}");
            core.append("new").unwrap();
            core.close().unwrap();
            assert_eq!(shown(&disk.image()), 0, "{durability:?} {sizes:?}");
        }
    }
}

#[test]
fn open_with_stale_tree_finds_right_roots_or_is_error() {
    // The files at several times. Each is then opened with the tree of an earlier one.
    let disk = Recorder::new(Image::new());
    let core = opening(Durability::Flush).open_in(disk.clone()).unwrap();
    let mut images = Vec::new();
    let block = |i: u8| vec![i; 20 + usize::from(i)];
    for round in 0..4_u8 {
        core.append_batch((0..5).map(|i| block(10 * round + i))).unwrap();
        images.push((disk.image(), core.tree_hash().unwrap(), core.len()));
        core.flush().unwrap();
        images.push((disk.image(), core.tree_hash().unwrap(), core.len()));
        core.append(block(100 + round)).unwrap();
        core.set_user_data("a", [round]).unwrap();
        images.push((disk.image(), core.tree_hash().unwrap(), core.len()));
        core.truncate(2 + u64::from(round)).unwrap();
        images.push((disk.image(), core.tree_hash().unwrap(), core.len()));
    }
    let mut refused = 0;
    for (now, hash, length) in &images {
        for (then, ..) in &images {
            for loses_data in [false, true] {
                let mut image = now.clone();
                for name in ["tree", "data"].into_iter().take(1 + usize::from(loses_data)) {
                    match then.get(name) {
                        Some(bytes) => image.insert(name.into(), bytes.clone()),
                        None => image.remove(name),
                    };
                }
                let disk = Recorder::new(image.clone());
                match opening(Durability::Flush).create_if_missing(false).open_in(disk.clone()) {
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Corrupt);
                        assert!(error.path().is_some_and(|path| path.ends_with("tree")), "{error}");
                        assert!(disk.image() == image, "nothing was written");
                        refused += 1;
                    }
                    Ok(core) if core.recovery().is_some() => assert!(loses_data && core.len() < *length),
                    Ok(core) => {
                        // The roots were read or rebuilt, and are the signed ones.
                        assert_eq!((core.tree_hash().unwrap(), core.len()), (*hash, *length));
                        if core.append("goes on").is_ok() {
                            let audit = core.verify().unwrap();
                            assert!(audit.faults.iter().all(Fault::is_repairable), "{:?}", audit.faults);
                        }
                    }
                }
            }
        }
    }
    assert!(refused > 0);
}

/// Checks that a core whose oplog entries have no marks keeps its head, since peers may have seen it.
/// Returns the reported loss.
fn keeps_the_head(name: &str, dir: &Path, expected: &Value, damage: &str) -> Option<Recovery> {
    let at = format!("{name}, {damage}");
    let number = |field: &str| expected[field].as_u64().unwrap();
    let (length, fork) = (number("length"), number("fork"));
    let open = || {
        let options = Hypercore::options().create_if_missing(false).wait(false);
        match expected["encryptionKey"].as_str() {
            Some(key) => options.encryption_key(<[u8; 32]>::try_from(unhex(key)).unwrap()),
            None => options,
        }
        .open(dir)
        .unwrap_or_else(|e| panic!("{at}: {e}"))
    };
    let before = files_of(dir);
    let core = open();
    assert_eq!((core.len(), core.fork()), (length, fork), "{at}");
    let was_held = |index: u64| {
        let ranges = expected["held"].as_array().unwrap();
        ranges.iter().any(|range| (range[0].as_u64().unwrap()..range[1].as_u64().unwrap()).contains(&index))
    };
    let lost = core.recovery();
    let is_missing =
        |index: u64| lost.as_ref().is_some_and(|lost| lost.missing.iter().any(|range| range.contains(&index)));
    let mut bad = Vec::new();
    for index in 0..length {
        assert_eq!(core.has(index).unwrap(), was_held(index) && !is_missing(index), "{at}: block {index}");
        if core.has(index).unwrap() {
            match core.get(index) {
                Ok(block) => {
                    assert_eq!(expected["blocks"][index as usize], hex(&block), "{at}: block {index}");
                }
                Err(error) => {
                    let kinds = [ErrorKind::InvalidChecksum, ErrorKind::Corrupt];
                    assert!(kinds.contains(&error.kind()), "{at}: block {index}: {error:?}");
                    bad.push(Fault::Block(index));
                }
            }
        }
    }
    if let Some(lost) = &lost {
        assert_eq!((lost.from, lost.to), (length, length), "{at}: {lost:?}");
    }
    assert_eq!(core.verify().unwrap().faults, bad, "{at}");
    core.close().unwrap();
    assert!(files_of(dir) == before, "{at}: reads changed the files");
    if expected["writable"] == true && expected["manifest"]["quorum"].as_u64().unwrap_or(1) == 1 {
        let core = open();
        assert_eq!(core.append("goes on").unwrap().length, length + 1, "{at}");
        core.close().unwrap();
        let core = open();
        assert_eq!(
            (core.len(), core.fork(), core.get(length).unwrap()),
            (length + 1, fork, b"goes on".to_vec()),
            "{at}"
        );
        assert_eq!(core.recovery(), lost, "{at}: reported until the blocks are back");
        core.repair().unwrap();
        assert_eq!(core.verify().unwrap().faults, [], "{at}");
    }
    lost
}

#[test]
fn javascript_core_after_any_data_loss_keeps_head() {
    let mut reported = 0;
    for folder in ["js10", "old"] {
        let at = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(folder);
        let expected: Value = serde_json::from_slice(&fs::read(at.join("expected.json")).unwrap()).unwrap();
        for (name, expected) in expected.as_object().unwrap() {
            let end = expected["byteLength"].as_u64().unwrap() as usize;
            let encrypted = expected["encryptionKey"].is_string();
            if expected["held"].as_array().unwrap().is_empty() || end == 0 || encrypted {
                continue;
            }
            let unflushed = name.starts_with("torn-") && name != "torn-cut" || name.ends_with("unflushed");
            type Spoil = fn(&mut Vec<u8>, usize);
            let ways: [(&str, Spoil); 6] = [
                ("without its last byte", |data, end| data.truncate(end - 1)),
                ("without its last three bytes", |data, end| data.truncate(end.saturating_sub(3))),
                ("its last sector zeroed", |data, end| data[(end - 1) / 512 * 512..end].fill(0)),
                ("its last byte flipped", |data, end| data[end - 1] ^= 0x10),
                ("its first byte flipped", |data, _| data[0] ^= 0x10),
                ("as it was", |_, _| {}),
            ];
            for (what, spoil) in ways {
                let copy = copy_of(&at.join(name));
                change(copy.path().join("data"), |data| spoil(data, end));
                let lost = keeps_the_head(name, copy.path(), expected, what);
                if what.contains("flipped") || what == "as it was" {
                    assert_eq!(lost, None, "{name}, {what}");
                }
                if what.contains("last byte") && !what.contains("flipped") && unflushed {
                    let lost = lost.unwrap_or_else(|| panic!("{name}, {what}: no loss is reported"));
                    assert_eq!(
                        lost.missing.last().unwrap().end,
                        expected["length"].as_u64().unwrap(),
                        "{name}, {what}"
                    );
                    reported += 1;
                }
            }
            let copy = copy_of(&at.join(name));
            fs::remove_file(copy.path().join("data")).unwrap();
            let lost = keeps_the_head(name, copy.path(), expected, "without data");
            // Only the core of a reader reports all blocks as missing, since it can download them again.
            assert_eq!(lost.is_some(), expected["writable"] == false, "{name}, without data");
        }
    }
    assert!(reported >= 4, "{reported}");
}

#[test]
fn core_with_durability_none_after_data_loss_keeps_head() {
    let dir = tempfile::tempdir().unwrap();
    let core = Hypercore::options().durability(Durability::None).key_pair(pair(3)).open(dir.path()).unwrap();
    core.append_batch([[1; 600], [2; 600]]).unwrap();
    core.append([3; 600]).unwrap();
    core.append([4; 600]).unwrap();
    let left = copy_of(dir.path());
    change(left.path().join("data"), |data| {
        data[1536..2048].fill(0);
        data.truncate(2300);
    });
    let core = open(left.path());
    let lost = core.recovery().unwrap();
    assert_eq!((lost.from, lost.to, lost.blocks), (4, 4, 2));
    let missing = |lost: &Recovery| lost.missing.iter().map(|range| (range.start, range.end)).collect::<Vec<_>>();
    assert_eq!(missing(&lost), [(2, 4)]);
    assert_eq!(core.append("goes on").unwrap().length, 5);
    assert!(!core.has(2).unwrap() && core.get(1).unwrap() == [2; 600]);
    core.close().unwrap();
    let core = open(left.path());
    assert_eq!(missing(&core.recovery().unwrap()), [(2, 4)]);
    // Truncated blocks are not missing.
    core.truncate(2).unwrap();
    assert_eq!(core.recovery(), None);
}

#[test]
fn core_with_data_lost_after_close_keeps_length() {
    for durability in ALL {
        let dir = tempfile::tempdir().unwrap();
        let core = Hypercore::options().durability(durability).open(dir.path()).unwrap();
        core.append_batch([[1; 600], [2; 600]]).unwrap();
        core.close().unwrap();
        assert_eq!(fs::metadata(dir.path().join("oplog")).unwrap().len(), 8192, "{durability:?}");
        change(dir.path().join("data"), |data| data.truncate(900));
        let core = open(dir.path());
        assert_eq!((core.len(), core.recovery()), (2, None), "{durability:?}");
        assert!(core.get(0).is_ok() && core.get(1).is_err());
    }
}
