// The operations on cores of both drivers, which `core.js` describes.

const crypto = require('hypercore-crypto')
const z32 = require('z32')
const { createHash } = require('crypto')
const random = require('./random')
const { emit } = require('./lines')

const DEFAULT_VERSION = '10'
const PACKAGES = { 10: 'hypercore10', 11: 'hypercore11', '10.0.0': 'hypercore1000', '10.4.1': 'hypercore1041' }

module.exports = class Cores {
  constructor () {
    this.open_ = new Map()
  }

  // The core that is open under the request's name.
  entry ({ core = 'main' }) {
    const entry = this.open_.get(core)
    if (!entry) throw new Error('no core is open as ' + core)
    return entry
  }

  entries () {
    return [...this.open_.values()]
  }

  ops () {
    const ops = {}
    for (const name of Object.getOwnPropertyNames(Cores.prototype)) {
      if (name.startsWith('op_')) ops[name.slice(3)] = (request) => this[name](request)
    }
    return ops
  }

  // Opening and closing

  async op_open (request) {
    const { core: name = 'main', dir, version = DEFAULT_VERSION, events = false } = request
    if (this.open_.has(name)) throw new Error(name + ' is open already')

    const core = new (hypercore(version))(dir, bytes(request.key), options(request, version))
    const entry = new Entry(name, version, core)

    try {
      await core.ready()
    } catch (err) {
      await core.close().catch(() => {})
      throw err
    }

    this.open_.set(name, entry)
    entry.listen(events)
    return entry.info()
  }

  async op_session (request) {
    const { core, version } = this.entry(request)
    if (this.open_.has(request.as)) throw new Error(request.as + ' is open already')

    const session = request.snapshot ? core.snapshot(options(request, version)) : core.session(options(request, version))
    await session.ready()

    const entry = new Entry(request.as, version, session)
    this.open_.set(request.as, entry)
    return entry.info()
  }

  async op_update (request) {
    const { core } = this.entry(request)
    const updated = await core.update({ wait: request.wait, force: request.force })
    return { updated, length: core.length, fork: core.fork }
  }

  async op_close (request) {
    const { name, core } = this.entry(request)
    this.open_.delete(name)
    await core.close()
    return {}
  }

  async op_purge (request) {
    const { name, core } = this.entry(request)
    this.open_.delete(name)
    await core.purge()
    return {}
  }

  // Reading

  info (request) {
    return this.entry(request).info(request)
  }

  op_info (request) {
    return this.info(request)
  }

  op_properties (request) {
    const { core } = this.entry(request)
    const { length, byteLength, contiguousLength, fork, padding, writable } = core
    return { key: hex(core.key), id: z32.encode(core.key), length, byteLength, contiguousLength, fork, padding, writable }
  }

  async op_get (request) {
    const block = await this.entry(request).core.get(request.index, readOptions(request))
    if (block === null) return { block: null, size: null, sha256: null }
    return { block: request.hash ? undefined : hex(block), size: block.byteLength, sha256: sha256(block) }
  }

  async op_digest (request) {
    const { core } = this.entry(request)
    const { start = 0, end = core.length } = request
    const digest = new Digest()
    for (let i = start; i < end; i++) digest.add(await core.get(i, readOptions(request)), i)
    return digest.done()
  }

  async op_check (request) {
    const { core } = this.entry(request)
    const { start = 0, end = core.length } = request

    for (let i = start; i < end; i++) {
      const block = await core.get(i, readOptions(request))
      if (block === null) throw new Error('block ' + i + ' is not held')
      if (!block.equals(randomBlock(request.random, i))) throw new Error('block ' + i + ' is not the expected one')
    }

    return { blocks: end - start }
  }

  async op_has (request) {
    const { start, end = start + 1 } = request
    return { has: await this.entry(request).core.has(start, end) }
  }

  async op_held (request) {
    const { core } = this.entry(request)
    const ranges = []

    for (let i = 0; i < core.length; i++) {
      if (!core.core.bitfield.get(i)) continue
      const last = ranges[ranges.length - 1]
      if (last && last[1] === i) last[1]++
      else ranges.push([i, i + 1])
    }

    return { ranges }
  }

  async op_seek (request) {
    const found = await this.entry(request).core.seek(request.bytes, readOptions(request))
    return found ? { index: found[0], offset: found[1] } : { index: null, offset: null }
  }

  async op_read (request) {
    const { core } = this.entry(request)
    const { start, end, live, snapshot } = request
    const digest = new Digest()
    let i = start || 0
    for await (const block of core.createReadStream({ start, end, live, snapshot })) digest.add(block, i++)
    return digest.done()
  }

  async op_bytes (request) {
    const { core } = this.entry(request)
    const { byteOffset, byteLength } = request
    const hash = createHash('sha256')
    let length = 0

    for await (const chunk of core.createByteStream({ byteOffset, byteLength })) {
      hash.update(chunk)
      length += chunk.byteLength
    }

    return { bytes: length, sha256: hash.digest('hex') }
  }

  async op_treeHash (request) {
    return { hash: hex(await this.entry(request).treeHash(request.length)) }
  }

  async op_node (request) {
    const node = await this.entry(request).node(request.index)
    return { node: node && nodeJson(node) }
  }

  async op_userData (request) {
    return { values: await this.entry(request).userData() }
  }

  async op_verifyHead (request) {
    return { valid: this.entry(request).verifyHead() }
  }

  async op_audit (request) {
    return { report: await this.entry(request).core.core.audit() }
  }

  // Writing

  async op_append (request) {
    const { core } = this.entry(request)
    const blocks = requestBlocks(request, core.length)
    const opts = {}
    if (request.signature) opts.signature = bytes(request.signature)
    if (request.signer) opts.keyPair = keyPair(request.signer)

    const batch = request.batch || Math.max(blocks.length, 1)
    for (let i = 0; i < blocks.length; i += batch) await core.append(blocks.slice(i, i + batch), opts)

    return { length: core.length, byteLength: core.byteLength }
  }

  async op_draft (request) {
    const { core } = this.entry(request)
    const batch = core.batch({ restore: true })
    await batch.ready()
    const blocks = requestBlocks(request, batch.length)
    if (blocks.length > 0) await batch.append(blocks)
    const flushed = await batch.flush({ pending: !request.sign })
    const { length } = batch
    await batch.close()
    return { flushed, length }
  }

  async op_truncate (request) {
    const { core } = this.entry(request)

    if (request.signature) {
      await core.truncate(request.length, { fork: request.fork, signature: bytes(request.signature) })
    } else {
      await core.truncate(request.length, request.fork)
    }

    return { length: core.length, byteLength: core.byteLength, fork: core.fork }
  }

  async op_clear (request) {
    const { start, end = start + 1 } = request
    const cleared = await this.entry(request).core.clear(start, end, { diff: !!request.diff })
    return { blocks: cleared ? cleared.blocks : null }
  }

  async op_setUserData (request) {
    const value = bytes(request.value)
    await this.entry(request).core.setUserData(request.key, value, { flush: !!request.flush })
    return {}
  }

  async op_flush (request) {
    await this.entry(request).flush()
    return {}
  }

  // Signatures of several signers

  op_sign (request) {
    return this.entry(request).sign(request, request.tree ? this.entry({ core: request.tree }) : null)
  }

  async op_assemble (request) {
    const { core } = this.entry(request)
    const proofs = request.proofs.map((proof) => ({
      signer: proof.signer,
      signature: bytes(proof.signature),
      patch: proof.patch || 0,
      nodes: proof.nodes ? proof.nodes.map(({ index, size, hash }) => ({ index, size, hash: bytes(hash) })) : null
    }))
    return { signature: hex(core.core.verifier.assemble(proofs)) }
  }

  async op_copyPrologue (request) {
    const to = this.entry(request)
    const from = this.entry({ core: request.from })
    await to.core.core.copyPrologue(to.version === '11' ? from.core.state : from.core.core)
    return to.info()
  }

  // Ending

  async op_die (request) {
    if (!request.at) kill()
    this.entry(request).killAt(request.at)

    const op = this['op_' + request.then.op]
    await op.call(this, { core: request.core, ...request.then })
    throw new Error('still alive: there were too few calls')
  }
}

class Entry {
  constructor (name, version, core) {
    this.name = name
    this.version = version
    this.core = core
    this.counts = { append: 0, truncate: 0, download: 0, upload: 0 }
  }

  // Reports the events of the core.
  listen (chatty) {
    const { core, name } = this
    const say = (event, fields) => emit(event, { core: name, ...fields })

    core.on('append', () => {
      this.counts.append++
      say('append', { length: core.length, fork: core.fork })
    })
    core.on('truncate', (ancestors, fork) => {
      this.counts.truncate++
      say('truncate', { ancestors, fork, length: core.length })
    })
    core.on('download', (index, byteLength) => {
      this.counts.download++
      if (chatty) say('download', { index, byteLength })
    })
    core.on('upload', (index, byteLength) => {
      this.counts.upload++
      if (chatty) say('upload', { index, byteLength })
    })
    core.on('peer-add', (peer) => say('peer-add', { remotePublicKey: hex(peer.remotePublicKey) }))
    core.on('peer-remove', (peer) => say('peer-remove', { remotePublicKey: hex(peer.remotePublicKey) }))
    core.on('manifest', () => say('manifest', {}))
    core.on('conflict', (length, fork) => say('conflict', { length, fork }))
    core.on('verification-error', (err) => say('verification-error', { error: err.message, code: err.code || null }))
    core.on('close', () => say('close', {}))
  }

  async info ({ storage = false } = {}) {
    const { core } = this
    const { byteLength, padding } = await core.info()
    const manifest = core.manifest || null
    const signature = this.version === '11' ? core.state.signature : core.core.tree.signature

    return {
      key: hex(core.key),
      id: z32.encode(core.key),
      discoveryKey: hex(core.discoveryKey),
      length: core.length,
      byteLength,
      contiguousLength: core.contiguousLength,
      fork: core.fork,
      padding: padding || 0,
      writable: core.writable,
      compat: this.version.startsWith('10.') ? true : core.core.compat,
      manifest: manifest && manifestJson(manifest),
      treeHash: hex(await this.treeHash()),
      signature: signature ? hex(signature) : null,
      peers: core.peers.length,
      counts: this.counts,
      storage: storage ? (await core.info({ storage: true })).storage : undefined
    }
  }

  async treeHash (length) {
    return crypto.tree(await this.roots(length))
  }

  async roots (length) {
    const { core } = this

    if (this.version !== '11') {
      // The tree does not find its nodes while a reorganisation is being written.
      await core.core._mutex.lock()
      try {
        return await core.core.tree.getRoots(length === undefined ? core.length : length)
      } finally {
        core.core._mutex.unlock()
      }
    }

    return require('hypercore11/lib/merkle-tree').MerkleTree.getRoots(core.state, length === undefined ? core.length : length)
  }

  async node (index) {
    const { core } = this
    if (this.version !== '11') return core.core.tree.get(index, false)
    return this.read((rx) => rx.getTreeNode(index))
  }

  async userData () {
    const values = {}

    if (this.version === '11') {
      for await (const { key, value } of this.core.core.createUserDataStream()) values[key] = hex(value)
    } else {
      for (const { key, value } of this.core.core.header.userData) values[key] = hex(value)
    }

    return values
  }

  // Whether the signature of the current head verifies or the head needs none.
  verifyHead () {
    const inner = this.core.core

    if (this.version === '11') {
      const batch = this.core.state.createTreeBatch()
      return batch.length === 0 || inner.verifier.verify(batch, this.core.state.signature)
    }

    const batch = inner.tree.batch()
    if (batch.length === 0) return true
    if (inner.verifier) return inner.verifier.verify(batch, inner.tree.signature)
    return inner.defaultAuth.verify(batch.signable(), inner.tree.signature)
  }

  async flush () {
    const inner = this.core.core
    if (this.version === '11') return
    if (inner.flush) return inner.flush()
    await inner._mutex.lock()
    try {
      await inner._flushOplog()
    } finally {
      inner._mutex.unlock()
    }
  }

  // A partial signature over this core's tree with `blocks` appended, or over the tree of another core, the signer's
  // draft, with the patch from `published` to its length.
  async sign (request, other) {
    const verifier = this.core.core.verifier
    const from = other || this
    const batch = from.version === '11' ? from.core.state.createTreeBatch() : from.core.core.tree.batch()
    for (const block of requestBlocks(request, batch.length)) batch.append(block)
    if (request.fork !== undefined) batch.fork = request.fork

    const pair = keyPair(request.seed)
    const index = verifier.signers.findIndex((signer) => signer.publicKey.equals(pair.publicKey))
    if (index === -1) throw new Error('not a signer of this core')

    const share = {
      signer: index,
      signature: hex(verifier.signers[index].sign(batch, pair)),
      patch: 0,
      nodes: null,
      length: batch.length,
      treeHash: hex(batch.hash())
    }

    if (request.published !== undefined && request.published < batch.length) {
      const proof = await this.upgrade(from, request.published, batch.length)
      share.patch = batch.length - request.published
      share.nodes = proof.map(nodeJson)
    }

    return share
  }

  async upgrade (from, start, end) {
    const { partialSignature } = require(PACKAGES[from.version] + '/lib/multisig')
    const target = from.version === '11' ? from.core.core : from.core.core.tree
    return (await partialSignature(target, 0, start, end, Buffer.alloc(64))).nodes
  }

  // Kills the process inside the `nth` call (from 1) of `call` on a file, after writing `bytes`.
  killAt ({ file, nth = 1, bytes = 0, call = 'write' }) {
    const inner = this.core.core
    const storage = { oplog: inner.oplog, tree: inner.tree, bitfield: inner.bitfield, data: inner.blocks, header: inner.bigHeader }[file].storage
    const name = '_' + call
    const original = storage[name]

    storage[name] = function (request) {
      if (--nth > 0) return original.call(storage, request)
      if (call === 'write' && bytes > 0) require('fs').writeSync(storage.fd, request.data, 0, Math.min(bytes, request.size), request.offset)
      kill()
    }
  }

  read (fn) {
    const rx = this.core.state.storage.read()
    const result = fn(rx)
    rx.tryFlush()
    return result
  }
}

// Hashes blocks in order, each behind its length, so that the boundaries between blocks count.
class Digest {
  constructor () {
    this.hash = createHash('sha256')
    this.blocks = 0
    this.bytes = 0
  }

  add (block, index) {
    if (block === null) throw new Error('block ' + index + ' is not held')
    const length = Buffer.alloc(8)
    length.writeBigUInt64LE(BigInt(block.byteLength))
    this.hash.update(length)
    this.hash.update(block)
    this.blocks++
    this.bytes += block.byteLength
  }

  done () {
    return { blocks: this.blocks, bytes: this.bytes, sha256: this.hash.digest('hex') }
  }
}

function hypercore (version) {
  if (!PACKAGES[version]) throw new Error('no such version here: ' + version)
  return require(PACKAGES[version])
}

function options (request, version) {
  const opts = {}

  for (const name of ['createIfMissing', 'overwrite', 'sparse', 'compat', 'unlocked', 'writable', 'timeout', 'wait', 'active', 'allowFork', 'eagerUpgrade', 'inflightRange']) {
    if (request[name] !== undefined) opts[name] = request[name]
  }

  if (request.seed) opts.keyPair = keyPair(request.seed)
  if (request.manifest) opts.manifest = parseManifest(request.manifest)
  if (request.encryptionKey) {
    const key = bytes(request.encryptionKey)
    if (version === '11') opts.encryption = { key }
    else opts.encryptionKey = key
  }

  return opts
}

function readOptions ({ wait = false, timeout, raw, decrypt }) {
  return { wait, timeout, raw, decrypt }
}

function parseManifest (json) {
  const manifest = { ...json }
  manifest.signers = (json.signers || []).map((signer) => ({
    signature: 'ed25519',
    publicKey: signer.seed ? keyPair(signer.seed).publicKey : bytes(signer.publicKey),
    namespace: signer.namespace ? bytes(signer.namespace) : undefined
  }))
  if (json.prologue) manifest.prologue = { hash: bytes(json.prologue.hash), length: json.prologue.length }
  return manifest
}

function manifestJson (manifest) {
  return {
    version: manifest.version,
    allowPatch: !!manifest.allowPatch,
    quorum: manifest.quorum,
    signers: manifest.signers.map(({ publicKey, namespace }) => ({ publicKey: hex(publicKey), namespace: hex(namespace) })),
    prologue: manifest.prologue ? { hash: hex(manifest.prologue.hash), length: manifest.prologue.length } : null
  }
}

function nodeJson ({ index, size, hash }) {
  return { index, size, hash: hex(hash) }
}

function requestBlocks (request, length) {
  if (request.blocks) return request.blocks.map((block) => Buffer.from(block, 'hex'))
  if (request.text) return request.text.map((block) => Buffer.from(block))
  if (!request.random) return []

  const { count, first = length } = request.random
  return Array.from({ length: count }, (_, i) => randomBlock(request.random, first + i))
}

function randomBlock ({ seed, min = 0, max = 200, sizes = null }, index) {
  const size = sizes ? sizes[index % sizes.length] : random.blockSize(seed, index, min, max)
  return random.block(seed, index, size)
}

function keyPair (seed) {
  return crypto.keyPair(bytes(seed))
}

function kill () {
  process.kill(process.pid, 'SIGKILL')
  while (true);
}

function bytes (text) {
  return text === undefined || text === null ? null : Buffer.from(text, 'hex')
}

function hex (buffer) {
  return buffer === null || buffer === undefined ? null : Buffer.from(buffer).toString('hex')
}

function sha256 (buffer) {
  return createHash('sha256').update(buffer).digest('hex')
}
