//! A file that another program cuts while the command reads it through a memory map: an error in one line, and no
//! signal.

use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::process::{Child, Stdio};

use hypercore::net::Role;
use hypercore::{Download, Hypercore, Memory};

use crate::support::{Place, Ran, watch};

/// More than the command and the pipe to us have room for.
const BLOCKS: u64 = 20_000;

fn block(index: u64) -> String {
    format!("{index:100}")
}

/// The core `log`, all of it in its files.
fn make(place: &Place) {
    let core = place.open("log");
    core.append_batch((0..BLOCKS).map(block)).unwrap();
    core.flush().unwrap();
    core.close().unwrap();
}

fn cut(place: &Place, name: &str) {
    fs::OpenOptions::new().write(true).open(place.path("log").join(name)).unwrap().set_len(0).unwrap();
}

/// `line`, which writes all blocks, after it wrote some, and with `tree` cut.
fn cat(place: &Place, line: &str) -> Child {
    let mut child = place.command(line).spawn().unwrap();
    // What comes in one piece with it is enough to have read through maps.
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 100]).unwrap();
    cut(place, "tree");
    child
}

#[test]
fn cat_of_a_tree_that_is_cut_says_so_and_exits_1() {
    let place = Place::new();
    let _watchdog = watch("cat");
    make(&place);
    let ran = Ran::of("cat log", cat(&place, "cat log"));
    let line = ran.error_line();
    // Where a new window is made over the file, its length tells.
    let by_length = line.starts_with("log/tree: ") && line.contains("another program cut it");
    let by_signal = line.contains("cut by another program") && line.contains("disk failed");
    assert!(by_length || (by_signal && line.contains("memory map") && line.contains("--no-map")), "{line}");
    // What was written until then is right.
    let expected: String = (0..BLOCKS).map(block).collect();
    assert!(expected.as_bytes()[100..].starts_with(&ran.out));
}

#[test]
fn cat_without_maps_of_a_tree_that_is_cut_names_the_file() {
    let place = Place::new();
    let _watchdog = watch("cat");
    make(&place);
    let line = Ran::of("cat log", cat(&place, "cat log --no-map")).error_line();
    assert!(line.starts_with("log/tree: ") && line.contains("another program cut it"), "{line}");
}

#[test]
fn cat_of_a_tree_that_is_cut_exits_1_though_nobody_reads_standard_error() {
    let place = Place::new();
    let _watchdog = watch("cat");
    make(&place);
    let mut child = place.command("cat log").stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 100]).unwrap();
    cut(&place, "tree");
    assert_eq!(Ran::of("cat log", child).code, Some(1));
}

/// There it is not the main thread that reads.
#[test]
fn serve_of_a_tree_that_is_cut_says_so_and_exits_1() {
    let place = Place::new();
    let _watchdog = watch("serve");
    make(&place);
    let mut child = place.command("serve log").spawn().unwrap();
    let mut said = Vec::new();
    while said.last() != Some(&b'\n') {
        let mut byte = [0];
        child.stdout.as_mut().unwrap().read_exact(&mut byte).unwrap();
        said.push(byte[0]);
    }
    let address = String::from_utf8(said).unwrap().trim_start_matches("listening ").trim().to_owned();
    let key = hypercore::KeyPair::from_seed(&crate::support::SEED).public_key();
    let copy = Hypercore::options().key(key).open_in(Memory::new()).unwrap();
    let _replication = copy.replicate(TcpStream::connect(address).unwrap(), Role::Initiator).unwrap();
    for index in 0..500 {
        assert_eq!(copy.get(index).unwrap(), block(index).as_bytes());
    }
    cut(&place, "tree");
    let _download = copy.download(Download::range(500..BLOCKS)).unwrap();
    let line = Ran::of("serve log", child).error_line();
    assert!(line.contains("memory map"), "{line}");
}

#[test]
fn command_that_maps_nothing_starts_no_thread_for_it() {
    let place = Place::new();
    place.core("log", (0..BLOCKS).map(block));
    for (line, threads) in [("cat log", 2), ("cat log --no-map", 1), ("cat log --read-only", 1)] {
        let mut child = place.command(line).spawn().unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0; 100]).unwrap();
        let found = fs::read_dir(format!("/proc/{}/task", child.id())).unwrap().count();
        assert!(found == threads || crate::machine::SLOW, "{line}: {found} threads");
        Ran::of(line, child).ok_bytes();
    }
}
