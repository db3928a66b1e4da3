//! What the core says to its conversations: what changed, who waits for what, and that it closes.

use std::any::Any;
use std::sync::{Arc, Weak};

use super::{Driver, describe};
use crate::core::network::{Changed, ExtensionHandler, Network};
use crate::core::peers::Peer;
use crate::core::waiters::WaitFor;
use crate::replication::{LogChange, PeerId};
use crate::{Error, ErrorKind, Result};

impl Network for Driver {
    fn changed(&self, changes: &[Changed]) {
        let mut change = LogChange::default();
        for it in changes {
            match *it {
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
        self.tell(|machine, local, _| {
            machine.replicator.changed(&change, local);
        });
        self.nudge();
    }

    fn unsettled(&self) {
        let connections: Vec<_> = self.machine.lock().connections.iter().filter_map(Weak::upgrade).collect();
        connections.iter().for_each(|connection| connection.wake());
    }

    fn wait_for(&self, id: u64, want: &WaitFor) {
        self.tell(|machine, local, _| {
            if machine.waiter_ids.contains_key(&id) {
                return;
            }
            let name = match want {
                WaitFor::Block(index) => machine.replicator.wait_for_block(*index, local),
                WaitFor::Upgrade => machine.replicator.wait_for_upgrade(local),
                WaitFor::Seek { bytes, padding } => machine.replicator.wait_for_seek(*bytes, *padding, local),
                WaitFor::Range(what) => machine.replicator.download(what.clone(), local),
            };
            machine.core_waiters.insert(name, id);
            machine.waiter_ids.insert(id, name);
        });
        self.drive();
    }

    fn stop_waiting(&self, id: u64) {
        let mut machine = self.machine.lock();
        let Some(name) = machine.waiter_ids.remove(&id) else { return };
        machine.core_waiters.remove(&name);
        machine.replicator.cancel(name);
        drop(machine);
        self.nudge();
    }

    fn set_finding_peers(&self, finders: usize) {
        self.machine.lock().replicator.set_finding_peers(finders);
        self.nudge();
    }

    fn apply_pending_reorg(&self) -> Result<bool> {
        // A fork that was found is followed as soon as it can be: none is ever pending.
        Ok(false)
    }

    fn peers(&self) -> Vec<Peer> {
        let machine = self.machine.lock();
        let infos: Vec<_> = machine.replicator.peers().collect();
        infos.iter().filter_map(|info| Some(describe(info.peer, machine.peers.get(&info.peer)?, Some(info)))).collect()
    }

    fn set_extension(&self, name: &str, handler: Option<ExtensionHandler>) -> Option<ExtensionHandler> {
        let extensions = &mut self.machine.lock().extensions;
        match handler {
            Some(handler) => extensions.insert(name.to_owned(), handler),
            None => extensions.remove(name),
        }
    }

    fn send_extension(&self, name: &str, message: &[u8], peer: Option<u64>) -> Result<()> {
        let mut machine = self.machine.lock();
        let to: Vec<PeerId> = match peer {
            Some(peer) => vec![PeerId(peer)],
            None => machine.replicator.peers().map(|info| info.peer).collect(),
        };
        let mut left_out = 0;
        for peer in to {
            if machine.peers.get(&peer).is_none_or(|link| link.connection.has_room_for_extensions()) {
                machine.replicator.send_extension(peer, name, message.to_vec());
            } else {
                left_out += 1;
            }
        }
        drop(machine);
        self.nudge();
        if left_out > 0 {
            let what = format!("{left_out} of the peers have too much to read already: send it again later");
            return Err(Error::new(ErrorKind::InvalidOperation, what));
        }
        Ok(())
    }

    fn close(&self) {
        let connections = {
            let mut machine = self.machine.lock();
            machine.closed = true;
            machine.replicator.close();
            let extensions = std::mem::take(&mut machine.extensions);
            let connections = std::mem::take(&mut machine.connections);
            drop(machine);
            // A handler may hold the last handle of another core.
            drop(extensions);
            connections
        };
        if let Some(shared) = self.shared() {
            self.act(&shared, None);
        }
        for connection in connections.iter().filter_map(Weak::upgrade) {
            connection.leave(self);
        }
    }

    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}
