// What a browser gives to the nodes of a page: storage (IndexedDB), locks (Web Locks), and the page's
// own life. The core decides what to do with them; here it is done, in order, and answered.

/** Whether a cluster of tabs is possible here; if not, what is missing. */
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

const open = (name, stores) => {
  const request = indexedDB.open(name, 1)
  request.onupgradeneeded = () => stores.forEach((store) => request.result.createObjectStore(store))
  return done(request)
}

const REGISTRY = ['registry']
const NODE = ['meta', 'log']

/** Errors after which the same may well succeed on a new connection. */
const PASSING = ['InvalidStateError', 'UnknownError', 'AbortError', 'TransactionInactiveError']
const TRIES = 4

/** A key that whoever takes a node over leaves behind for each earlier owner. */
const fence = (epoch) => `fence:${epoch}`

/** One database, opened when it is needed, and again when its connection is lost. */
class Database {
  #name
  #stores
  #durability
  #db

  /** Called with each new connection, before anything else is done on it. */
  greet = () => {}

  constructor(name, stores, durability) {
    this.#name = name
    this.#stores = stores
    this.#durability = durability
  }

  #open() {
    this.#db ??= open(this.#name, this.#stores).then((db) => {
      const forget = () => {
        this.#db = undefined
      }
      // Somebody deletes it, or the browser has lost it: what comes next finds out what is left.
      db.onversionchange = () => {
        db.close()
        forget()
      }
      db.onclose = forget
      this.greet()
      return db
    })
    this.#db.catch(() => {
      this.#db = undefined
    })
    return this.#db
  }

  /**
   * One transaction. `body` gets the stores and a function that takes the result; it must ask for
   * everything that it does from within events of the transaction.
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
        if (attempt >= tries || !PASSING.includes(error?.name)) throw error
        await this.again(attempt)
      }
    }
  }

  /** Before another try: on a new connection, and after a pause. */
  again(attempt) {
    this.close()
    return new Promise((resolve) => setTimeout(resolve, 10 * 4 ** attempt))
  }

  close() {
    this.#db?.then((db) => db.close()).catch(() => {})
    this.#db = undefined
  }

  /** Deletes the database. Connections that stand still may hold that up; nobody waits for them. */
  remove() {
    this.close()
    indexedDB.deleteDatabase(this.#name)
  }
}

/** What is known here of one node's database. */
class Stored {
  queue = []
  busy = false
  /** The highest key of its log, as far as it was written from here. */
  last = Infinity
  /** Whether the record was seen on this connection. While one is open nobody can delete the database. */
  seen = false

  constructor(database) {
    this.database = database
    database.greet = () => {
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
  #life = 0
  #closed = false

  #destroyed

  /** Settles when everything that the cluster had stored is deleted. */
  destroyed = new Promise((resolve) => {
    this.#destroyed = resolve
  })

  constructor({ cluster, durability = 'strict' }, core) {
    this.#name = `conflux:${cluster}`
    this.#durability = durability
    this.#core = core
    this.#registry = new Database(this.#name, REGISTRY, 'strict')
  }

  /** The page's node is closed: nothing is answered any more. */
  close() {
    this.#closed = true
    this.#registry.close()
  }

  #answer(what, life, node, value) {
    if (!this.#closed) this.#core.answer(what, life, node, value)
  }

  #node(node) {
    if (!this.#nodes.has(node)) {
      const database = new Database(`${this.#name}:${node}`, NODE, this.#durability)
      this.#nodes.set(node, new Stored(database))
    }
    return this.#nodes.get(node)
  }

  /** Does what the core asks of storage and locks. */
  ask(what, life, node, value) {
    this.#life = life
    switch (what) {
      case 'try':
        return this.#lock(life, node, { ifAvailable: true })
      case 'await':
        return this.#lock(life, node, {})
      case 'steal':
        return this.#held.has(node) ? undefined : this.#lock(life, node, { steal: true })
      case 'unlock':
        return this.#unlock(node)
      case 'unlockAll':
        this.#registry.close()
        for (const stored of this.#nodes.values()) {
          stored.queue.length = 0
          stored.database.close()
        }
        this.#nodes.clear()
        for (const node of [...this.#waiting.keys(), ...this.#held.keys()]) this.#unlock(node)
        return undefined
      default:
        this.#store(what, node, value).then(
          ([answer, result]) => this.#answer(answer, life, node, result),
          (error) => this.#answer('failed', life, node, describe(error)),
        )
    }
    return undefined
  }

  #lock(life, node, options) {
    this.#waiting.get(node)?.abort()
    const controller = new AbortController()
    // A lock is stolen, or asked for only if it is free, at once: there is nothing to abort.
    if (!options.steal && !options.ifAvailable) {
      options.signal = controller.signal
      this.#waiting.set(node, controller)
    }
    let mine
    const granted = (lock) => {
      if (this.#waiting.get(node) === controller) this.#waiting.delete(node)
      if (life !== this.#life || controller.signal.aborted) return undefined
      this.#answer('lock', life, node, lock !== null)
      if (lock === null) return undefined
      return new Promise((release) => {
        mine = release
        this.#held.set(node, release)
      })
    }
    navigator.locks.request(`${this.#name}:${node}`, options, granted).catch(() => {
      // Either it was given up here, or somebody has taken it away.
      if (mine !== undefined && this.#held.get(node) === mine) {
        this.#held.delete(node)
        this.#answer('lost', life, node, undefined)
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

  /** Gives the kind of the answer, and the answer. */
  async #store(what, node, value) {
    const registry = (body) => this.#registry.run('readwrite', (store, result) => {
      store.get('cluster').onsuccess = ({ target }) => body(target.result, store, result)
    })
    switch (what) {
      case 'read':
        return ['registry', await registry((now, _, result) => result(now))]
      case 'found': {
        const founded = await registry((now, store, result) => {
          const mine = { incarnation: value, nodes: [node] }
          if (now === undefined) store.put(mine, 'cluster')
          result(now ?? mine)
        })
        if (founded.incarnation === value) navigator.storage?.persist?.().catch(() => {})
        return ['registry', founded]
      }
      case 'register': {
        const registered = await registry((now, store, result) => {
          if (now) store.put({ ...now, nodes: [...new Set([...now.nodes, node])] }, 'cluster')
          result(now !== undefined)
        })
        return [registered ? 'registered' : 'gone', undefined]
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
        const record = await this.#load(this.#node(node))
        // Without a registry it is not this node alone that is gone.
        const [, there] = record === undefined ? await this.#store('read') : [0, {}]
        return there === undefined ? ['gone', undefined] : ['loaded', record]
      }
      case 'delete': {
        // First the record, so that whoever still writes to it sees that it is gone.
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
        })
        for (const node of before?.nodes ?? []) this.#node(node).database.remove()
        this.#registry.remove()
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
        // `put` has taken a copy of the record: what is added now is not stored.
        meta.get('hard').onsuccess = into('hard')
        meta.get('snapshot').onsuccess = into('snapshot')
        log.getAll().onsuccess = into('log')
        log.openKeyCursor(null, 'prev').onsuccess = ({ target }) => {
          stored.last = target.result?.key ?? 0
        }
      }
    })
  }

  /** Writes a batch, with all others that gathered while the last transaction ran. */
  write(life, node, epoch, seq, hard, snapshot, first, entries) {
    const stored = this.#node(node)
    stored.queue.push({ life, epoch, seq, hard, snapshot, first, entries })
    if (!stored.busy) this.#drain(node, stored)
  }

  async #drain(node, stored) {
    stored.busy = true
    while (stored.queue.length > 0) {
      const batches = stored.queue.splice(0)
      const { life, epoch, seq } = batches.at(-1)
      try {
        const outcome = await this.#write(stored, epoch, batches)
        if (outcome === 'written') {
          this.#answer('persisted', life, node, seq)
        } else {
          // Without a registry it is not this node alone that is gone.
          const [, registry] = outcome === 'missing' ? await this.#store('read') : [0, {}]
          this.#answer(registry ? 'lost' : 'gone', life, node, undefined)
        }
      } catch (error) {
        this.#answer('failed', life, node, describe(error))
      }
    }
    stored.busy = false
  }

  /**
   * One transaction, whose every request is made at once. So it comes to its end also in a page that is
   * frozen in the middle of it, and does not stand in the way of whoever takes the node over.
   *
   * For the same reason the epoch is not read: whoever takes a node over leaves a key for the epoch
   * before, and to add the same key fails then, and with it the whole transaction.
   */
  async #write(stored, epoch, batches) {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#writeOnce(stored, epoch, batches)
      } catch (error) {
        if (error?.name === 'ConstraintError') return 'taken'
        if (attempt >= TRIES || !PASSING.includes(error?.name)) throw error
        // The next connection may be to another database.
        stored.seen = false
        await stored.database.again(attempt)
      }
    }
  }

  async #writeOnce(stored, epoch, batches) {
    const { database } = stored
    if (!stored.seen) {
      const record = await database.run('readonly', (meta, _, result) => {
        meta.get('record').onsuccess = ({ target }) => result(target.result)
      })
      if (record?.epoch !== epoch) return record ? 'taken' : 'missing'
      stored.seen = true
    }
    let last = stored.last
    const write = (meta, log) => {
      // On another connection than the one on which the record was seen, the database may be another.
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
let lives = 0
const ringing = new Map()

/** A timer that is not slow while the page is hidden. The page's own rings all the same, if late. */
const wake = (id, ms) => {
  if (worker === undefined) {
    try {
      worker = new Worker(new URL('./timer.js', import.meta.url), { type: 'module' })
      worker.onmessage = ({ data }) => ringing.get(data)?.()
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
 * Tells a core of its page's life, and gives it timers. `suspends`: it lets go of everything when the page
 * may stand still.
 */
const live = (core, suspends) => {
  if (typeof document === 'undefined') return { wake() {}, end() {} }
  const id = ++lives
  ringing.set(id, () => core.tick())
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
      ringing.delete(id)
      worker?.postMessage({ id, ms: -1 })
    },
  }
}

/** What the shell needs of a browser. */
export const browser = {
  missing,
  live,
  hidden: () => typeof document !== 'undefined' && document.hidden,
  tabs: (options, core) => new Tabs(options, core),
}
