//! What the stories about two and three cores need beside the fixture: cores of given blocks, cut lines, ears for what is brought.

use std::sync::mpsc::{Receiver, channel};

use hypercore::net::Replication;
use hypercore::{Hypercore, Subscription, UpdateOptions};

use crate::fixture::Ear;

/// A writer's core of these blocks.
pub fn writer_of<B: AsRef<[u8]>>(blocks: impl IntoIterator<Item = B>) -> Hypercore {
    let core = Hypercore::in_memory().unwrap();
    core.append_batch(blocks).unwrap();
    core
}

/// Cuts a line, and returns when both sides are through with it.
pub fn cut(both: &(Replication, Replication)) {
    both.0.connection().close();
    both.1.connection().close();
}

/// Asks the peers for their head, and waits for it.
pub fn ask(core: &Hypercore) -> bool {
    core.update_with(UpdateOptions::new().wait(true)).unwrap()
}

/// Blocks until `core` is on `fork`.
pub fn fork_to(core: &Hypercore, fork: u64) {
    let ear = Ear::new(|tell| core.on_truncate(move |_, _| tell.send(()).unwrap_or(())));
    while core.fork() < fork {
        ear.hear();
    }
}

/// Blocks until a peer has joined.
pub fn meet(core: &Hypercore) {
    let ear = Ear::new(|tell| core.on_peer_add(move |_| tell.send(()).unwrap_or(())));
    if core.peers().is_empty() {
        ear.hear();
    }
}

/// Writes down which blocks a core is brought.
pub struct Downloads {
    core: Hypercore,
    brought: Receiver<u64>,
    _subscription: Subscription,
}

impl Downloads {
    pub fn of(core: &Hypercore) -> Self {
        let (tell, brought) = channel();
        let subscription = core.on_download(move |index, _, _| tell.send(index).unwrap_or(()));
        Downloads { core: core.clone(), brought, _subscription: subscription }
    }

    /// The first `count` blocks that were brought, in order, and whatever else is until the core is closed, as it is then.
    pub fn until_closed(self, count: usize) -> Vec<u64> {
        let mut brought: Vec<u64> = (0..count).map(|_| self.brought.recv().unwrap()).collect();
        let closed = Ear::new(|tell| self.core.on_close(move || tell.send(()).unwrap_or(())));
        self.core.close().unwrap();
        closed.hear();
        brought.extend(self.brought.try_iter());
        brought
    }

    /// That these blocks are brought, each once, in any order.
    #[track_caller]
    pub fn assert_are(self, expected: impl IntoIterator<Item = u64>) {
        let expected: Vec<u64> = expected.into_iter().collect();
        let mut brought = self.until_closed(expected.len());
        brought.sort_unstable();
        assert_eq!(brought, expected);
    }
}
