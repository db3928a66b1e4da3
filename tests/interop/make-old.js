// Makes tests/vectors/old, cores of versions 10.0.0 and 10.4.1 with version-0 headers and unflushed entries:
// `node make-old.js [directory]`.

const path = require('path')
const { make, seed } = require('./lib/fixtures')

const VERSIONS = ['10.0.0', '10.4.1']

function fixtures (version) {
  const stories = [
    {
      name: 'empty',
      story: 'a new core',
      steps: []
    },
    {
      name: 'plain',
      story: 'blocks of all sizes from 0 on, a part of them in entries that were not flushed',
      steps: [
        { op: 'append', random: { seed: 1, count: 20, sizes: [0, 1, 7, 64, 200, 33] }, batch: 3 },
        { op: 'append', text: ['', 'hello', 'world'] }
      ]
    },
    {
      name: 'unflushed',
      story: 'one flushed append and three behind it that are in the oplog alone',
      steps: [{ op: 'append', random: { seed: 2, count: 4, max: 60 }, batch: 1 }]
    },
    {
      name: 'partial',
      story: 'killed in its first flush, before there was a tree or a bitfield: blocks in the oplog and the data file alone',
      steps: [{ op: 'die', at: { file: 'bitfield', call: 'open' }, then: { op: 'append', text: ['never', 'flushed'] } }]
    },
    {
      name: 'userdata',
      story: 'user data set, changed and deleted, with a block between',
      steps: [
        { op: 'setUserData', key: 'kept', value: '0102' },
        { op: 'setUserData', key: 'changed', value: '03' },
        { op: 'setUserData', key: 'deleted', value: '04' },
        { op: 'append', text: ['between'] },
        { op: 'setUserData', key: 'changed', value: '05' },
        { op: 'setUserData', key: 'deleted', value: null }
      ]
    },
    {
      name: 'truncated',
      story: 'cut once and grown again',
      steps: [
        { op: 'append', random: { seed: 3, count: 12, max: 50 }, batch: 5 },
        { op: 'truncate', length: 7 },
        { op: 'append', text: ['after', 'the', 'cut'], batch: 1 }
      ]
    },
    {
      name: 'forked',
      story: 'cut six times, once to nothing and once to a fork of its own choice: more hints than a header keeps',
      steps: [
        { op: 'append', random: { seed: 4, count: 16, max: 40 }, batch: 4 },
        { op: 'truncate', length: 14 },
        { op: 'truncate', length: 12 },
        { op: 'append', text: ['a', 'b'] },
        { op: 'truncate', length: 13 },
        { op: 'truncate', length: 0 },
        { op: 'append', random: { seed: 5, count: 9, max: 40 } },
        { op: 'truncate', length: 8, fork: 11 },
        { op: 'truncate', length: 5 },
        { op: 'append', text: ['last'] }
      ]
    },
    {
      name: 'cleared',
      story: 'two ranges dropped, the last in an entry that was not flushed',
      steps: [
        { op: 'append', random: { seed: 6, count: 20, min: 1, max: 300 } },
        { op: 'clear', start: 2, end: 5 },
        { op: 'append', text: ['more'] },
        { op: 'clear', start: 10, end: 18 }
      ]
    },
    {
      name: 'encrypted',
      story: 'encrypted blocks',
      open: { encryptionKey: seed(0xee) },
      steps: [
        { op: 'append', text: ['secret', '', 'secret'] },
        { op: 'truncate', length: 2 },
        { op: 'append', text: ['another secret'] }
      ]
    }
  ]

  const cores = stories.map((story, i) => ({
    ...story,
    name: version + '/' + story.name,
    version,
    open: { seed: seed(0x10 + i), ...story.open }
  }))

  return [...cores, sparse(version)]
}

// Downloads blocks one by one from another core of the same version.
function sparse (version) {
  return {
    name: version + '/sparse',
    story: 'a core opened by key that holds three blocks of a longer log',
    version,
    network: true,
    steps: async (driver, dir) => {
      const { key } = await driver.call('open', { core: 'writer', dir: dir + '.writer', version, seed: seed(0x30) })
      await driver.call('append', { core: 'writer', random: { seed: 7, count: 30, max: 80 } })
      await driver.call('open', { dir, version, key, eagerUpgrade: false })

      const { port } = await driver.call('listen', { cores: ['writer'] })
      const { conn } = await driver.call('connect', { port })
      await driver.call('update', { wait: true })
      for (const index of [3, 29, 12]) await driver.call('get', { index, wait: true })

      await driver.call('disconnect', { conn })
      await driver.call('purge', { core: 'writer' }).catch(() => {})
      require('fs').rmSync(dir + '.writer', { recursive: true, force: true })
    }
  }
}

make(path.resolve(process.argv[2] || path.join(__dirname, '../vectors/old')), VERSIONS.flatMap(fixtures))
