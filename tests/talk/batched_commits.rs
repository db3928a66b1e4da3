//! Proofs that arrive in one read of the socket are committed in one batch: the number of oplog writes does not grow
//! with the number of blocks.

use hypercore::{Download, Hypercore};

use crate::common::{CallKind, Hooked};
use crate::cores::{connect, writer};
use crate::harness::parallel_test;

#[test]
fn proofs_received_together_share_oplog_writes() {
    const COUNT: u64 = 4000;
    let _guard = parallel_test!();
    let core = writer(COUNT);
    let storage = Hooked::memory();
    let copy = Hypercore::options().key(core.key()).open_in(storage.clone()).unwrap();
    let before = storage.count_of("oplog", CallKind::Write);
    let _connected = connect(&copy, &core);
    copy.download(Download::range(0..COUNT)).unwrap().wait().unwrap();
    let entries = storage.count_of("oplog", CallKind::Write) - before;
    assert!(entries > 0 && entries < COUNT / 8, "{entries} entries for {COUNT} blocks");
    // A later open finds everything that the batches stored.
    drop((_connected, copy));
    let copy = Hypercore::options().key(core.key()).open_in(storage).unwrap();
    assert_eq!((copy.contiguous_length().unwrap(), copy.tree_hash().unwrap()), (COUNT, core.tree_hash().unwrap()));
}
