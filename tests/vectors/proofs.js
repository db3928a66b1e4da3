// Writes proofs.json: proofs by npm hypercore 10.38.2, and the result of its verification of each.
//   npm install hypercore@10.38.2 && node proofs.js > proofs.json
// Block i of a log is `padding + (7 i mod 11)` bytes of value i. An absent node or list is null; an error is its code.

const c = require('hypercore-crypto')
const MerkleTree = require('hypercore/lib/merkle-tree')
const Verifier = require('hypercore/lib/verifier')
const flat = require('flat-tree')

const keyPair = c.keyPair(Buffer.alloc(32, 1))
const none = { read: (offset, size, cb) => cb(new Error('absent')) }

let state = 1
function random (n) {
  state = (Math.imul(state, 1103515245) + 12345) >>> 0
  return Math.floor((state / 4294967296) * n)
}

const block = (i, padding, salt) => Buffer.alloc(padding + ((7 * i) % 11), (i + salt) & 255)

function build (length, padding, fork, common = length) {
  const tree = new MerkleTree(none, [], fork, null, null)
  const batch = tree.batch()
  for (let i = 0; i < length; i++) batch.append(block(i, padding, i < common ? 0 : fork))
  batch.commit()
  return tree
}

const codeOf = (err) => err.code || 'ASSERTION'
const indices = (nodes) => nodes && nodes.map(n => n.index)

async function prove (tree, request) {
  try {
    const copy = request.upgrade && { ...request.upgrade }
    return await tree.proof({ ...request, upgrade: copy })
  } catch (err) {
    return codeOf(err)
  }
}

// A reader at the length where the upgrade starts, with the ancestor node that the request presumes
async function verify (tree, request, proof, padding) {
  const start = request.upgrade ? request.upgrade.start : tree.length
  const reader = new MerkleTree(none, await tree.getRoots(start), tree.fork, null, null)
  if (request.block || request.hash) {
    const node = await tree.get(trusted(request), false)
    if (node && flat.rightSpan(node.index) < 2 * start) reader.addNode(node)
  }
  if (proof.block) proof.block.value = block(proof.block.index, padding, 0)
  try {
    const batch = await reader.verify(proof)
    return [batch.length, [...new Set(indices(batch.nodes))].sort((a, b) => a - b)]
  } catch (err) {
    return codeOf(err)
  }
}

const list = (r, name) => r && [r[name].index, r[name].nodes]

// The ancestor node that the reader of a block or hash has
function trusted ({ block, hash }) {
  const ite = flat.iterator(block ? 2 * block.index : hash.index)
  for (let i = 0; i < (block || hash).nodes; i++) ite.parent()
  return ite.index
}

// Mostly valid requests, so that most have an answer
async function randomRequest (tree, padding) {
  const { length, byteLength } = tree
  const r = { block: null, hash: null, seek: null, upgrade: null }
  const wild = !random(8)
  const start = random(length)
  if (random(2)) r.upgrade = { start: random(4) ? start : 0, length: wild ? random(length + 2) : 1 + random(length - start) }
  if (random(3)) {
    const end = r.upgrade && !wild && random(2) ? Math.max(1, r.upgrade.start) : length
    const index = wild ? random(2 * length + 4) : 2 * random(end)
    const ite = flat.iterator(index)
    let levels = 0
    while (levels < 7 && (wild || !ite.contains(2 * end)) && random(3)) {
      ite.parent()
      levels++
    }
    if (levels && !wild) levels--
    if (random(2)) r.block = { index: index >> 1, nodes: levels }
    else r.hash = { index, nodes: levels }
  }
  if (!random(3)) r.seek = { bytes: random(byteLength + 2), padding: random(3) ? 0 : padding }
  const top = (r.block || r.hash) && await tree.get(trusted(r), false)
  if (r.seek && top && random(8)) {
    const offset = await tree.byteOffset(top.index)
    const [blocks, before] = [flat.countLeaves(top.index), flat.leftSpan(top.index) / 2]
    r.seek.bytes = offset + random(top.size - r.seek.padding * blocks) - r.seek.padding * before
  }
  return r
}

async function log (length, padding, count, prologue = null) {
  const tree = build(length, padding, 0)
  tree.prologue = prologue && { length: prologue, hash: build(prologue, padding, 0).hash() }
  const manifest = { version: 1, quorum: 1, signers: [{ publicKey: keyPair.publicKey }], prologue: tree.prologue }
  const batch = tree.batch()
  tree.signature = prologue
    ? Verifier.fromManifest(Verifier.createManifest(manifest)).sign(batch, keyPair)
    : c.sign(batch.signableCompat(false), keyPair.secretKey)

  const cases = []
  while (cases.length < count) {
    const request = await randomRequest(tree, padding)
    const { block, hash, seek, upgrade } = request
    if (!block && !hash && !seek && !upgrade) continue
    // The reference never returns for a node that begins before the start of the upgrade and ends after it, together with a seek
    if (hash && seek && upgrade && hash.index < 2 * upgrade.start && flat.rightSpan(hash.index) >= 2 * upgrade.start) continue
    const proof = await prove(tree, request)
    const answer = typeof proof === 'string'
      ? proof
      : [
          indices((proof.block || proof.hash || { nodes: null }).nodes),
          indices((proof.seek || { nodes: null }).nodes),
          proof.upgrade && [proof.upgrade.start, proof.upgrade.length],
          indices((proof.upgrade || { nodes: null }).nodes),
          indices((proof.upgrade || { additionalNodes: [] }).additionalNodes)
        ]
    const verdict = typeof proof === 'string' || prologue ? null : await verify(tree, request, proof, padding)
    cases.push([
      list(block && request, 'block') || null,
      list(hash && request, 'hash') || null,
      seek && [seek.bytes, seek.padding],
      upgrade && [upgrade.start, upgrade.length],
      answer,
      verdict
    ])
  }
  return {
    length,
    padding,
    prologue,
    treeHash: tree.hash().toString('hex'),
    signature: tree.signature.toString('hex'),
    cases
  }
}

// The requests that find the common ancestor of two logs, each for the first block of the wanted range
async function reorg (localLength, remoteLength, common) {
  const local = build(localLength, 0, 0, common)
  const remote = build(remoteLength, 0, 1, common)
  const proof = await remote.proof({ upgrade: { start: 0, length: remoteLength } })
  const batch = await local.reorg(proof)
  const wants = []
  while (batch.want) {
    const { start, end, nodes } = batch.want
    wants.push([start, end, nodes])
    await batch.update(await remote.proof({ hash: { index: 2 * start, nodes } }))
  }
  return [localLength, remoteLength, common, wants, batch.ancestors]
}

async function main () {
  const logs = []
  for (const length of [1, 2, 3, 4, 5, 6, 7, 8, 11, 16, 21, 33, 64]) {
    logs.push(await log(length, length % 3 === 0 ? 0 : 8, 60 + 5 * length))
  }
  logs.push(await log(12, 0, 60, 5))
  const reorgs = []
  for (let i = 0; i < 120; i++) {
    const [local, remote] = [1 + random(32), 1 + random(32)]
    reorgs.push(await reorg(local, remote, random(Math.min(local, remote) + 1)))
  }
  const row = (rows) => '[\n' + rows.map(r => JSON.stringify(r)).join(',\n') + '\n]'
  const text = logs.map(({ cases, ...rest }) => JSON.stringify(rest).slice(0, -1) + ',"cases":' + row(cases) + '}')
  process.stdout.write('{"logs":[\n' + text.join(',\n') + '\n],\n"reorgs":' + row(reorgs) + '}\n')
}

main()
