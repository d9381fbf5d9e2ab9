// Benchmark of 3 nodes on the memory channel in one Node.js process, with the default settings.
import { closeAll, cluster, imported as conflux, leaderOf } from '../node/support.mjs'

export const quantile = (times, q) => times.toSorted((a, b) => a - b)[Math.floor((times.length - 1) * q)]
const ms = (value) => `${value.toFixed(3)} ms`

const counter = {
  methods: { add: (n) => n, nothing: () => null },
  reduce: (state, action) => (state ?? 0) + (action ?? 0),
}

const time = async (times, action) => {
  const taken = []
  for (let i = 0; i < times; i++) {
    const start = performance.now()
    await action(i)
    taken.push(performance.now() - start)
  }
  return taken
}

const starting = []
for (let i = 0; i < 20; i++) {
  const start = performance.now()
  const nodes = cluster(conflux, 3, counter)
  await Promise.all(nodes.map((node) => node.perform('add', [1])))
  starting.push(performance.now() - start)
  await closeAll(nodes)
}
console.log(`from conflux() to a commit on each of 3 nodes: median ${ms(quantile(starting, 0.5))}`)

const nodes = cluster(conflux, 3, counter)
const leader = await leaderOf(nodes)
const follower = nodes.find((node) => node !== leader)
for (const [name, node] of [['leader', leader], ['follower', follower]]) {
  await time(500, () => node.perform('add', [1]))
  const perform = await time(2000, () => node.perform('add', [1]))
  const verdict = await time(2000, () => node.perform('nothing'))
  const read = await time(2000, () => node.read())
  for (const [what, times] of [['perform to commit', perform], ['verdict without an action', verdict], ['read()', read]]) {
    console.log(`${name}, ${what}: median ${ms(quantile(times, 0.5))}, 99 % ${ms(quantile(times, 0.99))}`)
  }
}
const COUNT = 50_000
for (const [name, node] of [['leader', leader], ['follower', follower]]) {
  const start = performance.now()
  await Promise.all(Array.from({ length: COUNT }, () => node.perform('add', [1])))
  const took = performance.now() - start
  console.log(`${name}, ${COUNT} performs at once: ${Math.round((COUNT / took) * 1000)} actions/s`)
}
await closeAll(nodes)
