import type { ConfluxError, Methods, Node, Options } from './index.js'

/** A plain object with a `type`, as Redux has it. */
export interface ReduxAction {
  type: string
}

/** A reducer as Redux has it. */
export type Reducer<State, A extends ReduxAction> = (state: State | undefined, action: A) => State

type Dispatch<A> = { dispatch: (action: A) => A }

/**
 * The options of a node whose state a reducer of Redux makes: `conflux(reduxOptions(reducer, {...}))`. The
 * reducer is called with `{type: '@@conflux/INIT'}` for its first state.
 */
export declare function reduxOptions<State, A extends ReduxAction>(
  reducer: Reducer<State, A>,
  options: Omit<Options<State, Methods>, 'methods' | 'reduce'>,
): Options<State, Dispatch<A>>

/** A store with Redux's own interface: what react-redux and others take. */
export interface ConfluxStore<State, A extends ReduxAction> {
  /** The node. */
  readonly node: Node<State, Dispatch<A>>
  /** The committed state. */
  getState(): State
  subscribe(listener: () => void): () => void
  /** Gives the action at once. It counts when it is committed; what goes wrong is told to `onError`. */
  dispatch<B extends A>(action: B): B
  /** The same, as a promise: settles when the action is committed, and applied here. */
  perform(action: A): Promise<A | undefined>
  /** Refused: every node must have the same reducer. */
  replaceReducer(next: Reducer<State, A>): never
  [Symbol.observable](): {
    subscribe(observer: { next?(state: State): void }): { unsubscribe(): void }
    [Symbol.observable](): unknown
  }
}

/** How a store behaves. */
export interface StoreOptions<A extends ReduxAction> {
  /** Told of actions that are not committed. The default writes to the console. */
  onError?: (error: ConfluxError, action: A) => void
  /**
   * Whether the Redux DevTools extension shows every committed action (its index, term and node), and may
   * look at past states: in this tab only, while the cluster goes on. Default: if it is installed.
   */
  devTools?: boolean | { name?: string }
}

/** A store over a node that was made with `reduxOptions`. */
export declare function createStore<State, A extends ReduxAction>(
  node: Node<State, Dispatch<A>>,
  options?: StoreOptions<A>,
): ConfluxStore<State, A>

declare global {
  interface SymbolConstructor {
    readonly observable: symbol
  }
}

// Nothing but what says so is exported.
export {}
