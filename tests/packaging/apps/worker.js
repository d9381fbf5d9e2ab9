import conflux from 'conflux-wasm'

const node = conflux({
  id: 'worker',
  clusterSize: 1,
  channel: { name: 'broadcast', channel: 'workers' },
  methods: { add: (n) => n },
  reduce: (state = 0, action) => state + (action ?? 0),
})
await node.perform('add', [7])
postMessage(`state ${node.getState()}`)
