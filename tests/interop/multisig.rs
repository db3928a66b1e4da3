//! Logs with several signers, each of which signs a draft of its own: the partial and the assembled signatures are
//! equal on both sides, and valid on both.

use hypercore::lowlevel::node::Node;
use hypercore::{Appended, ErrorKind, Hypercore, Manifest, MultiSignature, PartialSignature, SignOptions, Signer};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::common::{hex, pair};
use crate::js::{Js, bytes};
use crate::model::{Seen, assert_sound, assert_sound_to_js, seed};

/// The length of the log, and the lengths of the two signers' drafts.
const LENGTHS: [[u64; 3]; 9] =
    [[1, 1, 1], [5, 5, 9], [5, 9, 5], [3, 7, 9], [1, 2, 3], [4, 8, 4], [8, 11, 13], [6, 7, 7], [7, 16, 8]];

#[test]
fn version_1_partial_signatures_are_equal() {
    let Some(mut js) = Js::core() else { return };
    for lengths in LENGTHS {
        signed_by_two_of_three(&mut js, 1, true, lengths);
    }
    signed_by_two_of_three(&mut js, 1, false, [3, 3, 3]);
}

#[test]
fn version_0_partial_signatures_are_equal() {
    let Some(mut js) = Js::core() else { return };
    for lengths in LENGTHS {
        signed_by_two_of_three(&mut js, 0, true, lengths);
    }
    signed_by_two_of_three(&mut js, 0, false, [3, 3, 3]);
}

fn signed_by_two_of_three(js: &mut Js, version: u8, allow_patch: bool, lengths: [u64; 3]) {
    let what = format!("version {version}, {lengths:?}");
    let dir = tempdir().unwrap();
    let [length, ..] = lengths;
    let blocks = |length: u64| -> Vec<String> {
        (0..length).map(|i| format!("block {i}")[..i as usize % 8].to_owned()).collect()
    };
    let signers = [1, 2, 3];
    let theirs = json!({
        "version": version,
        "quorum": 2,
        "allowPatch": allow_patch,
        "signers": signers.map(|by| json!({"seed": seed(by), "namespace": seed(by + 100)})),
    });
    let ours = Manifest {
        version,
        ..Manifest::new(Vec::from(
            signers.map(|by| Signer { namespace: [by + 100; 32], public_key: pair(by).public_key() }),
        ))
        .with_allow_patch(allow_patch)
    };

    let (mut our_shares, mut their_shares) = (Vec::new(), Vec::new());
    for (by, draft) in [(3, lengths[1]), (1, lengths[2])] {
        let name = format!("draft-{by}");
        let opened = json!({"core": name, "dir": dir.path().join(&name), "manifest": theirs, "seed": seed(by)});
        js.call("open", opened);
        js.call("append", json!({"core": name, "text": blocks(draft)}));
        let share = js.call("sign", json!({"core": name, "seed": seed(by), "published": length}));

        let core =
            Hypercore::options().manifest(ours.clone()).key_pair(pair(by)).open_in(hypercore::Memory::new()).unwrap();
        core.append_batch(blocks(draft)).unwrap();
        let own = core.partial_signature(u64::from(by) - 1, length).unwrap();
        assert_eq!(
            told(&own),
            [&share["signer"], &share["signature"], &share["patch"], &share["nodes"]].map(Value::clone),
            "{what}"
        );
        js.call("close", json!({"core": name}));
        our_shares.push(own);
        their_shares.push(share);
    }

    js.call("open", json!({"dir": dir.path().join("theirs"), "manifest": theirs}));
    let core = Hypercore::options().manifest(ours.clone()).open(dir.path().join("ours")).unwrap();
    let signature = ours.assemble(our_shares);
    assert_eq!(js.call("assemble", json!({"proofs": their_shares}))["signature"], hex(&signature), "{what}");

    js.call("append", json!({"text": blocks(length), "signature": hex(&signature)}));
    core.append_with(blocks(length), SignOptions::new().signature(signature)).unwrap();
    let seen = Seen::by_us(&core);
    assert_eq!(Seen::by_js(js, "main"), seen, "{what}");
    assert_sound(&core);
    assert_sound_to_js(js, "main");
    core.close().unwrap();
    js.call("close", json!({}));

    js.call("open", json!({"dir": dir.path().join("ours"), "createIfMissing": false}));
    assert_eq!(Seen::by_js(js, "main"), seen, "{what}");
    assert_sound_to_js(js, "main");
    let core = Hypercore::options().create_if_missing(false).open(dir.path().join("theirs")).unwrap();
    assert_eq!((Seen::by_us(&core), core.manifest()), (seen, Some(ours)), "{what}");
    assert_sound(&core);
    js.call("close", json!({}));
}

/// A partial signature in the driver's format: signer, signature, patch and nodes.
fn told(share: &PartialSignature) -> [Value; 4] {
    let node = |node: &Node| json!({"index": node.index.0, "size": node.size, "hash": hex(&node.hash)});
    let nodes = match share.patch {
        0 => json!(null),
        _ => share.nodes.iter().map(node).collect(),
    };
    [json!(share.signer), json!(hex(&share.signature)), json!(share.patch), nodes]
}

/// Two of three signers sign: both in JavaScript, both here, and one on each side.
#[test]
fn quorum_of_two_appends_from_both_sides() {
    let Some(mut js) = Js::core() else { return };
    let dir = tempdir().unwrap();
    let dir = dir.path();
    let signers = [json!({"seed": seed(1)}), json!({"seed": seed(2)}), json!({"seed": seed(3), "namespace": seed(9)})];
    let manifest = json!({"version": 1, "quorum": 2, "signers": signers});
    let first = js.call("open", json!({"dir": dir, "manifest": manifest, "seed": seed(1)}));
    let share = |js: &mut Js, by: u8, text: &str| js.call("sign", json!({"seed": seed(by), "text": [text, ""]}));
    let append = |js: &mut Js, proofs: [Value; 2], text: &str| {
        let signature = js.call("assemble", json!({"proofs": proofs}))["signature"].clone();
        js.call("append", json!({"text": [text, ""], "signature": signature}));
        assert_eq!(js.call("verifyHead", json!({}))["valid"], true);
    };

    let proofs = [share(&mut js, 1, "theirs"), share(&mut js, 3, "theirs")];
    append(&mut js, proofs, "theirs");
    let half = share(&mut js, 2, "mixed");
    let left = Seen::by_js(&mut js, "main");
    js.call("close", json!({}));

    let core = Hypercore::options().create_if_missing(false).open(dir).unwrap();
    assert_eq!(Seen::by_us(&core), left);
    assert_sound(&core);
    let manifest = core.manifest().unwrap();
    assert_eq!((manifest.quorum, manifest.signers.len(), manifest.key()), (2, 3, core.key()));
    assert_eq!(manifest.signers[2].namespace, [9; 32]);

    let blocks = [b"mixed".as_slice(), b""];
    let half = PartialSignature {
        signer: half["signer"].as_u64().unwrap(),
        signature: bytes(&half, "signature").try_into().unwrap(),
        patch: 0,
        nodes: vec![],
    };
    let other = core.sign_append(blocks, &pair(3)).unwrap();
    for too_few in [vec![half.clone()], vec![half.clone(), half.clone()]] {
        assert_eq!(append_signed(&core, &blocks, too_few).unwrap_err().kind(), ErrorKind::InvalidSignature);
    }
    append_signed(&core, &blocks, vec![half, other]).unwrap();

    let ours = [b"ours".as_slice(), b""];
    let shares = [3, 1].map(|by| core.sign_append(ours, &pair(by)).unwrap()).into();
    append_signed(&core, &ours, shares).unwrap();
    assert_sound(&core);
    let left = Seen::by_us(&core);
    core.close().unwrap();

    let again = js.call("open", json!({"dir": dir, "createIfMissing": false}));
    assert_eq!(again["manifest"], first["manifest"]);
    assert_eq!(Seen::by_js(&mut js, "main"), left);
    assert_sound_to_js(&mut js, "main");
    let proofs = [share(&mut js, 2, "back"), share(&mut js, 3, "back")];
    append(&mut js, proofs, "back");
}

fn append_signed(core: &Hypercore, blocks: &[&[u8]], shares: Vec<PartialSignature>) -> hypercore::Result<Appended> {
    let signature = MultiSignature::assemble(1, shares).encode(1);
    core.append_with(blocks, SignOptions::new().signature(signature))
}
