import type { ConfluxError, Methods, Node, Options } from './index.js'

/** A Redux action: a plain object with a `type`. */
export interface ReduxAction {
  type: string
}

/** A Redux reducer. */
export type Reducer<State, A extends ReduxAction> = (state: State | undefined, action: A) => State

type Dispatch<A> = { dispatch: (action: A) => A }

/**
 * Makes the options of a node from a Redux reducer: `conflux(reduxOptions(reducer, {...}))`. The reducer is called
 * with `{ type: '@@conflux/INIT' }` for the first state. Throws `INVALID_OPTIONS` if `reducer` is not a function.
 */
export declare function reduxOptions<State, A extends ReduxAction>(
  reducer: Reducer<State, A>,
  options: Omit<Options<State, Methods>, 'methods' | 'reduce'>,
): Options<State, Dispatch<A>>

/** A store with Redux's own interface, for react-redux, middleware and other tools of Redux. */
export interface ConfluxStore<State, A extends ReduxAction> {
  /** The node. */
  readonly node: Node<State, Dispatch<A>>
  /** The committed state, or the past state that the user has selected in the Redux DevTools. */
  getState(): State
  /**
   * Calls `listener` after every committed action, and when the user selects another state in the Redux DevTools.
   * Returns a function that removes the listener.
   */
  subscribe(listener: () => void): () => void
  /**
   * Returns the action at once. The state changes later, when the action is committed and applied on this node. If it
   * is not committed, `onError` is called. Throws `INVALID_ARGUMENT` if the action is not a plain object with a `type`
   * that is a string.
   */
  dispatch<B extends A>(action: B): B
  /**
   * Like `dispatch`, but returns a promise, which resolves when the action is committed and applied on this node, and
   * rejects with a `ConfluxError`.
   */
  perform(action: A): Promise<A | undefined>
  /** Always throws `UNSUPPORTED`: every node must have the same reducer. */
  replaceReducer(next: Reducer<State, A>): never
  [Symbol.observable](): {
    subscribe(observer: { next?(state: State): void }): { unsubscribe(): void }
    [Symbol.observable](): unknown
  }
}

/** The options of a store. */
export interface StoreOptions<A extends ReduxAction> {
  /** Called with each dispatched action that fails, and the error. The default writes the error to the console. */
  onError?: (error: ConfluxError, action: A) => void
  /**
   * Whether the Redux DevTools extension shows every committed action with its index, term and node. In the extension
   * the user can look at past states; only this store shows them, and the cluster is not affected. `name` is the
   * instance's name in the extension, by default `Conflux`. Default `true`, which does nothing without the extension.
   */
  devTools?: boolean | { name?: string }
}

/** Makes a store for a node that was made with `reduxOptions`. */
export declare function createStore<State, A extends ReduxAction>(
  node: Node<State, Dispatch<A>>,
  options?: StoreOptions<A>,
): ConfluxStore<State, A>

declare global {
  interface SymbolConstructor {
    readonly observable: symbol
  }
}

// Without this line TypeScript would export every declaration of this file.
export {}
