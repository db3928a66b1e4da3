//! After a power cut, a writer still has each head that a peer heard of, or has a higher fork. So the writer never
//! signs two histories for one fork, and the peer (here: the witness) can follow it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use hypercore::net::{Replication, Role, pipe};
use hypercore::{Download, Durability, ErrorKind, Hypercore, Memory};

use super::scenario::random_blocks;
use super::{fetch, opening, run_scenarios};
use crate::common::machine::{limit, tries};
use crate::common::powercut::{Call, Cut, Image, Recorder, Replay};
use crate::common::{Random, pair, patient_watchdog};

/// The blocks of the log at each fork.
type Forks = BTreeMap<u64, Vec<Vec<u8>>>;

/// The state of the witness when it heard of a change.
#[derive(Clone, Debug)]
struct Heard {
    /// How many calls the disks of the writer and of the witness had recorded by then.
    writer: usize,
    witness: usize,
    fork: u64,
    length: u64,
    /// The block that arrived, if one did.
    block: Option<u64>,
}

/// From whom the witness hears.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    FromTheWriter,
    FromAReaderThatPassesOn,
}

fn open_witness(disk: Recorder) -> Hypercore {
    let options = Hypercore::options().key(pair(1).public_key()).durability(Durability::None);
    options.timeout(limit(20)).open_in(disk).unwrap()
}

fn connect(a: &Hypercore, b: &Hypercore) -> (Replication, Replication) {
    let (here, there) = pipe();
    (a.replicate(here, Role::Initiator).unwrap(), b.replicate(there, Role::Responder).unwrap())
}

/// Lets the witness fetch the last block.
fn hear(witness: &Hypercore, writer: &Hypercore) {
    let last = writer.len() - 1;
    loop {
        match witness.get(last) {
            Ok(_) => return,
            Err(e) if e.kind() == ErrorKind::SnapshotNotAvailable => {}
            Err(e) => panic!(
                "{e}: the writer has length {} of fork {}, the witness length {} of fork {}",
                writer.len(),
                writer.fork(),
                witness.len(),
                witness.fork()
            ),
        }
    }
}

/// The recorded calls of both disks, and what the witness heard meanwhile.
struct Scenario {
    base: Image,
    calls: Vec<Call>,
    witness_base: Image,
    witness_calls: Vec<Call>,
    heard: Vec<Heard>,
    forks: Forks,
}

impl Scenario {
    /// Runs random operations of a writer that opens `base` and a witness that opens `witness_base`. `forks` are the
    /// blocks so far.
    fn run(random: &mut Random, way: Way, base: Image, witness_base: Image, mut forks: Forks) -> Scenario {
        let disk = Recorder::recording(base.clone());
        let writer = opening(Durability::Flush).open_in(disk.clone()).unwrap();
        forks.entry(writer.fork()).or_default().truncate(writer.len() as usize);
        let witness_disk = Recorder::recording(witness_base.clone());
        let witness = open_witness(witness_disk.clone());
        let heard: Arc<Mutex<Vec<Heard>>> = Arc::default();
        let note = {
            let (core, heard, disk, witness_disk) =
                (witness.clone(), heard.clone(), disk.clone(), witness_disk.clone());
            Arc::new(move |block: Option<u64>| {
                // The witness heard of its present state before this callback, so the calls so far include it.
                let (fork, length) = (core.fork(), core.len());
                let (writer, witness) = (disk.position(), witness_disk.position());
                heard.lock().unwrap().push(Heard { writer, witness, fork, length, block });
            })
        };
        let (on_append, on_truncate, on_download) = (note.clone(), note.clone(), note.clone());
        let _subscriptions = [
            witness.on_append(move || on_append(None)),
            witness.on_truncate(move |_, _| on_truncate(None)),
            witness.on_download(move |block| on_download(Some(block.index))),
        ];
        // This append waits for no sync: the writer has no peers yet.
        let append = |random: &mut Random, forks: &mut Forks| {
            let blocks: Vec<Vec<u8>> = random_blocks(random).iter().map(|block| block.to_vec()).collect();
            writer.append_batch(&blocks).unwrap();
            forks.entry(writer.fork()).or_default().extend(blocks);
        };
        append(random, &mut forks);
        let between = (way == Way::FromAReaderThatPassesOn).then(|| {
            let options = Hypercore::options().key(pair(1).public_key()).timeout(limit(60));
            options.sparse(false).open_in(Memory::new()).unwrap()
        });
        let mut connections = vec![connect(&writer, between.as_ref().unwrap_or(&witness))];
        connections.extend(between.as_ref().map(|between| connect(between, &witness)));
        for _ in 0..9 {
            match random.below(9) {
                0..4 => append(random, &mut forks),
                4 if writer.len() > 1 => {
                    let length = random.below(writer.len());
                    let mut blocks = forks[&writer.fork()].clone();
                    blocks.truncate(length as usize);
                    forks.insert(writer.truncate(length).unwrap(), blocks);
                    append(random, &mut forks);
                }
                5 => writer.set_user_data("a", random.bytes(30)).unwrap(),
                6 => writer.flush().unwrap(),
                // Wait until the witness has the whole log.
                _ if !writer.is_empty() => hear(&witness, &writer),
                _ => {}
            }
        }
        if let (Some(last), 0) = (writer.len().checked_sub(1), random.below(2)) {
            assert!(last < writer.len());
            hear(&witness, &writer);
        }
        for (a, b) in connections {
            a.close();
            b.close();
        }
        let _ = witness.close();
        drop(between);
        writer.close().unwrap();
        let heard = heard.lock().unwrap().clone();
        Scenario { base, calls: disk.calls(), witness_base, witness_calls: witness_disk.calls(), heard, forks }
    }

    /// Cuts the power of the writer at every call, and returns the number of disk images.
    fn check(&self, name: &str, random: &mut Random, way: Way, again: bool) -> u64 {
        let mut images = 0;
        let mut replay = Replay::new(&self.base, &self.calls);
        loop {
            let position = replay.position();
            let heard: Vec<&Heard> = self.heard.iter().filter(|heard| heard.writer <= position).collect();
            let last = heard.iter().max_by_key(|heard| (heard.fork, heard.length, heard.witness));
            let cuts: Vec<Cut> = (0..replay.pending())
                .map(Cut::Prefix)
                .chain((0..if replay.pending() > 0 { 8 } else { 0 }).map(|_| Cut::Seed(random.next())))
                .collect();
            for cut in cuts {
                images += 1;
                let at = || format!("{name}, {way:?}, cut after {position} calls, {cut:?}; heard {last:?}");
                let image = replay.image(cut);
                let core =
                    match opening(Durability::Flush).create_if_missing(false).open_in(Recorder::new(image.clone())) {
                        Ok(core) => core,
                        Err(e) if e.kind() == ErrorKind::StorageEmpty && last.is_none() => continue,
                        Err(e) => panic!("{}: {e}", at()),
                    };
                let (fork, length) = (core.fork(), core.len());
                for heard in &heard {
                    let stands = fork > heard.fork || (fork == heard.fork && length >= heard.length);
                    assert!(stands, "{}: length {length} of fork {fork} is found, and a peer knows of {heard:?}", at());
                    // A callback may run late. A block of a fork that the witness has left by then is past its
                    // length, or is one that the writer must have anyway.
                    if let Some(block) = heard.block.filter(|&block| fork == heard.fork && block < heard.length) {
                        assert!(core.has(block).unwrap(), "{}: a peer has block {block}", at());
                    }
                }
                let was = &self.forks[&fork];
                assert!(length as usize <= was.len(), "{}: the log never had this length", at());
                let is_same = (0..length).all(|index| core.get(index).unwrap() == was[index as usize]);
                assert!(is_same, "{}: other blocks", at());
                drop(core);
                let Some(last) = last.filter(|_| images % 16 == 0) else { continue };
                let mut witness = Replay::new(&self.witness_base, &self.witness_calls);
                while witness.position() < last.witness {
                    witness.step();
                }
                let witness = witness.image(Cut::Killed { torn: None });
                if again && images % 128 == 0 {
                    let mut forks = self.forks.clone();
                    forks.retain(|&old, _| old <= fork);
                    let scenario = Scenario::run(random, way, image, witness, forks);
                    images += scenario.check(&at(), random, way, false);
                } else {
                    continues_without_conflict(image, witness, &at());
                }
            }
            if !replay.step() {
                return images;
            }
        }
    }
}

/// The writer appends after the power cut, and the witness follows without a conflict.
fn continues_without_conflict(image: Image, witness: Image, at: &str) {
    let writer = opening(Durability::Flush).create_if_missing(false).open_in(Recorder::new(image)).unwrap();
    writer.append("after the power came back").unwrap();
    let witness = open_witness(Recorder::new(witness));
    let conflicts = Arc::new(AtomicU64::new(0));
    let (ours, theirs) = (conflicts.clone(), conflicts.clone());
    let _subscriptions = [
        writer.on_conflict(move |_, _| _ = ours.fetch_add(1, Ordering::Relaxed)),
        witness.on_conflict(move |_, _| _ = theirs.fetch_add(1, Ordering::Relaxed)),
    ];
    let (tell, told) = mpsc::channel();
    let told_again = tell.clone();
    let _more =
        [witness.on_append(move || _ = tell.send(())), witness.on_truncate(move |_, _| _ = told_again.send(()))];
    let connection = connect(&writer, &witness);
    let watched = witness.download(Download::all()).unwrap();
    while (witness.fork(), witness.len()) != (writer.fork(), writer.len()) {
        let came = told.recv_timeout(limit(60));
        assert!(came.is_ok(), "{at}: the witness stays at length {} of fork {}", witness.len(), witness.fork());
    }
    drop(watched);
    let block = fetch(&witness, writer.len() - 1);
    assert_eq!(block, b"after the power came back", "{at}");
    assert_eq!(witness.tree_hash().unwrap(), writer.tree_hash().unwrap(), "{at}");
    assert_eq!(witness.verify().unwrap().faults, [], "{at}");
    connection.0.close();
    connection.1.close();
    assert_eq!(conflicts.load(Ordering::Relaxed), 0, "{at}");
}

#[test]
fn announced_head_survives_power_cut_of_writer() {
    let _watchdog = patient_watchdog();
    run_scenarios(0, tries(12_000), |number| {
        let mut random = Random::new(number + 4001);
        let way = if number % 3 == 2 { Way::FromAReaderThatPassesOn } else { Way::FromTheWriter };
        let scenario = Scenario::run(&mut random, way, Image::new(), Image::new(), Forks::new());
        scenario.check(&format!("witness {number}"), &mut random, way, true)
    });
}

/// A writer that was restored from an older copy downloads its later blocks from a peer. If it lost them again, it
/// would sign a second history.
#[test]
fn head_restored_from_peer_survives_power_cut() {
    let _watchdog = patient_watchdog();
    let disk = Recorder::new(Image::new());
    let writer = opening(Durability::Flush).open_in(disk.clone()).unwrap();
    writer.append_batch(["one", "two"]).unwrap();
    writer.flush().unwrap();
    let copy = disk.image();
    writer.append_batch(["three", "four"]).unwrap();
    let witness = open_witness(Recorder::new(Image::new()));
    let connection = connect(&writer, &witness);
    fetch(&witness, 3);
    connection.0.close();
    connection.1.close();
    drop(writer);

    let disk = Recorder::recording(copy.clone());
    let writer = opening(Durability::Flush).timeout(Duration::from_secs(60)).open_in(disk.clone()).unwrap();
    let connection = connect(&writer, &witness);
    assert_eq!(writer.get(3).unwrap(), b"four");
    let known = disk.position();
    connection.0.close();
    connection.1.close();
    writer.append("five").unwrap();
    std::mem::forget(writer);
    let calls = disk.calls();
    let mut replay = Replay::new(&copy, &calls);
    let mut random = Random::new(3);
    loop {
        let position = replay.position();
        for cut in (0..replay.pending()).map(Cut::Prefix).chain((0..20).map(|_| Cut::Seed(random.next()))) {
            let image = replay.image(cut);
            let core = opening(Durability::Flush).create_if_missing(false).open_in(Recorder::new(image)).unwrap();
            let length = core.len();
            assert!(position < known || length >= 4, "cut after {position} of {known} calls, {cut:?}: length {length}");
        }
        if !replay.step() {
            break;
        }
    }
}
