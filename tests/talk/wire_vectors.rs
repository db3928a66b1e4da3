//! The handshake and the encryption yield the bytes of libsodium and of the JavaScript reference.

use hypercore::KeyPair;
use hypercore::lowlevel::crypto::hash::stream_id;
use hypercore::lowlevel::wire::edwards::shared_point;
use hypercore::lowlevel::wire::frame;
use hypercore::lowlevel::wire::noise::{Initiator, Responder, Role};
use hypercore::lowlevel::wire::noise_stream::{Established, NoiseStream};
use hypercore::lowlevel::wire::secretstream::{MAC, OVERHEAD, Pull, Push};
use serde_json::Value;

use crate::common::{unhex, unhex_array};

fn vectors() -> Value {
    serde_json::from_str(include_str!("../vectors/vectors.json")).unwrap()
}

fn bytes<const N: usize>(value: &Value) -> [u8; N] {
    unhex_array(value.as_str().unwrap())
}

fn key_pair(seed: &Value) -> KeyPair {
    KeyPair::from_seed(&bytes(seed))
}

#[test]
fn shared_points_match_libsodium() {
    let (mut accepted, mut refused) = (0, 0);
    for line in include_str!("../vectors/noise-dh.txt").lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split('|').collect();
        let [kind, secret, public, expected] = fields[..] else { panic!("{line}") };
        let pair = KeyPair::from_secret_key(&unhex_array(secret)).unwrap();
        let shared = shared_point(&pair, &unhex_array(public));
        if expected == "reject" {
            assert!(shared.is_err(), "{kind} {public} was accepted");
            refused += 1;
        } else {
            assert_eq!(shared.unwrap()[..], unhex(expected), "{kind} {public}");
            accepted += 1;
        }
    }
    assert_eq!(accepted + refused, 383);
    assert!(refused > 60, "{refused}");
}

#[test]
fn shared_point_is_equal_on_both_sides() {
    let v = &vectors()["noise_dh"];
    let (a, b) = (key_pair(&v["a_seed"]), bytes(&v["b_public"]));
    assert_eq!(*shared_point(&a, &b).unwrap(), bytes(&v["shared"]));
}

#[test]
fn handshake_matches_reference() {
    let v = &vectors()["noise_xx"];
    let ephemeral = [key_pair(&v["initiator_ephemeral_seed"]), key_pair(&v["responder_ephemeral_seed"])];
    // The reference has zeroed the ephemeral keys in the messages of the vectors. The rest of each message
    // is as sent.
    let mut expected = [1, 2, 3].map(|i| unhex(v[format!("message{i}")].as_str().unwrap()));
    for (message, ephemeral) in expected.iter_mut().zip(&ephemeral) {
        message[..32].copy_from_slice(ephemeral.public_key().as_bytes());
    }

    let (a, b) = (key_pair(&v["initiator_seed"]), key_pair(&v["responder_seed"]));
    let (initiator, first) = Initiator::new(a.clone(), ephemeral[0].clone());
    let (answered, second) = Responder::new(b.clone(), ephemeral[1].clone()).answer(&first).unwrap();
    let (third, ours) = initiator.finish(&second).unwrap();
    let theirs = answered.finish(&third).unwrap();

    assert_eq!([first, second, third], expected);
    assert_eq!(*ours.tx, bytes(&v["initiator_tx"]));
    assert_eq!(*ours.rx, bytes(&v["initiator_rx"]));
    assert_eq!((&ours.tx, &ours.rx), (&theirs.rx, &theirs.tx));
    assert_eq!(ours.handshake_hash, bytes(&v["handshake_hash"]));
    assert_eq!(theirs.handshake_hash, bytes(&v["responder_hash"]));
    assert_eq!((ours.remote_public_key, theirs.remote_public_key), (b.public_key(), a.public_key()));
}

#[test]
fn noise_stream_sends_handshake_then_stream_id_and_header() {
    let v = &vectors()["noise_xx"];
    let header = bytes(&vectors()["secretstream"]["header"]);
    let mut a = NoiseStream::with_randomness(
        Role::Initiator,
        &key_pair(&v["initiator_seed"]),
        key_pair(&v["initiator_ephemeral_seed"]),
        header,
    );
    let mut b = NoiseStream::with_randomness(
        Role::Responder,
        &key_pair(&v["responder_seed"]),
        key_pair(&v["responder_ephemeral_seed"]),
        header,
    );
    b.feed(&a.take_output());
    assert!(!b.advance().unwrap());
    a.feed(&b.take_output());
    assert!(a.advance().unwrap());
    let sent = a.take_output();
    let mut expected = framed(&unhex(v["message3"].as_str().unwrap()));
    let hash = bytes(&v["handshake_hash"]);
    expected.extend(framed(&[&stream_id(true, &hash)[..], &header].concat()));
    assert_eq!(sent, expected);

    b.feed(&sent);
    assert!(b.advance().unwrap());
    let Established { handshake_hash, output, .. } = b.split().unwrap();
    assert_eq!(handshake_hash, hash);
    assert_eq!(output, framed(&[&stream_id(false, &hash)[..], &header].concat()));
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&frame::prefix(message.len())[..], message].concat()
}

#[test]
fn stream_ids_match_reference() {
    let v = &vectors()["stream_id"];
    let hash = bytes(&v["handshake_hash"]);
    assert_eq!(stream_id(true, &hash), bytes(&v["initiator"]));
    assert_eq!(stream_id(false, &hash), bytes(&v["responder"]));
}

#[test]
fn secretstream_messages_match_reference() {
    let v = &vectors()["secretstream"];
    let (key, header) = (bytes(&v["key"]), bytes(&v["header"]));
    let (mut push, mut pull) = (Push::new(&key, &header), Pull::new(&key, &header));
    for message in v["messages"].as_array().unwrap() {
        let plain = unhex(message["plain"].as_str().unwrap());
        let mut sealed = seal(&mut push, 0, &plain);
        assert_eq!(sealed, unhex(message["cipher"].as_str().unwrap()));
        assert_eq!(pull.pull(&mut sealed).unwrap(), 0);
        assert_eq!(sealed[1..sealed.len() - MAC], plain);
    }
}

fn seal(push: &mut Push, tag: u8, plain: &[u8]) -> Vec<u8> {
    let mut text = plain.to_vec();
    let (tag, mac) = push.push(tag, &mut text);
    let sealed = [&[tag][..], &text, &mac].concat();
    assert_eq!(sealed.len(), plain.len() + OVERHEAD);
    sealed
}
