// The browser's side of IndexedDB. Databases outlive pages. A page asks for connections, transactions and requests; the
// results reach it as tasks, so a page that stands still gets them late, and a dead one never.
//
// As in browsers: what is asked about one database is done in order; transactions whose scopes overlap run one after the
// other if one of them writes; a transaction without `commit()` ends only once its page has seen all results, and one
// with it ends without the page. A page that dies loses its transactions, except that one with `commit()` may end.

import { Connection, KeyRange, Transaction, compareKeys } from './indexeddb.mjs'

const error = (name, message = '') => new DOMException(message, name)

/** A database. It exists while its version is above 0. */
class Database {
  version = 0
  /** By name, each a map from keys to values. */
  stores = new Map()
  connections = new Set()
  /** The requests to open or to delete it that wait; the first one may be under way. */
  queue = []
  transactions = []
  /** How to undo what was committed since the last time that everything reached the disk. */
  unsynced = []

  constructor(name) {
    this.name = name
  }
}

export class Storage {
  /** By name. */
  databases = new Map()
  /** Until when nothing is answered. */
  stalledUntil = 0
  /** Called with a database and the transaction that was committed on it. */
  onCommit = () => {}

  constructor(world) {
    this.world = world
  }

  /** The databases that exist. */
  existing() {
    return [...this.databases.values()].filter(({ version }) => version > 0)
  }

  get(name) {
    if (!this.databases.has(name)) this.databases.set(name, new Database(name))
    return this.databases.get(name)
  }

  #after(step, most = this.world.conditions.storage) {
    const stall = Math.max(0, this.stalledUntil - this.world.now)
    this.world.schedule(stall + this.world.random.between(20, most), step)
  }

  // Opening and deleting

  open(page, name, version, request) {
    this.#enqueue(page, name, { kind: 'open', page, version, request })
  }

  remove(page, name, request) {
    this.#enqueue(page, name, { kind: 'delete', page, request })
  }

  #enqueue(page, name, asked) {
    page.send(() => {
      const database = this.get(name)
      asked.at = this.world.now
      database.queue.push(asked)
      if (database.queue.length === 1) this.#after(() => this.#next(database))
    })
  }

  /** Does the first request of the queue, or goes on with it. */
  #next(database) {
    const [asked] = database.queue
    if (!asked || asked.isUpgrading) return
    const { page, request, kind } = asked
    const finish = (failure, result) => {
      if (kind === 'open') this.#checkTold(asked)
      database.queue.shift()
      if (database.queue.length > 0) this.#after(() => this.#next(database))
      page.task('storage', 0, () => request.settle(failure, result))
    }
    if (page.isGone && kind === 'open') return finish(error('AbortError'))
    if (kind === 'open' && page.faults.open > 0) {
      page.faults.open -= 1
      page.transientErrors += 1
      return finish(error('UnknownError', 'the database could not be opened'))
    }
    const isUpgrade = kind === 'open' && asked.version > database.version
    if (kind === 'open' && !isUpgrade) {
      if (asked.version < database.version) return finish(error('VersionError'))
      return finish(null, this.#connect(page, database))
    }
    if (database.connections.size > 0) return this.#askToClose(database, asked)
    if (isUpgrade) return this.#upgrade(database, asked)
    this.#forget(database)
    return finish(null, undefined)
  }

  /** The user must be told if storage has not answered for more than three seconds, and the page could tell. */
  #checkTold({ page, at }) {
    const could = page.frozen === 'no' && page.awakeSince < at && !page.hidden && !page.isLeaving && !page.isDead
    if (could && this.world.now > at + 3_100_000 && !page.isBlocked) {
      this.world.fail(page, 'waits for storage, and its user is not told', '')
    }
  }

  #askToClose(database, asked) {
    if (!asked.hasAsked) {
      asked.hasAsked = true
      for (const connection of database.connections) {
        const tell = () => {
          if (!connection.front.isClosed) connection.front.onversionchange?.({ target: connection.front })
        }
        connection.page.task('storage', this.world.random.between(20, 2_000), tell)
      }
      this.world.note(`${database.name}: ${asked.kind} waits for ${database.connections.size} connections`)
      this.#after(() => this.#next(database), 5_000)
    } else if (!asked.isBlocked) {
      asked.isBlocked = true
      asked.page.task('storage', 0, () => asked.request.onblocked?.({ target: asked.request }))
    }
    // A connection that closes calls this again.
  }

  #connect(page, database) {
    const front = new Connection(page, database.name)
    const connection = { page, database, front, since: this.world.now, isLost: false, isClosing: false }
    // A connection knows the stores that were there when it was made.
    const names = new Set(database.stores.keys())
    database.connections.add(connection)
    front.backend = {
      hasStore: (name) => names.has(name),
      createStore(name) {
        database.stores.set(name, new Map())
        names.add(name)
      },
      begin: (transaction) => this.#begin(connection, transaction),
      close: () => page.send(() => this.#close(connection)),
    }
    page.connections.add(connection)
    return front
  }

  /** Makes a new database. If its page dies before it is done, there is none. */
  #upgrade(database, asked) {
    asked.isUpgrading = true
    database.maker = asked.page
    this.world.note(`${database.name} is made by page ${asked.page.name}`)
    const { page, request, version } = asked
    const front = this.#connect(page, database)
    const [connection] = database.connections
    const transaction = new Transaction(page, front, [], 'versionchange', 'default')
    transaction.state = 'waiting'
    const done = (failure) => {
      if (asked.isDone) return
      asked.isDone = true
      front.upgrade = undefined
      if (failure) {
        database.stores.clear()
        database.connections.delete(connection)
        front.isClosed = true
      } else {
        database.version = version
      }
      database.queue.shift()
      if (database.queue.length > 0) this.#after(() => this.#next(database))
      page.task('storage', 0, () => request.settle(failure, front))
    }
    connection.upgrading = () => done(error('AbortError', 'the page is gone'))
    transaction.backend = { commit: () => page.send(() => this.#after(() => done(null))), abort: done }
    page.task('storage', 0, () => {
      if (asked.isDone) return
      Object.assign(request, { readyState: 'done', result: front, transaction })
      transaction.state = 'active'
      front.upgrade = transaction
      request.onupgradeneeded?.({ target: request, oldVersion: 0, newVersion: version })
      page.afterTask(() => transaction.pause())
    })
  }

  #forget(database) {
    database.version = 0
    database.stores.clear()
    database.unsynced = []
    this.world.note(`${database.name} is deleted`)
  }

  #close(connection) {
    connection.isClosing = true
    this.#release(connection)
  }

  /** A connection is closed once its transactions have ended. */
  #release(connection) {
    const { database } = connection
    if (!connection.isClosing || database.transactions.some((other) => other.connection === connection)) return
    if (!database.connections.delete(connection)) return
    connection.page.connections.delete(connection)
    if (database.queue[0]?.hasAsked) this.#after(() => this.#next(database))
  }

  // Transactions

  #begin(connection, front) {
    const { page, database } = connection
    const back = {
      connection, front, database, names: front.names, isWrite: front.mode === 'readwrite', page,
      requests: [], undo: [], isStarted: false, isCommitting: false, isDone: false,
    }
    page.send(() => {
      if (connection.isLost || back.isDone) return this.#abort(back, error('UnknownError', 'the connection is lost'))
      database.transactions.push(back)
      this.#start(database)
    })
    return {
      request: (request) => page.send(() => {
        back.requests.push(request)
        this.#continue(back)
      }),
      commit: () => page.send(() => {
        back.isCommitting = true
        this.#continue(back)
      }),
      abort: (failure) => page.send(() => this.#abort(back, failure)),
    }
  }

  #start(database) {
    for (const [at, back] of database.transactions.entries()) {
      if (back.isStarted) continue
      const isInTheWay = (other) =>
        (other.isWrite || back.isWrite) && other.names.some((name) => back.names.includes(name))
      if (database.transactions.slice(0, at).some(isInTheWay)) continue
      back.isStarted = true
      this.#continue(back)
    }
  }

  #continue(back) {
    if (!back.isStarted || back.isDone || back.isScheduled) return
    if (back.requests.length === 0 && !back.isCommitting) return
    back.isScheduled = true
    this.#after(() => {
      back.isScheduled = false
      this.#work(back)
    })
  }

  /** Carries out all requests that are there, then commits if that was asked for. */
  #work(back, isLost = false) {
    if (back.isDone) return
    const { page, front } = back
    const requests = back.requests.splice(0)
    for (const [at, request] of requests.entries()) {
      const [failure, result] = this.#execute(back, request.operation)
      if (failure) {
        page.task('storage', 0, () => request.settle(failure))
        return this.#abort(back, failure)
      }
      // Once the end was asked for, results that nobody watches matter to nobody. Before, the page must have seen them.
      if (request.isWatched || !back.isCommitting) {
        const last = at === requests.length - 1
        page.task('storage', last ? this.world.random.below(40) : 0, () => front.deliver(request, null, result))
      }
    }
    if (requests.length > 0 && !isLost) return this.#continue(back)
    if (back.isCommitting) this.#commit(back, isLost)
    return undefined
  }

  /** Returns what failed, and the result. */
  #execute(back, { store: name, kind, key, value }) {
    const { page } = back
    if (page.faults.request > 0) {
      page.faults.request -= 1
      page.transientErrors += 1
      return [error('UnknownError', 'an internal error')]
    }
    const store = back.database.stores.get(name)
    const set = (key, value) => {
      const before = store.get(key)
      back.undo.push(() => (before === undefined ? store.delete(key) : store.set(key, before)))
      if (value === undefined) store.delete(key)
      else store.set(key, value)
    }
    const keys = () => [...store.keys()].sort(compareKeys)
    back.changed ||= !['get', 'getAll', 'lastKey'].includes(kind) && (name !== 'meta' || !String(key).startsWith('fence'))
    switch (kind) {
      case 'get':
        return [null, store.get(key)]
      case 'getAll':
        return [null, keys().map((key) => store.get(key))]
      case 'lastKey':
        return [null, store.size === 0 ? null : { key: keys().at(-1) }]
      case 'add':
        if (store.has(key)) return [error('ConstraintError', 'the key exists')]
        set(key, value)
        return [null, key]
      case 'put':
        set(key, value)
        return [null, key]
      case 'delete':
        for (const other of keys()) {
          if (key instanceof KeyRange ? key.includes(other) : other === key) set(other, undefined)
        }
        return [null, undefined]
      default:
        for (const other of keys()) set(other, undefined)
        return [null, undefined]
    }
  }

  /** Commits. If the connection `isLost`, the page does not hear of it. */
  #commit(back, isLost = false) {
    const { page, database, front } = back
    if (back.isWrite && back.changed && page.faults.quota > 0) {
      page.faults.quota -= 1
      page.quotaErrors += 1
      return this.#abort(back, error('QuotaExceededError', 'the disk is full'))
    }
    if (front.durability === 'strict') database.unsynced = []
    else database.unsynced.push(...back.undo)
    this.#end(back)
    this.onCommit(database, back)
    return page.task('storage', 0, () => front.ended(isLost ? error('UnknownError', 'the connection is lost') : undefined))
  }

  #abort(back, failure) {
    if (back.isDone) return
    for (const undo of back.undo.reverse()) undo()
    this.#end(back)
    back.page.task('storage', 0, () => back.front.ended(failure))
  }

  #end(back) {
    const { database, connection } = back
    back.isDone = true
    const at = database.transactions.indexOf(back)
    if (at >= 0) database.transactions.splice(at, 1)
    this.#release(connection)
    this.#start(database)
  }

  // Faults

  /** A connection breaks. What it was doing is undone, except that a transaction which had to end may have ended. */
  lose(connection) {
    const { database, page, front } = connection
    connection.isLost = true
    connection.upgrading?.()
    for (const back of database.transactions.filter((other) => other.connection === connection)) {
      if (back.isStarted && back.isCommitting && this.world.random.chance(1, 2)) {
        this.#work(back, true)
      }
      this.#abort(back, error('UnknownError', 'the connection is lost'))
    }
    page.transientErrors += 1
    connection.isClosing = true
    this.#release(connection)
    page.task('storage', 0, () => front.lost())
  }

  /** The browser notices that a page is gone. */
  disconnect(page) {
    for (const connection of [...page.connections]) {
      const { database } = connection
      connection.upgrading?.()
      for (const back of database.transactions.filter((other) => other.connection === connection)) {
        if (back.isCommitting && back.isStarted && this.world.random.chance(1, 2)) this.#work(back, true)
        this.#abort(back, error('AbortError'))
      }
      connection.isClosing = true
      this.#release(connection)
    }
    // What the page had asked for, and what has not begun, is forgotten, or a deletion is carried out all the same.
    for (const database of this.databases.values()) {
      const [first] = database.queue
      database.queue = database.queue.filter((asked) => {
        const isDropped = asked.page === page && asked !== first && this.world.random.chance(1, 2)
        if (isDropped && asked.kind === 'delete') this.world.ledger.droppedDeletion(database.name)
        return !isDropped
      })
    }
  }

  /** The user clears the site's data: the databases vanish, and all connections with them. */
  clear() {
    const existing = this.existing()
    for (const { connections } of existing) for (const connection of [...connections]) this.lose(connection)
    this.world.ledger.end('cleared')
    for (const database of existing) this.#forget(database)
  }

  /** The power fails, with all pages dead: what was not written strictly is lost. */
  powerCut() {
    for (const database of this.databases.values()) {
      for (const undo of database.unsynced.reverse()) undo()
      database.unsynced = []
    }
  }
}
