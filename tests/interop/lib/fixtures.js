// Makes directories of cores for tests without Node.js, and `expected.json` with their content, as the version that
// wrote each reads it from a copy. Every key comes from a seed, so each run makes the same bytes.

const fs = require('fs')
const os = require('os')
const path = require('path')
const Driver = require('./driver')

module.exports = { make, seed }

const FILES = ['oplog', 'tree', 'bitfield', 'data', 'header']

// A fixture: {name, story, version, open, steps, network?}. `story` describes it. A step is a request of `core.js` on
// the core, which is open as "main" with the options `open`. `steps` may also be a function of a driver, the directory and
// these options, which opens the core itself. With `network` the driver is `replicate.js`.
async function make (root, fixtures) {
  const expected = {}

  for (const fixture of fixtures) {
    const dir = path.join(root, fixture.name)
    fs.rmSync(dir, { recursive: true, force: true })
    await write(fixture, dir)
    expected[fixture.name] = await describe(fixture, dir)
  }

  fs.writeFileSync(path.join(root, 'expected.json'), JSON.stringify(expected, null, 2) + '\n')
}

async function write (fixture, dir) {
  const driver = new Driver(fixture.network ? 'replicate.js' : 'core.js')

  if (typeof fixture.steps === 'function') {
    await fixture.steps(driver, dir, fixture.open)
  } else {
    await driver.call('open', { ...fixture.open, dir, version: fixture.version })

    for (const { op, ...request } of fixture.steps) {
      if (op === 'die') await driver.die(request)
      else await driver.call(op, request)
    }
  }

  await driver.end()
}

async function describe (fixture, dir) {
  const copy = fs.mkdtempSync(path.join(os.tmpdir(), 'fixture-'))
  for (const file of FILES) {
    if (fs.existsSync(path.join(dir, file))) fs.copyFileSync(path.join(dir, file), path.join(copy, file))
  }

  const { seed, manifest, key, ...reopen } = fixture.open || {}
  const driver = new Driver('core.js')

  try {
    const info = await driver.call('open', { ...reopen, dir: copy, version: fixture.version, createIfMissing: false })
    const { ranges } = await driver.call('held')
    const { values } = await driver.call('userData')
    const { valid } = await driver.call('verifyHead')
    if (!valid) throw new Error(fixture.name + ': the head does not verify')

    const blocks = []
    for (let index = 0; index < info.length; index++) blocks.push((await driver.call('get', { index })).block)

    return {
      story: fixture.story,
      version: fixture.version,
      key: info.key,
      discoveryKey: info.discoveryKey,
      seed: seed || null,
      encryptionKey: reopen.encryptionKey || null,
      writable: info.writable,
      manifest: info.manifest,
      length: info.length,
      byteLength: info.byteLength,
      contiguousLength: ranges.length > 0 && ranges[0][0] === 0 ? ranges[0][1] : 0,
      fork: info.fork,
      treeHash: info.treeHash,
      signature: info.signature,
      userData: values,
      held: ranges,
      blocks
    }
  } finally {
    await driver.end()
    fs.rmSync(copy, { recursive: true })
  }
}

// 32 equal bytes in hex: the seed of a key pair or another key.
function seed (byte) {
  return Buffer.alloc(32, byte).toString('hex')
}
