// The types of the package, imported with `require`.
import conflux = require('conflux-wasm')

const options: conflux.Options<number, { add(n: number): number }> = {
  id: 'a',
  clusterSize: 1,
  channel: { name: 'memory' },
  methods: { add: (n: number) => n },
  reduce: (state, action) => (state ?? 0) + (action ?? 0),
}
const node: conflux.Node<number, { add(n: number): number }> = conflux(options)
const state: number = node.getState()
const status: conflux.Status = node.status()
void [state, status, conflux.default, conflux.conflux]
