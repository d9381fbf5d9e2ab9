// The entry for applications that supply the WebAssembly module themselves: from a cache, from another origin, or on a
// platform that compiles modules in advance.
import init, { CoreNode } from './conflux.js'
import { createConflux } from './shell.js'
import { browser } from './tabs.js'
import { fail } from './errors.js'

let loaded

/**
 * Loads the WebAssembly module from `source` (a module, bytes, a Response or a URL) and resolves with `conflux`. The
 * module is loaded once; later calls use the same one.
 */
export const load = async (source) => {
  if (source === undefined || source === null) {
    const message = 'load() wants the WebAssembly module, its bytes, a Response or its address, and got nothing'
    throw fail('INVALID_ARGUMENT', message)
  }
  loaded ??= Promise.resolve(source).then((module_or_path) => init({ module_or_path }))
  try {
    await loaded
  } catch (error) {
    // Forget the failure, so that the next call tries again.
    loaded = undefined
    throw fail('CANNOT_LOAD', `the WebAssembly module cannot be loaded: ${error.message}`)
  }
  return createConflux(() => CoreNode, browser)
}
