//! The durability settings: what each promises, and what it assumes of the disk.

/// How much of a change has reached the disk when its call returns.
///
/// # Promises
///
/// 1. *A killed process loses nothing*, with any of the three settings. A change whose call returned has
///    been handed to the operating system, and the next open finds it. It may also find the one change that
///    was under way.
/// 2. *Each change is made as a whole or not at all.* An open finds the state from before or after a change; a
///    batch is one change. With `Flush` and `Always` this also holds after a power cut.
/// 3. `Flush`: the state at the return of [`flush`](crate::Hypercore::flush), of
///    [`truncate`](crate::Hypercore::truncate), of a [`clear`](crate::Hypercore::clear) that dropped a block, or of
///    [`close`](crate::Hypercore::close) after a change survives a power cut. So does everything that a peer has
///    heard of. Of the changes after it, a power cut may take the latest: all from some point on.
/// 4. `Always`: a change survives a power cut once its call has returned, and readers and peers do not see it
///    before that. Appends by several threads share their syncs.
/// 5. *Peers hear only of what a power cut cannot take back*, with `Flush` and `Always`. With `Flush`, a
///    connection's thread syncs what was appended before it tells the peers; the append does not wait for that. So
///    a log that continues after a power cut never signs a second history that a peer would refuse.
/// 6. *Damage never shortens a log.* Opening discards a change only if a power cut explains what is missing (whole
///    sectors of zeros, or bytes beyond the end of `data`) and the durability it was written with allowed that:
///    with `Flush`, changes after the last sync. Everything else that is missing or wrong is a damaged block: the
///    log keeps its length, reading the block is an error, [`verify`](crate::Hypercore::verify) names it and
///    [`repair`](crate::Hypercore::repair) drops only that block. Damage to the log of changes itself makes opening
///    fail with an error that names `oplog`; nothing is dropped to get past it.
/// 7. *The log keeps its length where others may have seen a lost block*: after `None`, or where another
///    implementation wrote it. The block counts as not held, to be fetched from a peer.
/// 8. *Losses are always reported.* [`recovery`](crate::Hypercore::recovery) returns what was lost until it is made
///    good. Opening and reading change no file; the first change does, or the first peer.
/// 9. *An error means that nothing has changed, and success that everything has.* There are two exceptions: a clear
///    whose space cannot be given back (see there), and a failed sync, after which the next open may find the
///    change. If the disk fails after a change was made, the call succeeds, further writes are refused, and the
///    next of them or [`close`](crate::Hypercore::close) returns the failure. A full disk refuses the change and
///    nothing else: once there is room again, for example after a clear, the log continues.
/// 10. The state that is found verifies, and the log can continue from it, also in another implementation.
///
/// # Assumptions
///
/// * Promise 1 assumes only that the operating system keeps running.
/// * The others assume that a sync returns when the disk has what it was given, and that a sync of a directory
///   returns when the disk has the names in it. A disk that reports unwritten data as written breaks them.
/// * A write that is cut short changes only its own bytes, and the disk writes each sector of 512 bytes as a whole
///   or not at all.
/// * Bytes that were never written read as zeros, as on every journaling file system.
/// * An earlier session may have written without waiting for the disk (`None`, or another implementation). `Flush`
///   and `Always` sync what it wrote before the first peer sees it, and with their first flush. Until then a power
///   cut may still harm it.
///
/// # Not promised
///
/// * After a sync that *failed*, the operating system may drop what it could not write and report success from
///   then on. The core refuses to write until it is opened again; [`verify`](crate::Hypercore::verify) then
///   reports what is missing.
/// * `None`: peers may have been given blocks and heads that a power cut then took. A writer whose header was lost
///   continues from an older length and signs a second history, which such peers refuse as a conflict.
/// * No durability replaces a copy: if a disk loses what it had, `verify` reports it but cannot undo it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Durability {
    /// No file is ever synced, as in JavaScript Hypercore. A power cut may take anything that the operating system
    /// had not written. Closing flushes without syncs.
    None,
    /// Files are synced when the log of changes is flushed (every 256 KiB of changes or 16 MiB of blocks), after
    /// truncating, before space is given back, and on closing. A power cut takes at most what came after that; the
    /// state that is found is one that the core once had.
    #[default]
    Flush,
    /// Every change is synced before its call returns. Appends by several threads share their syncs.
    Always,
}
