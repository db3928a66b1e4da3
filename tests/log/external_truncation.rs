//! Another program truncates a file of an open core: each call returns the right answer or an error that names the
//! file. If the file is mapped into memory, which `map_limit(0)` prevents, SIGBUS may end the process instead.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Output, Stdio};

use hypercore::{Durability, ErrorKind, Hypercore, InfoOptions, Result};

use crate::common::machine::{SLOW, program};
use crate::common::{pair, watchdog};

/// The variable with the orders of a child: `<file> <new length> <maps|files> <directory>`.
const ORDERS: &str = "HYPERCORE_TEST_CUT";
const BLOCKS: u64 = 5_000;
const SIGBUS: i32 = if cfg!(target_os = "linux") { 7 } else { 10 };

fn block(index: u64) -> Vec<u8> {
    format!("{index:100}").into_bytes()
}

#[test]
#[ignore = "run by the tests of this module in a process of its own"]
fn helper_process() {
    let orders = std::env::var(ORDERS).expect("only the tests of this file run this");
    let mut words = orders.splitn(4, ' ');
    let mut word = || words.next().unwrap();
    let (file, len, maps, dir) = (word(), word().parse().unwrap(), word() == "maps", Path::new(word()));
    let options = Hypercore::options().key_pair(pair(1)).durability(Durability::None);
    let core = if maps { options } else { options.map_limit(0) }.open(dir).unwrap();
    for index in (0..BLOCKS).step_by(9) {
        assert!(core.has(index).unwrap());
        assert_eq!(core.get(index).unwrap(), block(index));
    }
    core.set_user_data("a", "b").unwrap();
    // Not through the core, as another program would do it.
    fs::OpenOptions::new().write(true).open(dir.join(file)).unwrap().set_len(len).unwrap();

    let is_fine = |what: &str, answer: Result<bool>| match answer {
        Ok(is_right) => assert!(is_right, "{what} gives a wrong answer"),
        Err(error) => {
            let is_named = error.path().is_some_and(|path| path.ends_with(file)) || error.kind() == ErrorKind::Failed;
            assert!(is_named && error.to_string().contains(file), "{what}: {error:?}");
            println!("{what}: {error}");
        }
    };
    for round in 0..2 {
        for index in (0..BLOCKS).step_by(7) {
            is_fine("get", core.get(index).map(|found| found == block(index)));
            is_fine("has", core.has(index));
        }
        is_fine("has_range", core.has_range(0..BLOCKS));
        is_fine("held_from", core.held_from(0).map(|held| held == Some(0..core.len())));
        is_fine("contiguous_length", core.contiguous_length().map(|length| length == core.len()));
        is_fine("seek", core.seek(77 * 100 + 5).map(|found| found == (77, 5)));
        is_fine("tree_hash_at", core.tree_hash_at(BLOCKS / 2 + 1).map(|_| true));
        is_fine("info", core.info(InfoOptions::new().storage(true)).map(|info| info.length == core.len()));
        let sees = |faults: usize| faults > 0 || file == "oplog";
        is_fine("verify", core.verify().map(|audit| sees(audit.faults.len())));
        is_fine("append", core.append(block(core.len())).map(|appended| appended.length == BLOCKS + 1 + round));
        is_fine("set_user_data", core.set_user_data("a", "c").map(|()| true));
        is_fine("clear", core.clear(BLOCKS - 2..BLOCKS - 1).map(|_| file != "oplog"));
        is_fine("flush", core.flush().map(|()| false));
        is_fine("truncate", core.truncate(100).map(|_| false));
        is_fine("release_files", core.release_files().map(|()| false));
    }
    is_fine("close", core.close().map(|()| true));
}

/// The output of a child for which `file` was truncated to `part` percent while it had the core open.
fn run(file: &str, part: u64, maps: bool) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let core = Hypercore::options().key_pair(pair(1)).open(dir.path()).unwrap();
    core.append_batch((0..BLOCKS).map(block)).unwrap();
    core.close().unwrap();
    let len = fs::metadata(dir.path().join(file)).unwrap().len() / 100 * part;
    let mut command = program(std::env::current_exe().unwrap());
    command.args(["external_truncation::helper_process", "--exact", "--ignored", "--nocapture"]);
    command.env(ORDERS, format!("{file} {len} {} {}", if maps { "maps" } else { "files" }, dir.path().display()));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap()
}

fn said(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn read_of_shortened_file_without_maps_is_error_without_signal() {
    let _watchdog = watchdog();
    for file in ["tree", "bitfield", "data", "oplog"] {
        for part in [0, 50] {
            let output = run(file, part, false);
            assert!(output.status.success(), "{file} cut to {part} %: {}", said(&output));
            let said = said(&output);
            assert!(said.contains("another program cut it"), "{file} cut to {part} %: {said}");
        }
    }
}

#[test]
fn read_of_emptied_file_with_maps_is_sigbus_and_of_shortened_one_error() {
    let _watchdog = watchdog();
    for file in ["tree", "bitfield", "data", "oplog"] {
        for part in [0, 50] {
            let output = run(file, part, true);
            let says = || format!("{file} cut to {part} %: {} {}", output.status, said(&output));
            // A read through the map of an emptied file raises SIGBUS; a file cut in half gives errors.
            let is_emptied_map = matches!(file, "tree" | "bitfield") && part == 0;
            let died = is_emptied_map && output.status.signal() == Some(SIGBUS);
            assert!(died || output.status.success(), "{}", says());
            // With the small map windows of 32-bit systems, the length of the file may reveal the cut first.
            assert!(died == is_emptied_map || SLOW, "{}", says());
        }
    }
}
