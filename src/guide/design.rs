//! How the source is laid out, how data flows through it, and which rules keep it so. For readers of the source.
//!
//! # Two columns, one commit
//!
//! The upper modules are the public API, and the lower ones handle bytes. Two columns of modules lead from the top
//! to the bottom:
//!
//! - the log: `core`, then `merkle` and `manifest`, then `oplog` and `storage`;
//! - the protocol: `net`, then `replication`, then `wire`.
//!
//! They meet in one place, `net/driver`, and in one function, `core/commit.rs`: a local append and a proof from a
//! peer are committed by the same code.
//!
//! `codec`, `bits`, `index`, `flat_tree`, `download`, `crypto`, `node`, `manifest`, `merkle`, `wire` and `replication`
//! are pure: they use no file, socket, thread, lock or clock. They take the time as an argument. Everything that can
//! block, or that can fail for a reason outside of the process, is in `storage`, `core`, `net` and `cli`.
//!
//! # The modules
//!
//! ```text
//! lib.rs         re-exports and the overview
//! main.rs  cli/  the command; it uses only the public API
//! guide/         these pages
//! error  sync    the one error type; all locks, with their order and what each guards
//! logging        events for the crate `log`
//!
//!                values, without I/O
//! codec          compact encoding: every integer and buffer of the files and of the wire
//! bits           pages of bits, in which `bitfield` and the blocks of a peer are kept
//! index  flat_tree  node     positions of nodes in the tree, and the nodes
//! crypto/        BLAKE2b hashes, Ed25519 keys, the block cipher
//! manifest       who may sign a core; checks signatures and quorums
//! download       which blocks a caller wants downloaded
//!
//!                the log, without I/O
//! merkle/        append, prove, verify, seek, follow a fork; reads nodes through the trait NodeSource
//!
//!                bytes on disk
//! storage/       one file for each file of a core, and the traits Storage and File below them
//! oplog/         the write-ahead log: header, entries, frames
//! core/          the open log: the handle, sessions, commits, reads, waiters, events, recovery
//!
//!                the protocol, without I/O
//! wire/          frames, Noise handshake, encrypted stream, channels
//! replication/   a state machine: messages and the time go in, actions come out
//!
//!                threads and sockets
//! net/           connections (a reader and a writer thread each), the server, and the driver
//! ```
//!
//! Each module may use the ones above it in this list, with these exceptions:
//!
//! - `storage` takes only the nodes from `merkle`, and `merkle` takes nothing from `storage`.
//! - `core` uses none of `wire`, `replication` and `net`.
//! - `wire` and `replication` use neither `core`, `oplog` and `storage` nor each other.
//! - Only `net/driver` uses both `core` and `replication`.
//! - `cli` uses what the crate exports.
//!
//! Files do not import each other in a circle. `unsafe` stands in `storage/mmap.rs` and `storage/os.rs`. The test
//! `tests/layers.rs` reads the imports off the source and checks these rules.
//!
//! # How an append goes
//!
//! All steps but the eighth happen on a caller's thread. One thread commits the appends of all threads that wait:
//!
//! 1. Hash the leaves before taking the lock, on several threads if the batch is large.
//! 2. `merkle/append.rs` computes the new nodes and roots.
//! 3. `manifest` signs the new head.
//! 4. `core/commit.rs` writes the blocks to `data`, past the end. No reader uses these bytes yet.
//! 5. It writes the entry to `oplog`. This is the commit point: a crash before it leaves the old log, a crash after
//!    it the new one.
//! 6. It updates the memory (head, nodes, bits) and releases the lock.
//! 7. Waiting calls wake up, and callbacks run.
//! 8. Peers hear of the append. With `None` and `Always` they hear at once (`Always` has synced it in step 5). With
//!    `Flush` they hear after a connection's thread has synced it.
//! 9. When enough has changed, a flush writes the nodes and dirty pages to `tree` and `bitfield`, then the header
//!    to the other slot, and then removes the entries from `oplog`.
//!
//! If a flush fails, the append before it has succeeded all the same, and the core refuses further writes.
//!
//! # How a block arrives
//!
//! 1. The connection's reader thread takes bytes from the socket. `wire` splits them into frames, decrypts them in
//!    place and finds the channel. `replication/message.rs` decodes the message.
//! 2. The state machine in `replication` handles the message and returns actions, until none is left.
//! 3. `net/driver` carries the actions out. It verifies all proofs of one read of the socket outside of the lock
//!    and commits them as one batch, through `core/commit.rs`.
//! 4. The commit wakes the `get` that waits for the block.
//!
//! The reader never writes to the socket; otherwise two peers with full buffers could block each other forever. The
//! writer thread sends the queued messages first. Then, while the socket has room, it turns the peer's queued
//! requests into answers, so a peer that requests much and reads nothing costs the memory of one frame.
//!
//! # Rules of the storage
//!
//! - Before the commit point nothing is overwritten that the old state needs. Before the header is switched to the
//!   other slot nothing is dropped that the new state needs.
//! - After an open, nothing is visible that the oplog does not confirm.
//! - Opening discards an acknowledged change only if a power cut explains the loss and the durability allowed it,
//!   never because of damage, and never without a report.
//! - After the first failure that may have moved bytes, reads go on, and writes return an error until the core
//!   is opened again.
//! - `tree` and `bitfield` are read through memory maps, up to a limit. All other reads and all writes are positioned
//!   system calls.
//!
//! `storage/mod.rs` and `oplog/mod.rs` describe each file, its fields, the write order, and what a crash leaves at
//! each point. [`storage_and_durability`](super::storage_and_durability) describes the result for users.
//!
//! # Threads and locks
//!
//! Work runs on the callers' threads, on a reader and a writer thread for each connection, and on one accepting thread
//! for each server. The callbacks of a connection's changes run on another thread, which ends when no event is left.
//! Some calls start threads that end before the call returns: an append hashes a large batch on several threads, and a
//! verification that reports its progress checks on a thread of its own. Deadlines are timeouts of condition
//! variables; no thread is a timer and no thread polls.
//!
//! Locks are taken in one order. `sync.rs` lists them, with what each guards and the longest operation under it; debug
//! builds check the order. No lock is held during a callback or a write to a socket, and no lock that readers need
//! during a sync of a file or a read from a cold file. A callback may call any method of the core, drop the core, or
//! panic.
//!
//! # Tests and benches
//!
//! The tests are few binaries with many modules: `tests/log` (one log), `tests/talk` (the protocol, its state
//! machines, and malicious peers), `tests/cli` (the command as a process), `tests/interop` (JavaScript on the other
//! side) and `tests/layers.rs`. Crash tests replay every prefix of the writes that a program made. Nothing sleeps;
//! a watchdog names a test that hangs.
//!
//! Each bench answers one question of a user, and prints its figure beside a floor from the same run: the least
//! that the work costs, such as a bare signature. `benches/README.md` has the results.
