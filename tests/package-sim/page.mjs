// A page: a realm of its own with the package in it, and everything that the browser gives to it. What happens to the
// page comes as tasks, which stand still while the page does.

import vm from 'node:vm'
import { messageChannelOf, workerOf } from './channels.mjs'
import { KeyRange, indexedDbOf } from './indexeddb.mjs'

/** Thrown by everything that a dead page calls: its code must not go on. */
export class Dead extends Error {}

/** Timers of a hidden page fire at whole seconds, and when it has been hidden for long, at whole minutes. */
const SECOND = 1_000_000

class Abort {
  aborted = false
  #listeners = []

  addEventListener(_, listener) {
    this.#listeners.push(listener)
  }

  abort() {
    if (this.aborted) return
    this.aborted = true
    this.reason = new DOMException('the request was aborted', 'AbortError')
    for (const listener of this.#listeners) listener()
  }
}

class AbortController {
  signal = new Abort()

  abort() {
    this.signal.abort()
  }
}

/** An object with listeners, such as `document`. */
class Target {
  #listeners = new Map()

  addEventListener = (name, listener) => {
    if (!this.#listeners.has(name)) this.#listeners.set(name, new Set())
    this.#listeners.get(name).add(listener)
  }

  removeEventListener = (name, listener) => {
    this.#listeners.get(name)?.delete(listener)
  }

  listenersOf(name) {
    return [...(this.#listeners.get(name) ?? [])]
  }
}

export class Page {
  /** `no`; `messages`: only messages arrive, and microtasks run; `all`: nothing happens. */
  frozen = 'no'
  /** Since when it is neither frozen nor hidden. */
  awakeSince = 0
  /** The page was told, so it has released everything. */
  isTold = false
  /** The page is in the back/forward cache. */
  isCached = false
  isDead = false
  /** The browser has noticed that the page is dead. */
  isGone = false
  hidden = false
  connections = new Set()
  /** How many of the next calls fail, by what fails. */
  faults = { open: 0, request: 0, quota: 0 }
  transientErrors = 0
  quotaErrors = 0
  /** The page dies at so many more calls of the browser. */
  crashAfter = Infinity
  #stash = []
  #outbox = []
  #lastAt = new Map()
  #afterTask = []
  #document = new Target()
  #window = new Target()

  constructor(world, tab, number) {
    Object.assign(this, { world, tab, number, name: `${tab}.${number}` })
    this.origin = world.now - world.random.below(1e9)
    this.hidden = false
    this.global = vm.createContext(vm.constants.DONT_CONTEXTIFY)
    this.#furnish()
  }

  /** Gives the realm what a browser gives to a page. */
  #furnish() {
    const { world, global } = this
    const page = this
    const timers = new Map()
    let nextTimer = 1
    const { random } = world
    Object.assign(global, {
      URL, TextEncoder, TextDecoder, DOMException, AbortController,
      IDBKeyRange: KeyRange,
      indexedDB: indexedDbOf(this, world.storage),
      BroadcastChannel: world.channels.of(this),
      MessageChannel: messageChannelOf(this),
      Worker: workerOf(this, world.script.worker),
      navigator: { locks: world.locks.of(this), storage: { persist: () => global.Promise.resolve(true) } },
      document: Object.assign(this.#document, {}),
      addEventListener: this.#window.addEventListener,
      removeEventListener: this.#window.removeEventListener,
      performance: { now: () => (world.now - this.origin) / 1000 },
      queueMicrotask: (callback) => global.Promise.resolve().then(() => page.enter(callback)),
      setTimeout(callback, ms = 0) {
        page.effect()
        const id = nextTimer++
        timers.set(id, callback)
        world.schedule(page.#slow(Math.max(ms, 0) * 1000), () => {
          page.deliver('timer', () => {
            const callback = timers.get(id)
            timers.delete(id)
            callback?.()
          })
        })
        return id
      },
      clearTimeout: (id) => timers.delete(id),
      fetch: async () => world.script.wasm,
      reportError: (error) => world.fail(this, 'reports an error that nobody caught', error),
      console: Object.fromEntries(['log', 'warn', 'error'].map((name) => [name, (...words) => this.#print(name, words)])),
      crypto: {
        getRandomValues(array) {
          for (let i = 0; i < array.length; i++) array[i] = random.next()
          return array
        },
      },
      // When memory is freed must not depend on when garbage is collected.
      FinalizationRegistry: class {
        register() {}

        unregister() {}
      },
    })
    Object.defineProperty(this.#document, 'hidden', { get: () => this.hidden })
    global.Math.random = () => random.next() / 2 ** 32
    global.WebAssembly.instantiate = async (module, imports) => new global.WebAssembly.Instance(module, imports)
  }

  #print(name, words) {
    if (!this.isDead && name !== 'log') this.world.fail(this, `prints ${name}`, words.join(' '))
  }

  #slow(delay) {
    if (!this.hidden) return delay
    const step = this.world.conditions.throttle * SECOND
    return Math.ceil((this.world.now + delay) / step) * step - this.world.now
  }

  /** Counts one call of the browser. A page may die at any of them. */
  effect() {
    if (this.isDead) throw new Dead('the page is dead')
    if (this.crashAfter-- > 0) return
    this.world.kill(this, 'crashes')
    throw new Dead('the page has just died')
  }

  /** Runs code of the page. */
  enter(code) {
    if (this.isDead) return undefined
    this.world.entered.add(this)
    try {
      return code()
    } catch (error) {
      if (!(error instanceof Dead) && !this.isDead) this.world.fail(this, 'throws', error)
      return undefined
    }
  }

  /** Calls back when the task that runs now, and its microtasks, are done. */
  afterTask(callback) {
    this.world.entered.add(this)
    this.#afterTask.push(callback)
  }

  finishTask() {
    for (const callback of this.#afterTask.splice(0)) if (!this.isDead) callback()
  }

  /** Schedules a task. Tasks of one source keep their order. */
  task(source, delay, code) {
    const at = Math.max(this.world.now + delay, this.#lastAt.get(source) ?? 0)
    this.#lastAt.set(source, at)
    this.world.schedule(at - this.world.now, () => this.deliver(source, code))
  }

  /** Runs a task now, or when the page is no longer frozen. */
  deliver(source, code) {
    if (this.isDead) return
    const waits = this.frozen === 'all' || (this.frozen === 'messages' && source !== 'message')
    if (waits) this.#stash.push([source, code])
    else this.enter(code)
  }

  /** Sends something to the browser's storage. In some browsers a frozen page cannot. */
  send(message) {
    if (this.frozen !== 'no' && this.world.conditions.holdsFrozenRequests) this.#outbox.push(message)
    else if (!this.isDead) message()
  }

  freeze(how) {
    this.frozen = how
    // The browser may have granted what the page does not see: that is what makes frozen pages dangerous.
  }

  thaw() {
    this.frozen = 'no'
    this.awakeSince = this.world.now
    this.isTold = false
    this.isCached = false
    for (const message of this.#outbox.splice(0)) message()
    for (const [source, code] of this.#stash.splice(0)) this.task(source, 0, code)
  }

  /** Dispatches an event of the document or the window. */
  dispatch(target, name, fields = {}) {
    const listeners = (target === 'document' ? this.#document : this.#window).listenersOf(name)
    for (const listener of listeners) this.enter(() => listener({ type: name, ...fields }))
  }

  /** Loads the package and makes the page's node. */
  async load(options) {
    await this.world.script.page.runInContext(this.global)
    this.enter(() => {
      this.node = this.global.start(Object.assign(new this.global.Object(), options), (...what) => this.observe(...what))
    })
  }

  observe(what, ...values) {
    if (!this.isDead) this.world.observe(this, what, values)
  }
}
