//! Calls from the core: its changes, its waiters, extensions, and its closing.

use std::any::Any;
use std::sync::{Arc, Weak};

use super::{Driver, describe};
use crate::core::network::{Changed, Network};
use crate::core::peers::{ExtensionHandler, Peer};
use crate::core::wait_goal::WaitGoal;
use crate::replication::{LogChange, PeerId};
use crate::{Error, ErrorKind, Result};

impl Network for Driver {
    fn changed(&self, changes: &[Changed]) {
        let mut change = LogChange::default();
        for changed in changes {
            match *changed {
                Changed::Blocks { start, length, drop: false } => change.have.push(start..start + length),
                Changed::Blocks { start, length, drop: true } => change.dropped = Some(start..start + length),
                Changed::Head => change.upgraded = true,
                Changed::Manifest => change.manifest = true,
                Changed::Truncated { ancestors, length } => {
                    change.upgraded = true;
                    change.truncated = Some(ancestors..length);
                    change.dropped = Some(ancestors..length);
                }
            }
        }
        change.have.sort_unstable_by_key(|range| range.start);
        self.with_replicator(|state, local, _| {
            state.replicator.changed(&change, local);
        });
        self.drive_quick();
    }

    fn sync_due(&self) {
        let connections: Vec<_> = self.state.lock().connections.iter().filter_map(Weak::upgrade).collect();
        connections.iter().for_each(|connection| connection.wake());
    }

    fn wait_for(&self, id: u64, want: &WaitGoal) {
        self.with_replicator(|state, local, _| {
            if state.waiter_ids.contains_key(&id) {
                return;
            }
            let waiter = match want {
                WaitGoal::Block(index) => state.replicator.wait_for_block(*index, local),
                WaitGoal::Upgrade => state.replicator.wait_for_upgrade(local),
                WaitGoal::Seek { bytes, padding } => state.replicator.wait_for_seek(*bytes, *padding, local),
                WaitGoal::Range(what) => state.replicator.download(what.clone(), local),
            };
            state.core_waiters.insert(waiter, id);
            state.waiter_ids.insert(id, waiter);
        });
        self.drive();
    }

    fn stop_waiting(&self, id: u64) {
        let mut state = self.state.lock();
        let Some(waiter) = state.waiter_ids.remove(&id) else { return };
        state.core_waiters.remove(&waiter);
        state.replicator.cancel(waiter);
        drop(state);
        self.drive_quick();
    }

    fn set_finding_peers(&self, finders: usize) {
        self.state.lock().replicator.set_finding_peers(finders);
        self.drive_quick();
    }

    fn peers(&self) -> Vec<Peer> {
        let state = self.state.lock();
        let infos: Vec<_> = state.replicator.peers().collect();
        infos.iter().filter_map(|info| Some(describe(info.peer, state.peers.get(&info.peer)?, Some(info)))).collect()
    }

    fn set_extension(&self, name: &str, handler: Option<ExtensionHandler>) -> Option<ExtensionHandler> {
        let extensions = &mut self.state.lock().extensions;
        match handler {
            Some(handler) => extensions.insert(name.to_owned(), handler),
            None => extensions.remove(name),
        }
    }

    fn send_extension(&self, name: &str, message: &[u8], peer: Option<u64>) -> Result<()> {
        let mut state = self.state.lock();
        let to: Vec<PeerId> = match peer {
            Some(peer) => vec![PeerId(peer)],
            None => state.replicator.peers().map(|info| info.peer).collect(),
        };
        let mut left_out = 0;
        for peer in to {
            if state.peers.get(&peer).is_none_or(|link| link.connection.has_room_for_extensions()) {
                state.replicator.send_extension(peer, name, message.to_vec());
            } else {
                left_out += 1;
            }
        }
        drop(state);
        self.drive_quick();
        if left_out > 0 {
            let what = format!("{left_out} of the peers have too much to read already: send it again later");
            return Err(Error::new(ErrorKind::InvalidOperation, what));
        }
        Ok(())
    }

    fn close(&self) {
        let connections = {
            let mut state = self.state.lock();
            state.closed = true;
            state.replicator.close();
            let extensions = std::mem::take(&mut state.extensions);
            let connections = std::mem::take(&mut state.connections);
            drop(state);
            // A handler may hold the last handle of another core.
            drop(extensions);
            connections
        };
        if let Some(shared) = self.shared() {
            self.dispatch_actions(&shared, None);
        }
        for connection in connections.iter().filter_map(Weak::upgrade) {
            connection.leave(self);
        }
    }

    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}
