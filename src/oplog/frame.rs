//! The frame around every header and entry of the oplog.
//!
//! ```text
//! u32 crc32 ‖ u32 (length << 2 | partial << 1 | bit) ‖ message        the checksum covers all bytes after it
//! ```
//!
//! A frame that is `partial` belongs to a batch that goes on with the next frame. This library reads such batches and
//! writes none.

use byteorder::{ByteOrder, LE};

use crate::codec::Reader;
use crate::{Error, ErrorKind, Result};

/// The number of bytes before the message.
pub const PREFIX: usize = 8;

/// The longest message that a frame can hold.
pub const MAX_MESSAGE: usize = (1 << 30) - 1;

/// The checksum, length and flags before a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prefix {
    /// The checksum over the rest of the frame.
    pub checksum: u32,
    /// The length and the flags, in the form that the checksum covers.
    word: u32,
}

impl Prefix {
    /// Reads a prefix, of which any bytes are valid.
    pub fn decode(bytes: [u8; PREFIX]) -> Self {
        Prefix { checksum: LE::read_u32(&bytes[..4]), word: LE::read_u32(&bytes[4..]) }
    }

    /// The length of the message in bytes.
    pub fn message_len(&self) -> usize {
        (self.word >> 2) as usize
    }

    /// Whether the frame belongs to a batch that goes on with the next frame.
    pub fn partial(&self) -> bool {
        self.word & 2 != 0
    }

    /// The bit that decides whether a slot is current and an entry counts.
    pub fn bit(&self) -> bool {
        self.word & 1 != 0
    }

    /// The checksum of the frame's bytes up to the message, to be continued with the message.
    pub fn hasher(&self) -> crc32fast::Hasher {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.word.to_le_bytes());
        hasher
    }
}

/// The prefix and the message of the frame at the start of `bytes`; None if it is incomplete or fails its checksum.
pub fn decode(bytes: &[u8]) -> Option<(Prefix, &[u8])> {
    let mut r = Reader::new(bytes);
    let prefix = Prefix::decode(r.fixed().ok()?);
    let message = r.bytes(prefix.message_len()).ok()?;
    let mut hasher = prefix.hasher();
    hasher.update(message);
    (hasher.finalize() == prefix.checksum).then_some((prefix, message))
}

/// Writes the prefix of the frame `out[start..]`, for which the caller has left [`PREFIX`] bytes.
///
/// # Errors
/// [`ErrorKind::Encoding`] if the message is longer than 2^30 - 1 bytes.
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
    fn checksum_equals_that_of_javascript() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/vectors/vectors.json")).unwrap();
        assert_eq!(vectors["crc32"][1]["data"], "68656c6c6f");
        assert_eq!(crc32fast::hash(b"hello"), vectors["crc32"][1]["crc"].as_u64().unwrap() as u32);
    }

    #[test]
    fn frame_with_flipped_bit_or_cut_short_is_none() {
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
