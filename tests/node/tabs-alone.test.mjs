// Tests of what tabs.js does with storage, locks, timers and page events, step by step. The browser is that of the
// package's simulator, without faults: each test decides what happens. The core is made up, and notes what it is told.
import assert from 'node:assert/strict'
import path from 'node:path'
import { afterEach, describe, it } from 'node:test'
import { pathToFileURL } from 'node:url'
import vm from 'node:vm'
import * as esbuild from 'esbuild'
import { bundle, packageDir } from '../package-sim/bundle.mjs'
import { Page } from '../package-sim/page.mjs'
import { World } from '../package-sim/world.mjs'

const { worker } = await bundle()
const { outputFiles } = await esbuild.build({
  entryPoints: [path.join(packageDir, 'tabs.js')], bundle: true, format: 'iife', globalName: 'tabs', write: false,
  define: { 'import.meta.url': '"https://app.example/tabs.js"' }, logLevel: 'silent',
})
const script = { worker, page: new vm.Script(outputFiles[0].text, { filename: 'tabs.js' }) }

let world
let pages
const site = () => {
  pages = 0
  world = new World(script, { seed: 1 })
  const calm = { loss: 0, repeats: 0, storage: 50, lock: 40, holdsFrozenRequests: false, worker: 'works', throttle: 1 }
  Object.assign(world.conditions, calm)
  world.commits = []
  world.storage.onCommit = (database, back) => world.commits.push([database.name, back.front.mode, back.front.durability])
}
afterEach(() => {
  const failure = world?.failure
  world = undefined
  assert.equal(failure, undefined)
})

/** Long enough for whatever is under way. */
const settle = () => world.pass(200)

/** Opens a page, with a `Tabs` for a core that keeps what it is told. */
const open = (options = {}) => {
  if (!world) site()
  const page = new Page(world, pages, ++pages)
  // The simulator asks nothing of a page that is leaving: what is told here decides the test.
  page.isLeaving = true
  world.tabs[pages - 1] = page
  script.page.runInContext(page.global)
  const { browser } = page.global.tabs
  const told = []
  const reports = []
  const core = { answer: (what, generation, node, value) => told.push([what, generation, node, value]) }
  const tabs = page.enter(() => browser.tabs({ cluster: 'c', ...options }, core, (...report) => reports.push(report)))
  const plain = (value) => (value === undefined ? undefined : JSON.parse(JSON.stringify(value)))
  /** What the core was told since the last time. */
  const heard = () => told.splice(0).map(([what, generation, node, value]) => [what, generation, node, plain(value)])
  const ask = async (...what) => {
    page.enter(() => tabs.ask(...what))
    await settle()
    return heard()
  }
  const write = (...batch) => page.enter(() => tabs.write(...batch))
  return { page, tabs, browser, told, heard, ask, write, reports }
}

/** What is in a database. */
const stored = (name, store) => world.storage.get(name).stores.get(store)
const keys = (name, store) => [...stored(name, store).keys()].sort()
const databases = () => world.storage.existing().map(({ name }) => name).sort()
const close = (page, name) => world.storage.lose([...page.connections].find((one) => one.database.name === name))

/** Founds the cluster with the node `a` of incarnation 7. */
const founded = async (options) => {
  const one = open(options)
  assert.deepEqual(await one.ask('read', 1, 'a'), [['registry', 1, 'a', undefined]])
  assert.deepEqual(await one.ask('create', 1, 'a', [7, 'hard-1', ['e1']]), [['created', 1, 'a', undefined]])
  assert.deepEqual(await one.ask('found', 1, 'a', 7), [['registry', 1, 'a', { incarnation: 7, nodes: ['a'] }]])
  return one
}

describe('the registry', () => {
  it('has one cluster, which only the first of two pages founds', async () => {
    const one = await founded()
    const other = open()
    assert.deepEqual(await other.ask('read', 1, 'b'), [['registry', 1, 'b', { incarnation: 7, nodes: ['a'] }]])
    assert.deepEqual(await other.ask('found', 1, 'b', 8), [['registry', 1, 'b', { incarnation: 7, nodes: ['a'] }]])
    assert.deepEqual(await other.ask('register', 1, 'b', 7), [['registered', 1, 'b', undefined]])
    assert.deepEqual(await other.ask('register', 1, 'b', 7), [['registered', 1, 'b', undefined]])
    assert.deepEqual(await one.ask('read', 1, 'a'), [['registry', 1, 'a', { incarnation: 7, nodes: ['a', 'b'] }]])
    assert.deepEqual(keys('conflux:c', 'registry'), ['cluster'])
  })

  it('is not founded by two pages that have both read that it is empty', async () => {
    const [one, other] = [open(), open()]
    await Promise.all([one.ask('read', 1, 'a'), other.ask('read', 1, 'b')])
    assert.deepEqual(await one.ask('found', 1, 'a', 7), [['registry', 1, 'a', { incarnation: 7, nodes: ['a'] }]])
    assert.deepEqual(await other.ask('found', 1, 'b', 8), [['registry', 1, 'b', { incarnation: 7, nodes: ['a'] }]])
  })

  it('is not founded when storage was deleted since the page has read it', async () => {
    const one = open()
    await one.ask('read', 1, 'a')
    world.storage.clear()
    assert.deepEqual(await one.ask('found', 1, 'a', 7), [['registry', 1, 'a', undefined]])
    assert.equal(stored('conflux:c', 'registry').has('cluster'), false)
    // Another page has looked in the meantime: the registry is empty, and another one than before.
    const other = open()
    await other.ask('read', 1, 'b')
    assert.deepEqual(await one.ask('found', 1, 'a', 7), [['registry', 1, 'a', undefined]])
    assert.deepEqual(await one.ask('read', 1, 'a'), [['registry', 1, 'a', undefined]])
    assert.deepEqual(await one.ask('found', 1, 'a', 7), [['registry', 1, 'a', { incarnation: 7, nodes: ['a'] }]])
  })

  it('is not founded when storage was deleted after the page has made its node, of which it looks what is left', async () => {
    const one = open()
    await one.ask('read', 1, 'a')
    await one.ask('create', 1, 'a', [7, 'hard', ['e1']])
    world.storage.clear()
    // The page looks whether the node is still there, and so makes an empty registry itself.
    await settle()
    assert.deepEqual(one.heard(), [['storageLost', 1, 'a', undefined]])
    assert.deepEqual(await one.ask('found', 1, 'a', 7), [['registry', 1, 'a', undefined]])
    assert.equal(stored('conflux:c', 'registry').has('cluster'), false)
    await one.ask('load', 1, 'a')
    assert.deepEqual(await one.ask('found', 1, 'a', 7), [['registry', 1, 'a', undefined]])
  })

  it('asks the browser to keep what is stored, once a page has founded the cluster', async () => {
    const one = open()
    let asked = 0
    one.page.global.navigator.storage.persist = () => one.page.global.Promise.reject(new Error(`no ${++asked}`))
    await one.ask('read', 1, 'a')
    await one.ask('found', 1, 'a', 7)
    assert.equal(asked, 1)
    await one.ask('found', 1, 'a', 8)
    assert.equal(asked, 1, 'the cluster was there already')
    const other = open()
    other.page.global.navigator.storage = undefined
    await other.ask('read', 1, 'b')
    assert.deepEqual((await other.ask('found', 1, 'b', 9))[0][0], 'registry')
  })

  it('does not take a node of a cluster that is over, and the node is deleted', async () => {
    const one = await founded()
    await one.ask('create', 1, 'x', [6, undefined, undefined])
    assert.deepEqual(await one.ask('register', 1, 'x', 6), [['lost', 1, 'x', undefined]])
    assert.deepEqual(databases(), ['conflux:c', 'conflux:c:a'])
    assert.deepEqual([...stored('conflux:c', 'registry').get('cluster').nodes], ['a'])
    world.storage.clear()
    await one.ask('create', 1, 'y', [7, undefined, undefined])
    assert.deepEqual(await one.ask('register', 1, 'y', 7), [['storageLost', 1, 'y', undefined]])
    assert.deepEqual(databases(), ['conflux:c'])
    // What was known of the deleted node is forgotten.
    await one.ask('create', 1, 'y', [7, undefined, undefined])
    one.write(1, 'y', 1, 1, undefined, undefined, 1, ['again'])
    await settle()
    assert.deepEqual(one.heard(), [['persisted', 1, 'y', 1]])
  })

  it('is written strictly, and nodes as the option says', async () => {
    for (const durability of ['strict', 'relaxed', undefined]) {
      site()
      const one = await founded({ durability })
      one.write(1, 'a', 1, 1, 'hard-2')
      await settle()
      const written = world.commits.filter(([, mode]) => mode === 'readwrite')
      const of = (name) => new Set(written.filter(([other]) => other === name).map(([, , how]) => how))
      assert.deepEqual([[...of('conflux:c')], [...of('conflux:c:a')]], [['strict'], [durability ?? 'strict']])
    }
  })
})

describe('a node in storage', () => {
  it('is loaded as it was written, with a higher epoch, and its former owner is fenced off', async () => {
    const one = await founded()
    one.write(1, 'a', 1, 1, 'hard-2', undefined, 2, ['e2'])
    one.write(1, 'a', 1, 2, undefined, undefined, 3, ['e3'])
    await settle()
    // The first batch is written at once, and what arrives meanwhile together.
    assert.deepEqual(one.heard(), [['persisted', 1, 'a', 1], ['persisted', 1, 'a', 2]])
    const other = open()
    const record = { incarnation: 7, epoch: 2, hard: 'hard-2', log: [['e1'], ['e2'], ['e3']] }
    assert.deepEqual(await other.ask('load', 4, 'a'), [['loaded', 4, 'a', record]])
    assert.deepEqual(keys('conflux:c:a', 'meta'), ['fence:1', 'hard', 'record'])
    assert.deepEqual({ ...stored('conflux:c:a', 'meta').get('record') }, { incarnation: 7, epoch: 2 })
    one.write(1, 'a', 1, 3, 'late', undefined, 4, ['late'])
    await settle()
    assert.deepEqual(one.heard(), [['lost', 1, 'a', undefined]])
    other.write(4, 'a', 2, 1, 'hard-3', undefined, undefined, undefined)
    await settle()
    assert.deepEqual(other.heard(), [['persisted', 4, 'a', 1]])
    assert.deepEqual(keys('conflux:c:a', 'log'), [1, 2, 3])
    assert.equal(stored('conflux:c:a', 'meta').get('hard'), 'hard-3')
    // A third owner is told from the second.
    const third = open()
    assert.equal((await third.ask('load', 1, 'a'))[0][3].epoch, 3)
    assert.deepEqual(keys('conflux:c:a', 'meta'), ['fence:1', 'fence:2', 'hard', 'record'])
  })

  it('is fenced off also between two writes on one connection', async () => {
    const one = await founded()
    one.write(1, 'a', 1, 1, 'hard-2')
    await settle()
    await open().ask('load', 1, 'a')
    one.heard()
    one.write(1, 'a', 1, 2, 'late')
    await settle()
    assert.deepEqual(one.heard(), [['lost', 1, 'a', undefined]])
    assert.equal(stored('conflux:c:a', 'meta').get('hard'), 'hard-2')
  })

  it('loses the entries that another leader has replaced, and no others', async () => {
    const one = await founded()
    for (const first of [2, 3, 4, 5]) one.write(1, 'a', 1, first, undefined, undefined, first, [`e${first}`])
    await settle()
    one.write(1, 'a', 1, 6, undefined, undefined, 3, ['new-3'])
    await settle()
    assert.deepEqual(keys('conflux:c:a', 'log'), [1, 2, 3])
    assert.deepEqual([...stored('conflux:c:a', 'log').get(3)], ['new-3'])
    // Several batches of one transaction count as if they came one after the other.
    one.write(1, 'a', 1, 7, undefined, undefined, 4, ['e4'])
    one.write(1, 'a', 1, 8, undefined, undefined, 5, ['e5'])
    one.write(1, 'a', 1, 9, undefined, undefined, 6, ['e6'])
    one.write(1, 'a', 1, 10, undefined, undefined, 5, ['new-5'])
    await settle()
    assert.deepEqual(keys('conflux:c:a', 'log'), [1, 2, 3, 4, 5])
    // Entries may be cut off without others in their place.
    one.write(1, 'a', 1, 11, undefined, undefined, 5, undefined)
    await settle()
    assert.deepEqual(keys('conflux:c:a', 'log'), [1, 2, 3, 4])
  })

  it('loses replaced entries also right after it was loaded', async () => {
    const one = await founded()
    for (const first of [2, 3, 4]) one.write(1, 'a', 1, first, undefined, undefined, first, [`e${first}`])
    await settle()
    const other = open()
    await other.ask('load', 1, 'a')
    other.write(1, 'a', 2, 1, undefined, undefined, 3, ['new-3'])
    await settle()
    assert.deepEqual(keys('conflux:c:a', 'log'), [1, 2, 3])
    // The page that has made the node knows its log, too.
    await one.ask('create', 1, 'b', [7, 'hard', ['e1']])
    one.write(1, 'b', 1, 1, undefined, undefined, 1, undefined)
    await settle()
    assert.deepEqual(keys('conflux:c:b', 'log'), [])
  })

  it('loses its log with a snapshot, and keeps what comes after', async () => {
    const one = await founded()
    one.write(1, 'a', 1, 1, undefined, undefined, 2, ['e2'])
    one.write(1, 'a', 1, 2, 'hard-2', 'snap-2', 3, ['e3'])
    await settle()
    assert.deepEqual(keys('conflux:c:a', 'log'), [3])
    const other = open()
    const [[, , , loaded]] = await other.ask('load', 1, 'a')
    assert.deepEqual(loaded, { incarnation: 7, epoch: 2, hard: 'hard-2', snapshot: 'snap-2', log: [['e3']] })
    // The page that has loaded the log knows how long it is.
    other.write(1, 'a', 2, 1, undefined, undefined, 3, ['new-3'])
    await settle()
    assert.deepEqual([...stored('conflux:c:a', 'log').get(3)], ['new-3'])
    other.write(1, 'a', 2, 2, undefined, 'snap-3')
    await settle()
    assert.deepEqual(keys('conflux:c:a', 'log'), [])
  })

  it('asks for no deletion where nothing is to be deleted', async () => {
    const one = await founded()
    const deleted = []
    const { IDBKeyRange } = one.page.global
    one.page.global.IDBKeyRange = { lowerBound: (first) => deleted.push(first) && IDBKeyRange.lowerBound(first) }
    one.write(1, 'a', 1, 1, undefined, undefined, 2, ['e2'])
    one.write(1, 'a', 1, 2, 'hard-2')
    one.write(1, 'a', 1, 3, undefined, undefined, 3, ['e3'])
    await settle()
    one.write(1, 'a', 1, 4, undefined, 'snap-3', 4, ['e4'])
    one.write(1, 'a', 1, 5, undefined, undefined, 5, ['e5'])
    await settle()
    one.write(1, 'a', 1, 6, undefined, 'snap-3')
    one.write(1, 'a', 1, 7, undefined, undefined, 4, ['e4'])
    one.write(1, 'a', 1, 8, undefined, undefined, 5, ['e5'])
    await settle()
    assert.deepEqual(deleted, [])
    one.write(1, 'a', 1, 9, undefined, undefined, 5, ['new-5'])
    await settle()
    assert.deepEqual(deleted, [5])
    const other = open()
    const range = other.page.global.IDBKeyRange
    other.page.global.IDBKeyRange = { lowerBound: (first) => deleted.push(first) && range.lowerBound(first) }
    await other.ask('load', 1, 'a')
    other.write(1, 'a', 2, 1, undefined, undefined, 6, ['e6'])
    await settle()
    assert.deepEqual(deleted, [5], 'the page that has loaded the log knows where it ends')
  })

  it('that was made with nothing in it is there', async () => {
    const one = await founded()
    await one.ask('create', 2, 'b', [7, undefined, undefined])
    assert.deepEqual([keys('conflux:c:b', 'meta'), keys('conflux:c:b', 'log')], [['record'], []])
    assert.deepEqual(await open().ask('load', 1, 'b'), [['loaded', 1, 'b', { incarnation: 7, epoch: 2, log: [] }]])
  })

  it('that is not there is reported as that, without a database of it', async () => {
    const one = await founded()
    assert.deepEqual(await one.ask('load', 1, 'nobody'), [['loaded', 1, 'nobody', undefined]])
    assert.deepEqual(databases(), ['conflux:c', 'conflux:c:a'])
    world.storage.clear()
    await settle()
    one.heard()
    assert.deepEqual(await one.ask('load', 1, 'a'), [['storageLost', 1, 'a', undefined]])
    assert.deepEqual(databases(), ['conflux:c'])
  })

  it('that is deleted is gone from storage and from the registry, and its owner notices', async () => {
    const one = await founded()
    const other = open()
    await other.ask('create', 1, 'b', [7, 'hard', ['e1']])
    await other.ask('register', 1, 'b', 7)
    // The owner stands still, and its connection holds the deletion up.
    other.page.freeze('all')
    assert.deepEqual(await one.ask('delete', 1, 'b'), [['deleted', 1, 'b', undefined]])
    assert.deepEqual([keys('conflux:c:b', 'meta'), keys('conflux:c:b', 'log')], [['fence:1'], []])
    assert.deepEqual([...stored('conflux:c', 'registry').get('cluster').nodes], ['a'])
    other.page.thaw()
    other.write(1, 'b', 1, 1, 'late')
    await settle()
    assert.deepEqual(databases(), ['conflux:c', 'conflux:c:a'])
    assert.deepEqual(new Set(other.heard().map(([what]) => what)), new Set(['lost']))
    // One that is not there, in a cluster that is not there.
    world.storage.clear()
    await settle()
    one.heard()
    assert.deepEqual(await one.ask('delete', 2, 'a'), [['deleted', 2, 'a', undefined]])
    assert.equal(stored('conflux:c', 'registry').has('cluster'), false)
  })

  it('that is deleted is fenced off from all who have had it', async () => {
    const one = await founded()
    await open().ask('load', 1, 'a')
    const third = open()
    await third.ask('load', 1, 'a')
    one.page.freeze('all')
    await third.ask('delete', 1, 'a')
    assert.deepEqual(keys('conflux:c:a', 'meta'), ['fence:1', 'fence:2', 'fence:3'])
    one.page.thaw()
    await settle()
  })
})

describe('writes', () => {
  it('that wait are written together, one transaction after the other, and reported with the last of them', async () => {
    const one = await founded()
    world.commits.length = 0
    for (const seq of [1, 2, 3]) one.write(1, 'a', 1, seq, `hard-${seq}`)
    await settle()
    assert.deepEqual(one.heard(), [['persisted', 1, 'a', 1], ['persisted', 1, 'a', 3]])
    assert.equal(world.commits.filter(([, mode]) => mode === 'readwrite').length, 2)
  })

  it('of a node whose write has failed are not made any more', async () => {
    const one = await founded()
    one.page.faults.quota = 1
    one.write(1, 'a', 1, 1, 'hard-2')
    one.write(1, 'a', 1, 2, 'hard-3')
    await settle()
    one.write(1, 'a', 1, 3, 'hard-4')
    await settle()
    assert.deepEqual(one.heard(), [['failed', 1, 'a', 'QuotaExceededError: the disk is full']])
    assert.equal(stored('conflux:c:a', 'meta').get('hard'), 'hard-1')
  })

  it('are made again once the node was loaded again, or another one made in its place', async () => {
    const one = await founded()
    const fail = async (node, epoch) => {
      one.page.faults.quota = 1
      one.write(1, node, epoch, 1, 'fails')
      await settle()
      assert.deepEqual(one.heard().map(([what]) => what), ['failed'])
    }
    const works = async (node, epoch) => {
      one.write(1, node, epoch, 2, 'works')
      await settle()
      assert.deepEqual(one.heard(), [['persisted', 1, node, 2]])
    }
    await fail('a', 1)
    await one.ask('unlockAll', 1)
    await one.ask('load', 1, 'a')
    await works('a', 2)
    await one.ask('create', 1, 'x', [6, undefined, undefined])
    await fail('x', 1)
    assert.equal((await one.ask('register', 1, 'x', 6))[0][0], 'lost')
    await one.ask('create', 1, 'x', [7, undefined, undefined])
    await works('x', 1)
    await fail('x', 1)
    await one.ask('delete', 1, 'x')
    await one.ask('create', 1, 'x', [7, undefined, undefined])
    await works('x', 1)
  })

  it('that fail for a moment are tried again, after longer and longer pauses', async () => {
    for (const [failures, last] of [[3, 'persisted'], [4, 'failed']]) {
      site()
      const one = await founded()
      let left = failures
      const { IDBKeyRange } = one.page.global
      one.page.global.IDBKeyRange = {
        lowerBound(first) {
          if (left-- > 0) throw new DOMException('for a moment', 'UnknownError')
          return IDBKeyRange.lowerBound(first)
        },
      }
      const began = world.now
      one.write(1, 'a', 1, 1, 'hard-2', undefined, 1, ['new-1'])
      while (one.told.length === 0) await world.pass(1)
      assert.equal(one.heard()[0][0], last)
      const waited = (world.now - began) / 1000
      assert.ok(waited >= 840 && waited < 860, `${waited} ms`)
    }
  })

  it('find a node that was taken over, or deleted, when the connection was lost', async () => {
    const one = await founded()
    one.write(1, 'a', 1, 1, 'hard-2')
    await settle()
    await open().ask('load', 1, 'a')
    one.heard()
    close(one.page, 'conflux:c:a')
    one.write(1, 'a', 1, 2, 'late')
    await settle()
    assert.deepEqual(one.heard(), [['lost', 1, 'a', undefined]])
    assert.equal(stored('conflux:c:a', 'meta').get('hard'), 'hard-2')
  })

  it('that begin while the connection is made anew are in storage when they are reported', async () => {
    const one = await founded()
    one.write(1, 'a', 1, 1, 'hard-2')
    await settle()
    one.heard()
    close(one.page, 'conflux:c:a')
    await world.pass(0.01)
    assert.equal([...one.page.connections].length, 1, 'the new connection is not there yet')
    one.write(1, 'a', 1, 2, 'hard-3')
    await settle()
    assert.deepEqual(one.heard(), [['persisted', 1, 'a', 2]])
    assert.equal(stored('conflux:c:a', 'meta').get('hard'), 'hard-3')
  })

  it('that are under way when the page is frozen end without it, so that others need not wait', async () => {
    const one = await founded()
    one.write(1, 'a', 1, 1, 'hard-2')
    await settle()
    one.heard()
    one.write(1, 'a', 1, 2, 'hard-3')
    await world.pass(0)
    one.page.freeze('all')
    const other = open()
    const [[what, , , record]] = await other.ask('load', 1, 'a')
    assert.deepEqual([what, record.epoch, record.hard], ['loaded', 2, 'hard-3'])
    one.page.thaw()
    await settle()
    assert.deepEqual(one.heard(), [['persisted', 1, 'a', 2]])
  })

  it('do not go to a database that was made anew in the meantime', async () => {
    const one = await founded()
    one.write(1, 'a', 1, 1, 'hard-2')
    await settle()
    one.heard()
    world.storage.clear()
    one.write(1, 'a', 1, 2, 'late', undefined, 2, ['late'])
    await settle()
    assert.deepEqual(new Set(one.heard().map(([what]) => what)), new Set(['storageLost']))
    assert.deepEqual(databases(), ['conflux:c'])
  })

  it('that wait when the page releases everything are not made, and no connection stays', async () => {
    const one = await founded()
    one.page.enter(() => {
      one.tabs.write(1, 'a', 1, 1, 'hard-2')
      one.tabs.write(1, 'a', 1, 2, 'hard-3')
      one.tabs.ask('unlockAll', 2)
    })
    await settle()
    assert.notEqual(stored('conflux:c:a', 'meta').get('hard'), 'hard-3')
    assert.equal(one.page.connections.size, 0)
  })

  it('of a former owner are dropped once it is known', async () => {
    const one = await founded()
    await open().ask('load', 1, 'a')
    world.commits.length = 0
    for (const seq of [1, 2, 3]) one.write(1, 'a', 1, seq, 'late')
    await settle()
    assert.deepEqual(one.heard(), [['lost', 1, 'a', undefined]])
    assert.deepEqual(world.commits.filter(([, mode]) => mode === 'readwrite'), [])
    // The node may be loaded again, and is written then.
    assert.equal((await one.ask('load', 2, 'a'))[0][3].epoch, 3)
    one.write(2, 'a', 3, 1, 'mine')
    await settle()
    assert.deepEqual(one.heard(), [['persisted', 2, 'a', 1]])
  })
})

describe('a connection', () => {
  it('is closed when its database is to be deleted, and the page finds out what is left', async () => {
    const one = await founded()
    one.write(1, 'a', 1, 1, 'hard-2')
    await settle()
    one.heard()
    const other = open()
    other.page.enter(() => other.page.global.indexedDB.deleteDatabase('conflux:c:a'))
    await settle()
    assert.deepEqual(one.heard(), [['lost', 1, 'a', undefined]])
    assert.deepEqual(databases(), ['conflux:c'])
  })

  it('that is lost makes the page look whether its node is still there', async () => {
    const one = await founded()
    close(one.page, 'conflux:c:a')
    await settle()
    assert.deepEqual(one.heard(), [], 'it is')
    world.storage.clear()
    await settle()
    assert.deepEqual(one.heard(), [['storageLost', 1, 'a', undefined]], 'it is not, and nothing else either')
  })

  it('that is lost is replaced at once when it is needed, also if nobody has said that it is lost', async () => {
    const one = await founded()
    close(one.page, 'conflux:c')
    await settle()
    one.page.enter(() => one.tabs.ask('read', 1, 'a'))
    await world.pass(20)
    assert.equal(one.heard().length, 1)
    for (const { front } of one.page.connections) front.isClosed = true
    assert.equal((await one.ask('read', 1, 'a'))[0][0], 'registry')
  })

  it('that is refused for good is asked for anew the next time', async () => {
    const one = open()
    const { indexedDB } = one.page.global
    one.page.global.indexedDB = {
      open() {
        const request = { error: new DOMException('not here', 'SecurityError') }
        one.page.task('storage', 0, () => request.onerror())
        return request
      },
    }
    assert.deepEqual(await one.ask('read', 1, 'a'), [['failed', 1, 'a', 'SecurityError: not here']])
    one.page.global.indexedDB = indexedDB
    assert.deepEqual(await one.ask('read', 1, 'a'), [['registry', 1, 'a', undefined]])
  })

  it('that cannot be had is tried again, four times', async () => {
    for (const [failures, answer] of [[3, 'registry'], [4, 'failed']]) {
      site()
      const one = open()
      one.page.faults.open = failures
      const began = world.now
      one.page.enter(() => one.tabs.ask('read', 1, 'a'))
      while (one.told.length === 0) await world.pass(1)
      assert.equal(one.heard()[0][0], answer)
      const waited = (world.now - began) / 1000
      assert.ok(waited >= 840 && waited < 860, `${waited} ms`)
      // What has failed in the end does not stand in the way of what comes later.
      assert.deepEqual(await one.ask('read', 1, 'a'), [['registry', 1, 'a', undefined]])
    }
  })

  it('that storage does not give for three seconds is reported once, unless the page has closed', async () => {
    const one = await founded()
    world.storage.stalledUntil = world.now + 10_000_000
    const other = open()
    const closing = open()
    for (const { page, tabs } of [other, closing]) {
      page.enter(() => tabs.ask('read', 1, 'x'))
      page.enter(() => tabs.ask('load', 1, 'y'))
    }
    await world.pass(2_900)
    assert.deepEqual(other.reports, [])
    closing.page.enter(() => closing.tabs.close())
    await world.pass(200)
    assert.equal(other.reports.length, 1)
    assert.equal(other.reports[0][0], 'STORAGE_BLOCKED')
    assert.match(other.reports[0][1], /has not answered for three seconds.*goes on once that tab is resumed or closed/)
    await world.pass(10_000)
    assert.deepEqual([other.reports.length, closing.reports.length, one.reports.length], [1, 0, 0])
    assert.equal(other.heard().length, 2)
    assert.deepEqual(closing.told, [], 'a page that has closed hears nothing')
  })

  it('that is given in time is not reported', async () => {
    const one = await founded()
    await world.pass(5_000)
    assert.deepEqual(one.reports, [])
  })

  it('is open for as long as the page does not release everything', async () => {
    const one = await founded()
    assert.deepEqual([...one.page.connections].map(({ database }) => database.name).sort(), ['conflux:c', 'conflux:c:a'])
    await one.ask('read', 1, 'a')
    assert.equal(one.page.connections.size, 2)
    await one.ask('unlockAll', 2)
    assert.equal(one.page.connections.size, 0)
    assert.deepEqual(await one.ask('load', 3, 'a'), [['loaded', 3, 'a', { incarnation: 7, epoch: 2, hard: 'hard-1', log: [['e1']] }]])
  })
})

describe('the end of the cluster', () => {
  it('deletes the nodes, leaves an empty registry, and resolves `destroyed`', async () => {
    const one = await founded()
    await one.ask('create', 1, 'b', [7, undefined, undefined])
    await one.ask('register', 1, 'b', 7)
    let destroyed = false
    one.tabs.destroyed.then(() => {
      destroyed = true
    })
    assert.deepEqual(await one.ask('deleteAll', 1), [['deleted', 1, undefined, undefined]])
    assert.ok(destroyed)
    assert.deepEqual(databases(), ['conflux:c'])
    assert.deepEqual(keys('conflux:c', 'registry'), [])
    assert.equal(one.page.connections.size, 0)
  })

  it('of which nothing is stored any more is an end, too', async () => {
    const one = open()
    let destroyed = false
    one.tabs.destroyed.then(() => {
      destroyed = true
    })
    assert.deepEqual(await one.ask('deleteAll', 1), [['deleted', 1, undefined, undefined]])
    assert.ok(destroyed)
  })

  it('rejects `destroyed` if storage does not let the cluster be deleted', async () => {
    const one = await founded()
    let error
    one.tabs.destroyed.catch((thrown) => {
      error = thrown
    })
    one.page.faults.quota = 1
    assert.deepEqual(await one.ask('deleteAll', 1), [['failed', 1, undefined, 'QuotaExceededError: the disk is full']])
    assert.equal(error.code, 'STORAGE_FAILED')
    assert.match(error.message, /does not let the cluster be deleted \(QuotaExceededError: the disk is full\)/)
  })

  it('is not what a question is that nobody knows', async () => {
    const one = open()
    const [[what, , , message]] = await one.ask('whatever', 1, 'a')
    assert.deepEqual([what, message], ['failed', 'TypeError: storage does not know `whatever`'])
  })
})

describe('locks', () => {
  const lock = 'conflux:c:a'

  it('are had by one page at a time; who tries for one that is taken does not get it', async () => {
    const [one, other] = [open(), open()]
    assert.deepEqual(await one.ask('try', 1, 'a'), [['lock', 1, 'a', true]])
    assert.deepEqual(await other.ask('try', 1, 'a'), [['lock', 1, 'a', false]])
    assert.deepEqual(world.locks.heldBy(one.page), [lock])
    await one.ask('unlock', 1, 'a')
    assert.deepEqual(world.locks.heldBy(one.page), [])
    assert.deepEqual(await other.ask('try', 1, 'a'), [['lock', 1, 'a', true]])
  })

  it('are waited for, and given to who waits when they become free', async () => {
    const [one, other] = [open(), open()]
    await one.ask('try', 1, 'a')
    assert.deepEqual(await other.ask('await', 1, 'a'), [])
    assert.deepEqual(world.locks.heldBy(other.page), [`${lock} (waits)`])
    await one.ask('unlock', 1, 'a')
    assert.deepEqual(other.heard(), [['lock', 1, 'a', true]])
    // The request that was granted waits no more: letting go of the lock gives it to the next one.
    one.page.enter(() => one.tabs.ask('await', 1, 'a'))
    await other.ask('unlock', 1, 'a')
    assert.deepEqual(one.heard(), [['lock', 1, 'a', true]])
    assert.deepEqual(other.heard(), [])
  })

  it('are not waited for any more once the page lets go, asks anew, or releases everything', async () => {
    const [one, other] = [open(), open()]
    await one.ask('try', 1, 'a')
    await other.ask('await', 1, 'a')
    await other.ask('await', 1, 'a')
    assert.deepEqual(world.locks.heldBy(other.page), [`${lock} (waits)`], 'only once')
    await other.ask('unlock', 1, 'a')
    assert.deepEqual(world.locks.heldBy(other.page), [])
    await other.ask('await', 1, 'a')
    await other.ask('unlockAll', 2)
    assert.deepEqual(world.locks.heldBy(other.page), [])
    await one.ask('unlock', 1, 'a')
    assert.deepEqual([other.heard(), world.locks.names()], [[], []])
  })

  it('are stolen, which their holder is told, and not from oneself', async () => {
    const [one, other] = [open(), open()]
    await one.ask('try', 1, 'a')
    assert.deepEqual(await other.ask('steal', 1, 'a'), [['lock', 1, 'a', true]])
    assert.deepEqual(one.heard(), [['lost', 1, 'a', undefined]])
    assert.deepEqual(await other.ask('steal', 1, 'a'), [], 'it has it already')
    assert.deepEqual(world.locks.heldBy(other.page), [lock])
    assert.deepEqual(await one.ask('steal', 1, 'a'), [['lock', 1, 'a', true]])
    assert.deepEqual(other.heard(), [['lost', 1, 'a', undefined]])
    await one.ask('unlock', 1, 'a')
    assert.deepEqual(world.locks.names(), [])
  })

  it('that were let go can be stolen back', async () => {
    const [one, other] = [open(), open()]
    await one.ask('try', 1, 'a')
    await one.ask('unlock', 1, 'a')
    await other.ask('try', 1, 'a')
    assert.deepEqual(await one.ask('steal', 1, 'a'), [['lock', 1, 'a', true]])
  })

  it('that were let go are not reported as lost, nor are those that come back later', async () => {
    const one = open()
    await one.ask('try', 1, 'a')
    await one.ask('unlock', 1, 'a')
    assert.deepEqual(await one.ask('try', 1, 'a'), [['lock', 1, 'a', true]])
    assert.deepEqual(world.locks.heldBy(one.page), [lock])
    const other = open()
    await other.ask('await', 1, 'a')
    assert.deepEqual(await other.ask('unlock', 1, 'a'), [], 'to stop waiting is no loss')
  })

  it('that are granted after everything was released are given back', async () => {
    const one = open()
    one.page.enter(() => {
      one.tabs.ask('try', 1, 'a')
      one.tabs.ask('await', 1, 'b')
      one.tabs.ask('unlockAll', 2)
    })
    await settle()
    assert.deepEqual([one.heard(), world.locks.names()], [[], []])
  })

  it('that are asked for and let go before they are granted are given back', async () => {
    const one = open()
    one.page.enter(() => one.tabs.ask('await', 1, 'a'))
    while (world.locks.names().length === 0) await world.pass(0.01)
    one.page.enter(() => one.tabs.ask('unlock', 1, 'a'))
    await settle()
    assert.deepEqual([one.heard(), world.locks.names()], [[], []])
  })

  it('are all released when the node closes, and the core hears nothing any more', async () => {
    const one = open()
    await one.ask('try', 1, 'a')
    await one.ask('try', 1, 'b')
    one.page.enter(() => one.tabs.ask('read', 1, 'a'))
    one.page.enter(() => one.tabs.close())
    await settle()
    assert.deepEqual([one.heard(), world.locks.names()], [[], []])
    assert.equal(one.page.connections.size, 0)
  })
})

describe('page events', () => {
  const events = [['document', 'freeze', 'suspend'], ['document', 'resume', 'resume'], ['window', 'pagehide', 'suspend']]

  const watch = (suspends) => {
    const { page, browser } = open()
    const calls = []
    const note = (name) => (...args) => calls.push([name, ...args].join(' '))
    const core = Object.fromEntries(['turn', 'visible', 'suspend', 'resume'].map((name) => [name, note(name)]))
    const watched = page.enter(() => browser.watchPage(core, suspends))
    return { page, browser, watched, calls, heard: () => calls.splice(0) }
  }

  it('reach the core until its node ends', async () => {
    const { page, browser, watched, heard } = watch(true)
    for (const [target, name] of events) page.dispatch(target, name)
    assert.deepEqual(heard(), events.map(([, , call]) => call))
    page.dispatch('window', 'pageshow', { persisted: false })
    assert.deepEqual(heard(), [])
    page.dispatch('window', 'pageshow', { persisted: true })
    assert.deepEqual(heard(), ['resume'])
    assert.equal(browser.hidden(), false)
    page.hidden = true
    assert.equal(browser.hidden(), true)
    page.dispatch('document', 'visibilitychange')
    page.hidden = false
    page.dispatch('document', 'visibilitychange')
    assert.deepEqual(heard(), ['visible false', 'visible true'])
    page.enter(() => watched.end())
    for (const [target, name] of events) page.dispatch(target, name)
    page.dispatch('document', 'visibilitychange')
    page.dispatch('window', 'pageshow', { persisted: true })
    assert.deepEqual(heard(), [])
  })

  it('do not suspend a node that keeps nothing in the page’s storage', () => {
    const { page, heard } = watch(false)
    for (const [target, name] of events) page.dispatch(target, name)
    page.dispatch('window', 'pageshow', { persisted: true })
    assert.deepEqual(heard(), [])
    page.dispatch('document', 'visibilitychange')
    assert.deepEqual(heard(), ['visible true'])
  })

  it('are followed by timers of a worker, also when the page is hidden; the last one that is set counts', async () => {
    const { page, watched, heard } = watch(true)
    page.hidden = true
    page.enter(() => {
      watched.wake(50)
      watched.wake(10)
    })
    await world.pass(9)
    assert.deepEqual(heard(), [])
    await world.pass(3)
    assert.deepEqual(heard(), ['turn true'])
    await world.pass(100)
    assert.deepEqual(heard(), [])
    page.enter(() => watched.wake(0))
    await world.pass(1)
    assert.deepEqual(heard(), ['turn true'])
    page.enter(() => {
      watched.wake(10)
      watched.end()
    })
    await world.pass(100)
    assert.deepEqual(heard(), [])
  })

  it('stop the timers of a node that has ended, also one whose message is under way', async () => {
    const { page, watched, heard } = watch(true)
    const posted = []
    const { Worker } = page.global
    page.global.Worker = class extends Worker {
      constructor(...args) {
        super(...args)
        const post = this.postMessage
        this.postMessage = (message) => {
          posted.push(message.ms)
          post(message)
        }
      }
    }
    page.enter(() => watched.wake(10))
    // The worker gets its message after 0.05 ms, and its answer takes as long.
    await world.pass(10.07)
    assert.deepEqual(heard(), [])
    page.enter(() => watched.end())
    await settle()
    assert.deepEqual([heard(), posted], [[], [10, -1]])
  })

  it('have one worker for all nodes of a page', async () => {
    const { page, browser, watched, heard } = watch(true)
    let workers = 0
    const { Worker } = page.global
    page.global.Worker = class extends Worker {
      constructor(...args) {
        super(...args)
        workers += 1
      }
    }
    const other = []
    const second = page.enter(() => browser.watchPage({ turn: (due) => other.push(due) }, true))
    page.enter(() => {
      watched.wake(10)
      second.wake(20)
    })
    await world.pass(11)
    assert.deepEqual([heard(), other], [['turn true'], []])
    await world.pass(11)
    assert.deepEqual([heard(), other, workers], [[], [true], 1])
  })

  for (const how of ['refused', 'broken']) {
    it(`need no worker: it may be ${how}`, async () => {
      const { page, watched, heard } = watch(true)
      world.conditions.worker = how
      let [workers, posted] = [0, 0]
      const { Worker } = page.global
      page.global.Worker = class extends Worker {
        constructor(...args) {
          workers += 1
          super(...args)
        }

        postMessage() {
          posted += 1
        }
      }
      page.enter(() => watched.wake(10))
      await world.pass(20)
      page.enter(() => watched.wake(10))
      await world.pass(20)
      assert.deepEqual([heard(), workers], [[], 1], 'none is tried again')
      page.enter(() => watched.end())
      assert.equal(posted, how === 'broken' ? 1 : 0, 'nothing is sent to one that has failed')
    })
  }
})

describe('outside of a page', () => {
  it('it is said what is missing, and nothing is hidden or watched', async () => {
    const { browser } = await import(pathToFileURL(path.join(packageDir, 'tabs.js')))
    const names = ['indexedDB', 'document', 'navigator']
    const before = names.map((name) => Object.getOwnPropertyDescriptor(globalThis, name))
    const set = (name, value) => Object.defineProperty(globalThis, name, { value, configurable: true, writable: true })
    try {
      assert.match(browser.missing(), /^IndexedDB/)
      assert.equal(browser.hidden(), false)
      const { wake, end } = browser.watchPage({}, true)
      wake(1)
      end()
      set('indexedDB', {})
      assert.match(browser.missing(), /^a page/)
      set('document', {})
      set('navigator', {})
      assert.match(browser.missing(), /^Web Locks/)
      set('navigator', { locks: {} })
      assert.equal(browser.missing(), undefined)
    } finally {
      for (const [at, name] of names.entries()) {
        if (before[at]) Object.defineProperty(globalThis, name, before[at])
        else delete globalThis[name]
      }
    }
  })
})
