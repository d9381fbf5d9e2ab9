// Tests of the channels by themselves, without nodes: what they ask of the transport below, and what they pass on. The
// transports are made up, so that a test decides when a connection opens, breaks and comes back.
import assert from 'node:assert/strict'
import path from 'node:path'
import { afterEach, describe, it } from 'node:test'
import { pathToFileURL } from 'node:url'
import { packageDir } from './support.mjs'

const address = pathToFileURL(path.join(packageDir, 'channels.js')).href
const { CHANNELS } = await import(address)

const names = ['setTimeout', 'clearTimeout', 'setImmediate', 'BroadcastChannel', 'MessageChannel', 'WebSocket', 'io']
const real = Object.fromEntries(names.filter((name) => name in globalThis).map((name) => [name, globalThis[name]]))
const { random } = Math
afterEach(() => {
  Math.random = random
  for (const name of names) {
    if (name in real) globalThis[name] = real[name]
    else delete globalThis[name]
  }
})

const turn = () => new Promise((resolve) => real.setImmediate(resolve))
const frame = (...numbers) => Uint8Array.from(numbers)

/** Connects a channel, and keeps what arrives and how often it says that `connected` may have changed. */
const connect = (channel, id, room = 'room') => {
  const own = { channel, received: [], changes: 0 }
  channel.connect(id, (data) => own.received.push([...data]), () => own.changes++, room)
  return own
}

/** Keeps what a channel reports. */
const reporter = () => {
  const reports = []
  return { reports, report: (code, message) => reports.push([code, message]) }
}

describe('memory', () => {
  const join = (id, room) => connect(CHANNELS.memory(), id, room)

  it('carries frames to one node or to all others of the room, in a later turn', async () => {
    const [a, b, c] = ['a', 'b', 'c'].map((id) => join(id, 'one'))
    const elsewhere = join('b', 'other')
    a.channel.send('b', frame(1))
    a.channel.broadcast(frame(2))
    a.channel.send('a', frame(3))
    assert.deepEqual(b.received, [])
    await turn()
    b.channel.broadcast(frame(4))
    await turn()
    assert.deepEqual([a, b, c, elsewhere].map(({ received }) => received), [[[4]], [[1], [2]], [[2], [4]], []])
    for (const { channel } of [a, b, c, elsewhere]) channel.disconnect()
  })

  it('carries nothing to a node that has left, not even what was under way, and the others stay together', async () => {
    const [a, b] = ['a', 'b'].map((id) => join(id, 'left'))
    a.channel.send('b', frame(1))
    b.channel.disconnect()
    await turn()
    assert.deepEqual(b.received, [])
    const c = join('c', 'left')
    a.channel.broadcast(frame(2))
    c.channel.broadcast(frame(3))
    await turn()
    assert.deepEqual([a, b, c].map(({ received }) => received), [[[3]], [], [[2]]])
    for (const { channel } of [a, c]) channel.disconnect()
    const [d, e] = ['d', 'e'].map((id) => join(id, 'left'))
    d.channel.broadcast(frame(4))
    await turn()
    assert.deepEqual([c.received, e.received], [[[2]], [[4]]])
    for (const { channel } of [d, e]) channel.disconnect()
  })

  it('uses a MessageChannel where there is no setImmediate', async () => {
    const { CHANNELS: own } = await import(`${address}?browser`)
    let posted = 0
    globalThis.setImmediate = undefined
    globalThis.MessageChannel = class {
      port1 = {}
      port2 = {
        postMessage: () => {
          posted += 1
          real.setImmediate(() => this.port1.onmessage({}))
        },
      }
    }
    const [a, b] = ['a', 'b'].map((id) => connect(own.memory(), id))
    a.channel.send('b', frame(1))
    a.channel.send('b', frame(2))
    await turn()
    a.channel.send('b', frame(3))
    await turn()
    assert.deepEqual([b.received, posted], [[[1], [2], [3]], 2])
  })
})

describe('broadcast', () => {
  /** A BroadcastChannel that delivers at once, and keeps which are open. */
  const hub = () => {
    const open = []
    globalThis.BroadcastChannel = class {
      onmessage = null

      constructor(name) {
        this.name = name
        open.push(this)
      }

      postMessage(data) {
        for (const other of [...open]) if (other !== this && other.name === this.name) other.onmessage?.({ data })
      }

      close() {
        // One that is closed twice was kept after it was closed.
        assert.ok(open.includes(this), `${this.name} is closed once`)
        open.splice(open.indexOf(this), 1)
      }
    }
    return { open, names: () => open.map(({ name }) => name).sort() }
  }

  it('carries frames to one node, or to everyone in the room', () => {
    const { names } = hub()
    const [a, b, c] = ['a', 'b', 'c'].map((id) => connect(CHANNELS.broadcast(), id))
    const elsewhere = connect(CHANNELS.broadcast(), 'b', 'other')
    a.channel.send('b', frame(1))
    a.channel.broadcast(frame(2))
    assert.deepEqual([a, b, c, elsewhere].map(({ received }) => received), [[], [[1], [2]], [[2]], []])
    for (const { channel } of [a, b, c, elsewhere]) channel.disconnect()
    assert.deepEqual(names(), [])
  })

  it('receives for further nodes as long as it listens for them', () => {
    const { names } = hub()
    const a = connect(CHANNELS.broadcast(), undefined)
    assert.deepEqual(names(), ['conflux:room'])
    const b = connect(CHANNELS.broadcast(), 'b')
    b.channel.send('x', frame(1))
    // The tab had sent to the node before it took it over: it must not keep a channel for that.
    a.channel.send('x', frame(2))
    a.channel.listen('x')
    assert.deepEqual(names(), ['conflux:room', 'conflux:room', 'conflux:room:b', 'conflux:room:x', 'conflux:room:x'])
    b.channel.send('x', frame(3))
    assert.deepEqual(a.received, [[3]])
    a.channel.unlisten('x')
    a.channel.unlisten('nobody')
    b.channel.send('x', frame(4))
    assert.deepEqual(a.received, [[3]])
    a.channel.listen('x')
    b.channel.send('x', frame(5))
    assert.deepEqual(a.received, [[3], [5]])
    // It sends to the node again once it has given it away.
    a.channel.unlisten('x')
    const c = connect(CHANNELS.broadcast(), 'x')
    a.channel.send('x', frame(6))
    assert.deepEqual(c.received, [[6]])
    for (const { channel } of [a, b, c]) channel.disconnect()
    assert.deepEqual(names(), [])
  })

  it('opens one channel for each node to which it sends', () => {
    const { names } = hub()
    const a = connect(CHANNELS.broadcast(), 'a')
    for (let time = 0; time < 3; time++) a.channel.send('b', frame(time))
    assert.deepEqual(names(), ['conflux:room', 'conflux:room:a', 'conflux:room:b'])
    a.channel.disconnect()
  })

  it('keeps the channels of the 64 nodes to which it has sent last', () => {
    const { names } = hub()
    const a = connect(CHANNELS.broadcast(), 'a')
    for (let to = 0; to < 64; to++) a.channel.send(`n${to}`, frame(1))
    assert.equal(names().length, 66)
    a.channel.send('n0', frame(1))
    a.channel.send('n64', frame(1))
    assert.equal(names().length, 66)
    assert.ok(names().includes('conflux:room:n0') && !names().includes('conflux:room:n1'))
    a.channel.disconnect()
  })

  it('has only its own nodes’ channels open while the page may be frozen, and sends nothing', () => {
    const { names } = hub()
    const [a, b] = ['a', 'b'].map((id) => connect(CHANNELS.broadcast(), id))
    a.channel.send('b', frame(1))
    a.channel.pause()
    a.channel.pause()
    assert.deepEqual(names(), ['conflux:room', 'conflux:room:a', 'conflux:room:b'])
    a.channel.send('b', frame(2))
    a.channel.broadcast(frame(3))
    b.channel.broadcast(frame(4))
    assert.deepEqual([a.received, b.received], [[], [[1]]])
    a.channel.resume()
    a.channel.resume()
    assert.equal(names().filter((name) => name === 'conflux:room').length, 2)
    a.channel.send('b', frame(5))
    a.channel.broadcast(frame(6))
    b.channel.broadcast(frame(7))
    assert.deepEqual([a.received, b.received], [[[7]], [[1], [5], [6]]])
    for (const { channel } of [a, b]) channel.disconnect()
  })

  it('passes on nothing that arrives after it was closed', () => {
    const { open } = hub()
    const a = connect(CHANNELS.broadcast(), 'a')
    const [everyone, own] = [...open]
    a.channel.disconnect()
    // Browsers may deliver what was under way.
    for (const one of [everyone, own]) one.onmessage?.({ data: frame(1) })
    assert.deepEqual(a.received, [])
  })

  it('passes what is not bytes on as an empty frame, and bytes however they come', () => {
    hub()
    const a = connect(CHANNELS.broadcast(), 'a')
    const other = new BroadcastChannel('conflux:room:a')
    for (const data of ['text', { a: 1 }, null, 9, frame(1, 2).buffer, frame(3)]) other.postMessage(data)
    assert.deepEqual(a.received, [[], [], [], [], [1, 2], [3]])
    a.channel.disconnect()
  })

  it('throws where there is none', () => {
    globalThis.BroadcastChannel = undefined
    assert.throws(() => connect(CHANNELS.broadcast(), 'a'), { code: 'UNSUPPORTED', message: /needs BroadcastChannel/ })
  })
})

describe('websocket', () => {
  /** Makes the class of sockets that the test opens and closes, and timers that it fires. */
  const network = () => {
    const sockets = []
    const timers = []
    let refuses = 0
    globalThis.setTimeout = (callback, ms) => timers.push({ callback, ms })
    globalThis.clearTimeout = (id) => {
      if (id !== undefined) timers[id - 1].isCleared = true
    }
    Math.random = () => 1
    class WebSocket {
      readyState = 0
      bufferedAmount = 0
      sent = []

      constructor(address) {
        if (refuses-- > 0) throw new SyntaxError('no address')
        this.address = address
        sockets.push(this)
      }

      send(data) {
        this.sent.push([...data])
      }

      close() {
        this.isClosed = true
        this.readyState = 2
      }

      open() {
        this.readyState = 1
        this.onopen()
      }

      fall(code = 1006, reason = '') {
        this.readyState = 3
        this.onerror({})
        this.onclose({ code, reason })
      }
    }
    const refuse = (times) => {
      refuses = times
    }
    return { WebSocket, sockets, timers, refuse }
  }

  const start = (more = {}) => {
    const net = network()
    const { reports, report } = reporter()
    const own = connect(CHANNELS.websocket({ url: 'ws://relay/ws', WebSocket: net.WebSocket, ...more }, {}, report), 'me & you', 'a room')
    return { ...net, own, reports, channel: own.channel }
  }

  it('asks the relay for its room under its id, also if the address has a query already', () => {
    assert.equal(start().sockets[0].address, 'ws://relay/ws?room=a%20room&id=me%20%26%20you')
    const { sockets } = start({ url: 'ws://relay/ws?key=1' })
    assert.equal(sockets[0].address, 'ws://relay/ws?key=1&room=a%20room&id=me%20%26%20you')
    assert.equal(sockets[0].binaryType, 'arraybuffer')
  })

  it('uses the class of the platform if none is given, and throws if there is none', () => {
    const net = network()
    globalThis.WebSocket = net.WebSocket
    connect(CHANNELS.websocket({ url: 'ws://relay/ws' }, {}, () => {}), 'a')
    assert.equal(net.sockets.length, 1)
    globalThis.WebSocket = undefined
    const make = () => connect(CHANNELS.websocket({ url: 'ws://relay/ws' }, {}, () => {}), 'a')
    assert.throws(make, { code: 'UNSUPPORTED', message: /channel\.WebSocket/ })
  })

  it('puts frames into envelopes while it is open, and drops them while it is not or is too slow', () => {
    const { sockets: [socket], channel, own } = start()
    channel.send('b', frame(1))
    assert.equal(channel.connected, false)
    socket.open()
    assert.deepEqual([channel.connected, own.changes], [true, 1])
    channel.send('bé', frame(7, 8))
    channel.broadcast(frame(9))
    socket.bufferedAmount = (8 << 20) - 1
    channel.send('c', frame(2))
    socket.bufferedAmount = 8 << 20
    channel.send('c', frame(3))
    socket.bufferedAmount = undefined
    channel.send('d', frame(4))
    assert.deepEqual(socket.sent, [[3, 98, 195, 169, 7, 8], [0, 9], [1, 99, 2], [1, 100, 4]])
  })

  it('passes on what arrives, until it is disconnected', () => {
    const { sockets: [socket], channel, own } = start()
    socket.open()
    socket.onmessage({ data: frame(1, 2).buffer })
    socket.onmessage({ data: 'text' })
    channel.disconnect()
    socket.onmessage({ data: frame(3).buffer })
    assert.deepEqual(own.received, [[1, 2], []])
    assert.ok(socket.isClosed)
  })

  it('connects again after growing pauses, which begin anew once it was connected', () => {
    const { sockets, timers, own, reports } = start()
    for (const ms of [100, 200, 400]) {
      sockets.at(-1).fall()
      assert.equal(timers.at(-1).ms, ms)
      timers.at(-1).callback()
    }
    assert.equal(own.changes, 0, 'it was never connected')
    sockets.at(-1).open()
    assert.equal(own.changes, 1)
    sockets.at(-1).fall()
    assert.deepEqual([own.changes, timers.at(-1).ms, own.channel.connected], [2, 100, false])
    timers.at(-1).callback()
    sockets.at(-1).fall()
    assert.deepEqual([own.changes, timers.at(-1).ms], [2, 200])
    assert.deepEqual([reports, sockets.length, timers.length], [[], 5, 5])
  })

  it('throws at the first attempt if the address is wrong, and takes a later failure for a relay that is down', () => {
    const net = network()
    net.refuse(1)
    const make = () => connect(CHANNELS.websocket({ url: 'nonsense', WebSocket: net.WebSocket }, {}, () => {}), 'a')
    assert.throws(make, { name: 'SyntaxError' })
    assert.equal(net.timers.length, 0)
    const { sockets, timers, refuse, reports } = start()
    sockets[0].fall()
    refuse(1)
    timers.at(-1).callback()
    assert.deepEqual([timers.map(({ ms }) => ms), sockets.length, reports], [[100, 200], 1, []])
  })

  it('reports why the relay has closed a connection, and nothing about one that broke', () => {
    const { sockets, timers, reports } = start()
    for (const code of [1000, 1006, 1007, 1008, 1009, 1010, 3999, 4000, 4400]) {
      sockets.at(-1).fall(code, `why ${code}`)
      timers.at(-1).callback()
    }
    assert.deepEqual(reports, [1008, 1009, 4000, 4400].map((code) => ['RELAY', `the relay closed the connection: why ${code} (${code})`]))
  })

  it('waits for the longest time if another connection has taken its place', () => {
    const { sockets, timers } = start()
    sockets[0].open()
    sockets[0].fall(4409, 'replaced')
    assert.equal(timers.at(-1).ms, 5000)
    timers.at(-1).callback()
    sockets[1].open()
    sockets[1].fall()
    assert.equal(timers.at(-1).ms, 100)
  })

  it('does not connect again once it is disconnected', () => {
    const { sockets, timers, channel, own } = start()
    sockets[0].open()
    channel.disconnect()
    sockets[0].fall(4000, 'the end')
    assert.deepEqual([timers.length, own.changes], [0, 1])
    const waiting = start()
    waiting.sockets[0].fall()
    waiting.channel.disconnect()
    assert.ok(waiting.timers[0].isCleared)
  })
})

/** Something with listeners, as the clients of Redis and socket.io are. */
class Emitter {
  listeners = []

  on(name, listener) {
    this.listeners.push([name, listener])
  }

  once(name, listener) {
    const entry = [name, (...args) => {
      this.listeners.splice(this.listeners.indexOf(entry), 1)
      listener(...args)
    }]
    this.listeners.push(entry)
  }

  say(name, ...args) {
    const those = this.listeners.filter(([other]) => other === name)
    if (name === 'error' && those.length === 0) throw args[0]
    for (const [, listener] of those) listener(...args)
  }
}

describe('redis', () => {
  class Client extends Emitter {
    isReady = false
    published = []
    subscribed = []

    constructor(options) {
      super()
      this.options = options
    }

    connect() {
      this.isConnecting = true
      return Promise.reject(new Error('not yet'))
    }

    publish(to, data) {
      this.published.push([to, [...data]])
      return Promise.reject(new Error('gone'))
    }

    subscribe(...what) {
      this.subscribed.push(what)
      return Promise.reject(new Error('gone'))
    }

    destroy() {
      if (!this.isReady) throw new Error('the client is closed')
      this.isDestroyed = true
    }

    ready() {
      this.isReady = true
      this.say('ready')
    }

    fall(error) {
      this.isReady = false
      this.say('error', error)
    }
  }

  const start = (connectionString) => {
    const clients = []
    const createClient = (options) => clients[clients.push(new Client(options)) - 1]
    const { reports, report } = reporter()
    const channel = CHANNELS.redis({ connectionString }, { require: (name) => name === 'redis' && { createClient } }, report)
    const own = connect(channel, 'me')
    const [publisher, subscriber] = clients
    return { own, channel, clients, publisher, subscriber, reports }
  }

  it('connects two clients without a queue, which try again after at most a second', () => {
    const { clients } = start('redis://somewhere:1')
    assert.equal(clients.length, 2)
    for (const { options, isConnecting } of clients) {
      const { url, disableOfflineQueue, socket: { reconnectStrategy } } = options
      assert.ok(isConnecting)
      assert.deepEqual([url, disableOfflineQueue], ['redis://somewhere:1', true])
      assert.deepEqual([0, 1, 3, 20].map(reconnectStrategy), [20, 40, 160, 1000])
    }
  })

  it('is connected while both clients are, and says whenever that may have changed', () => {
    const { own, channel, publisher, subscriber } = start()
    assert.equal(channel.connected, false)
    publisher.ready()
    assert.deepEqual([channel.connected, own.changes], [false, 1])
    subscriber.ready()
    assert.deepEqual([channel.connected, own.changes], [true, 2])
    publisher.fall(new Error('broken'))
    assert.deepEqual([channel.connected, own.changes], [false, 3])
  })

  it('publishes frames for one node or for everyone while it can, and passes on what it has subscribed to', () => {
    const { own, channel, publisher, subscriber } = start()
    channel.send('b', frame(1))
    publisher.ready()
    channel.send('b', frame(2))
    channel.broadcast(frame(3))
    assert.deepEqual(publisher.published, [['conflux:room:b', [2]], ['conflux:room', [3]]])
    assert.equal(publisher.subscribed.length, 0)
    subscriber.ready()
    assert.deepEqual(subscriber.subscribed.map(([name, , isBinary]) => [name, isBinary]), [['conflux:room', true], ['conflux:room:me', true]])
    for (const [, receive] of subscriber.subscribed) receive(Buffer.from([4]))
    assert.deepEqual(own.received, [[4], [4]])
    // The client itself subscribes again after a lost connection.
    subscriber.fall(new Error('broken'))
    subscriber.ready()
    assert.equal(subscriber.subscribed.length, 2)
  })

  it('reports once per outage that the server cannot be reached', () => {
    const { publisher, subscriber, reports } = start()
    publisher.fall(Object.assign(new Error('long words'), { code: 'ECONNREFUSED' }))
    subscriber.fall(new Error('again'))
    assert.equal(reports.length, 1)
    const [[code, message]] = reports
    assert.equal(code, 'REDIS')
    assert.equal(message, 'the Redis server at redis://localhost:6379 cannot be reached (ECONNREFUSED); frames are lost until it can, and it is tried again and again')
    publisher.ready()
    subscriber.fall(new Error('the outage goes on'))
    assert.equal(reports.length, 1)
    subscriber.ready()
    subscriber.fall(new Error('another outage'))
    assert.match(reports[1][1], /\(another outage\)/)
    publisher.ready()
    subscriber.ready()
    subscriber.fall('words')
    assert.match(reports[2][1], /\(words\)/)
    assert.match(start('redis://somewhere:1').reports.join(), /^$/)
    const named = start('redis://somewhere:1')
    named.publisher.fall(new Error('x'))
    assert.match(named.reports[0][1], /^the Redis server at redis:\/\/somewhere:1 cannot/)
  })

  it('destroys both clients when it is disconnected, and reports nothing more', () => {
    const { channel, publisher, subscriber, reports } = start()
    subscriber.ready()
    channel.disconnect()
    assert.deepEqual([publisher.isDestroyed, subscriber.isDestroyed], [undefined, true])
    publisher.fall(new Error('closed'))
    assert.deepEqual(reports, [])
  })

  it('refuses a client that is too old, and ends it', () => {
    const old = new Emitter()
    old.end = (how) => {
      old.ended = how
    }
    const make = () => CHANNELS.redis({}, { require: () => ({ createClient: () => old }) }, () => {})
    assert.throws(make, { code: 'MISSING_PEER', message: /needs the npm package redis 5 or newer/ })
    assert.equal(old.ended, false)
    // It has connected by itself, and must not bring the process down if it cannot.
    old.say('error', new Error('no server'))
  })
})

describe('socket.io', () => {
  const start = () => {
    const made = []
    const io = (...how) => {
      const socket = Object.assign(new Emitter(), {
        connected: false,
        emitted: [],
        how,
        emit: (...what) => socket.emitted.push(what),
        disconnect: () => (socket.isClosed = true),
      })
      made.push(socket)
      return socket
    }
    const { reports, report } = reporter()
    const channel = CHANNELS['socket.io']({ host: 'http://host', io }, {}, report)
    assert.deepEqual([channel.connected, made.length], [false, 0])
    channel.send('b', frame(1))
    channel.disconnect()
    const own = connect(channel, 'me')
    return { io, own, channel, socket: made[0], reports }
  }

  it('joins its room whenever it is connected, and passes frames both ways', () => {
    const { own, channel, socket } = start()
    const [host, options] = socket.how
    assert.deepEqual([host, options.forceNew, options.transports], ['http://host', true, ['websocket']])
    channel.send('b', frame(1))
    assert.deepEqual([channel.connected, socket.emitted], [false, []])
    socket.connected = true
    socket.say('connect')
    assert.deepEqual([channel.connected, own.changes, socket.emitted.splice(0)], [true, 1, [['conflux:join', 'room', 'me']]])
    channel.send('b', frame(2))
    channel.broadcast(frame(3))
    assert.deepEqual(socket.emitted.map(([name, to, data]) => [name, to, [...data]]), [['conflux:frame', 'b', [2]], ['conflux:frame', null, [3]]])
    socket.say('conflux:frame', Buffer.from([4]))
    assert.deepEqual(own.received, [[4]])
    socket.connected = false
    socket.say('disconnect')
    assert.equal(own.changes, 2)
    channel.disconnect()
    assert.ok(socket.isClosed)
  })

  it('reports once per outage that the server cannot be reached', () => {
    const { own, socket, reports } = start()
    socket.say('connect_error', Object.assign(new Error('websocket error'), { description: { message: 'refused' } }))
    socket.say('connect_error', new Error('again'))
    assert.equal(own.changes, 2)
    assert.deepEqual(reports.map(([code]) => code), ['SOCKET_IO'])
    assert.match(reports[0][1], /^the socket.io server at http:\/\/host cannot be reached \(refused\)/)
    socket.say('connect')
    socket.say('connect_error', new Error('another outage'))
    assert.match(reports[1][1], /\(another outage\)/)
  })

  it('takes the `io` of the page, or that of the npm package, or says what is missing', () => {
    const made = []
    globalThis.io = (host) => made.push(`page ${host}`) && new Emitter()
    const make = (platform) => connect(CHANNELS['socket.io']({ host: 'h' }, platform, () => {}), 'me')
    const node = { require: (name) => ({ io: () => made.push(name) && new Emitter() }) }
    make(node)
    delete globalThis.io
    make(node)
    assert.deepEqual(made, ['page h', 'socket.io-client'])
    const missing = {
      require() {
        throw new Error('not found')
      },
    }
    assert.throws(() => make(missing), { code: 'MISSING_PEER', message: /npm install socket\.io-client$/ })
    assert.throws(() => make({}), { code: 'MISSING_PEER', message: /npm install socket\.io-client, and pass its `io` as `channel\.io`$/ })
  })
})

describe('custom', () => {
  it('passes everything on, and reports what throws or is rejected as a lost frame', async () => {
    const calls = []
    let fails
    const fail = (name) => {
      if (fails === 'throws') throw new Error(`no ${name}`)
      return fails === 'rejects' ? Promise.reject(`no ${name}`) : fails
    }
    const user = Object.fromEntries(['connect', 'disconnect', 'send', 'broadcast'].map((name) => [name, (...args) => {
      calls.push([name, args])
      return fail(name)
    }]))
    user.connected = 'perhaps'
    const { reports, report } = reporter()
    const own = connect(CHANNELS.custom(user, {}, report), 'me')
    const [[, [id, receive, changed]]] = calls.splice(0)
    receive(frame(1).buffer)
    changed()
    assert.deepEqual([id, own.received, own.changes, own.channel.connected], ['me', [[1]], 1, 'perhaps'])
    for (fails of [undefined, null, {}, Promise.resolve()]) own.channel.send('b', frame(2))
    await turn()
    assert.deepEqual(reports, [])
    assert.deepEqual(calls.map(([name, args]) => [name, args[0]]), Array(4).fill(['send', 'b']))
    fails = 'throws'
    own.channel.broadcast(frame(3))
    assert.deepEqual(reports, [], 'not while the core runs')
    await turn()
    fails = 'rejects'
    own.channel.disconnect()
    await turn()
    assert.deepEqual(reports, [
      ['CHANNEL_FAILED', "the channel's `broadcast` threw, which counts as a lost frame: no broadcast"],
      ['CHANNEL_FAILED', "the channel's `disconnect` failed, which counts as a lost frame: no disconnect"],
    ])
  })
})
