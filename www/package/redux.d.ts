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

/** A store over a node that was made with `reduxOptions`. `onError` is told of actions that are not committed. */
export declare function createStore<State, A extends ReduxAction>(
  node: Node<State, Dispatch<A>>,
  options?: { onError?: (error: ConfluxError, action: A) => void },
): ConfluxStore<State, A>

declare global {
  interface SymbolConstructor {
    readonly observable: symbol
  }
}
