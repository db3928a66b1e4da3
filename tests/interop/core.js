// Drives JavaScript cores on disk: `node core.js`, then requests as JSON lines, which `lib/lines.js` describes. Bytes
// are written in hex. Each request may name an open core in its field `core`; the default is "main".
//
// Opening
//   open {dir, version?, key?, seed?, encryptionKey?, manifest?, compat?, createIfMissing?, overwrite?, sparse?,
//         unlocked?, writable?, timeout?, wait?, eagerUpgrade?, allowFork?, inflightRange?, events?}   -> what info gives
//       version: "10" (10.38.2, the default), "11" (11.37.1), "10.0.0" or "10.4.1"
//       seed: the 32 bytes from which the key pair is generated
//       manifest: {version?, quorum?, allowPatch?, signers: [{seed | publicKey, namespace?}], prologue?: {hash, length}}
//       events: true also reports each block that is downloaded or uploaded
//   session {as, snapshot?, ...options of open}      opens another session of `core` under the name `as` -> info
//   update {wait?, force?}                           -> {updated, length, fork}
//   close {}                                         -> {}
//   purge {}                                         -> {} (version 10)
//
// Reading: {wait?: false, timeout?, raw?, decrypt?} may be added to get, digest, check and seek
//   info {storage?}               -> {key, id, discoveryKey, length, byteLength, contiguousLength, fork, padding, writable,
//                                    compat, manifest, treeHash, signature, peers, counts: {append, truncate, download,
//                                    upload}, storage?: {oplog, tree, blocks, bitfield}}
//   properties {}                 -> {key, id, length, byteLength, contiguousLength, fork, padding, writable}, at once
//   get {index, hash?}            -> {block, size, sha256}; null if it is not held; hash: true omits the block
//   digest {start?, end?}         -> {blocks, bytes, sha256}: of each block's length (u64, little-endian) and the block
//   read {start?, end?, live?, snapshot?}            as digest, with createReadStream
//   bytes {byteOffset?, byteLength?} -> {bytes, sha256}, with createByteStream (versions 10 and 11)
//   check {random, start?, end?}  -> {blocks}: an error unless every block is the one that `random` generates
//   has {start, end?}             -> {has}
//   held {}                       -> {ranges: [[start, end], ...]}
//   seek {bytes}                  -> {index, offset}, null if the tree nodes are not held
//   treeHash {length?}            -> {hash}
//   node {index}                  -> {node: {index, size, hash} | null}
//   userData {}                   -> {values: {name: bytes}}
//   verifyHead {}                 -> {valid}: whether the signature of the current head verifies
//   audit {}                      -> {report} of the version (versions 10 and 11)
//
// Writing
//   append {blocks: [hex] | text: [string] | random, batch?, signature?, signer?: seed}   -> {length, byteLength}
//       random: {seed, count, first?, min?, max?, sizes?}: blocks of `lib/random.js`, from index `first` (default: the
//               core's length), of `min` to `max` bytes (0 to 200) or of sizes[index % sizes.length]
//       batch: the number of blocks per append; all at once by default
//   draft {blocks | text | random, sign?}            -> {flushed, length}: writes blocks with a batch, behind earlier drafts;
//       none of them belongs to the log until one is signed (version 10)
//   truncate {length, fork?, signature?}             -> {length, byteLength, fork}
//   clear {start, end?, diff?}                       -> {blocks}: bytes freed, with diff
//   setUserData {key, value, flush?}                 -> {}; a value of null deletes
//   flush {}                                         -> {}: writes tree, bitfield and header to their files
//
// Signatures of several signers (versions 10 and 11)
//   sign {seed, blocks | text | random, tree?, published?, fork?} -> {signer, signature, patch, nodes, length, treeHash}
//       a partial signature over the core's tree with these blocks appended, or over the tree of the core open as
//       `tree`, with a patch if `published`, the length to be signed together, is shorter
//   assemble {proofs: [results of sign]}             -> {signature}, for append and truncate
//   copyPrologue {from}                              copies the prologue from the core open as `from` -> info
//
// Ending
//   die {}                                           kills the process
//   die {at: {file, nth?, bytes?, call?}, then}      runs the request `then` and kills the process in the nth (from 1)
//       `call` ("write", "truncate", "del", "open") on `file` (oplog, tree, bitfield, data, header), after writing `bytes`
//       (versions 10.x)
//
// Events: started, append {core, length, fork}, truncate {core, ancestors, fork, length}, manifest, conflict, close,
//   verification-error, peer-add and peer-remove {core, remotePublicKey}; with `events` download and upload
//   {core, index, byteLength}.

const Cores = require('./lib/cores')
const { serve } = require('./lib/lines')

serve(new Cores().ops())
