// Tests of fixed clusters whose nodes are stored in files: the nodes outlive their process, even if processes are
// killed, files are damaged, or another process takes the folder over.
import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, readFile, readdir, rm, truncate, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { after, before, beforeEach, describe, it } from 'node:test'
import { closeAll, imported as conflux, leaderOf, methods, reduce, until } from './support.mjs'

let root, folder
let tests = 0
before(async () => {
  root = await mkdtemp(path.join(os.tmpdir(), 'conflux-files-'))
})
after(() => rm(root, { recursive: true }))
beforeEach(() => {
  folder = path.join(root, `test-${++tests}`)
})

const start = (id, size, more = {}) =>
  conflux({
    id,
    clusterSize: size,
    cluster: `files-${tests}`,
    channel: { name: 'memory', channel: `files-${tests}` },
    storage: { name: 'file', path: path.join(folder, id) },
    methods,
    reduce,
    ...more,
  })

const errorOf = (node) => new Promise((resolve) => node.on('error', resolve))

/** The path of a node's newest log. */
const logOf = async (id) => {
  const logs = (await readdir(path.join(folder, id))).filter((name) => name.endsWith('.log'))
  return path.join(folder, id, logs.sort().at(-1))
}

describe('a node on files', () => {
  it('goes on where it stopped, in a cluster of one', async () => {
    for (let round = 1; round <= 3; round++) {
      const node = start('a', 1)
      await node.perform('append', [round])
      assert.deepEqual(node.getState(), Array.from({ length: round }, (_, i) => i + 1))
      await node.close()
    }
  })

  it('goes on where it stopped, in a cluster of three with compacted logs', async () => {
    const ids = ['a', 'b', 'c']
    let nodes = ids.map((id) => start(id, 3))
    // More bytes than a log keeps, so that the nodes take snapshots and begin new files.
    const large = 'x'.repeat(60_000)
    for (let i = 0; i < 40; i++) await nodes[i % 3].perform('append', [large + i])
    assert.ok((await leaderOf(nodes)).status().snapshotIndex > 0)
    const state = nodes[0].getState()
    const { members, term } = nodes[0].status()
    await closeAll(nodes)
    for (const id of ids) {
      const left = await readdir(path.join(folder, id))
      assert.deepEqual(left.map((name) => path.extname(name)).sort(), ['.log', '.own'], 'old files are gone')
    }
    nodes = ids.map((id) => start(id, 3))
    await Promise.all(nodes.map((node) => node.read()))
    for (const node of nodes) assert.deepEqual(node.getState(), state)
    assert.deepEqual(nodes[0].status().members, members)
    assert.ok(nodes[0].status().term > term, 'terms are remembered')
    await Promise.all(nodes.map((node, i) => node.perform('append', [i])))
    await closeAll(nodes)
  })

  it('keeps what was acknowledged when its process is killed, 10 times', async () => {
    const known = []
    let next = 0
    for (let round = 0; round < 10; round++) {
      const child = spawn(process.execPath, ['tests/node/files-child.mjs', folder, String(next)])
      const lines = createInterface({ input: child.stdout })
      const enough = known.length + 20 + Math.floor(Math.random() * 200)
      for await (const line of lines) {
        const [what, value] = line.split(' ')
        assert.equal(what, 'acknowledged', line)
        known.push(Number(value))
        next = Math.max(next, Number(value) + 10)
        if (known.length >= enough) child.kill('SIGKILL')
      }
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
    }
    const node = start('a', 1, { cluster: 'killed', storage: { name: 'file', path: folder } })
    await node.read()
    const counts = new Map()
    for (const value of node.getState()) counts.set(value, (counts.get(value) ?? 0) + 1)
    for (const value of known) assert.equal(counts.get(value), 1, `${value} is there once`)
    await node.close()
  })

  it('ignores an unfinished record at the end of its log', async () => {
    const node = start('a', 1)
    await node.perform('append', ['kept'])
    await node.close()
    const log = await logOf('a')
    const whole = await readFile(log)
    // How many bytes of the unfinished record were written.
    for (const torn of [1, 4, 11, 12, 13, 40]) {
      const next = Buffer.concat([whole, whole.subarray(0, torn)])
      await writeFile(await logOf('a'), next)
      const again = start('a', 1)
      await again.read()
      assert.deepEqual(again.getState(), ['kept'])
      await again.close()
      await writeFile(await logOf('a'), whole)
    }
  })

  it('takes the place of its former self after its folder was deleted', async () => {
    const ids = ['a', 'b', 'c']
    const nodes = ids.map((id) => start(id, 3))
    for (const node of nodes) await node.perform('append', [node.status().id])
    await nodes[1].close()
    await rm(path.join(folder, 'b'), { recursive: true })
    nodes[1] = start('b', 3)
    await nodes[1].perform('append', ['again'])
    await until(nodes, () => nodes.every((node) => node.status().learners.length === 0), 'three voters')
    assert.deepEqual(nodes[1].status().members.toSorted(), ids)
    // The node counts for majorities again, and has the log on its disk.
    await nodes[0].close()
    await nodes[1].perform('append', ['two of three'])
    await nodes[1].close()
    nodes[1] = start('b', 3)
    await nodes[1].read()
    assert.deepEqual(nodes[1].getState(), nodes[2].getState())
    assert.equal(nodes[1].getState().length, 5)
    await closeAll(nodes)
  })
})

describe('a state that JSON cannot carry', () => {
  const count = (state = new Map(), action) =>
    action === null ? state : new Map([...state, [action, (state.get(action) ?? 0) + 1]])
  const serialize = (map) => [...map]
  const deserialize = (list) => new Map(list)

  it('is refused with the path of the value', () => {
    const reduce = () => ({ scores: { all: [new Map()] } })
    assert.throws(() => start('a', 1, { reduce }), {
      code: 'NOT_JSON',
      message: /^the state\.scores\.all\[0\] is a Map, which JSON cannot carry: give `serialize` and `deserialize`/,
    })
  })

  it('travels with the help of serialize and deserialize', async () => {
    const options = { reduce: count, serialize, deserialize }
    let nodes = ['a', 'b', 'c'].map((id) => start(id, 3, options))
    const large = 'x'.repeat(60_000)
    for (let i = 0; i < 40; i++) await nodes[i % 3].perform('append', [`${large}${i % 2}`])
    assert.ok((await leaderOf(nodes)).status().snapshotIndex > 0)
    // First all nodes restart and load their own snapshots. Then one loses its memory, and is sent a snapshot.
    await closeAll(nodes)
    nodes = ['a', 'b', 'c'].map((id) => start(id, 3, options))
    await Promise.all(nodes.map((node) => node.read()))
    await nodes[2].close()
    await rm(path.join(folder, 'c'), { recursive: true })
    nodes[2] = start('c', 3, options)
    await nodes[2].perform('append', ['again'])
    for (const node of nodes) {
      await node.read()
      assert.deepEqual([...node.getState().values()], [20, 20, 1])
    }
    await closeAll(nodes)
  })

  it('is refused with its path before the action is appended when a reducer returns it later', async () => {
    const values = {
      set: [new Set(), 'a Set'],
      undefined: [undefined, 'undefined'],
      zero: [-0, '-0'],
      hole: [[1, , 2], 'undefined', '[1]'],
      nan: [[NaN], 'NaN', '[0]'],
    }
    const reduce = (state = {}, action) => (action === null ? state : { ...state, [action]: (values[action] ?? [1])[0] })
    const node = start('a', 1, { reduce })
    await node.perform('append', ['fine'])
    const { lastIndex } = node.status()
    for (const [name, [, what, path = '']] of Object.entries(values)) {
      const message = `the state.${name}${path} is ${what}, which JSON cannot carry`
      await assert.rejects(node.perform('append', [name]), (error) => error.code === 'NOT_JSON' && error.message.startsWith(message))
    }
    assert.equal(node.status().lastIndex, lastIndex, 'nothing was appended')
    await node.perform('append', ['more'])
    assert.deepEqual(node.getState(), { fine: 1, more: 1 })
    await node.close()
    const first = () => start('a', 1, { reduce: () => ({ due: undefined }) })
    assert.throws(first, { code: 'NOT_JSON', message: /^the state\.due is undefined/ })
  })

  it('is found in what `serialize` returns, and so is a `deserialize` that does not give the same state back', async () => {
    const odd = { reduce: (state = new Map(), action) => (action === null ? state : new Map([...state, [action, -0]])), serialize, deserialize }
    const node = start('a', 1, odd)
    await assert.rejects(node.perform('append', ['x']), { code: 'NOT_JSON', message: /^what `serialize` returned\[0\]\[1\] is -0/ })
    await node.close()
    const lossy = start('b', 1, { reduce: count, serialize: (map) => [['size', map.size]], deserialize })
    const error = await errorOf(lossy)
    assert.equal(error.code, 'CANNOT_LOAD')
    assert.match(error.message, /serialized to something else/)
    await assert.rejects(lossy.perform('append', ['x']), { code: 'CANNOT_LOAD' })
    await lossy.close()
  })

  it('needs both serialize and deserialize, as functions', () => {
    const with_ = (more) => () => start('a', 1, more)
    assert.throws(with_({ serialize }), /`deserialize` is required/)
    assert.throws(with_({ deserialize }), /`serialize` is required/)
    assert.throws(with_({ serialize, deserialize: 3 }), /`deserialize` must be a function, and is 3/)
    assert.throws(with_({ reduce: count, serialize: () => new Date(0), deserialize }), /what `serialize` returned is a Date/)
  })
})

describe('a folder', () => {
  it('is for one node at a time', async () => {
    const first = start('a', 1)
    await first.perform('append', ['x'])
    const second = start('a', 1)
    const error = await errorOf(second)
    assert.equal(error.code, 'STORAGE_LOCKED')
    assert.match(error.message, /give each node a folder of its own/)
    await assert.rejects(second.perform('append', ['y']), { code: 'STORAGE_LOCKED' })
    await second.close()
    await first.perform('append', ['z'])
    await first.close()
    const third = start('a', 1)
    await third.read()
    assert.deepEqual(third.getState(), ['x', 'z'])
    await third.close()
  })

  it('is not written to any more when another process has taken it over', async () => {
    const node = start('a', 1)
    await node.perform('append', ['x'])
    const number = (await logOf('a')).match(/(\d+)\.log$/)[1]
    // What another process does if it gets past the lock: it claims the next number.
    await writeFile(path.join(folder, 'a', `${String(Number(number) + 1).padStart(8, '0')}.own`), '')
    await assert.rejects(node.perform('append', ['y']), { code: 'STORAGE_TAKEN' })
    assert.equal(node.status().phase, 'refused')
    await node.close()
  })

  it('stops its node when it is deleted', async () => {
    const node = start('a', 1)
    await node.perform('append', ['x'])
    await rm(path.join(folder, 'a'), { recursive: true })
    await assert.rejects(node.perform('append', ['y']), { code: 'STORAGE_LOST' })
    await node.close()
  })

  it('is refused and left unchanged if it belongs to another node', async () => {
    const node = start('a', 1)
    await node.perform('append', ['x'])
    await node.close()
    const other = start('b', 1, { storage: { name: 'file', path: path.join(folder, 'a') } })
    const error = await errorOf(other)
    assert.equal(error.code, 'STORAGE_MISMATCH')
    assert.match(error.message, /has node `a` of the cluster .* and this is `b`/)
    await other.close()
    const again = start('a', 1)
    await again.read()
    assert.deepEqual(again.getState(), ['x'])
    await again.close()
  })

  it('is refused if a record in it that was durable is damaged', async () => {
    const node = start('a', 1)
    for (let i = 0; i < 5; i++) await node.perform('append', [`value ${i}`])
    await node.close()
    const log = await logOf('a')
    const whole = await readFile(log)
    for (const [at, where] of [[20, 'beginning'], [whole.indexOf('value 1'), 'middle']]) {
      const damaged = Buffer.from(whole)
      damaged[at] ^= 1
      await writeFile(await logOf('a'), damaged)
      const again = start('a', 1)
      const error = await errorOf(again)
      assert.equal(error.code, 'STORAGE_CORRUPT', where)
      assert.match(error.message, /restore it from a copy/)
      await assert.rejects(again.perform('append', ['z']), { code: 'STORAGE_CORRUPT' })
      await again.close()
    }
  })

  it('with no room left stops the node, and nothing acknowledged is lost', async (test) => {
    const small = path.join(root, 'small')
    await mkdir(small)
    const mount = `mount -t tmpfs -o size=200k none ${small}`
    try {
      execFileSync('unshare', ['-m', 'sh', '-c', mount])
    } catch {
      return test.skip('a small file system takes root')
    }
    // The child writes until the small file system is full. Then its folder is copied, and a node starts on the copy.
    const child = `${process.execPath} tests/node/files-child.mjs ${small}/a`
    const script = `${mount} && ${child} fill; cp -r ${small}/a ${folder}`
    const out = execFileSync('unshare', ['-m', 'sh', '-c', script], { encoding: 'utf8', timeout: 30_000 })
    const lines = out.trim().split('\n')
    assert.match(out, /error STORAGE_FAILED storage in .* \(ENOSPC/)
    assert.match(out, /rejected STORAGE_FAILED/)
    const acknowledged = lines.filter((line) => line === 'acknowledged').length
    assert.ok(acknowledged > 10)
    const node = start('a', 1, {
      cluster: 'killed',
      storage: { name: 'file', path: folder },
      reduce: (state = 0, action) => (action === null ? state : state + 1),
    })
    await node.read()
    assert.ok(node.getState() >= acknowledged, `${node.getState()} of ${acknowledged}`)
    await node.close()
  })

  it('needs a path', () => {
    const storage = (storage) => () => start('a', 1, { storage })
    assert.throws(storage({ name: 'file' }), /`storage.path` is required/)
    assert.throws(storage({ name: 'file', path: 7 }), /`storage.path` must be the path of a folder, and is 7/)
    assert.throws(storage({ name: 'tape' }), /`storage.name` must be "file", and is "tape"/)
    assert.throws(storage({}), /`storage.name` is required/)
  })
})
