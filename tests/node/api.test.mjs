// Tests of what the API promises, call by call, on the built package, through `import` and `require`.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { after, before, beforeEach, describe, it } from 'node:test'
import { promisify } from 'node:util'
import { closeAll, cluster, imported, leaderOf, methods, packageDir, reduce, required, until } from './support.mjs'

const good = (channel) => ({
  id: 'a',
  clusterSize: 1,
  channel: { name: 'memory', channel },
  methods,
  reduce,
})

it('import and require load the same function and the same core', () => {
  assert.equal(typeof imported, 'function')
  assert.equal(imported, required)
  assert.equal(required.default, required)
  assert.equal(required.conflux, required)
})

for (const [door, conflux] of [['import', imported], ['require', required]]) {
  describe(`through ${door}`, () => {
    let nodes, leader, follower

    before(() => {
      nodes = cluster(conflux, 3)
    })
    // Before each test, because the leader changes when this process stalls for longer than an election timeout.
    beforeEach(async () => {
      const known = ({ id }) => nodes.every((node) => node.status().leaderId === id)
      leader = await until(nodes, () => nodes.find((node) => known(node.status())), 'one leader')
      follower = nodes.find((node) => node !== leader)
    })
    after(() => closeAll(nodes))

    describe('conflux(opts)', () => {
      it('throws for a missing option, names it, and says that it is required', () => {
        for (const name of ['id', 'clusterSize', 'channel', 'methods', 'reduce']) {
          const options = good('missing')
          delete options[name]
          assert.throws(() => conflux(options), (error) => {
            assert.equal(error.constructor, Error)
            assert.equal(error.code, 'INVALID_OPTIONS')
            return error.message.includes(`\`${name}\` is required`)
          })
        }
        assert.throws(() => conflux(), /wants an object of options, which is required, and got nothing/)
      })

      it('says of a wrong option what was wanted and what it got', () => {
        const wrong = (change) => () => conflux({ ...good('wrong'), ...change })
        assert.throws(wrong({ id: 5 }), /`id` must be a string, and is 5/)
        assert.throws(wrong({ clusterSize: 'three' }), /whole number from 1 to 63, and is "three"/)
        assert.throws(wrong({ channel: { name: 'pigeon' } }), /one of memory, broadcast, websocket, redis, socket\.io, custom, and is "pigeon"/)
        assert.throws(wrong({ channel: { name: 'toString' } }), /one of memory, .* and is "toString"/)
        assert.throws(wrong({ methods: { append: 'x' } }), /`methods.append` must be a function, and is "x"/)
        assert.throws(wrong({ reduce: {} }), /`reduce` must be a function, and is an object/)
        assert.throws(wrong({ electionTimeout: { min: 10, max: 20 } }), /greater than `heartbeatInterval`/)
        assert.throws(wrong({ channel: { name: 'custom' } }), /`channel.connect` is required/)
        assert.throws(wrong({ reduce: 5 }), /`reduce` must be a function, and is 5/)
        assert.throws(wrong({ id() {} }), /`id` must not be a function/)
        assert.throws(wrong({ channel: { name: 'memory', channel: Symbol('x') } }), /`channel.channel` must not be a symbol/)
        assert.throws(wrong({ members: ['b'] }), /must contain this node's id/)
        assert.throws(wrong({ storage: 'indexeddb' }), /`storage` must be "memory"/)
      })

      it('warns of unknown options and ignores them', async () => {
        const { warn } = console
        const warnings = []
        console.warn = (text) => warnings.push(text)
        const cycle = {}
        cycle.self = cycle
        try {
          await conflux({ ...good('typo'), electionTimout: { min: 1 }, app: cycle, onError() {} }).close()
        } finally {
          console.warn = warn
        }
        assert.equal(warnings.length, 3)
        assert.match(warnings[0], /no option `electionTimout`/)
      })

      it('refuses an asynchronous reducer, and a state that JSON cannot carry', () => {
        assert.throws(() => conflux({ ...good('first'), reduce: async () => [] }), /must be synchronous/)
        assert.throws(() => conflux({ ...good('first'), reduce: () => ({ seen: new Set() }) }), /the state\.seen is a Set, which JSON cannot carry/)
      })

      it('throws if the reducer returns no first state', () => {
        assert.throws(() => conflux({ ...good('first'), reduce: () => undefined }), /returned nothing/)
      })
    })

    describe('perform', () => {
      it('resolves with the action once it is applied on this node', async () => {
        for (const node of [leader, follower]) {
          const action = await node.perform('foobar', ['a', 'b'])
          assert.deepEqual(action, { type: 'FOOBAR', foo: 'a', bar: 'b' })
          assert.deepEqual(node.getState().at(-1), action)
        }
      })

      it('calls a Node-style callback once, with and without a timeout', async () => {
        for (const rest of [[['x']], [['x'], 5000]]) {
          const calls = []
          await new Promise((resolve) => {
            const result = follower.perform('append', ...rest, (...args) => {
              calls.push(args)
              resolve()
            })
            assert.equal(result, undefined)
          })
          await follower.perform('noop', [])
          assert.deepEqual(calls, [[null, 'x']])
        }
      })

      it('calls the callback once even if it throws', async () => {
        const reported = []
        const { error } = console
        console.error = (thrown) => reported.push(thrown)
        let calls = 0
        try {
          await new Promise((resolve) => {
            follower.perform('append', ['thrown'], () => {
              calls++
              resolve()
              throw new Error('from the callback')
            })
          })
          await follower.perform('noop')
        } finally {
          console.error = error
        }
        assert.equal(calls, 1)
        assert.equal(reported[0].message, 'from the callback')
        assert.equal(await follower.perform('append', ['fine']), 'fine')
      })

      it('resolves with nothing when the method returns null or nothing, and appends nothing', async () => {
        const before = follower.status().lastIndex
        assert.equal(await follower.perform('noop', []), undefined)
        assert.equal(await follower.perform('nothing'), undefined)
        const args = await new Promise((resolve) => follower.perform('noop', [], (...a) => resolve(a)))
        assert.deepEqual(args, [null])
        assert.equal(follower.status().lastIndex, before)
      })

      it('rejects with the message of an Error that the method returns or throws', async () => {
        for (const node of [leader, follower]) {
          await assert.rejects(node.perform('bonk', []), (e) => String(e) === 'Error: Whoops' && e.code === 'METHOD_FAILED')
          await assert.rejects(node.perform('explode', []), (e) => String(e) === 'Error: Bang')
        }
        const error = await new Promise((resolve) => follower.perform('bonk', [], 5000, resolve))
        assert.equal(String(error), 'Error: Whoops')
      })

      it('rejects when the method returns a Promise', async () => {
        await assert.rejects(follower.perform('later'), { code: 'ASYNC_METHOD', message: /methods must be synchronous/ })
      })

      it('rejects what JSON cannot carry, with the path of the value', async () => {
        const refused = (name, path) => assert.rejects(follower.perform(name), { code: 'NOT_JSON', message: path })
        await refused('cycle', /`cycle`\.list\[0\]\.list is part of itself/)
        await refused('map', /`map`\.deep\[0\]\.table is a Map/)
        await refused('nan', /`nan`\.number is NaN/)
        await assert.rejects(follower.perform('append', [{ when: new Date() }]), /the arguments\[0\]\.when is a Date/)
        await assert.rejects(follower.perform('append', [() => {}]), /the arguments\[0\] is a function/)
      })

      it('rejects an unknown method', async () => {
        await assert.rejects(follower.perform('zooby', []), (e) => String(e) === 'Error: zooby is not a registered method')
        await assert.rejects(follower.perform('toString'), /toString is not a registered method/)
        await assert.rejects(follower.perform('constructor'), /is not a registered method/)
      })

      it('rejects arguments of the wrong type', async () => {
        await assert.rejects(follower.perform(7), { code: 'INVALID_ARGUMENT' })
        await assert.rejects(follower.perform('append', 'x'), /wants a list of arguments, and got "x"/)
        await assert.rejects(follower.perform('append', [], 'soon'), /wants a timeout in ms/)
      })

      it('rejects arguments that are too large', async () => {
        const large = 'x'.repeat((1 << 20) + 1)
        await assert.rejects(follower.perform('append', [large]), { code: 'TOO_LARGE', message: /maxActionBytes is 1048576/ })
        const half = 'x'.repeat(600_000)
        assert.equal(await follower.perform('append', [half]), half)
      })

      it('rejects when the reducer throws, and appends nothing', async () => {
        // The first perform opens the session.
        await follower.perform('noop')
        await follower.read()
        const before = follower.status().lastIndex
        await assert.rejects(follower.perform('poison'), { code: 'REDUCER_FAILED', message: /does not like it/ })
        assert.equal(follower.status().lastIndex, before)
      })

      it('applies the performs of one node in the order of the calls, on every node', async () => {
        const start = follower.getState().length
        const numbers = Array.from({ length: 200 }, (_, i) => `order-${i}`)
        const settled = []
        await Promise.all(numbers.map((n) => follower.perform('append', [n]).then((a) => settled.push(a))))
        assert.deepEqual(settled, numbers)
        assert.deepEqual(follower.getState().slice(start), numbers)
        for (const node of nodes) {
          await node.read()
          assert.deepEqual(node.getState(), follower.getState())
        }
      })

      it('judges against the provisional state, with `this` as the node on the leader', async () => {
        const results = await Promise.allSettled(nodes.map((node) => node.perform('once', ['only'])))
        assert.equal(results.filter((r) => r.status === 'fulfilled').length, 1)
        assert.equal(results.find((r) => r.status === 'rejected').reason.message, 'again')
      })
    })

    it('a timeout rejects with TIMEOUT and says that the outcome is unknown', async () => {
      const alone = conflux({ ...good('alone'), id: 'alone', clusterSize: 2 })
      await assert.rejects(alone.perform('append', ['x'], 30), { code: 'TIMEOUT', message: /may still take effect/ })
      const error = await new Promise((resolve) => alone.perform('append', ['x'], 30, resolve))
      assert.equal(error.code, 'TIMEOUT')
      await alone.close()
    })

    describe('subscribe', () => {
      it('calls back after each committed action, before the next one is applied', async () => {
        const lengths = []
        const start = follower.getState().length
        const stop = follower.subscribe(() => lengths.push(follower.getState().length - start))
        await Promise.all([1, 2, 3].map((n) => follower.perform('append', [n])))
        await follower.perform('noop')
        stop()
        assert.deepEqual(lengths, [1, 2, 3])
      })

      it('returns a function that removes only its own callback, also when called twice or in a callback', async () => {
        const calls = []
        const stops = []
        stops.push(follower.subscribe(() => {
          calls.push('first')
          stops[0]()
          stops[0]()
          stops[1]()
        }))
        stops.push(follower.subscribe(() => calls.push('second')))
        stops.push(follower.subscribe(() => calls.push('third')))
        await follower.perform('append', ['u1'])
        await follower.perform('append', ['u2'])
        stops[2]()
        await follower.perform('append', ['u3'])
        assert.deepEqual(calls, ['first', 'third', 'third'])
      })

      it('still calls the other subscribers when one throws', async () => {
        const { error } = console
        console.error = () => {}
        const calls = []
        const stops = [
          follower.subscribe(() => { throw new Error('from a subscriber') }),
          follower.subscribe(() => calls.push('called')),
        ]
        try {
          await follower.perform('append', ['after a throw'])
        } finally {
          console.error = error
          stops.forEach((stop) => stop())
        }
        assert.deepEqual(calls, ['called'])
      })
    })

    describe('getState and getProvisionalState', () => {
      it('give the same reference until the state changes', async () => {
        const state = follower.getState()
        await follower.perform('noop')
        assert.equal(follower.getState(), state)
        await follower.perform('append', ['changed'])
        assert.notEqual(follower.getState(), state)
        assert.equal(follower.getState(), follower.getState())
      })

      it('differ by the uncommitted actions, which only the provisional state includes', async () => {
        const [a, b] = cluster(conflux, 2)
        const first = await leaderOf([a, b])
        await first.perform('append', ['committed'])
        const other = first === a ? b : a
        other.simulate({ isolated: true })
        const pending = first.perform('append', ['uncommitted'])
        await new Promise((resolve) => setImmediate(resolve))
        assert.deepEqual(first.getProvisionalState(), ['committed', 'uncommitted'])
        assert.deepEqual(first.getState(), ['committed'])
        other.simulate({ isolated: false })
        await pending
        assert.equal(first.getState(), first.getProvisionalState())
        await closeAll([a, b])
      })
    })

    it('read() resolves when this node has applied everything that was committed before the call', async () => {
      await leader.perform('append', ['to be read'])
      await follower.read()
      assert.ok(follower.getState().includes('to be read'))
      const args = await new Promise((resolve) => follower.read((...a) => resolve(a)))
      assert.deepEqual(args, [null])
    })

    describe('status and on', () => {
      it('status() shows the role, the term, the leader, the members and the indexes', () => {
        const status = leader.status()
        assert.equal(status.role, 'leader')
        assert.equal(status.leaderId, status.id)
        assert.deepEqual(status.members, ['n1', 'n2', 'n3'])
        assert.ok(status.term >= 1 && status.commitIndex >= status.lastApplied && status.lastApplied > 0)
        assert.equal(status.phase, 'member')
        assert.equal(Object.keys(status.matchIndex).length, 2)
        assert.equal(follower.status().role, 'follower')
        assert.equal(follower.status().leaderId, status.id)
      })

      it('a node has exactly these methods, and its status exactly these keys', async () => {
        const [node] = cluster(conflux, 1)
        const own = Object.getOwnPropertyNames(Object.getPrototypeOf(node)).toSorted()
        assert.deepEqual(own, [
          'close', 'constructor', 'destroy', 'getProvisionalState', 'getState', 'on', 'perform', 'read', 'simulate', 'status', 'subscribe',
        ])
        assert.deepEqual(Object.keys(node), [])
        assert.deepEqual(Object.keys(node.status()).toSorted(), [
          'adopted', 'clusterSize', 'commitIndex', 'connected', 'counters', 'hidden', 'id', 'isolated', 'lastApplied',
          'lastIndex', 'leaderId', 'learners', 'matchIndex', 'members', 'paused', 'pending', 'phase', 'present', 'role',
          'running', 'snapshotIndex', 'term',
        ])
        await node.close()
      })

      it('on() reports leaders, members and status until it is stopped', async () => {
        const some = cluster(conflux, 3)
        const heard = { leader: [], members: [], status: [] }
        for (const event of Object.keys(heard)) some[0].on(event, (value) => heard[event].push(value))
        const stop = some[0].on('status', () => assert.fail('stopped'))
        stop()
        stop()
        const first = await leaderOf(some)
        await some[0].perform('append', ['x'])
        assert.deepEqual(heard.members, [['n1', 'n2', 'n3']])
        assert.equal(heard.leader.at(-1), first.status().id)
        assert.ok(heard.leader.every((id, i) => id !== heard.leader[i - 1]), 'each change once')
        assert.ok(heard.status.length > 0)
        assert.throws(() => some[0].on('weather', () => {}), /knows the events leader, members, status, error, divergence, outdated and commit/)
        await closeAll(some)
      })

      it('on() reports each commit with its index, term, node and action until it is stopped', async () => {
        const some = cluster(conflux, 3)
        const heard = some.map(() => [])
        const states = []
        const stops = some.map((node, i) => node.on('commit', (commit) => heard[i].push(commit)))
        some[2].on('commit', ({ action }) => states.push([action, some[2].getState().at(-1)]))
        await some[1].perform('append', ['x'])
        await some[2].perform('append', ['y'])
        await Promise.all(some.map((node) => node.read()))
        const { term } = some[0].status()
        for (const commits of heard) {
          assert.deepEqual(commits.map(({ nodeId, action, term }) => [nodeId, action, term]), [['n2', 'x', term], ['n3', 'y', term]])
          assert.ok(commits[0].index < commits[1].index)
          assert.deepEqual(commits, heard[0], 'the same everywhere')
        }
        assert.deepEqual(states, [['x', 'x'], ['y', 'y']], 'the state has it by then')
        stops[0]()
        await some[0].perform('append', ['z'])
        await Promise.all(some.map((node) => node.read()))
        assert.deepEqual(heard.map((commits) => commits.length), [2, 3, 3])
        await closeAll(some)
        assert.doesNotThrow(stops[1], 'also when it is closed')
      })
    })

    describe('close', () => {
      it('returns a promise or calls back, may be called twice, and rejects pending performs', async () => {
        const some = cluster(conflux, 3)
        const node = await leaderOf(some)
        await node.perform('append', ['before'])
        const waits = node.perform('append', ['waits'])
        const closing = node.close()
        assert.equal(node.close(), closing)
        await assert.rejects(waits, { code: 'CLOSED' })
        await closing
        const args = await new Promise((resolve) => node.close((...a) => resolve(a)))
        assert.deepEqual(args, [null])
        await assert.rejects(node.perform('append', ['after']), { code: 'CLOSED' })
        await assert.rejects(node.read(), { code: 'CLOSED' })
        assert.equal(node.status().phase, 'closed')
        assert.ok(node.getState().includes('before'))
        node.subscribe(() => {})()
        await closeAll(some)
      })

      it('hands leadership over first, so that the others need no election timeout', async () => {
        const some = cluster(conflux, 3, { electionTimeout: { min: 10_000, max: 15_000 } })
        const node = await leaderOf(some)
        const others = some.filter((other) => other !== node)
        await node.perform('append', ['x'])
        await node.close()
        const next = await leaderOf(others)
        assert.equal(await next.perform('append', ['y']), 'y')
        await closeAll(others)
      })

      it('a node that is paused while it closes still closes', async () => {
        const [node] = cluster(conflux, 1)
        await node.perform('append', ['x'])
        const closing = node.close()
        node.simulate({ paused: true })
        await closing
        await assert.rejects(node.perform('append', ['y']), { code: 'CLOSED' })
        assert.deepEqual(node.getState(), ['x'])
      })

      it('removes subscribers, and unsubscribing afterwards is safe', async () => {
        const [node] = cluster(conflux, 1)
        const stop = node.subscribe(() => assert.fail('closed'))
        await node.close()
        stop()
        stop()
      })
    })

    describe('user code that calls its node', () => {
      it('a method may perform, read, subscribe and look at the state', async () => {
        let node
        const inner = []
        const calls = {
          outer() {
            inner.push(node.perform('inner', ['from a method']), this.read())
            assert.equal(this, node)
            this.subscribe(() => {})()
            return { seen: this.getState().length, provisional: this.getProvisionalState().length, role: this.status().role }
          },
          inner: (x) => x,
        }
        node = conflux({ ...good(`method-${door}`), methods: calls, reduce: (s = [], a) => (a === null ? s : [...s, a]) })
        const action = await node.perform('outer')
        assert.deepEqual(action, { seen: 0, provisional: 0, role: 'leader' })
        assert.deepEqual(await Promise.all(inner), ['from a method', undefined])
        await node.close()
      })

      it('a reducer may perform and look at the state', async () => {
        let node
        const inner = []
        const reduce = (state = 0, action) => {
          if (node && action === 'outer') inner.push(node.perform('append', ['inner']), node.getState(), node.getProvisionalState())
          return state + 1
        }
        node = conflux({ ...good(`reducer-${door}`), reduce })
        assert.equal(await node.perform('append', ['outer']), 'outer')
        assert.equal(await inner[0], 'inner')
        await node.close()
      })

      it('a subscriber may perform and close the node', async () => {
        const [node] = cluster(conflux, 1)
        const inner = []
        let closing
        node.subscribe(() => {
          if (inner.length < 3) inner.push(node.perform('append', [`inner ${inner.length}`]))
          else closing ??= node.close()
        })
        await node.perform('append', ['outer'])
        await Promise.all(inner)
        await until([node], () => closing, 'closing')
        await closing
        assert.deepEqual(node.getState(), ['outer', 'inner 0', 'inner 1', 'inner 2'])
      })

      it('a method may close the node', async () => {
        let node
        node = conflux({ ...good(`closing-${door}`), methods: { end() { node.close(); return 'ended' } } })
        const outcome = await node.perform('end').catch((error) => error.code)
        assert.ok(outcome === 'ended' || outcome === 'CLOSED')
        await node.close()
      })
    })
  })
}

it('closed nodes are garbage-collected', async () => {
  const program = `
    const conflux = require(${JSON.stringify(packageDir)})
    const wait = () => new Promise((resolve) => setTimeout(resolve, 20))
    const refs = []
    const one = async (i) => {
      const node = conflux({ id: 'a' + i, clusterSize: 1, channel: { name: 'memory', channel: 'c' + i },
        methods: { append: (x) => x }, reduce: (s = [], a) => (a === null ? s : [...s, a]) })
      refs.push(new WeakRef(node))
      await node.perform('append', ['x'])
      await node.close()
    }
    ;(async () => {
      for (let i = 0; i < 20; i++) await one(i)
      for (let i = 0; i < 10; i++) { await wait(); gc() }
      console.log(refs.filter((ref) => ref.deref()).length)
    })()`
  const { stdout } = await promisify(execFile)(process.execPath, ['--expose-gc', '-e', program], { timeout: 20_000 })
  assert.ok(Number(stdout) <= 1, `${stdout.trim()} of 20 are still there`)
})

it('a process whose nodes are closed ends by itself', async () => {
  const program = `
    const conflux = require(${JSON.stringify(packageDir)})
    const node = conflux({ id: 'a', clusterSize: 1, channel: { name: 'memory' },
      methods: { append: (x) => x }, reduce: (s = [], a) => (a === null ? s : [...s, a]) })
    node.perform('append', ['x']).then(() => node.close()).then(() => console.log('closed'))`
  const { stdout } = await promisify(execFile)(process.execPath, ['-e', program], { timeout: 10_000 })
  assert.equal(stdout.trim(), 'closed')
})
