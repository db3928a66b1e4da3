//! What stands behind the last whole entry: the end of a write that was cut short, entries that a header made void, or
//! damage.
//!
//! A whole entry behind one that is not whole says that something was lost: a power cut may take one write and leave
//! the next, where neither was waited for. If that entry says that everything before it was on the disk, and so does
//! every other entry what it knew of the disk, it was damaged since. What is damaged in the last entry cannot be told
//! from a write that was cut short.

use crate::codec::Reader;
use crate::oplog::entry::Entry;
use crate::oplog::frame::{self, PREFIX, Prefix};

/// What stands behind the last whole entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tail {
    /// Nothing that counts.
    Void,
    /// An entry was lost that an entry behind it follows on, after which the log had this length.
    Lost {
        /// How many blocks.
        length: u64,
    },
    /// An entry that was on the disk is damaged.
    Damaged,
}

/// Looks at `bytes`, which stand behind the last whole entry. Entries that count have the bit `current`; `all_marked`
/// says that those before have marks.
pub fn judge(bytes: &[u8], current: bool, all_marked: bool) -> Tail {
    // A whole frame is one of entries that a header made void, or begins a batch that never ended.
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

/// The first whole entry with the bit `current` from `at` on, which is moved to it, and how many bytes its frame has.
fn next_entry(bytes: &[u8], at: &mut usize, current: bool) -> Option<(Entry, usize)> {
    while let Some(prefix) = prefix_at(bytes, *at) {
        let size = PREFIX + prefix.message_len();
        // An entry has a byte of flags at least.
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
    fn flipped_bit_of_an_entry_with_others_behind_it_is_told() {
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
    fn write_that_was_cut_short_is_no_damage() {
        let whole = frames(&[7, 8], true).concat();
        for n in 0..whole.len() / 2 {
            assert_eq!(judge(&whole[..n], true, true), Tail::Void, "{n} bytes");
        }
        // Void, and the beginning of a batch.
        assert_eq!(judge(&whole, false, true), Tail::Void);
        let mut lost = whole[..whole.len() / 2].to_vec();
        lost[16..].fill(0);
        assert_eq!(judge(&lost, true, true), Tail::Void);
    }
}
