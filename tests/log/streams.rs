//! Read streams of blocks and of bytes, and write streams.

use std::io::{Read, Seek, SeekFrom};

use hypercore::{ByteOptions, ErrorKind, Hypercore, MAX_BLOCK_SIZE, Memory, ReadOptions, SessionOptions};

use crate::common::{kind, watchdog};

#[test]
fn read_stream_yields_blocks_of_its_range() {
    let core = Hypercore::in_memory().unwrap();
    let text = |stream: hypercore::ReadStream| -> String {
        stream.map(|b| String::from_utf8(b.unwrap()).unwrap()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(text(core.read_stream(ReadOptions::new()).unwrap()), "");
    core.append_batch(["a", "b", "c", "d"]).unwrap();
    assert_eq!(text(core.read_stream(ReadOptions::new()).unwrap()), "a b c d");
    assert_eq!(text(core.read_stream(ReadOptions::new().start(1).end(3)).unwrap()), "b c");
    assert_eq!(text(core.read_stream(ReadOptions::new().start(4)).unwrap()), "");
    assert_eq!(text(core.read_stream(ReadOptions::new().start(9)).unwrap()), "");
    assert_eq!(text(core.read_stream(ReadOptions::new().start(3).end(2)).unwrap()), "");
    let mut fixed = core.read_stream(ReadOptions::new().start(3)).unwrap();
    let mut following = core.read_stream(ReadOptions::new().start(3).snapshot(false)).unwrap();
    core.append("e").unwrap();
    assert_eq!(fixed.by_ref().count(), 1);
    assert_eq!(following.by_ref().count(), 2);
    assert!(fixed.next().is_none());

    core.clear(2..3).unwrap();
    let no_wait = core.session(SessionOptions::new().wait(false)).unwrap();
    let mut stream = no_wait.read_stream(ReadOptions::new().start(1)).unwrap();
    assert_eq!(stream.next().unwrap().unwrap(), b"b");
    assert_eq!(kind(stream.next().unwrap()), ErrorKind::BlockNotAvailable);
    assert!(stream.next().is_none());
    core.close().unwrap();
    assert_eq!(kind(core.read_stream(ReadOptions::new())), ErrorKind::Closed);
}

#[test]
fn live_read_stream_ends_when_core_closes() {
    let _watchdog = watchdog();
    let core = Hypercore::in_memory().unwrap();
    core.append("0").unwrap();
    let stream = core.read_stream(ReadOptions::new().live(true)).unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::scope(|s| {
        let reader = s.spawn(move || {
            let mut seen = 0;
            for block in stream {
                assert_eq!(block.unwrap(), seen.to_string().as_bytes());
                seen += 1;
                sender.send(seen).unwrap();
            }
            seen
        });
        for i in 1..20 {
            core.append(i.to_string()).unwrap();
        }
        while receiver.recv().unwrap() < 20 {}
        core.close().unwrap();
        assert_eq!(reader.join().unwrap(), 20);
    });
}

#[test]
fn byte_stream_reads_and_seeks() {
    for encrypted in [false, true] {
        let options = Hypercore::options();
        let options = if encrypted { options.encryption_key([9; 32]) } else { options };
        let core = options.open_in(Memory::new()).unwrap();
        core.append_batch(["hello", "", " ", "wor", "ld", ""]).unwrap();
        assert_eq!(core.byte_length(), 11);
        let read = |options| {
            let mut out = String::new();
            core.byte_stream(options).unwrap().read_to_string(&mut out).unwrap();
            out
        };
        assert_eq!(read(ByteOptions::new()), "hello world");
        for from in 0..=11 {
            for len in 0..=11 - from {
                let options = ByteOptions::new().byte_offset(from).byte_length(len).prefetch(from % 3);
                assert_eq!(read(options), "hello world"[from as usize..(from + len) as usize]);
            }
            assert_eq!(read(ByteOptions::new().byte_offset(from)), "hello world"[from as usize..]);
        }
        assert_eq!(read(ByteOptions::new().byte_offset(99)), "");
        let mut stream = core.byte_stream(ByteOptions::new().byte_offset(1)).unwrap();
        assert_eq!((stream.len(), stream.is_empty()), (10, false));
        let mut two = [0; 2];
        for (seek, expected, position) in [
            (SeekFrom::Start(5), "wo", 5),
            (SeekFrom::Current(-3), " w", 4),
            (SeekFrom::End(-2), "ld", 8),
            (SeekFrom::Start(0), "el", 0),
            (SeekFrom::Current(0), "lo", 2),
        ] {
            assert_eq!(stream.seek(seek).unwrap(), position);
            stream.read_exact(&mut two).unwrap();
            assert_eq!(std::str::from_utf8(&two).unwrap(), expected);
        }
        assert!(stream.seek(SeekFrom::Current(-99)).is_err());
        assert_eq!(stream.seek(SeekFrom::End(5)).unwrap(), 15);
        assert_eq!(stream.read(&mut two).unwrap(), 0);
    }
}

#[test]
fn write_stream_appends_in_batches() {
    let core = Hypercore::in_memory().unwrap();
    let mut stream = core.write_stream();
    assert_eq!(stream.flush().unwrap(), None);
    for i in 0..3000u32 {
        stream.write(i.to_le_bytes()).unwrap();
    }
    let before = core.len();
    assert!(before > 0 && before < 3000);
    assert_eq!(stream.flush().unwrap().unwrap().length, 3000);
    stream.write("last").unwrap();
    drop(stream);
    assert_eq!(core.len(), 3001);
    assert!((0..3000u32).all(|i| core.get(u64::from(i)).unwrap() == i.to_le_bytes()));
}

#[test]
fn too_large_block_in_write_stream_is_refused_and_others_are_appended() {
    let core = Hypercore::in_memory().unwrap();
    let mut stream = core.write_stream();
    stream.write("one").unwrap();
    assert_eq!(kind(stream.write(vec![0; MAX_BLOCK_SIZE + 1])), ErrorKind::BadArgument);
    stream.write("two").unwrap();
    stream.flush().unwrap();
    assert_eq!((core.get(0).unwrap(), core.get(1).unwrap()), (b"one".to_vec(), b"two".to_vec()));
}
