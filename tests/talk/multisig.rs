//! Logs with several signers or a prologue, between two cores: the side that gathers a quorum of signatures appends,
//! and the other follows.

use hypercore::{Download, Durability, ErrorKind, Hypercore, KeyPair, Manifest, Memory, SignOptions, Signer};

use crate::cores::{Events, connect, copy_of, disconnect, wait_for_length};
use crate::harness::parallel_test;

fn pairs(n: u8) -> Vec<KeyPair> {
    (1..=n).map(|i| KeyPair::from_seed(&[i; 32])).collect()
}

fn manifest_of(pairs: &[KeyPair]) -> Manifest {
    Manifest::new(pairs.iter().map(|p| Signer::new(p.public_key())).collect()).with_allow_patch(true)
}

fn open(manifest: &Manifest) -> Hypercore {
    Hypercore::options().manifest(manifest.clone()).open_in(Memory::new()).unwrap()
}

/// A signer's own draft of the log, to which it appends alone.
fn draft(manifest: &Manifest, pair: &KeyPair) -> Hypercore {
    let options = Hypercore::options().manifest(manifest.clone()).key_pair(pair.clone());
    options.durability(Durability::None).open_in(Memory::new()).unwrap()
}

/// The assembled signature of two signers over the first `length` blocks of their drafts.
fn signed(manifest: &Manifest, drafts: [(u64, &Hypercore); 2], length: u64) -> SignOptions {
    let shares = drafts.map(|(signer, draft)| draft.partial_signature(signer, length).unwrap());
    SignOptions::new().signature(manifest.assemble(shares.to_vec()))
}

fn text(range: std::ops::Range<u64>) -> Vec<String> {
    range.map(|i| i.to_string()).collect()
}

#[test]
fn append_signed_by_quorum_is_followed() {
    let _guard = parallel_test!();
    let pairs = pairs(3);
    let manifest = manifest_of(&pairs);
    let (one, other) = (open(&manifest), open(&manifest));
    assert_eq!(one.key(), Hypercore::key_of(&manifest));
    let (a, b) = (draft(&manifest, &pairs[0]), draft(&manifest, &pairs[1]));
    a.append_batch(text(0..6)).unwrap();
    b.append_batch(text(0..4)).unwrap();
    connect(&one, &other);
    one.append_with(text(0..2), signed(&manifest, [(0, &a), (1, &b)], 2)).unwrap();
    wait_for_length(&other, 2);
    // The other core appends next, with signatures that did not come over this connection.
    other.download(Download::range(0..2)).unwrap().wait().unwrap();
    other.append_with(text(2..4), signed(&manifest, [(0, &a), (1, &b)], 4)).unwrap();
    wait_for_length(&one, 4);
    assert_eq!(one.get(3).unwrap(), b"3");
    assert!(one.verify().unwrap().is_sound() && other.verify().unwrap().is_sound());
}

#[test]
fn append_with_signature_of_other_blocks_is_refused() {
    let _guard = parallel_test!();
    let pairs = pairs(3);
    let manifest = manifest_of(&pairs);
    let core = open(&manifest);
    let (a, b) = (draft(&manifest, &pairs[0]), draft(&manifest, &pairs[1]));
    a.append_batch(text(0..4)).unwrap();
    b.append_batch(text(0..4)).unwrap();
    let options = signed(&manifest, [(0, &a), (1, &b)], 4);
    // The signature covers neither another last block nor half of the batch.
    let other = core.append_with(["0", "1", "2", "hello"], options.clone());
    assert_eq!(other.unwrap_err().kind(), ErrorKind::InvalidSignature);
    let half = core.append_with(text(0..2), options.clone());
    assert_eq!(half.unwrap_err().kind(), ErrorKind::InvalidSignature);
    assert!(core.is_empty());
    core.append_with(text(0..4), options).unwrap();
    let copy = copy_of(&core);
    connect(&core, &copy);
    copy.download(Download::range(0..4)).unwrap().wait().unwrap();
    assert_eq!((copy.get(3).unwrap(), copy.manifest()), (b"3".to_vec(), Some(manifest)));
}

#[test]
fn draft_of_one_signer_is_refused_by_peer() {
    let _guard = parallel_test!();
    let pairs = pairs(3);
    let manifest = manifest_of(&pairs);
    let draft = draft(&manifest, &pairs[0]);
    draft.append("alone").unwrap();
    let copy = copy_of(&draft);
    let refused = Events::new(|tell| copy.on_verification_error(move |error, _| tell.send(error.kind()).unwrap_or(())));
    let both = connect(&draft, &copy);
    assert_eq!(refused.next(), ErrorKind::Decoding);
    assert!(both.1.wait().is_err());
    assert!(copy.is_empty());
}

#[test]
fn signed_log_is_served_after_reopening() {
    let _guard = parallel_test!();
    let dir = tempfile::tempdir().unwrap();
    let pairs = pairs(3);
    let manifest = manifest_of(&pairs);
    let (a, b) = (draft(&manifest, &pairs[0]), draft(&manifest, &pairs[1]));
    a.append("0").unwrap();
    b.append("0").unwrap();
    let core = Hypercore::options().manifest(manifest.clone()).open(dir.path()).unwrap();
    core.append_with(["0"], signed(&manifest, [(0, &a), (1, &b)], 1)).unwrap();
    core.close().unwrap();
    let core = Hypercore::options().manifest(manifest.clone()).open(dir.path()).unwrap();
    let copy = copy_of(&core);
    connect(&core, &copy);
    copy.download(Download::range(0..1)).unwrap().wait().unwrap();
    assert_eq!(copy.get(0).unwrap(), b"0");
}

#[test]
fn longer_log_signed_by_other_quorum_is_followed() {
    let _guard = parallel_test!();
    let pairs = pairs(3);
    let manifest = manifest_of(&pairs);
    let drafts: Vec<_> = pairs.iter().map(|pair| draft(&manifest, pair)).collect();
    for (draft, length) in drafts.iter().zip([6, 2, 3]) {
        draft.append_batch(text(0..length)).unwrap();
    }
    let (one, other) = (open(&manifest), open(&manifest));
    one.append_with(text(0..2), signed(&manifest, [(1, &drafts[1]), (0, &drafts[0])], 2)).unwrap();
    other.append_with(text(0..3), signed(&manifest, [(2, &drafts[2]), (0, &drafts[0])], 3)).unwrap();
    connect(&one, &other);
    wait_for_length(&one, 3);
    assert_eq!((one.len(), other.len(), one.get(2).unwrap()), (3, 3, b"2".to_vec()));
}

/// Two cores with different quorums append in turns, each after the other's blocks.
#[test]
fn cores_of_different_quorums_append_alternately() {
    let _guard = parallel_test!();
    let pairs = pairs(3);
    let manifest = manifest_of(&pairs);
    let drafts: Vec<_> = pairs.iter().map(|pair| draft(&manifest, pair)).collect();
    let cores = [open(&manifest), open(&manifest)];
    connect(&cores[0], &cores[1]);
    for length in 1..=60u64 {
        // The drafts are ahead of the log by different numbers of blocks.
        for (draft, ahead) in drafts.iter().zip([length % 4, 0, length % 3]) {
            draft.append_batch(text(draft.len()..(length + ahead).max(draft.len()))).unwrap();
        }
        let turn = (length % 2) as usize;
        let quorum = if turn == 0 { [(0, &drafts[0]), (1, &drafts[1])] } else { [(1, &drafts[1]), (2, &drafts[2])] };
        cores[turn].append_with([(length - 1).to_string()], signed(&manifest, quorum, length)).unwrap();
        wait_for_length(&cores[1 - turn], length);
    }
    for core in &cores {
        core.download(Download::range(0..60)).unwrap().wait().unwrap();
        assert!((0..60).all(|i| core.get(i).unwrap() == i.to_string().as_bytes()));
    }
}

#[test]
fn partial_signature_of_much_longer_draft_is_valid() {
    let _guard = parallel_test!();
    let pairs = pairs(2);
    let manifest = manifest_of(&pairs);
    let (long, short) = (draft(&manifest, &pairs[0]), draft(&manifest, &pairs[1]));
    long.append_batch(text(0..10_000)).unwrap();
    short.append("0").unwrap();
    let core = open(&manifest);
    let copy = copy_of(&core);
    connect(&core, &copy);
    core.append_with(["0"], signed(&manifest, [(0, &long), (1, &short)], 1)).unwrap();
    wait_for_length(&copy, 1);
    short.append_batch(text(1..1000)).unwrap();
    long.append_batch(text(10_000..20_000)).unwrap();
    core.append_with(text(1..1000), signed(&manifest, [(0, &long), (1, &short)], 1000)).unwrap();
    wait_for_length(&copy, 1000);
    assert_eq!(copy.get(999).unwrap(), b"999");
}

#[test]
fn prologue_is_copied_without_signature_and_rest_with_one() {
    let _guard = parallel_test!();
    let source = Hypercore::in_memory().unwrap();
    source.append_batch(text(0..4)).unwrap();
    let pairs = pairs(2);
    let manifest = manifest_of(&pairs).with_prologue(source.tree_hash().unwrap(), 4);
    let (core, copy) = (open(&manifest), open(&manifest));
    connect(&core, &copy);
    core.append_batch(text(0..4)).unwrap();
    wait_for_length(&copy, 4);
    let shares = pairs.iter().map(|pair| core.sign_append(["4"], pair).unwrap()).collect();
    core.append_with(["4"], SignOptions::new().signature(manifest.assemble(shares))).unwrap();
    wait_for_length(&copy, 5);
    assert_eq!(copy.get(2).unwrap(), b"2");
    // A late copy gets the prologue and the signed block together, and serves both.
    let (late, later) = (copy_of(&core), copy_of(&core));
    let both = connect(&core, &late);
    late.download(Download::range(0..5)).unwrap().wait().unwrap();
    disconnect(&both);
    connect(&late, &later);
    assert_eq!(
        (later.get(0).unwrap(), later.get(4).unwrap(), later.manifest()),
        (b"0".to_vec(), b"4".to_vec(), Some(manifest))
    );
}

/// Appending the blocks of the other log fills the prologue and ends the wait for one of them.
#[test]
fn get_of_prologue_block_ends_when_prologue_is_copied() {
    let _guard = parallel_test!();
    let source = Hypercore::in_memory().unwrap();
    source.append_batch(vec!["x"; 100]).unwrap();
    let manifest = Manifest::new(Vec::new()).with_prologue(source.tree_hash().unwrap(), 100);
    let (core, copy) = (open(&manifest), open(&manifest));
    connect(&core, &copy);
    std::thread::scope(|s| {
        let get = s.spawn(|| copy.get(50));
        let blocks: Vec<_> = (0..100).map(|i| source.get(i).unwrap()).collect();
        core.append_batch(blocks).unwrap();
        assert_eq!(get.join().unwrap().unwrap(), b"x");
    });
}
