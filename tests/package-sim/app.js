// The application that runs in every page of a run, in the page's own realm, on top of the package.
import { conflux } from 'conflux-wasm'

const methods = {
  append(op, padding) {
    return { op, padding }
  },
  refuse() {
    return new Error('refused')
  },
  nothing() {
    return null
  },
  // A read of what the leader sees: the answer is in the error, because a method returns actions only.
  look() {
    return new Error(String(this.getProvisionalState().length))
  },
}

const reduce = (state = [], action) => (action === null ? state : [...state, action.op])

/** Makes the page's node. `observe` gets what happens to it. */
globalThis.start = (options, observe) => {
  const node = conflux({ ...options, channel: { name: 'broadcast' }, methods, reduce })
  node.on('commit', ({ index, action }) => observe('commit', index, action?.op))
  node.on('error', ({ code, message }) => observe('error', code, message))
  node.subscribe(() => observe('state'))
  return node
}
