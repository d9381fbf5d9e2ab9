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

/** @param node made with `reduxOptions` */
export const createStore = (node, { onError = (error) => console.error('conflux:', error) } = {}) => {
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
    getState: () => node.getState(),
    subscribe: (listener) => node.subscribe(listener),
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
          const tell = () => observer.next?.(node.getState())
          tell()
          return { unsubscribe: node.subscribe(tell) }
        },
        [Symbol.observable ?? '@@observable']() {
          return this
        },
      }
    },
  }
}
