// What nodes need of a browser: storage (IndexedDB), locks (Web Locks), page events and timers. The core decides what
// to do; this file does it, in order, and reports the result to the core.
//
// Two numbers protect against late results. The generation grows each time that the page releases everything:
// results of an earlier generation are ignored. The `epoch` grows each time that a tab takes a node over: writes of an
// earlier owner fail.

import { fail } from './errors.js'

/** Returns what an elastic cluster needs and this environment lacks; `undefined` if nothing is missing. */
const missing = () => {
  if (typeof indexedDB === 'undefined') return 'IndexedDB, which is not there'
  if (typeof document === 'undefined') return 'a page, and this is none'
  if (!navigator.locks) return 'Web Locks, which only secure pages have (https: or localhost)'
  return undefined
}

const done = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result)
    request.onerror = () => reject(request.error)
  })

/** After this time without an answer from IndexedDB the user is told why the page waits, in ms. */
const BLOCKED_AFTER = 3_000

/** Opens a database. `blocked` is called when that takes long: perhaps a page that stands still is in the way. */
const open = (name, stores, blocked) => {
  const request = indexedDB.open(name, 1)
  request.onupgradeneeded = () => stores.forEach((store) => request.result.createObjectStore(store))
  const timer = setTimeout(blocked, BLOCKED_AFTER)
  return done(request).finally(() => clearTimeout(timer))
}

const REGISTRY = ['registry']
const NODE = ['meta', 'log']

/** Names of errors that may be temporary: the transaction is tried again on a new connection. */
const TRANSIENT = ['InvalidStateError', 'UnknownError', 'AbortError', 'TransactionInactiveError']
const TRIES = 4

/** The key that fences off the owner with this epoch: the next owner of the node creates it (see `#write`). */
const fence = (epoch) => `fence:${epoch}`

/** One database, which is opened on first use and again after its connection is lost. */
class Database {
  #name
  #stores
  #durability
  #db

  #blocked

  /** Called with each new connection, before anything else is done on it. */
  onConnect = () => {}

  /** Called when a connection was closed, and not by this page. */
  onLost = () => {}

  constructor(name, stores, durability, blocked) {
    this.#name = name
    this.#stores = stores
    this.#durability = durability
    this.#blocked = blocked
  }

  #open() {
    // What was under way when everything was released must not hold the database in a page that may be frozen.
    if (this.isOver) throw new Error('storage is closed')
    this.#db ??= open(this.#name, this.#stores, this.#blocked).then((db) => {
      // The database is being deleted, or the browser has lost the connection. The next transaction opens a new
      // connection and finds out what is left.
      const forget = () => {
        this.#db = undefined
        this.onLost()
      }
      db.onversionchange = () => {
        db.close()
        forget()
      }
      db.onclose = forget
      this.onConnect()
      return db
    })
    this.#db.catch(() => {
      this.#db = undefined
    })
    return this.#db
  }

  /**
   * Runs one transaction, and again after a temporary error. `body` gets the stores and a function that sets the
   * result. It must make all its requests at once or in event handlers of this transaction, or the transaction ends
   * before they are made.
   */
  async run(mode, body, tries = TRIES) {
    for (let attempt = 1; ; attempt++) {
      try {
        const db = await this.#open()
        return await new Promise((resolve, reject) => {
          const transaction = db.transaction(this.#stores, mode, { durability: this.#durability })
          let result
          transaction.oncomplete = () => resolve(result)
          transaction.onabort = () => reject(transaction.error ?? new DOMException('', 'AbortError'))
          body(...this.#stores.map((store) => transaction.objectStore(store)), (value) => {
            result = value
          })
        })
      } catch (error) {
        if (attempt >= tries || !TRANSIENT.includes(error?.name)) throw error
        await this.again(attempt)
      }
    }
  }

  /** Prepares another attempt: closes the connection and pauses, 40 ms after the first attempt, then 160 and so on. */
  again(attempt) {
    this.close()
    return new Promise((resolve) => setTimeout(resolve, 10 * 4 ** attempt))
  }

  close() {
    this.#db?.then((db) => db.close()).catch(() => {})
    this.#db = undefined
  }

  /** Deletes the database. A frozen page's open connection can delay the deletion, so it is not awaited. */
  remove() {
    this.close()
    indexedDB.deleteDatabase(this.#name)
  }
}

/** A node's database, with what this page knows of its contents. */
class Stored {
  queue = []
  busy = false
  /** The highest key of the node's log, as far as it is known here. */
  last = Infinity
  /** Whether the record was seen on the current connection. While that is open, the database cannot be deleted. */
  seen = false

  constructor(database) {
    this.database = database
    database.onConnect = () => {
      this.seen = false
    }
  }
}

class Tabs {
  #name
  #durability
  #core
  #registry
  #nodes = new Map()
  #held = new Map()
  #waiting = new Map()
  #generation = 0
  /** The mark of the empty registry that this page has read: a random number. */
  #empty
  #closed = false
  #blocked

  #destroyed
  #notDestroyed

  /** Resolves when everything that the cluster had stored is deleted. */
  destroyed = new Promise((resolve, reject) => {
    this.#destroyed = resolve
    this.#notDestroyed = reject
  })

  constructor({ cluster, durability = 'strict' }, core, report) {
    this.#name = `conflux:${cluster}`
    this.#durability = durability
    this.#core = core
    let isReported = false
    this.#blocked = () => {
      if (isReported || this.#closed) return
      isReported = true
      const message = 'storage has not answered for three seconds: perhaps a tab that stands still holds it; the page waits'
      report('STORAGE_BLOCKED', `${message} on, and goes on once that tab is resumed or closed`)
    }
    this.#registry = new Database(this.#name, REGISTRY, 'strict', this.#blocked)
  }

  /** Called when the page's node has ended: releases everything, and reports nothing to the core any more. */
  close() {
    this.#closed = true
    this.ask('unlockAll')
  }

  #answer(what, generation, node, value) {
    if (!this.#closed) this.#core.answer(what, generation, node, value)
  }

  #node(node) {
    if (!this.#nodes.has(node)) {
      const database = new Database(`${this.#name}:${node}`, NODE, this.#durability, this.#blocked)
      const stored = new Stored(database)
      database.onLost = () => this.#check(node, stored)
      this.#nodes.set(node, stored)
    }
    return this.#nodes.get(node)
  }

  /** Does what the core asks of storage and locks; the core's `answer` gets the result. */
  ask(what, generation, node, value) {
    this.#generation = generation
    switch (what) {
      case 'try':
        return this.#lock(generation, node, { ifAvailable: true })
      case 'await':
        return this.#lock(generation, node, {})
      case 'steal':
        return this.#held.has(node) ? undefined : this.#lock(generation, node, { steal: true })
      case 'unlock':
        return this.#unlock(node)
      case 'unlockAll':
        this.#registry.close()
        for (const stored of this.#nodes.values()) {
          stored.database.close()
          stored.database.isOver = true
        }
        this.#nodes.clear()
        for (const node of [...this.#waiting.keys(), ...this.#held.keys()]) this.#unlock(node)
        return undefined
      default:
        this.#store(what, node, value).then(
          ([answer, result]) => this.#answer(answer, generation, node, result),
          (error) => this.#answer('failed', generation, node, describe(error)),
        )
    }
    return undefined
  }

  #lock(generation, node, options) {
    this.#waiting.get(node)?.abort()
    const controller = new AbortController()
    // Only a request that waits can be aborted. Stealing a lock, or trying it once, is decided at once.
    if (!options.steal && !options.ifAvailable) {
      options.signal = controller.signal
      this.#waiting.set(node, controller)
    }
    let mine
    const granted = (lock) => {
      if (this.#waiting.get(node) === controller) this.#waiting.delete(node)
      if (generation !== this.#generation || controller.signal.aborted) return undefined
      this.#answer('lock', generation, node, lock !== null)
      if (lock === null) return undefined
      return new Promise((release) => {
        mine = release
        this.#held.set(node, release)
      })
    }
    navigator.locks.request(`${this.#name}:${node}`, options, granted).catch(() => {
      // The request was aborted here, or another tab stole the lock.
      if (mine !== undefined && this.#held.get(node) === mine) {
        this.#held.delete(node)
        this.#answer('lost', generation, node, undefined)
      }
    })
  }

  #unlock(node) {
    this.#waiting.get(node)?.abort()
    this.#waiting.delete(node)
    const release = this.#held.get(node)
    this.#held.delete(node)
    release?.()
  }

  /** Does one storage operation. Resolves with the name of the answer and its value, for the core. */
  async #store(what, node, value) {
    const registry = (body) => this.#registry.run('readwrite', (store, result) => {
      store.get('cluster').onsuccess = ({ target }) => body(target.result, store, result)
    })
    switch (what) {
      case 'read': {
        // A mark tells this empty registry from one that is there after storage was deleted once more.
        const read = await registry((now, store, result) => {
          if (now !== undefined) return result([now])
          store.get('empty').onsuccess = ({ target: { result: mark = Math.random() } }) => {
            store.put(mark, 'empty')
            result([undefined, mark])
          }
          return undefined
        })
        // Only if the core has asked: a cluster must not be founded on what was read to see whether a node is still there.
        if (node) this.#empty = read[1]
        return ['registry', read[0]]
      }
      case 'found': {
        const founded = await registry((now, store, result) => {
          if (now !== undefined) return result(now)
          store.get('empty').onsuccess = ({ target: { result: mark } }) => {
            // Storage was deleted since this page read the registry, and the node's record may be gone with it.
            if (mark === undefined || mark !== this.#empty) return
            const mine = { incarnation: value, nodes: [node] }
            store.delete('empty')
            store.put(mine, 'cluster')
            result(mine)
          }
          return undefined
        })
        if (founded?.incarnation === value) navigator.storage?.persist?.().catch(() => {})
        return ['registry', founded]
      }
      case 'register': {
        const there = await registry((now, store, result) => {
          if (now?.incarnation === value) store.put({ ...now, nodes: [...new Set([...now.nodes, node])] }, 'cluster')
          result(now?.incarnation)
        })
        if (there === value) return ['registered', undefined]
        // The cluster for which the node was made is over, and perhaps another one was founded. Nobody will look for the
        // node's database.
        this.#node(node).database.remove()
        this.#nodes.delete(node)
        return [there === undefined ? 'storageLost' : 'lost', undefined]
      }
      case 'create': {
        const stored = this.#node(node)
        const [incarnation, hard, entries] = value
        await stored.database.run('readwrite', (meta, log) => {
          meta.put({ incarnation, epoch: 1 }, 'record')
          if (hard) meta.put(hard, 'hard')
          if (entries) log.put(entries, 1)
        })
        stored.last = 1
        return ['created', undefined]
      }
      case 'load': {
        const stored = this.#node(node)
        const record = await this.#load(stored)
        // To look for the record has made an empty database.
        if (record === undefined) stored.database.remove()
        // If the registry is missing, too, then all of the cluster's storage was deleted, not only this node's.
        const [, there] = record === undefined ? await this.#store('read') : [0, {}]
        return there === undefined ? ['storageLost', undefined] : ['loaded', record]
      }
      case 'delete': {
        // First clear the node's database and fence off all its owners, so that a tab that still writes to it notices.
        const { database } = this.#node(node)
        await database.run('readwrite', (meta, log) => {
          meta.get('record').onsuccess = ({ target: { result: record } }) => {
            meta.clear()
            log.clear()
            for (let epoch = 1; epoch <= record?.epoch; epoch++) meta.put(true, fence(epoch))
          }
        })
        database.remove()
        this.#nodes.delete(node)
        await registry((now, store) => {
          const nodes = now?.nodes.filter((other) => other !== node)
          if (now) store.put({ ...now, nodes }, 'cluster')
        })
        return ['deleted', undefined]
      }
      case 'deleteAll': {
        const before = await registry((now, store, result) => {
          store.clear()
          result(now)
        }).catch((error) => {
          // The core has stopped and does not report this any more.
          this.#notDestroyed(fail('STORAGE_FAILED', `storage does not let the cluster be deleted (${describe(error)})`))
          throw error
        })
        for (const node of before?.nodes ?? []) this.#node(node).database.remove()
        // The registry's database stays, empty. To delete it would be a later task of this page: if the page stood still
        // in between, it would delete the registry of the next cluster, and a second one could be founded beside it.
        this.#registry.close()
        this.#destroyed()
        return ['deleted', undefined]
      }
      default:
        throw new TypeError(`storage does not know \`${what}\``)
    }
  }

  #load(stored) {
    return stored.database.run('readwrite', (meta, log, result) => {
      meta.get('record').onsuccess = ({ target: { result: record } }) => {
        if (record === undefined) return
        const loaded = { ...record, epoch: record.epoch + 1 }
        meta.put(loaded, 'record')
        meta.put(true, fence(record.epoch))
        result(loaded)
        const into = (key) => ({ target }) => {
          loaded[key] = target.result
        }
        // `put` has copied the record, so the fields that are added from here on are not stored.
        meta.get('hard').onsuccess = into('hard')
        meta.get('snapshot').onsuccess = into('snapshot')
        log.getAll().onsuccess = into('log')
        log.openKeyCursor(null, 'prev').onsuccess = ({ target }) => {
          stored.last = target.result?.key ?? 0
        }
      }
    })
  }

  /** Writes a batch, together with all others that arrived while the previous transaction ran. */
  write(generation, node, epoch, seq, hard, snapshot, first, entries) {
    const stored = this.#node(node)
    stored.queue.push({ generation, epoch, seq, hard, snapshot, first, entries })
    if (!stored.busy) this.#drain(node, stored)
  }

  async #drain(node, stored) {
    stored.busy = true
    while (stored.queue.length > 0) {
      const batches = stored.queue.splice(0)
      const { generation, epoch, seq } = batches.at(-1)
      try {
        const outcome = await this.#write(stored, epoch, batches)
        if (outcome === 'written') {
          this.#answer('persisted', generation, node, seq)
        } else {
          // What waits is of the same owner or an earlier one.
          stored.queue.length = 0
          await this.#gone(node, stored, generation, outcome === 'missing')
        }
      } catch (error) {
        // Batches that wait build on this one: without it the log would have a gap. So nothing more is written.
        this.#answer('failed', generation, node, describe(error))
        return
      }
    }
    stored.busy = false
  }

  /**
   * Looks whether a node's storage is still there. Without this, a node that has no majority would never find out that
   * it was deleted: it has nothing to write.
   */
  async #check(node, stored) {
    const generation = this.#generation
    try {
      if ((await this.#record(stored)) === undefined) await this.#gone(node, stored, generation, true)
    } catch {
      // Storage does not answer now. The next write reports that, if it lasts.
    }
  }

  #record(stored) {
    return stored.database.run('readonly', (meta, _, result) => {
      meta.get('record').onsuccess = ({ target }) => result(target.result)
    })
  }

  /** Reports that a node is not this page's any more: another page has it, or its record `isMissing`. */
  async #gone(node, stored, generation, isMissing) {
    // To look for the record has made an empty database.
    if (isMissing) stored.database.remove()
    // If the registry is missing, too, then all of the cluster's storage was deleted, not only this node's.
    const [, registry] = isMissing ? await this.#store('read') : [0, {}]
    this.#answer(registry ? 'lost' : 'storageLost', generation, node, undefined)
  }

  /**
   * Writes batches in one transaction, all of whose requests are made at once. The transaction then completes even if
   * the page is frozen in the middle of it, and does not block the tab that takes the node over.
   *
   * For the same reason the epoch is not read and compared. The tab that takes a node over creates the key
   * `fence(epoch)` for the previous epoch. This transaction adds and deletes the same key for its own epoch. If the key
   * exists, `add` fails with a ConstraintError, and the whole transaction with it.
   */
  async #write(stored, epoch, batches) {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#writeOnce(stored, epoch, batches)
      } catch (error) {
        if (error?.name === 'ConstraintError') return 'taken'
        if (attempt >= TRIES || !TRANSIENT.includes(error?.name)) throw error
        // On a new connection the database may be another one: check the record again.
        stored.seen = false
        await stored.database.again(attempt)
      }
    }
  }

  async #writeOnce(stored, epoch, batches) {
    const { database } = stored
    if (!stored.seen) {
      const record = await this.#record(stored)
      if (record?.epoch !== epoch) return record ? 'taken' : 'missing'
      stored.seen = true
    }
    let last = stored.last
    const write = (meta, log) => {
      // The connection has changed since the record was seen, so this may be another database.
      if (!stored.seen) return meta.transaction.abort()
      meta.add(true, fence(epoch))
      meta.delete(fence(epoch))
      for (const { hard, snapshot, first, entries } of batches) {
        if (hard) meta.put(hard, 'hard')
        if (snapshot) {
          meta.put(snapshot, 'snapshot')
          log.clear()
          last = 0
        } else if (first !== undefined && first <= last) {
          log.delete(IDBKeyRange.lowerBound(first))
        }
        if (entries) {
          log.put(entries, first)
          last = first
        }
      }
      return meta.transaction.commit?.()
    }
    await database.run('readwrite', write, 1)
    stored.last = last
    return 'written'
  }
}

const describe = (error) => [error?.name, error?.message].filter(Boolean).join(': ')

let worker
let nextPage = 0
const timers = new Map()

/**
 * Sets a timer in a worker, because browsers delay the timers of a hidden page. If there is no worker, the core still
 * has the page's own timer, which may be late.
 */
const wake = (id, ms) => {
  if (worker === undefined) {
    try {
      worker = new Worker(new URL('./timer.js', import.meta.url), { type: 'module' })
      worker.onmessage = ({ data }) => timers.get(data)?.()
      worker.onerror = () => {
        worker = null
      }
    } catch {
      worker = null
    }
  }
  worker?.postMessage({ id, ms })
}

/**
 * Reports the page's events (hidden, frozen, left, resumed) to a core, and sets timers for it. With `suspends`, the
 * core releases its locks and storage before the page may be frozen.
 */
const watchPage = (core, suspends) => {
  if (typeof document === 'undefined') return { wake() {}, end() {} }
  const id = ++nextPage
  timers.set(id, () => core.turn(true))
  const listeners = [[document, 'visibilitychange', () => core.visible(!document.hidden)]]
  if (suspends) {
    listeners.push(
      [document, 'freeze', () => core.suspend()],
      [document, 'resume', () => core.resume()],
      [globalThis, 'pagehide', () => core.suspend()],
      [globalThis, 'pageshow', (event) => event.persisted && core.resume()],
    )
  }
  for (const [target, name, listener] of listeners) target.addEventListener(name, listener)
  return {
    wake: (ms) => wake(id, ms),
    end() {
      for (const [target, name, listener] of listeners) target.removeEventListener(name, listener)
      timers.delete(id)
      worker?.postMessage({ id, ms: -1 })
    },
  }
}

/** The platform `browser`, for `createConflux`. */
export const browser = {
  missing,
  watchPage,
  hidden: () => typeof document !== 'undefined' && document.hidden,
  tabs: (options, core, report) => new Tabs(options, core, report),
}
