// What a page sees of IndexedDB: the objects of the API, as far as `tabs.js` uses it. They pass everything on to the
// browser's storage (storage.mjs), which outlives the page, and get the results as tasks of the page.

import { clone } from './clone.mjs'

const error = (name, message = '') => new DOMException(message, name)

/** Throws if a value is no key. Of the kinds of keys only numbers and strings are there. */
const checkKey = (key) => {
  if (typeof key === 'string' || (typeof key === 'number' && !Number.isNaN(key))) return key
  throw error('DataError', `${String(key)} is no valid key`)
}

export class KeyRange {
  constructor(lower) {
    this.lower = checkKey(lower)
  }

  static lowerBound(lower) {
    return new KeyRange(lower)
  }

  includes(key) {
    return compareKeys(key, this.lower) >= 0
  }
}

/** The order of keys: all numbers are before all strings. */
export const compareKeys = (a, b) => {
  if (typeof a !== typeof b) return typeof a === 'number' ? -1 : 1
  return a < b ? -1 : Number(a > b)
}

class Request {
  readyState = 'pending'
  result = undefined
  error = null
  onsuccess = null
  onerror = null

  constructor(transaction, operation) {
    this.transaction = transaction
    this.operation = operation
  }

  get isWatched() {
    return this.onsuccess !== null || this.onerror !== null
  }

  /** Called in a task of the page. */
  settle(failure, result) {
    this.readyState = 'done'
    this.error = failure ?? null
    this.result = failure ? undefined : result
    const handler = failure ? this.onerror : this.onsuccess
    handler?.({ target: this, type: failure ? 'error' : 'success' })
  }
}

class ObjectStore {
  #page
  #name

  constructor(page, transaction, name) {
    this.#page = page
    this.#name = name
    this.transaction = transaction
  }

  #ask(operation, isWrite) {
    this.#page.effect()
    const { transaction } = this
    if (transaction.state !== 'active') throw error('TransactionInactiveError', 'the transaction has ended')
    if (isWrite && transaction.mode === 'readonly') throw error('ReadOnlyError', 'the transaction only reads')
    const request = new Request(transaction, { store: this.#name, ...operation })
    transaction.requested(request)
    return request
  }

  get(key) {
    return this.#ask({ kind: 'get', key: checkKey(key) })
  }

  getAll() {
    return this.#ask({ kind: 'getAll' })
  }

  openKeyCursor(range, direction) {
    if (range !== null || direction !== 'prev') throw error('NotSupportedError', 'only the last key can be asked for')
    return this.#ask({ kind: 'lastKey' })
  }

  put(value, key) {
    return this.#ask({ kind: 'put', key: checkKey(key), value: clone(value) }, true)
  }

  add(value, key) {
    return this.#ask({ kind: 'add', key: checkKey(key), value: clone(value) }, true)
  }

  delete(key) {
    return this.#ask({ kind: 'delete', key: key instanceof KeyRange ? key : checkKey(key) }, true)
  }

  clear() {
    return this.#ask({ kind: 'clear' }, true)
  }
}

/** A transaction, as its page sees it. */
export class Transaction {
  /** `active`: requests can be made now. `waiting`: only once a result has arrived. `ending`, then `done`. */
  state = 'active'
  error = null
  oncomplete = null
  onabort = null
  /** How many results the page has not seen yet. */
  outstanding = 0
  #page
  #requests = []

  constructor(page, database, names, mode, durability) {
    Object.assign(this, { db: database, names, mode, durability })
    this.#page = page
    // A transaction is active until control returns to the event loop.
    page.afterTask(() => this.pause())
  }

  objectStore(name) {
    if (!this.names.includes(name)) throw error('NotFoundError', `${name} is not in the transaction's scope`)
    return new ObjectStore(this.#page, this, name)
  }

  requested(request) {
    this.#requests.push(request)
    this.outstanding += 1
    this.backend.request(request)
  }

  /** The task has ended. Without requests that wait, the transaction commits by itself. */
  pause() {
    if (this.state !== 'active') return
    this.state = 'waiting'
    if (this.outstanding === 0) this.#end()
  }

  #end() {
    this.state = 'ending'
    this.backend.commit()
  }

  commit() {
    this.#page.effect()
    if (this.state !== 'active') throw error('InvalidStateError', 'the transaction has ended')
    this.isExplicit = true
    this.#end()
  }

  abort() {
    this.#page.effect()
    if (!['active', 'waiting'].includes(this.state)) throw error('InvalidStateError', 'the transaction has ended')
    this.state = 'ending'
    this.backend.abort(null)
  }

  /** A result has arrived, in a task of its own. */
  deliver(request, failure, result) {
    this.outstanding -= 1
    if (this.state === 'waiting') this.state = 'active'
    try {
      request.settle(failure, clone(result, this.#page.global))
    } catch (thrown) {
      if (this.state !== 'done') this.backend.abort(error('AbortError', 'a handler has thrown'))
      throw thrown
    } finally {
      this.#page.afterTask(() => this.pause())
    }
  }

  ended(failure) {
    const isAborted = failure !== undefined
    this.state = 'done'
    this.error = failure ?? null
    if (isAborted) this.onabort?.({ target: this, type: 'abort' })
    else this.oncomplete?.({ target: this, type: 'complete' })
  }
}

/** A connection to a database, as its page sees it. */
export class Connection {
  onversionchange = null
  onclose = null
  isClosed = false
  #page

  constructor(page, name) {
    this.#page = page
    this.name = name
  }

  createObjectStore(name) {
    this.#page.effect()
    if (!this.upgrade || this.upgrade.state !== 'active') throw error('InvalidStateError', 'no upgrade is under way')
    this.backend.createStore(name)
    return new ObjectStore(this.#page, this.upgrade, name)
  }

  transaction(names, mode = 'readonly', { durability = 'default' } = {}) {
    this.#page.effect()
    if (this.isClosed) throw error('InvalidStateError', 'the connection is closed')
    const scope = [names].flat()
    for (const name of scope) {
      if (!this.backend.hasStore(name)) throw error('NotFoundError', `there is no object store ${name}`)
    }
    const transaction = new Transaction(this.#page, this, scope, mode, durability)
    transaction.backend = this.backend.begin(transaction)
    return transaction
  }

  close() {
    this.#page.effect()
    if (this.isClosed) return
    this.isClosed = true
    this.backend.close()
  }

  /** The browser has lost the connection, or its database was deleted without asking. */
  lost() {
    if (this.isClosed) return
    this.isClosed = true
    this.onclose?.({ target: this, type: 'close' })
  }
}

/** Makes a page's `indexedDB`. */
export const indexedDbOf = (page, storage) => ({
  open(name, version = 1) {
    page.effect()
    const request = Object.assign(new Request(null), { onupgradeneeded: null, onblocked: null })
    storage.open(page, name, version, request)
    return request
  },
  deleteDatabase(name) {
    page.effect()
    const request = Object.assign(new Request(null), { onblocked: null })
    storage.remove(page, name, request)
    return request
  },
})
