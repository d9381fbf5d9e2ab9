// Clusters of as many nodes as there are tabs, in a real browser: tabs die, and what was acknowledged
// does not.
import assert from 'node:assert/strict'
import { after, before, beforeEach, afterEach, describe, it } from 'node:test'
import { acknowledged, check, crash, launch, openTab, startSite, state } from './support.mjs'

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
beforeEach(async () => {
  context = await browser.newContext()
  name = `cluster-${++clusters}`
})
afterEach(() => context.close())

let tabs = 0
const open = (more) => openTab(context, site.origin, name, `tab-${++tabs}`, more)
const openMany = (n) => Promise.all(Array.from({ length: n }, () => open()))

/** Waits until a tab's status is as it should be. */
const until = (page, condition, arg) =>
  page.waitForFunction(`(${condition})(tab.status(), ${JSON.stringify(arg)})`, null, { timeout: 30_000 })

const progress = (page, more) =>
  page.waitForFunction(([n]) => tab.acknowledged.length >= n, [more], { timeout: 30_000 })

/** Random, and the same in every run. */
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

/** The page stands still, as one does that the browser froze. Visible pages are not told before. */
const freeze = async (page, told) => {
  const session = await context.newCDPSession(page)
  if (told) await page.evaluate("document.dispatchEvent(new Event('freeze'))")
  await session.send('Page.setWebLifecycleState', { state: 'frozen' })
  return async () => {
    await session.send('Page.setWebLifecycleState', { state: 'active' })
    if (told) await page.evaluate("document.dispatchEvent(new Event('resume'))")
  }
}

describe('a cluster of tabs', () => {
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

  it('the last tab that is left has it all', async () => {
    const pages = await openMany(3)
    await Promise.all(pages.map((page) => page.evaluate('tab.burst(30)')))
    const values = (await Promise.all(pages.map(acknowledged))).flat()
    await pages[0].close()
    await crash(pages[1])
    await pages[2].evaluate('tab.first()')
    await until(pages[2], '(s) => s.members.length === 1')
    await check([pages[2]], [...values])
  })

  it(`goes on when four of five die at once under load, ${ROUNDS} times`, async () => {
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

  it(`has all that was acknowledged after all tabs have died, ${ROUNDS} times`, async () => {
    name = 'extinct'
    const known = []
    for (let round = 1; round <= ROUNDS; round++) {
      const pages = await openMany(1 + Math.floor(random() * 4))
      await Promise.all(pages.map((page) => page.evaluate('tab.run()')))
      await Promise.all(pages.map((page) => progress(page, 5 + Math.floor(random() * 40))))
      known.push(...(await Promise.all(pages.map(acknowledged))).flat())
      await Promise.all(pages.map((page) => (random() < 0.5 ? crash(page) : page.close())))
      const page = await open()
      await check([page], known)
      await page.close()
    }
  })

  for (const told of [false, true]) {
    it(`goes on when four of five freeze, ${told ? 'told' : 'and are not told'} before`, async () => {
      const pages = await openMany(5)
      await Promise.all(pages.map((page) => page.evaluate('tab.run()')))
      await Promise.all(pages.map((page) => progress(page, 20)))
      const [last, ...victims] = shuffled(pages)
      const before = (await acknowledged(last)).length
      const thaw = await Promise.all(victims.map((page) => freeze(page, told)))
      await progress(last, before + 50)
      await Promise.all(thaw.map((thaw) => thaw()))
      // They follow again, behind the same handle, and what they had asked for is settled once.
      const counts = await Promise.all(victims.map(async (page) => (await acknowledged(page)).length))
      await Promise.all(victims.map((page, i) => progress(page, counts[i] + 10)))
      await Promise.all(pages.map((page) => page.evaluate('tab.stop()')))
      await check(pages, (await Promise.all(pages.map(acknowledged))).flat())
      for (const page of pages) assert.deepEqual(await page.evaluate('tab.failed'), [])
    })
  }
})
