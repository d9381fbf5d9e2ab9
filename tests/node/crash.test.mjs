// Tests of a core that crashes: a trap in the WebAssembly module, or anything else that escapes from a call into it. All
// nodes of the instance end with one error event each, nothing waits for ever, and the nodes of other instances go on.
import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { createRequire } from 'node:module'
import os from 'node:os'
import path from 'node:path'
import { describe, it } from 'node:test'
import { pathToFileURL } from 'node:url'
import { closeAll, leaderOf, methods, packageDir, reduce, until } from './support.mjs'

const require = createRequire(pathToFileURL(path.join(packageDir, 'package.json')))
const { createConflux } = await import(pathToFileURL(path.join(packageDir, 'shell.js')))
const { Files } = require(path.join(packageDir, 'files.cjs'))

/** A `conflux` with a WebAssembly instance of its own. The channels are those of all others. */
const instance = (platform = {}) => {
  const core = path.join(packageDir, 'conflux.cjs')
  delete require.cache[core]
  const { CoreNode } = require(core)
  const files = (options, core) => new Files(options, core)
  return createConflux(() => CoreNode, { missing: () => 'a browser', files, ...platform })
}

const clock = performance.now

/** From now on the core traps when it asks for the time, once: that import does not catch. */
const trap = () => {
  performance.now = () => {
    performance.now = clock
    throw new WebAssembly.RuntimeError('unreachable')
  }
}

/** A frame for which the core finds no memory, which is a real trap. */
class Huge extends Uint8Array {
  get length() {
    return 0xffff_fff0
  }
}

/** A channel of the user's own that leads nowhere, with what its node has given it and asked of it. */
const probe = () => {
  const own = { name: 'custom', sent: 0, disconnected: 0 }
  return Object.assign(own, {
    connect: (id, receive, changed) => Object.assign(own, { receive, changed }),
    disconnect: () => own.disconnected++,
    send: () => own.sent++,
    broadcast: () => own.sent++,
  })
}

let rooms = 0
const room = () => ({ name: 'memory', channel: `crash-${++rooms}` })
const alone = (channel, more) => ({ id: 'a', clusterSize: 1, channel, methods, reduce, ...more })

const errorsOf = (node) => {
  const errors = []
  node.on('error', ({ code }) => errors.push(code))
  return errors
}

const ends = async (...promises) =>
  (await Promise.allSettled(promises)).map(({ value, reason }) => reason?.code ?? value)

const turn = () => new Promise((resolve) => setTimeout(resolve, 20))

/** Checks what a node is like after a crash: what waited was rejected, what comes later is, too, and it closes. */
const checkEnd = async (node, errors, { state, waited = [] }) => {
  assert.deepEqual(await ends(...waited), waited.map(() => 'CRASHED'))
  assert.deepEqual(await ends(node.perform('append', ['later']), node.read()), ['CRASHED', 'CRASHED'])
  const asked = new Promise((resolve) => node.perform('append', ['later'], (error) => resolve(error.code)))
  assert.equal(await asked, 'CRASHED')
  await turn()
  assert.deepEqual(errors, ['CRASHED'])
  assert.deepEqual([node.getState(), node.getProvisionalState()], [state, state])
  const { phase, role, leaderId, connected } = node.status()
  assert.deepEqual({ phase, role, leaderId, connected }, { phase: 'refused', role: 'follower', leaderId: null, connected: false })
  node.subscribe(() => {})()
  node.on('commit', () => {})()
  node.simulate({ isolated: true })
  await node.close()
  await new Promise((resolve) => node.close(resolve))
  assert.equal(node.status().phase, 'closed')
  assert.deepEqual(node.getState(), state)
  assert.deepEqual(errors, ['CRASHED'])
}

describe('a core that crashes', () => {
  it('ends its node, if it traps while something is performed', async () => {
    const node = instance()(alone(room()))
    const errors = errorsOf(node)
    await node.perform('append', ['before'])
    trap()
    const waited = [node.perform('append', ['x']), node.perform('append', ['y']), node.read()]
    await checkEnd(node, errors, { state: ['before'], waited })
  })

  it('ends a node that waits for others, if it traps in a timer', async () => {
    const node = instance()({ ...alone(room()), clusterSize: 3 })
    const errors = errorsOf(node)
    const waited = [node.perform('append', ['x']), node.read()]
    await turn()
    trap()
    await checkEnd(node, errors, { state: [], waited })
  })

  it('ends its node, if it traps while it takes a frame', async () => {
    const channel = probe()
    const node = instance()(alone(channel))
    const errors = errorsOf(node)
    await node.perform('append', ['before'])
    const waited = [node.perform('append', ['x'])]
    channel.receive(new Huge(8))
    await checkEnd(node, errors, { state: ['before'], waited })
    assert.equal(channel.disconnected, 1)
    const { sent } = channel
    channel.receive(new Uint8Array(8))
    channel.changed()
    await turn()
    assert.equal(channel.sent, sent, 'nothing more is sent')
  })

  it('takes nothing over from user code in which it trapped', async () => {
    const channel = probe()
    const trapped = {
      ...methods,
      trap: (thing) => {
        channel.receive(new Huge(8))
        return thing
      },
    }
    const node = instance()(alone(channel, { methods: trapped }))
    const errors = errorsOf(node)
    let notified = 0
    await node.perform('append', ['before'])
    node.subscribe(() => notified++)
    node.on('commit', () => notified++)
    const { sent } = channel
    await checkEnd(node, errors, { state: ['before'], waited: [node.perform('trap', ['x']), node.read()] })
    assert.deepEqual([notified, channel.sent - sent, channel.disconnected], [0, 0, 1])
  })

  it('hangs nobody, if the stack is full when it is called', async () => {
    const node = instance()(alone(room()))
    const errors = errorsOf(node)
    await node.perform('append', ['before'])
    const waited = []
    const dive = () => {
      waited.push(node.read())
      node.getState()
      dive()
    }
    assert.throws(dive, RangeError)
    waited.push(node.perform('append', ['x']))
    const codes = new Set(await ends(...waited))
    await turn()
    // Where the stack ended decides whether the core was left in the middle of something.
    if (errors.length > 0) assert.deepEqual([[...codes], errors], [['CRASHED'], ['CRASHED']])
    else assert.deepEqual([...codes], [undefined, 'x'])
    await node.close()
  })

  it('ends all nodes of its instance, and no other can be made there', async () => {
    const conflux = instance()
    const channel = room()
    const [a, b] = ['a', 'b'].map((id) => conflux({ id, clusterSize: 2, channel, methods, reduce }))
    const errors = [errorsOf(a), errorsOf(b)]
    await a.perform('append', ['before'])
    await until([b], () => b.getState().length === 1)
    trap()
    const waited = [a.perform('append', ['x']), b.perform('append', ['y'])]
    assert.deepEqual(await ends(...waited), ['CRASHED', 'CRASHED'])
    await checkEnd(a, errors[0], { state: ['before'] })
    await checkEnd(b, errors[1], { state: ['before'] })
    assert.throws(() => conflux(alone(room())), { code: 'CRASHED', message: /reload the page, or start the process anew/ })
  })

  it('lets the nodes elsewhere take over', async () => {
    const channel = room()
    const nodes = ['a', 'b', 'c'].map((id) => instance()({ id, clusterSize: 3, channel, methods, reduce }))
    const errors = nodes.map(errorsOf)
    const leader = await leaderOf(nodes)
    const others = nodes.filter((node) => node !== leader)
    await others[0].perform('append', ['before'])
    await until([leader], () => leader.getState().length === 1)
    trap()
    const waited = [leader.perform('append', ['x'])]
    await checkEnd(leader, errors[nodes.indexOf(leader)], { state: ['before'], waited })
    await leaderOf(others)
    await others[1].perform('append', ['after'])
    await until(others, () => others.every((node) => node.getState().includes('after')))
    assert.equal(errors.flat().length, 1)
    await closeAll(others)
  })

  it('releases its folder, from which a new process goes on', async () => {
    const folder = await mkdtemp(path.join(os.tmpdir(), 'conflux-crash-'))
    const options = { cluster: 'crash', storage: { name: 'file', path: folder } }
    const node = instance()(alone(room(), options))
    const errors = errorsOf(node)
    await node.perform('append', ['before'])
    trap()
    const waited = [node.perform('append', ['x'])]
    await checkEnd(node, errors, { state: ['before'], waited })
    const next = instance()(alone(room(), options))
    await next.read()
    assert.deepEqual(next.getState(), ['before'])
    await next.close()
    await rm(folder, { recursive: true })
  })

  it('releases its locks, and what waits for the end of the cluster is rejected', async () => {
    let closed = 0
    const platform = {
      missing: () => undefined,
      tabs: () => ({ ask() {}, write() {}, close: () => closed++, destroyed: new Promise(() => {}) }),
    }
    const channel = { name: 'broadcast' }
    const node = instance(platform)({ cluster: 'crash', channel, methods, reduce })
    const errors = errorsOf(node)
    const waited = [node.read(), node.destroy()]
    trap()
    await checkEnd(node, errors, { state: [], waited })
    assert.equal(closed, 1)
    assert.deepEqual(await ends(node.destroy()), ['CRASHED'])
  })

  it('settles a close that was under way', async () => {
    const node = instance()(alone(room()))
    const errors = errorsOf(node)
    await node.perform('append', ['before'])
    trap()
    await node.close()
    assert.deepEqual(errors, ['CRASHED'])
    assert.equal(node.status().phase, 'closed')
  })

  it('throws, if it traps when a node is made', async () => {
    const conflux = instance()
    const node = conflux(alone(room()))
    const errors = errorsOf(node)
    await node.perform('append', ['before'])
    trap()
    const channel = probe()
    assert.throws(() => conflux({ ...alone(channel), id: 'b' }), { code: 'CRASHED' })
    await checkEnd(node, errors, { state: ['before'] })
  })

  it('is not what wrong options and a channel that throws are', async () => {
    const conflux = instance()
    const node = conflux(alone(room()))
    assert.throws(() => conflux(alone(room(), { clusterSize: -1 })), { code: 'INVALID_OPTIONS' })
    for (const thrown of [new RangeError('no line'), 'no line', undefined]) {
      const connect = () => {
        throw thrown
      }
      let caught = 'nothing'
      try {
        conflux(alone({ ...probe(), connect }))
      } catch (error) {
        caught = error
      }
      assert.equal(caught, thrown)
    }
    const refusing = { ...probe(), get connected() { throw new Error('no line') } }
    const other = conflux(alone(refusing, { id: 'b' }))
    assert.equal(await other.perform('append', ['x']), 'x')
    assert.equal(other.status().connected, false)
    assert.equal(await node.perform('append', ['x']), 'x')
    await closeAll([node, other])
  })
})
