import conflux from 'conflux-wasm'

export const dynamic = 'force-dynamic'

/** Tries to make a node on the server, from inside a bundle. */
export const GET = () => {
  try {
    const node = conflux({
      id: 'server',
      clusterSize: 1,
      channel: { name: 'memory' },
      methods: {},
      reduce: (state = 0) => state,
    })
    node.close()
    return Response.json({ code: 'none', message: 'it works' })
  } catch ({ code, message }) {
    return Response.json({ code, message })
  }
}
