// Tests of fixed clusters in Node.js: forming, faults and bad input, on several channels.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import path from 'node:path'
import { after, before, describe, it } from 'node:test'
import { pathToFileURL } from 'node:url'
import { WebSocket } from 'ws'
import { closeAll, cluster, imported as conflux, leaderOf, methods, packageDir, reduce, startRelay, until } from './support.mjs'

/** A custom channel between nodes of this process. `spy` is called with every frame that is sent. */
class Hub {
  nodes = new Map()
  constructor(spy = () => {}) {
    this.spy = spy
  }
  channel() {
    const { nodes, spy } = this
    const later = (receive, frame) => setImmediate(() => receive(frame))
    let own
    return {
      name: 'custom',
      connect(id, receive) {
        own = id
        nodes.set(id, receive)
      },
      disconnect() {
        nodes.delete(own)
      },
      send(to, frame) {
        spy(own, to, frame)
        if (nodes.has(to)) later(nodes.get(to), frame)
      },
      broadcast(frame) {
        spy(own, null, frame)
        for (const [id, receive] of nodes) if (id !== own) later(receive, frame)
      },
    }
  }
}

const node = (id, clusterSize, channel, more = {}) =>
  conflux({ id, clusterSize, channel, methods, reduce, ...more })

/** Performs on every node, and checks that all nodes end in the same state. */
const works = async (nodes) => {
  const mark = `works-${Math.random()}`
  await Promise.all(nodes.map((node, i) => node.perform('append', [`${mark}-${i}`])))
  await Promise.all(nodes.map((node) => node.read()))
  for (const other of nodes) {
    assert.equal(other.getState().filter((x) => String(x).startsWith(mark)).length, nodes.length)
    assert.deepEqual(other.getState(), nodes[0].getState())
  }
}

describe('forming', () => {
  it('works for clusters of one to seven', async () => {
    for (const size of [1, 2, 3, 4, 5, 7]) {
      const nodes = cluster(conflux, size)
      await works(nodes)
      await closeAll(nodes)
    }
  })

  it('keeps performs until the cluster is complete', async () => {
    const channel = { name: 'memory', channel: 'late' }
    const first = node('a', 3, channel)
    const early = first.perform('append', ['early'])
    const second = node('b', 3, channel)
    await until([first, second], () => first.status().present === 2 && second.status().present === 2)
    assert.equal(first.status().phase, 'forming')
    const third = node('c', 3, channel)
    assert.equal(await early, 'early')
    await closeAll([first, second, third])
  })

  it('refuses one node too many, with a code and a clear message', async () => {
    const nodes = cluster(conflux, 3)
    await leaderOf(nodes)
    const channel = { name: 'memory', channel: `full-${Math.random()}` }
    await closeAll(nodes)
    const three = ['a', 'b', 'c'].map((id) => node(id, 3, channel))
    await leaderOf(three)
    const fourth = node('d', 3, channel)
    const error = await new Promise((resolve) => fourth.on('error', resolve))
    assert.equal(error.code, 'CLUSTER_FULL')
    assert.match(error.message, /has its 3 members \(a, b, c\)/)
    await assert.rejects(fourth.perform('append', ['x']), { code: 'CLUSTER_FULL' })
    assert.equal(fourth.status().phase, 'refused')
    await works(three)
    await closeAll([...three, fourth])
  })

  it('takes in a member again that has lost its memory, and refuses a second node with the same id', async () => {
    const channel = { name: 'memory', channel: 'anew' }
    const three = ['a', 'b', 'c'].map((id) => node(id, 3, channel))
    await works(three)
    const second = node('b', 3, channel)
    const error = await new Promise((resolve) => second.on('error', resolve))
    assert.equal(error.code, 'DUPLICATE_ID')
    await assert.rejects(second.perform('append', ['x']), { code: 'DUPLICATE_ID' })
    await second.close()
    await three[1].close()
    three[1] = node('b', 3, channel)
    await three[1].perform('append', ['again'])
    await works(three)
    await until(three, () => three.every((one) => one.status().learners.length === 0), 'three voters')
    await closeAll(three)
  })

  it('reports AMNESIA on a node without memory when no majority can take it in', async () => {
    const hub = new Hub()
    const two = ['a', 'b'].map((id) => node(id, 2, hub.channel()))
    await works(two)
    two[1].simulate({ isolated: true })
    await until(two, () => two[0].status().leaderId === null, 'a misses b')
    const again = node('b', 2, hub.channel())
    const error = await new Promise((resolve) => again.on('error', resolve))
    assert.equal(error.code, 'AMNESIA')
    assert.match(error.message, /it waits for one/)
    await closeAll([...two, again])
  })

  it('forms with named members, and tells other nodes that they are not members', async () => {
    const channel = { name: 'memory', channel: 'named' }
    const members = ['x', 'y', 'z']
    const make = (id, own = members) => conflux({ id, members: own, channel, methods, reduce })
    const stranger = make('s', ['s', 'y', 'z'])
    const nodes = members.map((id) => make(id))
    const error = await new Promise((resolve) => stranger.on('error', resolve))
    assert.equal(error.code, 'NOT_A_MEMBER')
    await works(nodes)
    assert.deepEqual(nodes[0].status().members, members)
    await closeAll([...nodes, stranger])
  })

  it('tells nodes that they expect different sizes', async () => {
    const channel = { name: 'memory', channel: 'sizes' }
    const [a, b] = [node('a', 2, channel), node('b', 3, channel)]
    const codes = await Promise.all([a, b].map((n) => new Promise((resolve) => n.on('error', resolve))))
    assert.deepEqual(codes.map((e) => e.code), ['SIZE_MISMATCH', 'SIZE_MISMATCH'])
    assert.match(codes[0].message, /node `b` has clusterSize 3 and this one 2/)
    await closeAll([a, b])
  })
})

describe('channels that misbehave', () => {
  it('a node ignores its own frames when a channel returns them', async () => {
    const hub = new Hub()
    const echoing = () => {
      const channel = hub.channel()
      const { broadcast } = channel
      channel.broadcast = (frame) => {
        broadcast(frame)
        for (const receive of hub.nodes.values()) setImmediate(() => receive(frame))
      }
      return channel
    }
    const errors = []
    const nodes = ['a', 'b', 'c'].map((id) => node(id, 3, echoing()))
    for (const n of nodes) n.on('error', (error) => errors.push(error.code))
    await works(nodes)
    assert.deepEqual(errors, [])
    await closeAll(nodes)
  })

  it('a rejection of an asynchronous channel counts as a lost frame', async () => {
    const hub = new Hub()
    const channel = hub.channel()
    let failures = 3
    const { send } = channel
    channel.send = async (to, frame) => {
      if (failures-- > 0) throw new Error('no line')
      send(to, frame)
    }
    const nodes = [node('a', 2, channel), node('b', 2, hub.channel())]
    const error = new Promise((resolve) => nodes[0].on('error', resolve))
    await works(nodes)
    assert.match((await error).message, /`send` failed.*no line/)
    await closeAll(nodes)
  })
})

describe('faults', () => {
  it('a majority works on without a node that is cut off, and the node catches up later', async () => {
    const nodes = cluster(conflux, 3)
    const leader = await leaderOf(nodes)
    leader.simulate({ isolated: true })
    const others = nodes.filter((n) => n !== leader)
    const mine = leader.perform('append', ['from the old leader'])
    await others[0].perform('append', ['meanwhile'])
    leader.simulate({ isolated: false })
    assert.equal(await mine, 'from the old leader')
    await works(nodes)
    assert.equal(nodes[0].getState().filter((x) => x === 'from the old leader').length, 1)
    await closeAll(nodes)
  })

  it('a commit listener gets one commit for a snapshot that replaces many actions', async () => {
    const nodes = cluster(conflux, 3)
    const [one, two, away] = nodes
    await one.perform('append', ['before'])
    away.simulate({ isolated: true })
    const seen = []
    away.on('commit', (commit) => seen.push(commit))
    // More bytes than a log keeps, so that the logs are compacted.
    const large = 'x'.repeat(600_000)
    for (const n of [1, 2, 3, 4]) await two.perform('append', [`${n}${large}`])
    away.simulate({ isolated: false })
    await away.read()
    const [first, ...rest] = seen
    assert.deepEqual([first.nodeId, 'action' in first], [null, false])
    assert.ok(rest.every(({ nodeId, index }) => nodeId === 'n2' && index > first.index))
    assert.ok(rest.length < 4, 'some came in the snapshot')
    assert.deepEqual(away.getState().map((value) => value[0]), ['b', '1', '2', '3', '4'])
    await closeAll(nodes)
  })

  it('a node that is paused and resumed catches up', async () => {
    const nodes = cluster(conflux, 3)
    const leader = await leaderOf(nodes)
    leader.simulate({ paused: true })
    const others = nodes.filter((n) => n !== leader)
    await others[0].perform('append', ['meanwhile'])
    leader.simulate({ paused: false })
    await works(nodes)
    await closeAll(nodes)
  })
})

describe('broadcast', () => {
  it('keeps a bounded number of BroadcastChannels open, however many nodes come and go', async () => {
    const { CHANNELS } = await import(pathToFileURL(path.join(packageDir, 'channels.js')))
    const Real = globalThis.BroadcastChannel
    const open = new Set()
    globalThis.BroadcastChannel = class extends Real {
      constructor(name) {
        super(name)
        open.add(name)
      }
      close() {
        open.delete(this.name)
        super.close()
      }
    }
    try {
      const channel = CHANNELS.broadcast()
      channel.connect('me', () => {}, () => {}, 'many')
      const last = new Real('conflux:many:node-999')
      const received = once(last, 'message')
      for (let node = 0; node < 1_000; node++) channel.send(`node-${node}`, new Uint8Array([7]))
      assert.ok(open.size > 2 && open.size <= 66, `${open.size} are open`)
      // The frame to the last one was not lost, and one to a node whose channel was closed is not either.
      assert.deepEqual([...(await received)[0].data], [7])
      const first = new Real('conflux:many:node-0')
      const again = once(first, 'message')
      channel.send('node-0', new Uint8Array([8]))
      assert.deepEqual([...(await again)[0].data], [8])
      channel.disconnect()
      assert.equal(open.size, 0)
      for (const one of [first, last]) one.close()
    } finally {
      globalThis.BroadcastChannel = Real
    }
  })

  it('carries a cluster between BroadcastChannels of this process', async () => {
    const nodes = ['a', 'b', 'c'].map((id) => node(id, 3, { name: 'broadcast', channel: 'test' }))
    await works(nodes)
    await closeAll(nodes)
  })
})

describe('websocket', () => {
  let relay
  before(async () => {
    relay = await startRelay()
  })
  after(() => relay.stop())
  const channel = (room) => ({ name: 'websocket', url: `ws://${relay.address}/ws`, room, WebSocket })

  it('carries clusters through the relay, and keeps rooms apart', async () => {
    const one = ['a', 'b', 'c'].map((id) => node(id, 3, channel('one')))
    const two = ['a', 'b', 'c'].map((id) => node(id, 3, channel('two')))
    await Promise.all([works(one), works(two)])
    assert.equal(one[0].getState().length, 3)
    await closeAll([...one, ...two])
  })

  it('accepts a WebSocket class without bufferedAmount, and throws without a class', async () => {
    class Plain extends WebSocket {
      get bufferedAmount() {
        return undefined
      }
    }
    const nodes = ['a', 'b', 'c'].map((id) => node(id, 3, { ...channel('plain'), WebSocket: Plain }))
    await works(nodes)
    await closeAll(nodes)
    if (typeof globalThis.WebSocket === 'function') return
    assert.throws(() => node('a', 1, { ...channel('none'), WebSocket: null }), { code: 'UNSUPPORTED' })
  })

  it('reconnects when the relay restarts, and nothing acknowledged is lost', async () => {
    const nodes = ['a', 'b', 'c'].map((id) => node(id, 3, channel('restart')))
    await works(nodes)
    const acknowledged = []
    let running = true
    const loads = nodes.map(async (n, i) => {
      for (let k = 0; running; k++) {
        acknowledged.push(await n.perform('append', [`${i}-${k}`]))
      }
    })
    await until(nodes, () => acknowledged.length > 30)
    const { port } = relay
    await relay.stop()
    const before = acknowledged.length
    relay = await startRelay({ port })
    await until(nodes, () => acknowledged.length > before + 30, 'performs after the restart')
    running = false
    await Promise.all(loads)
    await Promise.all(nodes.map((n) => n.read()))
    for (const n of nodes) {
      const state = n.getState()
      for (const value of acknowledged) assert.equal(state.filter((x) => x === value).length, 1, value)
    }
    await closeAll(nodes)
  })

  it('reconnects after another connection took its place for a while', async () => {
    const nodes = ['a', 'b', 'c'].map((id) => node(id, 3, channel('replaced')))
    const errors = []
    nodes[1].on('error', (error) => errors.push(error))
    await works(nodes)
    const other = new WebSocket(`ws://${relay.address}/ws?room=replaced&id=b`)
    await until(nodes, () => !nodes[1].status().connected, 'being replaced')
    other.close()
    await until(nodes, () => nodes[1].status().connected, 'coming back')
    assert.match(errors[0].message, /another connection with this id took its place \(4409\)/)
    await works(nodes)
    await closeAll(nodes)
  })

  it('status() shows whether the relay is connected', async () => {
    const alone = node('alone', 1, channel('status'))
    await until([alone], () => alone.status().connected, 'the connection')
    const { port } = relay
    await relay.stop()
    await until([alone], () => !alone.status().connected, 'the loss of the connection')
    relay = await startRelay({ port })
    await until([alone], () => alone.status().connected, 'the connection')
    await alone.close()
  })

  it('throws if there is no WebSocket class', { skip: typeof globalThis.WebSocket === 'function' && 'this Node.js has one' }, () => {
    const { WebSocket: _, ...bare } = channel('none')
    assert.throws(() => node('a', 1, bare), { code: 'UNSUPPORTED', message: /channel.WebSocket/ })
  })

  it('keeps trying to connect to an address where nobody listens, until close()', async () => {
    const lonely = node('a', 1, { name: 'websocket', url: 'ws://127.0.0.1:9/ws', room: 'r', WebSocket })
    assert.equal(await lonely.perform('append', ['alone']), 'alone')
    assert.equal(lonely.status().connected, false)
    await lonely.close()
  })
})

describe('bad input', () => {
  // Frames that other programs may send on a channel. Nodes only count and report them: a perform afterwards still
  // commits on every node.
  const junk = (good) => {
    const random = Uint8Array.from({ length: 500 }, (_, i) => (i * 7919) % 251)
    const of = (change) => {
      const copy = Uint8Array.from(good)
      change(copy)
      return copy
    }
    const frames = [
      new Uint8Array(0),
      random,
      new TextEncoder().encode('GET / HTTP/1.1\r\n\r\n'),
      of((f) => (f[3] = 99)), // another version
      Uint8Array.from([...good.slice(0, 4), ...Array(60).fill(0xff)]), // absurd lengths
      Uint8Array.from([...good, ...Array(40).fill(0x80)]),
      new Uint8Array((1 << 20) + 1),
    ]
    for (let end = 0; end < good.length; end += 3) frames.push(good.slice(0, end))
    // Each single bit of a good frame flipped, which the checksum must detect.
    for (let bit = 32; bit < good.length * 8; bit++) frames.push(of((f) => (f[bit >> 3] ^= 1 << (bit & 7))))
    return frames
  }

  it('malformed frames on a custom channel are counted and reported, and performs go on', async () => {
    const seen = []
    const hub = new Hub((_, to, frame) => seen.push([to, frame]))
    const nodes = ['a', 'b', 'c'].map((id) => node(id, 3, hub.channel()))
    const errors = []
    for (const n of nodes) n.on('error', (error) => errors.push(error))
    await works(nodes)
    const samples = ['a', 'b', 'c'].map((id) => seen.filter(([to]) => to === id).map(([, frame]) => frame))
    for (const [i, id] of ['a', 'b', 'c'].entries()) {
      // Frames of every kind: forming, elections, entries, performs, reads.
      for (const good of [samples[i][0], ...samples[i].slice(-12)]) {
        for (const frame of junk(good)) hub.nodes.get(id)(frame)
      }
      for (const odd of ['text', 7, null, undefined, {}, [1, 2]]) hub.nodes.get(id)(odd)
    }
    await works(nodes)
    const codes = new Set(errors.map((error) => error.code))
    assert.deepEqual([...codes].sort(), ['BAD_FRAME', 'VERSION'])
    for (const n of nodes) {
      const { counters, term } = n.status()
      assert.ok(counters.badFrames > 1000 && counters.foreignFrames === 0, JSON.stringify(counters))
      assert.ok(term < 2 ** 48)
    }
    assert.ok(errors.length < 30, 'each kind is told once, not each frame')
    await closeAll(nodes)
  })

  it('frames of another cluster on a memory channel are counted and reported, and performs go on', async () => {
    const channel = { name: 'memory', channel: 'shared' }
    const nodes = ['a', 'b'].map((id) => node(id, 2, channel, { cluster: 'ours' }))
    const errors = []
    nodes[0].on('error', (error) => errors.push(error.code))
    const stranger = node('x', 2, channel, { cluster: 'theirs' })
    await works(nodes)
    assert.deepEqual(errors, ['OTHER_CLUSTER'])
    assert.ok(nodes[0].status().counters.foreignFrames > 0)
    await closeAll([...nodes, stranger])
  })

  it('junk on a broadcast channel is reported, and performs go on', async () => {
    const nodes = ['a', 'b', 'c'].map((id) => node(id, 3, { name: 'broadcast', channel: 'bad' }))
    const errors = []
    nodes[1].on('error', (error) => errors.push(error.code))
    await works(nodes)
    const everyone = new BroadcastChannel('conflux:bad')
    const one = new BroadcastChannel('conflux:bad:b')
    for (const junk of [new Uint8Array(100), 'text', { a: 1 }, null, new Uint8Array([67, 102, 120, 9, 1])]) {
      everyone.postMessage(junk)
      one.postMessage(junk)
    }
    await until(nodes, () => errors.includes('VERSION'))
    everyone.close()
    one.close()
    await works(nodes)
    assert.ok(errors.includes('BAD_FRAME'))
    await closeAll(nodes)
  })

  it('junk through the relay is reported, and performs go on', async () => {
    const relay = await startRelay()
    const url = `ws://${relay.address}/ws`
    const nodes = ['a', 'b', 'c'].map((id) => node(id, 3, { name: 'websocket', url, room: 'r', WebSocket }))
    const errors = []
    nodes[0].on('error', (error) => errors.push(error.code))
    await works(nodes)
    const stranger = new WebSocket(`${url}?room=r&id=stranger`)
    await new Promise((resolve) => stranger.on('open', resolve))
    for (const junk of [[0, 1, 2, 3], [1, 97, 67, 102, 120, 9], [0, 67, 102, 120, 1, 255, 255]]) {
      stranger.send(Uint8Array.from(junk))
    }
    await until(nodes, () => errors.includes('BAD_FRAME') && errors.includes('VERSION'))
    const closed = new Promise((resolve) => stranger.on('close', (code, reason) => resolve([code, String(reason)])))
    stranger.send('text')
    const [code, reason] = await closed
    assert.equal(code, 4400)
    assert.match(reason, /text/)
    await works(nodes)
    await closeAll(nodes)
    await relay.stop()
  })

  it('a custom channel that throws loses frames, which is reported, and performs go on', async () => {
    const hub = new Hub()
    let broken = false
    const fragile = () => {
      const channel = hub.channel()
      const { send } = channel
      channel.send = (to, frame) => {
        if (broken) throw new Error('out of order')
        send(to, frame)
      }
      return channel
    }
    const nodes = ['a', 'b', 'c'].map((id) => node(id, 3, fragile()))
    const errors = []
    for (const n of nodes) n.on('error', (error) => errors.push(error))
    await works(nodes)
    broken = true
    const waits = nodes[0].perform('append', ['through it all'])
    await until(nodes, () => errors.length > 0)
    assert.equal(errors[0].code, 'CHANNEL_FAILED')
    assert.match(errors[0].message, /`send` threw.*out of order/)
    broken = false
    assert.equal(await waits, 'through it all')
    await works(nodes)
    await closeAll(nodes)
    assert.throws(() => node('x', 1, { ...hub.channel(), name: 'custom', connect() { throw new Error('no line') } }), /no line/)
  })
})
