// React's hook on a node: what a component sees is one committed state, and it renders again only when
// what it selects of it has changed.
import { useCallback, useMemo, useSyncExternalStore } from 'react'

const nothing = () => () => {}

/**
 * The committed state of a node, or what `selector` makes of it. Without a node (yet, or on a server) it
 * is `undefined`.
 */
export const useConflux = (node, selector, isEqual = Object.is) => {
  const subscribe = useCallback((callback) => (node ? node.subscribe(callback) : nothing()), [node])
  const read = useMemo(() => {
    // The same selection of the same state is the same value: React compares by reference.
    let last
    return () => {
      const state = node?.getState()
      if (!node || !selector) return state
      if (last && last.state === state) return last.value
      const selected = selector(state)
      const value = last && isEqual(last.value, selected) ? last.value : selected
      last = { state, value }
      return value
    }
  }, [node, selector, isEqual])
  return useSyncExternalStore(subscribe, read, read)
}
