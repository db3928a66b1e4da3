//! Manifests and signatures of several signers. The first byte says what follows: 0 a manifest, then a signature
//! for it; 1 a multisignature behind its version; 2 a signature for a log of three signers, behind the manifest's
//! version.

use std::sync::LazyLock;

use hypercore::lowlevel::codec::Reader;
use hypercore::lowlevel::manifest::{SignableTree, Verifier};
use hypercore::lowlevel::node::{Node, Roots};
use hypercore::{KeyPair, Manifest, MultiSignature, Signer};

use crate::memory::within;
use crate::{pair, written};

pub fn run(bytes: &[u8]) {
    let [which, bytes @ ..] = bytes else { return };
    LazyLock::force(&LOGS);
    within(64 * bytes.len() + (64 << 10), || match which % 3 {
        0 => manifest(bytes),
        1 => signature(bytes),
        _ => quorum(bytes),
    });
}

pub fn line(bytes: &[u8]) -> Option<(&'static str, &[u8])> {
    match bytes {
        [which, bytes @ ..] if which % 3 == 0 => Some(("manifest", bytes)),
        [which, bytes @ ..] if which % 3 == 1 => Some(("signature", bytes)),
        _ => None,
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let signer = |n| Signer::new(pair(n).public_key());
    let manifests = [
        Manifest::single(pair(1).public_key()),
        Manifest { version: 0, ..Manifest::single(pair(1).public_key()) },
        Manifest::new(vec![signer(1), signer(2)]).with_quorum(2),
        Manifest { version: 0, ..Manifest::new(vec![signer(1), signer(2)]) },
        Manifest::new(vec![signer(1)]).with_allow_patch(true).with_prologue(LOGS.short.tree_hash(), 5),
        Manifest::new(vec![]).with_prologue([4; 32], 77),
        Manifest { version: 0, ..Manifest::new(vec![]).with_prologue([4; 32], 0) },
    ];
    let mut all: Vec<_> =
        manifests.iter().map(|manifest| [vec![0], written(|w| manifest.encode(w))].concat()).collect();
    for version in [0, 1] {
        for signature in LOGS.signatures(version) {
            all.push([&[1, version], &signature[..]].concat());
            all.push([&[2, version], &signature[..]].concat());
        }
    }
    all
}

/// A log of five blocks, a longer one that begins alike, and one of five blocks that differs in the last.
struct Logs {
    short: Roots,
    long: Roots,
    long_nodes: Vec<Node>,
    other: Roots,
}

static LOGS: LazyLock<Logs> = LazyLock::new(|| {
    let roots = |blocks: &[u64]| {
        let (mut roots, mut nodes) = (Roots::default(), Vec::new());
        for (i, block) in (0..).zip(blocks) {
            roots.push(Node::leaf(i, &block.to_le_bytes()), |node| nodes.push(*node)).unwrap();
        }
        (roots, nodes)
    };
    let (long, long_nodes) = roots(&[0, 1, 2, 3, 4, 5, 6, 7, 8]);
    Logs { short: roots(&[0, 1, 2, 3, 4]).0, long, long_nodes, other: roots(&[0, 1, 2, 3, 9]).0 }
});

impl Logs {
    fn verifier(&self, version: u8) -> Verifier {
        let signers = (1..4).map(|n| Signer::new(pair(n).public_key())).collect();
        let manifest = Manifest { version, ..Manifest::new(signers).with_allow_patch(true) };
        Verifier::new(manifest.key(), Some(manifest), false).unwrap()
    }

    /// A good signature, one by a signer of the longer log, one of a single signer, and one of a signer who signs
    /// twice.
    fn signatures(&self, version: u8) -> Vec<Vec<u8>> {
        let verifier = self.verifier(version);
        let share = |n| verifier.sign_partial(SignableTree { roots: &self.short, fork: 0 }, &pair(n)).unwrap();
        let mut longer = verifier.sign_partial(SignableTree { roots: &self.long, fork: 0 }, &pair(2)).unwrap();
        longer.patch = 4;
        longer.nodes = self.long_nodes.clone();
        [vec![share(1), share(3)], vec![share(1), longer], vec![share(2)], vec![share(2), share(2)]]
            .map(|shares| MultiSignature::assemble(version, shares).encode(version))
            .to_vec()
    }
}

fn manifest(bytes: &[u8]) {
    let mut r = Reader::new(bytes);
    let Ok(manifest) = Manifest::decode(&mut r) else { return };
    let again = written(|w| manifest.encode(w));
    let same = Manifest::decode(&mut Reader::new(&again)).unwrap();
    assert_eq!((same.key(), &same), (manifest.key(), &manifest));
    assert!(manifest.signers.len() <= 1024);

    let verifier = Verifier::new(manifest.key(), Some(manifest.clone()), false).unwrap();
    let tree = SignableTree { roots: &LOGS.short, fork: 0 };
    let prologue = manifest.prologue.is_some_and(|p| p.hash == LOGS.short.tree_hash());
    // No signer has signed anything for the manifest of an input.
    let accepted = verifier.check(tree, r.raw());
    assert!(accepted.is_err() || prologue, "{manifest:?} accepts a signature that no signer made");

    let pair: KeyPair = pair(1);
    let alone = manifest.quorum == 1 && !manifest.allow_patch || manifest.version == 0 && manifest.signers.len() == 1;
    if let Ok(signed) = verifier.sign(tree, &pair) {
        assert!(manifest.signers.iter().any(|signer| signer.public_key == pair.public_key()));
        // A core refuses to append less than its prologue.
        let within = manifest.prologue.is_some_and(|prologue| prologue.length >= 5);
        if alone && manifest.quorum == 1 && !within {
            verifier.check(tree, &signed).unwrap();
        }
        let other = SignableTree { fork: 1, ..tree };
        assert!(verifier.check(other, &signed).is_err());
    }
}

fn signature(bytes: &[u8]) {
    let [version, bytes @ ..] = bytes else { return };
    let version = version % 2;
    let Ok(signature) = MultiSignature::decode(version, bytes) else { return };
    // A patch of no blocks is not written, so only what was written once is read as it was.
    let once = MultiSignature::decode(version, &signature.encode(version)).unwrap();
    let twice = MultiSignature::decode(version, &once.encode(version)).unwrap();
    assert_eq!(once, twice);
}

/// A signature that is valid for a log is valid for no other, and stays valid when it is decoded and encoded.
fn quorum(bytes: &[u8]) {
    let [version, bytes @ ..] = bytes else { return };
    let version = version % 2;
    let verifier = LOGS.verifier(version);
    let tree = SignableTree { roots: &LOGS.short, fork: 0 };
    if verifier.check(tree, bytes).is_err() {
        return;
    }
    assert!(verifier.check(SignableTree { fork: 1, ..tree }, bytes).is_err());
    assert!(verifier.check(SignableTree { roots: &LOGS.other, fork: 0 }, bytes).is_err());
    assert!(verifier.check(SignableTree { roots: &LOGS.long, fork: 0 }, bytes).is_err());
    let again = MultiSignature::decode(version, bytes).unwrap().encode(version);
    assert!(verifier.check(tree, &again).is_ok());
}
