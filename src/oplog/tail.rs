//! The tail of the oplog: bytes after the last whole entry. They come from an unfinished write, from entries that a
//! header made void, or from damage.
//!
//! A whole entry after an incomplete one shows that an entry was lost: a power cut may lose one write and keep the
//! next if neither was synced. But if the later entry is marked `settled` (written after all before it was synced)
//! and all earlier entries have marks, the incomplete entry had reached the disk. So it is damaged, not lost. Damage
//! in the very last entry cannot be distinguished from an unfinished write.

use crate::codec::Reader;
use crate::oplog::entry::Entry;
use crate::oplog::frame::{self, PREFIX, Prefix};

/// The meaning of the tail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tail {
    /// No entry was lost.
    Void,
    /// An entry was lost, and an entry after it changed the log.
    Lost {
        /// The length of the log after the last such entry.
        length: u64,
    },
    /// An entry that had reached the disk is damaged.
    Damaged,
}

/// Judges `bytes`, the tail. Entries that count have the bit `current`; `all_marked` says whether all entries before
/// the tail have marks.
pub fn judge(bytes: &[u8], current: bool, all_marked: bool) -> Tail {
    // A whole frame at the start is a void entry, or the start of an unfinished batch.
    if frame::decode(bytes).is_some() {
        return Tail::Void;
    }
    let (mut lost, mut is_settled, mut at) = (None, false, 1);
    while let Some((entry, size)) = next_entry(bytes, &mut at, current) {
        is_settled |= entry.marks.settled;
        lost = entry.upgrade.map(|to| to.length).or(lost);
        at += size;
    }
    match lost {
        Some(_) if is_settled && all_marked => Tail::Damaged,
        Some(length) => Tail::Lost { length },
        None => Tail::Void,
    }
}

/// The first whole entry with the bit `current` in `bytes[*at..]`, and the length of its frame. Sets `at` to its
/// start.
fn next_entry(bytes: &[u8], at: &mut usize, current: bool) -> Option<(Entry, usize)> {
    while let Some(prefix) = prefix_at(bytes, *at) {
        let size = PREFIX + prefix.message_len();
        // An entry has at least one byte, its flags.
        if size > PREFIX && prefix.bit() == current && size <= bytes.len() - *at {
            if let Some((_, message)) = frame::decode(&bytes[*at..]) {
                if let Ok(entry) = Entry::decode(&mut Reader::new(message)) {
                    return Some((entry, size));
                }
            }
        }
        *at += 1;
    }
    None
}

fn prefix_at(bytes: &[u8], at: usize) -> Option<Prefix> {
    let bytes = bytes.get(at..at.checked_add(PREFIX)?)?;
    let mut prefix = [0; PREFIX];
    prefix.copy_from_slice(bytes);
    Some(Prefix::decode(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Writer;
    use crate::oplog::entry::{EntryRef, Marks, TreeUpgrade};

    fn frames(lengths: &[u64], settled: bool) -> Vec<Vec<u8>> {
        let frame = |&length: &u64| {
            let upgrade = TreeUpgrade { fork: 0, ancestors: length - 1, length, signature: vec![7; 64] };
            let marks = Marks { unsynced: Some(1), settled };
            let mut w = Writer::new();
            EntryRef { upgrade: Some(&upgrade), marks, ..EntryRef::default() }.encode(w.bytes(&[0; PREFIX]));
            let mut bytes = w.into_vec();
            frame::seal(&mut bytes, 0, false, true).unwrap();
            bytes
        };
        lengths.iter().map(frame).collect()
    }

    #[test]
    fn flipped_bit_of_entry_before_others_is_loss_or_damage() {
        for (settled, all_marked, expected) in [
            (true, true, Tail::Damaged),
            (true, false, Tail::Lost { length: 9 }),
            (false, true, Tail::Lost { length: 9 }),
        ] {
            let whole = frames(&[7, 8, 9], settled).concat();
            for bit in 0..whole.len() / 3 * 8 {
                let mut bytes = whole.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(judge(&bytes, true, all_marked), expected, "bit {bit}");
            }
        }
    }

    #[test]
    fn unfinished_write_at_the_end_is_void() {
        let whole = frames(&[7, 8], true).concat();
        for n in 0..whole.len() / 2 {
            assert_eq!(judge(&whole[..n], true, true), Tail::Void, "{n} bytes");
        }
        // Entries with the other bit, and the start of a batch.
        assert_eq!(judge(&whole, false, true), Tail::Void);
        let mut lost = whole[..whole.len() / 2].to_vec();
        lost[16..].fill(0);
        assert_eq!(judge(&lost, true, true), Tail::Void);
    }
}
