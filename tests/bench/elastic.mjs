// Benchmarks of elastic clusters in Chromium: the time without commits after the leader's tab is killed, the latency of
// performs, and what grows with the number of actions.
import { crash, launch, openTab, startSite } from '../browser/support.mjs'

const RUNS = 30
const site = await startSite()
const browser = await launch()
const quantile = (times, q) => times.toSorted((a, b) => a - b)[Math.min(times.length - 1, Math.floor(times.length * q))]
const ms = (time) => `${time.toFixed(1)} ms`

/** Waits until all tabs know `n` members, all of them voters, and a leader. */
const settled = async (pages, n) => {
  for (const page of pages) {
    await page.waitForFunction(
      (n) => tab.status().members.length === n && tab.status().learners.length === 0 && tab.status().leaderId,
      n,
      { polling: 20 },
    )
  }
}

// The leader's tab of three is killed while another tab performs all the time, one perform after the other.
const gaps = []
{
  const context = await browser.newContext()
  let pages = []
  for (let run = 0; run < RUNS; run++) {
    while (pages.length < 3) pages.push(await openTab(context, site.origin, 'killed', `tab-${run}-${pages.length}`, { count: 1 }))
    await settled(pages, 3)
    const leads = await Promise.all(pages.map((page) => page.evaluate("tab.status().role === 'leader'")))
    const leader = pages[leads.indexOf(true)]
    pages = pages.filter((page) => page !== leader)
    const asker = pages[0]
    await asker.evaluate(() => {
      window.acks = []
      window.asking = (async () => {
        while (window.acks !== undefined) {
          await tab.node.perform('append', [1])
          window.acks?.push(performance.timeOrigin + performance.now())
        }
      })()
    })
    await asker.waitForFunction('acks.length > 20', null, { polling: 20 })
    const before = Date.now()
    await crash(leader)
    await asker.waitForFunction((t) => acks.at(-1) > t + 30, before, { polling: 20 })
    const acks = await asker.evaluate(async () => {
      const acks = window.acks
      window.acks = undefined
      await window.asking
      return acks
    })
    // The longest time between two commits after the kill. The first gap alone would be too short: the tab may still
    // commit for a moment before it is really dead.
    let silence = 0
    let last = before
    for (const ack of acks.filter((ack) => ack > before)) {
      silence = Math.max(silence, ack - last)
      last = ack
    }
    gaps.push(silence)
  }
  await context.close()
}
console.log(
  `the leader's tab is killed, ${RUNS} times: silence until the next commit, median ${ms(quantile(gaps, 0.5))}, 99 % ${ms(quantile(gaps, 0.99))}`,
)

// Latency of performs with IndexedDB and three tabs.
{
  const context = await browser.newContext()
  const pages = []
  for (let i = 0; i < 3; i++) pages.push(await openTab(context, site.origin, 'latency', `tab-${i}`, { count: 1 }))
  await settled(pages, 3)
  const leads = await Promise.all(pages.map((page) => page.evaluate("tab.status().role === 'leader'")))
  for (const [what, page] of [['leader', pages[leads.indexOf(true)]], ['follower', pages[leads.indexOf(false)]]]) {
    const times = await page.evaluate(async () => {
      const times = []
      for (let i = 0; i < 700; i++) {
        const start = performance.now()
        await tab.node.perform('append', [1])
        times.push(performance.now() - start)
      }
      return times.slice(200)
    })
    console.log(`${what}, perform to commit with IndexedDB (strict): median ${ms(quantile(times, 0.5))}, 99 % ${ms(quantile(times, 0.99))}`)
  }
  await context.close()
}

// What grows with the number of actions if the state stays small.
{
  const context = await browser.newContext()
  const pages = [await openTab(context, site.origin, 'flat', 'tab-0', { count: 1 })]
  let done = 0
  for (const goal of [1_000, 10_000, 100_000]) {
    while (done < goal) {
      const some = Math.min(2_000, goal - done)
      await pages[0].evaluate(`Promise.all(Array.from({ length: ${some} }, () => tab.node.perform('append', [1])))`)
      done += some
    }
    const { usage } = await pages[0].evaluate('navigator.storage.estimate()')
    const { lastIndex, snapshotIndex } = await pages[0].evaluate('tab.status()')
    const start = Date.now()
    const joiner = await openTab(context, site.origin, 'flat', 'joiner', { count: 1 })
    await joiner.waitForFunction((n) => tab.state() >= n, goal, { polling: 5 })
    const join = Date.now() - start
    await joiner.close()
    await pages[0].waitForFunction('tab.status().members.length === 1', null, { polling: 20 })
    const session = await context.newCDPSession(pages[0])
    await session.send('HeapProfiler.collectGarbage')
    const { usedSize } = await session.send('Runtime.getHeapUsage')
    const wasm = await pages[0].evaluate('tab.memory()')
    console.log(
      `${goal} actions: ${Math.round(usage / 1024)} KB stored, ${lastIndex - snapshotIndex} entries in the log, ` +
        `${Math.round(usedSize / 1024)} KB of heap and ${Math.round(wasm / 1024)} KB of wasm, a new tab has it all after ${join} ms`,
    )
  }
  await context.close()
}
await browser.close()
await site.stop()
