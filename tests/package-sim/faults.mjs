// The faults of a run, by seed, and what must be once they have stopped.

/** After the faults have stopped, everything must settle within this time, in µs. */
const SETTLED_WITHIN = 180_000_000

/** The conditions of a run: which faults there may be, how often, and how long things take, in µs. */
export const conditionsOf = (random) => {
  const all = random.chance(1, 6)
  const may = (part) => all || random.chance(part, 5)
  const least = random.between(100, 300)
  return {
    tabs: random.between(2, 6),
    loss: may(1) ? 40 : 0,
    repeats: may(2) ? 40 : 0,
    latency: random.between(300, 5_000),
    storage: random.between(100, 6_000),
    lock: random.between(100, 3_000),
    crashes: may(4),
    freezes: may(3),
    caches: may(2),
    hides: may(3),
    drops: may(2),
    storageErrors: may(2),
    quota: may(1),
    stalls: may(2),
    destroys: may(1),
    clears: may(1),
    extinctions: may(3),
    timeouts: may(3),
    holdsFrozenRequests: random.chance(1, 2),
    worker: random.pick(['works', 'works', 'works', 'refused', 'broken']),
    throttle: random.chance(1, 4) ? 60 : 1,
    faultPause: random.between(20_000, 400_000),
    pause: random.between(5_000, 80_000),
    padding: random.chance(1, 3) ? 60_000 : 200,
    maxVoters: random.between(1, 5),
    durability: random.chance(3, 4) ? 'strict' : 'relaxed',
    election: { min: least, max: least + random.between(20, 200) },
  }
}

export class Faults {
  /** Somebody has called destroy(). */
  isDestroyed = false
  /** Somebody has cleared the site's data, perhaps before a cluster was founded. */
  isCleared = false
  #probes

  constructor(world) {
    this.world = world
    // By name, how often it is drawn, and the fault; `at` is the page that it strikes.
    const { conditions } = world
    this.kinds = [
      [5, () => world.open()],
      [conditions.crashes && 4, (page) => this.#crash(page)],
      [2, (page) => this.#leave(page)],
      [1, (page) => this.#close(page)],
      [conditions.freezes && 4, (page) => this.#freeze(page)],
      [conditions.caches && 2, (page) => this.#cache(page)],
      [conditions.hides && 3, (page) => this.#hide(page)],
      [conditions.drops && 2, () => this.#drop()],
      [conditions.storageErrors && 3, (page) => this.#breakStorage(page)],
      [conditions.quota && 1, (page) => this.#fill(page)],
      [conditions.stalls && 1, () => this.#stall()],
      [conditions.destroys && 1, (page) => this.#destroy(page)],
      [conditions.clears && 1, () => this.#clear()],
      [conditions.extinctions && 1, () => this.#extinguish()],
    ].flatMap(([times, fault]) => Array.from({ length: times || 0 }, () => fault))
  }

  begin() {
    const { world } = this
    for (let i = world.random.between(1, world.conditions.tabs); i > 0; i--) {
      world.schedule(world.random.below(50_000), () => world.open())
    }
    world.schedule(world.random.below(500_000), () => this.#inject())
  }

  #inject() {
    const { world } = this
    if (world.healed !== undefined) return
    world.schedule(world.random.below(world.conditions.faultPause * 2), () => this.#inject())
    const pages = world.pages().filter(({ isLeaving }) => !isLeaving)
    if (pages.length === 0) return world.open()
    // The leader's page is chosen more often: there, most depends on the order of events.
    const leader = pages.find((page) => page.node?.status().role === 'leader')
    const page = leader && world.random.chance(2, 5) ? leader : world.random.pick(pages)
    world.random.pick(this.kinds)(page)
  }

  #crash(page) {
    page.crashAfter = this.world.random.below(30)
  }

  /** The page is closed or reloaded, and told so. */
  #leave(page) {
    if (page.frozen === 'no') page.dispatch('window', 'pagehide', { persisted: false })
    this.world.kill(page, 'is closed')
  }

  /** The application closes its node, and leaves later. */
  #close(page) {
    if (page.frozen !== 'no' || !page.node) return
    this.world.note(`page ${page.name} closes its node`)
    page.isLeaving = true
    page.enter(() => page.node.close().then(() => {
      this.#checkReleased(page, 'close()')
      this.#reload(page)
    }))
  }

  #destroy(page) {
    if (page.frozen !== 'no' || !page.node || page.stopped) return
    this.world.note(`page ${page.name} calls destroy()`)
    this.isDestroyed = true
    Object.assign(page, { isLeaving: true, isDestroying: true })
    if (this.world.conditions.quota && this.world.random.chance(1, 3)) this.#fill(page)
    const leave = () => {
      page.hasDestroyed = true
      this.#reload(page)
    }
    page.enter(() => page.node.destroy().then(leave, (error) => {
      const isExplained = error.code === 'STORAGE_FAILED' && (page.quotaErrors > 0 || page.transientErrors > 3)
      if (!isExplained) this.world.fail(page, 'cannot destroy the cluster', error)
      leave()
    }))
  }

  /** The page's node has stopped, and told so. The user reloads the page. */
  stopped(page) {
    page.isLeaving = true
    this.#reload(page)
  }

  #reload(page) {
    const { world } = this
    world.schedule(world.random.between(1_000, 300_000), () => {
      if (page.isDead) return
      if (page.waiting.size > 0 && page.frozen === 'no') {
        world.fail(page, `has stopped, and op ${[...page.waiting][0].id} never ends`)
      }
      this.#checkConnections(page)
      if (page.frozen === 'no') page.dispatch('window', 'pagehide', { persisted: false })
      world.kill(page, 'is closed')
      world.schedule(world.random.between(1_000, 300_000), () => world.open())
    })
  }

  /** A page that was told that it may be frozen has nothing left that others could wait for. */
  #checkReleased(page, what) {
    // The locks are released by a task of the browser, and before that by microtasks of the page.
    this.world.schedule(20_000, () => {
      if (page.isDead || (what !== 'close()' && !page.isTold)) return
      const label = (what, names) => names.map((name) => `${what} ${name}`)
      const { locks, channels } = this.world
      const kept = [...label('the lock', locks.heldBy(page)), ...label('the channel', channels.openedBy(page))]
      if (kept.length > 0) this.world.fail(page, `keeps after ${what}: ${kept.join(', ')}`)
    })
  }

  /** A page whose node has closed has no node's database open: in a page that is frozen later, that would be in the way. */
  #checkConnections(page) {
    if (page.frozen !== 'no' || page.node?.status().phase !== 'closed') return
    const { ledger, now } = this.world
    // One that was being opened when the node closed is closed as soon as it is there.
    const isKept = ({ front, database, since }) => !front.isClosed && database.name !== ledger.cluster && since < now - 100_000
    const [kept] = [...page.connections].filter(isKept)
    if (kept) this.world.fail(page, `keeps a connection to ${kept.database.name} after its node has closed`)
  }

  #freeze(page) {
    const { world } = this
    if (page.frozen !== 'no' || page.isLeaving) return
    const how = world.random.pick(['told', 'messages', 'all'])
    world.note(`page ${page.name} is frozen: ${how}`)
    world.stats.frozen += 1
    if (how === 'told') {
      page.isTold = true
      page.dispatch('document', 'freeze')
      this.#checkReleased(page, 'freeze')
    }
    // The event's microtasks still run.
    world.schedule(0, () => page.freeze(how === 'messages' ? how : 'all'))
    const most = world.random.chance(1, 2) ? 3_000_000 : 30_000_000
    world.schedule(world.random.between(1_000, most), () => this.#thaw(page))
  }

  #cache(page) {
    const { world } = this
    if (page.frozen !== 'no' || page.isLeaving) return
    world.note(`page ${page.name} goes into the back/forward cache`)
    world.stats.frozen += 1
    page.isTold = true
    const freezes = world.random.chance(1, 2)
    page.dispatch('window', 'pagehide', { persisted: true })
    if (freezes) page.dispatch('document', 'freeze')
    page.freezes = freezes
    world.schedule(0, () => {
      page.freeze('all')
      page.isCached = true
    })
    this.#checkReleased(page, 'pagehide')
    world.schedule(world.random.between(1_000, 5_000_000), () => this.#thaw(page))
  }

  #thaw(page) {
    if (page.isDead || page.frozen === 'no') return
    const { isTold, isCached, freezes } = page
    this.world.note(`page ${page.name} goes on`)
    page.thaw()
    if (isTold && (!isCached || freezes)) page.dispatch('document', 'resume')
    if (isCached) page.dispatch('window', 'pageshow', { persisted: true })
    page.freezes = false
  }

  #hide(page) {
    if (page.frozen !== 'no') return
    page.hidden = !page.hidden
    page.awakeSince = this.world.now
    this.world.note(`page ${page.name} is ${page.hidden ? 'hidden' : 'shown'}`)
    page.dispatch('document', 'visibilitychange')
  }

  #drop() {
    const { world } = this
    const names = world.locks.names()
    if (names.length === 0) return
    const name = world.random.pick(names)
    const tell = world.random.chance(1, 2)
    const page = world.locks.drop(name, tell)
    world.note(`page ${page.name} loses the lock ${name}, and is ${tell ? '' : 'not '}told`)
  }

  #breakStorage(page) {
    const { world } = this
    const kind = world.random.pick(['open', 'request', 'connection', 'connection'])
    world.note(`storage fails page ${page.name}: ${kind}`)
    if (kind === 'connection') {
      if (page.connections.size > 0) world.storage.lose(world.random.pick([...page.connections]))
    } else {
      page.faults[kind] += 1
    }
  }

  #fill(page) {
    this.world.note(`the disk is full for page ${page.name}`)
    page.faults.quota = 1
  }

  #stall() {
    this.world.note('storage stalls')
    this.world.storage.stalledUntil = this.world.now + this.world.random.between(10_000, 4_000_000)
  }

  #clear() {
    this.world.note('the site data is cleared')
    this.isCleared = true
    this.world.storage.clear()
  }

  #extinguish() {
    const { world } = this
    world.note('all pages die')
    for (const page of world.pages()) world.kill(page, 'dies')
    if (world.conditions.durability === 'strict' && world.random.chance(1, 2)) {
      world.schedule(90_000, () => world.pages().length === 0 && world.storage.powerCut())
    }
    world.schedule(world.random.between(100_000, 500_000), () => world.open())
  }

  // After the faults

  heal() {
    const { world } = this
    world.note('the faults stop')
    world.healed = world.now
    Object.assign(world.conditions, { loss: 0, repeats: 0, throttle: 1, storage: 600 })
    world.storage.stalledUntil = 0
    for (const page of world.pages()) {
      page.crashAfter = Infinity
      page.faults = { open: 0, request: 0, quota: 0 }
      if (page.frozen !== 'no' && world.random.chance(2, 3)) this.#thaw(page)
    }
    if (world.awake().length === 0) world.open()
    this.#watch()
  }

  #watch() {
    const { world } = this
    world.schedule(250_000, () => {
      // Without a worker, the nodes of a hidden page may elect a new leader with each of its timers, for ever.
      for (const page of world.awake()) if (page.hidden && world.conditions.worker !== 'works') this.#hide(page)
      if (world.awake().length === 0) world.open()
      // All tabs may be frozen, with no room for another one. Or a frozen page may hold up storage. The user is told so, and closes or resumes it.
      const awake = world.awake()
      if (awake.length === 0 || awake.some(({ isBlocked }) => isBlocked)) world.pages().forEach((page) => this.#thaw(page))
      const why = this.#unsettled(world.awake())
      if (!why && this.#probes) world.isDone = true
      else if (world.now > world.healed + SETTLED_WITHIN) world.fail(undefined, `nothing settles: ${why}`, this.#describe())
      else this.#watch()
    })
  }

  #describe() {
    return this.world.pages().map((page) => `\n  ${page.name}: ${JSON.stringify(page.node?.status())}`).join('')
  }

  /** What is not yet as it must be in the end, if anything. */
  #unsettled(pages) {
    const { world } = this
    if (pages.length === 0) return 'no page is awake'
    for (const page of pages) {
      if (page.isLeaving) return `page ${page.name} never leaves`
      if (!page.node?.status().leaderId) return `page ${page.name} knows of no leader`
      const [op] = [...page.waiting].filter((op) => !this.#mayWait(op))
      if (op) return `op ${op.id} of page ${page.name} never ends`
    }
    // The pages may have changed since the last time: every one that is awake must have succeeded.
    if (!pages.every((page) => this.#probes?.has(page))) {
      this.#probes = new Map(pages.map((page) => [page, world.clients.append(page)]))
      return 'the last performs have not ended'
    }
    for (const [page, op] of this.#probes) {
      if (op.error && !page.isDead) return world.fail(page, `cannot perform although all is well: ${op.error}`) ?? 'it fails'
    }
    const { order } = world.ledger.current ?? { order: [] }
    for (const page of pages) {
      const state = page.node.getState()
      world.ledger.state(page, state)
      if (world.ledger.of(page) !== world.ledger.current) return `page ${page.name} is in another incarnation`
      if (state.length !== order.length) return `page ${page.name} shows ${state.length} ops of ${order.length}`
    }
    return world.pages().length > pages.length ? undefined : this.#surplus(pages)
  }

  /**
   * A read that got its index from a leader of an earlier incarnation waits until the log of the present one is as long:
   * the core keeps the index. Remove this exception when it does not any more.
   */
  #mayWait({ what, page, incarnation }) {
    return what === 'read' && incarnation !== this.world.ledger.of(page)
  }

  /** With no page frozen, members and storage must be exactly what the pages need. */
  #surplus(pages) {
    const { world } = this
    const owns = pages.map((page) => page.node.status().id).sort()
    for (const page of pages) {
      const { id, members, running, snapshotIndex } = page.node.status()
      const log = world.storage.get(`${world.ledger.cluster}:${id}`).stores.get('log')
      const covered = [...log.keys()].filter((index) => index <= snapshotIndex)
      if (covered.length > 0) return `the log of ${id} keeps ${covered}, which the snapshot at ${snapshotIndex} covers`
      if ([...members].sort().join() !== owns.join()) return `the members are ${members}, and the pages' nodes ${owns}`
      if (running.length > 0) return `page ${page.name} still runs ${running}`
    }
    const registry = world.storage.get(world.ledger.cluster).stores.get('registry')?.get('cluster')
    if ([...registry.nodes].sort().join() !== owns.join()) return `the registry lists ${registry.nodes}, and the pages' nodes are ${owns}`
    const garbage = world.ledger.garbage(owns)
    return garbage.length > 0 ? `databases are left that nobody needs: ${garbage.join(', ')}` : undefined
  }
}
