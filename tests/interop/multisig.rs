//! Logs that several sign, each from a draft of its own: the shares, and what they are put together to, are the same bytes on both
//! sides, and hold on both.

use hypercore::{Hypercore, Manifest, PartialSignature, SignOptions, Signer};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::js::{Js, to_hex};
use crate::model::{Seen, assert_sound, assert_sound_to_js, key_pair, seed};

/// How long the log is to be, and the drafts of two signers.
const LENGTHS: [[u64; 3]; 9] =
    [[1, 1, 1], [5, 5, 9], [5, 9, 5], [3, 7, 9], [1, 2, 3], [4, 8, 4], [8, 11, 13], [6, 7, 7], [7, 16, 8]];

#[test]
fn version_1_shares_are_equal() {
    let Some(mut js) = Js::core() else { return };
    for lengths in LENGTHS {
        signed_by_two_of_three(&mut js, 1, true, lengths);
    }
    signed_by_two_of_three(&mut js, 1, false, [3, 3, 3]);
}

#[test]
fn version_0_shares_are_equal() {
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
            signers.map(|by| Signer { namespace: [by + 100; 32], public_key: key_pair(by).public_key() }),
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

        let core = Hypercore::options()
            .manifest(ours.clone())
            .key_pair(key_pair(by))
            .open_in(hypercore::Memory::new())
            .unwrap();
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
    assert_eq!(js.call("assemble", json!({"proofs": their_shares}))["signature"], to_hex(&signature), "{what}");

    js.call("append", json!({"text": blocks(length), "signature": to_hex(&signature)}));
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

/// A share as the driver tells it: signer, signature, patch and nodes.
fn told(share: &PartialSignature) -> [Value; 4] {
    let node = |node: &hypercore::lowlevel::node::Node| json!({"index": node.index.0, "size": node.size, "hash": to_hex(&node.hash)});
    let nodes = match share.patch {
        0 => json!(null),
        _ => share.nodes.iter().map(node).collect(),
    };
    [json!(share.signer), json!(to_hex(&share.signature)), json!(share.patch), nodes]
}
