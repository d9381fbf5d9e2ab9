// `conflux({...})`, the public API, around the core in WebAssembly. The core makes all decisions. This file calls the
// user's methods, reducer, subscribers and callbacks, converts values to JSON and back, and settles the promises.

import { CHANNELS } from './channels.js'
import { fail } from './errors.js'

/** @typedef {(error: Error | null, value?: unknown) => void} Callback */

const EVENTS = ['leader', 'members', 'status', 'error', 'divergence', 'outdated', 'commit']

/** Describes a value in words, for error messages. */
const describe = (value) => {
  if (value === null || value === undefined) return 'nothing'
  if (typeof value === 'string') return JSON.stringify(value.slice(0, 40))
  if (typeof value === 'object') return Array.isArray(value) ? 'a list' : 'an object'
  return typeof value === 'function' || typeof value === 'symbol' ? `a ${typeof value}` : String(value)
}

const invalid = (message) => fail('INVALID_OPTIONS', `Invalid options: ${message}`)

/** The options that the core checks; for those that are objects, their keys. */
const OPTIONS = {
  id: [],
  clusterSize: [],
  members: [],
  cluster: [],
  channel: ['name', 'channel', 'url', 'room', 'channelName', 'connectionString', 'host'],
  electionTimeout: ['min', 'max'],
  heartbeatInterval: [],
  maxActionBytes: [],
  storage: ['name', 'path'],
  durability: [],
  maxVoters: [],
  version: [],
}

/** The options that the core never sees, because they are functions. */
const FUNCTIONS = ['methods', 'reduce', 'serialize', 'deserialize', 'migrate']

/** Copies the options for the core, plain values only. Warns of unknown options. */
const plain = (options) => {
  const check = (value, name) => {
    if (['function', 'symbol', 'bigint'].includes(typeof value)) {
      throw invalid(`\`${name}\` must not be a ${typeof value}`)
    }
    return value
  }
  const result = {}
  for (const [name, keys] of Object.entries(OPTIONS)) {
    const value = check(options[name], name)
    const isObject = value !== null && typeof value === 'object' && !Array.isArray(value)
    result[name] = isObject
      ? Object.fromEntries(keys.map((key) => [key, check(value[key], `${name}.${key}`)]))
      : value
  }
  for (const name of Object.keys(options)) {
    if (!(name in OPTIONS) && !FUNCTIONS.includes(name)) {
      console.warn(`conflux: there is no option \`${name}\`: it is ignored`)
    }
  }
  return result
}

const isThenable = (value) =>
  value !== null && typeof value === 'object' && typeof value.then === 'function'

/**
 * Checks whether JSON can carry a value. Throws `NOT_JSON`, with the path of the part, for everything that JSON would
 * silently drop or change.
 * @param {unknown} value
 * @param {string} root a name for the whole value, with which the path begins
 * @param {WeakSet<object>} [seen] Given for a state: objects in it were checked before and are not walked again, and
 * new ones are added. In a state, `undefined` properties and -0 are refused, too: the state that others load would
 * not have them.
 */
const checkJson = (value, root, seen) => {
  const above = new Set()
  const check = (value, path) => {
    const refuse = (what) => {
      throw fail('NOT_JSON', `${path()} is ${what}, which JSON cannot carry`)
    }
    switch (typeof value) {
      case 'string':
      case 'boolean':
        return
      case 'number':
        if (seen && Object.is(value, -0)) return refuse('-0')
        return Number.isFinite(value) ? undefined : refuse(String(value))
      case 'object':
        break
      default:
        return refuse(value === undefined ? 'undefined' : `a ${typeof value}`)
    }
    if (value === null || seen?.has(value)) return
    if (isThenable(value)) refuse('a Promise')
    if (above.has(value)) refuse('part of itself (a cycle)')
    above.add(value)
    if (Array.isArray(value)) {
      for (let i = 0; i < value.length; i++) check(value[i], () => `${path()}[${i}]`)
    } else {
      const prototype = Object.getPrototypeOf(value)
      if (prototype !== null && Object.getPrototypeOf(prototype) !== null) {
        refuse(`a ${prototype.constructor?.name ?? 'class instance'}`)
      }
      for (const key of Object.keys(value)) {
        // Elsewhere an undefined property is allowed: JSON leaves it out, and code rarely tells the two apart.
        if (seen || value[key] !== undefined) check(value[key], () => `${path()}.${key}`)
      }
    }
    above.delete(value)
    seen?.add(value)
  }
  check(value, () => root)
}

/** Converts a value to JSON, after `checkJson`. */
const toJson = (value, root) => {
  checkJson(value, root)
  return JSON.stringify(value)
}

/** Returns `save` and `load`, which convert the state to JSON and back, and `check`, which says whether they can. */
const serializer = ({ serialize, deserialize }) => {
  const isMissing = (value) => value === undefined || value === null
  const seen = new WeakSet()
  if (isMissing(serialize) && isMissing(deserialize)) {
    const check = (state) => {
      try {
        checkJson(state, 'the state', seen)
      } catch (error) {
        throw fail(error.code, `${error.message}: give \`serialize\` and \`deserialize\`, or keep it out of the state`)
      }
    }
    return { check, save: (state) => JSON.stringify(state), load: (json) => JSON.parse(json) }
  }
  for (const [name, value] of Object.entries({ serialize, deserialize })) {
    if (isMissing(value)) throw invalid(`\`${name}\` is required, since the other one is given`)
    if (typeof value !== 'function') throw invalid(`\`${name}\` must be a function, and is ${describe(value)}`)
  }
  let compared = false
  return {
    check: (state) => checkJson(serialize(state), 'what `serialize` returned', seen),
    save: (state) => JSON.stringify(serialize(state)),
    load: (json, old) => {
      const state = deserialize(JSON.parse(json))
      // The first state is loaded by every node, so one that does not come back the same is found at once. A state of an
      // older version may come back in a newer form.
      if (!compared && !old && JSON.stringify(serialize(state)) !== json) {
        const message = 'what `deserialize` makes of a state is serialized to something else'
        throw fail('CANNOT_LOAD', `${message}: nodes that load the state would differ from those that computed it`)
      }
      compared ||= !old
      return state
    },
  }
}

/** Reports an error that user code threw where no caller can catch it, as an uncaught error. */
const report = (error) => {
  if (typeof reportError === 'function') reportError(error)
  else console.error(error)
}

/** The error of a node whose core has crashed; `cause` is what was thrown. */
const crashed = (cause) => {
  const message = `the core has crashed (${cause?.message ?? cause}), and all nodes here with it: reload the page, or start the process anew; what is stored is kept, and other nodes go on`
  return Object.assign(fail('CRASHED', message), { cause })
}

/** Disconnects a channel, if this is one, and makes the object's functions do nothing from now on. */
const mute = (object) => {
  try {
    object.disconnect?.()
  } catch {
    // It was never connected.
  }
  for (const name in object) if (name !== 'connected') object[name] = () => {}
}

/**
 * Makes the function `conflux`.
 * @param load returns the core's class; called when a node is made
 * @param platform what nodes need of the browser or of Node.js: storage, locks, page events, timers
 */
export const createConflux = (load, platform) => {
  class Conflux {
    #core
    #methods
    #serializer
    #migrate
    /** The local first state and its JSON, until the cluster's is there. */
    #first
    #tickets = new Map()
    #nextTicket = 1
    #subscribers = []
    #listeners = new Map()
    #leaderId = null
    #closing
    #closed
    #destroying = false
    /** The last values that the core has given, which stay readable if it crashes. */
    #state
    #provisional
    #status
    /** What the nodes of one WebAssembly instance share: how to end each of them, and why the instance crashed. */
    #instance
    /** Kept, because to collect it would be to call a core that may have crashed. */
    #kept
    /** What the channel threw when it was connected. */
    #unopened
    /** The error with which the node has crashed. */
    #error
    #tabs
    #files
    #page

    constructor(options) {
      if (options === null || typeof options !== 'object') {
        throw invalid(`conflux() wants an object of options, which is required, and got ${describe(options)}`)
      }
      const { methods, reduce, channel } = options
      for (const [name, value, type] of [
        ['methods', methods, 'object'],
        ['reduce', reduce, 'function'],
      ]) {
        if (value === undefined || value === null) {
          throw invalid(`\`${name}\` is required`)
        }
        if (typeof value !== type) {
          const article = type === 'object' ? 'an' : 'a'
          throw invalid(`\`${name}\` must be ${article} ${type}, and is ${describe(value)}`)
        }
      }
      for (const [name, method] of Object.entries(methods)) {
        if (typeof method !== 'function') {
          throw invalid(`\`methods.${name}\` must be a function, and is ${describe(method)}`)
        }
      }
      const checked = plain(options)
      this.#methods = methods
      const reduceOnce = (state, action) => {
        const next = reduce(state, action)
        if (next === undefined) {
          throw fail('REDUCER_FAILED', 'the reducer returned nothing: it must return a state')
        }
        if (isThenable(next)) {
          next.then(undefined, () => {})
          throw fail('REDUCER_FAILED', 'the reducer returned a Promise: it must be synchronous')
        }
        return next
      }
      const initial = reduceOnce(undefined, null)
      // Check now that the state can be saved, because snapshots carry it.
      this.#serializer = serializer(options)
      this.#serializer.check(initial)
      this.#first = { initial, json: this.#serializer.save(initial) }
      const { migrate } = options
      if (migrate !== undefined && migrate !== null && typeof migrate !== 'function') {
        throw invalid(`\`migrate\` must be a function, and is ${describe(migrate)}`)
      }
      this.#migrate = migrate
      const transport = this.#transport(channel)
      const isSet = (name) => options[name] !== undefined && options[name] !== null
      const elastic = channel?.name === 'broadcast' && !isSet('clusterSize') && !isSet('members')
      const missing = elastic && platform.missing()
      if (missing) {
        const message = 'without `clusterSize` the nodes of a cluster outlive their tabs, which needs'
        throw fail('UNSUPPORTED', `${message} ${missing}: give a \`clusterSize\``)
      }
      const inFiles = checked.storage?.name === 'file'
      if (inFiles && !platform.files) {
        throw fail('UNSUPPORTED', 'the storage `file` is for Node.js, and this is a browser: leave `storage` out')
      }
      const hidden = platform.hidden?.() ?? false
      const CoreNode = load()
      // At the class, because this file may have been loaded twice, and the class is there once for each instance.
      this.#instance = CoreNode.instance ??= { ends: new Map() }
      const hooks = this.#hooks(reduceOnce)
      let refusal
      const core = this.#guard(
        () => {
          try {
            return new CoreNode(checked, transport, hooks, initial, hidden)
          } catch (error) {
            // Wrong options have a code, and what a channel throws was thrown on purpose, too.
            if (error instanceof Error && error.code === undefined && error !== this.#unopened) throw error
            refusal = [error]
          }
        },
        () => {
          refusal = [crashed(this.#instance.cause)]
          mute(transport)
        },
      )()
      if (refusal) throw refusal[0]
      this.#kept = core
      this.#core = new Proxy(core, {
        get: (_, name) => this.#guard((...args) => core[name](...args), (...args) => this.#core[name]?.(...args)),
      })
      ;[this.#state, this.#provisional, this.#status] = [initial, initial, core.status()]
      this.#instance.ends.set(this, () => this.#crash(hooks, transport))
      if (elastic) this.#tabs = platform.tabs(checked, this.#core, (code, message) => this.#notice('error', code, message))
      if (inFiles) this.#files = platform.files(checked, this.#core)
      this.#page = platform.watchPage?.(this.#core, elastic)
    }

    /** Makes the channel that carries this node's frames. */
    #transport(options) {
      // The core reports a missing or unknown name.
      if (typeof options?.name !== 'string' || !Object.hasOwn(CHANNELS, options.name)) return undefined
      const make = CHANNELS[options.name]
      if (options.name === 'custom') {
        for (const name of ['connect', 'disconnect', 'send', 'broadcast']) {
          const value = options[name]
          if (value === undefined || value === null) throw invalid(`\`channel.${name}\` is required`)
          if (typeof value !== 'function') {
            throw invalid(`\`channel.${name}\` must be a function, and is ${describe(value)}`)
          }
        }
      }
      const channel = make(options, platform, (code, message) => this.#notice('error', code, message))
      for (const name of ['listen', 'unlisten', 'pause', 'resume']) channel[name] ??= () => {}
      const { connect } = channel
      channel.connect = (id, room) => {
        try {
          // While it connects there is no core yet, and once the node has ended what arrives is ignored.
          connect(id, (frame) => this.#core?.receive?.(frame), () => this.#core?.changed?.(), room)
        } catch (error) {
          this.#unopened = error
          throw error
        }
      }
      return channel
    }

    /**
     * Makes a function that enters the core through `enter`. What the core throws is a trap, a full stack or the like,
     * which may have left the memory anyhow: nothing enters this instance again, all its nodes end, and `instead` is
     * called. A stack that is full may not suffice for that; then the next one that would enter does it.
     */
    #guard(enter, instead) {
      return (...args) => {
        const instance = this.#instance
        if (!instance.cause) {
          try {
            return enter(...args)
          } catch (error) {
            instance.cause = error ?? 'unknown'
          }
        }
        for (const end of instance.ends.values()) end()
        return instead?.(...args)
      }
    }

    /** Ends the node because the core has crashed: releases everything, so that others take over, and tells the user. */
    #crash(hooks, channel) {
      if (this.#error) return
      const error = crashed(this.#instance.cause)
      // If user code entered the core, then what called that code is still running, and must not do any more harm.
      mute(hooks)
      mute(channel)
      this.#page?.end()
      this.#tabs?.close()
      const released = Promise.resolve(this.#files?.close()).catch(report)
      const status = () => {
        const phase = this.#closing ? 'closed' : 'refused'
        return { ...this.#status, phase, role: 'follower', leaderId: null, connected: false }
      }
      this.#replace(error, status, () => released.then(() => this.#closed?.()))
      queueMicrotask(() => {
        this.#notice('error', error.code, error.message)
        for (const ticket of [...this.#tickets.keys()]) this.#settle(ticket, error)
        this.#core.close()
      })
      this.#error = error
    }

    /** Replaces the core of a node that has ended. The last state stays readable. */
    #replace(error, status, close) {
      const refuse = (ticket) => queueMicrotask(() => this.#settle(ticket, error))
      this.#core = {
        state: () => this.#state,
        provisional: () => this.#provisional,
        status,
        perform: refuse,
        read: refuse,
        destroy: refuse,
        close,
      }
    }

    /** Called when the node has closed. Keeps the last state readable and frees the core's memory. */
    #retire() {
      const core = this.#core
      this.#page?.end()
      this.#tabs?.close()
      this.#look()
      const status = this.status()
      this.#instance.ends.delete(this)
      this.#replace(fail('CLOSED', 'the node is closed'), () => status, () => {})
      // Not at once: the core is calling this function and is still in use.
      queueMicrotask(() => core.free())
    }

    /** The functions that the core calls. The core holds no borrow during a call, so they may call the node again. */
    #hooks(reduce) {
      return {
        judge: (name, args) => {
          const method = Object.hasOwn(this.#methods, name) ? this.#methods[name] : undefined
          if (typeof method !== 'function') {
            throw fail('UNKNOWN_METHOD', `${name} is not a registered method`)
          }
          const action = method.apply(this, JSON.parse(args))
          if (action === null || action === undefined) return undefined
          if (action instanceof Error) throw action
          if (isThenable(action)) {
            // Nobody else handles the Promise: without this, a rejection would be reported as unhandled.
            action.then(undefined, () => {})
            throw fail('ASYNC_METHOD', `\`${name}\` returned a Promise: methods must be synchronous`)
          }
          return toJson(action, `the action of \`${name}\``)
        },
        reduce: (state, action) => reduce(state, JSON.parse(action)),
        check: (state) => this.#serializer.check(state),
        save: (state) => this.#serializer.save(state),
        load: (json, old) => {
          const state = this.#serializer.load(json, old)
          // The same object as long as the state is the same.
          const first = this.#first
          this.#first = undefined
          return first?.json === json ? first.initial : state
        },
        migrate: (state, from) => {
          if (!this.#migrate) throw fail('MIGRATION_FAILED', `there is no \`migrate\` for a state of version ${from}`)
          const next = this.#migrate(state, from)
          if (isThenable(next)) {
            next.then(undefined, () => {})
            throw fail('MIGRATION_FAILED', '`migrate` returned a Promise: it must be synchronous')
          }
          this.#serializer.check(next)
          return this.#serializer.save(next)
        },
        diverged: (index, action, code, message) => {
          const divergence = { index, code, message }
          if (action !== undefined) divergence.action = JSON.parse(action)
          this.#emit('divergence', divergence)
        },
        committed: () => this.#notifySubscribers(),
        entry: (index, term, node, action) => {
          const entry = { index, term, nodeId: node ?? null }
          if (action !== undefined) entry.action = JSON.parse(action)
          this.#emit('commit', entry)
        },
        action: (ticket, action) => {
          let value
          try {
            value = JSON.parse(action)
          } catch (error) {
            return this.#settle(ticket, fail('NOT_JSON', `the action is not JSON: ${error.message}`))
          }
          this.#settle(ticket, null, value)
        },
        nothing: (ticket) => this.#settle(ticket, null),
        failed: (ticket, code, message) => this.#settle(ticket, fail(code, message)),
        notice: (kind, code, message) => this.#notice(kind, code, message),
        ask: (...what) => this.#tabs.ask(...what),
        write: (...batch) => this.#tabs.write(...batch),
        record: (...record) => this.#files.write(...record),
        wake: (ms) => this.#page?.wake(ms),
        turn: (due) => queueMicrotask(() => this.#core?.turn?.(due)),
      }
    }

    /** Reads the states, so that they are the newest ones if the core crashes. */
    #look() {
      this.getState()
      this.getProvisionalState()
    }

    /** Calls all subscribers. One that is removed by another one is not called any more. */
    #notifySubscribers() {
      this.#look()
      for (const subscriber of [...this.#subscribers]) {
        if (this.#subscribers.includes(subscriber)) this.#call(subscriber.callback)
      }
    }

    #call(callback, ...args) {
      try {
        callback(...args)
      } catch (error) {
        report(error)
      }
    }

    #settle(ticket, error, value) {
      const settle = this.#tickets.get(ticket)
      this.#tickets.delete(ticket)
      settle?.(error, value)
    }

    /** Makes a ticket, which identifies a perform or read, and its promise; with a callback, `undefined` instead. */
    #ticket(callback) {
      const ticket = this.#nextTicket++
      if (typeof callback === 'function') {
        this.#tickets.set(ticket, (error, value) => {
          if (error) this.#call(callback, error)
          else if (value === undefined) this.#call(callback, null)
          else this.#call(callback, null, value)
        })
        return [ticket, undefined]
      }
      const promise = new Promise((resolve, reject) => {
        this.#tickets.set(ticket, (error, value) => (error ? reject(error) : resolve(value)))
      })
      return [ticket, promise]
    }

    perform(name, ...rest) {
      const callback = typeof rest.at(-1) === 'function' ? rest.pop() : undefined
      let [args, timeout] = rest
      if (typeof args === 'number') [args, timeout] = [undefined, args]
      const [ticket, promise] = this.#ticket(callback)
      try {
        if (typeof name !== 'string') {
          throw fail('INVALID_ARGUMENT', `perform() wants a method's name, and got ${describe(name)}`)
        }
        if (args !== undefined && args !== null && !Array.isArray(args)) {
          throw fail('INVALID_ARGUMENT', `perform() wants a list of arguments, and got ${describe(args)}`)
        }
        if (timeout !== undefined && timeout !== null && typeof timeout !== 'number') {
          throw fail('INVALID_ARGUMENT', `perform() wants a timeout in ms, and got ${describe(timeout)}`)
        }
        // The original package uses -1 for "no timeout".
        const limit = timeout >= 0 && timeout < Infinity ? timeout : undefined
        // JSON cannot carry `undefined` in a list.
        const list = (args ?? []).map((arg) => (arg === undefined ? null : arg))
        this.#core.perform(ticket, name, toJson(list, 'the arguments'), limit)
      } catch (error) {
        queueMicrotask(() => this.#settle(ticket, error))
      }
      return promise
    }

    read(callback) {
      const [ticket, promise] = this.#ticket(callback)
      this.#core.read(ticket)
      return promise
    }

    subscribe(callback) {
      if (typeof callback !== 'function') {
        throw fail('INVALID_ARGUMENT', `subscribe() wants a function, and got ${describe(callback)}`)
      }
      const subscriber = { callback }
      if (!this.#closed) this.#subscribers.push(subscriber)
      return () => {
        this.#subscribers = this.#subscribers.filter((other) => other !== subscriber)
      }
    }

    getState() {
      return (this.#state = this.#core.state())
    }

    getProvisionalState() {
      return (this.#provisional = this.#core.provisional())
    }

    status() {
      return (this.#status = this.#core.status())
    }

    on(event, callback) {
      if (!EVENTS.includes(event)) {
        const message = `on() knows the events ${EVENTS.slice(0, -1).join(', ')} and ${EVENTS.at(-1)}`
        throw fail('INVALID_ARGUMENT', `${message}, and got ${describe(event)}`)
      }
      if (typeof callback !== 'function') {
        throw fail('INVALID_ARGUMENT', `on() wants a function, and got ${describe(callback)}`)
      }
      const listener = { callback }
      const change = (listeners) => {
        this.#listeners.set(event, listeners)
        // The core passes committed actions to the shell only while there are listeners for them.
        if (event === 'commit') this.#core.watch?.(listeners.length > 0)
      }
      change([...(this.#listeners.get(event) ?? []), listener])
      return () => change(this.#listeners.get(event).filter((other) => other !== listener))
    }

    simulate({ paused, isolated } = {}) {
      const now = this.status()
      this.#core.simulate?.(paused ?? now.paused, isolated ?? now.isolated)
      this.#emit('status', this.status())
    }

    close(callback) {
      this.#closing ??= new Promise((resolve) => {
        this.#closed = resolve
        this.#subscribers = []
        this.#core.close()
      })
      if (typeof callback !== 'function') return this.#closing
      this.#closing.then(() => this.#call(callback, null))
      return undefined
    }

    destroy() {
      if (!this.#tabs) {
        const message = 'destroy() is for clusters that store something: this one has a `clusterSize`'
        throw fail('UNSUPPORTED', message)
      }
      this.#destroying = true
      const [ticket, destroyed] = this.#ticket()
      const settle = (error) => this.#settle(ticket, error)
      this.#tabs.destroyed.then(() => settle(null), settle)
      this.#core.destroy(ticket)
      // A node that has crashed has ended already.
      return destroyed.finally(() => (this.#error ? undefined : this.close()))
    }

    #emit(event, value) {
      for (const { callback } of this.#listeners.get(event) ?? []) this.#call(callback, value)
    }

    #notice(kind, code, message) {
      const status = this.status()
      if (kind === 'error') {
        if (code === 'DESTROYED' && this.#destroying) return
        if (this.#error && code !== this.#error.code) return
        const error = this.#error ?? fail(code, message)
        if (this.#listeners.get('error')?.length) this.#emit('error', error)
        else console.warn(`conflux: ${message} (${code})`)
      } else if (kind === 'leader') {
        // When the notice arrives the leader may be the same again, for example after a short time without one.
        if (status.leaderId !== this.#leaderId) this.#emit('leader', (this.#leaderId = status.leaderId))
      } else if (kind === 'outdated') {
        this.#emit('outdated', Number(code))
      } else if (kind === 'state') {
        this.#notifySubscribers()
      } else if (kind === 'members') {
        this.#emit('members', status.members)
      } else if (kind === 'closed') {
        this.#retire()
        // Resolve only when the folder is released: the caller may then open the same folder again.
        const closed = this.#files?.close().catch(report)
        if (closed) closed.then(() => this.#closed?.())
        else this.#closed?.()
      }
      this.#emit('status', status)
    }
  }

  return function conflux(options) {
    return new Conflux(options)
  }
}
