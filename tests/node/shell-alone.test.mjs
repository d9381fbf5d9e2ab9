// Tests of shell.js by itself: what it hands to the core, and what it makes of what the core says. The core is made up: it
// keeps what it is asked, and a test calls the hooks that it was given.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import path from 'node:path'
import { afterEach, describe, it } from 'node:test'
import { pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import { packageDir } from './support.mjs'

const { createConflux } = await import(pathToFileURL(path.join(packageDir, 'shell.js')))

const turn = () => new Promise((resolve) => setImmediate(resolve))

const { warn, error } = console
afterEach(() => {
  Object.assign(console, { warn, error })
  delete globalThis.reportError
})

/** Makes the class of a core that notes what it is asked. Each class is an instance of its own. */
const coreClass = () =>
  class Core {
    calls = []
    now = {
      id: 'a', phase: 'member', role: 'leader', leaderId: 'a', members: ['a'], paused: false, isolated: false, connected: true,
    }

    constructor(options, transport, hooks, initial, hidden) {
      Object.assign(this, { options, transport, hooks, hidden, committed: initial, pending: initial })
      Core.last = this
      for (const name of ['perform', 'read', 'destroy', 'close', 'watch', 'simulate', 'receive', 'changed', 'turn', 'free']) {
        this[name] = (...args) => {
          this.calls.push([name, ...args])
        }
      }
    }

    state() {
      return this.committed
    }

    provisional() {
      return this.pending
    }

    status() {
      return this.now
    }

    /** What it was asked since the last time, without questions about states. */
    heard() {
      return this.calls.splice(0)
    }
  }

const reduce = (state = [], action) => (action === null ? state : [...state, action])
const good = { id: 'a', clusterSize: 1, channel: { name: 'memory', channel: 'alone' }, methods: { append: (x) => x }, reduce }

/** Makes a node. */
const make = (options = {}, platform = {}) => {
  const Core = coreClass()
  const node = createConflux(() => Core, { missing: () => 'a browser', ...platform })({ ...good, ...options })
  return { node, core: Core.last, hooks: Core.last.hooks, Core }
}

const refused = (options, platform) => {
  try {
    make(options, platform)
  } catch (error) {
    return `${error.code}: ${error.message}`
  }
  throw new Error('it was not refused')
}

describe('options', () => {
  it('that are no object, or lack what is required, are refused by what they are', () => {
    const conflux = createConflux(coreClass, { missing: () => undefined })
    const get = (options) => {
      try {
        conflux(options)
      } catch (error) {
        return error.message
      }
    }
    const text = 'conflux() wants an object of options, which is required, and got '
    for (const [options, got] of [[undefined, 'nothing'], [null, 'nothing'], ['x'.repeat(50), `"${'x'.repeat(40)}"`], [7, '7'], [true, 'true']]) {
      assert.equal(get(options), `Invalid options: ${text}${got}`)
    }
    assert.equal(get(() => {}), `Invalid options: ${text}a function`)
    for (const nothing of [undefined, null]) {
      assert.match(refused({ reduce: nothing }), /^INVALID_OPTIONS: Invalid options: `reduce` is required$/)
      assert.match(refused({ methods: nothing }), /`methods` is required$/)
    }
    for (const [value, got] of [[{}, 'an object'], [[], 'a list'], [Symbol('x'), 'a symbol'], [5n, '5']]) {
      assert.match(refused({ reduce: value }), new RegExp(`\`reduce\` must be a function, and is ${got}$`))
    }
    assert.match(refused({ methods: () => {} }), /`methods` must be an object, and is a function$/)
    assert.match(refused({ methods: { fine() {}, wrong: [] } }), /`methods.wrong` must be a function, and is a list$/)
    assert.match(refused({ migrate: 'x' }), /`migrate` must be a function, and is "x"$/)
    for (const fine of [undefined, null, () => {}]) make({ migrate: fine })
  })

  it('reach the core as plain values, with the keys that it knows', () => {
    const { core } = make({
      members: ['a', 'b'], clusterSize: null, electionTimeout: { min: 1, max: 2, other: 3 }, durability: 'strict',
      channel: { name: 'memory', channel: 'x', secret: () => {} },
    })
    const { options } = core
    assert.deepEqual(options.members, ['a', 'b'])
    assert.equal(options.clusterSize, null)
    assert.deepEqual(options.electionTimeout, { min: 1, max: 2 })
    assert.equal(options.durability, 'strict')
    assert.deepEqual(Object.keys(options.channel), ['name', 'channel', 'url', 'room', 'channelName', 'connectionString', 'host'])
    assert.equal(options.channel.channel, 'x')
    assert.ok(!('methods' in options) && !('reduce' in options))
    assert.equal(core.hidden, false)
    assert.equal(make({}, { hidden: () => true }).core.hidden, true)
    assert.match(refused({ version: 5n }), /`version` must not be a bigint$/)
    assert.match(refused({ electionTimeout: { min() {} } }), /`electionTimeout.min` must not be a function$/)
  })

  it('that nobody knows are warned of, and only those', () => {
    const warnings = []
    console.warn = (text) => warnings.push(text)
    make({ serialize: (x) => x, deserialize: (x) => x, migrate: (x) => x, maxVoters: 3, wether: 1, toString: 2 })
    assert.deepEqual(warnings, [
      'conflux: there is no option `wether`: it is ignored',
    ])
  })

  it('for the state come in pairs', () => {
    const nothing = [undefined, null]
    for (const serialize of nothing) for (const deserialize of nothing) make({ serialize, deserialize })
    for (const one of nothing) {
      assert.match(refused({ serialize: (x) => x, deserialize: one }), /`deserialize` is required, since the other one is given$/)
      assert.match(refused({ serialize: one, deserialize: (x) => x }), /`serialize` is required/)
    }
    assert.match(refused({ serialize: 5, deserialize: (x) => x }), /`serialize` must be a function, and is 5$/)
  })

  it('of a reducer without a proper first state are refused, and a rejection of it is nobody’s', async () => {
    assert.match(refused({ reduce: () => undefined }), /^REDUCER_FAILED: the reducer returned nothing/)
    assert.match(refused({ reduce: () => Promise.reject(new Error('late')) }), /^REDUCER_FAILED: .*must be synchronous/)
    assert.match(refused({ reduce: () => new Map() }), /^NOT_JSON: the state is a Map, .*: give `serialize` and `deserialize`/)
    assert.deepEqual(make({ reduce: () => null }).node.getState(), null)
    await turn()
  })

  it('decide who stores the node', () => {
    const made = []
    const platform = {
      missing: () => undefined,
      tabs: (options) => made.push(['tabs', options.cluster]) && { close() {}, destroyed: new Promise(() => {}) },
      files: (options) => made.push(['files', options.storage.path]) && { close: async () => {} },
      watchPage: (core, suspends) => made.push(['page', suspends]) && { wake() {}, end() {} },
    }
    const stores = (options) => {
      make(options, platform)
      return made.splice(0).map((one) => one.join(' '))
    }
    const channel = { name: 'broadcast' }
    const elastic = { channel, cluster: 'c', clusterSize: undefined }
    assert.deepEqual(stores(elastic), ['tabs c', 'page true'])
    assert.deepEqual(stores({ ...elastic, clusterSize: null, members: null }), ['tabs c', 'page true'])
    assert.deepEqual(stores({ ...elastic, members: ['a'] }), ['page false'])
    assert.deepEqual(stores({ ...elastic, clusterSize: 1 }), ['page false'])
    assert.deepEqual(stores({ clusterSize: undefined }), ['page false'], 'another channel')
    assert.deepEqual(stores({ storage: { name: 'file', path: 'p' } }), ['files p', 'page false'])
    assert.deepEqual(stores({ storage: { name: 'memory' } }), ['page false'])
    const lacking = { ...platform, missing: () => 'a page' }
    assert.match(refused(elastic, lacking), /^UNSUPPORTED: without `clusterSize` .*, which needs a page: give a `clusterSize`$/)
    make({ ...elastic, clusterSize: 1 }, lacking)
    assert.match(refused({ storage: { name: 'file', path: 'p' } }), /^UNSUPPORTED: the storage `file` is for Node\.js/)
    make({ storage: { name: 'memory' } })
  })

  it('of a channel of one’s own are checked', () => {
    const own = { name: 'custom', connect() {}, disconnect() {}, send() {}, broadcast() {} }
    for (const nothing of [undefined, null]) {
      assert.match(refused({ channel: { ...own, send: nothing } }), /`channel.send` is required$/)
    }
    assert.match(refused({ channel: { ...own, broadcast: 1 } }), /`channel.broadcast` must be a function, and is 1$/)
    for (const channel of [undefined, null, {}, { name: 7 }, { name: 'toString' }, { name: 'pigeon' }]) {
      assert.equal(make({ channel }).core.transport, undefined, 'the core says what is wrong')
    }
  })
})

describe('a channel', () => {
  it('has all functions that the core may call, and reaches the core with what arrives', () => {
    let connected
    const calls = []
    const own = {
      name: 'custom',
      connect: (...args) => (connected = args),
      disconnect: () => calls.push('disconnect'), send() {}, broadcast() {},
    }
    const { core } = make({ channel: own })
    const { transport } = core
    for (const name of ['listen', 'unlisten', 'pause', 'resume']) assert.equal(transport[name](), undefined)
    transport.connect('a', 'room')
    const [id, receive, changed] = connected
    assert.equal(id, 'a')
    receive(Uint8Array.of(1))
    changed()
    assert.deepEqual(core.heard().map(([name, data]) => [name, data && [...data]]), [['receive', [1]], ['changed', undefined]])
    core.hooks.notice('closed')
    receive(Uint8Array.of(2))
    changed()
    assert.deepEqual(core.heard(), [])
  })

  it('keeps functions of its own', () => {
    let listened = 0
    class Channel {
      constructor() {
        listened += 1
      }

      postMessage() {}

      close() {}
    }
    const { BroadcastChannel } = globalThis
    globalThis.BroadcastChannel = Channel
    try {
      const { core } = make({ channel: { name: 'broadcast', channel: 'x' } })
      core.transport.connect('a', 'room')
      const before = listened
      core.transport.listen('b')
      assert.equal(listened, before + 1)
    } finally {
      globalThis.BroadcastChannel = BroadcastChannel
    }
  })
})

describe('what JSON cannot carry', () => {
  class Point {
    x = 1
  }
  const cycle = {}
  cycle.self = [cycle]
  const odd = Object.create(Object.create(Object.create(null)))
  const wrong = [
    [undefined, ' is undefined'], [() => {}, ' is a function'], [Symbol('x'), ' is a symbol'], [5n, ' is a bigint'],
    [NaN, ' is NaN'], [Infinity, ' is Infinity'], [-Infinity, ' is -Infinity'],
    [Promise.resolve(), ' is a Promise'], [{ then() {} }, ' is a Promise'], [new Point(), ' is a Point'], [new Map(), ' is a Map'],
    [odd, ' is a class instance'], [cycle, '.self[0] is part of itself (a cycle)'],
    [{ a: [0, { b: NaN }] }, '.a[1].b is NaN'], [[1, , 2], '[1] is undefined'],
  ]
  const shared = { x: 1 }
  const right = [
    null, true, '', 0, -0, 1.5, [], {}, { a: undefined }, Object.assign(Object.create(null), { a: 1 }), [shared, shared],
    { a: shared, b: [shared] }, { then: 5 }, { then: null },
  ]

  it('is refused as an argument, with its path', async () => {
    const { node, core } = make()
    for (const [value, what] of wrong) {
      if (value === undefined) continue
      await assert.rejects(node.perform('append', [value]), { code: 'NOT_JSON', message: `the arguments[0]${what}, which JSON cannot carry` })
    }
    assert.deepEqual(core.heard(), [])
    for (const value of right) {
      node.perform('append', [value])
      assert.deepEqual(core.heard().map(([, , name, args]) => [name, args]), [['append', JSON.stringify([value])]])
    }
  })

  it('is refused as an action, with its path', () => {
    let action
    const { hooks } = make({ methods: { give: () => action } })
    for ([action] of wrong) {
      if (action === undefined || action instanceof Promise || typeof action?.then === 'function') continue
      const [, what] = wrong.find(([value]) => Object.is(value, action))
      assert.throws(() => hooks.judge('give', '[]'), { code: 'NOT_JSON', message: `the action of \`give\`${what}, which JSON cannot carry` })
    }
    for (action of right) if (action !== null) assert.equal(hooks.judge('give', '[]'), JSON.stringify(action))
  })

  it('is refused as a state, where it would come back as something else, too; each object is looked at once', () => {
    const { hooks } = make()
    for (const [state, what] of [...wrong, [-0, ' is -0'], [{ a: undefined }, '.a is undefined']]) {
      const message = `the state${what}, which JSON cannot carry: give \`serialize\` and \`deserialize\`, or keep it out of the state`
      assert.throws(() => hooks.check(state), { code: 'NOT_JSON', message })
    }
    let reads = 0
    const part = { get value() { return ++reads } }
    for (const state of [[part], [part, 1], { part }]) hooks.check(state)
    assert.equal(reads, 1)
  })
})

describe('a state', () => {
  it('is saved and loaded, and the first one is the same object as long as it is the same', () => {
    const first = { list: [] }
    const { hooks } = make({ reduce: (state) => state ?? first })
    assert.equal(hooks.save(first), '{"list":[]}')
    assert.equal(hooks.load('{"list":[]}', false), first)
    const again = hooks.load('{"list":[]}', false)
    assert.deepEqual(again, first)
    assert.notEqual(again, first)
    const other = make({ reduce: (state) => state ?? first })
    assert.deepEqual(other.hooks.load('{"list":[1]}', false), { list: [1] })
  })

  it('with functions of one’s own is compared when it is loaded first, unless an older version has made it', () => {
    const serialize = (map) => [...map]
    const good = { reduce: (state) => state ?? new Map(), serialize, deserialize: (list) => new Map(list) }
    const { hooks } = make(good)
    assert.equal(hooks.save(new Map([['a', 1]])), '[["a",1]]')
    hooks.check(new Map([['a', 1]]))
    assert.throws(() => hooks.check(new Map([['a', -0]])), { message: /^what `serialize` returned\[0\]\[1\] is -0, which JSON cannot carry$/ })
    assert.deepEqual(hooks.load('[["a",1]]', false), new Map([['a', 1]]))
    let calls = 0
    const counting = make({ ...good, serialize: (map) => ++calls && [...map] })
    calls = 0
    for (let time = 0; time < 3; time++) counting.hooks.load('[]', true)
    assert.equal(calls, 0, 'one of an older version may come back in a newer form')
    for (let time = 0; time < 3; time++) counting.hooks.load('[]', false)
    assert.equal(calls, 1)
    const lossy = make({ ...good, deserialize: () => new Map() })
    lossy.hooks.load('[["a",1]]', true)
    assert.throws(() => lossy.hooks.load('[["a",1]]', false), { code: 'CANNOT_LOAD', message: /is serialized to something else/ })
    assert.throws(() => lossy.hooks.load('[["a",1]]', false), { code: 'CANNOT_LOAD' })
  })

  it('of an older version is migrated', async () => {
    const { hooks } = make({ migrate: (state, from) => ({ ...state, from }) })
    assert.equal(hooks.migrate({ a: 1 }, 3), '{"a":1,"from":3}')
    assert.throws(() => make().hooks.migrate({}, 3), { code: 'MIGRATION_FAILED', message: /no `migrate` for a state of version 3/ })
    assert.throws(() => make({ migrate: () => new Map() }).hooks.migrate({}, 3), { code: 'NOT_JSON' })
    const late = make({ migrate: () => Promise.reject(new Error('late')) })
    assert.throws(() => late.hooks.migrate({}, 3), { code: 'MIGRATION_FAILED', message: /must be synchronous/ })
    await turn()
  })
})

describe('a method', () => {
  it('is called with the node and its arguments, and its answer is passed on', async () => {
    const self = []
    const methods = {
      append(...args) {
        self.push(this)
        return args
      },
      nothing() {},
      no: () => null,
      fails: () => new TypeError('no'),
      later: () => Promise.reject(new Error('late')),
    }
    const { node, hooks } = make({ methods })
    assert.equal(hooks.judge('append', '[1,null]'), '[1,null]')
    assert.deepEqual(self, [node])
    assert.equal(hooks.judge('nothing', '[]'), undefined)
    assert.equal(hooks.judge('no', '[]'), undefined)
    assert.throws(() => hooks.judge('fails', '[]'), { name: 'TypeError', message: 'no' })
    assert.throws(() => hooks.judge('later', '[]'), { code: 'ASYNC_METHOD' })
    for (const name of ['unknown', 'toString']) assert.throws(() => hooks.judge(name, '[]'), { code: 'UNKNOWN_METHOD' })
    await turn()
  })

  it('is not one any more if it was taken away', () => {
    const methods = { append: (x) => x }
    const { hooks } = make({ methods })
    methods.append = 5
    assert.throws(() => hooks.judge('append', '[]'), { code: 'UNKNOWN_METHOD' })
  })
})

describe('perform and read', () => {
  const last = (core) => core.heard().at(-1)

  it('hand the core a ticket, the name, the arguments, and a time limit if there is one', () => {
    const { node, core } = make()
    const asks = (...args) => {
      node.perform(...args)
      const [what, , name, list, limit] = last(core)
      return [what, name, list, limit ?? undefined]
    }
    assert.deepEqual(asks('append', ['x', undefined, { a: undefined }]), ['perform', 'append', '["x",null,{}]', undefined])
    for (const nothing of [[], [undefined], [null]]) assert.deepEqual(asks('append', ...nothing), ['perform', 'append', '[]', undefined])
    for (const [timeout, limit] of [[0, 0], [5, 5], [-1, undefined], [Infinity, undefined], [NaN, undefined], [null, undefined], [undefined, undefined]]) {
      assert.deepEqual(asks('append', [], timeout), ['perform', 'append', '[]', limit])
    }
    assert.deepEqual(asks('append', 7), ['perform', 'append', '[]', 7])
    node.read()
    node.read()
    assert.deepEqual(core.heard().map(([what]) => what), ['read', 'read'])
    const tickets = [1, 2, 3].map(() => node.perform('append') && last(core)[1])
    assert.equal(new Set(tickets).size, 3)
  })

  it('reject what makes no sense, and ask the core nothing', async () => {
    const { node, core } = make()
    for (const [args, message] of [
      [[7], 'perform() wants a method\'s name, and got 7'],
      [['append', {}], 'perform() wants a list of arguments, and got an object'],
      [['append', 'x'], 'perform() wants a list of arguments, and got "x"'],
      [['append', [], 'soon'], 'perform() wants a timeout in ms, and got "soon"'],
      [['append', [], {}], 'perform() wants a timeout in ms, and got an object'],
    ]) {
      await assert.rejects(node.perform(...args), { code: 'INVALID_ARGUMENT', message })
      const told = await new Promise((resolve) => {
        assert.equal(node.perform(...args, (...result) => resolve(result)), undefined)
      })
      assert.deepEqual([told.length, told[0].code], [1, 'INVALID_ARGUMENT'])
    }
    assert.deepEqual(core.heard(), [])
  })

  it('are settled once, as promises', async () => {
    const { node, core, hooks } = make()
    const ask = () => {
      const promise = node.perform('append')
      return [promise, last(core)[1]]
    }
    const [action, first] = ask()
    hooks.action(first, '{"a":1}')
    hooks.failed(first, 'LATE', 'too late')
    assert.deepEqual(await action, { a: 1 })
    const [nothing, second] = ask()
    hooks.nothing(second)
    assert.equal(await nothing, undefined)
    const [failed, third] = ask()
    hooks.failed(third, 'CODE', 'words')
    await assert.rejects(failed, { code: 'CODE', message: 'words' })
    const [odd, fourth] = ask()
    hooks.action(fourth, 'no json')
    await assert.rejects(odd, { code: 'NOT_JSON', message: /^the action is not JSON: / })
    hooks.nothing(999)
  })

  it('are settled once, as callbacks', () => {
    const { node, core, hooks } = make()
    const calls = []
    const ask = (what) => {
      const result = what === 'read' ? node.read((...args) => calls.push(args)) : node.perform('append', (...args) => calls.push(args))
      assert.equal(result, undefined)
      return last(core)[1]
    }
    const tickets = [ask(), ask(), ask(), ask('read')]
    hooks.action(tickets[0], '"x"')
    hooks.action(tickets[0], '"y"')
    hooks.nothing(tickets[1])
    hooks.failed(tickets[2], 'CODE', 'words')
    hooks.nothing(tickets[3])
    assert.deepEqual(calls.map((args) => args.map((arg) => arg?.code ?? arg)), [[null, 'x'], [null], ['CODE'], [null]])
  })
})

describe('listeners', () => {
  it('hear of what the core notices', () => {
    const { node, core, hooks } = make()
    const heard = []
    for (const event of ['leader', 'members', 'status', 'error', 'divergence', 'outdated']) {
      node.on(event, (value) => heard.push([event, value]))
    }
    const of = (...notice) => {
      hooks.notice(...notice)
      return heard.splice(0)
    }
    const status = ['status', core.now]
    assert.deepEqual(of('leader'), [['leader', 'a'], status])
    assert.deepEqual(of('leader'), [status], 'it is the same as before')
    core.now = { ...core.now, leaderId: null }
    assert.deepEqual(of('leader'), [['leader', null], ['status', core.now]])
    assert.deepEqual(of('members'), [['members', ['a']], ['status', core.now]])
    assert.deepEqual(of('outdated', '4'), [['outdated', 4], ['status', core.now]])
    assert.deepEqual(of('status'), [['status', core.now]])
    const [[event, error], ...rest] = of('error', 'CODE', 'words')
    assert.deepEqual([event, error.code, error.message, rest], ['error', 'CODE', 'words', [['status', core.now]]])
    hooks.diverged(7, undefined, 'CODE', 'words')
    hooks.diverged(8, '{"a":1}', 'CODE', 'words')
    assert.deepEqual(heard.splice(0), [
      ['divergence', { index: 7, code: 'CODE', message: 'words' }],
      ['divergence', { index: 8, code: 'CODE', message: 'words', action: { a: 1 } }],
    ])
  })

  it('are asked for by name, with a function', () => {
    const { node } = make()
    assert.throws(() => node.on('weather', () => {}), {
      code: 'INVALID_ARGUMENT', message: 'on() knows the events leader, members, status, error, divergence, outdated and commit, and got "weather"',
    })
    assert.throws(() => node.on('status', 5), { code: 'INVALID_ARGUMENT', message: 'on() wants a function, and got 5' })
    assert.throws(() => node.subscribe(null), { code: 'INVALID_ARGUMENT', message: 'subscribe() wants a function, and got nothing' })
  })

  it('of commits make the core tell of them, as long as there is one', () => {
    const { node, core, hooks } = make()
    const heard = []
    node.on('status', () => {})()
    assert.deepEqual(core.heard(), [])
    const stops = [1, 2].map((nth) => node.on('commit', (commit) => heard.push([nth, commit])))
    hooks.entry(7, 2, 'a', '"x"')
    stops[0]()
    stops[0]()
    hooks.entry(8, 2, undefined, undefined)
    stops[1]()
    hooks.entry(9, 2, 'a', '"y"')
    const x = { index: 7, term: 2, nodeId: 'a', action: 'x' }
    assert.deepEqual(heard, [[1, x], [2, x], [2, { index: 8, term: 2, nodeId: null }]])
    assert.deepEqual(core.heard(), [true, true, true, true, false].map((on) => ['watch', on]))
  })

  it('that throw disturb nobody, and are reported as the platform reports errors', () => {
    const { node, hooks } = make()
    const reported = []
    let called = 0
    node.subscribe(() => {
      throw new Error('from a subscriber')
    })
    node.subscribe(() => called++)
    console.error = (thrown) => reported.push(['console', thrown.message])
    hooks.committed()
    globalThis.reportError = (thrown) => reported.push(['reportError', thrown.message])
    hooks.committed()
    assert.deepEqual([called, reported], [2, [['console', 'from a subscriber'], ['reportError', 'from a subscriber']]])
  })

  it('of states are called in order, and not any more once they were removed', () => {
    const { node, hooks } = make()
    const calls = []
    const stops = []
    stops.push(node.subscribe(() => {
      calls.push(0)
      stops[1]()
    }))
    stops.push(node.subscribe(() => calls.push(1)))
    stops.push(node.subscribe(() => calls.push(2)))
    hooks.notice('state')
    hooks.committed()
    stops[0]()
    hooks.committed()
    assert.deepEqual(calls, [0, 2, 0, 2, 2])
  })

  it('for errors that are not there are made up for by a warning', () => {
    const warnings = []
    console.warn = (text) => warnings.push(text)
    const { node, hooks } = make()
    hooks.notice('error', 'CODE', 'words')
    const stop = node.on('error', () => {})
    hooks.notice('error', 'CODE', 'not this')
    stop()
    hooks.notice('error', 'CODE', 'more words')
    assert.deepEqual(warnings, ['conflux: words (CODE)', 'conflux: more words (CODE)'])
  })
})

describe('simulate', () => {
  it('changes what it is told, leaves the rest, and tells the listeners', () => {
    const { node, core } = make()
    const heard = []
    node.on('status', (status) => heard.push(status))
    core.now = { ...core.now, paused: true, isolated: false }
    node.simulate({ isolated: true })
    node.simulate({ paused: false })
    node.simulate()
    assert.deepEqual(core.heard(), [['simulate', true, true], ['simulate', false, false], ['simulate', true, false]])
    assert.deepEqual(heard, [core.now, core.now, core.now])
  })
})

describe('the end of a node', () => {
  it('is asked for once, and reported to all who have asked', async () => {
    const { node, core, hooks } = make()
    let notified = 0
    node.subscribe(() => notified++)
    const closing = node.close()
    let called = 0
    assert.equal(node.close(() => called++), undefined)
    assert.equal(node.close(), closing)
    assert.deepEqual(core.heard(), [['close']])
    hooks.committed()
    let isClosed = false
    closing.then(() => {
      isClosed = true
    })
    await turn()
    assert.deepEqual([isClosed, called, notified], [false, 0, 0])
    hooks.notice('closed')
    await closing
    await turn()
    assert.equal(called, 1)
    assert.deepEqual(core.heard(), [['free']])
  })

  it('leaves the last state and status readable, and refuses everything else', async () => {
    const { node, core, hooks } = make()
    core.committed = ['x']
    core.pending = ['x', 'y']
    core.now = { ...core.now, phase: 'closed' }
    const end = core.now
    node.close()
    assert.deepEqual(core.heard(), [['close']])
    hooks.notice('closed')
    core.committed = core.pending = core.now = 'freed'
    assert.deepEqual([node.getState(), node.getProvisionalState(), node.status()], [['x'], ['x', 'y'], end])
    await assert.rejects(node.perform('append'), { code: 'CLOSED' })
    await assert.rejects(node.read(), { code: 'CLOSED' })
    node.on('commit', () => {})()
    node.simulate({ paused: true })
    await turn()
    assert.deepEqual(core.heard(), [['free']])
    let notified = 0
    node.subscribe(() => notified++)
    hooks.committed()
    assert.equal(notified, 0)
    hooks.turn(true)
    await turn()
    assert.deepEqual(core.heard(), [])
  })

  it('releases the page and its storage; close() waits for a folder, and reports that it cannot be released', async () => {
    const ended = []
    const platform = (files) => ({
      missing: () => undefined,
      watchPage: () => ({ wake() {}, end: () => ended.push('page') }),
      tabs: () => ({ close: () => ended.push('tabs'), destroyed: new Promise(() => {}) }),
      files: () => ({ close: files }),
    })
    const elastic = make({ clusterSize: undefined, channel: { name: 'broadcast' } }, platform())
    elastic.hooks.notice('closed')
    assert.deepEqual(ended, ['page', 'tabs'])
    let release
    const inFiles = make({ storage: { name: 'file', path: 'p' } }, platform(() => new Promise((resolve) => (release = resolve))))
    let isClosed = false
    const closing = inFiles.node.close().then(() => {
      isClosed = true
    })
    inFiles.hooks.notice('closed')
    await turn()
    assert.equal(isClosed, false)
    release()
    await closing
    const reported = []
    console.error = (thrown) => reported.push(thrown.message)
    const broken = make({ storage: { name: 'file', path: 'p' } }, platform(() => Promise.reject(new Error('no release'))))
    const end = broken.node.close()
    broken.hooks.notice('closed')
    await end
    assert.deepEqual(reported, ['no release'])
  })
})

describe('destroy', () => {
  const elastic = () => {
    let settle
    const destroyed = new Promise((resolve, reject) => {
      settle = { resolve, reject }
    })
    const platform = { missing: () => undefined, tabs: () => ({ close() {}, destroyed }) }
    return { ...make({ clusterSize: undefined, channel: { name: 'broadcast' } }, platform), ...settle }
  }

  it('is for clusters that store something', () => {
    assert.throws(() => make().node.destroy(), { code: 'UNSUPPORTED', message: /this one has a `clusterSize`/ })
  })

  it('resolves when everything is deleted and the node has closed, and is no error', async () => {
    const { node, core, hooks, resolve } = elastic()
    const errors = []
    node.on('error', ({ code }) => errors.push(code))
    const end = node.destroy()
    const [[what]] = core.heard()
    assert.equal(what, 'destroy')
    hooks.notice('error', 'DESTROYED', 'the cluster was destroyed')
    hooks.notice('error', 'OTHER', 'words')
    assert.deepEqual(errors, ['OTHER'])
    resolve()
    await turn()
    assert.deepEqual(core.heard(), [['close']])
    hooks.notice('closed')
    assert.equal(await end, undefined)
  })

  it('rejects if storage refuses, or the core does', async () => {
    for (const how of ['storage', 'core']) {
      const { node, core, hooks, reject } = elastic()
      const end = node.destroy()
      const [[, ticket]] = core.heard()
      if (how === 'core') hooks.failed(ticket, 'CODE', 'no')
      else reject(Object.assign(new Error('no'), { code: 'CODE' }))
      await turn()
      hooks.notice('closed')
      await assert.rejects(end, { code: 'CODE', message: 'no' })
    }
  })

  it('by another page is an error', () => {
    const { node, hooks } = elastic()
    const errors = []
    node.on('error', ({ code }) => errors.push(code))
    hooks.notice('error', 'DESTROYED', 'the cluster was destroyed')
    assert.deepEqual(errors, ['DESTROYED'])
  })
})

describe('what storage reports', () => {
  it('is an error of the node', () => {
    const reports = []
    const platform = { missing: () => undefined, tabs: (...args) => reports.push(args[2]) && { close() {}, destroyed: new Promise(() => {}) } }
    const { node } = make({ clusterSize: undefined, channel: { name: 'broadcast' } }, platform)
    const errors = []
    node.on('error', ({ code, message }) => errors.push([code, message]))
    reports[0]('STORAGE_BLOCKED', 'words')
    assert.deepEqual(errors, [['STORAGE_BLOCKED', 'words']])
  })
})

describe('the core’s questions', () => {
  it('go to storage, timers and itself', async () => {
    const asked = []
    const note = (what) => (...args) => asked.push([what, ...args])
    const platform = {
      missing: () => undefined,
      tabs: () => ({ ask: note('ask'), write: note('write'), close() {}, destroyed: new Promise(() => {}) }),
      files: () => ({ write: note('record'), close: async () => {} }),
      watchPage: () => ({ wake: note('wake'), end() {} }),
    }
    const { core, hooks } = make({ clusterSize: undefined, channel: { name: 'broadcast' } }, platform)
    hooks.ask('try', 1, 'a')
    hooks.write(1, 'a', 2)
    hooks.wake(50)
    make({ storage: { name: 'file', path: 'p' } }, platform).hooks.record(1, true, 'bytes')
    make().hooks.wake(50)
    assert.deepEqual(asked, [['ask', 'try', 1, 'a'], ['write', 1, 'a', 2], ['wake', 50], ['record', 1, true, 'bytes']])
    hooks.turn(true)
    assert.deepEqual(core.heard(), [], 'not while it runs')
    await turn()
    assert.deepEqual(core.heard(), [['turn', true]])
  })
})

describe('a crash of the core', () => {
  const trap = (message) => () => {
    throw new WebAssembly.RuntimeError(message)
  }

  it('ends every node of the instance with one error, which says what was thrown', async () => {
    const Core = coreClass()
    const conflux = createConflux(() => Core, { missing: () => 'a browser' })
    const nodes = ['a', 'b'].map((id) => conflux({ ...good, id }))
    const errors = nodes.map(() => [])
    nodes.forEach((node, at) => node.on('error', (error) => errors[at].push(error)))
    const [waits, stays] = [nodes[0].perform('append'), nodes[1].read()]
    Core.last.state = trap('unreachable')
    assert.deepEqual(nodes[1].getState(), [])
    await assert.rejects(waits, { code: 'CRASHED' })
    await assert.rejects(stays, { code: 'CRASHED', message: /^the core has crashed \(unreachable\), and all nodes here with it: reload the page/ })
    assert.deepEqual(errors.map((list) => list.map(({ code, cause }) => [code, cause.message])), [[['CRASHED', 'unreachable']], [['CRASHED', 'unreachable']]])
    // What the core said while it crashed, or says from its grave, is not passed on.
    Core.last.hooks.notice('error', 'OTHER', 'words')
    assert.equal(errors[1].length, 1)
    assert.throws(() => conflux({ ...good, id: 'c' }), { code: 'CRASHED' })
  })

  for (const [thrown, words] of [['a word', 'a word'], [undefined, 'unknown'], [null, 'unknown'], [new Error('told'), 'told']]) {
    it(`may throw anything, such as ${thrown instanceof Error ? 'an error' : JSON.stringify(thrown)}`, async () => {
      const { node, core } = make()
      const errors = []
      node.on('error', ({ message }) => errors.push(message))
      core.provisional = () => {
        throw thrown
      }
      node.getProvisionalState()
      await turn()
      assert.equal(errors.length, 1)
      assert.ok(errors[0].startsWith(`the core has crashed (${words})`), errors[0])
    })
  }

  it('when it is made is one, and what has a code or comes from the channel is none', () => {
    let thrown
    class Core {
      constructor(options, transport) {
        if (thrown === 'channel') transport.connect('a', 'room')
        throw thrown
      }
    }
    const own = { name: 'custom', disconnect() {}, send() {}, broadcast() {} }
    own.connect = () => {
      throw own.error
    }
    const conflux = createConflux(() => Core, { missing: () => 'a browser' })
    const get = (what, error) => {
      thrown = what
      own.error = error
      try {
        conflux({ ...good, channel: own })
      } catch (caught) {
        return caught
      }
    }
    const coded = Object.assign(new Error('wrong'), { code: 'INVALID_OPTIONS' })
    const line = new RangeError('no line')
    assert.equal(get(coded), coded)
    assert.equal(get('channel', line), line)
    assert.equal(get('words'), 'words')
    const trapped = new WebAssembly.RuntimeError('unreachable')
    assert.equal(get(trapped).code, 'CRASHED')
    assert.equal(get(trapped).cause, trapped)
    assert.equal(get(coded).code, 'CRASHED', 'nothing enters this instance again')
  })

  it('when it is made disconnects the channel, and nothing that is sent from then on gets through', () => {
    const calls = []
    const own = { name: 'custom', connect() {}, disconnect: () => calls.push('disconnect'), send: () => calls.push('send'), broadcast() {} }
    let kept
    class Core {
      constructor(options, transport) {
        kept = transport
        throw new WebAssembly.RuntimeError('unreachable')
      }
    }
    assert.throws(() => createConflux(() => Core, { missing: () => 'a browser' })({ ...good, channel: own }), { code: 'CRASHED' })
    kept.send('b', Uint8Array.of(1))
    kept.disconnect()
    assert.deepEqual(calls, ['disconnect'])
  })

  it('keeps the core in memory as long as the node: to free it would be to call it', async () => {
    const program = `
      import { createConflux } from ${JSON.stringify(pathToFileURL(path.join(packageDir, 'shell.js')).href)}
      const refs = []
      class Core {
        constructor() {
          refs.push(new WeakRef(this))
        }
        status() {
          return {}
        }
        close() {}
        state() {
          throw new Error('unreachable')
        }
      }
      const options = { id: 'a', clusterSize: 1, channel: { name: 'memory' }, methods: {}, reduce: (state = 0) => state }
      const node = createConflux(() => Core, { missing: () => 'a browser' })(options)
      node.on('error', async () => {
        for (let time = 0; time < 5; time++) {
          await new Promise((resolve) => setTimeout(resolve, 1))
          gc()
        }
        console.log(refs[0].deref() !== undefined, node.status().phase)
      })
      node.getState()`
    const { stdout } = await promisify(execFile)(process.execPath, ['--expose-gc', '--input-type=module', '-e', program], { timeout: 20_000 })
    assert.equal(stdout.trim(), 'true refused')
  })

  it('releases what the node had, and mutes the channel and the hooks', async () => {
    const ended = []
    const platform = {
      missing: () => undefined,
      watchPage: () => ({ wake() {}, end: () => ended.push('page') }),
      tabs: () => ({ close: () => ended.push('tabs'), ask() {}, write() {}, destroyed: new Promise(() => {}) }),
    }
    const { node, core, hooks } = make({ clusterSize: undefined, channel: { name: 'broadcast' } }, platform)
    const { transport } = core
    node.on('error', () => {})
    core.state = trap('unreachable')
    const destroyed = node.destroy()
    node.getState()
    assert.deepEqual(ended, ['page', 'tabs'])
    for (const name of ['send', 'broadcast', 'listen', 'connect']) assert.equal(transport[name]('x'), undefined)
    assert.equal(hooks.judge('append', '[]'), undefined)
    assert.equal(hooks.save([1]), undefined)
    assert.equal('connected' in transport, false)
    const { phase, role, leaderId, connected } = node.status()
    assert.deepEqual({ phase, role, leaderId, connected }, { phase: 'refused', role: 'follower', leaderId: null, connected: false })
    await assert.rejects(destroyed, { code: 'CRASHED' })
    await node.close()
    assert.equal(node.status().phase, 'closed')
    assert.ok(!core.heard().some(([name]) => name === 'close'), 'the core is not called any more')
  })

  it('settles a close() that was under way', async () => {
    const { node, core } = make()
    node.on('error', () => {})
    const closing = node.close()
    core.status = trap('unreachable')
    node.status()
    await closing
    assert.equal(node.status().phase, 'closed')
  })
})
