//! The files equal those that JavaScript Hypercore 10.38.2 writes for the same operations.

use std::fs;
use std::sync::Arc;

use hypercore::lowlevel::crypto::hash::hash;
use hypercore::lowlevel::oplog::Oplog;
use hypercore::{Access, Durability, Hypercore, KeyPair, Memory, Storage};

use crate::common::hex;

fn filled(with: &[u8]) -> [u8; 32] {
    std::array::from_fn(|i| with[i % with.len()])
}

/// Ten thousand blocks of one byte, appended one by one. The expected values are the BLAKE2b of the files of the
/// reference after its flush.
#[test]
fn files_match_reference() {
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
        assert_eq!(core.key().to_hex(), "267550a48f9107ff535e990c9efb5bfb6fc5ca0faa2f81cdba6b3bb5bdd50200");
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

/// As in the reference: at most four, and none whose common blocks a later truncate removed.
#[test]
fn header_keeps_last_four_truncations() {
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
