// Makes tests/vectors/js10, small cores of version 10.38.2: `node make-js10.js [directory]`.

const path = require('path')
const { make, seed } = require('./lib/fixtures')

const twoOfTwo = { version: 1, quorum: 2, signers: [{ seed: seed(1) }, { seed: seed(2), namespace: seed(0xa2) }] }
const twoOfThree = { version: 1, quorum: 2, allowPatch: true, signers: [{ seed: seed(1) }, { seed: seed(2) }, { seed: seed(3) }] }

const fixtures = [
  {
    name: 'empty',
    story: 'a new core',
    steps: []
  },
  {
    name: 'one',
    story: 'one block',
    steps: [{ op: 'append', text: ['hello'] }]
  },
  {
    name: 'fifty',
    story: 'fifty blocks, every fifth of no bytes, a part of them in entries that were not flushed',
    steps: [{ op: 'append', random: { seed: 1, count: 50, sizes: [0, 1, 100, 33, 250] }, batch: 3 }]
  },
  {
    name: 'forked',
    story: 'cut six times, once to nothing and once to a fork of its own choice, and grown again',
    steps: [
      { op: 'append', random: { seed: 2, count: 30, max: 60 }, batch: 7 },
      { op: 'truncate', length: 25 },
      { op: 'truncate', length: 17 },
      { op: 'append', text: ['a', 'b', 'c'] },
      { op: 'truncate', length: 18 },
      { op: 'truncate', length: 0 },
      { op: 'append', random: { seed: 3, count: 12, max: 60 }, batch: 5 },
      { op: 'truncate', length: 9, fork: 20 },
      { op: 'truncate', length: 8 },
      { op: 'append', text: ['last', ''], batch: 1 }
    ]
  },
  {
    name: 'emptied',
    story: 'cut to nothing',
    steps: [{ op: 'append', text: ['a', 'b', 'c'] }, { op: 'truncate', length: 0 }]
  },
  {
    name: 'cleared',
    story: 'three ranges dropped, one of them at the start and one in an entry that was not flushed',
    steps: [
      { op: 'append', random: { seed: 4, count: 40, min: 1, max: 500 } },
      { op: 'clear', start: 0, end: 3 },
      { op: 'clear', start: 9, end: 21 },
      { op: 'append', text: ['more'] },
      { op: 'clear', start: 30 }
    ]
  },
  {
    name: 'userdata',
    story: 'user data set, changed and deleted, a part of it in entries that were not flushed',
    steps: [
      { op: 'setUserData', key: 'kept', value: '0102' },
      { op: 'setUserData', key: 'changed', value: '03' },
      { op: 'setUserData', key: 'deleted', value: '04' },
      { op: 'setUserData', key: 'ключ', value: 'ff'.repeat(300) },
      { op: 'append', text: ['between'] },
      { op: 'setUserData', key: 'changed', value: '05' },
      { op: 'setUserData', key: 'deleted', value: null }
    ]
  },
  {
    name: 'encrypted',
    story: 'encrypted blocks of a core whose key is the signer\'s',
    open: { encryptionKey: seed(0xee) },
    steps: [
      { op: 'append', text: ['secret', '', 'secret'] },
      { op: 'truncate', length: 2 },
      { op: 'append', text: ['another secret'] }
    ]
  },
  {
    name: 'encrypted-manifest',
    story: 'encrypted blocks of a core whose key is the hash of its manifest',
    open: { encryptionKey: seed(0xee), compat: false },
    steps: [
      { op: 'append', text: ['secret', '', 'secret'] },
      { op: 'truncate', length: 2 },
      { op: 'append', text: ['another secret'] }
    ]
  },
  {
    name: 'manifest',
    story: 'one signer in a version-1 manifest, whose hash is the key',
    open: { compat: false },
    steps: [{ op: 'append', random: { seed: 5, count: 6, max: 40 }, batch: 2 }, { op: 'truncate', length: 5 }]
  },
  {
    name: 'manifest-v0',
    story: 'one signer in a version-0 manifest, with a namespace of its own',
    open: { manifest: { version: 0, quorum: 1, signers: [{ seed: seed(0x1a), namespace: seed(0xa1) }] }, seed: seed(0x1a) },
    steps: [{ op: 'append', random: { seed: 6, count: 6, max: 40 }, batch: 2 }]
  },
  {
    name: 'multisig',
    story: 'signed by two of two',
    open: { manifest: twoOfTwo, seed: seed(1) },
    steps: together([{ text: ['both', 'agree'] }, { text: ['again'] }])
  },
  {
    name: 'multisig-v0',
    story: 'signed by two of two under a version-0 manifest, which wraps its signatures in its own way',
    open: { manifest: { ...twoOfTwo, version: 0 }, seed: seed(1) },
    steps: together([{ text: ['both', 'agree'] }, { text: ['again'] }])
  },
  {
    name: 'multisig-patched',
    story: 'two of three signers agree on three blocks, one of them by a signature over seven and a patch',
    open: { manifest: twoOfThree, seed: seed(2) },
    open: { manifest: twoOfThree },
    steps: patched
  },
  {
    name: 'prologue',
    story: 'a prologue of five blocks, valid without a signature, and two signed blocks behind it',
    steps: prologue
  },
  {
    name: 'bigheader',
    story: 'a header too big for its page, flushed three times, so that its place in the header file alternates',
    steps: [
      { op: 'append', text: ['before'] },
      { op: 'setUserData', key: 'big', value: '11'.repeat(5000), flush: true },
      { op: 'append', text: ['between'] },
      { op: 'setUserData', key: 'big', value: '22'.repeat(5000), flush: true },
      { op: 'setUserData', key: 'big', value: '33'.repeat(5001), flush: true },
      { op: 'append', text: ['not flushed'] }
    ]
  },
  {
    name: 'bigheader-shrunk',
    story: 'a header that was too big for its page and would fit again: it stays outside',
    steps: [
      { op: 'setUserData', key: 'big', value: '11'.repeat(5000), flush: true },
      { op: 'setUserData', key: 'big', value: null, flush: true },
      { op: 'append', text: ['after'] }
    ]
  },
  {
    name: 'keyonly',
    story: 'opened by a key alone, with nothing in it: no manifest and no key pair',
    open: { key: seed(0x77) },
    steps: []
  },
  sparse('sparse', 'opened by key, and holds three blocks of a longer log', {}),
  sparse('sparse-manifest', 'opened by the hash of a manifest, which came over the wire, and holds three blocks', { compat: false }),

  // Killed in the middle of an operation: `flushed` appends once, which flushes, and then three times without a flush.
  killed('torn-entry', 'killed while the entry of an append was written: the append never was',
    { file: 'oplog', bytes: 70 }),
  killed('torn-data', 'killed before the entry of an append was written: its bytes are in the data file, past the end',
    { file: 'oplog', bytes: 0 }),
  killed('torn-bitfield', 'killed before a flush wrote anything: all is in the oplog',
    { file: 'bitfield' }),
  killed('torn-tree', 'killed when a flush had written the bitfield but half a node of the tree',
    { file: 'tree', bytes: 20 }),
  killed('torn-header', 'killed while the new header was written: the older one and its entries count',
    { file: 'oplog', nth: 2, bytes: 50 }),
  killed('torn-cut', 'killed when the new header was written and the old entries not cut off: they no longer count',
    { file: 'oplog', call: 'truncate' }),
  {
    name: 'torn-truncation',
    story: 'killed when a truncation was in the oplog and not yet flushed',
    steps: [
      { op: 'append', random: { seed: 8, count: 20, max: 60 }, batch: 6 },
      { op: 'die', at: { file: 'bitfield' }, then: { op: 'truncate', length: 9 } }
    ]
  },
  {
    name: 'torn-creation',
    story: 'killed in its first append: a header, a block past the end of nothing, and no entry',
    steps: [{ op: 'die', at: { file: 'oplog', bytes: 0 }, then: { op: 'append', text: ['never'] } }]
  }
]

// Appends blocks, each time signed by both signers of `twoOfTwo`.
function together (appends) {
  return async (driver, dir, open) => {
    await driver.call('open', { dir, ...open })

    for (const append of appends) {
      const proofs = [await driver.call('sign', { ...append, seed: seed(1) }), await driver.call('sign', { ...append, seed: seed(2) })]
      const { signature } = await driver.call('assemble', { proofs })
      await driver.call('append', { ...append, signature })
    }
  }
}

// Each signer signs its own draft; the first draft is longer than the third signer's.
async function patched (driver, dir, open) {
  const text = ['one', 'two', 'three', 'four', 'five', 'six', 'seven']
  await driver.call('open', { dir, ...open })
  await scratch(driver, dir, 'ahead', text)
  await scratch(driver, dir, 'behind', text.slice(0, 3))

  const proofs = [
    await driver.call('sign', { seed: seed(1), tree: 'ahead', published: 3 }),
    await driver.call('sign', { seed: seed(3), tree: 'behind', published: 3 })
  ]
  const { signature } = await driver.call('assemble', { proofs })
  await driver.call('append', { text: text.slice(0, 3), signature })
  await drop(driver, dir, 'ahead')
  await drop(driver, dir, 'behind')
}

async function prologue (driver, dir, { seed: own }) {
  await scratch(driver, dir, 'source', ['these', 'five', 'blocks', 'come', 'first'])
  const { treeHash } = await driver.call('info', { core: 'source' })
  const manifest = { version: 1, quorum: 1, signers: [{ seed: own }], prologue: { hash: treeHash, length: 5 } }

  await driver.call('open', { dir, manifest, seed: own })
  await driver.call('copyPrologue', { from: 'source' })
  await driver.call('append', { text: ['signed', 'behind it'] })
  await drop(driver, dir, 'source')
}

function sparse (name, story, open) {
  return {
    name,
    story,
    network: true,
    steps: async (driver, dir) => {
      const { key } = await driver.call('open', { core: 'writer', dir: dir + '.writer', seed: seed(0x30), ...open })
      await driver.call('append', { core: 'writer', random: { seed: 7, count: 30, max: 80 } })
      await driver.call('open', { dir, key, eagerUpgrade: false })

      const { port } = await driver.call('listen', { cores: ['writer'] })
      const { conn } = await driver.call('connect', { port })
      await driver.call('update', { wait: true })
      for (const index of [3, 29, 12]) await driver.call('get', { index, wait: true })

      await driver.call('disconnect', { conn })
      await drop(driver, dir, 'writer')
    }
  }
}

function killed (name, story, at) {
  return {
    name,
    story,
    steps: [
      { op: 'append', random: { seed: 8, count: 10, max: 60 } },
      { op: 'append', random: { seed: 8, count: 3, max: 60 }, batch: 1 },
      { op: 'die', at, then: { op: 'append', text: ['was', 'it', 'written?'] } }
    ]
  }
}

async function scratch (driver, dir, core, text) {
  await driver.call('open', { core, dir: dir + '.' + core, seed: seed(0x40) })
  await driver.call('append', { core, text })
}

async function drop (driver, dir, core) {
  await driver.call('close', { core })
  require('fs').rmSync(dir + '.' + core, { recursive: true })
}

make(path.resolve(process.argv[2] || path.join(__dirname, '../vectors/js10')), fixtures.map(({ open = {}, ...fixture }, i) => ({
  version: '10',
  ...fixture,
  open: open.key || fixture.network ? open : { seed: seed(0x50 + i), ...open }
})))
