//! Files with flipped bits, truncated or zeroed anywhere: each call returns an error or the right block, and a repair
//! drops damaged blocks only.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use hypercore::lowlevel::crypto::hash::Hash;
use hypercore::{Access, Durability, ErrorKind, Fault, GetOptions, Hypercore, Memory, Storage};

use crate::common::machine::one_in;
use crate::common::{pair, watchdog};

const FILES: [&str; 5] = ["oplog", "tree", "bitfield", "data", "header"];

/// The bytes of a core's files.
#[derive(Clone)]
struct Files([Option<Vec<u8>>; 5]);

impl Files {
    fn of(memory: &Memory) -> Self {
        Files(FILES.map(|name| {
            let file = memory.open(name, Access::Read).unwrap()?;
            let mut bytes = vec![0; file.len().unwrap() as usize];
            file.read_at(0, &mut bytes).unwrap();
            Some(bytes)
        }))
    }

    fn memory(&self) -> Memory {
        let memory = Memory::new();
        for (name, bytes) in FILES.iter().zip(&self.0) {
            if let Some(bytes) = bytes {
                memory.open(name, Access::Create).unwrap().unwrap().write_at(0, bytes).unwrap();
            }
        }
        memory
    }
}

/// A core to be damaged, and all states it ever had.
struct Victim {
    name: &'static str,
    encrypted: bool,
    files: Files,
    states: Vec<State>,
}

/// The state of a core at some time.
struct State {
    length: u64,
    fork: u64,
    tree_hash: Hash,
    blocks: Vec<Option<Vec<u8>>>,
}

impl State {
    fn of(core: &Hypercore) -> Self {
        State {
            length: core.len(),
            fork: core.fork(),
            tree_hash: core.tree_hash().unwrap(),
            blocks: blocks(core).into_iter().map(Result::unwrap).collect(),
        }
    }
}

fn blocks(core: &Hypercore) -> Vec<hypercore::Result<Option<Vec<u8>>>> {
    (0..core.len()).map(|index| core.get_with(index, GetOptions::new().wait(false))).collect()
}

/// Makes a core by `steps`, and notes its state after each.
fn victim(name: &'static str, encrypted: bool, steps: &[&dyn Fn(&Hypercore)]) -> Victim {
    let memory = Memory::new();
    let core = open(&memory, encrypted, true).unwrap();
    let mut states = vec![State::of(&core)];
    let mut files = Files::of(&memory);
    for step in steps {
        step(&core);
        states.push(State::of(&core));
        // The files that a killed process leaves: a close would flush them.
        files = Files::of(&memory);
    }
    Victim { name, encrypted, files, states }
}

fn open(memory: &Memory, encrypted: bool, create: bool) -> hypercore::Result<Hypercore> {
    let options = Hypercore::options().create_if_missing(create).durability(Durability::Flush);
    let options = if create { options.key_pair(pair(4)) } else { options };
    let options = if encrypted { options.encryption_key([6; 32]) } else { options };
    options.open_in(memory.clone())
}

fn victims() -> Vec<Victim> {
    let some = |from: u8, n: u8| (from..from + n).map(|i| vec![i + 1; usize::from(i % 4) * 5]).collect::<Vec<_>>();
    vec![
        victim("one block", false, &[&|core| _ = core.append("hello").unwrap(), &|core| core.flush().unwrap()]),
        victim(
            "flushed and not",
            false,
            &[
                &move |core| _ = core.append_batch(some(0, 7)).unwrap(),
                &|core| core.flush().unwrap(),
                &move |core| _ = core.append_batch(some(7, 4)).unwrap(),
                &|core| _ = core.clear(2..4).unwrap(),
                &|core| core.set_user_data("k", "v").unwrap(),
            ],
        ),
        victim(
            "cut, cleared, encrypted",
            true,
            &[
                &move |core| _ = core.append_batch(some(0, 9)).unwrap(),
                &|core| _ = core.truncate(6).unwrap(),
                &move |core| _ = core.append_batch(some(20, 3)).unwrap(),
                &|core| _ = core.clear(1..2).unwrap(),
                &|core| core.flush().unwrap(),
            ],
        ),
        victim(
            "a header of its own",
            false,
            &[
                &|core| core.set_user_data("big", vec![7; 4100]).unwrap(),
                &move |core| _ = core.append_batch(some(0, 3)).unwrap(),
                &|core| core.flush().unwrap(),
            ],
        ),
    ]
}

/// Damage to one file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Flip(usize),
    Cut(usize),
    Zero(usize, usize),
}

impl Damage {
    fn apply(self, bytes: &mut Vec<u8>) {
        match self {
            Damage::Flip(at) => bytes[at] ^= 1 << (at % 8),
            Damage::Cut(len) => bytes.truncate(len),
            Damage::Zero(from, to) => bytes[from..to].fill(0),
        }
    }
}

/// Damage at each byte: one bit flipped, the file truncated there, the byte zeroed if it is not zero, and ranges from
/// there on zeroed. A byte is dull if all bytes within 16 of it are zero; of the dull ones only each `nth` is
/// damaged. The flag says whether the place is dull.
fn damages(bytes: &[u8], nth: usize) -> Vec<(Damage, bool)> {
    let len = bytes.len();
    let mut out = Vec::new();
    for at in 0..len {
        let dull = bytes[at.saturating_sub(16)..(at + 16).min(len)].iter().all(|&byte| byte == 0);
        if !dull || at % nth == 0 {
            out.extend([(Damage::Flip(at), dull), (Damage::Cut(at), dull)]);
        }
        if bytes[at] != 0 {
            out.push((Damage::Zero(at, at + 1), false));
        }
        if at % 40 == 0 && !dull {
            out.extend([(Damage::Zero(at, (at + 40).min(len)), false), (Damage::Zero(at, len), false)]);
        }
    }
    out
}

#[test]
fn read_after_damage_at_any_byte_is_error_or_right_block() {
    let _watchdog = watchdog();
    // Long ranges of zeros are sampled, except in the core that has all five files.
    let all = |victim: &Victim| victim.files.0.iter().all(Option::is_some);
    let every = |victim: &Victim| if all(victim) { 1 } else { 61 };
    assert!(victims().iter().any(all));
    check_all(every, one_in(101));
}

#[test]
#[ignore = "a soak: every byte of every core, a minute or two"]
fn read_after_damage_at_every_byte_is_error_or_right_block() {
    check_all(|_| 1, 1);
}

/// A core, the index of the damaged file, and the damage with its dull flag; None: the file is missing.
type Case<'a> = (&'a Victim, usize, Option<(Damage, bool)>);

/// Checks each `step`th case of damage; of dull places only each `nth` is a case.
fn check_all(nth: impl Fn(&Victim) -> usize, step: usize) {
    let victims = victims();
    let mut cases: Vec<Case<'_>> = Vec::new();
    for victim in &victims {
        // The undamaged core has its last state.
        let core = open(&victim.files.memory(), victim.encrypted, false).unwrap();
        assert_eq!(core.tree_hash().unwrap(), victim.states.last().unwrap().tree_hash);
        assert_eq!(core.verify().unwrap().faults, []);
        for (at, bytes) in victim.files.0.iter().enumerate() {
            let Some(bytes) = bytes else { continue };
            cases.extend(damages(bytes, nth(victim)).into_iter().map(|damage| (victim, at, Some(damage))));
            cases.push((victim, at, None));
        }
    }
    let cases: Vec<_> = cases.into_iter().step_by(step).collect();
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, |n| n.get()) {
            scope.spawn(|| {
                while let Some((victim, at, damage)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let mut files = victim.files.clone();
                    match (damage, files.0[*at].as_mut()) {
                        (Some((damage, _)), Some(bytes)) => damage.apply(bytes),
                        _ => files.0[*at] = None,
                    }
                    let how = damage.map_or("missing".into(), |(damage, _)| format!("{damage:?}"));
                    let what = format!("{}: {}: {how}", victim.name, FILES[*at]);
                    check(victim, &files, &what, FILES[*at], damage.is_some_and(|(_, dull)| dull));
                }
            });
        }
    });
    eprintln!("{} kinds of damage", cases.len());
}

/// Checks a damaged core: its state, its blocks, and its repair. After damage at a `dull` place that caused no fault,
/// the repair is not checked.
fn check(victim: &Victim, files: &Files, what: &str, name: &str, dull: bool) {
    let only_data = name == "data";
    let memory = files.memory();
    let core = match open(&memory, victim.encrypted, false) {
        Ok(core) => core,
        Err(error) => {
            let kinds = [ErrorKind::Corrupt, ErrorKind::StorageEmpty];
            assert!(kinds.contains(&error.kind()), "{what}: {error:?}");
            assert!(error.path().is_some(), "{what}: {error:?} does not say where");
            assert!(!only_data, "{what}: {error:?}");
            return;
        }
    };
    let shown = (core.len(), core.fork(), core.tree_hash().unwrap());
    // The `header` file has no checksum: damage to fields that no signature covers cannot be noticed.
    let audit = core.verify().unwrap_or_else(|e| panic!("{what}: {e:?}"));
    if name == "header" && matches!(audit.faults[..], [Fault::Signature(_)]) {
        return;
    }
    let states: Vec<_> = victim.states.iter().filter(|s| (s.length, s.fork, s.tree_hash) == shown).collect();
    assert!(!states.is_empty(), "{what}: {} blocks on fork {}, a state it never had", shown.0, shown.1);
    let got = blocks(&core);
    for (index, block) in got.iter().enumerate() {
        if let Ok(Some(bytes)) = block {
            let right = states.iter().any(|s| s.blocks[index].as_ref() == Some(bytes));
            assert!(right, "{what}: block {index} has other data");
        }
    }
    if audit.faults.is_empty() {
        assert!(got.iter().all(Result::is_ok), "{what}: a block that cannot be read is no fault");
        // A cleared bit of the bitfield makes a block missing, which is no fault.
        assert_eq!(audit.blocks, got.iter().filter(|b| matches!(b, Ok(Some(_)))).count() as u64, "{what}");
    }
    if dull && audit.faults.is_empty() {
        return;
    }
    let readable: BTreeSet<usize> = (0..got.len()).filter(|&i| matches!(got[i], Ok(Some(_)))).collect();
    let repaired = core.repair().unwrap_or_else(|e| panic!("{what}: {e:?}"));
    assert_eq!(repaired.faults, audit.faults, "{what}");
    assert!(repaired.is_sound(), "{what}: {:?}", repaired.faults);
    assert_eq!(core.verify().unwrap().faults, [], "{what}, repaired");
    let after = blocks(&core);
    for (index, block) in after.iter().enumerate() {
        let block = block.as_ref().unwrap_or_else(|e| panic!("{what}: repaired, block {index}: {e:?}"));
        // Damage to `data` loses no other block.
        assert!(
            block.is_some() || !only_data || !readable.contains(&index),
            "{what}: block {index} was lost needlessly"
        );
        if block.is_some() {
            assert!(states.iter().any(|s| s.blocks[index] == *block), "{what}: repaired, block {index} has other data");
        }
    }
    core.append("it goes on").unwrap();
    core.close().unwrap();
    let core = open(&memory, victim.encrypted, false).unwrap();
    assert_eq!((core.len(), core.get(shown.0).unwrap()), (shown.0 + 1, b"it goes on".to_vec()), "{what}");
    assert_eq!(core.verify().unwrap().faults, [], "{what}, grown");
}
