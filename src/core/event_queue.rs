//! The queue of events: callbacks are called in order and with no lock held.
//!
//! A thread that changes the core pushes events into one queue, in the order of the changes, and delivers the
//! queue after it has released its locks. If another thread delivers already, that thread delivers the new
//! events too. So a callback may run on another thread than the call that caused it. It may change the core itself;
//! the events of that change are delivered after it returns. A panic in a callback is reported by the panic hook
//! and goes no further.
//!
//! A connection's thread delivers nothing itself: a callback that waits for a block would wait for its own thread.
//! It starts a thread that delivers until the queue is empty. A caller's thread does the same after 256 events, so
//! that others cannot keep it from returning.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread;

use crate::core::peers::{BlockTransfer, ExtensionHandler, Peer};
use crate::sync::{self, Mutex, Rank};
use crate::{Error, Result};

/// How many events a caller's thread delivers before it leaves the rest to a new thread.
const MAX_EVENTS_PER_CALL: usize = 256;

/// How many bytes of one connection's extension messages may wait to be delivered.
const MAX_MESSAGE_BYTES_PER_CONNECTION: usize = 32 << 20;

/// The same for all connections together: a peer that is disconnected for the limit above may connect again.
const MAX_MESSAGE_BYTES: usize = 4 * MAX_MESSAGE_BYTES_PER_CONNECTION;

/// From this many waiting events on, a peer that joins is disconnected.
const PEER_EVENT_LIMIT: usize = 1 << 16;

/// From this many waiting events on, events of single blocks are dropped, and so are growth events if a queued event
/// already reports growth. The room up to the limit above stays for peers that join and leave.
const BLOCK_EVENT_LIMIT: usize = PEER_EVENT_LIMIT / 2;

/// A change of the core that callbacks are called for.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// The head changed. `contiguous_*` is for sessions whose length is the contiguous length.
    Head {
        appended: bool,
        truncated: Option<(u64, u64)>,
        contiguous_grew: bool,
        contiguous_shrank: Option<(u64, u64)>,
    },
    /// The manifest became known.
    Manifest,
    /// A peer began or ceased to replicate this core.
    PeerAdd(Peer),
    PeerRemove(Peer),
    /// A block came from a peer, or was sent to one.
    Download(BlockTransfer),
    Upload(BlockTransfer),
    /// Two validly signed trees of this length and fork contradict each other.
    Conflict(u64, u64),
    /// Data from a peer did not verify.
    VerificationError(Error, Peer),
    /// The session with this id closed.
    Close(u64),
}

impl Event {
    /// For an event that tells only growth: whether the log grew, and whether its contiguous length did.
    fn growth(&self) -> [bool; 2] {
        match *self {
            Event::Head { appended, truncated: None, contiguous_grew, contiguous_shrank: None } => {
                [appended, contiguous_grew]
            }
            _ => [false; 2],
        }
    }
}

/// How many waiting events tell that the log grew, and that its contiguous length did.
#[derive(Default)]
struct Growth([usize; 2]);

impl Growth {
    /// Whether waiting events tell all of `growth`, and `growth` is not empty. A callback that is called later sees
    /// the length at that time, so one call is enough.
    fn covers(&self, growth: [bool; 2]) -> bool {
        growth.contains(&true) && growth.iter().zip(self.0).all(|(&grew, waiting)| !grew || waiting > 0)
    }

    fn add(&mut self, growth: [bool; 2]) {
        self.0.iter_mut().zip(growth).for_each(|(waiting, grew)| *waiting += usize::from(grew));
    }

    fn remove(&mut self, growth: [bool; 2]) {
        self.0.iter_mut().zip(growth).for_each(|(waiting, grew)| *waiting -= usize::from(grew));
    }
}

/// A message of an extension, and its handler.
pub(crate) struct ExtensionMessage {
    pub(crate) handler: ExtensionHandler,
    pub(crate) message: Vec<u8>,
    pub(crate) peer: Peer,
    /// How many bytes of messages of this peer's connection wait.
    pub(crate) waiting: Arc<AtomicUsize>,
}

impl ExtensionMessage {
    fn size(&self) -> usize {
        self.message.len() + size_of::<Self>()
    }
}

enum Queued {
    Event(Event),
    Message(ExtensionMessage),
}

type Callback = Arc<dyn Fn() + Send + Sync>;
type NumbersCallback = Arc<dyn Fn(u64, u64) + Send + Sync>;
type PeerCallback = Arc<dyn Fn(&Peer) + Send + Sync>;
type BlockCallback = Arc<dyn Fn(&BlockTransfer) + Send + Sync>;
type ErrorCallback = Arc<dyn Fn(&Error, &Peer) + Send + Sync>;

/// A callback, by the event that it is for.
#[derive(Clone)]
pub(crate) enum Handler {
    Append(Callback),
    Truncate(NumbersCallback),
    Manifest(Callback),
    PeerAdd(PeerCallback),
    PeerRemove(PeerCallback),
    Download(BlockCallback),
    Upload(BlockCallback),
    Conflict(NumbersCallback),
    VerificationError(ErrorCallback),
    Close(Callback),
}

impl Handler {
    /// Calls the handler if `event` is for it. `session` and `sparse` are those of its session.
    fn call(&self, event: &Event, session: u64, sparse: bool) {
        match (self, event) {
            (Handler::Append(f), &Event::Head { appended, contiguous_grew, .. })
                if (if sparse { appended } else { contiguous_grew }) =>
            {
                f();
            }
            (Handler::Truncate(f), &Event::Head { truncated, contiguous_shrank, .. }) => {
                if let Some((ancestors, fork)) = if sparse { truncated } else { contiguous_shrank } {
                    f(ancestors, fork);
                }
            }
            (Handler::Manifest(f), Event::Manifest) => f(),
            (Handler::PeerAdd(f), Event::PeerAdd(peer)) => f(peer),
            (Handler::PeerRemove(f), Event::PeerRemove(peer)) => f(peer),
            (Handler::Download(f), Event::Download(block)) => f(block),
            (Handler::Upload(f), Event::Upload(block)) => f(block),
            (Handler::Conflict(f), &Event::Conflict(length, fork)) => f(length, fork),
            (Handler::VerificationError(f), Event::VerificationError(error, peer)) => f(error, peer),
            (Handler::Close(f), &Event::Close(closed)) if closed == session => f(),
            _ => {}
        }
    }
}

/// The subscriptions to one core, and the events that wait for delivery.
pub(crate) struct Events {
    inner: Mutex<Inner>,
    /// Stack of the thread that delivers when a caller's thread cannot.
    stack_size: usize,
}

#[derive(Default)]
struct Inner {
    next_id: u64,
    subscribers: Vec<Subscriber>,
    queue: VecDeque<Queued>,
    growth: Growth,
    delivering: bool,
    /// The bytes of the extension messages in `queue`, and of the one that is being delivered.
    message_bytes: usize,
}

#[derive(Clone)]
struct Subscriber {
    id: u64,
    session: u64,
    sparse: bool,
    handler: Handler,
}

impl Events {
    pub(crate) fn new(stack_size: usize) -> Self {
        Events { inner: Mutex::new(Rank::Events, Inner::default()), stack_size }
    }

    pub(crate) fn subscribe(self: &Arc<Self>, session: u64, sparse: bool, handler: Handler) -> Subscription {
        let mut inner = self.inner.lock();
        inner.next_id += 1;
        let id = inner.next_id;
        inner.subscribers.push(Subscriber { id, session, sparse, handler });
        Subscription { events: Arc::downgrade(self), id }
    }

    /// Whether there are subscribers. Without them, events of single blocks need not be made.
    pub(crate) fn has_subscribers(&self) -> bool {
        !self.inner.lock().subscribers.is_empty()
    }

    /// Queues `event`. To keep the order of the changes, call this under the lock that ordered them.
    pub(crate) fn push(&self, event: Event) {
        let mut inner = self.inner.lock();
        // Without subscribers an event costs nothing.
        if inner.subscribers.is_empty()
            || (inner.queue.len() >= BLOCK_EVENT_LIMIT && inner.growth.covers(event.growth()))
        {
            return;
        }
        inner.growth.add(event.growth());
        inner.queue.push_back(Queued::Event(event));
    }

    /// Queues an event of a single block unless too many events wait. Never waits for room: a callback may wait for
    /// the very block that would come next.
    pub(crate) fn push_if_room(&self, event: Event) {
        let mut inner = self.inner.lock();
        if !inner.subscribers.is_empty() && inner.queue.len() < BLOCK_EVENT_LIMIT {
            inner.queue.push_back(Queued::Event(event));
        }
    }

    /// Queues a message of an extension. Fails if the peer sends messages faster than the handler takes them.
    pub(crate) fn push_message(&self, message: ExtensionMessage) -> Result<()> {
        let mut inner = self.inner.lock();
        let size = message.size();
        let waiting = message.waiting.load(Ordering::SeqCst);
        if waiting > MAX_MESSAGE_BYTES_PER_CONNECTION || inner.message_bytes > MAX_MESSAGE_BYTES {
            return Err(Error::protocol("the peer sends extension messages faster than the handler takes them"));
        }
        message.waiting.fetch_add(size, Ordering::SeqCst);
        inner.message_bytes += size;
        inner.queue.push_back(Queued::Message(message));
        Ok(())
    }

    /// Whether as many events wait as peers may cause: no further peer should join.
    pub(crate) fn has_reached_peer_limit(&self) -> bool {
        self.inner.lock().queue.len() >= PEER_EVENT_LIMIT
    }

    /// Whether as many events wait as blocks may cause: events of uploaded blocks should be dropped.
    pub(crate) fn has_reached_block_limit(&self) -> bool {
        self.inner.lock().queue.len() >= BLOCK_EVENT_LIMIT
    }

    /// Delivers the queue, unless another thread does. Call with no lock held.
    pub(crate) fn deliver(self: &Arc<Self>) {
        let mut inner = self.inner.lock();
        if inner.delivering || inner.queue.is_empty() {
            return;
        }
        inner.delivering = true;
        drop(inner);
        if !sync::is_connection() && self.deliver_up_to(MAX_EVENTS_PER_CALL) {
            return;
        }
        let ours = self.clone();
        let deliver = move || _ = ours.deliver_up_to(usize::MAX);
        let thread = thread::Builder::new().name("hypercore-event".into()).stack_size(self.stack_size);
        if thread.spawn(deliver).is_err() {
            // No thread could be started. On a connection's thread callbacks must not wait, but without this they
            // would not run at all.
            self.deliver_up_to(usize::MAX);
        }
    }

    /// Delivers up to `most` events. Returns true once the queue is empty and another thread may deliver.
    fn deliver_up_to(&self, most: usize) -> bool {
        for _ in 0..most {
            let mut inner = self.inner.lock();
            let Some(item) = inner.queue.pop_front() else {
                inner.delivering = false;
                return true;
            };
            let event = match item {
                Queued::Event(event) => {
                    inner.growth.remove(event.growth());
                    event
                }
                Queued::Message(message) => {
                    drop(inner);
                    let _ = catch_unwind(AssertUnwindSafe(|| (message.handler)(&message.message, &message.peer)));
                    message.waiting.fetch_sub(message.size(), Ordering::SeqCst);
                    self.inner.lock().message_bytes -= message.size();
                    continue;
                }
            };
            let subscribers = inner.subscribers.clone();
            if let Event::Close(session) = event {
                inner.subscribers.retain(|s| s.session != session);
            }
            drop(inner);
            for subscriber in &subscribers {
                // The panic hook has reported the panic. The next subscriber still gets the event.
                let _ = catch_unwind(AssertUnwindSafe(|| {
                    subscriber.handler.call(&event, subscriber.session, subscriber.sparse);
                }));
            }
            // A callback may own the last handle of a core, which must not be dropped under the lock.
            drop(subscribers);
        }
        false
    }

    fn unsubscribe(&self, id: u64) {
        let mut inner = self.inner.lock();
        let at = inner.subscribers.iter().position(|s| s.id == id);
        let removed = at.map(|at| inner.subscribers.remove(at));
        drop(inner);
        drop(removed);
    }
}

/// Keeps a callback subscribed until this is dropped, or until its session closes with [`Subscription::forever`].
///
/// Dropping it does not wait for a callback that is running on another thread.
#[must_use = "a subscription ends when it is dropped; keep it, or call `forever`"]
pub struct Subscription {
    events: Weak<Events>,
    id: u64,
}

impl Subscription {
    /// Leaves the callback subscribed until its session closes.
    pub fn forever(mut self) {
        self.events = Weak::new();
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(events) = self.events.upgrade() {
            events.unsubscribe(self.id);
        }
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex as StdMutex;

    fn head() -> Event {
        Event::Head { appended: true, truncated: None, contiguous_grew: false, contiguous_shrank: None }
    }

    #[test]
    fn event_of_callback_is_delivered_after_it_despite_panic() {
        let events = Arc::new(Events::new(256 * 1024));
        let seen = Arc::new(StdMutex::new(Vec::new()));
        let (again, log) = (events.clone(), seen.clone());
        let _first = events.subscribe(
            0,
            true,
            Handler::Append(Arc::new(move || {
                log.lock().unwrap().push("append");
                if log.lock().unwrap().len() == 1 {
                    again.push(Event::Manifest);
                    again.deliver();
                    log.lock().unwrap().push("append returns");
                }
                panic!("a callback's own fault");
            })),
        );
        let log = seen.clone();
        let _second =
            events.subscribe(0, true, Handler::Manifest(Arc::new(move || log.lock().unwrap().push("manifest"))));
        events.push(head());
        events.deliver();
        assert_eq!(*seen.lock().unwrap(), ["append", "append returns", "manifest"]);
    }

    #[test]
    fn full_event_queue_keeps_every_truncation_and_merges_growth() {
        let events = Arc::new(Events::new(256 * 1024));
        let seen = Arc::new(StdMutex::new((0, Vec::new())));
        let (grown, cut) = (seen.clone(), seen.clone());
        let _grown = events.subscribe(0, true, Handler::Append(Arc::new(move || grown.lock().unwrap().0 += 1)));
        let _cut =
            events.subscribe(0, true, Handler::Truncate(Arc::new(move |a, b| cut.lock().unwrap().1.push((a, b)))));
        let cut = |to| Event::Head {
            appended: false,
            truncated: Some((to, 1)),
            contiguous_grew: false,
            contiguous_shrank: Some((to, 1)),
        };
        for to in 0..BLOCK_EVENT_LIMIT as u64 + 1 {
            events.push(cut(to));
        }
        // No queued event reports growth yet.
        (0..10).for_each(|_| events.push(head()));
        events.push(cut(7));
        events.push_if_room(Event::Manifest);
        assert_eq!(events.inner.lock().queue.len(), BLOCK_EVENT_LIMIT + 3);
        while !events.deliver_up_to(1000) {}
        let (grown, cuts) = seen.lock().unwrap().clone();
        assert_eq!((grown, cuts.len(), cuts.last()), (1, BLOCK_EVENT_LIMIT + 2, Some(&(7, 1))));
        assert_eq!(events.inner.lock().growth.0, [0, 0]);
        (0..10).for_each(|_| events.push(head()));
        while !events.deliver_up_to(1000) {}
        assert_eq!(seen.lock().unwrap().0, 11);
    }

    #[test]
    fn dropped_subscription_gets_no_events() {
        let events = Arc::new(Events::new(256 * 1024));
        let seen = Arc::new(StdMutex::new(0));
        let count = seen.clone();
        let kept = events.subscribe(0, true, Handler::Append(Arc::new(move || *count.lock().unwrap() += 1)));
        events.push(head());
        events.deliver();
        drop(kept);
        events.push(head());
        events.deliver();
        assert_eq!(*seen.lock().unwrap(), 1);
    }
}
