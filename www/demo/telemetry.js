// Shows the other nodes in the panel: every tab sends its node's status to the other tabs, on a separate channel. So
// the panel still shows a node that is paused or cut off from the cluster.

/** How often a tab reports, in ms. */
const REPORT_INTERVAL = 400
/** After this time without a report a node is shown as closed, in ms. */
const DOWN_AFTER = 2_500
/** The delay between a change and its report, in ms, so that many changes make one report. */
const PAUSE = 100

/** @param {(nodes: Map<string, object>) => void} onChange */
export const telemetry = (node, { kind, room, relay }, onChange) => {
  const nodes = new Map()
  const receive = (report) => {
    if (typeof report?.id !== 'string') return
    nodes.set(report.id, { ...report, heard: performance.now() })
    onChange(nodes)
  }
  let post
  if (kind === 'broadcast') {
    const channel = new BroadcastChannel(`conflux-demo-telemetry:${room}`)
    channel.onmessage = ({ data }) => receive(data)
    post = (report) => channel.postMessage(report)
  } else {
    post = throughRelay(node.status().id, room, relay, receive)
  }
  const report = () => {
    const { id, role, phase, term, leaderId, commitIndex, lastIndex, paused, isolated } = node.status()
    const mine = { id, role, phase, term, leaderId, commitIndex, lastIndex, paused, isolated }
    mine.snapshotIndex = node.status().snapshotIndex
    mine.hidden = document.hidden
    // In an elastic cluster the node has no id until it is found or created.
    if (id) {
      post(mine)
      receive(mine)
    }
    for (const [other, { heard }] of nodes) {
      if (performance.now() - heard > DOWN_AFTER) nodes.get(other).gone = true
    }
  }
  let timer
  const reportSoon = () => {
    timer ??= setTimeout(() => {
      timer = undefined
      report()
    }, PAUSE)
  }
  setInterval(report, REPORT_INTERVAL)
  node.on('status', reportSoon)
  node.subscribe(reportSoon)
  addEventListener('pagehide', () => {
    const { id, term } = node.status()
    post({ id, term, role: 'follower', phase: 'closed', commitIndex: 0, lastIndex: 0, gone: true })
  })
  report()
}

/** Sends reports through a separate room of the same relay. The envelope is the byte 0: to everyone. */
const throughRelay = (id, room, relay, receive) => {
  const encoder = new TextEncoder()
  const decoder = new TextDecoder()
  let socket
  const connect = () => {
    const query = new URLSearchParams({ room: `${room} (telemetry)`, id })
    socket = new WebSocket(`${relay}?${query}`)
    socket.binaryType = 'arraybuffer'
    socket.onmessage = ({ data }) => {
      try {
        receive(JSON.parse(decoder.decode(data)))
      } catch {
        // Not a report: ignore it.
      }
    }
    socket.onclose = () => setTimeout(connect, 1_000)
  }
  connect()
  return (report) => {
    if (socket.readyState !== WebSocket.OPEN) return
    socket.send(Uint8Array.from([0, ...encoder.encode(JSON.stringify(report))]))
  }
}
