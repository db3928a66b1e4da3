//! The frame around every message of the oplog.
//!
//! ```text
//! u32 crc32 ‖ u32 (length << 2 | partial << 1 | bit) ‖ message        the checksum covers all after itself
//! ```

use byteorder::{ByteOrder, LE};

use crate::codec::Reader;
use crate::{Error, ErrorKind, Result};

/// Bytes before the message.
pub const PREFIX: usize = 8;

/// The longest message that a frame can hold.
pub const MAX_MESSAGE: usize = (1 << 30) - 1;

/// What stands before a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prefix {
    /// The checksum over the rest of the frame.
    pub checksum: u32,
    /// Length and flags, as they are checksummed.
    word: u32,
}

impl Prefix {
    /// The prefix of a frame.
    pub fn decode(bytes: [u8; PREFIX]) -> Self {
        Prefix { checksum: LE::read_u32(&bytes[..4]), word: LE::read_u32(&bytes[4..]) }
    }

    /// How long the message is.
    pub fn message_len(&self) -> usize {
        (self.word >> 2) as usize
    }

    /// Whether the frame belongs to a batch that goes on in the next.
    pub fn partial(&self) -> bool {
        self.word & 2 != 0
    }

    /// The bit that says which header the frame belongs to.
    pub fn bit(&self) -> bool {
        self.word & 1 != 0
    }

    /// A checksum of what of the frame is covered before the message.
    pub fn hasher(&self) -> crc32fast::Hasher {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.word.to_le_bytes());
        hasher
    }
}

/// The frame at the start of `bytes`, if it is whole and unharmed: its prefix and its message.
pub fn decode(bytes: &[u8]) -> Option<(Prefix, &[u8])> {
    let mut r = Reader::new(bytes);
    let prefix = Prefix::decode(r.fixed().ok()?);
    let message = r.bytes(prefix.message_len()).ok()?;
    let mut hasher = prefix.hasher();
    hasher.update(message);
    (hasher.finalize() == prefix.checksum).then_some((prefix, message))
}

/// Fills in the prefix of the frame that starts at `start` of `out` and ends with it; [`PREFIX`] bytes were left for
/// it.
pub fn seal(out: &mut [u8], start: usize, partial: bool, bit: bool) -> Result<()> {
    let len = out.len() - start - PREFIX;
    if len > MAX_MESSAGE {
        let what = format!("an oplog entry of {len} bytes is too long for its frame; append in smaller batches");
        return Err(Error::new(ErrorKind::Encoding, what));
    }
    let word = (len as u32) << 2 | u32::from(partial) << 1 | u32::from(bit);
    LE::write_u32(&mut out[start + 4..start + 8], word);
    let checksum = crc32fast::hash(&out[start + 4..]);
    LE::write_u32(&mut out[start..start + 4], checksum);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_references() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/vectors/vectors.json")).unwrap();
        assert_eq!(vectors["crc32"][1]["data"], "68656c6c6f");
        assert_eq!(crc32fast::hash(b"hello"), vectors["crc32"][1]["crc"].as_u64().unwrap() as u32);
    }

    #[test]
    fn a_frame_with_any_bit_flipped_or_cut_short_is_none() {
        for (partial, bit) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut frame = vec![0; PREFIX];
            frame.extend_from_slice(b"message");
            seal(&mut frame, 0, partial, bit).unwrap();
            let (prefix, message) = decode(&frame).unwrap();
            assert_eq!((prefix.partial(), prefix.bit(), message), (partial, bit, &b"message"[..]));
            for at in 0..frame.len() * 8 {
                let mut broken = frame.clone();
                broken[at / 8] ^= 1 << (at % 8);
                assert!(decode(&broken).is_none());
            }
            assert!((0..frame.len()).all(|n| decode(&frame[..n]).is_none()));
        }
        assert!(decode(&[0; 5000]).is_none());
    }
}
