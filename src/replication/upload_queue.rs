//! The requests of a peer, until they are answered. The order is: requests with a priority, the answers to `Want`
//! (which blocks are held), other requests.

use std::collections::{BTreeSet, HashMap, VecDeque};

use super::action::Response;
use super::local::Local;
use super::message::{Bitfield, MAX_BITFIELD_WORDS, Message, Range, Request, SEGMENT, Span};

use crate::codec::MAX_SAFE_INTEGER;
use crate::{Error, Result};

/// The most requests of one peer that may wait here: eight times what JavaScript has in flight.
const MAX_REQUESTS: usize = 4096;

/// The most segments of one peer that may wait here; each costs one number, and a response of up to 256 KiB.
const MAX_SEGMENTS: usize = 1024;

#[derive(Default)]
pub(super) struct UploadQueue {
    /// By request number; each with the ticket that is its place in a queue.
    requests: HashMap<u64, (u64, Request)>,
    urgent: Queue,
    normal: Queue,
    next_ticket: u64,
    segments: BTreeSet<u64>,
    /// Whether the driver was notified (`ResponsesReady`) that the queue is not empty.
    notified: bool,
}

/// Tickets and request numbers, first come first served. A request that was replaced or cancelled leaves an
/// entry behind, recognized because its ticket is no longer the request's.
type Queue = VecDeque<(u64, u64)>;

impl UploadQueue {
    /// Adds a request; it replaces one with the same number. Returns whether the driver has to be notified. More
    /// than 4096 requests are an error.
    pub fn push(&mut self, request: Request) -> Result<bool> {
        self.next_ticket += 1;
        self.requests.insert(request.id, (self.next_ticket, request));
        if self.requests.len() > MAX_REQUESTS {
            return Err(Error::protocol(format!("the peer has more than {MAX_REQUESTS} requests waiting")));
        }
        let queue = if request.priority > 0 { &mut self.urgent } else { &mut self.normal };
        // At most MAX_REQUESTS entries are live, so this removes at least half of them: a peer that requests
        // and cancels without end makes neither the queue longer nor each step slower.
        if queue.len() >= 2 * MAX_REQUESTS {
            queue.retain(|(ticket, id)| self.requests.get(id).is_some_and(|(valid, _)| valid == ticket));
        }
        queue.push_back((self.next_ticket, request.id));
        Ok(!std::mem::replace(&mut self.notified, true))
    }

    pub fn cancel(&mut self, id: u64) {
        self.requests.remove(&id);
    }

    /// Adds the segments of a `Want`. Returns whether the driver has to be notified.
    pub fn want(&mut self, span: Span) -> bool {
        let first = span.start / SEGMENT;
        let end = span.start.saturating_add(span.length).min(MAX_SAFE_INTEGER).div_ceil(SEGMENT);
        for segment in first..end {
            if self.segments.len() >= MAX_SEGMENTS {
                break;
            }
            self.segments.insert(segment);
        }
        !self.segments.is_empty() && !std::mem::replace(&mut self.notified, true)
    }

    /// The next response; none if the queue is empty, and then the driver is notified of the next request.
    pub fn next(&mut self, local: &dyn Local) -> Option<Response> {
        loop {
            if let Some(request) = next_request(&mut self.urgent, &mut self.requests) {
                return Some(Response::Prove(request));
            }
            if let Some(segment) = self.segments.pop_first() {
                match describe_segment(segment, local) {
                    Some(message) => return Some(Response::Message(message)),
                    None => continue,
                }
            }
            if let Some(request) = next_request(&mut self.normal, &mut self.requests) {
                return Some(Response::Prove(request));
            }
            self.notified = false;
            return None;
        }
    }
}

fn next_request(queue: &mut Queue, requests: &mut HashMap<u64, (u64, Request)>) -> Option<Request> {
    while let Some((ticket, id)) = queue.pop_front() {
        if requests.get(&id).is_some_and(|(valid, _)| *valid == ticket) {
            return requests.remove(&id).map(|(_, request)| request);
        }
    }
    None
}

/// The answer to a `Want` of `segment`: a range if one covers all we hold, else the segment's bits, else (no
/// block held) nothing.
fn describe_segment(segment: u64, local: &dyn Local) -> Option<Message> {
    let (start, end) = (segment * SEGMENT, (segment + 1) * SEGMENT);
    let (length, contiguous) = (local.head().length(), local.contiguous_length());
    if contiguous > 0 && (end <= contiguous || contiguous == length) {
        return Some(Message::Range(Range { drop: false, start: 0, length: contiguous }));
    }
    if local.first_set(start).is_none_or(|first| first >= end) {
        return None;
    }
    // JavaScript sends whole pages of 4096 bytes.
    let words = ((length.min(end) - start).div_ceil(32) as usize).next_multiple_of(1024).min(MAX_BITFIELD_WORDS);
    let mut bitfield = Bitfield { start, words: vec![0; words] };
    local.words(start, &mut bitfield.words);
    Some(Message::Bitfield(bitfield))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(id: u64, priority: u64) -> Request {
        Request { id, priority, ..Request::default() }
    }

    fn next(queue: &mut UploadQueue) -> Option<u64> {
        next_request(&mut queue.urgent, &mut queue.requests)
            .or_else(|| next_request(&mut queue.normal, &mut queue.requests))
            .map(|request| request.id)
    }

    fn longest(queue: &UploadQueue) -> usize {
        queue.urgent.len().max(queue.normal.len())
    }

    #[test]
    fn endless_requests_and_cancels_keep_queues_bounded() {
        for cancelled_of_five in [5, 3, 0] {
            let mut queue = UploadQueue::default();
            // Other requests wait throughout: the peer reads no responses.
            (1000..999 + MAX_REQUESTS as u64).for_each(|id| _ = queue.push(request(id, id % 2)).unwrap());
            for i in 0..50_000 {
                queue.push(request(1, i / 3 % 2)).unwrap();
                assert!(longest(&queue) <= 2 * MAX_REQUESTS, "{} after {i}", longest(&queue));
                if i % 5 < cancelled_of_five {
                    queue.cancel(1);
                }
            }
            let served = std::iter::from_fn(|| next(&mut queue)).count();
            assert_eq!(served, MAX_REQUESTS - usize::from(cancelled_of_five == 5));
            assert_eq!(longest(&queue), 0);
        }
    }

    #[test]
    fn request_that_replaces_another_queues_by_its_own_priority() {
        let mut queue = UploadQueue::default();
        for (id, priority) in [(1, 0), (2, 0), (3, 1), (1, 1), (3, 0), (4, 0)] {
            queue.push(request(id, priority)).unwrap();
        }
        queue.cancel(4);
        assert_eq!(std::iter::from_fn(|| next(&mut queue)).collect::<Vec<_>>(), [1, 2, 3]);
    }
}
