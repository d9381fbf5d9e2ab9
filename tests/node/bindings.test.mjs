// Tests of the React hook and the Redux store, with the real React, react-redux and Redux, on a DOM that is written in
// JavaScript (happy-dom).
import assert from 'node:assert/strict'
import { cp, mkdtemp, rm, symlink } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import { after, before, describe, it } from 'node:test'
import { createRequire } from 'node:module'
import { Window } from 'happy-dom'
import { closeAll, cluster, imported as conflux, packageDir, until } from './support.mjs'

const window = new Window()
Object.assign(globalThis, { window, document: window.document, IS_REACT_ACT_ENVIRONMENT: true })
globalThis.navigator ??= window.navigator
const { createElement: h, useState, act, StrictMode } = await import('react')
const { createRoot, hydrateRoot } = await import('react-dom/client')
const { renderToString } = await import('react-dom/server')
const { Provider, useDispatch, useSelector } = await import('react-redux')
const { applyMiddleware, combineReducers } = await import('redux')

// Install the package next to React, as an application does, so that the package finds the same React as the test.
const folder = await mkdtemp(path.join(os.tmpdir(), 'conflux-bindings-'))
await cp(packageDir, path.join(folder, 'node_modules/conflux-wasm'), { recursive: true })
await symlink(path.resolve('node_modules/react'), path.join(folder, 'node_modules/react'))
const require = createRequire(path.join(folder, 'index.js'))
const module = (name) => import(pathToFileURL(path.join(folder, 'node_modules/conflux-wasm', `${name}.js`)).href)
const { useConflux } = await module('react')
const { createStore, reduxOptions } = await module('redux')
after(async () => {
  await rm(folder, { recursive: true })
})

/** Renders an element into the document. Returns functions that read its text, render it again and remove it. */
const render = async (element) => {
  const container = document.createElement('div')
  document.body.append(container)
  const root = createRoot(container)
  await act(() => root.render(element))
  return { text: () => container.textContent, rerender: (element) => act(() => root.render(element)), unmount: () => act(() => root.unmount()) }
}

describe('useConflux', () => {
  let nodes
  before(() => {
    nodes = cluster(conflux, 3)
  })
  after(() => closeAll(nodes))

  it('shows the committed state, and renders again only when the selection changes', async () => {
    const [node] = nodes
    let renders = 0
    const Count = () => {
      renders++
      return useConflux(node, (state) => state.filter((value) => value === 'a').length)
    }
    const All = () => useConflux(node).join(' ')
    const page = await render(h('p', null, h(Count), ': ', h(All)))
    assert.equal(page.text(), '0: ')
    await act(() => node.perform('append', ['a']))
    assert.equal(page.text(), '1: a')
    const before = renders
    await act(() => node.perform('append', ['b']))
    assert.equal(page.text(), '1: a b')
    assert.equal(renders, before, 'the number is what it was')
    await page.unmount()
    await node.perform('append', ['c'])
    assert.equal(renders, before)
  })

  it('does not render again when the given equality says that a new selection equals the last one', async () => {
    const node = nodes[1]
    const same = (a, b) => a.length === b.length && a.every((value, i) => value === b[i])
    let renders = 0
    const Letters = () => {
      renders++
      return useConflux(node, (state) => state.filter((value) => value === 'a'), same).join(' ')
    }
    const page = await render(h(Letters))
    const before = renders
    await act(() => node.perform('append', ['z']))
    assert.equal(renders, before)
    await act(() => node.perform('append', ['a']))
    assert.equal(page.text(), 'a a')
    await page.unmount()
  })

  it('never shows two different states in one render', async () => {
    const node = nodes[2]
    const seen = []
    const One = () => useConflux(node, (state) => state.length)
    const Pair = () => {
      const [left, right] = [One(), One()]
      seen.push([left, right])
      return `${left}-${right}`
    }
    const page = await render(h(StrictMode, null, h(Pair)))
    await act(() => Promise.all(Array.from({ length: 20 }, (_, i) => node.perform('append', [i]))))
    assert.ok(seen.every(([left, right]) => left === right))
    await page.unmount()
  })

  it('works without a node, and follows a change of the node and of the selector', async () => {
    await Promise.all(nodes.map((node) => node.read()))
    let set
    const Switch = () => {
      const [{ node, select }, change] = useState({ node: null, select: (state) => state.length })
      set = change
      return String(useConflux(node, select))
    }
    const page = await render(h(Switch))
    assert.equal(page.text(), 'undefined')
    const { length } = nodes[0].getState()
    await act(() => set({ node: nodes[0], select: (state) => state.length }))
    assert.equal(page.text(), String(length))
    await act(() => set({ node: nodes[0], select: (state) => state[0] }))
    assert.equal(page.text(), 'a')
    await page.unmount()
  })

  it('renders on a server, and hydrates to the same HTML in a browser', async () => {
    const [node] = nodes
    const Page = () => h('b', null, useConflux(node, (state) => state[0]))
    const html = renderToString(h(Page))
    assert.equal(html, '<b>a</b>')
    const container = document.createElement('div')
    container.innerHTML = html
    const errors = []
    const root = await act(() => hydrateRoot(container, h(Page), { onRecoverableError: (error) => errors.push(error) }))
    assert.deepEqual([container.innerHTML, errors], [html, []])
    await act(() => root.unmount())
  })
})

const todos = (state = [], action) => (action.type === 'todos/add' ? [...state, action.text] : state)
const filter = (state = 'all', action) => (action.type === 'filter/set' ? action.filter : state)
const reducer = combineReducers({ todos, filter })

describe('a Redux store', () => {
  const channel = { name: 'memory', channel: 'redux' }
  let stores
  before(() => {
    stores = ['a', 'b', 'c'].map((id) => createStore(conflux(reduxOptions(reducer, { id, clusterSize: 3, channel }))))
  })
  after(() => closeAll(stores.map((store) => store.node)))

  it('starts with the reducer’s first state, and dispatches actions to all nodes', async () => {
    const [one, other] = stores
    assert.deepEqual(one.getState(), { todos: [], filter: 'all' })
    const action = { type: 'todos/add', text: 'milk' }
    assert.equal(one.dispatch(action), action, 'as Redux does')
    await until([other.node], () => other.getState().todos.length === 1, 'it is everywhere')
    await other.perform({ type: 'filter/set', filter: 'open' })
    assert.deepEqual(other.getState(), { todos: ['milk'], filter: 'open' })
  })

  it('refuses actions that Redux refuses, and a change of the reducer, and says why', () => {
    const [store] = stores
    class Action {
      type = 'todos/add'
    }
    for (const action of [undefined, null, 7, 'x', [], {}, { type: 7 }, new Date(), new Action()]) {
      assert.throws(() => store.dispatch(action), { code: 'INVALID_ARGUMENT', message: /plain object/ })
    }
    assert.throws(() => store.dispatch(() => {}), /add a middleware for thunks/)
    assert.throws(() => store.replaceReducer(reducer), { code: 'UNSUPPORTED', message: /same reducer/ })
    assert.throws(() => reduxOptions({}, {}), /must be a function/)
  })

  it('takes an action without a prototype', async () => {
    const action = Object.assign(Object.create(null), { type: 'nobody/knows' })
    assert.deepEqual(await stores[0].perform(action), { type: 'nobody/knows' })
  })

  it('calls onError with an action that was not committed', async () => {
    const node = conflux(reduxOptions(todos, { id: 'x', clusterSize: 1, channel: { name: 'memory', channel: 'told' } }))
    const failed = new Promise((resolve) => {
      const store = createStore(node, { onError: (error, action) => resolve([error.code, action.type]) })
      store.dispatch({ type: 'todos/add', text: () => {} })
    })
    assert.deepEqual(await failed, ['NOT_JSON', 'todos/add'])
    // Without onError, the console tells of it.
    const { error } = console
    const told = new Promise((resolve) => {
      console.error = (...words) => resolve(words)
    })
    createStore(node).dispatch({ type: 'todos/add', text: () => {} })
    const [name, { code }] = await told
    console.error = error
    assert.deepEqual([name, code], ['conflux:', 'NOT_JSON'])
    await node.close()
  })

  it('is observable', async () => {
    const [store] = stores
    const key = Symbol.observable ?? '@@observable'
    const seen = []
    const observable = store[key]()
    assert.equal(observable[key](), observable, 'what it gives is observable, too')
    const { unsubscribe } = store[key]().subscribe({ next: (state) => seen.push(state.filter) })
    await store.perform({ type: 'filter/set', filter: 'done' })
    unsubscribe()
    await store.perform({ type: 'filter/set', filter: 'all' })
    assert.deepEqual(seen, ['open', 'done'])
  })

  it('works with middleware', async () => {
    const log = []
    const logger = () => (next) => (action) => {
      log.push(action.type)
      return next(action)
    }
    const [base] = stores
    const store = applyMiddleware(logger)(() => base)()
    store.dispatch({ type: 'filter/set', filter: 'logged' })
    await until([base.node], () => base.getState().filter === 'logged', 'it is committed')
    assert.deepEqual(log, ['filter/set'])
  })

  it('works with react-redux', async () => {
    const [store] = stores
    const List = () => {
      const items = useSelector((state) => state.todos)
      const dispatch = useDispatch()
      return h('button', { onClick: () => dispatch({ type: 'todos/add', text: 'eggs' }) }, items.join(', '))
    }
    const page = await render(h(Provider, { store }, h(List)))
    assert.equal(page.text(), 'milk')
    const button = document.body.querySelector('button')
    await act(async () => {
      button.click()
      await until([store.node], () => store.getState().todos.length === 2, 'it is committed')
    })
    assert.equal(page.text(), 'milk, eggs')
    await page.unmount()
  })

  it('can be loaded through require, too', () => {
    assert.equal(require('conflux-wasm/react').useConflux.name, 'useConflux')
    const { createStore, reduxOptions } = require('conflux-wasm/redux')
    const store = createStore(stores[0].node)
    assert.equal(store.getState(), stores[0].getState())
    assert.equal(typeof reduxOptions, 'function')
  })
})

describe('Redux DevTools', () => {
  /** A fake of the extension, with its documented API: records what it is sent, and plays its user with `dispatch`. */
  const extension = () => {
    const connections = []
    return {
      connections,
      connect(options) {
        const connection = {
          options,
          shown: [],
          errors: [],
          init: (state) => (connection.shown = [{ action: { type: '@@INIT' }, state }]),
          // Like the extension: if the object that is sent has a field `action`, that field is taken for the action.
          send: (sent, state) => connection.recording && connection.shown.push({ action: sent.action ?? sent, state }),
          recording: true,
          error: (message) => connection.errors.push(message),
          subscribe: (listener) => (connection.dispatch = (payload) => {
            const state = connection.shown[payload.actionId ?? payload.index]?.state
            if (payload.type === 'PAUSE_RECORDING') connection.recording = !payload.status
            listener({ type: 'DISPATCH', payload, state: state && JSON.stringify(state) })
          }),
        }
        connections.push(connection)
        return connection
      },
    }
  }
  let stores
  before(() => {
    window.__REDUX_DEVTOOLS_EXTENSION__ = globalThis.__REDUX_DEVTOOLS_EXTENSION__ = extension()
    const nodes = cluster(conflux, 3, reduxOptions(reducer, {}))
    stores = nodes.map((node, i) => createStore(node, i === 2 ? { devTools: false } : { devTools: { name: node.status().id } }))
  })
  after(async () => {
    delete globalThis.__REDUX_DEVTOOLS_EXTENSION__
    await closeAll(stores.map(({ node }) => node))
  })
  const connections = () => globalThis.__REDUX_DEVTOOLS_EXTENSION__.connections
  const add = async (store, text) => {
    await store.perform({ type: 'todos/add', text })
    await Promise.all(stores.map(({ node }) => node.read()))
  }

  it('shows every committed action with index, term and node, for every store that has not disabled it', async () => {
    const [one, two] = stores
    await add(one, 'milk')
    await add(two, 'bread')
    assert.equal(connections().length, 2, 'one store did not want it')
    const ids = stores.map(({ node }) => node.status().id)
    const { term } = one.node.status()
    for (const [place, { options, shown }] of connections().entries()) {
      assert.equal(options.name, ids[place])
      assert.ok(options.features.jump && !options.features.skip && !options.features.dispatch)
      assert.deepEqual(shown.map(({ action: { type, text, '@@conflux': at } }) => [type, text, at?.node, at?.term]), [
        ['@@INIT', undefined, undefined, undefined],
        ['todos/add', 'milk', ids[0], term],
        ['todos/add', 'bread', ids[1], term],
      ])
      const [, first, second] = shown.map(({ action }) => action['@@conflux']?.index)
      assert.ok(first < second && second <= one.node.status().commitIndex)
      assert.deepEqual(shown.map(({ state }) => state.todos), [[], ['milk'], ['milk', 'bread']])
    }
  })

  it('time travel changes what the store shows, and nothing in the cluster', async () => {
    const [store, other] = stores
    const [connection] = connections()
    let told = 0
    const stop = store.subscribe(() => told++)
    connection.dispatch({ type: 'JUMP_TO_ACTION', actionId: 1 })
    assert.deepEqual([store.getState().todos, told], [['milk'], 1])
    assert.equal(store.getState(), connection.shown[1].state, 'the very state, not a copy')
    assert.deepEqual(store.node.getState().todos, ['milk', 'bread'], 'the node is where it was')
    assert.deepEqual(other.getState().todos, ['milk', 'bread'], 'and so are the others')
    await add(store, 'eggs')
    assert.deepEqual(store.getState().todos, ['milk'], 'it looks on')
    assert.deepEqual(other.getState().todos, ['milk', 'bread', 'eggs'], 'what is dispatched meanwhile counts')
    connection.dispatch({ type: 'JUMP_TO_STATE', index: 3 })
    assert.equal(store.getState(), store.node.getState(), 'the last one is the present')
    await add(other, 'salt')
    assert.deepEqual(store.getState().todos, ['milk', 'bread', 'eggs', 'salt'], 'which goes on')
    connection.dispatch({ type: 'PAUSE_RECORDING', status: true })
    await add(other, 'oil')
    connection.dispatch({ type: 'PAUSE_RECORDING', status: false })
    await store.perform({ type: 'nobody/knows', action: 'a field of this name' })
    assert.equal(connection.shown.at(-1).action.action, 'a field of this name')
    connection.dispatch({ type: 'JUMP_TO_ACTION', actionId: connection.shown.length - 1 })
    assert.equal(store.getState(), store.node.getState(), 'also when some were not recorded')
    stop()
  })

  it('starts a new history on COMMIT, and refuses commands that would change the past', () => {
    const [store] = stores
    const [connection] = connections()
    for (const type of ['RESET', 'ROLLBACK', 'IMPORT_STATE', 'TOGGLE_ACTION', 'REORDER_ACTION']) connection.dispatch({ type, actionId: 0 })
    assert.equal(connection.errors.length, 5)
    assert.match(connection.errors[0], /RESET is refused: what the cluster has committed stays/)
    connection.dispatch({ type: 'JUMP_TO_ACTION', actionId: 0 })
    assert.deepEqual(store.getState().todos, [])
    connection.dispatch({ type: 'COMMIT' })
    assert.deepEqual([connection.shown.length, store.getState()], [1, store.node.getState()])
  })
  it('keeps the hundred states that were shown last as they were, and tells no listener that has gone', () => {
    let state
    let commit
    const node = { getState: () => state, on: (event, listener) => (commit = listener), subscribe: () => () => {} }
    const states = Array.from({ length: 102 }, (_, number) => ({ number }))
    state = states[0]
    const store = createStore(node, {})
    const connection = connections().at(-1)
    let told = 0
    store.subscribe(() => told++)()
    const show = (next) => {
      state = next
      commit({ index: 1, term: 1, nodeId: 'a', action: { type: 'next' } })
    }
    const isKept = ({ number }) => {
      connection.dispatch({ type: 'JUMP_TO_STATE', index: number })
      assert.equal(store.getState().number, number)
      return store.getState() === states[number]
    }
    for (const next of states.slice(1, 100)) show(next)
    assert.ok(isKept(states[0]), 'it is the hundredth')
    // The first state comes back, so the second one was shown longest ago.
    show(states[0])
    show(states[100])
    assert.deepEqual([states[0], states[1], states[2]].map(isKept), [true, false, true])
    assert.equal(told, 0)
  })
})
