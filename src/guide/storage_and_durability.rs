//! Where a core lives, and what is safe when.
//!
//! # The files
//!
//! A core is a directory of four files, and sometimes a fifth:
//!
//! | file | holds |
//! |---|---|
//! | `oplog` | the header (keys, user data, the signed head) in two slots, and the changes since it was written; locks the core |
//! | `tree` | node `i` of the tree of hashes at byte `40 i`, zeros where it is not held |
//! | `bitfield` | a bit for each block: whether it is here |
//! | `data` | the blocks, one after the other; holes where they are not held |
//! | `header` | the header, where it outgrew its slot |
//!
//! All are sparse: a reader with one block of a large log takes little space.
//! [`Hypercore::clear`](crate::Hypercore::clear) gives the space of blocks back. They are the files of JavaScript Hypercore 10, which can open the directory, though not at the same time. A new core is not made over files of these names that are there without an `oplog`,
//! unless it is told to [overwrite](crate::OpenOptions::overwrite).
//!
//! # One process at a time
//!
//! An open core is locked against other processes; opening it elsewhere is an error of kind
//! [`Locked`](crate::ErrorKind::Locked). [`read_only`](crate::OpenOptions::read_only) opens beside a writer and shows
//! what was there at that moment. Within a process, share the handle: it is cheap to clone, and any number of threads
//! may read while others write.
//!
//! The lock is that of the file `oplog`. Opening compares the file that it locked with the one of that name and begins
//! again where another process deleted it in between, so that [`purge`](crate::Hypercore::purge) and `overwrite`
//! beside an opening lose nothing that was acknowledged. Do not delete a core's files by hand while it is open.
//!
//! # Many cores
//!
//! An open core has four descriptors and a few KiB of memory. A program that keeps thousands of them open, of which
//! few are used at a time, gives up the files of those that are not by
//! [`release_files`](crate::Hypercore::release_files): each then has one descriptor, and its files are opened again
//! when they are next used. A server does so when the last peer of a core leaves:
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
//! # What is safe when
//!
//! A change is made by one entry in
//! `oplog`: before it is there nothing has happened, and after it everything has. What is found after a crash is the state before or after a change, never something between. [`Durability`](crate::Durability)
//! says when the disk is told to keep what it was given, lists what that promises, point by point, and what it assumes
//! of the disk:
//!
//! ```
//! use hypercore::{Durability, Hypercore};
//!
//! # let tmp = tempfile::tempdir()?;
//! // For a log that must not lose an acknowledged block to a power cut. Threads that append at once share the waiting.
//! let careful = Hypercore::options().durability(Durability::Always).open(tmp.path().join("careful"))?;
//! // For one that can be downloaded again.
//! let fast = Hypercore::options().durability(Durability::None).open(tmp.path().join("fast"))?;
//! # drop((careful, fast));
//! # Ok::<(), hypercore::Error>(())
//! ```
//!
//! # What a power cut takes
//!
//! With `Always` nothing. With `Flush`, the default, it may take what was appended since the last flush, and never
//! what a peer has heard of: a connection's thread syncs what was appended, and tells the peers after that. The next
//! opening finds the log as it was before the first change that the disk did not keep, and goes on from there.
//!
//! With
//! `None`, and in files that another implementation wrote, nobody knows what others have seen. The log then keeps its length, and the blocks that were lost are not held: a peer can bring them, or [`truncate`](crate::Hypercore::truncate)
//! cuts the log and raises its fork.
//!
//! Damage is none of this. A flipped bit, a damaged node, a file that was moved away or cut never shorten a log:
//! reading the block is an error,
//! [`verify`](crate::Hypercore::verify) names it, and everything else stays readable. If so much of `tree` is gone
//! that its roots do not follow from what is left, the core does not open, and the error says so: nothing is changed,
//! and a copy of the file or of the core is what helps.
//!
//! [`recovery`](crate::Hypercore::recovery) tells what was lost; the command says it as a warning. Opening to look changes no file. A program whose disk may not be mounted opens with [`create_if_missing(false)`](crate::OpenOptions::create_if_missing),
//! which makes no new core in the empty place:
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
//! # When something fails
//!
//! An error while writing is returned with the file's name. From then on the core only reads: each further write
//! answers [`Failed`](crate::ErrorKind::Failed), because what reached the disk is not certain any more. Open it again,
//! and it is what it was after the last change that a call acknowledged, or one later. Where the disk fails after a
//! change was made, in writing it to its place, the call succeeds, and the next one that writes, or closing, says what
//! failed.
//!
//! A full disk is an error of the call alone
//! (`io_error()` says which): nothing of the change is left, and the core goes on when there is room again. [`clear`](crate::Hypercore::clear)
//! works on a full disk, since some space is kept for the entry it makes, and gives space back, in whole blocks of the
//! file system:
//!
//! ```
//! use hypercore::Hypercore;
//! use std::io::ErrorKind;
//!
//! # let core = Hypercore::in_memory()?;
//! if let Err(error) = core.append("a line of the log") {
//!     match error.io_error().map(std::io::Error::kind) {
//!         Some(ErrorKind::StorageFull) => core.clear(0..core.len() / 2)?, // the older half
//!         _ => return Err(error),
//!     }
//! }
//! # Ok::<(), hypercore::Error>(())
//! ```
//!
//! A file-size limit (`ulimit -f`) kills a process by a signal, SIGXFSZ, unless the program handles or ignores it; the
//! `hypercore` command does, and gets an error like that of a full disk. A library leaves a process's signals alone.
//!
//! The files are nobody else's while a core is open. Where another program cuts one all the same, a read of what was
//! cut off is an error that names the file, and so is the next write, before it leaves a hole in the place of what was
//! there. One case is left: `tree` and `bitfield` are read through memory maps, and a read of a place that is mapped
//! when the file is cut there, or when the disk cannot read it again after memory ran short, kills the process by a
//! signal, SIGBUS. What is mapped for the first time is checked before (its length everywhere, and on Linux 5.14 and
//! later that the disk can read it). The `hypercore` command turns the signal into an error line and exit code 1 (on
//! Linux). A program for which that is not enough, or whose disk is known to fail, opens with
//! [`map_limit(0)`](crate::OpenOptions::map_limit), the command with `--no-map`: nothing is mapped then, all failures
//! are errors, and reading small blocks at random takes up to four times as long:
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
//! Every block is compared with its signed hash when it is read: a disk that flips bits makes errors of kind
//! [`InvalidChecksum`](crate::ErrorKind::InvalidChecksum), not other data. [`verify`](crate::Hypercore::verify) looks
//! at everything, and repairs by dropping what cannot be proven:
//!
//! ```
//! use hypercore::{Hypercore, Repair};
//!
//! let core = Hypercore::in_memory()?;
//! core.append_batch(["a", "b"])?;
//! let audit = core.verify(Repair::No)?;
//! assert_eq!((audit.blocks, audit.faults.len()), (2, 0));
//! # Ok::<(), hypercore::Error>(())
//! ```
//!
//! # Storage of your own
//!
//! Implement [`Storage`](crate::Storage) and [`File`](crate::File) to keep the files elsewhere, and open with
//! [`open_in`](crate::OpenOptions::open_in). [`Memory`](crate::Memory) is one such.
