// Tests of the channels `redis` and `socket.io`, with real servers. The original documents them in its library, gaggle.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import http from 'node:http'
import { createRequire } from 'node:module'
import path from 'node:path'
import { after, before, describe, it } from 'node:test'
import { pathToFileURL } from 'node:url'
import { startRedis } from './servers.mjs'
import { closeAll, freePort, imported as conflux, leaderOf, methods, packageDir, reduce, until } from './support.mjs'

const require = createRequire(path.join(packageDir, 'package.json'))
const { enhanceServerForSocketIOChannel } = require('conflux-wasm/socket.io')

/** Starts an HTTP server with socket.io, through which nodes reach each other. Returns a function that stops it. */
const startSocketIo = async (port) => {
  const server = http.createServer((request, response) => response.end())
  const close = enhanceServerForSocketIOChannel(server)
  server.listen(port, '127.0.0.1')
  await once(server, 'listening')
  return close
}

const kinds = {
  redis: {
    start: startRedis,
    channel: (port, name) => ({ name: 'redis', channelName: name, connectionString: `redis://127.0.0.1:${port}` }),
    down: 'REDIS',
  },
  'socket.io': {
    start: startSocketIo,
    channel: (port, name) => ({ name: 'socket.io', host: `http://127.0.0.1:${port}`, channel: name }),
    down: 'SOCKET_IO',
  },
}

for (const [kind, { start, channel, down }] of Object.entries(kinds)) {
  describe(`the channel ${kind}`, () => {
    let port, stop
    before(async () => {
      port = await freePort()
      stop = await start(port)
    })
    after(() => stop())

    const cluster = (name, more = {}) =>
      ['a', 'b', 'c'].map((id) =>
        conflux({ id, clusterSize: 3, channel: channel(port, name), methods, reduce, ...more }),
      )

    it('carries a cluster, and keeps channels apart', async () => {
      const [one, other] = [cluster('one'), cluster('other')]
      await Promise.all([one, other].map(async (nodes, nth) => {
        await Promise.all(nodes.map((node) => node.perform('append', [`${nth}-${node.status().id}`])))
        await Promise.all(nodes.map((node) => node.read()))
        for (const node of nodes) {
          assert.equal(node.getState().length, 3)
          assert.ok(node.getState().every((value) => value.startsWith(`${nth}-`)), 'nothing of the other channel')
          assert.deepEqual(node.getState(), nodes[0].getState())
          assert.equal(node.status().counters.foreignFrames, 0)
          assert.ok(node.status().connected)
        }
      }))
      // An action that is too large for one message arrives, too.
      await one[1].perform('append', ['x'.repeat(700_000)])
      await closeAll([...one, ...other])
    })

    it('loses nothing that was acknowledged when its server is killed and restarted, under load', async () => {
      const nodes = cluster('restart', { electionTimeout: { min: 300, max: 500 } })
      await Promise.all(nodes.map((node) => node.perform('append', [`first-${node.status().id}`])))
      const known = ['first-a', 'first-b', 'first-c']
      let running = true
      let next = 0
      const load = nodes.map(async (node) => {
        while (running) {
          const value = `${node.status().id}-${next++}`
          await node.perform('append', [value])
          known.push(value)
        }
      })
      const more = (count) => until(nodes, () => known.length >= count, `${count} performs`)
      await more(100)
      const errors = nodes.map((node) => new Promise((resolve) => node.on('error', resolve)))
      await stop()
      for (const error of await Promise.all(errors)) {
        assert.equal(error.code, down)
        assert.match(error.message, /cannot be reached .* tried again/)
      }
      assert.ok(nodes.every((node) => !node.status().connected))
      stop = await start(port)
      await more(known.length + 100)
      running = false
      await Promise.all(load)
      await Promise.all(nodes.map((node) => node.read()))
      const counts = new Map()
      for (const value of nodes[0].getState()) counts.set(value, (counts.get(value) ?? 0) + 1)
      for (const value of known) assert.equal(counts.get(value), 1, `${value} is there once`)
      for (const node of nodes) assert.deepEqual(node.getState(), nodes[0].getState())
      await closeAll(nodes)
    })

    it('connects to a server that starts later', async () => {
      const late = await freePort()
      const nodes = ['a', 'b', 'c'].map((id) =>
        conflux({ id, clusterSize: 3, channel: channel(late, 'late'), methods, reduce }),
      )
      const error = await new Promise((resolve) => nodes[0].on('error', resolve))
      assert.equal(error.code, down)
      const stop = await start(late)
      await nodes[0].perform('append', ['x'])
      await leaderOf(nodes)
      await closeAll(nodes)
      await stop()
    })
  })
}

describe('connecting again', () => {
  it('waits for a random time, which grows with each attempt up to five seconds', async () => {
    const { backoff } = await import(pathToFileURL(path.join(packageDir, 'channels.js')).href)
    assert.deepEqual([backoff(0, 0), backoff(0, 1), backoff(3, 0), backoff(3, 1)], [50, 100, 400, 800])
    assert.deepEqual([backoff(99, 0), backoff(Infinity, 1)], [2500, 5000])
    const pauses = new Set(Array.from({ length: 20 }, () => backoff(5)))
    assert.ok(pauses.size > 1 && [...pauses].every((pause) => pause >= 1600 && pause <= 3200))
  })
})

describe('wrong options of a channel', () => {
  const make = (channel) => () => conflux({ id: 'a', clusterSize: 1, channel, methods, reduce })

  it('are named in the error', () => {
    assert.throws(make({ name: 'socket.io', channel: 'x' }), /`channel.host` is required/)
    assert.throws(make({ name: 'socket.io', host: 'localhost', channel: 'x' }), /must begin with http:\/\/ or https:\/\//)
    assert.throws(make({ name: 'socket.io', host: 'http://127.0.0.1:1' }), /`channel.channel` is required/)
    assert.throws(make({ name: 'redis', channelName: 7 }), /`channel.channelName` must be a name that is not empty, and is 7/)
  })
})

describe('a socket.io server', () => {
  it('disconnects clients that send malformed events', async () => {
    const port = await freePort()
    const stop = await startSocketIo(port)
    const { io } = require('socket.io-client')
    for (const words of [
      [['conflux:frame', null, Buffer.from('x')]],
      [['conflux:join', 7, 'a']],
      [['conflux:join', 'x', 'a'], ['conflux:join', 'y', 'a']],
      [['conflux:join', 'x', 'a'], ['conflux:frame', 'b', 'no bytes']],
      [['conflux:join', 'x', 'a'], ['conflux:frame', {}, Buffer.from('x')]],
    ]) {
      const socket = io(`http://127.0.0.1:${port}`, { forceNew: true, reconnection: false, transports: ['websocket'] })
      const gone = once(socket, 'disconnect')
      await once(socket, 'connect')
      for (const word of words) socket.emit(...word)
      await gone
    }
    await stop()
  })
  it('takes names of up to 256 bytes and frames of up to a mebibyte, and passes them on within a channel', async () => {
    const port = await freePort()
    const stop = await startSocketIo(port)
    const { io } = require('socket.io-client')
    const connect = async () => {
      const socket = io(`http://127.0.0.1:${port}`, { forceNew: true, reconnection: false, transports: ['websocket'] })
      await once(socket, 'connect')
      return socket
    }
    const join = async (channel, id) => {
      const socket = await connect()
      socket.emit('conflux:join', channel, id)
      return socket
    }
    const long = 'é'.repeat(128)
    const a = await join(long, 'a')
    // Each of the others says that it is there: the server has then done what it was asked before.
    const greet = async (socket) => {
      const heard = once(a, 'conflux:frame')
      socket.emit('conflux:frame', null, Buffer.alloc(1))
      await heard
      return socket
    }
    const [b, c] = [await greet(await join(long, long)), await greet(await join(long, 'c'))]
    const other = await join('other', 'a')
    const lengths = [b, c, other].map((socket) => {
      const list = []
      socket.on('conflux:frame', (frame) => list.push(frame.length))
      return list
    })
    const last = (socket) => new Promise((resolve) => socket.on('conflux:frame', (frame) => frame.length === 3 && resolve()))
    const all = [last(b), last(c)]
    a.emit('conflux:frame', long, Buffer.alloc(1 << 20))
    a.emit('conflux:frame', null, Buffer.alloc(3))
    await Promise.all(all)
    assert.deepEqual(lengths, [[1 << 20, 3], [3], []])
    for (const words of [
      [['conflux:join', `${long}x`, 'a']],
      [['conflux:join', 'x', '']],
      [['conflux:join', '', 'x']],
      [['conflux:join', 'x', 'a'], ['conflux:frame', '', Buffer.from('x')]],
      [['conflux:join', 'x', 'a'], ['conflux:frame', null, Buffer.alloc((1 << 20) + 1)]],
    ]) {
      const socket = await connect()
      const gone = once(socket, 'disconnect')
      for (const word of words) socket.emit(...word)
      await gone
    }
    await stop()
  })
})
