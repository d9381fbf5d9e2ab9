// The child process that files.test.mjs kills: one node with a folder, which performs without end and prints what was
// acknowledged.
import { imported as conflux, reduce } from './support.mjs'

const [folder, first] = process.argv.slice(2)
const node = conflux({
  id: 'a',
  clusterSize: 1,
  cluster: 'killed',
  channel: { name: 'memory' },
  storage: { name: 'file', path: folder },
  methods: { append: (thing) => thing, fill: (size) => 'x'.repeat(size) },
  reduce: first === 'fill' ? (state = 0, action) => (action === null ? state : state + 1) : reduce,
})
node.on('error', (error) => console.log(`error ${error.code} ${error.message}`))
let next = Number(first)
const load = async () => {
  for (;;) {
    const value = next++
    await node.perform('append', [value])
    console.log(`acknowledged ${value}`)
  }
}
const fill = async () => {
  for (;;) {
    await node.perform('fill', [4_000])
    console.log('acknowledged')
  }
}
try {
  await Promise.all(first === 'fill' ? [fill()] : [load(), load(), load()])
} catch (error) {
  console.log(`rejected ${error.code}`)
  process.exit()
}
