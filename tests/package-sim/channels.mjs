// What carries messages: BroadcastChannel between pages, MessageChannel within one, and the worker that has timers.

import { clone } from './clone.mjs'

/** All BroadcastChannels of a browser. They lose, repeat, delay and reorder, if the run's conditions say so. */
export class Channels {
  /** By name. */
  #open = new Map()

  constructor(world) {
    this.world = world
  }

  /** Makes a page's class `BroadcastChannel`. */
  of(page) {
    const channels = this
    return class BroadcastChannel {
      onmessage = null
      #isClosed = false

      constructor(name) {
        page.effect()
        this.name = name
        this.page = page
        if (!channels.#open.has(name)) channels.#open.set(name, new Set())
        channels.#open.get(name).add(this)
      }

      postMessage(data) {
        page.effect()
        if (this.#isClosed) throw new DOMException('the channel is closed', 'InvalidStateError')
        channels.#post(this, data)
      }

      close() {
        this.#isClosed = true
        channels.#open.get(this.name).delete(this)
      }
    }
  }

  /** The names of the channels that a page has open. */
  openedBy(page) {
    return [...this.#open].filter(([, those]) => [...those].some((one) => one.page === page)).map(([name]) => name)
  }

  #post(from, data) {
    const { world } = this
    const { loss, repeats, latency } = world.conditions
    for (const to of this.#open.get(from.name)) {
      if (to === from || to.page.isDead) continue
      if (loss && world.random.chance(1, loss)) continue
      const times = repeats && world.random.chance(1, repeats) ? 2 : 1
      for (let nth = 0; nth < times; nth++) this.#deliver(to, data, world.random.between(100, latency))
    }
  }

  #deliver(to, data, delay) {
    const copy = clone(data)
    const { page } = to
    this.world.schedule(delay, () => {
      if (!this.#open.get(to.name).has(to)) return
      // A page in the back/forward cache is thrown out by a message.
      if (page.isCached && !page.isDead) return this.world.evict(page)
      page.deliver('message', () => {
        if (this.#open.get(to.name).has(to)) to.onmessage?.({ data: clone(copy, page.global) })
      })
    })
  }

  disconnect(page) {
    for (const those of this.#open.values()) {
      for (const one of those) if (one.page === page) those.delete(one)
    }
  }
}

/** Makes a page's class `MessageChannel`. */
export const messageChannelOf = (page) =>
  class MessageChannel {
    port1 = { onmessage: null, postMessage: (data) => this.#post(this.port2, data), close() {} }
    port2 = { onmessage: null, postMessage: (data) => this.#post(this.port1, data), close() {} }

    #post(port, data) {
      page.effect()
      const copy = clone(data)
      page.task('port', 10, () => port.onmessage?.({ data: clone(copy, page.global) }))
    }
  }

/**
 * Makes a page's class `Worker`, which runs the package's timer.js.
 * @param {import('node:vm').Script} script timer.js as a function of its globals
 */
export const workerOf = (page, script) =>
  class Worker {
    onmessage = null
    onerror = null

    constructor() {
      page.effect()
      const { world } = page
      if (world.conditions.worker === 'refused') throw new DOMException('the policy refuses workers', 'SecurityError')
      if (world.conditions.worker === 'broken') {
        page.task('worker', 3_000, () => this.onerror?.({ target: this }))
        return
      }
      const post = (data) => page.task('worker', 50, () => this.onmessage?.({ data }))
      const timers = new Map()
      let next = 1
      const setTimeout = (callback, ms) => {
        const id = next++
        timers.set(id, callback)
        // A worker's timers are not slowed down while its page is hidden, but they stand still with it.
        world.schedule(Math.max(0, ms) * 1000, () => {
          page.deliver('worker', () => {
            const callback = timers.get(id)
            timers.delete(id)
            callback?.()
          })
        })
        return id
      }
      const receive = script.runInContext(page.global)(setTimeout, (id) => timers.delete(id), post)
      this.postMessage = (data) => {
        page.effect()
        const copy = clone(data)
        page.task('worker', 50, () => receive({ data: copy }))
      }
    }

    postMessage() {}
  }
