//! What stands in the files, beside what JavaScript Hypercore 10.38.2 writes for the same appends; and figures at the edges.

use std::fs;
use std::sync::Arc;

use hypercore::lowlevel::crypto::hash::hash;
use hypercore::lowlevel::oplog::Oplog;
use hypercore::{Access, Durability, GetOptions, Hypercore, KeyPair, MAX_BLOCK_SIZE, Memory, Repair, Storage};

use crate::common::hex;

fn filled(with: &[u8]) -> [u8; 32] {
    std::array::from_fn(|i| with[i % with.len()])
}

/// Ten thousand blocks of one byte, appended one by one. The reference's figures are the BLAKE2b of its files after it flushed.
#[test]
fn files_are_those_of_the_reference() {
    let bits = "a82e08db8b7ee15292da1a7d236229112db4205f39b7408b1ba94cdda5e74700";
    for (encrypted, data, tree, tree_hash) in [
        (
            false,
            "31ff06272d78ead9b15c724ff129664dfae00df7c93961d7af8b0f41e65e13a4",
            "6c50e3626be4932fc4336af742afa4d82faf5b338c14279ade2f1a9d5522bbf3",
            "a0a5afdf0ea54110be4d626913e214412f1127f5d19c3b7e8b46adf56e7911e5",
        ),
        (
            true,
            "72b0acc863b578d94e6ff6207169aaebbc500c274a08bbc730687fa78256b066",
            "1c6badf69aae8f28c83ebabd02130eaa536af30627fab626b921b8baa8d53921",
            "f347fc0229aa63da9ce377f7443d93cffbb5c7af593163c15f0d6a8611f2a675",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let options = Hypercore::options().key_pair(KeyPair::from_seed(&filled(b"seed"))).durability(Durability::None);
        let options = if encrypted { options.encryption_key(filled(b"encryption key")) } else { options };
        let core = options.open(dir.path()).unwrap();
        assert_eq!(core.key().to_string(), "267550a48f9107ff535e990c9efb5bfb6fc5ca0faa2f81cdba6b3bb5bdd50200");
        for i in 0..10_000u32 {
            core.append([i as u8]).unwrap();
        }
        core.flush().unwrap();
        assert_eq!(hex(&core.tree_hash().unwrap()), tree_hash);
        for (name, expected) in [("data", data), ("tree", tree), ("bitfield", bits)] {
            let bytes = fs::read(dir.path().join(name)).unwrap();
            assert_eq!(hex(&hash(&[&bytes])), expected, "{name}, encrypted: {encrypted}");
        }
    }
}

/// As in the reference: at most four, and none whose blocks a later cut took away.
#[test]
fn the_last_cuts_are_kept_in_the_header() {
    let memory = Memory::new();
    let hints = || {
        let core = Hypercore::options().open_in(memory.clone()).unwrap();
        core.flush().unwrap();
        core.close().unwrap();
        let storage: Arc<dyn Storage> = Arc::new(memory.clone());
        let file = storage.open("oplog", Access::Read).unwrap().unwrap();
        let header = Oplog::open(&storage, file).unwrap().1.unwrap().header;
        header.reorgs.iter().map(|hint| (hint.from, hint.to, hint.ancestors)).collect::<Vec<_>>()
    };
    let with = |change: &dyn Fn(&Hypercore)| {
        let core = Hypercore::options().open_in(memory.clone()).unwrap();
        change(&core);
        core.flush().unwrap();
        core.close().unwrap();
    };
    with(&|core| {
        core.append_batch(["hello", "world", "fo", "ooo"]).unwrap();
        core.truncate(3).unwrap();
        assert_eq!((core.len(), core.byte_length(), core.fork()), (3, 12, 1));
    });
    assert_eq!(hints(), [(0, 1, 3)]);
    with(&|core| {
        core.append_batch(["a", "b", "c", "d"]).unwrap();
        core.truncate(3).unwrap();
    });
    assert_eq!(hints(), [(0, 1, 3), (1, 2, 3)]);
    with(&|core| assert_eq!(core.truncate(2).unwrap(), 3));
    assert_eq!(hints(), [(2, 3, 2)]);
    with(&|core| {
        for _ in 0..4 {
            core.append("a").unwrap();
            core.truncate(2).unwrap();
        }
        assert_eq!((core.len(), core.byte_length(), core.fork()), (2, 10, 7));
    });
    assert_eq!(hints(), [(3, 4, 2), (4, 5, 2), (5, 6, 2), (6, 7, 2)]);
}

#[test]
fn the_tree_hash_of_every_length_is_what_it_was() {
    let (core, other) = (Hypercore::in_memory().unwrap(), Hypercore::in_memory().unwrap());
    assert_eq!(core.tree_hash().unwrap(), other.tree_hash().unwrap());
    let mut hashes = vec![core.tree_hash().unwrap()];
    for i in 1..40 {
        core.append(i.to_string()).unwrap();
        hashes.push(core.tree_hash().unwrap());
    }
    assert_ne!(core.tree_hash().unwrap(), other.tree_hash().unwrap());
    for (length, hash) in hashes.iter().enumerate() {
        assert_eq!(core.tree_hash_at(length as u64).unwrap(), *hash);
    }
    // The hash depends on the blocks alone, however they were appended.
    other.append_batch((1..40).map(|i| i.to_string())).unwrap();
    assert_eq!(core.tree_hash().unwrap(), other.tree_hash().unwrap());
}

#[test]
fn a_block_may_be_as_large_as_is_said_and_no_larger() {
    let core = Hypercore::in_memory().unwrap();
    let mut block = vec![1; MAX_BLOCK_SIZE];
    core.append(&block).unwrap();
    block.push(1);
    assert!(core.append(&block).is_err());
    assert_eq!((core.len(), core.get(0).unwrap().len()), (1, MAX_BLOCK_SIZE));
}

#[test]
fn clearing_one_block_leaves_its_neighbours() {
    for index in [0, 1, 31, 32, 63, 64, 126, 127, 128] {
        let core = Hypercore::in_memory().unwrap();
        core.append_batch(vec!["tick"; 129]).unwrap();
        core.clear(index..index + 1).unwrap();
        for i in 0..129 {
            let block = core.get_with(i, GetOptions::new().wait(false)).unwrap();
            assert_eq!(block, (i != index).then(|| b"tick".to_vec()), "block {i} with {index} cleared");
        }
        assert_eq!(core.contiguous_length().unwrap(), index);
        assert!(core.verify(Repair::No).unwrap().is_sound());
    }
}

#[test]
fn the_contiguous_length_crosses_pages_of_the_bitfield() {
    let core = Hypercore::options().durability(Durability::None).open_in(Memory::new()).unwrap();
    let page = 1 << 15;
    core.append_batch(vec![""; page + 7]).unwrap();
    let page = page as u64;
    for hole in [page - 1, page, page + 1] {
        core.clear(hole..hole + 1).unwrap();
        assert_eq!(core.held_from(hole).unwrap(), Some(hole + 1..page + 7));
        assert_eq!(core.contiguous_length().unwrap(), page - 1);
    }
}

#[test]
fn user_data_given_at_opening_is_added_to_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let open = |key: &str, value: &str| Hypercore::options().user_data(key, value).open(dir.path()).unwrap();
    let core = open("hello", "world");
    assert_eq!(core.user_data("hello"), Some(b"world".to_vec()));
    core.close().unwrap();
    let core = open("other", "another");
    assert_eq!(core.user_data("hello"), Some(b"world".to_vec()));
    assert_eq!(core.user_data("other"), Some(b"another".to_vec()));
}

#[cfg(feature = "json")]
#[test]
fn one_core_is_read_in_several_encodings() {
    use hypercore::{Json, SessionOptions, Utf8};
    use serde_json::{Value, json};
    let core = Hypercore::in_memory().unwrap();
    let objects = core.session(SessionOptions::new()).unwrap().encoded(Json::<Value>::new());
    objects.append(&json!({ "hello": "world" })).unwrap();
    core.append(r#"{"a":1}"#).unwrap();
    assert_eq!(core.encoded(Utf8).get(0).unwrap(), r#"{"hello":"world"}"#);
    assert_eq!(objects.get(1).unwrap(), json!({ "a": 1 }));
    let joined = core.encoded(Utf8).encode_batch(|words| Ok(vec![words.join("-").into_bytes()]));
    joined.append_batch(["a", "b", "c"]).unwrap();
    joined.append_batch(["d", "e"]).unwrap();
    joined.append("f").unwrap();
    assert_eq!([2, 3, 4].map(|i| joined.get(i).unwrap()), ["a-b-c", "d-e", "f"]);
}
