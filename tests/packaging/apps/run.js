/** A node of a cluster of tabs, which performs once; the page's title shows the result. */
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
