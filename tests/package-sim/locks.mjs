// Web Locks: exclusive ones, with queues. The browser's side outlives pages; what a page is told are tasks of the page.

export class Locks {
  /** By name, who has the lock; and the requests that wait for it. */
  #held = new Map()
  #queues = new Map()

  constructor(world) {
    this.world = world
  }

  /** A page's `navigator.locks`. */
  of(page) {
    return {
      request: (name, options, callback) => {
        page.effect()
        return new page.global.Promise((resolve, reject) => this.#request({ page, name, options, callback, resolve, reject }))
      },
    }
  }

  /**
   * The names of the locks that a page has, or for which it waits. A lock that was granted when the page stood still
   * already does not count: the page cannot know of it, and others must steal it.
   */
  heldBy(page) {
    const held = [...this.#held].filter(([, { page: holder, isSeen }]) => holder === page && isSeen).map(([name]) => name)
    const waiting = [...this.#queues].filter(([, queue]) => queue.some((other) => other.page === page))
    return [...held, ...waiting.map(([name]) => `${name} (waits)`)]
  }

  names() {
    return [...this.#held.keys()]
  }

  #request(request) {
    const { page, name, options, reject } = request
    const { signal } = options
    if (signal && (options.steal || options.ifAvailable)) {
      return reject(new DOMException('such a request cannot be aborted', 'NotSupportedError'))
    }
    if (signal?.aborted) return reject(signal.reason)
    signal?.addEventListener('abort', () => {
      // A lock that the page has been given cannot be taken from it like this.
      if (request.isSeen) return
      request.isAborted = true
      const queue = this.#queues.get(name) ?? []
      // The lock may have been granted, and the page not know it yet: then the page gives it back when it hears of it.
      if (queue.includes(request)) queue.splice(queue.indexOf(request), 1)
      reject(signal.reason)
    })
    const arrive = () => {
      if (page.isGone || request.isAborted) return undefined
      const holder = this.#held.get(name)
      if (options.steal) {
        if (holder) this.take(name, true)
        return this.#grant(request)
      }
      if (!holder && !this.#queues.get(name)?.length) return this.#grant(request)
      if (options.ifAvailable) return page.task('lock', this.#delay(), () => this.#call(request, null))
      if (!this.#queues.has(name)) this.#queues.set(name, [])
      return this.#queues.get(name).push(request)
    }
    return this.world.schedule(this.#delay(), arrive)
  }

  #delay() {
    return this.world.random.between(30, this.world.conditions.lock)
  }

  #grant(request) {
    const { page, name } = request
    this.#held.set(name, request)
    page.task('lock', this.#delay(), () => {
      if (request.isAborted) return this.#release(request)
      return this.#call(request, { name, mode: 'exclusive' })
    })
  }

  #call(request, lock) {
    const { page, callback, resolve, reject } = request
    let result
    request.isSeen = true
    try {
      result = callback(lock)
    } catch (error) {
      result = page.global.Promise.reject(error)
    }
    const settle = (settled) => (value) => {
      // A lock that was stolen has been settled already.
      settled(value)
      if (lock) this.#release(request)
    }
    page.global.Promise.resolve(result).then(settle(resolve), settle(reject))
  }

  #release(request) {
    const { name, page } = request
    if (request.isReleasing || page.isGone) return
    request.isReleasing = true
    this.world.schedule(this.#delay(), () => {
      if (this.#held.get(name) !== request) return
      this.#held.delete(name)
      this.#next(name)
    })
  }

  #next(name) {
    if (this.#held.has(name)) return
    const request = this.#queues.get(name)?.shift()
    if (request) this.#grant(request)
  }

  /** Takes a lock away from its holder. With `tell` the holder gets to know. */
  take(name, tell) {
    const { page, reject } = this.#held.get(name)
    this.#held.delete(name)
    if (tell) page.task('lock', this.#delay(), () => reject(new DOMException('the lock was stolen', 'AbortError')))
    return page
  }

  /** Somebody else drops or steals a lock, and it goes to the next who waits. */
  drop(name, tell) {
    const page = this.take(name, tell)
    this.#next(name)
    return page
  }

  /** The browser notices that a page is gone. */
  disconnect(page) {
    for (const queue of this.#queues.values()) {
      for (let at = queue.length - 1; at >= 0; at--) if (queue[at].page === page) queue.splice(at, 1)
    }
    for (const [name, holder] of [...this.#held]) {
      if (holder.page !== page) continue
      this.#held.delete(name)
      this.#next(name)
    }
  }
}
