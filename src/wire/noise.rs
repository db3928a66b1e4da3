//! The handshake `Noise_XX_Ed25519_ChaChaPoly_BLAKE2b` with an empty prologue, as in npm `noise-handshake`.
//!
//! Three messages: `e`, then `e, ee, s, es`, then `s, se`. Each has a payload, which we send empty and ignore
//! in the peer's. BLAKE2b has 64 bytes of output; HMAC is the generic one over its blocks of 128 bytes. Each
//! state is a type that the next message consumes, so no message can be read twice or out of order.

use std::fmt;

use blake2_rfc::blake2b::Blake2b;
use chacha20::cipher::StreamCipher;
use chacha20::{ChaCha20, KeyIvInit};
use poly1305::Poly1305;
use poly1305::universal_hash::{KeyInit, UniversalHash};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::crypto::keys::{Key, KeyPair};
use crate::wire::edwards::shared_point;
use crate::{Error, Result};

const PROTOCOL: &[u8] = b"Noise_XX_Ed25519_ChaChaPoly_BLAKE2b";
const HASH: usize = 64;
const HASH_BLOCK: usize = 128;
const KEY: usize = 32;
const MAC: usize = 16;

/// Which side of a connection this is.
#[doc(alias = "isInitiator")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The side that opened the connection. It sends the first message.
    Initiator,
    /// The side that accepted the connection.
    Responder,
}

impl Role {
    /// Whether this is the side that opened the connection.
    pub fn is_initiator(self) -> bool {
        self == Role::Initiator
    }
}

/// The result of a handshake.
pub struct Secrets {
    /// The key for sending.
    pub tx: Zeroizing<[u8; KEY]>,
    /// The key for receiving.
    pub rx: Zeroizing<[u8; KEY]>,
    /// The hash of all handshake messages: the same on both sides, and different for every connection.
    pub handshake_hash: [u8; HASH],
    /// The peer's key; the peer has proved that it holds the secret key.
    pub remote_public_key: Key,
}

/// The initiator, waiting for the second message.
pub struct Initiator(Party);

/// The responder, waiting for the first message.
pub struct Responder(Party);

/// The responder, waiting for the third message.
pub struct Answered(Party);

impl Initiator {
    /// Starts a handshake; returns the first message. `ephemeral` must be random and used for this handshake only.
    pub fn new(pair: KeyPair, ephemeral: KeyPair) -> (Self, Vec<u8>) {
        let mut party = Party::new(pair, ephemeral);
        let mut message = Vec::with_capacity(KEY);
        party.send_ephemeral(&mut message);
        party.symmetric.seal(&[], &mut message);
        (Initiator(party), message)
    }

    /// Reads the second message; returns the third, and the secrets.
    pub fn finish(self, message: &[u8]) -> Result<(Vec<u8>, Secrets)> {
        let mut party = self.0;
        let mut rest = message;
        let ephemeral = party.read_ephemeral(&mut rest)?;
        party.mix_shared(OwnKey::Ephemeral, &ephemeral)?;
        let identity = party.read_static(&mut rest)?;
        party.mix_shared(OwnKey::Ephemeral, &identity)?;
        party.symmetric.open(rest)?;

        let mut reply = Vec::with_capacity(KEY + 2 * MAC);
        party.send_static(&mut reply);
        party.mix_shared(OwnKey::Static, &ephemeral)?;
        party.symmetric.seal(&[], &mut reply);
        Ok((reply, party.symmetric.split(Role::Initiator, identity)))
    }
}

impl Responder {
    /// Waits for an initiator. `ephemeral` must be random and used for this handshake only.
    pub fn new(pair: KeyPair, ephemeral: KeyPair) -> Self {
        Responder(Party::new(pair, ephemeral))
    }

    /// Reads the first message; returns the second.
    pub fn answer(self, message: &[u8]) -> Result<(Answered, Vec<u8>)> {
        let mut party = self.0;
        let mut rest = message;
        let ephemeral = party.read_ephemeral(&mut rest)?;
        party.symmetric.open(rest)?;

        let mut reply = Vec::with_capacity(2 * KEY + 2 * MAC);
        party.send_ephemeral(&mut reply);
        party.mix_shared(OwnKey::Ephemeral, &ephemeral)?;
        party.send_static(&mut reply);
        party.mix_shared(OwnKey::Static, &ephemeral)?;
        party.symmetric.seal(&[], &mut reply);
        Ok((Answered(party), reply))
    }
}

impl Answered {
    /// Reads the third message; returns the secrets.
    pub fn finish(self, message: &[u8]) -> Result<Secrets> {
        let mut party = self.0;
        let mut rest = message;
        let identity = party.read_static(&mut rest)?;
        party.mix_shared(OwnKey::Ephemeral, &identity)?;
        party.symmetric.open(rest)?;
        Ok(party.symmetric.split(Role::Responder, identity))
    }
}

/// Which of our own keys takes part in a Diffie-Hellman.
enum OwnKey {
    Static,
    Ephemeral,
}

struct Party {
    symmetric: Symmetric,
    pair: KeyPair,
    ephemeral: KeyPair,
}

impl Party {
    fn new(pair: KeyPair, ephemeral: KeyPair) -> Self {
        Party { symmetric: Symmetric::new(), pair, ephemeral }
    }

    fn send_ephemeral(&mut self, out: &mut Vec<u8>) {
        let public = self.ephemeral.public_key();
        self.symmetric.mix_hash(public.as_bytes());
        out.extend_from_slice(public.as_bytes());
    }

    fn read_ephemeral(&mut self, rest: &mut &[u8]) -> Result<[u8; KEY]> {
        let key = *take::<KEY>(rest)?;
        self.symmetric.mix_hash(&key);
        Ok(key)
    }

    fn send_static(&mut self, out: &mut Vec<u8>) {
        self.symmetric.seal(self.pair.public_key().as_bytes(), out);
    }

    fn read_static(&mut self, rest: &mut &[u8]) -> Result<[u8; KEY]> {
        let plain = self.symmetric.open(take::<{ KEY + MAC }>(rest)?)?;
        plain.try_into().map_err(|_| Error::protocol("the public key in the peer's handshake is too short"))
    }

    fn mix_shared(&mut self, own_key: OwnKey, remote: &[u8; KEY]) -> Result<()> {
        let pair = match own_key {
            OwnKey::Static => &self.pair,
            OwnKey::Ephemeral => &self.ephemeral,
        };
        self.symmetric.mix_key(&*shared_point(pair, remote)?);
        Ok(())
    }
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Result<&'a [u8; N]> {
    let (head, tail) =
        rest.split_first_chunk().ok_or_else(|| Error::protocol("the peer's handshake message is too short"))?;
    *rest = tail;
    Ok(head)
}

/// Noise's symmetric state and cipher state.
struct Symmetric {
    hash: [u8; HASH],
    chaining_key: Zeroizing<[u8; HASH]>,
    /// None before the first Diffie-Hellman; until then nothing is encrypted.
    key: Option<Zeroizing<[u8; KEY]>>,
    nonce: u32,
}

impl Symmetric {
    fn new() -> Self {
        let mut hash = [0; HASH];
        hash[..PROTOCOL.len()].copy_from_slice(PROTOCOL);
        let mut symmetric = Symmetric { hash, chaining_key: Zeroizing::new(hash), key: None, nonce: 0 };
        symmetric.mix_hash(&[]);
        symmetric
    }

    fn mix_hash(&mut self, data: &[u8]) {
        self.hash = *blake2b(&[&self.hash, data]);
    }

    fn mix_key(&mut self, input: &[u8]) {
        let (chaining_key, key) = hkdf(&self.chaining_key, input);
        self.chaining_key = chaining_key;
        self.key = Some(first_half(&key));
        self.nonce = 0;
    }

    /// Appends `plain` to `out`, encrypted if there is a key, and mixes the result into the hash.
    fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(plain);
        if let Some((mut cipher, mac_key)) = self.next_cipher() {
            cipher.apply_keystream(&mut out[start..]);
            let mac = mac(&mac_key, &self.hash, &out[start..]);
            out.extend_from_slice(&mac);
        }
        self.mix_hash(&out[start..]);
    }

    /// Decrypts a message of the other side's [`seal`](Self::seal).
    fn open(&mut self, message: &[u8]) -> Result<Vec<u8>> {
        let plain = match self.next_cipher() {
            None => message.to_vec(),
            Some((mut cipher, mac_key)) => {
                let (text, their_mac) = message
                    .split_last_chunk::<MAC>()
                    .ok_or_else(|| Error::protocol("the peer's handshake message is too short"))?;
                if !bool::from(mac(&mac_key, &self.hash, text).ct_eq(their_mac)) {
                    return Err(Error::protocol("the peer's handshake fails its authentication"));
                }
                let mut plain = text.to_vec();
                cipher.apply_keystream(&mut plain);
                plain
            }
        };
        self.mix_hash(message);
        Ok(plain)
    }

    /// The cipher for the next text, and the key of its MAC.
    fn next_cipher(&mut self) -> Option<(ChaCha20, Zeroizing<[u8; 32]>)> {
        let key = self.key.as_ref()?;
        let mut nonce = [0; 12];
        nonce[4..8].copy_from_slice(&self.nonce.to_le_bytes());
        self.nonce += 1;
        let mut cipher = ChaCha20::new((&**key).into(), (&nonce).into());
        let mut block = Zeroizing::new([0; HASH]);
        cipher.apply_keystream(&mut *block);
        Some((cipher, first_half(&block)))
    }

    fn split(self, role: Role, remote: [u8; KEY]) -> Secrets {
        let (first, second) = hkdf(&self.chaining_key, &[]);
        let (tx, rx) = match role {
            Role::Initiator => (first, second),
            Role::Responder => (second, first),
        };
        Secrets {
            tx: first_half(&tx),
            rx: first_half(&rx),
            handshake_hash: self.hash,
            remote_public_key: Key::new(remote),
        }
    }
}

fn first_half(bytes: &[u8; HASH]) -> Zeroizing<[u8; 32]> {
    let mut half = Zeroizing::new([0; 32]);
    half.copy_from_slice(&bytes[..32]);
    half
}

/// Poly1305 as in RFC 8439: additional data and ciphertext, each padded to whole blocks, and both lengths.
fn mac(key: &[u8; 32], additional: &[u8], ciphertext: &[u8]) -> [u8; MAC] {
    let mut mac = Poly1305::new(key.into());
    mac.update_padded(additional);
    mac.update_padded(ciphertext);
    let mut lengths = [0; 16];
    lengths[..8].copy_from_slice(&(additional.len() as u64).to_le_bytes());
    lengths[8..].copy_from_slice(&(ciphertext.len() as u64).to_le_bytes());
    mac.compute_unpadded(&lengths).into()
}

fn hkdf(chaining_key: &[u8; HASH], input: &[u8]) -> (Zeroizing<[u8; HASH]>, Zeroizing<[u8; HASH]>) {
    let key = hmac(chaining_key, &[input]);
    let first = hmac(&key, &[&[1]]);
    let second = hmac(&key, &[&*first, &[2]]);
    (first, second)
}

fn hmac(key: &[u8; HASH], parts: &[&[u8]]) -> Zeroizing<[u8; HASH]> {
    let (mut inner, mut outer) = (Zeroizing::new([0x36; HASH_BLOCK]), Zeroizing::new([0x5c; HASH_BLOCK]));
    for (i, byte) in key.iter().enumerate() {
        inner[i] ^= byte;
        outer[i] ^= byte;
    }
    let mut state = Blake2b::new(HASH);
    state.update(&*inner);
    for part in parts {
        state.update(part);
    }
    blake2b(&[&*outer, state.finalize().as_bytes()])
}

fn blake2b(parts: &[&[u8]]) -> Zeroizing<[u8; HASH]> {
    let mut state = Blake2b::new(HASH);
    for part in parts {
        state.update(part);
    }
    let mut out = Zeroizing::new([0; HASH]);
    out.copy_from_slice(state.finalize().as_bytes());
    out
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").field("remote_public_key", &self.remote_public_key).finish_non_exhaustive()
    }
}
