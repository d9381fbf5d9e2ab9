// Tests in Chromium that need minutes, a window, or a file system of their own.
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { acknowledged, check, launchPlain, openTab, startSite, state } from '../browser/support.mjs'

let site
before(async () => {
  site = await startSite()
})
after(() => site.stop())

const until = (page, condition, arg) =>
  page.waitForFunction(`(${condition})(tab.status(), ${JSON.stringify(arg)})`, null, { timeout: 30_000, polling: 50 })

describe('tabs of one window', () => {
  let browser
  before(async () => {
    // With a window, not headless.
    browser = await launchPlain([])
  })
  after(() => browser.close())

  const open = (name, id) => openTab(browser.context, site.origin, name, id)

  it('hide each other: the visible one leads, and one that is frozen while hidden releases its node', async () => {
    const [a, b] = [await open('window', 'a'), await open('window', 'b')]
    for (const [front, back] of [[b, a], [a, b], [b, a]]) {
      await front.bringToFront()
      await back.waitForFunction('document.hidden', null, { polling: 50 })
      await until(front, "(s) => s.role === 'leader'")
    }
    await b.evaluate("document.addEventListener('freeze', () => { window.told = true })")
    await a.bringToFront()
    await until(a, "(s) => s.role === 'leader'")
    const session = await browser.context.newCDPSession(b)
    await session.send('Page.setWebLifecycleState', { state: 'frozen' })
    // The frozen tab has released its node: the other tab adopts the node and removes it.
    await until(a, '(s) => s.members.length === 1')
    await a.evaluate('tab.burst(5)')
    await session.send('Page.setWebLifecycleState', { state: 'active' })
    assert.equal(await b.evaluate('window.told'), true)
    await b.evaluate('tab.burst(5)')
    await check([a, b], [...(await acknowledged(a)), ...(await acknowledged(b))])
    await Promise.all([a.close(), b.close()])
  })

  it('still commit when all of them have been hidden for over five minutes', async () => {
    const pages = [await open('long', 'a'), await open('long', 'b'), await open('long', 'c')]
    await Promise.all(pages.map((page) => page.evaluate('tab.first()')))
    const front = await browser.context.newPage()
    for (const page of pages) await page.waitForFunction('document.hidden', null, { polling: 50 })
    // After that time Chromium runs a hidden page's own timers only once a minute.
    await front.evaluate('new Promise((done) => setTimeout(done, 330_000))')
    // Chromium delays chains of timers more than single ones, so a chain shows that the page is throttled.
    const rings = await pages[0].evaluate(`(async () => {
      const from = performance.now()
      for (let i = 0; i < 7; i++) await new Promise((done) => setTimeout(done, 100))
      return performance.now() - from
    })()`)
    console.log(`# seven timers of 100 ms take ${Math.round(rings)} ms in a tab that is hidden`)
    assert.ok(rings > 5_000, 'the tabs are throttled')
    for (const page of pages) {
      const took = await page.evaluate(`{
        const from = performance.now()
        tab.node.perform('append', ['hidden-' + Math.random()]).then(() => performance.now() - from)
      }`)
      console.log(`# a perform takes ${Math.round(took)} ms there`)
    }
    // The cluster must also go on when the leader's tab is closed while all tabs are hidden.
    const leaders = await Promise.all(pages.map((page) => page.evaluate("tab.status().role === 'leader'")))
    const leader = pages[leaders.indexOf(true)]
    const others = pages.filter((page) => page !== leader)
    const known = (await Promise.all(pages.map(acknowledged))).flat()
    await leader.close()
    const took = await others[0].evaluate(`{
      const from = performance.now()
      tab.node.perform('append', ['after']).then(() => performance.now() - from)
    }`)
    console.log(`# ${Math.round(took)} ms after the leader's tab was closed the next perform is committed`)
    assert.ok(took < 30_000)
    await check(others, [...known, 'after'])
    await Promise.all([front, ...others].map((page) => page.close()))
  })
})

describe('a disk that is full', () => {
  it('stops the node with a code, loses nothing acknowledged, and can be used again when it has room', async (test) => {
    let browser
    try {
      // Mount a small file system for the browser's profile.
      browser = await launchPlain(['--headless'], (profile, command) => [
        'unshare', '-m', 'sh', '-c', 'mount -t tmpfs -o size=400m none "$0" && exec "$@"', profile, ...command,
      ])
    } catch (error) {
      return test.skip(`a file system of its own takes root: ${error.message.split('\n')[0]}`)
    }
    const open = () => openTab(browser.context, site.origin, 'full', 'a')
    let page = await open()
    await page.evaluate('tab.burst(20)')
    // Another database of this origin fills the disk.
    const filled = await page.evaluate(`new Promise((done, fail) => {
      const request = indexedDB.open('junk', 1)
      request.onupgradeneeded = () => request.result.createObjectStore('junk')
      request.onerror = () => fail(request.error)
      request.onsuccess = async () => {
        for (let size = 4 << 20, count = 0; ; count++) {
          const error = await new Promise((next) => {
            const transaction = request.result.transaction('junk', 'readwrite', { durability: 'strict' })
            const junk = new Uint8Array(size)
            for (let at = 0; at < size; at += 65536) crypto.getRandomValues(junk.subarray(at, Math.min(size, at + 65536)))
            transaction.objectStore('junk').put(junk, count)
            transaction.oncomplete = () => next(undefined)
            transaction.onabort = () => next(transaction.error)
          })
          if (error && size <= 256) return done([error.name, count])
          if (error) size >>= 2
        }
      }
    })`)
    console.log(`# the disk is full: ${filled[0]}, after ${filled[1]} pieces`)
    assert.equal(filled[0], 'QuotaExceededError')
    await page.evaluate("tab.node.perform('append', ['x'.repeat(500000)]).catch((error) => tab.failed.push(error.message))")
    assert.deepEqual(await page.evaluate('tab.errors'), ['STORAGE_FAILED'])
    assert.match((await page.evaluate('tab.failed'))[0], /QuotaExceededError.*make room for this site/)
    assert.equal(await page.evaluate('tab.status().phase'), 'refused')
    const known = await acknowledged(page)
    assert.equal(known.length, 20)
    // Make room, and open the page again.
    await page.evaluate("new Promise((done) => { indexedDB.deleteDatabase('junk').onsuccess = done; window.tab.node.close(); setTimeout(done, 3000) })")
    await page.close()
    page = await open()
    await page.evaluate('tab.first()')
    assert.equal((await state(page)).length, 21)
    await check([page], known)
    await browser.close()
  })
})
