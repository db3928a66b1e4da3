//! The cost of encryption, framing and handshakes of a connection.

mod common;

use common::{best, block, figure, floor, plain, size, time, title};
use hypercore::KeyPair;
use hypercore::lowlevel::wire::batch::{self, Batch};
use hypercore::lowlevel::wire::noise::Role;
use hypercore::lowlevel::wire::noise_stream::{Established, NoiseStream};

fn main() {
    let (count, bytes) = (size(1_000, 10), 64 << 10);
    title(&format!("{count} messages of 64 KiB, encrypted and decrypted"));
    let payload = block(bytes);
    let [sealing, opening, copying] = best(
        count,
        [
            &mut || {
                let (mut ours, _) = connected();
                let mut out = Vec::with_capacity(bytes + 64);
                time(|| {
                    for _ in 0..count {
                        out.clear();
                        ours.sender
                            .seal(&mut out, |w| {
                                w.bytes(&payload);
                            })
                            .unwrap();
                    }
                })
            },
            &mut || {
                let (mut ours, mut theirs) = connected();
                let mut frames = Vec::new();
                (0..count).for_each(|_| {
                    ours.sender
                        .seal(&mut frames, |w| {
                            w.bytes(&payload);
                        })
                        .unwrap()
                });
                theirs.receiver.feed(&frames);
                time(|| {
                    (0..count).for_each(|_| assert_eq!(theirs.receiver.next_message().unwrap().unwrap().len(), bytes))
                })
            },
            &mut || {
                let mut out = vec![0; bytes];
                time(|| {
                    (0..count)
                        .for_each(|_| std::hint::black_box(&mut out).copy_from_slice(std::hint::black_box(&payload)))
                })
            },
        ],
    );
    figure("encrypt", sealing, "messages");
    plain("", &format!("{:.0} MB/s", sealing.per_second() * bytes as f64 / 1e6));
    floor("memcpy", copying, sealing);
    figure("decrypt", opening, "messages");
    floor("memcpy", copying, opening);

    let (count, each) = (size(200_000, 100), 150);
    title(&format!("{count} messages of {each} bytes, many to a frame"));
    let payload = block(each);
    let frames = || {
        let (mut ours, theirs) = connected();
        let mut out = Vec::new();
        let mut left = count;
        while left > 0 {
            ours.sender
                .seal(&mut out, |w| {
                    let mut batch = Batch::new(w);
                    while left > 0 && !batch.is_full() {
                        batch
                            .push(1, 3, each, |w| {
                                w.bytes(&payload);
                            })
                            .unwrap();
                        left -= 1;
                    }
                })
                .unwrap();
        }
        (theirs, out)
    };
    let [packing, unpacking, copying] = best(
        count,
        [
            &mut || time(|| drop(frames())),
            &mut || {
                let (mut theirs, out) = frames();
                theirs.receiver.feed(&out);
                time(|| {
                    let mut seen = 0;
                    while let Some(frame) = theirs.receiver.next_message().unwrap() {
                        seen += batch::messages(frame).map(|m| m.unwrap().payload.len()).sum::<usize>();
                    }
                    assert_eq!(seen, count * each);
                })
            },
            &mut || {
                let mut out = Vec::with_capacity(count * each);
                time(|| (0..count).for_each(|_| out.extend_from_slice(std::hint::black_box(&payload))))
            },
        ],
    );
    figure("pack and encrypt", packing, "messages");
    floor("memcpy", copying, packing);
    figure("decrypt and unpack", unpacking, "messages");
    floor("memcpy", copying, unpacking);

    let count = size(300, 3);
    title(&format!("{count} handshakes, both sides"));
    let [shaking, signing] = best(
        count,
        [&mut || time(|| (0..count).for_each(|_| drop(connected()))), &mut || common::bare::signatures(count)],
    );
    figure("handshake", shaking, "handshakes");
    floor("one bare Ed25519 signature", signing, shaking);
}

/// The two ends of a connection after its handshake.
fn connected() -> (Established, Established) {
    let pair = |seed| KeyPair::from_seed(&[seed; 32]);
    let mut ours = NoiseStream::new(Role::Initiator, &pair(1)).unwrap();
    let mut theirs = NoiseStream::new(Role::Responder, &pair(2)).unwrap();
    for _ in 0..3 {
        theirs.feed(&ours.take_output());
        theirs.advance().unwrap();
        ours.feed(&theirs.take_output());
        ours.advance().unwrap();
    }
    let (mut ours, mut theirs) = (ours.split().unwrap(), theirs.split().unwrap());
    theirs.receiver.feed(&ours.output);
    ours.receiver.feed(&theirs.output);
    (ours, theirs)
}
