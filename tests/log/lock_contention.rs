//! The lock belongs to the file named `oplog`: processes that open, purge, overwrite and append
//! concurrently lose no acknowledged append.
//!
//! A journal beside the core lists the acknowledged changes. Each line is written under the lock of the core, so the
//! lines are in the order of the lock's owners, and each owner can compute from them which blocks the core must have.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Stdio};

use hypercore::{Durability, ErrorKind, Hypercore};

use crate::common::machine::{program, tries};
use crate::common::{Random, watchdog};

/// The variable with the orders of a child: `<number> <turns> <directory>`.
const ORDERS: &str = "HYPERCORE_TEST_HOLDER";
const CHILDREN: u64 = 4;
/// How often each child takes the lock.
const TURNS: u64 = 500;

#[test]
#[ignore = "run by the test of this module in a process of its own"]
fn helper_process() {
    let orders = std::env::var(ORDERS).expect("only the test of this file runs this");
    let mut words = orders.splitn(3, ' ');
    let mut word = || words.next().unwrap();
    let (number, turns, dir) = (word().parse().unwrap(), word().parse().unwrap(), Path::new(word()));
    let mut random = Random::new(number);
    for turn in 0..turns {
        take_turn(dir, &format!("{number}-{turn}"), &mut random);
    }
}

/// Takes the lock once, compares the core with the journal, and changes the core.
fn take_turn(dir: &Path, token: &str, random: &mut Random) {
    let overwrite = random.below(10) == 0;
    let options = Hypercore::options().durability(Durability::None).overwrite(overwrite);
    let core = loop {
        match options.clone().open(dir.join("core")) {
            Ok(core) => break core,
            Err(e) if e.kind() == ErrorKind::Locked => std::thread::yield_now(),
            Err(e) => panic!("{token}: {e}"),
        }
    };
    let mut journal = fs::OpenOptions::new().append(true).create(true).open(dir.join("journal")).unwrap();
    let mut acknowledge = |line: String| journal.write_all(format!("{line}\n").as_bytes()).unwrap();
    if overwrite {
        acknowledge("gone".into());
    }
    let (key, blocks) = expected(&fs::read_to_string(dir.join("journal")).unwrap());
    let found: Vec<String> = (0..core.len()).map(|i| String::from_utf8(core.get(i).unwrap()).unwrap()).collect();
    assert_eq!(found, blocks, "{token}: blocks that were acknowledged, and those that are here");
    assert!(key.is_none_or(|key| key == core.key().to_string()), "{token}: the key pair is another one");
    match random.below(3) {
        0 => {
            acknowledge("gone".into());
            core.purge().unwrap();
        }
        _ => {
            core.append(token).unwrap();
            acknowledge(format!("append {} {token}", core.key()));
            core.close().unwrap();
        }
    }
}

/// Key and blocks of the core after all changes of `journal`; None if the key may be any.
fn expected(journal: &str) -> (Option<String>, Vec<String>) {
    let (mut key, mut blocks) = (None, Vec::new());
    for line in journal.lines() {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["append", of, token] => {
                key = Some(of.to_owned());
                blocks.push(token.to_owned());
            }
            _ => (key, blocks) = (None, Vec::new()),
        }
    }
    (key, blocks)
}

#[test]
fn concurrent_purge_overwrite_and_append_lose_no_acknowledged_append() {
    let _watchdog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let start = |number: u64| -> Child {
        let mut command = program(std::env::current_exe().unwrap());
        command.args(["lock_contention::helper_process", "--exact", "--ignored", "--nocapture"]);
        command.env(ORDERS, format!("{number} {} {}", tries(TURNS), dir.path().display()));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let children: Vec<Child> = (0..CHILDREN).map(start).collect();
    let ended: Vec<_> = children.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    for output in ended {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
