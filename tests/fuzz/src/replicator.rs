//! A reader's replicator receives messages of a hostile peer, while callers wait, virtual time passes and commits
//! are late. Then an honest peer connects, and the whole log must arrive.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use hypercore::Download;
use hypercore::lowlevel::merkle::{self, Reorg};
use hypercore::lowlevel::replication::{
    Action, CommitOutcome, Config, Data, Handshake, LogChange, Message, PeerId, Range, Replicator, Request, Response,
    Span, Sync, WaiterId,
};

use crate::input::{Input, part};
use crate::log::{Kind, Log, blocks};
use crate::memory::within;
use crate::{message, written};

/// A log before and after it was cut to 12 blocks and went on.
static WRITERS: LazyLock<[Log; 2]> = LazyLock::new(|| {
    let mut old = Log::writer(Kind::Compat);
    old.append(blocks(0..30));
    let mut new = old.clone();
    new.truncate(12);
    new.append(blocks(100..120));
    [old, new]
});

const MAX_OPERATIONS: usize = 200;
const MAX_WAITERS: usize = 32;

struct Host {
    log: Log,
    machine: Replicator,
    now: Duration,
    hostile: Option<PeerId>,
    honest: Option<PeerId>,
    peers: u64,
    /// Requests to the hostile peer, and to the honest one.
    asked: Vec<Request>,
    asked_honest: VecDeque<Request>,
    said_to_honest: Option<Sync>,
    /// Whether commits wait, and those that do.
    late: bool,
    commits: VecDeque<(PeerId, Box<Data>)>,
    waiters: Vec<WaiterId>,
    woken: HashMap<WaiterId, bool>,
}

impl Host {
    fn new() -> Self {
        Host {
            log: Log::reader_of(&WRITERS[0]),
            machine: Replicator::new(Config { seed: 7, ..Config::default() }),
            now: Duration::from_secs(1),
            hostile: None,
            honest: None,
            peers: 0,
            asked: Vec::new(),
            asked_honest: VecDeque::new(),
            said_to_honest: None,
            late: false,
            commits: VecDeque::new(),
            waiters: Vec::new(),
            woken: HashMap::new(),
        }
    }

    fn connect(&mut self) -> PeerId {
        self.peers += 1;
        let peer = PeerId(self.peers);
        self.machine.connecting(peer);
        self.machine.opened(peer, &Handshake { seeks: true, capability: [0; 32] }, &self.log, self.now);
        peer
    }

    fn hear(&mut self, peer: PeerId, message: Message) {
        self.machine.handle(peer, message, &self.log, self.now);
    }

    fn commit(&mut self, peer: PeerId, data: &Data) {
        let (outcome, change) = self.log.commit(data);
        if let Some(change) = change {
            self.machine.changed(&change, &self.log);
        }
        self.machine.committed(peer, data.request, outcome, &self.log, self.now);
    }

    /// Carries out what the machine wants done.
    fn act(&mut self) {
        let mut steps = 0;
        while let Some(action) = self.machine.poll(&self.log, self.now) {
            steps += 1;
            assert!(steps < 100_000, "the machine does not come to rest");
            match action {
                Action::Send { peer, message } => self.sent(peer, message),
                Action::ResponsesReady { peer } => self.serve(peer),
                Action::Commit { peer, data } if self.late => self.commits.push_back((peer, data)),
                Action::Commit { peer, data } => self.commit(peer, &data),
                Action::CheckConflict { peer, data } => {
                    let found = merkle::conflict(&self.log, &self.log.head, &data.proof, &self.log.verifier);
                    self.machine.conflict_checked(peer, data, matches!(found, Ok(Some(_))), &self.log);
                }
                Action::VerifyFork { peer, data } => {
                    let found = Reorg::start(&self.log, &self.log.head, &data.proof, &self.log.verifier);
                    self.machine.fork_verified(peer, data.request, found, &self.log);
                }
                Action::Reorganize { verified } => match self.log.apply(*verified) {
                    Some(change) => {
                        self.machine.changed(&change, &self.log);
                        self.machine.reorganized(CommitOutcome::Stored);
                    }
                    None => self.machine.reorganized(CommitOutcome::Stale),
                },
                Action::Close { peer, reason } => {
                    assert!(Some(peer) != self.honest, "the honest peer is cut off: {reason:?}");
                    if Some(peer) == self.hostile {
                        self.hostile = None;
                        self.asked.clear();
                    }
                }
                Action::Wake { waiter, result } => {
                    assert!(self.waiters.contains(&waiter), "a waiter that was cancelled is woken");
                    assert!(self.woken.insert(waiter, result.is_ok()).is_none(), "a waiter is woken twice");
                }
                Action::Conflict { .. } => panic!("a conflict that no signer made"),
                Action::Peer { .. } | Action::Extension { .. } => {}
            }
        }
        let deadline = self.machine.next_deadline();
        assert!(deadline.is_none_or(|at| at > self.now), "a deadline has passed and nothing came of it");
        assert!(!self.machine.has_failed(), "the log is called corrupt");
    }

    fn sent(&mut self, peer: PeerId, message: Message) {
        let again = Message::decode(message.kind(), &written(|w| message.encode(w)));
        assert!(matches!(&again, Ok(Some(again)) if *again == message), "{message:?} reads as {again:?}");
        if Some(peer) == self.hostile {
            if let Message::Request(request) = message {
                self.asked.push(request);
            }
            return;
        }
        if Some(peer) != self.honest {
            return;
        }
        let log = &WRITERS[1];
        match message {
            Message::Request(request) => self.asked_honest.push_back(request),
            Message::Cancel(id) => self.asked_honest.retain(|request| request.id != id),
            Message::Sync(sync) if self.said_to_honest != Some(sync) => {
                self.said_to_honest = Some(sync);
                let remote_length = if sync.fork == log.head.fork { sync.length } else { 0 };
                self.hear(peer, Message::Sync(Sync { remote_length, ..sync_of(log) }));
            }
            Message::Want(_) => self.hear(peer, Message::Range(Range { drop: false, start: 0, length: log.length() })),
            _ => {}
        }
    }

    /// Answers all that a peer asked for.
    fn serve(&mut self, peer: PeerId) {
        let mut count = 0;
        while let Some(next) = self.machine.next_response(peer, &self.log) {
            count += 1;
            assert!(count < 10_000, "a peer is served without end");
            if let Response::Prove(request) = next {
                let answer = self.log.answer(&request);
                assert!(matches!(answer, Message::Data(_) | Message::NoData(_)));
            }
        }
    }

    /// Every block and node held is one that the writer of that fork signed.
    fn check(&self) {
        assert!(self.log.head.fork < 2);
        self.log.assert_part_of(&WRITERS[self.log.head.fork as usize]);
    }

    fn operate(&mut self, input: &mut Input) {
        let how = input.u8() % 16;
        match how {
            0..=3 => {
                let kind = u64::from(input.u8() % 10);
                if let (Ok(Some(message)), Some(peer)) = (Message::decode(kind, input.part()), self.hostile) {
                    self.hear(peer, message);
                }
            }
            4 => self.now += Duration::from_millis(10) * u32::from(input.u16()),
            5..=8 => self.answer(how, input),
            9..=12 if self.waiters.len() < MAX_WAITERS => {
                let waiter = match how {
                    9 => self.machine.wait_for_block(input.number() / 2, &self.log),
                    10 => {
                        let (how, start, length) = (input.u8(), input.number() / 4, input.number() / 4);
                        let what = match how % 3 {
                            0 => Download::range(start..start.saturating_add(length)),
                            1 => Download::range(start..),
                            _ => Download::blocks(input.part().iter().map(|block| u64::from(*block))),
                        };
                        let what = what.linear(how & 4 != 0).if_available(how & 8 != 0);
                        self.machine.download(Arc::new(what), &self.log)
                    }
                    11 => {
                        let (bytes, padding) = (input.number(), u64::from(input.u8() % 9));
                        self.machine.wait_for_seek(bytes, padding, &self.log)
                    }
                    _ => self.machine.wait_for_upgrade(&self.log),
                };
                self.waiters.push(waiter);
            }
            13 if !self.waiters.is_empty() => {
                let waiter = self.waiters[usize::from(input.u8()) % self.waiters.len()];
                if !self.woken.contains_key(&waiter) {
                    // Its wake may be queued: poll before the check.
                    self.act();
                    self.machine.cancel(waiter);
                    if !self.woken.contains_key(&waiter) {
                        self.waiters.retain(|other| *other != waiter);
                    }
                }
            }
            14 => match self.hostile.take() {
                Some(peer) => {
                    self.machine.closed(peer);
                    self.asked.clear();
                }
                None => self.hostile = Some(self.connect()),
            },
            15 => self.happen(input),
            _ => {}
        }
    }

    /// The hostile peer answers: honestly, with one byte changed, or not.
    fn answer(&mut self, how: u8, input: &mut Input) {
        let Some(peer) = self.hostile else { return };
        if self.asked.is_empty() {
            return;
        }
        let request = self.asked.remove(usize::from(input.u8()) % self.asked.len());
        let answer = match how {
            8 => Message::NoData(request.id),
            _ => WRITERS[usize::from(how == 6)].answer(&request),
        };
        let mut bytes = written(|w| answer.encode(w));
        if how == 7 {
            let (at, flip) = (usize::from(input.u16()) % bytes.len(), input.u8());
            bytes[at] ^= flip;
        }
        if let Ok(Some(message)) = Message::decode(answer.kind(), &bytes) {
            self.hear(peer, message);
        }
    }

    fn happen(&mut self, input: &mut Input) {
        match input.u8() % 5 {
            0 => {
                self.late = !self.late;
                while let Some((peer, data)) = self.commits.pop_front() {
                    self.commit(peer, &data);
                }
            }
            1 => {
                // A core clears nothing beyond its end.
                let (start, length) = (input.number(), input.number());
                let end = start.saturating_add(length).min(self.log.length());
                let range = start.min(end)..end;
                self.log.blocks.retain(|index, _| !range.contains(index));
                self.machine.changed(&LogChange { dropped: Some(range), ..LogChange::default() }, &self.log);
            }
            2 => self.machine.set_finding_peers(usize::from(input.u8() % 2)),
            3 => {
                if let Some(peer) = self.hostile {
                    self.machine.send_extension(peer, ["a", "b"][usize::from(input.u8() % 2)], vec![1]);
                }
            }
            _ => {
                if let Some((peer, data)) = self.commits.pop_front() {
                    self.commit(peer, &data);
                }
            }
        }
    }

    /// An honest peer brings all of the log.
    fn finish(&mut self) {
        self.late = false;
        while let Some((peer, data)) = self.commits.pop_front() {
            self.commit(peer, &data);
        }
        self.act();
        if let Some(peer) = self.hostile.take() {
            self.machine.closed(peer);
        }
        let all = self.machine.download(Arc::new(Download::range(0..32)), &self.log);
        self.waiters.push(all);
        let honest = self.connect();
        self.honest = Some(honest);
        self.hear(honest, Message::Sync(sync_of(&WRITERS[1])));
        self.hear(honest, Message::Range(Range { drop: false, start: 0, length: WRITERS[1].length() }));
        let mut steps = 0;
        loop {
            self.act();
            if let Some(request) = self.asked_honest.pop_front() {
                self.now += Duration::from_millis(5);
                self.hear(honest, WRITERS[1].answer(&request));
            } else if self.woken.contains_key(&all) {
                break;
            } else {
                let deadline = self.machine.next_deadline();
                self.now = deadline.expect("the log does not arrive and nothing is to come");
            }
            steps += 1;
            assert!(steps < 20_000, "the log does not arrive");
        }
        self.check();
        assert!(self.log.head == WRITERS[1].head && self.log.blocks == WRITERS[1].blocks, "the log is not whole");

        self.honest = None;
        self.machine.close();
        self.act();
        assert!(self.waiters.iter().all(|waiter| self.woken.contains_key(waiter)), "a waiter is never woken");
        assert_eq!(self.machine.peers().count(), 0);
    }
}

fn sync_of(log: &Log) -> Sync {
    Sync {
        fork: log.head.fork,
        length: log.length(),
        remote_length: 0,
        can_upgrade: true,
        uploading: true,
        downloading: true,
        has_manifest: true,
    }
}

pub fn run(bytes: &[u8]) {
    LazyLock::force(&WRITERS);
    within(512 * bytes.len() + (8 << 20), || {
        let mut input = Input(bytes);
        let mut host = Host::new();
        host.hostile = Some(host.connect());
        host.act();
        for _ in 0..MAX_OPERATIONS {
            if input.is_empty() {
                break;
            }
            host.operate(&mut input);
            host.act();
        }
        host.check();
        host.finish();
    });
}

pub fn seeds() -> Vec<Vec<u8>> {
    let say = |message: Message| {
        let bytes = message::bytes_of(&message);
        [&[0, bytes[0]], &part(&bytes[1..])[..]].concat()
    };
    let have = |log: &Log| {
        let range = Range { drop: false, start: 0, length: log.length() };
        [say(Message::Sync(sync_of(log))), say(Message::Range(range))].concat()
    };
    let [old, new] = &*WRITERS;
    let answers = |how: u8, times: usize| [how, 0, 1, 0].repeat(times);
    let all = [10, 1, 0, 0];
    let mut seeds = vec![
        // Honest to the end, on either fork, and from one to the other.
        [have(old), all.to_vec(), [5, 0].repeat(40)].concat(),
        [have(new), all.to_vec(), [6, 0].repeat(40)].concat(),
        [have(old), all.to_vec(), [5, 0].repeat(40), have(new), [6, 0].repeat(60)].concat(),
        // Late commits, tampered answers, refusals, other waits.
        [have(old), vec![15, 0], all.to_vec(), [5, 0].repeat(8), vec![15, 0], answers(7, 5)].concat(),
        [have(old), all.to_vec(), [8, 0].repeat(4), vec![4, 255, 255], [5, 0].repeat(9)].concat(),
        [vec![9, 5, 11, 100, 0, 12], have(old), [5, 0].repeat(9), vec![13, 0, 14, 14]].concat(),
        [have(old), [5, 0].repeat(2), vec![9, 3, 5, 0, 15, 1, 0, 9, 9, 3, 5, 0]].concat(),
    ];
    let wanted = merkle::Request {
        block: Some(merkle::NodeRequest { index: 3, nodes: 0 }),
        upgrade: Some(merkle::UpgradeRequest { start: 0, length: 30 }),
        ..Default::default()
    };
    let ask = Message::Request(Request { id: 1, wanted, ..Request::default() });
    let want = Message::Want(Span { start: 0, length: 1 << 21 });
    seeds.push([have(old), all.to_vec(), [5, 0].repeat(40), say(want), say(ask)].concat());
    seeds
}
