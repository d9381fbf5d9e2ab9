// A React hook for nodes. All components of one render see the same committed state, and a component renders again
// only when what it selects from the state has changed.
import { useCallback, useMemo, useSyncExternalStore } from 'react'

const nothing = () => () => {}

/**
 * Returns the committed state of a node, or what `selector` selects from it; `undefined` as long as there is no node.
 */
export const useConflux = (node, selector, isEqual = Object.is) => {
  const subscribe = useCallback((callback) => (node ? node.subscribe(callback) : nothing()), [node])
  const read = useMemo(() => {
    // React compares by reference, so an unchanged selection must be returned as the same value.
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
