import type { Methods, Node } from './index.js'

/**
 * The committed state of a node. The component renders again when it changes; without a node (yet, or on
 * a server) it is `undefined`.
 */
export declare function useConflux<State, M extends Methods>(node: Node<State, M>): State
export declare function useConflux<State, M extends Methods>(node: Node<State, M> | null | undefined): State | undefined
/**
 * What `selector` makes of the committed state. The component renders again only when that has changed,
 * by `isEqual`, whose default is `Object.is`.
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
