// A Redux store for a node. Existing reducers and react-redux work unchanged. The difference is in timing: the state
// changes when the cluster has committed an action, not when `dispatch` returns.

import { fail } from './errors.js'

/** The action with which a Redux reducer is called for its first state. */
const INIT = { type: '@@conflux/INIT' }

const isPlain = (value) => {
  if (value === null || typeof value !== 'object') return false
  const prototype = Object.getPrototypeOf(value)
  return prototype === null || Object.getPrototypeOf(prototype) === null
}

/** Makes the options for `conflux({...})` from a Redux reducer. */
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

/** What the extension may do: show past states and export them, but not change anything. */
const FEATURES = { jump: true, pause: true, export: true, skip: false, reorder: false, dispatch: false, import: false, lock: false, persist: false, test: false }

/** How many past states are kept for the extension, which shows fifty. */
const KEPT = 100

/**
 * Shows every committed action in the Redux DevTools extension, if it is installed. `show` is called with the past
 * state that the user selects, or with nothing for the present one.
 */
const showInDevTools = (node, { name = 'Conflux' }, show) => {
  const devTools = globalThis.__REDUX_DEVTOOLS_EXTENSION__?.connect({ name, features: FEATURES })
  if (!devTools) return
  /** The states that were shown, by their JSON, because JSON is all that the extension returns of a state. */
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
    // The extension shows this form unchanged. In any other form, if the action has a field `action`, the extension
    // takes that field for the action itself.
    const shown = { ...own, type, '@@conflux': { index, term, node: nodeId } }
    devTools.send({ type: 'PERFORM_ACTION', action: shown, timestamp: Date.now() }, keep(node.getState()))
  })
  devTools.subscribe(({ type, payload, state }) => {
    if (type !== 'DISPATCH') return
    switch (payload.type) {
      case 'JUMP_TO_STATE':
      case 'JUMP_TO_ACTION':
        // A selected state that equals the present one means the present, so that the store follows new commits.
        if (state === JSON.stringify(node.getState())) show(undefined)
        else show({ state: states.has(state) ? states.get(state) : JSON.parse(state) })
        break
      case 'COMMIT':
        show(undefined)
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

/**
 * Makes a store.
 * @param node made with `reduxOptions`
 */
export const createStore = (node, { onError = (error) => console.error('conflux:', error), devTools = true } = {}) => {
  /** The past state selected in DevTools, if any. Only this store shows it; the cluster is not affected. */
  let past
  const listeners = new Set()
  const getState = () => (past ? past.state : node.getState())
  const subscribe = (listener) => {
    const notify = () => listener()
    listeners.add(notify)
    const stop = node.subscribe(notify)
    return () => {
      listeners.delete(notify)
      stop()
    }
  }
  if (devTools) {
    showInDevTools(node, devTools === true ? {} : devTools, (selected) => {
      past = selected
      for (const notify of [...listeners]) notify()
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
    /** Returns the action at once, as Redux does. Use `perform` to learn whether it was committed. */
    dispatch(action) {
      perform(action).catch((error) => onError(error, action))
      return action
    },
    /** Like `dispatch`, but returns a promise that settles when the action is committed and applied on this node. */
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
