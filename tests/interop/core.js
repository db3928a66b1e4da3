// Drives JavaScript cores on disk: `node core.js`, then requests as JSON lines (`lib/lines.js` says how they are
// framed). Bytes travel as hex. Every request may name a `core`, the name under which a core is open, "main" if not.
//
// Opening
//   open {dir, version?, key?, seed?, encryptionKey?, manifest?, compat?, createIfMissing?, overwrite?, sparse?,
//         unlocked?, writable?, timeout?, wait?, eagerUpgrade?, allowFork?, inflightRange?, events?}   -> what info gives
//       version: "10" (10.38.2, the default), "11" (11.37.1), "10.0.0" or "10.4.1"
//       seed: the key pair is made from these 32 bytes
//       manifest: {version?, quorum?, allowPatch?, signers: [{seed | publicKey, namespace?}], prologue?: {hash, length}}
//       events: true announces each block that is downloaded or uploaded, too
//   session {as, snapshot?, ...options of open}      another session of `core`, open under the name `as` -> info
//   update {wait?, force?}                           -> {updated, length, fork}
//   close {}                                         -> {}
//   purge {}                                         -> {} (version 10)
//
// Reading: {wait?: false, timeout?, raw?, decrypt?} may be added to get, digest, check and seek
//   info {storage?}               -> {key, id, discoveryKey, length, byteLength, contiguousLength, fork, padding, writable,
//                                    compat, manifest, treeHash, signature, peers, counts: {append, truncate, download,
//                                    upload}, storage?: {oplog, tree, blocks, bitfield}}
//   properties {}                 -> {key, id, length, byteLength, contiguousLength, fork, padding, writable}, which wait for nothing
//   get {index, hash?}            -> {block, size, sha256}; null where it is not held; hash: true leaves the block out
//   digest {start?, end?}         -> {blocks, bytes, sha256}: of each block's length (u64, little-endian) and the block
//   read {start?, end?, live?, snapshot?}            the same, through createReadStream
//   bytes {byteOffset?, byteLength?} -> {bytes, sha256}, through createByteStream (versions 10 and 11)
//   check {random, start?, end?}  -> {blocks}: an error unless every block is the one that `random` makes
//   has {start, end?}             -> {has}
//   held {}                       -> {ranges: [[start, end], ...]}
//   seek {bytes}                  -> {index, offset}, null where the tree is not held
//   treeHash {length?}            -> {hash}
//   node {index}                  -> {node: {index, size, hash} | null}
//   userData {}                   -> {values: {name: bytes}}
//   verifyHead {}                 -> {valid}: whether the signature of the current head verifies
//   audit {}                      -> {report}, as the version gives it (versions 10 and 11)
//
// Writing
//   append {blocks: [hex] | text: [string] | random, batch?, signature?, signer?: seed}   -> {length, byteLength}
//       random: {seed, count, first?, min?, max?, sizes?}: blocks of `lib/random.js`, from index `first` (default: the
//               core's length), of `min` to `max` bytes (0 to 200) or of sizes[index % sizes.length]
//       batch: so many blocks to an append; all at once if not given
//   draft {blocks | text | random, sign?}            -> {flushed, length}: through a batch, behind the blocks of drafts before it;
//       none of them is of the log until one is signed (version 10)
//   truncate {length, fork?, signature?}             -> {length, byteLength, fork}
//   clear {start, end?, diff?}                       -> {blocks}: bytes freed, with diff
//   setUserData {key, value, flush?}                 -> {}; a value of null deletes
//   flush {}                                         -> {}: tree, bitfield and header to their files
//
// Signatures of many (versions 10 and 11)
//   sign {seed, blocks | text | random, tree?, published?, fork?} -> {signer, signature, patch, nodes, length, treeHash}
//       a signer's share over the core's tree with the blocks behind it, or over that of the core open as `tree`,
//       patched when `published`, the length to be signed together, is shorter
//   assemble {proofs: [what sign gave]}              -> {signature}, for append and truncate
//   copyPrologue {from}                              the blocks of a prologue, out of the core open as `from` -> info
//
// Ending
//   die {}                                           kills the process
//   die {at: {file, nth?, bytes?, call?}, then}      runs the request `then` and kills the process in the nth (from 1)
//       `call` ("write", "truncate", "del", "open") on `file` (oplog, tree, bitfield, data, header), `bytes` of the write done
//       (versions 10.x)
//
// Events: started, append {core, length, fork}, truncate {core, ancestors, fork, length}, manifest, conflict, close,
//   verification-error, peer-add and peer-remove {core, remotePublicKey}; with `events` download and upload
//   {core, index, byteLength}.

const Cores = require('./lib/cores')
const { serve } = require('./lib/lines')

serve(new Cores().ops())
