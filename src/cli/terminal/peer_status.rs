//! One line per peer at the foot of the terminal: address, key, rates in both directions, blocks.
//!
//! Events of the cores wake a thread that draws, at most five times a second. After a second without events it
//! draws rates of 0 once and sleeps until the next event.

use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hypercore::{Error, Hypercore, Key, Peer, Subscription};

use super::screen::{self, Size, fit};
use super::units::{bytes, per_second};
use crate::cli::failure::Result;
use crate::cli::thread::thread;

/// The least time between two drawings.
const REDRAW: Duration = Duration::from_millis(200);
/// The time over which a rate is measured. After this long without an event the rate is 0.
const SPAN: Duration = Duration::from_secs(1);

/// Shows the peers of some cores, from [`Status::show`] until it is dropped.
pub struct Status {
    shared: Arc<Shared>,
    drawing: Option<JoinHandle<()>>,
    _subscriptions: Vec<Subscription>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    woken: Condvar,
}

#[derive(Default)]
struct State {
    /// In the order in which they joined.
    peers: Peers,
    /// Whether an event has not been drawn yet.
    changed: bool,
    stopped: bool,
}

type Peers = Vec<(Who, Line)>;

/// The identity of a connection, which may carry several cores.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Who {
    address: Option<SocketAddr>,
    key: [u8; 32],
}

/// The numbers of a peer.
struct Line {
    /// How many cores it replicates.
    cores: usize,
    up: Meter,
    down: Meter,
}

/// Counts blocks and bytes in one direction.
struct Meter {
    blocks: u64,
    bytes: u64,
    /// When the present measurement began, and the bytes until then.
    since: Instant,
    before: u64,
    /// Bytes per second of the previous measurement.
    rate: Option<u64>,
}

impl Status {
    /// Starts to show the peers of `cores`; `None` if standard error is not a terminal.
    pub fn show(cores: &[Hypercore]) -> Result<Option<Self>> {
        if !screen::is_seen() {
            return Ok(None);
        }
        let shared = Arc::new(Shared::default());
        let subscriptions = cores.iter().flat_map(|core| subscribe(core, &shared)).collect();
        let draws = shared.clone();
        let draw = move || draws.draw_until_stopped();
        let drawing = thread("status").spawn(draw).map_err(Error::from)?;
        Ok(Some(Status { shared, drawing: Some(drawing), _subscriptions: subscriptions }))
    }
}

impl Drop for Status {
    fn drop(&mut self) {
        self.shared.state().stopped = true;
        self.shared.woken.notify_all();
        let _ = self.drawing.take().map(JoinHandle::join);
        screen::erase();
    }
}

fn subscribe(core: &Hypercore, shared: &Arc<Shared>) -> [Subscription; 4] {
    let [of_join, of_leave, of_upload, of_download] = [(); 4].map(|()| shared.clone());
    [
        core.on_peer_add(move |peer| of_join.change(|peers| join(peers, Who::of(peer), Instant::now()))),
        core.on_peer_remove(move |peer| of_leave.change(|peers| leave(peers, Who::of(peer)))),
        core.on_upload(move |block| of_upload.count(&block.peer, |line| line.up.add(block.byte_length))),
        core.on_download(move |block| of_download.count(&block.peer, |line| line.down.add(block.byte_length))),
    ]
}

fn join(peers: &mut Peers, who: Who, now: Instant) {
    match line_of(peers, who) {
        Some(line) => line.cores += 1,
        None => peers.push((who, Line { cores: 1, up: Meter::new(now), down: Meter::new(now) })),
    }
}

fn leave(peers: &mut Peers, who: Who) {
    if let Some(line) = line_of(peers, who) {
        line.cores -= 1;
    }
    peers.retain(|(_, line)| line.cores > 0);
}

fn line_of(peers: &mut Peers, who: Who) -> Option<&mut Line> {
    peers.iter_mut().find(|(of, _)| *of == who).map(|(_, line)| line)
}

impl Shared {
    fn count(&self, peer: &Peer, add: impl FnOnce(&mut Line)) {
        self.change(|peers| {
            if let Some(line) = line_of(peers, Who::of(peer)) {
                add(line);
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut Peers)) {
        let mut state = self.state();
        change(&mut state.peers);
        // Only the first event since the last drawing wakes the thread.
        if !std::mem::replace(&mut state.changed, true) {
            drop(state);
            self.woken.notify_all();
        }
    }

    fn draw_until_stopped(&self) {
        let mut drawn = None;
        // Whether the rates of 0 are drawn, so that only an event gives something to draw.
        let mut resting = true;
        loop {
            let quiet = |state: &mut State| !state.changed && !state.stopped;
            let mut state = match resting {
                true => self.woken.wait_while(self.state(), quiet).unwrap_or_else(PoisonError::into_inner),
                false => self.wait(self.state(), SPAN, quiet),
            };
            if let Some(pause) = drawn.and_then(|at: Instant| REDRAW.checked_sub(at.elapsed())) {
                state = self.wait(state, pause, |state| !state.stopped);
            }
            if state.stopped {
                return;
            }
            let (now, was_resting) = (Instant::now(), resting);
            resting = !std::mem::take(&mut state.changed);
            for meter in state.peers.iter_mut().flat_map(|(_, line)| [&mut line.up, &mut line.down]) {
                match (was_resting, resting) {
                    (true, _) => meter.since = now,
                    (false, true) => meter.rest(now),
                    (false, false) => meter.tick(now),
                }
            }
            let lines = lines(&state.peers, Size::of_terminal());
            drop(state);
            screen::draw(lines);
            drawn = Some(now);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is consistent after a panic: no update can panic halfway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(
        &self,
        state: MutexGuard<'a, State>,
        most: Duration,
        condition: impl FnMut(&mut State) -> bool,
    ) -> MutexGuard<'a, State> {
        self.woken.wait_timeout_while(state, most, condition).unwrap_or_else(PoisonError::into_inner).0
    }
}

/// The lines of as many peers as fit; the last line counts the others.
fn lines(peers: &[(Who, Line)], room: Size) -> Vec<String> {
    let rows = room.rows.saturating_sub(1).max(1);
    let shown = if peers.len() > rows { rows - 1 } else { peers.len() };
    let (on, off) = screen::colour();
    let mut lines: Vec<String> = peers
        .iter()
        .take(shown)
        .map(|(who, line)| format!("{on}{}{off}", fit(&line.text(who), room.columns)))
        .collect();
    if shown < peers.len() {
        lines.push(fit(&format!("and {} more peers", peers.len() - shown), room.columns));
    }
    lines
}

impl Who {
    fn of(peer: &Peer) -> Self {
        Who { address: peer.remote_address(), key: *peer.remote_public_key().as_bytes() }
    }
}

impl Line {
    fn text(&self, who: &Who) -> String {
        let address = who.address.map_or_else(|| "?".into(), |address| address.to_string());
        let id = Key::from(who.key).id();
        format!(
            "{address} {}  up {}/s  down {}/s  blocks {} up, {} down",
            &id[..8],
            bytes(self.up.shown()),
            bytes(self.down.shown()),
            self.up.blocks,
            self.down.blocks
        )
    }
}

impl Meter {
    fn new(now: Instant) -> Self {
        Meter { blocks: 0, bytes: 0, since: now, before: 0, rate: None }
    }

    /// Counts a block of `bytes`.
    fn add(&mut self, bytes: u64) {
        self.blocks += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Ends the present measurement if it is a second old, and begins the next one.
    fn tick(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed >= SPAN {
            self.rate = Some(per_second(self.bytes - self.before, elapsed));
            (self.since, self.before) = (now, self.bytes);
        }
    }

    /// Resets the rate to 0 after a second without events.
    fn rest(&mut self, now: Instant) {
        (self.since, self.before, self.rate) = (now, self.bytes, None);
    }

    /// Bytes per second. During the first measurement, the bytes so far.
    fn shown(&self) -> u64 {
        self.rate.unwrap_or(self.bytes - self.before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(last: u8) -> Who {
        Who { address: Some(([127, 0, 0, last], 4977).into()), key: [last; 32] }
    }

    #[test]
    fn rate_is_bytes_of_last_second_and_0_at_rest() {
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        let mut meter = Meter::new(begin);
        meter.add(1000);
        meter.tick(at(500));
        assert_eq!(meter.shown(), 1000);
        meter.add(3000);
        meter.tick(at(2000));
        assert_eq!(meter.shown(), 2000);
        meter.add(500);
        meter.tick(at(2500));
        assert_eq!(meter.shown(), 2000);
        meter.tick(at(3000));
        assert_eq!(meter.shown(), 500);
        meter.rest(at(4000));
        assert_eq!((meter.shown(), meter.blocks), (0, 3));
    }

    #[test]
    fn peer_of_several_cores_has_one_line_until_it_left_all() {
        let (mut peers, now) = (Peers::new(), Instant::now());
        let room = Size { columns: 80, rows: 24 };
        for (who, shown) in [(who(1), 1), (who(1), 1), (who(2), 2)] {
            join(&mut peers, who, now);
            assert_eq!(lines(&peers, room).len(), shown);
        }
        for (who, shown) in [(who(1), 2), (who(1), 1), (who(1), 1), (who(2), 0)] {
            leave(&mut peers, who);
            assert_eq!(lines(&peers, room).len(), shown);
        }
    }

    #[test]
    fn lines_of_many_peers_fit_terminal() {
        let (mut peers, now) = (Peers::new(), Instant::now());
        for last in 0..100 {
            join(&mut peers, who(last), now);
        }
        for (columns, rows) in [(1, 1), (20, 2), (80, 24), (200, 101)] {
            let lines = lines(&peers, Size { columns, rows });
            assert_eq!(lines.len(), (rows - 1).clamp(1, 100));
            let hidden = 100 - lines.len();
            let last = lines.last().unwrap();
            assert_eq!(hidden > 0 && columns >= 20, last == &format!("and {} more peers", hidden + 1), "{last}");
            let longest = lines.iter().map(|line| line.replace("\x1b[36m", "").replace("\x1b[0m", "").len()).max();
            assert!(longest < Some(columns), "{lines:?}");
        }
    }
}
