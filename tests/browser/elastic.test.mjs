// Tests of elastic clusters in a real browser: however tabs die, nothing that was acknowledged is lost.
import assert from 'node:assert/strict'
import { after, before, beforeEach, afterEach, describe, it } from 'node:test'
import {
  acknowledged,
  check,
  crash,
  engine,
  launch,
  launchHiding,
  leftOut,
  openTab,
  startSite,
  state,
} from './support.mjs'

let browser, site, context
let clusters = 0
let name

before(async () => {
  site = await startSite()
  browser = await launch()
})
after(async () => {
  await browser.close()
  await site.stop()
})
beforeEach(() => {
  name = `cluster-${++clusters}`
})

/** Gives each test of a `describe` block a browser profile of its own. */
const ownContext = () => {
  beforeEach(async () => {
    context = await browser.newContext()
  })
  afterEach(() => context.close())
}

let tabs = 0
const open = (more) => openTab(context, site.origin, name, `tab-${++tabs}`, more)
const openMany = (n) => Promise.all(Array.from({ length: n }, () => open()))

/** Waits until a tab's status meets a condition. */
const until = (page, condition, arg) =>
  page.waitForFunction(`(${condition})(tab.status(), ${JSON.stringify(arg)})`, null, { timeout: 30_000, polling: 50 })

const progress = (page, more) =>
  page.waitForFunction(([n]) => tab.acknowledged.length >= n, [more], { timeout: 30_000, polling: 50 })

/** Waits until the tabs have sent no frame for a second. Returns a function that counts the frames sent so far. */
const silence = async (pages) => {
  const sent = async () => {
    const counts = pages.map((page) => page.evaluate('tab.status().counters.framesSent'))
    return (await Promise.all(counts)).reduce((sum, count) => sum + count)
  }
  for (let before, now = await sent(); before !== now; ) {
    await pages[0].evaluate('new Promise((done) => setTimeout(done, 1000))')
    before = now
    now = await sent()
  }
  return sent
}

/** Random numbers from 0 to 1, the same ones in every run. */
const random = (() => {
  let seed = 7
  return () => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0
    return seed / 2 ** 32
  }
})()

const shuffled = (list) => {
  const rest = [...list]
  return list.map(() => rest.splice(Math.floor(random() * rest.length), 1)[0])
}

const ROUNDS = Number(process.env.CONFLUX_ROUNDS ?? 20)

describe('a cluster of tabs', () => {
  ownContext()

  it('works with one tab, and takes in others as they come', async () => {
    const first = await open()
    await first.evaluate('tab.first()')
    const others = await openMany(3)
    await Promise.all(others.map((page) => page.evaluate('tab.first()')))
    for (const page of [first, ...others]) {
      await until(page, '(s) => s.members.length === 4 && s.learners.length === 0')
    }
    const states = await Promise.all([first, ...others].map(async (page) => {
      await page.evaluate('tab.node.read()')
      return state(page)
    }))
    for (const other of states) assert.deepEqual(other, states[0])
    assert.equal(states[0].length, 4)
  })

  it('a reload keeps everything', async () => {
    const page = await open()
    await page.evaluate('tab.burst(20)')
    const before = await state(page)
    const { id } = await page.evaluate('tab.status()')
    await page.reload()
    await page.waitForFunction('window.tab !== undefined')
    await page.evaluate('tab.node.read()')
    assert.deepEqual(await state(page), before)
    assert.equal((await page.evaluate('tab.status()')).id, id, 'it is the same node')
  })

  it('the last open tab has everything that was acknowledged', async () => {
    const pages = await openMany(3)
    await Promise.all(pages.map((page) => page.evaluate('tab.burst(30)')))
    const values = (await Promise.all(pages.map(acknowledged))).flat()
    await pages[0].close()
    await crash(pages[1])
    await pages[2].evaluate('tab.first()')
    await until(pages[2], '(s) => s.members.length === 1')
    await check([pages[2]], [...values])
  })

  it('sends at most one message a second when idle, and performs at once afterwards', async () => {
    const pages = await openMany(3)
    await Promise.all(pages.map((page) => page.evaluate('tab.first()')))
    for (const page of pages) await until(page, '(s) => s.members.length === 3 && s.learners.length === 0')
    const sent = await silence(pages)
    const before = await sent()
    await pages[0].evaluate('new Promise((done) => setTimeout(done, 12000))')
    const words = (await sent()) - before
    assert.ok(words > 0 && words <= 12, `${words} messages in 12 seconds`)
    const term = (await pages[0].evaluate('tab.status()')).term
    await Promise.all(pages.map((page) => page.evaluate('tab.burst(1)')))
    assert.equal((await pages[0].evaluate('tab.status()')).term, term, 'nobody missed the leader')
  })

  it(`goes on when four of five tabs die at once under load, ${ROUNDS} times`, async () => {
    for (let round = 1; round <= ROUNDS; round++) {
      name = `four-of-five-${round}`
      const pages = await openMany(5)
      await Promise.all(pages.map((page) => page.evaluate('tab.run()')))
      await Promise.all(pages.map((page) => progress(page, 5 + Math.floor(random() * 40))))
      const [last, ...victims] = shuffled(pages)
      const known = (await Promise.all(victims.map(acknowledged))).flat()
      const before = (await acknowledged(last)).length
      await Promise.all(victims.map((page) => (random() < 0.5 ? crash(page) : page.close())))
      await progress(last, before + 50)
      await last.evaluate('tab.stop()')
      await check([last], [...known, ...(await acknowledged(last))])
      assert.deepEqual(await last.evaluate('tab.failed'), [])
      assert.deepEqual(await last.evaluate('tab.errors'), [])
      await last.close()
    }
  })

  it(`has everything that was acknowledged after all tabs have died, ${ROUNDS} times`, async () => {
    name = 'extinct'
    const known = []
    for (let round = 1; round <= ROUNDS; round++) {
      const pages = await openMany(1 + Math.floor(random() * 4))
      // The state grows from round to round, and each new tab must reduce it. The tabs that are already open must not
      // perform thousands of actions meanwhile, or each round would take longer than the one before.
      await Promise.all(pages.map((page) => page.evaluate('tab.run(20)')))
      await Promise.all(pages.map((page) => progress(page, 5 + Math.floor(random() * 40))))
      known.push(...(await Promise.all(pages.map(acknowledged))).flat())
      await Promise.all(pages.map((page) => (random() < 0.5 ? crash(page) : page.close())))
      const page = await open()
      await check([page], known)
      await page.close()
    }
  })
})

describe('storage', () => {
  ownContext()

  it('stops the node with a code when a write fails, and nothing acknowledged is lost', async () => {
    const page = await open()
    await page.evaluate('tab.burst(10)')
    // Abort each write's transaction, as the browser does when storage is full.
    await page.evaluate('IDBTransaction.prototype.commit = function () { this.abort() }')
    await page.evaluate("tab.node.perform('append', ['never']).catch((error) => tab.failed.push(error.code))")
    assert.deepEqual(await page.evaluate('tab.errors'), ['STORAGE_FAILED'])
    assert.deepEqual(await page.evaluate('tab.failed'), ['STORAGE_FAILED'])
    await assert.rejects(page.evaluate("tab.node.perform('append', ['more'])"), /make room for this site/)
    const known = await acknowledged(page)
    await page.close()
    const later = await open()
    await check([later], known)
    assert.equal((await later.evaluate('tab.state()')).length, 10)
  })

  it('is opened again when its connection is lost, without an error', async () => {
    const page = await open()
    await page.evaluate('tab.burst(3)')
    // As in WebKit now and then, the connection is lost twice in a row, and once in the middle of a transaction.
    await page.evaluate(`{
      const { transaction } = IDBDatabase.prototype
      const { commit } = IDBTransaction.prototype
      let [lost, undone] = [2, 1]
      IDBDatabase.prototype.transaction = function (...args) {
        if (lost-- > 0) throw new DOMException('Connection is closing.', 'InvalidStateError')
        return transaction.apply(this, args)
      }
      IDBTransaction.prototype.commit = function () {
        return undone-- > 0 ? this.abort() : commit.apply(this)
      }
    }`)
    await page.evaluate("tab.node.perform('append', ['kept'])")
    await page.evaluate("tab.node.perform('append', ['kept as well'])")
    assert.deepEqual(await page.evaluate('tab.errors'), [])
    await page.close()
    const later = await open()
    await check([later], ['kept', 'kept as well'])
    assert.equal((await later.evaluate('tab.state()')).length, 5)
  })

  it('stops open tabs when it is deleted, and a new tab starts a new cluster', async () => {
    const pages = await openMany(2)
    await Promise.all(pages.map((page) => page.evaluate('tab.burst(5)')))
    if (engine === 'chromium') {
      const session = await context.newCDPSession(pages[0])
      await session.send('Storage.clearDataForOrigin', { origin: site.origin, storageTypes: 'indexeddb' })
    } else {
      // The protocols of these engines cannot clear a site's data, but a page can delete its databases.
      await pages[0].evaluate(`indexedDB.databases().then((all) => {
        for (const { name } of all) indexedDB.deleteDatabase(name)
      })`)
    }
    for (const page of pages) {
      await page.evaluate("void tab.node.perform('append', ['too late']).catch(() => {})")
      await page.waitForFunction("tab.errors.includes('STORAGE_LOST')", null, { polling: 50 })
    }
    await Promise.all(pages.map((page) => page.close()))
    const later = await open()
    await later.evaluate('tab.first()')
    assert.equal((await later.evaluate('tab.state()')).length, 1)
  })

  it('says so when another page keeps storage from answering, and goes on when that page is gone', async () => {
    const blocker = await context.newPage()
    await blocker.goto(`${site.origin}/conflux-wasm/package.json`)
    // A deletion waits for this page's connection, and whoever opens the database waits for the deletion.
    await blocker.evaluate((name) => new Promise((resolve) => {
      const request = indexedDB.open(name, 1)
      // WebKit gives up the deletion when the page closes, and the database stays: so it is as Conflux makes it.
      request.onupgradeneeded = () => request.result.createObjectStore('registry')
      request.onsuccess = () => {
        globalThis.connection = request.result
        indexedDB.deleteDatabase(name)
        resolve()
      }
    }), `conflux:${name}`)
    const page = await open()
    await page.waitForFunction("tab.errors.includes('STORAGE_BLOCKED')", null, { polling: 50 })
    await blocker.close()
    await page.evaluate('tab.first()')
    assert.equal((await state(page)).length, 1)
    assert.deepEqual(await page.evaluate('tab.errors'), ['STORAGE_BLOCKED'])
  })

  it('is deleted by destroy(), which ends the cluster in all tabs', async () => {
    const pages = await openMany(2)
    await Promise.all(pages.map((page) => page.evaluate('tab.burst(5)')))
    await pages[0].evaluate(() => {
      globalThis.deletions = []
      const real = IDBFactory.prototype.deleteDatabase
      IDBFactory.prototype.deleteDatabase = function (name) {
        globalThis.deletions.push(name)
        return real.call(this, name)
      }
    })
    await pages[0].evaluate('tab.node.destroy()')
    await pages[1].waitForFunction("tab.errors.includes('DESTROYED')", null, { polling: 50 })
    assert.equal(await pages[0].evaluate('tab.status().phase'), 'closed')
    // A page that stands still before its deletion of the registry would delete the next cluster's.
    const deletions = await pages[0].evaluate('deletions')
    assert.ok(deletions.length >= 2 && !deletions.includes(`conflux:${name}`), deletions.join())
    await Promise.all(pages.map((page) => page.close()))
    const later = await open()
    await later.evaluate('tab.first()')
    const databases = await later.evaluate('indexedDB.databases()')
    const { id } = await later.evaluate('tab.status()')
    assert.deepEqual(databases.map((database) => database.name).filter((other) => !other.endsWith(id)), [
      `conflux:${name}`,
    ])
    assert.equal((await later.evaluate('tab.state()')).length, 1)
  })
})

describe('tabs that freeze', () => {
  let plain

  before(async () => {
    plain = await launchHiding()
    // All tests of this block share the default context, so each test closes its own pages.
    plain.open = (more) => openTab(plain.context, site.origin, name, `tab-${++tabs}`, more)
  })
  after(() => plain.close())

  const freezes = leftOut({ others: 'no protocol freezes a page of this engine' })

  /**
   * Makes the browser freeze a page. Returns a function that resumes the page. Unless `told`, Conflux does not get the
   * `freeze` event.
   */
  const freeze = async (page, told) => {
    const session = await plain.context.newCDPSession(page)
    await page.evaluate('{ window.beats = 0; setInterval(() => beats++, 50) }')
    if (!told) {
      await page.evaluate("addEventListener('freeze', (e) => e.stopImmediatePropagation(), true)")
    }
    await session.send('Page.setWebLifecycleState', { state: 'frozen' })
    return () => session.send('Page.setWebLifecycleState', { state: 'active' })
  }

  for (const told of [true, false]) {
    it(`one tab goes on when four of five freeze, ${told ? 'with' : 'without'} a freeze event`, freezes, async () => {
      name = `frozen-${told}`
      const pages = await Promise.all(Array.from({ length: 5 }, () => plain.open()))
      for (const page of pages) {
        await until(page, '(s) => s.members.length === 5 && s.learners.length === 0')
      }
      await Promise.all(pages.map((page) => page.evaluate('tab.run()')))
      await Promise.all(pages.map((page) => progress(page, 20)))
      const [last, ...victims] = shuffled(pages)
      const thaws = await Promise.all(victims.map((page) => freeze(page, told)))
      const beats = () => Promise.all(victims.map((page) => page.evaluate('beats')))
      const still = await beats()
      const before = (await acknowledged(last)).length
      await progress(last, before + 50)
      assert.deepEqual(await beats(), still, 'they really stand still')
      const frozen = await Promise.all(victims.map(async (page) => (await acknowledged(page)).length))
      await Promise.all(thaws.map((thaw) => thaw()))
      // The resumed tabs follow again with the same handle, and each of their pending performs settles once.
      await Promise.all(victims.map((page, i) => progress(page, frozen[i] + 10)))
      await Promise.all(pages.map((page) => page.evaluate('tab.stop()')))
      await check(pages, (await Promise.all(pages.map(acknowledged))).flat())
      for (const page of pages) assert.deepEqual(await page.evaluate('tab.failed'), [])
      await Promise.all(pages.map((page) => page.close()))
    })
  }

  it('performs go on when the leader froze while the cluster was idle', freezes, async () => {
    name = 'quiet'
    const pages = [await plain.open(), await plain.open(), await plain.open()]
    await Promise.all(pages.map((page) => page.evaluate('tab.first()')))
    for (const page of pages) {
      await until(page, '(s) => s.members.length === 3 && s.learners.length === 0')
    }
    // The tab in front leads.
    await until(pages[2], "(s) => s.role === 'leader'")
    await silence(pages)
    const thaw = await freeze(pages[2], false)
    await pages[0].evaluate('tab.burst(3)')
    await thaw()
    await pages[2].evaluate('tab.burst(3)')
    await check(pages, (await Promise.all(pages.map(acknowledged))).flat())
    await Promise.all(pages.map((page) => page.close()))
  })

  it('a leader whose tab is hidden hands leadership over to a visible tab', async () => {
    name = 'hidden'
    const pages = []
    /** Waits until this tab, the only visible one, leads, and all tabs know the others to be hidden. */
    const leads = async (page) => {
      await page.waitForFunction('!document.hidden', null, { polling: 50 })
      await until(page, "(s) => s.phase === 'member'")
      const { id } = await page.evaluate('tab.status()')
      const others = pages.length - 1
      await Promise.all(pages.map((page) => until(page, '(s, id) => s.leaderId === id', id)))
      await until(page, '(s, [id, n]) => !s.hidden.includes(id) && s.hidden.length === n', [id, others])
    }
    if (engine === 'webkit') {
      // All tabs that WebKit's driver opens stay hidden behind the tab with which the browser starts.
      pages.push(await plain.open(), await plain.open())
      await pages[0].evaluate('tab.first()')
      const front = { newPage: () => plain.context.front() }
      pages.push(await openTab(front, site.origin, name, `tab-${++tabs}`))
      await leads(pages[2])
    } else {
      // The tab that is opened last is the one in front.
      for (let i = 0; i < 3; i++) {
        pages.push(await plain.open())
        await leads(pages[i])
      }
      for (const page of [pages[0], pages[1], pages[2], pages[0]]) {
        await page.bringToFront()
        await leads(page)
      }
    }
    await Promise.all(pages.map((page) => page.evaluate('tab.first()')))
    await Promise.all(pages.slice(0, 2).map((page) => page.close()))
    await pages[2].goto('about:blank')
  })

  const cached = leftOut({ firefox: 'it did not keep the page in its back/forward cache' })
  it('a page that comes back from the back/forward cache goes on, and did not hold up the others', cached, async () => {
    name = 'cached'
    const [leaver, other] = [await plain.open(), await plain.open()]
    await leaver.evaluate('tab.burst(10)')
    await leaver.evaluate("addEventListener('pageshow', (e) => { window.persisted = e.persisted })")
    const { id } = await leaver.evaluate('tab.status()')
    await leaver.goto(`${site.origin}/page.html?name=elsewhere&id=x&size=9`)
    // The page in the cache has released its node: the other tab adopts the node and removes it.
    await until(other, '(s, id) => !s.members.includes(id) && s.members.length === 1', id)
    await other.evaluate('tab.first()')
    await leaver.goBack({ waitUntil: 'commit' })
    await leaver.waitForFunction('window.persisted === true', null, { polling: 50 })
    await leaver.evaluate('tab.first()')
    await until(other, '(s) => s.members.length === 2')
    const values = [leaver, other].map(acknowledged)
    await check([leaver, other], (await Promise.all(values)).flat())
    await Promise.all([leaver.close(), other.close()])
  })
})
