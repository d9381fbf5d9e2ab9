// Redux's store over a node: an existing reducer, and react-redux on top, work as they are. What differs is
// time: an action counts when the cluster has committed it, not when `dispatch` returns.

import { fail } from './words.js'

/** What a reducer of Redux is called with for its first state. */
const INIT = { type: '@@conflux/INIT' }

const isPlain = (value) => {
  if (value === null || typeof value !== 'object') return false
  const prototype = Object.getPrototypeOf(value)
  return prototype === null || Object.getPrototypeOf(prototype) === null
}

/** The options of a node whose state a reducer of Redux makes: for `conflux({...})`. */
export const reduxOptions = (reducer, options) => {
  if (typeof reducer !== 'function') {
    throw fail('INVALID_OPTIONS', `Invalid options: the reducer must be a function, and is a ${typeof reducer}`)
  }
  return {
    ...options,
    methods: { ...options.methods, dispatch: (action) => action },
    reduce: (state, action) => reducer(state, action ?? INIT),
  }
}

/** What the extension may do: look, and take with it what it has seen. */
const FEATURES = { jump: true, pause: true, export: true, skip: false, reorder: false, dispatch: false, import: false, lock: false, persist: false, test: false }

/** How many past states are kept to be looked at. The extension shows fifty. */
const KEPT = 100

/** Shows what is committed in the Redux DevTools extension, if it is there. `look` is given a past state, or nothing. */
const showInDevTools = (node, { name = 'Conflux' }, look) => {
  const devTools = globalThis.__REDUX_DEVTOOLS_EXTENSION__?.connect({ name, features: FEATURES })
  if (!devTools) return
  /** The states that were shown, by what the extension makes of them: it gives back no more than that. */
  const states = new Map()
  const keep = (state) => {
    const key = JSON.stringify(state)
    states.delete(key)
    states.set(key, state)
    if (states.size > KEPT) states.delete(states.keys().next().value)
    return state
  }
  devTools.init(keep(node.getState()))
  node.on('commit', ({ index, term, nodeId, action }) => {
    const own = isPlain(action) ? action : {}
    const type = action === undefined ? '@@conflux/SNAPSHOT' : (own.type ?? JSON.stringify(action))
    // The form that the extension leaves as it is; otherwise it takes a field `action` for the whole.
    const shown = { ...own, type, '@@conflux': { index, term, node: nodeId } }
    devTools.send({ type: 'PERFORM_ACTION', action: shown, timestamp: Date.now() }, keep(node.getState()))
  })
  devTools.subscribe(({ type, payload, state }) => {
    if (type !== 'DISPATCH') return
    switch (payload.type) {
      case 'JUMP_TO_STATE':
      case 'JUMP_TO_ACTION':
        // What is the same as the present is the present, which goes on.
        if (state === JSON.stringify(node.getState())) look(undefined)
        else look({ state: states.has(state) ? states.get(state) : JSON.parse(state) })
        break
      case 'COMMIT':
        look(undefined)
        devTools.init(keep(node.getState()))
        break
      case 'RESET':
      case 'ROLLBACK':
      case 'IMPORT_STATE':
      case 'TOGGLE_ACTION':
      case 'REORDER_ACTION':
        devTools.error(`${payload.type} is refused: what the cluster has committed stays; DevTools can only look at it`)
    }
  })
}

/** @param node made with `reduxOptions` */
export const createStore = (node, { onError = (error) => console.error('conflux:', error), devTools = true } = {}) => {
  /** The past state that DevTools looks at. Nobody else sees it, and the cluster goes on. */
  let looked
  const lookers = new Set()
  const getState = () => (looked ? looked.state : node.getState())
  const subscribe = (listener) => {
    const looker = () => listener()
    lookers.add(looker)
    const stop = node.subscribe(looker)
    return () => {
      lookers.delete(looker)
      stop()
    }
  }
  if (devTools) {
    showInDevTools(node, devTools === true ? {} : devTools, (past) => {
      looked = past
      for (const looker of [...lookers]) looker()
    })
  }
  const perform = (action) => {
    if (typeof action === 'function') {
      throw fail('INVALID_ARGUMENT', 'dispatch() wants a plain object, and got a function: add a middleware for thunks')
    }
    if (!isPlain(action) || typeof action.type !== 'string') {
      throw fail('INVALID_ARGUMENT', 'dispatch() wants a plain object with a `type` that is a string')
    }
    return node.perform('dispatch', [action])
  }
  return {
    node,
    getState,
    subscribe,
    /** Gives the action, as Redux does. What becomes of it shows in the state; `perform` tells it. */
    dispatch(action) {
      perform(action).catch((error) => onError(error, action))
      return action
    },
    /** The same, as a promise: settles when the action is committed, and applied here. */
    perform,
    replaceReducer() {
      const message = 'replaceReducer() is refused: every node must have the same reducer. Load the page anew with the new one'
      throw fail('UNSUPPORTED', message)
    },
    [Symbol.observable ?? '@@observable']() {
      return {
        subscribe(observer) {
          const tell = () => observer.next?.(getState())
          tell()
          return { unsubscribe: subscribe(tell) }
        },
        [Symbol.observable ?? '@@observable']() {
          return this
        },
      }
    },
  }
}
