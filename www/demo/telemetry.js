// How the panel knows of the other nodes: every tab tells the others, beside the cluster and not
// through it, where its node stands. So a node that is cut off or paused can still be seen.

const EVERY = 400
const GONE = 2_500
/** At the most so often, however much happens. */
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
  const tell = () => {
    const { id, role, phase, term, leaderId, commitIndex, lastIndex, paused, isolated } = node.status()
    const report = { id, role, phase, term, leaderId, commitIndex, lastIndex, paused, isolated }
    report.snapshotIndex = node.status().snapshotIndex
    report.hidden = document.hidden
    // A node that outlives its tab has no id before it is found or made.
    if (id) {
      post(report)
      receive(report)
    }
    for (const [other, { heard }] of nodes) {
      if (performance.now() - heard > GONE) nodes.get(other).gone = true
    }
  }
  let timer
  const tellSoon = () => {
    timer ??= setTimeout(() => {
      timer = undefined
      tell()
    }, PAUSE)
  }
  setInterval(tell, EVERY)
  node.on('status', tellSoon)
  node.subscribe(tellSoon)
  addEventListener('pagehide', () => {
    const { id, term } = node.status()
    post({ id, term, role: 'follower', phase: 'closed', commitIndex: 0, lastIndex: 0, gone: true })
  })
  tell()
}

/** A room of its own on the same relay. The envelope is one byte: to everyone. */
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
        // Somebody else's words; the panel does without.
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
