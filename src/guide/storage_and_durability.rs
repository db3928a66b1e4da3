//! Which files a core has, what survives a crash, and what to do when a disk fails.
//!
//! # The files
//!
//! A core is a directory of four files, and sometimes a fifth:
//!
//! | file | holds |
//! |---|---|
//! | `oplog` | the write-ahead log: the header (keys, user data, the signed head) in two slots, and the changes since the header was written; the lock is taken on this file |
//! | `tree` | node `i` of the hash tree at byte `40 i`; zeros where the node is not held |
//! | `bitfield` | one bit for each block: whether it is held |
//! | `data` | the blocks, one after the other; holes where they are not held |
//! | `header` | the header, once it is too large for its slot |
//!
//! All of them are sparse files, so a reader that holds one block of a large log needs little disk space.
//! [`Hypercore::clear`](crate::Hypercore::clear) drops blocks and gives their space back to the file system.
//!
//! The files are those of JavaScript Hypercore 10, which can open the same directory, but not at the same time. If
//! a directory has files of these names but no `oplog`, opening refuses to create a new core there, unless it is
//! told to [overwrite](crate::OpenOptions::overwrite) them.
//!
//! # One process at a time
//!
//! An open core is locked. Opening it in a second process is an error of kind
//! [`Locked`](crate::ErrorKind::Locked). [`read_only`](crate::OpenOptions::read_only) opens a core that another
//! process writes, and shows what it held at that moment. Within a process, clone the handle, which is cheap. Any
//! number of threads may read while others write.
//!
//! The lock is on the file `oplog`. After it has the lock, opening checks that the locked file still has that name,
//! and starts over if another process deleted it in between. A [`purge`](crate::Hypercore::purge) or an `overwrite`
//! at the same time as an opening therefore loses no acknowledged change. Do not delete a core's files by hand
//! while it is open.
//!
//! # Many cores
//!
//! An open core takes four file descriptors and a few KiB of memory. A program that keeps thousands of cores open
//! and uses few of them at a time calls [`release_files`](crate::Hypercore::release_files) on the idle ones. A
//! released core keeps one descriptor, and opens its other files again when they are next used. For example, a
//! server can release a core when its last peer leaves:
//!
//! ```
//! use hypercore::Hypercore;
//!
//! # let tmp = tempfile::tempdir()?;
//! # let dir = tmp.path();
//! let core = Hypercore::open(dir)?;
//! core.append(b"kept")?;
//! core.release_files()?;
//! let served = core.clone();
//! let _subscription = core.on_peer_remove(move |_| {
//!     if served.peers().is_empty() {
//!         let _ = served.release_files();
//!     }
//! });
//! assert_eq!(core.get(0)?, b"kept");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The promises
//!
//! Each change is one entry in `oplog`. Until the entry is complete, nothing has changed; from then on, everything
//! has. [`Durability`](crate::Durability) says when files are synced. These are its ten promises in short; its
//! documentation has them in full, with what they assume of the disk:
//!
//! 1. A killed process loses nothing that a call acknowledged.
//! 2. A change, which may be a batch, is found whole or not at all: with `Flush` and `Always` also after
//!    a power cut.
//! 3. `Flush`: a power cut loses at most the latest changes, and never what a flush, a truncation, a clear or a
//!    close has covered or what a peer has heard of.
//! 4. `Always`: a power cut loses nothing that a call acknowledged.
//! 5. `Flush` and `Always`: peers hear only of what a power cut cannot take back.
//! 6. Damage never shortens a log.
//! 7. If others may have seen a lost block, the log keeps its length and the block counts as not held.
//! 8. [`recovery`](crate::Hypercore::recovery) reports every loss.
//! 9. An error means that nothing has changed, and success that everything has.
//! 10. The state that an opening finds verifies, and the log can go on from it, also in another implementation.
//!
//! ```
//! use hypercore::{Durability, Hypercore};
//!
//! # let tmp = tempfile::tempdir()?;
//! // For a log that must not lose an acknowledged block to a power cut. Concurrent appends share their syncs.
//! let careful = Hypercore::options().durability(Durability::Always).open(tmp.path().join("careful"))?;
//! // For a log that can be downloaded again.
//! let fast = Hypercore::options().durability(Durability::None).open(tmp.path().join("fast"))?;
//! # drop((careful, fast));
//! # Ok::<(), hypercore::Error>(())
//! ```
//!
//! # After a power cut
//!
//! With `Always` a power cut loses nothing.
//!
//! With `Flush`, the default, it may lose what was appended since the last flush, but nothing that a peer has heard
//! of: a connection's thread syncs the appended blocks before it tells the peers about them. The next opening finds
//! the log as it was before the first change that the disk did not keep, and the log goes on from there.
//!
//! With `None`, and in files that another implementation wrote, the library cannot know what others have seen. The
//! log then keeps its length, and the lost blocks count as not held. A peer can bring them back, or
//! [`truncate`](crate::Hypercore::truncate) cuts the log and raises its fork.
//!
//! Damage is a different case. A flipped bit, a damaged node, a file that was moved away or cut never shortens a
//! log: reading an affected block is an error, [`verify`](crate::Hypercore::verify) names the block, and the rest
//! stays readable. If so much of `tree` is lost that its roots cannot be computed from the rest, the core does not
//! open. The error says so, and no file is changed. Restore the file from a backup, or clone the core from a peer.
//!
//! [`recovery`](crate::Hypercore::recovery) reports what was lost, and the command prints it as a warning. Opening and
//! reading discard nothing in the files; the first change or the first peer does. A program whose disk may be
//! unmounted should open with [`create_if_missing(false)`](crate::OpenOptions::create_if_missing), which creates no
//! new core in the empty mount point:
//!
//! ```
//! use hypercore::Hypercore;
//!
//! # let tmp = tempfile::tempdir()?;
//! # let dir = tmp.path();
//! let core = Hypercore::open(dir)?;
//! if let Some(lost) = core.recovery() {
//!     eprintln!("{lost}");
//! }
//! core.append("the log goes on")?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # When a write fails
//!
//! A failed write returns an error that names the file. From then on the core only reads, and every further write
//! returns an error of kind [`Failed`](crate::ErrorKind::Failed), because the library no longer knows what reached
//! the disk. Open the core again: it is in the state after the last acknowledged change, or one change later.
//!
//! If the disk fails after a change was made, while the change is written to its final place, the call succeeds.
//! The next call that writes, or closing, returns the error.
//!
//! On a full disk only the call itself fails ([`io_error`](crate::Error::io_error) tells this error from others). The
//! change leaves nothing behind, and the core goes on when the disk has space again.
//! [`clear`](crate::Hypercore::clear) works on a full disk, because some space is reserved for its entry. It gives
//! space back in whole blocks of the file system:
//!
//! ```
//! use hypercore::Hypercore;
//! use std::io::ErrorKind;
//!
//! # let core = Hypercore::in_memory()?;
//! if let Err(error) = core.append("a line of the log") {
//!     match error.io_error().map(std::io::Error::kind) {
//!         Some(ErrorKind::StorageFull) => drop(core.clear(0..core.len() / 2)?), // the older half
//!         _ => return Err(error),
//!     }
//! }
//! # Ok::<(), hypercore::Error>(())
//! ```
//!
//! A file-size limit (`ulimit -f`) kills a process with the signal SIGXFSZ, unless the program handles or ignores
//! that signal. The `hypercore` command handles it and gets an error like that of a full disk. The library does not
//! change a process's signals.
//!
//! # When a file is cut, or a read fails
//!
//! No other program may change the files while a core is open. If one does cut a file, a read of the lost part fails
//! with an error that names the file. The next write fails too, so that it leaves no hole in the lost part.
//!
//! One case is worse, because `tree` and `bitfield` are read through memory maps. The signal SIGBUS kills the process
//! if it reads a mapped place after the file was cut there, or if the disk cannot read that place again after the
//! system was short of memory. Before the library maps a place for the first time, it checks that the file is long
//! enough and, on Linux 5.14 and later, that the disk can read the place. On Linux the `hypercore` command turns
//! SIGBUS into an error line and exit code 1.
//!
//! A program that must survive this case, or whose disk is known to fail, opens with
//! [`map_limit(0)`](crate::OpenOptions::map_limit); the command has `--no-map`. Then no file is mapped and every
//! failure is an error, but reading small blocks at random takes up to four times as long:
//!
//! ```
//! use hypercore::Hypercore;
//!
//! # let tmp = tempfile::tempdir()?;
//! # let dir = tmp.path();
//! let core = Hypercore::options().map_limit(0).open(dir)?;
//! # drop(core);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # When data is damaged
//!
//! Every read compares the block with its signed hash. If a disk flips bits, the read is an error of kind
//! [`InvalidChecksum`](crate::ErrorKind::InvalidChecksum) and never returns other data.
//! [`verify`](crate::Hypercore::verify) checks the whole core and changes nothing.
//! [`repair`](crate::Hypercore::repair) also recomputes tree nodes where possible and drops the blocks that cannot be
//! proven, so that a peer can send them again:
//!
//! ```
//! use hypercore::Hypercore;
//!
//! let core = Hypercore::in_memory()?;
//! core.append_batch(["a", "b"])?;
//! let audit = core.verify()?;
//! assert_eq!((audit.blocks, audit.faults.len()), (2, 0));
//! # Ok::<(), hypercore::Error>(())
//! ```
//!
//! # Storage of your own
//!
//! To keep the files elsewhere, implement [`Storage`](crate::Storage) and [`File`](crate::File) and open with
//! [`open_in`](crate::OpenOptions::open_in). [`Memory`](crate::Memory) is such a storage.
