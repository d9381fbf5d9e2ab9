// A browser with pages of one site, and time of its own. Everything that happens is an event of one queue; after each, the
// pages' microtasks run until there are none. The same seed gives the same run.

import { Channels } from './channels.mjs'
import { conditionsOf, Faults } from './faults.mjs'
import { Clients } from './clients.mjs'
import { FATAL, Ledger } from './ledger.mjs'
import { Locks } from './locks.mjs'
import { Page } from './page.mjs'
import { Random } from './random.mjs'
import { Storage } from './storage.mjs'

const CLUSTER = 'app'

/** Waits until all microtasks have run. */
const turn = () => new Promise((resolve) => setImmediate(resolve))

export class World {
  now = 1_000_000
  events = 0
  /** The pages whose code has run since the last turn. */
  entered = new Set()
  /** One page for each tab; `undefined` for one that is closed. */
  tabs = []
  failure
  isDone = false
  /** When the faults stopped. */
  healed
  trace = []
  stats = { ops: 0, acknowledged: 0, opened: 0, died: 0, frozen: 0, founded: 0, orphans: 0 }
  #queue = []
  #scheduled = 0
  #hash = 0x811c9dc5
  #pages = 0

  /**
   * @param {object} script what `bundle` made
   * @param {{ seed: number, steps?: number, trace?: boolean }} plan how many events there are before the faults stop
   */
  constructor(script, { seed, steps = 2_000, trace = false }) {
    Object.assign(this, { script, seed, steps, isTraced: trace })
    this.random = new Random(seed)
    this.conditions = conditionsOf(this.random)
    this.storage = new Storage(this)
    this.locks = new Locks(this)
    this.channels = new Channels(this)
    this.ledger = new Ledger(this, `conflux:${CLUSTER}`)
    this.storage.onCommit = (database, back) => this.ledger.committed(database, back)
    this.faults = new Faults(this)
    this.clients = new Clients(this)
  }

  // Events

  schedule(delay, run) {
    const queue = this.#queue
    const event = { at: this.now + Math.max(0, Math.round(delay)), number: this.#scheduled++, run }
    let at = queue.push(event) - 1
    // A binary heap, the earliest event first.
    while (at > 0) {
      const above = (at - 1) >> 1
      if (isBefore(queue[above], event)) break
      queue[at] = queue[above]
      at = above
    }
    queue[at] = event
  }

  #next() {
    const queue = this.#queue
    const first = queue[0]
    const last = queue.pop()
    if (queue.length === 0 || last === first) return first
    let at = 0
    for (;;) {
      let below = 2 * at + 1
      if (below >= queue.length) break
      if (below + 1 < queue.length && isBefore(queue[below + 1], queue[below])) below += 1
      if (isBefore(last, queue[below])) break
      queue[at] = queue[below]
      at = below
    }
    queue[at] = last
    return first
  }

  /** Adds a line to the trace, and to the hash of everything that happened. */
  note(line) {
    const text = `${(this.now / 1000).toFixed(3).padStart(12)} ms  ${line}`
    if (this.isTraced) this.trace.push(text)
    for (let at = 0; at < text.length; at++) this.#hash = Math.imul(this.#hash ^ text.charCodeAt(at), 0x01000193)
  }

  get hash() {
    return (this.#hash >>> 0).toString(16)
  }

  /** Something does not hold. The first such thing ends the run. */
  fail(page, what, error) {
    const why = error?.stack ?? error
    this.failure ??= `${page ? `page ${page.name} ` : ''}${what}${why ? `: ${why}` : ''}`
    this.note(`FAILURE: ${this.failure}`)
  }

  async run() {
    const rejected = (error) => this.fail(undefined, 'a promise was rejected, and nobody handles it', error)
    const ignoreDead = (error) => {
      if (error?.constructor?.name !== 'Dead') rejected(error)
    }
    process.on('unhandledRejection', ignoreDead)
    try {
      this.faults.begin()
      while (!this.isDone && !this.failure) {
        await this.#step()
        if (this.events >= this.steps && this.healed === undefined) this.faults.heal()
      }
      await turn()
    } finally {
      process.off('unhandledRejection', ignoreDead)
      // The pages' promises must not settle any more, or they would report to a run that has ended.
      for (const page of this.pages()) page.isDead = true
    }
    this.note(`the run ends after ${this.events} events`)
    return { seed: this.seed, failure: this.failure, hash: this.hash, events: this.events, trace: this.trace, stats: this.stats }
  }

  async #step() {
    const event = this.#next()
    this.now = event.at
    this.events += 1
    event.run()
    await this.#settle()
  }

  /** Lets so many ms pass, for tests that decide themselves what happens. */
  async pass(ms) {
    const until = this.now + ms * 1000
    await this.#settle()
    while (this.#queue.length > 0 && this.#queue[0].at <= until) await this.#step()
    this.now = until
  }

  async #settle() {
    while (this.entered.size > 0) {
      await turn()
      const entered = [...this.entered]
      this.entered.clear()
      for (const page of entered) page.finishTask()
    }
  }

  // Pages

  pages() {
    return this.tabs.filter((page) => page && !page.isDead)
  }

  awake() {
    return this.pages().filter(({ frozen }) => frozen === 'no')
  }

  open() {
    const closed = this.tabs.findIndex((page) => !page || page.isDead)
    const tab = closed < 0 ? this.tabs.length : closed
    if (tab >= this.conditions.tabs) return
    const page = new Page(this, tab, ++this.#pages)
    this.tabs[tab] = page
    this.stats.opened += 1
    this.note(`page ${page.name} opens`)
    const { election, maxVoters, durability } = this.conditions
    const options = { cluster: CLUSTER, electionTimeout: election, maxVoters, durability }
    page.enter(() => page.load(options).catch((error) => page.isDead || this.fail(page, 'cannot load the package', error)))
    this.clients.begin(page)
  }

  /** A page dies at once. The browser notices a little later. */
  kill(page, why) {
    if (page.isDead) return
    this.note(`page ${page.name} ${why}`)
    page.isDead = true
    this.stats.died += 1
    this.channels.disconnect(page)
    this.schedule(this.random.between(1_000, 80_000), () => {
      page.isGone = true
      this.storage.disconnect(page)
      this.locks.disconnect(page)
    })
  }

  evict(page) {
    this.kill(page, 'is thrown out of the back/forward cache')
  }

  /** What a page's node reports. */
  observe(page, what, [first, second]) {
    if (what === 'commit') {
      this.note(`page ${page.name} commits ${second} at ${first}`)
      this.ledger.commit(page, first, second)
    } else if (what === 'state') {
      this.ledger.state(page)
    } else {
      this.note(`page ${page.name} reports ${first}: ${second}`)
      this.#reported(page, first, second)
    }
  }

  /** Every error that a node reports must have a reason. */
  #reported(page, code, message) {
    const unexpected = (why) => this.fail(page, `reports ${code}, although ${why}`, message)
    if (code === 'STORAGE_BLOCKED') {
      page.isBlocked = true
      return undefined
    }
    if (page.stopped) return unexpected(`it had stopped with ${page.stopped} before`)
    if (!FATAL.includes(code)) return unexpected('nothing has happened that explains it')
    page.stopped = code
    if (code === 'DESTROYED' && !this.faults.isDestroyed) return unexpected('nobody has called destroy()')
    const { isDestroyed, isCleared } = this.faults
    if (code === 'STORAGE_LOST' && !isDestroyed && !isCleared) return unexpected('nothing was deleted')
    // A single temporary error is for the package to deal with.
    if (code === 'STORAGE_FAILED' && page.quotaErrors === 0 && page.transientErrors < 4) {
      return unexpected(`there were only ${page.transientErrors} temporary errors`)
    }
    return this.faults.stopped(page)
  }
}

const isBefore = (a, b) => a.at < b.at || (a.at === b.at && a.number < b.number)
