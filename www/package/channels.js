// How frames travel, by the name of the channel. A channel may lose, repeat, delay and reorder frames. Each
// is an object:
//
// - `connect(id, receive, changed, room)`: from now on `receive(frame)` is called with what comes for the node
//   `id` or for everyone in `room`, and `changed()` when `connected` may have changed
// - `disconnect()`, `send(id, frame)`, `broadcast(frame)`
// - `connected`: whether frames can travel now
// - `listen(id)`, `unlisten(id)`, `pause()`, `resume()`: for tabs, which run several nodes and may stand still

import { fail } from './words.js'

/** A package that a channel needs, which people install if they use the channel. */
const peer = (platform, channel, name, hint = '') => {
  try {
    return platform.require(name)
  } catch {
    throw fail('MISSING_PEER', `the channel \`${channel}\` needs the npm package ${name}: npm install ${name}${hint}`)
  }
}

/** Says once that a server is not there, and once more after it was. */
const outage = (tell, code, where) => {
  let told = false
  return {
    begins(error) {
      if (told) return
      told = true
      const why = error?.code ?? error?.message ?? error
      tell(code, `${where} cannot be reached (${why}); frames are lost until it can, and it is tried again and again`)
    },
    ends() {
      told = false
    },
  }
}

/** What arrived, as bytes; what is none becomes no bytes: the reader says what is wrong, and counts it. */
const bytes = (data) => {
  if (data instanceof Uint8Array) return data
  return new Uint8Array(data instanceof ArrayBuffer ? data : 0)
}

/** The nodes of this process, by the room in which they are. */
const rooms = new Map()
/** What arrives at the next turn of the event loop. */
let arriving = []
let next

const deliver = () => {
  const now = arriving
  arriving = []
  for (const [node, frame] of now) node.receive?.(frame)
}

/** Calls `deliver` at the next turn, soon: `setTimeout(0)` would take 4 ms in a browser. */
const turn = () => {
  if (typeof setImmediate === 'function') return () => setImmediate(deliver)
  const { port1, port2 } = new MessageChannel()
  port1.onmessage = deliver
  return () => port2.postMessage(0)
}

/** Between nodes of one JavaScript process, for Node.js, tests and pages with several nodes. */
const memory = () => {
  const node = {}
  let room
  const carry = (frame, isFor) => {
    for (const other of room) {
      if (other === node || !isFor(other)) continue
      if (arriving.push([other, frame]) === 1) (next ??= turn())()
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

/** Between tabs of one browser: a BroadcastChannel for everyone, and one for each node, so that no tab reads
 * the others' mail. */
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
      for (const peer of peers.values()) peer.close()
    },
    send(to, frame) {
      // While it is paused the frame is lost like any other.
      if (!everyone) return
      if (!peers.has(to)) peers.set(to, new BroadcastChannel(`${name}:${to}`))
      peers.get(to).postMessage(frame)
    },
    broadcast: (frame) => everyone?.postMessage(frame),
    listen(id) {
      own.set(id, open(`${name}:${id}`))
      // What is open for sending to a node would be given what is sent to it, too.
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
    },
    resume() {
      everyone ??= open(name)
    },
  }
  return channel
}

/** The relay's close code for "another connection with your id took your place". */
const REPLACED = 4409
/** A socket with more than this many bytes unsent is too slow: frames are lost rather than queued. */
const MAX_BUFFERED = 8 << 20

/**
 * The pause before connecting for the `attempt`-th time (from 0 on), in ms: exponential, up to five seconds, and
 * between half of it and all of it at random, so that the tabs of a relay that restarts do not all come back at once.
 */
export const backoff = (attempt, random = Math.random()) =>
  Math.min(100 * 2 ** attempt, 5000) * (0.5 + random / 2)

/** A frame in the relay's envelope: the length of the receiver's id (0 for everyone), the id, and the frame. */
const seal = (to, frame) => {
  const id = new TextEncoder().encode(to)
  const envelope = new Uint8Array(1 + id.length + frame.length)
  envelope[0] = id.length
  envelope.set(id, 1)
  envelope.set(frame, 1 + id.length)
  return envelope
}

/** Through a relay, across browsers and machines. Connects again by itself. */
const websocket = ({ url, WebSocket: own }, platform, tell) => {
  const WebSocket = own ?? globalThis.WebSocket
  let socket
  let wasOpen = false
  let closed = false
  let attempt = 0
  let retry
  const isOpen = () => socket?.readyState === 1
  const send = (to, frame) => {
    // A class of the user's own may not count.
    if (isOpen() && !(socket.bufferedAmount >= MAX_BUFFERED)) socket.send(seal(to, frame))
  }
  return {
    get connected() {
      return isOpen()
    },
    connect(id, receive, changed, room) {
      // Node.js 20 has no WebSocket of its own, so the user may bring one.
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
        // 4000 and above, and policy violations, are the relay's own words.
        if (code >= 4000 || code === 1008 || code === 1009) {
          tell('RELAY', `the relay closed the connection: ${reason} (${code})`)
        }
        // The other one may be gone soon; meanwhile the two must not throw each other out all the time.
        if (code === REPLACED) attempt = Infinity
        retry = setTimeout(open, backoff(attempt++))
      }
      const open = () => {
        try {
          socket = new WebSocket(address)
        } catch (error) {
          // A wrong address is told at once; later it is tried again like a relay that is away.
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
        // A close always follows; without a listener, Node.js would take the error for uncaught.
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

const redis = ({ connectionString: url }, platform, tell) => {
  const { createClient } = peer(platform, 'redis', 'redis')
  const down = outage(tell, 'REDIS', `the Redis server at ${url ?? 'redis://localhost:6379'}`)
  // What cannot be sent now is not worth sending later; the name of each node is a channel of its own.
  const client = () => createClient({ url, disableOfflineQueue: true, socket: { reconnectStrategy: (tries) => Math.min(20 * 2 ** tries, 1000) } })
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
      // The client subscribes again by itself when its connection comes back.
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
          // It was never connected, or is not any more.
        }
      }
    },
    send: (to, frame) => publish(`${all}:${to}`, frame),
    broadcast: (frame) => publish(all, frame),
  }
}

const socketIo = ({ host, io }, platform, tell) => {
  const connect = io ?? globalThis.io ?? peer(platform, 'socket.io', 'socket.io-client', platform.require ? '' : ', and pass its `io` as `channel.io`').io
  const down = outage(tell, 'SOCKET_IO', `the socket.io server at ${host}`)
  let socket
  const emit = (to, frame) => {
    // What cannot be sent now is not worth sending later.
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

/** The user's own object, some of whose functions may be asynchronous, and may fail. */
const custom = (own, platform, tell) => {
  const failed = (name, how, error) =>
    tell('CHANNEL_FAILED', `the channel's \`${name}\` ${how}, which counts as a lost frame: ${error?.message ?? error}`)
  const call = (name, ...args) => {
    const result = own[name](...args)
    if (typeof result?.then === 'function') result.then(undefined, (error) => failed(name, 'failed', error))
  }
  const guard = (name) => (...args) => {
    try {
      call(name, ...args)
    } catch (error) {
      // Not from within the core, which is calling.
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

/** What makes a channel: from its options, a platform, and a function that tells of errors. */
export const CHANNELS = { memory, broadcast, websocket, redis, 'socket.io': socketIo, custom }
