// Benchmark of a fixed cluster of 3 tabs on the broadcast channel in Chromium, compared with the raw BroadcastChannel
// between the same tabs.
import { launch, leader, openTabs, startSite } from '../browser/support.mjs'

const site = await startSite()
const browser = await launch()
const context = await browser.newContext()
const pages = await openTabs([context], site.origin, { name: 'bench', size: 3, count: 1 })
const first = await leader(pages)
const follower = pages.find((page) => page !== first)

const raw = async () => {
  await follower.evaluate(() => {
    const there = new BroadcastChannel('raw-there')
    const back = new BroadcastChannel('raw-back')
    there.onmessage = ({ data }) => back.postMessage(data)
  })
  return first.evaluate(async () => {
    const there = new BroadcastChannel('raw-there')
    const back = new BroadcastChannel('raw-back')
    const answer = () => new Promise((resolve) => (back.onmessage = resolve))
    const times = []
    for (let i = 0; i < 1500; i++) {
      const start = performance.now()
      const answered = answer()
      there.postMessage(new Uint8Array(100))
      await answered
      times.push(performance.now() - start)
    }
    times.splice(0, 500)
    const burst = 20_000
    let count = 0
    const start = performance.now()
    await new Promise((resolve) => {
      back.onmessage = () => ++count === burst && resolve()
      for (let i = 0; i < burst; i++) there.postMessage(new Uint8Array(100))
    })
    return { times, rate: (burst / (performance.now() - start)) * 1000 }
  })
}

const performs = (page) =>
  page.evaluate(async () => {
    const times = []
    for (let i = 0; i < 1500; i++) {
      const start = performance.now()
      await tab.node.perform('append', [1])
      times.push(performance.now() - start)
    }
    return times.slice(500)
  })

const burst = (page) =>
  page.evaluate(async () => {
    const start = performance.now()
    await tab.burst(5_000)
    return (5_000 / (performance.now() - start)) * 1000
  })

const median = (times) => times.toSorted((a, b) => a - b)[times.length >> 1]
const { times, rate } = await raw()
const base = median(times)
console.log(`raw BroadcastChannel: round trip median ${base.toFixed(2)} ms, ${Math.round(rate)} messages/s there and back`)
for (const [name, page] of [['leader', first], ['follower', follower]]) {
  const took = median(await performs(page))
  console.log(`${name}, perform to commit: median ${took.toFixed(2)} ms, ${(took / base).toFixed(2)} × the raw round trip`)
}
for (const [name, page] of [['leader', first], ['follower', follower]]) {
  console.log(`${name}, 5000 performs at once: ${Math.round(await burst(page))} actions/s`)
}
await browser.close()
await site.stop()
