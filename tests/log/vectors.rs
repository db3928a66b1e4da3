//! Every value that the reference computed in `tests/vectors/vectors.json` is computed again.

use hypercore::lowlevel::codec::{Reader, Writer};
use hypercore::lowlevel::crypto::block_cipher::BlockCipher;
use hypercore::lowlevel::crypto::{hash, keys};
use hypercore::lowlevel::flat_tree::full_roots;
use hypercore::lowlevel::index::NodeIndex;
use hypercore::lowlevel::manifest::{SignableTree, Verifier};
use hypercore::lowlevel::node::{Node, Roots};
use hypercore::{Key, KeyPair, Manifest, MultiSignature, Signer};
use serde_json::Value;

use crate::common::unhex;

fn vectors() -> Value {
    serde_json::from_str(include_str!("../vectors/vectors.json")).unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    unhex(value.as_str().unwrap())
}

fn fixed<const N: usize>(value: &Value) -> [u8; N] {
    bytes(value).try_into().unwrap()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

fn each(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().unwrap().iter()
}

#[test]
fn every_section_of_vectors_is_tested() {
    let here = [
        "namespaces",
        "secret_stream_namespaces",
        "key_pair",
        "manifest",
        "leaves",
        "parents",
        "tree_hash",
        "signable",
        "capability",
        "stream_id",
        "block_encryption",
        "compact_uint",
        "compact_buffer",
        "compact_string",
        "flat_tree",
    ];
    let elsewhere = [
        ("crc32", include_str!("../../src/oplog/frame.rs")),
        ("oplog", include_str!("../../src/oplog/entry.rs")),
        ("oplog", include_str!("../../src/oplog/header.rs")),
        ("wire", include_str!("../talk/messages.rs")),
        ("noise_dh", include_str!("../talk/wire_vectors.rs")),
        ("noise_xx", include_str!("../talk/wire_vectors.rs")),
        ("secretstream", include_str!("../talk/wire_vectors.rs")),
    ];
    let v = vectors();
    for section in v.as_object().unwrap().keys().filter(|name| *name != "reference") {
        let read = format!("[\"{section}\"]");
        let known = match elsewhere.iter().filter(|(name, _)| name == section).collect::<Vec<_>>() {
            files if files.is_empty() => here.contains(&section.as_str()),
            files => files.iter().all(|(_, text)| text.contains(&read)),
        };
        assert!(known, "{section}");
    }
}

#[test]
fn namespaces_match_reference() {
    let v = vectors();
    let ns = hash::namespaces();
    let ours = [
        ("TREE", ns.tree),
        ("REPLICATE_INITIATOR", ns.replicate_initiator),
        ("REPLICATE_RESPONDER", ns.replicate_responder),
        ("MANIFEST", ns.manifest),
        ("DEFAULT_NAMESPACE", ns.default_namespace),
        ("BLOCK_ENCRYPTION", ns.block_encryption),
    ];
    for (name, ours) in ours {
        assert_eq!(ours, fixed(&v["namespaces"][name]), "{name}");
    }
    assert_eq!(ns.stream_initiator, fixed(&v["secret_stream_namespaces"]["INITIATOR"]));
    assert_eq!(ns.stream_responder, fixed(&v["secret_stream_namespaces"]["RESPONDER"]));
    // SEND is for datagrams, which a stream does not use.
    let send = hash::hash(&[&hash::hash(&[b"hyperswarm/secret-stream"]), &[2]]);
    assert_eq!(send, fixed(&v["secret_stream_namespaces"]["SEND"]));
}

#[test]
fn keys_and_text_forms_match_reference() {
    let v = &vectors()["key_pair"];
    let pair = KeyPair::from_seed(&fixed(&v["seed"]));
    assert_eq!(pair.public_key(), Key::new(fixed(&v["public_key"])));
    assert_eq!(*pair.secret_key(), fixed(&v["secret_key"]));
    assert_eq!(KeyPair::from_secret_key(&fixed(&v["secret_key"])).unwrap(), pair);
    assert_eq!(pair.public_key().discovery_key().as_bytes(), &fixed(&v["discovery_key"]));
    let z32 = v["z32"].as_str().unwrap();
    assert_eq!(pair.public_key().id(), z32);
    assert_eq!(z32.parse::<Key>().unwrap(), pair.public_key());
    let hex = v["public_key"].as_str().unwrap();
    assert_eq!(pair.public_key().to_hex(), hex);
    assert_eq!(hex.parse::<Key>().unwrap(), pair.public_key());
    assert_eq!(hex.to_uppercase().parse::<Key>().unwrap(), pair.public_key());
}

#[test]
fn malformed_keys_are_refused() {
    for text in ["", "7", &"g".repeat(64), &"l".repeat(52), &"0".repeat(52), &"a".repeat(63), &"y".repeat(53)] {
        assert!(text.parse::<Key>().is_err(), "{text}");
    }
    let mut crossed = *crate::common::pair(1).secret_key();
    crossed[63] ^= 1;
    assert!(KeyPair::from_secret_key(&crossed).is_err());
}

#[test]
fn manifests_match_reference() {
    let v = vectors();
    let m = &v["manifest"];
    let key = Key::new(fixed(&v["key_pair"]["public_key"]));
    let single = Manifest::single(key);
    let v0 = Manifest { version: 0, ..single.clone() };
    let two = each(&m["two_of_two"]["public_keys"]).map(|k| Signer::new(Key::new(fixed(k)))).collect();
    let two = Manifest::new(two).with_allow_patch(true).with_quorum(2);
    let two = if bytes(&m["two_of_two"]["encoded"])[1] & 1 == 0 { two.with_allow_patch(false) } else { two };
    for (manifest, encoded, hash) in [
        (single, &m["default_signer_encoded"], &m["default_signer_hash"]),
        (v0, &m["v0_encoded"], &m["v0_hash"]),
        (two, &m["two_of_two"]["encoded"], &m["two_of_two"]["hash"]),
    ] {
        let mut w = Writer::new();
        manifest.encode(&mut w);
        assert_eq!(w.as_slice(), bytes(encoded));
        assert_eq!(manifest.hash(), fixed(hash));
        assert_eq!(manifest.key(), Key::new(fixed(hash)));
        let mut r = Reader::new(w.as_slice());
        assert_eq!(Manifest::decode(&mut r).unwrap(), manifest);
        assert!(r.is_empty());
    }
}

#[test]
fn hashes_of_leaves_parents_and_tree_match_reference() {
    let v = vectors();
    let mut roots = Roots::default();
    let mut made = Vec::new();
    for (i, leaf) in each(&v["leaves"]).enumerate() {
        let node = Node::leaf(i as u64, &bytes(&leaf["data"]));
        assert_eq!(node.index.0, number(&leaf["index"]));
        assert_eq!(node.size, number(&leaf["size"]));
        assert_eq!(node.hash, fixed(&leaf["hash"]));
        roots.push(node, |n| made.push(*n)).unwrap();
    }
    for parent in each(&v["parents"]) {
        let ours = made.iter().find(|n| n.index.0 == number(&parent["index"])).unwrap();
        assert_eq!(ours.size, number(&parent["size"]));
        assert_eq!(ours.hash, fixed(&parent["hash"]));
    }
    let t = &v["tree_hash"];
    let indices: Vec<u64> = roots.nodes().iter().map(|n| n.index.0).collect();
    assert_eq!(indices, each(&t["roots"]).map(number).collect::<Vec<_>>());
    assert_eq!((roots.length(), roots.byte_length()), (number(&t["length"]), number(&t["byte_length"])));
    assert_eq!(roots.tree_hash(), fixed(&t["hash"]));
}

#[test]
fn signables_and_signatures_match_reference() {
    let v = vectors();
    let s = &v["signable"];
    let pair = KeyPair::from_seed(&fixed(&v["key_pair"]["seed"]));
    let mut roots = Roots::default();
    for (i, leaf) in each(&v["leaves"]).enumerate() {
        roots.push(Node::leaf(i as u64, &bytes(&leaf["data"])), |_| ()).unwrap();
    }
    assert_eq!(roots.length(), number(&s["length"]));
    let tree = SignableTree { roots: &roots, fork: number(&s["fork"]) };
    let single = Manifest::single(pair.public_key());

    let compat = Verifier::new(pair.public_key(), Some(single.clone()), true).unwrap();
    let signature: [u8; 64] = fixed(&s["compat_signature"]);
    assert_eq!(pair.sign(&bytes(&s["compat"])), signature);
    assert_eq!(compat.sign(tree, &pair).unwrap(), signature);
    compat.check(tree, &signature).unwrap();

    let manifest = Verifier::new(single.key(), Some(single), false).unwrap();
    let signature: [u8; 64] = fixed(&s["manifest_signature"]);
    assert_eq!(pair.sign(&bytes(&s["manifest"])), signature);
    let share = manifest.sign_partial(tree, &pair).unwrap();
    assert_eq!(share.signature, signature);
    let wrapped = MultiSignature::assemble(1, vec![share]).encode(1);
    assert_eq!(manifest.sign(tree, &pair).unwrap(), wrapped);
    manifest.check(tree, &wrapped).unwrap();
    assert!(manifest.check(tree, &signature).is_err());
    assert!(compat.check(tree, &wrapped).is_err());
}

#[test]
fn capabilities_and_stream_ids_match_reference() {
    let v = vectors();
    let c = &v["capability"];
    for (initiator, name) in [(true, "initiator"), (false, "responder")] {
        let ours = hash::capability(initiator, &fixed(&c["key"]), &fixed(&c["handshake_hash"]));
        assert_eq!(ours, fixed(&c[name]));
        let s = &v["stream_id"];
        assert_eq!(hash::stream_id(initiator, &fixed(&s["handshake_hash"])), fixed(&s[name]));
    }
}

#[test]
fn block_encryption_matches_reference() {
    for case in each(&vectors()["block_encryption"]) {
        let compat = case["compat"].as_bool().unwrap();
        let cipher = BlockCipher::new(&fixed(&case["encryption_key"]), &fixed(&case["core_key"]), compat);
        let (index, fork) = (number(&case["index"]), number(&case["fork"]));
        let stored = cipher.encrypt(index, fork, &bytes(&case["plain"]));
        assert_eq!(stored, bytes(&case["stored"]));
        assert_eq!(cipher.decrypt(index, fork, stored).unwrap(), bytes(&case["plain"]));
        let block_key: [u8; 32] = fixed(&case["block_key"]);
        let (core_key, key) = (bytes(&case["core_key"]), bytes(&case["encryption_key"]));
        let derived = match compat {
            true => hash::keyed_hash(&core_key, &[&key]),
            false => hash::hash(&[&hash::namespaces().block_encryption, &core_key, &key]),
        };
        assert_eq!(derived, block_key);
        assert_eq!(hash::hash(&[&block_key]), fixed(&case["blinding_key"]));
    }
}

#[test]
fn compact_encoding_matches_reference() {
    let v = vectors();
    for case in each(&v["compact_uint"]) {
        let mut w = Writer::new();
        w.uint(number(&case["value"]));
        assert_eq!(w.as_slice(), bytes(&case["encoded"]));
        let mut r = Reader::new(w.as_slice());
        assert_eq!((r.uint().unwrap(), r.is_empty()), (number(&case["value"]), true));
    }
    for case in each(&v["compact_buffer"]) {
        let value = if case["value"].is_null() { Vec::new() } else { bytes(&case["value"]) };
        let mut w = Writer::new();
        w.buffer(&value);
        assert_eq!(w.as_slice(), bytes(&case["encoded"]));
        assert_eq!(Reader::new(w.as_slice()).buffer().unwrap(), value);
    }
    for case in each(&v["compact_string"]) {
        let mut w = Writer::new();
        w.string(case["value"].as_str().unwrap());
        assert_eq!(w.as_slice(), bytes(&case["encoded"]));
        assert_eq!(Reader::new(w.as_slice()).string().unwrap(), case["value"].as_str().unwrap());
    }
}

#[test]
fn flat_tree_matches_reference() {
    let f = &vectors()["flat_tree"];
    let roots: Vec<u64> = full_roots(10).map(|n| n.0).collect();
    assert_eq!(roots, each(&f["full_roots_of_10"]).map(number).collect::<Vec<_>>());
    let seven = NodeIndex(7);
    assert_eq!(vec![seven.left_span().0, seven.right_span().0], each(&f["spans_of_7"]).map(number).collect::<Vec<_>>());
    assert_eq!(NodeIndex(8).parent().0, number(&f["parent_of_8"]));
    assert_eq!(u64::from(seven.depth()), number(&f["depth_of_7"]));
}

/// A signature that one side accepts and the other refuses would part their logs.
#[test]
fn verifier_accepts_signatures_that_libsodium_accepts() {
    let mut counts = [0, 0];
    for line in include_str!("../vectors/ed25519-verify.txt").lines().filter(|l| !l.starts_with('#')) {
        let fields: Vec<&str> = line.split('|').collect();
        let [name, key, message, signature, verdict] = fields[..] else { panic!("{line}") };
        let expected = verdict == "1";
        let ours = keys::verify(&unhex(key).try_into().unwrap(), &unhex(message), &unhex(signature));
        assert_eq!(ours, expected, "{name}");
        counts[usize::from(expected)] += 1;
    }
    assert_eq!(counts[0] + counts[1], 1344);
    assert!(counts[0] > 100 && counts[1] > 100, "{counts:?}");
}

/// Any library gives the same bytes. The vectors are those of RFC 8032, and one of the all-zero seed.
#[test]
fn signatures_match_rfc_8032() {
    let cases = [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ),
    ];
    for (seed, public, message, signature) in cases {
        let pair = KeyPair::from_seed(&unhex(seed).try_into().unwrap());
        assert_eq!(pair.public_key().to_hex(), public);
        let ours = pair.sign(&unhex(message));
        assert_eq!(ours.to_vec(), unhex(signature));
        assert!(keys::verify(pair.public_key().as_bytes(), &unhex(message), &ours));
    }
    let zero = KeyPair::from_seed(&[0; 32]);
    assert_eq!(zero.public_key().to_hex(), "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29");
    let signature = zero.sign(b"zero");
    assert!(keys::verify(zero.public_key().as_bytes(), b"zero", &signature));
    assert!(!keys::verify(zero.public_key().as_bytes(), b"Zero", &signature));
}
