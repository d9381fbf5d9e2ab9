// What the applications ask of their nodes, and that what they were told can be true.

/** A page that waits for so many answers asks for nothing more. */
const MAX_WAITING = 8

export class Clients {
  constructor(world) {
    this.world = world
  }

  begin(page) {
    page.waiting = new Set()
    this.#later(page)
  }

  #later(page) {
    const { random, conditions } = this.world
    this.world.schedule(random.between(0, conditions.pause * 2), () => {
      if (page.isDead || this.world.healed !== undefined) return
      this.#later(page)
      if (page.frozen === 'no' && page.node && !page.isLeaving && page.waiting.size < MAX_WAITING) this.#ask(page)
    })
  }

  #ask(page) {
    const { random, conditions } = this.world
    const draw = random.below(12)
    const timeout = conditions.timeouts && random.chance(1, 5) ? random.between(1, 800) : undefined
    if (draw < 7) this.append(page, timeout)
    else if (draw < 9) this.#read(page)
    else this.#perform(page, ['look', 'refuse', 'nothing'][draw - 9], [], timeout)
  }

  /** Performs an append. */
  append(page, timeout) {
    const { random, conditions } = this.world
    const padding = 'x'.repeat(random.below(random.chance(1, 2) ? 40 : conditions.padding))
    return this.#perform(page, 'append', [this.world.ledger.ops.length, padding], timeout)
  }

  #perform(page, what, args, timeout) {
    const op = this.world.ledger.asked(page, what)
    this.world.note(`page ${page.name} performs op ${op.id}: ${what}`)
    page.enter(() => {
      if (this.world.random.chance(1, 2)) {
        page.node.perform(what, args, timeout).then((value) => this.#done(op, undefined, value), (error) => this.#done(op, error))
      } else {
        page.node.perform(what, args, timeout, (error, value) => this.#done(op, error ?? undefined, value))
      }
    })
    page.waiting.add(op)
    return op
  }

  #read(page) {
    const op = this.world.ledger.asked(page, 'read')
    this.world.note(`page ${page.name} reads: op ${op.id}`)
    page.enter(() => page.node.read().then(() => this.#done(op), (error) => this.#done(op, error)))
    page.waiting.add(op)
  }

  #done(op, error, value) {
    const { page } = op
    if (page.isDead) return
    this.world.note(`page ${page.name}: op ${op.id} ends ${error ? `with ${error.code}: ${error.message}` : 'well'}`)
    if (op.done) this.world.fail(page, `is told twice how op ${op.id} ended`)
    page.waiting.delete(op)
    const refuses = op.what === 'look' || op.what === 'refuse'
    if (refuses && error?.code === 'METHOD_FAILED') return this.world.ledger.answered(op, error)
    if (error) return this.world.ledger.failed(op, error.code)
    if (refuses) return this.world.fail(page, `is told that op ${op.id} is done, although its method refuses it`)
    if (op.what === 'append' && value?.op !== op.id) this.world.fail(page, `gets another action than that of op ${op.id}`)
    return this.world.ledger.answered(op)
  }
}
