import type { Methods, Node } from './index.js'

/**
 * A React hook that returns the committed state of a node and renders the component again when the state changes.
 * Returns `undefined` as long as there is no node (`null` or `undefined`).
 */
export declare function useConflux<State, M extends Methods>(node: Node<State, M>): State
export declare function useConflux<State, M extends Methods>(node: Node<State, M> | null | undefined): State | undefined
/**
 * Returns what `selector` selects from the committed state. The component renders again only when the selection
 * changes, as `isEqual` decides. The default is `Object.is`, so a selector that builds a new object at each call
 * needs an `isEqual` of its own.
 */
export declare function useConflux<State, M extends Methods, Selected>(
  node: Node<State, M>,
  selector: (state: State) => Selected,
  isEqual?: (a: Selected, b: Selected) => boolean,
): Selected
export declare function useConflux<State, M extends Methods, Selected>(
  node: Node<State, M> | null | undefined,
  selector: (state: State) => Selected,
  isEqual?: (a: Selected, b: Selected) => boolean,
): Selected | undefined
