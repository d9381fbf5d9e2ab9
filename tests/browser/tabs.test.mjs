// Tests of fixed clusters with real tabs in a real browser.
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { acknowledged, check, launch, leader, openTabs, startSite, state } from './support.mjs'

let browser, site

before(async () => {
  site = await startSite()
  browser = await launch()
})
after(async () => {
  await browser.close()
  await site.stop()
})

/** Waits until a tab has this many acknowledged performs. */
const progress = (page, more) =>
  page.waitForFunction(([n]) => tab.acknowledged.length >= n, [more], { timeout: 30_000 })

const count = async (page) => (await acknowledged(page)).length

describe('broadcast', () => {
  it('three tabs perform at the same time and end in the same state in the same order', async () => {
    const context = await browser.newContext()
    const pages = await openTabs([context], site.origin, { name: 'burst', size: 3 })
    await Promise.all(pages.map((page) => page.evaluate('tab.burst(150)')))
    const values = (await Promise.all(pages.map(acknowledged))).flat()
    assert.equal(values.length, 450)
    const final = await check(pages, values)
    assert.equal(final.length, 450)
    for (const id of ['tab-1', 'tab-2', 'tab-3']) {
      const own = final.filter((value) => value.startsWith(`${id}-`))
      assert.deepEqual(own, Array.from({ length: 150 }, (_, i) => `${id}-burst-${i}`), 'FIFO per node')
    }
    await context.close()
  })

  /** Ends the leader's tab with `go` while all three tabs perform, and checks that the other two go on. */
  const losing = async (name, go) => {
    const context = await browser.newContext()
    const pages = await openTabs([context], site.origin, { name, size: 3 })
    const first = await leader(pages)
    const others = pages.filter((page) => page !== first)
    await Promise.all(pages.map((page) => page.evaluate('tab.run()')))
    await Promise.all(pages.map((page) => progress(page, 50)))
    const before = await Promise.all(others.map(count))
    const known = await acknowledged(first)
    await go(first, context)
    await Promise.all(others.map((page, i) => progress(page, before[i] + 50)))
    await Promise.all(others.map((page) => page.evaluate('tab.stop()')))
    const values = (await Promise.all(others.map(acknowledged))).flat()
    await check(others, [...known, ...values])
    assert.deepEqual(await Promise.all(others.map((page) => page.evaluate('tab.failed'))), [[], []])
    await context.close()
  }

  it('closing the leader’s tab loses nothing that was acknowledged, and performs go on', () =>
    losing('close', (page) => page.close()))

  it('a crash of the leader’s tab loses nothing that was acknowledged, and performs go on', () =>
    losing('crash', async (page, context) => {
      const session = await context.newCDPSession(page)
      // This call is never answered, because the tab crashes.
      session.send('Page.crash').catch(() => {})
    }))

  it('a fourth tab is told that a cluster of three is full', async () => {
    const context = await browser.newContext()
    const pages = await openTabs([context], site.origin, { name: 'full', size: 3 })
    await leader(pages)
    const late = await context.newPage()
    await late.goto(`${site.origin}/page.html?name=full&size=3&id=late`)
    await late.waitForFunction("tab.errors.includes('CLUSTER_FULL')")
    const code = await late.evaluate('tab.first().catch((error) => error.code)')
    assert.equal(code, 'CLUSTER_FULL')
    await context.close()
  })
})

describe('formation', () => {
  for (const size of [3, 5]) {
    it(`${size} tabs opened at the same instant form a cluster, 30 times of 30`, async () => {
      const context = await browser.newContext()
      for (let round = 1; round <= 30; round++) {
        const pages = await openTabs([context], site.origin, { name: `form-${size}-${round}`, size })
        const firsts = await Promise.all(pages.map((page) => page.evaluate('tab.first()')))
        await check(pages, firsts)
        await Promise.all(pages.map((page) => page.close()))
      }
      await context.close()
    })
  }
})

describe('websocket', () => {
  it('two browser profiles share one state through the relay, which restarts in the middle', async () => {
    const contexts = await Promise.all([browser.newContext(), browser.newContext()])
    const options = { name: 'relay', size: 3, channel: 'websocket' }
    const pages = await openTabs(contexts, site.origin, options)
    await Promise.all(pages.map((page) => page.evaluate('tab.burst(100)')))
    await check(pages, (await Promise.all(pages.map(acknowledged))).flat())
    await Promise.all(pages.map((page) => page.evaluate('tab.run()')))
    await Promise.all(pages.map((page) => progress(page, 150)))
    await site.restart()
    const before = await Promise.all(pages.map(count))
    await Promise.all(pages.map((page, i) => progress(page, before[i] + 50)))
    // Also close the leader's tab while performs of the others are in flight.
    const first = await leader(pages)
    const others = pages.filter((page) => page !== first)
    const known = await acknowledged(first)
    const then = await Promise.all(others.map(count))
    await first.close()
    await Promise.all(others.map((page, i) => progress(page, then[i] + 50)))
    await Promise.all(others.map((page) => page.evaluate('tab.stop()')))
    const values = (await Promise.all(others.map(acknowledged))).flat()
    const final = await check(others, [...known, ...values])
    assert.ok(final.length >= 300)
    assert.deepEqual(await state(others[0]), final)
    await Promise.all(contexts.map((context) => context.close()))
  })
})

describe('memory', () => {
  it('carries a cluster of several nodes in one page', async () => {
    const context = await browser.newContext()
    const page = await context.newPage()
    await page.goto(`${site.origin}/page.html?name=alone&size=1&id=alone`)
    const states = await page.evaluate(async () => {
      const { default: conflux } = await import('./conflux-wasm/browser.js')
      const nodes = ['a', 'b', 'c'].map((id) =>
        conflux({
          id,
          clusterSize: 3,
          channel: { name: 'memory' },
          methods: { append: (thing) => thing },
          reduce: (state = [], action) => (action === null ? state : [...state, action]),
        }),
      )
      await Promise.all(nodes.map((node) => node.perform('append', [node.status().id])))
      await Promise.all(nodes.map((node) => node.read()))
      const states = nodes.map((node) => node.getState())
      await Promise.all(nodes.map((node) => node.close()))
      return states
    })
    assert.equal(states[0].length, 3)
    assert.deepEqual(states[1], states[0])
    assert.deepEqual(states[2], states[0])
    await context.close()
  })
})

describe('bad input', () => {
  it('junk on the BroadcastChannel is counted, and performs go on', async () => {
    const context = await browser.newContext()
    const pages = await openTabs([context], site.origin, { name: 'junk', size: 3 })
    await leader(pages)
    const vandal = await context.newPage()
    await vandal.goto(`${site.origin}/page.html?name=elsewhere&size=1&id=vandal`)
    await vandal.evaluate(() => {
      for (const name of ['conflux:junk', 'conflux:junk:tab-1', 'conflux:junk:tab-2', 'conflux:junk:tab-3']) {
        const channel = new BroadcastChannel(name)
        channel.postMessage('text')
        channel.postMessage({ an: ['object'] })
        channel.postMessage(new Uint8Array([67, 102, 120, 77, 1, 2, 3]))
        channel.postMessage(new Uint8Array([67, 102, 120, 1, 255, 255, 255, 255]))
        for (let i = 0; i < 50; i++) channel.postMessage(crypto.getRandomValues(new Uint8Array(i * 20)))
      }
    })
    for (const page of pages) {
      await page.waitForFunction("tab.errors.includes('BAD_FRAME') && tab.errors.includes('VERSION')")
    }
    const firsts = await Promise.all(pages.map((page) => page.evaluate('tab.first()')))
    await check(pages, firsts)
    await context.close()
  })
})
