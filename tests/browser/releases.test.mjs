// Tabs with different releases of an application, first states and reducers, in a real browser.
import assert from 'node:assert/strict'
import { after, before, beforeEach, afterEach, describe, it } from 'node:test'
import { crash, launch, openTab, startSite, state } from './support.mjs'

let browser, site, context
let clusters = 0
let tabs = 0
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
  name = `release-${++clusters}`
  context = await browser.newContext()
})
afterEach(() => context.close())

const open = (more) => openTab(context, site.origin, name, `tab-${++tabs}`, more)

const until = (page, condition, arg) =>
  page.waitForFunction(`(${condition})(tab, ${JSON.stringify(arg)})`, null, { timeout: 30_000, polling: 50 })

const isMember = (page) => until(page, (tab) => tab.status().phase === 'member')
const perform = (page, value) => page.evaluate((value) => tab.node.perform('append', [value]), value)
/** The code with which a perform is rejected. */
const refusal = (page, value) =>
  page.evaluate((value) => tab.node.perform('append', [value]).then(() => 'done', (error) => error.code), value)
const read = async (page) => {
  await page.evaluate(() => tab.node.read())
  return state(page)
}

describe('tabs with different code', () => {
  it('share the first state of the tab that founded the cluster', async () => {
    const first = await open({ version: 1, base: 'first' })
    await isMember(first)
    const second = await open({ version: 1, base: 'second' })
    await isMember(second)
    assert.deepEqual(await state(second), { release: 1, list: ['first'] })
    await perform(second, 'x')
    for (const page of [first, second]) assert.deepEqual(await read(page), { release: 1, list: ['first', 'x'] })
  })

  it('find out which of them computes another state, and give it theirs', async () => {
    const pages = [await open({ version: 1 }), await open({ version: 1 }), await open({ version: 1, refuses: 'bad' })]
    await Promise.all(pages.map(isMember))
    await perform(pages[0], 'good')
    await perform(pages[0], 'bad')
    await until(pages[2], (tab) => tab.divergences.length > 0)
    const [{ action, code, message }] = await pages[2].evaluate('tab.divergences')
    assert.deepEqual([action, code, message], ['bad', 'REDUCER_FAILED', 'not here'])
    assert.ok((await pages[2].evaluate('tab.errors')).includes('DIVERGED'))
    // Its state is mended before anything of it is settled.
    await perform(pages[2], 'more')
    for (const page of pages) assert.deepEqual((await read(page)).list, ['good', 'bad', 'more'])
  })

  it('move to the newest release once, and the tabs with older code stand still and say so', async () => {
    const old = await open({ version: 1 })
    await perform(old, 'a')
    const other = await open({ version: 1 })
    await perform(other, 'b')
    const newer = await open({ version: 2 })
    await isMember(newer)
    const migrated = await read(newer)
    assert.deepEqual([migrated.list, migrated.release, migrated.from], [['a', 'b'], 2, 1])
    await perform(newer, 'c')
    for (const page of [old, other]) {
      await until(page, (tab) => tab.outdated.length > 0)
      assert.deepEqual(await page.evaluate('[tab.outdated, tab.status().phase]'), [[2], 'outdated'])
      assert.equal(await refusal(page, 'late'), 'OUTDATED')
      assert.deepEqual(await state(page), { release: 1, list: ['a', 'b'] })
    }
    // Three releases at once; and each later tab loads what one of them has made.
    const newest = await open({ version: 3 })
    await isMember(newest)
    assert.equal(await refusal(newer, 'late'), 'OUTDATED')
    const again = await open({ version: 3 })
    await isMember(again)
    await perform(again, 'd')
    for (const page of [newest, again]) {
      const { list, release, from } = await read(page)
      assert.deepEqual([list, release, from], [['a', 'b', 'c', 'd'], 3, 2])
    }
    assert.deepEqual(await state(again), await state(newest), 'migrated once, by one of them')
  })

  it('keep the newest release when its tabs have died and only older code is left', async () => {
    const old = await open({ version: 1 })
    await perform(old, 'a')
    const newer = await open({ version: 2 })
    await isMember(newer)
    await perform(newer, 'b')
    await crash(newer)
    await until(old, (tab) => tab.outdated.length > 0)
    assert.equal(await refusal(old, 'late'), 'OUTDATED')
    const again = await open({ version: 2 })
    await perform(again, 'c')
    assert.deepEqual((await read(again)).list, ['a', 'b', 'c'])
  })

  it('go on with the older release when the newer one cannot migrate', async () => {
    const old = await open({ version: 1 })
    await perform(old, 'a')
    const stuck = await open({ version: 2, stuck: '' })
    await until(stuck, (tab) => tab.errors.includes('MIGRATION_FAILED'))
    assert.equal(await refusal(stuck, 'x'), 'MIGRATION_FAILED')
    await perform(old, 'b')
    assert.deepEqual(await read(old), { release: 1, list: ['a', 'b'] })
    assert.deepEqual(await state(stuck), { release: 2, list: [] }, 'its own first state')
  })

  it('migrate what only older tabs had stored', async () => {
    const old = await open({ version: 1 })
    for (const value of ['a', 'b', 'c']) await perform(old, value)
    await crash(old)
    const newer = await open({ version: 2 })
    await isMember(newer)
    const { list, release, from } = await read(newer)
    assert.deepEqual([list, release, from], [['a', 'b', 'c'], 2, 1])
  })
})
