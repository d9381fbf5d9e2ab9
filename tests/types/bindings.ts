// What the types of the bindings must infer, and what they must refuse.
import conflux from 'conflux-wasm'
import inline from 'conflux-wasm/inline'
import { useConflux } from 'conflux-wasm/react'
import { createStore, reduxOptions } from 'conflux-wasm/redux'
import { load } from 'conflux-wasm/slim'
import { enhanceServerForSocketIOChannel } from 'conflux-wasm/socket.io'
import { createServer } from 'node:http'

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
const same = <A, B>(_: Equal<A, B>) => {}

const node = conflux({
  id: 'a',
  clusterSize: 1,
  channel: { name: 'redis', channelName: 'x', connectionString: 'redis://127.0.0.1' },
  methods: { append: (word: string) => word },
  reduce: (state: string[] | undefined, action): string[] => (action === null ? [] : [...(state ?? []), action]),
})

const state = useConflux(node)
same<typeof state, string[]>(true)
const length = useConflux(node, (state) => state.length)
same<typeof length, number>(true)
const perhaps = useConflux(null as typeof node | null, (state) => state.length)
same<typeof perhaps, number | undefined>(true)
// @ts-expect-error the state is a list
useConflux(node, (state) => state.zooby)

type Action = { type: 'add'; text: string } | { type: 'clear' }
const reducer = (state: string[] = [], action: Action): string[] =>
  action.type === 'add' ? [...state, action.text] : action.type === 'clear' ? [] : state
const store = createStore(
  conflux(reduxOptions(reducer, { id: 'a', clusterSize: 1, channel: { name: 'socket.io', host: 'http://x', channel: 'y' } })),
)
const todos = store.getState()
same<typeof todos, string[]>(true)
const action = store.dispatch({ type: 'add', text: 'milk' })
same<typeof action.text, string>(true)
// @ts-expect-error no such action
store.dispatch({ type: 'zooby' })
// @ts-expect-error an action has its own fields
store.dispatch({ type: 'add', text: 7 })

const close: () => Promise<void> = enhanceServerForSocketIOChannel(createServer())
void close

// A commit has the type of the methods' actions.
node.on('commit', ({ index, nodeId, action }) => {
  same<typeof index, number>(true)
  same<typeof nodeId, string | null>(true)
  same<typeof action, string | undefined>(true)
})
createStore(store.node, { devTools: { name: 'todos' }, onError: (error, { type }) => void [error.code, type] })
// @ts-expect-error the extension is told a name, and nothing else
createStore(store.node, { devTools: 'todos' })

const tryEntries = async (module: WebAssembly.Module) => {
  const loaded = await load(fetch('/conflux_bg.wasm'))
  same<typeof loaded, typeof conflux>(true)
  same<typeof inline, typeof conflux>(true)
  await load(module)
  // @ts-expect-error nothing is no module
  await load(undefined)
}
void tryEntries
