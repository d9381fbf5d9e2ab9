// What the types must infer, and what they must refuse.
import conflux, { type ConfluxError, type Node, type Status } from 'conflux-wasm'

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
const same = <A, B>(_: Equal<A, B>) => {}

const node = conflux({
  id: 'a',
  clusterSize: 3,
  channel: { name: 'broadcast', channel: 'x' },
  methods: {
    append(word: string) {
      return { type: 'append' as const, word }
    },
    maybe(n: number, label?: string) {
      return n > 0 ? { type: 'maybe' as const, n, label } : null
    },
    refuse() {
      return new Error('no')
    },
    judge(this: Node<string[]>, word: string) {
      // `this` is the node on the leader.
      const known: boolean = this.getProvisionalState().includes(word)
      return known ? new Error('again') : { type: 'append' as const, word }
    },
  },
  reduce: (state: string[] | undefined, action): string[] => {
    state = state ?? []
    if (action === null) return state
    switch (action.type) {
      case 'append':
        return [...state, action.word]
      case 'maybe':
        return [...state, String(action.n)]
    }
  },
})

// The state's type is inferred from `reduce`.
same<ReturnType<typeof node.getState>, string[]>(true)
same<ReturnType<typeof node.getProvisionalState>, string[]>(true)

// The type of `perform` is inferred from `methods`.
const appended = node.perform('append', ['x'])
same<Awaited<typeof appended>, { type: 'append'; word: string } | undefined>(true)
const refused = node.perform('refuse')
same<Awaited<typeof refused>, undefined>(true)
node.perform('maybe', [1])
node.perform('maybe', [1, 'one'], 500)
node.perform('append', ['x'], (error, action) => {
  same<typeof error, ConfluxError | null>(true)
  action?.word.toUpperCase()
})
node.perform('append', ['x'], 500, (error) => error?.code)
node.perform('append', ['x'], undefined, (error) => error?.code)
node.perform('refuse', (error) => error?.code)
// @ts-expect-error `append` cannot do without arguments
node.perform('append', (error) => error?.code)

// @ts-expect-error no such method
node.perform('zooby', [])
// @ts-expect-error a number is no word
node.perform('append', [1])
// @ts-expect-error an argument is missing
node.perform('append', [])
// @ts-expect-error a method with arguments needs them
node.perform('append')
// @ts-expect-error no such state
node.getState().nothing

same<ReturnType<typeof node.status>, Status>(true)
same<Status['role'], 'leader' | 'follower' | 'candidate' | 'learner'>(true)
node.on('error', (error) => error.code)
node.on('leader', (id) => id?.length)
// @ts-expect-error no such event
node.on('weather', () => {})
const stop: () => void = node.subscribe(() => {})
stop()
const closed: Promise<void> = node.close()
node.close((error) => same<typeof error, null>(true))
void closed

// @ts-expect-error a websocket needs a room
conflux({ id: 'a', clusterSize: 1, channel: { name: 'websocket', url: 'ws://x' }, methods: {}, reduce: () => 0 })
// @ts-expect-error no such channel
conflux({ id: 'a', clusterSize: 1, channel: { name: 'pigeon' }, methods: {}, reduce: () => 0 })
// @ts-expect-error methods are required
conflux({ id: 'a', clusterSize: 1, channel: { name: 'memory' }, reduce: () => 0 })

// The example of the original's README in TypeScript: arguments without annotation are `unknown`, and `perform` accepts
// them.
const loose = conflux({
  id: 'a',
  clusterSize: 1,
  channel: { name: 'memory' },
  methods: {
    append(thing) {
      return thing
    },
    optional(label?: string) {
      return { label }
    },
  },
  reduce: (state: unknown[] | undefined, action) => (state ?? []).concat([action]),
})
loose.perform('append', ['foo'])
loose.perform('optional')
loose.perform('optional', ['x'])

// No inferred type is `any`.
type IsAny<T> = 0 extends 1 & T ? true : false
same<IsAny<typeof node>, false>(true)
same<IsAny<Awaited<typeof appended>>, false>(true)
const list: Node<string[], { append(word: string): string }> | undefined = undefined
void list

// A state that JSON cannot carry, with `serialize` and `deserialize`.
const counts = conflux({
  id: 'a',
  clusterSize: 1,
  channel: { name: 'memory' },
  storage: { name: 'file', path: 'data/a' },
  methods: { add: (word: string) => word },
  reduce: (state: Map<string, number> | undefined, action): Map<string, number> =>
    action === null ? new Map() : new Map([...(state ?? []), [action, 1]]),
  serialize: (state) => [...state],
  deserialize: (saved: [string, number][]) => new Map(saved),
})
same<ReturnType<typeof counts.getState>, Map<string, number>>(true)
