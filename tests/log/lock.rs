//! A core has one writer: another open is refused with a hint at the owner of the lock, or is read-only and
//! changes nothing.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use hypercore::{ErrorKind, GetOptions, Hypercore, Memory, SessionOptions};

use crate::common::machine::program;
use crate::common::{files_of, kind, watchdog};

const DIR: &str = "HYPERCORE_TEST_LOCK_DIR";

/// The other process of the tests below. Without its variable it does nothing.
#[test]
#[ignore = "run by the tests of this module in a process of its own"]
fn helper_process() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let core = Hypercore::open(dir).unwrap();
    core.append("from the other process").unwrap();
    let say = |what: &str| {
        println!("\nsays {what}");
        std::io::stdout().flush().unwrap();
    };
    say("open");
    for line in std::io::stdin().lines() {
        match line.unwrap().as_str() {
            "append" => drop(core.append("more").map(|a| a.length).unwrap()),
            "truncate" => drop(core.truncate(1).unwrap()),
            "flush" => core.flush().unwrap(),
            _ => break,
        }
        say("done");
    }
    core.close().unwrap();
    say("closed");
}

struct Other {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Other {
    fn start(dir: &Path) -> Self {
        let mut child = program(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "lock::helper_process"])
            .env(DIR, dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut other = Other { child, input, output };
        assert_eq!(other.hear(), "open");
        other
    }

    fn hear(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "the other process ended");
            if let Some(what) = line.trim().strip_prefix("says ") {
                return what.to_owned();
            }
        }
    }

    fn tell(&mut self, what: &str) -> String {
        writeln!(self.input, "{what}").unwrap();
        self.hear()
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn assert_locked(dir: &Path) {
    let error = Hypercore::open(dir).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert_eq!(error.path(), Some(&*dir.join("oplog")));
    let text = error.to_string();
    // The error names the remedies, and the tool that finds the process.
    assert!(text.contains("process") && text.contains("read-only") && text.contains("fuser"), "{text}");
    let io: std::io::Error = error.into();
    assert_eq!(io.kind(), std::io::ErrorKind::ResourceBusy);
}

#[test]
fn open_of_core_held_by_another_process_fails() {
    let _watchdog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let mut other = Other::start(dir.path());
    assert_locked(dir.path());
    assert_eq!(kind(Hypercore::options().overwrite(true).open(dir.path())), ErrorKind::Locked);
    assert_eq!(other.tell("append"), "done");
    assert_locked(dir.path());
    assert_eq!(other.tell("close"), "closed");
    let core = Hypercore::open(dir.path()).unwrap();
    assert_eq!(core.len(), 2);
}

#[test]
fn killed_process_releases_lock_and_loses_nothing() {
    let _watchdog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let mut other = Other::start(dir.path());
    assert_eq!(other.tell("append"), "done");
    drop(other);
    let core = Hypercore::open(dir.path()).unwrap();
    assert_eq!((core.len(), core.get(1).unwrap()), (2, b"more".to_vec()));
    assert!(core.verify().unwrap().faults.is_empty());
}

#[test]
fn read_only_open_of_core_held_by_writer_changes_nothing() {
    let _watchdog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let mut other = Other::start(dir.path());
    for command in ["append", "flush", "append", "truncate", "append", "append"] {
        assert_eq!(other.tell(command), "done");
        let before = files_of(dir.path());
        let reader = Hypercore::options().read_only(true).open(dir.path()).unwrap();
        assert!(!reader.writable() && reader.readable());
        assert_eq!(reader.get(0).unwrap(), b"from the other process");
        for index in 1..reader.len() {
            assert_eq!(reader.get(index).unwrap(), b"more");
        }
        for refused in [
            reader.append("x").map(drop),
            reader.truncate(0).map(drop),
            reader.clear(0..1).map(drop),
            reader.set_user_data("a", "b"),
            reader.flush(),
            reader.purge(),
            reader.repair().map(drop),
        ] {
            assert_eq!(kind(refused), ErrorKind::NotWritable);
        }
        assert!(reader.verify().unwrap().faults.is_empty());
        let second = Hypercore::options().read_only(true).open(dir.path()).unwrap();
        assert_eq!(second.len(), reader.len());
        reader.close().unwrap();
        assert!(files_of(dir.path()) == before, "{command}");
    }
    // A read-only open does not lock out a writer.
    let reader = Hypercore::options().read_only(true).open(dir.path()).unwrap();
    assert_eq!((reader.len(), reader.fork()), (3, 1));
    assert_eq!(other.tell("close"), "closed");
    let writer = Hypercore::open(dir.path()).unwrap();
    writer.append("x").unwrap();
    assert_eq!(reader.len(), 3);
    assert_eq!(reader.get_with(3, GetOptions::new().wait(false)).unwrap(), None);
}

#[test]
fn open_without_lock_of_core_held_by_writer_succeeds() {
    let _watchdog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let mut other = Other::start(dir.path());
    let core = Hypercore::options().lock(false).open(dir.path()).unwrap();
    assert_eq!(core.len(), 1);
    core.close().unwrap();
    assert_eq!(other.tell("close"), "closed");
}

#[test]
fn second_open_in_same_process_fails() {
    let dir = tempfile::tempdir().unwrap();
    let core = Hypercore::open(dir.path()).unwrap();
    core.append("x").unwrap();
    let session = core.session(SessionOptions::new()).unwrap();
    assert_locked(dir.path());
    core.close().unwrap();
    assert_locked(dir.path());
    // Opening and closing the files for reading must not release the lock.
    drop(Hypercore::options().read_only(true).open(dir.path()).unwrap());
    session.info(hypercore::InfoOptions::new().storage(true)).unwrap();
    assert_locked(dir.path());
    session.close().unwrap();
    assert_eq!(Hypercore::open(dir.path()).unwrap().len(), 1);

    let memory = Memory::new();
    let core = Hypercore::options().open_in(memory.clone()).unwrap();
    assert_eq!(kind(Hypercore::options().open_in(memory.clone())), ErrorKind::Locked);
    drop(core);
    assert!(Hypercore::options().open_in(memory).is_ok());
}

#[test]
fn open_of_locked_core_changes_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let core = Hypercore::open(dir.path()).unwrap();
    core.append_batch(["a", "b"]).unwrap();
    let before = files_of(dir.path());
    assert_locked(dir.path());
    assert_eq!(kind(Hypercore::options().overwrite(true).open(dir.path())), ErrorKind::Locked);
    assert!(files_of(dir.path()) == before);
}

#[test]
fn purge_after_oplog_was_replaced_deletes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let core = Hypercore::open(dir.path()).unwrap();
    core.append("of the old core").unwrap();
    core.flush().unwrap();
    std::fs::remove_file(dir.path().join("oplog")).unwrap();
    let next = Hypercore::options().overwrite(true).open(dir.path()).unwrap();
    next.append("of the next core").unwrap();
    let before = files_of(dir.path());
    let error = core.purge().unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::StorageConflict, Some(&*dir.path().join("oplog"))));
    assert!(files_of(dir.path()) == before);
    assert_eq!(next.get(0).unwrap(), b"of the next core");
}
