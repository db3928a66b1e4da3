//! Durability: what each setting promises, and of what disk.

/// What has reached the disk when a call returns.
///
/// # Promises
///
/// 1. *A killed process loses nothing*, in any of the three: what a call returned is in the hands of the operating
///    system, and the next open finds it, with at most the one change more that was being made.
/// 2. *Each change whole or not at all.* What is found is the state before or after a change; a batch is one change.
///    With `Flush` and `Always` this holds after a power cut too.
/// 3. `Flush`: what was there when [`flush`](crate::Hypercore::flush),
///    [`truncate`](crate::Hypercore::truncate), a [`clear`](crate::Hypercore::clear) that dropped something, or
///    [`close`](crate::Hypercore::close) after a change returned survives a power cut, and so does everything that a
///    peer has heard of. Of changes since, the latest may be lost, from some point on all of them.
/// 4. `Always`: what any call returned survives a power cut, and readers and peers see no change before it would.
///    Appends by several threads share their syncs.
/// 5. *Peers hear only what a power cut cannot take back*, with `Flush` and `Always`. With `Flush`, a connection's
///    thread syncs what was appended before it tells the peers; the append does not wait for that. So a log that goes
///    on after a power cut never signs a second history that a peer would refuse.
/// 6. *Damage never shortens a log.* An entry is given up only where a power cut explains what is missing (whole
///    sectors of zeros, or bytes beyond the end of
///    `data`) and the durability that it was written with allowed that: with `Flush`, what came after the last sync.
///    Everything else that is missing or wrong is a damaged block: the log keeps its length, reading the block is an
///    error, [`verify`](crate::Hypercore::verify) names it and [`repair`](crate::Hypercore::repair) drops just that. Damage to the log
///    of changes itself is an error of opening that names `oplog`: nothing is dropped to get past it.
/// 7. *Where others may have seen a lost block, the log keeps its length*: after `None`, or where another
///    implementation wrote it. The block counts as not held, to be fetched from a peer.
/// 8. *Nothing is given up in silence.* [`recovery`](crate::Hypercore::recovery) tells what was lost, until it is made
///    good. Opening and looking change no file; the first change does, or the first peer.
/// 9. *An error means that nothing has changed, and success that everything has* (but for a clear whose space cannot
///    be given back, see there, and a sync that failed, after which the next open may find the change). Where the disk
///    fails after a change was made, the call succeeds, further writes are refused, and the next of them or
///    [`close`](crate::Hypercore::close) says why. A full disk refuses the change and nothing else: with room again,
///    by a clear for one, the log goes on.
/// 10. What is found verifies, and the log goes on from there, also in another implementation.
///
/// # What they assume
///
/// * 1 only that the operating system goes on running.
/// * The others, that a sync returns when the disk has what it was given, and a sync of a directory when it has the
///   names in it: a disk that lies about its cache breaks them.
/// * That a write that is cut short changes no bytes but its own, and that the disk writes each sector of 512 bytes
///   whole or not at all.
/// * That bytes never written read as zeros, as on every journaling file system.
/// * `Flush` and `Always` take over what an earlier session wrote without waiting for it (`None`, or another
///   implementation) before the first peer sees it, and with their first flush. Until then a power cut may still harm
///   that.
///
/// # What they do not promise
///
/// * After a sync that *failed* the system may drop what it could not write and report success from then on. The core
///   refuses to write until it is opened again; [`verify`](crate::Hypercore::verify) then tells what is missing.
/// * `None`: blocks and heads that a power cut took may have been given to peers before. A writer whose header was
///   lost goes on from an older length and signs a second history, which such peers refuse as a conflict.
/// * No durability replaces a copy: a disk that forgets what it had is told of by `verify`, not undone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Durability {
    /// No file is ever synced, as in the reference. A power cut may lose anything the operating system had not
    /// written. Closing flushes, without syncs.
    None,
    /// Files are synced when the log of changes is flushed (every 256 KiB of changes or 16 MiB of blocks), after
    /// truncating, before space is given back, and on closing. A power cut loses at most what came after; what is
    /// found afterwards is a state the core once had.
    #[default]
    Flush,
    /// Synced before the call returns. Appends by several threads share their syncs.
    Always,
}
