//! Logs with several signers: a quorum of partial signatures is accepted; too few, wrong ones or none are refused.

use hypercore::lowlevel::codec::{Reader, Writer};
use hypercore::{
    Durability, ErrorKind, GetOptions, Hypercore, KeyPair, Manifest, Memory, PartialSignature, SignOptions, Signer,
};

use crate::common::{kind, pair};

fn pairs(n: u8) -> Vec<KeyPair> {
    (1..=n).map(pair).collect()
}

fn manifest_of(pairs: &[KeyPair], version: u8) -> Manifest {
    let signers = pairs.iter().map(|p| Signer::new(p.public_key())).collect();
    Manifest { version, ..Manifest::new(signers) }
}

fn open(manifest: &Manifest, memory: &Memory) -> Hypercore {
    Hypercore::options().manifest(manifest.clone()).open_in(memory.clone()).unwrap()
}

fn shares(core: &Hypercore, blocks: &[&str], signers: &[&KeyPair]) -> Vec<PartialSignature> {
    signers.iter().map(|pair| core.sign_append(blocks, pair).unwrap()).collect()
}

fn signed(manifest: &Manifest, shares: Vec<PartialSignature>) -> SignOptions {
    SignOptions::new().signature(manifest.assemble(shares))
}

#[track_caller]
fn assert_sound(core: &Hypercore) {
    assert_eq!(core.verify().unwrap().faults, []);
}

#[test]
fn quorum_of_signers_appends_and_log_reopens() {
    for version in [0, 1] {
        let pairs = pairs(3);
        let manifest = manifest_of(&pairs, version);
        assert_eq!(manifest.quorum, 2);
        let memory = Memory::new();
        let core = open(&manifest, &memory);
        assert_eq!(core.key(), manifest.key());
        let first = shares(&core, &["a", "b"], &[&pairs[2], &pairs[0]]);
        assert_eq!(core.append_with(["a", "b"], signed(&manifest, first)).unwrap().length, 2);
        let second = shares(&core, &["c"], &[&pairs[0], &pairs[1], &pairs[2]]);
        core.append_with(["c"], signed(&manifest, second)).unwrap();
        assert_sound(&core);
        core.close().unwrap();
        let core = open(&manifest, &memory);
        assert_eq!((core.len(), core.get(2).unwrap(), core.manifest()), (3, b"c".to_vec(), Some(manifest.clone())));
        assert_sound(&core);
        let third = shares(&core, &["d"], &[&pairs[1], &pairs[2]]);
        core.append_with(["d"], signed(&manifest, third)).unwrap();
        assert_sound(&core);
    }
}

#[test]
fn append_without_quorum_changes_nothing() {
    for version in [0, 1] {
        let pairs = pairs(3);
        let manifest = manifest_of(&pairs, version);
        let core = open(&manifest, &Memory::new());
        let stranger = pair(99);
        assert_eq!(kind(core.sign_append(["a"], &stranger)), ErrorKind::NotWritable);
        let share = |i: usize| core.sign_append(["a"], &pairs[i]).unwrap();
        let forged = PartialSignature { signer: 1, ..share(0) };
        let beyond = PartialSignature { signer: 3, ..share(0) };
        let other = core.sign_append(["b"], &pairs[1]).unwrap();
        for (what, shares) in [
            ("one share", vec![share(0)]),
            ("one share twice", vec![share(0), share(0)]),
            ("a share in the name of another signer", vec![share(0), forged]),
            ("a share of an unknown signer", vec![share(0), beyond]),
            ("a share for another block", vec![share(0), other]),
            ("no share", vec![]),
        ] {
            assert_eq!(kind(core.append_with(["a"], signed(&manifest, shares))), ErrorKind::InvalidSignature, "{what}");
        }
        for (garbage, expected) in [
            (vec![], ErrorKind::InvalidSignature),
            (vec![0], ErrorKind::Decoding),
            (vec![255; 200], ErrorKind::Decoding),
            (manifest.assemble(vec![share(0), share(1)])[..100].to_vec(), ErrorKind::Decoding),
        ] {
            let length = garbage.len();
            let refused = core.append_with(["a"], SignOptions::new().signature(garbage));
            assert_eq!(kind(refused), expected, "{length} bytes");
        }
        assert_eq!(core.len(), 0);
        // The refused appends changed nothing: the right signature is still accepted.
        core.append_with(["a"], signed(&manifest, vec![share(0), share(1)])).unwrap();
        assert_sound(&core);
    }
}

#[test]
fn partial_signature_fits_one_length_and_fork() {
    let pairs = pairs(2);
    let manifest = manifest_of(&pairs, 1);
    let core = open(&manifest, &Memory::new());
    let early = shares(&core, &["x"], &[&pairs[0], &pairs[1]]);
    let first = shares(&core, &["a"], &[&pairs[0], &pairs[1]]);
    core.append_with(["a"], signed(&manifest, first.clone())).unwrap();
    assert_eq!(kind(core.append_with(["x"], signed(&manifest, early))), ErrorKind::InvalidSignature);
    // A truncate to a length above zero needs a valid signature.
    assert_eq!(kind(core.truncate_with(1, SignOptions::new().signature(vec![1; 64]))), ErrorKind::Decoding);
    assert_eq!(core.len(), 1);
    core.truncate_with(0, SignOptions::new().signature(Vec::new())).unwrap();
    assert_eq!((core.len(), core.fork()), (0, 1));
    assert_eq!(kind(core.append_with(["a"], signed(&manifest, first))), ErrorKind::InvalidSignature);
}

#[test]
fn quorum_of_one_appends_with_any_signer() {
    for version in [0, 1] {
        let pairs = pairs(3);
        let manifest = manifest_of(&pairs, version).with_quorum(1);
        let memory = Memory::new();
        let core =
            Hypercore::options().manifest(manifest.clone()).key_pair(pairs[1].clone()).open_in(memory.clone()).unwrap();
        core.append_batch(["a", "b", "c"]).unwrap();
        core.truncate(2).unwrap();
        core.append("d").unwrap();
        assert_sound(&core);
        core.append_with(["e"], SignOptions::new().key_pair(pairs[2].clone())).unwrap();
        assert_sound(&core);
        core.close().unwrap();
        let core = open(&manifest, &memory);
        assert_eq!(core.len(), 4);
        assert_sound(&core);
    }
}

#[test]
fn partial_signature_of_longer_draft_needs_allow_patch() {
    for version in [0, 1] {
        let pairs = pairs(2);
        for short in 1..12u64 {
            for longer_by in [0, 1, 2, 5, 9] {
                let manifest = manifest_of(&pairs, version).with_allow_patch(true);
                let blocks: Vec<String> = (0..short + longer_by).map(|i| i.to_string()).collect();
                let draft = |i: usize, length: u64| {
                    let core = Hypercore::options().manifest(manifest.clone()).key_pair(pairs[i].clone());
                    let core = core.durability(Durability::None).open_in(Memory::new()).unwrap();
                    core.append_batch(&blocks[..length as usize]).unwrap();
                    core
                };
                let (ours, theirs) = (draft(0, short), draft(1, short + longer_by));
                let shares =
                    vec![ours.partial_signature(0, short).unwrap(), theirs.partial_signature(1, short).unwrap()];
                assert_eq!(kind(ours.partial_signature(0, short + 1)), ErrorKind::OutOfBounds);
                let core = open(&manifest, &Memory::new());
                let options = signed(&manifest, shares.clone());
                core.append_with(&blocks[..short as usize], options).unwrap();
                assert_sound(&core);
                if longer_by > 0 {
                    let strict = manifest.clone().with_allow_patch(false);
                    let core = open(&strict, &Memory::new());
                    let refused = core.append_with(&blocks[..short as usize], signed(&strict, shares));
                    assert_eq!(kind(refused), ErrorKind::InvalidSignature);
                }
            }
        }
    }
}

#[test]
fn verify_of_draft_reports_its_signature() {
    let pairs = pairs(2);
    let manifest = manifest_of(&pairs, 1);
    let core = Hypercore::options().manifest(manifest).key_pair(pairs[0].clone()).open_in(Memory::new()).unwrap();
    core.append("alone").unwrap();
    let audit = core.verify().unwrap();
    assert!(!audit.is_sound() && matches!(audit.faults[..], [hypercore::Fault::Signature(_)]));
}

#[test]
fn only_prologue_is_valid_without_signature() {
    let source = Hypercore::in_memory().unwrap();
    source.append_batch(["once", "upon", "a time"]).unwrap();
    let hash = source.tree_hash().unwrap();
    for signers in [0, 1, 2] {
        let pairs = pairs(signers);
        let manifest = manifest_of(&pairs, 1).with_prologue(hash, 3);
        let memory = Memory::new();
        let options = || {
            let options = Hypercore::options().manifest(manifest.clone());
            pairs.first().map_or(options.clone(), |p| options.key_pair(p.clone()))
        };
        let core = options().open_in(memory.clone()).unwrap();
        assert_eq!(kind(core.append("once")), ErrorKind::InvalidOperation);
        assert_eq!(kind(core.append_batch(["once", "upon", "a lie"])), ErrorKind::InvalidSignature);
        assert_eq!(core.len(), 0);
        core.append_batch(["once", "upon", "a time"]).unwrap();
        assert_sound(&core);
        assert_eq!(kind(core.truncate(2)), ErrorKind::InvalidOperation);
        match signers {
            0 => assert_eq!(kind(core.append("more")), ErrorKind::NotWritable),
            1 => drop(core.append("more").unwrap()),
            _ => {
                let shares = shares(&core, &["more"], &[&pairs[0], &pairs[1]]);
                core.append_with(["more"], signed(&manifest, shares)).unwrap();
            }
        }
        assert_sound(&core);
        core.close().unwrap();
        let core = options().open_in(memory.clone()).unwrap();
        assert_eq!(core.len(), if signers == 0 { 3 } else { 4 });
        let unsigned = core.truncate_with(3, SignOptions::new().signature(Vec::new()));
        assert_eq!(kind(unsigned), ErrorKind::InvalidSignature, "only the signers truncate signed blocks");
        match signers {
            0 => {
                assert_eq!(kind(core.truncate(3)), ErrorKind::NotWritable);
                continue;
            }
            1 => drop(core.truncate(3).unwrap()),
            _ => {
                let shares = pairs.iter().zip(0..).map(|(pair, signer)| {
                    let draft = Hypercore::options().manifest(manifest.clone()).key_pair(pair.clone());
                    let draft = draft.open_in(Memory::new()).unwrap();
                    draft.append_batch(["once", "upon", "a time"]).unwrap();
                    draft.truncate(3).unwrap();
                    draft.partial_signature(signer, 3).unwrap()
                });
                core.truncate_with(3, signed(&manifest, shares.collect())).unwrap();
            }
        }
        assert_sound(&core);
        core.close().unwrap();
        let core = options().open_in(memory).unwrap();
        assert_eq!((core.len(), core.fork()), (3, 1));
        assert_eq!(core.get_with(2, GetOptions::new().wait(false)).unwrap(), Some(b"a time".to_vec()));
        assert_sound(&core);
    }
}

#[test]
fn default_quorum_is_majority() {
    for (signers, quorum) in [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (5, 3)] {
        let manifest = manifest_of(&pairs(signers), 1);
        assert_eq!(manifest.quorum, quorum, "{signers} signers");
        assert_eq!(manifest.with_quorum(1).quorum, 1);
    }
    assert_eq!(Manifest::single(pair(1).public_key()).quorum, 1);
}

#[test]
fn manifest_decodes_as_encoded_and_unknown_curve_is_refused() {
    let encoded = |manifest: &Manifest| {
        let mut w = Writer::new();
        manifest.encode(&mut w);
        w.into_vec()
    };
    for version in [0, 1] {
        for signers in 1..3 {
            for quorum in 1..=u64::from(signers) {
                for allow_patch in [false, true] {
                    for prologue in [false, true] {
                        let manifest = manifest_of(&pairs(signers), version).with_quorum(quorum);
                        let manifest = manifest.with_allow_patch(allow_patch);
                        if prologue && version == 0 {
                            continue;
                        }
                        let manifest = if prologue { manifest.with_prologue([3; 32], 4) } else { manifest };
                        let bytes = encoded(&manifest);
                        assert_eq!(Manifest::decode(&mut Reader::new(&bytes)).unwrap(), manifest);
                        assert!(Manifest::decode(&mut Reader::new(&bytes[..bytes.len() - 1])).is_err());
                    }
                }
            }
        }
    }
    // An unknown curve: the byte before the namespace of the signer.
    let mut bytes = encoded(&manifest_of(&pairs(1), 1));
    let curve = bytes.len() - 65;
    assert_eq!(bytes[curve], 0);
    bytes[curve] = 1;
    assert!(Manifest::decode(&mut Reader::new(&bytes)).is_err());
}

#[test]
fn core_opened_by_key_takes_manifest_at_later_open() {
    let memory = Memory::new();
    let manifest = manifest_of(&pairs(1), 1);
    let core = Hypercore::options().key(manifest.key()).compat(false).open_in(memory.clone()).unwrap();
    assert_eq!((core.manifest(), core.key()), (None, manifest.key()));
    core.close().unwrap();
    let wrong = manifest_of(&[pair(9)], 1);
    let refused = Hypercore::options().manifest(wrong).compat(false).open_in(memory.clone());
    assert_eq!(kind(refused), ErrorKind::StorageConflict);
    let core = Hypercore::options().manifest(manifest.clone()).compat(false).open_in(memory.clone()).unwrap();
    assert_eq!((core.manifest(), core.key()), (Some(manifest.clone()), manifest.key()));
    core.close().unwrap();
    // The stored kind of core takes precedence over the `compat` option.
    let core = Hypercore::options().manifest(manifest.clone()).compat(true).open_in(memory).unwrap();
    assert_eq!((core.manifest(), core.key()), (Some(manifest.clone()), manifest.key()));
}

#[test]
fn encrypted_log_is_appended_by_quorum() {
    let pairs = pairs(2);
    let manifest = manifest_of(&pairs, 1);
    let core = Hypercore::options().manifest(manifest.clone()).encryption_key([7; 32]).open_in(Memory::new()).unwrap();
    let shares = shares(&core, &["secret"], &[&pairs[0], &pairs[1]]);
    core.append_with(["secret"], signed(&manifest, shares)).unwrap();
    assert_eq!(core.get(0).unwrap(), b"secret");
    assert_sound(&core);
}
