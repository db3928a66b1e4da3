//! Callbacks of replicating cores: which events they report, in which order, and what they may do.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hypercore::{Download, ErrorKind, Hypercore};

use crate::cores::{Events, block, connect, connection, copy_of, writer};
use crate::harness::parallel_test;

/// Long enough for an event that must not happen to show up.
const MOMENT: Duration = Duration::from_millis(50);

#[test]
fn extension_messages_arrive_in_order() {
    let _guard = parallel_test!();
    let core = writer(1);
    let copy = copy_of(&core);
    let (tell, told) = channel();
    let _ours = core
        .register_extension("chat", move |message, peer| tell.send((message.to_vec(), peer.clone())).unwrap())
        .unwrap();
    let theirs = copy.register_extension("chat", |_, _| panic!("a handler's own fault")).unwrap();
    let unknown = copy.register_extension("unknown", |_, _| ()).unwrap();
    let added = Events::new(|tell| copy.on_peer_add(move |peer| tell.send(peer.clone()).unwrap()));
    let _connected = connect(&copy, &core);
    let peer = added.next();
    unknown.broadcast(b"dropped").unwrap();
    for i in 0..300u32 {
        theirs.send(&i.to_le_bytes(), &peer).unwrap();
    }
    theirs.broadcast(&vec![7; 1 << 20]).unwrap();
    assert_eq!(theirs.broadcast(&vec![7; (1 << 20) + 1]).unwrap_err().kind(), ErrorKind::BadArgument);
    let mut from = None;
    for i in 0..300u32 {
        let (message, peer) = told.recv().unwrap();
        assert_eq!(message, i.to_le_bytes());
        from = Some(peer);
    }
    assert_eq!(told.recv().unwrap().0.len(), 1 << 20);
    // The answer makes the other side's handler panic. Replication continues.
    _ours.send(b"answer", &from.unwrap()).unwrap();
    assert_eq!(copy.get(0).unwrap(), block(0));
    drop(_ours);
    theirs.broadcast(b"too late").unwrap();
    core.append(block(1)).unwrap();
    assert_eq!(copy.get(1).unwrap(), block(1));
    assert!(told.try_recv().is_err());
}

#[test]
fn append_callbacks_run_in_order_and_may_block() {
    let _guard = parallel_test!();
    let core = writer(0);
    let copy = copy_of(&core);
    let lengths = Arc::new(Mutex::new(Vec::new()));
    let (log, seen) = (lengths.clone(), copy.clone());
    let (tell, told) = channel();
    let _order = copy.on_append(move || {
        // A callback may call any method, wait for the network, and panic.
        let length = seen.len();
        log.lock().unwrap().push(length);
        assert_eq!(seen.get(length - 1).unwrap(), block(length - 1));
        seen.set_user_data("seen", length.to_string()).unwrap();
        tell.send(length).unwrap();
        panic!("a callback's own fault");
    });
    let _connected = connect(&copy, &core);
    for i in 0..30 {
        core.append(block(i)).unwrap();
        while told.recv().unwrap() <= i {}
    }
    let lengths = lengths.lock().unwrap();
    assert!(lengths.is_sorted(), "{lengths:?}");
    assert_eq!(copy.user_data("seen"), Some(b"30".to_vec()));
}

/// The callback runs on a connection's thread and adds the other core to that connection.
#[test]
fn callback_appends_to_other_core_of_its_connection() {
    let _guard = parallel_test!();
    let (core, log) = (writer(0), writer(0));
    let (copy, log_copy) = (copy_of(&core), copy_of(&log));
    let (ours, theirs) = connection();
    core.replicate_on(&theirs).unwrap();
    copy.replicate_on(&ours).unwrap();
    let (mine, line) = (log.clone(), ours.clone());
    let _subscription = copy.on_append(move || {
        mine.append("heard").unwrap();
        mine.replicate_on(&line).unwrap();
    });
    log_copy.replicate_on(&theirs).unwrap();
    core.append("news").unwrap();
    assert_eq!(log_copy.get(0).unwrap(), b"heard");
}

#[test]
fn upload_and_download_events_name_each_block_once() {
    let _guard = parallel_test!();
    let core = writer(25);
    let copy = copy_of(&core);
    let given = Events::new(|tell| core.on_upload(move |block| tell.send((block.index, block.byte_length)).unwrap()));
    let taken = Events::new(|tell| copy.on_download(move |block| tell.send((block.index, block.byte_length)).unwrap()));
    let _connected = connect(&copy, &core);
    copy.download(Download::range(0..25)).unwrap().wait().unwrap();
    let all: Vec<_> = (0..25).map(|i| (i, block(i).len() as u64)).collect();
    for events in [given, taken] {
        let mut heard: Vec<_> = (0..25).map(|_| events.next()).collect();
        heard.sort_unstable();
        assert_eq!(heard, all);
        assert!(events.is_silent_for(MOMENT));
    }
}

/// The callback blocks, and even waits for a block of the same download. The download continues, and a bounded number
/// of events queues up.
#[test]
fn download_events_behind_slow_callback_are_bounded() {
    let _guard = parallel_test!();
    const BLOCKS: u64 = 90_000;
    const MOST: u64 = 1 << 15;
    let core = Hypercore::in_memory().unwrap();
    core.append_batch((0..BLOCKS).map(|i| i.to_le_bytes())).unwrap();
    let copy = copy_of(&core);
    let (release, held) = channel::<()>();
    let (held, told, own) = (Mutex::new(Some(held)), Arc::new(AtomicU64::new(0)), copy.clone());
    let counts = told.clone();
    let subscription = copy.on_download(move |_| {
        counts.fetch_add(1, Ordering::SeqCst);
        if let Some(held) = held.lock().unwrap().take() {
            assert_eq!(own.get(BLOCKS - 1).unwrap(), (BLOCKS - 1).to_le_bytes());
            held.recv().unwrap();
        }
    });
    let closed = Events::new(|tell| copy.on_close(move || _ = tell.send(())));
    let _connected = connect(&copy, &core);
    copy.download(Download::range(0..BLOCKS).linear(true)).unwrap().wait().unwrap();
    assert_eq!(copy.contiguous_length().unwrap(), BLOCKS);
    release.send(()).unwrap();
    copy.close().unwrap();
    closed.next();
    let told = told.load(Ordering::SeqCst);
    // Other events of the log share the queue, so that fewer than `MOST` downloads may be reported.
    assert!((MOST / 4..=MOST + 1).contains(&told), "{told} were told");
    drop(subscription);
}
