//! An entry of the oplog: one change of the core.
//!
//! ```text
//! flags          1 user data, 2 tree nodes, 4 tree upgrade, 8 bitfield, 16 unsynced, 32 settled; then the parts:
//! user data      string key ‖ buffer value                      an empty value removes the key
//! tree nodes     count ‖ (index ‖ size ‖ hash 32)…              a blank node removes the node
//! tree upgrade   fork ‖ ancestors ‖ length ‖ buffer signature   the first `ancestors` blocks stay the same
//! bitfield       flags (1 drop) ‖ start ‖ length
//! unsynced       empty sectors
//! ```
//!
//! The flags 16 and 32 are this library's own; see [`Marks`]. JavaScript ignores unknown flags, and bytes after the
//! parts that it knows.

use crate::Result;
use crate::codec::{Reader, Writer};
use crate::node::Node;

/// A change of the core, as it is read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Entry {
    /// A key of the user data and its new value; an empty value removes the key.
    pub user_data: Option<(String, Vec<u8>)>,
    /// Nodes added to the tree.
    pub nodes: Vec<Node>,
    /// The new state of the log.
    pub upgrade: Option<TreeUpgrade>,
    /// The blocks that were stored or dropped.
    pub bitfield: Option<BitfieldUpdate>,
    /// The syncs before the entry was written.
    pub marks: Marks,
}

/// A change of the core, as it is written; see [`Entry`].
#[derive(Clone, Copy, Debug, Default)]
pub struct EntryRef<'a> {
    /// See [`Entry::user_data`].
    pub user_data: Option<(&'a str, &'a [u8])>,
    /// See [`Entry::nodes`].
    pub nodes: &'a [Node],
    /// See [`Entry::upgrade`].
    pub upgrade: Option<&'a TreeUpgrade>,
    /// See [`Entry::bitfield`].
    pub bitfield: Option<BitfieldUpdate>,
    /// See [`Entry::marks`].
    pub marks: Marks,
}

/// The syncs that the writer of an entry had done before it. After a power cut, recovery uses the marks to distinguish
/// blocks that never reached the disk from damaged ones. Entries that JavaScript wrote, and those written with
/// [`Durability::None`](crate::Durability::None), have no marks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Marks {
    /// The entry was written before its blocks were synced, and it was not announced to peers until they were. The
    /// number counts the sectors, or parts of sectors, in which the blocks hold nothing but zeros.
    pub unsynced: Option<u64>,
    /// All writes before the entry were synced.
    pub settled: bool,
}

/// The new state of a log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TreeUpgrade {
    /// The new fork.
    pub fork: u64,
    /// How many blocks from the first on stay the same.
    pub ancestors: u64,
    /// The new length.
    pub length: u64,
    /// The signature of the new state.
    pub signature: Vec<u8>,
}

/// A range of blocks that was stored or dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BitfieldUpdate {
    /// Whether the blocks were dropped.
    pub drop: bool,
    /// The first block.
    pub start: u64,
    /// The number of blocks.
    pub length: u64,
}

impl Entry {
    /// The same entry, to be written.
    pub fn as_ref(&self) -> EntryRef<'_> {
        EntryRef {
            user_data: self.user_data.as_ref().map(|(key, value)| (key.as_str(), value.as_slice())),
            nodes: &self.nodes,
            upgrade: self.upgrade.as_ref(),
            bitfield: self.bitfield,
            marks: self.marks,
        }
    }

    /// Reads an entry that [`EntryRef::encode`] wrote.
    pub fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let flags = r.uint()?;
        let mut entry = Entry::default();
        if flags & 1 != 0 {
            entry.user_data = Some((r.string()?.to_owned(), r.buffer()?.to_vec()));
        }
        if flags & 2 != 0 {
            entry.nodes = r.array(Node::MIN_ENCODED, Node::decode)?;
        }
        if flags & 4 != 0 {
            let (fork, ancestors, length) = (r.uint()?, r.uint()?, r.uint()?);
            entry.upgrade = Some(TreeUpgrade { fork, ancestors, length, signature: r.buffer()?.to_vec() });
        }
        if flags & 8 != 0 {
            entry.bitfield = Some(BitfieldUpdate { drop: r.uint()? & 1 != 0, start: r.uint()?, length: r.uint()? });
        }
        entry.marks.settled = flags & 32 != 0;
        if flags & 16 != 0 {
            // If a later version of JavaScript uses the flag for another purpose, the entry counts as unmarked.
            entry.marks.unsynced = r.uint().ok().filter(|_| r.is_empty());
        }
        Ok(entry)
    }
}

impl EntryRef<'_> {
    /// Appends the entry's encoding to `w`.
    pub fn encode(&self, w: &mut Writer) {
        let flags = u8::from(self.user_data.is_some())
            | u8::from(!self.nodes.is_empty()) << 1
            | u8::from(self.upgrade.is_some()) << 2
            | u8::from(self.bitfield.is_some()) << 3
            | u8::from(self.marks.unsynced.is_some()) << 4
            | u8::from(self.marks.settled) << 5;
        w.u8(flags);
        if let Some((key, value)) = self.user_data {
            w.string(key).buffer(value);
        }
        if !self.nodes.is_empty() {
            w.array(self.nodes, |w, node| node.encode(w));
        }
        if let Some(upgrade) = self.upgrade {
            w.uint(upgrade.fork).uint(upgrade.ancestors).uint(upgrade.length).buffer(&upgrade.signature);
        }
        if let Some(update) = self.bitfield {
            w.uint(update.drop.into()).uint(update.start).uint(update.length);
        }
        if let Some(empty_sectors) = self.marks.unsynced {
            w.uint(empty_sectors);
        }
    }

    /// An upper estimate of the encoding's length.
    fn size_hint(&self) -> usize {
        let user_data = self.user_data.map_or(0, |(key, value)| key.len() + value.len() + 18);
        64 + user_data + self.nodes.len() * (Node::MIN_ENCODED + 16) + self.upgrade.map_or(0, |u| u.signature.len())
    }
}

/// An upper estimate of the length of all encodings.
pub(super) fn size_hint(entries: &[EntryRef<'_>]) -> usize {
    entries.iter().map(EntryRef::size_hint).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::NodeIndex;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
    }

    fn encode(entry: &Entry) -> Vec<u8> {
        let mut w = Writer::new();
        entry.as_ref().encode(&mut w);
        assert!(entry.as_ref().size_hint() >= w.len());
        w.into_vec()
    }

    #[test]
    fn entries_of_javascript_decode_and_encode_to_the_same_bytes() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/vectors/vectors.json")).unwrap();
        let upgrade = TreeUpgrade { fork: 0, ancestors: 0, length: 1, signature: vec![2; 64] };
        let entries = [
            Entry {
                nodes: vec![Node { index: NodeIndex(0), size: 1, hash: [1; 32] }],
                upgrade: Some(upgrade),
                bitfield: Some(BitfieldUpdate { drop: false, start: 0, length: 1 }),
                ..Entry::default()
            },
            Entry { user_data: Some(("k".into(), b"v".to_vec())), ..Entry::default() },
        ];
        assert_eq!(entries.each_ref().map(|entry| entry.marks), [Marks::default(); 2]);
        for (entry, name) in entries.iter().zip(["entry", "entry_user_data"]) {
            let bytes = hex(vectors["oplog"][name].as_str().unwrap());
            assert_eq!(Entry::decode(&mut Reader::new(&bytes)).unwrap(), *entry);
            assert_eq!(encode(entry), bytes);
            for n in 0..bytes.len() {
                assert!(Entry::decode(&mut Reader::new(&bytes[..n])).is_err());
            }
        }
    }

    #[test]
    fn marked_entry_starts_with_bytes_of_unmarked_one() {
        let plain = Entry {
            user_data: Some(("k".into(), b"v".to_vec())),
            bitfield: Some(BitfieldUpdate { drop: false, start: 7, length: 300 }),
            ..Entry::default()
        };
        let bytes = encode(&plain);
        for marks in [
            Marks { unsynced: Some(0), settled: true },
            Marks { unsynced: Some(70_000), settled: false },
            Marks { unsynced: None, settled: true },
        ] {
            let marked = Entry { marks, ..plain.clone() };
            let encoded = encode(&marked);
            assert_eq!(encoded[1..bytes.len()], bytes[1..]);
            assert_eq!(encoded[0] & 15, bytes[0]);
            assert_eq!(Entry::decode(&mut Reader::new(&encoded)).unwrap(), marked);
        }
        // A part of another form after the flag is no mark.
        let mut other = encode(&Entry { marks: Marks { unsynced: Some(1), settled: false }, ..plain.clone() });
        other.push(9);
        assert_eq!(Entry::decode(&mut Reader::new(&other)).unwrap(), plain);
    }

    #[test]
    fn count_of_nodes_beyond_the_input_is_refused_before_memory_is_taken() {
        let mut w = Writer::new();
        w.uint(2).uint(1 << 50).bytes(&[1; 100]);
        assert!(Entry::decode(&mut Reader::new(w.as_slice())).is_err());
    }
}
