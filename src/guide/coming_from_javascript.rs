//! Each name of JavaScript Hypercore 10 and the name it has here, and where the behaviour differs.
//!
//! | JavaScript | here |
//! |---|---|
//! | `new Hypercore(storage, key, opts)`, `ready()` | [`Hypercore::open`](crate::Hypercore::open), [`Hypercore::options`](crate::Hypercore::options) |
//! | `random-access-memory` | [`Hypercore::in_memory`](crate::Hypercore::in_memory), [`Memory`](crate::Memory) |
//! | `core.id`, `.key`, `.discoveryKey`, `.keyPair` | [`id`](crate::Hypercore::id), [`key`](crate::Hypercore::key), [`discovery_key`](crate::Hypercore::discovery_key), [`key_pair`](crate::Hypercore::key_pair) |
//! | `core.readable`, `.writable`, `.fork`, `.padding`, `.peers` | [`readable`](crate::Hypercore::readable), [`writable`](crate::Hypercore::writable), [`fork`](crate::Hypercore::fork), [`padding`](crate::Hypercore::padding), [`peers`](crate::Hypercore::peers) |
//! | `core.length`, `.byteLength`, `.contiguousLength` | [`len`](crate::Hypercore::len), [`byte_length`](crate::Hypercore::byte_length), [`contiguous_length`](crate::Hypercore::contiguous_length) |
//! | `core.append(block \| blocks)` | [`append`](crate::Hypercore::append), [`append_batch`](crate::Hypercore::append_batch) |
//! | `core.get(i, opts)` | [`get`](crate::Hypercore::get), [`get_with`](crate::Hypercore::get_with) |
//! | `core.has(start, end)` | [`has`](crate::Hypercore::has), [`has_range`](crate::Hypercore::has_range) |
//! | `core.update(opts)` | [`update`](crate::Hypercore::update), [`update_with`](crate::Hypercore::update_with) |
//! | `core.seek(bytes)` | [`seek`](crate::Hypercore::seek), [`seek_with`](crate::Hypercore::seek_with) |
//! | `createReadStream`, `createByteStream`, `createWriteStream` | [`read_stream`](crate::Hypercore::read_stream), [`byte_stream`](crate::Hypercore::byte_stream), [`write_stream`](crate::Hypercore::write_stream) |
//! | `core.clear(start, end, {diff})` | [`clear`](crate::Hypercore::clear) |
//! | `core.truncate(length, fork)` | [`truncate`](crate::Hypercore::truncate), [`truncate_to`](crate::Hypercore::truncate_to) |
//! | `core.purge()` | [`purge`](crate::Hypercore::purge) |
//! | `core.treeHash(length)` | [`tree_hash`](crate::Hypercore::tree_hash), [`tree_hash_at`](crate::Hypercore::tree_hash_at) |
//! | `core.download(range)`, `done()`, `destroy()` | [`download`](crate::Hypercore::download), [`wait`](crate::Downloading::wait), [`cancel`](crate::Downloading::cancel) |
//! | `core.session()`, `core.snapshot()` | [`session`](crate::Hypercore::session), [`snapshot`](crate::Hypercore::snapshot) |
//! | `core.info()` | [`info`](crate::Hypercore::info) |
//! | `core.close()` | [`close`](crate::Hypercore::close), or dropping the last clone |
//! | `core.replicate(isInitiator \| stream)` | [`replicate`](crate::Hypercore::replicate), [`replicate_on`](crate::Hypercore::replicate_on) |
//! | `Hypercore.createProtocolStream(isInitiator, {keepAlive})` | [`Connection::open`](crate::net::Connection::open), [`ConnectionOptions`](crate::net::ConnectionOptions) |
//! | `core.findingPeers()` | [`finding_peers`](crate::Hypercore::finding_peers) |
//! | `core.setUserData`, `getUserData` | [`set_user_data`](crate::Hypercore::set_user_data), [`user_data`](crate::Hypercore::user_data) |
//! | `core.registerExtension` | [`register_extension`](crate::Hypercore::register_extension) |
//! | `core.audit()` | [`verify`](crate::Hypercore::verify) |
//! | `valueEncoding`, `encodeBatch` | [`encoded`](crate::Hypercore::encoded), [`encode_batch`](crate::Encoded::encode_batch) |
//! | `core.on("append")`, `"truncate"`, `"close"` | [`on_append`](crate::Hypercore::on_append), [`on_truncate`](crate::Hypercore::on_truncate), [`on_close`](crate::Hypercore::on_close) |
//! | `core.on("peer-add")`, `"peer-remove"` | [`on_peer_add`](crate::Hypercore::on_peer_add), [`on_peer_remove`](crate::Hypercore::on_peer_remove) |
//! | `core.on("download")`, `"upload"`, `"conflict"` | [`on_download`](crate::Hypercore::on_download), [`on_upload`](crate::Hypercore::on_upload), [`on_conflict`](crate::Hypercore::on_conflict) |
//! | `core.on("manifest")`, `"verification-error"` | [`on_manifest`](crate::Hypercore::on_manifest), [`on_verification_error`](crate::Hypercore::on_verification_error) |
//! | `Hypercore.MAX_SUGGESTED_BLOCK_SIZE` | [`MAX_BLOCK_SIZE`](crate::MAX_BLOCK_SIZE) |
//!
//! The search of this documentation finds each method by its JavaScript name too.
//!
//! # What is different
//!
//! - A call blocks until it is done. Where JavaScript returns a promise, the call here takes a timeout and
//!   a [cancel token](crate::Cancel). The library does its work on the caller's thread or on a
//!   connection's two threads.
//! - Options are builders. `core.get(7, { wait: false })` is `core.get_with(7, GetOptions::new().wait(false))`,
//!   which returns `Ok(None)` if the block is not held. Plain [`get`](crate::Hypercore::get) returns the bytes
//!   or an error.
//! - An event handler is a [`Subscription`](crate::Subscription). Dropping it ends the calls.
//! - The length of a session that is not sparse is its contiguous length, as in JavaScript.
//! - Clearing an empty range is no error. `purge` deletes the file `header` too. The memory that a peer can make
//!   this side use is bounded.
//! - Files are synced as [`Durability`](crate::Durability) says. JavaScript Hypercore 10 never syncs them. Each
//!   `get` compares the block with its signed hash.
//! - There is no Corestore and no Hyperswarm. The program chooses a directory for each core and
//!   makes the connections.
