//! Compact encoding, keys and nodes. The first byte says which.

use hypercore::Key;
use hypercore::lowlevel::codec::Reader;
use hypercore::lowlevel::node::Node;

use crate::memory::within;
use crate::{MAX_SAFE_INTEGER, written};

pub fn run(bytes: &[u8]) {
    let [which, bytes @ ..] = bytes else { return };
    within(64 * bytes.len() + 4096, || match which % 3 {
        0 => values(bytes),
        1 => key(bytes),
        _ => node(bytes),
    });
}

pub fn line(bytes: &[u8]) -> Option<(&'static str, &[u8])> {
    let [which, bytes @ ..] = bytes else { return None };
    Some((["codec", "key", "node"][usize::from(which % 3)], bytes))
}

pub fn seeds() -> Vec<Vec<u8>> {
    let key = crate::pair(1).public_key();
    vec![
        vec![0, 0, 253, 1, 1, 3, 3, 1, 2, 3],
        vec![0, 2, 2, b'h', b'i', 4, 2, 7, 253, 0, 1, 6, 1, 0, 0, 0, 9, 1, 2, 5, 5],
        [b"\x01", key.to_string().as_bytes()].concat(),
        [b"\x01", key.id().as_bytes()].concat(),
        [&[1][..], key.as_bytes()].concat(),
        [&[2, 9, 4][..], &[7; 32]].concat(),
    ]
}

/// Each byte selects how the next value is read. A value that was read encodes and decodes to an equal one.
fn values(bytes: &[u8]) {
    let mut r = Reader::new(bytes);
    while let Ok(how) = r.u8() {
        let before = r.len();
        let read = match how % 10 {
            0 => r.uint().map(|n| {
                let again = written(|w| _ = w.uint(n));
                assert!(n <= MAX_SAFE_INTEGER);
                assert!(again.len() <= before - r.len(), "the shortest form is longer than what was read");
                assert_eq!(Reader::new(&again).uint().unwrap(), n);
            }),
            1 => r.buffer().map(|buffer| {
                assert_eq!(Reader::new(&written(|w| _ = w.buffer(buffer))).buffer().unwrap(), buffer);
            }),
            2 => r.string().map(|text| {
                assert_eq!(Reader::new(&written(|w| _ = w.string(text))).string().unwrap(), text);
            }),
            3 => r.array(1, |r| r.u8()).map(|list| {
                let again = written(|w| _ = w.array(&list, |w, byte| _ = w.u8(*byte)));
                assert_eq!(Reader::new(&again).array(1, |r| r.u8()).unwrap(), list);
            }),
            4 => r.array(0, |r| r.uint()).map(|list| {
                let again = written(|w| _ = w.array(&list, |w, n| _ = w.uint(*n)));
                assert_eq!(Reader::new(&again).array(0, |r| r.uint()).unwrap(), list);
            }),
            5 => r.fixed::<32>().map(drop),
            6 => r.u32().map(|n| assert_eq!(Reader::new(&written(|w| _ = w.u32(n))).u32().unwrap(), n)),
            7 => r.u64().map(|n| assert_eq!(Reader::new(&written(|w| _ = w.u64(n))).u64().unwrap(), n)),
            8 => r.count(3).map(|n| assert!(n <= r.len() / 3)),
            _ => r.array(2, |r| r.buffer().map(<[u8]>::to_vec)).map(drop),
        };
        assert!(r.len() <= before);
        if read.is_err() {
            return;
        }
    }
}

fn key(bytes: &[u8]) {
    if let Ok(key) = Key::try_from(bytes) {
        assert_eq!(key.as_bytes()[..], *bytes);
    }
    let Ok(key) = std::str::from_utf8(bytes).map_err(drop).and_then(|text| text.parse::<Key>().map_err(drop)) else {
        return;
    };
    assert_eq!(key.to_string().parse::<Key>().unwrap(), key);
    assert_eq!(key.id().parse::<Key>().unwrap(), key);
}

fn node(bytes: &[u8]) {
    let Ok(node) = Node::decode(&mut Reader::new(bytes)) else { return };
    assert_eq!(Node::decode(&mut Reader::new(&written(|w| node.encode(w)))).unwrap(), node);
    let (parent, end) = (node.index.parent(), node.index.end_block());
    assert!(end > node.index.first_block() && parent.end_block() >= end);
    assert!(node.index.0 <= MAX_SAFE_INTEGER && node.size <= MAX_SAFE_INTEGER);
}
