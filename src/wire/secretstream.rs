//! libsodium's `secretstream_xchacha20poly1305`, encrypting and decrypting in place.
//!
//! A message is one byte (the encrypted tag) ‖ ciphertext ‖ a MAC of 16 bytes. The key of a stream is
//! HChaCha20(key, the header's first 16 bytes). Its nonce is a counter, u32 from 1, ‖ the header's last 8 bytes.
//! For each message, ChaCha20's block 0 is the key of Poly1305, block 1 encrypts the tag (and 63 zeros), and the
//! text begins at block 2. Then the first 8 bytes of the MAC are xored into the nonce's last 8, and the counter
//! increments. A tag with the rekey bit, or a counter that wraps, replaces key and nonce by their own encryption.
//!
//! The MAC covers the tag's block, the ciphertext, zeros, u64 0 and u64 (64 + the text's length). The number of
//! zeros is `length & 15`, where padding to a whole block was meant; every implementation shares this quirk.

use std::fmt;

use chacha20::cipher::StreamCipher;
use chacha20::{ChaCha20, KeyIvInit, R20, hchacha};
use poly1305::universal_hash::{KeyInit, UniversalHash};
use poly1305::{Block, Poly1305};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::{Error, Result};

/// The bytes of a stream's header.
pub const HEADER: usize = 24;

/// The bytes of a MAC.
pub const MAC: usize = 16;

/// How many bytes a message is longer than its text.
pub const OVERHEAD: usize = 1 + MAC;

/// The tag of an ordinary message, the only one that we write.
pub const TAG_MESSAGE: u8 = 0;

/// The bit of a tag after which both sides replace the key.
pub const TAG_REKEY: u8 = 2;

/// The sending end of a stream.
pub struct Push(State);

/// The receiving end of a stream.
pub struct Pull(State);

impl Push {
    /// Starts a stream. `header` must be random, and is sent before the first message.
    pub fn new(key: &[u8; 32], header: &[u8; HEADER]) -> Self {
        Push(State::new(key, header))
    }

    /// Encrypts `text` in place. The message is the first value returned, then `text`, then the second value.
    pub fn push(&mut self, tag: u8, text: &mut [u8]) -> (u8, [u8; MAC]) {
        let mut keystream = self.0.keystream();
        keystream.tag_block[0] ^= tag;
        keystream.cipher.apply_keystream(text);
        let mac = keystream.mac(text);
        self.0.advance(tag, &mac);
        (keystream.tag_block[0], mac)
    }
}

impl Pull {
    /// Starts reading the stream that `header` started.
    pub fn new(key: &[u8; 32], header: &[u8; HEADER]) -> Self {
        Pull(State::new(key, header))
    }

    /// Decrypts `message` in place; its text is then `message[1..message.len() - MAC]`. Returns the tag; any
    /// tag is accepted, as in libsodium. A message that is not the next one of this stream is left unchanged.
    pub fn pull(&mut self, message: &mut [u8]) -> Result<u8> {
        let Some((rest, mac)) = message.split_last_chunk_mut::<MAC>() else { return Err(too_short()) };
        let Some((tag, text)) = rest.split_first_mut() else { return Err(too_short()) };
        let mut keystream = self.0.keystream();
        let plain_tag = *tag ^ keystream.tag_block[0];
        keystream.tag_block[0] = *tag;
        if !bool::from(keystream.mac(text).ct_eq(mac)) {
            return Err(Error::protocol("a message of the peer fails its authentication"));
        }
        keystream.cipher.apply_keystream(text);
        self.0.advance(plain_tag, mac);
        Ok(plain_tag)
    }
}

fn too_short() -> Error {
    Error::protocol("the peer sends a message of less than 17 bytes, too short to be encrypted")
}

struct State {
    key: Zeroizing<[u8; 32]>,
    /// Counter (4 bytes) ‖ the header's last 8 bytes, xored with the MACs so far.
    nonce: [u8; 12],
}

/// The start of a message's keystream, and the cipher that continues it.
struct Keystream {
    mac_key: Zeroizing<[u8; 32]>,
    tag_block: [u8; 64],
    cipher: ChaCha20,
}

impl State {
    fn new(key: &[u8; 32], header: &[u8; HEADER]) -> Self {
        let mut input = [0; 16];
        input.copy_from_slice(&header[..16]);
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&header[16..]);
        let mut state = State { key: Zeroizing::new(hchacha::<R20>(key.into(), &input.into()).into()), nonce };
        state.set_counter(1);
        state
    }

    fn set_counter(&mut self, counter: u32) {
        self.nonce[..4].copy_from_slice(&counter.to_le_bytes());
    }

    fn counter(&self) -> u32 {
        let [a, b, c, d, ..] = self.nonce;
        u32::from_le_bytes([a, b, c, d])
    }

    fn cipher(&self) -> ChaCha20 {
        ChaCha20::new((&*self.key).into(), (&self.nonce).into())
    }

    fn keystream(&self) -> Keystream {
        let mut cipher = self.cipher();
        let mut blocks = Zeroizing::new([0; 128]);
        cipher.apply_keystream(&mut *blocks);
        let (mut mac_key, mut tag_block) = (Zeroizing::new([0; 32]), [0; 64]);
        mac_key.copy_from_slice(&blocks[..32]);
        tag_block.copy_from_slice(&blocks[64..]);
        Keystream { mac_key, tag_block, cipher }
    }

    fn advance(&mut self, tag: u8, mac: &[u8; MAC]) {
        for (byte, mac) in self.nonce[4..].iter_mut().zip(mac) {
            *byte ^= mac;
        }
        self.set_counter(self.counter().wrapping_add(1));
        if tag & TAG_REKEY != 0 || self.counter() == 0 {
            self.rekey();
        }
    }

    fn rekey(&mut self) {
        let mut next = Zeroizing::new([0; 40]);
        next[..32].copy_from_slice(&*self.key);
        next[32..].copy_from_slice(&self.nonce[4..]);
        self.cipher().apply_keystream(&mut *next);
        self.key.copy_from_slice(&next[..32]);
        self.nonce[4..].copy_from_slice(&next[32..]);
        self.set_counter(1);
    }
}

impl Keystream {
    fn mac(&self, ciphertext: &[u8]) -> [u8; MAC] {
        let mut mac = Poly1305::new((&*self.mac_key).into());
        mac.update(Block::slice_as_chunks(&self.tag_block).0);
        let (blocks, rest) = Block::slice_as_chunks(ciphertext);
        mac.update(blocks);
        // The rest (at most 15 bytes), as many zeros again, and the two lengths.
        let mut tail = [0; 46];
        let zeros = rest.len() * 2;
        tail[..rest.len()].copy_from_slice(rest);
        tail[zeros + 8..zeros + 16].copy_from_slice(&(64 + ciphertext.len() as u64).to_le_bytes());
        mac.compute_unpadded(&tail[..zeros + 16]).into()
    }
}

impl fmt::Debug for Push {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Push").finish_non_exhaustive()
    }
}

impl fmt::Debug for Pull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pull").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::hash::hash;

    fn unhex(text: &str) -> Vec<u8> {
        (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
    }

    /// Every length around a block of Poly1305 and of ChaCha20, every tag, and both reasons for a new key.
    #[test]
    fn every_length_and_tag_matches_libsodium() {
        let text = include_str!("../../tests/vectors/secretstream.txt");
        let mut lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let header = unhex(lines.remove(0).strip_prefix("header|").unwrap()).try_into().unwrap();
        let (mut push, mut pull) = (Push::new(&[0x42; 32], &header), Pull::new(&[0x42; 32], &header));
        for (i, line) in lines.iter().enumerate() {
            let fields: Vec<&str> = line.split('|').collect();
            let (n, tag): (usize, u8) = (fields[0].parse().unwrap(), fields[1].parse().unwrap());
            if i + 2 == lines.len() {
                push.0.set_counter(u32::MAX);
                pull.0.set_counter(u32::MAX);
            }
            let plain: Vec<u8> = (0..n).map(|i| (i * 7 + n) as u8).collect();
            let mut text = plain.clone();
            let (first, mac) = push.push(tag, &mut text);
            let mut message = [&[first], &text[..], &mac].concat();
            let shown = if message.len() > 300 { hash(&[&message]).to_vec() } else { message.clone() };
            assert_eq!(shown, unhex(fields[2]), "message {i}, {n} bytes, tag {tag}");
            assert_eq!(pull.pull(&mut message).unwrap(), tag);
            assert_eq!(message[1..message.len() - MAC], plain);
        }
        assert_eq!(push.0.counter(), 2, "the counter that wrapped began anew");
    }

    #[test]
    fn forged_message_is_unchanged_and_next_valid_one_decrypts() {
        let (mut push, mut pull) = (Push::new(&[1; 32], &[2; 24]), Pull::new(&[1; 32], &[2; 24]));
        let mut text = *b"something to say";
        let (first, mac) = push.push(TAG_MESSAGE, &mut text);
        let good = [&[first], &text[..], &mac].concat();
        for i in 0..good.len() {
            let mut bad = good.clone();
            bad[i] ^= 4;
            let before = bad.clone();
            assert!(pull.pull(&mut bad).is_err(), "byte {i}");
            assert_eq!(bad, before);
        }
        let mut good = good;
        assert_eq!(pull.pull(&mut good).unwrap(), TAG_MESSAGE);
        assert_eq!(&good[1..17], b"something to say");
    }
}
