// What must hold. The ledger keeps, for each incarnation of the cluster, the one order of actions that all pages apply, and
// what pages were told. It sees what an application sees (states, commits, how performs end), and what is in storage.

/** One incarnation of the cluster: from its founding until its storage is deleted. */
class Incarnation {
  /** The ops of the longest state that was seen, in order. */
  order = []
  /** By index in the log, the op of the action that was committed there. */
  byIndex = new Map()
  /** How many ops at the beginning of the order contain all those that were acknowledged. */
  acknowledged = 0
  /** By page, the number of its last op in the order. */
  lastNumbers = new Map()
  /** When and why its storage was deleted. */
  ended

  constructor(id, now) {
    this.id = id
    this.founded = now
  }
}

export class Ledger {
  incarnations = new Map()
  /** The one that is in storage. */
  current
  /** By node, the incarnation to which it belongs; who loaded it last; and all nodes that were ever in the registry. */
  nodes = new Map()
  owners = new Map()
  listed = new Set()
  /** By op, what was performed, and how it ended. */
  ops = []
  /** Databases that stay, because the page that had asked for their deletion died before that was begun. */
  #dropped = new Set()

  constructor(world, cluster) {
    this.world = world
    this.cluster = cluster
  }

  #fail(page, what) {
    this.world.fail(page, what, '')
  }

  // Storage

  /** A transaction was committed. */
  committed(database, back) {
    const { page } = back
    if (!back.isWrite) return
    if (database.name === this.cluster) return this.#registry(page, database.stores.get('registry').get('cluster'))
    const node = database.name.slice(this.cluster.length + 1)
    const record = database.stores.get('meta').get('record')
    const owner = this.owners.get(node)
    if (record && record.epoch !== owner?.epoch) {
      // Who loads a node raises its epoch, in the same transaction.
      this.owners.set(node, { page, epoch: record.epoch })
      this.nodes.set(node, this.#incarnation(record.incarnation))
    } else if (record && back.changed && owner.page !== page) {
      this.#fail(page, `writes to the node ${node}, which page ${owner.page.name} has loaded since`)
    }
    const [meta, log] = ['meta', 'log'].map((name) => database.stores.get(name))
    if (!record && (log.size > 0 || meta.has('hard') || meta.has('snapshot'))) {
      this.#fail(page, `writes to the node ${node}, which was deleted before`)
    }
  }

  #incarnation(id) {
    if (!this.incarnations.has(id)) this.incarnations.set(id, new Incarnation(id, this.world.now))
    return this.incarnations.get(id)
  }

  #registry(page, registry) {
    for (const node of registry?.nodes ?? []) this.listed.add(node)
    if (registry?.incarnation === this.current?.id) return
    if (this.current && registry) this.#fail(page, 'founds a second cluster beside the one that is there')
    if (this.current) {
      if (!page.isDestroying) this.#fail(page, 'deletes the registry, and nobody has called destroy()')
      this.end('destroyed', page)
    }
    if (!registry) return
    this.current = this.#incarnation(registry.incarnation)
    if (this.current.ended) this.#fail(page, 'founds a cluster again that has ended')
    this.world.note(`page ${page.name} founds the cluster ${registry.incarnation}`)
    this.world.stats.founded += 1
  }

  /** The storage of the present incarnation is deleted. */
  end(why, by) {
    if (!this.current) return
    this.world.note(`the cluster ${this.current.id} is ${why}`)
    this.current.ended = { at: this.world.now, why, by }
    this.current = undefined
  }

  droppedDeletion(database) {
    this.#dropped.add(database)
  }

  /** The databases that must not be there, now that nothing is under way and these nodes run. */
  garbage(nodes) {
    const wanted = new Set(nodes.map((node) => `${this.cluster}:${node}`)).add(this.cluster)
    const isExcused = (name) => {
      const node = name.slice(this.cluster.length + 1)
      const { stores, maker } = this.world.storage.get(name)
      // A page looked for a node that is gone, which makes an empty database, and died before it deleted that again.
      const isEmpty = [...stores.values()].every((store) => store.size === 0)
      // The page that made it died before it was put on the list: nobody knows of it, and nobody ever will.
      if (this.#dropped.has(name) || !this.listed.has(node) || (isEmpty && maker.isDead)) return true
      // The page that called destroy() died between the registry and the nodes.
      const by = this.nodes.get(node)?.ended?.by
      return by?.isDead && !by.hasDestroyed
    }
    const extra = this.world.storage.existing().map(({ name }) => name).filter((name) => !wanted.has(name))
    this.world.stats.orphans += extra.filter(isExcused).length
    const contents = (name) => [...this.world.storage.get(name).stores.values()].flatMap((store) => [...store.keys()])
    return extra.filter((name) => !isExcused(name)).map((name) => `${name} with [${contents(name)}]`)
  }

  // What pages show

  /** The incarnation of a page's own node. */
  of(page) {
    return this.nodes.get(page.node.status().id)
  }

  /** A page reports a committed action. */
  commit(page, index, op) {
    if (op === undefined) return
    const incarnation = this.of(page)
    if (!incarnation) return this.#fail(page, `reports a commit of op ${op}, and has no node`)
    const before = incarnation.byIndex.get(index)
    if (before !== undefined && before !== op) {
      this.#fail(page, `commits op ${op} at index ${index}, where others have committed op ${before}`)
    }
    incarnation.byIndex.set(index, op)
  }

  /** A page shows a state: a list of ops. */
  state(page, state = page.node.getState()) {
    const incarnation = this.of(page)
    if (!incarnation) return
    const { order } = incarnation
    const shared = Math.min(order.length, state.length)
    for (let at = 0; at < shared; at++) {
      if (order[at] !== state[at]) {
        return this.#fail(page, `shows op ${state[at]} at place ${at}, where others show op ${order[at]}`)
      }
    }
    if (page.shown?.incarnation === incarnation && state.length < page.shown.length) {
      this.#fail(page, `shows ${state.length} ops, after it had shown ${page.shown.length}`)
    }
    page.shown = { incarnation, length: state.length }
    for (const op of state.slice(order.length)) this.#extend(page, incarnation, op)
  }

  #extend(page, incarnation, op) {
    const performed = this.ops[op]
    if (performed?.what !== 'append') return this.#fail(page, `shows op ${op}, which appends nothing`)
    if (performed.place) return this.#fail(page, `shows op ${op} a second time, at place ${incarnation.order.length}`)
    if (performed.failed) return this.#fail(page, `shows op ${op}, which has failed with ${performed.failed}`)
    performed.place = { incarnation, at: incarnation.order.length }
    incarnation.order.push(op)
    const { number, page: performer } = performed
    if (incarnation.lastNumbers.get(performer) > number) {
      this.#fail(page, `shows op ${op} behind a later one of the same page`)
    }
    incarnation.lastNumbers.set(performer, number)
  }

  // What pages ask for

  asked(page, what) {
    page.asked = (page.asked ?? 0) + 1
    const incarnation = this.current
    const op = { id: this.ops.length, page, what, number: page.asked, at: this.world.now, incarnation, floor: incarnation?.acknowledged }
    this.ops.push(op)
    this.world.stats.ops += 1
    return op
  }

  /** A perform or read has ended well, or a method has refused it with `error`. */
  answered(op, error) {
    const { page } = op
    op.done = true
    const state = page.node.getState()
    this.state(page, state)
    const incarnation = this.of(page)
    this.world.stats.acknowledged += 1
    if (op.what === 'append') {
      if (!state.includes(op.id)) return this.#fail(page, `is told that op ${op.id} is done, and does not show it`)
      const { incarnation: where, at } = op.place
      where.acknowledged = Math.max(where.acknowledged, at + 1)
      if (where === op.incarnation && at < op.floor) {
        this.#fail(page, `appends op ${op.id} before ops that had been acknowledged when it was asked for`)
      }
      if (where.ended && op.at > where.ended.at + 10_000_000) {
        this.#fail(page, `is told that op ${op.id} is done, long after its cluster was ${where.ended.why}`)
      }
      return undefined
    }
    if (incarnation !== op.incarnation || !incarnation) return undefined
    const seen = op.what === 'look' ? Number(error.message) : op.what === 'read' ? state.length : Infinity
    if (seen < op.floor) this.#fail(page, `${op.what} saw ${seen} ops, when ${op.floor} had been acknowledged before`)
    return undefined
  }

  /** A perform or read has failed with a code. */
  failed(op, code) {
    op.done = true
    op.error = code
    // What ends with another code than these is known not to have run.
    if (op.what === 'append' && !['TIMEOUT', 'OUTCOME_UNKNOWN', 'CLOSED', ...FATAL].includes(code)) {
      op.failed = code
      if (op.place) this.#fail(op.page, `is told that op ${op.id} failed with ${code}, and it is in the state`)
    }
  }
}

/** The codes with which a node stops. */
export const FATAL = ['STORAGE_LOST', 'STORAGE_FAILED', 'DESTROYED']
