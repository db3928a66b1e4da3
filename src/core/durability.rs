//! The durability settings: what each promises, and what it assumes of the disk.

/// How much of a change has reached the disk when its call returns.
///
/// # Promises
///
/// 1. *A killed process loses nothing*, with any of the three settings. A change whose call returned has
///    been handed to the operating system, and the next open finds it. It may also find the one change that
///    was under way.
/// 2. *Each change is made as a whole or not at all.* An open finds the state from before or after a change; a
///    batch is one change. With `Flush` and `Always` this also holds after a power cut. There is one exception: if
///    the disk is so full that no entry fits in `oplog`, a crash during a clear may leave some of its blocks dropped
///    and others held.
/// 3. `Flush`: once [`flush`](crate::Hypercore::flush), [`truncate`](crate::Hypercore::truncate), a
///    [`clear`](crate::Hypercore::clear) that dropped a block, or [`close`](crate::Hypercore::close) after a change
///    has returned, everything up to then survives a power cut. So does each own append that a peer has heard of. A
///    power cut may take later changes: all of them from some point on.
/// 4. `Always`: a change survives a power cut once its call has returned, and readers and peers do not see it
///    before that. Appends by several threads share their syncs.
/// 5. *Peers hear only of own changes that a power cut cannot take back*, with `Flush` and `Always`. With `Flush`, a
///    connection's thread syncs what was appended before it tells the peers; the append does not wait for that. So
///    a log that continues after a power cut never signs a second history that a peer would refuse.
/// 6. *Damage never shortens a log.* Opening discards a change only if a power cut explains what is missing (whole
///    sectors of zeros, or bytes beyond the end of `data`) and the durability that the change was written with
///    allowed the loss: with `Flush`, changes after the last sync. Everything else that is missing or wrong is a
///    damaged block: the log keeps its length, reading the block is an error,
///    [`verify`](crate::Hypercore::verify) names it and [`repair`](crate::Hypercore::repair) drops only that block.
///    Damage to the write-ahead log makes opening fail with an error that names `oplog`; opening discards nothing
///    to get past it, except as said under *Not promised*.
/// 7. *The log keeps its length if others may have seen a lost block*, that is, if the block was written with `None`
///    or by another implementation. The block counts as not held, and can be fetched from a peer.
/// 8. *Losses are always reported.* [`recovery`](crate::Hypercore::recovery) returns what was lost until it is made
///    good. Opening and reading discard nothing in the files; the first change does, or the first peer.
/// 9. *An error means that nothing has changed, and success that everything has.* There are two exceptions: a clear
///    whose disk space cannot be freed (see [`clear`](crate::Hypercore::clear)), and a failed sync, after which the
///    next open may find the change. If the disk fails after a change was made, the call succeeds, further writes are
///    refused, and the next of them or [`close`](crate::Hypercore::close) returns the failure. A full disk refuses the
///    change and nothing else: once there is room again, for example after a clear, the log continues.
/// 10. The state that is found verifies, and the log can continue from it, also in another implementation.
///
/// # Assumptions
///
/// * Promise 1 assumes only that the operating system keeps running.
/// * The others assume that a sync of a file returns only after its bytes are on the disk, and a sync of a directory
///   only after its names are. A disk that reports unwritten data as written breaks them.
/// * A write that is cut short changes only its own bytes, and the disk writes each sector of 512 bytes as a whole
///   or not at all.
/// * Bytes that were never written read as zeros, as on every journaling file system.
/// * An earlier session may have written without waiting for the disk (`None`, or another implementation). `Flush`
///   and `Always` sync what it wrote before the first peer sees it, and with their first flush. Until then a power
///   cut may still harm it.
///
/// # Not promised
///
/// * Damage in the last entry of `oplog`, or a file that was cut at the end of an entry, looks like a write that a
///   crash interrupted: the log opens without that entry and without a warning, with every durability. Of entries
///   that were written with `Flush` and not synced since, damage in one is reported as the loss of it and those
///   after it.
/// * After a sync that *failed*, the operating system may drop what it could not write and report success from
///   then on. The core refuses to write until it is opened again; [`verify`](crate::Hypercore::verify) then
///   reports what is missing.
/// * `None`: peers may have been given blocks and heads that a power cut then took. A writer whose header was lost
///   continues from an older length and signs a second history, which such peers refuse as a conflict.
/// * No durability replaces a copy: if a disk loses bytes that were synced, `verify` reports it but cannot undo it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Durability {
    /// No file is ever synced, as in JavaScript Hypercore. A power cut may take anything that the operating system
    /// had not written. Closing flushes without syncs.
    None,
    /// Files are synced at each flush of the write-ahead log (every 256 KiB of changes or 16 MiB of blocks), after
    /// truncating, before space is given back, before peers hear of a change, and on closing. A power cut takes at
    /// most the changes after the last sync; the next open finds a state that the core once had.
    #[default]
    Flush,
    /// Every change is synced before its call returns. Appends by several threads share their syncs.
    Always,
}
