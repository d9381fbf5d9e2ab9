// The transports that carry frames between nodes, by channel name. A channel may lose, repeat, delay and reorder
// frames. Each is an object:
//
// - `connect(id, receive, changed, room)`: starts. From then on the channel calls `receive(frame)` with each frame that
//   is addressed to the node `id` or to everyone in `room`, and `changed()` when `connected` may have changed
// - `disconnect()`, `send(id, frame)`, `broadcast(frame)`
// - `connected`: whether frames can travel now
// - `listen(id)`, `unlisten(id)`: also receive, or no longer receive, frames for another node. A tab may run several
// - `pause()`, `resume()`: called before a page may be frozen, and afterwards

import { fail } from './errors.js'

/** Loads an optional npm package that a channel needs; throws `MISSING_PEER` if it is not installed. */
const requirePeer = (platform, channel, name, hint = '') => {
  try {
    return platform.require(name)
  } catch {
    throw fail('MISSING_PEER', `the channel \`${channel}\` needs the npm package ${name}: npm install ${name}${hint}`)
  }
}

/** Reports once per outage that a server cannot be reached. `ends` marks the end of an outage. */
const outage = (report, code, where) => {
  let reported = false
  return {
    begins(error) {
      if (reported) return
      reported = true
      const why = error?.code ?? error?.message ?? error
      report(code, `${where} cannot be reached (${why}); frames are lost until it can, and it is tried again and again`)
    },
    ends() {
      reported = false
    },
  }
}

/** Converts what arrived to bytes. Anything else becomes an empty frame, which the core rejects and counts. */
const bytes = (data) => {
  if (data instanceof Uint8Array) return data
  return new Uint8Array(data instanceof ArrayBuffer ? data : 0)
}

/** The nodes of this process, by room. */
const rooms = new Map()
/** The frames to deliver in the next turn of the event loop. */
let inFlight = []
let schedule

const deliver = () => {
  const now = inFlight
  inFlight = []
  for (const [node, frame] of now) node.receive?.(frame)
}

/** Returns a function that schedules `deliver` for the next turn. In a browser `setTimeout(0)` may take 4 ms. */
const makeScheduler = () => {
  if (typeof setImmediate === 'function') return () => setImmediate(deliver)
  const { port1, port2 } = new MessageChannel()
  port1.onmessage = deliver
  return () => port2.postMessage(0)
}

/** Connects the nodes of one JavaScript process: in Node.js, in tests, and in pages with several nodes. */
const memory = () => {
  const node = {}
  let room
  const carry = (frame, isFor) => {
    for (const other of room) {
      if (other === node || !isFor(other)) continue
      if (inFlight.push([other, frame]) === 1) (schedule ??= makeScheduler())()
    }
  }
  return {
    connect(id, receive, changed, name) {
      if (!rooms.has(name)) rooms.set(name, new Set())
      room = rooms.get(name).add(Object.assign(node, { id, receive }))
      node.leave = () => room.delete(node) && room.size === 0 && rooms.delete(name)
    },
    disconnect() {
      node.receive = undefined
      node.leave()
    },
    send: (to, frame) => carry(frame, (other) => other.id === to),
    broadcast: (frame) => carry(frame, () => true),
  }
}

/** How many other nodes a tab keeps a BroadcastChannel open for. Nodes come and go, and their ids never come back. */
const MAX_PEERS = 64

/** Connects the tabs of one browser: a BroadcastChannel for everyone, and one for each node, so that a tab does not
 * receive the frames that are addressed to other tabs. */
const broadcast = () => {
  let name
  let everyone
  let receive
  const own = new Map()
  const peers = new Map()
  const open = (name) => {
    const channel = new BroadcastChannel(name)
    channel.onmessage = ({ data }) => receive(bytes(data))
    return channel
  }
  const close = (channel) => {
    channel.onmessage = null
    channel.close()
  }
  const channel = {
    connect(id, sink, changed, room) {
      if (typeof BroadcastChannel !== 'function') {
        throw fail('UNSUPPORTED', 'the channel `broadcast` needs BroadcastChannel, which is not there')
      }
      receive = sink
      name = `conflux:${room}`
      channel.resume()
      if (id) channel.listen(id)
    },
    disconnect() {
      channel.pause()
      for (const id of own.keys()) channel.unlisten(id)
    },
    send(to, frame) {
      // The channel is paused: the frame is lost.
      if (!everyone) return
      const peer = peers.get(to) ?? new BroadcastChannel(`${name}:${to}`)
      // The map is in the order of use, so the first one is the one that was unused for longest.
      peers.delete(to)
      peers.set(to, peer)
      peer.postMessage(frame)
      if (peers.size > MAX_PEERS) {
        const [[oldest, unused]] = peers
        peers.delete(oldest)
        unused.close()
      }
    },
    broadcast: (frame) => everyone?.postMessage(frame),
    listen(id) {
      own.set(id, open(`${name}:${id}`))
      // A BroadcastChannel that was opened for sending to this node would receive the node's frames as well.
      peers.get(id)?.close()
      peers.delete(id)
    },
    unlisten(id) {
      if (own.has(id)) close(own.get(id))
      own.delete(id)
    },
    pause() {
      if (everyone) close(everyone)
      everyone = undefined
      // What is opened for sending receives, too.
      for (const peer of peers.values()) peer.close()
      peers.clear()
    },
    resume() {
      everyone ??= open(name)
    },
  }
  return channel
}

/** The relay's close code for a connection that was replaced by another one with the same id. */
const REPLACED = 4409
/** With more than this many unsent bytes a socket is too slow: further frames are dropped instead of queued. */
const MAX_BUFFERED = 8 << 20

/**
 * The pause before connection attempt `attempt` (counted from 0), in ms. It doubles with each attempt, up to five
 * seconds, and a random part of up to half is taken off, so that after a restart of the relay not all tabs connect at
 * the same moment.
 */
export const backoff = (attempt, random = Math.random()) =>
  Math.min(100 * 2 ** attempt, 5000) * (0.5 + random / 2)

/** Puts a frame into the relay's envelope: one byte for the length of the receiver's id (0 for everyone), the id, and
 * the frame. */
const seal = (to, frame) => {
  const id = new TextEncoder().encode(to)
  const envelope = new Uint8Array(1 + id.length + frame.length)
  envelope[0] = id.length
  envelope.set(id, 1)
  envelope.set(frame, 1 + id.length)
  return envelope
}

/** Connects nodes through a relay, across browsers and machines. Reconnects by itself. */
const websocket = ({ url, WebSocket: own }, platform, report) => {
  const WebSocket = own ?? globalThis.WebSocket
  let socket
  let wasOpen = false
  let closed = false
  let attempt = 0
  let retry
  const isOpen = () => socket?.readyState === 1
  const send = (to, frame) => {
    // A user's own class may lack `bufferedAmount`.
    if (isOpen() && !(socket.bufferedAmount >= MAX_BUFFERED)) socket.send(seal(to, frame))
  }
  return {
    get connected() {
      return isOpen()
    },
    connect(id, receive, changed, room) {
      // Node.js 20 has no global WebSocket, so the user may pass a class.
      if (typeof WebSocket !== 'function') {
        const message = 'the channel `websocket` needs WebSocket, which is not there: pass one, such as that of the npm package ws, as `channel.WebSocket`'
        throw fail('UNSUPPORTED', message)
      }
      const query = `room=${encodeURIComponent(room)}&id=${encodeURIComponent(id)}`
      const address = `${url}${url.includes('?') ? '&' : '?'}${query}`
      const again = (code, reason) => {
        if (closed) return
        if (wasOpen) changed()
        wasOpen = false
        // With one of these codes the relay itself closed the connection, and the reason says why.
        if (code >= 4000 || code === 1008 || code === 1009) {
          report('RELAY', `the relay closed the connection: ${reason} (${code})`)
        }
        // The other connection may end soon. Until then wait the longest time between attempts, or the two connections
        // would keep replacing each other.
        if (code === REPLACED) attempt = Infinity
        retry = setTimeout(open, backoff(attempt++))
      }
      const open = () => {
        try {
          socket = new WebSocket(address)
        } catch (error) {
          // On the first attempt the address is invalid, so throw. Later the failure counts as a relay that is down.
          if (!retry) throw error
          return again(0, '')
        }
        socket.binaryType = 'arraybuffer'
        socket.onopen = () => {
          attempt = 0
          wasOpen = true
          changed()
        }
        socket.onmessage = ({ data }) => {
          if (!closed) receive(bytes(data))
        }
        socket.onclose = ({ code, reason }) => again(code, reason)
        // A `close` event always follows. Without this listener Node.js would report an uncaught error.
        socket.onerror = () => {}
      }
      open()
    },
    disconnect() {
      closed = true
      clearTimeout(retry)
      socket.close()
    },
    send,
    broadcast: (frame) => send('', frame),
  }
}

const redis = ({ connectionString: url }, platform, report) => {
  const { createClient } = requirePeer(platform, 'redis', 'redis')
  const down = outage(report, 'REDIS', `the Redis server at ${url ?? 'redis://localhost:6379'}`)
  // No offline queue: frames that cannot be sent now would be useless later.
  const client = () => {
    const made = createClient({ url, disableOfflineQueue: true, socket: { reconnectStrategy: (tries) => Math.min(20 * 2 ** tries, 1000) } })
    if (typeof made.connect === 'function') return made
    // Versions before 4 connect by themselves. The npm package conflux 1.1.8 brings version 2 along.
    made.on('error', () => {})
    made.end(false)
    throw fail('MISSING_PEER', 'the channel `redis` needs the npm package redis 5 or newer, and an older one is installed: npm install redis@latest')
  }
  const [publisher, subscriber] = [client(), client()]
  const isReady = () => publisher.isReady && subscriber.isReady
  const publish = (to, frame) => {
    if (publisher.isReady) publisher.publish(to, Buffer.from(frame)).catch(() => {})
  }
  let all
  let closed
  return {
    get connected() {
      return isReady()
    },
    connect(id, receive, changed, room) {
      all = `conflux:${room}`
      for (const one of [publisher, subscriber]) {
        one.on('error', (error) => {
          if (!closed) down.begins(error)
          changed()
        })
        one.on('ready', () => {
          if (isReady()) down.ends()
          changed()
        })
        one.connect().catch(() => {})
      }
      // Everyone's frames arrive on one Redis channel, those for this node on another. After a lost connection the
      // client subscribes again by itself.
      subscriber.once('ready', () => {
        for (const name of [all, `${all}:${id}`]) {
          subscriber.subscribe(name, (frame) => receive(bytes(frame)), true).catch(() => {})
        }
      })
    },
    disconnect() {
      closed = true
      for (const one of [publisher, subscriber]) {
        try {
          one.destroy()
        } catch {
          // The client was never connected, or is no longer connected.
        }
      }
    },
    send: (to, frame) => publish(`${all}:${to}`, frame),
    broadcast: (frame) => publish(all, frame),
  }
}

const socketIo = ({ host, io }, platform, report) => {
  const connect = io ?? globalThis.io ?? requirePeer(platform, 'socket.io', 'socket.io-client', platform.require ? '' : ', and pass its `io` as `channel.io`').io
  const down = outage(report, 'SOCKET_IO', `the socket.io server at ${host}`)
  let socket
  const emit = (to, frame) => {
    // socket.io would queue the frame until it is connected, and frames that cannot be sent now would be useless later.
    if (socket?.connected) socket.emit('conflux:frame', to, frame)
  }
  return {
    get connected() {
      return socket?.connected ?? false
    },
    connect(id, receive, changed, room) {
      socket = connect(host, { forceNew: true, reconnectionDelay: 50, reconnectionDelayMax: 1000, transports: ['websocket'] })
      socket.on('connect', () => {
        socket.emit('conflux:join', room, id)
        down.ends()
        changed()
      })
      socket.on('disconnect', changed)
      socket.on('connect_error', (error) => {
        down.begins(error.description?.message ?? error)
        changed()
      })
      socket.on('conflux:frame', (frame) => receive(bytes(frame)))
    },
    disconnect: () => socket?.disconnect(),
    send: (to, frame) => emit(to, frame),
    broadcast: (frame) => emit(null, frame),
  }
}

/** Wraps the user's own channel, whose functions may be asynchronous and may fail. */
const custom = (own, platform, report) => {
  const failed = (name, how, error) =>
    report('CHANNEL_FAILED', `the channel's \`${name}\` ${how}, which counts as a lost frame: ${error?.message ?? error}`)
  const call = (name, ...args) => {
    const result = own[name](...args)
    if (typeof result?.then === 'function') result.then(undefined, (error) => failed(name, 'failed', error))
  }
  const guard = (name) => (...args) => {
    try {
      call(name, ...args)
    } catch (error) {
      // Reported later, because the core is still running here and must not be called back.
      queueMicrotask(() => failed(name, 'threw', error))
    }
  }
  return {
    connect: (id, receive, changed) => call('connect', id, (frame) => receive(bytes(frame)), changed),
    disconnect: guard('disconnect'),
    send: guard('send'),
    broadcast: guard('broadcast'),
    get connected() {
      return own.connected
    },
  }
}

/** By channel name, the function that makes a channel from its options, the platform, and `report(code, message)`. */
export const CHANNELS = { memory, broadcast, websocket, redis, 'socket.io': socketIo, custom }
