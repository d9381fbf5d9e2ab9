/** A node of a cluster of tabs, which performs once; the page's title tells what has become of it. */
export const run = async (conflux) => {
  const node = conflux({
    cluster: 'packaging',
    channel: { name: 'broadcast' },
    methods: { add: (n) => n },
    reduce: (state = 0, action) => state + (action ?? 0),
  })
  await node.perform('add', [7])
  document.title = `state ${node.getState()}`
}
