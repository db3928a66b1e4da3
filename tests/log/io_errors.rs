//! A call to the disk fails once, or from then on: the operation returns an error with the file, no acknowledged
//! change is lost, the core still reads and refuses to write, and the next open repairs it.

use hypercore::{Disk, Durability, Error, ErrorKind, Hypercore, OpenOptions, Result, Storage};

use crate::common::machine::SLOW;
use crate::common::powercut::{Fault, Image, Kind, Recorder};
use crate::common::{CallKind, Hooked, Random, pair};

const ENOSPC: i32 = 28;
const EIO: i32 = 5;
const EMFILE: i32 = 24;

fn opening(durability: Durability) -> OpenOptions {
    Hypercore::options().durability(durability).key_pair(pair(1))
}

/// Length, fork, blocks, and one value of user data.
type Shown = (u64, u64, Vec<Option<Vec<u8>>>, Option<Vec<u8>>);

fn shown(core: &Hypercore) -> Result<Shown> {
    let block = |index| if core.has(index)? { core.get(index).map(Some) } else { Ok(None) };
    Ok((core.len(), core.fork(), (0..core.len()).map(block).collect::<Result<_>>()?, core.user_data("a")))
}

type Operation = Box<dyn Fn(&Hypercore) -> Result<()>>;

fn operations() -> Vec<Operation> {
    let mut random = Random::new(5);
    let blocks: Vec<Vec<u8>> = (0..9).map(|i| random.bytes(i * 77)).collect();
    let (first, second) = (blocks.clone(), blocks[3..].to_vec());
    vec![
        Box::new(move |core| core.append_batch(&first).map(|_| ())),
        Box::new(|core| core.set_user_data("a", [7; 5000])),
        Box::new(|core| core.append("one").map(|_| ())),
        Box::new(|core| core.clear(2..5).map(drop)),
        Box::new(|core| core.release_files()),
        Box::new(|core| core.truncate(6).map(|_| ())),
        Box::new(move |core| core.append_batch(&second).map(|_| ())),
        Box::new(|core| core.set_user_data("a", [8; 6000])),
        Box::new(|core| core.release_files()),
        Box::new(|core| core.flush()),
        Box::new(|core| core.truncate(1).map(|_| ())),
        Box::new(|core| core.append("last").map(|_| ())),
    ]
}

/// The state before the first operation and after each.
fn expected() -> Vec<Shown> {
    let core = opening(Durability::None).open_in(Recorder::new(Image::new())).unwrap();
    let mut states = vec![shown(&core).unwrap()];
    for operation in operations() {
        operation(&core).unwrap();
        states.push(shown(&core).unwrap());
    }
    states
}

fn says_what_failed(error: &Error, disk: &Recorder, fault: Fault) {
    assert_eq!(error.kind(), ErrorKind::Io, "{fault:?}: {error}");
    assert_eq!(error.io_error().and_then(std::io::Error::raw_os_error), Some(fault.errno), "{fault:?}: {error}");
    let failed = disk.failed();
    let path = error.path().unwrap_or_else(|| panic!("{fault:?}: {error} names no file"));
    let is_of = |name: &String| path == disk.path(name) || (name.is_empty() && path.starts_with("disk"));
    assert!(failed.iter().any(is_of), "{fault:?} of {failed:?}: {error}");
}

/// Opens the core from `image` and checks that its state is one of `allowed`.
fn reopened(image: Image, allowed: &[&Shown], fault: Fault) {
    let core = match opening(Durability::Flush).create_if_missing(false).open_in(Recorder::new(image)) {
        Ok(core) => core,
        Err(e) => panic!("{fault:?}: {e}"),
    };
    let found = shown(&core).unwrap_or_else(|e| panic!("{fault:?}: {e}"));
    assert!(allowed.contains(&&found), "{fault:?}: length {} fork {}", found.0, found.1);
    assert_eq!(core.verify().unwrap().faults, [], "{fault:?}");
    core.append("more").unwrap();
    assert_eq!(core.get(found.0).unwrap(), b"more");
}

/// Runs all operations with `fault` and checks each state. Returns whether the fault occurred.
fn check_fault(durability: Durability, fault: Fault, expected: &[Shown]) -> bool {
    let disk = Recorder::new(Image::new());
    let core = opening(durability).open_in(disk.clone()).unwrap();
    disk.fail(Some(fault));
    for (i, operation) in operations().iter().enumerate() {
        let Err(error) = operation(&core) else { continue };
        // If the disk failed after a commit, the next call is refused with that reason.
        let either = if error.kind() == ErrorKind::Failed {
            assert!(error.to_string().contains(&format!("os error {}", fault.errno)), "{fault:?}: {error}");
            [&expected[i], &expected[i]]
        } else {
            says_what_failed(&error, &disk, fault);
            [&expected[i], &expected[i + 1]]
        };
        // A failed call that writes nothing does not poison the core. Neither does a failed punch: it loses
        // space only.
        let again = core.set_user_data("b", "x");
        if matches!(fault.kind, Kind::Write | Kind::SetLen | Kind::Sync) {
            assert_eq!(again.unwrap_err().kind(), ErrorKind::Failed, "{fault:?} at operation {i}");
            assert_eq!(core.append("x").unwrap_err().kind(), ErrorKind::Failed);
            assert_eq!(core.truncate(0).unwrap_err().kind(), ErrorKind::Failed);
            disk.fail(None);
            assert_eq!(core.clear(0..1).unwrap_err().kind(), ErrorKind::Failed, "it stays poisoned");
        }
        disk.fail(None);
        let seen = shown(&core).unwrap();
        assert!(either.contains(&&seen), "{fault:?} at operation {i}: readers see length {}", seen.0);
        reopened(disk.image(), &either, fault);
        let _ = core.close();
        reopened(disk.image(), &either, fault);
        return true;
    }
    let i = expected.len() - 1;
    let came = !disk.failed().is_empty();
    match core.close() {
        // The close returns a failure that came after the last commit, if no other call did.
        Ok(()) => {
            let is_told = !matches!(fault.kind, Kind::Write | Kind::SetLen | Kind::Sync);
            assert!(!came || is_told, "{fault:?} was not reported");
        }
        Err(error) if error.kind() == ErrorKind::Failed => assert!(came),
        Err(error) => says_what_failed(&error, &disk, fault),
    }
    let came = !disk.failed().is_empty();
    reopened(disk.image(), &[&expected[i]], fault);
    came
}

#[test]
fn failed_call_loses_no_acknowledged_change() {
    let expected = expected();
    let mut came = 0;
    for durability in
        [Durability::None, Durability::Flush, Durability::Always].into_iter().skip(if SLOW { 2 } else { 0 })
    {
        for (kind, errno) in [
            (Kind::Write, EIO),
            (Kind::Read, EIO),
            (Kind::SetLen, EIO),
            (Kind::Sync, EIO),
            (Kind::Sync, ENOSPC),
            (Kind::SyncDir, EIO),
            (Kind::Open, EMFILE),
            (Kind::Len, EIO),
            (Kind::Punch, EIO),
        ] {
            for stays in [false, true] {
                let mut after = 0;
                while check_fault(durability, Fault { kind, after, errno, stays }, &expected) {
                    after += 1;
                    came += 1;
                }
            }
        }
    }
    assert!(came > if SLOW { 50 } else { 500 }, "only {came} faults");
}

#[test]
fn change_on_full_disk_fails_and_later_change_succeeds() {
    let expected = expected();
    let (mut refused, mut ended) = (0, 0);
    for (durability, stays) in [(Durability::None, true), (Durability::Flush, false), (Durability::Flush, true)] {
        for after in 0.. {
            let disk = Recorder::new(Image::new());
            let core = opening(durability).open_in(disk.clone()).unwrap();
            let fault = Fault { kind: Kind::Write, after, errno: ENOSPC, stays };
            disk.fail(Some(fault));
            let mut done = 0;
            for (i, operation) in operations().iter().enumerate() {
                let Err(error) = operation(&core) else { continue };
                if error.kind() == ErrorKind::Failed {
                    disk.fail(None);
                    reopened(disk.image(), &[&expected[i]], fault);
                    ended += 1;
                    done = usize::MAX;
                    break;
                }
                says_what_failed(&error, &disk, fault);
                let in_oplog = disk.failed().contains(&"oplog".to_owned());
                disk.fail(None);
                assert_eq!(shown(&core).unwrap(), expected[i], "{fault:?} at operation {i}: something of it is left");
                match operation(&core) {
                    Ok(()) => refused += 1,
                    // A half-written header poisons the core. On a real disk its space is allocated, so it
                    // does not run out.
                    Err(error) => {
                        assert!(in_oplog && error.kind() == ErrorKind::Failed, "{fault:?} at operation {i}: {error}");
                        reopened(disk.image(), &[&expected[i], &expected[i + 1]], fault);
                        ended += 1;
                        done = usize::MAX;
                        break;
                    }
                }
                done = i + 1;
            }
            if done == usize::MAX {
                continue;
            }
            let last = expected.len() - 1;
            assert_eq!(shown(&core).unwrap(), expected[last], "{fault:?}");
            let came = !disk.failed().is_empty() || done > 0;
            disk.fail(None);
            // The close repeats a flush that found the disk full.
            core.close().unwrap();
            reopened(disk.image(), &[&expected[last]], fault);
            if !came {
                break;
            }
        }
    }
    assert!(refused > 40 && ended < refused, "{refused} refused, {ended} ended");
}

#[test]
fn open_after_failed_open_succeeds() {
    let made = Recorder::new(Image::new());
    let core = opening(Durability::None).open_in(made.clone()).unwrap();
    operations().iter().for_each(|operation| operation(&core).unwrap());
    let (state, image) = (shown(&core).unwrap(), made.image());
    let empty = (0, 0, vec![], None);
    let kinds = [Kind::Open, Kind::Len, Kind::Read, Kind::Write, Kind::SetLen, Kind::Sync, Kind::SyncDir];
    for (image, state) in [(image, &state), (Image::new(), &empty)] {
        for kind in kinds {
            let mut after = 0;
            loop {
                let fault = Fault { kind, after, errno: EIO, stays: false };
                let disk = Recorder::new(image.clone());
                disk.fail(Some(fault));
                let opened = opening(Durability::Flush).open_in(disk.clone());
                if disk.failed().is_empty() {
                    break;
                }
                if let Err(error) = opened {
                    says_what_failed(&error, &disk, fault);
                }
                disk.fail(None);
                let core = opening(Durability::Flush).open_in(Recorder::new(disk.image())).unwrap();
                assert_eq!(shown(&core).unwrap(), *state, "{fault:?}");
                after += 1;
            }
        }
    }
}

#[test]
fn purge_on_read_only_file_system_changes_nothing() {
    const EROFS: i32 = 30;
    for blocks in [0, 9] {
        for after in 0..4 {
            let disk = Recorder::new(Image::new());
            let core = opening(Durability::Flush).open_in(disk.clone()).unwrap();
            core.append_batch((0..blocks).map(|i| vec![i; 100])).unwrap();
            core.flush().unwrap();
            let before = disk.image();
            disk.fail(Some(Fault { kind: Kind::Remove, after, errno: EROFS, stays: true }));
            let purged = core.purge();
            if disk.failed().is_empty() {
                purged.unwrap();
                assert_eq!(disk.image(), Image::new());
                continue;
            }
            let error = purged.unwrap_err();
            says_what_failed(&error, &disk, Fault { kind: Kind::Remove, after, errno: EROFS, stays: true });
            match after {
                0 => assert!(disk.image() == before, "{error}"),
                // The remaining files are not a core any more.
                _ => assert!(disk.image()["oplog"].is_empty(), "{error}"),
            }
        }
    }
}

#[test]
fn file_that_cannot_be_mapped_is_read_without_map() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Hooked::new(Disk::new(dir.path()));
    // A file that is open for writing alone cannot be mapped for reading.
    let path = dir.path().to_owned();
    storage.set_std_file(move |name| std::fs::OpenOptions::new().write(true).open(path.join(name)).ok());
    let open = || opening(Durability::Flush).open_in(storage.clone()).unwrap();
    let expected = expected();
    let core = open();
    operations().iter().for_each(|operation| operation(&core).unwrap());
    core.close().unwrap();
    let core = open();
    // Often enough that the core would map the file.
    for _ in 0..50 {
        assert_eq!(shown(&core).unwrap(), *expected.last().unwrap());
    }
    assert_eq!(core.verify().unwrap().faults, []);
    // A file is mapped only after several reads in one place.
    (0..64).for_each(|_| assert_eq!(core.verify().unwrap().faults, []));
    assert!(storage.count(CallKind::AsStd) > 0, "no file was to be mapped");
}
